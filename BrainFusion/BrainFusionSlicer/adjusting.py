"""Adjusting a pose by hand: Slicer's own interaction handles on the transform of a result.

While they are shown, the transform notes how its display node was and which pose it gave, so that both can be put back
or undone whatever ends it: the button, another module, or a scene that was saved meanwhile.
"""

# No `from __future__ import annotations`: see `jobs`.

import json
from dataclasses import dataclass

import numpy as np
import slicer
import slicer.util
import vtk

from BrainFusionLib.case import from_document, to_document
from BrainFusionLib.errors import BrainFusionError
from BrainFusionLib.geometry import FloatArray
from BrainFusionLib.intensity import HEAD_THRESHOLD_HU
from BrainFusionSlicer import ownership, pose_history

ADJUSTING_ATTRIBUTE = "BrainFusion.Adjusting"
# What is shown meanwhile: handles that turn and shift, in slices and in 3D, and none that scale. A field that this
# Slicer does not have is left alone.
SHOWN = {
    "EditorVisibility": True,
    "EditorVisibility3D": True,
    "EditorSliceIntersectionVisibility": True,
    "EditorTranslationEnabled": True,
    "EditorTranslationSliceEnabled": True,
    "EditorRotationEnabled": True,
    "EditorRotationSliceEnabled": True,
    "EditorScalingEnabled": False,
    "EditorScalingSliceEnabled": False,
}
# Every fourth voxel along each axis is enough to find the middle of a head.
STEP = 4


@dataclass(frozen=True)
class Adjustment:
    """How a transform was before its handles were shown.

    before - Its pose.
    centre - Its centre of transformation.
    display - The fields of its display node; None if it had no display node.
    """

    before: pose_history.EarlierPose
    centre: tuple[float, ...]
    display: dict[str, bool] | None


def begin(transform: slicer.vtkMRMLLinearTransformNode, ct: slicer.vtkMRMLScalarVolumeNode) -> None:
    """Show the handles on a result's transform, in the middle of the CT's head, whichever of the pair it moves."""
    if is_on(transform):
        return
    before, centre = pose_history.entry_of(transform), tuple(transform.GetCenterOfTransformation())
    display, fields = transform.GetDisplayNode(), None
    if display is None:
        transform.CreateDefaultDisplayNodes()
        display = transform.GetDisplayNode()
    else:
        fields = {name: bool(getattr(display, f"Get{name}")()) for name in SHOWN if hasattr(display, f"Get{name}")}
    transform.SetAttribute(ADJUSTING_ATTRIBUTE, json.dumps(to_document(Adjustment(before, centre, fields))))
    moved = ownership.moved_of(transform)
    between = vtk.vtkGeneralTransform()
    if moved is not None and moved != ct:  # then the CT's frame is not the one that the transform takes
        slicer.vtkMRMLTransformNode.GetTransformBetweenNodes(ct.GetParentTransformNode(), transform, between)
    transform.SetCenterOfTransformation(*between.TransformPoint(*(float(mm) for mm in head_centre(ct))))
    with slicer.util.NodeModify(display):
        _set(display, SHOWN)


def end(transform: slicer.vtkMRMLLinearTransformNode) -> bool:
    """Hide the handles again; say whether the pose was changed, which `pose_history.step_back` takes back."""
    note = _note(transform)
    transform.RemoveAttribute(ADJUSTING_ATTRIBUTE)
    if note is None:
        return False
    display = transform.GetDisplayNode()
    if display is not None and note.display is None:
        transform.GetScene().RemoveNode(display)
    elif display is not None:
        with slicer.util.NodeModify(display):
            _set(display, note.display)
    transform.SetCenterOfTransformation(*note.centre)
    return pose_history.push(transform, note.before, pose_history.ADJUSTMENT)


def is_on(transform: slicer.vtkMRMLNode | None) -> bool:
    """Say whether the handles of a transform are shown by `begin`."""
    return transform is not None and bool(transform.GetAttribute(ADJUSTING_ATTRIBUTE))


def moved(transform: slicer.vtkMRMLLinearTransformNode) -> tuple[float, float]:
    """Return how far the pose is from that at `begin`: at the middle of the head, mm, and as an angle, degrees."""
    note = _note(transform)
    if note is None or not transform.IsLinear():
        return 0.0, 0.0
    before = note.before.matrix
    now = slicer.util.arrayFromTransformMatrix(transform)
    centre = np.array([*transform.GetCenterOfTransformation(), 1.0])
    turn = now[:3, :3] @ np.linalg.inv(before[:3, :3])
    angle = np.degrees(np.arccos(np.clip((np.trace(turn) - 1) / 2, -1.0, 1.0)))
    return float(np.linalg.norm((now @ centre - before @ centre)[:3])), float(angle)


def head_centre(ct: slicer.vtkMRMLScalarVolumeNode) -> FloatArray:
    """Return the middle of a CT's head in its own frame, RAS mm: the median of its tissue, table or not."""
    voxels = slicer.util.arrayFromVolume(ct)
    tissue = np.argwhere(voxels[::STEP, ::STEP, ::STEP] > HEAD_THRESHOLD_HU)
    middle = STEP * np.median(tissue, axis=0) if len(tissue) else (np.array(voxels.shape) - 1) / 2
    ras_from_ijk = vtk.vtkMatrix4x4()
    ct.GetIJKToRASMatrix(ras_from_ijk)
    centre: FloatArray = (slicer.util.arrayFromVTKMatrix(ras_from_ijk) @ (*middle[::-1], 1.0))[:3]
    return centre


def _set(display, values: dict[str, bool]) -> None:
    for name, value in values.items():
        if name in SHOWN and hasattr(display, f"Set{name}"):
            getattr(display, f"Set{name}")(value)


def _note(transform: slicer.vtkMRMLLinearTransformNode) -> Adjustment | None:
    """Return what `begin` noted, or None if a scene brought something else."""
    try:
        note = from_document(json.loads(transform.GetAttribute(ADJUSTING_ATTRIBUTE) or "null"), Adjustment)
        return note if len(note.centre) == 3 and np.isfinite(note.before.matrix).all() else None
    except (ValueError, BrainFusionError):
        return None
