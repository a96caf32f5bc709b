"""The inner loops in C: one library that comes with the package, and is optional.

It is built with the wheel or with the extension; in a source checkout, ``python3 dev.py build`` puts it beside this
file. Nothing is built or downloaded on use. Without the library, or with ``BRAINFUSION_NATIVE=0`` in the environment,
slower loops do the same work.
"""

from __future__ import annotations

import ctypes
import hashlib
import logging
import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from BrainFusionLib.version import __version__

FOLDER = Path(__file__).parent
FILE = FOLDER / ("_native.dll" if sys.platform == "win32" else "_native.so")
# What the processor has, as native.c counts it: the name, and the ending of the functions built for it.
VECTORS = (("", ""), ("AVX2", "_avx2"), ("AVX-512", "_avx512"))

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Native:
    """The library, or why it is not used.

    Attributes
    ----------
    library
        ``None`` if it is not used.
    problem
        Why not; empty if it is used or was switched off.
    vectors
        Index of `VECTORS`: the best that this processor has.
    """

    library: ctypes.CDLL | None
    problem: str = ""
    vectors: int = 0

    @property
    def remedy(self) -> str:
        """What brings the library; empty if nothing is wrong."""
        if not self.problem:
            return ""
        if (FOLDER / "native.c").exists() and (FOLDER.parent / "dev.py").exists():
            return "run `python3 dev.py build` in the repository"
        return "install BrainFusion again, on a computer with a C compiler if there is no package built for this one"


def load_compiled(names: Sequence[str]) -> Any:
    """Return an object with the C functions `names`, the best of each for this processor; ``None`` if not available.

    The first call that finds a fault of the library notes it in the log.
    """
    found = native()
    if found.library is None:
        return None
    endings = [ending for _, ending in reversed(VECTORS[: found.vectors + 1])]
    functions = {}
    for name in names:
        # ctypes makes a new object for each item, so that one caller's types do not change another's.
        there = [found.library[name + ending] for ending in endings if hasattr(found.library, name + ending)]
        if not there:
            return None
        functions[name] = there[0]
    return SimpleNamespace(**functions)


@lru_cache(maxsize=1)
def native() -> Native:
    """Load the library of this package, once; note in the log why it is not used, once."""
    if os.environ.get("BRAINFUSION_NATIVE") == "0":
        return Native(None)
    found = opened(FILE)
    if found.problem:
        logger.warning("The inner loops run without the C library, more slowly: %s; %s.", found.problem, found.remedy)
    return found


def opened(path: Path) -> Native:
    """Load a library if it is one of this version; else say why not."""
    if not path.exists():
        return Native(None, f"{path.name} is not there")
    try:
        library = ctypes.CDLL(str(path))
        texts = (library.brainfusion_version, library.brainfusion_sources)
    except (OSError, AttributeError):
        return Native(None, f"{path.name} is not a library of BrainFusion for this computer")
    for text in texts:
        text.restype = ctypes.c_char_p
    version, sources = (text().decode("ascii", "replace") for text in texts)
    if version != __version__:
        return Native(None, f"{path.name} is of version {version}, not {__version__}")
    if (expected := sources_sha256()) and sources != expected:
        return Native(None, f"{path.name} was built from other C files than these")
    return Native(library, vectors=min(max(int(library.brainfusion_vectors()), 0), len(VECTORS) - 1))


def sources_sha256() -> str:
    """Return the sha256 of the C files and how they are built, as CMakeLists.txt counts it; empty where they are not.

    They are in a source checkout only, where they change while the version stays.
    """
    if not (FOLDER / "native.c").exists():
        return ""
    files = [path for ending in ("*.c", "*.h") for path in FOLDER.rglob(ending)]
    names = sorted([path.relative_to(FOLDER).as_posix() for path in files] + ["CMakeLists.txt"])
    each = "".join(hashlib.sha256((FOLDER / name).read_bytes()).hexdigest() for name in names)
    return hashlib.sha256(each.encode()).hexdigest()
