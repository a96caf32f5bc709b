"""The pose of the brain, where it has moved against the skull: the registration of the inside of the skull alone.

A brain that has sagged does not move rigidly, but most of its deep part does. Samples of the CT at least `DEPTH_MM`
below the inner table are registered to the MRI from the pose of the skull; air, bleeding, metal and fluid of a
resection are left out by their Hounsfield units. With brain shifts of 4 to 10 mm the median error more than 25 mm below
the inner table was .9 mm instead of 2.3 mm (docs/measured.md).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from BrainFusionLib.backend import on_cpu
from BrainFusionLib.geometry import FloatArray, apply_affine
from BrainFusionLib.intensity.brain import without_bias
from BrainFusionLib.intensity.inside import VOXEL_MM, InsideSkull, pooled_to, smoothed
from BrainFusionLib.registration.histogram import CT_BINS, FINENESS, MRI_BINS, ROW, Moving, Samples
from BrainFusionLib.registration.refine import climb
from BrainFusionLib.registration.similarity import Poses
from BrainFusionLib.transform import RigidTransform
from BrainFusionLib.volume import Volume

# Near the inner table the brain does not move with its middle, and CSF and dura change.
DEPTH_MM = 12.0
# Further from the brain's HU: air, clots, calcifications, metal.
BRAIN_RANGE_HU, NOISE_RANGE = 60.0, 4.0
SAMPLES = 160_000
LEAST_SAMPLES = 10_000
# Two fits on half of the samples each end at most this far apart, and the brain has moved by at most that.
MOST_APART_MM, MOST_MOVED_MM = 1.5, 20.0


@dataclass(frozen=True)
class BrainFit:
    """A pose fitted to the brain.

    Attributes
    ----------
    transform
        Maps MRI points to CT points, LPS mm: the mean of two fits.
    agreement_mm
        Largest distance between the two fits inside the skull.
    centre_mm, worst_mm
        Distance from the pose of the skull, at the middle of the inside of the skull and at its worst point.
    """

    transform: RigidTransform
    agreement_mm: float
    centre_mm: float
    worst_mm: float

    @property
    def is_determined(self) -> bool:
        """Whether the two fits agree on a pose near that of the skull."""
        return self.agreement_mm <= MOST_APART_MM and self.worst_mm <= MOST_MOVED_MM


def align_brain(
    mri: Volume,
    pose: RigidTransform,
    inside: InsideSkull,
    seed: int = 0,
    check: Callable[[], None] = lambda: None,
) -> BrainFit | None:
    """Fit the rigid pose to the brain; ``None`` if too little brain is in view.

    Parameters
    ----------
    mri
        Any sequence.
    pose
        The pose of the skull: maps MRI points to CT points, LPS mm.
    inside
        The inside of the skull in the CT.
    seed
        Seed of the samples.
    check
        Called often; raises to stop (cancel).
    """
    ct = smoothed(inside.hu_kji)
    spread = max(BRAIN_RANGE_HU, NOISE_RANGE * inside.noise_hu)
    brain = inside.mask_kji & (inside.depth_kji > DEPTH_MM) & (np.abs(ct - np.float32(inside.brain_hu)) < spread)
    places = np.argwhere(brain)
    if len(places) < LEAST_SAMPLES:
        return None
    check()
    moving = _moving(mri, inside, pose)
    if moving is None:
        return None
    chosen = np.random.default_rng(seed).permutation(len(places))[:SAMPLES]
    values = ct[tuple(places.T)]
    edges = np.quantile(values, np.linspace(0, 1, MRI_BINS + 1)[1:-1])
    centre = apply_affine(inside.grid.lps_from_ijk, places.mean(axis=0)[::-1])
    ends = []
    for half in (chosen[::2], chosen[1::2]):
        half = np.sort(half)
        points = apply_affine(inside.grid.lps_from_ijk, places[half][:, ::-1]) - centre
        rows = np.searchsorted(edges, values[half]).astype(np.int32) * ROW
        samples = Samples(np.ascontiguousarray(points.T, dtype=np.float32), rows, on_cpu())
        ends.append(_climbed(samples, moving, pose.inverse(), centre, check).inverse())
    found = _mean(ends[0], ends[1], pose.inverse().apply(centre))
    surface = pose.inverse().apply(_surface_points(inside))
    middle = pose.inverse().apply(inside.centre_lps_mm)
    return BrainFit(
        found,
        _worst_mm(ends[0], ends[1], surface),
        _worst_mm(found, pose, middle[None]),
        _worst_mm(found, pose, surface),
    )


def _moving(mri: Volume, inside: InsideSkull, pose: RigidTransform) -> Moving | None:
    """Return the MRI without its bias, pooled and in cells of the histogram that are spread over the brain's values."""
    even = mri.with_array(without_bias(mri, inside.depth_on(mri.grid, pose)))
    array, grid = pooled_to(even, VOXEL_MM)
    brain = array[inside.depth_on(grid, pose) > 3]
    if len(brain) < LEAST_SAMPLES:
        return None
    low, high = (float(v) for v in np.percentile(brain, [1, 99]))
    knots = np.linspace(low, max(high, low + 1e-6), CT_BINS - 3)
    cells = np.rint(np.interp(array, knots, np.arange(1, len(knots) + 1)) * FINENESS).astype(np.uint8)
    return Moving(np.ascontiguousarray(cells), grid.ijk_from_lps)


def _climbed(
    samples: Samples, moving: Moving, start: RigidTransform, centre: FloatArray, check: Callable[[], None]
) -> RigidTransform:
    """Return the best transform from points of the samples near a start."""
    pose = Poses(start.rotation[None], start.apply(centre)[None])
    found, _, _ = climb(
        samples, moving, pose, first_step_mm=1.0, tolerance_mm=0.01, iterations=40, normalised=True,
        minimum_overlap=0.5, check=check,
    )  # fmt: skip
    return RigidTransform.about_centre(found.rotation[0], found.centre[0] - centre, centre)


def _mean(a: RigidTransform, b: RigidTransform, centre: FloatArray) -> RigidTransform:
    """Return the transform half-way between two similar ones (polar factor of the mean rotation)."""
    u, _, vt = np.linalg.svd(a.rotation + b.rotation)
    return RigidTransform.about_centre(u @ vt, (a.apply(centre) + b.apply(centre)) / 2 - centre, centre)


def _surface_points(inside: InsideSkull) -> FloatArray:
    """Return points of the inner table, CT LPS mm."""
    from BrainFusionLib.intensity.directions import unit_directions

    offsets = unit_directions()[::50] * inside.radii_mm[::50, None]
    return np.asarray(inside.centre_lps_mm + offsets @ inside.grid.direction.T)


def _worst_mm(a: RigidTransform, b: RigidTransform, points: FloatArray) -> float:
    return float(np.linalg.norm(a.apply(points) - b.apply(points), axis=1).max())
