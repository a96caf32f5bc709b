"""DICOM export on Slicer's real MRML classes, read back by the reader that Slicer's DICOM module uses.

Needs `pip install slicer-core==5.12.4.0`. Slicer's DICOM database needs Qt; what stands in for it follows
ctkDICOMDatabase::fileForInstance. What loads a series follows DICOMScalarVolumePlugin.loadFilesWithSeriesReader, with
the real vtkITKArchetypeImageSeriesScalarReader.
"""

import sys
import types
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

pytest.importorskip("slicer", reason="slicer-core is not installed: pip install slicer-core==5.12.4.0")
pytest.importorskip("pydicom", reason="pydicom is not installed: pip install pydicom")

import pydicom
import slicer
import slicer.util
import vtk

from BrainFusionLib.errors import GeometryError, ImageContentError, ImageFileError, SettingsError
from BrainFusionLib.geometry import Grid, apply_affine, rotation_matrix
from BrainFusionLib.io.dicom_attributes import FUSED, REGISTERED_CT
from BrainFusionLib.io.dicom_headers import DicomHeaders, Instance, read_headers
from BrainFusionLib.io.dicom_registration import read_dicom_registration
from BrainFusionLib.io.dicom_writing import write_dicom_series
from BrainFusionLib.transform import RigidTransform
from BrainFusionLib.volume import Volume

sys.path.insert(0, str(Path(__file__).parents[2] / "BrainFusion"))  # as Slicer does with a module's folder
from BrainFusionSlicer import bridge

pytestmark = pytest.mark.filterwarnings("ignore:Setting the shape on a NumPy array:DeprecationWarning")

POSE = RigidTransform.from_axis_angle((1, 2, 3), 8, (3, -2, 4))
MRI_GRID = Grid((20, 18, 10), (2.0, 2.5, 4.0), (-20.0, -25.0, 30.0), rotation_matrix((2, -1, 1), 20))
CT_GRID = Grid((30, 30, 20), (2.0, 2.0, 3.0), (-30.0, -30.0, 15.0))


class FakeDatabase:
    """The one method that is used, of ctkDICOMDatabase: the file of a SOP instance, "" where it is not known."""

    def __init__(self):
        self.files = {}

    def fileForInstance(self, uid):  # noqa: N802
        return self.files.get(uid, "")


def series_on_disk(folder, volume, kind):
    """A scan: written with our own writer (tested elsewhere) from headers that are made up."""
    first = pydicom.Dataset()
    first.PatientName, first.PatientID, first.StudyInstanceUID = "Doe^Jane", "ID-1", "1.2.3"
    first.SeriesInstanceUID, first.FrameOfReferenceUID, first.SeriesNumber = "1.2.3.4", "1.2.3.9", 4
    grid = volume.grid
    positions = np.array([apply_affine(grid.lps_from_ijk, (0, 0, k)) for k in range(grid.size_ijk[2])])
    to_centre = grid.direction @ ((np.array([*grid.size_ijk[:2], 1]) - 1) / 2 * grid.spacing_ijk_mm)
    headers = DicomHeaders(first, (Instance("1.2", "1.3", positions),), grid.direction, grid.direction, to_centre)
    return write_dicom_series(volume, folder, headers, kind)


def load_as_slicer_does(files, scene):
    """The GDCM way of DICOMScalarVolumePlugin: a node in RAS, with the UIDs of its slices."""
    reader = slicer.vtkITKArchetypeImageSeriesScalarReader()
    reader.SetArchetype(str(files[0]))
    for file in files:
        reader.AddFileName(str(file))
    reader.SetSingleFile(0)
    reader.SetOutputScalarTypeToNative()
    reader.SetDesiredCoordinateOrientationToNative()
    reader.SetUseNativeOriginOn()
    reader.SetDICOMImageIOApproachToGDCM()
    reader.Update()
    assert reader.GetErrorCode() == vtk.vtkErrorCode.NoError
    change = vtk.vtkImageChangeInformation()
    change.SetInputConnection(reader.GetOutputPort())
    change.SetOutputSpacing(1, 1, 1)
    change.SetOutputOrigin(0, 0, 0)
    change.Update()
    node = scene.AddNewNodeByClass("vtkMRMLScalarVolumeNode", "loaded")
    node.SetAndObserveImageData(change.GetOutputDataObject(0))
    node.SetRASToIJKMatrix(reader.GetRasToIjkMatrix())
    node.CreateDefaultDisplayNodes()
    node.SetAttribute("DICOM.instanceUIDs", " ".join(pydicom.dcmread(f).SOPInstanceUID for f in files))
    return node


@pytest.fixture
def scan(monkeypatch, tmp_path):
    """A scene with an MRI and a CT loaded from DICOM, fused by hand at a known pose."""
    fake = types.ModuleType("slicer.i18n")
    fake.tr = lambda text: text
    monkeypatch.setitem(sys.modules, "slicer.i18n", fake)
    from BrainFusionSlicer import dicom_export

    scene, database = slicer.vtkMRMLScene(), FakeDatabase()
    monkeypatch.setattr(slicer, "dicomDatabase", database, raising=False)
    rng = np.random.default_rng(0)
    nodes = {}
    for name, grid, kind in (("mri", MRI_GRID, FUSED), ("ct", CT_GRID, REGISTERED_CT)):
        values = rng.integers(0, 900, grid.shape_kji)
        files = series_on_disk(tmp_path / name, Volume(values, grid, name=name), kind)
        database.files.update({pydicom.dcmread(f).SOPInstanceUID: str(f) for f in files})
        nodes[name] = load_as_slicer_does(files, scene)
    nodes["ct"].SetName("CT")
    (tmp_path / "out").mkdir()
    made = SimpleNamespace(scene=scene, database=database, out=tmp_path / "out", export=dicom_export, **nodes)
    made.fused = fused_by_hand(made)
    return made


def fused_by_hand(scan):
    """What BrainFusionLogic leaves in the scene."""
    mri = bridge.volume_from_node(scan.mri)
    node = scan.scene.AddNewNodeByClass("vtkMRMLScalarVolumeNode", "fused")
    bridge.node_from_volume(mri.with_array(mri.array_kji + 0.25), node)
    node.GetDisplayNode().SetAutoWindowLevel(False)
    node.GetDisplayNode().SetWindowLevel(800, 500)
    node.SetNodeReferenceID("BrainFusion.CT", scan.ct.GetID())
    node.SetNodeReferenceID("BrainFusion.MRI", scan.mri.GetID())
    node.SetNodeReferenceID("BrainFusion.RegisteredCT", scan.ct.GetID())
    bridge.move_ct_onto_mri(scan.ct, scan.mri, POSE)
    judge(scan, node)
    return node


def judge(scan, node, colour="green"):
    """Store a verdict about the pair as it is now."""
    from BrainFusionSlicer import currency
    from BrainFusionSlicer.verdict_text import Card

    card = Card(colour, colour, findings=("The CT skull lies 9 mm from the skull in the MRI.",))
    prints = currency.prints_of(scan.ct, scan.mri)
    currency.store(node, currency.StoredVerdict(card, None, None, (0.0, 0.0, 0.0), (0.0, 1.0), *prints))


def under_a_transform(scan, node, angle=30.0):
    transform = scan.scene.AddNewNodeByClass("vtkMRMLLinearTransformNode", "user's")
    matrix = np.eye(4)
    matrix[:3, :3] = rotation_matrix((0, 1, 1), angle)
    matrix[:3, 3] = 11, -7, 5
    transform.SetMatrixTransformToParent(bridge.vtk_matrix(matrix))
    node.SetAndObserveTransformNodeID(transform.GetID())
    return matrix


def dicom_files(scan, node):
    return [scan.database.fileForInstance(uid) for uid in node.GetAttribute("DICOM.instanceUIDs").split()]


def ijk_to_ras(node):
    matrix = vtk.vtkMatrix4x4()
    node.GetIJKToRASMatrix(matrix)
    return slicer.util.arrayFromVTKMatrix(matrix)


def test_slicer_reads_both_series_where_the_mri_lies(scan):
    files = scan.export.exportResults(scan.fused, scan.out)
    assert {f.parent for f in files[:-1]} == {scan.out / "fused", scan.out / "ct_in_mri"}
    fused = load_as_slicer_does(files[:10], scan.scene)
    ct = load_as_slicer_does(files[10:20], scan.scene)
    for node in (fused, ct):
        np.testing.assert_allclose(ijk_to_ras(node), ijk_to_ras(scan.mri), atol=1e-6)
    array = slicer.util.arrayFromVolume(scan.mri)
    np.testing.assert_array_equal(slicer.util.arrayFromVolume(fused), array + 0.25)
    from BrainFusionLib.resample import resample_onto

    wanted = resample_onto(bridge.volume_from_node(scan.ct), bridge.volume_from_node(scan.mri).grid, POSE, fill=-1000.0)
    difference = slicer.util.arrayFromVolume(ct) - np.rint(wanted.array_kji)
    assert (difference != 0).mean() < 1e-3  # rounding of what lies between two whole numbers
    assert np.abs(difference).max() <= 1
    written = pydicom.dcmread(files[0])
    assert written.PatientName == "Doe^Jane"
    assert (written.StudyInstanceUID, written.FrameOfReferenceUID) == ("1.2.3", "1.2.3.9")
    assert (written.WindowWidth, written.WindowCenter) == (800, 500)


def test_each_slice_names_the_mri_slice_in_its_place(scan):
    uids = scan.mri.GetAttribute("DICOM.instanceUIDs").split()
    for k, file in enumerate(scan.export.exportResults(scan.fused, scan.out)[:10]):
        sources = [item.ReferencedSOPInstanceUID for item in pydicom.dcmread(file).SourceImageSequence]
        assert sources == [uids[k]]


def test_the_ct_is_taken_from_the_scene_though_the_run_had_one(scan):
    fused = bridge.volume_from_node(scan.fused)
    earlier = Volume(np.full(fused.grid.shape_kji, 123.0), fused.grid, "CT", "CT in MRI")
    outcome = SimpleNamespace(fusedVolume=scan.fused, result=SimpleNamespace(ct_in_mri=earlier))
    files = scan.export.exportResults(outcome, scan.out)
    assert not (slicer.util.arrayFromVolume(load_as_slicer_does(files[10:20], scan.scene)) == 123).any()


def test_user_transforms_do_not_move_what_is_written(scan):
    plain = scan.export.exportResults(scan.fused, scan.out)
    scan.scene.RemoveNode(scan.ct.GetParentTransformNode())
    scan.scene.RemoveNode(scan.fused)
    # The user turns the MRI, and moves the CT elsewhere, before fusing. The world's pose changes with them.
    mri_world = under_a_transform(scan, scan.mri)
    ct_world = under_a_transform(scan, scan.ct, -50.0)
    lps = np.diag([-1.0, -1, 1, 1])
    pose = lps @ ct_world @ lps @ POSE.moving_from_fixed_lps @ lps @ np.linalg.inv(mri_world) @ lps
    scan.fused = fused_by_hand(scan)
    bridge.move_ct_onto_mri(scan.ct, scan.mri, RigidTransform(pose))
    judge(scan, scan.fused)
    (scan.out / "moved").mkdir()
    moved = scan.export.exportResults(scan.fused, scan.out / "moved")
    headers = SimpleNamespace(
        ct=read_headers(dicom_files(scan, scan.ct)), mri=read_headers(dicom_files(scan, scan.mri))
    )
    for path in (plain[-1], moved[-1]):
        matrix = read_dicom_registration(path, lambda: (headers.ct, headers.mri))
        np.testing.assert_allclose(matrix, POSE.moving_from_fixed_lps, atol=1e-5)
    for one, other in zip(plain[:-1], moved[:-1], strict=True):
        one, other = pydicom.dcmread(one), pydicom.dcmread(other)
        np.testing.assert_allclose(list(other.ImagePositionPatient), list(one.ImagePositionPatient), atol=1e-5)
        np.testing.assert_allclose(list(other.ImageOrientationPatient), list(one.ImageOrientationPatient), atol=1e-6)
        assert np.abs(one.pixel_array.astype(int) - other.pixel_array).max() <= 1
        assert [s.ReferencedSOPInstanceUID for s in one.SourceImageSequence] == [
            s.ReferencedSOPInstanceUID for s in other.SourceImageSequence
        ]


def test_nothing_in_the_scene_changes(scan):
    before = scan.scene.GetNumberOfNodes(), ijk_to_ras(scan.ct), scan.ct.GetTransformNodeID()
    scan.export.exportResults(scan.fused, scan.out)
    assert scan.scene.GetNumberOfNodes() == before[0]
    np.testing.assert_array_equal(ijk_to_ras(scan.ct), before[1])
    assert scan.ct.GetTransformNodeID() == before[2]


def test_an_mri_that_is_not_from_dicom_is_refused(scan):
    scan.mri.RemoveAttribute("DICOM.instanceUIDs")
    assert "was not loaded from DICOM" in scan.export.whatIsMissingForExport(scan.fused)
    with pytest.raises(SettingsError, match="was not loaded from DICOM"):
        scan.export.exportResults(scan.fused, scan.out)
    assert list(scan.out.iterdir()) == []


def test_files_that_are_gone_are_told(scan):
    scan.database.files.clear()
    assert scan.export.whatIsMissingForExport(scan.fused) is None
    with pytest.raises(ImageFileError, match="Import them again"):
        scan.export.exportResults(scan.fused, scan.out)


def test_a_ct_that_is_not_from_dicom_is_no_matter(scan):
    scan.ct.RemoveAttribute("DICOM.instanceUIDs")
    files = scan.export.exportResults(scan.fused, scan.out)
    assert len(pydicom.dcmread(files[0]).RelatedSeriesSequence) == 1


def test_a_ct_that_was_taken_back_is_refused(scan):
    scan.ct.SetAndObserveTransformNodeID(None)
    with pytest.raises(ImageContentError, match="Fuse again"):
        scan.export.exportResults(scan.fused, scan.out, exportAnyway=True)


def test_an_mri_that_was_moved_for_good_is_refused(scan):
    under_a_transform(scan, scan.mri)
    scan.mri.HardenTransform()
    fused = fused_by_hand(scan)
    with pytest.raises(GeometryError, match="cannot share their frame of reference"):
        scan.export.exportResults(fused, scan.out)


def test_results_whose_inputs_are_gone_are_refused(scan):
    scan.scene.RemoveNode(scan.ct)
    assert "not in the scene" in scan.export.whatIsMissingForExport(scan.fused)
    assert scan.export.whatIsMissingForExport(None) is not None


def test_the_headers_are_those_that_the_database_has(scan):
    files = [scan.database.fileForInstance(uid) for uid in scan.mri.GetAttribute("DICOM.instanceUIDs").split()]
    assert read_headers(files).series_uid == pydicom.dcmread(files[0]).SeriesInstanceUID


def warped(scan, node):
    warp = scan.scene.AddNewNodeByClass("vtkMRMLGridTransformNode", "Acquisition transform")
    node.SetAndObserveTransformNodeID(warp.GetID())


def test_a_ct_under_a_transform_that_is_not_linear_is_written_as_it_was_registered(scan):
    scan.ct.SetAndObserveTransformNodeID(None)
    warped(scan, scan.ct)
    fused = bridge.volume_from_node(scan.fused)
    resampled = scan.scene.AddNewNodeByClass("vtkMRMLScalarVolumeNode", "CT on MRI")
    bridge.node_from_volume(Volume(np.full(fused.grid.shape_kji, 123.0), fused.grid, "CT"), resampled)
    scan.fused.SetNodeReferenceID("BrainFusion.RegisteredCT", resampled.GetID())
    judge(scan, scan.fused)
    assert scan.export.whatIsMissingForExport(scan.fused) is None
    files = scan.export.exportResults(scan.fused, scan.out)
    assert (slicer.util.arrayFromVolume(load_as_slicer_does(files[10:20], scan.scene)) == 123).all()
    scan.scene.RemoveNode(resampled)
    assert "registered CT of fused was removed" in scan.export.whatIsMissingForExport(scan.fused)


def test_an_mri_under_a_transform_that_is_not_linear_is_refused_for_that_reason(scan):
    warped(scan, scan.mri)
    reason = scan.export.whatIsMissingForExport(scan.fused)
    assert "is under a transform that is not linear" in reason
    with pytest.raises(SettingsError, match="not linear"):
        scan.export.exportResults(scan.fused, scan.out)


def test_what_a_killed_export_left_is_removed(scan):
    from BrainFusionSlicer.exporting import remove_what_a_kill_left

    (scan.out / "fused").mkdir()
    (scan.out / "fused" / "0001.dcm").write_bytes(b"half of the work")
    (scan.out / "the user's").mkdir()
    order, _inputs = scan.export.orderFor(scan.fused, scan.out)
    remove_what_a_kill_left(order, was_empty=False)
    assert sorted(path.name for path in scan.out.iterdir()) == ["fused", "the user's"]
    remove_what_a_kill_left(order, was_empty=True)
    assert [path.name for path in scan.out.iterdir()] == ["the user's"]


def test_cancelling_an_export_leaves_nothing(scan):
    order, inputs = scan.export.orderFor(scan.fused, scan.out)
    heard = []
    from BrainFusionSlicer.exporting import export

    from BrainFusionLib.errors import Cancelled

    with pytest.raises(Cancelled):
        export(order, inputs, lambda *said: heard.append(said), lambda: len(heard) > 12)
    assert list(scan.out.iterdir()) == []


@pytest.mark.parametrize("name", ["registration.dcm", "bone.dcm"])
def test_a_file_called_as_a_result_is_neither_replaced_nor_removed(scan, name):
    (scan.out / name).write_bytes(b"the user's")
    with pytest.raises(ImageFileError, match=f"{name}: exists. Move it elsewhere"):
        scan.export.exportResults(scan.fused, scan.out)
    assert [(path.name, path.read_bytes()) for path in scan.out.iterdir()] == [(name, b"the user's")]


def test_a_registration_is_written_beside_the_series(scan):
    files = scan.export.exportResults(scan.fused, scan.out)
    assert files[-1] == scan.out / "registration.dcm"
    headers = [read_headers(dicom_files(scan, node)) for node in (scan.ct, scan.mri)]
    matrix = read_dicom_registration(files[-1], lambda: tuple(headers))
    np.testing.assert_allclose(matrix, POSE.moving_from_fixed_lps, atol=1e-5)
    # And back into the scene, as a pose to check.
    from BrainFusionSlicer import pose_files, poses

    node = pose_files.load(files[-1], scan.ct, scan.mri)
    read = poses.pose_from_node(node).moving_from_fixed_lps
    np.testing.assert_allclose(read, POSE.moving_from_fixed_lps, atol=1e-5)
    for uid in scan.ct.GetAttribute("DICOM.instanceUIDs").split():
        del scan.database.files[uid]
    (scan.out / "more").mkdir()
    assert not [f for f in scan.export.exportResults(scan.fused, scan.out / "more") if f.name == "registration.dcm"]


@pytest.mark.parametrize("saved", [False, True], ids=["as made", "with the margins cut off"])
def test_the_bone_is_written_beside_the_series_where_the_mri_has_it_unless_the_user_has_changed_it(scan, saved):
    hd = pytest.importorskip("highdicom", reason="highdicom is not installed: pip install highdicom")
    from BrainFusionSlicer import currency, ownership, segmentations

    node = scan.scene.AddNewNodeByClass("vtkMRMLSegmentationNode", "bone")
    ownership.mark(node, ownership.BONE, scan.ct, scan.mri)
    bone = np.zeros(MRI_GRID.shape_kji, bool)
    bone[3:7, 5:9, 6:12] = True
    # It stands under the CT's transform, on the MRI's voxels, wherever the user has put the MRI.
    world = bridge.world_ras_from_parent(scan.mri.GetParentTransformNode(), "MRI")
    on_mri = bridge.RAS_FROM_LPS @ world @ bridge.RAS_FROM_LPS @ MRI_GRID.lps_from_ijk
    first = np.eye(4)
    first[:3, 3] = (6, 5, 3) if saved else (0, 0, 0)
    drawn = bone[3:7, 5:9, 6:12] if saved else bone
    segmentations.fill(node, drawn, on_mri @ first, scan.ct.GetParentTransformNode(), segmentations.BONE_COLOUR)
    currency.note_written(node)
    files = scan.export.exportResults(scan.fused, scan.out)
    assert files[-1] == scan.out / "bone.dcm"
    read = hd.seg.segread(files[-1])
    assert read.StudyInstanceUID == pydicom.dcmread(dicom_files(scan, scan.mri)[0]).StudyInstanceUID
    assert "HU in the head" in read.ContentDescription or "bone in the head" in read.ContentDescription
    volume = read.get_volume(combine_segments=True)
    found = np.argwhere(volume.array > 0)
    ends = [apply_affine(volume.affine, found.min(axis=0)), apply_affine(volume.affine, found.max(axis=0))]
    expected = [apply_affine(MRI_GRID.lps_from_ijk, ijk) for ijk in ((6, 5, 3), (11, 8, 6))]
    off = min(np.abs(np.subtract(ends, expected[::step])).max() for step in (1, -1))
    assert len(found) == bone.sum()
    assert off < 1e-3 or np.allclose(np.mean(ends, axis=0), np.mean(expected, axis=0), atol=1e-3)
    node.GetSegmentation().GetNthSegment(0).SetName("mine")
    (scan.out / "more").mkdir()
    assert not [f for f in scan.export.exportResults(scan.fused, scan.out / "more") if f.name == "bone.dcm"]


def test_what_is_red_or_changed_leaves_only_if_it_is_asked_for_and_says_so(scan):
    judge(scan, scan.fused, "red")
    with pytest.raises(SettingsError, match="the verdict on the alignment is red: The CT skull lies 9 mm"):
        scan.export.exportResults(scan.fused, scan.out)
    assert not list(scan.out.iterdir())
    bridge.move_ct_onto_mri(scan.ct, scan.mri, RigidTransform.identity())
    with pytest.raises(SettingsError, match="changed since it was judged"):
        scan.export.exportResults(scan.fused, scan.out)
    for path in scan.export.exportResults(scan.fused, scan.out, exportAnyway=True):
        assert pydicom.dcmread(path).SeriesDescription.startswith("RED, STALE! BrainFusion")
    (scan.out / "more").mkdir()
    scan.fused.RemoveAttribute("BrainFusion.Verdict")
    with pytest.raises(SettingsError, match="has no verdict"):
        scan.export.exportResults(scan.fused, scan.out / "more")


def test_a_fused_volume_on_the_cts_voxels_is_written_into_the_mris_frame(scan):
    turned = CT_GRID.moved(POSE.inverse().moving_from_fixed_lps)
    ct = bridge.volume_from_node(scan.ct)
    voxels = slicer.util.arrayFromVolume(scan.ct)
    bridge.node_from_volume(Volume(voxels, turned, "MR", "fused"), scan.fused)
    scan.fused.SetAttribute("BrainFusion.OutputGrid", "ct")
    judge(scan, scan.fused)
    files = scan.export.exportResults(scan.fused, scan.out)
    assert pydicom.dcmread(files[0]).FrameOfReferenceUID == "1.2.3.9"
    count = CT_GRID.size_ijk[2]
    for series in (files[:count], files[count : 2 * count]):
        node = load_as_slicer_does(series, scan.scene)
        np.testing.assert_allclose(ijk_to_ras(node), ijk_to_ras(scan.fused), atol=1e-5)
        np.testing.assert_array_equal(slicer.util.arrayFromVolume(node), ct.array_kji)
    scan.mri.SetOrigin(1, 2, 3)  # moved since it was loaded
    judge(scan, scan.fused)
    (scan.out / "more").mkdir()
    with pytest.raises(GeometryError, match="cannot share their frame of reference"):
        scan.export.exportResults(scan.fused, scan.out / "more")


@pytest.mark.parametrize("turned", [False, True], ids=["as loaded", "under transforms"])
def test_with_the_ct_as_reference_the_mri_is_written_into_the_cts_study(scan, turned):
    from BrainFusionSlicer import ownership

    lps = np.diag([-1.0, -1, 1, 1])
    scan.scene.RemoveNode(scan.ct.GetParentTransformNode())
    scan.scene.RemoveNode(scan.fused)
    ct_world, mri_world = np.eye(4), np.eye(4)
    if turned:
        ct_world, mri_world = under_a_transform(scan, scan.ct, -50.0), under_a_transform(scan, scan.mri)
    parent = scan.ct.GetParentTransformNode()
    pose = RigidTransform(lps @ ct_world @ lps @ POSE.moving_from_fixed_lps @ lps @ np.linalg.inv(mri_world) @ lps)
    bridge.move_ct_onto_mri(scan.ct, scan.mri, pose, "MRI to CT", reference="ct")
    node = scan.scene.AddNewNodeByClass("vtkMRMLScalarVolumeNode", "fused")
    ct = bridge.volume_from_node(scan.ct)
    bridge.node_from_volume(ct.with_array(ct.array_kji + 0.25), node, parent)
    ownership.mark(node, "fused", scan.ct, scan.mri, "ct")
    ownership.note_registered_ct(node, scan.ct)
    node.SetAttribute(ownership.GRID_ATTRIBUTE, "ct")
    judge(scan, node)
    files = scan.export.exportResults(node, scan.out)
    assert {f.parent for f in files[:-1]} == {scan.out / "fused", scan.out / "mri_in_ct"}
    fused, mri = (load_as_slicer_does(part, scan.scene) for part in (files[:20], files[20:40]))
    for loaded in (fused, mri):
        np.testing.assert_allclose(ijk_to_ras(loaded), ijk_to_ras(scan.ct), atol=1e-6)
    np.testing.assert_array_equal(slicer.util.arrayFromVolume(fused), slicer.util.arrayFromVolume(scan.ct) + 0.25)
    from BrainFusionLib.resample import resample_onto

    scan.mri.SetAndObserveTransformNodeID(None)
    own = bridge.volume_from_node(scan.mri)
    wanted = resample_onto(own, CT_GRID, POSE.inverse(), fill=0.0).array_kji
    there = slicer.util.arrayFromVolume(mri)
    inside = wanted > 0
    assert np.abs(there - wanted)[inside].max() < 1
    assert pydicom.dcmread(files[0]).StudyInstanceUID == pydicom.dcmread(dicom_files(scan, scan.ct)[0]).StudyInstanceUID
    headers = [read_headers(dicom_files(scan, volume)) for volume in (scan.ct, scan.mri)]
    matrix = read_dicom_registration(files[-1], lambda: tuple(headers))
    np.testing.assert_allclose(matrix, POSE.moving_from_fixed_lps, atol=1e-5)
    scan.mri.RemoveAttribute("DICOM.instanceUIDs")
    assert scan.export.whatIsMissingForExport(node) is None
    scan.ct.RemoveAttribute("DICOM.instanceUIDs")
    assert "was not loaded from DICOM" in scan.export.whatIsMissingForExport(node)
