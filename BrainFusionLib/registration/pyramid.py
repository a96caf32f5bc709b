"""The data that search and refinement work on: both heads pooled to coarser voxels, and samples of one of them.

Samples are taken from the **fixed** head; the **moving** head is interpolated. `prepare` chooses whether the CT is the
fixed one, because the accuracy depends on it: see `ct_is_fixed`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import cached_property

import numpy as np

from BrainFusionLib import kept
from BrainFusionLib.backend import Array, Backend, on_cpu
from BrainFusionLib.errors import ImageContentError
from BrainFusionLib.geometry import FloatArray, Grid, affine, apply_affine
from BrainFusionLib.intensity import ct_head_mask, otsu_threshold
from BrainFusionLib.registration.histogram import CT_BINS, FINENESS, MRI_BINS, ROW, Moving, Samples, spread
from BrainFusionLib.volume import AIR_HU, BoolArray, Volume, VoxelArray

LEVELS_MM = (1.0, 2.0, 4.0, 8.0)
MASK_LEVEL = 2
# Samples are taken up to this far outside the head, too, because the air next to the skin shows where the head ends.
RIM_MM = 12.0
# The CT's head mask is coarse; grown by one voxel, it cuts off no skin. Without this, poses were biased by 0.05 mm.
MASK_MARGIN_MM = 4.0

# Soft tissue (0 to 80 HU) gets half of the bins: brain, CSF and muscle differ there by a few HU only.
CT_MOVING_KNOTS_HU = (-1000.0, -200.0, -60.0, 0.0, 20.0, 40.0, 60.0, 90.0, 200.0, 500.0, 900.0, 1500.0)
CT_FIXED_EDGES_HU = (-900.0, -600.0, -300.0, -120.0, -80.0, -40.0, -10.0, 5.0, 15.0, 22.0, 30.0, 37.0, 45.0, 60.0, 80.0,
                     120.0, 250.0, 600.0, 1000.0)  # fmt: skip
CT_SEARCH_EDGES_HU = (-400.0, 45.0, 300.0)
MRI_SEARCH_QUANTILES = (0.1, 0.35, 0.6, 0.85)

# Least share of the smaller head inside the other volume: with tiny overlaps, scores are arbitrary.
LEAST_OVERLAP = 0.25
# A head with less than this share of the other's volume is only a part of one (a slab, a skull-stripped brain).
PART = 0.7
# Steps in which the visible share of a head is measured.
SHARES = 64
# A registration draws eight times; other seeds and numbers of samples draw anew.
MOST_DRAWN = 16
# A CT is thick-sliced if its slice distance is this many times the MRI's.
THICK = 1.6


@dataclass(frozen=True)
class Level:
    """A pooled volume: `values` (K, J, I) float32, of the backend, on `grid`."""

    values: Array
    grid: Grid


@dataclass(frozen=True)
class PreparedHead:
    """One head at each of `LEVELS_MM`, finest first.

    Attributes
    ----------
    core, region
        Masks on the grid of 4 mm: the head; the head with the rim around it.
    centre_lps_mm
        Its centre of gravity, (3,) float64.
    focus
        The registration mask, on the grid of 4 mm: the last refinement uses samples from there only.
    visible
        The part that the other head shows, too, on the grid of 4 mm: likewise.
    edges
        Inner edges of the bins of its samples, MRI_BINS - 1, used when it is the fixed head.
    knots
        Values at the histogram's whole bins 1, 2, …, used when it is the moving head.
    search_edges
        Inner edges of the few bins of the search; the first bin is air.
    backend
        What its levels are arrays of.
    drawn
        The samples that were drawn, by level, count and seed.
    """

    levels: list[Level]
    core: BoolArray
    region: BoolArray
    centre_lps_mm: FloatArray
    focus: BoolArray | None
    edges: VoxelArray
    knots: FloatArray
    search_edges: VoxelArray
    backend: Backend
    visible: BoolArray | None = None
    drawn: dict[tuple[int, int, int], Samples] = field(default_factory=dict, init=False, repr=False, compare=False)

    @property
    def volume_mm3(self) -> float:
        """Volume of the head."""
        return float(self.core.sum()) * float(np.prod(self.levels[MASK_LEVEL].grid.spacing_ijk_mm))

    def samples(self, level: int, count: int, seed: int) -> Samples:
        """Return `count` samples in and around the head, evenly spread; a seed gives the same ones on every device.

        They are at voxel centres, because interpolation smooths the noise by an amount that depends on the position:
        without it on this side the error is half as large (docs/measured.md).
        """
        if (level, count, seed) not in self.drawn:
            if len(self.drawn) >= MOST_DRAWN:
                self.drawn.clear()
            self.drawn[level, count, seed] = self._drawn(level, count, seed)
        return self.drawn[level, count, seed]

    def _drawn(self, level: int, count: int, seed: int) -> Samples:
        generator = np.random.default_rng(seed)
        region = self.region if self.focus is None or level > 0 else self.focus
        inside = np.flatnonzero(region)
        visible = None if self.visible is None or level > 0 else self.visible.ravel()
        if visible is not None:
            # More are drawn, and those out of sight left out: a voxel more in sight must not change all others.
            count = round(count / max(1, round(SHARES * float(visible[inside].mean()))) * SHARES)
        picked = inside[((np.arange(count) + generator.random(count)) * (len(inside) / count)).astype(np.intp)]
        offset = generator.uniform(-0.5, 0.5, (3, count))
        if visible is not None:
            seen = visible[picked]
            picked, offset = picked[seen], offset[:, seen]
        k, j, i = np.unravel_index(picked, self.region.shape)
        position = np.stack([i, j, k]) + offset
        coarse, fine = self.levels[MASK_LEVEL].grid, self.levels[level].grid
        index = np.rint(_moved(fine.ijk_from_lps @ coarse.lps_from_ijk, position))
        index = np.clip(index, 0, np.asarray(fine.size_ijk)[:, None] - 1)
        ni, nj, _ = fine.size_ijk
        flat = (index[2] * nj + index[1]) * ni + index[0]
        values = self.backend.taken(self.levels[level].values, flat.astype(np.intp))
        relative = _moved(fine.lps_from_ijk, index) - self.centre_lps_mm[:, None]
        rows = self.backend.bins(values, self.edges) * ROW
        return Samples(self.backend.put(relative.astype(np.float32)), rows, self.backend)

    @cached_property
    def cells(self) -> list[Moving]:
        """Every level in cells of the histogram."""
        return [
            Moving(_cells(level.values, self.knots, self.backend), level.grid.ijk_from_lps) for level in self.levels
        ]


@dataclass(frozen=True)
class PreparedPair:
    """Both heads, which of them is fixed, and the moving head's levels in cells of the histogram."""

    ct: PreparedHead
    mri: PreparedHead
    ct_is_fixed: bool
    cells: list[Moving]

    @property
    def fixed(self) -> PreparedHead:
        """The head from which samples are taken."""
        return self.ct if self.ct_is_fixed else self.mri

    @property
    def moving(self) -> PreparedHead:
        """The head that is interpolated."""
        return self.mri if self.ct_is_fixed else self.ct

    @property
    def least_overlap(self) -> float:
        """Least share of the fixed head's samples inside the moving volume for a pose to count."""
        return LEAST_OVERLAP * min(1.0, self.moving.volume_mm3 / self.fixed.volume_mm3)

    def with_other_fixed(self, moving_from_fixed_lps: FloatArray) -> PreparedPair:
        """Return the same pair with the moving head as the fixed one, its samples limited to the part that both show.

        Parameters
        ----------
        moving_from_fixed_lps
            4x4, from points of the head that becomes the fixed one to the other's: the pose found so far.
        """
        head, other = self.moving, self.fixed
        grid, seen = head.levels[MASK_LEVEL].grid, other.levels[MASK_LEVEL].grid
        k, j, i = np.indices(grid.shape_kji).reshape(3, -1)
        index = _moved(seen.ijk_from_lps @ moving_from_fixed_lps @ grid.lps_from_ijk, np.stack([i, j, k]))
        last = np.asarray(seen.size_ijk)[:, None] - 1
        covered: BoolArray = np.all((index >= 0) & (index <= last), axis=0).reshape(grid.shape_kji)
        focus = head.region if head.focus is None else head.focus
        fixed = replace(head, visible=covered if (focus & covered).any() else None)
        if self.ct_is_fixed:
            return PreparedPair(self.ct, fixed, False, self.ct.cells)
        return PreparedPair(fixed, self.mri, True, self.mri.cells)

    @property
    def are_whole(self) -> bool:
        """Whether both volumes show most of the head."""
        return PART < self.ct.volume_mm3 / self.mri.volume_mm3 < 1 / PART

    @property
    def samples_the_thin(self) -> bool:
        """Whether the fixed head has the thinner slices of two whole heads, of which one is thick-sliced.

        The last refinement samples the thick slices where they were measured: an interpolated thick slice is too
        smooth between the slices, which pulls bone towards them (CT of 3 mm: 0.05 instead of 0.09 mm).
        """
        fixed, moving = (max(head.levels[0].grid.spacing_ijk_mm) for head in (self.fixed, self.moving))
        return moving >= THICK * fixed and self.are_whole

    @property
    def lever(self) -> float:
        """How much an error grows when only a part of the head is visible: the square root of whole over part."""
        volumes = sorted((self.ct.volume_mm3, self.mri.volume_mm3))
        return float(np.sqrt(volumes[1] / volumes[0]))


def prepare(
    ct: Volume,
    mri: Volume,
    backend: Backend,
    mri_mask: BoolArray | None = None,
    check: Callable[[], None] = lambda: None,
) -> PreparedPair:
    """Pool both volumes to all levels, segment the heads, and choose the fixed one.

    Parameters
    ----------
    mri_mask
        The registration mask, on the MRI's grid, kji.
    check
        Called a few times a second; raises to stop (cancel).

    Raises
    ------
    ImageContentError
        One of the volumes shows no head.
    """
    ct_head = _known(ct, backend, lambda: _ct_head(ct, backend, check))
    mri_head = _known(mri, backend, lambda: _mri_head(mri, backend, check))
    if mri_mask is not None:
        levels = mri_head.levels
        mri_head = replace(mri_head, focus=_focus(mri_mask, mri, levels[MASK_LEVEL].grid, mri_head.region))
    fixed = ct_is_fixed(ct_head, mri_head)
    check()
    return PreparedPair(ct_head, mri_head, fixed, (mri_head if fixed else ct_head).cells)


def _known(volume: Volume, backend: Backend, find: Callable[[], PreparedHead]) -> PreparedHead:
    """Return a head that an earlier job left, or find it; nothing is left in a graphics card's memory."""
    return kept.of(volume, "head", find) if backend is on_cpu() else find()


def ct_is_fixed(ct: PreparedHead, mri: PreparedHead) -> bool:
    """Return whether samples are taken from the CT.

    If one volume shows only a part of the head, that part is sampled: then the same samples count in every pose, and
    mutual information cannot grow by losing some. Otherwise the CT is sampled, because its noise is larger relative to
    its soft-tissue contrast; but not if its slices are thick, because those are better interpolated than sampled.
    """
    share = ct.volume_mm3 / mri.volume_mm3
    if not PART < share < 1 / PART:
        return share < 1
    return max(ct.levels[0].grid.spacing_ijk_mm) < THICK * max(mri.levels[0].grid.spacing_ijk_mm)


def _ct_head(ct: Volume, backend: Backend, check: Callable[[], None]) -> PreparedHead:
    # Masked after the first pooling: a CT of 512 x 512 x 400 voxels would need 400 MB for the masked copy.
    finest = _pooled(Level(backend.put(ct.array_kji), ct.grid), LEVELS_MM[0], backend)
    check()
    values = backend.host(finest.values)
    head = ct_head_mask(Volume(values, finest.grid, "CT", ct.name), margin_mm=MASK_MARGIN_MM)
    check()
    values = values.copy() if np.may_share_memory(values, ct.array_kji) else values
    values[~head] = AIR_HU
    levels = _pyramid(Level(backend.put(values), finest.grid), backend)
    check()
    grid = levels[MASK_LEVEL].grid
    core = backend.host(levels[MASK_LEVEL].values) > -500
    if not core.any():
        raise ImageContentError(f"{ct.name}: no head was found in the air around it. Check that this is the CT.")
    return PreparedHead(
        levels,
        core,
        _grown(core, grid),
        _centre(core, grid),
        None,
        np.asarray(CT_FIXED_EDGES_HU, dtype=np.float32),
        np.asarray(CT_MOVING_KNOTS_HU),
        np.asarray(CT_SEARCH_EDGES_HU, dtype=np.float32),
        backend,
    )


def _mri_head(mri: Volume, backend: Backend, check: Callable[[], None]) -> PreparedHead:
    levels = _pyramid(Level(backend.put(mri.array_kji), mri.grid), backend)
    check()
    values, grid = backend.host(levels[MASK_LEVEL].values), levels[MASK_LEVEL].grid
    background = float(values.min())
    threshold = background + 0.5 * (otsu_threshold(values) - background)
    # The border is replicated, so that a head cut off there is not eroded; a majority vote removes single voxels.
    votes = np.pad((values > np.float32(threshold)).view(np.uint8), 1, mode="edge")
    for axis in range(3):
        votes = sum(np.moveaxis(votes, axis, 0)[first : first + values.shape[axis]] for first in range(3))  # type: ignore[assignment]
        votes = np.moveaxis(votes, 0, axis)
    core = votes > 13
    if not core.any():
        raise ImageContentError(f"{mri.name}: no head was found against the background. Check that this is the MRI.")
    region = _grown(core, grid)
    inside = values[region]
    inside = inside[:: len(inside) // 20_000 + 1]  # enough for quantiles
    edges = spread(inside, MRI_BINS, 0.99)[1:-1]
    knots = spread(inside, CT_BINS - 3, 0.995).astype(np.float64)
    head = inside[inside > edges[1]]
    return PreparedHead(
        levels,
        core,
        region,
        _centre(core, grid),
        None,
        edges,
        # Strictly increasing, even if a large share of the values is equal.
        np.maximum.accumulate(knots) + np.arange(len(knots)) * 1e-6 * float(np.ptp(knots)),
        np.quantile(head, MRI_SEARCH_QUANTILES).astype(np.float32),
        backend,
    )


def _cells(values: Array, knots: FloatArray, backend: Backend) -> Array:
    """Map values to cells of the histogram, uint8: whole bins 1, 2, … at the knots, linear between them.

    A look-up table of 4096 steps is ten times as fast as comparing every voxel with every knot.
    """
    low, high = float(knots[0]), float(knots[-1])
    steps = 4095
    bins = np.interp(np.linspace(low, high, steps + 1), knots, np.arange(1, len(knots) + 1))
    return backend.cells(values, np.rint(bins * FINENESS).astype(np.uint8), low, high)


def _pyramid(finest: Level, backend: Backend) -> list[Level]:
    levels = [_pooled(finest, LEVELS_MM[0], backend)]
    for spacing_mm in LEVELS_MM[1:]:
        levels.append(_pooled(levels[-1], spacing_mm, backend))
    return levels


def _pooled(level: Level, spacing_mm: float, backend: Backend) -> Level:
    """Average blocks of whole voxels to a spacing as close to `spacing_mm` as possible."""
    grid = level.grid
    # At least two voxels remain along every axis: interpolation needs as many.
    factors = [
        max(1, min(round(spacing_mm / s), n // 2)) for s, n in zip(grid.spacing_ijk_mm, grid.size_ijk, strict=True)
    ]
    if max(factors) == 1:
        return level
    pooled = backend.pool(level.values, factors[::-1])
    first = affine(np.eye(3), (np.asarray(factors) - 1) / 2) @ np.diag([*factors, 1.0])
    size = pooled.shape[::-1]
    return Level(pooled, Grid.from_lps_from_ijk(grid.lps_from_ijk @ first, (size[0], size[1], size[2])))


def _focus(mask: BoolArray, mri: Volume, grid: Grid, region: BoolArray) -> BoolArray:
    """Return the voxels of 4 mm in the head and its rim that contain any of a mask."""
    k, j, i = np.nonzero(mask)
    index = np.rint((grid.ijk_from_lps @ mri.grid.lps_from_ijk)[:3] @ np.stack([i, j, k, np.ones_like(i)]))
    i, j, k = np.clip(index.astype(np.intp), 0, np.asarray(grid.size_ijk)[:, None] - 1)
    marked = np.zeros(grid.shape_kji, dtype=bool)
    marked[k, j, i] = True
    focus: BoolArray = marked & region
    if not focus.any():
        raise ImageContentError(
            f"the registration mask of {mri.name} is outside the head. Draw it over the part of the head where the "
            "alignment matters most."
        )
    return focus


def _grown(core: BoolArray, grid: Grid) -> BoolArray:
    """Grow a mask by `RIM_MM` along each axis."""
    grown = core.copy()
    for axis, spacing in enumerate(grid.spacing_ijk_mm[::-1]):
        before, after = np.moveaxis(grown.copy(), axis, 0), np.moveaxis(grown, axis, 0)
        for step in range(1, min(max(1, round(RIM_MM / spacing)), len(before) - 1) + 1):
            after[step:] |= before[:-step]
            after[:-step] |= before[step:]
    return grown


def _centre(mask: BoolArray, grid: Grid) -> FloatArray:
    """Return the centre of gravity of a mask, LPS mm, (3,) float64; the grid's centre where the mask is empty."""
    index = np.argwhere(mask)
    if len(index) == 0:
        return np.asarray(grid.centre_lps_mm)
    return apply_affine(grid.lps_from_ijk, index.mean(axis=0)[::-1])


def _moved(matrix: FloatArray, points: FloatArray) -> FloatArray:
    """Apply a 4x4 affine to points (3, n): ten times as fast in this layout as for points (n, 3)."""
    return matrix[:3, :3] @ points + matrix[:3, 3:]
