"""The module without its panel: from nodes to nodes. Opens no dialog, and can be used from scripts."""

from __future__ import annotations

import logging
import shutil
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import slicer
import slicer.util
from slicer.i18n import tr as _
from slicer.ScriptedLoadableModule import ScriptedLoadableModuleLogic

import BrainFusionLib
from BrainFusionLib.case import Request, Result, Source
from BrainFusionLib.errors import Cancelled, GeometryError, SettingsError
from BrainFusionLib.settings import Settings, Side
from BrainFusionLib.transform import RigidTransform
from BrainFusionSlicer import (
    acquired,
    bridge,
    dicom_export,
    landmark_lists,
    masks,
    permission,
    registered_ct,
    report_export,
    torch_setup,
)
from BrainFusionSlicer.jobs import RawInputs, ShapesOrder
from BrainFusionSlicer.runner import InProcessRunner, ProcessRunner, Runner
from BrainFusionSlicer.task import BrainFusionOutcome, Task

TICK_MS = 30


class QtTicker:
    """Calls a function from Qt's event loop, `TICK_MS` apart."""

    def __init__(self) -> None:
        import qt

        self._timer = qt.QTimer()
        self._timer.setInterval(TICK_MS)
        self._timer.connect("timeout()", self._tick)
        self._call: Callable[[], None] | None = None

    def start(self, call: Callable[[], None]) -> None:
        self._call = call
        self._timer.start()

    def stop(self) -> None:
        self._timer.stop()

    def _tick(self) -> None:
        if self._call is not None:
            self._call()


def requested(
    ctVolume,
    mriVolume,
    *,
    settings: Settings | None = None,
    mask=None,
    landmarks=None,
    reference: Side | None = None,
    as_shown: bool = False,
) -> tuple[Request, RawInputs]:
    """Return a request for a pair of nodes, and the pair's voxels.

    :param reference: the volume that is to stay where it is; that of the pair's last result if None
    :param as_shown: whether an earlier result's transform counts like any other
    :raises BrainFusionError: a node cannot be used; says why
    :raises MissingDependencyError: torch is not installed
    """
    torch_setup.require_torch((settings or Settings()).device)
    above = registered_ct.parents_as_read(ctVolume, mriVolume, reference, as_shown)
    rawInputs = RawInputs(
        ct=acquired.with_acquisition(bridge.raw_under(ctVolume, above[0]), ctVolume),
        mri=acquired.with_acquisition(bridge.raw_under(mriVolume, above[1]), mriVolume),
        mri_mask=None if mask is None else masks.mask_from_node(mask, mriVolume, above[1]),
    )
    request = Request(
        ct=Source(rawInputs.ct.name),
        mri=Source(rawInputs.mri.name),
        mri_mask=None if rawInputs.mri_mask is None else Source(rawInputs.mri_mask.name),
        settings=settings or Settings(),
        landmarks=None if landmarks is None else landmark_lists.as_read(landmarks, ctVolume, mriVolume, above),
    )
    return request, rawInputs


def requireMovable(ctVolume, mriVolume, reference: Side, transform=None, moves: bool = True) -> None:
    """Refuse a pair of which one cannot be moved onto the other, and a transform that moves something else.

    :param moves: whether it is to be moved at all
    :raises GeometryError: it cannot be moved
    :raises SettingsError: the transform moves something else
    """
    why_not = (bridge.why_not_onto if moves else bridge.why_not_reference)(ctVolume, mriVolume, reference)
    if why_not is not None:
        raise GeometryError(f"{why_not}.")
    moved = mriVolume if reference == "ct" else ctVolume
    if transform is not None and (other := bridge.carried_by(transform, moved)) is not None:
        raise SettingsError(
            _("{transform} moves {other}: choose another output transform, or a new one.").format(
                transform=transform.GetName(), other=other.GetName()
            )
        )


def make_runner() -> Runner:
    """Return a worker process where there is a window to be kept alive, and else this process."""
    python = shutil.which("PythonSlicer")
    if slicer.util.mainWindow() is None or python is None:
        return InProcessRunner()
    return ProcessRunner([python], Path(BrainFusionLib.__file__).resolve().parent.parent, QtTicker())


class FusionLogic(ScriptedLoadableModuleLogic):
    """Registers a CT node to an MRI node, and fuses them.

    :param runner: where the work is done; None for a worker process if Slicer has a window, else this process
    """

    def __init__(self, runner: Runner | None = None) -> None:
        ScriptedLoadableModuleLogic.__init__(self)
        self._runner = runner
        self._task: Task | None = None
        self._isExporting = False
        self.notes: list[str] = []  # what a scene brought that had to be replaced

    @property
    def running(self) -> bool:
        """Whether a fusion or an export is running."""
        return self._task is not None or self._isExporting

    def startFusion(
        self,
        ctVolume,
        mriVolume,
        fusedVolume=None,
        transform=None,
        *,
        alphaVolume=None,
        resampledCTVolume=None,
        settings: Settings | None = None,
        startTransform=None,
        keepAlignment: bool = False,
        check: bool = True,
        mask=None,
        landmarks: tuple | None = None,
        startFromLandmarks: bool = False,
        overwrite: Sequence = (),
        progressCallback: Callable[[str, float], None] | None = None,
        finishedCallback: Callable[[BrainFusionOutcome | None, Exception | None], None] | None = None,
    ) -> None:
        """Start to register the CT to the MRI and to fuse them; return at once where there is a worker process.

        The voxels and geometry of the inputs are not changed. The CT is put under a linear transform, ``CT to MRI``,
        that moves it onto the MRI; running again replaces it. (A CT under a transform that is not linear stays where it
        is: the result is the resampled CT then, and a transform that it is not under.) With the CT as reference in
        ``settings.output`` it is the MRI that is put onto the CT, by ``MRI to CT``, and the results are in the CT's
        frame.

        :param ctVolume: CT in Hounsfield units; under any transforms
        :param mriVolume: MRI of the same head; under any transforms
        An output that is given must be one that an earlier fusion of this CT and this MRI made, or be named in
        `overwrite`, too.

        :param fusedVolume: overwritten with the result, in world coordinates; a new volume if None
        :param transform: linear transform node to write to; this pair's earlier one or a new one if None
        :param alphaVolume: gets the weight of the CT, 0 to 1; True for a new volume, None for none
        :param resampledCTVolume: gets the CT on the grid of the result (with the CT as reference the MRI); True for a
            new volume, None for none
        :param settings: BrainFusionLib's; the default ones if None
        :param startTransform: linear transform node, CT to MRI, to try as starting pose besides all others
        :param keepAlignment: skip the registration: fuse the two as they are in the scene
        :param check: if the registration is skipped, whether one says how far the alignment is from what it finds
        :param mask: registration mask: label map or segmentation of the MRI, where the alignment matters most
        :param landmarks: the same points in both images, to measure the pose by: two point lists (markups), that of the
            CT and that of the MRI, each under the same transform as its volume; they do not move the pose
        :param startFromLandmarks: whether the rigid fit of the landmarks is the starting pose
        :param overwrite: nodes that may be overwritten, though they are not outputs of this CT and this MRI
        :param progressCallback: called with a stage's name and the fraction done, 0 to 1
        :param finishedCallback: called once with the outcome and None, or with None and the error
        :raises SettingsError: the choice makes no sense, an output must not be overwritten, or a fusion is running
        :raises BrainFusionError: an input cannot be used; says why
        :raises MissingDependencyError: a graphics card was chosen, and torch is not installed
        """
        self._requirePair(ctVolume, mriVolume)
        inputs = [node for node in (ctVolume, mriVolume, startTransform, mask) if node is not None]
        outputs = [
            n for n in (fusedVolume, transform, alphaVolume, resampledCTVolume) if n is not None and n is not True
        ]
        if any(output in inputs for output in outputs) or len({node.GetID() for node in outputs}) < len(outputs):
            raise SettingsError(
                _(
                    "An output must not be one of the inputs, which are never changed, nor another output: choose "
                    "another one, or a new one."
                )
            )
        permission.require_permission(outputs, ctVolume, mriVolume, overwrite)
        reference = (settings or Settings()).output.reference
        requireMovable(ctVolume, mriVolume, reference, transform, moves=not keepAlignment)
        if startFromLandmarks and (landmarks is None or startTransform is not None or keepAlignment):
            raise SettingsError(_("A start from landmarks needs landmarks, and no other start."))
        request, rawInputs = requested(
            ctVolume,
            mriVolume,
            settings=settings,
            mask=mask,
            landmarks=landmarks,
            reference=reference,
            as_shown=keepAlignment,
        )
        start = None if startTransform is None else bridge.start_from_node(startTransform)
        if startFromLandmarks:
            start = request.landmarks.rigid_fit()
        given = RigidTransform.identity() if keepAlignment else None
        request = replace(request, start=start, given=given, check=check)
        logging.info("BrainFusion: fusing a CT and an MRI")
        outputsByRole = {"fused": fusedVolume, "transform": transform, "alpha": alphaVolume, "ct": resampledCTVolume}
        task = Task(ctVolume, mriVolume, outputsByRole, keepAlignment, self.cancel, finishedCallback, reference)
        self._begin(task, request, rawInputs, progressCallback)

    def _begin(self, task: Task, request: Request, rawInputs: RawInputs, progressCallback) -> None:
        """Hand a job to the runner."""
        self._task = task
        if self._runner is None:
            self._runner = make_runner()
        try:
            self._runner.run(request, rawInputs, progressCallback or _say_nothing, self._finished)
        except Exception:
            self._forget()
            raise

    def startExport(
        self,
        results,
        folder,
        *,
        exportAnyway: bool = False,
        progressCallback: Callable[[str, float], None] | None = None,
        finishedCallback: Callable[[tuple[str, ...] | None, Exception | None], None] | None = None,
    ) -> None:
        """Start to write the fused volume, the registered CT, the pose and the bone as DICOM; return at once.

        :param results: the fused volume node, or the outcome that it is part of
        :param folder: is there, and holds nothing called ``fused``, ``ct_in_mri``, ``registration.dcm`` or ``bone.dcm``
        :param exportAnyway: also what is red, or was changed since it was judged; each object then says so
        :param progressCallback: called with a stage's name and the fraction done, 0 to 1
        :param finishedCallback: called once with the files and None, or with None and the error
        :raises BrainFusionError: it cannot be exported; says why
        """
        self._requireFree()
        self._startWriting(*dicom_export.orderFor(results, folder, exportAnyway), progressCallback, finishedCallback)

    def startReport(self, results, path, *, progressCallback=None, finishedCallback=None) -> None:
        """Start to write the report of a fused volume as one page; return at once.

        :param results: the fused volume node, or the outcome that it is part of
        :param path: where to write; replaced if it is there
        :param progressCallback: called with a stage's name and the fraction done, 0 to 1
        :param finishedCallback: called once with the files, which is one, and None, or with None and the error
        :raises BrainFusionError: it cannot be made; says why
        """
        self._requireFree()
        self._startWriting(*report_export.order_for(results, path), progressCallback, finishedCallback)

    def startThreeD(self, asked, *, progressCallback=None, finishedCallback=None) -> None:
        """Start to find skull and brain of a pair, to be shown in 3D; return at once.

        :param asked: the pair, `three_d.Asked`
        :param progressCallback: called with a stage's name and the fraction done, 0 to 1
        :param finishedCallback: called once with what was found (`jobs.Shapes`) and None, or with None and the error
        :raises BrainFusionError: a volume cannot be used; says why
        """
        self._requireFree()
        self._startWriting(ShapesOrder(), asked.inputs, progressCallback, finishedCallback)

    def _requireFree(self) -> None:
        if self.running:
            raise SettingsError(_("A fusion is running: wait for it to finish, or cancel it first."))

    def _requirePair(self, ctVolume, mriVolume) -> None:
        self._requireFree()
        if ctVolume is None or mriVolume is None or ctVolume == mriVolume:
            raise SettingsError(_("Choose a CT and an MRI: two different volumes."))

    def _startWriting(self, order, inputs, progressCallback, finishedCallback) -> None:
        """Hand an export to the runner."""
        if self._runner is None:
            self._runner = make_runner()

        def ended(files: tuple[str, ...] | None, problem: Exception | None) -> None:
            self._isExporting = False
            if finishedCallback is not None:
                finishedCallback(files, problem)

        self._isExporting = True
        try:
            self._runner.export(order, inputs, progressCallback or _say_nothing, ended)
        except Exception:
            self._isExporting = False
            raise

    def warmUp(self) -> None:
        """Start the worker process, if the work is done by one, so that the first fusion does not wait for it."""
        if self._runner is None:
            self._runner = make_runner()
        self._runner.warm_up()

    def cancel(self) -> None:
        """End the fusion that is running, if there is one; its finishedCallback gets Cancelled."""
        if self._runner is not None:
            self._runner.cancel()

    def close(self) -> None:
        """Cancel, and end the worker process; the next fusion starts a new one."""
        if self._runner is not None:
            self._runner.close()

    def process(
        self,
        ctVolume,
        mriVolume,
        fusedVolume=None,
        transform=None,
        *,
        progressCallback: Callable[[str, float], None] | None = None,
        cancelled: Callable[[], bool] | None = None,
        **options,
    ) -> BrainFusionOutcome:
        """Register and fuse, and return when it is done; meanwhile the window stays alive.

        Takes the nodes and options of `startFusion`.

        :param cancelled: called without arguments some times a second; processing ends when it returns True
        :raises BrainFusionError: the inputs cannot be used, no pose was found, or it was cancelled; says why
        """
        ended: list[tuple[BrainFusionOutcome | None, Exception | None]] = []

        def progress(stage: str, fraction: float) -> None:
            if progressCallback is not None:
                progressCallback(stage, fraction)
            if cancelled is not None and cancelled():
                self.cancel()

        self.startFusion(
            ctVolume,
            mriVolume,
            fusedVolume,
            transform,
            progressCallback=progress,
            finishedCallback=lambda *result: ended.append(result),
            **options,
        )
        while not ended:
            slicer.app.processEvents()
            if cancelled is not None and cancelled():
                self.cancel()
            time.sleep(0.01)
        outcome, error = ended[0]
        if error is not None:
            raise error
        assert outcome is not None
        return outcome

    def undo(self, volume) -> bool:
        """Take a CT (or an MRI that was put onto a CT) back to where it was before; say whether it had been moved."""
        return registered_ct.take_back(volume)

    def redo(self, ctVolume, mriVolume) -> bool:
        """Put the one onto the other again, by the transform of their last result; say whether there is one."""
        return registered_ct.bring_again(ctVolume, mriVolume)

    def _finished(self, result: Result | None, problem: Exception | None) -> None:
        task = self._forget()
        outcome = None
        if problem is None:
            try:
                assert result is not None
                outcome = task.write(result)
                logging.info("BrainFusion: done, the CT was %s", outcome.movement)
            except Exception as error:
                problem = error
        elif task.removed and isinstance(problem, Cancelled):
            problem = Cancelled(_("A volume was removed from the scene while it was being fused; nothing was written."))
        if task.finishedCallback is not None:
            task.finishedCallback(outcome, problem)

    def _forget(self) -> Task:
        task, self._task = self._task, None
        assert task is not None
        task.unobserve()
        return task


def _say_nothing(stage: str, fraction: float) -> None:
    """Stand for a progress callback that was not given."""
