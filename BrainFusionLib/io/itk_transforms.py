"""ITK's files of transforms (text, MATLAB, HDF5): every number counted before ITK is given any.

ITK takes what its kind of transform needs from where the numbers should be: of a line with too few it reads what stands
in memory behind them, or ends the process.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from BrainFusionLib.errors import BrainFusionError, GeometryError, ImageFileError
from BrainFusionLib.geometry import FloatArray, affine
from BrainFusionLib.io.hdf5 import Hdf5File
from BrainFusionLib.io.mat_files import read_mat_list
from BrainFusionLib.io.reading import COPY_AGAIN, SAVE_AGAIN, SAVE_OR_COPY, open_regular
from BrainFusionLib.io.text_headers import brief, numbers

if TYPE_CHECKING:
    import SimpleITK as sitk

MARK = b"#Insight Transform File"
# A hundred linear transforms; fields of displacements are longer.
_LONGEST = 1 << 20
GIVE_LINEAR = "Give a linear one."
_KIND = re.compile(r"(\w+?)_(?:double|float)_(\d+)_(\d+)")
_COMPOSITE = "CompositeTransform"
_HDF5_GROUP = "TransformGroup"


@dataclass(frozen=True)
class _Kind:
    """What SimpleITK calls a kind, how many parameters it has, and how many fixed ones it may have."""

    itk: str
    parameters: int
    fixed: tuple[int, ...] = (3,)


_KINDS = {
    "AffineTransform": _Kind("sitkAffine", 12),
    "MatrixOffsetTransformBase": _Kind("sitkAffine", 12),
    "Euler3DTransform": _Kind("sitkEuler", 6, (3, 4)),
    "VersorTransform": _Kind("sitkVersor", 3),
    "VersorRigid3DTransform": _Kind("sitkVersorRigid", 6),
    "QuaternionRigidTransform": _Kind("sitkQuaternionRigid", 7),
    "Similarity3DTransform": _Kind("sitkSimilarity", 7),
    "ScaleTransform": _Kind("sitkScale", 3),
    "ScaleLogarithmicTransform": _Kind("sitkScaleLogarithmic", 3),
    "ScaleVersor3DTransform": _Kind("ScaleVersor3DTransform", 9),
    "ScaleSkewVersor3DTransform": _Kind("sitkScaleSkewVersor", 15),
    "ComposeScaleSkewVersor3DTransform": _Kind("ComposeScaleSkewVersor3DTransform", 12),
    "TranslationTransform": _Kind("sitkTranslation", 3, (0, 3)),
    "IdentityTransform": _Kind("sitkIdentity", 0, (0, 3)),
}


@dataclass
class _Block:
    """One transform of a file: its kind, and the lines with its numbers where they have come."""

    kind: str
    parameters: str | None = None
    fixed: str | None = None


@dataclass(frozen=True)
class ItkTransform:
    """One linear transform: its kind, by ITK's name without types, and its numbers."""

    kind: str
    parameters: Sequence[float]
    fixed: Sequence[float]


def composed(path: Path, transforms: Sequence[ItkTransform]) -> FloatArray:
    """Return the 4x4 matrix of transforms composed as ITK does in a composite: the last one is applied first.

    Raises
    ------
    ImageFileError
        One has too few or too many numbers.
    """
    matrix = np.eye(4)
    for transform in transforms:
        matrix = matrix @ _matrix(path, transform)
    return matrix


def read_mat_matrix(path: Path, wanted: str) -> FloatArray:
    """Read ITK's transforms in a MATLAB file (ANTs): for each its parameters under its kind's name, then `fixed`.

    Raises
    ------
    ImageFileError, GeometryError
        As `read_itk_matrix`.
    """
    found: list[ItkTransform] = []
    waiting: tuple[str, list[float]] | None = None
    for name, values in read_mat_list(path):
        numbers_there = values.ravel(order="F").tolist()
        if name == "fixed" and waiting is not None:
            found.append(ItkTransform(waiting[0], waiting[1], numbers_there))
            waiting = None
        elif waiting is None:
            if _KIND.fullmatch(name) is None:
                raise ImageFileError(
                    f"{path}: is a MATLAB file, but not of ITK or ANTs: it holds {brief(name)} (SPM's?). Save the "
                    "transform as a 4x4 matrix in text."
                )
            waiting = (_checked_kind(path, name, wanted), numbers_there)
            if waiting[0] == _COMPOSITE:  # with the numbers of its last part: ITK leaves out the others
                raise ImageFileError(f"{path}: a MATLAB file cannot hold a composite. Save it again as .tfm or .h5.")
        else:
            raise ImageFileError(f"{path}: a transform has no fixed parameters. {SAVE_OR_COPY}")
    if waiting is not None or not found:
        raise ImageFileError(f"{path}: holds no whole transform of ITK or ANTs. {SAVE_AGAIN}")
    return composed(path, found)


def read_hdf5_matrix(path: Path, wanted: str) -> FloatArray:
    """Read ITK's transforms in an HDF5 file.

    Raises
    ------
    ImageFileError, GeometryError
        As `read_itk_matrix`.
    """
    try:
        file = Hdf5File(path)
        found = []
        names = file.names(_HDF5_GROUP)
        for name in sorted(names, key=lambda text: (len(text), text)):
            kind = _checked_kind(path, file.text(_HDF5_GROUP, name, "TransformType"), wanted)
            if kind == _COMPOSITE:
                continue
            # Early versions of ITK wrote these names so.
            spelling = "Transform" if "TransformParameters" in file.names(_HDF5_GROUP, name) else "Tranform"
            numbers_there = [
                file.numbers(_HDF5_GROUP, name, f"{spelling}{what}") for what in ("Parameters", "FixedParameters")
            ]
            found.append(ItkTransform(kind, *numbers_there))
    except ValueError as error:
        if isinstance(error, BrainFusionError):
            raise
        raise ImageFileError(
            f"{path}: this HDF5 file is not read as a transform ({error}). Save it as .tfm, for example in Slicer."
        ) from error
    if not found:
        raise ImageFileError(f"{path}: holds no transform. Save it again, for example as .tfm in Slicer.")
    return composed(path, found)


def without_mark(content: bytes) -> bytes:
    """Return the content of a text file without the mark of UTF-8 and blank lines, which editors put before it."""
    return content.removeprefix(b"\xef\xbb\xbf").lstrip(b"\r\n")


def read_itk_matrix(path: Path, wanted: str) -> FloatArray:
    """Read a file of one or several linear transforms.

    Several, with or without a composite before them, are composed as ITK composes those of a composite: the last one is
    applied to a point first.

    Parameters
    ----------
    path
        The file.
    wanted
        What kind is needed, for the message: "a rigid" or "a linear".

    Returns
    -------
    FloatArray
        4x4, from fixed points to moving points, LPS mm.

    Raises
    ------
    ImageFileError
        It is not such a file, cut short, or has too few or too many numbers, or some that are none.
    GeometryError
        A transform is not linear, or not 3D.
    """
    with open_regular(path) as stream:
        content = without_mark(stream.read(_LONGEST + 1))
    if not content.startswith(MARK):
        raise ImageFileError(
            f"{path}: is not an ITK transform file (.tfm or .txt). In Slicer, save the transform as .tfm."
        )
    blocks = _blocks(path, content.decode("latin-1"), wanted)
    if len(content) > _LONGEST:
        raise ImageFileError(f"{path}: is longer than {_LONGEST} bytes, so it is not a linear transform. {GIVE_LINEAR}")
    # ITK takes half a last number for a whole one.
    lacking = any(None in (b.parameters, b.fixed) for b in blocks)
    if content.endswith(b"\n") and (lacking or not blocks):
        raise ImageFileError(
            f"{path}: lacks {'a line of Parameters or FixedParameters' if blocks else 'its transform'}. {SAVE_OR_COPY}"
        )
    if lacking or not content.endswith(b"\n"):
        raise ImageFileError(
            f"{path}: the transform file may be cut short: its last line does not end. {COPY_AGAIN} If it is whole, "
            "add a line break to its end."
        )
    return composed(path, [_transform_of(path, block) for block in blocks])


def _transform_of(path: Path, block: _Block) -> ItkTransform:
    values = []
    for name, text in (("Parameters", block.parameters), ("FixedParameters", block.fixed)):
        try:
            values.append(numbers(text or ""))
        except ValueError as error:
            raise ImageFileError(f"{path}: in {name}, {error}. {SAVE_OR_COPY}") from error
    return ItkTransform(block.kind, *values)


def _blocks(path: Path, text: str, wanted: str) -> list[_Block]:
    """Return the transforms of a file, without the line of a composite."""
    found: list[_Block] = []
    is_first = True
    for number, line in enumerate(text.splitlines(), 1):
        key, _, value = line.strip().partition(":")
        if key == "Transform":
            name = _checked_kind(path, value.strip(), wanted)
            if name != _COMPOSITE:
                found.append(_Block(name))
            elif not is_first:
                raise ImageFileError(f"{path}: has a composite inside another. Save it as one linear transform.")
            is_first = False
        elif key in ("Parameters", "FixedParameters") and found:
            name = "parameters" if key == "Parameters" else "fixed"
            if getattr(found[-1], name) is not None:
                raise ImageFileError(f"{path}: transform {len(found)} has two lines of {key}. {SAVE_AGAIN}")
            setattr(found[-1], name, value)
        elif line.strip() and not line.startswith("#"):
            raise ImageFileError(
                f"{path}: line {number}, {brief(line)}, is not one of a transform file. {SAVE_OR_COPY}"
            )
    return found


def _checked_kind(path: Path, text: str, wanted: str) -> str:
    """Return the name of a kind.

    Raises
    ------
    ImageFileError
        It is none, perhaps because the file is cut short.
    GeometryError
        It is one of other dimensions, or not linear.
    """
    match = _KIND.fullmatch(text)
    if match is None:
        raise ImageFileError(f"{path}: the kind of a transform is cut short or damaged ({brief(text)}). {SAVE_OR_COPY}")
    name, dimensions = match.group(1), match.group(2)
    if match.groups()[1:] != ("3", "3") or name not in (*_KINDS, _COMPOSITE):
        raise GeometryError(
            f"{wanted} 3D transform is needed, but this is a {dimensions}D {brief(name)}. Harden it into the volume, "
            f"or give {wanted} one."
        )
    return name


def _matrix(path: Path, transform: ItkTransform) -> FloatArray:
    kind = _KINDS[transform.kind]
    for name, values, counts in (
        ("Parameters", transform.parameters, (kind.parameters,)),
        ("FixedParameters", transform.fixed, kind.fixed),
    ):
        if len(values) not in counts:
            raise ImageFileError(
                f"{path}: a transform of the kind {transform.kind} needs {' or '.join(map(str, counts))} {name}, but "
                f"there are {len(values)}. {SAVE_AGAIN}"
            )
        if not np.isfinite(values).all():
            raise ImageFileError(f"{path}: in {name}, a value is not a number. {SAVE_AGAIN}")
    if kind.itk == "sitkAffine":  # most files, ours among them: ITK takes a quarter of a second to load
        linear, centre = np.reshape(transform.parameters[:9], (3, 3)).astype(np.float64), np.asarray(transform.fixed)
        return affine(linear, np.asarray(transform.parameters[9:]) + centre - linear @ centre)
    made = _made(kind, transform)
    shift = np.array(made.TransformPoint((0.0, 0.0, 0.0)))
    columns = [np.array(made.TransformPoint(tuple(axis))) - shift for axis in np.eye(3)]
    return affine(np.column_stack(columns), shift)


def _made(kind: _Kind, transform: ItkTransform) -> sitk.Transform:
    """Return ITK's transform, made of numbers that are as many as it needs."""
    import SimpleITK as sitk

    maker = getattr(sitk, kind.itk)
    made = sitk.Transform(3, maker) if kind.itk.startswith("sitk") else maker()
    if transform.fixed:
        made.SetFixedParameters(list(transform.fixed))
    if transform.parameters:
        made.SetParameters(list(transform.parameters))
    return made
