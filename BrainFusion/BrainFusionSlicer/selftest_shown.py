"""The part of the self-test that loads the sample, shows skull and brain in 3D, and asks for the expected error."""

from __future__ import annotations

import numpy as np
import slicer
import slicer.util

from BrainFusionSlicer import bridge, three_d
from BrainFusionSlicer.selftest_tools import chooseIn, idsOfUsers

NUMBER = "(at most"  # is in what is said of a point whose error is known


class ShownTests:
    """One walk a section; `BrainFusionTest` is one of these."""

    def shown(self):
        """Return all of them, in the order in which they run."""
        return (
            self.test_theSampleIsMadeAndChosen,
            self.test_skullAndBrainAreShownIn3D,
            self.test_theExpectedErrorIsTold,
        )

    def test_theSampleIsMadeAndChosen(self):
        self.requireWindow()
        self.delayDisplay("The sample")
        ui = self.openedPanel().ui
        assert not ui.sampleDataButton.isHidden(), "an empty panel does not offer the sample"
        ui.sampleDataButton.click()
        ct, mri = ui.ctSelector.currentNode(), ui.mriSelector.currentNode()
        assert ct is not None, "the sample's CT was not chosen"
        assert mri is not None, "the sample's MRI was not chosen"
        hu = slicer.util.arrayFromVolume(ct)
        assert hu.min() < -900, "the sample's CT has no air"
        assert hu.max() > 700, "the sample's CT has no bone"
        assert slicer.util.arrayFromVolume(mri).max() > 0, "the sample's MRI is empty"

    def test_skullAndBrainAreShownIn3D(self):
        self.requireWindow()
        self.delayDisplay("Skull and brain in 3D")
        ct, mri = self.addPhantom()
        transform = bridge.move_ct_onto_mri(ct, mri, self.pair.transform)
        panel = self.openedPanel()
        ui = panel.ui
        ui.ctSelector.setCurrentNode(ct)
        ui.mriSelector.setCurrentNode(mri)
        before = idsOfUsers()
        self.press(panel, ui.threeDButton)
        assert ui.threeDButton.checked, f"nothing is shown in 3D: {ui.statusLabel.text}"
        slicer.app.processEvents()
        display = self.rendering()
        shown = display.GetVolumeNode()
        assert display.GetVisibility(), "the skull is not rendered"
        assert display.GetCroppingEnabled(), "the CT is not cropped to the head"
        assert shown.GetImageData() == ct.GetImageData(), "the voxels of the CT were copied"
        assert shown.GetParentTransformNode() == transform, "the skull is not where the CT is"
        opacity = display.GetVolumePropertyNode().GetScalarOpacity()
        least = self.leastVisible(opacity)
        ui.boneShiftSlider.setValue(200.0)
        assert abs(self.leastVisible(opacity) - least - 200.0) < 1.0, "the slider does not move the preset"
        ui.boneShiftSlider.setValue(0.0)
        outlined = [n.GetName() for n in three_d.made(slicer.mrmlScene) if n.IsA("vtkMRMLSegmentationNode")]
        assert len(outlined) == 2, f"bone and brain are not both shown: {outlined}"
        ui.threeDButton.click()
        slicer.app.processEvents()
        assert not three_d.is_shown(slicer.mrmlScene), "what was shown in 3D is still there"
        assert idsOfUsers() == before, f"left behind: {idsOfUsers() ^ before}"
        assert ct.GetParentTransformNode() == transform, "showing the CT in 3D moved it"

    def test_theExpectedErrorIsTold(self):
        self.requireWindow()
        self.delayDisplay("Expected error at the cursor, at points and along a line")
        ct, mri = self.addPhantom()
        bridge.move_ct_onto_mri(ct, mri, self.pair.transform)
        panel = self.openedPanel()
        ui = panel.ui
        ui.ctSelector.setCurrentNode(ct)
        ui.mriSelector.setCurrentNode(mri)
        chooseIn(ui.startComboBox, "Skip")
        self.clickFuse(panel)
        assert ui.errorLayerButton.enabled, f"no errors: {ui.errorHintLabel.text} ({ui.statusLabel.text})"
        brain = self.pair.target_points() * np.array([-1.0, -1.0, 1.0])
        entry, target = brain[0].tolist(), brain[len(brain) // 2].tolist()
        crosshair = slicer.mrmlScene.GetFirstNodeByClass("vtkMRMLCrosshairNode")
        crosshair.SetCursorPositionRAS(target)
        assert NUMBER in ui.cursorErrorLabel.text, f"at the cursor: {ui.cursorErrorLabel.text}"
        points = self.placed("vtkMRMLMarkupsFiducialNode", [target])
        ui.errorPointsSelector.setCurrentNode(points)
        assert NUMBER in ui.errorPointsLabel.text, f"at a point: {ui.errorPointsLabel.text}"
        line = self.placed("vtkMRMLMarkupsLineNode", [entry, target])
        ui.errorPointsSelector.setCurrentNode(line)
        assert "Worst between them" in ui.errorPointsLabel.text, f"along a line: {ui.errorPointsLabel.text}"
        assert line.GetNumberOfControlPoints() == 2, "the line was changed"
        before = idsOfUsers()
        ui.errorLayerButton.click()
        assert ui.errorLayerButton.checked, "the colours are not shown"
        assert not ui.fusedCheckBox.checked, "two views are shown at once"
        slicer.app.processEvents()
        ui.errorLayerButton.click()
        slicer.app.processEvents()
        assert idsOfUsers() == before, f"left behind: {idsOfUsers() ^ before}"

    def rendering(self):
        """Return how the skull is rendered."""
        shown = [n for n in three_d.made(slicer.mrmlScene) if n.IsA("vtkMRMLVolumeRenderingDisplayNode")]
        assert len(shown) == 1, f"the skull is rendered {len(shown)} times"
        return shown[0]

    def placed(self, kind, positions):
        """Return a list of points, or a line, at places of the world, RAS mm."""
        node = slicer.mrmlScene.AddNewNodeByClass(kind, "planned")
        for position in positions:
            node.AddControlPoint(position)
        return node

    def leastVisible(self, opacity):
        """Return the Hounsfield unit from which a rendering shows anything."""
        return next(hu for hu in np.arange(-1100.0, 4000.0) if opacity.GetValue(hu) > 1e-3)
