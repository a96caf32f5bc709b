"""What the panel could overwrite or lose, tried: each test is one way to lose a user's data."""

import gc
import weakref

import numpy as np
import pytest
import slicer
import slicer.util
import vtk
from vtk.util.numpy_support import vtk_to_numpy

from BrainFusionLib.errors import GeometryError, SettingsError
from BrainFusionLib.transform import RigidTransform

VOLUME, TRANSFORM = "vtkMRMLScalarVolumeNode", "vtkMRMLLinearTransformNode"
pytestmark = pytest.mark.filterwarnings("ignore:Setting the shape on a NumPy array:DeprecationWarning")


@pytest.fixture
def fused(chosen):
    """The panel after a fusion, and its fused volume."""
    chosen.ui.fuseButton.click()
    return chosen, chosen.ui.fusedSelector.currentNode()


def added(name="user FLAIR", value=7):
    node = slicer.mrmlScene.AddNewNodeByClass(VOLUME, name)
    slicer.util.updateVolumeFromArray(node, np.full((3, 4, 5), value, np.int16))
    return node


def volumes():
    return list(slicer.util.getNodesByClass(VOLUME))


def paint(node):
    """Change a voxel, as the user does who masks or crops a volume."""
    slicer.util.arrayFromVolume(node)[0, 0, 0] += 1
    slicer.util.arrayFromVolumeModified(node)


def test_a_fused_volume_that_was_changed_or_approved_is_kept_and_the_next_is_a_new_one(fused):
    panel, first = fused
    ui = panel.ui
    paint(first)
    panel.updatePanel()
    with pytest.raises(SettingsError, match="was changed since it was made, and would be overwritten"):
        panel.logic.process(ui.ctSelector.currentNode(), ui.mriSelector.currentNode(), first)
    before = slicer.util.arrayFromVolume(first).copy()
    ui.fuseButton.click()
    second = ui.fusedSelector.currentNode()
    assert "changed since it was made: it was kept, and this is a new volume." in ui.statusLabel.text
    ui.fuseButton.click()
    assert ui.fusedSelector.currentNode() == second
    ui.signerEdit.setText("A. Surgeon")
    ui.approveButton.click()
    ui.fuseButton.click()
    assert "was approved: it was kept" in ui.statusLabel.text
    third = ui.fusedSelector.currentNode()
    ui.fusedSelector.setCurrentNode(None)  # "Create a new volume"
    ui.fuseButton.click()
    fused = [first, second, third, ui.fusedSelector.currentNode()]
    assert len({node.GetName() for node in fused}) == 4
    np.testing.assert_array_equal(slicer.util.arrayFromVolume(first), before)
    ui.fusedSelector.setCurrentNode(second)
    assert "Approved" in ui.decisionLabel.text


def test_what_is_written_into_a_volume_that_was_allowed_is_not_overwritten(chosen):
    ui = chosen.ui
    ui.fusedSelector.activateExtraItem("CREATE")
    made = ui.fusedSelector.currentNode()
    assert ui.fuseButton.isEnabled()
    slicer.util.updateVolumeFromArray(made, np.ones((2, 2, 2), np.int16))  # another module's output
    chosen.updatePanel()
    assert not ui.fuseButton.isEnabled()
    assert ui.overwriteButton.isVisible()


def test_an_overwritten_volume_does_not_keep_its_file(chosen, tmp_path):
    flair = added()
    storage = flair.CreateDefaultStorageNode()
    storage.UnRegister(None)
    slicer.mrmlScene.AddNode(storage)
    storage.SetFileName(str(tmp_path / "flair.nrrd"))
    flair.SetAndObserveStorageNodeID(storage.GetID())
    flair.SetAttribute("DICOM.instanceUIDs", "1.2.3")
    chosen.ui.fusedSelector.setCurrentNode(flair)
    chosen.ui.overwriteButton.click()
    chosen.ui.fuseButton.click()
    assert chosen.ui.fusedSelector.currentNode() == flair
    assert flair.GetStorageNode() is None, "saving the scene would overwrite the user's file"
    assert flair.GetAttribute("DICOM.instanceUIDs") is None, "the result would count as the user's series"
    flair.SetAndObserveStorageNodeID(slicer.mrmlScene.AddNode(flair.CreateDefaultStorageNode()).GetID())
    chosen.ui.fuseButton.click()
    assert flair.GetStorageNode() is not None, "the file of the output was forgotten"


def test_a_transform_that_moves_anything_else_is_not_written_even_if_allowed(chosen, nodes):
    plan = slicer.mrmlScene.AddNewNodeByClass(TRANSFORM, "plan")
    before = slicer.util.arrayFromTransformMatrix(plan)
    chosen.ui.transformSelector.setCurrentNode(plan)
    chosen.ui.overwriteButton.click()
    for kind in ("vtkMRMLSegmentationNode", "vtkMRMLMarkupsFiducialNode", "vtkMRMLModelNode", TRANSFORM):
        moved = slicer.mrmlScene.AddNewNodeByClass(kind, "trajectory")
        moved.SetAndObserveTransformNodeID(plan.GetID())
        chosen.ui.fuseButton.click()
        assert "plan moves trajectory" in chosen.ui.statusLabel.text, kind
        np.testing.assert_array_equal(slicer.util.arrayFromTransformMatrix(plan), before)
        assert nodes[0].GetParentTransformNode() is None
        slicer.mrmlScene.RemoveNode(moved)


def test_what_is_painted_or_written_into_an_output_while_its_fusion_runs_is_kept(fused, runner):
    panel, volume = fused
    runner.meanwhile = lambda: paint(volume)
    painted = slicer.util.arrayFromVolume(volume).copy()
    painted[0, 0, 0] += 1
    panel.ui.fuseButton.click()
    np.testing.assert_array_equal(slicer.util.arrayFromVolume(volume), painted)
    assert panel.ui.fusedSelector.currentNode() != volume
    assert "was changed meanwhile: it was kept" in panel.ui.statusLabel.text
    plan = slicer.mrmlScene.AddNewNodeByClass(TRANSFORM, "plan")
    panel.ui.transformSelector.setCurrentNode(plan)
    panel.ui.overwriteButton.click()
    planned = np.diag([1.0, -1.0, -1.0, 1.0])
    runner.meanwhile = lambda: slicer.util.updateTransformMatrixFromArray(plan, planned)
    for button in (panel.ui.fuseButton, panel.ui.registerButton):
        button.click()
        np.testing.assert_array_equal(slicer.util.arrayFromTransformMatrix(plan), planned)
        assert "plan was changed meanwhile: it was kept" in panel.ui.statusLabel.text
        panel.ui.transformSelector.setCurrentNode(plan)
        planned = np.diag([-1.0, 1.0, -1.0, 1.0])
        panel.ui.overwriteButton.click()


def test_a_fused_volume_that_its_mri_has_left_is_stale_though_the_pose_is_right(fused, nodes):
    """The user puts the MRI under a transform, and registers again: the fused volume is where the MRI was."""
    panel, _volume = fused
    ui, above = panel.ui, slicer.mrmlScene.AddNewNodeByClass(TRANSFORM, "above")
    slicer.util.updateTransformMatrixFromArray(above, np.diag([-1.0, -1.0, 1.0, 1.0]))
    nodes[1].SetAndObserveTransformNodeID(above.GetID())
    panel.logic._runner.pose = panel.logic._runner.pose @ RigidTransform(np.diag([-1.0, -1.0, 1.0, 1.0]))
    ui.registerButton.click()
    assert "Green" in ui.verdictLabel.text
    assert "The fused volume shows an earlier pose" in ui.verdictFindingsLabel.text
    assert not ui.outlineButton.isEnabled()
    panel.logic._runner.pose = panel.logic._runner.pose @ RigidTransform(np.diag([-1.0, -1.0, 1.0, 1.0]))
    nodes[1].SetAndObserveTransformNodeID(None)
    ui.registerButton.click()
    assert "earlier pose" not in ui.verdictFindingsLabel.text
    assert ui.outlineButton.isEnabled()


def test_what_moved_with_the_ct_is_not_taken_to_where_the_ct_was_put_since(fused, nodes):
    panel, _volume = fused
    ct, ours = nodes[0], nodes[0].GetParentTransformNode()
    panel.ui.undoButton.click()
    plate = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLSegmentationNode", "plate")
    plate.SetReferenceImageGeometryParameterFromVolumeNode(ct)
    panel.ui.registerButton.click()
    assert plate.GetParentTransformNode() == ours
    pose = slicer.util.arrayFromTransformMatrix(ours)
    mine = slicer.mrmlScene.AddNewNodeByClass(TRANSFORM, "mine")
    ct.SetAndObserveTransformNodeID(mine.GetID())
    panel.ui.registerButton.click()
    assert "CT to MRI moves what was left under it: it was kept, and a new one" in panel.ui.statusLabel.text
    panel.ui.undoButton.click()
    assert ct.GetParentTransformNode() == mine
    assert plate.GetParentTransformNode() == ours
    np.testing.assert_array_equal(slicer.util.arrayFromTransformMatrix(ours), pose)
    assert "what was left there: 1" in panel.ui.undoButton.toolTip
    panel.ui.undoButton.click()
    assert plate.GetParentTransformNode() is None, "Undo does not reach what the first registration moved"
    assert ct.GetParentTransformNode() == mine
    assert not panel.ui.undoButton.isVisible()


@pytest.mark.parametrize("how", ["put elsewhere", "removed", "hardened"])
def test_what_moved_with_a_ct_that_has_gone_comes_back_by_undo_unless_the_ct_was_hardened(chosen, nodes, how):
    ct, plan = nodes[0], slicer.mrmlScene.AddNewNodeByClass(TRANSFORM, "plan")
    plate = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLSegmentationNode", "plate")
    plate.SetReferenceImageGeometryParameterFromVolumeNode(ct)
    chosen.ui.registerButton.click()
    ours = plate.GetParentTransformNode()
    assert ours is not None
    if how == "hardened":
        ct.HardenTransform()
    elif how == "removed":
        slicer.mrmlScene.RemoveNode(ct)
    else:
        ct.SetAndObserveTransformNodeID(plan.GetID())
    assert chosen.ui.undoButton.isVisible()
    chosen.ui.undoButton.click()
    if how == "hardened":
        assert "cannot be moved back" in chosen.ui.statusLabel.text
        assert plate.GetParentTransformNode() == ours
        return
    assert "Moved back what an earlier registration had moved along: 1." in chosen.ui.statusLabel.text
    assert plate.GetParentTransformNode() is None
    assert not chosen.ui.undoButton.isVisible()
    if how == "put elsewhere":
        assert ct.GetParentTransformNode() == plan


def test_a_segmentation_drawn_on_the_registered_ct_stays_where_it_was_drawn(fused, nodes):
    """The Segment Editor puts it under no transform; the next fusion has nothing to move."""
    panel, _volume = fused
    drawn = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLSegmentationNode", "tumour")
    drawn.SetReferenceImageGeometryParameterFromVolumeNode(nodes[0])
    for button in (panel.ui.fuseButton, panel.ui.refineButton, panel.ui.undoButton, panel.ui.registerButton):
        button.click()
        assert drawn.GetParentTransformNode() is None


def test_a_ct_that_comes_back_while_it_is_shown_unregistered_is_shown_where_it_is(fused, nodes, tmp_path):
    """A scene that is added, or the user in the Transforms module, puts it under its transform again."""
    panel, _volume = fused
    ct, ours, ui = nodes[0], nodes[0].GetParentTransformNode(), panel.ui
    path = str(tmp_path / "other.mrb")
    assert slicer.mrmlScene.WriteToMRB(path)
    view = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLSliceCompositeNode")
    for come_back in (
        lambda: ct.SetAndObserveTransformNodeID(ours.GetID()),
        lambda: slicer.mrmlScene.ReadFromMRB(path, False),
    ):
        ui.showUnregisteredButton.click()
        assert ct.GetParentTransformNode() is None
        come_back()
        assert ct.GetParentTransformNode() == ours
        shown = slicer.mrmlScene.GetNodeByID(view.GetForegroundVolumeID())
        assert shown.GetParentTransformNode() is not None, "the unregistered CT is shown beside the verdict"
        assert not ui.showUnregisteredButton.checked
        ui.ctSelector.setCurrentNode(ct)
        ui.mriSelector.setCurrentNode(nodes[1])


def test_a_transform_that_was_allowed_and_then_hardened_with_one_that_is_not_linear_is_asked_about_again(chosen):
    plan = slicer.mrmlScene.AddNewNodeByClass(TRANSFORM, "plan")
    chosen.ui.transformSelector.setCurrentNode(plan)
    chosen.ui.overwriteButton.click()
    assert chosen.ui.fuseButton.isEnabled()
    harden_with_a_warp(plan)
    chosen.updatePanel()
    assert "plan would be overwritten" in chosen.ui.statusLabel.text
    chosen.ui.overwriteButton.click()
    chosen.ui.fuseButton.click()
    assert plan.IsLinear(), "the pose was not written"


def test_a_result_transform_that_is_not_linear_any_more_is_the_users(fused, nodes):
    panel, _volume = fused
    ct, ours = nodes[0], nodes[0].GetParentTransformNode()
    panel.ui.adjustButton.click()
    harden_with_a_warp(ours)
    panel.updatePanel()
    assert "Changed since" in panel.ui.verdictLabel.text
    assert not panel.ui.adjustButton.isEnabled()
    assert not panel.ui.undoButton.isVisible()
    panel.ui.transformSelector.setCurrentNode(None)
    panel.ui.fuseButton.click()
    assert not ours.IsLinear(), "the user's warp was overwritten"
    assert ct.GetParentTransformNode() == ours


def harden_with_a_warp(transform):
    warp = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLGridTransformNode", "warp")
    field = vtk.vtkImageData()
    field.SetDimensions(2, 2, 2)
    field.SetOrigin(-500, -500, -500)
    field.SetSpacing(1000, 1000, 1000)
    field.AllocateScalars(vtk.VTK_DOUBLE, 3)
    vtk_to_numpy(field.GetPointData().GetScalars())[:] = (3.0, 0.0, 0.0)
    shifting = slicer.vtkOrientedGridTransform()
    shifting.SetDisplacementGridData(field)
    warp.SetAndObserveTransformToParent(shifting)
    transform.SetAndObserveTransformNodeID(warp.GetID())
    transform.HardenTransform()
    assert not transform.IsLinear()


def test_volumes_named_like_ours_are_not_taken_for_ours(chosen):
    names = ("MRI fused with CT", "CT to MRI", "weight of CT in MRI", "CT on MRI", "CT in 3D", "Sample CT")
    users = [added(name, n) for n, name in enumerate(names)]
    chosen.ui.fuseButton.click()
    chosen.ui.fuseButton.click()
    chosen.exit()
    for n, node in enumerate(users):
        assert node.GetScene() is not None
        np.testing.assert_array_equal(slicer.util.arrayFromVolume(node), np.full((3, 4, 5), n))


def test_two_fusions_and_undo_leave_inputs_and_the_users_nodes_as_they_were(chosen, nodes):
    flair, plan = added(), slicer.mrmlScene.AddNewNodeByClass(TRANSFORM, "plan")
    flair.SetAndObserveTransformNodeID(plan.GetID())
    before = [slicer.util.arrayFromVolume(node).copy() for node in (*nodes, flair)]
    for _time in range(2):
        chosen.ui.fuseButton.click()
    while chosen.ui.undoButton.isVisible():
        chosen.ui.undoButton.click()
    assert not chosen.logic.undo(flair)
    assert nodes[0].GetParentTransformNode() is None
    assert flair.GetParentTransformNode() == plan
    for node, voxels in zip((*nodes, flair), before, strict=True):
        np.testing.assert_array_equal(slicer.util.arrayFromVolume(node), voxels)


def test_a_fusion_that_ends_while_the_scene_is_batch_processed_loses_nothing(chosen, nodes, runner):
    scene, flair = slicer.mrmlScene, added()
    runner.meanwhile = lambda: scene.StartState(scene.BatchProcessState)
    chosen.ui.fuseButton.click()
    scene.EndState(scene.BatchProcessState)
    assert chosen.ui.fusedSelector.currentNode() not in (None, flair, *nodes)
    assert np.array_equal(slicer.util.arrayFromVolume(flair), np.full((3, 4, 5), 7))


def test_a_scene_imported_amid_a_fusion_keeps_its_nodes(chosen, nodes, runner, tmp_path):
    path = str(tmp_path / "other.mrb")
    flair = added("other FLAIR")
    assert slicer.mrmlScene.WriteToMRB(path)
    slicer.mrmlScene.RemoveNode(flair)
    runner.meanwhile = lambda: slicer.mrmlScene.ReadFromMRB(path, False)
    chosen.ui.fuseButton.click()
    (loaded,) = [node for node in volumes() if node.GetName() == "other FLAIR"]
    assert np.array_equal(slicer.util.arrayFromVolume(loaded), np.full((3, 4, 5), 7))
    assert all(node.GetScene() is not None for node in nodes)


def test_reloading_the_module_leaves_every_node_of_the_users(fused, module, nodes):
    panel, volume = fused
    flair = added()
    panel.ui.checkerboardButton.click()
    before = {node.GetID() for node in volumes() if not node.GetHideFromEditors()}
    panel.cleanup()
    assert {node.GetID() for node in volumes()} == before
    assert {flair.GetID(), volume.GetID(), *(node.GetID() for node in nodes)} <= before


def test_a_proxy_of_a_sequence_can_be_fused_and_keeps_its_frames(chosen, nodes):
    """Sequences: the browser copies frames into the proxy node; its data nodes must stay as they are."""
    sequence = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLSequenceNode", "frames")
    for n in range(2):
        frame = slicer.vtkMRMLScalarVolumeNode()
        frame.Copy(nodes[0])
        sequence.SetDataNodeAtValue(frame, str(n))
    before = [slicer.util.arrayFromVolume(sequence.GetNthDataNode(n)).copy() for n in range(2)]
    count = len(volumes())
    chosen.ui.fuseButton.click()
    for n in range(2):
        np.testing.assert_array_equal(slicer.util.arrayFromVolume(sequence.GetNthDataNode(n)), before[n])
        assert sequence.GetNthDataNode(n).GetParentTransformNode() is None
    assert len(volumes()) == count + 1


def test_an_output_that_is_an_input_of_another_pair_stays_that_pairs(fused, nodes):
    """The fused volume of one pair as MRI of another: the second fusion must not write into the first result."""
    panel, first = fused
    before = slicer.util.arrayFromVolume(first).copy()
    panel.ui.mriSelector.setCurrentNode(first)
    assert panel.ui.fusedSelector.currentNode() is None
    panel.ui.fuseButton.click()
    np.testing.assert_array_equal(slicer.util.arrayFromVolume(first), before)


def test_scripts_cannot_register_into_a_transform_over_the_mri(panel, nodes, runner):
    above = slicer.mrmlScene.AddNewNodeByClass(TRANSFORM, "above")
    nodes[1].SetAndObserveTransformNodeID(above.GetID())
    ended = []
    with pytest.raises((SettingsError, GeometryError), match="above"):
        panel.logic.startRegistration(
            *nodes, above, overwrite=[above], finishedCallback=lambda outcome, error: ended.append(error)
        )
    assert np.array_equal(slicer.util.arrayFromTransformMatrix(above), np.eye(4))


@pytest.mark.parametrize("button", ["fuseButton", "registerButton", "checkButton", "refineButton"])
def test_of_two_volumes_of_one_name_the_one_shown_is_used_though_the_selector_is_silent(chosen, nodes, runner, button):
    other = slicer.mrmlScene.AddNewNodeByClass(VOLUME, nodes[1].GetName())
    other.CopyContent(nodes[1])
    slicer.util.updateVolumeFromArray(other, slicer.util.arrayFromVolume(nodes[1]) + 1)
    seen, run = [], runner.run
    runner.run = lambda request, inputs, *calls: seen.append(inputs.mri.array_kji.min()) or run(request, inputs, *calls)
    chosen.ui.mriSelector.blockSignals(True)
    chosen.ui.mriSelector.setCurrentNode(other)
    chosen.ui.mriSelector.blockSignals(False)
    getattr(chosen.ui, button).click()
    assert seen == [slicer.util.arrayFromVolume(other).min()]
    assert chosen._parameterNode.mriVolume == other


def test_the_voxels_of_a_closed_scene_are_let_go_of(panel):
    """Else each patient of a day would stay in memory."""
    ui, nodes = panel.ui, [added("CT"), added("MRI")]
    nodes += [slicer.mrmlScene.AddNewNodeByClass(kind) for kind in (TRANSFORM, "vtkMRMLMarkupsFiducialNode")]
    selectors = (ui.ctSelector, ui.mriSelector, ui.poseSelector, ui.ctPointsSelector)
    for selector, node in zip(selectors, nodes, strict=True):
        selector.setCurrentNode(node)
    choices = panel._parameterNode
    there = [weakref.ref(one) for one in (*nodes, choices)]
    del nodes, node, choices
    slicer.mrmlScene.Clear()
    gc.collect()
    assert [one() for one in there] == [None] * len(there)


def test_the_voxels_of_a_result_are_in_the_scene_alone(fused):
    panel, _node = fused
    result = weakref.ref(panel.lastOutcome.result)
    panel.lastOutcome = None
    gc.collect()
    assert result() is None
