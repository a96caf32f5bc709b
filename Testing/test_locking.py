"""The lock on a file, and the removal of what killed processes left behind."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from BrainFusionLib.io import atomic_output
from BrainFusionLib.io.leftovers import remove_leftovers, temporary_beside
from BrainFusionLib.locking import alone, locked, process_is_running

ROOT = Path(__file__).resolve().parents[1]


def another_process(code: str, *arguments: Path) -> subprocess.Popen[str]:
    """Run code in a process of its own, and return when it has written a line."""
    command = [sys.executable, "-c", f"import sys\nfrom pathlib import Path\n{code}", *map(str, arguments)]
    process = subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    return process


HOLD = """
from BrainFusionLib.locking import locked
with locked(sys.argv[1]) as held:
    assert held
    print("ready", flush=True)
    sys.stdin.read()
"""
WRITE = """
from BrainFusionLib.io import atomic_output
with atomic_output(Path(sys.argv[1])) as temporary:
    temporary.write_text("half")
    print("ready", flush=True)
    sys.stdin.read()
"""


def test_one_process_holds_the_lock(tmp_path: Path) -> None:
    other = another_process(HOLD, tmp_path / "lock")
    with locked(tmp_path / "lock") as held:
        assert not held
    other.communicate(timeout=60)
    with locked(tmp_path / "lock") as held:
        assert held
        with locked(tmp_path / "lock") as again:
            assert not again


def test_a_killed_process_releases_its_lock(tmp_path: Path) -> None:
    other = another_process(HOLD, tmp_path / "lock")
    other.kill()
    other.communicate(timeout=60)
    with locked(tmp_path / "lock") as held:
        assert held


def test_waiting_ends_when_the_lock_is_released(tmp_path: Path) -> None:
    order = []

    def second() -> None:
        with locked(tmp_path / "lock", wait=True) as held:
            order.append(("second", held))

    with locked(tmp_path / "lock"):
        thread = threading.Thread(target=second)
        thread.start()
        order.append(("first", True))
    thread.join(60)
    assert order == [("first", True), ("second", True)]


def test_a_process_runs_until_it_has_ended(tmp_path: Path) -> None:
    assert process_is_running(os.getpid())
    other = another_process("print('ready', flush=True)\nsys.stdin.read()")
    assert process_is_running(other.pid)
    other.communicate(timeout=60)
    assert not process_is_running(other.pid)


def test_leftovers_of_a_killed_process_are_removed(tmp_path: Path) -> None:
    other = another_process(WRITE, tmp_path / "cohort.tsv")
    (leftover,) = tmp_path.iterdir()
    assert leftover.suffix == ".tsv"
    assert remove_leftovers(tmp_path) == []  # it still runs
    other.kill()
    other.communicate(timeout=60)
    assert leftover.exists()
    assert remove_leftovers(tmp_path) == [leftover]
    assert list(tmp_path.iterdir()) == []


def test_leftover_folders_are_removed_with_their_files(tmp_path: Path) -> None:
    other = another_process("print('ready', flush=True)\nsys.stdin.read()")
    folder = Path(str(temporary_beside(tmp_path / "fused")).replace(str(os.getpid()), str(other.pid)))
    folder.mkdir()
    (folder / "0001.dcm").write_bytes(b"half")
    other.communicate(timeout=60)
    assert remove_leftovers(tmp_path) == [folder]


def test_leftovers_of_a_process_that_is_known_to_have_ended_go_though_the_system_lists_it(tmp_path: Path) -> None:
    other = another_process(WRITE, tmp_path / "cohort.tsv")
    (leftover,) = tmp_path.iterdir()
    assert remove_leftovers(tmp_path, ended=(other.pid,)) == [leftover]
    other.kill()
    other.communicate(timeout=60)


def test_what_this_process_is_writing_stays(tmp_path: Path) -> None:
    with atomic_output(tmp_path / "result.json") as temporary:
        temporary.write_text("{}")
        assert remove_leftovers(tmp_path) == []
    assert (tmp_path / "result.json").read_text() == "{}"


@pytest.mark.parametrize("name", [".tmp-notes", "result.json", ".tmp-1-2", ".tmp-0123456z-99-00000000.tsv"])
def test_files_of_other_names_stay(tmp_path: Path, name: str) -> None:
    (tmp_path / name).touch()
    assert remove_leftovers(tmp_path) == []


def test_leftovers_of_another_machine_are_removed_after_a_day(tmp_path: Path) -> None:
    path = tmp_path / ".tmp-00000000-1-00000000.tsv"
    path.touch()
    assert remove_leftovers(tmp_path) == []
    os.utime(path, (0, 0))
    assert remove_leftovers(tmp_path) == [path]


def test_who_waited_for_a_file_that_was_removed_holds_the_lock_of_the_next(tmp_path: Path) -> None:
    held: list[bool] = []

    def wait() -> None:
        with locked(tmp_path / "lock", wait=True), locked(tmp_path / "lock") as again:
            held.append(again)

    with locked(tmp_path / "lock", keep=False):
        waiting = threading.Thread(target=wait)
        waiting.start()
        waiting.join(0.2)
        assert not held
    waiting.join(60)
    assert held == [False]
    assert (tmp_path / "lock").exists()


def test_a_lock_that_is_not_kept_leaves_no_file(tmp_path: Path) -> None:
    with alone(tmp_path / "lock"):
        assert (tmp_path / "lock").exists()
    with alone(tmp_path / "no folder" / "lock"):  # without a lock
        pass
    assert not list(tmp_path.iterdir())
