"""*Reference: CT*: the MRI is put onto the CT, on real MRML nodes; the CT and what is the user's stay."""

import sys
from dataclasses import replace

import numpy as np
import pytest
import slicer
import slicer.util
import vtk
from window import walk_self_test

from BrainFusionLib.error_map import ErrorMap
from BrainFusionLib.geometry import apply_affine
from BrainFusionLib.settings import FusionSettings, OutputSettings, Settings
from BrainFusionLib.transform import RigidTransform

pytestmark = pytest.mark.filterwarnings("ignore:Setting the shape on a NumPy array:DeprecationWarning")
TRANSFORM = "vtkMRMLLinearTransformNode"
NEARER = RigidTransform.from_axis_angle((0, 1, 0), 3, (1, -2, 3))


def above(node, mm, degrees=0.0):
    """Put a node under a transform of the user's."""
    made = slicer.mrmlScene.AddNewNodeByClass(TRANSFORM, f"above {node.GetName()}")
    matrix = vtk.vtkTransform()
    matrix.Translate(*mm)
    matrix.RotateZ(degrees)
    made.SetMatrixTransformToParent(matrix.GetMatrix())
    node.SetAndObserveTransformNodeID(made.GetID())
    return made


def world(node):
    parent = node.GetParentTransformNode()
    return np.eye(4) if parent is None else slicer.util.arrayFromTransformMatrix(parent, toWorld=True)


def off_mm(nodes, phantom):
    """How far points of the brain on the MRI are from those on the CT, in the world."""
    flip = np.array([-1.0, -1.0, 1.0])
    brain = phantom.target_points()
    shown = []
    for node, points in zip(nodes, (phantom.transform.apply(brain), brain), strict=True):
        matrix = world(node)
        shown.append(points * flip @ matrix[:3, :3].T + matrix[:3, 3])
    return float(np.linalg.norm(shown[0] - shown[1], axis=1).max())


@pytest.fixture
def of_ct(chosen):
    """The panel with the CT as reference."""
    chosen.ui.referenceComboBox.setCurrentIndex(1)
    return chosen


@pytest.fixture
def fused(of_ct, nodes, runner, phantom):
    """The panel after a fusion with the CT as reference, of a pair under turned transforms; in the true pose."""
    parents = above(nodes[0], (20, -30, 5), 25), above(nodes[1], (-15, 10, 40), -20)
    flip = np.diag([-1.0, -1.0, 1.0, 1.0])
    ct, mri = (flip @ slicer.util.arrayFromTransformMatrix(parent) @ flip for parent in parents)
    runner.pose = RigidTransform(ct @ phantom.transform.moving_from_fixed_lps @ np.linalg.inv(mri))
    of_ct.ui.fuseButton.click()
    assert of_ct.ui.statusLabel.text.startswith("Fused in"), of_ct.ui.statusLabel.text
    return of_ct


def test_the_reference_is_asked_for_with_its_own_voxels_and_kept_in_the_scene(of_ct, runner):
    ui = of_ct.ui
    assert ui.gridComboBox.currentText == "CT"
    assert (ui.transformLabel.text, ui.resampledLabel.text) == ("MRI to CT transform:", "MRI on the CT's grid:")
    ui.fuseButton.click()
    assert runner.requests[-1].settings.output == OutputSettings("ct")
    ui.gridComboBox.setCurrentIndex(2)
    ui.fuseButton.click()
    assert runner.requests[-1].settings.output == OutputSettings("ct", "union")
    of_ct.exit()
    of_ct.enter()
    assert (ui.referenceComboBox.currentText, ui.gridComboBox.currentText) == ("CT", "Both fields of view")
    ui.referenceComboBox.setCurrentIndex(0)
    assert ui.gridComboBox.currentText == "Both fields of view"
    assert ui.transformLabel.text == "CT to MRI transform:"


def test_the_mri_is_moved_and_all_results_belong_to_the_ct(fused, nodes, phantom):
    ct, mri = nodes
    ui, parent = fused.ui, ct.GetParentTransformNode()
    assert parent.GetName() == "above CT"
    transform = mri.GetParentTransformNode()
    assert (transform.GetName(), transform.GetParentTransformNode()) == ("MRI to CT", parent)
    assert off_mm(nodes, phantom) < 1e-6
    volume = ui.fusedSelector.currentNode()
    assert volume.GetParentTransformNode() == parent
    own, of_ct = vtk.vtkMatrix4x4(), vtk.vtkMatrix4x4()
    volume.GetIJKToRASMatrix(own)
    ct.GetIJKToRASMatrix(of_ct)
    np.testing.assert_allclose(slicer.util.arrayFromVTKMatrix(own), slicer.util.arrayFromVTKMatrix(of_ct), atol=1e-6)
    assert "Green" in ui.verdictLabel.text
    assert "The MRI was" in ui.verdictFindingsLabel.text
    assert ui.transformSelector.currentNode() == transform


def test_what_moves_the_ct_moves_both_and_what_moves_one_makes_the_verdict_stale(fused, nodes, phantom):
    ct, mri = nodes
    parent = ct.GetParentTransformNode()
    matrix = slicer.util.arrayFromTransformMatrix(parent)
    matrix[1, 3] += 33
    slicer.util.updateTransformMatrixFromArray(parent, matrix)
    assert "Green" in fused.ui.verdictLabel.text
    assert off_mm(nodes, phantom) < 1e-6
    ct.SetAndObserveTransformNodeID(above(mri, (9, 0, 0)).GetID())
    assert "Changed since" in fused.ui.verdictLabel.text


def test_undo_and_show_unregistered_take_the_mri_back(fused, nodes, phantom, layers):
    _ct, mri = nodes
    ui, transform = fused.ui, mri.GetParentTransformNode()
    former = slicer.mrmlScene.GetFirstNodeByName("above MRI")
    assert ui.showUnregisteredButton.text == "Show unregistered MRI"
    ui.showUnregisteredButton.click()
    assert mri.GetParentTransformNode() == former
    assert "The unregistered MRI is shown" in ui.verdictLabel.text
    ui.showUnregisteredButton.click()
    assert mri.GetParentTransformNode() == transform
    assert "Green" in ui.verdictLabel.text
    ui.undoButton.click()
    assert mri.GetParentTransformNode() == former
    assert "Undone: the MRI is where it was" in ui.statusLabel.text
    assert "Green" not in ui.verdictLabel.text


def test_adjust_check_refine_and_undo_work_on_the_mri(fused, nodes, runner, phantom):
    _ct, mri = nodes
    ui, transform, pose = fused.ui, mri.GetParentTransformNode(), runner.pose
    ui.adjustButton.click()
    assert transform.GetDisplayNode().GetEditorVisibility()
    brain = phantom.target_points().mean(axis=0) * (-1, -1, 1)  # in the MRI's own frame, which the transform takes
    assert np.linalg.norm(brain - transform.GetCenterOfTransformation()) < 40
    matrix = slicer.util.arrayFromTransformMatrix(transform)
    moved = matrix.copy()
    moved[0, 3] += 6
    slicer.util.updateTransformMatrixFromArray(transform, moved)
    assert "Changed since" in ui.verdictLabel.text
    assert "Adjusted by 6 mm" in ui.correctLabel.text
    ui.checkButton.click()
    given = runner.requests[-1].given
    centre = phantom.mri.grid.centre_lps_mm
    centre = (np.diag([-1, -1, 1, 1.0]) @ world(mri) @ np.diag([-1, -1, 1, 1.0]) @ (*centre, 1))[:3]
    assert np.linalg.norm(given.rotation - pose.rotation) < 1e-9
    assert np.linalg.norm(given.apply([centre]) - pose.apply([centre])) == pytest.approx(6, abs=1e-6)
    assert "Green" in ui.verdictLabel.text
    fused.ui.referenceComboBox.setCurrentIndex(0)  # what is refined is what is shown, whatever the next fusion moves
    ui.refineButton.click()
    asked = runner.requests[-1]
    np.testing.assert_allclose(asked.start.moving_from_fixed_lps, given.moving_from_fixed_lps, atol=1e-9)
    assert asked.settings.output.reference == "ct"
    assert mri.GetParentTransformNode() == transform
    np.testing.assert_allclose(slicer.util.arrayFromTransformMatrix(transform), matrix, atol=1e-9)
    ui.undoButton.click()
    np.testing.assert_allclose(slicer.util.arrayFromTransformMatrix(transform), moved, atol=1e-9)
    ui.undoButton.click()
    np.testing.assert_allclose(slicer.util.arrayFromTransformMatrix(transform), matrix, atol=1e-9)
    assert "Green" in ui.verdictLabel.text


def test_an_approval_holds_for_the_pose_and_is_void_for_another(fused, nodes):
    ui, transform = fused.ui, nodes[1].GetParentTransformNode()
    ui.signerEdit.setText("A. Surgeon")
    ui.approveButton.click()
    assert "Approved" in ui.decisionLabel.text
    matrix = slicer.util.arrayFromTransformMatrix(transform)
    for mm, words in ((3, "Void"), (-3, "Approved")):
        matrix[0, 3] += mm
        slicer.util.updateTransformMatrixFromArray(transform, matrix)
        assert words in ui.decisionLabel.text


def test_another_reference_replaces_the_movement_and_an_approved_result_goes_with_its_mri(chosen, nodes, phantom):
    ct, mri = nodes
    ui = chosen.ui
    ui.fuseButton.click()
    first, of_ct = ui.fusedSelector.currentNode(), ct.GetParentTransformNode()
    ui.signerEdit.setText("A. Surgeon")
    ui.approveButton.click()
    ui.referenceComboBox.setCurrentIndex(1)
    ui.fuseButton.click()
    assert ct.GetParentTransformNode() is None
    assert off_mm(nodes, phantom) < 1e-6
    transform = mri.GetParentTransformNode()
    assert (of_ct.GetName(), transform.GetName()) == ("CT to MRI", "MRI to CT")
    assert first.GetParentTransformNode() == transform, "what shows the MRI was left behind"
    ui.fusedSelector.setCurrentNode(first)
    assert "Approved" in ui.decisionLabel.text
    assert "Green" in ui.verdictLabel.text
    ui.undoButton.click()
    assert (first.GetParentTransformNode(), mri.GetParentTransformNode()) == (None, None)
    ui.referenceComboBox.setCurrentIndex(0)
    ui.fuseButton.click()
    assert ct.GetParentTransformNode() == of_ct
    assert mri.GetParentTransformNode() is None
    assert off_mm(nodes, phantom) < 1e-6
    ui.showUnregisteredButton.click()
    assert ct.GetParentTransformNode() is None


def test_what_belongs_to_the_mri_moves_with_it_also_another_pairs_results(of_ct, nodes, module, phantom, runner):
    _ct, mri = nodes
    segmentation = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLSegmentationNode", "tumour")
    segmentation.SetReferenceImageGeometryParameterFromVolumeNode(mri)
    other = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLScalarVolumeNode", "older CT")
    module.bridge.node_from_volume(phantom.ct, other)
    result = module.bridge.move_ct_onto_mri(other, mri, phantom.transform)
    of_ct.ui.fuseButton.click()
    transform = mri.GetParentTransformNode()
    assert segmentation.GetParentTransformNode() == result.GetParentTransformNode() == transform
    assert "Moved with the MRI: 1." in of_ct.ui.statusLabel.text
    assert off_mm((other, mri), phantom) < 1e-6
    of_ct.ui.undoButton.click()
    assert segmentation.GetParentTransformNode() is result.GetParentTransformNode() is None
    assert off_mm((other, mri), phantom) < 1e-6


def test_a_ct_that_was_put_onto_another_mri_is_used_where_it_is(of_ct, nodes, module, phantom, runner):
    ct, mri = nodes
    other = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLScalarVolumeNode", "T2")
    module.bridge.node_from_volume(phantom.mri, other)
    result = module.bridge.move_ct_onto_mri(ct, other, phantom.transform)
    runner.pose = RigidTransform.identity()  # the MRI lies where the CT was put
    of_ct.ui.fuseButton.click()
    assert ct.GetParentTransformNode() == result
    assert mri.GetParentTransformNode().GetParentTransformNode() == result
    assert off_mm(nodes, phantom) < 1e-6
    slicer.util.updateTransformMatrixFromArray(result, np.eye(4))
    assert off_mm(nodes, phantom) < 1e-6
    assert "Green" in of_ct.ui.verdictLabel.text


def test_the_mri_on_the_cts_grid_and_the_bone_are_in_the_cts_frame(of_ct, nodes, phantom):
    ct, _mri = nodes
    ui = of_ct.ui
    ui.resampledSelector.activateExtraItem("CREATE")
    ui.boneCheckBox.click()
    ui.fuseButton.click()
    resampled = ui.resampledSelector.currentNode()
    assert resampled.GetImageData().GetDimensions() == ct.GetImageData().GetDimensions()
    assert slicer.util.arrayFromVolume(resampled).min() >= 0, "it is the CT"
    (bone,) = slicer.util.getNodesByClass("vtkMRMLSegmentationNode")
    image = bone.GetSegmentation().GetNthSegment(0).GetRepresentation("Binary labelmap")
    matrix = vtk.vtkMatrix4x4()
    image.GetImageToWorldMatrix(matrix)
    flip = np.diag([-1.0, -1.0, 1.0, 1.0])
    expected = flip @ phantom.transform.moving_from_fixed_lps @ phantom.mri.grid.lps_from_ijk
    np.testing.assert_allclose(slicer.util.arrayFromVTKMatrix(matrix), expected, atol=1e-6)
    ui.referenceComboBox.setCurrentIndex(0)
    ui.fuseButton.click()
    assert ui.resampledSelector.currentNode() != resampled, "the CT was written into what is called the MRI"


def test_an_older_transform_that_is_chosen_again_is_the_one_in_force(chosen, nodes):
    ui, ct = chosen.ui, nodes[0]
    ui.registerButton.click()
    first = ct.GetParentTransformNode()
    ui.transformSelector.activateExtraItem("CREATE")
    ui.registerButton.click()
    second = ct.GetParentTransformNode()
    assert second != first
    ui.transformSelector.setCurrentNode(first)
    ui.registerButton.click()
    assert ct.GetParentTransformNode() == first
    assert "Green" in ui.verdictLabel.text
    ui.undoButton.click()
    assert ct.GetParentTransformNode() is None


def test_report_and_errors_of_a_result_in_the_cts_frame(panel, nodes, module, phantom, tmp_path):
    """The real computation, in the true pose."""
    from BrainFusionSlicer import decisions, error_here, runner

    panel.logic._runner = runner.InProcessRunner()
    above(nodes[1], (-15, 10, 40), -20)
    flip = np.diag([-1.0, -1.0, 1.0, 1.0])
    pose = phantom.transform.moving_from_fixed_lps @ np.linalg.inv(flip @ world(nodes[1]) @ flip)
    module.bridge.move_ct_onto_mri(*nodes, RigidTransform(pose), "MRI to CT", reference="ct")
    settings = Settings(fusion=FusionSettings("bone_over_mri"), output=OutputSettings("ct"))
    outcome = panel.logic.process(*nodes, keepAlignment=True, check=False, settings=settings)
    assert outcome.fusedVolume.GetParentTransformNode() is None
    ended = []
    panel.logic.startReport(
        outcome.fusedVolume, tmp_path / "report.html", finishedCallback=lambda files, error: ended.append(error)
    )
    assert ended == [None]
    assert "in the frame of the CT" in (tmp_path / "report.html").read_text(encoding="utf-8")
    grid = outcome.result.grid  # where the MRI was read
    from_left = np.broadcast_to(1 + np.arange(grid.size_ijk[0]), grid.shape_kji)
    result = replace(outcome.result, error_map=ErrorMap.of(from_left, grid, 2.0))
    decisions.keep_result(outcome.fusedVolume, decisions.record_of(result))
    found = error_here.of_result(outcome.fusedVolume, nodes[1])
    brain = phantom.transform.apply(phantom.target_points()) * (-1, -1, 1)  # where the CT is, and the MRI by now
    at = apply_affine(phantom.mri.grid.ijk_from_lps, phantom.target_points())
    known = found.errors.at(found.lps_from_world(brain, nodes[1]))
    np.testing.assert_allclose(known, 1 + at[:, 0], atol=0.1)


def test_a_mask_of_the_mri_is_read_with_it(fused, nodes, runner, monkeypatch, phantom):
    mri = nodes[1]
    mask = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLLabelMapVolumeNode", "mask")
    slicer.util.updateVolumeFromArray(mask, np.ones(phantom.mri.array_kji.shape, np.uint8))
    matrix = vtk.vtkMatrix4x4()
    mri.GetIJKToRASMatrix(matrix)
    mask.SetIJKToRASMatrix(matrix)
    mask.SetAndObserveTransformNodeID(mri.GetTransformNodeID())
    asked, run = [], runner.run
    monkeypatch.setattr(
        runner, "run", lambda request, inputs, *more: asked.append(inputs) or run(request, inputs, *more)
    )
    fused.ui.maskSelector.setCurrentNode(mask)
    fused.ui.fuseButton.click()
    np.testing.assert_allclose(asked[0].mri_mask.lps_from_ijk, asked[0].mri.lps_from_ijk)


def test_under_a_transform_that_is_not_linear_the_ct_cannot_be_the_reference(of_ct, nodes, runner):
    warp = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLGridTransformNode", "warp")
    nodes[1].SetAndObserveTransformNodeID(warp.GetID())
    of_ct.updatePanel()
    assert not of_ct.ui.fuseButton.isEnabled()
    assert "MRI is under a transform that is not linear" in of_ct.ui.statusLabel.text
    of_ct.ui.referenceComboBox.setCurrentIndex(0)
    assert of_ct.ui.fuseButton.isEnabled()


def test_a_ct_whose_own_place_is_lost_cannot_become_the_reference(chosen, nodes):
    parent = above(nodes[0], (5, 0, 0))
    chosen.ui.fuseButton.click()
    slicer.mrmlScene.RemoveNode(parent)
    chosen.ui.referenceComboBox.setCurrentIndex(1)
    assert not chosen.ui.fuseButton.isEnabled()
    assert "cannot be moved back" in chosen.ui.statusLabel.text
    assert not chosen.ui.registerButton.isEnabled()


@pytest.mark.parametrize("reference", ["mri", "ct"])
def test_the_results_own_transform_is_read_as_the_pose_that_it_shows(panel, nodes, module, phantom, reference):
    above(nodes[0], (20, -30, 5), 25)
    above(nodes[1], (-15, 10, 40), -20)
    transform = module.bridge.move_ct_onto_mri(*nodes, phantom.transform, reference=reference)
    read = sys.modules["BrainFusionSlicer.poses"].pose_from_node(transform)
    np.testing.assert_allclose(read.moving_from_fixed_lps, phantom.transform.moving_from_fixed_lps, atol=1e-9)


@pytest.mark.parametrize("reference", [0, 1])
def test_a_volume_that_another_result_moved_with_its_partner_is_not_moved_again(
    chosen, nodes, runner, module, phantom, reference
):
    """Both would be taken out of the other result's transform, and the one that stays would be moved."""
    other = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLScalarVolumeNode", "other")
    module.bridge.node_from_volume(phantom.ct if reference else phantom.mri, other)
    parent = above(nodes[0], (15, 5, 0))
    nodes[1].SetAndObserveTransformNodeID(parent.GetID())
    first = (other, nodes[1]) if reference else (nodes[0], other)
    module.bridge.move_ct_onto_mri(*first, NEARER, "A", reference="ct" if reference else "mri")
    places = world(nodes[0]), world(nodes[1])
    chosen.ui.referenceComboBox.setCurrentIndex(reference)
    chosen.updatePanel()
    chosen.ui.fuseButton.click()
    np.testing.assert_array_equal(places, (world(nodes[0]), world(nodes[1])))
    assert "by A. Take it out" in chosen.ui.statusLabel.text
    assert "Green" not in chosen.ui.verdictLabel.text


def test_landmarks_go_along_from_one_result_to_the_next(chosen, nodes, module, phantom):
    second = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLScalarVolumeNode", "CT2")
    module.bridge.node_from_volume(phantom.ct, second)
    points = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLMarkupsFiducialNode", "points")
    points.AddControlPoint([1, 2, 3])
    lists = sys.modules["BrainFusionSlicer.landmark_lists"]
    lists.choose(chosen._parameterNode.parameterNode, 1, points, nodes[1])
    module.bridge.move_ct_onto_mri(*nodes, phantom.transform, "A", reference="ct")
    last = module.bridge.move_ct_onto_mri(second, nodes[1], phantom.transform, "B", reference="ct")
    assert points.GetParentTransformNode() == nodes[1].GetParentTransformNode() == last


def test_a_fused_volume_that_is_moved_alone_makes_the_card_stale_at_once(fused):
    above(fused.ui.fusedSelector.currentNode(), (30, 0, 0))
    assert "Green" not in fused.ui.verdictLabel.text


def test_a_verdict_on_another_pose_than_the_one_shown_is_stale(of_ct, nodes, runner, module, monkeypatch):
    put = module.bridge.move_ct_onto_mri

    def moved_wrongly(*given):
        node = put(*given)
        matrix = slicer.util.arrayFromTransformMatrix(node)
        matrix[0, 3] += 5
        slicer.util.updateTransformMatrixFromArray(node, matrix)
        return node

    monkeypatch.setattr(module.bridge, "move_ct_onto_mri", moved_wrongly)
    for button in (of_ct.ui.fuseButton, of_ct.ui.registerButton):
        button.click()
        assert "changed since" in of_ct.ui.verdictLabel.text.lower()


def test_an_output_of_another_kind_that_is_chosen_does_not_cost_the_fused_volume(chosen, nodes, runner):
    made = []

    def keep(outcome, error):
        made.append(outcome)

    chosen.logic.startFusion(*nodes, resampledCTVolume=True, finishedCallback=keep)
    first = made[0]
    written = first.fusedVolume.GetImageData().GetMTime()
    chosen.logic.startFusion(*nodes, fusedVolume=first.resampledCTVolume, finishedCallback=keep)
    assert made[1].fusedVolume not in (first.fusedVolume, first.resampledCTVolume)
    assert first.fusedVolume.GetImageData().GetMTime() == written


def test_a_saved_scene_keeps_the_reference_and_its_verdict(fused, nodes, tmp_path, phantom):
    path = str(tmp_path / "scene.mrb")
    assert slicer.mrmlScene.WriteToMRB(path)
    slicer.mrmlScene.Clear()
    assert slicer.mrmlScene.ReadFromMRB(path, True)
    ct, mri = (slicer.mrmlScene.GetFirstNodeByName(name) for name in ("CT", "MRI"))
    assert off_mm((ct, mri), phantom) < 1e-6
    assert "Green" in fused.ui.verdictLabel.text
    assert fused.ui.referenceComboBox.currentText == "CT"
    fused.ui.undoButton.click()
    assert mri.GetParentTransformNode() == slicer.mrmlScene.GetFirstNodeByName("above MRI")


def test_removing_the_transform_takes_the_mri_back(fused, nodes):
    mri, former = nodes[1], slicer.mrmlScene.GetFirstNodeByName("above MRI")
    slicer.mrmlScene.RemoveNode(mri.GetParentTransformNode())
    assert mri.GetParentTransformNode() == former
    assert "MRI is where it was before" in fused.ui.statusLabel.text


@pytest.mark.parametrize("reference", ["mri", "ct"])
def test_what_was_moved_onto_a_volume_that_was_removed_can_be_undone(chosen, nodes, runner, reference):
    ui, (fixed, moved) = chosen.ui, nodes if reference == "ct" else nodes[::-1]
    former = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLLinearTransformNode", "former")
    moved.SetAndObserveTransformNodeID(former.GetID())
    ui.referenceComboBox.setCurrentIndex(int(reference == "ct"))
    ui.fuseButton.click()
    ours = moved.GetParentTransformNode()
    slicer.mrmlScene.RemoveNode(fixed)
    assert moved.GetParentTransformNode() == ours
    assert f"{moved.GetName()} is still where it was moved to: Undo moves it back." in ui.statusLabel.text
    assert ui.undoButton.isVisible()
    assert f"{moved.GetName()} was moved onto a volume that was removed" in ui.verdictLabel.text
    assert "Undo moves it back to where it was before" in ui.verdictFindingsLabel.text
    for button in (ui.approveButton, ui.errorLayerButton, ui.exportButton):
        assert not button.isEnabled()
    ui.undoButton.click()
    assert moved.GetParentTransformNode() == former
    assert f"the {moved.GetName()} is where it was before" in ui.statusLabel.text
    assert not ui.undoButton.isVisible()
    assert not ui.verdictFrame.isVisible()


def test_an_mri_that_was_left_on_a_removed_ct_is_told_and_freed_beside_another_ct_too(chosen, nodes):
    """Also after the other CT was registered, and that was undone."""
    ui, (ct, mri) = chosen.ui, nodes
    other = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLScalarVolumeNode", "CT2")
    other.CopyContent(ct)
    ui.referenceComboBox.setCurrentIndex(1)
    ui.registerButton.click()
    ours = mri.GetParentTransformNode()
    slicer.mrmlScene.RemoveNode(ct)
    ui.ctSelector.setCurrentNode(other)
    ui.referenceComboBox.setCurrentIndex(0)
    assert "MRI was moved onto a volume that was removed" in ui.verdictLabel.text
    ui.registerButton.click()
    assert "Green" in ui.verdictLabel.text
    assert f"MRI is still under {ours.GetName()}" in ui.verdictFindingsLabel.text
    ui.undoButton.click()
    assert (other.GetParentTransformNode(), mri.GetParentTransformNode()) == (None, ours)
    assert ui.undoButton.isVisible()
    ui.undoButton.click()
    assert mri.GetParentTransformNode() is None
    assert not ui.undoButton.isVisible()


def test_a_volume_that_cannot_come_back_from_a_removed_one_says_why(chosen, nodes):
    ui, (ct, mri) = chosen.ui, nodes
    former = above(mri, (1, 2, 3))
    ui.referenceComboBox.setCurrentIndex(1)
    ui.registerButton.click()
    slicer.mrmlScene.RemoveNode(former)
    slicer.mrmlScene.RemoveNode(ct)
    assert "MRI cannot be moved back" in ui.verdictFindingsLabel.text
    ui.undoButton.click()
    assert "MRI cannot be moved back" in ui.statusLabel.text
    assert mri.GetParentTransformNode() is not None


def test_the_self_test_walks_the_reference(panel, module, phantom, runner, monkeypatch):
    walk_self_test(module, panel, phantom, monkeypatch, "test_thePanelPutsTheMriOntoTheCt")
