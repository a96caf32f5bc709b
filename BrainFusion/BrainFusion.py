"""The BrainFusion module of 3D Slicer: pick a CT and an MRI of one head, click Fuse, see both in one volume.

Wiring only: the work is done by BrainFusionLib, and MRML is read and written by BrainFusionSlicer. Nothing here
imports torch before it is needed, so the module loads without it.
"""

import importlib
import importlib.util
import logging
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import qt
import slicer
import vtk
from slicer import vtkMRMLLinearTransformNode, vtkMRMLScalarVolumeNode
from slicer.i18n import tr as _
from slicer.i18n import translate
from slicer.parameterNodeWrapper import parameterNodeWrapper
from slicer.ScriptedLoadableModule import (
    ScriptedLoadableModule,
    ScriptedLoadableModuleLogic,
    ScriptedLoadableModuleTest,
    ScriptedLoadableModuleWidget,
)
from slicer.util import VTKObservationMixin

HOMEPAGE = "https://github.com/BrainFusion/SlicerBrainFusion"
# The same as pyproject.toml asks for.
TORCH_REQUIREMENT = ">=2.4"


def makeLibraryImportable() -> None:
    """Add the repository's root to sys.path if BrainFusionLib cannot be imported without it.

    An installed extension has BrainFusionLib beside this file, where Slicer looks. In a source checkout it stands one
    folder higher, where Slicer does not.
    """
    if importlib.util.find_spec("BrainFusionLib") is None:
        sys.path.append(str(Path(__file__).resolve().parent.parent))


makeLibraryImportable()

from BrainFusionSlicer import bridge  # noqa: E402

from BrainFusionLib.errors import Cancelled, MissingDependencyError, SettingsError  # noqa: E402  (needs the line above)


class BrainFusion(ScriptedLoadableModule):
    """What Slicer shows of the module before it is opened."""

    def __init__(self, parent):
        ScriptedLoadableModule.__init__(self, parent)
        self.parent.title = _("BrainFusion")
        self.parent.categories = [translate("qSlicerAbstractCoreModule", "Registration")]
        self.parent.dependencies = []
        self.parent.contributors = ["BrainFusion developers (BrainFusion)"]
        self.parent.helpText = _(
            "Registers a CT to an MRI of the same head, whatever their starting pose, and fuses the two into one "
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
    fusedVolume - Where the result goes; a new volume if none is chosen.
    """

    ctVolume: vtkMRMLScalarVolumeNode
    mriVolume: vtkMRMLScalarVolumeNode
    fusedVolume: vtkMRMLScalarVolumeNode


class BrainFusionWidget(ScriptedLoadableModuleWidget, VTKObservationMixin):
    """The panel."""

    def __init__(self, parent=None) -> None:
        ScriptedLoadableModuleWidget.__init__(self, parent)
        VTKObservationMixin.__init__(self)
        self.logic = None
        self._parameterNode = None
        self._parameterNodeGuiTag = None
        self._running = False

    def setup(self) -> None:
        ScriptedLoadableModuleWidget.setup(self)
        uiWidget = slicer.util.loadUI(self.resourcePath("UI/BrainFusion.ui"))
        self.layout.addWidget(uiWidget)
        self.ui = slicer.util.childWidgetVariables(uiWidget)
        uiWidget.setMRMLScene(slicer.mrmlScene)

        self.logic = BrainFusionLogic()
        self.addObserver(slicer.mrmlScene, slicer.mrmlScene.StartCloseEvent, self.onSceneStartClose)
        self.addObserver(slicer.mrmlScene, slicer.mrmlScene.EndCloseEvent, self.onSceneEndClose)
        self.ui.fuseButton.connect("clicked(bool)", self.onFuseButton)
        self.initializeParameterNode()
        if not torchIsInstalled():
            self.ui.statusLabel.text = _(
                "PyTorch is not installed yet: Fuse will ask the PyTorch extension to install it."
            )

    def cleanup(self) -> None:
        self.setParameterNode(None)
        self.removeObservers()

    def enter(self) -> None:
        self.initializeParameterNode()

    def exit(self) -> None:
        self.setParameterNode(None)

    def onSceneStartClose(self, caller, event) -> None:
        self.setParameterNode(None)

    def onSceneEndClose(self, caller, event) -> None:
        if self.parent.isEntered:
            self.initializeParameterNode()

    def initializeParameterNode(self) -> None:
        self.setParameterNode(self.logic.getParameterNode())

    def setParameterNode(self, parameterNode: BrainFusionParameterNode | None) -> None:
        """Connect the panel to a parameter node, or to none while there is no scene or the panel is not shown."""
        if self._parameterNode:
            self._parameterNode.disconnectGui(self._parameterNodeGuiTag)
            self._parameterNodeGuiTag = None
            self.removeObserver(self._parameterNode, vtk.vtkCommand.ModifiedEvent, self.updateFuseButton)
        self._parameterNode = parameterNode
        if self._parameterNode:
            # The .ui file names each widget's parameter in the property SlicerParameterName.
            self._parameterNodeGuiTag = self._parameterNode.connectGui(self.ui)
            self.addObserver(self._parameterNode, vtk.vtkCommand.ModifiedEvent, self.updateFuseButton)
        self.updateFuseButton()

    def updateFuseButton(self, caller=None, event=None) -> None:
        missing = self.whatIsMissing()
        self.ui.fuseButton.enabled = missing is None
        self.ui.fuseButton.toolTip = _("Register the CT to the MRI and fuse them") if missing is None else missing

    def whatIsMissing(self) -> str | None:
        """Say why Fuse cannot be clicked, or return None if it can."""
        parameters = self._parameterNode
        if self._running:
            return _("Wait for the fusion to finish")
        if not parameters or not parameters.ctVolume:
            return _("Choose a CT")
        if not parameters.mriVolume:
            return _("Choose an MRI")
        if parameters.ctVolume == parameters.mriVolume:
            return _("The CT and the MRI must be two different volumes")
        if parameters.fusedVolume in (parameters.ctVolume, parameters.mriVolume):
            return _("The fused volume must not be the CT or the MRI: they are never changed")
        return None

    def onFuseButton(self) -> None:
        self._running = True
        self.updateFuseButton()
        try:
            with slicer.util.tryWithErrorDisplay(_("PyTorch could not be installed.")):
                ensureTorch()
            with slicer.util.tryWithErrorDisplay(_("The CT and the MRI were not fused."), waitCursor=True):
                self.fuse()
        except Exception:
            self.ui.statusLabel.text = _("The CT and the MRI were not fused.")
            raise
        finally:
            self._running = False
            self.updateFuseButton()

    def fuse(self) -> None:
        parameters = self._parameterNode
        mri = parameters.mriVolume
        started = time.monotonic()
        outcome = self.logic.process(
            parameters.ctVolume, mri, parameters.fusedVolume, progressCallback=self.showProgress
        )
        parameters.fusedVolume = outcome.fusedVolume
        slicer.util.setSliceViewerLayers(background=mri, foreground=outcome.fusedVolume, foregroundOpacity=1.0)
        verdict = outcome.result.verdict
        self.ui.statusLabel.text = _(
            "Fused in {seconds:.0f} s. The CT was {movement}.\n\nVerdict: {colour} ({reasons}).\n\n"
            "For research and planning review, not for diagnosis."
        ).format(
            seconds=time.monotonic() - started,
            movement=outcome.movement,
            colour=verdict.colour,
            reasons="; ".join(verdict.reasons),
        )

    def showProgress(self, stage: str, fraction: float) -> None:
        self.ui.statusLabel.text = _("{stage}: {percent:.0f} %").format(stage=stage, percent=100 * fraction)
        # The work runs in this process: repaint, but let nobody delete the nodes that it is working on.
        slicer.app.processEvents(qt.QEventLoop.ExcludeUserInputEvents)


@dataclass(frozen=True)
class BrainFusionOutcome:
    """What BrainFusionLogic.process made.

    fusedVolume - The fused volume, on the MRI's grid.
    transformNode - The transform that the CT is under now.
    movement - How the CT had to move, in words.
    result - BrainFusionLib's FusionResult, with its verdict, settings and measures.
    """

    fusedVolume: vtkMRMLScalarVolumeNode
    transformNode: vtkMRMLLinearTransformNode
    movement: str
    result: object


class BrainFusionLogic(ScriptedLoadableModuleLogic):
    """The module without its panel: opens no dialog, and can be used from scripts."""

    def getParameterNode(self):
        return BrainFusionParameterNode(super().getParameterNode())

    def process(
        self,
        ctVolume: vtkMRMLScalarVolumeNode,
        mriVolume: vtkMRMLScalarVolumeNode,
        fusedVolume: vtkMRMLScalarVolumeNode | None = None,
        progressCallback=None,
        cancelled=None,
    ) -> BrainFusionOutcome:
        """Register the CT to the MRI, fuse them, and put the results into the scene.

        The voxels and geometry of the inputs are not changed. The CT is put under a linear transform, ``CT to MRI``,
        that moves it onto the MRI; running again replaces it.

        :param ctVolume: CT in Hounsfield units, under linear transforms or none
        :param mriVolume: MRI of the same head, under linear transforms or none
        :param fusedVolume: overwritten with the result, in world coordinates; a new volume if None
        :param progressCallback: called with a stage's name and the fraction done, 0 to 1
        :param cancelled: called without arguments; processing ends when it returns True
        :raises MissingDependencyError: torch is not installed
        :raises BrainFusionError: the inputs cannot be used, no pose was found, or it was cancelled; says why
        """
        if ctVolume is None or mriVolume is None or ctVolume == mriVolume:
            raise SettingsError(_("Choose a CT and an MRI: two different volumes."))
        if fusedVolume in (ctVolume, mriVolume):
            raise SettingsError(_("The fused volume must not be the CT or the MRI: choose another one, or none."))
        if not torchIsInstalled():
            raise MissingDependencyError(
                _(
                    "PyTorch is needed and is not installed. Install the PyTorch extension (Extensions Manager), "
                    "restart Slicer, open the module PyTorch Utils, click Install PyTorch, and try again."
                )
            )
        from BrainFusionLib.pipeline import fuse  # imports torch

        ct, mri = bridge.volume_from_node(ctVolume), bridge.volume_from_node(mriVolume)
        logging.info("BrainFusion: fusing %s and %s", ct.name, mri.name)
        result = fuse(ct, mri, progress=progressCallback, cancel=cancelled)

        # A progress callback may process events, and events may have closed the scene.
        if any(node is not None and node.GetScene() is None for node in (ctVolume, mriVolume, fusedVolume)):
            raise Cancelled(_("A volume was removed from the scene while it was being fused; nothing was written."))
        if fusedVolume is None:
            fusedVolume = mriVolume.GetScene().AddNewNodeByClass(
                "vtkMRMLScalarVolumeNode", _("{mri} fused with {ct}").format(mri=mri.name, ct=ct.name)
            )
        bridge.node_from_volume(result.fused, fusedVolume)
        bridge.share_display(fusedVolume, mriVolume)
        fusedVolume.SetNodeReferenceID(bridge.MOVED_CT_ROLE, ctVolume.GetID())
        fusedVolume.SetNodeReferenceID(bridge.TARGET_MRI_ROLE, mriVolume.GetID())
        transformNode = bridge.move_ct_onto_mri(ctVolume, mriVolume, result.transform, _("CT to MRI"))
        for node in (fusedVolume, transformNode):
            bridge.share_place(node, mriVolume)
        movement = result.transform.describe(mri.grid.centre_lps_mm)
        logging.info("BrainFusion: done, the CT was %s", movement)
        return BrainFusionOutcome(fusedVolume, transformNode, movement, result)


def torchIsInstalled() -> bool:
    """Say whether torch can be imported, without importing it."""
    return importlib.util.find_spec("torch") is not None


def ensureTorch() -> None:
    """Have the PyTorch extension install torch if it is missing. It asks the user; without it, nothing happens."""
    if torchIsInstalled() or importlib.util.find_spec("PyTorchUtils") is None:
        return
    import PyTorchUtils

    PyTorchUtils.PyTorchUtilsLogic().installTorch(askConfirmation=True, torchVersionRequirement=TORCH_REQUIREMENT)
    importlib.invalidate_caches()


class BrainFusionTest(ScriptedLoadableModuleTest):
    """Runs inside Slicer, on a phantom; needs nothing but torch, which it has the PyTorch extension install."""

    # The largest error allowed at a point of the brain. The phantom's voxels are 4 mm wide; 0.3 mm was measured.
    WORST_ERROR_MM = 1.0

    def setUp(self):
        slicer.mrmlScene.Clear()

    def runTest(self):
        self.setUp()
        self.test_aPhantomIsFused()

    def test_aPhantomIsFused(self):
        from BrainFusionLib.phantom import make_pair

        ensureTorch()
        assert torchIsInstalled(), "torch is missing: install the PyTorch extension and click Install PyTorch in it"
        self.delayDisplay("Making a phantom")
        pair = make_pair(spacing_mm=4.0, rotation_deg=12.0, translation_mm=15.0)
        ct = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLScalarVolumeNode", "Phantom CT")
        mri = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLScalarVolumeNode", "Phantom MRI")
        bridge.node_from_volume(pair.ct, ct)
        bridge.node_from_volume(pair.mri, mri)
        before = [self.contentOf(node) for node in (ct, mri)]

        self.delayDisplay("Fusing")
        outcome = BrainFusionLogic().process(ct, mri)

        self.checkFused(outcome.fusedVolume, mri)
        self.checkAlignment(ct, pair)
        again = bridge.move_ct_onto_mri(ct, mri, outcome.result.transform)
        assert again is outcome.transformNode, "a second result must replace the transform, not stack on it"
        self.checkAlignment(ct, pair)
        for node, (voxels, geometry) in zip((ct, mri), before, strict=True):
            nowVoxels, nowGeometry = self.contentOf(node)
            np.testing.assert_array_equal(nowVoxels, voxels, f"the voxels of {node.GetName()} were changed")
            np.testing.assert_array_equal(nowGeometry, geometry, f"{node.GetName()} was moved")
        self.delayDisplay("Test passed")

    def checkFused(self, fused, mri):
        voxels, geometry = self.contentOf(fused)
        mriVoxels, mriGeometry = self.contentOf(mri)
        np.testing.assert_allclose(geometry, mriGeometry, atol=1e-6)
        assert voxels.shape == mriVoxels.shape
        assert np.isfinite(voxels).all(), "the fused volume has voxels that are no numbers"
        assert voxels.max() > mriVoxels.max(), "no bone was written above the MRI's intensities"

    def checkAlignment(self, ct, pair):
        """Points of the brain must be at the same place in the world on the CT (moved by its transform) and the MRI."""
        rasFromLps = np.array([-1.0, -1.0, 1.0])
        brain = pair.target_points()
        onMri = brain * rasFromLps
        onCt = pair.transform.apply(brain) * rasFromLps
        toWorld = slicer.util.arrayFromTransformMatrix(ct.GetParentTransformNode(), toWorld=True)
        moved = onCt @ toWorld[:3, :3].T + toWorld[:3, 3]
        worst = float(np.linalg.norm(moved - onMri, axis=1).max())
        assert worst < self.WORST_ERROR_MM, f"the CT does not lie on the MRI: {worst:.1f} mm off in the brain"

    @staticmethod
    def contentOf(node):
        """Return copies of a volume node's voxels and of its own RAS-from-IJK matrix."""
        matrix = vtk.vtkMatrix4x4()
        node.GetIJKToRASMatrix(matrix)
        return slicer.util.arrayFromVolume(node).copy(), slicer.util.arrayFromVTKMatrix(matrix)
