"""The tutorial, from two DICOM series to an approved report and a registration in the archive, by visible buttons."""

import sys
from pathlib import Path

import numpy as np
import pydicom
import pytest
import slicer

from BrainFusionLib import read_volume
from BrainFusionLib.geometry import apply_affine
from BrainFusionLib.volume import Volume
from Testing.test_dicom_writing import write_scan

pytestmark = pytest.mark.filterwarnings("ignore:Setting the shape on a NumPy array:DeprecationWarning")


@pytest.fixture
def loaded(module, phantom, database, tmp_path):
    """A CT and an MRI of one head, in unknown poses, as Slicer's DICOM module leaves them in scene and database."""
    nodes = {}
    for volume, modality, series in ((phantom.ct, "CT", "1.2.3.1"), (phantom.mri, "MR", "1.2.3.2")):
        largest = float(np.abs(volume.array_kji).max())
        whole = np.rint(volume.array_kji * (1 if modality == "CT" else 4000 / largest))
        folder = write_scan(
            Volume(whole, volume.grid, modality), tmp_path / modality, modality,
            SeriesInstanceUID=series, FrameOfReferenceUID=f"{series}.9", RescaleIntercept=0, RescaleSlope=1,
        )  # fmt: skip
        slices = {pydicom.dcmread(path).SOPInstanceUID: str(path) for path in folder.iterdir()}
        database.files.update(slices)
        node = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLScalarVolumeNode", modality)
        module.bridge.node_from_volume(read_volume(folder), node)
        node.SetAttribute("DICOM.instanceUIDs", " ".join(slices))
        nodes[modality] = node
    return nodes


@pytest.fixture
def press(panel):
    """Click a button as a user can: its section is opened, and it is seen and enabled."""

    def pressed(name):
        button = getattr(panel.ui, name)
        for section in ("outputs", "output", "sign", "correct", "threeD", "error", "landmarks"):
            getattr(panel.ui, f"{section}CollapsibleButton").setCollapsed(False)
        assert button.isVisible(), name
        assert button.isEnabled(), f"{name}: {button.toolTip}"
        button.click()

    return pressed


def test_a_planners_session_from_dicom_to_the_archive(
    panel, press, loaded, phantom, database, tmp_path, monkeypatch, application
):
    ui, files = panel.ui, sys.modules["qt"].QFileDialog
    panel.logic._runner = sys.modules["BrainFusionSlicer.runner"].InProcessRunner()
    application.processEvents()
    assert (ui.ctSelector.currentNode(), ui.mriSelector.currentNode()) == (loaded["CT"], loaded["MR"])

    press("fuseButton")
    assert ui.statusLabel.text.startswith("Fused in"), ui.statusLabel.text
    assert panel._state.card.colour == "green", panel._state.card.text

    for look in ("jumpButton", "overlayButton", "outlineButton", "checkerboardButton"):
        press(look)
    for _again in range(2):
        press("showUnregisteredButton")
    press("checkButton")
    assert panel._state.card.colour == "green", panel._state.card.text

    ui.signerEdit.setText("A. Surgeon")
    press("approveButton")
    assert ui.decisionLabel.text == "✔ Approved"
    report = tmp_path / "report.html"
    monkeypatch.setattr(files, "getSaveFileName", lambda *words: str(report), raising=False)
    press("saveReportButton")
    assert "Approved by A. Surgeon" in report.read_text(encoding="utf-8"), ui.statusLabel.text
    assert ui.statusLabel.text.endswith("It has the verdict of the fusion, not of the later check.")

    archive = tmp_path / "archive"
    archive.mkdir()
    monkeypatch.setattr(files, "getExistingDirectory", lambda *words: str(archive), raising=False)
    press("exportButton")
    assert_registration_is_right(archive / "registration.dcm", phantom)
    before = set(database.files)
    press("databaseButton")
    assert "are in the database" in ui.statusLabel.text
    exported = {pydicom.dcmread(path, stop_before_pixels=True).SOPClassUID.name for path in archive.rglob("*.dcm")}
    assert "Spatial Registration Storage" in exported
    assert len(set(database.files) - before) == len(list(archive.rglob("*.dcm")))
    assert ui.decisionLabel.text == "✔ Approved"


@pytest.fixture
def of_two_patients(panel, press, loaded, database, application):
    """The panel after a fusion of a CT and an MRI with different patient IDs."""
    for uid in loaded["CT"].GetAttribute("DICOM.instanceUIDs").split():
        with pydicom.dcmread(database.files[uid]) as header:
            header.PatientID = "another one"
            header.save_as(database.files[uid])
    panel.logic._runner = sys.modules["BrainFusionSlicer.runner"].InProcessRunner()
    application.processEvents()
    press("fuseButton")
    return panel


FOR_WHOM = "written for the patient of MR: CT and MRI have different patient IDs."


def test_two_patient_ids_are_said_in_the_panel_its_report_and_its_exports(
    of_two_patients, press, tmp_path, monkeypatch
):
    ui, files = of_two_patients.ui, sys.modules["qt"].QFileDialog
    assert "different patient IDs" in ui.verdictFindingsLabel.text
    report = tmp_path / "report.html"
    monkeypatch.setattr(files, "getSaveFileName", lambda *words: str(report), raising=False)
    press("saveReportButton")
    page = report.read_text(encoding="utf-8")
    assert "different patient IDs" in page
    assert "another one" not in page
    archive = tmp_path / "archive"
    archive.mkdir()
    monkeypatch.setattr(files, "getExistingDirectory", lambda *words: str(archive), raising=False)
    for button in ("exportButton", "databaseButton"):
        press(button)
        assert ui.statusLabel.text.endswith(FOR_WHOM)


def test_for_which_of_two_patients_is_said_though_the_panel_was_left_meanwhile(of_two_patients, press, monkeypatch):
    monkeypatch.setattr(of_two_patients, "showProgress", lambda stage, fraction: of_two_patients.exit())
    press("databaseButton")
    assert FOR_WHOM in of_two_patients.ui.statusLabel.text


def assert_registration_is_right(path: Path, phantom):
    """Read a registration by pydicom alone: the MRI's frame is the registered one, and the CT's points come near."""
    data = pydicom.dcmread(path)
    assert data.FrameOfReferenceUID == "1.2.3.2.9"
    matrices = {
        item.FrameOfReferenceUID: np.array(
            item.MatrixRegistrationSequence[0].MatrixSequence[0].FrameOfReferenceTransformationMatrix, float
        ).reshape(4, 4)
        for item in data.RegistrationSequence
    }
    np.testing.assert_array_equal(matrices["1.2.3.2.9"], np.eye(4))
    points = phantom.mri.grid.centre_lps_mm + 40.0 * np.concatenate([np.eye(3), -np.eye(3)])
    moved = apply_affine(matrices["1.2.3.1.9"], phantom.transform.apply(points))
    assert np.linalg.norm(moved - points, axis=1).max() < 0.5
