"""A cohort that is stopped in the middle of its cases: no process outlives it, and nothing half-written stays."""

import os
import select
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from BrainFusionLib.case.replacing import WHOLE
from BrainFusionLib.cohort import running
from BrainFusionLib.cohort.manifest import Entry

ROOT = Path(__file__).parents[1]
# The real command. Its workers tell through a pipe that they are in the middle of a case; native code keeps them there.
COHORT = """
import hashlib, os, sys
from BrainFusionLib import cli, folder
from BrainFusionLib.cohort import running

def in_the_middle(entry, output, settings):
    case = output / entry.place
    folder.make_output_folder(case)
    with folder.staging_folder(case) as staged:
        (staged / "fused.nii.gz").write_text("half")
        with open(sys.argv[1], "a") as ready:
            print(os.getpid(), file=ready, flush=True)
        hashlib.pbkdf2_hmac("sha512", b"a", b"b", (1 << 31) - 1)

running.fuse_case = in_the_middle
if __name__ == "__main__":
    sys.exit(cli.main(sys.argv[2:]))
"""


def is_running(pid):
    try:
        return "Z" not in Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except FileNotFoundError:
        return False


def said(pipe, lines):
    """Return the words that were written into a pipe, as soon as there are so many lines."""
    end, text = os.open(pipe, os.O_RDWR), b""  # open for writing, too: it does not end with the first writer
    while text.count(b"\n") < lines:
        assert select.select([end], [], [], 60)[0], "no worker came so far"
        text += os.read(end, 1000)
    os.close(end)
    return text.split()


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="needs /proc")
# How soon it ends is measured by benchmarks.attack --kills; here, within a minute.
@pytest.mark.parametrize(("number", "code"), [(signal.SIGKILL, -signal.SIGKILL), (signal.SIGTERM, 143)])
def test_cohort_stopped_in_the_middle_of_its_cases(tmp_path, number, code):
    for name in ("ct.nii", "mri.nii"):
        (tmp_path / name).write_bytes(b"read by nobody")
    (tmp_path / "manifest.csv").write_text("case,ct,mri\na,ct.nii,mri.nii\nb,ct.nii,mri.nii\n", encoding="utf-8")
    (tmp_path / "run.py").write_text(COHORT, encoding="utf-8")
    os.mkfifo(tmp_path / "ready")
    output = tmp_path / "out"
    words = [tmp_path / "run.py", tmp_path / "ready", "cohort", tmp_path / "manifest.csv", "-o", output]
    run = subprocess.Popen(
        [sys.executable, *words, "--workers", "2", "--rule", "average", "--device", "cpu"],
        env={**os.environ, "PYTHONPATH": str(ROOT)}, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    pids = [int(word) for word in said(tmp_path / "ready", lines=2)]
    assert len(list(output.glob("*/.brainfusion-*"))) == 2
    began = time.monotonic()
    run.send_signal(number)
    while any(map(is_running, pids)) or run.poll() is None:
        assert time.monotonic() - began < 60
        time.sleep(0.05)
    assert (run.returncode, "Traceback" in run.communicate()[1]) == (code, False)
    if number == signal.SIGKILL:
        running._tidy([Entry(1, name, tmp_path, tmp_path) for name in "ab"], output)  # as the next run does
    assert not list(output.glob("*/.*"))


def test_replacement_that_a_killed_worker_had_begun_is_finished(tmp_path):
    whole = tmp_path / "a" / WHOLE
    whole.mkdir(parents=True)
    (whole / "fused.nii.gz").write_text("new")
    (whole / "result.json").write_text('{"files": {"fused": "fused.nii.gz", "result": "result.json"}}')
    running._tidy([Entry(1, name, tmp_path, tmp_path) for name in ("a", "not begun")], tmp_path)
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["a", "fused.nii.gz", "result.json"]
