"""`benchmarks.attack --kills`: what is drawn, counted, and found wrong."""

from __future__ import annotations

import contextlib
import json
import sys
from collections import Counter

import pytest

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="signals of POSIX")
kills = pytest.importorskip("benchmarks.attack_kills")
leftovers = pytest.importorskip("benchmarks.attack_leftovers")


def test_kill_follows_from_its_number_and_all_kinds_come():
    drawn = [kills.draw(1, number) for number in range(200)]
    assert drawn == [kills.draw(1, number) for number in range(200)]
    assert {(kill.command, kill.how) for kill in drawn} >= {
        (command, how) for command in kills.COMMANDS for how, *_, whom in kills.SIGNALS if whom != "worker"
    }
    assert sum(kill.aim == "any time" for kill in drawn) > 100
    assert min(sum(kill.aim == aim for kill in drawn) for aim in ("writing", "replacing")) > 10
    assert not any(kill.earlier for kill in drawn if kill.command == "training")
    assert any(kill.whom == "worker" for kill in drawn)


def test_a_stopped_run_goes_on_where_it_was(monkeypatch, tmp_path):
    done = []
    monkeypatch.setattr(kills.Stage, "prepared", lambda stage: contextlib.nullcontext())
    monkeypatch.setattr(kills, "attempt", lambda stage, kill: (done.append(kill), ([("late", "4 s")], "writing"))[1])
    kills.run(3, 4, tmp_path / "counts.json")
    counts = kills.run(3, 6, tmp_path / "counts.json")
    assert done == [kills.draw(3, number) for number in range(6)]
    assert counts["(writing)"] == Counter(kills=6, late=6)
    assert kills.table(counts).splitlines()[-1].startswith("| writing | 6 | 0 | 6 | 0 |")
    with pytest.raises(ValueError, match="seed 3"):
        kills.run(4, 6, tmp_path / "counts.json")


def case(folder, content):
    folder.mkdir()
    for name in leftovers.RESULTS:
        (folder / name).write_text(content)
    (folder / "report.html").write_text("<html></html>")
    (folder / "result.json").write_text(json.dumps({}))
    return folder


@pytest.mark.parametrize(
    ("damage", "reason"),
    [
        (lambda folder: (folder / "result.json").unlink(), "no result.json"),
        (lambda folder: (folder / "fused.nii.gz").write_text("half"), "neither"),
        (lambda folder: (folder / "fused.nii.gz").write_text("former"), "neither"),
        (lambda folder: (folder / "report.html").write_text("<html>"), "cut off"),
        (lambda folder: (folder / leftovers.SEAL).write_text('{"files": {"report.html": "other"}}'), "seal"),
    ],
)
def test_half_written_case_is_noticed(monkeypatch, tmp_path, damage, reason):
    monkeypatch.setattr(leftovers, "read_case", lambda folder: None)
    new, former, found = (case(tmp_path / name, name) for name in ("new", "former", "found"))
    for name in leftovers.RESULTS:
        (found / name).write_text("new")
    leftovers.case_is_whole(found, new, former)
    damage(found)
    with pytest.raises(ValueError, match=reason):
        leftovers.case_is_whole(found, new, former)


def test_hidden_files_and_folders_are_noticed(tmp_path):
    (tmp_path / "out-tmp").mkdir()
    (tmp_path / "out" / "head0").mkdir(parents=True)
    faults = kills.Faults()
    leftovers.nothing_hidden(tmp_path, faults)
    assert faults.found == []
    (tmp_path / "out" / "head0" / ".brainfusion-whole").mkdir()
    leftovers.nothing_hidden(tmp_path, faults)
    assert faults.found == [("hidden left", "out/head0/.brainfusion-whole")]
