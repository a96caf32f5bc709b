"""How many cases a machine's memory holds at once."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

import SimpleITK as sitk

from BrainFusionLib.cohort.manifest import Entry

# Peak of a process that fuses one case: so much, and so much a voxel of the CT and of the MRI (docs/cohorts.md).
BASE_BYTES, BYTES_A_CT_VOXEL, BYTES_AN_MRI_VOXEL = 450e6, 6.0, 45.0
# So much of the memory that is free is used.
SHARE = 0.8


def workers_that_fit(entries: Sequence[Entry]) -> tuple[int, float]:
    """Return how many of these cases the free memory and the cores hold at once, at least 1, and the bytes of one.

    Raises
    ------
    ImportError
        psutil and Dask, which know the memory and its limits, are not installed.
    """
    free = free_bytes()
    needed = max((bytes_needed(entry) for entry in entries), default=BASE_BYTES)
    return max(1, min(len(entries), cores(), int(SHARE * free / needed))), needed


def bytes_needed(entry: Entry) -> float:
    """Return the memory that a case's process needs at most, from the size of its files."""
    return BASE_BYTES + BYTES_A_CT_VOXEL * voxels(entry.ct) + BYTES_AN_MRI_VOXEL * voxels(entry.mri)


def voxels(path: Path) -> float:
    """Return the number of voxels of a file, by its header, or of a folder of slices, by their sizes."""
    try:
        if path.is_dir():
            return sum(file.stat().st_size for file in path.rglob("*") if file.is_file()) / 2
        reader = sitk.ImageFileReader()
        reader.SetFileName(str(path))
        reader.ReadImageInformation()
        count = 1.0
        for n in reader.GetSize():
            count *= n
        return count
    except (RuntimeError, OSError):  # reading it will say what is wrong
        return 0.0


def cores() -> int:
    """Return how many cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def free_bytes() -> float:
    """Return the memory that is free, or that this process, its container or its user is allowed."""
    import psutil
    from distributed.system import MEMORY_LIMIT

    return float(min(psutil.virtual_memory().available, MEMORY_LIMIT))
