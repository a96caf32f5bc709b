"""Measures of image fusion, each with the source of its formula.

All take one slice: the fused image and its two sources, shape (rows, columns), on a scale of 0 to 255, for which some
of the constants are defined. Multiply the unit scale of `intensity` by 255 first. None of them alone shows that a
fusion is good, because each can be maximised by poor images (see `fidelity.Gates`).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt

from BrainFusionLib.arguments import checked
from BrainFusionLib.geometry import FloatArray
from BrainFusionLib.metrics.fidelity import correlation

# Xydeas and Petrovic's constants: Gamma, kappa and sigma of the edge's strength and of its direction.
STRENGTH = (0.9994, -15.0, 0.5)
DIRECTION = (0.9879, -22.0, 0.8)

# Wang et al.'s constants for images of 0 to 255, and their window: Gaussian, 11 pixels, standard deviation 1.5.
SSIM_CONSTANTS = ((0.01 * 255) ** 2, (0.03 * 255) ** 2)
SSIM_WINDOW = (11, 1.5)
# Yang et al. use a square window of 7 pixels, and treat the two sources as similar from this SSIM upwards.
YANG_WINDOW = 7
YANG_ALIKE = 0.75
# Sheikh and Bovik's variance of the visual noise, for images of 0 to 255.
VIF_NOISE = 2.0


@checked
def measure(fused: npt.ArrayLike, ct: npt.ArrayLike, mri: npt.ArrayLike) -> dict[str, float]:
    """Return every measure of `MEASURES` for one slice, by name.

    Raises
    ------
    ValueError
        The three are not images of one shape and at least 16x16 pixels, or contain NaN or infinity.
    """
    images = [np.asarray(image, dtype=np.float64) for image in (fused, ct, mri)]
    if images[0].ndim != 2 or not images[0].shape == images[1].shape == images[2].shape or min(images[0].shape) < 16:
        raise ValueError(
            "the measures need a fused, a CT and an MRI slice of the same shape (rows, columns), at least 16x16; got "
            f"{', '.join(str(image.shape) for image in images)}"
        )
    if not all(np.isfinite(image).all() for image in images):
        raise ValueError("the measures need finite values, but some are NaN or infinite. Replace them first.")
    return {name: function(*images) for name, function in MEASURES.items()}


def qabf(fused: FloatArray, a: FloatArray, b: FloatArray) -> float:
    """Return the share of the sources' edges preserved in strength and direction, 0 to 1.

    Source: C. Xydeas and V. Petrovic, Electronics Letters 36 (2000) 308. Sobel edges; the mean over all pixels
    weighted by each source's edge strength (their exponent L = 1). Directions are those of lines: two that differ by
    almost half a turn are almost the same, ``1 − min(Δ, π − Δ)/(π/2)``, as in published implementations; in the printed
    formula they are opposite.
    """
    edges_f, edges_a, edges_b = _edges(fused), _edges(a), _edges(b)
    weight = edges_a[0] + edges_b[0]
    total = float(weight.sum())
    if total == 0:
        return 0.0
    kept = _edge_preservation(edges_a, edges_f) * edges_a[0] + _edge_preservation(edges_b, edges_f) * edges_b[0]
    return float(kept.sum()) / total


def vif(fused: FloatArray, a: FloatArray, b: FloatArray) -> float:
    """Return the mean over both sources of the visual information fidelity, `vif_of` (the mean, not the sum)."""
    return (vif_of(a, fused) + vif_of(b, fused)) / 2


def vif_of(reference: FloatArray, distorted: FloatArray) -> float:
    """Return the visual information fidelity of an image, in the pixel domain on four scales.

    Source: H. Sheikh and A. Bovik, IEEE Trans. Image Processing 15 (2006) 430; the pixel-domain version of their own
    ``vifp_mscale``: windows of 17, 9, 5 and 3 pixels inside the image, noise variance 2. Logarithms cancel.
    """
    gained = possible = 0.0
    for scale in range(1, 5):
        size = 2 ** (5 - scale) + 1
        window = _gaussian(size, size / 5)
        if scale > 1:
            reference, distorted = (_filtered(image, window)[::2, ::2] for image in (reference, distorted))
        if min(reference.shape) < size:
            break
        mean_r, mean_d = _filtered(reference, window), _filtered(distorted, window)
        var_r = np.maximum(_filtered(reference**2, window) - mean_r**2, 0)
        var_d = np.maximum(_filtered(distorted**2, window) - mean_d**2, 0)
        covariance = _filtered(reference * distorted, window) - mean_r * mean_d
        gain = covariance / (var_r + 1e-10)
        noise = var_d - gain * covariance
        flat = var_r < 1e-10
        gain, noise = np.where(flat, 0, gain), np.where(flat, var_d, noise)
        var_r = np.where(flat, 0, var_r)
        gain, noise = np.where(var_d < 1e-10, 0, gain), np.where(var_d < 1e-10, 0, noise)
        noise = np.maximum(np.where(gain < 0, var_d, noise), 1e-10)
        gain = np.maximum(gain, 0)
        gained += float(np.log10(1 + gain**2 * var_r / (noise + VIF_NOISE)).sum())
        possible += float(np.log10(1 + var_r / VIF_NOISE).sum())
    return gained / possible if possible > 0 else 1.0


def nmi(fused: FloatArray, a: FloatArray, b: FloatArray) -> float:
    """Return the normalised mutual information, ``2·[I(A,F)/(H(A)+H(F)) + I(B,F)/(H(B)+H(F))]``: a sum, 0 to 2.

    Source: M. Hossny, S. Nahavandi and D. Creighton, Electronics Letters 44 (2008) 1066. Histograms of 256 bins of
    one grey level; the logarithm's base cancels.
    """
    return sum(_normalised_information(source, fused) for source in (a, b))


def qy(fused: FloatArray, a: FloatArray, b: FloatArray) -> float:
    """Return Yang's measure: mean SSIM with both sources where they are similar, otherwise with the better one.

    Source: C. Yang, J. Zhang, X. Wang and X. Liu, Information Fusion 9 (2008) 156. Square windows of 7 pixels inside
    the image; the weight of a source is its share of the variance.
    """
    window = np.full(YANG_WINDOW, 1 / YANG_WINDOW)
    between, with_a, with_b = _ssim_map(a, b, window), _ssim_map(a, fused, window), _ssim_map(b, fused, window)
    var_a, var_b = (np.maximum(_filtered(image**2, window) - _filtered(image, window) ** 2, 0) for image in (a, b))
    share = var_a / np.maximum(var_a + var_b, 1e-12)
    share = np.where(var_a + var_b > 1e-12, share, 0.5)
    mixed = share * with_a + (1 - share) * with_b
    return float(np.where(between >= YANG_ALIKE, mixed, np.maximum(with_a, with_b)).mean())


def ssim(fused: FloatArray, a: FloatArray, b: FloatArray) -> float:
    """Return the mean over both sources of the structural similarity with the fused image (the mean, not the sum).

    Source: Z. Wang, A. Bovik, H. Sheikh and E. Simoncelli, IEEE Trans. Image Processing 13 (2004) 600. Gaussian window
    of 11 pixels inside the image, as theirs.
    """
    window = _gaussian(*SSIM_WINDOW)
    return float((_ssim_map(a, fused, window).mean() + _ssim_map(b, fused, window).mean()) / 2)


def scd(fused: FloatArray, a: FloatArray, b: FloatArray) -> float:
    """Return the sum of the correlations of differences, ``r(F − B, A) + r(F − A, B)``, -2 to 2.

    Source: V. Aslantas and E. Bendes, AEÜ 69 (2015) 1890. A constant difference counts as 0.
    """
    return (correlation(fused - b, a) or 0.0) + (correlation(fused - a, b) or 0.0)


def entropy(fused: FloatArray, a: FloatArray, b: FloatArray) -> float:
    """Return the entropy of the fused image's histogram of 256 grey levels, bits (Shannon 1948; base 2)."""
    return _entropy(np.bincount(_levels(fused).ravel(), minlength=256))


def deviation(fused: FloatArray, a: FloatArray, b: FloatArray) -> float:
    """Return the standard deviation of the fused image's values, grey levels, over n pixels."""
    return float(fused.std())


def spatial_frequency(fused: FloatArray, a: FloatArray, b: FloatArray) -> float:
    """Return the root of the sum of the mean squared differences along rows and columns, grey levels.

    Source: A. Eskicioglu and P. Fisher, IEEE Trans. Communications 43 (1995) 2959.
    """
    return float(np.sqrt((np.diff(fused, axis=0) ** 2).mean() + (np.diff(fused, axis=1) ** 2).mean()))


def average_gradient(fused: FloatArray, a: FloatArray, b: FloatArray) -> float:
    """Return the mean of ``sqrt((dx² + dy²) / 2)``, dx and dy differences to the next pixel, grey levels.

    Source: G. Cui, H. Feng, Z. Xu, Q. Li and Y. Chen, Optics Communications 341 (2015) 199.
    """
    dx, dy = np.diff(fused, axis=1)[:-1], np.diff(fused, axis=0)[:, :-1]
    return float(np.sqrt((dx**2 + dy**2) / 2).mean())


# Under their usual names. The last four depend on the fused image alone, and noise increases them: for reports only.
MEASURES: dict[str, Callable[[FloatArray, FloatArray, FloatArray], float]] = {
    "Qabf": qabf,
    "VIF": vif,
    "NMI": nmi,
    "Qy": qy,
    "SSIM": ssim,
    "SCD": scd,
    "EN": entropy,
    "SD": deviation,
    "SF": spatial_frequency,
    "AG": average_gradient,
}


def _edges(image: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Return strength and direction (-pi/2 to pi/2) of the Sobel edges; the image is padded with 0, as in the paper."""
    padded = np.pad(image, 1)
    smooth_rows = padded[:-2] + 2 * padded[1:-1] + padded[2:]
    smooth_columns = padded[:, :-2] + 2 * padded[:, 1:-1] + padded[:, 2:]
    x = smooth_rows[:, 2:] - smooth_rows[:, :-2]
    y = smooth_columns[2:] - smooth_columns[:-2]
    direction = np.where(x == 0, np.pi / 2, np.arctan(y / np.where(x == 0, 1, x)))
    return np.hypot(x, y), direction


def _edge_preservation(source: tuple[FloatArray, FloatArray], fused: tuple[FloatArray, FloatArray]) -> FloatArray:
    weaker, stronger = np.minimum(source[0], fused[0]), np.maximum(source[0], fused[0])
    # Pixels without an edge in either image have weight 0.
    strength = np.where(stronger > 0, weaker / np.where(stronger > 0, stronger, 1), 0)
    turn = np.abs(source[1] - fused[1])
    direction = 1 - np.minimum(turn, np.pi - turn) / (np.pi / 2)
    result: FloatArray = _sigmoid(strength, STRENGTH) * _sigmoid(direction, DIRECTION)
    return result


def _sigmoid(x: FloatArray, constants: tuple[float, float, float]) -> FloatArray:
    gamma, kappa, sigma = constants
    result: FloatArray = gamma / (1 + np.exp(kappa * (x - sigma)))
    return result


def _gaussian(size: int, sigma: float) -> FloatArray:
    weights = np.exp(-((np.arange(size) - (size - 1) / 2) ** 2) / (2 * sigma**2))
    normalised: FloatArray = weights / weights.sum()
    return normalised


def _filtered(image: FloatArray, window: FloatArray) -> FloatArray:
    """Convolve rows and columns with a symmetric window, without padding."""
    for axis in (0, 1):
        size = image.shape[axis] - len(window) + 1
        image = sum(w * np.take(image, np.arange(n, n + size), axis=axis) for n, w in enumerate(window))
    return image


def _ssim_map(a: FloatArray, b: FloatArray, window: FloatArray) -> FloatArray:
    mean_a, mean_b = _filtered(a, window), _filtered(b, window)
    var_a = _filtered(a**2, window) - mean_a**2
    var_b = _filtered(b**2, window) - mean_b**2
    covariance = _filtered(a * b, window) - mean_a * mean_b
    c1, c2 = SSIM_CONSTANTS
    light = (2 * mean_a * mean_b + c1) / (mean_a**2 + mean_b**2 + c1)
    similarity: FloatArray = light * (2 * covariance + c2) / (var_a + var_b + c2)
    return similarity


def _levels(image: FloatArray) -> npt.NDArray[np.intp]:
    return np.clip(np.rint(image), 0, 255).astype(np.intp)


def _entropy(counts: npt.NDArray[Any]) -> float:
    p = counts[counts > 0] / counts.sum()
    return float(-(p * np.log2(p)).sum())


def _normalised_information(a: FloatArray, b: FloatArray) -> float:
    joint = np.bincount((_levels(a) * 256 + _levels(b)).ravel(), minlength=65536).reshape(256, 256)
    of_a, of_b, together = _entropy(joint.sum(axis=1)), _entropy(joint.sum(axis=0)), _entropy(joint.ravel())
    return 2 * (of_a + of_b - together) / (of_a + of_b) if of_a + of_b > 0 else 0.0
