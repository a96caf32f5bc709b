"""Compressed pixels of DICOM: RLE decoded here, JPEG held against the header before GDCM decodes it.

Source: DICOM PS3.5, annex G (RLE, the PackBits of TIFF); ITU-T T.81, annex B (JPEG's frame header);
ITU-T T.800, annex A (JPEG 2000's). GDCM refuses sound
RLE images of few pixels, and takes a JPEG of 16 bits for one of 8 where the header says so.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

_RLE_HEADER = 64
_MOST_SEGMENTS = 15
_PADDING = (b"\0", b"\x80")
# Frame headers of JPEG, of all processes, and of JPEG-LS.
_FRAME_MARKERS = {*range(0xC0, 0xD0), 0xF7} - {0xC4, 0xC8, 0xCC}
_SCAN, _START = 0xDA, b"\xff\xd8"
# JPEG 2000: start, the header of sizes up to the first component, and the start of a file (JP2) around it.
_START_2000, _LENGTH_2000 = b"\xff\x4f\xff\x51", 45
_START_JP2 = b"\0\0\0\x0cjP"


class ImageHeader(NamedTuple):
    """What a compressed image says of itself."""

    bits: int
    rows: int
    columns: int
    components: int


def decode_rle(frame: bytes, pixels: int, value_bytes: int) -> npt.NDArray[np.uint8]:
    """Return the bytes of a frame, little-endian, shape (pixels, value_bytes).

    Raises
    ------
    ValueError
        The frame does not hold exactly so many pixels of so many bytes.
    """
    numbers = np.frombuffer(frame[:_RLE_HEADER].ljust(_RLE_HEADER, b"\0"), "<u4").tolist()
    count, starts = numbers[0], [*numbers[1 : numbers[0] + 1], len(frame)]
    if count != value_bytes or count > _MOST_SEGMENTS or starts[0] < _RLE_HEADER or sorted(starts) != starts:
        raise ValueError(f"{count} segments, where {value_bytes} are needed")
    values = np.empty((pixels, value_bytes), np.uint8)
    for n in range(count):  # the most significant byte first
        values[:, value_bytes - 1 - n] = _unpacked(frame[starts[n] : starts[n + 1]], pixels)
    return values


def _unpacked(packed: bytes, count: int) -> npt.NDArray[np.uint8]:
    unpacked = bytearray()
    position = 0
    while position < len(packed) and len(unpacked) < count:
        control = packed[position]
        if control < 128:
            unpacked += packed[position + 1 : position + 2 + control]
            position += 2 + control
        elif control > 128:
            unpacked += packed[position + 1 : position + 2] * (257 - control)
            position += 2
        else:
            position += 1
    if len(unpacked) != count or any(packed[n : n + 1] not in _PADDING for n in range(position, len(packed))):
        raise ValueError(f"another number of pixels than {count}")
    return np.frombuffer(unpacked, np.uint8)


def jpeg_header(frame: bytes) -> ImageHeader | None:
    """Return the header of a JPEG, JPEG-LS or JPEG 2000 image; ``None`` if it is none.

    Raises
    ------
    ValueError
        It begins like one, and has no whole header.
    """
    if frame.startswith(_START_JP2):
        frame = frame[frame.index(_START_2000) :]
    if frame.startswith(_START_2000):
        if len(frame) < _LENGTH_2000:
            raise ValueError("a JPEG 2000 image without a whole header")
        right, bottom, left, top = np.frombuffer(frame, ">u4", 4, 8).tolist()
        components = int.from_bytes(frame[_LENGTH_2000 - 5 : _LENGTH_2000 - 3], "big")
        return ImageHeader((frame[_LENGTH_2000 - 3] & 0x7F) + 1, bottom - top, right - left, components)
    if not frame.startswith(_START):
        return None
    position = 2
    while position + 9 < len(frame) and frame[position] == 0xFF:
        marker = frame[position + 1]
        if marker in _FRAME_MARKERS:
            sizes = np.frombuffer(frame, ">u2", 2, position + 5)
            return ImageHeader(frame[position + 4], int(sizes[0]), int(sizes[1]), frame[position + 9])
        if marker == _SCAN:
            break
        position += 1 if marker == 0xFF else 2 + int.from_bytes(frame[position + 2 : position + 4], "big")
    raise ValueError("a JPEG image without a frame header")
