"""Images where points of another grid lie in them: linear, on one thread; fields between knots; readout by cells."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F

from BrainFusionLib.geometry import FloatArray, Grid, apply_affine
from BrainFusionLib.volume import VoxelArray
from simulation.itk import sampled

KNOT_MM = 4.0
PointMap = Callable[[FloatArray], FloatArray]


def knots_of(grid: Grid, spacing_mm: float = KNOT_MM) -> Grid:
    """Return a coarse grid from the first to the last voxel of a grid, at about this spacing."""
    size, spacing = [], []
    for n, s in zip(grid.size_ijk, grid.spacing_ijk_mm, strict=True):
        count = max(2, int(np.ceil((n - 1) * s / spacing_mm)) + 1)
        size.append(count)
        spacing.append(max((n - 1) * s, s) / (count - 1))
    return Grid((size[0], size[1], size[2]), (spacing[0], spacing[1], spacing[2]), grid.origin_lps_mm, grid.direction)


def points_of(grid: Grid) -> FloatArray:
    """Return where the voxels are, shape (k, j, i, 3), LPS mm."""
    k, j, i = np.indices(grid.shape_kji, dtype=np.float64)
    return apply_affine(grid.lps_from_ijk, np.stack([i, j, k], axis=-1))


def smooth_on(grid: Grid, function: Callable[[FloatArray], FloatArray], spacing_mm: float = KNOT_MM) -> VoxelArray:
    """Return a function of points on a grid, worked out at knots and interpolated: shape (..., k, j, i).

    `function` takes points (k, j, i, 3) to values (k, j, i) or (k, j, i, c).
    """
    values = np.asarray(function(points_of(knots_of(grid, spacing_mm))), dtype=np.float32)
    channels = values[None] if values.ndim == 3 else np.moveaxis(values, -1, 0)
    fine = _upsampled(torch.from_numpy(np.ascontiguousarray(channels))[None], grid.shape_kji)[0].numpy()
    return fine[0] if values.ndim == 3 else fine


def pulled(images: npt.NDArray[np.float32], source: Grid, target: Grid, to_source: PointMap, fill: float) -> VoxelArray:
    """Sample images, shape (c, k, j, i), where `to_source` takes the points of a target grid.

    The map is worked out at knots: exact where it is affine. The images are linear between voxels.
    """
    torch.set_num_threads(1)
    straight = _affine_of(to_source, target)
    if straight is not None:
        # A fifth of the time: no place of each voxel is worked out, and most of the air is skipped.
        return np.stack([sampled(image, source, target, straight, fill) for image in images])
    size = np.asarray(source.size_ijk, dtype=np.float64)

    def place(points: FloatArray) -> FloatArray:
        ijk = apply_affine(source.ijk_from_lps, to_source(points))
        return 2 * ijk / np.maximum(size - 1, 1) - 1

    at = torch.from_numpy(smooth_on(target, place)).permute(1, 2, 3, 0)[None]
    image = torch.from_numpy(np.ascontiguousarray(images - np.float32(fill)))[None]
    found = F.grid_sample(image, at, mode="bilinear", padding_mode="zeros", align_corners=True)[0].numpy()
    if fill:
        found += np.float32(fill)
    return found


def _affine_of(to_source: PointMap, target: Grid) -> FloatArray | None:
    """Return a map of points as a 4x4 matrix; ``None`` if it is not affine over a grid, to a thousandth of a mm."""
    corners = np.array(list(np.ndindex(3, 3, 3)), dtype=np.float64) / 2 * (np.asarray(target.size_ijk) - 1)
    points = apply_affine(target.lps_from_ijk, corners)
    ends = to_source(points)
    known = np.column_stack([points, np.ones(len(points))])
    fitted, *_ = np.linalg.lstsq(known, ends, rcond=None)
    if np.abs(known @ fitted - ends).max() > 1e-3:
        return None
    return np.vstack([fitted.T, [0.0, 0.0, 0.0, 1.0]])


def read_out(image_kji: VoxelArray, shift_voxels: VoxelArray, axis_ijk: int) -> VoxelArray:
    """Move the signal of each voxel along one axis and keep its amount: piles up and leaves voids, as a readout does.

    Each voxel is a cell whose two borders move; what lies between them is spread evenly, also where cells fold over.
    """
    axis = 2 - axis_ijk
    image, shift = (torch.from_numpy(a).movedim(axis, -1).contiguous() for a in (image_kji, shift_voxels))
    n = image.shape[-1]
    borders = torch.cat([shift[..., :1], (shift[..., 1:] + shift[..., :-1]) / 2, shift[..., -1:]], dim=-1)
    borders += torch.arange(n + 1, dtype=torch.float32)
    width = borders.diff(dim=-1)
    width = torch.where(width.abs() < 0.05, torch.copysign(torch.tensor(0.05), width), width)
    density = image / width
    steps = F.pad(density, (0, 1)) - F.pad(density, (1, 0))
    borders.clamp_(0, n)
    whole = borders.floor()
    part = borders - whole
    index = whole.to(torch.int64)
    # A step of density at y is a kink in the running sum: in the amounts of whole voxels, it is spread linearly.
    kinks = torch.zeros((*image.shape[:2], n + 2))
    kinks.scatter_add_(2, index, steps * (1 - part))
    kinks.scatter_add_(2, index + 1, steps * part)
    # In double precision, because a line's sum must come out at nothing.
    found = kinks.to(torch.float64).cumsum(dim=-1)[..., :n].to(torch.float32)
    moved: VoxelArray = found.movedim(-1, axis).contiguous().numpy()
    return moved


def blurred_in_plane(image_kji: VoxelArray, sigma_voxels: float) -> VoxelArray:
    """Blur columns and rows of each slice with a Gaussian; the border is repeated."""
    if sigma_voxels < 0.15:
        return image_kji
    radius = max(1, int(np.ceil(2.5 * sigma_voxels)))
    weights = np.exp(-(np.arange(radius + 1) ** 2) / (2 * sigma_voxels**2))
    weights /= weights[0] + 2 * weights[1:].sum()
    for axis in (1, 2):
        padded = np.pad(image_kji, [(radius, radius) if a == axis else (0, 0) for a in range(3)], mode="edge")
        n = image_kji.shape[axis]
        parts = [padded[(slice(None),) * axis + (slice(at, at + n),)] for at in range(2 * radius + 1)]
        image_kji = parts[radius] * np.float32(weights[0])
        for far in range(1, radius + 1):
            image_kji += (parts[radius - far] + parts[radius + far]) * np.float32(weights[far])
    return image_kji


def refined(field: VoxelArray, step: int, shape_kji: tuple[int, ...]) -> VoxelArray:
    """Return a field (c, k, j, i) on every n-th voxel between those: linear, and even beyond the last."""
    size = tuple((n - 1) * step + 1 for n in field.shape[1:])
    fine = _upsampled(torch.from_numpy(np.ascontiguousarray(field))[None], size)[0].numpy()
    beyond = [(0, max(0, n - m)) for n, m in zip(shape_kji, size, strict=True)]
    if any(after for _, after in beyond):
        fine = np.pad(fine, [(0, 0), *beyond], mode="edge")
    k, j, i = shape_kji
    return fine[:, :k, :j, :i]


def _upsampled(knots: torch.Tensor, shape_kji: tuple[int, ...]) -> torch.Tensor:
    return F.interpolate(knots, size=shape_kji, mode="trilinear", align_corners=True)


def values_at(image_kji: VoxelArray, grid: Grid, points_lps_mm: FloatArray) -> FloatArray:
    """Return an image at points of any shape (..., 3), linear; beyond the border, the border's value."""
    ijk = apply_affine(grid.ijk_from_lps, points_lps_mm)
    limits = np.asarray(grid.size_ijk) - 1
    ijk = np.clip(ijk, 0, limits)
    low = np.minimum(ijk.astype(np.int64), np.maximum(limits - 1, 0))
    part = ijk - low
    found = np.zeros(ijk.shape[:-1])
    for corner in np.ndindex(2, 2, 2):
        weight = np.prod(np.where(corner, part, 1 - part), axis=-1)
        i, j, k = np.moveaxis(np.minimum(low + corner, limits), -1, 0)
        found += weight * image_kji[k, j, i]
    return found
