"""Tests of few degrees of freedom: of phantoms whose brain is moved in the CT, as one or away from the ventricles."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest

from BrainFusionLib.acquisition import CtAcquisition, PairAcquisition
from BrainFusionLib.evidence import BrainShift, Distortion, Evidence, LocalErrors, LocalFit, PoseEvidence
from BrainFusionLib.geometry import apply_affine
from BrainFusionLib.intensity.inside import inside_skull
from BrainFusionLib.phantom import head_grid, make_phantom
from BrainFusionLib.resample import resample_onto
from BrainFusionLib.verdict import modes
from BrainFusionLib.verdict.brain_shift import brain_shift
from BrainFusionLib.verdict.expected import bound_mm, features
from BrainFusionLib.verdict.judge import judge
from BrainFusionLib.verdict.moved import has_moved_as_one

GRID = head_grid(2.0)


@pytest.fixture(scope="module")
def head():
    phantom = make_phantom(4, lesions=False, electrode=False)
    ct = phantom.ct(GRID, noise_hu=6.0)
    return ct, phantom.mri("T1", GRID, noise=0.02), inside_skull(ct)


def widened(ct, inside, mm):
    """Return a CT whose brain is moved away from its middle by up to so much, at 22 mm; the nearest voxel's value."""
    k, j, i = np.indices(GRID.shape_kji)
    away = apply_affine(GRID.lps_from_ijk, np.stack([i, j, k], axis=-1)) - inside.centre_lps_mm
    far = np.linalg.norm(away, axis=-1, keepdims=True) / 22.0
    depth = inside.depth_on(GRID)
    moved = mm * away / 22.0 * np.exp(0.5 * (1 - far**2)) * np.clip(depth / 20, 0, 1)[..., None]
    then = np.rint(np.stack([k, j, i], axis=-1) - moved[..., ::-1] / 2.0).astype(int)
    return ct.with_array(np.where(depth > 2, ct.array_kji[tuple(np.moveaxis(then, -1, 0))], ct.array_kji))


@pytest.mark.parametrize("mm", [3.0, -3.0])
def test_ventricles_that_became_wider_or_narrower_are_found_with_their_sign(head, mm):
    ct, mri, inside = head
    found = brain_shift(widened(ct, inside, mm), mri, inside)
    assert found.ventricles_mm * np.sign(mm) > 1
    assert found.ventricles_sd_mm < 0.3


def test_ventricles_that_did_not_change_read_little(head):
    found = brain_shift(*head)
    assert abs(found.ventricles_mm) < 0.5


def test_ventricles_blurred_by_thick_slices_read_no_wider(head):
    thick = make_phantom(4, lesions=False, electrode=False).ct(GRID.with_spacing((1.0, 1.0, 5.0)), noise_hu=6.0)
    found = brain_shift(resample_onto(thick, GRID), head[1], inside_skull(thick))
    assert found.ventricles_mm > 0.25
    assert abs(modes.without_blur(found, 5.0).ventricles_mm) < 0.15


def test_ventricles_are_not_judged_without_fluid_or_brain():
    spacing, depth = np.full(3, 2.0), np.full((40, 40, 40), 40.0, np.float32)
    hu = np.full(depth.shape, 30.0, np.float32)
    assert modes.ventricles_moved(modes.seen_in(hu, hu, depth, spacing)) == (None, None)
    assert modes.seen_in(hu, hu, depth - 60, spacing) is None


@pytest.mark.parametrize("spread", [0.0, 10.0])
def test_ventricles_are_not_called_changed_in_an_mri_that_shows_nothing(head, spread):
    ct, mri, inside = head
    noise = np.random.default_rng(1).normal(100, spread, (30, 30, 30)).astype(np.float32)
    empty = np.kron(noise, np.ones((4, 4, 4), np.float32))[tuple(slice(n) for n in GRID.shape_kji)]
    found = brain_shift(ct, mri.with_array(empty), inside)
    assert "ventricles_changed" not in texts_of(found)


@pytest.mark.parametrize(("far", "certain"), [(40.0, True), (0.5, False)])
def test_a_change_beyond_the_lengths_tried_is_as_certain_as_its_gain(far, certain):
    moved_mm, sd_mm = modes._best(far * np.arange(9.0) ** 2)
    assert moved_mm == -4.0
    assert (abs(moved_mm) > 3 * sd_mm) == certain


SURE = BrainShift(True, p95_mm=0.6, information_nats=0.06, ventricles_mm=1.4, ventricles_sd_mm=0.2)
POSE = PoseEvidence(
    similarity_nmi=1.21, margin_nats=0.3, agreement_mm=0.05, perturbed_margin_nmi=0.02, overlap=0.9, thinnest_mm=150.0,
    thickest_voxel_mm=1.2, mirrored_margin_nats=0.2, sampling_error_mm=0.02, lever=1.01,
)  # fmt: skip
CONE_BEAM = PairAcquisition(ct=CtAcquisition(cone_beam=True))


def texts_of(shift, **other):
    findings = judge(Evidence(brain_shift=shift, **other)).findings
    return {finding.code: (finding.level, finding.text) for finding in findings}


def test_ventricles_in_coarse_voxels_must_have_changed_by_more():
    straight = Distortion(0.2, 0.4, 1.0, 0.3, 1.3, 2.0, 0.3)
    fine, coarse = (replace(straight, voxel_mm=mm) for mm in (2.0, 4.0))
    assert "ventricles_changed" in texts_of(SURE, distortion=fine)
    assert "ventricles_changed" not in texts_of(SURE, distortion=coarse)


def test_changed_ventricles_are_amber_and_end_the_words_that_none_may_be_seen():
    found = texts_of(SURE)
    level, text = found["ventricles_changed"]
    assert level == "amber"
    assert text.startswith("the ventricles are wider in the CT than in the MRI: the brain beside them has moved by")
    assert "about 1–3 mm" in text
    assert "small_shift_not_judged" not in found
    assert "narrower" in texts_of(replace(SURE, ventricles_mm=-1.2))["ventricles_changed"][1]


@pytest.mark.parametrize(
    ("changes", "other"),
    [
        ({"ventricles_mm": 0.7}, {}),
        ({"ventricles_mm": -0.5}, {}),
        ({"ventricles_sd_mm": 0.44}, {}),
        ({"ventricles_mm": 4.0, "ventricles_sd_mm": 0.6}, {}),
        ({"ventricles_mm": None, "ventricles_sd_mm": None}, {}),
        ({}, {"acquisition": CONE_BEAM}),
        ({"p95_mm": 4.0, "gain_nats": 0.05}, {}),
        # Much is in common, and yet blocks see nothing: white matter that CT and MRI show otherwise.
        ({"p95_mm": 0.9, "information_nats": 0.4}, {}),
    ],
)
def test_ventricles_are_not_called_changed_if_little_uncertain_or_part_of_a_shift(changes, other):
    assert "ventricles_changed" not in texts_of(replace(SURE, **changes), **other)


def test_ventricles_are_called_changed_where_much_is_in_common_and_blocks_see_it_too():
    assert "ventricles_changed" in texts_of(replace(SURE, p95_mm=1.0, information_nats=0.4))


def test_ventricles_count_where_the_shift_cannot_be_judged():
    assert "ventricles_changed" in texts_of(
        replace(SURE, judged=False, reason="the CT's brain has too little contrast")
    )


def test_ventricles_that_changed_may_have_moved_half_the_brain_by_half_of_what_they_read():
    local = LocalErrors(21.0, fit=LocalFit(0.3, 0.2, 0.95, 0.9, 3.0, 0.6, 0.05))
    changed, same = (Evidence(POSE, local=local, brain_shift=replace(SURE, ventricles_mm=mm)) for mm in (1.6, 0.1))
    assert bound_mm(changed) > math.hypot(bound_mm(same), 0.5 * 1.5)


def test_ventricles_that_changed_count_in_the_expected_error():
    changed, little = (Evidence(POSE, brain_shift=replace(SURE, ventricles_mm=mm)) for mm in (1.4, 0.2))
    assert features(changed)["ventricles_mm"] == pytest.approx(1.3)
    assert features(little)["ventricles_mm"] == 0
    assert bound_mm(changed) > bound_mm(little)


def test_brain_that_moved_as_one_is_measured_and_one_in_its_place_is_not(head):
    ct, mri, inside = head
    k, j, i = np.indices(GRID.shape_kji)
    moved = np.rint(j - 4.0 / 2.0 * np.clip(inside.depth_on(GRID) / 20, 0, 1)).astype(int)
    sagged = ct.with_array(np.where(inside.depth_on(GRID) > 2, ct.array_kji[k, moved, i], ct.array_kji))
    found, still = brain_shift(sagged, mri, inside), brain_shift(*head)
    assert found.whole_mm > 2
    assert has_moved_as_one(found)
    assert still.whole_mm < 0.4


SAGGED = BrainShift(
    True, p95_mm=3.4, low_mm=3.0, high_mm=4.4, information_nats=0.04, gain_nats=0.002, whole_mm=1.4, whole_sd_mm=0.2
)  # fmt: skip


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({}, "brain_shift"),
        ({"p95_mm": 2.0}, "part_displaced"),
        ({"judged": False, "reason": "the CT's brain has too little contrast"}, "brain_shift"),
        ({"whole_mm": 0.9}, "brain_shift_not_judged"),
        ({"whole_sd_mm": 0.35}, "brain_shift_not_judged"),
        ({"whole_mm": None}, "brain_shift_not_judged"),
    ],
)
def test_displacement_that_gains_little_is_said_if_the_brain_has_moved_as_one(changes, code):
    codes = texts_of(replace(SAGGED, **changes)).keys()
    assert codes & {"brain_shift", "part_displaced", "brain_shift_not_judged"} == {code}


def test_shift_that_the_verdict_states_though_blocks_cannot_judge_it_counts_in_the_error():
    hidden = replace(SAGGED, judged=False, reason="the CT's brain has too little contrast", whole_mm=3.0)
    stated, silent = (Evidence(POSE, brain_shift=replace(hidden, whole_mm=mm)) for mm in (3.0, 0.9))
    assert features(stated)["brain_shift_mm"] == pytest.approx(1.8)
    assert features(silent)["brain_shift_mm"] == 1.0
    assert bound_mm(stated) > bound_mm(silent)


def test_shift_as_one_of_a_pose_that_is_wrong_does_not_count_as_a_shift():
    hidden = replace(SAGGED, judged=False, reason="the CT's brain has too little contrast", whole_mm=3.0)
    cone_beam = Evidence(POSE, brain_shift=hidden, acquisition=CONE_BEAM)
    assert features(cone_beam)["brain_shift_mm"] == 1.0
