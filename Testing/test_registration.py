"""Registration against the phantom's exact truth."""

from __future__ import annotations

import contextlib

import numpy as np
import pytest
import torch

from BrainFusionLib.case import register as register_or_refuse
from BrainFusionLib.errors import Cancelled, RegistrationError, SettingsError
from BrainFusionLib.geometry import Grid
from BrainFusionLib.metrics import target_registration_errors_mm
from BrainFusionLib.phantom import PhantomPair, make_pair
from BrainFusionLib.registration import Registration, histogram, register
from BrainFusionLib.registration.confidence import corner_distance_mm, distinct, midpoint
from BrainFusionLib.registration.histogram import CELLS, FINENESS, MRI_BINS, ROW, Moving, Samples, joint_counts
from BrainFusionLib.registration.kernel import kernel
from BrainFusionLib.registration.pyramid import CT_MOVING_KNOTS_HU, Level, _cells, _pyramid
from BrainFusionLib.registration.search import FINE, _near_inverse, even_rotations
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
    case = make_pair(seed, spacing_mm=1.5, rotation_deg=20, translation_mm=30)
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
    ct, mri, threads = pair.ct.array_kji.copy(), pair.mri.array_kji.copy(), torch.get_num_threads()
    wrong = RigidTransform.from_axis_angle((1, 0, 0), 90, (60, 0, 0)) @ pair.transform
    assert worst_error_mm(pair, register(pair.ct, pair.mri, FAST, start=wrong).transform) < 1.0
    assert np.array_equal(ct, pair.ct.array_kji)
    assert np.array_equal(mri, pair.mri.array_kji)
    assert torch.get_num_threads() == threads


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
    generator = torch.Generator().manual_seed(0)
    z, y, x = torch.meshgrid(*[torch.arange(40.0)] * 3, indexing="ij")
    moving = Moving(
        (FINENESS * (6 + 4 * torch.sin(x / 5) * torch.cos(y / 6) * torch.sin(z / 4 + 1))).to(torch.uint8),
        np.array([[0.5, 0.05, 0, 20], [-0.05, 0.45, 0, 20], [0, 0.02, 0.5, 20], [0, 0, 0, 1.0]]),
    )
    points = (torch.rand(40_000, 3, generator=generator) - 0.5) * 36
    bins = ((torch.sin(points[:, 0] / 10) * torch.cos(points[:, 1] / 13) + 1) / 2 * MRI_BINS).long()
    samples = Samples(points.T.contiguous(), (bins.clamp(0, MRI_BINS - 1) * ROW).int())
    turn = torch.tensor(RigidTransform.from_axis_angle((1, 2, 3), 40).rotation)
    poses = Poses(
        torch.stack([torch.eye(3, dtype=torch.float64), turn]), torch.tensor([[0.0, 0, 0], [3, 2, 1]]).double()
    )
    _, slope, overlap = score_and_gradient(samples, moving, poses, normalised=normalised)
    assert overlap.tolist() == [1.0, 1.0]
    for parameter in range(6):
        step = torch.zeros(2, 6, dtype=torch.float64)
        step[:, parameter] = 0.2
        up, _, _ = score_and_gradient(samples, moving, poses.moved(step), normalised=normalised)
        down, _, _ = score_and_gradient(samples, moving, poses.moved(-step), normalised=normalised)
        assert torch.allclose((up - down) / 0.4, slope[:, parameter], atol=0.02 * float(slope.abs().max()))


def test_compiled_loops_and_torch_count_and_pull_alike(monkeypatch: pytest.MonkeyPatch) -> None:
    if kernel() is None:
        pytest.skip("no C compiler here: torch does all the work, and the other tests cover it")
    generator = torch.Generator().manual_seed(3)
    moving = Moving((torch.rand(17, 19, 23, generator=generator) * 190).to(torch.uint8), np.eye(4))
    points = (torch.rand(3, 5_001, generator=generator) - 0.5) * 24
    samples = Samples(points, (torch.arange(5_001) % MRI_BINS * ROW).int())
    turn = torch.tensor(RigidTransform.from_axis_angle((1, 2, 3), 40).moving_from_fixed_lps)[:3]
    affines = torch.stack([turn, turn.clone()])
    affines[:, :, 3] = torch.tensor([[11.0, 9, 8], [14, 9, 5]])
    table = torch.randn(2, CELLS + 1, generator=generator)
    table[:, CELLS] = 0
    fast, fast_pull = joint_counts(samples, moving, affines, slopes=True)
    monkeypatch.setattr(histogram, "kernel", lambda: None)
    slow, slow_pull = joint_counts(samples, moving, affines, slopes=True)
    assert fast[:, CELLS].tolist() == slow[:, CELLS].tolist()
    assert 0 < fast[0, CELLS] < 5_001
    # Rounding puts a sample in a thousand in the neighbouring cell.
    assert (fast - slow).abs().sum() <= 20
    smooth = table.cumsum(dim=1) / 100
    smooth[:, CELLS] = 0
    assert fast_pull is not None
    assert slow_pull is not None
    assert torch.allclose(
        fast_pull(smooth), slow_pull(smooth), rtol=1e-3, atol=1e-3 * float(slow_pull(smooth).abs().max())
    )


def test_without_the_c_library_the_result_is_the_same(
    pair: PhantomPair, twice: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    first: Registration = twice[0]  # type: ignore[index]
    monkeypatch.setattr(histogram, "kernel", lambda: None)
    plain = register(pair.ct, pair.mri, RegistrationSettings(passes=(SearchPass(30, 8),), samples=120_000))
    assert target_registration_errors_mm(plain.transform, first.transform, pair.target_points()).max() < 0.05


def test_no_level_is_thinner_than_two_voxels(pair: PhantomPair) -> None:
    grid = Grid((*pair.ct.grid.size_ijk[:2], 4), pair.ct.grid.spacing_ijk_mm)
    level = Level(torch.from_numpy(pair.ct.array_kji[40:44].copy()), grid)
    assert min(min(each.grid.size_ijk) for each in _pyramid(level)) == 2


def test_cells_rise_with_hounsfield_units_and_stay_in_range() -> None:
    cells = _cells(torch.arange(-2000.0, 4000.0), np.asarray(CT_MOVING_KNOTS_HU)).int()
    assert (cells.diff() >= 0).all()
    assert (cells[0], cells[-1]) == (FINENESS, 12 * FINENESS)


def test_even_rotations_cover_all_poses_to_35_degrees() -> None:
    rotations = even_rotations(360)
    assert torch.allclose(rotations @ rotations.transpose(1, 2), torch.eye(3).double(), atol=1e-12)
    assert torch.allclose(torch.linalg.det(rotations), torch.ones(360).double())
    assert torch.allclose(rotations[0], torch.eye(3).double(), atol=1e-12)
    generator = np.random.default_rng(0)
    others = np.stack([RigidTransform.from_axis_angle(a, d).rotation for a, d in zip(
        generator.standard_normal((500, 3)), generator.uniform(0, 180, 500), strict=True)])  # fmt: skip
    trace = torch.einsum("aij,bij->ab", rotations, torch.tensor(others))
    nearest = torch.rad2deg(torch.arccos(((trace - 1) / 2).clamp(-1, 1))).min(dim=0).values
    assert nearest.max() < 35


def test_the_partial_inverse_is_the_inverse_fft_near_zero() -> None:
    size = FINE.size
    signal = torch.randn(2, size, size, size, generator=torch.Generator().manual_seed(1))
    near = torch.arange(-FINE.reach, FINE.reach + 1) % size
    expected = signal[:, near][:, :, near][:, :, :, near].flatten(1)
    assert torch.allclose(
        _near_inverse(FINE, signal.device)(torch.fft.rfftn(signal, dim=(1, 2, 3))), expected, atol=1e-5
    )


def test_poses_in_one_basin_count_once() -> None:
    near = RigidTransform.from_axis_angle((0, 0, 1), 2)
    far = RigidTransform.from_axis_angle((0, 0, 1), 40)
    rotation = torch.tensor(np.stack([np.eye(3), near.rotation, far.rotation]))
    poses = Poses(rotation, torch.zeros(3, 3).double())
    kept = distinct(poses, 5)
    assert len(kept) == 2
    assert torch.equal(kept.rotation[1], rotation[2])
    middle = midpoint(poses[[0]], poses[[2]])
    assert torch.allclose(corner_distance_mm(middle, poses[[0]]), corner_distance_mm(middle, poses[[2]]))
