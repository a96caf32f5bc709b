"""The worker process of the Slicer module: real processes, no Slicer."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from BrainFusionLib.errors import BrainFusionError, Cancelled, ImageContentError, MissingDependencyError, SettingsError
from BrainFusionLib.phantom import make_pair
from BrainFusionLib.settings import FusionSettings, RegistrationSettings, SearchPass, Settings
from BrainFusionLib.transform import AffineTransform, RigidTransform

pytest.importorskip("torch", reason="torch is not installed")

ROOT = Path(__file__).parents[1]
sys.path.append(str(ROOT / "BrainFusion"))

from BrainFusionSlicer import jobs, worker  # noqa: E402
from BrainFusionSlicer.jobs import Job, RawVolume  # noqa: E402
from BrainFusionSlicer.runner import CANCELLED, InProcessRunner, ProcessRunner  # noqa: E402

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


@pytest.fixture
def job(pair):
    ct = RawVolume(np.rint(pair.ct.array_kji).astype(np.int16), pair.ct.grid, "CT", "CT 1")
    return Job(ct, RawVolume(pair.mri.array_kji, pair.mri.grid, "MR", "T1"), QUICK)


@pytest.fixture
def ticker():
    return Ticker()


@pytest.fixture
def runner(ticker):
    made = ProcessRunner([sys.executable], ROOT, ticker)
    yield made
    made.close()


def test_a_worker_gives_what_this_process_gives_and_serves_again(runner, ticker, job, pair):
    heard, again, here = Heard(), Heard(), Heard()
    runner.run(job, heard.on_progress, heard.on_done)
    folder = runner._folder
    assert folder.exists()
    assert runner.busy
    with pytest.raises(SettingsError, match="is running"):
        runner.run(job, heard.on_progress, heard.on_done)
    wait(ticker, heard)
    (result, error), *more = heard.done
    assert (error, more, runner.busy, ticker.call) == (None, [], False, None)
    assert {stage for stage, _ in heard.progress} >= {"registration", "resampling", "fusion"}
    off = result.transform.apply(pair.target_points()) - pair.transform.apply(pair.target_points())
    assert np.linalg.norm(off, axis=1).max() < 1.5

    child = runner.child_pid
    runner.run(job, again.on_progress, again.on_done)
    wait(ticker, again)
    assert runner.child_pid == child
    InProcessRunner().run(job, here.on_progress, here.on_done)
    expected = here.done[0][0]
    for other in (result, again.done[0][0]):
        np.testing.assert_allclose(other.fused.array_kji, expected.fused.array_kji, atol=1e-3)
        np.testing.assert_array_equal(other.ct_in_mri.array_kji, expected.ct_in_mri.array_kji)
        assert other.verdict == expected.verdict
        assert other.fused.grid.same_as(expected.fused.grid)
        assert other.to_dict()["intensity"] == expected.to_dict()["intensity"]
    assert not folder.exists()


def test_cancel_ends_the_process_at_once_and_leaves_nothing(runner, ticker, job):
    heard = Heard()
    runner.run(job, heard.on_progress, heard.on_done)
    folder = runner._folder
    wait(ticker, heard, until=lambda: any(stage == "registration" for stage, _ in heard.progress))
    child = runner.child_pid
    runner.cancel()
    [(result, error)] = heard.done
    assert result is None
    assert isinstance(error, Cancelled)
    assert str(error) == CANCELLED
    with pytest.raises(ProcessLookupError):
        os.kill(child, 0)
    assert (runner.busy, ticker.call, folder.exists()) == (False, None, False)
    runner.cancel()  # nothing is running: nothing happens
    assert len(heard.done) == 1


def test_an_error_of_the_library_arrives_as_it_is_and_the_worker_lives_on(runner, ticker, job):
    constant = RawVolume(np.zeros_like(job.mri.array_kji), job.mri.grid, "MR", "Empty MRI")
    heard, again = Heard(), Heard()
    runner.run(Job(job.ct, constant, QUICK), heard.on_progress, heard.on_done)
    wait(ticker, heard)
    [(_, error)] = heard.done
    assert isinstance(error, ImageContentError)
    assert "Empty MRI" in str(error)
    runner.run(Job(job.ct, job.mri, QUICK, transform=RigidTransform.identity()), again.on_progress, again.on_done)
    wait(ticker, again)
    assert again.done[0][1] is None


@pytest.mark.skipif(sys.platform == "win32", reason="no signals")
def test_a_killed_worker_is_an_error_in_words_and_the_next_job_gets_a_new_one(runner, ticker, job):
    heard, again = Heard(), Heard()
    runner.run(job, heard.on_progress, heard.on_done)
    wait(ticker, heard, until=lambda: any(stage == "registration" for stage, _ in heard.progress))
    os.kill(runner.child_pid, signal.SIGKILL)
    wait(ticker, heard)
    [(_, error)] = heard.done
    assert "ended by signal 9" in str(error)
    assert "not enough memory" in str(error)
    runner.run(Job(job.ct, job.mri, QUICK, transform=RigidTransform.identity()), again.on_progress, again.on_done)
    wait(ticker, again)
    assert again.done[0][1] is None


def test_a_worker_that_cannot_start_says_why(ticker, job, tmp_path):
    heard = Heard()
    runner = ProcessRunner([sys.executable, "-c", "raise SystemExit('no library here')"], ROOT, ticker)
    runner.run(job, heard.on_progress, heard.on_done)
    wait(ticker, heard)
    assert "no library here" in str(heard.done[0][1])
    missing = ProcessRunner([str(tmp_path / "PythonSlicer")], ROOT, ticker)
    with pytest.raises(BrainFusionError, match="PythonSlicer: the worker process cannot be started"):
        missing.run(job, heard.on_progress, heard.on_done)
    assert not missing.busy


def test_the_worker_ends_when_its_parent_is_gone():
    command = [sys.executable, str(ROOT / "BrainFusion" / "BrainFusionSlicer" / "worker.py"), str(ROOT)]
    child = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert b"ready" in child.stdout.readline()
    child.stdin.close()
    assert child.wait(60) == 0
    child.stdout.close()


def test_what_a_job_is_told_arrives_whole(tmp_path, job):
    mask = RawVolume(np.ones(job.mri.grid.shape_kji, np.uint8), job.mri.grid, None, "mask")
    start = RigidTransform.from_axis_angle((1, 2, 3), 20, (5, 6, 7))
    sent = Job(job.ct, job.mri, Settings(fusion=FusionSettings(weights=Path("w.npz"))), start=start, mri_mask=mask)
    *_, message = jobs.write_job(sent, tmp_path)
    volumes, settings, arguments = jobs.read_job(message)
    np.testing.assert_array_equal(volumes["ct"].array_kji, job.ct.array_kji)
    assert volumes["ct"].grid.same_as(job.ct.grid)
    assert (volumes["ct"].modality, volumes["mri"].name) == ("CT", "T1")
    assert settings == Settings(fusion=FusionSettings(weights="w.npz"))
    np.testing.assert_allclose(arguments["start"].moving_from_fixed_lps, start.moving_from_fixed_lps)
    assert arguments["mri_mask"].array_kji.all()
    scaled = AffineTransform(np.diag([1.1, 1, 1, 1]))
    back = jobs._transform_from_plain(jobs._transform_to_plain(scaled))
    assert isinstance(back, AffineTransform)


def test_an_old_torch_is_refused_in_words(monkeypatch):
    import torch

    monkeypatch.setattr(torch, "__version__", "2.1.2+cu118")
    with pytest.raises(MissingDependencyError, match=r"PyTorch 2\.1\.2.*2\.4 or newer"):
        worker.check_torch()
    monkeypatch.setattr(torch, "__version__", "2.10.0")
    worker.check_torch()


def test_a_graphics_card_that_fails_is_a_notice_and_not_the_end(monkeypatch, tmp_path, job):
    import torch

    assert worker.why_not_cuda() == ""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)  # and there is none: using it raises
    said = []
    *_, message = jobs.write_job(
        Job(job.ct, job.mri, jobs.with_device(QUICK, "auto"), transform=RigidTransform.identity()), tmp_path
    )
    result = worker.fuse(message, lambda **what: said.append(what))
    [notice] = [what["notice"] for what in said if "notice" in what]
    assert "graphics card cannot be used" in notice
    assert result["details"]["device"] == "cpu"
    assert notice in result["details"]["notes"]


def test_a_fault_of_the_program_is_told_as_one():
    plain = jobs.error_to_plain(ZeroDivisionError("oops"))
    error = jobs.error_from_plain(plain)
    assert type(error) is BrainFusionError
    assert "ZeroDivisionError: oops" in str(error)
