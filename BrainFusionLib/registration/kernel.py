"""The inner loops in C: they take an eighth of torch's time, and are optional.

See `BrainFusionLib.native`; without the library torch does the same work.
"""

from __future__ import annotations

import ctypes
from functools import lru_cache
from typing import Any

import torch

from BrainFusionLib.native import load_compiled


class Kernel:
    """The two functions of ``kernel.c``, for tensors on the CPU."""

    def __init__(self, library: Any) -> None:
        self._look_up = library.brainfusion_look_up
        self._pull = library.brainfusion_pull
        pointer: Any = ctypes.c_void_p
        whole: Any = ctypes.c_int64
        self._look_up.argtypes = [pointer, pointer, whole, pointer, whole, pointer, pointer, whole] + [pointer] * 3
        self._pull.argtypes = [pointer, whole, whole, pointer, pointer, pointer, whole, pointer]
        self._look_up.restype = self._pull.restype = None

    def look_up(
        self,
        points: torch.Tensor,
        rows: torch.Tensor,
        affines: torch.Tensor,
        volume: torch.Tensor,
        cells: int,
        slopes: bool,
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor | None]:
        """Return, for N poses, the counts (N, cells + 1) int32 and each sample's cell (N, n) int32 and slope (N, 3, n).

        Parameters
        ----------
        points
            (3, n) float32.
        rows
            (n,) int32, first cell of each sample's row.
        affines
            (N, 3, 4) float64: voxel index ijk of the volume from a point.
        volume
            (K, J, I) uint8, in cells.
        cells
            Number of cells of the joint histogram; one more counts the samples outside the volume.
        """
        poses, n = len(affines), points.shape[1]
        counts = torch.empty(poses, cells + 1, dtype=torch.int32)
        cell = torch.empty(poses, n, dtype=torch.int32)
        slope = torch.empty(poses, 3, n) if slopes else None
        size = torch.tensor(volume.shape[::-1], dtype=torch.int64)
        self._look_up(
            points.data_ptr(), rows.data_ptr(), n, affines.data_ptr(), poses, volume.data_ptr(), size.data_ptr(), cells,
            counts.data_ptr(), cell.data_ptr(), None if slope is None else slope.data_ptr(),
        )  # fmt: skip
        return counts, cell, slope

    def pull(self, points: torch.Tensor, cell: torch.Tensor, slope: torch.Tensor, table: torch.Tensor) -> torch.Tensor:
        """Return the sums of t g, x t g, y t g and z t g, (N, 4, 3) float64; `table` is (N, cells + 1) float32."""
        poses, n = cell.shape
        out = torch.empty(poses, 4, 3, dtype=torch.float64)
        self._pull(
            points.data_ptr(), n, poses, cell.data_ptr(), slope.data_ptr(), table.data_ptr(), table.shape[1] - 1,
            out.data_ptr(),
        )  # fmt: skip
        return out


@lru_cache(maxsize=1)
def kernel() -> Kernel | None:
    """Return the compiled loops; ``None`` where they are not available."""
    library = load_compiled(("brainfusion_look_up", "brainfusion_pull"))
    return None if library is None else Kernel(library)
