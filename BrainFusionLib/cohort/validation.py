"""A site's acceptance run: the bound stated for each case against the error measured at its landmarks."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from BrainFusionLib.case.result import WARNING
from BrainFusionLib.cohort.row import Row
from BrainFusionLib.io.tables import format_csv
from BrainFusionLib.landmarks import CAUTION, MEDIAN_CLICK_MM
from BrainFusionLib.quantities import counted
from BrainFusionLib.report.page import Html, page, render

# The bound is stated for this share of cases.
STATED = 0.9
COLUMNS = (
    "case", "status", "verdict", "landmarks", "landmarks_median_mm", "landmarks_worst_mm", "expected_error_mm",
    "stated_bound_mm", "held_with_clicks", "held", "error",
)  # fmt: skip
_HEADINGS = (
    "case", "verdict", "landmarks", "median residual, mm", "worst residual, mm", "expected error, mm", "bound, mm",
    "bound held, clicks allowed for", "residual below the bound", "reasons",
)  # fmt: skip
_SIDE, _LEFT, _TOP = 300, 52, 10
# Points of the line in the plot.
_LINE_POINTS = 31


@dataclass(frozen=True)
class Coverage:
    """How many bounds held: with the errors of clicks allowed for, and against the median residual as it is.

    `cases` is the number of cases with landmarks and a bound.
    """

    cases: int
    held: int
    held_with_clicks: int

    @property
    def sentence(self) -> str:
        """The result in one sentence."""
        if not self.cases:
            return "No case has both landmarks and a bound."
        return (
            f"The bound held in {self.held_with_clicks} of {self.cases} cases "
            f"({100 * self.held_with_clicks / self.cases:.0f} %), with {MEDIAN_CLICK_MM:.1f} mm allowed for the "
            f"clicks; it is stated for {100 * STATED:.0f} %. The median residual itself, clicks included, was below it "
            f"in {self.held} ({100 * self.held / self.cases:.0f} %)."
        )


def held(row: Row, clicks: bool) -> bool | None:
    """Return whether a case's bound held the median residual; ``None`` without a bound or landmarks."""
    if row.stated_bound_mm is None or row.landmarks_median_mm is None:
        return None
    return row.landmarks_median_mm <= (_with_clicks(row.stated_bound_mm) if clicks else row.stated_bound_mm)


def _with_clicks(bound_mm: float) -> float:
    """Return what the median residual is below where the bound holds: clicks add to the error in squares."""
    return math.hypot(bound_mm, MEDIAN_CLICK_MM)


def coverage(rows: Sequence[Row]) -> Coverage:
    """Return how many bounds held."""
    plain = [kept for row in rows if (kept := held(row, False)) is not None]
    return Coverage(len(plain), sum(plain), sum(bool(held(row, True)) for row in rows))


def worst_first(rows: Sequence[Row]) -> list[Row]:
    """Return the cases: those without a result, those without a bound, then by residual over what it may be."""

    def badness(row: Row) -> tuple[int, float]:
        if row.landmarks_median_mm is None:
            return 0, 0.0
        if row.stated_bound_mm is None:
            return 1, -row.landmarks_median_mm
        return 2, -row.landmarks_median_mm / _with_clicks(row.stated_bound_mm)

    return sorted(rows, key=badness)


def validation_table(rows: Sequence[Row]) -> str:
    """Return the table, tab-separated, the worst cases first."""
    lines = []
    for row in worst_first(rows):
        cells = {
            **row.cells(), "held_with_clicks": _word(held(row, True)), "held": _word(held(row, False))
        }  # fmt: skip
        lines.append({name: cells[name] for name in COLUMNS})
    return format_csv(lines, COLUMNS, delimiter="\t")


def validation_page(rows: Sequence[Row]) -> str:
    """Return one page: coverage, the stated bounds against the measured errors, and the table, the worst first."""
    body = render(
        "validation",
        count=counted(len(rows), "case"),
        summary=coverage(rows).sentence,
        caution=f"Bound and median are of the error over the brain; landmarks sample it only where they are. {CAUTION}",
        warning=WARNING,
        plot=_plot(rows),
        head=[render("validation-column", name=name) for name in _HEADINGS],
        body=[_row(row) for row in worst_first(rows)],
    )
    return page("validation", body, "cohort.js")


def _word(value: bool | None) -> str:
    return "" if value is None else "yes" if value else "no"


def _row(row: Row) -> Html:
    cells = row.cells()
    state = row.verdict or row.status
    shown = (
        row.case, state, cells["landmarks"], cells["landmarks_median_mm"], cells["landmarks_worst_mm"],
        cells["expected_error_mm"], cells["stated_bound_mm"] or "not stated", _word(held(row, True)),
        _word(held(row, False)), row.error or row.reasons,
    )  # fmt: skip
    return render("row", cells=[render("cohort-cell", value=text, content=text or "–") for text in shown])


def _plot(rows: Sequence[Row]) -> list[Html]:
    """Return bound (to the right) against median residual (upwards) with the line below which a bound held.

    Nothing without both.
    """
    points = [(r.case, r.stated_bound_mm, r.landmarks_median_mm) for r in rows]
    both = [(case, bound, median) for case, bound, median in points if bound is not None and median is not None]
    if not both:
        return []
    top = 1.1 * max(max(_with_clicks(bound), median) for _, bound, median in both)

    def at(bound: float, median: float) -> tuple[str, str]:
        return f"{_LEFT + _SIDE * bound / top:.1f}", f"{_TOP + _SIDE * (1 - median / top):.1f}"

    widest = math.sqrt(top**2 - MEDIAN_CLICK_MM**2)  # where the line leaves the plot at its top
    bounds = (widest * n / (_LINE_POINTS - 1) for n in range(_LINE_POINTS))
    line = [at(bound, _with_clicks(bound)) for bound in bounds]
    dots = [
        render(
            "validation-dot",
            x=at(bound, median)[0],
            y=at(bound, median)[1],
            kind="held" if median <= _with_clicks(bound) else "missed",
            name=f"{case}: bound {bound:.2f} mm, median residual {median:.2f} mm",
        )
        for case, bound, median in both
    ]
    return [
        render(
            "validation-plot", width=_LEFT + _SIDE + 20, height=_TOP + _SIDE + 40, left=_LEFT, top=_TOP,
            side=_SIDE, right=_LEFT + _SIDE, middle_x=_LEFT + _SIDE / 2,
            middle_y=_TOP + _SIDE / 2, label_y=_TOP + _SIDE + 16, name_y=_TOP + _SIDE + 34, end=f"{top:.1f}", dots=dots,
            line="M" + "L".join(" ".join(point) for point in line),
        )
    ]  # fmt: skip
