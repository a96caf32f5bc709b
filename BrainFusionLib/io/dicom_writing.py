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
from BrainFusionLib.io.dicom_attributes import FUSED, REGISTERED_CT, Doubt, Kind, series_dataset, set_slice, set_sources
from BrainFusionLib.io.dicom_encoding import SeriesWriter
from BrainFusionLib.io.dicom_files import quiet_pydicom
from BrainFusionLib.io.dicom_headers import DicomHeaders
from BrainFusionLib.io.leftovers import temporary_beside
from BrainFusionLib.progress import Progress
from BrainFusionLib.volume import Volume

_LARGEST_STORED = 65535
STAGE = "exporting"
# Bone and soft tissue both: window 2000, level 500.
CT_WINDOW_HU = (-500.0, 1500.0)


def write_dicom_results(
    fused: Volume,
    moved: Volume,
    folder: Path,
    reference: DicomHeaders,
    *,
    other: DicomHeaders | None = None,
    kinds: tuple[Kind, Kind] = (FUSED, REGISTERED_CT),
    place: Grid | None = None,
    doubt: Doubt | None = None,
    fused_window: tuple[float, float] | None = None,
    progress: Progress | None = None,
) -> dict[str, Path]:
    """Write the fused volume and the one that was moved as two series; return their folders, by their names.

    Parameters
    ----------
    moved
        The registered CT; the MRI, if `kinds` are those of the CT's frame.
    kinds
        What both say of themselves, and the names of their folders (`dicom_attributes.kinds_of`).

    The others are those of `write_dicom_series`. Either both are written or none.

    Raises
    ------
    GeometryError, ImageContentError, ImageFileError
        As `write_dicom_series`.
    """
    first, second = kinds
    folders = {kind.folder: folder / kind.folder for kind in kinds}
    for target in folders.values():
        _refuse_to_overwrite(target)
    say = progress or (lambda stage, fraction: None)
    write_dicom_series(
        fused, folders[first.folder], reference, first, other=other, window=fused_window, place=place, doubt=doubt,
        progress=lambda _, done: say(STAGE, done / 2),
    )  # fmt: skip
    try:
        write_dicom_series(
            moved, folders[second.folder], reference, second, other=other, place=place, doubt=doubt,
            window=CT_WINDOW_HU if second.rescale_type == "HU" else None,
            progress=lambda _, done: say(STAGE, (1 + done) / 2),
        )  # fmt: skip
    except BaseException:
        shutil.rmtree(folders[first.folder], ignore_errors=True)
        raise
    return folders


def write_dicom_series(
    volume: Volume,
    folder: Path,
    reference: DicomHeaders,
    kind: Kind,
    *,
    other: DicomHeaders | None = None,
    window: tuple[float, float] | None = None,
    place: Grid | None = None,
    doubt: Doubt | None = None,
    progress: Progress | None = None,
) -> tuple[Path, ...]:
    """Write a volume as a derived DICOM series, one file a slice, whole or not at all.

    Voxels are stored as unsigned 16-bit numbers with a rescale slope and intercept. Whole numbers over a range of up to
    65535 come back exactly. Others come back to half a step; the step is the smallest power of two at which the
    range fits, at most range / 32767, so that whole values stay exact beside the others if the range is under 65534.

    Parameters
    ----------
    volume
        In the frame of the reference, oblique or left-handed as may be.
    folder
        Missing or empty; the folder above it exists.
    reference
        Source of patient, study and frame of reference: the MRI, unless it was put into the CT's frame. Each file names
        the reference's slice at its position as a source.
    kind
        What the series says of itself.
    other
        The headers of the other volume: each file then names its series, too.
    window
        Lowest and highest value that a viewer should show.
    place
        The reference's own grid, if the volume is on another: it is this one that has to be at the position of the
        slices.
    doubt
        What each file says of itself, if the result is in doubt.
    progress
        Called with ``("exporting", fraction)`` after each file.

    Returns
    -------
    tuple of Path
        The files, along the normal of the slices.

    Raises
    ------
    GeometryError
        The volume is not at the position of the reference's slices.
    ImageContentError
        The volume holds NaN or infinity.
    ImageFileError
        The folder has something in it, or cannot be written.
    """
    _refuse_to_overwrite(folder)
    reference.check_same_place(place or volume.grid, volume.name)
    array, grid = _right_handed(volume)
    stored, slope, intercept = _stored(array, volume.name)
    with _staged(folder) as staged, quiet_pydicom():
        dataset = series_dataset(reference, kind, grid, slope, intercept, window, other, doubt)
        names = [f"{k + 1:04d}.dcm" for k in range(len(stored))]
        write = SeriesWriter(dataset)
        for k, name in enumerate(names):
            set_slice(dataset, stored[k], grid, k)
            set_sources(dataset, grid, k, reference)
            write(staged / name)
            if progress is not None:
                progress(STAGE, (k + 1) / len(names))
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
