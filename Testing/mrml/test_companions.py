"""What moves with a CT, and comes back with it: on Slicer's real MRML classes."""

import sys
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("slicer", reason="slicer-core is not installed: pip install slicer-core==5.12.4.0")

import slicer
import slicer.util

from BrainFusionLib.errors import GeometryError
from BrainFusionLib.transform import RigidTransform

sys.path.insert(0, str(Path(__file__).parents[2] / "BrainFusion"))  # as Slicer does with a module's folder
from BrainFusionSlicer import bridge, ownership, registered_ct
from BrainFusionSlicer.fingerprint import fingerprint_of, is_same_place
from BrainFusionSlicer.registered_ct import Standing

pytestmark = pytest.mark.filterwarnings("ignore:Setting the shape on a NumPy array:DeprecationWarning")

TRANSFORM = RigidTransform.from_axis_angle((1, 2, 3), 20, (5, 6, 7))
GEOMETRY = slicer.vtkSegmentationConverter.GetReferenceImageGeometryParameterName


@pytest.fixture
def scene():
    return slicer.vtkMRMLScene()


@pytest.fixture
def pair(scene):
    made = []
    for name in ("CT", "MRI"):
        node = scene.AddNewNodeByClass("vtkMRMLScalarVolumeNode", name)
        slicer.util.updateVolumeFromArray(node, np.arange(60, dtype=np.int16).reshape(3, 4, 5))
        made.append(node)
    return made


def transform(scene, name, shift=(3.0, -2.0, 40.0), turned_deg=0.0):
    node = scene.AddNewNodeByClass("vtkMRMLLinearTransformNode", name)
    matrix = bridge.mri_from_ct_ras(RigidTransform.from_axis_angle((1, 0, 1), turned_deg, shift))
    node.SetMatrixTransformToParent(bridge.vtk_matrix(matrix))
    return node


def add(scene, kind, name, parent=None):
    node = scene.AddNewNodeByClass(f"vtkMRML{kind}Node", name)
    node.SetAndObserveTransformNodeID(None if parent is None else parent.GetID())
    return node


def segmentation_of(scene, volume, parent=None):
    node = add(scene, "Segmentation", f"segmentation of {volume.GetName()}", parent)
    node.SetReferenceImageGeometryParameterFromVolumeNode(volume)
    return node


def in_hierarchy_of(scene, volume, node):
    hierarchy = slicer.vtkMRMLSubjectHierarchyNode.GetSubjectHierarchyNode(scene)
    item = hierarchy.GetItemByDataNode(volume) or hierarchy.CreateItem(hierarchy.GetSceneItemID(), volume)
    hierarchy.CreateItem(item, node)


def world_of(node, point=(10.0, 20.0, 30.0)):
    world = [0.0, 0.0, 0.0]
    node.TransformPointToWorld(point, world)
    return np.array(world)


def is_moved(node, before):
    """Whether a node was moved as the CT is by the registration."""
    expected = bridge.mri_from_ct_ras(TRANSFORM) @ (*before, 1.0)
    return np.allclose(world_of(node), expected[:3], atol=1e-9)


def test_what_belongs_to_the_ct_moves_with_it_and_undo_puts_each_back(scene, pair):
    ct, mri = pair
    own = transform(scene, "own")
    ct.SetAndObserveTransformNodeID(own.GetID())
    belonging = [
        add(scene, "MarkupsFiducial", "under the CT's own transform", own),
        add(scene, "Model", "electrode", own),
        transform(scene, "a transform under it"),
        segmentation_of(scene, ct, own),
    ]
    belonging[2].SetAndObserveTransformNodeID(own.GetID())
    others = [segmentation_of(scene, mri), add(scene, "Model", "elsewhere"), transform(scene, "unused")]
    before = [(world_of(node), node.GetParentTransformNode()) for node in (*belonging, *others, mri)]
    bridge.move_ct_onto_mri(ct, mri, TRANSFORM)
    assert registered_ct.moved_with(ct) == 4
    for node, (place, _) in zip(belonging[:2] + belonging[3:], before[:2] + before[3:4], strict=True):
        assert is_moved(node, place), node.GetName()
    for node, (place, parent) in zip((*others, mri), before[4:], strict=True):
        np.testing.assert_allclose(world_of(node), place)
        assert node.GetParentTransformNode() == parent
    assert registered_ct.take_back(ct)
    for node, (place, parent) in zip((*belonging, *others, mri), before, strict=True):
        assert node.GetParentTransformNode() == parent, node.GetName()
        np.testing.assert_allclose(world_of(node), place)
    assert registered_ct.bring_again(ct, mri)
    assert registered_ct.moved_with(ct) == 4


@pytest.mark.parametrize("how", ["segmentation", "child in the hierarchy", "grandchild"])
def test_without_a_transform_children_and_segmentations_move(scene, pair, how):
    ct, mri = pair
    if how == "segmentation":
        node = segmentation_of(scene, ct)
    else:
        node = add(scene, "MarkupsFiducial", "points")
        between = add(scene, "Model", "model")
        in_hierarchy_of(scene, ct, between if how == "grandchild" else node)
        if how == "grandchild":
            in_hierarchy_of(scene, between, node)
    before = world_of(node)
    bridge.move_ct_onto_mri(ct, mri, TRANSFORM)
    assert is_moved(node, before)
    registered_ct.take_back(ct)
    assert node.GetParentTransformNode() is None


def test_a_transform_that_the_mri_is_under_too_is_not_the_cts_own(scene, pair):
    shared = transform(scene, "shared", turned_deg=10)
    for node in pair:
        node.SetAndObserveTransformNodeID(shared.GetID())
    points = add(scene, "MarkupsFiducial", "points", shared)
    segmentation = segmentation_of(scene, pair[0], shared)
    before = world_of(points), world_of(segmentation), world_of(pair[1])
    bridge.move_ct_onto_mri(*pair, TRANSFORM)
    np.testing.assert_allclose(world_of(points), before[0])
    assert is_moved(segmentation, before[1])
    np.testing.assert_allclose(world_of(pair[1]), before[2])


def test_another_pairs_ct_under_the_same_transform_is_not_moved(scene, pair):
    ct, mri = pair
    own = transform(scene, "own")
    other = add(scene, "ScalarVolume", "CT B", own)
    slicer.util.updateVolumeFromArray(other, np.ones((3, 4, 5), np.int16))
    ct.SetAndObserveTransformNodeID(own.GetID())
    theirs = bridge.move_ct_onto_mri(other, mri, TRANSFORM)
    assert ct.GetParentTransformNode() == theirs  # it stood under the other CT's own transform
    registered_ct.take_back(other)
    assert ct.GetParentTransformNode() == own


def test_what_belongs_to_the_ct_goes_with_it_to_another_mri(scene, pair):
    ct, mri = pair
    other = add(scene, "ScalarVolume", "MRI 2")
    slicer.util.updateVolumeFromArray(other, np.ones((3, 4, 5), np.int16))
    segmentation = segmentation_of(scene, ct)
    bridge.move_ct_onto_mri(ct, mri, TRANSFORM)
    second = bridge.move_ct_onto_mri(ct, other, TRANSFORM.inverse())
    assert segmentation.GetParentTransformNode() == ct.GetParentTransformNode() == second
    registered_ct.take_back(ct)
    assert segmentation.GetParentTransformNode() is None


def test_what_the_user_moved_since_stays_where_it_is(scene, pair):
    ct, mri = pair
    first, second = (add(scene, "MarkupsFiducial", name) for name in ("first", "second"))
    for node in (first, second):
        in_hierarchy_of(scene, ct, node)
    result = bridge.move_ct_onto_mri(ct, mri, TRANSFORM)
    later = add(scene, "Model", "put there by hand", result)
    second.SetAndObserveTransformNodeID(None)
    registered_ct.take_back(ct)
    assert later.GetParentTransformNode() == result
    assert first.GetParentTransformNode() is None
    planning = transform(scene, "planning")
    first.SetAndObserveTransformNodeID(planning.GetID())
    registered_ct.bring_again(ct, mri)
    assert first.GetParentTransformNode() == planning
    assert later.GetParentTransformNode() == result


@pytest.mark.parametrize("undone", [False, True])
@pytest.mark.parametrize("how", ["segmentation", "labels", "child", "own"])
def test_what_was_made_on_the_registered_ct_stays_there_in_the_next_registration(scene, pair, how, undone):
    """Slicer's Segment Editor draws under no transform, on the voxels of where its volume is shown."""
    ct, mri = pair
    own = transform(scene, "own", turned_deg=7) if how == "own" else None
    ct.SetAndObserveTransformNodeID(None if own is None else own.GetID())
    bridge.move_ct_onto_mri(ct, mri, TRANSFORM)
    if how in ("segmentation", "labels"):
        node = segmentation_of(scene, ct)
    else:
        node = add(scene, "MarkupsFiducial", "points", own)
    if how == "child":
        in_hierarchy_of(scene, ct, node)
    if how == "labels":
        image = slicer.vtkOrientedImageData()
        content, key = node.GetSegmentation(), slicer.vtkSegmentationConverter.GetReferenceImageGeometryParameterName()
        assert slicer.vtkSegmentationConverter.DeserializeImageGeometry(content.GetConversionParameter(key), image)
        node.AddSegmentFromBinaryLabelmapRepresentation(image, "tumour", [1.0, 0.0, 0.0])
        content.SetConversionParameter(key, "")
    before = world_of(node)
    if undone and how in ("segmentation", "labels"):
        registered_ct.take_back(ct)
    bridge.move_ct_onto_mri(ct, mri, TRANSFORM)
    np.testing.assert_allclose(world_of(node), before)
    assert registered_ct.moved_with(ct) == 0


@pytest.mark.parametrize("labels", [False, True], ids=["empty", "drawn"])
@pytest.mark.parametrize("finer", [False, True], ids=["the volume's voxels", "finer voxels"])
@pytest.mark.parametrize("shift", [(5.0, 6.0, 7.0), (0.4, 0.0, 0.0), (0.0, 0.0, -3.3)])
def test_what_was_drawn_on_a_ct_that_was_only_shifted_stays_and_what_was_drawn_before_moves(
    scene, pair, shift, finer, labels
):
    """Nothing is turned: the place of the voxels alone says where a segmentation was drawn."""
    if finer and max(map(abs, shift)) < 1:
        pytest.skip("less than a voxel cannot be told apart where the user has chosen other voxels")
    ct, mri = pair
    shifted = RigidTransform.from_axis_angle((0, 0, 1), 0, shift)
    drawn_before = drawn_on(scene, ct, finer, labels)
    bridge.move_ct_onto_mri(ct, mri, shifted)
    assert drawn_before.GetParentTransformNode() == ct.GetParentTransformNode()
    drawn_there = drawn_on(scene, ct, finer, labels)
    registered_ct.take_back(ct)
    bridge.move_ct_onto_mri(ct, mri, shifted)
    assert drawn_before.GetParentTransformNode() == ct.GetParentTransformNode()
    assert drawn_there.GetParentTransformNode() is None


def drawn_on(scene, volume, finer, labels):
    """Draw on a volume where it is shown, as the Segment Editor does, maybe in voxels of half the size."""
    node, key = segmentation_of(scene, volume), GEOMETRY()
    content, image = node.GetSegmentation(), slicer.vtkOrientedImageData()
    assert slicer.vtkSegmentationConverter.DeserializeImageGeometry(content.GetConversionParameter(key), image)
    if finer:
        matrix, extent = bridge.vtk_matrix(np.eye(4)), np.array(image.GetExtent())
        image.GetImageToWorldMatrix(matrix)
        halved = slicer.util.arrayFromVTKMatrix(matrix) @ np.diag([0.5, 0.5, 0.5, 1])
        halved[:3, 3] -= halved[:3, :3].sum(axis=1) / 2  # the box is the same
        content.SetConversionParameter(
            key,
            slicer.vtkSegmentationConverter.SerializeImageGeometry(
                bridge.vtk_matrix(halved), [int(n) for n in (2 * extent + [0, 1] * 3)]
            ),
        )
        assert slicer.vtkSegmentationConverter.DeserializeImageGeometry(content.GetConversionParameter(key), image)
    if labels:
        node.AddSegmentFromBinaryLabelmapRepresentation(image, "tumour", [1.0, 0.0, 0.0])
    return node


@pytest.mark.parametrize("last", [3.0, 2.6], ids=["the CT's voxels", "between the CT's voxels"])
def test_a_segmentation_of_a_part_of_the_ct_moves_with_it(scene, pair, last):
    """An imported one: its box is a part of the CT's, in another order."""
    ct, mri = pair
    node = segmentation_of(scene, ct)
    turned = np.array([[-1, 0, 0, last], [0, 1, 0, 1], [0, 0, 1, 0], [0, 0, 0, 1.0]])
    geometry = slicer.vtkSegmentationConverter.SerializeImageGeometry(bridge.vtk_matrix(turned), [0, 2, 0, 1, 0, 2])
    node.GetSegmentation().SetConversionParameter(GEOMETRY(), geometry)
    bridge.move_ct_onto_mri(ct, mri, TRANSFORM)
    assert node.GetParentTransformNode() == ct.GetParentTransformNode()


def test_what_was_taken_out_of_the_registered_frame_is_not_put_there_again(scene, pair):
    ct, mri = pair
    segmentation = segmentation_of(scene, ct)
    bridge.move_ct_onto_mri(ct, mri, TRANSFORM)
    segmentation.HardenTransform()
    for _time in range(2):
        registered_ct.take_back(ct, to_look=True)
        registered_ct.bring_again(ct, mri)
    assert segmentation.GetParentTransformNode() is None
    registered_ct.take_back(ct)
    bridge.move_ct_onto_mri(ct, mri, TRANSFORM)
    assert segmentation.GetParentTransformNode() is None


@pytest.mark.parametrize("how", ["moved with it", "put there by the user"])
@pytest.mark.parametrize("left", ["hardened", "put elsewhere"])
def test_a_transform_that_the_ct_has_left_is_not_written_while_something_is_under_it(scene, pair, how, left):
    ct, mri = pair
    segmentation = segmentation_of(scene, ct)
    first = bridge.move_ct_onto_mri(ct, mri, TRANSFORM)
    if how == "put there by the user":
        scene.RemoveNode(segmentation)
        segmentation = add(scene, "Model", "electrode", first)
    before = world_of(segmentation)
    if left == "hardened":
        ct.HardenTransform()
    else:
        ct.SetAndObserveTransformNodeID(transform(scene, "elsewhere").GetID())
    second = bridge.move_ct_onto_mri(ct, mri, RigidTransform.identity())
    assert second != first
    assert ct.GetParentTransformNode() == second
    np.testing.assert_allclose(world_of(segmentation), before)
    assert bridge.move_ct_onto_mri(ct, mri, TRANSFORM) == second


def test_a_copy_of_a_registered_ct_does_not_take_the_ct_along(scene, pair):
    ct, mri = pair
    segmentation = segmentation_of(scene, ct)
    theirs = bridge.move_ct_onto_mri(ct, mri, TRANSFORM)
    copy = scene.AddNewNodeByClass("vtkMRMLScalarVolumeNode")
    copy.Copy(ct)
    bridge.move_ct_onto_mri(copy, mri, TRANSFORM)
    assert ct.GetParentTransformNode() == segmentation.GetParentTransformNode() == theirs
    assert registered_ct.standing_of(ct, mri) is Standing.REGISTERED


def test_moving_the_mris_transform_moves_all_and_keeps_the_alignment(scene, pair):
    ct, mri = pair
    own, above = transform(scene, "own", turned_deg=15), transform(scene, "above the MRI", turned_deg=-30)
    ct.SetAndObserveTransformNodeID(own.GetID())
    mri.SetAndObserveTransformNodeID(above.GetID())
    before = world_of(ct)
    result = bridge.move_ct_onto_mri(ct, mri, TRANSFORM)
    assert is_moved(ct, before)
    print_before = fingerprint_of(ct, bridge.linear_parent(mri))
    off = world_of(ct) - world_of(mri, (1.0, 2.0, 3.0))
    above.SetMatrixTransformToParent(bridge.vtk_matrix(np.diag([1, 1, 1, 1.0])))
    assert not np.allclose(world_of(ct) - world_of(mri, (1.0, 2.0, 3.0)), off)  # it was turned
    assert is_same_place(fingerprint_of(ct, bridge.linear_parent(mri)).seen_mm, print_before.seen_mm)
    result.SetMatrixTransformToParent(bridge.vtk_matrix(np.eye(4)))
    assert not is_same_place(fingerprint_of(ct, bridge.linear_parent(mri)).seen_mm, print_before.seen_mm)


def test_a_volume_that_was_saved_as_nifti_is_where_it_was(scene, pair):
    ct = pair[0]
    oblique = np.diag([0.47, 0.47, 0.9, 1]).astype(float)
    oblique[:3] = (
        RigidTransform.from_axis_angle((1, 2, 3), 20, (-312.3, 251.7, -804.1)).moving_from_fixed_lps[:3] @ oblique
    )
    ct.SetIJKToRASMatrix(bridge.vtk_matrix(oblique))
    before = fingerprint_of(ct).own_mm
    for moved_mm, is_same in ((0.0, True), (0.01, False)):
        now = oblique.astype(np.float32).astype(float)
        now[0, 3] += moved_mm
        ct.SetIJKToRASMatrix(bridge.vtk_matrix(now))
        assert is_same_place(fingerprint_of(ct).own_mm, before) == is_same


def test_outputs_stand_under_the_mris_transform_where_the_mri_is(scene, pair):
    mri, fused = pair[1], add(scene, "ScalarVolume", "fused")
    above = transform(scene, "above", turned_deg=33)
    mri.SetAndObserveTransformNodeID(above.GetID())
    bridge.node_from_volume(bridge.volume_from_node(mri), fused, bridge.linear_parent(mri))
    assert fused.GetParentTransformNode() == above
    np.testing.assert_allclose(
        bridge.volume_from_node(fused).grid.lps_from_ijk, bridge.volume_from_node(mri).grid.lps_from_ijk, atol=1e-9
    )


def test_a_ct_whose_former_transform_was_removed_says_so_and_stays(scene, pair):
    ct, mri = pair
    own = transform(scene, "own")
    ct.SetAndObserveTransformNodeID(own.GetID())
    result = bridge.move_ct_onto_mri(ct, mri, TRANSFORM)
    scene.RemoveNode(own)
    assert registered_ct.standing_of(ct, mri) is Standing.HOMELESS
    assert not registered_ct.take_back(ct)
    assert ct.GetParentTransformNode() == result


def test_the_transform_names_its_two_volumes_as_slicer_does(scene, pair):
    result = bridge.move_ct_onto_mri(*pair, TRANSFORM)
    assert result.GetNodeReference("spatialRegistrationMoving") == pair[0]
    assert result.GetNodeReference("spatialRegistrationFixed") == pair[1]


def test_a_transform_over_the_mri_is_not_written(scene, pair):
    ct, mri = pair
    result = bridge.move_ct_onto_mri(ct, mri, TRANSFORM)
    mri.SetAndObserveTransformNodeID(result.GetID())
    with pytest.raises(GeometryError, match="MRI stands on CT by CT to MRI"):
        bridge.move_ct_onto_mri(ct, mri, TRANSFORM)
    assert ownership.find_output("transform", ct, mri) == result


def test_a_saved_scene_brings_companions_back(scene, pair, tmp_path):
    ct, mri = pair
    own = transform(scene, "own")
    ct.SetAndObserveTransformNodeID(own.GetID())
    add(scene, "MarkupsFiducial", "points", own)
    bridge.move_ct_onto_mri(ct, mri, TRANSFORM)
    scene.SetURL(str(tmp_path / "scene.mrml"))
    assert scene.Commit()
    loaded = slicer.vtkMRMLScene()
    loaded.SetURL(str(tmp_path / "scene.mrml"))
    loaded.Connect()
    ct, points, own = (loaded.GetFirstNodeByName(name) for name in ("CT", "points", "own"))
    assert points.GetParentTransformNode() == ct.GetParentTransformNode() != own
    image = slicer.vtkMRMLScalarVolumeNode()
    slicer.util.updateVolumeFromArray(image, np.arange(60, dtype=np.int16).reshape(3, 4, 5))
    ct.SetAndObserveImageData(image.GetImageData())  # the scene file alone has no voxels
    assert registered_ct.take_back(ct)
    assert (ct.GetParentTransformNode(), points.GetParentTransformNode()) == (own, own)
