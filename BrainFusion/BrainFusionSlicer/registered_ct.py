"""Where the volume that a registration moves is: under the result's transform, taken out of it, or changed since.

That is the CT, unless the CT is the reference; then it is the MRI. It is moved only between the two places that were
noted when it was registered, and only while its own geometry is what it was then. One that was hardened stays where it
is. What belongs to it (`companions`) moves with it.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from enum import Enum

import slicer

from BrainFusionLib.settings import Side
from BrainFusionSlicer import ownership
from BrainFusionSlicer.companions import companions_of, results_in_frame_of, transforms_above
from BrainFusionSlicer.fingerprint import has_voxels, is_same_place, own_points
from BrainFusionSlicer.ownership import INPUT_ROLES, TRANSFORM

# On the transform of a result: points of what it moves in its own frame as it was registered, and whether that is only
# shown unregistered for now.
GEOMETRY_ATTRIBUTE = "BrainFusion.CTGeometry"
SHOWN_ATTRIBUTE = "BrainFusion.ShownUnregistered"
# On the same: the transform that this volume was under, its name (a reference to a removed node is empty), and the
# nodes that were moved with it.
FORMER_PARENT_ROLE = "BrainFusion.FormerParent"
FORMER_PARENT_ATTRIBUTE = "BrainFusion.FormerParentName"
COMPANION_ROLE = "BrainFusion.MovedWithCT"


class Standing(Enum):
    """Where the volume is that the last result of a pair moved."""

    NOT_MOVED = "no result has moved it"
    REGISTERED = "under the transform of the result"
    SHOWN_UNREGISTERED = "taken out of the transform, to look at it"
    UNDONE = "taken out of the transform"
    HARDENED = "its own geometry has changed since it was registered"
    ELSEWHERE = "under another transform"
    HOMELESS = "under the transform of the result, and the one it was under before was removed"


def put_under(
    transform: slicer.vtkMRMLLinearTransformNode,
    moved: slicer.vtkMRMLScalarVolumeNode,
    fixed: slicer.vtkMRMLScalarVolumeNode,
) -> None:
    """Put a volume, and what belongs to it, under the transform of a result, and note how and where they were."""
    parent = users_parent(moved)
    before = result_transform_of(moved)
    brought = []
    if before is not None and before != transform:  # another pair's: what moved with it then moves with it now
        brought = _companions_under(before, before)
        for node in brought:
            node.SetAndObserveTransformNodeID(_id_of(parent))
    if before != transform:  # the user has taken the volume out of it, and left these behind
        for node in _companions_under(transform, transform):
            node.SetAndObserveTransformNodeID(_id_of(former_parent(transform)))
    companions = companions_of(moved, fixed, parent, brought)
    results = results_in_frame_of(moved, moved.GetParentTransformNode())
    transform.SetAttribute(GEOMETRY_ATTRIBUTE, json.dumps([float(mm) for mm in own_points(moved).ravel()]))
    transform.RemoveAttribute(SHOWN_ATTRIBUTE)
    transform.SetNodeReferenceID(FORMER_PARENT_ROLE, _id_of(parent))
    transform.SetAttribute(FORMER_PARENT_ATTRIBUTE, None if parent is None else parent.GetName())
    _note_companions(transform, [*_companions_under(transform, transform), *companions])
    for node in (moved, *companions, *results):
        node.SetAndObserveTransformNodeID(transform.GetID())


def carries(
    moved: slicer.vtkMRMLScalarVolumeNode, above_fixed: Iterable[slicer.vtkMRMLTransformNode]
) -> slicer.vtkMRMLTransformableNode | None:
    """Return what would move a volume along with the other of its pair, on which it was put by other results, or None.

    Then neither can be put onto the other: both would move for ever. A result that has moved the first, and taken the
    second along, would be taken back amid the next.

    :param above_fixed: the transforms that the second will be under
    """
    results = results_in_frame_of(moved, moved.GetParentTransformNode())
    above = list(above_fixed)
    return next((node for node in (*results, result_transform_of(moved)) if node in above), None)


def standing_of(ct: slicer.vtkMRMLScalarVolumeNode | None, mri: slicer.vtkMRMLScalarVolumeNode | None) -> Standing:
    """Say where the volume of a pair is that the last result moved."""
    transform = ownership.find_output(TRANSFORM, ct, mri)
    if ct is None or transform is None or not transform.GetAttribute(GEOMETRY_ATTRIBUTE):
        return Standing.NOT_MOVED
    moved = ownership.moved_of(transform)
    if not _is_as_registered(moved, transform):
        return Standing.HARDENED
    if moved.GetParentTransformNode() == transform:
        return Standing.HOMELESS if _is_homeless(transform) else Standing.REGISTERED
    if _is_homeless(transform) or moved.GetParentTransformNode() != former_parent(transform):
        return Standing.ELSEWHERE
    return Standing.SHOWN_UNREGISTERED if transform.GetAttribute(SHOWN_ATTRIBUTE) else Standing.UNDONE


def moved_of_pair(
    ct: slicer.vtkMRMLScalarVolumeNode, mri: slicer.vtkMRMLScalarVolumeNode
) -> slicer.vtkMRMLScalarVolumeNode:
    """Return the volume of a pair that the last result moved: the CT where there is none."""
    return mri if reference_of_pair(ct, mri) == "ct" else ct


def reference_of_pair(ct: slicer.vtkMRMLScalarVolumeNode, mri: slicer.vtkMRMLScalarVolumeNode) -> Side:
    """Return which volume of a pair stayed where it was in the last result: the MRI where there is none."""
    transform = ownership.find_output(TRANSFORM, ct, mri)
    return "mri" if transform is None else ownership.reference_of(transform)


def parents_as_read(
    ct: slicer.vtkMRMLScalarVolumeNode,
    mri: slicer.vtkMRMLScalarVolumeNode,
    reference: Side | None = None,
    as_shown: bool = False,
) -> tuple[slicer.vtkMRMLTransformNode | None, slicer.vtkMRMLTransformNode | None]:
    """Return the transforms under which CT and MRI are read, to be registered or judged.

    What an earlier result did to the one that is to be moved is left out, and what the pair's own last result did.

    Parameters
    ----------
    ct, mri
        The pair.
    reference
        The one that is to stay where it is; that of the last result when ``None``.
    as_shown
        Whether all transforms count.
    """
    if as_shown:
        return ct.GetParentTransformNode(), mri.GetParentTransformNode()
    reference = reference or reference_of_pair(ct, mri)
    fixed = ct if reference == "ct" else mri

    def above(node: slicer.vtkMRMLScalarVolumeNode) -> slicer.vtkMRMLTransformNode | None:
        ours = result_transform_of(node)
        stays = ours is not None and node == fixed and not (_is_of(ours, ct, mri) and can_be_taken_back(node))
        return node.GetParentTransformNode() if stays else users_parent(node)

    return above(ct), above(mri)


def _is_of(transform: slicer.vtkMRMLNode, ct: slicer.vtkMRMLNode, mri: slicer.vtkMRMLNode) -> bool:
    return [transform.GetNodeReferenceID(role) for role in INPUT_ROLES] == [ct.GetID(), mri.GetID()]


def result_transform_of(volume: slicer.vtkMRMLTransformableNode) -> slicer.vtkMRMLLinearTransformNode | None:
    """Return the ``CT to MRI`` or ``MRI to CT`` node that an earlier result put this very volume under, or ``None``.

    A copy of the volume under the same transform is not "this very volume": to the copy, the transform is like a user's
    own. Nor is a copy of the transform the result's.
    """
    parent = volume.GetParentTransformNode()
    if parent is None or ownership.role_of(parent) != TRANSFORM:
        return None
    return parent if parent.GetNodeReferenceID(ownership.moved_role(parent)) == volume.GetID() else None


def former_parent(transform: slicer.vtkMRMLLinearTransformNode) -> slicer.vtkMRMLTransformNode | None:
    """Return the transform that the CT of a result was under before it was registered."""
    return transform.GetNodeReference(FORMER_PARENT_ROLE)


def users_parent(node: slicer.vtkMRMLTransformableNode) -> slicer.vtkMRMLTransformNode | None:
    """Return the transform that a node is under, or the one that it was under before an earlier result moved it."""
    ours = result_transform_of(node)
    return node.GetParentTransformNode() if ours is None else former_parent(ours)


def moved_with(volume: slicer.vtkMRMLScalarVolumeNode) -> int:
    """Return how many of the user's nodes are moved with a registered volume."""
    ours = result_transform_of(volume)
    return 0 if ours is None else sum(not ownership.is_made_here(node) for node in _companions_under(ours, ours))


def is_left_with_others(transform: slicer.vtkMRMLLinearTransformNode) -> bool:
    """Say whether a result's volume has left its transform, hardened or put elsewhere, and something else has not.

    Writing another pose into it would move what was left.
    """
    moved = ownership.moved_of(transform)
    if moved is None or not transform.GetAttribute(GEOMETRY_ATTRIBUTE) or moved.GetParentTransformNode() == transform:
        return False
    was_undone = _is_as_registered(moved, transform) and moved.GetParentTransformNode() == former_parent(transform)
    return not was_undone and bool(left_under(transform))


def left_under(transform: slicer.vtkMRMLTransformNode) -> list[slicer.vtkMRMLTransformableNode]:
    """Return the nodes under a transform that are not temporary."""
    return [
        node
        for node in ownership.nodes_of(transform.GetScene(), "vtkMRMLTransformableNode")
        if node.GetParentTransformNode() == transform
        and not (node.GetHideFromEditors() and not node.GetSaveWithScene())
    ]


def can_be_taken_back(volume: slicer.vtkMRMLScalarVolumeNode) -> bool:
    """Say whether a volume was moved by a result, and it is known where it was before."""
    ours = result_transform_of(volume)
    return ours is not None and not _is_homeless(ours) and _is_as_registered(volume, ours)


def left_behind(*volumes: slicer.vtkMRMLScalarVolumeNode | None) -> slicer.vtkMRMLScalarVolumeNode | None:
    """Return one of the volumes that a result moved onto one that was removed since, or None."""
    for volume in volumes:
        ours = None if volume is None else result_transform_of(volume)
        if ours is not None and ownership.fixed_of(ours) is None:
            return volume
    return None


def standing_alone(volume: slicer.vtkMRMLScalarVolumeNode) -> Standing:
    """Say where a volume is that is under the transform of a result, whose other volume may be gone."""
    if can_be_taken_back(volume):
        return Standing.REGISTERED
    return Standing.HOMELESS if _is_homeless(result_transform_of(volume)) else Standing.HARDENED


def take_back(volume: slicer.vtkMRMLScalarVolumeNode, to_look: bool = False) -> bool:
    """Take a volume, and what was moved with it, to where the user had them; say if they were moved.

    The transform node stays, for `bring_again` and for the user.

    Parameters
    ----------
    volume
        One that was registered.
    to_look
        Whether it is shown so only for a while.
    """
    if not can_be_taken_back(volume):
        return False
    ours = result_transform_of(volume)
    if to_look:
        ours.SetAttribute(SHOWN_ATTRIBUTE, "true")
    parent, companions = former_parent(ours), _companions_under(ours, ours)
    _note_companions(ours, companions)
    for node in (volume, *companions, *results_in_frame_of(volume, ours)):
        node.SetAndObserveTransformNodeID(_id_of(parent))
    return True


def take_back_from(transform: slicer.vtkMRMLNode) -> slicer.vtkMRMLScalarVolumeNode | None:
    """Take the volume of a result out of a transform that is about to be removed; return it if it was moved."""
    if ownership.role_of(transform) != TRANSFORM:
        return None
    moved = ownership.moved_of(transform)
    return moved if moved is not None and result_transform_of(moved) == transform and take_back(moved) else None


def bring_again(ct: slicer.vtkMRMLScalarVolumeNode, mri: slicer.vtkMRMLScalarVolumeNode) -> bool:
    """Put a volume that was taken back under the transform of the pair's last result again; say if it was moved."""
    if standing_of(ct, mri) not in (Standing.SHOWN_UNREGISTERED, Standing.UNDONE):
        return False
    ours = ownership.find_output(TRANSFORM, ct, mri)
    moved, parent = ownership.moved_of(ours), former_parent(ours)
    results = results_in_frame_of(moved, parent)
    if any(node in results for node in (ours, *transforms_above(ours))):  # other results have put its partner onto it
        return False
    companions = _companions_under(ours, parent)
    _note_companions(ours, companions)
    for node in (moved, *companions, *results):
        node.SetAndObserveTransformNodeID(ours.GetID())
    ours.RemoveAttribute(SHOWN_ATTRIBUTE)
    return True


def bring_all_again(scene: slicer.vtkMRMLScene) -> None:
    """Put every volume that is only shown unregistered back under its transform: a loaded scene is registered."""
    for node in ownership.nodes_of(scene, "vtkMRMLLinearTransformNode"):
        ct, mri = (node.GetNodeReference(role) for role in INPUT_ROLES)
        if node.GetAttribute(SHOWN_ATTRIBUTE) and ct is not None and mri is not None:
            bring_again(ct, mri)


def leave_unregistered(ct: slicer.vtkMRMLScalarVolumeNode, mri: slicer.vtkMRMLScalarVolumeNode) -> bool:
    """Undo the registration: leave the volume where the user had it, for good; say if it was registered."""
    standing = standing_of(ct, mri)
    if standing is Standing.REGISTERED:
        return take_back(moved_of_pair(ct, mri))
    if standing is Standing.SHOWN_UNREGISTERED:
        ownership.find_output(TRANSFORM, ct, mri).RemoveAttribute(SHOWN_ATTRIBUTE)
        return True
    return False


def abandoned_by(*volumes: slicer.vtkMRMLScalarVolumeNode | None) -> list[slicer.vtkMRMLTransformableNode]:
    """Return the user's nodes that a result once moved with a volume, and that the volume has left there.

    The user has put the volume under another transform since, or removed it. Of one that he removed, the other volume
    of the pair tells. What a hardened volume left is where that volume is, for good.
    """
    return [node for transform in _left_by(volumes) for node in _companions_under(transform, transform)]


def take_back_abandoned(*volumes: slicer.vtkMRMLScalarVolumeNode | None) -> int:
    """Put what `abandoned_by` returns to where the user had it; return how many nodes that are."""
    count = 0
    for transform in _left_by(volumes):
        for node in _companions_under(transform, transform):
            node.SetAndObserveTransformNodeID(_id_of(former_parent(transform)))
            count += 1
    return count


def _left_by(
    volumes: Iterable[slicer.vtkMRMLScalarVolumeNode | None],
) -> Iterator[slicer.vtkMRMLLinearTransformNode]:
    """Yield the transforms of results that moved a volume which is not under them any more."""
    there = [volume for volume in volumes if volume is not None and volume.GetScene() is not None]
    for transform in ownership.nodes_of(there[0].GetScene(), "vtkMRMLLinearTransformNode") if there else ():
        if ownership.role_of(transform) != TRANSFORM or _is_homeless(transform):
            continue
        moved = ownership.moved_of(transform)
        if moved is None:
            has_left = ownership.fixed_of(transform) in there
        else:
            is_elsewhere = moved in there and moved.GetParentTransformNode() != transform
            has_left = is_elsewhere and _is_as_registered(moved, transform)
        if has_left:
            yield transform


def note_companion(volume: slicer.vtkMRMLScalarVolumeNode, node: slicer.vtkMRMLTransformableNode) -> None:
    """Have a node that was put under the transform of a registered volume moved back with it, too."""
    ours = result_transform_of(volume)
    if ours is not None and node not in list(_companions(ours)):
        ours.AddNodeReferenceID(COMPANION_ROLE, node.GetID())


def _companions(transform: slicer.vtkMRMLLinearTransformNode) -> Iterator[slicer.vtkMRMLTransformableNode]:
    for index in range(transform.GetNumberOfNodeReferences(COMPANION_ROLE)):
        node = transform.GetNthNodeReference(COMPANION_ROLE, index)
        if node is not None:
            yield node


def _note_companions(
    transform: slicer.vtkMRMLLinearTransformNode, nodes: Iterable[slicer.vtkMRMLTransformableNode]
) -> None:
    """Note what moves with a volume from now on: not what the user has taken away since, which is where he wants it."""
    transform.RemoveNodeReferenceIDs(COMPANION_ROLE)
    for node_id in dict.fromkeys(node.GetID() for node in nodes):
        transform.AddNodeReferenceID(COMPANION_ROLE, node_id)


def _companions_under(
    transform: slicer.vtkMRMLLinearTransformNode, parent: slicer.vtkMRMLTransformNode | None
) -> list[slicer.vtkMRMLTransformableNode]:
    """Return what moved with the volume and is under `parent` now: what the user moved since stays where it is."""
    return [node for node in _companions(transform) if node.GetParentTransformNode() == parent]


def _is_homeless(transform: slicer.vtkMRMLLinearTransformNode) -> bool:
    return bool(transform.GetAttribute(FORMER_PARENT_ATTRIBUTE)) and former_parent(transform) is None


def _id_of(node: slicer.vtkMRMLNode | None) -> str | None:
    return None if node is None else node.GetID()


def _is_as_registered(
    moved: slicer.vtkMRMLScalarVolumeNode | None, transform: slicer.vtkMRMLLinearTransformNode
) -> bool:
    if moved is None or not has_voxels(moved):
        return False
    stored = tuple(json.loads(transform.GetAttribute(GEOMETRY_ATTRIBUTE) or "[]"))
    return is_same_place(stored, tuple(own_points(moved).ravel()))
