"""The smooth displacement between the skull in the CT and the skull in the MRI: scale and distortion of one of them.

The skull is the only part of the head that no operation, posture or time deforms. Along lines across it
(`skull_profiles`) the joint histogram of CT and MRI says how well each shift along the normal matches, in any contrast;
a polynomial of third order (the order of gradient fields) is fitted to the best shifts of patches of both tables.
Fat may be displaced against water, so the outer table may move as a whole.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from BrainFusionLib import kept
from BrainFusionLib.geometry import FloatArray, apply_affine
from BrainFusionLib.resample import sampled
from BrainFusionLib.transform import Transform
from BrainFusionLib.verdict.binning import bins_of
from BrainFusionLib.verdict.skull_profiles import SkullLines, along, skull_lines
from BrainFusionLib.volume import Volume, VoxelArray

DEGREE = 3
# Longest shift in each round, and about how many lines it takes at most; the step; samples around the inner and outer
# table.
ROUNDS, STEP_MM = ((5.0, 4000), (3.0, 4000), (3.0, 20_000)), 0.5
INNER_MM, OUTER_MM = np.arange(-7.0, 5.1), np.arange(-5.0, 4.1)
PATCH_MM, LEAST_LINES, LEAST_PATCHES = 24.0, 12, 40
# HU of the CT's classes relative to the brain: all soft tissue is one, so that the brain's own shift does not count.
CLASSES_HU = np.array([-300.0, -90.0, 80.0, 200.0, 400.0, 700.0, 1000.0])
BINS = 16
# Coordinates are in units of this; standard deviations expected of the coefficients of each order, mm.
UNIT_MM = 80.0
ORDER_SD_MM = {0: 10.0, 1: 3.0, 2: 1.0, 3: 0.7}
# The same for a uniform shift of each table along its normals (kernel, blooming) and for the outer table's (fat).
TABLE_SD_MM, FAT_SD_MM = 0.3, 0.5
# Least score of a patch (nats a line), least scatter, factor on the variance for neighbours that share errors.
LEAST_PEAK, LEAST_SCATTER_MM, SHARED = 0.3, 0.15, 2.0
# Lines on which the field is compared with a rigid movement.
COMPARED = 4000
# Slices thicker than this are matched by a CT averaged over them.
THICK_MM = 2.0


@dataclass(frozen=True)
class SkullField:
    """Displacement of the MRI's skull from where the pose puts the CT's, as a polynomial.

    Attributes
    ----------
    coefficients_mm
        (3, terms): LPS components, positive where the MRI shows the skull further along an axis.
    covariance_mm2
        (3 * terms, 3 * terms).
    centre_lps_mm
        Origin of the polynomial.
    inside_lps_mm, weights
        Points that fill the inside of the skull, (n, 3), MRI coordinates, and the volume each stands for, (n,).
    scatter_mm
        Standard deviation of the patches around the polynomial.
    patches
        Number of patches used.
    gain_nats
        Information, nats a sample, by which the MRI tells the CT's skull better with the field than with the best rigid
        movement. Of a field that was matched to noise, to marrow or to fluid it is zero or less.
    """

    coefficients_mm: FloatArray
    covariance_mm2: FloatArray
    centre_lps_mm: FloatArray
    inside_lps_mm: FloatArray
    weights: FloatArray
    scatter_mm: float
    patches: int
    gain_nats: float

    def terms(self, points_lps_mm: FloatArray) -> FloatArray:
        """Return the polynomial's terms at points (n, 3), (n, terms)."""
        return _terms((points_lps_mm - self.centre_lps_mm) / UNIT_MM)

    def at(self, points_lps_mm: FloatArray) -> FloatArray:
        """Return the displacement at points (n, 3), mm, (n, 3)."""
        found: FloatArray = self.terms(points_lps_mm) @ self.coefficients_mm.T
        return found


def skull_field(ct: Volume, mri: Volume, transform: Transform) -> SkullField | None:
    """Fit the displacement; ``None`` if too little of the skull is in view of both or no patch stands out.

    Parameters
    ----------
    ct
        Hounsfield units, on its own grid.
    mri
        Any sequence.
    transform
        The pose: maps MRI points to CT points.
    """
    lines = kept.of(ct, "lines across the skull", lambda: skull_lines(ct))
    if lines is None:
        return None
    inverse = np.linalg.inv(transform.moving_from_fixed_lps)
    points = apply_affine(inverse, lines.points_lps_mm)
    normals = lines.normals_lps @ inverse[:3, :3].T
    gain = _gain(mri, points, normals)
    if gain is None:
        return None
    tables = _tables(ct, mri, lines, transform)
    centre = points.mean(axis=0)
    terms = _terms((points - centre) / UNIT_MM)
    fit = _Fit(points, normals, terms, _patches(points - centre), _sharpness(mri, normals))
    moved: FloatArray = np.zeros_like(points)
    found = None
    for reach_mm, most in ROUNDS:
        every = max(1, len(points) // most)
        some = [table.every(every) for table in tables]
        scores = _scores(mri, some, (points + moved)[::every], normals[::every], gain[::every], reach_mm)
        found = None if scores is None else fit.every(every).solve(scores, moved[::every])
        if found is None:
            return None
        moved = np.clip(terms @ found.coefficients.T, -12, 12)
    assert found is not None
    every = max(1, len(points) // COMPARED)
    of_field, of_rigid = (
        _information(mri, [table.every(every) for table in tables], fit.every(every), gain[::every], solved)
        for solved in (found.solved, found.rigid)
    )
    shells = np.array([0.25, 0.5, 0.75, 0.95])
    inside = np.concatenate([centre + (points[::5] - centre) * shell for shell in shells])
    weights = np.repeat(shells**2, len(points[::5]))
    return SkullField(
        found.coefficients, found.covariance, centre, inside, weights / weights.sum(), found.scatter, found.used,
        of_field - of_rigid,
    )  # fmt: skip


# --- samples ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Table:
    """Samples around one table: offsets along each line (n, samples), the CT's class, and which samples count."""

    offsets_mm: FloatArray
    classes: npt.NDArray[np.int32]
    counted: npt.NDArray[np.bool_]

    def every(self, nth: int) -> _Table:
        return _Table(self.offsets_mm[::nth], self.classes[::nth], self.counted[::nth])


def _tables(ct: Volume, mri: Volume, lines: SkullLines, transform: Transform) -> tuple[_Table, _Table]:
    middle = lines.thickness_mm[:, None] / 2
    inner = np.broadcast_to(INNER_MM, (len(middle), len(INNER_MM)))
    outer = 2 * middle + OUTER_MM
    smear = _smear(mri, transform)
    made = []
    for offsets, counted in ((inner, inner <= middle), (outer, outer > middle)):
        at = along(lines.points_lps_mm, lines.normals_lps, offsets)
        hu = np.mean([sampled(ct, at + shift) for shift in smear], axis=0)
        classes = np.searchsorted(lines.brain_hu + CLASSES_HU, np.nan_to_num(hu)).astype(np.int32)
        made.append(_Table(offsets, classes, counted & np.isfinite(hu)))
    return made[0], made[1]


def _smear(mri: Volume, transform: Transform) -> FloatArray:
    """Return the shifts in the CT, mm, over which a thick slice of the MRI averages."""
    spacing = np.asarray(mri.grid.spacing_ijk_mm)
    axis = int(spacing.argmax())
    if spacing[axis] < THICK_MM:
        return np.zeros((1, 3))
    across = transform.moving_from_fixed_lps[:3, :3] @ mri.grid.direction[:, axis]
    shifts: FloatArray = np.linspace(-0.45, 0.45, 5)[:, None] * spacing[axis] * across
    return shifts


def _sharpness(mri: Volume, normals: FloatArray) -> FloatArray:
    """Return the weight of each line, 0 to 1, (n,): along thick slices the tables are blurred into one."""
    lengths = np.abs(normals @ mri.grid.direction) * np.asarray(mri.grid.spacing_ijk_mm)
    found: FloatArray = 1 / (1 + (np.maximum(lengths.max(axis=1) - 1, 0) / THICK_MM) ** 2)
    return found


def _gain(mri: Volume, points: FloatArray, normals: FloatArray) -> FloatArray | None:
    """Return the MRI's brightness under the skull as a smooth function: the coil's bias; ``None`` without signal."""
    values = sampled(mri, along(points, normals, -np.arange(8.0, 30.0, 3.0)))
    known = np.isfinite(values)
    level = np.where(known, values, 0).sum(axis=1) / np.maximum(known.sum(axis=1), 1)
    usable = level > 0
    if usable.mean() < 0.5:
        return None
    q = (points - points.mean(axis=0)) / UNIT_MM
    basis = _terms(q)[:, :10]
    b, y = basis[usable], np.log(level[usable])
    gain: FloatArray = np.exp(basis @ np.linalg.solve(b.T @ b + 1e-2 * np.eye(b.shape[1]), b.T @ y))
    return gain


def _scores(
    mri: Volume,
    tables: Sequence[_Table],
    points: FloatArray,
    normals: FloatArray,
    gain: FloatArray,
    reach_mm: float,
) -> list[VoxelArray] | None:
    """Return the pointwise information summed along each line for every shift, (shifts, n), for each table."""
    fine, reach = round(1.0 / STEP_MM), round(reach_mm / STEP_MM)
    values = []
    for table in tables:
        count = table.offsets_mm.shape[1]
        around = np.arange((count - 1) * fine + 2 * reach + 1) * STEP_MM - reach_mm
        found = sampled(mri, along(points, normals, table.offsets_mm[:, :1] + around))
        values.append((found / gain[:, None].astype(np.float32)).astype(np.float32))
    here = [v[:, reach : v.shape[1] - reach : fine] for v in values]
    counted = [t.counted & np.isfinite(h) for t, h in zip(tables, here, strict=True)]
    both = np.concatenate([h[c] for h, c in zip(here, counted, strict=True)])
    if both.size < 1000:
        return None
    # Of all, so that the order of the lines does not matter.
    edges = np.quantile(both, np.linspace(0, 1, BINS + 1)[1:-1])
    bins = [np.where(np.isfinite(v), bins_of(np.nan_to_num(v), edges), np.int32(BINS)) for v in values]
    classes = len(CLASSES_HU) + 1
    joint = np.full((classes, BINS), 0.5)
    for table, b, c in zip(tables, bins, counted, strict=True):
        now = b[:, reach : b.shape[1] - reach : fine]
        joint += np.bincount(table.classes[c] * BINS + now[c], minlength=classes * BINS).reshape(classes, BINS)
    joint /= joint.sum()
    information = np.log(joint / (joint.sum(axis=1, keepdims=True) * joint.sum(axis=0, keepdims=True)))
    # One more column for what is outside the MRI, and one more row for samples that do not count.
    lookup = np.pad(np.maximum(information, -2), ((0, 1), (0, 1))).astype(np.float32).ravel()
    scores = []
    for table, b in zip(tables, bins, strict=True):
        row = np.where(table.counted, table.classes, classes) * np.int32(BINS + 1)
        width = (row.shape[1] - 1) * fine + 1
        shifted = (lookup.take(row + b[:, k : k + width : fine]).sum(axis=1) for k in range(2 * reach + 1))
        scores.append(np.stack(list(shifted)))
    return scores


def _information(mri: Volume, tables: Sequence[_Table], fit: _Fit, gain: FloatArray, solved: FloatArray) -> float:
    """Return what the MRI tells of the CT's classes where a solution of the fit puts the lines, nats a sample."""
    values, classes = [], []
    for table, shifts in zip(tables, fit.shifts(solved), strict=True):
        found = sampled(mri, along(fit.points, fit.normals, table.offsets_mm + shifts[:, None])) / gain[:, None]
        counted = table.counted & np.isfinite(found)
        values.append(found[counted])
        classes.append(table.classes[counted])
    value = np.concatenate(values)
    if not value.size:
        return 0.0
    bins = np.searchsorted(np.quantile(value, np.linspace(0, 1, BINS + 1)[1:-1]), value)
    number = len(CLASSES_HU) + 1
    joint = np.bincount(np.concatenate(classes) * BINS + bins, minlength=number * BINS).reshape(number, BINS) + 0.5
    joint /= joint.sum()
    independent = joint.sum(axis=1, keepdims=True) * joint.sum(axis=0, keepdims=True)
    return float((joint * np.log(joint / independent)).sum())


# --- the fit ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Solution:
    """Coefficients (3, terms), covariance, scatter and number of patches; all unknowns, and those of a rigid fit."""

    coefficients: FloatArray
    covariance: FloatArray
    scatter: float
    used: int
    solved: FloatArray
    rigid: FloatArray


@dataclass(frozen=True)
class _Fit:
    points: FloatArray
    normals: FloatArray
    terms: FloatArray
    patches: npt.NDArray[np.intp]
    sharpness: FloatArray

    def every(self, nth: int) -> _Fit:
        arrays = (self.points, self.normals, self.terms, self.sharpness)
        points, normals, terms, sharpness = (array[::nth] for array in arrays)
        return _Fit(points, normals, terms, self.patches[::nth], sharpness)

    def shifts(self, solved: FloatArray) -> tuple[FloatArray, FloatArray]:
        """Return the shift of each line of the inner and the outer table, mm, (n,) each."""
        size = 3 * self.terms.shape[1]
        moved = (self.normals * (self.terms @ solved[:size].reshape(3, -1).T)).sum(axis=1)
        inner, outer = (moved + self.sharpness * side for side in solved[size : size + 2])
        return inner, outer + self.normals @ solved[size + 2 :]

    def solve(self, scores: list[VoxelArray], moved: FloatArray) -> _Solution | None:
        """Return a robust fit."""
        number = int(self.patches.max()) + 1
        lines = np.bincount(self.patches, minlength=number)
        design = (self.normals[:, :, None] * self.terms[:, None, :]).reshape(len(self.points), -1)
        shift_now = (self.normals * moved).sum(axis=1)
        columns = np.concatenate([design, self.sharpness[:, None], self.normals, shift_now[:, None]], axis=1)
        sums = np.stack([np.bincount(self.patches, column, number) for column in columns.T], axis=1)
        mean = sums / np.maximum(lines, 1)[:, None]
        rows, shifts, weights = [], [], []
        for side, score in enumerate(scores):
            summed = np.stack([np.bincount(self.patches, s, number) for s in score], axis=1).astype(np.float64)
            patch, shift, peak = _best(summed, lines)
            sides = np.zeros((len(patch), 2))
            sides[:, side] = 1
            rows.append(np.concatenate([mean[patch, :-5], sides, side * mean[patch, -4:-1]], axis=1))
            shifts.append(shift + mean[patch, -1])
            trust = mean[patch, -5] * np.sqrt(lines[patch].clip(0, 40) / 40)
            weights.append(np.where(peak > LEAST_PEAK, np.minimum(peak, 1) * trust, 0))
        x, y, w = np.concatenate(rows), np.concatenate(shifts), np.concatenate(weights)
        if np.count_nonzero(w) < LEAST_PATCHES:
            return None
        sd = np.concatenate([np.tile([ORDER_SD_MM[sum(e)] for e in EXPONENTS], 3), [TABLE_SD_MM] * 2, [FAT_SD_MM] * 3])
        solved, normal, scatter = _robust(x, y, w, sd)
        freely = _rigid_terms(len(sd))
        rigid = freely @ _robust(x @ freely, y, w, 1 / np.sqrt(((freely / sd[:, None]) ** 2).sum(axis=0)))[0]
        size = 3 * self.terms.shape[1]
        covariance = np.asarray(SHARED * np.linalg.inv(normal)[:size, :size], dtype=np.float64)
        used = int(np.count_nonzero(w))
        return _Solution(solved[:size].reshape(3, -1), covariance, scatter, used, solved, rigid)


def _robust(x: FloatArray, y: FloatArray, w: FloatArray, sd: FloatArray) -> tuple[FloatArray, FloatArray, float]:
    """Return the unknowns of a robust fit with a prior, its normal matrix, and the scatter around it."""
    scatter, robust = 1.0, w
    solved, normal = np.zeros(len(sd)), np.diag(1 / sd**2)
    for _ in range(8):
        weighted = x * robust[:, None]
        normal = weighted.T @ x / scatter**2 + np.diag(1 / sd**2)
        solved = np.asarray(np.linalg.solve(normal, weighted.T @ y / scatter**2), dtype=np.float64)
        off = y - x @ solved
        scatter = max(LEAST_SCATTER_MM, 1.4826 * float(np.median(np.abs(off[w > 0]))))
        robust = w * np.clip(1 - (off / (4 * scatter)) ** 2, 0, None) ** 2
    return solved, normal, scatter


def _rigid_terms(unknowns: int) -> FloatArray:
    """Return the unknowns of the fit, (unknowns, 11), for three shifts, three small rotations, tables and fat."""
    number = len(EXPONENTS)
    found = np.zeros((unknowns, 6 + unknowns - 3 * number))
    linear = [EXPONENTS.index(tuple(int(n == axis) for n in range(3))) for axis in range(3)]
    for axis in range(3):
        found[axis * number, axis] = 1
        one, other = (axis + 1) % 3, (axis + 2) % 3
        found[one * number + linear[other], 3 + axis], found[other * number + linear[one], 3 + axis] = 1, -1
    found[3 * number :, 6:] = np.eye(unknowns - 3 * number)
    return found


def _best(summed: FloatArray, lines: npt.NDArray[np.intp]) -> tuple[npt.NDArray[np.intp], FloatArray, FloatArray]:
    """Return the patches with a best shift within reach, that shift, and its lead over the median, nats a line."""
    best = summed.argmax(axis=1)
    last = summed.shape[1] - 1
    patch = np.flatnonzero((lines >= LEAST_LINES) & (best > 0) & (best < last))
    place = best[patch]
    before, here, after = (summed[patch, place + step] for step in (-1, 0, 1))
    bend = 2 * here - before - after
    between = np.where(bend > 0, 0.5 * (after - before) / np.where(bend > 0, bend, 1), 0)
    peak = (here - np.median(summed[patch], axis=1)) / lines[patch]
    return patch, (place + between - last / 2) * STEP_MM, peak


def _patches(points: FloatArray) -> npt.NDArray[np.intp]:
    """Return the number of the cube of `PATCH_MM` that each point lies in, (n,)."""
    cubes = np.floor(points / PATCH_MM + 0.5).astype(np.intp)
    numbers: npt.NDArray[np.intp] = np.unique(cubes, axis=0, return_inverse=True)[1].ravel()
    return numbers


EXPONENTS = tuple((i, j, d - i - j) for d in range(DEGREE + 1) for i in range(d, -1, -1) for j in range(d - i, -1, -1))


def _terms(q: FloatArray) -> FloatArray:
    """Return the products of powers up to `DEGREE` at points (n, 3), constant first, then linear; (n, terms)."""
    x, y, z = ([q[:, axis] ** power for power in range(DEGREE + 1)] for axis in range(3))
    terms: FloatArray = np.stack([x[i] * y[j] * z[k] for i, j, k in EXPONENTS], axis=1)
    return terms
