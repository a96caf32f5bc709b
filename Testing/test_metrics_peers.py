"""The fusion measures beside other people's implementations of the same formulas, and lesions, metal and flicker.

Those are imported where they are used: together they take two seconds, which each process of pytest would spend.
"""

import numpy as np
import pytest

from BrainFusionLib.metrics import centroid_shift, contrast_kept, flicker, measure
from BrainFusionLib.metrics.fusion import vif_of

TOLERANCE = 1e-3


def pictures(seed):
    """Two sources with edges, texture and noise, and a mixture of both, all whole grey levels."""
    rng = np.random.default_rng(seed)
    blocks = np.kron(rng.random((16, 12)), np.ones((8, 8))) * 200
    a = blocks + rng.normal(0, 5, blocks.shape)
    b = 0.6 * np.roll(blocks, 3, axis=0) + rng.normal(20, 9, blocks.shape)
    share = np.kron(rng.random((8, 6)), np.ones((16, 16)))
    return [np.round(np.clip(image, 0, 255)) for image in (share * a + (1 - share) * b, a, b)]


@pytest.fixture(params=range(3))
def images(request):
    return pictures(request.param)


def ssim_map(a, b, **how):
    """scikit-image's, cut to where the window fits, as ours is."""
    from skimage.metrics import structural_similarity

    _, full = structural_similarity(a, b, data_range=255, use_sample_covariance=False, full=True, **how)
    edge = 5 if how.get("gaussian_weights") else 3
    return full[edge:-edge, edge:-edge]


def test_vif_is_sewars(images):
    from sewar.full_ref import vifp

    fused, a, b = images
    assert vif_of(a, fused) == pytest.approx(vifp(a, fused), abs=TOLERANCE)
    assert measure(*images)["VIF"] == pytest.approx((vifp(a, fused) + vifp(b, fused)) / 2, abs=TOLERANCE)


def test_ssim_is_scikit_images(images):
    fused, *sources = images
    expected = np.mean([ssim_map(source, fused, gaussian_weights=True, sigma=1.5).mean() for source in sources])
    assert measure(*images)["SSIM"] == pytest.approx(expected, abs=TOLERANCE)


def test_qy_is_made_of_scikit_images_ssim(images):
    fused, a, b = images
    windows = [np.lib.stride_tricks.sliding_window_view(image, (7, 7)) for image in (a, b)]
    var_a, var_b = (window.var(axis=(2, 3)) for window in windows)
    share = var_a / (var_a + var_b)
    between, with_a, with_b = (ssim_map(x, y, win_size=7) for x, y in ((a, b), (a, fused), (b, fused)))
    mixed = share * with_a + (1 - share) * with_b
    expected = np.where(between >= 0.75, mixed, np.maximum(with_a, with_b)).mean()
    assert measure(*images)["Qy"] == pytest.approx(expected, abs=TOLERANCE)


def test_nmi_is_scikit_learns_and_scikit_images(images):
    from skimage.metrics import normalized_mutual_information
    from sklearn.metrics import normalized_mutual_info_score

    fused, *sources = (image.astype(np.uint8) for image in images)
    learned = [normalized_mutual_info_score(source.ravel(), fused.ravel()) for source in sources]
    assert measure(*images)["NMI"] == pytest.approx(sum(learned), abs=TOLERANCE)
    # scikit-image gives Studholme's (H(A) + H(F)) / H(A, F), of which ours is 2 (1 - 1/x).
    studholme = [normalized_mutual_information(source, fused, bins=256) for source in sources]
    assert measure(*images)["NMI"] == pytest.approx(sum(2 * (1 - 1 / x) for x in studholme), abs=TOLERANCE)


def test_entropy_is_scikit_images_in_bits(images):
    from skimage.measure import shannon_entropy
    from sklearn.metrics import mutual_info_score

    assert measure(*images)["EN"] == pytest.approx(shannon_entropy(images[0]), abs=TOLERANCE)
    levels = images[0].astype(int).ravel()
    assert measure(*images)["EN"] == pytest.approx(mutual_info_score(levels, levels) / np.log(2), abs=TOLERANCE)


def test_scd_sd_sf_and_ag_are_numpys(images):
    fused, a, b = images
    told = measure(*images)
    scd = np.corrcoef((fused - b).ravel(), a.ravel())[0, 1] + np.corrcoef((fused - a).ravel(), b.ravel())[0, 1]
    assert told["SCD"] == pytest.approx(scd, abs=TOLERANCE)
    assert told["SD"] == pytest.approx(np.std(fused), abs=TOLERANCE)
    rows, columns = np.diff(fused, axis=0), np.diff(fused, axis=1)
    assert told["SF"] == pytest.approx(np.hypot(np.sqrt(np.mean(rows**2)), np.sqrt(np.mean(columns**2))), abs=TOLERANCE)
    steps = [np.sqrt((fused[y, x + 1] - fused[y, x]) ** 2 / 2 + (fused[y + 1, x] - fused[y, x]) ** 2 / 2)
             for y in range(fused.shape[0] - 1) for x in range(fused.shape[1] - 1)]  # fmt: skip
    assert told["AG"] == pytest.approx(np.mean(steps), abs=TOLERANCE)


def test_qabf_is_the_papers_written_out(images):
    """No library has it: here it is pixel by pixel, in the notation of Xydeas and Petrovic."""

    def sobel(image):
        s_x, s_y = np.zeros_like(image), np.zeros_like(image)
        padded = np.pad(image, 1)
        for m in range(image.shape[0]):
            for n in range(image.shape[1]):
                w = padded[m : m + 3, n : n + 3]
                s_x[m, n] = w[0, 2] + 2 * w[1, 2] + w[2, 2] - w[0, 0] - 2 * w[1, 0] - w[2, 0]
                s_y[m, n] = w[2, 0] + 2 * w[2, 1] + w[2, 2] - w[0, 0] - 2 * w[0, 1] - w[0, 2]
        with np.errstate(divide="ignore", invalid="ignore"):
            alpha = np.where(s_x == 0, np.pi / 2, np.arctan(s_y / s_x))
        return np.sqrt(s_x**2 + s_y**2), alpha

    def q(g_a, alpha_a, g_f, alpha_f):
        with np.errstate(divide="ignore", invalid="ignore"):
            strength = np.where(g_a > g_f, g_f / g_a, np.where(g_f > 0, g_a / g_f, 0))
        angle = np.abs(np.abs(alpha_a - alpha_f) - np.pi / 2) / (np.pi / 2)
        return 0.9994 / (1 + np.exp(-15 * (strength - 0.5))) * 0.9879 / (1 + np.exp(-22 * (angle - 0.8)))

    f, a, b = (sobel(image[:48, :40]) for image in images)
    expected = (q(*a, *f) * a[0] + q(*b, *f) * b[0]).sum() / (a[0] + b[0]).sum()
    assert measure(*(image[:48, :40] for image in images))["Qabf"] == pytest.approx(expected, abs=TOLERANCE)


def test_contrast_of_a_half_covered_lesion_is_half():
    source = np.full((8, 8, 8), 100.0)
    lesion = np.zeros(source.shape, bool)
    lesion[2:4, 2:4, 2:4] = True
    source[lesion] = 120
    fused = source.copy()
    fused[2] = 100
    around = ~lesion
    assert contrast_kept(source, source, lesion, around) == 1
    assert contrast_kept(fused, source, lesion, around) == pytest.approx(0.5)
    with pytest.raises(ValueError, match="no contrast"):
        contrast_kept(fused, np.zeros_like(source), lesion, around)
    with pytest.raises(ValueError, match="is empty"):
        contrast_kept(fused, source, ~around & around, around)


def test_centroid_shift_is_in_voxels():
    source = np.zeros((9, 9, 9))
    source[4, 4, 3:6] = 3000
    assert centroid_shift(source, source, 2000) == 0
    assert centroid_shift(np.roll(source, (1, 2, 2), axis=(0, 1, 2)), source, 2000) == pytest.approx(3)
    with pytest.raises(ValueError, match="above 5000"):
        centroid_shift(source, source, 5000)


def test_only_changing_shares_flicker():
    rng = np.random.default_rng(0)
    ct, mri = np.linspace(100, 110, 12)[:, None, None] * np.ones((12, 8, 8)), np.full((12, 8, 8), 40.0)
    ct += rng.normal(0, 1, (8, 8))
    steady, changing = 0.3, (np.arange(12) % 2)[:, None, None]
    assert flicker(steady * ct + (1 - steady) * mri, ct, mri) == pytest.approx(0, abs=1e-12)
    assert flicker(changing * ct + (1 - changing) * mri, ct, mri) > 50
    nowhere = np.zeros(ct.shape, bool)
    with pytest.raises(ValueError, match="three slices"):
        flicker(ct, ct, mri, nowhere)
    with pytest.raises(ValueError, match="three slices"):
        flicker(ct[:2], ct[:2], mri[:2])
