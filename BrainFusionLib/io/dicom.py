"""DICOM series read as volumes. Where the slices are is worked out by `slice_stack`.

Headers are read by pydicom, pixels by `dicom_pixels`, one file at a time, so that each slice's own rescale slope and
intercept is applied; the order and the spacing of slices come from their positions. ITK's own series and
multi-frame readers are not used for that: measured, a multi-frame file with shuffled or missing slices, a tilted gantry
or two slices at one position comes out of them as an even grid, without a word.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from BrainFusionLib.errors import ImageContentError, ImageFileError
from BrainFusionLib.io.budget import refuse_too_large
from BrainFusionLib.io.dicom_acquisition import read_acquisition
from BrainFusionLib.io.dicom_files import DicomFile, quiet_pydicom
from BrainFusionLib.io.dicom_pixels import read_pixels, undecodable
from BrainFusionLib.io.dicom_series import Series, find_series
from BrainFusionLib.io.reading import naming, quiet_itk, refuse_undecodable
from BrainFusionLib.io.slice_stack import Slices, stack_slices
from BrainFusionLib.volume import Modality, Volume

_OTHER_EXPORT = "Export it again as single-frame DICOM, or convert it to NIfTI with dcm2niix."
_MODALITIES: dict[str, Modality] = {"CT": "CT", "MR": "MR"}
_IMAGES: dict[Modality, str] = {"CT": "a CT", "MR": "an MRI"}


def read_dicom(path: Path, *, modality: Modality | None = None, series: str | int | None = None) -> Volume:
    """Read one DICOM series from a folder and the folders in it, or the series that a file belongs to.

    Parameters
    ----------
    path
        A folder; or a file, whose series is then read from the file's own folder.
    modality
        What the images must be. A series with another modality in its headers is refused, one with none is accepted.
    series
        Which series, if there are several: its UID, its number, or its place in the list of the error message.

    Returns
    -------
    Volume
        Right-handed, slices along the normal of the image plane, LPS mm, rescaled (CT in HU). Named after
        modality and series number, never after the patient or the folder. `notes` say what was resampled, and why.

    Raises
    ------
    ImageFileError
        No DICOM images, several series and no choice, a damaged slice, slices of mixed sizes or directions, colour
        or inverted images.
    GeometryError
        Slices that do not make one regular volume: two at one position, too large a gap.
    ImageContentError
        The headers say CT and an MRI was wanted, or vice versa.
    """
    refuse_undecodable(path)
    chosen = find_series(path, series)
    with naming(path), quiet_itk(), quiet_pydicom():
        said = _MODALITIES.get(chosen.files[0].text("Modality"))
        if modality and said and modality != said:
            raise ImageContentError(
                f"{path}: {_IMAGES[modality]} is needed here, but the DICOM headers say {_IMAGES[said]}. "
                "Were CT and MRI swapped?"
            )
        array, grid, notes = stack_slices(_load(chosen))
        notes += _notes_on_files(chosen)
        # Folders of exports are often called after the patient, and this name goes into reports.
        name = f"{said or modality or 'DICOM'} series {chosen.number or chosen.uid}"
        acquisition = read_acquisition(chosen.files, grid.centre_lps_mm, grid.spacing_ijk_mm[2])
    return Volume(array, grid, modality=said or modality, name=name, notes=notes, acquisition=acquisition)


def dicom_size(path: Path, *, series: str | int | None = None) -> tuple[int, int, int]:
    """Return columns, rows and slices of a series by its headers; slices that are missing are not counted.

    Raises
    ------
    ImageFileError
        As `find_series`, or the headers give no size.
    """
    chosen = find_series(path, series)
    with naming(path), quiet_pydicom():
        columns, rows = chosen.files[0].size_ij
        size = (columns, rows, chosen.slices)
    if min(size) < 1:
        raise undecodable(chosen.files[0].path)
    return size


def _notes_on_files(series: Series) -> tuple[str, ...]:
    """Return notes on what was left out; they name no file, which may be called after the patient."""
    notes = []
    tails = [file.pixels.tail for file in series.files if file.pixels.tail]
    if tails:
        notes.append(
            f"{len(tails)} of {len(series.files)} files have up to {max(tails)} bytes behind their pixels, ignored."
        )
    if series.left_out:
        notes.append(
            f"{series.left_out} files beside the slices are not DICOM, or are damaged at their start, and were left "
            "out: if one was a slice, it is missing."
        )
    return tuple(notes)


def _load(series: Series) -> Slices:
    """Read all pixels of a series, with the position of each slice."""
    for file in series.files:
        if file.count("SamplesPerPixel", 1) != 1:
            raise ImageFileError(f"{file.path}: is a colour image; CT and MRI are gray. Choose another series.")
        if file.text("PhotometricInterpretation") == "MONOCHROME1":
            raise ImageFileError(f"{file.path}: its gray values are inverted (MONOCHROME1), not HU. {_OTHER_EXPORT}")
    if all(file.frames == 1 for file in series.files):
        return _load_slices(series.files)
    if len(series.files) > 1:
        raise ImageFileError(
            f"{series.files[0].path}: the series has {len(series.files)} files, some with several frames. "
            f"{_OTHER_EXPORT}"
        )
    return _load_frames(series.files[0])


def _load_slices(files: tuple[DicomFile, ...]) -> Slices:
    """Read files of one slice each."""
    first = files[0]
    orientation = first.needed("ImageOrientationPatient", 6)[0]
    spacing = first.needed("PixelSpacing", 2)[0]
    positions = []
    for file in files:
        positions.append(file.needed("ImagePositionPatient", 3)[0])
        if file.size_ij != first.size_ij or np.abs(file.needed("PixelSpacing", 2)[0] - spacing).max() > 1e-4:
            raise ImageFileError(
                f"{file.path}: differs in size or pixel spacing from {first.path.name} of the same series. "
                "Move the slices that do not belong to it elsewhere."
            )
        if np.abs(file.needed("ImageOrientationPatient", 6)[0] - orientation).max() > 1e-3:
            raise ImageFileError(
                f"{file.path}: points in another direction than {first.path.name} of the same series (a localizer?). "
                "Move the slices that do not belong to it elsewhere."
            )
    columns, rows = first.size_ij
    refuse_too_large(first.path.parent, (len(files), rows, columns), 4)
    pixels = np.empty((len(files), rows, columns), np.float32)
    for k, file in enumerate(files):
        pixels[k] = read_pixels(file.path, file.dataset, file.pixels)[0]
    return Slices(pixels, np.array(positions), orientation, (spacing[1], spacing[0]))


def _load_frames(file: DicomFile) -> Slices:
    """Read a file of many slices: one position a frame, and one orientation, spacing and rescale for all."""
    positions = file.numbers("ImagePositionPatient", 3)
    orientations = file.numbers("ImageOrientationPatient", 6)
    spacings = file.numbers("PixelSpacing", 2)
    rescales = (file.numbers("RescaleSlope", 1), file.numbers("RescaleIntercept", 1))
    one_value = all(np.ptp(values, axis=0).max(initial=0) < 1e-4 for values in (orientations, spacings) if len(values))
    # One rescale is applied to all.
    one_scale = all(np.ptp(values) == 0 for values in rescales if len(values))
    if len(positions) != file.frames or not len(orientations) or not len(spacings) or not one_value or not one_scale:
        raise ImageFileError(
            f"{file.path}: the {file.frames} frames of this multi-frame DICOM file cannot be positioned reliably: "
            f"{len(positions)} positions, {'one' if one_value and one_scale else 'several'} orientation, spacing or "
            f"rescale. {_OTHER_EXPORT}"
        )
    pixels = read_pixels(file.path, file.dataset, file.pixels)
    return Slices(pixels, positions, orientations[0], (spacings[0][1], spacings[0][0]))
