"""calibration.md: how well expected error and bound hold on other heads and scanners, and on physics left out."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np

from benchmarks.realism.calibrating import (
    HELD_LEFT_OUT,
    MANY_CASES,
    Fit,
    by_head_and_site,
    effects_of,
    fitted,
    left_out,
    sample,
)
from benchmarks.realism.judging import Judged
from benchmarks.realism.tables import coverage, share, sharpness
from BrainFusionLib.geometry import FloatArray
from BrainFusionLib.io.tables import Cell, markdown_table
from BrainFusionLib.verdict.expected import FEATURES, LEAST_BOUND_MM, LEAST_EXPECTED_MM

MANY = 30


def report(cases: Sequence[Judged], fit: Fit) -> str:
    """Return calibration.md; `fit` is of the cases that calibrate."""
    ours, others = ([case for case in cases if case.row["half"] == half] for half in "01")
    return "\n".join([
        "# Expected error and its bound",
        "",
        "The error is the median over the brain of the distance of the anatomy. Cases are poses within 2 mm; red and "
        "refused ones have no bound and count as not held. Half of the heads and half of the scanners calibrate, the "
        f"others judge. The expected error is never below {LEAST_EXPECTED_MM:g} mm and the bound never below "
        f"{LEAST_BOUND_MM:g} mm: no simulation knows more, and clinics report 1.3 ± .9 mm between CT and MRI.",
        "",
        groups_table(others),
        "",
        *own_lines(ours, fit),
        "",
        "Physics left out: fitted to the cases without it, and judged on those with it (heads that calibrate). The "
        f"bound's factor was chosen so that it holds in {100 * HELD_LEFT_OUT:.0f} % of each kind of {MANY_CASES} cases "
        "and more.",
        "",
        left_out_table(ours, fit),
        "",
        "Weights: mm of error for each unit that a feature reads beyond a quiet case; all add in squares.",
        "",
        weights_table(fit),
        "",
    ])  # fmt: skip


def groups_table(cases: Sequence[Judged]) -> str:
    """Return how the bound holds in all cases that judge, in plain ones and in the others, and in each kind."""
    groups = {"all": list(cases)}
    for kind in dict.fromkeys(case.row["kind"] for case in cases if case.is_simulated):
        groups[kind] = [case for case in cases if case.row["kind"] == kind]
    lines = [_line(name, group) for name, group in groups.items()]
    return markdown_table(("cases that judge", "expected, median", "true, median", "held", "bound / true"), lines)


def _line(name: str, cases: Sequence[Judged]) -> list[Cell]:
    accurate = [case for case in cases if case.is_accurate]
    expected = [case.expected_mm for case in accurate if case.expected_mm is not None]
    sharp = sharpness(cases)
    true = [case.mm("anatomy_median_mm") for case in accurate]
    few = "" if len(accurate) >= MANY else " (few)"
    return [
        name + few, f"{np.median(expected):.2f}" if expected else "–", f"{np.median(true):.2f}" if true else "–",
        share(*coverage(cases)), "–" if sharp is None else f"{sharp:.1f}",
    ]  # fmt: skip


def own_lines(cases: Sequence[Judged], fit: Fit) -> list[str]:
    """Return how the bound holds in cases that calibrate, each judged by a fit without its head and site."""
    own = sample(cases)
    if not len(own):
        return []
    bound = left_out(own, by_head_and_site(own), _with_factor(fit))
    known = ~np.isnan(bound)
    if not known.any():
        return []
    held = int((own.true_mm[known] <= bound[known]).sum())
    return [
        f"Of the cases that calibrate, each judged by a fit without its head and its site: held in "
        f"{share(held, int(known.sum()))}, bound / true {np.median(bound[known] / own.true_mm[known]):.1f}."
    ]


def left_out_table(cases: Sequence[Judged], fit: Fit) -> str:
    """Return how the bound holds in each kind of physics that was left out of the calibration."""
    own = sample(cases)
    use = _with_factor(fit)
    lines: list[list[Cell]] = []
    for effect in effects_of(own):
        having = own.having(effect)
        bound, with_all = use(fitted(own, ~having), own.values[having]), use(fit, own.values[having])
        true = own.true_mm[having]
        lines.append([
            effect, share(int((true <= bound).sum()), len(true)), share(int((true <= with_all).sum()), len(true)),
            f"{np.median(bound / true):.1f}",
        ])  # fmt: skip
    return markdown_table(("left out", "held", "held with it", "bound / true"), lines)


def weights_table(fit: Fit) -> str:
    """Return the table of the library for people."""
    lines: list[list[Cell]] = [["base", "", "", f"{fit.expected[0]:.3f}", f"{fit.factor * fit.bound[0]:.3f}"]]
    for n, feature in enumerate(FEATURES):
        numbers = (fit.quiet[n], fit.high[n], fit.expected[n + 1], fit.factor * fit.bound[n + 1])
        lines.append([feature.name, *(f"{number:.3g}" for number in numbers)])
    return markdown_table(("feature", "quiet", "largest", "expected", "bound"), lines)


def _with_factor(fit: Fit) -> Callable[[Fit, FloatArray], FloatArray]:
    def bound(other: Fit, values: FloatArray) -> FloatArray:
        return replace(other, factor=fit.factor).bound_mm(values)

    return bound
