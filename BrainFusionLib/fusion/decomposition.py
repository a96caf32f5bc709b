"""Classical rules that split both images into details of several sizes and keep the stronger of each."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from BrainFusionLib.fusion.method import Package, rule
from BrainFusionLib.volume import VoxelArray

# db4 at up to 4 levels: details from 2 to 16 voxels, where edges of bone and cortex are; what is coarser is averaged.
WAVELET = "db4"
LEVELS = 4

# Burt and Adelson's generating kernel with a = 0.375, the binomial one.
PYRAMID_KERNEL = tuple(weight / 16 for weight in (1.0, 4.0, 6.0, 4.0, 1.0))


def wavelet(ct_unit: VoxelArray, mri_unit: VoxelArray, bone_weight: VoxelArray) -> VoxelArray:
    """Fuse in the discrete wavelet domain (db4): the stronger detail, the mean of the coarsest level.

    Source: Li, Manjunath and Mitra, Graphical Models and Image Processing 57 (1995) 235. May leave the sources' range.
    """
    import pywt

    rows, columns = ct_unit.shape[-2:]
    levels = min(LEVELS, pywt.dwtn_max_level((rows, columns), WAVELET))
    ct_bands = pywt.wavedec2(ct_unit, WAVELET, level=levels)
    mri_bands = pywt.wavedec2(mri_unit, WAVELET, level=levels)
    fused = [(ct_bands[0] + mri_bands[0]) / 2]
    for ct_details, mri_details in zip(ct_bands[1:], mri_bands[1:], strict=True):
        fused.append(tuple(_stronger(ct, mri) for ct, mri in zip(ct_details, mri_details, strict=True)))
    # The inverse gives even sizes: one row or column more than an odd image has.
    result: VoxelArray = pywt.waverec2(fused, WAVELET)[..., :rows, :columns].astype(np.float32)
    return result


def laplacian(ct_unit: VoxelArray, mri_unit: VoxelArray, bone_weight: VoxelArray) -> VoxelArray:
    """Fuse in the Laplacian pyramid: the stronger detail at each level, the mean of the coarsest level.

    Source: Burt and Adelson, IEEE Trans. Communications 31 (1983) 532. May leave the sources' range.
    """
    ct_levels, mri_levels = _laplacian_pyramid(ct_unit), _laplacian_pyramid(mri_unit)
    fused = (ct_levels[-1] + mri_levels[-1]) * np.float32(0.5)
    for ct, mri in zip(ct_levels[-2::-1], mri_levels[-2::-1], strict=True):
        fused = _expand(fused, ct.shape) + _stronger(ct, mri)
    return fused


def _stronger(a: VoxelArray, b: VoxelArray) -> VoxelArray:
    stronger: VoxelArray = np.where(np.abs(a) >= np.abs(b), a, b)
    return stronger


def _laplacian_pyramid(image: VoxelArray) -> list[VoxelArray]:
    """Split (..., rows, columns) in up to `LEVELS` detail images, finest first, and the coarse rest."""
    levels: list[VoxelArray] = []
    while len(levels) < LEVELS and min(image.shape[-2:]) >= 2:
        coarse = _blurred(image)[..., ::2, ::2]
        levels.append(image - _expand(coarse, image.shape))
        image = coarse
    return [*levels, image]


def _expand(coarse: VoxelArray, shape: Sequence[int]) -> VoxelArray:
    """Bring an image of every second row and column to `shape`, smoothly; a constant image stays as it is."""
    values, present = np.zeros(shape, np.float32), np.zeros(shape[-2:], np.float32)
    values[..., ::2, ::2] = coarse
    present[::2, ::2] = 1
    # The share of values under the kernel differs near the border and between even and odd places.
    expanded: VoxelArray = _blurred(values) / _blurred(present)
    return expanded


def _blurred(image: VoxelArray) -> VoxelArray:
    """Convolve rows and columns with the pyramid's kernel; the border is repeated outwards."""
    for axis in (-1, -2):
        padding = [(0, 0)] * image.ndim
        padding[axis] = (2, 2)
        padded = np.moveaxis(np.pad(image, padding, mode="edge"), axis, -1)
        size = image.shape[axis]
        total = sum(np.float32(weight) * padded[..., n : n + size] for n, weight in enumerate(PYRAMID_KERNEL))
        image = np.moveaxis(np.asarray(total), -1, axis)
    return image


WAVELET_RULE = rule(
    "wavelet",
    "Wavelet",
    "stronger detail in the wavelet domain (db4; needs PyWavelets)",
    wavelet,
    package=Package("PyWavelets", "pywt"),
)
LAPLACIAN_RULE = rule("laplacian", "Laplacian pyramid", "stronger detail in the Laplacian pyramid", laplacian)
