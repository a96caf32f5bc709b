"""DICOM series: which files belong together, and what they hold. Where the slices lie is `slice_stack`'s business.

Files are decoded by ITK (GDCM), one slice at a time, so that each slice's own rescale slope and intercept is applied;
the order and the spacing of slices come from their positions. ITK's own series and multi-frame readers are not
trusted with that: measured, a multi-frame file with shuffled or missing slices, a tilted gantry or two slices at one
place comes out of them as an even grid, without a word.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import numpy.typing as npt
import SimpleITK as sitk

from BrainFusionLib.errors import ImageContentError, ImageFileError
from BrainFusionLib.io.reading import COPY_AGAIN, naming, quiet_itk
from BrainFusionLib.io.slice_stack import Slices, stack_slices
from BrainFusionLib.volume import Modality, Volume

# A hospital's export has at most PATIENT/STUDY/SERIES above its files; a whole disk given by mistake is not searched.
_DEEPEST_FOLDER = 4
_MOST_SERIES_LISTED = 12
_MODALITY_IS_WITHIN = 1 << 16  # bytes: it stands in the second of the header's groups

_MODALITY, _DESCRIPTION = "0008|0060", "0008|103e"
_SERIES_UID, _SERIES_NUMBER = "0020|000e", "0020|0011"
_POSITION, _ORIENTATION, _PIXEL_SPACING = "0020|0032", "0020|0037", "0028|0030"
_SAMPLES, _PHOTOMETRIC, _FRAMES, _ROWS, _COLUMNS = "0028|0002", "0028|0004", "0028|0008", "0028|0010", "0028|0011"

# Files of these names are taken for DICOM without the mark of one.
DICOM_SUFFIXES = (".dcm", ".dicom", ".ima")

_OTHER_EXPORT = "Export it again as single-frame DICOM, or convert it to NIfTI with dcm2niix."


@dataclass(frozen=True)
class _Image:
    """A DICOM file with pixels, and its header's entries."""

    path: Path
    tags: Mapping[str, str]

    def text(self, tag: str) -> str:
        # GDCM passes bytes of other alphabets on as they are; a message must be printable all the same.
        return self.tags.get(tag, "").strip(" \0").encode("ascii", "replace").decode("ascii")

    def numbers(self, tag: str, count: int, meaning: str) -> npt.NDArray[np.float64]:
        try:
            values = np.array([float(word) for word in self.text(tag).split("\\")])
        except ValueError:
            values = np.array([])
        if values.size != count or not np.isfinite(values).all():
            raise ImageFileError(
                f"{self.path}: its DICOM header does not give the {meaning} ({tag}), so its place in the body is "
                "unknown (a screenshot or a scanned document?). Export the original images."
            )
        return values

    @property
    def frames(self) -> int:
        return int(self.text(_FRAMES) or 1)


@dataclass(frozen=True)
class _Series:
    uid: str
    images: tuple[_Image, ...]

    @property
    def number(self) -> str:
        return self.images[0].text(_SERIES_NUMBER)

    def describe(self) -> str:
        first = self.images[0]
        count = sum(image.frames for image in self.images)
        return (
            f"series {self.number or '(no number)'}, '{first.text(_DESCRIPTION)}', "
            f"{first.text(_MODALITY) or 'no modality'}, {count} slices, {self.uid}"
        )


def read_dicom(path: Path, *, modality: Modality | None = None, series: str | int | None = None) -> Volume:
    """Read one DICOM series from a folder and the folders in it, or the series that a file belongs to.

    Parameters
    ----------
    path
        A folder; or a file, whose series is then read from the file's own folder.
    modality
        What the images must be. A series that calls itself otherwise is refused, one that does not say is believed.
    series
        Which series, where there are several: its UID, its number, or its place in the list of the error message.

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
        Slices that do not make one regular volume: two at one place, too large a gap.
    ImageContentError
        The series says CT where an MRI was wanted, or the other way round.
    """
    with naming(path), quiet_itk():
        chosen = _chosen(path, series)
        said: Modality | None = _known_modality(chosen.images[0].text(_MODALITY))
        if modality and said and modality != said:
            raise ImageContentError(
                f"{path}: a {modality} is wanted here, but these DICOM images say that they are {said}. "
                "Were CT and MRI swapped?"
            )
        array, grid, notes = stack_slices(_load(chosen))
    # Folders of exports are often called after the patient, and this name goes into reports.
    name = f"{said or modality or 'DICOM'} series {chosen.number or chosen.uid}"
    return Volume(array, grid, modality=said or modality, name=name, notes=notes)


def series_files(path: Path, series: str | int | None = None) -> tuple[Path, ...] | None:
    """Return the files of the series that `read_dicom` would read; ``None`` for a file that is not DICOM.

    Raises
    ------
    ImageFileError
        As `read_dicom`.
    """
    if not path.is_dir() and path.suffix.lower() not in DICOM_SUFFIXES and not looks_like_dicom(_start_of(path)):
        return None
    with naming(path), quiet_itk():
        return tuple(image.path for image in _chosen(path, series).images)


def _chosen(path: Path, series: str | int | None) -> _Series:
    if path.is_dir():
        return _choose(path, _find_series(path, whole_tree=True), series)
    found = _find_series(path.parent, whole_tree=False)
    return _choose(path, found, series or _series_of_file(path, found))


def _known_modality(text: str) -> Modality | None:
    known: dict[str, Literal["CT", "MR"]] = {"CT": "CT", "MR": "MR"}
    return known.get(text)


def looks_like_dicom(start: bytes) -> bool:
    """Say whether the first 132 bytes of a file are those of a DICOM file."""
    return start[128:132] == b"DICM"


def _find_series(folder: Path, *, whole_tree: bool) -> list[_Series]:
    candidates = list(_files_in(folder, _DEEPEST_FOLDER if whole_tree else 0))
    marked = [file for file in candidates if looks_like_dicom(_start_of(file))]
    by_uid: dict[str, list[_Image]] = {}
    # Files of before 1993 lack the mark. They are tried only where no file has it, as each try costs a millisecond.
    for file in marked or candidates:
        image = _read_header(file)
        if image is not None:
            by_uid.setdefault(image.text(_SERIES_UID), []).append(image)
    if not by_uid:
        raise ImageFileError(
            f"{folder}: there are no DICOM images in this folder ({len(candidates)} files looked at). "
            "Give the folder that holds the slices of one series, or, for NIfTI, NRRD and the like, the file itself."
        )

    def by_number(series: _Series) -> tuple[float, str]:
        return (float(series.number) if series.number.isdigit() else np.inf, series.uid)

    return sorted((_Series(uid, tuple(images)) for uid, images in by_uid.items()), key=by_number)


def _files_in(folder: Path, depth: int) -> Iterable[Path]:
    entries = sorted(folder.iterdir())
    for entry in entries:
        hidden_or_index = entry.name.startswith(".") or entry.name.upper() == "DICOMDIR"
        if entry.is_file() and not hidden_or_index:
            yield entry
    for entry in entries:
        if depth > 0 and not entry.name.startswith(".") and entry.is_dir():
            yield from _files_in(entry, depth - 1)


def _start_of(path: Path, count: int = 132) -> bytes:
    with naming(path), path.open("rb") as stream:
        return stream.read(count)


def _read_header(path: Path) -> _Image | None:
    """Return the file's header, or ``None`` where it holds no image (a report, contours, another kind of file)."""
    reader = sitk.ImageFileReader()
    reader.SetImageIO("GDCMImageIO")
    reader.SetFileName(os.fspath(path))
    try:
        reader.ReadImageInformation()
    except RuntimeError as error:
        # A slice that was cut short must not pass for a file of another kind: it would be interpolated over.
        if re.search(
            rb"\x08\x00\x60\x00(?:CS..|\x02\x00\x00\x00)(?:CT|MR)", _start_of(path, _MODALITY_IS_WITHIN), re.DOTALL
        ):
            raise ImageFileError(
                f"{path}: this DICOM file is damaged, cut short or of a kind that cannot be decoded. Copy the series "
                "again, or move the file elsewhere if it does not belong to it."
            ) from error
        return None
    return _Image(path, {key: reader.GetMetaData(key) for key in reader.GetMetaDataKeys()})


def _series_of_file(path: Path, found: list[_Series]) -> str:
    for series in found:
        if any(image.path == path for image in series.images):
            return series.uid
    raise ImageFileError(f"{path}: is not a DICOM image. Give one slice of the series, or its folder.")


def _choose(path: Path, found: list[_Series], wanted: str | int | None) -> _Series:
    if wanted is None and len(found) == 1:
        return found[0]
    if wanted is not None:
        text = str(wanted).strip()
        matches = [s for s in found if s.uid == text] or [s for s in found if s.number == text]
        if not matches and text.isdigit() and 1 <= int(text) <= len(found):
            matches = [found[int(text) - 1]]
        if len(matches) == 1:
            return matches[0]
    listed = [f"  {place}. {series.describe()}" for place, series in enumerate(found[:_MOST_SERIES_LISTED], 1)]
    if len(found) > _MOST_SERIES_LISTED:
        listed.append(f"  ... and {len(found) - _MOST_SERIES_LISTED} more")
    problem = "one is needed" if wanted is None else f"no single one of them is {str(wanted)!r}"
    raise ImageFileError(
        f"{path}: holds {len(found)} DICOM series, and {problem}. Choose with --series (in Python, series=): its "
        "UID, its number, or its place in this list; or give a folder that holds one series:\n" + "\n".join(listed)
    )


def _load(series: _Series) -> Slices:
    """Read all pixels of a series, with the position of each slice."""
    first = series.images[0]
    for image in series.images:
        if image.text(_SAMPLES) not in ("", "1"):
            raise ImageFileError(f"{image.path}: is a colour image; CT and MRI are gray. Choose another series.")
        if image.text(_PHOTOMETRIC) == "MONOCHROME1":
            raise ImageFileError(f"{image.path}: its gray values are inverted (MONOCHROME1), not HU. {_OTHER_EXPORT}")
    if any(image.frames > 1 for image in series.images):
        if len(series.images) > 1:
            raise ImageFileError(
                f"{first.path}: the series has {len(series.images)} files, some with several frames. {_OTHER_EXPORT}"
            )
        return _load_frames(first)
    orientation = first.numbers(_ORIENTATION, 6, "image orientation")
    spacing = first.numbers(_PIXEL_SPACING, 2, "pixel spacing")
    positions = []
    for image in series.images:
        positions.append(image.numbers(_POSITION, 3, "image position"))
        same_size = all(image.text(tag) == first.text(tag) for tag in (_ROWS, _COLUMNS))
        if not same_size or np.abs(image.numbers(_PIXEL_SPACING, 2, "pixel spacing") - spacing).max() > 1e-4:
            raise ImageFileError(
                f"{image.path}: differs in size or pixel spacing from {first.path.name} of the same series. "
                "Move the slices that do not belong to it elsewhere."
            )
        if np.abs(image.numbers(_ORIENTATION, 6, "image orientation") - orientation).max() > 1e-3:
            raise ImageFileError(
                f"{image.path}: points in another direction than {first.path.name} of the same series (a localizer?). "
                "Move the slices that do not belong to it elsewhere."
            )
    pixels = np.empty((len(series.images), int(first.text(_ROWS)), int(first.text(_COLUMNS))), np.float32)
    for k, image in enumerate(series.images):
        pixels[k] = _pixels(image.path)[0]
    return Slices(pixels, np.array(positions), orientation, (spacing[1], spacing[0]))


def _pixels(path: Path) -> npt.NDArray[np.float32]:
    with naming(path):
        image = sitk.ReadImage(os.fspath(path), sitk.sitkFloat32, "GDCMImageIO")
        array: npt.NDArray[np.float32] = sitk.GetArrayFromImage(image)
        return array


def _load_frames(image: _Image) -> Slices:
    """Read a multi-frame file.

    GDCM does not hand out the positions of the frames, so they are taken from the bytes of the header. This stands only
    because it is checked: there must be exactly one position a frame, and one orientation, spacing and rescale for all.
    """
    header = image.path.read_bytes().partition(b"\xe0\x7f\x10\x00")[0]
    positions = _decimals(header, b"\x20\x00\x32\x00", 3)
    orientations = _decimals(header, b"\x20\x00\x37\x00", 6)
    spacings = _decimals(header, b"\x28\x00\x30\x00", 2)
    rescales = (_decimals(header, b"\x28\x00\x53\x10", 1), _decimals(header, b"\x28\x00\x52\x10", 1))
    one_value = all(np.ptp(values, axis=0).max(initial=0) < 1e-4 for values in (orientations, spacings) if len(values))
    # GDCM applies the first frame's rescale to all.
    one_scale = all(np.ptp(values) == 0 for values in rescales if len(values))
    if len(positions) != image.frames or not len(orientations) or not len(spacings) or not one_value or not one_scale:
        raise ImageFileError(
            f"{image.path}: the {image.frames} frames of this multi-frame DICOM file cannot be placed with certainty: "
            f"{len(positions)} positions, {'one' if one_value and one_scale else 'several'} orientation, spacing or "
            f"rescale. {_OTHER_EXPORT}"
        )
    pixels = _pixels(image.path)
    if len(pixels) != image.frames:
        raise ImageFileError(f"{image.path}: has {len(pixels)} of its {image.frames} frames. {COPY_AGAIN}")
    return Slices(pixels, positions, orientations[0], (spacings[0][1], spacings[0][0]))


def _decimals(header: bytes, tag: bytes, count: int) -> npt.NDArray[np.float64]:
    """Return all values, shape (n, count), of a decimal-string element in little-endian bytes (any VR encoding)."""
    found = []
    for match in re.finditer(re.escape(tag) + rb"(?:DS(..)|(..)\x00\x00)", header, re.DOTALL):
        length = int.from_bytes(match[1] or match[2], "little")
        try:
            values = [float(word) for word in header[match.end() : match.end() + length].split(b"\\")]
        except ValueError:
            continue
        if len(values) == count and np.isfinite(values).all():
            found.append(values)
    return np.array(found, dtype=np.float64).reshape(-1, count)
