"""The outcome of one case: a row of ``cohort.tsv`` and of ``cohort.html``."""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from typing import Literal

from BrainFusionLib.case.result import Result
from BrainFusionLib.cohort.manifest import Problem
from BrainFusionLib.printable import shown
from BrainFusionLib.values import ByValue
from BrainFusionLib.verdict.criterion import Colour
from BrainFusionLib.verdict.judge import judge

_FORMULA = ("=", "@", "+", "-", "\t", "\r")
Status = Literal["done", "refused", "failed"]


@dataclass(frozen=True, eq=False)
class Row(ByValue):
    """One case of the table.

    Attributes
    ----------
    case
        Name of the case.
    status
        Done; refused, because CT and MRI could not be aligned; or failed.
    verdict
        Colour of the verdict of a case that is done.
    expected_error_mm, bound_mm
        Expected error, and what it is at most in 9 of 10 such cases; ``None`` beside red.
    bone_error_hu, soft_tissue_error
        Difference of the fused volume from its sources, in Hounsfield units and on the unit scale.
    local_errors_median_mm
        Median of the local misalignments.
    landmarks
        Number of landmarks of the case; ``None`` without any.
    landmarks_median_mm, landmarks_worst_mm
        Median and largest residual of the landmarks.
    stated_bound_mm
        The bound as stated without knowledge of the landmarks, to be measured against them; ``None`` beside red.
    seconds
        Wall-clock time of the run that did the case; ``None`` where no case was run (a broken row, a killed process).
    reasons
        Texts of the verdict's findings, and notes on the inputs: that they have different patient IDs, for example.
    error
        The error of a case that is not done.
    """

    case: str
    status: Status
    verdict: Colour | None = None
    expected_error_mm: float | None = None
    bound_mm: float | None = None
    bone_error_hu: float | None = None
    soft_tissue_error: float | None = None
    local_errors_median_mm: float | None = None
    landmarks: int | None = None
    landmarks_median_mm: float | None = None
    landmarks_worst_mm: float | None = None
    stated_bound_mm: float | None = None
    seconds: float | None = None
    reasons: str = ""
    error: str = ""

    @classmethod
    def of(cls, case: str, result: Result) -> Row:
        """Return the row of a case that is done."""
        fidelity, local, verdict = result.fidelity, result.evidence.local, result.verdict
        marks = result.landmarks
        return cls(
            case=case,
            status="done",
            verdict=verdict.colour,
            expected_error_mm=None if verdict.colour == "red" else verdict.expected_error_mm,
            bound_mm=None if verdict.colour == "red" else verdict.bound_mm,
            bone_error_hu=None if fidelity is None else fidelity.bone_error_hu,
            soft_tissue_error=None if fidelity is None else fidelity.soft_tissue_error,
            local_errors_median_mm=None if local is None else local.median_mm,
            landmarks=None if marks is None else len(marks.points),
            landmarks_median_mm=None if marks is None else marks.median_mm,
            landmarks_worst_mm=None if marks is None else marks.worst_mm,
            # With them, the worst cases would be red, state no bound, and be missing from the coverage.
            stated_bound_mm=None if marks is None else judge(replace(result.evidence, landmarks=None)).bound_mm,
            reasons="; ".join(result.remarks[:-1]),
        )

    @classmethod
    def of_problem(cls, problem: Problem) -> Row:
        """Return the row of a line of the manifest, or of a folder, that is not a case, without names of files."""
        return cls(case=problem.where, status="failed", error=problem.unnamed)

    def cells(self) -> dict[str, str]:
        """Return the text of each cell by its column; none begins like a formula of a spreadsheet."""
        return {field.name: cell_text(getattr(self, field.name)) for field in fields(self)}

    def summary(self) -> str:
        """Return the outcome in one line."""
        seconds = "" if self.seconds is None else f", {self.seconds} s"
        return f"{self.status}{seconds}; {self.error or f'verdict {self.verdict}'}"


COLUMNS = tuple(field.name for field in fields(Row))
# The table of all rows, and the page, in the cohort's folder.
TABLE, OVERVIEW = "cohort.tsv", "cohort.html"


def cell_text(value: object) -> str:
    """Return the text of a cell; none begins like a formula of a spreadsheet."""
    if isinstance(value, str):
        text = shown(value)
        return f"'{text}" if text.startswith(_FORMULA) else text
    return "" if value is None else f"{value:.4g}" if isinstance(value, float) else str(value)
