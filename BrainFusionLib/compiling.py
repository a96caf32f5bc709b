"""Inner loops in C: several times as fast as torch, and optional.

A library is built when it is first needed (half a second) and kept in the user's cache folder. Without a C compiler, or
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

# Not -ffast-math: when linked into a library, it changes the treatment of denormal numbers in the whole process.
FLAGS = ("-O3", "-std=c99", "-shared", "-fPIC", "-fno-math-errno", "-fno-trapping-math", "-fno-signed-zeros")
COMPILE_SECONDS = 60


def load_compiled(source: Path, names: Sequence[str], flags: Sequence[str] = ()) -> ctypes.CDLL | None:
    """Build a C file, or find it already built, and return it; ``None`` if it is not available.

    Parameters
    ----------
    source
        One file of C99 that includes only standard headers.
    names
        The functions that it must contain.
    flags
        More arguments for the compiler, after `FLAGS`.
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
        path.unlink(missing_ok=True)  # an incomplete file: build it again
    return None


def _compiler() -> list[str] | None:
    """Return the command of the C compiler named by ``CC``, or ``cc``; ``None`` if there is neither."""
    for words in (shlex.split(os.environ.get("CC", "")), ["cc"]):
        if words and shutil.which(words[0]):
            return words
    return None


def library_of(source: Path, compiler: Sequence[str], flags: Sequence[str] = ()) -> Path:
    """Return the library for this source and this processor; build it if it does not exist yet."""
    processor = _processor()
    words = [*compiler, *FLAGS, *flags]
    key = hashlib.sha256(source.read_bytes() + " ".join([*words, processor]).encode()).hexdigest()[:20]
    folder = _private_folder()
    library = folder / f"{source.stem}-{key}.so"
    if not library.exists():
        with tempfile.TemporaryDirectory(dir=folder) as build:
            made = Path(build) / library.name
            # Built for exactly this processor, if it is known: vector units differ.
            native = ["-march=native"] if processor else []
            subprocess.run(
                [*words, *native, "-o", str(made), str(source)],
                check=True, capture_output=True, timeout=COMPILE_SECONDS, stdin=subprocess.DEVNULL,
            )  # fmt: skip
            made.replace(library)
    return library


def _processor() -> str:
    """Return a description of the processor's instruction set; empty if it is not known.

    A home folder may be shared by different machines, and a library built for one can crash on another.
    """
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return ""
    flags = next((line for line in lines if line.startswith(("flags", "Features"))), "")
    return platform.machine() + flags


def _private_folder() -> Path:
    """Return a cache folder to which only the user can write, because its files are loaded as code.

    Raises
    ------
    OSError
        There is no such folder.
    """
    base = Path.home() / "Library/Caches" if sys.platform == "darwin" else Path.home() / ".cache"
    folder = Path(os.environ.get("XDG_CACHE_HOME") or base) / "brainfusion"
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    status = folder.stat()
    if status.st_uid != os.getuid() or status.st_mode & 0o022:
        raise PermissionError(f"{folder} can be written to by others")
    return folder
