"""MATLAB's files of matrices (.mat, levels 4 and 5), as SPM and ANTs write them: small matrices of numbers, by name.

Sources: The MathWorks, "MAT-File Format" (level 5), and its chapter on level 4.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import numpy.typing as npt

from BrainFusionLib.io.reading import open_regular

# A transform takes 200 bytes.
_LONGEST, _MOST_VALUES, _MOST_MATRICES, _LONGEST_NAME = 1 << 20, 4096, 100, 256
_LEVEL_4_TYPES = {0: "f8", 1: "f4", 2: "i4", 3: "i2", 4: "u2", 5: "u1"}
_LEVEL_5_TYPES = {1: "i1", 2: "u1", 3: "i2", 4: "u2", 5: "i4", 6: "u4", 7: "f4", 9: "f8", 12: "i8", 13: "u8"}
_LEVEL_5_HEADER, _COMPRESSED, _MATRIX = 128, 15, 14
_NUMERIC_CLASSES = range(6, 16)


def is_mat(start: bytes) -> bool:
    """Return whether a file is of level 4 or 5, by its first 128 bytes."""
    return _level_5_order(start) is not None or _level_4_order(start) is not None


def read_mat(path: Path) -> dict[str, npt.NDArray[np.float64]]:
    """Return the matrices in a file by name, as `read_mat_list`."""
    return dict(read_mat_list(path))


def read_mat_list(path: Path) -> list[tuple[str, npt.NDArray[np.float64]]]:
    """Return the matrices of real numbers in a file with their names, in their order; others are left out.

    Raises
    ------
    ValueError
        It is not a MATLAB file of level 4 or 5, is damaged, or holds far more than transforms do.
    zlib.error
        Its compressed data are damaged.
    """
    with open_regular(path) as stream:
        content = stream.read(_LONGEST + 1)
    if len(content) > _LONGEST:
        raise ValueError(f"more than {_LONGEST} bytes, too long for matrices of transforms")
    order = _level_5_order(content)
    if order is not None:
        return list(_level_5(content[_LEVEL_5_HEADER:], order))
    if _level_4_order(content) is None:
        raise ValueError("no MATLAB file of level 4 or 5")
    return list(_level_4(content))


def _level_4_order(start: bytes) -> str | None:
    """Return the byte order of a file of level 4; ``None`` if it is none."""
    for order in "<>":
        head = np.frombuffer(start[:20].ljust(20, b"\xff"), order + "i4")
        kind, rows, columns, imaginary, name = (int(n) for n in head)
        machine, zero, precision, matrix = kind // 1000, kind // 100 % 10, kind // 10 % 10, kind % 10
        is_sound = machine == (order == ">") and zero == 0 and precision in _LEVEL_4_TYPES and matrix in (0, 1)
        if is_sound and kind >= 0 and min(rows, columns) >= 0 and imaginary in (0, 1) and 0 < name <= _LONGEST_NAME:
            return order
    return None


def _level_4(content: bytes) -> Iterator[tuple[str, npt.NDArray[np.float64]]]:
    position = 0
    for _ in range(_MOST_MATRICES):
        if position == len(content):
            return
        order = _level_4_order(content[position:])
        if order is None:
            raise ValueError("a matrix is damaged")
        head = np.frombuffer(content, order + "i4", 5, position)
        kind, rows, columns, imaginary, name_bytes = (int(n) for n in head)
        position += 20
        name = content[position : position + name_bytes].rstrip(b"\0").decode("latin-1")
        position += name_bytes
        dtype = np.dtype(order + _LEVEL_4_TYPES[kind // 10 % 10])
        count = rows * columns
        end = position + count * dtype.itemsize * (1 + imaginary)
        if count > _MOST_VALUES or end > len(content):
            raise ValueError(f"a matrix of {rows} x {columns} is cut short")
        if not imaginary and kind % 10 == 0:
            values = np.frombuffer(content, dtype, count, position)
            yield name, values.reshape(rows, columns, order="F").astype(np.float64)
        position = end
    raise ValueError("too many matrices")


def _level_5_order(start: bytes) -> str | None:
    return {b"IM": "<", b"MI": ">"}.get(start[126:128]) if start.startswith(b"MATLAB") else None


def _level_5(content: bytes, order: str) -> Iterator[tuple[str, npt.NDArray[np.float64]]]:
    for kind, data in _elements(content, order):
        if kind == _COMPRESSED:
            decoder = zlib.decompressobj()
            unpacked = decoder.decompress(data, _LONGEST)
            if not decoder.eof:
                raise ValueError("compressed data that are cut short, or far too long")
            parts = list(_elements(unpacked, order))
        else:
            parts = [(kind, data)]
        for part_kind, part in parts:
            found = _level_5_matrix(part, order) if part_kind == _MATRIX else None
            if found is not None:
                yield found


def _level_5_matrix(content: bytes, order: str) -> tuple[str, npt.NDArray[np.float64]] | None:
    parts = list(_elements(content, order))
    if len(parts) < 3 or len(parts[0][1]) < 4:
        return None
    flags = int(np.frombuffer(parts[0][1], order + "u4", 1)[0])
    if flags & 0xFF not in _NUMERIC_CLASSES or flags & 0x0800 or len(parts) != 4:  # others, or complex ones
        return None
    sizes = np.frombuffer(parts[1][1], order + "i4").tolist()
    kind, data = parts[3]
    if kind not in _LEVEL_5_TYPES or len(sizes) > 3 or min(sizes, default=-1) < 0:
        raise ValueError("a matrix is damaged")
    dtype = np.dtype(order + _LEVEL_5_TYPES[kind])
    count = int(np.prod(sizes, dtype=np.int64))
    if count > _MOST_VALUES or count * dtype.itemsize > len(data):
        raise ValueError("a matrix is cut short")
    values = np.frombuffer(data, dtype, count).reshape(sizes, order="F").astype(np.float64)
    return parts[2][1].rstrip(b"\0").decode("latin-1")[:_LONGEST_NAME], values


def _elements(content: bytes, order: str) -> Iterator[tuple[int, bytes]]:
    """Yield type and data of each element."""
    position = 0
    while position + 8 <= len(content):
        tag = np.frombuffer(content, order + "u4", 2, position)
        kind, length = int(tag[0]), int(tag[1])
        if kind >> 16:  # a small element: length and data in the tag's own eight bytes
            kind, length, start, end = kind & 0xFFFF, kind >> 16, position + 4, position + 8
            if length > 4:
                raise ValueError("an element is damaged")
        else:
            start = position + 8
            end = start + length if kind == _COMPRESSED else start + (length + 7) // 8 * 8
        if start + length > len(content):
            raise ValueError("an element is cut short")
        yield kind, content[start : start + length]
        position = end
