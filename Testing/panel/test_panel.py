"""The panel: real .ui, real buttons, a real worker process, real MRML nodes."""

import sys
from dataclasses import replace

import numpy as np
import pytest
import slicer
import slicer.util
import vtk
from PySide6 import QtCore
from window import wait

from BrainFusionLib.errors import Remedy, SettingsError
from BrainFusionLib.evidence import LocalErrors
from BrainFusionLib.fusion.methods import METHODS
from BrainFusionLib.settings import Settings
from BrainFusionLib.transform import RigidTransform

pytestmark = pytest.mark.filterwarnings("ignore:Setting the shape on a NumPy array:DeprecationWarning")


@pytest.fixture
def chosen(panel, nodes):
    """The panel with the pair chosen by its own selectors."""
    panel.ui.ctSelector.setCurrentNode(nodes[0])
    panel.ui.mriSelector.setCurrentNode(nodes[1])
    return panel


def fuse(panel, application):
    """Fuse in this process: a worker's start takes longer than all that these tests are about."""
    if panel.logic._runner is None:
        panel.logic._runner = sys.modules["BrainFusionSlicer.runner"].InProcessRunner()
    panel.ui.fuseButton.click()
    ended = ("Fused", "Not fused")
    assert panel.logic.running or panel.ui.statusLabel.text().startswith(ended), panel.ui.statusLabel.text()
    wait(panel, lambda: not panel.logic.running)


def test_an_empty_panel_shows_what_is_missing(panel):
    assert panel.ui.statusLabel.text() == "Choose a CT."
    assert not panel.ui.fuseButton.isEnabled()
    assert panel.ui.fuseButton.toolTip() == "Choose a CT (Ctrl+Return)"
    assert not panel.ui.reviewCollapsibleButton.isEnabled()
    assert not panel.ui.verdictFrame.isVisible()
    assert not panel.ui.progressBar.isVisible()


def test_missing_and_equal_inputs_are_named(panel, nodes):
    panel.ui.ctSelector.setCurrentNode(nodes[0])
    assert panel.ui.statusLabel.text() == "Choose an MRI."
    panel.ui.mriSelector.setCurrentNode(nodes[0])
    assert "two different volumes" in panel.ui.fuseButton.toolTip()
    panel.ui.mriSelector.setCurrentNode(nodes[1])
    assert panel.ui.fuseButton.isEnabled()
    panel.ui.fusedSelector.setCurrentNode(nodes[1])
    assert "must not be one of the inputs" in panel.ui.fuseButton.toolTip()
    assert not panel.ui.fuseButton.isEnabled()


def test_a_swapped_pair_is_corrected_by_one_click(panel, nodes):
    panel.ui.ctSelector.setCurrentNode(nodes[1])
    panel.ui.mriSelector.setCurrentNode(nodes[0])
    assert "seem to be swapped" in panel.ui.warningLabel.text()
    assert panel.ui.swapButton.isVisible()
    panel.ui.swapButton.click()
    assert panel.ui.ctSelector.currentNode() == nodes[0]
    assert panel.ui.mriSelector.currentNode() == nodes[1]
    assert not panel.ui.warningLabel.isVisible()
    assert not panel.ui.swapButton.isVisible()


def test_fuse_runs_in_the_worker_and_shows_the_verdict(chosen, nodes, application, layers, phantom, module):
    ct, mri = nodes
    chosen.ui.fuseButton.click()
    assert chosen.ui.fuseButton.text() == "Cancel"
    assert chosen.ui.progressBar.isVisible()
    assert not chosen.ui.inputsCollapsibleButton.isEnabled()
    values, words = [], set()

    def ended():
        values.append(chosen.ui.progressBar.value())
        words.add(chosen.ui.statusLabel.text().partition(":")[0])
        return not chosen.logic.running

    wait(chosen, ended)
    assert values == sorted(values), "the bar went back"
    assert {"Preparing", "Registering"} <= words
    fused = chosen.ui.fusedSelector.currentNode()
    assert fused.GetName() == "MRI fused with CT"
    assert chosen.ui.transformSelector.currentNode() == ct.GetParentTransformNode()
    assert chosen.ui.statusLabel.text().startswith("Fused in ")
    verdict = chosen.ui.verdictLabel.text()
    judged = chosen._outcome.result.verdict
    assert judged.sentence in verdict
    assert all(reason[1:] in verdict for reason in judged.reasons)
    assert (judged.expected_error or "Expected error") in verdict or judged.colour == "red"
    assert "The CT was " in verdict
    assert layers[-1] == {"background": mri, "foreground": fused, "foregroundOpacity": 1.0}
    assert chosen.ui.fuseButton.text() == "Fuse"
    assert chosen.ui.reviewCollapsibleButton.isEnabled()
    off = module.bridge.mri_from_ct_ras(phantom.transform) - slicer.util.arrayFromTransformMatrix(
        ct.GetParentTransformNode()
    )
    assert np.abs(off[:3, 3]).max() < 2


def test_cancel_changes_nothing(chosen, nodes, application):
    chosen.ui.fuseButton.click()
    wait(chosen, lambda: "Registering" in chosen.ui.statusLabel.text())
    chosen.ui.fuseButton.click()
    assert not chosen.logic.running
    assert "Cancelled" in chosen.ui.statusLabel.text()
    assert chosen.ui.fuseButton.text() == "Fuse"
    assert chosen.ui.fuseButton.isEnabled()
    assert not chosen.ui.progressBar.isVisible()
    assert nodes[0].GetParentTransformNode() is None
    assert slicer.mrmlScene.GetNumberOfNodesByClass("vtkMRMLScalarVolumeNode") == 2


def test_the_review_tools(chosen, nodes, application, layers, module):
    ct, mri = nodes
    ui = chosen.ui
    ui.startComboBox.setCurrentIndex(2)  # skip: quick
    ui.resampledSelector.activateExtraItem("CREATE")
    fuse(chosen, application)
    assert not ui.undoButton.isEnabled()  # nothing was moved
    assert "registration was skipped" in ui.verdictLabel.text()
    assert ui.jumpButton.isEnabled()
    local = LocalErrors(8.0, np.array([[9.0, 9.0, 9.0], [1.0, 2.0, 3.0]]), np.array([[0.0, 0.0, 1.0], [4.0, 0.0, 0.0]]))
    stored = module.panel_state.currency.stored_on(ui.fusedSelector.currentNode())
    worst = tuple(local.worst[0])
    module.panel_state.currency.store(ui.fusedSelector.currentNode(), replace(stored, worst_lps_mm=worst))
    chosen.updatePanel()
    slice_node = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLSliceNode")
    slice_node.SetLayoutName("Red")
    ui.jumpButton.click()
    assert slice_node.GetSliceToRAS().GetElement(2, 3) == pytest.approx(3.0)

    ui.opacitySlider.setValue(0.25)
    assert layers[-1] == {"background": mri, "foreground": ct, "foregroundOpacity": 0.25}
    assert not ui.fusedCheckBox.isChecked()
    ui.fusedCheckBox.setChecked(True)
    assert layers[-1]["foreground"] == ui.fusedSelector.currentNode()
    ui.checkerboardButton.click()
    board = layers[-1]["foreground"]
    assert board.GetName() == "CT and MRI in squares"
    assert (slicer.util.arrayFromVolume(board) == slicer.util.arrayFromVolume(mri)).mean() == pytest.approx(
        0.5, abs=0.2
    )
    ui.checkerboardButton.click()
    assert board.GetScene() is None
    composite = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLSliceCompositeNode")
    ui.linkCheckBox.setChecked(True)
    assert composite.GetLinkedControl()


def test_show_unregistered_and_undo_move_the_ct(chosen, nodes, application, module):
    ct, mri = nodes
    transform = module.bridge.move_ct_onto_mri(ct, mri, RigidTransform.from_axis_angle((0, 0, 1), 5, (1, 2, 3)))
    fused = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLScalarVolumeNode", "fused")
    module.bridge.node_from_volume(module.bridge.volume_from_node(mri), fused)
    chosen.ui.fusedSelector.setCurrentNode(fused)
    button = chosen.ui.showUnregisteredButton
    button.click()
    assert ct.GetParentTransformNode() is None
    assert (button.text(), button.isChecked()) == ("Show unregistered CT", True)
    button.click()
    assert (button.text(), button.isChecked()) == ("Show unregistered CT", False)
    assert ct.GetParentTransformNode() == transform
    chosen.ui.undoButton.click()
    assert ct.GetParentTransformNode() is None
    assert "Undone" in chosen.ui.statusLabel.text()


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
    assert "cannot be moved back" in ui.showUnregisteredButton.toolTip()
    for _ in range(2):
        ui.showUnregisteredButton.setChecked(not ui.showUnregisteredButton.isChecked())  # as a script may
        np.testing.assert_allclose(world_from_ct(ct), where, atol=1e-9)
    ui.undoButton.click()
    np.testing.assert_allclose(world_from_ct(ct), where, atol=1e-9)
    assert "CT cannot be moved back" in ui.statusLabel.text()


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


def test_the_self_test_walks_the_panel(panel, module, phantom, monkeypatch):
    """The walk of the real application, with a small phantom."""
    selftest = sys.modules["BrainFusionSlicer.selftest"]
    monkeypatch.setattr(selftest, "phantomPair", lambda: phantom)
    monkeypatch.setattr(slicer.util, "selectModule", lambda name: None, raising=False)
    monkeypatch.setattr(slicer.util, "getModuleWidget", lambda name: panel, raising=False)
    test = module.BrainFusionTest("test_thePanelLosesNothing")
    test.delayDisplay = lambda words: None
    test.setUp()
    test.test_thePanelLosesNothing()
    test.tearDown()
    assert panel.ui.statusLabel.text() == "Choose a CT."


def test_the_unregistered_ct_is_shown_without_the_verdict(registered, nodes):
    ui = registered.ui
    ui.showUnregisteredButton.click()
    assert "The unregistered CT is shown" in ui.verdictLabel.text()
    registered.exit()
    registered.enter()
    assert ui.showUnregisteredButton.isChecked()
    ui.showUnregisteredButton.click()
    assert says_current(registered)


def test_results_of_a_dicom_mri_are_exported(chosen, nodes, application, module, monkeypatch, tmp_path):
    ct, mri = nodes
    ui = chosen.ui
    fused = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLScalarVolumeNode", "fused")
    module.bridge.node_from_volume(module.bridge.volume_from_node(mri), fused)
    module.bridge.move_ct_onto_mri(ct, mri, RigidTransform.identity())
    ui.fusedSelector.setCurrentNode(fused)
    assert not ui.exportButton.isEnabled()
    assert ui.exportButton.toolTip() == module.dicom_export.whatIsMissingForExport(fused)
    monkeypatch.setattr(module.dicom_export, "whatIsMissingForExport", lambda node: None)
    monkeypatch.setattr(module.dicom_export, "exportResults", lambda node, folder: [node, folder])
    monkeypatch.setattr(module.qt.QFileDialog, "getExistingDirectory", lambda *words: str(tmp_path))
    chosen.updatePanel()
    ui.exportButton.click()
    assert ui.statusLabel.text().startswith("2 DICOM files were written to")


def test_every_choice_reaches_the_logic(chosen, nodes, monkeypatch):
    asked = {}
    monkeypatch.setattr(chosen.logic, "startFusion", lambda *volumes, **options: asked.update(options))
    ui = chosen.ui
    start = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLLinearTransformNode", "start")
    mask = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLLabelMapVolumeNode", "mask")
    ui.startComboBox.setCurrentIndex(1)
    assert "transform to start from" in ui.fuseButton.toolTip()
    ui.startTransformSelector.setCurrentNode(start)
    ui.maskSelector.setCurrentNode(mask)
    ui.presetComboBox.setCurrentIndex(0)
    ui.deviceComboBox.setCurrentIndex(1)
    ui.ruleComboBox.setCurrentIndex(ui.ruleComboBox.findData("bone_over_mri"))
    ui.fuseButton.click()
    assert (asked["startTransform"], asked["mask"], asked["keepAlignment"]) == (start, mask, False)
    assert isinstance(asked["settings"], Settings)
    assert (asked["settings"].device, asked["settings"].fusion.rule) == ("cpu", "bone_over_mri")
    assert asked["settings"].registration == type(asked["settings"].registration).preset("fast")


def test_the_fusion_rules_are_those_of_the_table(panel):
    box = panel.ui.ruleComboBox
    offered = [method for method in METHODS.values() if method.package is None or method.package.is_installed]
    assert [(box.itemText(n), box.itemData(n)) for n in range(box.count())] == [(m.label, m.name) for m in offered]
    tips = [box.itemData(n, QtCore.Qt.ToolTipRole) for n in range(box.count())]
    assert tips == [method.description for method in offered]
    assert box.itemData(box.currentIndex()) == Settings().fusion.rule


def test_a_rule_without_its_package_is_not_offered(module, monkeypatch):
    import fakes

    method = replace(
        METHODS["average"], name="toy", label="Toy", package=replace(METHODS["wavelet"].package, module="x")
    )
    monkeypatch.setitem(METHODS, "toy", method)
    panel = module.BrainFusionWidget(fakes.Panel())
    panel.setup()
    assert panel.ui.ruleComboBox.findData("toy") == -1
    panel.cleanup()
    monkeypatch.setitem(METHODS, "toy", replace(method, package=None))
    panel = module.BrainFusionWidget(fakes.Panel())
    panel.setup()
    assert panel.ui.ruleComboBox.itemText(panel.ui.ruleComboBox.findData("toy")) == "Toy"
    panel.cleanup()


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
    chosen.ui.startComboBox.setCurrentIndex(2)
    fuse(chosen, application)
    for colour in ("green", "red"):
        verdict = replace(chosen._outcome.result.verdict, colour=colour, expected_error_mm=mm, bound_mm=2 * mm)
        text = module.panel_state.verdict_text.of_result(replace(chosen._outcome.result, verdict=verdict), moved=True)
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
    ui.startComboBox.setCurrentIndex(2)
    fuse(chosen, application)
    slicer.mrmlScene.RemoveNode(ui.fusedSelector.currentNode())
    assert ui.fusedSelector.currentNode() is None
    assert ui.statusLabel.text() == "MRI fused with CT was removed from the scene."
    fuse(chosen, application)
    assert ui.fusedSelector.currentNode() != flair
    assert is_untouched(flair)


@pytest.mark.parametrize("selector", ["ctSelector", "mriSelector"])
def test_a_deleted_input_leaves_none(chosen, flair, selector):
    box = getattr(chosen.ui, selector)
    name = box.currentNode().GetName()
    slicer.mrmlScene.RemoveNode(box.currentNode())
    assert box.currentNode() is None
    assert chosen.ui.statusLabel.text().startswith(f"{name} was removed from the scene. Choose ")


def test_an_output_deleted_elsewhere_leaves_none(chosen, application, flair):
    chosen.ui.startComboBox.setCurrentIndex(2)
    fuse(chosen, application)
    fused = chosen.ui.fusedSelector.currentNode()
    chosen.exit()
    slicer.mrmlScene.RemoveNode(fused)
    chosen.enter()
    assert chosen.ui.fusedSelector.currentNode() is None
    assert "was removed" in chosen.ui.statusLabel.text()


def test_a_users_volume_is_overwritten_only_after_overwrite(chosen, application, flair):
    ui = chosen.ui
    ui.startComboBox.setCurrentIndex(2)
    ui.fusedSelector.setCurrentNode(flair)
    assert not ui.fuseButton.isEnabled()
    assert "user FLAIR would be overwritten: click Overwrite" in ui.statusLabel.text()
    assert ui.overwriteButton.isVisible()
    assert ui.overwriteButton.text() == "Overwrite user FLAIR"
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
    assert chosen._permitted == {}


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
    ui.startComboBox.setCurrentIndex(2)
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


def recolour(node):
    """Change voxels as the Segment Editor and scripts do."""
    slicer.util.arrayFromVolume(node)[0, 0, 0] += 5
    slicer.util.arrayFromVolumeModified(node)


@pytest.fixture
def registered(chosen, nodes, application, module, phantom):
    """The panel after a fusion of a pair whose CT is under its transform; the registration is skipped, to be quick."""
    ct, mri = nodes
    module.bridge.move_ct_onto_mri(ct, mri, phantom.transform)
    chosen.ui.startComboBox.setCurrentIndex(2)
    fuse(chosen, application)
    assert says_current(chosen)
    return chosen


def says_current(panel):
    verdict = panel._outcome.result.verdict
    text = panel.ui.verdictLabel.text()
    assert (verdict.sentence in text) != ("Changed since" in text)
    return verdict.sentence in text


CHANGES = {
    "the transform is moved by hand": lambda ct, mri: moved_by(ct.GetParentTransformNode(), 15),
    "the transform is moved by a micrometre": lambda ct, mri: moved_by(ct.GetParentTransformNode(), 1e-3),
    "the CT is hardened": lambda ct, mri: ct.HardenTransform(),
    "voxels of the CT": lambda ct, mri: recolour(ct),
    "voxels of the MRI": lambda ct, mri: recolour(mri),
    "the MRI is shifted": lambda ct, mri: mri.SetOrigin(1, 2, 3),
    "the CT is taken out": lambda ct, mri: ct.SetAndObserveTransformNodeID(None),
}


@pytest.mark.parametrize("change", CHANGES)
def test_a_change_makes_the_verdict_stale(registered, nodes, change):
    CHANGES[change](*nodes)
    text = registered.ui.verdictLabel.text()
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
    assert registered.ui.verdictLabel.text() == ""
    registered.ui.mriSelector.setCurrentNode(nodes[1])
    assert says_current(registered)
    slicer.mrmlScene.RemoveNode(nodes[1])
    assert registered.ui.verdictLabel.text() == ""


def test_a_change_during_the_fusion_makes_its_verdict_stale(chosen, nodes, application):
    chosen.ui.startComboBox.setCurrentIndex(2)
    chosen.ui.fuseButton.click()
    recolour(nodes[1])
    wait(chosen, lambda: not chosen.logic.running)
    assert not says_current(chosen)


def test_a_remedy_is_named_by_what_the_panel_shows(chosen, module):
    chosen.showError(SettingsError("a mask and a transform.", remedy=Remedy.OMIT_MASK_OR_TRANSFORM))
    phrase = module.remedies.PHRASES[Remedy.OMIT_MASK_OR_TRANSFORM]
    assert chosen.ui.statusLabel.text() == f"Not fused: a mask and a transform. {phrase}"


def test_an_error_is_shown_and_fusing_again_is_possible(chosen, nodes, application):
    slicer.util.arrayFromVolume(nodes[1])[:] = 7
    nodes[1].GetImageData().Modified()
    fuse(chosen, application)
    assert chosen.ui.statusLabel.text().startswith("Not fused: ")
    assert "MRI" in chosen.ui.statusLabel.text()
    assert chosen.ui.fuseButton.isEnabled()


def test_removing_the_mri_ends_the_fusion(chosen, nodes, application):
    chosen.ui.fuseButton.click()
    wait(chosen, lambda: "Registering" in chosen.ui.statusLabel.text())
    slicer.mrmlScene.RemoveNode(nodes[1])
    assert not chosen.logic.running
    assert "removed from the scene" in chosen.ui.statusLabel.text() or "Choose an MRI" in chosen.ui.statusLabel.text()
    assert not chosen.ui.fuseButton.isEnabled()


def test_closing_the_scene_ends_the_fusion_and_empties_the_panel(chosen, nodes, application):
    chosen.ui.fuseButton.click()
    slicer.mrmlScene.Clear()
    application.processEvents()
    assert not chosen.logic.running
    assert chosen.ui.statusLabel.text() == "Choose a CT."


def test_leaving_the_panel_does_not_end_the_fusion(chosen, nodes, application):
    chosen.ui.startComboBox.setCurrentIndex(2)
    chosen.ui.fuseButton.click()
    chosen.exit()
    wait(chosen, lambda: not chosen.logic.running)
    chosen.enter()
    assert says_current(chosen)
    assert chosen.ui.fusedSelector.currentNode() == chosen._outcome.fusedVolume
    assert chosen.ui.statusLabel.text().startswith("Fused in ")


def test_a_scene_loaded_while_the_panel_is_open_keeps_its_choices(registered, tmp_path):
    ui, path = registered.ui, str(tmp_path / "scene.mrb")
    sentence = ui.verdictLabel.text()
    assert slicer.mrmlScene.WriteToMRB(path)
    ui.ctSelector.setCurrentNode(None)
    slicer.mrmlScene.Clear()
    assert slicer.mrmlScene.ReadFromMRB(path, True)
    names = [box.currentNode().GetName() for box in (ui.ctSelector, ui.mriSelector, ui.fusedSelector)]
    assert names == ["CT", "MRI", "MRI fused with CT"]
    assert ui.verdictLabel.text() == sentence
    assert ui.undoButton.isVisible()
    moved_by(ui.ctSelector.currentNode().GetParentTransformNode(), 15)
    assert "Changed since" in ui.verdictLabel.text()


def test_a_scene_saved_with_the_unregistered_ct_shown_loads_registered(registered, tmp_path):
    ui, path = registered.ui, str(tmp_path / "scene.mrb")
    ui.showUnregisteredButton.click()
    assert slicer.mrmlScene.WriteToMRB(path)
    slicer.mrmlScene.Clear()
    assert slicer.mrmlScene.ReadFromMRB(path, True)
    assert ui.ctSelector.currentNode().GetParentTransformNode() == ui.transformSelector.currentNode()
    assert not ui.showUnregisteredButton.isChecked()
    assert "The unregistered CT" not in ui.verdictLabel.text()
    assert ui.undoButton.isVisible()


def test_a_rule_that_a_scene_brings_and_that_is_gone_becomes_the_default(chosen, application):
    chosen.exit()
    chosen.logic.getParameterNode().rule = "removed"
    chosen.enter()
    assert chosen.ui.statusLabel.text().startswith("removed, chosen in this scene, is not available: ")
    assert chosen._parameterNode.rule == Settings().fusion.rule
    assert chosen.ui.fuseButton.isEnabled()


def test_reloading_the_module_ends_the_worker(chosen, nodes, application):
    chosen.ui.fuseButton.click()
    runner = chosen.logic._runner
    assert runner.child_pid is not None
    chosen.cleanup()
    assert not chosen.logic.running
    assert runner.child_pid is None


def test_without_torch_the_panel_explains_how_to_install_it(module, monkeypatch, nodes):
    import fakes

    monkeypatch.setattr(module.torch_setup, "torch_is_installed", lambda: False)
    panel = module.BrainFusionWidget(fakes.Panel())
    panel.setup()
    panel.enter()
    panel.ui.ctSelector.setCurrentNode(nodes[0])
    panel.ui.mriSelector.setCurrentNode(nodes[1])
    panel.ui.fuseButton.click()
    assert "Install the PyTorch extension" in panel.ui.statusLabel.text()
    panel.cleanup()


def test_the_tab_order_goes_from_the_inputs_to_the_review(panel):
    order, widget = [], panel.ui.ctSelector
    for _ in range(60):
        order.append(widget.objectName())
        widget = widget.nextInFocusChain()
    wanted = [
        "ctSelector",
        "mriSelector",
        "fusedSelector",
        "presetComboBox",
        "fuseButton",
        "fusedCheckBox",
        "jumpButton",
    ]
    places = [order.index(name) for name in wanted]
    assert places == sorted(places)


def test_sample_data_is_loaded_and_chosen(panel, nodes, monkeypatch):
    import contextlib
    import sys
    import types

    sample = types.ModuleType("SampleData")
    loaded = [
        slicer.mrmlScene.AddNewNodeByClass("vtkMRMLScalarVolumeNode", name)
        for name in ("CTBrain", "MRBrainT1", "MRBrainT2")
    ]
    sample.SampleDataLogic = lambda: types.SimpleNamespace(
        downloadSamples=lambda name: loaded if name == "CTMRBrain" else []
    )
    monkeypatch.setitem(sys.modules, "SampleData", sample)
    monkeypatch.setattr(slicer.util, "tryWithErrorDisplay", lambda *a, **k: contextlib.nullcontext(), raising=False)
    panel.ui.sampleDataButton.click()
    assert panel.ui.ctSelector.currentNode().GetName() == "CTBrain"
    assert panel.ui.mriSelector.currentNode().GetName() == "MRBrainT1"
