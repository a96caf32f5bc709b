"""Outputs that the user has hardened in another place: they are his by then."""

import numpy as np
import pytest
import slicer
import slicer.util
import vtk

from BrainFusionLib.errors import SettingsError

TRANSFORM = "vtkMRMLLinearTransformNode"
pytestmark = pytest.mark.filterwarnings("ignore:Setting the shape on a NumPy array:DeprecationWarning")


@pytest.fixture
def fused(chosen):
    """The panel after a fusion, and its fused volume."""
    chosen.ui.fuseButton.click()
    return chosen, chosen.ui.fusedSelector.currentNode()


def harden_elsewhere(node):
    """As the user does who takes a result into the space of an atlas."""
    plan = slicer.mrmlScene.AddNewNodeByClass(TRANSFORM, "to the atlas")
    matrix = np.eye(4)
    matrix[:3, 3] = 30, 20, 10
    slicer.util.updateTransformMatrixFromArray(plan, matrix)
    node.SetAndObserveTransformNodeID(plan.GetID())
    node.HardenTransform()


def geometry_of(volume):
    matrix = vtk.vtkMatrix4x4()
    volume.GetIJKToRASMatrix(matrix)
    return slicer.util.arrayFromVTKMatrix(matrix)


def test_a_fused_volume_that_was_hardened_elsewhere_is_kept_and_the_next_is_a_new_one(fused):
    panel, first = fused
    harden_elsewhere(first)
    before = geometry_of(first)
    panel.ui.fuseButton.click()
    assert "hardened or given another geometry since it was made: it was kept" in panel.ui.statusLabel.text
    assert panel.ui.fusedSelector.currentNode() != first
    np.testing.assert_array_equal(geometry_of(first), before)
    with pytest.raises(SettingsError, match="hardened"):
        panel.logic.process(panel.ui.ctSelector.currentNode(), panel.ui.mriSelector.currentNode(), first)


def test_a_bone_that_was_hardened_elsewhere_is_kept_and_the_next_is_a_new_one(chosen):
    chosen.ui.boneCheckBox.click()
    chosen.ui.fuseButton.click()
    (first,) = slicer.util.getNodesByClass("vtkMRMLSegmentationNode")
    chosen.ui.fuseButton.click()
    assert slicer.util.getNodesByClass("vtkMRMLSegmentationNode") == [first]
    harden_elsewhere(first)
    before = first.GetSegmentation().GetNthSegment(0).GetRepresentation("Binary labelmap").GetOrigin()
    chosen.ui.fuseButton.click()
    assert len(slicer.util.getNodesByClass("vtkMRMLSegmentationNode")) == 2
    assert first.GetSegmentation().GetNthSegment(0).GetRepresentation("Binary labelmap").GetOrigin() == before
    assert "it was kept" in chosen.ui.statusLabel.text
