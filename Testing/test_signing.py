"""Who approved or rejected a result, and whether that still holds."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from BrainFusionLib.case import Result, decision_of, rejected, standings_of
from BrainFusionLib.case.decision import Action, Signed, decide, state_of
from BrainFusionLib.case.standing import carried_over, inputs_sha256, pose_sha256
from BrainFusionLib.errors import SettingsError
from BrainFusionLib.geometry import Grid
from BrainFusionLib.transform import RigidTransform
from BrainFusionLib.volume import Volume
from Testing.report_case import result_of

CUBE = Volume(np.zeros((2, 2, 2), np.float32), Grid((2, 2, 2)), None, "cube")


def result() -> Result:
    """A result whose inputs have a sha256."""
    made = result_of(CUBE, CUBE, CUBE)
    ct, mri = (replace(source, sha256=2 * source.name[:1]) for source in (made.request.ct, made.request.mri))
    return replace(made, request=replace(made.request, ct=ct, mri=replace(mri, sha256="mm")))


def signed(made: Result, *actions: Action) -> Result:
    for action in actions:
        about = Signed(inputs_sha256(made), pose_sha256(made.pose), "")
        made = replace(made, decisions=decide(action, "A. Surgeon", "seen", about, made.decisions))
    return made


def moved(made: Result) -> Result:
    return replace(made, pose=replace(made.pose, transform=RigidTransform(np.diag([-1.0, -1.0, 1.0, 1.0]))))


def test_the_last_approval_or_rejection_counts_and_none_is_erased() -> None:
    made = signed(result(), "approve", "reject", "comment")
    assert [decision.action for decision in made.decisions] == ["approve", "reject", "comment"]
    assert state_of(standings_of(made)) == "rejected"
    assert rejected(made)
    again = signed(made, "approve")
    assert decision_of(again) == again.decisions[-1]
    assert not rejected(again)
    assert state_of(standings_of(again)) == "approved"
    assert (decision_of(result()), rejected(result()), state_of(())) == (None, False, "unsigned")


def test_another_pose_makes_a_decision_void() -> None:
    for action in ("approve", "reject"):
        made = moved(signed(result(), action))
        assert standings_of(made)[0].void == ("the pose was changed",)
        assert (decision_of(made), rejected(made), state_of(standings_of(made))) == (None, False, "void")


def test_other_inputs_make_a_decision_void() -> None:
    made = signed(result(), "approve")
    other = replace(made.request, ct=replace(made.request.ct, sha256="other"))
    assert standings_of(replace(made, request=other))[0].void == ("the CT is another one",)


@pytest.mark.parametrize("field", ["name", "date", "comment", "action", "seal", "signed"])
def test_an_edited_decision_is_void(field: str) -> None:
    made = signed(result(), "reject", "comment")
    old = made.decisions[0]
    value: Any = {"action": "approve", "signed": replace(old.signed, result="another")}.get(field, "changed")
    changed: dict[str, Any] = {field: value}
    edited = replace(made, decisions=(replace(old, **changed), made.decisions[1]))
    first, second = standings_of(edited)
    assert "the decision itself was edited" in first.void
    assert second.void == ("an earlier decision was edited or removed",)
    assert decision_of(edited) is None


def test_a_decision_that_was_removed_is_missed_by_the_next() -> None:
    made = signed(result(), "reject", "approve")
    assert decision_of(replace(made, decisions=made.decisions[1:])) is None


def test_a_rejection_is_not_lifted_by_editing_its_comment() -> None:
    made = signed(result(), "reject")
    assert rejected(replace(made, decisions=(replace(made.decisions[0], comment="fine"),)))


def test_decisions_are_carried_over_to_a_new_result_of_the_same_inputs_only() -> None:
    old = signed(result(), "approve")
    assert carried_over(old, moved(result())) == old.decisions
    other = result()
    other = replace(other, request=replace(other.request, mri=replace(other.request.mri, sha256="other")))
    unknown = replace(result(), request=replace(result().request, ct=replace(result().request.ct, sha256=None)))
    assert carried_over(old, other) == carried_over(unknown, unknown) == ()


@pytest.mark.parametrize(
    ("action", "name", "comment", "words"),
    [
        ("approve", "  ", "", "needs the name"),
        ("comment", "A", " \n", "needs words"),
        ("approve", "A" * 101, "", "at most 100"),
        ("approve", "A\u202egnorW", "", r"cannot be shown \(U\+202E\)"),
        ("reject", "A", "a\x00b", r"U\+0000"),
    ],
)
def test_a_decision_that_cannot_be_shown_is_refused(action: Action, name: str, comment: str, words: str) -> None:
    with pytest.raises(SettingsError, match=words):
        decide(action, name, comment, Signed({}, "", ""))
