"""Whether a fused volume keeps what a planner looks for: lesions, metal, and surfaces without flicker."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from BrainFusionLib.geometry import FloatArray
from BrainFusionLib.volume import BoolArray, VoxelArray

# Slices with less of a head than this share of their pixels say nothing about a fusion.
LEAST_HEAD = 0.02


def slices_with_head(ct_unit: VoxelArray, mri_unit: VoxelArray) -> BoolArray:
    """Say which slices of two stacks, (slices, rows, columns) on the unit scale, hold enough of a head: (slices,)."""
    enough: BoolArray = (np.maximum(ct_unit, mri_unit) > 0.1).mean(axis=(1, 2)) >= LEAST_HEAD
    return enough


def contrast_kept(fused: npt.ArrayLike, source: npt.ArrayLike, lesion: BoolArray, around: BoolArray) -> float:
    """Return a lesion's contrast in the fused image as a share of that in its source: 1 where it is as plain as there.

    The contrast is the difference of the means inside the lesion and around it (the numerator of Michelson's and
    Weber's contrast: both images are on one scale, so that no denominator is needed).

    Parameters
    ----------
    fused, source
        Images of one shape and scale.
    lesion, around
        Where the lesion and what it is compared with are; same shape.

    Raises
    ------
    ValueError
        One of the two is empty, or the source shows no contrast there.
    """
    if not (lesion.any() and around.any()):
        raise ValueError("the lesion or what is around it has no voxel: give masks that mark some")
    f, s = (np.asarray(image, dtype=np.float64) for image in (fused, source))
    whole = float(s[lesion].mean() - s[around].mean())
    if whole == 0:
        raise ValueError("the source shows no contrast between the lesion and what is around it")
    return float(f[lesion].mean() - f[around].mean()) / whole


def centroid_shift(fused: npt.ArrayLike, source: npt.ArrayLike, above: float) -> float:
    """Return how far the centroid of what is brighter than `above` lies off between two images, voxels.

    Centroids are weighted by how far a voxel is above; `above` is on the scale of both, for metal about 3000 HU.

    Raises
    ------
    ValueError
        One image has nothing above.
    """
    centres = []
    for image in (fused, source):
        weight = np.maximum(np.asarray(image, dtype=np.float64) - above, 0)
        if not weight.any():
            raise ValueError(f"nothing in the image is above {above:g}")
        places = np.nonzero(weight)
        centres.append(np.average(np.stack(places, axis=-1), axis=0, weights=weight[places]))
    return float(np.linalg.norm(centres[0] - centres[1]))


def flicker(fused: npt.ArrayLike, ct: npt.ArrayLike, mri: npt.ArrayLike, where: BoolArray | None = None) -> float:
    """Return how much a fused stack jumps from slice to slice more than both its sources do there; 0 is best.

    The mean, over voxels, of ``max(0, |Δ²fused| − max(|Δ²CT|, |Δ²MRI|))``, Δ² being the second difference along the
    first axis: a slice that differs from both its neighbours. A rule that takes the same share of both sources in
    neighbouring slices has none.

    Parameters
    ----------
    fused, ct, mri
        Stacks (slices, rows, columns) of three slices or more, one scale; the result is on it, too.
    where
        The voxels to look at, same shape; all when ``None``.

    Raises
    ------
    ValueError
        There are fewer than three slices, or no voxel to look at.
    """
    f, c, m = (_second_difference(np.asarray(stack, dtype=np.float64)) for stack in (fused, ct, mri))
    extra = np.maximum(0, f - np.maximum(c, m))
    looked_at = extra if where is None else extra[where[1:-1]]
    if not looked_at.size:
        raise ValueError("flicker needs three slices or more, and some voxels to look at")
    return float(looked_at.mean())


def _second_difference(stack: FloatArray) -> FloatArray:
    return np.abs(stack[2:] - 2 * stack[1:-1] + stack[:-2])
