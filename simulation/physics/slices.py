"""From a fine stack to a scanner's slices: their profile, their distance, and what of the head is between them."""

from __future__ import annotations

from dataclasses import dataclass
from math import erf, sqrt

import numpy as np

from BrainFusionLib.geometry import FloatArray, Grid, apply_affine
from BrainFusionLib.volume import VoxelArray

# Slices are put together of layers of about this thickness.
LAYER_MM = 1.0
# Width of a profile's edges (their Gaussian), as a share of the thickness.
EDGE = 0.12


@dataclass(frozen=True, eq=False)
class SliceStack:
    """The slices of a scan, and the fine stack of layers that they are the averages of.

    Attributes
    ----------
    grid
        Of the slices.
    fine
        Of the layers.
    weights
        Share of each layer in each slice, shape (slices, layers).
    """

    grid: Grid
    fine: Grid
    weights: FloatArray

    def averaged(self, layers_kji: VoxelArray) -> VoxelArray:
        """Return the slices of a stack of layers."""
        if len(self.weights) == len(layers_kji):
            return layers_kji
        flat = layers_kji.reshape(len(layers_kji), -1)
        return (self.weights.astype(np.float32) @ flat).reshape(self.grid.shape_kji)


def slice_stack(grid: Grid, thickness_mm: float) -> SliceStack:
    """Return what slices of a thickness, at the places of a grid, are made of."""
    spacing = grid.spacing_ijk_mm[2]
    parts = max(1, round(spacing / LAYER_MM))
    layer = spacing / parts
    if thickness_mm <= 1.3 * layer:
        if parts == 1:
            return SliceStack(grid, grid, np.eye(grid.size_ijk[2]))
        thickness_mm = max(thickness_mm, layer)
    beyond = int(np.ceil((thickness_mm * (0.5 + 2 * EDGE)) / layer)) if thickness_mm > 1.3 * layer else 0
    count = (grid.size_ijk[2] - 1) * parts + 1 + 2 * beyond
    first = apply_affine(grid.lps_from_ijk, [0.0, 0.0, -beyond / parts])
    i, j, _ = grid.size_ijk
    a, b, _ = grid.spacing_ijk_mm
    x, y, z = (float(v) for v in first)
    fine = Grid((i, j, count), (a, b, layer), (x, y, z), grid.direction)
    offsets = np.arange(-beyond, beyond + 1, dtype=np.float64) * layer
    profile = slice_profile(offsets, thickness_mm)
    weights = np.zeros((grid.size_ijk[2], count))
    for number in range(grid.size_ijk[2]):
        weights[number, number * parts : number * parts + 2 * beyond + 1] = profile
    return SliceStack(grid, fine, weights)


def slice_profile(offsets_mm: FloatArray, thickness_mm: float) -> FloatArray:
    """Return the sensitivity across a slice, of sum 1: a box with soft edges, half as high at the nominal thickness."""
    soft = sqrt(2) * EDGE * thickness_mm
    half = thickness_mm / 2
    high = np.array([erf((half - u) / soft) + erf((half + u) / soft) for u in np.asarray(offsets_mm)])
    profile: FloatArray = high / high.sum()
    return profile
