"""The verdict against the truth: ``python -m benchmarks.verdict --heads LABEL_MAPS -o docs/verdict``.

Registers simulated pairs of every kind of `benchmarks.registration`, and some that must go wrong: with a search that is
too small, slabs of 10 mm, much noise. Each is a line of ``records.csv``, which is gone on with where it was stopped.
``table.md`` says how often the verdict was right, on the heads that its limits were chosen on and on the others.
"""

from __future__ import annotations

import argparse
import csv
import logging
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np

from benchmarks.registration.cases import KINDS, Case, make_case
from benchmarks.registration.heads import Head
from benchmarks.registration.run import heads_from
from BrainFusionLib.errors import BrainFusionError, RegistrationError
from BrainFusionLib.geometry import Grid
from BrainFusionLib.io import write_text
from BrainFusionLib.metrics import target_registration_errors_mm
from BrainFusionLib.registration import RegistrationResult, register
from BrainFusionLib.registration.register import INTERVAL, MIRRORED_MARGIN
from BrainFusionLib.settings import Look, RegistrationSettings
from BrainFusionLib.verdict import judge
from BrainFusionLib.volume import Volume

logger = logging.getLogger("benchmarks")

# Wrong is what is further off than this, mm: the 95th percentile over the brain.
WRONG_MM = 2.0
# How many cases of each kind of `benchmarks.registration`, and of each way to go wrong.
COUNTS = {kind: 8 if KINDS[kind].negative else 10 for kind in KINDS}
SPOILT = {"small search": 70, "slab of 10 mm": 16, "noise": 16}
SMALL_SEARCH = RegistrationSettings(looks=(Look(4, 4, fine=False, safe_margin=-9.0),), samples=60_000)
SPOILT_KINDS = ("E", "M", "X", "T", "R")
FEATURES = ("margin", "agreement_mm", "sampling_error_mm", "overlap", "mirrored_margin", "thinnest_mm", "similarity")
COLUMNS = ("kind", "spoilt", "seed", "head", "fitted", "error_p95_mm", "error_median_mm", "refused", *FEATURES,
           "expected_error_mm", "low_mm", "high_mm")  # fmt: skip


def plan() -> Iterator[tuple[str, str, int]]:
    """Yield kind, how it is spoilt (or nothing), and seed of every case."""
    most = max(COUNTS.values())
    for number in range(most):
        yield from ((kind, "", 700 + number) for kind, count in COUNTS.items() if number < count)
    for spoilt, count in SPOILT.items():
        kinds = ("S2",) if spoilt.startswith("slab") else SPOILT_KINDS
        yield from ((kinds[number % len(kinds)], spoilt, 800 + number) for number in range(count))


def run(heads: Sequence[Callable[[], Head]], path: Path) -> None:
    """Register what is not in `path` yet, and append a line each."""
    done = {(row["kind"], row["spoilt"], row["seed"]) for row in read(path)}
    for kind, spoilt, seed in plan():
        if (kind, spoilt, str(seed)) in done:
            continue
        number = (seed + 3 * list(KINDS).index(kind)) % len(heads)
        head = heads[number]()
        case = make_case(kind, seed, head, other=heads[(number + 1) % len(heads)]())
        row = measured(spoil(case, spoilt, seed), SMALL_SEARCH if spoilt == "small search" else RegistrationSettings())
        told = {"kind": kind, "spoilt": spoilt, "seed": seed, "head": head.name, "fitted": number % 2, **row}
        new = not path.exists()
        with path.open("a", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, COLUMNS, lineterminator="\n", restval="")
            if new:
                writer.writeheader()
            writer.writerow(told)
        logger.info(
            "%s", ", ".join(f"{key} {told.get(key)}" for key in ("kind", "spoilt", "seed", "error_p95_mm", "margin"))
        )


def spoil(case: Case, how: str, seed: int) -> Case:
    """Return a case that is harder than it was."""
    random = np.random.default_rng(seed)
    if how == "slab of 10 mm":
        return replace(case, ct=_middle_slices(case.ct, 10.0))
    if how == "noise":
        ct = case.ct.array_kji + random.normal(0, 150, case.ct.array_kji.shape)
        high = float(np.percentile(case.mri.array_kji, 99))
        mri = np.abs(case.mri.array_kji + random.normal(0, 0.35 * high, case.mri.array_kji.shape))
        return replace(case, ct=case.ct.with_array(ct), mri=case.mri.with_array(mri))
    return case


def _middle_slices(volume: Volume, thick_mm: float) -> Volume:
    grid, count = volume.grid, max(4, round(thick_mm / volume.grid.spacing_ijk_mm[2]))
    first = (len(volume.array_kji) - count) // 2
    x, y, z = (float(v) for v in (grid.lps_from_ijk @ [0.0, 0.0, float(first), 1.0])[:3])
    size = (grid.size_ijk[0], grid.size_ijk[1], count)
    moved = Grid(size, grid.spacing_ijk_mm, (x, y, z), grid.direction)
    return Volume(volume.array_kji[first : first + count], moved, volume.modality, volume.name)


def measured(case: Case, settings: RegistrationSettings) -> dict[str, Any]:
    """Register a case; return the true error, and what the result says of itself."""
    try:
        result = register(case.ct, case.mri, settings, device="cpu")
    except RegistrationError as error:
        return {"refused": str(error)}
    errors = target_registration_errors_mm(result.transform, case.transform, case.points_lps_mm)
    truth = {} if KINDS[case.kind].negative else {
        "error_p95_mm": round(float(np.percentile(errors, 95)), 4),
        "error_median_mm": round(float(np.median(errors)), 4),
    }  # fmt: skip
    told = {name: getattr(result, name) for name in FEATURES}
    low, high = result.interval_mm
    return {**truth, **told, "expected_error_mm": result.expected_error_mm, "low_mm": low, "high_mm": high}


def read(path: Path) -> list[dict[str, str]]:
    """Return the records so far."""
    if not path.exists():
        return []
    with path.open(encoding="utf-8") as file:
        return list(csv.DictReader(file))


def colour_of(row: dict[str, str]) -> str:
    """Return what the verdict is of a record: a colour, or ``refused``."""
    if row["refused"]:
        return "refused"
    values: dict[str, Any] = {name: float(row[name]) if row[name] else None for name in FEATURES}
    values |= {
        "expected_error_mm": float(row["expected_error_mm"]),
        "interval_mm": (float(row["low_mm"]), float(row["high_mm"])),
    }
    values["mirrored"] = values["mirrored_margin"] < MIRRORED_MARGIN
    stand_in: RegistrationResult = SimpleNamespace(**values)  # type: ignore[assignment]
    return judge(stand_in).colour


def outcome(row: dict[str, str]) -> str:
    """Say what a record is: ``wrong``, ``right``, or ``refused`` although there was a pose to find."""
    if KINDS[row["kind"]].negative:
        return "wrong"
    if row["refused"]:
        return "refused"
    return "wrong" if float(row["error_p95_mm"]) > WRONG_MM else "right"


def table(rows: Sequence[dict[str, str]]) -> str:
    """Return the tables as Markdown."""
    lines = [
        "# The verdict against the truth",
        "",
        f"{len(rows)} simulated pairs with exact truth; `python -m benchmarks.verdict --heads LABEL_MAPS "
        "-o docs/verdict`, all of them in [records.csv](records.csv). *Wrong*: further off than 2 mm (95th percentile "
        "over the brain), or nothing to find; *refused*: no result was given although there was a pose to find. The "
        "limits of `verdict.py` were chosen on every second head; the other heads only judge.",
        "",
        "| heads | pairs | wrong | wrong, green | wrong, amber | wrong, red or refused | right | right, green | "
        "right, amber | right, red | refused |",
        "|---" * 11 + "|",
    ]
    for name, wanted in (("chosen on", "1"), ("held out", "0"), ("all", "")):
        part = [row for row in rows if not wanted or row["fitted"] == wanted]
        cells: list[object] = [name, len(part)]
        for kind in ("wrong", "right"):
            found = _colours([row for row in part if outcome(row) == kind])
            cells += [sum(found.values()), found["green"], found["amber"], found["red"] + found["refused"]]
        cells.append(sum(outcome(row) == "refused" for row in part))
        lines.append("| " + " | ".join(str(cell) for cell in cells) + " |")
    between = [row for row in rows if row["error_p95_mm"] and WRONG_MM < float(row["error_p95_mm"]) <= 20]
    lines += [
        "",
        f"Of the wrong poses {len(between)} are between {WRONG_MM:g} and 20 mm off: where it is 0, nothing is known of "
        "how the verdict takes small errors.",
    ]
    lines += ["", "| kind | pairs | error p95 median (greatest) mm | green | amber | red | refused |", "|---" * 7 + "|"]
    for kind, spoilt in dict.fromkeys((row["kind"], row["spoilt"]) for row in rows):
        part = [row for row in rows if (row["kind"], row["spoilt"]) == (kind, spoilt)]
        errors = [float(row["error_p95_mm"]) for row in part if row["error_p95_mm"]]
        shown = f"{np.median(errors):.2f} ({max(errors):.2f})" if errors else "–"
        words = KINDS[kind].words + (f", {spoilt}" if spoilt else "")
        found = _colours(part)
        lines.append(
            f"| {kind}: {words} | {len(part)} | {shown} | " + " | ".join(str(n) for n in found.values()) + " |"
        )
    low, high = INTERVAL
    inside = [
        low <= float(row["error_median_mm"]) / float(row["expected_error_mm"]) <= high
        for row in rows
        if row["error_median_mm"] and colour_of(row) == "green"
    ]
    lines += [
        "",
        f"Of the green ones' median errors {sum(inside)} of {len(inside)} lie in their interval (9 of 10 should).",
        "",
    ]
    return "\n".join(lines)


def _colours(rows: Sequence[dict[str, str]]) -> dict[str, int]:
    colours = [colour_of(row) for row in rows]
    return {colour: colours.count(colour) for colour in ("green", "amber", "red", "refused")}


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; return the exit code."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.verdict", description=__doc__.splitlines()[0])
    parser.add_argument("--heads", type=Path, metavar="FOLDER", help="label maps (SynthSeg's classes); else phantoms")
    parser.add_argument("--table-only", action="store_true", help="judge the records that are there")
    parser.add_argument("-o", "--output", type=Path, required=True, metavar="FOLDER")
    arguments = parser.parse_args(argv)
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    try:
        arguments.output.mkdir(parents=True, exist_ok=True)
        records = arguments.output / "records.csv"
        if not arguments.table_only:
            run(heads_from(arguments.heads), records)
        write_text(table(read(records)), arguments.output / "table.md")
    except (BrainFusionError, OSError, ValueError) as error:
        logger.error("%s", error)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
