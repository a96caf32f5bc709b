"""`benchmarks.attack`: sound inputs are read right, damaged ones are refused with a message, faults are noticed."""

from __future__ import annotations

import mmap
import os
import signal

import numpy as np
import pytest

from benchmarks import attack
from benchmarks.attack_parts import Input
from benchmarks.attack_referees import difference

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="needs a system that forks processes")


@pytest.fixture
def warm(monkeypatch):
    monkeypatch.setattr(attack.budget, "memory_bytes", attack.budget.memory_bytes)  # put back afterwards
    attack.warm_up()


def test_inputs_are_read_or_refused(warm):
    counts = attack.run(5, range(24))
    assert len(counts) > 8
    assert {outcome for counter in counts.values() for outcome in counter} <= {"ok", "refused"}
    for name, counter in counts.items():
        assert set(counter) == {"ok"} or name.endswith(("damaged", "planted", "command"))


def test_results_with_a_planted_script_are_not_counted_as_sound(monkeypatch):
    results = [Input("results", {}, ".", read=str, wanted=wanted) for wanted in (["a"], None)]
    monkeypatch.setattr(attack, "make", lambda seed, number: results[number // 2])
    monkeypatch.setattr(attack, "in_child", lambda seed, number: ("refused", ""))
    assert [name.rpartition(", ")[2] for name in attack.run(2, [0, 2])] == ["sound", "planted"]


def test_input_follows_from_its_number():
    first, second = attack.make(1, 7), attack.make(1, 7)
    assert (first.name, first.files, first.entry) == (second.name, second.files, second.entry)


@pytest.mark.parametrize(
    ("act", "outcome"),
    [
        (lambda *_: os.kill(os.getpid(), signal.SIGKILL), "killed"),
        (lambda *_: signal.pause(), "> 20 s"),
        # Mapped, because a large process may have as much freed memory left to give.
        (lambda *_: ("ok", str(mmap.mmap(-1, 48 << 20).write(bytes(48 << 20)))), "> 2 GB"),
        (lambda *_: 1 / 0, "other exception"),
    ],
)
def test_what_goes_wrong_in_a_child_is_noticed(monkeypatch, act, outcome):
    monkeypatch.setattr(attack, "LONGEST_S", 0.2 if outcome == "> 20 s" else 20)
    if outcome == "> 2 GB":
        monkeypatch.setattr(attack, "MOST_BYTES", 32 << 20)
    monkeypatch.setattr(attack, "attempt", act)
    assert attack.in_child(1, 0)[0] == outcome


def test_a_stopped_run_goes_on_where_it_was(monkeypatch, tmp_path):
    read = []
    monkeypatch.setattr(attack, "in_child", lambda seed, number: (read.append(number), ("ok", ""))[1])
    monkeypatch.setattr(attack, "through_command", lambda made: ("refused", ""))
    attack.resumed(3, 40, tmp_path / "counts.json")
    counts = attack.resumed(3, 60, tmp_path / "counts.json")
    assert read == list(range(60))
    assert sum(counter["ok"] for counter in counts.values()) == 60
    with pytest.raises(ValueError, match="seed 3"):
        attack.resumed(4, 60, tmp_path / "counts.json")


def test_another_reader_that_reads_something_else_is_noticed(tmp_path):
    made = next(made for made in (attack.make(2, n) for n in range(0, 200, 2)) if made.name == "mgh")
    path = tmp_path / made.entry
    path.write_bytes(made.files[made.entry])
    right = made.lps_from_ijk, made.voxels_kji.astype("f4")
    assert difference("mgh", path, *right) == ""
    assert "another reader has" in difference("mgh", path, right[0], right[1] + 1)
    assert "another reader has" in difference("mgh", path, np.diag([-1.0, 1, 1, 1]) @ right[0], right[1])


def test_another_reader_composes_the_transforms_of_a_text(tmp_path):
    made = next(made for made in (attack.make(2, n) for n in range(0, 400, 2)) if "a.tfm" in made.files)
    path = tmp_path / "a.tfm"
    for line in (b"#Transform 0", b"#Trans\xff"):
        path.write_bytes(made.files["a.tfm"].replace(b"#Transform 0", line))
        assert difference("transform", path, made.lps_from_ijk, np.zeros(0)) == ""
        assert "another reader has" in difference("transform", path, np.eye(4), np.zeros(0))


def test_table_has_a_row_for_each_input_and_a_column_for_each_outcome():
    lines = attack.table({"nrrd, sound": attack.Counter(ok=3)}).splitlines()
    assert lines[0].count("|") == lines[2].count("|") == len(attack.OUTCOMES) + 2
    assert lines[2].startswith("| nrrd, sound | 3 | 0 |")
