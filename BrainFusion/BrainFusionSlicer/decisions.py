"""Who approved or rejected a result in the scene, and whether that still holds: kept on the fused volume.

What was registered without a fusion is decided on in the same way; then it is kept on the transform, and is about the
pose alone. Below, `fused` may be such a transform, except in what is about records and exports.

A decision is about the voxels of CT, MRI and fused volume, the pose of the CT on the MRI, and the verdict. Like the
verdict it is saved with the scene, and is void while any of these is another one.
"""

# No `from __future__ import annotations`: see `jobs`.

import json
from dataclasses import dataclass, replace
from functools import lru_cache

import slicer
from slicer.i18n import tr as _

from BrainFusionLib.case import Result, from_document, to_document
from BrainFusionLib.case.decision import Action, Decision, Signed, Standing, State, decide, edited, sha256_of_plain
from BrainFusionLib.case.decision import state_of as state_of_standings
from BrainFusionLib.errors import BrainFusionError
from BrainFusionSlicer import currency, ownership, pose_verdict
from BrainFusionSlicer.companions import linear_parent
from BrainFusionSlicer.fingerprint import Fingerprint, fingerprint_of, has_voxels, is_same_place
from BrainFusionSlicer.verdict_text import Card

DECISIONS_ATTRIBUTE = "BrainFusion.Decisions"
RESULT_ATTRIBUTE = "BrainFusion.Result"
# Of a result without a volume.
_NO_PRINT = Fingerprint("", (), ())


@dataclass(frozen=True)
class SceneDecision:
    """A decision, and the fingerprints of what it is about: poses are compared to a tolerance, so no sha256 will do."""

    decision: Decision
    ct: Fingerprint
    mri: Fingerprint
    fused: Fingerprint


@dataclass(frozen=True)
class StoredDecisions:
    """All decisions about a fused volume, the latest last."""

    decisions: tuple[SceneDecision, ...] = ()


@dataclass(frozen=True, eq=False)
class StoredResult:
    """The record of a fused volume's result, for its report; without voxels."""

    result: Result


def record_of(result: Result) -> str:
    """Return the record of a result as it is kept: without voxels, and without the names of the inputs."""
    bone = None if result.bone is None else replace(result.bone, labels=None)
    record = StoredResult(replace(result.without_names(), volumes=None, bone=bone))
    return json.dumps(to_document(record))


def keep_result(fused: slicer.vtkMRMLNode, record: str) -> None:
    """Keep the record of a result on its fused volume."""
    fused.SetAttribute(RESULT_ATTRIBUTE, record)


def result_of(fused: slicer.vtkMRMLNode) -> Result | None:
    """Return the record that is kept on a fused volume, or None."""
    stored = _read(fused, RESULT_ATTRIBUTE, StoredResult)
    return None if stored is None else stored.result


def stored_on(fused: slicer.vtkMRMLNode | None) -> tuple[SceneDecision, ...]:
    """Return the decisions that are kept on a fused volume."""
    stored = None if fused is None else _read(fused, DECISIONS_ATTRIBUTE, StoredDecisions)
    return () if stored is None else stored.decisions


def _read(node, name, kind):
    text = node.GetAttribute(name)
    return _value_in(text, kind) if text else None


@lru_cache(maxsize=16)  # a record is long, and the panel reads it with every change of the scene
def _value_in(text, kind):
    try:
        return from_document(json.loads(text), kind)
    except (ValueError, BrainFusionError):  # of another version, or broken
        return None


def why_not_signed(fused, ct, mri) -> str | None:
    """Say why nothing can be decided about a fused volume of a pair, or return None."""
    if fused is None or not _has_voxels(fused):
        return _("Fuse first")
    verdict = currency.stored_on(fused)
    if verdict is None:
        return _("The fused volume has no verdict. Fuse again")
    if currency.changes_of_result(fused, ct, mri):
        return _("Something has changed since the fusion. Fuse again")
    return None


def sign(fused, ct, mri, action: Action, name: str, comment: str) -> None:
    """Add a decision about a fused volume that `why_not_signed` has nothing against.

    :raises SettingsError: the name is missing, or a text cannot be kept
    """
    earlier = stored_on(fused)
    prints = _prints(fused, ct, mri)
    verdict = currency.stored_on(fused)
    signed = Signed(
        {"ct": prints[0].voxels, "mri": prints[1].voxels},
        sha256_of_plain([list(prints[0].seen_mm), list(prints[1].seen_mm)]),
        sha256_of_plain([prints[2].voxels, "" if verdict is None else verdict.card.text]),
    )
    made = decide(action, name, comment, signed, tuple(one.decision for one in earlier))[-1]
    stored = StoredDecisions((*earlier, SceneDecision(made, *prints)))
    fused.SetAttribute(DECISIONS_ATTRIBUTE, json.dumps(to_document(stored)))


def standings_of(fused, ct, mri) -> tuple[Standing, ...]:
    """Return the decisions about a fused volume, each with why it does not hold now."""
    stored = stored_on(fused)
    if not stored:
        return ()
    names = ct.GetName(), mri.GetName()
    gone = [node.GetName() for node in (ct, mri, fused) if not _has_voxels(node)]
    now = None if gone else _prints(fused, ct, mri)
    verdict = currency.stored_on(fused)
    standings = []
    for one, why in zip(stored, edited(tuple(one.decision for one in stored)), strict=True):
        if now is None:
            why = [*why, *(_("{name} has no voxels any more").format(name=name) for name in gone)]
        else:
            why = [*why, *(words.rstrip(".") for words in currency.changes_between(names, (one.ct, one.mri), now[:2]))]
            made = currency.outputs_of(fused, ct, mri)[1:]
            why += [_("{name} was changed").format(name=node.GetName()) for node in made if currency.is_edited(node)]
            said = [now[2].voxels, "" if verdict is None else verdict.card.text]
            is_same = one.fused.voxels == now[2].voxels and is_same_place(one.fused.seen_mm, now[2].seen_mm)
            if not is_same:
                why.append(_("the fused volume was changed, or made again"))
            elif one.decision.signed.result != sha256_of_plain(said):
                why.append(_("the verdict is another one"))
            elif one.decision.action == "approve" and is_red_by_now(fused, ct, mri):
                why.append(_("a later check of this pose is red"))
        standings.append(Standing(one.decision, tuple(why)))
    return tuple(standings)


def later_card(fused, ct, mri) -> Card | None:
    """Return what a check that is newer than the fused volume's verdict says of the same pose, or None."""
    if fused.IsA("vtkMRMLTransformNode"):  # a later check has replaced its verdict
        return None
    shown = pose_verdict.shown(fused, ct, mri)
    return None if shown.stored is None or shown.is_of_fused or shown.changes else shown.stored.card


def is_red_by_now(fused, ct, mri) -> bool:
    """Say whether a later check of a fused volume's pose is red."""
    later = later_card(fused, ct, mri)
    return later is not None and later.colour == "red"


def state_of(fused) -> State:
    """Return what the last approval or rejection of a fused volume says now."""
    ct, mri = (fused.GetNodeReference(role) for role in ownership.INPUT_ROLES)
    if ct is None or mri is None:
        return "void" if stored_on(fused) else "unsigned"
    return state_of_standings(standings_of(fused, ct, mri))


def is_rejected(fused) -> bool:
    """Say whether a fused volume was rejected last, and neither voxels nor pose of its CT and its MRI changed since."""
    last = next((one for one in reversed(stored_on(fused)) if one.decision.action != "comment"), None)
    if last is None or last.decision.action != "reject":
        return False
    ct, mri = (fused.GetNodeReference(role) for role in ownership.INPUT_ROLES)
    if ct is None or mri is None or not (has_voxels(ct) and has_voxels(mri)):
        return True
    names = ct.GetName(), mri.GetName()
    return not currency.changes_between(names, (last.ct, last.mri), currency.prints_of(ct, mri))


def _prints(fused, ct, mri) -> tuple[Fingerprint, ...]:
    of_result = _NO_PRINT if fused.IsA("vtkMRMLTransformNode") else fingerprint_of(fused, linear_parent(mri))
    return (*currency.prints_of(ct, mri), of_result)


def _has_voxels(node) -> bool:
    return bool(node.IsA("vtkMRMLTransformNode")) or has_voxels(node)
