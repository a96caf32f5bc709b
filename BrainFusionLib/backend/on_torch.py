"""The primitives in torch: for graphics cards, and for comparison on the CPU."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F

from BrainFusionLib.backend.base import WHOLE, Pull
from BrainFusionLib.geometry import FloatArray
from BrainFusionLib.volume import VoxelArray

# Resampling is done in slabs of about this many voxels, so that the coordinates (12 bytes per voxel) take little memory
# compared with the images.
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
        return F.avg_pool3d(values[None, None].float(), tuple(factors_kji))[0, 0]

    def cells(self, values: torch.Tensor, table: npt.NDArray[Any], low: float, high: float) -> torch.Tensor:
        """See `base.Backend`."""
        scale = (len(table) - 1) / (high - low)
        return self.put(table)[values.clamp(low, high).sub_(low).mul_(scale).add_(0.5).int()]

    def taken(self, values: torch.Tensor, index: npt.NDArray[Any]) -> torch.Tensor:
        """See `base.Backend`."""
        return values.reshape(-1)[self.put(index.astype(np.int64))]

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
        poses, n = len(affines), points.shape[1]
        # grid_sample wants -1 at the first voxel's centre and 1 at the last one's; fold that into the affine. The size
        # is set on the device, number by number, so that nothing is copied there.
        to_unit = torch.stack([torch.full((), 2 / (s - 1), dtype=torch.float64, device=self._device)
                               for s in cells.shape[::-1]])  # fmt: skip
        linear = (to_unit[:, None] * affines[:, :, :3]).float()
        offset = (to_unit * affines[:, :, 3] - 1).float()
        position = torch.baddbmm(offset[:, None, :], points.T.expand(poses, n, 3), linear.transpose(1, 2))
        volume = cells.float().expand(poses, 1, *cells.shape)  # torch interpolates only floats
        grid = position.reshape(poses, 1, 1, n, 3)
        value = F.grid_sample(volume, grid, padding_mode="border", align_corners=True).reshape(poses, n)
        outside = position.abs().amax(dim=2) > 1
        below = value.long()
        part = (value - below).masked_fill_(outside, 1)
        below = below.add_(rows).masked_fill_(outside, total - 1)
        shares = (part * WHOLE + 0.5).int()
        # Not bincount, which copies the largest one to the host.
        counts = torch.zeros((poses, total + 1), dtype=torch.int32, device=self._device)
        counts.scatter_add_(1, below, WHOLE - shares).scatter_add_(1, below + 1, shares)
        if not slopes:
            return counts, None

        def pull(table: torch.Tensor) -> torch.Tensor:
            low = table.gather(1, below)
            pulled = low + part * (table.gather(1, below + 1) - low)
            slope = torch.ops.aten.grid_sampler_3d_backward(
                pulled.reshape(poses, 1, 1, 1, n), volume, grid, 0, 1, True, [False, True]
            )[1].reshape(poses, n, 3)
            moment = torch.bmm(points.expand(poses, 3, n), slope)
            return torch.cat([slope.sum(dim=1, keepdim=True), moment], dim=1).double() * to_unit

        return counts, pull

    def nearest(
        self, rows: torch.Tensor, size_ijk: Sequence[int], affines: VoxelArray, points: torch.Tensor
    ) -> torch.Tensor:
        """See `base.Backend`."""
        matrices = self.put(affines)
        place = torch.matmul(matrices[:, :, :3], points).add_(matrices[:, :, 3:] + 0.5).floor_()
        i, j, k = place.int().unbind(dim=1)
        ni, nj, nk = size_ijk
        inside = (i >= 0) & (i < ni) & (j >= 0) & (j < nj) & (k >= 0) & (k < nk)
        index = torch.where(inside, (k * nj + j) * ni + i, ni * nj * nk)
        found = rows.index_select(0, index.reshape(-1)).reshape(len(affines), points.shape[1], -1)
        return found.transpose(1, 2).contiguous()

    def spectra(self, maps: torch.Tensor) -> torch.Tensor:
        """See `base.Backend`."""
        found: torch.Tensor = torch.fft.rfftn(maps, dim=(-3, -2, -1))
        return found

    def resample(
        self, source: VoxelArray, source_from_target: FloatArray, shape_kji: Sequence[int], outside: float
    ) -> VoxelArray:
        """See `base.Backend`."""
        on_device = self.put(source)[None, None]
        result = np.empty(tuple(shape_kji), dtype=np.float32)
        slab = max(1, SLAB_VOXELS // (shape_kji[1] * shape_kji[2]))
        with torch.no_grad():
            for first in range(0, shape_kji[0], slab):
                planes = range(first, min(first + slab, shape_kji[0]))
                result[first : planes.stop] = self._slab(on_device, source_from_target, planes, shape_kji, outside)
        return result

    def _slab(
        self,
        source: torch.Tensor,
        source_from_target: FloatArray,
        planes: range,
        shape_kji: Sequence[int],
        outside: float,
    ) -> VoxelArray:
        """Interpolate some planes; source is (1, 1, K, J, I), the result (planes, rows, columns)."""
        device = self._device
        m = torch.from_numpy(source_from_target).to(device, torch.float64)
        k, j, i = (
            torch.arange(r.start, r.stop, device=device, dtype=m.dtype)
            for r in (planes, range(shape_kji[1]), range(shape_kji[2]))
        )
        size = source.shape[:1:-1]  # (I, J, K)
        coordinates = torch.empty((1, len(k), len(j), len(i), 3), device=device, dtype=torch.float32)
        inside = torch.ones(coordinates.shape[1:4], device=device, dtype=torch.bool)
        for axis in range(3):
            # From -1 to 1 between the outer borders of the outer voxels, as in `grid_sample`. Computed in float64:
            # float32 indices in a row of 512 voxels would be off by 3e-5 voxel.
            row = 2 * m[axis] / size[axis]
            lines = (row[2] * k + row[3] + 1 / size[axis] - 1)[:, None, None] + (row[1] * j)[:, None]
            position = lines + row[0] * i
            coordinates[0, ..., axis] = position
            inside &= position.abs_() <= 1 + 1e-12
        values = F.grid_sample(source, coordinates, mode="bilinear", padding_mode="border", align_corners=False)[0, 0]
        pulled: VoxelArray = torch.where(inside, values, outside).cpu().numpy()
        return pulled
