"""Transform files of other programs: FreeSurfer's .lta, FSL's matrices, register.dat, and plain 4x4 matrices.

Each says in its own way between which coordinates it maps, and some do not say it at all. Inside the library a
transform maps points of the MRI to points of the CT, LPS mm.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Literal

import numpy as np

from BrainFusionLib.errors import ImageFileError, Remedy
from BrainFusionLib.geometry import RAS_FROM_LPS, FloatArray, Grid, affine, apply_affine
from BrainFusionLib.io.dicom_registration import HeadersOfPair
from BrainFusionLib.io.itk_transforms import GIVE_LINEAR
from BrainFusionLib.io.reading import SAVE_AGAIN, SAVE_OR_COPY, open_regular
from BrainFusionLib.io.text_headers import brief, numbers
from BrainFusionLib.settings import Side

Frame = Literal["lps", "ras", "fsl"]
Maps = Literal["ct-to-mri", "mri-to-ct"]
# The first line of a plain matrix of ours, by which of the two it moves.
PLAIN_MARKS: dict[Side, str] = {
    "ct": "# BrainFusion: 4x4 matrix, maps CT points to MRI points, RAS mm",
    "mri": "# BrainFusion: 4x4 matrix, maps MRI points to CT points, RAS mm",
}
_LONGEST = 1 << 20
# As FSL's programs write a row of a matrix: two spaces behind each number, also behind the last one.
_FSL_ROW = re.compile(r"(\S+ {2}){4}")
# In the first line of what 3dAllineate writes: DICOM's axes, LPS.
_AFNI = "DICOM-to-DICOM"
# AFNI's own limit.
_OBLIQUE_DEG = 0.01
# Positions in LTA and elastix files are written to 4 digits or more.
_SAME_GRID_MM = 0.05
_LTA_VOXELS, _LTA_RAS = 0, 1
# It names the image that is sampled onto as source, while its matrix maps to it, as FreeSurfer's does to the target.
_NITRANSFORMS = "# LTA file created by NiTransforms"


@dataclass(frozen=True)
class Between:
    """Between which images a transform file maps, where the file does not say it itself.

    Attributes
    ----------
    ct, mri
        Grids of the two volumes in their files' own voxel order.
    frame
        The coordinates of a plain matrix; ``fsl``: those of FSL, where its file is not as FSL writes it.
    maps
        Its direction.
    in_nifti_order
        Whether the grids are those of NIfTI files, as FSL's matrices need.
    headers
        Reads the DICOM headers of CT and MRI, which a DICOM registration refers to.
    """

    ct: Grid | None = None
    mri: Grid | None = None
    frame: Frame | None = None
    maps: Maps | None = None
    in_nifti_order: bool = True
    headers: HeadersOfPair | None = None


def read_text(path: Path) -> str:
    """Return a transform file as text, letters of one byte each.

    Raises
    ------
    ImageFileError
        It is longer than any linear transform.
    """
    with open_regular(path) as stream:
        content = stream.read(_LONGEST + 1)
    if len(content) > _LONGEST:
        raise ImageFileError(f"{path}: is longer than {_LONGEST} bytes, so it is not a linear transform. {GIVE_LINEAR}")
    return content.removeprefix(b"\xef\xbb\xbf").decode("latin-1")


def is_lta(text: str) -> bool:
    """Return whether a text is that of an LTA file."""
    return re.search(r"^[ \t]*nxforms[ \t]*=", text, re.MULTILINE) is not None


def is_register_dat(text: str) -> bool:
    """Return whether a text is FreeSurfer's older file of a registration, register.dat."""
    return re.search(r"^[ \t]*(tkregister|round|floor)\s*\Z", text, re.MULTILINE) is not None


# ---------------------------------------------------------------- matrices


def matrix_of(text: str) -> FloatArray | None:
    """Return the 4x4 matrix that a text consists of, lines of comments apart; ``None`` if it is none.

    Its last row may be missing, and the others stand in one line, as AFNI writes them.
    """
    lines = [line for line in text.splitlines() if line.strip() and not line.lstrip().startswith(("#", "%"))]
    try:
        rows = [numbers(line) for line in lines]
    except ValueError:
        return None
    if [len(row) for row in rows] in ([12], [4] * 3):
        rows = [*np.reshape(np.concatenate(rows), (3, 4)).tolist(), [0.0, 0.0, 0.0, 1.0]]
    return np.array(rows) if [len(row) for row in rows] == [4] * 4 else None


def read_matrix(path: Path, text: str, matrix: FloatArray, between: Between) -> FloatArray:
    """Return the transform of a 4x4 matrix: FSL's if it is written as FSL does, else one whose coordinates are given.

    The name ``.mat`` says nothing: others call their matrices so, and a head of which these were taken for FSL's would
    be centimetres off.

    Raises
    ------
    ImageFileError
        It is not affine, or nothing says between which coordinates it maps.
    """
    if not np.allclose(matrix[3], [0, 0, 0, 1], atol=1e-6) or abs(np.linalg.det(matrix[:3, :3])) < 1e-9:
        raise ImageFileError(f"{path}: this 4x4 matrix is not that of a transform (last row 0 0 0 1). {SAVE_AGAIN}")
    frame, maps = between.frame, between.maps
    for moved, mark in PLAIN_MARKS.items():
        if text.startswith(mark):
            frame, maps = "ras", "ct-to-mri" if moved == "ct" else "mri-to-ct"
    if frame == "fsl" or (frame is None and is_fsl(text)):
        return _from_fsl(path, matrix, between)
    if frame is None and _AFNI in text:
        frame = "lps"
        if maps is None:
            raise ImageFileError(
                f"{path}: a matrix of AFNI maps from its base to its source, and does not say which of them is the CT.",
                remedy=Remedy.STATE_DIRECTION,
            )
        _refuse_oblique(path, between)
    if frame is not None and maps is None:
        raise ImageFileError(
            f"{path}: a 4x4 matrix alone does not say in which direction it maps.", remedy=Remedy.STATE_DIRECTION
        )
    if frame is None or maps is None:
        raise ImageFileError(
            f"{path}: a 4x4 matrix alone does not say between which coordinates it maps, and in which direction; it is "
            "not written as FSL writes its own.",
            remedy=Remedy.STATE_FRAME,
        )
    in_lps = RAS_FROM_LPS @ matrix @ RAS_FROM_LPS if frame == "ras" else matrix
    return directed(in_lps, maps)


def _refuse_oblique(path: Path, between: Between) -> None:
    """Refuse a matrix of AFNI for oblique volumes: AFNI counts along their axes as if they were the patient's.

    Raises
    ------
    ImageFileError
        A volume is oblique.
    """
    for role, grid in (("CT", between.ct), ("MRI", between.mri)):
        if grid is None:
            continue
        oblique = float(np.degrees(np.arccos(np.clip(np.abs(grid.direction).max(axis=0).min(), 0, 1))))
        if oblique > _OBLIQUE_DEG:
            raise ImageFileError(
                f"{path}: a matrix of AFNI holds for volumes whose axes are the patient's, but those of the {role} are "
                f"turned by {oblique:.2g} degrees, which AFNI leaves out. Make both straight with 3dWarp -deoblique, "
                "and register and give these, or save the transform in another format."
            )


def is_fsl(text: str) -> bool:
    """Return whether a matrix is written as FSL's programs do."""
    return all(_FSL_ROW.fullmatch(line) for line in text.splitlines() if line.strip())


def directed(matrix: FloatArray, maps: Maps) -> FloatArray:
    """Return a matrix from MRI to CT points."""
    return inverse(matrix) if maps == "ct-to-mri" else matrix


def inverse(matrix: FloatArray) -> FloatArray:
    """Return the inverse of a 4x4 matrix.

    Raises
    ------
    ValueError
        It has none.
    """
    if not abs(np.linalg.det(matrix[:3, :3])) > 1e-9:
        raise ValueError("a matrix that flattens space")
    result: FloatArray = np.linalg.inv(matrix).astype(np.float64)
    return result


def _from_fsl(path: Path, matrix: FloatArray, between: Between) -> FloatArray:
    """Return the transform of FLIRT's matrix: from scaled voxels of the CT (-in) to those of the MRI (-ref)."""
    if between.ct is None or between.mri is None or not between.in_nifti_order:
        raise ImageFileError(
            f"{path}: FSL's matrices count in the voxels of both images, in the order of their NIfTI files. Give CT "
            "and MRI as the NIfTI files that FLIRT was given, or convert the matrix (c3d_affine_tool).",
            remedy=Remedy.STATE_FRAME,
        )
    ends = [between.ct, between.mri]
    if between.maps == "mri-to-ct":
        ends.reverse()
    source, target = (lps_from_fsl(grid) for grid in ends)
    return directed(target @ matrix @ np.linalg.inv(source), between.maps or "ct-to-mri")


def lps_from_fsl(grid: Grid) -> FloatArray:
    """Return FSL's coordinates of an image to LPS mm: voxels times their size, i reversed where the axes are not.

    FSL counts i from the right of the patient wherever the determinant of the RAS affine is positive.
    """
    scaled = np.diag([*grid.spacing_ijk_mm, 1.0])
    if np.linalg.det((RAS_FROM_LPS @ grid.lps_from_ijk)[:3, :3]) > 0:
        flip = np.diag([-1.0, 1, 1, 1])
        flip[0, 3] = (grid.size_ijk[0] - 1) * grid.spacing_ijk_mm[0]
        scaled = flip @ scaled
    return grid.lps_from_ijk @ np.linalg.inv(scaled)


# ---------------------------------------------------------------- LTA


def _first_whole(path: Path, entries: Mapping[str, str], name: str) -> int:
    """Return the number that an entry begins with; of types and counts, a missing one is 1 and 0."""
    text = entries.get(name, "1" if name == "type" else "0")
    found = re.match(r"\s*(-?\d{1,9})(?!\S)", text)
    if found is None:
        raise ImageFileError(f"{path}: '{name}' must be a whole number, but is {brief(text)}. {SAVE_OR_COPY}")
    return int(found[1])


def read_lta(path: Path, text: str, between: Between) -> FloatArray:
    """Return the transform of FreeSurfer's LTA file.

    Raises
    ------
    ImageFileError
        It is damaged, holds several transforms, or nothing says which of its images is the CT.
    """
    entries, volumes, matrix = _lta_parts(path, text)
    kind, count = (_first_whole(path, entries, name) for name in ("type", "nxforms"))
    if count > 1:
        raise ImageFileError(f"{path}: holds {count} transforms. Save one alone (with lta_convert, for example).")
    if count != 1 or matrix is None:
        raise ImageFileError(f"{path}: one 4x4 matrix is needed in this LTA file. {SAVE_OR_COPY}")
    source, target = (_lta_grid(volumes.get(name, {})) for name in ("src", "dst"))
    if text.startswith(_NITRANSFORMS):
        source, target = target, source
    if kind == _LTA_VOXELS:
        if source is None or target is None:
            raise ImageFileError(
                f"{path}: maps between voxels, but does not describe both volumes. Convert it to type 1 "
                "(lta_convert) first."
            )
        matrix = target.lps_from_ijk @ matrix @ np.linalg.inv(source.lps_from_ijk)
    elif kind == _LTA_RAS:
        matrix = RAS_FROM_LPS @ matrix @ RAS_FROM_LPS
    else:
        raise ImageFileError(f"{path}: LTA files of type {kind} are not read. Convert it to type 1 (lta_convert).")
    maps = between.maps
    if maps is None:
        maps = maps_by_grids(source, target, between)
    if maps is None:
        raise ImageFileError(
            f"{path}: neither the volumes described in this LTA file nor anything else says which of them is the CT.",
            remedy=Remedy.STATE_DIRECTION,
        )
    return directed(matrix, maps)


def maps_by_grids(source: Grid | None, target: Grid | None, between: Between) -> Maps | None:
    """Return the direction in which a transform maps between images by their grids, if these say it."""
    found: set[Maps] = set()
    for grid, if_ct, if_mri in ((source, "ct-to-mri", "mri-to-ct"), (target, "mri-to-ct", "ct-to-mri")):
        is_ct, is_mri = (_same_box(grid, other) for other in (between.ct, between.mri))
        if is_ct != is_mri:
            found.add(if_ct if is_ct else if_mri)  # type: ignore[arg-type]
    return found.pop() if len(found) == 1 else None


def _same_box(a: Grid | None, b: Grid | None) -> bool:
    """Return whether two grids have the same voxels, in any order of the axes: programs turn and flip them."""
    if a is None or b is None or sorted(a.size_ijk) != sorted(b.size_ijk):
        return False
    ends = [apply_affine(g.lps_from_ijk, list(product(*((0, n - 1) for n in g.size_ijk)))) for g in (a, b)]
    apart = np.linalg.norm(ends[0][:, None] - ends[1][None], axis=-1)
    return bool(max(apart.min(axis=0).max(), apart.min(axis=1).max()) <= _SAME_GRID_MM)


def _lta_parts(path: Path, text: str) -> tuple[dict[str, str], dict[str, dict[str, str]], FloatArray | None]:
    """Return the entries of an LTA file, those of its volumes, and its matrix."""
    entries: dict[str, str] = {}
    volumes: dict[str, dict[str, str]] = {}
    into = entries
    rows: list[list[float]] = []
    for line in text.splitlines():
        words = line.partition("#")[0].strip()
        if words in ("src volume info", "dst volume info"):
            into = volumes.setdefault(words[:3], {})
        elif "=" in words:
            key, _, value = words.partition("=")
            into[key.strip()] = value.strip()
        elif words and into is entries:
            try:
                rows.append(numbers(words))
            except ValueError as error:
                raise ImageFileError(f"{path}: in the line {brief(line)}, {error}. {SAVE_OR_COPY}") from error
    matrix = [row for row in rows if len(row) == 4]
    return entries, volumes, np.array(matrix) if len(matrix) == 4 else None


def _lta_grid(entries: Mapping[str, str]) -> Grid | None:
    """Return the grid that an LTA file describes a volume by; ``None`` if it does not."""
    if not entries.get("valid", "0").startswith("1"):
        return None
    try:
        sizes, spacing = (numbers(entries[name])[:3] for name in ("volume", "voxelsize"))
        axes = np.column_stack([numbers(entries[name])[:3] for name in ("xras", "yras", "zras")])
        centre = np.array(numbers(entries["cras"])[:3])
        linear = axes * spacing
        ras_from_ijk = affine(linear, centre - linear @ (np.array(sizes) / 2))
        size = (int(sizes[0]), int(sizes[1]), int(sizes[2]))
        return Grid.from_lps_from_ijk(RAS_FROM_LPS @ ras_from_ijk, size)
    except (KeyError, ValueError, IndexError):
        return None
