import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmarks.verdict import at_least, colour_of, outcome, read, table
from BrainFusionLib.registration import RegistrationResult
from BrainFusionLib.transform import RigidTransform
from BrainFusionLib.verdict.given import GivenPose
from BrainFusionLib.verdict.judge import Verdict, judge
from BrainFusionLib.verdict.local import LocalFit
from BrainFusionLib.verdict.skull import SkullFit

GOOD = RegistrationResult(
    RigidTransform.identity(),
    similarity=1.2,
    margin=0.2,
    agreement_mm=0.1,
    perturbed_margin=0.01,
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
        ({"agreement_mm": 0.9}, "amber", ["0.9 mm apart", "0.6 mm allowed"]),
        ({"agreement_mm": 1.1}, "red", ["1.1 mm apart"]),
        ({"perturbed_margin": -0.002}, "red", ["2 mm away fits better", "0.0020"]),
        ({"overlap": 0.4}, "amber", ["only 40 %", "50 % wanted"]),
        ({"overlap": 0.24}, "red", ["only 24 %"]),
        ({"margin": float("nan")}, "red", ["different pose"]),
        ({"agreement_mm": float("nan")}, "red", ["nan mm apart"]),
        ({"overlap": float("nan")}, "red", ["only nan %"]),
        ({"sampling_error_mm": 0.35}, "amber", ["move the pose by 0.35 mm", "0.3 mm allowed"]),
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


FITS = LocalFit(median_mm=0.5, part_mm=0.3, share=0.95, least_share=0.9)


@pytest.mark.parametrize(
    ("changes", "colour", "words"),
    [
        ({}, "green", "nothing speaks"),
        ({"median_mm": 2.5}, "amber", "in the middle 2.5 mm away (2.0 mm allowed)"),
        ({"median_mm": 5.0}, "red", "in the middle 5.0 mm away"),
        ({"median_mm": 5.0, "voxel_mm": 15.0}, "green", "nothing speaks"),
        ({"part_mm": 1.5}, "amber", "a part of the head would fit better 1.5 mm away (1.2 mm allowed)"),
        ({"part_mm": 4.0}, "red", "a part of the head would fit better 4.0 mm away"),
        ({"part_mm": 1.5, "voxel_mm": 5.0}, "green", "nothing speaks"),
        ({"least_share": 0.2}, "amber", "20 % of its places could be (25 % wanted)"),
        ({"least_share": 0.0}, "red", "too little in common"),
    ],
)
def test_a_part_that_does_not_fit_is_a_doubt(changes, colour, words):
    verdict = judge(GOOD, replace(FITS, **changes))
    assert verdict.colour == colour
    assert words in verdict.reasons[0]


@pytest.mark.parametrize(
    ("skull", "colour", "words"),
    [
        (None, "green", "nothing speaks"),
        (SkullFit(0.4, 0.2, 0.3, at_edge=False), "green", "nothing speaks"),
        (SkullFit(2.4, 0.2, 0.3, at_edge=False), "amber", "dark rim of the MRI 2.4 mm away"),
        (SkullFit(2.4, 0.2, 0.3, at_edge=False, voxel_mm=5.0), "green", "nothing speaks"),
        (SkullFit(6.0, 0.2, 0.3, at_edge=False), "red", "6.0 mm away"),
        (SkullFit(8.0, 0.2, 0.3, at_edge=True), "red", "8.0 mm or more away"),
        (SkullFit(8.0, 0.01, 0.02, at_edge=True), "green", "nothing speaks"),
    ],
)
def test_a_skull_beside_the_dark_rim_is_a_doubt(skull, colour, words):
    verdict = judge(GOOD, None, skull)
    assert verdict.colour == colour
    assert words in verdict.reasons[0]
    assert judge(replace(GOOD, thinnest_mm=30.0), None, skull).colour == "green"


@pytest.mark.parametrize(("apart_mm", "colour"), [(0.2, "green"), (1.5, "amber"), (2.5, "red")])
def test_a_given_transform_is_as_good_as_it_is_near_to_what_a_registration_finds(apart_mm, colour):
    verdict = judge(None, given=GivenPose(GOOD, apart_mm, 0.8 * apart_mm))
    assert verdict.colour == colour
    assert f"a registration ended {apart_mm} mm from it" in verdict.reasons[0]
    assert verdict.expected_error_mm == pytest.approx(np.hypot(0.8 * apart_mm, 0.25))
    assert verdict.interval_mm == pytest.approx((max(0, 0.8 * apart_mm - 0.6), 0.8 * apart_mm + 0.6))


def test_a_given_transform_is_judged_by_the_registration_beside_it_too():
    assert judge(None, given=GivenPose(replace(GOOD, mirrored_margin=-0.2), 0.1, 0.1)).colour == "red"
    refused = judge(None, given=GivenPose(None, None, None))
    assert refused.colour == "red"
    assert "refused the pair" in refused.reasons[0]
    assert refused.expected_error_mm is None


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
    good = (margin is None or margin >= 0.08) and agreement <= 0.6 and overlap >= 0.5 and mirrored >= 0.03
    alike = 0 <= mirrored < 0.06 and agreement > 0.25 and GOOD.sampling_error_mm > 0.1
    assert (verdict.colour == "green") == (good and not alike)


RECORDS = Path(__file__).parents[1] / "docs" / "verdict" / "records.csv"


def test_the_published_calibration_is_that_of_these_limits():
    rows = read(RECORDS)
    assert len(rows) >= 800
    assert (RECORDS.parent / "table.md").read_text(encoding="utf-8") == table(rows)
    wrong, right = ([colour_of(row) for row in rows if outcome(row) == kind] for kind in ("wrong", "right"))
    assert len(wrong) >= 300
    assert wrong.count("green") <= 0.01 * len(wrong)
    assert right.count("green") >= 0.95 * len(right)
    strangers = [colour_of(row) for row in rows if row["kind"] == "N1"]
    assert len(strangers) >= 40
    assert set(strangers) <= {"red", "refused"}


def test_the_share_that_a_sample_shows_is_clopper_and_pearsons():
    assert at_least(41, 41) == pytest.approx(0.05 ** (1 / 41))
    assert at_least(8, 10) == pytest.approx(0.4931, abs=1e-4)  # of their tables
    assert at_least(0, 10) == pytest.approx(0, abs=1e-9)


def test_a_verdict_is_written_as_json():
    fields = json.loads(json.dumps(Verdict("green", ("measured",), 0.4, (0.2, 0.9)).to_dict()))
    assert fields == {
        "colour": "green",
        "reasons": ["measured"],
        "expected_error_mm": 0.4,
        "interval_mm": [0.2, 0.9],
    }
