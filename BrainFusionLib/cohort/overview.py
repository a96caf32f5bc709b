"""``cohort.html``: all cases on one page, those that need a look first; one file, no network."""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from typing import Literal, TypeAlias

import numpy as np
from PIL import Image

from BrainFusionLib.case.output import on_mri_grid
from BrainFusionLib.case.result import WARNING, Result
from BrainFusionLib.cohort.row import Row
from BrainFusionLib.quantities import bound_length, counted, error_length, length, number
from BrainFusionLib.report.images import jpeg
from BrainFusionLib.report.page import Html, page, render
from BrainFusionLib.report.pictures import plane_pictures, prepare_scene, with_edges
from BrainFusionLib.volume import Volume

THUMBNAIL = 112
State: TypeAlias = Literal["failed", "refused", "red", "amber", "green"]
# What is to be looked at first; each has a sign of its own in the templates, so that colour is not all that tells.
ORDER: tuple[State, ...] = ("failed", "refused", "red", "amber", "green")
COLUMNS = (
    "case",
    "verdict",
    "expected error, mm (in 9 of 10 such cases below)",
    "local misalignment, mm",
    "seconds",
    "reasons",
)
BARS, BAR_WIDTH, PLOT_HEIGHT = 24, 12, 90
# What no misalignment exceeds.
_MOST_MM = 1e6


def thumbnail(result: Result, mri: Volume) -> str:
    """Return a small axial picture, the CT's bone outlined on the MRI: a JPEG as text."""
    result = on_mri_grid(result, mri)
    pictures = plane_pictures(prepare_scene(result.ct_in_mri, mri, result.fused), "axial")
    image = Image.fromarray(with_edges(pictures.mri, pictures.edges))
    image.thumbnail((THUMBNAIL, THUMBNAIL), Image.Resampling.LANCZOS)
    return base64.b64encode(jpeg(image, 70)).decode("ascii")


def overview(
    rows: Sequence[Row],
    thumbnails: Mapping[str, str],
    reports: Mapping[str, str] | None = None,
    decisions: Mapping[str, str] | None = None,
) -> str:
    """Return the page.

    Parameters
    ----------
    rows
        As in ``cohort.tsv``.
    thumbnails, reports
        Small pictures, and where the reports are, by the cases' names.
    decisions
        What was decided about cases, in words, by their names; without any, the page has no column for it.
    """
    ordered = worst_first(rows)
    states = [state_of_row(row) for row in rows]
    plots = (
        ("expected error, mm", [_expected_error(row) for row in rows]),
        ("local misalignment, median, mm", [row.local_errors_median_mm for row in rows]),
    )
    body = render(
        "cohort",
        count=counted(len(rows), "case"),
        summary=", ".join(f"{states.count(state)} {state}" for state in reversed(ORDER) if state in states),
        warning=WARNING,
        plots=[plot for label, values in plots for plot in _plot(label, values)],
        head=[render("cohort-column", name=name) for name in (*COLUMNS, *(["decision"] if decisions else []))],
        body=[
            _row(
                row,
                thumbnails.get(row.case),
                (reports or {}).get(row.case),
                decisions.get(row.case, "") if decisions else None,
            )
            for row in ordered
        ],
    )
    return page("cohort", body, "cohort.js")


def worst_first(rows: Sequence[Row]) -> list[Row]:
    """Return the cases in the order in which they should be looked at."""
    return sorted(rows, key=lambda row: (ORDER.index(state_of_row(row)), -(_expected_error(row) or 0)))


def state_of_row(row: Row) -> State:
    """Return the verdict's colour, or that there is no result."""
    return row.verdict if row.status == "done" and row.verdict is not None else _not_done(row)


def _not_done(row: Row) -> State:
    return "refused" if row.status == "refused" else "failed"


def _expected_error(row: Row) -> float | None:
    """Return the expected error where it means something: it takes the pose for right, which a red one is not."""
    return None if state_of_row(row) == "red" else row.expected_error_mm


def _row(row: Row, picture: str | None, report: str | None, decision: str | None) -> Html:
    state = state_of_row(row)
    linked = report is not None and row.status == "done"
    name = [render("cohort-link", address=f"./{report}", name=row.case)] if linked else row.case
    reasons = row.error or row.reasons
    cells = (
        ("", [] if picture is None else [render("cohort-picture", picture=picture)]),
        (row.case, name),
        (str(ORDER.index(state)), [render("cohort-state", state=state, sign=render(f"sign-{state}"))]),
        _error(_expected_error(row), row.bound_mm),
        _millimetres(row.local_errors_median_mm),
        ("", "–") if row.seconds is None else (f"{row.seconds:g}", f"{row.seconds:.1f}"),
        (reasons, reasons),
        *([] if decision is None else [(decision, decision or "–")]),
    )
    return render("row", cells=[render("cohort-cell", value=value, content=content) for value, content in cells])


def _error(mm: float | None, bound_mm: float | None) -> tuple[str, str]:
    """Return the same for an expected error with its bound."""
    if mm is None:
        return "", "–"
    words = error_length(mm).removesuffix(" mm")
    return f"{mm:g}", words if bound_mm is None else f"{words} ({bound_length(bound_mm).removesuffix(' mm')})"


def _millimetres(mm: float | None) -> tuple[str, str]:
    """Return what a cell is sorted by, and what it shows; the unit stands in the column's name."""
    return ("", "–") if mm is None else (f"{mm:g}", length(mm).removesuffix(" mm"))


def _plot(label: str, values: Sequence[float | None]) -> list[Html]:
    """Return a histogram as SVG; nothing where there is no number."""
    numbers = np.array([value for value in values if value is not None], dtype=np.float64)
    numbers = numbers[(numbers >= 0) & (numbers <= _MOST_MM)]  # a record from elsewhere may say anything
    if not len(numbers):
        return []
    top = max(1.05 * float(numbers.max()), 1e-6)
    counts, _ = np.histogram(numbers, bins=BARS, range=(0, top))
    heights = PLOT_HEIGHT * counts / counts.max()
    bars = [
        render(
            "cohort-bar", x=n * BAR_WIDTH, y=f"{PLOT_HEIGHT - height:.1f}", width=BAR_WIDTH - 1, height=f"{height:.1f}"
        )
        for n, height in enumerate(heights.tolist())
    ]
    return [
        render(
            "cohort-plot", width=BARS * BAR_WIDTH, height=PLOT_HEIGHT + 18, label=label, bars=bars,
            label_y=PLOT_HEIGHT + 14, top=number(top, 2), count=counted(len(numbers), "case"),
            median=number(float(np.median(numbers)), 2),
        )
    ]  # fmt: skip
