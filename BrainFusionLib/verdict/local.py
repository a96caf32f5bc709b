"""Local misalignment: the shift that would align each region of the CT best with the MRI.

The joint histogram of the registered pair shows how well a CT value matches an MRI value (pointwise mutual
information). For each block of the head, the shift of the CT with the best match is found. Sources: block matching (S.
Ourselin et al., Image and Vision Computing 19 (2001) 25), with the local form of mutual information (G. Hermosillo et
al., Int. J. Computer Vision 50 (2002) 329) instead of a correlation.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from BrainFusionLib import kept
from BrainFusionLib.backend import on_cpu
from BrainFusionLib.evidence import LocalErrors, LocalFit
from BrainFusionLib.geometry import FloatArray
from BrainFusionLib.intensity import HEAD_THRESHOLD_HU, otsu_threshold
from BrainFusionLib.verdict.binning import bins_of, quantile_edges
from BrainFusionLib.verdict.matching import sums_of_shifted
from BrainFusionLib.volume import Volume, VoxelArray

# Size of the voxels, edge of a block in voxels, longest shift in voxels.
VOXEL_MM, BLOCK, REACH = 3.0, 7, 2
# Size and block for longer shifts.
FAR_VOXEL_MM, FAR_BLOCK = 6.0, 4
BINS = 24
# Least share of head in a block, and least lead of its best shift over the median of all shifts (nats).
LEAST_HEAD, LEAST_PEAK = 0.5, 0.06
# A part of the head with fewer points is not used.
LEAST_POINTS = 8


@dataclass(frozen=True)
class _Blocks:
    """Blocks of one size: centres of all tried, centres of those measured, LPS mm, and the shifts measured, mm."""

    tried_lps_mm: FloatArray = field(default_factory=lambda: np.empty((0, 3)))
    points_lps_mm: FloatArray = field(default_factory=lambda: np.empty((0, 3)))
    shifts_mm: FloatArray = field(default_factory=lambda: np.empty((0, 3)))
    voxel_mm: float = VOXEL_MM


def local_errors(ct_in_mri: Volume, mri: Volume) -> LocalErrors:
    """Measure the local misalignment of a registered CT.

    Shifts up to 6 mm are measured in blocks of 21 mm; longer ones, up to 12 mm, in blocks of 24 mm on voxels of twice
    the size, and kept only if no block of 21 mm was measured nearby.

    Parameters
    ----------
    ct_in_mri
        Hounsfield units, on the MRI's grid.
    mri
        Any sequence.
    """
    fine = _measured(ct_in_mri, mri, VOXEL_MM, BLOCK)
    far = _measured(ct_in_mri, mri, FAR_VOXEL_MM, FAR_BLOCK)
    long = np.linalg.norm(far.shifts_mm, axis=1) > REACH * VOXEL_MM
    if len(fine.points_lps_mm) and long.any():
        apart = np.linalg.norm(far.points_lps_mm[:, None] - fine.points_lps_mm[None], axis=2).min(axis=1)
        long &= apart > BLOCK * VOXEL_MM
    points = np.concatenate([fine.points_lps_mm, far.points_lps_mm[long]])
    shifts = np.concatenate([fine.shifts_mm, far.shifts_mm[long]])
    fit = _fit(fine.tried_lps_mm, points, shifts, fine.voxel_mm)
    # Rounded here, so that the same numbers are stored, compared and shown.
    return LocalErrors(BLOCK * VOXEL_MM, np.round(points, 2), np.round(shifts, 2), fit)


def _fit(tried: FloatArray, points: FloatArray, shifts: FloatArray, voxel_mm: float) -> LocalFit | None:
    """Return the misalignment by parts of the head; ``None`` if no block could be tried."""
    if not len(tried):
        return None
    measured = _are_among(tried, points)
    lengths = np.linalg.norm(shifts, axis=1)
    bias_mm = float(np.linalg.norm(np.median(shifts, axis=0))) if len(shifts) else None
    part_mm, least_share = bias_mm or 0.0, 1.0
    for axis, low, high in _parts(tried):
        of_tried, inside = ((p[:, axis] >= low) & (p[:, axis] <= high) for p in (tried, points))
        if np.count_nonzero(inside) >= LEAST_POINTS:
            part_mm = max(part_mm, float(np.linalg.norm(np.median(shifts[inside], axis=0))))
        if np.count_nonzero(of_tried) >= 2 * LEAST_POINTS:
            least_share = min(least_share, float(measured[of_tried].mean()))
    median_mm = float(np.median(lengths)) if len(shifts) else 0.0
    high_mm = float(np.percentile(lengths, 90)) if len(shifts) else None
    return LocalFit(median_mm, part_mm, float(measured.mean()), least_share, voxel_mm, high_mm, bias_mm)


def _measured(ct_in_mri: Volume, mri: Volume, voxel_mm: float, block: int) -> _Blocks:
    """Measure with one voxel size, in blocks of `block` voxels."""
    steps = [max(1, round(voxel_mm / spacing)) for spacing in mri.grid.spacing_ijk_mm]
    ct = pooled(ct_in_mri.array_kji, steps[::-1])
    m, threshold = kept.of(mri, ("pooled", voxel_mm), lambda: _with_threshold(pooled(mri.array_kji, steps[::-1])))
    nothing = _Blocks()
    if not m.size:
        return nothing
    voxel_kji = np.array([s * step for s, step in zip(mri.grid.spacing_ijk_mm, steps, strict=True)])[::-1]
    blocks_kji = [max(2, round(block * voxel_mm / size)) for size in voxel_kji]
    reach_kji = [max(1, round(REACH * voxel_mm / size)) for size in voxel_kji]
    head = (ct > HEAD_THRESHOLD_HU) & (m > threshold / 3)
    counted = _blocks(head.astype(np.float32), blocks_kji)
    usable = counted >= LEAST_HEAD * np.prod(blocks_kji)
    if not usable.any():
        return nothing
    a, b = _binned(ct, head), _binned(m, head)
    # An extra bin outside the head, with information 0.
    table = np.pad(_pointwise_information(a[head], b[head]), ((0, 0), (0, 1)))
    places = np.where(head, b, np.uint8(BINS))
    first, reach = np.argwhere(usable) * blocks_kji, np.asarray(reach_kji)
    scores = sums_of_shifted(a, places, table, first, np.array(blocks_kji), reach) / counted[usable]
    return _peaks(scores, usable, blocks_kji, reach, steps, voxel_kji, mri)


def _with_threshold(values: VoxelArray) -> tuple[VoxelArray, float]:
    return values, otsu_threshold(values) if values.size else 0.0


def _peaks(
    scores: FloatArray,
    usable: npt.NDArray[np.bool_],
    blocks_kji: list[int],
    reach_kji: npt.NDArray[np.int64],
    steps_ijk: list[int],
    voxel_kji: FloatArray,
    mri: Volume,
) -> _Blocks:
    """Return the best shift of each block that has a clear one, refined by a parabola along each axis."""
    count = scores.shape[3]
    best = np.stack(np.unravel_index(scores.reshape(-1, count).argmax(axis=0), scores.shape[:3]), axis=-1)
    inner = ((best > 0) & (best < 2 * reach_kji)).all(axis=1)
    peak = scores[(*best.T, np.arange(count))]
    stands_out = peak - np.median(scores.reshape(-1, count), axis=0) >= LEAST_PEAK
    clear = np.flatnonzero(inner & stands_out)
    offsets = best.astype(np.float64)
    for axis in range(3):
        step = np.zeros(3, dtype=int)
        step[axis] = 1
        before, after = (scores[(*(best[clear] + sign * step).T, clear)] for sign in (-1, 1))
        bend = before - 2 * peak[clear] + after
        offsets[clear, axis] += np.where(bend < 0, 0.5 * (before - after) / np.where(bend < 0, bend, -1), 0)
    # The CT at x + d matches the MRI at x, so the CT has to move by -d.
    shift_ijk_mm = (-(offsets[clear] - reach_kji) * voxel_kji)[:, ::-1]
    middles_ijk = ((np.argwhere(usable) + 0.5) * blocks_kji)[:, ::-1] * steps_ijk - 0.5
    points = middles_ijk @ mri.grid.lps_from_ijk[:3, :3].T + mri.grid.lps_from_ijk[:3, 3]
    shifts = shift_ijk_mm @ mri.grid.direction.T
    return _Blocks(points, points[clear], shifts, float(voxel_kji.max()))


def pooled(array: VoxelArray, steps_kji: list[int]) -> VoxelArray:
    """Return the means of blocks of voxels; incomplete blocks at the end are dropped."""
    if any(n < step for n, step in zip(array.shape, steps_kji, strict=True)):
        return np.empty((0, 0, 0), dtype=np.float32)
    means: VoxelArray = on_cpu().pool(array, steps_kji)
    return means


def _blocks(array: VoxelArray, blocks_kji: list[int]) -> FloatArray:
    """Return the sums over blocks of voxels."""
    return pooled(array, blocks_kji).astype(np.float64) * float(np.prod(blocks_kji))


def _binned(values: VoxelArray, head: npt.NDArray[np.bool_]) -> npt.NDArray[np.uint8]:
    """Return the bin of each voxel, out of `BINS` with equally many voxels of the head."""
    return bins_of(values, quantile_edges(values[head], BINS)).astype(np.uint8)


def _pointwise_information(a: npt.NDArray[np.uint8], b: npt.NDArray[np.uint8]) -> VoxelArray:
    """Return log p(a, b) / (p(a) p(b)), (BINS, BINS), nats, at least -2."""
    joint = np.bincount(a.astype(np.intp) * BINS + b, minlength=BINS**2).reshape(BINS, BINS).astype(np.float64) + 0.5
    joint /= joint.sum()
    independent = joint.sum(axis=1, keepdims=True) * joint.sum(axis=0, keepdims=True)
    table: VoxelArray = np.maximum(np.log(joint / independent), -2).astype(np.float32)
    return table


def _parts(points: FloatArray) -> Iterator[tuple[int, float, float]]:
    """Yield an axis and the range along it of each third and each half of the points."""
    for axis in range(3):
        for shares in ((0, 1 / 3, 2 / 3, 1), (0, 1 / 2, 1)):
            for low, high in itertools.pairwise(np.quantile(points[:, axis], shares).tolist()):
                yield axis, low, high


def _are_among(points: FloatArray, others: FloatArray) -> npt.NDArray[np.bool_]:
    """Return which points are among others."""
    known = {tuple(point) for point in others.tolist()}
    return np.array([tuple(point) in known for point in points.tolist()], dtype=bool)
