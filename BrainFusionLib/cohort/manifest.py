"""The list of a cohort's cases: a CSV or TSV table, and all that is wrong with it."""

from __future__ import annotations

import csv
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from BrainFusionLib.errors import ImageFileError
from BrainFusionLib.io import TRANSFORM_SUFFIXES

REQUIRED = ("case", "ct", "mri")
OPTIONAL = ("ct_series", "mri_series", "transform", "mri_mask")
# What a folder's name may be everywhere, and what cannot lead out of the output folder.
NAME = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9._-]{0,99}")
BAD_NAME = "the case's name becomes a folder's: only letters, digits, '_', '-' and '.' (not first), up to 100"
# Names that Windows keeps for devices.
RESERVED = re.compile(r"(con|prn|aux|nul|com\d|lpt\d)(\..*)?", re.IGNORECASE)


@dataclass(frozen=True)
class Entry:
    """One case of a manifest.

    Attributes
    ----------
    row
        Where it stands: the line of the file, the header being 1; 0 where it was found in a folder.
    case
        Its name.
    place
        Where its results go, below the output folder; by default a folder of its name.
    file_names
        What its results are called, by role (`case.write_case`), where they have other names than usual.
    bids_root
        The BIDS dataset that it is of, whose derivative its results are.
    ct, mri, transform, mri_mask
        Files, or folders of DICOM slices; ``transform`` is a starting pose.
    ct_series, mri_series
        Which series of a DICOM folder.
    """

    row: int
    case: str
    ct: Path
    mri: Path
    ct_series: str | None = None
    mri_series: str | None = None
    transform: Path | None = None
    mri_mask: Path | None = None
    place: str = ""
    file_names: Mapping[str, str] | None = None
    bids_root: Path | None = None

    def __post_init__(self) -> None:
        if not self.place:
            object.__setattr__(self, "place", self.case)

    @property
    def report(self) -> str:
        """Where its report is, below the output folder."""
        return f"{self.place}/{(self.file_names or {}).get('report', 'report.html')}"

    def absolute(self) -> Entry:
        """Return the same entry with absolute paths."""
        paths = {
            name: path.absolute()
            for name in ("ct", "mri", "transform", "mri_mask", "bids_root")
            if (path := getattr(self, name)) is not None
        }
        return replace(self, **paths)

    @property
    def inputs(self) -> list[Path]:
        """All files and folders that are read."""
        return [path for path in (self.ct, self.mri, self.transform, self.mri_mask) if path is not None]


def read_manifest(path: str | Path) -> tuple[list[Entry], list[str]]:
    """Read a manifest; return its sound entries, and in words what is wrong with the other rows.

    Parameters
    ----------
    path
        A table with a header, UTF-8, with commas, semicolons or tabs: ``case``, ``ct``, ``mri`` and, if wanted,
        ``ct_series``, ``mri_series``, ``transform``, ``mri_mask``. Files are relative to the table.

    Raises
    ------
    ImageFileError
        It cannot be read, is empty, or lacks a column.
    """
    path = Path(path)
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise ImageFileError(f"{path}: cannot be read as a UTF-8 table ({error}).") from error
    lines = text.splitlines()
    if not lines:
        raise ImageFileError(f"{path}: is empty. Its first line must name the columns: {', '.join(REQUIRED)}.")
    delimiter = max("\t;,", key=lines[0].count)
    reader = csv.DictReader(lines, delimiter=delimiter)
    columns = [(name or "").strip().lower() for name in reader.fieldnames or []]
    missing = [name for name in REQUIRED if name not in columns]
    unknown = [name for name in columns if name not in (*REQUIRED, *OPTIONAL)]
    if missing or unknown or len(set(columns)) < len(columns):
        raise ImageFileError(
            f"{path}: must have the columns {', '.join(REQUIRED)}, and may have {', '.join(OPTIONAL)}, each once; it "
            f"has {', '.join(columns)}."
        )
    reader.fieldnames = columns
    entries: list[Entry] = []
    problems: list[str] = []
    rows_of: dict[str, int] = {}
    for values in reader:
        row = reader.line_num
        told = {name: (value or "").strip() for name, value in values.items() if isinstance(name, str)}
        if not any(told.values()):
            continue
        where = f"row {row}" + (f" ({told['case']})" if told["case"] else "")
        wrong = [] if None not in values else ["has more cells than there are columns"]
        wrong += _wrong_with(told, path.parent)
        # Folders of two names that differ in case only are one folder on Windows and macOS.
        before = rows_of.setdefault(told["case"].lower(), row)
        if told["case"] and before != row:
            wrong.append(f"the case is in row {before}, too; every case needs a name of its own")
        problems += [f"{where}: {words}" for words in wrong]
        if not wrong:
            entries.append(_entry(row, told, path.parent))
    if not entries and not problems:
        raise ImageFileError(f"{path}: lists no case. Add a row for each, below the names of the columns.")
    return entries, problems


def name_is_good(name: str) -> bool:
    """Say whether a case's name can be a folder's, everywhere."""
    return bool(NAME.fullmatch(name)) and not RESERVED.fullmatch(name)


def _wrong_with(told: Mapping[str, str], folder: Path) -> list[str]:
    wrong = [f"{name} is empty" for name in REQUIRED if not told[name]]
    if told["case"] and not name_is_good(told["case"]):
        wrong.append(BAD_NAME)
    for name in ("ct", "mri", "transform", "mri_mask"):
        if told.get(name) and not (folder / told[name]).exists():
            wrong.append(f"{name}: {told[name]} does not exist (looked in {folder})")
    if told.get("transform") and Path(told["transform"]).suffix not in TRANSFORM_SUFFIXES:
        wrong.append(f"transform: {told['transform']} must be named {' or '.join(TRANSFORM_SUFFIXES)}")
    if told["ct"] and told["ct"] == told["mri"] and told.get("ct_series") == told.get("mri_series"):
        wrong.append("CT and MRI are the same file")
    return wrong


def _entry(row: int, told: Mapping[str, str], folder: Path) -> Entry:
    def file(name: str) -> Path | None:
        return folder / told[name] if told.get(name) else None

    return Entry(
        row,
        told["case"],
        folder / told["ct"],
        folder / told["mri"],
        told.get("ct_series") or None,
        told.get("mri_series") or None,
        file("transform"),
        file("mri_mask"),
    )
