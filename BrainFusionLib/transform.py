"""Rigid transforms between the two heads, in LPS millimetres."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from BrainFusionLib.errors import GeometryError
from BrainFusionLib.geometry import (
    FloatArray,
    affine,
    apply_affine,
    frozen,
    orthonormalised,
    rotation_axis_angle,
    rotation_matrix,
)


@dataclass(frozen=True, eq=False)
class RigidTransform:
    """Maps points of the fixed image (MRI) to points of the moving image (CT).

    This is ITK's sense of a registration result: resampling the CT onto the MRI's grid asks, for each MRI
    voxel, where in the CT to look. To move CT *points* into MRI space use `inverse`.

    Parameters
    ----------
    moving_from_fixed_lps
        4x4, rotation and translation in LPS mm. The rotation is made exactly orthonormal.

    Raises
    ------
    GeometryError
        The matrix is not rigid: scaled, sheared or mirrored, or its last row is not 0 0 0 1.
    """

    moving_from_fixed_lps: FloatArray

    def __post_init__(self) -> None:
        matrix = np.array(self.moving_from_fixed_lps, dtype=np.float64)
        if matrix.shape != (4, 4) or not np.isfinite(matrix).all() or not np.allclose(matrix[3], [0, 0, 0, 1]):
            raise GeometryError(
                f"a rigid transform is a finite 4x4 matrix with last row 0 0 0 1; got {matrix.tolist()}"
            )
        try:
            rotation = orthonormalised(matrix[:3, :3])
        except GeometryError as error:
            raise GeometryError(
                f"a rigid transform only turns and shifts, but this matrix also scales or shears: {matrix.tolist()}. "
                "Give a rigid one."
            ) from error
        if np.linalg.det(rotation) < 0:
            raise GeometryError("a rigid transform cannot mirror; this matrix has a negative determinant")
        object.__setattr__(self, "moving_from_fixed_lps", frozen(affine(rotation, matrix[:3, 3])))

    @classmethod
    def identity(cls) -> RigidTransform:
        """Return the transform that leaves every point where it is."""
        return cls(np.eye(4))

    @classmethod
    def from_axis_angle(
        cls,
        axis: npt.ArrayLike,
        angle_deg: float,
        translation_mm: npt.ArrayLike = (0.0, 0.0, 0.0),
        centre_lps_mm: npt.ArrayLike = (0.0, 0.0, 0.0),
    ) -> RigidTransform:
        """Return ``x -> R (x - centre) + centre + translation`` with R by `angle_deg` about `axis`."""
        return cls.about_centre(rotation_matrix(axis, angle_deg), translation_mm, centre_lps_mm)

    @classmethod
    def about_centre(
        cls, rotation: npt.ArrayLike, translation_mm: npt.ArrayLike, centre_lps_mm: npt.ArrayLike
    ) -> RigidTransform:
        """Return ``x -> R (x - centre) + centre + translation`` for a 3x3 rotation."""
        centre = np.asarray(centre_lps_mm, dtype=np.float64)
        r = np.asarray(rotation, dtype=np.float64)
        return cls(affine(r, centre + np.asarray(translation_mm, dtype=np.float64) - r @ centre))

    @property
    def rotation(self) -> FloatArray:
        """The 3x3 rotation."""
        return self.moving_from_fixed_lps[:3, :3]

    @property
    def translation_mm(self) -> FloatArray:
        """Where the origin goes, LPS mm, shape (3,). Depends on the origin; see `shift_at` for a telling number."""
        return self.moving_from_fixed_lps[:3, 3]

    @property
    def angle_deg(self) -> float:
        """Angle of the rotation, 0 to 180 degrees."""
        return rotation_axis_angle(self.rotation)[1]

    def apply(self, fixed_points_lps_mm: npt.ArrayLike) -> FloatArray:
        """Take fixed points, shape (..., 3), to moving points of the same shape, LPS mm."""
        return apply_affine(self.moving_from_fixed_lps, fixed_points_lps_mm)

    def inverse(self) -> RigidTransform:
        """Return the transform from moving to fixed points."""
        r = self.rotation.T
        return RigidTransform(affine(r, -r @ self.translation_mm))

    def __matmul__(self, first: RigidTransform) -> RigidTransform:
        """Return the composition: ``(a @ b).apply(x) == a.apply(b.apply(x))``."""
        return RigidTransform(self.moving_from_fixed_lps @ first.moving_from_fixed_lps)

    def shift_at(self, fixed_point_lps_mm: npt.ArrayLike) -> FloatArray:
        """Return how far a fixed point is moved, LPS mm, shape (3,)."""
        return self.apply(fixed_point_lps_mm) - np.asarray(fixed_point_lps_mm, dtype=np.float64)

    def describe(self, centre_lps_mm: npt.ArrayLike) -> str:
        """Say in words how the CT has to move to lie on the MRI, seen at a point of the MRI.

        The words are about moving the CT, which is the inverse of the matrix that resampling uses.
        """
        axis, angle = rotation_axis_angle(self.rotation.T)
        shift = -self.shift_at(centre_lps_mm)
        size = ", ".join(
            f"{abs(v):.1f} mm {('right', 'anterior', 'inferior')[i] if v < 0 else ('left', 'posterior', 'superior')[i]}"
            for i, v in enumerate(shift)
        )
        names = ("left-right", "front-back", "feet-head")
        main = names[int(np.argmax(np.abs(axis)))]
        return f"rotated by {angle:.1f} degrees (mainly about the {main} axis), shifted by {size}"

    def to_dict(self) -> dict[str, Any]:
        """Return plain lists and numbers, for JSON."""
        axis, angle = rotation_axis_angle(self.rotation)
        return {
            "moving_from_fixed_lps": self.moving_from_fixed_lps.tolist(),
            "rotation_axis_lps": axis.tolist(),
            "rotation_angle_deg": angle,
        }
