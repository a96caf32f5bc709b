"""A second fit of the pose, to the inside of the skull and its inner table only.

The fit to the whole head is exact to a few hundredths of a millimetre as long as both images show the same head. They
seldom do: chemical shift moves the fat of scalp and marrow against water by .3 to 2 mm in almost any MRI, skin is
pressed, the jaw moves, a field distorts the face. Then the outline pulls the pose away from the skull, by up to 1.5 mm,
often without any sign in the fit itself: fat that moves as one fits as sharply as before. Inside the outer table
none of this happens. This fit is less exact, 0.1 to 0.3 mm in any case, because fluid at the inner table is as dark as
bone in a T1 (`deep` takes part of that away). So the pose is a mean of the two. Fits that differ by no more than the
inner one's error leave the pose of the whole head; the farther apart they are, the more the inner one counts, and the
sooner the less exact the first one seems to be (where the outline is not moved as one, the scatter between groups of
samples rises).

It needs the whole inside in view of both. How much else of the head they show may differ: a CT may reach the shoulders,
and an MRI fade away towards the neck.

Samples are taken from the MRI and the CT is interpolated: cutting a region pulls at the pose where the interpolated
image has gradients at the cut, and the CT is nearly constant inside bone and inside soft tissue, the MRI is not.

In a CT of thick slices, bone runs into the fluid below it, most at the vertex, and nothing answers from the other side:
the brain was pulled up to the bone, by .1 to .4 mm in slices of 3 mm and by up to .9 mm in 5 mm. So what slices and the
interpolation between them smooth is taken away first (`sharpened`).
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import numpy.typing as npt

from BrainFusionLib.geometry import FloatArray, Grid
from BrainFusionLib.intensity.inside import InsideSkull
from BrainFusionLib.registration.histogram import MRI_BINS, ROW, Moving, Samples, spread
from BrainFusionLib.registration.pyramid import MASK_LEVEL, Level, PreparedHead
from BrainFusionLib.volume import BoolArray, VoxelArray

# How far beyond the inner table samples are taken: inside the bone, whose marrow (fat) begins about there. Of 1.5 to 4
# mm all give the same error within .03 mm; less is better where marrow is bright, and worse in thick slices.
BEYOND_MM = 3.0
# What is deeper than this below the inner table is fitted once more, alone (`deep`).
DEEPER_MM = 3.0
# The coil's field is fitted to brain at least this deep, as a polynomial of this order.
DEEP_MM, ORDER = 2.0, 4
# Logarithms this far from the field are other tissue; and the first, wider bound.
NEAR, WIDE = 0.5, 1.5
# Samples drawn to see how the MRI's values are spread. With less than the first share of them in view of the MRI, the
# inside is of another object in the CT: a phantom beside the head. With less than the second, of it or of the surface
# in the CT, one of the two may be a slab, whose inner fit is not safe: a phantom's was off by up to 2 mm.
DRAWN, LEAST_IN_VIEW, MOST_IN_VIEW = 20_000, 0.25, 0.9
# Unit of the polynomial's coordinates.
RADIUS_MM = 90.0
# Sampling error of the whole head's fit where nothing misleads it, for voxels of 1 mm, and how many times as large as
# the rest the true error is. Measured on simulated heads (docs/measured.md).
CLEAN_MM, GAIN = 0.010, 10.0
# The error of the inner fit.
INNER_MM = 0.2
# Two fits that are closer agree; two fits that are farther apart differ because the outline misleads: for voxels of 1
# mm they are .04 to .17 mm apart where the whole head's is exact, and .18 to 1.7 mm where it is .4 to 1.8 mm off. Along
# longer edges of voxels neither is as exact: there, distances count in voxels (`shortened`).
AGREEING_MM, APART_MM = (0.15, 0.35), (0.1, 0.26)
# Beyond this edge the inner fit may be off by .4 to 1 mm, as in CTs of 5 mm with streaks, or be better by far, as in T2
# of 5 + 1 mm. Its scatter between the eighths of the head tells: .5 to 1.1 mm in the former, .1 to .3 in the latter. A
# scatter without limit says no more than twice the usual one: an eighth may hardly be in view.
LONG_MM, SETTLED_MM, USUAL_SCATTER_MM, MOST_SCATTER_MM = 2.5, 0.25, 0.5, 1.0
LEAST_SAMPLES = 200
# An inner fit farther away than the first contradicts the whole head's: fat does not explain it. Beyond the second it
# has failed, however long the voxels. Unless all parts of the inside confirm it: a neck that had turned by 17 degrees,
# under bright fat, pulled the fit to a whole head 6 mm away.
AGAINST_MM, MOST_MM, OCTANTS = 2.0, 4.0, 8
# A sampling error above this is no settled fit of the whole head.
UNSETTLED_MM = 0.3
# It is confirmed if the eighths scatter by at most the first, two fits end within the second, and in the whole head's
# pose CT and MRI tell at most this share as much of each other inside. In that head these were .16 mm, .13 mm and .28;
# in 24 pairs of two people at least 1.8 mm, .6 mm and .23.
CONFIRMED_SCATTER_MM, CONFIRMED_MM, MOST_LEFT = 1.0, 0.5, 0.7
# The same share for fits within `MOST_MM`: poses so near tell much of the same.
MOST_LEFT_NEAR = 0.9
# Distance from the middle of the inside at which poses are compared.
REACH_MM = 40.0
# Along edges longer than this the CT is sharpened: the neighbours' weight takes away what a slice and the interpolation
# smooth. In squared edges that is 1/12 for a slice's box (1/6 for a triangle) and 1/6 on average for interpolation.
SMOOTHED_MM, SHARPENING = 1.6, (1 / 12 + 1 / 6) / 2


def _lowest(mri: PreparedHead) -> np.float32:
    """Return what stands for no signal in an MRI that has values below 0: z-scores, for example; else 0.

    The coil's field is a factor, and would be none of values that begin elsewhere: with a bias of 6 and values shifted
    by a fifth of their range the pose was 1.9 mm off. What is below 0 around a head that is not may be padding; where
    contrast is inverted, the air is brighter than the head.
    """
    coarse = mri.backend.host(mri.levels[MASK_LEVEL].values)
    darkest, rim = float(np.percentile(coarse[mri.core], 5)), coarse[mri.region & ~mri.core]
    if darkest >= 0:
        return np.float32(0)
    return np.float32(min(darkest, float(np.median(rim))) if rim.size else darkest)


class InnerSamples:
    """Samples of the MRI inside the inner table and up to `BEYOND_MM` outside it, with the coil's field removed.

    Parameters
    ----------
    mri
        The head from which they are taken.
    inside
        The inside of the skull in the CT.
    ct_from_mri_lps
        4x4: the pose found so far.

    Attributes
    ----------
    share_in_view
        Share of the inside that the MRI shows.
    """

    def __init__(self, mri: PreparedHead, inside: InsideSkull, ct_from_mri_lps: FloatArray) -> None:
        self._mri = mri
        self._grid = inside.grid
        self._mri_from_ct = np.linalg.inv(ct_from_mri_lps)
        self._centre = mri.centre_lps_mm
        self._voxels = np.flatnonzero(inside.depth_kji > -BEYOND_MM)
        self._deep = inside.depth_kji.ravel()[self._voxels] > DEEPER_MM
        self._low = _lowest(mri)
        self._field = self._fitted_field(inside, ct_from_mri_lps)
        _, values, _ = self._drawn(DRAWN, 0)
        self.share_in_view = len(values) / DRAWN
        self._edges = spread(values, MRI_BINS, 0.99)[1:-1] if len(values) else np.zeros(0, np.float32)

    def samples(self, count: int, seed: int) -> Samples:
        """Return `count` samples, evenly spread; a seed gives the same ones on every device."""
        return self.samples_and_deep(count, seed)[0]

    def samples_and_deep(self, count: int, seed: int) -> tuple[Samples, Samples]:
        """Return the same samples, and those of them that lie deeper than `DEEPER_MM`."""
        points, values, deep = self._drawn(count, seed)
        backend = self._mri.backend
        rows = backend.host(backend.bins(backend.put(values), self._edges) * ROW)
        of_all = Samples(backend.put(points), backend.put(rows), backend)
        return of_all, Samples(backend.put(np.ascontiguousarray(points[:, deep])), backend.put(rows[deep]), backend)

    def _drawn(self, count: int, seed: int) -> tuple[VoxelArray, VoxelArray, BoolArray]:
        """Return points (3, count), LPS mm from the MRI's centre, at voxel centres; values; whether they are deep."""
        random = np.random.default_rng((seed, 41))
        picked = ((np.arange(count) + random.random(count)) * (len(self._voxels) / count)).astype(np.intp)
        k, j, i = np.unravel_index(self._voxels[picked], self._grid.shape_kji)
        at = np.stack([i, j, k]) + random.uniform(-0.5, 0.5, (3, count))
        fine = self._mri.levels[0]
        index = np.rint(_applied(fine.grid.ijk_from_lps @ self._mri_from_ct @ self._grid.lps_from_ijk, at))
        seen = ((index >= 0) & (index < np.asarray(fine.grid.size_ijk)[:, None])).all(axis=0)
        index, deep = index[:, seen], self._deep[picked][seen]
        ni, nj, _ = fine.grid.size_ijk
        flat = ((index[2] * nj + index[1]) * ni + index[0]).astype(np.intp)
        values = self._mri.backend.host(self._mri.backend.taken(fine.values, flat))
        points = (_applied(fine.grid.lps_from_ijk, index) - self._centre[:, None]).astype(np.float32)
        return points, (values - self._low) * np.exp(-_polynomials(points) @ self._field), deep

    def _fitted_field(self, inside: InsideSkull, ct_from_mri_lps: FloatArray) -> VoxelArray:
        """Return the coefficients of the logarithm of the coil's field, by weighted least squares without outliers."""
        coarse = self._mri.levels[MASK_LEVEL]
        ijk = np.indices(coarse.grid.shape_kji).reshape(3, -1)[::-1]
        index = np.rint(_applied(inside.grid.ijk_from_lps @ ct_from_mri_lps @ coarse.grid.lps_from_ijk, ijk))
        seen = ((index >= 0) & (index < np.asarray(inside.grid.size_ijk)[:, None])).all(axis=0)
        i, j, k = np.where(seen, index, 0).astype(np.intp)
        # Every second voxel of 4 mm is enough for so smooth a field.
        deep = np.flatnonzero(seen & inside.mask_kji[k, j, i] & (inside.depth_kji[k, j, i] > DEEP_MM))[::2]
        values = self._mri.backend.host(coarse.values).ravel()[deep] - self._low
        # In double precision and rounded, so that the number of threads of the matrix product makes no difference.
        terms = _polynomials(
            (_applied(coarse.grid.lps_from_ijk, ijk[:, deep]) - self._centre[:, None]).astype(np.float32)
        ).astype(np.float64)
        if len(values) < 10 * terms.shape[1]:
            return np.zeros(terms.shape[1], np.float32)
        logarithms = np.log(np.maximum(values, np.float32(1e-3) * values.max() + np.float32(1e-6)))
        ridge = 1e-4 * len(values) * np.eye(terms.shape[1])
        ridge[0, 0] = 0
        off, field = logarithms - np.median(logarithms), np.zeros(terms.shape[1])
        for turn in range(8):
            weight = np.clip(1 - np.square(off / max(NEAR, WIDE * 0.6**turn)), 0, None) ** 2
            weighted = terms * weight[:, None]
            found = np.linalg.solve(weighted.T @ terms + ridge, weighted.T @ logarithms)
            field = np.asarray(np.round(found, 7), dtype=np.float64)
            off = logarithms - terms @ field
        return field.astype(np.float32)


def sharpened(ct: PreparedHead) -> Moving:
    """Return a CT's finest level in cells, with what thick slices and their interpolation smooth taken away."""
    finest = ct.levels[0]
    if max(finest.grid.spacing_ijk_mm) < SMOOTHED_MM:
        return ct.cells[0]
    values = ct.backend.host(finest.values)
    for axis, edge in enumerate(finest.grid.spacing_ijk_mm[::-1]):
        if edge >= SMOOTHED_MM:
            padding = [(1, 1) if a == axis else (0, 0) for a in range(3)]
            around = np.moveaxis(np.pad(values, padding, mode="edge"), axis, 0)
            sharp = np.moveaxis(values, axis, 0) * np.float32(1 + 2 * SHARPENING)
            sharp -= np.float32(SHARPENING) * (around[:-2] + around[2:])
            values = np.ascontiguousarray(np.moveaxis(sharp, 0, axis))
    return replace(ct, levels=[Level(ct.backend.put(values), finest.grid)]).cells[0]


def octants(samples: Samples) -> list[Samples]:
    """Return the samples of each eighth of a head, split at their medians; without those that hardly have any.

    What one part of the head tells, another may deny: streaks and electrodes are in a few of them. Groups spread over
    the head all err alike.
    """
    backend = samples.backend
    points, rows = backend.host(samples.points), backend.host(samples.rows)
    above = points > np.median(points, axis=1, keepdims=True)
    which = np.array([1, 2, 4]) @ above
    parts = (np.flatnonzero(which == n) for n in range(8))
    return [
        Samples(backend.put(np.ascontiguousarray(points[:, part])), backend.put(rows[part]), backend)
        for part in parts
        if len(part) >= LEAST_SAMPLES
    ]


def inner_share(sampling_mm: float, apart_mm: float, told_mm: float, voxel_mm: float, scatter_mm: float = 0.0) -> float:
    """Return the weight of the inner fit in the pose, 0 to 1.

    Parameters
    ----------
    sampling_mm
        The sampling error of the fit to the whole head.
    apart_mm
        How far the two fits are apart.
    told_mm
        The same, `shortened` along long voxels.
    voxel_mm
        The longest voxel edge of the two heads.
    scatter_mm
        The scatter of the inner fit between the eighths of the head.
    """
    told_mm /= max(1.0, min(scatter_mm, MOST_SCATTER_MM) / USUAL_SCATTER_MM)
    if apart_mm > MOST_MM:
        return 0.0
    doubt = GAIN * max(0.0, sampling_mm - CLEAN_MM * float(np.sqrt(max(1.0, voxel_mm))))
    doubtful = doubt**2 / (doubt**2 + INNER_MM**2)
    doubted = doubtful * rising(told_mm, *AGREEING_MM)
    unsettled = rising(scatter_mm, SETTLED_MM, USUAL_SCATTER_MM)
    shorter = 1 + (1 - doubtful) * max(0.0, voxel_mm / LONG_MM - 1) * unsettled
    return doubted + (1 - doubted) * rising(told_mm / shorter, *APART_MM)


def is_confirmed(scatter_mm: float, agreement_mm: float, left: float, apart_mm: float) -> bool:
    """Return whether an inner fit that is far from the whole head's is right, and the other is not.

    Parameters
    ----------
    scatter_mm
        Its scatter between the eighths of the head.
    agreement_mm
        Distance between two such fits on different samples.
    left
        Mutual information inside in the pose of the whole head, as a share of that in this pose.
    apart_mm
        How far the two fits are apart.
    """
    most_left = MOST_LEFT if apart_mm > MOST_MM else MOST_LEFT_NEAR
    return scatter_mm <= CONFIRMED_SCATTER_MM and agreement_mm <= CONFIRMED_MM and left <= most_left


def shortened(ct: Grid, mri: Grid, ct_from_mri_lps: FloatArray) -> FloatArray:
    """Return the matrix (3, 3) that divides lengths in the CT's space by the voxels' edge along them, mm.

    The edge is the longer one of both grids, along the MRI's axes; below 1 mm it is 1 mm.
    """
    axes = ct_from_mri_lps[:3, :3] @ mri.direction
    of_ct = (np.abs(ct.direction.T @ axes) * np.asarray(ct.spacing_ijk_mm)[:, None]).max(axis=0)
    edges = np.maximum(1.0, np.maximum(of_ct, mri.spacing_ijk_mm))
    made: FloatArray = axes / edges @ axes.T
    return made


def distance_inside_mm(
    a: FloatArray, b: FloatArray, middle_ct_lps_mm: FloatArray, lengths: FloatArray | None = None
) -> float:
    """Return the median distance between two poses (4x4, CT from MRI) over points inside the skull.

    Differences are multiplied with `lengths`, a matrix (3, 3), if it is given.
    """
    steps = REACH_MM * np.concatenate([np.zeros((1, 3)), np.eye(3), -np.eye(3)])
    points = _applied(np.linalg.inv(a).astype(np.float64), (middle_ct_lps_mm + steps).T)
    apart = _applied(a, points) - _applied(b, points)
    return float(np.median(np.linalg.norm(apart if lengths is None else lengths @ apart, axis=0)))


def rising(value: float, low: float, high: float) -> float:
    """Return 0 up to `low`, 1 from `high` on, and a smooth step between."""
    t = min(1.0, max(0.0, (value - low) / (high - low)))
    return t * t * (3 - 2 * t)


def _polynomials(points_mm: VoxelArray) -> VoxelArray:
    """Return all products of powers of the coordinates up to `ORDER`, (n, terms) float32; constant outside the head."""
    scaled = np.clip(points_mm / np.float32(RADIUS_MM), -1.3, 1.3)
    powers = [[np.ones(scaled.shape[1], np.float32)] for _ in range(3)]
    for axis in range(3):
        for _ in range(ORDER):
            powers[axis].append(powers[axis][-1] * scaled[axis])
    x, y, z = powers
    orders = range(ORDER + 1)
    terms = [x[a] * y[b] * z[c] for a in orders for b in orders for c in orders if a + b + c <= ORDER]
    return np.stack(terms, axis=-1)


def _applied(matrix: FloatArray, points: npt.ArrayLike) -> FloatArray:
    """Apply a 4x4 affine to points (3, n)."""
    moved: FloatArray = matrix[:3, :3] @ np.asarray(points) + matrix[:3, 3:]
    return moved
