"""The benchmark of scanner physics: rows of evidence, the plan, the calibration, and the tables."""

from dataclasses import dataclass, replace

import numpy as np
import pytest

from benchmarks.realism import brain_masks, collect, holding, measuring, plan, tables
from benchmarks.realism.calibrating import (
    Sample,
    by_head_and_site,
    calibrated,
    effects_of,
    fitted,
    sample,
)
from benchmarks.realism.judging import Judged, judged
from benchmarks.realism.row import columns, evidence_of, row_of
from benchmarks.realism.truth import air_ml, defect_cm2, truth_of_case, why_wrong
from BrainFusionLib.evidence import (
    BrainShift,
    Evidence,
    GivenPose,
    Inside,
    LocalErrors,
    LocalFit,
    PoseEvidence,
    SkullFit,
)
from BrainFusionLib.geometry import Grid
from BrainFusionLib.io.tables import format_csv, parse_csv
from BrainFusionLib.transform import RigidTransform
from BrainFusionLib.verdict.expected import FEATURES, bound_mm, expected_error_mm, features, from_plain
from BrainFusionLib.verdict.judge import judge
from BrainFusionLib.volume import Volume
from simulation.heads import phantom_head
from simulation.physics.case import make_physics_case
from simulation.physics.kinds import draw_kind

POSE = PoseEvidence(
    similarity_nmi=1.21, margin_nats=0.3, agreement_mm=0.05, perturbed_margin_nmi=0.02, overlap=0.9, thinnest_mm=150.0,
    thickest_voxel_mm=1.2, mirrored_margin_nats=0.2, sampling_error_mm=0.02, lever=1.01,
)  # fmt: skip
FIT = LocalFit(0.5, 0.3, 0.95, 0.9, 3.0, high_mm=1.4, bias_mm=0.06)
LOCAL = LocalErrors(21.0, np.ones((3, 3)), np.ones((3, 3)), FIT)
SKULL = SkullFit(0.4, 0.2, 0.18, at_edge=False, voxel_mm=2.0)
WHOLE = Evidence(pose=POSE, coverage=0.9, local=LOCAL, skull=SKULL)


def row(evidence=WHOLE, *, median=0.05, p95=0.1, pose=0.05, kind="mix", effects="", made="", half="1", **more):
    cells = {
        "group": 0, "made": made, "kind": kind, "seed": 5000, "site": int(half), "head": int(half), "half": half,
        "effects": effects, "anatomy_median_mm": median, "anatomy_p95_mm": p95, "pose_median_mm": pose,
        "pose_p95_mm": pose, "shift_p95_mm": 0.0, "bent_p95_mm": 0.0, "scale_pc": 0.0, "air_ml": 0.0,
        "defect_cm2": 0.0,
    } | more  # fmt: skip
    cells |= row_of(evidence)
    text = format_csv([{name: cells.get(name, "") for name in collect.COLUMNS}], collect.COLUMNS)
    return parse_csv(text).rows[0]


# --- rows ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "evidence",
    [
        WHOLE,
        Evidence(),
        Evidence(pose=replace(POSE, margin_nats=None, sampling_error_mm=float("inf"))),
        Evidence(given=GivenPose(POSE, 3.0, 2.5), coverage=0.8, local=LocalErrors(21.0), skull=SKULL),
    ],
)
def test_a_row_gives_back_every_scalar_of_the_evidence(evidence):
    back = evidence_of(row(evidence))
    empty = evidence
    if evidence.local is not None:
        empty = replace(
            evidence, local=replace(evidence.local, points_lps_mm=np.empty((0, 3)), shifts_mm=np.empty((0, 3)))
        )
    assert back == empty


def test_a_rebuilt_row_is_judged_as_the_case_was():
    for evidence in (WHOLE, replace(WHOLE, local=replace(LOCAL, fit=replace(FIT, part_mm=1.7)))):
        now, then = judge(evidence_of(row(evidence))), judge(evidence)
        assert (now.colour, now.findings, now.bound_mm) == (then.colour, then.findings, then.bound_mm)


def test_new_evidence_gets_its_columns_by_itself():
    @dataclass(frozen=True)
    class Shift:
        length_mm: float
        is_judged: bool
        along: tuple[float, float, float]
        points: np.ndarray
        where: str = "left"

    shift = Shift(3.14159, True, (1.0, 0.0, -1.0), np.zeros(3))
    assert row_of(shift, "shift.") == {
        "shift.length_mm": "3.142", "shift.is_judged": 1, "shift.along": "1 0 -1", "shift.where": "left"
    }  # fmt: skip
    assert len(columns()) < 140


def test_a_thousand_rows_are_at_most_a_megabyte():
    full = row(Evidence(POSE, GivenPose(POSE, 3.0, 2.5), 0.9, LOCAL, SKULL), effects="distortion+posture+air")
    assert 1000 * len(",".join(full.values())) < 1e6


# --- the plan --------------------------------------------------------------------------------------------------------


def test_heads_and_scanners_that_calibrate_never_judge():
    groups = plan.plan(400, 14)
    for what in ("head", "site"):
        halves = [{getattr(task, what) for g in groups for task in g.tasks if task.half == half} for half in (0, 1)]
        assert not halves[0] & halves[1]


def test_a_longer_plan_begins_with_a_shorter_one_and_no_seed_occurs_twice():
    groups = plan.plan(200, 14)
    assert plan.plan(80, 14) == groups[:20]
    seeds = [task.seed for group in groups for task in group.tasks]
    assert len(set(seeds)) == len(seeds)


def test_a_quarter_of_the_cases_is_made_wrong_and_each_kind_judges_and_calibrates():
    groups = plan.plan(1000, 14)
    assert len(groups) == 250
    assert {group.made for group in groups} == {"pose off", "mirrored", "other person"}
    for half in (0, 1):
        kinds = {task.kind for g in groups for task in g.tasks if task.half == half}
        assert kinds == {"mix", *plan.BY_HAND}
    assert all(len({task.head for task in group.tasks}) == 3 for group in groups)
    later = plan.plan(1144, 14)
    for first, last, kinds in ((250, 262, {"distortion alone", "ventricles changed"}), (262, 286, {"bright marrow"})):
        assert {task.kind for group in later[first:last] for task in group.tasks} == kinds


def test_fewer_than_four_heads_are_rejected():
    with pytest.raises(ValueError, match="four heads"):
        plan.plan(10, 3)


# --- the truth -------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def head():
    return phantom_head(3, 2.5)


def test_air_and_holes_of_a_simulated_craniectomy_are_as_large_as_drawn(head):
    strengths = draw_kind("craniectomy", 5)
    patient = replace(strengths.patient, opening_mm=30.0, shift_mm=0.0, air_ml=10.0)
    case = make_physics_case(head, replace(strengths, patient=patient), 5)
    assert air_ml(case, head) == pytest.approx(10, rel=0.1)
    # A disc of 30 mm has 28 cm²; on a round skull, the cap is larger.
    assert 22 < defect_cm2(case, head) < 42
    truth = truth_of_case(case, head)
    assert truth["bent_p95_mm"] < 0.01
    assert abs(truth["scale_pc"]) < 0.01


def test_what_is_wrong_is_the_largest_part():
    parts = {
        "made": "",
        "anatomy_p95_mm": 3.0,
        "pose_p95_mm": 0.3,
        "shift_p95_mm": 2.9,
        "bent_p95_mm": 0.5,
        "scale_pc": 0,
    }
    assert why_wrong(parts) == "brain shift"
    assert why_wrong(parts | {"shift_p95_mm": 0.0, "bent_p95_mm": 2.9, "scale_pc": -2.5}) == "scale"
    assert why_wrong(parts | {"anatomy_p95_mm": 1.9}) == ""
    assert why_wrong(parts | {"made": "mirrored"}) == "mirrored"


def test_a_given_pose_is_as_far_off_as_was_drawn():
    points = np.random.default_rng(0).uniform(-60, 60, (500, 3))
    true = RigidTransform.from_axis_angle([0, 0, 1], 20.0)
    for seed in range(5):
        given = measuring.pose_off(true, points, np.random.default_rng(seed))
        off = np.median(np.linalg.norm(given.apply(points) - true.apply(points), axis=1))
        assert 1.99 < off < 15.01


def test_a_mirrored_volume_has_left_and_right_exchanged():
    voxels = np.arange(24, dtype=np.float32).reshape(2, 3, 4)
    volume = Volume(voxels, Grid((4, 3, 2), (1.0, 1.0, 1.0)), "MR")
    assert np.array_equal(measuring.mirrored(volume).array_kji, voxels[:, :, ::-1])


# --- the calibration -------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def drawn():
    """Errors that come of scatter and local bias, in eight heads and eight sites."""
    random = np.random.default_rng(1)
    count, names = 240, [feature.name for feature in FEATURES]
    values = np.abs(random.normal(0.1, 0.05, (count, len(names))))
    effects = [frozenset({"bent"}) if n % 3 == 0 else frozenset() for n in range(count)]
    values[:, names.index("local_bias_mm")] += [random.uniform(0.3, 2) if e else 0.0 for e in effects]
    values[::5, names.index("field_mm")] = np.nan
    true = np.hypot(values[:, names.index("scatter_mm")], values[:, names.index("local_bias_mm")])
    true = np.maximum(0.05, true * np.exp(random.normal(0, 0.3, count)))
    return Sample(true, values, np.arange(count) % 8, np.arange(count) // 8 % 8 * 2, tuple(effects))


def test_no_weight_is_negative_and_the_bound_holds_in_nine_of_ten(drawn):
    fit = calibrated(drawn)
    assert fit.expected.min() >= 0
    assert fit.bound.min() >= 0
    held = np.mean(drawn.true_mm <= fit.bound_mm(drawn.values))
    assert 0.88 <= held <= 0.99
    assert 0.35 <= np.mean(drawn.true_mm <= fit.expected_mm(drawn.values)) <= 0.65


def test_what_is_left_out_shares_neither_head_nor_site_with_what_is_fitted_to(drawn):
    judged_cases = np.zeros(len(drawn), bool)
    for judging, fit in by_head_and_site(drawn):
        assert not set(drawn.heads[judging]) & set(drawn.heads[fit])
        assert not set(drawn.sites[judging]) & set(drawn.sites[fit])
        judged_cases |= judging
    assert judged_cases.all()


def test_effects_of_some_cases_can_be_left_out(drawn):
    assert effects_of(drawn) == ["bent"]
    assert ["bent" in effects for effects in drawn.effects] == drawn.having("bent").tolist()


def test_physics_that_no_case_shows_still_counts(drawn):
    fit = fitted(drawn, ~drawn.having("bent"))
    place = [feature.name for feature in FEATURES].index("local_bias_mm")
    assert fit.expected[place + 1] > 0.3
    assert (drawn.true_mm <= fit.bound_mm(drawn.values))[drawn.having("bent")].mean() > 0.6


def test_the_bound_holds_in_three_quarters_of_physics_that_the_fit_knows_nothing_of(drawn):
    bent = drawn.having("bent")
    fit = replace(fitted(drawn, ~bent), factor=calibrated(drawn).factor)
    assert (drawn.true_mm[bent] <= fit.bound_mm(drawn.values[bent])).mean() >= 0.75


def test_the_library_states_what_was_fitted(drawn):
    fit = calibrated(drawn)
    table = from_plain(fit.plain(len(drawn)))
    evidence = replace(WHOLE, local=replace(LOCAL, fit=replace(FIT, bias_mm=0.9)))
    values = np.array([[features(evidence)[feature.name] for feature in FEATURES]], float)
    assert expected_error_mm(evidence, table) == pytest.approx(fit.expected_mm(values)[0], rel=0.01)
    assert bound_mm(evidence, table) == pytest.approx(fit.bound_mm(values)[0], rel=0.01)


def test_what_was_not_measured_is_unknown_and_what_could_not_be_is_bad():
    found = features(Evidence(pose=POSE))
    assert found["brain_shift_mm"] is None
    assert found["skull_mm"] is None
    assert found["local_bias_mm"] == 3.0
    assert features(Evidence(local=LOCAL)) is None


def test_a_shift_that_its_noise_explains_is_none_but_widens_the_bound():
    clear, noisy = (
        replace(WHOLE, brain_shift=BrainShift(True, p95_mm=1.0, median_mm=0.35, noise_mm=noise, gain_nats=0.0))
        for noise in (0.05, 0.9)
    )
    assert features(noisy)["brain_shift_mm"] < features(clear)["brain_shift_mm"]
    assert features(noisy)["largest_shift_mm"] == 0
    assert bound_mm(noisy) > bound_mm(replace(WHOLE, brain_shift=BrainShift(True)))


def test_a_hidden_shift_counts_as_larger_where_the_skull_was_opened():
    hidden = replace(WHOLE, brain_shift=BrainShift(False, "the CT's brain has too little contrast"))
    whole, opened = (replace(hidden, inside=Inside(air, 0.0, 0)) for air in (0.0, 12.0))
    assert features(whole)["brain_shift_mm"] < features(opened)["brain_shift_mm"]


def test_an_unknown_feature_counts_as_a_rather_bad_one(drawn):
    fit = calibrated(drawn)
    place = [feature.name for feature in FEATURES].index("local_bias_mm")
    values = np.nanmedian(drawn.values, axis=0)[None].repeat(2, axis=0)
    values[1, place] = np.nan
    known, unknown = fit.bound_mm(values)
    assert unknown > known


# --- tables ----------------------------------------------------------------------------------------------------------


def case(colour="green", bound=0.2, median=0.1, **more):
    return Judged(row(median=median, **more), WHOLE, colour, (), None if bound is None else bound / 2, bound)


def test_red_and_refused_count_as_not_held():
    cases = [case(), case(median=0.3), case("red", None), case("refused", None), case(pose=3.0), case(made="pose off")]
    assert tables.coverage(cases) == (1, 4)


def test_sharpness_is_against_a_true_error_of_at_least_a_twentieth_of_a_millimetre():
    assert tables.sharpness([case(bound=0.2, median=0.001)]) == pytest.approx(4)
    assert tables.sharpness([case("red", None)]) is None


def test_green_on_a_wrong_case_is_counted_also_where_no_pose_is_right():
    assert tables.is_wrong_green(case(p95=2.1), 2.0)
    assert not tables.is_wrong_green(case("amber", p95=2.1), 2.0)
    assert not tables.is_wrong_green(case(p95=1.9), 2.0)
    assert tables.is_wrong_green(case(made="mirrored", p95="", pose="", median=""), 2.0)


def test_a_given_pose_whose_check_is_refused_is_red():
    given = GivenPose(replace(POSE, overlap=0.1), 0.5, 0.4)
    assert judged(row(Evidence(given=given, coverage=0.9, local=LOCAL), made="pose off")).colour == "red"


def test_a_refused_pose_is_told_by_its_code():
    found = judged(row(replace(WHOLE, pose=replace(POSE, overlap=0.1))))
    assert (found.colour, found.reason) == ("refused", "overlap")


def test_the_reports_name_each_kind():
    random = np.random.default_rng(4)
    rows = []
    for n in range(40):
        scatter = float(random.uniform(0.01, 0.1))
        evidence = replace(WHOLE, pose=replace(POSE, sampling_error_mm=scatter))
        kind, effects = ("plain", "") if n % 2 else ("mix", "bias")
        rows.append(
            row(evidence, median=2 * scatter, half=str(n // 2 % 2), kind=kind, effects=effects, site=n, head=n % 14)
        )
    cases = [judged(r) for r in rows]
    text = tables.report(cases)
    assert "| plain | 20 |" in text
    assert "| bias | 20 |" in text
    own = [c for c in cases if c.row["half"] == "0"]
    assert "Physics left out" in holding.report(cases, calibrated(sample(own)))


# --- brain masks -----------------------------------------------------------------------------------------------------


def test_true_brain_lies_where_the_mri_shows_it(head):
    case = make_physics_case(head, brain_masks.kinds(3)["T2, slices of 5 + 1 mm"], 3)
    brain, signal = brain_masks.brain_of(case, head), case.mri.array_kji
    assert 0.7e6 < np.count_nonzero(brain) * np.prod(case.mri.grid.spacing_ijk_mm) < 2.2e6
    # In T2, CSF beside the brain is brighter than the brain, air and bone are darker.
    assert np.percentile(signal[brain], 90) / np.percentile(signal[brain], 10) < 4
    assert brain_masks.dice(brain, brain) == 1


# --- from end to end -------------------------------------------------------------------------------------------------


def test_a_group_is_simulated_registered_and_judged_from_its_rows(head, monkeypatch):
    monkeypatch.setattr(collect, "heads_from", lambda _: [lambda: head] * 4)
    monkeypatch.setattr(plan, "SIMULATED", 1)
    task = plan.Task("CT 3 mm", 5003, 1, 1, 1)
    right, off = map(judged, parse_csv(format_csv(collect.rows_of(None, plan.Group(1, (task,), "pose off")))).rows)
    assert right.is_accurate
    assert right.mm("anatomy_p95_mm") < 1.0
    assert right.evidence.pose.sampling_error_mm > 0
    assert off.row["wrong"] == "pose off"
    assert off.is_wrong
    assert off.colour in ("amber", "red")


def test_groups_are_resumed_and_unfinished_ones_made_again(tmp_path):
    path = tmp_path / "records.csv"
    cells = [{"group": group, "seed": 5000 + n} for group, count in ((0, 4), (1, 2)) for n in range(count)]
    path.write_text(format_csv(cells, collect.COLUMNS))
    assert [r["group"] for r in collect.completed(path)] == ["0"] * 4
    assert len(parse_csv(path.read_text()).rows) == 4


def test_a_table_of_other_evidence_is_rejected(tmp_path):
    path = tmp_path / "records.csv"
    path.write_text(format_csv([], collect.COLUMNS[:-1]))
    with pytest.raises(ValueError, match="move it away"):
        collect.completed(path)
