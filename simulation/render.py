"""From tissues to images: Hounsfield units, MRI signal, textures, brightness errors, and sampling as a scanner does."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from BrainFusionLib.geometry import Grid, apply_affine
from BrainFusionLib.transform import RigidTransform
from BrainFusionLib.volume import VoxelArray
from simulation.itk import sampled
from simulation.tissues import APPEARANCE, Coarse, CodeArray, values_by_code

# Appearances give the signal on a scale where this is as bright as it gets.
FULL_SIGNAL = 1000


def hounsfield(tissue_kji: CodeArray, texture: VoxelArray) -> VoxelArray:
    """Return the Hounsfield units of tissues of any kind, moved by a texture of the same shape."""
    level = values_by_code(APPEARANCE, [seen.hu for seen in APPEARANCE.values()])
    swing = values_by_code(APPEARANCE, [seen.hu_swing for seen in APPEARANCE.values()])
    return _levels(tissue_kji, texture, level, swing)


def signal(tissue_kji: CodeArray, texture: VoxelArray, contrast: str, random: np.random.Generator) -> VoxelArray:
    """Return the MRI signal of coarse tissues, about 0 to 1; how bright each of them is varies from scan to scan."""
    level = np.array([APPEARANCE[tissue].signal[contrast] / FULL_SIGNAL for tissue in Coarse])
    level = np.clip(level * (1 + random.normal(0, 0.08, len(level))), 0, 1.2)
    swing = level * [APPEARANCE[tissue].signal_swing for tissue in Coarse]
    return _levels(tissue_kji, texture, values_by_code(Coarse, level), values_by_code(Coarse, swing))


def _levels(
    tissue_kji: CodeArray, texture: VoxelArray, level: npt.NDArray[np.float32], swing: npt.NDArray[np.float32]
) -> VoxelArray:
    image: VoxelArray = swing[tissue_kji]
    image *= texture
    image += level[tissue_kji]
    return image


def smooth_noise(shape: tuple[int, ...], knots_voxels: float, random: np.random.Generator) -> VoxelArray:
    """Return noise, about -1 to 1, that is smooth between knots `knots_voxels` apart."""
    knots = [max(3, round(n / knots_voxels) + 1) for n in shape]
    noise: VoxelArray = np.clip(random.normal(0, 0.6, knots), -1.2, 1.2).astype(np.float32)
    for n in shape:  # one axis after the other, each of them going to the end
        at = np.linspace(0, noise.shape[0] - 1, n)
        weights = np.maximum(0, 1 - np.abs(at - np.arange(noise.shape[0])[:, None])).astype(np.float32)
        noise = np.tensordot(noise, weights, axes=(0, 0))
    return noise


def pull(array_kji: VoxelArray, source: Grid, target: Grid, transform: RigidTransform, fill: float) -> VoxelArray:
    """Sample onto `target` with the average over voxels thicker than the source's.

    `transform` takes points of `target` to points of `source`. SimpleITK, because on one thread it takes a quarter of
    the time of the library's own resampling; that the two agree is what the test of the truth shows.
    """
    step = source.spacing_ijk_mm[0]
    if target.spacing_ijk_mm[0] < 0.75 * step:
        # Between voxels of the source there is nothing to see: sample in plane at its spacing, then interpolate.
        i, j, k = target.spacing_ijk_mm
        size = (target.size_ijk[0] // 2 + 1, target.size_ijk[1] // 2 + 1, target.size_ijk[2])
        coarse = Grid(size, (2 * i, 2 * j, k), target.origin_lps_mm, target.direction)
        return sampled(pull(array_kji, source, coarse, transform, fill), coarse, target, None, fill)
    parts = [max(1, round(s / step)) for s in target.spacing_ijk_mm]
    first = apply_affine(target.lps_from_ijk, -0.5 + 0.5 / np.asarray(parts))
    ni, nj, nk = (n * m for n, m in zip(target.size_ijk, parts, strict=True))
    si, sj, sk = (s / m for s, m in zip(target.spacing_ijk_mm, parts, strict=True))
    fine = Grid((ni, nj, nk), (si, sj, sk), tuple(first), target.direction)
    image = sampled(array_kji, source, fine, transform.moving_from_fixed_lps, fill)
    for axis, count in enumerate(parts[::-1]):
        if count > 1:
            shape = image.shape
            image = image.reshape(*shape[:axis], shape[axis] // count, count, *shape[axis + 1 :]).mean(axis=axis + 1)
    return image


def add_ct_noise(hu_kji: VoxelArray, random: np.random.Generator, noise_hu: float = 15.0) -> VoxelArray:
    """Return whole Hounsfield units with noise, in the range of 12 bits. Changes its argument."""
    noise: VoxelArray = random.standard_normal(hu_kji.shape, dtype=np.float32)
    noise *= np.float32(noise_hu)
    hu_kji += noise
    np.rint(hu_kji, out=hu_kji)
    return np.clip(hu_kji, -1024, 3071, out=hu_kji)


def add_mri_faults(signal_kji: VoxelArray, bias: float, spacing_mm: float, random: np.random.Generator) -> VoxelArray:
    """Return the signal with a smooth brightness error, Rician noise and a scale of its own. Changes its argument."""
    signal_kji *= np.exp(bias * 1.6 * smooth_noise(signal_kji.shape, 70 / spacing_mm, random))
    noise: VoxelArray = random.standard_normal(signal_kji.shape, dtype=np.float32)
    noise *= np.float32(0.025)
    signal_kji += noise
    signal_kji *= signal_kji
    # The imaginary channel is the real one's noise mirrored in all axes: nobody can tell, and it is free.
    mirrored = noise[::-1, ::-1, ::-1]
    signal_kji += mirrored * mirrored
    np.sqrt(signal_kji, out=signal_kji)
    signal_kji *= np.float32(random.uniform(200, 1500))
    return signal_kji
