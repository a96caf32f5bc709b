"""The panel: real .ui, real buttons, a real worker process, real MRML nodes."""

import sys
from dataclasses import replace

import numpy as np
import pytest
import slicer
import slicer.util
import vtk
from PySide6 import QtCore
from window import wait, walk_self_test

from BrainFusionLib.errors import Remedy, SettingsError
from BrainFusionLib.fusion.methods import METHODS
from BrainFusionLib.settings import RegistrationSettings, SearchPass, Settings
from BrainFusionLib.transform import RigidTransform

pytestmark = pytest.mark.filterwarnings("ignore:Setting the shape on a NumPy array:DeprecationWarning")


@pytest.fixture
def in_worker(panel, nodes):
    """The panel with the pair chosen by its own selectors."""
    panel.ui.ctSelector.setCurrentNode(nodes[0])
    panel.ui.mriSelector.setCurrentNode(nodes[1])
    return panel


@pytest.fixture
def chosen(in_worker, monkeypatch):
    """The same, fusing quickly, at once and in this process: a worker takes seconds to start."""
    quick = RegistrationSettings(passes=(SearchPass(40, 8),), samples=10_000)
    monkeypatch.setattr(RegistrationSettings, "preset", classmethod(lambda cls, name, **more: quick))
    in_worker.logic._runner = sys.modules["BrainFusionSlicer.runner"].InProcessRunner()
    return in_worker


def fuse(panel, application):
    ended = panel.lastOutcome
    assert panel.ui.fuseButton.isEnabled(), panel.ui.statusLabel.text
    panel.ui.fuseButton.click()
    wait(panel, lambda: not panel.logic.running)
    assert panel.lastOutcome is not ended, panel.ui.statusLabel.text


def choose(box, name):
    """Choose what is called so in a box."""
    box.setCurrentIndex(next(n for n in range(box.count) if box.itemText(n) == name))


def skip(panel):
    """Choose to skip the registration, which is quick."""
    choose(panel.ui.startComboBox, "Skip")


def words(panel):
    """All that the verdict's card says; empty if it is not there."""
    ui = panel.ui
    labels = (ui.verdictLabel, ui.verdictErrorLabel, ui.verdictFindingsLabel)
    return "\n".join(label.text for label in labels if label.isVisible() and label.text)


def test_an_empty_panel_shows_what_is_missing(panel):
    assert panel.ui.statusLabel.text == "Choose a CT."
    assert not panel.ui.fuseButton.isEnabled()
    assert panel.ui.fuseButton.toolTip == "Choose a CT (Ctrl+Return)"
    assert not panel.ui.reviewFrame.isVisible()
    assert not panel.ui.verdictFrame.isVisible()
    assert not panel.ui.progressBar.isVisible()


def test_missing_and_equal_inputs_are_named(panel, nodes):
    panel.ui.ctSelector.setCurrentNode(nodes[0])
    assert panel.ui.statusLabel.text == "Choose an MRI."
    panel.ui.mriSelector.setCurrentNode(nodes[0])
    assert "two different volumes" in panel.ui.fuseButton.toolTip
    panel.ui.mriSelector.setCurrentNode(nodes[1])
    assert panel.ui.fuseButton.isEnabled()
    panel.ui.fusedSelector.setCurrentNode(nodes[1])
    assert "must not be one of the inputs" in panel.ui.fuseButton.toolTip
    assert not panel.ui.fuseButton.isEnabled()


def test_a_swapped_pair_is_corrected_by_one_click(panel, nodes):
    panel.ui.ctSelector.setCurrentNode(nodes[1])
    panel.ui.mriSelector.setCurrentNode(nodes[0])
    assert "seem to be swapped" in panel.ui.warningLabel.text
    assert panel.ui.swapButton.isVisible()
    panel.ui.swapButton.click()
    assert panel.ui.ctSelector.currentNode() == nodes[0]
    assert panel.ui.mriSelector.currentNode() == nodes[1]
    assert not panel.ui.warningLabel.isVisible()
    assert not panel.ui.swapButton.isVisible()


def test_fuse_runs_in_the_worker_and_shows_the_verdict(in_worker, nodes, application, layers, phantom, module):
    ct, mri = nodes
    in_worker.ui.fuseButton.click()
    assert in_worker.ui.fuseButton.text == "Cancel"
    assert in_worker.ui.progressBar.isVisible()
    assert not in_worker.ui.inputsFrame.isEnabled()
    values, heard = [], set()

    def ended():
        values.append(in_worker.ui.progressBar.value)
        heard.add(in_worker.ui.statusLabel.text.partition(":")[0])
        return not in_worker.logic.running

    wait(in_worker, ended)
    assert values == sorted(values), "the bar went back"
    assert {"Preparing", "Registering"} <= heard
    fused = in_worker.ui.fusedSelector.currentNode()
    assert fused.GetName() == "MRI fused with CT"
    assert in_worker.ui.transformSelector.currentNode() == ct.GetParentTransformNode()
    assert in_worker.ui.statusLabel.text.startswith("Fused in ")
    verdict = words(in_worker)
    judged = in_worker.lastOutcome.result.verdict
    assert judged.sentence in in_worker.ui.verdictLabel.text
    assert all(reason[1:] in verdict for reason in judged.reasons)
    assert (judged.expected_error or "Expected error") in verdict or judged.colour == "red"
    assert "The CT was " in verdict
    assert layers[-1] == {"background": mri, "foreground": fused, "foregroundOpacity": 1.0}
    assert in_worker.ui.fuseButton.text == "Fuse"
    assert in_worker.ui.reviewFrame.isVisible()
    off = module.bridge.mri_from_ct_ras(phantom.transform) - slicer.util.arrayFromTransformMatrix(
        ct.GetParentTransformNode()
    )
    assert np.abs(off[:3, 3]).max() < 2


def test_cancel_changes_nothing(in_worker, nodes, application):
    in_worker.ui.fuseButton.click()
    wait(in_worker, lambda: "Registering" in in_worker.ui.statusLabel.text)
    in_worker.ui.fuseButton.click()
    assert not in_worker.logic.running
    assert "Cancelled" in in_worker.ui.statusLabel.text
    assert in_worker.ui.fuseButton.text == "Fuse"
    assert in_worker.ui.fuseButton.isEnabled()
    assert not in_worker.ui.progressBar.isVisible()
    assert nodes[0].GetParentTransformNode() is None
    assert slicer.mrmlScene.GetNumberOfNodesByClass("vtkMRMLScalarVolumeNode") == 2


def test_skipping_the_registration_is_said_and_moves_nothing(chosen, nodes, application):
    skip(chosen)
    chosen.ui.resampledSelector.activateExtraItem("CREATE")
    fuse(chosen, application)
    assert not chosen.ui.undoButton.isVisible()
    assert "registration was skipped" in words(chosen)
    assert slicer.util.arrayFromVolume(chosen.ui.resampledSelector.currentNode()).max() > 500


def test_the_review_shows_one_view_at_a_time(registered, nodes, layers):
    ui, mri = registered.ui, nodes[1]
    fused = ui.fusedSelector.currentNode()
    buttons = [ui.fusedCheckBox, ui.overlayButton, ui.outlineButton, ui.checkerboardButton, ui.showUnregisteredButton]
    assert layers[-1] == {"background": mri, "foreground": fused, "foregroundOpacity": 1.0}
    assert ui.fusedCheckBox.isChecked()
    for button in (*buttons[1:], *reversed(buttons[:4])):
        button.click()
        assert [other.isChecked() for other in buttons] == [other is button for other in buttons]
        assert layers[-1]["background"] == mri
    assert layers[-1]["foreground"] == fused
    assert review_volumes() == []
    ui.fusedCheckBox.click()  # off: the CT
    assert ui.overlayButton.isChecked()
    ui.overlayButton.click()  # off: the fused volume
    assert ui.fusedCheckBox.isChecked()


def review_volumes():
    nodes = slicer.util.getNodesByClass("vtkMRMLScalarVolumeNode")
    return [node for node in nodes if node.GetAttribute("BrainFusion.Review")]


def test_the_ct_over_the_mri_has_a_colour_and_a_window_for_bone_of_its_own(registered, nodes, layers):
    ui, ct = registered.ui, nodes[0]
    before = [(node.GetDisplayNode().GetWindow(), node.GetDisplayNode().GetColorNodeID()) for node in nodes]
    ui.opacitySlider.setValue(0.25)
    assert ui.overlayButton.isChecked()
    shown = layers[-1]["foreground"]
    assert layers[-1]["foregroundOpacity"] == 0.25
    assert shown != ct
    assert (shown.GetImageData(), shown.GetParentTransformNode()) == (ct.GetImageData(), ct.GetParentTransformNode())
    display = shown.GetDisplayNode()
    assert display.GetWindowLevelMax() > 1000
    assert display.GetColorNodeID() != ct.GetDisplayNode().GetColorNodeID()
    assert [(n.GetDisplayNode().GetWindow(), n.GetDisplayNode().GetColorNodeID()) for n in nodes] == before
    assert (shown.GetHideFromEditors(), shown.GetSaveWithScene()) == (1, 0)
    ct.SetAndObserveTransformNodeID(None)
    assert shown.GetParentTransformNode() is None, "what is shown in colour is not where the CT is"


def test_squares_and_outline_show_what_was_registered(registered, nodes, layers, phantom):
    ui, mri = registered.ui, nodes[1]
    ui.checkerboardButton.click()
    board = slicer.util.arrayFromVolume(layers[-1]["foreground"])
    assert (board == slicer.util.arrayFromVolume(mri)).mean() == pytest.approx(0.5, abs=0.2)
    ui.outlineButton.click()
    drawn = slicer.util.arrayFromVolume(layers[-1]["foreground"]).astype(bool)
    hu = registered.lastOutcome.result.ct_in_mri.array_kji
    assert 0.002 < drawn.mean() < 0.2
    assert (hu[drawn] > 200).mean() > 0.99


def test_squares_of_a_large_volume_are_drawn_between_events(registered, layers, application, monkeypatch, module):
    ui = registered.ui
    ui.checkerboardButton.click()
    at_once = slicer.util.arrayFromVolume(layers[-1]["foreground"]).copy()
    ui.fusedCheckBox.click()
    monkeypatch.setattr(module.review, "STEP_VOXELS", at_once[:3].size)
    shown = layers[-1]["foreground"]
    for leave in (True, False):  # another view is chosen before they are drawn
        ui.checkerboardButton.click()
        assert (layers[-1]["foreground"], review_volumes()) == (shown, [])
        if leave:
            ui.fusedCheckBox.click()
            pump(application)
            assert ui.fusedCheckBox.isChecked()
    wait(registered, review_volumes)
    np.testing.assert_array_equal(slicer.util.arrayFromVolume(layers[-1]["foreground"]), at_once)


def test_a_change_leaves_views_that_do_not_apply_any_more(registered, nodes):
    ui = registered.ui
    ui.checkerboardButton.click()
    recolour(nodes[1])
    assert not ui.checkerboardButton.isChecked()
    assert "has changed" in ui.checkerboardButton.toolTip
    assert review_volumes() == []


def test_leaving_the_panel_leaves_no_temporary_volume(registered, nodes):
    ui = registered.ui
    composite = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLSliceCompositeNode")
    ui.overlayButton.click()
    composite.SetForegroundVolumeID(review_volumes()[0].GetID())
    registered.exit()
    assert review_volumes() == []
    assert composite.GetForegroundVolumeID() == nodes[0].GetID()


def test_a_scene_saved_with_a_temporary_volume_shows_the_fused_one_instead(registered, nodes, tmp_path):
    path = str(tmp_path / "scene.mrb")
    composite = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLSliceCompositeNode")
    composite.SetLayoutName("Red")
    registered.ui.overlayButton.click()
    composite.SetForegroundVolumeID(review_volumes()[0].GetID())
    assert slicer.mrmlScene.WriteToMRB(path)
    slicer.mrmlScene.Clear()
    assert slicer.mrmlScene.ReadFromMRB(path, True)
    assert review_volumes() == []
    [composite] = slicer.util.getNodesByClass("vtkMRMLSliceCompositeNode")
    assert composite.GetForegroundVolumeID() in (registered.ui.fusedSelector.currentNode().GetID(), None)


def test_the_largest_misalignment_is_shown(registered, nodes, module):
    ui, fused = registered.ui, registered.ui.fusedSelector.currentNode()
    slice_node = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLSliceNode")
    slice_node.SetLayoutName("Red")
    currency = module.panel_state.currency
    stored = currency.stored_on(fused)
    amber = replace(stored.card, colour="amber")
    currency.store(fused, replace(stored, card=amber, worst_mri_mm=(1.0, 2.0, 3.0), worst_mm=4.0))
    registered.updatePanel()
    assert ui.jumpButton.text == "Largest misalignment: 4 mm"
    ui.jumpButton.click()
    assert slice_node.GetSliceToRAS().GetElement(2, 3) == pytest.approx(3.0)
    green = replace(stored.card, colour="green")
    currency.store(fused, replace(stored, card=green, worst_mri_mm=(1.0, 2.0, 3.0), worst_mm=0.4))
    registered.updatePanel()
    assert ui.jumpButton.text == "Largest misalignment: none above the limit"
    ui.jumpButton.click()
    assert slice_node.GetSliceToRAS().GetElement(2, 3) == pytest.approx(stored.middle_mri_mm[2])


def test_a_ct_under_a_transform_that_is_not_linear_is_shown_as_it_was_registered(chosen, nodes, application, layers):
    ui, (ct, mri) = chosen.ui, nodes
    warp = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLGridTransformNode", "Acquisition transform")
    ct.SetAndObserveTransformNodeID(warp.GetID())
    skip(chosen)
    fuse(chosen, application)
    registered = ui.resampledSelector.currentNode()
    ui.overlayButton.click()
    assert layers[-1]["foreground"].GetImageData() == registered.GetImageData()
    ui.outlineButton.click()
    assert slicer.util.arrayFromVolume(layers[-1]["foreground"]).any()
    ui.checkerboardButton.click()
    assert slicer.util.arrayFromVolume(layers[-1]["foreground"]).shape == slicer.util.arrayFromVolume(mri).shape
    ui.showUnregisteredButton.click()
    assert layers[-1]["foreground"].GetImageData() == ct.GetImageData()
    assert ct.GetParentTransformNode() == warp
    ui.signerEdit.setText("A. Surgeon")
    ui.approveButton.click()
    fuse(chosen, application)
    assert ui.resampledSelector.currentNode() != registered, "an approved volume keeps its CT"
    slicer.mrmlScene.RemoveNode(ui.resampledSelector.currentNode())
    assert not ui.overlayButton.isEnabled()
    assert "registered CT was removed" in ui.overlayButton.toolTip


def test_squares_of_a_warped_mri_are_those_of_what_was_fused(chosen, nodes, application, layers):
    ui, mri = chosen.ui, nodes[1]
    warp = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLBSplineTransformNode", "warp")
    spline = vtk.vtkThinPlateSplineTransform()
    source, target = vtk.vtkPoints(), vtk.vtkPoints()
    for x in (-80, 80):
        for y in (-80, 80):
            for z in (-80, 80):
                source.InsertNextPoint(x, y, z)
                target.InsertNextPoint(x + 0.1 * y, y, z)
    spline.SetSourceLandmarks(source)
    spline.SetTargetLandmarks(target)
    spline.SetBasisToR()
    warp.SetAndObserveTransformToParent(spline)
    mri.SetAndObserveTransformNodeID(warp.GetID())
    skip(chosen)
    fuse(chosen, application)
    fused = ui.fusedSelector.currentNode()
    ui.checkerboardButton.click()
    board = slicer.util.arrayFromVolume(layers[-1]["foreground"])
    assert board.shape == slicer.util.arrayFromVolume(fused).shape
    brain = (slicer.util.arrayFromVolume(fused) == board).mean()
    assert brain > 0.3, "the MRI's squares are not those of the fused volume"


def test_show_unregistered_and_undo_move_the_ct(chosen, nodes, application, module):
    ct, mri = nodes
    transform = module.bridge.move_ct_onto_mri(ct, mri, RigidTransform.from_axis_angle((0, 0, 1), 5, (1, 2, 3)))
    chosen.updatePanel()
    button = chosen.ui.showUnregisteredButton
    button.click()
    assert ct.GetParentTransformNode() is None
    assert (button.text, button.isChecked()) == ("Show unregistered CT", True)
    button.click()
    assert (button.text, button.isChecked()) == ("Show unregistered CT", False)
    assert ct.GetParentTransformNode() == transform
    chosen.ui.undoButton.click()
    assert ct.GetParentTransformNode() is None
    assert "Undone" in chosen.ui.statusLabel.text


def world_from_ct(ct):
    """The CT's voxels in the world: its own matrix under its transforms."""
    matrix = vtk.vtkMatrix4x4()
    ct.GetIJKToRASMatrix(matrix)
    parent = ct.GetParentTransformNode()
    above = np.eye(4) if parent is None else slicer.util.arrayFromTransformMatrix(parent, toWorld=True)
    return above @ slicer.util.arrayFromVTKMatrix(matrix)


def test_a_hardened_ct_stays_where_it_is(registered, nodes):
    ct, ui = nodes[0], registered.ui
    where = world_from_ct(ct)
    ct.HardenTransform()
    assert not ui.showUnregisteredButton.isEnabled()
    assert "cannot be moved back" in ui.showUnregisteredButton.toolTip
    for _ in range(2):
        ui.showUnregisteredButton.setChecked(not ui.showUnregisteredButton.isChecked())  # as a script may
        np.testing.assert_allclose(world_from_ct(ct), where, atol=1e-9)
    ui.undoButton.click()
    np.testing.assert_allclose(world_from_ct(ct), where, atol=1e-9)
    assert "CT cannot be moved back" in ui.statusLabel.text


def test_a_ct_under_another_transform_stays_there(registered, nodes):
    ct, ui = nodes[0], registered.ui
    other = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLLinearTransformNode", "planning")
    ct.SetAndObserveTransformNodeID(other.GetID())
    assert not ui.showUnregisteredButton.isEnabled()
    ui.showUnregisteredButton.setChecked(True)
    ui.showUnregisteredButton.setChecked(False)
    assert ct.GetParentTransformNode() == other
    assert not ui.undoButton.isVisible()


def test_undo_goes_away_once_done(registered, nodes):
    ct, ui = nodes[0], registered.ui
    ui.undoButton.click()
    assert ct.GetParentTransformNode() is None
    assert not ui.undoButton.isVisible()
    assert not ui.showUnregisteredButton.isEnabled()
    assert not says_current(registered)


def test_undo_while_the_unregistered_ct_is_shown_leaves_it_there(registered, nodes):
    ct, ui = nodes[0], registered.ui
    ui.showUnregisteredButton.click()
    ui.undoButton.click()
    assert ct.GetParentTransformNode() is None
    assert (ui.undoButton.isVisible(), ui.showUnregisteredButton.isChecked()) == (False, False)


@pytest.mark.parametrize(
    "walk",
    ["test_thePanelLosesNothing", "test_thePanelShowsWhatWasRegistered", "test_aResultIsSignedAndItsReportSaved"],
)
def test_the_self_test_walks_the_panel(panel, module, phantom, monkeypatch, walk):
    """The walk of the real application, with a small phantom."""
    quick = RegistrationSettings(passes=(SearchPass(40, 8),), samples=10_000)
    monkeypatch.setattr(RegistrationSettings, "preset", classmethod(lambda cls, name, **more: quick))
    walk_self_test(module, panel, phantom, monkeypatch, walk)


def test_the_unregistered_ct_is_shown_without_the_verdict(registered, nodes):
    ui = registered.ui
    ui.showUnregisteredButton.click()
    assert "The unregistered CT is shown" in words(registered)
    registered.exit()
    registered.enter()
    assert ui.showUnregisteredButton.isChecked()
    ui.showUnregisteredButton.click()
    assert says_current(registered)


def test_results_of_a_dicom_mri_are_exported(registered, module, monkeypatch, tmp_path):
    ui, fused = registered.ui, registered.ui.fusedSelector.currentNode()
    assert not ui.exportButton.isEnabled()
    assert ui.exportButton.toolTip == module.dicom_export.whatIsMissingForExport(fused)
    monkeypatch.setattr(module.dicom_export, "whatIsMissingForExport", lambda node: None)
    monkeypatch.setattr(module.dicom_export, "orderFor", lambda node, folder, anyway: (node, folder))
    runner = registered.logic._runner
    monkeypatch.setattr(runner, "export", lambda order, inputs, progress, done: done(("a", "b"), None))
    monkeypatch.setattr(module.qt.QFileDialog, "getExistingDirectory", lambda *words: str(tmp_path))
    registered.updatePanel()
    ui.exportButton.click()
    assert ui.statusLabel.text.startswith("2 DICOM files were written to")


def test_every_choice_reaches_the_logic(chosen, nodes, monkeypatch):
    asked = {}
    monkeypatch.setattr(chosen.logic, "startFusion", lambda *volumes, **options: asked.update(options))
    ui = chosen.ui
    start = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLLinearTransformNode", "start")
    mask = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLLabelMapVolumeNode", "mask")
    choose(ui.startComboBox, "Start from a transform")
    assert "transform to start from" in ui.fuseButton.toolTip
    ui.startTransformSelector.setCurrentNode(start)
    ui.maskSelector.setCurrentNode(mask)
    choose(ui.presetComboBox, "Fast")
    choose(ui.deviceComboBox, "Processor (CPU)")
    choose(ui.ruleComboBox, METHODS["bone_over_mri"].label)
    ui.fuseButton.click()
    assert (asked["startTransform"], asked["mask"], asked["keepAlignment"]) == (start, mask, False)
    assert isinstance(asked["settings"], Settings)
    assert (asked["settings"].device, asked["settings"].fusion.rule) == ("cpu", "bone_over_mri")
    assert asked["settings"].registration == type(asked["settings"].registration).preset("fast")
    segmentation = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLSegmentationNode", "mask too")
    ui.maskSelector.setCurrentNode(segmentation)
    assert chosen._parameterNode.mask == segmentation


def test_the_boxes_offer_the_librarys_choices_and_begin_with_its_defaults(panel):
    box = panel.ui.ruleComboBox
    offered = [method for method in METHODS.values() if method.package is None or method.package.is_installed]
    assert {box.itemText(n) for n in range(box.count)} == {m.label for m in offered}
    tips = {box.itemText(n): box.itemData(n, QtCore.Qt.ToolTipRole) for n in range(box.count)}
    assert tips == {method.label: method.description for method in offered}
    assert box.currentText == METHODS[Settings().fusion.rule].label
    assert panel.ui.presetComboBox.currentText == "Standard"
    assert panel.ui.startComboBox.currentText == "Automatic"
    assert panel.ui.deviceComboBox.currentText == "Automatic"


def test_a_rule_without_its_package_is_not_offered(module, monkeypatch):
    absent = replace(METHODS["wavelet"].package, module="x")
    monkeypatch.setitem(METHODS, "toy", replace(METHODS["average"], name="toy", label="Toy", package=absent))
    assert "toy" not in module.choices.available_rules().__members__
    monkeypatch.setitem(METHODS, "toy", replace(METHODS["toy"], package=None))
    assert module.choices.available_rules()["toy"].label() == "Toy"


def test_the_link_box_shows_how_the_views_are(module, monkeypatch):
    import fakes

    views = [slicer.mrmlScene.AddNewNodeByClass("vtkMRMLSliceCompositeNode") for _ in range(2)]
    for linked in ((True, True), (True, False), (False, False)):
        for view, is_linked in zip(views, linked, strict=True):
            view.SetLinkedControl(is_linked)
        panel = module.BrainFusionWidget(fakes.Panel())
        panel.setup()
        assert panel.ui.linkCheckBox.isChecked() == all(linked)
        views[1].SetLinkedControl(not linked[1])
        panel.enter()
        assert panel.ui.linkCheckBox.isChecked() == (linked[0] and not linked[1])
        assert [bool(view.GetLinkedControl()) for view in views] == [linked[0], not linked[1]], "the views were changed"
        panel.cleanup()


@pytest.mark.parametrize("mm", [0.0, 0.003, 0.04, 0.0499])
def test_a_small_expected_error_is_never_shown_as_zero(chosen, application, module, mm):
    skip(chosen)
    fuse(chosen, application)
    for colour in ("green", "red"):
        verdict = replace(chosen.lastOutcome.result.verdict, colour=colour, expected_error_mm=mm, bound_mm=2 * mm)
        result = replace(chosen.lastOutcome.result, verdict=verdict)
        text = module.panel_state.verdict_text.of_result(result, moved="CT").text
        assert "0.0 mm" not in text
        assert (verdict.expected_error or "Expected error") in text or colour == "red"
        assert ("Expected error" in text) == (colour == "green")


@pytest.fixture
def flair(nodes):
    """A volume of the user's, with the voxels that it must keep."""
    node = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLScalarVolumeNode", "user FLAIR")
    slicer.util.updateVolumeFromArray(node, np.full((3, 4, 5), 7, np.int16))
    return node


def is_untouched(volume):
    return np.array_equal(slicer.util.arrayFromVolume(volume), np.full((3, 4, 5), 7, np.int16))


def test_a_deleted_output_leaves_none_and_the_users_volumes_alone(chosen, application, flair):
    ui = chosen.ui
    skip(chosen)
    fuse(chosen, application)
    slicer.mrmlScene.RemoveNode(ui.fusedSelector.currentNode())
    assert ui.fusedSelector.currentNode() is None
    assert ui.statusLabel.text == "MRI fused with CT was removed from the scene."
    fuse(chosen, application)
    assert ui.fusedSelector.currentNode() != flair
    assert is_untouched(flair)


def test_deleting_the_transform_of_a_result_takes_the_ct_back_to_where_the_user_had_it(chosen, nodes, module):
    ct, mri = nodes
    own = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLLinearTransformNode", "own")
    points = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLMarkupsFiducialNode", "points")
    for node in (ct, points):
        node.SetAndObserveTransformNodeID(own.GetID())
    transform = module.bridge.move_ct_onto_mri(ct, mri, RigidTransform.identity())
    assert points.GetParentTransformNode() == transform
    chosen.exit()
    slicer.mrmlScene.RemoveNode(transform)
    chosen.enter()
    assert (ct.GetParentTransformNode(), points.GetParentTransformNode()) == (own, own)
    assert chosen.ui.statusLabel.text == (
        "CT to MRI was removed from the scene. CT is where it was before the registration."
    )
    assert not chosen.ui.undoButton.isVisible()


@pytest.mark.parametrize("selector", ["ctSelector", "mriSelector"])
def test_a_deleted_input_leaves_none(chosen, flair, selector):
    box = getattr(chosen.ui, selector)
    name = box.currentNode().GetName()
    slicer.mrmlScene.RemoveNode(box.currentNode())
    assert box.currentNode() is None
    assert chosen.ui.statusLabel.text.startswith(f"{name} was removed from the scene. Choose ")


def test_an_output_deleted_elsewhere_leaves_none(chosen, application, flair):
    skip(chosen)
    fuse(chosen, application)
    fused = chosen.ui.fusedSelector.currentNode()
    chosen.exit()
    slicer.mrmlScene.RemoveNode(fused)
    chosen.enter()
    assert chosen.ui.fusedSelector.currentNode() is None
    assert "was removed" in chosen.ui.statusLabel.text


def test_a_users_volume_is_overwritten_only_after_overwrite(chosen, application, flair):
    ui = chosen.ui
    skip(chosen)
    ui.fusedSelector.setCurrentNode(flair)
    assert not ui.fuseButton.isEnabled()
    assert "user FLAIR would be overwritten: click Overwrite" in ui.statusLabel.text
    assert ui.overwriteButton.isVisible()
    assert ui.overwriteButton.text == "Overwrite user FLAIR"
    ui.overwriteButton.click()
    assert not ui.overwriteButton.isVisible()
    fuse(chosen, application)
    assert ui.fusedSelector.currentNode() == flair
    assert not is_untouched(flair)


def test_a_permission_is_for_one_fusion_and_one_node(chosen, application, flair):
    ui = chosen.ui
    other = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLScalarVolumeNode", "other")
    ui.fusedSelector.setCurrentNode(flair)
    ui.overwriteButton.click()
    ui.fusedSelector.setCurrentNode(other)
    assert not ui.fuseButton.isEnabled()
    slicer.mrmlScene.RemoveNode(flair)
    assert chosen._permitted.nodes() == []


def test_a_volume_made_in_the_selectors_menu_may_be_written(chosen):
    ui = chosen.ui
    ui.fusedSelector.addNode()  # as a program does
    assert ui.overwriteButton.isVisible()
    ui.fusedSelector.activateExtraItem("CREATE")
    assert not ui.overwriteButton.isVisible()
    assert ui.fuseButton.isEnabled()


def test_each_pair_has_outputs_of_its_own(chosen, nodes, application, module, phantom):
    ui, (ct, mri) = chosen.ui, nodes
    module.bridge.move_ct_onto_mri(ct, mri, RigidTransform.identity())
    skip(chosen)
    fuse(chosen, application)
    first = ui.fusedSelector.currentNode()
    second_ct = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLScalarVolumeNode", "CT B")
    module.bridge.node_from_volume(phantom.ct, second_ct)
    ui.ctSelector.setCurrentNode(second_ct)
    assert ui.fusedSelector.currentNode() is None
    assert ui.transformSelector.currentNode() is None
    fuse(chosen, application)
    second = ui.fusedSelector.currentNode()
    assert second != first
    ui.ctSelector.setCurrentNode(ct)
    assert ui.fusedSelector.currentNode() == first
    assert ui.transformSelector.currentNode() == ct.GetParentTransformNode()
    ui.ctSelector.setCurrentNode(second_ct)
    assert ui.fusedSelector.currentNode() == second


def moved_by(transform, mm):
    matrix = slicer.util.arrayFromTransformMatrix(transform)
    matrix[0, 3] += mm
    slicer.util.updateTransformMatrixFromArray(transform, matrix)


def recolour(node, told_by=None):
    """Change voxels as the Segment Editor and scripts do."""
    slicer.util.arrayFromVolume(node)[0, 0, 0] += 5
    told_by.Modified() if told_by else slicer.util.arrayFromVolumeModified(node)


@pytest.fixture
def registered(chosen, nodes, application, module, phantom):
    """The panel after a fusion of a pair whose CT is under its transform; the registration is skipped, to be quick."""
    ct, mri = nodes
    module.bridge.move_ct_onto_mri(ct, mri, phantom.transform)
    skip(chosen)
    fuse(chosen, application)
    assert says_current(chosen)
    return chosen


def says_current(panel):
    verdict = panel.lastOutcome.result.verdict
    text = words(panel)
    assert (verdict.sentence in text) != ("Changed since" in text)
    return verdict.sentence in text


CHANGES = {
    "the transform is moved by hand": lambda ct, mri: moved_by(ct.GetParentTransformNode(), 15),
    "the transform is moved by a micrometre": lambda ct, mri: moved_by(ct.GetParentTransformNode(), 1e-3),
    "the CT is hardened": lambda ct, mri: ct.HardenTransform(),
    "voxels of the CT": lambda ct, mri: recolour(ct),
    "voxels of the MRI": lambda ct, mri: recolour(mri),
    "voxels of the CT, told by the image alone": lambda ct, mri: recolour(ct, told_by=ct.GetImageData()),
    "the MRI is shifted": lambda ct, mri: mri.SetOrigin(1, 2, 3),
    "the CT is taken out": lambda ct, mri: ct.SetAndObserveTransformNodeID(None),
}


@pytest.mark.parametrize("change", CHANGES)
def test_a_change_makes_the_verdict_stale(registered, nodes, change):
    CHANGES[change](*nodes)
    text = words(registered)
    assert not says_current(registered)
    assert "Changed since: check again" in text
    assert "Green" not in text
    assert nodes[0].GetName() in text or nodes[1].GetName() in text
    assert not registered.ui.jumpButton.isEnabled()


def test_a_change_that_is_taken_back_leaves_the_verdict(registered, nodes):
    transform = nodes[0].GetParentTransformNode()
    moved_by(transform, 15)
    assert not says_current(registered)
    moved_by(transform, -15)
    assert says_current(registered)


def test_window_name_and_display_leave_the_verdict(registered, nodes):
    for node in nodes:
        node.GetDisplayNode().SetWindowLevel(300, 40)
        node.SetName("renamed " + node.GetName())
        node.GetDisplayNode().SetInterpolate(0)
        node.Modified()
    nodes[0].GetParentTransformNode().SetName("renamed")
    registered.exit()
    registered.enter()
    assert says_current(registered)


def test_a_change_while_another_module_is_shown_makes_the_verdict_stale(registered, nodes):
    registered.exit()
    recolour(nodes[1])
    registered.enter()
    assert not says_current(registered)


def test_another_pair_does_not_have_this_pairs_verdict(registered, nodes, flair):
    registered.ui.mriSelector.setCurrentNode(flair)
    assert words(registered) == ""
    registered.ui.mriSelector.setCurrentNode(nodes[1])
    assert says_current(registered)
    slicer.mrmlScene.RemoveNode(nodes[1])
    assert "CT was moved onto a volume that was removed" in words(registered)
    assert "Green" not in words(registered)


def test_a_change_during_the_fusion_makes_its_verdict_stale(in_worker, nodes, application):
    skip(in_worker)
    in_worker.ui.fuseButton.click()
    recolour(nodes[1])
    wait(in_worker, lambda: not in_worker.logic.running)
    assert not says_current(in_worker)


@pytest.fixture
def held(chosen):
    """The panel with a fusion that ends when the runner that this returns is told to."""

    class HeldRunner(sys.modules["BrainFusionSlicer.runner"].InProcessRunner):
        def run(self, *job):
            self.busy, self.job = True, job

        def finish(self):
            self.busy = False
            super().run(*self.job)

    chosen.logic._runner = HeldRunner()
    return chosen.logic._runner


@pytest.mark.parametrize("hardened", [True, False])
def test_a_ct_that_was_moved_during_the_fusion_is_not_put_elsewhere(chosen, held, nodes, module, phantom, hardened):
    ct, mri = nodes
    own = module.bridge.move_ct_onto_mri(ct, mri, phantom.transform)
    if not hardened:
        own = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLLinearTransformNode", "the user's own")
        ct.SetAndObserveTransformNodeID(own.GetID())
    chosen.ui.fuseButton.click()
    if hardened:
        ct.HardenTransform()
    else:
        moved_by(own, 15)
    where = world_from_ct(ct)
    held.finish()
    np.testing.assert_allclose(world_from_ct(ct), where, atol=1e-9)
    assert "CT was moved or hardened while it was being fused" in chosen.ui.statusLabel.text
    assert words(chosen) == ""
    assert not chosen.logic.running


def test_a_result_that_is_moved_during_the_next_fusion_is_replaced(chosen, held, nodes, module, phantom):
    ct, mri = nodes
    result = module.bridge.move_ct_onto_mri(ct, mri, phantom.transform)
    chosen.ui.fuseButton.click()
    moved_by(result, 15)
    held.finish()
    assert ct.GetParentTransformNode() == result
    assert chosen.ui.statusLabel.text.startswith("Fused in ")


def test_a_scene_that_is_added_to_itself_has_two_pairs_of_its_own(registered, nodes, tmp_path):
    ui, path = registered.ui, str(tmp_path / "scene.mrb")
    first = ui.fusedSelector.currentNode()
    assert slicer.mrmlScene.WriteToMRB(path)
    assert slicer.mrmlScene.ReadFromMRB(path, False)
    second = ui.fusedSelector.currentNode()
    assert second != first
    assert ui.ctSelector.currentNode() not in (None, nodes[0])
    assert ui.undoButton.isVisible()
    assert says_current(registered)
    for box, node in zip((ui.ctSelector, ui.mriSelector), nodes, strict=True):
        box.setCurrentNode(node)
    assert ui.fusedSelector.currentNode() == first
    assert says_current(registered)


def test_a_remedy_is_named_by_what_the_panel_shows(chosen, module):
    chosen.showError(SettingsError("a mask and a transform.", remedy=Remedy.OMIT_MASK_OR_TRANSFORM))
    phrase = module.remedies.PHRASES[Remedy.OMIT_MASK_OR_TRANSFORM]
    assert chosen.ui.statusLabel.text == f"Not fused: a mask and a transform. {phrase}"


def test_an_error_is_shown_and_fusing_again_is_possible(chosen, nodes, application):
    slicer.util.arrayFromVolume(nodes[1])[:] = 7
    nodes[1].GetImageData().Modified()
    chosen.ui.fuseButton.click()
    assert chosen.ui.statusLabel.text.startswith("Not fused: ")
    assert "MRI" in chosen.ui.statusLabel.text
    assert chosen.ui.fuseButton.isEnabled()


def test_removing_the_mri_ends_the_fusion(in_worker, nodes, application):
    in_worker.ui.fuseButton.click()
    wait(in_worker, lambda: "Registering" in in_worker.ui.statusLabel.text)
    slicer.mrmlScene.RemoveNode(nodes[1])
    assert not in_worker.logic.running
    assert "removed from the scene" in in_worker.ui.statusLabel.text or "Choose an MRI" in in_worker.ui.statusLabel.text
    assert not in_worker.ui.fuseButton.isEnabled()


def test_closing_the_scene_ends_the_fusion_and_empties_the_panel(in_worker, nodes, application):
    in_worker.ui.fuseButton.click()
    slicer.mrmlScene.Clear()
    application.processEvents()
    assert not in_worker.logic.running
    assert in_worker.ui.statusLabel.text == "Choose a CT."


def test_leaving_the_panel_does_not_end_the_fusion(in_worker, nodes, application):
    skip(in_worker)
    in_worker.ui.fuseButton.click()
    in_worker.exit()
    wait(in_worker, lambda: not in_worker.logic.running)
    in_worker.enter()
    assert says_current(in_worker)
    assert in_worker.ui.fusedSelector.currentNode() == in_worker.lastOutcome.fusedVolume
    assert in_worker.ui.statusLabel.text.startswith("Fused in ")


def test_a_scene_loaded_while_the_panel_is_open_keeps_its_choices(registered, tmp_path):
    ui, path = registered.ui, str(tmp_path / "scene.mrb")
    sentence = ui.verdictLabel.text
    assert slicer.mrmlScene.WriteToMRB(path)
    ui.ctSelector.setCurrentNode(None)
    slicer.mrmlScene.Clear()
    assert slicer.mrmlScene.ReadFromMRB(path, True)
    names = [box.currentNode().GetName() for box in (ui.ctSelector, ui.mriSelector, ui.fusedSelector)]
    assert names == ["CT", "MRI", "MRI fused with CT"]
    assert ui.verdictLabel.text == sentence
    assert ui.undoButton.isVisible()
    moved_by(ui.ctSelector.currentNode().GetParentTransformNode(), 15)
    assert "Changed since" in words(registered)


def test_a_scene_saved_with_the_unregistered_ct_shown_loads_registered(registered, tmp_path):
    ui, path = registered.ui, str(tmp_path / "scene.mrb")
    ui.showUnregisteredButton.click()
    assert slicer.mrmlScene.WriteToMRB(path)
    slicer.mrmlScene.Clear()
    assert slicer.mrmlScene.ReadFromMRB(path, True)
    assert ui.ctSelector.currentNode().GetParentTransformNode() == ui.transformSelector.currentNode()
    assert not ui.showUnregisteredButton.isChecked()
    assert "The unregistered CT" not in words(registered)
    assert ui.undoButton.isVisible()


def test_a_rule_that_a_scene_brings_and_that_is_gone_becomes_the_default(chosen, application):
    chosen.exit()
    chosen.logic.getParameterNode().parameterNode.SetParameter("rule", "removed")
    chosen.enter()
    assert chosen.ui.statusLabel.text.startswith("removed, chosen in this scene, is not available: ")
    assert chosen._parameterNode.rule.name == Settings().fusion.rule
    assert chosen.ui.fuseButton.isEnabled()


def test_reloading_the_module_ends_the_worker(in_worker, nodes, application):
    in_worker.ui.fuseButton.click()
    runner = in_worker.logic._runner
    assert runner.child_pid is not None
    in_worker.cleanup()
    assert not in_worker.logic.running
    assert runner.child_pid is None


def test_without_torch_a_graphics_card_is_explained_and_a_cpu_needs_nothing(module, monkeypatch, nodes):
    import fakes

    monkeypatch.setattr(sys.modules["BrainFusionSlicer.torch_setup"], "torch_is_installed", lambda: False)
    panel = module.BrainFusionWidget(fakes.Panel())
    panel.setup()
    panel.enter()
    assert "PyTorch" not in panel.ui.statusLabel.text
    panel.ui.ctSelector.setCurrentNode(nodes[0])
    panel.ui.mriSelector.setCurrentNode(nodes[1])
    panel._parameterNode.device = module.choices.Device.cuda
    panel.ui.fuseButton.click()
    assert "install the PyTorch extension" in panel.ui.statusLabel.text
    panel.cleanup()


def test_the_tab_order_goes_from_the_inputs_to_the_review(panel):
    order, widget = [], panel.ui.ctSelector
    for _ in range(60):
        order.append(widget.objectName)
        widget = widget.nextInFocusChain()
    wanted = ["ctSelector", "mriSelector", "fuseButton", "jumpButton", "fusedCheckBox", "undoButton", "fusedSelector"]
    places = [order.index(name) for name in wanted]
    assert places == sorted(places)


def pump(application):
    for _ in range(3):
        application.processEvents()


def test_the_only_ct_and_the_only_mri_are_chosen(panel, nodes, application):
    pump(application)
    assert (panel.ui.ctSelector.currentNode(), panel.ui.mriSelector.currentNode()) == tuple(nodes)


def test_of_several_mris_none_is_chosen(panel, nodes, application, module, phantom):
    second = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLScalarVolumeNode", "T2")
    module.bridge.node_from_volume(phantom.mri, second)
    pump(application)
    assert panel.ui.ctSelector.currentNode() is None


def test_nothing_is_chosen_in_the_place_of_what_was_removed(chosen, nodes, application, module, phantom):
    other = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLScalarVolumeNode", "other MRI")
    module.bridge.node_from_volume(phantom.mri, other)
    for node in nodes[::-1]:
        slicer.mrmlScene.RemoveNode(node)
    module.bridge.node_from_volume(phantom.ct, slicer.mrmlScene.AddNewNodeByClass("vtkMRMLScalarVolumeNode", "CT 2"))
    pump(application)
    chosen.exit()
    chosen.enter()
    assert (chosen.ui.ctSelector.currentNode(), chosen.ui.mriSelector.currentNode()) == (None, None)


def test_outputs_are_no_candidates(registered, nodes, module):
    assert module.candidates.only_pair(slicer.mrmlScene) == tuple(nodes)


def test_removing_the_choices_during_a_fusion_ends_it_with_its_result(in_worker, nodes, application):
    skip(in_worker)
    in_worker.ui.fuseButton.click()
    slicer.mrmlScene.RemoveNode(in_worker._parameterNode.parameterNode)
    assert in_worker.logic.running
    wait(in_worker, lambda: not in_worker.logic.running)
    assert in_worker.ui.statusLabel.text.startswith("Fused in ")
    assert in_worker.ui.ctSelector.currentNode() == nodes[0]
    assert says_current(in_worker)


def test_removing_the_choices_while_nothing_runs_leaves_a_panel_that_works(registered, nodes, application):
    registered._isSuggesting = False
    slicer.mrmlScene.RemoveNode(registered._parameterNode.parameterNode)
    pump(application)
    assert registered.ui.statusLabel.text.startswith("The choices were removed from the scene.")
    registered.ui.ctSelector.setCurrentNode(nodes[0])
    registered.ui.mriSelector.setCurrentNode(nodes[1])
    assert [box.currentNode() for box in (registered.ui.ctSelector, registered.ui.mriSelector)] == nodes
    assert says_current(registered)


def test_what_moves_with_the_ct_is_counted(chosen, nodes, application, module):
    ct, mri = nodes
    segmentation = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLSegmentationNode", "skull")
    segmentation.SetReferenceImageGeometryParameterFromVolumeNode(ct)
    module.bridge.move_ct_onto_mri(ct, mri, RigidTransform.identity())
    chosen.ui.undoButton.click()
    assert chosen.ui.statusLabel.text.endswith("Moved back with it: 1.")
    assert segmentation.GetParentTransformNode() is None


def test_everything_of_a_finished_fusion_is_on_a_laptops_screen(registered, application):
    """Slicer's module panel has 560 pixels there, with its Data Probe closed."""
    registered.parent.resize(440, 560)
    pump(application)
    ui = registered.ui
    bottom = max(w.mapTo(registered.parent, w.rect.bottomLeft()).y() for w in (ui.verdictFrame, ui.reviewFrame))
    assert bottom < 560


def test_every_control_has_a_name_for_those_who_listen(panel):
    for name, widget in vars(panel.ui).items():
        if name.endswith(("Selector", "ComboBox", "Slider", "Bar")):
            assert widget.accessibleName, name
        elif name.endswith(("Button", "CheckBox")) and "Collapsible" not in name:
            assert widget.text, name


def test_no_key_is_one_of_slicers(panel):
    from PySide6 import QtGui

    keys = [w.shortcut.toString() for w in vars(panel.ui).values() if hasattr(w, "shortcut")]
    keys = [key for key in keys if key]
    assert sorted(keys) == ["Alt+1", "Alt+2", "Alt+3", "Alt+4", "Alt+5", "Ctrl+Return"]
    assert all(QtGui.QKeySequence(key).count() == 1 for key in keys)
