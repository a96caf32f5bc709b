"""What the parts of the self-test share."""

from __future__ import annotations

from functools import lru_cache

import numpy as np
import slicer
import slicer.util
import vtk

TIMEOUT_S = 300
NO_WINDOW = "skipped: no main window"
# What a user may have in a scene. Slicer's own nodes of these classes (the planes of the slice views) are hidden.
USERS_CLASSES = (
    "Volume",
    "Transform",
    "Model",
    "Segmentation",
    "Markups",
    "Table",
    "Text",
    "Sequence",
    "PlotChart",
    "SceneView",
)


def contentOf(node):
    """Return copies of a volume node's voxels and of its own RAS-from-IJK matrix."""
    matrix = vtk.vtkMatrix4x4()
    node.GetIJKToRASMatrix(matrix)
    return slicer.util.arrayFromVolume(node).copy(), slicer.util.arrayFromVTKMatrix(matrix)


def usersNodes():
    """Return the nodes of the scene that may be a user's."""
    found = [node for name in USERS_CLASSES for node in slicer.util.getNodesByClass(f"vtkMRML{name}Node")]
    return [node for node in found if not node.GetHideFromEditors()]


def idsOfUsers():
    """Return the ids of the nodes that may be a user's; Slicer adds others of its own at any time."""
    return {node.GetID() for node in usersNodes()}


def refusal(users):
    """Say why the self-test does not run."""
    names = ", ".join(node.GetName() for node in users[:3]) + (", …" if len(users) > 3 else "")
    return f"The self-test needs an empty scene, and this one holds {names}. Save it and close it, then test again."


def errorOf(kind, call):
    """Return the error of a kind that a call ends with, or None."""
    try:
        call()
    except kind as error:
        return error
    return None


def chooseIn(box, words):
    """Choose what is called so in a box."""
    index = box.findText(words)
    assert index >= 0, f"{words} is not offered"
    box.setCurrentIndex(index)


def addUsersVolume():
    """Return a volume that is not the module's."""
    node = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLScalarVolumeNode", "user FLAIR")
    slicer.util.updateVolumeFromArray(node, np.full((3, 4, 5), 7, np.int16))
    return node


def isUntouched(volume):
    """Say whether the volume of `addUsersVolume` holds what it did."""
    return np.array_equal(slicer.util.arrayFromVolume(volume), np.full((3, 4, 5), 7))


def moveBy(transform, mm):
    """Shift a transform to the right, as by hand in the Transforms module."""
    matrix = slicer.util.arrayFromTransformMatrix(transform)
    matrix[0, 3] += mm
    slicer.util.updateTransformMatrixFromArray(transform, matrix)


def displayable():
    """Return the ids of all volumes and transforms in the scene."""
    nodes = [
        node for kind in ("vtkMRMLVolumeNode", "vtkMRMLTransformNode") for node in slicer.util.getNodesByClass(kind)
    ]
    return sorted(node.GetID() for node in nodes)


@lru_cache(maxsize=1)
def phantomPair():
    """Return a CT and an MRI of one phantom, with the true transform; made once, it takes seconds."""
    from BrainFusionLib.phantom import make_pair

    return make_pair(spacing_mm=4.0, rotation_deg=12.0, translation_mm=15.0)
