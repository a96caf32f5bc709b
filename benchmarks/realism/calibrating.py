"""Fits the table of the expected error (`verdict.expected`) to rows, and measures how well it holds.

A quantile of the error is the square root of the sum of the squares of weighted features. The weights are not negative,
and are pulled towards what is assumed of them without data, so that a kind of physics that no row shows still counts.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
from scipy.optimize import minimize

from benchmarks.realism.judging import Judged
from BrainFusionLib.geometry import FloatArray
from BrainFusionLib.verdict.expected import (
    FEATURES,
    LEAST_BOUND_MM,
    LEAST_EXPECTED_MM,
    LEAST_RATIO,
    MOST_OUTSIDE,
    beyond,
    coarseness,
    features,
)

Chosen = npt.NDArray[np.bool_]

# Errors below this count as this, mm.
LEAST_MM = 0.05
# Quantile that the bound's weights are fitted to, before the factor.
HIGH = 0.9
# Share of cases of other heads and sites in which the bound is to hold: more than 9 of 10, because other simulators,
# scanners and patients differ from these.
HELD = 0.95
# Share of each kind of physics in which the bound is to hold if the fit knows nothing of it, and how many cases make a
# kind count.
HELD_LEFT_OUT, MANY_CASES = 0.8, 8
# Strength of the pull towards what is assumed, and width over which the loss is rounded, in logarithms.
PULL, ROUNDED = 0.01, 0.05
# An unknown feature counts as this quantile of the known ones.
UNKNOWN = 0.75
# What is larger than this quantile of a feature is outside the calibration: single cases are no range.
LARGEST = 0.99
# Sites are left out in so many parts, each together with one head.
SITE_PARTS = 4
# An effect with fewer cases is not left out.
LEAST_CASES = 5
BASE_MM = 0.05


@dataclass(frozen=True, eq=False)
class Sample:
    """Cases to fit to: true errors, features, and what to leave out together.

    Attributes
    ----------
    true_mm
        (n,), at least `LEAST_MM`.
    values
        (n, features) in the order of `FEATURES`; NaN where unknown.
    heads, sites
        (n,).
    effects
        Names of the physics of each case.
    """

    true_mm: FloatArray
    values: FloatArray
    heads: npt.NDArray[np.int_]
    sites: npt.NDArray[np.int_]
    effects: tuple[frozenset[str], ...]

    def __len__(self) -> int:
        return len(self.true_mm)

    def having(self, effect: str) -> Chosen:
        """Return which cases have an effect."""
        return np.array([effect in effects for effects in self.effects])


def sample(cases: Sequence[Judged]) -> Sample:
    """Return the registered cases within 2 mm that were not refused."""
    used = [case for case in cases if case.is_accurate and case.colour not in ("refused", "rejected")]
    table = []
    for case in used:
        found = features(case.evidence)
        assert found is not None
        table.append([np.nan if (value := found[feature.name]) is None else value for feature in FEATURES])
    return Sample(
        np.maximum([case.mm("anatomy_median_mm") for case in used], LEAST_MM),
        np.array(table).reshape(-1, len(FEATURES)),
        np.array([int(case.row["head"]) for case in used]),
        np.array([int(case.row["site"]) for case in used]),
        tuple(physics_of(case) for case in used),
    )


def physics_of(case: Judged) -> frozenset[str]:
    """Return the effects of a case of the mix, or its kind if its strengths were set by hand."""
    kind = case.row["kind"]
    named = case.row["effects"].split("+") if kind == "mix" else [] if kind == "plain" else [kind]
    return frozenset(named) - {""}


@dataclass(frozen=True, eq=False)
class Fit:
    """A table for the features in the order of `FEATURES`: of arrays, otherwise as `expected.Calibration`."""

    quiet: FloatArray
    unknown: FloatArray
    high: FloatArray
    expected: FloatArray
    bound: FloatArray
    factor: float = 1.0

    def expected_mm(self, values: FloatArray) -> FloatArray:
        """Return the expected errors for features, (n,)."""
        estimated: FloatArray = np.maximum(LEAST_EXPECTED_MM, _predicted(self.parts(values), self.expected))
        return estimated

    def bound_mm(self, values: FloatArray) -> FloatArray:
        """Return the bounds for features, (n,), as the library states them."""
        bound = np.maximum(LEAST_BOUND_MM, self.factor * _predicted(self.parts(values), self.bound))
        matter = self.bound[1:] > 0
        high = np.maximum(self.high * _coarse(np.where(np.isnan(values), self.unknown, values)), 1e-9)
        ratio = np.nan_to_num(values, nan=0.0)[:, matter] / high[:, matter]
        outside = np.minimum(MOST_OUTSIDE, ratio.max(axis=1, initial=1.0))
        widest: FloatArray = np.maximum(bound, LEAST_RATIO * self.expected_mm(values)) * outside
        return widest

    def parts(self, values: FloatArray) -> FloatArray:
        """Return a column of ones and the features beyond quiet ones, (n, 1 + features)."""
        return _parts(values, self.quiet, self.unknown)

    def plain(self, cases: int) -> dict[str, object]:
        """Return the table as the library includes it."""
        names = [feature.name for feature in FEATURES]

        def by_name(numbers: FloatArray) -> dict[str, float]:
            return {name: float(f"{number:.4g}") for name, number in zip(names, numbers.tolist(), strict=True)}

        return {
            "made_by": "python -m benchmarks.realism",
            "cases": cases,
            "expected": {"base_mm": float(f"{self.expected[0]:.4g}"), "weights": by_name(self.expected[1:])},
            "bound": {
                "base_mm": float(f"{self.bound[0]:.4g}"), "weights": by_name(self.bound[1:]),
                "factor": float(f"{self.factor:.4g}"),
            },
            "quiet": by_name(self.quiet), "unknown": by_name(self.unknown), "high": by_name(self.high),
        }  # fmt: skip


def fitted(cases: Sample, chosen: Chosen | None = None) -> Fit:
    """Fit expected error and bound to some of the cases; the factor is 1."""
    values = cases.values if chosen is None else cases.values[chosen]
    true = cases.true_mm if chosen is None else cases.true_mm[chosen]
    known = np.where(np.isnan(values).all(axis=0), 0.0, values)
    right = known[true <= max(LEAST_MM, float(np.quantile(true, 0.2)))]
    quiet = np.nanmedian(_filled(right, known) / _coarse(_filled(right, known)), axis=0)
    unknown = np.nanquantile(known, UNKNOWN, axis=0)
    high = np.nanquantile(known / _coarse(_filled(known, known)), LARGEST, axis=0)
    parts, logarithms = _parts(values, quiet, unknown), np.log(true)
    expected, bound = (_quantile_fit(parts, logarithms, quantile) for quantile in (0.5, HIGH))
    # Of what was never known, nothing was learned.
    never = np.concatenate([[False], np.isnan(values).all(axis=0)])
    expected[never], bound[never] = 0.0, 0.0
    return Fit(quiet, unknown, high, expected, bound)


def calibrated(cases: Sample) -> Fit:
    """Fit to all cases, with the factor that holds in heads and sites left out, and in each kind left out."""
    factor = max(
        1.0, _quantile(_ratios(cases, by_head_and_site(cases)), HELD),
        *(_least_factor(cases, cases.having(effect)) for effect in effects_of(cases)),
    )  # fmt: skip
    return replace(fitted(cases), factor=factor)


def _least_factor(cases: Sample, having: Chosen) -> float:
    """Return the factor with which a fit to the other cases holds in enough of some; 0 if those are few."""
    count = int(having.sum())
    ratios = _ratios(cases, [(having, ~having)])
    return float(ratios[math.ceil(HELD_LEFT_OUT * count) - 1]) if count >= MANY_CASES else 0.0


def by_head_and_site(cases: Sample) -> Iterator[tuple[Chosen, Chosen]]:
    """Yield cases to judge, and those to fit to that share neither head nor site with them."""
    part = cases.sites // 2 % SITE_PARTS
    for head in np.unique(cases.heads):
        for number in np.unique(part):
            judge, fit = (cases.heads == head) & (part == number), (cases.heads != head) & (part != number)
            if judge.any() and fit.any():
                yield judge, fit


def effects_of(cases: Sample) -> list[str]:
    """Return the effects with enough cases to leave them out."""
    every = sorted(frozenset().union(*cases.effects)) if cases.effects else []
    return [e for e in every if LEAST_CASES <= cases.having(e).sum() < len(cases) - LEAST_CASES]


def left_out(cases: Sample, splits: Iterator[tuple[Chosen, Chosen]], use: Callable[[Fit, FloatArray], FloatArray]) -> (
    FloatArray
):  # fmt: skip
    """Return what fits without them say of cases, (n,); NaN for cases in no split."""
    found = np.full(len(cases), np.nan)
    for judge, fit in splits:
        found[judge] = use(fitted(cases, fit), cases.values[judge])
    return found


def _ratios(cases: Sample, splits: Iterable[tuple[Chosen, Chosen]]) -> FloatArray:
    """Return by which factors true errors exceed the bounds of fits without them, smallest first."""
    ratios: list[float] = []
    for judge, fit in splits:
        ratios += (cases.true_mm[judge] / fitted(cases, fit).bound_mm(cases.values[judge])).tolist()
    return np.sort(ratios)


def _quantile(ratios: FloatArray, held: float) -> float:
    """Return the factor with which the bound holds in a share of cases, and one case more than there are."""
    if not len(ratios):
        return 1.0
    return float(ratios[min(len(ratios), int(np.ceil(held * (len(ratios) + 1)))) - 1])


def _filled(right: FloatArray, known: FloatArray) -> FloatArray:
    """Return the quiet cases; where all of them lack a feature, with that of all cases."""
    return np.where(np.isnan(right).all(axis=0), np.nanmedian(known, axis=0), right)


def _parts(values: FloatArray, quiet: FloatArray, unknown: FloatArray) -> FloatArray:
    """Return a column of ones and the features beyond quiet ones, (n, 1 + features)."""
    known = np.where(np.isnan(values), unknown, values)
    parts = np.vectorize(beyond)(known, quiet * _coarse(known)) if known.size else known
    return np.concatenate([np.ones((len(values), 1)), parts], axis=1)


def _coarse(known: FloatArray) -> FloatArray:
    """Return by which factor features of a case without error are larger in the voxels of each case."""
    names = [feature.name for feature in FEATURES]
    factors = [[*map(coarseness(float(voxel)).__getitem__, names)] for voxel in known[:, names.index("voxel_mm")]]
    return np.array(factors).reshape(known.shape)


def _predicted(parts: FloatArray, weights: FloatArray) -> FloatArray:
    predicted: FloatArray = np.sqrt(((parts * weights) ** 2).sum(axis=1))
    return predicted


def _quantile_fit(parts: FloatArray, logarithms: FloatArray, quantile: float) -> FloatArray:
    """Return the weights, the base first, at which the prediction is a quantile of the error."""
    assumed = np.log([BASE_MM, *(feature.weight for feature in FEATURES)])
    squares = parts**2

    def loss(t: FloatArray) -> tuple[float, FloatArray]:
        each = squares * np.exp(2 * t)
        total = each.sum(axis=1)
        miss = logarithms - 0.5 * np.log(total)
        size = np.sqrt(miss**2 + ROUNDED**2)
        slope = 0.5 * miss / size + quantile - 0.5
        away = t - assumed
        value = (0.5 * size + (quantile - 0.5) * miss).mean() + PULL * (away**2).sum()
        return float(value), -(slope[:, None] * each / total[:, None]).mean(axis=0) + 2 * PULL * away

    found = minimize(loss, assumed, jac=True, method="L-BFGS-B")
    weights: FloatArray = np.exp(found.x)
    return weights
