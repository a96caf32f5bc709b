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
import numpy.typing as npt
import slicer
import slicer.util
import vtk

from BrainFusionLib.geometry import FloatArray
from BrainFusionSlicer import ownership

# References of the module's parameter node: the point lists of the CT's landmarks and of the MRI's, and the volumes
# that they were chosen for.
LIST_ROLES = ("BrainFusion.CTPoints", "BrainFusion.MRIPoints")
VOLUME_ROLES = ("BrainFusion.CTPointsOf", "BrainFusion.MRIPointsOf")
# Axes are the same that differ by less, in radians, and voxels that lie less apart, mm: a header rounds them, and a
# registration moves by more.
MOST_TURNED, MOST_SHIFTED_MM = 1e-3, 0.05
# On the segmentation of a bone: the matrix of its voxels to its own frame, as it was made.
PLACE_ATTRIBUTE = "BrainFusion.BonePlace"


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
        belonging += [node for node in _segmentations_of(moved) if _is_drawn_on(node, moved)]
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


def _is_drawn_on(segmentation: slicer.vtkMRMLSegmentationNode, volume: slicer.vtkMRMLScalarVolumeNode) -> bool:
    """Say whether a segmentation has the voxels of a volume, each in its own frame; also where it has none.

    Else it was drawn while a result had moved the volume, or was hardened since. The user may choose voxels of another
    size, or import some: then they have the volume's axes, and no box that is shifted against the volume's.
    """
    matrix = vtk.vtkMatrix4x4()
    volume.GetIJKToRASMatrix(matrix)
    own, sizes = slicer.util.arrayFromVTKMatrix(matrix), np.array(volume.GetImageData().GetDimensions())
    found = list(_voxels_of(segmentation))
    if not all(_have_same_axes(own, _matrix_of(image)) for image, _is_box in found):
        return False
    if len(found) == 1 and not found[0][1]:  # nothing says where the user could have drawn
        return _are_among(_matrix_of(found[0][0]), own)
    return all(_is_box_of(image, own, sizes) for image, is_box in found if is_box)


def _have_same_axes(own: FloatArray, drawn: FloatArray) -> bool:
    """Say whether two matrices of voxels, 4x4, have the same axes, in whatever order and direction."""
    first, second = (columns[:3, :3] / np.linalg.norm(columns[:3, :3], axis=0) for columns in (own, drawn))
    turned = np.abs(np.linalg.inv(first) @ second)
    return bool(np.allclose(turned, np.round(turned), rtol=0, atol=MOST_TURNED))


def _are_among(drawn: FloatArray, own: FloatArray) -> bool:
    """Say whether voxels lie where those of a volume do, of which they have the axes; or are of another size."""
    ijk, spacing = np.linalg.inv(own) @ drawn, np.linalg.norm(own[:3, :3], axis=0)
    off = np.abs(ijk[:3, 3] - np.round(ijk[:3, 3])) * spacing
    return not _are_as_large(ijk) or bool(off.max() <= MOST_SHIFTED_MM)


def _are_as_large(ijk: FloatArray) -> bool:
    return bool(np.allclose(np.abs(ijk[:3, :3]).max(axis=1), 1, rtol=0, atol=MOST_TURNED))


def _is_box_of(image: slicer.vtkOrientedImageData, own: FloatArray, sizes: npt.NDArray[np.intp]) -> bool:
    """Say whether voxels fill the box of a volume, or a part of it, or more; to a voxel, if theirs are of another size.

    Parameters
    ----------
    image
        The voxels.
    own, sizes
        The matrix of the volume's voxels to its own frame, 4x4, RAS mm, and how many it has along each axis.
    """
    ijk = np.linalg.inv(own) @ _matrix_of(image)
    edges = np.add(np.array(image.GetExtent()).reshape(3, 2), [-0.5, 0.5])
    corners = np.stack(np.meshgrid(*edges, indexing="ij"), axis=-1).reshape(-1, 3)
    ends = corners @ ijk[:3, :3].T + ijk[:3, 3]
    within = np.maximum(1.0, np.abs(ijk[:3, :3]).max(axis=1))
    if _are_as_large(ijk):
        within = MOST_SHIFTED_MM / np.linalg.norm(own[:3, :3], axis=0)
    below, above = ends.min(axis=0) + 0.5, ends.max(axis=0) + 0.5 - sizes
    holds_it, is_in_it = (below <= within) & (above >= -within), (below >= -within) & (above <= within)
    return bool((holds_it | is_in_it).all())


def _voxels_of(segmentation: slicer.vtkMRMLSegmentationNode) -> Iterator[tuple[slicer.vtkOrientedImageData, bool]]:
    """Yield the voxels that a segmentation has, and those that can be drawn, each with whether it is the latter."""
    content, image = segmentation.GetSegmentation(), slicer.vtkOrientedImageData()
    labels = content.GetNthSegment(0).GetRepresentation("Binary labelmap") if content.GetNumberOfSegments() else None
    if labels is not None:
        yield labels, False
    geometry = content.GetConversionParameter(slicer.vtkSegmentationConverter.GetReferenceImageGeometryParameterName())
    if slicer.vtkSegmentationConverter.DeserializeImageGeometry(geometry, image, False):
        yield image, True


def _matrix_of(image: slicer.vtkOrientedImageData) -> FloatArray:
    matrix = vtk.vtkMatrix4x4()
    image.GetImageToWorldMatrix(matrix)
    array: FloatArray = slicer.util.arrayFromVTKMatrix(matrix)
    return array


def _place_of(segmentation: slicer.vtkMRMLSegmentationNode) -> FloatArray | None:
    """Return the matrix of a segmentation's voxels to its own frame, 4x4, RAS mm; None if it has none."""
    return next((_matrix_of(image) for image, _is_box in _voxels_of(segmentation)), None)


def note_place(bone: slicer.vtkMRMLSegmentationNode) -> None:
    """Note where a bone is in its own frame as it was made: one that is hardened is where it is for good."""
    place = _place_of(bone)
    bone.SetAttribute(PLACE_ATTRIBUTE, None if place is None else json.dumps(place.ravel().tolist()))


def is_as_made(bone: slicer.vtkMRMLSegmentationNode) -> bool:
    """Say whether the voxels of a bone are in its own frame where they were made."""
    noted = np.array(json.loads(bone.GetAttribute(PLACE_ATTRIBUTE) or "[]"), dtype=np.float64)
    place = _place_of(bone)
    if place is None or noted.size != place.size:
        return False
    off = np.abs(noted.reshape(4, 4) - place)
    return bool(off[:3, :3].max() <= MOST_TURNED and off[:3, 3].max() <= MOST_SHIFTED_MM)


def _bones_of(volume: slicer.vtkMRMLScalarVolumeNode) -> list[slicer.vtkMRMLTransformableNode]:
    """Return what this module has made as the bone of a CT, and what is still as it was put beside it."""
    return [
        node
        for node in ownership.nodes_of(volume.GetScene(), ownership.CLASSES[ownership.BONE])
        if ownership.role_of(node) == ownership.BONE
        and node.GetNodeReferenceID(ownership.MOVED_CT_ROLE) == volume.GetID()
        and is_as_made(node)
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
