"""What belongs to the volume that is moved, and has to move with it: the CT, unless the CT is the reference.

Four things say so: a node stands under the same transform, which is the volume's own; it is a child of the volume in
the subject hierarchy; it is a segmentation whose voxels are the volume's; or it is the point list that was chosen as
the volume's landmarks. Nothing else of the user's is moved. Results of this module in the volume's frame are, too.

They say so only while the volume is where the user has put it. What he draws or places on a volume that a result has
moved is in the world, beside the volume, and would be moved a second time: Slicer's Segment Editor puts a new
segmentation under no transform, and gives it the voxels of where the volume is shown.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence

import numpy as np
import slicer
import slicer.util
import vtk

from BrainFusionLib.geometry import FloatArray
from BrainFusionSlicer import ownership

# References of the module's parameter node: the point lists of the CT's landmarks and of the MRI's, and the volumes
# that they were chosen for.
LIST_ROLES = ("BrainFusion.CTPoints", "BrainFusion.MRIPoints")
VOLUME_ROLES = ("BrainFusion.CTPointsOf", "BrainFusion.MRIPointsOf")
# Axes are the same that differ by less, in radians: a header rounds them, and a registration turns by more.
MOST_TURNED = 1e-3
# On the segmentation of a bone: the axes of its voxels as it was made, in its own frame.
AXES_ATTRIBUTE = "BrainFusion.Axes"


def companions_of(
    moved: slicer.vtkMRMLScalarVolumeNode,
    fixed: slicer.vtkMRMLScalarVolumeNode,
    parent: slicer.vtkMRMLTransformNode | None,
    brought: Sequence[slicer.vtkMRMLTransformableNode] = (),
) -> list[slicer.vtkMRMLTransformableNode]:
    """Return the user's nodes that have to move with a volume.

    Parameters
    ----------
    moved, fixed
        The pair.
    parent
        The transform that the former is under, or was before an earlier result. Only what is under the same is moved.
    """
    above_fixed = {node.GetID() for node in transforms_above(fixed)}
    belonging = list(brought)
    if moved.GetParentTransformNode() == parent:
        belonging += [node for node in _segmentations_of(moved) if _has_axes_of(node, moved)]
        belonging += [*_children_in_hierarchy(moved), *_landmarks_of(moved)]
        # What stands under a result's transform is that of the volume which it moved.
        if parent is not None and parent.GetID() not in above_fixed and ownership.role_of(parent) is None:
            belonging += _all_under(parent)
        belonging = [node for node in belonging if not ownership.is_made_here(node)] + _bones_of(moved)
    found = {
        node.GetID(): node
        for node in belonging
        if node.GetParentTransformNode() == parent and node not in (moved, fixed) and node.GetID() not in above_fixed
    }
    return list(found.values())


def results_in_frame_of(
    volume: slicer.vtkMRMLScalarVolumeNode, parent: slicer.vtkMRMLTransformNode | None
) -> list[slicer.vtkMRMLTransformableNode]:
    """Return the outputs of any pair that were put beside a volume, which stayed where it was, and under its parent."""
    return [
        node
        for node in ownership.nodes_of(volume.GetScene(), "vtkMRMLTransformableNode")
        if node.GetParentTransformNode() == parent
        and ownership.role_of(node) not in (None, ownership.BONE)
        and ownership.fixed_of(node) == volume
    ]


def transforms_above(node: slicer.vtkMRMLTransformableNode) -> Iterator[slicer.vtkMRMLTransformNode]:
    """Yield the transforms that a node is under, the nearest first."""
    above = node.GetParentTransformNode()
    while above is not None:
        yield above
        above = above.GetParentTransformNode()


def linear_parent(node: slicer.vtkMRMLTransformableNode) -> slicer.vtkMRMLTransformNode | None:
    """Return the nearest transform over a node from which on all are linear, or None."""
    return linear_from(node.GetParentTransformNode())


def linear_from(parent: slicer.vtkMRMLTransformNode | None) -> slicer.vtkMRMLTransformNode | None:
    """Return the nearest transform from which on all are linear: this one, or one above it, or None."""
    while parent is not None and not parent.IsTransformToWorldLinear():
        parent = parent.GetParentTransformNode()
    return parent


def _all_under(parent: slicer.vtkMRMLTransformNode) -> list[slicer.vtkMRMLTransformableNode]:
    return [
        node
        for node in ownership.nodes_of(parent.GetScene(), "vtkMRMLTransformableNode")
        if node.GetParentTransformNode() == parent
    ]


def _segmentations_of(volume: slicer.vtkMRMLScalarVolumeNode) -> list[slicer.vtkMRMLTransformableNode]:
    role = slicer.vtkMRMLSegmentationNode.GetReferenceImageGeometryReferenceRole()
    found = ownership.nodes_of(volume.GetScene(), "vtkMRMLSegmentationNode")
    return [node for node in found if node.GetNodeReferenceID(role) == volume.GetID()]


def _has_axes_of(segmentation: slicer.vtkMRMLSegmentationNode, volume: slicer.vtkMRMLScalarVolumeNode) -> bool:
    """Say whether a segmentation has the axes of a volume, each in its own frame; also where it has none.

    Else it was drawn while a result had moved the volume, or was hardened since.
    """
    drawn = _axes_of(segmentation)
    if drawn is None:
        return True
    matrix = vtk.vtkMatrix4x4()
    volume.GetIJKToRASMatrix(matrix)
    own = slicer.util.arrayFromVTKMatrix(matrix)[:3, :3]
    first, second = (columns / np.linalg.norm(columns, axis=0) for columns in (own, drawn))
    turned = np.abs(np.linalg.inv(first) @ second)  # in another order, or turned round, they are the same
    return bool(np.allclose(turned, np.round(turned), rtol=0, atol=MOST_TURNED))


def _axes_of(segmentation: slicer.vtkMRMLSegmentationNode) -> FloatArray | None:
    """Return the axes of a segmentation's voxels, or of those that will be drawn, in its own frame, 3x3, RAS mm."""
    image = slicer.vtkOrientedImageData()
    content = segmentation.GetSegmentation()
    labels = content.GetNthSegment(0).GetRepresentation("Binary labelmap") if content.GetNumberOfSegments() else None
    geometry = content.GetConversionParameter(slicer.vtkSegmentationConverter.GetReferenceImageGeometryParameterName())
    if labels is None and not slicer.vtkSegmentationConverter.DeserializeImageGeometry(geometry, image, False):
        return None
    matrix = vtk.vtkMatrix4x4()
    (labels or image).GetImageToWorldMatrix(matrix)
    axes: FloatArray = slicer.util.arrayFromVTKMatrix(matrix)[:3, :3]
    return axes


def note_axes(bone: slicer.vtkMRMLSegmentationNode) -> None:
    """Note the axes of a bone as it was made: one that is hardened is where it is for good."""
    axes = _axes_of(bone)
    bone.SetAttribute(AXES_ATTRIBUTE, None if axes is None else json.dumps(axes.ravel().tolist()))


def _bones_of(volume: slicer.vtkMRMLScalarVolumeNode) -> list[slicer.vtkMRMLTransformableNode]:
    """Return what this module has made as the bone of a CT, and what is still as it was put beside it."""
    return [
        node
        for node in ownership.nodes_of(volume.GetScene(), ownership.CLASSES[ownership.BONE])
        if ownership.role_of(node) == ownership.BONE
        and node.GetNodeReferenceID(ownership.MOVED_CT_ROLE) == volume.GetID()
        and (axes := _axes_of(node)) is not None
        and np.allclose(json.loads(node.GetAttribute(AXES_ATTRIBUTE) or "[0]"), axes.ravel(), rtol=0, atol=MOST_TURNED)
    ]


def _children_in_hierarchy(volume: slicer.vtkMRMLScalarVolumeNode) -> list[slicer.vtkMRMLTransformableNode]:
    hierarchy = slicer.vtkMRMLSubjectHierarchyNode.GetSubjectHierarchyNode(volume.GetScene())
    item = hierarchy.GetItemByDataNode(volume)
    if not item:
        return []
    children = vtk.vtkIdList()
    hierarchy.GetItemChildren(item, children, True)
    nodes = [hierarchy.GetItemDataNode(children.GetId(n)) for n in range(children.GetNumberOfIds())]
    return [node for node in nodes if node is not None and node.IsA("vtkMRMLTransformableNode")]


def _landmarks_of(volume: slicer.vtkMRMLScalarVolumeNode) -> list[slicer.vtkMRMLTransformableNode]:
    """Return the point list that was chosen for a volume (`landmark_lists.choose`)."""
    node = volume.GetScene().GetSingletonNode("BrainFusion", "vtkMRMLScriptedModuleNode")
    if node is None:
        return []
    lists = [node.GetNodeReference(role) for role in LIST_ROLES]
    if lists[0] == lists[1]:  # one list chosen for both is a mistake, and belongs to none
        return []
    chosen = zip(VOLUME_ROLES, lists, strict=True)
    return [points for role, points in chosen if points is not None and node.GetNodeReference(role) == volume]
