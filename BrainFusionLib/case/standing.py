"""Whether the decisions about a result still hold, as far as its record can tell; `signing` compares the files, too."""

from __future__ import annotations

import numpy as np

from BrainFusionLib.case.decision import Decision, Signed, Standing, changes, edited, sha256_of_plain
from BrainFusionLib.case.result import Pose, Result

# Four points that determine a pose, MRI LPS mm, and the digits of their places that count: a thousandth of a mm.
_POINTS_MM, _DIGITS = np.concatenate([np.zeros((1, 3)), 100 * np.eye(3)]), 3


def pose_sha256(pose: Pose) -> str:
    """Return the sha256 of where a pose puts points: the same for a pose that was found and for one given in a file."""
    transforms = (pose.transform, pose.rigid, *([] if pose.skull is None else [pose.skull]))
    # No negative zero, which is written differently.
    places = [np.round(transform.apply(_POINTS_MM), _DIGITS) + 0.0 for transform in transforms]
    return sha256_of_plain([place.tolist() for place in places])


def inputs_sha256(result: Result) -> dict[str, str]:
    """Return the sha256 of a result's inputs by role, as far as they are known."""
    request = result.request
    sources = {"ct": request.ct, "mri": request.mri, "mri_mask": request.mri_mask}
    return {role: s.sha256 for role, s in sources.items() if s is not None and s.sha256 is not None}


def standings_of(result: Result) -> tuple[Standing, ...]:
    """Return a result's decisions, each with why it no longer holds: it was edited, or inputs or pose are others."""
    now = _now(result)
    both = zip(result.decisions, edited(result.decisions), strict=True)
    return tuple(Standing(decision, (*why, *changes(decision, now))) for decision, why in both)


def _now(result: Result) -> Signed:
    return Signed(inputs_sha256(result), pose_sha256(result.pose), "")


def decision_of(result: Result) -> Decision | None:
    """Return the last approval or rejection of a result if it still holds, else ``None``."""
    for standing in reversed(standings_of(result)):
        if standing.decision.action != "comment":
            return None if standing.void else standing.decision
    return None


def rejected(result: Result) -> bool:
    """Return whether a result was rejected last, and neither its inputs nor its pose have changed since.

    Other changes, which make a decision void, do not lift a rejection.
    """
    last = next((decision for decision in reversed(result.decisions) if decision.action != "comment"), None)
    return last is not None and last.action == "reject" and not changes(last, _now(result))


def carried_over(old: Result, new: Result) -> tuple[Decision, ...]:
    """Return the decisions about a result that another one of the same inputs replaces, so that they are seen as void.

    None if the inputs are others, or not known: a decision about one patient must not be shown with another.
    """
    before, now = inputs_sha256(old), inputs_sha256(new)
    return old.decisions if before == now and {"ct", "mri"} <= now.keys() else ()
