"""Scale and distortion of an MRI, from the smooth displacement of the skull (`skull_field`)."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from BrainFusionLib.evidence import Distortion, Scale
from BrainFusionLib.geometry import FloatArray
from BrainFusionLib.transform import Transform
from BrainFusionLib.verdict.skull_field import SkullField
from BrainFusionLib.volume import Volume

# Uncertainty of the scale across slices for each mm beyond 2 mm of their distance, %: the tables of a vertex or a
# base blurred over a slice match anywhere in it.
SLICE_PERCENT_PER_MM, THIN_SLICE_MM = 0.25, 2.0
# Where CT or MRI is coarse along each axis, partial volume makes the skull look larger or smaller as a whole: by up to
# so much for each millimetre of the shortest edge beyond thin ones (phantoms of 2 to 3 mm: 2.4 %). It is no distortion.
ALIKE_PERCENT_A_MM, THIN_VOXEL_MM = 1.0, 1.25
DRAWS = 8


def both_of(field: SkullField, ct: Volume, mri: Volume, transform: Transform) -> tuple[Scale, Distortion]:
    """Return scale and distortion of a field that was measured on the two volumes at a pose."""
    scale = scale_of(field, mri)
    voxel_mm = _shortest_edge_mm(ct, mri, transform)
    most = ALIKE_PERCENT_A_MM * max(0.0, voxel_mm - THIN_VOXEL_MM)
    alike = float(np.clip(np.mean([percent for _, percent, _ in scale.axes]), -most, most))
    return scale, replace(distortion_of(field, alike), voxel_mm=round(voxel_mm, 3), gain_nats=round(field.gain_nats, 4))


def scale_of(field: SkullField, mri: Volume) -> Scale:
    """Return the linear part of the field along the axes of the MRI's grid."""
    linear = _linear_fit(field)
    gradient = (linear @ field.terms(field.inside_lps_mm))[1:]
    percent, sd = [0.0] * 3, [0.0] * 3
    grid = mri.grid
    for place, axis, spacing in zip(_anatomical(grid.direction), grid.direction.T, grid.spacing_ijk_mm, strict=True):
        along = np.outer(axis, axis @ gradient)
        percent[place] = 100 * float((along * field.coefficients_mm).sum())
        fitted = 100 * float(np.sqrt(along.ravel() @ field.covariance_mm2 @ along.ravel()))
        sd[place] = float(np.hypot(fitted, SLICE_PERCENT_PER_MM * max(0.0, spacing - THIN_SLICE_MM)))
    return Scale(*_rounded(percent), *_rounded(sd))


def distortion_of(field: SkullField, alike_percent: float = 0.0) -> Distortion:
    """Return the percentiles of the field over the inside of the skull; without a scale common to all axes, %."""
    points, weights = field.inside_lps_mm, field.weights
    terms = field.terms(points)
    moved = field.at(points)
    offsets = points - field.centre_lps_mm
    rigid = _rigid_basis(offsets)
    weighted = rigid * np.repeat(weights, 3)[:, None]
    fitted = np.linalg.solve(weighted.T @ rigid, weighted.T)

    def bent(displacement: FloatArray) -> FloatArray:
        left = displacement - (rigid @ (fitted @ displacement.ravel())).reshape(-1, 3)
        return np.asarray(np.linalg.norm(left, axis=1), dtype=np.float64)

    size = field.coefficients_mm.size
    root = np.linalg.cholesky(field.covariance_mm2 + 1e-9 * np.eye(size))
    draws = np.random.default_rng(0).normal(size=(DRAWS, size)) @ root.T
    noise = [_percentile(bent(np.asarray(terms @ draw.reshape(3, -1).T)), weights, 0.95) for draw in draws]
    own = bent(moved - alike_percent / 100 * offsets)
    whole: FloatArray = np.asarray(np.linalg.norm(moved, axis=1), dtype=np.float64)
    affine = np.column_stack([np.ones(len(points)), offsets]) @ (_linear_fit(field) @ moved)
    return Distortion(
        *_rounded([
            _percentile(own, weights, 0.5),
            _percentile(own, weights, 0.95),
            float(np.mean(noise)),
            _percentile(np.linalg.norm(moved - affine, axis=1), weights, 0.95),
            _percentile(whole, weights, 0.5),
            _percentile(whole, weights, 0.95),
            field.scatter_mm,
        ])
    )  # fmt: skip


def _shortest_edge_mm(ct: Volume, mri: Volume, transform: Transform) -> float:
    """Return the edge of the voxels along the MRI's axis where it is shortest, of CT and MRI the longer."""
    in_ct = transform.moving_from_fixed_lps[:3, :3] @ mri.grid.direction
    across = (np.abs(ct.grid.direction.T @ in_ct) * np.asarray(ct.grid.spacing_ijk_mm)[:, None]).max(axis=0)
    return float(np.maximum(across, mri.grid.spacing_ijk_mm).min())


def _linear_fit(field: SkullField) -> FloatArray:
    """Return the matrix (4, n) that takes values at the points to the constant and the gradient (per mm) of a fit."""
    offsets = field.inside_lps_mm - field.centre_lps_mm
    basis = np.column_stack([np.ones(len(offsets)), offsets])
    weighted = basis * field.weights[:, None]
    found: FloatArray = np.asarray(np.linalg.solve(weighted.T @ basis, weighted.T), dtype=np.float64)
    return found


def _rigid_basis(offsets: FloatArray) -> FloatArray:
    """Return the displacements of three shifts and three small rotations, (3 n, 6)."""
    basis = np.zeros((len(offsets), 3, 6))
    for axis in range(3):
        basis[:, axis, axis] = 1
        basis[:, :, 3 + axis] = np.cross(np.eye(3)[axis], offsets)
    return basis.reshape(-1, 6)


def _percentile(values: FloatArray, weights: FloatArray, share: float) -> float:
    order = np.argsort(values)
    place = int(np.searchsorted(np.cumsum(weights[order]), share * weights.sum()))
    return float(values[order][min(place, len(values) - 1)])


def _anatomical(direction: FloatArray) -> list[int]:
    """Return the anatomical axis (0: left-right) nearest to each axis of a grid, each once."""
    left = np.abs(direction).copy()
    nearest = [0] * 3
    for _ in range(3):
        anatomical, axis = np.unravel_index(int(left.argmax()), left.shape)
        nearest[int(axis)] = int(anatomical)
        left[anatomical, :] = left[:, axis] = -1
    return nearest


def _rounded(values: list[float]) -> tuple[float, ...]:
    """Round, so that the same numbers are stored, compared and shown."""
    return tuple(round(value, 3) for value in values)
