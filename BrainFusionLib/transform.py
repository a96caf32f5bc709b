"""Rigid and affine transforms between MRI and CT, in LPS millimetres."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, TypeAlias

import numpy as np
import numpy.typing as npt

from BrainFusionLib.arguments import PointsLike, check_fields, checked, given
from BrainFusionLib.errors import GeometryError, SettingsError
from BrainFusionLib.geometry import (
    FloatArray,
    affine,
    apply_affine,
    frozen,
    orthonormalised,
    rotation_axis_angle,
    rotation_matrix,
)
from BrainFusionLib.values import ByValue

Kind = Literal["rigid", "similarity", "affine"]

AXIS_NAMES = ("left-right", "front-back", "feet-head")
# Smaller differences of scale and smaller shears (radians) are rounding: 0.1 micrometre in a head.
ROUNDING = 1e-9
# A matrix with a larger ratio of scales is practically singular.
MOST_UNEVEN = 1e6


@dataclass(frozen=True, eq=False)
class _Linear(ByValue):
    """Common base of rigid and affine transforms: a 4x4 matrix that maps MRI points to CT points."""

    moving_from_fixed_lps: FloatArray

    # Otherwise numpy takes a transform for an array without axes in `array @ transform`.
    __array_ufunc__ = None

    @property
    def translation_mm(self) -> FloatArray:
        """Image of the origin, LPS mm, shape (3,). Depends on the choice of origin; `shift_at` is more informative."""
        return self.moving_from_fixed_lps[:3, 3]

    @checked
    def apply(self, fixed_points_lps_mm: PointsLike) -> FloatArray:
        """Map fixed points, shape (..., 3), to moving points of the same shape, LPS mm."""
        return apply_affine(self.moving_from_fixed_lps, fixed_points_lps_mm)

    @checked
    def shift_at(self, fixed_point_lps_mm: PointsLike) -> FloatArray:
        """Return the displacement of a fixed point, LPS mm, shape (3,)."""
        return self.apply(fixed_point_lps_mm) - np.asarray(fixed_point_lps_mm, dtype=np.float64)


def _checked(matrix: npt.ArrayLike, kind: str) -> FloatArray:
    m = np.array(matrix, dtype=np.float64)
    if m.shape != (4, 4) or not np.isfinite(m).all() or not np.allclose(m[3], [0, 0, 0, 1]):
        raise GeometryError(
            f"{kind} transform must be a finite 4x4 matrix with last row 0 0 0 1; got {m.tolist()}. Export it again."
        )
    return m


@dataclass(frozen=True, eq=False)
class RigidTransform(_Linear):
    """Maps points of the fixed image (MRI) to points of the moving image (CT).

    This is ITK's convention: to resample the CT onto the MRI's grid, each MRI voxel is mapped to its position in the
    CT. To map CT *points* to MRI points, use `inverse`.

    Parameters
    ----------
    moving_from_fixed_lps
        4x4, rotation and translation in LPS mm. The rotation is made exactly orthonormal.

    Raises
    ------
    GeometryError
        The matrix is not rigid: scaled, sheared or mirrored, or its last row is not 0 0 0 1.
    """

    def __post_init__(self) -> None:
        check_fields(self, GeometryError)
        matrix = _checked(self.moving_from_fixed_lps, "a rigid")
        try:
            rotation = orthonormalised(matrix[:3, :3])
        except GeometryError as error:
            raise GeometryError(
                f"a rigid transform only rotates and shifts, but this matrix also scales or shears: {matrix.tolist()}. "
                "Give a rigid one."
            ) from error
        if np.linalg.det(rotation) < 0:
            raise GeometryError("a rigid transform cannot mirror, but this matrix has a negative determinant")
        object.__setattr__(self, "moving_from_fixed_lps", frozen(affine(rotation, matrix[:3, 3])))

    @classmethod
    def identity(cls) -> RigidTransform:
        """Return the identity transform."""
        return cls(np.eye(4))

    @classmethod
    @checked
    def from_axis_angle(
        cls,
        axis: PointsLike,
        angle_deg: float,
        translation_mm: PointsLike = (0.0, 0.0, 0.0),
        centre_lps_mm: PointsLike = (0.0, 0.0, 0.0),
    ) -> RigidTransform:
        """Return ``x -> R (x - centre) + centre + translation`` with R by `angle_deg` about `axis`."""
        return cls.about_centre(rotation_matrix(axis, angle_deg), translation_mm, centre_lps_mm)

    @classmethod
    @checked
    def about_centre(
        cls, rotation: npt.ArrayLike, translation_mm: PointsLike, centre_lps_mm: PointsLike
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
    def kind(self) -> Kind:
        """``"rigid"``."""
        return "rigid"

    @property
    def angle_deg(self) -> float:
        """Angle of the rotation, 0 to 180 degrees."""
        return rotation_axis_angle(self.rotation)[1]

    def inverse(self) -> RigidTransform:
        """Return the transform from moving to fixed points."""
        r = self.rotation.T
        return RigidTransform(affine(r, -r @ self.translation_mm))

    def __matmul__(self, first: RigidTransform) -> RigidTransform:
        """Return the composition: ``(a @ b).apply(x) == a.apply(b.apply(x))``.

        Raises
        ------
        SettingsError
            `first` is no rigid transform.
        """
        if not isinstance(first, RigidTransform):
            raise SettingsError(
                f"transform @ other needs another RigidTransform; got {given(first)}. transform.apply(points) maps "
                "points; transform.moving_from_fixed_lps is the matrix."
            )
        return RigidTransform(self.moving_from_fixed_lps @ first.moving_from_fixed_lps)

    @checked
    def describe(self, centre_lps_mm: PointsLike) -> str:
        """Describe the movement of the CT onto the MRI; the shift is that of a point of the MRI.

        The text describes moving the CT, which is the inverse of the matrix used for resampling.
        """
        axis, angle = rotation_axis_angle(self.rotation.T)
        shift = -self.shift_at(centre_lps_mm)
        steps = [
            f"{abs(v):.1f} mm {('right', 'anterior', 'inferior')[i] if v < 0 else ('left', 'posterior', 'superior')[i]}"
            for i, v in enumerate(shift)
            if abs(v) >= 0.05  # "0.0 mm" says nothing
        ]
        main = AXIS_NAMES[int(np.argmax(np.abs(axis)))]
        turn = f"rotated by {angle:.1f} degrees (mainly about the {main} axis)" if angle >= 0.05 else "not rotated"
        joined = ", " if steps or angle >= 0.05 else " and "
        return f"{turn}{joined}{'shifted by ' + ', '.join(steps) if steps else 'not shifted'}"


@dataclass(frozen=True, eq=False)
class AffineTransform(_Linear):
    """Maps points of the fixed image (MRI) to points of the moving image (CT), and may scale and shear.

    For errors that a rigid transform cannot correct: a wrong voxel size in a header, a distorted MRI, an uncorrected
    gantry tilt. Its direction is that of `RigidTransform`.

    Parameters
    ----------
    moving_from_fixed_lps
        4x4, LPS mm.

    Raises
    ------
    GeometryError
        The matrix mirrors or flattens, is not finite, or its last row is not 0 0 0 1.
    """

    def __post_init__(self) -> None:
        check_fields(self, GeometryError)
        matrix = _checked(self.moving_from_fixed_lps, "an affine")
        scales = np.linalg.svd(matrix[:3, :3], compute_uv=False)
        if not scales[0] <= MOST_UNEVEN * scales[2]:
            raise GeometryError(
                f"an affine transform must be invertible, but this matrix is not: {matrix.tolist()}. "
                "Give one that can be inverted."
            )
        if np.linalg.det(matrix[:3, :3]) < 0:
            raise GeometryError(
                "an affine transform must not mirror, but this matrix has a negative determinant: it exchanges left "
                "and right. Correct the volume's header, or give a transform that does not mirror."
            )
        object.__setattr__(self, "moving_from_fixed_lps", frozen(affine(matrix[:3, :3], matrix[:3, 3])))

    @property
    def kind(self) -> Kind:
        """``"similarity"`` if the scale is the same in all directions, else ``"affine"``."""
        stretch = self._ct_stretch()
        uneven = np.abs(stretch / np.trace(stretch) * 3 - np.eye(3)).max()
        return "similarity" if uneven <= ROUNDING else "affine"

    @property
    def scales(self) -> FloatArray:
        """Factors by which lengths in the CT grow along the left-right, front-back and feet-head axes, shape (3,)."""
        lengths: FloatArray = np.linalg.norm(self._ct_stretch(), axis=0)
        return lengths

    @property
    def shear_deg(self) -> float:
        """Largest change of the angle between two of these axes, degrees."""
        axes = self._ct_stretch() / self.scales
        cosines = np.abs((axes.T @ axes)[np.triu_indices(3, 1)])
        return float(np.degrees(np.arcsin(np.minimum(cosines, 1.0)).max()))

    def _ct_stretch(self) -> FloatArray:
        """Return the symmetric 3x3 factor of the movement of the CT onto the MRI, which follows the rotation."""
        _, scale, vt = np.linalg.svd(self.moving_from_fixed_lps[:3, :3])
        stretch: FloatArray = (vt.T / scale) @ vt
        return stretch

    @checked
    def nearest_rigid(self, fixed_point_lps_mm: PointsLike = (0.0, 0.0, 0.0)) -> RigidTransform:
        """Return the rigid transform with the nearest rotation that maps a point of the MRI to the same point.

        Source: the polar factor ``U Vt`` (Higham, SIAM J. Sci. Stat. Comput. 1986), as in `geometry.orthonormalised`.
        """
        u, _, vt = np.linalg.svd(self.moving_from_fixed_lps[:3, :3])
        return RigidTransform.about_centre(u @ vt, self.shift_at(fixed_point_lps_mm), fixed_point_lps_mm)

    def inverse(self) -> AffineTransform:
        """Return the transform from moving to fixed points."""
        return AffineTransform(frozen(np.linalg.inv(self.moving_from_fixed_lps)))

    @checked
    def describe(self, centre_lps_mm: PointsLike) -> str:
        """Describe the movement and scaling of the CT onto the MRI; the shift is that of a point of the MRI."""
        percent = 100 * (self.scales - 1)
        if self.kind == "similarity":
            stretch = f"scaled by {percent.mean():+z.2f} %"
        else:
            each = ", ".join(f"{p:+z.2f} % {name}" for p, name in zip(percent, AXIS_NAMES, strict=True))
            shear = self.shear_deg
            stretch = f"scaled by {each}, " + (
                f"sheared by up to {shear:.2f} degrees" if shear >= 0.005 else "not sheared"
            )
        return f"{self.nearest_rigid(centre_lps_mm).describe(centre_lps_mm)}, {stretch}"


Transform: TypeAlias = RigidTransform | AffineTransform
