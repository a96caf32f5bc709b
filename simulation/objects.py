"""What is in a CT beside the head: electrodes, surgery, a stereotactic frame, the table, streaks of metal.

The functions draw into Hounsfield units on a head's grid (axes along LPS) or on a CT's, in place where they return
nothing.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from BrainFusionLib.geometry import FloatArray, Grid, apply_affine
from BrainFusionLib.volume import VoxelArray
from simulation.heads import Head
from simulation.tissues import BONE, INSIDE_SKULL, Coarse

METAL_HU = 3000.0


def add_electrodes(hu_kji: VoxelArray, head: Head, random: np.random.Generator) -> None:
    """Draw two to four electrodes from the deep brain to the outside of the skull."""
    for number in range(int(random.integers(2, 5))):
        side = -1.0 if number % 2 else 1.0
        deep = np.array([side * random.uniform(8, 25), random.uniform(-15, 15), random.uniform(-10, 5)])
        tip = head.centre_lps_mm + deep
        towards = np.array([side * random.uniform(0.3, 0.6), random.uniform(-0.5, 0.3), 1.0])
        out = last_bone(head, tip, towards)
        draw_rod(hu_kji, head.grid, tip, out + 6 * towards / np.linalg.norm(towards), 0.65)


def add_surgery(hu_kji: VoxelArray, head: Head, random: np.random.Generator) -> None:
    """Take a piece of the skull away; leave blood under the gap, an air pocket at the forehead, and electrodes."""
    side = float(random.choice([-1.0, 1.0]))
    towards = np.array([side, random.uniform(-0.5, 0.5), random.uniform(0.1, 0.8)])
    gap = last_bone(head, head.centre_lps_mm, towards)
    _fill_ball(hu_kji, head, gap, random.uniform(28, 48), BONE, 35.0)
    _fill_ball(hu_kji, head, gap, random.uniform(30, 50), (Coarse.FLUID,), 60.0)
    inwards = head.centre_lps_mm + random.uniform(0.6, 0.8) * (gap - head.centre_lps_mm)
    _fill_ball(hu_kji, head, inwards, random.uniform(8, 20, 3), INSIDE_SKULL, 65.0)
    forehead = last_bone(head, head.centre_lps_mm, np.array([0.3 * side, -1.0, random.uniform(0.3, 0.7)]))
    pocket = head.centre_lps_mm + 0.88 * (forehead - head.centre_lps_mm)
    _fill_ball(hu_kji, head, pocket, random.uniform(8, 20, 3), INSIDE_SKULL, -1000.0)
    add_electrodes(hu_kji, head, random)


def with_frame(hu_kji: VoxelArray, head: Head, random: np.random.Generator) -> tuple[VoxelArray, Grid]:
    """Return the head in a stereotactic frame (ring, four posts, four pins) and the larger grid that holds both."""
    step = head.grid.spacing_ijk_mm[0]
    pad = round(36 / step)
    hu = np.pad(hu_kji, ((0, 0), (pad, pad), (pad, pad)), constant_values=-1000)
    i, j, k = head.grid.size_ijk
    origin = apply_affine(head.grid.lps_from_ijk, (-pad, -pad, 0))
    grid = Grid((i + 2 * pad, j + 2 * pad, k), head.grid.spacing_ijk_mm, tuple(origin))
    middle = grid.centre_lps_mm
    level = head.centre_lps_mm[2] - random.uniform(35, 55)
    x, y, z = (grid.origin_lps_mm[axis] + np.arange(grid.size_ijk[axis]) * step - middle[axis] for axis in range(3))
    a, b = (n * step / 2 + 16 for n in (i, j))
    inner, outer = ((x / (a + thick)) ** 2 + (y[:, None] / (b + thick)) ** 2 for thick in (0, 9))
    height = np.abs(z + middle[2] - level) < max(5, 0.6 * step)
    hu[height] = np.where((inner > 1) & (outer <= 1), np.float32(random.uniform(1500, 2500)), hu[height])
    post_hu = random.choice([250.0, 1500.0])  # plastic or metal
    for turn in np.deg2rad([40, 140, 220, 320]):
        foot = np.array([middle[0] + (a + 5) * np.cos(turn), middle[1] + (b + 5) * np.sin(turn), level])
        top = foot + np.array([0, 0, random.uniform(70, 95)])
        draw_rod(hu, grid, foot, top, 5.0, post_hu)
        axis = np.array([head.centre_lps_mm[0], head.centre_lps_mm[1], top[2]])
        draw_rod(hu, grid, top, last_bone(head, axis, top - axis), 2.0)
    return hu, grid


def add_table(ct_kji: VoxelArray, grid: Grid, random: np.random.Generator) -> None:
    """Draw a table with a curved head holder behind the head, as far as the CT reaches."""
    rows = np.flatnonzero((ct_kji > -300).any(axis=(0, 2)))
    behind = (rows[-1] if rows.size else len(ct_kji[0]) // 2) * grid.spacing_ijk_mm[1]
    y = (np.arange(grid.size_ijk[1]) * grid.spacing_ijk_mm[1])[:, None]
    x = (np.arange(grid.size_ijk[0]) - grid.size_ijk[0] / 2) * grid.spacing_ijk_mm[0]
    holder = y - behind - 3 + x**2 / random.uniform(250, 500)
    thick = max(2.0, grid.spacing_ijk_mm[1])
    table = y - behind - 26
    for layer, hu in (
        (np.broadcast_to((holder > 0) & (holder < thick), ct_kji.shape[1:]), 180.0),
        (np.broadcast_to((table > 0) & (table < thick), ct_kji.shape[1:]), 250.0),
        (np.broadcast_to(table > thick, ct_kji.shape[1:]), -880.0),  # foam
    ):
        # The holder's arms come up beside the head, not through it.
        ct_kji[:, layer] = np.where(ct_kji[:, layer] < -300, np.float32(hu), ct_kji[:, layer])


def add_streaks(ct_kji: VoxelArray, grid: Grid, random: np.random.Generator) -> None:
    """Draw streaks that go out from the metal of every slice, and some along the rows."""
    streaks: VoxelArray = 40 * random.standard_normal((len(ct_kji), ct_kji.shape[1], 1), dtype=np.float32)
    rows, columns = (np.arange(n, dtype=np.float32)[:, None] for n in ct_kji.shape[1:])
    for plane, streak in zip(ct_kji, streaks, strict=True):
        metal = np.argwhere(plane > 0.6 * METAL_HU)
        head = plane > -500
        plane += np.where(head, streak, np.float32(0))
        if len(metal):
            y, x = rows - metal[:, 0].mean(), columns.T - metal[:, 1].mean()
            turn = np.arctan2(y, x) * np.float32(90 / np.pi)
            distance = np.sqrt(x * x + y * y) * np.float32(grid.spacing_ijk_mm[0])
            rays = random.standard_normal(180).astype(np.float32)
            plane += rays[turn.astype(np.int16)] * 220 / (1 + distance / 25) * head


def last_bone(head: Head, start: FloatArray, towards: FloatArray) -> FloatArray:
    """Return the last point of bone on the way out from `start`; 60 mm away where there is none."""
    unit = towards / np.linalg.norm(towards)
    way = start + np.arange(0, 160, 0.5)[:, None] * unit
    bone = np.flatnonzero(np.isin(head.tissue_at(way), BONE))
    last: FloatArray = way[bone[-1]] if bone.size else start + 60 * unit
    return last


def draw_rod(
    hu_kji: VoxelArray, grid: Grid, start: FloatArray, end: FloatArray, radius_mm: float, hu: float = METAL_HU
) -> None:
    """Draw a rod of metal (or of other HU) between two points, in place."""
    step = grid.spacing_ijk_mm[0] / 2
    count = max(2, int(np.linalg.norm(end - start) / step))
    axis = start + np.linspace(0, 1, count)[:, None] * (end - start)
    reach = np.arange(-radius_mm, radius_mm + 1e-6, max(step, radius_mm / 8))
    ball = np.stack(np.meshgrid(reach, reach, reach), axis=-1).reshape(-1, 3)
    ball = ball[np.linalg.norm(ball, axis=1) <= radius_mm] if radius_mm > step else np.zeros((1, 3))
    ijk = np.rint(apply_affine(grid.ijk_from_lps, axis[:, None] + ball)).astype(int).reshape(-1, 3)
    i, j, k = ijk[((ijk >= 0) & (ijk < grid.size_ijk)).all(axis=1)].T
    hu_kji[k, j, i] = hu


def _fill_ball(
    hu_kji: VoxelArray, head: Head, centre: FloatArray, radii_mm: npt.ArrayLike, inside: tuple[Coarse, ...], hu: float
) -> None:
    """Set the voxels of an ellipsoid (half axes along x, y, z) that are of certain tissues."""
    radii = np.broadcast_to(np.asarray(radii_mm, dtype=np.float64), 3)
    spacing = head.grid.spacing_ijk_mm[0]
    middle = apply_affine(head.grid.ijk_from_lps, centre)
    low = np.maximum(np.ceil(middle - radii / spacing), 0).astype(int)
    high = np.minimum(np.floor(middle + radii / spacing) + 1, head.grid.size_ijk).astype(int)
    if (high <= low).any():
        return
    box = tuple(slice(first, last) for first, last in zip(low[::-1], high[::-1], strict=True))
    x, y, z = ((np.arange(low[a], high[a]) - middle[a]) * spacing / radii[a] for a in range(3))
    ball = z[:, None, None] ** 2 + y[:, None] ** 2 + x**2 <= 1
    hu_kji[box][ball & np.isin(head.tissue_kji[box], inside)] = hu
