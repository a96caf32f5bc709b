"""Transforms in ITK's text files: from points of the MRI to points of the CT, LPS mm."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Literal, overload

import numpy as np

from BrainFusionLib.errors import GeometryError, ImageFileError, Remedy
from BrainFusionLib.geometry import ORTHOGONALITY_TOLERANCE, affine
from BrainFusionLib.io.itk_transforms import read_itk_matrix
from BrainFusionLib.io.reading import COPY_AGAIN, naming
from BrainFusionLib.io.suffixes import suffix_of
from BrainFusionLib.io.writing import write_text
from BrainFusionLib.transform import AffineTransform, RigidTransform, Transform

TRANSFORM_SUFFIXES = (".tfm", ".txt")
# If affine transforms are accepted, only what is rigid up to the rounding of single precision is read as rigid.
_RIGID_UP_TO_ROUNDING = 1e-6


def write_transform(transform: Transform, path: str | os.PathLike[str]) -> None:
    """Write a transform as ITK's text format, which Slicer and ITK read: it maps MRI points to CT points, LPS mm.

    Parameters
    ----------
    transform
        Rigid or affine; written as an affine with its centre at the origin, numbers to 17 digits.
    path
        Ends in ``.tfm`` or ``.txt``.

    Raises
    ------
    ImageFileError
        Another ending, or see `atomic_output`.
    """
    path = Path(path)
    if suffix_of(path) not in TRANSFORM_SUFFIXES:
        raise ImageFileError(
            f"{path}: a transform cannot be written as '{suffix_of(path)}'. Use a name that ends in .tfm."
        )
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
def read_transform(path: str | os.PathLike[str], rigid: Literal[True] = True) -> RigidTransform: ...
@overload
def read_transform(path: str | os.PathLike[str], rigid: bool) -> Transform: ...
def read_transform(path: str | os.PathLike[str], rigid: bool = True) -> Transform:
    """Read a transform from an ITK text file: Euler, versor, translation, affine and the like, or several of them.

    Parameters
    ----------
    path
        Ends in ``.tfm`` or ``.txt``.
    rigid
        Whether it has to be rigid. If not, one that scales or shears comes as an `AffineTransform`.

    Raises
    ------
    ImageFileError
        The file is missing, damaged, cut short, or not an ITK transform file; or its numbers are not those of its kind.
    GeometryError
        The transform is 2D, not linear (B-spline, displacement field), mirrors, or scales or shears and must be rigid.
    """
    path = Path(path)
    wanted_kind = "a rigid" if rigid else "a linear"
    with naming(path), np.errstate(over="ignore", invalid="ignore"):
        if suffix_of(path) not in TRANSFORM_SUFFIXES:
            raise ImageFileError(
                f"{path}: is not an ITK transform file (.tfm or .txt). In Slicer, save the transform as .tfm."
            )
        matrix = read_itk_matrix(path, wanted_kind)
        if not np.isfinite(matrix).all():
            raise ImageFileError(f"{path}: its numbers are too large for a transform. {COPY_AGAIN}")
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
