"""The inside of the skull in a CT: the space that the inner table encloses, closed over every hole.

Flooding from the brain leaks through foramina, orbits and craniotomies. Seen from its middle, the inside of the skull
is nearly star-shaped, so a surface r(direction) describes it: the first bone on each ray, where that agrees with a
smooth surface that is fitted to all rays and ignores outliers; the smooth surface itself where there is no bone (a
hole, a foramen, the border of the field). The surface cannot leak; voxels of bone inside it are then left out.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt

from BrainFusionLib import kept
from BrainFusionLib.geometry import FloatArray, Grid, apply_affine
from BrainFusionLib.intensity.directions import around, smooth_basis, solid_angles, texel_of, unit_directions
from BrainFusionLib.intensity.head import ct_head_mask
from BrainFusionLib.intensity.pieces import distances, largest
from BrainFusionLib.intensity.rays import FAR_MM, FIRST_MM, STEP_MM, Rays, filled_in, first_crossing, in_view, rays_from
from BrainFusionLib.transform import Transform
from BrainFusionLib.values import ByValue
from BrainFusionLib.volume import BoolArray, Volume, VoxelArray

VOXEL_MM = 2.0
# Pooled layers made at once, so that what is between takes little memory, and stays in the cache.
LAYERS_AT_ONCE = 4
# Above the brain's HU: certainly bone, and half-way between brain and bone at the inner table. Relative to the brain,
# because a cone beam may be off by 100 HU.
BONE_OVER_BRAIN_HU, HALF_BONE_HU = 220.0, 400.0
AIR_HU = -400.0
# Bumps of the smooth surface and their width; weight of the penalty on them.
BUMPS, BUMP_DEG, PENALTY = 150, 22.0, 0.5
# A crossing of bone this near the smooth surface belongs to the inner table; further in, if its neighbours agree
# (the petrous ridge does, a lead does not).
NEAR_MM, RIDGE_MM, AGREEING_MM = 8.0, 22.0, 4.0
# The mask may lie this far beyond the surface, where the star does not see behind a ridge.
BEYOND_MM, CORE_MM = 2.0, 6.0
# The largest ball without bone must have at least this radius, and lie between bone. Nearer to the middle than
# this, what is as dense as bone is no inner table: two leads hid half of it, and pulled the smooth surface in by 60 mm.
LEAST_BALL_MM, LEAST_ENCLOSED = 22.0, 0.5


@dataclass(frozen=True, eq=False)
class InsideSkull(ByValue):
    """The inside of the skull, in the CT's space.

    Attributes
    ----------
    grid
        A grid of about 2 mm along the CT's axes.
    mask_kji
        Inside the inner table; bool, shape ``grid.shape_kji``. Includes CSF, vessels and intracranial air.
    depth_kji
        Depth below the surface along the ray from the centre, mm, negative outside; float32, -1000 far outside.
    hu_kji
        The CT on `grid`.
    centre_lps_mm
        The middle of the inside.
    radii_mm
        Distance of the surface from the centre, by direction (`directions.unit_directions`, along the CT's axes).
    found
        Directions in which the inner table was found; the surface is interpolated in the others.
    brain_hu, noise_hu
        The brain's median HU, and the standard deviation of the pooled voxels around it.
    """

    grid: Grid
    mask_kji: BoolArray
    depth_kji: VoxelArray
    hu_kji: VoxelArray
    centre_lps_mm: FloatArray
    radii_mm: FloatArray
    found: BoolArray
    brain_hu: float
    noise_hu: float

    @property
    def bone_hu(self) -> float:
        """HU above which a pooled voxel is bone."""
        return self.brain_hu + BONE_OVER_BRAIN_HU

    @cached_property
    def centre_kji(self) -> FloatArray:
        """Index of the centre on `grid`, (3,)."""
        index: FloatArray = apply_affine(self.grid.ijk_from_lps, self.centre_lps_mm)[::-1]
        return index

    @cached_property
    def head_kji(self) -> BoolArray:
        """The head on `grid`, without table and head holder."""
        return ct_head_mask(Volume(self.hu_kji, self.grid, "CT", "CT"))

    @cached_property
    def rays(self) -> Rays:
        """The CT along rays from the centre, in all directions."""
        return rays_from(self.hu_kji, np.asarray(self.grid.spacing_ijk_mm[::-1]), self.centre_kji)

    @cached_property
    def in_view(self) -> BoolArray:
        """Which samples of `rays` lie in the CT's field of view."""
        return in_view(self.rays, self.hu_kji, self.grid.spacing_ijk_mm, self.centre_kji, self.filled_kji)

    @property
    def share_in_view(self) -> float:
        """Share of the directions in which the surface lies in the CT's field of view."""
        at = np.clip(np.rint((self.radii_mm - FIRST_MM) / STEP_MM).astype(np.intp), 0, len(self.rays.radii_mm) - 1)
        return float(self.in_view[np.arange(len(at)), at].mean())

    @cached_property
    def filled_kji(self) -> BoolArray | None:
        """What was filled into the CT outside an oblique field of view (`rays.filled_in`)."""
        return filled_in(self.hu_kji)

    @property
    def volume_ml(self) -> float:
        """Volume of the mask."""
        return float(np.count_nonzero(self.mask_kji) * np.prod(self.grid.spacing_ijk_mm) / 1000)

    def depth_at(self, points_lps_mm: FloatArray) -> VoxelArray:
        """Return the depth below the inner table at points of the CT, (n, 3) LPS mm to (n,); -1000 outside."""
        ijk = np.rint(apply_affine(self.grid.ijk_from_lps, points_lps_mm)).astype(np.intp)
        known: BoolArray = np.asarray(((ijk >= 0) & (ijk < self.grid.size_ijk)).all(axis=1))
        i, j, k = np.where(np.expand_dims(known, 1), ijk, 0).T
        found: VoxelArray = np.where(known & self.mask_kji[k, j, i], self.depth_kji[k, j, i], np.float32(-1000))
        return found

    def depth_on(self, grid: Grid, transform: Transform | None = None) -> VoxelArray:
        """Return the depth below the inner table at the voxels of another grid, -1000 where the mask is empty.

        Parameters
        ----------
        grid
            The MRI's grid, for example.
        transform
            Maps points of `grid` to points of the CT, LPS mm.

        Returns
        -------
        float32, shape ``grid.shape_kji``; the nearest voxel's value. Positive inside the skull (`mask_kji`).
        """
        depth = np.where(self.mask_kji, np.maximum(self.depth_kji, np.float32(0.1)), np.float32(-1000))
        return self._nearest_on(depth, grid, transform)

    def hu_on(self, grid: Grid, transform: Transform | None = None) -> VoxelArray:
        """Return the CT at the voxels of another grid, as `depth_on` does: HU relative to the brain's median."""
        hu = np.where(self.mask_kji, self.hu_kji - np.float32(self.brain_hu), np.float32(-1000))
        return self._nearest_on(hu, grid, transform)

    def _nearest_on(self, values_kji: VoxelArray, grid: Grid, transform: Transform | None) -> VoxelArray:
        """Return the nearest voxel's value of an array on `grid` at the voxels of another grid, -1000 outside."""
        moving_from_fixed = np.eye(4) if transform is None else transform.moving_from_fixed_lps
        matrix = (self.grid.ijk_from_lps @ moving_from_fixed @ grid.lps_from_ijk).astype(np.float64)
        i, j = (np.arange(n) for n in grid.size_ijk[:2])
        along, across = ([row[axis] * at for row in matrix[:3]] for axis, at in enumerate((i, j)))
        values, strides = values_kji.ravel(), (1, self.grid.size_ijk[0], self.grid.size_ijk[0] * self.grid.size_ijk[1])
        found: VoxelArray = np.full(grid.shape_kji, np.float32(-1000))
        # A slice at a time: its arrays stay in the processor's cache.
        for k in range(grid.size_ijk[2]):
            flat: npt.NDArray[np.int32] = np.zeros(grid.shape_kji[1:], np.int32)
            inside: BoolArray = np.ones(flat.shape, bool)
            for row, x, y, size, stride in zip(matrix[:3], along, across, self.grid.size_ijk, strides, strict=True):
                at = (row[2] * k + y + (row[3] + 0.5)).astype(np.float32)[:, None] + x.astype(np.float32)
                flat += np.clip(at, 0, size - 1).astype(np.int32) * np.int32(stride)
                inside &= (at >= 0) & (at < size)
            if inside.any():
                np.copyto(found[k], values.take(flat), where=inside)
        return found


# Finds the inside of a CT's skull when it is first asked for.
FindInside = Callable[[], InsideSkull | None]


def inside_skull(ct: Volume) -> InsideSkull | None:
    """Find the inside of the skull; ``None`` if no space between bones is in view.

    Parameters
    ----------
    ct
        Hounsfield units, on its own grid or on another (-1000 outside the field).
    """
    return kept.of(ct, "inside of the skull", lambda: _inside_skull(ct))


def _inside_skull(ct: Volume) -> InsideSkull | None:
    hu, grid = pooled_to(ct, VOXEL_MM)
    spacing = np.asarray(grid.spacing_ijk_mm[::-1])
    start = _middle_of_largest_ball(hu, spacing)
    if start is None:
        return None
    brain, noise = _brain_values(hu, spacing, start)
    bone = brain + BONE_OVER_BRAIN_HU
    centre: FloatArray = start
    every = np.arange(0, len(unit_directions()), 7)
    for _ in range(2):
        smooth = _smooth_surface(first_crossing(rays_from(hu, spacing, centre, every), bone, LEAST_BALL_MM), every)
        centre = np.asarray(centre + _centroid(smooth)[::-1] / spacing, dtype=np.float64)
    rays = rays_from(hu, spacing, centre)
    first = first_crossing(rays, bone, LEAST_BALL_MM)
    half = np.arange(0, len(first), 2)
    smooth = _smooth_surface(first[half], half)
    own = _inner_table(rays, first, smooth, bone)
    found = np.isfinite(own)
    radii = np.where(found, own, smooth)
    depth, mask = _mask(hu, spacing, centre, radii, brain + HALF_BONE_HU)
    return InsideSkull(grid, mask, depth, hu, apply_affine(grid.lps_from_ijk, centre[::-1]), radii, found, brain, noise)


def pooled_to(volume: Volume, voxel_mm: float) -> tuple[VoxelArray, Grid]:
    """Return the means of blocks of voxels of about a size; thick slices are interpolated linearly."""
    array, spacing = volume.array_kji, list(volume.grid.spacing_ijk_mm[::-1])
    blocks = [min(n, max(1, round(voxel_mm / size))) for n, size in zip(array.shape, spacing, strict=True)]
    if max(blocks) > 1:
        end, some = array.shape[0] // blocks[0] * blocks[0], blocks[0] * LAYERS_AT_ONCE
        array = np.concatenate([_block_means(array[k : min(end, k + some)], blocks) for k in range(0, end, some)])
    first = [(block - 1) / 2 for block in blocks]
    spacing = [size * block for size, block in zip(spacing, blocks, strict=True)]
    for axis in range(3):
        parts = int(spacing[axis] / voxel_mm + 0.25)
        if parts > 1 and array.shape[axis] > 1:
            array = _interpolated(array, axis, parts)
            spacing[axis] /= parts
    k, j, i = array.shape
    origin = apply_affine(volume.grid.lps_from_ijk, np.array(first[::-1]))
    spacing_ijk_mm = (float(spacing[2]), float(spacing[1]), float(spacing[0]))
    return np.ascontiguousarray(array), Grid((i, j, k), spacing_ijk_mm, tuple(origin), volume.grid.direction)


# --- steps -----------------------------------------------------------------------------------------------------------


def _middle_of_largest_ball(hu: VoxelArray, spacing: FloatArray) -> FloatArray | None:
    """Return the index (k, j, i) of the middle of the head's largest ball without bone or air, between bones.

    Of the head, because a phantom that lies beside it may hold a larger one.
    """
    steps = [max(1, round(4.0 / s)) for s in spacing]
    coarse = hu[tuple(slice(s // 2, None, s) for s in steps)]
    bone = coarse > 300
    if not bone.any():
        return None
    obstacle = np.pad(bone | (coarse < -300), 1, constant_values=True)
    far = distances(obstacle, spacing * steps)[1:-1, 1:-1, 1:-1].astype(np.float32)
    enclosed = np.zeros(coarse.shape, np.float32)
    for axis in range(3):
        enclosed += np.maximum.accumulate(bone, axis=axis)
        enclosed += np.flip(np.maximum.accumulate(np.flip(bone, axis), axis=axis), axis)
    enclosed /= 6
    k, j, i = coarse.shape
    lengths = (spacing * steps)[::-1].tolist()
    far[~ct_head_mask(Volume(coarse, Grid((i, j, k), (lengths[0], lengths[1], lengths[2])), "CT", "CT"))] = 0
    # Rounded, so that the first of equals is taken, whatever computed the distances.
    best = np.unravel_index(int(np.round(far * enclosed**2, 3).argmax()), far.shape)
    if far[best] < LEAST_BALL_MM or enclosed[best] < LEAST_ENCLOSED:
        return None
    return np.array([float(at * step + step // 2) for at, step in zip(best, steps, strict=True)])


def _brain_values(hu: VoxelArray, spacing: FloatArray, centre: FloatArray) -> tuple[float, float]:
    """Return the median and the standard deviation of the voxels within 15 mm of the centre."""
    box = tuple(slice(max(0, int(c - 15 / s)), int(c + 15 / s) + 1) for c, s in zip(centre, spacing, strict=True))
    values = hu[box]
    median = float(np.median(values))
    return median, float(1.4826 * np.median(np.abs(values - np.float32(median))))


def _smooth_surface(radii: FloatArray, chosen: npt.NDArray[np.intp]) -> FloatArray:
    """Fit a smooth surface to radii in some directions (NaN: none), ignoring outliers; return it in all directions."""
    basis, penalty = smooth_basis(BUMPS, BUMP_DEG)
    known = np.isfinite(radii)
    b, y = basis.take(chosen[known], axis=0), radii[known]
    rows = np.empty_like(b)
    middle = float(np.median(y)) if len(y) else 70.0
    weight: FloatArray = np.ones(len(y))
    found: FloatArray = np.zeros(basis.shape[1])
    for turn in range(7):
        # Without outliers, and as a product with itself: half the work.
        used = np.flatnonzero(weight > 0)
        root = np.sqrt(weight[used])
        rooted = b.take(used, axis=0, out=rows[: len(used)], mode="clip")
        rooted *= root[:, None]
        normal = rooted.T @ rooted + PENALTY * np.diag(penalty)
        found = np.asarray(np.linalg.solve(normal, rooted.T @ (root * (y[used] - middle))), dtype=np.float64)
        # Tukey's weights, first wide, so that the ears and the face are outliers at the end only.
        off = (y - middle - b @ found) / max(NEAR_MM, 25.0 * 0.6**turn)
        weight = np.asarray(np.clip(1 - off**2, 0, None) ** 2, dtype=np.float64)
    # Rounded, so that the number of threads of the matrix product makes no difference.
    surface = np.round(np.clip(middle + basis @ found, FIRST_MM, FAR_MM), 6)
    return np.asarray(surface, dtype=np.float64)


def _centroid(radii: FloatArray) -> FloatArray:
    """Return the centroid of the star relative to its centre, (x, y, z) mm."""
    moment = (unit_directions() * (solid_angles() * radii**4 / 4)[:, None]).sum(axis=0)
    centroid: FloatArray = moment / (solid_angles() * radii**3 / 3).sum()
    return centroid


def _inner_table(rays: Rays, first: FloatArray, smooth: FloatArray, bone_hu: float) -> FloatArray:
    """Return the radius at which each ray enters the inner table, NaN where no bone is near the smooth surface."""
    hit = (rays.values > bone_hu) & rays.in_field
    enters = hit.copy()
    enters[:, 1:] &= ~hit[:, :-1]
    edges = rays.radii_mm - np.float32(STEP_MM / 2)
    off = np.where(enters, np.abs(edges - smooth[:, None].astype(np.float32)), np.float32(1000))
    best = off.argmin(axis=1)
    near = off[np.arange(len(off)), best] < NEAR_MM
    own = np.where(near, edges[best].astype(np.float64), np.nan)
    with np.errstate(invalid="ignore"):
        agreeing = (np.abs(first[around(3.0)] - first[:, None]) < AGREEING_MM).mean(axis=1)
        ridge = (first > smooth - RIDGE_MM) & (first < smooth + NEAR_MM) & (agreeing > 0.6)
    found: FloatArray = np.where(ridge, first, own)
    return found


def _mask(
    hu: VoxelArray, spacing: FloatArray, centre: FloatArray, radii: FloatArray, half_hu: float
) -> tuple[VoxelArray, BoolArray]:
    """Return the depth below the surface, and the largest piece inside it that is not bone."""
    reach = float(radii.max()) + BEYOND_MM + 2
    box = tuple(
        slice(max(0, int(c - reach / s)), min(n, int(c + reach / s) + 2))
        for c, s, n in zip(centre, spacing, hu.shape, strict=True)
    )
    k, j, i = (
        ((np.arange(b.start, b.stop) - c) * s).astype(np.float32) for b, c, s in zip(box, centre, spacing, strict=True)
    )
    values, surface = hu[box], radii.astype(np.float32)
    depth: VoxelArray = np.full(values.shape, np.float32(-1000))
    x, y = np.tile(i, len(j)), np.repeat(j, len(i))
    # A slice at a time: its arrays stay in the processor's cache.
    for z, layer in zip(k, depth, strict=True):
        distance = np.sqrt(z**2 + y**2 + x**2)
        at = np.flatnonzero(distance < reach)
        layer.ravel()[at] = surface[texel_of(np.stack([x[at], y[at], np.full(len(at), z)]))] - distance[at]
    # Deep inside, what is as dense as bone is a calcification, a clip or a lead.
    open_space = (depth > -BEYOND_MM) & ((values < half_hu) | (depth > CORE_MM))
    mask = np.zeros(hu.shape, bool)
    mask[box] = grown(largest(shrunk(open_space))) & open_space
    whole = np.full(hu.shape, np.float32(-1000))
    whole[box] = depth
    return whole, mask


# --- small tools -----------------------------------------------------------------------------------------------------


def grown(mask: BoolArray) -> BoolArray:
    """Return a mask of any number of axes and its neighbours along them."""
    result = mask.copy()
    for axis in range(mask.ndim):
        low = tuple(slice(None, -1) if a == axis else slice(None) for a in range(mask.ndim))
        high = tuple(slice(1, None) if a == axis else slice(None) for a in range(mask.ndim))
        result[low] |= mask[high]
        result[high] |= mask[low]
    return result


def shrunk(mask: BoolArray) -> BoolArray:
    """Return the voxels of a mask whose six neighbours are in it; outside the border counts as inside."""
    return ~grown(~mask)


def smoothed(array: VoxelArray) -> VoxelArray:
    """Return an array smoothed by 1-2-1 along each axis: noise of a CT is larger than its soft-tissue contrast."""
    for axis in range(3):
        padded = np.pad(array, [(1, 1) if a == axis else (0, 0) for a in range(3)], mode="edge")
        before, here, after = (
            padded[tuple(slice(n, n + array.shape[a]) if a == axis else slice(None) for a in range(3))]
            for n in range(3)
        )
        array = (np.float32(0.25) * (before + after) + np.float32(0.5) * here).astype(np.float32)
    return array


def _block_means(array: VoxelArray, blocks: Sequence[int]) -> VoxelArray:
    for axis, block in enumerate(blocks):
        if block == 1:
            continue
        end = array.shape[axis] // block * block
        # Of large blocks every second voxel: enough against noise, half the time.
        chosen = range(0, block, 2 if block >= 4 else 1)
        parts = [array[tuple(slice(n, end, block) if a == axis else slice(None) for a in range(3))] for n in chosen]
        array = parts[0].copy()
        for part in parts[1:]:
            array += part
        array *= np.float32(1 / len(chosen))
    return array


def _interpolated(array: VoxelArray, axis: int, parts: int) -> VoxelArray:
    at = np.arange((array.shape[axis] - 1) * parts + 1) / parts
    low = np.minimum(at.astype(np.intp), array.shape[axis] - 2)
    weight = (at - low).astype(np.float32).reshape([-1 if a == axis else 1 for a in range(3)])
    found: VoxelArray = np.take(array, low, axis) * (1 - weight) + np.take(array, low + 1, axis) * weight
    return found
