"""DICOM series: which files belong together, and which one to read if there are several."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from BrainFusionLib.errors import ImageFileError, Remedy
from BrainFusionLib.io.dicom_files import (
    DICOM_SUFFIXES,
    DicomFile,
    OtherObject,
    looks_like_dicom,
    may_be_unmarked,
    quiet_pydicom,
    read_header,
    starts_like_dicom,
)
from BrainFusionLib.io.dicom_pixels import undecodable
from BrainFusionLib.io.dicom_planes import Group, Plane, groups_of
from BrainFusionLib.io.dicom_streams import start_of
from BrainFusionLib.io.reading import called, is_placeholder, naming, open_regular
from BrainFusionLib.io.suffixes import suffix_of
from BrainFusionLib.io.text_headers import brief
from BrainFusionLib.io.zipped import is_zip

# A hospital's export has at most PATIENT/STUDY/SERIES above its files; a whole disk given by mistake is not searched.
_DEEPEST_FOLDER = 4
_MOST_SERIES_LISTED = 12
# Where a header names its series, and the shortest name that is not found by chance.
_SEARCHED, _SHORTEST_UID = 1 << 16, 6
_LEAST_UNITED = 8
# A series of fewer slices is a scout, and no volume to register.
_LEAST_SLICES = 4
_NUMBER = re.compile(r"[+-]?\d{1,12}")


@dataclass(frozen=True)
class Series:
    """The slices of one volume, at least one, in the order of their files' names.

    Attributes
    ----------
    uid
        The series' UID.
    group
        Its slices, and what of the series is not among them.
    left_out
        Files beside them that might have been slices, by the ends of their names, and are not DICOM.
    others
        DICOM files in the same folders that hold no image, how many of each kind in words.
    dead_links
        Links in the same folders that lead nowhere.
    in_cloud
        Files of the same folders that are in iCloud only.
    images
        All files with images under its UID, also those that are set aside: what decides which slices it has.
    """

    uid: str
    group: Group
    left_out: int = 0
    others: tuple[tuple[str, int], ...] = ()
    dead_links: int = 0
    in_cloud: int = 0
    images: tuple[Path, ...] = ()

    @property
    def planes(self) -> tuple[Plane, ...]:
        """Its slices."""
        return self.group.planes

    @property
    def files(self) -> tuple[DicomFile, ...]:
        """The files of its slices."""
        return tuple({plane.file.path: plane.file for plane in self.planes}.values())

    @property
    def number(self) -> str:
        """The series' number, or nothing; texts that are no number may be names."""
        text = self.planes[0].file.text("SeriesNumber")
        return text if _NUMBER.fullmatch(text) else ""

    @property
    def slices(self) -> int:
        """How many slices it has."""
        return len(self.planes) if len(self.planes) > 1 else self.planes[0].file.frames

    def describe(self) -> str:
        """Return a line for a list of series."""
        first = self.planes[0].file
        label = f"{self.group.label}, " if self.group.label else ""
        return (
            f"series {self.number or '(no number)'}, {brief(first.text('SeriesDescription'))}, "
            f"{first.modality or 'no modality'}, {self.slices} slice{'' if self.slices == 1 else 's'}, "
            f"{label}{self.uid}"
        )


def is_dicom(path: Path) -> bool:
    """Return whether a path is a folder, or a file that is read as DICOM."""
    if path.is_dir() or is_zip(path) or suffix_of(path) in DICOM_SUFFIXES:
        return True
    with naming(path), open_regular(path) as stream:
        return starts_like_dicom(start_of(stream))


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
        found = series_at(path)
        if choice is None and not path.is_dir() and not _is_index(path):
            found = _series_of_file(path, found)
        return _choose(path, found, choice)


def series_at(path: Path) -> list[Series]:
    """Return every series of a folder and the folders in it, or of the folder of a file.

    Raises
    ------
    ImageFileError
        No DICOM images, or a file that is damaged.
    """
    with naming(path), quiet_pydicom():
        is_folder = path.is_dir()
        if not is_folder and not _is_index(path):
            _image_at(path)
        return _all_series(path if is_folder else path.parent, whole_tree=is_folder or _is_index(path))


def _image_at(path: Path) -> DicomFile:
    """Return the header of the image that a file holds.

    Raises
    ------
    ImageFileError
        It is not DICOM, or another object: the message says which.
    """
    with open_regular(path) as stream:
        found = read_header(path, stream)
    if not isinstance(found, DicomFile):
        what = f" but {found.kind}" if found is not None else ""
        raise ImageFileError(f"{path}: is not a DICOM image{what}. Give one slice of the series, or its folder.")
    return found


def _is_index(path: Path) -> bool:
    """Return whether a file is the index of the folders beside it, by its name, which the standard gives."""
    return path.name.upper() == "DICOMDIR"


@dataclass
class _Found:
    """What a folder holds: images by their series' UID, other DICOM files, other files, and what cannot be read."""

    images: dict[str, list[DicomFile]] = field(default_factory=dict)
    objects: list[tuple[Path, str]] = field(default_factory=list)
    others: list[Path] = field(default_factory=list)
    dead_links: list[Path] = field(default_factory=list)
    in_cloud: list[Path] = field(default_factory=list)
    not_searched: list[Path] = field(default_factory=list)
    looked_at: int = 0

    def add(self, path: Path, found: DicomFile | OtherObject | None) -> None:
        """Add a file."""
        if isinstance(found, DicomFile):
            self.images.setdefault(found.text("SeriesInstanceUID"), []).append(found)
        elif found is not None:
            self.objects.append((path, found.kind))


def _all_series(folder: Path, *, whole_tree: bool) -> list[Series]:
    depth = _DEEPEST_FOLDER if whole_tree else 0
    found = _found_in(folder, depth)
    if not found.images:
        raise ImageFileError(_nothing_there(folder, found, depth))

    def by_number(series: Series) -> tuple[float, str]:
        return (float(series.number) if series.number.isdecimal() else np.inf, series.uid)

    found.images = _united(found.images)
    accepted = {file.path for files in found.images.values() for file in files}
    strangers = [(path.parent, suffix_of(path)) for path in found.others if path not in accepted]
    series = []
    for uid, files in found.images.items():
        ends = {(file.path.parent, suffix_of(file.path)) for file in files}
        folders = {file.path.parent for file in files}
        is_only_one = len(found.images) == 1
        kinds = Counter(kind for path, kind in found.objects if is_only_one or path.parent in folders)
        series += [
            Series(
                uid,
                group,
                left_out=sum(stranger in ends for stranger in strangers),
                others=tuple(sorted(kinds.items())),
                dead_links=sum(link.parent in folders for link in found.dead_links),
                in_cloud=sum(file.parent in folders for file in found.in_cloud),
                images=tuple(file.path for file in files),
            )
            for group in groups_of(files)
        ]
    return sorted(series, key=by_number)


def _united(images: dict[str, list[DicomFile]]) -> dict[str, list[DicomFile]]:
    """Return images by series, those put together that have a UID each, as some de-identification writes."""
    alike: dict[tuple[Any, ...], list[str]] = {}
    # A study or frame that several of them share is not of one slice each: it tells scans apart.
    keywords = ("StudyInstanceUID", "FrameOfReferenceUID")
    shared = [Counter(files[0].text(word) for files in images.values() if len(files) == 1) for word in keywords]
    for uid, (first, *others) in images.items():
        if not others and first.frames == 1 and first.modality in ("CT", "MR"):
            names = ("Modality", "SeriesNumber", "SeriesDescription", "PatientID", "StudyDate")
            words = (first.text(word) for word in names)
            uids = [first.text(word) for word in keywords]
            common = (one if count[one] > 1 else "" for one, count in zip(uids, shared, strict=True))
            alike.setdefault((*words, *common, first.size_ij), []).append(uid)
    of_one = {uid: uids[0] for uids in alike.values() if len(uids) >= _LEAST_UNITED for uid in uids}
    united: dict[str, list[DicomFile]] = {}
    for uid, files in images.items():
        united.setdefault(of_one.get(uid, uid), []).extend(files)
    return united


def _found_in(folder: Path, depth: int) -> _Found:
    found = _Found()
    unmarked = []
    is_marked = False
    for path in _files_in(folder, depth, found):
        found.looked_at += 1
        with naming(path), path.open("rb") as stream:
            start = start_of(stream)
            if looks_like_dicom(start):
                is_marked = True
                found.add(path, read_header(path, stream))
            else:
                found.others.append(path)
                unmarked += [path] if may_be_unmarked(start) else []
    # Files of before 1993 lack the mark. They are tried only where no file has it.
    for path in [] if is_marked else unmarked:
        with naming(path), path.open("rb") as stream:
            found.add(path, read_header(path, stream))
    # One of a marked series that has lost its mark would be left out without a word.
    uids = [uid.encode("ascii", "ignore") for uid in found.images if len(uid) > _SHORTEST_UID]
    for path in found.others if is_marked else []:
        with naming(path), path.open("rb") as stream:
            start = stream.read(_SEARCHED)
        if b"\0" in start and any(uid in start for uid in uids):
            raise undecodable(path)
    return found


def _nothing_there(folder: Path, found: _Found, depth: int) -> str:
    """Return the message for a folder without images: how deep it was searched, and what was there instead."""
    kinds = [f"{count} {kind}" for kind, count in sorted(Counter(kind for _, kind in found.objects).items())]
    files = f"{found.looked_at} file{'' if found.looked_at == 1 else 's'} looked at"
    links = [brief(link.relative_to(folder).as_posix()) for link in found.dead_links]
    named = f"{', '.join(links[:3])}{', ...' if len(links) > 3 else ''}"
    zips = [path.name for path in found.others if path.suffix.lower() == ".zip"]
    looked = [
        f"{files}, in this folder and up to {depth} levels of folders in it" if depth else files,
        f"DICOM without images: {', '.join(kinds)}" if kinds else "",
        f"{len(links)} broken link{'' if len(links) == 1 else 's'}, {named}: copy what they stand for" if links else "",
        f"{len(found.in_cloud)} in iCloud, not on this computer: download them in the Finder" if found.in_cloud else "",
        "folders below these were not searched" if found.not_searched else "",
        f"name the zip file itself to read what is in it: {brief(zips[0])}" if zips else "",
    ]  # fmt: skip
    return (
        f"{called(folder)}: there are no DICOM images in this folder ({'; '.join(filter(None, looked))}). "
        "Give the folder that holds the slices of one series, or, for NIfTI, NRRD and the like, the file itself."
    )


def _files_in(folder: Path, depth: int, found: _Found) -> Iterable[Path]:
    entries = sorted(folder.iterdir())
    for entry in entries:
        if is_placeholder(entry.name):
            found.in_cloud.append(entry)
        if entry.name.startswith(".") or _is_index(entry):
            continue
        if entry.is_file():
            yield entry
        elif entry.is_symlink() and not entry.exists():
            found.dead_links.append(entry)
    for entry in entries:
        if entry.name.startswith(".") or not entry.is_dir():
            continue
        if depth <= 0:
            found.not_searched.append(entry)
            continue
        if not (entry.is_symlink() and folder.resolve().is_relative_to(entry.resolve())):  # a link into itself
            yield from _files_in(entry, depth - 1, found)


def _series_of_file(path: Path, found: list[Series]) -> list[Series]:
    """Return what of its series a file is in; the whole series if it was set aside."""
    holding = [series for series in found if any(file.path == path for file in series.files)]
    if holding:
        return holding
    uid = _image_at(path).text("SeriesInstanceUID")
    return [series for series in found if series.uid == uid]


def _choose(path: Path, found: list[Series], choice: str | int | None) -> Series:
    if choice is None and len(found) == 1:
        return found[0]
    volumes = [series for series in found if series.slices >= _LEAST_SLICES]
    if choice is None and len(volumes) == 1 and [s.uid for s in found].count(volumes[0].uid) == 1:
        return _without_scouts(volumes[0], sum(series.slices for series in found) - volumes[0].slices)
    if choice is not None:
        text = str(choice).strip()
        matches = [s for s in found if s.uid == text] or [s for s in found if s.number == text]
        if not matches and text.isdecimal() and 1 <= int(text) <= len(found):
            matches = [found[int(text) - 1]]
        if len(matches) == 1:
            return matches[0]
    problem = "one is needed" if choice is None else f"no single one of them is {brief(str(choice))}"
    raise ImageFileError(
        f"{path}: holds {len(found)} DICOM series, and {problem}.",
        remedy=Remedy.CHOOSE_SERIES,
        details=listed(found),
    )


def _without_scouts(volume: Series, count: int) -> Series:
    """Return the only volume of a folder, with how many images of other series were set aside."""
    kind = f"{'image' if count == 1 else 'images'} of series of less than {_LEAST_SLICES} slices (scouts?)"
    return replace(volume, others=(*volume.others, (kind, count)))


def listed(found: Sequence[Series]) -> str:
    """Return the places and words of series, a line each, as they can be chosen by."""
    lines = [f"  {place}. {series.describe()}" for place, series in enumerate(found[:_MOST_SERIES_LISTED], 1)]
    if len(found) > _MOST_SERIES_LISTED:
        lines.append(f"  ... and {len(found) - _MOST_SERIES_LISTED} more")
    return "\n".join(lines)
