"""The console command as its user meets it: files in, a folder out, a message and an exit code when that cannot be."""

from __future__ import annotations

import gzip
import json
import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk

import BrainFusionLib
from BrainFusionLib import cli, read_transform, read_volume, registration, write_transform, write_volume
from BrainFusionLib.case import Source, read_record
from BrainFusionLib.cli.main import COMMANDS, make_parser
from BrainFusionLib.errors import RegistrationError
from BrainFusionLib.geometry import Grid
from BrainFusionLib.io.hashing import sha256_of
from BrainFusionLib.metrics import target_registration_errors_mm
from BrainFusionLib.phantom import PhantomPair, make_pair
from BrainFusionLib.settings import RegistrationSettings
from BrainFusionLib.transform import AffineTransform
from BrainFusionLib.volume import Volume
from Testing import remembered

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="module")
def pair() -> PhantomPair:
    return make_pair(3, spacing_mm=4.0)


@pytest.fixture(scope="module")
def inputs(pair: PhantomPair, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with ct.nii.gz, mri.nii.gz and true.tfm."""
    folder = tmp_path_factory.mktemp("inputs")
    write_volume(pair.ct, folder / "ct.nii.gz")
    write_volume(pair.mri, folder / "mri.nii.gz")
    write_transform(pair.transform, folder / "true.tfm")
    return folder


@pytest.fixture(autouse=True, scope="module")
def _computed_once() -> Iterator[None]:
    """Most tests are about files: what runs in this process is computed once for all of them."""
    with pytest.MonkeyPatch.context() as patch:
        for command in ("fuse", "register"):
            patch.setattr(f"BrainFusionLib.cli.{command}.run", remembered.run)
        yield


def fuse_unregistered(inputs: Path, output: Path, *options: str) -> int:
    """Fuse at the true pose: fast, for tests that are not about registration."""
    return cli.main(
        ["fuse", str(inputs / "ct.nii.gz"), str(inputs / "mri.nii.gz"), "-o", str(output),
         "--no-register", "--transform", str(inputs / "true.tfm"), *options]
    )  # fmt: skip


@pytest.fixture(scope="module")
def fused(inputs: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of the inputs fused at the true pose; not to be changed."""
    folder = tmp_path_factory.mktemp("fused")
    assert fuse_unregistered(inputs, folder) == 0
    return folder


def in_a_process(*arguments: str | Path, prelude: str = "") -> subprocess.Popen[str]:
    """Run the command in a process of its own, after some Python of the test's."""
    code = (
        f"{prelude}\nimport sys\nfrom BrainFusionLib.cli import main\nsys.exit(main({[str(a) for a in arguments]!r}))"
    )
    return subprocess.Popen(
        [sys.executable, "-c", code], cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


# ---- the main job -------------------------------------------------------------------------------------------------


def test_fuse_registers_and_writes_five_files(pair: PhantomPair, inputs: Path, tmp_path: Path) -> None:
    output = tmp_path / "results" / "case 1"
    code = cli.main(
        ["fuse", str(inputs / "ct.nii.gz"), str(inputs / "mri.nii.gz"), "-o", str(output), "--preset", "fast"]
    )
    assert code == 0
    names = {"fused.nii.gz", "ct_in_mri.nii.gz", "ct_to_mri.tfm", "report.html", "result.json"}
    assert {p.name for p in output.iterdir()} == names
    found = read_transform(output / "ct_to_mri.tfm")
    assert target_registration_errors_mm(found, pair.transform, pair.target_points()).max() < 1.5
    mri = sitk.ReadImage(str(inputs / "mri.nii.gz"))
    for name in ("fused.nii.gz", "ct_in_mri.nii.gz"):
        image = sitk.ReadImage(str(output / name))
        assert image.GetSize() == mri.GetSize()
        assert np.allclose(image.GetOrigin(), mri.GetOrigin(), atol=1e-6)
        assert np.allclose(image.GetSpacing(), mri.GetSpacing(), atol=1e-6)
        assert np.allclose(image.GetDirection(), mri.GetDirection(), atol=1e-6)
    result = json.loads((output / "result.json").read_text(encoding="utf-8"))
    assert np.allclose(result["pose"]["transform"]["moving_from_fixed_lps"], found.moving_from_fixed_lps, atol=1e-12)
    assert result["verdict"]["colour"] in ("green", "amber")
    assert set(result["provenance"]["timings_s"]) == {"registration", "resampling", "checking", "fusion", "writing"}
    assert result["provenance"]["versions"]["brainfusion"] == BrainFusionLib.__version__
    assert "not for diagnosis" in result["warning"]
    assert "not for diagnosis" in (output / "report.html").read_text(encoding="utf-8")


@pytest.mark.parametrize("file_format", ["nrrd", "mha"])
def test_the_volumes_come_in_the_format_asked_for(inputs: Path, tmp_path: Path, file_format: str) -> None:
    assert fuse_unregistered(inputs, tmp_path, "--format", file_format) == 0
    assert read_volume(tmp_path / f"fused.{file_format}").grid.same_as(read_volume(inputs / "mri.nii.gz").grid, 1e-3)


def test_a_second_run_replaces_the_first(inputs: Path, fused: Path, tmp_path: Path) -> None:
    shutil.copytree(fused, tmp_path, dirs_exist_ok=True)
    assert fuse_unregistered(inputs, tmp_path, "--rule", "average") == 0
    assert read_record(tmp_path / "result.json").request.settings.fusion.rule == "average"
    assert len(list(tmp_path.iterdir())) == 5
    (tmp_path / "mine.nii.gz").write_bytes(b"kept")
    assert fuse_unregistered(inputs, tmp_path, "--format", "mha") == 0
    names = {"fused.mha", "ct_in_mri.mha", "ct_to_mri.tfm", "report.html", "result.json", "mine.nii.gz"}
    assert {p.name for p in tmp_path.iterdir()} == names


def test_folder_with_the_name_of_a_result_is_an_error(
    inputs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "fused.nii.gz").mkdir()
    assert fuse_unregistered(inputs, tmp_path) == 2
    assert "fused.nii.gz: cannot be replaced" in capsys.readouterr().err


def test_an_input_is_never_overwritten(inputs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    mri = tmp_path / "fused.nii.gz"
    mri.write_bytes((inputs / "mri.nii.gz").read_bytes())
    before = mri.read_bytes()
    assert cli.main(["fuse", str(inputs / "ct.nii.gz"), str(mri), "-o", str(tmp_path), "--no-register"]) == 2
    assert "is one of the inputs" in capsys.readouterr().err
    assert mri.read_bytes() == before


def test_nrrd_with_a_name_outside_utf8_is_judged_by_its_content(
    inputs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    odd = os.fsdecode(os.fsencode(tmp_path) + b"/M\xfcller.nrrd")
    assert cli.main(["fuse", odd, str(inputs / "mri.nii.gz"), "-o", str(tmp_path / "out")]) == 2
    assert "ller.nrrd: there is no such file" in capsys.readouterr().err
    Path(odd).write_bytes(b"NRRD0005\n")
    assert cli.main(["fuse", odd, str(inputs / "mri.nii.gz"), "-o", str(tmp_path / "out")]) == 2
    assert "ller.nrrd: its header is cut short" in capsys.readouterr().err


def test_names_outside_utf8_work(inputs: Path, tmp_path: Path) -> None:
    odd = Path(os.fsdecode(os.fsencode(tmp_path) + b"/M\xfcller ct.nii.gz"))
    try:
        odd.write_bytes((inputs / "ct.nii.gz").read_bytes())
    except OSError:
        pytest.skip("this file system takes UTF-8 names only")
    command = ["fuse", str(odd), str(inputs / "mri.nii.gz"), "-o", str(tmp_path / "out"), "--no-register", "--identify"]
    assert cli.main(command) == 0
    assert "ller ct.nii.gz" in (tmp_path / "out" / "report.html").read_text(encoding="utf-8")


def test_register_refuses_before_the_work_and_leaves_no_folder(
    inputs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    ct, mri = str(inputs / "ct.nii.gz"), str(inputs / "mri.nii.gz")
    assert cli.main(["register", ct, mri, "-o", str(tmp_path / "new" / "t.nii")]) == 2
    assert ".tfm" in capsys.readouterr().err
    assert cli.main(["register", str(tmp_path / "nowhere.nii"), mri, "-o", str(tmp_path / "new" / "t.tfm")]) == 2
    assert not (tmp_path / "new").exists()


def test_heads_without_overlap_give_exit_code_3(
    pair: PhantomPair, inputs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    grid = Grid(pair.ct.grid.size_ijk, pair.ct.grid.spacing_ijk_mm, (5000.0, 0.0, 0.0))
    write_volume(Volume(pair.ct.array_kji, grid, "CT"), tmp_path / "far.nii.gz")
    command = ["fuse", str(tmp_path / "far.nii.gz"), str(inputs / "mri.nii.gz"), "-o", str(tmp_path / "out")]
    assert cli.main([*command, "--no-register"]) == 3
    said = capsys.readouterr().err
    assert "could not be aligned: the CT covers only 0 % of the head" in said
    assert "Omit --no-register" in said
    assert "Nothing was written. To inspect the refused pose, name a file with --keep-refused." in said
    assert not (tmp_path / "out").exists()
    kept = tmp_path / "new" / "refused.tfm"
    assert cli.main([*command, "--no-register", "--keep-refused", str(kept)]) == 3
    assert f"Only the refused pose was written, for inspection and not for use: {kept}" in capsys.readouterr().err
    assert np.array_equal(read_transform(kept).moving_from_fixed_lps, np.eye(4))
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("refused.nii", "the name of a transform must end in .tfm or .txt"),
        ("out/ct_to_mri.tfm", "two results would be written to this file"),
        ("start.tfm", "is one of the inputs (the transform)"),
        ("file/refused.tfm", "cannot write there"),
    ],
)
def test_bad_name_for_a_refused_pose_fails_early(
    inputs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str, words: str
) -> None:
    (tmp_path / "file").write_text("mine", encoding="utf-8")
    (tmp_path / "start.tfm").write_bytes((inputs / "true.tfm").read_bytes())
    command = ["fuse", str(inputs / "ct.nii.gz"), str(inputs / "mri.nii.gz"), "-o", str(tmp_path / "out")]
    command += ["--transform", str(tmp_path / "start.tfm"), "--keep-refused", str(tmp_path / name)]
    assert cli.main(command) == 2
    said = capsys.readouterr().err
    assert words in said
    assert "registration" not in said
    assert sorted(p.name for p in tmp_path.iterdir()) == ["file", "start.tfm"]


def test_only_refused_poses_are_kept(inputs: Path, tmp_path: Path) -> None:
    assert fuse_unregistered(inputs, tmp_path / "out", "--keep-refused", str(tmp_path / "kept" / "refused.tfm")) == 0
    assert not (tmp_path / "kept").exists()


def test_affine_transform_is_used_unchanged_with_a_note(
    pair: PhantomPair, inputs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    stretched = AffineTransform(pair.transform.moving_from_fixed_lps @ np.diag([1, 1, 0.98, 1]))
    write_transform(stretched, tmp_path / "a.tfm")
    output = tmp_path / "out"
    assert fuse_unregistered(inputs, output, "--transform", str(tmp_path / "a.tfm")) == 0
    said = capsys.readouterr().out
    assert "note: the transform given is not rigid but affine" in said
    assert "+2.04 % feet-head" in said
    written = read_transform(output / "ct_to_mri.tfm", rigid=False)
    assert np.allclose(written.moving_from_fixed_lps, stretched.moving_from_fixed_lps, rtol=1e-12, atol=1e-12)
    result = json.loads((output / "result.json").read_text(encoding="utf-8"))
    assert result["pose"]["transform"]["class"] == "AffineTransform"
    assert any("not rigid but affine" in note for note in result["notes"])
    assert "affine and not rigid" in (output / "report.html").read_text(encoding="utf-8")


def test_a_starting_pose_has_to_be_rigid(inputs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_transform(AffineTransform(np.diag([1, 1, 0.9, 1])), tmp_path / "a.tfm")
    command = [str(inputs / "ct.nii.gz"), str(inputs / "mri.nii.gz"), "--transform", str(tmp_path / "a.tfm")]
    for name, output in (("fuse", "out"), ("register", "t.tfm")):
        assert cli.main([name, *command, "-o", str(tmp_path / output)]) == 2
        assert "a.tfm: a rigid transform is needed, but this one scales or shears" in capsys.readouterr().err


def test_a_wrong_voxel_size_is_found_by_a_similarity(
    pair: PhantomPair, inputs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    # The MRI's header says 3 % too much: its head looks larger than it is, and the CT has to grow.
    grid = pair.mri.grid
    size, direction = grid.size_ijk, grid.direction
    wrong = Grid(size, (4.12, 4.12, 4.12), tuple(1.03 * x for x in grid.origin_lps_mm), direction)
    write_volume(Volume(pair.mri.array_kji, wrong, "MR"), tmp_path / "mri.nii.gz")
    command = ["register", str(inputs / "ct.nii.gz"), str(tmp_path / "mri.nii.gz"), "-o", str(tmp_path / "t.tfm")]
    command += ["--json", str(tmp_path / "q.json"), "--preset", "fast"]
    assert cli.main([*command, "--model", "similarity"]) == 0
    said = capsys.readouterr().out
    assert "not rigid but similarity" in said
    found = read_transform(tmp_path / "t.tfm", rigid=False)
    assert found.kind == "similarity"
    assert found.scales[0] == pytest.approx(1.03, abs=0.005)
    points = 1.03 * pair.target_points()
    assert np.linalg.norm(found.apply(points) - pair.transform.apply(points / 1.03), axis=1).max() < 1.5
    stored = read_record(tmp_path / "q.json")
    assert np.allclose(stored.pose.transform.moving_from_fixed_lps, found.moving_from_fixed_lps, atol=1e-12)
    assert stored.pose.rigid.kind == "rigid"
    assert stored.verdict.expected_error_mm > 0


@pytest.mark.parametrize(("command", "output"), [("fuse", "out"), ("register", "t.tfm")])
def test_mask_and_model_are_used_and_refused_pose_kept(
    pair: PhantomPair, inputs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str], command: str, output: str,
) -> None:  # fmt: skip
    asked: dict[str, object] = {}

    def refuse(ct: Volume, mri: Volume, settings: RegistrationSettings, **options: object) -> None:
        asked.update(options, model=settings.model)
        raise RegistrationError("these are two people", pair.transform)

    monkeypatch.setattr(registration, "register", refuse)
    mask = pair.mri.with_array(pair.mri.array_kji > 100)
    write_volume(mask, tmp_path / "mask.nrrd")
    arguments = [command, str(inputs / "ct.nii.gz"), str(inputs / "mri.nii.gz"), "-o", str(tmp_path / output)]
    arguments += ["--mri-mask", str(tmp_path / "mask.nrrd"), "--model", "affine"]
    assert cli.main([*arguments, "--keep-refused", str(tmp_path / "refused.tfm")]) == 3
    assert asked["model"] == "affine"
    assert isinstance(asked["mri_mask"], Volume)
    assert np.array_equal(asked["mri_mask"].array_kji, mask.array_kji)
    assert capsys.readouterr().err.endswith(
        f"brainfusion: these are two people\nOnly the refused pose was written, for inspection and not for use: "
        f"{tmp_path / 'refused.tfm'}\n"
    )
    kept = read_transform(tmp_path / "refused.tfm").moving_from_fixed_lps
    assert np.allclose(kept, pair.transform.moving_from_fixed_lps, rtol=1e-12, atol=1e-12)
    assert {p.name for p in tmp_path.iterdir()} == {"mask.nrrd", "refused.tfm"}


@pytest.mark.parametrize("command", ["fuse", "register"])
def test_unusable_mask_gives_exit_code_2(
    inputs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], command: str
) -> None:
    arguments = [command, str(inputs / "ct.nii.gz"), str(inputs / "mri.nii.gz"), "-o", str(tmp_path / "new" / "a.tfm")]
    mri = read_volume(inputs / "mri.nii.gz")
    write_volume(mri.with_array(np.zeros_like(mri.array_kji)), tmp_path / "empty.nrrd")
    other = Grid(mri.grid.size_ijk, mri.grid.spacing_ijk_mm, (0.0, 0.0, 0.0))
    write_volume(Volume(mri.array_kji, other), tmp_path / "other.nrrd")
    for name, words in (("empty", "is empty"), ("other", "is not on the grid of the MRI"), ("gone", "no such file")):
        assert cli.main([*arguments, "--mri-mask", str(tmp_path / f"{name}.nrrd")]) == 2
        said = capsys.readouterr().err
        assert f"{name}.nrrd" in said
        assert words in said
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize("option", [("--model", "affine"), ("--align", "brain"), ("--mri-mask", "mask.nii.gz")])
def test_what_only_the_registration_heeds_is_refused_without_one(
    inputs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], option: tuple[str, str]
) -> None:
    assert fuse_unregistered(inputs, tmp_path / "out", *option) == 2
    assert f"{option[0]} only applies to registration, which --no-register omits" in capsys.readouterr().err


def test_no_register_uses_the_positions_in_the_files(inputs: Path, tmp_path: Path) -> None:
    mri = str(inputs / "mri.nii.gz")
    assert cli.main(["fuse", str(inputs / "ct.nii.gz"), mri, "-o", str(tmp_path), "--no-register"]) == 0
    assert np.array_equal(read_transform(tmp_path / "ct_to_mri.tfm").moving_from_fixed_lps, np.eye(4))


def test_register_writes_the_transform_and_its_quality(pair: PhantomPair, inputs: Path, tmp_path: Path) -> None:
    code = cli.main(
        ["register", str(inputs / "ct.nii.gz"), str(inputs / "mri.nii.gz"), "-o", str(tmp_path / "t.tfm"),
         "--json", str(tmp_path / "q.json"), "--transform", str(inputs / "true.tfm"), "--preset", "fast"]
    )  # fmt: skip
    assert code == 0
    found = read_transform(tmp_path / "t.tfm")
    assert target_registration_errors_mm(found, pair.transform, pair.target_points()).max() < 1.5
    stored = read_record(tmp_path / "q.json")
    assert stored.evidence.pose.overlap > 0.8
    assert stored.evidence.skull is not None
    assert stored.request.ct == Source("CT", sha256=sha256_of(inputs / "ct.nii.gz"))
    assert stored.volumes is None


def test_register_writes_a_bone_and_its_record_and_names_all_files(inputs, tmp_path, capsys) -> None:
    names = [tmp_path / name for name in ("bone.nrrd", "r.json", "t.tfm")]
    options = [f"--bone={names[0]}", f"--json={names[1]}", "--no-register", f"--transform={inputs / 'true.tfm'}"]
    ct, mri = str(inputs / "ct.nii.gz"), str(inputs / "mri.nii.gz")
    code = cli.main(["register", ct, mri, "-o", str(names[2]), *options])
    assert code == 0
    assert read_volume(names[0]).array_kji.max() == 1
    recorded = read_record(names[1]).bone
    assert recorded.volume_ml > 0
    assert recorded.labels is None
    assert capsys.readouterr().out.splitlines()[-3:] == [f"  {name}" for name in names]


def test_file_names_are_hidden_and_pictures_are_optional(inputs: Path, tmp_path: Path) -> None:
    named = [tmp_path / "DOE^JANE.nii.gz", tmp_path / "DOE^JANE^1970.nii.gz"]
    for source, target in zip(("ct.nii.gz", "mri.nii.gz"), named, strict=True):
        target.write_bytes((inputs / source).read_bytes())
    words = ["fuse", *map(str, named), "--no-register", "--transform", str(inputs / "true.tfm")]
    assert cli.main([*words, "-o", str(tmp_path / "plain"), "--pictures"]) == 0
    for path in (tmp_path / "plain").rglob("*"):
        if path.is_file():
            content = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
            assert b"DOE^JANE" not in content, path
    request = read_record(tmp_path / "plain" / "result.json").request
    assert [replace(source, sha256=None) for source in (request.ct, request.mri)] == [Source("CT"), Source("MRI")]
    pictures = sorted(path.name for path in (tmp_path / "plain" / "pictures").iterdir())
    assert len(pictures) == 15
    assert "coronal-checkerboard.png" in pictures
    assert cli.main([*words, "-o", str(tmp_path / "plain"), "--identify"]) == 0
    assert "DOE^JANE^1970" in (tmp_path / "plain" / "report.html").read_text(encoding="utf-8")
    assert not (tmp_path / "plain" / "pictures").exists()  # the earlier result's


def test_itk_resamples_the_ct_with_the_transform_file(inputs: Path, fused: Path) -> None:
    ct, mri = (sitk.ReadImage(str(inputs / n), sitk.sitkFloat32) for n in ("ct.nii.gz", "mri.nii.gz"))
    transform = sitk.ReadTransform(str(fused / "ct_to_mri.tfm"))
    by_itk = sitk.GetArrayFromImage(sitk.Resample(ct, mri, transform, sitk.sitkLinear, -1000.0))
    ours = sitk.GetArrayFromImage(sitk.ReadImage(str(fused / "ct_in_mri.nii.gz")))
    assert np.abs(by_itk - ours)[2:-2, 2:-2, 2:-2].max() <= 0.51


def test_doctor_and_version_answer(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["doctor"]) == 0
    assert "graphics cards" in capsys.readouterr().out
    with pytest.raises(SystemExit) as caught:
        cli.main(["--version"])
    assert caught.value.code == 0
    assert BrainFusionLib.__version__ in capsys.readouterr().out


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (
            ["fuse", "a", "b", "--presets", "fast", "-o", "o"],
            "unrecognized arguments: --presets fast. Did you mean --preset?",
        ),
        (["fuse", "a"], "required: MRI, -o/--output.\nUsage: brainfusion fuse CT MRI -o FOLDER [OPTION ...]"),
        (
            ["error", "a", "--at", "1"],
            "brainfusion error: argument --at: expected 3 arguments.\nUsage: brainfusion error RESULT",
        ),
        (["fusee"], "Did you mean fuse?"),
        (["fuse", "a", "b", "-o", "o", "--rule", "averge"], "Did you mean average?"),
        (
            ["fuse", "a", "b", "-o", "o", "--ct-offset", "nan"],
            "--ct-offset: must be a number, for example 1024; got 'nan'",
        ),
        ([], "Usage: brainfusion COMMAND [OPTION ...]"),
    ],
)
def test_wrong_arguments_are_named_in_two_lines(
    given: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as caught:
        cli.main(given)
    message = capsys.readouterr().err
    assert caught.value.code == 2
    assert said in message
    assert len(message.splitlines()) == 2


def test_sample_is_written_once_and_never_over_other_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from BrainFusionLib.cli import sample

    monkeypatch.setattr(sample, "make_sample", lambda: make_pair(7, spacing_mm=12.0))
    folder = tmp_path / "sample"
    assert cli.main(["sample", "-o", str(folder)]) == 0
    assert [path.name for path in sorted(folder.iterdir())] == ["ct.nrrd", "mri.nrrd"]
    assert cli.main(["sample", "-o", str(folder)]) == 2
    assert "is there already. Name another output folder with -o." in capsys.readouterr().err


def test_doctors_json_is_what_the_documentation_lists(capsys: pytest.CaptureFixture[str]) -> None:
    from BrainFusionLib.cli.doctor import FIELDS

    assert cli.main(["doctor", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["ready"]
    found["problems"] = [{"problem": "", "remedy": "", "fatal": False}]
    names = []
    for name, value in found.items():
        inner, mark = (value[0], "[]") if isinstance(value, list) and value else (value, "")
        names += [f"{name}{mark}.{key}" for key in inner] if isinstance(inner, dict) else [name]
    assert sorted(names) == sorted(name for name, _ in FIELDS)


def test_doctor_names_the_packages_to_install_where_python_has_none() -> None:
    code = "import sys; sys.path.insert(0, sys.argv[1]); from BrainFusionLib.cli import main; "
    code += "raise SystemExit(main(['doctor']))"
    root = Path(BrainFusionLib.__file__).parents[1]
    done = subprocess.run([sys.executable, "-I", "-S", "-c", code, root], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (1, "")
    assert "numpy is not installed. Remedy: pip install numpy.\n" in done.stdout
    assert done.stdout.endswith("Not ready.\n")


def test_progress_is_one_line_on_terminals_and_plain_in_logs() -> None:
    import io

    from BrainFusionLib.console import ProgressLine

    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    for stream, newlines in ((Terminal(), 0), (io.StringIO(), 2)):
        with ProgressLine(stream) as progress:
            for stage in ("registration", "fusion"):
                for fraction in (0.0, 0.5, 1.0):
                    progress(stage, fraction)
        assert stream.getvalue().count("\n") == newlines
        assert "registration" in stream.getvalue()
        assert "fusion" in stream.getvalue()


# ---- wrong inputs -------------------------------------------------------------------------------------------------


def make_missing(folder: Path, pair: PhantomPair) -> Path:
    return folder / "nowhere.nii.gz"


def make_text(folder: Path, pair: PhantomPair) -> Path:
    (folder / "notes.nii.gz").write_text("not an image", encoding="utf-8")
    return folder / "notes.nii.gz"


def make_2d(folder: Path, pair: PhantomPair) -> Path:
    sitk.WriteImage(sitk.GetImageFromArray(pair.ct.array_kji[30]), str(folder / "flat.mha"))
    return folder / "flat.mha"


def make_4d(folder: Path, pair: PhantomPair) -> Path:
    stack = sitk.JoinSeries([sitk.GetImageFromArray(pair.ct.array_kji)] * 2)
    sitk.WriteImage(stack, str(folder / "series.nii.gz"))
    return folder / "series.nii.gz"


def make_constant(folder: Path, pair: PhantomPair) -> Path:
    write_volume(pair.ct.with_array(np.full_like(pair.ct.array_kji, -1000)), folder / "empty.nii.gz")
    return folder / "empty.nii.gz"


def make_infinite(folder: Path, pair: PhantomPair) -> Path:
    array = pair.ct.array_kji.copy()
    array[20, 20, 20] = np.inf
    write_volume(pair.ct.with_array(array), folder / "hole.nii.gz")
    return folder / "hole.nii.gz"


def make_zero_spacing(folder: Path, pair: PhantomPair) -> Path:
    write_volume(pair.ct, folder / "flattened.nii")
    data = bytearray((folder / "flattened.nii").read_bytes())
    data[76 + 4 * 3 : 76 + 4 * 4] = bytes(4)  # pixdim[3]
    (folder / "flattened.nii").write_bytes(bytes(data))
    return folder / "flattened.nii"


def make_empty_folder(folder: Path, pair: PhantomPair) -> Path:
    (folder / "dicom").mkdir()
    (folder / "dicom" / "readme.txt").write_text("no images here", encoding="utf-8")
    return folder / "dicom"


WRONG = {
    make_missing: "nowhere.nii.gz",
    make_text: "notes.nii.gz",
    make_2d: "flat.mha",
    make_4d: "series.nii.gz",
    make_constant: "empty.nii.gz",
    make_infinite: "hole.nii.gz",
    make_zero_spacing: "flattened.nii",
    make_empty_folder: "dicom",
}


@pytest.mark.parametrize("make", list(WRONG), ids=lambda m: m.__name__)
@pytest.mark.parametrize("role", ["ct", "mri"])
def test_wrong_input_is_named_with_exit_code_2(
    make: object, role: str, pair: PhantomPair, inputs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    wrong = make(tmp_path, pair)  # type: ignore[operator]
    paths = {"ct": inputs / "ct.nii.gz", "mri": inputs / "mri.nii.gz", role: wrong}
    output = tmp_path / "out" / "deep"
    assert cli.main(["fuse", str(paths["ct"]), str(paths["mri"]), "-o", str(output)]) == 2
    message = capsys.readouterr().err
    assert WRONG[make] in message  # type: ignore[index]
    assert "Traceback" not in message
    assert len(message.splitlines()) <= 12
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("given", [["", "b", "-o", "o"], ["a", "", "-o", "o"], ["a", "b", "-o", ""]])
def test_empty_path_is_not_the_folder_of_the_command(given: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["fuse", *given]) == 2
    assert "is empty. Was a variable of the shell not set?" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("given", "words"),
    [
        (["fuse", "a", "b", "-o", "o", "--transform", ""], "the argument after --transform is empty"),
        (["fuse", "a", "b", "-o", "o", "--transform="], "--transform is empty"),
        (["fuse", "a", "b", "-o", "o", "--landmarks", "c.fcsv", ""], "the argument after c.fcsv is empty"),
        (["slices", "", "", "-o", "o"], "the argument after slices is empty"),
    ],
)
def test_an_empty_option_is_refused_and_not_left_out(
    given: list[str], words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(given) == 2
    assert f"brainfusion: {words}. Was a variable" in capsys.readouterr().err


def test_swapped_and_equal_inputs_are_errors(inputs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    ct, mri = str(inputs / "ct.nii.gz"), str(inputs / "mri.nii.gz")
    assert cli.main(["fuse", mri, ct, "-o", str(tmp_path / "a")]) == 2
    assert "swapped" in capsys.readouterr().err
    assert cli.main(["fuse", ct, ct, "-o", str(tmp_path / "a")]) == 2
    assert "both as CT and as MRI" in capsys.readouterr().err
    assert not (tmp_path / "a").exists()


def test_unknown_weights_and_wrong_transforms_are_errors(
    inputs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert fuse_unregistered(inputs, tmp_path / "a", "--weights", "the_best") == 2
    assert "fusion_net_alpha" in capsys.readouterr().err
    (tmp_path / "bad.tfm").write_text("nonsense", encoding="utf-8")
    assert fuse_unregistered(inputs, tmp_path / "a", "--transform", str(tmp_path / "bad.tfm")) == 2
    assert "bad.tfm" in capsys.readouterr().err
    assert not (tmp_path / "a").exists()


def test_output_that_is_a_file_is_an_error_and_kept(
    inputs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "out").write_text("mine", encoding="utf-8")
    assert fuse_unregistered(inputs, tmp_path / "out") == 2
    assert f"{tmp_path / 'out'}: cannot write there (it is a file). Name another" in capsys.readouterr().err
    assert (tmp_path / "out").read_text(encoding="utf-8") == "mine"


@pytest.mark.parametrize("to", ["out", "nowhere"])
def test_output_that_is_a_link_to_itself_or_to_nothing_is_an_error(
    inputs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], to: str
) -> None:
    (tmp_path / "out").symlink_to(tmp_path / to)
    assert fuse_unregistered(inputs, tmp_path / "out") == 2
    assert f"{tmp_path / 'out'}: cannot write there (it is a link to nothing). Name another" in capsys.readouterr().err


@pytest.mark.skipif(not Path("/proc/self").exists(), reason="needs Linux's /proc, where nobody can make a folder")
def test_output_without_write_permission_is_an_error(inputs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert fuse_unregistered(inputs, Path("/proc/brainfusion-results")) == 2
    message = capsys.readouterr().err
    assert "/proc/brainfusion-results: cannot write there" in message
    assert "-o" in message


def test_two_series_are_listed_and_series_chooses(
    inputs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "dicom"
    folder.mkdir()
    small = make_pair(3, spacing_mm=12.0)
    for number, volume in ((3, small.ct), (7, small.mri)):
        write_dicom_series(folder, volume, number)
    ct, mri = str(inputs / "ct.nii.gz"), str(folder)
    assert cli.main(["fuse", ct, mri, "-o", str(tmp_path / "out"), "--no-register"]) == 2
    message = capsys.readouterr().err
    assert "--mri-series" in message
    assert "CT" in message
    assert "MR" in message
    assert cli.main(["fuse", ct, mri, "-o", str(tmp_path / "out"), "--no-register", "--series", "7"]) == 0
    assert cli.main(["fuse", mri, mri, "-o", str(tmp_path / "two"), "--no-register", "--series", "7"]) == 2
    assert "--ct-series" in capsys.readouterr().err
    assert cli.main(["fuse", mri, mri, "-o", str(tmp_path / "two"), "--no-register"]) == 2
    message = capsys.readouterr().err
    assert "was given both as CT and as MRI. Choose a series for each with --ct-series" in message
    assert "\n  1. series 3" in message
    assert "\n  2. series 7" in message
    both = ["fuse", mri, mri, "-o", str(tmp_path / "two"), "--no-register", "--ct-series", "3", "--mri-series", "7"]
    assert cli.main(both) == 0
    for name in ("report.html", "result.json"):
        written = (tmp_path / "two" / name).read_text(encoding="utf-8")
        assert "Planted" not in written
        assert "PATIENT-1" not in written


def write_dicom_series(folder: Path, volume: Volume, number: int) -> None:
    """Write a plain axial series, one file a slice, with a name planted in it."""
    from pydicom.dataset import FileDataset, FileMetaDataset
    from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian, MRImageStorage, generate_uid

    series, frame = generate_uid(), generate_uid()
    storage = CTImageStorage if volume.modality == "CT" else MRImageStorage
    for k, pixels in enumerate(np.rint(volume.array_kji).astype(np.int16)):
        meta = FileMetaDataset()
        meta.TransferSyntaxUID, meta.MediaStorageSOPClassUID = ExplicitVRLittleEndian, storage
        meta.MediaStorageSOPInstanceUID = generate_uid()
        image = FileDataset("", {}, file_meta=meta, preamble=b"\0" * 128)
        image.PatientName, image.PatientID = "Patient^Planted", "PATIENT-1"
        image.SOPClassUID, image.SOPInstanceUID = storage, meta.MediaStorageSOPInstanceUID
        image.Modality, image.SeriesInstanceUID, image.SeriesNumber = volume.modality, series, number
        image.FrameOfReferenceUID, image.InstanceNumber = frame, k + 1
        image.SeriesDescription = f"series {number}"
        image.ImagePositionPatient = list((volume.grid.lps_from_ijk @ [0, 0, k, 1])[:3].round(6))
        image.ImageOrientationPatient = [1, 0, 0, 0, 1, 0]
        i, j, thick = volume.grid.spacing_ijk_mm
        image.PixelSpacing, image.SliceThickness = [j, i], thick
        image.Rows, image.Columns = pixels.shape
        image.SamplesPerPixel, image.PhotometricInterpretation = 1, "MONOCHROME2"
        image.BitsAllocated, image.BitsStored, image.HighBit, image.PixelRepresentation = 16, 16, 15, 1
        image.RescaleSlope, image.RescaleIntercept = 1, 0
        image.PixelData = pixels.tobytes()
        image.save_as(folder / f"{number}-{k}.dcm", enforce_file_format=True)


# ---- half way -----------------------------------------------------------------------------------------------------


@pytest.mark.skipif(os.name == "nt", reason="signals and file size limits are POSIX's")
@pytest.mark.parametrize(
    ("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143), (getattr(signal, "SIGHUP", 0), 143)]
)
def test_an_interrupted_run_leaves_nothing(inputs: Path, tmp_path: Path, number: signal.Signals, code: int) -> None:
    output = tmp_path / "out"
    # A test run in the background of a shell inherits that Ctrl-C is ignored.
    prelude = (
        "import signal; signal.signal(signal.SIGINT, signal.default_int_handler); "
        "signal.signal(signal.SIGHUP, signal.SIG_DFL)"
    )
    process = in_a_process("fuse", inputs / "ct.nii.gz", inputs / "mri.nii.gz", "-o", output, prelude=prelude)
    assert process.stderr is not None
    for line in process.stderr:  # until it is in the middle of its work
        if "registration" in line:
            break
    process.send_signal(number)
    _, rest = process.communicate(timeout=60)
    assert process.returncode == code
    assert "Traceback" not in rest
    assert not output.exists()


@pytest.mark.skipif(os.name == "nt", reason="pipes of POSIX")
def test_closed_output_does_not_stop_the_work(inputs: Path, tmp_path: Path) -> None:
    words = ("fuse", inputs / "ct.nii.gz", inputs / "mri.nii.gz", "-o", tmp_path, "--no-register")
    with in_a_process(*words) as process:
        assert process.stdout is not None
        process.stdout.close()
        assert process.stderr is not None
        said = process.stderr.read()
    assert process.returncode == 0
    assert "Traceback" not in said
    assert "BrokenPipe" not in said
    assert (tmp_path / "result.json").exists()


@pytest.mark.skipif(os.name == "nt", reason="signals and file size limits are POSIX's")
def test_full_disk_leaves_the_earlier_result_unchanged(inputs: Path, fused: Path, tmp_path: Path) -> None:
    shutil.copytree(fused, tmp_path, dirs_exist_ok=True)
    before = {p.name: p.read_bytes() for p in tmp_path.iterdir()}
    # No file may grow beyond 300 kB: the fused volume does not fit, as on a disk that is full half way.
    prelude = (
        "import resource, signal, sys; signal.signal(signal.SIGXFSZ, signal.SIG_IGN); "
        "sys.dont_write_bytecode = True; "  # Python 3.11 would keep the half of it
        "resource.setrlimit(resource.RLIMIT_FSIZE, (300_000, 300_000))"
    )
    process = in_a_process(
        "fuse", inputs / "ct.nii.gz", inputs / "mri.nii.gz", "-o", tmp_path, "--no-register", prelude=prelude
    )
    _, message = process.communicate(timeout=60)
    assert process.returncode == 2, message
    assert "fused.nii.gz" in message
    assert "Traceback" not in message
    assert {p.name: p.read_bytes() for p in tmp_path.iterdir()} == before


def test_unrelated_head_gives_exit_code_3(
    pair: PhantomPair, inputs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    corner = Volume(pair.ct.array_kji[-10:, :12, :12], Grid((12, 12, 10), (3.0, 3.0, 3.0)), "CT")
    corner = corner.with_array(np.where(np.indices(corner.array_kji.shape).sum(axis=0) > 16, 40, -1000.0) + np.random.default_rng(0).normal(0, 9, corner.array_kji.shape))  # fmt: skip  # noqa: E501
    corner.array_kji[8, -4:, -4:] = 900  # some bone, without which it would be no CT
    write_volume(corner, tmp_path / "corner.nii.gz")
    code = cli.main(
        ["register", str(tmp_path / "corner.nii.gz"), str(inputs / "mri.nii.gz"), "-o", str(tmp_path / "t.tfm"),
         "--preset", "fast", "--json", str(tmp_path / "q.json"), "--keep-refused", str(tmp_path / "refused.tfm")]
    )  # fmt: skip
    assert code == 3
    said = capsys.readouterr().err
    assert "mri.nii.gz and corner.nii.gz could not be aligned" in said
    assert "Only the refused pose was written" in said
    assert read_transform(tmp_path / "refused.tfm").kind == "rigid"
    assert {p.name for p in tmp_path.iterdir()} == {"corner.nii.gz", "refused.tfm"}


@pytest.mark.parametrize("options", [["--grid", "ct"], ["--grid", "5", "--reference", "ct"]])
def test_grid_and_reference_are_those_of_the_options(inputs: Path, tmp_path: Path, options: list[str]) -> None:
    assert fuse_unregistered(inputs, tmp_path, "--rule", "bone_over_mri", *options) == 0
    names = ("fused.nii.gz", "ct_in_mri.nii.gz" if len(options) == 2 else "ct.nii.gz")
    fused, ct = (sitk.ReadImage(str(tmp_path / name)) for name in names)
    file = sitk.ReadImage(str(inputs / "ct.nii.gz"))
    assert fused.GetSize() == ct.GetSize()
    if len(options) == 2:
        assert np.array_equal(sitk.GetArrayFromImage(ct), sitk.GetArrayFromImage(file))
    else:
        assert np.allclose(fused.GetSpacing(), 5)
        assert np.allclose(fused.GetOrigin(), file.GetOrigin(), atol=1e-4)


@pytest.mark.parametrize("grid", ["mr", "0", "-1", "nan"])
def test_a_grid_that_is_none_is_explained(
    inputs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], grid: str
) -> None:
    assert fuse_unregistered(inputs, tmp_path / "out", f"--grid={grid}") == 2
    assert re.search("grid|voxels", capsys.readouterr().err)
    assert not (tmp_path / "out").exists()


def test_register_with_the_ct_as_reference_writes_the_inverse(pair: PhantomPair, inputs: Path, tmp_path: Path) -> None:
    files = [str(inputs / name) for name in ("ct.nii.gz", "mri.nii.gz")]
    out = ["-o", str(tmp_path / "a.tfm"), "--json", str(tmp_path / "a.json")]
    given = ["--no-register", "--transform", str(inputs / "true.tfm"), "--reference", "ct"]
    assert cli.main(["register", *files, *out, *given]) == 0
    found = read_transform(tmp_path / "a.tfm")
    assert np.allclose(found.moving_from_fixed_lps, pair.transform.inverse().moving_from_fixed_lps, atol=1e-9)
    record = json.loads((tmp_path / "a.json").read_text(encoding="utf-8"))
    assert record["output"]["transform_moves"].startswith("the MRI onto the CT")


def test_the_help_of_the_command_loads_no_other_package():
    code = (
        "import sys; sys.argv = ['brainfusion', '--help']\nfrom BrainFusionLib.cli import main\n"
        "try: main()\nexcept SystemExit as end: assert not end.code\n"
        "print(*sorted({'numpy', 'SimpleITK', 'torch', 'multiprocessing'} & set(sys.modules)), file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stderr.strip() == ""
    assert all(name in done.stdout for name in COMMANDS)


def test_the_lines_of_the_help_are_those_of_the_commands():
    whole, quick = (make_parser(command).format_help() for command in (None, ""))
    assert whole == quick
