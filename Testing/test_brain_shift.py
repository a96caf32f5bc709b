"""Shift of the brain against the skull, on phantoms whose brain is moved in the CT."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from BrainFusionLib.acquisition import CtAcquisition, PairAcquisition
from BrainFusionLib.evidence import BrainShift, Distortion, Evidence, Inside, LocalErrors, LocalFit, SkullFit
from BrainFusionLib.geometry import apply_affine
from BrainFusionLib.intensity.inside import inside_skull
from BrainFusionLib.phantom import head_grid, make_phantom
from BrainFusionLib.verdict import matching
from BrainFusionLib.verdict.brain_shift import brain_shift
from BrainFusionLib.verdict.judge import judge
from BrainFusionLib.verdict.matching import gains, shifts_within
from BrainFusionLib.verdict.sides import direction_in_words, place_in_words
from BrainFusionLib.volume import Volume

GRID = head_grid(2.0)
SHIFTS = {"brain_shift", "part_displaced", "brain_shift_not_judged", "small_shift_not_judged"}
# Below the left front of the vault, in the phantom's frame.
PLACE, REACH_MM = np.array([30.0, -35.0, 35.0]), 35.0


@pytest.fixture(scope="module")
def head():
    phantom = make_phantom(4, lesions=False, electrode=False)
    ct = phantom.ct(GRID, noise_hu=4.0)
    return ct, phantom.mri("T1", GRID), inside_skull(ct)


def sagged(ct, inside, to_lps_mm, place=PLACE, reach_mm=REACH_MM):
    """Return a CT whose brain is moved near a place, less towards the bone; the nearest voxel's value."""
    k, j, i = np.indices(GRID.shape_kji)
    points = apply_affine(GRID.lps_from_ijk, np.stack([i, j, k], axis=-1))
    near = np.exp(-0.5 * (np.linalg.norm(points - np.asarray(place), axis=-1) / reach_mm) ** 2)
    depth = inside.depth_on(GRID)
    weight = near * np.clip(depth / 15, 0, 1)
    then = np.rint(np.stack([k, j, i], axis=-1) - weight[..., None] * np.array(to_lps_mm)[::-1] / 2.0).astype(int)
    moved = ct.array_kji[tuple(np.moveaxis(then, -1, 0))]
    return ct.with_array(np.where((depth > 2) & (moved < 150), moved, ct.array_kji))


def test_shifted_brain_is_found_with_its_place_and_direction(head):
    ct, mri, inside = head
    found = brain_shift(sagged(ct, inside, (-6.0, 6.0, -4.0)), mri, inside)
    assert found.judged
    assert found.p95_mm > 4
    assert found.low_mm < found.p95_mm < found.high_mm
    assert "front" in found.place
    assert "back" in found.direction
    assert found.gain_nats > 0


def test_unshifted_brain_is_not_called_shifted(head):
    found = brain_shift(head[0], head[1], head[2])
    assert found.judged
    assert found.p95_mm < 1.5


def slab(volume, low_mm, high_mm):
    """Return the part of a volume on `GRID` between two heights."""
    z = GRID.origin_lps_mm[2] + 2.0 * np.arange(GRID.size_ijk[2])
    layers = np.flatnonzero((z > low_mm) & (z < high_mm))
    i, j, _ = GRID.size_ijk
    origin = (*GRID.origin_lps_mm[:2], float(z[layers[0]]))
    return Volume(volume.array_kji[layers], replace(GRID, size_ijk=(i, j, len(layers)), origin_lps_mm=origin))


def test_shift_is_judged_in_a_slab_of_the_brain(head):
    ct, mri, inside = head
    part, moved = slab(mri, 5, 55), sagged(ct, inside, (-6.0, 6.0, -4.0))
    assert brain_shift(slab(moved, 5, 55), part, inside).p95_mm > 3
    there = brain_shift(slab(ct, 5, 55), part, inside)
    assert there.judged
    assert there.p95_mm < 1.5


def test_lesion_that_flair_and_ct_show_differently_is_not_called_a_shift():
    phantom, grid = make_phantom(6, electrode=False), head_grid(1.5)
    ct, mri = phantom.ct(grid, noise_hu=6.0), phantom.mri("FLAIR", grid)
    found = brain_shift(ct, mri, inside_skull(ct))
    assert found.judged
    assert found.p95_mm < 1.5


def test_shift_of_a_brain_without_contrast_is_not_judged(head):
    ct, mri, inside = head
    noise = np.random.default_rng(0).normal(30, 8, ct.array_kji.shape).astype(np.float32)
    found = brain_shift(ct.with_array(np.where(inside.depth_on(GRID) > 0, noise, ct.array_kji)), mri, inside)
    assert not found.judged
    assert "contrast" in found.reason


def test_shift_is_not_judged_without_a_skull(head):
    assert brain_shift(head[0], head[1], None) == BrainShift(False, "no closed skull is in view")


@pytest.mark.parametrize("edge", [(4, 4, 4), (4, 3, 2), (3, 4, 6)])
def test_gains_without_the_c_library_are_the_same(edge, monkeypatch):
    random = np.random.default_rng(1)
    a, b, f = random.normal(size=(3, 12, 8, 14)).astype(np.float32)
    # To the end of the volume, by more shifts in a row than C tries at once.
    blocks, edge, shifts = np.argwhere(np.ones((3, 2, 3))) * 4, np.array(edge), shifts_within(9.0, np.full(3, 2.0))
    compiled = gains(a, b, f, blocks, edge, shifts)
    monkeypatch.setattr(matching, "_compiled", lambda: None)
    np.testing.assert_allclose(gains(a, b, f, blocks, edge, shifts), compiled, rtol=1e-4, atol=1e-4)
    k, j, i = (slice(first, first + int(n)) for first, n in zip((4, 0, 4), edge, strict=True))
    here = (f * (a + b * f))[k, j, i].sum()
    np.testing.assert_allclose(compiled[7, shifts.zero], here, rtol=1e-4)


def test_shift_after_surgery_is_said_from_a_smaller_one_on():
    shift = BrainShift(
        True, p95_mm=2.4, low_mm=2.6, high_mm=4.2, place="left front", information_nats=0.3, gain_nats=0.005
    )
    assert judge(Evidence(brain_shift=shift)).colour == judge(Evidence()).colour
    after = judge(Evidence(brain_shift=shift, inside=Inside(20.0, 0.0, 1)))
    texts = [finding.text for finding in after.findings if finding.code == "brain_shift"]
    assert texts == ["the brain has shifted by about 3–4 mm against the skull, most at the left front"]
    same = judge(Evidence(brain_shift=replace(shift, high_mm=3.4, p95_mm=3.0))).findings
    assert any("by about 3 mm against" in finding.text for finding in same)


CERTAIN = BrainShift(
    True, p95_mm=1.9, low_mm=1.6, high_mm=2.5, place="left front", information_nats=0.3, gain_nats=0.02
)  # fmt: skip


@pytest.mark.parametrize(
    ("changes", "codes"),
    [
        ({}, {"part_displaced"}),
        ({"gain_nats": 0.009}, {"part_displaced"}),
        ({"gain_nats": 0.003}, set()),
        ({"p95_mm": 1.2}, {"part_displaced"}),
        ({"p95_mm": 1.2, "gain_nats": 0.008}, set()),
        ({"p95_mm": 4.0}, {"brain_shift"}),
        ({"p95_mm": 4.0, "gain_nats": 0.002}, {"brain_shift_not_judged"}),
        ({"p95_mm": 4.0, "gain_nats": 0.009, "information_nats": 0.06}, {"brain_shift_not_judged"}),
        ({"p95_mm": 4.0, "gain_nats": 0.016, "information_nats": 0.06}, {"brain_shift"}),
        ({"gain_nats": 0.003, "information_nats": 0.06}, {"small_shift_not_judged"}),
        ({"gain_nats": 0.009, "information_nats": 0.06}, {"small_shift_not_judged"}),
        ({"gain_nats": 0.003, "information_nats": 0.2}, {"small_shift_not_judged"}),
        ({"information_nats": 0.2}, {"part_displaced"}),
    ],
)
def test_displacement_is_said_as_far_as_it_makes_the_images_agree_better(changes, codes):
    findings = judge(Evidence(brain_shift=replace(CERTAIN, **changes))).findings
    assert {finding.code for finding in findings} & SHIFTS == codes


@pytest.mark.parametrize(("brightness", "code"), [(0.01, "part_displaced"), (0.2, "brain_shift")])
def test_displacement_in_a_skull_stripped_mri_may_be_distortion_as_well(brightness, code):
    band = SkullFit(shift_mm=0.4, depth=0.08, brightness=brightness, at_edge=False, voxel_mm=2.0)
    shift = replace(CERTAIN, p95_mm=4.0, low_mm=3.5, high_mm=5.2)
    assert {f.code for f in judge(Evidence(brain_shift=shift, skull=band)).findings} & SHIFTS == {code}


def test_displacement_with_a_distorted_skull_is_not_called_a_shift():
    distorted = Distortion(1.0, 3.0, 1.2, 1.0, 1.0, 2.0, 0.3)
    shift = replace(CERTAIN, p95_mm=4.0, low_mm=3.5, high_mm=5.2)
    findings = {f.code: f for f in judge(Evidence(brain_shift=shift, distortion=distorted)).findings}
    assert findings.keys() & SHIFTS == {"part_displaced"}
    assert "or the two show a lesion there differently" in findings["part_displaced"].text
    for p95_mm, code in ((4.0, "part_displaced"), (6.0, "brain_shift")):  # of a head that was opened
        evidence = Evidence(brain_shift=replace(shift, p95_mm=p95_mm), distortion=distorted, inside=Inside(20, 0, 1))
        assert {f.code for f in judge(evidence).findings} & SHIFTS == {code}


@pytest.mark.parametrize(
    ("changes", "is_said"),
    [({}, False), ({"p95_mm": 1.3}, True), ({"gain_nats": 0.004}, True), ({"information_nats": 0.1}, True)],
)
@pytest.mark.parametrize("inside", [Inside(10, 0, 0), Inside(0, 20, 0)])
def test_after_surgery_a_brain_is_amber_unless_shown_in_its_place(changes, is_said, inside):
    brain = replace(CERTAIN, **{"p95_mm": 1.1, "gain_nats": 0.002, **changes})
    levels = {finding.code: finding.level for finding in judge(Evidence(brain_shift=brain, inside=inside)).findings}
    assert levels.get("after_surgery") == ("amber" if is_said else None)
    assert "after_surgery" not in {finding.code for finding in judge(Evidence(brain_shift=brain)).findings}


@pytest.mark.parametrize(
    ("inside", "nats", "is_said"),
    [
        (Inside(0, 7, 0), 0.4, False),
        (Inside(0, 7, 0), 0.2, True),
        (Inside(6, 7, 0), 0.4, True),
        (Inside(0, 11, 0), 0.4, True),
    ],
)
def test_below_a_small_hole_the_brain_must_be_shown_in_its_place_only_where_little_is_in_common(inside, nats, is_said):
    brain = replace(CERTAIN, p95_mm=1.3, gain_nats=0.007, information_nats=nats)
    codes = {finding.code for finding in judge(Evidence(brain_shift=brain, inside=inside)).findings}
    assert ("after_surgery" in codes) == is_said


def test_a_displacement_that_is_said_is_not_said_again_after_surgery():
    inside = Inside(10, 0, 0)
    for changes in ({}, {"p95_mm": 4.0}, {"p95_mm": 4.0, "gain_nats": 0.002}):
        findings = judge(Evidence(brain_shift=replace(CERTAIN, **changes), inside=inside)).findings
        assert "after_surgery" not in {finding.code for finding in findings}


@pytest.mark.parametrize(("p95_mm", "level"), [(2.0, "green"), (3.0, "amber")])
def test_large_displacement_of_a_brain_hardly_seen_is_never_green(p95_mm, level):
    unseen = BrainShift(False, "the CT's brain has too little contrast", p95_mm=p95_mm)
    seen = Evidence(brain_shift=unseen, inside=Inside(0.0, 0.0, 0))
    levels = {f.code: f.level for f in judge(seen).findings}
    assert levels["brain_shift_not_judged"] == level


def test_slab_without_a_closed_skull_is_amber_as_neither_shift_nor_surgery_was_looked_for():
    nothing = brain_shift(None, None, None)
    levels = {f.code: f.level for f in judge(Evidence(brain_shift=nothing)).findings}
    assert levels["brain_shift_not_judged"] == "amber"


def test_displacement_in_a_pose_that_is_far_off_is_not_called_a_shift():
    far = Distortion(3.0, 4.0, 1.0, 0.3, 6.0, 9.0, 0.2)
    shift = replace(CERTAIN, p95_mm=4.0, low_mm=3.5, high_mm=5.2)
    findings = {f.code: f for f in judge(Evidence(brain_shift=shift, distortion=far)).findings}
    assert findings.keys() & SHIFTS == {"brain_shift_not_judged"}
    assert findings["brain_shift_not_judged"].text.endswith("the skulls of CT and MRI do not coincide in this pose")


@pytest.mark.parametrize(
    ("skull_mm", "code"), [(0.6, "brain_shift"), (2.0, "brain_shift_not_judged"), (None, "brain_shift_not_judged")]
)
def test_displaced_regions_are_a_misaligned_head_only_where_the_skull_does_not_match(skull_mm, code):
    fit = LocalFit(median_mm=1.6, part_mm=1.0, share=1.0, least_share=1.0, voxel_mm=3.0, high_mm=2.0, bias_mm=1.1)
    skull = None if skull_mm is None else Distortion(0.3, 0.6, 1.4, 0.3, skull_mm, 2.5, 0.2)
    shift = replace(CERTAIN, p95_mm=6.2, low_mm=5.4, high_mm=8.1)
    findings = judge(Evidence(brain_shift=shift, distortion=skull, local=LocalErrors(21.0, fit=fit))).findings
    assert {f.code for f in findings} & SHIFTS == {code}


@pytest.mark.parametrize(("air_ml", "level"), [(0.0, "green"), (12.0, "amber")])
def test_shift_that_cannot_be_judged_is_amber_only_after_surgery(air_ml, level):
    evidence = Evidence(brain_shift=BrainShift(False, "the CT's brain has too little contrast"))
    verdict = judge(replace(evidence, inside=Inside(air_ml, 0.0, 0)))
    finding = next(finding for finding in verdict.findings if finding.code == "brain_shift_not_judged")
    assert finding.level == level
    assert finding.text.endswith("could not be judged: the CT's brain has too little contrast")


@pytest.mark.parametrize(("days", "level"), [(None, "green"), (-3, "green"), (-90, "amber")])
@pytest.mark.parametrize(
    ("shift", "code"),
    [
        (BrainShift(True, p95_mm=0.5, information_nats=0.06), "small_shift_not_judged"),
        (BrainShift(False, "the CT's brain has too little contrast"), "brain_shift_not_judged"),
    ],
)
def test_change_that_would_not_be_seen_is_amber_if_there_was_much_time_for_it(shift, code, days, level):
    acquisition = PairAcquisition(days_apart=days)
    verdict = judge(Evidence(brain_shift=shift, acquisition=acquisition, inside=Inside(0.0, 0.0, 0)))
    finding = next(finding for finding in verdict.findings if finding.code == code)
    assert finding.level == level
    assert finding.text.endswith("; the scans are 90 days apart") == (level == "amber")


@pytest.mark.parametrize(("p95_mm", "level"), [(0.5, "green"), (6.0, "amber")])
def test_shift_in_a_cone_beam_ct_is_neither_said_nor_denied(p95_mm, level):
    cone = PairAcquisition(ct=CtAcquisition(cone_beam=True))
    seen = Evidence(brain_shift=BrainShift(True, p95_mm=p95_mm), inside=Inside(0.0, 0.0, 0), acquisition=cone)
    findings = {finding.code: finding for finding in judge(seen).findings}
    assert "brain_shift" not in findings
    assert findings["brain_shift_not_judged"].level == level
    assert findings["brain_shift_not_judged"].text.endswith("the CT is from a cone-beam scanner")


@pytest.mark.parametrize(
    ("vector_lps", "words"), [((1, 0, 0), "left"), ((-0.8, -1, 0.1), "right front"), ((0, 1, 3), "top")]
)
def test_direction_in_words(vector_lps, words):
    assert direction_in_words(np.array([vector_lps], dtype=float)) == words


AROUND_MM = np.random.default_rng(0).normal(0, 9, (60, 3))


@pytest.mark.parametrize(
    ("middles_mm", "words"),
    [
        ([(30, -45, 25)], "top left front"),
        ([(-30, 0, 5)], "right"),
        ([(2, -3, 1)], "middle"),
        ([(30, 0, 30), (-30, 0, 30)], "top left and right"),
        ([(40, 0, 0), (-30, 0, 0), (40, 0, 0)], "left and right"),
        ([(0, 50, 0)], "back"),
    ],
)
def test_places_on_both_sides_are_not_called_one_side(middles_mm, words):
    points = np.concatenate([AROUND_MM + middle for middle in middles_mm])
    assert place_in_words(points) == words


def test_directions_apart_have_no_common_direction():
    apart = np.concatenate([AROUND_MM / 30 + (4, 0, 0), AROUND_MM / 30 - (3.5, 0, 0)])
    assert direction_in_words(apart) == ""
    assert direction_in_words(apart - np.array([0, 0, 3])) == "bottom"


def test_a_brain_that_sank_on_both_sides_is_not_said_to_have_moved_on_one(head):
    ct, mri, inside = head
    both = sagged(ct, inside, (0.0, 0.0, -6.0), (45.0, 0.0, 30.0), 20.0)
    both = sagged(both, inside, (0.0, 0.0, -5.0), (-45.0, 0.0, 30.0), 20.0)
    assert brain_shift(both, mri, inside).place == "top left and right"
