"""The expected error at each point of the brain, from the local evidence.

The stated expected error is the median over the brain. Where the displacement measured at a point is larger than what a
case without error reads, the error there is expected to be larger by as much (in squares, as independent errors add);
elsewhere it is what is left, so that the median over the brain stays the one stated, and never less than
`LEAST_SHARE` of it: nothing measured here supports less. Displacements are those of the brain's blocks
(`brain_shift`), or of the blocks of the head where these could not be judged, and the smooth field of the skull.

Far from any block the value grows, and further away nothing is known. Limits: docs/see.md.
"""

from __future__ import annotations

import math

import numpy as np

from BrainFusionLib.error_map import ErrorMap
from BrainFusionLib.evidence import BrainShift, Evidence
from BrainFusionLib.geometry import FloatArray, Grid, apply_affine
from BrainFusionLib.intensity.inside import InsideSkull
from BrainFusionLib.transform import Transform
from BrainFusionLib.verdict.brain_shift import LEAST_NATS, TOO_SMALL
from BrainFusionLib.verdict.judge import Verdict
from BrainFusionLib.verdict.skull_field import SkullField
from BrainFusionLib.volume import BoolArray

CELL_MM = 8.0
# The bone of the skull counts as known: the field of the skull was measured there.
BEYOND_INNER_TABLE_MM = 8.0
# Least share of the stated error; the bound at a point is wider than that of the median by this factor (9 of 10 points
# of 47 simulated cases were within 1.1 times; docs/see.md), and more so where the brain could not be compared.
LEAST_SHARE, LOCAL_FACTOR, NOT_JUDGED_FACTOR = 0.6, 1.2, 1.8
# What each displacement reads without error (up to the 75th percentile over points), and its weight, in squares; that
# of the brain's is `brain_shift.TOO_SMALL`.
QUIET_SHIFT_MM, QUIET_LOCAL_MM, QUIET_SKULL_MM = 0.35, 1.0, 0.9
LOCAL_WEIGHT, SKULL_WEIGHT = 0.5, 0.25
# Widths over which the blocks' displacements are averaged.
SHIFT_WIDTH_MM, LOCAL_WIDTH_MM = 8.0, 14.0
# Distance from the nearest block up to which a value holds, over which it doubles, and from which nothing is known.
NEAR_MM, DOUBLES_MM, FAR_MM = 14.0, 14.0, 32.0
# Points at once, so that what is between stays in the cache.
_AT_ONCE = 250


def error_map(
    verdict: Verdict,
    evidence: Evidence,
    mri_grid: Grid,
    transform: Transform,
    inside: InsideSkull | None,
    skull: SkullField | None,
    *,
    aligned_to_brain: bool = False,
) -> ErrorMap | None:
    """Make the map of a pose; ``None`` where no error is stated (a red verdict), or nothing local was measured.

    Parameters
    ----------
    verdict
        Its expected error is the median of the map over the brain.
    evidence
        Of the pose.
    mri_grid
        Of the MRI.
    transform
        The pose: maps MRI points to CT points.
    inside
        The inside of the skull in the CT.
    skull
        The displacement of the skull in this pose.
    aligned_to_brain
        Whether the pose is that of the brain: the displacements of the brain and of the skull were then measured in
        another one, that of the skull, and do not count.
    """
    if verdict.colour == "red" or verdict.expected_error_mm is None or evidence.local is None:
        return None
    expected = verdict.expected_error_mm
    shift = evidence.brain_shift
    is_judged = shift is not None and shift.judged and not aligned_to_brain
    blocks = shift.points_lps_mm if shift is not None and is_judged else evidence.local.points_lps_mm
    if not len(blocks):
        return None
    grid = mri_grid.with_spacing((CELL_MM, CELL_MM, CELL_MM))
    points = _points_of(grid)
    depth = None if inside is None else inside.depth_at(transform.apply(points)).astype(np.float64)
    # Without the inside of a skull, around blocks only.
    brain = np.ones(len(points), bool) if depth is None else depth > 0
    near = brain if depth is None else brain | _beside(brain, grid)
    chosen = np.flatnonzero(near)
    if shift is not None and is_judged:
        moved, away = _smoothed(blocks, shift.shifts_mm, points[chosen], SHIFT_WIDTH_MM)
        squares = _too_small(shift) ** 2 * _beyond(moved, QUIET_SHIFT_MM)
    else:
        moved, away = _smoothed(blocks, evidence.local.shifts_mm, points[chosen], LOCAL_WIDTH_MM)
        squares = LOCAL_WEIGHT * _beyond(moved, QUIET_LOCAL_MM)
    if skull is not None and not aligned_to_brain:
        squares = squares + SKULL_WEIGHT * _beyond(np.linalg.norm(skull.at(points[chosen]), axis=1), QUIET_SKULL_MM)
    wider = 1 + np.maximum(0, away - NEAR_MM) / DOUBLES_MM
    known, of_brain = away < FAR_MM, brain[chosen]
    if not (known & of_brain).any():
        return None
    values = _with_median(expected, squares, wider, known & of_brain)
    whole = np.full(len(points), np.nan)
    whole[chosen] = np.where(known, values, np.nan)
    ratio = 1.0 if verdict.bound_mm is None else verdict.bound_mm / expected
    factor = LOCAL_FACTOR if is_judged else NOT_JUDGED_FACTOR
    return ErrorMap.of(whole.reshape(grid.shape_kji), grid, factor * max(1.0, ratio))


def _with_median(expected_mm: float, squares: FloatArray, wider: FloatArray, brain: BoolArray) -> FloatArray:
    """Return ``k * wider * sqrt(rest² + squares)`` whose median over the brain is the expected error.

    `rest` is at least `LEAST_SHARE` of it; k is 1 unless more was measured in most of the brain. No value is below that
    share.
    """

    def values(rest: float) -> FloatArray:
        found: FloatArray = wider * np.sqrt(rest**2 + squares)
        return found

    least, most = LEAST_SHARE * expected_mm, expected_mm
    for _ in range(16):
        middle = (least + most) / 2
        if np.median(values(middle)[brain]) < expected_mm:
            least = middle
        else:
            most = middle
    found = values(least)
    scaled: FloatArray = np.maximum(found * (expected_mm / float(np.median(found[brain]))), LEAST_SHARE * expected_mm)
    return scaled


def _too_small(shift: BrainShift) -> float:
    """Return how many times larger the displacement is than matched."""
    return TOO_SMALL[0] + TOO_SMALL[1] / math.sqrt(max(shift.information_nats, LEAST_NATS))


def _beyond(lengths_mm: FloatArray, quiet_mm: float) -> FloatArray:
    beyond: FloatArray = np.maximum(0.0, lengths_mm**2 - quiet_mm**2)
    return beyond


def _smoothed(
    blocks_lps_mm: FloatArray, shifts_mm: FloatArray, points_lps_mm: FloatArray, width_mm: float
) -> tuple[FloatArray, FloatArray]:
    """Return the length of the blocks' mean shift around each point, and the distance of the nearest block."""
    lengths, away = np.empty(len(points_lps_mm)), np.empty(len(points_lps_mm))
    # Relative to the middle: products of positions lose digits far from the origin.
    middle = blocks_lps_mm.mean(axis=0)
    blocks = blocks_lps_mm - middle
    for first in range(0, len(points_lps_mm), _AT_ONCE):
        part = slice(first, first + _AT_ONCE)
        points = points_lps_mm[part] - middle
        square = (points**2).sum(axis=1)[:, None] + (blocks**2).sum(axis=1) - 2 * points @ blocks.T
        np.maximum(square, 0, out=square)
        nearest = square.min(axis=1)
        # Relative to the nearest block, so that the weights do not vanish far away. In float32, because exponentials
        # are what takes the time.
        square -= nearest[:, None]
        weight = (square / (-2 * width_mm**2)).astype(np.float32)
        np.exp(weight, out=weight)
        lengths[part] = np.linalg.norm(weight @ shifts_mm / weight.sum(axis=1)[:, None], axis=1)
        away[part] = np.sqrt(nearest)
    return lengths, away


def _points_of(grid: Grid) -> FloatArray:
    k, j, i = (axis.ravel() for axis in np.indices(grid.shape_kji))
    points: FloatArray = apply_affine(grid.lps_from_ijk, np.stack([i, j, k], axis=1).astype(np.float64))
    return points


def _beside(brain: BoolArray, grid: Grid) -> BoolArray:
    """Return the cells within `BEYOND_INNER_TABLE_MM` of a mask, both (cells,)."""
    shape = grid.shape_kji
    mask = brain.reshape(shape)
    reach = [int(BEYOND_INNER_TABLE_MM / mm + 0.5) for mm in grid.spacing_ijk_mm[::-1]]
    grown = np.pad(mask, [(r, r) for r in reach])
    found = np.zeros(shape, bool)
    for shift in np.ndindex(*(2 * r + 1 for r in reach)):
        found |= grown[tuple(slice(s, s + n) for s, n in zip(shift, shape, strict=True))]
    beside: BoolArray = found.ravel()
    return beside
