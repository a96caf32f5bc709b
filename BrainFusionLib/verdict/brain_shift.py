"""Displacement of the brain against the skull between the MRI and the CT, both aligned by the skull.

Inside the inner table, the CT is predicted from the MRI: by the mean CT value at each MRI value, both without their low
frequencies (coil, beam hardening). For each block of the brain, the log-likelihood of its CT values is computed for
every shift of the prediction within reach; a smooth field maximises the sum of these gains, with a weak prior to no
shift. Its mean-field solution starts with little smoothness, so that it does not lock at no shift, and ends between the
voxels. Sources: block matching (S. Ourselin et al., Image and Vision Computing 19 (2001) 25), correlation ratio
(A. Roche et al., MICCAI 1998, 1115), discrete shifts with coupled smoothness (M. Heinrich et al., MICCAI 2014, 73).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt

from BrainFusionLib import kept
from BrainFusionLib.evidence import BrainShift
from BrainFusionLib.geometry import FloatArray, Grid, apply_affine
from BrainFusionLib.intensity.inside import InsideSkull, grown, pooled_to
from BrainFusionLib.transform import Transform
from BrainFusionLib.verdict.binning import bins_of, quantile_edges
from BrainFusionLib.verdict.matching import Shifts, Whole, gains, shifts_within
from BrainFusionLib.verdict.modes import brain_moved, seen_in, ventricles_moved
from BrainFusionLib.verdict.moved import HIDING_NATS
from BrainFusionLib.verdict.parts import Part, moved_part
from BrainFusionLib.verdict.sides import direction_in_words, place_in_words
from BrainFusionLib.verdict.smoothing import mean_around
from BrainFusionLib.volume import BoolArray, Volume, VoxelArray

# Size of the voxels, edge of a block, longest shift; how far the region stays below the inner table.
VOXEL_MM, BLOCK_MM, REACH_MM, DEPTH_MM = 2.0, 12.0, 8.0, 2.5
# Low frequencies, with this standard deviation, are removed; both images are then smoothed.
LOW_MM, CT_SMOOTH_MM, MRI_SMOOTH_MM = 10.0, 1.0, 0.7
# Soft tissue and fluid lie within this of the brain's HU.
SOFT_HU = 75.0
# Brighter than the tissue around it by this: blood in veins and sinuses, or the blur of bone. In FLAIR and T2 blood is
# as dark as fluid, and sinuses imitated shifts of 3 mm.
BLOOD_HU = 12.0
BINS = 24
# Weight of a voxel's likelihood, because its noise is correlated with its neighbours'; weight of the smoothness (first
# and last, 1/mm² for each pair of neighbouring blocks) and of the prior to no shift; weights of a block's neighbours
# in its gain.
TEMPERATURE, FIRST_SMOOTH, LAST_SMOOTH, PRIOR, NEIGHBOUR = 0.15, 0.02, 0.3, 0.02, 0.46
# Least gain, nats: a block of which the MRI tells less than nothing shows a lesion: no shift is to lead away from it.
ROUNDS, STEPS, FINE_STEPS, LEAST_GAIN = 3, 12, 10, -10.0
# A block with a smaller share of soft tissue inside the skull is not matched.
LEAST_SHARE, LEAST_BLOCKS = 0.3, 120
# Blocks at this depth below the inner table count in full.
FULL_DEPTH_MM = 12.0
# Limits for judging: information, share of the inside of the skull that was matched, the MRI's voxel edge. In 11 slabs
# of 34 to 60 mm (.18 to .46 of the inside) brains in their place read at most 1.2 mm and gain .0004 nats; four that had
# sagged by 2.3 to 4.5 mm there read 2.2 to 4.7 mm and gain .03 nats or more.
LEAST_NATS, LEAST_COVERED, MOST_VOXEL_MM = 0.03, 0.15, 7.0
# The matched field is too small, and the more so the less the MRI tells of the CT: true over matched is TOO_SMALL[0] +
# TOO_SMALL[1] / sqrt(information), in 39 simulated cases of 3 to 8 mm; true over estimated is .91 to 1.28 in 9 of 10.
TOO_SMALL, RANGE = (1.02, 0.164), (0.87, 1.3)
FEW = ("ventricles_mm", "ventricles_sd_mm", "whole_mm", "whole_sd_mm")
# Parts of the brain are tested apart where the blocks' matching tells too little, or so much that it may be noise.
MUCH_MM = 2.0

# Indices of voxels: in the flat volume, (n,), and kji, (n, 3).
Voxels = tuple[npt.NDArray[np.intp], npt.NDArray[np.intp]]


@dataclass(frozen=True)
class _Pair:
    """Both images on one grid, padded to whole blocks.

    Attributes
    ----------
    ct
        HU without low frequencies; 0 outside `weight`.
    weight
        1 in soft tissue inside the skull.
    bins
        The MRI's bin; `BINS` outside the skull.
    depth
        Below the inner table, mm.
    edge_kji, blocks_kji
        Size of a block in voxels; number of blocks along each axis.
    few
        What the tests of few degrees of freedom tell (`verdict.modes`): fields of `BrainShift`.
    find_part
        The test of parts (`verdict.parts`).
    """

    grid: Grid
    ct: VoxelArray
    weight: VoxelArray
    bins: npt.NDArray[np.int32]
    depth: VoxelArray
    edge_kji: Whole
    blocks_kji: Whole
    few: dict[str, Any]
    find_part: Callable[[], Part | None]

    @property
    def spacing(self) -> FloatArray:
        return np.asarray(self.grid.spacing_ijk_mm[::-1], dtype=np.float64)


@dataclass(frozen=True)
class _Blocks:
    """The blocks matched: index of each (n, 3), and of its six neighbours (n, 6), n where there is none."""

    at: Whole
    beside: Whole

    @property
    def neighbours(self) -> Whole:
        count: Whole = (self.beside < len(self.at)).sum(axis=1)
        return count

    def sums(self, values: FloatArray) -> FloatArray:
        """Return the sum of the neighbours' values."""
        total: FloatArray = np.vstack([values, np.zeros((1, values.shape[1]), values.dtype)])[self.beside].sum(axis=1)
        return total


def brain_shift(
    ct_in_mri: Volume, mri: Volume, inside: InsideSkull | None, transform: Transform | None = None
) -> BrainShift:
    """Measure the displacement of the brain against the skull.

    Parameters
    ----------
    ct_in_mri
        Hounsfield units, on the MRI's grid, aligned by the skull.
    mri
        Any sequence.
    inside
        The inside of the skull in the CT.
    transform
        Maps MRI points to points of the space of `inside`, LPS mm.
    """
    if inside is None:
        return BrainShift(False, "no closed skull is in view")
    if max(mri.grid.spacing_ijk_mm) > MOST_VOXEL_MM:
        return BrainShift(False, "the slices of the MRI are too thick")
    pair = _pair(ct_in_mri, mri, inside, transform)
    if pair is None:
        return BrainShift(False, "too little of the brain is in both volumes")
    share = _block_sums(pair.weight, pair) / float(np.prod(pair.edge_kji))
    blocks = _blocks(share >= LEAST_SHARE)
    covered = len(blocks.at) * float(np.prod(pair.edge_kji * pair.spacing)) / 1000 / max(inside.volume_ml, 1.0)
    if len(blocks.at) < LEAST_BLOCKS or covered < LEAST_COVERED:
        return BrainShift(False, "too little of the brain is in both volumes")
    return _described(pair, blocks, *_matched(pair, blocks))


def _pair(ct_in_mri: Volume, mri: Volume, inside: InsideSkull, transform: Transform | None) -> _Pair | None:
    hu, grid = pooled_to(ct_in_mri, VOXEL_MM)
    signal = kept.of(mri, "pooled", lambda: pooled_to(mri, VOXEL_MM)[0])
    depth = inside.depth_on(grid, transform)
    mask = depth > DEPTH_MM
    if np.count_nonzero(mask) * np.prod(grid.spacing_ijk_mm) < 1e5:
        return None
    box = tuple(
        slice(int(there[0]), int(there[-1]) + 1)
        for there in (np.flatnonzero(mask.any(axis=tuple({0, 1, 2} - {axis}))) for axis in range(3))
    )
    spacing = np.asarray(grid.spacing_ijk_mm[::-1])
    origin = apply_affine(grid.lps_from_ijk, np.array([b.start for b in box][::-1], dtype=np.float64))
    edge: Whole = np.maximum(1, np.rint(BLOCK_MM / spacing)).astype(np.int64)
    hu, signal, mask, depth = hu[box], signal[box], mask[box], depth[box]
    seen = seen_in(hu, signal, depth, spacing)
    few = {} if seen is None else dict(zip(FEW, (*ventricles_moved(seen), *brain_moved(seen)), strict=True))
    blocks: Whole = -(-np.array(mask.shape) // edge)
    beyond = [(0, int(n)) for n in blocks * edge - mask.shape]
    middle = float(np.median(hu[mask]))
    soft = mask & ~grown(mask & (np.abs(hu - np.float32(middle)) > SOFT_HU))
    weight, whole = soft.astype(np.float32), mask.astype(np.float32)
    if not soft.any():
        return None
    ct = (hu - mean_around(hu, weight, LOW_MM, spacing)) * weight
    ct = mean_around(ct, weight, CT_SMOOTH_MM, spacing)
    spread = 1.4826 * float(np.median(np.abs(ct[soft])))
    weight = (soft & ~grown(soft & (ct > max(BLOOD_HU, 2.5 * spread)))).astype(np.float32)
    ct *= weight
    low = mean_around(signal, whole, LOW_MM, spacing)
    ratio = mean_around(
        signal / np.maximum(low, np.float32(1e-3) * low.max() + np.float32(1e-12)), whole, MRI_SMOOTH_MM, spacing
    )
    bins = bins_of(ratio, quantile_edges(ratio[mask], BINS))
    bins[~mask] = BINS
    find_part = partial(moved_part, hu, ratio, depth, weight, spacing, grid.direction)
    ct, weight, depth = (np.pad(array, beyond) for array in (ct, weight, depth))
    bins = np.pad(bins, beyond, constant_values=BINS)
    k, j, i = ct.shape
    grid = replace(grid, size_ijk=(i, j, k), origin_lps_mm=tuple(origin))
    return _Pair(grid, ct, weight, bins, depth, edge, blocks, few, find_part)


def _block_sums(array: VoxelArray, pair: _Pair) -> VoxelArray:
    (a, b, c), (p, q, r) = pair.blocks_kji.tolist(), pair.edge_kji.tolist()
    sums: VoxelArray = array.reshape(a, p, b, q, c, r).sum(axis=(1, 3, 5), dtype=np.float32)
    return sums


def _blocks(chosen: BoolArray) -> _Blocks:
    at = np.argwhere(chosen)
    index = np.full(tuple(np.array(chosen.shape) + 2), len(at))
    index[tuple((at + 1).T)] = np.arange(len(at))
    unit = np.eye(3, dtype=np.int64)
    beside = np.stack([index[tuple((at + 1 + step).T)] for step in np.concatenate([unit, -unit])], axis=1)
    return _Blocks(at, beside)


def _matched(pair: _Pair, blocks: _Blocks) -> tuple[FloatArray, float, list[float]]:
    """Return the shifts of the prediction (n, 3) kji mm, their noise, and the information of none, affine and all."""
    shifts = shifts_within(REACH_MM, pair.spacing)
    field: FloatArray = np.zeros((len(blocks.at), 3))
    noise, started, flat = 0.0, 0.0, np.flatnonzero(pair.weight)
    at = flat, np.stack(np.unravel_index(flat, pair.weight.shape), axis=1)
    for turn in range(ROUNDS):
        mean, variance, information = _learned(pair, blocks, field, at)
        started = started if turn else information
        weight = np.float32(TEMPERATURE / variance)
        gained = gains(
            pair.ct * weight, pair.weight * (np.float32(-0.5) * weight), mean.take(pair.bins),
            blocks.at * pair.edge_kji, pair.edge_kji, shifts,
        )  # fmt: skip
        gained = _shared(np.maximum(gained, np.float32(LEAST_GAIN)), blocks, pair)
        field, noise = _relaxed(gained, blocks, shifts, field)
    field = _between_voxels(gained, blocks, shifts, field)
    design = np.column_stack([np.ones(len(blocks.at)), blocks.at - blocks.at.mean(axis=0)])
    affine = design @ np.linalg.lstsq(design, field, rcond=None)[0]
    informed = [started, *(_learned(pair, blocks, shift, at)[2] for shift in (affine, field))]
    return field, noise, informed


def _learned(pair: _Pair, blocks: _Blocks, field: FloatArray, at: Voxels) -> tuple[VoxelArray, float, float]:
    """Return the CT's mean by the MRI's bin, the variance left in the CT, and the information, nats a voxel.

    The means, (BINS + 1,) with 0 for outside the skull, are those at the shifts given of the voxels `at`: those with a
    weight.
    """
    flat, kji = at
    seen = flat
    if field.any():
        moved = _at_voxels(pair, blocks, field, at) / pair.spacing
        _, tall, wide = pair.ct.shape
        k, j, i = np.clip(np.rint(kji + moved).astype(np.intp), 0, np.array(pair.ct.shape) - 1).T
        seen = (k * tall + j) * wide + i
    bins = pair.bins.take(seen)
    both = bins < BINS
    values, bins = pair.ct.take(flat)[both], bins[both]
    count = np.bincount(bins, minlength=BINS).astype(np.float64)
    total = np.bincount(bins, values, minlength=BINS).astype(np.float64)
    # Neighbouring bins share; 20 voxels of mean 0 keep empty bins at 0.
    mean = (_with_neighbours(total) / (_with_neighbours(count) + 20)).astype(np.float32)
    left = float(np.var(values - mean[bins])) + 1e-6
    information = 0.5 * float(np.log((np.var(values) + 1e-6) / left))
    return np.append(mean, np.float32(0)), left, information


def _with_neighbours(line: FloatArray) -> FloatArray:
    padded = np.pad(line, 1, mode="edge")
    mixed: FloatArray = 0.25 * padded[:-2] + 0.5 * padded[1:-1] + 0.25 * padded[2:]
    return mixed


def _at_voxels(pair: _Pair, blocks: _Blocks, field: FloatArray, at: Voxels) -> FloatArray:
    """Interpolate a field of the blocks linearly at voxels, (n, 3)."""
    dense = np.zeros((*pair.blocks_kji, 3))
    dense[tuple(blocks.at.T)] = field
    for axis, (count, edge) in enumerate(zip(pair.blocks_kji.tolist(), pair.edge_kji.tolist(), strict=True)):
        where = np.clip((np.arange(count * edge) + 0.5) / edge - 0.5, 0, count - 1)
        hat = np.maximum(0, 1 - np.abs(np.subtract.outer(where, np.arange(count))))
        dense = np.moveaxis(np.tensordot(hat, dense, axes=(1, axis)), 0, axis)
    # The last product has put i first: read in that order, nothing is copied.
    k, j, i = at[1].T
    tall, wide, _, _ = dense.shape
    values: FloatArray = np.moveaxis(dense, 2, 0).reshape(-1, 3).take((i * tall + k) * wide + j, axis=0)
    return values


def _shared(gained: VoxelArray, blocks: _Blocks, pair: _Pair) -> VoxelArray:
    """Give each block a share of its neighbours' gains, along each axis in turn."""
    dense = np.zeros((*pair.blocks_kji, gained.shape[1]), np.float32)
    at = tuple(blocks.at.T)
    dense[at] = gained
    middle, side = np.float32(1 / (1 + 2 * NEIGHBOUR)), np.float32(NEIGHBOUR / (1 + 2 * NEIGHBOUR))
    for axis in range(3):
        lines = np.moveaxis(dense, axis, 0)
        mixed = middle * lines
        mixed[1:] += side * lines[:-1]
        mixed[:-1] += side * lines[1:]
        dense = np.moveaxis(mixed, 0, axis)
    shared: VoxelArray = dense[at]
    return shared


def _relaxed(gained: VoxelArray, blocks: _Blocks, shifts: Shifts, start: FloatArray) -> tuple[FloatArray, float]:
    """Return the mean-field solution, and the median standard deviation of a shift."""
    mm = shifts.mm_kji.astype(np.float32)
    squared = (mm**2).sum(axis=1)
    field, first = start, not start.any()
    likely = gained
    for step in range(STEPS):
        smooth = FIRST_SMOOTH * (LAST_SMOOTH / FIRST_SMOOTH) ** (step / (STEPS - 1))
        alone = first and step == 0
        stiff = (PRIOR + (0 if alone else smooth) * blocks.neighbours).astype(np.float32)
        pull = (smooth * blocks.sums(field)).astype(np.float32)
        likely = pull @ mm.T
        likely += gained
        likely -= 0.5 * stiff[:, None] * squared
        likely -= likely.max(axis=1, keepdims=True)
        np.exp(likely, out=likely)
        likely /= likely.sum(axis=1, keepdims=True)
        field = (likely @ mm if alone else 0.3 * field + 0.7 * (likely @ mm)).astype(np.float64)
    spread = likely @ squared - ((likely @ mm) ** 2).sum(axis=1)
    return field, float(np.sqrt(np.median(np.maximum(spread, 0))))


def _between_voxels(gained: VoxelArray, blocks: _Blocks, shifts: Shifts, start: FloatArray) -> FloatArray:
    """Refine a field: parabolas through the gains beside the best shift, together with the smoothness."""
    mm, every = shifts.mm_kji.astype(np.float32), np.arange(len(gained))
    squared = (mm**2).sum(axis=1)
    stiff = (PRIOR + LAST_SMOOTH * blocks.neighbours).astype(np.float32)
    steps = np.array([np.abs(mm[:, axis][mm[:, axis] != 0]).min() for axis in range(3)])
    field = start
    for _ in range(FINE_STEPS):
        pull = LAST_SMOOTH * blocks.sums(field)
        best = (gained + pull.astype(np.float32) @ mm.T - 0.5 * stiff[:, None] * squared).argmax(axis=1)
        slope, bend = np.zeros(field.shape), np.zeros(field.shape)
        for axis in range(3):
            less, more = shifts.beside[axis][:, best]
            known = (less >= 0) & (more >= 0)
            below, here, above = gained[every, less], gained[every, best], gained[every, more]
            slope[:, axis] = np.where(known, (above - below) / (2 * steps[axis]), 0)
            bend[:, axis] = np.where(known, np.minimum((above + below - 2 * here) / steps[axis] ** 2, 0), 0)
        at = shifts.mm_kji[best]
        wanted = (slope - bend * at + pull) / (stiff[:, None] - bend)
        field = 0.3 * field + 0.7 * np.clip(wanted, at - steps, at + steps)
    return field


# --- the answer ------------------------------------------------------------------------------------------------------


def _described(pair: _Pair, blocks: _Blocks, field: FloatArray, noise: float, informed: list[float]) -> BrainShift:
    middles_ijk = ((blocks.at + 0.5) * pair.edge_kji - 0.5)[:, ::-1]
    points = apply_affine(pair.grid.lps_from_ijk, middles_ijk)
    # The CT at x matches the MRI at x + d, so the brain at x has moved by -d.
    shifts = -field[:, ::-1] @ pair.grid.direction.T
    lengths = np.linalg.norm(shifts, axis=1)
    matter = _by_depth(pair, blocks)
    p95, median = (_percentile(lengths, matter, share) for share in (0.95, 0.5))
    most = (lengths >= p95) & (matter > 0)
    started, affine, informed_by_all = informed
    factor = TOO_SMALL[0] + TOO_SMALL[1] / max(informed_by_all, LEAST_NATS) ** 0.5
    estimate = factor * p95
    judged = informed_by_all >= LEAST_NATS
    part = pair.find_part() if informed_by_all < HIDING_NATS or estimate > MUCH_MM else None
    return BrainShift(
        judged,
        "" if judged else "the CT's brain has too little contrast",
        np.round(points, 2),
        np.round(shifts, 2),
        p95_mm=estimate,
        low_mm=RANGE[0] * estimate,
        high_mm=RANGE[1] * estimate,
        median_mm=median,
        noise_mm=noise,
        information_nats=informed_by_all,
        gain_nats=informed_by_all - started,
        affine_gain_nats=affine - started,
        place=place_in_words(points[most] - points.mean(axis=0)),
        direction=direction_in_words(shifts[most]),
        **pair.few,
        **({} if part is None else {f"part_{name}": value for name, value in vars(part).items()}),
    )


def _by_depth(pair: _Pair, blocks: _Blocks) -> FloatArray:
    """Return the weight of each block: less near the bone, where sinuses and the bone's blur imitate small shifts."""
    at = tuple(blocks.at.T)
    depth = _block_sums(pair.depth * pair.weight, pair)[at] / _block_sums(pair.weight, pair)[at]
    matter: FloatArray = np.clip(depth / FULL_DEPTH_MM, 0, 1).astype(np.float64)
    return matter


def _percentile(values: FloatArray, weights: FloatArray, share: float) -> float:
    """Return a percentile of weighted values."""
    order = np.argsort(values)
    total = np.cumsum(weights[order])
    return float(values[order][np.searchsorted(total, share * total[-1])])
