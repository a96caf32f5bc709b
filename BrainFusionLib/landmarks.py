"""Landmarks: the same anatomical points, marked by a user in the CT and in the MRI, and their residuals in a pose."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from BrainFusionLib.arguments import check_fields, checked
from BrainFusionLib.errors import GeometryError
from BrainFusionLib.geometry import FloatArray, Grid
from BrainFusionLib.quantities import length
from BrainFusionLib.transform import RigidTransform, Transform
from BrainFusionLib.values import ByValue

# Assumed error of one click on an anatomical landmark, root mean square over all directions: about a voxel.
CLICK_MM = 1.0
# Of both clicks together.
PAIR_CLICK_MM = CLICK_MM * np.sqrt(2.0).item()
# Residual that two clicks alone cause in half of all points, and in all but one of a thousand (Maxwell's distribution).
MEDIAN_CLICK_MM, MOST_CLICK_MM = 0.89 * PAIR_CLICK_MM, 2.33 * PAIR_CLICK_MM
LEAST_POINTS, MOST_POINTS = 2, 10_000
LEAST_FOR_START = 3
# Points whose second principal direction is shorter than this (standard deviation) leave the rotation undetermined.
LEAST_SPREAD_MM = 3.0
# Median residual from which on the points may be misread.
MISREAD_MM = 10.0

CAUTION = (
    "A small residual at the landmarks says little about the error elsewhere: the fit at points (fiducial registration "
    "error) is not the error at a target. Two clicks alone, each off by about "
    f"{CLICK_MM:g} mm, leave a median of about {MEDIAN_CLICK_MM:.1f} mm."
)


@dataclass(frozen=True)
class Marked:
    """A point of one image; `lps_mm` is ``None`` if it was not placed."""

    label: str
    lps_mm: tuple[float, float, float] | None


@dataclass(frozen=True, eq=False)
class Landmarks(ByValue):
    """Points marked in both images, each in its own image's space before any transform.

    Attributes
    ----------
    names
        Name of each point.
    ct_lps_mm, mri_lps_mm
        (n, 3), LPS mm.
    left_out
        Number of points without a partner or a position.

    Raises
    ------
    GeometryError
        There are fewer than two points or more than 10,000, the arrays differ in length, or a coordinate is not finite.
    """

    names: tuple[str, ...]
    ct_lps_mm: FloatArray
    mri_lps_mm: FloatArray
    left_out: int = 0

    def __post_init__(self) -> None:
        check_fields(self, GeometryError)
        for name in ("ct_lps_mm", "mri_lps_mm"):
            array = np.array(getattr(self, name), dtype=np.float64).reshape(-1, 3)
            if len(array) != len(self.names) or not np.isfinite(array).all():
                raise GeometryError(
                    f"landmarks need three finite coordinates for each of the {len(self.names)} names in both images; "
                    f"{name} has {len(array)} points. Give a position in both images for each name."
                )
            array.setflags(write=False)
            object.__setattr__(self, name, array)
        if len(self.names) < LEAST_POINTS:
            raise GeometryError(
                f"at least {LEAST_POINTS} landmarks with a position in both images are needed; got {len(self.names)}. "
                "Place more points, the same ones in both images."
            )
        if len(self.names) > MOST_POINTS:
            raise GeometryError(
                f"at most {MOST_POINTS:,} landmarks can be given; got {len(self.names):,}. Give those that were placed "
                "by hand."
            )

    def rigid_fit(self) -> RigidTransform:
        """Return the rigid transform from the MRI's points to the CT's with the least sum of squared residuals.

        Source: W. Kabsch, Acta Crystallographica A32 (1976) 922, by singular values.

        Raises
        ------
        GeometryError
            There are fewer than three points, or they are on or near one line.
        """
        centres = self.ct_lps_mm.mean(axis=0), self.mri_lps_mm.mean(axis=0)
        ct, mri = self.ct_lps_mm - centres[0], self.mri_lps_mm - centres[1]
        if len(self.names) < LEAST_FOR_START:
            raise GeometryError(
                f"a start needs at least {LEAST_FOR_START} landmarks that are not on a line; got {len(self.names)}. "
                "Place more points, or start without landmarks."
            )
        spread = min(float(np.linalg.svd(points, compute_uv=False)[1]) for points in (ct, mri))
        if spread / np.sqrt(len(self.names)) < LEAST_SPREAD_MM:
            raise GeometryError(
                "a start needs landmarks that are not on a line, but these are. Place another one to the side of them, "
                "or start without landmarks."
            )
        u, _, vt = np.linalg.svd(ct.T @ mri)
        # Points in one plane fit a mirrored head as well: the third axis is turned where the best fit mirrors.
        rotation = u @ np.diag([1.0, 1.0, np.sign(np.linalg.det(u @ vt))]) @ vt
        return RigidTransform.about_centre(rotation, centres[0] - centres[1], centres[1])

    @checked
    def outside(self, ct: Grid, mri: Grid) -> tuple[int, int]:
        """Return how many points lie outside the CT and outside the MRI."""
        return _outside(self.ct_lps_mm, ct), _outside(self.mri_lps_mm, mri)

    def misread(self, transform: Transform) -> str | None:
        """Say how else the points may be meant, where a pose is far from them, and near them in another reading.

        Parameters
        ----------
        transform
            The pose: maps MRI points to CT points, LPS mm.
        """
        flip = np.array([-1.0, -1.0, 1.0])
        ct, mri = self.ct_lps_mm, self.mri_lps_mm
        readings = {
            "as RAS": (ct * flip, mri * flip),
            "with those of CT and MRI exchanged": (mri, ct),
            "as RAS, with those of CT and MRI exchanged": (mri * flip, ct * flip),
            "as RAS in the CT": (ct * flip, mri),
            "as RAS in the MRI": (ct, mri * flip),
        }
        here = self.residuals(transform).median_mm
        found = {words: Landmarks(self.names, *both).residuals(transform).median_mm for words, both in readings.items()}
        words = min(found, key=lambda one: found[one])
        if here < MISREAD_MM or found[words] > here / 4:
            return None
        return (
            f"the median residual of the landmarks is {length(here)} as they were read (LPS), and "
            f"{length(found[words])} {words}: check how they, or a transform that was given, were written"
        )

    @checked
    def residuals(self, transform: Transform) -> LandmarkErrors:
        """Return the residuals in a pose, which maps MRI points to CT points, LPS mm."""
        shifts = transform.inverse().apply(self.ct_lps_mm) - self.mri_lps_mm
        lengths = np.linalg.norm(shifts, axis=1)
        points = tuple(
            LandmarkPoint(name, mri, ct, shift, float(length))
            for name, mri, ct, shift, length in zip(
                self.names, self.mri_lps_mm, self.ct_lps_mm, shifts, lengths, strict=True
            )
        )
        return LandmarkErrors(float(np.median(lengths)), float(lengths.max()), points)


def pair_landmarks(ct: Sequence[Marked], mri: Sequence[Marked], names: tuple[str, str]) -> Landmarks:
    """Pair the points of two lists by label, or by order if they have no label in common.

    Points without a position or a partner are left out.

    Parameters
    ----------
    ct, mri
        The points of each image, in its own space before any transform.
    names
        What the two lists are called, for the message.

    Raises
    ------
    GeometryError
        The lists cannot be paired, or fewer than two points are left.
    """
    labels = [[point.label for point in marked] for marked in (ct, mri)]
    unique = all(len(set(named)) == len(named) and all(named) for named in labels)
    common = set(labels[0]) & set(labels[1])
    if unique and common:
        partners = {point.label: point for point in mri}
        pairs = [(point, partners[point.label]) for point in ct if point.label in partners]
    else:
        if len(ct) != len(mri):
            # Points that were not placed hold a place in the order, unless only the placed ones are equal in number.
            ct, mri = ([point for point in marked if point.lps_mm is not None] for marked in (ct, mri))
        if len(ct) != len(mri):
            raise GeometryError(
                f"the points cannot be paired: {names[0]} has {len(ct)} and {names[1]} has {len(mri)}, and they do not "
                "have labels in common. Give the two points of each pair the same label."
            )
        pairs = list(zip(ct, mri, strict=True))
    both = [(a.label or b.label, a.lps_mm, b.lps_mm) for a, b in pairs if a.lps_mm and b.lps_mm]
    called = tuple(name or str(n) for n, (name, _, _) in enumerate(both, 1))
    return Landmarks(
        called, _array([a for _, a, _ in both]), _array([b for _, _, b in both]), max(len(ct), len(mri)) - len(both)
    )


def _array(points: Sequence[tuple[float, float, float]]) -> FloatArray:
    return np.array(points, dtype=np.float64).reshape(-1, 3)


def _outside(points_lps_mm: FloatArray, grid: Grid) -> int:
    homogeneous = np.c_[points_lps_mm, np.ones(len(points_lps_mm))]
    index = (homogeneous @ grid.ijk_from_lps.T)[:, :3]
    return int(((index < -0.5) | (index > np.array(grid.size_ijk) - 0.5)).any(axis=1).sum())


@dataclass(frozen=True, eq=False)
class LandmarkPoint(ByValue):
    """One landmark in a pose.

    Attributes
    ----------
    name
        Its name.
    mri_lps_mm, ct_lps_mm
        (3,), as marked, each in its own image.
    shift_mm
        (3,), LPS: from the point marked in the MRI to where the pose puts the point marked in the CT.
    residual_mm
        Length of the shift.
    """

    name: str
    mri_lps_mm: FloatArray
    ct_lps_mm: FloatArray
    shift_mm: FloatArray
    residual_mm: float


@dataclass(frozen=True, eq=False)
class LandmarkErrors(ByValue):
    """Residuals of all landmarks in a pose, in the MRI's space.

    Attributes
    ----------
    median_mm, worst_mm
        Median and largest residual.
    points
        All landmarks, in the order given.
    """

    median_mm: float
    worst_mm: float
    points: tuple[LandmarkPoint, ...]

    @property
    def worst(self) -> LandmarkPoint:
        """The landmark with the largest residual."""
        return max(self.points, key=lambda point: point.residual_mm)

    @property
    def summary(self) -> LandmarkFit:
        """What the verdict judges."""
        return LandmarkFit(len(self.points), self.median_mm, self.worst_mm)


@dataclass(frozen=True, eq=False)
class LandmarkFit(ByValue):
    """Residuals of landmarks in short.

    Attributes
    ----------
    count
        Number of landmarks.
    median_mm, worst_mm
        Median and largest residual.
    """

    count: int
    median_mm: float
    worst_mm: float
