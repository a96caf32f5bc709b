"""DICOM registrations and the DICOM results of other grids, read by ourselves and by an independent reader."""

from __future__ import annotations

import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest
import SimpleITK as sitk
from pydicom.dataset import Dataset
from pydicom.uid import generate_uid

from BrainFusionLib import cli, folder, fuse, read_transform, read_volume, write_transform
from BrainFusionLib.case import Result, Source, to_document
from BrainFusionLib.case.decision import Signed, decide
from BrainFusionLib.case.dicom_results import PairHeaders, read_pair_headers
from BrainFusionLib.case.leaving import joined, may_leave
from BrainFusionLib.case.result import Bone
from BrainFusionLib.case.standing import inputs_sha256, pose_sha256
from BrainFusionLib.errors import GeometryError, ImageFileError, SettingsError
from BrainFusionLib.folder import write_case
from BrainFusionLib.geometry import Grid, affine
from BrainFusionLib.io import write_json
from BrainFusionLib.io.dicom_attributes import Doubt
from BrainFusionLib.io.dicom_headers import DicomHeaders, read_series_headers
from BrainFusionLib.io.dicom_registration import read_dicom_registration, write_dicom_registration
from BrainFusionLib.io.other_transforms import Between
from BrainFusionLib.phantom import make_pair
from BrainFusionLib.settings import FusionSettings, OutputSettings, Settings
from BrainFusionLib.transform import AffineTransform, RigidTransform
from BrainFusionLib.volume import Volume
from Testing.test_dicom_writing import OBLIQUE, a_grid, a_volume, write_scan

POSE = RigidTransform.from_axis_angle((1, -2, 3), 37.123456789, (12.3456789, -98.7654321, 0.00123456789))


@pytest.fixture(scope="module")
def scans(tmp_path_factory) -> dict[str, DicomHeaders]:
    """Headers of an MRI, of CTs in a frame and study of their own, in the MRI's frame, and without a frame."""
    folder = tmp_path_factory.mktemp("scans")
    mri = read_series_headers(write_scan(a_volume(a_grid()), folder / "mri"))
    of_ct = {
        "own": {"StudyInstanceUID": "1.2.3.4.5"},
        "shared": {"FrameOfReferenceUID": mri.frame_uid},
        "none": {"FrameOfReferenceUID": ""},
        "other": {},
    }
    grid = Grid((12, 12, 8), (1.0, 1.0, 3.0), (-40.0, 10.0, 90.0))
    made = {name: write_scan(a_volume(grid), folder / name, "CT", **tags) for name, tags in of_ct.items()}
    return {"mri": mri, **{name: read_series_headers(path) for name, path in made.items()}}


def an_independent_reader(path: Path, ct: DicomHeaders, mri: DicomHeaders) -> np.ndarray:
    """Return the 4x4 matrix from CT to MRI points by the words of Part 3, C.20.2, and by pydicom alone."""
    data = pydicom.dcmread(path)
    to_registered = {}
    for item in data.RegistrationSequence:
        values = item.MatrixRegistrationSequence[0].MatrixSequence[0].FrameOfReferenceTransformationMatrix
        matrix = np.array([float(value) for value in values]).reshape(4, 4)
        images = {image.ReferencedSOPInstanceUID for image in item.get("ReferencedImageSequence", [])}
        for name, headers in (("ct", ct), ("mri", mri)):
            uids = {instance.sop_instance_uid for instance in headers.instances}
            if item.get("FrameOfReferenceUID") == headers.first.get("FrameOfReferenceUID", "?") or images == uids:
                to_registered[name] = matrix
    return np.linalg.inv(to_registered["mri"]) @ to_registered["ct"]


def between(ct: DicomHeaders | None, mri: DicomHeaders | None, **words) -> Between:
    return Between(headers=lambda: (ct, mri), **words)


def assert_dciodvfy_finds_no_error(path: Path, kind: str = "SpatialRegistration") -> None:
    if shutil.which("dciodvfy") is None:
        pytest.skip("dciodvfy is not installed: apt-get install dicom3tools")
    said = subprocess.run(["dciodvfy", path], capture_output=True, text=True, errors="replace").stderr
    assert kind in said
    assert not [line for line in said.splitlines() if line.startswith("Error")], said


# ---- written, and read back -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("reference", ["mri", "ct"])
@pytest.mark.parametrize("name", ["own", "shared", "none"])
def test_a_pose_comes_back_to_a_ten_thousandth_of_a_millimetre(scans, tmp_path, name, reference) -> None:
    ct, mri, path = scans[name], scans["mri"], tmp_path / "reg.dcm"
    write_dicom_registration(POSE, path, ct, mri, reference=reference)
    corners = np.array([[x, y, z] for x in (-150, 150) for y in (-150, 150) for z in (-150, 150)], float)
    other = np.linalg.inv(an_independent_reader(path, ct, mri))
    for found in (read_transform(path, between=between(ct, mri)), RigidTransform(other)):
        assert np.abs(found.apply(corners) - POSE.apply(corners)).max() < 1e-8
    assert_dciodvfy_finds_no_error(path)


def test_the_registered_frame_is_the_mris_with_the_identity_for_it(scans, tmp_path) -> None:
    ct, mri, path = scans["own"], scans["mri"], tmp_path / "reg.dcm"
    write_dicom_registration(POSE, path, ct, mri)
    data = pydicom.dcmread(path)
    assert (data.Modality, data.FrameOfReferenceUID) == ("REG", mri.frame_uid)
    assert (data.StudyInstanceUID, data.PatientID) == (mri.study_uid, mri.first.PatientID)
    of_mri, of_ct = data.RegistrationSequence
    assert (of_mri.FrameOfReferenceUID, of_ct.FrameOfReferenceUID) == (mri.frame_uid, ct.frame_uid)
    matrices = [item.MatrixRegistrationSequence[0].MatrixSequence[0] for item in (of_mri, of_ct)]
    assert {one.FrameOfReferenceTransformationMatrixType for one in matrices} == {"RIGID"}
    assert np.array_equal(np.array(matrices[0].FrameOfReferenceTransformationMatrix, float).reshape(4, 4), np.eye(4))
    ct_to_mri = np.array(matrices[1].FrameOfReferenceTransformationMatrix, float).reshape(4, 4)
    assert np.allclose(ct_to_mri, POSE.inverse().moving_from_fixed_lps, rtol=0, atol=1e-9)
    other = data.StudiesContainingOtherReferencedInstancesSequence[0].ReferencedSeriesSequence[0]
    assert other.SeriesInstanceUID == ct.series_uid
    assert [series.SeriesInstanceUID for series in data.ReferencedSeriesSequence] == [mri.series_uid]


def test_with_one_frame_for_both_the_items_name_images_and_no_frame(scans, tmp_path) -> None:
    ct, mri, path = scans["shared"], scans["mri"], tmp_path / "reg.dcm"
    write_dicom_registration(POSE, path, ct, mri)
    of_mri, of_ct = pydicom.dcmread(path).RegistrationSequence
    assert "FrameOfReferenceUID" not in of_mri
    assert "FrameOfReferenceUID" not in of_ct
    assert len(of_mri.ReferencedImageSequence) == len(mri.instances)
    assert len(of_ct.ReferencedImageSequence) == len(ct.instances)


@pytest.mark.parametrize(
    ("scales", "kind"), [((1.02, 1.02, 1.02), "RIGID_SCALE"), ((1.02, 0.98, 1.0), "AFFINE")], ids=["scaled", "sheared"]
)
def test_a_pose_that_is_not_rigid_says_so_and_is_refused_as_a_start(scans, tmp_path, scales, kind) -> None:
    path, pose = tmp_path / "reg.dcm", AffineTransform(POSE.moving_from_fixed_lps @ np.diag([*scales, 1]))
    write_dicom_registration(pose, path, scans["own"], scans["mri"])
    item = pydicom.dcmread(path).RegistrationSequence[1]
    assert item.MatrixRegistrationSequence[0].MatrixSequence[0].FrameOfReferenceTransformationMatrixType == kind
    pair = between(scans["own"], scans["mri"])
    with pytest.raises(GeometryError, match="scales or shears"):
        read_transform(path, between=pair)
    back = read_transform(path, rigid=False, between=pair)
    assert np.allclose(back.moving_from_fixed_lps, pose.moving_from_fixed_lps, rtol=0, atol=1e-9)
    assert_dciodvfy_finds_no_error(path)


def test_what_is_in_doubt_says_so(scans, tmp_path) -> None:
    path, doubt = tmp_path / "reg.dcm", Doubt("RED, STALE", "the verdict is red; the CT was moved since " + "x" * 90)
    write_dicom_registration(POSE, path, scans["own"], scans["mri"], doubt=doubt)
    data = pydicom.dcmread(path)
    for text in (data.SeriesDescription, data.ContentDescription):
        assert text.startswith("RED, STALE! BrainFusion")
        assert len(text) <= 64
    comment = data.RegistrationSequence[1].MatrixRegistrationSequence[0].FrameOfReferenceTransformationComment
    assert comment.startswith("RED, STALE: the verdict is red")
    assert_dciodvfy_finds_no_error(path)


# ---- registrations of others ----------------------------------------------------------------------------------------


def changed(path: Path, change) -> Path:
    data = pydicom.dcmread(path)
    change(data)
    data.save_as(path, enforce_file_format=True)
    return path


@pytest.fixture
def reg(scans, tmp_path) -> Path:
    path = tmp_path / "reg.dcm"
    write_dicom_registration(POSE, path, scans["own"], scans["mri"])
    return path


def matrix_of(item: Dataset) -> Dataset:
    return item.MatrixRegistrationSequence[0].MatrixSequence[0]


def set_matrix(data: Dataset, values: list[float]) -> None:
    matrix_of(data.RegistrationSequence[1]).FrameOfReferenceTransformationMatrix = values


def test_the_ct_may_be_the_registered_one_without_an_item(scans, reg) -> None:
    def exchange(data):
        data.FrameOfReferenceUID = scans["own"].frame_uid
        of_mri = data.RegistrationSequence[0]
        values = [f"{value:.12g}" for value in POSE.moving_from_fixed_lps.ravel()]
        matrix_of(of_mri).FrameOfReferenceTransformationMatrix = values
        data.RegistrationSequence = [of_mri]

    found = read_transform(changed(reg, exchange), between=between(scans["own"], scans["mri"]))
    assert np.allclose(found.moving_from_fixed_lps, POSE.moving_from_fixed_lps, rtol=0, atol=1e-8)


def test_several_matrices_are_multiplied_in_their_order(scans, reg) -> None:
    first = RigidTransform.from_axis_angle((0, 0, 1), 90, (1, 2, 3))

    def split(data):
        sequence = data.RegistrationSequence[1].MatrixRegistrationSequence[0].MatrixSequence
        rest = first.inverse().moving_from_fixed_lps @ POSE.inverse().moving_from_fixed_lps
        for matrix in (first.moving_from_fixed_lps, rest):
            item = Dataset()
            item.FrameOfReferenceTransformationMatrix = [f"{value:.10g}" for value in matrix.ravel()]
            item.FrameOfReferenceTransformationMatrixType = "RIGID"
            sequence.append(item)
        del sequence[0]

    found = read_transform(changed(reg, split), between=between(scans["own"], scans["mri"]))
    assert np.allclose(found.moving_from_fixed_lps, POSE.moving_from_fixed_lps, rtol=0, atol=1e-6)


def test_items_of_other_images_do_not_matter(scans, reg) -> None:
    def add(data):
        other = Dataset.from_json(data.RegistrationSequence[1].to_json())
        other.FrameOfReferenceUID = generate_uid()
        for image in other.ReferencedImageSequence:
            image.ReferencedSOPInstanceUID = generate_uid()
        matrix_of(other).FrameOfReferenceTransformationMatrix[3] = "77"
        data.RegistrationSequence.insert(0, other)

    found = read_transform(changed(reg, add), between=between(scans["own"], scans["mri"]))
    assert np.allclose(found.moving_from_fixed_lps, POSE.moving_from_fixed_lps, rtol=0, atol=1e-8)


def test_images_that_were_exported_anew_are_known_by_their_frame(scans, reg) -> None:
    def rename(data):
        for item in data.RegistrationSequence:
            for image in item.ReferencedImageSequence:
                image.ReferencedSOPInstanceUID = generate_uid()

    found = read_transform(changed(reg, rename), between=between(scans["own"], scans["mri"]))
    assert np.allclose(found.moving_from_fixed_lps, POSE.moving_from_fixed_lps, rtol=0, atol=1e-8)


def test_two_registrations_of_one_volume_are_refused_unless_they_agree(scans, reg) -> None:
    def twice(data):
        data.RegistrationSequence.append(Dataset.from_json(data.RegistrationSequence[1].to_json()))

    pair = between(scans["own"], scans["mri"])
    assert read_transform(changed(reg, twice), between=pair).kind == "rigid"

    def differently(data):
        matrix_of(data.RegistrationSequence[2]).FrameOfReferenceTransformationMatrix[3] = "77"

    with pytest.raises(ImageFileError, match="2 different registrations of this CT"):
        read_transform(changed(reg, differently), between=pair)


def test_the_registration_of_another_pair_is_refused(scans, reg) -> None:
    with pytest.raises(ImageFileError, match="to other images than this CT"):
        read_transform(reg, between=between(scans["other"], scans["mri"]))
    with pytest.raises(ImageFileError, match="to other images than this MRI"):
        read_transform(reg, between=between(scans["own"], scans["other"]))
    with pytest.raises(ImageFileError, match="registers other images"):
        read_transform(reg, between=between(scans["none"], scans["other"]))


def test_without_dicom_headers_the_direction_has_to_be_said(scans, reg) -> None:
    with pytest.raises(ImageFileError, match="not DICOM"):
        read_transform(reg, between=between(None, scans["mri"]))
    with pytest.raises(ImageFileError, match="not DICOM"):
        read_transform(reg)
    for maps, expected in (("ct-to-mri", POSE), ("mri-to-ct", POSE.inverse())):
        found = read_transform(reg, between=between(None, None, maps=maps))
        assert np.allclose(found.moving_from_fixed_lps, expected.moving_from_fixed_lps, rtol=0, atol=1e-8)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda d: setattr(d, "SOPClassUID", "1.2.840.10008.5.1.4.1.1.66.3"), "holds a deformation"),
        (lambda d: setattr(d, "SOPClassUID", "1.2.840.10008.5.1.4.1.1.2"), "images or something else"),
        (lambda d: delattr(d, "RegistrationSequence"), "registration is damaged"),
        (lambda d: setattr(d, "RegistrationSequence", []), "registration is damaged"),
        (lambda d: delattr(d.RegistrationSequence[1], "MatrixRegistrationSequence"), "registration is damaged"),
        (lambda d: set_matrix(d, [1]), "registration is damaged"),
        (lambda d: set_matrix(d, [0] * 15 + [1]), "registration is damaged"),
    ],
)  # fmt: skip
def test_other_objects_and_damaged_ones_are_refused(scans, reg, change, words) -> None:
    with pytest.raises(ImageFileError, match=words):
        read_transform(changed(reg, change), between=between(scans["own"], scans["mri"]))


def test_a_file_cut_short_is_refused(scans, reg) -> None:
    whole = reg.read_bytes()
    for share in (0.3, 0.8, 0.97):
        reg.write_bytes(whole[: int(share * len(whole))])
        with pytest.raises(ImageFileError, match=r"damaged|cut short|ends|no rigid registration"):
            read_transform(reg, between=between(scans["own"], scans["mri"]))


def test_a_matrix_that_mirrors_is_refused(scans, reg) -> None:
    def mirror(data):
        values = affine(np.diag([-1.0, 1, 1])).ravel()
        matrix_of(data.RegistrationSequence[1]).FrameOfReferenceTransformationMatrix = [str(v) for v in values]

    path = changed(reg, mirror)
    assert read_dicom_registration(path, lambda: (scans["own"], scans["mri"])).shape == (4, 4)
    with pytest.raises(GeometryError, match="mirrors left and right"):
        read_transform(path, between=between(scans["own"], scans["mri"]))


# ---- results as DICOM -----------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def pair(tmp_path_factory) -> Path:
    """A phantom's CT and MRI as DICOM folders of two studies, and the true transform."""
    folder = tmp_path_factory.mktemp("pair")
    axes = OBLIQUE * np.array([5.0, 5.0, 5.0])
    grid = Grid((40, 46, 36), (5.0, 5.0, 5.0), tuple(-axes @ [19.5, 22.5, 17.5]), OBLIQUE)
    made = make_pair(3, spacing_mm=5.0, mri_grid=grid)
    write_scan(made.ct.with_array(np.rint(made.ct.array_kji)), folder / "ct", "CT", StudyInstanceUID="1.2.3.4.5")
    write_scan(made.mri.with_array(np.rint(made.mri.array_kji)), folder / "mri")
    write_transform(made.transform, folder / "true.tfm")
    return folder


@pytest.fixture(scope="module")
def read(pair) -> tuple[Volume, Volume, RigidTransform, PairHeaders]:
    ct, mri = (read_volume(pair / name) for name in ("ct", "mri"))
    return ct, mri, read_transform(pair / "true.tfm"), read_pair_headers(pair / "ct", pair / "mri")


@pytest.fixture(scope="module")
def known() -> list[Any]:
    """The evidence, which takes most of the time: measured once, for all results."""
    return []


@pytest.fixture(scope="module")
def plain(read, known) -> Result:
    return fused(read, known, "mri", None)


def fused(read, known, reference, grid) -> Result:
    settings = Settings(fusion=FusionSettings("bone_over_mri"), output=OutputSettings(reference, grid))
    steps = sys.modules["BrainFusionLib.case.run"]
    measure = steps.local_evidence
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(steps, "local_evidence", lambda *given: (known or known.append(measure(*given)) or known)[0])
        return fuse(*read[:2], settings, transform=read[2], check=False)


@pytest.mark.parametrize(("reference", "grid"), [("mri", None), ("mri", "ct"), ("ct", None), ("ct", 6.0)])
def test_results_go_into_the_study_and_frame_of_the_reference(
    read, known, tmp_path, monkeypatch, reference, grid
) -> None:
    monkeypatch.setattr(folder, "write_report", lambda result, mri, path: path.touch())
    ct, mri, pose, headers = read
    files = write_case(fused(read, known, reference, grid), mri, tmp_path, dicom=headers, ct_grid=ct.grid)
    source, other = (headers.mri, headers.ct) if reference == "mri" else (headers.ct, headers.mri)
    moved, role = ("ct_in_mri", "ct_in_mri") if reference == "mri" else ("mri_in_ct", "mri")
    for name, same in (("fused", "fused"), (moved, role)):
        series = files[f"dicom_{name}"]
        assert series == tmp_path / "dicom" / name
        paths = sorted(series.iterdir())
        first = pydicom.dcmread(paths[0])
        assert (first.StudyInstanceUID, first.FrameOfReferenceUID) == (source.study_uid, source.frame_uid)
        assert {item.SeriesInstanceUID for item in first.RelatedSeriesSequence} == {source.series_uid, other.series_uid}
        assert_dciodvfy_finds_no_error(paths[0], "SCImage")
        volume = read_volume(files[same])
        image = sitk.ReadImage(sitk.ImageSeriesReader.GetGDCMSeriesFileNames(str(series)), sitk.sitkFloat32)
        for at in ((0, 0, 0), (5, 7, 3)):
            point = image.TransformIndexToPhysicalPoint(at)
            inside = volume.grid.ijk_from_lps @ [*point, 1]
            assert np.abs(inside - np.rint(inside)).max() < 1e-3
            k, j, i = np.rint(inside[2::-1]).astype(int)
            step = max(float(first.RescaleSlope), 1e-3)
            assert abs(image.GetPixel(at) - volume.array_kji[k, j, i]) <= step
    found = read_transform(files["dicom_registration"], between=between(headers.ct, headers.mri))
    assert np.allclose(found.moving_from_fixed_lps, pose.moving_from_fixed_lps, rtol=0, atol=1e-8)
    assert_dciodvfy_finds_no_error(files["dicom_registration"])


def test_bone_is_written_beside_the_other_dicom_results(read, plain, tmp_path, monkeypatch) -> None:
    pytest.importorskip("highdicom", reason="highdicom is not installed: brainfusion[dicom-seg]")
    monkeypatch.setattr(folder, "write_report", lambda result, mri, path: path.touch())
    labels = plain.fused.with_array(plain.fused.array_kji * 0 + 1, name="bone")
    result = replace(plain, bone=Bone(300.0, 1.0, labels))
    files = write_case(result, read[1], tmp_path, dicom=read[3])
    data = pydicom.dcmread(files["dicom_bone"])
    assert (data.Modality, data.StudyInstanceUID) == ("SEG", read[3].mri.study_uid)
    assert_dciodvfy_finds_no_error(files["dicom_bone"], "Segmentation")
    write_case(plain, read[1], tmp_path, dicom=read[3])
    assert not (tmp_path / "dicom" / "bone.dcm").exists()


def test_a_red_result_leaves_only_if_that_is_asked_for_and_shows_it(read, plain, tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(folder, "write_report", lambda result, mri, path: path.touch())
    red = replace(plain, verdict=replace(plain.verdict, colour="red"))
    with pytest.raises(SettingsError, match="the verdict on the alignment is red"):
        write_case(red, read[1], tmp_path, dicom=read[3])
    assert not (tmp_path / "result.json").exists()
    write_case(red, read[1], tmp_path, dicom=read[3], export_anyway=True)
    for path in (tmp_path / "dicom").rglob("*.dcm"):
        data = pydicom.dcmread(path)
        assert data.SeriesDescription.startswith("RED! BrainFusion")
        assert len(data.SeriesDescription) <= 64
        if data.Modality == "OT":
            assert data.ImageComments.startswith("RED: the verdict on the alignment is red")
            assert "RED: " in data.DerivationDescription
    assert_dciodvfy_finds_no_error(sorted((tmp_path / "dicom" / "fused").iterdir())[0], "SCImage")


def test_a_rejection_of_the_same_pose_holds_for_the_result_that_replaces_it(plain, tmp_path) -> None:
    known = replace(plain.request, ct=Source("CT", sha256="a"), mri=Source("MRI", sha256="b"))
    result = replace(plain, request=known, volumes=None)
    signed = Signed(inputs_sha256(result), pose_sha256(result.pose), "")
    rejected = replace(result, decisions=decide("reject", "A. Planner", "", signed))
    assert may_leave(rejected).mark == "REJECTED"
    assert folder.in_doubt(result, tmp_path) is None
    write_json(to_document(rejected), tmp_path / "result.json")
    assert folder.in_doubt(result, tmp_path).mark == "REJECTED"
    moved = replace(result, pose=replace(result.pose, transform=POSE))
    assert folder.in_doubt(moved, tmp_path) is None


def test_the_command_withholds_the_dicom_of_a_red_result_and_reads_a_pose_from_dicom(
    pair, read, tmp_path, capsys
) -> None:
    off = RigidTransform.from_axis_angle((0, 0, 1), 0, (15, 0, 0)) @ read[2]
    write_dicom_registration(off, tmp_path / "off.dcm", read[3].ct, read[3].mri)
    code = cli.main(
        ["fuse", str(pair / "ct"), str(pair / "mri"), "-o", str(tmp_path / "out"), "--rule", "bone_over_mri",
         "--dicom", "--no-register", "--transform", str(tmp_path / "off.dcm")]
    )  # fmt: skip
    assert code == 3
    assert "add --export-anyway" in capsys.readouterr().err
    assert (tmp_path / "out" / "result.json").is_file()
    assert not (tmp_path / "out" / "dicom").exists()
    found = read_transform(tmp_path / "out" / "ct_to_mri.tfm")
    assert np.allclose(found.moving_from_fixed_lps, off.moving_from_fixed_lps, rtol=0, atol=1e-8)


def test_reasons_against_leaving_are_joined() -> None:
    assert joined([None, None]) is None
    both = joined([Doubt("RED", "a"), None, Doubt("REJECTED", "b")])
    assert both == Doubt("RED, REJECTED", "a; b")
