"""What the levels of registered 8-bit pictures mean: the unit scale and the bone of a brain-windowed CT."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from BrainFusionLib.geometry import FloatArray
from BrainFusionLib.intensity.unit import Stacks
from BrainFusionLib.volume import VoxelArray

# The level that is 1 on the unit scale.
WHITE = 255
# On an 8-bit picture of a brain-windowed CT, bone begins here, all of it from the second level on.
BONE_RAMP_LEVELS = (160.0, 200.0)
# Where the window makes the brain bright, bone begins this far above the brain's own level, at most at the second level
# here: noise of the brain is not bone. (One of the 6 patients of the public slice pairs is such a case; on its slices
# the soft-tissue error fell from .7 to .3 grey levels.)
ABOVE_BRAIN, LATEST_START = 30.0, 190.0
# Levels that may be the brain's: neither air nor what the window cuts off; so many together, with so many pixels.
BRAIN_LEVELS, SMOOTHED_LEVELS, LEAST_BRAIN = (20, 230), 9, 500


def picture_stacks(ct_levels: npt.ArrayLike, mri_levels: npt.ArrayLike) -> Stacks:
    """Return registered pictures of one size, (pictures, rows, columns), levels 0 to 255, as slices to fuse.

    Raises
    ------
    GeometryError
        The two are not of one three-dimensional shape.
    """
    ct, mri = (np.asarray(levels, dtype=np.float32) for levels in (ct_levels, mri_levels))
    bone: VoxelArray = np.zeros(ct.shape, dtype=np.float32)
    for number, picture in enumerate(ct):
        bone[number] = windowed_bone_weight(picture)
    return Stacks(ct / np.float32(WHITE), mri / np.float32(WHITE), bone)


def windowed_bone_weight(ct_levels: npt.ArrayLike) -> FloatArray:
    """Return how much a pixel of an 8-bit, brain-windowed CT is bone: 0 up to 160, 1 from 200, straight between.

    Where the brain is brighter than 130, it begins 30 levels above the brain, at most at 190.
    """
    levels = np.asarray(ct_levels, dtype=np.float64)
    low, high = BONE_RAMP_LEVELS
    low = min(LATEST_START, max(low, _brain_level(levels) + ABOVE_BRAIN))
    weight: FloatArray = np.clip((levels - low) / (high - low), 0, 1)
    return weight


def _brain_level(levels: FloatArray) -> float:
    """Return the most frequent level of a picture that is neither air nor cut off by the window; 0 if none is."""
    first, last = BRAIN_LEVELS
    counts = np.bincount(levels[(levels > first) & (levels < last)].astype(np.intp), minlength=last)[first:]
    smooth = np.convolve(counts, np.ones(SMOOTHED_LEVELS), mode="same")
    return float(first + int(np.argmax(smooth))) if smooth.max() >= LEAST_BRAIN else 0.0
