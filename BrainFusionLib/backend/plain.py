"""The primitives in numpy: for the CPU, where there is no compiled library."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import numpy.typing as npt

from BrainFusionLib.backend.base import WHOLE, Pull
from BrainFusionLib.geometry import FloatArray
from BrainFusionLib.volume import VoxelArray

Anything = npt.NDArray[Any]
# Voxels or samples worked on at once, so that their coordinates stay in the cache.
AT_ONCE = 30_000


class Plain:
    """The primitives in numpy; see `base.Backend`."""

    name = "cpu"
    xp = np
    # As many as fit into the cache: sixteen at once take 1.7 times as long.
    rotations_at_once = 4

    @contextmanager
    def alone(self) -> Iterator[None]:
        """See `base.Backend`; numpy uses one thread for the small products of a registration."""
        yield

    def put(self, array: Anything) -> Anything:
        """See `base.Backend`."""
        return np.ascontiguousarray(array)

    def host(self, array: Anything) -> Anything:
        """See `base.Backend`."""
        return array

    def dense(self, array: Anything) -> Anything:
        """See `base.Backend`."""
        return np.ascontiguousarray(array)

    def pool(self, values: Anything, factors_kji: Sequence[int]) -> VoxelArray:
        """See `base.Backend`."""
        whole = [n // f * f for n, f in zip(values.shape, factors_kji, strict=True)]
        sums: VoxelArray = values[tuple(slice(n) for n in whole)].astype(np.float32, copy=False)
        for axis, factor in enumerate(factors_kji):
            if factor > 1:
                parts = np.moveaxis(sums, axis, 0)
                total = parts[::factor].copy()
                for first in range(1, factor):
                    total += parts[first::factor]
                sums = np.moveaxis(total, 0, axis)
        return np.ascontiguousarray(sums * np.float32(1 / np.prod(factors_kji)))

    def cells(self, values: Anything, table: Anything, low: float, high: float) -> Anything:
        """See `base.Backend`."""
        steps = np.clip(values, np.float32(low), np.float32(high))
        steps -= np.float32(low)
        steps *= np.float32((len(table) - 1) / (high - low))
        steps += np.float32(0.5)
        return table.take(steps.astype(np.uint16))

    def taken(self, values: Anything, index: Anything) -> Anything:
        """See `base.Backend`."""
        return values.reshape(-1).take(index)

    def bins(self, values: Anything, edges: VoxelArray) -> Anything:
        """See `base.Backend`."""
        return np.searchsorted(edges, values.ravel()).astype(np.int32).reshape(values.shape)

    def count(
        self, points: Anything, rows: Anything, cells: Anything, affines: Anything, total: int, *, slopes: bool
    ) -> tuple[Anything, Pull | None]:
        """See `base.Backend`."""
        poses, n = len(affines), points.shape[1]
        counts = np.zeros((poses, total + 1), np.int32)
        at, part = np.empty((poses, n), np.int32), np.empty((poses, n), np.float32)
        slope = np.empty((poses, 3, n), np.float32) if slopes else None
        for pose in range(poses):
            matrix = affines[pose].astype(np.float32)
            for first in range(0, n, AT_ONCE):
                some = slice(first, min(first + AT_ONCE, n))
                place = matrix[:, :3] @ points[:, some]
                place += matrix[:, 3:]
                value, inside, bent = _trilinear(cells, place, slopes)
                below = value.astype(np.int32)
                at[pose, some] = np.where(inside, rows[some] + below, total - 1)
                part[pose, some] = np.where(inside, value - below, 1)
                if slope is not None:
                    slope[pose, :, some] = bent
            shares = np.rint(part[pose] * WHOLE)
            counts[pose, :total] = np.bincount(at[pose], WHOLE - shares, minlength=total)
            counts[pose, 1:] += np.bincount(at[pose], shares, minlength=total).astype(np.int32)
        if slope is None:
            return counts, None
        known = slope

        def pull(table: Anything) -> Anything:
            sums = np.empty((poses, 4, 3))
            for pose in range(poses):
                low = table[pose].take(at[pose])
                pulled = (known[pose] * (low + part[pose] * (table[pose].take(at[pose] + 1) - low))).T
                sums[pose, 0] = pulled.sum(axis=0, dtype=np.float64)
                sums[pose, 1:] = points @ pulled
            return sums

        return counts, pull

    def nearest(self, rows: Anything, size_ijk: Sequence[int], affines: VoxelArray, points: Anything) -> Anything:
        """See `base.Backend`."""
        place = np.floor(affines[:, :, :3] @ points + affines[:, :, 3:] + np.float32(0.5))
        i, j, k = place[:, 0], place[:, 1], place[:, 2]
        ni, nj, nk = size_ijk
        inside = (i >= 0) & (i < ni) & (j >= 0) & (j < nj) & (k >= 0) & (k < nk)
        index = np.where(inside, (k * nj + j) * ni + i, ni * nj * nk).astype(np.intp)
        return np.ascontiguousarray(rows.take(index, axis=0).transpose(0, 2, 1))

    def spectra(self, maps: Anything) -> Anything:
        """See `base.Backend`."""
        return np.fft.rfftn(maps, axes=(-3, -2, -1)).astype(np.complex64, copy=False)

    def resample(
        self, source: VoxelArray, source_from_target: FloatArray, shape_kji: Sequence[int], outside: float
    ) -> VoxelArray:
        """See `base.Backend`."""
        result: VoxelArray = np.full(shape_kji, outside, dtype=np.float32)
        size = np.array(source.shape[::-1], dtype=np.float64)[:, None]
        rows = max(1, AT_ONCE // shape_kji[2])
        columns = np.arange(shape_kji[2], dtype=np.float64)
        for k in range(shape_kji[0]):
            for first in range(0, shape_kji[1], rows):
                lines = np.arange(first, min(first + rows, shape_kji[1]), dtype=np.float64)
                m = source_from_target[:3]
                start = m[:, 1:2] * lines + (m[:, 2:3] * k + m[:, 3:])
                place = (start[:, :, None] + (m[:, :1] * columns)[:, None]).reshape(3, -1)
                inside = ((place >= -0.5 - 1e-9) & (place <= size - 0.5 + 1e-9)).all(axis=0)
                if inside.any():
                    found = _trilinear(source, np.clip(place[:, inside], 0, size - 1), False)[0]
                    result[k, first : first + len(lines)].reshape(-1)[inside] = found
        return result

    def sample(self, source: VoxelArray, ijk_from_points: FloatArray, points: FloatArray) -> VoxelArray:
        """See `base.Backend`."""
        values: VoxelArray = np.empty(len(points), np.float32)
        for first in range(0, len(points), AT_ONCE):
            some = slice(first, first + AT_ONCE)
            place = ijk_from_points[:3, :3] @ points[some].T + ijk_from_points[:3, 3:]
            value, inside, _ = _trilinear(source, place, False)
            values[some] = np.where(inside, value, np.float32(np.nan))
        return values


def _trilinear(
    image: Anything, place: npt.NDArray[np.floating[Any]], slopes: bool
) -> tuple[VoxelArray, npt.NDArray[np.bool_], tuple[VoxelArray, VoxelArray, VoxelArray] | None]:
    """Return values at indices ijk (3, n), whether those are inside, and the slopes along i, j and k."""
    last = np.array(image.shape[::-1], dtype=place.dtype)[:, None] - 1
    inside: npt.NDArray[np.bool_] = np.all((place >= 0) & (place <= last), axis=0)
    place = np.where(inside, place, 0)
    # At the last voxel, interpolate from the one before it.
    low = np.minimum(place.astype(np.int32), np.maximum(last.astype(np.int32) - 1, 0))
    u, v, w = (place - low).astype(np.float32)
    nk, nj, ni = image.shape
    first = (low[2] * np.int64(nj) + low[1]) * ni + low[0]
    step = [stride if n > 1 else 0 for stride, n in ((1, ni), (ni, nj), (ni * nj, nk))]
    flat = image.reshape(-1)

    def corner(along_j: int, along_k: int) -> tuple[VoxelArray, VoxelArray]:
        start = first + (along_j * step[1] + along_k * step[2])
        near = flat.take(start).astype(np.float32, copy=False)
        rise = flat.take(start + step[0]).astype(np.float32, copy=False) - near
        return near + u * rise, rise

    (c0, d0), (c1, d1), (c2, d2), (c3, d3) = corner(0, 0), corner(1, 0), corner(0, 1), corner(1, 1)
    b0, b1 = c0 + v * (c1 - c0), c2 + v * (c3 - c2)
    value: VoxelArray = b0 + w * (b1 - b0)
    if not slopes:
        return value, inside, None
    e0, e1 = d0 + v * (d1 - d0), d2 + v * (d3 - d2)
    slope: tuple[VoxelArray, VoxelArray, VoxelArray]
    slope = (e0 + w * (e1 - e0), (c1 - c0) + w * ((c3 - c2) - (c1 - c0)), b1 - b0)
    return value, inside, slope
