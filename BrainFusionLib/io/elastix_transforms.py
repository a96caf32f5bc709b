"""Linear transforms of elastix: its parameter files, in their own form or in TOML, and the initial ones beside them."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from BrainFusionLib.errors import GeometryError, ImageFileError, Remedy
from BrainFusionLib.geometry import FloatArray, Grid
from BrainFusionLib.io.itk_transforms import ItkTransform, composed
from BrainFusionLib.io.other_transforms import Between, Maps, directed, maps_by_grids, read_text
from BrainFusionLib.io.reading import SAVE_AGAIN, SAVE_OR_COPY
from BrainFusionLib.io.text_headers import brief, numbers

_ELASTIX = re.compile(r'\(\s*(\w+)((?:\s+(?:"[^"]*"|[^\s()"]+))*)\s*\)')
_ELASTIX_KINDS = {
    "EulerTransform": "Euler3DTransform", "SimilarityTransform": "Similarity3DTransform",
    "AffineTransform": "AffineTransform", "TranslationTransform": "TranslationTransform",
}  # fmt: skip
_MOST_CHAINED = 10


def is_elastix(text: str) -> bool:
    """Return whether a text is that of elastix's parameters of a transform, in its own form or in TOML (5.3 on)."""
    return re.search(r'^[ \t]*(\([ \t]*Transform[ \t]+"|Transform[ \t]*=)', text, re.MULTILINE) is not None


def read_elastix(path: Path, text: str, between: Between, depth: int = 0) -> FloatArray:
    """Return the transform of elastix's parameter file, with the initial transforms that it names beside it.

    Raises
    ------
    ImageFileError
        It is damaged, or names an initial transform that is missing or elsewhere.
    GeometryError
        It is not linear, or not 3D.
    """
    entries = _elastix_entries(path, text)

    def word(key: str, default: str) -> str:
        return entries.get(key, [default])[0] if entries.get(key, [default]) else default

    def values(key: str) -> list[float]:
        try:
            return numbers(" ".join(entries.get(key, [])))
        except ValueError as error:
            raise ImageFileError(f"{path}: in {key}, {error}. {SAVE_OR_COPY}") from error

    kind = word("Transform", "")
    dimensions = {word("FixedImageDimension", "3"), word("MovingImageDimension", "3")}
    if kind not in _ELASTIX_KINDS or dimensions != {"3"}:
        raise GeometryError(
            f"a linear 3D transform is needed, but this is elastix's {brief(kind)}"
            f"{'' if dimensions == {'3'} else ' of other dimensions'}. Harden it into the volume, or give a linear one."
        )
    if word("UseDirectionCosines", "true") != "true":
        raise ImageFileError(
            f"{path}: was made without direction cosines, so positions in it are not the patient's. "
            "Register again with UseDirectionCosines."
        )
    parameters, centre = values("TransformParameters"), values("CenterOfRotationPoint")
    if len(parameters) != int(float(word("NumberOfParameters", str(len(parameters))))):
        raise ImageFileError(f"{path}: holds another number of parameters than it says. {SAVE_AGAIN}")
    fixed = [] if kind == "TranslationTransform" else centre or [0.0] * 3
    if kind == "EulerTransform":
        fixed = [*fixed, 1.0 if word("ComputeZYX", "false") == "true" else 0.0]
    matrix = composed(path, [ItkTransform(_ELASTIX_KINDS[kind], parameters, fixed)])
    beside = initial_of(path, text)
    if beside is not None:
        if depth >= _MOST_CHAINED or word("HowToCombineTransforms", "Compose") != "Compose":
            raise ImageFileError(f"{path}: its initial transforms cannot be composed. Export it as one transform.")
        if not beside.exists():
            raise ImageFileError(f"{path}: {brief(beside.name)}, its initial transform, is missing beside it.")
        matrix = matrix @ read_elastix(beside, read_text(beside), Between(), depth + 1)
    return matrix if depth else directed(matrix, _elastix_maps(path, entries, between))


def initial_of(path: Path, text: str) -> Path | None:
    """Return the file of the initial transform that elastix's parameter file names: it is looked for beside it."""
    none = ["NoInitialTransform"]
    named = _elastix_entries(path, text)
    older = named.get("InitialTransformParametersFileName")
    name = (named.get("InitialTransformParameterFileName", older) or none)[0]
    return None if name == none[0] else path.with_name(re.split(r"[\\/]", name)[-1])


def _elastix_entries(path: Path, text: str) -> dict[str, list[str]]:
    """Return the words of each parameter.

    Raises
    ------
    ImageFileError
        The file has the form of TOML, and is damaged.
    """
    if re.search(r"^[ \t]*\(", text, re.MULTILINE):
        return {match[1]: _elastix_values(match[2]) for match in _ELASTIX.finditer(text)}
    try:
        table = tomllib.loads(text.replace("\r\n", "\n"))
    except (ValueError, RecursionError) as error:
        raise ImageFileError(f"{path}: these parameters of elastix are damaged ({error}). {SAVE_OR_COPY}") from error
    lists = {name: value if isinstance(value, list) else [value] for name, value in table.items()}
    return {
        name: [str(word).lower() if isinstance(word, bool) else str(word) for word in words]
        for name, words in lists.items()
    }


def _elastix_values(text: str) -> list[str]:
    return [quoted or plain for quoted, plain in re.findall(r'"([^"]*)"|([^\s"]+)', text)]


def _elastix_maps(path: Path, entries: Mapping[str, Sequence[str]], between: Between) -> Maps:
    """Return the direction of elastix's transform, from fixed to moving points: the grid in it is the fixed image's."""
    if between.maps is not None:
        return between.maps
    if between.ct is None or between.mri is None:  # as it is usual: the CT was registered to the MRI
        return "mri-to-ct"
    try:
        size, spacing, origin = (numbers(" ".join(entries[key])) for key in ("Size", "Spacing", "Origin"))
        columns = np.array(numbers(" ".join(entries.get("Direction", list("100010001"))))).reshape(3, 3)
        grid = Grid(
            (int(size[0]), int(size[1]), int(size[2])), (spacing[0], spacing[1], spacing[2]),
            (origin[0], origin[1], origin[2]), columns.T,
        )  # fmt: skip
    except (KeyError, ValueError, IndexError):
        grid = None
    maps = maps_by_grids(grid, None, between)
    if maps is None:
        raise ImageFileError(
            f"{path}: the grid of the fixed image in elastix's file is not that of just one of CT and MRI, so nothing "
            "says in which direction it maps.",
            remedy=Remedy.STATE_DIRECTION,
        )
    return maps
