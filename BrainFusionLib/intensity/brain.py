"""The brain in an MRI: inside the skull of the registered CT, without CSF.

Brain is grey and white matter and lesions; the CSF of sulci, cisterns and ventricles is not, nor are dura and vessels.
Whether CSF is dark (T1, FLAIR) or bright (T2) is read off the image: CSF lies at the rim more often than in the middle,
and is less dense than brain in the CT. Where no such class is found (in PD the dark class is vessels, the bright one
grey matter), CSF is told from brain by both images: two classes, whose signal in the MRI is learned from the CT.
Where CSF is bright, what is brain in both images is taken.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

from BrainFusionLib.geometry import FloatArray, Grid
from BrainFusionLib.intensity.inside import grown, shrunk
from BrainFusionLib.intensity.pieces import by_size, largest
from BrainFusionLib.intensity.two_images import is_brain
from BrainFusionLib.values import ByValue
from BrainFusionLib.volume import BoolArray, Volume, VoxelArray

# The bias field is measured in blocks this long, from voxels this deep, and smoothed over three blocks, twice.
BLOCK_MM, BIAS_DEPTH_MM = 16.0, 6.0
# The rim and the middle, depths below the inner table.
RIM_MM, MIDDLE_MM = (1.5, 6.0), 14.0
BINS = 96
# CSF differs from the brain by at least this share of the brain's signal, and is this much more frequent at the rim.
LEAST_CONTRAST, LEAST_EXCESS = 0.25, 1.3
# CSF is less dense than brain by at least this in the CT, as a median: 4 to 13 HU with contrast in the MRI, -12 to 0 in
# PD; of voxels below the rim, that are not bone, air or metal.
LEAST_DENSER_HU, SOFT_HU = 2.0, 60.0
# The bias is measured again, at all depths, against the means of three classes; from voxels this near their own.
TURNS, NEAR_LOG = 8, 0.35
# Without contrast in the MRI (PD), and without a CT, what lies deeper than this is taken for brain.
SHALLOW_MM = 3.0
# Orbits: fat in the CT; the least share of a piece that is near fat (8 to 80 %; of pieces of the brain 0); by how much
# the mask is made smaller, to cut them off, and by how many voxels at least: in 2 mm, what lies between is blurred.
# What is left of more than this is a lobe.
FAT_HU, LEAST_FAT, SHRUNK_MM, LEAST_TURNS, MOST_ORBIT_MM3 = (-160.0, -50.0), 0.03, 2.0, 2, 4_000.0
LEAST_VOXELS = 2_000


@dataclass(frozen=True, eq=False)
class BrainMask(ByValue):
    """The brain on the MRI's grid.

    Attributes
    ----------
    mask_kji
        Bool, shape of the MRI.
    csf
        Whether CSF was found dark or bright; ``None`` if the MRI alone could not tell it from the brain: the mask then
        was made with the CT or, without one, is the inside of the skull without its rim.
    """

    mask_kji: BoolArray
    csf: Literal["dark", "bright"] | None


def brain_mask(mri: Volume, depth_kji: VoxelArray, hu_kji: VoxelArray | None = None) -> BrainMask | None:
    """Find the brain; ``None`` if too little of it is in view.

    Parameters
    ----------
    mri
        Any sequence.
    depth_kji
        Depth below the inner table on the MRI's grid, mm (`InsideSkull.depth_on`).
    hu_kji
        The CT on the MRI's grid, HU relative to the brain (`InsideSkull.hu_on`).
    """
    there = depth_kji > 0
    if not there.any():
        return None
    box = _box_around(there)
    depth, inside = np.ascontiguousarray(depth_kji[box]), there[box]
    middle, rim = depth > MIDDLE_MM, (depth > RIM_MM[0]) & (depth < RIM_MM[1])
    if min(np.count_nonzero(middle), np.count_nonzero(rim)) < LEAST_VOXELS:
        return None
    k, j, i = depth.shape
    part = Volume(np.ascontiguousarray(mri.array_kji[box]), Grid((i, j, k), mri.grid.spacing_ijk_mm), mri.modality)
    signal = _evened(without_bias(part, depth), depth, part.grid.spacing_ijk_mm)
    csf, limit = _csf_limit(signal[middle], signal[rim])
    found = inside & (signal > limit if csf == "dark" else signal < limit)
    if hu_kji is not None:
        hu = hu_kji[box]
        if csf is None or _lead_of_density(found, depth, hu) < LEAST_DENSER_HU:
            csf, found = None, inside.copy()
        if csf != "dark":
            # Beside bright CSF, vessels and dura are as dark as brain: both images must agree.
            found[inside] &= is_brain(signal[inside], hu[inside], depth[inside])
    elif csf is None:
        found = depth > SHALLOW_MM
    mask: BoolArray = np.zeros(depth_kji.shape, bool)
    if hu_kji is not None:
        found &= ~_orbits(found, hu_kji[box], part.grid.spacing_ijk_mm)
    mask[box] = found if csf is None and hu_kji is None else largest(found)
    return BrainMask(mask, csf)


def _lead_of_density(brain: BoolArray, depth: VoxelArray, hu: VoxelArray) -> float:
    """Return by how much what is taken for brain is denser than the rest, HU (medians)."""
    brain, depth, hu = brain.ravel()[::7], depth.ravel()[::7], hu.ravel()[::7]
    soft = (depth > SHALLOW_MM) & (np.abs(hu) < SOFT_HU)
    inner, other = hu[soft & brain], hu[soft & ~brain]
    return float(np.median(inner) - np.median(other)) if min(inner.size, other.size) > 0 else 0.0


def _csf_limit(middle: VoxelArray, rim: VoxelArray) -> tuple[Literal["dark", "bright"] | None, float]:
    """Return whether CSF is dark or bright, and the signal half-way between CSF and brain."""
    both = _both(middle, rim)
    low, high = _three_classes(both)
    means = [float(part.mean()) if part.size else 0.0 for part in _parted(both, low, high)]
    shares = [(float(np.mean(values <= low)), float(np.mean(values > high))) for values in (middle, rim)]
    candidates: list[tuple[float, Literal["dark", "bright"], float]] = []
    for name, limit, contrast, side in (
        ("dark", low, (means[1] - means[0]) / means[1], 0), ("bright", high, (means[2] - means[1]) / means[1], 1),
    ):  # fmt: skip
        excess = (shares[1][side] + 0.01) / (shares[0][side] + 0.01)
        if contrast > LEAST_CONTRAST and excess > LEAST_EXCESS:
            candidates.append((contrast * excess, "dark" if name == "dark" else "bright", limit))
    if not candidates:
        return None, 0.0
    _, csf, limit = max(candidates)
    return csf, limit


def _both(middle: VoxelArray, rim: VoxelArray) -> VoxelArray:
    """Return about as many voxels of the middle as of the rim."""
    return np.concatenate([middle[:: max(1, middle.size // 100_000)], rim[:: max(1, rim.size // 100_000)]])


def _three_classes(values: VoxelArray) -> tuple[float, float]:
    """Return the two limits that part values into three classes of least variance (N. Otsu, 1979)."""
    low, high = (float(v) for v in np.percentile(values, [0.5, 99.5]))
    counts, edges = np.histogram(values, bins=BINS, range=(low, max(high, low + 1e-6)))
    weight = np.concatenate([[0.0], np.cumsum(counts)])
    total = np.concatenate([[0.0], np.cumsum(counts * (edges[:-1] + edges[1:]) / 2)])

    def between(first: npt.NDArray[np.intp], last: npt.NDArray[np.intp]) -> FloatArray:
        gain: FloatArray = (total[last] - total[first]) ** 2 / np.maximum(weight[last] - weight[first], 1e-9)
        return gain

    a, b = np.triu_indices(BINS - 1, 1)
    a, b = a + 1, b + 1
    zero, end = np.zeros_like(a), np.full_like(a, BINS)
    best = int((between(zero, a) + between(a, b) + between(b, end)).argmax())
    return float(edges[a[best]]), float(edges[b[best]])


def _parted(values: VoxelArray, low: float, high: float) -> tuple[VoxelArray, VoxelArray, VoxelArray]:
    return values[values <= low], values[(values > low) & (values <= high)], values[values > high]


def without_bias(mri: Volume, depth_kji: VoxelArray) -> VoxelArray:
    """Return the MRI divided by its local mean (geometric, smooth over centimetres)."""
    blocks = [
        min(n, max(1, round(BLOCK_MM / s))) for n, s in zip(depth_kji.shape, mri.grid.spacing_ijk_mm[::-1], strict=True)
    ]
    array = mri.array_kji
    positive = np.maximum(array, np.float32(1e-3 * float(array.max())))
    deep = depth_kji > BIAS_DEPTH_MM
    total, count = (
        _sums(np.where(deep, np.log(positive), np.float32(0)), blocks),
        _sums(deep.astype(np.float32), blocks),
    )
    everywhere = float(total.sum() / max(1.0, float(count.sum())))
    for _ in range(2):
        total, count = _smoothed(total), _smoothed(count)
    # Where there is little brain, the mean of all.
    prior = 0.02 * float(count.max())
    field: VoxelArray = ((total + prior * everywhere) / (count + prior)).astype(np.float32)
    field = _spread(field, array.shape, blocks)
    return (array / np.exp(field)).astype(np.float32)


def _evened(signal: VoxelArray, depth: VoxelArray, spacing_ijk_mm: tuple[float, ...]) -> VoxelArray:
    """Return the signal without the bias that is left: with a strong coil, its rim is half as bright again.

    Unlike `without_bias`, this sees the rim: each voxel is compared with the median of its class. Voxels up to 3 mm
    apart are used, every one along an axis of thick slices.
    """
    steps = [max(1, int(3 / spacing)) for spacing in spacing_ijk_mm[::-1]]
    some = tuple(slice(None, None, step) for step in steps)
    blocks = [
        min(n, max(1, round(BLOCK_MM / s / step)))
        for n, s, step in zip(depth[some].shape, spacing_ijk_mm[::-1], steps, strict=True)
    ]
    here, inside = signal[some], depth[some] > 0
    middle, rim = depth[some] > MIDDLE_MM, (depth[some] > RIM_MM[0]) & (depth[some] < RIM_MM[1])
    if not (middle.any() and rim.any()):
        return signal
    field: VoxelArray | None = None
    for _ in range(TURNS):
        low, high = _three_classes(_both(here[middle], here[rim]))
        parts = _parted(here[inside], low, high)
        medians = [float(np.median(part)) if part.size else 1.0 for part in parts]
        wanted = np.where(here <= low, medians[0], np.where(here > high, medians[2], medians[1]))
        off = np.log(np.maximum(here, np.float32(1e-3)) / np.maximum(wanted, 1e-3).astype(np.float32))
        near = inside & (np.abs(off) < NEAR_LOG)
        total, count = _sums(np.where(near, off, np.float32(0)), blocks), _sums(near.astype(np.float32), blocks)
        for _ in range(2):
            total, count = _smoothed(total), _smoothed(count)
        more = (total / np.maximum(count + np.float32(0.02) * count.max(), np.float32(1e-6))).astype(np.float32)
        field = more if field is None else field + more
        here = (here / np.exp(_spread(more, here.shape, blocks))).astype(np.float32)
    assert field is not None
    whole = _spread(field, signal.shape, blocks, steps)
    return (signal / np.exp(whole)).astype(np.float32)


def _spread(
    field: VoxelArray, shape: tuple[int, ...], blocks: list[int], steps: Sequence[int] = (1, 1, 1)
) -> VoxelArray:
    """Interpolate values of blocks linearly at voxels; the blocks are of every `steps`-th voxel."""
    for axis, (size, block, step) in enumerate(zip(shape, blocks, steps, strict=True)):
        at = np.clip((np.arange(size) / step - (block - 1) / 2) / block, 0, field.shape[axis] - 1)
        low = np.minimum(at.astype(np.intp), max(0, field.shape[axis] - 2))
        high = np.minimum(low + 1, field.shape[axis] - 1)
        part = (at - low).astype(np.float32).reshape([-1 if a == axis else 1 for a in range(3)])
        evened = np.asarray(field.take(low, axis) * (1 - part) + field.take(high, axis) * part, dtype=np.float32)
        field = evened
    return field


def _sums(array: VoxelArray, blocks: list[int]) -> VoxelArray:
    """Return the sums of blocks; those at the end may be incomplete."""
    for axis, block in enumerate(blocks):
        array = np.add.reduceat(array, np.arange(0, array.shape[axis], block), axis=axis)
    return array


def _smoothed(array: VoxelArray) -> VoxelArray:
    for axis in range(3):
        padded = np.pad(array, [(1, 1) if a == axis else (0, 0) for a in range(3)])
        parts = [np.take(padded, np.arange(n, n + array.shape[axis]), axis) for n in range(3)]
        array = ((parts[0] + 2 * parts[1] + parts[2]) / 4).astype(np.float32)
    return array


def _orbits(brain: BoolArray, hu: VoxelArray, spacing_ijk_mm: tuple[float, ...]) -> BoolArray:
    """Return what of a mask lies in the orbits: where their roof is too thin to be seen, the inside leaks into them.

    Such a piece is small, connected to the brain by less than 4 mm (8 mm in voxels of 2 mm), and has fat beside it in
    the CT; the fat is returned, too.
    """
    reach = max(1, round(SHRUNK_MM / min(spacing_ijk_mm)))
    fat = (hu > FAT_HU[0]) & (hu < FAT_HU[1])
    if reach > 1:  # less fat than that is noise, or the border of air; voxels of 2 mm have less noise
        fat = grown(shrunk(fat))
    for _ in range(reach):
        fat = grown(fat)
    if not fat.any():
        return fat
    core, turns = brain, max(LEAST_TURNS, reach)
    for _ in range(turns):
        core = shrunk(core)
    pieces = by_size(core)
    sizes = np.bincount(pieces[core])
    in_orbit = np.bincount(pieces[grown(fat)], minlength=sizes.size) > LEAST_FAT * sizes
    in_orbit &= sizes * float(np.prod(spacing_ijk_mm)) < MOST_ORBIT_MM3
    in_orbit[:2] = False
    if not in_orbit.any():
        return fat
    orbit = in_orbit[pieces]
    near = _box_around(orbit, 2 * (turns + 1))
    orbit, other = orbit[near], (pieces[near] > 0) & ~orbit[near]
    for _ in range(turns + 1):
        orbit, other = grown(orbit), grown(other)
    fat[near] |= orbit & ~other
    return fat


def _box_around(mask: BoolArray, margin: int = 0) -> tuple[slice, ...]:
    """Return the slices that hold all of a mask that is not empty, and so many voxels around it."""
    ends = (np.flatnonzero(mask.any(axis=tuple({0, 1, 2} - {axis})))[[0, -1]] for axis in range(3))
    return tuple(slice(max(0, int(first) - margin), int(last) + 1 + margin) for first, last in ends)
