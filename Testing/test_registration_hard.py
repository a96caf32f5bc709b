"""Registration where planners' data is hard, and where there is nothing to register."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from BrainFusionLib.case import register as register_or_refuse
from BrainFusionLib.errors import Cancelled, GeometryError, ImageContentError, RegistrationError
from BrainFusionLib.evidence import Evidence
from BrainFusionLib.geometry import Grid
from BrainFusionLib.metrics import target_registration_errors_mm
from BrainFusionLib.phantom import PhantomPair, Tissue, make_pair
from BrainFusionLib.registration import Registration, register
from BrainFusionLib.resample import resample_onto
from BrainFusionLib.settings import RegistrationSettings
from BrainFusionLib.transform import RigidTransform
from BrainFusionLib.verdict.measures import is_mirrored
from BrainFusionLib.volume import Volume
from Testing.test_registration import FAST, worst_error_mm


@pytest.fixture(scope="module")
def pair() -> PhantomPair:
    return make_pair(5, spacing_mm=2.0, rotation_deg=35, translation_mm=40)


@pytest.fixture(scope="module")
def plain(pair: PhantomPair) -> Registration:
    """The pair as it is, registered."""
    return register(pair.ct, pair.mri, FAST)


@pytest.fixture(scope="module")
def other() -> PhantomPair:
    return make_pair(6, spacing_mm=2.0, rotation_deg=10, translation_mm=10, contrast="T2")


def part(volume: Volume, first: int, count: int) -> Volume:
    """Return some slices of a volume, in their place."""
    grid = volume.grid
    origin = grid.lps_from_ijk @ np.array([0, 0, first, 1.0])
    size = (*grid.size_ijk[:2], count)
    cut = Grid(size, grid.spacing_ijk_mm, tuple(origin[:3]), grid.direction)
    return Volume(volume.array_kji[first : first + count], cut, volume.modality, volume.name)


@pytest.mark.parametrize("which", ["CT", "MRI"])
def test_slab_of_30_mm_is_registered(pair: PhantomPair, which: str) -> None:
    whole = pair.ct if which == "CT" else pair.mri
    slab = part(whole, whole.grid.size_ijk[2] // 2, 15)
    result = register(slab, pair.mri, FAST) if which == "CT" else register(pair.ct, slab, FAST)
    assert worst_error_mm(pair, result.transform) < 1.5
    assert result.evidence.overlap > 0.8


def test_a_skull_stripped_mri_is_found_upside_down() -> None:
    case = make_pair(8, spacing_mm=2.0, rotation_deg=170, translation_mm=60)
    brain = np.isin(case.labels.array_kji, [Tissue.GREY_MATTER, Tissue.WHITE_MATTER, Tissue.CSF, Tissue.VENTRICLE])
    stripped = case.mri.with_array(np.where(brain, case.mri.array_kji, 0))
    assert worst_error_mm(case, register(case.ct, stripped).transform) < 1.0


def test_left_and_right_exchanged_is_noticed(pair: PhantomPair, plain: Registration) -> None:
    mirrored = register(pair.ct, pair.mri.with_array(pair.mri.array_kji[:, :, ::-1].copy()), FAST)
    assert is_mirrored(Evidence(pose=mirrored.evidence))
    assert not is_mirrored(Evidence(pose=plain.evidence))
    assert plain.evidence.mirrored_margin_nats > 0.1


@pytest.mark.parametrize("axis", [1, 2], ids=["rolled", "yawed"])
def test_left_and_right_exchanged_is_noticed_in_a_head_that_lies_askew(pair: PhantomPair, axis: int) -> None:
    cos, sin, (a, b) = np.cos(np.radians(40)), np.sin(np.radians(40)), ((axis + 1) % 3, (axis + 2) % 3)
    turned = np.eye(3)
    turned[a, a], turned[a, b], turned[b, a], turned[b, b] = cos, -sin, sin, cos
    size, spacing = (120, 120, 120), (2.0, 2.0, 2.0)
    origin = tuple(pair.mri.grid.centre_lps_mm - turned @ np.full(3, 119.0))
    askew = resample_onto(pair.mri, Grid(size, spacing, origin, turned)).array_kji
    straight = Grid(size, spacing, origin)
    right, mirrored = (
        register(pair.ct, Volume(array.copy(), straight, "MR"), FAST).evidence for array in (askew, askew[:, :, ::-1])
    )
    assert is_mirrored(Evidence(pose=mirrored))
    assert right.mirrored_margin_nats == pytest.approx(-mirrored.mirrored_margin_nats, abs=0.03)


def test_another_patient_is_refused_with_the_pose_attached(pair: PhantomPair, other: PhantomPair) -> None:
    with pytest.raises(RegistrationError, match=r"could not be aligned.*same head") as caught:
        register_or_refuse(pair.ct, other.mri, FAST)
    assert isinstance(caught.value.best_transform, RigidTransform)


def test_another_part_of_the_body_is_refused(pair: PhantomPair) -> None:
    grid = pair.ct.grid
    _, j, i = np.indices(grid.shape_kji)
    away = np.hypot(i - grid.size_ijk[0] / 2, j - grid.size_ijk[1] / 2) * grid.spacing_ijk_mm[0]
    thigh = np.where(away < 80, 45.0, -1000.0) + np.where(away < 15, 1000.0, 0)
    noise = np.random.default_rng(0).normal(0, 15, grid.shape_kji)
    with pytest.raises(RegistrationError, match="no pose stands out"):
        register_or_refuse(Volume((thigh + noise).astype(np.float32), grid, "CT"), pair.mri, FAST)


@pytest.mark.parametrize("fixed", ["CT", "MRI"])
def test_wrong_voxel_size_is_fitted_only_on_request(pair: PhantomPair, plain: Registration, fixed: str) -> None:
    grid = pair.mri.grid
    wrong = Grid(grid.size_ijk, (2.06, 2.0, 1.94), grid.origin_lps_mm, grid.direction)
    moved = wrong.lps_from_ijk @ grid.ijk_from_lps
    points = pair.target_points() @ moved[:3, :3].T + moved[:3, 3]
    truth = pair.transform.apply(pair.target_points())
    mri = Volume(pair.mri.array_kji, wrong, "MR")
    # Thick slices are never sampled, so the MRI is: both ways round have to fit.
    ct = pair.ct if fixed == "CT" else part(pair.ct, 0, pair.ct.grid.size_ijk[2])
    if fixed == "MRI":
        k, j, i = (n // 2 * 2 for n in ct.grid.shape_kji)
        pairs_of_slices = ct.array_kji[:k, :j, :i].reshape(k // 2, 2, j, i).mean(axis=1)
        origin = ct.grid.lps_from_ijk @ np.array([0, 0, 0.5, 1])
        spacing = (*ct.grid.spacing_ijk_mm[:2], 2 * ct.grid.spacing_ijk_mm[2])
        ct = Volume(pairs_of_slices, Grid((i, j, k // 2), spacing, tuple(origin[:3]), ct.grid.direction), "CT")
    result = register(ct, mri, RegistrationSettings.preset("fast", model="affine"))
    assert result.affine is not None
    assert np.linalg.norm(result.affine.apply(points) - truth, axis=1).max() < 1.0
    assert np.linalg.norm(result.transform.apply(points) - truth, axis=1).max() > 1.5
    assert plain.affine is None


def test_a_similarity_has_one_scale(pair: PhantomPair) -> None:
    grid = pair.mri.grid
    wrong = Grid(grid.size_ijk, (2.06, 2.06, 2.06), grid.origin_lps_mm, grid.direction)
    result = register(
        pair.ct, Volume(pair.mri.array_kji, wrong, "MR"), RegistrationSettings.preset("fast", model="similarity")
    )
    assert result.affine is not None
    scales = np.linalg.svd(result.affine.moving_from_fixed_lps[:3, :3], compute_uv=False)
    assert scales == pytest.approx(1 / 1.03, abs=0.004)


def test_what_lies_outside_the_mask_has_no_say(pair: PhantomPair) -> None:
    # The upper half of the MRI is shifted by 4 mm: only the mask can know which half counts.
    half = pair.mri.grid.size_ijk[2] // 2
    bent = pair.mri.array_kji.copy()
    bent[half:] = np.roll(bent[half:], 2, axis=1)
    mri = pair.mri.with_array(bent)
    mask = np.zeros(bent.shape, np.float32)
    mask[: half - 2] = 1
    points = pair.phantom.target_points(400)
    k = (points @ pair.mri.grid.ijk_from_lps[:3, :3].T + pair.mri.grid.ijk_from_lps[:3, 3])[:, 2]
    errors = []
    for region in (None, pair.mri.with_array(mask)):
        found = register(pair.ct, mri, FAST, mri_mask=region).transform
        errors.append(np.median(target_registration_errors_mm(found, pair.transform, points[k < half - 6])))
    assert errors[1] < 1.0
    assert errors[1] < errors[0] / 2


def test_a_mask_that_is_not_the_mris_is_refused(pair: PhantomPair) -> None:
    with pytest.raises(GeometryError, match="mask"):
        register(pair.ct, pair.mri, FAST, mri_mask=part(pair.mri, 0, 10))
    outside = np.zeros_like(pair.mri.array_kji)
    outside[0, 0, 0] = 1
    with pytest.raises(ImageContentError, match=r"mask.*outside the head"):
        register(pair.ct, pair.mri, FAST, mri_mask=pair.mri.with_array(outside))
    with pytest.raises(ImageContentError, match="mask"):
        register(pair.ct, pair.mri, FAST, mri_mask=pair.mri.with_array(np.zeros_like(pair.mri.array_kji)))


def test_a_mask_does_no_harm_to_a_slab(pair: PhantomPair) -> None:
    slab = part(pair.ct, pair.ct.grid.size_ijk[2] // 2, 20)
    everywhere = pair.mri.with_array(np.ones_like(pair.mri.array_kji))
    result = register(slab, pair.mri, FAST, mri_mask=everywhere)
    assert worst_error_mm(pair, result.transform) < 1.5
    assert result.evidence.overlap > 0.8


def test_two_people_who_are_alike_are_refused_or_red() -> None:
    ct = make_pair(3, spacing_mm=2.0, rotation_deg=15, translation_mm=20).ct
    mri = make_pair(9, spacing_mm=2.0, rotation_deg=0, translation_mm=0, contrast="T2").mri
    try:
        colour = register_or_refuse(ct, mri).verdict.colour
    except RegistrationError:
        colour = "refused"
    assert colour in ("refused", "red")


@pytest.mark.parametrize("scale", [1e-9, 1e9])
def test_the_scale_of_the_mri_does_not_matter(pair: PhantomPair, scale: float) -> None:
    scaled = pair.mri.with_array(pair.mri.array_kji * np.float32(scale))
    assert worst_error_mm(pair, register(pair.ct, scaled, FAST).transform) < 0.3


def test_cancel_is_asked_for_often(pair: PhantomPair) -> None:
    asked = itertools.count()

    def cancel() -> bool:
        next(asked)
        return False

    register(pair.ct, pair.mri, RegistrationSettings.preset("thorough"), cancel=cancel)
    assert next(asked) > 50


@pytest.mark.parametrize("number", [1, 2, 10, 50])
def test_the_first_true_answer_cancels(pair: PhantomPair, number: int) -> None:
    asked = itertools.count(1)
    with pytest.raises(Cancelled):
        register(pair.ct, pair.mri, RegistrationSettings.preset("thorough"), cancel=lambda: next(asked) >= number)
    assert next(asked) == number + 1


def test_expected_error_has_the_size_of_the_true_error(pair: PhantomPair) -> None:
    result = register_or_refuse(pair.ct, pair.mri)
    verdict = result.verdict
    assert verdict.expected_error_mm < verdict.bound_mm < 2.0
    true = np.median(target_registration_errors_mm(result.transform, pair.transform, pair.target_points()))
    assert true < verdict.bound_mm
    assert result.provenance.registration_iterations["refine 1 mm"] > 0


def test_other_seeds_end_within_a_twentieth_of_a_millimetre() -> None:
    case = make_pair(3, spacing_mm=1.5, rotation_deg=15, translation_mm=20)
    points = case.target_points()
    found = [register(case.ct, case.mri, RegistrationSettings(seed=seed)).transform for seed in range(3)]
    places = np.stack([transform.apply(points) for transform in found])
    assert np.linalg.norm(places - places.mean(axis=0), axis=2).max() < 0.05
