"""What public reports name: rounded headers, packed pixels, scouts, files in a cloud, those of other programs."""

from __future__ import annotations

import gzip
import os

import nibabel as nib
import numpy as np
import pydicom
import pytest
import SimpleITK as sitk
from pydicom.uid import generate_uid

from BrainFusionLib.errors import GeometryError, ImageFileError
from BrainFusionLib.geometry import Grid, orthonormalised, rotation_matrix
from BrainFusionLib.io import read_volume
from BrainFusionLib.io.dicom_headers import read_series_headers
from BrainFusionLib.io.metaimage import write_metaimage
from BrainFusionLib.volume import Volume
from Testing.test_io_dicom import (
    FIRST,
    TRANSVERSE,
    assert_is_the_object,
    changed,
    compress,
    places,
    sampled,
    write_enhanced,
    write_series,
    write_slice,
)
from Testing.test_io_dicom_encodings import rewrite

HEIGHTS = range(0, 12, 2)
OBLIQUE = rotation_matrix((1, 2, -1), 25)


@pytest.fixture
def folder(tmp_path):
    return write_series(tmp_path / "head", heights=HEIGHTS)


@pytest.fixture
def whole(folder):
    return read_volume(folder).array_kji


def rounded(axes, digits):
    return [f"{number:.{digits}f}" for number in axes[:, :2].T.ravel()]


def angle_deg(a, b):
    return float(np.degrees(np.arccos(np.clip((np.trace(a.T @ b) - 1) / 2, -1, 1))))


# ---------------------------------------------------------------- directions that are rounded


@pytest.mark.parametrize(("digits", "most_deg"), [(2, 0.5), (3, 0.05)])
@pytest.mark.parametrize("axes", [OBLIQUE, rotation_matrix((1, 0, 0), -12) @ rotation_matrix((0, 0, 1), 4)])
def test_orientation_rounded_to_few_digits_is_read_with_the_angle_it_may_be_off_by(tmp_path, axes, digits, most_deg):
    path = write_series(tmp_path / "head", HEIGHTS, axes, ImageOrientationPatient=rounded(axes, digits))
    volume = read_volume(path)
    assert angle_deg(volume.grid.direction, axes) <= most_deg
    (note,) = volume.notes
    assert f"with {digits} digits only: the volume may be turned by up to {most_deg:g} degrees" in note


def test_positions_of_slices_say_the_normal_where_the_orientation_is_rounded(tmp_path):
    path = write_series(tmp_path / "head", HEIGHTS, OBLIQUE, ImageOrientationPatient=rounded(OBLIQUE, 2))
    np.testing.assert_allclose(read_volume(path).grid.direction[:, 2], OBLIQUE[:, 2], atol=1e-6)


def test_tilted_gantry_stays_one_where_the_orientation_is_rounded(tmp_path):
    axes = rotation_matrix((1, 0, 0), 12.3)
    path = write_series(tmp_path / "head", HEIGHTS, axes, [0, 0, 1], ImageOrientationPatient=rounded(axes, 3))
    assert any("the gantry was tilted by 12.3 degrees" in note for note in read_volume(path).notes)


def test_series_with_a_rounded_orientation_is_at_the_place_of_its_volume(tmp_path):
    path = write_series(tmp_path / "head", HEIGHTS, OBLIQUE, ImageOrientationPatient=rounded(OBLIQUE, 2))
    read_series_headers(path).check_same_place(read_volume(path).grid, "head")


@pytest.mark.parametrize("digits", [2, 3])
def test_volume_along_the_rounded_directions_as_slicer_reads_them_is_at_the_place_of_its_series(tmp_path, digits):
    path = write_series(tmp_path / "head", HEIGHTS, OBLIQUE, ImageOrientationPatient=rounded(OBLIQUE, digits))
    headers = read_series_headers(path)
    grid = read_volume(path).grid
    numbers = np.array(rounded(OBLIQUE, digits), float)
    plane = np.column_stack([numbers[:3], numbers[3:], np.cross(numbers[:3], numbers[3:])])
    slicers = Grid(grid.size_ijk, grid.spacing_ijk_mm, tuple(FIRST), orthonormalised(plane, tolerance=np.inf))
    headers.check_same_place(slicers, "head")
    moved = Grid(grid.size_ijk, grid.spacing_ijk_mm, tuple(FIRST + np.array([2, 0, 0])), slicers.direction)
    turned = Grid(grid.size_ijk, grid.spacing_ijk_mm, tuple(FIRST), rotation_matrix((0, 0, 1), 3) @ slicers.direction)
    for other, words in ((moved, "2.0 mm away"), (turned, "rotated")):
        with pytest.raises(GeometryError, match=words):
            headers.check_same_place(other, "head")


@pytest.mark.parametrize("numbers", [["1.01", 0, 0, 0, "1.01", 0], [1, 0, 0, "0.1", "0.9", 0], [0] * 6])
def test_directions_that_rounding_does_not_explain_are_refused_with_a_remedy(tmp_path, numbers):
    path = write_series(tmp_path / "head", HEIGHTS, ImageOrientationPatient=numbers)
    with pytest.raises(GeometryError, match=r"head: .*more than rounding explains\. Export the original series again"):
        read_volume(path)


def test_frames_under_one_shared_position_are_refused_as_that(tmp_path):
    path = write_enhanced(tmp_path / "a.dcm", places((0, 2, 4)))
    data = pydicom.dcmread(path)
    shared = data.PerFrameFunctionalGroupsSequence[0].PlanePositionSequence
    for frame in data.PerFrameFunctionalGroupsSequence:
        del frame.PlanePositionSequence
    data.SharedFunctionalGroupsSequence[0].PlanePositionSequence = shared
    data.save_as(path, enforce_file_format=True)
    with pytest.raises(GeometryError, match=r"all of its 3 slices have one position, so nothing says which way"):
        read_volume(path)


# ---------------------------------------------------------------- pixels


def packed(values):
    """Twelve bits for each of an even number of pixels, lowest bits first (DICOM PS3.5 of 2003, annex D)."""
    first, second = values.ravel()[0::2].astype(int), values.ravel()[1::2].astype(int)
    triples = np.stack([first & 255, first >> 8 | (second & 15) << 4, second >> 4], axis=-1)
    return triples.astype(np.uint8).tobytes()


def pack_twelve_bits(data):
    data.PixelData = packed(data.pixel_array)
    data.BitsAllocated, data.BitsStored, data.HighBit, data.PixelRepresentation = 12, 12, 11, 0


def test_packed_pixels_of_twelve_bits_are_read_as_itk_reads_them(folder, whole):
    rewrite(folder, pack_twelve_bits)
    volume = read_volume(folder)
    np.testing.assert_array_equal(volume.array_kji, whole)
    first = min(folder.iterdir(), key=lambda file: pydicom.dcmread(file).ImagePositionPatient[2])
    np.testing.assert_array_equal(sitk.GetArrayFromImage(sitk.ReadImage(first))[0], whole[0])


def test_packed_pixels_of_twelve_bits_may_end_in_half_a_byte(tmp_path):
    folder = write_series(tmp_path / "head", HEIGHTS, values=sampled(FIRST, TRANSVERSE)[:31, :35])
    whole = read_volume(folder).array_kji

    for file in folder.iterdir():
        data = pydicom.dcmread(file)
        pixels = np.append(data.pixel_array.ravel(), 0)
        data.PixelData = packed(pixels)[: (31 * 35 * 12 + 7) // 8] + b"\0" * ((31 * 35 * 12 + 7) // 8 % 2)
        data.BitsAllocated, data.BitsStored, data.HighBit, data.PixelRepresentation = 12, 12, 11, 0
        data.save_as(file, enforce_file_format=True)
    np.testing.assert_array_equal(read_volume(folder).array_kji, whole)


@pytest.mark.parametrize("bits", [1, 64])
def test_pixels_of_other_sizes_are_refused_as_that_and_not_as_damaged(folder, bits):
    def change(data):
        data.PixelData = bytes(data.Rows * data.Columns * bits // 8)
        data.BitsAllocated, data.BitsStored, data.HighBit = bits, bits, bits - 1

    with pytest.raises(ImageFileError, match=rf"its Bits Allocated is {bits}; .* convert it to NIfTI with dcm2niix"):
        read_volume(rewrite(folder, change))


def test_colour_image_with_shared_colours_is_refused_as_colour(folder):
    def change(data):
        data.PixelData = bytes(2 * data.Rows * data.Columns)
        data.SamplesPerPixel, data.PlanarConfiguration, data.PhotometricInterpretation = 3, 0, "YBR_FULL_422"
        data.BitsAllocated = data.BitsStored = 8
        data.HighBit, data.PixelRepresentation = 7, 0

    with pytest.raises(ImageFileError, match="is a colour image"):
        read_volume(rewrite(folder, change))


def test_enhanced_file_whose_mosaic_was_taken_apart_is_read(tmp_path):
    path = write_enhanced(tmp_path / "a.dcm", places(HEIGHTS))
    changed(path, ImageType=["ORIGINAL", "PRIMARY", "M", "ND", "MOSAIC"])
    assert_is_the_object(read_volume(path))


@pytest.mark.parametrize("syntax", [None, "JPEG2000"])
def test_folder_whose_name_is_not_utf8_is_read(folder, whole, syntax):
    if syntax is not None:
        compress(folder, syntax)
    odd = os.fsdecode(os.fsencode(folder.parent) + b"/M\xfcller")
    folder.rename(odd)
    np.testing.assert_array_equal(read_volume(odd).array_kji, whole)


# ---------------------------------------------------------------- what is in a folder


def test_scout_is_set_aside_by_its_image_type_though_it_lies_as_the_slices_do(folder, whole):
    write_slice(folder / "scout", FIRST + np.array([0, 0, 70.0]), ImageType=["ORIGINAL", "PRIMARY", "LOCALIZER"])
    volume = read_volume(folder)
    np.testing.assert_array_equal(volume.array_kji, whole)
    assert volume.notes == ("1 file or image was set aside, not part of the volume: 1 scout (LOCALIZER).",)


def test_series_of_scouts_alone_is_read(folder, whole):
    for file in folder.iterdir():
        changed(file, ImageType=["ORIGINAL", "PRIMARY", "LOCALIZER"])
    np.testing.assert_array_equal(read_volume(folder).array_kji, whole)


def add_projection(folder, name="IM0003", **tags):
    data = pydicom.dcmread(folder / name)
    data.SOPInstanceUID = data.file_meta.MediaStorageSOPInstanceUID = generate_uid()
    data.PixelData, data.ImageType = bytes(len(data.PixelData)), ["DERIVED", "SECONDARY", "MIP"]
    for keyword, value in tags.items():
        setattr(data, keyword, value)
    data.save_as(folder / "ZZ", enforce_file_format=True)


def test_single_projection_at_the_place_of_a_slice_is_set_aside(folder, whole):
    add_projection(folder)
    volume = read_volume(folder)
    np.testing.assert_array_equal(volume.array_kji, whole)
    assert "1 image at the place of a slice (a projection?)" in volume.notes[0]


@pytest.mark.parametrize(
    ("keyword", "values"),
    [
        ("EchoNumbers", ("1", "2")),
        ("ScanOptions", ("DIXW", "DIXF")),
        ("SequenceName", ("*ep_b0", "*ep_b1000")),
        ("ProtocolName", ("T1", "T1 Gd")),
        ("ContrastBolusAgent", ("", "Gadobutrol")),
    ],
)
def test_two_volumes_at_one_place_are_listed_by_what_differs(folder, keyword, values):
    for file in list(folder.iterdir()):
        changed(file, **{keyword: values[0]})
        data = pydicom.dcmread(file)
        data.SOPInstanceUID = data.file_meta.MediaStorageSOPInstanceUID = generate_uid()
        data.PixelData = bytes(len(data.PixelData))
        setattr(data, keyword, values[1])
        data.save_as(folder / f"{file.name}-2", enforce_file_format=True)
    with pytest.raises(ImageFileError, match=rf"2 DICOM series(.|\n)*{keyword} '{values[1].replace('*', '.')}'"):
        read_volume(folder)


def test_volumes_that_differ_in_pixel_spacing_are_listed_with_it(tmp_path):
    folder = write_series(tmp_path / "head", range(0, 24, 2))
    for number, file in enumerate(sorted(folder.iterdir())):
        changed(file, PixelSpacing=["1.5", f"{1.25 + 0.01 * (number % 2)}"])
    with pytest.raises(ImageFileError, match=r"36 x 32 pixels, 1\.2[56] x 1\.5 mm apart"):
        read_volume(folder)


def test_slices_that_are_in_icloud_only_are_noted(folder):
    (folder / ".IM0009.icloud").write_bytes(b"bplist00")
    assert "1 file is in iCloud and not on this computer" in read_volume(folder).notes[0]


def test_folder_of_files_that_are_in_icloud_only_says_so(tmp_path):
    (tmp_path / ".IM0001.icloud").write_bytes(b"bplist00")
    with pytest.raises(ImageFileError, match="1 in iCloud, not on this computer: download them in the Finder"):
        read_volume(tmp_path)


def test_folders_deeper_than_are_searched_are_mentioned(tmp_path):
    (tmp_path / "a/b/c/d/e").mkdir(parents=True)
    with pytest.raises(ImageFileError, match=r"up to 4 levels of folders in it; folders below these were not searched"):
        read_volume(tmp_path)


def test_file_of_another_object_is_refused_by_its_own_name(folder):
    data = pydicom.dcmread(folder / "IM0000")
    data.SOPClassUID = data.file_meta.MediaStorageSOPClassUID = "1.2.840.10008.5.1.4.1.1.481.2"
    data.save_as(folder / "dose.dcm", enforce_file_format=True)
    with pytest.raises(ImageFileError, match=r"dose\.dcm: is not a DICOM image but RT Dose Storage"):
        read_volume(folder / "dose.dcm")


# ---------------------------------------------------------------- other files


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"\r\n  <!DOCTYPE html>", "web page"),
        (b"/annex/objects/MD5E-s1--x.nii.gz", "git annex get"),
        (b"\0\5\x16\7\0\2\0\0Mac OS X", "what macOS keeps beside a file"),
    ],
)
def test_what_stands_for_a_volume_is_said_to_be_that(tmp_path, content, words):
    path = tmp_path / "a.nii.gz"
    path.write_bytes(content + bytes(600))
    with pytest.raises(ImageFileError, match=words):
        read_volume(path)


def test_file_that_is_in_icloud_only_is_refused_as_that(tmp_path):
    (tmp_path / ".a.nii.gz.icloud").write_bytes(b"bplist00")
    with pytest.raises(ImageFileError, match=r"a\.nii\.gz: is in iCloud, and not on this computer\. Download it"):
        read_volume(tmp_path / "a.nii.gz")


def test_link_into_git_annex_says_how_to_get_its_file(tmp_path):
    (tmp_path / "a.nii.gz").symlink_to(".git/annex/objects/aa/bb/MD5E-s1--x.nii.gz")
    with pytest.raises(ImageFileError, match=r"a\.nii\.gz: is a broken link\. Its file is in git-annex: .*datalad get"):
        read_volume(tmp_path / "a.nii.gz")


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("a.mnc", "mnc2nii"), ("a.mnc.gz", "mnc2nii"), ("a.BRIK", "3dAFNItoNIFTI"), ("a.HEAD", "3dAFNItoNIFTI"),
        ("a+orig.BRIK.gz", "3dAFNItoNIFTI"), ("a.mif", "mrconvert"), ("a.mif.gz", "mrconvert"), ("a.PAR", "dcm2niix"),
        ("a.vmr", "BrainVoyager"), ("a.v", "ECAT"), ("a.stl", "a surface"), ("a.gif", "export the DICOM series"),
        ("a.nii.gz.part", "has not ended"),
    ],
)  # fmt: skip
def test_volumes_of_other_programs_are_named_with_what_converts_them(tmp_path, name, words):
    (tmp_path / name).write_bytes(bytes(500))
    with pytest.raises(ImageFileError, match=rf"files of this kind.*{words}"):
        read_volume(tmp_path / name)


@pytest.mark.parametrize("name", ["head", "head.nii (1).gz", "head.bin"])
def test_nifti_under_another_name_is_said_to_be_nifti(tmp_path, name):
    content = nib.Nifti1Image(np.zeros((4, 4, 4), np.int16), np.eye(4)).to_bytes()
    (tmp_path / name).write_bytes(gzip.compress(content) if name.endswith(".gz") else content)
    with pytest.raises(ImageFileError, match=r"By its content it is NIfTI: end its name in \.nii"):
        read_volume(tmp_path / name)


def test_metaimage_with_two_orders_of_bytes_is_refused(tmp_path):
    path = tmp_path / "a.mha"
    write_metaimage(Volume(np.zeros((4, 5, 6), np.float32), Grid((6, 5, 4))), path)
    path.write_bytes(path.read_bytes().replace(b"CompressedData", b"ElementByteOrderMSB = True\nCompressedData", 1))
    with pytest.raises(ImageFileError, match="ElementByteOrderMSB contradict each other"):
        read_volume(path)
