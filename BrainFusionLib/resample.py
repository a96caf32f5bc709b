"""Resampling of a volume onto another grid, on the device.

On a CPU in C (``resample.c``) where the library is there (`BrainFusionLib.native`), else in torch, which takes five
times as long.
"""

from __future__ import annotations

import ctypes
from dataclasses import replace
from functools import lru_cache
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F

from BrainFusionLib.geometry import FloatArray, Grid, apply_affine
from BrainFusionLib.native import load_compiled
from BrainFusionLib.transform import Transform
from BrainFusionLib.volume import AIR_HU, Volume, VoxelArray

# The output is computed in slabs of about this many voxels, so that the coordinates (12 bytes per voxel) take little
# memory compared with the images.
SLAB_VOXELS = 2_000_000


def resample_onto(
    volume: Volume,
    grid: Grid,
    transform: Transform | None = None,
    *,
    fill: float | None = None,
    device: str | torch.device = "cpu",
) -> Volume:
    """Resample `volume` onto `grid` by trilinear interpolation.

    Parameters
    ----------
    volume
        The volume to resample (the moving image).
    grid
        The grid of the result (that of the fixed image).
    transform
        Maps points of `grid` to points of `volume`, LPS mm; rigid or affine; ``None`` for the identity.
    fill
        Value outside `volume` by more than half a voxel; ``None`` for -1000 in a CT and 0 otherwise.
    device
        Where to compute; the result is on the CPU. ``"mps"`` has no float64, so the CPU is used.

    Returns
    -------
    Volume
        On `grid`, with the name, modality, notes and acquisition of `volume`.
    """
    outside = fill if fill is not None else (AIR_HU if volume.modality == "CT" else 0.0)
    moving_from_fixed = np.eye(4) if transform is None else transform.moving_from_fixed_lps
    source_from_target = volume.grid.ijk_from_lps @ moving_from_fixed @ grid.lps_from_ijk
    if volume.grid.size_ijk == grid.size_ijk and np.allclose(source_from_target, np.eye(4), rtol=0, atol=1e-9):
        return replace(volume, grid=grid)
    if torch.device(device).type == "mps":
        device = "cpu"
    compiled = _compiled() if torch.device(device).type == "cpu" else None
    if compiled is not None:
        return replace(volume, array_kji=_in_c(compiled, volume, source_from_target, grid, outside), grid=grid)
    source = torch.from_numpy(np.require(volume.array_kji, requirements="W")).to(device)[None, None]
    result = np.empty(grid.shape_kji, dtype=np.float32)
    slab = max(1, SLAB_VOXELS // (grid.size_ijk[0] * grid.size_ijk[1]))
    for first in range(0, grid.size_ijk[2], slab):
        count = min(slab, grid.size_ijk[2] - first)
        result[first : first + count] = _pull_slab(source, source_from_target, grid, first, count, outside)
    return replace(volume, array_kji=result, grid=grid)


def _pull_slab(
    source: torch.Tensor, source_from_target: FloatArray, grid: Grid, first: int, count: int, outside: float
) -> VoxelArray:
    """Interpolate slices first ... first + count - 1; source is (1, 1, K, J, I), the result (count, rows, columns)."""
    device = source.device
    m = torch.from_numpy(source_from_target).to(device, torch.float64)
    i = torch.arange(grid.size_ijk[0], device=device, dtype=m.dtype)
    j = torch.arange(grid.size_ijk[1], device=device, dtype=m.dtype)
    k = torch.arange(first, first + count, device=device, dtype=m.dtype)
    size = source.shape[:1:-1]  # (I, J, K)
    coordinates = torch.empty((1, count, grid.size_ijk[1], grid.size_ijk[0], 3), device=device, dtype=torch.float32)
    inside = torch.ones(coordinates.shape[1:4], device=device, dtype=torch.bool)
    for axis in range(3):
        # From -1 to 1 between the outer borders of the outer voxels, as in `grid_sample`. Computed in float64: float32
        # indices in a row of 512 voxels would be off by 3e-5 voxel.
        row = 2 * m[axis] / size[axis]
        lines = (row[2] * k + row[3] + 1 / size[axis] - 1)[:, None, None] + (row[1] * j)[:, None]
        position = lines + row[0] * i
        coordinates[0, ..., axis] = position
        inside &= position.abs_() <= 1 + 1e-12
    values = F.grid_sample(source, coordinates, mode="bilinear", padding_mode="border", align_corners=False)[0, 0]
    pulled: VoxelArray = torch.where(inside, values, outside).cpu().numpy()
    return pulled


def sampled(volume: Volume, points_lps_mm: FloatArray) -> VoxelArray:
    """Return linearly interpolated values at points (..., 3), NaN outside the volume; float32, shape (...)."""
    compiled = _compiled()
    if compiled is None:
        return _sampled_in_numpy(volume, points_lps_mm)
    points = np.ascontiguousarray(points_lps_mm, dtype=np.float64)
    values: VoxelArray = np.empty(points.shape[:-1], dtype=np.float32)
    matrix = np.ascontiguousarray(volume.grid.ijk_from_lps[:3], dtype=np.float64)
    size = np.array(volume.grid.size_ijk, dtype=np.int64)
    compiled.brainfusion_sample(
        volume.array_kji.ctypes.data, size.ctypes.data, matrix.ctypes.data, points.ctypes.data, values.size,
        values.ctypes.data,
    )  # fmt: skip
    return values


def _sampled_in_numpy(volume: Volume, points_lps_mm: FloatArray) -> VoxelArray:
    ijk = apply_affine(volume.grid.ijk_from_lps, points_lps_mm.reshape(-1, 3))
    size = np.array(volume.grid.size_ijk)
    inside = ((ijk >= 0) & (ijk <= size - 1)).all(axis=1)
    low = np.clip(np.floor(ijk).astype(np.int32), 0, np.maximum(size - 2, 0))
    part = (ijk - low).astype(np.float32)
    array = volume.array_kji
    flat = array.reshape(-1)
    strides = np.array([1, size[0], size[0] * size[1]])
    first = low @ strides
    near = [(1 - part[:, axis], part[:, axis]) for axis in range(3)]
    total = np.zeros(len(ijk), np.float32)
    for corner in np.ndindex(2, 2, 2):
        step = int(sum(stride for stride, c, n in zip(strides, corner, size, strict=True) if c and n > 1))
        total += near[0][corner[0]] * near[1][corner[1]] * near[2][corner[2]] * flat.take(first + step)
    total[~inside] = np.nan
    return total.reshape(points_lps_mm.shape[:-1])


def _in_c(compiled: Any, volume: Volume, source_from_target: FloatArray, grid: Grid, outside: float) -> VoxelArray:
    result: VoxelArray = np.empty(grid.shape_kji, dtype=np.float32)
    matrix = np.ascontiguousarray(source_from_target[:3], dtype=np.float64)
    sizes = [np.array(size, dtype=np.int64) for size in (volume.grid.size_ijk, grid.size_ijk)]
    compiled.brainfusion_resample(
        volume.array_kji.ctypes.data, sizes[0].ctypes.data, matrix.ctypes.data, sizes[1].ctypes.data, outside,
        result.ctypes.data,
    )  # fmt: skip
    return result


@lru_cache(maxsize=1)
def _compiled() -> Any:
    """Return the library; ``None`` if it is not there."""
    library = load_compiled(("brainfusion_resample", "brainfusion_sample"))
    if library is None:
        return None
    pointer: Any = ctypes.c_void_p
    library.brainfusion_resample.argtypes = [*[pointer] * 4, ctypes.c_float, pointer]
    library.brainfusion_sample.argtypes = [*[pointer] * 4, ctypes.c_int64, pointer]
    library.brainfusion_resample.restype = library.brainfusion_sample.restype = None
    return library
