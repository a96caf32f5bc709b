"""MetaImage files (``.mha``, and ``.mhd`` with its file of voxels), read and written with numpy and zlib.

ITK's reader is not used: it was measured to return 41 % wrong voxels in silence from a compressed file with one damaged
byte, and prints on the console past every switch.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from BrainFusionLib.errors import GeometryError, ImageFileError
from BrainFusionLib.geometry import ORTHOGONALITY_TOLERANCE, FloatArray, Grid, affine, orthonormalised
from BrainFusionLib.io.budget import refuse_too_large
from BrainFusionLib.io.data_files import data_file, is_pattern, numbered
from BrainFusionLib.io.reading import (
    CONVERT_AGAIN,
    SAVE_OR_COPY,
    naming,
    open_regular,
    refuse_bad_spacing,
    three_sizes,
    what_helps,
)
from BrainFusionLib.io.text_headers import (
    LONGEST_HEADER,
    LONGEST_LINE,
    MILLIMETRES,
    MOST_LINES,
    NO_AXES,
    NO_PLACE,
    NO_SPACING,
    PURPOSE,
    brief,
    exact,
    numbers,
    whole_numbers,
)
from BrainFusionLib.io.unpacking import Packing, is_gzip, put_as_floats, read_span
from BrainFusionLib.io.voxels import storable, write_plain
from BrainFusionLib.io.writing import atomic_output
from BrainFusionLib.tilt import check_axes, placed
from BrainFusionLib.volume import Volume

_TYPES = {
    "MET_CHAR": "i1", "MET_UCHAR": "u1", "MET_SHORT": "i2", "MET_USHORT": "u2", "MET_INT": "i4", "MET_UINT": "u4",
    "MET_LONG": "i4", "MET_ULONG": "u4", "MET_LONG_LONG": "i8", "MET_ULONG_LONG": "u8",
    "MET_FLOAT": "f4", "MET_DOUBLE": "f8",
}  # fmt: skip
_TRUE, _FALSE = ("T", "t", "1"), ("F", "f", "0")


def read_metaimage(path: Path) -> Volume:
    """Read an ``.mha`` file, or an ``.mhd`` with the file of voxels that it names.

    Returns
    -------
    Volume
        In LPS mm, in the file's own voxel order.

    Raises
    ------
    ImageFileError
        The file is not MetaImage, damaged, cut short, of a variant that is not read here, not 3D, or holds several
        numbers a voxel.
    GeometryError
        Zero spacing, or sheared or scaled axes.
    """
    with naming(path):
        header = _header(path)
        size = _size(path, header.entries)
        lps_from_ijk, notes = _affine(path, header.entries)
        check_axes(lps_from_ijk, size)
        array, notes_on_data = _voxels(path, header, size)
    return placed(array, lps_from_ijk, name=path.name, notes=(*notes, *notes_on_data))


def metaimage_size(path: Path) -> tuple[int, int, int]:
    """Return the size (i, j, k) that the header gives.

    Raises
    ------
    ImageFileError
        The header cannot be read, or is not that of a 3D volume.
    """
    with naming(path):
        return _size(path, _header(path).entries)


def metaimage_files(path: Path) -> list[Path]:
    """Return the header's file and those of the voxels.

    Raises
    ------
    ImageFileError
        The header cannot be read, or a file of voxels is missing.
    """
    with naming(path):
        header = _header(path)
        return list(dict.fromkeys([path, *_data_files(path, header, _size(path, header.entries))]))


def write_metaimage(volume: Volume, path: Path) -> None:
    """Write an ``.mha`` file, uncompressed, whole or not at all; positions are exact.

    Raises
    ------
    ImageFileError
        See `atomic_output`.
    """
    voxels = storable(volume.array_kji)
    with atomic_output(path) as temporary:
        write_plain(temporary, _header_bytes(volume.grid, voxels.dtype), voxels)


class _Header(NamedTuple):
    """The entries by name, where the header ends (bytes), and the lines after it, which name files in a list."""

    entries: dict[str, str]
    end: int
    lines_after: list[str]

    def says(self, key: str, default: bool = False) -> bool:
        """Return a truth value as MetaIO reads it, by its first letter.

        Raises
        ------
        ValueError
            The letter is none of those.
        """
        word = self.entries.get(key)
        if word is None:
            return default
        if word[:1] not in _TRUE + _FALSE or not word:
            raise ValueError(f"{key} must be True or False, but is {brief(word)}")
        return word[0] in _TRUE


def _header(path: Path) -> _Header:
    with open_regular(path) as stream:
        text = stream.read(LONGEST_HEADER)
    entries: dict[str, str] = {}
    end = 0
    while "ElementDataFile" not in entries:
        stop = text.find(b"\n", end)
        line = text[end : stop if stop >= 0 else len(text)]
        key, equals, value = line[:LONGEST_LINE].decode("latin-1").partition("=")
        if not equals or (stop < 0 and key.strip() != "ElementDataFile") or len(entries) >= MOST_LINES:
            raise ImageFileError(f"{path}: is not a MetaImage file, or its header is cut short. {what_helps(text)}")
        if len(line) > LONGEST_LINE:
            raise ValueError(f"the line of {brief(key)} has {len(line)} letters")
        if key.strip() in entries and entries[key.strip()] != value.strip() and key.strip() != "Comment":
            raise ValueError(f"it has the entry {brief(key.strip())} twice")
        entries[key.strip()] = value.strip()
        end = stop + 1 if stop >= 0 else len(text)
    for key in ("DimSize", "ElementType"):
        if key not in entries:
            raise ImageFileError(f"{path}: its MetaImage header lacks the entry {key}. {CONVERT_AGAIN}")
    lines_after = text[end:].decode("latin-1").splitlines() if entries["ElementDataFile"].startswith("LIST") else []
    return _Header(entries, end, [line.strip() for line in lines_after if line.strip()])


def _numbers(path: Path, entries: dict[str, str], key: str) -> list[float]:
    try:
        return numbers(entries[key])
    except ValueError as error:
        raise ImageFileError(
            f"{path}: the header's {key} must be numbers, but is {brief(entries[key])}. {SAVE_OR_COPY}"
        ) from error


def _size(path: Path, entries: dict[str, str]) -> tuple[int, int, int]:
    _numbers(path, entries, "DimSize")
    sizes = whole_numbers(entries["DimSize"])
    if whole_numbers(entries.get("NDims", str(len(sizes)))) != [len(sizes)]:
        raise ValueError(f"it says {brief(entries['NDims'])} axes, and gives {len(sizes)} sizes")
    return three_sizes(path, sizes)


def _affine(path: Path, entries: dict[str, str]) -> tuple[FloatArray, list[str]]:
    notes = []
    dimensions = len(entries["DimSize"].split())

    def entry(names: tuple[str, ...], default: FloatArray, note: str | None = None) -> FloatArray:
        name = next((n for n in names if n in entries), None)
        if name is None:
            if note:
                notes.append(note)
            return default
        values = np.array(_numbers(path, entries, name))
        if values.size != dimensions**default.ndim:
            raise ImageFileError(
                f"{path}: the header's {name} has {values.size} numbers, not as many as its axes need."
            )
        # A further axis of one element does not move the first three.
        return values.reshape((dimensions,) * default.ndim)[(slice(3),) * default.ndim]

    if entries.get("DistanceUnits", "mm").strip("? ").lower() not in ("", *MILLIMETRES):
        raise GeometryError(
            f"lengths must be in mm, but the header's units are {brief(entries['DistanceUnits'])}. Convert the file."
        )
    spacing = entry(("ElementSpacing", "ElementSize"), np.ones(3), NO_SPACING)
    refuse_bad_spacing(spacing.tolist())
    origin = entry(("Offset", "Position", "Origin"), np.zeros(3), NO_PLACE)
    # Each row of the matrix in the file is the direction of one index axis.
    direction = entry(("TransformMatrix", "Rotation", "Orientation"), np.eye(3), NO_AXES).T
    letters = entries.get("AnatomicalOrientation", "RAI").upper()
    if NO_AXES in notes and letters != "RAI" and re.fullmatch("[RLAPIS]{3}", letters):
        raise GeometryError(
            f"the header says that the axes run as {brief(letters)}, but gives no TransformMatrix, which is what "
            "programs read. Save it again with its directions."
        )
    if np.abs((direction**2).sum(axis=0) - 1).max() > ORTHOGONALITY_TOLERANCE:
        orthonormalised(direction)  # says that they are scaled
    return affine(direction * spacing, origin), notes


def _voxels(path: Path, header: _Header, size: tuple[int, int, int]) -> tuple[npt.NDArray[np.float32], list[str]]:
    entries = header.entries
    kind, channels = entries["ElementType"], entries.get("ElementNumberOfChannels", "1")
    if whole_numbers(channels) != [1] or kind not in _TYPES:
        raise ImageFileError(
            f"{path}: one number per voxel is needed, but the file holds vectors, colours or another kind of values "
            f"({brief(channels)} x {brief(kind)}). Convert it to gray values first."
        )
    if not header.says("BinaryData", default=True):
        raise ImageFileError(f"{path}: MetaImage with its voxels as text is not read. Save it as one .mha file.")
    # Two names of one thing; what files of some ultrasound systems give is the second.
    said = {header.says(key) for key in ("BinaryDataByteOrderMSB", "ElementByteOrderMSB") if key in entries}
    if len(said) > 1:
        raise ValueError("BinaryDataByteOrderMSB and ElementByteOrderMSB contradict each other")
    big_endian = True in said
    dtype = np.dtype((">" if big_endian else "<") + _TYPES[kind])
    refuse_too_large(path, size, dtype.itemsize)
    files = _data_files(path, header, size)
    count = size[0] * size[1] * size[2] * dtype.itemsize // len(files)
    is_compressed = header.says("CompressedData")
    array = np.empty((len(files), count // dtype.itemsize), np.float32)
    notes: list[str] = []
    for number, file in enumerate(files):
        with naming(file):
            start = header.end if file == path else _start(entries, file, count)
            packing: Packing = "plain" if not is_compressed else "gzip" if is_gzip(file, start) else "zlib"
            raw, notes_on_data = read_span(file, count, start=start, packing=packing, floats=array[number])
        put_as_floats(array[number], raw.view(dtype))
        notes += [note for note in notes_on_data if note not in notes]
    scale = {"Slope": 1.0, "Offset": 0.0}
    for what in scale:
        name = f"ElementToIntensityFunction{what}"
        if name in entries:
            (scale[what],) = _numbers(path, entries, name)
    if scale["Slope"] == 0:
        raise ImageFileError(
            f"{path}: its header makes all values equal (ElementToIntensityFunctionSlope is 0). Remove this line from "
            "the header, if the values are meant as they are stored."
        )
    if tuple(scale.values()) != (1, 0):
        notes.append("the header scales the values (ElementToIntensityFunction), as few readers do; they were scaled.")
        array = array * np.float32(scale["Slope"]) + np.float32(scale["Offset"])
    return array.reshape(size[::-1]), notes


def _start(entries: dict[str, str], file: Path, count: int) -> int:
    """Return where the voxels begin in a file of their own; at -1 they are its end."""
    (skipped,) = whole_numbers(entries.get("HeaderSize", "0")) or [0]
    return skipped if skipped >= 0 else max(0, file.stat().st_size - count)


def _data_files(path: Path, header: _Header, size: tuple[int, int, int]) -> list[Path]:
    """Return the files of the voxels: the header's own, one beside it, or one of them for each slice."""
    source = header.entries["ElementDataFile"]
    if source.upper() == "LOCAL":
        return [path]
    if source.startswith("LIST"):
        if source.split()[1:] not in ([], ["2D"], ["2"]):
            raise ImageFileError(f"{path}: its list of files ({brief(source)}) is not read. Save it as one .mha file.")
        names = header.lines_after
    elif is_pattern(source) and len(words := source.rsplit(maxsplit=3)) == 4 and is_pattern(words[0]):
        names = numbered(path, words[0], words[1:])
    else:
        return [data_file(path, source)]
    if len(names) != size[2]:
        raise ImageFileError(f"{path}: names {len(names)} files for its {size[2]} slices. {CONVERT_AGAIN}")
    return [data_file(path, name) for name in names]


def _header_bytes(grid: Grid, dtype: np.dtype[Any]) -> bytes:
    """Return the header that goes before uncompressed voxels of little-endian int16 or float32 in an ``.mha`` file."""
    kind = {"i2": "MET_SHORT", "f4": "MET_FLOAT"}[dtype.str[1:]]
    lines = (
        "ObjectType = Image",
        "NDims = 3",
        f"Comment = {PURPOSE}",
        "BinaryData = True",
        "BinaryDataByteOrderMSB = False",
        "CompressedData = False",
        f"TransformMatrix = {exact(grid.direction.T.ravel(), ' ')}",
        f"Offset = {exact(grid.origin_lps_mm, ' ')}",
        "CenterOfRotation = 0 0 0",
        f"ElementSpacing = {exact(grid.spacing_ijk_mm, ' ')}",
        f"DimSize = {' '.join(map(str, grid.size_ijk))}",
        f"ElementType = {kind}",
        "ElementDataFile = LOCAL",
    )
    return "".join(line + "\n" for line in lines).encode("ascii")
