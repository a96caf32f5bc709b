"""Cases with scanner physics are what they claim: each effect moves what it should, and the truth says how far."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from BrainFusionLib.geometry import Grid
from BrainFusionLib.transform import RigidTransform
from BrainFusionLib.volume import Volume
from simulation.heads import Head, phantom_head
from simulation.physics.anatomy import anatomy_of, distance_mm
from simulation.physics.case import PhysicsCase, fitted_rigid, make_physics_case
from simulation.physics.draw import draw_plain, draw_site
from simulation.physics.effects import EFFECTS
from simulation.physics.kinds import KINDS, draw_kind, draw_mix
from simulation.physics.magnet import Magnet, gradient_shift_mm, head_field
from simulation.physics.movement import moved
from simulation.physics.mri import mri_image
from simulation.physics.sampling_torch import pulled, read_out
from simulation.physics.slices import slice_profile, slice_stack
from simulation.physics.strengths import CtProtocol, MriProtocol, MriScanner, Patient, Strengths
from simulation.tissues import BONE, BRAIN, Coarse
from Testing.test_simulation_cases import values_at

COARSE_MM = 3.0
FAST_MRI = MriProtocol(pixel_mm=3.0, thickness_mm=3.0, snr=200.0, bias=1.0)
FAST_CT = CtProtocol(pixel_mm=3.0, thickness_mm=3.0, increment_mm=3.0)
GRADIENTS = MriScanner(gradient_xy=0.01, gradient_z=-0.02, gradient_5=0.3)


@pytest.fixture(scope="module")
def head() -> Head:
    return phantom_head(0, COARSE_MM)


def case_with(
    head: Head, patient: Patient | None = None, scanner: MriScanner | None = None, **mri: object
) -> PhysicsCase:
    strengths = Strengths(
        mri_scanner=scanner or MriScanner(),
        mri_protocol=replace(FAST_MRI, **mri),  # type: ignore[arg-type]
        ct_protocol=FAST_CT,
        patient=patient or Patient(),
    )
    return make_physics_case(head, strengths, 4)


def magnet(scanner: MriScanner, protocol: MriProtocol = FAST_MRI) -> Magnet:
    x, _, z = np.eye(3)
    return Magnet(scanner, protocol, np.zeros(3), x, z, None, Grid((2, 2, 2)))


def test_plain_case_is_its_anatomy(head: Head) -> None:
    case = case_with(head)
    assert max(case.anatomy_mm) < 1e-9
    assert case.brain_shift_mm.max() == 0
    np.testing.assert_array_equal(case.truth.movement.tissue_kji, anatomy_of(head).head.tissue_kji)
    shown = values_at(case.mri, case.points_lps_mm)
    of_head = head.tissue_at(case.points_lps_mm + case.truth.magnet.isocentre_lps_mm)
    white, grey = (np.median(shown[of_head == tissue]) for tissue in (Coarse.WHITE, Coarse.GREY))
    assert white > 1.1 * grey


def test_true_pose_maps_the_skull_exactly(head: Head) -> None:
    case = case_with(head, Patient(jaw_deg=8, neck_deg=12, skin_mm=5, shift_mm=8, air_ml=10))
    skull = anatomy_of(head).skull_points_lps_mm
    off = case.transform.apply(case.truth.in_mri(skull)) - case.truth.skull_in_ct(skull)
    assert np.abs(off).max() < 1e-9


def test_skull_in_the_ct_lies_where_the_truth_says(head: Head) -> None:
    case = case_with(head, Patient(jaw_deg=8, shift_mm=8))
    # The grid of this skull is coarse: its middle layers are bone, whatever lies around.
    hu = values_at(case.ct, case.truth.skull_in_ct(anatomy_of(head).skull_points_lps_mm))
    away = values_at(case.ct, case.truth.skull_in_ct(anatomy_of(head).skull_points_lps_mm) + np.array([0, 15.0, 0]))
    assert np.mean(hu > 250) > 0.9
    assert np.mean(away > 250) < 0.5


def test_same_seed_gives_the_same_case(head: Head) -> None:
    strengths = replace(draw_kind("clinic", 3), mri_protocol=FAST_MRI, ct_protocol=FAST_CT)
    one, again, other = (make_physics_case(head, strengths, seed) for seed in (7, 7, 8))
    np.testing.assert_array_equal(one.ct.array_kji, again.ct.array_kji)
    np.testing.assert_array_equal(one.mri.array_kji, again.mri.array_kji)
    np.testing.assert_array_equal(one.points_in_ct_lps_mm, again.points_in_ct_lps_mm)
    assert not np.allclose(one.transform.moving_from_fixed_lps, other.transform.moving_from_fixed_lps)


def test_distortion_is_zero_at_the_isocentre() -> None:
    assert np.abs(gradient_shift_mm(GRADIENTS, np.zeros((1, 3)))).max() == 0


def test_distortion_is_that_of_the_formula() -> None:
    scanner = MriScanner(gradient_xy=0.01, gradient_z=0.02)
    np.testing.assert_allclose(gradient_shift_mm(scanner, np.array([[100.0, 0, 0]])), [[-1, 0, 0]])
    np.testing.assert_allclose(gradient_shift_mm(scanner, np.array([[0, 0, 50.0]])), [[0, 0, 0.5]])


@pytest.mark.parametrize("order", [0.0, 0.4])
def test_gradients_satisfy_laplace(order: float) -> None:
    scanner, step = MriScanner(gradient_xy=0.01, gradient_z=0.02, gradient_5=order), 1.0
    at = np.array([37.0, -21.0, 54.0])
    steps = step * np.concatenate([np.eye(3), -np.eye(3)])
    laplace = gradient_shift_mm(scanner, at + steps).sum(axis=0) - 6 * gradient_shift_mm(scanner, at[None])[0]
    # Fourth differences of the order five are what is left.
    assert np.abs(laplace).max() < 1e-3 * step**2


def test_two_dimensional_correction_leaves_the_slice_normal() -> None:
    points = np.random.default_rng(0).uniform(-80, 80, (50, 3))
    raw = gradient_shift_mm(GRADIENTS, points)
    flat = magnet(replace(GRADIENTS, correction="2D", residual=0.1)).smooth_shift_mm(points)
    np.testing.assert_allclose(flat[:, 2], raw[:, 2])
    np.testing.assert_allclose(flat[:, :2], 0.1 * raw[:, :2])
    full = magnet(replace(GRADIENTS, correction="3D", residual=0.1)).smooth_shift_mm(points)
    np.testing.assert_allclose(full, 0.1 * raw)


def test_way_back_through_the_magnet_is_exact() -> None:
    points = np.random.default_rng(1).uniform(-90, 90, (50, 3))
    seen = magnet(replace(GRADIENTS, scale=(0.01, 0, -0.02)))
    np.testing.assert_allclose(seen.before_readout(points + seen.smooth_shift_mm(points)), points, atol=0.01)


def test_wrong_voxel_size_stretches_the_brain(head: Head) -> None:
    case = case_with(head, scanner=MriScanner(scale=(0.0, 0.02, 0.0)))
    extent = np.ptp(case.points_lps_mm[:, 1])
    plain = np.ptp(case_with(head).points_lps_mm[:, 1])
    assert extent == pytest.approx(1.02 * plain)
    assert case.anatomy_mm[1] > 0.8


def test_fat_shift_moves_fat_and_not_brain(head: Head) -> None:
    still, shifted = (images(head, fat) for fat in (0.0, 6.0))
    anatomy = anatomy_of(head)
    fat = anatomy.head.tissue_kji == Coarse.FAT
    # Marrow is drawn over the brain that lies next to it.
    with_fat = fat | (anatomy.head.tissue_kji == Coarse.CANCELLOUS)
    brain = np.isin(anatomy.head.tissue_kji, BRAIN) & (distance_mm(with_fat, head.grid) > 10)
    assert np.abs(shifted - still)[brain].max() == 0
    # Two voxels along the columns.
    assert np.corrcoef(shifted[:, :, 4:].ravel(), np.where(fat, still, 0)[:, :, 2:-2].ravel())[0, 1] > 0.5
    assert np.abs(shifted - still)[fat].mean() > 100


def images(head: Head, fat_shift_mm: float) -> np.ndarray:
    """An MRI without noise on the head's own grid."""
    anatomy = anatomy_of(head)
    protocol = replace(FAST_MRI, fat_shift_mm=fat_shift_mm, snr=1e9)
    seen = replace(magnet(MriScanner(), protocol), isocentre_lps_mm=head.centre_lps_mm)
    look, noise = np.random.default_rng(0), np.random.default_rng(1)
    return mri_image(anatomy, anatomy.head.tissue_kji, seen, head.grid, Patient(), look, noise).array_kji


def test_fat_shift_follows_from_field_bandwidth_and_pixel() -> None:
    protocol = MriProtocol(bandwidth_hz=200, pixel_mm=1.0, fat_shift_mm=None)
    assert protocol.fat_mm(3.0) == pytest.approx(2.2, abs=0.02)
    assert protocol.mm_per_ppm(1.5) == pytest.approx(0.32, abs=0.005)


def test_readout_keeps_the_signal_and_moves_it() -> None:
    random = np.random.default_rng(2)
    image = np.zeros((3, 4, 40), np.float32)
    image[:, :, 10:30] = random.uniform(1, 2, (3, 4, 20))
    whole = read_out(image, np.full(image.shape, 3, np.float32), 0)
    np.testing.assert_allclose(whole[..., 13:33], image[..., 10:30], rtol=1e-4, atol=1e-4)
    fold = read_out(image, (4 * np.sin(np.arange(40) / 3)).astype(np.float32)[None, None] + 0 * image, 0)
    np.testing.assert_allclose(fold.sum(axis=-1), image.sum(axis=-1), rtol=1e-3)


def test_readout_piles_up_where_cells_shrink() -> None:
    image = np.ones((1, 1, 60), np.float32)
    shift = np.clip((30 - np.arange(60)) * 0.5, -5, 5).astype(np.float32)[None, None]
    found = read_out(image, shift, 0)
    np.testing.assert_allclose(found[0, 0, 27:33], 2, rtol=1e-3)


def test_field_is_even_in_the_brain_and_strong_at_air(head: Head) -> None:
    anatomy = anatomy_of(head)
    ppm, grid = head_field(anatomy)
    tissue = head.tissue_kji[::3, ::3, ::3]
    assert ppm.shape == grid.shape_kji
    in_brain = np.abs(ppm[np.isin(tissue, BRAIN)])
    assert np.median(in_brain) < 0.5
    assert np.abs(ppm[tissue != Coarse.AIR]).max() > 1


def test_brain_shift_is_zero_at_the_skull_and_largest_under_the_opening(head: Head) -> None:
    anatomy = anatomy_of(head)
    movement = moved(anatomy, anatomy.head.tissue_kji, Patient(shift_mm=9, air_ml=10), np.random.default_rng(3))
    bone = np.isin(anatomy.head.tissue_kji, BONE)
    np.testing.assert_array_equal(bone, np.isin(movement.tissue_kji, BONE))
    points = head.points_lps_mm
    shift = np.linalg.norm(movement.now(points) - points, axis=1)
    assert shift.max() == pytest.approx(9, rel=0.15)
    near = np.linalg.norm(points - movement.opening_lps_mm, axis=1) < 40
    assert shift[near].mean() > 3 * shift[~near].mean()
    assert np.count_nonzero(movement.tissue_kji == Coarse.AIR) > np.count_nonzero(head.tissue_kji == Coarse.AIR)


def test_jaw_neck_and_skin_leave_the_inside_of_the_skull(head: Head) -> None:
    case = case_with(head, Patient(jaw_deg=10, neck_deg=15, skin_mm=6, swelling_mm=8, eyes_mm=3))
    anatomy = anatomy_of(head)
    now = case.truth.movement.tissue_kji
    np.testing.assert_array_equal(now[anatomy.inside], anatomy.head.tissue_kji[anatomy.inside])
    assert np.mean(now != anatomy.head.tissue_kji) > 0.01
    assert max(case.anatomy_mm) < 1e-9


def test_craniectomy_takes_bone_and_resection_takes_tumour(head: Head) -> None:
    opened = case_with(head, Patient(opening="craniectomy", opening_mm=40)).truth.movement
    bone = np.isin(anatomy_of(head).head.tissue_kji, BONE)
    assert np.isin(opened.tissue_kji, BONE).sum() < 0.97 * bone.sum()
    # The phantom has lesions of its own.
    none, before, after = (
        case_with(head, Patient(opening="craniotomy", tumour_mm=size, resected=gone))
        for size, gone in ((0, False), (15, False), (15, True))
    )
    lesions = [np.count_nonzero(c.truth.movement.tissue_kji == Coarse.LESION) for c in (none, before, after)]
    assert lesions[1] > lesions[0] + 100
    assert lesions[2] <= lesions[0]
    assert len(after.points_lps_mm) < len(before.points_lps_mm)


def test_membranes_darken_what_lies_on_bone(head: Head) -> None:
    bare, covered = (case_with(head, Patient(membranes_mm=most), snr=1e6) for most in (0.0, 6.0))
    distance = distance_mm(np.isin(head.tissue_kji, BONE), head.grid)
    near, far = (pulled_to(head, case.mri) for case in (bare, covered))
    beside = (distance > 0) & (distance < 4) & np.isin(head.tissue_kji, (*BRAIN, Coarse.SKIN, Coarse.FAT))
    assert far[beside].mean() < 0.9 * near[beside].mean()
    assert far[distance > 12].mean() == pytest.approx(near[distance > 12].mean(), rel=0.01)


def pulled_to(head: Head, mri: Volume) -> np.ndarray:
    isocentre = head.centre_lps_mm
    return pulled(mri.array_kji[None], mri.grid, head.grid, lambda points: points - isocentre, 0.0)[0]


def test_slices_have_their_thickness_and_gap() -> None:
    stack = slice_stack(Grid((4, 4, 10), (1.0, 1.0, 6.0)), 5.0)
    assert stack.fine.spacing_ijk_mm[2] == pytest.approx(1.0)
    np.testing.assert_allclose(stack.weights.sum(axis=1), 1)
    heights = stack.fine.origin_lps_mm[2] + np.arange(stack.fine.size_ijk[2])
    np.testing.assert_allclose(stack.weights @ heights, 6.0 * np.arange(10), atol=1e-9)
    profile = slice_profile(np.array([0.0, 2.5, 3.0]), 5.0)
    assert profile[1] == pytest.approx(profile[0] / 2, rel=0.01)
    assert profile[2] < 0.25 * profile[0]


def test_pulling_is_exact_where_the_map_is_affine() -> None:
    source, target = Grid((20, 22, 24), (1.5, 1.5, 1.5)), Grid((7, 8, 9), (2.0, 1.0, 1.0), (3.0, 4.0, 5.0))
    k, j, i = np.indices(source.shape_kji, dtype=np.float32) * 1.5
    turn = RigidTransform.from_axis_angle((1, 2, 3), 5, (2, 1, 3))
    found = pulled((i + 10 * j + 100 * k)[None], source, target, turn.apply, 0.0)[0]
    corner = turn.apply([3.0, 4.0, 5.0]) @ [1, 10, 100]
    assert found[0, 0, 0] == pytest.approx(corner, rel=1e-4)


def test_fitted_pose_is_the_pose_of_rigid_points() -> None:
    points = np.random.default_rng(5).uniform(-80, 80, (30, 3))
    pose = RigidTransform.from_axis_angle((1, -2, 0.5), 40, (3, -20, 11))
    np.testing.assert_allclose(fitted_rigid(points, pose.apply(points)).apply(points), pose.apply(points))


def test_a_site_is_drawn_once() -> None:
    assert draw_site(3) == draw_site(3)
    assert draw_site(3).mri != draw_site(4).mri
    mixed = [draw_mix(draw_site(3), seed) for seed in range(60)]
    assert {case.mri_scanner.gradient_xy for case in mixed} == {0.0, draw_site(3).mri.gradient_xy}


def test_a_third_of_the_mix_is_plain_and_the_rest_has_one_to_three_effects() -> None:
    counts = [len(draw_mix(draw_site(seed // 4), seed).effects) for seed in range(400)]
    assert 0.25 < counts.count(0) / 400 < 0.42
    assert set(counts) == {0, 1, 2, 3}
    drawn = {effect for seed in range(400) for effect in draw_mix(draw_site(0), seed).effects}
    assert drawn == set(EFFECTS)


def test_kinds_are_known() -> None:
    assert all(draw_kind(kind, 1).kind == kind for kind in KINDS)
    assert draw_plain(1).effects == ()
    with pytest.raises(ValueError, match="there is no kind of case 'nothing'"):
        draw_kind("nothing", 1)
