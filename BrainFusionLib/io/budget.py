"""How much a file may ask for: voxels, and memory, checked against its header before any is allocated."""

from __future__ import annotations

import os
import sys
from functools import cache
from math import prod
from pathlib import Path

from BrainFusionLib.errors import ImageFileError

MOST_VOXELS = 1 << 31
# Reading holds the stored values and their float32 copy; the other half is for what is done with them.
_SHARE_OF_MEMORY = 0.5
_FLOAT32_BYTES = 4
_CGROUP_LIMITS = ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes")


@cache
def memory_bytes() -> int | None:
    """Return the memory of this machine, or the limit of its container if that is smaller; ``None`` if unknown."""
    known = [_physical_bytes(), *(_number_in(Path(name)) for name in _CGROUP_LIMITS)]
    return min((number for number in known if number), default=None)


def refuse_too_large(path: Path, sizes: tuple[int, ...], value_bytes: int) -> None:
    """Refuse a volume that this machine could not hold, by its header.

    Parameters
    ----------
    path
        The file, for the message.
    sizes
        Voxels along each axis.
    value_bytes
        Bytes of one value as it is stored.

    Raises
    ------
    ImageFileError
        More than 2**31 voxels, or more than half of the memory for reading them.
    """
    voxels, memory = prod(sizes), memory_bytes()
    if voxels > MOST_VOXELS:
        raise ImageFileError(
            f"{path}: its header promises {voxels} voxels, more than the {MOST_VOXELS} that are read. Crop the volume, "
            "or, if it is not that large, correct the header."
        )
    needed = voxels * (value_bytes + _FLOAT32_BYTES)
    if memory is not None and needed > memory * _SHARE_OF_MEMORY:
        raise ImageFileError(
            f"{path}: its {voxels} voxels would need {needed / 1e9:.1f} GB, more than half of the memory of this "
            f"machine ({memory / 1e9:.1f} GB). Crop the volume, or read it on a larger machine."
        )


def _physical_bytes() -> int | None:
    if sys.platform == "win32":
        return _windows_bytes()
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (OSError, ValueError):
        return None


def _windows_bytes() -> int | None:
    import ctypes

    class Status(ctypes.Structure):
        _fields_ = (
            ("length", ctypes.c_ulong),
            ("load", ctypes.c_ulong),
            ("physical", ctypes.c_ulonglong),
            ("others", ctypes.c_ulonglong * 6),
        )

    status = Status(length=ctypes.sizeof(Status))
    windll = getattr(ctypes, "windll", None)
    if windll is None or not windll.kernel32.GlobalMemoryStatusEx(ctypes.byref(status)):
        return None
    return int(status.physical)


def _number_in(path: Path) -> int | None:
    try:
        return int(path.read_text(encoding="ascii"))
    except (OSError, ValueError):  # no such limit, or the word "max"
        return None
