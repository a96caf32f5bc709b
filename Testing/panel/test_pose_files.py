"""A pose of another program is read from its file, checked, and changes nothing: *Open* beside *Pose to check*."""

import sys

import numpy as np
import pytest
import slicer
import slicer.util
import vtk

from BrainFusionLib import write_transform
from BrainFusionLib.transform import RigidTransform

pytestmark = pytest.mark.filterwarnings("ignore:Setting the shape on a NumPy array:DeprecationWarning")

TRANSFORM = "vtkMRMLLinearTransformNode"
THEIRS = RigidTransform.from_axis_angle((1, -2, 3), 12, (4, -7, 9))


@pytest.fixture
def opened(chosen, monkeypatch):
    """Open a file by the button; None for a dialog that was cancelled."""

    def open_file(path):
        dialogs = sys.modules["qt"].QFileDialog
        monkeypatch.setattr(dialogs, "getOpenFileName", lambda *words: "" if path is None else str(path))
        chosen.ui.openPoseButton.click()
        return chosen.ui.poseSelector.currentNode()

    return open_file


def written(folder, form, nodes):
    """The pose in a file, between the frames of the volumes' files."""
    departing = sys.modules["BrainFusionSlicer.departing"]
    path = folder / {"itk": "theirs.tfm", "lta": "theirs.lta", "matrix": "theirs.txt"}[form]
    write_transform(THEIRS, path, form, ct=departing.own_grid(nodes[0]), mri=departing.own_grid(nodes[1]))
    return path


@pytest.mark.parametrize("form", ["itk", "lta", "matrix"])
@pytest.mark.parametrize("registered", [False, True])
def test_a_pose_in_a_file_is_checked_as_it_stands_and_moves_nothing(
    chosen, nodes, runner, opened, tmp_path, form, registered
):
    """Also where the user has put both under turned transforms since, and where something was registered."""
    path = written(tmp_path, form, nodes)
    above = []
    for node, degrees in zip(nodes, (20, 35), strict=True):
        moved = vtk.vtkTransform()
        moved.Translate(11, 0, 0)
        moved.RotateZ(degrees)
        above.append(slicer.mrmlScene.AddNewNodeByClass(TRANSFORM, "above"))
        above[-1].SetMatrixTransformToParent(moved.GetMatrix())
        node.SetAndObserveTransformNodeID(above[-1].GetID())
    if registered:
        chosen.ui.registerButton.click()
    parents = [node.GetParentTransformNode() for node in nodes]
    node = opened(path)
    assert node.GetName() == path.name
    assert "click Check to judge it" in chosen.ui.statusLabel.text
    chosen.ui.checkButton.click()
    flip = np.diag([-1.0, -1.0, 1.0, 1.0])
    ct, mri = (flip @ slicer.util.arrayFromTransformMatrix(one) @ flip for one in above)
    expected = ct @ THEIRS.moving_from_fixed_lps @ np.linalg.inv(mri)
    np.testing.assert_allclose(runner.requests[-1].given.moving_from_fixed_lps, expected, atol=1e-6)
    assert "✔" in chosen.ui.poseVerdictLabel.text
    assert [one.GetParentTransformNode() for one in nodes] == parents
    start = chosen.ui.startTransformSelector
    start.setCurrentNode(node)
    assert start.currentNode() == node, "it is not offered as a start"


def test_a_file_that_cannot_be_read_says_why_and_adds_nothing(chosen, opened, tmp_path):
    before = slicer.mrmlScene.GetNumberOfNodes()
    wrong = tmp_path / "wrong.tfm"
    wrong.write_text("no transform")
    matrix = tmp_path / "matrix.txt"
    matrix.write_text("1 0 0 2\n0 1 0 0\n0 0 1 0\n0 0 0 1\n")
    for path, words in ((wrong, "is not a transform file"), (matrix, "Load the file with Add Data"), (None, "")):
        assert opened(path) is None
        assert words in chosen.ui.statusLabel.text
    assert slicer.mrmlScene.GetNumberOfNodes() == before
