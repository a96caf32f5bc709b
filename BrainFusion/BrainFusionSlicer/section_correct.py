"""The panel's section "Check and correct": adjust a pose, check it, refine it; and *Register only* beside Fuse."""

from __future__ import annotations

import qt
import slicer
import vtk
from slicer.i18n import tr as _

from BrainFusionLib.errors import Cancelled
from BrainFusionLib.quantities import length
from BrainFusionSlicer import (
    adjusting,
    bridge,
    checks,
    departing,
    fingerprint,
    ownership,
    panel_state,
    pose_files,
    registered_ct,
    remedies,
    selection,
    torch_setup,
    verdict_text,
)
from BrainFusionSlicer.choices import Start
from BrainFusionSlicer.registered_ct import Standing
from BrainFusionSlicer.review import View
from BrainFusionSlicer.section import Section
from BrainFusionSlicer.watching import Watched


class CorrectSection(Section):
    """The buttons Adjust, Check, Refine and Register only."""

    UI = "SectionCorrect"

    def setup(self) -> None:
        ui = self.panel.ui
        self._adjusting = None  # the transform whose handles are shown
        self._pose, self._watched = None, Watched()  # the transform from elsewhere that is to be checked
        self._judged = None  # the card of such a transform, and what it is about
        ui.adjustButton.connect("toggled(bool)", self.onAdjust)
        ui.checkButton.connect("clicked(bool)", self.onCheck)
        ui.refineButton.connect("clicked(bool)", self.onRefine)
        ui.registerButton.connect("clicked(bool)", self.onRegister)
        ui.openPoseButton.connect("clicked(bool)", self.onOpenPose)
        ui.poseSelector.connect("currentNodeChanged(vtkMRMLNode*)", self.onPoseChosen)
        scene = slicer.mrmlScene
        # Before the selectors hear of it (-10), which would choose a neighbour.
        self.panel.addObserver(scene, scene.NodeAboutToBeRemovedEvent, self.onNodeAboutToBeRemoved, priority=0.0)

    # ---- by hand ----------------------------------------------------------------------------------------------------

    def onAdjust(self, on: bool) -> None:
        if self._isShowing:
            return
        panel = self.panel
        if not on:
            self.endAdjusting()
            panel.updatePanel()
            return
        if self.whyNotAdjustable() is None:
            if panel._state.standing is Standing.SHOWN_UNREGISTERED:
                registered_ct.bring_again(*self.pair())
            self._adjusting = self.ours()
            adjusting.begin(self._adjusting, self.pair()[0])
            panel.updatePanel()
            if View.CT not in panel._state.not_viewable:  # the fused volume does not move
                panel.showView(View.CT)
        panel.updatePanel()

    def ours(self):
        """Return the transform that the last result of the pair has put one of the two under, or None."""
        pair = self.pair()
        return None if None in pair else registered_ct.result_transform_of(registered_ct.moved_of_pair(*pair))

    def endAdjusting(self) -> None:
        transform, self._adjusting = self._adjusting, None
        if transform is not None and transform.GetScene() is not None:
            adjusting.end(transform)

    def whyNotAdjustable(self) -> str | None:
        """Say why the pose cannot be adjusted by hand, or return None."""
        panel, state = self.panel, self.panel._state
        if panel.logic.running:
            return _("A fusion is running")
        if state.standing in (Standing.REGISTERED, Standing.SHOWN_UNREGISTERED, Standing.HOMELESS):
            return None
        return state.why_not_moved or _("Register first: the handles move the transform of the result")

    # ---- jobs -------------------------------------------------------------------------------------------------------

    def onCheck(self, checked: bool = False) -> None:
        self.panel.takeUpSelectors()
        ct, mri = self.pair()
        pose = self._pose
        about = None if pose is None else (pose, _about(pose, ct, mri))
        self.run(
            lambda **calls: self.panel.logic.startCheck(ct, mri, pose, **self.common(), **calls),
            lambda outcome: self.onChecked(outcome, about),
        )

    def onRefine(self, checked: bool = False) -> None:
        self.panel.takeUpSelectors()
        ct, mri = self.pair()
        mask = self.panel._parameterNode.mask
        self.run(
            lambda **calls: self.panel.logic.startRefinement(ct, mri, mask=mask, **self.common(), **calls),
            self.onRegistered,
        )

    def onRegister(self, checked: bool = False) -> None:
        self.panel.takeUpSelectors()
        panel, (ct, mri) = self.panel, self.pair()
        self.run(
            lambda **calls: panel.logic.startRegistration(
                ct,
                mri,
                panel.chosenTransform(),
                settings=panel.chosenSettings(),
                overwrite=panel._permitted.nodes(),
                **panel.chosenStart(),
                **calls,
            ),
            self.onRegistered,
        )

    def common(self):
        """Return the choices that every job takes, as arguments of the logic."""
        return {"settings": self.panel.chosenSettings(), "landmarks": self.panel.chosenLandmarks()}

    def run(self, start, done) -> None:
        """Start a job of the logic, as Fuse does."""
        panel = self.panel
        if panel.logic.running or None in self.pair():
            return
        for section in panel.sections:  # nobody moves the CT or places points meanwhile
            section.put_away()
        try:
            torch_setup.ensure_torch(panel.chosenSettings().device)
            if panel._state.standing is Standing.SHOWN_UNREGISTERED:
                registered_ct.bring_again(*self.pair())
                panel.leaveView()
            panel.beginProgress()
            start(
                progressCallback=panel.showProgress,
                finishedCallback=lambda outcome, error: self.onFinished(outcome, error, done),
            )
        except Exception as error:
            self.showError(error)
        panel.updatePanel()

    def onFinished(self, outcome, error, done) -> None:
        self.panel.ui.progressBar.setVisible(False)
        if error is not None:
            self.showError(error)
        else:
            done(outcome)

    def showError(self, error: Exception) -> None:
        self.panel.ui.progressBar.setVisible(False)
        text = remedies.phrased(error)
        self.panel.say(text if isinstance(error, Cancelled) else _("Not done: {error}").format(error=text))

    def onChecked(self, outcome, about) -> None:
        if about is not None:
            card = verdict_text.of_check(outcome.result, about[0].GetName() or "")
            self._judged = (card, *about)
        self.panel.say(_("Checked in {seconds:.0f} s; nothing was moved.").format(seconds=outcome.seconds))

    def onRegistered(self, outcome) -> None:
        panel = self.panel
        # Also while another module is shown: the choice is there when the panel is entered.
        parameters = panel._parameterNode or panel.logic.getParameterNode()
        inputs = tuple(outcome.transformNode.GetNodeReference(role) for role in ownership.INPUT_ROLES)
        panel._permitted.withdraw(outcome.transformNode)
        is_chosen = (parameters.ctVolume, parameters.mriVolume) == inputs
        if is_chosen:
            parameters.ctToMriTransform = outcome.transformNode
            panel._drawn = selection.chosen_ids(parameters)
        words = [_("Registered in {seconds:.0f} s.").format(seconds=outcome.seconds)]
        if outcome.moved:
            words.append(_("Moved with the {volume}: {count}.").format(volume=outcome.movedName, count=outcome.moved))
        words += [_("{reason}: it was kept, and a new one was made.").format(reason=why) for why in outcome.kept]
        panel.say(" ".join(words))
        if is_chosen and panel._parameterNode and View.CT not in panel._state.not_viewable:
            panel.showView(View.CT)

    # ---- a pose from elsewhere --------------------------------------------------------------------------------------

    def onPoseChosen(self, node) -> None:
        if self._isShowing or node == self._pose:  # only its name is another one
            return
        self._watch(node)
        self._judged = None
        self.update()

    def onOpenPose(self, checked: bool = False) -> None:
        """Read a pose of another program from a file, and choose it."""
        panel, (ct, mri) = self.panel, self.pair()
        if self._whatIsMissing() is not None:
            return
        words = _("Transforms ({pattern})").format(pattern=pose_files.PATTERN)
        first = str(departing.folder_beside(mri))
        path = qt.QFileDialog.getOpenFileName(
            None, _("Pose of the CT on the MRI"), first, f"{words};;{_('All files')} (*)"
        )
        if not path:
            return
        try:
            node = pose_files.load(path, ct, mri)
        except Exception as error:
            panel.say(_("Not read: {error}").format(error=remedies.phrased(error)))
            return
        panel.ui.poseSelector.setCurrentNode(node)
        panel.say(_("{name} was read: click Check to judge it. Nothing was moved.").format(name=node.GetName()))

    def _watch(self, node) -> None:
        """Choose a transform, and hear of its changes: a verdict on it is stale then."""
        self._pose = node
        event = slicer.vtkMRMLTransformableNode.TransformModifiedEvent
        self._watched.only([] if node is None else [(node, event, self.onPoseModified)])

    def onPoseModified(self, caller, event) -> None:
        self._show_words()

    @vtk.calldata_type(vtk.VTK_OBJECT)
    def onNodeAboutToBeRemoved(self, scene, event, node) -> None:
        if node == self._adjusting:
            self._adjusting = None
        if scene.IsClosing() or self._pose is None or node != self._pose:
            return
        self._watch(None)
        self._judged = None
        self._quietly(lambda: self.panel.ui.poseSelector.setCurrentNode(None))

    # ---- what is shown ----------------------------------------------------------------------------------------------

    def update(self) -> None:
        panel, ui = self.panel, self.panel.ui
        running = panel.logic.running
        ct, ours = self.pair()[0], self.ours()
        if self._adjusting is not None and (running or ours != self._adjusting):
            self.endAdjusting()
        if self._adjusting is None and adjusting.is_on(ours):  # a scene that was saved meanwhile
            adjusting.end(ours)
        missing = self._whatIsMissing()
        why_not = missing or self.whyNotAdjustable()
        fixed = missing or bridge.why_not_moved_alone(ct)
        tips = {
            ui.adjustButton: (
                why_not,
                _("Show handles to shift and rotate the {volume} in the slice and 3D views").format(
                    volume=panel._state.moved
                ),
            ),
            ui.checkButton: (missing, _("Judge the pose as it stands; nothing is moved")),
            ui.refineButton: (fixed, _("Register from the pose shown, within 20 mm and 15 degrees, and judge it")),
            ui.registerButton: (
                fixed or self._whyNotRegistered(),
                _("Register the CT to the MRI without fusing them; no volume is written"),
            ),
        }
        for button, (reason, tip) in tips.items():
            button.setEnabled(reason is None)
            button.setToolTip(reason or tip)
        ui.poseSelector.setEnabled(not running)
        ui.openPoseButton.setEnabled(missing is None)
        self._quietly(lambda: ui.adjustButton.setChecked(self._adjusting is not None))
        self._show_words()

    def put_away(self) -> None:
        self.endAdjusting()

    def forget(self) -> None:
        self._adjusting = self._judged = None
        self._watch(None)

    def _whatIsMissing(self) -> str | None:
        if self.panel.logic.running:
            return _("A fusion is running")
        ct, mri = self.pair()
        if ct is None or mri is None or ct == mri:
            return _("Choose a CT and an MRI")
        return checks.why_not_read(ct) or checks.why_not_read(mri)

    def _whyNotRegistered(self) -> str | None:
        parameters = self.panel._parameterNode
        if parameters.start is Start.skip:
            return _("Choose Registration: Automatic, or click Check")
        missing = checks.what_is_missing(parameters)
        if missing is not None:
            return missing
        transform = parameters.ctToMriTransform
        if transform in panel_state.blocked_outputs(parameters, self.panel._permitted.nodes()):
            return panel_state.why_blocked(transform)
        return None

    def _show_words(self) -> None:
        ui = self.panel.ui
        words = ""
        if self._adjusting is not None:
            mm, degrees = adjusting.moved(self._adjusting)
            words = _("Adjusted by {mm} and {degrees:.1f}°. Then click Check or Refine; Undo takes it back.").format(
                mm=length(mm) if mm >= 0.01 else "0 mm", degrees=degrees
            )
        ui.correctLabel.setText(words)
        ui.correctLabel.setVisible(bool(words))
        card = self._card()
        colour, letters = panel_state.COLOURS["none" if card is None else card.colour]
        ui.poseVerdictLabel.setStyleSheet(
            f"background-color: {colour}; color: {letters}; font-weight: bold; padding: 3px;"
        )
        ui.poseVerdictLabel.setText("" if card is None else card.heading)
        ui.poseVerdictLabel.setVisible(card is not None)
        ui.poseFindingsLabel.setText("" if card is None else "\n".join(filter(None, (card.error, *card.findings))))
        ui.poseFindingsLabel.setVisible(card is not None)

    def _card(self):
        """Return what is said of the pose from elsewhere, or None; it is stale if the pose or the pair has changed."""
        if self._judged is None or self._pose is None or self.panel.logic.running:
            return None
        card, pose, about = self._judged
        ct, mri = self.pair()
        if pose != self._pose or ct is None or mri is None or about[0] != (ct.GetID(), mri.GetID()):
            return None
        now = _about(pose, ct, mri)
        if about[1] == now[1] and fingerprint.is_same_place(about[2], now[2]):
            return card
        return verdict_text.of_changes([_("{name} or a volume was changed.").format(name=pose.GetName())])


def _about(pose, ct, mri) -> tuple:
    """Return what a verdict on a transform is about: the pair, its voxels, and all places."""
    points, above = fingerprint.own_points(mri), registered_ct.parents_as_read(ct, mri)
    places = [
        *(mm for at in zip((ct, mri), above, strict=True) for mm in fingerprint.place_of(*at)),
        *fingerprint.through(pose, points),
    ]
    voxels = tuple(fingerprint.fingerprint_of(node).voxels for node in (ct, mri))
    return (ct.GetID(), mri.GetID()), voxels, tuple(places)
