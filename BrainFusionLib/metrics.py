"""Numbers that say how good a registration or a fusion is, each with its formula's source."""

from __future__ import annotations

from dataclasses import asdict, dataclass

import numpy as np
import numpy.typing as npt

from BrainFusionLib.geometry import FloatArray
from BrainFusionLib.transform import Transform
from BrainFusionLib.volume import VoxelArray


def target_registration_errors_mm(found: Transform, true: Transform, fixed_points_lps_mm: npt.ArrayLike) -> FloatArray:
    """Return how far each point lands from where it should, mm, shape (n,).

    Source: J. Fitzpatrick, J. West and C. Maurer, IEEE Trans. Medical Imaging 17 (1998) 694: the target registration
    error, here in the moving image's space (a rigid transform keeps distances, so the fixed one's gives the same).
    """
    errors: FloatArray = np.linalg.norm(found.apply(fixed_points_lps_mm) - true.apply(fixed_points_lps_mm), axis=-1)
    return errors


@dataclass(frozen=True)
class Fidelity:
    """Whether a fused volume tells the truth about its two sources.

    Attributes
    ----------
    bone_error_hu
        Mean absolute difference between the Hounsfield units read back from the fused volume and the CT's, where the
        CT is bone; ``None`` when no bone is in view.
    soft_tissue_error
        Mean absolute difference from the MRI on the unit scale, inside the MRI's head and away from bone.
    overshoot
        Mean distance of the fused value from the range between the two sources, unit scale: 0 when no voxel is
        brighter or darker than both.
    """

    bone_error_hu: float | None
    soft_tissue_error: float | None
    overshoot: float

    def to_dict(self) -> dict[str, float | None]:
        """Return plain values, for JSON."""
        return asdict(self)


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
    """Measure a fused volume against its sources; arrays of one shape, but the last two: (number of bone voxels,)."""
    low, high = np.minimum(ct_unit, mri_unit), np.maximum(ct_unit, mri_unit)
    # A millionth of the unit scale is float32 rounding of the blend, not a halo.
    outside = np.maximum(fused_unit - high, low - fused_unit) - np.float32(1e-6)
    return Fidelity(
        bone_error_hu=float(np.abs(fused_hu_in_bone - ct_hu_in_bone).mean()) if bone.any() else None,
        soft_tissue_error=float(np.abs(fused_unit - mri_unit)[soft_tissue].mean()) if soft_tissue.any() else None,
        overshoot=float(np.maximum(outside, 0).mean()),
    )
