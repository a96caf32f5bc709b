"""Files that ask for too much, name files elsewhere, or hold fewer or more bytes than they say."""

from __future__ import annotations

import bz2
import gzip
import os
import struct
import zlib

import nibabel as nib
import numpy as np
import pytest

from BrainFusionLib.errors import ImageFileError
from BrainFusionLib.geometry import Grid
from BrainFusionLib.io import budget, read_volume, write_volume
from BrainFusionLib.volume import Volume

SIZE = (4, 5, 6)
VOXELS = np.random.default_rng(5).integers(-900, 1200, SIZE[::-1]).astype("<i2")
VOLUME = Volume(VOXELS.astype(np.float32), Grid(SIZE))
needs_pipes = pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs named pipes")


def metaimage(source="LOCAL", **changes):
    entries = {
        "ObjectType": "Image", "NDims": "3", "BinaryData": "True", "BinaryDataByteOrderMSB": "False",
        "CompressedData": "False", "TransformMatrix": "1 0 0 0 1 0 0 0 1", "Offset": "0 0 0",
        "ElementSpacing": "1 1 1", "DimSize": "4 5 6", "ElementType": "MET_SHORT",
    } | changes | {"ElementDataFile": source}  # fmt: skip
    return "".join(f"{key} = {value}\n" for key, value in entries.items()).encode()


def nrrd(source=None, sizes="4 5 6", encoding="raw"):
    data_file = f"data file: {source}\n" if source else ""
    return (
        f"NRRD0004\ntype: short\ndimension: 3\nspace: LPS\nsizes: {sizes}\nspace directions: (1,0,0) (0,1,0) (0,0,1)\n"
        f"endian: little\nencoding: {encoding}\n{data_file}\n"
    ).encode()


def nifti_header(shape=SIZE):
    header = nib.Nifti1Header()
    header.set_data_dtype(np.int16)
    header.set_data_shape(shape)
    header["vox_offset"], header["magic"], header["sform_code"] = 352, b"n+1", 1
    header["srow_x"], header["srow_y"], header["srow_z"] = np.eye(4)[:3]
    return header.binaryblock + bytes(4)


@pytest.mark.parametrize("magic", [b"n+1e", b"ni1e"])
def test_nifti_header_with_half_a_magic_is_neither_nifti_nor_analyze(tmp_path, magic):
    header = bytearray(nifti_header()[:348])
    header[344:348] = magic
    (tmp_path / "a.hdr").write_bytes(header)
    (tmp_path / "a.img").write_bytes(bytes(4096))
    with pytest.raises(ImageFileError, match="is not a NIfTI or Analyze"):
        read_volume(tmp_path / "a.hdr")


def test_a_handedness_that_readers_take_differently_is_noted(tmp_path):
    image = nib.Nifti1Image(np.zeros((4, 5, 6), np.int16), np.diag([2.0, 2, -3, 1]))
    image.set_sform(None, 0)
    image.set_qform(image.affine, 1)
    image.to_filename(tmp_path / "a.nii")
    raw = bytearray((tmp_path / "a.nii").read_bytes())
    raw[76:80] = struct.pack("<f", -1.5)
    (tmp_path / "b.nii").write_bytes(raw)
    plain, odd = read_volume(tmp_path / "a.nii"), read_volume(tmp_path / "b.nii")
    assert odd.grid.same_as(plain.grid)
    assert [note for note in odd.notes if note not in plain.notes] == [
        "the direction of the third axis, -1 or 1 by its header, is -1.5; -1 was assumed."
    ]


def test_unknown_code_of_a_form_is_noted(tmp_path):
    header = bytearray(nifti_header())
    header[254:256] = (129).to_bytes(2, "little")
    (tmp_path / "a.nii").write_bytes(bytes(header) + bytes(4096))
    assert (
        "the sform has the unknown code 129; other readers ignore such a form." in read_volume(tmp_path / "a.nii").notes
    )


# ---------------------------------------------------------------- MetaImage: truth values and lists of files


@pytest.mark.parametrize("word", ["True", "true", "T", "t", "1", "TRUE", "Tr"])
def test_truth_is_known_by_its_first_letter(tmp_path, word):
    (tmp_path / "a.mha").write_bytes(metaimage(BinaryDataByteOrderMSB=word) + VOXELS.astype(">i2").tobytes())
    np.testing.assert_array_equal(read_volume(tmp_path / "a.mha").array_kji, VOXELS)


@pytest.mark.parametrize("word", ["False", "false", "F", "f", "0", "0.0"])
def test_untruth_is_known_by_its_first_letter(tmp_path, word):
    (tmp_path / "a.mha").write_bytes(metaimage(BinaryDataByteOrderMSB=word, CompressedData=word) + VOXELS.tobytes())
    np.testing.assert_array_equal(read_volume(tmp_path / "a.mha").array_kji, VOXELS)


@pytest.mark.parametrize("key", ["BinaryData", "BinaryDataByteOrderMSB", "ElementByteOrderMSB", "CompressedData"])
@pytest.mark.parametrize("word", ["yes", "", "2", "\xb5"])
def test_other_words_than_true_and_false_are_refused(tmp_path, key, word):
    (tmp_path / "a.mha").write_bytes(metaimage(**{key: word}) + VOXELS.tobytes())
    with pytest.raises(ImageFileError, match=f"{key} must be True or False"):
        read_volume(tmp_path / "a.mha")


@pytest.mark.parametrize(
    ("source", "names"),
    [
        ("Schädel.raw", ["Schädel.raw"]),
        ("100%.raw", ["100%.raw"]),
        ("a b %d.raw", ["a b %d.raw"]),
        ("s%02d.raw 1 6 1", [f"s{n:02d}.raw" for n in range(1, 7)]),
        ("LIST\n" + "\n".join("fedcba"), list("fedcba")),
        ("LIST 2D\n" + "\n".join("fedcba"), list("fedcba")),
    ],
)
@pytest.mark.parametrize("packed", [False, True])
def test_files_of_voxels_beside_the_header_are_read(tmp_path, source, names, packed):
    for name, part in zip(names, np.split(VOXELS, len(names)), strict=True):
        (tmp_path / name).write_bytes(zlib.compress(part.tobytes()) if packed else part.tobytes())
    (tmp_path / "a.mhd").write_bytes(metaimage("", CompressedData=packed)[:-1] + source.encode() + b"\n")
    np.testing.assert_array_equal(read_volume(tmp_path / "a.mhd").array_kji, VOXELS)


def test_name_of_voxels_in_latin_1_is_read(tmp_path):
    (tmp_path / "Schädel.raw").write_bytes(VOXELS.tobytes())
    (tmp_path / "a.mhd").write_bytes(metaimage("")[:-1] + "Schädel.raw\n".encode("latin-1"))
    np.testing.assert_array_equal(read_volume(tmp_path / "a.mhd").array_kji, VOXELS)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"DimSize": "4.5 5 6"}, "not a whole number"),
        ({"NDims": "4"}, "says '4' axes"),
        ({"Offset": "0 0 nan"}, "must be numbers"),
        ({"Offset": "0 0 1e999"}, "must be numbers"),
        ({"ElementSpacing": "1 1 1_0"}, "must be numbers"),
        ({"HeaderSize": "x", "source": "a.raw"}, "not a whole number"),
        ({"ElementNumberOfChannels": "3"}, "one number per voxel"),
        ({"source": "LIST\na\nb"}, "names 2 files"),
        ({"source": "LIST 3D\na"}, "is not read"),
        ({"source": "s%n.raw 1 6 1"}, "one number"),
    ],
)
def test_damaged_metaimage_entries_are_refused(tmp_path, changes, words):
    voxels = b"" if "source" in changes else VOXELS.tobytes()
    (tmp_path / "a.raw").write_bytes(VOXELS.tobytes())
    (tmp_path / "a.mha").write_bytes(metaimage(**changes) + voxels)
    with pytest.raises(ImageFileError, match=words):
        read_volume(tmp_path / "a.mha")


# ---------------------------------------------------------------- files elsewhere, and what is not a file


@pytest.mark.parametrize("suffix", [".mhd", ".nhdr"])
@pytest.mark.parametrize(
    "source", ["../secret.raw", "{root}/secret.raw", "link.raw", "sub/../../secret.raw", "/dev/zero"]
)
def test_voxels_outside_of_the_folder_are_refused(tmp_path, suffix, source):
    folder = tmp_path / "in"
    (folder / "sub").mkdir(parents=True)
    (tmp_path / "secret.raw").write_bytes(VOXELS.tobytes())
    (folder / "link.raw").symlink_to(tmp_path / "secret.raw")
    write = metaimage if suffix == ".mhd" else nrrd
    (folder / f"a{suffix}").write_bytes(write(source.format(root=tmp_path)))
    with pytest.raises(ImageFileError, match=rf"a{suffix}: its voxels must be in the folder of the header"):
        read_volume(folder / f"a{suffix}")


def test_linked_header_and_voxels_are_read_where_they_really_are(tmp_path):
    (tmp_path / "real").mkdir()
    (tmp_path / "real" / "a.raw").write_bytes(VOXELS.tobytes())
    (tmp_path / "real" / "a.mhd").write_bytes(metaimage("a.raw"))
    for name in ("a.raw", "a.mhd"):
        (tmp_path / name).symlink_to(tmp_path / "real" / name)
    np.testing.assert_array_equal(read_volume(tmp_path / "a.mhd").array_kji, VOXELS)


@needs_pipes
@pytest.mark.parametrize("header", [metaimage("a.raw"), nrrd("a.raw")])
def test_pipe_instead_of_voxels_is_refused(tmp_path, header):
    os.mkfifo(tmp_path / "a.raw")
    path = tmp_path / ("a.nhdr" if header.startswith(b"NRRD") else "a.mhd")
    path.write_bytes(header)
    with pytest.raises(ImageFileError, match=r"a\.raw: is not a file but a folder, pipe"):
        read_volume(path)


@needs_pipes
@pytest.mark.parametrize("suffix", [".nii", ".nii.gz", ".img", ".nrrd", ".mha", ".dcm"])
def test_pipe_under_the_name_of_a_volume_is_refused(tmp_path, suffix):
    os.mkfifo(tmp_path / f"a{suffix}")
    (tmp_path / "a.hdr").write_bytes(nifti_header()[:348].replace(b"n+1", b"ni1"))
    with pytest.raises(ImageFileError, match=rf"a{suffix}: is not a file but a folder, pipe"):
        read_volume(tmp_path / f"a{suffix}")


# ---------------------------------------------------------------- budgets


def bombs(count):
    """Yield headers that promise `count`^3 voxels, each with 1 kB of compressed zeros behind."""
    zeros = bytes(1000)
    sizes = f"{count} {count} {count}"
    yield "a.nii.gz", gzip.compress(nifti_header((count,) * 3) + zeros)
    yield "a.mha", metaimage(DimSize=sizes, CompressedData=True) + zlib.compress(zeros)
    yield "a.nrrd", nrrd(sizes=sizes, encoding="gzip") + gzip.compress(zeros)
    yield "b.nrrd", nrrd(sizes=sizes, encoding="bzip2") + bz2.compress(zeros)


@pytest.mark.parametrize("count", [1250, 1600, 9000])
def test_promised_size_is_checked_before_memory_is_taken(tmp_path, monkeypatch, count):
    monkeypatch.setattr(budget, "memory_bytes", lambda: 8 << 30)
    words = "more than the 2147483648 that are read" if count > 1290 else "more than half of the memory"
    for name, content in bombs(count):
        (tmp_path / name).write_bytes(content)
        with pytest.raises(ImageFileError, match=f"{name}: .*{words}"):
            read_volume(tmp_path / name)


def test_memory_of_this_machine_is_known():
    assert 1 << 28 < (budget.memory_bytes() or 1 << 30) < 1 << 50


PACKED = {
    "a.nii.gz": lambda data: gzip.compress(nifti_header() + data),
    "a.mha": lambda data: metaimage(CompressedData=True) + zlib.compress(data),
    "a.nrrd": lambda data: nrrd(encoding="gzip") + gzip.compress(data),
    "b.nrrd": lambda data: nrrd(encoding="bzip2") + bz2.compress(data),
}
PLAIN = {
    "a.nii": lambda data: nifti_header() + data,
    "b.mha": lambda data: metaimage() + data,
    "c.nrrd": lambda data: nrrd() + data,
}


@pytest.mark.parametrize("name", [*PACKED, *PLAIN])
def test_short_tail_is_noted_and_long_one_refused(tmp_path, name):
    pack = (PACKED | PLAIN)[name]
    (tmp_path / name).write_bytes(pack(VOXELS.tobytes() + bytes(100)))
    volume = read_volume(tmp_path / name)
    np.testing.assert_array_equal(volume.array_kji, VOXELS)
    assert any("100 bytes behind the voxels were ignored" in note for note in volume.notes)
    (tmp_path / name).write_bytes(pack(VOXELS.tobytes() + bytes(5000)))
    with pytest.raises(ImageFileError, match="is longer than its header says"):
        read_volume(tmp_path / name)


@pytest.mark.parametrize("name", PACKED)
def test_tail_behind_the_compressed_data_is_noted_too(tmp_path, name):
    (tmp_path / name).write_bytes(PACKED[name](VOXELS.tobytes()) + bytes(100))
    assert any("100 bytes behind" in note for note in read_volume(tmp_path / name).notes)
    (tmp_path / name).write_bytes(PACKED[name](VOXELS.tobytes()) + bytes(5000))
    with pytest.raises(ImageFileError, match="is longer than its header says"):
        read_volume(tmp_path / name)


@pytest.mark.parametrize("name", [*PACKED, *PLAIN])
def test_compressed_tail_is_refused(tmp_path, name):
    whole = (PACKED | PLAIN)[name](VOXELS.tobytes())
    for more in (gzip.compress(bytes(1 << 20)), bz2.compress(bytes(100))):
        (tmp_path / name).write_bytes(whole + more)
        with pytest.raises(ImageFileError, match="more compressed data follow"):
            read_volume(tmp_path / name)


@pytest.mark.parametrize("name", PACKED)
def test_compressed_data_cut_or_damaged_anywhere_are_refused(tmp_path, name):
    whole = PACKED[name](VOXELS.tobytes())
    first = len(whole) - 200
    for position in range(first, len(whole), 7):
        (tmp_path / name).write_bytes(whole[:position])
        with pytest.raises(ImageFileError, match=r"cut short|end before|damaged"):
            read_volume(tmp_path / name)
        damaged = bytearray(whole)
        damaged[position] ^= 0x41
        (tmp_path / name).write_bytes(damaged)
        with pytest.raises(ImageFileError, match=name):
            read_volume(tmp_path / name)


def test_far_offset_in_a_compressed_nifti_is_refused(tmp_path):
    header = bytearray(nifti_header())
    header[108:112] = struct.pack("<f", 3e9)
    (tmp_path / "a.nii.gz").write_bytes(gzip.compress(bytes(header) + bytes(1 << 23), 9))
    with pytest.raises(ImageFileError, match="too far for a sound header"):
        read_volume(tmp_path / "a.nii.gz")


def test_volume_that_packs_a_thousandfold_is_read(tmp_path):
    grid = Grid((200, 200, 100))
    write_volume(Volume(np.zeros(grid.shape_kji, np.float32), grid), tmp_path / "a.nii.gz")
    assert (tmp_path / "a.nii.gz").stat().st_size * 200 < 8e6
    assert not read_volume(tmp_path / "a.nii.gz").array_kji.any()
