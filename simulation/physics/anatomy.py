"""What the physics needs to know of a head, prepared once: fat apart from muscle, the cavity, landmarks, points."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property, lru_cache

import numpy as np
import SimpleITK as sitk

from BrainFusionLib.geometry import FloatArray, Grid, apply_affine
from BrainFusionLib.volume import BoolArray, VoxelArray
from simulation.heads import Head
from simulation.itk import itk_image
from simulation.render import smooth_noise
from simulation.tissues import BONE, BRAIN, INSIDE_SKULL, Coarse

# Fields change over millimetres: they are worked out on every n-th voxel.
STEP = 3
# Subcutaneous fat is this deep at the most; deeper, the texture tells fat between the muscles.
FAT_DEPTH_MM = 7.0
FAT_TEXTURE = 0.25
SKULL_POINTS = 3000
# Parts of the skull lower than this under the brain's middle are face and neck.
CRANIUM_MM = 45.0


@dataclass(frozen=True, eq=False)
class Anatomy:
    """A head with what the physics needs to know of it.

    Attributes
    ----------
    head
        Coarse tissues, with `Coarse.SOFT` divided into fat and muscle.
    texture
        -1 to 1, on the head's grid: how bone, marrow and mucosa vary. It moves with the tissue.
    """

    head: Head
    texture: VoxelArray

    @property
    def grid(self) -> Grid:
        """Where the voxels are."""
        return self.head.grid

    @cached_property
    def coarse_grid(self) -> Grid:
        """Grid of every third voxel."""
        return every(self.grid, STEP)

    @cached_property
    def inside(self) -> BoolArray:
        """The voxels inside the skull, shape of the head."""
        found = np.isin(self.head.tissue_kji, INSIDE_SKULL)
        vessels = self.head.tissue_kji == Coarse.VESSEL
        vessels[: int(self.low_z_voxel)] = False
        image = sitk.BinaryMorphologicalClosing(itk_image(found | vessels, self.grid), [2, 2, 2])
        closed: BoolArray = sitk.GetArrayFromImage(image).astype(bool)
        return closed & ~np.isin(self.head.tissue_kji, BONE)

    @cached_property
    def bone_depth_mm(self) -> VoxelArray:
        """How deep each voxel of the bone lies under its surface, shape of the head; 0 outside."""
        # From the surface, which is half a voxel before the first voxel outside.
        deep = distance_mm(~np.isin(self.head.tissue_kji, BONE), self.grid) - 0.5 * self.grid.spacing_ijk_mm[0]
        depth: VoxelArray = np.maximum(deep, 0)
        return depth

    def with_tables(self, table_mm: float) -> Anatomy:
        """Return the same head with compact bone of a thickness, and marrow wherever the bone is deeper."""
        tissue, bone = self.head.tissue_kji.copy(), np.isin(self.head.tissue_kji, BONE)
        tissue[bone] = np.where(self.bone_depth_mm[bone] > table_mm, Coarse.CANCELLOUS, Coarse.CORTICAL)
        return Anatomy(Head(self.head.name, tissue, self.grid), self.texture)

    @cached_property
    def low_z_voxel(self) -> float:
        """Lowest slice with cerebellum: about the foramen magnum."""
        heights = self.head.points_lps_mm[:, 2]
        low = np.percentile(heights, 1)
        return float((low - self.grid.origin_lps_mm[2]) / self.grid.spacing_ijk_mm[2])

    @cached_property
    def low_z_mm(self) -> float:
        """Height of the foramen magnum, about."""
        return float(np.percentile(self.head.points_lps_mm[:, 2], 1))

    @cached_property
    def eyes_lps_mm(self) -> FloatArray:
        """Middles of the right and the left eye, shape (2, 3); where they would be, if the map has none."""
        where = np.argwhere(self.head.tissue_kji == Coarse.EYE)
        if len(where) < 50:
            guess = self.head.centre_lps_mm + np.array([0.0, -75.0, -35.0])
            return np.stack([guess - np.array([32.0, 0, 0]), guess + np.array([32.0, 0, 0])])
        points = apply_affine(self.grid.lps_from_ijk, where[:, ::-1])
        right = points[:, 0] < self.head.centre_lps_mm[0]
        if right.all() or not right.any():
            return np.stack([points.mean(axis=0)] * 2)
        return np.stack([points[right].mean(axis=0), points[~right].mean(axis=0)])

    @cached_property
    def skull_points_lps_mm(self) -> FloatArray:
        """Points of the vault and the base of the skull, without face and neck, shape (n, 3)."""
        bone = np.isin(self.head.tissue_kji, BONE)
        level = (self.head.centre_lps_mm[2] - CRANIUM_MM - self.grid.origin_lps_mm[2]) / self.grid.spacing_ijk_mm[2]
        bone[: max(0, int(level))] = False
        chosen = np.flatnonzero(bone)
        chosen = chosen[np.linspace(0, chosen.size - 1, SKULL_POINTS).astype(np.int64)]
        ijk = np.stack(np.unravel_index(chosen, bone.shape)[::-1], axis=-1)
        return apply_affine(self.grid.lps_from_ijk, ijk)

    def outermost(self, towards: FloatArray, tissues: tuple[Coarse, ...]) -> FloatArray:
        """Return the last point of some tissues on the way out from the brain's middle, LPS mm."""
        unit = towards / np.linalg.norm(towards)
        way = self.head.centre_lps_mm + np.arange(0, 160, 0.5)[:, None] * unit
        found = np.flatnonzero(np.isin(self.head.tissue_at(way), tissues))
        last: FloatArray = way[found[-1]] if found.size else self.head.centre_lps_mm + 70 * unit
        return last


def every(grid: Grid, step: int) -> Grid:
    """Return the grid of every n-th voxel, beginning with the first."""
    i, j, k = (-(-n // step) for n in grid.size_ijk)
    a, b, c = (s * step for s in grid.spacing_ijk_mm)
    return Grid((i, j, k), (a, b, c), grid.origin_lps_mm, grid.direction)


def distance_mm(mask: BoolArray, grid: Grid) -> VoxelArray:
    """Return how far each voxel is from the nearest one of a mask, mm; 0 inside, and 1000 where the mask is empty."""
    if not mask.any():
        return np.full(mask.shape, 1000.0, np.float32)
    image = sitk.SignedMaurerDistanceMap(itk_image(mask, grid), squaredDistance=False, useImageSpacing=True)
    distance: VoxelArray = sitk.GetArrayFromImage(image)
    return np.maximum(distance, 0)


@lru_cache(maxsize=16)
def anatomy_of(head: Head) -> Anatomy:
    """Prepare a head; where its fat and marrow are is the same each time."""
    texture = smooth_noise(head.tissue_kji.shape, 8 / head.grid.spacing_ijk_mm[0], np.random.default_rng((0, 11)))
    tissue = head.tissue_kji.copy()
    soft = tissue == Coarse.SOFT
    coarse = every(head.grid, STEP)
    depth = distance_mm(head.tissue_kji[::STEP, ::STEP, ::STEP] == Coarse.AIR, coarse)
    near = np.repeat(np.repeat(np.repeat(depth < FAT_DEPTH_MM, STEP, 0), STEP, 1), STEP, 2)
    near = near[tuple(slice(0, n) for n in tissue.shape)]
    fat = soft & (near | (texture > FAT_TEXTURE))
    tissue[soft] = Coarse.MUSCLE
    tissue[fat] = Coarse.FAT
    prepared = Head(head.name, tissue, head.grid)
    if not np.isin(tissue, BRAIN).any():
        raise ValueError(f"{head.name} has no brain")
    return Anatomy(prepared, texture)
