"""A job of the logic that is running: its nodes, which it watches, and how its results are put into the scene."""

from __future__ import annotations

import time
from dataclasses import dataclass, replace

import numpy as np
import slicer
from slicer.i18n import tr as _

from BrainFusionLib.case import Result
from BrainFusionLib.errors import Cancelled, GeometryError
from BrainFusionLib.geometry import apply_affine
from BrainFusionLib.intensity import HEAD_THRESHOLD_HU
from BrainFusionLib.settings import Side
from BrainFusionSlicer import (
    bridge,
    currency,
    decisions,
    error_here,
    ownership,
    permission,
    pose_history,
    pose_verdict,
    poses,
    registered_ct,
    segmentations,
    verdict_text,
)
from BrainFusionSlicer.companions import linear_parent, note_place
from BrainFusionSlicer.fingerprint import has_voxels, is_same_place, place_of

# Every fourth voxel along each axis is enough to find the middle of a head.
STEP = 4
SCALAR_VOLUME = "vtkMRMLScalarVolumeNode"
# The verdict holds for matrices that differ by no more: 0.1 mm at the rim of a head.
MOST_APART = 1e-3


@dataclass(frozen=True)
class BrainFusionOutcome:
    """What a fusion made.

    fusedVolume - The fused volume, on the MRI's grid unless the settings say another; None if nothing was fused.
    transformNode - The transform that the CT is under now; None if nothing was registered.
    alphaVolume, resampledCTVolume - The weight of the CT, and the CT on the same grid, where they were asked for.
    movement - How the CT, or with the CT as reference the MRI, had to move, in words.
    moved - How many nodes that belong to the CT were moved with it.
    boneSegmentation - The bone of the CT on the MRI's grid, if the settings ask for it.
    kept - Why outputs of an earlier run, that nobody had chosen, were kept, and new ones made in their place.
    movedName - Which of the two moves: "CT" or "MRI".
    seconds - How long it took.
    result - BrainFusionLib's Result: request, pose, verdict, evidence and how it was made.
    """

    fusedVolume: object
    transformNode: object
    alphaVolume: object
    resampledCTVolume: object
    movement: str
    seconds: float
    result: Result
    moved: int = 0
    boneSegmentation: object = None
    kept: tuple[str, ...] = ()
    movedName: str = ""


class Task:
    """A fusion that is running: its nodes, which it watches, and where its results go."""

    def __init__(
        self, ctVolume, mriVolume, outputs, keepAlignment, cancel, finishedCallback, reference: Side = "mri"
    ) -> None:
        self.ctVolume, self.mriVolume, self.outputs = ctVolume, mriVolume, outputs
        self.reference = reference
        self.keepAlignment = keepAlignment
        self.finishedCallback = finishedCallback
        self.removed = False
        self._new: set[str] = set()
        self._kept: list[str] = []
        # As they are sent: what changes meanwhile is not what will be judged.
        self._before = currency.prints_of(ctVolume, mriVolume)
        self._places = self._placesNow()
        self._asSent = {node.GetID(): permission.content_of(node) for node in self.nodes()[2:]}
        self._began = time.monotonic()
        self._cancel = cancel
        self._scene = mriVolume.GetScene()
        self._tags = [
            self._scene.AddObserver(slicer.vtkMRMLScene.NodeRemovedEvent, self._onNodeRemoved),
            self._scene.AddObserver(slicer.vtkMRMLScene.StartCloseEvent, self._onStartClose),
        ]

    @property
    def fixed(self):
        """The volume in whose frame the results are."""
        return self.ctVolume if self.reference == "ct" else self.mriVolume

    @property
    def moved(self):
        """The other one, which a registration moves."""
        return self.mriVolume if self.reference == "ct" else self.ctVolume

    @property
    def movedName(self) -> str:
        """What it is called in words."""
        return _("MRI") if self.reference == "ct" else _("CT")

    def nodes(self) -> list:
        chosen = [node for node in self.outputs.values() if node is not None and node is not True]
        return [self.ctVolume, self.mriVolume, *chosen]

    def unobserve(self) -> None:
        for tag in self._tags:
            self._scene.RemoveObserver(tag)

    # One observer an event: VTK does not tell Python which of the scene's events it was.
    def _onNodeRemoved(self, caller, event) -> None:
        if self.isBroken():
            self._onStartClose(caller, event)

    def _onStartClose(self, caller, event) -> None:
        self.removed = True
        self._cancel()

    def isBroken(self) -> bool:
        return any(node.GetScene() is None for node in self.nodes())

    def write(self, result: Result) -> BrainFusionOutcome:
        """Put the results into the scene."""
        self.requireUnmoved()
        ct, mri = self.ctVolume, self.mriVolume
        names = {"ct": ct.GetName(), "mri": mri.GetName()}
        changed = self.changesSince()
        record = decisions.record_of(result)  # what may fail, before anything is written
        read = self._parentsNow()[1]
        # With the CT as reference nothing else is allowed.
        straight = bridge.is_under_linear_transforms(ct)
        alpha = resampled = transformNode = None
        moved = 0
        if not self.keepAlignment:  # first, because it may be impossible by now
            transformNode = self.move(result, pose_history.FUSION)
            moved = registered_ct.moved_with(self.moved)
        fused = self._volume("fused", result.fused, _("{mri} fused with {ct}").format(**names), like=mri)
        if result.intensity and self._is_new(fused):
            # The MRI's own window would show all bone white.
            fused.GetDisplayNode().SetWindowLevelMinMax(*result.intensity.window)
        if self.outputs["alpha"] is not None and result.alpha is not None:
            alpha = self._volume("alpha", result.alpha, _("weight of {ct} in {mri}").format(**names))
            if self._is_new(alpha):
                alpha.GetDisplayNode().SetWindowLevelMinMax(0.0, 1.0)
        if self.outputs["ct"] is not None or not straight:
            if self.reference == "ct":
                resampled = self._volume("ct", result.volumes.mri, _("{mri} on {ct}").format(**names), like=mri)
            else:
                resampled = self._volume("ct", result.ct_in_mri, _("{ct} on {mri}").format(**names), like=ct)
        ownership.note_registered_ct(fused, ct if straight else resampled)
        output = result.request.settings.output
        fused.SetAttribute(ownership.GRID_ATTRIBUTE, None if output.is_mris else str(output.chosen))
        bone = self._bone(result, _("bone of {ct}").format(**names))
        for node in (fused, alpha, resampled, bone, transformNode):
            if node is not None:
                bridge.share_place(node, self.fixed)
        for node in (fused, alpha, resampled, bone):
            if node is not None:
                currency.note_written(node)
        card = verdict_text.of_result(result, None if transformNode is None else self.movedName)
        prints = self.printsJudged(result, changed, straight and transformNode is not None)
        verdict = self.judgement(result, card, prints, read)
        pose_verdict.forget(ct, mri)  # this verdict is newer
        currency.store(fused, verdict)
        for node in currency.outputs_of(fused, ct, mri):
            currency.note_place(node, mri)
        decisions.keep_result(fused, record)
        error_here.note_frame(fused, read)
        return self.outcome(result, fused, transformNode, alpha, resampled, moved, bone)

    def outcome(
        self,
        result: Result,
        fusedVolume=None,
        transformNode=None,
        alphaVolume=None,
        resampledCTVolume=None,
        moved=0,
        boneSegmentation=None,
    ) -> BrainFusionOutcome:
        """Return what was made."""
        seconds = time.monotonic() - self._began
        made = fusedVolume, transformNode, alphaVolume, resampledCTVolume
        return BrainFusionOutcome(
            *made, verdict_text.movement_of(result), seconds, result, moved, boneSegmentation, tuple(self._kept),
            self.movedName,
        )  # fmt: skip

    def requireUnmoved(self) -> None:
        """Refuse to write where a volume is gone or was moved meanwhile."""
        # A progress callback may process events, and events may have closed the scene.
        if self.isBroken():
            raise Cancelled(_("A volume was removed from the scene while it was being fused; nothing was written."))
        pair = self.ctVolume, self.mriVolume
        for node, before, now in zip(pair, self._places, self._placesNow(), strict=True):
            if not is_same_place(before, now):  # the pose that was found would put the CT elsewhere
                raise GeometryError(
                    _("{name} was moved or hardened while it was being fused; nothing was written. Fuse again.").format(
                        name=node.GetName()
                    )
                )

    def changesSince(self) -> list[str]:
        """Say what has changed of the pair since it was sent."""
        ct, mri = self.ctVolume, self.mriVolume
        return currency.changes_between((ct.GetName(), mri.GetName()), self._before, currency.prints_of(ct, mri))

    def move(self, result: Result, what: str):
        """Put the CT, or the MRI, where the result has it, as a step that can be undone; return the transform."""
        ct, mri, into = self.ctVolume, self.mriVolume, self.outputs["transform"]
        if into is not None and not ownership.is_output_of(into, ct, mri):  # the pair's own can be undone
            into = self._ifUnchanged(into)
        if self.reference == "mri" and not bridge.is_under_linear_transforms(ct):
            return bridge.store_transform(ct, mri, result.transform, _("CT to MRI"), into)
        name = _("MRI to CT") if self.reference == "ct" else _("CT to MRI")
        with pose_history.step(self.moved, what):
            made = bridge.move_ct_onto_mri(ct, mri, result.transform, name, into, self.reference)
        if into is not None and made != into:
            self._kept.append(_("{name} moves what was left under it").format(name=into.GetName()))
        return made

    def printsJudged(self, result: Result, changed: list[str], moved: bool) -> tuple:
        """Return the fingerprints of what was judged: those of now, unless that is something else."""
        if changed:
            return self._before
        prints = currency.prints_of(self.ctVolume, self.mriVolume)
        if moved and not self._isShownAsJudged(result):
            return tuple(replace(one, seen_mm=()) for one in prints)  # no place is that one
        return prints

    def _isShownAsJudged(self, result: Result) -> bool:
        """Return whether CT and MRI stand to each other, after the move, in the pose that the verdict is about."""
        try:
            shown = poses.shown_pose(self.ctVolume, self.mriVolume, self.reference)
        except GeometryError:
            return False
        of_both = shown.moving_from_fixed_lps, result.transform.moving_from_fixed_lps
        return bool(np.allclose(*of_both, rtol=0, atol=MOST_APART))

    def judgement(self, result: Result, card: verdict_text.Card, prints: tuple, read) -> currency.StoredVerdict:
        """Return the verdict of a result as it is stored, with the fingerprints of what was judged.

        :param read: the transform that the MRI was read under
        """
        worst = result.evidence.local.worst if result.evidence.local else None
        return currency.StoredVerdict(
            card=card,
            worst_mri_mm=bridge.mri_frame_from_lps(worst[0], read) if worst else None,
            worst_mm=worst[1] if worst else None,
            middle_mri_mm=bridge.mri_frame_from_lps(_middle_of_head(result), read),
            scale=(result.intensity.mri_low, result.intensity.mri_high) if result.intensity else (0.0, 1.0),
            ct=prints[0],
            mri=prints[1],
        )

    def _placesNow(self) -> list:
        """Return where CT and MRI are, as they are read: without an earlier result, unless that is what is fused."""
        pairs = zip((self.ctVolume, self.mriVolume), self._parentsNow(), strict=True)
        return [place_of(node, parent) if has_voxels(node) else () for node, parent in pairs]

    def _parentsNow(self) -> tuple:
        """Return the transforms that CT and MRI are read under."""
        return registered_ct.parents_as_read(self.ctVolume, self.mriVolume, self.reference, self.keepAlignment)

    def _volume(self, role: str, volume, name: str, like=None):
        """Write an output; if it is new, with the window and colours of the node `like`."""
        node = self._ifUnchanged(self.outputs[role])
        kind = ownership.RESAMPLED_MRI if role == "ct" and self.reference == "ct" else role
        if node is None or node is True:
            node = self._earlier(role)
        elif ownership.is_output_of(node, self.ctVolume, self.mriVolume) and ownership.role_of(node) != kind:
            # The CT on the MRI's voxels, and now it is the MRI on the CT's.
            found = ownership.find_output(kind, self.ctVolume, self.mriVolume) if role == "ct" else None
            node = self._unless_kept(found)
        if node is None:
            node = self._scene.AddNewNodeByClass(SCALAR_VOLUME, self._scene.GenerateUniqueName(name))
        bridge.node_from_volume(volume, node, linear_parent(self.fixed))
        is_new = not ownership.is_output_of(node, self.ctVolume, self.mriVolume)
        ownership.mark(node, kind, self.ctVolume, self.mriVolume, self.reference)
        if is_new:
            self._new.add(node.GetID())
            if like is not None:
                bridge.share_display(node, like)
        return node

    def _bone(self, result: Result, name: str):
        """Write the bone as a segmentation, if there is one: this pair's, or a new one if the user has changed that."""
        if result.bone is None or result.bone.labels is None:
            return None
        node = self._unless_kept(ownership.find_output(ownership.BONE, self.ctVolume, self.mriVolume))
        if node is None:
            node = self._scene.AddNewNodeByClass("vtkMRMLSegmentationNode", self._scene.GenerateUniqueName(name))
            node.CreateDefaultDisplayNodes()
            segmentations.show_outline(node)
        ownership.mark(node, ownership.BONE, self.ctVolume, self.mriVolume, self.reference)
        labels = result.bone.labels
        parent, lps_from_ijk = self._parent_of_bone(), labels.grid.lps_from_ijk
        if self.reference == "ct":  # it is on the MRI's voxels, which are put onto the CT
            lps_from_ijk = result.transform.moving_from_fixed_lps @ lps_from_ijk
        segmentations.fill(node, labels.array_kji > 0, lps_from_ijk, parent, segmentations.BONE_COLOUR)
        note_place(node)
        registered_ct.note_companion(self.ctVolume, node)
        return node

    def _parent_of_bone(self):
        """Return the CT's own transform, which the bone stands under, so that it is where the CT is, now and later."""
        parent = self.ctVolume.GetParentTransformNode()
        is_linear = parent is None or parent.IsTransformToWorldLinear()
        return parent if is_linear else linear_parent(self.fixed)  # what is shown is a resampled CT

    def _is_new(self, node) -> bool:
        """Whether an output was not one of this pair's before: the user may have chosen a window for the others."""
        return node.GetID() in self._new

    def _earlier(self, role: str):
        """Return the CT of an earlier run that is made again although nobody asked for it, or None."""
        if role != "ct" or self.outputs[role] is not None:
            return None
        return self._unless_kept(ownership.find_output(role, self.ctVolume, self.mriVolume))

    def _ifUnchanged(self, node):
        """Return an output that was chosen; None, and note why, if somebody has written into it meanwhile."""
        if node is None or node is True or permission.content_of(node) == self._asSent[node.GetID()]:
            return node
        self._kept.append(_("{name} was changed meanwhile").format(name=node.GetName()))
        return None

    def _unless_kept(self, node):
        """Return an output of an earlier run; None, and note why, if it is the user's by now."""
        why_kept = "" if node is None else permission.why_kept(node)
        if why_kept:
            self._kept.append(why_kept)
        return None if why_kept else node


def _middle_of_head(result: Result):
    """Return the middle of the CT's tissue, in the MRI's LPS mm; that of the MRI's grid if there is none."""
    if result.volumes is None:
        return result.grid.centre_lps_mm
    tissue = np.argwhere(result.ct_in_mri.array_kji[::STEP, ::STEP, ::STEP] > HEAD_THRESHOLD_HU)
    if not len(tissue):
        return result.grid.centre_lps_mm
    middle = apply_affine(result.ct_in_mri.grid.lps_from_ijk, STEP * tissue.mean(axis=0)[::-1])
    return result.transform.inverse().apply(middle) if result.reference == "ct" else middle
