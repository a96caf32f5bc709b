"""The grid of a result's volumes: the MRI's, the CT's, one over both fields of view, or isotropic voxels."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod

import numpy as np

from BrainFusionLib.errors import GeometryError, Remedy
from BrainFusionLib.geometry import FloatArray, Grid, apply_affine
from BrainFusionLib.settings import OutputSettings, Side
from BrainFusionLib.transform import Transform

# A fraction of a voxel: what stands out by less is rounding.
_SLACK = 1e-6
# At the far corner of a volume; more is no rounding.
_SHEARED_MM = 1e-4


def output_grid(output: OutputSettings, ct: Grid, mri: Grid, transform: Transform) -> Grid:
    """Return the grid of the volumes, in the frame of the reference.

    Parameters
    ----------
    output
        What was asked for.
    ct, mri
        Grids of the two volumes, each in its own frame, LPS mm.
    transform
        The pose: maps MRI points to CT points, LPS mm.

    Returns
    -------
    Grid
        The reference's own grid, the other's turned by the pose, or isotropic voxels along the reference's axes, of
        which one lies on the reference's first voxel.

    Raises
    ------
    GeometryError
        The grid of one volume is sheared or stretched unevenly by the pose; or there are more than 10 000 voxels along
        an axis.
    """
    own, others = (mri, ct) if output.reference == "mri" else (ct, mri)
    reference_from_other = _reference_from_other(output.reference, transform)
    if output.grid is None:
        return own
    if isinstance(output.grid, str) and output.grid != "union":
        return _turned(others, reference_from_other, output.grid)
    if output.grid == "union":
        return _covering(own, finest_mm(ct, mri), [_box(own, np.eye(4)), _box(others, reference_from_other)])
    return _covering(own, float(output.grid), [_box(own, np.eye(4))])


def least_voxels(output: OutputSettings, ct: Grid, mri: Grid) -> int:
    """Return how many voxels the output grid has at least, in whichever pose."""
    own = mri if output.reference == "mri" else ct
    if output.chosen == "union":
        return max(_voxels_at(grid, finest_mm(ct, mri)) for grid in (ct, mri))
    if isinstance(output.chosen, float):
        return _voxels_at(own, output.chosen)
    return prod(ct.size_ijk if output.chosen == "ct" else mri.size_ijk)


def finest_mm(ct: Grid, mri: Grid) -> float:
    """Return the shortest voxel edge of both, mm."""
    return min(*ct.spacing_ijk_mm, *mri.spacing_ijk_mm)


def _reference_from_other(reference: Side, transform: Transform) -> FloatArray:
    """Return the 4x4 matrix that takes points of the other volume to points of the reference, LPS mm."""
    return (transform.inverse() if reference == "mri" else transform).moving_from_fixed_lps


def _turned(grid: Grid, matrix: FloatArray, name: str) -> Grid:
    moved, last = matrix @ grid.lps_from_ijk, np.array(grid.size_ijk) - 1
    try:
        turned = Grid.from_lps_from_ijk(moved, grid.size_ijk)
        off = np.abs(apply_affine(turned.lps_from_ijk, last) - apply_affine(moved, last)).max()
    except GeometryError:
        off = np.inf
    if off > _SHEARED_MM:
        raise GeometryError(
            f"the transform would shear the {name.upper()}'s voxels, which no volume can have.",
            remedy=Remedy.OTHER_GRID,
        )
    return turned


def _voxels_at(grid: Grid, spacing_mm: float) -> int:
    return prod(max(1, int(np.ceil(edge / spacing_mm - _SLACK))) for edge in grid.extent_ijk_mm)


def _box(grid: Grid, matrix: FloatArray) -> FloatArray:
    """Return the eight corners of the box that the voxels fill, (8, 3), after a 4x4 matrix."""
    unit = np.array([[i, j, k] for i in (0, 1) for j in (0, 1) for k in (0, 1)])
    return apply_affine(matrix @ grid.lps_from_ijk, unit * np.array(grid.size_ijk) - 0.5)


def _covering(like: Grid, spacing_mm: float, boxes: Sequence[FloatArray]) -> Grid:
    """Return isotropic voxels along the axes of a grid, one of them on its first voxel, that fill all boxes."""
    along = (np.concatenate(boxes) - like.origin_lps_mm) @ like.direction / spacing_mm  # in new voxels
    # A voxel reaches half its edge beyond its centre.
    first = np.floor(along.min(axis=0) + 0.5 + _SLACK)
    last = np.ceil(along.max(axis=0) - 0.5 - _SLACK)
    size = np.maximum(last - first + 1, 1).astype(int)
    origin = np.asarray(like.origin_lps_mm) + like.direction @ (first * spacing_mm)
    return Grid((int(size[0]), int(size[1]), int(size[2])), (spacing_mm,) * 3, tuple(origin), like.direction)
