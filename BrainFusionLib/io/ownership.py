"""Whose a file in an output folder is: only results of our own are replaced or removed."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterable
from pathlib import Path

from BrainFusionLib.errors import ImageFileError, Remedy
from BrainFusionLib.io.reading import read_record_bytes

# What a result has besides single files.
DICOM = "dicom"
DICOM_FOLDERS = ("dicom/fused", "dicom/ct_in_mri", "dicom/mri_in_ct")
REGISTRATION = "dicom/registration.dcm"
SEGMENTATION = "dicom/bone.dcm"
PICTURES = "pictures"
FOLDERS = (*DICOM_FOLDERS, PICTURES)
IN_DICOM = (*DICOM_FOLDERS, REGISTRATION, SEGMENTATION)
# How our own files begin: pages, tables, logs, pictures, and records, also damaged ones.
_OURS = re.compile(
    rb"<title>BrainFusion|Software\0BrainFusion|\Acase\tstatus\tverdict\t"
    rb"|\"Description\": \"The MRI with the bone of the CT"
    rb"|\A\d{4}-\d\d-\d\dT[\d:]{8}[+-]\d{4}\t[^\n]*\t(?:done|refused|failed)\b"
)


def files_in(record: Path) -> list[str]:
    """Return the names of a result's files by its record, itself last; nothing if it is none of this project."""
    try:
        names = list(json.loads(read_record_bytes(record))["files"].values())
    except (OSError, ValueError, KeyError, AttributeError, TypeError, RecursionError):
        return []
    # A record from elsewhere must not name files outside, nor any that links lead to.
    is_ours = all(isinstance(name, str) and (name in IN_DICOM or _is_plain(name)) for name in names)
    return sorted(names, key=lambda name: name == record.name) if is_ours else []


def refuse_to_replace_others(folder: Path, names: Iterable[str]) -> None:
    """Check that what is written to a folder under names that we choose replaces nothing but results of our own.

    Ours is what a record in the folder names, and pages, tables, pictures and records that say so themselves. A file
    that the user names is another matter: whoever names it wants it written.

    Parameters
    ----------
    folder
        The folder of the results.
    names
        All that is written there, relative to it.

    Raises
    ------
    ImageFileError
        There is a folder that is not empty, or a file, of such a name that is not ours; or a folder has the name of a
        file, or the other way round.
    """
    names = set(names)
    for name in sorted(names - set(FOLDERS)):
        if is_own_folder(folder / name):
            raise ImageFileError(
                f"{folder / name}: cannot be replaced (it is a folder). Remove it first.",
                remedy=Remedy.OTHER_OUTPUT_FOLDER,
            )
    folders = names & set(FOLDERS)
    for name in folders | ({DICOM} if names & set(IN_DICOM) else set()):
        if os.path.lexists(folder / name) and not is_own_folder(folder / name):
            raise not_a_folder(folder / name)
    found = {name for name in names if _holds_something(folder / name)}
    records = sorted(folder.glob("*.json")) if found else []
    ours = {name for record in records for name in _named_in(record)}
    for name in sorted(found - ours):
        if not _looks_like_ours(folder / name):
            damaged = [path.name for path in records if path.name != name and _is_damaged(path)]
            why = f" ({damaged[0]} is damaged, and may have named it)" if damaged else ""
            raise ImageFileError(
                f"{folder / name}: was there before, and no result of BrainFusion names it{why}. Move it "
                "elsewhere, or delete it.",
                remedy=Remedy.OTHER_OUTPUT_FOLDER,
            )


def _named_in(record: Path) -> list[str]:
    """Return the names that a record has by role, and those that the seal of a case has, each with its sha256."""
    names = files_in(record)
    return [*names, *json.loads(read_record_bytes(record))["files"]] if names else []


def is_own_folder(path: Path) -> bool:
    """Return whether there is a folder, not a link to one elsewhere."""
    return path.is_dir() and not path.is_symlink()


def _is_plain(name: str) -> bool:
    """Return whether a name is that of a file in a folder, and leads nowhere else."""
    return name not in ("", "..") and Path(name).name == name


def not_a_folder(place: Path) -> ImageFileError:
    """Return the error where a folder is to be replaced."""
    return ImageFileError(
        f"{place}: cannot be replaced (it is a link or a file, not a folder). Remove it first.",
        remedy=Remedy.OTHER_OUTPUT_FOLDER,
    )


def _holds_something(path: Path) -> bool:
    if is_own_folder(path):
        return any(path.iterdir())
    return os.path.lexists(path) and not (path.is_file() and not path.is_symlink() and path.stat().st_size == 0)


def _is_damaged(record: Path) -> bool:
    """Return whether a file begins like a record, but cannot be read as one."""
    return _looks_like_ours(record) and not files_in(record)


def _looks_like_ours(path: Path) -> bool:
    """Return whether a file begins as ours do, also if it is damaged or its record is gone."""
    try:
        if not path.is_file():  # a pipe would block for ever
            return False
        with path.open("rb") as file:
            head = file.read(2_000)
    except OSError:
        return False
    return _OURS.search(head) is not None or all(word in head for word in (b'"schema_version"', b'"request"'))
