"""How many cases a machine's memory holds at once."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from BrainFusionLib.cohort.manifest import Entry
from BrainFusionLib.errors import BrainFusionError
from BrainFusionLib.io.formats import voxel_count

# Peak of a process that fuses one case: so much, and so much a voxel of the CT and of the MRI (docs/cohorts.md).
BASE_BYTES, BYTES_A_CT_VOXEL, BYTES_AN_MRI_VOXEL = 450e6, 6.0, 45.0
# The voxels assumed of a CT and of an MRI whose header cannot be read: a large head (512 x 512 x 400, 256 x 256 x 220).
LARGE_CT, LARGE_MRI = 104_857_600, 14_417_920
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
    """Return the memory that a case's process needs at most, from the headers of its files.

    Where a header cannot be read, a large volume is assumed: the file may still be being copied, and no case
    must be killed for lack of memory because of it. What is wrong with the file is reported when the case is read.
    """
    ct = _voxels_or(LARGE_CT, entry.ct, entry.ct_series)
    mri = _voxels_or(LARGE_MRI, entry.mri, entry.mri_series)
    return BASE_BYTES + BYTES_A_CT_VOXEL * ct + BYTES_AN_MRI_VOXEL * mri


def _voxels_or(assumed: int, path: Path, series: str | None) -> int:
    """Return the number of voxels of a volume, or the number assumed where its header cannot be read."""
    try:
        return voxel_count(path, series)
    except BrainFusionError:
        return assumed


def cores() -> int:
    """Return how many cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def free_bytes() -> float:
    """Return the memory that is free, or that this process, its container or its user is allowed."""
    import psutil
    from distributed.system import MEMORY_LIMIT

    return float(min(psutil.virtual_memory().available, MEMORY_LIMIT))
