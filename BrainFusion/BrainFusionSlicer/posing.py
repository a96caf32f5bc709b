"""The logic's work on a pose alone, without a fusion and without an output volume: register, check, refine."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import replace

from slicer.i18n import tr as _

from BrainFusionLib.case import Result
from BrainFusionLib.errors import GeometryError, SettingsError
from BrainFusionLib.settings import Settings, Side
from BrainFusionSlicer import (
    bridge,
    ownership,
    permission,
    pose_history,
    pose_verdict,
    poses,
    registered_ct,
    verdict_text,
)
from BrainFusionSlicer.logic import FusionLogic, requested, requireMovable
from BrainFusionSlicer.task import BrainFusionOutcome, Task

Finished = Callable[[BrainFusionOutcome | None, Exception | None], None]
Progressed = Callable[[str, float], None]


class PosingLogic(FusionLogic):
    """What `FusionLogic` does, and registering, checking and refining alone.

    All take the options of `startFusion`, and report as it does; the outcome has no volumes. What they write is the
    transform, and the verdict.
    """

    def startRegistration(
        self,
        ctVolume,
        mriVolume,
        transform=None,
        *,
        settings: Settings | None = None,
        startTransform=None,
        mask=None,
        landmarks: tuple | None = None,
        startFromLandmarks: bool = False,
        overwrite: Sequence = (),
        progressCallback: Progressed | None = None,
        finishedCallback: Finished | None = None,
    ) -> None:
        """Start to register the CT to the MRI, and to judge the pose; the CT is moved as by a fusion."""
        self._requirePair(ctVolume, mriVolume)
        if startFromLandmarks and (landmarks is None or startTransform is not None):
            raise SettingsError(_("A start from landmarks needs landmarks, and no other start."))
        self._requireWritable(transform, ctVolume, mriVolume, overwrite, inputs=(startTransform,))
        reference = (settings or Settings()).output.reference
        self._requireMovable(ctVolume, mriVolume, reference, transform)
        request, rawInputs = requested(
            ctVolume, mriVolume, settings=settings, mask=mask, landmarks=landmarks, reference=reference
        )
        start = None if startTransform is None else bridge.start_from_node(startTransform)
        if startFromLandmarks:
            start = request.landmarks.rigid_fit()
        request = replace(request, fuse=False, start=start)
        task = PoseTask(
            ctVolume, mriVolume, transform, pose_history.REGISTRATION, self.cancel, finishedCallback, reference
        )
        self._begin(task, request, rawInputs, progressCallback)

    def startRefinement(
        self,
        ctVolume,
        mriVolume,
        *,
        settings: Settings | None = None,
        mask=None,
        landmarks: tuple | None = None,
        progressCallback: Progressed | None = None,
        finishedCallback: Finished | None = None,
    ) -> None:
        """Start to register the CT from where it is shown, within 20 mm and 15 degrees of it, and to judge the pose.

        What the pair's last result moved is moved again; where there is none, what the settings say.

        :raises GeometryError: the CT is shown in a pose that is not rigid
        """
        self._requirePair(ctVolume, mriVolume)
        settings = settings or Settings()
        # Not another transform that is chosen as an output: what is refined is what is shown.
        ours = registered_ct.result_transform_of(registered_ct.moved_of_pair(ctVolume, mriVolume))
        into = ours if ours is not None and ownership.is_output_of(ours, ctVolume, mriVolume) else None
        reference = settings.output.reference if into is None else ownership.reference_of(into)
        self._requireMovable(ctVolume, mriVolume, reference)
        start = poses.shown_pose(ctVolume, mriVolume, reference)
        settings = replace(
            settings,
            registration=replace(settings.registration, search="local"),
            output=replace(settings.output, reference=reference),
        )
        request, rawInputs = requested(
            ctVolume, mriVolume, settings=settings, mask=mask, landmarks=landmarks, reference=reference
        )
        request = replace(request, fuse=False, start=start)
        task = PoseTask(ctVolume, mriVolume, into, pose_history.REFINEMENT, self.cancel, finishedCallback, reference)
        self._begin(task, request, rawInputs, progressCallback)

    def startCheck(
        self,
        ctVolume,
        mriVolume,
        poseTransform=None,
        *,
        settings: Settings | None = None,
        landmarks: tuple | None = None,
        progressCallback: Progressed | None = None,
        finishedCallback: Finished | None = None,
    ) -> None:
        """Start to judge a pose as it stands; nothing is moved, and no volume is written.

        :param poseTransform: transform node, CT to MRI, whose pose is judged, and which is not changed; None for the
            pose in which the CT is shown, whose verdict is kept in the scene
        :raises GeometryError: the CT is shown in a pose that is not rigid, or the transform is not linear
        """
        self._requirePair(ctVolume, mriVolume)
        given = poses.shown_pose(ctVolume, mriVolume) if poseTransform is None else poses.pose_from_node(poseTransform)
        settings = settings or Settings()
        # A given pose is used unchanged.
        settings = replace(settings, registration=replace(settings.registration, align="skull", model="rigid"))
        request, rawInputs = requested(ctVolume, mriVolume, settings=settings, landmarks=landmarks)
        request = replace(request, fuse=False, given=given)
        task = CheckTask(ctVolume, mriVolume, poseTransform, self.cancel, finishedCallback)
        self._begin(task, request, rawInputs, progressCallback)

    def _requireMovable(self, ctVolume, mriVolume, reference: Side, transform=None) -> None:
        """Refuse a pair whose registration would leave the CT where it is: nothing else is shown then."""
        why_not = bridge.why_not_moved_alone(ctVolume)
        if why_not is not None:
            raise GeometryError(f"{why_not}.")
        requireMovable(ctVolume, mriVolume, reference, transform)

    def _requireWritable(self, transform, ctVolume, mriVolume, overwrite: Sequence, inputs: Sequence) -> None:
        if transform is None:
            return
        if transform in [node for node in inputs if node is not None]:
            raise SettingsError(_("The output transform must not be the one that the registration starts from."))
        permission.require_permission([transform], ctVolume, mriVolume, overwrite)


class PoseTask(Task):
    """A registration without a fusion: it writes the transform, and keeps the verdict on it.

    :param what: what it is to `pose_history`
    """

    def __init__(
        self, ctVolume, mriVolume, transform, what: str, cancel, finishedCallback, reference: Side = "mri"
    ) -> None:
        super().__init__(ctVolume, mriVolume, {"transform": transform}, False, cancel, finishedCallback, reference)
        self._what = what

    def write(self, result: Result) -> BrainFusionOutcome:
        """Put the CT, or the MRI, where the result has it."""
        self.requireUnmoved()
        ct, mri = self.ctVolume, self.mriVolume
        changed, read = self.changesSince(), self._parentsNow()[1]
        transform = self.move(result, self._what)
        bridge.share_place(transform, self.fixed)
        card = verdict_text.of_result(result, self.movedName)
        prints = self.printsJudged(result, changed, True)
        pose_verdict.store(ct, mri, self.judgement(result, card, prints, read))
        logging.info("BrainFusion: registered without a fusion, %s", self._what)
        return self.outcome(result, transformNode=transform, moved=registered_ct.moved_with(self.moved))


class CheckTask(Task):
    """A check of a pose: it keeps the verdict, and writes nothing else."""

    def __init__(self, ctVolume, mriVolume, poseTransform, cancel, finishedCallback) -> None:
        reference = registered_ct.reference_of_pair(ctVolume, mriVolume)
        super().__init__(ctVolume, mriVolume, {}, False, cancel, finishedCallback, reference)
        self._poseTransform = poseTransform

    def write(self, result: Result) -> BrainFusionOutcome:
        """Keep the verdict, if it is on the pose that is shown; it is about the pair as it was sent."""
        self.requireUnmoved()
        if self._poseTransform is None:
            card = verdict_text.of_check(result)
            verdict = self.judgement(result, card, self._before, self._parentsNow()[1])
            pose_verdict.store(self.ctVolume, self.mriVolume, verdict)
        return self.outcome(result)
