"""The bone in a CT as a mask, without head holder, table, metal outside the head, and what is dense in the brain.

Only voxels above one threshold are bone, and none are added: no hole is closed and no surface smoothed. What the mask
leaves out is said in `bone_mask`.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from BrainFusionLib.geometry import FloatArray
from BrainFusionLib.intensity.head import HEAD_THRESHOLD_HU
from BrainFusionLib.intensity.inside import CORE_MM, grown
from BrainFusionLib.intensity.pieces import pieces
from BrainFusionLib.intensity.scale import BONE_HU
from BrainFusionLib.volume import BoolArray, Volume, VoxelArray

# Denser than any bone; enamel reaches 3000.
METAL_HU = 2500.0
# The blur around metal is removed with it.
BLUR_MM = 2.0
# Smaller pieces are noise and calcifications.
LEAST_PIECE_ML = 0.1
# A piece of bone has soft tissue around it: at least this share of the voxels that touch it. Electrodes, and what is
# left of a frame or a head holder, lie in air.
LEAST_COVERED = 0.5


def bone_mask(ct: Volume, head_kji: BoolArray, depth_kji: VoxelArray | None = None) -> BoolArray:
    """Return the bone of a CT, bool, shape of the CT.

    Bone is what is above `BONE_HU` (300 HU) in the head, except

    - metal (above `METAL_HU`) that reaches the air around the head, with its blur: frame pins, electrodes, leads;
    - what lies deeper inside the skull than `CORE_MM`: calcifications, clips, leads;
    - pieces below `LEAST_PIECE_ML`, and pieces that have more air than tissue around them.

    Parameters
    ----------
    ct
        Hounsfield units, on any grid.
    head_kji
        The head without table and head holder (`ct_head_mask`), same shape.
    depth_kji
        Depth below the inner table, mm (`InsideSkull.depth_on`), same shape; ``None`` if no skull was found.
    """
    bone: BoolArray = (ct.array_kji > np.float32(BONE_HU)) & head_kji
    if depth_kji is not None:
        bone &= depth_kji <= CORE_MM
    box = _box_of(bone)
    if box is None:
        return bone
    hu = ct.array_kji[box]
    part = bone[box] & ~_metal_outside(hu, np.asarray(ct.grid.spacing_ijk_mm[::-1]))
    voxel_ml = float(np.prod(ct.grid.spacing_ijk_mm)) / 1000
    bone[box] = _covered(part, hu, max(1, round(LEAST_PIECE_ML / voxel_ml)))
    return bone


def _metal_outside(hu: VoxelArray, spacing_kji_mm: FloatArray) -> BoolArray:
    """Return the pieces of metal that touch air connected to the border, grown by their blur."""
    metal: BoolArray = hu > np.float32(METAL_HU)
    nothing: BoolArray = np.zeros(hu.shape, bool)
    if not metal.any():
        return nothing
    outside = _at_border(hu < np.float32(HEAD_THRESHOLD_HU))
    steps = max(1, round(BLUR_MM / float(spacing_kji_mm.min())))
    labels = _pieces(metal)
    reached = outside
    for _ in range(steps + 1):
        reached = grown(reached)
    touching = np.unique(labels[reached & metal])
    found: BoolArray = np.isin(labels, touching[touching > 0])
    for _ in range(steps):
        found = grown(found)
    return found


def _covered(bone: BoolArray, hu: VoxelArray, least_voxels: int) -> BoolArray:
    """Return the pieces that are large enough, and have tissue around them."""
    # Voxels of bone are few: only they are looked at, by their index in an array with a border that counts for nothing.
    bordered, tissue = np.pad(bone, 1), (hu > np.float32(HEAD_THRESHOLD_HU)) & (hu <= np.float32(BONE_HU))
    at, of = np.flatnonzero(bordered), pieces(bone, corners=True)[0][bone]
    open_to, soft_at = np.pad(~bone, 1).ravel(), np.pad(tissue, 1).ravel()
    sizes = np.bincount(of, minlength=1)
    # Each voxel beside bone counts for the piece along each axis: that is enough to tell air from tissue.
    # What is dense beside a piece was cut off from it: a head holder near the skin.
    beside, soft = np.zeros(len(sizes)), np.zeros(len(sizes))
    _, tall, wide = bordered.shape
    for step in (tall * wide, wide, 1):
        for there in (at + step, at - step):
            beside += np.bincount(of[open_to.take(there)], minlength=len(sizes))
            soft += np.bincount(of[soft_at.take(there)], minlength=len(sizes))
    kept = (sizes >= least_voxels) & (soft >= LEAST_COVERED * beside)
    found: BoolArray = np.zeros(bone.shape, bool)
    found[bone] = kept[of]
    return found


def _pieces(mask: BoolArray) -> npt.NDArray[np.int64]:
    """Return the number of the piece that each voxel belongs to, 0 for none; corners connect."""
    return pieces(mask, corners=True)[0].astype(np.int64)


def _at_border(mask: BoolArray) -> BoolArray:
    """Return the pieces of a mask that reach the border of the array."""
    labels = _pieces(mask)
    faces = (labels[0], labels[-1], labels[:, 0], labels[:, -1], labels[:, :, 0], labels[:, :, -1])
    at_border = np.unique(np.concatenate([face.ravel() for face in faces]))
    found: BoolArray = np.isin(labels, at_border[at_border > 0])
    return found


def _box_of(mask: BoolArray) -> tuple[slice, slice, slice] | None:
    """Return the smallest box around a mask with two voxels beyond it; ``None`` if it is empty."""
    if not mask.any():
        return None
    k, j, i = (
        slice(max(0, int(there[0]) - 2), int(there[-1]) + 3)
        for there in (np.flatnonzero(mask.any(axis=tuple({0, 1, 2} - {axis}))) for axis in range(3))
    )
    return k, j, i
