"""Global search: score some hundred rotations, each with every translation at once.

For one rotation of the CT, the joint histogram with the MRI is a cross-correlation of soft bin maps, so a few FFTs give
it for all translations on a coarse grid, and mutual information follows from the histograms.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F

from BrainFusionLib.geometry import Grid
from BrainFusionLib.registration.pyramid import MASK_LEVEL, Level, PreparedPair
from BrainFusionLib.registration.similarity import Poses

# On a CPU, as many as fit into the cache: sixteen at once take 1.7 times as long. A GPU needs many.
ROTATIONS_AT_ONCE = {"cpu": 4, "cuda": 64}
# Poses with less than this share of the smaller head in the other's field of view are skipped.
MINIMUM_OVERLAP = 0.35


@dataclass(frozen=True)
class Lattice:
    """The search's grid: `size` points along each axis, `spacing_mm` apart, and translations up to `reach` of them.

    Translations are relative to coinciding centres of the heads; a slab's centre can be up to 90 mm off.
    """

    size: int
    spacing_mm: float
    reach: int


COARSE = Lattice(18, 20.0, 5)
FINE = Lattice(24, 16.0, 6)


def even_rotations(count: int) -> torch.Tensor:
    """Return `count` rotations that cover SO(3) evenly, (count, 3, 3) float64; the first is the identity.

    Source: M. Alexa, Super-Fibonacci Spirals: Fast, Low-Discrepancy Sampling of SO(3), CVPR 2022.
    """
    s = torch.arange(count, dtype=torch.float64) + 0.5
    share = s / count
    inner, outer = share.sqrt(), (1 - share).sqrt()
    alpha = 2 * np.pi * s / np.sqrt(2.0)
    beta = 2 * np.pi * s / 1.533751168755204288118041
    x, y, z, w = inner * alpha.sin(), inner * alpha.cos(), outer * beta.sin(), outer * beta.cos()
    rotations = torch.stack(
        [
            1 - 2 * (y * y + z * z), 2 * (x * y - z * w), 2 * (x * z + y * w),
            2 * (x * y + z * w), 1 - 2 * (x * x + z * z), 2 * (y * z - x * w),
            2 * (x * z - y * w), 2 * (y * z + x * w), 1 - 2 * (x * x + y * y),
        ],
        dim=1,
    ).reshape(count, 3, 3)  # fmt: skip
    # Rotated so that the first is the identity: most headers are right.
    return rotations[0].T @ rotations


def search(
    heads: PreparedPair,
    rotations: torch.Tensor,
    lattice: Lattice,
    per_rotation: int,
    check: Callable[[], None] = lambda: None,
) -> tuple[Poses, torch.Tensor]:
    """Return the `per_rotation` best translations of every rotation, and their scores, best first.

    Parameters
    ----------
    rotations
        (N, 3, 3), float64, from directions of the fixed head to those of the moving head.
    """
    device = heads.fixed.centre_lps_mm.device
    moving = _bin_maps(heads.moving.levels[MASK_LEVEL], heads.moving.search_edges, lattice)
    fixed = _bin_maps(heads.fixed.levels[MASK_LEVEL], heads.fixed.search_edges, lattice, heads.fixed.region)
    points = _points(lattice, device)
    one = torch.eye(3, dtype=torch.float64, device=device)[None]
    fixed_grid = _pull(fixed, points, one, heads.fixed.centre_lps_mm, lattice)[0]
    fixed_spectrum = torch.fft.rfftn(fixed_grid, dim=(1, 2, 3)).conj()
    fixed_mass = fixed_grid[1:].sum()
    shifts = _shifts(lattice, device)
    inverse = _near_inverse(lattice, device)
    found_rotation, found_centre, found_score = [], [], []
    at_once = ROTATIONS_AT_ONCE[device.type]
    for first in range(0, len(rotations), at_once):
        check()
        batch = rotations[first : first + at_once].to(device)
        moving_grid = _pull(moving, points, batch, heads.moving.centre_lps_mm, lattice)
        spectrum = torch.fft.rfftn(moving_grid, dim=(2, 3, 4))
        joint = inverse(spectrum[:, :, None] * fixed_spectrum).clamp_min_(0)  # (batch, moving bins, fixed bins, shifts)
        score = _score(joint, torch.minimum(moving_grid[:, 1:].sum(dim=(1, 2, 3, 4)), fixed_mass))
        best, index = score.topk(per_rotation, dim=1)
        moved = shifts[index] * lattice.spacing_mm  # (batch, per_rotation, 3), in the fixed head's frame
        centre = heads.moving.centre_lps_mm + torch.einsum("bij,bnj->bni", batch, moved)
        found_rotation.append(batch[:, None].expand(-1, per_rotation, 3, 3).reshape(-1, 3, 3))
        found_centre.append(centre.reshape(-1, 3))
        found_score.append(best.reshape(-1))
    score = torch.cat(found_score)
    order = score.argsort(descending=True, stable=True)
    return Poses(torch.cat(found_rotation)[order], torch.cat(found_centre)[order]), score[order]


def _points(lattice: Lattice, device: torch.device) -> torch.Tensor:
    """Return the lattice's points around its centre, xyz, mm: (3, size ** 3), float32."""
    axis = (torch.arange(lattice.size, device=device, dtype=torch.float32) - lattice.size / 2) * lattice.spacing_mm
    z, y, x = torch.meshgrid(axis, axis, axis, indexing="ij")
    return torch.stack([x, y, z]).reshape(3, -1)


def _shifts(lattice: Lattice, device: torch.device) -> torch.Tensor:
    """Return all shifts within reach, in whole voxels, xyz: shape (n, 3), in the order of `_near_inverse`."""
    one = torch.arange(-lattice.reach, lattice.reach + 1, device=device, dtype=torch.float64)
    z, y, x = torch.meshgrid(one, one, one, indexing="ij")
    return torch.stack([x, y, z], dim=-1).reshape(-1, 3)


def _near_inverse(lattice: Lattice, device: torch.device) -> Callable[[torch.Tensor], torch.Tensor]:
    """Return the inverse of a real FFT (…, G, G, G // 2 + 1) for shifts within reach only: (…, (2 reach + 1) ** 3).

    Three matrix products, one for each axis: on the CPU they take a third of the time of a full inverse FFT, most of
    whose output (five sixths) would be discarded.
    """
    size, wide = lattice.size, 2 * lattice.reach + 1
    reach = torch.arange(-lattice.reach, lattice.reach + 1, device=device)
    full = torch.exp(2j * torch.pi / size * reach[:, None] * torch.arange(size, device=device))
    kept = size // 2 + 1
    # The real FFT stores half of the last axis; every frequency except the first and the middle one counts twice.
    twice = torch.full((kept,), 2.0, device=device)
    twice[0] = twice[-1] = 1.0
    half = full[:, :kept] * twice
    real_from_half = torch.cat([half.real, -half.imag], dim=1).float() / size**3
    full = full.to(torch.complex64)

    def inverse(spectrum: torch.Tensor) -> torch.Tensor:
        result = full @ spectrum.reshape(-1, size, size * kept)
        result = full @ result.reshape(-1, size, kept)
        halves = torch.cat([result.real, result.imag], dim=-1)
        return (halves @ real_from_half.T).reshape(*spectrum.shape[:-3], wide**3)

    return inverse


def _score(joint: torch.Tensor, smaller_head: torch.Tensor) -> torch.Tensor:
    """Mutual information of joint histograms (batch, moving bins, fixed bins, shifts), weighted by the overlap."""
    total = joint.sum(dim=(1, 2))
    p = joint / total.clamp_min(1e-6)[:, None, None]

    def plogp(q: torch.Tensor) -> torch.Tensor:
        return q * q.clamp_min(1e-9).log()

    entropies = -plogp(p.sum(dim=1)).sum(dim=1) - plogp(p.sum(dim=2)).sum(dim=1)
    information = entropies + plogp(p).sum(dim=(1, 2))
    # Tissue of each head inside the other's field of view, as a share of the smaller head.
    tissue = torch.minimum(joint[:, 1:].sum(dim=(1, 2)), joint[:, :, 1:].sum(dim=(1, 2)))
    overlap = (tissue / smaller_head[:, None]).clamp_max(1.0)
    return torch.where(overlap > MINIMUM_OVERLAP, information * overlap, -1.0)


@dataclass(frozen=True)
class _Maps:
    """The share of each bin in every coarse voxel, `rows` (voxels + 1, bins) with a last row of 0, and the grid."""

    rows: torch.Tensor
    grid: Grid


def _bin_maps(level: Level, edges: torch.Tensor, lattice: Lattice, region: torch.Tensor | None = None) -> _Maps:
    """Pool soft bin maps to half the lattice's spacing, and smooth them over the lattice's spacing.

    In maps this smooth, the nearest voxel is as good as interpolation and takes a tenth of the time.
    """
    bins = torch.bucketize(level.values, edges)
    maps = torch.stack([(bins == b).float() for b in range(len(edges) + 1)])
    if region is not None:
        maps *= region
    factors = [
        max(1, min(round(lattice.spacing_mm / 2 / s), n))
        for s, n in zip(level.grid.spacing_ijk_mm, level.grid.size_ijk, strict=True)
    ]
    pooled = F.avg_pool3d(maps[None], factors[::-1])[0]
    first = np.diag([*factors, 1.0])
    first[:3, 3] = (np.asarray(factors) - 1) / 2
    size = pooled.shape[:0:-1]
    grid = Grid.from_lps_from_ijk(level.grid.lps_from_ijk @ first, (size[0], size[1], size[2]))
    # A weight of 1/4, 1/2, 1/4 along each axis spans the lattice's spacing.
    for axis in (1, 2, 3):
        if pooled.shape[axis] > 1:
            last = pooled.shape[axis] - 1
            before = pooled.narrow(axis, 0, last)
            after = pooled.narrow(axis, 1, last)
            ends = pooled.narrow(axis, 0, 1), pooled.narrow(axis, last, 1)
            pooled = pooled / 2 + (torch.cat([ends[0], before], axis) + torch.cat([after, ends[1]], axis)) / 4
    rows = pooled.reshape(len(maps), -1).T
    return _Maps(torch.cat([rows, torch.zeros_like(rows[:1])]).contiguous(), grid)


def _pull(
    maps: _Maps, points: torch.Tensor, rotations: torch.Tensor, centre: torch.Tensor, lattice: Lattice
) -> torch.Tensor:
    """Read the maps at ``R p + centre`` for every rotation, 0 outside; returns (B, bins, G, G, G)."""
    affine = torch.as_tensor(maps.grid.ijk_from_lps, device=points.device)
    linear = (affine[:3, :3] @ rotations).float()
    offset = (affine[:3, :3] @ centre + affine[:3, 3] + 0.5).float()
    position = torch.matmul(linear, points).add_(offset[:, None]).floor_()  # (B, 3, points)
    i, j, k = position.int().unbind(dim=1)
    ni, nj, nk = maps.grid.size_ijk
    inside = (i >= 0) & (i < ni) & (j >= 0) & (j < nj) & (k >= 0) & (k < nk)
    index = torch.where(inside, (k * nj + j) * ni + i, ni * nj * nk)
    values = maps.rows.index_select(0, index.reshape(-1))
    g = lattice.size
    return values.reshape(len(rotations), g, g, g, -1).permute(0, 4, 1, 2, 3).contiguous()
