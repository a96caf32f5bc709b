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
# Its markers: the coding style of all components and of one, the start of a tile's part, of its data, and the end.
_STYLE, _STYLE_OF_ONE, _TILE_PART, _DATA, _END_2000 = b"\xff\x52", b"\xff\x53", b"\xff\x90", b"\xff\x93", b"\xff\xd9"
_MARKER, _MOST_LEVELS = 0xFF, 32


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


def count_blocks(stream: bytes) -> int:
    """Return into how many precincts and code blocks tiles of JPEG 2000 images are divided at most, before decoding.

    The decoder takes about 500 bytes for each of them, however few bytes the image has: of 4096 x 4096 pixels in
    precincts of one pixel it took 10 GB.

    Parameters
    ----------
    stream
        One or several images, each after the other.

    Raises
    ------
    ValueError
        A header is damaged.
    """
    most, position = 0, stream.find(_START_2000)
    while position >= 0:
        right, bottom, left, top, width, height = np.frombuffer(stream, ">u4", 6, position + 8).tolist()
        size = (min(right - left, width), min(bottom - top, height))
        position += 2
        end_of_part = 0
        while (marker := stream[position : position + 2]) not in (_END_2000, b""):
            if marker == _DATA:  # up to the next part of a tile; the last one may go on to the end
                position = end_of_part if end_of_part > position else stream.find(_END_2000, position)
                if position < 0:
                    return most
                continue
            length = int.from_bytes(stream[position + 2 : position + 4], "big")
            segment = stream[position + 4 : position + 2 + length]
            if marker[0] != _MARKER or length < 2:
                raise ValueError("a JPEG 2000 image with a damaged header")
            if marker == _STYLE:
                most = max(most, _blocks(size, segment[0], segment[5:]))
            elif marker == _STYLE_OF_ONE:
                most = max(most, _blocks(size, segment[1], segment[2:]))
            elif marker == _TILE_PART:
                end_of_part = position + int.from_bytes(segment[2:6], "big")
            position += 2 + length
        position = stream.find(_START_2000, position)
    return most


def _blocks(size: tuple[int, int], flags: int, style: bytes) -> int:
    """Return the number of precincts and code blocks of a tile over all its resolutions."""
    levels = style[0]
    exponents = style[5 : 6 + levels] if flags & 1 else b"\xff" * (levels + 1)
    if levels > _MOST_LEVELS or len(exponents) <= levels:
        raise ValueError("a JPEG 2000 image with a damaged coding style")
    count = 0
    for level, exponent in zip(range(levels, -1, -1), exponents, strict=True):
        precinct = (exponent & 15, exponent >> 4)
        block = (min(precinct[0], (style[1] & 15) + 2), min(precinct[1], (style[2] & 15) + 2))
        for wide, high in (precinct, block):
            count += -(-size[0] // (1 << level + wide)) * -(-size[1] // (1 << level + high))
    return count
