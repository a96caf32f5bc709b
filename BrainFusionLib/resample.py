"""Resampling of a volume onto another grid, on the device; values of a volume at points."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from BrainFusionLib.arguments import checked
from BrainFusionLib.backend import backend_of, on_cpu
from BrainFusionLib.device import pick_device
from BrainFusionLib.geometry import FloatArray, Grid
from BrainFusionLib.transform import Transform
from BrainFusionLib.volume import AIR_HU, Volume, VoxelArray


@checked
def resample_onto(
    volume: Volume,
    grid: Grid,
    transform: Transform | None = None,
    *,
    fill: float | None = None,
    device: str = "cpu",
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
        Where to compute (see `device.pick_device`); the result is on the CPU. ``"mps"`` has no float64, so the CPU is
        used.

    Returns
    -------
    Volume
        On `grid`, with the name, modality, notes and acquisition of `volume`.

    Raises
    ------
    SettingsError, MissingDependencyError
        As `device.pick_device`.
    """
    outside = fill if fill is not None else (AIR_HU if volume.modality == "CT" else 0.0)
    moving_from_fixed = np.eye(4) if transform is None else transform.moving_from_fixed_lps
    source_from_target = volume.grid.ijk_from_lps @ moving_from_fixed @ grid.lps_from_ijk
    if volume.grid.size_ijk == grid.size_ijk and np.allclose(source_from_target, np.eye(4), rtol=0, atol=1e-9):
        return replace(volume, grid=grid)
    array = backend_of(pick_device(device)).resample(volume.array_kji, source_from_target, grid.shape_kji, outside)
    return replace(volume, array_kji=array, grid=grid)


def sampled(volume: Volume, points_lps_mm: FloatArray) -> VoxelArray:
    """Return linearly interpolated values at points (..., 3), NaN outside the volume; float32, shape (...)."""
    values = on_cpu().sample(volume.array_kji, volume.grid.ijk_from_lps, points_lps_mm.reshape(-1, 3))
    return values.reshape(points_lps_mm.shape[:-1])
