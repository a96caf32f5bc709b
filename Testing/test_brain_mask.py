"""The brain in an MRI, inside the skull of the registered CT, against the phantom's truth."""

from __future__ import annotations

import numpy as np
import pytest

from benchmarks.realism.brain_masks import dice
from BrainFusionLib.intensity.brain import brain_mask
from BrainFusionLib.intensity.inside import inside_skull
from BrainFusionLib.phantom import BRAIN_TISSUES, Tissue, head_grid, make_phantom
from BrainFusionLib.volume import Volume

GRID = head_grid(2.0)


@pytest.fixture(scope="module")
def head():
    phantom = make_phantom(3, lesions=False, electrode=False)
    found = inside_skull(phantom.ct(GRID))
    assert found is not None
    labels = phantom.labels(GRID).array_kji
    brain = np.isin(labels, [tissue for tissue in BRAIN_TISSUES if tissue != Tissue.VENTRICLE])
    return phantom, found.depth_on(GRID), brain


@pytest.fixture(scope="module")
def hu(head):
    found = inside_skull(head[0].ct(GRID, noise_hu=4.0))
    assert found is not None
    return found.hu_on(GRID)


@pytest.mark.parametrize(("contrast", "csf"), [("T1", "dark"), ("T2", "bright")])
def test_brain_is_found_whether_csf_is_dark_or_bright(head, contrast, csf):
    phantom, depth, brain = head
    found = brain_mask(phantom.mri(contrast, GRID), depth)
    assert found is not None
    assert found.csf == csf
    assert dice(found.mask_kji, brain) > 0.9
    assert not (found.mask_kji & (depth <= 0)).any()


def test_brain_is_found_under_a_strong_bias(head):
    phantom, depth, brain = head
    mri = phantom.mri("T1", GRID)
    gain = np.exp(np.linspace(0, 1.6, GRID.shape_kji[1]))[:, None].astype(np.float32)
    found = brain_mask(mri.with_array(mri.array_kji * gain), depth)
    assert found is not None
    assert dice(found.mask_kji, brain) > 0.9


def test_brain_without_contrast_to_csf_is_the_inside_without_its_rim(head):
    _, depth, _ = head
    noise = np.random.default_rng(0).normal(500, 20, GRID.shape_kji)
    found = brain_mask(Volume(noise.astype(np.float32), GRID, "MR"), depth)
    assert found is not None
    assert found.csf is None
    assert (found.mask_kji == (depth > 3)).all()


def test_brain_without_contrast_in_the_mri_is_found_with_the_ct(head, hu):
    _, depth, brain = head
    noise = Volume(np.random.default_rng(0).normal(500, 20, GRID.shape_kji).astype(np.float32), GRID, "MR")
    found = brain_mask(noise, depth, hu)
    assert found is not None
    assert found.csf is None
    assert dice(found.mask_kji, brain) > dice(depth > 3, brain) + 0.02


def test_dark_vessels_in_pd_are_not_taken_for_csf(head, hu):
    phantom, depth, _ = head
    # Dark at the rim like CSF in T1, and denser than brain in the CT, as veins and sinuses are.
    dense = np.where((depth > 1.5) & (depth < 5), np.float32(30), np.float32(0))
    mri = phantom.mri("T1", GRID)
    assert brain_mask(mri, depth, dense).csf is None
    assert brain_mask(mri, depth, hu).csf == "dark"


def test_orbit_behind_a_roof_too_thin_to_be_seen_is_left_out(head, hu):
    phantom, depth, brain = head
    mri = phantom.mri("T1", GRID)
    k, j, i = (int(at) for at in np.argwhere(brain).mean(axis=0))
    j = int(np.flatnonzero(depth[k, :, i] > 0)[0]) - 4
    away = np.linalg.norm(np.stack(np.indices(GRID.shape_kji), axis=-1) - (k, j, i), axis=-1)
    muscle, orbit = away < 3.5, (away < 6) & (depth <= 0)
    # As bright as brain, connected to it by 6 mm, with fat on all sides but towards the brain.
    muscle[k : k + 3, j : j + 14, i : i + 3] = True
    signal = np.where(muscle, np.float32(np.median(mri.array_kji[brain])), mri.array_kji)
    fat = orbit & ~muscle & (np.arange(GRID.shape_kji[1])[:, None] < j + 2)
    dense = np.where(fat, np.float32(-100), np.where(orbit, np.float32(0), hu))
    found = brain_mask(mri.with_array(signal), np.where(orbit, np.float32(2), depth), dense)
    assert (found.mask_kji & muscle & orbit).sum() < 0.1 * (muscle & orbit).sum()
    assert dice(found.mask_kji, brain) > 0.9


def test_no_brain_outside_the_skull(head):
    phantom, _, _ = head
    assert brain_mask(phantom.mri("T1", GRID), np.full(GRID.shape_kji, np.float32(-1000))) is None
