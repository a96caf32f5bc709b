"""Gaussian smoothing of volumes, weighted or not."""

from __future__ import annotations

import numpy as np

from BrainFusionLib.geometry import FloatArray
from BrainFusionLib.volume import VoxelArray


def mean_around(values: VoxelArray, weight: VoxelArray, sigma_mm: float, spacing_kji_mm: FloatArray) -> VoxelArray:
    """Return the Gaussian mean of weighted values, float32."""
    both = [values * weight, weight]
    for axis, spacing in enumerate(spacing_kji_mm):
        both = [gaussian(array, sigma_mm / spacing, axis) for array in both]
    mean: VoxelArray = both[0] / np.maximum(both[1], np.float32(1e-3))
    return mean


def gaussian(array: VoxelArray, sigma: float, axis: int) -> VoxelArray:
    """Smooth along an axis, with zeros outside: a banded matrix, which is faster than a loop over its width."""
    n = array.shape[axis]
    apart = np.subtract.outer(np.arange(n), np.arange(n)) / sigma
    matrix = np.where(np.abs(apart) <= 2.5, np.exp(-0.5 * apart**2), 0)
    matrix /= np.exp(-0.5 * (np.arange(-n, n + 1) / sigma) ** 2)[np.abs(np.arange(-n, n + 1)) / sigma <= 2.5].sum()
    m = matrix.astype(np.float32)
    if axis == 2:
        smoothed: VoxelArray = array @ m
    elif axis == 1:
        smoothed = m @ array
    else:
        smoothed = (m @ array.reshape(n, -1)).reshape(array.shape)
    return smoothed
