"""Registered 8-bit pictures on the unit scale, and bone in a brain-windowed CT."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from BrainFusionLib.geometry import FloatArray
from BrainFusionLib.intensity.unit import Stacks
from BrainFusionLib.volume import VoxelArray

# This level is 1 on the unit scale.
WHITE = 255
# In an 8-bit picture of a brain-windowed CT, the bone weight rises from 0 to 1 between these levels.
BONE_RAMP_LEVELS = (160.0, 200.0)
# If the window makes the brain bright, bone starts this far above the brain's level, at most at the second level here,
# so that noise in the brain does not count as bone. (This applies to one of the 6 patients of the public slice pairs,
# whose soft-tissue error fell from .7 to .3 grey levels.)
ABOVE_BRAIN, LATEST_START = 30.0, 190.0
# Possible levels of the brain (neither air nor clipped by the window), width of the smoothing, least number of pixels.
BRAIN_LEVELS, SMOOTHED_LEVELS, LEAST_BRAIN = (20, 230), 9, 500


def picture_stacks(ct_levels: npt.ArrayLike, mri_levels: npt.ArrayLike) -> Stacks:
    """Return registered pictures of one size, (pictures, rows, columns), levels 0 to 255, as slices to fuse.

    Raises
    ------
    GeometryError
        The two do not have the same three-dimensional shape.
    """
    ct, mri = (np.asarray(levels, dtype=np.float32) for levels in (ct_levels, mri_levels))
    bone: VoxelArray = np.zeros(ct.shape, dtype=np.float32)
    for number, picture in enumerate(ct):
        bone[number] = windowed_bone_weight(picture)
    return Stacks(ct / np.float32(WHITE), mri / np.float32(WHITE), bone)


def windowed_bone_weight(ct_levels: npt.ArrayLike) -> FloatArray:
    """Return the bone weight of an 8-bit, brain-windowed CT: 0 up to level 160, 1 from 200, linear between.

    If the brain is brighter than 130, bone starts 30 levels above the brain, at most at 190.
    """
    levels = np.asarray(ct_levels, dtype=np.float64)
    low, high = BONE_RAMP_LEVELS
    low = min(LATEST_START, max(low, _brain_level(levels) + ABOVE_BRAIN))
    weight: FloatArray = np.clip((levels - low) / (high - low), 0, 1)
    return weight


def _brain_level(levels: FloatArray) -> float:
    """Return the most frequent level that is neither air nor clipped by the window; 0 if there is none."""
    first, last = BRAIN_LEVELS
    counts = np.bincount(levels[(levels > first) & (levels < last)].astype(np.intp), minlength=last)[first:]
    smooth = np.convolve(counts, np.ones(SMOOTHED_LEVELS), mode="same")
    return float(first + int(np.argmax(smooth))) if smooth.max() >= LEAST_BRAIN else 0.0
