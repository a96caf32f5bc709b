"""Mutual information between MRI samples and a CT under many poses at once, with its exact gradient.

A pose is a rotation R about the centre c of the MRI's head and the point m to which that centre goes:
``x -> R (x - c) + m``, LPS mm. Its six parameters are a turn (multiplied in from the left, in units of
1 / `TURN_RADIUS_MM` radian, so that one unit moves the skull by about one millimetre) and a shift in mm.

The joint histogram is Parzen's: MRI samples fall in their nearest bin (they never change), CT values are spread
over four bins by a cubic B-spline, which makes it differentiable. Source: P. Thevenaz and M. Unser, IEEE Trans.
Image Processing 9 (2000) 2083. Samples that leave the CT's field of view do not count.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import torch

from BrainFusionLib.geometry import FloatArray

TURN_RADIUS_MM = 70.0

# CT values become bin coordinates between these knots. Soft tissue (0 to 80 HU) gets six of the bins: brain, CSF and
# muscle differ there by a few HU only, while bone may be coarse.
CT_KNOTS_HU = (-1000.0, -200.0, -60.0, 0.0, 20.0, 40.0, 60.0, 90.0, 200.0, 500.0, 900.0, 1500.0)
CT_BINS = len(CT_KNOTS_HU) + 3  # one bin of margin below and two above: the cubic spline reaches that far
MRI_BINS = 20
FINENESS = 32  # cells a bin in which samples are counted
FINE_BINS = CT_BINS * FINENESS


@dataclass(frozen=True)
class Samples:
    """MRI samples: `points` (n, 3) LPS mm relative to the head's centre; `bins` (n,), int64, 0 to MRI_BINS - 1."""

    points: torch.Tensor
    bins: torch.Tensor


@dataclass(frozen=True)
class Moving:
    """The CT at one level: bin coordinates (K, J, I), and the 4x4 affine ijk from LPS mm."""

    values: torch.Tensor
    ijk_from_lps: FloatArray


@dataclass(frozen=True)
class Poses:
    """N poses: `rotation` (N, 3, 3) and `centre` (N, 3), where the MRI head's centre goes, LPS mm; float64."""

    rotation: torch.Tensor
    centre: torch.Tensor

    def __len__(self) -> int:
        return len(self.rotation)

    def __getitem__(self, index: torch.Tensor | slice | list[int]) -> Poses:
        return Poses(self.rotation[index], self.centre[index])

    def moved(self, step: torch.Tensor) -> Poses:
        """Return the poses after a step (N, 6): turn in units of TURN_RADIUS_MM, then shift in mm."""
        turn = step[:, :3] / TURN_RADIUS_MM
        zero = torch.zeros_like(turn[:, 0])
        cross = torch.stack(
            [zero, -turn[:, 2], turn[:, 1], turn[:, 2], zero, -turn[:, 0], -turn[:, 1], turn[:, 0], zero], dim=1
        ).reshape(-1, 3, 3)
        return Poses(torch.linalg.matrix_exp(cross) @ self.rotation, self.centre + step[:, 3:])


def joined(groups: list[Poses]) -> Poses:
    """Put several groups of poses in one, in order."""
    return Poses(torch.cat([g.rotation for g in groups]), torch.cat([g.centre for g in groups]))


def ct_bin_coordinates(hu: torch.Tensor) -> torch.Tensor:
    """Map Hounsfield units to bin coordinates 1 … CT_BINS - 3, piecewise linear between `CT_KNOTS_HU`.

    Through a table of quarter Hounsfield units: one look-up a voxel is ten times as fast as eleven comparisons.
    """
    low, high = CT_KNOTS_HU[0], CT_KNOTS_HU[-1]
    grid = np.arange(low, high + 0.25, 0.25)
    table = torch.from_numpy(np.interp(grid, CT_KNOTS_HU, np.arange(1, len(CT_KNOTS_HU) + 1)).astype(np.float32))
    index = ((hu.clamp(low, high) - low) * 4).int()
    return table.to(hu.device)[index]


def score_and_gradient(
    samples: Samples, moving: Moving, poses: Poses, *, normalised: bool = False, gradient: bool = True
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Return mutual information, its gradient, and the share of samples inside the CT, for every pose.

    Parameters
    ----------
    normalised
        Studholme's (H(A) + H(B)) / H(A, B) instead of H(A) + H(B) - H(A, B), in nats. Source: C. Studholme, D. Hill and
        D. Hawkes, Pattern Recognition 32 (1999) 71.

    Returns
    -------
    score : (N,), gradient : (N, 6) per unit of the pose's parameters, overlap : (N,) between 0 and 1; float64.
    """
    count, n = len(poses), len(samples.points)
    device = samples.points.device
    size = torch.tensor(moving.values.shape[::-1], device=device, dtype=torch.float64)
    # grid_sample wants -1 at the first voxel's centre and 1 at the last one's; fold that into the affine.
    to_unit = 2 / (size - 1)
    linear = to_unit[:, None] * torch.as_tensor(moving.ijk_from_lps[:3, :3], device=device, dtype=torch.float64)
    offset = to_unit * torch.as_tensor(moving.ijk_from_lps[:3, 3], device=device, dtype=torch.float64) - 1
    start = (poses.centre @ linear.T + offset).float()
    where = torch.baddbmm(
        start[:, None, :], samples.points.expand(count, n, 3), (linear @ poses.rotation).float().transpose(1, 2)
    )
    volume = moving.values.expand(count, 1, *moving.values.shape)
    grid = where.reshape(count, 1, 1, n, 3)
    value = torch.nn.functional.grid_sample(volume, grid, padding_mode="border", align_corners=True).reshape(count, n)
    outside = where.abs_().amax(dim=2) > 1 if not gradient else where.abs().amax(dim=2) > 1

    cell = (value * FINENESS).long().add_(samples.bins * FINE_BINS)
    cell.masked_fill_(outside, MRI_BINS * FINE_BINS)  # one more cell that nobody reads
    cells = MRI_BINS * FINE_BINS + 1
    shifted = cell + torch.arange(count, device=device)[:, None] * cells
    counts = torch.bincount(shifted.reshape(-1), minlength=count * cells).reshape(count, cells)[:, :-1]
    fine = counts.reshape(count, MRI_BINS, FINE_BINS).double()
    total = fine.sum(dim=(1, 2)).clamp_min(1e-9)
    spline, slope = _spline_tables(device)
    score, table = _information(fine @ spline / total[:, None, None], normalised)
    overlap = total / n
    if not gradient:
        return score, torch.zeros(count, 6, device=device, dtype=torch.float64), overlap

    fine_table = torch.zeros(count, cells, device=device)
    fine_table[:, :-1] = (table @ slope.T).reshape(count, -1).float()
    pull = fine_table.gather(1, cell)
    slopes = torch.ops.aten.grid_sampler_3d_backward(
        pull.reshape(count, 1, 1, 1, n), volume, grid, 0, 1, True, [False, True]
    )[1].reshape(count, n, 3)
    # Chain rule: d value / d shift = s, d value / d turn = q x s, with s the CT's slope in LPS and q = R p.
    moment = torch.bmm(slopes.transpose(1, 2), samples.points.expand(count, n, 3)).double()
    moment = linear.T @ moment @ poses.rotation.transpose(1, 2)  # rows: slope in LPS; columns: turned point
    shift = slopes.sum(dim=1).double() @ linear
    turn = torch.stack(
        [moment[:, 2, 1] - moment[:, 1, 2], moment[:, 0, 2] - moment[:, 2, 0], moment[:, 1, 0] - moment[:, 0, 1]], dim=1
    )
    return score, torch.cat([turn / TURN_RADIUS_MM, shift], dim=1) / total[:, None], overlap


@lru_cache(maxsize=4)
def _spline_tables(device: torch.device) -> tuple[torch.Tensor, torch.Tensor]:
    """Return cubic B-spline weights and their slopes, (FINE_BINS, CT_BINS) each, float64.

    Counting in fine cells and spreading the counts afterwards costs a tenth of spreading every sample, and differs by
    less than the histogram's own sampling noise.
    """
    coordinate = (torch.arange(FINE_BINS, device=device, dtype=torch.float64) + 0.5) / FINENESS
    t = coordinate[:, None] - torch.arange(CT_BINS, device=device, dtype=torch.float64)
    d = t.abs()
    weight = torch.where(d < 1, 2 / 3 - d**2 + d**3 / 2, (2 - d).clamp_min(0) ** 3 / 6)
    slope = torch.where(d < 1, -2 * d + 1.5 * d**2, -((2 - d).clamp_min(0) ** 2) / 2) * t.sign()
    return weight, slope


def _information(p: torch.Tensor, normalised: bool) -> tuple[torch.Tensor, torch.Tensor]:
    """Return MI or NMI of joint probabilities (N, A, B), and its derivative by each of them (up to a constant)."""
    log_joint = p.clamp_min(1e-12).log()
    log_a = p.sum(dim=2, keepdim=True).clamp_min(1e-12).log()
    log_b = p.sum(dim=1, keepdim=True).clamp_min(1e-12).log()
    entropy_joint = -(p * log_joint).sum(dim=(1, 2))
    entropies = -(p * (log_a + log_b)).sum(dim=(1, 2))
    # An empty bin's logarithm is not information: its derivative must not pull.
    seen = p > 0
    if normalised:
        h = entropy_joint.clamp_min(1e-9)[:, None, None]
        table = (entropies[:, None, None] / h * log_joint - (log_a + log_b)) / h
        return entropies / entropy_joint.clamp_min(1e-9), table * seen
    return entropies - entropy_joint, (log_joint - log_a - log_b) * seen
