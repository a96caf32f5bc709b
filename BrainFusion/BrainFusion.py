"""The BrainFusion module of 3D Slicer: choose a CT and an MRI of one head, click Fuse, see both in one volume.

Wiring only: the work is done by BrainFusionLib, and MRML is read and written by BrainFusionSlicer. Nothing here
imports torch before it is needed, so the module loads without it.
"""

import importlib.util
import sys
import time
from pathlib import Path

import qt
import slicer
import vtk
from slicer import vtkMRMLLinearTransformNode, vtkMRMLNode, vtkMRMLScalarVolumeNode
from slicer.i18n import tr as _
from slicer.i18n import translate
from slicer.parameterNodeWrapper import parameterNodeWrapper
from slicer.ScriptedLoadableModule import (
    ScriptedLoadableModule,
    ScriptedLoadableModuleWidget,
)
from slicer.util import VTKObservationMixin

HOMEPAGE = "https://github.com/BrainFusion/SlicerBrainFusion"


def makeLibraryImportable() -> None:
    """Add the repository's root to sys.path if BrainFusionLib cannot be imported without it.

    An installed extension has BrainFusionLib beside this file, where Slicer looks. In a source checkout it stands one
    folder higher, where Slicer does not.
    """
    if importlib.util.find_spec("BrainFusionLib") is None:
        sys.path.append(str(Path(__file__).resolve().parent.parent))


def forgetSubmodules() -> None:
    """Have the files of BrainFusionSlicer read again: Slicer's Reload button reads this file alone."""
    for name in [name for name in sys.modules if name.partition(".")[0] == "BrainFusionSlicer"]:
        del sys.modules[name]


makeLibraryImportable()
forgetSubmodules()

from BrainFusionSlicer import (  # noqa: E402
    bridge,
    checks,
    choices,
    dicom_export,
    ownership,
    panel_state,
    progress_text,
    registered_ct,
    remedies,
    review,
    selection,
    torch_setup,
)
from BrainFusionSlicer.logic import BrainFusionOutcome, FusionLogic  # noqa: E402
from BrainFusionSlicer.selftest import BrainFusionTest  # noqa: E402

from BrainFusionLib.errors import Cancelled  # noqa: E402  (needs the lines above)
from BrainFusionLib.fusion.methods import METHODS  # noqa: E402
from BrainFusionLib.settings import FusionSettings, RegistrationSettings, Settings  # noqa: E402

__all__ = ["BrainFusion", "BrainFusionLogic", "BrainFusionOutcome", "BrainFusionTest", "BrainFusionWidget", "bridge"]


class BrainFusion(ScriptedLoadableModule):
    """What Slicer shows of the module before it is opened."""

    def __init__(self, parent):
        ScriptedLoadableModule.__init__(self, parent)
        self.parent.title = _("BrainFusion")
        self.parent.categories = [translate("qSlicerAbstractCoreModule", "Registration")]
        self.parent.dependencies = []
        self.parent.contributors = ["BrainFusion developers (BrainFusion)"]
        self.parent.helpText = _(
            "Registers a CT to an MRI of the same head, whatever their starting poses, and fuses the two into one "
            "volume in the MRI's space. Needs PyTorch, which the PyTorch extension installs. "
            'See the <a href="{homepage}">documentation</a>.<br><br>'
            "For research and planning review, not for diagnosis."
        ).format(homepage=HOMEPAGE)
        self.parent.acknowledgementText = _(
            "Made with 3D Slicer, SimpleITK and PyTorch. If it helped your work, please cite it as described on its "
            '<a href="{homepage}">home page</a>.'
        ).format(homepage=HOMEPAGE)


@parameterNodeWrapper
class BrainFusionParameterNode:
    """The user's choices, saved with the scene.

    ctVolume, mriVolume - The pair, of one head.
    fusedVolume, ctToMriTransform - Where the results go; new nodes if none are chosen.
    alphaVolume, resampledCTVolume - Further results, only if chosen.
    preset, align, rule, device - Settings of BrainFusionLib, by its own names.
    start - The registration: "automatic", "transform" (start from one) or "skip".
    startTransform, mask - Further inputs, if chosen; the mask is the registration mask.
    """

    ctVolume: vtkMRMLScalarVolumeNode
    mriVolume: vtkMRMLScalarVolumeNode
    fusedVolume: vtkMRMLScalarVolumeNode
    ctToMriTransform: vtkMRMLLinearTransformNode
    alphaVolume: vtkMRMLScalarVolumeNode
    resampledCTVolume: vtkMRMLScalarVolumeNode
    preset: str = choices.DEFAULTS["preset"]
    align: str = choices.DEFAULTS["align"]
    rule: str = choices.DEFAULTS["rule"]
    device: str = choices.DEFAULTS["device"]
    start: str = choices.DEFAULTS["start"]
    startTransform: vtkMRMLLinearTransformNode
    mask: vtkMRMLNode


class BrainFusionLogic(FusionLogic):
    """The module without its panel; `BrainFusionSlicer.logic` has it all."""

    def getParameterNode(self):
        return BrainFusionParameterNode(super().getParameterNode())


class BrainFusionWidget(ScriptedLoadableModuleWidget, VTKObservationMixin):
    """The panel."""

    def __init__(self, parent=None) -> None:
        ScriptedLoadableModuleWidget.__init__(self, parent)
        VTKObservationMixin.__init__(self)
        self.logic = None
        self._parameterNode = None
        self._parameterNodeGuiTag = None
        self._outcome = None
        self._suspicion = (None, None)  # the pair that was looked at, and the warning
        self._pair = (None, None)  # ids of the CT and the MRI that the outputs were chosen for
        self._drawn = None  # the choice that is shown
        self._notice = ""  # what happened last, until something else is chosen
        self._watched = []  # the nodes of the pair
        self._permitted = {}  # nodes that the user allowed to be overwritten, by id
        self._began = 0.0

    def setup(self) -> None:
        ScriptedLoadableModuleWidget.setup(self)
        uiWidget = slicer.util.loadUI(self.resourcePath("UI/BrainFusion.ui"))
        self.layout.addWidget(uiWidget)
        self.ui = slicer.util.childWidgetVariables(uiWidget)
        uiWidget.setMRMLScene(slicer.mrmlScene)

        self.logic = BrainFusionLogic()
        self.addObserver(slicer.mrmlScene, slicer.mrmlScene.StartCloseEvent, self.onSceneStartClose)
        self.addObserver(slicer.mrmlScene, slicer.mrmlScene.EndCloseEvent, self.onSceneEndClose)
        self.addObserver(slicer.mrmlScene, slicer.mrmlScene.StartImportEvent, self.onSceneStartImport)
        self.addObserver(slicer.mrmlScene, slicer.mrmlScene.EndImportEvent, self.onSceneEndImport)
        # Before the selectors hear of it (-10), which would choose a neighbour; see `onNodeAboutToBeRemoved`.
        self.addObserver(
            slicer.mrmlScene, slicer.mrmlScene.NodeAboutToBeRemovedEvent, self.onNodeAboutToBeRemoved, priority=0.0
        )
        self.addObserver(slicer.mrmlScene, slicer.mrmlScene.NodeRemovedEvent, self.updatePanel)
        self.fillChoices()
        ui = self.ui
        for selector in (ui.fusedSelector, ui.transformSelector, ui.alphaSelector, ui.resampledSelector):
            # Of the selectors' signals the only one that is a user's: the others are sent for programs, too.
            selector.connect("nodeAddedByUserAction(vtkMRMLNode*)", self.permit)
        ui.overwriteButton.connect("clicked(bool)", self.onOverwriteButton)
        ui.fuseButton.connect("clicked(bool)", self.onFuseButton)
        ui.swapButton.connect("clicked(bool)", self.onSwapButton)
        ui.sampleDataButton.connect("clicked(bool)", self.onSampleDataButton)
        ui.undoButton.connect("clicked(bool)", self.onUndoButton)
        ui.exportButton.connect("clicked(bool)", self.onExportButton)
        ui.fusedCheckBox.connect("toggled(bool)", self.onShowFused)
        ui.opacitySlider.connect("valueChanged(double)", self.onOpacity)
        ui.checkerboardButton.connect("toggled(bool)", self.onCheckerboard)
        ui.showUnregisteredButton.connect("toggled(bool)", self.onShowUnregistered)
        ui.jumpButton.connect("clicked(bool)", self.onJump)
        ui.linkCheckBox.connect("toggled(bool)", review.set_linked)
        # By hand: the wrapper would offer every node of the parameter's type, and a mask is of one of two types.
        ui.maskSelector.connect("currentNodeChanged(vtkMRMLNode*)", self.onMask)
        self.showIdle()
        self.initializeParameterNode()

    def fillChoices(self) -> None:
        """Fill the boxes with choices; the wrapper of parameters knows nothing of words that differ from values."""
        ui, texts = self.ui, choices.choices()
        boxes = {
            "preset": ui.presetComboBox,
            "align": ui.alignComboBox,
            "start": ui.startComboBox,
            "rule": ui.ruleComboBox,
            "device": ui.deviceComboBox,
        }
        self._choices = {name: (box, texts[name]) for name, box in boxes.items()}
        for parameter, (box, words) in self._choices.items():
            for value, text in words.items():
                box.addItem(text, value)
            box.connect("currentIndexChanged(int)", lambda index, name=parameter: self.onChoice(name, index))
        for index, name in enumerate(texts["rule"]):
            ui.ruleComboBox.setItemData(index, _(METHODS[name].description), qt.Qt.ToolTipRole)

    def onChoice(self, parameter: str, index: int) -> None:
        if self._parameterNode and index >= 0:
            setattr(self._parameterNode, parameter, list(self._choices[parameter][1])[index])

    def onMask(self, node) -> None:
        if self._parameterNode:
            self._parameterNode.mask = node

    def cleanup(self) -> None:
        if self.logic:
            self.logic.close()
        self.setParameterNode(None)
        self.removeObservers()

    def enter(self) -> None:
        self.initializeParameterNode()

    def exit(self) -> None:
        # A fusion that is running goes on: its results are shown when the panel is entered again.
        self.setParameterNode(None)

    def onSceneStartClose(self, caller, event) -> None:
        self._outcome = None
        self._pair, self._drawn = (None, None), None
        self._permitted.clear()
        self.setParameterNode(None)

    @vtk.calldata_type(vtk.VTK_OBJECT)
    def onNodeAboutToBeRemoved(self, scene, event, node) -> None:
        """Choose none where the node is chosen: by itself its selector would choose a neighbour, a user's volume."""
        self._permitted.pop(node.GetID(), None)
        if scene.IsClosing() or node.IsA("vtkMRMLScriptedModuleNode"):
            return
        parameters = self._parameterNode or self.logic.getParameterNode()
        if selection.leave_out(parameters, node):
            self._drawn = selection.chosen_ids(parameters)
            self.say(_("{name} was removed from the scene.").format(name=node.GetName()))

    def permit(self, node) -> None:
        """Let a node be overwritten by the next fusion."""
        self._permitted[node.GetID()] = node
        self.updatePanel()

    def onOverwriteButton(self, checked: bool = False) -> None:
        blocked = panel_state.blocked_outputs(self._parameterNode, self._permitted.values())
        if blocked:
            self.permit(blocked[0])

    def onSceneEndClose(self, caller, event) -> None:
        self.showIdle()
        if self.parent.isEntered:
            self.initializeParameterNode()

    # A parameter node keeps what it has read, and a scene brings the nodes that it refers to later: choices that are
    # connected meanwhile are lost.
    def onSceneStartImport(self, caller, event) -> None:
        self.setParameterNode(None)

    def onSceneEndImport(self, caller, event) -> None:
        registered_ct.bring_all_again(slicer.mrmlScene)
        if self.parent.isEntered:
            self.initializeParameterNode()

    def initializeParameterNode(self) -> None:
        parameters = self.logic.getParameterNode()
        note = choices.replace_unknown(parameters)
        self.setParameterNode(parameters)
        if note:
            self.say(note)

    def setParameterNode(self, parameterNode) -> None:
        """Connect the panel to a parameter node, or to none while there is no scene or the panel is not shown."""
        if not parameterNode:
            self.watch([])
            self._pair = (None, None)
        if self._parameterNode:
            self._parameterNode.disconnectGui(self._parameterNodeGuiTag)
            self._parameterNodeGuiTag = None
            self.removeObserver(self._parameterNode, vtk.vtkCommand.ModifiedEvent, self.updatePanel)
        self._parameterNode = parameterNode
        if self._parameterNode:
            # The .ui file names each widget's parameter in the property SlicerParameterName.
            self._parameterNodeGuiTag = self._parameterNode.connectGui(self.ui)
            self.addObserver(self._parameterNode, vtk.vtkCommand.ModifiedEvent, self.updatePanel)
        self.updatePanel()

    def updatePanel(self, caller=None, event=None) -> None:
        """Show what can be done now."""
        ui, parameters = self.ui, self._parameterNode
        if parameters:
            for name, (box, words) in self._choices.items():
                value = getattr(parameters, name)
                box.setCurrentIndex(list(words).index(value) if value in words else 0)
            ui.maskSelector.setCurrentNode(parameters.mask)
            self.followChoice()
        self._state = panel_state.state_of(
            parameters,
            running=self.logic.running,
            notice=self._notice,
            permitted=self._permitted.values(),
            suspicion=self.whatIsSuspicious,
            outcome=self._outcome,
        )
        panel_state.draw(self.ui, self._state)

    def watch(self, nodes: list) -> None:
        """Have the panel updated when one of these nodes changes, and no others; whether it matters is not asked."""
        events = (vtk.vtkCommand.ModifiedEvent, slicer.vtkMRMLTransformableNode.TransformModifiedEvent)
        for node in self._watched:
            for event in events:
                self.removeObserver(node, event, self.updatePanel)
        self._watched = nodes
        for node in nodes:
            for event in events:
                self.addObserver(node, event, self.updatePanel)

    def followChoice(self) -> None:
        """Choose the outputs of a pair that has just been chosen, and forget what was said about another choice."""
        parameters = self._parameterNode
        pair = selection.chosen_ids(parameters)[:2]
        if pair != self._pair:
            self._pair = pair
            # Without doubles: one observer a node. (The same volume may be chosen twice, by mistake.)
            self.watch(list({n.GetID(): n for n in (parameters.ctVolume, parameters.mriVolume) if n}.values()))
            selection.follow_pair(parameters)
        chosen = selection.chosen_ids(parameters)
        if self._drawn not in (None, chosen):
            self._notice = ""
        self._drawn = chosen

    def say(self, text: str) -> None:
        """Show what has happened, until something else is chosen."""
        self.updatePanel()
        self._notice = text
        self.updatePanel()

    def whatIsSuspicious(self) -> str | None:
        pair = self._parameterNode.ctVolume.GetID(), self._parameterNode.mriVolume.GetID()
        if self._suspicion[0] != pair:
            self._suspicion = (
                pair,
                checks.what_is_suspicious(self._parameterNode.ctVolume, self._parameterNode.mriVolume),
            )
        return self._suspicion[1]

    def showIdle(self) -> None:
        self.ui.progressBar.setVisible(False)
        self._notice = torch_setup.hint() or ""
        self.ui.statusLabel.setText(self._notice)

    def onSwapButton(self, checked: bool = False) -> None:
        parameters = self._parameterNode
        ct, mri = parameters.ctVolume, parameters.mriVolume
        with slicer.util.NodeModify(parameters):
            parameters.ctVolume, parameters.mriVolume = mri, ct

    def onSampleDataButton(self, checked: bool = False) -> None:
        with slicer.util.tryWithErrorDisplay(_("The sample data could not be loaded."), waitCursor=True):
            import SampleData

            loaded = {node.GetName(): node for node in SampleData.SampleDataLogic().downloadSamples("CTMRBrain")}
            for name, node in loaded.items():
                if "CT" in name:
                    self._parameterNode.ctVolume = node
                elif "T1" in name:
                    self._parameterNode.mriVolume = node

    def onFuseButton(self, checked: bool = False) -> None:
        if self.logic.running:
            self.logic.cancel()
            return
        try:
            torch_setup.ensure_torch()
            self.startFusion()
        except Exception as error:
            self.showError(error)

    def startFusion(self) -> None:
        parameters = self._parameterNode
        self._outcome = None
        self.resetReview()
        self._began = time.monotonic()
        self.ui.progressBar.setValue(0)
        self.ui.progressBar.setVisible(True)
        self.logic.startFusion(
            parameters.ctVolume,
            parameters.mriVolume,
            parameters.fusedVolume,
            parameters.ctToMriTransform,
            alphaVolume=parameters.alphaVolume,
            resampledCTVolume=parameters.resampledCTVolume,
            settings=Settings(
                # A given pose is used unchanged.
                registration=RegistrationSettings.preset(
                    parameters.preset, align="skull" if parameters.start == "skip" else parameters.align
                ),
                fusion=FusionSettings(rule=parameters.rule),
                device=parameters.device,
            ),
            startTransform=parameters.startTransform if parameters.start == "transform" else None,
            keepAlignment=parameters.start == "skip",
            mask=parameters.mask,
            overwrite=list(self._permitted.values()),
            progressCallback=self.showProgress,
            finishedCallback=self.onFinished,
        )
        self.updatePanel()

    def showProgress(self, stage: str, fraction: float) -> None:
        done = progress_text.fraction_done(stage, fraction)
        self.ui.progressBar.setValue(round(100 * done))
        self.ui.statusLabel.setText(progress_text.words(stage, done, time.monotonic() - self._began))

    def onFinished(self, outcome, error) -> None:
        self.ui.progressBar.setVisible(False)
        if error is not None:
            self.showError(error)
            return
        self._outcome = outcome
        self._permitted.clear()
        # Also while another module is shown: the choice is there when the panel is entered.
        parameters = self._parameterNode or self.logic.getParameterNode()
        if ownership.is_output_of(outcome.fusedVolume, parameters.ctVolume, parameters.mriVolume):
            parameters.fusedVolume = outcome.fusedVolume
            if outcome.transformNode:
                parameters.ctToMriTransform = outcome.transformNode
            if outcome.resampledCTVolume:
                parameters.resampledCTVolume = outcome.resampledCTVolume
            self._drawn = selection.chosen_ids(parameters)
        review.show_fused(outcome.fusedVolume, outcome.fusedVolume.GetNodeReference(ownership.TARGET_MRI_ROLE))
        self.say(_("Fused in {seconds:.0f} s.").format(seconds=outcome.seconds))

    def showError(self, error: Exception) -> None:
        self.ui.progressBar.setVisible(False)
        text = remedies.phrased(error)
        self.say(text if isinstance(error, Cancelled) else _("Not fused: {error}").format(error=text))

    def onUndoButton(self, checked: bool = False) -> None:
        parameters = self._parameterNode
        pair = parameters.ctVolume, parameters.mriVolume
        why_not = self._state.why_not_moved
        self.resetReview()
        if registered_ct.leave_unregistered(*pair):
            review.show_ct_over_mri(*pair, 0.5)
            self.say(_("Undone: the CT is where it was before the registration."))
        else:
            self.say(why_not or "")

    def onExportButton(self, checked: bool = False) -> None:
        folder = qt.QFileDialog.getExistingDirectory(None, _("Folder for the DICOM series"))
        if not folder:
            return
        try:
            files = dicom_export.exportResults(self._parameterNode.fusedVolume, folder)
        except Exception as error:
            self.say(_("Not exported: {error}").format(error=remedies.phrased(error)))
        else:
            text = _("{count} DICOM files were written to {folder}; derived, not for diagnosis.")
            self.say(text.format(count=len(files), folder=folder))

    def resetReview(self) -> None:
        """Put the review tools back to how they are after a fusion."""
        for button in (self.ui.checkerboardButton, self.ui.showUnregisteredButton):
            button.setChecked(False)
        self.ui.fusedCheckBox.setChecked(True)

    def onShowFused(self, shown: bool) -> None:
        parameters = self._parameterNode
        if not parameters or not parameters.fusedVolume or not parameters.mriVolume:
            return
        if shown:
            review.show_fused(parameters.fusedVolume, parameters.mriVolume)
        else:
            review.show_ct_over_mri(parameters.ctVolume, parameters.mriVolume, self.ui.opacitySlider.value)

    def onOpacity(self, opacity: float) -> None:
        parameters = self._parameterNode
        if parameters and parameters.ctVolume and parameters.mriVolume:
            self.ui.fusedCheckBox.setChecked(False)
            review.show_ct_over_mri(parameters.ctVolume, parameters.mriVolume, opacity)

    def onCheckerboard(self, shown: bool) -> None:
        parameters = self._parameterNode
        if not parameters or not parameters.fusedVolume:
            return
        if shown and self._outcome:
            review.show_checkerboard(parameters.fusedVolume, parameters.mriVolume, self._outcome.result)
        else:
            review.remove_checkerboard(parameters.fusedVolume)
            self.onShowFused(self.ui.fusedCheckBox.checked)

    def onShowUnregistered(self, shown: bool) -> None:
        parameters = self._parameterNode
        if not parameters or not parameters.ctVolume:
            return
        if shown and registered_ct.take_back(parameters.ctVolume, to_look=True):
            self.ui.fusedCheckBox.setChecked(False)
        elif not shown:
            registered_ct.bring_again(parameters.ctVolume, parameters.mriVolume)
        self.updatePanel()

    def onJump(self, checked: bool = False) -> None:
        if self._state.worst_mri_mm is not None:
            review.jump_to(bridge.world_from_mri_frame(self._state.worst_mri_mm, self._parameterNode.mriVolume))
