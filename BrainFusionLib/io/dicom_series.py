"""DICOM series: which files belong together, and which one to read if there are several."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from BrainFusionLib.errors import ImageFileError, Remedy
from BrainFusionLib.io.dicom_files import (
    DICOM_SUFFIXES,
    DicomFile,
    looks_like_dicom,
    may_be_unmarked,
    quiet_pydicom,
    read_image_header,
)
from BrainFusionLib.io.dicom_pixels import undecodable
from BrainFusionLib.io.reading import naming, open_regular

# A hospital's export has at most PATIENT/STUDY/SERIES above its files; a whole disk given by mistake is not searched.
_DEEPEST_FOLDER = 4
_MOST_SERIES_LISTED = 12
# Where a header names its series, and the shortest name that is not found by chance.
_SEARCHED, _SHORTEST_UID = 1 << 16, 6


@dataclass(frozen=True)
class Series:
    """The files of one series, at least one, in the order of their names.

    `left_out` counts files beside them that might have been slices, by the ends of their names, and are not DICOM.
    """

    uid: str
    files: tuple[DicomFile, ...]
    left_out: int = 0

    @property
    def number(self) -> str:
        """The series' number, or nothing."""
        return self.files[0].text("SeriesNumber")

    @property
    def slices(self) -> int:
        """How many slices it has, over all its files."""
        return sum(file.frames for file in self.files)

    def describe(self) -> str:
        """Return a line for a list of series."""
        first = self.files[0]
        return (
            f"series {self.number or '(no number)'}, '{first.text('SeriesDescription')}', "
            f"{first.text('Modality') or 'no modality'}, {self.slices} slices, {self.uid}"
        )


def is_dicom(path: Path) -> bool:
    """Return whether a path is a folder, or a file that is read as DICOM."""
    if path.is_dir() or path.suffix.lower() in DICOM_SUFFIXES:
        return True
    with naming(path), open_regular(path) as stream:
        return looks_like_dicom(stream.read(132))


def find_series(path: Path, choice: str | int | None = None) -> Series:
    """Return one series of a folder and the folders in it, or the series that a file belongs to.

    Parameters
    ----------
    path
        A folder; or a file, whose series is then looked for in the file's own folder.
    choice
        Which series, if there are several: its UID, its number, or its place in the error's list.

    Raises
    ------
    ImageFileError
        No DICOM images, several series and no choice, or a file that is damaged.
    """
    with naming(path), quiet_pydicom():
        if path.is_dir():
            return _choose(path, _all_series(path, whole_tree=True), choice)
        found = _all_series(path.parent, whole_tree=False)
        return _choose(path, found, choice or _series_of_file(path, found))


def _all_series(folder: Path, *, whole_tree: bool) -> list[Series]:
    looked_at, unmarked = 0, []
    others: list[Path] = []
    by_uid: dict[str, list[DicomFile]] = {}

    def add(file: DicomFile | None) -> None:
        if file is not None:
            by_uid.setdefault(file.text("SeriesInstanceUID"), []).append(file)

    is_marked = False
    for path in _files_in(folder, _DEEPEST_FOLDER if whole_tree else 0):
        looked_at += 1
        with naming(path), path.open("rb") as stream:
            start = stream.read(132)
            if looks_like_dicom(start):
                is_marked = True
                stream.seek(0)
                add(read_image_header(path, stream))
            else:
                others.append(path)
                unmarked += [path] if may_be_unmarked(start) else []
    # Files of before 1993 lack the mark. They are tried only where no file has it.
    for path in [] if is_marked else unmarked:
        with naming(path), path.open("rb") as stream:
            add(read_image_header(path, stream))
    # One of a marked series that has lost its mark would be left out without a word.
    accepted = {file.path for files in by_uid.values() for file in files}
    uids = [uid.encode("ascii", "ignore") for uid in by_uid if len(uid) > _SHORTEST_UID]
    for path in others if is_marked else []:
        with naming(path), path.open("rb") as stream:
            start = stream.read(_SEARCHED)
        if b"\0" in start and any(uid in start for uid in uids):
            raise undecodable(path)
    if not by_uid:
        raise ImageFileError(
            f"{folder}: there are no DICOM images in this folder ({looked_at} files looked at). "
            "Give the folder that holds the slices of one series, or, for NIfTI, NRRD and the like, the file itself."
        )

    def by_number(series: Series) -> tuple[float, str]:
        return (float(series.number) if series.number.isdecimal() else np.inf, series.uid)

    strangers = [(path.parent, path.suffix.lower()) for path in others if path not in accepted]
    found = []
    for uid, files in by_uid.items():
        ends = {(file.path.parent, file.path.suffix.lower()) for file in files}
        found.append(Series(uid, tuple(files), sum(stranger in ends for stranger in strangers)))
    return sorted(found, key=by_number)


def _files_in(folder: Path, depth: int) -> Iterable[Path]:
    entries = sorted(folder.iterdir())
    for entry in entries:
        hidden_or_index = entry.name.startswith(".") or entry.name.upper() == "DICOMDIR"
        if entry.is_file() and not hidden_or_index:
            yield entry
    for entry in entries:
        if depth > 0 and not entry.name.startswith(".") and entry.is_dir():
            yield from _files_in(entry, depth - 1)


def _series_of_file(path: Path, found: list[Series]) -> str:
    for series in found:
        if any(file.path == path for file in series.files):
            return series.uid
    raise ImageFileError(f"{path}: is not a DICOM image. Give one slice of the series, or its folder.")


def _choose(path: Path, found: list[Series], choice: str | int | None) -> Series:
    if choice is None and len(found) == 1:
        return found[0]
    if choice is not None:
        text = str(choice).strip()
        matches = [s for s in found if s.uid == text] or [s for s in found if s.number == text]
        if not matches and text.isdecimal() and 1 <= int(text) <= len(found):
            matches = [found[int(text) - 1]]
        if len(matches) == 1:
            return matches[0]
    lines = [f"  {place}. {series.describe()}" for place, series in enumerate(found[:_MOST_SERIES_LISTED], 1)]
    if len(found) > _MOST_SERIES_LISTED:
        lines.append(f"  ... and {len(found) - _MOST_SERIES_LISTED} more")
    problem = "one is needed" if choice is None else f"no single one of them is {str(choice)!r}"
    raise ImageFileError(
        f"{path}: holds {len(found)} DICOM series, and {problem}.",
        remedy=Remedy.CHOOSE_SERIES,
        details="\n".join(lines),
    )
