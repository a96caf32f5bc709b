"""What the verdict says of a row, with the limits and the calibration of this revision."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from benchmarks.realism.row import evidence_of
from benchmarks.realism.truth import WRONG_MM
from BrainFusionLib.evidence import Evidence
from BrainFusionLib.verdict.criterion import Finding
from BrainFusionLib.verdict.given import REFUSED
from BrainFusionLib.verdict.judge import judge, refusal

# Poses that are further off than this are the verdict's business, not that of the expected error.
MOST_POSE_MM = 2.0


@dataclass(frozen=True, eq=False)
class Judged:
    """A row and its verdict.

    Attributes
    ----------
    row
        Truth and evidence.
    evidence
        Rebuilt from the row; its arrays are empty.
    colour
        Of the verdict, ``"refused"``, or ``"rejected"`` for what is not even registered.
    findings
        Of the verdict.
    expected_mm, bound_mm
        ``None`` beside red, refused and rejected.
    reason
        Code of the refusal, or the text of the rejection.
    """

    row: Mapping[str, str]
    evidence: Evidence
    colour: str
    findings: tuple[Finding, ...] = ()
    expected_mm: float | None = None
    bound_mm: float | None = None
    reason: str = ""

    @property
    def codes(self) -> frozenset[str]:
        """Codes of the findings."""
        return frozenset(finding.code for finding in self.findings)

    @property
    def name(self) -> str:
        """What to call the case: what was made of it, its kind, and its seed."""
        return f"{self.row['made'] or self.row['kind']} {self.row['seed']}"

    @property
    def is_negative(self) -> bool:
        """Whether there is no right pose: another person, or mirrored."""
        return self.row["made"] in ("mirrored", "other person")

    @property
    def is_simulated(self) -> bool:
        """Whether the case was simulated and registered, and not made wrong afterwards."""
        return not self.row["made"]

    def value(self, column: str) -> float | None:
        """Return a number of the row; ``None`` where it has none."""
        cell = self.row.get(column, "")
        return float(cell) if cell else None

    def mm(self, column: str) -> float:
        """Return a number of the row; infinite where it has none, as an error without a right pose is."""
        value = self.value(column)
        return float("inf") if value is None else value

    @property
    def is_accurate(self) -> bool:
        """Whether the pose was registered and is within 2 mm: what the bound is judged on."""
        return self.is_simulated and self.mm("pose_median_mm") <= MOST_POSE_MM

    @property
    def is_held(self) -> bool:
        """Whether the stated bound holds; without one it does not."""
        # The row's digits are four.
        return self.bound_mm is not None and self.mm("anatomy_median_mm") <= self.bound_mm * 1.0005

    @property
    def is_wrong(self) -> bool:
        """Whether the anatomy is more than 2 mm off (95th percentile), or there is no right pose."""
        return self.is_negative or self.mm("anatomy_p95_mm") > WRONG_MM


def judged(row: Mapping[str, str]) -> Judged:
    """Judge a row as `case.run` judges a case."""
    evidence = evidence_of(row)
    if row["rejected"]:
        return Judged(row, evidence, "rejected", reason=row["rejected"])
    if evidence.given is None:
        refused = refusal(evidence)
        if refused is not None:
            return Judged(row, evidence, "refused", reason=refused.code)
    elif refusal(replace(evidence, pose=evidence.given.found, given=None)) is not None:
        evidence = replace(evidence, given=REFUSED)
    verdict = judge(evidence)
    return Judged(row, evidence, verdict.colour, verdict.findings, verdict.expected_error_mm, verdict.bound_mm)


def judged_all(rows: Sequence[Mapping[str, str]]) -> list[Judged]:
    """Judge all rows."""
    return [judged(row) for row in rows]
