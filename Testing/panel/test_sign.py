"""The panel's section *Sign*: who decided what about the result in the scene, whether it holds, and the report."""

import sys
from types import SimpleNamespace

import numpy as np
import pytest
import slicer
import slicer.util
from window import wait

from BrainFusionLib import fuse
from BrainFusionLib.settings import FusionSettings, OutputSettings, Settings

pytestmark = pytest.mark.filterwarnings("ignore:Setting the shape on a NumPy array:DeprecationWarning")


@pytest.fixture(scope="session")
def made(phantom):
    return fuse(phantom.ct, phantom.mri, transform=phantom.transform, check=False)


@pytest.fixture
def signing(panel, nodes, made, application):
    """The panel after a fusion, whose result was computed before."""
    runner = sys.modules["BrainFusionSlicer.runner"].InProcessRunner()
    runner.run = lambda request, inputs, progress, done: done(made, None)
    panel.logic._runner = runner
    application.processEvents()  # chooses the pair
    panel.ui.fuseButton.click()
    assert panel.lastOutcome is not None, panel.ui.statusLabel.text
    panel.ui.signerEdit.setText("A. Surgeon")
    return panel


@pytest.fixture
def parts(module):
    """The files of the module that have no name in the panel's own."""
    return SimpleNamespace(
        decisions=sys.modules["BrainFusionSlicer.decisions"], jobs=sys.modules["BrainFusionSlicer.jobs"]
    )


def shown(panel):
    return panel.ui.decisionLabel.text, panel.ui.decisionsLabel.text


def move(ct, mm):
    transform = ct.GetParentTransformNode()
    matrix = slicer.util.arrayFromTransformMatrix(transform)
    matrix[0, 3] += mm
    slicer.util.updateTransformMatrixFromArray(transform, matrix)


def recolour(node, by=1):
    slicer.util.arrayFromVolume(node)[0, 0, 0] += by
    slicer.util.arrayFromVolumeModified(node)


def test_nothing_is_signed_without_a_result_or_a_name(panel, nodes, application, request):
    ui = panel.ui
    assert not ui.approveButton.isEnabled()
    assert ui.approveButton.toolTip == "Fuse first"
    assert not ui.saveReportButton.isEnabled()
    assert "not a legal signature" in ui.noSignatureLabel.text
    assert ui.signerEdit.text == ""
    request.getfixturevalue("signing")
    ui.signerEdit.setText("  ")
    ui.approveButton.click()
    assert "enter your name first" in ui.statusLabel.text
    ui.signerEdit.setText("A\u202eB")
    ui.approveButton.click()
    assert "Not signed: the name has a character that cannot be shown" in ui.statusLabel.text
    ui.signerEdit.setText("A")
    ui.commentButton.click()
    assert "a comment needs words" in ui.statusLabel.text
    assert shown(panel)[0].endswith("Neither approved nor rejected")


def test_decisions_are_added_shown_and_saved_with_the_scene(signing, parts, tmp_path):
    ui = signing.ui
    ui.commentEdit.setText("left orbit")
    ui.rejectButton.click()
    assert shown(signing)[0] == "✖ Rejected"
    assert "Rejected by A. Surgeon" in shown(signing)[1]
    assert shown(signing)[1].endswith("left orbit")
    assert ui.commentEdit.text == ""
    fused = ui.fusedSelector.currentNode()
    assert parts.decisions.is_rejected(fused)
    ui.commentEdit.setText("looked again")
    ui.commentButton.click()
    assert shown(signing)[0] == "✖ Rejected"
    ui.approveButton.click()
    assert shown(signing)[0] == "✔ Approved"
    assert [line[:8] for line in shown(signing)[1].splitlines()] == ["Approved", "Comment ", "Rejected"]
    assert not parts.decisions.is_rejected(fused)
    path = str(tmp_path / "scene.mrb")
    assert slicer.mrmlScene.WriteToMRB(path)
    before = shown(signing)
    slicer.mrmlScene.Clear()
    assert shown(signing)[1] == ""
    assert slicer.mrmlScene.ReadFromMRB(path, True)
    assert shown(signing) == before
    assert ui.saveReportButton.isEnabled(), ui.saveReportButton.toolTip


def test_any_change_makes_a_decision_void_until_it_is_taken_back(signing, nodes, parts):
    ui, (ct, mri), fused = signing.ui, nodes, signing.ui.fusedSelector.currentNode()
    ui.approveButton.click()
    changes = (
        (lambda by: move(ct, by), "moved against each other"),
        (lambda by: recolour(ct, by), "voxels of CT were changed"),
        (lambda by: recolour(mri, by), "voxels of MRI were changed"),
        (lambda by: recolour(fused, by), "the fused volume was changed"),
    )
    for change, words in changes:
        change(1)
        heading, text = shown(signing)
        assert heading == "↻ Void: changed since it was approved or rejected"
        assert words in text
        assert parts.decisions.state_of(fused) == "void"
        assert not ui.approveButton.isEnabled()
        assert not ui.saveReportButton.isEnabled()
        assert signing._state.card.colour == "stale"
        assert "STALE" in sys.modules["BrainFusionSlicer.departing"].doubt_of(fused).mark
        change(-1)
        assert shown(signing)[0] == "✔ Approved"


def test_the_status_says_rejected_no_longer_once_the_pose_has_moved(signing, nodes):
    ui = signing.ui
    ui.rejectButton.click()
    assert ui.statusLabel.text == "Rejected."
    move(nodes[0], 1)
    assert ui.statusLabel.text == ""
    move(nodes[0], -1)
    assert ui.statusLabel.text == ""
    assert shown(signing)[0] == "✖ Rejected"


def test_a_changed_resampled_ct_makes_the_result_stale_and_its_decision_void(signing, nodes, parts, made, application):
    """A CT under a transform that is not linear is not moved: the resampled one is what is shown and exported."""
    signing.updatePanel()
    fused, ct = signing.ui.fusedSelector.currentNode(), nodes[0]
    currency = sys.modules["BrainFusionSlicer.currency"]
    resampled = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLScalarVolumeNode", "CT on MRI")
    slicer.util.updateVolumeFromArray(resampled, made.ct_in_mri.array_kji)
    currency.note_written(resampled)
    currency.note_place(resampled, nodes[1])
    sys.modules["BrainFusionSlicer.ownership"].note_registered_ct(fused, resampled)
    signing.updatePanel()
    signing.ui.approveButton.click()
    assert shown(signing)[0] == "✔ Approved"
    recolour(resampled)
    assert signing._state.card.colour == "stale"
    assert "CT on MRI was changed" in shown(signing)[1]
    recolour(resampled, -1)
    assert shown(signing)[0] == "✔ Approved"
    resampled.SetOrigin(1, 2, 3)
    assert signing._state.card.colour == "stale", "it lies elsewhere"
    assert ct.GetImageData() is not None


def test_a_check_does_not_say_that_an_edited_fused_volume_shows_an_earlier_pose(signing):
    signing.ui.checkButton.click()
    recolour(signing.ui.fusedSelector.currentNode())
    assert "was changed since it was made" in signing.ui.verdictFindingsLabel.text
    assert "earlier pose" not in signing.ui.verdictFindingsLabel.text


def test_the_report_has_ct_and_fused_volume_in_the_same_world_after_both_were_moved(signing, nodes, tmp_path):
    fused, (ct, mri) = signing.ui.fusedSelector.currentNode(), nodes
    moved = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLLinearTransformNode", "ACPC")
    matrix = slicer.util.arrayFromTransformMatrix(moved)
    matrix[0, 3] = 25.0
    slicer.util.updateTransformMatrixFromArray(moved, matrix)
    for node in (mri, ct.GetParentTransformNode(), fused):
        node.SetAndObserveTransformNodeID(moved.GetID())
    asked = []
    signing.logic._startWriting = lambda order, inputs, *calls: asked.append((order, inputs))
    report_export = sys.modules["BrainFusionSlicer.report_export"]
    registered = sys.modules["BrainFusionSlicer.exporting"]._registered
    pulled = []
    for results in (signing.lastOutcome, fused):
        signing.logic.startReport(results, tmp_path / "report.html")
        order, inputs = asked.pop()
        pulled.append(registered(inputs.ct.copied(), inputs.fused.copied(), order.ct_from_mri).array_kji)
    assert report_export.what_is_missing(fused, ct, mri) is None, "the verdict holds"
    assert np.abs(pulled[0] - np.rint(signing.lastOutcome.result.ct_in_mri.array_kji)).max() <= 1
    assert np.array_equal(*pulled)


def test_a_rejection_stays_in_force_while_pose_and_inputs_do(signing, nodes, parts):
    ui, fused = signing.ui, signing.ui.fusedSelector.currentNode()
    ui.rejectButton.click()
    move(nodes[0], 5)
    assert not parts.decisions.is_rejected(fused)
    move(nodes[0], -5)
    assert shown(signing)[0] == "✖ Rejected"
    ui.showUnregisteredButton.click()
    assert not ui.approveButton.isEnabled()
    assert ui.approveButton.toolTip == "The unregistered CT is shown"
    ui.showUnregisteredButton.click()
    assert shown(signing)[0] == "✖ Rejected"
    recolour(fused)
    assert parts.decisions.is_rejected(fused)


def test_a_decision_edited_in_the_scene_file_is_void(signing):
    signing.ui.approveButton.click()
    fused = signing.ui.fusedSelector.currentNode()
    text = fused.GetAttribute("BrainFusion.Decisions")
    fused.SetAttribute("BrainFusion.Decisions", text.replace("A. Surgeon", "B. Surgeon"))
    assert "the decision itself was edited" in shown(signing)[1]
    fused.SetAttribute("BrainFusion.Decisions", "{")
    assert shown(signing)[0].endswith("Neither approved nor rejected")


def test_nothing_is_signed_while_a_fusion_runs(signing):
    kept = []
    signing.logic._runner.run = lambda request, inputs, progress, done: kept.append(done)
    signing.ui.fuseButton.click()
    assert signing.logic.running
    for button in (signing.ui.approveButton, signing.ui.rejectButton, signing.ui.saveReportButton):
        assert not button.isEnabled()
    signing.updatePanel()
    next(section for section in signing.sections if section.UI == "SectionSign").onSign("approve")
    assert shown(signing)[1] == ""
    kept[0](None, ValueError("ended"))


def choose_file(module, monkeypatch, path):
    # As in PythonQt, which returns the name alone.
    monkeypatch.setattr(sys.modules["qt"].QFileDialog, "getSaveFileName", lambda *words: str(path))


@pytest.mark.parametrize("where", ["in the scene", "in a scene that was loaded"])
def test_the_report_is_the_commands_with_the_decisions(signing, module, monkeypatch, tmp_path, made, where):
    signing.ui.commentEdit.setText("<b>seen</b>")
    signing.ui.approveButton.click()
    if where != "in the scene":
        path = str(tmp_path / "scene.mrb")
        assert slicer.mrmlScene.WriteToMRB(path)
        slicer.mrmlScene.Clear()
        assert slicer.mrmlScene.ReadFromMRB(path, True)
    choose_file(module, monkeypatch, tmp_path / "case")
    signing.ui.saveReportButton.click()
    wait(signing, lambda: not signing.logic.running)
    assert signing.ui.statusLabel.text == f"The report was saved: {tmp_path / 'case.html'}"
    page = (tmp_path / "case.html").read_text(encoding="utf-8")
    assert "Approved by A. Surgeon" in page
    assert "&lt;b&gt;seen&lt;/b&gt;" in page
    assert made.verdict.sentence in page
    assert "<h1>BrainFusion: CT on MRI</h1>" in page
    signing.ui.saveReportButton.click()
    assert "is there already" in signing.ui.statusLabel.text


def test_a_cancelled_dialog_and_a_bad_place_write_nothing(signing, module, monkeypatch, tmp_path):
    before = signing.ui.statusLabel.text
    choose_file(module, monkeypatch, "")
    signing.ui.saveReportButton.click()
    assert signing.ui.statusLabel.text == before
    choose_file(module, monkeypatch, tmp_path / "none" / "report.html")
    signing.ui.saveReportButton.click()
    assert signing.ui.statusLabel.text.startswith("Not saved: ")


def test_a_report_goes_to_the_worker_and_back_without_loss(signing, parts, tmp_path):
    report_export = sys.modules["BrainFusionSlicer.report_export"]
    signing.ui.rejectButton.click()
    order, inputs = report_export.order_for(signing.ui.fusedSelector.currentNode(), tmp_path / "report.html")
    *_, message = parts.jobs.write_job(order, inputs.by_role(), tmp_path)
    read = parts.jobs.job_from_line(parts.jobs.job_to_line(message))
    assert (read.order.path, read.order.result) == (order.path, order.result)
    assert read.order.standings == order.standings
    assert set(parts.jobs.read_raw(read)) == {"fused", "ct", "mri"}


def test_a_report_of_another_grid_shows_the_mris(signing, module, nodes, phantom, monkeypatch, tmp_path):
    settings = Settings(fusion=FusionSettings("bone_over_mri"), output=OutputSettings(grid=6.0))
    coarse = fuse(phantom.ct, phantom.mri, settings, transform=phantom.transform, check=False)
    signing.logic._runner.run = lambda request, inputs, progress, done: done(coarse, None)
    signing.ui.fuseButton.click()
    choose_file(module, monkeypatch, tmp_path / "report.html")
    signing.ui.saveReportButton.click()
    assert signing.ui.statusLabel.text.startswith("The report was saved: ")
    assert "isotropic voxels of 6 mm" in (tmp_path / "report.html").read_text(encoding="utf-8")


def test_what_was_only_registered_is_signed_and_any_move_makes_it_void(chosen, nodes, runner, tmp_path):
    ui = chosen.ui
    ui.registerButton.click()
    ui.signerEdit.setText("A. Surgeon")
    assert not ui.saveReportButton.isEnabled()
    ui.approveButton.click()
    assert shown(chosen)[0] == "✔ Approved"
    move(nodes[0], 3)
    assert "Void" in shown(chosen)[0]
    move(nodes[0], -3)
    path = str(tmp_path / "scene.mrb")
    assert slicer.mrmlScene.WriteToMRB(path)
    slicer.mrmlScene.Clear()
    assert slicer.mrmlScene.ReadFromMRB(path, True)
    assert shown(chosen)[0] == "✔ Approved"
    ct = ui.ctSelector.currentNode()
    move(ct, 3)
    ui.checkButton.click()
    assert "Void" in shown(chosen)[0], "the approval of another pose holds"
    ui.rejectButton.click()
    assert shown(chosen)[0] == "✖ Rejected"
