"""The primitives for the CPU: loops in C, the rest in numpy."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from BrainFusionLib.backend.base import Pull
from BrainFusionLib.backend.plain import Anything, Plain
from BrainFusionLib.geometry import FloatArray
from BrainFusionLib.volume import VoxelArray


class Compiled(Plain):
    """The primitives in C; see `base.Backend`."""

    def __init__(self, library: Any) -> None:
        self._native = library

    def pool(self, values: Anything, factors_kji: Sequence[int]) -> VoxelArray:
        """See `base.Backend`."""
        values = np.ascontiguousarray(values, dtype=np.float32)
        _, tall, wide = values.shape
        target = [n // f for n, f in zip(values.shape, factors_kji, strict=True)]
        pooled: VoxelArray = np.empty(target, dtype=np.float32)
        line = np.empty(target[2], dtype=np.float32)
        factors, size = _whole(factors_kji), _whole(target)
        self._native.brainfusion_pool(
            values.ctypes.data, wide, tall, factors.ctypes.data, size.ctypes.data, line.ctypes.data, pooled.ctypes.data
        )
        return pooled

    def cells(self, values: Anything, table: Anything, low: float, high: float) -> Anything:
        """See `base.Backend`."""
        values, table = np.ascontiguousarray(values, dtype=np.float32), np.ascontiguousarray(table)
        found = np.empty(values.shape, dtype=np.uint8)
        self._native.brainfusion_cells(
            values.ctypes.data, values.size, table.ctypes.data, len(table) - 1, low, high, found.ctypes.data
        )
        return found

    def bins(self, values: Anything, edges: VoxelArray) -> Anything:
        """See `base.Backend`."""
        values, edges = (np.ascontiguousarray(array, dtype=np.float32) for array in (values, edges))
        found = np.empty(values.shape, dtype=np.int32)
        self._native.brainfusion_bins(values.ctypes.data, values.size, edges.ctypes.data, len(edges), found.ctypes.data)
        return found

    def count(
        self, points: Anything, rows: Anything, cells: Anything, affines: Anything, total: int, *, slopes: bool
    ) -> tuple[Anything, Pull | None]:
        """See `base.Backend`."""
        if min(cells.shape) < 2:  # the loop reads two voxels along each axis
            return super().count(points, rows, cells, affines, total, slopes=slopes)
        affines = np.ascontiguousarray(affines)
        poses, n = len(affines), points.shape[1]
        counts = np.empty((poses, total + 1), dtype=np.int32)
        cell = np.empty((poses, n), dtype=np.float32)
        slope = np.empty((poses, 3, n), dtype=np.float32) if slopes else None
        size = _whole(cells.shape[::-1])
        self._native.brainfusion_look_up(
            points.ctypes.data, rows.ctypes.data, n, affines.ctypes.data, poses, cells.ctypes.data, size.ctypes.data,
            total, counts.ctypes.data, cell.ctypes.data, None if slope is None else slope.ctypes.data,
        )  # fmt: skip
        if slope is None:
            return counts, None
        known = slope

        def pull(table: Anything) -> Anything:
            sums = np.empty((poses, 4, 3))
            self._native.brainfusion_pull(
                points.ctypes.data, n, poses, cell.ctypes.data, known.ctypes.data, table.ctypes.data, total,
                sums.ctypes.data,
            )  # fmt: skip
            return sums

        return counts, pull

    def nearest(self, rows: Anything, size_ijk: Sequence[int], affines: VoxelArray, points: Anything) -> Anything:
        """See `base.Backend`."""
        affines = np.ascontiguousarray(affines)
        channels, n = rows.shape[1], points.shape[1]
        found = np.empty((len(affines), channels, n), dtype=np.float32)
        size = _whole(size_ijk)
        self._native.brainfusion_nearest(
            rows.ctypes.data, channels, size.ctypes.data, affines.ctypes.data, len(affines), points.ctypes.data, n,
            found.ctypes.data,
        )  # fmt: skip
        return found

    def resample(
        self, source: VoxelArray, source_from_target: FloatArray, shape_kji: Sequence[int], outside: float
    ) -> VoxelArray:
        """See `base.Backend`."""
        result: VoxelArray = np.empty(tuple(shape_kji), dtype=np.float32)
        matrix = np.ascontiguousarray(source_from_target[:3], dtype=np.float64)
        sizes = [_whole(shape[::-1]) for shape in (source.shape, shape_kji)]
        self._native.brainfusion_resample(
            source.ctypes.data, sizes[0].ctypes.data, matrix.ctypes.data, sizes[1].ctypes.data, outside,
            result.ctypes.data,
        )  # fmt: skip
        return result

    def sample(self, source: VoxelArray, ijk_from_points: FloatArray, points: FloatArray) -> VoxelArray:
        """See `base.Backend`."""
        points = np.ascontiguousarray(points, dtype=np.float64)
        values: VoxelArray = np.empty(len(points), dtype=np.float32)
        matrix, size = np.ascontiguousarray(ijk_from_points[:3], dtype=np.float64), _whole(source.shape[::-1])
        self._native.brainfusion_sample(
            source.ctypes.data, size.ctypes.data, matrix.ctypes.data, points.ctypes.data, len(points),
            values.ctypes.data,
        )  # fmt: skip
        return values


def _whole(numbers: Sequence[Any]) -> npt.NDArray[np.int64]:
    return np.array(tuple(numbers), dtype=np.int64)
