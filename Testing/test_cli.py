"""The console command as its user meets it: files in, a folder out, a message and an exit code when that cannot be."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk

import BrainFusionLib
from BrainFusionLib import cli, read_transform, read_volume, write_transform, write_volume
from BrainFusionLib.geometry import Grid
from BrainFusionLib.metrics import target_registration_errors_mm
from BrainFusionLib.phantom import PhantomPair, make_pair
from BrainFusionLib.volume import Volume

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="module")
def pair() -> PhantomPair:
    return make_pair(3, spacing_mm=3.0)


@pytest.fixture(scope="module")
def inputs(pair: PhantomPair, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with ct.nii.gz, mri.nii.gz and true.tfm."""
    folder = tmp_path_factory.mktemp("inputs")
    write_volume(pair.ct, folder / "ct.nii.gz")
    write_volume(pair.mri, folder / "mri.nii.gz")
    write_transform(pair.transform, folder / "true.tfm")
    return folder


def fuse_unregistered(inputs: Path, output: Path, *options: str) -> int:
    """Fuse at the true pose: fast, for tests that are not about registration."""
    return cli.main(
        ["fuse", str(inputs / "ct.nii.gz"), str(inputs / "mri.nii.gz"), "-o", str(output),
         "--no-register", "--transform", str(inputs / "true.tfm"), *options]
    )  # fmt: skip


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
    assert np.allclose(result["transform"]["moving_from_fixed_lps"], found.moving_from_fixed_lps, atol=1e-12)
    assert result["verdict"]["colour"] in ("amber", "red")
    assert set(result["timings_s"]) == {"registration", "resampling", "fusion", "writing"}
    assert result["versions"]["brainfusion"] == BrainFusionLib.__version__
    assert "not for diagnosis" in result["warning"]
    assert "not for diagnosis" in (output / "report.html").read_text(encoding="utf-8")


@pytest.mark.parametrize("file_format", ["nrrd", "mha"])
def test_the_volumes_come_in_the_format_asked_for(inputs: Path, tmp_path: Path, file_format: str) -> None:
    assert fuse_unregistered(inputs, tmp_path, "--format", file_format) == 0
    assert read_volume(tmp_path / f"fused.{file_format}").grid.same_as(read_volume(inputs / "mri.nii.gz").grid, 1e-3)


def test_a_second_run_replaces_the_first(inputs: Path, tmp_path: Path) -> None:
    assert fuse_unregistered(inputs, tmp_path) == 0
    assert fuse_unregistered(inputs, tmp_path, "--rule", "average") == 0
    assert json.loads((tmp_path / "result.json").read_text(encoding="utf-8"))["rule"] == "average"
    assert len(list(tmp_path.iterdir())) == 5
    (tmp_path / "mine.nii.gz").write_bytes(b"kept")
    assert fuse_unregistered(inputs, tmp_path, "--format", "mha") == 0
    names = {"fused.mha", "ct_in_mri.mha", "ct_to_mri.tfm", "report.html", "result.json", "mine.nii.gz"}
    assert {p.name for p in tmp_path.iterdir()} == names


def test_a_folder_in_the_place_of_a_result_is_told(
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


def test_an_nrrd_whose_name_is_not_utf8_is_refused_in_words(
    inputs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    odd = os.fsdecode(os.fsencode(tmp_path) + b"/M\xfcller.nrrd")
    assert cli.main(["fuse", odd, str(inputs / "mri.nii.gz"), "-o", str(tmp_path / "out")]) == 2
    assert "not UTF-8" in capsys.readouterr().err


def test_a_name_that_is_not_utf8_is_no_obstacle(inputs: Path, tmp_path: Path) -> None:
    odd = Path(os.fsdecode(os.fsencode(tmp_path) + b"/M\xfcller ct.nii.gz"))
    try:
        odd.write_bytes((inputs / "ct.nii.gz").read_bytes())
    except OSError:
        pytest.skip("this file system takes UTF-8 names only")
    command = ["fuse", str(odd), str(inputs / "mri.nii.gz"), "-o", str(tmp_path / "out"), "--no-register"]
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


def test_heads_apart_end_with_exit_code_3_and_nothing_written(
    pair: PhantomPair, inputs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    grid = Grid(pair.ct.grid.size_ijk, pair.ct.grid.spacing_ijk_mm, (5000.0, 0.0, 0.0))
    write_volume(Volume(pair.ct.array_kji, grid, "CT"), tmp_path / "far.nii.gz")
    command = ["fuse", str(tmp_path / "far.nii.gz"), str(inputs / "mri.nii.gz"), "-o", str(tmp_path / "out")]
    assert cli.main([*command, "--no-register"]) == 3
    assert "do not lie on each other" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_no_register_without_a_transform_uses_the_positions_in_the_files(inputs: Path, tmp_path: Path) -> None:
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
    quality = json.loads((tmp_path / "q.json").read_text(encoding="utf-8"))
    assert quality["quality"]["overlap"] > 0.8
    assert quality["case"] == {"ct": "ct.nii.gz", "mri": "mri.nii.gz"}


def test_the_itk_transform_moves_the_ct_onto_the_mri_in_itk_itself(inputs: Path, tmp_path: Path) -> None:
    assert fuse_unregistered(inputs, tmp_path) == 0
    ct, mri = (sitk.ReadImage(str(inputs / n), sitk.sitkFloat32) for n in ("ct.nii.gz", "mri.nii.gz"))
    transform = sitk.ReadTransform(str(tmp_path / "ct_to_mri.tfm"))
    by_itk = sitk.GetArrayFromImage(sitk.Resample(ct, mri, transform, sitk.sitkLinear, -1000.0))
    ours = sitk.GetArrayFromImage(sitk.ReadImage(str(tmp_path / "ct_in_mri.nii.gz")))
    assert np.abs(by_itk - ours)[2:-2, 2:-2, 2:-2].max() <= 0.51


def test_doctor_and_version_answer(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["doctor"]) == 0
    assert "torch" in capsys.readouterr().out
    with pytest.raises(SystemExit) as caught:
        cli.main(["--version"])
    assert caught.value.code == 0
    assert BrainFusionLib.__version__ in capsys.readouterr().out


def test_progress_is_one_line_on_a_terminal_and_plain_lines_in_a_log() -> None:
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


def make_nan(folder: Path, pair: PhantomPair) -> Path:
    array = pair.ct.array_kji.copy()
    array[20, 20, 20] = np.nan
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
    make_nan: "hole.nii.gz",
    make_zero_spacing: "flattened.nii",
    make_empty_folder: "dicom",
}


@pytest.mark.parametrize("make", list(WRONG), ids=lambda m: m.__name__)
@pytest.mark.parametrize("role", ["ct", "mri"])
def test_a_wrong_input_is_named_with_exit_code_2_and_nothing_written(
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


def test_swapped_and_same_inputs_are_told(inputs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    ct, mri = str(inputs / "ct.nii.gz"), str(inputs / "mri.nii.gz")
    assert cli.main(["fuse", mri, ct, "-o", str(tmp_path / "a")]) == 2
    assert "swapped" in capsys.readouterr().err
    assert cli.main(["fuse", ct, ct, "-o", str(tmp_path / "a")]) == 2
    assert "both as CT and as MRI" in capsys.readouterr().err
    assert not (tmp_path / "a").exists()


def test_network_without_weights_and_a_wrong_transform_are_told(
    inputs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert fuse_unregistered(inputs, tmp_path / "a", "--rule", "network") == 2
    assert "--weights" in capsys.readouterr().err
    (tmp_path / "bad.tfm").write_text("nonsense", encoding="utf-8")
    assert fuse_unregistered(inputs, tmp_path / "a", "--transform", str(tmp_path / "bad.tfm")) == 2
    assert "bad.tfm" in capsys.readouterr().err
    assert not (tmp_path / "a").exists()


def test_an_output_that_is_a_file_is_told_and_kept(
    inputs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "out").write_text("mine", encoding="utf-8")
    assert fuse_unregistered(inputs, tmp_path / "out") == 2
    assert str(tmp_path / "out") in capsys.readouterr().err
    assert (tmp_path / "out").read_text(encoding="utf-8") == "mine"


@pytest.mark.skipif(not Path("/proc/self").exists(), reason="needs Linux's /proc, where nobody can make a folder")
def test_an_output_where_nobody_may_write_is_told(inputs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert fuse_unregistered(inputs, Path("/proc/brainfusion-results")) == 2
    message = capsys.readouterr().err
    assert "/proc/brainfusion-results: cannot write there" in message
    assert "-o" in message


def test_a_folder_with_two_series_lists_them_and_series_chooses(
    pair: PhantomPair, inputs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "dicom"
    folder.mkdir()
    for number, volume in ((3, pair.ct), (7, pair.mri)):
        write_dicom_series(folder, volume, number)
    ct, mri = str(inputs / "ct.nii.gz"), str(folder)
    assert cli.main(["fuse", ct, mri, "-o", str(tmp_path / "out"), "--no-register"]) == 2
    message = capsys.readouterr().err
    assert "--series" in message
    assert "CT" in message
    assert "MR" in message
    assert cli.main(["fuse", ct, mri, "-o", str(tmp_path / "out"), "--no-register", "--series", "7"]) == 0
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
        image.PixelSpacing, image.SliceThickness = [3.0, 3.0], 3.0
        image.Rows, image.Columns = pixels.shape
        image.SamplesPerPixel, image.PhotometricInterpretation = 1, "MONOCHROME2"
        image.BitsAllocated, image.BitsStored, image.HighBit, image.PixelRepresentation = 16, 16, 15, 1
        image.RescaleSlope, image.RescaleIntercept = 1, 0
        image.PixelData = pixels.tobytes()
        image.save_as(folder / f"{number}-{k}.dcm", enforce_file_format=True)


# ---- half way -----------------------------------------------------------------------------------------------------


@pytest.mark.skipif(os.name == "nt", reason="signals and file size limits are POSIX's")
@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_an_interrupted_run_leaves_nothing(inputs: Path, tmp_path: Path, number: signal.Signals, code: int) -> None:
    output = tmp_path / "out"
    process = in_a_process("fuse", inputs / "ct.nii.gz", inputs / "mri.nii.gz", "-o", output)
    assert process.stderr is not None
    for line in process.stderr:  # until it is in the middle of its work
        if "registration" in line:
            break
    time.sleep(0.3)
    process.send_signal(number)
    _, rest = process.communicate(timeout=60)
    assert process.returncode == code
    assert "Traceback" not in rest
    assert not output.exists()


@pytest.mark.skipif(os.name == "nt", reason="signals and file size limits are POSIX's")
def test_a_disk_that_fills_up_half_way_leaves_the_earlier_result_as_it_was(inputs: Path, tmp_path: Path) -> None:
    assert fuse_unregistered(inputs, tmp_path) == 0
    before = {p.name: p.read_bytes() for p in tmp_path.iterdir()}
    # No file may grow beyond 300 kB: the fused volume does not fit, as on a disk that is full half way.
    prelude = (
        "import resource, signal; signal.signal(signal.SIGXFSZ, signal.SIG_IGN); "
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


def test_a_head_that_does_not_fit_ends_with_exit_code_3(
    pair: PhantomPair, inputs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    corner = Volume(pair.ct.array_kji[-10:, :12, :12], Grid((12, 12, 10), (3.0, 3.0, 3.0)), "CT")
    corner = corner.with_array(np.where(np.indices(corner.array_kji.shape).sum(axis=0) > 16, 40, -1000.0) + np.random.default_rng(0).normal(0, 9, corner.array_kji.shape))  # fmt: skip  # noqa: E501
    write_volume(corner, tmp_path / "corner.nii.gz")
    code = cli.main(
        ["register", str(tmp_path / "corner.nii.gz"), str(inputs / "mri.nii.gz"), "-o", str(tmp_path / "t.tfm")]
    )
    assert code == 3
    assert "overlap" in capsys.readouterr().err
    assert not (tmp_path / "t.tfm").exists()
