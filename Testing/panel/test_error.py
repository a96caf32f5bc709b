"""The panel's section *Expected error*: the cursor, points, a line and the colour layer; the user's nodes stay."""

import sys
from dataclasses import replace

import numpy as np
import pytest
import slicer
import slicer.util
import vtk
from window import walk_self_test

from BrainFusionLib import fuse
from BrainFusionLib.error_map import ErrorMap
from BrainFusionLib.transform import RigidTransform
from BrainFusionLib.verdict.judge import Verdict

pytestmark = pytest.mark.filterwarnings("ignore:Setting the shape on a NumPy array:DeprecationWarning")


@pytest.fixture(scope="session")
def made(phantom):
    """A result whose expected error is 1 mm on the right of the head's middle, 3 mm on the left, unknown at the top."""
    result = fuse(phantom.ct, phantom.mri, transform=phantom.transform, check=False)
    grid = result.grid.with_spacing((8.0, 8.0, 8.0))
    k, j, i = np.indices(grid.shape_kji)
    lps = np.stack([i, j, k], -1) @ grid.lps_from_ijk[:3, :3].T + grid.lps_from_ijk[:3, 3]
    middle = result.grid.centre_lps_mm
    errors = np.where(lps[..., 0] > middle[0], 3.0, 1.0)
    errors[lps[..., 2] > middle[2] + 50] = np.nan
    verdict = Verdict("amber", (), 1.0, 1.5)
    return replace(result, verdict=verdict, error_map=ErrorMap.of(errors, grid, 2.0))


@pytest.fixture
def asking(panel, nodes, made, application):
    """The panel after a fusion, whose result was computed before; with a cursor as Slicer has it."""
    runner = sys.modules["BrainFusionSlicer.runner"].InProcessRunner()
    runner.run = lambda request, inputs, progress, done: done(made, None)
    panel.logic._runner = runner
    crosshair = slicer.mrmlScene.CreateNodeByClass("vtkMRMLCrosshairNode")
    crosshair.UnRegister(None)
    crosshair.SetSingletonTag("default")
    slicer.mrmlScene.AddNode(crosshair)
    application.processEvents()  # chooses the pair
    panel.ui.fuseButton.click()
    assert panel.lastOutcome is not None, panel.ui.statusLabel.text
    return panel, crosshair


def world(made, dx=0.0, dz=0.0):
    x, y, z = np.add(made.grid.centre_lps_mm, (dx, 0, dz))
    return [-x, -y, z]


def listed(made, kind="vtkMRMLMarkupsFiducialNode", places=((-20, 0), (20, 0), (20, 80))):
    node = slicer.mrmlScene.AddNewNodeByClass(kind, "plan")
    for dx, dz in places:
        node.AddControlPoint(world(made, dx, dz))
    return node


def test_nothing_is_stated_without_a_result(panel):
    assert panel.ui.errorHintLabel.text == "Fuse first"
    assert not panel.ui.errorLayerButton.isEnabled()
    assert panel.ui.cursorErrorLabel.text == ""


def test_the_number_follows_the_cursor(asking, made):
    panel, crosshair = asking
    assert "move the cursor" in panel.ui.cursorErrorLabel.text
    for dx, words in ((-20, "1.0 mm (at most 2.0 mm"), (20, "3.0 mm (at most 6.0 mm")):
        crosshair.SetCursorPositionRAS(world(made, dx))
        assert words in panel.ui.cursorErrorLabel.text
    crosshair.SetCursorPositionRAS(world(made, 0, 80))
    assert panel.ui.cursorErrorLabel.text == "not known"


def test_the_number_is_that_of_the_anatomy_when_the_mri_is_moved(asking, nodes, made):
    panel, _ = asking
    moved = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLLinearTransformNode")
    matrix = np.eye(4)
    matrix[0, 3] = 100.0
    slicer.util.updateTransformMatrixFromArray(moved, matrix)
    found = sys.modules["BrainFusionSlicer.error_here"]
    pair = panel.sections[[type(section).__name__ for section in panel.sections].index("ErrorSection")]._found
    x, y, z = world(made, 20)
    before = found.words_at(pair, [x, y, z], nodes[1])
    nodes[1].SetAndObserveTransformNodeID(moved.GetID())
    assert found.words_at(pair, [x + 100.0, y, z], nodes[1]) == before


def test_a_tilted_mri_has_numbers_too(asking, nodes, made):
    """Its voxels in the scene are sheared: they are not those of the result, which was straightened."""
    panel, crosshair = asking
    matrix = vtk.vtkMatrix4x4()
    nodes[1].GetIJKToRASMatrix(matrix)
    sheared = slicer.util.arrayFromVTKMatrix(matrix)
    sheared[:3, 2] += 0.3 * sheared[:3, 1]
    slicer.util.updateVTKMatrixFromArray(matrix, sheared)
    nodes[1].SetIJKToRASMatrix(matrix)
    panel.ui.fuseButton.click()
    for dx, words in ((-20, "1.0 mm"), (20, "3.0 mm")):
        crosshair.SetCursorPositionRAS(world(made, dx))
        assert words in panel.ui.cursorErrorLabel.text


@pytest.mark.parametrize("frame", ["", "null", "{}", "[1, 2]", "[" + ", ".join(["NaN"] * 16) + "]", str([0] * 16)])
def test_a_broken_frame_in_a_scene_gives_no_numbers(asking, nodes, frame):
    found, fused = sys.modules["BrainFusionSlicer.error_here"], asking[0].registeredNodes()[0]
    assert found.of_result(fused, nodes[1]) is not None
    fused.SetAttribute(found.FRAME_ATTRIBUTE, frame)
    assert found.of_result(fused, nodes[1]) is None


def test_points_and_the_worst_along_a_line_are_listed_and_stay_as_they_are(asking, made):
    panel, _ = asking
    points = listed(made)
    panel.ui.errorPointsSelector.setCurrentNode(points)
    rows = panel.ui.errorPointsLabel.text.splitlines()
    assert len(rows) == 3
    assert rows[2].endswith("not known")
    line = listed(made, "vtkMRMLMarkupsLineNode", ((-20, 0), (20, 0)))
    panel.ui.errorPointsSelector.setCurrentNode(line)
    assert "Worst between them: 3.0 mm" in panel.ui.errorPointsLabel.text
    line.SetNthControlPointPosition(1, *world(made, -30))
    assert "Worst between them: 1.0 mm" in panel.ui.errorPointsLabel.text
    assert points.GetNumberOfControlPoints() == 3
    slicer.mrmlScene.RemoveNode(line)
    assert panel.ui.errorPointsSelector.currentNode() is None, "the selector moved to a neighbour"
    assert panel.ui.errorPointsLabel.text == ""


def test_colour_layer_lies_on_the_mri_and_leaves_nothing_behind(asking, nodes, made, layers):
    panel, _ = asking
    before = slicer.mrmlScene.GetNumberOfNodes()
    panel.ui.errorLayerButton.click()
    layer = layers[-1]["foreground"]
    assert layers[-1]["background"] == nodes[1]
    bounds, of_mri = np.zeros(6), np.zeros(6)
    layer.GetRASBounds(bounds)
    nodes[1].GetRASBounds(of_mri)
    assert np.abs(bounds - of_mri).max() < 10
    assert not layer.GetSaveWithScene()
    panel.ui.errorLayerButton.click()
    assert slicer.mrmlScene.GetNumberOfNodes() == before
    assert layers[-1]["foreground"] != layer


def test_no_button_of_the_review_is_pressed_while_the_colours_are_shown(asking, layers):
    ui, error_here = asking[0].ui, sys.modules["BrainFusionSlicer.error_here"]
    buttons = [ui.fusedCheckBox, ui.overlayButton, ui.outlineButton, ui.checkerboardButton, ui.showUnregisteredButton]
    for button in (ui.fusedCheckBox, ui.overlayButton, ui.outlineButton):
        ui.errorLayerButton.click()
        assert layers[-1]["foreground"] == error_here.layer_of(slicer.mrmlScene)
        assert not any(other.isChecked() for other in buttons)
        asking[0].updatePanel()
        assert ui.errorLayerButton.isChecked()
        button.click()
        assert [other for other in buttons if other.isChecked()] == [button]
        assert not ui.errorLayerButton.isChecked()
        assert error_here.layer_of(slicer.mrmlScene) is None
    ui.errorLayerButton.click()
    ui.errorLayerButton.click()
    assert [other for other in buttons if other.isChecked()] == [ui.fusedCheckBox]


def test_when_the_colours_do_not_hold_any_more_the_button_says_what_is_shown(asking, nodes):
    ui = asking[0].ui
    view = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLSliceCompositeNode")
    for button in (ui.errorLayerButton, ui.outlineButton):
        moves = nodes[0].GetParentTransformNode()
        before = slicer.util.arrayFromTransformMatrix(moves)
        button.click()
        assert button.isChecked()
        slicer.util.updateTransformMatrixFromArray(moves, shifted(before))
        assert not button.isChecked()
        assert ui.overlayButton.isChecked()
        assert view.GetForegroundVolumeID() == nodes[0].GetID()
        slicer.util.updateTransformMatrixFromArray(moves, before)
        ui.fusedCheckBox.click()


def test_leaving_the_panel_removes_the_colour_layer(asking):
    panel, _ = asking
    before = slicer.mrmlScene.GetNumberOfNodes()
    panel.ui.errorLayerButton.click()
    panel.exit()
    assert slicer.mrmlScene.GetNumberOfNodes() == before
    assert not panel.ui.errorLayerButton.isChecked()


def test_no_number_is_shown_after_the_mri_has_changed(asking, nodes, made):
    panel, crosshair = asking
    slicer.util.arrayFromVolume(nodes[1])[0, 0, 0] += 1
    slicer.util.arrayFromVolumeModified(nodes[1])
    panel.updatePanel()
    crosshair.SetCursorPositionRAS(world(made, 20))
    assert panel.ui.cursorErrorLabel.text == ""
    assert "not what was judged" in panel.ui.errorHintLabel.text


def test_numbers_and_layer_are_not_those_of_an_earlier_pose(asking, nodes, made, phantom):
    panel, crosshair = asking
    crosshair.SetCursorPositionRAS(world(made, 20))
    panel.ui.checkButton.click()
    assert "3.0 mm" in panel.ui.cursorErrorLabel.text, "the pose is the same"
    panel.ui.errorLayerButton.click()
    moves = nodes[0].GetParentTransformNode()
    slicer.util.updateTransformMatrixFromArray(moves, shifted(slicer.util.arrayFromTransformMatrix(moves)))
    elsewhere = RigidTransform(shifted(phantom.transform.moving_from_fixed_lps))
    other = replace(fuse(phantom.ct, phantom.mri, transform=elsewhere, check=False), verdict=made.verdict)
    for button, found in ((panel.ui.checkButton, made), (panel.ui.registerButton, other)):
        panel.logic._runner.run = lambda request, inputs, progress, done, found=found: done(found, None)
        button.click()
        assert panel._state.card.colour == "amber", panel.ui.statusLabel.text
        assert panel.ui.cursorErrorLabel.text == ""
        assert "earlier pose" in panel.ui.errorHintLabel.text
        assert not panel.ui.errorLayerButton.isChecked()
        assert sys.modules["BrainFusionSlicer.error_here"].layer_of(slicer.mrmlScene) is None


def shifted(matrix, mm=1.5):
    moved = np.array(matrix)
    moved[0, 3] += mm
    return moved


def test_the_self_test_walks_the_expected_error(asking, module, phantom, monkeypatch):
    panel, crosshair = asking
    slicer.mrmlScene.Clear()
    assert crosshair.GetScene() is not None  # it is a singleton
    walk_self_test(module, panel, phantom, monkeypatch, "test_theExpectedErrorIsTold")
