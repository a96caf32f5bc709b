"""The module's self-test: runs inside Slicer (Reload and Test), on a phantom, and needs nothing but Slicer.

It uses the module as its panel does: where Slicer has a window the work is done by the worker process.
"""

from __future__ import annotations

import tempfile
import time
import unittest
from pathlib import Path

import numpy as np
import slicer
import slicer.util
from slicer.ScriptedLoadableModule import ScriptedLoadableModuleTest

from BrainFusionLib.errors import Cancelled, SettingsError
from BrainFusionLib.settings import FusionSettings, OutputSettings, Settings
from BrainFusionSlicer import bridge, currency, departing, registered_ct, selftest_tools
from BrainFusionSlicer.selftest_correct import CorrectTests
from BrainFusionSlicer.selftest_harms import HarmTests
from BrainFusionSlicer.selftest_shown import ShownTests
from BrainFusionSlicer.selftest_sign import SignTests
from BrainFusionSlicer.selftest_tools import TIMEOUT_S, contentOf, displayable, moveBy, refusal, usersNodes

# The largest error allowed at a point of the brain. The phantom's voxels are 4 mm wide; 0.3 mm was measured.
WORST_ERROR_MM = 1.0


class BrainFusionTest(HarmTests, CorrectTests, ShownTests, SignTests, ScriptedLoadableModuleTest):
    """Runs inside Slicer, on a phantom; needs nothing but Slicer."""

    def setUp(self):
        # In a build's tests each test is run by itself; in Slicer's window runTest runs all.
        users = usersNodes()
        if users:
            self.skipTest(refusal(users))
        self.pair = selftest_tools.phantomPair()

    def tearDown(self):
        slicer.mrmlScene.Clear()

    def requireWindow(self):
        """Skip a walk through the panel where Slicer has no window."""
        if slicer.util.mainWindow() is None:
            self.skipTest(selftest_tools.NO_WINDOW)

    def runTest(self):
        users = usersNodes()
        if users:
            self.delayDisplay(refusal(users))
            return
        self.delayDisplay("Making a phantom")
        skipped = []
        for test in (
            self.test_aPhantomIsFusedAndUndone,
            self.test_everyOutputIsMade,
            self.test_theFusedVolumeCanHaveTheVoxelsOfTheCT,
            self.test_theMriIsPutOntoTheCt,
            self.test_cancelChangesNothing,
            self.test_removingAVolumeEndsTheFusion,
            self.test_aSecondFusionIsRefused,
            self.test_resultsAreSavedAndLoaded,
            *self.harms(),
            *self.corrections(),
            *self.shown(),
            self.test_aResultIsSignedAndItsReportSaved,
        ):
            self.setUp()
            try:
                test()
            except unittest.SkipTest as reason:
                skipped.append(f"{test.__name__} ({reason})")
            finally:
                self.tearDown()
        self.delayDisplay(f"Test passed; skipped: {', '.join(skipped)}" if skipped else "Test passed")

    def addPhantom(self):
        """Put the phantom's CT and MRI into the scene, and make a logic."""
        from BrainFusion import BrainFusionLogic

        nodes = []
        for name, volume in (("Phantom CT", self.pair.ct), ("Phantom MRI", self.pair.mri)):
            node = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLScalarVolumeNode", name)
            bridge.node_from_volume(volume, node)
            nodes.append(node)
        self.logic = BrainFusionLogic()
        return nodes

    def openedPanel(self):
        """Return the panel, shown."""
        slicer.util.selectModule("BrainFusion")
        slicer.app.processEvents()
        return slicer.util.getModuleWidget("BrainFusion")

    def test_aPhantomIsFusedAndUndone(self):
        ct, mri = self.addPhantom()
        before = [contentOf(node) for node in (ct, mri)]
        stages = []
        self.delayDisplay("Fusing")
        outcome = self.logic.process(ct, mri, progressCallback=lambda stage, fraction: stages.append(stage))
        assert {"registration", "resampling", "fusion"} <= set(stages), (
            f"stages that were reported: {sorted(set(stages))}"
        )
        self.checkFused(outcome.fusedVolume, mri)
        self.checkAlignment(ct)
        assert outcome.result.verdict.colour in ("green", "amber", "red")
        again = bridge.move_ct_onto_mri(ct, mri, outcome.result.transform)
        assert again == outcome.transformNode, "a second result must replace the transform, not stack on it"
        self.checkAlignment(ct)
        self.delayDisplay("Undo and redo")
        assert self.logic.undo(ct)
        assert ct.GetParentTransformNode() is None, "undo left the CT under a transform"
        assert not self.logic.undo(ct), "there was nothing left to undo"
        assert self.logic.redo(ct, mri)
        self.checkAlignment(ct)
        for node, (voxels, geometry) in zip((ct, mri), before, strict=True):
            nowVoxels, nowGeometry = contentOf(node)
            np.testing.assert_array_equal(nowVoxels, voxels, f"the voxels of {node.GetName()} were changed")
            np.testing.assert_array_equal(nowGeometry, geometry, f"{node.GetName()} was moved")
        self.logic.close()

    def test_everyOutputIsMade(self):
        self.delayDisplay("Fusing again, with every output, without a registration")
        ct, mri = self.addPhantom()
        bridge.move_ct_onto_mri(ct, mri, self.pair.transform)
        outcome = self.logic.process(
            ct, mri, alphaVolume=True, resampledCTVolume=True, keepAlignment=True, settings=Settings(bone=True)
        )
        assert outcome.transformNode is None
        segments = outcome.boneSegmentation.GetSegmentation().GetNumberOfSegments()
        assert segments == 1, f"the bone has {segments} segments"
        alpha = slicer.util.arrayFromVolume(outcome.alphaVolume)
        assert alpha.min() == 0, f"the least weight is {alpha.min()}"
        assert alpha.max() == 1, f"the greatest weight is {alpha.max()}"
        hu = slicer.util.arrayFromVolume(outcome.resampledCTVolume)
        assert hu.shape == slicer.util.arrayFromVolume(mri).shape
        assert hu.max() > 1000, f"the densest voxel of the resampled CT has {hu.max()} HU"
        # The pose was the true one: bone is where the MRI is dark.
        bone = slicer.util.arrayFromVolume(mri)[hu > 700].mean()
        assert bone < slicer.util.arrayFromVolume(mri)[(hu > 0) & (hu < 100)].mean(), "the CT is misaligned"
        self.logic.close()

    def test_theFusedVolumeCanHaveTheVoxelsOfTheCT(self):
        self.delayDisplay("Fusing on the CT's voxels")
        ct, mri = self.addPhantom()
        bridge.move_ct_onto_mri(ct, mri, self.pair.transform)
        settings = Settings(fusion=FusionSettings("bone_over_mri"), output=OutputSettings(grid="ct"))
        outcome = self.logic.process(
            ct, mri, resampledCTVolume=True, keepAlignment=True, check=False, settings=settings
        )
        voxels, geometry = contentOf(ct)
        moved = slicer.util.arrayFromTransformMatrix(ct.GetParentTransformNode(), toWorld=True) @ geometry
        for node in (outcome.fusedVolume, outcome.resampledCTVolume):
            nowVoxels, nowGeometry = contentOf(node)
            assert nowVoxels.shape == voxels.shape
            np.testing.assert_allclose(nowGeometry, moved, atol=1e-4, err_msg=f"{node.GetName()} is not on the CT")
        np.testing.assert_array_equal(contentOf(outcome.resampledCTVolume)[0], voxels, "the CT was resampled")
        pose = departing.pose_of(outcome.fusedVolume)
        np.testing.assert_allclose(pose.moving_from_fixed_lps, self.pair.transform.moving_from_fixed_lps, atol=1e-6)
        self.logic.close()

    def test_theMriIsPutOntoTheCt(self):
        self.delayDisplay("Putting the MRI onto the CT")
        ct, mri = self.addPhantom()
        above = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLLinearTransformNode", "above the CT")
        moveBy(above, 20.0)
        ct.SetAndObserveTransformNodeID(above.GetID())
        before = [contentOf(node) for node in (ct, mri)]
        outcome = self.logic.process(ct, mri, settings=Settings(output=OutputSettings("ct")))
        assert ct.GetParentTransformNode() == above, "the CT was moved"
        assert mri.GetParentTransformNode() == outcome.transformNode, "the MRI was not moved"
        assert outcome.transformNode.GetName() == "MRI to CT"
        self.checkAlignment(ct, mri=mri)
        for node in (outcome.fusedVolume, outcome.transformNode):
            assert node.GetParentTransformNode() == above, f"{node.GetName()} does not belong to the CT"
        np.testing.assert_allclose(contentOf(outcome.fusedVolume)[1], before[0][1], atol=1e-6)
        changes = currency.changes_since(currency.stored_on(outcome.fusedVolume), ct, mri)
        assert not changes, f"nothing was changed, but: {changes}"
        assert self.logic.undo(mri)
        assert mri.GetParentTransformNode() is None, "undo left the MRI under a transform"
        assert self.logic.redo(ct, mri)
        bridge.move_ct_onto_mri(ct, mri, outcome.result.transform)
        assert mri.GetParentTransformNode() is None, "both were moved"
        self.checkAlignment(ct, mri=mri)
        for node, (voxels, geometry) in zip((ct, mri), before, strict=True):
            np.testing.assert_array_equal(contentOf(node)[0], voxels, f"the voxels of {node.GetName()} were changed")
            np.testing.assert_array_equal(contentOf(node)[1], geometry, f"{node.GetName()} was changed")
        self.logic.close()

    def test_cancelChangesNothing(self):
        self.delayDisplay("Cancel")
        ct, mri = self.addPhantom()
        nodes = displayable()
        ended = self.startAndInterrupt(ct, mri, self.logic.cancel)
        assert isinstance(ended, Cancelled), f"cancelling ended with {ended!r}"
        assert displayable() == nodes, "cancelling left nodes behind"
        assert ct.GetParentTransformNode() is None
        assert not self.logic.running

    def test_removingAVolumeEndsTheFusion(self):
        self.delayDisplay("Removing the MRI while it is fused")
        ct, mri = self.addPhantom()
        ended = self.startAndInterrupt(ct, mri, lambda: slicer.mrmlScene.RemoveNode(mri))
        assert isinstance(ended, Cancelled), f"removing the MRI ended with {ended!r}"
        assert ct.GetParentTransformNode() is None

    def test_aSecondFusionIsRefused(self):
        ct, mri = self.addPhantom()
        refused = []

        def startAgain():
            try:
                self.logic.startFusion(ct, mri)
            except SettingsError as error:
                refused.append(error)
            self.logic.cancel()

        self.startAndInterrupt(ct, mri, startAgain)
        assert refused, "a second fusion was started while one was running"

    def startAndInterrupt(self, ct, mri, interruption):
        """Start a fusion, do something in the middle of the registration, and return the error that it ended with."""
        ended, interrupted = [], []

        def progress(stage, fraction):
            if stage == "registration" and not interrupted:
                interrupted.append(stage)
                interruption()

        self.logic.startFusion(
            ct, mri, progressCallback=progress, finishedCallback=lambda outcome, error: ended.append(error)
        )
        began = time.monotonic()
        while not ended:
            assert time.monotonic() - began < TIMEOUT_S, "the fusion did not end"
            slicer.app.processEvents()
            time.sleep(0.01)
        assert interrupted, "no progress of the registration was reported"
        self.logic.close()
        return ended[0]

    def test_resultsAreSavedAndLoaded(self):
        self.delayDisplay("Saving and loading the scene")
        ct, mri = self.addPhantom()
        transform = bridge.move_ct_onto_mri(ct, mri, self.pair.transform)
        transform.SetName("CT to MRI of the phantom")
        with tempfile.TemporaryDirectory() as folder:
            path = str(Path(folder) / "scene.mrb")
            assert slicer.mrmlScene.WriteToMRB(path), "the scene was not saved"
            slicer.mrmlScene.Clear()
            assert slicer.mrmlScene.ReadFromMRB(path, True), "the scene was not loaded"
        ct = slicer.mrmlScene.GetFirstNodeByName("Phantom CT")
        self.checkAlignment(ct)
        assert registered_ct.result_transform_of(ct).GetName() == "CT to MRI of the phantom"
        assert self.logic.undo(ct), "after loading the scene nothing could be undone"
        assert ct.GetParentTransformNode() is None
        assert self.logic.redo(ct, mri)

    def checkFused(self, fused, mri):
        voxels, geometry = contentOf(fused)
        mriVoxels, mriGeometry = contentOf(mri)
        np.testing.assert_allclose(geometry, mriGeometry, atol=1e-6)
        assert voxels.shape == mriVoxels.shape
        assert np.isfinite(voxels).all(), "the fused volume has voxels that are not numbers"
        assert voxels.max() > mriVoxels.max(), "no bone was written above the MRI's intensities"

    def checkAlignment(self, ct, ofItsOwn=False, mri=None):
        """Points of the brain must be at the same place in the world on the CT (moved by its transform) and the MRI.

        :param ofItsOwn: whether the CT was hardened: its own geometry has the movement
        :param mri: the MRI, if it may be under a transform, too
        """
        rasFromLps = np.array([-1.0, -1.0, 1.0])
        brain = self.pair.target_points()
        onMri = brain * rasFromLps
        onCt = self.pair.transform.apply(brain) * rasFromLps
        toWorld = np.eye(4)
        if ct.GetParentTransformNode() is not None:
            toWorld = slicer.util.arrayFromTransformMatrix(ct.GetParentTransformNode(), toWorld=True)
        if ofItsOwn:
            before = np.diag([-1.0, -1.0, 1.0, 1.0]) @ self.pair.ct.grid.lps_from_ijk
            toWorld = toWorld @ contentOf(ct)[1] @ np.linalg.inv(before)
        moved = onCt @ toWorld[:3, :3].T + toWorld[:3, 3]
        if mri is not None and mri.GetParentTransformNode() is not None:
            ofMri = slicer.util.arrayFromTransformMatrix(mri.GetParentTransformNode(), toWorld=True)
            onMri = onMri @ ofMri[:3, :3].T + ofMri[:3, 3]
        worst = float(np.linalg.norm(moved - onMri, axis=1).max())
        assert worst < WORST_ERROR_MM, f"the CT is misaligned: {worst:.1f} mm off in the brain"
