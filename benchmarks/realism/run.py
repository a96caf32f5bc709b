"""Where we stand on scanner physics: ``python -m benchmarks.realism --heads FOLDER --cases N --workers 2 -o OUT``.

Simulates pairs with the physics of scanners and patients, registers them, and keeps truth and all evidence of each as
one row of OUT/records.csv: the dear part, which is resumed where it was stopped. From the rows, and with the limits of
this revision, it judges every case anew and writes table.md, calibration.md and reliability.png in seconds
(``--table-only``). ``--calibrate`` first fits the library's table of the expected error to the heads and scanners that
calibrate. ``--sheet`` makes the worst cases again and draws them (worst.png), with an example of each kind (sheet.png).
"""

from __future__ import annotations

import argparse
import logging
import sys
from collections.abc import Sequence
from pathlib import Path

from benchmarks.realism import holding, tables
from benchmarks.realism.calibrating import Fit, calibrated, sample
from benchmarks.realism.collect import collect
from benchmarks.realism.judging import Judged, judged_all
from BrainFusionLib.errors import BrainFusionError
from BrainFusionLib.io import write_json, write_text
from BrainFusionLib.io.tables import parse_csv
from BrainFusionLib.verdict.expected import TABLE, calibration

logger = logging.getLogger("benchmarks")

FULL, QUICK = 1144, 160


def tabulate(records: Path, output: Path, *, calibrate: bool) -> list[Judged]:
    """Judge all rows, write the tables and the plot, and return the judged rows.

    Raises
    ------
    ValueError
        There are no rows, or none that calibrates.
    """
    rows = parse_csv(records.read_text(encoding="utf-8")).rows if records.exists() else []
    if not rows:
        raise ValueError(f"{records} has no cases yet; name the folder of label maps with --heads")
    cases = judged_all(rows)
    own = sample([case for case in cases if case.row["half"] == "0"])
    if not len(own):
        raise ValueError(f"{records} has no case that calibrates")
    fit: Fit = calibrated(own)
    if calibrate:
        write_json(fit.plain(len(own)), TABLE)
        calibration.cache_clear()
        cases = judged_all(rows)
    write_text(tables.report(cases), output / "table.md")
    write_text(holding.report(cases, fit), output / "calibration.md")
    try:
        from benchmarks.realism.plots import write_reliability
    except ImportError:
        logger.warning("reliability.png is not drawn: matplotlib is missing (pip install brainfusion[train])")
    else:
        write_reliability(cases, output / "reliability.png")
    return cases


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; return the exit code."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.realism", description=__doc__.splitlines()[0])
    parser.add_argument("--heads", type=Path, metavar="FOLDER", help="label maps (SynthSeg's classes); else phantoms")
    parser.add_argument("--cases", type=int, default=FULL, metavar="N", help=f"cases in all ({FULL})")
    parser.add_argument("--quick", action="store_true", help=f"the first {QUICK} cases alone")
    parser.add_argument("--workers", type=int, default=1, metavar="N", help="cases at once (1)")
    parser.add_argument("--table-only", action="store_true", help="judge the rows that are there, and measure nothing")
    parser.add_argument("--calibrate", action="store_true", help="write the library's table of the expected error")
    parser.add_argument("--sheet", action="store_true", help="draw OUT/worst.png and OUT/sheet.png")
    parser.add_argument("-o", "--output", type=Path, required=True, metavar="OUT")
    arguments = parser.parse_args(argv)
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    try:
        arguments.output.mkdir(parents=True, exist_ok=True)
        records = arguments.output / "records.csv"
        if not arguments.table_only:
            cases = min(arguments.cases, QUICK) if arguments.quick else arguments.cases
            collect(arguments.heads, records, cases, arguments.workers)
        judged = tabulate(records, arguments.output, calibrate=arguments.calibrate)
        print((arguments.output / "table.md").read_text(encoding="utf-8"))
        print((arguments.output / "calibration.md").read_text(encoding="utf-8"))
        if arguments.sheet:
            from benchmarks.realism.sheet import write_sheet
            from benchmarks.realism.worst import write_worst

            write_worst(judged, arguments.heads, arguments.output / "worst.png")
            write_sheet(arguments.heads, arguments.output / "sheet.png")
    except (BrainFusionError, OSError, ValueError) as error:
        logger.error("realism: %s", error)
        return 2
    except KeyboardInterrupt:
        logger.error("realism: stopped; the same command resumes it")
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
