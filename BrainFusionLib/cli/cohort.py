"""``brainfusion cohort``: many cases."""

from __future__ import annotations

import argparse
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, get_args

from BrainFusionLib.cli.codes import DONE, FAULT, WRONG_INPUT, fail
from BrainFusionLib.cli.output import add_output_options, output_settings
from BrainFusionLib.cli.outputs import check_outputs
from BrainFusionLib.cli.pair import add_stated, stated_by
from BrainFusionLib.cli.remedies import PHRASES
from BrainFusionLib.cli.rules import add_rule_options, fusion_settings
from BrainFusionLib.cohort import Entry, read_bids, read_folders, read_manifest, run_cohort
from BrainFusionLib.cohort.folders import PATTERNS
from BrainFusionLib.cohort.manifest import OPTIONAL, Problem, manifest_of
from BrainFusionLib.cohort.memory import workers_that_fit
from BrainFusionLib.cohort.one_case import inputs_of
from BrainFusionLib.cohort.row import OVERVIEW, TABLE, Row
from BrainFusionLib.cohort.running import LOG
from BrainFusionLib.console import say
from BrainFusionLib.errors import Remedy, SettingsError
from BrainFusionLib.io.ownership import refuse_to_replace_others
from BrainFusionLib.io.reading import is_folder
from BrainFusionLib.settings import Device, OutputSettings, Preset, RegistrationSettings, Settings


def add_to(commands: Any, line: str) -> None:
    """Add the command to the parser's; `line` is its help in the list of commands."""
    command = commands.add_parser(
        "cohort",
        help=line,
        description="Register and fuse every case of a cohort. Resumable: stop it at any time, and run it again.",
        epilog="COHORT: a table with the columns case, ct, mri and, optionally, "
        f"{', '.join(OPTIONAL)} (landmarks: one file, or two with a | between them), with files relative to it; "
        "or a folder with one folder for each case; or, with --bids, a BIDS dataset. "
        "Written to FOLDER: a folder for each case, cohort.tsv, cohort.html and cohort.log. Exit codes: 0 all "
        "done, 1 some failed or were refused (the others are done), 2 the cohort or a setting is wrong.",
    )
    add_cohort_options(command)
    command.set_defaults(run=_cohort, keep_refused=None)


def add_cohort_options(command: Any) -> None:
    """Add what a cohort is, where its results go, and how it is computed."""
    command.add_argument("cohort", metavar="COHORT", help="CSV or TSV table of the cases, or a folder")
    command.add_argument("-o", "--output", required=True, metavar="FOLDER", help="where to write the results")
    command.add_argument(
        "--bids", action="store_true", help="COHORT is a BIDS dataset, and FOLDER becomes a derivative"
    )
    command.add_argument(
        "--participant-label", nargs="+", default=[], metavar="LABEL", help="only these participants of a BIDS dataset"
    )
    for role, default in PATTERNS.items():
        command.add_argument(
            f"--{role}-pattern", metavar="PATTERN",
            help=f"name of the {role.upper()} in a case's folder, with * and ? as in a shell (default: {default}; "
            "in a BIDS dataset, the standard names)",
        )  # fmt: skip
    command.add_argument(
        "--dry-run",
        action="store_true",
        help="print the cases, as a table that can be a COHORT, and the problems; then stop",
    )
    command.add_argument(
        "--workers", default="auto", metavar="N",
        help="cases at once (default: auto, as many as the free memory and the cores allow); on a graphics card one "
        "process computes, and N threads read ahead",
    )  # fmt: skip
    command.add_argument(
        "--scheduler", metavar="ADDRESS", help="address of a Dask scheduler whose workers do the work (tcp://host:8786)"
    )
    command.add_argument(
        "--bone", action="store_true", help="also write the bone of each CT on its MRI's grid, a label map"
    )
    add_stated(command)
    add_rule_options(command)
    add_output_options(command)
    command.add_argument(
        "--preset", choices=get_args(Preset), default="standard", help="effort of the search for the pose"
    )
    command.add_argument("--device", choices=get_args(Device), default="auto", help="where to compute (default: auto)")


def _cohort(options: argparse.Namespace) -> int:
    entries, problems = entries_of(options)
    if options.dry_run:
        say(*manifest_of([entry.absolute() for entry in entries]).rstrip("\n").split("\n"))
        say(f"{len(entries)} case{'' if len(entries) == 1 else 's'}, {_counted(problems)}.", error=True)
        return WRONG_INPUT if problems else DONE
    if not entries:
        return fail(f"{options.cohort}: no case can be run: {_counted(problems)}, listed above.", WRONG_INPUT)
    rows = run_entries(options, entries, problems)
    bad = [row for row in rows if row.status != "done"]
    say(f"{len(rows) - len(bad)} done, {len(bad)} failed; {_counted(problems)} in the cohort.")
    say(f"  all cases  {Path(options.output) / 'cohort.html'}")
    for row in bad:
        say(f"  {row.case}: {row.status}: {row.error}", error=True)
    return FAULT if bad or problems else DONE


def run_entries(
    options: argparse.Namespace, entries: Sequence[Entry], problems: Sequence[Problem], also_written: Sequence[str] = ()
) -> list[Row]:
    """Do the cases that are not done yet, and print each; return their rows.

    `also_written`: names of further files that are written to the output folder.
    """
    output = output_settings(options)
    outputs = [Path(options.output) / name for name in (TABLE, OVERVIEW, LOG, *also_written)]
    given = [given for entry in entries for given in inputs_of(entry)]
    check_outputs(options, outputs, given, remedy=Remedy.OTHER_OUTPUT_FOLDER)
    refuse_to_replace_others(Path(options.output), (TABLE, OVERVIEW, LOG, *also_written))
    workers = 1 if options.scheduler else _workers(options.workers, entries, output)
    settings = Settings(
        registration=RegistrationSettings.preset(options.preset),
        fusion=fusion_settings(options),
        device=options.device,
        bone=options.bone,
        threads=1 if workers > 1 or options.scheduler else None,
        output=output,
    )
    began = time.monotonic()

    def report(row: Row, done: int, total: int) -> None:
        left = (time.monotonic() - began) / done * (total - done)
        say(f"[{done}/{total}, about {left:.0f} s left] {row.case}: {row.summary()}")

    return run_cohort(
        entries,
        options.output,
        settings,
        workers=workers,
        scheduler=options.scheduler,
        report=report,
        problems=problems,
    )


def _with_options(entry: Entry, options: argparse.Namespace) -> Entry:
    """Return a case with what the options say of all; the cells of its own row come first."""
    offset = options.ct_offset if entry.ct_offset is None else entry.ct_offset
    return replace(entry, ct_offset=offset, stated=entry.stated or stated_by(options))


def _counted(problems: Sequence[Problem]) -> str:
    return f"{len(problems)} problem{'' if len(problems) == 1 else 's'}"


def entries_of(options: argparse.Namespace) -> tuple[list[Entry], list[Problem]]:
    """Return the cases of the cohort and its problems, which are printed; table, log and page name options, too."""
    entries, found = _entries(options)
    phrase = PHRASES[Remedy.NAME_PATTERN]
    problems = [replace(one, reason=one.reason.replace(Remedy.NAME_PATTERN.value, phrase)) for one in found]
    for problem in problems:
        say(f"{options.cohort}: {problem}", error=True)
    return [_with_options(entry, options) for entry in entries], problems


def _entries(options: argparse.Namespace) -> tuple[list[Entry], list[Problem]]:
    """Return the cases and the problems of the cohort.

    Raises
    ------
    SettingsError
        An option is for another kind of cohort.
    """
    patterns = (options.ct_pattern, options.mri_pattern)
    if options.bids and options.reference == "ct":
        raise SettingsError("a BIDS derivative is in the frame of the MRI: omit --bids or --reference")
    if options.bids:
        return read_bids(options.cohort, options.participant_label, *patterns)
    if options.participant_label:
        raise SettingsError("--participant-label is for BIDS datasets: add --bids, or omit it")
    if is_folder(Path(options.cohort)):
        entries, problems = read_folders(options.cohort, *patterns)
        if not entries and (Path(options.cohort) / "dataset_description.json").is_file():
            raise SettingsError(f"{options.cohort}: no case was found, but it is a BIDS dataset: add --bids")
        return entries, problems
    if any(patterns):
        raise SettingsError("--ct-pattern and --mri-pattern are for folders, but the cohort is a table: omit them")
    return read_manifest(options.cohort)


def _workers(wanted: str, entries: Sequence[Entry], output: OutputSettings) -> int:
    """Return how many cases to do at once.

    Raises
    ------
    SettingsError
        The number is neither ``auto`` nor a whole number of at least 1.
    """
    if wanted != "auto":
        if not wanted.isdecimal() or int(wanted) < 1:
            raise SettingsError(f"--workers must be auto or a whole number of at least 1; got {wanted!r}")
        return int(wanted)
    try:
        workers, needed = workers_that_fit(entries, output)
    except ImportError:
        say("One case at a time: to determine how many fit into the memory, pip install distributed psutil.")
        return 1
    say(f"{workers} {'case' if workers == 1 else 'cases'} at once, each with up to {needed / 1e9:.1f} GB of memory.")
    return workers
