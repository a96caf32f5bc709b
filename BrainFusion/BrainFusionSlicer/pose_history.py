"""The poses that a CT had under the transform of its result, so that Undo can step back through them.

They are kept on the transform, newest last, and so are saved with the scene. Ahead of all of them is the pose without a
registration (`registered_ct.leave_unregistered`).
"""

# No `from __future__ import annotations`: see `jobs`.

import json
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import slicer
import slicer.util
from slicer.i18n import tr as _

from BrainFusionLib.geometry import FloatArray
from BrainFusionSlicer import currency, registered_ct

HISTORY_ATTRIBUTE = "BrainFusion.EarlierPoses"
# What may have replaced a pose.
FUSION, REGISTRATION, REFINEMENT, ADJUSTMENT = "fusion", "registration", "refinement", "adjustment"
MOST_STEPS = 50


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


def entry_of(transform: slicer.vtkMRMLLinearTransformNode) -> dict:
    """Return the pose that a transform gives, and the verdict that is kept on it."""
    matrix = slicer.util.arrayFromTransformMatrix(transform)
    return {
        "matrix": [float(value) for value in matrix.ravel()],
        "verdict": transform.GetAttribute(currency.VERDICT_ATTRIBUTE),
    }


def push(transform: slicer.vtkMRMLLinearTransformNode, entry: dict, what: str) -> bool:
    """Note a pose that something has replaced; say whether it was another one."""
    if np.array_equal(_matrix_of(entry), slicer.util.arrayFromTransformMatrix(transform)):
        return False
    steps = [*_steps(transform), {**entry, "what": what}]
    transform.SetAttribute(HISTORY_ATTRIBUTE, json.dumps(steps[-MOST_STEPS:]))
    return True


def last_step(ct: slicer.vtkMRMLScalarVolumeNode | None) -> str | None:
    """Return what the next `step_back` takes back, in words, or None if there is nothing."""
    transform = None if ct is None else registered_ct.result_transform_of(ct)
    steps = [] if transform is None else _steps(transform)
    if not steps:
        return None
    names = {
        FUSION: _("the last fusion"),
        REGISTRATION: _("the registration"),
        REFINEMENT: _("the refinement"),
        ADJUSTMENT: _("the adjustment by hand"),
    }
    return names.get(steps[-1]["what"], steps[-1]["what"])


def step_back(ct: slicer.vtkMRMLScalarVolumeNode) -> str | None:
    """Give a CT the pose that it had before; return what was taken back, in words, or None if there was nothing."""
    words = last_step(ct)
    if words is None:
        return None
    transform = registered_ct.result_transform_of(ct)
    *steps, entry = _steps(transform)
    with slicer.util.NodeModify(transform):
        transform.SetAttribute(HISTORY_ATTRIBUTE, json.dumps(steps) if steps else None)
        transform.SetAttribute(currency.VERDICT_ATTRIBUTE, entry.get("verdict"))
        slicer.util.updateTransformMatrixFromArray(transform, _matrix_of(entry))
    return words


def _matrix_of(entry: dict) -> FloatArray:
    return np.array(entry["matrix"], dtype=np.float64).reshape(4, 4)


def _steps(transform: slicer.vtkMRMLLinearTransformNode) -> list[dict]:
    """Return the notes; none of them if a scene brought something else."""
    try:
        steps = json.loads(transform.GetAttribute(HISTORY_ATTRIBUTE) or "[]")
        return [entry for entry in steps if _matrix_of(entry).shape == (4, 4) and isinstance(entry["what"], str)]
    except (ValueError, TypeError, LookupError):
        return []
