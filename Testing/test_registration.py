"""Registration against the phantom's exact truth."""

from __future__ import annotations

import contextlib

import numpy as np
import pytest

from BrainFusionLib.backend import WHOLE, Backend, on_cpu
from BrainFusionLib.backend.on_torch import OnTorch
from BrainFusionLib.backend.plain import Plain
from BrainFusionLib.case import register as register_or_refuse
from BrainFusionLib.errors import Cancelled, RegistrationError, SettingsError
from BrainFusionLib.geometry import Grid
from BrainFusionLib.metrics import target_registration_errors_mm
from BrainFusionLib.phantom import PhantomPair, make_pair
from BrainFusionLib.registration import Registration, register
from BrainFusionLib.registration.confidence import corner_distance_mm, distinct, midpoint
from BrainFusionLib.registration.histogram import CELLS, FINENESS, MRI_BINS, ROW, Moving, Samples
from BrainFusionLib.registration.pyramid import CT_MOVING_KNOTS_HU, Level, _cells, _pyramid, prepare
from BrainFusionLib.registration.search import COARSE, FINE, _near_inverse, even_rotations, search
from BrainFusionLib.registration.similarity import (
    Poses,
    score_and_gradient,
)
from BrainFusionLib.settings import QUICK_PASS, RegistrationSettings, SearchPass
from BrainFusionLib.transform import RigidTransform
from BrainFusionLib.volume import Volume

FAST = RegistrationSettings.preset("fast")


def worst_error_mm(pair: PhantomPair, found: RigidTransform) -> float:
    return float(target_registration_errors_mm(found, pair.transform, pair.target_points()).max())


@pytest.fixture(scope="module")
def pair() -> PhantomPair:
    """A head at 2 mm, turned by 35 degrees and shifted by 40 mm."""
    return make_pair(5, spacing_mm=2.0, rotation_deg=35, translation_mm=40)


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_pose_20_degrees_and_30_mm_off_is_found(seed: int) -> None:
    case = make_pair(seed, spacing_mm=2.0, rotation_deg=20, translation_mm=30)
    assert worst_error_mm(case, register(case.ct, case.mri).transform) < 1.0


@pytest.mark.parametrize("contrast", ["T1", "T2"])
def test_a_head_upside_down_is_found_without_any_start(contrast: str) -> None:
    case = make_pair(4, spacing_mm=2.0, rotation_deg=170, translation_mm=80, contrast=contrast)
    assert worst_error_mm(case, register(case.ct, case.mri, FAST).transform) < 1.5


def test_unrelated_headers_do_no_harm(pair: PhantomPair) -> None:
    away = Grid.from_lps_from_ijk(
        RigidTransform.from_axis_angle((0, 0, 1), 0, (900, -700, 400)).moving_from_fixed_lps
        @ pair.ct.grid.lps_from_ijk,
        pair.ct.grid.size_ijk,
    )
    found = register(pair.ct.with_array(pair.ct.array_kji, grid=away), pair.mri, FAST).transform
    true = RigidTransform.from_axis_angle((0, 0, 1), 0, (900, -700, 400)) @ pair.transform
    assert target_registration_errors_mm(found, true, pair.target_points()).max() < 1.5


def test_a_slab_of_60_mm_is_found(pair: PhantomPair) -> None:
    k = pair.ct.grid.size_ijk[2]
    first, count = k // 2 - 2, 30
    origin = pair.ct.grid.lps_from_ijk @ np.array([0, 0, first, 1.0])
    grid = Grid((*pair.ct.grid.size_ijk[:2], count), pair.ct.grid.spacing_ijk_mm, tuple(origin[:3]))
    slab = Volume(pair.ct.array_kji[first : first + count], grid, "CT")
    assert worst_error_mm(pair, register(slab, pair.mri).transform) < 1.5


@pytest.fixture(scope="module")
def twice(pair: PhantomPair) -> tuple[Registration, Registration]:
    """The same job two times over."""
    return register(pair.ct, pair.mri, FAST), register(pair.ct, pair.mri, FAST)


def test_the_same_seed_gives_the_same_bits(twice: tuple[Registration, Registration]) -> None:
    first, second = twice
    assert np.array_equal(first.transform.moving_from_fixed_lps, second.transform.moving_from_fixed_lps)
    assert first.evidence == second.evidence


def test_what_speaks_for_a_right_result_is_strong(pair: PhantomPair, twice: tuple[Registration, Registration]) -> None:
    result = twice[0]
    assert worst_error_mm(pair, result.transform) < 1.0
    assert result.evidence.overlap > 0.8
    assert result.evidence.agreement_mm < 0.5
    margin = result.evidence.margin_nats
    assert margin is None or margin > QUICK_PASS.safe_margin
    assert 1.05 < result.evidence.similarity_nmi < 2


def test_wrong_start_does_no_harm(pair: PhantomPair) -> None:
    ct, mri = pair.ct.array_kji.copy(), pair.mri.array_kji.copy()
    wrong = RigidTransform.from_axis_angle((1, 0, 0), 90, (60, 0, 0)) @ pair.transform
    assert worst_error_mm(pair, register(pair.ct, pair.mri, FAST, start=wrong).transform) < 1.0
    assert np.array_equal(ct, pair.ct.array_kji)
    assert np.array_equal(mri, pair.mri.array_kji)


def test_true_start_is_kept_if_the_search_fails(pair: PhantomPair) -> None:
    blind = RegistrationSettings(passes=(SearchPass(1, 4),), samples=20_000)
    assert worst_error_mm(pair, register(pair.ct, pair.mri, blind, start=pair.transform).transform) < 1.0


def test_cancel_stops_and_progress_increases(pair: PhantomPair) -> None:
    seen: list[float] = []
    with pytest.raises(Cancelled):
        register(
            pair.ct,
            pair.mri,
            FAST,
            progress=lambda stage, f: seen.append(f),
            cancel=lambda: bool(seen and seen[-1] > 0.4),
        )
    assert seen == sorted(seen)
    assert 0.4 < seen[-1] < 0.9


def test_disjoint_parts_of_a_head_are_refused(pair: PhantomPair) -> None:
    half = pair.ct.grid.size_ijk[2] // 2
    low = Volume(pair.ct.array_kji[: half - 15], Grid((*pair.ct.grid.size_ijk[:2], half - 15), (2.0,) * 3), "CT", "low")
    k = pair.mri.grid.size_ijk[2] - 30
    high = Volume(pair.mri.array_kji[k:], Grid((*pair.mri.grid.size_ijk[:2], 30), (2.0,) * 3), "MR", "high")
    with pytest.raises(RegistrationError, match=r"high and low could not be aligned") as caught:
        register_or_refuse(low, high, FAST)
    assert isinstance(caught.value.best_transform, RigidTransform)


def test_progress_never_decreases_in_a_second_search(pair: PhantomPair) -> None:
    seen: list[float] = []
    twice = RegistrationSettings(passes=(SearchPass(2, 4, safe_margin=9.0), SearchPass(60, 8)), samples=40_000)
    result = register(pair.ct, pair.mri, twice, progress=lambda stage, f: seen.append(f))
    assert seen == sorted(seen)
    assert seen[-1] == 1.0
    assert result.escalated


@pytest.mark.parametrize("count", [4, 16])
def test_mri_of_few_slices_gives_a_pose_or_a_refusal(pair: PhantomPair, count: int) -> None:
    k = pair.mri.grid.size_ijk[2] // 2
    first = pair.mri.grid.lps_from_ijk @ np.array([0, 0, k, 1.0])
    grid = Grid((*pair.mri.grid.size_ijk[:2], count), pair.mri.grid.spacing_ijk_mm, tuple(first[:3]))
    slab = Volume(pair.mri.array_kji[k : k + count], grid, "MR")
    with contextlib.suppress(RegistrationError):
        assert register_or_refuse(pair.ct, slab, FAST).evidence.pose.overlap > 0.5


def test_an_unknown_device_is_refused(pair: PhantomPair) -> None:
    with pytest.raises(SettingsError, match="abacus"):
        register(pair.ct, pair.mri, FAST, device="abacus")


@pytest.mark.parametrize("normalised", [False, True])
def test_the_gradient_is_the_slope_of_the_score(normalised: bool) -> None:
    z, y, x = np.indices((40, 40, 40))
    moving = Moving(
        (FINENESS * (6 + 4 * np.sin(x / 5) * np.cos(y / 6) * np.sin(z / 4 + 1))).astype(np.uint8),
        np.array([[0.5, 0.05, 0, 20], [-0.05, 0.45, 0, 20], [0, 0.02, 0.5, 20], [0, 0, 0, 1.0]]),
    )
    points = np.random.default_rng(0).uniform(-18, 18, (3, 40_000)).astype(np.float32)
    bins = ((np.sin(points[0] / 10) * np.cos(points[1] / 13) + 1) / 2 * MRI_BINS).astype(np.int32)
    samples = Samples(points, np.clip(bins, 0, MRI_BINS - 1) * np.int32(ROW), on_cpu())
    turn = RigidTransform.from_axis_angle((1, 2, 3), 40).rotation
    poses = Poses(np.stack([np.eye(3), turn]), np.array([[0.0, 0, 0], [3, 2, 1]]))
    _, slope, overlap = score_and_gradient(samples, moving, poses, normalised=normalised)
    assert overlap.tolist() == [1.0, 1.0]
    for parameter in range(6):
        step = np.zeros((2, 6))
        step[:, parameter] = 0.2
        up, _, _ = score_and_gradient(samples, moving, poses.moved(step), normalised=normalised)
        down, _, _ = score_and_gradient(samples, moving, poses.moved(-step), normalised=normalised)
        np.testing.assert_allclose((up - down) / 0.4, slope[:, parameter], rtol=0, atol=0.02 * np.abs(slope).max())


def test_all_backends_find_the_same_pose(pair: PhantomPair) -> None:
    settings = RegistrationSettings(passes=(SearchPass(10, 4),), samples=30_000)
    backends = on_cpu(), Plain(), OnTorch("cpu")
    expected, *others = (register(pair.ct, pair.mri, settings, device=each).transform for each in backends)
    for found in others:
        assert target_registration_errors_mm(found, expected, pair.target_points()).max() < 1e-4


@pytest.mark.parametrize("backend", [Plain(), OnTorch("cpu")], ids=["numpy", "torch"])
def test_all_backends_count_and_pull_alike(backend: Backend) -> None:
    random = np.random.default_rng(3)
    cells = (random.random((17, 19, 23)) * 190).astype(np.uint8)
    points = random.uniform(-12, 12, (3, 5_001)).astype(np.float32)
    rows = (np.arange(5_001) % MRI_BINS * ROW).astype(np.int32)
    affines = np.stack([RigidTransform.from_axis_angle((1, 2, 3), 40).moving_from_fixed_lps[:3]] * 2)
    affines[:, :, 3] = [[11, 9, 8], [14, 9, 5]]
    smooth = (random.standard_normal((2, CELLS + 1)).cumsum(axis=1) / 100).astype(np.float32)
    smooth[:, CELLS] = 0
    found = []
    for each in (on_cpu(), backend):
        given = [each.put(array) for array in (points, rows, cells, affines)]
        counts, pull = each.count(*given, CELLS, slopes=True)
        assert pull is not None
        found.append((each.host(counts), each.host(pull(each.put(smooth)))))
    (fast, fast_sums), (slow, slow_sums) = found
    np.testing.assert_array_equal(fast, slow)
    assert 0 < fast[0, CELLS] < 5_001 * WHOLE
    assert fast.sum(axis=1).tolist() == [5_001 * WHOLE] * 2
    np.testing.assert_allclose(fast_sums, slow_sums, rtol=0, atol=1e-12 * np.abs(slow_sums).max())


@pytest.mark.parametrize("backend", [Plain(), OnTorch("cpu")], ids=["numpy", "torch"])
def test_all_backends_prepare_and_search_alike(backend: Backend, pair: PhantomPair) -> None:
    ours, theirs = (prepare(pair.ct, pair.mri, each) for each in (on_cpu(), backend))
    for level, other in zip(ours.cells, theirs.cells, strict=True):
        np.testing.assert_array_equal(level.cells, backend.host(other.cells))
    poses, scores = search(ours, even_rotations(8), COARSE, 2)
    others, other_scores = search(theirs, even_rotations(8), COARSE, 2)
    np.testing.assert_allclose(scores, other_scores, atol=1e-5)
    np.testing.assert_array_equal(poses.centre, others.centre)


def test_no_level_is_thinner_than_two_voxels(pair: PhantomPair) -> None:
    grid = Grid((*pair.ct.grid.size_ijk[:2], 4), pair.ct.grid.spacing_ijk_mm)
    level = Level(pair.ct.array_kji[40:44], grid)
    assert min(min(each.grid.size_ijk) for each in _pyramid(level, on_cpu())) == 2


def test_cells_rise_with_hounsfield_units_and_stay_in_range() -> None:
    cells = _cells(np.arange(-2000.0, 4000.0), np.asarray(CT_MOVING_KNOTS_HU), on_cpu()).astype(int)
    assert (np.diff(cells) >= 0).all()
    assert (cells[0], cells[-1]) == (FINENESS, 12 * FINENESS)


def test_even_rotations_cover_all_poses_to_35_degrees() -> None:
    rotations = even_rotations(360)
    np.testing.assert_allclose(rotations @ rotations.transpose(0, 2, 1), [np.eye(3)] * 360, atol=1e-12)
    np.testing.assert_allclose(np.linalg.det(rotations), 1)
    np.testing.assert_allclose(rotations[0], np.eye(3), atol=1e-12)
    generator = np.random.default_rng(0)
    others = np.stack([RigidTransform.from_axis_angle(a, d).rotation for a, d in zip(
        generator.standard_normal((500, 3)), generator.uniform(0, 180, 500), strict=True)])  # fmt: skip
    trace = np.einsum("aij,bij->ab", rotations, others)
    nearest = np.rad2deg(np.arccos(np.clip((trace - 1) / 2, -1, 1))).min(axis=0)
    assert nearest.max() < 35


def test_the_partial_inverse_is_the_inverse_fft_near_zero() -> None:
    size = FINE.size
    signal = np.random.default_rng(1).standard_normal((2, size, size, size)).astype(np.float32)
    near = np.arange(-FINE.reach, FINE.reach + 1) % size
    expected = signal[:, near][:, :, near][:, :, :, near].reshape(2, -1)
    np.testing.assert_allclose(_near_inverse(FINE, on_cpu())(on_cpu().spectra(signal)), expected, atol=1e-5)


def test_poses_in_one_basin_count_once() -> None:
    near = RigidTransform.from_axis_angle((0, 0, 1), 2)
    far = RigidTransform.from_axis_angle((0, 0, 1), 40)
    rotation = np.stack([np.eye(3), near.rotation, far.rotation])
    poses = Poses(rotation, np.zeros((3, 3)))
    kept = distinct(poses, 5)
    assert len(kept) == 2
    assert np.array_equal(kept.rotation[1], rotation[2])
    middle = midpoint(poses[[0]], poses[[2]])
    assert corner_distance_mm(middle, poses[[0]]) == pytest.approx(corner_distance_mm(middle, poses[[2]]))
