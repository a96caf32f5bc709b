"""Pixels of a DICOM file: what is stored plainly is read here, what is compressed by GDCM.

GDCM takes as many bytes as rows and columns say from where the pixels should be: of a file with fewer it shows what
stands in memory behind them. So lengths are checked before, and plain pixels never get there.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, Literal, cast

import numpy as np
import numpy.typing as npt

from BrainFusionLib.errors import ImageFileError
from BrainFusionLib.io.budget import refuse_too_large
from BrainFusionLib.io.dicom_streams import WholeReads, open_data_set
from BrainFusionLib.io.reading import naming, open_regular, refuse_undecodable

if TYPE_CHECKING:
    from pydicom.dataset import Dataset

_PIXEL_DATA = 0x7FE00010
_ITEM, _END_OF_ITEMS = 0xFFFEE000, 0xFFFEE0DD
_UNDEFINED = 0xFFFFFFFF
# Padding to whole blocks; more says that rows, columns or frames in the header are not those of the pixels.
_LONGEST_TAIL = 4096
_TYPES = {(8, 0): "u1", (8, 1): "i1", (16, 0): "u2", (16, 1): "i2", (32, 0): "u4", (32, 1): "i4"}


@dataclass(frozen=True)
class PixelData:
    """Where the pixels of a file are.

    Attributes
    ----------
    start
        First byte of plain pixels, in the file or in its unpacked copy; ``None`` where they are compressed.
    wanted, length
        Bytes that rows, columns and frames need, and that there are. Of compressed pixels neither is known.
    """

    start: int | None
    wanted: int = 0
    length: int = 0

    @property
    def tail(self) -> int:
        """Bytes behind the pixels; one makes the length even."""
        more = self.length - self.wanted
        return more if more > 1 else 0


def find_pixels(path: Path, dataset: Dataset, stream: WholeReads) -> PixelData | None:
    """Return where the pixels are, from the stream's position on, where pydicom stopped.

    Returns
    -------
    PixelData or None
        ``None`` if none follow, or the file ends before they do.

    Raises
    ------
    ImageFileError
        They are more or fewer bytes than rows, columns and frames need.
    """
    from pydicom.filereader import read_dataset

    implicit, little_endian = (bool(value) for value in dataset.original_encoding)
    order: Literal["little", "big"] = "little" if little_endian else "big"

    def number(count: int) -> int:
        return int.from_bytes(stream.read(count), order)

    def tag() -> int:
        return number(2) << 16 | number(2)

    if tag() != _PIXEL_DATA:
        return None
    if not implicit:
        stream.seek(4, os.SEEK_CUR)  # the type of the values
    length = number(4)
    start = stream.tell()
    if length != _UNDEFINED:
        if start + length > stream.length:
            return None
        return _checked(path, PixelData(start, _wanted(dataset), length))
    while (item := tag()) == _ITEM:
        length = number(4)
        if stream.tell() + length > stream.length:
            return None
        stream.seek(length, os.SEEK_CUR)
    if item != _END_OF_ITEMS:
        return None
    number(4)  # the end mark's length, 0
    # GDCM reads what follows, too, and believes every length.
    read_dataset(cast("BinaryIO", stream), implicit, little_endian)
    return PixelData(None)


def _wanted(dataset: Dataset) -> int:
    bits = int(dataset.get("BitsAllocated") or 0)
    counts = [int(dataset.get(name) or 1) for name in ("SamplesPerPixel", "NumberOfFrames")]
    return (int(dataset.Rows) * int(dataset.Columns) * counts[0] * counts[1] * bits + 7) // 8


def _checked(path: Path, pixels: PixelData) -> PixelData:
    if pixels.wanted <= 0 or pixels.length < pixels.wanted or pixels.tail > _LONGEST_TAIL:
        raise ImageFileError(
            f"{path}: this DICOM file is damaged: rows, columns and frames in its header need {pixels.wanted} bytes of "
            f"pixels, but there are {pixels.length}. Copy the series again, or move the file elsewhere if it does not "
            "belong to it."
        )
    return pixels


def read_pixels(path: Path, dataset: Dataset, pixels: PixelData) -> npt.NDArray[np.float32]:
    """Return the pixels of a file, shape (frames, rows, columns), rescaled by the file's own slope and intercept.

    Parameters
    ----------
    path
        The file.
    dataset
        Its header, by pydicom.
    pixels
        Where they are.

    Raises
    ------
    ImageFileError
        They cannot be decoded, or would not fit into memory.
    """
    frames, rows, columns = int(dataset.get("NumberOfFrames") or 1), int(dataset.Rows), int(dataset.Columns)
    with naming(path):
        refuse_too_large(path, (frames, rows, columns), 4)
        if pixels.start is None:
            array = _decoded(path)
            if array.shape != (frames, rows, columns):
                raise undecodable(path)
            return array
        stored = _stored(path, dataset, pixels).reshape(frames, rows, columns)
        try:
            slope, intercept = _rescale(dataset)
        except (TypeError, ValueError) as error:
            raise undecodable(path) from error
        if not np.isfinite([slope, intercept]).all():
            raise undecodable(path)
        rescaled: npt.NDArray[np.float32] = (stored * np.float64(slope) + intercept).astype(np.float32)
        return rescaled


def _stored(path: Path, dataset: Dataset, pixels: PixelData) -> npt.NDArray[Any]:
    """Return plain pixels as they are stored: the bits that count, with their sign."""
    allocated, signed = int(dataset.BitsAllocated), int(dataset.get("PixelRepresentation") or 0)
    used = int(dataset.get("BitsStored") or allocated)
    high = int(dataset.get("HighBit", used - 1))
    if (allocated, signed) not in _TYPES or not 1 <= used <= high + 1 <= allocated:
        raise undecodable(path)
    with open_regular(path) as file:
        stream = open_data_set(path, file)
        stream.seek(pixels.start or 0)
        raw = stream.read(pixels.wanted)
    order = "<" if dataset.original_encoding[1] else ">"
    values = np.frombuffer(raw, order + _TYPES[allocated, signed])
    if used < allocated:  # shifted up, and down again with the sign
        up = allocated - 1 - high
        values = np.right_shift(np.left_shift(values, up), allocated - used)
    return values


def _rescale(dataset: Dataset) -> tuple[float, float]:
    """Return slope and intercept: the file's own, or those of the first functional group that has any."""
    groups = [
        *dataset.get("SharedFunctionalGroupsSequence", []),
        *list(dataset.get("PerFrameFunctionalGroupsSequence", []))[:1],
    ]
    for holder in (dataset, *(item for group in groups for item in group.get("PixelValueTransformationSequence", []))):
        if holder.get("RescaleSlope") is not None or holder.get("RescaleIntercept") is not None:
            slope, intercept = holder.get("RescaleSlope"), holder.get("RescaleIntercept")
            return float(slope if slope is not None else 1) or 1.0, float(intercept if intercept is not None else 0)
    return 1.0, 0.0


def _decoded(path: Path) -> npt.NDArray[np.float32]:
    import SimpleITK as sitk

    refuse_undecodable(path)
    try:
        image = sitk.ReadImage(os.fspath(path), sitk.sitkFloat32, "GDCMImageIO")
    except RuntimeError as error:
        raise undecodable(path) from error
    array: npt.NDArray[np.float32] = sitk.GetArrayFromImage(image)
    return array


def undecodable(path: Path) -> ImageFileError:
    """Return the error for a file of a series that cannot be used."""
    return ImageFileError(
        f"{path}: this DICOM file is damaged, cut short or of a kind that cannot be decoded. Copy the series again, or "
        "move the file elsewhere if it does not belong to it."
    )
