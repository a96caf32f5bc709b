"""What all readers of image files share: errors that name the file, and a quiet ITK."""

from __future__ import annotations

import errno
import os
import stat
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from BrainFusionLib.errors import BrainFusionError, GeometryError, ImageFileError

# What no record or table needs; Python takes about twenty times as much for the objects in it.
MOST_RECORD_BYTES = 1 << 26
COPY_AGAIN = "Copy or download the file again."
# Where what a file says is wrong, though all of it may be there: it was damaged, or written so.
SAVE_OR_COPY = "Save it again in the program that it comes from, or copy it again."
OTHER_FILE = "Copy it again, or give another file."
# Where the file is whole, but says what cannot be: a copy says the same.
SAVE_AGAIN = "Save it again in the program that it comes from."
CONVERT_AGAIN = "Convert the original images again."
# macOS keeps ".scan.nii.icloud" in the place of a file that is in iCloud only.
NOT_DOWNLOADED = "is in iCloud, and not on this computer. Download it in the Finder."
# What helps where no copy would.
_REMEDIES = {
    errno.ENAMETOOLONG: "Shorten its name.",
    errno.ELOOP: "This link leads to itself: give the file that it was meant for.",
    errno.EMFILE: "Close other programs, or allow more open files (ulimit -n).",
    errno.ENOTDIR: "Check the path.",
    errno.EINVAL: "Check the name.",
    errno.ENOSPC: "Free space on the disk.",
}


def at_home(name: str) -> Path:
    """Return the path of a name in a table or in settings, where ``~`` is the user's home, as in a shell."""
    try:
        return Path(name).expanduser()
    except RuntimeError:  # the home of an unknown user
        return Path(name)


def is_folder(path: Path) -> bool:
    """Return whether a path is a folder; no if the system cannot say, so that reading it gives the reason."""
    try:
        return path.is_dir()
    except (OSError, ValueError):  # a name too long, or a folder above that may not be looked into
        return False


def exists(path: Path) -> bool:
    """Return whether there is something at a path; no if the system cannot say."""
    try:
        return path.exists()
    except (OSError, ValueError):
        return False


def is_utf8(path: Path) -> bool:
    """Return whether the bytes of a name are UTF-8."""
    try:
        os.fspath(path).encode("utf-8")
    except UnicodeEncodeError:
        return False
    return True


def placeholder_of(name: str) -> str:
    """Return the name of what macOS keeps in the place of a file that is in iCloud only."""
    return f".{name}.icloud"


def is_placeholder(name: str) -> bool:
    """Return whether a name is one of `placeholder_of`."""
    return name.startswith(".") and name.endswith(".icloud")


def _for_link(path: Path) -> str:
    """Return what helps against a link that leads nowhere."""
    if "annex/objects" in path.readlink().as_posix():
        return "Its file is in git-annex: get it with git annex get, or datalad get."
    return "Copy the file that it stands for."


@contextmanager
def naming(path: Path) -> Iterator[None]:
    """Turn what goes wrong inside into an error of this library that names `path`.

    Raises
    ------
    ImageFileError
        For errors of the operating system, of gzip and zlib, of ITK, of memory, and of what does not parse.
    GeometryError
        For a geometry error, with the file's name put before its message.
    """
    try:
        yield
    except GeometryError as error:
        raise GeometryError(f"{path}: {error.problem}", remedy=error.remedy, details=error.details) from error
    except BrainFusionError:
        raise
    except FileNotFoundError as error:
        if path.is_symlink():
            raise ImageFileError(f"{path}: is a broken link. {_for_link(path)}") from error
        if exists(path.with_name(placeholder_of(path.name))):
            raise ImageFileError(f"{path}: {NOT_DOWNLOADED}") from error
        odd = "" if is_utf8(path) else ", which is not UTF-8"
        odd += ", in which ~ is not your home folder here" if path.parts[:1] == ("~",) else ""
        raise ImageFileError(f"{path}: there is no such file or folder. Check the name{odd}.") from error
    except PermissionError as error:
        raise ImageFileError(
            f"{path}: cannot be read for lack of permission. Ask its owner for it, or copy the file elsewhere."
        ) from error
    except (EOFError, zlib.error) as error:
        raise ImageFileError(
            f"{path}: its compressed data are damaged or cut short ({_unnamed(error, path)}). {COPY_AGAIN}"
        ) from error
    except OSError as error:
        remedy = _REMEDIES.get(error.errno or 0, COPY_AGAIN)
        raise ImageFileError(f"{path}: cannot be read ({error.strerror or _unnamed(error, path)}). {remedy}") from error
    except MemoryError as error:
        raise ImageFileError(f"{path}: does not fit into memory. Crop it or read it on a larger machine.") from error
    except (ValueError, OverflowError) as error:
        raise ImageFileError(f"{path}: its header is damaged ({_unnamed(error, path)}). {SAVE_OR_COPY}") from error
    except RuntimeError as error:  # how every fault inside ITK comes out
        raise ImageFileError(f"{path}: cannot be read ({last_line(error)}). {COPY_AGAIN}") from error


def _unnamed(error: Exception, path: Path) -> str:
    """Return what an error of another library says, without the path that the message begins with already."""
    return str(error).replace(repr(str(path)), "it").replace(str(path), "it")


def last_line(error: Exception) -> str:
    """Return the last line of an ITK message, the one that says what happened."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[-1] if lines else type(error).__name__


@contextmanager
def quiet_itk() -> Iterator[None]:
    """Keep ITK from writing warnings on the console about conditions that are handled here."""
    import SimpleITK as sitk

    before = sitk.ProcessObject.GetGlobalWarningDisplay()
    sitk.ProcessObject.SetGlobalWarningDisplay(False)
    try:
        yield
    finally:
        sitk.ProcessObject.SetGlobalWarningDisplay(before)


def called(path: Path) -> str:
    """Return a path as messages name it: the current folder, which an empty path becomes, in words."""
    return "the current folder" if path == Path() else str(path)


def refuse_irregular(path: Path) -> None:
    """Refuse what is not a true file: a pipe would block for ever, a device never end.

    Raises
    ------
    ImageFileError
        It is a pipe, device, socket or folder.
    OSError
        There is none.
    """
    if not stat.S_ISREG(path.stat().st_mode):
        raise ImageFileError(f"{called(path)}: is not a file but a folder, pipe, device or socket. Give a file.")


def read_record_bytes(path: Path) -> bytes:
    """Return the content of a file that holds a record, a table or a page: small, but perhaps from elsewhere.

    Raises
    ------
    ImageFileError
        It is not a true file, or larger than any record.
    OSError
        It cannot be read.
    """
    with open_regular(path) as stream:
        content = stream.read(MOST_RECORD_BYTES + 1)
    if len(content) > MOST_RECORD_BYTES:
        raise ImageFileError(f"{path}: is larger than {MOST_RECORD_BYTES >> 20} MB. Give another file.")
    return content


@contextmanager
def open_regular(path: Path) -> Iterator[BinaryIO]:
    """Open a true file for reading.

    Raises
    ------
    ImageFileError, OSError
        As `refuse_irregular`.
    """
    refuse_irregular(path)
    with path.open("rb") as stream:
        yield stream


def refuse_undecodable(path: Path) -> None:
    """Refuse names that SimpleITK cannot be given: it ends the whole process at one that is not UTF-8.

    Raises
    ------
    ImageFileError
        The name is not UTF-8.
    """
    if not is_utf8(path):
        raise ImageFileError(f"{path}: this name is not UTF-8. Rename it, then try again.")


# What files of other kinds begin with that people have under the name of an image.
_OTHER_KINDS = {
    b"\x1f\x8b": "It is packed with gzip, perhaps twice: unpack it.",
    b"\x28\xb5\x2f\xfd": "It is packed with zstd: unpack it.",
    b"BZh": "It is packed with bzip2: unpack it.",
    b"\xfd7zXZ": "It is packed with xz: unpack it.",
    b"PK\3\4": "It is a zip: unpack it, or, of DICOM slices, end its name in .zip.",
    b"/annex/objects": "It stands for a file in git-annex: get it with git annex get, or datalad get.",
    b"\0\5\x16\7": "It is what macOS keeps beside a file, under ._ and its name: give the file itself.",
    b"!INTERFILE": "It is Interfile: convert the original images to NIfTI.",
    b"MATRIX7": "It is ECAT, of PET: give a CT or an MRI.",
    b"<": "It is a web page or XML, perhaps an error that was saved in the place of the download: download it again.",
    b"version https://git-lfs": "It stands for a file in Git LFS: get it with git lfs pull.",
    b"NRRD": "It is NRRD: end its name in .nrrd.",
}


def what_helps(start: bytes) -> str:
    """Return what a file is and what helps, by its first bytes (at least 132), where these are not as its name says."""
    if start[128:132] == b"DICM":
        return "It is DICOM: end its name in .dcm, or give its folder."
    # An editor or a server may have put empty lines before it.
    starts = (start, start.lstrip(b"\xef\xbb\xbf \t\r\n"))
    return next(
        (words for first, words in _OTHER_KINDS.items() if any(s.startswith(first) for s in starts)), OTHER_FILE
    )


def three_sizes(path: Path, sizes: Sequence[int]) -> tuple[int, int, int]:
    """Return the three sizes of an image (i, j, k), dropping further axes of one element.

    Raises
    ------
    ImageFileError
        The image is 2D, a single slice, or has several time points or channels.
    """
    if len(sizes) < 3 or min(sizes[:3]) == 1:
        raise ImageFileError(
            f"{path}: a 3D volume is needed, but this is a single slice or 2D image of {_times(sizes)} voxels. "
            "Give the whole series."
        )
    if min(sizes[:3]) < 1:
        raise ImageFileError(f"{path}: the header says {_times(sizes)} voxels, so it is damaged. {SAVE_OR_COPY}")
    if any(n > 1 for n in sizes[3:]):
        raise ImageFileError(
            f"{path}: a 3D volume is needed, but this is 4D, {_times(sizes)} voxels: several time points or channels. "
            "Save one of them as a file of its own."
        )
    return (int(sizes[0]), int(sizes[1]), int(sizes[2]))


def _times(sizes: Sequence[int]) -> str:
    return " x ".join(str(int(n)) for n in sizes)


def refuse_bad_spacing(spacing: Sequence[float]) -> None:
    """Raise GeometryError unless all spacings are above zero: ITK would repair a zero to 1 mm in silence."""
    if not all(s > 0 for s in spacing):
        numbers = ", ".join(f"{s:g}" for s in spacing)
        raise GeometryError(
            f"the voxel spacing must be above zero along every axis, but the header says ({numbers}). "
            "Correct the header, or convert the original DICOM images again."
        )
