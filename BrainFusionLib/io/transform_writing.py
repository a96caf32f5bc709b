"""A transform in the files of other programs, so that they move the CT onto the MRI with it."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import numpy as np

from BrainFusionLib.errors import ImageFileError, SettingsError
from BrainFusionLib.geometry import RAS_FROM_LPS, FloatArray, Grid
from BrainFusionLib.io.formats import named
from BrainFusionLib.io.other_transforms import PLAIN_MARKS, lps_from_fsl
from BrainFusionLib.io.suffixes import suffix_of
from BrainFusionLib.io.text_headers import exact
from BrainFusionLib.io.writing import atomic_output, write_text
from BrainFusionLib.transform import Transform

TransformFormat = Literal["itk", "ants", "lta", "fsl", "matrix"]
SUFFIXES: dict[TransformFormat, tuple[str, ...]] = {
    "itk": (".tfm", ".txt"), "ants": (".mat",), "lta": (".lta",), "fsl": (".mat",), "matrix": (".txt", ".mat"),
}  # fmt: skip


def are_in_nifti_order(*paths: str | Path | None) -> bool:
    """Return whether all volumes are from NIfTI files, in whose order of voxels FSL's matrices count."""
    suffixes = {suffix for name in ("nifti", "analyze") for suffix in named(name).suffixes}
    return all(path is not None and suffix_of(Path(path)) in suffixes for path in paths)


def check_voxel_order(form: TransformFormat, ct: str | Path | None, mri: str | Path | None) -> None:
    """Check before the work that a transform can be written in a format for these files.

    Raises
    ------
    ImageFileError
        FSL's matrix is wanted, and a volume is not from a NIfTI file: the NIfTI file that is made of it later may
        count its rows from the other end, and the matrix would be wrong by millimetres.
    """
    if form == "fsl" and not are_in_nifti_order(ct, mri):
        raise ImageFileError(
            "FSL's matrices count in the voxels of both images, in the order of their NIfTI files; CT or MRI is not a "
            "NIfTI file. Convert both (dcm2niix) and give these, or choose another format of the transform, such as "
            "FreeSurfer's (lta)."
        )


def write_other_transform(
    transform: Transform,
    path: Path,
    form: TransformFormat,
    ct: Grid | None,
    mri: Grid | None,
    mark: str = PLAIN_MARKS["ct"],
) -> None:
    """Write a transform in another format than ITK's text.

    Parameters
    ----------
    transform
        Maps MRI points to CT points, LPS mm.
    path
        The file.
    form
        ``ants``: for ``antsApplyTransforms -t`` with the MRI as reference. ``lta``, ``fsl``: from the CT to the MRI.
        ``matrix``: 4x4 from CT points to MRI points, RAS mm, with a line of comment that says so.
    ct, mri
        Grids of both volumes, for ``lta`` and ``fsl``; for ``fsl`` those of NIfTI files (`check_voxel_order`).
    mark
        The line of comment.

    Raises
    ------
    SettingsError
        A grid is needed and missing.
    ImageFileError
        See `atomic_output`.
    """
    moving_from_fixed = np.asarray(transform.moving_from_fixed_lps, np.float64)
    if form == "ants":
        with atomic_output(path) as temporary:
            temporary.write_bytes(_ants(moving_from_fixed))
        return
    mri_from_ct = np.linalg.inv(moving_from_fixed)
    ras = RAS_FROM_LPS @ mri_from_ct @ RAS_FROM_LPS
    if form == "matrix":
        write_text(f"{mark}\n{_rows(ras)}\n", path)
        return
    if ct is None or mri is None:
        raise SettingsError(f"to write a transform as {form}, the grids of CT and MRI are needed")
    if form == "fsl":
        matrix = np.linalg.inv(lps_from_fsl(mri)) @ mri_from_ct @ lps_from_fsl(ct)
        write_text("".join(exact(row, "  ") + "  \n" for row in matrix), path)  # spaces by which it is known
    else:
        write_text(_lta(ras, ct, mri), path)


def _rows(matrix: FloatArray) -> str:
    return "\n".join(exact(row, "  ") for row in matrix)


def _ants(matrix: FloatArray) -> bytes:
    """Return a MATLAB file of level 4 as ITK writes it: the parameters under the kind's name, then the centre."""
    parts = b""
    values = [*matrix[:3, :3].ravel(), *matrix[:3, 3]]
    for name, column in ((b"AffineTransform_double_3_3\0", values), (b"fixed\0", [0.0] * 3)):
        parts += np.array([0, len(column), 1, 0, len(name)], "<i4").tobytes() + name + np.array(column, "<f8").tobytes()
    return parts


def _lta(ras: FloatArray, ct: Grid, mri: Grid) -> str:
    return (
        "type      = 1 # LINEAR_RAS_TO_RAS\nnxforms   = 1\nmean      = 0.0000 0.0000 0.0000\nsigma     = 1.0000\n"
        "1 4 4\n"
        f"{_rows(ras)}\n{_lta_volume('src', ct)}{_lta_volume('dst', mri)}"
    )


def _lta_volume(name: str, grid: Grid) -> str:
    ras_from_ijk = RAS_FROM_LPS @ grid.lps_from_ijk
    axes = ras_from_ijk[:3, :3] / np.array(grid.spacing_ijk_mm)
    centre = ras_from_ijk @ [*(np.array(grid.size_ijk) / 2), 1.0]
    lines = [f"{letter}ras   = {exact(axes[:, n], ' ')}" for n, letter in enumerate("xyz")]
    return (
        f"{name} volume info\nvalid = 1  # volume info valid\nfilename = {name}\n"
        f"volume = {' '.join(map(str, grid.size_ijk))}\nvoxelsize = {exact(grid.spacing_ijk_mm, ' ')}\n"
        + "\n".join(lines)
        + f"\ncras   = {exact(centre[:3], ' ')}\n"
    )
