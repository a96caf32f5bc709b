"""The expected error of the anatomy in a pose, and its bound, mm.

Both are of one quantity: the median distance over the brain between where the fused picture shows the CT's anatomy and
where the MRI has it, distortion and brain shift included. Estimated from evidence by log-linear regression of the
median (R. Koenker and G. Bassett, Econometrica 46 (1978) 33) on simulated heads with scanner physics; the bound is as
many times the estimate as held in 9 of 10 cases of heads left out (conformal; Y. Romano et al., NeurIPS 2019). The
table is data: ``calibration.json``, made by ``python -m benchmarks.realism.calibration``.
"""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np

from BrainFusionLib.evidence import Evidence

TABLE = Path(__file__).with_name("calibration.json")
# What each feature is at least, so that its logarithm means something: no measure here is better than that.
LEAST = {"scatter_mm": 0.005, "worst_part_mm": 0.05, "local_90_mm": 0.1, "local_bias_mm": 0.05}
# More than a head's size says nothing.
MOST_MM = 100.0
# Local errors of a head in which none could be measured count as these: the bound is to be wide.
UNMEASURED_MM = {"worst_part_mm": 3.0, "local_90_mm": 6.0, "local_bias_mm": 3.0}


@dataclass(frozen=True)
class Calibration:
    """A table for the logarithms of the features in the order of `LEAST`, all of which are worse the larger they are.

    Attributes
    ----------
    expected
        Coefficients of the logarithm of the median error, mm, intercept first.
    factor
        The bound as a multiple of the expected error.
    high
        The largest value of each feature in the calibration; beyond it the estimate is a guess.
    """

    expected: tuple[float, ...]
    factor: float
    high: tuple[float, ...]


@cache
def calibration() -> Calibration:
    """Return the table that the library includes."""
    content = json.loads(TABLE.read_text(encoding="utf-8"))
    return Calibration(tuple(content["expected"]), content["factor"], tuple(content["high"]))


def features(evidence: Evidence) -> tuple[float, ...] | None:
    """Return the logarithms of what tells of the error, in the order of `LEAST`; ``None`` without a registration.

    The scatter of the pose, the misalignment of the worst part of the head, the 90th percentile of all local
    misalignments, and the length of their median vector.
    """
    found, local = evidence.found, evidence.local
    if found is None:
        return None
    measured = dict(UNMEASURED_MM)
    if local is not None and local.fit is not None and len(local.lengths_mm):
        measured = {
            "worst_part_mm": local.fit.part_mm,
            "local_90_mm": float(np.percentile(local.lengths_mm, 90)),
            "local_bias_mm": float(np.linalg.norm(np.median(local.shifts_mm, axis=0))),
        }
    values = {"scatter_mm": found.sampling_error_mm, **measured}
    # Of what is not a number, nothing good is to be assumed.
    return tuple(
        math.log(max(values[name], least)) if math.isfinite(values[name]) else math.log(MOST_MM)
        for name, least in LEAST.items()
    )


def expected_error_mm(evidence: Evidence) -> float | None:
    """Return the best estimate of the error; ``None`` if no registration was run, or its pose was refused."""
    found = features(evidence)
    return None if found is None else _with_given(evidence, _estimated(found))


def bound_mm(evidence: Evidence) -> float | None:
    """Return what the error is at most in 9 of 10 such cases; ``None`` as for `expected_error_mm`."""
    found = features(evidence)
    return None if found is None else _with_given(evidence, calibration().factor * _estimated(found))


def beyond_calibration(evidence: Evidence) -> float | None:
    """Return how many times worse the evidence is than all that was calibrated; 1 for what is inside its range.

    ``None`` without a registration, or where no local misalignment could be measured, which other criteria judge.
    """
    found, local = features(evidence), evidence.local
    if found is None or local is None or not len(local.lengths_mm):
        return None
    return math.exp(max(0.0, *(x - high for x, high in zip(found, calibration().high, strict=True))))


def _estimated(found: tuple[float, ...]) -> float:
    intercept, *slopes = calibration().expected
    logarithm = intercept + sum(slope * x for slope, x in zip(slopes, found, strict=True))
    return math.exp(min(logarithm, math.log(MOST_MM)))


def _with_given(evidence: Evidence, error_mm: float) -> float:
    """Return the error of a given pose: as far as it is from the one found, and the error of that."""
    given = evidence.given
    if given is None or given.typical_mm is None:
        return error_mm
    return math.hypot(given.typical_mm, error_mm)
