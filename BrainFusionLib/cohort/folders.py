"""A cohort as a folder with one folder for each case; CT and MRI are found by their names."""

from __future__ import annotations

import os
from pathlib import Path

from BrainFusionLib.arguments import checked
from BrainFusionLib.cohort.manifest import BAD_NAME, Entry, Problem, case_or, name_is_good
from BrainFusionLib.cohort.row import TABLE
from BrainFusionLib.errors import ImageFileError, Remedy, SettingsError
from BrainFusionLib.io.formats import header_of
from BrainFusionLib.printable import shown

PATTERNS = {"ct": "ct*", "mri": "mr*"}


@checked
def read_folders(
    root: str | os.PathLike[str], ct_pattern: str | None = None, mri_pattern: str | None = None
) -> tuple[list[Entry], list[Problem]]:
    """Treat every folder in `root` as a case; return the valid cases, and each problem.

    Parameters
    ----------
    ct_pattern, mri_pattern
        Names of the CT and the MRI (each a file or a folder of DICOM slices) inside a case's folder, with ``*`` and
        ``?`` as in a shell, and ``/`` for subfolders; default ``ct*`` and ``mr*``.

    Raises
    ------
    ImageFileError
        The folder cannot be read, contains no folder, or contains results and no pairs.
    """
    root = Path(root)
    try:
        folders = sorted(path for path in root.iterdir() if path.is_dir() and not path.name.startswith("."))
    except OSError as error:
        raise ImageFileError(f"{root}: cannot be read ({error.strerror}).") from error
    if not folders:
        raise ImageFileError(f"{root}: contains no folder. Make one folder for each case, with a CT and an MRI in it.")
    entries: list[Entry] = []
    problems: list[Problem] = []
    for number, folder in enumerate(folders, 1):
        ct, no_ct = only_one(folder, [ct_pattern or PATTERNS["ct"]], "CT")
        mri, no_mri = only_one(folder, [mri_pattern or PATTERNS["mri"]], "MRI")
        where = case_or(folder.name, f"folder {number}")
        wrong = [Problem(where, *words) for words in (no_ct, no_mri) if words is not None]
        if not name_is_good(folder.name):
            wrong.append(Problem(where, BAD_NAME + "{}", f"; got {shown(folder.name)}"))
        if ct is not None and ct == mri:
            wrong.append(Problem(where, "CT and MRI are the same file{}", f", {shown(ct.name)}"))
        problems += wrong
        if ct is not None and mri is not None and not wrong:
            entries.append(Entry(0, folder.name, ct, mri))
    if not entries and (root / TABLE).exists():
        raise ImageFileError(
            f"{root}: holds the results of a cohort ({TABLE}). Give the table or the folder that they were made from."
        )
    return entries, problems


def only_one(folder: Path, patterns: list[str], what: str) -> tuple[Path | None, tuple[str, str] | None]:
    """Return the only match of the first pattern that has any; otherwise a `Problem`'s reason and what is named."""
    for pattern in patterns:
        try:
            found = [path for path in sorted(folder.glob(pattern)) if not path.name.startswith(".")]
        except (ValueError, NotImplementedError, OSError) as error:
            raise SettingsError(
                f"{pattern!r} is no pattern for the name of the {what} ({error}). Give one like {PATTERNS['ct']!r}, "
                "relative to the folder of a case."
            ) from error
        found = [path for path in found if header_of(path) is None]  # a pair is named by its header
        if len(found) == 1:
            return found[0], None
        if found:
            names = ", ".join(shown(path.relative_to(folder).as_posix()) for path in found[:4])
            more = "" if len(found) <= 4 else f" and {len(found) - 4} more"
            reason = f"{len(found)} possible files for the {what}{{}}. {Remedy.NAME_PATTERN.value}"
            return None, (reason, f": {names}{more}")
    return None, (f"no {what}: nothing is named {' or '.join(patterns)}. {Remedy.NAME_PATTERN.value}", "")
