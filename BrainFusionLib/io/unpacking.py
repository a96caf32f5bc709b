"""Bytes out of a file, plain or compressed: as many as its header promises, unpacked in pieces, and never more."""

from __future__ import annotations

import bz2
import gzip
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO, Literal, Protocol

import numpy as np
import numpy.typing as npt

from BrainFusionLib.errors import ImageFileError
from BrainFusionLib.io.deflate import GZIP, ZLIB, Inflater
from BrainFusionLib.io.reading import COPY_AGAIN, open_regular

Packing = Literal["plain", "gzip", "zlib", "bzip2"]

_CHUNK = 1 << 20
# What stands behind the voxels: padding and the like are a few bytes; more says that the header is not theirs.
_LONGEST_TAIL, _LONGEST_TAGS = 4096, 1 << 24
# What stands before the voxels in the compressed data: a header and its extensions.
_LONGEST_SKIP = 1 << 26
# Deflate cannot shrink more than 1032 times: a header that asks for more is not worth the memory.
_DEFLATE_RATIO = 1032
_GZIP = b"\x1f\x8b\x08"
_PACKED = (_GZIP, b"BZh", b"PK\x03\x04", b"\xfd7zXZ", b"\x28\xb5\x2f\xfd")


class _Decoder(Protocol):
    """What bz2's decoder offers, which `Inflater` offers for deflate's."""

    @property
    def eof(self) -> bool: ...
    @property
    def needs_input(self) -> bool: ...
    @property
    def unused_data(self) -> bytes: ...
    def decompress(self, data: bytes, max_length: int = -1) -> bytes: ...


def _decoder(packing: Packing) -> _Decoder:
    return bz2.BZ2Decompressor() if packing == "bzip2" else Inflater(GZIP if packing == "gzip" else ZLIB)


def is_gzip(path: Path, start: int = 0) -> bool:
    """Return whether a file is gzipped from a position on, by the bytes there, whatever its name says."""
    with open_regular(path) as stream:
        stream.seek(start)
        return stream.read(len(_GZIP)) == _GZIP


def read_start(path: Path, count: int) -> bytes:
    """Return the first `count` bytes (fewer if there are no more), unpacked where the file is gzipped."""
    packed = is_gzip(path)
    with open_regular(path) as stream:
        return (gzip.GzipFile(fileobj=stream) if packed else stream).read(count)


def read_span(
    path: Path,
    count: int,
    *,
    start: int = 0,
    packing: Packing = "plain",
    skip: int = 0,
    tags_follow: bool = False,
    floats: npt.NDArray[np.float32] | None = None,
) -> tuple[npt.NDArray[np.uint8], list[str]]:
    """Return `count` bytes of a file, and notes on what stands behind them.

    Compressed data are read to their end, so that their checksum is looked at; members that follow each other are one
    stream.

    Parameters
    ----------
    path
        The file.
    count
        How many bytes are wanted.
    start
        Where the data begin, compressed or not.
    packing
        How they are compressed.
    skip
        How many of the unpacked bytes to leave out.
    tags_follow
        Whether the format has tags behind the voxels, of up to 16 MiB.
    floats
        Flat; where the numbers go in the end (`put_as_floats`). The bytes come to stand at its own end if they fit, so
        that a large volume is not in memory twice.

    Raises
    ------
    ImageFileError
        There are fewer bytes; or behind them more than 4 KiB, or data that are compressed once more.
    EOFError, zlib.error, OSError
        The compressed data are damaged or cut short.
    """
    with open_regular(path) as stream:
        length = os.fstat(stream.fileno()).st_size
        if packing == "plain":
            first = start + skip
            if first + count > length:
                raise cut_short(path, first + count, length)
            stream.seek(first)
            data = _place_for(count, floats)
            if stream.readinto(data.data) < count:  # type: ignore[attr-defined]
                raise cut_short(path, first + count, length)
            return data, _notes_on_tail(path, stream.read(8), length - first - count, _longest_tail(tags_follow))
        if skip > _LONGEST_SKIP:
            raise ImageFileError(
                f"{path}: its voxels begin after {skip} unpacked bytes, too far for a sound header. {COPY_AGAIN}"
            )
        if packing != "bzip2" and skip + count > max(0, length - start) * _DEFLATE_RATIO:
            raise cut_short(path, skip + count, length)
        stream.seek(start)
        return _Filler(path, _place_for(count, floats), skip, _longest_tail(tags_follow)).fill(stream, packing)


def put_as_floats(
    floats: npt.NDArray[np.float32], values: npt.NDArray[Any], slope: float = 1.0, intercept: float = 0.0
) -> None:
    """Put scaled numbers into a flat array, which may hold them at its end: no number is overwritten before it is read.

    What is too large for float32 becomes infinite.
    """
    if values.dtype == floats.dtype and (slope, intercept) == (1.0, 0.0) and np.shares_memory(floats[:1], values[:1]):
        return
    with np.errstate(over="ignore"):
        for start in range(0, len(values), _CHUNK):
            part = values[start : start + _CHUNK]
            if (slope, intercept) != (1.0, 0.0):
                part = part.astype(np.float64) * slope + intercept
            floats[start : start + _CHUNK] = part


def _place_for(count: int, floats: npt.NDArray[np.float32] | None) -> npt.NDArray[np.uint8]:
    if floats is None or not 0 < count <= floats.nbytes:
        return np.empty(count, np.uint8)
    return floats.view(np.uint8)[-count:]


def _longest_tail(tags_follow: bool) -> int:
    return _LONGEST_TAGS if tags_follow else _LONGEST_TAIL


class _Filler:
    """Takes unpacked pieces until the wanted bytes are there, and counts what follows."""

    def __init__(self, path: Path, data: npt.NDArray[np.uint8], skip: int, longest_tail: int) -> None:
        self._path, self._longest_tail = path, longest_tail
        self._data = data
        self._filled, self._skip = 0, skip
        self._tail, self._tail_bytes = b"", 0

    def fill(self, stream: BinaryIO, packing: Packing) -> tuple[npt.NDArray[np.uint8], list[str]]:
        rest = stream.read(_CHUNK)
        while True:
            whole = self._skip == 0 and self._filled == len(self._data)
            decoder = _decoder(packing)
            for piece in _pieces(decoder, stream, rest):
                if whole:
                    raise _compressed_tail(self._path)
                self._take(piece)
            rest = decoder.unused_data
            if len(rest) < len(max(_PACKED, key=len)):
                rest += stream.read(_CHUNK)
            if not _begins(rest, packing):
                break
        if self._filled < len(self._data):
            raise cut_short(self._path, len(self._data), self._filled)
        self._add_tail(rest)
        while more := stream.read(_CHUNK):
            self._add_tail(more)
        return self._data, _notes_on_tail(self._path, self._tail, self._tail_bytes, self._longest_tail)

    def _take(self, piece: bytes) -> None:
        left_out = min(self._skip, len(piece))
        self._skip -= left_out
        taken = min(len(piece) - left_out, len(self._data) - self._filled)
        self._data[self._filled : self._filled + taken] = np.frombuffer(piece, np.uint8, taken, left_out)
        self._filled += taken
        self._add_tail(piece[left_out + taken :])

    def _add_tail(self, data: bytes) -> None:
        self._tail = self._tail or data[:8]
        self._tail_bytes += len(data)
        if self._tail_bytes > self._longest_tail:
            _notes_on_tail(self._path, self._tail, self._tail_bytes, self._longest_tail)


def _pieces(decoder: _Decoder, stream: BinaryIO, first: bytes) -> Iterator[bytes]:
    """Yield what one compressed member holds, at most `_CHUNK` bytes at a time."""
    data = first
    while True:
        piece = decoder.decompress(data, _CHUNK)
        if piece:
            yield piece
        if decoder.eof:
            return
        data = stream.read(_CHUNK) if decoder.needs_input else b""
        if decoder.needs_input and not data and not piece:
            raise EOFError("they end before their end mark")


def _begins(data: bytes, packing: Packing) -> bool:
    """Return whether another compressed member follows; zlib has no mark that it could be known by."""
    return (packing == "gzip" and data.startswith(_GZIP)) or (packing == "bzip2" and data.startswith(b"BZh"))


def _notes_on_tail(path: Path, start: bytes, count: int, longest: int) -> list[str]:
    if start.startswith(_PACKED):
        raise _compressed_tail(path)
    if count > longest:
        raise ImageFileError(
            f"{path}: is longer than its header says: more than {longest} bytes follow the voxels, so size or "
            "type of the voxels in the header may be wrong. Convert the original images again."
        )
    return [f"{count} bytes behind the voxels were ignored."] if count else []


def _compressed_tail(path: Path) -> ImageFileError:
    return ImageFileError(
        f"{path}: more compressed data follow the voxels, so the header is not theirs. Convert the original images "
        "again."
    )


def cut_short(path: Path, wanted: int, came: int) -> ImageFileError:
    """Return the error for a file with fewer bytes than its header promises."""
    return ImageFileError(
        f"{path}: is cut short: its header promises {wanted} bytes, but there are {came}. {COPY_AGAIN}"
    )
