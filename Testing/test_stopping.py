"""Processes end within seconds of a signal, and workers with their parent; nothing half-written stays."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from BrainFusionLib import stopping
from BrainFusionLib.case import replacing
from BrainFusionLib.errors import ImageFileError
from BrainFusionLib.folder import remove_staging
from BrainFusionLib.locking import process_is_running

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="signals of POSIX")
BUSY = """
import hashlib, shutil, signal, sys, time
from pathlib import Path
from BrainFusionLib.stopping import ending_on_signals, half_written
signal.signal(signal.SIGINT, signal.default_int_handler)
folder = Path(sys.argv[1])
try:
    with ending_on_signals(), half_written(folder):
        folder.mkdir()
        (folder / "half").write_text("...")
        print("ready", flush=True)
        hashlib.pbkdf2_hmac("sha512", b"a", b"b", (1 << 31) - 1)  # native code for many minutes
except KeyboardInterrupt:
    sys.exit(130)
finally:
    shutil.rmtree(folder, ignore_errors=True)
"""
POOL = """
import os, signal, sys, time
from concurrent.futures import as_completed
from BrainFusionLib.cohort.running import worker_pool
from BrainFusionLib.stopping import ending_on_signals, signals_held_back
signal.signal(signal.SIGINT, signal.default_int_handler)
if __name__ == "__main__":
    try:
        with ending_on_signals(), worker_pool(2) as pool:
            with signals_held_back():
                pids = [pool.submit(os.getpid), pool.submit(os.getpid)]
                work = [pool.submit(time.sleep, 60), pool.submit(time.sleep, 60)]
            [pid.result() for pid in pids]
            time.sleep(0.3)
            print(*pool._processes, flush=True)
            [done.result() for done in as_completed(work)]
    except KeyboardInterrupt:
        sys.exit(130)
"""

# Signals also where Python has given its handlers up, as it ends.
LATE = """
import os, signal, sys
from BrainFusionLib.stopping import ending_on_signals
number = int(sys.argv[1])
signal.signal(signal.SIGINT, signal.default_int_handler)

class Late:
    def __del__(self, kill=os.kill, me=os.getpid(), number=number):
        kill(me, number)

late = Late()
try:
    with ending_on_signals(), ending_on_signals():
        os.kill(os.getpid(), number)
        signal.pause()
except KeyboardInterrupt:
    sys.exit(130)
"""

SAFETY_NET_S = 60


def started(code, *words):
    return subprocess.Popen(
        [sys.executable, "-c", code, *map(str, words)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_signals_end_native_code_and_remove_what_is_half_written(tmp_path, number, code):
    with started(BUSY, tmp_path / "half") as process:
        assert process.stdout.readline() == "ready\n"
        for _ in range(3):
            process.send_signal(number)
        _, said = process.communicate(timeout=SAFETY_NET_S)
    assert (process.returncode, said) == (code, "")
    assert not (tmp_path / "half").exists()


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_later_signals_do_not_change_the_exit_code(number, code):
    with started(LATE, int(number)) as process:
        _, said = process.communicate(timeout=SAFETY_NET_S)
    assert (process.returncode, said) == (code, "")


# The other signals: test_cohort_processes.py. How soon they end is measured by benchmarks.attack --kills.
@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130)])
def test_workers_end_with_their_parent(tmp_path, number, code):
    script = tmp_path / "pool.py"
    script.write_text(POOL)
    with started(f"import runpy; runpy.run_path({str(script)!r}, run_name='__main__')") as process:
        workers = [int(word) for word in process.stdout.readline().split()]
        assert len(workers) == 2
        began = time.monotonic()
        process.send_signal(number)
        while any(process_is_running(pid) for pid in workers) or process.poll() is None:
            assert time.monotonic() - began < SAFETY_NET_S
            time.sleep(0.05)
        assert (process.returncode, process.stderr.read()) == (code, "")


def made(folder, word):
    folder.mkdir(exist_ok=True)
    for name in ("fused.nii.gz", "report.html"):
        (folder / name).write_text(word)
    files = {"fused": "fused.nii.gz", "report": "report.html", "result": "result.json"}
    (folder / "result.json").write_text(json.dumps({"files": files, "is": word}))


@pytest.mark.parametrize("is_full", [False, True])
def test_new_result_is_moved_whole_where_another_disk_is_mounted(tmp_path, monkeypatch, is_full):
    made(tmp_path, "old")
    staged = tmp_path / ".brainfusion-0-0-0"
    made(staged, "new")
    record = json.loads((staged / "result.json").read_text())
    (staged / "result.json").write_text(json.dumps({**record, "files": {**record["files"], "pictures": "pictures"}}))
    (staged / "pictures").mkdir()
    (staged / "pictures" / "1.png").write_text("new")
    plain = Path.replace

    def replace(path, target):
        if path.parent != Path(target).parent:
            raise OSError(errno.EXDEV, os.strerror(errno.EXDEV), str(path), None, str(target))
        return plain(path, target)

    monkeypatch.setattr(Path, "replace", replace)
    if is_full:
        with monkeypatch.context() as full:
            full.setattr(shutil, "copy2", lambda source, copy: full_disk(copy))
            with pytest.raises(ImageFileError, match=os.strerror(errno.ENOSPC)):
                replacing.replace_result(staged, tmp_path)
        assert not list(tmp_path.glob(".tmp-*"))
    replacing.complete_replacement(tmp_path) if is_full else replacing.replace_result(staged, tmp_path)
    assert {(tmp_path / name).read_text() for name in ("fused.nii.gz", "report.html", "pictures/1.png")} == {"new"}
    assert sorted(path.name for path in tmp_path.iterdir() if path.name.startswith((".tmp", ".brain"))) == []


def full_disk(copy):
    Path(copy).write_bytes(b"h")
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(copy))


@pytest.mark.parametrize("moves", range(6))
def test_kill_inside_the_replacement_leaves_the_old_result_or_the_new_one(tmp_path, moves):
    made(tmp_path, "old")
    more = {"bone": "bone.nrrd", "transform_fsl": "ct_to_mri.mat", "pictures": "pictures"}  # the new one has none
    record = json.loads((tmp_path / "result.json").read_text())
    (tmp_path / "result.json").write_text(json.dumps({**record, "files": {**more, **record["files"]}}))
    for name in ("bone.nrrd", "ct_to_mri.mat", "pictures/1.png"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("old")
    child = os.fork()
    if child == 0:
        staged = tmp_path / ".brainfusion-0-0-0"
        made(staged, "new")
        left = [moves]
        for name in ("replace", "rename"):
            plain = getattr(replacing.Path, name)

            def moved(path, target, plain=plain):
                if left[0] == 0:
                    os._exit(9)
                left[0] -= 1
                return plain(path, target)

            setattr(replacing.Path, name, moved)
        replacing.replace_result(staged, tmp_path)
        os._exit(0)
    os.waitpid(child, 0)
    replacing.complete_replacement(tmp_path)
    words = {(tmp_path / name).read_text() for name in ("fused.nii.gz", "report.html")}
    assert words == {json.loads((tmp_path / "result.json").read_text())["is"]} == {"old" if moves == 0 else "new"}
    assert {(tmp_path / name).exists() for name in more.values()} == {moves == 0}
    assert not (tmp_path / replacing.WHOLE).exists()


@pytest.mark.parametrize(("number", "ends"), [(signal.SIGINT, KeyboardInterrupt), (signal.SIGTERM, SystemExit)])
def test_signal_inside_the_replacement_ends_after_it(tmp_path, monkeypatch, number, ends):
    made(tmp_path, "old")
    staged = tmp_path / ".brainfusion-0-0-0"
    made(staged, "new")
    stop, plain = stopping._Stop(), replacing.Path.replace
    monkeypatch.setattr(replacing.Path, "replace", lambda *paths: (stop.handle(number, None), plain(*paths))[1])
    with pytest.raises(ends):
        replacing.replace_result(staged, tmp_path)
    assert {(tmp_path / name).read_text() for name in ("fused.nii.gz", "report.html")} == {"new"}
    assert json.loads((tmp_path / "result.json").read_text())["is"] == "new"
    assert not list(tmp_path.glob(".*"))


def test_signal_inside_a_removal_leaves_it_to_the_end(tmp_path, monkeypatch):
    monkeypatch.setattr(stopping, "_made", [])
    with contextlib.suppress(SystemExit), stopping.half_written(tmp_path / "half"):
        (tmp_path / "half").mkdir()
        raise SystemExit  # out of what would have removed it
    stopping._remove_half_written()
    assert not (tmp_path / "half").exists()
    assert tmp_path / "half" not in stopping._half_written


def test_record_from_elsewhere_moves_no_file_outside(tmp_path):
    whole = tmp_path / "results" / replacing.WHOLE
    whole.mkdir(parents=True)
    (tmp_path / "victim").write_text("mine")
    (whole / "result.json").write_text(json.dumps({"files": {"fused": "../victim", "result": "result.json"}}))
    replacing.complete_replacement(tmp_path / "results")
    assert (tmp_path / "victim").read_text() == "mine"


def test_planted_result_moves_nothing_through_a_link(tmp_path):
    folder = tmp_path / "results"
    whole = folder / replacing.WHOLE
    (whole / "sub").mkdir(parents=True)
    (tmp_path / "victim").write_text("mine")
    (folder / "sub").symlink_to(tmp_path, target_is_directory=True)
    (whole / "sub" / "victim").write_text("planted")
    (whole / "result.json").write_text(json.dumps({"files": {"fused": "sub/victim", "result": "result.json"}}))
    replacing.complete_replacement(folder)
    assert (tmp_path / "victim").read_text() == "mine"


def test_link_in_the_place_of_a_new_result_moves_nothing(tmp_path):
    made(tmp_path / "mine", "of the user")
    before = sorted(path.name for path in (tmp_path / "mine").iterdir())
    (tmp_path / "results").mkdir()
    (tmp_path / "results" / replacing.WHOLE).symlink_to(tmp_path / "mine", target_is_directory=True)
    replacing.complete_replacement(tmp_path / "results")
    assert sorted(path.name for path in (tmp_path / "mine").iterdir()) == before


@pytest.mark.parametrize("new", [{}, {"dicom_fused": "dicom/fused"}])
def test_nothing_is_removed_through_a_link_called_dicom(tmp_path, new):
    folder, archive = tmp_path / "results", tmp_path / "archive"
    (archive / "fused").mkdir(parents=True)
    (archive / "fused" / "1.dcm").write_text("mine")
    (archive / "registration.dcm").write_text("mine")
    folder.mkdir()
    (folder / "dicom").symlink_to(archive, target_is_directory=True)
    old = {"dicom_fused": "dicom/fused", "dicom_registration": "dicom/registration.dcm", "result": "result.json"}
    (folder / "result.json").write_text(json.dumps({"files": old}))
    whole = folder / replacing.WHOLE
    (whole / "dicom" / "fused").mkdir(parents=True)
    (whole / "result.json").write_text(json.dumps({"files": {**new, "result": "result.json"}}))
    with pytest.raises(ImageFileError, match="link") if new else contextlib.nullcontext():
        replacing.complete_replacement(folder)
    assert {path.name: path.read_text() for path in archive.rglob("*.dcm")} == {
        "1.dcm": "mine",
        "registration.dcm": "mine",
    }


def test_second_reader_waits_for_the_one_that_moves_files(tmp_path, monkeypatch):
    made(tmp_path / replacing.WHOLE, "new")
    plain, waiting = replacing.Path.replace, []

    def moved(path, target):
        if not waiting:
            waiting.append(threading.Thread(target=replacing.complete_replacement, args=(tmp_path,)))
            waiting[0].start()
            waiting[0].join(0.2)
            assert waiting[0].is_alive()
        return plain(path, target)

    monkeypatch.setattr(replacing.Path, "replace", moved)
    replacing.complete_replacement(tmp_path)
    waiting[0].join(SAFETY_NET_S)
    assert {(tmp_path / name).read_text() for name in ("fused.nii.gz", "report.html")} == {"new"}
    assert json.loads((tmp_path / "result.json").read_text())["is"] == "new"
    assert not list(tmp_path.glob(".*"))


def test_new_result_that_cannot_be_moved_now_is_moved_later(tmp_path, monkeypatch):
    made(tmp_path, "old")
    staged = tmp_path / ".brainfusion-0-0-0"
    made(staged, "new")

    def refused(path, target):
        raise PermissionError(13, "Permission denied", str(path))

    with monkeypatch.context() as patch:
        patch.setattr(replacing.Path, "replace", refused)
        with pytest.raises(ImageFileError, match="cannot be replaced"):
            replacing.replace_result(staged, tmp_path)
    replacing.complete_replacement(tmp_path)
    assert {(tmp_path / name).read_text() for name in ("fused.nii.gz", "report.html")} == {"new"}
    assert json.loads((tmp_path / "result.json").read_text())["is"] == "new"


def test_end_of_a_replacement_leaves_the_result(tmp_path):
    made(tmp_path, "new")
    (tmp_path / replacing.WHOLE).mkdir()  # as of a process that was killed after the last move
    replacing.complete_replacement(tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["fused.nii.gz", "report.html", "result.json"]


def test_leftovers_are_removed_but_no_result_that_is_whole(tmp_path):
    made(tmp_path, "old")
    made(tmp_path / replacing.WHOLE, "new")
    (tmp_path / ".brainfusion-left").mkdir()
    remove_staging(tmp_path)
    assert json.loads((tmp_path / "result.json").read_text())["is"] == "new"
    assert not list(tmp_path.glob(".*"))
