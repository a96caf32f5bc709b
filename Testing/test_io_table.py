"""The table of formats: a new row appears in reading, writing, messages, help, memory estimates, cohorts and lists."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import SimpleITK as sitk

from BrainFusionLib import cli
from BrainFusionLib.cohort.folders import only_one
from BrainFusionLib.cohort.manifest import Entry
from BrainFusionLib.errors import ImageFileError, Remedy
from BrainFusionLib.geometry import Grid
from BrainFusionLib.io import formats, read_volume, write_volume
from BrainFusionLib.io.formats import FORMATS, Format
from BrainFusionLib.io.writing import atomic_output
from BrainFusionLib.volume import Volume
from Testing.test_io_dicom import above, write_enhanced, write_series, write_slice
from tools import lists

SIZE = (4, 5, 6)
VOLUME = Volume(np.arange(120, dtype=np.float32).reshape(SIZE[::-1]), Grid(SIZE))


# ---------------------------------------------------------------- a toy: one file with three functions, one row


def read_toy(path):
    size, _, values = path.read_text().partition("\n")
    grid = Grid(tuple(map(int, size.split())))
    return Volume(np.array(values.split(), np.float32).reshape(grid.shape_kji), grid, name=path.name)


def size_of_toy(path):
    i, j, k = map(int, path.read_text().splitlines()[0].split())
    return i, j, k


def write_toy(volume, path):
    with atomic_output(path) as temporary:
        sizes, values = (" ".join(map(str, numbers)) for numbers in (volume.grid.size_ijk, volume.array_kji.ravel()))
        temporary.write_text(f"{sizes}\n{values}")


TOY = Format(
    name="toy", label="Toy", suffixes=(".toy",), read=read_toy, size=size_of_toy, write=write_toy,
    written=(".toy",), results=("toy",), voxel_files={".toyraw": (".toy",)},
)  # fmt: skip


@pytest.fixture
def with_toy(monkeypatch):
    monkeypatch.setattr(formats, "FORMATS", (*FORMATS[:-1], TOY, FORMATS[-1]))


def test_toy_is_written_and_read(tmp_path, with_toy):
    write_volume(VOLUME, tmp_path / "a.TOY")
    again = read_volume(tmp_path / "a.TOY", modality="MR")
    np.testing.assert_array_equal(again.array_kji, VOLUME.array_kji)
    assert (again.name, again.modality) == ("a.TOY", "MR")


def test_toy_is_in_the_messages(tmp_path, with_toy):
    (tmp_path / "a.docx").write_text("hello")
    with pytest.raises(ImageFileError, match=r"Give NIfTI.*Toy \(\.toy\), or a folder or a zip of DICOM slices"):
        read_volume(tmp_path / "a.docx")
    with pytest.raises(ImageFileError, match=r"ends in \.nii\.gz.* or \.toy\."):
        write_volume(VOLUME, tmp_path / "a.docx")


def test_toy_is_in_the_help(with_toy, capsys):
    assert "Toy (.toy)" in formats.readable()
    assert formats.output_names() == ("nii.gz", "nrrd", "mha", "toy")
    with pytest.raises(SystemExit):
        cli.main(["fuse", "--help"])
    assert "nii.gz,nrrd,mha,toy" in capsys.readouterr().out


def test_toy_is_in_the_memory_estimate(tmp_path, with_toy):
    from BrainFusionLib.cohort import memory

    write_volume(VOLUME, tmp_path / "a.toy")
    assert formats.voxel_count(tmp_path / "a.toy") == 120
    needed = memory.bytes_needed(Entry(0, "a", tmp_path / "a.toy", tmp_path / "a.toy"))
    assert needed == memory.BASE_BYTES + 120 * (memory.BYTES_PER_CT_VOXEL + memory.BYTES_PER_MRI_VOXEL)


def test_toy_is_in_cohorts_training_and_pages(tmp_path, with_toy):
    write_volume(VOLUME, tmp_path / "ct.toy")
    (tmp_path / "ct.toyraw").touch()
    assert only_one(tmp_path, ["ct*"], "CT")[0] == tmp_path / "ct.toy"
    assert formats.volumes_in(tmp_path) == [tmp_path / "ct.toy"]
    assert formats.files_of(tmp_path / "ct.toy") == [tmp_path / "ct.toy", tmp_path / "ct.toyraw"]
    assert "| Toy | `.toy` | `.toy` | `toy` |" in lists.formats()


# ---------------------------------------------------------------- the rows of today


def test_rows_are_consistent():
    suffixes = [suffix for form in FORMATS for suffix in form.suffixes]
    assert len(suffixes) == len(set(suffixes))
    assert [form.slices for form in FORMATS].count(True) == 1
    for form in FORMATS:
        assert set(form.written) <= set(form.suffixes)
        assert {f".{name}" for name in form.results} <= set(form.written)
        assert bool(form.written) == (form.write is not None)
    assert formats.output_names() == ("nii.gz", "nrrd", "mha")


@pytest.mark.parametrize("suffix", [suffix for form in FORMATS for suffix in form.written])
def test_size_comes_from_the_header_alone(tmp_path, suffix):
    path = tmp_path / f"a{suffix}"
    write_volume(VOLUME, path)
    assert formats.size_ijk(path) == SIZE
    if suffix not in (".hdr", ".img"):
        path.write_bytes(path.read_bytes()[:-20])  # the voxels are cut short
        assert formats.voxel_count(path) == 120


def test_detached_headers_give_the_size_without_their_voxels(tmp_path):
    for name in ("a.nhdr", "a.mhd"):
        sitk.WriteImage(sitk.Image(SIZE, sitk.sitkInt16), tmp_path / name)
        assert formats.size_ijk(tmp_path / name) == SIZE
    nib.save(nib.Nifti1Pair(np.zeros(SIZE, np.int16), np.eye(4)), tmp_path / "b.img")
    assert formats.size_ijk(tmp_path / "b.img") == formats.size_ijk(tmp_path / "b.hdr") == SIZE


def test_size_of_a_dicom_series_comes_from_its_headers(tmp_path):
    folder = write_series(tmp_path / "head", heights=[0, 2, 4])
    assert formats.size_ijk(folder) == formats.size_ijk(folder / "IM0001") == (36, 32, 3)
    write_slice(folder / "other", above(0), series_uid="9.9", SeriesNumber=8)
    assert formats.voxel_count(folder, "8") == 36 * 32
    with pytest.raises(ImageFileError, match="holds 2 DICOM series"):
        formats.voxel_count(folder)
    assert formats.size_ijk(write_enhanced(tmp_path / "many.dcm", [above(z) for z in (0, 2, 4, 6)])) == (36, 32, 4)


@pytest.mark.parametrize(
    ("name", "content"),
    [("gone.nii", None), ("empty.mha", b""), ("text.nrrd", b"hello"), ("text.nii.gz", b"hello"), ("a.docx", b"hello")],
)
def test_what_cannot_be_read_has_no_size(tmp_path, name, content):
    if content is not None:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(ImageFileError, match=name):
        formats.voxel_count(tmp_path / name)


@pytest.mark.parametrize("name", [b"M\xfcller.nii", b"M\xfcller.nrrd", b"M\xfcller.docx", b"M\xfcller"])
def test_messages_with_names_outside_utf8_can_be_printed(tmp_path, name):
    odd = Path(os.fsdecode(os.fsencode(tmp_path) + b"/" + name))
    with pytest.raises(ImageFileError, match="Check the name, which is not UTF-8") as gone:
        read_volume(odd)
    try:
        odd.write_bytes(b"hello")
    except OSError:
        pytest.skip("this file system takes UTF-8 names only")
    with pytest.raises(ImageFileError) as wrong:
        read_volume(odd)
    for refusal in (gone, wrong):
        assert str(refusal.value).encode("utf-8")


def test_a_flat_image_has_no_size(tmp_path):
    for name in ("a.nii", "a.nrrd", "a.mha"):
        sitk.WriteImage(sitk.Image((4, 5), sitk.sitkInt16), tmp_path / name)
        with pytest.raises(ImageFileError, match="a 3D volume is needed"):
            formats.size_ijk(tmp_path / name)


def test_choice_of_a_series_names_its_remedy(tmp_path):
    write_volume(VOLUME, tmp_path / "a.nii")
    for ask in (lambda: formats.size_ijk(tmp_path / "a.nii", 3), lambda: read_volume(tmp_path / "a.nii", series=3)):
        with pytest.raises(ImageFileError) as refusal:
            ask()
        assert refusal.value.remedy is Remedy.OMIT_SERIES


@pytest.mark.parametrize(
    ("header", "voxels"),
    [
        ("a.hdr", "a.img"), ("a.HDR", "a.IMG"), ("a.hdr.gz", "a.img.gz"), ("a.1.mhd", "a.1.raw"), ("a.mhd", "a.zraw"),
        ("a.nhdr", "a.raw.gz"),
    ],
)  # fmt: skip
def test_voxel_file_belongs_to_its_header(tmp_path, header, voxels):
    (tmp_path / voxels).touch()
    assert formats.header_of(tmp_path / voxels) is None
    (tmp_path / header).touch()
    assert formats.header_of(tmp_path / voxels) == tmp_path / header
    assert formats.header_of(tmp_path / header) is None
    for named in (header, voxels):
        assert formats.files_of(tmp_path / named) == [tmp_path / header, tmp_path / voxels]


def test_files_of_a_folder_are_all_files_in_it(tmp_path):
    folder = write_series(tmp_path / "head", heights=[0, 2])
    (folder / "sub").mkdir()
    shutil.move(folder / "IM0001", folder / "sub" / "IM0001")
    assert formats.files_of(folder) == [folder / "IM0000", folder / "sub" / "IM0001"]


def test_volumes_are_listed_once_without_hidden_ones(tmp_path):
    for name in ("b.nii.gz", "a.hdr", "a.img", "c.mhd", "c.raw", "notes.txt", ".tmp-1.nii.gz", "slice.dcm"):
        (tmp_path / name).touch()
    assert [path.name for path in formats.volumes_in(tmp_path)] == ["a.hdr", "b.nii.gz", "c.mhd"]


def test_the_table_loads_neither_simpleitk_nor_pydicom_nor_torch():
    import subprocess
    import sys

    program = "import sys, BrainFusionLib.io.formats; print({'SimpleITK', 'pydicom', 'torch'} & {*sys.modules})"
    run = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "set()"


def test_a_tilde_that_nobody_expands_is_named():
    with pytest.raises(ImageFileError, match="Check the name, in which ~ is not your"):
        read_volume("~/no such scan.nrrd")
