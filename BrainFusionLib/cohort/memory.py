"""How many cases fit into the memory at once."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from BrainFusionLib.case.output import BYTES_PER_VOXEL
from BrainFusionLib.cohort.manifest import Entry
from BrainFusionLib.errors import BrainFusionError
from BrainFusionLib.io.formats import voxel_count
from BrainFusionLib.settings import OutputSettings

# Peak memory of a process that fuses one case: a constant, and bytes per voxel of CT and MRI (docs/cohorts.md).
BASE_BYTES, BYTES_PER_CT_VOXEL, BYTES_PER_MRI_VOXEL = 320e6, 5.5, 16.0
# The voxels assumed of a CT and of an MRI whose header cannot be read: a large head (512 x 512 x 400, 256 x 256 x 220).
LARGE_CT, LARGE_MRI = 104_857_600, 14_417_920
# Of isotropic voxels; and how many times as many as the CT those over both fields of view are, if its slices are thin.
FIELD_OF_VIEW_MM = (256.0, 256.0, 220.0)
UNION_OF_CT = 3
# Share of the free memory that may be used.
SHARE = 0.8


def workers_that_fit(entries: Sequence[Entry], output: OutputSettings | None = None) -> tuple[int, float]:
    """Return how many of these cases the memory and the cores allow at once, at least 1, and the bytes for one case.

    Raises
    ------
    ImportError
        psutil or Dask, which determine the memory and its limits, is not installed.
    """
    free = free_bytes()
    needed = max((bytes_needed(entry, output) for entry in entries), default=BASE_BYTES)
    return max(1, min(len(entries), cores(), int(SHARE * free / needed))), needed


def bytes_needed(entry: Entry, output: OutputSettings | None = None) -> float:
    """Return the memory that a case's process needs at most, from the headers of its files, for an output grid.

    If a header cannot be read, a large volume is assumed, so that the case does not use up the memory of others if the
    file becomes readable later. The problem is reported when the case is read.
    """
    ct = _voxels_or(LARGE_CT, entry.ct, entry.ct_series)
    mri = _voxels_or(LARGE_MRI, entry.mri, entry.mri_series)
    inputs = BASE_BYTES + BYTES_PER_CT_VOXEL * ct
    if output is None or output.is_mris:
        return inputs + BYTES_PER_MRI_VOXEL * mri
    # The evidence is measured on the MRI's grid besides.
    return inputs + BYTES_PER_MRI_VOXEL * mri + BYTES_PER_VOXEL * _voxels_fused(output, ct, mri)


def _voxels_fused(output: OutputSettings, ct: int, mri: int) -> int:
    """Return about how many voxels a case has that are fused."""
    if isinstance(output.chosen, float):
        return round(np.prod(FIELD_OF_VIEW_MM) / output.chosen**3)
    # Of both fields of view, one voxel edge of either or even finer: mostly a CT's in its slices.
    return {"mri": mri, "ct": ct, "union": max(mri, UNION_OF_CT * ct)}[output.chosen]


def _voxels_or(assumed: int, path: Path, series: str | None) -> int:
    """Return the number of voxels of a volume, or `assumed` if its header cannot be read."""
    try:
        return voxel_count(path, series)
    except BrainFusionError:
        return assumed


def cores() -> int:
    """Return how many cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def free_bytes() -> float:
    """Return the free memory, or the limit of this process, its container or its user, if that is smaller."""
    import psutil
    from distributed.system import MEMORY_LIMIT

    return float(min(psutil.virtual_memory().available, MEMORY_LIMIT))
