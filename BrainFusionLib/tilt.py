"""Volumes whose slices are shifted sideways, as a tilted CT gantry makes them, put onto a perpendicular grid.

Such a volume has sheared axes: rows and columns are perpendicular, but from slice to slice it goes on at an angle.
Slicer's DICOM loader keeps it so, and so do NIfTI, NRRD and MetaImage files of tilted series.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from BrainFusionLib.errors import GeometryError
from BrainFusionLib.geometry import ORTHOGONALITY_TOLERANCE, FloatArray, Grid, apply_affine
from BrainFusionLib.volume import Modality, Volume

# CT gantries tilt up to 30 degrees.
LARGEST_TILT_DEG = 40.0
# 700 slices of 0.6 mm with pixels of 0.4 mm become 2.7 times as large; small volumes may grow more.
_MOST_GROWTH, _SMALL_VOXELS = 4, 1 << 22


def placed(
    array_kji: npt.NDArray[np.float32],
    lps_from_ijk: npt.ArrayLike,
    *,
    modality: Modality | None = None,
    name: str = "volume",
    notes: tuple[str, ...] = (),
) -> Volume:
    """Make a volume of voxels and their affine; a gantry tilt is straightened, with a note.

    Parameters
    ----------
    array_kji
        Voxels, shape (k, j, i). Used as they are if the axes are perpendicular.
    lps_from_ijk
        4x4 affine, voxel indices to LPS mm. Rows and columns are perpendicular; slices may be shifted sideways.
    modality, name, notes
        As in `Volume`.

    Raises
    ------
    GeometryError
        The axes are sheared in another way, by more than `LARGEST_TILT_DEG`, or not those of a grid.
    """
    matrix = np.asarray(lps_from_ijk, dtype=np.float64)
    size = (array_kji.shape[2], array_kji.shape[1], array_kji.shape[0])
    tilt_deg = tilt_of(matrix)
    if tilt_deg is None:
        return Volume(array_kji, Grid.from_lps_from_ijk(matrix, size), modality, name, notes)
    spacing = np.linalg.norm(matrix[:3, :2], axis=0)
    axes = matrix[:3, :2] / spacing
    normal = _normal(matrix)
    per_slice = axes.T @ matrix[:3, 2] / spacing  # pixels along i and j
    offsets_ij = np.arange(size[2])[:, None] * per_slice
    array, first_ij = shifted_back(np.asarray(array_kji, dtype=np.float32), offsets_ij)
    straight = matrix.copy()
    straight[:3, 2] = normal * (normal @ matrix[:3, 2])
    straight[:3, 3] = apply_affine(matrix, (*first_ij, 0.0))
    grid = Grid.from_lps_from_ijk(straight, (array.shape[2], array.shape[1], size[2]))
    return Volume(array, grid, modality, name, (*notes, note_on_tilt(tilt_deg, float(_fill_of(array_kji)))))


def tilt_of(lps_from_ijk: FloatArray) -> float | None:
    """Return the angle in degrees by which slices are shifted sideways; ``None`` if it is no gantry tilt."""
    linear = lps_from_ijk[:3, :3]
    lengths = np.linalg.norm(linear, axis=0)
    if not (np.isfinite(linear).all() and (lengths > 0).all()):
        return None
    unit = linear / lengths
    if abs(unit[:, 0] @ unit[:, 1]) > ORTHOGONALITY_TOLERANCE:
        return None
    sideways = float(np.hypot(unit[:, 0] @ unit[:, 2], unit[:, 1] @ unit[:, 2]))
    if np.abs(unit.T @ unit - np.eye(3)).max() <= ORTHOGONALITY_TOLERANCE:
        return None
    tilt = float(np.degrees(np.arcsin(min(1.0, sideways))))
    return tilt if tilt <= LARGEST_TILT_DEG else None


def check_axes(lps_from_ijk: FloatArray, size_ijk: tuple[int, int, int]) -> None:
    """Refuse what `placed` would refuse, before the voxels are read.

    Raises
    ------
    GeometryError
        As `placed`.
    """
    if tilt_of(lps_from_ijk) is None:
        Grid.from_lps_from_ijk(lps_from_ijk, size_ijk)


def shifted_back(pixels: npt.NDArray[np.float32], offsets_ij: FloatArray) -> tuple[npt.NDArray[np.float32], FloatArray]:
    """Shift slices in their plane until they lie straight above each other, by linear interpolation.

    Parameters
    ----------
    pixels
        Shape (slices, rows, columns).
    offsets_ij
        Where the first pixel of each slice is, in pixels along i and j, shape (slices, 2).

    Returns
    -------
    tuple
        The slices on one larger canvas, its new border filled with the lowest value, and the canvas's first pixel
        (i, j) in the unit of `offsets_ij`.

    Raises
    ------
    GeometryError
        The canvas would be many times as large as the volume, as no tilt makes it.
    """
    offsets_ij = np.round(offsets_ij, 4)  # what is written rounded shall not cost a column
    low, high = np.floor(offsets_ij.min(axis=0)), np.ceil(offsets_ij.max(axis=0))
    fill = _fill_of(pixels)
    count, rows, columns = pixels.shape
    extent = np.array([columns, rows]) + high - low
    if not extent.prod() * count <= max(_MOST_GROWTH * pixels.size, _SMALL_VOXELS):
        raise GeometryError(
            f"its slices are shifted sideways by up to {(high - low).max():.3g} pixels, more than any gantry tilt. "
            "Export the original series again."
        )
    width, height = extent.astype(int)
    result = np.empty((count, height, width), np.float32)
    for k in range(count):
        whole = np.floor(offsets_ij[k] - low).astype(int)
        part = (offsets_ij[k] - low - whole).astype(np.float32)
        canvas = np.full((height + 1, width + 1), fill, np.float32)  # one pixel more in front, to interpolate from
        canvas[1 + whole[1] : 1 + whole[1] + rows, 1 + whole[0] : 1 + whole[0] + columns] = pixels[k]
        along_j = (1 - part[1]) * canvas[1:] + part[1] * canvas[:-1]
        result[k] = (1 - part[0]) * along_j[:, 1:] + part[0] * along_j[:, :-1]
    return result, low


def note_on_tilt(tilt_deg: float, fill: float) -> str:
    """Say what was done about a tilt."""
    return (
        f"the gantry was tilted by {tilt_deg:.1f} degrees: the slices were shifted onto a perpendicular grid by linear "
        f"interpolation, and the new border filled with the lowest value ({fill:g})."
    )


def _normal(matrix: FloatArray) -> FloatArray:
    """Return the unit normal of the slices, on the side to which they follow each other."""
    normal: FloatArray = np.cross(matrix[:3, 0], matrix[:3, 1])
    normal /= np.linalg.norm(normal)
    return normal if normal @ matrix[:3, 2] > 0 else -normal


def _fill_of(pixels: npt.NDArray[np.float32]) -> np.float32:
    lowest = pixels.min()
    if np.isfinite(lowest):
        return np.float32(lowest)
    finite = pixels[np.isfinite(pixels)]
    return np.float32(finite.min()) if finite.size else np.float32(0)
