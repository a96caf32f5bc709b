"""``brainfusion validate``: the bounds stated for a cohort against the errors at its landmarks."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from BrainFusionLib.cli.codes import DONE, FAULT, WRONG_INPUT, fail
from BrainFusionLib.cli.cohort import add_cohort_options, entries_of, run_entries
from BrainFusionLib.cohort import Entry
from BrainFusionLib.cohort.validation import coverage, validation_page, validation_table, worst_first
from BrainFusionLib.console import say
from BrainFusionLib.errors import BrainFusionError, SettingsError
from BrainFusionLib.io import write_text
from BrainFusionLib.io.landmark_files import read_landmarks
from BrainFusionLib.quantities import counted

TABLE, PAGE = "validation.tsv", "validation.html"


def add_to(commands: Any, line: str) -> None:
    """Add the command to the parser's; `line` is its help in the list of commands."""
    command = commands.add_parser(
        "validate",
        help=line,
        description="Register and fuse every case of a cohort that has landmarks, and compare the bound stated for "
        "each with the error measured at its landmarks. Resumable.",
        epilog="COHORT: a table as for brainfusion cohort, with the column landmarks: one file, or two with a | "
        "between them (the CT's and the MRI's). Written to FOLDER, beside the files of a cohort: validation.tsv and "
        "validation.html, the worst cases first. Exit codes: as brainfusion cohort.",
    )
    add_cohort_options(command)
    command.set_defaults(run=_validate, keep_refused=None)


def _validate(options: argparse.Namespace) -> int:
    entries, problems = entries_of(options)
    if not entries:
        return fail(
            f"{options.cohort}: no case can be run: {counted(len(problems), 'problem')}, listed above.", WRONG_INPUT
        )
    marked = [entry for entry in entries if entry.landmarks]
    if not marked:
        raise SettingsError(
            f"{options.cohort}: no case has landmarks. Add a column landmarks to the table, with each case's files. "
            "From a folder, brainfusion cohort --dry-run makes that table."
        )
    if options.dry_run:
        unread = [f"{entry.case}: {problem}" for entry in marked if (problem := _unread(entry)) is not None]
        for entry in marked:
            say(f"{entry.case}\t{entry.ct}\t{entry.mri}\t{' '.join(map(str, entry.landmarks))}")
        for text in unread:
            say(*text.split("\n"), error=True)
        say(f"{len(marked) - len(unread)} of {len(entries)} cases have landmarks that can be read.")
        return WRONG_INPUT if problems or unread else DONE
    if len(marked) < len(entries):
        say(f"{counted(len(entries) - len(marked), 'case')} without landmarks: left out.", error=True)
    rows = run_entries(options, marked, problems, (TABLE, PAGE))
    folder = Path(options.output)
    write_text(validation_table(rows), folder / TABLE)
    write_text(validation_page(rows), folder / PAGE)
    for row in worst_first(rows):
        if row.landmarks_median_mm is None:
            say(f"  {row.case}: {row.status}: {row.error}", error=True)
        else:
            bound = "no bound" if row.stated_bound_mm is None else f"bound {row.stated_bound_mm:.2f} mm"
            say(
                f"  {row.case}: {bound}, landmarks {row.landmarks_median_mm:.2f} mm (worst "
                f"{row.landmarks_worst_mm:.2f} mm), {row.verdict}"
            )
    say(coverage(rows).sentence)
    say(f"See {folder / PAGE} and {TABLE}.")
    return FAULT if problems or any(row.status != "done" for row in rows) else DONE


def _unread(entry: Entry) -> str | None:
    """Return why the landmarks of a case cannot be read; ``None`` if they can."""
    try:
        read_landmarks(entry.landmarks)
    except BrainFusionError as error:
        return str(error)
    return None
