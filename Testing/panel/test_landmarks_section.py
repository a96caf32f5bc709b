"""The section "Landmarks": real selectors and buttons on real markups nodes; Slicer's place mode is played."""

import sys

import numpy as np
import pytest
import slicer
import slicer.util
import vtk
from place_mode import PlaceMode, add_unplaced
from window import wait

from BrainFusionLib.errors import GeometryError, SettingsError

pytestmark = pytest.mark.filterwarnings("ignore:Setting the shape on a NumPy array:DeprecationWarning")

POINTS = "vtkMRMLMarkupsFiducialNode"
FLIP = np.array([-1.0, -1.0, 1.0])
# Points of the brain on the MRI, LPS mm.
ON_MRI = np.array([[10.0, 20.0, 30.0], [-40.0, 5.0, 12.0], [3.0, -50.0, 41.0], [22.0, 31.0, -35.0]])


@pytest.fixture
def lists(phantom, module):
    """The points in two lists, the CT's in the CT's own space; the third is 3 mm off on the MRI."""
    on_ct = phantom.transform.apply(ON_MRI)
    on_mri = np.add(ON_MRI, [[0, 0, 0], [0, 0, 0], [0, 0, 3], [0, 0, 0]])
    return [point_list("on CT", on_ct * FLIP), point_list("on MRI", on_mri * FLIP)]


@pytest.fixture
def measured(chosen, lists):
    choose(chosen, lists)
    return chosen


def point_list(name, positions_ras):
    node = slicer.mrmlScene.AddNewNodeByClass(POINTS, name)
    for n, position in enumerate(positions_ras):
        node.AddControlPoint(vtk.vtkVector3d(*position), f"P{n + 1}")
    return node


def choose(panel, lists):
    panel.ui.ctPointsSelector.setCurrentNode(lists[0])
    panel.ui.mriPointsSelector.setCurrentNode(lists[1])


def positions(points):
    return np.array([points.GetNthControlPointPosition(n) for n in range(points.GetNumberOfControlPoints())])


def rows(panel):
    table = panel.ui.landmarksTable
    return [tuple(table.item(row, column).text() for column in (0, 1)) for row in range(table.rowCount)]


def turned_transform(name, mm, degrees):
    node = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLLinearTransformNode", name)
    moved = vtk.vtkTransform()
    moved.Translate(mm, 0, 0)
    moved.RotateZ(degrees)
    node.SetMatrixTransformToParent(moved.GetMatrix())
    return node


def test_residuals_follow_the_pose_and_the_worst_comes_first(measured, nodes, lists):
    ui = measured.ui
    assert float(rows(measured)[0][1].split()[0]) > 5, "not registered yet"
    ui.registerButton.click()
    assert lists[0].GetParentTransformNode() == nodes[0].GetParentTransformNode(), "the CT's points were left behind"
    assert rows(measured)[0] == ("P3", "3 mm")
    assert "4 points in the pose shown: median" in ui.landmarksLabel.text
    assert "worst 3 mm (P3)" in ui.landmarksLabel.text
    assert "says little about the error elsewhere" in ui.landmarksCautionLabel.text
    slicer.util.updateTransformMatrixFromArray(
        nodes[0].GetParentTransformNode(),
        np.array([[1, 0, 0, 7], [0, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1.0]])
        @ slicer.util.arrayFromTransformMatrix(nodes[0].GetParentTransformNode()),
    )
    assert rows(measured)[0][1] == "7.6 mm"
    ui.undoButton.click()
    assert lists[0].GetParentTransformNode() is None


def test_points_that_the_verdict_does_not_count_are_said_to_need_a_check(chosen, lists):
    ui, words = chosen.ui, "The verdict does not count these points as they are now: click Check."
    choose(chosen, lists)
    assert words not in ui.landmarksLabel.text, "there is no verdict"
    choose(chosen, [None, None])
    ui.fuseButton.click()
    choose(chosen, lists)
    ui.attachOwnButton.click()
    assert ui.landmarksLabel.text.endswith(words)
    ui.checkButton.click()
    assert words not in ui.landmarksLabel.text
    lists[1].SetNthControlPointPosition(0, 10, 20, 60)
    assert ui.landmarksLabel.text.endswith(words)


def test_a_report_says_where_it_does_not_count_the_landmarks_as_they_are_now(
    chosen, nodes, lists, runner, module, monkeypatch, tmp_path
):
    ui, page = chosen.ui, tmp_path / "report.html"
    monkeypatch.setattr(sys.modules["qt"].QFileDialog, "getSaveFileName", lambda *words: str(page))

    def saved():
        ui.saveReportButton.click()
        wait(chosen, lambda: not chosen.logic.running)
        assert ui.statusLabel.text.startswith("The report was saved: "), ui.statusLabel.text
        return page.read_text(encoding="utf-8")

    runner.export = sys.modules["BrainFusionSlicer.runner"].InProcessRunner().export
    ui.fuseButton.click()
    choose(chosen, lists)
    ui.attachOwnButton.click()
    ui.checkButton.click()
    words = "4 landmarks that were set after the fusion are not counted"
    assert words in saved()
    assert words in ui.statusLabel.text
    ui.fuseButton.click()
    counted = saved()
    assert "4 landmarks: median residual" in counted
    assert "not counted" not in counted
    above = turned_transform("ACPC", 11, 20)  # all move together: the same landmarks
    for node in (nodes[1], lists[1], nodes[0].GetParentTransformNode(), ui.fusedSelector.currentNode()):
        node.SetAndObserveTransformNodeID(above.GetID())
    words = "the landmarks are those of the fusion; they were changed since"
    assert words not in saved()
    for points in lists:  # each residual stays
        points.RemoveNthControlPoint(0)
    assert words in saved()
    assert "they were changed since" in ui.statusLabel.text


def test_landmarks_reach_the_library_in_the_frames_of_the_volumes(measured, nodes, lists, runner, phantom):
    """CT and MRI under turned transforms of the user's, their points with them; then registered, adjusted, refined."""
    for node, points, degrees in zip(nodes, lists, (20, 35), strict=True):
        above = turned_transform("above " + node.GetName(), 11, degrees)
        for moved in (node, points):
            moved.SetAndObserveTransformNodeID(above.GetID())
    own = [positions(points) for points in lists]
    above = [slicer.util.arrayFromTransformMatrix(node.GetParentTransformNode()) for node in nodes]
    expected = [(p @ m[:3, :3].T + m[:3, 3]) * FLIP for p, m in zip(own, above, strict=True)]
    ui = measured.ui
    for press in (ui.registerButton, ui.refineButton, ui.checkButton, ui.fuseButton):
        press.click()
        sent = runner.requests[-1].landmarks
        assert sent.names == ("P1", "P2", "P3", "P4")
        np.testing.assert_allclose(sent.ct_lps_mm, expected[0], atol=1e-9)
        np.testing.assert_allclose(sent.mri_lps_mm, expected[1], atol=1e-9)
    outcome = measured.lastOutcome.result.landmarks
    assert "4 landmarks: median" in ui.verdictFindingsLabel.text
    shown = dict(rows(measured))
    assert float(shown["P1"].split()[0]) == pytest.approx(outcome.points[0].residual_mm, abs=0.06)
    for points, before in zip(lists, own, strict=True):
        np.testing.assert_array_equal(positions(points), before)


def test_landmarks_do_not_move_the_pose_unless_they_are_the_start(measured, nodes, runner, phantom):
    ui = measured.ui
    ui.registerButton.click()
    assert runner.requests[-1].start is None
    box = ui.startComboBox
    box.setCurrentIndex(box.findText("Start from landmarks"))
    ui.registerButton.click()
    start = runner.requests[-1].start
    off = np.linalg.norm(start.apply(ON_MRI) - phantom.transform.apply(ON_MRI), axis=1)
    assert 0 < off.max() < 3
    assert ui.fuseButton.isEnabled()


@pytest.mark.parametrize(
    ("left", "words"), [(0, "Choose a point list"), (1, "At least 2 landmarks"), (2, "at least 3 landmarks")]
)
def test_too_few_points_for_a_start_are_said(chosen, lists, left, words, runner):
    if left:
        choose(chosen, lists)
        while lists[1].GetNumberOfControlPoints() > left:
            lists[1].RemoveNthControlPoint(lists[1].GetNumberOfControlPoints() - 1)
    box = chosen.ui.startComboBox
    box.setCurrentIndex(box.findText("Start from landmarks"))
    assert not chosen.ui.fuseButton.isEnabled()
    assert not chosen.ui.registerButton.isEnabled()
    assert words in chosen.ui.fuseButton.toolTip


def test_points_that_are_not_placed_or_have_no_partner_are_left_out_and_counted(measured, lists):
    lists[0].UnsetNthControlPointPosition(1)
    lists[1].SetNthControlPointLabel(3, "another")
    assert {name for name, _ in rows(measured)} == {"P1", "P3"}
    assert "without a position or a partner: 2" in measured.ui.landmarksLabel.text


def test_lists_that_cannot_be_paired_are_said(measured, lists, runner):
    for n in range(4):
        lists[1].SetNthControlPointLabel(n, f"Q{n}")
    assert rows(measured), "without labels in common the order counts"
    lists[1].RemoveNthControlPoint(0)
    assert rows(measured) == []
    assert "cannot be paired: on CT has 4 and on MRI has 3" in measured.ui.landmarksLabel.text
    measured.ui.registerButton.click()
    assert runner.requests[-1].landmarks is None


def test_one_list_for_both_is_said(chosen, lists):
    choose(chosen, [lists[0], lists[0]])
    assert "two different lists" in chosen.ui.landmarksLabel.text
    chosen.ui.registerButton.click()
    assert lists[0].GetParentTransformNode() is None, "the points were moved"


@pytest.mark.parametrize("button", ["attachShownButton", "attachOwnButton"])
def test_points_beside_a_registered_ct_are_not_read_until_it_is_said_where_they_were_placed(
    chosen, nodes, lists, runner, module, phantom, button
):
    ct, ui = nodes[0], chosen.ui
    ui.registerButton.click()
    transform = ct.GetParentTransformNode()
    if button == "attachShownButton":  # placed on the CT as it is shown now: where the MRI's points are
        for n, point in enumerate(ON_MRI * FLIP):
            lists[0].SetNthControlPointPosition(n, *point)
    own, choice = positions(lists[0]), (lists[0], lists[1])
    choose(chosen, choice)
    assert "would not move with it" in ui.landmarksLabel.text
    assert rows(chosen) == []
    ui.checkButton.click()
    assert runner.requests[-1].landmarks is None
    np.testing.assert_array_equal(positions(lists[0]), own)
    assert lists[0].GetParentTransformNode() is None
    getattr(ui, button).click()
    assert lists[0].GetParentTransformNode() == transform
    assert [name for name, residual in rows(chosen) if residual != "0 mm" and "less" not in residual] == ["P3"]
    assert not ui.attachShownButton.isVisible()
    ui.undoButton.click()
    assert lists[0].GetParentTransformNode() is None
    np.testing.assert_allclose(positions(lists[0]), phantom.transform.apply(ON_MRI) * FLIP, atol=1e-9)


def test_a_click_on_a_row_shows_its_point(measured, lists):
    slice_node = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLSliceNode")
    slice_node.SetLayoutName("Red")
    row = [name for name, _ in rows(measured)].index("P4")
    measured.ui.landmarksTable.cellClicked.emit(row, 0)
    assert slice_node.GetSliceToRAS().GetElement(2, 3) == pytest.approx(-35.0)


def test_each_pair_has_its_own_points_and_a_copy_of_the_scene_keeps_them(measured, nodes, lists, tmp_path):
    other = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLScalarVolumeNode", "other MRI")
    ui = measured.ui
    ui.mriSelector.setCurrentNode(other)
    assert ui.mriPointsSelector.currentNode() is None
    ui.mriSelector.setCurrentNode(nodes[1])
    assert ui.mriPointsSelector.currentNode() == lists[1]
    path = str(tmp_path / "scene.mrb")
    assert slicer.mrmlScene.WriteToMRB(path)
    slicer.mrmlScene.Clear()
    assert ui.mriPointsSelector.currentNode() is None
    assert slicer.mrmlScene.ReadFromMRB(path, True)
    assert ui.mriPointsSelector.currentNode().GetName() == "on MRI"
    assert len(rows(measured)) == 4, measured.ui.landmarksLabel.text


def test_a_deleted_list_leaves_none(measured, lists):
    slicer.mrmlScene.AddNewNodeByClass(POINTS, "another")
    slicer.mrmlScene.RemoveNode(lists[0])
    assert measured.ui.ctPointsSelector.currentNode() is None, "the selector moved to a neighbour"
    assert rows(measured) == []


def test_scripts_are_told_why_landmarks_cannot_be_used(panel, nodes, lists, runner):
    lists[0].SetAndObserveTransformNodeID(turned_transform("elsewhere", 5, 5).GetID())
    with pytest.raises(GeometryError, match="not under the transform"):
        panel.logic.startFusion(*nodes, landmarks=lists)
    with pytest.raises(SettingsError, match="needs landmarks"):
        panel.logic.startFusion(*nodes, startFromLandmarks=True)


# ---- placing --------------------------------------------------------------------------------------------------------


@pytest.fixture
def view(module):
    """A slice view, which places points."""
    made = PlaceMode(slicer.mrmlScene)
    yield made
    made.close()


@pytest.fixture
def application_nodes(module):
    """What Slicer's application has in every scene: the modes of the mouse, a slice view."""
    kinds = ("vtkMRMLInteractionNode", "vtkMRMLSelectionNode")
    made = [slicer.mrmlScene.GetNodeByID(f"{kind}Singleton") for kind in kinds]
    made.append(slicer.mrmlScene.AddNewNodeByClass("vtkMRMLSliceCompositeNode"))
    made[-1].SetLayoutName("Red")
    made.append(slicer.mrmlScene.AddNewNodeByClass("vtkMRMLSliceNode"))
    made[-1].SetLayoutName("Red")
    return made


def click(view, position, application):
    """Click in a slice view, and let what follows happen."""
    points, n = view.click(position)
    for _ in range(3):
        application.processEvents()
    return points, n


def test_points_are_placed_by_turns_and_the_views_jump_to_the_partner(
    chosen, nodes, application_nodes, view, application, layers
):
    interaction, _selection, composite, slice_node = application_nodes
    ct, mri = nodes
    chosen.ui.registerButton.click()
    composite.SetBackgroundVolumeID(ct.GetID())
    composite.SetForegroundVolumeID(mri.GetID())
    composite.SetForegroundOpacity(0.3)
    ui = chosen.ui
    ui.placeButton.click()
    assert "click an anatomical point on MRI" in ui.placeLabel.text
    assert layers[-1]["background"] == mri
    for position in ((10.0, 20.0, 30.0), (-30.0, 5.0, -12.0)):
        on_mri, _n = click(view, position, application)
        assert "click the same point on CT" in ui.placeLabel.text
        assert layers[-1]["background"] == ct
        assert slice_node.GetSliceToRAS().GetElement(2, 3) == pytest.approx(position[2])
        on_ct, n = click(view, np.add(position, (0.5, 0, 0)), application)
        assert on_ct.GetNthControlPointLabel(n) == on_mri.GetNthControlPointLabel(n)
    assert (ui.ctPointsSelector.currentNode(), ui.mriPointsSelector.currentNode()) == (on_ct, on_mri)
    assert on_ct.GetParentTransformNode() == ct.GetParentTransformNode()
    assert [residual for _, residual in rows(chosen)] == ["0.5 mm", "0.5 mm"]
    ui.placeButton.click()
    assert interaction.GetCurrentInteractionMode() == interaction.ViewTransform
    assert (composite.GetBackgroundVolumeID(), composite.GetForegroundVolumeID()) == (ct.GetID(), mri.GetID())
    assert composite.GetForegroundOpacity() == 0.3
    ui.undoButton.click()
    assert on_ct.GetParentTransformNode() is None


def test_a_point_without_a_partner_is_completed_first(chosen, lists, application_nodes, view, application):
    choose(chosen, lists)
    lists[1].SetNthControlPointLabel(3, "PC")
    chosen.ui.placeButton.click()
    assert "click the same point on CT" in chosen.ui.placeLabel.text
    _points, n = click(view, (1.0, 2.0, 3.0), application)
    assert lists[0].GetNthControlPointLabel(n) == "PC"


@pytest.mark.parametrize("what", ["escape", "module", "job", "list", "CT", "scene"])
def test_placing_ends_cleanly(chosen, nodes, lists, application_nodes, application, what, runner):
    interaction, _selection, composite, _slice = application_nodes
    choose(chosen, lists)
    composite.SetBackgroundVolumeID(nodes[1].GetID())
    ui = chosen.ui
    ui.placeButton.click()
    assert interaction.GetCurrentInteractionMode() == interaction.Place
    composite.SetBackgroundVolumeID(nodes[0].GetID())
    if what == "escape":
        interaction.SwitchToViewTransformMode()
    elif what == "module":
        chosen.exit()
    elif what == "job":
        ui.checkButton.click()
    elif what == "scene":
        slicer.mrmlScene.Clear(False)
    else:
        slicer.mrmlScene.RemoveNode({"list": lists[0], "CT": nodes[0]}[what])
    for _ in range(3):
        application.processEvents()
    assert not ui.placeButton.isChecked()
    assert not ui.placeLabel.isVisible()
    if what != "scene":
        assert interaction.GetCurrentInteractionMode() == interaction.ViewTransform
        assert composite.GetBackgroundVolumeID() == nodes[1].GetID()


def test_the_users_list_is_active_again_after_points_were_placed_in_new_lists(chosen, application_nodes):
    """Slicer makes each list that is added the one in which the mouse places points."""
    _interaction, selection, *_views = application_nodes
    own = point_list("own", [(1, 2, 3)])
    assert selection.GetActivePlaceNodeID() == own.GetID()
    chosen.ui.placeButton.click()
    assert selection.GetActivePlaceNodeID() != own.GetID()
    chosen.ui.placeButton.click()
    assert selection.GetActivePlaceNodeID() == own.GetID()
    assert len(slicer.util.getNodesByClass(POINTS)) == 3


def statuses(points):
    return [points.GetNthControlPointPositionStatus(n) for n in range(points.GetNumberOfControlPoints())]


@pytest.mark.parametrize("was_placing", [False, True])
def test_no_point_that_follows_the_mouse_is_left_when_placing_ends(chosen, lists, application_nodes, view, was_placing):
    """Also where the user was placing points of his own before, and resumes that."""
    interaction, selection, *_views = application_nodes
    own = point_list("own", [(1, 2, 3)])
    selection.SetReferenceActivePlaceNodeClassName(POINTS)
    selection.SetReferenceActivePlaceNodeID(own.GetID())
    interaction.SetPlaceModePersistence(int(was_placing))
    interaction.SetCurrentInteractionMode(interaction.Place if was_placing else interaction.ViewTransform)
    if was_placing:
        view.move((5.0, 5.0, 5.0))
    choose(chosen, lists)
    chosen.ui.placeButton.click()
    view.move((10.0, 20.0, 30.0))
    assert lists[1].PositionPreview in statuses(lists[1])
    chosen.ui.placeButton.click()
    assert [set(statuses(points)) for points in (*lists, own)] == [{own.PositionDefined}] * 3
    assert [points.GetNumberOfControlPoints() for points in (*lists, own)] == [4, 4, 1]
    assert (interaction.GetCurrentInteractionMode() == interaction.Place) == was_placing
    if was_placing:
        assert view.click((7.0, 7.0, 7.0))[0] == own


def test_a_point_that_the_user_has_named_and_not_placed_keeps_its_name(
    chosen, lists, application_nodes, view, application
):
    """The place mode fills it before it makes a new one."""
    choose(chosen, lists)
    add_unplaced(lists[0], "PC")
    lists[1].SetNthControlPointLabel(3, "AC")
    chosen.ui.placeButton.click()
    _points, n = click(view, (1.0, 2.0, 3.0), application)
    assert lists[0].GetNthControlPointLabel(n) == "PC"
    _points, n = click(view, (1.0, 2.0, 3.0), application)
    assert lists[0].GetNthControlPointLabel(n) == "AC"


def test_placing_needs_a_pair(panel, nodes):
    assert not panel.ui.placeButton.isEnabled()


def test_the_point_under_the_mouse_is_no_landmark_and_redraws_nothing(measured, lists, monkeypatch):
    """In place mode a point of status PositionPreview follows the mouse, and is sent as modified at every move."""
    words, drawn = measured.ui.landmarksLabel.text, []
    monkeypatch.setattr(measured, "updatePanel", lambda *args: drawn.append(args))
    n = lists[1].AddControlPoint(vtk.vtkVector3d(0, 0, 0), "P5")
    lists[1].SetNthControlPointPosition(n, 1, 2, 3, lists[1].PositionPreview)
    drawn.clear()
    lists[1].SetNthControlPointPosition(n, 4, 5, 6, lists[1].PositionPreview)
    assert not drawn
    monkeypatch.undo()
    measured.updatePanel()
    assert measured.ui.landmarksLabel.text == words
    lists[1].SetNthControlPointPosition(n, 4, 5, 6, lists[1].PositionDefined)
    assert measured.ui.landmarksLabel.text != words
