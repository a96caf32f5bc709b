"""DICOM pixels in rare encodings: floats, wrapped plain pixels, files packed with gzip; and mosaics."""

from __future__ import annotations

import contextlib
import gzip
import io
from pathlib import Path

import numpy as np
import pydicom
import pytest
import SimpleITK as sitk
from pydicom.encaps import encapsulate, generate_frames
from pydicom.uid import DeflatedExplicitVRLittleEndian, ImplicitVRLittleEndian

from BrainFusionLib.errors import ImageFileError
from BrainFusionLib.io import dicom_files, dicom_pixels, dicom_streams, read_volume
from BrainFusionLib.io.dicom_codestreams import count_blocks
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


# ---------------------------------------------------------------- files that do not say how they are encoded

MARK = bytes(128) + b"DICM"
EMPTY_SYNTAX = b"\2\0\x10\0UI\0\0"


def without_meta(file, start, implicit=True, little=True):
    """Write a slice as its bare data set behind `start`."""
    data, body = pydicom.dcmread(file), io.BytesIO()
    if not little:
        data.PixelData = np.frombuffer(data.PixelData, "<i2").astype(">i2").tobytes()
    del data.file_meta
    plain = pydicom.Dataset()
    for element in data:
        plain.add(element)
    pydicom.dcmwrite(body, plain, implicit_vr=implicit, little_endian=little)
    file.write_bytes(start + body.getvalue())


@pytest.mark.parametrize(
    ("start", "implicit", "little"),
    [
        *((start, *encoding) for start in (MARK, b"") for encoding in ((True, True), (False, True), (False, False))),
        (MARK + EMPTY_SYNTAX, True, True),
        (MARK + EMPTY_SYNTAX, False, True),
    ],
)
def test_plain_slices_without_file_meta_information_are_read(folder, whole, start, implicit, little):
    for file in folder.iterdir():
        without_meta(file, start, implicit, little)
    np.testing.assert_array_equal(read_volume(folder).array_kji, whole)
    np.testing.assert_array_equal(read_volume(sorted(folder.iterdir())[0]).array_kji, whole)


@pytest.mark.parametrize("syntax", ["RLE", "JPEG2000", "deflated"])
def test_packed_slices_without_file_meta_information_are_refused_as_that(folder, syntax):
    if syntax == "deflated":
        for file in folder.iterdir():
            data = pydicom.dcmread(file)
            data.file_meta.TransferSyntaxUID = DeflatedExplicitVRLittleEndian
            data.save_as(file)
    else:
        compress(folder, syntax)
    for file in folder.iterdir():
        content = file.read_bytes()
        length = int.from_bytes(content[140:144], "little")  # of group 2, behind its first element
        file.write_bytes(MARK + content[144 + length :])
    with pytest.raises(ImageFileError, match="has no file meta information"):
        read_volume(folder)


# ---------------------------------------------------------------- compressed pixels that ask for more than the header


def codestream(folder):
    """Return a slice that is JPEG 2000, and where its header of sizes is in the file."""
    compress(folder, "JPEG2000")
    file = sorted(folder.iterdir())[1]
    content = bytearray(file.read_bytes())
    return file, content, content.index(b"\xff\x4f\xff\x51")


@pytest.fixture
def decoded(monkeypatch):
    """The files that were given to GDCM, which takes as much memory as they say."""
    found, plain = [], sitk.ReadImage
    monkeypatch.setattr(sitk, "ReadImage", lambda path, *more: (found.append(Path(path).name), plain(path, *more))[1])
    return found


@pytest.mark.parametrize(
    ("offset", "number", "count"),
    [(8, 60000, 4), (12, 60000, 4), (40, 16384, 2), (40, 3, 2)],
    ids=["columns", "rows", "16384 components", "3 components"],
)
def test_jpeg_2000_of_another_size_or_number_of_components_is_not_decoded(folder, decoded, offset, number, count):
    file, content, start = codestream(folder)
    content[start + offset : start + offset + count] = number.to_bytes(count, "big")
    file.write_bytes(content)
    with pytest.raises(ImageFileError, match=f"{file.name}: this DICOM file is damaged"):
        read_volume(folder)
    assert file.name not in decoded


def test_jpeg_of_several_components_is_not_decoded(folder, decoded):
    compress(folder, "JPEG")
    file = sorted(folder.iterdir())[1]
    content = bytearray(file.read_bytes())
    start = next(at for at in range(len(content)) if content[at : at + 2] in (b"\xff\xc0", b"\xff\xc1", b"\xff\xc3"))
    content[start + 9] = 200
    file.write_bytes(content)
    with pytest.raises(ImageFileError, match=f"{file.name}: this DICOM file is damaged"):
        read_volume(folder)
    assert file.name not in decoded


def test_size_of_jpeg_2000_in_a_file_of_its_own_is_checked_too(folder, decoded):
    file, content, start = codestream(folder)
    content[start + 8 : start + 12] = (60000).to_bytes(4, "big")
    data = pydicom.dcmread(io.BytesIO(content))
    stream = next(generate_frames(data.PixelData, number_of_frames=1))
    box = b"\0\0\0\x0cjP  \r\n\x87\n" + (len(stream) + 8).to_bytes(4, "big") + b"jp2c" + stream
    data.PixelData = encapsulate([box])
    data.save_as(file, enforce_file_format=True)
    with pytest.raises(ImageFileError, match=f"{file.name}: this DICOM file is damaged"):
        read_volume(folder)
    assert file.name not in decoded


def test_compressed_pixels_that_are_no_jpeg_are_not_decoded(folder, decoded):
    file, content, start = codestream(folder)
    content[start : start + 2] = b"BM"
    file.write_bytes(content)
    with pytest.raises(ImageFileError, match=f"{file.name}: this DICOM file is damaged"):
        read_volume(folder)
    assert file.name not in decoded


def coding_style(stream):
    """Return where a codestream gives its coding style, behind marker and length."""
    return stream.index(b"\xff\x52") + 4


@pytest.mark.parametrize("in_part", [False, True])
def test_jpeg_2000_in_millions_of_parts_is_not_decoded(folder, decoded, in_part):
    file, content, start = codestream(folder)
    image = bytearray(content[start:])
    for offset in (8, 12, 24, 28):  # of the image and of its tile
        image[offset : offset + 4] = (4096).to_bytes(4, "big")
    style = coding_style(image)
    image[style + 6 : style + 8] = b"\0\0"  # code blocks of 4 x 4
    if in_part:  # the coding style of the first tile alone
        whole = image[style - 4 : style - 2 + int.from_bytes(image[style - 2 : style], "big")]
        image[style + 6 : style + 8] = b"\4\4"
        data = image.index(b"\xff\x93")
        image[data:data] = whole
        part = image.index(b"\xff\x90") + 6
        image[part : part + 4] = bytes(4)  # the part goes on to the end
    data = pydicom.dcmread(file)
    data.Rows = data.Columns = 4096
    data.PixelData = encapsulate([bytes(image)])
    data.save_as(file)
    with pytest.raises(ImageFileError, match=r"its JPEG 2000 image is divided into \d{6,} parts"):
        read_pixels_of(file)
    assert decoded == []


def read_pixels_of(path):
    with path.open("rb") as stream:
        found = dicom_files.read_header(path, stream)
    return dicom_pixels.read_pixels(path, found.dataset, found.pixels)


def test_parts_of_jpeg_2000_are_counted_in_every_image_and_never_without_end(folder):
    _, content, start = codestream(folder)
    image = bytes(content[start : content.index(b"\xff\xd9", start) + 2])
    one = count_blocks(image)
    assert 2 <= one < 40
    finer = bytearray(image)
    finer[coding_style(image) + 6 : coding_style(image) + 8] = b"\0\0"
    assert count_blocks(image + b"\0" + bytes(finer) + image) == count_blocks(bytes(finer)) > one
    for at in range(2, len(image)):
        with contextlib.suppress(ValueError, IndexError):
            count_blocks(image[:at])
            count_blocks(image[:at] + b"\0" + image[at + 1 :])


def test_compressed_files_unpack_to_half_of_the_memory_at_most(folder, monkeypatch):
    pack(folder)
    monkeypatch.setattr(dicom_streams, "memory_bytes", lambda: 2000)
    with pytest.raises(ImageFileError, match="unpack to more than 1000, more than images do or half of the memory"):
        read_volume(folder)
