"""Inner loops in C, where the machine has a C compiler: several times as fast as torch, and never a condition.

A library is built when it is first needed (half a second) and kept in the user's cache folder; without a compiler, or
with ``BRAINFUSION_COMPILE=0`` in the environment, torch does the same work. Nothing is downloaded.
"""

from __future__ import annotations

import ctypes
import hashlib
import os
import platform
import shlex
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

# Not -ffast-math: linked into a library, it changes how the whole process treats tiny numbers.
FLAGS = ("-O3", "-std=c99", "-shared", "-fPIC", "-fno-math-errno", "-fno-trapping-math", "-fno-signed-zeros")
COMPILE_SECONDS = 60


def load_compiled(source: Path, names: Sequence[str], flags: Sequence[str] = ()) -> ctypes.CDLL | None:
    """Build a C file, or find it built, and return it; ``None`` where it cannot be had.

    Parameters
    ----------
    source
        One file of C99 that needs no headers but the standard library's.
    names
        The functions that it must have.
    flags
        More words for the compiler, after `FLAGS`.
    """
    if sys.platform == "win32" or os.environ.get("BRAINFUSION_COMPILE") == "0":
        return None
    compiler = _compiler()
    if compiler is None:
        return None
    for _ in range(2):
        try:
            path = library_of(source, compiler, flags)
        # A folder that cannot be written to, a user without a home, a compiler that fails: torch does the work.
        except (OSError, RuntimeError, subprocess.SubprocessError):
            return None
        try:
            library = ctypes.CDLL(str(path))
            if all(hasattr(library, name) for name in names):
                return library
        except OSError:
            pass
        path.unlink(missing_ok=True)  # half a file, by whatever accident: build it again
    return None


def _compiler() -> list[str] | None:
    """Return the command of the C compiler that ``CC`` names, or ``cc``; ``None`` where there is neither."""
    for words in (shlex.split(os.environ.get("CC", "")), ["cc"]):
        if words and shutil.which(words[0]):
            return words
    return None


def library_of(source: Path, compiler: Sequence[str], flags: Sequence[str] = ()) -> Path:
    """Return the library for this source and this processor; build it when it is not there yet."""
    processor = _processor()
    words = [*compiler, *FLAGS, *flags]
    key = hashlib.sha256(source.read_bytes() + " ".join([*words, processor]).encode()).hexdigest()[:20]
    folder = _private_folder()
    library = folder / f"{source.stem}-{key}.so"
    if not library.exists():
        with tempfile.TemporaryDirectory(dir=folder) as build:
            made = Path(build) / library.name
            # Built for exactly this processor where it is known which one that is: vector units differ.
            native = ["-march=native"] if processor else []
            subprocess.run(
                [*words, *native, "-o", str(made), str(source)],
                check=True, capture_output=True, timeout=COMPILE_SECONDS, stdin=subprocess.DEVNULL,
            )  # fmt: skip
            made.replace(library)
    return library


def _processor() -> str:
    """Name the processor's instruction set; empty where it is not known.

    A home folder may be shared by machines of several kinds, and a library built for one would crash another.
    """
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return ""
    flags = next((line for line in lines if line.startswith(("flags", "Features"))), "")
    return platform.machine() + flags


def _private_folder() -> Path:
    """Return a cache folder that nobody but the user can write to: what lies there is loaded as code.

    Raises
    ------
    OSError
        There is none.
    """
    base = Path.home() / "Library/Caches" if sys.platform == "darwin" else Path.home() / ".cache"
    folder = Path(os.environ.get("XDG_CACHE_HOME") or base) / "brainfusion"
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    status = folder.stat()
    if status.st_uid != os.getuid() or status.st_mode & 0o022:
        raise PermissionError(f"{folder} can be written to by others")
    return folder
