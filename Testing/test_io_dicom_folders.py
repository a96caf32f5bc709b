"""Folders as they come from a PACS or a CD: what is not a slice of the volume is set aside, counted and named."""

from __future__ import annotations

import os
import shutil
import tempfile
import zipfile

import numpy as np
import pydicom
import pytest
from pydicom.uid import ExplicitVRLittleEndian, generate_uid

from BrainFusionLib.errors import GeometryError, ImageContentError, ImageFileError
from BrainFusionLib.geometry import rotation_matrix
from BrainFusionLib.io import read_volume
from Testing.test_io_dicom import (
    ENHANCED_CT,
    above,
    changed,
    compress,
    new_dataset,
    write_enhanced,
    write_series,
    write_slice,
)

SCOUT = rotation_matrix((1, 0, 0), 90)


@pytest.fixture
def folder(tmp_path):
    return write_series(tmp_path / "head", heights=range(0, 12, 2))


@pytest.fixture
def whole(folder):
    return read_volume(folder)


def assert_same(folder, whole, *words):
    volume = read_volume(folder)
    np.testing.assert_array_equal(volume.array_kji, whole.array_kji)
    assert volume.grid.same_as(whole.grid)
    for word in words:
        assert word in volume.notes[0]
    assert len(volume.notes) == 1


@pytest.mark.parametrize("modality", ["CT", "MR", "OT"])
@pytest.mark.parametrize(
    ("sop_class", "word"),
    [
        ("1.2.840.10008.5.1.4.1.1.66", "1 Raw Data Storage"),
        ("1.3.12.2.1107.5.9.1", "1 private object"),
        ("1.3.46.670589.11.0.0.12.2", "1 private object"),
        ("1.2.840.10008.5.1.4.1.1.4.2", "1 MR Spectroscopy Storage"),
        ("1.2.840.10008.5.1.4.1.1.11.1", "1 Grayscale Softcopy Presentation State Storage"),
        ("1.2.840.10008.5.1.4.1.1.104.1", "1 Encapsulated PDF Storage"),
        ("1.2.840.10008.5.1.4.1.1.88.67", "1 X-Ray Radiation Dose SR Storage"),
        ("1.2.840.10008.1.3.10", "1 index file (DICOMDIR)"),
    ],
)
def test_object_without_image_is_set_aside(folder, whole, sop_class, word, modality):
    extra = new_dataset(sop_class, "1.2.9", Modality=modality)
    if "Spectroscopy" in word:
        extra.Rows = extra.Columns = 1
    extra.save_as(folder / "AAA", enforce_file_format=True)
    assert_same(folder, whole, "1 file or image was set aside", word)


def test_image_cut_before_its_pixels_is_no_object_without_image(folder):
    damaged = pydicom.dcmread(folder / "IM0003")
    del damaged.PixelData, damaged.Rows
    damaged.save_as(folder / "IM0003", enforce_file_format=True)
    with pytest.raises(ImageFileError, match="IM0003: this DICOM file is damaged"):
        read_volume(folder)


def test_identical_copies_are_set_aside(folder, whole):
    shutil.copy(folder / "IM0001", folder / "IM0001 (1)")
    again = pydicom.dcmread(folder / "IM0002")
    again.StudyDescription = "written by another program"
    again.save_as(folder / "again", enforce_file_format=True)
    assert_same(folder, whole, "2 identical copies")


def test_link_to_the_folder_itself_is_not_followed(folder, whole):
    (folder / "again").symlink_to(folder)
    (folder / "itself").symlink_to(folder / "itself")
    np.testing.assert_array_equal(read_volume(folder).array_kji, whole.array_kji)
    assert read_volume(folder).notes == ("1 broken link is beside the slices: if one was a slice, it is missing.",)


def test_other_image_under_the_uid_of_a_slice_is_no_copy(folder):
    other = pydicom.dcmread(folder / "IM0001")
    other.PixelData = bytes(len(other.PixelData))
    other.save_as(folder / "other", enforce_file_format=True)
    with pytest.raises(GeometryError, match="1 of its 7 slices have the same position"):
        read_volume(folder)


@pytest.mark.parametrize("name", ["AAA", "zzz"])
@pytest.mark.parametrize(
    ("tags", "word"),
    [
        ({"axes": SCOUT}, "1 image that points in another direction (a scout?)"),
        ({"values": np.zeros((33, 36))}, "1 image of another size"),
        ({"PixelSpacing": [1, 1]}, "1 image of another size or pixel spacing"),
        ({"Modality": "OT"}, "1 image of modality OT"),
    ],
)
def test_odd_image_is_set_aside_and_not_the_slices(folder, whole, name, tags, word):
    write_slice(folder / name, above(6), **tags)
    assert_same(folder, whole, word)


def test_image_without_position_is_set_aside(folder, whole):
    write_slice(folder / "AAA", above(6))
    odd = pydicom.dcmread(folder / "AAA")
    del odd.ImagePositionPatient
    odd.save_as(folder / "AAA", enforce_file_format=True)
    assert_same(folder, whole, "1 image without a position")


def test_two_volumes_under_one_uid_are_listed(folder, whole):
    for height in range(0, 10, 2):
        write_slice(folder / f"MR{height}", above(height), Modality="MR")
    with pytest.raises(ImageFileError, match=r"2 DICOM series(.|\n)*CT, 6 slices(.|\n)*MR, 5 slices"):
        read_volume(folder)
    np.testing.assert_array_equal(read_volume(folder, series=1).array_kji, whole.array_kji)
    assert read_volume(folder, series=2).modality == "MR"


def test_two_halves_of_a_head_at_two_tilts_are_told_apart(folder):
    for height in range(12, 24, 2):
        write_slice(folder / f"B{height}", above(height), rotation_matrix((1, 0, 0), 12))
    with pytest.raises(ImageFileError, match=r"2 DICOM series(.|\n)*turned by 12\.00 degrees against the first"):
        read_volume(folder)


def test_two_reconstructions_under_one_uid_are_listed(folder, whole):
    for height in range(0, 12, 2):
        write_slice(folder / f"B{height}", above(height), ConvolutionKernel="B70")
    with pytest.raises(ImageFileError, match=r"2 DICOM series(.|\n)*ConvolutionKernel 'B70"):
        read_volume(folder)
    assert {read_volume(folder, series=n).grid.size_ijk[2] for n in (1, 2)} == {6}


def test_slices_with_a_series_uid_each_are_put_together_with_a_note(tmp_path):
    folder = write_series(tmp_path / "head", heights=range(0, 16, 2))
    whole = read_volume(folder)
    for file in folder.iterdir():
        changed(file, SeriesInstanceUID=generate_uid())
    assert_same(folder, whole, "the slices give 8 different series UIDs")
    changed(folder / "IM0003", SeriesDescription="another one")
    with pytest.raises(ImageFileError, match="holds 8 DICOM series"):
        read_volume(folder)


@pytest.mark.parametrize("keyword", ["StudyInstanceUID", "FrameOfReferenceUID", "StudyDate"])
def test_slices_with_a_series_uid_each_of_two_scans_are_not_put_together(tmp_path, keyword):
    folder = write_series(tmp_path / "head", heights=range(0, 16))
    for number, file in enumerate(sorted(folder.iterdir())):
        scan = {"StudyDate": f"202{number % 2}0101"} if keyword == "StudyDate" else {keyword: f"1.2.3.{number % 2}"}
        changed(file, SeriesInstanceUID=generate_uid(), PatientID="", **scan)
    with pytest.raises(ImageFileError, match="holds 2 DICOM series"):
        read_volume(folder)


@pytest.mark.parametrize("name", ["DICOMDIR", "dicomdir"])
def test_index_file_stands_for_the_folders_beside_it(folder, whole, tmp_path, name):
    index = new_dataset("1.2.840.10008.1.3.10", "1.2.9")
    index.save_as(tmp_path / name, enforce_file_format=True)
    volume = read_volume(tmp_path / name)
    np.testing.assert_array_equal(volume.array_kji, whole.array_kji)


@pytest.mark.parametrize(
    ("keyword", "values"), [("KVP", (80, 140)), ("TriggerTime", (0, 50)), ("SliceThickness", (1, 2))]
)
def test_volumes_at_one_place_are_told_apart_by_what_differs(folder, keyword, values):
    for file in folder.iterdir():
        changed(file, **{keyword: values[0]})
    for height in range(0, 12, 2):
        write_slice(folder / f"B{height}", above(height), **{keyword: values[1]})
    with pytest.raises(ImageFileError, match=rf"2 DICOM series(.|\n)*{keyword} '{values[1]}"):
        read_volume(folder)


TWO = ["MAGNITUDE", "PHASE"]


@pytest.mark.parametrize(
    ("tags", "words"),
    [
        ((("MRImageFrameTypeSequence", "ComplexImageComponent", TWO),), "ComplexImageComponent 'PHASE'"),
        (
            (
                ("MRImageFrameTypeSequence", "ComplexImageComponent", [*TWO, *TWO]),
                ("MREchoSequence", "EffectiveEchoTime", [5, 5, 9, 9]),
            ),
            "EffectiveEchoTime '9.0', ComplexImageComponent 'PHASE'",
        ),
        ((("FrameContentSequence", "DimensionIndexValues", [[1, 1], [1, 2]]),), "dimension 2 '2'"),
    ],
)
def test_frames_at_one_place_are_told_apart_by_one_attribute_or_by_several(tmp_path, tags, words):
    count = len(tags[0][2])
    path = write_enhanced(tmp_path / "a.dcm", [above(z) for z in (0, 2, 4)] * count)
    data = pydicom.dcmread(path)
    for n, frame in enumerate(data.PerFrameFunctionalGroupsSequence):
        for sequence, keyword, values in tags:
            item = pydicom.Dataset()
            setattr(item, keyword, values[n // 3])
            setattr(frame, sequence, [item])
    data.save_as(path)
    with pytest.raises(ImageFileError, match=rf"{count} DICOM series(.|\n)*{words}"):
        read_volume(path)
    assert read_volume(path, series=count).grid.size_ijk[2] == 3


def test_images_sent_again_under_new_uids_are_copies(folder, whole):
    for height in (0, 4, 6):
        write_slice(folder / f"again{height}", above(height))
    assert_same(folder, whole, "3 identical copies")


def test_images_in_another_frame_of_reference_are_set_aside(folder, whole):
    for file in folder.iterdir():
        changed(file, FrameOfReferenceUID="1.9.1")
    write_slice(folder / "reformatted", above(3), FrameOfReferenceUID="1.9.2")
    assert_same(folder, whole, "1 image in another frame of reference")
    (folder / "reformatted").unlink()
    for number, file in enumerate(sorted(folder.iterdir())):  # a slice that states none is in no other one
        if number % 2:
            changed(file, FrameOfReferenceUID="")
    assert (read_volume(folder).grid.size_ijk, read_volume(folder).notes) == (whole.grid.size_ijk, ())
    write_slice(folder / "between", above(3))
    for file in folder.iterdir():
        changed(file, FrameOfReferenceUID=generate_uid())
    assert read_volume(folder).grid.spacing_ijk_mm[2] == pytest.approx(1)


def test_ct_slices_without_the_rescale_intercept_of_the_others_are_refused(folder):
    odd = pydicom.dcmread(folder / "IM0003")
    del odd.RescaleSlope, odd.RescaleIntercept
    odd.save_as(folder / "IM0003", enforce_file_format=True)
    with pytest.raises(ImageFileError, match="IM0003: 1 of 6 slices, this one among them, lack the rescale intercept"):
        read_volume(folder)


@pytest.mark.parametrize(("modality", "word"), [("PT", "PET"), ("US", "ultrasound")])
def test_images_that_are_neither_ct_nor_mri_are_refused_as_one(folder, modality, word):
    for file in folder.iterdir():
        changed(file, Modality=modality)
    with pytest.raises(ImageContentError, match=f"an MRI is needed here, but the DICOM headers say {word}"):
        read_volume(folder, modality="MR")


def test_stacks_of_a_multi_frame_file_are_listed(tmp_path):
    axial, coronal = [1, 0, 0, 0, 1, 0], [1, 0, 0, 0, 0, -1]
    positions = [above(z) for z in (0, 2, 4, 6)] + [above(0) + np.array([0, y, 0]) for y in (0, 3, 6, 9)]
    write_enhanced(tmp_path / "a.dcm", positions, orientations=[axial] * 4 + [coronal] * 4)
    with pytest.raises(ImageFileError, match=r"2 DICOM series(.|\n)*axial(.|\n)*coronal"):
        read_volume(tmp_path)
    assert read_volume(tmp_path, series=1).grid.spacing_ijk_mm[2] == pytest.approx(2)
    assert read_volume(tmp_path, series=2).grid.spacing_ijk_mm[2] == pytest.approx(3)


def test_private_and_nested_positions_are_not_those_of_frames(tmp_path):
    path = write_enhanced(tmp_path / "a.dcm", [above(z) for z in (0, 2, 4, 6)])
    before = read_volume(path)
    data = pydicom.dcmread(path)
    for frame in data.PerFrameFunctionalGroupsSequence:
        copy = pydicom.Dataset()
        copy.ImagePositionPatient, copy.ImageOrientationPatient = [9, 9, 9], [0, 1, 0, 0, 0, 1]
        block = frame.private_block(0x2005, "Philips MR Imaging DD 001", create=True)
        block.add_new(0x0F, "SQ", [copy])
    icon = pydicom.Dataset()
    icon.Rows = icon.Columns = 4
    icon.SamplesPerPixel, icon.PhotometricInterpretation, icon.PixelRepresentation = 1, "MONOCHROME2", 0
    icon.BitsAllocated, icon.BitsStored, icon.HighBit, icon.PixelData = 8, 8, 7, bytes(16)
    data.IconImageSequence = [icon]
    data.save_as(path)
    np.testing.assert_array_equal(read_volume(path).array_kji, before.array_kji)


@pytest.mark.parametrize("syntax", [None, "RLE", "JPEG", "JPEG2000"])
def test_inverted_ct_is_in_hounsfield_units_as_well(folder, whole, syntax):
    if syntax:
        compress(folder, syntax)
    for file in folder.iterdir():
        changed(file, PhotometricInterpretation="MONOCHROME1")
    np.testing.assert_array_equal(read_volume(folder).array_kji, whole.array_kji)


def test_inverted_mri_is_refused(tmp_path):
    write_series(tmp_path / "head", heights=(0, 2, 4), Modality="MR", PhotometricInterpretation="MONOCHROME1")
    with pytest.raises(ImageFileError, match=r"inverted \(MONOCHROME1\).*dcm2niix"):
        read_volume(tmp_path / "head")


def test_slice_that_was_set_aside_stands_for_its_series(folder, whole):
    write_slice(folder / "AAA", above(6), SCOUT)
    np.testing.assert_array_equal(read_volume(folder / "AAA").array_kji, whole.array_kji)


@pytest.mark.skipif(os.name == "nt", reason="needs links")
def test_links_that_lead_nowhere_are_named(folder, whole, tmp_path):
    (folder / "gone").symlink_to("/nowhere/IM9")
    assert_same(folder, whole, "1 broken link is beside the slices")
    (tmp_path / "links").mkdir()
    (tmp_path / "links" / "a").symlink_to("/nowhere/IM9")
    with pytest.raises(ImageFileError, match=r"no DICOM images .*1 broken link, .*: copy what"):
        read_volume(tmp_path / "links")


def test_folder_of_reports_says_what_is_there(tmp_path):
    new_dataset("1.2.840.10008.5.1.4.1.1.88.11", Modality="SR").save_as(tmp_path / "a", enforce_file_format=True)
    (tmp_path / "CT.zip").write_bytes(b"PK")
    with pytest.raises(ImageFileError, match=r"no DICOM images .*1 Basic Text SR Storage; name the zip .*: 'CT.zip'"):
        read_volume(tmp_path)


def test_same_uid_for_all_slices_is_no_reason_to_drop_any(folder, whole):
    uid = generate_uid()
    for file in folder.iterdir():
        changed(file, SOPInstanceUID=uid)
    np.testing.assert_array_equal(read_volume(folder).array_kji, whole.array_kji)


def test_number_of_groups_other_than_of_frames_is_refused(tmp_path):
    path = write_enhanced(tmp_path / "a.dcm", [above(z) for z in (0, 2, 4, 6)])
    data = pydicom.dcmread(path)
    del data.PerFrameFunctionalGroupsSequence[-1]
    assert data.file_meta.TransferSyntaxUID == ExplicitVRLittleEndian
    assert data.SOPClassUID == ENHANCED_CT
    data.save_as(path)
    with pytest.raises(ImageFileError, match="groups of attributes for 3"):
        read_volume(path)


# ---------------------------------------------------------------- zips


def zipped(folder, path, **extra):
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for file in sorted(folder.iterdir()):
            archive.write(file, f"PATIENT/STUDY/{file.name}")
        for name, content in extra.items():
            archive.writestr(name, content)
    return path


@pytest.fixture
def temporary(tmp_path, monkeypatch):
    folder = tmp_path / "temporary"
    folder.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    return folder


def test_zip_is_read_as_its_folder(folder, whole, tmp_path, temporary):
    write_slice(folder / "scout", above(6), SCOUT)
    new_dataset("1.2.840.10008.1.3.10", "1.2.9").save_as(folder / "DICOMDIR", enforce_file_format=True)
    path = zipped(folder, tmp_path / "CT.zip", **{"VIEWER.EXE": b"MZ" * 500, "__MACOSX/._IM1": b"x"})
    assert_same(path, whole, "1 image that points in another direction")
    assert not list(temporary.iterdir())


def test_zip_of_several_series_lists_them(folder, tmp_path, temporary):
    for n in range(4):
        write_slice(folder / f"other{n}", above(n), series_uid="5.6.7", SeriesNumber=9)
    with pytest.raises(ImageFileError, match=r"CT\.zip: holds 2 DICOM series"):
        read_volume(zipped(folder, tmp_path / "CT.zip"))
    assert read_volume(tmp_path / "CT.zip", series=3).grid.size_ijk[2] == 6


def linked(archive):
    info = zipfile.ZipInfo("PATIENT/link")
    info.external_attr = 0o120777 << 16
    archive.writestr(info, "/etc/passwd")


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (lambda archive: archive.writestr("../../evil", b"x"), "outside of the zip"),
        (lambda archive: archive.writestr("/evil", b"x"), "outside of the zip"),
        (lambda archive: archive.writestr("C:\\evil", b"x"), "outside of the zip"),
        (linked, "links"),
        (lambda archive: archive.writestr("a", b"x", zipfile.ZIP_LZMA), "unusual way"),
    ],
)
def test_hostile_zip_is_refused_before_it_is_unpacked(folder, tmp_path, temporary, spoil, words):
    zipped(folder, tmp_path / "CT.zip")
    with zipfile.ZipFile(tmp_path / "CT.zip", "a") as archive:
        spoil(archive)
    with pytest.raises(ImageFileError, match=rf"CT\.zip: .*{words}"):
        read_volume(tmp_path / "CT.zip")
    assert not list(temporary.iterdir())
    assert not (tmp_path / "evil").exists()


def test_zip_that_unpacks_to_too_much_is_refused(folder, tmp_path, temporary, monkeypatch):
    monkeypatch.setattr("BrainFusionLib.io.zipped.memory_bytes", lambda: 1 << 20)
    with pytest.raises(ImageFileError, match=r"CT\.zip: unpacks to"):
        read_volume(zipped(folder, tmp_path / "CT.zip", bomb=bytes(1 << 20)))


def test_damaged_zip_is_refused(folder, tmp_path, temporary):
    content = zipped(folder, tmp_path / "CT.zip").read_bytes()
    for damaged in (
        content[:-30],
        content[: len(content) // 2],
        b"PK\3\4" + bytes(100),
        content[:900] + b"\xff" * 99 + content[999:],
    ):
        (tmp_path / "CT.zip").write_bytes(damaged)
        with pytest.raises(ImageFileError, match=r"CT\.zip: "):
            read_volume(tmp_path / "CT.zip")
    assert not list(temporary.iterdir())


def test_colour_images_beside_the_slices_are_set_aside(folder, whole):
    for photometric, samples in (("RGB", 3), ("PALETTE COLOR", 1)):
        path = shutil.copy(folder / "IM0000", folder / f"screen {samples}")
        changed(path, SOPInstanceUID=generate_uid(), SamplesPerPixel=samples, PhotometricInterpretation=photometric)
        data = pydicom.dcmread(path)
        data.PixelData = data.PixelData * samples
        data.save_as(path)
    assert_same(folder, whole, "2 colour images (screenshots?)")


def test_numbers_with_a_decimal_comma_are_read(folder, whole):
    for file in folder.iterdir():
        content = file.read_bytes()
        assert b"1.5\\1.25" in content
        file.write_bytes(content.replace(b"1.5\\1.25", b"1,5\\1,25"))
    volume = read_volume(folder)
    assert volume.grid.same_as(whole.grid)


def test_slices_of_two_patients_and_missing_files_of_a_volume_are_noted(folder, whole):
    changed(folder / "IM0002", PatientID="another")
    assert_same(folder, whole, "different patient IDs")
    changed(folder / "IM0002", PatientID="ID-4711", InConcatenationNumber=2, InConcatenationTotalNumber=9)
    assert_same(folder, whole, "2 of 9 files of a volume in several files are here")


def table_of(values, first, bits=16, kind="OW"):
    table = pydicom.Dataset()
    table.add_new("LUTDescriptor", "US" if first >= 0 else "SS", [len(values), first, bits])
    data = np.asarray(values, "<u2").tobytes() if kind == "OW" else [int(value) for value in values]
    table.add_new("LUTData", kind, data)
    table.ModalityLUTType = "HU"
    return table


def by_tables(folder, table, keep_scale=False):
    for file in folder.iterdir():
        data = pydicom.dcmread(file)
        data.ModalityLUTSequence = [table]
        if not keep_scale:
            del data.RescaleSlope, data.RescaleIntercept
        data.save_as(file, enforce_file_format=True)


@pytest.mark.parametrize("syntax", [None, "RLE", "JPEG2000"])
@pytest.mark.parametrize("kind", ["OW", "US"])
def test_values_are_those_that_a_table_gives(folder, whole, kind, syntax):
    stored = np.rint((whole.array_kji + 1024) / 0.5).astype(int)
    first, last = int(stored.min()) + 10, int(stored.max()) - 10
    squares = (np.arange(first, last + 1) ** 2 / 100).astype(int)
    if syntax is not None:
        compress(folder, syntax)
    by_tables(folder, table_of(squares, first, kind=kind))
    wanted = squares[np.clip(stored, first, last) - first]
    np.testing.assert_array_equal(read_volume(folder).array_kji, wanted)


def test_slope_goes_before_a_table_with_a_note(folder, whole):
    by_tables(folder, table_of(range(100), 0), keep_scale=True)
    assert_same(folder, whole, "besides rescale slope and intercept, the headers have a table of values")


def test_table_that_is_damaged_or_not_of_all_slices_is_refused(folder):
    changed(folder / "IM0002", ModalityLUTSequence=[])
    read_volume(folder)  # an empty sequence is no table
    by_tables(folder, pydicom.Dataset())
    with pytest.raises(ImageFileError, match="this DICOM file is damaged"):
        read_volume(folder)


def test_ct_of_which_only_some_slices_have_a_table_is_refused(folder):
    data = pydicom.dcmread(folder / "IM0002")
    del data.RescaleSlope, data.RescaleIntercept
    data.ModalityLUTSequence = [table_of(range(100), 0)]
    data.save_as(folder / "IM0002")
    for file in sorted(folder.iterdir())[3:]:
        data = pydicom.dcmread(file)
        del data.RescaleSlope, data.RescaleIntercept
        data.save_as(file)
    with pytest.raises(ImageFileError, match="lack the rescale intercept that the others have"):
        read_volume(folder)


@pytest.mark.parametrize(("meta", "data_set"), [("1.2.840.10008.1.2.1\0", True), ("1.2.840.10008.1.2\0", False)])
def test_data_set_is_read_though_the_file_meta_information_names_another_encoding(folder, whole, meta, data_set):
    for file in folder.iterdir():
        data = pydicom.dcmread(file)
        data.file_meta.TransferSyntaxUID = meta.rstrip("\0")
        pydicom.dcmwrite(file, data, implicit_vr=data_set, little_endian=True, force_encoding=True)
    np.testing.assert_array_equal(read_volume(folder).array_kji, whole.array_kji)


def test_slice_of_no_frames_or_of_a_mosaic_taken_apart_is_one_slice(folder, whole):
    for file in folder.iterdir():
        changed(file, NumberOfFrames=0, ImageType=["DERIVED", "SPLIT_MOSAIC"])
    np.testing.assert_array_equal(read_volume(folder).array_kji, whole.array_kji)
