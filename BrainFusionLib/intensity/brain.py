"""The brain in an MRI: inside the skull of the registered CT, without CSF.

Brain is grey and white matter and lesions; the CSF of sulci, cisterns and ventricles is not, nor are dura and vessels.
Whether CSF is dark (T1, FLAIR) or bright (T2) is read off the image: CSF lies at the rim more often than in the middle.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

from BrainFusionLib.geometry import FloatArray
from BrainFusionLib.values import ByValue
from BrainFusionLib.volume import BoolArray, Volume, VoxelArray

# The bias field is measured in blocks this long, from voxels this deep, and smoothed over three blocks, twice.
BLOCK_MM, BIAS_DEPTH_MM = 16.0, 6.0
# The rim and the middle, depths below the inner table.
RIM_MM, MIDDLE_MM = (1.5, 6.0), 14.0
BINS = 96
# CSF differs from the brain by at least this share of the brain's signal, and is this much more frequent at the rim.
LEAST_CONTRAST, LEAST_EXCESS = 0.25, 1.3
# Without contrast (PD), what lies deeper than this is taken for brain.
SHALLOW_MM = 3.0
LEAST_VOXELS = 2_000


@dataclass(frozen=True, eq=False)
class BrainMask(ByValue):
    """The brain on the MRI's grid.

    Attributes
    ----------
    mask_kji
        Bool, shape of the MRI.
    csf
        Whether CSF was found dark or bright; ``None`` if it could not be told from the brain: the mask then is the
        inside of the skull without its rim.
    """

    mask_kji: BoolArray
    csf: Literal["dark", "bright"] | None


def brain_mask(mri: Volume, depth_kji: VoxelArray) -> BrainMask | None:
    """Find the brain; ``None`` if too little of it is in view.

    Parameters
    ----------
    mri
        Any sequence.
    depth_kji
        Depth below the inner table on the MRI's grid, mm (`InsideSkull.depth_on`).
    """
    middle, rim = depth_kji > MIDDLE_MM, (depth_kji > RIM_MM[0]) & (depth_kji < RIM_MM[1])
    if min(np.count_nonzero(middle), np.count_nonzero(rim)) < LEAST_VOXELS:
        return None
    signal = without_bias(mri, depth_kji)
    csf, limit = _csf_limit(signal[middle], signal[rim])
    if csf is None:
        return BrainMask(depth_kji > SHALLOW_MM, None)
    found = depth_kji > 0
    found &= signal > limit if csf == "dark" else signal < limit
    return BrainMask(_largest(found), csf)


def _csf_limit(middle: VoxelArray, rim: VoxelArray) -> tuple[Literal["dark", "bright"] | None, float]:
    """Return whether CSF is dark or bright, and the signal half-way between CSF and brain."""
    both = np.concatenate([middle[:: max(1, middle.size // 100_000)], rim[:: max(1, rim.size // 100_000)]])
    low, high = _three_classes(both)
    means = [float(part.mean()) if part.size else 0.0 for part in _parted(both, low, high)]
    shares = [(float(np.mean(values <= low)), float(np.mean(values > high))) for values in (middle, rim)]
    candidates: list[tuple[float, Literal["dark", "bright"], float]] = []
    for name, limit, contrast, side in (
        ("dark", low, (means[1] - means[0]) / means[1], 0), ("bright", high, (means[2] - means[1]) / means[1], 1),
    ):  # fmt: skip
        excess = (shares[1][side] + 0.01) / (shares[0][side] + 0.01)
        if contrast > LEAST_CONTRAST and excess > LEAST_EXCESS:
            candidates.append((contrast * excess, "dark" if name == "dark" else "bright", limit))
    if not candidates:
        return None, 0.0
    _, csf, limit = max(candidates)
    return csf, limit


def _three_classes(values: VoxelArray) -> tuple[float, float]:
    """Return the two limits that part values into three classes of least variance (N. Otsu, 1979)."""
    low, high = (float(v) for v in np.percentile(values, [0.5, 99.5]))
    counts, edges = np.histogram(values, bins=BINS, range=(low, max(high, low + 1e-6)))
    weight = np.concatenate([[0.0], np.cumsum(counts)])
    total = np.concatenate([[0.0], np.cumsum(counts * (edges[:-1] + edges[1:]) / 2)])

    def between(first: npt.NDArray[np.intp], last: npt.NDArray[np.intp]) -> FloatArray:
        gain: FloatArray = (total[last] - total[first]) ** 2 / np.maximum(weight[last] - weight[first], 1e-9)
        return gain

    a, b = np.triu_indices(BINS - 1, 1)
    a, b = a + 1, b + 1
    zero, end = np.zeros_like(a), np.full_like(a, BINS)
    best = int((between(zero, a) + between(a, b) + between(b, end)).argmax())
    return float(edges[a[best]]), float(edges[b[best]])


def _parted(values: VoxelArray, low: float, high: float) -> tuple[VoxelArray, VoxelArray, VoxelArray]:
    return values[values <= low], values[(values > low) & (values <= high)], values[values > high]


def without_bias(mri: Volume, depth_kji: VoxelArray) -> VoxelArray:
    """Return the MRI divided by its local mean (geometric, smooth over centimetres)."""
    blocks = [
        min(n, max(1, round(BLOCK_MM / s))) for n, s in zip(depth_kji.shape, mri.grid.spacing_ijk_mm[::-1], strict=True)
    ]
    array = mri.array_kji
    positive = np.maximum(array, np.float32(1e-3 * float(array.max())))
    deep = depth_kji > BIAS_DEPTH_MM
    total, count = (
        _sums(np.where(deep, np.log(positive), np.float32(0)), blocks),
        _sums(deep.astype(np.float32), blocks),
    )
    everywhere = float(total.sum() / max(1.0, float(count.sum())))
    for _ in range(2):
        total, count = _smoothed(total), _smoothed(count)
    # Where there is little brain, the mean of all.
    prior = 0.02 * float(count.max())
    field: VoxelArray = ((total + prior * everywhere) / (count + prior)).astype(np.float32)
    for axis, (size, block) in enumerate(zip(array.shape, blocks, strict=True)):
        at = np.clip((np.arange(size) - (block - 1) / 2) / block, 0, field.shape[axis] - 1)
        low = np.minimum(at.astype(np.intp), max(0, field.shape[axis] - 2))
        high = np.minimum(low + 1, field.shape[axis] - 1)
        part = (at - low).astype(np.float32).reshape([-1 if a == axis else 1 for a in range(3)])
        evened = np.asarray(field.take(low, axis) * (1 - part) + field.take(high, axis) * part, dtype=np.float32)
        field = evened
    return (array / np.exp(field)).astype(np.float32)


def _sums(array: VoxelArray, blocks: list[int]) -> VoxelArray:
    """Return the sums of blocks; those at the end may be incomplete."""
    for axis, block in enumerate(blocks):
        array = np.add.reduceat(array, np.arange(0, array.shape[axis], block), axis=axis)
    return array


def _smoothed(array: VoxelArray) -> VoxelArray:
    for axis in range(3):
        padded = np.pad(array, [(1, 1) if a == axis else (0, 0) for a in range(3)])
        parts = [np.take(padded, np.arange(n, n + array.shape[axis]), axis) for n in range(3)]
        array = ((parts[0] + 2 * parts[1] + parts[2]) / 4).astype(np.float32)
    return array


def _largest(mask: BoolArray) -> BoolArray:
    """Return the largest piece of a mask."""
    import SimpleITK as sitk

    pieces = sitk.ConnectedComponent(sitk.GetImageFromArray(mask.astype(np.uint8)))
    found: BoolArray = sitk.GetArrayFromImage(sitk.RelabelComponent(pieces)) == 1
    return found
