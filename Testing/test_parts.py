"""The test of a part of the brain: of phantoms a part of which is moved in the CT, and of readings."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from BrainFusionLib.acquisition import CtAcquisition, PairAcquisition
from BrainFusionLib.evidence import BrainShift, Evidence
from BrainFusionLib.geometry import apply_affine
from BrainFusionLib.intensity.inside import inside_skull
from BrainFusionLib.phantom import head_grid, make_phantom
from BrainFusionLib.verdict import matching, parts
from BrainFusionLib.verdict.brain_shift import brain_shift
from BrainFusionLib.verdict.judge import judge
from BrainFusionLib.verdict.moved import CERTAIN_PART_NATS, SEEING_NATS

GRID = head_grid(2.0)


@pytest.fixture(scope="module")
def head():
    """A CT and an MRI with hardly more in common than noise leaves."""
    phantom = make_phantom(4, lesions=False, electrode=False)
    ct = phantom.ct(GRID, noise_hu=20.0)
    return ct, phantom.mri("T1", GRID, noise=0.1), inside_skull(ct)


def with_left_moved(ct, inside, mm):
    """Return a CT whose brain is moved up around a place 35 mm left of its middle; the nearest voxel's value."""
    k, j, i = np.indices(GRID.shape_kji)
    points = apply_affine(GRID.lps_from_ijk, np.stack([i, j, k], axis=-1))
    near = np.exp(-0.5 * (np.linalg.norm(points - inside.centre_lps_mm - [35, 0, 20], axis=-1) / 22) ** 2)
    moved = mm * near * np.clip(inside.depth_on(GRID) / 12, 0, 1)
    then = np.rint(k - moved / GRID.spacing_ijk_mm[2]).astype(int)
    return ct.with_array(np.where(inside.depth_on(GRID) > 2, ct.array_kji[then, j, i], ct.array_kji))


def test_moved_part_is_found_with_its_length_and_place(head):
    ct, mri, inside = head
    found = brain_shift(with_left_moved(ct, inside, 6.0), mri, inside)
    assert found.part_nats > CERTAIN_PART_NATS
    assert 3 < found.part_mm < 9
    assert "left" in found.part_place


def test_brain_in_its_place_has_no_moved_part_though_one_would_be_seen(head):
    found = brain_shift(*head)
    assert found.part_nats < CERTAIN_PART_NATS
    assert found.part_place == ""
    assert found.part_power_nats > SEEING_NATS


def test_part_is_the_same_without_the_compiled_library(head, monkeypatch):
    compiled = brain_shift(*head)
    monkeypatch.setattr(matching, "_compiled", lambda: None)
    assert brain_shift(*head).part_power_nats == pytest.approx(compiled.part_power_nats, rel=1e-3)


def test_power_is_less_where_less_is_in_common(head):
    ct, mri, inside = head
    noise = np.random.default_rng(3).normal(0, 20, GRID.shape_kji).astype(np.float32)
    noisier = ct.with_array(np.where(inside.depth_on(GRID) > 0, ct.array_kji + noise, ct.array_kji))
    assert brain_shift(noisier, mri, inside).part_power_nats < 0.9 * brain_shift(*head).part_power_nats


def test_no_part_is_measured_in_too_little_brain():
    one = np.ones((8, 8, 8), np.float32)
    assert parts.moved_part(one, one, 10 * one, one, np.full(3, 2.0), np.eye(3)) is None


def test_nearest_step_is_the_one_with_the_smallest_angle():
    vectors = np.random.default_rng(1).standard_normal((200, 3))
    unit = parts.STEPS / np.linalg.norm(parts.STEPS, axis=1, keepdims=True)
    found = parts._nearest_step(vectors)
    best = (vectors @ unit.T).max(axis=1)
    assert np.all((vectors * unit[found]).sum(axis=1) > 0.93 * best)
    assert (parts._nearest_step(parts.STEPS) == np.arange(26)).all()


# --- what is made of a reading ----------------------------------------------------------------------------------------

# A brain in PD of which blocks read noise.
NOISE = BrainShift(
    True, p95_mm=3.6, low_mm=3.1, high_mm=4.7, information_nats=0.05, gain_nats=0.006, ventricles_mm=0.2,
    ventricles_sd_mm=0.15, whole_mm=0.4, whole_sd_mm=0.15, part_nats=5.0, part_mm=3.0, part_place="left front",
    part_power_nats=90.0,
)  # fmt: skip
HARDLY_ANY = replace(NOISE, judged=False, reason="the CT's brain has too little contrast", information_nats=0.02)
CONE_BEAM = PairAcquisition(ct=CtAcquisition(cone_beam=True))


def levels_of(shift, **other):
    return {finding.code: finding.level for finding in judge(Evidence(brain_shift=shift, **other)).findings}


LOUD_NOISE = replace(NOISE, p95_mm=5.0, gain_nats=0.014)


@pytest.mark.parametrize("shift", [NOISE, HARDLY_ANY, LOUD_NOISE, replace(LOUD_NOISE, information_nats=0.13)])
def test_noise_of_blocks_is_no_sign_of_a_shift_where_a_moved_part_would_be_seen(shift):
    assert levels_of(shift)["brain_shift_not_judged"] == "green"


@pytest.mark.parametrize("changes", [{"part_power_nats": 30.0}, {"part_nats": 25.0}, {"whole_mm": 2.0}])
def test_what_blocks_gain_is_a_shift_where_no_other_test_denies_it(changes):
    assert levels_of(replace(LOUD_NOISE, **changes))["brain_shift"] == "amber"


@pytest.mark.parametrize("p95_mm", [2.5, 5.0])
def test_where_only_ventricles_have_changed_their_length_is_said_and_not_that_of_blocks(p95_mm):
    shift = replace(LOUD_NOISE, p95_mm=p95_mm, ventricles_mm=1.1, information_nats=0.13)
    found = {f.code: f.text for f in judge(Evidence(brain_shift=shift)).findings if f.level == "amber"}
    assert set(found) == {"ventricles_changed", "pose_not_checked"}
    assert "about 1–2 mm" in found["ventricles_changed"]


@pytest.mark.parametrize(
    ("changes", "other"),
    [
        ({"part_power_nats": 30.0}, {}),
        ({"part_nats": None, "part_mm": None, "part_power_nats": None}, {}),
        ({"ventricles_mm": None}, {}),
        ({}, {"acquisition": CONE_BEAM}),
    ],
)
def test_noise_of_blocks_stays_amber_where_no_other_test_would_see_a_shift(changes, other):
    assert levels_of(replace(NOISE, **changes), **other)["brain_shift_not_judged"] == "amber"


@pytest.mark.parametrize(
    ("shift", "code"),
    [
        (replace(NOISE, p95_mm=1.2), "small_shift_not_judged"),
        (replace(HARDLY_ANY, p95_mm=1.2), "brain_shift_not_judged"),
    ],
)
def test_pair_is_amber_if_not_even_a_part_moved_by_4_mm_would_be_seen(shift, code):
    assert levels_of(replace(shift, p95_mm=1.2))[code] == "green"
    assert levels_of(replace(shift, p95_mm=1.2, part_power_nats=30.0))[code] == "amber"


@pytest.mark.parametrize("shift", [NOISE, HARDLY_ANY, replace(NOISE, p95_mm=1.2)])
def test_moved_part_is_amber_with_its_own_length_and_place(shift):
    findings = judge(Evidence(brain_shift=replace(shift, part_nats=25.0, part_mm=5.0))).findings
    (found,) = (finding for finding in findings if finding.code.startswith(("brain_shift", "part_displaced")))
    assert (found.code, found.level) == ("part_displaced", "amber")
    assert "about 3–8 mm" in found.text
    assert "left front" in found.text


@pytest.mark.parametrize(
    "changes", [{"information_nats": 0.3, "p95_mm": 0.8, "gain_nats": 0.0}, {"ventricles_mm": 1.5, "p95_mm": 1.2}]
)
def test_part_is_not_said_where_blocks_see_more_or_the_ventricles_have_changed(changes):
    assert "part_displaced" not in levels_of(replace(NOISE, part_nats=25.0, **changes))


@pytest.mark.parametrize(
    ("part_nats", "sd_mm", "changed"), [(0.0, 0.15, False), (0.0, 0.1, True), (5.0, 0.15, True), (None, 0.15, True)]
)
def test_ventricles_that_the_test_of_parts_denies_must_read_more_certain(part_nats, sd_mm, changed):
    shift = replace(NOISE, p95_mm=0.8, gain_nats=0.0, part_nats=part_nats, ventricles_mm=0.9, ventricles_sd_mm=sd_mm)
    assert ("ventricles_changed" in levels_of(shift)) == changed


def test_shift_of_which_blocks_tell_for_certain_keeps_their_length():
    (found,) = (
        finding
        for finding in judge(Evidence(brain_shift=replace(NOISE, gain_nats=0.02, part_nats=25.0, part_mm=8.0))).findings
        if finding.code == "brain_shift"
    )
    assert "about 3–5 mm" in found.text
