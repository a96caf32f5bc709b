"""NIfTI and Analyze 7.5 files, one family of binary headers, read with numpy (written by `nifti_writing`).

ITK's reader is not used here for measured reasons: it repairs a zero spacing to 1 mm in silence, says nothing
of a cut gzip trailer, and gives Analyze files the axes L, P, S, which mirrors every head that was stored the usual way.

Orientation that is not in the file: Analyze 7.5 (and NIfTI with neither form) is taken to run from right to left,
from back to front and from feet to head. That is the convention of Analyze's makers for transverse images, SPM's
default, FSL's "radiological" default, and nibabel's ``default_x_flip``. The header's ``orient`` byte is ignored as in
SPM and nibabel (and ITK, measured), because programs filled it in at random; a note says so when it is set.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np
import numpy.typing as npt

from BrainFusionLib.errors import GeometryError, ImageFileError
from BrainFusionLib.geometry import RAS_FROM_LPS, FloatArray, affine, orthonormalised
from BrainFusionLib.io.budget import refuse_too_large
from BrainFusionLib.io.mat_files import is_mat, read_mat
from BrainFusionLib.io.nifti_layout import ANALYZE, NIFTI1, NIFTI2
from BrainFusionLib.io.reading import (
    CONVERT_AGAIN,
    exists,
    naming,
    open_regular,
    refuse_bad_spacing,
    three_sizes,
    what_helps,
)
from BrainFusionLib.io.sidecar import read_sidecar, sidecar_of
from BrainFusionLib.io.suffixes import suffix_of
from BrainFusionLib.io.unpacking import is_gzip, put_as_floats, read_span, read_start
from BrainFusionLib.tilt import check_axes, placed
from BrainFusionLib.volume import Volume

_BYTE_ORDERS: tuple[Literal["<", ">"], ...] = ("<", ">")
_VOXEL_TYPES = {
    2: "u1", 4: "i2", 8: "i4", 16: "f4", 64: "f8", 256: "i1", 512: "u2", 768: "u4", 1024: "i8", 1280: "u8",
}  # fmt: skip
_REFUSED_TYPES = {
    1: "single bits", 32: "complex numbers", 1792: "complex numbers", 2048: "complex numbers",
    128: "RGB colours", 2304: "RGBA colours", 1536: "128-bit numbers",
}  # fmt: skip
_LAST_CODE = 5  # of sform and qform
_MM_PER_UNIT = {0: 1.0, 1: 1000.0, 2: 1.0, 3: 0.001}
_UNIT_NAMES = {1: "metres", 3: "micrometres"}
# What the longest side of a volume can be.
_PATIENT_MM = (20.0, 5000.0)

# Of a voxel's edge by the sform from that by pixdim: 0.3 mm in a head. Rounding is a thousandth of it.
_LARGEST_SCALE = 2e-3

_ASSUMED_AXES = (
    "assumed that i runs from right to left, j from back to front and k from feet to head (as SPM, FSL and nibabel "
    "do). Nothing in the file can confirm left and right: check them in the pictures."
)


class _Header(NamedTuple):
    fields: np.void
    byte_order: str
    is_nifti: bool


def read_nifti(path: Path) -> Volume:
    """Read ``.nii``, or a pair ``.hdr`` and ``.img`` (NIfTI or Analyze 7.5), each plain or gzipped.

    Parameters
    ----------
    path
        The file, or either one of a pair.

    Returns
    -------
    Volume
        Scaled by the header's slope and intercept, in LPS mm, in the file's own voxel order; `notes` describe
        assumptions about the orientation, and repairs.

    Raises
    ------
    ImageFileError
        A file of the pair is missing, the file is damaged, cut short, not an image of this kind, not 3D, or holds
        colours or complex numbers.
    GeometryError
        Zero spacing, or sheared axes.
    """
    header_path, data_path = _files_of(path)
    with naming(header_path):
        header = _read_header(header_path, single_file=header_path == data_path)
        size = three_sizes(header_path, _sizes(header))
        lps_from_ijk, notes = _affine(header, size)
        if not header.is_nifti:
            lps_from_ijk, notes = _with_spm_matrix(data_path, lps_from_ijk, notes)
        check_axes(lps_from_ijk, size)
    with naming(data_path):
        array, notes_on_data = _read_voxels(data_path, header, size)
        notes += notes_on_data
    volume = placed(array, lps_from_ijk, name=path.name, notes=tuple(notes))
    acquisition, notes_on_sidecar = read_sidecar(path, volume.grid, _in_scanner_space(header))
    return replace(volume, notes=(*volume.notes, *notes_on_sidecar), acquisition=acquisition)


def nifti_size(path: Path) -> tuple[int, int, int]:
    """Return the size (i, j, k) that the header of a file or a pair gives.

    Raises
    ------
    ImageFileError
        The header cannot be read, or is not that of a 3D volume.
    """
    header_path, data_path = _files_of(path)
    with naming(header_path):
        header = _read_header(header_path, single_file=header_path == data_path)
        return three_sizes(header_path, _sizes(header))


def nifti_files(path: Path) -> list[Path]:
    """Return the files that `read_nifti` reads, where they are there: the pair, SPM's ``.mat``, the sidecar.

    Raises
    ------
    ImageFileError
        A file of the pair is missing.
    """
    header, data = _files_of(path)
    beside = [sidecar_of(path)] if header == data else [sidecar_of(path), _spm_matrix_of(data)]
    return [*dict.fromkeys((header, data)), *(file for file in beside if exists(file))]


def _in_scanner_space(header: _Header) -> bool:
    """Return whether the header puts the voxels into the scanner's coordinates (code 1)."""
    if not header.is_nifti:
        return False
    sform, qform = int(header.fields["sform_code"]), int(header.fields["qform_code"])
    return 1 in (sform, qform) and max(sform, qform) == 1


def _files_of(path: Path) -> tuple[Path, Path]:
    """Return the header's and the voxels' file, which are the same for ``.nii``."""
    name = path.name.lower().removesuffix(".gz")
    if name.endswith(".nii"):
        return path, path
    base = path.name[: len(name) - 4]
    wanted = ".img" if name.endswith(".hdr") else ".hdr"
    for suffix in (wanted, wanted.upper(), wanted + ".gz", wanted.upper() + ".GZ"):
        partner = path.with_name(base + suffix)
        if partner.exists():
            return (path, partner) if wanted == ".img" else (partner, path)
    raise ImageFileError(f"{path}: {base + wanted} is missing. A pair is .hdr and .img in one folder; put both there.")


def _read_header(path: Path, single_file: bool) -> _Header:
    raw = read_start(path, NIFTI2.itemsize)
    for byte_order in _BYTE_ORDERS:
        stated = int(np.frombuffer(raw[:4].ljust(4, b"\0"), byte_order + "i4")[0])
        if stated == 540 and len(raw) >= 540:
            fields = np.frombuffer(raw, NIFTI2.newbyteorder(byte_order), 1)[0]
            if bytes(fields["magic"])[:4] in (b"n+2\0", b"ni2\0"):
                return _Header(fields, byte_order, is_nifti=True)
        if stated == 348 and len(raw) >= 348:
            fields = np.frombuffer(raw, NIFTI1.newbyteorder(byte_order), 1)[0]
            magic = bytes(fields["magic"])  # without the NUL at its end
            if magic in (b"n+1", b"ni1"):
                return _Header(fields, byte_order, is_nifti=True)
            if not single_file and magic[:3] not in (b"n+1", b"ni1"):  # damaged: neither of the two
                fields = np.frombuffer(raw, ANALYZE.newbyteorder(byte_order), 1)[0]
                return _Header(fields, byte_order, is_nifti=False)
    kind = "a NIfTI file" if single_file else "a NIfTI or Analyze 7.5 header"
    raise ImageFileError(
        f"{path}: is not {kind}: it does not begin with the header of one. It may be another kind of file under a "
        f"wrong name, or damaged. {what_helps(raw)}"
    )


def _sizes(header: _Header) -> list[int]:
    count = int(header.fields["dim"][0])
    if not 1 <= count <= 7:
        raise ValueError(f"it says that the image has {count} axes")
    # Some old headers leave unused sizes beyond the third at 0.
    return [int(n) if axis < 3 else max(1, int(n)) for axis, n in enumerate(header.fields["dim"][1 : count + 1])]


def _read_voxels(path: Path, header: _Header, size: tuple[int, int, int]) -> tuple[npt.NDArray[np.float32], list[str]]:
    fields = header.fields
    code = int(fields["datatype"])
    if code not in _VOXEL_TYPES:
        kind = _REFUSED_TYPES.get(code, f"values of an unknown type (code {code})")
        raise ImageFileError(
            f"{path}: one number per voxel is needed, but the file holds {kind}. Convert it to gray values first."
        )
    dtype = np.dtype(header.byte_order + _VOXEL_TYPES[code])
    start = max(0, int(fields["vox_offset"]))
    if path.name.lower().removesuffix(".gz").endswith(".nii"):
        start = max(start, int(fields["sizeof_hdr"]) + 4)
    refuse_too_large(path, size, dtype.itemsize)
    count = size[0] * size[1] * size[2] * dtype.itemsize
    floats = np.empty(size[0] * size[1] * size[2], np.float32)
    if is_gzip(path):
        raw, notes = read_span(path, count, packing="gzip", skip=start, floats=floats)
    else:
        raw, notes = read_span(path, count, start=start, floats=floats)
    # What is too large for float32 becomes infinite, and is refused as content.
    put_as_floats(floats, raw.view(dtype), *_scaling(header))
    return floats.reshape(size[::-1]), notes


def _scaling(header: _Header) -> tuple[float, float]:
    """Return slope and intercept; 1 and 0 where the header has no valid ones."""
    fields = header.fields
    slope, intercept = float(fields["scl_slope"]), float(fields["scl_inter"])
    if np.isinf(slope) or (slope and not np.isnan(slope) and not np.isfinite(intercept)):
        raise ValueError(f"it scales the values by {slope:g} and adds {intercept:g}")
    if np.isfinite(slope) and slope != 0:
        return slope, intercept
    if not header.is_nifti:
        # SPM's way for Analyze files of others: the header's calibrated range, if it is set.
        stored = float(fields["glmax"]) - float(fields["glmin"])
        shown = float(fields["cal_max"]) - float(fields["cal_min"])
        if stored and shown and np.isfinite(shown):
            return shown / stored, float(fields["cal_min"]) - shown / stored * float(fields["glmin"])
    return 1.0, 0.0


def _affine(header: _Header, size: tuple[int, int, int]) -> tuple[FloatArray, list[str]]:
    fields = header.fields
    spacing = np.array(fields["pixdim"][1:4], dtype=np.float64)
    notes = []
    if (spacing < 0).any():
        notes.append("the header's voxel spacing is negative; its sign was ignored.")
        spacing = np.abs(spacing)
    refuse_bad_spacing(spacing.tolist())
    if header.is_nifti:
        ras_from_ijk = _nifti_affine(fields, spacing, size, notes)
        for form in ("sform", "qform"):
            code = int(fields[f"{form}_code"])
            if code > _LAST_CODE:
                notes.append(f"the {form} has the unknown code {code}; other readers ignore such a form.")
        unit = int(fields["xyzt_units"]) & 7
        if unit in _UNIT_NAMES:
            ras_from_ijk = _in_mm(ras_from_ijk, unit, size, notes)
    else:
        ras_from_ijk = _analyze_affine(fields, spacing, size, notes)
    return RAS_FROM_LPS @ ras_from_ijk, notes


def _in_mm(ras_from_ijk: FloatArray, unit: int, size: tuple[int, int, int], notes: list[str]) -> FloatArray:
    """Return an affine that the header gives in another unit in mm, and note it."""
    converted: FloatArray = np.diag([*[_MM_PER_UNIT[unit]] * 3, 1.0]) @ ras_from_ijk
    wide, stated = (np.linalg.norm(matrix[:3, :3] * size, axis=0).max() for matrix in (converted, ras_from_ijk))
    if not _PATIENT_MM[0] <= wide <= _PATIENT_MM[1] and _PATIENT_MM[0] <= stated <= _PATIENT_MM[1]:
        notes.append(f"the header gives lengths in {_UNIT_NAMES[unit]}, which no patient fits; mm were assumed.")
        return ras_from_ijk
    notes.append(f"the header gives lengths in {_UNIT_NAMES[unit]}; they were converted to mm.")
    return converted


def _analyze_affine(fields: np.void, spacing: FloatArray, size: tuple[int, int, int], notes: list[str]) -> FloatArray:
    notes.append(f"Analyze 7.5 files hold no orientation: {_ASSUMED_AXES}")
    if int(fields["orient"]) != 0:
        notes.append(
            f"the header's 'orient' byte ({int(fields['orient'])}) was ignored, as SPM and nibabel do; if the slices "
            "are not transverse, left and right may be swapped."
        )
    origin = np.array(fields["origin"][:3], dtype=np.float64)
    counts = np.asarray(size)
    if origin.any() and (origin > -counts).all() and (origin < 2 * counts).all():
        notes.append("the position was taken from the origin that SPM keeps in the header.")
        origin = origin - 1  # SPM counts voxels from 1
    else:
        notes.append("the header holds no position: the middle of the image was put at the world's origin.")
        origin = (counts - 1) / 2
    return _right_to_left(spacing, origin)


def _spm_matrix_of(data_path: Path) -> Path:
    return data_path.with_name(data_path.name[: len(data_path.name) - len(suffix_of(data_path))] + ".mat")


def _with_spm_matrix(data_path: Path, lps_from_ijk: FloatArray, notes: list[str]) -> tuple[FloatArray, list[str]]:
    """Return the affine by the ``.mat`` that SPM writes beside an Analyze file, if there is one, and notes."""
    path = _spm_matrix_of(data_path)
    if not path.exists():
        return lps_from_ijk, notes
    with naming(path):
        with open_regular(path) as stream:
            start = stream.read(128)
        if not is_mat(start):
            return lps_from_ijk, [*notes, "a .mat beside it is not one of SPM's, and was not read."]
        found = read_mat(path)
        spm = found.get("mat", found.get("M"))
        if spm is None or spm.shape[:2] != (4, 4) or spm.ndim > 3:
            raise ValueError("SPM's matrix is missing in it")
        spm = spm if spm.ndim == 2 else spm[..., 0]
        if not np.isfinite(spm).all() or not np.allclose(spm[3], [0, 0, 0, 1]):
            raise ValueError("SPM's matrix is not that of an image")
    # SPM counts voxels from 1. M, of SPM 99, is of the voxels before SPM turned left and right around.
    flip = np.eye(4) if "mat" in found else np.diag([-1.0, 1, 1, 1])
    ras_from_ijk = flip @ spm @ affine(np.eye(3), np.ones(3))
    what = "orientation and position were taken from the .mat of SPM beside it."
    lps_from_spm: FloatArray = RAS_FROM_LPS @ ras_from_ijk
    return lps_from_spm, [what]


def _right_to_left(spacing: FloatArray, origin_ijk: FloatArray) -> FloatArray:
    """Return the 4x4 RAS affine with axes L, A, S that puts voxel `origin_ijk` at the world's origin."""
    axes = spacing * np.array([-1.0, 1.0, 1.0])
    return affine(np.diag(axes), -axes * origin_ijk)


def _nifti_affine(fields: np.void, spacing: FloatArray, size: tuple[int, int, int], notes: list[str]) -> FloatArray:
    has_sform, has_qform = int(fields["sform_code"]) > 0, int(fields["qform_code"]) > 0
    qform = _qform_affine(fields, spacing) if has_qform else None
    sform = affine(fields["srow"][:, :3], fields["srow"][:, 3])
    if has_sform and not (np.isfinite(sform).all() and np.linalg.det(sform[:3, :3])):
        if qform is None:
            raise GeometryError(f"the sform, its orientation, is zero or not of numbers. {CONVERT_AGAIN}")
        notes.append("the sform is zero or not of numbers; the qform was used instead.")
        return qform
    if has_sform:
        change = _template_fit(sform, spacing) if int(fields["sform_code"]) > 2 else ""
        if qform is not None and change:
            # A 12-parameter fit to a template. The scanner's own position is what a patient's head is measured in.
            notes.append(f"the sform {change} the head to fit a template; the qform was used instead.")
            return qform
        if _scaled(sform, spacing):
            lengths = ", ".join(f"{length:.4g}" for length in np.linalg.norm(sform[:3, :3], axis=0))
            notes.append(f"the sform's voxels ({lengths} mm) are not those of the header's pixdim; the sform was used.")
        apart = 0.0 if qform is None else _largest_distance_mm(sform, qform, size)
        if apart > 0.1:
            notes.append(f"sform and qform disagree by up to {apart:.1f} mm; the sform was used.")
        return sform
    if qform is not None:
        sign = float(fields["pixdim"][0])
        if sign not in (-1.0, 0.0, 1.0):  # NIfTI's own code goes by its sign, nibabel takes all but -1 for 1
            taken = -1 if sign < 0 else 1
            notes.append(f"the direction of the third axis, -1 or 1 by its header, is {sign:g}; {taken} was assumed.")
        return qform
    notes.append(f"the NIfTI header holds no orientation (no sform, no qform): {_ASSUMED_AXES}")
    notes.append("the header holds no position: the middle of the image was put at the world's origin.")
    return _right_to_left(spacing, (np.asarray(size) - 1) / 2)


def _template_fit(sform: FloatArray, spacing: FloatArray) -> str:
    """Return what an sform does to a head that no scanner does; empty if it only places it."""
    return "shears" if _sheared(sform) else "scales" if _scaled(sform, spacing) else ""


def _scaled(matrix: FloatArray, spacing: FloatArray) -> bool:
    return bool(np.abs(np.linalg.norm(matrix[:3, :3], axis=0) / spacing - 1).max() > _LARGEST_SCALE)


def _sheared(matrix: FloatArray) -> bool:
    lengths = np.linalg.norm(matrix[:3, :3], axis=0)
    if not (lengths > 0).all():
        return True
    try:
        orthonormalised(matrix[:3, :3] / lengths)
    except GeometryError:
        return True
    return False


def _largest_distance_mm(a: FloatArray, b: FloatArray, size: tuple[int, int, int]) -> float:
    corners = np.array([[i, j, k, 1] for i in (0, size[0]) for j in (0, size[1]) for k in (0, size[2])])
    return float(np.linalg.norm(corners @ (a - b).T, axis=1).max())


def _qform_affine(fields: np.void, spacing: FloatArray) -> FloatArray:
    """Return the 4x4 RAS affine of a NIfTI quaternion (nifti1.h, method 2)."""
    b, c, d = (float(q) for q in fields["quatern"])
    rest = 1.0 - (b * b + c * c + d * d)
    # Near half a turn the rest is float32 rounding, whose root would turn the head by 0.02 degrees.
    a = np.sqrt(rest) if rest > 1e-7 else 0.0
    a, b, c, d = np.array([a, b, c, d]) / np.sqrt(a * a + b * b + c * c + d * d)
    rotation = np.array(
        [
            [a * a + b * b - c * c - d * d, 2 * (b * c - a * d), 2 * (b * d + a * c)],
            [2 * (b * c + a * d), a * a + c * c - b * b - d * d, 2 * (c * d - a * b)],
            [2 * (b * d - a * c), 2 * (c * d + a * b), a * a + d * d - b * b - c * c],
        ]
    )
    left_handed = float(fields["pixdim"][0]) < 0
    return affine(rotation * spacing * [1, 1, -1 if left_handed else 1], fields["qoffset"])
