"""The benchmark of registration: its cases are what they claim, and its bookkeeping is right."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import numpy as np
import pytest
from benchmarks.registration.cases import POSITIVE, make_case
from benchmarks.registration.heads import Head, phantom_head
from benchmarks.registration.tissues import Tissue

from benchmarks.registration import confidence, run
from benchmarks.registration.measure import measure
from benchmarks.registration.methods import METHODS, Method
from benchmarks.registration.results import FIELDS, append_result, read_results, summary
from BrainFusionLib.errors import MissingDependencyError
from BrainFusionLib.geometry import Grid
from BrainFusionLib.resample import resample_onto
from BrainFusionLib.transform import RigidTransform
from BrainFusionLib.volume import Volume

COARSE_MM = 3.0


@pytest.fixture(scope="module")
def head() -> Head:
    return phantom_head(0, COARSE_MM)


def overlap_of_bone(ct: Volume, transform: RigidTransform, head: Head) -> float:
    """Dice of the CT's bone, pulled onto the head's grid, and the head's own, where the CT has voxels."""
    covered = resample_onto(ct.with_array(np.ones_like(ct.array_kji)), head.grid, transform, fill=0).array_kji > 0.5
    bone = (resample_onto(ct, head.grid, transform).array_kji > 500) & covered
    true = np.isin(head.tissue_kji, (Tissue.CORTICAL, Tissue.CANCELLOUS)) & covered
    return 2 * float((bone & true).sum() / (bone.sum() + true.sum()))


def shifted(millimetres: float) -> RigidTransform:
    return RigidTransform.from_axis_angle((0, 0, 1), 0, (0, millimetres, 0))


# Slabs of 20 mm have seven slices here, and streaks and frames add to the bone: hence the room.
@pytest.mark.parametrize("kind", POSITIVE)
def test_the_bone_of_the_ct_lies_on_the_heads_where_the_truth_says(kind: str, head: Head) -> None:
    case = make_case(kind, 1, head, spacing_mm=COARSE_MM)
    right = overlap_of_bone(case.ct, case.transform, head)
    assert right > 0.7
    assert overlap_of_bone(case.ct, case.transform @ shifted(6), head) < right - 0.1


@pytest.mark.parametrize("kind", ["E", "T", "N2"])
def test_the_mri_is_dark_in_the_skull_and_mirrored_only_where_the_kind_says_so(kind: str, head: Head) -> None:
    case = make_case(kind, 2, head, spacing_mm=COARSE_MM)
    left_right = 2 - int(np.argmax(np.abs(case.mri.grid.direction[0])))
    brain = np.isin(head.tissue_kji, (Tissue.GREY, Tissue.WHITE, Tissue.FLUID))
    bone = head.tissue_kji == Tissue.CORTICAL
    as_it_is, mirrored = (
        resample_onto(case.mri.with_array(array), head.grid).array_kji
        for array in (case.mri.array_kji, np.flip(case.mri.array_kji, left_right))
    )
    darkness = as_it_is[bone].mean() / as_it_is[brain].mean(), mirrored[bone].mean() / mirrored[brain].mean()
    assert (darkness[0] < darkness[1]) == (kind != "N2")
    assert min(darkness) < 0.6


def test_a_stripped_mri_has_nothing_outside_the_brain(head: Head) -> None:
    case = make_case("K", 0, head, spacing_mm=COARSE_MM)
    inside = np.isin(head.tissue_kji, (Tissue.GREY, Tissue.WHITE, Tissue.FLUID, Tissue.LESION, Tissue.BLOOD))
    seen = resample_onto(case.mri, head.grid).array_kji
    assert seen[~inside].mean() < 0.05 * seen[inside].mean()


def test_poses_keep_to_their_class(head: Head) -> None:
    for kind, (least, most), (nearest, farthest) in (
        ("E", (0, 10), (0, 10)), ("M", (15, 30), (0, 30)), ("D", (25, 45), (0, 40)), ("X", (0, 180), (20, 150)),
    ):  # fmt: skip
        for seed in range(2):
            transform = make_case(kind, seed, head, spacing_mm=6.0).transform
            assert least <= transform.angle_deg <= most
            assert nearest <= np.linalg.norm(transform.shift_at(head.centre_lps_mm)) <= farthest


@pytest.mark.parametrize(("kind", "low", "high"), [("S4", 40, 60), ("S3", 30, 30), ("S2", 20, 20)])
def test_slabs_have_their_height(kind: str, low: float, high: float, head: Head) -> None:
    height = make_case(kind, 0, head, spacing_mm=2.0).ct.grid.extent_ijk_mm[2]
    assert low - 1 <= height <= high + 1


def test_the_same_seed_makes_the_same_case_and_another_seed_another(head: Head) -> None:
    first, again, other = (make_case("P", seed, head, spacing_mm=4.0) for seed in (3, 3, 4))
    assert np.array_equal(first.ct.array_kji, again.ct.array_kji)
    assert np.array_equal(first.mri.array_kji, again.mri.array_kji)
    assert np.array_equal(first.transform.moving_from_fixed_lps, again.transform.moving_from_fixed_lps)
    assert not np.allclose(first.transform.moving_from_fixed_lps, other.transform.moving_from_fixed_lps)


def test_the_resolution_changes_neither_pose_nor_contrast(head: Head) -> None:
    fine, coarse = (make_case("M", 5, head, spacing_mm=spacing) for spacing in (3.0, 6.0))
    assert np.array_equal(fine.transform.moving_from_fixed_lps, coarse.transform.moving_from_fixed_lps)
    assert fine.mri.name == coarse.mri.name


def test_the_cases_with_nothing_to_find_have_nothing_to_find(head: Head) -> None:
    other = phantom_head(1, COARSE_MM)
    patient = make_case("N1", 0, head, spacing_mm=COARSE_MM, other=other)
    assert overlap_of_bone(patient.ct, patient.transform, head) < overlap_of_bone(patient.ct, patient.transform, other)
    thigh = make_case("N3", 0, head, spacing_mm=COARSE_MM)
    assert thigh.ct.array_kji.max() > 800
    apart = make_case("N4", 0, head, spacing_mm=COARSE_MM)
    covered = resample_onto(
        apart.ct.with_array(np.ones_like(apart.ct.array_kji)), apart.mri.grid, apart.transform, fill=0
    )
    assert covered.array_kji.max() == 0


def test_an_unknown_kind_is_refused_in_words(head: Head, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(ValueError, match="no kind of case 'Q'; choose from E, M"):
        make_case("Q", 0, head)
    assert run.main(["--kinds", "E,Q", "--output", str(tmp_path)]) == 2
    assert "no kind of case 'Q'" in capsys.readouterr().err


def test_another_patient_needs_another_head(head: Head) -> None:
    with pytest.raises(ValueError, match="two different heads"):
        make_case("N1", 0, head)


def test_a_package_that_is_missing_is_named() -> None:
    missing = Method(METHODS["simpleitk"].prepare, "no-such-package-anywhere")
    with pytest.raises(MissingDependencyError, match=r"no-such-package-anywhere is not installed.*bench"):
        missing.check_installed()


def test_a_run_that_was_killed_goes_on_and_repeats_nothing(tmp_path: Path) -> None:
    table = tmp_path / "results.csv"
    heads = [partial(phantom_head, 0, COARSE_MM)]
    plan = run.Plan(["E"], [0], ["simpleitk"], heads, spacing_mm=4.0, timeout_s=60)
    (row,) = run.run_missing(plan, table)
    assert row["says"] == "found"
    assert float(row["error_p95_mm"]) < 3
    assert float(row["user_cpu_s"]) > 0
    whole = table.read_text(encoding="utf-8")
    table.write_text(whole + "E,E-001-phan", encoding="utf-8")  # killed while it wrote the next line
    assert list(run.run_missing(plan, table)) == []
    assert table.read_text(encoding="utf-8") == whole


def test_a_run_that_takes_too_long_is_ended_and_counts_as_failed(head: Head) -> None:
    answer = measure(make_case("E", 0, head, spacing_mm=4.0), "simpleitk", 0.01)
    assert answer["says"] == "timeout"
    assert np.isnan(float(answer["error_p95_mm"]))


def result(kind: str, seed: int, method: str, error: float, says: str = "found", cpu: float = 1.0) -> dict[str, str]:
    row = {"kind": kind, "case": f"{kind}-{seed:03d}", "resolution": "half", "method": method, "says": says}
    numbers = {"error_p95_mm": f"{error}", "user_cpu_s": f"{cpu}", "peak_mb": "100"}
    return {**dict.fromkeys(FIELDS, "0"), **row, **numbers}


def test_the_summary_counts_right(tmp_path: Path) -> None:
    rows = [
        result("E", 0, "greedy", 0.4, cpu=8), result("E", 1, "greedy", 0.2, cpu=8), result("X", 0, "greedy", 80, cpu=8),
        result("E", 0, "fast", 0.2, "amber"), result("E", 1, "fast", 0.05, "amber"), result("X", 0, "fast", 0.3, "red"),
        result("X", 1, "fast", 1.0, "refused"), result("X", 2, "fast", 30, "amber"),
        result("N2", 0, "fast", float("nan"), "red"), result("N2", 1, "fast", float("nan"), "amber"),
    ]  # fmt: skip
    for row in rows:
        append_result(tmp_path / "results.csv", row)
    text = summary(read_results(tmp_path / "results.csv"))
    lines = {tuple(cell.strip() for cell in line.strip("|").split("|")) for line in text.splitlines()}
    greedy = ("greedy", "2/2", "0/1", "2/3", "0.300 / 0.390", "1.00 (n = 2)", "8.0", "1.0", "100", "1")
    fast = ("fast", "2/2", "1/3", "3/5", "0.200 / 0.290", "0.38 (n = 2)", "1.0", "8.0", "100", "1")
    assert {greedy, fast, ("fast", "1/2")} <= lines


def test_a_grid_of_the_mri_covers_the_brain(head: Head) -> None:
    grid: Grid = make_case("E", 6, head, spacing_mm=4.0).mri.grid
    ijk = head.points_lps_mm @ grid.ijk_from_lps[:3, :3].T + grid.ijk_from_lps[:3, 3]
    assert np.all((ijk > 0) & (ijk < np.array(grid.size_ijk) - 1))


def test_a_result_stands_beside_the_truth_with_the_scatter_of_its_seeds() -> None:
    case = make_case("E", 1, phantom_head(1, 2.0), spacing_mm=2.0)
    outcome = confidence.judge(case, "fast", seeds=2)
    assert outcome.refused == 0
    assert 0 < outcome.spread_mm < 0.2
    assert (outcome.errors_mm < 0.5).all()
    assert f"| {case.name} |" in confidence.line(outcome)
    assert confidence.ranges("E", [outcome]).startswith("| E | 0/2 |")


def test_what_is_refused_is_counted(head: Head, capsys: pytest.CaptureFixture[str]) -> None:
    outcome = confidence.judge(make_case("N3", 1, head, spacing_mm=COARSE_MM), "fast", seeds=1)
    assert confidence.line(outcome) == f"| {outcome.case.name} | – | – | – | – | 1 |"
    assert confidence.ranges("N3", [outcome]) == "| N3 | 1/1 | – | – | – | – |"
    assert confidence.main(["--kinds", "Q"]) == 2
    assert "there is no kind of case 'Q'" in capsys.readouterr().err
