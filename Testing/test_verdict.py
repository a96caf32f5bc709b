import math
from dataclasses import fields, replace
from operator import attrgetter
from pathlib import Path
from string import Formatter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmarks.verdict import at_least, colour_of, outcome, read, table
from BrainFusionLib.acquisition import MriAcquisition, PairAcquisition
from BrainFusionLib.errors import Remedy
from BrainFusionLib.evidence import (
    BrainShift,
    Distortion,
    Evidence,
    GivenPose,
    Inside,
    LocalErrors,
    LocalFit,
    PoseEvidence,
    Scale,
    SkullFit,
)
from BrainFusionLib.landmarks import LandmarkFit
from BrainFusionLib.quantities import bound_length
from BrainFusionLib.verdict import displaced
from BrainFusionLib.verdict.criterion import Criterion
from BrainFusionLib.verdict.expected import FEATURES, bound_mm, calibration, expected_error_mm
from BrainFusionLib.verdict.judge import CALIBRATION, SENTENCES, Verdict, judge, refusal
from BrainFusionLib.verdict.measures import words_of_signs
from BrainFusionLib.verdict.table import CRITERIA

ROOT = Path(__file__).parents[1]

GOOD = PoseEvidence(
    similarity_nmi=1.2,
    margin_nats=0.2,
    agreement_mm=0.1,
    perturbed_margin_nmi=0.01,
    overlap=0.95,
    thinnest_mm=180.0,
    thickest_voxel_mm=2.0,
    mirrored_margin_nats=0.3,
    sampling_error_mm=0.05,
    lever=1.0,
)


def judged(pose=GOOD, local=None, skull=None, **evidence):
    local = None if local is None else LocalErrors(21.0, fit=local)
    return judge(Evidence(pose=pose, local=local, skull=skull, **evidence))


@pytest.mark.parametrize("margin", [0.2, 0.081, None])
def test_good_evidence_is_green(margin):
    verdict = judged(replace(GOOD, margin_nats=margin))
    assert verdict.colour == "green"
    assert verdict.findings == ()
    assert verdict.sentence == SENTENCES["green"]
    assert "simulated pairs" in verdict.reasons[-1]


def test_mirrored_data_are_not_called_shifted_or_distorted():
    shift = BrainShift(True, p95_mm=4.0, low_mm=3.5, high_mm=5.2, information_nats=0.3, gain_nats=0.03)
    mirrored, halves = replace(GOOD, mirrored_margin_nats=-0.2), Distortion(1.0, 3.0, 1.2, 1.0, 1.0, 2.0, 0.3)
    texts = {f.code: f.text for f in judged(mirrored, brain_shift=shift, distortion=halves).findings}
    assert texts.keys() & {"mirrored", "brain_shift", "part_displaced", "distortion"} == {"mirrored"}
    assert texts["brain_shift_not_judged"].endswith("left and right seem to be exchanged in CT or MRI")


SHIFTED = BrainShift(True, p95_mm=5.0, low_mm=4.4, high_mm=6.5, information_nats=0.4, gain_nats=0.28)
BENT = Distortion(1.0, 3.0, 0.5, 1.0, 2.0, 4.0, 0.9)
EXPLANATIONS = {"brain_shift", "part_displaced", "ventricles_changed", "scale", "distortion", "together"}


@pytest.mark.parametrize(
    ("pose", "local", "red", "told"),
    [
        (replace(GOOD, margin_nats=0.0), None, {"margin"}, set()),
        (GOOD, LocalFit(1.4, 2.8, 0.9, 0.8, 3.0, 3.8, 0.05), {"part_misaligned"}, {"distortion"}),
    ],
    ids=["the pose is wrong", "a part is misaligned"],
)
def test_beside_red_only_what_may_explain_it_is_told(pose, local, red, told):
    findings = judged(pose, local, brain_shift=SHIFTED, distortion=BENT).findings
    assert {finding.code for finding in findings if finding.level == "red"} == red
    assert {finding.code for finding in findings} & EXPLANATIONS == told


def test_red_says_nothing_of_an_expected_error_that_it_does_not_state():
    local, scattered = LocalFit(0.3, 0.2, 0.9, 0.8, 3.0, 0.6, 0.05), replace(GOOD, sampling_error_mm=0.5)
    amber, red = (judged(replace(scattered, margin_nats=margin), local).findings for margin in (0.2, 0.0))
    assert "outside_calibration" in {finding.code for finding in amber}
    assert "outside_calibration" not in {finding.code for finding in red}


def test_a_shift_is_told_beside_landmarks_that_show_it():
    landmarks = LandmarkFit(4, 30.0, 40.0)
    codes = {finding.code for finding in judged(brain_shift=SHIFTED, landmarks=landmarks).findings}
    assert codes >= {"landmarks_far", "brain_shift"}


@pytest.mark.parametrize(
    ("changes", "colour", "words"),
    [
        ({"margin_nats": 0.079}, "amber", ["different pose fits almost as well", "0.079 nats", "minimum 0.08"]),
        ({"margin_nats": 0.0}, "red", ["0.000 nats"]),
        ({"agreement_mm": 0.9}, "amber", ["0.9 mm apart", "limit 0.6 mm"]),
        ({"agreement_mm": 1.1}, "red", ["1.1 mm apart"]),
        ({"perturbed_margin_nmi": -0.002}, "red", ["2 mm away fits better", "0.0020"]),
        ({"overlap": 0.4}, "amber", ["only 40 %", "minimum 50 %"]),
        ({"overlap": 0.24}, "red", ["only 24 %"]),
        ({"margin_nats": float("nan")}, "red", ["different pose"]),
        ({"agreement_mm": float("nan")}, "red", ["nan mm apart"]),
        ({"overlap": float("nan")}, "red", ["only nan %"]),
        ({"sampling_error_mm": 0.35}, "amber", ["move the pose by 0.35 mm", "limit 0.3 mm"]),
        ({"sampling_error_mm": 7.0}, "red", ["by 7.00 mm"]),
        ({"thinnest_mm": 8.0}, "amber", ["only 8 mm thick", "minimum 10 mm"]),
        ({"mirrored_margin_nats": 0.01}, "amber", ["hardly better than when mirrored", "0.01 nats"]),
        (
            {"mirrored_margin_nats": -0.123},
            "red",
            ["left and right seem to be exchanged", "slices to be in reverse", "match better by 0.12 nats"],
        ),
    ],
)
def test_each_finding_has_its_colour_and_its_numbers(changes, colour, words):
    verdict = judged(replace(GOOD, **changes))
    assert verdict.colour == colour
    others = {"not_a_number"} if math.isnan(next(iter(changes.values()))) else set()
    assert len({finding.code for finding in verdict.findings} - others) == 1
    for word in words:
        assert word in verdict.reasons[0]


def local(part_mm=0.2, shifts=((0.1, 0, 0), (0, 0.1, 0), (0, 0, 0.1))):
    shifts = np.array(shifts, dtype=float)
    high, bias = np.percentile(np.linalg.norm(shifts, axis=1), 90), np.linalg.norm(np.median(shifts, axis=0))
    fit = replace(FITS, part_mm=part_mm, high_mm=float(high), bias_mm=float(bias))
    return LocalErrors(21.0, np.zeros_like(shifts), shifts, fit)


STRAIGHT = Distortion(0.2, 0.4, 1.0, 0.3, 1.3, 2.0, 0.3, 1.0)
APART = replace(STRAIGHT, pose_median_mm=1.6)
FITS = LocalFit(median_mm=0.5, part_mm=0.3, share=0.95, least_share=0.9, voxel_mm=3.0, high_mm=1.5, bias_mm=0.1)


@pytest.mark.parametrize(
    ("changes", "colour", "words"),
    [
        ({}, "green", "calibrated"),
        ({"median_mm": 2.5}, "amber", "align better if shifted by 2.5 mm or more (limit 2.0 mm)"),
        ({"median_mm": 5.0}, "red", "shifted by 5.0 mm or more"),
        ({"median_mm": 5.0, "voxel_mm": 15.0}, "green", "calibrated"),
        ({"part_mm": 1.5}, "amber", "one part of the head would align better if shifted by 1.5 mm (limit 1.2 mm)"),
        ({"part_mm": 4.0}, "red", "if shifted by 4.0 mm"),
        ({"part_mm": 1.5, "voxel_mm": 5.0}, "green", "calibrated"),
        ({"least_share": 0.2}, "amber", "only 20 % of the regions could be compared (minimum 25 %)"),
        ({"least_share": 0.0}, "amber", "only 0 % of the regions"),
    ],
)
def test_a_misaligned_part_is_a_finding(changes, colour, words):
    verdict = judged(local=replace(FITS, **changes), distortion=APART if colour == "red" else STRAIGHT)
    assert verdict.colour == colour
    assert words in verdict.reasons[0]


@pytest.mark.parametrize(
    ("inner_mm", "part_mm", "is_said"),
    [(None, 2, True), (0.1, 2, True), (0.4, 2, False), (0.4, 2.2, True), (2.1, 2, True)],
)
def test_a_part_may_be_further_off_where_the_two_fits_show_displaced_fat(inner_mm, part_mm, is_said):
    found = judged(replace(GOOD, inner_apart_mm=inner_mm), local=replace(FITS, part_mm=part_mm)).findings
    assert ("part_misaligned" in {finding.code for finding in found}) == is_said


def test_displaced_fat_excuses_no_part_that_is_off_as_in_a_wrong_pose():
    fits_apart = replace(GOOD, inner_apart_mm=1.2)
    assert judged(fits_apart, local=replace(FITS, part_mm=3.9), distortion=APART).colour == "red"


@pytest.mark.parametrize(("inner_mm", "colour"), [(None, "green"), (1.7, "green"), (2.1, "amber")])
def test_two_fits_far_apart_are_a_finding(inner_mm, colour):
    assert judged(replace(GOOD, inner_apart_mm=inner_mm)).colour == colour


IN_PLACE = BrainShift(True, p95_mm=1.7, information_nats=0.4)


@pytest.mark.parametrize(
    ("changes", "colour"),
    [({}, "green"), ({"p95_mm": 2.4}, "amber"), ({"information_nats": 0.1}, "amber"), ({"judged": False}, "amber")],
)
def test_a_brain_seen_in_its_place_shows_that_fat_sets_two_fits_and_a_part_apart(changes, colour):
    verdict = judged(
        replace(GOOD, inner_apart_mm=3.0), replace(FITS, part_mm=1.9), brain_shift=replace(IN_PLACE, **changes)
    )
    assert verdict.colour == colour


@pytest.mark.parametrize(("bias_mm", "colour"), [(0.1, "amber"), (0.9, "red")])
def test_a_dark_band_that_fat_displaces_makes_no_red_where_the_brain_is_seen_in_its_place(bias_mm, colour):
    band = SkullFit(shift_mm=4.4, depth=0.3, brightness=0.3, at_edge=False, voxel_mm=2.0)
    local, far = replace(FITS, bias_mm=bias_mm), Distortion(1.0, 2.0, 1.2, 1.0, 3.0, 4.0, 0.5)
    assert judged(local=local, skull=band, distortion=far, brain_shift=IN_PLACE).colour == colour


def test_skulls_of_a_thin_slab_are_not_compared():
    far = Distortion(3.0, 4.0, 1.0, 0.3, 6.0, 9.0, 0.2)
    for thinnest_mm, codes in ((41.0, ["skull_mismatch"]), (39.0, [])):
        found = judged(replace(GOOD, thinnest_mm=thinnest_mm), distortion=far).findings
        assert [finding.code for finding in found if finding.code == "skull_mismatch"] == codes


@pytest.mark.parametrize(
    ("apart_mm", "bias_mm", "inner_mm", "is_said"),
    [
        (2.0, 0.1, 0.4, False),
        (2.0, 0.6, 0.4, True),
        (2.0, 0.1, 1.5, True),
        (2.0, 0.1, None, True),
        (2.8, 0.1, 0.4, True),
    ],
)
def test_skulls_a_little_apart_are_not_said_where_the_regions_of_the_head_agree(apart_mm, bias_mm, inner_mm, is_said):
    fit, distortion = replace(FITS, bias_mm=bias_mm), Distortion(0.5, 1.0, 1.2, 0.5, apart_mm, 3.0, 0.3)
    found = judged(replace(GOOD, inner_apart_mm=inner_mm), local=fit, distortion=distortion).findings
    assert ("skull_mismatch" in {finding.code for finding in found}) == is_said
    # Across thick slices the regions read too little to contradict anything.
    thick = judged(replace(GOOD, inner_apart_mm=inner_mm, thickest_voxel_mm=5), local=fit, distortion=distortion)
    assert ("skull_mismatch" in {finding.code for finding in thick.findings}) >= is_said


def test_local_errors_alone_are_not_red_where_the_skull_matches():
    matched = Distortion(0.5, 1.0, 1.2, 0.5, 1.0, 2.2, 0.3)
    for changes in ({"part_mm": 4.0}, {"median_mm": 5.0}):
        assert judged(local=replace(FITS, **changes), distortion=matched).colour == "amber"
        assert judged(local=replace(FITS, **changes), distortion=replace(matched, pose_median_mm=1.7)).colour == "red"


def test_thick_slices_are_not_taken_for_errors():
    thin = dict(zip((f.name for f in FEATURES), (0.1,) * len(FEATURES), strict=True)) | {"distortion_mm": 0.5}
    table = calibration()
    read = [table.beyond_quiet(thin | {"voxel_mm": voxel})["distortion_mm"] for voxel in (1.0, 1.25, 3.0, 6.0)]
    assert read[0] == read[1] > read[2] > read[3]


@pytest.mark.parametrize(
    ("skull", "colour", "words"),
    [
        (None, "green", "calibrated"),
        (SkullFit(0.4, 0.2, 0.3, at_edge=False, voxel_mm=2.0), "green", "calibrated"),
        (
            SkullFit(2.4, 0.2, 0.3, at_edge=False, voxel_mm=2.0),
            "amber",
            "skull lies 2.4 mm from the dark skull band",
        ),
        (SkullFit(2.4, 0.2, 0.3, at_edge=False, voxel_mm=5.0), "green", "calibrated"),
        (SkullFit(6.0, 0.2, 0.3, at_edge=False, voxel_mm=2.0), "red", "6.0 mm from"),
        (SkullFit(8.0, 0.2, 0.3, at_edge=True, voxel_mm=2.0), "red", "8.0 mm or more from"),
        (SkullFit(8.0, 0.01, 0.02, at_edge=True, voxel_mm=2.0), "green", "calibrated"),
    ],
)
def test_a_skull_off_the_dark_band_is_a_finding(skull, colour, words):
    verdict = judged(skull=skull)
    assert verdict.colour == colour
    assert words in verdict.reasons[0]
    assert judged(replace(GOOD, thinnest_mm=30.0), skull=skull).colour == "green"


@pytest.mark.parametrize(("apart_mm", "colour"), [(0.2, "green"), (1.5, "amber"), (2.5, "red")])
def test_given_pose_is_judged_by_its_distance(apart_mm, colour):
    verdict = judged(None, given=GivenPose(GOOD, apart_mm, 0.8 * apart_mm))
    assert verdict.colour == colour
    if colour != "green":
        assert f"{apart_mm} mm from the result of a registration" in verdict.reasons[0]
    if colour == "red":
        assert (verdict.expected_error_mm, verdict.bound_mm) == (None, None)
    else:
        alone = judged()
        assert verdict.expected_error_mm == pytest.approx(np.hypot(0.8 * apart_mm, alone.expected_error_mm))
        assert verdict.bound_mm == pytest.approx(np.hypot(0.8 * apart_mm, alone.bound_mm))


def test_given_transform_that_stretches_the_head_is_amber():
    verdict = judged(None, given=GivenPose(GOOD, 0.1, 1.5, stretch_mm=2.1))
    assert verdict.colour == "amber"
    assert "stretches or shears the head by up to 2.1 mm" in verdict.reasons[0]
    assert verdict.expected_error_mm > 1.5


@pytest.mark.parametrize("apart_mm", [2.0, None])
def test_brain_is_not_called_shifted_in_a_given_pose_that_no_registration_confirms(apart_mm):
    shift = BrainShift(True, p95_mm=4.0, low_mm=3.5, high_mm=5.2, information_nats=0.3, gain_nats=0.03)
    for pose, is_shifted in ((GivenPose(GOOD, apart_mm, apart_mm), False), (GivenPose(GOOD, 0.3, 0.3), True)):
        texts = {f.code: f.text for f in judged(None, given=pose, brain_shift=shift).findings}
        assert ("brain_shift" in texts) == is_shifted
        assert ("not confirmed by a registration" in texts.get("brain_shift_not_judged", "")) != is_shifted


def test_given_pose_is_judged_by_the_registration_too():
    mirrored = replace(GOOD, mirrored_margin_nats=-0.2)
    assert judged(None, given=GivenPose(mirrored, 0.1, 0.1)).colour == "red"
    refused = judged(None, given=GivenPose(None, None, None))
    assert refused.colour == "red"
    assert "a registration to check it failed: its result was refused" in refused.reasons[0]
    assert refused.expected_error_mm is None


def test_an_unchecked_pose_is_amber():
    verdict = judged(None)
    assert (verdict.expected_error_mm, verdict.bound_mm) == (None, None)
    assert verdict.colour == "amber"
    assert "not checked" in verdict.reasons[0]


def test_every_finding_is_explained_to_planners():
    page = (ROOT / "docs" / "verdict.md").read_text(encoding="utf-8")
    assert [criterion.code for criterion in CRITERIA if f"`{criterion.code}`" not in page] == []


def test_red_findings_come_first():
    verdict = judged(replace(GOOD, margin_nats=0.07, mirrored_margin_nats=-0.2))
    assert verdict.colour == "red"
    assert [finding.level for finding in verdict.findings] == ["red", "amber"]
    assert "exchanged" in verdict.reasons[0]


def test_every_finding_is_reported():
    verdict = judged(replace(GOOD, margin_nats=0.01, agreement_mm=8.0, overlap=0.1))
    assert {finding.code for finding in verdict.findings} == {"margin", "agreement", "overlap"}


def test_a_finding_carries_its_measure_and_limit():
    (finding,) = judged(replace(GOOD, agreement_mm=0.9)).findings
    assert (finding.measure, finding.limit, finding.unit) == (0.9, 0.6, "mm")


@pytest.mark.parametrize(
    ("expected_mm", "bound_mm", "words"),
    [
        (0.6, 1.4, "Expected error 0.6 mm (in 9 of 10 such cases below 1.4 mm)"),
        (0.0, 0.0, "Expected error less than 0.1 mm (in 9 of 10 such cases below 0.1 mm)"),
        (0.049, 0.11, "Expected error less than 0.1 mm (in 9 of 10 such cases below 0.2 mm)"),
        (0.96, 1.0000001, "Expected error 1.0 mm (in 9 of 10 such cases below 1.1 mm)"),
        (12.4, 30.2, "Expected error 12 mm (in 9 of 10 such cases below 31 mm)"),
        (1.23, None, "Expected error 1.2 mm"),
    ],
)
def test_the_expected_error_is_rounded_honestly(expected_mm, bound_mm, words):
    assert Verdict("green", (), expected_mm, bound_mm).expected_error == words
    assert Verdict("red", (), expected_mm, bound_mm).expected_error is None


def test_the_bound_is_above_the_expected_error():
    verdict = judged(local=FITS)
    assert 0 < verdict.expected_error_mm < verdict.bound_mm


@pytest.mark.parametrize(
    "worse",
    [
        {"pose": replace(GOOD, sampling_error_mm=0.2)},
        {"local": local(part_mm=1.0)},
        {"local": local(shifts=[[0.4, 0, 0]] * 3)},
        {"local": local(shifts=[[3.0, 0, 0], [0, 0, 0], [0, 0, 0]])},
    ],
)
def test_worse_evidence_never_lowers_the_expected_error(worse):
    good = {"pose": GOOD, "local": local()}
    assert expected_error_mm(Evidence(**{**good, **worse})) >= expected_error_mm(Evidence(**good))


def test_unmeasured_local_errors_widen_the_bound():
    measured = Evidence(pose=GOOD, local=local())
    assert bound_mm(Evidence(pose=GOOD)) > 3 * bound_mm(measured)


def test_the_bound_grows_with_how_far_the_evidence_is_outside_the_calibration():
    table = calibration()
    farthest = table.high["scatter_mm"]
    at, twice = (Evidence(pose=replace(GOOD, sampling_error_mm=n * farthest), local=local()) for n in (1, 2))
    assert bound_mm(twice) > 2 * bound_mm(at)


def test_evidence_beyond_the_calibration_is_amber():
    verdict = judge(Evidence(pose=GOOD, local=local(shifts=[[1.5, 0, 0]] * 3)))
    assert "outside_calibration" in {finding.code for finding in verdict.findings}
    assert verdict.colour == "amber"


def test_the_included_table_has_a_weight_for_every_feature_and_none_is_negative():
    table = calibration()
    names = {feature.name for feature in FEATURES}
    for part in (table.quiet, table.unknown, table.high, table.expected.weights, table.bound.weights):
        assert set(part) == names
        assert min(part.values()) >= 0
    assert table.bound.factor >= 1


def test_nobody_is_told_an_error_that_no_simulation_can_know():
    best = Evidence(pose=replace(GOOD, sampling_error_mm=0.0, agreement_mm=0.0), local=local(0.0, [[0, 0, 0]] * 3))
    assert expected_error_mm(best) >= 0.1
    assert bound_mm(best) > expected_error_mm(best)


@pytest.mark.parametrize(("skulls_apart_mm", "colour"), [(2.2, "red"), (0.3, "amber")])
def test_regions_that_are_off_are_red_where_the_skulls_are_apart_too(skulls_apart_mm, colour):
    off = LocalErrors(21.0, np.zeros((3, 3)), np.zeros((3, 3)), replace(FITS, median_mm=4.2, high_mm=5.0))
    skull = Distortion(0.3, 0.5, 1.0, 0.3, skulls_apart_mm, skulls_apart_mm, 0.2)
    assert judge(Evidence(pose=GOOD, local=off, distortion=skull)).colour == colour


def test_each_colour_has_one_sentence():
    assert set(SENTENCES) == {"green", "amber", "red"}
    assert judged().sentence == "Green: no sign of misalignment"


@given(st.none() | st.floats(0, 5), st.floats(0, 50), st.floats(0, 1), st.floats(-1, 1))
def test_green_means_all_within_limits(margin, agreement, overlap, mirrored):
    pose = replace(GOOD, margin_nats=margin, agreement_mm=agreement, overlap=overlap, mirrored_margin_nats=mirrored)
    good = (margin is None or margin >= 0.08) and agreement <= 0.6 and overlap >= 0.5 and mirrored >= 0.015
    assert (judged(pose).colour == "green") == good


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"overlap": 0.2}, "only 20 % of the smaller head"),
        ({"margin_nats": 0.029}, "leads by 0.029 nats of mutual information (minimum 0.03)"),
        ({"agreement_mm": 1.2}, "ended 1.2 mm apart (limit 1 mm)"),
        ({"sampling_error_mm": float("inf")}, "might move it by more than 0.7 mm"),
        ({"sampling_error_mm": float("nan")}, "not a clear optimum"),
        (
            {"mirrored_margin_nats": 0.01, "agreement_mm": 0.5},
            "roughly (hardly better than when mirrored (by 0.01 nats) and two refinements end 0.5 mm apart): they may",
        ),
        ({"mirrored_margin_nats": 0.01, "sampling_error_mm": 0.2}, "and other samples move the pose by 0.20 mm"),
        (
            {"mirrored_margin_nats": 0.1, "agreement_mm": 0.5, "sampling_error_mm": 0.2},
            "roughly (two refinements end 0.5 mm apart and other samples move the pose by 0.20 mm): they may be",
        ),
    ],
)
def test_bad_pose_is_refused_with_an_explanation(changes, words):
    refused = refusal(Evidence(pose=replace(GOOD, **changes)))
    assert refused is not None
    assert words in refused.text


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"margin_nats": None},
        {"agreement_mm": 0.9},
        {"mirrored_margin_nats": 0.01},
        # Distorted, but no other person's: it beats its mirror image clearly.
        {"mirrored_margin_nats": 0.213, "agreement_mm": 0.5, "sampling_error_mm": 0.2},
        {"mirrored_margin_nats": -0.2, "agreement_mm": 3.0, "sampling_error_mm": 5.0},
    ],
)
def test_a_doubtful_or_mirrored_pose_is_not_refused(changes):
    assert refusal(Evidence(pose=replace(GOOD, **changes))) is None


# Brain and skull as a distorted MRI of the same head shows them, and as another person's does (docs/realism).
SAME = {
    "brain_shift": BrainShift(True, p95_mm=3.2, information_nats=0.4, gain_nats=0.05, noise_mm=0.2),
    "distortion": Distortion(1.2, 3.1, 1.5, 1.8, 1.3, 3.8, 0.45, 1.2),
    "local": LocalErrors(21.0, fit=replace(FITS, part_mm=3.8)),
}
ANOTHER = {
    "brain_shift": BrainShift(True, p95_mm=6.0, information_nats=0.15, gain_nats=0.05, noise_mm=1.2),
    "distortion": Distortion(2.0, 3.4, 1.5, 1.8, 2.6, 4.8, 0.87, 1.2),
    "local": LocalErrors(21.0, fit=replace(FITS, part_mm=3.8)),
}
DISTORTED = [
    {"mirrored_margin_nats": 0.05, "agreement_mm": 0.8, "sampling_error_mm": 0.42},
    {"mirrored_margin_nats": 0.08, "agreement_mm": 0.5, "sampling_error_mm": 280.0},
    {"mirrored_margin_nats": 0.05, "agreement_mm": 0.45, "sampling_error_mm": 0.55},
    {"perturbed_margin_nmi": -0.0002},
]


@pytest.mark.parametrize("changes", DISTORTED)
def test_a_distorted_pair_of_one_head_is_amber_and_not_refused_as_another_persons(changes):
    evidence = Evidence(pose=replace(GOOD, **changes), **SAME)
    assert refusal(evidence) is None
    verdict = judge(evidence)
    assert verdict.colour == "amber"
    assert "distortion" in {finding.code for finding in verdict.findings}
    assert "different people" not in " ".join(verdict.reasons)
    assert verdict.bound_mm < 50


@pytest.mark.parametrize("changes", DISTORTED)
@pytest.mark.parametrize("images", [{}, ANOTHER, {**SAME, "brain_shift": BrainShift(False, "none")}])
def test_without_images_of_one_head_such_a_pose_is_refused_or_red(changes, images):
    evidence = Evidence(pose=replace(GOOD, **changes), **images)
    refused = refusal(evidence)
    assert judge(evidence).colour == "red" if refused is None else refused.lifted_by_images


@pytest.mark.parametrize(("bias_mm", "colour"), [(0.4, "amber"), (0.7, "red")])
def test_a_misaligned_part_is_not_red_in_a_distorted_head_whose_regions_agree_on_the_pose(bias_mm, colour):
    local = LocalErrors(21.0, fit=replace(FITS, part_mm=2.9, bias_mm=bias_mm))
    skull = replace(SAME["distortion"], pose_median_mm=2.2)
    assert judge(Evidence(pose=GOOD, **{**SAME, "local": local, "distortion": skull})).colour == colour


@pytest.mark.parametrize("fit", [None, replace(FITS, median_mm=0.0, part_mm=0.0, share=0.0, least_share=1.0,
                                               high_mm=None, bias_mm=None)])  # fmt: skip
def test_a_head_of_which_no_region_was_compared_is_amber(fit):
    verdict = judged(local=fit, distortion=STRAIGHT) if fit else judge(Evidence(GOOD, local=LocalErrors(21.0)))
    assert verdict.colour == "amber"
    assert "no region of the head could be compared" in verdict.reasons[0]


WHOLE = Evidence(
    pose=GOOD, coverage=0.9, local=LocalErrors(21.0, fit=FITS), skull=SkullFit(0.5, 0.2, 0.3, False, 2.0),
    inside=Inside(0.1, 0.1, 0), brain_shift=BrainShift(True, information_nats=0.4), distortion=STRAIGHT,
    scale=Scale(0.1, 0.1, 0.1, 0.4, 0.4, 0.4),
)  # fmt: skip
NUMBERS = [
    (part, field.name)
    for part in ("pose", "local.fit", "skull", "inside", "brain_shift", "scale", "distortion")
    for field in fields(attrgetter(part)(WHOLE))
    if isinstance(getattr(attrgetter(part)(WHOLE), field.name), float)
]


@pytest.mark.parametrize(("part", "name"), NUMBERS)
def test_no_measure_that_is_not_a_number_passes_for_harmless(part, name):
    broken = replace(attrgetter(part)(WHOLE), **{name: math.nan})
    if part == "local.fit":
        part, broken = "local", replace(WHOLE.local, fit=broken)
    assert judge(WHOLE).colour == "green"
    assert judge(replace(WHOLE, **{part: broken})).colour != "green"


def test_a_brain_is_not_called_shifted_where_the_whole_head_is_off():
    shift = BrainShift(True, p95_mm=4.0, low_mm=3.5, high_mm=5.2, information_nats=0.3, gain_nats=0.03)
    for bias_mm, code in ((0.5, "brain_shift"), (1.9, "brain_shift_not_judged")):
        fit = replace(FITS, bias_mm=bias_mm)
        texts = {f.code: f.text for f in judged(None, local=fit, brain_shift=shift, distortion=APART).findings}
        assert texts.keys() & {"brain_shift", "brain_shift_not_judged"} == {code}
    assert texts[code].endswith("the whole head is misaligned in this pose")


@pytest.mark.parametrize(("away_mm", "code"), [(40.0, "brain_shift"), (69.0, "part_displaced")])
def test_a_displaced_brain_in_an_mri_far_from_the_isocentre_may_be_distorted(away_mm, code):
    shift = BrainShift(True, p95_mm=3.5, low_mm=3.0, high_mm=4.6, information_nats=0.5, gain_nats=0.07)
    mri = MriAcquisition(distortion_correction="none", isocentre_mm=away_mm)
    found = judged(brain_shift=shift, distortion=STRAIGHT, acquisition=PairAcquisition(mri=mri)).findings
    assert {finding.code for finding in found} & {"brain_shift", "part_displaced"} == {code}


def test_reminder_findings_and_page_name_the_same_sizes_that_may_be_missed():
    assert f"shifts of the brain below about {displaced.MISSED_SHIFT_MM} mm" in CALIBRATION
    assert f"distortion of the MRI below about {displaced.MISSED_DISTORTION_MM} mm" in CALIBRATION
    coarse = Distortion(0.1, 0.1, 0.1, 0.1, 0.1, 0.1, 0.1, voxel_mm=3.0)
    (said,) = (f.text for f in judged(distortion=coarse).findings if f.code == "distortion_not_judged")
    assert f"by about {displaced.MISSED_DISTORTION_MM} mm may be missed" in said
    page = (ROOT / "docs" / "verdict.md").read_text(encoding="utf-8")
    cannot_see = page[page.index("## What it cannot see") :]
    assert f"contrast in common | {displaced.MISSED_SHIFT_MM} |" in cannot_see
    assert "brain shift below" not in cannot_see


@pytest.mark.parametrize(
    ("nats", "words"),
    [
        (0.1, f"below about {displaced.MISSED_IN_LITTLE_MM} mm"),
        (0.04, f"below about {displaced.MISSED_IN_HARDLY_ANY_MM} mm"),
    ],
)
def test_the_less_is_seen_of_the_brain_the_larger_a_shift_may_be_missed(nats, words):
    shift = BrainShift(True, p95_mm=2.0, information_nats=nats, gain_nats=0.001)
    assert words in " ".join(judged(brain_shift=shift).reasons)


@pytest.mark.parametrize("criterion", CRITERIA, ids=lambda criterion: criterion.code)
@pytest.mark.parametrize("value", [-1e-9, 0.0, 1e-9])
def test_no_text_of_a_criterion_shows_a_negative_zero(criterion, value):
    for template in (criterion.text, criterion.refusal):
        names = {name for _, name, _, _ in Formatter().parse(template) if name}
        words = dict.fromkeys(names - {"value", "limit", "percent", "limit_percent", "deficit"}, "")
        assert "-0" not in criterion._phrased(template, value, 0.5, words)


def test_a_landmark_that_two_clicks_explain_is_told_with_the_bound_of_the_verdict():
    bound = judged().bound_mm
    verdict = judged(landmarks=LandmarkFit(4, 1.0, math.hypot(bound, 2.0)))
    (finding,) = verdict.findings
    assert (finding.code, finding.level) == ("landmark_above_bound", "green")
    assert f"({bound_length(verdict.bound_mm)})" in finding.text
    assert f"below {bound_length(verdict.bound_mm)})" in verdict.expected_error
    far = {finding.code for finding in judged(landmarks=LandmarkFit(4, 1.0, math.hypot(bound, 5.0))).findings}
    assert far == {"landmark_far"}


def test_signs_of_another_head_show_no_negative_zero():
    found = replace(GOOD, mirrored_margin_nats=-0.001)
    assert "-0" not in words_of_signs(Evidence(pose=found))["signs"]


def test_heads_without_overlap_are_refused_with_a_remedy():
    refused = refusal(Evidence(coverage=0.01))
    assert refused is not None
    assert "covers only 1 %" in refused.text
    assert refused.remedy is Remedy.REGISTER
    assert refusal(Evidence(coverage=0.06)) is None


@pytest.mark.parametrize(
    ("inside", "colour", "words"),
    [
        (Inside(2.0, 2.0, 2), "green", "calibrated"),
        (Inside(12.3, 0.0, 1), "green", "about 12 mL of air inside the skull: the brain may have shifted"),
        (Inside(41.0, 0.0, 1), "green", "about 41 mL of air"),
        (Inside(0.0, 8.4, 0), "green", "about 8 cm² of the vault is without bone"),
        (Inside(0.0, 95.0, 0), "amber", "about 95 cm² of the vault"),
    ],
)
def test_air_and_missing_bone_are_told(inside, colour, words):
    verdict = judged(inside=inside)
    assert verdict.colour == colour
    assert words in verdict.reasons[0]


@pytest.mark.parametrize(
    ("brightness", "air", "is_said"),
    [(0.2, 0, False), (0.51, 0, False), (0.79, 0, True), (1.0, 0.1, True), (0.9, 0.99, False)],
)
def test_an_mri_with_bright_bone_beside_dark_air_is_amber(brightness, air, is_said):
    verdict = judged(skull=SkullFit(0.5, 0.2, brightness, False, 2.0, air))
    assert {finding.code: finding.level for finding in verdict.findings}.get("bright_skull") == (
        "amber" if is_said else None
    )


def test_green_findings_come_last_and_keep_the_colour():
    verdict = judged(replace(GOOD, agreement_mm=0.9), inside=Inside(12.0, 0.0, 1))
    assert verdict.colour == "amber"
    assert [finding.level for finding in verdict.findings] == ["amber", "green"]


def test_codes_are_unique_and_templates_complete():
    assert len({criterion.code for criterion in CRITERIA}) == len(CRITERIA)
    for criterion in CRITERIA:
        assert criterion.name
        assert (criterion.green is criterion.amber is criterion.red is None) == (not criterion.text)
        assert (criterion.refuse is None) == (not criterion.refusal)
        assert "allowed" not in criterion.text + criterion.refusal


@pytest.mark.parametrize(
    ("shift_mm", "distortion_mm", "is_said"), [(2.5, 0.0, False), (2.5, 1.1, True), (5.0, 1.1, False)]
)
def test_displacements_below_their_limits_are_said_where_they_come_together(shift_mm, distortion_mm, is_said):
    distortion = Distortion(0.0, distortion_mm, 0.0, 0.0, 0.0, 0.0, 0.0)
    verdict = judged(brain_shift=BrainShift(True, p95_mm=shift_mm), distortion=distortion)
    assert ("together" in {finding.code for finding in verdict.findings}) == is_said


def test_a_new_criterion_is_one_row():
    toy = Criterion(
        "toy", "toy", lambda evidence: 3.0, "at most", amber=2.0, unit="mm", text="toy {value:g} > {limit:g}"
    )
    verdict = judge(Evidence(pose=GOOD), (*CRITERIA, toy))
    assert verdict.colour == "amber"
    assert verdict.reasons[0] == "toy 3 > 2"


RECORDS = ROOT / "docs" / "verdict" / "records.csv"


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


def test_share_bound_is_clopper_pearson():
    assert at_least(41, 41) == pytest.approx(0.05 ** (1 / 41))
    assert at_least(8, 10) == pytest.approx(0.4931, abs=1e-4)  # of their tables
    assert at_least(0, 10) == pytest.approx(0, abs=1e-9)
