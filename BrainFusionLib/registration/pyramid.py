"""What the search and the refinement look at: the two heads pooled to coarser voxels, and samples of the MRI."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F

from BrainFusionLib.errors import ImageContentError
from BrainFusionLib.geometry import Grid, affine, apply_affine
from BrainFusionLib.intensity import AIR_HU, ct_head_mask, otsu_threshold
from BrainFusionLib.registration.similarity import MRI_BINS, Moving, Samples, ct_bin_coordinates
from BrainFusionLib.volume import Volume

LEVELS_MM = (1.0, 2.0, 4.0, 8.0)
MASK_LEVEL = 2
# Air next to the skin tells where the head ends, so samples are taken this far outside the head, too.
RIM_MM = 12.0


@dataclass(frozen=True)
class Level:
    """One volume pooled: `values` (K, J, I) float32 on the device, on `grid`."""

    values: torch.Tensor
    grid: Grid


@dataclass(frozen=True)
class Heads:
    """Both heads at each of `LEVELS_MM`, finest first, and the centre of each.

    `ct_bins[i]` is the CT of level i in the form that the similarity takes. `mri_head` is true, on the MRI's grid of
    4 mm, inside the head and its rim. `mri_edges` are the inner edges of the similarity's MRI bins.
    """

    ct: list[Level]
    ct_bins: list[Moving]
    mri: list[Level]
    mri_head: torch.Tensor
    mri_edges: torch.Tensor
    ct_centre_lps_mm: torch.Tensor
    mri_centre_lps_mm: torch.Tensor

    def samples(self, level: int, count: int, seed: int) -> Samples:
        """Return `count` MRI samples at random places in and around the head.

        Not at voxel centres: samples on the voxel lattice make mutual information peak where the two lattices
        coincide. The same seed gives the same samples on every device.
        """
        generator = np.random.default_rng(seed)
        inside = np.flatnonzero(self.mri_head.cpu().numpy())
        k, j, i = np.unravel_index(generator.choice(inside, size=count), self.mri_head.shape)
        place = np.stack([i, j, k], axis=1) + generator.uniform(-0.5, 0.5, (count, 3))
        points = apply_affine(self.mri[MASK_LEVEL].grid.lps_from_ijk, place)
        mri = self.mri[level]
        index = apply_affine(mri.grid.ijk_from_lps, points)
        unit = (2 * index + 1) / np.asarray(mri.grid.size_ijk) - 1
        device = mri.values.device
        values = F.grid_sample(
            mri.values[None, None],
            torch.from_numpy(unit.astype(np.float32)).to(device).reshape(1, 1, 1, -1, 3),
            padding_mode="border",
            align_corners=False,
        ).reshape(-1)
        relative = points - self.mri_centre_lps_mm.cpu().numpy()
        bins = torch.bucketize(values, self.mri_edges)
        return Samples(torch.from_numpy(relative.astype(np.float32)).to(device), bins)


def prepare(ct: Volume, mri: Volume, device: torch.device) -> Heads:
    """Pool both volumes to all levels, mask the CT's head, and find the MRI's head and bins."""
    ct_head = ct_head_mask(ct)
    clean = Volume(np.where(ct_head, ct.array_kji, np.float32(AIR_HU)), ct.grid, "CT")
    ct_levels = _pooled(clean, device)
    mri_levels = _pooled(mri, device)

    coarse = mri_levels[MASK_LEVEL]
    threshold = otsu_threshold(coarse.values.cpu().numpy()) * 0.5
    # Repeated at the border, so that a head cut off there is not eroded; a majority vote removes single bright voxels.
    bright = F.pad((coarse.values > threshold).float()[None, None], (1,) * 6, mode="replicate")
    core = F.avg_pool3d(bright, 3, stride=1)[0, 0] > 0.5
    if not bool(core.any()):
        raise ImageContentError(f"{mri.name}: no head can be told from the background. Check that it is the MRI.")
    head = _grown(core, coarse.grid)
    inside = coarse.values[head]
    # Half of the bins by rank, half by value: ranks alone spend most bins on noise in the air, values alone on fat.
    ranks = torch.quantile(inside, torch.linspace(0, 1, MRI_BINS + 1, device=device)[1:-1])
    low, high = torch.quantile(inside, 0.01), torch.quantile(inside, 0.99)
    values = torch.linspace(0, 1, MRI_BINS + 1, device=device)[1:-1] * (high - low) + low
    edges = ((ranks + values) / 2).contiguous()

    ct_coarse = ct_levels[MASK_LEVEL]
    return Heads(
        ct_levels,
        [Moving(ct_bin_coordinates(level.values), level.grid.ijk_from_lps) for level in ct_levels],
        mri_levels,
        head,
        edges,
        _centre(ct_coarse.values > -500, ct_coarse.grid),
        _centre(core, coarse.grid),
    )


def _pooled(volume: Volume, device: torch.device) -> list[Level]:
    """Average whole voxels together until each level's spacing is reached as nearly as whole numbers allow."""
    levels: list[Level] = []
    values, grid = torch.from_numpy(volume.array_kji).to(device), volume.grid
    for target in LEVELS_MM:
        factors = [max(1, min(round(target / s), n)) for s, n in zip(grid.spacing_ijk_mm, grid.size_ijk, strict=True)]
        if max(factors) > 1:
            pooled = F.avg_pool3d(values[None, None], factors[::-1])[0, 0]
            first = affine(np.eye(3), (np.asarray(factors) - 1) / 2) @ np.diag([*factors, 1.0])
            size = pooled.shape[::-1]
            grid = Grid.from_lps_from_ijk(grid.lps_from_ijk @ first, (size[0], size[1], size[2]))
            values = pooled
        levels.append(Level(values, grid))
    return levels


def _grown(core: torch.Tensor, grid: Grid) -> torch.Tensor:
    """Grow a mask by `RIM_MM` along each axis."""
    grown = core.float()[None, None]
    for axis, spacing in enumerate(grid.spacing_ijk_mm[::-1]):
        radius = [0, 0, 0]
        radius[axis] = max(1, round(RIM_MM / spacing))
        grown = F.max_pool3d(grown, [2 * r + 1 for r in radius], stride=1, padding=radius)
    return grown[0, 0] > 0


def _centre(mask: torch.Tensor, grid: Grid) -> torch.Tensor:
    """Return the centre of gravity of a mask, LPS mm, (3,) float64; the grid's centre where the mask is empty."""
    index = torch.nonzero(mask).double()
    if len(index) == 0:
        return torch.as_tensor(grid.centre_lps_mm, device=mask.device)
    centre = apply_affine(grid.lps_from_ijk, index.mean(dim=0).flip(0).cpu().numpy())
    return torch.as_tensor(centre, device=mask.device)
