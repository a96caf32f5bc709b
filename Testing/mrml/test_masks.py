"""The registration mask, read from Slicer's real nodes: needs `pip install slicer-core==5.12.4.0`."""

import sys
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("slicer", reason="slicer-core is not installed: pip install slicer-core==5.12.4.0")

import slicer
import slicer.util
import vtk

from BrainFusionLib.errors import ImageContentError
from BrainFusionLib.geometry import rotation_matrix

sys.path.insert(0, str(Path(__file__).parents[2] / "BrainFusion"))  # as Slicer does with a module's folder
from BrainFusionSlicer import bridge, ownership, segmentations
from BrainFusionSlicer.masks import BINARY, mask_from_node

# VTK 9.6 does so itself; Slicer 5.12 has NumPy 2.4, where that is no matter yet.
pytestmark = pytest.mark.filterwarnings("ignore:Setting the shape on a NumPy array:DeprecationWarning")
SHAPE, CORE = (10, 12, 14), (slice(2, 5), slice(3, 6), slice(4, 9))
RAS_FROM_IJK = np.eye(4)
RAS_FROM_IJK[:3, :3] = rotation_matrix((1, 2, 3), 20) * (1.0, 1.5, 2.0)
RAS_FROM_IJK[:3, 3] = 5, -7, 9


@pytest.fixture
def scene():
    made = slicer.vtkMRMLScene()
    logic = slicer.vtkSlicerSegmentationsModuleLogic()  # which registers how surfaces are made into voxels
    logic.SetMRMLScene(made)
    yield made
    logic.SetMRMLScene(None)


@pytest.fixture
def mri(scene):
    node = scene.AddNewNodeByClass("vtkMRMLScalarVolumeNode", "MRI")
    slicer.util.updateVolumeFromArray(node, np.zeros(SHAPE, np.float32))
    node.SetIJKToRASMatrix(bridge.vtk_matrix(RAS_FROM_IJK))
    return node


def core():
    mask = np.zeros(SHAPE, bool)
    mask[CORE] = True
    return mask


@pytest.fixture
def tumour(scene, mri):
    """A segmentation of a box on the MRI's voxels."""
    node = scene.AddNewNodeByClass("vtkMRMLSegmentationNode", "tumour")
    segmentations.fill(node, core(), bridge.LPS_FROM_RAS @ RAS_FROM_IJK, None, (1, 0, 0))
    return node


def shifted(scene, mm, name):
    node = scene.AddNewNodeByClass("vtkMRMLLinearTransformNode", name)
    matrix = np.eye(4)
    matrix[:3, 3] = mm
    node.SetMatrixTransformToParent(bridge.vtk_matrix(matrix))
    return node


def state_of(scene):
    """Every node of the scene, and when it was changed last."""
    return [(node.GetID(), node.GetMTime()) for node in ownership.nodes_of(scene)]


def hide(segmentation, n, hidden=True):
    name = segmentation.GetSegmentation().GetNthSegmentID(n)
    segmentation.GetDisplayNode().SetSegmentVisibility(name, not hidden)


def test_a_segmentation_is_read_on_the_mris_voxels_and_the_scene_stays_as_it_was(scene, mri, tumour):
    before, content = state_of(scene), segmentations.content_of(tumour)
    read = mask_from_node(tumour, mri, None)
    np.testing.assert_array_equal(np.asarray(read.array_kji) > 0, core())
    np.testing.assert_allclose(read.lps_from_ijk, bridge.LPS_FROM_RAS @ RAS_FROM_IJK)
    assert read.name == "tumour"
    assert state_of(scene) == before
    assert segmentations.content_of(tumour) == content


def test_segments_that_are_hidden_are_no_mask(scene, mri, tumour):
    second = slicer.vtkOrientedImageData()
    second.DeepCopy(tumour.GetSegmentation().GetNthSegment(0).GetRepresentation(BINARY))
    second.SetExtent(0, 1, 0, 1, 0, 1)
    second.AllocateScalars(vtk.VTK_UNSIGNED_CHAR, 1)
    second.GetPointData().GetScalars().Fill(1)
    tumour.AddSegmentFromBinaryLabelmapRepresentation(second, "vessel", [0, 0, 1])
    hide(tumour, 0)
    assert np.count_nonzero(mask_from_node(tumour, mri, None).array_kji) == 8
    hide(tumour, 1)
    before = state_of(scene)
    with pytest.raises(ImageContentError, match="no segment of it is visible"):
        mask_from_node(tumour, mri, None)
    assert state_of(scene) == before


def test_a_segmentation_without_segments_is_no_mask(scene, mri):
    empty = scene.AddNewNodeByClass("vtkMRMLSegmentationNode", "nothing yet")
    with pytest.raises(ImageContentError, match="nothing yet: it has no segment"):
        mask_from_node(empty, mri, None)


def test_a_segment_in_which_nothing_was_drawn_is_an_empty_mask(mri, tumour):
    name = tumour.GetSegmentation().GetNthSegmentID(0)
    tumour.GetSegmentation().RemoveSegment(name)
    tumour.GetSegmentation().AddEmptySegment("nothing yet")
    assert not np.any(mask_from_node(tumour, mri, None).array_kji)


@pytest.mark.parametrize("whose", ["segmentation", "MRI", "both"])
def test_a_segmentation_is_read_where_it_is_shown_on_the_mri(scene, mri, tumour, whose):
    voxel = RAS_FROM_IJK[:3, 0]  # one voxel along i
    above = shifted(scene, voxel, "above")
    for name, node in (("segmentation", tumour), ("MRI", mri)):
        if whose in (name, "both"):
            node.SetAndObserveTransformNodeID(above.GetID())
    read = mask_from_node(tumour, mri, mri.GetParentTransformNode())
    step = {"segmentation": 1, "MRI": -1, "both": 0}[whose]
    np.testing.assert_array_equal(np.asarray(read.array_kji) > 0, np.roll(core(), step, axis=2))
    world = bridge.world_ras_from_parent(mri.GetParentTransformNode(), "MRI")
    np.testing.assert_allclose(read.lps_from_ijk, bridge.LPS_FROM_RAS @ world @ RAS_FROM_IJK)


def test_an_mri_that_is_read_elsewhere_takes_its_segmentation_along(scene, mri, tumour):
    """As with an MRI that an earlier result has moved: it is read where the user had it."""
    own = shifted(scene, (30, 20, 10), "own")
    read = mask_from_node(tumour, mri, own)
    np.testing.assert_array_equal(np.asarray(read.array_kji) > 0, core())
    world = bridge.world_ras_from_parent(own, "MRI")
    np.testing.assert_allclose(read.lps_from_ijk, bridge.LPS_FROM_RAS @ world @ RAS_FROM_IJK)


def test_an_imported_surface_is_read_and_stays_a_surface(scene, mri):
    node = scene.AddNewNodeByClass("vtkMRMLSegmentationNode", "planned target")
    node.CreateDefaultDisplayNodes()
    node.SetReferenceImageGeometryParameterFromVolumeNode(mri)
    node.GetSegmentation().SetSourceRepresentationName("Closed surface")
    ball = vtk.vtkSphereSource()
    ball.SetCenter(*(RAS_FROM_IJK @ (7, 6, 5, 1))[:3])
    ball.SetRadius(5)
    ball.SetThetaResolution(30)
    ball.SetPhiResolution(30)
    ball.Update()
    node.AddSegmentFromClosedSurfaceRepresentation(ball.GetOutput(), "target", [0, 1, 0])
    before = state_of(scene)
    read = np.asarray(mask_from_node(node, mri, None).array_kji) > 0
    voxel_mm3 = abs(np.linalg.det(RAS_FROM_IJK[:3, :3]))
    assert read[5, 6, 7]
    assert read.sum() * voxel_mm3 == pytest.approx(4 / 3 * np.pi * 5**3, rel=0.2)
    assert not node.GetSegmentation().ContainsRepresentation(BINARY)
    assert state_of(scene) == before


def test_a_label_map_is_read_under_its_own_transform(scene, mri):
    labels = scene.AddNewNodeByClass("vtkMRMLLabelMapVolumeNode", "labels")
    slicer.util.updateVolumeFromArray(labels, core().astype(np.uint8))
    labels.SetIJKToRASMatrix(bridge.vtk_matrix(RAS_FROM_IJK))
    own = shifted(scene, (30, 20, 10), "own")
    labels.SetAndObserveTransformNodeID(own.GetID())
    world = bridge.world_ras_from_parent(own, "labels")
    read = mask_from_node(labels, mri, None)
    np.testing.assert_allclose(read.lps_from_ijk, bridge.LPS_FROM_RAS @ world @ RAS_FROM_IJK)
