"""The header of a DICOM file, read by pydicom without the pixels: the only reader of DICOM headers here."""

from __future__ import annotations

import logging
import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, Literal

import numpy as np

from BrainFusionLib.errors import ImageFileError
from BrainFusionLib.geometry import FloatArray
from BrainFusionLib.io.reading import naming

if TYPE_CHECKING:
    from pydicom.dataset import Dataset

# Files of these names are read as DICOM even without its mark.
DICOM_SUFFIXES = (".dcm", ".dicom", ".ima")

# What a message calls an attribute, and the sequence of functional groups that holds it in a multi-frame file.
_MEANINGS = {
    "ImagePositionPatient": "image position",
    "ImageOrientationPatient": "image orientation",
    "PixelSpacing": "pixel spacing",
}
_GROUPS = {
    "ImagePositionPatient": "PlanePositionSequence",
    "ImageOrientationPatient": "PlaneOrientationSequence",
    "PixelSpacing": "PixelMeasuresSequence",
    "RescaleSlope": "PixelValueTransformationSequence",
    "RescaleIntercept": "PixelValueTransformationSequence",
}
# The first elements of a data set without the mark: of group 2 (file meta) or 8 (the identifying group).
_FIRST_GROUPS = (b"\x02\x00", b"\x08\x00")
_PIXEL_DATA = 0x7FE00010
_ITEM, _END_OF_ITEMS = 0xFFFEE000, 0xFFFEE0DD
_UNDEFINED = 0xFFFFFFFF


@dataclass(frozen=True)
class DicomFile:
    """A DICOM file with pixels, and its header.

    Attributes
    ----------
    path
        The file.
    dataset
        pydicom's data set, without the pixels.
    """

    path: Path
    dataset: Dataset

    def text(self, keyword: str) -> str:
        """Return an attribute of the file as text that can be printed; empty where it is missing or damaged."""
        try:
            value = self.dataset.get(keyword)
        except Exception:  # pydicom raises errors of many kinds for values that do not parse
            return ""
        words = "" if value is None else str(value).strip(" \0")
        return "".join(letter if letter.isprintable() else "?" for letter in words)

    def count(self, keyword: str, default: int) -> int:
        """Return an attribute that is a whole number, or `default` where the file does not give one."""
        try:
            return int(self.text(keyword))
        except ValueError:
            return default

    @property
    def frames(self) -> int:
        """How many slices the file holds."""
        return self.count("NumberOfFrames", 1)

    @property
    def size_ij(self) -> tuple[int, int]:
        """Columns and rows of a slice."""
        return self.count("Columns", 0), self.count("Rows", 0)

    def numbers(self, keyword: str, count: int) -> FloatArray:
        """Return the values of an attribute, shape (n, count): the file's own, each frame's and the frames' shared one.

        Values that are not finite numbers, or not `count` of them, are left out.
        """
        frames = [
            *self.dataset.get("PerFrameFunctionalGroupsSequence", []),
            *self.dataset.get("SharedFunctionalGroupsSequence", []),
        ]
        holders = [self.dataset, *(item for frame in frames for item in frame.get(_GROUPS[keyword], []))]
        found = [values for holder in holders if len(values := _values(holder, keyword)) == count]
        return np.array(found, dtype=np.float64).reshape(-1, count)

    def needed(self, keyword: str, count: int) -> FloatArray:
        """Return the values as `numbers` does.

        Raises
        ------
        ImageFileError
            There are none.
        """
        values = self.numbers(keyword, count)
        if not len(values):
            raise ImageFileError(
                f"{self.path}: its DICOM header does not give the {_MEANINGS[keyword]} ({keyword}), so its position "
                "in the body is unknown (a screenshot or a scanned document?). Export the original images."
            )
        return values


def _values(holder: Dataset, keyword: str) -> list[float]:
    try:
        value = holder.get(keyword)
        values = [float(number) for number in (value if hasattr(value, "__iter__") else [value])]
    except (TypeError, ValueError):
        return []
    return values if np.isfinite(values).all() else []


def looks_like_dicom(start: bytes) -> bool:
    """Return whether the first 132 bytes of a file are those of a DICOM file."""
    return start[128:132] == b"DICM"


def may_be_unmarked(start: bytes) -> bool:
    """Return whether a file without the mark may be DICOM of before 1993, which starts with the data set."""
    return start[:2] in _FIRST_GROUPS


@contextmanager
def quiet_pydicom() -> Iterator[None]:
    """Keep pydicom from warning: it quotes odd values, the patient's name among them."""
    logger = logging.getLogger("pydicom")
    before = logger.disabled
    logger.disabled = True
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.disabled = before


def read_image_header(path: Path, stream: BinaryIO) -> DicomFile | None:
    """Read the header of a DICOM file that is open at its start.

    Returns
    -------
    DicomFile or None
        ``None`` if the file holds no image: a report, contours, or, without the mark, any other kind of file.

    Raises
    ------
    ImageFileError
        The file is cut short or damaged. A slice must not pass for a file of another kind: it would be interpolated
        over.
    """
    import pydicom

    marked = looks_like_dicom(stream.read(132))
    stream.seek(0)
    try:
        dataset = pydicom.dcmread(stream, stop_before_pixels=True, force=True)
        is_empty, is_image = not len(dataset), _is_image(dataset)
        is_whole = "Rows" in dataset and _pixels_are_whole(dataset, stream)
    except OSError:
        raise
    except Exception as error:  # pydicom raises errors of many kinds for damaged headers
        if marked:
            raise damaged(path) from error
        return None
    if is_whole:
        return DicomFile(path, dataset)
    if is_image or (marked and is_empty):
        raise damaged(path)
    return None


def open_image_header(path: Path) -> DicomFile | None:
    """Read a file's header, as `read_image_header`; ``None`` also for a file that does not look like DICOM."""
    with naming(path), path.open("rb") as stream:
        start = stream.read(132)
        if not (looks_like_dicom(start) or may_be_unmarked(start)):
            return None
        stream.seek(0)
        return read_image_header(path, stream)


def damaged(path: Path) -> ImageFileError:
    """Return the error for a file of a series that cannot be used."""
    return ImageFileError(
        f"{path}: this DICOM file is damaged, cut short or of a kind that cannot be decoded. Copy the series again, or "
        "move the file elsewhere if it does not belong to it."
    )


def _is_image(dataset: Dataset) -> bool:
    """Return whether a data set says that it is an image, as far as it goes: it may be cut short."""
    if "Rows" in dataset or dataset.get("Modality") in ("CT", "MR"):
        return True
    kinds = (dataset.file_meta.get("MediaStorageSOPClassUID"), dataset.get("SOPClassUID"))
    return any(kind is not None and "Image Storage" in kind.name for kind in kinds)


def _pixels_are_whole(dataset: Dataset, stream: BinaryIO) -> bool:
    """Return whether the pixels follow at the stream's position, where pydicom stopped, and the file holds them all."""
    from pydicom.uid import DeflatedExplicitVRLittleEndian

    if dataset.file_meta.get("TransferSyntaxUID") == DeflatedExplicitVRLittleEndian:
        return True  # unpacked into memory; the decoder checks the length
    implicit, little_endian = dataset.original_encoding
    order: Literal["little", "big"] = "little" if little_endian else "big"
    end = os.fstat(stream.fileno()).st_size

    def number(count: int) -> int:
        return int.from_bytes(stream.read(count), order)

    def tag() -> int:
        return number(2) << 16 | number(2)

    if tag() != _PIXEL_DATA:
        return False
    if not implicit:
        stream.seek(4, os.SEEK_CUR)  # the type of the values
    length = number(4)
    if length != _UNDEFINED:
        return stream.tell() + length <= end
    while (item := tag()) == _ITEM:
        length = number(4)
        stream.seek(length, os.SEEK_CUR)
    return item == _END_OF_ITEMS
