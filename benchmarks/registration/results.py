"""The table of results: a file that stays whole when a run is killed, and its summary in Markdown."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from benchmarks.registration.measure import GAVE_UP, MEASURED
from BrainFusionLib.io.tables import format_csv, markdown_table, parse_csv
from simulation.cases import KINDS

Row = dict[str, str]

FIELDS = ("kind", "case", "resolution", "angle_deg", "shift_mm", "method", *MEASURED)
_RESOLUTION_WORDS = {"full": "full (CT about 1 × 1 × 1.25 mm, MRI 1 mm)", "half": "half (CT and MRI 2 mm)"}
SUCCESS_MM = 2.0
REFERENCE = "greedy"

EXPLANATION = f"""\
Simulated CT–MRI pairs with exact truth, one thread. A case's error is the 95th percentile of the target error over
points of the whole brain, also where the CT covers only a part of it; solved: below {SUCCESS_MM:g} mm and not refused.
*Against {REFERENCE}*: the method's error over {REFERENCE}'s, median over the cases that {REFERENCE} solved (a case
that the method did not solve counts as infinitely worse). *CPU s*: user seconds, median, and how many times less that
is than {REFERENCE}'s on the same cases. *Wrong, unsaid*: unsolved, and the method raised no doubt (red, refused,
failed, timeout). *Peak MB*: beyond the inputs, median.

Both images of a case share the edges of one label map: errors below 0.3 mm rank methods and are no clinical accuracy.
"""


def read_results(table: Path) -> list[Row]:
    """Read the rows of a CSV file; a last line that was being written when the run was killed is cut off.

    Raises
    ------
    ValueError
        The file is of another version of this program.
    """
    if not table.exists():
        return []
    text = table.read_text(encoding="utf-8")
    whole = text[: text.rfind("\n") + 1]
    if whole != text:
        table.write_bytes(whole.encode("utf-8"))
    found = parse_csv(whole)
    if whole and found.columns != FIELDS:
        raise ValueError(f"{table} has other columns than this program writes. Choose another --output folder.")
    return [found.row(line) for line in found.lines if len(line.cells) == len(FIELDS)]


def append_result(table: Path, row: Row) -> None:
    """Add a row, in one write."""
    new = not table.exists() or table.stat().st_size == 0
    with table.open("a", newline="", encoding="utf-8") as stream:
        stream.write(format_csv([row], FIELDS, header=new))


def is_solved(row: Row) -> bool:
    """Return whether a run found the pose of its case."""
    return not KINDS[row["kind"]].negative and row["says"] != "refused" and float(row["error_p95_mm"]) < SUCCESS_MM


def summary(rows: Sequence[Row]) -> str:
    """Return the results as Markdown, a section for each resolution."""
    parts = [EXPLANATION]
    for resolution in resolutions(rows):
        chosen = [row for row in rows if row["resolution"] == resolution]
        parts += [f"## Resolution: {_RESOLUTION_WORDS.get(resolution, resolution)}\n", _section(chosen)]
    return "\n".join(parts)


def resolutions(rows: Sequence[Row]) -> list[str]:
    """Return the resolutions that there are results of, the finest first where all are known."""
    there = dict.fromkeys(row["resolution"] for row in rows)
    return sorted(there, key=lambda name: (name not in _RESOLUTION_WORDS, name))


def _section(rows: list[Row]) -> str:
    positive = [row for row in rows if not KINDS[row["kind"]].negative]
    negative = [row for row in rows if KINDS[row["kind"]].negative]
    parts = []
    if positive:
        parts += [_success_table(positive), "Median error of the solved cases, mm:\n", _error_table(positive)]
    if negative:
        parts += [
            "Nothing to find: how often the method said so (red, refused or failed):\n",
            _negative_table(negative),
        ]
    kinds = "".join(f"- {kind}: {KINDS[kind].words}\n" for kind in _kinds(rows))
    return "\n".join([*parts, f"Classes:\n\n{kinds}"])


def _success_table(rows: list[Row]) -> str:
    kinds = _kinds(rows)
    reference = {row["case"]: row for row in rows if row["method"] == REFERENCE}
    head = [
        "method", *kinds, "all", "error median / p95 mm", f"against {REFERENCE}", "CPU s", f"× less than {REFERENCE}",
        "peak MB", "wrong, unsaid",
    ]  # fmt: skip
    lines = []
    for method, runs in _by_method(rows).items():
        good = [float(row["error_p95_mm"]) for row in runs if is_solved(row)]
        pairs = [(row, reference[row["case"]]) for row in runs if row["case"] in reference]
        ratios = [
            float(row["error_p95_mm"]) / float(other["error_p95_mm"]) if is_solved(row) else math.inf
            for row, other in pairs
            if is_solved(other)
        ]
        faster = [float(other["user_cpu_s"]) / max(float(row["user_cpu_s"]), 0.01) for row, other in pairs]
        unsaid = sum(not is_solved(row) and row["says"] not in GAVE_UP for row in runs)
        lines.append([
            method,
            *(_count([row for row in runs if row["kind"] == kind]) for kind in kinds),
            _count(runs),
            f"{np.median(good):.3f} / {np.percentile(good, 95):.3f}" if good else "–",
            f"{np.median(ratios):.2f} (n = {len(ratios)})" if ratios else "–",
            _median([row["user_cpu_s"] for row in runs], ".1f"),
            f"{np.nanmedian(faster):.1f}" if np.isfinite(faster).any() else "–",
            _median([row["peak_mb"] for row in runs], ".0f"),
            str(unsaid),
        ])  # fmt: skip
    return markdown_table(head, lines) + "\n"


def _error_table(rows: list[Row]) -> str:
    kinds = _kinds(rows)
    lines = [
        [method, *(_median([r["error_p95_mm"] for r in runs if r["kind"] == kind and is_solved(r)]) for kind in kinds)]
        for method, runs in _by_method(rows).items()
    ]
    return markdown_table(["method", *kinds], lines) + "\n"


def _negative_table(rows: list[Row]) -> str:
    kinds = _kinds(rows)
    lines = []
    for method, runs in _by_method(rows).items():
        said = [[row["says"] in GAVE_UP for row in runs if row["kind"] == kind] for kind in kinds]
        lines.append([method, *(f"{sum(of_kind)}/{len(of_kind)}" if of_kind else "–" for of_kind in said)])
    return markdown_table(["method", *kinds], lines) + "\n"


def _kinds(rows: list[Row]) -> list[str]:
    there = {row["kind"] for row in rows}
    return [kind for kind in KINDS if kind in there]


def _by_method(rows: list[Row]) -> dict[str, list[Row]]:
    groups: dict[str, list[Row]] = {}
    for row in rows:
        groups.setdefault(row["method"], []).append(row)
    return groups


def _count(runs: list[Row]) -> str:
    return f"{sum(map(is_solved, runs))}/{len(runs)}" if runs else "–"


def _median(texts: list[str], form: str = ".3f") -> str:
    values = np.array([float(text) for text in texts])
    values = values[np.isfinite(values)]
    return format(float(np.median(values)), form) if values.size else "–"
