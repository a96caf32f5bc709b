"""What every classical rule keeps to, and what each of them does."""

from functools import partial

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from BrainFusionLib.fusion.methods import METHODS, prepare
from BrainFusionLib.intensity import Stacks
from BrainFusionLib.settings import FusionSettings

pytest.importorskip("pywt", reason="the wavelet rule needs PyWavelets")


def fused_by(rule, ct, mri, bone):
    return prepare(FusionSettings(rule), "cpu").fuse(Stacks(ct, mri, bone)).fused


RULES = {name: partial(fused_by, name) for name, method in METHODS.items() if not method.needs_weights}
EVERY_RULE = pytest.mark.parametrize("rule", RULES.values(), ids=RULES.keys())
PIXELWISE = pytest.mark.parametrize("rule", [RULES[name] for name in ("average", "maximum", "bone_over_mri")])

shapes = st.tuples(st.integers(1, 3), st.integers(1, 41), st.integers(1, 41))
seeds = st.integers(0, 1000)
a_few_times = settings(max_examples=25, deadline=None)


def _images(shape, seed=0):
    """CT up to bone and metal, MRI up to 1, a bone weight that is often exactly 0 or 1."""
    generator = np.random.default_rng(seed)
    ct, mri = generator.uniform(0, 1.75, shape), generator.uniform(-0.1, 1.2, shape)
    bone = np.clip(generator.uniform(-1, 2, shape), 0, 1)
    return ct.astype(np.float32), mri.astype(np.float32), bone.astype(np.float32)


@EVERY_RULE
@a_few_times
@given(shape=shapes, seed=seeds)
def test_shape_and_type_are_kept(rule, shape, seed):
    fused = rule(*_images(shape, seed))
    assert fused.shape == shape
    assert fused.dtype == np.float32
    assert np.isfinite(fused).all()


@EVERY_RULE
@a_few_times
@given(shape=shapes, seed=seeds)
def test_equal_images_fuse_to_themselves(rule, shape, seed):
    ct, _, bone = _images(shape, seed)
    np.testing.assert_allclose(rule(ct, ct, bone), ct, atol=2e-6)


@EVERY_RULE
@a_few_times
@given(shape=shapes, seed=seeds)
def test_each_slice_is_fused_by_itself(rule, shape, seed):
    images = _images(shape, seed)
    together = rule(*images)
    for k in range(shape[0]):
        np.testing.assert_allclose(together[k : k + 1], rule(*(image[k : k + 1] for image in images)), atol=1e-6)


@EVERY_RULE
def test_the_inputs_are_left_as_they_were(rule):
    images = _images((2, 33, 20))
    before = [image.copy() for image in images]
    rule(*images)
    assert all(np.array_equal(a, b) for a, b in zip(images, before, strict=True))


@EVERY_RULE
def test_a_shift_of_both_images_shifts_the_result_alike(rule):
    ct, mri, bone = _images((1, 40, 24))
    np.testing.assert_allclose(rule(ct + 1, mri + 1, bone), rule(ct, mri, bone) + 1, atol=1e-5)


@EVERY_RULE
@a_few_times
@given(shape=shapes, seed=seeds)
def test_rows_and_columns_are_treated_alike(rule, shape, seed):
    images = _images(shape, seed)
    turned = rule(*(image.swapaxes(1, 2) for image in images)).swapaxes(1, 2)
    # Of two details that are equally strong, rounding may choose either.
    assert (np.abs(turned - rule(*images)) > 1e-5).mean() < 0.02


@PIXELWISE
@a_few_times
@given(shape=shapes, seed=seeds)
def test_pixelwise_rules_commute_with_mirroring(rule, shape, seed):
    images = _images(shape, seed)
    mirrored = rule(*(image[:, ::-1, ::-1] for image in images))[:, ::-1, ::-1]
    np.testing.assert_array_equal(mirrored, rule(*images))


def test_the_laplacian_rule_commutes_with_mirroring_of_odd_sizes():
    images = _images((1, 33, 65))
    mirrored = RULES["laplacian"](*(image[:, ::-1, ::-1] for image in images))[:, ::-1, ::-1]
    np.testing.assert_allclose(mirrored, RULES["laplacian"](*images), atol=1e-5)


@pytest.mark.parametrize("name", ["average", "maximum", "wavelet", "laplacian"])
def test_rules_without_preference_fuse_swapped_images_alike(name):
    ct, mri, bone = _images((2, 37, 30))
    np.testing.assert_allclose(RULES[name](mri, ct, bone), RULES[name](ct, mri, bone), atol=1e-5)


@PIXELWISE
@a_few_times
@given(shape=shapes, seed=seeds)
def test_pixelwise_rules_stay_between_the_two_images(rule, shape, seed):
    ct, mri, bone = _images(shape, seed)
    fused = rule(ct, mri, bone)
    assert (fused >= np.minimum(ct, mri) - 1e-6).all()
    assert (fused <= np.maximum(ct, mri) + 1e-6).all()


@a_few_times
@given(shape=shapes, seed=seeds)
def test_bone_over_mri_is_exact_away_from_the_ramp(shape, seed):
    ct, mri, bone = _images(shape, seed)
    fused = RULES["bone_over_mri"](ct, mri, bone)
    np.testing.assert_array_equal(fused[bone == 1], ct[bone == 1])
    np.testing.assert_array_equal(fused[bone == 0], mri[bone == 0])


def test_bone_over_mri_is_linear_between():
    ct, mri = np.full((1, 1, 5), 1.5, np.float32), np.full((1, 1, 5), 0.5, np.float32)
    bone = np.linspace(0, 1, 5, dtype=np.float32).reshape(1, 1, 5)
    np.testing.assert_allclose(RULES["bone_over_mri"](ct, mri, bone)[0, 0], [0.5, 0.75, 1, 1.25, 1.5])


def test_average_and_maximum_are_pixelwise():
    ct, mri, bone = _images((2, 9, 7))
    np.testing.assert_allclose(RULES["average"](ct, mri, bone), (ct.astype(float) + mri) / 2, atol=1e-6)
    fused = RULES["maximum"](ct, mri, bone)
    assert (fused >= ct).all()
    assert (fused >= mri).all()
    assert ((fused == ct) | (fused == mri)).all()


@pytest.mark.parametrize("name", ["wavelet", "laplacian"])
def test_multiscale_rules_keep_contrast(name):
    ct = np.full((1, 64, 64), 0.5, np.float32)
    mri = ct.copy()
    mri[0, 30:33, 30:33] += 0.4
    fused, averaged = RULES[name](ct, mri, ct * 0), RULES["average"](ct, mri, ct * 0)
    assert fused[0, 31, 31] - 0.5 > 0.8 * 0.4
    assert averaged[0, 31, 31] - 0.5 == pytest.approx(0.2)


@pytest.mark.parametrize("name", ["wavelet", "laplacian"])
def test_multiscale_rules_keep_details_of_both_images(name):
    background = np.full((1, 64, 96), 0.5, np.float32)
    ct, mri = background.copy(), background.copy()
    ct[0, 20, 20] = 1.5
    mri[0, 44, 70] = 0.9
    expected = ct + mri - background
    error = np.abs(RULES[name](ct, mri, background * 0) - expected)
    assert error.max() < 0.1
