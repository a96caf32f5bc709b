"""Volumes written as derived DICOM series; their headers are made by `dicom_attributes`."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import numpy.typing as npt

from BrainFusionLib.errors import ImageContentError, ImageFileError
from BrainFusionLib.geometry import Grid, apply_affine
from BrainFusionLib.io.dicom_attributes import FUSED, REGISTERED_CT, Kind, series_dataset, set_slice, set_sources
from BrainFusionLib.io.dicom_files import quiet_pydicom
from BrainFusionLib.io.dicom_headers import DicomHeaders
from BrainFusionLib.io.leftovers import temporary_beside
from BrainFusionLib.transform import Transform
from BrainFusionLib.volume import Volume

_LARGEST_STORED = 65535
# Bone and soft tissue both: window 2000, level 500.
CT_WINDOW_HU = (-500.0, 1500.0)


def write_dicom_results(
    fused: Volume,
    ct_in_mri: Volume,
    folder: Path,
    mri: DicomHeaders,
    *,
    ct: DicomHeaders | None = None,
    transform: Transform | None = None,
    fused_window: tuple[float, float] | None = None,
) -> dict[str, Path]:
    """Write the fused volume and the registered CT as two series, ``fused`` and ``ct_in_mri``; return their folders.

    Parameters are those of `write_dicom_series`. Either both are written or none.

    Raises
    ------
    GeometryError, ImageContentError, ImageFileError
        As `write_dicom_series`.
    """
    folders = {kind.folder: folder / kind.folder for kind in (FUSED, REGISTERED_CT)}
    for target in folders.values():
        _refuse_to_overwrite(target)
    write_dicom_series(fused, folders["fused"], mri, FUSED, ct=ct, transform=transform, window=fused_window)
    try:
        write_dicom_series(
            ct_in_mri, folders["ct_in_mri"], mri, REGISTERED_CT, ct=ct, transform=transform, window=CT_WINDOW_HU
        )
    except BaseException:
        shutil.rmtree(folders["fused"], ignore_errors=True)
        raise
    return folders


def write_dicom_series(
    volume: Volume,
    folder: Path,
    mri: DicomHeaders,
    kind: Kind,
    *,
    ct: DicomHeaders | None = None,
    transform: Transform | None = None,
    window: tuple[float, float] | None = None,
) -> tuple[Path, ...]:
    """Write a volume as a derived DICOM series, one file a slice, whole or not at all.

    Voxels are stored as unsigned 16-bit numbers with a rescale slope and intercept. Whole numbers over a range of up to
    65535 come back exactly. Others come back to half a step; the step is the smallest power of two at which the
    range fits, at most range / 32767, so that whole values stay exact beside the others if the range is under 65534.

    Parameters
    ----------
    volume
        On the MRI's grid, oblique or left-handed as may be.
    folder
        Missing or empty; the folder above it exists.
    mri
        Source of patient, study and frame of reference. Each file names the MRI slice at its position as a source.
    kind
        What the series says of itself.
    ct, transform
        The CT's headers and the transform from MRI points to CT points, LPS mm: each file then names the CT slices
        that it was made from, too.
    window
        Lowest and highest value that a viewer should show.

    Returns
    -------
    tuple of Path
        The files, along the normal of the slices.

    Raises
    ------
    GeometryError
        The volume is not at the position of the MRI's slices.
    ImageContentError
        The volume holds NaN or infinity.
    ImageFileError
        The folder has something in it, or cannot be written.
    """
    _refuse_to_overwrite(folder)
    mri.check_same_place(volume.grid, volume.name)
    array, grid = _right_handed(volume)
    stored, slope, intercept = _stored(array, volume.name)
    with _staged(folder) as staged, quiet_pydicom():
        dataset = series_dataset(mri, kind, grid, slope, intercept, window, ct)
        names = [f"{k + 1:04d}.dcm" for k in range(len(stored))]
        for k, name in enumerate(names):
            set_slice(dataset, stored[k], grid, k)
            set_sources(dataset, grid, k, mri, ct, transform)
            dataset.save_as(staged / name, enforce_file_format=True)
    return tuple(folder / name for name in names)


def _refuse_to_overwrite(folder: Path) -> None:
    try:
        if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
            raise ImageFileError(f"{folder}: exists and is not empty. Move it elsewhere, or choose another folder.")
    except OSError as error:
        if isinstance(error, ImageFileError):
            raise
        raise ImageFileError(f"{folder}: cannot be read ({error.strerror or error}).") from error


@contextmanager
def _staged(folder: Path) -> Iterator[Path]:
    """Give a hidden folder beside `folder` to write to, and rename it to `folder` when the block ends well."""
    staged = temporary_beside(folder)
    try:
        try:
            staged.mkdir()
            yield staged
            if folder.exists():
                folder.rmdir()  # empty, or this fails; Windows does not rename onto a folder
            staged.rename(folder)
        except BaseException:
            shutil.rmtree(staged, ignore_errors=True)
            raise
    except OSError as error:
        raise ImageFileError(
            f"{folder}: cannot be written ({error.strerror or error}). Choose an existing folder that you may write "
            "to, with free space. Nothing was left behind."
        ) from error


def _right_handed(volume: Volume) -> tuple[npt.NDArray[np.float32], Grid]:
    """Return the slices in the order along their normal, in which readers of DICOM sort them anyway."""
    grid = volume.grid
    if np.linalg.det(grid.direction) > 0:
        return volume.array_kji, grid
    last = apply_affine(grid.lps_from_ijk, (0, 0, grid.size_ijk[2] - 1))
    turned = grid.direction * [1, 1, -1]
    return volume.array_kji[::-1], Grid(grid.size_ijk, grid.spacing_ijk_mm, tuple(last), turned)


def _stored(values: npt.NDArray[np.float32], name: str) -> tuple[npt.NDArray[np.uint16], float, float]:
    """Return 16-bit numbers, slope and intercept; the latter two as DICOM's 16 characters can hold them."""
    from pydicom.valuerep import format_number_as_ds

    low, high = float(values.min()), float(values.max())
    if not np.isfinite([low, high]).all():
        raise ImageContentError(f"{name}: holds NaN or infinity, which DICOM cannot store. Fuse again.")
    step = 1.0
    if high - low > _LARGEST_STORED or not np.array_equal(values, np.rint(values)):
        step = 2.0 ** np.ceil(np.log2((high - low) / (_LARGEST_STORED - 1))) if high > low else 1.0
    slope = float(format_number_as_ds(step))
    intercept = float(format_number_as_ds(float(np.floor(low / step)) * step))
    stored = np.clip(np.rint((values - intercept) / slope), 0, _LARGEST_STORED)
    return stored.astype("<u2"), slope, intercept
