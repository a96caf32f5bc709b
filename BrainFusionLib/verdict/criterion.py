"""One line of a judgement: a measure, its limits, and what is said when it is beyond them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from BrainFusionLib.errors import Remedy
from BrainFusionLib.evidence import Evidence
from BrainFusionLib.values import ByValue

Colour = Literal["green", "amber", "red"]
Measure = Callable[[Evidence], float | None]
Sense = Literal["at least", "at most"]


@dataclass(frozen=True, eq=False)
class Finding(ByValue):
    """One line of evidence that is not as in right results.

    Attributes
    ----------
    code
        Of the criterion: the same in every version.
    level
        How much it speaks against the pose.
    measure, limit, unit
        The number, the limit that it should have kept, and the unit of both.
    text
        For people; begins in lower case, without a full stop.
    """

    code: str
    level: Literal["amber", "red"]
    measure: float
    limit: float
    unit: str
    text: str


@dataclass(frozen=True)
class Refusal:
    """Why a pose does not deserve to be called a result, and what to do."""

    code: str
    text: str
    remedy: Remedy | None


def _always(evidence: Evidence) -> bool:
    return True


def _one(evidence: Evidence) -> float:
    return 1.0


@dataclass(frozen=True)
class Criterion:
    """A row of `table.CRITERIA`.

    Attributes
    ----------
    code, name
        For programs and for people.
    measure
        A pure function of the evidence; ``None`` where it cannot be told or does not apply. NaN is beyond every limit.
    sense
        Whether the measure should be at least or at most its limit.
    amber, red, refuse
        Beyond them the finding is amber or red, or the pose is refused; ``None`` where that is not done.
    unit
        Of measure and limits; empty for numbers without one.
    text, refusal
        Templates for `str.format`: ``value`` and ``limit``, both times 100 as ``percent`` and ``limit_percent``, and
        ``deficit``, the value with the opposite sign. The limit told is the amber one, or the one that refuses.
    scale
        By how much the amber and red limits grow for this evidence (coarse voxels, say).
    may_refuse
        Whether a refusal is to be considered at all.
    remedy
        What to do about a refusal, where it is not to check the images.
    """

    code: str
    name: str
    measure: Measure
    sense: Sense
    amber: float | None = None
    red: float | None = None
    refuse: float | None = None
    unit: str = ""
    text: str = ""
    refusal: str = ""
    scale: Callable[[Evidence], float] = _one
    may_refuse: Callable[[Evidence], bool] = _always
    remedy: Remedy | None = None

    def finding(self, evidence: Evidence) -> Finding | None:
        """Return what this criterion has against a pose, if anything."""
        value = self.measure(evidence)
        if value is None:
            return None
        scale = self.scale(evidence)
        for level, limit in (("red", self.red), ("amber", self.amber)):
            if limit is not None and not self._keeps(value, limit * scale):
                told = (self.amber if self.amber is not None else limit) * scale
                text = self._phrased(self.text, value, told)
                return Finding(self.code, "red" if level == "red" else "amber", value, told, self.unit, text)
        return None

    def refused(self, evidence: Evidence) -> Refusal | None:
        """Return why this criterion refuses a pose, if it does."""
        if self.refuse is None or not self.may_refuse(evidence):
            return None
        value = self.measure(evidence)
        if value is None or self._keeps(value, self.refuse):
            return None
        return Refusal(self.code, self._phrased(self.refusal, value, self.refuse), self.remedy)

    def _keeps(self, value: float, limit: float) -> bool:
        return value >= limit if self.sense == "at least" else value <= limit

    @staticmethod
    def _phrased(template: str, value: float, limit: float) -> str:
        return template.format(value=value, limit=limit, percent=100 * value, limit_percent=100 * limit, deficit=-value)
