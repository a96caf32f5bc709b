"""Where in the head CT and MRI fit, and where not: how far each part of the CT would have to move to fit better.

The registered pair's own joint histogram says how well a CT value goes with an MRI value (pointwise mutual
information). Each block of the head then looks for the shift of the CT that goes with its MRI best. Sources: the idea
is that of block matching (S. Ourselin et al., Image and Vision Computing 19 (2001) 25), with the local form of mutual
information (G. Hermosillo et al., Int. J. Computer Vision 50 (2002) 329) in the place of a correlation.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from BrainFusionLib.geometry import FloatArray
from BrainFusionLib.intensity import HEAD_THRESHOLD_HU, otsu_threshold
from BrainFusionLib.volume import Volume, VoxelArray

# Work is done on voxels of about this size, in blocks of so many of them, for shifts up to so many of them.
VOXEL_MM, BLOCK, REACH = 3.0, 7, 2
BINS = 24
# A block is measured if so much of it is head, and its best shift stands out from the others by so much (nats).
LEAST_HEAD, LEAST_PEAK = 0.5, 0.06


@dataclass(frozen=True)
class LocalErrors:
    """How far parts of a registered CT would have to move to fit better.

    Attributes
    ----------
    spacing_mm
        Distance of the points.
    points_lps_mm
        (n, 3), middles of the blocks that could be measured, MRI points.
    shifts_mm
        (n, 3), LPS: how far the CT would have to move there.
    voxel_mm
        Longest edge of the voxels that it was measured on.
    """

    spacing_mm: float
    points_lps_mm: FloatArray
    shifts_mm: FloatArray
    voxel_mm: float = VOXEL_MM

    @property
    def lengths_mm(self) -> FloatArray:
        """How far, (n,)."""
        lengths: FloatArray = np.linalg.norm(self.shifts_mm, axis=1)
        return lengths

    def to_dict(self) -> dict[str, Any]:
        """Return plain values, for JSON."""
        lengths = self.lengths_mm
        worst = int(np.argmax(lengths)) if len(lengths) else None
        return {
            "spacing_mm": self.spacing_mm,
            "voxel_mm": self.voxel_mm,
            "points_lps_mm": np.round(self.points_lps_mm, 2).tolist(),
            "shifts_mm": np.round(self.shifts_mm, 2).tolist(),
            "median_mm": float(np.median(lengths)) if len(lengths) else None,
            "worst": None
            if worst is None
            else {"point_lps_mm": self.points_lps_mm[worst].tolist(), "shift_mm": float(lengths[worst])},
        }


def local_errors(ct_in_mri: Volume, mri: Volume) -> LocalErrors:
    """Measure where a registered CT fits its MRI, and where not.

    Parameters
    ----------
    ct_in_mri
        Hounsfield units, on the MRI's grid.
    mri
        Any sequence.
    """
    steps = [max(1, round(VOXEL_MM / spacing)) for spacing in mri.grid.spacing_ijk_mm]
    ct, m = (_pooled(volume.array_kji, steps[::-1]) for volume in (ct_in_mri, mri))
    voxel_kji = np.array([s * step for s, step in zip(mri.grid.spacing_ijk_mm, steps, strict=True)])[::-1]
    blocks_kji = [max(2, round(BLOCK * VOXEL_MM / size)) for size in voxel_kji]
    reach_kji = [max(1, round(REACH * VOXEL_MM / size)) for size in voxel_kji]
    head = (ct > HEAD_THRESHOLD_HU) & (m > otsu_threshold(m) / 3)
    counted = _blocks(head.astype(np.float32), blocks_kji)
    usable = counted >= LEAST_HEAD * np.prod(blocks_kji)
    nothing = LocalErrors(BLOCK * VOXEL_MM, np.empty((0, 3)), np.empty((0, 3)))
    if not usable.any():
        return nothing
    a, b = _binned(ct, head), _binned(m, head)
    table = _pointwise_information(a[head], b[head])
    shifts = np.stack(np.meshgrid(*(np.arange(-r, r + 1) for r in reach_kji), indexing="ij"), axis=-1)
    scores = np.empty((*shifts.shape[:3], int(usable.sum())))
    flat_b = b.astype(np.int32)
    for index in np.ndindex(*shifts.shape[:3]):
        gained = table[_shifted(a, shifts[index]), flat_b] * head
        scores[index] = (_blocks(gained, blocks_kji) / np.maximum(counted, 1))[usable]
    return _peaks(scores, usable, blocks_kji, np.asarray(reach_kji), steps, voxel_kji, mri)


def _peaks(
    scores: FloatArray,
    usable: npt.NDArray[np.bool_],
    blocks_kji: list[int],
    reach_kji: npt.NDArray[np.int64],
    steps_ijk: list[int],
    voxel_kji: FloatArray,
    mri: Volume,
) -> LocalErrors:
    """Return the best shift of each block, between the voxels by a parabola along each axis, where one stands out."""
    count = scores.shape[3]
    best = np.stack(np.unravel_index(scores.reshape(-1, count).argmax(axis=0), scores.shape[:3]), axis=-1)
    inner = ((best > 0) & (best < 2 * reach_kji)).all(axis=1)
    peak = scores[(*best.T, np.arange(count))]
    stands_out = peak - np.median(scores.reshape(-1, count), axis=0) >= LEAST_PEAK
    kept = np.flatnonzero(inner & stands_out)
    offsets = best.astype(np.float64)
    for axis in range(3):
        step = np.zeros(3, dtype=int)
        step[axis] = 1
        before, after = (scores[(*(best[kept] + sign * step).T, kept)] for sign in (-1, 1))
        bend = before - 2 * peak[kept] + after
        offsets[kept, axis] += np.where(bend < 0, 0.5 * (before - after) / np.where(bend < 0, bend, -1), 0)
    # The CT's content at x + d goes with the MRI's at x: the CT has to move back by d.
    shift_ijk_mm = (-(offsets[kept] - reach_kji) * voxel_kji)[:, ::-1]
    middles_ijk = ((np.argwhere(usable)[kept] + 0.5) * blocks_kji)[:, ::-1] * steps_ijk - 0.5
    points = middles_ijk @ mri.grid.lps_from_ijk[:3, :3].T + mri.grid.lps_from_ijk[:3, 3]
    return LocalErrors(BLOCK * VOXEL_MM, points, shift_ijk_mm @ mri.grid.direction.T, float(voxel_kji.max()))


def _pooled(array: VoxelArray, steps_kji: list[int]) -> VoxelArray:
    """Return the means of blocks of voxels; what does not fill a block at the end is left away."""
    k, j, i = (n // step for n, step in zip(array.shape, steps_kji, strict=True))
    a, b, c = steps_kji
    cut = array[: k * a, : j * b, : i * c]
    pooled: VoxelArray = cut.reshape(k, a, j, b, i, c).mean(axis=(1, 3, 5), dtype=np.float32)
    return pooled


def _blocks(array: VoxelArray, blocks_kji: list[int]) -> FloatArray:
    """Return the sums over blocks of voxels."""
    return _pooled(array, blocks_kji).astype(np.float64) * float(np.prod(blocks_kji))


def _binned(values: VoxelArray, head: npt.NDArray[np.bool_]) -> npt.NDArray[np.uint8]:
    """Return in which of `BINS` bins each voxel is; the bins hold equally many voxels of the head."""
    inside = values[head]
    edges = np.quantile(inside[:: max(1, inside.size // 50_000)], np.linspace(0, 1, BINS + 1)[1:-1])
    return np.searchsorted(edges, values.ravel()).astype(np.uint8).reshape(values.shape)


def _pointwise_information(a: npt.NDArray[np.uint8], b: npt.NDArray[np.uint8]) -> VoxelArray:
    """Return log p(a, b) / (p(a) p(b)), (BINS, BINS), nats, at least -2."""
    joint = np.bincount(a.astype(np.intp) * BINS + b, minlength=BINS**2).reshape(BINS, BINS).astype(np.float64) + 0.5
    joint /= joint.sum()
    independent = joint.sum(axis=1, keepdims=True) * joint.sum(axis=0, keepdims=True)
    table: VoxelArray = np.maximum(np.log(joint / independent), -2).astype(np.float32)
    return table


def _shifted(array: npt.NDArray[np.uint8], shift_kji: npt.NDArray[np.int64]) -> npt.NDArray[np.uint8]:
    """Return ``array[x + shift]``, the border repeated."""
    for axis, shift in enumerate(shift_kji.tolist()):
        if shift:
            places = np.clip(np.arange(array.shape[axis]) + shift, 0, array.shape[axis] - 1)
            array = array.take(places, axis=axis)
    return array
