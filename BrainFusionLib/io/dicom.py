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
from BrainFusionLib.io.dicom_files import DicomFile, as_text, quiet_pydicom, values_in
from BrainFusionLib.io.dicom_pixels import read_pixels, spikes, undecodable
from BrainFusionLib.io.dicom_planes import Plane
from BrainFusionLib.io.dicom_series import Series, find_series, listed, series_at
from BrainFusionLib.io.dicom_values import has_table, is_by_table
from BrainFusionLib.io.reading import SAVE_OR_COPY, naming, quiet_itk
from BrainFusionLib.io.slice_stack import Slices, stack_slices
from BrainFusionLib.io.zipped import is_zip, unpacked
from BrainFusionLib.quantities import counted
from BrainFusionLib.volume import Modality, Volume

_OTHER_EXPORT = "Export it again as single-frame DICOM, or convert it to NIfTI with dcm2niix."
# Terms of Rescale Type for maps that spectral CTs make: iodine in mg/mL, effective atomic number, electron density, ...
_OTHER_UNITS = frozenset({"OD", "MGML", "Z_EFF", "ED", "EDW", "PCT"})
_MODALITIES: dict[str, Modality] = {"CT": "CT", "MR": "MR"}
# Images that are neither; the 3D images of an angiography system (XA) are cone-beam CTs.
_NEITHER = {"PT": "PET", "NM": "nuclear medicine", "US": "ultrasound"}
_IMAGES: dict[Modality, str] = {"CT": "a CT", "MR": "an MRI"}


def read_dicom(path: Path, *, modality: Modality | None = None, series: str | int | None = None) -> Volume:
    """Read one DICOM series from a folder and the folders in it, or the series that a file belongs to.

    Parameters
    ----------
    path
        A folder; a zip of one; or a file, whose series is then read from the file's own folder.
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
    with unpacked(path) as place:
        return _read(place, modality, series)


def _read(path: Path, modality: Modality | None, series: str | int | None) -> Volume:
    chosen = find_series(path, series)
    with naming(path), quiet_itk(), quiet_pydicom():
        said = _MODALITIES.get(chosen.files[0].text("Modality"))
        if modality and said and modality != said:
            raise ImageContentError(
                f"{path}: {_IMAGES[modality]} is needed here, but the DICOM headers say {_IMAGES[said]}. "
                "Were CT and MRI swapped?"
            )
        neither = _NEITHER.get(chosen.files[0].modality)
        if modality and neither:
            raise ImageContentError(
                f"{path}: {_IMAGES[modality]} is needed here, but the DICOM headers say {neither}. Choose another "
                "series."
            )
        _refuse_partly_scaled(chosen)
        slices = _load(chosen)
        array, grid, notes = stack_slices(slices)
        notes += _notes_on_files(chosen) + _notes_on_pixels(chosen, slices)
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
    with unpacked(path) as place:
        return _size(place, series)


def dicom_files(path: Path, *, series: str | int | None = None) -> list[Path]:
    """Return the files that decide what reading a series gives: all images under its UID; of a zip, itself.

    Raises
    ------
    ImageFileError
        As `find_series`.
    """
    return [path] if _is_zip_file(path) else list(find_series(path, series).images)


def dicom_files_of_each(path: Path) -> list[list[Path]]:
    """Return the files as `dicom_files` does, of every series that could be chosen.

    Raises
    ------
    ImageFileError
        As `series_at`.
    """
    if _is_zip_file(path):
        return [[path]]
    return [list(images) for images in dict.fromkeys(series.images for series in series_at(path))]


def series_listed(path: Path) -> str:
    """Return the series that could be chosen, a line each.

    Raises
    ------
    ImageFileError
        As `series_at`.
    """
    with unpacked(path) as place:
        return listed(series_at(place))


def _is_zip_file(path: Path) -> bool:
    return is_zip(path) and not path.is_dir()


def _size(path: Path, series: str | int | None) -> tuple[int, int, int]:
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
    keywords = ("RescaleSlope", "RescaleIntercept")
    scales = {tuple(number for word in keywords for number in values_in(f.dataset, word)) for f in series.files}
    if len(scales) > 1 and series.files[0].text("Modality") == "CT":  # of MRIs many have one for each slice
        notes.append(
            f"the slices give {len(scales)} different rescale slopes or intercepts, as hardly any CT does; each was "
            "read with its own."
        )
    if any(0 in values_in(file.dataset, "RescaleSlope") for file in series.files):
        notes.append("the header says that all values are equal (its rescale slope is 0): 1 was taken for it.")
    if any(has_table(file.dataset) and not is_by_table(file.dataset) for file in series.files):
        notes.append(
            "besides rescale slope and intercept, the headers have a table of values (Modality LUT), which the "
            "standard forbids: slope and intercept were used."
        )
    units = {_unit(file) for file in series.files} & _OTHER_UNITS
    if units and series.files[0].text("Modality") == "CT":
        notes.append(f"by its header, its values are not Hounsfield units but {' and '.join(sorted(units))}.")
    uids = len({file.text("SeriesInstanceUID") for file in series.files})
    if uids > 1:
        notes.append(
            f"the slices give {uids} different series UIDs, as some de-identification makes them: they were put "
            "together by modality, number, description and size of the images."
        )
    if len({file.text("PatientID").strip() for file in series.files}) > 1:
        notes.append("the slices give different patient IDs: check that they belong together.")
    parts = {file.count("InConcatenationNumber", 0) for file in series.files}
    total = max(file.count("InConcatenationTotalNumber", 0) for file in series.files)
    if len(parts) < total:
        notes.append(f"{len(parts)} of {total} files of a volume in several files are here: the others are missing.")
    aside = [*series.group.aside, *series.others]
    if aside:
        total = sum(count for _, count in aside)
        kinds = ", ".join(f"{count} {kind}" for kind, count in aside)
        notes.append(
            f"{total} {'file or image was' if total == 1 else 'files or images were'} set aside, not part of the "
            f"volume: {kinds}."
        )
    if series.left_out:
        notes.append(
            f"{counted(series.left_out, 'file')} beside the slices left out as not DICOM, or damaged at the start: if "
            "one was a slice, it is missing."
        )
    if series.in_cloud:
        files = "1 file is" if series.in_cloud == 1 else f"{series.in_cloud} files are"
        notes.append(
            f"{files} in iCloud and not on this computer: if one was a slice, it is missing. Download the folder in "
            "the Finder."
        )
    if series.dead_links:
        links = "1 broken link is" if series.dead_links == 1 else f"{series.dead_links} broken links are"
        notes.append(f"{links} beside the slices: if one was a slice, it is missing.")
    return tuple(notes)


def _unit(file: DicomFile) -> str:
    """Return in what the values are, by the header."""
    if is_by_table(file.dataset):
        return as_text(file.dataset.ModalityLUTSequence[0].get("ModalityLUTType"))
    return file.text("RescaleType")


def _notes_on_pixels(series: Series, slices: Slices) -> tuple[str, ...]:
    """Return a note where slices that were deflated, without a checksum, hold pixels as no image does."""
    if not any(file.pixels.was_deflated for file in series.files):
        return ()
    found = spikes(slices.pixels)
    bad = sum(count > 0 for count in found)
    if not bad:
        return ()
    return (
        f"{bad} of {len(found)} slices have {sum(found)} pixels far from their neighbours, as no image has: the "
        "deflated DICOM files, which have no checksum, may be damaged. Copy them again, or look at these slices.",
    )


def _refuse_partly_scaled(series: Series) -> None:
    """Refuse a CT of which some slices lack the rescale slope and intercept that the others have.

    Raises
    ------
    ImageFileError
        It is one: those slices would be 1000 HU off, or more.
    """
    lacking = [
        file
        for file in series.files
        if file.frames == 1 and not values_in(file.dataset, "RescaleIntercept") and not is_by_table(file.dataset)
    ]
    if 0 < len(lacking) < len(series.files) and series.files[0].text("Modality") == "CT":
        raise ImageFileError(
            f"{lacking[0].path}: {len(lacking)} of {len(series.files)} slices, this one among them, lack the rescale "
            "intercept that the others have, so their values are not Hounsfield units. Export the original series "
            "again."
        )


def _load(series: Series) -> Slices:
    """Read all pixels of a series, with the position of each slice."""
    planes, first = series.planes, series.planes[0]
    for file in series.files:
        # Siemens' enhanced files keep the word when the mosaic has been taken apart (dcm2niix issue 553).
        if "MOSAIC" in file.text("ImageType").split("/") and "PerFrameFunctionalGroupsSequence" not in file.dataset:
            raise ImageFileError(
                f"{file.path}: is a mosaic of Siemens, many slices side by side in one picture, as of functional and "
                "diffusion MRI. Choose another series, or convert it to NIfTI with dcm2niix."
            )
        if file.is_colour:
            raise ImageFileError(f"{file.path}: is a colour image; CT and MRI are gray. Choose another series.")
        # Inverted is how a CT is to be shown; its values are Hounsfield units nevertheless.
        if file.text("PhotometricInterpretation") == "MONOCHROME1" and file.text("Modality") != "CT":
            raise ImageFileError(
                f"{file.path}: its gray values are inverted (MONOCHROME1), and of an MRI nothing says by how much. "
                f"{_OTHER_EXPORT}"
            )
    if not first.is_placed:
        _refuse_unplaced(first)
    columns, rows = first.file.size_ij
    refuse_too_large(first.file.path.parent, (len(planes), rows, columns), 4)
    pixels = np.empty((len(planes), rows, columns), np.float32)
    of_file: dict[Path, list[tuple[int, Plane]]] = {}
    for k, plane in enumerate(planes):
        of_file.setdefault(plane.file.path, []).append((k, plane))
    for members in of_file.values():
        file = members[0][1].file
        frames = read_pixels(file.path, file.dataset, file.pixels)
        last = max(plane.frame for _, plane in members)
        if last >= len(frames):
            raise ImageFileError(
                f"{file.path}: describes {last + 1} frames, but holds the pixels of {len(frames)}. {SAVE_OR_COPY}"
            )
        for k, plane in members:
            pixels[k] = frames[plane.frame]
    spacing = first.spacing
    return Slices(pixels, np.array([plane.position for plane in planes]), first.orientation, (spacing[1], spacing[0]))


def _refuse_unplaced(plane: Plane) -> None:
    file = plane.file
    if file.frames > 1:
        raise ImageFileError(
            f"{file.path}: the {file.frames} frames of this multi-frame DICOM file cannot be positioned reliably: they "
            f"give no position, orientation or pixel spacing each. {_OTHER_EXPORT}"
        )
    for keyword, count in (("ImageOrientationPatient", 6), ("PixelSpacing", 2), ("ImagePositionPatient", 3)):
        file.needed(keyword, count)
    raise undecodable(file.path)
