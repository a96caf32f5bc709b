"""A sheet of example cases to look at: the MRI, and the CT in the true pose, in two planes and windows."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

from benchmarks.registration.run import heads_from
from BrainFusionLib.geometry import Grid, apply_affine
from BrainFusionLib.resample import resample_onto
from BrainFusionLib.transform import RigidTransform
from BrainFusionLib.volume import AIR_HU, Volume, VoxelArray
from simulation.physics.case import make_physics_case
from simulation.physics.draw import draw_site
from simulation.physics.kinds import KINDS, draw_kind

TILE_MM, PIXEL_MM, SEED, GREYS = 216.0, 1.8, 5, 12
BRAIN_HU, BONE_HU = (0.0, 80.0), (-1000.0, 1500.0)
EXAMPLES = (*KINDS, "mix", "clinic")


def write_sheet(folder: Path | None, path: Path) -> None:
    """Make one case of each kind and write their pictures as one small PNG.

    Columns: MRI, CT in a brain window, CT in a bone window, in an axial plane through the brain's middle; then MRI and
    CT in the brain window in a sagittal one.
    """
    head = heads_from(folder)[2]()
    rows = []
    for number, kind in enumerate(EXAMPLES):
        case = make_physics_case(head, draw_kind(kind, SEED + number, draw_site(SEED)), SEED + number)
        centre = case.points_lps_mm.mean(axis=0)
        high = float(np.percentile(case.mri.array_kji, 99.3))
        axial, sagittal = axial_and_sagittal(centre)
        mri, ct = (
            [plane_of(v, g, t) for g in (axial, sagittal)] for v, t in ((case.mri, None), (case.ct, case.transform))
        )
        tiles = [
            grey(mri[0], 0, high), grey(ct[0], *BRAIN_HU), grey(ct[0], *BONE_HU),
            grey(mri[1], 0, high), grey(ct[1], *BRAIN_HU),
        ]  # fmt: skip
        row = Image.fromarray(np.concatenate(tiles, axis=1))
        ImageDraw.Draw(row).text((3, 1), f"{kind} {'+'.join(case.strengths.effects)}", fill=255)
        rows.append(np.asarray(row))
    half = -(-len(rows) // 2)
    columns = [np.concatenate(rows[:half]), np.concatenate(rows[half:])]
    columns[1] = np.pad(columns[1], ((0, len(columns[0]) - len(columns[1])), (0, 0)))
    sheet = Image.fromarray(np.concatenate(columns, axis=1))
    smaller = sheet.resize((sheet.width * 17 // 20, sheet.height * 17 // 20), Image.Resampling.LANCZOS)
    smaller.quantize(GREYS).save(path, optimize=True)


def axial_and_sagittal(centre: np.ndarray) -> tuple[Grid, Grid]:
    """Return two planes about the middle of the brain."""
    n = round(TILE_MM / PIXEL_MM)
    axial = np.eye(3)
    sagittal = np.array([[0.0, 0, 1], [1, 0, 0], [0, -1, 0]])
    grids = []
    for direction, up in ((axial, 8.0), (sagittal, -15.0)):
        grid = Grid((n, n, 1), (PIXEL_MM,) * 3, (0.0, 0.0, 0.0), direction)
        at = (
            centre
            + np.array([2.0 * (direction is sagittal), 0, up])
            - apply_affine(grid.lps_from_ijk, [(n - 1) / 2] * 2 + [0])
        )
        grids.append(Grid((n, n, 1), (PIXEL_MM,) * 3, (float(at[0]), float(at[1]), float(at[2])), direction))
    return grids[0], grids[1]


def plane_of(volume: Volume, grid: Grid, transform: RigidTransform | None) -> VoxelArray:
    """Return what a volume shows in a plane; a CT in a pose."""
    fill = AIR_HU if volume.modality == "CT" else 0.0
    seen = resample_onto(volume, grid, transform or RigidTransform.identity(), fill=fill)
    plane: VoxelArray = seen.array_kji[0]
    return plane


def grey(plane: VoxelArray, low: float, high: float) -> np.ndarray:
    """Return a plane as grey values, 0 to 255."""
    levels: np.ndarray = (np.clip((plane - low) / (high - low), 0, 1) * 255).astype(np.uint8)
    return levels
