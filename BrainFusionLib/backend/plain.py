"""The primitives in numpy: for the CPU, where there is no compiled library."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import numpy.typing as npt

from BrainFusionLib.backend.base import WHOLE, Pull
from BrainFusionLib.backend.formulas import (
    block_means,
    cell_and_part,
    moments,
    nearest_rows,
    placed,
    resampled,
    shares,
    steps,
    trilinear,
)
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
        pooled: VoxelArray = block_means(np, values, factors_kji)
        return pooled

    def cells(self, values: Anything, table: Anything, low: float, high: float) -> Anything:
        """See `base.Backend`."""
        found: Anything = np.take(table, steps(np, values, len(table), low, high))
        return found

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
                value, inside, bent = trilinear(np, cells, placed(matrix, points[:, some]), slopes=slopes)
                at[pose, some], part[pose, some] = cell_and_part(np, value, rows[some], inside, total)
                if slope is not None:
                    slope[pose, :, some] = bent
            share = shares(np, part[pose])
            counts[pose, :total] = np.bincount(at[pose], WHOLE - share, minlength=total)
            counts[pose, 1:] += np.bincount(at[pose], share, minlength=total).astype(np.int32)
        if slope is None:
            return counts, None
        known = slope

        def pull(table: Anything) -> Anything:
            sums = np.empty((poses, 4, 3))
            for pose in range(poses):
                low = table[pose].take(at[pose])
                pulled = known[pose] * (low + part[pose] * (table[pose].take(at[pose] + 1) - low))
                sums[pose] = moments(np, points, pulled)
            return sums

        return counts, pull

    def nearest(self, rows: Anything, size_ijk: Sequence[int], affines: VoxelArray, points: Anything) -> Anything:
        """See `base.Backend`."""
        return np.ascontiguousarray(rows.take(nearest_rows(np, size_ijk, affines, points), axis=0).transpose(0, 2, 1))

    def spectra(self, maps: Anything) -> Anything:
        """See `base.Backend`."""
        return np.fft.rfftn(maps, axes=(-3, -2, -1)).astype(np.complex64, copy=False)

    def resample(
        self, source: VoxelArray, source_from_target: FloatArray, shape_kji: Sequence[int], outside: float
    ) -> VoxelArray:
        """See `base.Backend`."""
        result: VoxelArray = np.empty(tuple(shape_kji), dtype=np.float32)
        planes, lines, columns = (np.arange(n, dtype=np.float64) for n in shape_kji)
        rows = max(1, AT_ONCE // shape_kji[2])
        for k in range(shape_kji[0]):
            for first in range(0, shape_kji[1], rows):
                axes = planes[k : k + 1], lines[first : first + rows], columns
                result[k, first : first + rows] = resampled(np, source, source_from_target, axes, outside)[0]
        return result

    def sample(self, source: VoxelArray, ijk_from_points: FloatArray, points: FloatArray) -> VoxelArray:
        """See `base.Backend`."""
        values: VoxelArray = np.empty(len(points), np.float32)
        for first in range(0, len(points), AT_ONCE):
            some = slice(first, first + AT_ONCE)
            place = ijk_from_points[:3, :3] @ points[some].T + ijk_from_points[:3, 3:]
            value, inside, _ = trilinear(np, source, place, slopes=False)
            values[some] = np.where(inside, value, np.float32(np.nan))
        return values
