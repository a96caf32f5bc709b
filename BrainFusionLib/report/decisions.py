"""The part of a report that says who approved or rejected the result; it alone is replaced when somebody decides."""

from __future__ import annotations

from collections.abc import Sequence

from BrainFusionLib.case.decision import NO_SIGNATURE, Decision, Standing, State, state_of
from BrainFusionLib.report.page import Html, render

# No text in a page contains these: all of it is escaped.
_BEGIN, _END = "<!-- decisions -->", "<!-- end of decisions -->"
HEADINGS: dict[State, str] = {
    "approved": "Approved",
    "rejected": "Rejected",
    "void": "Void: changed since it was approved or rejected",
    "unsigned": "Neither approved nor rejected",
}
CLASSES: dict[State, str] = {"approved": "green", "rejected": "red", "void": "amber", "unsigned": "refused"}


def decisions_part(standings: Sequence[Standing]) -> Html:
    """Return the part with the decisions, the latest first; only its place if there are none."""
    if not standings:
        return Html(_BEGIN + _END)
    state = state_of(tuple(standings))
    part = render(
        "decisions",
        state=CLASSES[state],
        heading=HEADINGS[state],
        items=[render("decision", text=standing.sentence) for standing in reversed(standings)],
        caution=f"{NO_SIGNATURE} This page shows what held when it was written; brainfusion sign shows whether it "
        "still does.",
        sums=[
            render("fact", label="version of BrainFusion", value=standings[-1].decision.version),
            *(
                render("fact", label=f"sha256 of {what}", value=value)
                for what, value in _sums(standings[-1].decision).items()
            ),
        ],
    )
    return Html(f"{_BEGIN}{part}{_END}")


def with_decisions(page: str, standings: Sequence[Standing]) -> str | None:
    """Return a report with these decisions in the place of those in it; ``None`` if it has no place for them."""
    before, begin, rest = page.partition(_BEGIN)
    _, end, after = rest.partition(_END)
    if not begin or not end or _BEGIN in rest or _END in after:
        return None
    return f"{before}{decisions_part(standings)}{after}"


def without_decisions(page: str) -> str:
    """Return a report without its decisions: what it was before anybody decided."""
    return with_decisions(page, ()) or page


def _sums(decision: Decision) -> dict[str, str]:
    names = {"ct": "the CT", "mri": "the MRI", "mri_mask": "the registration mask"}
    signed = decision.signed
    found = {names.get(role, role): value for role, value in signed.inputs.items()}
    return {**found, "the pose": signed.pose, "the result": signed.result}
