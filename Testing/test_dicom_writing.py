"""Derived DICOM series: right voxels at the right place, the right patient, nothing that dciodvfy objects to."""

from __future__ import annotations

import json
import shutil
import subprocess
from types import SimpleNamespace

import numpy as np
import pydicom
import pytest
import SimpleITK as sitk
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import CTImageStorage, EnhancedMRImageStorage, ExplicitVRLittleEndian, MRImageStorage, generate_uid

from BrainFusionLib import cli, read_volume, write_transform, write_volume
from BrainFusionLib.errors import GeometryError, ImageContentError, ImageFileError
from BrainFusionLib.geometry import Grid, rotation_matrix
from BrainFusionLib.io import dicom_writing
from BrainFusionLib.io.dicom_attributes import FUSED, REGISTERED_CT
from BrainFusionLib.io.dicom_headers import read_headers, read_series_headers
from BrainFusionLib.io.dicom_writing import write_dicom_results, write_dicom_series
from BrainFusionLib.phantom import make_pair
from BrainFusionLib.transform import RigidTransform
from BrainFusionLib.volume import Volume

PATIENT, PATIENT_ID, STUDY = "Gödel^Änne", "ID-4711", "1.2.826.0.1.3680043.10.1"
OBLIQUE = rotation_matrix((1, 2, 3), 25)
LEFT_HANDED = OBLIQUE * [1, 1, -1]


def a_grid(direction=OBLIQUE, size=(9, 7, 5)):
    return Grid(size, (0.9, 1.1, 2.5), (-31.25, 17.5, 101.0625), direction)


def a_volume(grid, values=None, name="T1 of Gödel"):
    rng = np.random.default_rng(1)
    return Volume(rng.normal(300, 120, grid.shape_kji) if values is None else values, grid, "MR", name)


def header(modality="MR", **tags):
    """The attributes that a scanner's slices share."""
    data = Dataset()
    data.file_meta = FileMetaDataset()
    data.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    data.SOPClassUID = {"MR": MRImageStorage, "CT": CTImageStorage}[modality]
    data.SpecificCharacterSet = "ISO_IR 100"
    data.PatientName, data.PatientID, data.PatientBirthDate, data.PatientSex = PATIENT, PATIENT_ID, "19060428", "F"
    data.StudyInstanceUID, data.StudyDate, data.StudyTime, data.StudyID = STUDY, "20240102", "101112", "7"
    data.AccessionNumber, data.ReferringPhysicianName, data.StudyDescription = "A1", "Hölder^Otto", "Schädel"
    data.SeriesInstanceUID, data.SeriesNumber = generate_uid(), 4 if modality == "MR" else 2
    data.FrameOfReferenceUID, data.PositionReferenceIndicator = generate_uid(), "NASION"
    data.Modality, data.Manufacturer, data.InstitutionName = modality, "Scanner", "Klinik Gödel"
    data.add_new((0x0009, 0x0010), "LO", "PRIVATE")
    data.add_new((0x0009, 0x1001), "LO", "Gödel in a private attribute")
    data.SamplesPerPixel, data.PhotometricInterpretation, data.PixelRepresentation = 1, "MONOCHROME2", 1
    data.BitsAllocated, data.BitsStored, data.HighBit = 16, 16, 15
    for name, value in tags.items():
        setattr(data, name, value)
    return data


def write_scan(volume, folder, modality="MR", **tags):
    """Write whole-numbered voxels as a scanner would; the files' names say nothing of the order."""
    folder.mkdir(parents=True)
    data, grid = header(modality, **tags), volume.grid
    data.ImageOrientationPatient = [f"{x:.10f}" for x in grid.direction[:, :2].T.ravel()]
    data.PixelSpacing = [grid.spacing_ijk_mm[1], grid.spacing_ijk_mm[0]]
    data.Columns, data.Rows = grid.size_ijk[:2]
    for n, k in enumerate(np.random.default_rng(2).permutation(grid.size_ijk[2])):
        data.SOPInstanceUID = data.file_meta.MediaStorageSOPInstanceUID = generate_uid()
        data.file_meta.MediaStorageSOPClassUID = data.SOPClassUID
        data.InstanceNumber = int(k) + 1
        data.ImagePositionPatient = [f"{x:.8f}" for x in (grid.lps_from_ijk @ [0, 0, k, 1])[:3]]
        data.PixelData = np.rint(volume.array_kji[k]).astype("<i2").tobytes()
        data.save_as(folder / f"IM{n}", enforce_file_format=True)
    return folder


@pytest.fixture
def scan(tmp_path):
    """An oblique MRI on disk, and its headers."""
    grid = a_grid()
    folder = write_scan(a_volume(grid), tmp_path / "mri")
    return SimpleNamespace(folder=folder, grid=grid, headers=read_series_headers(folder))


def datasets(folder):
    return [pydicom.dcmread(path) for path in sorted(folder.iterdir())]


def assert_dciodvfy_finds_no_error(folder):
    if shutil.which("dciodvfy") is None:
        pytest.skip("dciodvfy is not installed: apt-get install dicom3tools")
    for path in sorted(folder.rglob("*.dcm")):
        said = subprocess.run(["dciodvfy", path], capture_output=True, text=True, errors="replace").stderr
        assert "SCImage" in said
        assert not [line for line in said.splitlines() if line.startswith("Error")], path


# ---- place and values ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("direction", [np.eye(3), OBLIQUE, LEFT_HANDED, OBLIQUE[:, [2, 0, 1]]])
def test_voxels_and_position_come_back(tmp_path, direction):
    grid = a_grid(direction)
    headers = read_series_headers(write_scan(a_volume(grid), tmp_path / "mri"))
    volume = a_volume(grid)
    files = write_dicom_series(volume, tmp_path / "out", headers, FUSED)
    right_handed = volume.array_kji if np.linalg.det(direction) > 0 else volume.array_kji[::-1]
    step = datasets(tmp_path / "out")[0].RescaleSlope

    back = read_volume(tmp_path / "out")
    names = sitk.ImageSeriesReader.GetGDCMSeriesFileNames(str(tmp_path / "out"))
    image = sitk.ReadImage(names, sitk.sitkFloat32)
    for array in (back.array_kji, sitk.GetArrayFromImage(image)):
        assert np.abs(array - right_handed).max() <= step / 2 * 1.001
    for point in ((0, 0, 0), (8, 6, 4), (3, 1, 2)):
        k = point[2] if np.linalg.det(direction) > 0 else 4 - point[2]
        where = (grid.lps_from_ijk @ [*point, 1])[:3]
        np.testing.assert_allclose((back.grid.lps_from_ijk @ [*point[:2], k, 1])[:3], where, atol=1e-6)
        there = image.TransformIndexToPhysicalPoint((*point[:2], k))
        np.testing.assert_allclose(there, where, atol=1e-6)
    assert [pydicom.dcmread(f).InstanceNumber for f in files] == [1, 2, 3, 4, 5]


def test_positions_have_ten_digits(scan, tmp_path):
    # Slicer puts a warp over a volume whose slices are 0.001 mm off an even grid (DICOMScalarVolumePlugin.py).
    write_dicom_series(a_volume(scan.grid), tmp_path / "out", scan.headers, FUSED)
    written = [np.array(d.ImagePositionPatient, float) for d in datasets(tmp_path / "out")]
    wanted = [(scan.grid.lps_from_ijk @ [0, 0, k, 1])[:3] for k in range(5)]
    np.testing.assert_allclose(written, wanted, atol=1e-9)


def test_hounsfield_units_come_back_exactly(scan, tmp_path):
    hu = np.random.default_rng(3).integers(-1000, 3071, scan.grid.shape_kji)
    write_dicom_series(a_volume(scan.grid, hu), tmp_path / "out", scan.headers, REGISTERED_CT)
    np.testing.assert_array_equal(read_volume(tmp_path / "out").array_kji, hu)
    assert {d.RescaleType for d in datasets(tmp_path / "out")} == {"HU"}


@pytest.mark.parametrize(("low", "high"), [(-3.7, 2411.3), (0.0, 0.37), (-2e5, 7e5), (1e-7, 3e-7), (999.5, 1001.25)])
def test_other_values_come_back_to_half_a_step(scan, tmp_path, low, high):
    values = np.random.default_rng(4).uniform(low, high, scan.grid.shape_kji).astype(np.float32)
    values.flat[:2] = low, high
    write_dicom_series(a_volume(scan.grid, values), tmp_path / "out", scan.headers, FUSED)
    stored = np.stack([d.pixel_array for d in datasets(tmp_path / "out")]).astype(float)
    first = datasets(tmp_path / "out")[0]
    back = stored * float(first.RescaleSlope) + float(first.RescaleIntercept)
    assert np.abs(back - values).max() <= (high - low) / 65534 * 1.01
    assert np.unique(stored).size > 200  # not all in a few of the steps


def test_whole_values_of_the_mri_stay_exact(scan, tmp_path):
    values = np.random.default_rng(5).integers(0, 1500, scan.grid.shape_kji).astype(np.float32)
    values[2] += 700.3
    write_dicom_series(a_volume(scan.grid, values), tmp_path / "out", scan.headers, FUSED)
    back = read_volume(tmp_path / "out").array_kji
    np.testing.assert_array_equal(np.delete(back, 2, 0), np.delete(values, 2, 0))
    assert 0 < np.abs(back[2] - values[2]).max() <= 2**-5 / 2


def test_an_even_volume_is_written_too(scan, tmp_path):
    write_dicom_series(a_volume(scan.grid, np.full(scan.grid.shape_kji, 0.3)), tmp_path / "out", scan.headers, FUSED)
    assert np.allclose(read_volume(tmp_path / "out").array_kji, 0.3, atol=0.51)


# ---- what the headers say -----------------------------------------------------------------------------------------


def test_patient_and_study_come_from_the_mri(scan, tmp_path):
    mri = datasets(scan.folder)[0]
    window = (10.0, 1210.0)
    write_dicom_series(a_volume(scan.grid), tmp_path / "out", scan.headers, FUSED, window=window)
    written = datasets(tmp_path / "out")
    for keyword in (
        "PatientName", "PatientID", "PatientBirthDate", "PatientSex", "StudyInstanceUID", "StudyDate", "StudyTime",
        "StudyID", "StudyDescription", "AccessionNumber", "ReferringPhysicianName", "FrameOfReferenceUID",
        "PositionReferenceIndicator", "SpecificCharacterSet",
    ):  # fmt: skip
        assert {str(d[keyword].value) for d in written} == {str(mri[keyword].value)}, keyword
    assert str(written[0].PatientName) == PATIENT
    assert {d.Modality for d in written} == {"OT"}
    assert list(written[0].ImageType) == ["DERIVED", "SECONDARY", "FUSED"]
    assert "derived, not for diagnosis" in written[0].SeriesDescription
    assert len(written[0].SeriesDescription) <= 64
    assert "not for diagnosis" in written[0].DerivationDescription
    assert (written[0].SeriesNumber, written[0].WindowCenter, written[0].WindowWidth) == (401, 610, 1200)
    assert len({d.SeriesInstanceUID for d in written} - {mri.SeriesInstanceUID}) == 1
    assert len({d.SOPInstanceUID for d in written} - {d.SOPInstanceUID for d in datasets(scan.folder)}) == 5
    assert all(d.file_meta.MediaStorageSOPInstanceUID == d.SOPInstanceUID for d in written)
    assert "InstitutionName" not in written[0]
    assert written[0].Manufacturer == "BrainFusion"


def test_patient_name_is_only_in_its_attribute(scan, tmp_path):
    write_dicom_series(a_volume(scan.grid), tmp_path / "out", scan.headers, FUSED)
    for path in sorted((tmp_path / "out").iterdir()):
        assert path.read_bytes().count("Gödel".encode("latin-1")) == 1
        assert path.read_bytes().count(PATIENT_ID.encode()) == 1
        assert b"Gdel" not in path.name.encode("ascii")


def test_slices_name_the_mri_slice_and_both_series(scan, tmp_path):
    ct_grid = Grid((12, 12, 30), (1.0, 1.0, 1.5), (-40.0, 10.0, 90.0))
    ct = read_series_headers(write_scan(a_volume(ct_grid), tmp_path / "ct", "CT", StudyInstanceUID="1.2.3.4.5"))
    heard = []
    write_dicom_series(
        a_volume(scan.grid), tmp_path / "out", scan.headers, FUSED, other=ct, progress=lambda *said: heard.append(said)
    )
    assert heard[-1] == ("exporting", 1.0)
    mri_uid = {d.InstanceNumber - 1: d.SOPInstanceUID for d in datasets(scan.folder)}
    for k, data in enumerate(datasets(tmp_path / "out")):
        assert [item.ReferencedSOPInstanceUID for item in data.SourceImageSequence] == [mri_uid[k]]
        (series,) = data.ReferencedSeriesSequence
        assert series.SeriesInstanceUID == scan.headers.series_uid
        assert [item.ReferencedSOPInstanceUID for item in series.ReferencedInstanceSequence] == [mri_uid[k]]
        mri_series, ct_series = data.RelatedSeriesSequence
        assert mri_series.SeriesInstanceUID == scan.headers.series_uid
        assert (ct_series.StudyInstanceUID, ct_series.SeriesInstanceUID) == ("1.2.3.4.5", ct.series_uid)


def test_files_are_those_that_pydicom_writes(scan, tmp_path):
    write_dicom_series(a_volume(scan.grid), tmp_path / "out", scan.headers, FUSED)
    for path in sorted((tmp_path / "out").iterdir()):
        data = pydicom.dcmread(path)
        data.save_as(tmp_path / "again.dcm", enforce_file_format=True)
        assert path.read_bytes() == (tmp_path / "again.dcm").read_bytes()


def test_dciodvfy_finds_no_error(scan, tmp_path):
    ct = read_series_headers(write_scan(a_volume(a_grid(np.eye(3))), tmp_path / "ct", "CT"))
    volume = a_volume(scan.grid)
    whole = volume.with_array(np.rint(volume.array_kji))
    write_dicom_results(volume, whole, tmp_path, scan.headers, other=ct, fused_window=(0, 900))
    assert_dciodvfy_finds_no_error(tmp_path / "fused")
    assert_dciodvfy_finds_no_error(tmp_path / "ct_in_mri")


def test_sparse_headers_are_enough(tmp_path):
    grid = a_grid(np.eye(3))
    folder = write_scan(a_volume(grid), tmp_path / "mri")
    for path in folder.iterdir():
        data = pydicom.dcmread(path)
        for keyword in (
            "PatientName", "PatientSex", "PatientBirthDate", "StudyID", "StudyDate", "SeriesNumber", "AccessionNumber",
            "FrameOfReferenceUID", "PositionReferenceIndicator", "SpecificCharacterSet", "ReferringPhysicianName",
            "StudyDescription",
        ):  # fmt: skip
            del data[keyword]
        data.save_as(path)
    write_dicom_series(a_volume(grid), tmp_path / "out", read_series_headers(folder), FUSED)
    written = datasets(tmp_path / "out")[0]
    assert written.PatientName == ""
    assert "FrameOfReferenceUID" not in written
    assert written.SeriesNumber == 9001
    assert_dciodvfy_finds_no_error(tmp_path / "out")


def test_a_multi_frame_mri_can_be_the_template(tmp_path):
    grid = a_grid(OBLIQUE)
    data = header()
    data.SOPClassUID = data.file_meta.MediaStorageSOPClassUID = EnhancedMRImageStorage
    data.SOPInstanceUID = data.file_meta.MediaStorageSOPInstanceUID = generate_uid()
    data.Columns, data.Rows, data.NumberOfFrames = *grid.size_ijk[:2], grid.size_ijk[2]
    shared, measures, plane = Dataset(), Dataset(), Dataset()
    measures.PixelSpacing = [grid.spacing_ijk_mm[1], grid.spacing_ijk_mm[0]]
    plane.ImageOrientationPatient = [f"{x:.10f}" for x in grid.direction[:, :2].T.ravel()]
    shared.PixelMeasuresSequence, shared.PlaneOrientationSequence = [measures], [plane]
    frames = []
    for k in range(grid.size_ijk[2]):
        frame, position = Dataset(), Dataset()
        position.ImagePositionPatient = [f"{x:.8f}" for x in (grid.lps_from_ijk @ [0, 0, k, 1])[:3]]
        frame.PlanePositionSequence = [position]
        frames.append(frame)
    data.SharedFunctionalGroupsSequence, data.PerFrameFunctionalGroupsSequence = [shared], frames
    data.PixelData = np.zeros(grid.shape_kji, "<i2").tobytes()
    (tmp_path / "mri").mkdir()
    data.save_as(tmp_path / "mri" / "all.dcm", enforce_file_format=True)
    headers = read_series_headers(tmp_path / "mri")
    write_dicom_series(a_volume(grid), tmp_path / "out", headers, FUSED)
    assert read_volume(tmp_path / "out").grid.same_as(grid, 1e-6)
    for written in datasets(tmp_path / "out"):
        assert [s.ReferencedSOPInstanceUID for s in written.SourceImageSequence] == [data.SOPInstanceUID]
    assert_dciodvfy_finds_no_error(tmp_path / "out")


# ---- refusals -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "move",
    [
        RigidTransform.from_axis_angle((0, 0, 1), 1, (0, 0, 0)).moving_from_fixed_lps,
        RigidTransform.from_axis_angle((0, 0, 1), 0, (0, 0.3, 0)).moving_from_fixed_lps,
    ],
    ids=["rotated", "shifted"],
)
def test_a_volume_that_was_moved_after_loading_is_refused(scan, tmp_path, move):
    with pytest.raises(GeometryError, match="cannot share their frame of reference"):
        write_dicom_series(a_volume(scan.grid.moved(move)), tmp_path / "out", scan.headers, FUSED)
    assert not (tmp_path / "out").exists()


def test_a_cropped_volume_is_refused(scan, tmp_path):
    grid = Grid((9, 7, 4), scan.grid.spacing_ijk_mm, scan.grid.origin_lps_mm, scan.grid.direction)
    with pytest.raises(GeometryError, match="1\\.2 mm away"):
        write_dicom_series(a_volume(grid), tmp_path / "out", scan.headers, FUSED)


def test_nan_is_refused_and_leaves_nothing(scan, tmp_path):
    values = np.zeros(scan.grid.shape_kji)
    values[4, 3, 2] = np.nan
    before = sorted(tmp_path.iterdir())
    with pytest.raises(ImageContentError, match="NaN or infinity"):
        write_dicom_series(a_volume(scan.grid, values), tmp_path / "out", scan.headers, FUSED)
    bad = a_volume(scan.grid, values)
    with pytest.raises(ImageContentError):  # the second of two takes the first with it
        write_dicom_results(a_volume(scan.grid), bad, tmp_path, scan.headers)
    assert sorted(tmp_path.iterdir()) == before


def test_existing_results_are_kept(scan, tmp_path):
    (tmp_path / "fused").mkdir()
    (tmp_path / "fused" / "mine").write_text("kept")
    with pytest.raises(ImageFileError, match="exists and is not empty"):
        write_dicom_results(a_volume(scan.grid), a_volume(scan.grid), tmp_path, scan.headers)
    assert (tmp_path / "fused" / "mine").read_text() == "kept"
    assert not (tmp_path / "ct_in_mri").exists()


def test_failed_write_leaves_nothing(scan, tmp_path, monkeypatch):
    real, calls = dicom_writing.set_slice, []

    def full_disk(*arguments):
        calls.append(arguments)
        if len(calls) == 3:
            raise OSError(28, "No space left on device")
        real(*arguments)

    monkeypatch.setattr(dicom_writing, "set_slice", full_disk)
    before = sorted(tmp_path.iterdir())
    with pytest.raises(ImageFileError, match="No space left on device"):
        write_dicom_series(a_volume(scan.grid), tmp_path / "out", scan.headers, FUSED)
    assert sorted(tmp_path.iterdir()) == before


def test_files_of_two_series_or_none_are_refused(scan, tmp_path):
    other = write_scan(a_volume(scan.grid), tmp_path / "other")
    with pytest.raises(ImageFileError, match="another series"):
        read_headers([*scan.folder.iterdir(), *other.iterdir()])
    with pytest.raises(ImageFileError, match="no files"):
        read_headers([])
    (tmp_path / "text").write_text("no DICOM at all " * 20)
    with pytest.raises(ImageFileError, match="not a DICOM file"):
        read_headers([tmp_path / "text"])


# ---- brainfusion fuse --dicom -------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def pair(tmp_path_factory):
    """A phantom's CT and MRI as DICOM folders, and the true transform."""
    made, folder = make_pair(3, spacing_mm=4.0), tmp_path_factory.mktemp("pair")
    write_scan(made.ct, folder / "ct", "CT")
    write_scan(made.mri.with_array(np.rint(made.mri.array_kji)), folder / "mri")
    write_volume(made.mri, folder / "mri.nii.gz")
    write_transform(made.transform, folder / "true.tfm")
    return folder


def fuse(pair, output, *options, mri="mri"):
    return cli.main(
        ["fuse", str(pair / "ct"), str(pair / mri), "-o", str(output),
         "--no-register", "--transform", str(pair / "true.tfm"), *options]
    )  # fmt: skip


def test_fuse_writes_both_series(pair, tmp_path):
    assert fuse(pair, tmp_path, "--dicom") == 0
    fused, ct = read_volume(tmp_path / "dicom" / "fused"), read_volume(tmp_path / "dicom" / "ct_in_mri")
    mri = read_volume(pair / "mri")
    assert fused.grid.same_as(mri.grid, 1e-5)
    plain = read_volume(tmp_path / "fused.nii.gz")
    np.testing.assert_array_equal(ct.array_kji, read_volume(tmp_path / "ct_in_mri.nii.gz").array_kji)
    assert np.abs(fused.array_kji - plain.array_kji).max() <= np.ptp(plain.array_kji) / 65534
    untouched = plain.array_kji == mri.array_kji
    assert untouched.mean() > 0.5
    np.testing.assert_array_equal(fused.array_kji[untouched], mri.array_kji[untouched])
    first = datasets(tmp_path / "dicom" / "fused")[0]
    result = json.loads((tmp_path / "result.json").read_text(encoding="utf-8"))
    assert result["files"]["dicom_fused"] == "dicom/fused"
    low, high = result["intensity"]["window"]
    assert first.WindowWidth == pytest.approx(high - low)
    assert len(first.RelatedSeriesSequence) == 2  # the CT's, too
    for name in ("result.json", "report.html", "ct_to_mri.tfm"):
        assert "Gödel" not in (tmp_path / name).read_text(encoding="utf-8")


def test_second_run_replaces_the_series(pair, tmp_path):
    assert fuse(pair, tmp_path, "--dicom") == 0
    first = {d.SeriesInstanceUID for d in datasets(tmp_path / "dicom" / "fused")}
    assert fuse(pair, tmp_path, "--dicom", "--rule", "average") == 0
    second = {d.SeriesInstanceUID for d in datasets(tmp_path / "dicom" / "fused")}
    assert len(second) == 1
    assert first != second
    assert fuse(pair, tmp_path) == 0
    assert not (tmp_path / "dicom").exists()


def test_mri_that_is_not_dicom_fails_early(pair, tmp_path, capsys):
    assert fuse(pair, tmp_path / "out", "--dicom", mri="mri.nii.gz") == 2
    said = capsys.readouterr().err
    assert "is not DICOM" in said
    assert "omit --dicom" in said
    assert not (tmp_path / "out").exists()


def test_slices_with_a_series_uid_each_are_refused_before_the_work_with_the_reason(pair, tmp_path, capsys):
    folder = shutil.copytree(pair / "mri", tmp_path / "mri")
    for path in folder.iterdir():
        data = pydicom.dcmread(path)
        data.SeriesInstanceUID = generate_uid()
        data.save_as(path)
    code = cli.main(["fuse", str(pair / "ct"), str(folder), "-o", str(tmp_path / "out"), "--dicom"])
    assert code == 2
    assert "have a series UID each" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_another_patient_id_is_noted_without_its_value(pair, tmp_path, capsys):
    write_scan(read_volume(pair / "ct"), tmp_path / "ct", "CT", PatientID="SOMEONE-ELSE")
    code = cli.main(
        ["fuse", str(tmp_path / "ct"), str(pair / "mri"), "-o", str(tmp_path / "out"), "--dicom",
         "--no-register", "--transform", str(pair / "true.tfm")]
    )  # fmt: skip
    assert code == 0
    said = capsys.readouterr()
    assert "different patient IDs" in said.out + said.err
    assert "SOMEONE-ELSE" not in said.out + said.err
    assert PATIENT_ID not in said.out + said.err


# ---- privacy --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("mri", "ct", "result"),
    [
        ("NO", "NO", "NO"), ("YES", "NO", "YES"), ("NO", "YES", "YES"), (None, "YES", "YES"),
        (None, "NO", None), ("NO", None, None), ("NO", "absent", None),
    ],
)  # fmt: skip
def test_burned_in_text_follows_the_sources(tmp_path, mri, ct, result):
    def headers(name, modality, said):
        tags = {} if said is None else {"BurnedInAnnotation": said}
        return read_series_headers(write_scan(a_volume(a_grid()), tmp_path / name, modality, **tags))

    of_ct = None if ct == "absent" else headers("ct", "CT", ct)
    write_dicom_series(a_volume(a_grid()), tmp_path / "out", headers("mri", "MR", mri), FUSED, other=of_ct)
    assert {data.get("BurnedInAnnotation") for data in datasets(tmp_path / "out")} == {result}


def test_private_attributes_inside_kept_sequences_are_dropped(tmp_path):
    item = Dataset()
    item.PatientID, item.TypeOfPatientID = "other", "TEXT"
    item.private_block(0x0011, "SECRET", create=True).add_new(1, "LO", "Jane's diary")
    folder = write_scan(a_volume(a_grid()), tmp_path / "mri", OtherPatientIDsSequence=[item])
    write_dicom_series(a_volume(a_grid()), tmp_path / "out", read_series_headers(folder), FUSED)
    for path in (tmp_path / "out").iterdir():
        assert b"diary" not in path.read_bytes()
        assert pydicom.dcmread(path).OtherPatientIDsSequence[0].PatientID == "other"


@pytest.mark.parametrize("keyword", ["StudyInstanceUID", "FrameOfReferenceUID", "SeriesInstanceUID"])
def test_uid_of_two_values_is_refused(tmp_path, keyword):
    folder = write_scan(a_volume(a_grid()), tmp_path / "mri", **{keyword: ["1.2.3", "1.2.4"]})
    with pytest.raises(ImageFileError, match=f"several values of {keyword}"):
        read_series_headers(folder)
