"""The verdict against the truth: ``python -m benchmarks.verdict --heads LABEL_MAPS -o docs/verdict``.

Registers simulated pairs of every kind of `benchmarks.registration`, and some that are harder or must go wrong
(`SPOILT`). Every right result is then given back as a transform to be used as it is: as it was, moved a little, and
moved by 2 to 20 mm. Each is a line of ``records.csv``, which is gone on with where it was stopped. ``table.md`` says
how often the verdict was right, on the heads that its limits were chosen on and on the others.
"""

from __future__ import annotations

import argparse
import csv
import itertools
import logging
import math
import multiprocessing
import sys
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch

from benchmarks.registration.run import heads_from
from BrainFusionLib.errors import BrainFusionError, RegistrationError
from BrainFusionLib.geometry import FloatArray, Grid, rotation_matrix
from BrainFusionLib.io import write_text
from BrainFusionLib.registration import RegistrationResult, register
from BrainFusionLib.registration.register import INTERVAL, MIRRORED_MARGIN
from BrainFusionLib.resample import resample_onto
from BrainFusionLib.settings import RegistrationSettings, SearchPass
from BrainFusionLib.transform import RigidTransform
from BrainFusionLib.verdict.given import GivenPose, check_given
from BrainFusionLib.verdict.judge import judge
from BrainFusionLib.verdict.local import LocalFit, local_errors
from BrainFusionLib.verdict.skull import SkullFit, skull_fit
from BrainFusionLib.volume import AIR_HU, Volume
from simulation.cases import KINDS, Case, make_case

logger = logging.getLogger("benchmarks")

# Wrong is what is further off than this, mm: the 95th percentile over the brain.
WRONG_MM = 2.0
# How many cases of each kind of `benchmarks.registration`, and of each way to make it harder or wrong.
COUNTS = {kind: 12 if KINDS[kind].negative else 10 for kind in KINDS} | {"N1": 40}
SPOILT = {"small search": 40, "slab of 10 mm": 16, "noise": 16, "tumour": 20, "wrong slice distance": 24,
          "gantry tilt not known": 24, "moved half way": 24}  # fmt: skip
SMALL_SEARCH = RegistrationSettings(passes=(SearchPass(4, 4, fine=False, safe_margin=-9.0),), samples=60_000)
SPOILT_KINDS = ("E", "M", "X", "T", "R")
# Right results given back: as they were, and moved by so much, mm (least and greatest, even on a logarithmic scale).
GIVEN = {"given": (0.0, 0.0), "given, moved a little": (0.05, 0.5), "given, moved": (2.2, 20.0),
         "given, moved again": (2.2, 20.0)}  # fmt: skip
FEATURES = ("margin", "agreement_mm", "perturbed_margin", "sampling_error_mm", "overlap", "mirrored_margin",
            "thinnest_mm", "similarity")  # fmt: skip
LOCAL = ("median_mm", "part_mm", "share", "least_share", "voxel_mm")
SKULL = ("shift_mm", "depth", "brightness", "voxel_mm", "at_edge")
AT_THE_POSE = (*(f"local_{name}" for name in LOCAL), *(f"skull_{name}" for name in SKULL))
COLUMNS = ("kind", "spoilt", "seed", "head", "fitted", "error_p95_mm", "error_median_mm", "refused", *FEATURES,
           "expected_error_mm", "low_mm", "high_mm", *AT_THE_POSE, "given", "apart_mm", "typical_mm")  # fmt: skip


@dataclass(frozen=True)
class Pair:
    """A case, and where its CT shows what it does not show where it should: CT points to CT points, (n, 3) mm."""

    case: Case
    warp: Callable[[FloatArray], FloatArray] = lambda points: points

    def errors_mm(self, found: RigidTransform) -> FloatArray:
        """Return how far off a transform takes the points of the brain, (n,)."""
        points = self.case.points_lps_mm
        wanted = self.warp(self.case.transform.apply(points))
        errors: FloatArray = np.linalg.norm(found.apply(points) - wanted, axis=1)
        return errors


def plan() -> Iterator[tuple[str, str, int]]:
    """Yield kind, how it is spoilt (or nothing), and seed of every case."""
    most = max(COUNTS.values())
    for number in range(most):
        yield from ((kind, "", 700 + number) for kind, count in COUNTS.items() if number < count)
    for spoilt, count in SPOILT.items():
        kinds = ("S2",) if spoilt.startswith("slab") else SPOILT_KINDS
        yield from ((kinds[number % len(kinds)], spoilt, 800 + number) for number in range(count))


def run(folder: Path | None, path: Path, workers: int) -> None:
    """Register what is not in `path` yet, so many pairs at once, and append their lines."""
    done = {(row["kind"], row["spoilt"], row["seed"]) for row in read(path)}
    left = [task for task in plan() if (task[0], task[1], str(task[2])) not in done]
    with ProcessPoolExecutor(workers, multiprocessing.get_context("spawn")) as pool:
        for rows in pool.map(_rows_of, itertools.repeat(folder), left):
            new = not path.exists()
            with path.open("a", newline="", encoding="utf-8") as file:
                writer = csv.DictWriter(file, COLUMNS, lineterminator="\n", restval="")
                if new:
                    writer.writeheader()
                writer.writerows({name: _short(value) for name, value in row.items()} for row in rows)
            first = {**dict.fromkeys(COLUMNS), **rows[0]}
            logger.info("%s", ", ".join(f"{key} {first[key]}" for key in ("kind", "spoilt", "seed", "error_p95_mm")))


def _rows_of(folder: Path | None, task: tuple[str, str, int]) -> list[dict[str, Any]]:
    """Return the lines of one pair."""
    kind, spoilt, seed = task
    heads = heads_from(folder)
    number = (seed + 3 * list(KINDS).index(kind)) % len(heads)
    head = heads[number]()
    case = make_case(kind, seed, head, other=heads[(number + 1 + seed % 5) % len(heads)]())
    told = {"kind": kind, "spoilt": spoilt, "seed": seed, "head": head.name, "fitted": number % 2}
    return [{**told, **row} for row in measured(spoil(case, spoilt, seed), spoilt, seed)]


def _short(value: Any) -> Any:
    return f"{value:.5g}" if isinstance(value, float) else value


def spoil(case: Case, how: str, seed: int) -> Pair:
    """Return a case that is harder than it was, or that no rigid transform can make fit."""
    random = np.random.default_rng(seed)
    ct, mri = case.ct, case.mri
    if how == "slab of 10 mm":
        return Pair(replace(case, ct=_middle_slices(ct, 10.0)))
    if how == "noise":
        noisy = ct.array_kji + random.normal(0, 150, ct.array_kji.shape)
        high = float(np.percentile(mri.array_kji, 99))
        faint = np.abs(mri.array_kji + random.normal(0, 0.35 * high, mri.array_kji.shape))
        return Pair(replace(case, ct=ct.with_array(noisy), mri=mri.with_array(faint)))
    if how == "tumour":
        return Pair(_with_tumour(case, random))
    if how == "wrong slice distance":
        return _stretched(case, float(random.uniform(1.03, 1.15)) ** random.choice([-1, 1]))
    if how == "gantry tilt not known":
        slope = float(np.tan(np.radians(random.uniform(3, 15) * random.choice([-1, 1]))))
        return _sheared(case, lambda heights: slope * heights)
    if how == "moved half way":
        step = float(random.uniform(2.5, 12) * random.choice([-1, 1]))
        return _sheared(case, lambda heights: np.where(heights > 0, step, 0.0))
    return Pair(case)


def _with_tumour(case: Case, random: np.random.Generator) -> Case:
    """Return a case with a ball of another brightness in both: tumour and oedema, or blood."""
    middle = case.points_lps_mm[random.integers(len(case.points_lps_mm))]
    radius = float(random.uniform(10, 30))
    high = float(np.percentile(case.mri.array_kji, 99))
    in_mri = _ball(case.mri.grid, middle, radius)
    in_ct = _ball(case.ct.grid, case.transform.apply(middle), radius)
    mri = case.mri.array_kji * (1 - in_mri) + in_mri * np.float32(high * random.uniform(0.2, 1.1))
    ct = case.ct.array_kji + in_ct * np.float32(random.choice([-15.0, 20.0, 40.0]))
    return replace(case, ct=case.ct.with_array(ct), mri=case.mri.with_array(mri))


def _ball(grid: Grid, middle_lps_mm: FloatArray, radius_mm: float) -> FloatArray:
    """Return 1 in a ball, 0 outside, 3 mm soft at the edge."""
    ijk = (np.asarray(middle_lps_mm) - grid.lps_from_ijk[:3, 3]) @ np.linalg.inv(grid.lps_from_ijk[:3, :3]).T
    axes = [(np.arange(n) - at) * size for n, at, size in zip(grid.size_ijk, ijk, grid.spacing_ijk_mm, strict=True)]
    i, j, k = (axis.astype(np.float32) ** 2 for axis in axes)
    distance = np.sqrt(k[:, None, None] + j[None, :, None] + i[None, None, :])
    ball: FloatArray = np.clip((radius_mm - distance) / 3 + 0.5, 0, 1)
    return ball


def _stretched(case: Case, factor: float) -> Pair:
    """Return a pair whose CT's header has slices `factor` times as far apart as they were."""
    grid = case.ct.grid
    i, j, k = grid.spacing_ijk_mm
    wrong = Grid(grid.size_ijk, (i, j, k * factor), grid.origin_lps_mm, grid.direction)
    ct = Volume(case.ct.array_kji, wrong, case.ct.modality, case.ct.name)
    matrix = wrong.lps_from_ijk @ np.linalg.inv(grid.lps_from_ijk)
    return Pair(replace(case, ct=ct), lambda points: points @ matrix[:3, :3].T + matrix[:3, 3])


def _sheared(case: Case, offset_mm: Callable[[FloatArray], FloatArray]) -> Pair:
    """Return a pair whose CT's slices are shifted along their columns by an offset of the height above the middle."""
    grid = case.ct.grid
    middle = np.array(grid.centre_lps_mm)
    normal, along = grid.direction[:, 2], grid.direction[:, 1]
    heights = (np.arange(grid.size_ijk[2], dtype=np.float64) - (grid.size_ijk[2] - 1) / 2) * grid.spacing_ijk_mm[2]
    array = case.ct.array_kji.copy()
    for k, offset in enumerate(offset_mm(heights).tolist()):
        whole, part = divmod(offset / grid.spacing_ijk_mm[1], 1)
        # What leaves at one border comes back at the other: air, where the head is.
        one, other = (np.roll(array[k], int(whole) + more, axis=0) for more in (0, 1))
        array[k] = (1 - part) * one + part * other
    ct = case.ct.with_array(array)
    return Pair(replace(case, ct=ct), lambda points: points + offset_mm((points - middle) @ normal)[:, None] * along)


def _middle_slices(volume: Volume, thick_mm: float) -> Volume:
    grid, count = volume.grid, max(4, round(thick_mm / volume.grid.spacing_ijk_mm[2]))
    first = (len(volume.array_kji) - count) // 2
    x, y, z = (float(v) for v in (grid.lps_from_ijk @ [0.0, 0.0, float(first), 1.0])[:3])
    size = (grid.size_ijk[0], grid.size_ijk[1], count)
    moved = Grid(size, grid.spacing_ijk_mm, (x, y, z), grid.direction)
    return Volume(volume.array_kji[first : first + count], moved, volume.modality, volume.name)


def measured(pair: Pair, spoilt: str, seed: int) -> Iterator[dict[str, Any]]:
    """Register a pair; yield the true error, and what the result says of itself; then the same with it given back."""
    case = pair.case
    settings = SMALL_SEARCH if spoilt == "small search" else RegistrationSettings()
    try:
        result = register(case.ct, case.mri, settings, device="cpu")
    except RegistrationError as error:
        yield {"refused": str(error)}
        return
    yield {**_truth(pair, result.transform), **_told(result), **_fit(case, result.transform)}
    if KINDS[case.kind].negative or spoilt or np.percentile(pair.errors_mm(result.transform), 95) > WRONG_MM:
        return
    random = np.random.default_rng((seed, *case.kind.encode()))
    for name, (least, most) in GIVEN.items():
        given = result.transform
        if most:
            given = _moved(pair, given, float(np.exp(random.uniform(np.log(least), np.log(most)))), random)
        told = check_given(case.ct, case.mri, given, device="cpu")
        found = {} if told.found is None else _told(told.found)
        row = {**_truth(pair, given), **found, **_fit(case, given)}
        yield {**row, "spoilt": name, "given": "yes", "apart_mm": told.apart_mm, "typical_mm": told.typical_mm}


def _moved(pair: Pair, transform: RigidTransform, by_mm: float, random: np.random.Generator) -> RigidTransform:
    """Return a transform moved and turned so that it is so far off (95th percentile over the brain)."""
    middle = pair.case.points_lps_mm.mean(axis=0)
    axis, shift = random.normal(size=3), random.normal(size=3)
    shift *= random.uniform(0.2, 1.0) / np.linalg.norm(shift)
    low, high = 0.0, 4 * by_mm
    for _ in range(30):
        size = (low + high) / 2
        step = RigidTransform.about_centre(rotation_matrix(axis, size * 0.8), shift * size, middle)
        off = float(np.percentile(pair.errors_mm(transform @ step), 95))
        low, high = (size, high) if off < by_mm else (low, size)
    return transform @ step


def _truth(pair: Pair, found: RigidTransform) -> dict[str, Any]:
    if KINDS[pair.case.kind].negative:
        return {}
    errors = pair.errors_mm(found)
    return {
        "error_p95_mm": round(float(np.percentile(errors, 95)), 4),
        "error_median_mm": round(float(np.median(errors)), 4),
    }


def _told(result: RegistrationResult) -> dict[str, Any]:
    """Return what a result says of itself."""
    low, high = result.interval_mm
    told = {name: getattr(result, name) for name in FEATURES}
    return {**told, "expected_error_mm": result.expected_error_mm, "low_mm": low, "high_mm": high}


def _fit(case: Case, transform: RigidTransform) -> dict[str, Any]:
    """Return what can be seen of a pose where it puts the CT."""
    pulled = resample_onto(case.ct, case.mri.grid, transform, fill=AIR_HU, device=torch.device("cpu"))
    if not (pulled.array_kji > 0).any():
        return {}
    local, skull = local_errors(pulled, case.mri).fit(), skull_fit(pulled, case.mri)
    row = {} if local is None else {f"local_{name}": getattr(local, name) for name in LOCAL}
    return row if skull is None else {**row, **{f"skull_{name}": float(getattr(skull, name)) for name in SKULL}}


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
    found, local, skull = _evidence(row)
    if not row["given"]:
        return judge(found, local, skull).colour
    apart, typical = (float(row[name]) if row[name] else None for name in ("apart_mm", "typical_mm"))
    return judge(None, local, skull, GivenPose(found, apart, typical)).colour


def colour_by_sight(row: dict[str, str]) -> str:
    """Return what the verdict on a given pose would be if no registration looked at it: by parts and skull alone."""
    found, local, skull = _evidence(row)
    return "red" if found is None else judge(found, local, skull).colour


def _evidence(row: dict[str, str]) -> tuple[RegistrationResult | None, LocalFit | None, SkullFit | None]:
    """Return what the verdict of a record is made from."""
    found = local = skull = None
    if row["similarity"]:
        values: dict[str, Any] = {name: float(row[name]) if row[name] else None for name in FEATURES}
        values["expected_error_mm"] = float(row["expected_error_mm"])
        values["interval_mm"] = (float(row["low_mm"]), float(row["high_mm"]))
        values["mirrored"] = values["mirrored_margin"] < MIRRORED_MARGIN
        found = SimpleNamespace(**values)
    if row["local_share"]:
        local = LocalFit(**{name: float(row[f"local_{name}"]) for name in LOCAL})
    if row["skull_shift_mm"]:
        numbers = {name: float(row[f"skull_{name}"]) for name in SKULL}
        skull = SkullFit(**{**numbers, "at_edge": numbers["at_edge"] > 0})  # type: ignore[arg-type]
    registration: RegistrationResult = found  # type: ignore[assignment]
    return registration, local, skull


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
        f"{len(rows)} verdicts on simulated pairs with exact truth; `python -m benchmarks.verdict --heads LABEL_MAPS "
        "-o docs/verdict`, all of them in [records.csv](records.csv). *Wrong*: further off than 2 mm (95th percentile "
        "over the brain), or nothing to find; *refused*: no result was given although there was a pose to find. "
        "*Found*: results of the registration; *given*: right results given back as transforms to be used as they are, "
        "unmoved or moved. The limits of `verdict.py` were chosen on every second head; the other heads only judge.",
        "",
        "| verdicts | heads | number | wrong | wrong, green | wrong, amber | wrong, red or refused | right | "
        "right, green | right, amber | right, red | refused |",
        "|---" * 12 + "|",
    ]
    for given in ("", "yes", "all"):
        for name, wanted in (("chosen on", "1"), ("held out", "0"), ("all", "")):
            part = [row for row in rows if (not wanted or row["fitted"] == wanted) and given in (row["given"], "all")]
            cells: list[object] = [{"": "found", "yes": "given", "all": "all"}[given], name, len(part)]
            for kind in ("wrong", "right"):
                found = _colours([row for row in part if outcome(row) == kind])
                cells += [sum(found.values()), found["green"], found["amber"], found["red"] + found["refused"]]
            cells.append(sum(outcome(row) == "refused" for row in part))
            lines.append("| " + " | ".join(str(cell) for cell in cells) + " |")
    wrong = [row for row in rows if outcome(row) == "wrong"]
    between = [row for row in wrong if row["error_p95_mm"] and float(row["error_p95_mm"]) <= 20]
    right = [row for row in rows if outcome(row) == "right"]
    missed = _colours(wrong)["green"]
    lines += [
        "",
        f"Not green of the wrong ones: {len(wrong) - missed} of {len(wrong)}; with 95 % confidence at least "
        f"{100 * at_least(len(wrong) - missed, len(wrong)):.1f} % of all such. {len(between)} of them are poses "
        f"{WRONG_MM:g} to 20 mm off, of which {_colours(between)['green']} are green. Not green of the right ones: "
        f"{100 * (1 - _colours(right)['green'] / max(1, len(right))):.1f} %.",
    ]
    moved = [row for row in between if row["given"]]
    unmoved = [row for row in right if row["given"]]
    seen, alarmed = (sum(colour_by_sight(row) != "green" for row in part) for part in (moved, unmoved))
    lines += [
        "",
        "Given poses are mostly told by the registration beside them, which finds the right one. By the parts of the "
        f"head and the skull alone {seen} of the {len(moved)} wrong ones are not green, and {alarmed} of the "
        f"{len(unmoved)} right ones.",
        "",
        "| kind | number | error p95 median (greatest) mm | green | amber | red | refused |",
        "|---" * 7 + "|",
    ]
    for kind, spoilt in dict.fromkeys((row["kind"], row["spoilt"]) for row in rows if not row["given"]):
        part = [row for row in rows if (row["kind"], row["spoilt"]) == (kind, spoilt)]
        lines.append(_line(f"{kind}: {KINDS[kind].words}" + (f", {spoilt}" if spoilt else ""), part))
    for name in GIVEN:
        lines.append(_line(f"all kinds: {name}", [row for row in rows if row["spoilt"] == name]))
    low, high = INTERVAL
    inside = [
        low <= float(row["error_median_mm"]) / float(row["expected_error_mm"]) <= high
        for row in rows
        if row["error_median_mm"] and not row["given"] and colour_of(row) == "green"
    ]
    lines += [
        "",
        f"Of the median errors of those found and green {sum(inside)} of {len(inside)} lie in their interval (9 of 10 "
        "should).",
        "",
    ]
    return "\n".join(lines)


def _line(words: str, rows: Sequence[dict[str, str]]) -> str:
    errors = [float(row["error_p95_mm"]) for row in rows if row["error_p95_mm"]]
    shown = f"{np.median(errors):.2f} ({max(errors):.2f})" if errors else "–"
    return f"| {words} | {len(rows)} | {shown} | " + " | ".join(str(n) for n in _colours(rows).values()) + " |"


def at_least(hits: int, number: int, confidence: float = 0.95) -> float:
    """Return the share of hits that is, with this confidence, not too high: Clopper and Pearson's one-sided bound."""
    low, high = 0.0, 1.0
    for _ in range(60):
        share = (low + high) / 2
        beyond = sum(math.comb(number, k) * share**k * (1 - share) ** (number - k) for k in range(hits, number + 1))
        low, high = (share, high) if beyond < 1 - confidence else (low, share)
    return low


def _colours(rows: Sequence[dict[str, str]]) -> dict[str, int]:
    colours = [colour_of(row) for row in rows]
    return {colour: colours.count(colour) for colour in ("green", "amber", "red", "refused")}


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; return the exit code."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.verdict", description=__doc__.splitlines()[0])
    parser.add_argument("--heads", type=Path, metavar="FOLDER", help="label maps (SynthSeg's classes); else phantoms")
    parser.add_argument("--workers", type=int, default=1, metavar="N", help="pairs at once (1)")
    parser.add_argument("--table-only", action="store_true", help="judge the records that are there")
    parser.add_argument("-o", "--output", type=Path, required=True, metavar="FOLDER")
    arguments = parser.parse_args(argv)
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    try:
        arguments.output.mkdir(parents=True, exist_ok=True)
        records = arguments.output / "records.csv"
        if not arguments.table_only:
            run(arguments.heads, records, arguments.workers)
        write_text(table(read(records)), arguments.output / "table.md")
    except (BrainFusionError, OSError, ValueError) as error:
        logger.error("%s", error)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
