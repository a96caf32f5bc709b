"""The panel in its states, as pictures to look at.

``BRAINFUSION_PICTURES=docs/panel python3 dev.py test Testing/panel/test_pictures.py`` writes the documentation's.
"""

import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import slicer
import slicer.util
import vtk
from PIL import Image
from PySide6 import QtGui, QtWidgets

from BrainFusionLib.error_map import ErrorMap
from BrainFusionLib.evidence import Evidence, PoseEvidence
from BrainFusionLib.geometry import Grid
from BrainFusionLib.verdict.judge import judge

pytestmark = pytest.mark.filterwarnings("ignore:Setting the shape on a NumPy array:DeprecationWarning")

SOUND = PoseEvidence(
    similarity_nmi=1.2, margin_nats=0.3, agreement_mm=0.05, perturbed_margin_nmi=0.005, overlap=1.0, thinnest_mm=150.0,
    thickest_voxel_mm=1.0, mirrored_margin_nats=0.2, sampling_error_mm=0.1, lever=1.0,
)  # fmt: skip
VERDICTS = {
    "green": replace(judge(Evidence(pose=SOUND)), expected_error_mm=0.32, bound_mm=0.8),
    "red": judge(Evidence(pose=replace(SOUND, mirrored_margin_nats=-0.2))),
}


@pytest.fixture
def picture(panel, application, tmp_path):
    """Write a picture of the panel in both themes, and see that something is on it."""
    folder = Path(os.environ.get("BRAINFUSION_PICTURES", tmp_path))
    folder.mkdir(parents=True, exist_ok=True)
    application.setStyle("Fusion")

    def take(name):
        for theme, palette in (("light", light()), ("dark", dark())):
            application.setPalette(palette)
            for _ in range(3):  # labels that wrap take their height late
                application.processEvents()
            path = folder / f"{name}-{theme}.png"
            panel.parent.grab().save(str(path))
            with Image.open(path) as image:
                grey = np.asarray(image.convert("L"))
            assert grey.std() > 5
            assert (grey.mean() > 128) == (theme == "light")

    panel.parent.resize(440, 620)
    yield take
    application.setPalette(light())


def show_signing(panel, on):
    panel.ui.signCollapsibleButton.setCollapsed(not on)
    panel.parent.resize(440, 820 if on else 620)


def show_error_and_three_d(panel, fused):
    """Open both sections over a made-up map of errors, with a planned line."""
    from BrainFusionSlicer import decisions

    grid = Grid((20, 20, 20), (10.0, 10.0, 10.0), (-95.0, -95.0, -95.0))
    errors = np.linspace(0.3, 2.5, 20)[:, None, None] * np.ones(grid.shape_kji)
    result = replace(decisions.result_of(fused), error_map=ErrorMap.of(errors, grid, 1.9))
    decisions.keep_result(fused, decisions.record_of(result))
    line = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLMarkupsLineNode", "Trajectory")
    for label, point in (("entry", (40, 20, 70)), ("target", (5, 0, 5))):
        line.AddControlPoint(vtk.vtkVector3d(*point), label)
    for button in (panel.ui.errorCollapsibleButton, panel.ui.threeDCollapsibleButton):
        button.setCollapsed(False)
    panel.updatePanel()
    panel.ui.errorPointsSelector.setCurrentNode(line)
    panel.parent.resize(440, 900)


def light():
    return QtWidgets.QStyleFactory.create("Fusion").standardPalette()


def dark():
    palette = QtGui.QPalette(QtGui.QColor(50, 50, 50))
    roles = QtGui.QPalette
    for role, grey in ((roles.Base, 35), (roles.Window, 50), (roles.Button, 60)):
        palette.setColor(role, QtGui.QColor(grey, grey, grey))
    for role in (roles.Text, roles.WindowText, roles.ButtonText):
        palette.setColor(role, QtGui.QColor(235, 235, 235))
        palette.setColor(roles.Disabled, role, QtGui.QColor(130, 130, 130))
    return palette


def test_pictures_of_every_state(panel, application, module, picture, request):
    from window import wait

    picture("empty")
    nodes = request.getfixturevalue("nodes")
    application.processEvents()  # chooses the pair
    picture("ready")
    panel.ui.mriSelector.setCurrentNode(None)
    picture("missing-input")
    panel.ui.ctSelector.setCurrentNode(nodes[1])
    panel.ui.mriSelector.setCurrentNode(nodes[0])
    picture("swapped")
    panel.ui.swapButton.click()
    panel.ui.fuseButton.click()
    wait(panel, lambda: " left" in panel.ui.statusLabel.text)
    picture("running")
    wait(panel, lambda: not panel.logic.running)
    for colour, verdict in VERDICTS.items():
        # What the panel shows of such a verdict: the outcome is real, the verdict is put in.
        assert verdict.colour == colour
        card = module.panel_state.verdict_text.of_result(replace(panel.lastOutcome.result, verdict=verdict), moved="CT")
        fused = panel.ui.fusedSelector.currentNode()
        module.panel_state.currency.store(fused, replace(module.panel_state.currency.stored_on(fused), card=card))
        panel.updatePanel()
        picture(f"done-{colour}")
        if colour == "green":
            show_error_and_three_d(panel, fused)
            panel.ui.errorLayerButton.click()
            picture("error-and-3d")
            panel.ui.fusedCheckBox.click()
            for button in (panel.ui.errorCollapsibleButton, panel.ui.threeDCollapsibleButton):
                button.setCollapsed(True)
            panel.parent.resize(440, 620)
    panel.ui.outputCollapsibleButton.setCollapsed(False)
    panel.ui.gridComboBox.setCurrentIndex(3)
    panel.ui.boneCheckBox.click()
    panel.parent.resize(440, 780)
    picture("output-grid")
    panel.ui.outputCollapsibleButton.setCollapsed(True)
    show_signing(panel, True)
    panel.ui.signerEdit.setText("A. Surgeon")
    panel.ui.commentEdit.setText("3 mm off at the left orbit")
    panel.ui.rejectButton.click()
    picture("rejected")
    mover = nodes[0].GetParentTransformNode()
    matrix = slicer.util.arrayFromTransformMatrix(mover)
    slicer.util.updateTransformMatrixFromArray(mover, matrix @ np.diag([1.0, -1.0, -1.0, 1.0]))
    picture("void")
    slicer.util.updateTransformMatrixFromArray(mover, matrix)
    show_signing(panel, False)
    panel.ui.showUnregisteredButton.click()
    picture("unregistered")
    panel.ui.showUnregisteredButton.click()
    nodes[0].HardenTransform()
    picture("changed")
    nodes[0].SetAndObserveTransformNodeID(None)
    panel.showError(ValueError("MRI, given as MRI, is empty: every voxel is 7. Choose a volume that holds an image."))
    picture("error")


def test_pictures_of_landmarks_and_correction(panel, nodes, module, picture, phantom):
    from answering import AnsweringRunner

    panel.logic._runner = AnsweringRunner(phantom.transform)
    panel.ui.ctSelector.setCurrentNode(nodes[0])
    panel.ui.mriSelector.setCurrentNode(nodes[1])
    panel.ui.landmarksCollapsibleButton.setCollapsed(False)
    panel.ui.correctCollapsibleButton.setCollapsed(False)
    panel.parent.resize(440, 900)
    panel.ui.registerButton.click()
    panel.ui.placeButton.click()
    picture("landmarks-place")
    panel.ui.placeButton.click()
    flip = np.array([-1.0, -1.0, 1.0])
    lists = panel.ui.ctPointsSelector.currentNode(), panel.ui.mriPointsSelector.currentNode()
    brain = np.array([[0.0, 10.0, 10.0], [0.0, 35.0, 12.0], [-30.0, 0.0, 30.0], [32.0, 5.0, 28.0]])
    clicked = np.add(brain, [[0.4, 0, 0.2], [0, 0.5, 0], [0.9, 0, 1.1], [0, 0.3, 0.6]])
    for points, positions in zip(lists, (phantom.transform.apply(clicked), brain), strict=True):
        for name, position in zip(("AC", "PC", "left horn", "right horn"), positions * flip, strict=True):
            points.AddControlPoint(vtk.vtkVector3d(*position), name)
    picture("landmarks")
    panel.ui.landmarksCollapsibleButton.setCollapsed(True)
    panel.ui.adjustButton.click()
    transform = nodes[0].GetParentTransformNode()
    matrix = slicer.util.arrayFromTransformMatrix(transform)
    matrix[0, 3] += 3
    slicer.util.updateTransformMatrixFromArray(transform, matrix)
    panel.parent.resize(440, 700)
    picture("adjust")
    panel.ui.checkButton.click()
    theirs = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLLinearTransformNode", "planning station")
    panel.logic._runner.colour = "red"
    panel.ui.poseSelector.setCurrentNode(theirs)
    panel.ui.checkButton.click()
    panel.parent.resize(440, 800)
    picture("check-elsewhere")
    panel.ui.poseSelector.setCurrentNode(None)
    panel.ui.correctCollapsibleButton.setCollapsed(True)
    slicer.mrmlScene.RemoveNode(nodes[1])
    panel.parent.resize(440, 620)
    picture("left-behind")
