"""What the search and the refinement look at: the two heads pooled to coarser voxels, and samples of one of them.

Samples come from the **fixed** head; the **moving** one is read between its voxels. Which of the two is the CT is
settled here (`prepare`), because it decides the accuracy: see `ct_is_fixed`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import torch
import torch.nn.functional as F

from BrainFusionLib.errors import ImageContentError
from BrainFusionLib.geometry import FloatArray, Grid, affine, apply_affine
from BrainFusionLib.intensity import ct_head_mask, otsu_threshold
from BrainFusionLib.registration.histogram import CT_BINS, FINENESS, MRI_BINS, ROW, Moving, Samples
from BrainFusionLib.volume import AIR_HU, BoolArray, Volume

LEVELS_MM = (1.0, 2.0, 4.0, 8.0)
MASK_LEVEL = 2
# Air next to the skin tells where the head ends, so samples are taken this far outside the head, too.
RIM_MM = 12.0
# The mask of the CT's head is as coarse as its voxels: grown by one, it cuts off no skin. Without this the head was
# drawn by 0.05 mm to one side.
MASK_MARGIN_MM = 4.0

# Soft tissue (0 to 80 HU) gets half of the bins: brain, CSF and muscle differ there by a few HU only.
CT_MOVING_KNOTS_HU = (-1000.0, -200.0, -60.0, 0.0, 20.0, 40.0, 60.0, 90.0, 200.0, 500.0, 900.0, 1500.0)
CT_FIXED_EDGES_HU = (-900.0, -600.0, -300.0, -120.0, -80.0, -40.0, -10.0, 5.0, 15.0, 22.0, 30.0, 37.0, 45.0, 60.0, 80.0,
                     120.0, 250.0, 600.0, 1000.0)  # fmt: skip
CT_SEARCH_EDGES_HU = (-400.0, 45.0, 300.0)
MRI_SEARCH_QUANTILES = (0.1, 0.35, 0.6, 0.85)

# With less of the smaller head than this inside the other volume it is no registration, whatever the score says: tiny
# overlaps give any score.
LEAST_OVERLAP = 0.25
# With less than this share of the other's volume, a head is a part of one (a slab, a skull-stripped brain).
PART = 0.7
# A CT whose slices are this much further apart than the MRI's is thick-sliced.
THICK = 1.6


@dataclass(frozen=True)
class Level:
    """One volume pooled: `values` (K, J, I) float32 on the device, on `grid`."""

    values: torch.Tensor
    grid: Grid


@dataclass(frozen=True)
class PreparedHead:
    """One head at each of `LEVELS_MM`, finest first.

    Attributes
    ----------
    core, region
        True, on the grid of 4 mm, in the head; in the head and its rim.
    centre_lps_mm
        Its centre of gravity, (3,) float64.
    focus
        The region that matters, on the grid of 4 mm: the last refinement looks nowhere else.
    edges
        Inner edges of the bins in which its samples fall, MRI_BINS - 1, when it is the fixed one.
    knots
        Values at the histogram's whole bins 1, 2, …, when it is the moving one.
    search_edges
        Inner edges of the search's few bins; the first bin is air.
    """

    levels: list[Level]
    core: torch.Tensor
    region: torch.Tensor
    centre_lps_mm: torch.Tensor
    focus: torch.Tensor | None
    edges: torch.Tensor
    knots: FloatArray
    search_edges: torch.Tensor

    @property
    def volume_mm3(self) -> float:
        """Volume of the head."""
        return float(self.core.sum()) * float(np.prod(self.levels[MASK_LEVEL].grid.spacing_ijk_mm))

    def samples(self, level: int, count: int, seed: int) -> Samples:
        """Return `count` samples in and around the head, spread evenly, the same for a seed on every device.

        At voxel centres, because reading between voxels averages the noise, by an amount that changes from place to
        place: with noisy voxels on this side left as they are, the error is half as large (docs/measured.md).
        """
        generator = np.random.default_rng(seed)
        device = self.region.device
        region = self.region if self.focus is None or level > 0 else self.focus
        inside = np.flatnonzero(region.cpu().numpy())
        picked = inside[((np.arange(count) + generator.random(count)) * (len(inside) / count)).astype(np.intp)]
        k, j, i = np.unravel_index(picked, self.region.shape)
        place = np.stack([i, j, k]) + generator.uniform(-0.5, 0.5, (3, count))
        coarse, fine = self.levels[MASK_LEVEL].grid, self.levels[level].grid
        index = np.rint(_moved(fine.ijk_from_lps @ coarse.lps_from_ijk, place))
        index = np.clip(index, 0, np.asarray(fine.size_ijk)[:, None] - 1)
        ni, nj, _ = fine.size_ijk
        flat = (index[2] * nj + index[1]) * ni + index[0]
        values = self.levels[level].values.reshape(-1)[torch.from_numpy(flat.astype(np.int64)).to(device)]
        points = _moved(fine.lps_from_ijk, index)
        relative = points - self.centre_lps_mm.cpu().numpy()[:, None]
        rows = torch.bucketize(values, self.edges, out_int32=True) * ROW
        return Samples(torch.from_numpy(relative.astype(np.float32)).to(device), rows)

    def moving(self) -> list[Moving]:
        """Return every level in cells of the histogram."""
        return [Moving(_cells(level.values, self.knots), level.grid.ijk_from_lps) for level in self.levels]


@dataclass(frozen=True)
class PreparedPair:
    """The two heads, which is which, and the moving one's levels in cells of the histogram."""

    ct: PreparedHead
    mri: PreparedHead
    ct_is_fixed: bool
    cells: list[Moving]

    @property
    def fixed(self) -> PreparedHead:
        """The head that is sampled."""
        return self.ct if self.ct_is_fixed else self.mri

    @property
    def moving(self) -> PreparedHead:
        """The head that is read between its voxels."""
        return self.mri if self.ct_is_fixed else self.ct

    @property
    def least_overlap(self) -> float:
        """Return the share of the fixed head's samples that must lie inside the moving volume; else no pose counts."""
        return LEAST_OVERLAP * min(1.0, self.moving.volume_mm3 / self.fixed.volume_mm3)

    def with_mri_fixed(self, moving_from_fixed_lps: FloatArray) -> PreparedPair:
        """Return the same with the MRI as the fixed head, and its focus without what the CT does not cover.

        Parameters
        ----------
        moving_from_fixed_lps
            4x4, from MRI to CT points: the pose found so far.
        """
        grid, ct = self.mri.levels[MASK_LEVEL].grid, self.ct.levels[MASK_LEVEL].grid
        k, j, i = np.indices(grid.shape_kji).reshape(3, -1)
        index = _moved(ct.ijk_from_lps @ moving_from_fixed_lps @ grid.lps_from_ijk, np.stack([i, j, k]))
        last = np.asarray(ct.size_ijk)[:, None] - 1
        covered = ((index >= 0) & (index <= last)).all(axis=0).reshape(grid.shape_kji)
        focus = self.mri.region if self.mri.focus is None else self.mri.focus
        seen = focus & torch.from_numpy(covered).to(focus.device)
        mri = replace(self.mri, focus=seen if bool(seen.any()) else focus)
        return PreparedPair(self.ct, mri, False, self.ct.moving())

    @property
    def lever(self) -> float:
        """How much further an error reaches when only a part of the head is seen: the root of whole over part."""
        volumes = sorted((self.ct.volume_mm3, self.mri.volume_mm3))
        return float(np.sqrt(volumes[1] / volumes[0]))


def prepare(
    ct: Volume,
    mri: Volume,
    device: torch.device,
    mri_mask: BoolArray | None = None,
    check: Callable[[], None] = lambda: None,
) -> PreparedPair:
    """Pool both volumes to all levels, tell the heads from what is around them, and choose the fixed one.

    Parameters
    ----------
    mri_mask
        The region that matters, on the MRI's grid, kji.
    check
        Called some times a second; raises to stop (cancel).

    Raises
    ------
    ImageContentError
        There is no head in one of them.
    """
    ct_side = _ct_side(ct, device, check)
    mri_side = _mri_side(mri, device, mri_mask, check)
    fixed = ct_is_fixed(ct_side, mri_side)
    check()
    return PreparedPair(ct_side, mri_side, fixed, (mri_side if fixed else ct_side).moving())


def ct_is_fixed(ct: PreparedHead, mri: PreparedHead) -> bool:
    """Say whether samples are to come from the CT.

    From a head that is only a part, because then the same samples count in every pose, and mutual information cannot
    grow by losing some; else from the CT, whose noise is larger in proportion to what it shows in soft tissue; but not
    from thick slices, which are better read between than sampled.
    """
    share = ct.volume_mm3 / mri.volume_mm3
    if not PART < share < 1 / PART:
        return share < 1
    return max(ct.levels[0].grid.spacing_ijk_mm) < THICK * max(mri.levels[0].grid.spacing_ijk_mm)


def _ct_side(ct: Volume, device: torch.device, check: Callable[[], None]) -> PreparedHead:
    # Masked after the first pooling: a CT of 512 x 512 x 400 voxels would need 400 MB for the masked copy.
    finest = _pooled(Level(torch.from_numpy(ct.array_kji).to(device), ct.grid), LEVELS_MM[0])
    check()
    values = finest.values.cpu().numpy()
    head = ct_head_mask(Volume(values, finest.grid, "CT", ct.name), margin_mm=MASK_MARGIN_MM)
    check()
    levels = _pyramid(Level(torch.from_numpy(np.where(head, values, np.float32(AIR_HU))).to(device), finest.grid))
    check()
    coarse = levels[MASK_LEVEL]
    core = coarse.values > -500
    if not bool(core.any()):
        raise ImageContentError(f"{ct.name}: no head can be told from the air around it. Check that it is the CT.")
    return PreparedHead(
        levels,
        core,
        _grown(core, coarse.grid),
        _centre(core, coarse.grid),
        None,
        torch.tensor(CT_FIXED_EDGES_HU, device=device),
        np.asarray(CT_MOVING_KNOTS_HU),
        torch.tensor(CT_SEARCH_EDGES_HU, device=device),
    )


def _mri_side(mri: Volume, device: torch.device, mask: BoolArray | None, check: Callable[[], None]) -> PreparedHead:
    levels = _pyramid(Level(torch.from_numpy(mri.array_kji).to(device), mri.grid))
    check()
    coarse = levels[MASK_LEVEL]
    background = float(coarse.values.min())
    threshold = background + 0.5 * (otsu_threshold(coarse.values.cpu().numpy()) - background)
    # Repeated at the border, so that a head cut off there is not eroded; a majority vote removes single bright voxels.
    bright = F.pad((coarse.values > threshold).float()[None, None], (1,) * 6, mode="replicate")
    core = F.avg_pool3d(bright, 3, stride=1)[0, 0] > 0.5
    if not bool(core.any()):
        raise ImageContentError(f"{mri.name}: no head can be told from the background. Check that it is the MRI.")
    region = _grown(core, coarse.grid)
    inside = coarse.values[region]
    inside = inside[:: len(inside) // 20_000 + 1]  # quantiles need no more
    edges = _spread(inside, MRI_BINS, 0.99)[1:-1].contiguous()
    knots = _spread(inside, CT_BINS - 3, 0.995).cpu().numpy().astype(np.float64)
    head = inside[inside > edges[1]]
    return PreparedHead(
        levels,
        core,
        region,
        _centre(core, coarse.grid),
        None if mask is None else _focus(mask, mri, coarse, region),
        edges,
        # Rising strictly, even where a large share of the values is the same.
        np.maximum.accumulate(knots) + np.arange(len(knots)) * 1e-6 * float(np.ptp(knots)),
        torch.quantile(head, torch.tensor(MRI_SEARCH_QUANTILES, device=device)),
    )


def _spread(values: torch.Tensor, bins: int, top: float) -> torch.Tensor:
    """Return bins + 1 edges: the mean of ranks, which spend most bins on noise, and of values, which do so on fat."""
    share = torch.linspace(0, 1, bins + 1, device=values.device)
    low, high = torch.quantile(values, 0.01), torch.quantile(values, top)
    return (torch.quantile(values, share) + share * (high - low) + low) / 2


def _cells(values: torch.Tensor, knots: FloatArray) -> torch.Tensor:
    """Map values to cells of the histogram, uint8: whole bins 1, 2, … at the knots, straight between them.

    Through a table of 4096 steps: one look-up a voxel is ten times as fast as a comparison with every knot.
    """
    low, high = float(knots[0]), float(knots[-1])
    steps = 4095
    bins = np.interp(np.linspace(low, high, steps + 1), knots, np.arange(1, len(knots) + 1))
    table = np.rint(bins * FINENESS).astype(np.uint8)
    scale = steps / (high - low)
    index = values.clamp(low, high).sub_(low).mul_(scale).add_(0.5).to(torch.int16)
    if index.device.type == "cpu":  # numpy's look-up is five times as fast as torch's
        return torch.from_numpy(table[index.numpy()])
    return torch.from_numpy(table).to(values.device)[index.int()]


def _pyramid(finest: Level) -> list[Level]:
    levels = [_pooled(finest, LEVELS_MM[0])]
    for spacing_mm in LEVELS_MM[1:]:
        levels.append(_pooled(levels[-1], spacing_mm))
    return levels


def _pooled(level: Level, spacing_mm: float) -> Level:
    """Average whole voxels together until a spacing is reached as nearly as whole numbers allow."""
    grid = level.grid
    # Two voxels stay along every axis: reading between them needs as many.
    factors = [
        max(1, min(round(spacing_mm / s), n // 2)) for s, n in zip(grid.spacing_ijk_mm, grid.size_ijk, strict=True)
    ]
    if max(factors) == 1:
        return level
    pooled = F.avg_pool3d(level.values[None, None], factors[::-1])[0, 0]
    first = affine(np.eye(3), (np.asarray(factors) - 1) / 2) @ np.diag([*factors, 1.0])
    size = pooled.shape[::-1]
    return Level(pooled, Grid.from_lps_from_ijk(grid.lps_from_ijk @ first, (size[0], size[1], size[2])))


def _focus(mask: BoolArray, mri: Volume, coarse: Level, region: torch.Tensor) -> torch.Tensor:
    """Return which voxels of 4 mm hold any of a mask, in the head and its rim."""
    k, j, i = np.nonzero(mask)
    index = np.rint((coarse.grid.ijk_from_lps @ mri.grid.lps_from_ijk)[:3] @ np.stack([i, j, k, np.ones_like(i)]))
    i, j, k = np.clip(index.astype(np.intp), 0, np.asarray(coarse.grid.size_ijk)[:, None] - 1)
    held = np.zeros(coarse.grid.shape_kji, dtype=bool)
    held[k, j, i] = True
    focus = torch.from_numpy(held).to(coarse.values.device) & region
    if not bool(focus.any()):
        raise ImageContentError(
            f"the mask of {mri.name} lies outside the head: draw it over the part of the head that matters."
        )
    return focus


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


def _moved(matrix: FloatArray, points: FloatArray) -> FloatArray:
    """Apply a 4x4 affine to points (3, n): many points in a row are an order faster than many rows of three."""
    return matrix[:3, :3] @ points + matrix[:3, 3:]
