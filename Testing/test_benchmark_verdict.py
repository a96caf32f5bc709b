"""The verdict's benchmark: records of every pair, and a table that is made from them alone."""

import math
from pathlib import Path

import pytest

from benchmarks import verdict
from BrainFusionLib.evidence import Evidence
from BrainFusionLib.settings import RegistrationSettings
from BrainFusionLib.verdict.given import REFUSED
from simulation.cases import make_case
from simulation.heads import phantom_head

DOCS = Path(__file__).resolve().parents[1] / "docs" / "verdict"


def test_committed_table_follows_from_the_committed_records():
    assert verdict.table(verdict.read(DOCS / "records.csv")) == (DOCS / "table.md").read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def rows():
    case = make_case("E", 1, phantom_head(1, 3.0), spacing_mm=3.0)
    return [
        {name: "" if row.get(name) is None else str(row[name]) for name in verdict.COLUMNS}
        for row in verdict.measured(case, RegistrationSettings.preset("fast"), given_seed=1)
    ]


def test_right_result_is_given_back(rows):
    assert [row["spoilt"] for row in rows] == ["", *verdict.GIVEN]
    found, as_it_was, a_little, *moved = (float(row["error_p95_mm"]) for row in rows)
    assert found == as_it_was < 2
    assert a_little < 2
    assert all(2 < error < 22 for error in moved)


def test_colours_of_records_are_those_of_their_evidence(rows):
    assert verdict.outcome({**rows[0], "kind": "E"}) == "right"
    for row in rows[3:]:
        assert verdict.outcome({**row, "kind": "E"}) == "wrong"
        assert verdict.colour_of(row) != "green"
    evidence = verdict.evidence_of(rows[0])
    assert evidence.pose is not None
    assert evidence.local is not None
    assert evidence.skull is not None
    assert math.isclose(evidence.pose.sampling_error_mm, float(rows[0]["sampling_error_mm"]))
    assert verdict.evidence_of(dict.fromkeys(verdict.COLUMNS, "")) == Evidence()


def test_pair_without_a_pose_is_refused():
    case = make_case("N3", 1, phantom_head(0, 4.0), spacing_mm=4.0)
    (row,) = verdict.measured(case, RegistrationSettings.preset("fast"), given_seed=1)
    assert list(row) == ["refused"]
    assert verdict.check_given(case, case.transform) is REFUSED
