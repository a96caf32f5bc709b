"""The binary headers of NIfTI and Analyze 7.5: only the fields that are used."""

from __future__ import annotations

from typing import Any

import numpy as np


def _layout(itemsize: int, **fields: tuple[int, str]) -> np.dtype[Any]:
    offsets = [offset for offset, _ in fields.values()]
    formats = [kind for _, kind in fields.values()]
    return np.dtype({"names": list(fields), "formats": formats, "offsets": offsets, "itemsize": itemsize})


# Analyze 7.5 and SPM's additions to it, then NIfTI-1 and NIfTI-2 (nifti1.h, nifti2.h).
ANALYZE = _layout(
    348,
    sizeof_hdr=(0, "i4"),
    extents=(32, "i4"),
    regular=(38, "S1"),
    dim=(40, "8i2"),
    datatype=(70, "i2"),
    bitpix=(72, "i2"),
    pixdim=(76, "8f4"),
    vox_offset=(108, "f4"),
    scl_slope=(112, "f4"),
    scl_inter=(116, "f4"),
    cal_max=(124, "f4"),
    cal_min=(128, "f4"),
    glmax=(140, "i4"),
    glmin=(144, "i4"),
    orient=(252, "u1"),
    origin=(253, "5i2"),
    magic=(344, "S4"),
)
NIFTI1 = _layout(
    348,
    sizeof_hdr=(0, "i4"),
    extents=(32, "i4"),
    regular=(38, "S1"),
    dim=(40, "8i2"),
    datatype=(70, "i2"),
    bitpix=(72, "i2"),
    pixdim=(76, "8f4"),
    vox_offset=(108, "f4"),
    scl_slope=(112, "f4"),
    scl_inter=(116, "f4"),
    xyzt_units=(123, "u1"),
    descrip=(148, "S80"),
    qform_code=(252, "i2"),
    sform_code=(254, "i2"),
    quatern=(256, "3f4"),
    qoffset=(268, "3f4"),
    srow=(280, "(3,4)f4"),
    magic=(344, "S4"),
)
NIFTI2 = _layout(
    540,
    sizeof_hdr=(0, "i4"),
    magic=(4, "S8"),
    datatype=(12, "i2"),
    dim=(16, "8i8"),
    pixdim=(104, "8f8"),
    vox_offset=(168, "i8"),
    scl_slope=(176, "f8"),
    scl_inter=(184, "f8"),
    qform_code=(344, "i4"),
    sform_code=(348, "i4"),
    quatern=(352, "3f8"),
    qoffset=(376, "3f8"),
    srow=(400, "(3,4)f8"),
    xyzt_units=(500, "i4"),
)


def is_nifti(start: bytes) -> bool:
    """Return whether a file begins as NIfTI in one file does, by its first 348 bytes."""
    return start[344:348] == b"n+1\0" or start[4:8] == b"n+2\0"
