"""Scale and distortion of an MRI, told from the skull of a phantom."""

from dataclasses import replace
from functools import cache

import numpy as np
import pytest

from BrainFusionLib.case.measuring import local_evidence
from BrainFusionLib.case.request import Inputs
from BrainFusionLib.case.result import Pose
from BrainFusionLib.evidence import Distortion, Evidence, LocalErrors, LocalFit, Scale, SkullFit
from BrainFusionLib.geometry import Grid, apply_affine
from BrainFusionLib.intensity import head_of
from BrainFusionLib.intensity.inside import inside_skull
from BrainFusionLib.phantom import Tissue, head_grid, make_pair, make_phantom
from BrainFusionLib.resample import sampled
from BrainFusionLib.transform import RigidTransform
from BrainFusionLib.verdict.displaced import distortion_not_judged
from BrainFusionLib.verdict.distortion import both_of
from BrainFusionLib.verdict.judge import judge
from BrainFusionLib.verdict.skull_field import skull_field
from BrainFusionLib.volume import Volume

CODES = {"scale", "distortion", "distortion_not_judged", "skull_mismatch", "skull", "skull_far"}


@cache
def pair(contrast="T1"):
    return make_pair(3, contrast=contrast)


@cache
def coarse_pair():
    return make_pair(1, spacing_mm=2.5)


def measured(mri, ct=None, transform=None, of=None):
    found = of or pair()
    given = ct or found.ct, mri, transform or found.transform
    field = skull_field(*given)
    scale, distortion = (None, None) if field is None else both_of(field, *given)
    return Evidence(scale=scale, distortion=distortion)


def said(evidence):
    return {finding.code: finding.text for finding in judge(evidence).findings if finding.code in CODES}


def bent(mri, displacement):
    """Return the MRI of a head whose points (LPS, about the middle) are drawn `displacement` further."""
    grid = mri.grid
    k, j, i = np.indices(grid.shape_kji)
    points = apply_affine(grid.lps_from_ijk, np.stack([i, j, k], axis=-1).reshape(-1, 3).astype(float))
    offsets = points - grid.centre_lps_mm
    values = np.nan_to_num(sampled(mri, points - displacement(offsets)))
    return Volume(values.reshape(grid.shape_kji), grid, "MR", "bent")


def with_longer_voxels(mri, axis, factor):
    spacing = list(mri.grid.spacing_ijk_mm)
    spacing[axis] *= factor
    middle = (np.array(mri.grid.size_ijk) - 1) / 2
    origin = mri.grid.centre_lps_mm - mri.grid.direction @ (middle * spacing)
    return Volume(mri.array_kji, Grid(mri.grid.size_ijk, tuple(spacing), tuple(origin), mri.grid.direction), "MR", "x")


@pytest.mark.parametrize("contrast", ["T1", "T2"])
def test_undistorted_mri_is_green(contrast):
    assert not said(measured(pair(contrast).mri))


def test_inverted_contrast_is_green():
    mri = pair().mri
    white = float(np.percentile(mri.array_kji, 99.8))
    assert not said(measured(Volume(np.clip(white - mri.array_kji, 0, None), mri.grid, "MR", "inverted")))


@pytest.mark.parametrize("anatomical", range(3))
def test_voxels_3_percent_too_long_are_said_with_their_axis(anatomical):
    mri = pair().mri
    axis = int(np.abs(mri.grid.direction[anatomical]).argmax())
    evidence = measured(with_longer_voxels(mri, axis, 1.03))
    text = said(evidence)["scale"]
    assert evidence.scale.axes[anatomical][1] == pytest.approx(3, abs=1.5)
    assert f"along {('left-right', 'front-back', 'feet-head')[anatomical]} " in text
    assert "too long in the MRI, or too short in the CT" in text


def test_voxels_too_short_are_said_to_be_too_short():
    assert (
        "too short in the MRI, or too long in the CT"
        in said(measured(with_longer_voxels(pair().mri, 0, 0.97)))["scale"]
    )


@pytest.mark.parametrize("axis", range(3))
def test_scale_does_not_depend_on_which_lines_across_the_skull_come_first(axis):
    found = coarse_pair()
    grid, signs = found.ct.grid, np.where(np.arange(3) == axis, -1.0, 1.0)
    last = np.where(signs < 0, np.array(grid.size_ijk) - 1.0, 0.0)
    turned = replace(grid, origin_lps_mm=tuple(apply_affine(grid.lps_from_ijk, last)), direction=grid.direction * signs)
    there = measured(
        found.mri, replace(found.ct, array_kji=np.flip(found.ct.array_kji, 2 - axis), grid=turned), of=found
    )
    before, after = (np.array([p for _, p, _ in one.scale.axes]) for one in (measured(found.mri, of=found), there))
    # What all axes have in common is uncertain in coarse voxels, and is not said.
    assert after - after.mean() == pytest.approx(before - before.mean(), abs=0.2)


def bow(offsets):
    # 5 mm to one side at the ends of the head, none in its middle.
    return np.stack([5.0 * (offsets[:, 1] / 80) ** 2, 0 * offsets[:, 0], 0 * offsets[:, 0]], axis=1)


def test_coarse_voxels_of_both_images_are_not_taken_for_distortion():
    coarse = coarse_pair()
    evidence = measured(coarse.mri, of=coarse)
    # Partial volume makes the skull look up to 1.5 % smaller.
    assert all(percent < 0 for _, percent, _ in evidence.scale.axes)
    assert not {"scale", "distortion"} & said(evidence).keys()
    assert said(evidence)["distortion_not_judged"].startswith("the voxels of CT or MRI are 2.5 mm or longer along each")


def test_bent_mri_is_said_in_coarse_voxels():
    coarse = coarse_pair()
    assert "distortion" in said(measured(bent(coarse.mri, bow), of=coarse))


def test_bent_mri_is_said():
    evidence = measured(bent(pair().mri, bow))
    assert "distortion" in said(evidence)
    assert evidence.distortion.beyond_scale_p95_mm > 1.0


def test_distance_of_a_wrong_pose_is_measured():
    found = pair().transform
    moved = RigidTransform(found.moving_from_fixed_lps @ np.block([[np.eye(3), np.array([[4.0], [0], [0]])],
                                                                   [np.zeros((1, 3)), 1]]))  # fmt: skip
    assert measured(pair().mri, transform=moved).distortion.pose_median_mm == pytest.approx(4, abs=1)


def test_ct_without_a_skull_gives_no_measure():
    soft = Volume(np.full((40, 40, 40), 30, np.float32), Grid((40, 40, 40), (4.0, 4.0, 4.0)), "CT", "soft")
    assert measured(pair().mri, ct=soft) == Evidence()


FITS = Distortion(0.2, 0.4, 1.0, 0.3, 0.3, 0.6, 0.2)


def test_edge_of_a_skull_stripped_mri_is_not_taken_for_a_skull():
    phantom, grid = make_phantom(1), head_grid(2.5)
    ct, mri = phantom.ct(grid), phantom.mri("T1", grid)
    brain = np.isin(
        phantom.labels(grid).array_kji, [Tissue.GREY_MATTER, Tissue.WHITE_MATTER, Tissue.CSF, Tissue.VENTRICLE]
    )
    stripped, here = mri.with_array(np.where(brain, mri.array_kji, 0)), RigidTransform.identity()
    pose = Pose(here, here, "given", here.describe(grid.centre_lps_mm))
    for shown, is_measured in ((mri, True), (stripped, False)):
        found = local_evidence(ct, head_of(ct), Inputs(ct, shown), lambda: inside_skull(ct), pose)
        assert (found.distortion is not None) == is_measured
        text = said(Evidence(local=found.local, skull=found.skull, distortion=found.distortion))
        assert ("shows no skull" in text.get("distortion_not_judged", "")) != is_measured


def test_band_that_is_hardly_dark_says_nothing():
    band = SkullFit(shift_mm=9.6, depth=0.06, brightness=0.8, at_edge=True, voxel_mm=2.0)
    assert not said(Evidence(skull=band))


def test_band_away_from_a_skull_that_matches_says_nothing():
    band = SkullFit(shift_mm=2.0, depth=0.15, brightness=0.2, at_edge=False, voxel_mm=2.0)
    assert "skull" in said(Evidence(skull=band))
    assert not said(Evidence(skull=band, distortion=FITS))


@pytest.mark.parametrize(("bias_mm", "share", "is_said"), [(0.18, 0.96, False), (0.6, 0.96, True), (0.18, 0.3, True)])
def test_band_far_from_a_skull_hardly_in_view_says_nothing_where_the_regions_of_the_head_agree(bias_mm, share, is_said):
    band = SkullFit(shift_mm=7.8, depth=0.102, brightness=0.2, at_edge=True, voxel_mm=2.5)
    fit = LocalFit(median_mm=0.4, part_mm=0.3, share=share, least_share=share, voxel_mm=3, high_mm=0.8, bias_mm=bias_mm)
    assert ("skull_far" in said(Evidence(skull=band, local=LocalErrors(21.0, fit=fit)))) == is_said


@pytest.mark.parametrize(("percents", "is_said"), [((1.3, 1.3, 1.3), False), ((1.3, -1.3, 1.3), True)])
def test_scale_that_all_axes_have_in_common_is_less_certain(percents, is_said):
    assert ("scale" in said(Evidence(scale=Scale(*percents, 0.1, 0.1, 0.1)))) == is_said


def test_scale_in_a_pose_that_is_far_off_is_not_said():
    scale = Scale(0.0, 0.0, 4.0, 0.4, 0.4, 0.4)
    assert "scale" in said(Evidence(scale=scale, distortion=FITS))
    far = Distortion(3.0, 4.0, 1.0, 0.3, 6.0, 9.0, 0.2)
    assert set(said(Evidence(scale=scale, distortion=far))) == {"skull_mismatch"}


@pytest.mark.parametrize("code", ["scale", "distortion"])
def test_field_that_tells_the_skull_no_better_than_a_rigid_movement_needs_twice_the_limit(code):
    def found(gain_nats, times=1.0):
        scale = Scale(0.0, 0.0, 2.0 * times, 0.4, 0.4, 0.4) if code == "scale" else None
        distorted = replace(FITS, p95_mm=1.8 * times if code == "distortion" else 0.4, gain_nats=gain_nats)
        return said(Evidence(scale=scale, distortion=distorted))

    assert code in found(0.05)
    assert code in found(None)
    assert code not in found(0.0)
    assert code in found(0.0, times=2.0)


def test_gain_of_the_field_tells_a_bent_mri_from_an_undistorted_one():
    assert measured(pair().mri).distortion.gain_nats < 0.015
    assert measured(bent(pair().mri, bow)).distortion.gain_nats > 0.03


def test_unknown_size_of_the_voxels_is_no_measure():
    assert distortion_not_judged(Evidence(distortion=FITS)) == 0


@pytest.mark.parametrize(
    ("distortion", "why"),
    [
        (None, "too little of the skull is in view of both volumes, or it is too thin: a wrong scale"),
        (replace(FITS, noise_mm=2.2), "the skulls of CT and MRI could only be compared roughly: a wrong scale"),
    ],
)
def test_a_distortion_that_cannot_be_seen_is_said_to_be_not_judged(distortion, why):
    fit = LocalFit(median_mm=0.5, part_mm=0.3, share=0.9, least_share=0.9, voxel_mm=3.0, high_mm=1.5, bias_mm=0.1)
    assert said(Evidence(local=LocalErrors(21.0, fit=fit), distortion=distortion))["distortion_not_judged"].startswith(
        why
    )
