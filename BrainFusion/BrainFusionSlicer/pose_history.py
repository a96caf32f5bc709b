"""The poses that a CT had under the transform of its result, so that Undo can step back through them.

They are kept on the transform, newest last, and so are saved with the scene. Ahead of all of them is the pose without a
registration (`registered_ct.leave_unregistered`).
"""

# No `from __future__ import annotations`: see `jobs`.

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace

import numpy as np
import slicer
import slicer.util
from slicer.i18n import tr as _

from BrainFusionLib.case import from_document, to_document
from BrainFusionLib.errors import BrainFusionError
from BrainFusionLib.geometry import FloatArray
from BrainFusionSlicer import currency, registered_ct

HISTORY_ATTRIBUTE = "BrainFusion.EarlierPoses"
# What may have replaced a pose.
FUSION, REGISTRATION, REFINEMENT, ADJUSTMENT = "fusion", "registration", "refinement", "adjustment"
MOST_STEPS = 50


@dataclass(frozen=True)
class EarlierPose:
    """A pose that something has replaced.

    matrix_to_parent - The 4x4 matrix of the transform, RAS mm, row by row.
    verdict - What is kept on the transform about this pose, or None.
    what - What has replaced it.
    """

    matrix_to_parent: tuple[float, ...]
    verdict: str | None
    what: str = ""

    @property
    def matrix(self) -> FloatArray:
        """The matrix, 4x4."""
        return np.array(self.matrix_to_parent, dtype=np.float64).reshape(4, 4)


@dataclass(frozen=True)
class EarlierPoses:
    """All poses that a CT had under one transform, the newest last."""

    poses: tuple[EarlierPose, ...] = ()


@contextmanager
def step(ct: slicer.vtkMRMLScalarVolumeNode, what: str) -> Iterator[None]:
    """Note the pose that a CT has when this is entered, if it has another one under the same transform at the end."""
    before = registered_ct.result_transform_of(ct)
    entry = None if before is None else entry_of(before)
    parent = None if before is None else before.GetParentTransformNode()
    yield
    after = registered_ct.result_transform_of(ct)
    if after is None:
        return
    if entry is not None and after == before and after.GetParentTransformNode() == parent:
        push(after, entry, what)
    else:
        after.RemoveAttribute(HISTORY_ATTRIBUTE)


def entry_of(transform: slicer.vtkMRMLLinearTransformNode) -> EarlierPose:
    """Return the pose that a transform gives, and the verdict that is kept on it."""
    matrix = slicer.util.arrayFromTransformMatrix(transform)
    return EarlierPose(tuple(float(v) for v in matrix.ravel()), transform.GetAttribute(currency.VERDICT_ATTRIBUTE))


def push(transform: slicer.vtkMRMLLinearTransformNode, before: EarlierPose, what: str) -> bool:
    """Note a pose that something has replaced; say whether it was another one."""
    if not transform.IsLinear() or np.array_equal(before.matrix, slicer.util.arrayFromTransformMatrix(transform)):
        return False
    _keep(transform, (*_poses(transform), replace(before, what=what)))
    return True


def last_step(ct: slicer.vtkMRMLScalarVolumeNode | None) -> str | None:
    """Return what the next `step_back` takes back, in words, or None if there is nothing."""
    transform = None if ct is None else registered_ct.result_transform_of(ct)
    poses = () if transform is None else _poses(transform)
    if not poses:
        return None
    names = {
        FUSION: _("the last fusion"),
        REGISTRATION: _("the registration"),
        REFINEMENT: _("the refinement"),
        ADJUSTMENT: _("the adjustment by hand"),
    }
    return names.get(poses[-1].what, poses[-1].what)


def step_back(ct: slicer.vtkMRMLScalarVolumeNode) -> str | None:
    """Give a CT the pose that it had before; return what was taken back, in words, or None if there was nothing."""
    words = last_step(ct)
    if words is None:
        return None
    transform = registered_ct.result_transform_of(ct)
    *poses, before = _poses(transform)
    with slicer.util.NodeModify(transform):
        _keep(transform, tuple(poses))
        transform.SetAttribute(currency.VERDICT_ATTRIBUTE, before.verdict)
        slicer.util.updateTransformMatrixFromArray(transform, before.matrix)
    return words


def _keep(transform: slicer.vtkMRMLLinearTransformNode, poses: tuple[EarlierPose, ...]) -> None:
    kept = EarlierPoses(poses[-MOST_STEPS:])
    transform.SetAttribute(HISTORY_ATTRIBUTE, json.dumps(to_document(kept)) if poses else None)


def _poses(transform: slicer.vtkMRMLLinearTransformNode) -> tuple[EarlierPose, ...]:
    """Return the notes; none of them if a scene brought something else."""
    try:
        poses = from_document(json.loads(transform.GetAttribute(HISTORY_ATTRIBUTE) or "null"), EarlierPoses).poses
        return poses if all(np.isfinite(pose.matrix).all() for pose in poses) else ()
    except (ValueError, BrainFusionError):
        return ()
