"""Pixels of a DICOM file: plain ones and RLE are read here, other compressed ones by GDCM.

GDCM takes as many bytes as rows and columns say from where the pixels should be: of a file with fewer it shows what
stands in memory behind them. So lengths are checked before, and plain pixels never get there.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, Literal, cast

import numpy as np
import numpy.typing as npt

from BrainFusionLib.errors import ImageFileError
from BrainFusionLib.io.budget import refuse_too_large
from BrainFusionLib.io.dicom_codestreams import count_blocks, decode_rle, jpeg_header
from BrainFusionLib.io.dicom_streams import WholeReads, open_data_set
from BrainFusionLib.io.dicom_values import by_table, is_by_table, rescales
from BrainFusionLib.io.reading import is_utf8, naming, open_regular, refuse_undecodable

if TYPE_CHECKING:
    from pydicom.dataset import Dataset

_PIXEL_DATA = 0x7FE00010
# Float and Double Float Pixel Data: type and bits of a value.
_FLOATS = {0x7FE00008: ("f4", 32), 0x7FE00009: ("f8", 64)}
_TYPES_OF_PIXELS = (b"OB", b"OW", b"OF", b"OD", b"UN")
_ENCAPSULATED_PLAIN = "1.2.840.10008.1.2.1.98"
_ITEM, _END_OF_ITEMS = 0xFFFEE000, 0xFFFEE0DD
# What 12 bits hold: a CT has no larger step, but at metal in the few scanners that store more.
_LEAST_SPIKE = 4096
_MOST_NOISE = 0.02
_ROUNDING = 0.01
_UNDEFINED = 0xFFFFFFFF
# Padding to whole blocks; more says that rows, columns or frames in the header are not those of the pixels.
_LONGEST_TAIL = 4096
_LONGEST_JPEG_HEADER = 1 << 16
# Transfer syntaxes that are read: plain, RLE, and those of GDCM.
_ENCODINGS = frozenset(
    f"1.2.840.10008.1.2{end}"
    for end in ("", ".1", ".1.98", ".1.99", ".2", ".5", *(f".4.{n}" for n in (50, 51, 57, 70, 80, 81, 90, 91, 92, 93)))
)
# Of a slice of 4096 x 4096 pixels they are 16 x 16 pixels large.
_MOST_BLOCKS = 1 << 18
_JPEG_2000 = frozenset(f"1.2.840.10008.1.2.4.{n}" for n in (90, 91, 92, 93))
# Before 2004 the standard had pixels of 12 bits packed without a gap, two of them in three bytes.
_PACKED = 12
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
    fragments
        Of compressed pixels: start and length of each piece, without the table of offsets before them.
    behind
        Bytes behind plain pixels that are no elements of the data set.
    was_deflated
        Whether the data set was deflated: without a checksum, a changed byte changes any number of pixels.
    floats
        The type of floating-point values; empty for whole numbers.
    """

    start: int | None
    wanted: int = 0
    length: int = 0
    fragments: tuple[tuple[int, int], ...] = ()
    behind: int = 0
    was_deflated: bool = False
    floats: str = ""

    @property
    def tail(self) -> int:
        """Bytes that belong to nothing; one makes the length even."""
        more = self.length - self.wanted
        return (more if more > 1 else 0) + self.behind


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

    found = tag()
    floats, bits = _FLOATS.get(found, ("", int(dataset.get("BitsAllocated") or 0)))
    if found != _PIXEL_DATA and not floats:
        return None
    # The type of the values, where the data set has them: the file meta information of some says the contrary.
    here = stream.tell()
    implicit = stream.read(2) not in _TYPES_OF_PIXELS
    stream.seek(here + (0 if implicit else 4))
    length = number(4)
    start = stream.tell()
    if length != _UNDEFINED:
        if start + length > stream.length:
            return None
        stream.seek(start + length)
        behind = stream.length - stream.tell()
        try:
            read_dataset(cast("BinaryIO", stream), implicit, little_endian)
            behind = 0
        except Exception:  # pydicom raises errors of many kinds for what is not DICOM
            behind -= behind == 1
        if stream.was_deflated and behind:
            raise ValueError(f"{behind} bytes behind the data set: a damaged stream unpacks to more or fewer")
        wanted = _wanted(dataset, bits)
        return _checked(path, PixelData(start, wanted, length, (), behind, stream.was_deflated, floats))
    if floats:  # the standard packs whole numbers only
        return None
    fragments = []
    while (item := tag()) == _ITEM:
        length = number(4)
        if stream.tell() + length > stream.length:
            return None
        fragments.append((stream.tell(), length))
        stream.seek(length, os.SEEK_CUR)
    if item != _END_OF_ITEMS:
        return None
    number(4)  # the end mark's length, 0
    # GDCM reads what follows, too, and believes every length.
    read_dataset(cast("BinaryIO", stream), implicit, little_endian)
    return PixelData(None, fragments=tuple(fragments[1:]))


def spikes(frames: npt.NDArray[np.float32]) -> list[int]:
    """Return how many pixels of each frame stand out from both neighbours in their row as no pixels of images do.

    Parameters
    ----------
    frames
        Pixels, shape (frames, rows, columns).
    """
    low, high = np.percentile(frames[:, ::4, ::4], (1, 99), axis=(1, 2))
    # Of most frames, so that damaged ones do not set their own limit.
    usual = max(_LEAST_SPIKE, 2 * float(np.median(high - low)))
    found = []
    for frame, spread in zip(frames, high - low, strict=True):
        steps = np.diff(frame, axis=1)
        before, after = steps[:, :-1], steps[:, 1:]
        peaks = np.where((before < 0) != (after < 0), np.minimum(np.abs(before), np.abs(after)), 0)
        count = int(np.count_nonzero(peaks > usual))
        # Where bytes have moved by one, every pixel is noise of the whole range.
        noise = int(np.count_nonzero(peaks > max(_LEAST_SPIKE, spread / 4)))
        found.append(max(count, noise if noise > _MOST_NOISE * peaks.size else 0))
    return found


def _wanted(dataset: Dataset, bits: int) -> int:
    samples, frames = (int(dataset.get(name) or 1) for name in ("SamplesPerPixel", "NumberOfFrames"))
    if dataset.get("PhotometricInterpretation") == "YBR_FULL_422":  # two pixels share two of their colours
        samples = 2
    return (int(dataset.Rows) * int(dataset.Columns) * samples * frames * bits + 7) // 8


def _checked(path: Path, pixels: PixelData) -> PixelData:
    if pixels.wanted <= 0 or pixels.length < pixels.wanted or pixels.tail > _LONGEST_TAIL:
        raise ImageFileError(
            f"{path}: this DICOM file is damaged: rows, columns and frames in its header need {pixels.wanted} bytes of "
            f"pixels, but there are {pixels.length + pixels.behind}. Copy the series again, or move the file elsewhere "
            "if it does not belong to it."
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
    with naming(path):
        try:
            return _read(path, dataset, pixels)
        except (OSError, MemoryError):
            raise
        except Exception as error:  # pydicom raises errors of many kinds where attributes are damaged
            raise undecodable(path) from error


def _read(path: Path, dataset: Dataset, pixels: PixelData) -> npt.NDArray[np.float32]:
    from pydicom.uid import RLELossless

    shape = int(dataset.get("NumberOfFrames") or 1), int(dataset.Rows), int(dataset.Columns)
    syntax = dataset.file_meta.get("TransferSyntaxUID") or None
    unread = unread_encoding(path, dataset) if pixels.start is None else None
    if unread is not None:
        raise unread
    if pixels.start is None and syntax is None:
        raise unsaid_encoding(path)
    if min(shape) < 1 or (syntax is not None and syntax.is_encapsulated != (pixels.start is None)):
        raise undecodable(path)
    refuse_too_large(path, shape, 4)
    if pixels.start is not None:
        raw = _plain(path, pixels)
    elif syntax == RLELossless:
        raw = _rle(path, dataset, pixels, shape)
    elif syntax == _ENCAPSULATED_PLAIN:
        raw = _unwrapped(path, dataset, pixels, shape)
    else:
        return _decoded(path, dataset, pixels, shape)
    stored = _that_count(path, dataset, raw, pixels.floats).reshape(shape)
    if is_by_table(dataset):
        return by_table(stored, dataset)
    rescaled = np.empty(shape, np.float32)
    for k, (frame, (slope, intercept)) in enumerate(zip(stored, rescales(dataset, shape[0]), strict=True)):
        rescaled[k] = frame * np.float64(slope) + intercept
    return rescaled


def _plain(path: Path, pixels: PixelData) -> bytes:
    with open_regular(path) as file:
        stream = open_data_set(path, file)
        stream.seek(pixels.start or 0)
        return stream.read(pixels.wanted)


def _rle(path: Path, dataset: Dataset, pixels: PixelData, shape: tuple[int, int, int]) -> bytes:
    frames, rows, columns = shape
    if len(pixels.fragments) != frames:
        raise undecodable(path)
    value_bytes = int(dataset.BitsAllocated) // 8
    return b"".join(decode_rle(frame, rows * columns, value_bytes).tobytes() for frame in _fragments(path, pixels))


def _unwrapped(path: Path, dataset: Dataset, pixels: PixelData, shape: tuple[int, int, int]) -> bytes:
    """Return plain pixels that are wrapped as compressed ones are, one frame in each fragment."""
    frame_bytes = _wanted(dataset, int(dataset.BitsAllocated)) // shape[0]
    lengths = [length for _, length in pixels.fragments]
    if lengths != [frame_bytes + frame_bytes % 2] * shape[0]:
        raise undecodable(path)
    return b"".join(frame[:frame_bytes] for frame in _fragments(path, pixels))


def _fragments(path: Path, pixels: PixelData, most: int = _UNDEFINED) -> Iterator[bytes]:
    """Yield the pieces of compressed pixels, or the first bytes of each, at most so many."""
    with open_regular(path) as file:
        stream = open_data_set(path, file)
        for start, length in pixels.fragments:
            stream.seek(start)
            yield stream.read(min(length, most))


def _that_count(path: Path, dataset: Dataset, raw: bytes, floats: str) -> npt.NDArray[Any]:
    """Return the values in bytes of pixels: the bits that count, with their sign; of floats all bits."""
    order = "<" if dataset.original_encoding[1] else ">"
    if floats:
        return np.frombuffer(raw, order + floats)
    allocated, signed = int(dataset.BitsAllocated), int(dataset.get("PixelRepresentation") or 0)
    used = int(dataset.get("BitsStored") or allocated)
    high = int(dataset.get("HighBit", used - 1))
    if (allocated, signed) not in _TYPES and (allocated != _PACKED or order == ">"):
        raise ImageFileError(
            f"{path}: its Bits Allocated is {allocated}; pixels of this size are not read. Export the series with 16 "
            "bits a pixel, or convert it to NIfTI with dcm2niix."
        )
    if not 1 <= used <= high + 1 <= allocated:
        raise undecodable(path)
    if allocated == _PACKED:
        raw, allocated, order = _spread(raw), 16, "<"
    values = np.frombuffer(raw, order + _TYPES[allocated, signed])
    if used < allocated:  # shifted up, and down again with the sign
        values = np.right_shift(np.left_shift(values, allocated - 1 - high), allocated - used)
    return values


def _spread(packed: bytes) -> bytes:
    """Return pixels of 12 bits, the lowest bits first, as little-endian numbers of 16."""
    triples = np.frombuffer(packed + bytes(-len(packed) % 3), np.uint8).reshape(-1, 3).astype("<u2")
    pairs = np.column_stack([triples[:, 0] | (triples[:, 1] & 15) << 8, triples[:, 1] >> 4 | triples[:, 2] << 4])
    # Of an odd number of pixels, the last bits belong to none.
    return pairs.tobytes()[: len(packed) * 8 // _PACKED * 2]


def _decoded(path: Path, dataset: Dataset, pixels: PixelData, shape: tuple[int, int, int]) -> npt.NDArray[np.float32]:
    """Return pixels decoded and rescaled by GDCM, if they are what the header says."""
    import SimpleITK as sitk

    # GDCM takes as much memory as they say.
    headers = [jpeg_header(start) for start in _fragments(path, pixels, _LONGEST_JPEG_HEADER)]
    wanted, most_bits = (*shape[1:], int(dataset.get("SamplesPerPixel") or 1)), int(dataset.BitsAllocated)
    if headers[0] is None or any(found and (found[1:] != wanted or found.bits > most_bits) for found in headers):
        raise undecodable(path)
    is_2000 = dataset.file_meta.TransferSyntaxUID in _JPEG_2000
    blocks = count_blocks(b"".join(_fragments(path, pixels))) if is_2000 else 0
    if blocks > _MOST_BLOCKS:
        raise ImageFileError(
            f"{path}: its JPEG 2000 image is divided into {blocks} parts, as no scanner does, which would take memory "
            "without limit. Export the series uncompressed."
        )
    scales = rescales(dataset, shape[0])
    are_alike = len(set(scales)) == 1
    refuse_too_large(path, shape, 4 if are_alike else 8)
    with _as_stored(path, dataset, pixels) as readable:
        refuse_undecodable(readable)
        kind = sitk.sitkFloat32 if are_alike else sitk.sitkFloat64
        array = sitk.GetArrayFromImage(sitk.ReadImage(os.fspath(readable), kind, "GDCMImageIO"))
    if array.shape != shape:
        raise undecodable(path)
    if is_by_table(dataset):
        return by_table(array, dataset)
    if not are_alike:  # GDCM applies that of the first frame to all
        stored = (array - scales[0][1]) / scales[0][0]
        if np.abs(stored - np.rint(stored)).max() > _ROUNDING:
            raise undecodable(path)
        for frame, (slope, intercept) in zip(stored, scales, strict=True):
            frame[...] = np.rint(frame) * slope + intercept
    rescaled: npt.NDArray[np.float32] = (array if are_alike else stored).astype(np.float32, copy=False)
    return rescaled


@contextmanager
def _as_stored(path: Path, dataset: Dataset, pixels: PixelData) -> Iterator[Path]:
    """Give a file in which GDCM finds the values as they are stored: of MONOCHROME1 it inverts them, for display.

    It reads neither what is packed with gzip nor a name that is not UTF-8.
    """
    with open_regular(path) as file:
        stream = open_data_set(path, file)
        is_inverted = dataset.get("PhotometricInterpretation") == "MONOCHROME1"
        if not is_inverted and not stream.was_gzipped and is_utf8(path):
            yield path
            return
        content, start = stream.read(), pixels.fragments[0][0]
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder) / "slice"
        copy.write_bytes(content[:start].replace(b"MONOCHROME1", b"MONOCHROME2") + content[start:])
        yield copy


def unread_encoding(path: Path, dataset: Dataset) -> ImageFileError | None:
    """Return the error for a file whose pixels are encoded in a way that is not read here; ``None`` for all others."""
    syntax = dataset.file_meta.get("TransferSyntaxUID")
    if not syntax or not isinstance(syntax, str) or syntax in _ENCODINGS:
        return None
    name = getattr(syntax, "name", "")
    words = "a private way" if name == syntax or not name else name
    return ImageFileError(
        f"{path}: its pixels are encoded in {words}, which is not read. Export the series uncompressed, or convert "
        "it to NIfTI with dcm2niix."
    )


def unsaid_encoding(path: Path) -> ImageFileError:
    """Return the error for a file that does not say how it is encoded, where that cannot be seen."""
    return ImageFileError(
        f"{path}: this DICOM file has no file meta information (Transfer Syntax UID), which says how it is encoded, "
        "and cannot be read without. Export the series again, or convert it to NIfTI in the program that it comes from."
    )


def undecodable(path: Path) -> ImageFileError:
    """Return the error for a file of a series that cannot be used."""
    return ImageFileError(
        f"{path}: this DICOM file is damaged, cut short or of a kind that cannot be decoded. Copy the series again, or "
        "move the file elsewhere if it does not belong to it."
    )
