"""Positions of voxels: grids and affine algebra in LPS millimetres, float64.

Conventions (see ``docs/coordinate_systems.md``): LPS world, index order ``ijk`` for sizes and spacings,
arrays indexed ``kji``, matrices named target first (``lps_from_ijk``), so that neighbours cancel.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from BrainFusionLib.arguments import check_fields, checked
from BrainFusionLib.errors import GeometryError
from BrainFusionLib.values import ByValue

FloatArray = npt.NDArray[np.float64]

# Left and posterior change sign between the two systems; superior does not. The matrix is its own inverse.
RAS_FROM_LPS: FloatArray = np.diag([-1.0, -1.0, 1.0, 1.0])

# Float32 headers (NIfTI sform, MetaImage text) store rotations to about 1e-6; 1e-3 accepts those and still rejects a
# real shear: a gantry tilt of 0.1 degree is 1.7e-3.
ORTHOGONALITY_TOLERANCE = 1e-3

# SimpleITK's GetDirection gives them like that.
_IF_FLAT = ". Give np.reshape(direction, (3, 3))."

# A head with voxels of 0.25 mm has about 1000 voxels along each axis; ten times that means a broken header.
MAXIMUM_SIZE = 10_000


@dataclass(frozen=True, eq=False)
class Grid(ByValue):
    """A regular grid of voxel centres in space.

    Parameters
    ----------
    size_ijk
        Number of voxels along each index axis, all at least 1.
    spacing_ijk_mm
        Distance between neighbouring centres along each index axis, mm, positive.
    origin_lps_mm
        Position of the centre of voxel (0, 0, 0), LPS mm.
    direction
        3x3; its columns are the unit directions of the i, j and k axes in LPS. Made exactly orthonormal here, because
        files store it rounded. May be left-handed, as in Analyze and many NIfTI files.

    Raises
    ------
    GeometryError
        Zero, negative or non-finite spacing, a size below 1 or above 10 000, or sheared directions.
    """

    size_ijk: tuple[int, int, int]
    spacing_ijk_mm: tuple[float, float, float] = (1.0, 1.0, 1.0)
    origin_lps_mm: tuple[float, float, float] = (0.0, 0.0, 0.0)
    direction: FloatArray = field(default_factory=lambda: np.eye(3))

    def __post_init__(self) -> None:
        check_fields(self, GeometryError)
        if not all(float(n).is_integer() for n in self.size_ijk):
            raise GeometryError(f"a grid's sizes must be whole numbers of voxels; got {tuple(self.size_ijk)}")
        size = tuple(int(n) for n in self.size_ijk)
        spacing = tuple(float(s) for s in self.spacing_ijk_mm)
        origin = tuple(float(o) for o in self.origin_lps_mm)
        if min(size) < 1 or max(size) > MAXIMUM_SIZE:
            raise GeometryError(
                f"grid size must be 1 to {MAXIMUM_SIZE} voxels along each axis; got {size}. Crop the volume, or "
                "correct its header if it is not that large."
            )
        _check_spacing(spacing)
        if not all(np.isfinite(origin)):
            raise GeometryError(f"the grid's origin must be finite, in mm; got {origin}. Correct the header.")
        object.__setattr__(self, "size_ijk", size)
        object.__setattr__(self, "spacing_ijk_mm", spacing)
        object.__setattr__(self, "origin_lps_mm", origin)
        object.__setattr__(self, "direction", frozen(orthonormalised(self.direction)))

    @classmethod
    @checked
    def from_lps_from_ijk(cls, lps_from_ijk: npt.ArrayLike, size_ijk: tuple[int, int, int]) -> Grid:
        """Build a grid from a 4x4 affine that maps voxel indices to LPS mm.

        Raises
        ------
        GeometryError
            The affine is not 4x4, singular, or sheared.
        """
        matrix = np.asarray(lps_from_ijk, dtype=np.float64)
        if matrix.shape != (4, 4) or not np.isfinite(matrix).all() or not np.allclose(matrix[3], [0, 0, 0, 1]):
            raise GeometryError(
                f"an affine must be a finite 4x4 matrix with last row 0 0 0 1; got "
                f"{matrix.tolist()}. Correct the header, or convert the original images again."
            )
        spacing = np.linalg.norm(matrix[:3, :3], axis=0)
        if not (spacing > 0).all():
            raise GeometryError(
                f"voxel spacing must be positive, in mm; the affine gives {spacing.tolist()}. Correct the "
                "header, or convert the original images again."
            )
        return cls(size_ijk, tuple(spacing), tuple(matrix[:3, 3]), matrix[:3, :3] / spacing)

    @property
    def shape_kji(self) -> tuple[int, int, int]:
        """Shape of an array on this grid."""
        return (self.size_ijk[2], self.size_ijk[1], self.size_ijk[0])

    @property
    def lps_from_ijk(self) -> FloatArray:
        """4x4 affine, voxel indices to LPS mm."""
        matrix = np.eye(4)
        matrix[:3, :3] = self.direction * np.asarray(self.spacing_ijk_mm)
        matrix[:3, 3] = self.origin_lps_mm
        return matrix

    @property
    def ijk_from_lps(self) -> FloatArray:
        """4x4 affine, LPS mm to (continuous) voxel indices."""
        return np.asarray(np.linalg.inv(self.lps_from_ijk), dtype=np.float64)

    @property
    def extent_ijk_mm(self) -> tuple[float, float, float]:
        """Edge lengths of the box filled by the voxels, mm."""
        i, j, k = (n * s for n, s in zip(self.size_ijk, self.spacing_ijk_mm, strict=True))
        return (i, j, k)

    @property
    def centre_lps_mm(self) -> FloatArray:
        """Centre of the box, LPS mm, shape (3,)."""
        return apply_affine(self.lps_from_ijk, (np.asarray(self.size_ijk) - 1) / 2)

    @property
    def corners_lps_mm(self) -> FloatArray:
        """Centres of the eight corner voxels, LPS mm, shape (8, 3)."""
        last = np.asarray(self.size_ijk) - 1
        unit = np.array([[i, j, k] for i in (0, 1) for j in (0, 1) for k in (0, 1)])
        return apply_affine(self.lps_from_ijk, unit * last)

    @checked
    def with_spacing(self, spacing_ijk_mm: tuple[float, float, float]) -> Grid:
        """Return a grid with another spacing that fills the same box (to less than one new voxel), same centre."""
        _check_spacing(spacing_ijk_mm)
        counts = np.asarray(self.extent_ijk_mm) / np.asarray(spacing_ijk_mm)
        size = np.maximum(1, np.ceil(counts - 1e-6)).astype(int)
        axes = self.direction * np.asarray(spacing_ijk_mm)
        origin = self.centre_lps_mm - axes @ ((size - 1) / 2)
        return Grid((int(size[0]), int(size[1]), int(size[2])), spacing_ijk_mm, tuple(origin), self.direction)

    @checked
    def moved(self, to_from_from_lps: npt.ArrayLike) -> Grid:
        """Return this grid moved by a 4x4 transform of space, rigid or scaling (a linear parent, for example).

        Raises
        ------
        GeometryError
            As `from_lps_from_ijk`: afterwards the axes would not be perpendicular.
        """
        return Grid.from_lps_from_ijk(np.asarray(to_from_from_lps) @ self.lps_from_ijk, self.size_ijk)

    @checked
    def same_as(self, other: Grid, tolerance_mm: float = 1e-6) -> bool:
        """Return whether both grids have the same voxels, to a tolerance in mm at the corners."""
        return self.size_ijk == other.size_ijk and bool(
            np.abs(self.corners_lps_mm - other.corners_lps_mm).max() <= tolerance_mm
        )


def _check_spacing(spacing_ijk_mm: tuple[float, ...]) -> None:
    if not all(np.isfinite(s) and s > 0 for s in spacing_ijk_mm):
        raise GeometryError(
            f"voxel spacing must be positive and finite, in mm; got {tuple(spacing_ijk_mm)}. Correct the header."
        )


def apply_affine(matrix: npt.ArrayLike, points: npt.ArrayLike) -> FloatArray:
    """Apply a 4x4 affine to points of shape (..., 3); the result has the same shape, float64."""
    m = np.asarray(matrix, dtype=np.float64)
    result: FloatArray = np.asarray(points, dtype=np.float64) @ m[:3, :3].T + m[:3, 3]
    return result


def affine(linear: npt.ArrayLike, translation: npt.ArrayLike = (0.0, 0.0, 0.0)) -> FloatArray:
    """Combine a 3x3 linear part and a translation (3,) into a 4x4 matrix."""
    matrix = np.eye(4)
    matrix[:3, :3] = linear
    matrix[:3, 3] = translation
    return matrix


def orthonormalised(matrix: npt.ArrayLike, tolerance: float = ORTHOGONALITY_TOLERANCE) -> FloatArray:
    """Return the orthogonal 3x3 matrix nearest to one that is orthogonal up to rounding.

    Source: the polar factor ``U Vt`` of the singular value decomposition (Higham, SIAM J. Sci. Stat. Comput. 1986).
    Reflections are kept: a left-handed set of axes stays left-handed.

    Raises
    ------
    GeometryError
        An entry of ``M.T @ M`` differs from the identity by more than `tolerance`.
    """
    m = np.asarray(matrix, dtype=np.float64)
    if m.shape != (3, 3) or not np.isfinite(m).all():
        raise GeometryError(
            f"directions must be a finite 3x3 matrix; got {m.tolist()}{_IF_FLAT if m.shape == (9,) else ''}"
        )
    worst = float(np.abs(m.T @ m - np.eye(3)).max())
    if worst > tolerance:
        raise GeometryError(
            f"the axes of an image must be perpendicular unit vectors; these are off by {worst:.3g} "
            "(sheared or scaled). Resample the image onto a regular grid first."
        )
    u, _, vt = np.linalg.svd(m)
    result: FloatArray = u @ vt
    return result


def rotation_matrix(axis: npt.ArrayLike, angle_deg: float) -> FloatArray:
    """Return the 3x3 rotation by `angle_deg` about `axis` (any length but zero), by Rodrigues' formula.

    Raises
    ------
    GeometryError
        The axis is zero.
    """
    a = np.asarray(axis, dtype=np.float64)
    length = float(np.linalg.norm(a))
    if a.shape != (3,) or not 0 < length < np.inf:
        raise GeometryError(f"a rotation axis must be three numbers, not all zero; got {a.tolist()}")
    x, y, z = a / length
    cross = np.array([[0, -z, y], [z, 0, -x], [-y, x, 0]])
    t = np.deg2rad(angle_deg)
    result: FloatArray = np.eye(3) + np.sin(t) * cross + (1 - np.cos(t)) * cross @ cross
    return result


def rotation_axis_angle(rotation: npt.ArrayLike) -> tuple[FloatArray, float]:
    """Return the unit axis (3,) and the angle in degrees, 0 to 180, of a 3x3 rotation.

    For the identity, for which any axis is valid, the axis is +S.
    """
    r = np.asarray(rotation, dtype=np.float64)
    twice_sine_axis = np.array([r[2, 1] - r[1, 2], r[0, 2] - r[2, 0], r[1, 0] - r[0, 1]])
    sine = float(np.linalg.norm(twice_sine_axis)) / 2
    angle = float(np.degrees(np.arctan2(sine, (np.trace(r) - 1) / 2)))
    if sine > 1e-8:
        return twice_sine_axis / (2 * sine), angle
    if angle < 90:
        return np.array([0.0, 0.0, 1.0]), angle
    # 180 degrees: the sine vanishes, but R + I = 2 a a^T, whose longest column is along the axis.
    outer = r + np.eye(3)
    column = outer[:, int(np.argmax(np.diag(outer)))]
    return column / np.linalg.norm(column), angle


def anatomical_axes(direction: npt.ArrayLike) -> str:
    """Return the three letters of the nearest anatomical directions of i, j and k, for example ``"LPS"``.

    Each letter is the direction in which the index grows. Ties are resolved so that every body axis appears once.
    """
    d = np.asarray(direction, dtype=np.float64)
    letters = ["?"] * 3
    left = np.abs(d).copy()
    for _ in range(3):
        world, index = np.unravel_index(int(np.argmax(left)), left.shape)
        letters[index] = ("RL", "AP", "IS")[world][int(d[world, index] > 0)]
        left[world, :] = -1
        left[:, index] = -1
    return "".join(letters)


def frozen(array: npt.ArrayLike) -> FloatArray:
    """Return a read-only float64 copy, for fields of frozen dataclasses."""
    copy = np.array(array, dtype=np.float64)
    copy.setflags(write=False)
    return copy
