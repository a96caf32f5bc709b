"""The panel's section *3D*: skull and brain by one button; the user's nodes stay, and off leaves nothing behind."""

import sys
from types import SimpleNamespace

import numpy as np
import pytest
import slicer
import slicer.util
from window import wait, walk_self_test

pytestmark = pytest.mark.filterwarnings("ignore:Setting the shape on a NumPy array:DeprecationWarning")

# Of Slicer's presets.xml.
FOUND = {}
OPACITY = ((-1000, 0), (152.19, 0), (278.93, 0.190476), (952, 0.2))


@pytest.fixture
def three_d(panel, nodes, application, monkeypatch):
    """The panel with a pair and Slicer's own logic for volume rendering and segmentations, with the preset for bone."""
    rendering, segmentations = slicer.vtkSlicerVolumeRenderingLogic(), slicer.vtkSlicerSegmentationsModuleLogic()
    for logic in (rendering, segmentations):
        logic.SetMRMLScene(slicer.mrmlScene)
    preset = slicer.vtkMRMLVolumePropertyNode()
    preset.SetName("CT-Bones")
    preset.GetScalarOpacity().RemoveAllPoints()  # of a new node's own
    preset.GetColor().RemoveAllPoints()
    for hu, opacity in OPACITY:
        preset.GetScalarOpacity().AddPoint(hu, opacity)
        preset.GetColor().AddRGBPoint(hu, 1, 1, 1)
    monkeypatch.setattr(
        slicer, "modules", SimpleNamespace(volumerendering=SimpleNamespace(logic=lambda: Presets(rendering, preset))),
        raising=False,
    )  # fmt: skip
    application.processEvents()  # chooses the pair
    panel.logic._runner = sys.modules["BrainFusionSlicer.runner"].InProcessRunner()
    from BrainFusionSlicer import shapes

    find = shapes.shapes_of

    def found_once(ct, mri, *more):  # the same pair in most tests
        key = tuple((volume.array_kji.tobytes(), volume.grid.lps_from_ijk.tobytes()) for volume in (ct, mri))
        if key not in FOUND:
            FOUND[key] = find(ct, mri, *more)
        return FOUND[key]

    monkeypatch.setattr(shapes, "shapes_of", found_once)
    yield panel
    sys.modules["BrainFusionSlicer.three_d"].hide(slicer.mrmlScene)
    for logic in (rendering, segmentations):
        logic.SetMRMLScene(None)


class Presets:
    """The real logic; without Slicer's share folder it has no presets."""

    def __init__(self, logic, preset):
        self.CreateVolumeRenderingDisplayNode = logic.CreateVolumeRenderingDisplayNode
        self.GetPresetByName = lambda name: preset if name == "CT-Bones" else None


def ids():
    scene = slicer.mrmlScene
    return {scene.GetNthNode(n).GetID() for n in range(scene.GetNumberOfNodes())}


def of_class(kind):
    return list(slicer.util.getNodesByClass(kind))


def test_the_list_in_which_the_mouse_places_points_stays_the_users(three_d):
    selection = slicer.mrmlScene.GetNodeByID("vtkMRMLSelectionNodeSingleton")
    own = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLMarkupsLineNode", "trajectory")
    assert selection.GetActivePlaceNodeID() == own.GetID()
    for _n in range(2):  # shown, and hidden again
        three_d.ui.threeDButton.click()
        assert selection.GetActivePlaceNodeID() == own.GetID()
        assert selection.GetActivePlaceNodeClassName() == "vtkMRMLMarkupsLineNode"


def test_the_button_shows_and_hides_without_a_trace(three_d, nodes):
    before = ids()
    displays = nodes[0].GetNumberOfDisplayNodes()
    three_d.ui.threeDButton.click()
    assert ids() > before
    assert all(not slicer.mrmlScene.GetNodeByID(new).GetSaveWithScene() for new in ids() - before)
    assert nodes[0].GetNumberOfDisplayNodes() == displays
    three_d.ui.threeDButton.click()
    assert ids() == before
    assert nodes[0].GetNumberOfDisplayNodes() == displays


def test_ct_is_rendered_with_the_preset_cropped_to_the_head_and_shares_its_voxels(three_d, nodes):
    three_d.ui.threeDButton.click()
    (display,) = of_class("vtkMRMLVolumeRenderingDisplayNode")
    shown = display.GetVolumeNode()
    assert shown.GetImageData() == nodes[0].GetImageData()
    assert display.GetVisibility()
    assert display.GetCroppingEnabled()
    region = display.GetMarkupsROINode()
    box, whole = np.zeros(6), np.zeros(6)
    region.GetRASBounds(box)
    nodes[0].GetRASBounds(whole)
    assert (box[1::2] - box[::2] <= whole[1::2] - whole[::2] + 12).all()
    assert not region.GetDisplayVisibility()


def test_the_slider_moves_the_preset(three_d):
    three_d.ui.threeDButton.click()
    (display,) = of_class("vtkMRMLVolumeRenderingDisplayNode")
    opacity = display.GetVolumePropertyNode().GetScalarOpacity()
    assert opacity.GetValue(278.93) == pytest.approx(0.190476)
    three_d.ui.boneShiftSlider.setValue(200.0)
    assert opacity.GetValue(478.93) == pytest.approx(0.190476, abs=1e-3)
    assert opacity.GetValue(300) == pytest.approx(0)


def test_brain_has_a_surface_inside_the_head_and_bone_an_outline(three_d, nodes):
    three_d.ui.threeDButton.click()
    found = {node.GetName(): node for node in of_class("vtkMRMLSegmentationNode")}
    bone, brain = found["Bone of CT"], found["Brain of MRI"]
    assert bone.GetDisplayNode().GetVisibility2DOutline()
    assert not bone.GetDisplayNode().GetVisibility3D()
    assert brain.GetDisplayNode().GetVisibility3D()
    surface, whole = np.zeros(6), np.zeros(6)
    brain.GetRASBounds(surface)
    nodes[1].GetRASBounds(whole)
    size = surface[1::2] - surface[::2]
    assert (size > 80).all()
    assert (size < whole[1::2] - whole[::2]).all()


def test_what_is_shown_follows_the_ct(three_d, nodes):
    three_d.ui.threeDButton.click()
    moved = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLLinearTransformNode")
    nodes[0].SetAndObserveTransformNodeID(moved.GetID())
    three_d.updatePanel()
    (display,) = of_class("vtkMRMLVolumeRenderingDisplayNode")
    assert display.GetVolumeNode().GetParentTransformNode() == moved
    assert display.GetMarkupsROINode().GetParentTransformNode() == moved


@pytest.mark.parametrize("change", ["voxels", "hardened"])
def test_what_was_found_in_other_voxels_goes(three_d, nodes, change):
    three_d.ui.threeDButton.click()
    assert three_d.ui.threeDButton.isChecked()
    if change == "voxels":
        slicer.util.arrayFromVolume(nodes[1])[:] = 0
        slicer.util.arrayFromVolumeModified(nodes[1])
    else:
        nodes[0].SetOrigin(1, 2, 3)
    three_d.updatePanel()
    assert not three_d.ui.threeDButton.isChecked()
    assert not sys.modules["BrainFusionSlicer.three_d"].made(slicer.mrmlScene)


def test_another_pair_takes_it_away(three_d):
    three_d.ui.threeDButton.click()
    three_d.ui.mriSelector.setCurrentNode(None)
    assert not of_class("vtkMRMLVolumeRenderingDisplayNode")
    assert not three_d.ui.threeDButton.isChecked()


def test_a_view_of_the_review_leaves_it_alone(three_d, nodes):
    three_d.ui.threeDButton.click()
    sys.modules["BrainFusionSlicer.review"].put_away(None, nodes[0], slicer.mrmlScene)
    assert of_class("vtkMRMLVolumeRenderingDisplayNode")


def test_it_stays_while_another_module_is_shown_and_goes_with_its_volume(three_d, nodes):
    three_d.ui.threeDButton.click()
    three_d.exit()
    assert of_class("vtkMRMLVolumeRenderingDisplayNode")
    slicer.mrmlScene.RemoveNode(nodes[0])
    assert not of_class("vtkMRMLVolumeRenderingDisplayNode")
    assert not of_class("vtkMRMLSegmentationNode")


def test_it_goes_with_the_module(three_d):
    three_d.ui.threeDButton.click()
    three_d.exit()
    three_d.cleanup()
    assert not of_class("vtkMRMLVolumeRenderingDisplayNode")


@pytest.fixture
def slow(three_d):
    """The panel, and what to call when skull and brain have been found."""
    runner = three_d.logic._runner
    later, export = [], runner.export

    def held(order, inputs, progress, done):
        progress("shapes", 0.4)
        later.append(lambda: export(order, inputs, progress, done))

    runner.export = held
    runner.cancel = lambda: later.clear()
    return three_d, later


def test_meanwhile_the_window_shows_the_progress_and_nothing_in_3d(slow):
    panel, later = slow
    before = ids()
    panel.ui.threeDButton.click()
    assert ids() == before
    assert panel.ui.progressBar.isVisible()
    assert "Finding skull and brain" in panel.ui.statusLabel.text
    assert panel.ui.fuseButton.text == "Cancel"
    assert not panel.ui.threeDButton.isEnabled()
    later.pop()()
    assert panel.ui.threeDButton.isChecked()
    assert not panel.ui.progressBar.isVisible()


def test_a_volume_that_is_moved_meanwhile_is_shown_where_it_is(slow, nodes):
    panel, later = slow
    panel.ui.threeDButton.click()
    moved = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLLinearTransformNode")
    matrix = np.eye(4)
    matrix[:3, 3] = (40, 0, 0)
    slicer.util.updateTransformMatrixFromArray(moved, matrix)
    nodes[1].SetAndObserveTransformNodeID(moved.GetID())
    later.pop()()
    brain = next(node for node in of_class("vtkMRMLSegmentationNode") if node.GetName() == "Brain of MRI")
    surface, whole = np.zeros(6), np.zeros(6)
    brain.GetRASBounds(surface)
    nodes[1].GetRASBounds(whole)
    assert (surface[::2] > whole[::2]).all()
    assert (surface[1::2] < whole[1::2]).all()


@pytest.mark.parametrize("what", ["changed", "removed", "another pair", "closed"])
def test_what_is_not_there_any_more_is_not_shown(slow, nodes, what):
    panel, later = slow
    panel.ui.threeDButton.click()
    found = later.pop()
    if what == "changed":
        slicer.util.arrayFromVolume(nodes[1])[0, 0, 0] += 1
        slicer.util.arrayFromVolumeModified(nodes[1])
    elif what == "removed":
        slicer.mrmlScene.RemoveNode(nodes[1])
    elif what == "another pair":
        panel.ui.mriSelector.setCurrentNode(None)
    else:
        slicer.mrmlScene.Clear()
    found()
    assert not of_class("vtkMRMLVolumeRenderingDisplayNode")
    assert not panel.ui.threeDButton.isChecked()
    assert ("click Skull and brain in 3D again" in panel.ui.statusLabel.text) == (what == "changed")


def test_the_worker_finds_skull_and_brain_and_can_be_cancelled(three_d, nodes):
    panel = three_d
    panel.logic._runner.close()
    panel.logic._runner = sys.modules["BrainFusionSlicer.logic"].make_runner()
    before = ids()
    panel.ui.threeDButton.click()
    panel.ui.fuseButton.click()
    assert "Cancelled; nothing was changed" in panel.ui.statusLabel.text
    assert ids() == before
    panel.ui.threeDButton.click()
    wait(panel, lambda: not panel.logic.running)
    assert panel.ui.threeDButton.isChecked(), panel.ui.statusLabel.text
    assert {node.GetName() for node in of_class("vtkMRMLSegmentationNode")} == {"Bone of CT", "Brain of MRI"}
    panel.logic.close()


def test_a_pair_without_a_head_is_explained(three_d, nodes):
    slicer.util.arrayFromVolume(nodes[0])[:] = -1000
    slicer.util.arrayFromVolumeModified(nodes[0])
    three_d.ui.threeDButton.click()
    assert "Not shown: " in three_d.ui.statusLabel.text
    assert not three_d.ui.threeDButton.isChecked()


def test_the_self_test_walks_the_3d_section(three_d, nodes, module, phantom, monkeypatch):
    slicer.mrmlScene.Clear()
    walk_self_test(module, three_d, phantom, monkeypatch, "test_skullAndBrainAreShownIn3D")
