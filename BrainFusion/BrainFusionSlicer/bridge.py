"""The bridge between MRML and BrainFusionLib: the only place where RAS meets LPS.

MRML's world is RAS, the library's is LPS, both in mm. Matrices are named target first, as in the library.
Input nodes are read, never written; what is read is a copy. All of this has to run on the main thread.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
import slicer
import slicer.util
import vtk

from BrainFusionLib.errors import GeometryError, ImageContentError, Remedy
from BrainFusionLib.geometry import RAS_FROM_LPS, FloatArray
from BrainFusionLib.settings import Side
from BrainFusionLib.tilt import check_axes
from BrainFusionLib.transform import RigidTransform, Transform
from BrainFusionLib.volume import Modality, Volume
from BrainFusionSlicer import ownership, registered_ct
from BrainFusionSlicer.companions import linear_from, linear_parent, transforms_above
from BrainFusionSlicer.fingerprint import has_voxels
from BrainFusionSlicer.jobs import RawVolume
from BrainFusionSlicer.ownership import TRANSFORM
from BrainFusionSlicer.registered_ct import users_parent
from BrainFusionSlicer.warped import WarpedVoxels

# Its own inverse: the same matrix goes either way.
LPS_FROM_RAS = RAS_FROM_LPS


def volume_from_node(node: slicer.vtkMRMLScalarVolumeNode) -> Volume:
    """Copy a volume node into a library volume; otherwise as `raw_from_node`."""
    return raw_from_node(node).copied()


def raw_from_node(node: slicer.vtkMRMLScalarVolumeNode, labels: bool = False, as_shown: bool = False) -> RawVolume:
    """Look at a volume node's voxels, placed where Slicer shows them.

    All transforms over it count, except one that an earlier result put over this node: a CT that was fused before is
    read as it was before. Else as `raw_under`.

    Parameters
    ----------
    node
        A scalar volume node in a scene.
    labels
        Whether it may be a label map.
    as_shown
        Whether an earlier result's transform counts like any other.
    """
    return raw_under(node, node.GetParentTransformNode() if as_shown else users_parent(node), labels)


def raw_under(
    node: slicer.vtkMRMLScalarVolumeNode, parent: slicer.vtkMRMLTransformNode | None, labels: bool = False
) -> RawVolume:
    """Look at a volume node's voxels, placed in the world as if the node were under `parent`.

    Linear transforms are baked into the grid. Under one that is not linear (a tilted gantry) the voxels are those of a
    resampled copy.

    Parameters
    ----------
    node
        A scalar volume node in a scene.
    parent
        A transform, with all that are above it; ``None`` for none.
    labels
        Whether it may be a label map.

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
    if node.GetImageData() is not None and node.GetImageData().GetNumberOfScalarComponents() != 1:
        raise ImageContentError(f"{name}: the volume has several values per voxel (colours?). Choose a scalar volume.")
    if not has_voxels(node):
        raise ImageContentError(f"{name}: the volume has no voxels. Load it again, or choose another one.")
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
    reference: Side = "mri",
) -> slicer.vtkMRMLLinearTransformNode:
    """Put the CT under a linear transform node that moves it onto the MRI; a second call replaces the first.

    With the CT as reference it is the MRI that is put onto the CT. What belongs to the one that is moved moves with it.
    The transform stands under the other's own, so that whatever moves that one moves both. Where the volume was before
    is noted on it, and is never lost.

    Parameters
    ----------
    ct_node, mri_node
        The pair, in one scene.
    transform
        Maps MRI points to CT points, world LPS mm, as both were read (`registered_ct.parents_as_read`).
    name
        What to call a new transform node; one that is there keeps its name.
    into
        The transform node to write to; that of an earlier result of this pair, or else a new one, when ``None``.
    reference
        The one that stays where it is.

    Returns
    -------
    vtkMRMLLinearTransformNode
        The transform that the moved volume is under now.

    Raises
    ------
    GeometryError
        The volume is under a transform of the user's that is not linear, `into` is one that the CT or the MRI is under,
        or carries another volume, or the two cannot be put onto each other.
    """
    moved, fixed = (mri_node, ct_node) if reference == "ct" else (ct_node, mri_node)
    world_from_moved = world_ras_from_parent(users_parent(moved), moved.GetName())
    node = _transform_to_write(ct_node, mri_node, name, into, reference)
    if ownership.is_output_of(registered_ct.result_transform_of(fixed) or node, ct_node, mri_node):
        registered_ct.take_back(fixed)  # an earlier result has moved the other one; this one replaces it
    ownership.note_in_force(node)
    onto = mri_from_ct_ras(transform)
    # The volume shall be at onto @ world_from_moved, and will be at world_from_above @ (what is asked for here).
    _place_under(node, fixed, (np.linalg.inv(onto) if reference == "ct" else onto) @ world_from_moved)
    registered_ct.put_under(node, moved, fixed)
    return node


def why_not_reference(
    ct_node: slicer.vtkMRMLScalarVolumeNode, mri_node: slicer.vtkMRMLScalarVolumeNode, reference: Side
) -> str | None:
    """Say why a volume of a pair cannot be the one that stays where it is, or return ``None``."""
    for node in (ct_node, mri_node) if reference == "ct" else ():
        if not is_under_linear_transforms(node):
            return (
                f"{node.GetName()} is under a transform that is not linear, and so the MRI cannot be put onto the CT. "
                "Choose Reference: MRI"
            )
    return None


def why_not_onto(
    ct_node: slicer.vtkMRMLScalarVolumeNode, mri_node: slicer.vtkMRMLScalarVolumeNode, reference: Side
) -> str | None:
    """Say why one volume of a pair cannot be moved onto the other, whatever the pose, or return ``None``."""
    why_not = why_not_reference(ct_node, mri_node, reference)
    if why_not is not None:
        return why_not
    moved, fixed = (mri_node, ct_node) if reference == "ct" else (ct_node, mri_node)
    ours = registered_ct.result_transform_of(fixed)
    if ours is not None and ownership.is_output_of(ours, ct_node, mri_node):
        if registered_ct.can_be_taken_back(fixed):
            above = registered_ct.former_parent(ours)
            return _carried(moved, fixed, () if above is None else (above, *transforms_above(above)))
        other = "MRI" if reference == "ct" else "CT"
        return (
            f"{fixed.GetName()} was moved onto {moved.GetName()} and cannot be moved back. Choose Reference: {other}, "
            f"or take it out of {ours.GetName()} (Transforms module)"
        )
    return _carried(moved, fixed, transforms_above(fixed))


def _carried(
    moved: slicer.vtkMRMLScalarVolumeNode,
    fixed: slicer.vtkMRMLScalarVolumeNode,
    above_fixed: Iterable[slicer.vtkMRMLTransformNode],
) -> str | None:
    carrier = registered_ct.carries(moved, above_fixed)
    if carrier is None:
        return None
    return (
        f"{fixed.GetName()} stands on {moved.GetName()} by {carrier.GetName()}. Take it out of that transform "
        "(Transforms module), or choose another reference"
    )


def why_not_moved_alone(ct_node: slicer.vtkMRMLScalarVolumeNode) -> str | None:
    """Say why a CT cannot be moved without a fusion, which resamples it, or return ``None``."""
    if is_under_linear_transforms(ct_node):
        return None
    return (
        f"{ct_node.GetName()} is under a transform that is not linear, and so it cannot be moved. Click Fuse, which "
        "resamples it"
    )


def _place_under(
    node: slicer.vtkMRMLLinearTransformNode, fixed: slicer.vtkMRMLScalarVolumeNode, world: FloatArray
) -> None:
    """Give a transform node the effect `world`, a 4x4 matrix in RAS mm, under the transform of a volume."""
    above = linear_parent(fixed)
    world_from_above = world_ras_from_parent(above, fixed.GetName())
    node.SetAndObserveTransformNodeID(None if above is None else above.GetID())
    if not node.IsLinear():  # one that was hardened with a warp takes no matrix
        node.SetAndObserveTransformToParent(None)
    node.SetMatrixTransformToParent(vtk_matrix(np.linalg.inv(world_from_above) @ world))


def mri_frame_from_lps(point_lps_mm: FloatArray, mri_parent: slicer.vtkMRMLTransformNode | None) -> tuple[float, ...]:
    """Return a point of the world, LPS mm, in the frame of the linear transform over the MRI, RAS mm.

    :param mri_parent: what the MRI was read under; that it is moved since changes nothing of this frame
    """
    world = world_ras_from_parent(linear_from(mri_parent), "the MRI")
    left, posterior, superior = (float(mm) for mm in point_lps_mm)
    return tuple(float(mm) for mm in (np.linalg.inv(world) @ (-left, -posterior, superior, 1.0))[:3])


def world_from_mri_frame(point_mm: Sequence[float], mri_node: slicer.vtkMRMLScalarVolumeNode) -> FloatArray:
    """Return what `mri_frame_from_lps` was given, in the world's RAS mm as it is now."""
    world = world_ras_from_parent(linear_parent(mri_node), mri_node.GetName())
    point: FloatArray = (world @ (*point_mm, 1.0))[:3]
    return point


def carried_by(
    transform_node: slicer.vtkMRMLLinearTransformNode, volume: slicer.vtkMRMLScalarVolumeNode
) -> slicer.vtkMRMLNode | None:
    """Return what else than `volume` would be moved if the transform were written: anything, or None."""
    moved = ownership.moved_of(transform_node)
    if moved is not None:
        # A result of ours: what else the user put under it shall move with its volume.
        return None if moved == volume else moved
    return next((node for node in registered_ct.left_under(transform_node) if node != volume), None)


def _transform_to_write(
    ct_node: slicer.vtkMRMLScalarVolumeNode,
    mri_node: slicer.vtkMRMLScalarVolumeNode,
    name: str,
    into: slicer.vtkMRMLLinearTransformNode | None,
    reference: Side = "mri",
) -> slicer.vtkMRMLLinearTransformNode:
    """Return the node for the transform of a pair, marked as theirs."""
    moved, fixed = (mri_node, ct_node) if reference == "ct" else (ct_node, mri_node)
    why_not = why_not_onto(ct_node, mri_node, reference)
    if why_not is not None:
        raise GeometryError(f"{why_not}.")
    node = into if into is not None else ownership.find_transform(ct_node, mri_node, reference)
    if node is None or registered_ct.is_left_with_others(node):
        node = ct_node.GetScene().AddNewNodeByClass("vtkMRMLLinearTransformNode", name)
    words = ("MRI", "CT") if reference == "ct" else ("CT", "MRI")
    parent = users_parent(moved)
    if parent is not None and node in (parent, *transforms_above(parent)):
        raise GeometryError(
            f"{node.GetName()}: the {words[0]} is under this transform already, and its own pose would be lost. Choose "
            "another output transform, or a new one."
        )
    if node in transforms_above(fixed):
        raise GeometryError(
            f"{node.GetName()}: the {words[1]} is under this transform, and would be moved. Take it out (Transforms "
            "module), or choose another output transform, or a new one."
        )
    other = carried_by(node, moved)
    if other is not None:
        raise GeometryError(
            f"{node.GetName()}: {other.GetName()} is moved by this transform, and would be misaligned. Choose another "
            "output transform, or a new one."
        )
    ownership.mark(node, TRANSFORM, ct_node, mri_node, reference)
    node.SetNodeReferenceID(slicer.vtkMRMLTransformNode.GetMovingNodeReferenceRole(), moved.GetID())
    node.SetNodeReferenceID(slicer.vtkMRMLTransformNode.GetFixedNodeReferenceRole(), fixed.GetID())
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
    ownership.note_in_force(node)
    _place_under(node, mri_node, mri_from_ct_ras(transform))
    return node


def start_from_node(node: slicer.vtkMRMLTransformNode) -> RigidTransform:
    """Return a transform node, CT to MRI, as a starting pose: maps MRI points to CT points, LPS mm.

    Raises
    ------
    GeometryError
        It is not linear, or no rotation with a shift.
    """
    matrix = mri_from_ct_of(node)
    try:
        return RigidTransform(np.linalg.inv(LPS_FROM_RAS @ matrix @ RAS_FROM_LPS))
    except GeometryError as error:
        raise GeometryError(
            f"{node.GetName()}, given as starting pose: {error.problem}", remedy=Remedy.USE_TRANSFORM_AS_IT_IS
        ) from error


def mri_from_ct_of(node: slicer.vtkMRMLTransformNode) -> FloatArray:
    """Return what a transform node does in the world, 4x4, RAS mm, as a movement of the CT onto the MRI.

    One that a result made moves the MRI onto the CT where the CT is the reference.
    """
    matrix = world_ras_from_parent(node, node.GetName())
    if ownership.role_of(node) != TRANSFORM:
        return matrix
    if node.GetAttribute(registered_ct.GEOMETRY_ATTRIBUTE):  # it has replaced the user's own, which counts when read
        matrix = matrix @ np.linalg.inv(world_ras_from_parent(registered_ct.former_parent(node), node.GetName()))
    return np.linalg.inv(matrix) if ownership.reference_of(node) == "ct" else matrix


def modality_of(node: slicer.vtkMRMLNode) -> Modality | None:
    """Return ``"CT"`` or ``"MR"`` where the node was loaded from DICOM of that modality, else ``None``."""
    if node.GetScene() is None:
        return None
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
