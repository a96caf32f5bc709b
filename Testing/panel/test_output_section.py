"""The section "Output grid and export": what reaches the logic, the second press, Slicer's DICOM database."""

import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pydicom
import pytest
import slicer
import slicer.util
import vtk
from PySide6 import QtTest

from BrainFusionLib import read_transform
from BrainFusionLib.errors import Cancelled
from BrainFusionLib.geometry import Grid
from BrainFusionLib.io.other_transforms import Between
from BrainFusionLib.settings import OutputSettings
from BrainFusionLib.transform import RigidTransform

pytestmark = pytest.mark.filterwarnings("ignore:Setting the shape on a NumPy array:DeprecationWarning")


@pytest.fixture
def registered(panel, nodes, module, phantom):
    """The panel with a result as the logic leaves it, made by hand: nothing is computed."""
    from BrainFusionSlicer import currency, ownership, runner
    from BrainFusionSlicer.verdict_text import Card

    ct, mri = nodes
    panel.ui.ctSelector.setCurrentNode(ct)
    panel.ui.mriSelector.setCurrentNode(mri)
    module.bridge.move_ct_onto_mri(ct, mri, phantom.transform)
    fused = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLScalarVolumeNode", "fused")
    module.bridge.node_from_volume(phantom.mri, fused)
    ownership.mark(fused, "fused", ct, mri)
    ownership.note_registered_ct(fused, ct)
    prints = currency.prints_of(ct, mri)
    verdict = currency.StoredVerdict(Card("green", "Green"), None, None, (0.0, 0.0, 0.0), (0.0, 1.0), *prints)
    currency.store(fused, verdict)
    panel.ui.fusedSelector.setCurrentNode(fused)
    panel.logic._runner = runner.InProcessRunner()
    panel.updatePanel()
    return panel


@pytest.fixture
def exportable(registered, module, monkeypatch):
    """A panel with a result that can be exported; its runner writes one DICOM file."""
    monkeypatch.setattr(module.dicom_export, "whatIsMissingForExport", lambda node: None)
    monkeypatch.setattr(module.dicom_export, "orderFor", lambda node, folder, anyway: (SimpleNamespace(), folder))

    def export(order, folder, progress, done):
        data = pydicom.Dataset()
        data.file_meta = pydicom.dataset.FileMetaDataset()
        data.file_meta.TransferSyntaxUID = pydicom.uid.ExplicitVRLittleEndian
        data.SOPClassUID, data.SOPInstanceUID = "1.2.840.10008.5.1.4.1.1.66.1", pydicom.uid.generate_uid()
        data.save_as(Path(folder) / "registration.dcm", enforce_file_format=True)
        done((str(Path(folder) / "registration.dcm"),), None)

    monkeypatch.setattr(registered.logic._runner, "export", export)
    registered.updatePanel()
    return registered


def doubts(monkeypatch, text):
    """Have the result be in doubt, as departing.doubt_of says it."""
    departing = sys.modules["BrainFusionSlicer.departing"]
    monkeypatch.setattr(departing, "doubt_of", lambda node: departing.Doubt("RED", text))


def test_the_output_grid_reaches_the_logic_and_is_kept_in_the_scene(panel, nodes, monkeypatch):
    asked = []
    panel.ui.ctSelector.setCurrentNode(nodes[0])
    panel.ui.mriSelector.setCurrentNode(nodes[1])
    monkeypatch.setattr(
        panel.logic, "startFusion", lambda *volumes, **options: asked.append(options["settings"].output)
    )
    ui = panel.ui
    ui.outputCollapsibleButton.setCollapsed(False)
    for index, expected in ((0, None), (1, "ct"), (2, "union"), (3, 1.0)):
        ui.gridComboBox.setCurrentIndex(index)
        assert ui.spacingSpinBox.isVisible() == (index == 3)
        panel.startFusion()
        assert asked[-1] == OutputSettings(grid=expected)
    ui.spacingSpinBox.setValue(0.75)
    panel.startFusion()
    assert asked[-1] == OutputSettings(grid=0.75)
    panel.exit()
    panel.enter()
    assert (ui.gridComboBox.currentText, ui.spacingSpinBox.value) == ("Isotropic", 0.75)


def test_a_spacing_is_typed_digit_by_digit(panel):
    ui = panel.ui
    ui.outputCollapsibleButton.setCollapsed(False)
    ui.gridComboBox.setCurrentIndex(3)
    for typed in ("0.75", "1.25", "10"):
        ui.spacingSpinBox.selectAll()
        QtTest.QTest.keyClicks(ui.spacingSpinBox, typed)
        assert ui.spacingSpinBox.value == float(typed)
        assert float(panel._parameterNode.parameterNode.GetParameter("outputSpacing")) == float(typed)


def test_a_bone_that_was_saved_and_loaded_is_not_taken_for_a_changed_one(module, tmp_path):
    segmentations = sys.modules["BrainFusionSlicer.segmentations"]
    mask = np.zeros((9, 8, 7), bool)
    mask[3:6, 2:5, 4:6] = True
    bone, loaded = (slicer.mrmlScene.AddNewNodeByClass("vtkMRMLSegmentationNode", "bone") for _n in range(2))
    segmentations.fill(
        bone, mask, Grid((7, 8, 9), (0.5, 0.5, 2.0), (10.0, 20.0, 30.0)).lps_from_ijk, None, (1.0, 1.0, 1.0)
    )
    storage = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLSegmentationStorageNode")
    storage.SetFileName(str(tmp_path / "bone.seg.nrrd"))
    assert storage.WriteData(bone)
    assert storage.ReadData(loaded)
    image = loaded.GetSegmentation().GetNthSegment(0).GetRepresentation("Binary labelmap")
    assert image.GetDimensions() != (7, 8, 9)  # Slicer has cut the margins off
    assert segmentations.content_of(loaded) == segmentations.content_of(bone)
    image.GetPointData().GetScalars().SetTuple1(0, 0)
    assert segmentations.content_of(loaded) != segmentations.content_of(bone)


def test_the_bone_is_a_segmentation_of_the_pair_and_a_changed_one_is_kept(chosen, nodes, runner):
    above = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLLinearTransformNode", "above the MRI")
    nodes[1].SetAndObserveTransformNodeID(above.GetID())
    chosen.ui.fuseButton.click()
    assert not slicer.util.getNodesByClass("vtkMRMLSegmentationNode")
    chosen.ui.boneCheckBox.click()
    for _time in range(2):
        chosen.ui.fuseButton.click()
        assert chosen.ui.statusLabel.text.startswith("Fused in"), chosen.ui.statusLabel.text
    (bone,) = slicer.util.getNodesByClass("vtkMRMLSegmentationNode")
    assert (bone.GetName(), bone.GetParentTransformNode()) == ("bone of CT", nodes[0].GetParentTransformNode())
    of_bone, of_mri = vtk.vtkMatrix4x4(), vtk.vtkMatrix4x4()
    bone.GetSegmentation().GetNthSegment(0).GetRepresentation("Binary labelmap").GetImageToWorldMatrix(of_bone)
    nodes[1].GetIJKToRASMatrix(of_mri)
    worlds = [
        slicer.util.arrayFromTransformMatrix(node.GetParentTransformNode(), toWorld=True)
        @ slicer.util.arrayFromVTKMatrix(own)
        for node, own in ((bone, of_bone), (nodes[1], of_mri))
    ]
    np.testing.assert_allclose(*worlds, atol=1e-6)
    assert bone.GetDisplayNode().GetVisibility2DOutline()
    assert not bone.GetDisplayNode().GetVisibility2DFill()
    bone.GetSegmentation().GetNthSegment(0).SetName("drilled")
    chosen.ui.fuseButton.click()
    assert len(slicer.util.getNodesByClass("vtkMRMLSegmentationNode")) == 2
    assert "bone of CT was changed since it was made: it was kept, and a new one" in chosen.ui.statusLabel.text
    assert bone.GetSegmentation().GetNthSegment(0).GetName() == "drilled"
    chosen.exit()
    chosen.enter()
    assert chosen.ui.boneCheckBox.checked


@pytest.mark.parametrize("start", ["Automatic", "Skip"])
@pytest.mark.parametrize("reference", ["MRI", "CT"])
def test_the_bone_is_where_the_ct_is_whatever_moves_it(chosen, nodes, runner, reference, start):
    """A planner may draw on it: it must not stay behind in an earlier pose."""
    ui, (ct, mri) = chosen.ui, nodes
    for box, words in ((ui.referenceComboBox, reference), (ui.startComboBox, start)):
        box.setCurrentIndex(box.findText(words))
    ui.boneCheckBox.click()
    ui.fuseButton.click()
    (bone,) = slicer.util.getNodesByClass("vtkMRMLSegmentationNode")

    def apart():
        of_both = vtk.vtkMatrix4x4()
        parents = bone.GetParentTransformNode(), ct.GetParentTransformNode()
        slicer.vtkMRMLTransformNode.GetMatrixTransformBetweenNodes(*parents, of_both)
        return np.abs(slicer.util.arrayFromVTKMatrix(of_both) - np.eye(4)).max()

    assert apart() < 1e-9
    assert "Moved with" not in ui.statusLabel.text, "the bone is counted among the user's nodes"
    ui.startComboBox.setCurrentIndex(ui.startComboBox.findText("Automatic"))
    ui.registerButton.click()
    moved = mri if reference == "CT" else ct
    turned = slicer.util.arrayFromTransformMatrix(moved.GetParentTransformNode()) @ np.diag([-1.0, -1.0, 1.0, 1.0])
    slicer.util.updateTransformMatrixFromArray(moved.GetParentTransformNode(), turned)
    assert apart() < 1e-9
    for button in (ui.refineButton, ui.showUnregisteredButton, ui.showUnregisteredButton, ui.undoButton):
        button.click()
        assert apart() < 1e-9
    while ui.undoButton.isVisible() and ui.undoButton.isEnabled():
        ui.undoButton.click()
        assert apart() < 1e-9
    assert bone.GetParentTransformNode() is None


@pytest.mark.parametrize("turned_deg", [10, 0])
def test_a_bone_that_was_hardened_is_not_moved_again(chosen, runner, turned_deg):
    ui, runner.pose = chosen.ui, RigidTransform.from_axis_angle((1, 2, 3), turned_deg, (8.0, -3.0, 5.0))
    ui.boneCheckBox.click()
    ui.fuseButton.click()
    (bone,) = slicer.util.getNodesByClass("vtkMRMLSegmentationNode")
    bone.HardenTransform()
    for button in (ui.showUnregisteredButton, ui.showUnregisteredButton, ui.undoButton, ui.registerButton):
        button.click()
        assert bone.GetParentTransformNode() is None


def test_a_grid_of_a_scene_that_is_not_offered_becomes_the_default(panel):
    panel._parameterNode.parameterNode.SetParameter("outputGrid", "mm_7")
    panel.exit()
    panel.enter()
    assert panel.ui.gridComboBox.currentText == "MRI"
    assert "mm_7, chosen in this scene, is not available" in panel.ui.statusLabel.text


def test_without_a_result_nothing_can_be_taken_along(panel):
    assert not panel.ui.saveTransformButton.isEnabled()
    assert panel.ui.saveTransformButton.toolTip == "Fuse first"
    assert not panel.ui.databaseButton.isEnabled()


@pytest.mark.parametrize(("index", "suffix"), [(0, ".tfm"), (2, ".lta"), (4, ".txt")])
def test_the_transform_is_saved_in_the_format_chosen(registered, module, monkeypatch, tmp_path, index, suffix):
    ui = registered.ui
    ui.transformAsComboBox.setCurrentIndex(index)
    monkeypatch.setattr(module.qt.QFileDialog, "getSaveFileName", lambda *words: str(tmp_path / "pose"), raising=False)
    ui.saveTransformButton.click()
    assert ui.statusLabel.text == f"The transform was saved: {tmp_path / f'pose{suffix}'}"
    departing = sys.modules["BrainFusionSlicer.departing"]
    fused = ui.fusedSelector.currentNode()
    grids = [departing.own_grid(node) for node in (ui.ctSelector.currentNode(), ui.mriSelector.currentNode())]
    found = read_transform(tmp_path / f"pose{suffix}", between=Between(*grids))
    pose = departing.pose_of(fused)
    assert np.allclose(found.moving_from_fixed_lps, pose.moving_from_fixed_lps, rtol=0, atol=1e-4)
    ui.undoButton.click()
    assert "not where the registration moved it" in ui.saveTransformButton.toolTip


def test_fsls_matrix_is_saved_only_for_volumes_from_nifti_files(registered, module, monkeypatch, tmp_path):
    ui = registered.ui
    ui.transformAsComboBox.setCurrentIndex(3)
    monkeypatch.setattr(module.qt.QFileDialog, "getSaveFileName", lambda *words: str(tmp_path / "pose"), raising=False)
    for node, name in ((ui.ctSelector.currentNode(), "ct.nii.gz"), (ui.mriSelector.currentNode(), "mri.nii")):
        ui.saveTransformButton.click()
        assert "Not saved: FSL's matrices count in the voxels" in ui.statusLabel.text
        storage = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLVolumeArchetypeStorageNode")
        storage.SetFileName(str(tmp_path / name))
        node.SetAndObserveStorageNodeID(storage.GetID())
    ui.saveTransformButton.click()
    assert ui.statusLabel.text == f"The transform was saved: {tmp_path / 'pose.mat'}"


def test_results_go_into_the_database_and_no_file_is_left(exportable, database):
    ui = exportable.ui
    exportable.updatePanel()
    assert ui.databaseButton.isEnabled()
    ui.databaseButton.click()
    assert ui.statusLabel.text.startswith("1 DICOM files are in the database")
    assert set(database.files.values()) == {"copied"}


def test_files_that_the_database_does_not_take_are_an_error(exportable, database):
    database.takes = False
    exportable.updatePanel()
    exportable.ui.databaseButton.click()
    assert "did not take all files" in exportable.ui.statusLabel.text


def test_without_an_open_database_the_button_explains_it(exportable, database, monkeypatch):
    database.isOpen = False
    exportable.updatePanel()
    assert not exportable.ui.databaseButton.isEnabled()
    assert "No DICOM database is open" in exportable.ui.databaseButton.toolTip
    monkeypatch.delattr(slicer, "dicomDatabase")
    exportable.updatePanel()
    assert not exportable.ui.databaseButton.isEnabled()


def test_what_is_in_doubt_leaves_at_the_second_press_of_the_same_button(exportable, database, monkeypatch, tmp_path):
    asked = []
    monkeypatch.setattr(sys.modules["qt"].QFileDialog, "getExistingDirectory", lambda *words: asked.append(1) or "")
    doubts(monkeypatch, "the verdict on the alignment is red: 9 mm off")
    exportable.updatePanel()
    ui = exportable.ui
    ui.databaseButton.click()
    assert "red: 9 mm off. Click again to export it nevertheless" in ui.statusLabel.text
    assert not database.files
    ui.exportButton.click()  # another button: asked again
    assert not asked
    ui.databaseButton.click()
    assert not database.files
    doubts(monkeypatch, "changed since it was judged")  # another reason: asked again
    ui.databaseButton.click()
    assert not database.files
    ui.databaseButton.click()
    assert database.files
    assert "are in the database" in ui.statusLabel.text


def test_a_cancelled_export_names_what_it_has_left(chosen, tmp_path):
    chosen.onExported(None, Cancelled("cancelled"), "", str(tmp_path))
    assert chosen.ui.statusLabel.text == "Cancelled; nothing was written."
    (tmp_path / "fused").mkdir()
    (tmp_path / "registration.dcm").touch()
    chosen.onExported(None, Cancelled("cancelled"), "", str(tmp_path))
    assert chosen.ui.statusLabel.text.endswith(f"written is in {tmp_path}: fused, registration.dcm.")


def test_dialogs_begin_beside_the_mris_file_or_in_the_users_folder(chosen, nodes, monkeypatch, tmp_path):
    """By themselves they begin in Slicer's own folder, where nothing of the user's belongs."""
    from BrainFusionSlicer import departing

    monkeypatch.setattr(Path, "home", lambda: tmp_path)
    assert departing.folder_beside(None) == departing.folder_beside(nodes[1]) == tmp_path
    storage = nodes[1].CreateDefaultStorageNode()
    storage.UnRegister(None)
    slicer.mrmlScene.AddNode(storage)
    nodes[1].SetAndObserveStorageNodeID(storage.GetID())
    for name, folder in (("mri.nrrd", tmp_path), (str(tmp_path / "gone" / "mri.nrrd"), tmp_path)):
        storage.SetFileName(name)
        assert departing.folder_beside(nodes[1]) == folder
    (tmp_path / "head").mkdir()
    storage.SetFileName(str(tmp_path / "head" / "mri.nrrd"))
    asked = []
    dialogs = sys.modules["qt"].QFileDialog
    monkeypatch.setattr(dialogs, "getSaveFileName", lambda *words: asked.append(words[2]) or "")
    monkeypatch.setattr(dialogs, "getOpenFileName", lambda *words: asked.append(words[2]) or "")
    chosen.ui.fuseButton.click()
    for button in (chosen.ui.saveReportButton, chosen.ui.saveTransformButton, chosen.ui.openPoseButton):
        button.click()
    assert [Path(path) for path in asked] == [
        tmp_path / "head" / name for name in ("report.html", "ct_to_mri.tfm", ".")
    ]
