"""FreeSurfer's volumes (.mgh, and .mgz, which is the same gzipped), read with numpy.

Source: FreeSurfer's description of the format. Numbers are big-endian, positions RAS mm; behind the voxels stand tags
of any length, which hold the history of the file and nothing that is needed here.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from BrainFusionLib.errors import ImageFileError
from BrainFusionLib.geometry import RAS_FROM_LPS, FloatArray, affine
from BrainFusionLib.io.budget import refuse_too_large
from BrainFusionLib.io.reading import OTHER_FILE, naming, refuse_bad_spacing, three_sizes
from BrainFusionLib.io.unpacking import is_gzip, put_as_floats, read_span, read_start
from BrainFusionLib.tilt import check_axes, placed
from BrainFusionLib.volume import Volume

_HEADER = np.dtype(
    [
        ("version", ">i4"), ("sizes", ">i4", 4), ("type", ">i4"), ("dof", ">i4"), ("good_ras", ">i2"),
        ("spacing", ">f4", 3), ("axes", ">f4", (3, 3)), ("centre", ">f4", 3),
    ]
)  # fmt: skip
_VOXELS_START = 284
_TYPES = {0: "u1", 1: ">i4", 3: ">f4", 4: ">i2", 10: ">u2"}
# Coronal slices: what FreeSurfer takes where the header gives no orientation.
_CORONAL = np.array([[-1.0, 0, 0], [0, 0, -1], [0, 1, 0]])
_NO_AXES = "the header gives no orientation: coronal slices at the world's origin were assumed, as FreeSurfer does."


def read_mgh(path: Path) -> Volume:
    """Read a volume of FreeSurfer, plain or gzipped.

    Raises
    ------
    ImageFileError
        The file is damaged, cut short, not of this kind, not 3D, or holds several values per voxel.
    GeometryError
        Zero spacing, or sheared axes.
    """
    with naming(path):
        header = _read_header(path)
        size = three_sizes(path, header["sizes"].tolist())
        dtype = np.dtype(_TYPES[int(header["type"])])
        lps_from_ijk, notes = _affine(header, size)
        check_axes(lps_from_ijk, size)
        refuse_too_large(path, size, dtype.itemsize)
        count = size[0] * size[1] * size[2] * dtype.itemsize
        floats = np.empty(size[0] * size[1] * size[2], np.float32)
        if is_gzip(path):
            raw, _ = read_span(path, count, packing="gzip", skip=_VOXELS_START, tags_follow=True, floats=floats)
        else:
            raw, _ = read_span(path, count, start=_VOXELS_START, tags_follow=True, floats=floats)
        put_as_floats(floats, raw.view(dtype))
        array = floats.reshape(size[::-1])
    return placed(array, lps_from_ijk, name=path.name, notes=notes)


def mgh_size(path: Path) -> tuple[int, int, int]:
    """Return the size (i, j, k) that the header gives.

    Raises
    ------
    ImageFileError
        The header cannot be read, or is not that of a 3D volume.
    """
    with naming(path):
        return three_sizes(path, _read_header(path)["sizes"].tolist())


def _read_header(path: Path) -> np.void:
    raw = read_start(path, _HEADER.itemsize)
    if len(raw) < _HEADER.itemsize or raw[:4] != b"\0\0\0\1":
        raise ImageFileError(f"{path}: is not a FreeSurfer volume: it has the wrong name, or is damaged. {OTHER_FILE}")
    header: np.void = np.frombuffer(raw, _HEADER, 1)[0]
    if int(header["type"]) not in _TYPES:
        raise ImageFileError(
            f"{path}: one number per voxel is needed, but the file holds values of type {int(header['type'])}. Convert "
            "it to gray values first (mri_convert)."
        )
    return header


def _affine(header: np.void, size: tuple[int, int, int]) -> tuple[FloatArray, tuple[str, ...]]:
    """Return voxel indices to LPS mm, and notes; the header's position is that of index size/2."""
    notes: tuple[str, ...] = ()
    if int(header["good_ras"]) > 0:
        spacing, axes = np.array(header["spacing"], np.float64), np.array(header["axes"], np.float64)
        centre = np.array(header["centre"], np.float64)
    else:
        spacing, axes, centre, notes = np.ones(3), _CORONAL, np.zeros(3), (_NO_AXES,)
    refuse_bad_spacing(spacing.tolist())
    linear = axes.T * spacing
    matrix: FloatArray = RAS_FROM_LPS @ affine(linear, centre - linear @ (np.array(size) / 2))
    if not np.isfinite(matrix).all():
        raise ValueError("a direction or a position is not a number")
    return matrix, notes
