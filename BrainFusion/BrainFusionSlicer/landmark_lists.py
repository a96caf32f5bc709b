"""The user's landmarks: two point lists (markups), one on the CT and one on the MRI, as the library wants them.

A list counts as its volume's while it is under the same transform: then its coordinates are in the volume's own space,
and it moves with the volume. Which lists are chosen is kept on the module's parameter node, with the pair that they
were chosen for.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import slicer
import slicer.util
import vtk
from slicer.i18n import tr as _

from BrainFusionLib.errors import GeometryError
from BrainFusionLib.geometry import FloatArray
from BrainFusionLib.landmarks import LandmarkErrors, Landmarks, Marked, pair_landmarks
from BrainFusionLib.transform import RigidTransform
from BrainFusionSlicer import registered_ct
from BrainFusionSlicer.companions import LIST_ROLES, VOLUME_ROLES

LIST_CLASS = "vtkMRMLMarkupsFiducialNode"
# Points that are closer than this are the same point, after matrices have been multiplied.
MOST_APART_MM = 0.01


def choose(parameterNode: slicer.vtkMRMLScriptedModuleNode, index: int, points, volume) -> None:
    """Choose the list of the CT (0) or of the MRI (1), or none of them."""
    with slicer.util.NodeModify(parameterNode):
        parameterNode.SetNodeReferenceID(LIST_ROLES[index], None if points is None else points.GetID())
        parameterNode.SetNodeReferenceID(VOLUME_ROLES[index], None if volume is None else volume.GetID())


def chosen(parameterNode: slicer.vtkMRMLScriptedModuleNode, ct, mri) -> list:
    """Return the lists that were chosen for a CT and for an MRI; None in the place of those that were not."""
    found = []
    for list_role, volume_role, volume in zip(LIST_ROLES, VOLUME_ROLES, (ct, mri), strict=True):
        is_theirs = volume is not None and parameterNode.GetNodeReference(volume_role) == volume
        found.append(parameterNode.GetNodeReference(list_role) if is_theirs else None)
    return found


def why_not(lists, ct, mri) -> str | None:
    """Say why the residuals of two chosen lists cannot be given, or return None."""
    if ct is None or mri is None:
        return _("Choose a CT and an MRI first.")
    if lists[0] is None or lists[1] is None:
        return _("Choose a point list for each image, or click Place points.")
    if lists[0] == lists[1]:
        return _("The points on the CT and those on the MRI must be two different lists.")
    misplaced = _misplaced(lists, (ct, mri))
    if misplaced is not None:
        return _(
            "{points} is not under the transform of {volume}, and would not move with it. Say where its points were "
            "placed:"
        ).format(points=misplaced[0].GetName(), volume=misplaced[1].GetName())
    try:
        _paired(lists)
    except GeometryError as error:
        words = str(error)
        return words[:1].upper() + words[1:]
    return None


def why_no_start(parameterNode, ct, mri) -> str | None:
    """Say why the registration cannot start from the chosen landmarks, or return None."""
    lists = chosen(parameterNode, ct, mri)
    reason = why_not(lists, ct, mri)
    if reason is not None:
        return reason
    try:
        _paired(lists).rigid_fit()
    except GeometryError as error:
        return str(error)
    return None


def is_misplaced(lists, ct, mri) -> bool:
    """Say whether a list is not under the transform of its volume."""
    return all((*lists, ct, mri)) and _misplaced(lists, (ct, mri)) is not None


def attach(lists, ct, mri, *, keep_in_world: bool) -> None:
    """Put the lists under the transforms of their volumes.

    :param keep_in_world: whether the points stay where they are shown, or keep their coordinates: those of points that
        were placed on the volume before it was moved, or saved with it
    """
    for points, volume in zip(lists, (ct, mri), strict=True):
        parent = volume.GetParentTransformNode()
        if points is None or points.GetParentTransformNode() == parent:
            continue
        if keep_in_world:
            shown = [points.GetNthControlPointPositionWorld(n) for n in range(points.GetNumberOfControlPoints())]
        points.SetAndObserveTransformNodeID(None if parent is None else parent.GetID())
        if keep_in_world:
            for n, position in enumerate(shown):
                if points.GetNthControlPointPositionStatus(n) == points.PositionDefined:
                    points.SetNthControlPointPositionWorld(n, *position)
        registered_ct.note_companion(volume, points)


def residuals(lists, ct, mri) -> LandmarkErrors:
    """Return the residuals of the landmarks in the pose that is shown, in the world.

    Raises
    ------
    GeometryError
        There are fewer than two pairs, or they cannot be paired.
    """
    landmarks = _paired(lists)
    shown = [
        _through(volume.GetParentTransformNode(), None, points)
        for volume, points in ((ct, landmarks.ct_lps_mm), (mri, landmarks.mri_lps_mm))
    ]
    return Landmarks(landmarks.names, *shown).residuals(RigidTransform.identity())


def changes_since(counted: LandmarkErrors | None, parameterNode, ct, mri) -> str | None:
    """Say that a result does not count the landmarks of its pair as they are now, or return None.

    :param counted: the residuals that the result has, if any
    :param parameterNode: where the chosen lists are kept
    """
    lists = [None, None] if parameterNode is None else chosen(parameterNode, ct, mri)
    now = None if why_not(lists, ct, mri) is not None else residuals(lists, ct, mri)
    if counted is None:
        if now is None:
            return None
        return _("{count} landmarks that were set after the fusion are not counted: fuse again to count them").format(
            count=len(now.points)
        )
    if now is not None and _is_same(counted, now):
        return None
    return _("the landmarks are those of the fusion; they were changed since: fuse again to count them as they are now")


def _is_same(one: LandmarkErrors, other: LandmarkErrors) -> bool:
    """Return whether both have the same points, also where CT and MRI were moved together between them."""
    if [point.name for point in one.points] != [point.name for point in other.points]:
        return False
    apart = []
    for errors in (one, other):
        on_mri = [point.mri_lps_mm for point in errors.points]
        both = np.array([*on_mri, *(point.mri_lps_mm + point.shift_mm for point in errors.points)])
        apart.append(np.linalg.norm(both[:, None] - both[None], axis=2))
    return bool(np.allclose(*apart, rtol=0, atol=MOST_APART_MM))


def left_out(lists) -> int:
    """Return how many points have no position or no partner."""
    return _paired(lists).left_out


def as_read(lists, ct, mri, above: tuple | None = None) -> Landmarks:
    """Return landmarks in the frames in which the two volumes are read, LPS mm.

    :param above: the transforms under which they are read (`registered_ct.parents_as_read`, which is the default)
    :raises GeometryError: a list is not under its volume's transform, or there are fewer than two pairs
    """
    reason = why_not(lists, ct, mri)
    if reason is not None:
        raise GeometryError(reason)
    landmarks = _paired(lists)
    read = [
        _through(parent, None, points)
        for parent, points in zip(
            above or registered_ct.parents_as_read(ct, mri), (landmarks.ct_lps_mm, landmarks.mri_lps_mm), strict=True
        )
    ]
    return Landmarks(landmarks.names, *read, landmarks.left_out)


def marked(points: slicer.vtkMRMLMarkupsNode) -> Iterator[Marked]:
    """Yield the points of a list in its own frame."""
    for n in range(points.GetNumberOfControlPoints()):
        label = points.GetNthControlPointLabel(n).strip()
        if points.GetNthControlPointPositionStatus(n) != points.PositionDefined:
            yield Marked(label, None)
            continue
        right, anterior, superior = points.GetNthControlPointPosition(n)
        yield Marked(label, (-right, -anterior, superior))


def settled(points: slicer.vtkMRMLMarkupsNode) -> list[Marked]:
    """Return the points of a list without the one that follows the mouse while a point is being placed."""
    return [
        point
        for n, point in enumerate(marked(points))
        if points.GetNthControlPointPositionStatus(n) != points.PositionPreview
    ]


def _paired(lists) -> Landmarks:
    both = [settled(points) for points in lists]
    return pair_landmarks(both[0], both[1], (lists[0].GetName(), lists[1].GetName()))


def _misplaced(lists, volumes):
    pairs = zip(lists, volumes, strict=True)
    return next((pair for pair in pairs if pair[0].GetParentTransformNode() != pair[1].GetParentTransformNode()), None)


def _through(source, target, points_lps_mm: FloatArray) -> FloatArray:
    """Return points of the frame under a transform in that under another one (None: the world), LPS mm."""
    between = vtk.vtkGeneralTransform()
    slicer.vtkMRMLTransformNode.GetTransformBetweenNodes(source, target, between)
    flip = np.array([-1.0, -1.0, 1.0])
    return np.array([between.TransformPoint(point) for point in points_lps_mm * flip]) * flip
