"""Skull and brain as masks, to be shown in 3D: seconds of work on a large CT, done by the worker process.

Imports no slicer.
"""

# No `from __future__ import annotations`: see `jobs`.

import numpy as np

from BrainFusionLib.errors import ImageContentError
from BrainFusionLib.geometry import Grid, apply_affine
from BrainFusionLib.intensity import ct_head_mask
from BrainFusionLib.intensity.bone import bone_mask
from BrainFusionLib.intensity.brain import brain_mask
from BrainFusionLib.intensity.inside import inside_skull, pooled_to
from BrainFusionLib.progress import Cancel, Progress, stop_if
from BrainFusionLib.volume import BoolArray, Volume
from BrainFusionSlicer.jobs import Shapes

STAGE = "shapes"
# The head is looked for, and the brain's surface made, in voxels of this size.
COARSE_MM = 2.0
# The bone is outlined in voxels of about this size.
FINE_MM = 1.0


def shapes_of(ct: Volume, mri: Volume, progress: Progress, cancel: Cancel | None = None) -> Shapes:
    """Find skull and brain of a pair as it is shown: no transform lies between the two.

    Raises
    ------
    ImageContentError
        No head is in the CT.
    Cancelled
        `cancel` returned true.
    """

    def step(fraction: float) -> None:
        progress(STAGE, fraction)
        stop_if(cancel)

    step(0.0)
    coarse = Volume(*pooled_to(ct, COARSE_MM), "CT", ct.name)
    head = ct_head_mask(coarse)
    if not head.any():
        raise ImageContentError(f"{ct.name}: there is no head in this CT.")
    step(0.1)
    fine = Volume(*pooled_to(ct, FINE_MM), "CT", ct.name)
    bone = bone_mask(fine, ct_head_mask(fine))
    step(0.4)
    inside = inside_skull(ct)
    step(0.7)
    brain = None
    if inside is not None:
        coarse_mri = Volume(*pooled_to(mri, COARSE_MM), "MR", mri.name)
        found = brain_mask(coarse_mri, inside.depth_on(coarse_mri.grid), inside.hu_on(coarse_mri.grid))
        brain = None if found is None else _volume(found.mask_kji, coarse_mri.grid)
    step(1.0)
    at = np.argwhere(head)[:, ::-1]
    ends = np.array([at.min(axis=0), at.max(axis=0)])
    corners = np.array([[ends[x, 0], ends[y, 1], ends[z, 2]] for x in (0, 1) for y in (0, 1) for z in (0, 1)])
    return Shapes(apply_affine(coarse.grid.lps_from_ijk, corners), _volume(bone, fine.grid), brain)


def _volume(mask_kji: BoolArray, grid: Grid) -> Volume | None:
    return Volume(mask_kji.astype(np.float32), grid) if mask_kji.any() else None
