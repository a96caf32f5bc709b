"""The bridge between MRML and BrainFusionLib: the only place where RAS meets LPS.

MRML's world is RAS, the library's is LPS, both in mm. Matrices are named target first, as in the library.
Input nodes are read, never written; what is read is a copy. All of this has to run on the main thread.
"""

from __future__ import annotations

import numpy as np
import slicer
import slicer.util
import vtk

from BrainFusionLib.errors import GeometryError, ImageContentError
from BrainFusionLib.geometry import RAS_FROM_LPS, FloatArray, Grid
from BrainFusionLib.transform import Transform
from BrainFusionLib.volume import Modality, Volume

# On a transform node of ours, this reference names the CT that it moves. A transform without it is the user's.
MOVED_CT_ROLE = "BrainFusion.CT"
TARGET_MRI_ROLE = "BrainFusion.MRI"

# Its own inverse: the same matrix goes either way.
LPS_FROM_RAS = RAS_FROM_LPS


def volume_from_node(node: slicer.vtkMRMLScalarVolumeNode) -> Volume:
    """Copy a volume node into a library volume, placed where Slicer shows it.

    Linear parent transforms are baked into the grid, except one that an earlier result put over this node: a CT
    that was fused before is read as it was before.

    Parameters
    ----------
    node
        A scalar volume node in a scene.

    Returns
    -------
    Volume
        Float32 voxels on a grid in LPS mm. The modality is set where the volume came from DICOM.

    Raises
    ------
    ImageContentError
        The node has no voxels, or holds labels or vectors.
    GeometryError
        The node is under a transform that is not linear, or its axes are not perpendicular.
    """
    name = node.GetName()
    if node.GetClassName() != "vtkMRMLScalarVolumeNode":
        raise ImageContentError(
            f"{name}: a CT or MRI must be a scalar volume; this is a {node.GetNodeTagName()}. Choose the image itself."
        )
    if node.GetImageData() is None or node.GetImageData().GetNumberOfPoints() == 0:
        raise ImageContentError(f"{name}: the volume has no voxels. Load it again, or choose another one.")
    # arrayFromVolume is a view into VTK's memory; np.array copies it.
    array = np.array(slicer.util.arrayFromVolume(node), dtype=np.float32)
    lps_from_ijk = LPS_FROM_RAS @ world_ras_from_ijk(node)
    try:
        grid = Grid.from_lps_from_ijk(lps_from_ijk, array.shape[::-1])
    except GeometryError as error:
        raise GeometryError(f"{name}: {error}") from error
    return Volume(array, grid, modality_of(node), name)


def node_from_volume(volume: Volume, node: slicer.vtkMRMLScalarVolumeNode) -> None:
    """Write a library volume into a volume node: voxels, place, and a display node if it has none.

    The node is taken out of any transform, because the grid is already in world coordinates. Its name stays.

    Parameters
    ----------
    volume
        What to write; its grid is in LPS mm.
    node
        A scalar volume node in a scene; its voxels and geometry are replaced.
    """
    with slicer.util.NodeModify(node):
        # Fresh image data: the old one may be shared with a clone of the node.
        node.SetAndObserveImageData(vtk.vtkImageData())
        slicer.util.updateVolumeFromArray(node, volume.array_kji)
        node.SetIJKToRASMatrix(vtk_matrix(RAS_FROM_LPS @ volume.grid.lps_from_ijk))
        node.SetAndObserveTransformNodeID(None)
    if node.GetDisplayNode() is None:
        node.CreateDefaultDisplayNodes()


def world_ras_from_ijk(node: slicer.vtkMRMLVolumeNode) -> FloatArray:
    """Return the 4x4 affine from voxel indices to world RAS mm, user's linear parent transforms included.

    Raises
    ------
    GeometryError
        The node is under a transform that is not linear.
    """
    ras_from_ijk = vtk.vtkMatrix4x4()
    node.GetIJKToRASMatrix(ras_from_ijk)
    return world_ras_from_parent(users_parent(node), node.GetName()) @ slicer.util.arrayFromVTKMatrix(ras_from_ijk)


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


def users_parent(node: slicer.vtkMRMLTransformableNode) -> slicer.vtkMRMLTransformNode | None:
    """Return the transform that a node is under, passing over the one that an earlier result put between."""
    ours = result_transform_of(node)
    return node.GetParentTransformNode() if ours is None else ours.GetParentTransformNode()


def result_transform_of(ct_node: slicer.vtkMRMLTransformableNode) -> slicer.vtkMRMLLinearTransformNode | None:
    """Return the ``CT to MRI`` node that an earlier result put this very CT under, or ``None``.

    A copy of the CT under the same transform is not "this very CT": to the copy, the transform is like a user's own.
    """
    parent = ct_node.GetParentTransformNode()
    if parent is not None and parent.GetNodeReferenceID(MOVED_CT_ROLE) == ct_node.GetID():
        return parent
    return None


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
) -> slicer.vtkMRMLLinearTransformNode:
    """Put the CT under a linear transform node that moves it onto the MRI; a second call replaces the first.

    The node comes between the CT and whatever transform the user had it under, so that the CT's own place is never
    lost: it is where the CT goes when it is taken out of this one transform.

    Parameters
    ----------
    ct_node, mri_node
        The pair, in one scene.
    transform
        Maps MRI points to CT points, world LPS mm, as `volume_from_node` gave both: without an earlier result.
    name
        What to call a new transform node; one that is there keeps its name.

    Returns
    -------
    vtkMRMLLinearTransformNode
        The transform that the CT is under now.

    Raises
    ------
    GeometryError
        The CT is under a transform that is not linear.
    """
    parent = users_parent(ct_node)
    world_from_parent = world_ras_from_parent(parent, ct_node.GetName())
    # The CT shall be at mri_from_ct @ world_from_parent, and will be at world_from_parent @ (what is asked for here).
    to_parent = np.linalg.inv(world_from_parent) @ mri_from_ct_ras(transform) @ world_from_parent

    node = result_transform_of(ct_node)
    if node is None:
        node = ct_node.GetScene().AddNewNodeByClass("vtkMRMLLinearTransformNode", name)
        node.SetNodeReferenceID(MOVED_CT_ROLE, ct_node.GetID())
        node.SetAndObserveTransformNodeID(None if parent is None else parent.GetID())
    node.SetMatrixTransformToParent(vtk_matrix(to_parent))
    node.SetNodeReferenceID(TARGET_MRI_ROLE, mri_node.GetID())
    ct_node.SetAndObserveTransformNodeID(node.GetID())
    return node


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
