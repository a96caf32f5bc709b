"""The MRML bridge on Slicer's real MRML classes: needs `pip install slicer-core==5.12.4.0` (no Qt, no Slicer)."""

import sys
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("slicer", reason="slicer-core is not installed: pip install slicer-core==5.12.4.0")

import slicer
import slicer.util
import vtk

from BrainFusionLib.errors import GeometryError, ImageContentError
from BrainFusionLib.geometry import Grid, rotation_matrix
from BrainFusionLib.transform import RigidTransform
from BrainFusionLib.volume import Volume

sys.path.insert(0, str(Path(__file__).parents[2] / "BrainFusion"))  # as Slicer does with a module's folder
from BrainFusionSlicer import bridge, registered_ct

# VTK 9.6 does so itself; Slicer 5.12 has NumPy 2.4, where that is no matter yet.
pytestmark = pytest.mark.filterwarnings("ignore:Setting the shape on a NumPy array:DeprecationWarning")


def ras_from_ijk(rotation, spacing, origin):
    """4x4 of voxel axes (the rotation's columns, scaled; a negative spacing makes them left-handed) in RAS mm."""
    matrix = np.eye(4)
    matrix[:3, :3] = np.asarray(rotation) * spacing
    matrix[:3, 3] = origin
    return matrix


RAS_FROM_IJK = {
    "axial": ras_from_ijk(np.diag([-1, -1, 1]), (0.8, 0.9, 2.5), (90, 110, -70)),
    "sagittal, left-handed": ras_from_ijk([[0, 0, 1], [1, 0, 0], [0, -1, 0]], (1, 1, 1.5), (-60, -100, 120)),
    "oblique": ras_from_ijk(rotation_matrix((1, 2, 3), 33), (0.7, 1.1, 3), (10, -20, 30)),
    "oblique, left-handed": ras_from_ijk(rotation_matrix((-2, 1, 0.5), 71), (1.3, -0.6, 2), (-5, 8, 100)),
}
VTK_KEEPS = (np.uint8, np.int16, np.uint16, np.int32, np.float32, np.float64)


@pytest.fixture
def scene():
    return slicer.vtkMRMLScene()


def add_volume(scene, name="CT", orientation="oblique", dtype=np.int16, shape=(3, 4, 5)):
    node = scene.AddNewNodeByClass("vtkMRMLScalarVolumeNode", name)
    slicer.util.updateVolumeFromArray(node, np.arange(np.prod(shape)).reshape(shape).astype(dtype))
    node.SetIJKToRASMatrix(bridge.vtk_matrix(RAS_FROM_IJK[orientation]))
    return node


def add_transform(scene, matrix, name="User's"):
    node = scene.AddNewNodeByClass("vtkMRMLLinearTransformNode", name)
    node.SetMatrixTransformToParent(bridge.vtk_matrix(matrix))
    return node


def world_ras_of_voxel(node, ijk):
    """Ask Slicer itself where a voxel is: no matrix of ours is involved."""
    to_ras = vtk.vtkMatrix4x4()
    node.GetIJKToRASMatrix(to_ras)
    local = to_ras.MultiplyDoublePoint((*ijk, 1.0))[:3]
    world = [0.0, 0.0, 0.0]
    node.TransformPointToWorld(local, world)
    return np.array(world)


def value_of_voxel(node, ijk):
    return node.GetImageData().GetScalarComponentAsDouble(*ijk, 0)


def content(node):
    matrix = vtk.vtkMatrix4x4()
    node.GetIJKToRASMatrix(matrix)
    voxels = slicer.util.arrayFromVolume(node)
    return voxels.dtype, voxels.tolist(), slicer.util.arrayFromVTKMatrix(matrix).tolist()


def rigid(axis=(1, -2, 0.5), angle=25, shift=(12, -7, 30)):
    """A RigidTransform, and by hand the RAS matrix of the opposite direction."""
    transform = RigidTransform.from_axis_angle(axis, angle, shift)
    inverse = np.linalg.inv(transform.moving_from_fixed_lps)
    inverse[:2] *= -1  # rows: R = -L, A = -P of the result
    inverse[:, :2] *= -1  # columns: the same of the point that goes in
    return transform, inverse


@pytest.mark.parametrize("orientation", RAS_FROM_IJK)
def test_a_volume_comes_over_with_x_and_y_flipped(scene, orientation):
    node = add_volume(scene, orientation=orientation)
    volume = bridge.volume_from_node(node)
    assert volume.array_kji.shape == (3, 4, 5)
    for ijk in [(0, 0, 0), (4, 0, 0), (0, 3, 0), (0, 0, 2), (4, 3, 2)]:
        r, a, s = world_ras_of_voxel(node, ijk)
        lps = volume.grid.lps_from_ijk @ (*ijk, 1)
        np.testing.assert_allclose(lps[:3], (-r, -a, s), atol=1e-9)
        assert volume.array_kji[ijk[::-1]] == value_of_voxel(node, ijk)


@pytest.mark.parametrize("orientation", RAS_FROM_IJK)
def test_the_bridge_agrees_with_nibabel(scene, orientation):
    nibabel = pytest.importorskip("nibabel", reason="nibabel is not installed")
    image = nibabel.Nifti1Image(np.zeros((5, 4, 3), np.float32), RAS_FROM_IJK[orientation])
    volume = bridge.volume_from_node(add_volume(scene, orientation=orientation))
    lps_codes = nibabel.aff2axcodes(volume.grid.lps_from_ijk, labels=(("R", "L"), ("A", "P"), ("I", "S")))
    assert lps_codes == nibabel.aff2axcodes(image.affine)  # nibabel's affines are RAS, with its default labels


@pytest.mark.parametrize("dtype", VTK_KEEPS)
def test_every_voxel_type_becomes_float32(scene, dtype):
    volume = bridge.volume_from_node(add_volume(scene, dtype=dtype))
    assert volume.array_kji.dtype == np.float32
    assert volume.array_kji[-1, -1, -1] == 59


@pytest.mark.parametrize("dtype", VTK_KEEPS)
def test_writing_to_the_copy_leaves_the_node_alone(scene, dtype):
    node = add_volume(scene, dtype=dtype)
    before = content(node)
    bridge.volume_from_node(node).array_kji[:] = -1
    assert content(node) == before


@pytest.mark.parametrize("orientation", RAS_FROM_IJK)
def test_a_volume_goes_out_to_where_it_came_from(scene, orientation):
    node = add_volume(scene, orientation=orientation)
    copy = scene.AddNewNodeByClass("vtkMRMLScalarVolumeNode", "copy")
    bridge.node_from_volume(bridge.volume_from_node(node), copy)
    for ijk in [(0, 0, 0), (4, 3, 2), (1, 2, 0)]:
        np.testing.assert_allclose(world_ras_of_voxel(copy, ijk), world_ras_of_voxel(node, ijk), atol=1e-9)
        assert value_of_voxel(copy, ijk) == value_of_voxel(node, ijk)
    assert copy.GetDisplayNode() is not None


def test_writing_replaces_the_node_and_removes_its_transform(scene):
    node = add_volume(scene, "old result", shape=(7, 7, 7))
    clone = add_volume(scene, "clone")
    clone.SetAndObserveImageData(node.GetImageData())
    node.SetAndObserveTransformNodeID(add_transform(scene, RAS_FROM_IJK["oblique"]).GetID())
    grid = Grid((2, 3, 4), (1.0, 2.0, 3.0), (-10.0, 20.0, 5.0))
    bridge.node_from_volume(Volume(np.ones(grid.shape_kji, np.float32), grid), node)
    assert slicer.util.arrayFromVolume(node).tolist() == np.ones((4, 3, 2)).tolist()
    np.testing.assert_allclose(world_ras_of_voxel(node, (0, 0, 0)), (10, -20, 5))
    np.testing.assert_allclose(world_ras_of_voxel(node, (1, 2, 3)), (9, -24, 14))
    assert slicer.util.arrayFromVolume(clone).shape == (7, 7, 7)


def test_linear_parents_are_baked_in_all_the_way_up(scene):
    node = add_volume(scene)
    upper = add_transform(scene, rigid()[1], "upper")
    lower = add_transform(scene, rigid((0, 1, 1), -50, (3, 2, 1))[1], "lower")
    lower.SetAndObserveTransformNodeID(upper.GetID())
    node.SetAndObserveTransformNodeID(lower.GetID())
    before = content(node)
    volume = bridge.volume_from_node(node)
    for ijk in [(0, 0, 0), (4, 0, 0), (0, 3, 0), (0, 0, 2)]:
        expected = world_ras_of_voxel(node, ijk) * (-1, -1, 1)
        np.testing.assert_allclose((volume.grid.lps_from_ijk @ (*ijk, 1))[:3], expected, atol=1e-9)
    assert content(node) == before
    assert node.GetParentTransformNode() is lower


@pytest.mark.parametrize("levels", [1, 2])
def test_a_nonlinear_parent_gives_a_resampled_copy(scene, levels):
    node = add_volume(scene, "Tilted CT")
    before = content(node)
    parent = scene.AddNewNodeByClass("vtkMRMLBSplineTransformNode", "Acquisition transform")
    shift = vtk.vtkTransform()
    shift.Translate(0, 0, 40)
    general = vtk.vtkThinPlateSplineTransform()
    general.SetBasisToR()
    points = vtk.vtkPoints()
    moved = vtk.vtkPoints()
    for x, y, z in [(0, 0, 0), (50, 0, 0), (0, 50, 0), (0, 0, 50), (50, 50, 50)]:
        points.InsertNextPoint(x, y, z)
        moved.InsertNextPoint(x, y, z + 40)
    general.SetSourceLandmarks(points)
    general.SetTargetLandmarks(moved)
    parent.SetAndObserveTransformToParent(general)
    if levels == 2:
        lower = add_transform(scene, np.eye(4))
        lower.SetAndObserveTransformNodeID(parent.GetID())
        parent = lower
    node.SetAndObserveTransformNodeID(parent.GetID())
    assert not bridge.is_under_linear_transforms(node)
    nodes = scene.GetNumberOfNodesByClass("vtkMRMLVolumeNode")
    read = bridge.volume_from_node(node)
    # A spline that only shifts: what was somewhere is 40 mm higher now.
    node.SetAndObserveTransformNodeID(None)
    plain = bridge.volume_from_node(node)
    assert read.grid.centre_lps_mm[2] == pytest.approx(plain.grid.centre_lps_mm[2] + 40, abs=2)
    assert read.name == "Tilted CT"
    assert read.array_kji.max() == pytest.approx(plain.array_kji.max(), rel=0.2)
    assert scene.GetNumberOfNodesByClass("vtkMRMLVolumeNode") == nodes
    assert content(node) == before


def test_a_tilted_ct_as_slicers_dicom_loader_writes_it_is_straightened(scene):
    """Without a transform: rows and columns are perpendicular, and slices are shifted sideways."""
    node = add_volume(scene, "Tilted CT", shape=(6, 4, 5))
    sheared = np.array(RAS_FROM_IJK["oblique"])
    sheared[:3, 2] += 0.3 * sheared[:3, 1]
    node.SetIJKToRASMatrix(bridge.vtk_matrix(sheared))
    before = content(node)
    read = bridge.volume_from_node(node)
    assert "the gantry was tilted" in read.notes[0]
    np.testing.assert_allclose(read.grid.direction.T @ read.grid.direction, np.eye(3), atol=1e-9)
    place = read.grid.ijk_from_lps @ np.append(world_ras_of_voxel(node, (2, 2, 3)) * (-1, -1, 1), 1)
    np.testing.assert_allclose(place[:3], [2, np.round(place[1], 2), 3], atol=1e-6)
    i, k, j = 2, 3, place[1]
    below, part = int(np.floor(j)), j - np.floor(j)
    interpolated = (1 - part) * read.array_kji[k, below, i] + part * read.array_kji[k, below + 1, i]
    assert interpolated == pytest.approx(value_of_voxel(node, (2, 2, 3)), abs=1e-2)
    assert content(node) == before


def test_a_shearing_parent_is_refused_with_the_volumes_name(scene):
    node = add_volume(scene, "Sheared")
    shear = np.eye(4)
    shear[0, 1] = 0.3
    node.SetAndObserveTransformNodeID(add_transform(scene, shear).GetID())
    with pytest.raises(GeometryError, match=r"Sheared: .*perpendicular"):
        bridge.volume_from_node(node)


@pytest.mark.parametrize("class_name", ["vtkMRMLLabelMapVolumeNode", "vtkMRMLVectorVolumeNode"])
def test_labels_and_vectors_are_refused(scene, class_name):
    node = scene.AddNewNodeByClass(class_name, "Not an image")
    with pytest.raises(ImageContentError, match=r"Not an image: .*scalar volume"):
        bridge.volume_from_node(node)


def test_a_node_without_voxels_is_refused(scene):
    with pytest.raises(ImageContentError, match=r"Empty: .*no voxels"):
        bridge.volume_from_node(scene.AddNewNodeByClass("vtkMRMLScalarVolumeNode", "Empty"))


def test_the_ct_to_mri_matrix_is_the_inverse_in_ras():
    transform, expected = rigid()
    np.testing.assert_allclose(bridge.mri_from_ct_ras(transform), expected, atol=1e-12)


def test_a_pure_shift_moves_the_ct_the_opposite_way():
    # MRI points are found 10 mm further left in the CT (LPS +10), so the CT has to go 10 mm to the right: RAS +10.
    transform = RigidTransform.from_axis_angle((0, 0, 1), 0, (10, 0, 0))
    np.testing.assert_allclose(bridge.mri_from_ct_ras(transform)[:3, 3], (10, 0, 0))


@pytest.fixture(params=["no transforms", "CT under one", "both under one", "each under its own"])
def pair(request, scene):
    ct, mri = add_volume(scene, "CT"), add_volume(scene, "MRI", "sagittal, left-handed")
    one = add_transform(scene, rigid((0, 1, 1), -50, (3, 2, 1))[1], "one")
    two = add_transform(scene, rigid((2, 1, 0), 20, (0, 9, 1))[1], "two")
    if request.param != "no transforms":
        ct.SetAndObserveTransformNodeID(one.GetID())
    if request.param == "both under one":
        mri.SetAndObserveTransformNodeID(one.GetID())
    if request.param == "each under its own":
        mri.SetAndObserveTransformNodeID(two.GetID())
    return ct, mri


def check_ct_point_lands_on_mri_point(ct, transform, world_before):
    """`transform` says where an MRI point is in the CT; there the moved CT must have that MRI point's place."""
    mri_point_lps = np.array([31.0, -17.0, 44.0])
    ct_point_ras = transform.apply(mri_point_lps) * (-1, -1, 1)
    # The CT's own coordinates of that point, as it lay in the world before it was moved.
    local = np.linalg.inv(world_before) @ (*ct_point_ras, 1)
    now = [0.0, 0.0, 0.0]
    ct.TransformPointToWorld(local[:3], now)
    np.testing.assert_allclose(now, mri_point_lps * (-1, -1, 1), atol=1e-9)


def test_the_transform_moves_ct_points_onto_mri_points(pair):
    ct, mri = pair
    parent = ct.GetParentTransformNode()
    world_before = np.eye(4) if parent is None else slicer.util.arrayFromTransformMatrix(parent, toWorld=True)
    transform, _ = rigid()
    before = content(ct), content(mri), mri.GetTransformNodeID()
    node = bridge.move_ct_onto_mri(ct, mri, transform)
    check_ct_point_lands_on_mri_point(ct, transform, world_before)
    assert (content(ct), content(mri), mri.GetTransformNodeID()) == before
    assert node.GetName() == "CT to MRI"
    assert node.GetParentTransformNode() is mri.GetParentTransformNode()
    assert registered_ct.users_parent(ct) is parent
    assert ct.GetParentTransformNode() is node


def test_running_again_replaces_the_transform(pair):
    ct, mri = pair
    parent = ct.GetParentTransformNode()
    world_before = np.eye(4) if parent is None else slicer.util.arrayFromTransformMatrix(parent, toWorld=True)
    untransformed = bridge.volume_from_node(ct)
    first = bridge.move_ct_onto_mri(ct, mri, rigid((3, 1, 0), 80, (50, 0, 0))[0])
    assert bridge.volume_from_node(ct).grid.same_as(untransformed.grid)
    transform, _ = rigid()
    assert bridge.move_ct_onto_mri(ct, mri, transform) is first
    assert ct.GetScene().GetNumberOfNodesByClass("vtkMRMLLinearTransformNode") == 3
    check_ct_point_lands_on_mri_point(ct, transform, world_before)


def test_a_copy_of_the_ct_is_read_where_it_is_shown(scene):
    ct, mri, copy = add_volume(scene, "CT"), add_volume(scene, "MRI"), add_volume(scene, "copy")
    node = bridge.move_ct_onto_mri(ct, mri, rigid()[0])
    copy.SetAndObserveTransformNodeID(node.GetID())
    assert registered_ct.result_transform_of(copy) is None
    shown = world_ras_of_voxel(copy, (0, 0, 0)) * (-1, -1, 1)
    np.testing.assert_allclose(bridge.volume_from_node(copy).grid.origin_lps_mm, shown, atol=1e-9)


def test_a_loaded_scene_keeps_our_transform(scene, tmp_path):
    ct, mri = add_volume(scene, "CT"), add_volume(scene, "MRI")
    transform, _ = rigid()
    bridge.move_ct_onto_mri(ct, mri, transform)
    scene.SetURL(str(tmp_path / "scene.mrml"))
    assert scene.Commit()
    loaded = slicer.vtkMRMLScene()
    loaded.SetURL(str(tmp_path / "scene.mrml"))
    loaded.Connect()
    again = loaded.GetFirstNodeByName("CT")
    assert registered_ct.result_transform_of(again) is again.GetParentTransformNode() is not None
    found = slicer.util.arrayFromTransformMatrix(again.GetParentTransformNode())
    np.testing.assert_allclose(found, bridge.mri_from_ct_ras(transform), atol=1e-4)  # a scene keeps six digits


def test_outputs_go_into_the_study_of_the_mri(scene):
    hierarchy = slicer.vtkMRMLSubjectHierarchyNode.GetSubjectHierarchyNode(scene)
    mri, fused = add_volume(scene, "MRI"), add_volume(scene, "fused")
    study = hierarchy.CreateStudyItem(hierarchy.GetSceneItemID(), "Study")
    hierarchy.CreateItem(study, mri)
    for _ in range(2):  # new to the hierarchy, then already in it
        bridge.share_place(fused, mri)
        assert hierarchy.GetItemParent(hierarchy.GetItemByDataNode(fused)) == study


def test_outputs_stay_outside_the_hierarchy_with_their_mri(scene):
    mri, fused = add_volume(scene, "MRI"), add_volume(scene, "fused")
    bridge.share_place(fused, mri)
    hierarchy = slicer.vtkMRMLSubjectHierarchyNode.GetSubjectHierarchyNode(scene)
    assert hierarchy.GetItemByDataNode(fused) == 0


@pytest.mark.parametrize(("dicom", "expected"), [("CT", "CT"), ("MR", "MR"), ("PT", None), (None, None)])
def test_the_modality_is_what_dicom_said(scene, dicom, expected):
    node = add_volume(scene)
    hierarchy = slicer.vtkMRMLSubjectHierarchyNode.GetSubjectHierarchyNode(scene)
    item = hierarchy.CreateItem(hierarchy.GetSceneItemID(), node)
    if dicom:
        hierarchy.SetItemAttribute(item, "DICOM.Modality", dicom)
    assert bridge.volume_from_node(node).modality == expected


def test_the_fused_volume_has_the_window_of_the_mri(scene):
    mri, fused = add_volume(scene, "MRI"), add_volume(scene, "fused")
    for node in (mri, fused):
        node.CreateDefaultDisplayNodes()
    mri.GetDisplayNode().SetAutoWindowLevel(False)
    mri.GetDisplayNode().SetWindowLevel(640, 320)
    mri.GetDisplayNode().SetAndObserveColorNodeID("vtkMRMLColorTableNodeRed")
    bridge.share_display(fused, mri)
    display = fused.GetDisplayNode()
    assert (display.GetWindow(), display.GetLevel(), display.GetAutoWindowLevel()) == (640, 320, 0)
    assert display.GetColorNodeID() == "vtkMRMLColorTableNodeRed"


def test_a_volume_under_a_warp_is_read_as_hardening_makes_it_a_piece_at_a_time(scene, monkeypatch):
    from BrainFusionSlicer import warped

    monkeypatch.setattr(warped, "PIECE_VOXELS", 100)
    warp = scene.AddNewNodeByClass("vtkMRMLTransformNode", "warp")
    above = scene.AddNewNodeByClass("vtkMRMLLinearTransformNode", "above")
    warp.SetAndObserveTransformNodeID(above.GetID())
    above.SetMatrixTransformToParent(
        bridge.vtk_matrix(np.array([[1, 0, 0, 7.3], [0, 0, 1, 0], [0, -1, 0, 0], [0, 0, 0, 1.0]]))
    )
    grid = vtk.vtkImageData()
    grid.SetDimensions(4, 4, 4)
    grid.SetSpacing(30, 30, 30)
    grid.SetOrigin(-20, -20, -20)
    grid.AllocateScalars(vtk.VTK_DOUBLE, 3)
    shifts = vtk.util.numpy_support.vtk_to_numpy(grid.GetPointData().GetScalars())
    shifts[:] = np.random.default_rng(0).normal(0, 3, shifts.shape)
    spline = vtk.vtkGridTransform()
    spline.SetDisplacementGridData(grid)
    warp.SetAndObserveTransformToParent(spline)
    node = scene.AddNewNodeByClass("vtkMRMLScalarVolumeNode", "CT")
    slicer.util.updateVolumeFromArray(node, np.random.default_rng(1).integers(-900, 900, (7, 8, 9)).astype(np.int16))
    node.SetSpacing(4, 5, 6)
    node.SetAndObserveTransformNodeID(warp.GetID())
    raw = bridge.raw_from_node(node)
    pieces = np.concatenate([piece.ravel() for piece in raw.array_kji.pieces()])
    node.HardenTransform()
    hardened = bridge.raw_from_node(node)
    np.testing.assert_array_equal(np.array(raw.array_kji), hardened.array_kji)
    np.testing.assert_array_equal(pieces, hardened.array_kji.ravel())
    np.testing.assert_allclose(raw.lps_from_ijk, hardened.lps_from_ijk, atol=1e-9)
