"""Writing: exact geometry, lossless voxels, all or nothing on every failure, JSON, and transforms."""

from __future__ import annotations

import gzip
import json
import os
import subprocess
import sys
import textwrap
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import SimpleITK as sitk
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from BrainFusionLib.errors import GeometryError, ImageFileError, Remedy
from BrainFusionLib.geometry import Grid, rotation_matrix
from BrainFusionLib.io import (
    atomic_output,
    deflate,
    read_transform,
    read_volume,
    unpacking,
    write_json,
    write_text,
    write_transform,
    write_volume,
)
from BrainFusionLib.transform import AffineTransform, RigidTransform
from BrainFusionLib.volume import Volume

ROOT = Path(__file__).resolve().parents[1]
SUFFIXES = [".nii", ".nii.gz", ".nrrd", ".mha", ".img", ".hdr"]
GRID = Grid(
    (4, 5, 6),
    (0.123456789, 0.987654321, 3.3333333333),
    (-123.456789012, 98.7654321, 1234.56789),
    rotation_matrix((1, -2, 3), 57) @ np.diag([1.0, 1, -1]),
)


def volume_of(values, grid=GRID):
    return Volume(np.resize(np.asarray(values, dtype=np.float32), grid.shape_kji), grid)


def anything_in(folder):
    return sorted(entry.name for entry in folder.iterdir())


# ---------------------------------------------------------------- what is written


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_voxels_and_grid_come_back(tmp_path, suffix):
    volume = volume_of(np.random.default_rng(1).normal(size=120))
    write_volume(volume, tmp_path / f"a{suffix}")
    again = read_volume(tmp_path / f"a{suffix}")
    np.testing.assert_array_equal(again.array_kji, volume.array_kji)
    assert again.notes == ()
    # NRRD and MetaImage are exact; NIfTI's numbers are float32, whose steps are 1e-4 mm at 1234 mm.
    assert again.grid.same_as(volume.grid, 1e-9 if suffix in (".nrrd", ".mha") else 1e-4)


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.sampled_from([".nii", ".nrrd", ".mha", ".img"]),
    st.tuples(*[st.floats(-1, 1)] * 3),
    st.floats(-180, 180),
    st.tuples(*[st.floats(0.1, 6)] * 3),
    st.tuples(*[st.floats(-300, 300)] * 3),
    st.booleans(),
)
def test_grid_round_trip_is_exact(tmp_path, suffix, axis, angle, spacing, origin, mirrored):
    direction = rotation_matrix((axis[0], axis[1], axis[2] + 2), angle) @ np.diag([1, 1, -1 if mirrored else 1])
    grid = Grid((3, 4, 2), spacing, origin, direction)
    write_volume(volume_of([1, 2, 3], grid), tmp_path / f"a{suffix}")
    again = read_volume(tmp_path / f"a{suffix}").grid
    assert again.same_as(grid, 1e-9 if suffix in (".nrrd", ".mha") else 6e-5)
    x, y, z = sitk.ReadImage(tmp_path / f"a{suffix}").TransformIndexToPhysicalPoint((2, 3, 1))
    np.testing.assert_allclose((x, y, z), grid.corners_lps_mm[-1], atol=1e-3)


@pytest.mark.parametrize("suffix", SUFFIXES)
@pytest.mark.parametrize(
    ("values", "kind"),
    [
        ([-1024, 0, 3071], "int16"),
        ([-32768, 32767], "int16"),
        ([-32769, 0], "float32"),
        ([0, 32768], "float32"),
        ([0, 0.5], "float32"),
        ([0, np.inf], "float32"),
    ],
)
def test_voxels_are_stored_as_int16_if_lossless(tmp_path, suffix, values, kind):
    volume = volume_of(values)
    write_volume(volume, tmp_path / f"a{suffix}")
    np.testing.assert_array_equal(read_volume(tmp_path / f"a{suffix}").array_kji, volume.array_kji)
    pixel = sitk.ReadImage(tmp_path / f"a{suffix}").GetPixelID()
    assert pixel == {"int16": sitk.sitkInt16, "float32": sitk.sitkFloat32}[kind]


@pytest.mark.parametrize("named", [".img", ".hdr"])
def test_analyze_readers_read_a_written_pair(tmp_path, named):
    volume = volume_of(range(120))
    write_volume(volume, tmp_path / f"case.1{named}")
    assert anything_in(tmp_path) == ["case.1.hdr", "case.1.img"]
    header = (tmp_path / "case.1.hdr").read_bytes()
    assert (len(header), header[:4]) == (348, b"\x5c\x01\0\0")  # little-endian
    plain = nib.AnalyzeImage.from_filename(tmp_path / "case.1.img")
    np.testing.assert_array_equal(np.asarray(plain.dataobj).T, volume.array_kji)
    np.testing.assert_allclose(plain.header.get_zooms(), GRID.spacing_ijk_mm, rtol=1e-6)


def test_the_same_volume_gives_the_same_bytes(tmp_path):
    for name in ("a.nii.gz", "a.nrrd"):
        write_volume(volume_of([1, 2]), tmp_path / name)
        first = (tmp_path / name).read_bytes()
        write_volume(volume_of([1, 2]), tmp_path / name)
        assert (tmp_path / name).read_bytes() == first


def test_nii_gz_is_compressed_and_sound(tmp_path):
    write_volume(volume_of([0], Grid((50, 50, 50))), tmp_path / "a.NII.GZ")
    assert (tmp_path / "a.NII.GZ").stat().st_size < 2000
    assert len(gzip.decompress((tmp_path / "a.NII.GZ").read_bytes())) == 352 + 2 * 50**3


@pytest.mark.parametrize("name", ["a.nhdr", "a.mhd", "a.dcm", "a", "a.gz"])
def test_other_endings_are_refused_with_the_possible_ones(tmp_path, name):
    with pytest.raises(
        ImageFileError, match=rf"{name}: a volume cannot be written (as|under) .*Choose a name that ends in \.nii"
    ):
        write_volume(volume_of([1]), tmp_path / name)
    assert anything_in(tmp_path) == []


# ---------------------------------------------------------------- all or nothing


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_nothing_but_the_file_is_left_in_the_folder(tmp_path, suffix):
    write_volume(volume_of([1]), tmp_path / f"a{suffix}")
    expected = ["a.hdr", "a.img"] if suffix in (".img", ".hdr") else [f"a{suffix}"]
    assert anything_in(tmp_path) == expected


@pytest.mark.parametrize("failure", [ValueError("no"), KeyboardInterrupt(), OSError(5, "Input/output error")])
def test_failure_keeps_the_old_file_alone(tmp_path, failure):
    target = tmp_path / "a.json"
    target.write_text("old")
    expected = ImageFileError if isinstance(failure, OSError) else type(failure)

    def write():
        with atomic_output(target) as temporary:
            assert temporary.parent == tmp_path
            assert temporary.name.startswith(".")
            temporary.write_text("half")
            raise failure

    with pytest.raises(expected):
        write()
    assert target.read_text() == "old"
    assert anything_in(tmp_path) == ["a.json"]


def test_the_temporary_keeps_the_ending_and_differs_each_time(tmp_path):
    names = set()
    for _ in range(2):
        with atomic_output(tmp_path / "head.2.nii.gz") as temporary:
            assert temporary.name.endswith(".nii.gz")
            names.add(temporary.name)
            temporary.write_text("x")
    assert len(names) == 2


def test_writing_nothing_is_an_error(tmp_path):
    with pytest.raises(ImageFileError, match=r"a\.txt: cannot be written"), atomic_output(tmp_path / "a.txt"):
        pass
    assert anything_in(tmp_path) == []


@pytest.mark.parametrize("name", ["a.nii.gz", "a.nrrd", "a.mha", "a.img", "a.json", "a.tfm"])
def test_a_missing_folder_is_refused_and_not_created(tmp_path, name):
    write = {
        "a.json": lambda path: write_json({}, path),
        "a.tfm": lambda path: write_transform(RigidTransform.identity(), path),
    }.get(name, lambda path: write_volume(volume_of([1]), path))
    with pytest.raises(ImageFileError, match=rf"{name}: cannot be written.*gone does not exist; create it first"):
        write(tmp_path / "gone" / name)
    assert anything_in(tmp_path) == []


@pytest.mark.skipif(sys.platform == "win32", reason="needs pipes with names")
def test_a_pipe_or_device_is_never_replaced_by_a_file(tmp_path):
    """As root, a table named /dev/null would take its place for the whole machine."""
    path = tmp_path / "pipe"
    os.mkfifo(path)
    with pytest.raises(ImageFileError, match="is a pipe, device or socket, not a file"):
        write_text("x", path)
    assert path.is_fifo()
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.skipif(sys.platform == "win32", reason="needs permissions of Unix")
def test_what_only_its_owner_may_read_stays_so_when_it_is_replaced(tmp_path):
    path = tmp_path / "a.json"
    path.touch(mode=0o600)
    write_text("x", path)
    assert (path.stat().st_mode & 0o777, path.read_text()) == (0o600, "x")


def test_a_folder_of_that_name_is_not_replaced(tmp_path):
    (tmp_path / "a.txt").mkdir()
    with pytest.raises(ImageFileError, match=r"a\.txt: cannot be written.*choose the name of a file"):
        write_text("x", tmp_path / "a.txt")
    assert anything_in(tmp_path) == ["a.txt"]


@pytest.mark.skipif(not hasattr(os, "geteuid"), reason="needs POSIX permissions")
def test_a_folder_without_permission_is_refused(tmp_path):
    folder = tmp_path / "locked"
    folder.mkdir()
    folder.chmod(0o555)
    was_root = os.geteuid() == 0
    if was_root:  # root may write everywhere, so be nobody for a moment
        os.seteuid(65534)
    try:
        with pytest.raises(ImageFileError, match=r"a\.nrrd: cannot be written \(Permission denied\).*may write to"):
            write_volume(volume_of([1]), folder / "a.nrrd")
    finally:
        if was_root:
            os.seteuid(0)
    assert anything_in(folder) == []


@pytest.mark.skipif(sys.platform == "win32", reason="needs RLIMIT_FSIZE")
def test_full_disk_leaves_nothing(tmp_path):
    # A limit on the size of files stands in for a full disk: the write that crosses it fails. One process for all
    # formats, and not this one, as the limit would hold for the rest of the run.
    program = """
        import resource, sys
        from pathlib import Path
        import numpy as np
        from BrainFusionLib.errors import ImageFileError
        from BrainFusionLib.geometry import Grid
        from BrainFusionLib.io import write_text, write_volume
        from BrainFusionLib.volume import Volume

        folder = Path(sys.argv[1])
        array = np.random.default_rng(0).normal(size=(64, 64, 64)).astype(np.float32)
        (folder / "a.nii").write_text("old")
        sys.dont_write_bytecode = True  # Python 3.11 would keep the half of it
        resource.setrlimit(resource.RLIMIT_FSIZE, (300_000, 300_000))
        jobs = [lambda p=folder / f"a{s}": write_volume(Volume(array, Grid((64, 64, 64))), p)
                for s in (".nii", ".nii.gz", ".nrrd", ".mha", ".img")]
        jobs.append(lambda: write_text("x" * 400_000, folder / "a.txt"))
        for job in jobs:
            try:
                job()
            except ImageFileError as error:
                print(error)
    """
    result = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(program), str(tmp_path)],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert result.returncode == 0, result.stderr
    lines = result.stdout.splitlines()
    assert len(lines) == 6
    assert all("cannot be written (File too large). Free some space" in line for line in lines)
    assert anything_in(tmp_path) == ["a.nii"]
    assert (tmp_path / "a.nii").read_text() == "old"


@pytest.mark.skipif(sys.platform != "linux", reason="needs /dev/full")
def test_full_disk_gets_its_remedy(tmp_path):
    def write():
        with atomic_output(tmp_path / "a.bin") as temporary:
            temporary.touch()
            Path("/dev/full").write_bytes(b"x")

    with pytest.raises(
        ImageFileError, match=r"a\.bin: cannot be written \(No space left on device\)\. Free some space"
    ):
        write()
    assert anything_in(tmp_path) == []


# ---------------------------------------------------------------- text and JSON


def test_json_keeps_its_order_and_takes_numpy_and_paths(tmp_path):
    data = {
        "z": np.float32(0.5),
        "a": np.arange(3),
        "n": np.int64(7),
        "ok": np.True_,
        "path": Path("x") / "y",
        "é": None,
    }
    write_json(data, tmp_path / "a.json")
    text = (tmp_path / "a.json").read_text(encoding="utf-8")
    assert json.loads(text) == {"z": 0.5, "a": [0, 1, 2], "n": 7, "ok": True, "path": os.path.join("x", "y"), "é": None}  # noqa: PTH118
    assert list(json.loads(text)) == ["z", "a", "n", "ok", "path", "é"]
    assert text.startswith('{\n  "z": 0.5')
    assert text.endswith("}\n")


@pytest.mark.parametrize("value", [float("nan"), np.float32("inf"), np.array([1.0, np.nan]), {"deep": [-np.inf]}])
def test_nan_in_json_is_refused(tmp_path, value):
    with pytest.raises(ValueError, match=r"a\.json: cannot be written, because a value in it is NaN or infinite.*None"):
        write_json({"x": value}, tmp_path / "a.json")
    assert anything_in(tmp_path) == []


def test_values_outside_json_are_refused(tmp_path):
    with pytest.raises(TypeError, match="JSON cannot hold a set"):
        write_json({"x": {1, 2}}, tmp_path / "a.json")
    assert anything_in(tmp_path) == []


def test_text_is_written_as_it_is(tmp_path):
    write_text("α\r\nβ\n", tmp_path / "a.html")
    assert (tmp_path / "a.html").read_bytes() == "α\r\nβ\n".encode()


# ---------------------------------------------------------------- transforms

POINT = (12.5, -40.25, 71.0)


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.tuples(*[st.floats(-1, 1)] * 3),
    st.floats(-180, 180),
    st.tuples(*[st.floats(-500, 500)] * 3),
    st.sampled_from([".tfm", ".txt"]),
)
def test_transform_is_stored_to_twelve_digits(tmp_path, axis, angle, translation, suffix):
    transform = RigidTransform.from_axis_angle((axis[0], axis[1], axis[2] + 2), angle, translation)
    write_transform(transform, tmp_path / f"a{suffix}")
    again = read_transform(tmp_path / f"a{suffix}")
    np.testing.assert_allclose(again.moving_from_fixed_lps, transform.moving_from_fixed_lps, rtol=1e-12, atol=1e-12)
    by_itk = sitk.ReadTransform(tmp_path / f"a{suffix}").TransformPoint(POINT)
    np.testing.assert_allclose(by_itk, transform.apply(POINT), atol=1e-10)


def itk_transforms():
    euler = sitk.Euler3DTransform((10.5, -3, 40), 0.3, -0.2, 1.1, (4, -5, 6))
    versor = sitk.VersorRigid3DTransform((0.6, 0.0, 0.8), 0.7, (1, 2, 3), (5, 5, 5))
    shift = sitk.TranslationTransform(3, (7, 8, -9))
    turn = sitk.AffineTransform(rotation_matrix((1, 1, 2), 140).ravel().tolist(), (1, 2, 3), (9, 8, 7))
    composite = sitk.CompositeTransform([euler, shift, versor])
    return {"euler": euler, "versor": versor, "shift": shift, "affine": turn, "composite": composite}


@pytest.mark.parametrize("kind", ["euler", "versor", "shift", "affine", "composite"])
def test_rigid_transforms_written_by_itk_are_read(tmp_path, kind):
    transform = itk_transforms()[kind]
    sitk.WriteTransform(transform, tmp_path / "a.tfm")
    np.testing.assert_allclose(
        read_transform(tmp_path / "a.tfm").apply(POINT), transform.TransformPoint(POINT), atol=1e-9
    )


def scaled(factor):
    return sitk.AffineTransform((np.eye(3) * factor).ravel().tolist(), (1, 2, 3))


@pytest.mark.parametrize(
    ("transform", "words"),
    [
        (sitk.BSplineTransform(3), "rigid 3D transform is needed, but this is a 3D 'BSpline"),
        (sitk.Euler2DTransform(), "rigid 3D transform is needed, but this is a 2D 'Euler2D"),
        (scaled([1.01, 1, 1]), "scales or shears"),
        (scaled([-1, 1, 1]), "mirrors left and right"),
        (sitk.Similarity3DTransform(1.2, (0, 0, 1), 0.1, (0, 0, 0)), "scales or shears"),
    ],
)
def test_transforms_that_are_not_rigid_are_refused(tmp_path, transform, words):
    sitk.WriteTransform(transform, tmp_path / "a.tfm")
    with pytest.raises(GeometryError, match=rf"a\.tfm: .*{words}"):
        read_transform(tmp_path / "a.tfm")


@pytest.mark.parametrize("suffix", [".tfm", ".txt"])
def test_affine_transform_round_trips(tmp_path, suffix):
    matrix = [[0.9, 0.1, 0, 500.5], [-0.1, 1.2, 0.05, -30], [0, 0.02, 1.00001, 7], [0, 0, 0, 1]]
    write_transform(AffineTransform(matrix), tmp_path / f"a{suffix}")
    again = read_transform(tmp_path / f"a{suffix}", rigid=False)
    assert isinstance(again, AffineTransform)
    np.testing.assert_allclose(again.moving_from_fixed_lps, matrix, rtol=1e-12, atol=1e-12)
    by_itk = sitk.ReadTransform(tmp_path / f"a{suffix}").TransformPoint(POINT)
    np.testing.assert_allclose(by_itk, again.apply(POINT), atol=1e-10)
    with pytest.raises(GeometryError, match=r"scales or shears") as refusal:
        read_transform(tmp_path / f"a{suffix}")
    assert refusal.value.remedy is Remedy.USE_TRANSFORM_AS_IT_IS


@pytest.mark.parametrize("kind", ["euler", "versor", "shift", "affine", "composite"])
def test_rigid_transform_stays_rigid(tmp_path, kind):
    sitk.WriteTransform(itk_transforms()[kind], tmp_path / "a.tfm")
    assert isinstance(read_transform(tmp_path / "a.tfm", rigid=False), RigidTransform)


def test_small_scale_is_kept(tmp_path):
    write_transform(AffineTransform(np.diag([1.0003, 1, 1, 1])), tmp_path / "a.tfm")
    assert isinstance(read_transform(tmp_path / "a.tfm"), RigidTransform)
    assert read_transform(tmp_path / "a.tfm", rigid=False).apply((100, 0, 0))[0] == pytest.approx(100.03)


def test_itks_similarity_is_read(tmp_path):
    similarity = sitk.Similarity3DTransform(1.2, (0, 0, 1), 0.1, (4, 5, 6))
    sitk.WriteTransform(similarity, tmp_path / "a.tfm")
    again = read_transform(tmp_path / "a.tfm", rigid=False)
    assert again.kind == "similarity"
    np.testing.assert_allclose(again.apply(POINT), similarity.TransformPoint(POINT), atol=1e-9)


@pytest.mark.parametrize(
    ("transform", "words"),
    [
        (sitk.BSplineTransform(3), "linear 3D transform is needed, but this is a 3D 'BSpline"),
        (sitk.Euler2DTransform(), "linear 3D transform is needed, but this is a 2D 'Euler2D"),
        (scaled([-1, 1, 1]), "mirrors left and right"),
        (scaled([1, 1, 0]), "invertible"),
    ],
)
def test_transforms_that_are_not_affine_are_refused(tmp_path, transform, words):
    sitk.WriteTransform(transform, tmp_path / "a.tfm")
    with pytest.raises(GeometryError, match=rf"a\.tfm: .*{words}"):
        read_transform(tmp_path / "a.tfm", rigid=False)


def test_other_transform_files_are_refused(tmp_path):
    with pytest.raises(ImageFileError, match=r"gone\.tfm: there is no such file"):
        read_transform(tmp_path / "gone.tfm")
    (tmp_path / "a.tfm").write_text("hello")
    with pytest.raises(ImageFileError, match=r"a\.tfm: is not a transform file of a kind"):
        read_transform(tmp_path / "a.tfm")
    with pytest.raises(ImageFileError, match=r"a\.mat: a transform cannot be written.*\.tfm"):
        write_transform(RigidTransform.identity(), tmp_path / "a.mat")
    assert anything_in(tmp_path) == ["a.tfm"]


def test_truncated_transform_file_is_refused(tmp_path, capfd):
    transform = RigidTransform.from_axis_angle((0, 0, 1), 10, (5, 6, 7))
    write_transform(transform, tmp_path / "a.tfm")
    whole = (tmp_path / "a.tfm").read_bytes()
    for length in range(0, len(whole), 3):
        (tmp_path / "a.tfm").write_bytes(whole[:length])
        with pytest.raises(ImageFileError, match=r"a\.tfm: "):
            read_transform(tmp_path / "a.tfm")
    assert capfd.readouterr() == ("", "")


# ---------------------------------------------------------------- transforms: numbers are counted before ITK sees them

KINDS = {
    "AffineTransform": ("0.9 0.1 0 -0.1 1.1 0 0 0.2 1 4 5 6", "7 8 9"),
    "MatrixOffsetTransformBase": ("0.9 0.1 0 -0.1 1.1 0 0 0.2 1 4 5 6", "7 8 9"),
    "Euler3DTransform": ("0.1 0.2 0.3 4 5 6", "7 8 9 1"),
    "VersorTransform": ("0.1 0.2 0.3", "7 8 9"),
    "VersorRigid3DTransform": ("0.1 0.2 0.3 4 5 6", "7 8 9"),
    "QuaternionRigidTransform": ("0.1 0.2 0.3 0.9273618495495703 4 5 6", "7 8 9"),
    "Similarity3DTransform": ("0.1 0.2 0.3 4 5 6 1.2", "7 8 9"),
    "ScaleTransform": ("1.1 1.2 1.3", "7 8 9"),
    "ScaleLogarithmicTransform": ("0.1 0.2 0.3", "7 8 9"),
    "ScaleVersor3DTransform": ("0.1 0.2 0.3 4 5 6 1.1 1.2 1.3", "7 8 9"),
    "ScaleSkewVersor3DTransform": ("0.1 0.2 0.3 4 5 6 1.1 1.2 1.3 .01 .02 .03 .04 .05 .06", "7 8 9"),
    "ComposeScaleSkewVersor3DTransform": ("0.1 0.2 0.3 4 5 6 1.1 1.2 1.3 .01 .02 .03", "7 8 9"),
    "TranslationTransform": ("4 5 6", ""),
    "IdentityTransform": ("", ""),
}


def transform_text(*transforms, composite=False):
    """Return a file's text; each transform is a kind, its parameters and its fixed parameters."""
    lines = ["#Insight Transform File V1.0"]
    lines += ["#Transform 0", "Transform: CompositeTransform_double_3_3"] if composite else []
    for number, (kind, parameters, fixed) in enumerate(transforms):
        lines += [f"#Transform {number}", f"Transform: {kind}_double_3_3", f"Parameters: {parameters}"]
        lines += [f"FixedParameters: {fixed}"]
    return "\n".join(lines) + "\n"


@pytest.mark.parametrize("kind", KINDS)
def test_transform_of_any_kind_is_read_as_itk_reads_it(tmp_path, kind):
    (tmp_path / "a.tfm").write_text(transform_text((kind, *KINDS[kind])))
    ours = read_transform(tmp_path / "a.tfm", rigid=False)
    # SimpleITK's own reader does not know the last of these kinds outside of a composite.
    (tmp_path / "a.tfm").write_text(transform_text((kind, *KINDS[kind]), composite=True))
    theirs = sitk.ReadTransform(tmp_path / "a.tfm")
    np.testing.assert_allclose(ours.apply(POINT), theirs.TransformPoint(POINT), atol=1e-9)


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind != "IdentityTransform"])
def test_transform_with_another_count_of_numbers_is_refused(tmp_path, kind):
    parameters, fixed = KINDS[kind]
    words = parameters.split()
    for count in (*range(len(words)), len(words) + 1, 4000):
        changed = " ".join((words * 400)[:count]) if count > len(words) else " ".join(words[:count])
        if count == 4000:
            changed = "1 " * count
        (tmp_path / "a.tfm").write_text(transform_text((kind, changed, fixed)))
        with pytest.raises(ImageFileError, match=rf"a\.tfm: .*{kind} needs {len(words)} Parameters, but there are"):
            read_transform(tmp_path / "a.tfm", rigid=False)
    (tmp_path / "a.tfm").write_text(transform_text((kind, parameters, "1 2")))
    with pytest.raises(ImageFileError, match=r"needs .* FixedParameters, but there are 2"):
        read_transform(tmp_path / "a.tfm", rigid=False)


@pytest.mark.parametrize("word", ["nan", "inf", "x", "1e999", "1_0", "0x1", "1,5,"])
def test_transform_with_a_word_that_is_not_a_number_is_refused(tmp_path, word):
    for text in (f"0.1 0.2 {word} 4 5 6", f"0.1 0.2 0.3 4 5 {word}"):
        (tmp_path / "a.tfm").write_text(transform_text(("Euler3DTransform", text, "0 0 0")))
        with pytest.raises(ImageFileError, match=r"a\.tfm: (in Parameters, .* is not a number|.*needs 6 Parameters)"):
            read_transform(tmp_path / "a.tfm")


@pytest.mark.parametrize("composite", [True, False])
def test_several_transforms_are_composed_as_itk_composes_them(tmp_path, composite):
    kinds = ("Euler3DTransform", "TranslationTransform", "VersorRigid3DTransform")
    transforms = [(kind, *KINDS[kind]) for kind in kinds]
    (tmp_path / "a.tfm").write_text(transform_text(*transforms, composite=True))
    truth = sitk.ReadTransform(tmp_path / "a.tfm").TransformPoint(POINT)
    (tmp_path / "a.tfm").write_text(transform_text(*transforms, composite=composite))
    np.testing.assert_allclose(read_transform(tmp_path / "a.tfm").apply(POINT), truth, atol=1e-9)


def test_deformation_among_several_transforms_is_refused(tmp_path):
    both = transform_text(("Euler3DTransform", "0 0 0 1 2 3", "0 0 0"), ("BSplineTransform", "0 " * 400_000, ""))
    (tmp_path / "a.tfm").write_text(both)
    with pytest.raises(GeometryError, match=r"a\.tfm: .*this is a 3D 'BSplineTransform'"):
        read_transform(tmp_path / "a.tfm")


@pytest.mark.parametrize("kind", ["CenteredAffineTransform", "x" * 5000, "AffineTransform_double_3_3_double"])
def test_unknown_kind_of_transform_is_refused(tmp_path, kind):
    (tmp_path / "a.tfm").write_text(transform_text((kind, "1 2 3", "0 0 0")))
    with pytest.raises((GeometryError, ImageFileError), match=r"a\.tfm: "):
        read_transform(tmp_path / "a.tfm")


def test_lines_that_are_not_of_a_transform_file_are_refused(tmp_path):
    whole = transform_text(("TranslationTransform", "1 2 3", ""))
    for more in ("Parameters: 1 2 3\n", "hello\n", "Transform: CompositeTransform_double_3_3\n"):
        (tmp_path / "a.tfm").write_text(whole + more)
        with pytest.raises(ImageFileError, match=r"a\.tfm: "):
            read_transform(tmp_path / "a.tfm")


def test_transform_under_a_name_that_is_not_utf8_is_read(tmp_path):
    odd = Path(os.fsdecode(os.fsencode(tmp_path) + b"/M\xfcller.tfm"))
    try:
        odd.write_text(transform_text(("TranslationTransform", "1 2 3", "")))
    except OSError:
        pytest.skip("this file system takes UTF-8 names only")
    assert read_transform(odd).translation_mm.tolist() == [1, 2, 3]


@pytest.mark.parametrize("suffix", [".nii.gz", ".nrrd"])
@pytest.mark.parametrize("packer", ["isal", "zlib"])
def test_compressed_voxels_come_back_exactly_and_the_same_bytes_are_written(tmp_path, monkeypatch, suffix, packer):
    if packer == "isal":
        pytest.importorskip("isal")
    else:
        monkeypatch.setattr(deflate, "_isal", lambda: None)
    array = np.random.default_rng(1).integers(-900, 2000, (20, 190, 170)).astype(np.float32)  # more than one piece
    volume = Volume(array, Grid((170, 190, 20), (1, 1, 2)))
    for name in ("a", "b"):
        write_volume(volume, tmp_path / f"{name}{suffix}")
    written = (tmp_path / f"a{suffix}").read_bytes()
    assert written == (tmp_path / f"b{suffix}").read_bytes()
    np.testing.assert_array_equal(read_volume(tmp_path / f"a{suffix}").array_kji, array)
    np.testing.assert_array_equal(sitk.GetArrayFromImage(sitk.ReadImage(tmp_path / f"a{suffix}")), array)
    packed = written[written.index(b"\x1f\x8b\x08") :]
    assert packed[4:8] == bytes(4)  # no time stamp
    assert array.astype("<i2").tobytes() in gzip.decompress(packed)


@pytest.mark.parametrize("kind", ["u1", "<i2", ">i2", "<u2", ">i4", "<f4", ">f4", "<f8"])
@pytest.mark.parametrize("scale", [(1.0, 0.0), (0.5, -7.0)])
def test_numbers_at_the_end_of_an_array_become_its_floats(kind, scale):
    count = (1 << 20) + 12_345  # more than one piece
    values = np.random.default_rng(1).integers(0, 250, count).astype(kind)
    floats = np.empty(count, np.float32)
    raw = unpacking._place_for(values.nbytes, floats)
    assert np.shares_memory(raw, floats) == (values.itemsize <= 4)
    raw[:] = values.view(np.uint8)
    unpacking.put_as_floats(floats, raw.view(kind), *scale)
    np.testing.assert_array_equal(floats, values.astype(np.float64) * scale[0] + scale[1])
