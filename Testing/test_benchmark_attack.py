"""`benchmarks.attack`: sound inputs are read right, damaged ones are refused with a message, faults are noticed."""

from __future__ import annotations

import os
import signal

import pytest

from benchmarks import attack

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="needs a system that forks processes")


@pytest.fixture
def warm(monkeypatch):
    monkeypatch.setattr(attack.budget, "memory_bytes", attack.budget.memory_bytes)  # put back afterwards
    attack.warm_up()


def test_inputs_are_read_or_refused(warm):
    counts = attack.run(5, range(80))
    assert len(counts) > 8
    assert {outcome for counter in counts.values() for outcome in counter} <= {"ok", "refused"}
    for name, counter in counts.items():
        assert set(counter) == {"ok"} or name.endswith("damaged")


def test_input_follows_from_its_number():
    first, second = attack.make(1, 7), attack.make(1, 7)
    assert (first.name, first.files, first.entry) == (second.name, second.files, second.entry)


@pytest.mark.parametrize(
    ("act", "outcome"),
    [
        (lambda *_: os.kill(os.getpid(), signal.SIGKILL), "killed"),
        (lambda *_: signal.pause(), "> 20 s"),
        (lambda *_: ("ok", ""), "> 2 GB"),
        (lambda *_: 1 / 0, "other exception"),
    ],
)
def test_what_goes_wrong_in_a_child_is_noticed(monkeypatch, act, outcome):
    monkeypatch.setattr(attack, "LONGEST_S", 1)
    if outcome == "> 2 GB":
        monkeypatch.setattr(attack, "MOST_BYTES", 1 << 20)  # any process is larger than that
    monkeypatch.setattr(attack, "attempt", act)
    assert attack.in_child(1, 0)[0] == outcome


def test_table_has_a_row_for_each_input_and_a_column_for_each_outcome():
    lines = attack.table({"nrrd, sound": attack.Counter(ok=3)}).splitlines()
    assert lines[0].count("|") == lines[2].count("|") == len(attack.OUTCOMES) + 2
    assert lines[2].startswith("| nrrd, sound | 3 | 0 |")
