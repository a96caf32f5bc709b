"""Any pose: score some hundred rotations, each with every translation at once.

For one rotation of the CT, the joint histogram with the MRI is a cross-correlation of soft bin maps, so a handful of
FFTs give it for all translations of a coarse grid, and mutual information follows from the histograms.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
import torch.nn.functional as F

from BrainFusionLib.geometry import Grid
from BrainFusionLib.registration.pyramid import MASK_LEVEL, Heads, Level
from BrainFusionLib.registration.similarity import Poses

GRID_SIZE = 24
GRID_SPACING_MM = 16.0
# Translations from the position in which the two heads' centres coincide; a slab's centre is up to this far off.
REACH = 6
CT_EDGES_HU = (-400.0, 45.0, 300.0)
MRI_QUANTILES = (0.1, 0.35, 0.6, 0.85)
# On a CPU as many as keep the work in its cache: sixteen take 1.7 times as long. A GPU wants many.
ROTATIONS_AT_ONCE = {"cpu": 4, "cuda": 64}
# A pose in which less than this share of the smaller head lies in the other's field of view is not looked at.
MINIMUM_OVERLAP = 0.35


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
    # Turned so that the first is the identity: headers are right more often than not.
    return rotations[0].T @ rotations


def search(
    heads: Heads, rotations: torch.Tensor, per_rotation: int, check: Callable[[], None] = lambda: None
) -> tuple[Poses, torch.Tensor]:
    """Return the `per_rotation` best translations of every rotation, and their scores, best first.

    Parameters
    ----------
    rotations
        (N, 3, 3), float64, taking MRI directions to CT directions.
    """
    device = heads.mri_centre_lps_mm.device
    ct_maps, ct_level = _bin_maps(heads.ct[MASK_LEVEL], torch.tensor(CT_EDGES_HU, device=device))
    mri_maps, mri_level = _bin_maps(heads.mri[MASK_LEVEL], _mri_edges(heads))
    axes = (torch.arange(GRID_SIZE, device=device, dtype=torch.float64) - GRID_SIZE / 2) * GRID_SPACING_MM
    z, y, x = torch.meshgrid(axes, axes, axes, indexing="ij")
    points = torch.stack([x, y, z], dim=-1).reshape(-1, 3)

    mri_grid = _pull(mri_maps, mri_level, (points + heads.mri_centre_lps_mm)[None])[0]
    mri_spectrum = torch.fft.rfftn(mri_grid, dim=(1, 2, 3))
    mri_mass = mri_grid[1:].sum()
    shifts = _shifts(device)
    found_rotation, found_centre, found_score = [], [], []
    at_once = ROTATIONS_AT_ONCE[device.type]
    for first in range(0, len(rotations), at_once):
        check()
        batch = rotations[first : first + at_once].to(device)
        places = points @ batch.transpose(1, 2) + heads.ct_centre_lps_mm
        ct_grid = _pull(ct_maps, ct_level, places)
        spectrum = torch.fft.rfftn(ct_grid, dim=(2, 3, 4))
        product = spectrum[:, :, None] * mri_spectrum.conj()[None, None]
        joint = _near_shifts(product).clamp_min_(0)  # (batch, CT bins, MRI bins, shifts)
        score = _score(joint, torch.minimum(ct_grid[:, 1:].sum(dim=(1, 2, 3, 4)), mri_mass))
        best, where = score.topk(per_rotation, dim=1)
        moved = shifts[where] * GRID_SPACING_MM  # (batch, per_rotation, 3), in the MRI's frame
        centre = heads.ct_centre_lps_mm + torch.einsum("bij,bnj->bni", batch, moved)
        found_rotation.append(batch[:, None].expand(-1, per_rotation, 3, 3).reshape(-1, 3, 3))
        found_centre.append(centre.reshape(-1, 3))
        found_score.append(best.reshape(-1))
    score = torch.cat(found_score)
    order = score.argsort(descending=True, stable=True)
    return Poses(torch.cat(found_rotation)[order], torch.cat(found_centre)[order]), score[order]


def _shifts(device: torch.device) -> torch.Tensor:
    """Return all shifts within reach, in whole voxels, xyz: shape (n, 3), in the order of `_near_shifts`."""
    one = torch.arange(-REACH, REACH + 1, device=device, dtype=torch.float64)
    z, y, x = torch.meshgrid(one, one, one, indexing="ij")
    return torch.stack([x, y, z], dim=-1).reshape(-1, 3)


def _near_shifts(spectrum: torch.Tensor) -> torch.Tensor:
    """Invert a real FFT (…, G, G, G // 2 + 1), but only for shifts within reach: (…, (2 REACH + 1) ** 3).

    Three matrix products, one an axis: on the CPU a third of the time of the whole inverse FFT, of which five sixths
    would be thrown away.
    """
    device = spectrum.device
    reach = torch.arange(-REACH, REACH + 1, device=device)
    full = torch.exp(2j * torch.pi / GRID_SIZE * reach[:, None] * torch.arange(GRID_SIZE, device=device))
    kept = GRID_SIZE // 2 + 1
    # The real FFT stores half of the last axis; every frequency but the first and the middle one stands for two.
    twice = torch.full((kept,), 2.0, device=device)
    twice[0] = twice[-1] = 1.0
    half = full[:, :kept] * twice
    real_from_half = torch.cat([half.real, -half.imag], dim=1).float() / GRID_SIZE**3
    full = full.to(torch.complex64)
    wide = 2 * REACH + 1
    result = full @ spectrum.reshape(-1, GRID_SIZE, GRID_SIZE * kept)
    result = full @ result.reshape(-1, GRID_SIZE, kept)
    halves = torch.cat([result.real, result.imag], dim=-1)
    return (halves @ real_from_half.T).reshape(*spectrum.shape[:-3], wide**3)


def _score(joint: torch.Tensor, smaller_head: torch.Tensor) -> torch.Tensor:
    """Mutual information of joint histograms (batch, CT bins, MRI bins, shifts), weighed by the overlap."""
    total = joint.sum(dim=(1, 2))
    p = joint / total.clamp_min(1e-6)[:, None, None]

    def plogp(q: torch.Tensor) -> torch.Tensor:
        return q * q.clamp_min(1e-9).log()

    entropies = -plogp(p.sum(dim=1)).sum(dim=1) - plogp(p.sum(dim=2)).sum(dim=1)
    information = entropies + plogp(p).sum(dim=(1, 2))
    # Matter of the one that meets the other's field of view, as a share of the smaller head.
    matter = torch.minimum(joint[:, 1:].sum(dim=(1, 2)), joint[:, :, 1:].sum(dim=(1, 2)))
    overlap = (matter / smaller_head[:, None]).clamp_max(1.0)
    return torch.where(overlap > MINIMUM_OVERLAP, information * overlap, -1.0)


def _mri_edges(heads: Heads) -> torch.Tensor:
    """Bin edges: the middle of air and head first, then ranks inside the head."""
    head = heads.mri[MASK_LEVEL].values[heads.mri_head]
    head = head[head > heads.mri_edges[1]]
    return torch.quantile(head, torch.tensor(MRI_QUANTILES, device=head.device))


def _bin_maps(level: Level, edges: torch.Tensor) -> tuple[torch.Tensor, Level]:
    """Return how much of each coarse voxel falls in each bin, (bins, K, J, I), pooled to about the search's spacing."""
    clipped = torch.bucketize(level.values, edges)
    maps = torch.stack([(clipped == b).float() for b in range(len(edges) + 1)])
    factors = [
        max(1, min(round(GRID_SPACING_MM / 2 / s), n))
        for s, n in zip(level.grid.spacing_ijk_mm, level.grid.size_ijk, strict=True)
    ]
    pooled = F.avg_pool3d(maps[None], factors[::-1])[0]
    first = np.diag([*factors, 1.0])
    first[:3, 3] = (np.asarray(factors) - 1) / 2
    size = pooled.shape[:0:-1]
    grid = Grid.from_lps_from_ijk(level.grid.lps_from_ijk @ first, (size[0], size[1], size[2]))
    return pooled, Level(pooled[0], grid)


def _pull(maps: torch.Tensor, level: Level, points: torch.Tensor) -> torch.Tensor:
    """Sample maps (C, K, J, I) at points (B, n, 3) LPS mm, 0 outside; returns (B, C, G, G, G)."""
    affine = torch.as_tensor(level.grid.ijk_from_lps, device=points.device)
    index = points @ affine[:3, :3].T + affine[:3, 3]
    size = torch.tensor(level.grid.size_ijk, device=points.device, dtype=torch.float64)
    unit = ((2 * index + 1) / size - 1).float()
    batch = len(points)
    out = F.grid_sample(maps.expand(batch, *maps.shape), unit.reshape(batch, 1, 1, -1, 3), align_corners=False)
    return out.reshape(batch, len(maps), GRID_SIZE, GRID_SIZE, GRID_SIZE)
