"""Run the benchmark: ``python -m benchmarks.registration --heads FOLDER --kinds EMFDR --cases 4 --output FOLDER``.

Without ``--heads`` the heads are phantoms. Every run is a process of its own: CPU seconds are the method's, and peak
memory is what it needs beyond the inputs. FOLDER/results.csv grows by a line a run; what stands there is not repeated.
"""

from __future__ import annotations

import argparse
import csv
import multiprocessing
import sys
import time
from collections import defaultdict
from multiprocessing.connection import Connection
from pathlib import Path

import numpy as np

from benchmarks.registration.cases import KINDS, Case, make_case
from benchmarks.registration.methods import METHODS
from BrainFusionLib.metrics import target_registration_errors_mm

FIELDS = ("kind", "case", "method", "error_p95_mm", "error_median_mm", "cpu_s", "wall_s", "peak_mb")
SUCCESS_MM = 2.0


def main() -> int:
    """Run what is missing, then print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--heads", type=Path, help="folder of label maps (SynthSeg's classes); else phantoms")
    parser.add_argument("--kinds", default=KINDS, help=f"classes of cases, of {KINDS} (default: all)")
    parser.add_argument("--cases", type=int, default=4, help="of each class (default: 4)")
    parser.add_argument("--seed", type=int, default=0, help="of the first case (default: 0)")
    parser.add_argument("--methods", nargs="+", choices=list(METHODS), default=["standard"])
    parser.add_argument("--output", type=Path, required=True)
    options = parser.parse_args()
    files = sorted(options.heads.glob("*.nii*")) if options.heads else []
    if options.heads and not files:
        parser.error(f"{options.heads} holds no label maps (*.nii, *.nii.gz)")
    options.output.mkdir(parents=True, exist_ok=True)
    table = options.output / "results.csv"
    done = {(row["case"], row["method"]) for row in _read(table)}
    for kind in options.kinds:
        for seed in range(options.seed, options.seed + options.cases):
            file = files[(seed + 3 * KINDS.index(kind)) % len(files)] if files else None
            name = f"{kind}{seed:03d}-{file.name.split('.')[0] if file else 'phantom'}"
            missing = [method for method in options.methods if (name, method) not in done]
            case = make_case(kind, seed, file) if missing else None
            for method in missing:
                assert case is not None
                row = {"kind": kind, "case": name, "method": method, **_measured(case, method)}
                _append(table, row)
                print("  ".join(str(value) for value in row.values()), flush=True)
    print()
    print(summary(_read(table)))
    return 0


def _measured(case: Case, method: str) -> dict[str, str]:
    """Run a method on a case in a new process and return what it cost and how far off it was."""
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe(duplex=False)
    process = context.Process(target=_run, args=(case, method, theirs))
    process.start()
    theirs.close()
    try:
        answer: dict[str, str] = ours.recv()
    except EOFError:
        answer = dict.fromkeys(FIELDS[3:], "nan")
    process.join()
    return answer


def _run(case: Case, method: str, answer: Connection) -> None:
    before = _memory_mb("VmRSS")
    began, used = time.perf_counter(), time.process_time()
    try:
        found = METHODS[method](case.ct, case.mri)
        errors = target_registration_errors_mm(found, case.transform, case.points_lps_mm)
    except Exception as error:  # a method that gives up has failed this case, and the next one follows
        sys.stderr.write(f"{case.name}, {method}: {error}\n")
        errors = np.array([np.inf])
    answer.send(
        {
            "error_p95_mm": f"{np.percentile(errors, 95):.4f}",
            "error_median_mm": f"{np.median(errors):.4f}",
            "cpu_s": f"{time.process_time() - used:.2f}",
            "wall_s": f"{time.perf_counter() - began:.2f}",
            "peak_mb": f"{_memory_mb('VmHWM') - before:.0f}",
        }
    )


def _memory_mb(key: str) -> float:
    """Return a figure of /proc/self/status in MB, NaN where there is none.

    Not getrusage's: on Linux its peak is handed down from the process that started this one.
    """
    status = Path("/proc/self/status")
    lines = status.read_text(encoding="ascii").splitlines() if status.exists() else []
    return next((float(line.split()[1]) / 1024 for line in lines if line.startswith(f"{key}:")), float("nan"))


def summary(rows: list[dict[str, str]]) -> str:
    """Return a Markdown table: successes by class, error (95th percentile in a case) over the successes, and cost."""
    kinds = [kind for kind in KINDS if any(row["kind"] == kind for row in rows)]
    lines = [
        f"| method | {' | '.join(kinds)} | error median / p95 mm | CPU s median | peak MB beyond the inputs |",
        f"|---|{'---|' * len(kinds)}---|---|---|",
    ]
    by_method: dict[str, list[dict[str, str]]] = defaultdict(list)
    for row in rows:
        by_method[row["method"]].append(row)
    for method, runs in by_method.items():
        solved = []
        for kind in kinds:
            errors = [float(row["error_p95_mm"]) for row in runs if row["kind"] == kind]
            solved.append(f"{sum(e < SUCCESS_MM for e in errors)}/{len(errors)}")
        good = [float(row["error_p95_mm"]) for row in runs if float(row["error_p95_mm"]) < SUCCESS_MM]
        errors_text = f"{np.median(good):.2f} / {np.percentile(good, 95):.2f}" if good else "–"
        cpu = np.median([float(row["cpu_s"]) for row in runs])
        peak = np.median([float(row["peak_mb"]) for row in runs])
        lines.append(f"| {method} | {' | '.join(solved)} | {errors_text} | {cpu:.1f} | {peak:.0f} |")
    return "\n".join(lines)


def _read(table: Path) -> list[dict[str, str]]:
    if not table.exists():
        return []
    with table.open(newline="", encoding="utf-8") as stream:
        return list(csv.DictReader(stream))


def _append(table: Path, row: dict[str, str]) -> None:
    new = not table.exists()
    with table.open("a", newline="", encoding="utf-8") as stream:
        writer = csv.DictWriter(stream, FIELDS)
        if new:
            writer.writeheader()
        writer.writerow(row)
