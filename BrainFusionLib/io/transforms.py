"""Transforms in files: inside the library from points of the MRI to points of the CT, LPS mm."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Literal, overload

import numpy as np

from BrainFusionLib.arguments import checked
from BrainFusionLib.errors import GeometryError, ImageFileError, Remedy, SettingsError
from BrainFusionLib.geometry import ORTHOGONALITY_TOLERANCE, FloatArray, Grid, affine
from BrainFusionLib.io.dicom_files import looks_like_dicom
from BrainFusionLib.io.dicom_registration import read_dicom_registration
from BrainFusionLib.io.elastix_transforms import initial_of, is_elastix, read_elastix
from BrainFusionLib.io.hdf5 import SIGNATURE
from BrainFusionLib.io.itk_transforms import MARK, read_hdf5_matrix, read_itk_matrix, read_mat_matrix, without_mark
from BrainFusionLib.io.mat_files import is_mat
from BrainFusionLib.io.mni_transforms import is_mni, read_mni
from BrainFusionLib.io.other_transforms import (
    PLAIN_MARKS,
    Between,
    is_lta,
    is_register_dat,
    matrix_of,
    read_lta,
    read_matrix,
    read_text,
)
from BrainFusionLib.io.reading import SAVE_AGAIN, called, exists, naming, open_regular
from BrainFusionLib.io.suffixes import suffix_of
from BrainFusionLib.io.text_headers import as_ending
from BrainFusionLib.io.transform_writing import SUFFIXES, TransformFormat, write_other_transform
from BrainFusionLib.io.writing import write_text
from BrainFusionLib.settings import Side
from BrainFusionLib.transform import AffineTransform, RigidTransform, Transform

TRANSFORM_SUFFIXES = SUFFIXES["itk"]
# The ends of names of transforms that are read; the content says what they are.
READ_TRANSFORM_SUFFIXES = (".tfm", ".txt", ".h5", ".hdf5", ".mat", ".lta", ".xfm", ".dcm", ".toml", ".1d")
_LONGEST_START = 256
# If affine transforms are accepted, only what is rigid up to the rounding of single precision is read as rigid.
_RIGID_UP_TO_ROUNDING = 1e-6


@checked
def write_transform(
    transform: Transform,
    path: str | os.PathLike[str],
    form: TransformFormat = "itk",
    *,
    ct: Grid | None = None,
    mri: Grid | None = None,
    moved: Side = "ct",
) -> None:
    """Write a transform; by default as ITK's text, which Slicer and ITK read: it maps MRI points to CT points, LPS mm.

    Parameters
    ----------
    transform
        Maps MRI points to CT points. Rigid or affine; written as an affine with its centre at the origin, numbers to 17
        digits.
    path
        Ends in one of the format's suffixes (`transform_writing.SUFFIXES`), as ITK's in ``.tfm`` or ``.txt``.
    form
        The format; see `transform_writing.write_other_transform`.
    ct, mri
        Grids of both volumes, for ``lta`` and ``fsl``.
    moved
        Which of the two the file moves onto the other. For ``"mri"`` the inverse is written.

    Raises
    ------
    ImageFileError
        Another ending, or see `atomic_output`.
    SettingsError
        An unknown format, or a grid is needed and missing.
    """
    path = Path(path)
    if form not in SUFFIXES:
        raise SettingsError(f"the format of a transform must be one of {', '.join(SUFFIXES)}; got {form!r}")
    if suffix_of(path) not in SUFFIXES[form]:
        raise ImageFileError(
            f"{called(path)}: a transform cannot be written {as_ending(suffix_of(path))}. Use a name that ends in "
            f"{' or '.join(SUFFIXES[form])}."
        )
    if moved == "mri":
        transform, ct, mri = transform.inverse(), mri, ct
    if form != "itk":
        write_other_transform(transform, path, form, ct, mri, PLAIN_MARKS[moved])
        return
    numbers = [*transform.moving_from_fixed_lps[:3, :3].ravel(), *transform.translation_mm]
    write_text(
        "#Insight Transform File V1.0\n"
        "#Transform 0\n"
        "Transform: AffineTransform_double_3_3\n"
        f"Parameters: {' '.join(f'{n:.17g}' for n in numbers)}\n"
        "FixedParameters: 0 0 0\n",
        path,
    )


@overload
def read_transform(
    path: str | os.PathLike[str], rigid: Literal[True] = True, *, between: Between | None = None
) -> RigidTransform: ...
@overload
def read_transform(path: str | os.PathLike[str], rigid: bool, *, between: Between | None = None) -> Transform: ...
@checked
def read_transform(path: str | os.PathLike[str], rigid: bool = True, *, between: Between | None = None) -> Transform:
    """Read a transform file.

    Formats: ITK's text, MATLAB (ANTs) and HDF5 files, FreeSurfer's .lta, MNI's .xfm, elastix, FSL, a 4x4 matrix, and
    DICOM's Spatial Registration. The content says which it is, not the name. Several transforms in a file are composed.

    Parameters
    ----------
    path
        The file.
    rigid
        Whether it has to be rigid. If not, one that scales or shears comes as an `AffineTransform`.
    between
        What files of some formats do not say: the grids of both volumes (FSL's, .lta), coordinates and direction (4x4),
        the DICOM headers of both (DICOM).

    Raises
    ------
    ImageFileError
        The file is missing, damaged, cut short, or of no known format; its numbers are not those of its kind; or it
        does not say between which coordinates it maps.
    GeometryError
        The transform is 2D, not linear (B-spline, displacement field), mirrors, or scales or shears and must be rigid.
    """
    path = Path(path)
    wanted_kind = "a rigid" if rigid else "a linear"
    with naming(path), np.errstate(over="ignore", invalid="ignore"):
        matrix = _read_matrix(path, wanted_kind, between or Between())
        if not np.isfinite(matrix).all():
            raise ImageFileError(f"{path}: its numbers are too large for a transform. {SAVE_AGAIN}")
        linear, shift = matrix[:3, :3], matrix[:3, 3]
        stretch = float(np.abs(linear.T @ linear - np.eye(3)).max())
        if rigid and not stretch <= ORTHOGONALITY_TOLERANCE:
            raise GeometryError(
                "a rigid transform is needed, but this one scales or shears.", remedy=Remedy.USE_TRANSFORM_AS_IT_IS
            )
        if np.linalg.det(linear) < 0:
            raise GeometryError(
                f"{wanted_kind} transform is needed, but this one mirrors left and right. Give one that does not."
            )
        if not rigid and not stretch <= _RIGID_UP_TO_ROUNDING:
            return AffineTransform(affine(linear, shift))
        return RigidTransform(affine(linear, shift))


def transform_files(path: Path) -> list[Path]:
    """Return all files that reading a transform takes into account: of elastix's, those of its initial transforms.

    Raises
    ------
    ImageFileError
        The file cannot be read.
    """
    found = [path]
    with naming(path):
        while True:
            with open_regular(found[-1]) as stream:
                start = stream.read(_LONGEST_START)
            text = "" if b"\0" in start else read_text(found[-1])
            following = initial_of(found[-1], text) if is_elastix(text) else None
            if following is None or following in found or not exists(following):
                return found
            found.append(following)


def _read_matrix(path: Path, wanted: str, between: Between) -> FloatArray:
    """Return the 4x4 matrix of a file, from MRI points to CT points, LPS mm, by its content."""
    with open_regular(path) as stream:
        start = stream.read(_LONGEST_START)
    if looks_like_dicom(start):
        return read_dicom_registration(path, between.headers, between.maps)
    if without_mark(start).startswith(MARK):
        return read_itk_matrix(path, wanted)
    if start.startswith(SIGNATURE):
        return read_hdf5_matrix(path, wanted)
    if is_mat(start):
        return read_mat_matrix(path, wanted)
    unknown = (
        f"{path}: is not a transform file of a kind that is read: ITK (.tfm, .txt, .h5, .mat), FreeSurfer (.lta), "
        "FSL (.mat), MNI (.xfm), elastix, AFNI (.1D), DICOM (REG) or a 4x4 matrix. In Slicer, save it as .tfm."
    )
    if b"\0" in start:
        raise ImageFileError(unknown)
    text = read_text(path)
    if is_lta(text):
        return read_lta(path, text, between)
    if is_elastix(text):
        return read_elastix(path, text, between)
    if is_register_dat(text):
        raise ImageFileError(
            f"{path}: is a register.dat of FreeSurfer, whose numbers count from the middle of both volumes. Convert "
            "it to LTA with lta_convert, which needs both volumes."
        )
    if is_mni(text):
        return read_mni(path, text, between)
    matrix = matrix_of(text)
    if matrix is None:
        raise ImageFileError(unknown)
    return read_matrix(path, text, matrix, between)
