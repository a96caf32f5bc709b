"""Volumes without voxels to read, chosen or become so: the panel says it, and shows nothing of what was before."""

import sys
import traceback

import pytest
import slicer
import slicer.util
import vtk

VOLUME = "vtkMRMLScalarVolumeNode"
pytestmark = pytest.mark.filterwarnings("ignore:Setting the shape on a NumPy array:DeprecationWarning")


def no_image():
    return None


def empty():
    return vtk.vtkImageData()


def without_values():
    image = vtk.vtkImageData()
    image.SetDimensions(30, 40, 50)
    return image


def coloured():
    image = without_values()
    image.AllocateScalars(vtk.VTK_SHORT, 3)
    image.GetPointData().GetScalars().Fill(0)
    return image


every_image = pytest.mark.parametrize("image", [no_image, empty, without_values, coloured])


@pytest.fixture(autouse=True)
def raised(monkeypatch):
    """Qt and VTK only print what a callback raises."""
    heard = []
    monkeypatch.setattr(sys, "excepthook", lambda *what: heard.append("".join(traceback.format_exception(*what)[-2:])))
    yield heard
    assert heard == []


@every_image
@pytest.mark.parametrize("index", [0, 1], ids=["CT", "MRI"])
def test_a_volume_that_cannot_be_read_is_named_and_nothing_can_be_started(panel, nodes, image, index):
    strange = slicer.mrmlScene.AddNewNodeByClass(VOLUME, "strange")
    strange.SetAndObserveImageData(image())
    pair = [strange if n == index else node for n, node in enumerate(nodes)]
    panel.ui.ctSelector.setCurrentNode(pair[0])
    panel.ui.mriSelector.setCurrentNode(pair[1])
    assert panel.ui.statusLabel.text.startswith("strange ")
    for name in ("fuseButton", "registerButton", "checkButton", "refineButton", "adjustButton", "threeDButton"):
        assert not getattr(panel.ui, name).isEnabled(), name
    panel.exit()
    panel.enter()


@every_image
def test_a_strange_volume_does_not_keep_the_only_pair_from_being_chosen(panel, nodes, image):
    slicer.mrmlScene.AddNewNodeByClass(VOLUME, "strange").SetAndObserveImageData(image())
    panel.catchUp()
    assert [panel.ui.ctSelector.currentNode(), panel.ui.mriSelector.currentNode()] == nodes


@every_image
@pytest.mark.parametrize("which", ["CT", "MRI", "fused"])
def test_no_verdict_is_shown_of_voxels_that_are_gone(chosen, nodes, image, which):
    chosen.ui.fuseButton.click()
    assert "Green" in chosen.ui.verdictLabel.text
    node = {"CT": nodes[0], "MRI": nodes[1], "fused": chosen.ui.fusedSelector.currentNode()}[which]
    node.SetAndObserveImageData(image())
    assert "Green" not in chosen.ui.verdictLabel.text or chosen.ui.verdictFrame.isHidden()
    assert not chosen.ui.approveButton.isEnabled()
    chosen.ui.undoButton.click()
    chosen.exit()
    chosen.enter()


def test_a_panel_that_cannot_tell_its_state_shows_no_verdict_of_before(chosen, monkeypatch, raised):
    from BrainFusionSlicer import panel_state

    chosen.ui.fuseButton.click()
    with monkeypatch.context() as patch:
        patch.setattr(panel_state.currency, "stored_on", lambda node: 1 / 0)
        slicer.util.arrayFromVolumeModified(chosen.ui.mriSelector.currentNode())
        assert chosen.ui.verdictFrame.isHidden()
        assert not chosen.ui.fuseButton.isEnabled()
        assert "cannot be read" in chosen.ui.statusLabel.text
    assert "ZeroDivisionError" in "".join(raised)
    raised.clear()
    chosen.updatePanel()
    assert "Green" in chosen.ui.verdictLabel.text
    assert not chosen.ui.verdictFrame.isHidden()
    assert chosen.ui.fuseButton.isEnabled()
