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
    "stated_bound_mm", "held", "held_with_clicks", "error",
)  # fmt: skip
_HEADINGS = (
    "case", "verdict", "landmarks", "median residual, mm", "worst residual, mm", "expected error, mm", "bound, mm",
    "bound held", "held, clicks allowed for", "reasons",
)  # fmt: skip
_SIDE, _LEFT, _TOP = 300, 52, 10


@dataclass(frozen=True)
class Coverage:
    """How many bounds held the median residual of the landmarks: as it is, and with the errors of clicks allowed for.

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
            f"The bound held the median residual in {self.held} of {self.cases} cases "
            f"({100 * self.held / self.cases:.0f} %), and with the error of clicks allowed for in "
            f"{self.held_with_clicks} ({100 * self.held_with_clicks / self.cases:.0f} %); it is stated for "
            f"{100 * STATED:.0f} %."
        )


def held(row: Row, clicks: bool) -> bool | None:
    """Return whether a case's bound held the median residual; ``None`` without a bound or landmarks."""
    if row.stated_bound_mm is None or row.landmarks_median_mm is None:
        return None
    return row.landmarks_median_mm <= math.hypot(row.stated_bound_mm, MEDIAN_CLICK_MM if clicks else 0.0)


def coverage(rows: Sequence[Row]) -> Coverage:
    """Return how many bounds held."""
    plain = [kept for row in rows if (kept := held(row, False)) is not None]
    return Coverage(len(plain), sum(plain), sum(bool(held(row, True)) for row in rows))


def worst_first(rows: Sequence[Row]) -> list[Row]:
    """Return the cases, those without a result first, then those without a bound, then by error over bound."""

    def badness(row: Row) -> tuple[int, float]:
        if row.landmarks_median_mm is None:
            return 0, 0.0
        if row.stated_bound_mm is None:
            return 1, -row.landmarks_median_mm
        return 2, -row.landmarks_median_mm / row.stated_bound_mm

    return sorted(rows, key=badness)


def validation_table(rows: Sequence[Row]) -> str:
    """Return the table, tab-separated, the worst cases first."""
    lines = []
    for row in worst_first(rows):
        cells = {
            **row.cells(), "held": _word(held(row, False)), "held_with_clicks": _word(held(row, True))
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
        cells["expected_error_mm"], cells["stated_bound_mm"] or "not stated", _word(held(row, False)),
        _word(held(row, True)), row.error or row.reasons,
    )  # fmt: skip
    return render("row", cells=[render("cohort-cell", value=text, content=text or "–") for text in shown])


def _plot(rows: Sequence[Row]) -> list[Html]:
    """Return bound (to the right) against median residual (upwards) with the line of equality; nothing without both."""
    points = [(r.case, r.stated_bound_mm, r.landmarks_median_mm) for r in rows]
    both = [(case, bound, median) for case, bound, median in points if bound is not None and median is not None]
    if not both:
        return []
    top = 1.1 * max(max(bound, median) for _, bound, median in both)
    dots = [
        render(
            "validation-dot",
            x=f"{_LEFT + _SIDE * bound / top:.1f}",
            y=f"{_TOP + _SIDE * (1 - median / top):.1f}",
            kind="held" if median <= bound else "missed",
            name=f"{case}: bound {bound:.2f} mm, median residual {median:.2f} mm",
        )
        for case, bound, median in both
    ]
    return [
        render(
            "validation-plot", width=_LEFT + _SIDE + 20, height=_TOP + _SIDE + 40, left=_LEFT, top=_TOP,
            side=_SIDE, right=_LEFT + _SIDE, bottom=_TOP + _SIDE, middle_x=_LEFT + _SIDE / 2,
            middle_y=_TOP + _SIDE / 2, label_y=_TOP + _SIDE + 16, name_y=_TOP + _SIDE + 34, end=f"{top:.1f}", dots=dots,
        )
    ]  # fmt: skip
