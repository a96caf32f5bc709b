"""The unit scale, common to CT and MRI.

The MRI's range inside the head is 0 to 1. A monotone piecewise-linear map takes CT to the same scale, with soft tissue
below 1 and bone from 1 upwards, never clipped. The fused volume is this scale stretched to the MRI's range, so soft
tissue keeps the MRI's values exactly, bone is brighter than all of them, and Hounsfield units can be recovered from it
(`hu_from_unit`).
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from BrainFusionLib.errors import ImageContentError
from BrainFusionLib.volume import VoxelArray

# Trabecular bone begins at 200-300 HU; calcified vessels and contrast stay below 300 in most heads.
BONE_HU = 300.0
# Over this range the bone-over-MRI rule changes from MRI to CT, so that the skull has no staircase rim.
BONE_RAMP_HU = (200.0, BONE_HU)

# Values mapped at once, so that what is between stays in the cache: a third of the time.
AT_ONCE = 1 << 16

# Air, soft tissue up to bone, bone, metal: each with its own slope, because a single line with brain in the lower half
# would put dense bone at six times the brightest MRI value, outside any window that shows both.
CT_KNOTS_HU = (-1000.0, -100.0, BONE_HU, 2000.0, 4000.0)
CT_KNOTS_UNIT = (0.0, 0.05, 1.0, 1.5, 1.75)


def ct_to_unit(hu: npt.ArrayLike) -> VoxelArray:
    """Map Hounsfield units to the unit scale, float32, same shape.

    Outside the knots the outer slopes continue, so that the map is invertible for any scanner's range.
    """
    return _piecewise_linear(hu, CT_KNOTS_HU, CT_KNOTS_UNIT)


def hu_from_unit(unit: npt.ArrayLike) -> VoxelArray:
    """Map the unit scale back to Hounsfield units: the inverse of `ct_to_unit`, accurate to 0.01 HU in bone."""
    return _piecewise_linear(unit, CT_KNOTS_UNIT, CT_KNOTS_HU)


def _piecewise_linear(values: npt.ArrayLike, xs: tuple[float, ...], ys: tuple[float, ...]) -> VoxelArray:
    """Interpolate between knots and extrapolate outside them, in float32 throughout."""
    x = np.asarray(values, dtype=np.float32, order="C")
    y = np.empty_like(x)
    flat_x, flat_y = x.reshape(-1), y.reshape(-1)
    for first in range(0, x.size, AT_ONCE):
        some = slice(first, first + AT_ONCE)
        flat_y[some] = _ramps(flat_x[some], xs, ys)
    return y


def _ramps(x: VoxelArray, xs: tuple[float, ...], ys: tuple[float, ...]) -> VoxelArray:
    """Return a sum of clipped ramps."""
    y = np.full_like(x, ys[0])
    last = len(xs) - 2
    for n in range(len(xs) - 1):
        low = -np.inf if n == 0 else 0.0
        high = np.inf if n == last else xs[n + 1] - xs[n]
        ramp = np.clip(x - np.float32(xs[n]), np.float32(low), np.float32(high))
        y += ramp * np.float32((ys[n + 1] - ys[n]) / (xs[n + 1] - xs[n]))
    return y


def bone_weight(hu: npt.ArrayLike) -> VoxelArray:
    """Return the bone weight of each voxel: 0 up to 200 HU, 1 from 300 HU, linear between; float32, same shape."""
    low, high = BONE_RAMP_HU
    values: VoxelArray = np.asarray(hu, dtype=np.float32)
    weight = np.subtract(values, np.float32(low), out=np.empty_like(values))
    weight /= np.float32(high - low)
    return np.clip(weight, 0, 1, out=weight)


def mri_scale(mri_kji: npt.NDArray[np.float32]) -> tuple[float, float]:
    """Return the MRI values that correspond to 0 and 1 on the unit scale.

    0 is the darkest value of the background (its 0.5th percentile over the volume); 1 is the 99th percentile inside
    the head, which a few bright vessels, fat or an artefact do not change. Any sequence, any scale.

    Raises
    ------
    ImageContentError
        The volume is constant.
    """
    # Every third voxel along each axis: percentiles do not need 14 million values.
    values = mri_kji[::3, ::3, ::3] if min(mri_kji.shape) >= 12 else mri_kji
    low = float(np.percentile(values, 0.5))
    head = values[values > otsu_threshold(values)]
    high = float(np.percentile(head, 99)) if head.size else float(values.max())
    if not high > low:
        raise ImageContentError("the MRI is constant: there is nothing to register or to fuse. Choose another volume.")
    return low, high


def otsu_threshold(values: npt.NDArray[np.float32]) -> float:
    """Return the threshold that splits `values` into two classes with the greatest between-class variance.

    Source: N. Otsu, IEEE Trans. Systems, Man, and Cybernetics 9 (1979) 62. The histogram ends at the 99.5th percentile,
    because a handful of very bright voxels would squeeze all tissue into the first bin.
    """
    low, top = float(values.min()), float(np.percentile(values, 99.5))
    if not top > low:
        return low
    # Float64, because 128 edges in float32 coincide if the values differ only in their last digits.
    counts, edges = np.histogram(values.astype(np.float64), bins=128, range=(low, top))
    centres = (edges[:-1] + edges[1:]) / 2
    below = np.cumsum(counts)[:-1]
    above = counts.sum() - below
    mean_below = np.cumsum(counts * centres)[:-1] / np.maximum(below, 1)
    mean_above = ((counts * centres).sum() - np.cumsum(counts * centres)[:-1]) / np.maximum(above, 1)
    return float(edges[1:-1][int(np.argmax(below * above * (mean_below - mean_above) ** 2))])


def window_of_fused(mri_low: float, mri_high: float) -> tuple[float, float]:
    """Return the display range (lowest, highest value) that shows MRI soft tissue and CT bone of a fused volume."""
    return mri_low, mri_low + (mri_high - mri_low) * CT_KNOTS_UNIT[-2]
