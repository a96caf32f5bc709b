"""Moving a new result into place of an earlier one: only our own files are replaced, by one process at a time."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

from BrainFusionLib.case.files import (
    DICOM,
    DICOM_FOLDERS,
    FOLDERS,
    REGISTRATION,
    SEGMENTATION,
    STEMS,
    TRANSFORM_STEMS,
)
from BrainFusionLib.errors import ImageFileError, Remedy
from BrainFusionLib.io.formats import output_names
from BrainFusionLib.io.transform_writing import SUFFIXES
from BrainFusionLib.locking import alone
from BrainFusionLib.stopping import uninterrupted

# A new result that is whole, and is being moved into place; and the lock of who moves it.
WHOLE, MOVING, REPLACED = ".brainfusion-whole", ".moving.lock", "replaced"


def replace_result(staged: Path, folder: Path) -> None:
    """Move the files of a new result into place, and remove obsolete ones."""
    with alone(folder / MOVING), uninterrupted():
        _complete(folder)
        try:
            # From here on the new result is the one that counts, also for a run after a kill.
            staged.rename(folder / WHOLE)
        except OSError as error:
            raise ImageFileError(f"{folder}: cannot write there ({error.strerror or error}).") from error
        _complete(folder)


def complete_replacement(folder: Path) -> None:
    """Move the files of a new result that is whole into place, also after a kill; nothing where there is none.

    While a running process moves them, wait for it.

    Raises
    ------
    ImageFileError
        A file cannot be replaced; the rest of the new result stays, and is moved by the next call.
    """
    if (folder / WHOLE).is_dir():
        # Not interrupted: it moves a few files; half-way, the old result would be gone.
        with alone(folder / MOVING), uninterrupted():
            _complete(folder)


def _complete(folder: Path) -> None:
    whole = folder / WHOLE
    if not whole.is_dir():
        return
    try:
        # Of a replacement that was interrupted, the old result is gone, and some of the new files are in place; the
        # record comes last: without one, all are in place. One that cannot be read now is an error, not none.
        records = [path for path in whole.iterdir() if path.suffix == ".json" and path.read_bytes()]
        record = next((path for path in records if files_in(path)), None)
        if record is None:
            shutil.rmtree(whole, ignore_errors=True)
            return
        names = files_in(record)
        result = folder / record.name
        # The old record is kept until all is in place: after a kill, it still says which old files have to go.
        replaced = whole / REPLACED
        if os.path.lexists(result):
            result.replace(replaced)
        old = set(files_in(replaced))
        for name in old & set(FOLDERS):
            if name not in names or os.path.lexists(whole / name):
                shutil.rmtree(folder / name, ignore_errors=True)
        for name in (old & removed_with_a_result()) - set(names):
            (folder / name).unlink(missing_ok=True)
        if any(name in DICOM_FOLDERS for name in names):
            (folder / DICOM).mkdir(exist_ok=True)
        for name in names:
            if os.path.lexists(whole / name):
                if name in FOLDERS:
                    shutil.rmtree(folder / name, ignore_errors=True)
                (whole / name).replace(folder / name)
        if (folder / DICOM).is_dir():
            with suppress(OSError):  # it is not empty
                (folder / DICOM).rmdir()
    except OSError as error:
        raise ImageFileError(
            f"{error.filename2 or error.filename}: cannot be replaced ({error.strerror}). Remove it first.",
            remedy=Remedy.OTHER_OUTPUT_FOLDER,
        ) from error
    shutil.rmtree(whole, ignore_errors=True)


def removed_with_a_result() -> set[str]:
    """Return the names of files that are removed with a result where the next one has none of this name."""
    volumes = {f"{stem}.{form}" for stem in STEMS for form in output_names()}
    suffixes = {suffix for of_one in SUFFIXES.values() for suffix in of_one}
    transforms = {f"{stem}{suffix}" for stem in TRANSFORM_STEMS for suffix in suffixes}
    return {REGISTRATION, SEGMENTATION, *volumes, *transforms}


def files_in(record: Path) -> list[str]:
    """Return the names of a result's files by its record, itself last; nothing if it is none of this project."""
    try:
        names = list(json.loads(record.read_text(encoding="utf-8"))["files"].values())
    except (OSError, ValueError, KeyError, AttributeError, TypeError, RecursionError):
        return []
    # A record from elsewhere must not name files outside.
    is_ours = all(
        isinstance(name, str) and not Path(name).is_absolute() and ".." not in Path(name).parts for name in names
    )
    return sorted(names, key=lambda name: name == record.name) if is_ours else []


def refuse_to_replace_others(folder: Path, names: Mapping[str, str]) -> None:
    """Check that what a new result replaces as a whole, its folders, its report and its record, is an earlier result's.

    Parameters
    ----------
    folder
        The folder of the result.
    names
        The names of the new result's files by role.

    Raises
    ------
    ImageFileError
        There is a folder that is not empty, or a file, of such a name that no result wrote; or a folder has the name of
        a file.
    """
    for name in names.values():
        if name not in FOLDERS and (folder / name).is_dir():
            raise ImageFileError(
                f"{folder / name}: cannot be replaced (it is a folder). Remove it first.",
                remedy=Remedy.OTHER_OUTPUT_FOLDER,
            )
    folders = {name for name in names.values() if name in FOLDERS}
    for name in folders | ({DICOM} if folders & set(DICOM_FOLDERS) else set()):
        place = folder / name
        if place.is_symlink() or (os.path.lexists(place) and not place.is_dir()):
            raise ImageFileError(
                f"{place}: cannot be replaced (it is a link or a file, not a folder). Remove it first.",
                remedy=Remedy.OTHER_OUTPUT_FOLDER,
            )
    whole = {*FOLDERS, REGISTRATION, SEGMENTATION, names["report"], names["result"]} & set(names.values())
    found = {name for name in whole if _holds_something(folder / name)}
    ours = {name for record in folder.glob("*.json") for name in files_in(record)} if found else set()
    for name in sorted(found - ours):
        if not _looks_like_ours(folder / name):
            raise ImageFileError(
                f"{folder / name}: was there before, and no result of BrainFusion names it. Move it elsewhere.",
                remedy=Remedy.OTHER_OUTPUT_FOLDER,
            )


def _holds_something(path: Path) -> bool:
    return any(path.iterdir()) if path.is_dir() else path.is_symlink() or (path.is_file() and path.stat().st_size > 0)


def _looks_like_ours(path: Path) -> bool:
    """Return whether a file begins like a record or a report, also if it is damaged or its record is gone."""
    try:
        with path.open("rb") as file:
            head = file.read(2_000)
    except OSError:
        return False
    return b"<title>BrainFusion" in head or all(word in head for word in (b'"schema_version"', b'"request"'))
