"""Whether the CT's skull lies on the dark band of the MRI: bone gives next to no signal in any sequence.

Mutual information knows nothing of that, so this speaks for or against a pose by itself.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from BrainFusionLib.evidence import SkullFit
from BrainFusionLib.geometry import FloatArray
from BrainFusionLib.intensity import BONE_RAMP_HU, ct_head_mask
from BrainFusionLib.verdict.local import pooled
from BrainFusionLib.volume import Volume, VoxelArray

# Work is done on voxels of about this size, for shifts up to so many of them along each axis.
VOXEL_MM, REACH = 2.0, 4
# With less bone in view (voxels) the band tells nothing.
LEAST_BONE = 500


def skull_fit(ct_in_mri: Volume, mri: Volume, head: npt.NDArray[np.bool_] | None = None) -> SkullFit | None:
    """Look for the shift of the CT's skull at which the MRI is darkest; ``None`` where no skull is in view.

    Parameters
    ----------
    ct_in_mri
        Hounsfield units, on the MRI's grid.
    mri
        Any sequence.
    head
        What of the CT is head (no table, no head holder), if it is known already; the array's shape.
    """
    if head is None:
        head = ct_head_mask(ct_in_mri)
    steps_kji = [max(1, round(VOXEL_MM / spacing)) for spacing in mri.grid.spacing_ijk_mm][::-1]
    voxel_kji = np.array([s * n for s, n in zip(mri.grid.spacing_ijk_mm[::-1], steps_kji, strict=True)])
    bone = pooled(np.where(head, ct_in_mri.array_kji, np.float32(-1000)), steps_kji) > BONE_RAMP_HU[1]
    if np.count_nonzero(bone) < LEAST_BONE:
        return None
    signal = pooled(mri.array_kji, steps_kji)
    bright = float(np.percentile(signal, 99))
    low = float(np.percentile(signal, 1))
    if bright <= low:
        return None
    reach_kji = [max(1, round(REACH * VOXEL_MM / size)) for size in voxel_kji]
    darkness = _under_shifted(signal, np.argwhere(bone), reach_kji)
    best = np.unravel_index(int(darkness.argmin()), darkness.shape)
    depth = float((darkness.mean() - darkness[best]) / (bright - low))
    brightness = float((darkness[tuple(reach_kji)] - low) / (bright - low))
    offset, at_edge = [], False
    for axis, reach in enumerate(reach_kji):
        place = int(best[axis])
        line = darkness[tuple(slice(None) if a == axis else best[a] for a in range(3))]
        at_edge |= place in (0, 2 * reach)
        offset.append(place - reach + _between(line, place))
    shift = float(np.linalg.norm(np.array(offset) * voxel_kji))
    return SkullFit(shift, depth, brightness, at_edge, float(voxel_kji.max()))


def _under_shifted(signal: VoxelArray, places_kji: npt.NDArray[np.int64], reach_kji: list[int]) -> FloatArray:
    """Return the mean signal under all places, shifted by every shift in reach; beyond the border it is repeated."""
    a, b, c = reach_kji
    padded = np.pad(signal, [(r, r) for r in reach_kji], mode="edge")
    strides = np.array([padded.shape[1] * padded.shape[2], padded.shape[2], 1])
    flat, first = padded.ravel(), places_kji @ strides
    means = np.empty((2 * a + 1, 2 * b + 1, 2 * c + 1))
    for shift in np.ndindex(*means.shape):
        means[shift] = flat[first + int(np.array(shift) @ strides)].mean()
    return means


def _between(line: FloatArray, place: int) -> float:
    """Return where between the neighbours of the least value a parabola has its least, -0.5 to 0.5."""
    if not 0 < place < len(line) - 1:
        return 0.0
    before, here, after = (float(line[place + step]) for step in (-1, 0, 1))
    bend = before - 2 * here + after
    return 0.5 * (before - after) / bend if bend > 0 else 0.0
