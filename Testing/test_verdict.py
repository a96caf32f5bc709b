import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmarks.verdict import colour_of, outcome, read, table
from BrainFusionLib.registration import RegistrationResult
from BrainFusionLib.registration.local import LocalErrors
from BrainFusionLib.transform import RigidTransform
from BrainFusionLib.verdict import Verdict, judge

GOOD = RegistrationResult(
    RigidTransform.identity(),
    similarity=1.2,
    margin=0.2,
    agreement_mm=0.1,
    overlap=0.95,
    thinnest_mm=180.0,
    mirrored_margin=0.3,
    sampling_error_mm=0.05,
    expected_error_mm=0.25,
    interval_mm=(0.1, 0.6),
    affine=None,
    escalated=False,
    iterations={},
    timings_s={},
    device="cpu",
)


@pytest.mark.parametrize("margin", [0.2, 0.081, None])
def test_a_pose_that_nothing_speaks_against_is_green(margin):
    verdict = judge(replace(GOOD, margin=margin))
    assert verdict.colour == "green"
    assert "nothing speaks against" in verdict.reasons[0]
    assert "simulated pairs" in verdict.reasons[-1]


@pytest.mark.parametrize(
    ("changes", "colour", "words"),
    [
        ({"margin": 0.079}, "amber", ["different pose fits almost as well", "0.079 nats", "0.08 wanted"]),
        ({"margin": 0.0}, "red", ["0.000 nats"]),
        ({"agreement_mm": 0.9}, "amber", ["0.9 mm apart", "0.4 mm allowed"]),
        ({"agreement_mm": 1.1}, "red", ["1.1 mm apart"]),
        ({"overlap": 0.4}, "amber", ["only 40 %", "50 % wanted"]),
        ({"overlap": 0.24}, "red", ["only 24 %"]),
        ({"margin": float("nan")}, "red", ["different pose"]),
        ({"agreement_mm": float("nan")}, "red", ["nan mm apart"]),
        ({"overlap": float("nan")}, "red", ["only nan %"]),
        ({"sampling_error_mm": 0.25}, "amber", ["move the pose by 0.25 mm", "0.2 mm allowed"]),
        ({"sampling_error_mm": 7.0}, "red", ["by 7.00 mm"]),
        ({"thinnest_mm": 8.0}, "amber", ["only 8 mm thick", "10 mm wanted"]),
        ({"mirrored_margin": 0.01}, "amber", ["hardly better than mirrored", "0.01 nats"]),
        ({"mirrored_margin": -0.123}, "red", ["left and right seem exchanged", "fit better by 0.12 nats"]),
    ],
)
def test_each_doubt_has_its_colour_and_is_said_with_its_numbers(changes, colour, words):
    verdict = judge(replace(GOOD, **changes))
    assert verdict.colour == colour
    assert len(verdict.reasons) == 2
    for word in words:
        assert word in verdict.reasons[0]


@pytest.mark.parametrize(("shift_mm", "colour"), [(0.5, "green"), (3.0, "amber"), (5.0, "red")])
def test_parts_that_would_fit_better_elsewhere_are_a_doubt(shift_mm, colour):
    points = np.zeros((4, 3))
    verdict = judge(GOOD, LocalErrors(20.0, points, np.full((4, 3), [shift_mm, 0, 0])))
    assert verdict.colour == colour
    assert ("parts of the head" in verdict.reasons[0]) == (colour != "green")
    assert judge(GOOD, LocalErrors(20.0, points[:0], points[:0])).colour == "green"
    coarse = LocalErrors(20.0, points, np.full((4, 3), [shift_mm, 0, 0]), voxel_mm=15.0)
    assert judge(GOOD, coarse).colour == "green"


def test_what_is_worse_is_said_first():
    verdict = judge(replace(GOOD, margin=0.07, mirrored_margin=-0.2))
    assert verdict.colour == "red"
    assert "exchanged" in verdict.reasons[0]


def test_every_doubt_is_said():
    verdict = judge(replace(GOOD, margin=0.01, agreement_mm=8.0, overlap=0.1))
    assert verdict.colour == "red"
    assert [any(word in reason for reason in verdict.reasons) for word in ("0.010 nats", "8.0 mm", "10 %")] == [
        True
    ] * 3


@pytest.mark.parametrize("changes", [{}, {"margin": 0.0}])
def test_the_error_that_registration_expects_is_handed_on(changes):
    verdict = judge(replace(GOOD, **changes))
    assert (verdict.expected_error_mm, verdict.interval_mm) == (0.25, (0.1, 0.6))


def test_a_transform_that_was_given_is_amber_and_said_to_be_unchecked():
    verdict = judge(None)
    assert (verdict.expected_error_mm, verdict.interval_mm) == (None, None)
    assert verdict.colour == "amber"
    assert "not checked" in verdict.reasons[0]


@given(st.none() | st.floats(0, 5), st.floats(0, 50), st.floats(0, 1), st.floats(-1, 1))
def test_green_is_given_only_where_all_is_within_its_limits(margin, agreement, overlap, mirrored):
    verdict = judge(replace(GOOD, margin=margin, agreement_mm=agreement, overlap=overlap, mirrored_margin=mirrored))
    good = (margin is None or margin >= 0.08) and agreement <= 0.4 and overlap >= 0.5 and mirrored >= 0.03
    alike = 0 <= mirrored < 0.06 and agreement > 0.25 and GOOD.sampling_error_mm > 0.1
    assert (verdict.colour == "green") == (good and not alike)


RECORDS = Path(__file__).parents[1] / "docs" / "verdict" / "records.csv"


def test_the_published_calibration_is_that_of_these_limits():
    rows = read(RECORDS)
    assert len(rows) >= 200
    assert (RECORDS.parent / "table.md").read_text(encoding="utf-8") == table(rows)
    wrong, right = ([colour_of(row) for row in rows if outcome(row) == kind] for kind in ("wrong", "right"))
    assert len(wrong) >= 40
    assert set(wrong) <= {"red", "refused"}
    assert right.count("green") >= 0.95 * len(right)


def test_a_verdict_is_written_as_json():
    fields = json.loads(json.dumps(Verdict("green", ("measured",), 0.4, (0.2, 0.9)).to_dict()))
    assert fields == {
        "colour": "green",
        "reasons": ["measured"],
        "expected_error_mm": 0.4,
        "interval_mm": [0.2, 0.9],
    }
