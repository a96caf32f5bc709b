"""Where we stand on scanner physics: ``python -m benchmarks.realism --heads FOLDER --cases N --workers 2 -o OUT``.

Half of the cases are of the physics mix, the others of each kind of `simulation.physics.kinds.KINDS` in turn and of the
``clinic``, in which all effects occur together. A case is registered and judged as a user's is; OUT/records.csv grows
by its line. The same command resumes a run that was stopped. OUT/table.md holds one line a kind, and one for each
effect of the mix.
"""

from __future__ import annotations

import argparse
import itertools
import logging
import multiprocessing
import sys
import time
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch

from benchmarks.registration.run import heads_from
from BrainFusionLib.case.faces import register
from BrainFusionLib.errors import BrainFusionError, RegistrationError
from BrainFusionLib.io import write_text
from BrainFusionLib.io.tables import Cell, format_csv, markdown_table, parse_csv
from simulation.physics.case import PhysicsCase, make_physics_case
from simulation.physics.draw import draw_site
from simulation.physics.kinds import KINDS, draw_kind
from simulation.physics.strengths import Strengths

logger = logging.getLogger("benchmarks")

Row = dict[str, Cell]

FULL, QUICK = 1000, 60
# So many cases of the mix come from one hospital before the next.
CASES_A_SITE = 4
FIRST_SEED = 5000
# Green beyond this is the worst that can happen: the anatomy's 95th percentile, mm.
WRONG_MM = 2.0
PARTS = {"mri_scanner": "scanner", "ct_scanner": "ct_scanner", "mri_protocol": "mri", "ct_protocol": "ct",
         "patient": "patient"}  # fmt: skip
OUTCOME = ("pose_median_mm", "pose_p95_mm", "anatomy_median_mm", "anatomy_p95_mm", "true_median_mm", "true_p95_mm",
           "shift_p95_mm", "colour", "findings", "expected_mm", "low_mm", "high_mm", "refusal", "simulation_cpu_s",
           "register_cpu_s")  # fmt: skip


@dataclass(frozen=True)
class Task:
    """A case to be made: kind, seed, and the seed of its site."""

    kind: str
    seed: int
    site: int


def plan(cases: int) -> list[Task]:
    """Return the first so many cases; a longer plan begins with a shorter one."""
    kinds = [*KINDS, "clinic"]
    tasks = []
    for number in range(cases):
        site = number // 2 // CASES_A_SITE
        kind = "mix" if number % 2 == 0 else kinds[number // 2 % len(kinds)]
        tasks.append(Task(kind, FIRST_SEED + number, site))
    return tasks


def columns() -> list[str]:
    """Return the columns of records.csv."""
    return ["kind", "seed", "site", "head", "half", "effects", *_parameters(Strengths()), *OUTCOME]


def _parameters(strengths: Strengths) -> Row:
    """Return all strengths of a case, one a column."""
    row: Row = {}
    for part, prefix in PARTS.items():
        for name, value in asdict(getattr(strengths, part)).items():
            row[f"{prefix}.{name}"] = _short(" ".join(f"{v:g}" for v in value) if isinstance(value, tuple) else value)
    return row


def _short(value: Cell) -> Cell:
    if isinstance(value, bool):
        return int(value)
    return f"{value:.4g}" if isinstance(value, float) else value


def case_of(folder: Path | None, task: Task) -> tuple[PhysicsCase, int]:
    """Make the case of a task, and say in which half of the heads it is: calibrate on 0, judge on 1."""
    heads = heads_from(folder)
    number = (task.seed * 5 + len(task.kind)) % len(heads)
    strengths = draw_kind(task.kind, task.seed, draw_site(task.site))
    return make_physics_case(heads[number](), strengths, task.seed), number % 2


def row_of(folder: Path | None, task: Task) -> Row:
    """Make a case, register it, and return its line."""
    torch.set_num_threads(1)
    started = time.process_time()
    case, half = case_of(folder, task)
    simulated = time.process_time()
    true_median, true_p95 = case.anatomy_mm
    row: Row = {
        "kind": task.kind, "seed": task.seed, "site": task.site, "half": half, "head": case.name.rpartition("-")[2],
        "effects": "+".join(case.strengths.effects), "true_median_mm": true_median, "true_p95_mm": true_p95,
        "shift_p95_mm": float(np.percentile(case.brain_shift_mm, 95)), **_parameters(case.strengths),
    }  # fmt: skip
    try:
        result = register(case.ct, case.mri, device="cpu")
    except RegistrationError as error:
        row |= {"colour": "refused", "refusal": error.problem}
        found = error.best_transform
    except BrainFusionError as error:
        row |= {"colour": "rejected", "refusal": str(error)}
        found = None
    else:
        verdict = result.verdict
        low, high = verdict.interval_mm or (None, None)
        row |= {
            "colour": verdict.colour, "findings": "+".join(finding.code for finding in verdict.findings),
            "expected_mm": verdict.expected_error_mm, "low_mm": low, "high_mm": high,
        }  # fmt: skip
        found = result.pose.transform
    if found is not None:
        for name, errors in (("pose", case.pose_errors_mm(found)), ("anatomy", case.errors_mm(found))):
            row[f"{name}_median_mm"] = float(np.median(errors))
            row[f"{name}_p95_mm"] = float(np.percentile(errors, 95))
    row |= {"simulation_cpu_s": simulated - started, "register_cpu_s": time.process_time() - simulated}
    return {name: _short(value) for name, value in row.items()}


def run(folder: Path | None, path: Path, cases: int, workers: int) -> None:
    """Make and register what is not in `path` yet, so many at once, and append the lines."""
    done = {(row["kind"], row["seed"]) for row in read(path)}
    left = [task for task in plan(cases) if (task.kind, str(task.seed)) not in done]
    if not left:
        return
    logger.info("seeds %d to %d, %d cases left", FIRST_SEED, FIRST_SEED + cases - 1, len(left))
    # A fresh process, because torch's threads do not survive a fork.
    with ProcessPoolExecutor(workers, multiprocessing.get_context("spawn")) as pool:
        for row in pool.map(row_of, itertools.repeat(folder), left):
            new = not path.exists()
            with path.open("a", newline="\n", encoding="utf-8") as file:
                file.write(format_csv([row], columns(), header=new))
            logger.info(
                "%s %s %s: pose %s, anatomy %s (p95 %s), %s %s", row["kind"], row["seed"], row["effects"],
                row.get("pose_median_mm"), row.get("anatomy_median_mm"), row.get("anatomy_p95_mm"), row["colour"],
                row.get("findings", ""),
            )  # fmt: skip


def read(path: Path) -> list[dict[str, str]]:
    """Return the records so far."""
    return parse_csv(path.read_text(encoding="utf-8")).rows if path.exists() else []


def table(rows: Sequence[dict[str, str]]) -> str:
    """Return the tables as Markdown."""
    kinds = [*dict.fromkeys(["mix", "clinic", *KINDS])]
    effects = sorted({effect for row in rows if row["kind"] == "mix" for effect in row["effects"].split("+")})
    of_kinds = [_cells(kind, [row for row in rows if row["kind"] == kind]) for kind in kinds]
    of_effects = [
        _cells(effect or "none", [r for r in rows if r["kind"] == "mix" and effect in r["effects"].split("+")])
        for effect in effects
    ]
    wrong = [row for row in rows if row["anatomy_p95_mm"] and float(row["anatomy_p95_mm"]) > WRONG_MM]
    green = [row for row in wrong if row["colour"] == "green"]
    refused = Counter(row["refusal"] for row in rows if row["refusal"])
    seeds = [int(row["seed"]) for row in rows]
    lines = [
        "# Scanner physics: measured",
        "",
        f"{len(rows)} simulated cases, seeds {min(seeds, default=0)} to {max(seeds, default=0)}; all parameters and "
        "outcomes stand in records.csv. Errors are in mm, medians over the cases. *Pose*: median over the brain of the "
        "distance to the best rigid fit of the skull. *Anatomy*: median, and 95th percentile, of the distance between "
        "where the pose puts the CT's anatomy and where the MRI has it. *True pose*: the same in the best rigid fit. "
        "*Expected* is what the verdict says; *held*: the anatomy's median is within the stated interval's upper end, "
        "of results with one. Nothing of the verdict was calibrated on these cases.",
        "",
        f"Anatomy off by more than {WRONG_MM:g} mm (95th percentile): {len(wrong)} cases, {len(green)} of them green.",
        "",
        markdown_table(HEADER, of_kinds),
        "",
        "The same for each effect of the mix; a case with several stands in several lines.",
        "",
        markdown_table(["effect", *HEADER[1:]], of_effects),
        "",
    ]
    if refused:
        lines += ["Refusals and rejections:", "", *(f"- {count}: {text}" for text, count in refused.most_common()), ""]
    return "\n".join(lines)


HEADER = ["kind", "cases", "pose", "anatomy", "anatomy p95", "true pose: anatomy", "p95", "expected", "held", "green",
          "amber", "red", "refused", "findings"]  # fmt: skip


def _cells(name: str, rows: Sequence[dict[str, str]]) -> list[Cell]:
    def median(column: str) -> str:
        values = [float(row[column]) for row in rows if row[column]]
        return f"{np.median(values):.2f}" if values else "–"

    stated = [row for row in rows if row["high_mm"] and row["anatomy_median_mm"]]
    held = sum(float(row["anatomy_median_mm"]) <= float(row["high_mm"]) for row in stated)
    colours = Counter(row["colour"] for row in rows)
    codes = Counter(code for row in rows for code in row["findings"].split("+") if code)
    return [
        name, len(rows), *(median(c) for c in ("pose_median_mm", "anatomy_median_mm", "anatomy_p95_mm",
                                               "true_median_mm", "true_p95_mm", "expected_mm")),
        f"{held}/{len(stated)}", colours["green"], colours["amber"], colours["red"],
        colours["refused"] + colours["rejected"], ", ".join(f"{code} {n}" for code, n in codes.most_common(4)),
    ]  # fmt: skip


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; return the exit code."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.realism", description=__doc__.splitlines()[0])
    parser.add_argument("--heads", type=Path, metavar="FOLDER", help="label maps (SynthSeg's classes); else phantoms")
    parser.add_argument("--cases", type=int, default=FULL, metavar="N", help=f"cases in all ({FULL})")
    parser.add_argument("--quick", action="store_true", help=f"the first {QUICK} cases alone")
    parser.add_argument("--workers", type=int, default=1, metavar="N", help="cases at once (1)")
    parser.add_argument("--table-only", action="store_true", help="make the table of the records that are there")
    parser.add_argument("--sheet", action="store_true", help="draw OUT/sheet.png with an example of each kind")
    parser.add_argument("-o", "--output", type=Path, required=True, metavar="OUT")
    arguments = parser.parse_args(argv)
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    try:
        arguments.output.mkdir(parents=True, exist_ok=True)
        records = arguments.output / "records.csv"
        if not arguments.table_only:
            cases = min(arguments.cases, QUICK) if arguments.quick else arguments.cases
            run(arguments.heads, records, cases, arguments.workers)
        rows = read(records)
        if rows:
            write_text(table(rows), arguments.output / "table.md")
        if arguments.sheet:
            from benchmarks.realism.sheet import write_sheet

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
