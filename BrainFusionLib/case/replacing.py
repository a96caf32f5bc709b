"""Moving a new result into place of an earlier one: only our own files are replaced, by one process at a time."""

from __future__ import annotations

import os
import shutil
from contextlib import suppress
from pathlib import Path

from BrainFusionLib.case.files import STEMS, TRANSFORM_STEMS
from BrainFusionLib.errors import BrainFusionError, ImageFileError, Remedy
from BrainFusionLib.io.formats import output_names
from BrainFusionLib.io.ownership import (
    DICOM,
    DICOM_FOLDERS,
    FOLDERS,
    IN_DICOM,
    REGISTRATION,
    SEGMENTATION,
    files_in,
    is_own_folder,
    not_a_folder,
)
from BrainFusionLib.io.reading import read_record_bytes
from BrainFusionLib.io.transform_writing import SUFFIXES
from BrainFusionLib.io.writing import move
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
    if is_own_folder(folder / WHOLE):
        # Not interrupted: it moves a few files; half-way, the old result would be gone.
        with alone(folder / MOVING), uninterrupted():
            _complete(folder)


def _complete(folder: Path) -> None:
    whole = folder / WHOLE
    if not is_own_folder(whole):
        return
    try:
        # Of a replacement that was interrupted, the old result is gone, and some of the new files are in place; the
        # record comes last: without one, all are in place. One that cannot be read now is an error, not none.
        records = [path for path in whole.iterdir() if path.suffix == ".json" and _can_be_read(path)]
        record = next((path for path in records if files_in(path)), None)
        if record is None:
            shutil.rmtree(whole, ignore_errors=True)
            return
        names = files_in(record)
        # Through a link, files elsewhere would be replaced or removed.
        dicom_is_elsewhere = (folder / DICOM).is_symlink()
        if dicom_is_elsewhere and any(name in IN_DICOM for name in names):
            raise not_a_folder(folder / DICOM)
        result = folder / record.name
        # The old record is kept until all is in place: after a kill, it still says which old files have to go.
        replaced = whole / REPLACED
        if os.path.lexists(result):
            move(result, replaced)
        old = set(files_in(replaced)) - (set(IN_DICOM) if dicom_is_elsewhere else set())
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
                move(whole / name, folder / name)
        if is_own_folder(folder / DICOM):
            with suppress(OSError):  # it is not empty
                (folder / DICOM).rmdir()
    except BrainFusionError:
        raise
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


def _can_be_read(record: Path) -> bool:
    """Return whether a record holds something.

    Raises
    ------
    OSError
        It cannot be read now.
    """
    return record.is_file() and bool(read_record_bytes(record))
