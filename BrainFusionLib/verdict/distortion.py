"""Scale and distortion of an MRI, from the smooth displacement of the skull (`skull_field`)."""

from __future__ import annotations

import numpy as np

from BrainFusionLib.evidence import Distortion, Scale
from BrainFusionLib.geometry import FloatArray
from BrainFusionLib.transform import Transform
from BrainFusionLib.verdict.skull_field import SkullField, skull_field
from BrainFusionLib.volume import Volume

# Uncertainty of the scale across slices for each mm beyond 2 mm of their distance, %: the tables of a vertex or a
# base blurred over a slice match anywhere in it.
SLICE_PERCENT_PER_MM, THIN_SLICE_MM = 0.25, 2.0
DRAWS = 8


def scale_and_distortion(ct: Volume, mri: Volume, transform: Transform) -> tuple[Scale | None, Distortion | None]:
    """Measure both; ``None`` if too little of the skull is in view.

    Parameters
    ----------
    ct
        Hounsfield units, on its own grid.
    mri
        Any sequence.
    transform
        The pose: maps MRI points to CT points.
    """
    field = skull_field(ct, mri, transform)
    return (None, None) if field is None else (scale_of(field, mri), distortion_of(field))


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


def distortion_of(field: SkullField) -> Distortion:
    """Return the percentiles of the field over the inside of the skull."""
    points, weights = field.inside_lps_mm, field.weights
    terms = field.terms(points)
    moved = field.at(points)
    rigid = _rigid_basis(points - field.centre_lps_mm)
    weighted = rigid * np.repeat(weights, 3)[:, None]
    fitted = np.linalg.solve(weighted.T @ rigid, weighted.T)

    def bent(displacement: FloatArray) -> FloatArray:
        left = displacement - (rigid @ (fitted @ displacement.ravel())).reshape(-1, 3)
        return np.asarray(np.linalg.norm(left, axis=1), dtype=np.float64)

    size = field.coefficients_mm.size
    root = np.linalg.cholesky(field.covariance_mm2 + 1e-9 * np.eye(size))
    draws = np.random.default_rng(0).normal(size=(DRAWS, size)) @ root.T
    noise = [_percentile(bent(np.asarray(terms @ draw.reshape(3, -1).T)), weights, 0.95) for draw in draws]
    own = bent(moved)
    whole: FloatArray = np.asarray(np.linalg.norm(moved, axis=1), dtype=np.float64)
    affine = np.column_stack([np.ones(len(points)), points - field.centre_lps_mm]) @ (_linear_fit(field) @ moved)
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
