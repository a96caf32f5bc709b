"""What happens to a head between the two scans: jaw, neck, skin and eyes, brain shift, air, surgery.

Fields say where tissue that is now at a point came from, in the frame of the skull: ``then = now - field(now)``.
They are kept on a coarse grid, linear between its points, one for the inside of the skull and one for the outside.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from BrainFusionLib.geometry import FloatArray, Grid, apply_affine
from BrainFusionLib.volume import BoolArray, VoxelArray
from simulation.physics.anatomy import CRANIUM_MM, STEP, Anatomy, distance_mm
from simulation.physics.sampling_torch import points_of, refined, values_at
from simulation.physics.strengths import Patient
from simulation.tissues import BONE, BRAIN, INSIDE_SKULL, Coarse, CodeArray

# A shift this far or more from fixed bone is free.
FREE_MM = 24.0
# Without an opening in the bone, the brain leaves the inside of the skull over a patch of this radius.
PATCH_MM = 45.0


@dataclass(frozen=True, eq=False)
class Movement:
    """The head in the CT, in the frame of its skull.

    Attributes
    ----------
    tissue_kji, texture
        As it is now, on the anatomy's grid.
    inside, outside
        The fields, (3, k, j, i), LPS mm, on `grid`.
    opening_lps_mm
        Where the skull was opened, or the air is.
    cavity_lps_mm, cavity_mm
        Middle and radius of what was taken out, before anything moved; the radius is 0 for nothing.
    """

    tissue_kji: CodeArray
    texture: VoxelArray
    inside: VoxelArray
    outside: VoxelArray
    grid: Grid
    opening_lps_mm: FloatArray
    cavity_lps_mm: FloatArray
    cavity_mm: float

    def now(self, points_lps_mm: FloatArray) -> FloatArray:
        """Return where points of the brain have moved to, shape (n, 3)."""
        found = points_lps_mm
        for _ in range(40):
            found = points_lps_mm + _at(self.inside, self.grid, found)
        return found


def moved(anatomy: Anatomy, tissue_kji: CodeArray, patient: Patient, random: np.random.Generator) -> Movement:
    """Move a head; `tissue_kji` is the anatomy with its tumour, which `random` places by `tumour_at`."""
    grid, points = anatomy.coarse_grid, points_of(anatomy.coarse_grid)
    opening, gravity = opening_at(anatomy, patient, random)
    tissue = tissue_kji.copy()
    removed = _open_skull(tissue, anatomy, patient, opening)
    inside = _brain_field(anatomy, patient, points, opening, gravity, random)
    outside = _outer_field(anatomy, patient, points, random)
    texture = anatomy.texture
    region = anatomy.inside | removed
    if patient.opening == "craniectomy":
        near = _ball(anatomy.grid, opening, patient.opening_mm + 12)
        region = region | (near & ~np.isin(tissue, BONE))
    pulled, texture = tissue.copy(), texture.copy()
    for field, where, brain in ((inside, region, True), (outside, ~region, False)):
        if np.abs(field).max() > 0.02:
            _pull(pulled, texture, tissue, anatomy, field, where, brain, patient.opening == "craniectomy")
    cavity, radius = tumour_at(anatomy, patient, opening), 0.0
    if patient.resected and patient.tumour_mm > 0:
        radius = patient.tumour_mm + 2.0
        where = _ball(anatomy.grid, cavity + _at(inside, grid, cavity[None])[0], radius)
        inner = where & np.isin(pulled, INSIDE_SKULL)
        pulled[inner] = Coarse.FLUID
        rim = _ball(anatomy.grid, cavity + _at(inside, grid, cavity[None])[0], radius + 1.5) & ~where
        pulled[rim & np.isin(pulled, BRAIN) & (texture > 0.1)] = Coarse.BLOOD
    _let_air_in(pulled, anatomy, patient.air_ml, opening, gravity)
    return Movement(pulled, texture, inside, outside, grid, opening, cavity, radius)


def opening_at(anatomy: Anatomy, patient: Patient, random: np.random.Generator) -> tuple[FloatArray, FloatArray]:
    """Draw a place on the inner side of the skull and the direction of gravity, LPS."""
    side = float(random.choice([-1.0, 1.0]))
    if patient.opening in ("craniotomy", "craniectomy"):
        towards = np.array([side, random.uniform(-0.6, 0.4), random.uniform(0.1, 0.9)])
    else:
        towards = np.array([0.4 * side, random.uniform(-0.9, -0.5), random.uniform(0.5, 0.9)])
    towards /= np.linalg.norm(towards)
    lying = np.array([0.0, 0.9, -0.4]) if patient.opening in ("none", "burr hole") else -towards
    gravity = -0.5 * towards + 0.5 * lying + random.normal(0, 0.2, 3)
    inner = anatomy.outermost(towards, (*INSIDE_SKULL,))
    return inner, gravity / np.linalg.norm(gravity)


def tumour_at(anatomy: Anatomy, patient: Patient, opening_lps_mm: FloatArray) -> FloatArray:
    """Return the middle of the tumour: under the opening, not far below the cortex."""
    inwards = anatomy.head.centre_lps_mm - opening_lps_mm
    depth = min(0.6 * float(np.linalg.norm(inwards)), patient.tumour_mm + 12.0)
    middle: FloatArray = opening_lps_mm + depth * inwards / np.linalg.norm(inwards)
    return middle


def with_tumour(anatomy: Anatomy, patient: Patient, opening_lps_mm: FloatArray) -> CodeArray:
    """Return the tissues of the head when the MRI was taken."""
    tissue = anatomy.head.tissue_kji
    if patient.tumour_mm <= 0:
        return tissue
    where = _ball(anatomy.grid, tumour_at(anatomy, patient, opening_lps_mm), patient.tumour_mm)
    tissue = tissue.copy()
    tissue[where & np.isin(tissue, (*BRAIN, Coarse.FLUID))] = Coarse.LESION
    return tissue


def _brain_field(
    anatomy: Anatomy,
    patient: Patient,
    points: FloatArray,
    opening: FloatArray,
    gravity: FloatArray,
    random: np.random.Generator,
) -> VoxelArray:
    """Return the shift of what is inside the skull; zero at bone, but under the opening."""
    field = np.zeros((3, *points.shape[:3]), np.float32)
    coarse = anatomy.head.tissue_kji[::STEP, ::STEP, ::STEP]
    bone = np.isin(coarse, BONE)
    brain = anatomy.head.points_lps_mm
    if patient.shift_mm:
        radius = patient.opening_mm if patient.opening == "craniectomy" else PATCH_MM
        away = np.linalg.norm(points - opening, axis=-1)
        fixed = distance_mm(bone & (away > radius), anatomy.coarse_grid)
        free = _step(fixed / max(FREE_MM, 2.5 * abs(patient.shift_mm)))
        weight = np.exp(-0.5 * (away / patient.shift_reach_mm) ** 2) * free
        weight /= max(float(values_at(weight, anatomy.coarse_grid, brain).max()), 1e-6)
        # Under a large hole the brain moves along the hole's axis.
        inwards = (anatomy.head.centre_lps_mm - opening) / np.linalg.norm(anatomy.head.centre_lps_mm - opening)
        along = inwards if patient.opening == "craniectomy" else gravity
        field += (patient.shift_mm * np.minimum(weight, 1.3) * along[:, None, None, None]).astype(np.float32)
    if patient.ventricles_mm:
        middle = anatomy.head.centre_lps_mm + random.normal(0, 2, 3) * [0.3, 1, 1]
        from_middle = (points - middle) / 22.0
        r = np.linalg.norm(from_middle, axis=-1)
        size = patient.ventricles_mm * np.exp(0.5 * (1 - r * r)) * _step(distance_mm(bone, anatomy.coarse_grid) / 20)
        field += np.moveaxis(from_middle * size[..., None], -1, 0).astype(np.float32)
    return field


def _outer_field(anatomy: Anatomy, patient: Patient, points: FloatArray, random: np.random.Generator) -> VoxelArray:
    """Return the shift of what is outside the skull: jaw, neck, skin, eyes. Zero at the vault and the base."""
    eyes, low = anatomy.eyes_lps_mm, anatomy.low_z_mm
    middle, centre = eyes.mean(axis=0), anatomy.head.centre_lps_mm
    field = np.zeros(points.shape)
    y, z = points[..., 1], points[..., 2]
    if patient.jaw_deg:
        weight = _step((middle[2] - 52 - z) / 22) * _step((middle[1] + 72 - y) / 18)
        field += _turned_by(points, middle + np.array([0, 66, -30]), patient.jaw_deg * weight)
    if patient.neck_deg:
        weight = _step((min(low, centre[2] - 55) - 6 - z) / 45) * _step((y - middle[1] - 20) / 40)
        field += _turned_by(points, np.array([centre[0], centre[1] + 15, low]), patient.neck_deg * weight)
    coarse = anatomy.head.tissue_kji[::STEP, ::STEP, ::STEP]
    cranium = np.isin(coarse, BONE) & (z > centre[2] - CRANIUM_MM - 15)
    if patient.skin_mm or patient.swelling_mm:
        from_bone = distance_mm(cranium | anatomy.inside[::STEP, ::STEP, ::STEP], anatomy.coarse_grid)
        back = np.array([random.uniform(-0.4, 0.4), 1.0, random.uniform(-0.3, 0.2)])
        side = np.array([random.choice([-1.0, 1.0]), random.uniform(-0.6, 0.4), random.uniform(0.0, 0.8)])
        for amount, towards, reach in ((-patient.skin_mm, back, 45.0), (patient.swelling_mm, side, 35.0)):
            unit = towards / np.linalg.norm(towards)
            spot = anatomy.outermost(unit, (Coarse.SKIN, Coarse.FAT, Coarse.MUSCLE))
            near = np.exp(-0.5 * (np.linalg.norm(points - spot, axis=-1) / reach) ** 2)
            field += (amount * near * _step(from_bone / max(8.0, 1.8 * abs(amount))))[..., None] * unit
    if patient.eyes_mm:
        for eye in eyes:
            near = np.exp(-((np.linalg.norm(points - eye, axis=-1) / 13.0) ** 4))
            field += 0.4 * patient.eyes_mm * near[..., None] * [1.0, 0.0, 0.0]
    return np.moveaxis(field, -1, 0).astype(np.float32)


def _turned_by(points: FloatArray, pivot: FloatArray, angle_deg: FloatArray) -> FloatArray:
    """Return the field of a turn about the left-right axis through a pivot; the front goes down."""
    y, z = points[..., 1] - pivot[1], points[..., 2] - pivot[2]
    c, s = np.cos(np.deg2rad(angle_deg)), np.sin(np.deg2rad(angle_deg))
    then_y, then_z = y * c + z * s, -y * s + z * c
    return np.stack([np.zeros_like(y), y - then_y, z - then_z], axis=-1)


def _pull(
    pulled: CodeArray,
    texture: VoxelArray,
    tissue: CodeArray,
    anatomy: Anatomy,
    field: VoxelArray,
    where: BoolArray,
    brain: bool,
    scalp_follows: bool,
) -> None:
    """Give the voxels of a region the tissue that has moved there (the nearest voxel's), in place."""
    box = _box_of(np.abs(field).max(axis=0) > 0.02, tissue.shape)
    coarse = tuple(slice(cut.start // STEP, -(-cut.stop // STEP) + 1) for cut in box)
    shift = refined(field[(slice(None), *coarse)], STEP, tuple(cut.stop - cut.start for cut in box))
    shift /= np.asarray(anatomy.grid.spacing_ijk_mm, np.float32)[:, None, None, None]
    near = where[box] & (np.abs(shift).max(axis=0) > 0.5)
    inner = np.nonzero(near)
    now = tuple(at + cut.start for at, cut in zip(inner, box, strict=True))
    then = tuple(
        np.clip(np.rint(now[axis] - shift[2 - axis][inner]).astype(np.int64), 0, tissue.shape[axis] - 1)
        for axis in range(3)
    )
    codes = tissue[then]
    came_in, was_inside = anatomy.inside[then], anatomy.inside[now]
    if brain:
        # What came from beyond the bone leaves a gap; through a large hole, the scalp follows.
        soft = np.isin(codes, (Coarse.MUSCLE, Coarse.FAT, Coarse.SKIN))
        gap = ~came_in & ((was_inside & ~(soft & scalp_follows)) | np.isin(codes, BONE))
        codes = np.where(gap, np.uint8(Coarse.FLUID), codes)
    else:
        codes = np.where(came_in, tissue[now], codes)
    texture[now] = anatomy.texture[then]
    pulled[now] = codes


def _box_of(coarse: BoolArray, shape: tuple[int, ...]) -> tuple[slice, ...]:
    """Return the voxels around what is marked on every third voxel, beginning with a third one."""
    cuts = []
    for axis, n in enumerate(shape):
        there = np.flatnonzero(coarse.any(axis=tuple({0, 1, 2} - {axis})))
        cuts.append(slice(max(0, int(there[0]) - 1) * STEP, min(n, (int(there[-1]) + 2) * STEP)))
    return tuple(cuts)


def _open_skull(tissue: CodeArray, anatomy: Anatomy, patient: Patient, opening: FloatArray) -> BoolArray:
    """Saw or drill the bone, in place; return what was taken away."""
    none = np.zeros(tissue.shape, bool)
    if patient.opening == "none":
        return none
    bone = np.isin(tissue, BONE)
    if patient.opening == "burr hole":
        gone = bone & _ball(anatomy.grid, opening + 3 * _unit(opening - anatomy.head.centre_lps_mm), 8.0)
    else:
        gone = bone & _ball(anatomy.grid, opening, patient.opening_mm)
        if patient.opening == "craniotomy":
            gone &= ~_ball(anatomy.grid, opening, patient.opening_mm - 2.0)
    tissue[gone] = Coarse.MUSCLE if patient.opening == "craniectomy" else Coarse.FLUID
    return gone


def _let_air_in(tissue: CodeArray, anatomy: Anatomy, air_ml: float, opening: FloatArray, gravity: FloatArray) -> None:
    """Put air where fluid is highest inside the skull, near the opening, in place."""
    if air_ml <= 0:
        return
    kji = np.argwhere(anatomy.inside & (tissue == Coarse.FLUID))
    points = apply_affine(anatomy.grid.lps_from_ijk, kji[:, ::-1])
    near = np.linalg.norm(points - opening, axis=1)
    # Fluid that lies far from the opening keeps its place: air is a pocket.
    height = -(points @ gravity) - 0.3 * np.maximum(near - 25, 0)
    count = min(len(kji) // 4, round(air_ml * 1000 / float(np.prod(anatomy.grid.spacing_ijk_mm))))
    highest = kji[np.argsort(height)[len(kji) - count :]]
    tissue[tuple(highest.T)] = Coarse.AIR


def _at(field: VoxelArray, grid: Grid, points: FloatArray) -> FloatArray:
    return np.stack([values_at(component, grid, points) for component in field], axis=-1)


def _ball(grid: Grid, middle: FloatArray, radius_mm: float) -> BoolArray:
    ijk = apply_affine(grid.ijk_from_lps, middle)
    axes = [(np.arange(n) - at) * size for n, at, size in zip(grid.size_ijk, ijk, grid.spacing_ijk_mm, strict=True)]
    i, j, k = (axis.astype(np.float32) ** 2 for axis in axes)
    inside: BoolArray = k[:, None, None] + j[None, :, None] + i[None, None, :] <= radius_mm**2
    return inside


def _unit(vector: FloatArray) -> FloatArray:
    unit: FloatArray = vector / np.linalg.norm(vector)
    return unit


def _step(t: npt.NDArray[np.floating]) -> FloatArray:
    """Return 0 below 0, 1 above 1, smooth between."""
    t = np.clip(t, 0, 1)
    smooth: FloatArray = t * t * (3 - 2 * t)
    return smooth
