"""Where a CT is with respect to its registration: under the result's transform, taken out of it, or changed since.

A CT is moved only between the two places that were noted when it was registered, and only while its own geometry is
what it was then. One that was hardened stays where it is. What belongs to the CT (`companions`) moves with it.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from enum import Enum

import slicer

from BrainFusionSlicer import ownership
from BrainFusionSlicer.companions import companions_of
from BrainFusionSlicer.fingerprint import is_same_place, own_points
from BrainFusionSlicer.ownership import MOVED_CT_ROLE, TARGET_MRI_ROLE, TRANSFORM

# On the transform of a result: points of the CT in its own frame as it was registered, and whether it is only shown
# unregistered for now.
GEOMETRY_ATTRIBUTE = "BrainFusion.CTGeometry"
SHOWN_ATTRIBUTE = "BrainFusion.ShownUnregistered"
# On the same: the transform that the CT was under, its name (a reference to a removed node is empty), and the nodes
# that were moved with the CT.
FORMER_PARENT_ROLE = "BrainFusion.FormerParent"
FORMER_PARENT_ATTRIBUTE = "BrainFusion.FormerParentName"
COMPANION_ROLE = "BrainFusion.MovedWithCT"


class Standing(Enum):
    """Where the CT of a pair is."""

    NOT_MOVED = "no result has moved it"
    REGISTERED = "under the transform of the result"
    SHOWN_UNREGISTERED = "taken out of the transform, to look at it"
    UNDONE = "taken out of the transform"
    HARDENED = "its own geometry has changed since it was registered"
    ELSEWHERE = "under another transform"
    HOMELESS = "under the transform of the result, and the one it was under before was removed"


def put_under(
    transform: slicer.vtkMRMLLinearTransformNode,
    ct: slicer.vtkMRMLScalarVolumeNode,
    mri: slicer.vtkMRMLScalarVolumeNode,
) -> None:
    """Put a CT, and what belongs to it, under the transform of a result, and note how and where they were."""
    parent = users_parent(ct)
    before = result_transform_of(ct)
    if before is not None and before != transform:  # another MRI's: what moved with the CT then moves with it now
        for node in _companions_under(before, before):
            node.SetAndObserveTransformNodeID(_id_of(parent))
    moved = companions_of(ct, mri, parent)
    transform.SetAttribute(GEOMETRY_ATTRIBUTE, json.dumps([float(mm) for mm in own_points(ct).ravel()]))
    transform.RemoveAttribute(SHOWN_ATTRIBUTE)
    transform.SetNodeReferenceID(FORMER_PARENT_ROLE, _id_of(parent))
    transform.SetAttribute(FORMER_PARENT_ATTRIBUTE, None if parent is None else parent.GetName())
    known = {node.GetID() for node in _companions(transform)}
    for node in moved:
        if node.GetID() not in known:
            transform.AddNodeReferenceID(COMPANION_ROLE, node.GetID())
    for node in (ct, *moved):
        node.SetAndObserveTransformNodeID(transform.GetID())


def standing_of(ct: slicer.vtkMRMLScalarVolumeNode | None, mri: slicer.vtkMRMLScalarVolumeNode | None) -> Standing:
    """Say where the CT of a pair is."""
    transform = ownership.find_output(TRANSFORM, ct, mri)
    if ct is None or transform is None or not transform.GetAttribute(GEOMETRY_ATTRIBUTE):
        return Standing.NOT_MOVED
    if not _is_as_registered(ct, transform):
        return Standing.HARDENED
    if ct.GetParentTransformNode() == transform:
        return Standing.HOMELESS if _is_homeless(transform) else Standing.REGISTERED
    if _is_homeless(transform) or ct.GetParentTransformNode() != former_parent(transform):
        return Standing.ELSEWHERE
    return Standing.SHOWN_UNREGISTERED if transform.GetAttribute(SHOWN_ATTRIBUTE) else Standing.UNDONE


def result_transform_of(ct: slicer.vtkMRMLTransformableNode) -> slicer.vtkMRMLLinearTransformNode | None:
    """Return the ``CT to MRI`` node that an earlier result put this very CT under, or ``None``.

    A copy of the CT under the same transform is not "this very CT": to the copy, the transform is like a user's own.
    Nor is a copy of the transform the result's.
    """
    parent = ct.GetParentTransformNode()
    if parent is None or ownership.role_of(parent) != TRANSFORM:
        return None
    return parent if parent.GetNodeReferenceID(MOVED_CT_ROLE) == ct.GetID() else None


def former_parent(transform: slicer.vtkMRMLLinearTransformNode) -> slicer.vtkMRMLTransformNode | None:
    """Return the transform that the CT of a result was under before it was registered."""
    return transform.GetNodeReference(FORMER_PARENT_ROLE)


def users_parent(node: slicer.vtkMRMLTransformableNode) -> slicer.vtkMRMLTransformNode | None:
    """Return the transform that a node is under, or the one that it was under before an earlier result moved it."""
    ours = result_transform_of(node)
    return node.GetParentTransformNode() if ours is None else former_parent(ours)


def moved_with(ct: slicer.vtkMRMLScalarVolumeNode) -> int:
    """Return how many nodes are moved with a registered CT."""
    ours = result_transform_of(ct)
    return 0 if ours is None else len(list(_companions_under(ours, ours)))


def take_back(ct: slicer.vtkMRMLScalarVolumeNode, to_look: bool = False) -> bool:
    """Take the CT, and what was moved with it, to where the user had them; say if they were moved.

    The transform node stays, for `bring_again` and for the user.

    Parameters
    ----------
    ct
        A CT that was registered.
    to_look
        Whether it is shown so only for a while.
    """
    ours = result_transform_of(ct)
    if ours is None or _is_homeless(ours) or not _is_as_registered(ct, ours):
        return False
    if to_look:
        ours.SetAttribute(SHOWN_ATTRIBUTE, "true")
    parent = former_parent(ours)
    for node in (ct, *_companions_under(ours, ours)):
        node.SetAndObserveTransformNodeID(_id_of(parent))
    return True


def take_back_from(transform: slicer.vtkMRMLNode) -> slicer.vtkMRMLScalarVolumeNode | None:
    """Take the CT of a result out of a transform that is about to be removed; return the CT if it was moved."""
    if ownership.role_of(transform) != TRANSFORM:
        return None
    ct = transform.GetNodeReference(MOVED_CT_ROLE)
    return ct if ct is not None and result_transform_of(ct) == transform and take_back(ct) else None


def bring_again(ct: slicer.vtkMRMLScalarVolumeNode, mri: slicer.vtkMRMLScalarVolumeNode) -> bool:
    """Put a CT that was taken back under the transform of the pair's last result again; say if it was moved."""
    if standing_of(ct, mri) not in (Standing.SHOWN_UNREGISTERED, Standing.UNDONE):
        return False
    ours = ownership.find_output(TRANSFORM, ct, mri)
    for node in (ct, *_companions_under(ours, former_parent(ours))):
        node.SetAndObserveTransformNodeID(ours.GetID())
    ours.RemoveAttribute(SHOWN_ATTRIBUTE)
    return True


def bring_all_again(scene: slicer.vtkMRMLScene) -> None:
    """Put every CT that is only shown unregistered back under its transform: a loaded scene is registered."""
    for index in range(scene.GetNumberOfNodesByClass("vtkMRMLLinearTransformNode")):
        node = scene.GetNthNodeByClass(index, "vtkMRMLLinearTransformNode")
        ct, mri = (node.GetNodeReference(role) for role in (MOVED_CT_ROLE, TARGET_MRI_ROLE))
        if node.GetAttribute(SHOWN_ATTRIBUTE) and ct is not None and mri is not None:
            bring_again(ct, mri)


def leave_unregistered(ct: slicer.vtkMRMLScalarVolumeNode, mri: slicer.vtkMRMLScalarVolumeNode) -> bool:
    """Undo the registration: leave the CT where the user had it, for good; say if it was registered."""
    standing = standing_of(ct, mri)
    if standing is Standing.REGISTERED:
        return take_back(ct)
    if standing is Standing.SHOWN_UNREGISTERED:
        ownership.find_output(TRANSFORM, ct, mri).RemoveAttribute(SHOWN_ATTRIBUTE)
        return True
    return False


def note_companion(ct: slicer.vtkMRMLScalarVolumeNode, node: slicer.vtkMRMLTransformableNode) -> None:
    """Have a node that was put under the transform of a registered CT moved back with it, too."""
    ours = result_transform_of(ct)
    if ours is not None and node not in list(_companions(ours)):
        ours.AddNodeReferenceID(COMPANION_ROLE, node.GetID())


def _companions(transform: slicer.vtkMRMLLinearTransformNode) -> Iterator[slicer.vtkMRMLTransformableNode]:
    for index in range(transform.GetNumberOfNodeReferences(COMPANION_ROLE)):
        node = transform.GetNthNodeReference(COMPANION_ROLE, index)
        if node is not None:
            yield node


def _companions_under(
    transform: slicer.vtkMRMLLinearTransformNode, parent: slicer.vtkMRMLTransformNode | None
) -> list[slicer.vtkMRMLTransformableNode]:
    """Return what moved with the CT and is under `parent` now: what the user moved since stays where it is."""
    return [node for node in _companions(transform) if node.GetParentTransformNode() == parent]


def _is_homeless(transform: slicer.vtkMRMLLinearTransformNode) -> bool:
    return bool(transform.GetAttribute(FORMER_PARENT_ATTRIBUTE)) and former_parent(transform) is None


def _id_of(node: slicer.vtkMRMLNode | None) -> str | None:
    return None if node is None else node.GetID()


def _is_as_registered(ct: slicer.vtkMRMLScalarVolumeNode, transform: slicer.vtkMRMLLinearTransformNode) -> bool:
    if ct.GetImageData() is None:
        return False
    stored = tuple(json.loads(transform.GetAttribute(GEOMETRY_ATTRIBUTE) or "[]"))
    return is_same_place(stored, tuple(own_points(ct).ravel()))
