"""How far the brain has moved in a few ways, between the MRI and the CT, both aligned by the skull.

Matching of blocks has thousands of degrees of freedom, in which noise hides a small displacement where CT and MRI have
little in common. These are tests of one: the fluid deep in the brain, smoothed, gives a field that leads away from it
all around, as when ventricles become wider; and the brain as a whole moves along an axis, less towards the inner table.
The MRI is displaced along a field by several lengths, and the CT the other way; the length is looked for at which the
two tell most of each other. How a grey value of one goes with those of the other is learned half where the field is and
half in the rest of the brain.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from functools import cache

import numpy as np
import numpy.typing as npt

from BrainFusionLib.evidence import BrainShift
from BrainFusionLib.geometry import FloatArray
from BrainFusionLib.verdict.binning import bins_of, quantile_edges
from BrainFusionLib.verdict.smoothing import gaussian, mean_around
from BrainFusionLib.volume import BoolArray, VoxelArray

Bins = npt.NDArray[np.int32]

# Low frequencies of the MRI's coils; smoothing of the CT before fluid is looked for, and of the MRI's prediction of it;
# of the fluid, for the field. Standard deviations.
LOW_MM, FLUID_SMOOTH_MM, PREDICTED_SMOOTH_MM, FIELD_SMOOTH_MM = 15.0, 1.5, 1.0, 14.0
# Soft tissue and fluid, HU from the brain.
SOFT_HU = 60.0
# Fluid is as dark as the darkest hundredth of the brain, which is at least so far from it; what has less than the
# second of that contrast is none, and with the third more all.
LEAST_CONTRAST_HU, NONE_BELOW, ALL_ABOVE = 6.0, 0.3, 0.4
# Fluid at this depth below the inner table begins to count, and counts in full: sulci do not move with ventricles.
FIRST_DEPTH_MM, FULL_DEPTH_MM, FIXED_DEPTH_MM = 20.0, 35.0, 20.0
# The field is 1 at the 95th percentile of the brain, or where it is not held by the inner table; it is looked at where
# it is more than this.
BESIDE = 0.3
# Lengths tried, mm at the 95th percentile.
LENGTHS_MM = np.arange(-4.0, 5.0)
CT_BINS, MRI_BINS, PREDICTING_BINS = 16, 24, 33
LEAST_VOXELS = 2000
# Of the whole brain, so many voxels are enough. It begins at this depth.
ENOUGH_VOXELS, LEAST_DEPTH_MM = 50000, 3.0
# Slices blur fluid: ventricles look wider in the CT by so much times their thickness squared, mm, beyond thin ones. In
# two simulators, 6 right pairs of 5 mm read .3 to .8 mm more than others, and 40 of 3 mm about .1 more; a phantom .32
# and .13.
BLUR_PER_MM, THIN_SLICE_MM = 0.015, 1.25
# Share of the likelihood that counts, because the noise of a voxel is correlated with its neighbours'.
TEMPERATURE = 0.15


@dataclass(frozen=True, eq=False)
class Seen:
    """Both images on one grid of about 2 mm.

    Attributes
    ----------
    hu
        The CT, aligned by the skull.
    ratio
        The MRI without its low frequencies.
    depth
        Below the inner table, mm; negative outside.
    soft
        Soft tissue and fluid inside the skull.
    spacing_kji_mm
        (3,).
    """

    hu: VoxelArray
    ratio: VoxelArray
    depth: VoxelArray
    soft: BoolArray
    spacing_kji_mm: FloatArray

    @property
    def brain(self) -> BoolArray:
        """Of it, what is away from the inner table."""
        return self.soft & (self.depth > LEAST_DEPTH_MM)


def seen_in(hu: VoxelArray, signal: VoxelArray, depth: VoxelArray, spacing_kji_mm: FloatArray) -> Seen | None:
    """Return what the tests need of CT, MRI and depth below the inner table; ``None`` if too little brain is seen."""
    deep = depth > FIRST_DEPTH_MM
    middle = float(np.median(hu[deep])) if deep.any() else 0.0
    soft = (depth > 0) & (np.abs(hu - np.float32(middle)) < SOFT_HU)
    if np.count_nonzero(soft & deep) < LEAST_VOXELS:
        return None
    low = mean_around(signal, (depth > 0).astype(np.float32), LOW_MM, spacing_kji_mm)
    ratio = signal / np.maximum(low, np.float32(1e-3) * low.max() + np.float32(1e-9))
    return Seen(hu, ratio, depth, soft, spacing_kji_mm)


def ventricles_moved(seen: Seen) -> tuple[float | None, float | None]:
    """Return how far the walls have moved outwards, and its standard deviation, mm at the brain's 95th percentile.

    ``None`` where there is no fluid deep in the brain.
    """
    field = _away_from(_fluid(seen), seen)
    length = np.sqrt((field**2).sum(axis=0))
    unit = float(np.percentile(length[seen.brain], 95))
    beside = seen.brain & (length > BESIDE * unit)
    if not unit > 0 or np.count_nonzero(beside) < LEAST_VOXELS:
        return None, None
    at = np.stack(np.nonzero(beside)).astype(np.float32)
    moved = np.stack([f[beside] / np.float32(unit * s) for f, s in zip(field, seen.spacing_kji_mm, strict=True)])
    return _best(_gains(_learned(seen, beside), at, moved))


def without_blur(shift: BrainShift, slice_mm: float) -> BrainShift:
    """Return a shift without what the blur of the CT's slices, of a thickness in mm, adds to the ventricles."""
    blur_mm = BLUR_PER_MM * max(0.0, slice_mm**2 - THIN_SLICE_MM**2)
    return shift if shift.ventricles_mm is None else replace(shift, ventricles_mm=shift.ventricles_mm - blur_mm)


def brain_moved(seen: Seen) -> tuple[float | None, float | None]:
    """Return how far the brain has moved as a whole, and its standard deviation, mm."""
    weight = np.clip(seen.depth / np.float32(FIXED_DEPTH_MM), 0, 1)
    free = seen.brain & (weight > BESIDE)
    some = np.random.default_rng(2).random(free.shape, np.float32) < ENOUGH_VOXELS / float(np.count_nonzero(free) + 1)
    places = np.nonzero(free & some)
    at = np.stack(places).astype(np.float32)
    moved, learned = np.zeros_like(at), _learned(seen, free)
    squares, certain = 0.0, 0.0
    for axis, spacing in enumerate(seen.spacing_kji_mm):
        moved[:] = 0
        moved[axis] = weight[places] / np.float32(spacing)
        mm, sd_mm = _best(_gains(learned, at, moved))
        if mm is None or sd_mm is None:
            return None, None
        squares, certain = squares + mm**2, certain + (mm / sd_mm) ** 2
    return math.sqrt(squares), math.sqrt(squares / certain) if certain else 0.0


def _fluid(seen: Seen) -> VoxelArray:
    """Return where there is fluid deep in the brain: 1 in one of the two images, 2 in both.

    The ventricles of one of the two may have collapsed. In the MRI, fluid is what goes with dark voxels of the CT.
    """
    weight, depth, spacing = seen.soft.astype(np.float32), seen.depth, seen.spacing_kji_mm
    shown = mean_around(seen.hu, weight, FLUID_SMOOTH_MM, spacing)
    learned = seen.soft & (depth > FIRST_DEPTH_MM / 2)
    bins = bins_of(seen.ratio, quantile_edges(seen.ratio[learned], PREDICTING_BINS))
    count = np.bincount(bins[learned], minlength=PREDICTING_BINS)
    total = np.bincount(bins[learned], seen.hu[learned], minlength=PREDICTING_BINS)
    means = (total / np.maximum(count, 1)).astype(np.float32)
    predicted = mean_around(means.take(bins), weight, PREDICTED_SMOOTH_MM, spacing)
    middle, darkest = np.percentile(shown[learned], [50, 1])
    contrast = max(float(middle - darkest), LEAST_CONTRAST_HU)
    share = sum(
        np.clip((np.float32(middle) - dark) / np.float32(contrast) - np.float32(NONE_BELOW), 0, ALL_ABOVE)
        for dark in (shown, predicted)
    )
    central = np.clip((depth - FIRST_DEPTH_MM) / (FULL_DEPTH_MM - FIRST_DEPTH_MM), 0, 1)
    fluid: VoxelArray = (share / ALL_ABOVE * central * weight).astype(np.float32)
    return fluid


def _away_from(fluid: VoxelArray, seen: Seen) -> VoxelArray:
    """Return a field that leads away from the fluid, 0 at the inner table; (3, k, j, i), of any unit."""
    for axis, spacing in enumerate(seen.spacing_kji_mm):
        fluid = gaussian(fluid, FIELD_SMOOTH_MM / spacing, axis)
    free = np.clip(seen.depth / FIXED_DEPTH_MM, 0, 1)
    slopes: list[VoxelArray] = [
        np.gradient(fluid, spacing, axis=axis) for axis, spacing in enumerate(seen.spacing_kji_mm)
    ]
    field: VoxelArray = -np.stack(slopes).astype(np.float32) * free
    return field


@dataclass(frozen=True, eq=False)
class _Learned:
    """Bins of both images, (k, j, i), and how much a bin of the MRI tells of one of the CT, (CT_BINS * MRI_BINS,)."""

    ct: Bins
    mri: Bins
    gain: FloatArray


def _learned(seen: Seen, within: BoolArray) -> _Learned:
    """Learn what grey values tell of each other, half within, where a field is, and half in the rest of the brain."""
    hu, ratio, rest = seen.hu, seen.ratio, seen.brain & ~within
    ct = bins_of(hu, quantile_edges(hu[within], CT_BINS))
    mri = bins_of(ratio, quantile_edges(ratio[within], MRI_BINS))
    both = _joint(ct[rest], mri[rest], 0.5) + _joint(ct[within], mri[within], 0.0) + 1e-5
    of_mri, of_ct = both.sum(axis=0), both.sum(axis=1)[:, None]
    return _Learned(ct, mri, np.log(both * both.sum() / (of_mri * of_ct)).ravel())


def _gains(learned: _Learned, at: VoxelArray, moved: VoxelArray) -> FloatArray:
    """Return the log-likelihood of voxels at each of `LENGTHS_MM`, both ways.

    `at` and `moved` are (3, n) voxels, of some where the field is. Each voxel is looked up at the nearest place after a
    random step, the same for all lengths: then none of them, and not 0 either, is smoothed more than the others.
    """
    here = tuple(at.astype(np.intp))
    ct_here, mri_here = learned.ct[here], learned.mri[here]
    random = np.random.default_rng(1)
    step = (random.random(at.shape, np.float32) + random.random(at.shape, np.float32) - 1) + at
    shape = learned.ct.shape
    top = np.array(shape, np.float32)[:, None] - 1

    @cache  # each length is looked up in both images
    def places(length_mm: float) -> npt.NDArray[np.int64]:
        k, j, i = np.clip(np.rint(step + np.float32(length_mm) * moved), 0, top).astype(np.int64)
        flat: npt.NDArray[np.int64] = (k * shape[1] + j) * shape[2] + i
        return flat

    def looked_up(bins: Bins, length_mm: float) -> Bins:
        found: Bins = bins.ravel().take(places(length_mm))
        return found

    sums = [
        0.5 * learned.gain.take(ct_here * MRI_BINS + looked_up(learned.mri, length)).sum()
        + 0.5 * learned.gain.take(looked_up(learned.ct, -length) * MRI_BINS + mri_here).sum()
        for length in LENGTHS_MM.tolist()
    ]
    return np.array(sums)


def _joint(ct: Bins, mri: Bins, more: float) -> FloatArray:
    """Return the share of voxels in each pair of bins, (CT_BINS, MRI_BINS); neighbours share, `more` voxels in each."""
    count = np.bincount(ct * MRI_BINS + mri, minlength=CT_BINS * MRI_BINS).reshape(CT_BINS, MRI_BINS).astype(np.float64)
    for _ in range(2):
        padded = np.pad(count, ((1, 1), (0, 0)))
        count = (0.25 * padded[:-2] + 0.5 * padded[1:-1] + 0.25 * padded[2:]).T
    count += more
    shares: FloatArray = count / count.sum()
    return shares


def _best(gained: FloatArray) -> tuple[float | None, float | None]:
    """Return the length with the largest gain, between those tried, and its standard deviation, mm.

    ``None`` where no length is better than another.
    """
    best = int(np.clip(gained.argmax(), 1, len(gained) - 2))
    below, here, above = gained[best - 1 : best + 2]
    bend = 2 * here - below - above
    # The MRI at x + d shows what the CT shows at x: it has moved by -d.
    if not bend > 0:
        end, gain = float(LENGTHS_MM[gained.argmax()]), float(gained.max() - gained[len(gained) // 2])
        return (-end, abs(end) / math.sqrt(2 * TEMPERATURE * gain)) if gain > 0 else (None, None)
    length = LENGTHS_MM[best] + np.clip(0.5 * (above - below) / bend, -1, 1)
    return float(-length), float(1 / math.sqrt(TEMPERATURE * bend))
