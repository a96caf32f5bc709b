"""The header of a DICOM file, read by pydicom without the pixels: the only reader of DICOM headers here."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator, MutableSequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

import numpy as np

from BrainFusionLib.errors import ImageFileError
from BrainFusionLib.geometry import FloatArray
from BrainFusionLib.io.dicom_pixels import PixelData, find_pixels, undecodable, unread_encoding, unsaid_encoding
from BrainFusionLib.io.dicom_streams import open_data_set, start_of
from BrainFusionLib.io.reading import naming, open_regular

if TYPE_CHECKING:
    from pydicom.dataset import Dataset
    from pydicom.uid import UID

# Files of these names are read as DICOM even without its mark.
DICOM_SUFFIXES = (".dcm", ".dicom", ".ima", ".dcm.gz")

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
# Defined terms of Modality (0008,0060), those that were retired among them.
_MODALITIES = frozenset({
    "ANN", "AR", "ASMT", "AU", "BDUS", "BI", "BMD", "CD", "CR", "CT", "CTPROTOCOL", "DD", "DG", "DM", "DMS",
    "DOC", "DX", "EC", "ECG", "EEG", "EMG", "EOG", "EPS", "ES", "FA", "FID", "FS", "GM", "HC", "HD", "IO", "IOL",
    "IVOCT", "IVUS", "KER", "KO", "LEN", "LP", "LS", "MA", "MG", "MR", "MS", "NM", "OAM", "OCT", "OP", "OPM",
    "OPR", "OPT", "OPTBSV", "OPTENF", "OPV", "OSS", "OT", "PA", "PLAN", "POS", "PR", "PT", "PX", "REG", "RESP",
    "RF", "RG", "RTDOSE", "RTIMAGE", "RTINTENT", "RTPLAN", "RTRAD", "RTRECORD", "RTSEGANN", "RTSTRUCT", "RWV",
    "SC", "SEG", "SM", "SMR", "SR", "SRF", "ST", "STAIN", "TEXTUREMAP", "TG", "US", "VA", "VF", "XA",
    "XAPROTOCOL", "XC",
})  # fmt: skip
_INDEX = "1.2.840.10008.1.3.10"
# The first elements of a data set without the mark: of group 2 (file meta) or 8 (the identifying group), either order.
_FIRST_TAGS = frozenset(
    number.to_bytes(2, order) + element.to_bytes(2, order)
    for number, elements in ((2, (0, 1, 2, 3, 0x10)), (8, (0, 1, 5, 6, 8, 0x12, 0x13, 0x14, 0x15, 0x16, 0x18)))
    for element in elements
    for order in ("little", "big")
)


@dataclass(frozen=True)
class DicomFile:
    """A DICOM file with pixels, and its header.

    Attributes
    ----------
    path
        The file.
    dataset
        pydicom's data set, without the pixels.
    pixels
        Where the pixels are.
    """

    path: Path
    dataset: Dataset
    pixels: PixelData

    def text(self, keyword: str) -> str:
        """Return an attribute of the file as text that can be printed; empty where it is missing or damaged."""
        try:
            value = self.dataset.get(keyword)
        except Exception:  # pydicom raises errors of many kinds for values that do not parse
            return ""
        return as_text(value)

    def count(self, keyword: str, default: int) -> int:
        """Return an attribute that is a whole number, or `default` where the file does not give one."""
        try:
            return int(self.text(keyword))
        except ValueError:
            return default

    @property
    def modality(self) -> str:
        """The modality, if it is one of the standard's defined terms; else nothing: it stands in reports."""
        return defined_modality(self.text("Modality"))

    @property
    def frames(self) -> int:
        """How many slices the file holds."""
        return self.count("NumberOfFrames", 1) or 1  # 0 is written for one

    @property
    def is_colour(self) -> bool:
        """Whether its pixels are colours, each by itself or by a table."""
        return self.count("SamplesPerPixel", 1) != 1 or self.text("PhotometricInterpretation").startswith("PALETTE")

    @property
    def size_ij(self) -> tuple[int, int]:
        """Columns and rows of a slice."""
        return self.count("Columns", 0), self.count("Rows", 0)

    def numbers(self, keyword: str, count: int) -> FloatArray:
        """Return the values of an attribute, shape (n, count): the file's own, each frame's and the frames' shared one.

        Values that are not finite numbers, or not `count` of them, are left out.

        Raises
        ------
        ImageFileError
            The groups are damaged.
        """
        try:
            frames = [
                *self.dataset.get("PerFrameFunctionalGroupsSequence", []),
                *self.dataset.get("SharedFunctionalGroupsSequence", []),
            ]
            holders = [self.dataset, *(item for frame in frames for item in frame.get(_GROUPS[keyword], []))]
        except Exception as error:  # pydicom parses sequences only here, and raises errors of many kinds
            raise undecodable(self.path) from error
        found = [values for holder in holders if len(values := values_in(holder, keyword)) == count]
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


def as_text(value: object) -> str:
    """Return a value of an attribute as text that can be printed, several with slashes between them."""
    words = "" if value is None else "/".join(map(str, value)) if isinstance(value, MutableSequence) else str(value)
    return "".join(letter if letter.isprintable() else "?" for letter in words.strip(" \0"))


def values_in(holder: Dataset, keyword: str) -> list[float]:
    """Return the numbers of an attribute; none where it is missing or damaged, or where one is not finite."""
    try:
        value = holder.get(keyword)
        texts = [value] if isinstance(value, str) or not hasattr(value, "__iter__") else value
        # Some programs write numbers as their country does: 0,5.
        values = [float(text.replace(",", ".") if isinstance(text, str) else text) for text in texts]
    except Exception:  # as above
        return []
    return values if np.isfinite(values).all() else []


@dataclass(frozen=True)
class OtherObject:
    """A DICOM file without an image: an index, a report, raw data; `kind` says which, in the standard's words."""

    kind: str


def defined_modality(text: str) -> str:
    """Return the modality if it is a defined term of the standard, else nothing: any other text may be a name."""
    return text if text in _MODALITIES else ""


def looks_like_dicom(start: bytes) -> bool:
    """Return whether the first 132 bytes of a file are those of a DICOM file."""
    return start[128:132] == b"DICM"


def may_be_unmarked(start: bytes) -> bool:
    """Return whether a file without the mark may be DICOM of before 1993, which starts with the data set."""
    return start[:4] in _FIRST_TAGS


def starts_like_dicom(start: bytes) -> bool:
    """Return whether a file may be DICOM, marked or not, by its first 132 bytes."""
    return looks_like_dicom(start) or may_be_unmarked(start)


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


def read_header(path: Path, stream: BinaryIO) -> DicomFile | OtherObject | None:
    """Read the header of a DICOM file that is open at its start.

    Returns
    -------
    DicomFile, OtherObject or None
        ``None`` for a file without the mark that is not DICOM.

    Raises
    ------
    ImageFileError
        The file is cut short or damaged. A slice must not pass for a file of another kind: it would be interpolated
        over.
    """
    import pydicom

    marked, has_meta = looks_like_dicom(start_of(stream)), True
    try:
        data_set_bytes = open_data_set(path, stream)
        has_meta = data_set_bytes.has_meta
        dataset = pydicom.dcmread(data_set_bytes, stop_before_pixels=True, force=True)
        other = _other_kind(dataset)
        if other is not None and len(dataset):
            return OtherObject(other)
        is_image = _is_image(dataset)
        pixels = find_pixels(path, dataset, data_set_bytes) if "Rows" in dataset else None
    except OSError:
        raise
    except Exception as error:  # pydicom raises errors of many kinds for damaged headers
        if marked:
            raise (undecodable(path) if has_meta else unsaid_encoding(path)) from error
        return None
    if pixels is not None:
        return DicomFile(path, dataset, pixels)
    if is_image or (marked and not len(dataset)):
        raise unread_encoding(path, dataset) or undecodable(path)
    return OtherObject(defined_modality(str(dataset.get("Modality"))) or "unknown kind") if marked else None


def read_image_header(path: Path, stream: BinaryIO) -> DicomFile | None:
    """Read the header of an image as `read_header` does; ``None`` for every other file."""
    found = read_header(path, stream)
    return found if isinstance(found, DicomFile) else None


def open_image_header(path: Path) -> DicomFile | None:
    """Read a file's header, as `read_image_header`; ``None`` also for a file that does not look like DICOM."""
    with naming(path), open_regular(path) as stream:
        start = start_of(stream)
        if not starts_like_dicom(start):
            return None
        return read_image_header(path, stream)


def _classes(dataset: Dataset) -> list[UID]:
    """Return what a file says that it is, twice where it is sound."""
    found = (dataset.file_meta.get("MediaStorageSOPClassUID"), dataset.get("SOPClassUID"))
    return [uid for uid in found if uid]


def _other_kind(dataset: Dataset) -> str | None:
    """Return what an object without an image is, in the standard's words; ``None`` for images and where unknown.

    Raw data, spectra and reports carry the modality of the images that they belong to, and some of them rows and
    columns: only the class tells.
    """
    classes = {str(uid): uid for uid in _classes(dataset)}
    if len(classes) != 1:  # none, or damaged
        return None
    uid = next(iter(classes.values()))
    if uid == _INDEX:
        return "index file (DICOMDIR)"
    if uid.is_private:
        return None if "Rows" in dataset else "private object"
    return uid.name if uid.name != str(uid) and "Image Storage" not in uid.name else None


def _is_image(dataset: Dataset) -> bool:
    """Return whether a data set says that it is an image, as far as it goes: it may be cut short."""
    if "Rows" in dataset or dataset.get("Modality") in ("CT", "MR"):
        return True
    return any("Image Storage" in uid.name for uid in _classes(dataset))
