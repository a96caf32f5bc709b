"""The bone as a DICOM Segmentation: read back by highdicom and by pydicom alone, and checked by dciodvfy."""

from __future__ import annotations

import importlib.util
from dataclasses import replace

import numpy as np
import pydicom
import pytest

from BrainFusionLib.case import dicom_results
from BrainFusionLib.case.result import Bone
from BrainFusionLib.errors import MissingDependencyError
from BrainFusionLib.geometry import apply_affine
from BrainFusionLib.io import dicom_segmentation
from BrainFusionLib.io.dicom_attributes import Doubt
from BrainFusionLib.io.dicom_headers import read_series_headers
from BrainFusionLib.io.dicom_segmentation import write_dicom_segmentation
from BrainFusionLib.volume import Volume
from Testing.report_case import result_of, small_head
from Testing.test_dicom_registration import assert_dciodvfy_finds_no_error
from Testing.test_dicom_writing import OBLIQUE, a_grid, a_volume, write_scan

needs_highdicom = pytest.mark.skipif(
    importlib.util.find_spec("highdicom") is None,
    reason="highdicom is not installed: brainfusion[dicom-seg]",
)


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    """Return the labels, the file, and the headers of the series that it belongs to."""
    folder = tmp_path_factory.mktemp("seg")
    grid = a_grid(OBLIQUE)
    headers = read_series_headers(write_scan(a_volume(grid), folder / "mri"))
    labels = np.random.default_rng(0).integers(0, 2, grid.shape_kji).astype(np.float32)
    labels[:2] = 0
    bone = Volume(labels, grid, None, "bone")
    pytest.importorskip("highdicom")
    write_dicom_segmentation(bone, folder / "bone.dcm", headers, "above 300 HU in the head of the CT")
    return bone, folder / "bone.dcm", headers


@needs_highdicom
def test_every_voxel_is_read_back_in_its_place_by_pydicom_alone(written):
    bone, path, headers = written
    data = pydicom.dcmread(path)
    assert (data.Modality, data.FrameOfReferenceUID) == ("SEG", headers.frame_uid)
    assert data.StudyInstanceUID == headers.study_uid
    shared = data.SharedFunctionalGroupsSequence[0]
    row, column = np.array(shared.PlaneOrientationSequence[0].ImageOrientationPatient, float).reshape(2, 3)
    down, right = (float(mm) for mm in shared.PixelMeasuresSequence[0].PixelSpacing)
    frames = np.atleast_3d(data.pixel_array).reshape(-1, data.Rows, data.Columns)
    found = np.zeros(bone.grid.shape_kji)
    for frame, groups in zip(frames, data.PerFrameFunctionalGroupsSequence, strict=True):
        origin = np.array(groups.PlanePositionSequence[0].ImagePositionPatient, float)
        j, i = np.nonzero(frame)
        points = origin + i[:, None] * right * row + j[:, None] * down * column
        at = apply_affine(bone.grid.ijk_from_lps, points)
        assert np.abs(at - np.rint(at)).max() < 1e-2
        found[tuple(np.rint(at).astype(int).T[::-1])] = 1
    assert np.array_equal(found, bone.array_kji)


@needs_highdicom
def test_dciodvfy_finds_no_error(written):
    assert_dciodvfy_finds_no_error(written[1], "Segmentation")


@needs_highdicom
def test_object_names_the_series_and_what_is_in_doubt(written, tmp_path):
    bone, path, headers = written
    data = pydicom.dcmread(path)
    assert {item.SeriesInstanceUID for item in data.ReferencedSeriesSequence} == {headers.series_uid}
    assert "300 HU" in data.ContentDescription
    write_dicom_segmentation(bone, tmp_path / "red.dcm", headers, "rule", Doubt("RED", "the verdict is red"))
    assert pydicom.dcmread(tmp_path / "red.dcm").SeriesDescription.startswith("RED!")


def test_missing_package_is_named(written_without, tmp_path):
    bone, headers = written_without
    with pytest.raises(MissingDependencyError, match="pip install highdicom"):
        write_dicom_segmentation(bone, tmp_path / "bone.dcm", headers, "rule")


@pytest.mark.parametrize("is_installed", [False, True])
def test_a_result_says_that_its_bone_is_not_written_and_how_it_would_be(monkeypatch, is_installed):
    monkeypatch.setattr(dicom_results, "can_write_segmentations", lambda: is_installed)
    headers = dicom_results.PairHeaders(ct=None, mri=object())
    result = replace(result_of(*small_head()), bone=Bone(300.0, 100.0))
    noted = dicom_results.noting_what_is_missing(result, headers).notes
    assert ("pip install highdicom" in " ".join(noted)) is not is_installed
    assert dicom_results.noting_what_is_missing(replace(result, bone=None), headers).notes == result.notes


@pytest.fixture
def written_without(tmp_path, monkeypatch):
    monkeypatch.setattr(dicom_segmentation, "can_write_segmentations", lambda: False)
    headers = read_series_headers(write_scan(a_volume(a_grid()), tmp_path / "mri"))
    return Volume(np.ones(a_grid().shape_kji, np.float32), a_grid()), headers
