"""Fidelity of a fused image to its two sources: without it, no other measure counts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from BrainFusionLib.arguments import checked
from BrainFusionLib.geometry import FloatArray
from BrainFusionLib.values import ByValue
from BrainFusionLib.volume import VoxelArray

# A pixel is inside the head if either source is above this grey level.
HEAD_LEVEL = 10.0
# From this grey level on, a pixel of the MRI is bright: a dark one beside it would be seen.
BRIGHT_LEVEL = 120.0


@dataclass(frozen=True, eq=False)
class Fidelity(ByValue):
    """How faithful a fused volume is to its two sources.

    Attributes
    ----------
    bone_error_hu
        Mean absolute difference between the CT and the Hounsfield units recovered from the fused volume, in bone;
        ``None`` if no bone is in view.
    soft_tissue_error
        Mean absolute difference from the MRI on the unit scale, inside the MRI's head and away from bone.
    overshoot
        Mean distance of the fused value from the range between the two sources, unit scale: 0 if no voxel is brighter
        or darker than both.
    """

    bone_error_hu: float | None
    soft_tissue_error: float | None
    overshoot: float


def fidelity(
    fused_unit: VoxelArray,
    ct_unit: VoxelArray,
    mri_unit: VoxelArray,
    *,
    bone: npt.NDArray[np.bool_],
    soft_tissue: npt.NDArray[np.bool_],
    fused_hu_in_bone: VoxelArray,
    ct_hu_in_bone: VoxelArray,
) -> Fidelity:
    """Compare a fused volume with its sources; the last two arrays have the shape (number of bone voxels,)."""
    # Voxels equal to the MRI, by far the most, have no error and no overshoot.
    changed = fused_unit != mri_unit
    fused, ct, mri = fused_unit[changed], ct_unit[changed], mri_unit[changed]
    # A millionth of the unit scale is float32 rounding, not overshoot.
    outside = np.maximum(fused - np.maximum(ct, mri), np.minimum(ct, mri) - fused) - np.float32(1e-6)
    tissue = int(np.count_nonzero(soft_tissue))
    wrong = np.abs(fused - mri)[soft_tissue[changed]].sum(dtype=np.float64)
    return Fidelity(
        bone_error_hu=float(np.abs(fused_hu_in_bone - ct_hu_in_bone).mean()) if bone.any() else None,
        soft_tissue_error=float(wrong) / tissue if tissue else None,
        overshoot=float(np.maximum(outside, 0).sum(dtype=np.float64)) / fused_unit.size,
    )


@dataclass(frozen=True)
class Compared:
    """How many voxels a `Fidelity` is the mean of: bone, soft tissue, all."""

    bone: int
    soft_tissue: int
    voxels: int


def whole_fidelity(parts: Sequence[tuple[Fidelity, Compared]]) -> Fidelity:
    """Return the fidelity of a volume from those of its parts."""

    def mean(values: list[float | None], counts: list[int]) -> float | None:
        total = sum(counts)
        return sum(v * n for v, n in zip(values, counts, strict=True) if v is not None) / total if total else None

    found, counts = zip(*parts, strict=True)
    return Fidelity(
        mean([f.bone_error_hu for f in found], [c.bone for c in counts]),
        mean([f.soft_tissue_error for f in found], [c.soft_tissue for c in counts]),
        mean([f.overshoot for f in found], [c.voxels for c in counts]) or 0.0,
    )


@dataclass(frozen=True)
class Gates:
    """How faithful a fused slice is to its sources: if a gate is missed, no other measure counts.

    Attributes
    ----------
    bone_error
        Mean absolute difference from the CT in bone, grey levels of 255; ``None`` if there is no bone.
    soft_tissue_error
        Mean absolute difference from the MRI in soft tissue, grey levels of 255; ``None`` if there is none. Soft tissue
        means pixels inside the head that are less than half bone and do not touch a pixel that is half bone or more:
        at the bone rim, pixels contain both.
    soft_tissue_correlation
        Pearson's correlation with the MRI in the same pixels; ``None`` if one of the two is constant.
    overshoot
        Mean distance from the range between both sources, grey levels of 255, over all pixels.
    dark_rim_60, dark_rim_30
        Of the pixels that touch bone, are not bone and are bright in the MRI (`BRIGHT_LEVEL`), the percentage that is
        darker than the MRI by more than 60 and 30 grey levels: a black ring around bone; ``None`` if there are none.
    """

    bone_error: float | None
    soft_tissue_error: float | None
    soft_tissue_correlation: float | None
    overshoot: float
    dark_rim_60: float | None
    dark_rim_30: float | None


@checked
def gates(
    fused: npt.ArrayLike,
    ct: npt.ArrayLike,
    mri: npt.ArrayLike,
    bone_weight: npt.ArrayLike,
    head: npt.NDArray[np.bool_] | None = None,
) -> Gates:
    """Compare a fused slice with its sources, grey levels of 255; the bone weight is 0 to 1.

    Where the head is given, what is outside (a head holder) is not soft tissue.
    """
    f, c, m, weight = (np.asarray(image, dtype=np.float64) for image in (fused, ct, mri, bone_weight))
    bone = weight >= 1
    soft = (np.maximum(c, m) > HEAD_LEVEL) & ~_with_neighbours(weight >= 0.5)
    darker = (m - f)[_with_neighbours(bone) & ~bone & (m >= BRIGHT_LEVEL)]
    soft = soft if head is None else soft & head
    outside = np.maximum(np.maximum(f - np.maximum(c, m), np.minimum(c, m) - f), 0)
    return Gates(
        bone_error=float(np.abs(f - c)[bone].mean()) if bone.any() else None,
        soft_tissue_error=float(np.abs(f - m)[soft].mean()) if soft.any() else None,
        soft_tissue_correlation=correlation(f[soft], m[soft]) if soft.any() else None,
        overshoot=float(outside.mean()),
        dark_rim_60=float(100 * (darker > 60).mean()) if darker.size else None,
        dark_rim_30=float(100 * (darker > 30).mean()) if darker.size else None,
    )


def _with_neighbours(mask: npt.NDArray[np.bool_]) -> npt.NDArray[np.bool_]:
    """Add the eight neighbours of every pixel."""
    padded = np.pad(mask, 1)
    rows = padded[:-2] | padded[1:-1] | padded[2:]
    grown: npt.NDArray[np.bool_] = rows[:, :-2] | rows[:, 1:-1] | rows[:, 2:]
    return grown


def correlation(a: FloatArray, b: FloatArray) -> float | None:
    """Return Pearson's correlation; ``None`` if one of the two is constant."""
    a, b = a - a.mean(), b - b.mean()
    length = float(np.sqrt((a**2).sum() * (b**2).sum()))
    return float((a * b).sum()) / length if length > 0 else None
