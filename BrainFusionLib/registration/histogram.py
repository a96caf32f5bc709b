"""Joint histograms of samples and the moving image under many poses, and their derivatives: most of the run time.

Samples have `MRI_BINS` bins and the moving image `CT_BINS`, whichever of the two is the CT.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import torch

from BrainFusionLib.geometry import FloatArray
from BrainFusionLib.registration.kernel import kernel

# One bin of margin below the CT's values and two above, for the cubic spline that smooths the histogram.
CT_BINS = 15
MRI_BINS = 20
FINENESS = 16  # cells per CT bin, in which samples are counted; the cells of a row fit into one byte
ROW = CT_BINS * FINENESS
CELLS = MRI_BINS * ROW

# Maps the score's derivatives by cell, (N, CELLS + 1) float32, to (N, 4, 3) float64: the sums over all samples of
# t g, x t g, y t g and z t g, with t the derivative for a sample's cell and g the CT's slope, in cells per voxel.
Pull = Callable[[torch.Tensor], torch.Tensor]


@dataclass(frozen=True)
class Samples:
    """Samples of the fixed head: `points` (3, n) float32, LPS mm from its centre; `rows` (n,) int32, bin * ROW."""

    points: torch.Tensor
    rows: torch.Tensor

    def every(self, step: int, first: int) -> Samples:
        """Return every n-th sample, n being `step`: as evenly spread as all of them."""
        return Samples(self.points[:, first::step].contiguous(), self.rows[first::step].contiguous())

    def __len__(self) -> int:
        return self.points.shape[1]


@dataclass(frozen=True)
class Moving:
    """The moving image at one level: `cells` (K, J, I) uint8, and the 4x4 affine ijk from LPS mm."""

    cells: torch.Tensor
    ijk_from_lps: FloatArray

    @cached_property
    def values(self) -> torch.Tensor:
        """The cells as float32, because torch interpolates only floats."""
        return self.cells.float()


def joint_counts(
    samples: Samples, moving: Moving, affines: torch.Tensor, *, slopes: bool
) -> tuple[torch.Tensor, Pull | None]:
    """Count the samples in each cell of the joint histogram, (N, CELLS + 1); the last cell is outside the CT.

    Parameters
    ----------
    affines
        (N, 3, 4) float64: voxel index ijk in the CT from a sample's point.
    slopes
        Whether to return the function that sums derivatives, too.
    """
    compiled = kernel() if affines.device.type == "cpu" else None
    if compiled is None:
        return _joint_counts_by_torch(samples, moving, affines, slopes)
    affines = affines.contiguous()
    counts, cell, slope = compiled.look_up(samples.points, samples.rows, affines, moving.cells, CELLS, slopes)
    if slope is None:
        return counts, None
    known = slope
    return counts, lambda table: compiled.pull(samples.points, cell, known, table)


def _joint_counts_by_torch(
    samples: Samples, moving: Moving, affines: torch.Tensor, slopes: bool
) -> tuple[torch.Tensor, Pull | None]:
    count, n = len(affines), len(samples)
    device = affines.device
    # grid_sample wants -1 at the first voxel's centre and 1 at the last one's; fold that into the affine.
    to_unit = 2 / (torch.tensor(moving.cells.shape[::-1], device=device, dtype=torch.float64) - 1)
    linear = (to_unit[:, None] * affines[:, :, :3]).float()
    offset = (to_unit * affines[:, :, 3] - 1).float()
    position = torch.baddbmm(offset[:, None, :], samples.points.T.expand(count, n, 3), linear.transpose(1, 2))
    volume = moving.values.expand(count, 1, *moving.cells.shape)
    grid = position.reshape(count, 1, 1, n, 3)
    value = torch.nn.functional.grid_sample(volume, grid, padding_mode="border", align_corners=True).reshape(count, n)
    cell = (value + 0.5).long().add_(samples.rows)
    cell.masked_fill_(position.abs().amax(dim=2) > 1, CELLS)
    cells = CELLS + 1
    shifted = cell + torch.arange(count, device=device)[:, None] * cells
    counts = torch.bincount(shifted.reshape(-1), minlength=count * cells).reshape(count, cells)
    if not slopes:
        return counts, None

    def pull(table: torch.Tensor) -> torch.Tensor:
        pulled = table.gather(1, cell)
        slope = torch.ops.aten.grid_sampler_3d_backward(
            pulled.reshape(count, 1, 1, 1, n), volume, grid, 0, 1, True, [False, True]
        )[1].reshape(count, n, 3)
        moment = torch.bmm(samples.points.expand(count, 3, n), slope)
        return torch.cat([slope.sum(dim=1, keepdim=True), moment], dim=1).double() * to_unit

    return counts, pull
