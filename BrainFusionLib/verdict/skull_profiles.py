"""Profiles of CT and MRI across the skull: lines along the normal of the inner table, out to the scalp.

A point of the inner table is an edge of bone from which the way inwards leads through soft tissue for `CLEAR_MM` and
then to bone: jaw, face and spine have no such points. No mask is needed, and a hole in the skull costs only its area.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from BrainFusionLib.geometry import FloatArray, apply_affine
from BrainFusionLib.resample import sampled
from BrainFusionLib.volume import BoolArray, Volume, VoxelArray

VOXEL_MM, SMOOTHED_MM = 2.0, 5.0
# Half-way to bone in the smoothed CT, and what is certainly neither bone nor air there.
EDGE_HU, SOFT_LOW_HU, SOFT_HIGH_HU = 300.0, -150.0, 250.0
CLEAR_MM, ACROSS_MM, WALK_MM = 46.0, 220.0, 4.0
# Least change of HU per mm at an edge, and how many of its voxels are looked at. Most heads have fewer: 5,000 lines,
# drawn from 10,000 to 20,000, made a scale uncertain by .2 to .7 % and a distortion by .1 mm.
LEAST_SLOPE, MOST_EDGES = 20.0, 250_000
MOST_POINTS, LEAST_POINTS = 20_000, 300
# Bone, relative to the brain, because a cone beam may be off by 100 HU; thickness of the skull.
BONE_OVER_BRAIN_HU, THIN_MM, THICK_MM = 300.0, 2.0, 20.0


@dataclass(frozen=True)
class SkullLines:
    """Lines across the skull.

    Attributes
    ----------
    points_lps_mm, normals_lps
        (n, 3), points of the inner table and outward normals, in CT coordinates.
    thickness_mm
        (n,), distance of the outer from the inner table.
    brain_hu
        Median HU of the brain under the skull.
    """

    points_lps_mm: FloatArray
    normals_lps: FloatArray
    thickness_mm: FloatArray
    brain_hu: float


def skull_lines(ct: Volume) -> SkullLines | None:
    """Find lines across the skull of a CT (Hounsfield units); ``None`` if too little of it is in view."""
    steps = [max(1, round(VOXEL_MM / spacing)) for spacing in ct.grid.spacing_ijk_mm][::-1]
    coarse = ct.array_kji[:: steps[0], :: steps[1], :: steps[2]]
    if min(coarse.shape) < 5:
        return None
    spacing = np.array([s * n for s, n in zip(ct.grid.spacing_ijk_mm[::-1], steps, strict=True)])
    smooth = _smoothed(np.clip(coarse, -200, 800).astype(np.float32), [round(SMOOTHED_MM / s) // 2 for s in spacing])
    at, normals = _inner_edges(smooth, spacing)
    rng = np.random.default_rng(0)
    if len(at) > MOST_POINTS:
        at, normals = (array[np.sort(rng.choice(len(at), MOST_POINTS, replace=False))] for array in (at, normals))
    points = apply_affine(ct.grid.lps_from_ijk, at[:, ::-1] * np.array(steps[::-1], dtype=np.float64))
    return _refined(ct, points, normals[:, ::-1] @ ct.grid.direction.T)


def along(points: FloatArray, normals: FloatArray, offsets_mm: FloatArray) -> FloatArray:
    """Return the points at some offsets along each normal, (n, offsets, 3); offsets are (offsets,) or (n, offsets)."""
    offsets = np.broadcast_to(offsets_mm, (len(points), offsets_mm.shape[-1]))
    found: FloatArray = np.empty((*offsets.shape, 3))
    for axis in range(3):  # three times as fast as all at once, where the innermost loop is of three
        np.add(normals[:, axis, None] * offsets, points[:, axis, None], out=found[..., axis])
    return found


def _smoothed(array: VoxelArray, reach_kji: Sequence[int]) -> VoxelArray:
    """Return means over boxes; the border is replicated."""
    for axis, reach in enumerate(reach_kji):
        if reach:
            size, width = array.shape[axis], 2 * reach + 1
            padded = np.pad(array, [(reach, reach) if a == axis else (0, 0) for a in range(3)], mode="edge")
            parts = [tuple(slice(n, n + size) if a == axis else slice(None) for a in range(3)) for n in range(width)]
            array = padded[parts[0]].copy()
            for part in parts[1:]:
                array += padded[part]
            array *= np.float32(1 / width)
    return array


def _inner_edges(smooth: VoxelArray, spacing_kji: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Return indices (n, 3) of edges of the inner table and unit vectors into the bone, both kji."""
    bone = smooth > EDGE_HU
    core = bone[1:-1, 1:-1, 1:-1].copy()
    for axis in range(3):
        for first in (0, 2):
            core &= bone[tuple(slice(first, first + n) if a == axis else slice(1, -1) for a, n in
                               enumerate(core.shape))]  # fmt: skip
    at = np.argwhere(bone[1:-1, 1:-1, 1:-1] & ~core) + 1
    if len(at) > MOST_EDGES:
        at = at[np.sort(np.random.default_rng(0).choice(len(at), MOST_EDGES, replace=False))]
    strides = np.array([smooth.shape[1] * smooth.shape[2], smooth.shape[2], 1])
    values, here = smooth.ravel(), at @ strides
    slopes = [
        (values.take(here + step) - values.take(here - step)) / (2 * size)
        for step, size in zip(strides, spacing_kji, strict=True)
    ]
    slope: FloatArray = np.stack(slopes, axis=1).astype(np.float64)
    steep = np.linalg.norm(slope, axis=1)
    kept = steep > LEAST_SLOPE
    at, normals = at[kept], slope[kept] / steep[kept, None]
    # One step at a time, because most edges drop out at the first ones.
    for distance in np.arange(10.0, CLEAR_MM, WALK_MM):
        near = _walked(smooth, at, -normals / spacing_kji, np.array([distance]))[:, 0]
        clear = (near < SOFT_HIGH_HU) & (near > SOFT_LOW_HU)
        at, normals = at[clear], normals[clear]
    enclosed, todo = np.zeros(len(at), bool), np.arange(len(at))
    for distances in np.array_split(np.arange(CLEAR_MM, ACROSS_MM, WALK_MM), 4):
        far = _walked(smooth, at[todo], -normals[todo] / spacing_kji, distances)
        to_bone, to_air = _first(far > SOFT_HIGH_HU), _first(far < SOFT_LOW_HU)
        enclosed[todo] = to_bone < to_air
        todo = todo[np.isinf(to_bone) & np.isinf(to_air)]
    return at[enclosed].astype(np.float64), normals[enclosed]


def _walked(array: VoxelArray, at: FloatArray, per_mm: FloatArray, distances_mm: FloatArray) -> VoxelArray:
    """Return the nearest voxels along lines, NaN outside; (lines, distances)."""
    inside = np.ones((len(at), len(distances_mm)), bool)
    flat = np.zeros(inside.shape, np.int32)
    for axis, size in enumerate(array.shape):
        place = np.rint(at[:, axis, None] + per_mm[:, axis, None] * distances_mm)
        inside &= np.asarray((place >= 0) & (place < size))
        flat = flat * np.int32(size) + np.clip(place, 0, size - 1).astype(np.int32)
    found: VoxelArray = np.where(inside, array.ravel().take(flat), np.float32(np.nan))
    return found


def _first(hits: BoolArray) -> FloatArray:
    """Return the index of the first hit in each row; infinite without any."""
    found: FloatArray = np.where(hits.any(axis=1), hits.argmax(axis=1), np.inf)
    return found


def _refined(ct: Volume, points: FloatArray, normals: FloatArray) -> SkullLines | None:
    """Move the points to where the full CT enters bone, and find where it leaves it."""
    if len(points) < LEAST_POINTS:
        return None
    offsets = np.arange(-12.0, 26.1)
    hu = sampled(ct, along(points, normals, offsets))
    known = np.isfinite(hu).all(axis=1)
    if np.count_nonzero(known) < LEAST_POINTS:
        return None
    brain_hu = float(np.median(hu[known][:, offsets <= -6]))
    bone = hu > brain_hu + BONE_OVER_BRAIN_HU
    first = bone.argmax(axis=1)
    # The outer table is where the next 3 mm are free of bone: diploe is not an end.
    free = ~bone
    free[:, :-2] = ~(bone[:, :-2] | bone[:, 1:-1] | bone[:, 2:])
    beyond = free & (np.arange(len(offsets)) > first[:, None])
    last = np.where(beyond.any(axis=1), beyond.argmax(axis=1), len(offsets) - 1)
    thickness = offsets[last] - offsets[first]
    kept = known & bone.any(axis=1) & (np.abs(offsets[first]) < 6) & (thickness >= THIN_MM) & (thickness <= THICK_MM)
    if np.count_nonzero(kept) < LEAST_POINTS:
        return None
    inner = points[kept] + normals[kept] * offsets[first][kept, None]
    return SkullLines(inner, normals[kept], thickness[kept], brain_hu)
