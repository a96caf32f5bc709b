"""The bytes of a DICOM file as pydicom gets them: never more than there are, and unpacked where they are deflated."""

from __future__ import annotations

import io
import os
import zlib
from pathlib import Path
from typing import BinaryIO

from BrainFusionLib.errors import ImageFileError
from BrainFusionLib.io.budget import memory_bytes

_GZIP = b"\x1f\x8b"
_START = 132
_DEFLATED, _EXPLICIT = b"1.2.840.10008.1.2.1.99", b"1.2.840.10008.1.2.1\0\0\0"
_CHUNK = 1 << 20
# Tag, type and length of an element: what a reader asks for at the end of a file to see that it is the end.
_LONGEST_TAG = 12
# The header does not say how long the data are before they are unpacked. A blank slice shrinks a thousandfold, and is
# small; a file of many slices does not.
_ALWAYS_UNPACKED = 1 << 26
_MOST_RATIO = 100
_UNKNOWN_MEMORY = 1 << 33
_PREAMBLE, _LONGEST_META = 132, 1 << 16
# Types of values whose length has four bytes, after two that are not used.
_LONG_LENGTHS = (b"OB", b"OD", b"OF", b"OL", b"OV", b"OW", b"SQ", b"SV", b"UC", b"UN", b"UR", b"UT", b"UV")


class WholeReads(io.BufferedIOBase):
    """A stream that refuses to read beyond its end, where a damaged length would ask for 4 GB.

    Parameters
    ----------
    stream
        Open for reading, seekable.
    path
        The file, whose name pydicom keeps.
    was_deflated
        Whether it is an unpacked copy. Deflate alone has no checksum: that the copy ends where its data set does is all
        that can be checked.
    was_gzipped
        Whether it is a copy, unpacked from gzip.
    has_meta
        Whether it has file meta information, which says how the data set is encoded.
    """

    def __init__(
        self,
        stream: BinaryIO,
        path: Path,
        *,
        was_deflated: bool = False,
        was_gzipped: bool = False,
        has_meta: bool = True,
    ) -> None:
        super().__init__()
        self._stream = stream
        self.was_deflated = was_deflated
        self.was_gzipped = was_gzipped
        self.has_meta = has_meta
        self.name = str(path)
        here = stream.tell()
        self.length = stream.seek(0, os.SEEK_END)
        stream.seek(here)

    def read(self, size: int | None = -1, /) -> bytes:
        """Read bytes.

        Raises
        ------
        ValueError
            More of them are wanted than there are; but at the very end there is just nothing more.
        """
        left = self.length - self._stream.tell()
        if size is None or size < 0:
            return self._stream.read()
        if size <= left:
            return self._stream.read(size)
        if left > 0 and size > _LONGEST_TAG:
            raise ValueError(f"a length of {size} bytes, where the file has {left} more")
        return self._stream.read(max(0, left))

    def seek(self, offset: int, whence: int = os.SEEK_SET, /) -> int:
        """Go to a position."""
        return self._stream.seek(offset, whence)

    def tell(self) -> int:
        """Return the position."""
        return self._stream.tell()

    def readable(self) -> bool:
        """Say that it can be read."""
        return True

    def seekable(self) -> bool:
        """Say that it can go to a position."""
        return True


def start_of(stream: BinaryIO) -> bytes:
    """Return the first 132 bytes of a file that is open at its start, where the mark of DICOM ends; unpacked of gzip.

    The stream is at its start again. Nothing is returned of gzip that is damaged there.
    """
    start = stream.read(_START)
    if start.startswith(_GZIP):
        try:
            start = zlib.decompressobj(16 + zlib.MAX_WBITS).decompress(start + stream.read(_CHUNK), _START)
        except zlib.error:
            start = b""
    stream.seek(0)
    return start


def open_data_set(path: Path, stream: BinaryIO) -> WholeReads:
    """Return what pydicom is to read of a file that is open at its start: the file, or its unpacked copy in memory.

    A file may be packed with gzip, and its data set be deflated.

    Raises
    ------
    ImageFileError
        The file would unpack to far more than images do.
    EOFError, zlib.error
        Its compressed data are cut short or damaged.
    """
    start = stream.read(_LONGEST_META)
    was_gzipped = start.startswith(_GZIP)
    if was_gzipped:
        whole = io.BytesIO()
        stream.seek(0)
        _inflate(path, stream, whole, 16 + zlib.MAX_WBITS)
        whole.seek(0)
        stream, start = whole, whole.read(_LONGEST_META)
    end = _end_of_meta(start)
    if _DEFLATED not in start[:end]:
        stream.seek(0)
        return WholeReads(stream, path, was_gzipped=was_gzipped, has_meta=end not in (0, _PREAMBLE))
    # The copy says that it is not deflated, in as many bytes.
    copy = io.BytesIO()
    copy.write(start[:end].replace(_DEFLATED, _EXPLICIT))
    stream.seek(end)
    _inflate(path, stream, copy, -zlib.MAX_WBITS)
    copy.seek(0)
    return WholeReads(copy, path, was_deflated=True)


def _end_of_meta(start: bytes) -> int:
    """Return where the file meta information (group 2, explicit, little-endian) ends."""
    position = _PREAMBLE if start[_PREAMBLE - 4 : _PREAMBLE] == b"DICM" else 0
    while start[position : position + 2] == b"\x02\x00":
        is_long = start[position + 4 : position + 6] in _LONG_LENGTHS
        value = position + (12 if is_long else 8)
        length = int.from_bytes(start[value - (4 if is_long else 2) : value], "little")
        position = value + length
    if position >= _LONGEST_META:
        raise ValueError("the file meta information is longer than any")
    return min(position, len(start))


def _inflate(path: Path, stream: BinaryIO, copy: io.BytesIO, window: int) -> None:
    here = stream.tell()
    packed = stream.seek(0, os.SEEK_END)
    stream.seek(here)
    memory = memory_bytes()
    most = min(max(_ALWAYS_UNPACKED, _MOST_RATIO * packed), (memory or _UNKNOWN_MEMORY) // 2)
    decoder = zlib.decompressobj(window)
    data = stream.read(_CHUNK)
    while not decoder.eof:
        piece = decoder.decompress(data, _CHUNK)
        copy.write(piece)
        if copy.tell() > most:
            raise ImageFileError(
                f"{path}: its {packed} bytes of compressed DICOM unpack to more than {most}, more than images do or "
                "half of the memory holds. Export the original images uncompressed."
            )
        data = decoder.unconsumed_tail or stream.read(_CHUNK)
        if not data and not piece and not decoder.eof:
            raise EOFError("the compressed data end before their end mark")
    left = len(decoder.unused_data) + packed - stream.tell()
    if left > 1:  # one makes the length even
        raise EOFError(f"the compressed data have their end mark {left} bytes before their end")
