"""From slices with positions to one regular volume: order, spacing, missing slices, gantry tilt. Pure geometry."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from BrainFusionLib.errors import GeometryError
from BrainFusionLib.geometry import (
    ORTHOGONALITY_TOLERANCE,
    FloatArray,
    Grid,
    affine,
    apply_affine,
    orthonormalised,
    rotation_matrix,
)
from BrainFusionLib.tilt import LARGEST_TILT_DEG, note_on_tilt, shifted_back
from BrainFusionLib.volume import VoxelArray

# Positions are written rounded, to 0.01 mm at worst in sound headers. What stays below is not worth resampling for.
_POSITION_TOLERANCE_MM = 0.05

# Up to three slices missing in a row (and the usual mix of 1.25 and 5 mm slices) are bridged; more would be invention.
_LARGEST_GAP = 4.5  # of the usual distance

# Distances between this share of the usual one and as much more are rounded or jittered, not missing slices.
_JITTER = 0.75

# Some programs write the six cosines with two or three digits, which turns the axes by up to half a degree.
_FEW_DIGITS = (2, 3)
_EXACT = 1e-6


class Slices(NamedTuple):
    """Slices of one series, in any order.

    Parameters
    ----------
    pixels
        Shape (slices, rows, columns), float32.
    positions_lps_mm
        Centre of the first pixel of each slice, shape (slices, 3).
    orientation
        DICOM's six numbers: direction of a row (columns grow), then of a column (rows grow), LPS.
    spacing_ij_mm
        Distance of columns, then of rows, mm.
    """

    pixels: npt.NDArray[np.float32]
    positions_lps_mm: FloatArray
    orientation: FloatArray
    spacing_ij_mm: tuple[float, float]


def stack_slices(slices: Slices) -> tuple[VoxelArray, Grid, tuple[str, ...]]:
    """Sort slices along their normal and put them on one regular right-handed grid.

    Slices that are evenly spaced and straight above each other are kept as they are. Slices shifted in their plane
    (gantry tilt) are shifted back, and uneven distances evened out, both by linear interpolation.

    Returns
    -------
    tuple
        Voxels (k, j, i), their grid, and notes in words on what was resampled.

    Raises
    ------
    GeometryError
        Fewer than two slices, several at one position, too large a gap, shifts beyond any gantry tilt, zero spacing, or
        row and column directions that are not perpendicular, by more than rounding explains.
    """
    if len(slices.pixels) < 2:
        raise GeometryError("a 3D volume is needed, but this series has a single slice. Choose another series.")
    columns_mm, rows_mm = slices.spacing_ij_mm
    if not min(columns_mm, rows_mm) > 0:
        raise GeometryError(
            f"pixel spacing must be above zero, but it is {columns_mm:g} x {rows_mm:g} mm. Correct the headers."
        )
    axes, notes = axes_of(slices.orientation, slices.positions_lps_mm)
    heights = slices.positions_lps_mm @ axes[:, 2]
    order = np.argsort(heights, kind="stable")
    first = slices.positions_lps_mm[order[0]]
    local = (slices.positions_lps_mm[order] - first) @ axes  # along i, j and the normal, mm
    _check_heights(local[:, 2])
    pixels = slices.pixels[order]
    low_ij = np.zeros(2)
    if np.abs(local[:, :2]).max() > _POSITION_TOLERANCE_MM:
        pixels, low_ij, note = _straightened(pixels, local, slices.spacing_ij_mm)
        notes.append(note)
    pixels, spacing_k, note_even = _evened(pixels, local[:, 2])
    notes += note_even
    spacing = (*slices.spacing_ij_mm, spacing_k)
    origin = apply_affine(affine(axes, first), [*(low_ij * slices.spacing_ij_mm), 0.0])
    count, rows, columns = pixels.shape
    return pixels, Grid((columns, rows, count), spacing, tuple(origin), axes), tuple(notes)


def axes_of(orientation: FloatArray, positions_lps_mm: FloatArray) -> tuple[FloatArray, list[str]]:
    """Return the unit directions of i, j and the normal (columns), and a note if the header gives them rounded.

    The positions of the slices have more digits. Where they run along the normal up to its rounding, they say what it
    is: else the slices would seem to be shifted in their plane, as by a tilted gantry.

    Parameters
    ----------
    orientation
        DICOM's six numbers.
    positions_lps_mm
        Of the slices, shape (slices, 3), in any order.

    Raises
    ------
    GeometryError
        Row and column are not perpendicular unit vectors, by more than rounding explains.
    """
    row, column = orientation[:3], orientation[3:]
    pair = np.column_stack([row, column])
    off = float(np.abs(pair.T @ pair - np.eye(2)).max())
    digits = next((n for n in _FEW_DIGITS if np.abs(orientation - np.round(orientation, n)).max() < _EXACT), None)
    half = 0.0 if digits is None or off <= _EXACT else 0.5 * 10.0**-digits
    # Each of two unit vectors has an error of up to half a digit in each number.
    if off > max(ORTHOGONALITY_TOLERANCE, 2 * np.sqrt(3) * half + 3 * half**2):
        raise GeometryError(
            f"the directions of its rows and columns (Image Orientation) are not perpendicular unit vectors, by "
            f"{off:.2g}: more than rounding explains. Export the original series again, or choose another one."
        )
    axes = written_axes(orientation)
    if not half:
        return axes, []
    error = np.sqrt(6) * half
    heights = positions_lps_mm @ axes[:, 2]
    step = positions_lps_mm[np.argmax(heights)] - positions_lps_mm[np.argmin(heights)]
    length = float(np.linalg.norm(step))
    turn = np.cross(axes[:, 2], step / length) if length else np.zeros(3)
    sine = float(np.linalg.norm(turn))
    if 0 < sine <= error:
        axes = rotation_matrix(turn, float(np.degrees(np.arcsin(sine)))) @ axes
        error = np.sqrt(3) * half
    return axes, [
        f"the header gives the directions of rows and columns (Image Orientation) with {digits} digits only: the "
        f"volume may be turned by up to {np.degrees(error):.2g} degrees."
    ]


def written_axes(orientation: FloatArray) -> FloatArray:
    """Return the unit directions of i, j and the normal (columns) as the header gives them, if rounded, made square."""
    row, column = orientation[:3], orientation[3:]
    return orthonormalised(np.column_stack([row, column, np.cross(row, column)]), tolerance=np.inf)


def _check_heights(heights: FloatArray) -> None:
    gaps = np.diff(heights)
    usual = float(np.median(gaps))
    if heights[-1] < _POSITION_TOLERANCE_MM:
        raise GeometryError(
            f"all of its {len(heights)} slices have one position, so nothing says which way they go. Export them again "
            "as single-frame DICOM, or convert them to NIfTI with dcm2niix."
        )
    close = int((gaps < max(0.01, 0.05 * usual)).sum())
    if close:
        raise GeometryError(
            f"{close} of its {len(heights)} slices have the same position as another: several time points, echoes or "
            "reconstructions in one series. Export one of them as a series of its own, or take them apart with "
            "dcm2niix."
        )
    if gaps.max() > _LARGEST_GAP * usual:
        k = int(np.argmax(gaps))
        raise GeometryError(
            f"slices are missing: between slice {k + 1} and {k + 2} of {len(heights)} is a gap of {gaps.max():.2f} mm, "
            f"where {usual:.2f} mm is usual, too much to fill in. Copy or export the whole series again."
        )


def _straightened(
    pixels: npt.NDArray[np.float32], local: FloatArray, spacing_ij: tuple[float, float]
) -> tuple[npt.NDArray[np.float32], FloatArray, str]:
    """Shift slices in their plane until they lie straight above each other; return also the new first pixel (i, j)."""
    shift, rise = local[-1, :2] - local[0, :2], local[-1, 2] - local[0, 2]
    tilt = float(np.degrees(np.arctan2(np.linalg.norm(shift), rise)))
    offsets = local[:, :2] / np.asarray(spacing_ij)  # pixels along i and j
    low, high = np.floor(offsets.min(axis=0)), np.ceil(offsets.max(axis=0))
    widest = np.linalg.norm((high - low) * spacing_ij)
    if tilt > LARGEST_TILT_DEG or widest > np.tan(np.radians(LARGEST_TILT_DEG)) * rise + 10:
        raise GeometryError(
            f"its slices are not stacked above each other: they are shifted sideways by up to {widest:.0f} mm over "
            f"a height of {rise:.0f} mm, more than any gantry tilt. Export the original series again."
        )
    result, low = shifted_back(pixels, offsets)
    return result, low, note_on_tilt(tilt, float(pixels.min()))


def _evened(pixels: npt.NDArray[np.float32], heights: FloatArray) -> tuple[npt.NDArray[np.float32], float, list[str]]:
    """Return slices at even distances, their distance in mm, and a note if that took interpolation."""
    last = len(heights) - 1
    rise = float(heights[-1])
    if np.abs(heights - np.linspace(0, rise, last + 1)).max() <= _POSITION_TOLERANCE_MM:
        return pixels, rise / last, []
    gaps = np.diff(heights)
    # As fine as the finest slices, so that nothing is lost where they are dense; but one close pair does not decide.
    usual = float(np.median(gaps))
    finest = max(float(gaps.min()), usual / 4)
    # Positions that are only rounded or jittered keep their number of slices.
    is_jitter = gaps.min() > _JITTER * usual and gaps.max() < (2 - _JITTER) * usual
    count = len(heights) if is_jitter else round(rise / finest) + 1
    wanted = np.linspace(0, rise, count)
    below = np.clip(np.searchsorted(heights, wanted, side="right") - 1, 0, last - 1)
    part = ((wanted - heights[below]) / gaps[below]).astype(np.float32)[:, None, None]
    result = np.empty((count, *pixels.shape[1:]), np.float32)
    for k in range(count):
        result[k] = (1 - part[k]) * pixels[below[k]] + part[k] * pixels[below[k] + 1]
    spacing = rise / (count - 1)
    missing = "" if is_jitter else "; slices may be missing"
    note = (
        f"the slices are unevenly spaced ({gaps.min():.2f} to {gaps.max():.2f} mm{missing}): "
        f"{len(heights)} slices were interpolated linearly onto {count} slices, {spacing:.2f} mm apart."
    )
    return result, spacing, [note]
