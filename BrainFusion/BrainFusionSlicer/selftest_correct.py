"""The part of the self-test that adjusts, checks and refines a pose, and measures it by landmarks."""

from __future__ import annotations

import tempfile
import time
from pathlib import Path

import numpy as np
import slicer
import slicer.util
import vtk

from BrainFusionLib.errors import GeometryError
from BrainFusionLib.io import write_transform
from BrainFusionSlicer import (
    adjusting,
    bridge,
    landmark_lists,
    placing,
    pose_files,
    pose_history,
    pose_verdict,
    poses,
    registered_ct,
)
from BrainFusionSlicer.selftest_tools import TIMEOUT_S, chooseIn, errorOf, moveBy, usersNodes

POINTS = 4


def moduleNode():
    """Return the module's parameter node itself, made as ScriptedLoadableModuleLogic makes it."""
    name, kind = pose_verdict.MODULE, "vtkMRMLScriptedModuleNode"
    node = slicer.mrmlScene.GetSingletonNode(name, kind)
    if node is None:
        node = slicer.mrmlScene.CreateNodeByClass(kind)
        node.UnRegister(None)
        node.SetSingletonTag(name)
        node.SetAttribute("ModuleName", name)
        node = slicer.mrmlScene.AddNode(node)
    return node


class CorrectTests:
    """One test a tool; `BrainFusionTest` is one of these."""

    def corrections(self):
        """Return all of them, in the order in which they run."""
        return (
            self.test_aPoseIsCheckedRefinedAndUndone,
            self.test_handlesLeaveNothingBehind,
            self.test_aPoseIsReadFromAFile,
            self.test_whatTheCtLeftBehindComesBack,
            self.test_landmarksMoveWithTheirVolumes,
            self.test_thePanelCorrects,
            self.test_thePanelPutsTheMriOntoTheCt,
        )

    def addLandmarks(self, ct, mri):
        """Add a point list to each volume, in its own space: points of the brain, the same ones."""
        brain = self.pair.target_points()
        brain = brain[:: max(1, len(brain) // POINTS)][:POINTS]
        rasFromLps = np.array([-1.0, -1.0, 1.0])
        lists = []
        for volume, positions in ((ct, self.pair.transform.apply(brain)), (mri, brain)):
            points = placing.new_list(volume, f"{volume.GetName()} landmarks")
            for n, position in enumerate(positions * rasFromLps):
                points.AddControlPoint(vtk.vtkVector3d(*position), f"P{n}")
            lists.append(points)
        return lists

    def ask(self, start, *nodes, **options):
        """Start a job of the logic, wait until it is done, and return its outcome."""
        ended = []
        start(*nodes, finishedCallback=lambda *result: ended.append(result), **options)
        began = time.monotonic()
        while not ended:
            assert time.monotonic() - began < TIMEOUT_S, "the job did not end"
            slicer.app.processEvents()
            time.sleep(0.01)
        outcome, error = ended[0]
        assert error is None, f"the job ended with {error!r}"
        return outcome

    def test_aPoseIsCheckedRefinedAndUndone(self):
        self.delayDisplay("Checking and refining a pose")
        ct, mri = self.addPhantom()
        transform = bridge.move_ct_onto_mri(ct, mri, self.pair.transform)
        moveBy(transform, 6.0)
        before = slicer.util.arrayFromTransformMatrix(transform)
        volumes = len(usersNodes())
        checked = self.ask(self.logic.startCheck, ct, mri)
        assert checked.result.verdict.colour != "green", "a pose that is 6 mm off was judged green"
        np.testing.assert_array_equal(slicer.util.arrayFromTransformMatrix(transform), before, "a check moved the CT")
        self.ask(self.logic.startRefinement, ct, mri)
        self.checkAlignment(ct)
        assert len(usersNodes()) == volumes, "a node was left behind"
        shown = pose_verdict.shown(None, ct, mri)
        assert shown.stored is not None, "no verdict on the refined pose was kept"
        assert not shown.changes, f"the verdict on the refined pose does not hold: {shown.changes}"
        assert pose_history.step_back(ct) is not None
        np.testing.assert_allclose(slicer.util.arrayFromTransformMatrix(transform), before)
        scaled = before.copy()
        scaled[:3, :3] *= 1.1
        slicer.util.updateTransformMatrixFromArray(transform, scaled)
        assert errorOf(GeometryError, lambda: self.logic.startCheck(ct, mri)), "a scaled pose was not refused"
        self.logic.close()

    def test_handlesLeaveNothingBehind(self):
        self.delayDisplay("Handles to adjust a pose")
        ct, mri = self.addPhantom()
        transform = bridge.move_ct_onto_mri(ct, mri, self.pair.transform)
        transform.CreateDefaultDisplayNodes()
        display = transform.GetDisplayNode()
        display.SetEditorScalingEnabled(True)
        adjusting.begin(transform, ct)
        assert display.GetEditorVisibility(), "no handles are shown"
        assert not display.GetEditorScalingEnabled(), "the handles scale"
        slicer.app.processEvents()
        moveBy(transform, 3.0)
        slicer.app.processEvents()
        assert adjusting.end(transform), "the adjustment was not noticed"
        assert not display.GetEditorVisibility(), "the handles were left"
        assert display.GetEditorScalingEnabled(), "the display of the transform was changed"
        assert pose_history.step_back(ct) is not None
        self.checkAlignment(ct)
        self.logic.close()

    def test_aPoseIsReadFromAFile(self):
        self.delayDisplay("A pose of another program")
        ct, mri = self.addPhantom()
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "theirs.tfm"
            write_transform(self.pair.transform, path)
            node = pose_files.load(path, ct, mri)
        found = poses.pose_from_node(node).moving_from_fixed_lps
        np.testing.assert_allclose(found, self.pair.transform.moving_from_fixed_lps, atol=1e-6)
        assert ct.GetParentTransformNode() is None, "reading a pose moved the CT"
        self.logic.close()

    def test_whatTheCtLeftBehindComesBack(self):
        self.delayDisplay("What the CT left behind")
        ct, mri = self.addPhantom()
        segmentation = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLSegmentationNode", "segmentation")
        segmentation.SetReferenceImageGeometryParameterFromVolumeNode(ct)
        transform = bridge.move_ct_onto_mri(ct, mri, self.pair.transform)
        assert segmentation.GetParentTransformNode() == transform
        ct.SetAndObserveTransformNodeID(None)
        mine = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLLinearTransformNode", "mine")
        ct.SetAndObserveTransformNodeID(mine.GetID())
        assert registered_ct.abandoned_by(ct, mri) == [segmentation], "what was left behind is not known"
        assert registered_ct.take_back_abandoned(ct, mri) == 1
        assert segmentation.GetParentTransformNode() is None
        assert ct.GetParentTransformNode() == mine, "the CT was moved"
        self.logic.close()

    def test_landmarksMoveWithTheirVolumes(self):
        self.delayDisplay("Landmarks")
        ct, mri = self.addPhantom()
        lists = self.addLandmarks(ct, mri)
        parameterNode = moduleNode()
        for index, (points, volume) in enumerate(zip(lists, (ct, mri), strict=True)):
            landmark_lists.choose(parameterNode, index, points, volume)
        assert landmark_lists.residuals(lists, ct, mri).worst_mm > 1.0, "the pose was right before it was registered"
        transform = bridge.move_ct_onto_mri(ct, mri, self.pair.transform)
        assert lists[0].GetParentTransformNode() == transform, "the landmarks of the CT were left behind"
        worst = landmark_lists.residuals(lists, ct, mri).worst_mm
        assert worst < 1e-6, f"the landmarks are {worst} mm off in the true pose"
        read = landmark_lists.as_read(lists, ct, mri).residuals(self.pair.transform)
        assert read.worst_mm < 1e-6, "the library would be given other landmarks"
        assert registered_ct.take_back(ct)
        assert lists[0].GetParentTransformNode() is None
        self.logic.close()

    def test_thePanelCorrects(self):
        self.requireWindow()
        self.delayDisplay("Register only, Adjust, Refine and Undo by their buttons")
        panel = self.openedPanel()
        ui = panel.ui
        ct, mri = self.addPhantom()
        lists = self.addLandmarks(ct, mri)
        ui.ctSelector.setCurrentNode(ct)
        ui.mriSelector.setCurrentNode(mri)
        ui.ctPointsSelector.setCurrentNode(lists[0])
        ui.mriPointsSelector.setCurrentNode(lists[1])
        volumes = len(slicer.util.getNodesByClass("vtkMRMLScalarVolumeNode"))
        self.press(panel, ui.registerButton)
        self.checkAlignment(ct)
        assert "median" in ui.landmarksLabel.text, ui.landmarksLabel.text
        transform = ct.GetParentTransformNode()
        ui.adjustButton.click()
        assert transform.GetDisplayNode().GetEditorVisibility(), "no handles are shown"
        moveBy(transform, 6.0)
        slicer.app.processEvents()
        assert "Changed since" in ui.verdictLabel.text, ui.verdictLabel.text
        self.press(panel, ui.refineButton)
        assert not ui.adjustButton.checked, "the handles are still shown"
        self.checkAlignment(ct)
        ui.undoButton.click()
        ui.undoButton.click()
        self.checkAlignment(ct)
        ui.placeButton.click()
        slicer.app.processEvents()
        assert ui.placeButton.checked, "points cannot be placed"
        ui.placeButton.click()
        left = [n for n in slicer.util.getNodesByClass("vtkMRMLScalarVolumeNode") if not n.GetHideFromEditors()]
        assert len(left) == volumes, "a volume was written"
        ui.undoButton.click()
        assert ct.GetParentTransformNode() is None, "the CT is not where it was before the registration"

    def test_thePanelPutsTheMriOntoTheCt(self):
        self.requireWindow()
        self.delayDisplay("Reference: CT")
        panel = self.openedPanel()
        ui = panel.ui
        ct, mri = self.addPhantom()
        ui.ctSelector.setCurrentNode(ct)
        ui.mriSelector.setCurrentNode(mri)
        chooseIn(ui.referenceComboBox, "CT")
        assert ui.gridComboBox.currentText == "CT", "the voxels of the reference were not chosen"
        self.press(panel, ui.registerButton)
        transform = mri.GetParentTransformNode()
        assert transform is not None, f"the MRI was not moved: {ui.statusLabel.text}"
        assert transform.GetName() == "MRI to CT"
        assert ct.GetParentTransformNode() is None, "the CT was moved"
        self.checkAlignment(ct, mri=mri)
        ui.adjustButton.click()
        moveBy(transform, 6.0)
        slicer.app.processEvents()
        assert "Changed since" in ui.verdictLabel.text, ui.verdictLabel.text
        self.press(panel, ui.refineButton)
        self.checkAlignment(ct, mri=mri)
        ui.undoButton.click()
        ui.undoButton.click()
        self.checkAlignment(ct, mri=mri)
        ui.showUnregisteredButton.click()
        assert mri.GetParentTransformNode() is None, "the registered MRI is shown"
        ui.showUnregisteredButton.click()
        self.checkAlignment(ct, mri=mri)
        ui.undoButton.click()
        assert mri.GetParentTransformNode() is None, "the MRI is not where it was before the registration"
        chooseIn(ui.referenceComboBox, "MRI")

    def press(self, panel, button):
        """Click a button that starts a job, and wait until it is done."""
        assert button.enabled, panel.ui.statusLabel.text
        button.click()
        began = time.monotonic()
        while panel.logic.running:
            assert time.monotonic() - began < TIMEOUT_S, "the job did not end"
            slicer.app.processEvents()
            time.sleep(0.01)
