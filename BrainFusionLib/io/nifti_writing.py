"""NIfTI files written with numpy: one file, plain or compressed, or a pair of header and voxels."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from BrainFusionLib.geometry import RAS_FROM_LPS, FloatArray, Grid
from BrainFusionLib.io.nifti_layout import NIFTI1
from BrainFusionLib.io.suffixes import suffix_of, with_suffix
from BrainFusionLib.io.voxels import storable, write_gzipped, write_plain
from BrainFusionLib.io.writing import atomic_output
from BrainFusionLib.volume import Volume


def write_nifti(volume: Volume, path: Path) -> None:
    """Write a ``.nii`` or ``.nii.gz`` file, whole or not at all; positions are float32 (1e-5 mm in a head).

    Raises
    ------
    ImageFileError
        See `atomic_output`.
    """
    voxels = storable(volume.array_kji)
    header = nifti_header(volume.grid, voxels.dtype, pair=False)
    with atomic_output(path) as temporary:
        if suffix_of(path).endswith(".gz"):
            write_gzipped(temporary, b"", header, voxels)
        else:
            write_plain(temporary, header, voxels)


def write_pair(volume: Volume, path: Path) -> None:
    """Write an ``.hdr`` and an ``.img`` file, whichever of the two `path` names, both or neither.

    The header is NIfTI's, which readers of Analyze 7.5 understand, too: true Analyze cannot say which side is left.

    Raises
    ------
    ImageFileError
        See `atomic_output`.
    """
    voxels = storable(volume.array_kji)
    # The voxels are renamed first (the inner of two): a header without voxels never stands alone.
    with (
        atomic_output(with_suffix(path, ".hdr")) as header_file,
        atomic_output(with_suffix(path, ".img")) as voxel_file,
    ):
        header_file.write_bytes(nifti_header(volume.grid, voxels.dtype, pair=True))
        write_plain(voxel_file, b"", voxels)


def nifti_header(grid: Grid, dtype: np.dtype[Any], *, pair: bool) -> bytes:
    """Return the NIfTI-1 header that goes before the voxels, or, with `pair`, into the ``.hdr`` file.

    The pair's header has Analyze 7.5's layout, so that a reader of Analyze finds size, spacing and voxels; the
    NIfTI fields in it hold the orientation, which true Analyze cannot. Numbers are float32 in this format: positions
    come back to about 1e-7 of their value (1e-5 mm in a head).

    Parameters
    ----------
    grid
        Where the voxels are.
    dtype
        Little-endian type of the voxels, int16 or float32.
    pair
        Whether the voxels go to a file of their own.
    """
    ras_from_ijk = RAS_FROM_LPS @ grid.lps_from_ijk
    rotation = RAS_FROM_LPS[:3, :3] @ grid.direction
    left_handed = np.linalg.det(rotation) < 0
    header = np.zeros(1, NIFTI1.newbyteorder("<"))
    fields = header[0]
    fields["sizeof_hdr"] = 348
    fields["extents"], fields["regular"] = 16384, b"r"
    fields["dim"] = [3, *grid.size_ijk, 1, 1, 1, 1]
    fields["datatype"] = {"i2": 4, "f4": 16}[dtype.str[1:]]
    fields["bitpix"] = 8 * dtype.itemsize
    fields["pixdim"] = [-1 if left_handed else 1, *grid.spacing_ijk_mm, 0, 0, 0, 0]
    fields["vox_offset"] = 0 if pair else 352
    fields["scl_slope"] = 1
    fields["xyzt_units"] = 2
    fields["descrip"] = b"BrainFusion: for research and planning review, not for diagnosis"
    fields["qform_code"] = fields["sform_code"] = 1
    fields["quatern"] = _quaternion(rotation * [1, 1, -1 if left_handed else 1])[1:]
    fields["qoffset"] = ras_from_ijk[:3, 3]
    fields["srow"] = ras_from_ijk[:3]
    fields["magic"] = b"ni1" if pair else b"n+1"
    return header.tobytes() + (b"" if pair else bytes(4))  # four zeros: no extensions follow


def _quaternion(rotation: FloatArray) -> FloatArray:
    """Return the unit quaternion (a, b, c, d), a >= 0, of a 3x3 rotation.

    Source: Bar-Itzhack, J. Guidance 2000: the eigenvector of the largest eigenvalue of a symmetric matrix, well
    conditioned at every angle.
    """
    (xx, xy, xz), (yx, yy, yz), (zx, zy, zz) = rotation
    symmetric = np.array(
        [
            [xx + yy + zz, zy - yz, xz - zx, yx - xy],
            [zy - yz, xx - yy - zz, yx + xy, xz + zx],
            [xz - zx, yx + xy, yy - xx - zz, zy + yz],
            [yx - xy, xz + zx, zy + yz, zz - xx - yy],
        ]
    )
    vector: FloatArray = np.linalg.eigh(symmetric)[1][:, -1]
    return vector if vector[0] >= 0 else -vector
