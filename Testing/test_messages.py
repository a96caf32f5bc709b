"""What refusals say: a path stands once in a message, and a copy is advised only where the file is damaged."""

from __future__ import annotations

import os
import struct
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from BrainFusionLib import cli
from BrainFusionLib.errors import BrainFusionError
from BrainFusionLib.io import read_grey, read_transform, read_volume, write_volume
from BrainFusionLib.io.landmark_files import read_landmarks
from BrainFusionLib.io.reading import COPY_AGAIN
from BrainFusionLib.phantom import make_pair
from Testing.test_io_dicom import changed, write_series

ITK = "#Insight Transform File V1.0\n#Transform 0\nTransform: "
META = "ObjectType = Image\nNDims = 3\nDimSize = 4 4 4\nElementType = MET_SHORT\n"
NRRD = "NRRD0004\ntype: short\ndimension: 3\nsizes: 4 4 4\nencoding: raw\nendian: little\n"
VECTORS = "space directions: (1,0,0) (0,1,0) (0,0,1)\nspace origin: (0,0,0)\n"
VOXELS = bytes(128)


def _nrrd(**changes: str) -> bytes:
    lines = dict(line.split(": ", 1) for line in NRRD.splitlines()[1:]) | changes
    return ("NRRD0004\n" + "".join(f"{key.replace('_', ' ')}: {value}\n" for key, value in lines.items())).encode()


def _meta(*lines: str) -> bytes:
    return (META + "".join(f"{line}\n" for line in lines)).encode()


def _nifti(sizes: tuple[int, ...] = (3, 4, 4, 4), kind: int = 4, spacing: float = 1.0) -> bytes:
    header = bytearray(352)
    struct.pack_into("<i", header, 0, 348)
    struct.pack_into(f"<{len(sizes)}h", header, 40, *sizes)
    struct.pack_into("<hh", header, 70, kind, 16)
    struct.pack_into("<8f", header, 76, 1, spacing, 1, 1, 1, 1, 1, 1)
    struct.pack_into("<f", header, 108, 352)
    header[344:348] = b"n+1\0"
    return bytes(header) + bytes(2 * int(np.prod([max(1, size) for size in sizes[1:]])))


# Files that are whole, as some program may have written them.
WHOLE: dict[str, tuple[str, bytes]] = {
    "slice": ("a.nii", _nifti((2, 4, 4, 1))),
    "4D": ("a.nii", _nifti((4, 4, 4, 4, 3))),
    "colours": ("a.nii", _nifti(kind=128)),
    "complex": ("a.nii", _nifti(kind=32)),
    "zero spacing": ("a.nii", _nifti(spacing=0.0)),
    "text as NIfTI": ("a.nii", b"no image at all " * 40),
    "text as NRRD": ("a.nrrd", b"no image at all"),
    "text as MetaImage": ("a.mha", b"no image at all"),
    "text as mgz": ("a.mgz", b"no image at all" * 40),
    "text as zip": ("a.zip", b"no image at all" * 40),
    "unknown ending": ("a.xyz", b"something"),
    "half of a pair": ("a.hdr", _nifti()[:348]),
    "NRRD with vectors": ("a.nrrd", _nrrd(kinds="vector domain domain") + b"\n" + VOXELS),
    "NRRD in scanner-xyz": ("a.nrrd", _nrrd(space="scanner-xyz") + VECTORS.encode() + b"\n" + VOXELS),
    "NRRD in metres": ("a.nrrd", _nrrd(units='"m" "m" "m"', spacings="1 1 1") + b"\n" + VOXELS),
    "NRRD of a block": ("a.nrrd", _nrrd(type="block") + b"\n" + VOXELS),
    "NRRD with an odd word": ("a.nrrd", _nrrd(odd="word") + b"\n" + VOXELS),
    "NRRD with nan": ("a.nrrd", _nrrd(spacings="1 nan 1") + b"\n" + VOXELS),
    "NRRD, number too large for its type": ("a.nrrd", _nrrd(encoding="ascii") + b"\n" + b"70000 " * 64),
    "NRRD with too many numbers": ("a.nrrd", _nrrd(encoding="ascii") + b"\n" + b"7 " * 65),
    "NRRD of a huge size": ("a.nrrd", _nrrd(sizes="4000 4000 4000") + b"\n" + VOXELS),
    "voxels elsewhere": ("a.nhdr", _nrrd(data_file="../b.raw")),
    "voxels missing": ("a.nhdr", _nrrd(data_file="b.raw")),
    "MetaImage as text": ("a.mha", _meta("BinaryData = False", "ElementDataFile = LOCAL") + b"0 " * 64),
    "MetaImage with an odd truth": ("a.mha", _meta("CompressedData = Yes", "ElementDataFile = LOCAL") + VOXELS),
    "MetaImage sheared": ("a.mha", _meta("TransformMatrix = 1 1 0 0 1 0 0 0 1", "ElementDataFile = LOCAL") + VOXELS),
    "MetaImage with too few names": ("a.mhd", _meta("ElementDataFile = LIST") + b"b.raw\n"),
    "MetaImage with words for numbers": ("a.mha", _meta("Offset = a b c", "ElementDataFile = LOCAL") + VOXELS),
    "4x4 without frame": ("a.txt", b"1 0 0 0\n0 1 0 0\n0 0 1 0\n0 0 0 1\n"),
    "no transform": ("a.txt", b"no transform at all\n"),
    "deformation": (
        "a.tfm", f"{ITK}DisplacementFieldTransform_double_3_3\nParameters: 1\nFixedParameters: 1\n".encode(),
    ),
    "2D transform": ("a.tfm", f"{ITK}Euler2DTransform_double_2_2\nParameters: 0 0 0\nFixedParameters: 0 0\n".encode()),
    "too few numbers": ("a.tfm", f"{ITK}Euler3DTransform_double_3_3\nParameters: 0 0 0\nFixedParameters: 0\n".encode()),
    "transform with nan": (
        "a.tfm", f"{ITK}Euler3DTransform_double_3_3\nParameters: nan 0 0 0 0 0\nFixedParameters: 0 0 0\n".encode(),
    ),
    "mirror": (
        "a.tfm",
        f"{ITK}AffineTransform_double_3_3\nParameters: -1 0 0 0 1 0 0 0 1 0 0 0\nFixedParameters: 0 0 0\n".encode(),
    ),
    "lta without a matrix": ("a.lta", b"type = 1\nnxforms = 1\n"),
    "elastix, B-spline": ("a.txt", b'(Transform "BSplineTransform")\n(NumberOfParameters 3)\n'),
    "text as picture": ("a.png", b"no picture at all"),
    "landmarks without columns": ("marks.csv", b"x,y\n1,2\n"),
    "landmarks with a word": ("marks.csv", b"name,ct_x,ct_y,ct_z,mri_x,mri_y,mri_z\na,1,2,x,1,2,3\n"),
    "landmarks that are no JSON": ("marks.mrk.json", b"{"),
}  # fmt: skip


def _read(path: Path) -> None:
    if path.suffix in (".txt", ".tfm", ".lta"):
        read_transform(path)
    elif path.suffix == ".png":
        read_grey(path)
    elif path.name.startswith("marks"):
        read_landmarks([path, path] if path.suffix == ".json" else [path])
    else:
        read_volume(path)


def _refusal(path: Path) -> str:
    with pytest.raises(BrainFusionError) as caught:
        _read(path)
    return str(caught.value)


@pytest.mark.parametrize("kind", WHOLE)
def test_refusal_of_a_whole_file_names_it_once_and_advises_no_copy(tmp_path, kind):
    name, content = WHOLE[kind]
    (tmp_path / name).write_bytes(content)
    said = _refusal(tmp_path / name)
    assert said.count(str(tmp_path)) == 1, said
    assert said.count(name) == 1, said
    assert COPY_AGAIN not in said


def _dicom(folder: Path, **changes: object) -> Path:
    series: Path = write_series(folder / "head")
    for path in sorted(series.iterdir()):
        changed(path, **changes)
    return series


def _zip(folder: Path, name: str, attributes: int = 0) -> Path:
    path = folder / "a.zip"
    with zipfile.ZipFile(path, "w") as archive:
        member = zipfile.ZipInfo(name)
        member.external_attr = attributes << 16
        archive.writestr(member, b"content")
    return path


def _linked(folder: Path, target: str) -> Path:
    (folder / "a.nii").symlink_to(target)
    return folder / "a.nii"


def _folder(folder: Path) -> Path:
    (folder / "empty").mkdir()
    (folder / "empty" / "notes.txt").write_bytes(b"notes")
    return folder / "empty"


PLACES: dict[str, Callable[[Path], Path]] = {
    "no such file": lambda folder: folder / "a.nii",
    "long name": lambda folder: folder / ("a" * 300 + ".nii"),
    "broken link": lambda folder: _linked(folder, "b.nii"),
    "link to itself": lambda folder: _linked(folder, "a.nii"),
    "folder without DICOM": _folder,
    "file as a folder": lambda folder: _linked(folder, "/dev/null") / "b.nii",
    "device": lambda folder: _linked(folder, "/dev/zero"),
    "colour DICOM": lambda folder: _dicom(folder, SamplesPerPixel=3),
    "inverted MRI": lambda folder: _dicom(folder, Modality="MR", PhotometricInterpretation="MONOCHROME1"),
    "DICOM without position": lambda folder: _dicom(folder, ImagePositionPatient=None),
    "DICOM with zero spacing": lambda folder: _dicom(folder, PixelSpacing=[0, 1]),
    "zip with a way out": lambda folder: _zip(folder, "../a.dcm"),
    "zip with a link": lambda folder: _zip(folder, "a.dcm", 0o120777),
    "zip without DICOM": lambda folder: _zip(folder, "a.txt"),
}


@pytest.mark.skipif(sys.platform == "win32", reason="links and devices of POSIX")
@pytest.mark.parametrize("kind", PLACES)
def test_refusal_of_a_place_names_it_once_and_advises_no_copy(tmp_path, kind):
    path = PLACES[kind](tmp_path)
    said = _refusal(path)
    assert said.count(str(tmp_path)) == 1, said
    assert COPY_AGAIN not in said
    assert ("zip" in kind) == ("zip" in said.rpartition(str(tmp_path))[2].replace("zip of DICOM", "")), said


def test_refusals_of_damaged_files_name_each_once(tmp_path):
    attack = pytest.importorskip("benchmarks.attack", reason="nibabel is not installed")
    for number in range(1, 81, 2):
        made, folder = attack.make(5, number), tmp_path / str(number)
        folder.mkdir()
        outcome, said = attack.attempt(made, folder)
        assert outcome == "refused" or not said
        assert said.count(str(folder)) <= 1, said
        assert all(said.count(str(folder / name)) <= 1 for name in made.files), said


@pytest.fixture(scope="module")
def pair(tmp_path_factory):
    folder, made = tmp_path_factory.mktemp("pair"), make_pair(seed=1, spacing_mm=12.0)
    for name, volume in (("ct.nii", made.ct), ("mri.nii", made.mri)):
        write_volume(volume, folder / name)
    (folder / "t.txt").write_bytes(b"nothing")
    (folder / "m.csv").write_bytes(b"case,ct\na,b\n")
    (folder / "empty.csv").write_bytes(b"")
    (folder / "rows.csv").write_bytes(b"case,ct,mri\na,ct.nii,\nb,gone.nii,mri.nii\nb,ct.nii,ct.nii\n")
    (folder / "r.json").write_bytes(b"{}")
    (folder / "no.json").write_bytes(b"no")
    (folder / "case").mkdir()
    (folder / "case" / "result.json").write_bytes(b'{"files": {}}')
    (folder / "w.npz").write_bytes(b"no")
    (folder / "w.json").write_bytes(b"no")
    return folder


FUSE = ("fuse", "@ct.nii", "@mri.nii", "-o", "@out")
COMMANDS = {
    "CT twice": ("fuse", "@ct.nii", "@ct.nii", "-o", "@out"),
    "CT and MRI exchanged": ("fuse", "@mri.nii", "@ct.nii", "-o", "@out"),
    "file as output": ("fuse", "@ct.nii", "@mri.nii", "-o", "@ct.nii"),
    "output over an input": ("fuse", "@fused.nii.gz", "@mri.nii", "-o", "@"),
    "no transform": (*FUSE, "--transform", "@t.txt"),
    "landmarks missing": (*FUSE, "--landmarks", "@gone.csv"),
    "mask elsewhere": (*FUSE, "--mri-mask", "@ct.nii"),
    "series of a file": (*FUSE, "--ct-series", "1"),
    "DICOM of a file": (*FUSE, "--dicom"),
    "weights that are none": (*FUSE, "--rule", "network", "--weights", "@w.npz"),
    "weights missing": (*FUSE, "--rule", "network", "--weights", "@gone.npz"),
    "refused pose over the transform": (*FUSE, "--transform", "@t.tfm", "--keep-refused", "@t.tfm"),
    "refused pose under another name": (*FUSE, "--keep-refused", "@t.png"),
    "register to a name": ("register", "@ct.nii", "@mri.nii", "-o", "@t.png"),
    "manifest without a column": ("cohort", "@m.csv", "-o", "@out"),
    "empty manifest": ("cohort", "@empty.csv", "-o", "@out"),
    "manifest missing": ("cohort", "@gone.csv", "-o", "@out"),
    "bad rows": ("cohort", "@rows.csv", "-o", "@out", "--dry-run"),
    "no BIDS": ("cohort", "@case", "-o", "@out"),
    "no result": ("validate", "@case", "--landmarks", "@gone.csv"),
    "a result that is none": ("validate", "@r.json", "--landmarks", "@m.csv"),
    "a result that is no JSON": ("validate", "@no.json", "--landmarks", "@m.csv"),
    "metrics of nothing": ("metrics", "@case", "@case", "@case"),
    "slices of nothing": ("slices", "@case", "@case", "-o", "@out"),
}


@pytest.mark.parametrize("kind", COMMANDS)
def test_refusal_of_a_command_names_no_path_twice(pair, kind, capsys):
    words = [f"{pair}{os.sep}{word[1:]}" if word.startswith("@") else word for word in COMMANDS[kind]]
    code: object = None
    try:
        code = cli.main(words)
    except SystemExit as end:  # argparse's own
        code = end.code
    said = capsys.readouterr()
    text = said.out + said.err
    assert code, text
    assert "Traceback" not in text
    assert COPY_AGAIN not in text
    for line in text.splitlines():
        for word in {word for word in words if word.startswith(str(pair)) and word.rstrip(os.sep) != str(pair)}:
            assert line.count(f"{word}:") + line.count(f"{word} ") + line.count(f"{word}'") <= 1, line
            assert line.startswith("usage") or line.count(word + os.sep) + line.count(word) <= 1, line
