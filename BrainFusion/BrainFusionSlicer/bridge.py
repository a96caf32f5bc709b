"""The bridge between MRML and BrainFusionLib: the only place where RAS meets LPS.

MRML's world is RAS, the library's is LPS, both in mm. Matrices are named target first, as in the library.
Input nodes are read, never written; what is read is a copy. All of this has to run on the main thread.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import slicer
import slicer.util
import vtk

from BrainFusionLib.errors import GeometryError, ImageContentError, Remedy
from BrainFusionLib.geometry import RAS_FROM_LPS, FloatArray
from BrainFusionLib.tilt import check_axes
from BrainFusionLib.transform import RigidTransform, Transform
from BrainFusionLib.volume import Modality, Volume
from BrainFusionSlicer import ownership, registered_ct
from BrainFusionSlicer.companions import linear_parent, transforms_above
from BrainFusionSlicer.jobs import RawVolume
from BrainFusionSlicer.ownership import MOVED_CT_ROLE, TRANSFORM
from BrainFusionSlicer.registered_ct import users_parent
from BrainFusionSlicer.warped import WarpedVoxels

# Its own inverse: the same matrix goes either way.
LPS_FROM_RAS = RAS_FROM_LPS


def volume_from_node(node: slicer.vtkMRMLScalarVolumeNode) -> Volume:
    """Copy a volume node into a library volume; otherwise as `raw_from_node`."""
    return raw_from_node(node).copied()


def raw_from_node(node: slicer.vtkMRMLScalarVolumeNode, labels: bool = False, as_shown: bool = False) -> RawVolume:
    """Look at a volume node's voxels, placed where Slicer shows them.

    Linear parent transforms are baked into the grid, except one that an earlier result put over this node: a CT
    that was fused before is read as it was before. Under a transform that is not linear (a tilted gantry) the voxels
    are those of a resampled copy.

    Parameters
    ----------
    node
        A scalar volume node in a scene.
    labels
        Whether it may be a label map.
    as_shown
        Whether an earlier result's transform counts like any other.

    Returns
    -------
    RawVolume
        The node's own voxels, not copied, with their affine in LPS mm; the library straightens a gantry tilt. The
        modality is set where the volume came from DICOM.

    Raises
    ------
    ImageContentError
        The node has no voxels, or holds labels or vectors.
    GeometryError
        Its axes are sheared in another way than a tilted gantry does.
    """
    name = node.GetName()
    allowed = ("vtkMRMLScalarVolumeNode", *(["vtkMRMLLabelMapVolumeNode"] if labels else []))
    if node.GetClassName() not in allowed:
        raise ImageContentError(
            f"{name}: a CT or MRI must be a scalar volume; this is a {node.GetNodeTagName()}. Choose a scalar volume."
        )
    if node.GetImageData() is None or node.GetImageData().GetNumberOfPoints() == 0:
        raise ImageContentError(f"{name}: the volume has no voxels. Load it again, or choose another one.")
    if node.GetImageData().GetNumberOfScalarComponents() != 1:
        raise ImageContentError(f"{name}: the volume has several values per voxel (colours?). Choose a scalar volume.")
    parent = node.GetParentTransformNode() if as_shown else users_parent(node)
    if parent is not None and not parent.IsTransformToWorldLinear():
        return _straightened(node, parent)
    ras_from_ijk = vtk.vtkMatrix4x4()
    node.GetIJKToRASMatrix(ras_from_ijk)
    lps_from_ijk = LPS_FROM_RAS @ world_ras_from_parent(parent, name) @ slicer.util.arrayFromVTKMatrix(ras_from_ijk)
    array = slicer.util.arrayFromVolume(node)
    try:
        check_axes(lps_from_ijk, array.shape[::-1])
    except GeometryError as error:
        raise GeometryError(f"{name}: {error.problem}", remedy=error.remedy, details=error.details) from error
    return RawVolume(array, lps_from_ijk, modality_of(node), name)


def _straightened(node: slicer.vtkMRMLScalarVolumeNode, parent: slicer.vtkMRMLTransformNode) -> RawVolume:
    """Return the voxels of a node, resampled through a transform that is not linear as they are asked for."""
    voxels = WarpedVoxels(node, parent)
    return RawVolume(voxels, LPS_FROM_RAS @ voxels.ras_from_ijk, modality_of(node), node.GetName())


def node_from_volume(
    volume: Volume, node: slicer.vtkMRMLScalarVolumeNode, parent: slicer.vtkMRMLTransformNode | None = None
) -> None:
    """Write a library volume into a volume node: voxels, place, and a display node if it has none.

    The node is taken out of any other transform, because the grid is in world coordinates. Its name stays.

    Parameters
    ----------
    volume
        What to write; its grid is in LPS mm.
    node
        A scalar volume node in a scene; its voxels and geometry are replaced.
    parent
        The linear transform to put the node under; it stays where the grid is in the world.
    """
    parent_from_world = np.linalg.inv(world_ras_from_parent(parent, volume.name))
    if node.GetDisplayNode() is None:
        node.CreateDefaultDisplayNodes()
    # Or the histogram of all voxels would be made, only to be replaced by `share_display`.
    node.GetDisplayNode().SetAutoWindowLevel(False)
    with slicer.util.NodeModify(node):
        # Fresh image data: the old one may be shared with a clone of the node.
        node.SetAndObserveImageData(vtk.vtkImageData())
        slicer.util.updateVolumeFromArray(node, volume.array_kji)
        node.SetIJKToRASMatrix(vtk_matrix(parent_from_world @ RAS_FROM_LPS @ volume.grid.lps_from_ijk))
        node.SetAndObserveTransformNodeID(None if parent is None else parent.GetID())


def world_ras_from_parent(parent: slicer.vtkMRMLTransformNode | None, name: str) -> FloatArray:
    """Return the 4x4 matrix of a chain of transforms, RAS mm; the identity for ``None``.

    Parameters
    ----------
    parent
        The lowest transform node of the chain.
    name
        What is under it, for the message.

    Raises
    ------
    GeometryError
        A transform of the chain is not linear.
    """
    if parent is None:
        return np.eye(4)
    if not parent.IsTransformToWorldLinear():
        raise GeometryError(
            f"{name}: the volume must be under linear transforms only; {parent.GetName()} (or one above it) is not "
            "linear. Harden the transform on a copy of the volume (Transforms module), or take the volume out of it."
        )
    matrix: FloatArray = slicer.util.arrayFromTransformMatrix(parent, toWorld=True)
    return matrix


def mri_from_ct_ras(transform: Transform) -> FloatArray:
    """Return the 4x4 matrix that moves CT points onto the MRI, world RAS mm.

    The registration's `transform` goes the other way, MRI points to CT points, in LPS: hence the inverse.
    """
    return RAS_FROM_LPS @ transform.inverse().moving_from_fixed_lps @ LPS_FROM_RAS


def move_ct_onto_mri(
    ct_node: slicer.vtkMRMLScalarVolumeNode,
    mri_node: slicer.vtkMRMLScalarVolumeNode,
    transform: Transform,
    name: str = "CT to MRI",
    into: slicer.vtkMRMLLinearTransformNode | None = None,
) -> slicer.vtkMRMLLinearTransformNode:
    """Put the CT under a linear transform node that moves it onto the MRI; a second call replaces the first.

    What belongs to the CT moves with it. The transform stands under the MRI's own, so that whatever moves the MRI
    moves both. Where the CT was before is noted on it, and is never lost.

    Parameters
    ----------
    ct_node, mri_node
        The pair, in one scene.
    transform
        Maps MRI points to CT points, world LPS mm, as `raw_from_node` gave both: without an earlier result.
    name
        What to call a new transform node; one that is there keeps its name.
    into
        The transform node to write to; that of an earlier result of this pair, or else a new one, when ``None``.

    Returns
    -------
    vtkMRMLLinearTransformNode
        The transform that the CT is under now.

    Raises
    ------
    GeometryError
        The CT is under a transform of the user's that is not linear, `into` is one that the CT or the MRI is under, or
        `into` carries another CT.
    """
    world_from_ct = world_ras_from_parent(users_parent(ct_node), ct_node.GetName())
    node = _transform_to_write(ct_node, mri_node, name, into)
    # The CT shall be at mri_from_ct @ world_from_ct, and will be at world_from_above @ (what is asked for here).
    _place_under_mri(node, mri_node, mri_from_ct_ras(transform) @ world_from_ct)
    registered_ct.put_under(node, ct_node, mri_node)
    return node


def _place_under_mri(
    node: slicer.vtkMRMLLinearTransformNode, mri_node: slicer.vtkMRMLScalarVolumeNode, world: FloatArray
) -> None:
    """Give a transform node the effect `world`, a 4x4 matrix in RAS mm, under the MRI's transform."""
    above = linear_parent(mri_node)
    world_from_above = world_ras_from_parent(above, mri_node.GetName())
    node.SetAndObserveTransformNodeID(None if above is None else above.GetID())
    if not node.IsLinear():  # one that was hardened with a warp takes no matrix
        node.SetAndObserveTransformToParent(None)
    node.SetMatrixTransformToParent(vtk_matrix(np.linalg.inv(world_from_above) @ world))


def mri_frame_from_lps(point_lps_mm: FloatArray, mri_node: slicer.vtkMRMLScalarVolumeNode) -> tuple[float, ...]:
    """Return a point of the world, LPS mm, in the frame of the linear transform over the MRI, RAS mm."""
    world = world_ras_from_parent(linear_parent(mri_node), mri_node.GetName())
    left, posterior, superior = (float(mm) for mm in point_lps_mm)
    return tuple(float(mm) for mm in (np.linalg.inv(world) @ (-left, -posterior, superior, 1.0))[:3])


def world_from_mri_frame(point_mm: Sequence[float], mri_node: slicer.vtkMRMLScalarVolumeNode) -> FloatArray:
    """Return what `mri_frame_from_lps` was given, in the world's RAS mm as it is now."""
    world = world_ras_from_parent(linear_parent(mri_node), mri_node.GetName())
    point: FloatArray = (world @ (*point_mm, 1.0))[:3]
    return point


def carried_by(
    transform_node: slicer.vtkMRMLLinearTransformNode, ct_node: slicer.vtkMRMLScalarVolumeNode
) -> slicer.vtkMRMLNode | None:
    """Return what else than `ct_node` would be moved if the transform were written: anything, or None."""
    moved = transform_node.GetNodeReference(MOVED_CT_ROLE)
    if moved is not None:
        # A result of ours: what else the user put under it shall move with its CT.
        return None if moved == ct_node else moved
    scene = ct_node.GetScene()
    for index in range(scene.GetNumberOfNodesByClass("vtkMRMLTransformableNode")):
        node = scene.GetNthNodeByClass(index, "vtkMRMLTransformableNode")
        is_temporary = node.GetHideFromEditors() and not node.GetSaveWithScene()
        if node != ct_node and not is_temporary and node.GetParentTransformNode() == transform_node:
            return node
    return None


def _transform_to_write(
    ct_node: slicer.vtkMRMLScalarVolumeNode,
    mri_node: slicer.vtkMRMLScalarVolumeNode,
    name: str,
    into: slicer.vtkMRMLLinearTransformNode | None,
) -> slicer.vtkMRMLLinearTransformNode:
    """Return the node for the transform of a pair, marked as theirs."""
    node = into if into is not None else ownership.find_output(TRANSFORM, ct_node, mri_node)
    if node is None:
        node = ct_node.GetScene().AddNewNodeByClass("vtkMRMLLinearTransformNode", name)
    parent = users_parent(ct_node)
    if parent is not None and node in (parent, *transforms_above(parent)):
        raise GeometryError(
            f"{node.GetName()}: the CT is under this transform already, and its own pose would be lost. Choose "
            "another output transform, or a new one."
        )
    if node in transforms_above(mri_node):
        raise GeometryError(
            f"{node.GetName()}: the MRI is under this transform, and would be moved. Take it out (Transforms module), "
            "or choose another output transform, or a new one."
        )
    other = carried_by(node, ct_node)
    if other is not None:
        raise GeometryError(
            f"{node.GetName()}: {other.GetName()} is moved by this transform, and would be misaligned. Choose another "
            "output transform, or a new one."
        )
    ownership.mark(node, TRANSFORM, ct_node, mri_node)
    node.SetNodeReferenceID(slicer.vtkMRMLTransformNode.GetMovingNodeReferenceRole(), ct_node.GetID())
    node.SetNodeReferenceID(slicer.vtkMRMLTransformNode.GetFixedNodeReferenceRole(), mri_node.GetID())
    return node


def is_under_linear_transforms(node: slicer.vtkMRMLTransformableNode) -> bool:
    """Say whether all of the user's transforms over a node are linear."""
    parent = users_parent(node)
    return parent is None or bool(parent.IsTransformToWorldLinear())


def store_transform(
    ct_node: slicer.vtkMRMLScalarVolumeNode,
    mri_node: slicer.vtkMRMLScalarVolumeNode,
    transform: Transform,
    name: str = "CT to MRI",
    into: slicer.vtkMRMLLinearTransformNode | None = None,
) -> slicer.vtkMRMLLinearTransformNode:
    """Write a transform from CT to MRI, world RAS mm, into a node, without putting the CT under it; else as above."""
    node = _transform_to_write(ct_node, mri_node, name, into)
    _place_under_mri(node, mri_node, mri_from_ct_ras(transform))
    return node


def start_from_node(node: slicer.vtkMRMLTransformNode) -> RigidTransform:
    """Return a transform node, CT to MRI, as a starting pose: maps MRI points to CT points, LPS mm.

    Raises
    ------
    GeometryError
        It is not linear, or no rotation with a shift.
    """
    matrix = world_ras_from_parent(node, node.GetName())
    try:
        return RigidTransform(np.linalg.inv(LPS_FROM_RAS @ matrix @ RAS_FROM_LPS))
    except GeometryError as error:
        raise GeometryError(
            f"{node.GetName()}, given as starting pose: {error.problem}", remedy=Remedy.USE_TRANSFORM_AS_IT_IS
        ) from error


def mask_from_node(node: slicer.vtkMRMLNode, mri_node: slicer.vtkMRMLScalarVolumeNode) -> RawVolume:
    """Return a registration mask on the MRI's grid.

    It comes from a label map, a scalar volume, or the visible segments of a segmentation.

    Raises
    ------
    ImageContentError
        It is none of these.
    """
    if node.GetClassName() != "vtkMRMLSegmentationNode":
        return raw_from_node(node, labels=True)
    scene = mri_node.GetScene()
    labels = scene.AddNewNodeByClass("vtkMRMLLabelMapVolumeNode", node.GetName())
    try:
        logic = slicer.vtkSlicerSegmentationsModuleLogic
        if not logic.ExportVisibleSegmentsToLabelmapNode(node, labels, mri_node):
            raise ImageContentError(
                f"{node.GetName()}: no segment of it is visible. Show the segment that is the registration mask."
            )
        raw = raw_from_node(labels, labels=True)
        return RawVolume(np.array(raw.array_kji), raw.lps_from_ijk, None, node.GetName())
    finally:
        scene.RemoveNode(labels)


def modality_of(node: slicer.vtkMRMLNode) -> Modality | None:
    """Return ``"CT"`` or ``"MR"`` where the node was loaded from DICOM of that modality, else ``None``."""
    hierarchy = slicer.vtkMRMLSubjectHierarchyNode.GetSubjectHierarchyNode(node.GetScene())
    item = hierarchy.GetItemByDataNode(node)
    if not item:  # 0: not in the hierarchy (yet)
        return None
    attribute = slicer.vtkMRMLSubjectHierarchyConstants.GetDICOMSeriesModalityAttributeName()
    modality = hierarchy.GetItemAttribute(item, attribute)
    return modality if modality in ("CT", "MR") else None


def share_place(node: slicer.vtkMRMLNode, reference: slicer.vtkMRMLNode) -> None:
    """Put a node into the same folder or study of the subject hierarchy as `reference`, if that is in it."""
    hierarchy = slicer.vtkMRMLSubjectHierarchyNode.GetSubjectHierarchyNode(node.GetScene())
    reference_item = hierarchy.GetItemByDataNode(reference)
    if reference_item:
        # CreateItem also moves an item that is there already.
        hierarchy.CreateItem(hierarchy.GetItemParent(reference_item), node)


def share_display(node: slicer.vtkMRMLScalarVolumeNode, reference: slicer.vtkMRMLScalarVolumeNode) -> None:
    """Show a volume with the window, level and colours of `reference`, whose intensity scale it has."""
    display, model = node.GetDisplayNode(), reference.GetDisplayNode()
    if display is None or model is None:
        return
    with slicer.util.NodeModify(display):
        display.SetAutoWindowLevel(False)
        display.SetWindowLevel(model.GetWindow(), model.GetLevel())
        display.SetAndObserveColorNodeID(model.GetColorNodeID())


def vtk_matrix(matrix: FloatArray) -> vtk.vtkMatrix4x4:
    """Return a VTK copy of a 4x4 matrix."""
    result = vtk.vtkMatrix4x4()
    slicer.util.updateVTKMatrixFromArray(result, matrix)
    return result
