"""Directions on the sphere, laid out on the faces of a cube, so that voxels look theirs up without a search."""

from __future__ import annotations

from functools import lru_cache

import numpy as np
import numpy.typing as npt

from BrainFusionLib.geometry import FloatArray

# Texels along an edge of the cube: 2.25 degrees, 3 mm at the inner table.
TEXELS = 40
IndexArray = npt.NDArray[np.intp]


@lru_cache(maxsize=1)
def unit_directions() -> FloatArray:
    """Return the directions of the texels, (6 * TEXELS ** 2, 3): faces +x, -x, +y, -y, +z, -z, equal angles apart."""
    angle = np.tan((np.arange(TEXELS) + 0.5) / TEXELS * np.pi / 2 - np.pi / 4)
    u, v = (a.ravel() for a in np.meshgrid(angle, angle, indexing="ij"))
    faces = []
    for axis in range(3):
        for sign in (1.0, -1.0):
            face = np.empty((u.size, 3))
            face[:, axis], face[:, (axis + 1) % 3], face[:, (axis + 2) % 3] = sign, u, v
            faces.append(face)
    found = np.concatenate(faces)
    found /= np.linalg.norm(found, axis=1, keepdims=True)
    found.setflags(write=False)
    return found


def texel_of(offsets: npt.NDArray[np.float32]) -> IndexArray:
    """Return the texel of each offset from the centre, (3, n) to (n,)."""
    x, y, z = offsets
    size = np.abs(offsets)
    longest = np.maximum(size.max(axis=0), np.float32(1e-6))
    along_x, along_y = (size[0] >= size[1]) & (size[0] >= size[2]), size[1] >= size[2]
    along, u, v = (
        np.where(along_x, first, np.where(along_y, second, third))
        for first, second, third in ((x, y, z), (y, z, x), (z, x, y))
    )
    scale = np.float32(TEXELS * 2 / np.pi)
    i, j = (
        np.minimum(((np.arctan(t / longest) + np.float32(np.pi / 4)) * scale).astype(np.intp), TEXELS - 1)
        for t in (u, v)
    )
    face = np.where(along_x, 0, np.where(along_y, 2, 4)) + (along < 0)
    texel: IndexArray = (face * TEXELS + i) * TEXELS + j
    return texel


@lru_cache(maxsize=1)
def solid_angles() -> FloatArray:
    """Return the solid angle of each texel, steradian; together 4 pi."""
    angle = (np.arange(TEXELS) + 0.5) / TEXELS * np.pi / 2 - np.pi / 4
    u, v = (a.ravel() for a in np.meshgrid(np.tan(angle), np.tan(angle), indexing="ij"))
    one = (1 + u**2) * (1 + v**2) / (1 + u**2 + v**2) ** 1.5
    found: FloatArray = np.tile(one, 6)
    found *= 4 * np.pi / found.sum()
    return found


@lru_cache(maxsize=4)
def around(angle_deg: float, count: int = 8) -> IndexArray:
    """Return the texels on a circle around each texel, (n, count)."""
    d = unit_directions()
    across = np.cross(d, np.roll(np.eye(3), 1, axis=0)[np.abs(d).argmax(axis=1)])
    across /= np.linalg.norm(across, axis=1, keepdims=True)
    beside = np.cross(d, across)
    turns = np.arange(count) * 2 * np.pi / count
    tilt = np.deg2rad(angle_deg)
    found = [
        texel_of((np.cos(tilt) * d + np.sin(tilt) * (np.cos(t) * across + np.sin(t) * beside)).astype(np.float32).T)
        for t in turns
    ]
    circle: IndexArray = np.stack(found, axis=1)
    return circle


@lru_cache(maxsize=2)
def smooth_basis(bumps: int, width_deg: float) -> tuple[FloatArray, FloatArray]:
    """Return functions on the sphere to fit a smooth surface with, (n, 9 + bumps), and the penalty of each.

    Polynomials of second degree (a displaced ellipsoid), which cost nothing, and bumps of the given width, evenly
    spread.
    """
    d = unit_directions()
    x, y, z = d.T
    polynomials = [np.ones_like(x), x, y, z, x * x - z * z, y * y - z * z, x * y, y * z, z * x]
    turn = np.arange(bumps)
    height = 1 - (2 * turn + 1) / bumps
    around = turn * np.pi * (3 - np.sqrt(5))
    ring = np.sqrt(1 - height**2)
    middles = np.stack([ring * np.cos(around), ring * np.sin(around), height], axis=1)
    bump = np.exp((d @ middles.T - 1) / np.deg2rad(width_deg) ** 2)
    basis: FloatArray = np.concatenate([np.stack(polynomials, axis=1), bump], axis=1)
    return basis, np.concatenate([np.full(9, 1e-6), np.ones(bumps)])
