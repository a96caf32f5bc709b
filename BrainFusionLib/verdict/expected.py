"""The expected error of the anatomy in a pose, and its bound, mm.

Both are of one quantity: the median distance over the brain between where the fused picture shows the CT's anatomy and
where the MRI has it, distortion and brain shift included. As independent errors do, features of the evidence add in
squares, each beyond what it reads in a case without error: none can make another one's error smaller. The weights are
not negative, so that a worse feature never gives a smaller number. The expected error is the median on simulated heads
with scanner physics (quantile regression; R. Koenker and G. Bassett, Econometrica 46 (1978) 33); the bound has weights
of its own, for a high quantile, times the factor that held in 95 % of heads and scanners left out (conformal; Y. Romano
et al., NeurIPS 2019), and in four fifths of each kind of physics left out. The table is data: ``calibration.json``,
made by ``python -m benchmarks.realism``.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from BrainFusionLib.evidence import Evidence
from BrainFusionLib.verdict import moved
from BrainFusionLib.verdict.displaced import (
    CERTAIN_GAIN_NATS,
    SCALE_LIMIT_PERCENT,
    brain_shift_mm,
    part_displaced_mm,
    scale_percent,
    tolerance_of_scale,
    ventricles_moved_mm,
)
from BrainFusionLib.verdict.measures import UNLIMITED_MM

TABLE = Path(__file__).with_name("calibration.json")
# No simulation knows what else a scanner and a head do. Clinics report 1.3 ± 0.9 mm between CT and MRI.
LEAST_EXPECTED_MM, LEAST_BOUND_MM = 0.1, 0.14
# The bound is at least so many times the expected error.
LEAST_RATIO = 1.25
# More than a head's size says nothing.
MOST_MM = 100.0
# The bound is widened by so much at the most where the evidence is outside the calibration.
MOST_OUTSIDE = 10.0
# Local errors of a head in which none could be measured count as these: the bound is to be wide.
UNMEASURED_PART_MM, UNMEASURED_BIAS_MM = 3.0, 3.0
# Least that a scatter without limit counts as: beyond it, a pose is refused.
LEAST_UNLIMITED_MM = 0.7
# Two fits this far apart leave the pose to the one inside the skull, whose error does not grow with their distance.
INNER_ALONE_MM = 0.3
# Longest voxel edge of thin slices, and where the calibration ends.
THIN_MM, THICKEST_MM = 1.25, 6.0
# A shift that cannot be seen: the brain of a patient who lies on the other side moves by 0.5 to 0.8 mm without any
# operation, and deep nuclei by 1 to 3 mm where the dura was opened.
UNOPENED_SHIFT_MM, OPENED_SHIFT_MM = 0.5, 1.0
# Median shift of a brain that moved as one, for each mm that it reads: .57 in half of 132 simulated heads.
MEDIAN_OF_WHOLE = 0.6
# Where ventricles changed: the median over the brain, and what it is at most, for each mm that their test reads. In the
# simulation of the calibration a brain moves close to them only, and the median is .1 to .2 of the 95th percentile; in
# three others .2 to .55, as where the tissue is pushed aside and not squeezed.
MEDIAN_OF_VENTRICLES, MOST_OF_VENTRICLES = 0.3, 0.5
# What the noise of one block's shift adds to the median and to the 95th percentile of a brain that did not move.
NOISE_IN_MEDIAN, NOISE_IN_LARGEST = 0.4, 1.2
# Root mean square that 1 % of gradient non-linearity leaves of a head after a shift: in the isocentre, and more where
# the head's centre is 50 mm away (computed). Shares of it that the vendor's correction leaves.
CENTRED_MM, OFF_CENTRE_MM, TYPICAL_AWAY_MM = 0.4, 0.9, 30.0
# Median error over the brain for 1 % along one axis, after the best shift: a brain of 140 to 180 mm.
MM_PER_PERCENT = 0.3
CORRECTED = {"none": 1.0, "2D": 0.6, "3D": 0.2}


@dataclass(frozen=True)
class Feature:
    """Something in the evidence that is larger the larger the error.

    Attributes
    ----------
    name
        Under which it stands in the table.
    measure
        Its value, at least 0; ``None`` if unknown.
    weight
        Millimetres of error for each of its units, as assumed before there is data: 1 for a measure of the anatomy's
        displacement itself.
    coarse
        By which share a case without error reads more for each millimetre of the longest voxel edge beyond thin slices:
        in thick slices the skull and the brain are found less exactly, though the pose is hardly worse.
    """

    name: str
    measure: Callable[[Evidence], float | None]
    weight: float
    coarse: float = 0.0


def _scatter_mm(evidence: Evidence) -> float | None:
    """Return the scatter of the pose; where it has no limit, the distance of two refinements instead."""
    found = evidence.found
    if found is None or not found.sampling_error_mm > UNLIMITED_MM:
        return None if found is None else found.sampling_error_mm
    return max(found.agreement_mm, LEAST_UNLIMITED_MM)


def _voxel_mm(evidence: Evidence) -> float | None:
    return None if (found := evidence.found) is None else found.thickest_voxel_mm


def _fits_apart_mm(evidence: Evidence) -> float | None:
    """Return how far the fit inside the skull is from that of the whole head, as far as both count in the pose."""
    found = evidence.found
    return None if found is None or found.inner_apart_mm is None else min(found.inner_apart_mm, INNER_ALONE_MM)


def _part_mm(evidence: Evidence) -> float | None:
    local = evidence.local
    return UNMEASURED_PART_MM if local is None or local.fit is None or local.fit.bias_mm is None else local.fit.part_mm


def _bias_mm(evidence: Evidence) -> float | None:
    local = evidence.local
    return UNMEASURED_BIAS_MM if local is None or local.fit is None or local.fit.bias_mm is None else local.fit.bias_mm


def _air_ml(evidence: Evidence) -> float | None:
    air: float | None = _read(evidence, "inside", "air_ml")
    return air


def _hole_cm(evidence: Evidence) -> float | None:
    area = _read(evidence, "inside", "defect_cm2")
    return None if area is None else math.sqrt(max(0.0, area))


def _shift_mm(evidence: Evidence) -> float | None:
    """Return the shift of the brain beyond its noise; where it cannot be seen, what is usual in such a head."""
    if _read(evidence, "brain_shift", "judged") is False:
        usual_mm = UNOPENED_SHIFT_MM if _is_unopened(evidence) else OPENED_SHIFT_MM
        return max(usual_mm, MEDIAN_OF_WHOLE * _as_one_mm(evidence))
    return _beyond_noise(evidence, "median_mm", NOISE_IN_MEDIAN)


def _largest_shift_mm(evidence: Evidence) -> float | None:
    """Return the 95th percentile of the shift beyond its noise: ventricles move parts that the median does not show."""
    return _beyond_noise(evidence, "p95_mm", NOISE_IN_LARGEST)


def _as_one_mm(evidence: Evidence) -> float:
    """Return how far the brain has moved as one where the verdict says so, though blocks could not judge it; else 0."""
    shift = evidence.brain_shift
    if shift is None or not moved.has_moved_as_one(shift):
        return 0.0
    is_said = brain_shift_mm(evidence) or part_displaced_mm(evidence)
    return (shift.whole_mm or 0.0) if is_said else 0.0


def _beyond_noise(evidence: Evidence, name: str, share: float) -> float | None:
    value, noise = _of_shift(evidence, name), _of_shift(evidence, "noise_mm")
    return value if value is None or noise is None else beyond(value, share * noise)


def _is_unopened(evidence: Evidence) -> bool:
    signs = [_read(evidence, "inside", name) for name in ("air_ml", "defect_cm2", "burr_holes")]
    return all(sign is not None and sign < 1 for sign in signs)


def _shift_noise_mm(evidence: Evidence) -> float | None:
    return _of_shift(evidence, "noise_mm")


def _certain_shift_mm(evidence: Evidence) -> float | None:
    """Return the 95th percentile of the shift, as far as it is certain: of a part that moved, medians say little."""
    p95, gain = _of_shift(evidence, "p95_mm"), _of_shift(evidence, "gain_nats")
    return None if p95 is None or gain is None else p95 * min(1.0, max(0.0, gain) / CERTAIN_GAIN_NATS)


def _ventricles_mm(evidence: Evidence) -> float:
    """Return how far the brain beside the ventricles has moved; 0 where it is not certain or was not judged."""
    return abs(ventricles_moved_mm(evidence) or 0.0)


def _distortion_mm(evidence: Evidence) -> float | None:
    value: float | None = _read(evidence, "distortion", "median_mm")
    return value


def _scale_mm(evidence: Evidence) -> float | None:
    """Return the error of the anatomy that a wrong scale makes; half of what is told as wrong is the usual noise."""
    percent = scale_percent(evidence)
    if percent is None:
        return None
    return MM_PER_PERCENT * beyond(percent, SCALE_LIMIT_PERCENT / 2 * tolerance_of_scale(evidence))


def _skull_mm(evidence: Evidence) -> float | None:
    value: float | None = _read(evidence, "distortion", "pose_median_mm")
    return value


def _of_shift(evidence: Evidence, name: str) -> float | None:
    if not _read(evidence, "brain_shift", "judged"):
        return None
    value: float | None = _read(evidence, "brain_shift", name)
    return value


def _gradients_mm(evidence: Evidence) -> float | None:
    """Return what the vendor's correction leaves of 1 % of gradient non-linearity over a head."""
    left = CORRECTED.get(_read(evidence, "acquisition", "mri", "distortion_correction"))
    away = _read(evidence, "acquisition", "mri", "isocentre_mm")
    if left is None:
        return None
    return left * (CENTRED_MM + OFF_CENTRE_MM * ((TYPICAL_AWAY_MM if away is None else away) / 50) ** 2)


def _field_mm(evidence: Evidence) -> float | None:
    """Return how far a field error of 0.3 ppm, of which most of the brain has less, moves the anatomy."""
    shift = _read(evidence, "acquisition", "mri", "mm_per_ppm")
    return None if shift is None else 0.3 * shift


def _read(evidence: Evidence, *names: str) -> Any:
    """Return an attribute of a part of the evidence; ``None`` if the part was not measured."""
    value: Any = evidence
    for name in names:
        value = getattr(value, name, None)
    return value


FEATURES: tuple[Feature, ...] = (
    Feature("scatter_mm", _scatter_mm, 3.0),
    Feature("voxel_mm", _voxel_mm, 0.01),
    Feature("fits_apart_mm", _fits_apart_mm, 0.3),
    Feature("worst_part_mm", _part_mm, 0.15, 0.1),
    Feature("local_bias_mm", _bias_mm, 1.0),
    Feature("brain_shift_mm", _shift_mm, 1.0, 0.1),
    Feature("largest_shift_mm", _largest_shift_mm, 0.4, 0.1),
    Feature("certain_shift_mm", _certain_shift_mm, 0.2),
    Feature("ventricles_mm", _ventricles_mm, 0.4),
    # A shift below the noise is not seen: it may be there.
    Feature("brain_shift_noise_mm", _shift_noise_mm, 0.3),
    Feature("distortion_mm", _distortion_mm, 0.25, 0.25),
    Feature("scale_mm", _scale_mm, 1.0),
    Feature("skull_mm", _skull_mm, 0.1, 0.25),
    Feature("air_ml", _air_ml, 0.005),
    Feature("hole_cm", _hole_cm, 0.01),
    Feature("gradients_mm", _gradients_mm, 0.1),
    Feature("field_mm", _field_mm, 0.2),
)


@dataclass(frozen=True)
class Weights:
    """One quantile of the error.

    Attributes
    ----------
    base_mm
        What is left where no feature says anything.
    weights
        By feature, at least 0.
    factor
        The result is multiplied by it.
    """

    base_mm: float
    weights: Mapping[str, float]
    factor: float = 1.0

    def error_mm(self, beyond: Mapping[str, float]) -> float:
        """Return the quantile for what features read beyond a quiet case."""
        parts = sum((weight * beyond.get(name, 0.0)) ** 2 for name, weight in self.weights.items())
        return min(MOST_MM, self.factor * math.sqrt(self.base_mm**2 + parts))


@dataclass(frozen=True)
class Calibration:
    """The table.

    Attributes
    ----------
    expected, bound
        The two quantiles.
    quiet
        What each feature reads in a case without error.
    unknown
        What an unknown feature counts as.
    high
        The largest value of each feature in the calibration in thin slices (as `Feature.coarse` has it), but for 1 % of
        the cases; beyond it the estimate is a guess.
    """

    expected: Weights
    bound: Weights
    quiet: Mapping[str, float]
    unknown: Mapping[str, float]
    high: Mapping[str, float]

    def beyond_quiet(self, values: Mapping[str, float | None]) -> dict[str, float]:
        """Return what features read beyond a quiet case, in squares; unknown ones as the table has it."""
        known = {name: self.unknown[name] if (v := values.get(name)) is None else v for name in self.quiet}
        coarse = coarseness(known["voxel_mm"])
        return {name: beyond(value, self.quiet[name] * coarse[name]) for name, value in known.items()}

    def outside(self, values: Mapping[str, float | None]) -> float:
        """Return how many times larger the worst feature is than in any calibrated case; 1 for what is inside."""
        matter = [name for name in self.high if self.bound.weights.get(name) and values.get(name) is not None]
        voxel = values.get("voxel_mm")
        coarse = coarseness(self.unknown["voxel_mm"] if voxel is None else voxel)
        worst = max([1.0, *(_finite(values[name]) / max(self.high[name] * coarse[name], 1e-9) for name in matter)])
        return min(MOST_OUTSIDE, worst)


def coarseness(voxel_mm: float) -> dict[str, float]:
    """Return by which factor each feature of a case without error is larger, for a longest voxel edge."""
    more = min(THICKEST_MM, max(THIN_MM, voxel_mm)) - THIN_MM
    return {feature.name: 1 + feature.coarse * more for feature in FEATURES}


def beyond(value: float, quiet: float) -> float:
    """Return what a feature reads beyond a quiet case. Of what is not a number, nothing good is to be assumed."""
    value = _finite(value)
    return math.sqrt(max(0.0, value * value - quiet * quiet))


def from_plain(content: Mapping[str, object]) -> Calibration:
    """Return the calibration that a JSON object holds."""
    table = json.loads(json.dumps(content))
    return Calibration(Weights(**table["expected"]), Weights(**table["bound"]), *(
        table[name] for name in ("quiet", "unknown", "high")
    ))  # fmt: skip


@cache
def calibration() -> Calibration:
    """Return the table that the library includes."""
    return from_plain(json.loads(TABLE.read_text(encoding="utf-8")))


def features(evidence: Evidence) -> dict[str, float | None] | None:
    """Return what tells of the error, by name; ``None`` without a registration."""
    if evidence.found is None:
        return None
    return {feature.name: feature.measure(evidence) for feature in FEATURES}


def expected_error_mm(evidence: Evidence, table: Calibration | None = None) -> float | None:
    """Return the best estimate of the error; ``None`` if no registration was run, or its pose was refused."""
    estimated = _estimated(evidence, table or calibration())
    return None if estimated is None else _with_given(evidence, estimated[0])


def bound_mm(evidence: Evidence, table: Calibration | None = None) -> float | None:
    """Return what the error is at most in 9 of 10 such cases; ``None`` as for `expected_error_mm`."""
    estimated = _estimated(evidence, table or calibration())
    return None if estimated is None else _with_given(evidence, estimated[1])


def beyond_calibration(evidence: Evidence) -> float | None:
    """Return how many times worse the evidence is than all that was calibrated; 1 for what is inside its range.

    ``None`` without a registration, or where no local misalignment could be measured, which other criteria judge.
    """
    found, local = features(evidence), evidence.local
    if found is None or local is None or local.fit is None or local.fit.bias_mm is None:
        return None
    return calibration().outside(found)


def _estimated(evidence: Evidence, table: Calibration) -> tuple[float, float] | None:
    """Return the expected error and the bound, which is widened where the evidence is outside the calibration."""
    found = features(evidence)
    if found is None:
        return None
    beyond_quiet, changed_mm = table.beyond_quiet(found), _ventricles_mm(evidence)
    expected = math.hypot(table.expected.error_mm(beyond_quiet), MEDIAN_OF_VENTRICLES * changed_mm)
    expected = max(LEAST_EXPECTED_MM, expected)
    most = math.hypot(table.bound.error_mm(beyond_quiet), MOST_OF_VENTRICLES * changed_mm)
    bound = max(LEAST_BOUND_MM, most, LEAST_RATIO * expected)
    return expected, min(MOST_MM, bound * table.outside(found))


def _finite(value: float | None) -> float:
    return value if value is not None and math.isfinite(value) else MOST_MM


def _with_given(evidence: Evidence, error_mm: float) -> float:
    """Return the error of a given pose: as far as it is from the one found, and the error of that."""
    given = evidence.given
    if given is None or given.typical_mm is None:
        return error_mm
    return math.hypot(given.typical_mm, error_mm)
