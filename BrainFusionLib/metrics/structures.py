"""Preservation of structures that planners need: lesions, metal, and surfaces without flicker."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from BrainFusionLib.geometry import FloatArray
from BrainFusionLib.volume import BoolArray, VoxelArray

# Slices with a smaller share of head pixels are not used.
LEAST_HEAD = 0.02


def slices_with_head(ct_unit: VoxelArray, mri_unit: VoxelArray) -> BoolArray:
    """Return which slices of two stacks (slices, rows, columns), unit scale, show enough of a head, shape (slices,)."""
    enough: BoolArray = (np.maximum(ct_unit, mri_unit) > 0.1).mean(axis=(1, 2)) >= LEAST_HEAD
    return enough


def contrast_kept(fused: npt.ArrayLike, source: npt.ArrayLike, lesion: BoolArray, around: BoolArray) -> float:
    """Return a lesion's contrast in the fused image as a share of that in its source: 1 if it is the same.

    The contrast is the difference between the means inside the lesion and around it (the numerator of Michelson's and
    Weber's contrast; both images have the same scale, so no denominator is needed).

    Parameters
    ----------
    fused, source
        Images of one shape and scale.
    lesion, around
        Masks of the lesion and of the surroundings; same shape.

    Raises
    ------
    ValueError
        One of the masks is empty, or the source shows no contrast between them.
    """
    if not (lesion.any() and around.any()):
        raise ValueError("the mask of the lesion or of its surroundings is empty")
    f, s = (np.asarray(image, dtype=np.float64) for image in (fused, source))
    whole = float(s[lesion].mean() - s[around].mean())
    if whole == 0:
        raise ValueError("the source shows no contrast between the lesion and its surroundings")
    return float(f[lesion].mean() - f[around].mean()) / whole


def centroid_shift(fused: npt.ArrayLike, source: npt.ArrayLike, above: float) -> float:
    """Return the distance between two images' centroids of all voxels brighter than `above`, in voxels.

    Voxels are weighted by their value minus `above`, which is on the scale of both images; for metal about 3000 HU.

    Raises
    ------
    ValueError
        One image has no such voxel.
    """
    centres = []
    for image in (fused, source):
        weight = np.maximum(np.asarray(image, dtype=np.float64) - above, 0)
        if not weight.any():
            raise ValueError(f"no voxel of the image is above {above:g}")
        places = np.nonzero(weight)
        centres.append(np.average(np.stack(places, axis=-1), axis=0, weights=weight[places]))
    return float(np.linalg.norm(centres[0] - centres[1]))


def flicker(fused: npt.ArrayLike, ct: npt.ArrayLike, mri: npt.ArrayLike, where: BoolArray | None = None) -> float:
    """Return how much more a fused stack changes from slice to slice than either of its sources; 0 is best.

    The mean, over voxels, of ``max(0, |Δ²fused| − max(|Δ²CT|, |Δ²MRI|))``, Δ² being the second difference along the
    first axis: it is large in a slice that differs from both its neighbours. A rule that mixes neighbouring slices in
    equal shares has no flicker.

    Parameters
    ----------
    fused, ct, mri
        Stacks (slices, rows, columns) of at least three slices, on one scale, which is also that of the result.
    where
        Mask of the voxels to use, same shape; all if ``None``.

    Raises
    ------
    ValueError
        There are fewer than three slices, or the mask is empty.
    """
    f, c, m = (_second_difference(np.asarray(stack, dtype=np.float64)) for stack in (fused, ct, mri))
    extra = np.maximum(0, f - np.maximum(c, m))
    used = extra if where is None else extra[where[1:-1]]
    if not used.size:
        raise ValueError("flicker needs at least three slices and a mask that is not empty")
    return float(used.mean())


def _second_difference(stack: FloatArray) -> FloatArray:
    return np.abs(stack[2:] - 2 * stack[1:-1] + stack[:-2])
