"""What numpy and torch compute in the same words, and with the same rounding as the loops in C.

Sums are written out, because a matrix product adds in an order of its own. So all backends count each sample in the
same cell of the histogram, and registrations by them take the same path.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from BrainFusionLib.backend.base import WHOLE, Array
from BrainFusionLib.geometry import FloatArray


def block_means(xp: Any, values: Array, factors_kji: Sequence[int]) -> Array:
    """Return `base.Backend.pool`."""
    fk, fj, fi = factors_kji
    nk, nj, ni = (n // f * f for n, f in zip(values.shape, factors_kji, strict=True))
    values = values[:nk, :nj, :ni]
    total = xp.zeros_like(values[::fk, ::fj, ::fi], dtype=xp.float32)
    for dk in range(fk):
        for dj in range(fj):
            lines = values[dk::fk, dj::fj]
            if fi == 2:
                total += lines[:, :, ::2] + lines[:, :, 1::2]
                continue
            for di in range(fi):
                total += lines[:, :, di::fi]
    return total * float(np.float32(1) / np.float32(fk * fj * fi))


def steps(xp: Any, values: Array, entries: int, low: float, high: float) -> Array:
    """Return the nearest of so many even steps from `low` to `high`, int64."""
    first, last = np.float32(low), np.float32(high)
    scale = float(np.float32(entries - 1) / (last - first)) if last > first else 0.0
    return xp.asarray((xp.clip(values, float(first), float(last)) - float(first)) * scale + 0.5, dtype=xp.int64)


def placed(matrix: Array, points: Array) -> list[Array]:
    """Return indices i, j and k, (…, n) each, of points (3, n) by affines (…, 3, 4); float32."""
    x, y, z = points
    rows = (matrix[..., axis, :, None] for axis in range(3))
    return [r[..., 0, :] * x + r[..., 1, :] * y + r[..., 2, :] * z + r[..., 3, :] for r in rows]


def nearest_rows(xp: Any, size_ijk: Sequence[int], affines: Array, points: Array) -> Array:
    """Return the flat index of the voxel nearest to each point, (B, n) int64; outside, the number of voxels."""
    ni, nj, nk = size_ijk
    i, j, k = (xp.floor(each + 0.5) for each in placed(affines, points))
    inside = (i >= 0) & (i < ni) & (j >= 0) & (j < nj) & (k >= 0) & (k < nk)
    i, j, k = (xp.asarray(xp.where(inside, each, xp.zeros_like(each)), dtype=xp.int64) for each in (i, j, k))
    return xp.where(inside, (k * nj + j) * ni + i, ni * nj * nk)


def trilinear(xp: Any, image: Array, place: Array, *, slopes: bool) -> tuple[Array, Array, list[Array]]:
    """Return values at indices i, j and k, float32, whether those are inside, and the slopes along each if wanted."""
    size = image.shape[::-1]
    inside = (place[0] >= 0) & (place[1] >= 0) & (place[2] >= 0)
    for each, n in zip(place, size, strict=True):
        inside = inside & (each <= n - 1)
    low, part = [], []
    for each, n in zip(place, size, strict=True):
        each = xp.where(inside, each, xp.zeros_like(each))
        # At the last voxel, interpolate from the one before it.
        low.append(xp.clip(xp.asarray(each, dtype=xp.int64), None, max(n - 2, 0)))
        part.append(xp.asarray(each - low[-1], dtype=xp.float32))
    u, v, w = part
    first = (low[2] * size[1] + low[1]) * size[0] + low[0]
    along_i, along_j, along_k = (
        stride if n > 1 else 0 for stride, n in zip((1, size[0], size[0] * size[1]), size, strict=True)
    )

    def edge(start: Array) -> tuple[Array, Array]:
        near = xp.asarray(xp.take(image, start), dtype=xp.float32)
        rise = xp.asarray(xp.take(image, start + along_i), dtype=xp.float32) - near
        return near + u * rise, rise

    (c0, d0), (c1, d1) = edge(first), edge(first + along_j)
    (c2, d2), (c3, d3) = edge(first + along_k), edge(first + (along_j + along_k))
    b0, b1 = c0 + v * (c1 - c0), c2 + v * (c3 - c2)
    value = b0 + w * (b1 - b0)
    if not slopes:
        return value, inside, []
    e0, e1 = d0 + v * (d1 - d0), d2 + v * (d3 - d2)
    return value, inside, [e0 + w * (e1 - e0), (c1 - c0) + w * ((c3 - c2) - (c1 - c0)), b1 - b0]


def resampled(
    xp: Any, source: Array, source_from_target: FloatArray, axes_kji: Sequence[Array], outside: float
) -> Array:
    """Return `base.Backend.resample` for some indices k, j and i of the target, float64."""
    k, j, i = axes_kji[0][:, None, None], axes_kji[1][:, None], axes_kji[2]
    place, inside = [], None
    for (di, dj, dk, start), n in zip(source_from_target[:3].tolist(), source.shape[::-1], strict=True):
        each = (dj * j + dk * k + start) + di * i
        within = (each >= -0.5 - 1e-9) & (each <= n - 0.5 + 1e-9)
        inside = within if inside is None else inside & within
        place.append(xp.clip(each, 0, n - 1))
    value, _, _ = trilinear(xp, source, place, slopes=False)
    return xp.where(inside, value, xp.full_like(value, outside))


def cell_and_part(xp: Any, value: Array, rows: Array, inside: Array, total: int) -> tuple[Array, Array]:
    """Return the cell below each sample's place in the histogram, int64, and its distance from there in cells, float32.

    Outside, that is the cell before the last one, at a distance of 1.
    """
    cell = xp.asarray(rows, dtype=xp.float32) + value
    cell = xp.where(inside, cell, xp.full_like(cell, total))
    below = xp.clip(xp.asarray(cell, dtype=xp.int64), None, total - 1)
    return below, cell - xp.asarray(below, dtype=xp.float32)


def shares(xp: Any, part: Array) -> Array:
    """Return how much of each sample the cell above it gets, int32."""
    return xp.asarray(part * WHOLE + 0.5, dtype=xp.int32)


def moments(xp: Any, points: Array, pulled: Array) -> Array:
    """Return the sums of g, x g, y g and z g, (…, 4, 3), for g of (…, 3, n); float64."""
    points, pulled = (xp.asarray(each, dtype=xp.float64) for each in (points, pulled))
    return xp.concatenate([pulled.sum(axis=-1)[..., None, :], points @ pulled.swapaxes(-1, -2)], -2)
