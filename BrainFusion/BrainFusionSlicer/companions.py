"""What belongs to a CT and has to move with it: segmentations, points and models of the same patient's CT.

Four things say so: a node stands under the same transform, which is the CT's own; it is a child of the CT in the
subject hierarchy; it is a segmentation whose voxels are the CT's; or it is the point list that was chosen as the CT's
landmarks. Nothing else is moved.
"""

from __future__ import annotations

from collections.abc import Iterator

import slicer
import vtk

from BrainFusionSlicer import ownership

# References of the module's parameter node: the point list of the CT's landmarks, the CT that it was chosen for, and
# the list of the MRI's.
CT_POINTS_ROLE, CT_POINTS_OF_ROLE = "BrainFusion.CTPoints", "BrainFusion.CTPointsOf"
MRI_POINTS_ROLE = "BrainFusion.MRIPoints"


def companions_of(
    ct: slicer.vtkMRMLScalarVolumeNode,
    mri: slicer.vtkMRMLScalarVolumeNode,
    parent: slicer.vtkMRMLTransformNode | None,
) -> list[slicer.vtkMRMLTransformableNode]:
    """Return the nodes that have to move with a CT.

    Parameters
    ----------
    ct, mri
        The pair.
    parent
        The transform that the CT is under, or was before an earlier result. Only what is under the same is moved.
    """
    above_mri = {node.GetID() for node in transforms_above(mri)}
    belonging = [*_segmentations_of(ct), *_children_in_hierarchy(ct)]
    if ct.GetParentTransformNode() == parent:  # else they were placed on the CT as it was moved
        belonging += _landmarks_of(ct)
    if parent is not None and parent.GetID() not in above_mri:
        belonging += _all_under(parent)
    found = {
        node.GetID(): node
        for node in belonging
        if node.GetParentTransformNode() == parent
        and node not in (ct, mri)
        and node.GetID() not in above_mri
        and not ownership.is_made_here(node)
    }
    return list(found.values())


def transforms_above(node: slicer.vtkMRMLTransformableNode) -> Iterator[slicer.vtkMRMLTransformNode]:
    """Yield the transforms that a node is under, the nearest first."""
    above = node.GetParentTransformNode()
    while above is not None:
        yield above
        above = above.GetParentTransformNode()


def linear_parent(node: slicer.vtkMRMLTransformableNode) -> slicer.vtkMRMLTransformNode | None:
    """Return the nearest transform over a node from which on all are linear, or None."""
    return next((above for above in transforms_above(node) if above.IsTransformToWorldLinear()), None)


def _all_under(parent: slicer.vtkMRMLTransformNode) -> list[slicer.vtkMRMLTransformableNode]:
    return [node for node in _nodes(parent, "vtkMRMLTransformableNode") if node.GetParentTransformNode() == parent]


def _segmentations_of(ct: slicer.vtkMRMLScalarVolumeNode) -> list[slicer.vtkMRMLTransformableNode]:
    role = slicer.vtkMRMLSegmentationNode.GetReferenceImageGeometryReferenceRole()
    return [node for node in _nodes(ct, "vtkMRMLSegmentationNode") if node.GetNodeReferenceID(role) == ct.GetID()]


def _children_in_hierarchy(ct: slicer.vtkMRMLScalarVolumeNode) -> list[slicer.vtkMRMLTransformableNode]:
    hierarchy = slicer.vtkMRMLSubjectHierarchyNode.GetSubjectHierarchyNode(ct.GetScene())
    item = hierarchy.GetItemByDataNode(ct)
    if not item:
        return []
    children = vtk.vtkIdList()
    hierarchy.GetItemChildren(item, children, True)
    nodes = [hierarchy.GetItemDataNode(children.GetId(n)) for n in range(children.GetNumberOfIds())]
    return [node for node in nodes if node is not None and node.IsA("vtkMRMLTransformableNode")]


def _landmarks_of(ct: slicer.vtkMRMLScalarVolumeNode) -> list[slicer.vtkMRMLTransformableNode]:
    """Return the point list that was chosen for a CT (`landmark_lists.choose`)."""
    node = ct.GetScene().GetSingletonNode("BrainFusion", "vtkMRMLScriptedModuleNode")
    if node is None or node.GetNodeReference(CT_POINTS_OF_ROLE) != ct:
        return []
    points = node.GetNodeReference(CT_POINTS_ROLE)
    # One list chosen for both is a mistake, and belongs to none.
    return [] if points is None or points == node.GetNodeReference(MRI_POINTS_ROLE) else [points]


def _nodes(node: slicer.vtkMRMLNode, kind: str) -> Iterator[slicer.vtkMRMLTransformableNode]:
    scene = node.GetScene()
    for index in range(scene.GetNumberOfNodesByClass(kind)):
        yield scene.GetNthNodeByClass(index, kind)
