"""NRRD and MetaImage files: voxels behind a header in text.

MetaImage is read here with numpy and zlib, because ITK's reader was measured to return 41 % wrong voxels in silence
from a compressed file with one damaged byte, and prints on the console past every switch. NRRD, which has more
variants, is read by ITK (its decoder reports damage); its header is looked at first for what ITK lets through.
"""

from __future__ import annotations

import zlib
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import SimpleITK as sitk

from BrainFusionLib.errors import GeometryError, ImageFileError
from BrainFusionLib.geometry import FloatArray, Grid
from BrainFusionLib.io.reading import (
    COPY_AGAIN,
    cut_short,
    naming,
    quiet_itk,
    read_span,
    refuse_bad_spacing,
    three_sizes,
)
from BrainFusionLib.volume import Volume

# Far more than any header written by a program; keeps a file of another kind from being read whole as one line.
_LONGEST_HEADER = 1 << 16

_META_TYPES = {
    "MET_CHAR": "i1", "MET_UCHAR": "u1", "MET_SHORT": "i2", "MET_USHORT": "u2", "MET_INT": "i4", "MET_UINT": "u4",
    "MET_LONG": "i4", "MET_ULONG": "u4", "MET_LONG_LONG": "i8", "MET_ULONG_LONG": "u8",
    "MET_FLOAT": "f4", "MET_DOUBLE": "f8",
}  # fmt: skip

_NO_SPACING = "the header gives no voxel spacing: 1 mm was assumed along every axis."
_NO_AXES = "the header gives no orientation: assumed that i runs to the left, j to the back and k to the head (LPS)."

_PURPOSE = "BrainFusion: for research and planning review, not for diagnosis"


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
        entries, header_length = _meta_header(path)
        size = three_sizes(path, [int(n) for n in _numbers(path, entries, "DimSize")])
        grid, notes = _meta_grid(path, entries, size)
        array = _meta_voxels(path, entries, header_length, size)
    return Volume(array, grid, name=path.name, notes=tuple(notes))


def _meta_header(path: Path) -> tuple[dict[str, str], int]:
    """Return the entries by name, and where the header ends (bytes)."""
    with path.open("rb") as stream:
        text = stream.read(_LONGEST_HEADER)
    entries: dict[str, str] = {}
    end = 0
    while "ElementDataFile" not in entries:
        stop = text.find(b"\n", end)
        key, equals, value = text[end : stop if stop >= 0 else len(text)].decode("latin-1").partition("=")
        if not equals or (stop < 0 and key.strip() != "ElementDataFile"):
            raise ImageFileError(f"{path}: is not a MetaImage file, or its header is cut short. {COPY_AGAIN}")
        entries[key.strip()] = value.strip()
        end = stop + 1 if stop >= 0 else len(text)
    for key in ("DimSize", "ElementType"):
        if key not in entries:
            raise ImageFileError(f"{path}: its MetaImage header lacks the entry {key}. {COPY_AGAIN}")
    return entries, end


def _numbers(path: Path, entries: dict[str, str], key: str) -> list[float]:
    try:
        return [float(word) for word in entries[key].split()]
    except ValueError as error:
        raise ImageFileError(
            f"{path}: the header's {key} must be numbers, but is {entries[key]!r}. {COPY_AGAIN}"
        ) from error


def _meta_grid(path: Path, entries: dict[str, str], size: tuple[int, int, int]) -> tuple[Grid, list[str]]:
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

    spacing = entry(("ElementSpacing", "ElementSize"), np.ones(3), _NO_SPACING)
    refuse_bad_spacing(spacing.tolist())
    origin = entry(("Offset", "Position", "Origin"), np.zeros(3))
    # Each row of the matrix in the file is the direction of one index axis.
    direction = entry(("TransformMatrix", "Rotation", "Orientation"), np.eye(3), _NO_AXES).T
    return Grid(size, tuple(spacing), tuple(origin), direction), notes


def _meta_voxels(
    path: Path, entries: dict[str, str], header_length: int, size: tuple[int, int, int]
) -> npt.NDArray[np.float32]:
    def says(key: str) -> bool:
        return entries.get(key, "False").lower() in ("true", "1")

    kind, source = entries["ElementType"], entries["ElementDataFile"]
    if int(entries.get("ElementNumberOfChannels", "1")) != 1 or kind not in _META_TYPES:
        raise ImageFileError(
            f"{path}: one number per voxel is needed, but the file holds vectors, colours or another kind of values "
            f"({entries.get('ElementNumberOfChannels', '1')} x {kind}). Convert it to gray values first."
        )
    if entries.get("BinaryData", "True").lower() == "false" or source.startswith("LIST") or "%" in source:
        raise ImageFileError(
            f"{path}: MetaImage with its voxels as text or in one file per slice is not read. Save it as one .mha file."
        )
    local = source.upper() == "LOCAL"
    data_path = path if local else path.parent / source
    if not local and not data_path.exists():
        raise ImageFileError(f"{path}: {source}, the file of its voxels, is missing. Put both in one folder.")
    big_endian = says("BinaryDataByteOrderMSB") or says("ElementByteOrderMSB")
    dtype = np.dtype((">" if big_endian else "<") + _META_TYPES[kind])
    count = size[0] * size[1] * size[2] * dtype.itemsize
    start = header_length if local else max(0, int(entries.get("HeaderSize", "0")))
    with naming(data_path):
        length = data_path.stat().st_size
        if says("CompressedData"):
            raw = _unpacked(data_path, data_path.read_bytes()[start:], count)
        else:
            if entries.get("HeaderSize") == "-1":  # the voxels are the end of the file
                start = max(0, length - count)
            raw = read_span(data_path, start, count)
    with np.errstate(over="ignore"):
        return np.frombuffer(raw, dtype, count // dtype.itemsize).reshape(size[::-1]).astype(np.float32)


def _unpacked(path: Path, packed: bytes, count: int) -> bytes:
    decoder = zlib.decompressobj(wbits=47)  # zlib or gzip, whichever it says
    raw = decoder.decompress(packed, count)
    if len(raw) < count:
        raise cut_short(path, count, len(raw))
    if not decoder.eof:
        decoder.decompress(decoder.unconsumed_tail, 1)  # to the end, where the checksum is
    if not decoder.eof:
        raise ImageFileError(f"{path}: its compressed data are cut short, or longer than the header says. {COPY_AGAIN}")
    return raw


def read_nrrd(path: Path) -> Volume:
    """Read an ``.nrrd`` file, or an ``.nhdr`` with the file of voxels that it names.

    Returns
    -------
    Volume
        In LPS mm (also where the file says RAS), in the file's own voxel order.

    Raises
    ------
    ImageFileError
        The file is not NRRD, damaged, cut short, not 3D, or holds several numbers a voxel.
    GeometryError
        Zero or missing spacing, lengths in other units than mm, or sheared axes.
    """
    with naming(path), quiet_itk():
        notes = _check_nrrd_header(path)
        reader = sitk.ImageFileReader()
        reader.SetImageIO("NrrdImageIO")
        reader.SetFileName(str(path))
        reader.ReadImageInformation()
        if reader.GetNumberOfComponents() != 1 or "complex" in sitk.GetPixelIDValueAsString(reader.GetPixelID()):
            raise ImageFileError(
                f"{path}: one number per voxel is needed, but the file holds vectors, colours or complex numbers "
                f"({sitk.GetPixelIDValueAsString(reader.GetPixelID())}). Convert it to gray values first."
            )
        size = three_sizes(path, reader.GetSize())
        reader.SetOutputPixelType(sitk.sitkFloat32)
        image = reader.Execute()
        dimensions = image.GetDimension()
        direction = np.array(image.GetDirection()).reshape(dimensions, dimensions)[:3, :3]
        grid = Grid(size, image.GetSpacing()[:3], image.GetOrigin()[:3], direction)
        array = sitk.GetArrayFromImage(image).reshape(size[::-1])
    return Volume(array, grid, name=path.name, notes=tuple(notes))


def _check_nrrd_header(path: Path) -> list[str]:
    """Refuse what ITK would repair or ignore in silence, and return notes on what the header does not say."""
    with path.open("rb") as stream:
        text = stream.read(_LONGEST_HEADER)
    if not text.startswith(b"NRRD"):
        raise ImageFileError(f"{path}: is not an NRRD file: it does not begin with 'NRRD'. {COPY_AGAIN}")
    lines = text.replace(b"\r\n", b"\n").partition(b"\n\n")[0].decode("latin-1").splitlines()
    fields = {key.strip().lower(): value.strip() for key, _, value in (line.partition(":") for line in lines)}
    units = set(fields.get("space units", '"mm"').replace('"', " ").split())
    if units - {"mm"}:
        raise GeometryError(
            f"{path}: lengths must be in mm, but the header's space units are {units}. Convert the file."
        )
    if "space directions" not in fields:
        if "spacings" not in fields:
            return [_NO_SPACING, _NO_AXES]
        refuse_bad_spacing([float(word) for word in fields["spacings"].split()[:3]])
        return [_NO_AXES]
    vectors = fields["space directions"].replace("none", "(0,0,0)").strip("() ").split(")")
    lengths = [float(np.linalg.norm([float(n) for n in vector.strip("( ").split(",")])) for vector in vectors]
    if "none" not in fields["space directions"]:
        refuse_bad_spacing(lengths)
    elif len(lengths) <= 3:
        raise GeometryError("an axis has no direction in space, so this is not a 3D volume. Convert the file.")
    return [] if "space" in fields else [_NO_AXES]


def metaimage_header(grid: Grid, dtype: np.dtype[Any]) -> bytes:
    """Return the header that goes before uncompressed voxels of little-endian int16 or float32 in an ``.mha`` file."""
    kind = {"i2": "MET_SHORT", "f4": "MET_FLOAT"}[dtype.str[1:]]
    lines = (
        "ObjectType = Image",
        "NDims = 3",
        f"Comment = {_PURPOSE}",
        "BinaryData = True",
        "BinaryDataByteOrderMSB = False",
        "CompressedData = False",
        f"TransformMatrix = {_exact(grid.direction.T.ravel(), ' ')}",
        f"Offset = {_exact(grid.origin_lps_mm, ' ')}",
        "CenterOfRotation = 0 0 0",
        f"ElementSpacing = {_exact(grid.spacing_ijk_mm, ' ')}",
        f"DimSize = {' '.join(map(str, grid.size_ijk))}",
        f"ElementType = {kind}",
        "ElementDataFile = LOCAL",
    )
    return "".join(line + "\n" for line in lines).encode("ascii")


def nrrd_header(grid: Grid, dtype: np.dtype[Any]) -> bytes:
    """Return the header that goes before gzipped voxels of little-endian int16 or float32 in an ``.nrrd`` file."""
    axes = (grid.direction * np.asarray(grid.spacing_ijk_mm)).T
    lines = (
        "NRRD0004",
        f"# {_PURPOSE}",
        f"type: { ({'i2': 'short', 'f4': 'float'}[dtype.str[1:]]) }",
        "dimension: 3",
        "space: left-posterior-superior",
        f"sizes: {' '.join(map(str, grid.size_ijk))}",
        f"space directions: {' '.join('(' + _exact(axis, ',') + ')' for axis in axes)}",
        "kinds: domain domain domain",
        "endian: little",
        "encoding: gzip",
        f"space origin: ({_exact(grid.origin_lps_mm, ',')})",
        "",
    )
    return "".join(line + "\n" for line in lines).encode("ascii")


def _exact(numbers: Any, separator: str) -> str:
    return separator.join(f"{float(n):.17g}" for n in numbers)
