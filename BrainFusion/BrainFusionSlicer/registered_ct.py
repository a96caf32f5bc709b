"""Where a CT is with respect to its registration: under the result's transform, taken out of it, or changed since.

A CT is moved only between the two places that were noted when it was registered, and only while its own geometry is
what it was then. One that was hardened stays where it is.
"""

from __future__ import annotations

import json
from enum import Enum

import slicer

from BrainFusionSlicer import ownership
from BrainFusionSlicer.fingerprint import is_same_place, own_points
from BrainFusionSlicer.ownership import MOVED_CT_ROLE, TARGET_MRI_ROLE, TRANSFORM

# On the transform of a result: points of the CT in its own frame as it was registered, and whether it is only shown
# unregistered for now.
GEOMETRY_ATTRIBUTE = "BrainFusion.CTGeometry"
SHOWN_ATTRIBUTE = "BrainFusion.ShownUnregistered"


class Standing(Enum):
    """Where the CT of a pair is."""

    NOT_MOVED = "no result has moved it"
    REGISTERED = "under the transform of the result"
    SHOWN_UNREGISTERED = "taken out of the transform, to look at it"
    UNDONE = "taken out of the transform"
    HARDENED = "its own geometry has changed since it was registered"
    ELSEWHERE = "under another transform"


def remember(transform: slicer.vtkMRMLLinearTransformNode, ct: slicer.vtkMRMLScalarVolumeNode) -> None:
    """Note on the transform of a result how its CT is, before it is moved."""
    transform.SetAttribute(GEOMETRY_ATTRIBUTE, json.dumps([float(mm) for mm in own_points(ct).ravel()]))
    transform.RemoveAttribute(SHOWN_ATTRIBUTE)


def standing_of(ct: slicer.vtkMRMLScalarVolumeNode | None, mri: slicer.vtkMRMLScalarVolumeNode | None) -> Standing:
    """Say where the CT of a pair is."""
    transform = ownership.find_output(TRANSFORM, ct, mri)
    if ct is None or transform is None or not transform.GetAttribute(GEOMETRY_ATTRIBUTE):
        return Standing.NOT_MOVED
    if not _is_as_registered(ct, transform):
        return Standing.HARDENED
    if ct.GetParentTransformNode() == transform:
        return Standing.REGISTERED
    if ct.GetParentTransformNode() != transform.GetParentTransformNode():
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


def users_parent(node: slicer.vtkMRMLTransformableNode) -> slicer.vtkMRMLTransformNode | None:
    """Return the transform that a node is under, passing over the one that an earlier result put between."""
    ours = result_transform_of(node)
    return node.GetParentTransformNode() if ours is None else ours.GetParentTransformNode()


def take_back(ct: slicer.vtkMRMLScalarVolumeNode, to_look: bool = False) -> bool:
    """Take the CT out of the transform that a result put it under, to where the user had it; say if it was moved.

    The transform node stays, for `bring_again` and for the user.

    Parameters
    ----------
    ct
        A CT that was registered.
    to_look
        Whether it is shown so only for a while.
    """
    ours = result_transform_of(ct)
    if ours is None or not _is_as_registered(ct, ours):
        return False
    if to_look:
        ours.SetAttribute(SHOWN_ATTRIBUTE, "true")
    parent = ours.GetParentTransformNode()
    ct.SetAndObserveTransformNodeID(None if parent is None else parent.GetID())
    return True


def bring_again(ct: slicer.vtkMRMLScalarVolumeNode, mri: slicer.vtkMRMLScalarVolumeNode) -> bool:
    """Put a CT that was taken back under the transform of the pair's last result again; say if it was moved."""
    if standing_of(ct, mri) not in (Standing.SHOWN_UNREGISTERED, Standing.UNDONE):
        return False
    ours = ownership.find_output(TRANSFORM, ct, mri)
    ct.SetAndObserveTransformNodeID(ours.GetID())
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


def _is_as_registered(ct: slicer.vtkMRMLScalarVolumeNode, transform: slicer.vtkMRMLLinearTransformNode) -> bool:
    if ct.GetImageData() is None:
        return False
    stored = tuple(json.loads(transform.GetAttribute(GEOMETRY_ATTRIBUTE) or "[]"))
    return is_same_place(stored, tuple(own_points(ct).ravel()))
