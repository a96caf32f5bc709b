import json
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from BrainFusionLib.registration import RegistrationResult
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


@pytest.mark.parametrize("margin", [0.2, 0.051, None])
def test_a_pose_that_nothing_speaks_against_is_amber(margin):
    verdict = judge(replace(GOOD, margin=margin))
    assert verdict.colour == "amber"
    assert "nothing speaks against" in verdict.reasons[0]


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"margin": 0.049}, ["different pose fits almost as well", "0.049 nats", "0.05 wanted"]),
        ({"margin": 0.0}, ["0.000 nats"]),
        ({"agreement_mm": 1.1}, ["1.1 mm apart", "0.4 mm allowed"]),
        ({"overlap": 0.24}, ["only 24 %", "25 % wanted"]),
        ({"margin": float("nan")}, ["different pose"]),
        ({"agreement_mm": float("nan")}, ["nan mm apart"]),
        ({"overlap": float("nan")}, ["only nan %"]),
        ({"sampling_error_mm": 0.25}, ["move the pose by 0.25 mm", "0.2 mm allowed"]),
        ({"thinnest_mm": 8.0}, ["only 8 mm thick", "15 mm wanted"]),
        ({"mirrored_margin": -0.123}, ["left and right seem exchanged", "fit better by 0.12 nats"]),
    ],
)
def test_each_doubt_makes_it_red_and_is_said_with_its_numbers(changes, words):
    verdict = judge(replace(GOOD, **changes))
    assert verdict.colour == "red"
    assert len(verdict.reasons) == 2
    for word in words:
        assert word in verdict.reasons[0]


def test_every_doubt_is_said():
    verdict = judge(replace(GOOD, margin=0.01, agreement_mm=8.0, overlap=0.1))
    assert verdict.colour == "red"
    assert [any(word in reason for reason in verdict.reasons) for word in ("0.010 nats", "8.0 mm", "10 %")] == [
        True
    ] * 3


def test_data_that_fit_mirrored_only_as_well_are_no_doubt():
    assert judge(replace(GOOD, mirrored_margin=0.0)).colour == "amber"


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
def test_no_registration_is_green_before_the_verdict_is_calibrated(margin, agreement, overlap, mirrored):
    verdict = judge(replace(GOOD, margin=margin, agreement_mm=agreement, overlap=overlap, mirrored_margin=mirrored))
    assert verdict.colour in ("amber", "red")
    assert "not calibrated" in verdict.reasons[-1]


def test_a_verdict_is_written_as_json():
    fields = json.loads(json.dumps(Verdict("green", ("measured",), 0.4, (0.2, 0.9)).to_dict()))
    assert fields == {
        "colour": "green",
        "reasons": ["measured"],
        "expected_error_mm": 0.4,
        "interval_mm": [0.2, 0.9],
    }
