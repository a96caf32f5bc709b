"""Distance of the CT's skull from the dark skull band of the MRI: bone gives almost no signal in any sequence.

Mutual information does not use this, so it is independent evidence for or against a pose.
"""

from __future__ import annotations

import numpy as np

from BrainFusionLib import kept
from BrainFusionLib.evidence import SkullFit
from BrainFusionLib.geometry import FloatArray
from BrainFusionLib.intensity import BONE_RAMP_HU, ct_head_mask
from BrainFusionLib.verdict.local import pooled
from BrainFusionLib.verdict.matching import means_around
from BrainFusionLib.volume import BoolArray, Volume, VoxelArray

# Size of the voxels, and longest shift along each axis in voxels.
VOXEL_MM, REACH = 2.0, 4
LAYERS_AT_ONCE = 8
# Least number of bone voxels.
LEAST_BONE = 500


def skull_fit(ct_in_mri: Volume, mri: Volume, head: BoolArray | None = None) -> SkullFit | None:
    """Find the shift of the CT's skull at which the MRI is darkest; ``None`` if no skull is in view.

    Parameters
    ----------
    ct_in_mri
        Hounsfield units, on the MRI's grid.
    mri
        Any sequence.
    head
        Mask of the CT's head (without table and head holder), if it is already known; same shape.
    """
    if head is None:
        head = ct_head_mask(ct_in_mri)
    steps_kji = [max(1, round(VOXEL_MM / spacing)) for spacing in mri.grid.spacing_ijk_mm][::-1]
    voxel_kji = np.array([s * n for s, n in zip(mri.grid.spacing_ijk_mm[::-1], steps_kji, strict=True)])
    bone = _bone(ct_in_mri.array_kji, head, steps_kji)
    if np.count_nonzero(bone) < LEAST_BONE:
        return None
    signal, low, bright = kept.of(mri, "pooled with its range", lambda: _signal(mri.array_kji, steps_kji))
    if bright <= low:
        return None
    reach_kji = [max(1, round(REACH * VOXEL_MM / size)) for size in voxel_kji]
    signals = means_around(signal, np.argwhere(bone), np.array(reach_kji))
    best = np.unravel_index(int(signals.argmin()), signals.shape)
    depth = float((signals.mean() - signals[best]) / (bright - low))
    brightness = float((signals[tuple(reach_kji)] - low) / (bright - low))
    offset, at_edge = [], False
    for axis, reach in enumerate(reach_kji):
        place = int(best[axis])
        line = signals[tuple(slice(None) if a == axis else best[a] for a in range(3))]
        at_edge |= place in (0, 2 * reach)
        offset.append(place - reach + _between(line, place))
    shift = float(np.linalg.norm(np.array(offset) * voxel_kji))
    outside = mri.array_kji[::3, ::3, ::3][~head[::3, ::3, ::3]]
    air = float((np.median(outside) - low) / (bright - low)) if outside.size else 0.0
    return SkullFit(shift, depth, brightness, at_edge, float(voxel_kji.max()), air)


def _signal(mri: VoxelArray, steps_kji: list[int]) -> tuple[VoxelArray, float, float]:
    """Return the MRI in voxels of 2 mm, and its 1st and 99th percentile."""
    signal = pooled(mri, steps_kji)
    low, bright = np.percentile(signal, (1, 99))
    return signal, float(low), float(bright)


def _bone(hu: VoxelArray, head: BoolArray, steps_kji: list[int]) -> BoolArray:
    """Return which blocks of voxels are bone of the head; a few layers at a time, which takes less memory."""
    count, some = len(hu) // steps_kji[0] * steps_kji[0], steps_kji[0] * LAYERS_AT_ONCE
    layers = [slice(first, min(count, first + some)) for first in range(0, count, some)]
    if not layers:  # thinner than one block
        return np.zeros((0, 0, 0), bool)
    parts = [pooled(np.where(head[part], hu[part], np.float32(-1000)), steps_kji) for part in layers]
    return np.asarray(np.concatenate(parts) > BONE_RAMP_HU[1])


def _between(line: FloatArray, place: int) -> float:
    """Return the minimum of the parabola through a value and its neighbours, relative to that value, -0.5 to 0.5."""
    if not 0 < place < len(line) - 1:
        return 0.0
    before, here, after = (float(line[place + step]) for step in (-1, 0, 1))
    bend = before - 2 * here + after
    return 0.5 * (before - after) / bend if bend > 0 else 0.0
