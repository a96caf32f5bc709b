"""ITK's text files of transforms: every number counted before ITK is given any.

ITK takes what its kind of transform needs from where the numbers should be: of a line with too few it reads what stands
in memory behind them, or ends the process.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from BrainFusionLib.errors import GeometryError, ImageFileError
from BrainFusionLib.geometry import FloatArray, affine
from BrainFusionLib.io.reading import COPY_AGAIN, open_regular
from BrainFusionLib.io.text_headers import brief, numbers

if TYPE_CHECKING:
    import SimpleITK as sitk

MARK = b"#Insight Transform File"
# A hundred linear transforms; fields of displacements are longer.
_LONGEST = 1 << 20
_KIND = re.compile(r"(\w+?)_(?:double|float)_(\d+)_(\d+)")
_COMPOSITE = "CompositeTransform"


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
        content = stream.read(_LONGEST + 1)
    if not content.startswith(MARK):
        raise ImageFileError(
            f"{path}: is not an ITK transform file (.tfm or .txt). In Slicer, save the transform as .tfm."
        )
    blocks = _blocks(path, content.decode("latin-1"), wanted)
    if len(content) > _LONGEST:
        raise ImageFileError(f"{path}: is longer than {_LONGEST} bytes, so it is not a linear transform. {COPY_AGAIN}")
    # ITK takes half a last number for a whole one.
    if not blocks or not content.endswith(b"\n") or any(None in (b.parameters, b.fixed) for b in blocks):
        raise ImageFileError(f"{path}: the transform file is cut short (its last line must end). {COPY_AGAIN}")
    matrix = np.eye(4)
    for block in blocks:
        matrix = matrix @ _matrix(path, block)
    return matrix


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
                raise ImageFileError(f"{path}: transform {len(found)} has two lines of {key}. {COPY_AGAIN}")
            setattr(found[-1], name, value)
        elif line.strip() and not line.startswith("#"):
            raise ImageFileError(f"{path}: line {number}, {brief(line)}, is not one of a transform file. {COPY_AGAIN}")
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
        raise ImageFileError(f"{path}: the kind of a transform is cut short or damaged ({brief(text)}). {COPY_AGAIN}")
    name, dimensions = match.group(1), match.group(2)
    if match.groups()[1:] != ("3", "3") or name not in (*_KINDS, _COMPOSITE):
        raise GeometryError(
            f"{wanted} 3D transform is needed, but this is a {dimensions}D {name}. Harden it into the volume, or give "
            f"{wanted} one."
        )
    return name


def _matrix(path: Path, block: _Block) -> FloatArray:
    transform = _itk_transform(path, block)
    shift = np.array(transform.TransformPoint((0.0, 0.0, 0.0)))
    columns = [np.array(transform.TransformPoint(tuple(axis))) - shift for axis in np.eye(3)]
    return affine(np.column_stack(columns), shift)


def _itk_transform(path: Path, block: _Block) -> sitk.Transform:
    """Return ITK's transform, made of numbers that are as many as it needs."""
    import SimpleITK as sitk

    kind = _KINDS[block.kind]
    values = []
    for name, text, counts in (
        ("Parameters", block.parameters, (kind.parameters,)),
        ("FixedParameters", block.fixed, kind.fixed),
    ):
        try:
            values.append(numbers(text or ""))
        except ValueError as error:
            raise ImageFileError(f"{path}: in {name}, {error}. {COPY_AGAIN}") from error
        if len(values[-1]) not in counts:
            raise ImageFileError(
                f"{path}: a transform of the kind {block.kind} needs {' or '.join(map(str, counts))} {name}, but there "
                f"are {len(values[-1])}. {COPY_AGAIN}"
            )
    made = getattr(sitk, kind.itk)
    transform = sitk.Transform(3, made) if kind.itk.startswith("sitk") else made()
    if values[1]:
        transform.SetFixedParameters(values[1])
    if values[0]:
        transform.SetParameters(values[0])
    return transform
