"""Linear transform files of the MNI's programs (MINC, ``.xfm``), which FreeSurfer and ITK write, too."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np

from BrainFusionLib.errors import GeometryError, ImageFileError, Remedy
from BrainFusionLib.geometry import RAS_FROM_LPS, FloatArray
from BrainFusionLib.io.itk_transforms import GIVE_LINEAR
from BrainFusionLib.io.other_transforms import Between, directed, inverse
from BrainFusionLib.io.reading import SAVE_AGAIN
from BrainFusionLib.io.text_headers import numbers

_MARK = "MNI Transform File"
# ITK 5.4 was measured to write its own LPS numbers there, while the format's are RAS.
_OF_ITK = "%ITK-XFM"


def is_mni(text: str) -> bool:
    """Return whether a text is that of an MNI transform file."""
    return text.startswith(_MARK)


def read_mni(path: Path, text: str, between: Between) -> FloatArray:
    """Return the transform of an MNI file: a linear one of RAS mm, whose direction it says nowhere.

    Raises
    ------
    ImageFileError
        It is damaged, or nothing says in which direction it maps; written by ITK, between which coordinates.
    GeometryError
        It is a deformation, or several transforms.
    """
    statements = re.sub(r"%[^\n]*", "", text.removeprefix(_MARK)).split(";")
    entries = [[part.strip() for part in statement.split("=", 1)] for statement in statements if "=" in statement]
    said = dict(entries)
    if len(said) < len(entries) or said.get("Transform_Type") != "Linear":
        raise GeometryError(f"one linear transform is needed, but this MNI file has others. {GIVE_LINEAR}")
    matrix = [*numbers(said.get("Linear_Transform", "")), 0.0, 0.0, 0.0, 1.0]
    if len(matrix) != 16:
        raise ImageFileError(
            f"{path}: Linear_Transform must be 12 numbers, but there are {len(matrix) - 4}. {SAVE_AGAIN}"
        )
    if between.frame is None and _OF_ITK in text:
        raise ImageFileError(
            f"{path}: an MNI file that ITK wrote does not say between which coordinates it maps.",
            remedy=Remedy.STATE_FRAME,
        )
    if between.maps is None:
        raise ImageFileError(
            f"{path}: an MNI transform file does not say in which direction it maps.", remedy=Remedy.STATE_DIRECTION
        )
    mapped = np.reshape(matrix, (4, 4))
    if said.get("Invert_Flag", "False").lower() == "true":
        mapped = inverse(mapped)
    in_lps: FloatArray = mapped if between.frame == "lps" else RAS_FROM_LPS @ mapped @ RAS_FROM_LPS
    return directed(in_lps, between.maps)
