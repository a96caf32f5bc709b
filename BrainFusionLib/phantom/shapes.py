"""Implicit shapes for the phantom: functions of space that give (nearly) the distance to a surface, negative inside.

Everything is float32 and works on a block of points at a time; what is out of a block's reach is left out, which is
what makes a head of a hundred shapes quick to draw.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

Float32Array = npt.NDArray[np.float32]
Triple = tuple[float, float, float]
Node = tuple[float, float, float, float]

# Approximate distances of ellipsoids may fall short of the true ones: a box this much nearer than needed is still
# taken into account.
CAUTION = 0.7


class Points:
    """Points in mm as three float32 arrays of one shape, with the box that holds them."""

    def __init__(self, x: Float32Array, y: Float32Array, z: Float32Array) -> None:
        self.x, self.y, self.z = x, y, z
        self.low = tuple(float(a.min()) for a in (x, y, z))
        self.high = tuple(float(a.max()) for a in (x, y, z))

    def mirrored(self) -> Points:
        """Return the points folded onto the left half, for shapes that come in pairs."""
        return Points(np.abs(self.x), self.y, self.z)

    def gap(self, shape: Shape) -> float:
        """Return a lower bound of the distance between any of the points and a shape, mm."""
        # Spelt out: this runs some thirty times a block, and a loop over the axes cost a tenth of the whole drawing.
        (low_x, low_y, low_z), (high_x, high_y, high_z) = shape.box()
        x = max(low_x - self.high[0], self.low[0] - high_x, 0.0)
        y = max(low_y - self.high[1], self.low[1] - high_y, 0.0)
        z = max(low_z - self.high[2], self.low[2] - high_z, 0.0)
        return math.sqrt(x * x + y * y + z * z)


class Ellipsoid(NamedTuple):
    """An ellipsoid with axes along x, y and z."""

    centre: Triple
    radii: Triple

    def box(self) -> tuple[Triple, Triple]:
        """Return the lowest and highest corner."""
        (cx, cy, cz), (rx, ry, rz) = self
        return (cx - rx, cy - ry, cz - rz), (cx + rx, cy + ry, cz + rz)

    def distance(self, q: Points) -> Float32Array:
        """Return about the distance in mm: exact on the axes, and to first order near the surface."""
        level = np.full(q.x.shape, 1e-8, dtype=np.float32)
        slope = np.full(q.x.shape, 1e-12, dtype=np.float32)
        for along, centre, radius in zip((q.x, q.y, q.z), self.centre, self.radii, strict=True):
            square = along - centre
            square *= 1 / radius
            square *= square
            level += square
            square *= 1 / radius**2
            slope += square
        np.sqrt(level, out=level)
        np.sqrt(slope, out=slope)
        np.divide(level, slope, out=slope)
        level -= 1
        level *= slope
        return level


class Cone(NamedTuple):
    """A rod with round ends between two nodes of (x, y, z, radius)."""

    start: Node
    end: Node

    def box(self) -> tuple[Triple, Triple]:
        """Return the lowest and highest corner."""
        (ax, ay, az, ar), (bx, by, bz, br) = self
        low = (min(ax - ar, bx - br), min(ay - ar, by - br), min(az - ar, bz - br))
        return low, (max(ax + ar, bx + br), max(ay + ar, by + br), max(az + ar, bz + br))

    def distance(self, q: Points) -> Float32Array:
        """Return the distance in mm, as exact as a taper allows."""
        (ax, ay, az, radius), (bx, by, bz, end_radius) = self
        dx, dy, dz = bx - ax, by - ay, bz - az
        px, py, pz = q.x - ax, q.y - ay, q.z - az
        along = px * dx
        along += py * dy
        along += pz * dz
        along *= 1 / (dx * dx + dy * dy + dz * dz)
        np.maximum(along, 0, out=along)
        np.minimum(along, 1, out=along)
        for offset, step in ((px, dx), (py, dy), (pz, dz)):
            offset -= along * step
            offset *= offset
        px += py
        px += pz
        np.sqrt(px, out=px)
        along *= end_radius - radius
        px -= along
        px -= radius
        return px


Shape = Ellipsoid | Cone


def tube(*nodes: Node) -> tuple[Cone, ...]:
    """Return the cones of a bent tube through nodes of (x, y, z, radius)."""
    return tuple(Cone(a, b) for a, b in pairwise(nodes))


def nearest(shapes: Sequence[Shape], q: Points, reach_mm: float) -> Float32Array | None:
    """Return the distance to the nearest of those shapes that some point comes within `reach_mm` of; None for none."""
    result: Float32Array | None = None
    for shape in shapes:
        if CAUTION * q.gap(shape) <= reach_mm:
            distance = shape.distance(q)
            result = distance if result is None else np.minimum(result, distance, out=result)
    return result


def union(a: Float32Array, b: Float32Array, blend_mm: float) -> Float32Array:
    """Return the union of two shapes, with a fillet about `blend_mm` wide where they meet."""
    fillet = a - b
    np.abs(fillet, out=fillet)
    np.subtract(blend_mm, fillet, out=fillet)
    np.maximum(fillet, 0, out=fillet)
    fillet *= fillet
    fillet *= 0.25 / blend_mm
    np.subtract(np.minimum(a, b), fillet, out=fillet)
    return fillet


def common(a: Float32Array, b: Float32Array, blend_mm: float) -> Float32Array:
    """Return what two shapes have in common, with a rounded edge."""
    result = union(-a, -b, blend_mm)
    np.negative(result, out=result)
    return result


def hypotenuse(a: Float32Array, b: Float32Array) -> Float32Array:
    """Return ``sqrt(a**2 + b**2)``: five times as fast as `numpy.hypot`, which guards against overflow."""
    squares = a * a
    squares += b * b
    np.sqrt(squares, out=squares)
    return squares


def joined(a: Float32Array, shapes: Sequence[Shape], q: Points, blend_mm: float) -> Float32Array:
    """Return the union of `a` with shapes; the same array when they are too far to change it."""
    other = nearest(shapes, q, float(a.max()) + blend_mm)
    return a if other is None else union(a, other, blend_mm)


def without(a: Float32Array, shapes: Sequence[Shape], q: Points, blend_mm: float) -> Float32Array:
    """Return `a` less some shapes; the same array when they are too far to change it."""
    other = nearest(shapes, q, blend_mm - float(a.min()))
    return a if other is None else common(a, -other, blend_mm)
