"""Whether a result may leave for an archive (PACS) as it is: DICOM series and registrations."""

from __future__ import annotations

from collections.abc import Sequence

from BrainFusionLib.case.result import Result
from BrainFusionLib.case.standing import rejected
from BrainFusionLib.errors import Remedy, SettingsError
from BrainFusionLib.io.dicom_attributes import Doubt


def may_leave(result: Result) -> Doubt | None:
    """Return why a result should not leave for an archive without a second decision; ``None`` if it may.

    A red verdict is such a reason, and a rejection of these inputs in this pose. Whoever has others adds them
    (`joined`): a panel whose volumes have changed since.
    """
    reasons = []
    if result.verdict.colour == "red":
        first = result.verdict.reasons[0] if result.verdict.reasons else result.verdict.sentence
        reasons.append(Doubt("RED", f"the verdict on the alignment is red: {first}"))
    if rejected(result):
        reasons.append(Doubt("REJECTED", "the result was rejected"))
    return joined(reasons)


def joined(reasons: Sequence[Doubt | None]) -> Doubt | None:
    """Return several reasons as one; ``None`` if there is none."""
    there = [reason for reason in reasons if reason is not None]
    if not there:
        return None
    return Doubt(", ".join(reason.mark for reason in there), "; ".join(reason.text for reason in there))


def require_decision(doubt: Doubt | None, export_anyway: bool) -> None:
    """Refuse what is in doubt, unless it was decided to export it nevertheless.

    Raises
    ------
    SettingsError
        It is in doubt.
    """
    if doubt is not None and not export_anyway:
        raise SettingsError(f"{doubt.text}. This is not exported as DICOM.", remedy=Remedy.EXPORT_ANYWAY)
