"""The verdict on a pose: a colour, findings, and the expected error.

Green: all evidence is as in correct results. Amber: some evidence is not, or could not be checked. Red: some evidence
is as in wrong results. A green finding is worth knowing (air inside the skull, for example) and keeps the colour. The
limits come from simulated pairs; the verdict has not been measured on patients' data.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from BrainFusionLib.evidence import Evidence
from BrainFusionLib.quantities import bound_length, error_length
from BrainFusionLib.values import ByValue
from BrainFusionLib.verdict.criterion import Colour, Criterion, Finding, Refusal
from BrainFusionLib.verdict.displaced import MISSED_DISTORTION_MM, MISSED_SHIFT_MM
from BrainFusionLib.verdict.expected import bound_mm, expected_error_mm
from BrainFusionLib.verdict.table import CRITERIA

# Most severe first.
SEVERITY: tuple[Colour, ...] = ("red", "amber", "green")
# One sentence for each colour, the same at every door.
SENTENCES: dict[Colour, str] = {
    "green": "Green: no sign of misalignment",
    "amber": "Amber: check the alignment before use",
    "red": "Red: do not use, the alignment is probably wrong",
}
# What is measured on simulated heads: docs/realism.
CALIBRATION = (
    f"shifts of the brain below about {MISSED_SHIFT_MM} mm and distortion of the MRI below about "
    f"{MISSED_DISTORTION_MM} mm may be missed, and verdicts were calibrated on simulated pairs: always check the "
    "images yourself"
)


@dataclass(frozen=True, eq=False)
class Verdict(ByValue):
    """The verdict on a pose.

    Attributes
    ----------
    colour
        The worst level of the findings; green if there are none.
    findings
        Evidence that differs from that of correct results, and what else is worth knowing; the worst level first.
    expected_error_mm, bound_mm
        Expected error of the anatomy (`verdict.expected`), and what it is at most in 9 of 10 such cases; ``None`` if
        not estimated, and beside red: a number there misleads.
    """

    colour: Colour
    findings: tuple[Finding, ...] = ()
    expected_error_mm: float | None = None
    bound_mm: float | None = None

    @property
    def sentence(self) -> str:
        """The sentence for the colour, without a full stop."""
        return SENTENCES[self.colour]

    @property
    def reasons(self) -> tuple[str, ...]:
        """The texts of the findings, followed by a reminder of the verdict's limits."""
        return (*(finding.text for finding in self.findings), CALIBRATION)

    @property
    def expected_error(self) -> str | None:
        """The expected error with its bound, in one line; ``None`` if the verdict is red."""
        if self.colour == "red":
            return None
        if self.expected_error_mm is None:
            return "Expected error: not estimated"
        words = f"Expected error {error_length(self.expected_error_mm)}"
        return (
            words if self.bound_mm is None else f"{words} (in 9 of 10 such cases below {bound_length(self.bound_mm)})"
        )


def judge(evidence: Evidence, criteria: Sequence[Criterion] = CRITERIA) -> Verdict:
    """Judge a pose by its evidence, without knowledge of the true pose."""
    every = [(criterion, finding) for criterion in criteria if (finding := criterion.finding(evidence)) is not None]
    red = {finding.code for _, finding in every if finding.level == "red"}
    told = [finding for criterion, finding in every if criterion.told_beside is None or red <= criterion.told_beside]
    findings = tuple(sorted(told, key=lambda finding: SEVERITY.index(finding.level)))
    colour: Colour = findings[0].level if findings else "green"
    if colour == "red":
        return Verdict(colour, findings)
    return Verdict(colour, findings, expected_error_mm(evidence), bound_mm(evidence))


def refusal(evidence: Evidence, criteria: Sequence[Criterion] = CRITERIA) -> Refusal | None:
    """Return why a pose is refused; ``None`` if it is accepted."""
    return next((refused for criterion in criteria if (refused := criterion.refused(evidence)) is not None), None)
