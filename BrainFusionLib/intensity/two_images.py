"""Brain told from CSF by the CT and the MRI together, where the MRI's contrast is too small to tell them apart.

Two classes whose values in MRI and CT are independent, apart from their frequency at each depth below the inner table.
In the CT, CSF is less dense than brain; what either looks like in the MRI is learned (expectation-maximisation,
A. Dempster, N. Laird, D. Rubin, J. R. Stat. Soc. B 39 (1977) 1), on a histogram, which takes no longer for more voxels.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from BrainFusionLib.geometry import FloatArray
from BrainFusionLib.volume import BoolArray, VoxelArray

DEPTHS_MM = np.array([1.5, 3, 5, 8, 12, 18, 26], np.float32)
MRI_BINS, CT_BINS, REACH_HU = 64, 40, 60.0
TURNS = 25
# First: the brain's HU above the median in the middle (of brain and ventricles), the distance to CSF, the noise, the
# share of CSF by depth. From a lower start, heads with much CSF were taken for brain all over.
FIRST_HU, FIRST_SHARES = (6.0, 22.0, 6.0), (0.6, 0.1)
# Limits of what is learned; a density that no HU falls below, so that the CT alone never decides.
BRAIN_HU, LESS_DENSE_HU, NOISE_HU, SHARES, LEAST_DENSITY = (-10, 15), (10, 30), (3, 25), (0.02, 0.9), 0.02


def is_brain(signal: VoxelArray, hu: VoxelArray, depth: VoxelArray) -> BoolArray:
    """Return which voxels inside the skull are brain.

    Parameters
    ----------
    signal
        The MRI without its bias, (n,).
    hu
        The CT, (n,), relative to about the brain's HU.
    depth
        Below the inner table, mm, (n,).
    """
    low, high = (float(v) for v in np.percentile(signal[::17], [0.5, 99.5]))
    middle = float(np.median(hu[depth > DEPTHS_MM[3]])) if (depth > DEPTHS_MM[3]).any() else 0.0
    at = _binned(signal, low, max(high, low + 1e-6), MRI_BINS)
    at = at * CT_BINS + _binned(hu, middle - REACH_HU, middle + REACH_HU, CT_BINS)
    layers = len(DEPTHS_MM) + 1
    # The limits are whole halves: a table of them takes half the time of a search.
    layer = np.searchsorted(2 * DEPTHS_MM, np.arange(2 * int(DEPTHS_MM[-1]) + 2))
    at = at * layers + layer[np.clip(np.ceil(2 * depth), 0, len(layer) - 1).astype(np.intp)]
    counts = np.bincount(at, minlength=MRI_BINS * CT_BINS * layers).reshape(MRI_BINS, CT_BINS, layers)
    found: BoolArray = (_learned(counts.astype(np.float64)) > 0.5).ravel()[at]
    return found


def _learned(counts: FloatArray) -> FloatArray:
    """Return the probability of brain in each cell of a histogram (MRI, CT, depth)."""
    hu = (np.arange(CT_BINS) + 0.5) * 2 * REACH_HU / CT_BINS - REACH_HU
    inner = np.abs(hu) < REACH_HU - 5
    brain, apart, noise = FIRST_HU
    share: FloatArray = np.linspace(*FIRST_SHARES, counts.shape[2])
    mri: FloatArray = np.full((2, MRI_BINS), 1 / MRI_BINS)
    probability: FloatArray = np.zeros(counts.shape)
    for _ in range(TURNS):
        ct = np.stack([_density(hu, mean, noise) for mean in (brain - apart, brain)])
        fluid, matter = (mri[n][:, None, None] * ct[n][:, None] * part for n, part in enumerate((share, 1 - share)))
        probability = matter / np.maximum(fluid + matter, 1e-300)
        weights = np.stack([counts * (1 - probability), counts * probability])
        mri = _smoothed(_smoothed(weights.sum(axis=(2, 3)) + 0.5))
        mri /= mri.sum(axis=1, keepdims=True)
        share = np.clip(weights[0].sum(axis=(0, 1)) / np.maximum(counts.sum(axis=(0, 1)), 1), *SHARES)
        fluid_hu, brain_hu = weights.sum(axis=(1, 3)) * inner
        # Near each mean only: bone, its blur, air and vessels are neither.
        fluid_hu = fluid_hu * (np.abs(hu - brain + apart) < 1.5 * noise)
        brain_hu = brain_hu * (np.abs(hu - brain) < 1.5 * noise)
        if min(fluid_hu.sum(), brain_hu.sum()) <= 0:
            break
        brain = float(np.clip((brain_hu * hu).sum() / brain_hu.sum(), *BRAIN_HU))
        apart = float(np.clip(brain - (fluid_hu * hu).sum() / fluid_hu.sum(), *LESS_DENSE_HU))
        # Within 1.5 standard deviations of the mean, the spread is 0.74 of them.
        spread = float(np.sqrt((brain_hu * (hu - brain) ** 2).sum() / brain_hu.sum()))
        noise = float(np.clip(1.4 * spread, *NOISE_HU))
    return probability


def _density(hu: FloatArray, mean: float, noise: float) -> FloatArray:
    density: FloatArray = np.exp(-0.5 * ((hu - mean) / noise) ** 2) + LEAST_DENSITY
    density /= density.sum()
    return density


def _binned(values: VoxelArray, low: float, high: float, bins: int) -> npt.NDArray[np.intp]:
    found: npt.NDArray[np.intp] = np.clip((values - low) * (bins / (high - low)), 0, bins - 1).astype(np.intp)
    return found


def _smoothed(lines: FloatArray) -> FloatArray:
    padded = np.pad(lines, [(0, 0), (1, 1)], mode="edge")
    smooth: FloatArray = 0.25 * padded[:, :-2] + 0.5 * padded[:, 1:-1] + 0.25 * padded[:, 2:]
    return smooth
