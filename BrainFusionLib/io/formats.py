"""The table of file formats for volumes, from which reading, writing, help, memory estimates and lists are made.

A new format is one file with its functions and one row of `FORMATS`.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from math import prod
from pathlib import Path

from BrainFusionLib.errors import ImageFileError, Remedy
from BrainFusionLib.io.dicom import dicom_files, dicom_files_of_each, dicom_size, read_dicom
from BrainFusionLib.io.dicom_files import DICOM_SUFFIXES, starts_like_dicom
from BrainFusionLib.io.dicom_streams import start_of
from BrainFusionLib.io.hashing import sha256_of_files, sha256_of_set
from BrainFusionLib.io.metaimage import metaimage_files, metaimage_size, read_metaimage, write_metaimage
from BrainFusionLib.io.mgh import mgh_size, read_mgh
from BrainFusionLib.io.nifti import nifti_files, nifti_size, read_nifti
from BrainFusionLib.io.nifti_layout import NIFTI1, is_nifti
from BrainFusionLib.io.nifti_writing import write_nifti, write_pair
from BrainFusionLib.io.nrrd import nrrd_files, nrrd_size, read_nrrd, write_nrrd
from BrainFusionLib.io.reading import COPY_AGAIN, called, naming, open_regular
from BrainFusionLib.io.suffixes import suffix_of, with_suffix
from BrainFusionLib.io.text_headers import as_ending, brief
from BrainFusionLib.io.unpacking import read_start
from BrainFusionLib.io.zipped import ZIP_SUFFIXES
from BrainFusionLib.volume import Volume

Size = tuple[int, int, int]


@dataclass(frozen=True)
class Format:
    """One file format.

    Parameters
    ----------
    name
        How code and tables call it.
    label
        How people call it.
    suffixes
        Ends of names, lower case, that say the format.
    read
        Reads a file; with `slices` it takes ``modality=`` and ``series=``, too.
    size
        Returns the size (i, j, k) from the header alone; with `slices` it takes ``series=``, too.
    files
        Returns all files that `read` reads of a file, itself among them; ``None`` where it is the only one. With
        `slices` it takes ``series=``, too, and their order means nothing.
    files_of_each
        With `slices`: returns the files as `files` does, of every series that could be chosen.
    write
        Writes a volume to a file, whole or not at all; ``None`` where the format is only read.
    written
        Those of the suffixes that `write` takes.
    results
        Those of the written suffixes, without their dot, in which results are offered. The first one of the table is
        the default.
    voxel_files
        Where voxels may stand in a file of their own: that file's suffix, and the suffixes of the header beside it.
    slices
        Whether a volume is a folder of files, one a slice, and the folder may hold several series.
    recognises
        Returns whether a file is of the format, by its first 132 bytes (unpacked), where its suffix says nothing.
    """

    name: str
    label: str
    suffixes: tuple[str, ...]
    read: Callable[..., Volume]
    size: Callable[..., Size]
    files: Callable[..., list[Path]] | None = None
    files_of_each: Callable[[Path], list[list[Path]]] | None = None
    write: Callable[[Volume, Path], None] | None = None
    written: tuple[str, ...] = ()
    results: tuple[str, ...] = ()
    voxel_files: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    slices: bool = False
    recognises: Callable[[bytes], bool] | None = None

    @property
    def described(self) -> str:
        """The format in words, with its suffixes."""
        return (
            f"a folder or a zip of {self.label} slices" if self.slices else f"{self.label} ({', '.join(self.suffixes)})"
        )


FORMATS: tuple[Format, ...] = (
    Format(
        name="nifti",
        label="NIfTI",
        suffixes=(".nii.gz", ".nii"),
        read=read_nifti,
        size=nifti_size,
        files=nifti_files,
        write=write_nifti,
        written=(".nii.gz", ".nii"),
        results=("nii.gz",),
    ),
    Format(
        name="nrrd",
        label="NRRD",
        suffixes=(".nrrd", ".nhdr"),
        read=read_nrrd,
        size=nrrd_size,
        files=nrrd_files,
        write=write_nrrd,
        written=(".nrrd",),
        results=("nrrd",),
        voxel_files={".raw": (".nhdr",), ".raw.gz": (".nhdr",)},
    ),
    Format(
        name="metaimage",
        label="MetaImage",
        suffixes=(".mha", ".mhd"),
        read=read_metaimage,
        size=metaimage_size,
        files=metaimage_files,
        write=write_metaimage,
        written=(".mha",),
        results=("mha",),
        voxel_files={".raw": (".mhd",), ".zraw": (".mhd",)},
    ),
    Format(
        name="analyze",
        label="Analyze 7.5 or NIfTI pair",
        suffixes=(".hdr", ".img", ".hdr.gz", ".img.gz"),
        read=read_nifti,
        size=nifti_size,
        files=nifti_files,
        write=write_pair,
        written=(".hdr", ".img"),
        voxel_files={".img": (".hdr", ".hdr.gz"), ".img.gz": (".hdr.gz", ".hdr")},
    ),
    Format(
        name="mgh",
        label="FreeSurfer",
        suffixes=(".mgz", ".mgh"),
        read=read_mgh,
        size=mgh_size,
    ),
    Format(
        name="dicom",
        label="DICOM",
        suffixes=(*DICOM_SUFFIXES, *ZIP_SUFFIXES),
        read=read_dicom,
        size=dicom_size,
        files=dicom_files,
        files_of_each=dicom_files_of_each,
        slices=True,
        recognises=starts_like_dicom,
    ),
)


# What helps with files that people have instead, by the ends of their names.
_HINTS = {
    (".mnc", ".mnc2", ".mnc.gz"): "It is MINC: convert it to NIfTI with mnc2nii or mri_convert. ",
    (".brik", ".head", ".brik.gz"): "It is of AFNI: convert it to NIfTI with 3dAFNItoNIFTI. ",
    (".mif", ".mih", ".mif.gz"): "It is of MRtrix: convert it to NIfTI with mrconvert. ",
    (".vmr",): "It is of BrainVoyager: save it as NIfTI there. ",
    (".v",): "It is ECAT, of PET: give a CT or an MRI. ",
    (".stl", ".ply", ".obj", ".vtp", ".gii"): "It is a surface, and not a volume. ",
    (".crdownload", ".part", ".download", ".partial"): "It is a download that has not ended: download it again. ",
    (".gz", ".tar", ".tgz", ".bz2", ".xz", ".zst", ".7z", ".rar", ".iso"): "Unpack it first. ",
    (
        ".jpg",
        ".jpeg",
        ".png",
        ".bmp",
        ".tif",
        ".tiff",
        ".gif",
        ".mp4",
        ".avi",
        ".pdf",
    ): "Positions and Hounsfield units are lost in it: export the DICOM series. ",
    (".par", ".rec"): "Convert it to NIfTI with dcm2niix. ",
    (".mrb", ".mrml", ".itksnap", ".vtk", ".vti", ".h5", ".raw"): "Save the volume as NIfTI or NRRD in its program. ",
}


def readable() -> str:
    """Return all formats that are read, in words for help and messages."""
    *most, last = [form.described for form in FORMATS]
    return f"{', '.join(most)}, or {last}"


def writable() -> str:
    """Return the ends of names that a volume can be written to, in words for messages."""
    *most, last = [suffix for form in FORMATS for suffix in form.written]
    return f"{', '.join(most)} or {last}"


def output_names() -> tuple[str, ...]:
    """Return the formats in which results are offered, by their suffix without its dot; the first is the default."""
    return tuple(name for form in FORMATS for name in form.results)


def named(name: str) -> Format:
    """Return the format of a name.

    Raises
    ------
    KeyError
        There is none.
    """
    return {form.name: form for form in FORMATS}[name]


def format_of(path: Path) -> Format:
    """Return the format that a file or folder is read in: by the end of its name, else by its first bytes.

    Raises
    ------
    ImageFileError
        It is missing, unreadable, empty or of an unknown kind.
    """
    with naming(path):
        if path.is_dir():
            return next(form for form in FORMATS if form.slices)
        with open_regular(path) as stream:
            is_empty = not stream.read(1)
            stream.seek(0)
            start = start_of(stream)
    if is_empty:
        raise ImageFileError(f"{path}: is empty (0 bytes). {COPY_AGAIN}")
    suffix = suffix_of(path)
    for form in FORMATS:
        if suffix in form.suffixes or (form.recognises is not None and form.recognises(start)):
            return form
    header = header_of(path)
    hint = next((words for ends, words in _HINTS.items() if suffix.endswith(ends)), "")
    if _begins_as_nifti(path):
        hint = "By its content it is NIfTI: end its name in .nii, or in .nii.gz. "
    if header is not None:
        hint = f"It holds the voxels of {brief(header.name)}: give that file. "
    raise ImageFileError(f"{path}: files of this kind ({brief(suffix)}) are not read. {hint}Give {readable()}.")


def _begins_as_nifti(path: Path) -> bool:
    try:
        return is_nifti(read_start(path, NIFTI1.itemsize))
    except (OSError, EOFError, zlib.error):
        return False


def written_format_of(path: Path) -> Format:
    """Return the format that the end of a name asks to be written.

    Raises
    ------
    ImageFileError
        None is.
    """
    suffix = suffix_of(path)
    for form in FORMATS:
        if suffix in form.written:
            return form
    raise ImageFileError(
        f"{called(path)}: a volume cannot be written {as_ending(suffix)}. Choose a name that ends in {writable()}."
    )


def size_ijk(path: Path, series: str | int | None = None) -> Size:
    """Return the size of a volume (i, j, k) from its header, or from those of a DICOM series.

    Raises
    ------
    ImageFileError
        It cannot be read, or is not one 3D volume.
    """
    form = format_of(path)
    refuse_series(form, path, series)
    return form.size(path, series=series) if form.slices else form.size(path)


def voxel_count(path: Path, series: str | int | None = None) -> int:
    """Return the number of voxels of a volume, from its header.

    Raises
    ------
    ImageFileError
        As `size_ijk`: what cannot be read never counts as 0 voxels.
    """
    return prod(size_ijk(path, series))


def refuse_series(form: Format, path: Path, series: str | int | None) -> None:
    """Refuse the choice of a series where the format has none.

    Raises
    ------
    ImageFileError
        A series was chosen.
    """
    if series is not None and not form.slices:
        raise ImageFileError(f"{path}: a series can be chosen in a DICOM folder only.", remedy=Remedy.OMIT_SERIES)


def header_of(path: Path) -> Path | None:
    """Return the header that a file of voxels belongs to, where there is one of its name beside it; else ``None``."""
    for form in FORMATS:
        for suffix in form.voxel_files.get(suffix_of(path), ()):
            for spelling in (suffix, suffix.upper()):
                header = with_suffix(path, spelling)
                if header.exists():
                    return header
    return None


def files_of(path: Path) -> list[Path]:
    """Return all files of a volume: header and voxels of a pair, whichever is named, or all files of a folder."""
    if path.is_dir():
        return sorted(file for file in path.rglob("*") if file.is_file())
    header = header_of(path) or path
    voxels = [
        with_suffix(header, spelling)
        for form in FORMATS
        for suffix, headers in form.voxel_files.items()
        if suffix_of(header) in headers
        for spelling in (suffix, suffix.upper())
    ]
    return [header, *(file for file in dict.fromkeys(voxels) if file.exists())]


def sha256_of_volume(path: Path, series: str | int | None = None) -> str:
    """Return one sha256 of the content of all files that decide what reading a volume gives.

    Of DICOM, these are all images of the series: what else is in its folder does not count, nor do names.

    Raises
    ------
    ImageFileError
        The header or a file cannot be read, a file that the header names is missing, or a series must be chosen.
    """
    with naming(path):
        form = format_of(path)
        if form.files is None:
            return sha256_of_files([path])
        if form.slices:
            return sha256_of_set(form.files(path, series=series))
        return sha256_of_files(form.files(path))


def sha256_of_each_volume(path: Path) -> list[str]:
    """Return the sha256 as `sha256_of_volume` does, of every series that could be chosen at a path.

    Raises
    ------
    ImageFileError
        The header or a file cannot be read, or a file that the header names is missing.
    """
    form = format_of(path)
    if form.files_of_each is None:
        return [sha256_of_volume(path)]
    with naming(path):
        return [sha256_of_set(files) for files in form.files_of_each(path)]


def volumes_in(folder: Path) -> list[Path]:
    """Return the files in a folder that hold one volume each, by the ends of their names; a pair by its header."""
    suffixes = {suffix for form in FORMATS if not form.slices for suffix in form.suffixes}
    found = (file for file in folder.iterdir() if suffix_of(file) in suffixes and not file.name.startswith("."))
    return sorted(file for file in found if header_of(file) is None)
