"""DICOM pixels in rare encodings: floats, wrapped plain pixels, files packed with gzip; and mosaics."""

from __future__ import annotations

import gzip

import numpy as np
import pydicom
import pytest
import SimpleITK as sitk
from pydicom.encaps import encapsulate, generate_frames
from pydicom.uid import DeflatedExplicitVRLittleEndian, ImplicitVRLittleEndian

from BrainFusionLib.errors import ImageFileError
from BrainFusionLib.io import read_volume
from Testing.test_io_dicom import above, changed, compress, write_enhanced, write_series

WRAPPED = "1.2.840.10008.1.2.1.98"


@pytest.fixture
def folder(tmp_path):
    return write_series(tmp_path / "head", heights=(0, 2, 4, 6))


@pytest.fixture
def whole(folder):
    return read_volume(folder).array_kji


def rewrite(folder, change):
    for file in folder.iterdir():
        data = pydicom.dcmread(file)
        change(data)
        data.save_as(file, enforce_file_format=True)
    return folder


def pack(folder, ending=".gz"):
    for file in list(folder.iterdir()):
        (folder / f"{file.name}{ending}").write_bytes(gzip.compress(file.read_bytes()))
        file.unlink()
    return folder


@pytest.mark.parametrize(("keyword", "kind"), [("FloatPixelData", "<f4"), ("DoubleFloatPixelData", "<f8")])
@pytest.mark.parametrize("syntax", [None, ImplicitVRLittleEndian, DeflatedExplicitVRLittleEndian])
def test_floating_point_pixels_are_read(folder, whole, keyword, kind, syntax):
    def change(data):
        values = data.pixel_array + 0.25
        del data.PixelData, data.PixelRepresentation, data.BitsStored, data.HighBit
        data.BitsAllocated = 8 * np.dtype(kind).itemsize
        setattr(data, keyword, values.astype(kind).tobytes())
        if syntax is not None:
            data.file_meta.TransferSyntaxUID = syntax

    np.testing.assert_array_equal(read_volume(rewrite(folder, change)).array_kji, whole + 0.125)


def test_compressed_frames_are_rescaled_each_by_its_own_slope(tmp_path):
    path = write_enhanced(tmp_path / "a.dcm", [above(z) for z in (0, 2, 4)], slopes=[0.5, 0.75, 2])
    whole = read_volume(path).array_kji
    data, frames = pydicom.dcmread(path), []
    for number, frame in enumerate(data.pixel_array):
        writer = sitk.ImageFileWriter()
        writer.SetFileName(str(tmp_path / f"{number}.dcm"))
        writer.SetImageIO("GDCMImageIO")
        writer.UseCompressionOn()
        writer.SetCompressor("JPEG2000")
        writer.Execute(sitk.GetImageFromArray(frame[None].astype(np.int16)))
        made = pydicom.dcmread(tmp_path / f"{number}.dcm")
        frames += generate_frames(made.PixelData, number_of_frames=1)
        (tmp_path / f"{number}.dcm").unlink()
    data.PixelData, data.file_meta.TransferSyntaxUID = encapsulate(frames), made.file_meta.TransferSyntaxUID
    data["PixelData"].VR, data["PixelData"].is_undefined_length = "OB", True
    data.save_as(path, enforce_file_format=True)
    np.testing.assert_array_equal(read_volume(path).array_kji, whole)


@pytest.mark.parametrize("odd", [False, True])
def test_plain_pixels_that_are_wrapped_like_compressed_ones_are_read(folder, whole, odd):
    def change(data):
        data.PixelData = encapsulate([data.PixelData + b"\0\0" * odd])
        data["PixelData"].is_undefined_length = True
        data["PixelData"].VR = "OB"
        data.file_meta.TransferSyntaxUID = WRAPPED

    rewrite(folder, change)
    if odd:
        with pytest.raises(ImageFileError, match="this DICOM file is damaged"):
            read_volume(folder)
    else:
        np.testing.assert_array_equal(read_volume(folder).array_kji, whole)


@pytest.mark.parametrize("syntax", [None, "RLE", "JPEG2000"])
def test_slices_packed_with_gzip_are_read_in_a_folder_and_by_a_file_of_any_name(folder, whole, syntax):
    if syntax is not None:
        compress(folder, syntax)
    pack(folder, ".dcm.gz")
    np.testing.assert_array_equal(read_volume(folder).array_kji, whole)
    (folder / "IM0001.dcm.gz").rename(folder / "slice")
    np.testing.assert_array_equal(read_volume(folder / "slice").array_kji, whole)


def test_gzip_that_is_cut_damaged_or_a_bomb_is_refused(folder):
    pack(folder)
    path = folder / "IM0002.gz"
    sound = path.read_bytes()
    for content in (sound[:-30], sound[:-8] + bytes(8), gzip.compress(gzip.decompress(sound) + bytes(1 << 27))):
        path.write_bytes(content)
        with pytest.raises(ImageFileError, match=r"IM0002\.gz: (this DICOM file is damaged|its .* unpack to more)"):
            read_volume(folder)


@pytest.mark.parametrize(
    ("syntax", "words"),
    [("1.2.840.10008.1.2.4.201", "High-Throughput JPEG 2000"), ("1.3.46.670589.33.1.4.1", "a private way")],
)
def test_encodings_that_are_not_read_are_named(folder, syntax, words):
    def change(data):
        data.PixelData = encapsulate([data.PixelData])
        data["PixelData"].is_undefined_length = True
        data["PixelData"].VR = "OB"
        data.file_meta.TransferSyntaxUID = syntax

    with pytest.raises(ImageFileError, match=f"pixels are encoded in {words}.*, which is not read. Export"):
        read_volume(rewrite(folder, change))


@pytest.mark.parametrize("unit", ["MGML", "Z_EFF"])
def test_maps_of_spectral_ct_are_noted_not_to_be_hounsfield_units(folder, unit):
    for file in folder.iterdir():
        changed(file, RescaleType=unit)
    assert f"its values are not Hounsfield units but {unit}" in " ".join(read_volume(folder).notes)


def test_frames_under_one_position_are_refused(folder):
    data = pydicom.dcmread(folder / "IM0000")
    data.NumberOfFrames, data.PixelData = 4, 4 * data.PixelData
    data.save_as(folder.parent / "dental.dcm", enforce_file_format=True)
    with pytest.raises(ImageFileError, match=r"the 4 frames of this multi-frame DICOM file cannot be positioned"):
        read_volume(folder.parent / "dental.dcm")


def test_mosaic_is_refused_as_what_it_is(folder):
    for file in folder.iterdir():
        changed(file, ImageType=["ORIGINAL", "PRIMARY", "M", "ND", "MOSAIC"])
    with pytest.raises(ImageFileError, match=r"is a mosaic of Siemens, many slices side by side.*dcm2niix"):
        read_volume(folder)
