"""The pose fitted to the brain, where it has moved against the skull."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from BrainFusionLib.case import Inputs, Request, Source, run
from BrainFusionLib.errors import SettingsError
from BrainFusionLib.evidence import BrainAlignment, Evidence, SkullFit
from BrainFusionLib.intensity.inside import inside_skull
from BrainFusionLib.phantom import head_grid, make_phantom
from BrainFusionLib.registration.brain import align_brain
from BrainFusionLib.settings import RegistrationSettings, Settings
from BrainFusionLib.transform import RigidTransform
from BrainFusionLib.verdict.judge import judge

GRID = head_grid(2.0)
SKULL = RigidTransform.identity()
DOWN_MM = 4.0


@pytest.fixture(scope="module")
def pair():
    """Return a CT whose brain lies 4 mm lower than in the MRI, and the MRI."""
    phantom = make_phantom(3, electrode=False)
    ct, mri = phantom.ct(GRID, noise_hu=4.0), phantom.mri("T1", GRID)
    inside = inside_skull(ct)
    assert inside is not None
    lower = np.roll(ct.array_kji, -round(DOWN_MM / 2), axis=0)
    moved = inside.mask_kji & (inside.depth_kji > 5)
    return ct.with_array(np.where(moved, lower, ct.array_kji)), mri


def test_brain_that_has_moved_is_found(pair):
    ct, mri = pair
    inside = inside_skull(ct)
    fit = align_brain(mri, SKULL, inside)
    assert fit is not None
    assert fit.is_determined
    assert fit.transform.apply([[0.0, 0.0, 0.0]])[0] == pytest.approx([0, 0, -DOWN_MM], abs=0.5)
    assert fit.centre_mm == pytest.approx(DOWN_MM, abs=0.5)
    assert fit.worst_mm >= fit.centre_mm


def test_brain_of_another_image_is_not_determined(pair):
    ct, mri = pair
    noise = np.random.default_rng(0).normal(500, 100, mri.array_kji.shape).astype(np.float32)
    fit = align_brain(mri.with_array(noise), SKULL, inside_skull(ct))
    assert fit is not None
    assert not fit.is_determined


def request(**changes):
    registration = RegistrationSettings.preset("fast", align="brain")
    return replace(
        Request(Source("CT"), Source("MRI"), settings=Settings(registration, device="cpu", threads=1), fuse=False),
        **changes,
    )


@pytest.fixture(scope="module")
def result(pair):
    return run(request(), Inputs(*pair))


def test_local_errors_of_a_brain_pose_are_those_of_the_brain_alone(result):
    local = result.evidence.local
    assert local.fit.bias_mm == pytest.approx(np.linalg.norm(np.median(local.shifts_mm, axis=0)), abs=0.01)
    assert local.fit.high_mm == pytest.approx(np.percentile(local.lengths_mm, 90), abs=0.01)


def test_result_has_both_poses_and_their_difference(result):
    assert result.pose.skull is not None
    assert np.abs(result.pose.skull.apply(np.zeros((1, 3)))).max() < 1.0
    assert result.transform.apply(np.zeros((1, 3)))[0, 2] == pytest.approx(-DOWN_MM, abs=1.0)
    assert result.evidence.brain is not None
    assert result.evidence.brain.is_used
    assert result.evidence.brain.centre_mm == pytest.approx(DOWN_MM, abs=1.0)
    assert "aligned_to_brain" in [finding.code for finding in result.verdict.findings]


def test_given_pose_cannot_be_aligned_to_the_brain(pair):
    with pytest.raises(SettingsError, match="used unchanged"):
        run(request(given=SKULL), Inputs(*pair))


def test_brain_that_cannot_be_aligned_is_amber():
    verdict = judge(Evidence(brain=BrainAlignment(False, 4.0, 3.0, 6.0)))
    assert "the brain could not be aligned on its own" in " ".join(verdict.reasons)
    assert verdict.colour == "amber"


def test_skull_is_not_judged_in_the_pose_of_the_brain():
    far = SkullFit(shift_mm=5.0, depth=0.3, brightness=0.5, at_edge=False, voxel_mm=2.0)
    of_brain = judge(Evidence(coverage=1.0, skull=far, brain=BrainAlignment(True, 0.2, 4.0, 5.0)))
    codes = [finding.code for finding in of_brain.findings]
    assert "skull" not in codes
    assert "aligned_to_brain" in codes
