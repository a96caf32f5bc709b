"""Files written whole or not at all: any content through `atomic_output`, text, and JSON."""

from __future__ import annotations

import errno
import json
import os
import shutil
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from BrainFusionLib.errors import ImageFileError
from BrainFusionLib.io.leftovers import temporary_beside
from BrainFusionLib.io.suffixes import suffix_of
from BrainFusionLib.printable import shown_json
from BrainFusionLib.stopping import half_written


@contextmanager
def atomic_output(path: str | os.PathLike[str]) -> Iterator[Path]:
    """Give a temporary name beside `path` to write to, and rename it to `path` when the block ends well.

    The temporary is hidden, keeps the ending of the name, and is removed when the block fails in any way, Ctrl-C
    included; what a killed process leaves behind is removed by `remove_leftovers`. An older file of that name stays
    until it is replaced; who may read it may read the new one. No folder is created.

    Raises
    ------
    ImageFileError
        Anything the operating system objects to: a missing folder, no permission, a full disk; or there is something of
        that name that is not a file.
    """
    path = Path(path)
    temporary = temporary_beside(path, suffix_of(path))
    try:
        with half_written(temporary):
            try:
                if path.is_dir():
                    raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
                mode = _mode_of(path)
                yield temporary
                # Some file systems report a full disk only here.
                with temporary.open("r+b") as stream:
                    os.fsync(stream.fileno())
                if mode is not None:  # what only its owner may read stays so
                    temporary.chmod(mode)
                temporary.replace(path)
            except BaseException:
                temporary.unlink(missing_ok=True)
                raise
    except ImageFileError:
        raise
    except OSError as error:
        raise ImageFileError(
            f"{path}: cannot be written ({error.strerror or error}). {_advice(path, error)}"
        ) from error


def move(source: Path, target: Path) -> None:
    """Put a file, or a folder where there is none yet, under another name; whole or not at all.

    Raises
    ------
    OSError
        It cannot be moved.
    """
    try:
        source.replace(target)
    except OSError as error:
        if error.errno != errno.EXDEV:
            raise
        # Another disk is mounted there: copied beside the target first, so that it is never half there.
        copy = temporary_beside(target)
        with half_written(copy):
            try:
                if source.is_dir():
                    shutil.copytree(source, copy)
                else:
                    shutil.copy2(source, copy)
                copy.replace(target)
            except BaseException:
                remove(copy)
                raise
        remove(source)


def remove(path: Path) -> None:
    """Remove a file or a folder with all that is in it, if it is there; of a link, the link."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)


def _mode_of(path: Path) -> int | None:
    """Return who may do what with a file that is to be replaced; ``None`` if there is none.

    Raises
    ------
    ImageFileError
        It is a pipe, a device or a socket: the system would lose it, as root even ``/dev/null``.
    """
    try:
        mode = path.stat().st_mode
    except FileNotFoundError:
        return None
    if not stat.S_ISREG(mode):
        raise ImageFileError(f"{path}: is a pipe, device or socket, not a file. Choose the name of a file.")
    return stat.S_IMODE(mode)


def _advice(path: Path, error: OSError) -> str:
    if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
        return "Free some space, or choose another disk. Nothing was left behind."
    if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
        return "Choose a folder that you may write to."
    if error.errno == errno.EISDIR:
        return "It is a folder; choose the name of a file."
    if not path.parent.is_dir():
        return f"The folder {path.parent} does not exist; create it first."
    return "Choose another folder."


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
        text = shown_json(json.dumps(data, indent=2, ensure_ascii=False, allow_nan=False, default=_plain))
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
