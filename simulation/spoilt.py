"""Cases that are harder than they were, or that no rigid transform can align, still with exact truth."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np

from BrainFusionLib.geometry import FloatArray, Grid, apply_affine
from BrainFusionLib.volume import Volume
from simulation.cases import Case

Spoil = Callable[[Case, np.random.Generator], Case]


def cut_to_10_mm(case: Case, random: np.random.Generator) -> Case:
    """Return a case whose CT is a slab of 10 mm."""
    return replace(case, ct=_middle_slices(case.ct, 10.0))


def noisy(case: Case, random: np.random.Generator) -> Case:
    """Return a case with noise of 150 HU in the CT, and a third of the brightest tissue in the MRI."""
    ct, mri = case.ct, case.mri
    hu = ct.array_kji + random.normal(0, 150, ct.array_kji.shape)
    high = float(np.percentile(mri.array_kji, 99))
    faint = np.abs(mri.array_kji + random.normal(0, 0.35 * high, mri.array_kji.shape))
    return replace(case, ct=ct.with_array(hu), mri=mri.with_array(faint))


def with_tumour(case: Case, random: np.random.Generator) -> Case:
    """Return a case with a ball of another brightness in both: tumour and oedema, or blood."""
    middle = case.points_lps_mm[random.integers(len(case.points_lps_mm))]
    radius = float(random.uniform(10, 30))
    high = float(np.percentile(case.mri.array_kji, 99))
    in_mri = _ball(case.mri.grid, middle, radius)
    in_ct = _ball(case.ct.grid, case.transform.apply(middle), radius)
    mri = case.mri.array_kji * (1 - in_mri) + in_mri * np.float32(high * random.uniform(0.2, 1.1))
    ct = case.ct.array_kji + in_ct * np.float32(random.choice([-15.0, 20.0, 40.0]))
    return replace(case, ct=case.ct.with_array(ct), mri=case.mri.with_array(mri))


def with_wrong_slice_distance(case: Case, random: np.random.Generator) -> Case:
    """Return a case whose CT's header has slices 3 to 15 % farther apart, or nearer, than they were."""
    return _stretched(case, float(random.uniform(1.03, 1.15)) ** random.choice([-1, 1]))


def with_unknown_tilt(case: Case, random: np.random.Generator) -> Case:
    """Return a case whose CT was taken with a tilted gantry, of which the header says nothing."""
    slope = float(np.tan(np.radians(random.uniform(3, 15) * random.choice([-1, 1]))))
    return _sheared(case, lambda heights: slope * heights)


def moved_half_way(case: Case, random: np.random.Generator) -> Case:
    """Return a case in which the head moved while the CT was taken: its upper half lies 2.5 to 12 mm off."""
    step = float(random.uniform(2.5, 12) * random.choice([-1, 1]))
    return _sheared(case, lambda heights: np.where(heights > 0, step, 0.0))


SPOILS: dict[str, Spoil] = {
    "slab of 10 mm": cut_to_10_mm,
    "noise": noisy,
    "tumour": with_tumour,
    "wrong slice distance": with_wrong_slice_distance,
    "gantry tilt not known": with_unknown_tilt,
    "moved half way": moved_half_way,
}


def _ball(grid: Grid, middle_lps_mm: FloatArray, radius_mm: float) -> FloatArray:
    """Return 1 in a ball, 0 outside, 3 mm soft at the edge."""
    ijk = (np.asarray(middle_lps_mm) - grid.lps_from_ijk[:3, 3]) @ np.linalg.inv(grid.lps_from_ijk[:3, :3]).T
    axes = [(np.arange(n) - at) * size for n, at, size in zip(grid.size_ijk, ijk, grid.spacing_ijk_mm, strict=True)]
    i, j, k = (axis.astype(np.float32) ** 2 for axis in axes)
    distance = np.sqrt(k[:, None, None] + j[None, :, None] + i[None, None, :])
    ball: FloatArray = np.clip((radius_mm - distance) / 3 + 0.5, 0, 1)
    return ball


def _stretched(case: Case, factor: float) -> Case:
    grid = case.ct.grid
    i, j, k = grid.spacing_ijk_mm
    wrong = Grid(grid.size_ijk, (i, j, k * factor), grid.origin_lps_mm, grid.direction)
    ct = Volume(case.ct.array_kji, wrong, case.ct.modality, case.ct.name)
    moved = apply_affine(wrong.lps_from_ijk @ grid.ijk_from_lps, case.points_in_ct_lps_mm)
    return replace(case, ct=ct, points_in_ct_lps_mm=moved)


def _sheared(case: Case, offset_mm: Callable[[FloatArray], FloatArray]) -> Case:
    """Return a case whose CT's slices are shifted along their columns by an offset of the height above the middle."""
    grid = case.ct.grid
    middle = np.array(grid.centre_lps_mm)
    normal, along = grid.direction[:, 2], grid.direction[:, 1]
    heights = (np.arange(grid.size_ijk[2], dtype=np.float64) - (grid.size_ijk[2] - 1) / 2) * grid.spacing_ijk_mm[2]
    array = case.ct.array_kji.copy()
    for k, offset in enumerate(offset_mm(heights).tolist()):
        whole, part = divmod(offset / grid.spacing_ijk_mm[1], 1)
        # What leaves at one border comes back at the other: air, where the head is.
        one, other = (np.roll(array[k], int(whole) + more, axis=0) for more in (0, 1))
        array[k] = (1 - part) * one + part * other
    points = case.points_in_ct_lps_mm
    moved = points + offset_mm((points - middle) @ normal)[:, None] * along
    return replace(case, ct=case.ct.with_array(array), points_in_ct_lps_mm=moved)


def _middle_slices(volume: Volume, thick_mm: float) -> Volume:
    grid, count = volume.grid, max(4, round(thick_mm / volume.grid.spacing_ijk_mm[2]))
    first = (len(volume.array_kji) - count) // 2
    x, y, z = (float(v) for v in (grid.lps_from_ijk @ [0.0, 0.0, float(first), 1.0])[:3])
    size = (grid.size_ijk[0], grid.size_ijk[1], count)
    moved = Grid(size, grid.spacing_ijk_mm, (x, y, z), grid.direction)
    return Volume(volume.array_kji[first : first + count], moved, volume.modality, volume.name)
