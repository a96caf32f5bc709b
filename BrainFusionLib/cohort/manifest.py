"""The list of a cohort's cases: a CSV or TSV table, and its problems."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import cast, get_args

from BrainFusionLib.arguments import checked
from BrainFusionLib.case.request import offset_in, stated_in
from BrainFusionLib.errors import ImageFileError, SettingsError
from BrainFusionLib.io.other_transforms import Frame, Maps
from BrainFusionLib.io.reading import at_home, exists, naming, read_record_bytes
from BrainFusionLib.io.tables import SAVE_AS_UTF8, format_csv, parse_spreadsheet
from BrainFusionLib.io.transforms import READ_TRANSFORM_SUFFIXES
from BrainFusionLib.printable import is_decoded

REQUIRED = ("case", "ct", "mri")
OPTIONAL = (
    "ct_series", "mri_series", "transform", "transform_frame", "transform_maps", "mri_mask", "landmarks", "modality",
    "ct_offset",
)  # fmt: skip
# Between two files of landmarks, the CT's and the MRI's.
BETWEEN_FILES = "|"
# Columns whose cells are one of a few words.
_WORDS: dict[str, tuple[str, ...]] = {"transform_frame": get_args(Frame), "transform_maps": get_args(Maps)}
# Names that are valid for folders on every system, and cannot lead out of the output folder.
NAME = re.compile(r"[A-Za-z0-9_-](?:[A-Za-z0-9._-]{0,98}[A-Za-z0-9_-])?")
BAD_NAME = (
    "a case's name is used for its folder: up to 100 letters, digits, '_', '-' and '.' ('.' neither first nor last), "
    "and no name that Windows reserves (CON, NUL, COM1, ...)"
)
# Names that Windows reserves for devices.
RESERVED = re.compile(r"(con|prn|aux|nul|com\d|lpt\d)(\..*)?", re.IGNORECASE)


@dataclass(frozen=True)
class Entry:
    """One case of a manifest.

    Attributes
    ----------
    row
        Line in the file, with the header in line 1; 0 if it was found in a folder.
    case
        Name of the case.
    place
        Folder for its results, relative to the output folder; by default the name of the case.
    file_names
        Names of its results by role (`folder.write_case`), if they are not the usual ones.
    bids_root
        The BIDS dataset that it comes from; its results are a derivative of it.
    ct, mri, transform, mri_mask
        Files, or folders of DICOM slices; ``transform`` is a starting pose.
    ct_series, mri_series
        Series of a DICOM folder.
    landmarks
        One file of landmarks, or two: the CT's and the MRI's (`io.landmark_files`).
    transform_frame, transform_maps
        Frame and direction of the starting pose, where its file does not say.
    ct_offset, stated
        As in `Request`.
    """

    row: int
    case: str
    ct: Path
    mri: Path
    ct_series: str | None = None
    mri_series: str | None = None
    transform: Path | None = None
    mri_mask: Path | None = None
    landmarks: tuple[Path, ...] = ()
    place: str = ""
    file_names: Mapping[str, str] | None = None
    bids_root: Path | None = None
    transform_frame: Frame | None = None
    transform_maps: Maps | None = None
    ct_offset: float | None = None
    stated: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if not self.place:
            object.__setattr__(self, "place", self.case)

    @property
    def report(self) -> str:
        """Path of its report, relative to the output folder."""
        return f"{self.place}/{(self.file_names or {}).get('report', 'report.html')}"

    def absolute(self) -> Entry:
        """Return the same entry with absolute paths."""
        paths = {
            name: path.absolute()
            for name in ("ct", "mri", "transform", "mri_mask", "bids_root")
            if (path := getattr(self, name)) is not None
        }
        return replace(self, landmarks=tuple(path.absolute() for path in self.landmarks), **paths)

    @property
    def inputs(self) -> list[Path]:
        """All input files and folders."""
        files = (self.ct, self.mri, self.transform, self.mri_mask, *self.landmarks)
        return [path for path in files if path is not None]


@dataclass(frozen=True)
class Problem:
    """Why a row of a manifest, or a folder, is not a case.

    Attributes
    ----------
    where
        The row's number and case, or the case; nothing else of it.
    reason
        What is wrong; ``{}`` stands where the terminal shows `named`.
    named
        Names of files and folders and other cells: they may identify the patient, so that no file that is written
        shows them.
    """

    where: str
    reason: str
    named: str = ""

    def __str__(self) -> str:
        """Return it as the terminal shows it."""
        return f"{self.where}: {self.reason.replace('{}', self.named)}"

    @property
    def unnamed(self) -> str:
        """The reason without names, as table, log and page show it."""
        return self.reason.replace("{}", "")


@checked
def read_manifest(path: str | os.PathLike[str]) -> tuple[list[Entry], list[Problem]]:
    """Read a manifest; return its valid entries, and each problem in the other rows.

    Parameters
    ----------
    path
        A table with a header, UTF-8 (or UTF-16 with its mark), with commas, semicolons or tabs: ``case``, ``ct``,
        ``mri`` and, optionally, ``ct_series``, ``mri_series``, ``transform``, ``transform_frame``, ``transform_maps``,
        ``mri_mask``, ``landmarks`` (one file, or two with a ``|`` between them), ``modality`` (``ct=CT``, ``mri=MR`` or
        both), ``ct_offset``. Files are relative to the table; ``~`` is the user's home.

    Raises
    ------
    ImageFileError
        The table cannot be read, is empty, or lacks a column.
    """
    path = Path(path)
    with naming(path):
        # Bytes that are not UTF-8 spoil their own row only.
        content = read_record_bytes(path)
    try:
        table = parse_spreadsheet(content)
    except ValueError as error:
        raise ImageFileError(
            f"{path}: is not a table ({error}). Give a CSV or TSV file, a folder of cases or a BIDS dataset."
        ) from error
    if not table.columns:
        raise ImageFileError(f"{path}: is empty. Its first line must name the columns: {', '.join(REQUIRED)}.")
    columns = [name.strip().lower() for name in table.columns]
    missing = [name for name in REQUIRED if name not in columns]
    unknown = [name for name in columns if name not in (*REQUIRED, *OPTIONAL)]
    if missing or unknown or len(set(columns)) < len(columns):
        raise ImageFileError(
            f"{path}: the first line must name the columns: {', '.join(REQUIRED)}, and any of {', '.join(OPTIONAL)}, "
            f"each once. It has {', '.join(columns)}. Correct the names, or add the line."
        )
    entries: list[Entry] = []
    problems: list[Problem] = []
    rows_of: dict[str, int] = {}
    for line in table.lines:
        row = line.number
        # Cells that a row lacks are empty.
        texts = [*line.cells, *[""] * len(columns)]
        cells = {name: texts[n].strip() for n, name in enumerate(columns)}
        if cells.get("ct_offset"):
            cells["ct_offset"] = table.number_text(cells["ct_offset"])
        if not any(cells.values()):
            continue
        # Where cells have moved into another column, anything may stand in that of the case.
        where = f"row {row}" + (f" ({cells['case']})" if name_is_good(cells["case"]) else "")
        wrong = [] if len(line.cells) <= len(columns) else [("has more cells than the table has columns", "")]
        if any("\n" in text for text in line.cells):
            wrong.append(("a cell goes over several lines: check its quotes", ""))
        elif not all(map(is_decoded, cells.values())):
            wrong.append((f"is not UTF-8: {SAVE_AS_UTF8}", ""))
        else:
            wrong += _problems_of(cells, path.parent)
        # Folder names that differ only in case are the same folder on Windows and macOS.
        before = rows_of.setdefault(cells["case"].lower(), row)
        if cells["case"] and before != row:
            wrong.append((f"row {before} has the same case name; every case needs its own", ""))
        problems += [Problem(where, *words) for words in wrong]
        if not wrong:
            entries.append(_entry(row, cells, path.parent))
    if not entries and not problems:
        raise ImageFileError(f"{path}: lists no cases. Add one row for each case below the column names.")
    return entries, problems


def manifest_of(entries: Sequence[Entry]) -> str:
    """Return the text of a manifest of these cases, tab-separated, with the paths as they are."""
    words = {"CT": "ct=CT", "MRI": "mri=MR"}
    rows = []
    for entry in entries:
        cells: dict[str, str | None] = {
            name: None if getattr(entry, name) is None else str(getattr(entry, name))
            for name in (*REQUIRED, *OPTIONAL)
            if name not in ("landmarks", "modality", "ct_offset")
        }
        cells["landmarks"] = BETWEEN_FILES.join(map(str, entry.landmarks))
        cells["modality"] = " ".join(words[role] for role in entry.stated)
        cells["ct_offset"] = None if entry.ct_offset is None else repr(entry.ct_offset)
        rows.append({name: text for name, text in cells.items() if text})
    used = [name for name in (*REQUIRED, *OPTIONAL) if name in REQUIRED or any(name in row for row in rows)]
    return format_csv(rows, used, delimiter="\t")


def name_is_good(name: str) -> bool:
    """Return whether a case's name is a valid folder name on every system."""
    return bool(NAME.fullmatch(name)) and not RESERVED.fullmatch(name)


def case_or(case: str, other: str) -> str:
    """Return the name of a case for a `Problem`; where it is no good name, anything may stand there: `other`."""
    return case if name_is_good(case) else other


def _problems_of(cells: Mapping[str, str], folder: Path) -> list[tuple[str, str]]:
    """Return the reason of each problem, and what the terminal shows with it."""
    wrong = [(f"{name} is empty", "") for name in REQUIRED if not cells[name]]
    if cells["case"] and not name_is_good(cells["case"]):
        wrong.append((BAD_NAME + "{}", _got(cells["case"])))
    files = [(name, cells[name]) for name in ("ct", "mri", "transform", "mri_mask") if cells.get(name)]
    landmarks = _landmarks_of(cells)
    for name, file in [*files, *(("landmarks", file) for file in landmarks)]:
        if not exists(_path(folder, file)):
            wrong.append((f"{name} does not exist{{}}", f": {_brief(file)} (looked in {folder})"))
    if len(landmarks) > 2:
        wrong.append((f"landmarks: one file or two with a {BETWEEN_FILES} between them; got {len(landmarks)}", ""))
    if cells.get("transform") and Path(cells["transform"]).suffix.lower() not in READ_TRANSFORM_SUFFIXES:
        allowed = " or ".join(READ_TRANSFORM_SUFFIXES)
        wrong.append((f"transform: must be named {allowed}{{}}", _got(cells["transform"])))
    if cells["ct"] and cells["ct"] == cells["mri"] and cells.get("ct_series") == cells.get("mri_series"):
        wrong.append(("CT and MRI are the same file", ""))
    for name, words in _WORDS.items():
        if cells.get(name) and cells[name].lower() not in words:
            wrong.append((f"{name}: must be {' or '.join(words)}{{}}", _got(cells[name])))
    try:
        stated_in(cells.get("modality", ""))
    except SettingsError:
        wrong.append(("modality: takes ct=CT and mri=MR{}", _got(cells["modality"])))
    try:
        offset_in(cells.get("ct_offset") or "0")
    except ValueError:
        wrong.append(("ct_offset: must be a number, for example 1024{}", _got(cells["ct_offset"])))
    return wrong


def _got(cell: str) -> str:
    return f"; got {_brief(cell)}"


def _brief(cell: str) -> str:
    return cell if len(cell) <= 300 else f"{cell[:100]}... ({len(cell)} letters)"


def _path(folder: Path, cell: str) -> Path:
    """Return the path in a cell; one with the backslashes of Windows is found on other systems, too."""
    path = folder / at_home(cell)
    return folder / at_home(cell.replace("\\", "/")) if os.sep == "/" and "\\" in cell and not exists(path) else path


def _landmarks_of(cells: Mapping[str, str]) -> list[str]:
    return [name.strip() for name in cells.get("landmarks", "").split(BETWEEN_FILES) if name.strip()]


def _entry(row: int, cells: Mapping[str, str], folder: Path) -> Entry:
    def file(name: str) -> Path | None:
        return _path(folder, cells[name]) if cells.get(name) else None

    return Entry(
        row,
        cells["case"],
        _path(folder, cells["ct"]),
        _path(folder, cells["mri"]),
        cells.get("ct_series") or None,
        cells.get("mri_series") or None,
        file("transform"),
        file("mri_mask"),
        tuple(_path(folder, name) for name in _landmarks_of(cells)),
        transform_frame=cast("Frame | None", cells.get("transform_frame", "").lower() or None),
        transform_maps=cast("Maps | None", cells.get("transform_maps", "").lower() or None),
        ct_offset=offset_in(cells["ct_offset"]) if cells.get("ct_offset") else None,
        stated=stated_in(cells.get("modality", "")),
    )
