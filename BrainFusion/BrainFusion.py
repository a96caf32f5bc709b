"""The BrainFusion module of 3D Slicer: choose a CT and an MRI of one head, click Fuse, see both in one volume.

Wiring only: the work is done by BrainFusionLib, and MRML is read and written by BrainFusionSlicer. Nothing here
imports torch, which only a graphics card needs.
"""

import importlib.util
import sys
import typing
from dataclasses import replace
from pathlib import Path

import qt
import slicer
import vtk
from slicer import (
    vtkMRMLLabelMapVolumeNode,
    vtkMRMLLinearTransformNode,
    vtkMRMLScalarVolumeNode,
    vtkMRMLSegmentationNode,
)
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


makeLibraryImportable()  # at file scope, because the imports below need it
forgetSubmodules()

from BrainFusionSlicer import (  # noqa: E402
    bridge,
    candidates,
    choices,
    dicom_export,
    ownership,
    panel_state,
    permission,
    registered_ct,
    remedies,
    review,
    sample,
    selection,
    torch_setup,
)
from BrainFusionSlicer.choices import Align, Device, Preset, Rule, Start  # noqa: E402
from BrainFusionSlicer.panel_fusing import FusingControls  # noqa: E402
from BrainFusionSlicer.panel_review import ReviewControls  # noqa: E402
from BrainFusionSlicer.posing import PosingLogic  # noqa: E402
from BrainFusionSlicer.registered_ct import Standing  # noqa: E402
from BrainFusionSlicer.review import View  # noqa: E402
from BrainFusionSlicer.sections import add_sections  # noqa: E402
from BrainFusionSlicer.selftest import BrainFusionTest  # noqa: E402
from BrainFusionSlicer.task import BrainFusionOutcome  # noqa: E402
from BrainFusionSlicer.watching import Watched  # noqa: E402

from BrainFusionLib.fusion.methods import METHODS  # noqa: E402

__all__ = [
    "BrainFusion",
    "BrainFusionLogic",
    "BrainFusionOutcome",
    "BrainFusionTest",
    "BrainFusionWidget",
    "bridge",
    "dicom_export",
    "remedies",
    "torch_setup",
]


class BrainFusion(ScriptedLoadableModule):
    """What Slicer shows of the module before it is opened."""

    def __init__(self, parent):
        ScriptedLoadableModule.__init__(self, parent)
        self.parent.title = _("BrainFusion")
        self.parent.categories = [translate("qSlicerAbstractCoreModule", "Registration")]
        self.parent.contributors = ["BrainFusion contributors (BrainFusion)"]
        self.parent.helpText = _(
            "Registers a CT to an MRI of the same head, whatever their starting poses, and fuses the two into one "
            "volume in the MRI's space. Nothing else is needed; PyTorch only for graphics cards. "
            'See the <a href="{homepage}">documentation</a>.<br><br>'
            "For research and planning review, not for diagnosis."
        ).format(homepage=HOMEPAGE)
        self.parent.acknowledgementText = _(
            "Made with 3D Slicer and SimpleITK. If it helped your work, please cite it as described on its "
            '<a href="{homepage}">home page</a>.'
        ).format(homepage=HOMEPAGE)
        sample.register_when_started()


@parameterNodeWrapper
class BrainFusionParameterNode:
    """The user's choices, saved with the scene.

    ctVolume, mriVolume - The pair, of one head.
    fusedVolume, ctToMriTransform - Where the results go; new nodes if none are chosen.
    alphaVolume, resampledCTVolume - Further results, only if chosen.
    preset, align, rule, device - Settings of BrainFusionLib.
    start - The registration: automatic, start from a transform, or skip.
    startTransform, mask - Further inputs, if chosen; the mask is the registration mask.
    """

    ctVolume: vtkMRMLScalarVolumeNode
    mriVolume: vtkMRMLScalarVolumeNode
    fusedVolume: vtkMRMLScalarVolumeNode
    ctToMriTransform: vtkMRMLLinearTransformNode
    alphaVolume: vtkMRMLScalarVolumeNode
    resampledCTVolume: vtkMRMLScalarVolumeNode
    preset: Preset
    align: Align
    rule: Rule
    device: Device
    start: Start
    startTransform: vtkMRMLLinearTransformNode
    mask: typing.Union[vtkMRMLSegmentationNode, vtkMRMLLabelMapVolumeNode, None]  # noqa: UP007  (as Slicer wants it)


class BrainFusionLogic(PosingLogic):
    """The module without its panel; `BrainFusionSlicer.logic` and `posing` have it all."""

    def getParameterNode(self):
        node = super().getParameterNode()
        note = choices.replace_unknown(node)  # the wrapper would raise
        parameters = BrainFusionParameterNode(node)
        if note:
            self.notes.append(note)
        return parameters


class BrainFusionWidget(FusingControls, ReviewControls, ScriptedLoadableModuleWidget, VTKObservationMixin):
    """The panel."""

    def __init__(self, parent=None) -> None:
        ScriptedLoadableModuleWidget.__init__(self, parent)
        VTKObservationMixin.__init__(self)
        self.logic, self.sections = None, []  # the latter: the panel's further parts
        self._parameterNode = self._parameterNodeGuiTag = None
        self._unseen = None  # the fused volume of the last fusion, until it has been shown
        self._pair = (None, None)  # ids of the CT and the MRI that the outputs were chosen for
        self._drawn = None  # the choice that is shown
        self._notice = ""  # what happened last, until something else is chosen, or the verdict stale
        self._saidOf = ()  # the card beside which that was said first
        self._watched = Watched()  # the nodes of the pair
        self._permitted = permission.Permissions()
        self._view, self._showing = View.FUSED, None  # the latter: the steps of showing it that are left
        self._isSuggesting = True  # whether a pair may be chosen where nobody has chosen one

    def setup(self) -> None:
        ScriptedLoadableModuleWidget.setup(self)
        uiWidget = slicer.util.loadUI(self.resourcePath("UI/BrainFusion.ui"))
        self.layout.addWidget(uiWidget)
        uiWidget.setMRMLScene(slicer.mrmlScene)
        self.logic = BrainFusionLogic()
        self.sections = add_sections(self, uiWidget)
        self.ui = slicer.util.childWidgetVariables(uiWidget)
        scene = slicer.mrmlScene
        self.addObserver(scene, scene.StartCloseEvent, self.onSceneStartClose)
        self.addObserver(scene, scene.EndCloseEvent, self.onSceneEndClose)
        self.addObserver(scene, scene.StartImportEvent, self.onSceneStartImport)
        self.addObserver(scene, scene.EndImportEvent, self.onSceneEndImport)
        # Before the selectors hear of it (-10), which would choose a neighbour; see `onNodeAboutToBeRemoved`.
        self.addObserver(scene, scene.NodeAboutToBeRemovedEvent, self.onNodeAboutToBeRemoved, priority=0.0)
        self.addObserver(scene, scene.NodeRemovedEvent, self.onNodeRemoved)
        self.addObserver(scene, scene.NodeAddedEvent, self.onNodeAdded)
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
        ui.opacitySlider.connect("valueChanged(double)", self.onOpacity)
        ui.jumpButton.connect("clicked(bool)", self.onJump)
        ui.linkCheckBox.connect("toggled(bool)", review.set_linked)
        buttons = {
            View.FUSED: ui.fusedCheckBox,
            View.CT: ui.overlayButton,
            View.OUTLINE: ui.outlineButton,
            View.SQUARES: ui.checkerboardButton,
            View.UNREGISTERED: ui.showUnregisteredButton,
        }
        for view, button in buttons.items():
            button.connect("toggled(bool)", lambda on, view=view: self.onView(view, on))
        # The first one when a volume that was added has its voxels.
        self._later, self._showingTimer = qt.QTimer(), qt.QTimer()
        for timer, call in ((self._later, self.catchUp), (self._showingTimer, self.showNext)):
            timer.setSingleShot(True)
            timer.setInterval(0)
            timer.connect("timeout()", call)
        for section in self.sections:
            section.setup()
        self.showIdle()
        self.initializeParameterNode()

    def cleanup(self) -> None:
        if self.logic:
            self.logic.close()
        self._later.stop()
        self.putAwayReview()
        for section in self.sections:
            section.put_away()
            section.forget()
        self._showingTimer.stop()
        self.setParameterNode(None)
        self.removeObservers()

    def enter(self) -> None:
        self.initializeParameterNode()
        self.suggestPair()
        self.showUnseen()
        self.logic.warmUp()

    def exit(self) -> None:
        # A fusion that is running goes on: its results are shown when the panel is entered again.
        self.putAwayReview()
        for section in self.sections:
            section.put_away()
        self.setParameterNode(None)

    # ---- the scene --------------------------------------------------------------------------------------------------

    def onSceneStartClose(self, caller, event) -> None:
        self._unseen = self._showing = None
        self._pair, self._drawn = (None, None), None
        self._view = View.FUSED
        self._isSuggesting = True
        self._permitted.clear()
        for section in self.sections:
            section.forget()
        self.setParameterNode(None)

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
            self.suggestPair()
            review.fill_gaps(self.registeredNodes()[0])

    @vtk.calldata_type(vtk.VTK_OBJECT)
    def onNodeAboutToBeRemoved(self, scene, event, node) -> None:
        """Choose none where the node is chosen: by itself its selector would choose a neighbour, a user's volume."""
        self._permitted.withdraw(node)
        if node == self._unseen:
            self._unseen = None
        if scene.IsClosing():
            return
        if node.IsA("vtkMRMLScriptedModuleNode"):
            if self._parameterNode and node.GetID() == self._parameterNode.parameterNode.GetID():
                self.setParameterNode(None)
            return
        parameters = self._parameterNode or self.logic.getParameterNode()
        # Else the CT would be under no transform, and not under the one that the user had put it under.
        taken_back = registered_ct.take_back_from(node)
        was_chosen = selection.leave_out(parameters, node)
        if was_chosen:
            self._isSuggesting = False  # what the user has removed is not to be replaced by something else
            self._drawn = selection.chosen_ids(parameters)
        if was_chosen or taken_back is not None:
            self.sayRemoved(node, taken_back)

    def onNodeRemoved(self, caller, event) -> None:
        if not self._parameterNode and self.parent.isEntered:
            # Not now: the new one has the same id, and the scene is still removing what refers to the old one.
            self._later.start()
        self.updatePanel()

    def catchUp(self) -> None:
        """Do what had to wait until an event of the scene was over."""
        if not self._parameterNode and self.parent.isEntered and not slicer.mrmlScene.IsBatchProcessing():
            self.initializeParameterNode()
            self.say(_("The choices were removed from the scene."))
        self.suggestPair()

    @vtk.calldata_type(vtk.VTK_OBJECT)
    def onNodeAdded(self, scene, event, node) -> None:
        if node.IsA("vtkMRMLScalarVolumeNode") and not ownership.is_made_here(node):
            self._later.start()

    def suggestPair(self) -> None:
        """Choose a CT and an MRI where nobody has chosen, if the scene holds exactly one of each."""
        parameters = self._parameterNode
        if not parameters or not self._isSuggesting or self.logic.running:
            return
        if parameters.ctVolume or parameters.mriVolume:
            return
        ct, mri = candidates.only_pair(slicer.mrmlScene)
        if ct is not None:
            with slicer.util.NodeModify(parameters):
                parameters.ctVolume, parameters.mriVolume = ct, mri

    # ---- choices ----------------------------------------------------------------------------------------------------

    def permit(self, node) -> None:
        """Let a node be overwritten by the next fusion."""
        self._permitted.give(node)
        self.updatePanel()

    def onOverwriteButton(self, checked: bool = False) -> None:
        for node in panel_state.blocked_outputs(self._parameterNode, self._permitted.nodes())[:1]:
            self.permit(node)

    def initializeParameterNode(self) -> None:
        self.setParameterNode(self.logic.getParameterNode())
        if self.logic.notes:
            self.say(" ".join(self.logic.notes))
            self.logic.notes.clear()

    def setParameterNode(self, parameterNode) -> None:
        """Connect the panel to a parameter node, or to none while there is no scene or the panel is not shown."""
        if not parameterNode:
            self.watch([])
            self._pair = (None, None)
        if self._parameterNode:
            self._parameterNode.disconnectGui(self._parameterNodeGuiTag)
            self._parameterNodeGuiTag = None
            # Of the node itself: the mixin would keep the wrapper, and so its nodes, for good.
            self.removeObserver(self._parameterNode.parameterNode, vtk.vtkCommand.ModifiedEvent, self.updatePanel)
        self._parameterNode = parameterNode
        if self._parameterNode:
            # The .ui file names each widget's parameter in the property SlicerParameterName.
            self._parameterNodeGuiTag = self._parameterNode.connectGui(self.ui)
            for index, rule in enumerate(Rule):  # the wrapper fills the box anew
                self.ui.ruleComboBox.setItemData(index, _(METHODS[rule.name].description), qt.Qt.ToolTipRole)
            self.addObserver(parameterNode.parameterNode, vtk.vtkCommand.ModifiedEvent, self.updatePanel)
        self.updatePanel()

    def updatePanel(self, caller=None, event=None) -> None:
        """Show what can be done now; also where something raises, which Slicer only prints: no verdict of before."""
        problems = []
        try:
            if self._parameterNode:
                self.followChoice()
            self._state = panel_state.state_of(
                self._parameterNode,
                running=self.logic.running,
                notice=self._notice,
                permitted=self._permitted.nodes(),
                suspicion=self.whatIsSuspicious,
                view=self._view,
            )
        except Exception as error:
            problems.append(error)
            self._state = panel_state.unknown(self.logic.running)
        self.forgetOldNotice()
        if self._parameterNode and self._view is not View.FUSED and not self._isViewed():
            self.leaveView()
        panel_state.draw(self.ui, self._state)
        for section in self.sections:
            try:
                section.update()
            except Exception as error:
                problems.append(error)
        if problems:
            raise problems[0]

    def _isViewed(self) -> bool:
        """Say whether the view that was chosen can be shown still, and shows what it says."""
        is_back = self._state.standing in (Standing.REGISTERED, Standing.HOMELESS)  # the user may have put it back
        if self._view in self._state.not_viewable or (self._view is View.UNREGISTERED and is_back):
            return False
        return all(section.holds(self._view) for section in self.sections)

    def followChoice(self) -> None:
        """Choose the outputs of a pair that has just been chosen, and forget what was said about another choice."""
        parameters = self._parameterNode
        pair = selection.chosen_ids(parameters)[:2]
        if pair != self._pair:
            self._pair = pair
            # Without doubles: one observer a node. (The same volume may be chosen twice, by mistake.)
            self.watch(list({n.GetID(): n for n in (parameters.ctVolume, parameters.mriVolume) if n}.values()))
            selection.follow_pair(parameters)
            if self._drawn is not None and pair != self._drawn[:2]:
                self._view, self._showing = View.FUSED, None
        chosen = selection.chosen_ids(parameters)
        if self._drawn not in (None, chosen):
            self._notice = ""
        self._drawn = chosen

    def say(self, text: str) -> None:
        """Show what has happened, until something else is chosen, or the verdict stale."""
        self.updatePanel()
        self._notice, self._saidOf = text, ()
        self.updatePanel()

    def forgetOldNotice(self) -> None:
        """Take back what was said of a result that has changed since: a CT that was moved is not "Approved."."""
        if not self._parameterNode or self.logic.running:
            return
        card = self._state.card
        if self._saidOf not in ((), (card,)) and card is not None and card.colour == "stale":
            self._notice, self._state = "", replace(self._state, notice="")
        self._saidOf = (card,)
