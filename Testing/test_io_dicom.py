"""Reading DICOM: order and place of slices, choice of the series, gaps, gantry tilt, multi-frame files, refusals.

The series are made here with pydicom, by sampling a smooth synthetic object at each slice's true position.
"""

from __future__ import annotations

import zlib

import numpy as np
import pydicom
import pytest
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.encaps import encapsulate, generate_frames
from pydicom.uid import (
    DeflatedExplicitVRLittleEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    RLELossless,
    generate_uid,
)

from BrainFusionLib.errors import GeometryError, ImageContentError, ImageFileError
from BrainFusionLib.geometry import apply_affine, rotation_matrix
from BrainFusionLib.io import read_volume

CT, ENHANCED_CT = "1.2.840.10008.5.1.4.1.1.2", "1.2.840.10008.5.1.4.1.1.2.1"
REPORT = "1.2.840.10008.5.1.4.1.1.88.11"
ROWS, COLUMNS, SPACING_JI = 32, 36, (1.5, 1.25)
FIRST = np.array([-20.0, -20.0, 30.0])
TRANSVERSE, AXIAL = np.eye(3), [1, 0, 0, 0, 1, 0]
PATIENT = "Doe^Jane"


def object_at(points_lps_mm):
    """A smooth object: two blobs, 1000 and 600 HU high, in air."""
    near = np.exp(-((points_lps_mm - [2, 4, 38]) ** 2).sum(-1) / (2 * 5**2))
    far = np.exp(-((points_lps_mm - [-4, -2, 44]) ** 2).sum(-1) / (2 * 4.5**2))
    return -1000 + 1000 * near + 600 * far


def sampled(position, axes):
    jj, ii = np.mgrid[:ROWS, :COLUMNS]
    return object_at(position + ii[..., None] * SPACING_JI[1] * axes[:, 0] + jj[..., None] * SPACING_JI[0] * axes[:, 1])


def above(height_mm):
    return FIRST + np.array([0, 0, height_mm])


def new_dataset(sop_class=CT, series_uid="1.2.3.4", syntax=ExplicitVRLittleEndian, **tags):
    data = Dataset()
    data.file_meta = FileMetaDataset()
    data.file_meta.MediaStorageSOPClassUID = data.SOPClassUID = sop_class
    data.file_meta.MediaStorageSOPInstanceUID = data.SOPInstanceUID = generate_uid()
    data.file_meta.TransferSyntaxUID = syntax
    data.StudyInstanceUID, data.SeriesInstanceUID = "1.2.3", series_uid
    data.PatientName, data.PatientID = PATIENT, "ID-4711"
    data.Modality, data.SeriesNumber, data.SeriesDescription = "CT", 3, "Head 1.5"
    for name, value in tags.items():
        setattr(data, name, value)
    return data


def set_pixels(data, values, slope=0.5, intercept=-1024.0):
    stored = np.rint((values - intercept) / slope).astype("<i2")
    data.Rows, data.Columns = stored.shape[-2:]
    data.BitsAllocated, data.BitsStored, data.HighBit, data.PixelRepresentation = 16, 16, 15, 1
    data.SamplesPerPixel, data.PhotometricInterpretation = 1, "MONOCHROME2"
    data.PixelData = stored.tobytes()


def write_slice(path, position, axes=TRANSVERSE, values=None, slope=0.5, **tags):
    photometric = tags.pop("PhotometricInterpretation", "MONOCHROME2")
    data = new_dataset(**tags)
    data.ImagePositionPatient = [f"{x:.6f}" for x in position]
    if "ImageOrientationPatient" not in tags:
        data.ImageOrientationPatient = [f"{x:.8f}" for x in axes[:, :2].T.ravel()]
    if "PixelSpacing" not in tags:
        data.PixelSpacing = list(SPACING_JI)
    data.RescaleSlope, data.RescaleIntercept = slope, -1024
    set_pixels(data, sampled(position, axes) if values is None else values, slope)
    data.PhotometricInterpretation = photometric
    data.save_as(path, enforce_file_format=True)
    return path


def write_series(folder, heights=tuple(range(0, 24, 2)), axes=TRANSVERSE, step=None, **tags):
    """Slices at `heights` mm along `step` (the normal if not given), in files whose names say nothing of the order."""
    folder.mkdir(exist_ok=True)
    step = axes[:, 2] if step is None else step
    order = np.random.default_rng(4).permutation(len(heights))
    for name, k in enumerate(order):
        write_slice(folder / f"IM{name:04d}", FIRST + heights[k] * np.asarray(step), axes, **tags)
    return folder


def assert_is_the_object(volume, tolerance_hu=0.3, margin=0):
    """Compare every voxel (but `margin` at the border) with the object at the place that the grid gives it."""
    k, j, i = np.mgrid[tuple(slice(margin, n - margin) for n in volume.grid.shape_kji)]
    truth = object_at(apply_affine(volume.grid.lps_from_ijk, np.stack([i, j, k], axis=-1)))
    np.testing.assert_allclose(volume.array_kji[k, j, i], truth, atol=tolerance_hu)


# ---------------------------------------------------------------- one sound series


@pytest.mark.parametrize(
    "axes",
    [
        TRANSVERSE,
        TRANSVERSE @ rotation_matrix((1, 0, 0), 90),
        rotation_matrix((0, 1, 0), -90),
        rotation_matrix((0, 0, 1), 180),
        rotation_matrix((1, 2, -1), 25),
    ],
)
def test_a_series_in_any_direction_is_sorted_by_position(tmp_path, axes):
    volume = read_volume(write_series(tmp_path / "head", axes=axes))
    assert volume.grid.size_ijk == (COLUMNS, ROWS, 12)
    np.testing.assert_allclose(volume.grid.spacing_ijk_mm, (1.25, 1.5, 2), rtol=1e-6)
    np.testing.assert_allclose(volume.grid.direction, axes, atol=1e-7)
    assert_is_the_object(volume)
    assert volume.notes == ()


def test_name_and_notes_never_show_the_patient(tmp_path):
    volume = read_volume(write_series(tmp_path / "Doe_4711", heights=[0, 2, 4, 8, 10]))
    assert volume.name == "CT series 3"
    assert volume.notes
    assert not any(word in text for text in volume.notes for word in ("Doe", "4711"))


@pytest.mark.parametrize(("tag", "modality"), [("CT", "CT"), ("MR", "MR"), ("OT", None)])
def test_the_modality_comes_from_the_files(tmp_path, tag, modality):
    assert read_volume(write_series(tmp_path / "a", heights=[0, 2, 4], Modality=tag)).modality == modality


def test_ct_given_as_mri_is_refused(tmp_path):
    with pytest.raises(
        ImageContentError,
        match=r"head: an MRI is needed here, .* headers say a CT\. Were CT and MRI swapped",
    ):
        read_volume(write_series(tmp_path / "head", heights=[0, 2, 4]), modality="MR")


def test_one_slice_stands_for_its_series(tmp_path):
    folder = write_series(tmp_path / "head", heights=[0, 2, 4])
    write_series(folder / "other", heights=[0, 2, 4, 6], SeriesInstanceUID="9.9")
    volume = read_volume(folder / "IM0001")
    assert (volume.grid.size_ijk[2], volume.name) == (3, "CT series 3")


def test_each_slices_own_rescale_is_applied(tmp_path):
    for k, slope in enumerate((0.5, 0.25, 2.0)):
        write_slice(tmp_path / f"{k}.dcm", above(2 * k), slope=slope)
    assert_is_the_object(read_volume(tmp_path), tolerance_hu=1.01)


def test_other_files_and_hidden_ones_are_ignored(tmp_path, capfd):
    folder = write_series(tmp_path / "head")
    (folder / "DICOMDIR").write_bytes((folder / "IM0000").read_bytes())
    (folder / ".IM0000").write_bytes((folder / "IM0000").read_bytes())
    (folder / "readme.txt").write_text("exported by ...")
    (folder / "preview.png").write_bytes(b"\x89PNG" + bytes(300))
    report = new_dataset(REPORT, "5.5", Modality="SR")
    report.save_as(folder / "report.dcm", enforce_file_format=True)
    assert_is_the_object(read_volume(folder))
    assert capfd.readouterr() == ("", "")


def test_folders_in_the_folder_are_searched(tmp_path):
    (tmp_path / "patient").mkdir()
    write_series(tmp_path / "patient" / "series1")
    assert_is_the_object(read_volume(tmp_path))


def test_files_of_before_the_dicm_mark_are_read(tmp_path):
    folder = write_series(tmp_path / "head", heights=[0, 2, 4])
    for file in folder.iterdir():
        data = pydicom.dcmread(file)
        del data.file_meta
        data.preamble = None
        # Only the data set, without preamble and file meta information, in implicit VR: DICOM's oldest form.
        data.save_as(file, implicit_vr=True, little_endian=True, enforce_file_format=False)
        assert file.read_bytes()[128:132] != b"DICM"
    assert_is_the_object(read_volume(folder))


# ---------------------------------------------------------------- several series


@pytest.fixture
def two_series(tmp_path):
    folder = write_series(tmp_path / "study", heights=[0, 2, 4, 6, 8], SeriesNumber=7, SeriesDescription="Bone\u00e9")
    for k in range(4):
        write_slice(
            folder / f"mr{k}",
            above(k),
            series_uid="8.8",
            SeriesNumber=2,
            Modality="MR",
            SeriesDescription="T1",
        )
    return folder


def test_several_series_are_listed(two_series):
    with pytest.raises(ImageFileError) as refusal:
        read_volume(two_series)
    lines = str(refusal.value).splitlines()
    assert "study: holds 2 DICOM series, and one is needed. Choose one by its UID, its number or" in lines[0]
    assert lines[1] == "  1. series 2, 'T1', MR, 4 slices, 8.8"
    assert lines[2].startswith("  2. series 7, 'Bone")
    assert lines[2].endswith("', CT, 5 slices, 1.2.3.4")
    assert "Doe" not in str(refusal.value)


@pytest.mark.parametrize(("choice", "slices"), [("8.8", 4), ("1.2.3.4", 5), (7, 5), ("7", 5), (2, 4), ("1", 4)])
def test_a_series_is_chosen_by_uid_number_or_place(two_series, choice, slices):
    assert read_volume(two_series, series=choice).grid.size_ijk[2] == slices


@pytest.mark.parametrize("choice", ["5.5", 9, 0])
def test_unknown_series_is_refused_with_the_list(two_series, choice):
    with pytest.raises(
        ImageFileError, match=f"no single one of them is '{choice}'(.|\n)*1. series 2(.|\n)*2. series 7"
    ):
        read_volume(two_series, series=choice)


def test_localizer_in_a_series_of_its_own_is_set_aside_with_a_note(tmp_path):
    folder = write_series(tmp_path / "head")
    alone = read_volume(folder)
    for n, name in enumerate(("scout", "other")):
        at = FIRST + np.array([0, 9.0 * n, 0])
        write_slice(folder / name, at, rotation_matrix((1, 0, 0), 90), series_uid="6.6", SeriesDescription="Scout")
    both = read_volume(folder)
    np.testing.assert_array_equal(both.array_kji, alone.array_kji)
    assert "2 images of series of less than 4 slices" in both.notes[-1]
    np.testing.assert_array_equal(read_volume(folder, series="6.6").grid.size_ijk[2], 2)


def test_two_series_of_few_slices_need_a_choice(tmp_path):
    folder = tmp_path / "scouts"
    folder.mkdir()
    for uid in ("6.6", "7.7"):
        write_slice(folder / uid, FIRST, rotation_matrix((1, 0, 0), 90), series_uid=uid, SeriesDescription="Scout")
    with pytest.raises(ImageFileError, match=r"2 DICOM series(.|\n)*'Scout', CT, 1 slice, "):
        read_volume(folder)


def test_a_long_list_of_series_stays_on_one_screen(tmp_path):
    for k in range(30):
        write_slice(tmp_path / f"{k}.dcm", FIRST, series_uid=f"7.{k}", SeriesNumber=k + 1)
    with pytest.raises(ImageFileError, match=r"30 DICOM series(.|\n)*\.\.\. and 18 more") as refusal:
        read_volume(tmp_path)
    assert len(str(refusal.value).splitlines()) < 20


# ---------------------------------------------------------------- gaps and tilt


def test_a_missing_slice_is_interpolated_with_a_note(tmp_path):
    heights = [k for k in range(0, 24, 2) if k not in (8, 18)]
    volume = read_volume(write_series(tmp_path / "head", heights=heights))
    assert volume.grid.size_ijk[2] == 12
    assert_is_the_object(volume, tolerance_hu=80)  # h^2/8 f'': 4 mm bridged, 1000 HU / (5 mm)^2
    present = [k for k in range(12) if 2 * k in heights]
    whole = read_volume(write_series(tmp_path / "whole"))
    np.testing.assert_allclose(volume.array_kji[present], whole.array_kji[present], atol=1e-3)
    np.testing.assert_allclose(volume.array_kji[4], (whole.array_kji[3] + whole.array_kji[5]) / 2, atol=1e-3)
    (note,) = volume.notes
    assert "unevenly spaced (2.00 to 4.00 mm" in note
    assert "10 slices were interpolated linearly onto 12" in note


def test_jittered_positions_keep_their_number_of_slices(tmp_path):
    volume = read_volume(write_series(tmp_path / "head", heights=[0, 2.2, 4, 6.2, 8, 10.2, 12]))
    assert volume.grid.size_ijk[2] == 7
    assert "(1.80 to 2.20 mm): 7 slices" in volume.notes[0]


def test_mixed_slice_distances_are_evened_to_the_finest(tmp_path):
    volume = read_volume(write_series(tmp_path / "head", heights=[0, 1, 2, 3, 4, 5, 6, 7, 8, 10, 12, 14, 16]))
    assert volume.grid.spacing_ijk_mm[2] == pytest.approx(1)
    assert_is_the_object(volume, tolerance_hu=20)
    assert volume.notes


def test_positions_rounded_to_a_hundredth_are_not_resampled(tmp_path):
    volume = read_volume(write_series(tmp_path / "head", heights=np.round(np.arange(12) * 0.625, 2)))
    assert volume.notes == ()
    assert volume.grid.spacing_ijk_mm[2] == pytest.approx(0.625, abs=1e-3)


def test_a_gap_too_large_to_fill_is_refused(tmp_path):
    with pytest.raises(GeometryError, match=r"head: slices are missing: .* 12.00 mm, where 2.00 mm is usual.*export"):
        read_volume(write_series(tmp_path / "head", heights=[0, 2, 4, 6, 18, 20, 22]))


def test_a_time_series_is_refused(tmp_path):
    folder = write_series(tmp_path / "head", heights=[0, 2, 4])
    for height in (0, 2, 4):
        write_slice(folder / f"later{height}", above(height), values=sampled(above(height), TRANSVERSE) + 10)
    with pytest.raises(GeometryError, match=r"head: 3 of its 6 slices have the same position.*time points.*Export one"):
        read_volume(folder)


@pytest.mark.parametrize("angle", [-20, 5, 15])
@pytest.mark.parametrize("base", [TRANSVERSE, rotation_matrix((1, 1, 0), 10)])
def test_a_tilted_gantry_is_corrected(tmp_path, angle, base):
    # The image plane is tilted about the rows, the table still moves along the body.
    axes = base @ rotation_matrix((1, 0, 0), angle)
    step = base[:, 2] / np.cos(np.radians(angle))
    volume = read_volume(write_series(tmp_path / "head", axes=axes, step=step))
    assert volume.grid.spacing_ijk_mm == pytest.approx((1.25, 1.5, 2), abs=1e-5)
    np.testing.assert_allclose(volume.grid.direction, axes, atol=1e-6)
    (note,) = volume.notes
    assert f"tilted by {abs(angle):.1f} degrees" in note
    # Linear interpolation lowers the blobs a little; a shift by a tenth of a pixel shows as 18 HU.
    inside = volume.array_kji > -1000 + 5
    k, j, i = np.nonzero(inside)
    truth = object_at(apply_affine(volume.grid.lps_from_ijk, np.column_stack([i, j, k])))
    assert inside.sum() > 500
    assert np.abs(volume.array_kji[inside] - truth).max() < 15
    weights = volume.array_kji[inside] + 1000
    points = apply_affine(volume.grid.lps_from_ijk, np.column_stack([i, j, k]))
    np.testing.assert_allclose(
        np.average(points, axis=0, weights=weights), np.average(points, axis=0, weights=truth + 1000), atol=0.05
    )


def test_tilt_and_a_missing_slice_together_are_both_repaired(tmp_path):
    axes = rotation_matrix((1, 0, 0), 12)
    step = np.array([0, 0, 1]) / np.cos(np.radians(12))
    volume = read_volume(write_series(tmp_path / "head", [0, 1, 2, 3, 5, 6, 7, 8, 9, 10], axes, step))
    assert len(volume.notes) == 2
    k, j, i = np.nonzero(volume.array_kji > -995)
    truth = object_at(apply_affine(volume.grid.lps_from_ijk, np.column_stack([i, j, k])))
    assert np.abs(volume.array_kji[k, j, i] - truth).max() < 30


def test_slices_side_by_side_are_refused(tmp_path):
    with pytest.raises(
        GeometryError, match=r"head: its slices are not stacked above each other: .* more than any gantry tilt"
    ):
        read_volume(write_series(tmp_path / "head", step=np.array([0, 2, 1.0])))


# ---------------------------------------------------------------- multi-frame


def write_enhanced(path, positions, axes=TRANSVERSE, slopes=None, orientations=None, syntax=ExplicitVRLittleEndian):
    data = new_dataset(ENHANCED_CT, syntax=syntax, NumberOfFrames=len(positions))
    shared, measures, plane, rescale = Dataset(), Dataset(), Dataset(), Dataset()
    measures.PixelSpacing, measures.SliceThickness = list(SPACING_JI), 2
    shared.PixelMeasuresSequence = [measures]
    plane.ImageOrientationPatient = [f"{x:.8f}" for x in axes[:, :2].T.ravel()]
    if orientations is None:
        shared.PlaneOrientationSequence = [plane]
    rescale.RescaleIntercept, rescale.RescaleSlope, rescale.RescaleType = -1024, 0.5, "HU"
    if slopes is None:
        shared.PixelValueTransformationSequence = [rescale]
    data.SharedFunctionalGroupsSequence = [shared]
    frames = []
    for k, position in enumerate(positions):
        frame, place = Dataset(), Dataset()
        if position is not None:
            place.ImagePositionPatient = [f"{x:.6f}" for x in position]
            frame.PlanePositionSequence = [place]
        if slopes is not None:
            own = Dataset()
            own.RescaleIntercept, own.RescaleSlope, own.RescaleType = -1024, slopes[k], "HU"
            frame.PixelValueTransformationSequence = [own]
        if orientations is not None:
            own = Dataset()
            own.ImageOrientationPatient = list(orientations[k])
            frame.PlaneOrientationSequence = [own]
        frames.append(frame)
    data.PerFrameFunctionalGroupsSequence = frames
    set_pixels(data, np.stack([sampled(FIRST if p is None else p, axes) for p in positions]))
    data.save_as(path, enforce_file_format=True)
    return path


def places(heights):
    return [above(z) for z in heights]


@pytest.mark.parametrize("syntax", [ExplicitVRLittleEndian, ImplicitVRLittleEndian])
@pytest.mark.parametrize("heights", [(0, 2, 4, 6, 8), (8, 6, 4, 2, 0), (0, 6, 2, 8, 4)])
def test_frames_are_sorted_by_position(tmp_path, heights, syntax):
    path = write_enhanced(tmp_path / "enhanced.dcm", places(heights), syntax=syntax)
    volume = read_volume(path)
    assert volume.grid.spacing_ijk_mm == pytest.approx((1.25, 1.5, 2))
    assert_is_the_object(volume)
    assert (volume.modality, volume.notes) == ("CT", ())


def test_more_frames_described_than_held_are_refused(tmp_path):
    path = write_enhanced(tmp_path / "enhanced.dcm", places((0, 2, 4)))
    damaged = pydicom.dcmread(path)
    damaged.NumberOfFrames, damaged.PixelData = 1, damaged.PixelData[: len(damaged.PixelData) // 3]
    damaged.save_as(path)
    with pytest.raises(ImageFileError, match="describes 3 frames"):
        read_volume(path)


def test_tilt_and_gaps_of_frames_are_corrected(tmp_path):
    write_enhanced(tmp_path / "a.dcm", places((0, 2, 4, 8, 10)))
    assert any("unevenly" in note for note in read_volume(tmp_path).notes)
    axes = rotation_matrix((1, 0, 0), 10)
    write_enhanced(tmp_path / "a.dcm", places((0, 2, 4, 6)), axes)
    assert any("tilted by 10.0" in note for note in read_volume(tmp_path).notes)


def test_each_frames_own_rescale_is_applied(tmp_path):
    whole = read_volume(write_enhanced(tmp_path / "a.dcm", places((0, 2, 4)))).array_kji
    volume = read_volume(write_enhanced(tmp_path / "a.dcm", places((0, 2, 4)), slopes=[0.5, 1, 0.25]))
    np.testing.assert_allclose(volume.array_kji + 1024, (whole + 1024) * np.array([1, 2, 0.5])[:, None, None])


def test_frames_without_any_position_are_refused(tmp_path):
    path = write_enhanced(tmp_path / "enhanced.dcm", [None] * 3)
    with pytest.raises(ImageFileError, match=r"enhanced\.dcm: .* cannot be positioned reliably.*dcm2niix"):
        read_volume(path)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"positions": [*places((0, 2, 4)), None]}, "1 frame without its position"),
        (
            {"positions": places((0, 2, 4, 6)), "orientations": [[1, 0, 0, 0, 1, 0]] * 3 + [[0, 1, 0, 0, 0, -1]]},
            "scout",
        ),
    ],
)
def test_odd_frame_is_set_aside(tmp_path, changes, words):
    volume = read_volume(write_enhanced(tmp_path / "enhanced.dcm", **changes))
    assert volume.grid.size_ijk[2] == 3
    assert words in volume.notes[0]
    assert_is_the_object(volume)


def test_multi_frame_files_of_a_series_are_one_volume(tmp_path):
    write_enhanced(tmp_path / "a.dcm", places((0, 4, 2)))
    write_enhanced(tmp_path / "b.dcm", places((6, 10, 8)))
    volume = read_volume(tmp_path)
    assert volume.grid.size_ijk[2] == 6
    assert_is_the_object(volume)


# ---------------------------------------------------------------- refusals


def test_a_folder_without_dicom_is_refused(tmp_path):
    (tmp_path / "notes.txt").write_text("nothing here")
    with pytest.raises(ImageFileError, match=r"no DICOM images .*\(1 file looked at, .* 4 levels.*\)\. Give the"):
        read_volume(tmp_path)


def test_a_report_is_refused(tmp_path):
    folder = write_series(tmp_path / "head", heights=[0, 2, 4])
    new_dataset(REPORT, "5.5", Modality="SR").save_as(folder / "report.dcm", enforce_file_format=True)
    with pytest.raises(ImageFileError, match=r"report\.dcm: is not a DICOM image.*Give one slice"):
        read_volume(folder / "report.dcm")


@pytest.mark.parametrize("lost", [10, 700])
def test_a_slice_cut_short_is_refused_and_not_bridged(tmp_path, lost, capfd):
    folder = write_series(tmp_path / "head")
    damaged = folder / "IM0005"
    damaged.write_bytes(damaged.read_bytes()[:-lost])
    with pytest.raises(ImageFileError, match=r"IM0005: this DICOM file is damaged, cut short.*Copy the series again"):
        read_volume(folder)
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("syntax", [ExplicitVRLittleEndian, ImplicitVRLittleEndian])
@pytest.mark.parametrize("modality", ["CT", "OT"])
def test_truncated_slice_is_refused(tmp_path, syntax, modality):
    folder = write_series(tmp_path / "head", heights=[0, 2, 4], syntax=syntax, Modality=modality)
    damaged = folder / "IM0001"
    whole = damaged.read_bytes()
    start = len(whole) - 2 * ROWS * COLUMNS
    for length in [*range(132, start, 37), start - 8, start, start + 1, len(whole) - 1]:
        damaged.write_bytes(whole[:length])
        with pytest.raises(ImageFileError, match="IM0001: this DICOM file is damaged, cut short"):
            read_volume(folder)


def test_a_damaged_report_beside_the_slices_is_ignored(tmp_path):
    folder = write_series(tmp_path / "head", heights=[0, 2, 4])
    new_dataset(REPORT, "5.5", Modality="SR").save_as(folder / "report.dcm", enforce_file_format=True)
    content = (folder / "report.dcm").read_bytes()
    (folder / "report.dcm").write_bytes(content[: content.index(b"Head 1.5") - 8])
    assert read_volume(folder).grid.size_ijk[2] == 3


@pytest.mark.parametrize("fragments", [1, 3])
def test_compressed_slices_need_complete_fragments(tmp_path, fragments):
    folder = write_series(tmp_path / "head", heights=[0, 2, 4])
    for file in folder.iterdir():
        data = pydicom.dcmread(file)
        data.compress(RLELossless)
        (frame,) = generate_frames(data.PixelData, number_of_frames=1)
        data.PixelData = encapsulate([frame], fragments_per_frame=fragments)
        data.save_as(file, enforce_file_format=True)
    if fragments == 1:  # the standard allows one fragment a frame in this syntax
        assert_is_the_object(read_volume(folder))
    damaged = folder / "IM0001"
    damaged.write_bytes(damaged.read_bytes()[:-60])
    with pytest.raises(ImageFileError, match="IM0001: this DICOM file is damaged, cut short"):
        read_volume(folder)


def test_deflated_slices_are_read(tmp_path):
    assert_is_the_object(read_volume(write_series(tmp_path / "head", syntax=DeflatedExplicitVRLittleEndian)))


def test_pixels_that_cannot_be_decoded_are_refused(tmp_path):
    folder = write_series(tmp_path / "head", heights=[0, 2, 4])
    for file in folder.iterdir():
        data = pydicom.dcmread(file)
        data.compress(RLELossless)
        data.file_meta.TransferSyntaxUID = "1.2.840.10008.1.2.4.100"  # MPEG-2
        data.save_as(file, enforce_file_format=True)
    with pytest.raises(ImageFileError, match=r"IM0000: its pixels are encoded in MPEG2.*, which is not read"):
        read_volume(folder)


def test_odd_header_values_cause_no_warnings(tmp_path, caplog, capfd):
    folder = write_series(tmp_path / "head", heights=[0, 2, 4])
    for file in folder.iterdir():
        content = file.read_bytes()
        for old, new in ((b"ID-4711", b"ID\n4711"), (b"Doe^Jane", b"Do\\\xff\xfe==="), (b"Head 1.5", b"Head\n\x1b[5")):
            assert content.count(old) == 1
            content = content.replace(old, new)
        file.write_bytes(content)
    with pytest.raises(ImageFileError, match=r"no single one(.|\n)*'Head\?\?\[5'"):
        read_volume(folder, series=99)
    read_volume(folder)
    assert caplog.text == ""
    assert capfd.readouterr() == ("", "")


def test_the_header_of_each_slice_is_read_once(tmp_path, monkeypatch):
    folder = write_series(tmp_path / "head")
    read, real = [], pydicom.dcmread

    def counted(stream, **options):
        read.append(stream.name)
        return real(stream, **options)

    monkeypatch.setattr(pydicom, "dcmread", counted)
    read_volume(folder)
    assert sorted(read) == sorted(str(file) for file in folder.iterdir())


def test_a_single_slice_is_refused(tmp_path):
    write_slice(tmp_path / "a.dcm", FIRST)
    with pytest.raises(GeometryError, match="a 3D volume is needed, but this series has a single slice"):
        read_volume(tmp_path)


def test_zero_pixel_spacing_is_refused(tmp_path):
    with pytest.raises(GeometryError, match="head: pixel spacing must be above zero"):
        read_volume(write_series(tmp_path / "head", PixelSpacing=[0, 1]))


def test_directions_that_are_not_perpendicular_are_refused(tmp_path):
    with pytest.raises(GeometryError, match=r"head: .*perpendicular"):
        read_volume(write_series(tmp_path / "head", ImageOrientationPatient=[1, 0, 0, 0.2, 0.98, 0]))


def test_images_without_position_are_refused(tmp_path):
    folder = write_series(tmp_path / "head", heights=[0, 2, 4])
    for file in folder.iterdir():
        data = pydicom.dcmread(file)
        del data.ImagePositionPatient
        data.save_as(file)
    with pytest.raises(ImageFileError, match=r"IM000\d: its DICOM header does not give the image position.*Export"):
        read_volume(folder)


def test_colour_images_are_refused(tmp_path):
    for k in range(3):
        data = new_dataset(
            ImagePositionPatient=[0, 0, k], ImageOrientationPatient=[1, 0, 0, 0, 1, 0], PixelSpacing=[1, 1]
        )
        set_pixels(data, np.zeros((4, 4)))
        data.SamplesPerPixel, data.PhotometricInterpretation, data.PlanarConfiguration = 3, "RGB", 0
        data.BitsAllocated, data.BitsStored, data.HighBit, data.PixelRepresentation = 8, 8, 7, 0
        data.PixelData = bytes(48)
        data.save_as(tmp_path / f"{k}.dcm", enforce_file_format=True)
    with pytest.raises(ImageFileError, match=r"0\.dcm: is a colour image"):
        read_volume(tmp_path)


# ---------------------------------------------------------------- pixels, lengths and streams that lie


def changed(path, **tags):
    """Change attributes of a slice; PixelData is cut or made longer to the number of bytes given as ``pixel_bytes``."""
    data = pydicom.dcmread(path)
    count = tags.pop("pixel_bytes", None)
    if count is not None:
        data.PixelData = data.PixelData[:count].ljust(count, b"\0")
    for name, value in tags.items():
        setattr(data, name, value)
    data.save_as(path, enforce_file_format=True)
    return path


NEEDED = ROWS * COLUMNS * 2


@pytest.mark.parametrize("syntax", [ExplicitVRLittleEndian, ImplicitVRLittleEndian, DeflatedExplicitVRLittleEndian])
@pytest.mark.parametrize(
    "changes",
    [
        *({"pixel_bytes": count} for count in (0, NEEDED - 2, NEEDED + 5000)),
        *({"Columns": 64}, {"Rows": 60000}, {"BitsAllocated": 32}, {"NumberOfFrames": 2}),
    ],
)
def test_pixels_of_another_length_than_the_header_says_are_refused(tmp_path, syntax, changes):
    folder = write_series(tmp_path / "head", heights=[0, 2, 4], syntax=syntax)
    changed(folder / "IM0001", **changes)
    with pytest.raises(ImageFileError, match=r"IM0001: this DICOM file is damaged: rows, columns and frames"):
        read_volume(folder)


@pytest.mark.parametrize(("modality", "notes"), [("CT", 1), ("MR", 0)])
def test_slices_of_a_ct_with_values_of_several_scales_are_noted(tmp_path, modality, notes):
    folder = write_series(tmp_path / "head", heights=[0, 2, 4], Modality=modality)
    changed(folder / "IM0001", RescaleSlope=2)
    said = read_volume(folder).notes
    assert len(said) == notes
    assert all("2 different rescale slopes or intercepts" in note for note in said)


def test_slope_of_zero_is_noted(tmp_path):
    folder = write_series(tmp_path / "head", heights=[0, 2, 4])
    for file in folder.iterdir():
        changed(file, RescaleSlope=0)
    assert "its rescale slope is 0" in read_volume(folder).notes[0]


def test_slice_without_pixel_spacing_is_not_called_a_screenshot(tmp_path):
    folder = write_series(tmp_path / "head", heights=[0, 2, 4, 6])
    odd = pydicom.dcmread(folder / "IM0001")
    del odd.PixelSpacing
    odd.save_as(folder / "IM0001", enforce_file_format=True)
    assert any("1 image without its pixel spacing (a damaged slice?)" in note for note in read_volume(folder).notes)


def test_padding_behind_pixels_is_noted(tmp_path):
    folder = write_series(tmp_path / "head", heights=[0, 2, 4])
    whole = read_volume(folder)
    changed(folder / "IM0001", pixel_bytes=NEEDED + 100)
    volume = read_volume(folder)
    np.testing.assert_array_equal(volume.array_kji, whole.array_kji)
    assert volume.notes == ("1 of 3 files have up to 100 bytes behind their pixels, ignored.",)


@pytest.mark.parametrize("syntax", [ExplicitVRLittleEndian, ImplicitVRLittleEndian, DeflatedExplicitVRLittleEndian])
@pytest.mark.parametrize("signed", [0, 1])
@pytest.mark.parametrize("bits", [(8, 8, 7), (16, 16, 15), (16, 12, 11), (16, 12, 15), (32, 32, 31)])
def test_bits_that_count_are_read_with_their_sign(tmp_path, syntax, signed, bits):
    allocated, stored, high = bits
    low = -(1 << (stored - 1)) if signed else 0
    values = np.random.default_rng(1).integers(low, low + (1 << min(stored, 24)) - 1, (3, ROWS, COLUMNS))
    shift = high + 1 - stored
    raw = ((values << shift) & ((1 << (high + 1)) - 1)) | (0 if high + 1 == allocated else 1 << (high + 1))
    for k in range(3):
        path = write_slice(tmp_path / f"{k}.dcm", above(2 * k), syntax=syntax, slope=1)
        changed(path, BitsAllocated=allocated, BitsStored=stored, HighBit=high, PixelRepresentation=signed,
                RescaleIntercept=0, PixelData=(raw[k].astype(f"<u{allocated // 8}")).tobytes())  # fmt: skip
    np.testing.assert_array_equal(read_volume(tmp_path).array_kji, values.astype(np.float32))


def test_deflate_stream_cut_anywhere_is_refused(tmp_path):
    folder = write_series(tmp_path / "head", heights=[0, 2, 4], syntax=DeflatedExplicitVRLittleEndian)
    path = folder / "IM0002"
    whole = path.read_bytes()
    start = pydicom.filereader.read_file_meta_info(path).FileMetaInformationGroupLength + 144
    for position in range(start, len(whole), (len(whole) - start) // 25):
        path.write_bytes(whole[:position])
        with pytest.raises(ImageFileError, match=r"IM0002: this DICOM file is damaged"):
            read_volume(folder)


def test_damaged_deflate_stream_is_refused_where_it_unpacks_to_another_length(tmp_path):
    folder = write_series(tmp_path / "head", heights=[0, 2, 4], syntax=DeflatedExplicitVRLittleEndian)
    path = folder / "IM0001"
    meta_end = pydicom.filereader.read_file_meta_info(path).FileMetaInformationGroupLength + 144
    meta, packed = path.read_bytes()[:meta_end], path.read_bytes()[meta_end:]
    whole = zlib.decompress(packed, -zlib.MAX_WBITS)

    def deflated(content):
        packer = zlib.compressobj(wbits=-zlib.MAX_WBITS)
        return meta + packer.compress(content) + packer.flush()

    for content in (deflated(whole + b"rest of a damaged stream"), deflated(whole) + b"more", deflated(whole[:-2])):
        path.write_bytes(content)
        with pytest.raises(ImageFileError, match=r"IM0001: this DICOM file is damaged"):
            read_volume(folder)
    path.write_bytes(deflated(whole) + b"\0")
    assert read_volume(folder).notes == ()
    # Of the same length: no checksum tells, but these pixels are of no image.
    one, size = -ROWS * COLUMNS + COLUMNS // 2 + 1, 2 * ROWS * COLUMNS
    noise = np.random.default_rng(0).bytes(size)
    for torn, count in ((whole[:one] + b"\x7f" + whole[one + 1 :], 1), (whole[:-size] + noise, 477)):
        path.write_bytes(deflated(torn))
        (note,) = read_volume(folder).notes
        assert note.startswith(f"1 of 3 slices have {count} pixels far from their neighbours")


def test_deflate_bomb_is_refused(tmp_path):
    path = write_slice(tmp_path / "a.dcm", FIRST, syntax=DeflatedExplicitVRLittleEndian)
    changed(path, PixelData=bytes(80 << 20))
    assert path.stat().st_size < 1 << 20
    with pytest.raises(ImageFileError, match=r"a\.dcm: .*unpack to more than"):
        read_volume(tmp_path)


def test_wrong_length_takes_no_memory(tmp_path):
    import tracemalloc

    folder = write_series(tmp_path / "head", heights=[0, 2, 4])
    whole = (folder / "IM0001").read_bytes()
    position = whole.index(b"\xe0\x7f\x10\x00OW") + 8
    changed(folder / "IM0001", RedPaletteColorLookupTableData=b"1234")
    (folder / "IM0001").write_bytes(
        (folder / "IM0001").read_bytes().replace(b"OW\0\0\x04\0\0\0", b"OW\0\0\xf0\xff\xff\xff", 1)
    )
    tracemalloc.start()
    for content in ((folder / "IM0001").read_bytes(), whole[:position] + b"\xf0\xff\xff\xff" + whole[position + 4 :]):
        (folder / "IM0001").write_bytes(content)
        with pytest.raises(ImageFileError, match=r"IM0001: this DICOM file is damaged"):
            read_volume(folder)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 50e6


def test_wrong_length_behind_compressed_pixels_is_refused(tmp_path):
    folder = write_series(tmp_path / "head", heights=[0, 2, 4])
    for file in folder.iterdir():
        data = pydicom.dcmread(file)
        data.compress(RLELossless)
        data.save_as(file, enforce_file_format=True)
    assert read_volume(folder).grid.size_ijk == (COLUMNS, ROWS, 3)
    with (folder / "IM0001").open("ab") as stream:
        stream.write(b"\xfc\xff\xfc\xffOB\0\0\xf0\xff\xff\xff" + bytes(20))
    with pytest.raises(ImageFileError, match=r"IM0001: this DICOM file is damaged"):
        read_volume(folder)


def test_slice_that_lost_its_mark_is_not_left_out(tmp_path):
    folder = write_series(tmp_path / "head", heights=[0, 2, 4])
    content = bytearray((folder / "IM0002").read_bytes())
    content[130] ^= 1
    (folder / "IM0002").write_bytes(content)
    with pytest.raises(ImageFileError, match=r"IM0002: this DICOM file is damaged"):
        read_volume(folder)


def compress(folder, syntax):
    """Compress all slices of a folder: RLE by pydicom, JPEG by ITK's writer, whose file gives the pixels."""
    import SimpleITK as sitk

    for file in sorted(folder.iterdir()):
        data = pydicom.dcmread(file)
        if syntax == "RLE":
            data.compress(RLELossless)
        else:
            writer = sitk.ImageFileWriter()
            writer.SetFileName(str(folder.parent / "made.dcm"))
            writer.SetImageIO("GDCMImageIO")
            writer.UseCompressionOn()
            writer.SetCompressor(syntax)
            writer.Execute(sitk.GetImageFromArray(data.pixel_array[None].astype(np.int16)))
            made = pydicom.dcmread(folder.parent / "made.dcm")
            data.PixelData, data.file_meta.TransferSyntaxUID = made.PixelData, made.file_meta.TransferSyntaxUID
            data["PixelData"].VR, data["PixelData"].is_undefined_length = "OB", True
        data.save_as(file, enforce_file_format=True)


@pytest.mark.parametrize("syntax", ["RLE", "JPEG", "JPEG2000"])
def test_compressed_slices_are_read_if_they_are_what_the_header_says(tmp_path, syntax):
    folder = write_series(tmp_path / "head", heights=[0, 2, 4])
    whole = read_volume(folder)
    compress(folder, syntax)
    np.testing.assert_array_equal(read_volume(folder).array_kji, whole.array_kji)
    content = {file: file.read_bytes() for file in folder.iterdir()}
    for changes in ({"Rows": 8}, {"Rows": 300}, {"Columns": 9}, {"BitsAllocated": 8, "BitsStored": 8, "HighBit": 7}):
        for file in content:
            changed(file, **changes)
        with pytest.raises(ImageFileError, match=r"this DICOM file is damaged"):
            read_volume(folder)
        for file, data in content.items():
            file.write_bytes(data)


@pytest.mark.parametrize("shape", [(2, 3), (3, 5), (1, 300), (64, 64)])
@pytest.mark.parametrize("kind", ["u1", "i2"])
def test_rle_is_decoded_as_pydicom_encoded_it(shape, kind):
    from BrainFusionLib.io.dicom_codestreams import decode_rle

    values = np.random.default_rng(2).integers(0, 3, shape).astype("<" + kind)
    values[:, : shape[1] // 2] = 1
    data, bits = new_dataset(), 8 * values.itemsize
    data.Rows, data.Columns, data.SamplesPerPixel, data.PhotometricInterpretation = *shape, 1, "MONOCHROME2"
    data.BitsAllocated, data.BitsStored, data.HighBit, data.PixelRepresentation = (
        bits,
        bits,
        bits - 1,
        int(kind[0] == "i"),
    )
    data.compress(RLELossless, values)
    (frame,) = generate_frames(data.PixelData, number_of_frames=1)
    decoded = decode_rle(frame, values.size, values.itemsize)
    assert decoded.tobytes() == values.tobytes()
    for pixels, value_bytes in ((values.size + 1, values.itemsize), (values.size, values.itemsize + 1)):
        with pytest.raises(ValueError, match=r"segments|another number"):
            decode_rle(frame, pixels, value_bytes)


@pytest.mark.parametrize("rest", [0, 40, 131])
def test_last_slice_cut_before_its_mark_is_noted(tmp_path, rest):
    folder = write_series(tmp_path / "head", heights=[0, 2, 4, 6])
    last = max(folder.iterdir(), key=lambda file: pydicom.dcmread(file).ImagePositionPatient[2])
    last.write_bytes(last.read_bytes()[:rest])
    (folder / "readme.txt").write_text("not a slice by its name")
    volume = read_volume(folder)
    assert volume.grid.size_ijk[2] == 3
    (note,) = volume.notes
    assert note.startswith("1 file beside the slices left out as not DICOM, or damaged at the start")
