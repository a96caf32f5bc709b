"""The section "Check and correct", and Register only: real buttons on real MRML nodes."""

import json
import sys

import numpy as np
import pytest
import slicer
import slicer.util
import vtk
from window import walk_self_test

from BrainFusionLib.errors import GeometryError
from BrainFusionLib.settings import RegistrationSettings, Settings
from BrainFusionLib.transform import RigidTransform

pytestmark = pytest.mark.filterwarnings("ignore:Setting the shape on a NumPy array:DeprecationWarning")

NEARER = RigidTransform.from_axis_angle((0, 1, 0), 3, (1, -2, 3))


@pytest.fixture
def registered(chosen):
    chosen.ui.registerButton.click()
    return chosen


def transform_of(ct):
    return ct.GetParentTransformNode()


def matrix(transform):
    return slicer.util.arrayFromTransformMatrix(transform).copy()


def shift(transform, mm, turned=0.0):
    """What a drag of the handles does to a transform (vtkMRMLTransformHandleWidget::ApplyTransform)."""
    moved = vtk.vtkTransform()
    moved.Translate(mm, 0, 0)
    moved.RotateZ(turned)
    drag = np.array([[moved.GetMatrix().GetElement(i, j) for j in range(4)] for i in range(4)])
    slicer.util.updateTransformMatrixFromArray(transform, drag @ matrix(transform))


def handles(transform):
    display = transform.GetDisplayNode()
    return display is not None and display.GetEditorVisibility()


def volumes():
    return [node.GetName() for node in slicer.util.getNodesByClass("vtkMRMLScalarVolumeNode") if not hidden(node)]


def hidden(node):
    return bool(node.GetHideFromEditors())


def test_register_only_moves_the_ct_judges_and_writes_no_volume(chosen, nodes, runner, module, phantom):
    before = volumes()
    chosen.ui.registerButton.click()
    assert volumes() == before
    assert not runner.requests[0].fuse
    np.testing.assert_allclose(matrix(transform_of(nodes[0])), module.bridge.mri_from_ct_ras(phantom.transform))
    assert "Green" in chosen.ui.verdictLabel.text
    assert chosen.ui.transformSelector.currentNode() == transform_of(nodes[0])
    assert chosen.ui.overlayButton.isChecked()
    assert not chosen.ui.fusedCheckBox.isEnabled()
    shift(transform_of(nodes[0]), 5)
    assert "Changed since" in chosen.ui.verdictLabel.text


def test_what_was_only_registered_can_be_shown_unregistered_and_undone(registered, nodes):
    ui, ct = registered.ui, nodes[0]
    for _ in range(2):
        ui.showUnregisteredButton.click()
        assert transform_of(ct) is None
        ui.showUnregisteredButton.click()
        assert transform_of(ct) is not None
        assert ui.overlayButton.isChecked()
    ui.undoButton.click()
    assert transform_of(ct) is None


def test_register_only_does_not_write_a_users_transform(chosen, nodes, runner):
    mine = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLLinearTransformNode", "mine")
    chosen.ui.transformSelector.setCurrentNode(mine)
    assert not chosen.ui.registerButton.isEnabled()
    assert "would be overwritten" in chosen.ui.registerButton.toolTip
    assert runner.requests == []


def test_register_only_writes_though_the_chosen_fused_volume_is_a_users(chosen, nodes, runner):
    mine = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLScalarVolumeNode", "mine")
    chosen.ui.fusedSelector.setCurrentNode(mine)
    assert not chosen.ui.fuseButton.isEnabled()
    chosen.ui.registerButton.click()
    assert mine.GetImageData() is None
    assert transform_of(nodes[0]) is not None


def test_a_ct_that_cannot_be_moved_is_not_registered_alone(chosen, nodes, runner):
    """It would stay where it is, beside a green verdict."""
    warp = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLGridTransformNode", "warp")
    nodes[0].SetAndObserveTransformNodeID(warp.GetID())
    chosen.updatePanel()
    for button in (chosen.ui.registerButton, chosen.ui.refineButton):
        assert not button.isEnabled()
        assert "Click Fuse" in button.toolTip
    for start in (chosen.logic.startRegistration, chosen.logic.startRefinement):
        with pytest.raises(GeometryError, match="Click Fuse"):
            start(*nodes)
    chosen.ui.fuseButton.click()
    assert chosen.ui.statusLabel.text.startswith("Fused in")


def test_adjust_shows_handles_that_shift_and_turn_about_the_heads_middle(registered, nodes, phantom):
    ct, ui = nodes[0], registered.ui
    transform = transform_of(ct)
    assert transform.GetDisplayNode() is None
    before = slicer.mrmlScene.GetNumberOfNodes()
    ui.adjustButton.click()
    display = transform.GetDisplayNode()
    assert display.GetEditorVisibility()
    assert display.GetEditorSliceIntersectionVisibility()
    assert not display.GetEditorScalingEnabled()
    assert not display.GetEditorScalingSliceEnabled()
    brain = phantom.transform.apply(phantom.target_points()).mean(axis=0) * (-1, -1, 1)  # in the CT's own frame
    assert np.linalg.norm(brain - transform.GetCenterOfTransformation()) < 40
    ui.adjustButton.click()
    assert transform.GetDisplayNode() is None
    assert transform.GetCenterOfTransformation() == (0, 0, 0)
    assert slicer.mrmlScene.GetNumberOfNodes() == before


def drag_handle(transform, mm, degrees):
    """Shift and turn a transform about its handles, in the world, as vtkMRMLTransformHandleWidget does.

    The handles stand where UpdateHandleToWorldTransform puts them; ApplyTransform takes what was dragged in the world
    between the parent's transforms.
    """
    to_world = vtk.vtkGeneralTransform()
    slicer.vtkMRMLTransformNode.GetTransformBetweenNodes(transform, None, to_world)
    at = np.array(to_world.TransformPoint(transform.GetCenterOfTransformation()))
    drag = vtk.vtkTransform()
    drag.Translate(*(at + mm))
    drag.RotateWXYZ(degrees, 1, 2, 3)
    drag.Translate(*-at)
    world, above = slicer.util.arrayFromVTKMatrix(drag.GetMatrix()), np.eye(4)
    if transform.GetParentTransformNode() is not None:
        above = slicer.util.arrayFromTransformMatrix(transform.GetParentTransformNode(), toWorld=True)
    slicer.util.updateTransformMatrixFromArray(transform, np.linalg.inv(above) @ world @ above @ matrix(transform))
    return at


@pytest.mark.parametrize("reference", [0, 1], ids=["the CT is moved", "the MRI is moved"])
def test_under_a_turned_parent_the_handles_turn_about_the_head_and_keep_the_pose_rigid(
    chosen, nodes, runner, phantom, reference
):
    ui, (ct, _mri) = chosen.ui, nodes
    for node, degrees in zip(nodes, (25, -40), strict=True):
        above = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLLinearTransformNode", "above " + node.GetName())
        shift(above, 30, turned=degrees)
        node.SetAndObserveTransformNodeID(above.GetID())
    ui.referenceComboBox.setCurrentIndex(reference)
    ui.registerButton.click()
    transform = transform_of(nodes[reference])
    assert transform.GetParentTransformNode() is not None
    ui.adjustButton.click()
    brain = phantom.transform.apply(phantom.target_points()).mean(axis=0) * (-1, -1, 1)
    in_world = [0.0, 0.0, 0.0]
    ct.TransformPointToWorld(brain, in_world)
    at = drag_handle(transform, np.zeros(3), 20)
    assert np.linalg.norm(at - in_world) < 40, "the handles are not at the head"
    np.testing.assert_allclose(drag_handle(transform, np.array([3.0, 0, 0]), 0), at, atol=1e-9)
    assert "Adjusted by 3 mm and 20.0°" in ui.correctLabel.text
    linear = matrix(transform)[:3, :3]
    np.testing.assert_allclose(linear @ linear.T, np.eye(3), atol=1e-9)
    ui.checkButton.click()
    assert runner.requests[-1].given is not None, ui.statusLabel.text


def test_adjust_leaves_the_users_display_as_it_was(registered, nodes):
    transform, ui = transform_of(nodes[0]), registered.ui
    transform.CreateDefaultDisplayNodes()
    display = transform.GetDisplayNode()
    display.SetEditorScalingEnabled(True)
    display.SetEditorSliceIntersectionVisibility(False)
    transform.SetCenterOfTransformation(7, 8, 9)
    ui.adjustButton.click()
    assert not display.GetEditorScalingEnabled()
    ui.adjustButton.click()
    seen = display.GetEditorVisibility(), display.GetEditorScalingEnabled()
    assert (*seen, display.GetEditorSliceIntersectionVisibility()) == (False, True, False)
    assert transform.GetCenterOfTransformation() == (7, 8, 9)


def test_the_verdict_is_stale_while_the_pose_is_adjusted_and_check_judges_it(registered, nodes, runner):
    ui, transform = registered.ui, transform_of(nodes[0])
    ui.adjustButton.click()
    assert "Green" in ui.verdictLabel.text
    shift(transform, 4, turned=2)
    assert "Changed since" in ui.verdictLabel.text
    assert "Adjusted by" in ui.correctLabel.text
    assert "2.0°" in ui.correctLabel.text
    before = matrix(transform)
    ui.checkButton.click()
    np.testing.assert_array_equal(matrix(transform), before)
    assert not handles(transform)
    asked = runner.requests[-1]
    assert (asked.fuse, asked.start, asked.given is None) == (False, None, False)
    assert "Green" in ui.verdictLabel.text
    assert "nothing was moved" in ui.verdictFindingsLabel.text
    shift(transform, 1)
    assert "Changed since" in ui.verdictLabel.text


@pytest.mark.parametrize("turned", [False, True], ids=["no parent", "parent turned by 30 degrees"])
def test_check_and_refine_ask_about_the_pose_that_is_shown(chosen, nodes, runner, phantom, turned):
    """Also where the MRI and the CT stand under turned transforms of the user's."""
    ct = nodes[0]
    for node, degrees in zip(nodes, (20, 30), strict=True):
        if turned:
            above = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLLinearTransformNode", "above " + node.GetName())
            shift(above, 12, turned=degrees)
            node.SetAndObserveTransformNodeID(above.GetID())
    ct_above = np.eye(4) if not turned else matrix(transform_of(ct))
    ui = chosen.ui
    ui.registerButton.click()
    transform = transform_of(ct)
    assert (transform.GetParentTransformNode() is not None) == turned
    ui.adjustButton.click()
    shift(transform, 4, turned=5)
    ui.checkButton.click()
    world = slicer.util.arrayFromTransformMatrix(transform, toWorld=True) @ np.linalg.inv(ct_above)
    flip = np.diag([-1.0, -1.0, 1.0, 1.0])
    expected = np.linalg.inv(flip @ world @ flip)
    np.testing.assert_allclose(runner.requests[-1].given.moving_from_fixed_lps, expected, atol=1e-9)
    ui.refineButton.click()
    asked = runner.requests[-1]
    np.testing.assert_allclose(asked.start.moving_from_fixed_lps, expected, atol=1e-9)
    assert (asked.settings.registration.search, asked.given, asked.fuse) == ("local", None, False)
    assert transform_of(ct) == transform
    found = slicer.util.arrayFromTransformMatrix(transform, toWorld=True) @ np.linalg.inv(ct_above)
    np.testing.assert_allclose(found, np.linalg.inv(flip @ phantom.transform.moving_from_fixed_lps @ flip), atol=1e-9)


def test_undo_steps_back_through_refine_adjust_and_register(registered, nodes, runner):
    ui, ct = registered.ui, nodes[0]
    transform = transform_of(ct)
    poses = [matrix(transform)]
    ui.adjustButton.click()
    shift(transform, 6)
    ui.adjustButton.click()
    poses.append(matrix(transform))
    runner.pose = NEARER
    ui.refineButton.click()
    poses.append(matrix(transform))
    ui.checkButton.click()
    assert "before the refinement" in ui.undoButton.toolTip
    ui.undoButton.click()
    np.testing.assert_array_equal(matrix(transform), poses[1])
    assert "before the refinement" in ui.statusLabel.text
    ui.undoButton.click()
    np.testing.assert_array_equal(matrix(transform), poses[0])
    assert "Green" in ui.verdictLabel.text, "the verdict on this pose is not shown again"
    ui.undoButton.click()
    assert transform_of(ct) is None
    assert not ui.undoButton.isVisible()


def test_undo_while_adjusting_takes_the_adjustment_back(registered, nodes):
    ui, transform = registered.ui, transform_of(nodes[0])
    before = matrix(transform)
    ui.adjustButton.click()
    shift(transform, 6)
    ui.undoButton.click()
    np.testing.assert_array_equal(matrix(transform), before)
    assert not handles(transform)
    assert transform_of(nodes[0]) == transform


def test_fusing_again_is_a_step_that_undo_takes_back(registered, nodes, runner):
    ui, transform = registered.ui, transform_of(nodes[0])
    before = matrix(transform)
    runner.pose = NEARER
    ui.fuseButton.click()
    assert np.abs(matrix(transform) - before).max() > 0.1
    assert "Green" in ui.verdictLabel.text
    ui.undoButton.click()
    np.testing.assert_array_equal(matrix(transform), before)


def test_a_check_after_an_adjustment_says_that_the_fused_volume_is_older(chosen, nodes):
    ui = chosen.ui
    ui.fuseButton.click()
    fused = ui.fusedSelector.currentNode()
    before = slicer.util.arrayFromVolume(fused).copy()
    shift(transform_of(nodes[0]), 3)
    ui.checkButton.click()
    assert "Green" in ui.verdictLabel.text
    assert "fused volume shows an earlier pose" in ui.verdictFindingsLabel.text
    np.testing.assert_array_equal(slicer.util.arrayFromVolume(fused), before)
    assert not ui.checkerboardButton.isEnabled()


def test_an_approval_is_void_after_a_red_check_and_while_the_pose_is_adjusted(chosen, nodes, runner):
    ui, decisions = chosen.ui, sys.modules["BrainFusionSlicer.decisions"]
    ui.fuseButton.click()
    fused = ui.fusedSelector.currentNode()
    decisions.sign(fused, *nodes, "approve", "A. Surgeon", "")
    ui.checkButton.click()
    assert decisions.state_of(fused) == "approved"
    ui.adjustButton.click()
    shift(transform_of(nodes[0]), 3)
    assert decisions.state_of(fused) == "void"
    ui.undoButton.click()
    assert decisions.state_of(fused) == "approved"
    runner.colour = "red"
    ui.checkButton.click()
    assert decisions.state_of(fused) == "void"
    assert "later check" in decisions.standings_of(fused, *nodes)[0].sentence
    doubt = sys.modules["BrainFusionSlicer.departing"].doubt_of(fused)
    assert doubt.mark == "RED"
    assert "A later check has judged this pose otherwise" in ui.saveReportButton.toolTip


def test_a_pose_with_a_scale_or_a_shear_is_rejected_with_the_reason(registered, nodes, runner):
    ui, transform = registered.ui, transform_of(nodes[0])
    asked = len(runner.requests)
    scaled = matrix(transform)
    scaled[:3, 0] *= 1.02
    slicer.util.updateTransformMatrixFromArray(transform, scaled)
    for button in (ui.checkButton, ui.refineButton):
        button.click()
        assert "scales or shears" in ui.statusLabel.text
    assert len(runner.requests) == asked
    np.testing.assert_array_equal(matrix(transform), scaled)


def test_a_pose_from_elsewhere_is_checked_and_nothing_is_changed(registered, nodes, runner, module):
    ui, ct = registered.ui, nodes[0]
    theirs = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLLinearTransformNode", "theirs")
    slicer.util.updateTransformMatrixFromArray(theirs, module.bridge.mri_from_ct_ras(NEARER))
    ours = matrix(transform_of(ct))
    runner.colour = "red"
    ui.poseSelector.setCurrentNode(theirs)
    ui.checkButton.click()
    np.testing.assert_allclose(runner.requests[-1].given.moving_from_fixed_lps, NEARER.moving_from_fixed_lps, atol=1e-9)
    np.testing.assert_array_equal(matrix(transform_of(ct)), ours)
    np.testing.assert_allclose(matrix(theirs), module.bridge.mri_from_ct_ras(NEARER))
    assert "✖" in ui.poseVerdictLabel.text
    assert "pose of theirs was checked" in ui.poseFindingsLabel.text
    assert "Green" in ui.verdictLabel.text, "the verdict on the pose shown was replaced"
    theirs.SetName("renamed")
    assert "✖" in ui.poseVerdictLabel.text
    shift(theirs, 1)
    assert "Changed since" in ui.poseVerdictLabel.text
    slicer.mrmlScene.RemoveNode(theirs)
    assert ui.poseSelector.currentNode() is None, "the selector moved to a neighbour"
    assert not ui.poseVerdictLabel.isVisible()


def test_a_transform_that_is_not_linear_cannot_be_checked(chosen, runner):
    warp = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLTransformNode", "warp")
    warp.SetAndObserveTransformToParent(vtk.vtkThinPlateSplineTransform())
    chosen.ui.poseSelector.setCurrentNode(warp)
    chosen.ui.checkButton.click()
    assert "warp is not linear" in chosen.ui.statusLabel.text
    assert runner.requests == []


def test_the_pose_of_the_scene_is_checked_where_nothing_was_registered(chosen, nodes, runner, tmp_path):
    """Somebody else's registration: the CT is under a transform of the user's, which stays."""
    ct, ui = nodes[0], chosen.ui
    theirs = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLLinearTransformNode", "theirs")
    shift(theirs, 3, turned=4)
    ct.SetAndObserveTransformNodeID(theirs.GetID())
    before = matrix(theirs)
    ui.checkButton.click()
    assert "Green" in ui.verdictLabel.text
    assert transform_of(ct) == theirs
    np.testing.assert_array_equal(matrix(theirs), before)
    np.testing.assert_array_equal(runner.requests[-1].given.moving_from_fixed_lps, np.eye(4))
    shift(theirs, 3)
    assert "Changed since" in ui.verdictLabel.text


def test_a_move_during_a_check_makes_its_verdict_stale(registered, nodes, runner):
    transform = transform_of(nodes[0])
    runner.meanwhile = lambda: shift(transform, 2)
    registered.ui.checkButton.click()
    assert "Changed since" in registered.ui.verdictLabel.text


def test_a_ct_hardened_during_a_refinement_is_not_moved(registered, nodes, runner):
    ct = nodes[0]
    runner.meanwhile = ct.HardenTransform
    registered.ui.refineButton.click()
    assert "moved or hardened" in registered.ui.statusLabel.text
    assert transform_of(ct) is None


def test_removing_the_mri_during_a_check_ends_it(registered, nodes, runner):
    runner.meanwhile = lambda: slicer.mrmlScene.RemoveNode(nodes[1])
    registered.ui.checkButton.click()
    assert "nothing was written" in registered.ui.statusLabel.text


def test_leaving_the_panel_ends_the_adjustment_as_a_step(registered, nodes):
    transform = transform_of(nodes[0])
    before = matrix(transform)
    registered.ui.adjustButton.click()
    shift(transform, 6)
    registered.exit()
    assert not handles(transform)
    registered.enter()
    registered.ui.undoButton.click()
    np.testing.assert_array_equal(matrix(transform), before)


@pytest.mark.parametrize("what", ["transform", "CT", "display", "scene"])
def test_deleting_nodes_while_adjusting_is_safe(registered, nodes, what):
    ct, ui = nodes[0], registered.ui
    transform = transform_of(ct)
    ui.adjustButton.click()
    shift(transform, 6)
    if what == "scene":
        slicer.mrmlScene.Clear(False)
    else:
        slicer.mrmlScene.RemoveNode({"transform": transform, "CT": ct, "display": transform.GetDisplayNode()}[what])
    assert ui.adjustButton.isChecked() == (what == "display")
    if what == "display":
        ui.adjustButton.click()
        assert transform_of(ct) == transform
    if what == "transform":
        assert transform_of(ct) is None, "the CT is not where the user had it"


def test_a_scene_saved_while_adjusting_is_loaded_without_handles(registered, nodes, tmp_path):
    path = str(tmp_path / "scene.mrb")
    transform = transform_of(nodes[0])
    before = matrix(transform)
    registered.ui.adjustButton.click()
    shift(transform, 6)
    moved = matrix(transform)
    assert slicer.mrmlScene.WriteToMRB(path)
    slicer.mrmlScene.Clear()
    assert slicer.mrmlScene.ReadFromMRB(path, True)
    registered.updatePanel()
    ct = slicer.mrmlScene.GetFirstNodeByName("CT")
    assert not handles(transform_of(ct))
    np.testing.assert_allclose(matrix(transform_of(ct)), moved)
    assert "Changed since" in registered.ui.verdictLabel.text
    registered.ui.undoButton.click()
    np.testing.assert_allclose(matrix(transform_of(ct)), before)
    assert "Green" in registered.ui.verdictLabel.text


def test_adjust_is_off_until_something_was_registered(chosen):
    assert not chosen.ui.adjustButton.isEnabled()
    assert "Register first" in chosen.ui.adjustButton.toolTip
    assert chosen.ui.checkButton.isEnabled()


def test_damaged_notes_on_a_transform_are_ignored(registered, nodes):
    ui, transform = registered.ui, transform_of(nodes[0])
    for note in ("{", "[1]", json.dumps([{"matrix": [1, 2], "what": 3}]), json.dumps({"entry": 1})):
        transform.SetAttribute("BrainFusion.EarlierPoses", note)
        transform.SetAttribute("BrainFusion.Adjusting", note)
        registered.updatePanel()
    ui.undoButton.click()
    assert transform_of(nodes[0]) is None


def test_a_refinement_is_a_search_near_the_pose_shown(panel, nodes, phantom, module):
    """The real computation, at once, on a phantom whose pose is 6 mm off."""
    panel.logic._runner = sys.modules["BrainFusionSlicer.runner"].InProcessRunner()
    ct, mri = nodes
    transform = module.bridge.move_ct_onto_mri(ct, mri, phantom.transform)
    shift(transform, 6)
    ended = []
    settings = Settings(registration=RegistrationSettings(samples=10_000))
    panel.logic.startRefinement(ct, mri, settings=settings, finishedCallback=lambda *end: ended.append(end))
    [(refined, error)] = ended
    assert error is None
    off = matrix(transform) - module.bridge.mri_from_ct_ras(phantom.transform)
    assert np.abs(off[:3, 3]).max() < 1.5
    assert refined.result.evidence.pose.from_start_mm == pytest.approx(6, abs=1.5)


def test_scripts_cannot_check_a_volume_against_itself(panel, nodes):
    with pytest.raises(Exception, match="two different volumes"):
        panel.logic.startCheck(nodes[0], nodes[0])


def test_a_singular_transform_cannot_be_checked(panel, nodes, runner):
    flat = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLLinearTransformNode", "flat")
    slicer.util.updateTransformMatrixFromArray(flat, np.diag([1.0, 1.0, 0.0, 1.0]))
    with pytest.raises(GeometryError, match="cannot be inverted"):
        panel.logic.startCheck(*nodes, flat)


def test_the_self_test_walks_the_corrections(panel, module, phantom, runner, monkeypatch):
    """The walk of the real application, with answers in the place of computations."""
    walk_self_test(module, panel, phantom, monkeypatch, "test_thePanelCorrects")
    assert len(runner.requests) == 2
