"""NRRD files (``.nrrd``, and ``.nhdr`` with its files of voxels), read and written with numpy.

teem, the reader inside ITK and Slicer, is not used: it takes ``left-anterior-superior`` for another space (SimpleITK
2.4 to 2.5.5 turn such a head by 180 degrees), and a damaged header ends the process.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from BrainFusionLib.errors import ImageFileError
from BrainFusionLib.geometry import Grid, affine
from BrainFusionLib.io.budget import refuse_too_large
from BrainFusionLib.io.data_files import data_file, is_pattern, numbered
from BrainFusionLib.io.nrrd_header import NrrdHeader, read_axes, read_header, read_sizes, size_of
from BrainFusionLib.io.reading import CONVERT_AGAIN, COPY_AGAIN, naming, open_regular, refuse_bad_spacing
from BrainFusionLib.io.text_headers import LONGEST_LINE, PURPOSE, brief, exact, whole_numbers
from BrainFusionLib.io.unpacking import Packing, cut_short, put_as_floats, read_span
from BrainFusionLib.io.voxels import storable, write_gzipped
from BrainFusionLib.io.writing import atomic_output
from BrainFusionLib.tilt import check_axes, placed
from BrainFusionLib.volume import Volume

_TYPES = {
    name: code
    for code, names in {
        "i1": ("signed char", "int8", "int8_t"),
        "u1": ("uchar", "unsigned char", "uint8", "uint8_t"),
        "i2": ("short", "short int", "signed short", "signed short int", "int16", "int16_t"),
        "u2": ("ushort", "unsigned short", "unsigned short int", "uint16", "uint16_t"),
        "i4": ("int", "signed int", "int32", "int32_t"),
        "u4": ("uint", "unsigned int", "uint32", "uint32_t"),
        "i8": (
            "longlong",
            "long long",
            "long long int",
            "signed long long",
            "signed long long int",
            "int64",
            "int64_t",
        ),
        "u8": ("ulonglong", "unsigned long long", "unsigned long long int", "uint64", "uint64_t"),
        "f4": ("float",),
        "f8": ("double",),
    }.items()
    for name in names
}
_PACKINGS: dict[str, Packing] = {
    "raw": "plain", "gzip": "gzip", "gz": "gzip", "bzip2": "bzip2", "bz2": "bzip2",
}  # fmt: skip
_TEXTS = ("ascii", "text", "txt")
_BYTE_ORDERS = {"little": "<", "big": ">"}
# Voxels as text take 10 times the memory of the others; nobody stores a head so.
_LONGEST_TEXT = 1 << 27


def read_nrrd(path: Path) -> Volume:
    """Read an ``.nrrd`` file, or an ``.nhdr`` with the files of voxels that it names.

    Returns
    -------
    Volume
        In LPS mm (also where the file says RAS or LAS), in the file's own voxel order.

    Raises
    ------
    ImageFileError
        The file is not NRRD, damaged, cut short, not 3D, or holds several numbers a voxel.
    GeometryError
        Zero spacing, a space that says nothing of the patient, lengths in other units than mm, or sheared axes.
    """
    with naming(path):
        header = read_header(path)
        axes = read_axes(header)
        lengths = np.linalg.norm(axes.vectors_lps_mm, axis=0)
        refuse_bad_spacing(lengths.tolist())
        lps_from_ijk = affine(axes.vectors_lps_mm, axes.origin_lps_mm)
        check_axes(lps_from_ijk, axes.size_ijk)
        array, notes = _voxels(header, axes.size_ijk)
    return placed(array, lps_from_ijk, name=path.name, notes=(*axes.notes, *notes))


def nrrd_size(path: Path) -> tuple[int, int, int]:
    """Return the size (i, j, k) that the header gives.

    Raises
    ------
    ImageFileError
        The header cannot be read, or is not that of a 3D volume of gray values.
    """
    with naming(path):
        return size_of(read_header(path))


def nrrd_files(path: Path) -> list[Path]:
    """Return the header's file and those of the voxels.

    Raises
    ------
    ImageFileError
        The header cannot be read, or a file of voxels is missing.
    """
    with naming(path):
        return list(dict.fromkeys([path, *_data_files(read_header(path))]))


def write_nrrd(volume: Volume, path: Path) -> None:
    """Write an ``.nrrd`` file, compressed, whole or not at all; positions are exact.

    Raises
    ------
    ImageFileError
        See `atomic_output`.
    """
    voxels = storable(volume.array_kji)
    with atomic_output(path) as temporary:
        write_gzipped(temporary, _header_bytes(volume.grid, voxels.dtype), b"", voxels)


def _voxels(header: NrrdHeader, size: tuple[int, int, int]) -> tuple[npt.NDArray[np.float32], list[str]]:
    fields, path = header.fields, header.path
    kind, encoding = fields["type"].lower(), fields["encoding"].lower()
    if kind not in _TYPES:
        raise ImageFileError(
            f"{path}: one number per voxel is needed, but the file holds values of the type {brief(kind)}. "
            "Convert it to gray values first."
        )
    item_bytes = np.dtype(_TYPES[kind]).itemsize
    order = fields.get("endian", "little" if item_bytes == 1 or encoding in _TEXTS else "").lower()
    if order not in _BYTE_ORDERS:
        raise ValueError(f"the order of bytes ('endian') must be little or big, but is {brief(order)}")
    dtype = np.dtype(_BYTE_ORDERS[order] + _TYPES[kind])
    refuse_too_large(path, size, item_bytes)
    files = _data_files(header)
    voxels = size[0] * size[1] * size[2]
    if voxels % len(files):
        raise ImageFileError(f"{path}: names {len(files)} files for its {size[2]} slices. {CONVERT_AGAIN}")
    array = np.empty((len(files), voxels // len(files)), np.float32)
    notes: list[str] = []
    for number, file in enumerate(files):
        with naming(file):
            part, notes_on_data = _values(header, file, dtype, array[number], encoding)
            put_as_floats(array[number], part)
        notes += [note for note in notes_on_data if note not in notes]
    return array.reshape(size[::-1]), notes


def _values(
    header: NrrdHeader, file: Path, dtype: np.dtype[Any], floats: npt.NDArray[np.float32], encoding: str
) -> tuple[npt.NDArray[Any], list[str]]:
    """Return the numbers in a file of voxels, as many as `floats` has; they may stand at the end of `floats`."""
    count = len(floats)
    lines, skipped = (_whole(header.fields, name) for name in ("lineskip", "byteskip"))
    start = _after_lines(file, header.end if file == header.path else 0, lines)
    if encoding in _PACKINGS:
        packing, wanted = _PACKINGS[encoding], count * dtype.itemsize
        if skipped == -1 and packing == "plain":  # the voxels are the end of the file
            start, skipped = max(start, file.stat().st_size - wanted), 0
        if skipped < 0:
            raise ValueError(f"{skipped} bytes cannot be skipped")
        raw, notes = read_span(file, wanted, start=start, packing=packing, skip=skipped, floats=floats)
        return raw.view(dtype), notes
    if encoding != "hex" and encoding not in _TEXTS:
        raise ImageFileError(f"{header.path}: NRRD in the encoding {brief(encoding)} is not read. Save it with gzip.")
    if file.stat().st_size - start > _LONGEST_TEXT:
        raise ImageFileError(f"{file}: its voxels are {file.stat().st_size} bytes of text. Save it with gzip.")
    with open_regular(file) as stream:
        stream.seek(start + max(0, skipped))
        text = stream.read()
    if encoding == "hex":
        values = np.frombuffer(bytes.fromhex(text.decode("ascii")), np.uint8)
        wanted = count * dtype.itemsize
        if len(values) != wanted:
            raise cut_short(file, wanted, len(values))
        return values.view(dtype), []
    words = text.decode("ascii").replace(",", " ").split()
    if len(words) != count:
        remedy = COPY_AGAIN if len(words) < count else CONVERT_AGAIN
        raise ImageFileError(f"{file}: holds {len(words)} numbers, but its header promises {count}. {remedy}")
    values = np.array([float(word) for word in words])
    if dtype.kind != "f":
        limits = np.iinfo(dtype)
        if not ((values >= limits.min) & (values <= limits.max) & (values == np.rint(values))).all():
            kind = header.fields["type"]
            raise ImageFileError(f"{file}: holds numbers that are no {kind}, as its header says. {CONVERT_AGAIN}")
    return values, []


def _whole(fields: dict[str, str], name: str) -> int:
    number = whole_numbers(fields.get(name, "0"))
    if len(number) != 1:
        raise ValueError(f"'{name}' must be a whole number")
    return number[0]


def _after_lines(file: Path, start: int, count: int) -> int:
    """Return where the bytes after so many lines begin."""
    if count <= 0:
        return start
    with open_regular(file) as stream:
        stream.seek(start)
        for _ in range(count):
            if not stream.readline(LONGEST_LINE).endswith(b"\n"):
                raise ValueError(f"there are no {count} lines to skip")
        return stream.tell()


def _data_files(header: NrrdHeader) -> list[Path]:
    """Return the files of the voxels: the header's own, one beside it, or a row of them."""
    path = header.path
    if not header.is_detached:
        return [path]
    source = header.fields["datafile"]
    words = source.split()
    if words[:1] == ["LIST"]:
        names, subset = list(header.names_after), words[1:]
    elif is_pattern(source) and (parts := _pattern(source)):
        names, subset = numbered(path, parts[0], parts[1:4]), parts[4:]
    else:
        return [data_file(path, source)]
    sizes, _ = read_sizes(header)
    axes = whole_numbers(" ".join(subset)) or [len(sizes) - 1]
    wanted = int(np.prod(sizes[axes[0] :])) if 1 <= axes[0] < len(sizes) and len(axes) == 1 else 0
    slabs = axes == [len(sizes)] and names and sizes[-1] % len(names) == 0
    if not names or (not slabs and len(names) != wanted):
        raise ImageFileError(
            f"{path}: names {len(names)} files for its voxels, where {wanted} are needed. {CONVERT_AGAIN}"
        )
    return [data_file(path, name) for name in names]


def _pattern(source: str) -> list[str] | None:
    """Return the pattern, first, last, step and, where it is given, the number of axes that one file holds."""
    for count in (4, 3):
        parts = source.rsplit(maxsplit=count)
        numbers = [part.lstrip("+-").isdecimal() for part in parts[1:]]
        if numbers == [True] * count and is_pattern(parts[0]):
            return parts
    return None


def _header_bytes(grid: Grid, dtype: np.dtype[Any]) -> bytes:
    """Return the header that goes before gzipped voxels of little-endian int16 or float32 in an ``.nrrd`` file."""
    axes = (grid.direction * np.asarray(grid.spacing_ijk_mm)).T
    lines = (
        "NRRD0004",
        f"# {PURPOSE}",
        f"type: { ({'i2': 'short', 'f4': 'float'}[dtype.str[1:]]) }",
        "dimension: 3",
        "space: left-posterior-superior",
        f"sizes: {' '.join(map(str, grid.size_ijk))}",
        f"space directions: {' '.join('(' + exact(axis, ',') + ')' for axis in axes)}",
        "kinds: domain domain domain",
        "endian: little",
        "encoding: gzip",
        f"space origin: ({exact(grid.origin_lps_mm, ',')})",
        "",
    )
    return "".join(line + "\n" for line in lines).encode("ascii")
