"""The headers of a node's DICOM files, found by Slicer's database, on their way to the worker."""

import sys
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("slicer", reason="slicer-core is not installed: pip install slicer-core==5.12.4.0")
pytest.importorskip("pydicom", reason="pydicom is not installed: pip install pydicom")

import pydicom
import slicer
import slicer.util

from BrainFusionLib.case import Pose, Request, Source
from BrainFusionLib.case.values import notes_of
from BrainFusionLib.geometry import RAS_FROM_LPS, Grid
from BrainFusionLib.transform import RigidTransform

sys.path.insert(0, str(Path(__file__).parents[2] / "BrainFusion"))  # as Slicer does with a module's folder
from BrainFusionSlicer import acquired, bridge, jobs

pytestmark = pytest.mark.filterwarnings("ignore:Setting the shape on a NumPy array:DeprecationWarning")

GRID = Grid((8, 8, 5), (2.0, 2.0, 3.0), (-7.0, 23.0, 34.0))  # its centre is 50 mm from the origin
UIDS = [f"1.2.3.{k}" for k in range(5)]


class FakeDatabase:
    """The one method that is used, of ctkDICOMDatabase: the file of a SOP instance, "" where it is not known."""

    def __init__(self, folder):
        self.folder = folder

    def fileForInstance(self, uid):  # noqa: N802
        file = self.folder / f"{uid}.dcm"
        return str(file) if file.exists() else ""


def write_header(path, uid, patient=""):
    data = pydicom.Dataset()
    data.file_meta = pydicom.dataset.FileMetaDataset()
    data.file_meta.TransferSyntaxUID = pydicom.uid.ExplicitVRLittleEndian
    data.SOPClassUID, data.SOPInstanceUID = "1.2.840.10008.5.1.4.1.1.4", uid
    data.Modality, data.Manufacturer, data.PatientName = "MR", "SIEMENS", "Doe^Jane"
    data.PatientID = patient
    data.ImageType, data.MagneticFieldStrength = ["ORIGINAL", "PRIMARY", "M", "ND"], 3
    data.Rows = data.Columns = 8
    data.BitsAllocated = data.BitsStored = 16
    data.HighBit, data.PixelRepresentation, data.SamplesPerPixel = 15, 0, 1
    data.PhotometricInterpretation, data.PixelData = "MONOCHROME2", bytes(128)
    data.save_as(path, enforce_file_format=True)


@pytest.fixture
def node():
    scene = slicer.vtkMRMLScene()
    made = scene.AddNewNodeByClass("vtkMRMLScalarVolumeNode", "T1")
    slicer.util.updateVolumeFromArray(made, np.zeros(GRID.shape_kji, np.int16))
    made.SetIJKToRASMatrix(bridge.vtk_matrix(RAS_FROM_LPS @ GRID.lps_from_ijk))
    made.SetAttribute("DICOM.instanceUIDs", " ".join(UIDS))
    # Keep the scene alive as long as its node.
    made.scene_of_test = scene
    return made


@pytest.fixture
def database(monkeypatch, tmp_path):
    monkeypatch.setattr(slicer, "dicomDatabase", FakeDatabase(tmp_path), raising=False)
    return tmp_path


def test_three_headers_of_a_node_say_how_it_was_acquired(node, database):
    for uid in (UIDS[0], UIDS[2], UIDS[4]):
        write_header(database / f"{uid}.dcm", uid)
    found = acquired.acquisition_of(node)
    assert (found.vendor, found.distortion_correction, found.field_t) == ("Siemens", "none", 3.0)
    assert found.slice_spacing_mm == pytest.approx(3.0)
    assert found.isocentre_mm == pytest.approx(50.0)


def test_a_transform_over_the_node_does_not_move_the_isocentre(node, database):
    write_header(database / f"{UIDS[0]}.dcm", UIDS[0])
    transform = node.GetScene().AddNewNodeByClass("vtkMRMLLinearTransformNode", "moved")
    matrix = np.eye(4)
    matrix[:3, 3] = 100
    transform.SetMatrixTransformToParent(bridge.vtk_matrix(matrix))
    node.SetAndObserveTransformNodeID(transform.GetID())
    assert acquired.acquisition_of(node).isocentre_mm == pytest.approx(50.0)


def test_without_a_database_files_or_sound_headers_nothing_is_known(node, monkeypatch, tmp_path):
    assert acquired.acquisition_of(node) is None
    monkeypatch.setattr(slicer, "dicomDatabase", FakeDatabase(tmp_path), raising=False)
    assert acquired.acquisition_of(node) is None
    (tmp_path / f"{UIDS[0]}.dcm").write_bytes(bytes(128) + b"DICM" + b"nonsense")
    assert acquired.acquisition_of(node) is None
    node.SetAttribute("DICOM.instanceUIDs", None)
    assert acquired.acquisition_of(node) is None


def test_the_worker_hears_what_the_headers_say(node, database, tmp_path):
    write_header(database / f"{UIDS[4]}.dcm", UIDS[4])
    raw = acquired.with_acquisition(bridge.raw_from_node(node), node)
    inputs = jobs.RawInputs(bridge.raw_from_node(node), raw)
    voxels = tmp_path / "voxels"
    voxels.mkdir()
    *_, job = jobs.write_job(Request(Source("CT"), Source("T1")), inputs.by_role(), voxels)
    line = jobs.job_to_line(job)
    assert b"Doe" not in line
    assert UIDS[4].encode() not in line
    read = jobs.read_inputs(jobs.job_from_line(line))
    assert read.mri.acquisition == raw.acquisition is not None
    assert read.ct.acquisition is None


@pytest.mark.parametrize(("of_mri", "is_noted"), [("ID-0815", True), ("ID-4711 ", False), ("", False)])
def test_the_worker_notes_two_patient_ids_and_hears_neither(node, database, tmp_path, of_mri, is_noted):
    raw = []
    for uid, patient in ((UIDS[0], "ID-4711"), (UIDS[2], of_mri)):
        write_header(database / f"{uid}.dcm", uid, patient)
        node.SetAttribute("DICOM.instanceUIDs", uid)
        raw.append(acquired.with_acquisition(bridge.raw_from_node(node), node))
    voxels = tmp_path / "voxels"
    voxels.mkdir()
    request = Request(Source("CT"), Source("T1"))
    *_, job = jobs.write_job(request, jobs.RawInputs(*raw).by_role(), voxels)
    line = jobs.job_to_line(job)
    assert not [one for one in ("4711", "0815", raw[0].acquisition.patient) if one.encode() in line]
    inputs = jobs.read_inputs(jobs.job_from_line(line))
    same = RigidTransform.identity()
    pose = Pose(same, same, "given", "")
    noted = notes_of(request, inputs, pose)
    assert any("different patient IDs" in note for note in noted) is is_noted
