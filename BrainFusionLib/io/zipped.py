"""A zip of DICOM files, unpacked into a temporary folder under names of its own, with limits on everything."""

from __future__ import annotations

import os
import re
import shutil
import stat
import tempfile
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import IO

from BrainFusionLib.errors import BrainFusionError, ImageFileError
from BrainFusionLib.io.budget import memory_bytes
from BrainFusionLib.io.leftovers import remove_leftovers, temporary_beside
from BrainFusionLib.io.reading import COPY_AGAIN, OTHER_FILE, naming, refuse_irregular
from BrainFusionLib.printable import shown
from BrainFusionLib.stopping import half_written

ZIP_SUFFIXES = (".zip",)
_MOST_MEMBERS, _LONGEST_DIRECTORY = 50_000, 1 << 26
_MOST_BYTES = 1 << 35
# Deflate cannot shrink more than 1032 times.
_MOST_RATIO = 1032
_CHUNK = 1 << 20
_ENCRYPTED = 1
_METHODS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)
_END, _END_64, _LOCATOR_64 = b"PK\5\6", b"PK\6\6", b"PK\6\7"
_ODD = re.compile(r"[^A-Za-z0-9._-]")


def is_zip(path: Path) -> bool:
    """Return whether a path is that of a zip, by its name."""
    return path.suffix.lower() in ZIP_SUFFIXES


@contextmanager
def unpacked(path: Path) -> Iterator[Path]:
    """Give the folder that a zip was unpacked to while the block runs; any other path as it is.

    Raises
    ------
    ImageFileError
        The zip is damaged, encrypted, compressed in another way than by deflate; holds links, names that lead out of
        it, too many files or too large ones. Errors inside the block name the zip in the place of the folder.
    """
    if not is_zip(path) or path.is_dir():
        yield path
        return
    parent = Path(tempfile.gettempdir())
    remove_leftovers(parent)
    folder = temporary_beside(parent / "zip")
    with half_written(folder):
        try:
            with naming(path):
                refuse_irregular(path)
                folder.mkdir(mode=0o700)
                _unpack(path, folder)
            yield folder
        except BrainFusionError as error:
            error.problem = _said_of_zip(error.problem.replace(shown(folder), shown(path)))
            raise
        finally:
            shutil.rmtree(folder, ignore_errors=True)


def _said_of_zip(problem: str) -> str:
    """Return the message for a folder without images in words for the zip that it was unpacked from."""
    before, found, after = problem.partition("there are no DICOM images in this folder (")
    if not found:
        return problem
    looked, _, _ = after.rpartition("). Give ")
    looked = re.sub(r", in this folder and up to \d+ levels of folders in it|; name the zip file itself .*", "", looked)
    return (
        f"{before}there are no DICOM images in this zip ({looked}). Unpack it, and give the folder of one series, "
        "or, for a zip in it, NIfTI, NRRD and the like, the file itself."
    )


def _unpack(path: Path, folder: Path) -> None:
    _refuse_long_directory(path)
    try:
        with zipfile.ZipFile(path) as archive:
            members = [member for member in archive.infolist() if not member.is_dir()]
            _check(path, members, folder)
            for number, member in enumerate(members):
                name = PurePosixPath(member.filename.replace("\\", "/")).name
                if name.startswith(".") or "__MACOSX" in member.filename:
                    continue
                target = folder / (f"{number:05d}-{_ODD.sub('_', name)[-80:]}" if name.upper() != "DICOMDIR" else name)
                with archive.open(member) as source, target.open("wb") as copy:
                    _copy(path, source, copy, member.file_size)
    except (zipfile.BadZipFile, NotImplementedError, zlib.error, EOFError) as error:
        raise ImageFileError(f"{path}: this zip is damaged or cut short ({error}). {COPY_AGAIN}") from error


def _copy(path: Path, source: IO[bytes], copy: IO[bytes], most: int) -> None:
    left = most
    while piece := source.read(_CHUNK):
        left -= len(piece)
        if left < 0:
            raise ImageFileError(f"{path}: a file in this zip is longer than it says. {COPY_AGAIN}")
        copy.write(piece)


def _check(path: Path, members: list[zipfile.ZipInfo], folder: Path) -> None:
    packed = sum(member.compress_size for member in members)
    whole = sum(member.file_size for member in members)
    memory = memory_bytes()
    most = min(_MOST_BYTES, _MOST_BYTES if memory is None else memory // 2, shutil.disk_usage(folder).free // 2)
    if whole > most:
        raise ImageFileError(
            f"{path}: unpacks to {whole / 1e9:.1f} GB, more than the {most / 1e9:.1f} GB that memory and disk allow. "
            "Unpack it yourself, and give the folder of one series."
        )
    if packed > path.stat().st_size:
        raise ImageFileError(f"{path}: files in this zip overlap, so it is damaged or hostile. {COPY_AGAIN}")
    for member in members:
        name = PurePosixPath(member.filename.replace("\\", "/"))
        if name.is_absolute() or ".." in name.parts or re.match(r"[A-Za-z]:", member.filename):
            raise ImageFileError(f"{path}: names a file outside of the zip, which no export does. It was not unpacked.")
        if stat.S_ISLNK(member.external_attr >> 16):
            raise ImageFileError(f"{path}: holds links in the place of files. Zip the files themselves.")
        if member.flag_bits & _ENCRYPTED:
            raise ImageFileError(f"{path}: is encrypted with a password. Unpack it yourself, and give the folder.")
        if member.compress_type not in _METHODS:
            raise ImageFileError(f"{path}: is compressed in an unusual way. Unpack it yourself, and give the folder.")
        if member.file_size > _MOST_RATIO * member.compress_size + _CHUNK:
            raise ImageFileError(f"{path}: a file in this zip says that it unpacks to more than it can. {COPY_AGAIN}")


def _refuse_long_directory(path: Path) -> None:
    """Refuse a zip of very many files before its directory is read whole."""
    with path.open("rb") as stream:
        length = stream.seek(0, os.SEEK_END)
        stream.seek(max(0, length - (1 << 16) - 42))
        tail = stream.read()
        at = tail.rfind(_END)
        if at < 0 or len(tail) < at + 22:
            raise ImageFileError(f"{path}: is no zip, or cut short. {OTHER_FILE}")
        count, size = (
            int.from_bytes(tail[at + 10 : at + 12], "little"),
            int.from_bytes(tail[at + 12 : at + 16], "little"),
        )
        if tail[at - 20 : at - 16] == _LOCATOR_64 and at >= 20:
            stream.seek(min(length, int.from_bytes(tail[at - 12 : at - 4], "little")))
            end = stream.read(56)
            if not end.startswith(_END_64) or len(end) < 56:
                raise ImageFileError(f"{path}: this zip is damaged. {COPY_AGAIN}")
            count, size = int.from_bytes(end[32:40], "little"), int.from_bytes(end[40:48], "little")
    if count > _MOST_MEMBERS or size > _LONGEST_DIRECTORY:
        raise ImageFileError(
            f"{path}: holds {count} files, more than the {_MOST_MEMBERS} that are unpacked. Unpack it yourself, and "
            "give the folder of one series."
        )
