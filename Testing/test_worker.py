"""The worker process of the Slicer module: real processes, no Slicer."""

import importlib
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from BrainFusionLib.case import Inputs, Request, Source
from BrainFusionLib.errors import (
    BrainFusionError,
    Cancelled,
    ImageContentError,
    MissingDependencyError,
    RegistrationError,
    Remedy,
    SettingsError,
)
from BrainFusionLib.phantom import make_pair
from BrainFusionLib.settings import FusionSettings, OutputSettings, RegistrationSettings, SearchPass, Settings
from BrainFusionLib.transform import AffineTransform, RigidTransform

pytest.importorskip("torch", reason="torch is not installed")

ROOT = Path(__file__).parents[1]
sys.path.append(str(ROOT / "BrainFusion"))

from BrainFusionSlicer import jobs, torch_setup, worker  # noqa: E402
from BrainFusionSlicer.exporting import ExportInputs  # noqa: E402
from BrainFusionSlicer.job_folders import KeptFolders, remove_abandoned_folders  # noqa: E402
from BrainFusionSlicer.jobs import RawInputs, RawVolume  # noqa: E402
from BrainFusionSlicer.runner import (  # noqa: E402
    CANCELLED,
    InProcessRunner,
    ProcessRunner,
    bytes_of_job,
)

from Testing.python_slicer import is_gone, python_slicer  # noqa: E402
from Testing.report_case import result_of  # noqa: E402

QUICK = Settings(
    registration=RegistrationSettings(passes=(SearchPass(40, 8),), samples=10_000),
    fusion=FusionSettings(rule="bone_over_mri"),
    device="cpu",
    threads=1,
)


class Ticker:
    """Ticks when it is told to."""

    def __init__(self):
        self.call = None

    def start(self, call):
        self.call = call

    def stop(self):
        self.call = None

    def tick(self):
        if self.call is not None:
            self.call()


class Heard:
    """What a runner said."""

    def __init__(self):
        self.progress, self.done = [], []

    def on_progress(self, stage, fraction):
        self.progress.append((stage, fraction))

    def on_done(self, result, error):
        self.done.append((result, error))


def wait(ticker, heard, until=None, seconds=120):
    end = time.monotonic() + seconds
    while not (heard.done or (until is not None and until())):
        assert time.monotonic() < end, "the worker did not answer"
        ticker.tick()
        time.sleep(0.01)


@pytest.fixture(scope="module")
def pair():
    return make_pair(spacing_mm=4.0, rotation_deg=10.0, translation_mm=8.0)


REQUEST = Request(Source("CT 1"), Source("T1"), settings=QUICK)
AS_THEY_ARE = replace(REQUEST, given=RigidTransform.identity(), check=False)


@pytest.fixture
def inputs(pair):
    ct = RawVolume(np.rint(pair.ct.array_kji).astype(np.int16), pair.ct.grid.lps_from_ijk, "CT", "CT 1")
    return RawInputs(ct, RawVolume(pair.mri.array_kji, pair.mri.grid.lps_from_ijk, "MR", "T1"))


def timeless(result):
    """The same without what no two runs share: date, times, and SimpleITK's version, named only where it is loaded."""
    versions = {name: version for name, version in result.provenance.versions.items() if name != "SimpleITK"}
    made = replace(result.provenance, date="", timings_s={}, registration_timings_s={}, versions=versions)
    return replace(result, provenance=made)


@pytest.fixture
def ticker():
    return Ticker()


@pytest.fixture
def runner(ticker, tmp_path):
    made = ProcessRunner([python_slicer(tmp_path)], ROOT, ticker)
    yield made
    made.close()


def is_registering(heard):
    return any(stage == "registration" for stage, _ in heard.progress)


def test_a_job_that_begins_while_the_one_before_is_being_put_away_keeps_its_voxels(runner, ticker, inputs):
    """Slicer's DICOM import handles events until it is done, and the user clicks meanwhile."""
    first, second = Heard(), Heard()

    def put_away(result, error):
        first.on_done(result, error)
        runner.run(AS_THEY_ARE, inputs, second.on_progress, second.on_done)
        ticker.tick()

    runner.run(AS_THEY_ARE, inputs, first.on_progress, put_away)
    wait(ticker, first)
    wait(ticker, second)
    assert [error for _result, error in (*first.done, *second.done)] == [None, None]


def test_worker_and_own_process_give_equal_results(runner, ticker, inputs, pair):
    heard, again, here = Heard(), Heard(), Heard()
    runner.run(REQUEST, inputs, heard.on_progress, heard.on_done)
    folder = runner._folder
    assert folder.exists()
    assert runner.busy
    with pytest.raises(SettingsError, match="is running"):
        runner.run(REQUEST, inputs, heard.on_progress, heard.on_done)
    wait(ticker, heard)
    (result, error), *more = heard.done
    assert (error, more, runner.busy, ticker.call) == (None, [], False, None)
    assert {stage for stage, _ in heard.progress} >= {"registration", "resampling", "fusion"}
    off = result.transform.apply(pair.target_points()) - pair.transform.apply(pair.target_points())
    assert np.linalg.norm(off, axis=1).max() < 1.5

    child = runner.child_pid
    runner.run(REQUEST, inputs, again.on_progress, again.on_done)
    wait(ticker, again)
    assert runner.child_pid == child
    InProcessRunner().run(REQUEST, inputs, here.on_progress, here.on_done)
    expected = timeless(here.done[0][0])
    assert expected.evidence.local.worst is not None
    for other in (result, again.done[0][0]):
        assert timeless(other) == expected
    assert not folder.exists()


def test_given_pose_comes_back_with_its_evidence(runner, ticker, inputs):
    heard, here = Heard(), Heard()
    request = replace(AS_THEY_ARE, check=True, settings=replace(QUICK, fusion=FusionSettings("average"), bone=True))
    runner.run(request, inputs, heard.on_progress, heard.on_done)
    wait(ticker, heard)
    InProcessRunner().run(request, inputs, here.on_progress, here.on_done)
    assert heard.done[0][0].evidence.given is not None
    assert heard.done[0][0].bone.labels.array_kji.any()
    assert timeless(heard.done[0][0]) == timeless(here.done[0][0])


def test_cancel_ends_the_process_at_once_and_leaves_nothing(runner, ticker, inputs):
    heard = Heard()
    runner.run(REQUEST, inputs, heard.on_progress, heard.on_done)
    folder = runner._folder
    wait(ticker, heard, until=lambda: is_registering(heard))
    launcher, python = runner.child_pid, runner._worker.python_pid
    runner.cancel()
    [(result, error)] = heard.done
    assert result is None
    assert isinstance(error, Cancelled)
    assert str(error) == CANCELLED
    assert launcher != python
    assert is_gone(launcher)
    assert is_gone(python)
    assert (runner.busy, ticker.call, folder.exists()) == (False, None, False)
    runner.cancel()  # nothing is running: nothing happens
    assert len(heard.done) == 1


def test_an_error_arrives_unchanged_and_the_worker_continues(runner, ticker, inputs):
    constant = RawVolume(np.zeros_like(inputs.mri.array_kji), inputs.mri.lps_from_ijk, "MR", "Empty MRI")
    away = RigidTransform.from_axis_angle((0, 0, 1), 0, (900, 0, 0)).moving_from_fixed_lps
    far = replace(inputs.mri, lps_from_ijk=away @ inputs.mri.lps_from_ijk)
    for request, wrong in ((REQUEST, RawInputs(inputs.ct, constant)), (AS_THEY_ARE, RawInputs(inputs.ct, far))):
        heard, here = Heard(), Heard()
        runner.run(request, wrong, heard.on_progress, heard.on_done)
        wait(ticker, heard)
        InProcessRunner().run(request, wrong, here.on_progress, here.on_done)
        (_, error), (_, expected) = *heard.done, *here.done
        assert type(error) is type(expected)
        assert (error.problem, error.remedy, error.details) == (expected.problem, expected.remedy, expected.details)
    assert isinstance(error, RegistrationError)
    assert error.remedy is Remedy.REGISTER
    again = Heard()
    runner.run(AS_THEY_ARE, inputs, again.on_progress, again.on_done)
    wait(ticker, again)
    assert again.done[0][1] is None


DEAF = """
import json, os, signal, sys, time
sys.path[:0] = sys.argv[2:]
from BrainFusionSlicer import jobs
sys.stdout.buffer.write(jobs.said_to_line(jobs.Ready(os.getpid())) + jobs.said_to_line(jobs.Stage("registration", 0.5)))
sys.stdout.flush()
job = sys.stdin.readline()
if "path" in job:
    from BrainFusionLib.io.leftovers import temporary_beside
    temporary_beside(jobs.job_from_line(job).order.path, ".html").write_text("half a page")
    sys.stdout.buffer.write(jobs.said_to_line(jobs.Stage("exporting", 0.5)))
    sys.stdout.flush()
time.sleep(600)
"""


@pytest.fixture
def deaf(ticker, tmp_path, monkeypatch):
    """A runner whose worker does not hear that its stdin is closed, behind a launcher."""
    (tmp_path / "deaf.py").write_text(DEAF, encoding="utf-8")
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(ROOT), str(ROOT / "BrainFusion")]))
    return ProcessRunner([python_slicer(tmp_path), str(tmp_path / "deaf.py")], ROOT, ticker)


@pytest.mark.skipif(sys.platform == "win32", reason="no launcher")
def test_a_worker_that_does_not_notice_that_its_launcher_was_killed_is_gone_when_cancel_returns(deaf, ticker, inputs):
    """What it would still write would lie in the user's folder after "nothing was written"."""
    heard = Heard()
    deaf.run(REQUEST, inputs, heard.on_progress, heard.on_done)
    wait(ticker, heard, until=lambda: is_registering(heard))
    python = deaf._worker.python_pid
    deaf.cancel()
    assert is_gone(python)


@pytest.mark.skipif(sys.platform == "win32", reason="no launcher")
def test_half_a_report_is_gone_when_cancel_returns(deaf, ticker, inputs, tmp_path):
    heard, folder = Heard(), tmp_path / "reports"
    folder.mkdir()
    volumes = inputs.copied()
    record = replace(result_of(volumes.mri, volumes.mri, volumes.mri), volumes=None)
    order = jobs.ReportOrder(folder / "report.html", record, (), None)
    deaf.export(order, ExportInputs(inputs.mri, inputs.ct, inputs.mri), heard.on_progress, heard.on_done)
    wait(ticker, heard, until=lambda: any(stage == "exporting" for stage, _ in heard.progress))
    assert len(list(folder.iterdir())) == 1
    deaf.cancel()
    assert list(folder.iterdir()) == []


@pytest.mark.skipif(sys.platform == "win32", reason="no signals")
@pytest.mark.parametrize("has_launcher", [True, False], ids=["behind a launcher", "alone"])
def test_a_killed_worker_is_explained_and_replaced(ticker, inputs, tmp_path, has_launcher):
    heard, again = Heard(), Heard()
    runner = ProcessRunner([python_slicer(tmp_path) if has_launcher else sys.executable], ROOT, ticker)
    runner.run(REQUEST, inputs, heard.on_progress, heard.on_done)
    wait(ticker, heard, until=lambda: is_registering(heard))
    os.kill(runner._worker.python_pid, signal.SIGKILL)
    wait(ticker, heard)
    [(_, error)] = heard.done
    assert ("terminated by the system" if has_launcher else "terminated by signal 9") in str(error)
    assert "not enough memory" in str(error)
    assert "exit abnormally" not in str(error)
    runner.run(AS_THEY_ARE, inputs, again.on_progress, again.on_done)
    wait(ticker, again)
    assert again.done[0][1] is None
    runner.close()


@pytest.mark.skipif(sys.platform == "win32", reason="no signals")
def test_a_crash_of_the_worker_is_not_called_too_little_memory(runner, ticker, inputs):
    heard = Heard()
    runner.run(REQUEST, inputs, heard.on_progress, heard.on_done)
    wait(ticker, heard, until=lambda: is_registering(heard))
    os.kill(runner._worker.python_pid, signal.SIGSEGV)
    wait(ticker, heard)
    assert "the worker process crashed (Segmentation fault)" in str(heard.done[0][1])
    assert "memory" not in str(heard.done[0][1])


@pytest.mark.parametrize("words", ["Fatal Python error: Aborted", "Windows fatal exception: access violation"])
def test_a_crash_is_told_in_the_words_of_each_system(ticker, inputs, tmp_path, words):
    launchers = "error: [python-real] exit abnormally - Report the problem."
    (tmp_path / "crash.py").write_text(f"import sys\nsys.exit({words!r} + '\\n\\nThread 1:\\n' + {launchers!r})\n")
    runner, heard = ProcessRunner([sys.executable, str(tmp_path / "crash.py")], ROOT, ticker), Heard()
    runner.run(REQUEST, inputs, heard.on_progress, heard.on_done)
    wait(ticker, heard)
    assert f"crashed ({words.partition(': ')[2]}) during its work" in str(heard.done[0][1])
    assert "memory" not in str(heard.done[0][1])


def test_a_worker_that_cannot_start_is_explained(ticker, inputs, tmp_path):
    heard = Heard()
    runner = ProcessRunner([sys.executable, "-c", "raise SystemExit('no library here')"], ROOT, ticker)
    runner.run(REQUEST, inputs, heard.on_progress, heard.on_done)
    wait(ticker, heard)
    assert "Last output: no library here" in str(heard.done[0][1])
    missing = ProcessRunner([str(tmp_path / "PythonSlicer")], ROOT, ticker)
    with pytest.raises(BrainFusionError, match="PythonSlicer: the worker process cannot be started"):
        missing.run(REQUEST, inputs, heard.on_progress, heard.on_done)
    assert not missing.busy


@pytest.mark.parametrize(
    "said", ["Hello", '{"schema": 1}', "[]", '{"said": {"kind": "Done"}}', "\\xff"], ids=lambda said: said[:8]
)
def test_a_line_that_is_no_message_ends_in_words(ticker, inputs, tmp_path, said):
    heard, fake = Heard(), tmp_path / "fake.py"
    fake.write_text(f"import sys, time\nsys.stdout.buffer.write(b'{said}\\n')\nsys.stdout.flush()\ntime.sleep(60)\n")
    runner = ProcessRunner([sys.executable, str(fake)], ROOT, ticker)
    runner.run(REQUEST, inputs, heard.on_progress, heard.on_done)
    folder, child = runner._folder, runner.child_pid
    wait(ticker, heard)
    assert "sent what cannot be read" in str(heard.done[0][1])
    assert (runner.busy, runner.child_pid, ticker.call, folder.exists()) == (False, None, None, False)
    with pytest.raises(ProcessLookupError):
        os.kill(child, 0)


def test_a_worker_that_closes_its_output_ends_in_words(ticker, inputs, tmp_path):
    script = tmp_path / "worker.py"
    script.write_text("import os, sys, time\nos.close(1)\ntime.sleep(60)\n", encoding="utf-8")
    runner, heard = ProcessRunner([sys.executable, str(script)], ROOT, ticker), Heard()
    runner.run(REQUEST, inputs, heard.on_progress, heard.on_done)
    wait(ticker, heard, seconds=20)
    assert "has stopped answering" in str(heard.done[0][1])
    assert (runner.busy, runner.child_pid) == (False, None)


def test_a_warm_worker_is_there_before_the_first_job_and_after_cancel(runner, ticker, inputs):
    runner.warm_up()
    first = runner.child_pid
    assert first is not None
    heard = Heard()
    runner.run(AS_THEY_ARE, inputs, heard.on_progress, heard.on_done)
    assert runner.child_pid == first
    runner.cancel()
    assert isinstance(heard.done[0][1], Cancelled)
    assert runner.child_pid not in (None, first)
    os.kill(runner.child_pid, signal.SIGKILL)
    runner._worker.popen.wait(60)
    again = Heard()
    runner.run(AS_THEY_ARE, inputs, again.on_progress, again.on_done)
    wait(ticker, again)
    assert again.done[0][1] is None


def test_the_worker_ends_in_the_middle_of_its_job_when_its_parent_is_gone(runner, ticker, inputs):
    heard = Heard()
    runner.run(REQUEST, inputs, heard.on_progress, heard.on_done)
    folder, child = runner._folder, runner._worker.popen
    wait(ticker, heard, until=lambda: is_registering(heard))
    child.stdin.close()  # as the system does when the parent is killed
    assert child.wait(60) == 0
    assert not folder.exists()


def test_the_space_that_is_asked_for_is_that_of_the_chosen_grid():
    axes = np.diag([0.5, 0.5, 2.0, 1.0])
    ct = RawVolume(np.zeros((10, 100, 100), np.int16), axes, "CT", "ct")
    mri = RawVolume(np.zeros((40, 40, 40), np.float32), np.eye(4), "MR", "mri")
    sent = 2 * 100_000 + 4 * 64_000
    inputs = RawInputs(ct, mri)

    def asked(reference="mri", grid=None, **changes):
        settings = replace(QUICK, output=OutputSettings(reference, grid), bone=changes.pop("bone", False))
        return (bytes_of_job(Request(Source("ct"), Source("mri"), settings=settings, **changes), inputs) - sent) / 4

    assert asked() == 4 * 64_000
    assert asked(grid="ct") == asked("ct") == 4 * 100_000
    assert asked(grid=0.5) == 4 * 80**3
    assert asked("ct", 0.5) == 4 * 100 * 100 * 40
    assert asked(grid="union") == 4 * (80**3 + 100 * 100 * 40)
    assert asked(grid="union", fuse=False) == 0
    assert asked(fuse=False, bone=True) == 64_000


def test_voxels_are_readable_by_their_owner_only(tmp_path, inputs):
    for _ in jobs.write_job(REQUEST, inputs.by_role(), tmp_path):
        pass
    jobs.VoxelFiles(tmp_path)["more"] = np.zeros((2, 2, 2), np.float32)
    assert {path.stat().st_mode & 0o777 for path in tmp_path.glob("*.npy")} == {0o600}


def test_voxels_that_are_still_looked_at_are_removed_a_little_later(runner, ticker, inputs, monkeypatch):
    """Windows removes no file that is mapped, and those of a result are until nobody has it any more."""
    refusals, remove = [], shutil.rmtree

    def as_on_windows(folder, **options):
        if len(refusals) < 3:
            refusals.append(folder)
        else:
            remove(folder, **options)

    monkeypatch.setattr("BrainFusionSlicer.job_folders.shutil.rmtree", as_on_windows)
    heard = Heard()
    runner.run(AS_THEY_ARE, inputs, heard.on_progress, heard.on_done)
    folder = runner._folder
    wait(ticker, heard)
    assert heard.done[0][1] is None
    assert folder.exists()
    for _n in range(3):
        ticker.tick()
    assert not folder.exists()
    assert ticker.call is None


def test_folders_that_cannot_be_removed_are_left_to_the_next_start(tmp_path, monkeypatch):
    monkeypatch.setattr("BrainFusionSlicer.job_folders.shutil.rmtree", lambda folder, **options: None)
    kept = KeptFolders()
    kept.remove(tmp_path)
    assert sum(1 for _n in range(1000) if kept.try_again()) < 1000
    assert tmp_path.exists()


def test_folders_of_processes_that_are_gone_are_removed(tmp_path):
    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait()
    names = [f"brainfusion-job-{gone.pid}-a", f"brainfusion-job-{os.getpid()}-b", "brainfusion-job-other", "x"]
    if sys.platform == "linux":
        names.insert(0, f"brainfusion-job-{os.getpid()}-1-id_used_again")
    for name in names:
        (tmp_path / name).mkdir()
        (tmp_path / name / "ct.npy").touch()
    remove_abandoned_folders([tmp_path])
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(names[-3:])


def test_the_worker_ends_when_its_parent_is_gone():
    command = [sys.executable, str(ROOT / "BrainFusion" / "BrainFusionSlicer" / "worker.py"), str(ROOT)]
    child = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert jobs.said_from_line(child.stdout.readline()) == jobs.Ready(child.pid)
    child.stdin.close()
    assert child.wait(60) == 0
    child.stdout.close()


def test_the_workers_numpy_multiplies_on_one_thread():
    """OpenBLAS asks for its threads once, when numpy is loaded: what is imported ahead of that must not load it."""
    watched = """
import os, runpy, sys

class Watching:
    def find_spec(self, name, path=None, target=None):
        if name == "numpy" and not told:
            told.append(os.environ.get("OPENBLAS_NUM_THREADS"))
            sys.stderr.write(f"numpy with {told[0]} threads\\n")

told = []
sys.meta_path.insert(0, Watching())
sys.argv = sys.argv[1:]
runpy.run_path(sys.argv[0], run_name="__main__")
"""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("OPENBLAS")}
    command = [sys.executable, "-c", watched, worker.__file__, str(ROOT)]
    ended = subprocess.run(command, input=b"", capture_output=True, env=environment, check=True)
    assert b"numpy with 1 threads" in ended.stderr, ended.stderr


def test_a_job_arrives_whole(tmp_path, inputs):
    mask = RawVolume(np.ones(inputs.mri.array_kji.shape, np.uint8), inputs.mri.lps_from_ijk, None, "mask")
    request = Request(
        Source("CT 1"), Source("T1"), Source("mask"), Settings(fusion=FusionSettings(weights=Path("w.npz"))),
        start=RigidTransform.from_axis_angle((1, 2, 3), 20, (5, 6, 7)),
        given=AffineTransform(np.diag([1.1, 1, 1, 1])), check=False,
    )  # fmt: skip
    sent = replace(inputs, mri_mask=mask)
    *steps, message = jobs.write_job(request, sent.by_role(), tmp_path)
    assert steps == sorted(steps)
    assert steps[-1] == 1.0
    arrived = jobs.job_from_line(jobs.job_to_line(message))
    assert replace(arrived.request, settings=request.settings) == request
    assert str(arrived.request.settings.fusion.weights) == "w.npz"
    assert jobs.read_inputs(arrived) == sent.copied()
    assert isinstance(jobs.read_inputs(arrived), Inputs)


@pytest.mark.parametrize("dtype", [">i2", np.uint8, np.float64, np.float32])
@pytest.mark.parametrize("piece_bytes", [1, 100, 10**9])
def test_voxels_of_any_type_go_in_pieces(tmp_path, monkeypatch, dtype, piece_bytes):
    monkeypatch.setattr(jobs, "PIECE_BYTES", piece_bytes)
    array = np.arange(60).astype(dtype).reshape(3, 4, 5).transpose(0, 2, 1)  # not contiguous
    files = jobs.VoxelFiles(tmp_path)
    for _ in files.set_in_pieces("ct", array):
        pass
    assert files["ct"].dtype == array.dtype
    np.testing.assert_array_equal(files["ct"], array)


def test_voxel_files_are_a_mapping(tmp_path):
    files = jobs.VoxelFiles(tmp_path)
    files["volumes.fused"] = np.ones((2, 3, 4), np.float32)
    assert isinstance(files["volumes.fused"], np.memmap)
    assert (list(files), len(files), "volumes.alpha" in files) == (["volumes.fused"], 1, False)
    del files["volumes.fused"]
    assert not files
    with pytest.raises(KeyError):
        files["volumes.fused"]
    with pytest.raises(ValueError, match="pickle"):
        files["objects"] = np.array([{}], dtype=object)


def test_an_old_torch_is_rejected_with_a_remedy(monkeypatch):
    monkeypatch.setattr("importlib.metadata.version", lambda name: "2.1.2+cu118")
    with pytest.raises(MissingDependencyError, match=r"PyTorch 2\.1\.2.*2\.4 or newer"):
        torch_setup.require_torch("cuda")
    torch_setup.require_torch("auto")
    monkeypatch.setattr("importlib.metadata.version", lambda name: "2.10.0")
    torch_setup.require_torch("cuda")


def test_the_minimal_torch_is_that_of_the_package():
    text = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    assert re.findall(r'^torch = \["torch>=([\d.]+)"\]', text, re.MULTILINE) == [torch_setup.LEAST_VERSION]


def test_a_graphics_card_that_fails_is_a_notice(monkeypatch, tmp_path, inputs):
    import torch

    assert worker.why_not_cuda() == ""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)  # and there is none: using it raises
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    said = []
    request = replace(AS_THEY_ARE, settings=replace(QUICK, device="auto"))
    *_, message = jobs.write_job(request, inputs.by_role(), tmp_path)
    result = worker.work(message, said.append)
    [notice] = [what.text for what in said if type(what).__name__ == "Notice"]
    assert "graphics card cannot be used" in notice
    assert result.provenance.device == "cpu"
    assert notice in result.notes


@pytest.mark.parametrize(
    "error",
    [
        ImageContentError("it is empty"),
        SettingsError("a mask, and a transform.", remedy=Remedy.OMIT_MASK_OR_TRANSFORM),
        BrainFusionError("several series.", remedy=Remedy.CHOOSE_SERIES, details="1: CT\n2: MR"),
        RegistrationError("no pose", RigidTransform.from_axis_angle((1, 2, 3), 4, (5, 6, 7))),
    ],
)
def test_errors_come_back_without_loss(error):
    back = jobs.error_of(jobs.said_from_line(jobs.said_to_line(jobs.failure_of(error))))
    assert type(back) is type(error)
    assert vars(back) == vars(error)
    assert str(back) == str(error)


def test_messages_survive_a_reload(monkeypatch):
    line = jobs.said_to_line(jobs.Stage("fusion", 0.5))
    monkeypatch.delitem(sys.modules, "BrainFusionSlicer.jobs", raising=False)
    again = importlib.import_module("BrainFusionSlicer.jobs")
    assert again is not jobs
    assert jobs.said_from_line(line) == jobs.Stage("fusion", 0.5)
    assert again.said_from_line(line) == again.Stage("fusion", 0.5)


def test_a_fault_of_the_program_is_called_one():
    error = jobs.error_of(jobs.failure_of(ZeroDivisionError("oops")))
    assert type(error) is BrainFusionError
    assert "ZeroDivisionError: oops" in str(error)
