"""``brainfusion cohort``: many cases."""

from __future__ import annotations

import argparse
import time
from typing import Any, get_args

from BrainFusionLib.cli.codes import DONE, FAULT, WRONG_INPUT
from BrainFusionLib.cli.rules import add_rule_options, fusion_settings
from BrainFusionLib.cohort import read_manifest, run_cohort
from BrainFusionLib.console import say
from BrainFusionLib.settings import Device, Preset, RegistrationSettings, Settings


def add_to(commands: Any) -> None:
    """Add the command to the parser's."""
    command = commands.add_parser(
        "cohort",
        help="register and fuse many pairs",
        description="Fuse every case of a manifest. Can be stopped at any moment: run again, it goes on.",
        epilog="MANIFEST: a table with the columns case, ct, mri and, if wanted, ct_series, mri_series, transform, "
        "mri_mask; files relative to it. FOLDER gets a folder a case and cohort.tsv. Exit codes: 0 all done, 1 some "
        "failed or were refused (the others are done), 2 the manifest or a setting is wrong.",
    )
    command.add_argument("manifest", metavar="MANIFEST", help="CSV or TSV table of the cases")
    command.add_argument("-o", "--output", required=True, metavar="FOLDER", help="where to write the results")
    command.add_argument("--dry-run", action="store_true", help="say what would be done and what is wrong, and stop")
    command.add_argument("--workers", type=int, default=1, metavar="N", help="cases at once (default: 1)")
    command.add_argument(
        "--scheduler", metavar="ADDRESS", help="of a Dask scheduler whose workers do the work (tcp://host:8786)"
    )
    add_rule_options(command)
    command.add_argument("--preset", choices=get_args(Preset), default="standard", help="how hard to look for the pose")
    command.add_argument("--device", choices=get_args(Device), default="auto", help="where to compute (default: auto)")
    command.set_defaults(run=_cohort, keep_refused=None)


def _cohort(options: argparse.Namespace) -> int:
    entries, problems = read_manifest(options.manifest)
    for problem in problems:
        say(f"{options.manifest}: {problem}", error=True)
    if options.dry_run:
        for entry in entries:
            say(f"{entry.case}\t{entry.ct}\t{entry.mri}")
        say(f"{len(entries)} cases to do, {len(problems)} things wrong.")
        return WRONG_INPUT if problems else DONE
    if not entries:
        return WRONG_INPUT
    settings = Settings(
        registration=RegistrationSettings.preset(options.preset),
        fusion=fusion_settings(options),
        device=options.device,
        threads=1 if options.workers > 1 or options.scheduler else None,
    )
    began = time.monotonic()

    def tell(row: dict[str, Any], done: int, total: int) -> None:
        left = (time.monotonic() - began) / done * (total - done)
        words = row.get("error") or f"verdict {row.get('verdict')}"
        say(f"[{done}/{total}, about {left:.0f} s left] {row['case']}: {row['status']}, {row['seconds']} s; {words}")

    rows = run_cohort(
        entries, options.output, settings, workers=options.workers, scheduler=options.scheduler, tell=tell
    )
    bad = [row for row in rows if row["status"] != "done"]
    say(f"{len(rows) - len(bad)} done, {len(bad)} not, {len(problems)} things wrong with the manifest; see cohort.tsv.")
    for row in bad:
        say(f"  {row['case']}: {row['status']}: {row['error']}", error=True)
    return FAULT if bad or problems else DONE
