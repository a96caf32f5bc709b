"""The primitives in torch: for graphics cards, and for comparison on the CPU."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

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

# Resampling is done in slabs of about this many voxels, whose indices and their parts take 150 bytes a voxel.
SLAB_VOXELS = 2_000_000


class OnTorch:
    """The primitives in torch on a device; see `base.Backend`."""

    xp = torch

    def __init__(self, device: str) -> None:
        self.name = device
        self._device = torch.device(device)
        # A CPU's cache holds few, a card needs many.
        self.rotations_at_once = 4 if self._device.type == "cpu" else 64

    @contextmanager
    def alone(self) -> Iterator[None]:
        """See `base.Backend`."""
        before = torch.get_num_threads()
        if self._device.type == "cpu":  # the tasks are so small that two threads double the CPU time
            torch.set_num_threads(1)
        try:
            # Not inference_mode: its tensors cannot be cached for the next registration.
            with torch.no_grad():
                yield
        finally:
            torch.set_num_threads(before)

    def put(self, array: npt.NDArray[Any]) -> torch.Tensor:
        """See `base.Backend`."""
        return torch.from_numpy(np.require(array, requirements=["C", "W"])).to(self._device)

    def host(self, array: torch.Tensor) -> npt.NDArray[Any]:
        """See `base.Backend`."""
        found: npt.NDArray[Any] = array.cpu().numpy()
        return found

    def dense(self, array: torch.Tensor) -> torch.Tensor:
        """See `base.Backend`."""
        return array.contiguous()

    def pool(self, values: torch.Tensor, factors_kji: Sequence[int]) -> torch.Tensor:
        """See `base.Backend`."""
        pooled: torch.Tensor = block_means(torch, values, factors_kji)
        return pooled

    def cells(self, values: torch.Tensor, table: npt.NDArray[Any], low: float, high: float) -> torch.Tensor:
        """See `base.Backend`."""
        return torch.take(self.put(table), steps(torch, values, len(table), low, high))

    def taken(self, values: torch.Tensor, index: npt.NDArray[Any]) -> torch.Tensor:
        """See `base.Backend`."""
        return torch.take(values, self.put(index.astype(np.int64)))

    def bins(self, values: torch.Tensor, edges: VoxelArray) -> torch.Tensor:
        """See `base.Backend`."""
        return torch.bucketize(values, self.put(edges.astype(np.float32)), out_int32=True)

    def count(
        self,
        points: torch.Tensor,
        rows: torch.Tensor,
        cells: torch.Tensor,
        affines: torch.Tensor,
        total: int,
        *,
        slopes: bool,
    ) -> tuple[torch.Tensor, Pull | None]:
        """See `base.Backend`."""
        value, inside, bent = trilinear(torch, cells, placed(affines.float(), points), slopes=slopes)
        below, part = cell_and_part(torch, value, rows, inside, total)
        share = shares(torch, part)
        # Not bincount, which copies the largest one to the host.
        counts = torch.zeros((len(affines), total + 1), dtype=torch.int32, device=self._device)
        counts.scatter_add_(1, below, WHOLE - share).scatter_add_(1, below + 1, share)
        if not slopes:
            return counts, None
        slope = torch.stack(bent, dim=1)

        def pull(table: torch.Tensor) -> torch.Tensor:
            low = table.gather(1, below)
            pulled = low + part * (table.gather(1, below + 1) - low)
            sums: torch.Tensor = moments(torch, points, slope * pulled.unsqueeze(1))
            return sums

        return counts, pull

    def nearest(
        self, rows: torch.Tensor, size_ijk: Sequence[int], affines: VoxelArray, points: torch.Tensor
    ) -> torch.Tensor:
        """See `base.Backend`."""
        index = nearest_rows(torch, size_ijk, self.put(affines), points)
        return torch.stack([torch.take(channel, index) for channel in rows.unbind(1)], dim=1)

    def spectra(self, maps: torch.Tensor) -> torch.Tensor:
        """See `base.Backend`."""
        found: torch.Tensor = torch.fft.rfftn(maps, dim=(-3, -2, -1))
        return found

    def resample(
        self, source: VoxelArray, source_from_target: FloatArray, shape_kji: Sequence[int], outside: float
    ) -> VoxelArray:
        """See `base.Backend`."""
        on_device = self.put(source)
        result: VoxelArray = np.empty(tuple(shape_kji), dtype=np.float32)
        # In double precision: float32 indices in a row of 512 voxels would be off by 3e-5 voxel.
        k, j, i = (torch.arange(n, dtype=torch.float64, device=self._device) for n in shape_kji)
        slab = max(1, SLAB_VOXELS // (shape_kji[1] * shape_kji[2]))
        with torch.no_grad():
            for first in range(0, shape_kji[0], slab):
                some = slice(first, first + slab)
                result[some] = self.host(resampled(torch, on_device, source_from_target, (k[some], j, i), outside))
        return result
