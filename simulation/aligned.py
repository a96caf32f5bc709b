"""Pairs to measure fusion on: CT and MRI on one grid, with lesions of known size and contrast, and metal."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import SimpleITK as sitk

from BrainFusionLib.geometry import Grid
from BrainFusionLib.intensity import BONE_RAMP_HU
from BrainFusionLib.transform import RigidTransform
from BrainFusionLib.volume import BoolArray, Volume, VoxelArray
from simulation.heads import Head
from simulation.render import add_ct_noise, hounsfield, signal, smooth_noise
from simulation.tissues import BRAIN

BLUR_MM = 0.6
MRI_SCALE = 1000.0
# Sizes of the lesions, mm, each once as this much brighter and darker than the brain around it.
DIAMETERS_MM = (3.0, 6.0, 10.0, 20.0)
CONTRASTS = (0.03, 0.08, 0.20)
METAL_HU, METAL_MM = 3071.0, 4.0
# Where a lesion may lie: how far its surface is from bone, voxels, at least and at most. The bone rim, whose voxels
# hold some of the CT, is two voxels wide (`fusion.network.alpha.REACH`).
PLACES = {"deep in the brain": (5.0, np.inf), "just off the bone rim": (3.0, 4.5), "touching bone": (0.0, 1.5)}
RIM_VOXELS = 3.0


@dataclass(frozen=True, eq=False)
class Lesion:
    """A ball of other contrast in the MRI; `around` is brain outside it that is off the bone rim."""

    inside: BoolArray
    around: BoolArray


@dataclass(frozen=True, eq=False)
class Pair:
    """A CT (whole HU) and an MRI (whole numbers, 16 bits) of one head, on one grid of 1 mm."""

    ct: Volume
    mri: Volume
    brain: BoolArray


def make_pair(head: Head, contrast: str = "T1", seed: int = 0) -> Pair:
    """Render a head as CT and MRI on the same voxels, with partial volume and noise."""
    random = np.random.default_rng(seed)
    margin = 8
    tissue = np.pad(head.tissue_kji, margin)
    grid = Grid(tissue.shape[::-1], head.grid.spacing_ijk_mm, _moved_origin(head.grid, margin))
    texture = smooth_noise(tissue.shape, 8 / head.grid.spacing_ijk_mm[0], random)
    ct = add_ct_noise(_blurred(hounsfield(tissue, texture)), random, noise_hu=6.0)
    mri = _blurred(signal(tissue, texture, contrast, random)) * np.float32(MRI_SCALE)
    mri = np.hypot(mri + random.normal(0, 8, mri.shape), random.normal(0, 8, mri.shape))
    return Pair(
        Volume(ct, grid, "CT", f"{head.name} CT"),
        Volume(np.rint(mri).astype(np.float32), grid, "MR", f"{head.name} {contrast}"),
        np.isin(tissue, BRAIN),
    )


def with_lesion(pair: Pair, diameter_mm: float, contrast: float, place: str, seed: int) -> tuple[Pair, Lesion]:
    """Put a lesion into the MRI's brain, at one of `PLACES`, drawn by `seed`; it is in the MRI only.

    The signal inside becomes ``(1 + contrast)`` times what it was.
    """
    spacing = pair.mri.grid.spacing_ijk_mm[0]
    to_bone, to_edge = _distance(pair.ct.array_kji <= BONE_RAMP_HU[0]), _distance(pair.brain)
    radius = diameter_mm / 2
    least, most = PLACES[place]
    gap = to_bone - radius / spacing
    # A large ball that is near bone sticks out of the brain's own edge by a little; its centre is in the brain.
    fits = (gap >= least) & (gap <= most) & (to_edge > (radius / spacing if place.startswith("deep") else 0))
    places = np.argwhere(fits)
    centre = places[np.random.default_rng(seed).integers(len(places))]
    axes = np.ogrid[tuple(slice(0, n) for n in pair.brain.shape)]
    distance = spacing * np.sqrt(sum((axis - c) ** 2.0 for axis, c in zip(axes, centre, strict=True)))
    inside = distance <= radius
    around = (distance > radius + spacing) & (distance <= radius + 6 * spacing) & pair.brain & (to_bone > RIM_VOXELS)
    changed = np.where(inside, np.rint(pair.mri.array_kji * np.float32(1 + contrast)), pair.mri.array_kji)
    return replace(pair, mri=pair.mri.with_array(changed)), Lesion(inside, around)


def with_metal(pair: Pair, seed: int) -> Pair:
    """Put a ball of metal into the brain: bright in the CT, dark and a little wider in the MRI."""
    spacing = pair.mri.grid.spacing_ijk_mm[0]
    places = np.argwhere(_distance(pair.brain) * spacing > METAL_MM + 3)
    random = np.random.default_rng(seed)
    centre = places[random.integers(len(places))] + random.uniform(-0.5, 0.5, 3)
    axes = np.ogrid[tuple(slice(0, n) for n in pair.brain.shape)]
    distance = spacing * np.sqrt(sum((axis - c) ** 2.0 for axis, c in zip(axes, centre, strict=True)))
    share = np.clip(METAL_MM / 2 + 0.5 - distance, 0, 1).astype(np.float32)
    ct = np.rint(pair.ct.array_kji * (1 - share) + np.float32(METAL_HU) * share)
    void = np.clip(METAL_MM / 2 + 1.3 - distance, 0, 1).astype(np.float32)
    return replace(pair, ct=pair.ct.with_array(ct), mri=pair.mri.with_array(np.rint(pair.mri.array_kji * (1 - void))))


def shifted(distance_mm: float, seed: int) -> RigidTransform:
    """Return a shift by so much in a direction drawn by `seed`: what a registration may leave."""
    direction = np.random.default_rng(seed).standard_normal(3)
    matrix = np.eye(4)
    matrix[:3, 3] = distance_mm * direction / np.linalg.norm(direction)
    return RigidTransform(matrix)


def stored_as(volume: Volume, order_kji: tuple[int, int, int]) -> Volume:
    """Return the same voxels at the same places, stored with other axes first: as other acquisitions are."""
    matrix = volume.grid.lps_from_ijk.copy()
    axes_ijk = [2 - n for n in order_kji[::-1]]
    matrix[:, :3] = matrix[:, axes_ijk]
    array = np.ascontiguousarray(volume.array_kji.transpose(order_kji))
    grid = Grid.from_lps_from_ijk(matrix, array.shape[::-1])
    return Volume(array, grid, volume.modality, volume.name)


def _moved_origin(grid: Grid, margin: int) -> tuple[float, float, float]:
    x, y, z = (float(v) for v in (grid.lps_from_ijk @ [-margin, -margin, -margin, 1.0])[:3])
    return x, y, z


def _blurred(image: VoxelArray) -> VoxelArray:
    filtered: VoxelArray = sitk.GetArrayFromImage(
        sitk.SmoothingRecursiveGaussian(sitk.GetImageFromArray(image), BLUR_MM)
    )
    return filtered


def _distance(mask: BoolArray) -> VoxelArray:
    """Return how far each voxel inside a mask is from the nearest one outside, voxels; 0 outside."""
    image = sitk.GetImageFromArray((~mask).astype(np.uint8))
    distance: VoxelArray = sitk.GetArrayFromImage(sitk.SignedMaurerDistanceMap(image, squaredDistance=False))
    return np.maximum(distance, 0)
