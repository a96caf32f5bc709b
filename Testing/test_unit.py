"""The unit scale as a value: a pair in volumes, and one in pictures."""

import numpy as np
import pytest

from BrainFusionLib.errors import GeometryError
from BrainFusionLib.geometry import rotation_matrix
from BrainFusionLib.intensity import (
    bone_weight,
    ct_head_mask,
    ct_to_unit,
    mri_scale,
    picture_stacks,
    unit_pair,
    windowed_bone_weight,
)
from BrainFusionLib.phantom import head_grid, make_phantom
from BrainFusionLib.volume import Volume


@pytest.fixture(scope="module")
def volumes():
    phantom, grid = make_phantom(1), head_grid(4.0)
    return phantom.ct(grid), phantom.mri("T1", grid)


def test_pair_consists_of_its_parts(volumes):
    ct, mri = volumes
    pair = unit_pair(ct, mri)
    assert (pair.low, pair.high) == mri_scale(mri.array_kji)
    head = ct_head_mask(ct)
    np.testing.assert_array_equal(pair.head, head)
    np.testing.assert_array_equal(pair.ct_unit, ct_to_unit(ct.array_kji))
    np.testing.assert_array_equal(pair.bone_weight, bone_weight(ct.array_kji) * head)
    np.testing.assert_allclose(pair.mri_unit, (mri.array_kji - pair.low) / (pair.high - pair.low), atol=1e-6)
    assert {array.dtype for array in (pair.ct_unit, pair.mri_unit, pair.bone_weight)} == {np.dtype(np.float32)}


def test_what_the_caller_has_already_is_not_made_again(volumes):
    ct, mri = volumes
    head = np.zeros(mri.grid.shape_kji, dtype=bool)
    pair = unit_pair(ct, mri, head, (10.0, 20.0))
    assert (pair.low, pair.high) == (10.0, 20.0)
    assert pair.head is head
    assert not pair.bone_weight.any()


def test_unchanged_values_are_exact(volumes):
    ct, mri = volumes
    pair = unit_pair(ct, mri)
    fused = pair.mri_unit.copy()
    fused[10] = pair.ct_unit[10]
    values = pair.in_mri_scale(fused, mri.array_kji)
    np.testing.assert_array_equal(np.delete(values, 10, axis=0), np.delete(mri.array_kji, 10, axis=0))
    np.testing.assert_allclose(pair.on_unit_scale(values)[10], pair.ct_unit[10], atol=1e-5)


def test_stacks_are_views_that_turn_back(volumes):
    ct, mri = volumes
    turned = type(mri.grid)(mri.grid.size_ijk, mri.grid.spacing_ijk_mm, direction=rotation_matrix((1, 0, 0), 90))
    pair = unit_pair(Volume(ct.array_kji, turned), Volume(mri.array_kji, turned))
    stacks, undo = pair.stacks()
    assert stacks.ct_unit.shape != pair.ct_unit.shape
    for stack, array in ((stacks.ct_unit, pair.ct_unit), (stacks.bone_weight, pair.bone_weight)):
        assert np.shares_memory(stack, array)
        np.testing.assert_array_equal(undo(stack), array)
    np.testing.assert_array_equal(undo(stacks.head), pair.head)
    np.testing.assert_array_equal(pair.stack(pair.mri_unit), stacks.mri_unit)


def test_pictures_come_on_the_unit_scale_with_their_bone():
    ct, mri = np.random.default_rng(0).integers(0, 256, (2, 3, 40, 30)).astype(np.float32)
    stacks = picture_stacks(ct, mri)
    np.testing.assert_array_equal(stacks.ct_unit, ct / np.float32(255))
    np.testing.assert_array_equal(stacks.mri_unit, mri / np.float32(255))
    for picture, bone in zip(ct, stacks.bone_weight, strict=True):
        np.testing.assert_array_equal(bone, windowed_bone_weight(picture).astype(np.float32))
    assert stacks.head is None


@pytest.mark.parametrize("mri_shape", [(2, 40, 30), (3, 40, 31), (40, 30)])
def test_pictures_of_other_shapes_are_refused(mri_shape):
    with pytest.raises(GeometryError, match="stacks of one shape"):
        picture_stacks(np.full((3, 40, 30), 255.0), np.zeros(mri_shape))


@pytest.mark.parametrize("shape", [(1, 1), (1, 5), (3, 3), (5, 2)])
@pytest.mark.parametrize("level", [0.0, 255.0])
def test_tiny_pictures_have_a_bone_weight(shape, level):
    picture = np.full(shape, level)
    weight = windowed_bone_weight(picture, picture)
    assert weight.shape == shape
    assert (weight == float(level > 0)).all()


@pytest.mark.parametrize(("size", "kept"), [(64, True), (256, False)])
def test_line_of_clipped_pixels_is_bone_in_small_pictures_only(size, kept):
    picture = np.full((size, size), 60.0)
    picture[10:-10, 10] = 255
    assert (windowed_bone_weight(picture)[20:-20, 10] == float(kept)).all()


def test_bone_weight_of_a_single_number():
    assert bone_weight(250) == pytest.approx(0.5)
    assert bone_weight(np.float32(100)) == 0
