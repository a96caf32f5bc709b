"""Simulated CT-MRI cases are what they claim: pose, field of view, contrast, and where each point lies."""

from __future__ import annotations

import numpy as np
import pytest

from BrainFusionLib.geometry import Grid
from BrainFusionLib.resample import resample_onto
from BrainFusionLib.transform import RigidTransform
from BrainFusionLib.volume import Volume
from simulation.cases import POSITIVE, Case, make_case
from simulation.heads import Head, phantom_head
from simulation.spoilt import SPOILS
from simulation.tissues import BONE, INSIDE_SKULL, Coarse

COARSE_MM = 3.0


@pytest.fixture(scope="module")
def head() -> Head:
    return phantom_head(0, COARSE_MM)


def overlap_of_bone(ct: Volume, transform: RigidTransform, head: Head) -> float:
    """Dice of the CT's bone, pulled onto the head's grid, and the head's own, where the CT has voxels."""
    covered = resample_onto(ct.with_array(np.ones_like(ct.array_kji)), head.grid, transform, fill=0).array_kji > 0.5
    bone = (resample_onto(ct, head.grid, transform).array_kji > 500) & covered
    true = np.isin(head.tissue_kji, BONE) & covered
    return 2 * float((bone & true).sum() / (bone.sum() + true.sum()))


def shifted(millimetres: float) -> RigidTransform:
    return RigidTransform.from_axis_angle((0, 0, 1), 0, (0, millimetres, 0))


# Slabs of 20 mm have seven slices here, and streaks and frames add to the bone: hence the margin.
@pytest.mark.parametrize("kind", POSITIVE)
def test_bone_lies_where_the_truth_says(kind: str, head: Head) -> None:
    case = make_case(kind, 1, head, spacing_mm=COARSE_MM)
    right = overlap_of_bone(case.ct, case.transform, head)
    assert right > 0.7
    assert overlap_of_bone(case.ct, case.transform @ shifted(6), head) < right - 0.1


@pytest.mark.parametrize("kind", ["E", "T", "N2"])
def test_only_n2_is_mirrored(kind: str, head: Head) -> None:
    case = make_case(kind, 2, head, spacing_mm=COARSE_MM)
    left_right = 2 - int(np.argmax(np.abs(case.mri.grid.direction[0])))
    brain = np.isin(head.tissue_kji, (Coarse.GREY, Coarse.WHITE, Coarse.FLUID))
    bone = head.tissue_kji == Coarse.CORTICAL
    as_it_is, mirrored = (
        resample_onto(case.mri.with_array(array), head.grid).array_kji
        for array in (case.mri.array_kji, np.flip(case.mri.array_kji, left_right))
    )
    darkness = as_it_is[bone].mean() / as_it_is[brain].mean(), mirrored[bone].mean() / mirrored[brain].mean()
    assert (darkness[0] < darkness[1]) == (kind != "N2")
    assert min(darkness) < 0.6


def test_stripped_mri_ends_at_the_brain(head: Head) -> None:
    case = make_case("K", 0, head, spacing_mm=COARSE_MM)
    inside = np.isin(head.tissue_kji, INSIDE_SKULL)
    seen = resample_onto(case.mri, head.grid).array_kji
    assert seen[~inside].mean() < 0.05 * seen[inside].mean()


def test_poses_keep_to_their_kind(head: Head) -> None:
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


def test_seed_decides_the_case(head: Head) -> None:
    first, again, other = (make_case("P", seed, head, spacing_mm=4.0) for seed in (3, 3, 4))
    assert np.array_equal(first.ct.array_kji, again.ct.array_kji)
    assert np.array_equal(first.mri.array_kji, again.mri.array_kji)
    assert np.array_equal(first.transform.moving_from_fixed_lps, again.transform.moving_from_fixed_lps)
    assert not np.allclose(first.transform.moving_from_fixed_lps, other.transform.moving_from_fixed_lps)


def test_resolution_changes_neither_pose_nor_contrast(head: Head) -> None:
    fine, coarse = (make_case("M", 5, head, spacing_mm=spacing) for spacing in (3.0, 6.0))
    assert np.array_equal(fine.transform.moving_from_fixed_lps, coarse.transform.moving_from_fixed_lps)
    assert fine.mri.name == coarse.mri.name


def test_negative_cases_have_no_true_pose(head: Head) -> None:
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


def test_another_patient_needs_another_head(head: Head) -> None:
    with pytest.raises(ValueError, match="two different heads"):
        make_case("N1", 0, head)


def test_mri_covers_the_brain(head: Head) -> None:
    grid: Grid = make_case("E", 6, head, spacing_mm=4.0).mri.grid
    ijk = head.points_lps_mm @ grid.ijk_from_lps[:3, :3].T + grid.ijk_from_lps[:3, 3]
    assert np.all((ijk > 0) & (ijk < np.array(grid.size_ijk) - 1))


def test_truth_has_no_error(head: Head) -> None:
    case = make_case("E", 0, head, spacing_mm=COARSE_MM)
    np.testing.assert_allclose(case.errors_mm(case.transform), 0, atol=1e-9)
    np.testing.assert_allclose(case.errors_mm(shifted(2.0) @ case.transform), 2, atol=1e-9)


def spoilt(how: str, head: Head, seed: int = 3) -> tuple[Case, Case]:
    case = make_case("E", 1, head, spacing_mm=COARSE_MM)
    return case, SPOILS[how](case, np.random.default_rng(seed))


@pytest.mark.parametrize("how", ["slab of 10 mm", "noise", "tumour"])
def test_harder_case_keeps_its_truth(how: str, head: Head) -> None:
    case, harder = spoilt(how, head)
    assert harder.errors_mm(case.transform).max() < 1e-9
    assert harder.ct.array_kji.shape != case.ct.array_kji.shape or not np.array_equal(
        harder.ct.array_kji, case.ct.array_kji
    )


@pytest.mark.parametrize("how", ["wrong slice distance", "gantry tilt not known", "moved half way"])
def test_bent_case_says_where_its_points_went(how: str, head: Head) -> None:
    case, bent = spoilt(how, head)
    assert np.percentile(bent.errors_mm(case.transform), 95) > 1.0
    # The CT shows at a point's new place what it showed at the old one.
    before, after = (values_at(c.ct, c.points_in_ct_lps_mm) for c in (case, bent))
    assert np.median(np.abs(before - after)) < 20
    assert np.median(np.abs(before - values_at(bent.ct, case.points_in_ct_lps_mm + 30))) > 20


def values_at(volume: Volume, points_lps_mm: np.ndarray) -> np.ndarray:
    ijk = np.rint(points_lps_mm @ volume.grid.ijk_from_lps[:3, :3].T + volume.grid.ijk_from_lps[:3, 3]).astype(int)
    i, j, k = np.clip(ijk, 0, np.array(volume.grid.size_ijk) - 1).T
    return volume.array_kji[k, j, i]
