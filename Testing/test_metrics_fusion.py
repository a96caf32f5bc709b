"""The measures of fusion, against what they must be by their formulas and against other implementations."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from BrainFusionLib.intensity import windowed_bone_weight
from BrainFusionLib.metrics import MEASURES, gates, measure
from BrainFusionLib.metrics.fusion import nmi, qabf, qy, scd, ssim, vif, vif_of


def image(seed, size=48):
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:size, :size]
    waves = sum(np.sin(x / rng.uniform(2, 9) + y / rng.uniform(2, 9) + rng.uniform(0, 6)) for _ in range(4))
    return np.clip(128 + 30 * waves + 8 * rng.standard_normal((size, size)), 0, 255)


A, B = image(1), image(2)


def test_copy_of_the_only_source_scores_best():
    assert qabf(A, A, A) == pytest.approx(0.9994 / (1 + np.exp(-7.5)) * 0.9879 / (1 + np.exp(-4.4)))
    assert vif(A, A, A) == pytest.approx(1)
    assert nmi(A, A, A) == pytest.approx(2)
    assert qy(A, A, A) == pytest.approx(1)
    assert ssim(A, A, A) == pytest.approx(1)


def test_qabf_of_one_step_matches_the_paper():
    step = np.zeros((32, 32))
    step[:, 16:] = 100
    weaker = 0.6 * step
    # All edges lie one way, but for the frame, whose corner pixels' directions depend on ratios that stay the same.
    strength = 0.9994 / (1 + np.exp(-15 * (0.6 - 0.5)))
    direction = 0.9879 / (1 + np.exp(-22 * (1 - 0.8)))
    assert qabf(weaker, step, np.zeros_like(step)) == pytest.approx(strength * direction, rel=1e-9)


def test_turned_edges_count_for_less():
    y, x = np.mgrid[:64, :64]
    stripes = [128 + 60 * np.sin((x * np.cos(t) + y * np.sin(t)) / 3) for t in (0.0, 0.2, 0.6)]
    zero = np.zeros_like(stripes[0])
    scores = [qabf(turned, stripes[0], zero) for turned in stripes]
    assert scores[0] > scores[1] + 0.05
    assert scores[1] > scores[2] + 0.05


def test_vif_falls_with_noise_and_rises_with_contrast():
    noisy = A + 20 * np.random.default_rng(0).standard_normal(A.shape)
    assert vif_of(A, noisy) < 0.6
    assert vif_of(A, 1.2 * (A - 128) + 128) > 1.05


def test_nmi_is_that_of_the_joint_histogram():
    a, b, f = (np.random.default_rng(seed).integers(0, 4, (40, 40)) * 60.0 for seed in range(3))
    f = np.where(np.random.default_rng(9).random(f.shape) < 0.7, a, f)

    def h(*images):
        _, counts = np.unique(np.stack([i.ravel() for i in images]), axis=1, return_counts=True)
        return -(counts / counts.sum() * np.log(counts / counts.sum())).sum()

    expected = sum(2 * (h(s) + h(f) - h(s, f)) / (h(s) + h(f)) for s in (a, b))
    assert nmi(f, a, b) == pytest.approx(expected)


def test_scd_is_the_sum_of_two_correlations():
    f = 0.3 * A + 0.8 * B
    expected = np.corrcoef((f - B).ravel(), A.ravel())[0, 1] + np.corrcoef((f - A).ravel(), B.ravel())[0, 1]
    assert scd(f, A, B) == pytest.approx(expected)


def test_ssim_is_its_formula_in_one_window():
    a, f = A[:16, :16][:11, :11], B[:11, :11]
    g = np.exp(-((np.arange(11) - 5) ** 2) / (2 * 1.5**2))
    w = np.outer(g, g) / g.sum() ** 2
    ma, mf = (w * a).sum(), (w * f).sum()
    va, vf, c = (w * (a - ma) ** 2).sum(), (w * (f - mf) ** 2).sum(), (w * (a - ma) * (f - mf)).sum()
    c1, c2 = 2.55**2, 7.65**2
    expected = (2 * ma * mf + c1) * (2 * c + c2) / ((ma**2 + mf**2 + c1) * (va + vf + c2))
    assert ssim(f, a, a) == pytest.approx(expected)


def test_measures_of_the_fused_image_alone_follow_their_formulas():
    ramp = 2.0 * np.mgrid[:32, :32][1]
    told = measure(ramp, A[:32, :32], B[:32, :32])
    assert told["EN"] == pytest.approx(5)  # 32 levels, each as often
    assert told["SD"] == pytest.approx(2 * np.sqrt((32**2 - 1) / 12))
    assert told["SF"] == pytest.approx(2)
    assert told["AG"] == pytest.approx(np.sqrt(2))


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 1000), st.floats(0, 1))
def test_measures_are_symmetric_in_the_sources(seed, share):
    a, b = image(seed, 24), image(seed + 1, 24)
    f = share * a + (1 - share) * b
    one, other = measure(f, a, b), measure(f, b, a)
    for name in MEASURES:
        assert one[name] == pytest.approx(other[name], abs=1e-9)


def test_measures_of_a_flat_picture_are_finite():
    flat = np.full((32, 32), 7.0)
    assert all(np.isfinite(value) for value in measure(flat, flat, flat).values())


def test_gates_separate_wrong_bone_wrong_tissue_and_halos():
    ct, mri = np.full((32, 32), 50.0), np.full((32, 32), 120.0)
    mri[::2] = 140.0
    ct[8:16, 8:16] = 255.0
    bone = windowed_bone_weight(ct)
    fused = np.where(ct > 200, ct, mri)
    good = gates(fused, ct, mri, bone)
    assert (good.bone_error, good.soft_tissue_error, good.overshoot) == (0, 0, 0)
    assert good.soft_tissue_correlation == pytest.approx(1)
    bone_wrong, tissue_wrong, halo = fused.copy(), fused.copy(), fused.copy()
    bone_wrong[10, 10] -= 64
    tissue_wrong[20, 20] = 50
    halo[20, 20] += 32
    assert gates(bone_wrong, ct, mri, bone).bone_error == pytest.approx(1)
    assert gates(bone_wrong, ct, mri, bone).soft_tissue_error == 0
    assert gates(tissue_wrong, ct, mri, bone).soft_tissue_error > 0
    assert gates(tissue_wrong, ct, mri, bone).overshoot == 0
    assert gates(halo, ct, mri, bone).overshoot == pytest.approx(32 / 32**2)
    rim = fused.copy()
    rim[7, 10] = 200  # touches bone: a voxel of both
    assert gates(rim, ct, mri, bone).soft_tissue_error == 0


def test_a_dark_pixel_beside_bone_fails_the_gate_of_the_black_ring():
    ct, mri = np.full((32, 32), 50.0), np.full((32, 32), 140.0)
    mri[7, 12:17] = 100  # not bright
    ct[8:16, 8:16] = 255.0
    fused = np.where(ct > 200, ct, mri)
    fused[7, 10] -= 61
    fused[7, 11] -= 31
    fused[7, 13] = fused[5, 5] = 0  # dark in the MRI, and away from bone
    told = gates(fused, ct, mri, ct >= 200)
    assert told.dark_rim_60 == pytest.approx(100 / 31)
    assert told.dark_rim_30 == pytest.approx(200 / 31)


def test_bright_brain_is_not_bone():
    levels = np.zeros((64, 64))
    levels[8:56, 8:56] = 255  # skull
    levels[12:52, 12:52] = np.random.default_rng(0).uniform(100, 120, (40, 40))
    skull = np.zeros((64, 64), bool)
    skull[8:56, 8:56] = True
    skull[12:52, 12:52] = False
    for brighter in (0, 45):
        weight = windowed_bone_weight(np.where((levels > 0) & ~skull, levels + brighter, levels))
        assert (weight[skull] == 1).all()
        assert weight[12:52, 12:52].max() == 0
    np.testing.assert_array_equal(windowed_bone_weight([[160, 180, 200]]), [[0, 0.5, 1]])


def narrow_window():
    """A head with a bright brain: CT and MRI, and where its skull is; a head holder beside it."""
    y, x = np.mgrid[:128, :128]
    radius = np.hypot(x - 64, y - 56)
    skull = (radius > 38) & (radius < 46)
    ct = np.where(radius <= 38, 150.0, 0.0)
    ct[skull] = 255
    ct[np.abs(np.hypot(x - 64, y - 56) - 60) < 1.5] = 255  # head holder
    ct[:30] = np.where(radius[:30] < 50, ct[:30], 0)
    mri = np.where(radius < 50, np.where(skull, 0.0, 150.0), 0.0)
    return ct, mri, skull


def test_brain_and_haemorrhage_as_bright_as_bone_are_not_bone():
    ct, mri, _ = narrow_window()
    ct[70:80, 66:78] = 230  # touches nothing
    ct[54:93, 60:62] = 220  # touches the skull
    weight = windowed_bone_weight(ct, mri)
    assert weight[50:90].max() == 1  # the skull
    assert weight[70:80, 66:78].max() == 0
    assert weight[54:90, 60:62].max() == 0


@pytest.mark.parametrize("place", [(slice(50, 70), slice(58, 78)), (slice(50, 70), slice(78, 100))])
def test_blood_that_the_window_clips_in_part_is_not_bone(place):
    ct, mri, skull = narrow_window()
    blood = np.zeros(ct.shape, bool)
    blood[place] = True
    blood &= ~skull & (ct > 0)
    ct[blood] = np.clip(np.random.default_rng(1).normal(250, 8, np.count_nonzero(blood)), 0, 255)
    weight = windowed_bone_weight(ct, mri)
    assert (ct[blood] >= 250).mean() > 0.4
    # Within two pixels of bone nothing can be told from it.
    assert (weight[blood] > 0).mean() < 0.15
    assert (weight[skull] == 1).all()


def test_a_calcification_stays_bone():
    ct, mri, _ = narrow_window()
    ct[60:64, 60:64] = 255
    assert (windowed_bone_weight(ct, mri)[60:64, 60:64] == 1).all()


def test_a_head_holder_is_not_bone():
    ct, mri, skull = narrow_window()
    holder = (ct == 255) & ~skull
    assert holder.any()
    weight = windowed_bone_weight(ct, mri)
    assert weight[holder].max() == 0
    assert (weight[skull] == 1).all()


def test_bone_that_no_window_clips_is_told_by_its_level():
    ct, mri, skull = narrow_window()
    assert (windowed_bone_weight(np.minimum(ct, 230), mri)[skull] == 1).all()


def test_nose_and_septum_belong_to_the_head():
    ct, mri, _ = narrow_window()
    ct[2:12, 63:65] = 255  # reaches the skull
    ct[50:54, 60:64] = 0  # air around what touches nothing
    mri[50:54, 60:64] = 0
    ct[51:53, 61:63] = 255
    weight = windowed_bone_weight(ct, mri)
    assert (weight[2:12, 63:65] == 1).all()
    assert (weight[51:53, 61:63] == 1).all()


def test_gates_without_bone_or_tissue_are_none():
    dark = np.zeros((32, 32))
    told = gates(dark, dark, dark, dark)
    assert told.bone_error is None
    assert told.soft_tissue_error is None


@pytest.mark.parametrize(
    ("shapes", "message"),
    [(((32, 32), (32, 32), (32, 31)), "of the same shape"), (((8, 8),) * 3, "16x16"), (((2, 32, 32),) * 3, "rows")],
)
def test_images_that_do_not_fit_are_refused(shapes, message):
    with pytest.raises(ValueError, match=message):
        measure(*(np.zeros(shape) for shape in shapes))


def test_nan_is_refused():
    bad = A.copy()
    bad[3, 3] = np.nan
    with pytest.raises(ValueError, match="finite"):
        measure(bad, A, B)
