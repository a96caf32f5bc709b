"""Rays from a point in a head, and what a volume's voxels are along them."""

from __future__ import annotations

import itertools
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from BrainFusionLib.geometry import FloatArray
from BrainFusionLib.intensity.directions import unit_directions
from BrainFusionLib.intensity.pieces import pieces
from BrainFusionLib.volume import BoolArray, VoxelArray

# The rays: first radius, step, last radius.
FIRST_MM, STEP_MM, FAR_MM = 6.0, 1.5, 130.0
# Air as it is measured: within so many HU of -1000, and never exactly the same. Of the border of what was filled in, at
# least this share lies in it; the air of a phantom without noise borders on skin.
AIR_HU, AIR_NOISE_HU, LEAST_IN_AIR = -1000.0, 60.0, 0.2
SAME_HU = 0.01


@dataclass(frozen=True)
class Rays:
    """Values of a volume along rays.

    Attributes
    ----------
    radii_mm
        Distance of the samples from the centre, (samples,).
    values, in_field
        The nearest voxel's value, and whether the sample lies in the volume, (directions, samples).
    voxels
        Index of that voxel in the flat volume.
    """

    radii_mm: VoxelArray
    values: VoxelArray
    in_field: BoolArray
    voxels: npt.NDArray[np.int32]


def rays_from(
    hu: VoxelArray, spacing_kji_mm: FloatArray, centre_kji: FloatArray, chosen: npt.NDArray[np.intp] | None = None
) -> Rays:
    """Sample the nearest voxels along rays from a centre, in all directions or those chosen."""
    directions = unit_directions() if chosen is None else unit_directions()[chosen]
    radii = np.arange(FIRST_MM, FAR_MM, STEP_MM, dtype=np.float32)
    flat = np.zeros((len(directions), len(radii)), np.int32)
    in_field = np.ones(flat.shape, bool)
    strides = hu.shape[1] * hu.shape[2], hu.shape[2], 1
    for axis in range(3):
        slope = (directions[:, 2 - axis] / spacing_kji_mm[axis]).astype(np.float32)
        at = slope[:, None] * radii + np.float32(centre_kji[axis] + 0.5)
        in_field &= (at >= 0) & (at < hu.shape[axis])
        flat += np.clip(at, 0, hu.shape[axis] - 1).astype(np.int32) * np.int32(strides[axis])
    return Rays(radii, hu.ravel().take(flat), in_field, flat)


def first_crossing(rays: Rays, bone_hu: float, beyond_mm: float) -> FloatArray:
    """Return the radius of the first bone on each ray beyond a radius, mm, NaN without any."""
    hit = (rays.values > bone_hu) & rays.in_field & (rays.radii_mm > beyond_mm)
    radius: FloatArray = np.where(hit.any(axis=1), rays.radii_mm[hit.argmax(axis=1)] - STEP_MM / 2, np.nan)
    return radius


def filled_in(hu: VoxelArray) -> BoolArray | None:
    """Return the corners of a volume that hold one value, with their rims, as where a tilted stack was regridded.

    ``None`` if there are none, or if all the air around the head is of one value.
    """
    found: BoolArray = np.zeros(hu.shape, bool)
    for corner in itertools.product((0, -1), repeat=3):
        inwards = tuple(slice(None, 3) if at == 0 else slice(-3, None) for at in corner)
        if found[corner] or np.ptp(hu[inwards]) > SAME_HU:
            continue
        labels, _ = pieces(np.abs(hu - hu[corner]) <= SAME_HU)
        found |= np.asarray(labels == labels[corner])
    rim, border, in_air = found.copy(), 0, 0
    for axis in range(3):
        low, high = (tuple(cut if a == axis else slice(None) for a in range(3)) for cut in (slice(-1), slice(1, None)))
        for here, there in ((low, high), (high, low)):
            edge = found[here] & ~found[there]
            rim[there] |= edge
            border += int(np.count_nonzero(edge))
            in_air += int(np.count_nonzero(np.abs(hu[there][edge] - np.float32(AIR_HU)) < AIR_NOISE_HU))
    return rim if in_air > LEAST_IN_AIR * border else None


def in_view(
    rays: Rays,
    hu: VoxelArray,
    spacing: tuple[float, float, float],
    centre_kji: FloatArray,
    filled: BoolArray | None = None,
) -> BoolArray:
    """Return which samples lie in the field of view: a box, or a cylinder with a constant value around it.

    Parameters
    ----------
    rays
        In all directions, from the centre.
    hu
        The volume that they were sampled from.
    spacing
        Of its voxels along i, j and k, mm.
    filled
        What was filled in around a field of another shape (`filled_in`).
    """
    found, directions = rays.in_field.copy(), unit_directions()
    for axis in range(3):
        # Slices of one value were filled in.
        others = tuple({0, 1, 2} - {axis})
        varied = np.flatnonzero(hu.max(axis=others) > hu.min(axis=others))
        if len(varied):
            at = centre_kji[axis] + directions[:, 2 - axis, None] * rays.radii_mm / spacing[2 - axis]
            found &= (at > varied[0] - 0.5) & (at < varied[-1] + 0.5)
    disc = _disc_of((hu > hu.min() + 0.5).any(axis=0))
    if disc is None:
        return found if filled is None else found & ~filled.ravel().take(rays.voxels)
    (row, column), radius = disc
    _, y, x = (float(v) for v in centre_kji)
    off_x = (x - column) * spacing[0] + directions[:, :1] * rays.radii_mm
    off_y = (y - row) * spacing[1] + directions[:, 1:2] * rays.radii_mm
    margin = 2 * max(spacing[:2])
    found &= off_x**2 + off_y**2 < (radius * spacing[0] - margin) ** 2
    return found


def _disc_of(valid: BoolArray) -> tuple[tuple[float, float], float] | None:
    """Return the middle (row, column) and radius of a mask that is a disc; ``None`` if it is another shape."""
    rows, columns = np.flatnonzero(valid.any(axis=1)), np.flatnonzero(valid.any(axis=0))
    if not len(rows) or valid.all():
        return None
    top, bottom, left, right = int(rows[0]), int(rows[-1]), int(columns[0]), int(columns[-1])
    middle, radius = ((top + bottom) / 2, (left + right) / 2), max(bottom - top + 1, right - left + 1) / 2
    j, i = np.ogrid[: valid.shape[0], : valid.shape[1]]
    disc = (j - middle[0]) ** 2 + (i - middle[1]) ** 2 <= radius**2
    same = int(np.count_nonzero(valid & disc)) / int(np.count_nonzero(valid | disc))
    return (middle, radius) if same > 0.97 else None
