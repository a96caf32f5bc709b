"""A criterion of the verdict: a measure, its limits, and the text for a measure beyond them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from string import Formatter
from typing import Any, Literal

from BrainFusionLib.errors import Remedy
from BrainFusionLib.evidence import Evidence
from BrainFusionLib.values import ByValue

Colour = Literal["green", "amber", "red"]
Measure = Callable[[Evidence], float | None]
Sense = Literal["at least", "at most"]


@dataclass(frozen=True, eq=False)
class Finding(ByValue):
    """One line of evidence that differs from that of correct results.

    Attributes
    ----------
    code
        Code of the criterion, the same in every version.
    level
        Its severity. A green finding is worth knowing and does not change the verdict's colour.
    measure, limit, unit
        The number, its limit, and the unit of both.
    text
        Explanation for users; starts in lower case, without a full stop.
    """

    code: str
    level: Colour
    measure: float
    limit: float
    unit: str
    text: str


@dataclass(frozen=True)
class Refusal:
    """Why a pose is refused, what to do, and whether what the images show in that pose may lift it."""

    code: str
    text: str
    remedy: Remedy | None
    lifted_by_images: bool = False


class _WithoutNegativeZero(Formatter):
    """`str.format`, with no sign for a number that is rounded to 0: "-0.00 nats" looks like a fault."""

    def format_field(self, value: Any, format_spec: str) -> Any:
        return super().format_field(value, f"z{format_spec}" if isinstance(value, float) else format_spec)


_FORMATTER = _WithoutNegativeZero()


def _always(evidence: Evidence) -> bool:
    return True


def _one(evidence: Evidence) -> float:
    return 1.0


def _no_words(evidence: Evidence) -> Mapping[str, str]:
    return {}


@dataclass(frozen=True)
class Criterion:
    """A row of `table.CRITERIA`.

    Attributes
    ----------
    code, name
        Identifier for programs, and name for users.
    measure
        A pure function of the evidence; ``None`` if it is not available or does not apply. NaN is beyond every limit.
    sense
        Whether the measure should be at least or at most its limit.
    amber, red, refuse
        Limits beyond which the finding is amber or red, or the pose is refused; ``None`` for no such limit.
    green
        Limit beyond which the finding is told without changing the colour.
    unit
        Unit of measure and limits; empty for plain numbers.
    text, refusal
        Templates for `str.format`: ``value`` and ``limit``, both times 100 as ``percent`` and ``limit_percent``, and
        ``deficit``, the value with the opposite sign. ``limit`` is the mildest limit, or the one for a refusal.
    scale
        Factor by which all limits but that of a refusal grow for this evidence (for coarse voxels, for example).
    red_scale
        The factor of the red limit, if it is another one.
    may_refuse
        Whether this criterion may refuse a pose with this evidence.
    may_be_red
        Whether this criterion may be red with this evidence; else it is amber at most.
    remedy
        What to do about a refusal, if it is not to check the images.
    words
        Further words for `text` and `refusal`, by name.
    lifted_by_images
        Whether `may_refuse` depends on evidence that is measured on the images in the pose.
    told_beside
        Codes of the red findings beside which this one may be told; ``None`` for any. What explains a misalignment by
        the brain or the MRI is not true where the pose itself is wrong, or the head another one.
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
    red_scale: Callable[[Evidence], float] | None = None
    may_refuse: Callable[[Evidence], bool] = _always
    may_be_red: Callable[[Evidence], bool] = _always
    remedy: Remedy | None = None
    green: float | None = None
    words: Callable[[Evidence], Mapping[str, str]] = _no_words
    lifted_by_images: bool = False
    told_beside: frozenset[str] | None = None

    def finding(self, evidence: Evidence) -> Finding | None:
        """Return the finding on a pose; ``None`` if the measure is within the limits."""
        value = self.measure(evidence)
        if value is None:
            return None
        scale = self.scale(evidence)
        limits: tuple[tuple[Colour, float | None], ...] = (
            ("green", self.green), ("amber", self.amber),
            ("red", self.red if self.red is not None and self.may_be_red(evidence) else None),
        )  # fmt: skip
        scales = {"red": self.red_scale(evidence)} if self.red_scale is not None else {}
        beyond = [(level, limit * scales.get(level, scale)) for level, limit in limits if limit is not None]
        passed = [level for level, limit in beyond if not self._is_within(value, limit)]
        if not passed:
            return None
        mildest = beyond[0][1]
        text = self._phrased(self.text, value, mildest, self.words(evidence))
        return Finding(self.code, passed[-1], value, mildest, self.unit, text)

    def refused(self, evidence: Evidence) -> Refusal | None:
        """Return why a pose is refused; ``None`` if this criterion does not refuse it."""
        if self.refuse is None or not self.may_refuse(evidence):
            return None
        value = self.measure(evidence)
        if value is None or self._is_within(value, self.refuse):
            return None
        text = self._phrased(self.refusal, value, self.refuse, self.words(evidence))
        return Refusal(self.code, text, self.remedy, self.lifted_by_images)

    def _is_within(self, value: float, limit: float) -> bool:
        return value >= limit if self.sense == "at least" else value <= limit

    @staticmethod
    def _phrased(template: str, value: float, limit: float, words: Mapping[str, str]) -> str:
        percent, limit_percent = 100 * value, 100 * limit
        return _FORMATTER.format(
            template,
            value=value,
            limit=limit,
            percent=percent,
            limit_percent=limit_percent,
            deficit=-value,
            **words,
        )
