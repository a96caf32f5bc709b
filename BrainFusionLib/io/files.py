"""The door for files: volumes and transforms in and out, and every file written whole or not at all."""

from __future__ import annotations

import errno
import json
import os
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal, overload

import numpy as np
import numpy.typing as npt
import SimpleITK as sitk

from BrainFusionLib.errors import GeometryError, ImageFileError
from BrainFusionLib.geometry import ORTHOGONALITY_TOLERANCE, affine
from BrainFusionLib.io.dicom import DICOM_SUFFIXES, looks_like_dicom, read_dicom
from BrainFusionLib.io.leftovers import temporary_beside
from BrainFusionLib.io.nifti import nifti_header, read_nifti
from BrainFusionLib.io.reading import COPY_AGAIN, naming, quiet_itk
from BrainFusionLib.io.text_formats import metaimage_header, nrrd_header, read_metaimage, read_nrrd
from BrainFusionLib.transform import AffineTransform, RigidTransform, Transform
from BrainFusionLib.volume import Modality, Volume

_READERS = {
    ".nii": read_nifti, ".nii.gz": read_nifti, ".hdr": read_nifti, ".img": read_nifti,
    ".hdr.gz": read_nifti, ".img.gz": read_nifti,
    ".nrrd": read_nrrd, ".nhdr": read_nrrd, ".mha": read_metaimage, ".mhd": read_metaimage,
}  # fmt: skip
_READABLE = "NRRD (.nrrd, .nhdr), NIfTI (.nii, .nii.gz), MetaImage (.mha, .mhd), Analyze (.img/.hdr), or a DICOM folder"
_WRITABLE = ".nii.gz, .nii, .nrrd, .mha, or .img/.hdr"
TRANSFORM_SUFFIXES = (".tfm", ".txt")
# Where affine transforms are welcome, only what is rigid but for the rounding of single precision is taken for rigid.
_RIGID_BUT_FOR_ROUNDING = 1e-6

# Measured on a fused head of 256 x 256 x 220, one core: level 2 takes 0.7 s (int16) or 2.1 s (float32); level 6 takes
# 1.7 s or 3.8 s for files 2 % smaller.
_COMPRESSION_LEVEL = 2
_CHUNK = 1 << 20


def read_volume(
    path: str | os.PathLike[str], *, modality: Modality | None = None, series: str | int | None = None
) -> Volume:
    """Read a volume: NRRD, NIfTI, MetaImage, Analyze 7.5, or a DICOM series.

    Parameters
    ----------
    path
        A file; either file of a pair; a folder of DICOM slices; or one slice, which stands for its series.
    modality
        ``"CT"`` or ``"MR"``: what the volume is. Only DICOM files say it themselves.
    series
        Which DICOM series, where the folder holds several: its UID, its number, or its place in the error's list.

    Returns
    -------
    Volume
        Voxels float32, rescaled as the file says, in the file's own order (left-handed grids stay so), LPS mm.
        `notes` say in words what had to be assumed or resampled.

    Raises
    ------
    ImageFileError
        The file or folder is missing, unreadable, damaged, of an unknown kind, not one 3D volume of gray values.
    GeometryError
        Zero spacing, sheared axes, or slices that do not make one regular volume.
    ImageContentError
        DICOM files that say CT where an MRI was wanted, or the other way round.
    """
    path = Path(path)
    with naming(path):
        if path.is_dir() or _suffix(path) in (".nrrd", ".nhdr"):
            _refuse_undecodable(path)
        if path.is_dir():
            return read_dicom(path, modality=modality, series=series)
        with path.open("rb") as stream:
            start = stream.read(132)
    if not start:
        raise ImageFileError(f"{path}: is empty (0 bytes). {COPY_AGAIN}")
    suffix = _suffix(path)
    if suffix not in _READERS and (looks_like_dicom(start) or suffix in DICOM_SUFFIXES):
        return read_dicom(path, modality=modality, series=series)
    if suffix not in _READERS:
        raise ImageFileError(f"{path}: files of this kind ('{suffix}') are not read. Give {_READABLE}.")
    if series is not None:
        raise ImageFileError(
            f"{path}: a series can be chosen in a DICOM folder only. Leave series= away for this file."
        )
    volume = _READERS[suffix](path)
    # A name that is not UTF-8 on disk cannot be written into a report as it is.
    name = os.fsencode(volume.name).decode("utf-8", "replace")
    return replace(volume, modality=modality, name=name)


def _refuse_undecodable(path: Path) -> None:
    """Refuse names that SimpleITK cannot be given: it ends the whole process at one that is not UTF-8."""
    try:
        os.fspath(path).encode("utf-8")
    except UnicodeEncodeError as error:
        shown = os.fsencode(path).decode("utf-8", "replace")
        raise ImageFileError(f"{shown}: this name is not UTF-8. Rename it, then try again.") from error


def _suffix(path: Path) -> str:
    """Return the end of the name that says the format, in lower case, ``.gz`` included."""
    name = path.name.lower()
    if name.endswith(".gz"):
        return Path(name.removesuffix(".gz")).suffix + ".gz"
    return Path(name).suffix


def write_volume(volume: Volume, path: str | os.PathLike[str]) -> None:
    """Write a volume in the format that the name asks for, whole or not at all.

    Voxels are stored as int16 where that loses nothing (all whole and in range), else as float32. An ``.img``/``.hdr``
    pair gets a NIfTI header, which readers of Analyze 7.5 understand, too: true Analyze could not say which side is
    left. NIfTI stores positions as float32 (1e-5 mm in a head), NRRD and MetaImage exactly.

    Parameters
    ----------
    volume
        What to write.
    path
        Ends in ``.nii.gz``, ``.nii``, ``.nrrd``, ``.mha``, ``.img`` or ``.hdr``; for the last two, both are written.

    Raises
    ------
    ImageFileError
        Another ending, a folder that is missing or may not be written to, or a full disk. Nothing is left behind.
    """
    path = Path(path)
    suffix = _suffix(path)
    voxels = _storable(volume.array_kji)
    if suffix in (".img", ".hdr"):
        # The voxels are renamed first (the inner of two): a header without voxels never stands alone.
        with (
            atomic_output(path.with_suffix(".hdr")) as header_file,
            atomic_output(path.with_suffix(".img")) as data_file,
        ):
            header_file.write_bytes(nifti_header(volume.grid, voxels.dtype, pair=True))
            _write(data_file, b"", voxels)
    elif suffix in (".nii", ".nii.gz"):
        header = nifti_header(volume.grid, voxels.dtype, pair=False)
        with atomic_output(path) as temporary:
            if suffix == ".nii.gz":
                _write_gzipped(temporary, b"", header, voxels)
            else:
                _write(temporary, header, voxels)
    elif suffix == ".nrrd":
        with atomic_output(path) as temporary:
            _write_gzipped(temporary, nrrd_header(volume.grid, voxels.dtype), b"", voxels)
    elif suffix == ".mha":
        with atomic_output(path) as temporary:
            _write(temporary, metaimage_header(volume.grid, voxels.dtype), voxels)
    else:
        raise ImageFileError(
            f"{path}: a volume cannot be written as '{suffix}'. Choose a name that ends in {_WRITABLE}."
        )


def _storable(array_kji: npt.NDArray[np.float32]) -> npt.NDArray[Any]:
    """Return the voxels as little-endian int16 if that loses nothing, else as little-endian float32."""
    if array_kji.min() >= -32768 and array_kji.max() <= 32767:  # false where there is a NaN
        whole = array_kji.astype("<i2")
        if np.array_equal(whole, array_kji):
            return whole
    return array_kji.astype("<f4", copy=False)


def _write(path: Path, header: bytes, voxels: npt.NDArray[Any]) -> None:
    with path.open("wb") as stream:
        stream.write(header)
        stream.write(voxels.data.cast("B"))


def _write_gzipped(path: Path, plain: bytes, packed: bytes, voxels: npt.NDArray[Any]) -> None:
    """Write `plain` as it is, then `packed` and the voxels as one gzip stream, without a time stamp in it."""
    compressor = zlib.compressobj(_COMPRESSION_LEVEL, zlib.DEFLATED, 31)
    data = voxels.data.cast("B")
    with path.open("wb") as stream:
        stream.write(plain)
        stream.write(compressor.compress(packed))
        for start in range(0, len(data), _CHUNK):
            stream.write(compressor.compress(data[start : start + _CHUNK]))
        stream.write(compressor.flush())


@contextmanager
def atomic_output(path: str | os.PathLike[str]) -> Iterator[Path]:
    """Give a temporary name beside `path` to write to, and rename it to `path` when the block ends well.

    The temporary is hidden, keeps the ending of the name, and is removed when the block fails in any way, Ctrl-C
    included; what a killed process leaves behind is removed by `remove_leftovers`. An older file of that name stays
    until it is replaced. No folder is created.

    Raises
    ------
    ImageFileError
        Anything the operating system objects to: a missing folder, no permission, a full disk.
    """
    path = Path(path)
    temporary = temporary_beside(path, _suffix(path))
    try:
        try:
            if path.is_dir():
                raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
            yield temporary
            # Some file systems report a full disk only here.
            with temporary.open("r+b") as stream:
                os.fsync(stream.fileno())
            temporary.replace(path)
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise
    except ImageFileError:
        raise
    except OSError as error:
        raise ImageFileError(
            f"{path}: cannot be written ({error.strerror or error}). {_remedy(path, error)}"
        ) from error


def _remedy(path: Path, error: OSError) -> str:
    if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
        return "Free some space, or choose another disk. Nothing was left behind."
    if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
        return "Choose a folder that you may write to."
    if error.errno == errno.EISDIR:
        return "It is a folder; choose the name of a file."
    if not path.parent.is_dir():
        return f"The folder {path.parent} does not exist; create it first."
    return "Choose another place for it."


def write_text(text: str, path: str | os.PathLike[str]) -> None:
    """Write text as UTF-8, whole or not at all.

    Raises
    ------
    ImageFileError
        See `atomic_output`.
    """
    with atomic_output(path) as temporary:
        temporary.write_bytes(text.encode("utf-8"))


def write_json(data: Any, path: str | os.PathLike[str]) -> None:
    """Write data as JSON in the order given, whole or not at all. Numpy numbers and arrays, and paths, are converted.

    Raises
    ------
    ValueError
        A number is NaN or infinite: JSON has no word for that.
    TypeError
        A value is of a type that JSON does not have.
    ImageFileError
        See `atomic_output`.
    """
    try:
        text = json.dumps(data, indent=2, ensure_ascii=False, allow_nan=False, default=_plain)
    except ValueError as error:
        raise ValueError(
            f"{path}: cannot be written, because a value in it is NaN or infinite, which JSON cannot hold. "
            "Use None for what is not known."
        ) from error
    write_text(text + "\n", path)


def _plain(value: Any) -> Any:
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, np.ndarray):
        return value.tolist()
    if isinstance(value, os.PathLike):
        return os.fspath(value)
    raise TypeError(f"JSON cannot hold a {type(value).__name__}; convert it to numbers, text, lists or dictionaries")


def write_transform(transform: Transform, path: str | os.PathLike[str]) -> None:
    """Write a transform as ITK's text format, which Slicer and ITK read: it maps MRI points to CT points, LPS mm.

    Parameters
    ----------
    transform
        Rigid or affine; written as an affine with its centre at the origin, numbers to 17 digits.
    path
        Ends in ``.tfm`` or ``.txt``.

    Raises
    ------
    ImageFileError
        Another ending, or see `atomic_output`.
    """
    path = Path(path)
    if _suffix(path) not in TRANSFORM_SUFFIXES:
        raise ImageFileError(
            f"{path}: a transform cannot be written as '{_suffix(path)}'. Use a name that ends in .tfm."
        )
    numbers = [*transform.moving_from_fixed_lps[:3, :3].ravel(), *transform.translation_mm]
    write_text(
        "#Insight Transform File V1.0\n"
        "#Transform 0\n"
        "Transform: AffineTransform_double_3_3\n"
        f"Parameters: {' '.join(f'{n:.17g}' for n in numbers)}\n"
        "FixedParameters: 0 0 0\n",
        path,
    )


@overload
def read_transform(path: str | os.PathLike[str], rigid: Literal[True] = True) -> RigidTransform: ...
@overload
def read_transform(path: str | os.PathLike[str], rigid: bool) -> Transform: ...
def read_transform(path: str | os.PathLike[str], rigid: bool = True) -> Transform:
    """Read a transform from an ITK text file: Euler, versor, translation, affine, or a composite of such.

    Parameters
    ----------
    path
        Ends in ``.tfm`` or ``.txt``.
    rigid
        Whether it has to be rigid. If not, one that scales or shears comes as an `AffineTransform`.

    Raises
    ------
    ImageFileError
        The file is missing, damaged, cut short, or not an ITK transform file.
    GeometryError
        The transform is 2D, not linear (B-spline, displacement field), mirrors, or scales or shears though it has to be
        rigid.
    """
    path = Path(path)
    with naming(path):
        text = path.read_bytes()
        if _suffix(path) not in TRANSFORM_SUFFIXES or not text.startswith(b"#Insight Transform File"):
            raise ImageFileError(
                f"{path}: is not an ITK transform file (.tfm or .txt). In Slicer, save the transform as .tfm."
            )
        # ITK takes a file that was cut off before the numbers for an identity, and half a last number for a whole one.
        kinds = [line for line in text.splitlines() if line.startswith(b"Transform:")]
        wanted = sum(b"CompositeTransform" not in kind for kind in kinds)
        if (
            not wanted
            or not text.endswith(b"\n")
            or any(text.count(b"\n" + key) != wanted for key in (b"Parameters:", b"FixedParameters:"))
        ):
            raise ImageFileError(f"{path}: the transform file is cut short (its last line must end). {COPY_AGAIN}")
        with quiet_itk():
            transform = sitk.ReadTransform(os.fspath(path))
        wanted_kind = "a rigid" if rigid else "a linear"
        if not transform.IsLinear() or transform.GetDimension() != 3:
            raise GeometryError(
                f"{wanted_kind} 3D transform is needed, but this is a {transform.GetDimension()}D "
                f"{transform.GetName()}. Harden it into the volume, or give {wanted_kind} one."
            )
        shift = np.array(transform.TransformPoint((0.0, 0.0, 0.0)))
        linear = np.column_stack([transform.TransformPoint(tuple(axis)) for axis in np.eye(3)]) - shift[:, None]
        stretch = float(np.abs(linear.T @ linear - np.eye(3)).max())
        if rigid and not stretch <= ORTHOGONALITY_TOLERANCE:
            raise GeometryError(
                "a rigid transform is needed, but this one scales or shears. Give one of six degrees, or use this "
                "one as it is (brainfusion fuse --no-register)."
            )
        if np.linalg.det(linear) < 0:
            raise GeometryError(
                f"{wanted_kind} transform is needed, but this one mirrors left and right. Give one that does not."
            )
        if not rigid and not stretch <= _RIGID_BUT_FOR_ROUNDING:
            return AffineTransform(affine(linear, shift))
        return RigidTransform(affine(linear, shift))
