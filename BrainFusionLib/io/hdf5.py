"""A few small data sets out of an HDF5 file, as ITK writes its transforms: numbers and texts in groups.

Source: The HDF Group, "HDF5 File Format Specification", version 3. Read are superblocks of version 2 and 3, object
headers of version 2, links and layouts in their compact and contiguous forms; every length is checked against the file.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np

from BrainFusionLib.errors import ImageFileError
from BrainFusionLib.io.reading import open_regular

SIGNATURE = b"\x89HDF\r\n\x1a\n"
_LONGEST = 1 << 26
_MOST_MESSAGES, _MOST_VALUES, _LONGEST_TEXT = 1000, 4096, 1000
_UNDEFINED = (1 << 64) - 1
_DATASPACE, _LINK_INFO, _DATATYPE, _LINK, _LAYOUT, _CONTINUATION = 0x01, 0x02, 0x03, 0x06, 0x08, 0x10
_FLOAT, _TEXT, _VARIABLE = 1, 3, 9


class _Message(NamedTuple):
    kind: int
    start: int
    length: int


class Hdf5File:
    """An HDF5 file, whole in memory.

    Raises
    ------
    ValueError
        It is damaged; also in its methods.
    ImageFileError
        It is too long, or of a version or layout that is not read; also in its methods.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        with open_regular(path) as stream:
            self._content = stream.read(_LONGEST + 1)
        if len(self._content) > _LONGEST:
            raise self._not_read(f"has more than {_LONGEST} bytes, too many for linear transforms")
        version = self._content[8:9]
        if version in (b"\0", b"\1"):
            raise self._not_read("is HDF5 as older programs wrote it (superblock 0 or 1)")
        if version not in (b"\2", b"\3") or self._content[9:11] != b"\x08\x08":
            raise self._not_read("is HDF5 of an unknown version, or damaged")
        self._root = self._number(36, 8)

    def _not_read(self, what: str) -> ImageFileError:
        return ImageFileError(f"{self._path}: {what}. Load it in Slicer or ITK, and save the transform as .tfm.")

    def names(self, *group: str) -> list[str]:
        """Return the names in a group."""
        return list(self._links(self._find(group)))

    def numbers(self, *path: str) -> list[float]:
        """Return the numbers of a data set; none where it is empty."""
        kind, size, data, count = self._data_set(path)
        if kind != _FLOAT or size not in (4, 8):
            raise self._not_read(f"its {path[-1][:40]} does not hold floating-point numbers")
        if count > _MOST_VALUES or len(data) < count * size:
            raise ValueError(f"{path[-1][:40]} holds fewer bytes than it says, or far too many values")
        return [float(value) for value in np.frombuffer(data, f"<f{size}", count)]

    def text(self, *path: str) -> str:
        """Return the first text of a data set."""
        kind, size, data, count = self._data_set(path)
        if count < 1:
            raise ValueError(f"{path[-1][:40]} is empty")
        if kind == _TEXT:
            return data[: min(size, _LONGEST_TEXT)].rstrip(b"\0 ").decode("latin-1")
        if kind != _VARIABLE or len(data) < 16:
            raise ValueError(f"{path[-1][:40]} is not a text")
        length = int.from_bytes(data[:4], "little")
        heap, index = int.from_bytes(data[4:12], "little"), int.from_bytes(data[12:16], "little")
        return self._in_heap(heap, index)[: min(length, _LONGEST_TEXT)].rstrip(b"\0").decode("latin-1")

    def _bytes(self, start: int, length: int) -> bytes:
        if start < 0 or length < 0 or start + length > len(self._content):
            raise ValueError("an address or a length outside of the file")
        return self._content[start : start + length]

    def _number(self, start: int, length: int) -> int:
        return int.from_bytes(self._bytes(start, length), "little")

    def _find(self, path: tuple[str, ...]) -> int:
        address = self._root
        for name in path:
            links = self._links(address)
            if name not in links:
                raise ValueError(f"{name[:40]} is missing")
            address = links[name]
        return address

    def _messages(self, address: int) -> Iterator[_Message]:
        if self._bytes(address, 5) != b"OHDR\2":
            raise self._not_read("has parts of another version of HDF5, or is damaged")
        flags = self._number(address + 5, 1)
        start = address + 6 + (16 if flags & 0x20 else 0) + (4 if flags & 0x10 else 0)
        width = 1 << (flags & 3)
        blocks = [(start + width, self._number(start, width))]
        tracked = 2 if flags & 0x04 else 0
        count = 0
        while blocks:
            start, length = blocks.pop(0)
            self._bytes(start, length)
            end = start + length
            while start + 4 + tracked <= end:
                kind, size = self._number(start, 1), self._number(start + 1, 2)
                start += 4 + tracked
                count += 1
                if start + size > end or count > _MOST_MESSAGES:
                    raise ValueError("a header is damaged")
                if kind == _CONTINUATION:
                    block, length = self._number(start, 8), self._number(start + 8, 8)
                    if self._bytes(block, 4) != b"OCHK" or length < 8:
                        raise ValueError("a header is damaged")
                    blocks.append((block + 4, length - 8))
                else:
                    yield _Message(kind, start, size)
                start += size

    def _links(self, address: int) -> dict[str, int]:
        found = {}
        for kind, start, _ in self._messages(address):
            if kind == _LINK_INFO:
                flags = self._number(start + 1, 1)
                if self._number(start + 2 + (8 if flags & 1 else 0), 8) != _UNDEFINED:
                    raise self._not_read("holds more members than are read")
            elif kind == _LINK:
                flags = self._number(start + 1, 1)
                position = start + 2
                if flags & 0x08:
                    if self._number(position, 1) != 0:
                        raise self._not_read("holds a link that leads elsewhere")
                    position += 1
                position += (8 if flags & 0x04 else 0) + (1 if flags & 0x10 else 0)
                width = 1 << (flags & 3)
                length = self._number(position, width)
                name = self._bytes(position + width, min(length, _LONGEST_TEXT)).decode("utf-8", "replace")
                found[name] = self._number(position + width + length, 8)
        return found

    def _data_set(self, path: tuple[str, ...]) -> tuple[int, int, bytes, int]:
        """Return class and size of the values, the bytes, and how many values there are."""
        kind = size = -1
        count, data = 0, b""
        for message, start, _ in self._messages(self._find(path)):
            if message == _DATATYPE:
                kind, size = self._number(start, 1) & 0x0F, self._number(start + 4, 4)
                if kind == _FLOAT and self._number(start + 1, 1) & 1:
                    raise self._not_read("holds big-endian numbers")
            elif message == _DATASPACE:
                version, dimensions = self._number(start, 1), self._number(start + 1, 1)
                first = start + (8 if version == 1 else 4)
                is_null = version == 2 and self._number(start + 3, 1) == 2
                count = 0 if is_null else 1
                for n in range(min(dimensions, 32)):
                    count *= self._number(first + 8 * n, 8)
            elif message == _LAYOUT:
                version, layout = self._number(start, 1), self._number(start + 1, 1)
                if version not in (3, 4) or layout > 1:
                    raise self._not_read("holds data in pieces, too large for a linear transform")
                if layout == 0:
                    data = self._bytes(start + 4, self._number(start + 2, 2))
                elif self._number(start + 2, 8) != _UNDEFINED:
                    data = self._bytes(self._number(start + 2, 8), self._number(start + 10, 8))
        return kind, size, data, count

    def _in_heap(self, address: int, index: int) -> bytes:
        if self._bytes(address, 5) != b"GCOL\1":
            raise ValueError("a text is damaged")
        end = address + self._number(address + 8, 8)
        position = address + 16
        while position + 16 <= end:
            number, length = self._number(position, 2), self._number(position + 8, 8)
            if number == 0:
                break
            if number == index:
                return self._bytes(position + 16, length)
            position += 16 + (length + 7) // 8 * 8
        raise ValueError("a text is missing")
