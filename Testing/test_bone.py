"""The bone of a CT: what counts as bone, and what is left out."""

from __future__ import annotations

import numpy as np
import pytest

from BrainFusionLib.geometry import Grid
from BrainFusionLib.intensity import ct_head_mask
from BrainFusionLib.intensity.bone import bone_mask
from BrainFusionLib.phantom import Tissue, head_grid, make_phantom
from BrainFusionLib.phantom.tissues import SKULL_TISSUES
from BrainFusionLib.volume import Volume


@pytest.fixture(scope="module")
def ball():
    """Return a round head of 2 mm voxels: skin at 80 mm, skull from 66 to 74 mm, and the distance from its middle."""
    grid = Grid((100, 100, 100), (2.0, 2.0, 2.0), (-99.0, -99.0, -99.0))
    k, j, i = np.indices(grid.shape_kji) * 2.0 - 99
    radius = np.sqrt(k**2 + j**2 + i**2)
    hu = np.where(radius < 80, 40.0, -1000.0)
    hu[(radius > 66) & (radius < 74)] = 1200.0
    return Volume(hu.astype(np.float32), grid, "CT", "CT"), (k, j, i), radius


def found(ct, depth=None):
    return bone_mask(ct, ct_head_mask(ct), depth)


def test_bone_is_exactly_what_is_above_the_threshold(ball):
    ct, _, radius = ball
    assert np.array_equal(found(ct), (radius > 66) & (radius < 74))


def test_head_holder_and_table_are_left_out(ball):
    ct, (_, j, i), radius = ball
    hu = ct.array_kji.copy()
    holder = (radius > 84) & (radius < 88) & (j > 20)
    table = (j > 90) & (np.abs(i) < 80)
    hu[holder | table] = 700.0
    bone = found(ct.with_array(hu))
    assert not (bone & (holder | table)).any()
    assert bone[(radius > 66) & (radius < 74)].all()


def test_pins_and_electrodes_outside_are_left_out(ball):
    ct, (k, j, i), radius = ball
    hu = ct.array_kji.copy()
    pin = (np.hypot(k, j) < 3) & (i > 75) & (i < 96)
    electrode = (np.hypot(k, i - 20) < 5) & (j < 0) & (radius > 79) & (radius < 83)
    hu[pin], hu[electrode] = 3500.0, 1500.0
    bone = found(ct.with_array(hu))
    assert not (bone & (pin | electrode)).any()
    far = np.hypot(k, j) > 9
    assert bone[(radius > 66) & (radius < 74) & far].all()


def test_leads_and_calcifications_inside_the_skull_are_left_out(ball):
    ct, (k, j, i), radius = ball
    hu = ct.array_kji.copy()
    lead = (np.hypot(k, j) < 3) & (i > 0) & (i < 66)
    hu[lead] = 2800.0
    depth = np.where(radius < 66, 66 - radius, -1000).astype(np.float32)
    bone = found(ct.with_array(hu), depth)
    assert not (bone & lead & (radius < 59)).any()
    assert bone[(radius > 66) & (radius < 74) & (np.hypot(k, j) > 3)].all()


def test_specks_are_left_out_and_other_bones_are_kept(ball):
    ct, (k, j, i), _ = ball
    hu = ct.array_kji.copy()
    hu[50, 50, 50] = 500.0
    other = np.sqrt((k + 30) ** 2 + j**2 + i**2) < 8
    hu[other] = 900.0
    bone = found(ct.with_array(hu))
    assert not bone[50, 50, 50]
    assert bone[other].all()


def test_ct_without_bone_has_an_empty_mask(ball):
    ct, _, radius = ball
    assert not found(ct.with_array(np.where(radius < 80, 40, -1000))).any()


def test_bone_of_the_phantom_overlaps_its_truth():
    phantom, grid = make_phantom(3, electrode=False), head_grid(2.0)
    truth = np.isin(phantom.labels(grid).array_kji, [Tissue.BONE, *SKULL_TISSUES])
    bone = found(phantom.ct(grid, table=True))
    assert 2 * (bone & truth).sum() / (bone.sum() + truth.sum()) > 0.85
