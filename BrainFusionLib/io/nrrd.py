"""NRRD files (``.nrrd``, and ``.nhdr`` with its file of voxels).

They are read by ITK, because NRRD has many variants and ITK's decoder reports damage. The header is looked at first
for what ITK lets through.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from BrainFusionLib.errors import GeometryError, ImageFileError
from BrainFusionLib.geometry import Grid
from BrainFusionLib.io.reading import (
    COPY_AGAIN,
    naming,
    quiet_itk,
    refuse_bad_spacing,
    refuse_undecodable,
    three_sizes,
)
from BrainFusionLib.io.text_headers import LONGEST_HEADER, NO_AXES, NO_SPACING, PURPOSE, exact
from BrainFusionLib.io.voxels import storable, write_gzipped
from BrainFusionLib.io.writing import atomic_output
from BrainFusionLib.volume import Volume

if TYPE_CHECKING:
    import SimpleITK as sitk


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
    import SimpleITK as sitk

    refuse_undecodable(path)
    with naming(path), quiet_itk():
        notes = _check_header(path)
        reader, size = _opened(path)
        reader.SetOutputPixelType(sitk.sitkFloat32)
        image = reader.Execute()
        dimensions = image.GetDimension()
        direction = np.array(image.GetDirection()).reshape(dimensions, dimensions)[:3, :3]
        grid = Grid(size, image.GetSpacing()[:3], image.GetOrigin()[:3], direction)
        array = sitk.GetArrayFromImage(image).reshape(size[::-1])
    return Volume(array, grid, name=path.name, notes=tuple(notes))


def nrrd_size(path: Path) -> tuple[int, int, int]:
    """Return the size (i, j, k) that the header gives.

    Raises
    ------
    ImageFileError
        The header cannot be read, or is not that of a 3D volume of gray values.
    """
    refuse_undecodable(path)
    with naming(path), quiet_itk():
        return _opened(path)[1]


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


def _opened(path: Path) -> tuple[sitk.ImageFileReader, tuple[int, int, int]]:
    """Return ITK's reader with the header read, and the size that the header gives."""
    import SimpleITK as sitk

    reader = sitk.ImageFileReader()
    reader.SetImageIO("NrrdImageIO")
    reader.SetFileName(str(path))
    reader.ReadImageInformation()
    kind = sitk.GetPixelIDValueAsString(reader.GetPixelID())
    if reader.GetNumberOfComponents() != 1 or "complex" in kind:
        raise ImageFileError(
            f"{path}: one number per voxel is needed, but the file holds vectors, colours or complex numbers ({kind}). "
            "Convert it to gray values first."
        )
    return reader, three_sizes(path, reader.GetSize())


def _check_header(path: Path) -> list[str]:
    """Refuse what ITK would repair or ignore in silence, and return notes on what the header does not say."""
    with path.open("rb") as stream:
        text = stream.read(LONGEST_HEADER)
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
            return [NO_SPACING, NO_AXES]
        refuse_bad_spacing([float(word) for word in fields["spacings"].split()[:3]])
        return [NO_AXES]
    vectors = fields["space directions"].replace("none", "(0,0,0)").strip("() ").split(")")
    lengths = [float(np.linalg.norm([float(n) for n in vector.strip("( ").split(",")])) for vector in vectors]
    if "none" not in fields["space directions"]:
        refuse_bad_spacing(lengths)
    elif len(lengths) <= 3:
        raise GeometryError("an axis has no direction in space, so this is not a 3D volume. Convert the file.")
    return [] if "space" in fields else [NO_AXES]


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
