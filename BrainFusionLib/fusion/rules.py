"""Classical fusion rules: baselines beside the network, and teachers of it.

A rule takes the CT and the MRI on the unit scale of `intensity` and the bone weight (0 to 1), all of shape
(slices, rows, columns), and gives the fused stack, float32, same shape and scale. Slices are fused one by one: no rule
looks along the first axis.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import reduce
from typing import Any

import numpy as np

from BrainFusionLib.errors import MissingDependencyError
from BrainFusionLib.volume import VoxelArray

# db4 at up to 4 levels: details from 2 to 16 voxels, where edges of bone and cortex are; what is coarser is averaged.
WAVELET = "db4"
LEVELS = 4

# Burt and Adelson's generating kernel with a = 0.375, the binomial one.
PYRAMID_KERNEL = tuple(weight / 16 for weight in (1.0, 4.0, 6.0, 4.0, 1.0))


@dataclass(frozen=True)
class Rule:
    """A fusion rule: its name, one line for people, and the function itself; call it like the function."""

    name: str
    description: str
    function: Callable[[VoxelArray, VoxelArray, VoxelArray], VoxelArray]

    def __call__(self, ct_unit: VoxelArray, mri_unit: VoxelArray, bone_weight: VoxelArray) -> VoxelArray:
        """Fuse two stacks of shape (slices, rows, columns) on the unit scale; the bone weight has the same shape.

        Raises
        ------
        ValueError
            The three shapes differ.
        MissingDependencyError
            The rule needs an optional package.
        """
        if not ct_unit.shape == mri_unit.shape == bone_weight.shape:
            raise ValueError(
                f"CT, MRI and bone weight must have one shape; got {ct_unit.shape}, {mri_unit.shape} and "
                f"{bone_weight.shape}. Resample the CT onto the MRI's grid first."
            )
        return self.function(ct_unit, mri_unit, bone_weight)


def average(ct_unit: VoxelArray, mri_unit: VoxelArray, bone_weight: VoxelArray) -> VoxelArray:
    """Return the mean of both images."""
    return (ct_unit + mri_unit) * np.float32(0.5)


def maximum(ct_unit: VoxelArray, mri_unit: VoxelArray, bone_weight: VoxelArray) -> VoxelArray:
    """Return the brighter of both images."""
    return np.maximum(ct_unit, mri_unit)


def bone_over_mri(ct_unit: VoxelArray, mri_unit: VoxelArray, bone_weight: VoxelArray) -> VoxelArray:
    """Return CT where it is bone and MRI elsewhere: ``w·ct + (1 − w)·mri``, exactly so at ``w`` = 0 and 1."""
    return bone_weight * ct_unit + (1 - bone_weight) * mri_unit


def bone_and_rim(ct_unit: VoxelArray, mri_unit: VoxelArray, bone_weight: VoxelArray) -> VoxelArray:
    """Return `bone_over_mri` with the neighbours, within the slice, of what is at least half bone shown as CT, too.

    A pixel that touches bone holds some of both, and bone's edge, the strongest of the slice, lies in it: shown from
    one source, the edge stays as steep as it was.
    """
    half = np.where(bone_weight >= 0.5, bone_weight, np.float32(0))
    padded = np.pad(half, [(0, 0)] * (half.ndim - 2) + [(1, 1), (1, 1)])
    rows, columns = half.shape[-2:]
    shifted = (padded[..., y : y + rows, x : x + columns] for y in range(3) for x in range(3))
    spread = reduce(np.maximum, shifted, bone_weight)
    return bone_over_mri(ct_unit, mri_unit, spread)


def import_wavelets() -> Any:
    """Return the module ``pywt``.

    Raises
    ------
    MissingDependencyError
        PyWavelets is not installed.
    """
    try:
        import pywt
    except ImportError as error:
        raise MissingDependencyError(
            "the wavelet rule needs the package PyWavelets, which is not installed. "
            "Run: pip install PyWavelets (or choose another rule)."
        ) from error
    return pywt


def wavelet(ct_unit: VoxelArray, mri_unit: VoxelArray, bone_weight: VoxelArray) -> VoxelArray:
    """Fuse in the discrete wavelet domain (db4): the stronger detail, the mean of the coarsest level.

    Source: Li, Manjunath and Mitra, Graphical Models and Image Processing 57 (1995) 235. May leave the sources' range.

    Raises
    ------
    MissingDependencyError
        PyWavelets is not installed.
    """
    pywt = import_wavelets()
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
    fused = average(ct_levels[-1], mri_levels[-1], bone_weight)
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


RULES: dict[str, Rule] = {
    rule.name: rule
    for rule in (
        Rule("bone_over_mri", "CT where it is bone (300 HU and more), MRI elsewhere", bone_over_mri),
        Rule("bone_and_rim", "the same, with the pixels that touch bone shown as CT", bone_and_rim),
        Rule("average", "mean of CT and MRI", average),
        Rule("maximum", "the brighter of CT and MRI", maximum),
        Rule("wavelet", "stronger detail in the wavelet domain (db4; needs PyWavelets)", wavelet),
        Rule("laplacian", "stronger detail in the Laplacian pyramid", laplacian),
    )
}
