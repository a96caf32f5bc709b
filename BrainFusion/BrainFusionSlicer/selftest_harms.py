"""The part of the self-test that walks every way in which the module could harm its user."""

from __future__ import annotations

import time

import numpy as np
import slicer
import slicer.util
import vtk

from BrainFusionLib.errors import GeometryError, ImageContentError, SettingsError
from BrainFusionLib.transform import RigidTransform
from BrainFusionSlicer import bridge, currency, masks, ownership, registered_ct, segmentations
from BrainFusionSlicer.selftest_tools import (
    TIMEOUT_S,
    addUsersVolume,
    chooseIn,
    contentOf,
    errorOf,
    isUntouched,
    moveBy,
)


class HarmTests:
    """One test a harm; `BrainFusionTest` is one of these."""

    def harms(self):
        """Return all of them, in the order in which they run."""
        return (
            self.test_usersNodesAreNotOverwritten,
            self.test_eachPairHasItsOwnOutputs,
            self.test_theVerdictKnowsWhatItJudged,
            self.test_aHardenedCtIsNotMoved,
            self.test_whatBelongsToTheCtMovesWithIt,
            self.test_aWarpedCtIsReplacedByAResampledOne,
            self.test_aTiltedCtIsStraightened,
            self.test_aMaskIsReadWithoutATrace,
            self.test_thePanelLosesNothing,
            self.test_thePanelShowsWhatWasRegistered,
        )

    def fuseQuickly(self, ct, mri, **options):
        """Put the CT onto the MRI by the true transform, and fuse them without a registration."""
        bridge.move_ct_onto_mri(ct, mri, self.pair.transform)
        return self.logic.process(ct, mri, keepAlignment=True, check=False, **options)

    def test_usersNodesAreNotOverwritten(self):
        self.delayDisplay("A volume of the user's as output")
        ct, mri = self.addPhantom()
        flair = addUsersVolume()
        refused = errorOf(SettingsError, lambda: self.logic.process(ct, mri, flair))
        assert "user FLAIR" in str(refused), f"a volume of the user's was not refused as output: {refused}"
        assert isUntouched(flair)
        self.fuseQuickly(ct, mri, fusedVolume=flair, overwrite=[flair])
        assert not isUntouched(flair), "a volume that was allowed to be overwritten was not"
        self.logic.close()

    def test_eachPairHasItsOwnOutputs(self):
        self.delayDisplay("Two pairs in one scene")
        (ct, mri), (otherCt, otherMri) = self.addPhantom(), self.addPhantom()
        first, second = self.fuseQuickly(ct, mri), self.fuseQuickly(otherCt, otherMri)
        assert first.fusedVolume != second.fusedVolume
        transform = ct.GetParentTransformNode()
        assert transform != otherCt.GetParentTransformNode()
        assert errorOf(
            GeometryError, lambda: bridge.move_ct_onto_mri(otherCt, otherMri, self.pair.transform, into=transform)
        ), "the transform of one CT was written for another"
        self.checkAlignment(ct)
        self.checkAlignment(otherCt)
        self.logic.close()

    def test_theVerdictKnowsWhatItJudged(self):
        self.delayDisplay("Changes after the verdict")
        ct, mri = self.addPhantom()
        fused = self.fuseQuickly(ct, mri).fusedVolume
        transform = ct.GetParentTransformNode()

        def changes():
            return currency.changes_since(currency.stored_on(fused), ct, mri)

        assert changes() == [], f"nothing was changed, but: {changes()}"
        mri.SetName("renamed")
        mri.GetDisplayNode().SetWindowLevel(300, 40)
        assert changes() == [], f"only a name and a window were changed, but: {changes()}"
        moveBy(transform, 15.0)
        assert changes(), "a transform that was moved by 15 mm was not noticed"
        moveBy(transform, -15.0)
        assert changes() == [], f"the transform is where it was, but: {changes()}"
        slicer.util.arrayFromVolume(mri)[0, 0, 0] += 1
        slicer.util.arrayFromVolumeModified(mri)
        assert changes(), "a voxel that was changed was not noticed"
        self.logic.close()

    def test_aHardenedCtIsNotMoved(self):
        self.delayDisplay("Hardening")
        ct, mri = self.addPhantom()
        fused = self.fuseQuickly(ct, mri).fusedVolume
        ct.HardenTransform()
        self.checkAlignment(ct, ofItsOwn=True)
        assert not self.logic.undo(ct)
        assert not self.logic.redo(ct, mri)
        self.checkAlignment(ct, ofItsOwn=True)
        assert currency.changes_since(currency.stored_on(fused), ct, mri), "hardening was not noticed"
        self.logic.close()

    def test_thePanelLosesNothing(self):
        self.requireWindow()
        self.delayDisplay("Deleting an output that the panel has chosen")
        panel = self.openedPanel()
        ui = panel.ui
        ct, mri = self.addPhantom()
        flair = addUsersVolume()
        bridge.move_ct_onto_mri(ct, mri, self.pair.transform)
        ui.ctSelector.setCurrentNode(ct)
        ui.mriSelector.setCurrentNode(mri)
        chooseIn(ui.startComboBox, "Skip")
        self.clickFuse(panel)
        slicer.mrmlScene.RemoveNode(ui.fusedSelector.currentNode())
        assert ui.fusedSelector.currentNode() is None, "the selector moved to a neighbour"
        self.clickFuse(panel)
        assert isUntouched(flair), "a volume of the user's was overwritten"
        moveBy(ct.GetParentTransformNode(), 15.0)
        verdict = ui.verdictLabel.text
        assert "Changed since" in verdict, f"after a move of 15 mm the panel says: {verdict}"
        moveBy(ct.GetParentTransformNode(), -15.0)
        ui.showUnregisteredButton.click()
        assert ct.GetParentTransformNode() is None
        ui.showUnregisteredButton.click()
        self.checkAlignment(ct)
        ct.HardenTransform()
        ui.showUnregisteredButton.click()
        ui.undoButton.click()
        self.checkAlignment(ct, ofItsOwn=True)
        slicer.mrmlScene.RemoveNode(mri)
        assert ui.mriSelector.currentNode() is None
        assert ui.verdictLabel.text == "", "a verdict is shown without an MRI"

    def clickFuse(self, panel):
        """Click Fuse, and wait until it is done."""
        panel.ui.fuseButton.click()
        assert panel.logic.running or "Fused" in panel.ui.statusLabel.text, panel.ui.statusLabel.text
        began = time.monotonic()
        while panel.logic.running:
            assert time.monotonic() - began < TIMEOUT_S, "the fusion did not end"
            slicer.app.processEvents()
            time.sleep(0.01)

    def test_whatBelongsToTheCtMovesWithIt(self):
        self.delayDisplay("What belongs to the CT")
        ct, mri = self.addPhantom()
        own = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLLinearTransformNode", "own")
        above = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLLinearTransformNode", "above the MRI")
        ct.SetAndObserveTransformNodeID(own.GetID())
        mri.SetAndObserveTransformNodeID(above.GetID())
        points = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLMarkupsFiducialNode", "points")
        points.SetAndObserveTransformNodeID(own.GetID())
        segmentation = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLSegmentationNode", "segmentation")
        segmentation.SetReferenceImageGeometryParameterFromVolumeNode(ct)
        segmentation.SetAndObserveTransformNodeID(own.GetID())
        result = bridge.move_ct_onto_mri(ct, mri, self.pair.transform)
        assert registered_ct.moved_with(ct) == 2, f"{registered_ct.moved_with(ct)} nodes moved with the CT"
        assert points.GetParentTransformNode() == segmentation.GetParentTransformNode() == result
        assert result.GetParentTransformNode() == above, "moving the MRI's transform would leave the CT behind"
        self.checkAlignment(ct)
        assert self.logic.undo(ct)
        for node in (ct, points, segmentation):
            assert node.GetParentTransformNode() == own, f"undo left {node.GetName()} elsewhere"
        self.logic.close()

    def test_aWarpedCtIsReplacedByAResampledOne(self):
        self.delayDisplay("A CT under a transform that is not linear")
        ct, mri = self.addPhantom()
        warp = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLGridTransformNode", "Acquisition transform")
        ct.SetAndObserveTransformNodeID(warp.GetID())
        outcome = self.logic.process(ct, mri, keepAlignment=True, check=False)
        assert ct.GetParentTransformNode() == warp, "the CT was taken out of the user's transform"
        shown = ownership.registered_ct_of(outcome.fusedVolume)
        assert shown == outcome.resampledCTVolume, "what is shown as registered is not what was registered"
        self.logic.close()

    def test_aTiltedCtIsStraightened(self):
        self.delayDisplay("A tilted CT")
        ct, mri = self.addPhantom()
        matrix = vtk.vtkMatrix4x4()
        ct.GetIJKToRASMatrix(matrix)
        sheared = slicer.util.arrayFromVTKMatrix(matrix)
        sheared[:3, 2] += 0.3 * sheared[:3, 1]  # as Slicer's DICOM loader writes it, without a transform
        slicer.util.updateVTKMatrixFromArray(matrix, sheared)
        ct.SetIJKToRASMatrix(matrix)
        read = bridge.volume_from_node(ct)
        assert "the gantry was tilted" in " ".join(read.notes), f"notes: {read.notes}"
        outcome = self.logic.process(ct, mri, keepAlignment=True, check=False)
        assert np.isfinite(slicer.util.arrayFromVolume(outcome.fusedVolume)).all()
        np.testing.assert_allclose(contentOf(ct)[1], sheared, err_msg="the CT was changed")
        self.logic.close()

    def test_aMaskIsReadWithoutATrace(self):
        self.delayDisplay("A segmentation as registration mask")
        _ct, mri = self.addPhantom()
        drawn = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLSegmentationNode", "tumour")
        where = slicer.util.arrayFromVolume(mri) > 0
        segmentations.fill(drawn, where, self.pair.mri.grid.lps_from_ijk, None, segmentations.BONE_COLOUR)
        slicer.app.processEvents()
        before = {node.GetID() for node in ownership.nodes_of(slicer.mrmlScene)}
        read = masks.mask_from_node(drawn, mri, None)
        np.testing.assert_array_equal(np.asarray(read.array_kji) > 0, where, "the mask is not what was drawn")
        name = drawn.GetSegmentation().GetNthSegmentID(0)
        drawn.GetDisplayNode().SetSegmentVisibility(name, False)
        assert errorOf(ImageContentError, lambda: masks.mask_from_node(drawn, mri, None)), "a hidden segment was read"
        left = {node.GetID() for node in ownership.nodes_of(slicer.mrmlScene)} - before
        assert not left, f"left behind: {sorted(left)}"

    def test_thePanelShowsWhatWasRegistered(self):
        self.requireWindow()
        self.delayDisplay("The views of the review")
        panel = self.openedPanel()
        ui = panel.ui
        ct, mri = self.addPhantom()
        window = ct.GetDisplayNode().GetWindow()
        slicer.app.processEvents()
        bridge.move_ct_onto_mri(ct, mri, RigidTransform.identity())
        bridge.move_ct_onto_mri(ct, mri, self.pair.transform)
        ui.ctSelector.setCurrentNode(ct)
        ui.mriSelector.setCurrentNode(mri)
        chooseIn(ui.startComboBox, "Skip")
        self.clickFuse(panel)
        buttons = [ui.fusedCheckBox, ui.overlayButton, ui.outlineButton, ui.checkerboardButton]
        for button in (*buttons[1:], buttons[0]):
            button.click()
            shown = [other for other in buttons if other.checked]
            assert shown == [button], f"{len(shown)} views are shown at once"
        assert ct.GetDisplayNode().GetWindow() == window, "the window of the CT was changed"
        left = [n for n in slicer.util.getNodesByClass("vtkMRMLScalarVolumeNode") if ownership.review_role_of(n)]
        assert not left, f"temporary volumes are left: {[node.GetName() for node in left]}"
        ui.showUnregisteredButton.click()
        assert "Green" not in ui.verdictLabel.text, "a green verdict beside the unregistered CT"
        ui.showUnregisteredButton.click()
        self.checkAlignment(ct)
