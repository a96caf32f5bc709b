"""Run the benchmark: ``python -m benchmarks.registration --heads FOLDER --kinds E,M,F,D,R --cases 4 --output FOLDER``.

Without ``--heads`` the heads are phantoms. Every run is a process of its own, on one thread. FOLDER/results.csv grows
by a line a run; what it holds is not repeated, so a stopped run resumes where it was. ``--docs FOLDER``
writes table.md, results.csv and curves.png of everything that stands there.
"""

from __future__ import annotations

import argparse
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np

from benchmarks.registration.measure import measure, single_threaded
from benchmarks.registration.methods import METHODS
from benchmarks.registration.plotting import check_matplotlib, plot_errors
from benchmarks.registration.results import REFERENCE, Row, append_result, read_results, summary
from BrainFusionLib.errors import BrainFusionError
from BrainFusionLib.io import write_text
from simulation.cases import KINDS, POSITIVE, Case, case_name, check_kind, make_case
from simulation.heads import Head, phantom_head
from simulation.label_maps import read_head

# Making a phantom takes three seconds, and cases made from one phantom still differ.
PHANTOMS = 14


@dataclass(frozen=True)
class Plan:
    """What is to be run.

    Parameters
    ----------
    kinds, seeds, methods
        Every method on every seed of every kind.
    heads
        Give the heads; cases take them in turn.
    spacing_mm
        1 for full resolution, 2 for half; tests take coarser ones.
    timeout_s
        After which a run counts as failed.
    """

    kinds: Sequence[str]
    seeds: Sequence[int]
    methods: Sequence[str]
    heads: Sequence[Callable[[], Head]]
    spacing_mm: float = 1.0
    timeout_s: float = 600.0

    @property
    def resolution(self) -> str:
        """What the results call it."""
        return {1.0: "full", 2.0: "half"}.get(self.spacing_mm, f"{self.spacing_mm:g} mm")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run what is missing, then print the table."""
    options = _parser().parse_args(arguments)
    try:
        kinds = options.kinds.split(",")
        for kind in kinds:
            check_kind(kind)
        for method in options.methods:
            METHODS[method].check_installed()
        if options.docs:
            check_matplotlib()
        options.output.mkdir(parents=True, exist_ok=True)
        table = options.output / "results.csv"
        seeds = range(options.seed, options.seed + options.cases)
        spacing_mm = 2.0 if options.half else 1.0
        plan = Plan(kinds, seeds, options.methods, heads_from(options.heads), spacing_mm, options.timeout)
        for row in run_missing(plan, table, options.jobs):
            print("  ".join(row.values()), flush=True)
        print()
        print(summary(read_results(table)))
        if options.docs:
            write_docs(table, options.docs)
    except (ValueError, OSError, BrainFusionError) as error:
        print(f"benchmark: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("benchmark: stopped; the same command resumes it", file=sys.stderr)
        return 130
    return 0


def run_missing(plan: Plan, table: Path, jobs: int = 1) -> Iterator[Row]:
    """Run what the table does not hold yet; add each row to it, and give it."""
    single_threaded()
    done = {(row["case"], row["resolution"], row["method"]) for row in read_results(table)}
    writing, stop = threading.Lock(), threading.Event()

    def run_case(kind: str, seed: int) -> list[Row]:
        head = _head_of(plan, kind, seed)
        name = case_name(kind, seed, head)
        missing = [method for method in plan.methods if (name, plan.resolution, method) not in done]
        if not missing or stop.is_set():
            return []
        other = _head_of(plan, kind, seed + 1) if kind == "N1" else None
        case = make_case(kind, seed, head, spacing_mm=plan.spacing_mm, other=other)
        rows = []
        for method in missing:
            row = {**_describe(case, plan.resolution), "method": method}
            row |= measure(case, method, plan.timeout_s, stop)
            with writing:
                append_result(table, row)
            rows.append(row)
        return rows

    # Threads, because all that they do is to wait for the processes that measure.
    with ThreadPoolExecutor(jobs) as pool:
        futures = [pool.submit(run_case, kind, seed) for kind in plan.kinds for seed in plan.seeds]
        try:
            for future in futures:
                yield from future.result()
        finally:  # Ctrl-C, or a case that cannot be made
            stop.set()
            pool.shutdown(wait=False, cancel_futures=True)


def write_docs(table: Path, folder: Path) -> None:
    """Write table.md, results.csv and curves.png of a table's rows.

    Raises
    ------
    BrainFusionError
        matplotlib is missing, or a file cannot be written.
    """
    folder.mkdir(parents=True, exist_ok=True)
    rows = read_results(table)
    plot_errors(rows, folder / "curves.png")
    write_text(table.read_text(encoding="utf-8"), folder / "results.csv")
    title = "beside other tools" if any(row["method"] == REFERENCE for row in rows) else "measured"
    write_text(f"# Registration: {title}\n\n" + summary(rows), folder / "table.md")


def _describe(case: Case, resolution: str) -> Row:
    shift = float(np.linalg.norm(case.transform.shift_at(case.mri.grid.centre_lps_mm)))
    return {
        "kind": case.kind,
        "case": case.name,
        "resolution": resolution,
        "angle_deg": f"{case.transform.angle_deg:.1f}",
        "shift_mm": f"{shift:.1f}",
    }


def heads_from(folder: Path | None) -> list[Callable[[], Head]]:
    """Return what gives the heads: a folder's label maps, or phantoms."""
    if folder is None:
        return [partial(phantom_head, seed) for seed in range(PHANTOMS)]
    files = sorted(folder.glob("*.nii*"))
    if len(files) < 2:
        raise ValueError(f"{folder} must hold two label maps or more (*.nii, *.nii.gz); it holds {len(files)}")
    return [partial(read_head, file) for file in files]


def _head_of(plan: Plan, kind: str, seed: int) -> Head:
    """Return a case's head: in turn, and different kinds begin with different ones."""
    return plan.heads[(seed + 3 * list(KINDS).index(kind)) % len(plan.heads)]()


def _parser() -> argparse.ArgumentParser:
    kinds = "\n".join(f"  {name:3} {kind.words}" for name, kind in KINDS.items())
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.registration",
        description=__doc__,
        epilog=f"kinds:\n{kinds}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--heads", type=Path, help="folder of label maps (SynthSeg's classes); else phantoms")
    parser.add_argument("--kinds", default=",".join(POSITIVE), help="with commas (default: all with a truth)")
    parser.add_argument("--cases", type=int, default=4, help="of each kind (default: 4)")
    parser.add_argument("--seed", type=int, default=0, help="of the first case (default: 0)")
    parser.add_argument("--methods", nargs="+", choices=list(METHODS), default=["standard"])
    parser.add_argument("--half", action="store_true", help="half resolution: CT and MRI of 2 mm")
    parser.add_argument(
        "--timeout", type=float, default=600, help="seconds after which a run has failed (default: 600)"
    )
    parser.add_argument("--jobs", type=int, default=1, help="cases at the same time; timings need 1 (default: 1)")
    parser.add_argument("--output", type=Path, required=True, help="folder of results.csv")
    parser.add_argument("--docs", type=Path, help="folder to write table.md, results.csv and curves.png to")
    return parser


if __name__ == "__main__":
    sys.exit(main())
