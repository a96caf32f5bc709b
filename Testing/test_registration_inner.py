"""What moves against the skull between two scans does not pull the pose away from it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import lru_cache

import numpy as np
import pytest

from BrainFusionLib.backend.choice import backend_of
from BrainFusionLib.geometry import FloatArray, Grid, rotation_matrix
from BrainFusionLib.intensity.inside import inside_skull
from BrainFusionLib.registration import Registration, register
from BrainFusionLib.registration.deep import deep_share, of_soft_tissue
from BrainFusionLib.registration.histogram import FINENESS, Moving, Samples
from BrainFusionLib.registration.inner import inner_share, is_confirmed, octants, sharpened, shortened
from BrainFusionLib.registration.pyramid import CT_MOVING_KNOTS_HU, PreparedHead, prepare
from BrainFusionLib.volume import Volume
from simulation.heads import Head, phantom_head
from simulation.physics.case import PhysicsCase, make_physics_case
from simulation.physics.kinds import draw_kind


@lru_cache(maxsize=1)
def head() -> Head:
    return phantom_head(1, 1.5)


def registered(kind: str, seed: int) -> tuple[Registration, float]:
    """Return the registration of a simulated case and the median error of its pose over the brain, mm."""
    case = make_physics_case(head(), draw_kind(kind, seed), seed)
    found = register(case.ct, case.mri)
    return found, float(np.median(case.pose_errors_mm(found.transform)))


def test_a_thick_sliced_ct_is_registered_within_a_seventh_of_a_millimetre() -> None:
    _, error_mm = registered("CT 3 mm", 4)
    assert error_mm < 0.14


def hu_between_slices(ct: Volume, sharpen: Callable[[PreparedHead], Moving]) -> FloatArray:
    """Return the HU of a column of the CT at every millimetre, interpolated as the inner fit does."""
    heads = prepare(ct, ct, backend_of("cpu"))
    column = sharpen(heads.ct).cells[:, 32, 32] / FINENESS
    at_mm = np.arange((len(column) - 1) * round(ct.grid.spacing_ijk_mm[2]) + 1) / ct.grid.spacing_ijk_mm[2]
    bins = np.interp(at_mm, np.arange(len(column)), column)
    return np.interp(bins, np.arange(1, len(CT_MOVING_KNOTS_HU) + 1), CT_MOVING_KNOTS_HU)


def of_the_search(ct: PreparedHead) -> Moving:
    return ct.cells[0]


@pytest.mark.parametrize("thickness_mm", [3, 5])
def test_bone_runs_less_far_into_the_brain_between_thick_slices_of_the_inner_fit(thickness_mm: int) -> None:
    fine = np.full((150, 64, 64), 40.0, np.float32)
    fine[:15], fine[-15:], fine[113:120] = -1000, -1000, 1000  # the vertex is 7 mm thick
    too_dense = []
    for first in range(thickness_mm):  # wherever the slices happen to lie
        count = (len(fine) - first) // thickness_mm
        thick = fine[first : first + count * thickness_mm].reshape(count, thickness_mm, 64, 64).mean(axis=1)
        ct = Volume(thick, Grid((64, 64, count), (1.0, 1.0, thickness_mm)), "CT", "CT")
        below = 113 - first - (thickness_mm - 1) // 2  # the 3 mm below the bone
        means = [hu_between_slices(ct, sharpen)[below - 3 : below].mean() for sharpen in (of_the_search, sharpened)]
        too_dense.append(np.array(means) - 40)
    searched, inner = np.mean(too_dense, axis=0)
    assert searched > 70
    assert abs(inner) < 0.7 * searched


def test_chemical_shift_of_fat_does_not_pull_the_pose() -> None:
    found, error_mm = registered("chemical shift 1.8 mm", 3)
    assert found.evidence.inner_apart_mm is not None
    assert found.evidence.inner_apart_mm > 0.3
    assert error_mm < 0.3


def with_shoulders(ct: Volume) -> Volume:
    """Return a CT that goes on for 180 mm below the head, as wide as its field of view."""
    grid = ct.grid
    below = round(180 / grid.spacing_ijk_mm[2])
    j, i = (np.linspace(-1, 1, n) for n in grid.shape_kji[1:])
    shoulders = np.where(np.hypot(j[:, None], i) < 0.95, np.float32(45), np.float32(-1000))
    array = np.concatenate([np.repeat(shoulders[None], below, axis=0), ct.array_kji])
    origin = np.asarray(grid.origin_lps_mm) - below * grid.spacing_ijk_mm[2] * grid.direction[:, 2]
    size = (*grid.size_ijk[:2], len(array))
    return Volume(array, Grid(size, grid.spacing_ijk_mm, tuple(origin), grid.direction), "CT", "CT")


def test_a_ct_that_reaches_the_shoulders_is_fitted_to_the_inside_of_the_skull_too() -> None:
    case = make_physics_case(head(), draw_kind("chemical shift 1.8 mm", 3), 3)
    found = register(with_shoulders(case.ct), case.mri)
    assert found.evidence.inner_apart_mm is not None
    assert np.median(case.pose_errors_mm(found.transform)) < 0.3


@pytest.mark.parametrize("is_mri", [True, False], ids=["MRI", "CT"])
def test_a_slab_is_not_fitted_to_an_inside_that_it_shows_in_part(*, is_mri: bool) -> None:
    case = make_physics_case(head(), draw_kind("plain", 3), 3)
    whole = case.mri if is_mri else case.ct
    grid, spacing_mm = whole.grid, whole.grid.spacing_ijk_mm[2]
    first, count = grid.size_ijk[2] - round(90 / spacing_mm), round(55 / spacing_mm)
    origin = np.asarray(grid.origin_lps_mm) + first * spacing_mm * grid.direction[:, 2]
    cut = Grid((*grid.size_ijk[:2], count), grid.spacing_ijk_mm, tuple(origin), grid.direction)
    slab = Volume(whole.array_kji[first : first + count].copy(), cut, whole.modality, whole.name)
    found = register(case.ct, slab) if is_mri else register(slab, case.mri)
    assert found.evidence.inner_apart_mm is None


def test_an_mri_with_much_around_the_head_is_fitted_to_the_inside_of_the_skull_too() -> None:
    case = make_physics_case(head(), draw_kind("chemical shift 1.8 mm", 3), 3)
    array = case.mri.array_kji.copy()
    array[:, :8], array[:, -8:] = -2000, -2000
    found = register(case.ct, case.mri.with_array(array))
    assert found.evidence.inner_apart_mm is not None
    assert np.median(case.pose_errors_mm(found.transform)) < 0.3


@pytest.mark.parametrize("share", [0.0, 0.2, 2.0])
def test_mri_below_zero_is_registered_as_well_as_one_above_zero(share: float) -> None:
    case = make_physics_case(head(), draw_kind("coil bias x6", 3), 3)
    found = register(case.ct, case.mri.with_array(case.mri.array_kji - share * case.mri.array_kji.max()))
    assert np.median(case.pose_errors_mm(found.transform)) < 0.2


def test_the_inside_of_another_object_in_the_ct_is_not_fitted() -> None:
    case = make_physics_case(head(), draw_kind("plain", 3), 3)
    inside = inside_skull(case.ct)
    grid = inside.grid
    aside = Grid(grid.size_ijk, grid.spacing_ijk_mm, tuple(np.add(grid.origin_lps_mm, (400, 0, 0))), grid.direction)
    assert register(case.ct, case.mri, inside=lambda: replace(inside, grid=aside)).evidence.inner_apart_mm is None


def test_moved_jaw_and_skin_do_not_pull_the_pose() -> None:
    _, error_mm = registered("jaw and skin", 4)
    assert error_mm < 0.25


def test_bright_marrow_that_is_displaced_with_the_scalp_does_not_pull_the_pose() -> None:
    """Fat that moves as one fits as sharply as before: only the distance of the two fits tells."""
    _, error_mm = registered("bright marrow", 5)
    assert error_mm < 0.45  # .64 mm by the whole head


def test_fluid_as_dark_as_bone_hardly_pulls_the_pose_of_a_flair() -> None:
    drawn = draw_kind("bright marrow", 5)
    flair = replace(drawn, mri_protocol=replace(drawn.mri_protocol, contrast="FLAIR"))
    case = make_physics_case(head(), flair, 5)
    found = register(case.ct, case.mri)
    assert np.median(case.pose_errors_mm(found.transform)) < 0.125  # .16 mm with the layer under the skull alone


@pytest.mark.parametrize(("scatter_mm", "apart_mm"), [(0.35, 0.3), (0.1, 1.1)], ids=["scatters", "far away"])
def test_a_fit_to_the_deep_that_may_follow_a_moved_brain_does_not_count(scatter_mm: float, apart_mm: float) -> None:
    assert deep_share(scatter_mm, apart_mm) == 0


def test_a_settled_fit_to_the_deep_counts_more_than_that_with_the_layer_under_the_skull() -> None:
    assert deep_share(0.1, 0.5) > 0.7
    assert deep_share(0.1, 0.5) > deep_share(0.18, 0.5) > 0.5


def test_soft_tissue_has_the_same_cells_where_all_of_a_ct_reads_too_high() -> None:
    ct = make_physics_case(head(), draw_kind("plain", 3), 3).ct
    as_it_is, too_high = (
        of_soft_tissue(prepare(volume, volume, backend_of("cpu")).ct, brain_hu).cells
        for volume, brain_hu in (
            (ct, 36.0),
            (ct.with_array(np.where(ct.array_kji > -500, ct.array_kji + 50, ct.array_kji)), 86.0),
        )
    )
    soft = (as_it_is > 4 * FINENESS) & (as_it_is < 9 * FINENESS)
    assert np.mean(np.abs(as_it_is[soft].astype(int) - too_high[soft]) <= 1) > 0.99


@lru_cache(maxsize=1)
def with_moved_scalp(mm: float) -> tuple[PhysicsCase, Registration]:
    """Return a case whose MRI shows all that is beyond the skull moved to the back, and its registration."""
    case = make_physics_case(head(), draw_kind("plain", 3), 3)
    inside, grid = inside_skull(case.ct), case.mri.grid
    depth = replace(inside, mask_kji=inside.depth_kji > -8).depth_on(grid, case.transform)
    moved = np.roll(case.mri.array_kji, round(mm / grid.spacing_ijk_mm[1]), axis=1)
    mri = case.mri.with_array(np.where(depth > 0, case.mri.array_kji, moved))
    return case, register(case.ct, mri)


def test_a_scalp_and_neck_that_have_moved_by_8_mm_do_not_take_the_pose_along() -> None:
    case, found = with_moved_scalp(8.0)
    assert found.evidence.inner_apart_mm is not None
    assert found.evidence.inner_apart_mm > 4
    assert np.median(case.pose_errors_mm(found.transform)) < 0.4  # 7.5 mm by the whole head


def test_scatter_and_agreement_are_those_of_the_fit_inside_where_that_alone_is_the_pose() -> None:
    _, found = with_moved_scalp(8.0)
    assert found.evidence.agreement_mm > 0.1  # .02 mm: two fits to the moved scalp


@pytest.mark.parametrize(
    "seen", [{"scatter_mm": 8.0}, {"agreement_mm": 0.7}, {"left": 0.8}], ids=["scatter", "halves", "information"]
)
def test_an_inner_fit_far_from_the_whole_head_s_is_not_taken_if_one_sign_denies_it(seen: dict[str, float]) -> None:
    sure = {"scatter_mm": 0.16, "agreement_mm": 0.13, "left": 0.28, "apart_mm": 6.0}
    assert is_confirmed(**sure)
    assert not is_confirmed(**(sure | seen))


def test_fits_that_are_nearer_may_tell_more_of_the_same() -> None:
    near, far = (is_confirmed(0.57, 0.23, left=0.78, apart_mm=mm) for mm in (1.7, 6.0))
    assert near
    assert not far


@pytest.mark.parametrize("sampling_mm", [0.011, 0.02, 0.05])
def test_fits_that_agree_leave_the_pose_of_the_whole_head(sampling_mm: float) -> None:
    assert inner_share(sampling_mm, apart_mm=0.1, told_mm=0.1, voxel_mm=1.0) == 0


@pytest.mark.parametrize("sampling_mm", [0.011, 0.05])
def test_the_inner_fit_decides_where_the_whole_head_s_is_far_away(sampling_mm: float) -> None:
    assert inner_share(sampling_mm, apart_mm=1.0, told_mm=1.0, voxel_mm=1.0) == pytest.approx(1.0)


def test_fits_may_differ_more_along_the_long_edges_of_voxels() -> None:
    ct, mri = Grid((9, 9, 9), (0.5, 0.5, 1.0)), Grid((9, 9, 9), (0.9, 0.9, 4.0))
    np.testing.assert_allclose(shortened(ct, mri, np.eye(4)), np.diag([1, 1, 0.25]))
    # In the frame of the CT: the thick slices of an MRI that lies turned.
    turned = np.eye(4)
    turned[:3, :3] = rotation_matrix([1.0, 0, 0], 90.0)
    np.testing.assert_allclose(shortened(ct, mri, turned), np.diag([1, 0.25, 1]), atol=1e-9)
    # The CT's slices lie across the MRI's first axis.
    thick_ct = Grid((9, 9, 9), (0.5, 0.5, 2.25))
    turned[:3, :3] = rotation_matrix([0, 1.0, 0], 90.0)
    np.testing.assert_allclose(
        shortened(thick_ct, Grid((9, 9, 9), (1.0, 1, 1)), turned), np.diag([1, 1, 1 / 2.25]), atol=1e-9
    )


def test_in_slices_of_5_mm_a_fit_a_quarter_of_a_voxel_away_hardly_counts_if_parts_disagree():
    assert inner_share(0.03, apart_mm=0.9, told_mm=0.27, voxel_mm=5.0, scatter_mm=0.5) < 0.35
    assert inner_share(0.13, apart_mm=0.9, told_mm=0.25, voxel_mm=5.0, scatter_mm=0.5) > 0.9
    assert inner_share(0.03, apart_mm=0.27, told_mm=0.27, voxel_mm=1.25) == pytest.approx(1.0)


def test_in_thick_slices_an_inner_fit_that_all_parts_confirm_decides():
    assert inner_share(0.025, apart_mm=0.4, told_mm=0.35, voxel_mm=6.0, scatter_mm=0.11) > 0.9


def test_a_scatter_without_limit_leaves_a_whole_head_in_doubt_to_the_inner_fit():
    assert inner_share(0.086, apart_mm=1.3, told_mm=1.1, voxel_mm=3.0, scatter_mm=np.inf) > 0.9


def test_an_inner_fit_that_parts_of_the_head_deny_hardly_counts() -> None:
    usual, denied = (inner_share(0.046, apart_mm=0.77, told_mm=0.28, voxel_mm=5.0, scatter_mm=s) for s in (0.4, 0.9))
    assert usual > 0.7
    assert denied < 0.1


def test_samples_are_split_into_the_eighths_of_a_head() -> None:
    random = np.random.default_rng(3)
    backend = backend_of("cpu")
    points = random.normal(size=(3, 4000)).astype(np.float32)
    samples = Samples(backend.put(points), backend.put(np.arange(4000, dtype=np.int32)), backend)
    parts = octants(samples)
    assert len(parts) == 8
    rows = np.concatenate([backend.host(part.rows) for part in parts])
    assert sorted(rows) == list(range(4000))
    for part in parts:
        signs = np.sign(backend.host(part.points) - np.median(points, axis=1, keepdims=True))
        assert (signs == signs[:, :1]).mean() > 0.99


def test_a_failed_inner_fit_does_not_count() -> None:
    assert inner_share(0.1, apart_mm=9.0, told_mm=9.0, voxel_mm=1.0) == 0
    # Along slices of 6 mm, 9 mm are only 1.5 voxels.
    assert inner_share(0.1, apart_mm=9.0, told_mm=1.5, voxel_mm=6.0) == 0
