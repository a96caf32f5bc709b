"""Registered 8-bit pictures on the unit scale, and bone in a brain-windowed CT."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from BrainFusionLib.intensity.inside import grown, shrunk
from BrainFusionLib.intensity.unit import Stacks
from BrainFusionLib.volume import BoolArray, VoxelArray

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
# Bone, calcifications and metal are clipped by the window; brain, haemorrhage, muscle and skin are not, however bright
# a narrow window makes them: a square of 2 by 2 pixels from this level upwards is the core of bone, and bone is what
# lies this near to one, pixels. In small pictures, a pixel is as wide as bone is thick, and is its core.
CLIPPED, BONE_REACH, SMALL = 250.0, 2, 128
# In bone, all is clipped. Where more than this share of what is bright all around is not, within this many pixels, the
# window ends inside the noise of blood, brain or muscle, and what it clips there is no core of bone.
MOST_GREY, GREY_REACH = 0.1, 3
# A window that clips less than this share of what is as bright as bone ends above it: then the level alone decides.
LEAST_CLIPPED = 0.1
# Brighter than this in CT or MRI is not air, and this thick, pixels, the bulk of the head; head holders are thinner.
AIR, BULK = 24.0, 14


def picture_stacks(ct_levels: npt.ArrayLike, mri_levels: npt.ArrayLike) -> Stacks:
    """Return registered pictures of one size, (pictures, rows, columns), levels 0 to 255, as slices to fuse.

    Raises
    ------
    GeometryError
        The two do not have the same three-dimensional shape.
    """
    ct, mri = (np.asarray(levels, dtype=np.float32) for levels in (ct_levels, mri_levels))
    bone: VoxelArray = np.zeros(ct.shape, dtype=np.float32)
    stacks = Stacks(ct / np.float32(WHITE), mri / np.float32(WHITE), bone)
    for number, picture in enumerate(ct):
        bone[number] = windowed_bone_weight(picture, mri[number])
    return stacks


def windowed_bone_weight(ct_levels: npt.ArrayLike, mri_levels: npt.ArrayLike | None = None) -> VoxelArray:
    """Return the bone weight of an 8-bit, brain-windowed CT: 0 up to level 160, 1 from 200, linear between.

    If the brain is brighter than 130, bone starts 30 levels above the brain, at most at 190. What is not near the core
    of bone (`CLIPPED`) has weight 0: blood, brain and muscle that a narrow window clips in part. Where the MRI is
    given, so has what is outside the head: head holder and frame.

    Parameters
    ----------
    ct_levels, mri_levels
        (rows, columns), 0 to 255, registered.
    """
    levels = np.asarray(ct_levels, dtype=np.float32)
    low, high = BONE_RAMP_LEVELS
    low = min(LATEST_START, max(low, _brain_level(levels) + ABOVE_BRAIN))
    weight: VoxelArray = np.clip((levels - np.float32(low)) / np.float32(high - low), 0, 1)
    clipped: BoolArray = levels >= CLIPPED
    if clipped.any() and np.count_nonzero(clipped) >= LEAST_CLIPPED * np.count_nonzero(levels >= high):
        weight *= _near_squares(clipped & ~_in_soft_tissue(levels >= high, clipped))
    if mri_levels is not None:
        weight *= head_in_pictures(levels, mri_levels)
    return weight


def _in_soft_tissue(bright: BoolArray, clipped: BoolArray) -> BoolArray:
    """Return where, between bone, too much of what is bright is not clipped.

    Edges of bone, bright in part, do not count. Outside the skull, clipped muscle stays bone: its edges with bone lie
    in one place in CT and MRI, and Qabf fell by .006 without them.
    """
    inner = shrunk(bright)
    soft = _counts(inner & ~clipped) > np.float32(MOST_GREY) * _counts(inner)
    bone = clipped & ~soft
    return soft & _between(bone) & _between(bone.T).T


def _counts(mask: BoolArray) -> npt.NDArray[np.uint8]:
    """Return the number of pixels of a mask in the square around each, `GREY_REACH` to each side."""
    counts = mask.view(np.uint8)
    for _ in range(2):
        wide = np.pad(counts, ((GREY_REACH, GREY_REACH), (0, 0)))
        counts = wide[: len(counts)].copy()
        for n in range(1, 2 * GREY_REACH + 1):
            counts += wide[n : n + len(counts)]
        counts = np.ascontiguousarray(counts.T)
    return counts


def _near_squares(mask: BoolArray) -> BoolArray:
    """Return what lies within `BONE_REACH` pixels of the squares of 2 by 2 pixels in a mask, of 1 in a small one."""
    found, side = mask, 1 if max(mask.shape) < SMALL else 2
    for _ in range(2):
        found = (found[side - 1 :] & found[: len(found) + 1 - side]).T
    for _ in range(2):
        margin = BONE_REACH + side - 1
        wide = np.pad(found, ((margin, margin), (0, 0)))
        found = np.logical_or.reduce([wide[n : n + len(found) + side - 1] for n in range(margin + BONE_REACH + 1)]).T
    return found


def head_in_pictures(ct_levels: npt.ArrayLike, mri_levels: npt.ArrayLike) -> BoolArray:
    """Return a mask of the head in registered pictures, (rows, columns), without head holder and frame.

    The head is tissue connected to its bulk, and what has that on all four sides; everything, if there is no bulk.
    """
    tissue: BoolArray = np.maximum(np.asarray(ct_levels), np.asarray(mri_levels)) > AIR
    rows, columns = tissue.shape
    even = np.pad(tissue, ((0, rows % 2), (0, columns % 2)))
    # At half the resolution: a quarter of the time, and gaps of a pixel, as noise makes them, are closed.
    coarse: BoolArray = even[::2, ::2] | even[1::2, ::2] | even[::2, 1::2] | even[1::2, 1::2]
    bulk, half = coarse, BULK // 4
    for _ in range(2):
        wide = np.pad(bulk, ((half, half), (0, 0)))
        bulk = np.logical_and.reduce([wide[n : n + len(bulk)] for n in range(2 * half + 1)]).T
    if not bulk.any():
        return np.ones_like(tissue)
    head, wider = bulk, grown(bulk) & coarse
    while np.count_nonzero(wider) > np.count_nonzero(head):
        head, wider = wider, grown(wider) & coarse
    head = head | (_between(head) & _between(head.T).T)
    whole: BoolArray = np.repeat(np.repeat(head, 2, axis=0), 2, axis=1)[:rows, :columns]
    return whole


def _between(mask: BoolArray) -> BoolArray:
    """Return what has pixels of a mask on both sides in its row."""
    columns = mask.shape[1]
    number, first, last = np.arange(columns), mask.argmax(axis=1), columns - 1 - mask[:, ::-1].argmax(axis=1)
    between: BoolArray = (number >= first[:, None]) & (number <= last[:, None])
    return between & mask.any(axis=1, keepdims=True)


def _brain_level(levels: VoxelArray) -> float:
    """Return the most frequent level that is neither air nor clipped by the window; 0 if there is none."""
    first, last = BRAIN_LEVELS
    counts = np.bincount(levels[(levels > first) & (levels < last)].astype(np.intp), minlength=last)[first:]
    smooth = np.convolve(counts, np.ones(SMOOTHED_LEVELS), mode="same")
    return float(first + int(np.argmax(smooth))) if smooth.max() >= LEAST_BRAIN else 0.0
