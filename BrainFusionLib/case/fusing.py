"""CT and MRI on one grid to the fused volume, its weight map and its fidelity."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from BrainFusionLib import intensity
from BrainFusionLib.case.clock import Clock
from BrainFusionLib.case.output import Sources
from BrainFusionLib.case.request import Inputs
from BrainFusionLib.case.result import IntensityMap, Volumes
from BrainFusionLib.geometry import Grid, anatomical_axes
from BrainFusionLib.intensity.unit import UnitPair, unit_pair
from BrainFusionLib.metrics.fidelity import Compared, Fidelity, fidelity, whole_fidelity
from BrainFusionLib.progress import Progress
from BrainFusionLib.volume import Volume, VoxelArray

if TYPE_CHECKING:
    from BrainFusionLib.fusion.method import Fuser

# MRI voxels above this value on the unit scale are tissue.
MRI_TISSUE = 0.1
SLICES_AT_ONCE = 16


@dataclass(frozen=True)
class Fused:
    """What fusing makes: part of a `Result`."""

    volumes: Volumes
    fidelity: Fidelity
    intensity: IntensityMap


def fuse_sources(fuser: Fuser, inputs: Inputs, sources: Sources, scale: tuple[float, float], clock: Clock) -> Fused:
    """Fuse slice by slice along the feet-head axis, in whichever order the volume is stored.

    A few slices at a time, because the two on the unit scale, their bone weight and what is measured on them take six
    times the memory of the MRI.

    Parameters
    ----------
    fuser
        The method.
    inputs
        The volumes before they were resampled, to see whether the grid is the MRI's own.
    sources
        The volumes on the grid of the result.
    scale
        The MRI values that correspond to 0 and 1 on the unit scale.
    clock
        For progress and cancelling.
    """
    ct, mri = sources.ct, sources.mri
    array: VoxelArray = np.empty(mri.array_kji.shape, np.float32)
    weight: VoxelArray | None = None
    measured: list[tuple[Fidelity, Compared]] = []
    parts = _parts(mri.grid)
    for number, part in enumerate(parts):
        unit = _unit_pair(sources, part, scale)
        stacks, undo = unit.stacks()
        made = fuser.fuse(stacks, progress=_within(clock.progress, number, len(parts)), cancel=clock.cancel)
        # Computed as a change to the MRI, so that unchanged voxels keep its values to the last bit.
        fused_unit = sources.completed(undo(made.fused), unit.ct_unit, part)
        array[part] = unit.in_mri_scale(fused_unit, mri.array_kji[part])
        if made.alpha is not None:
            weight = np.empty_like(array) if weight is None else weight
            weight[part] = sources.completed(undo(made.alpha), 1.0, part)
        measured.append(_fidelity(array[part], ct.array_kji[part], unit))
    fused = Volume(array, mri.grid, "MR", sources.names.fused)
    alpha = None if weight is None else Volume(weight, mri.grid, None, sources.names.alpha)
    volumes = Volumes(fused, ct, alpha, None if mri is inputs.mri else mri)
    return Fused(volumes, whole_fidelity(measured), _intensity_map(fuser.meaning, scale))


def _parts(grid: Grid) -> list[tuple[slice, ...]]:
    """Return boxes of `SLICES_AT_ONCE` axial slices each, kji, from the first along the feet-head axis on."""
    axis = next(n for n, letter in enumerate(anatomical_axes(grid.direction)[::-1]) if letter in "SI")
    starts = range(0, grid.shape_kji[axis], SLICES_AT_ONCE)
    return [tuple(slice(s, s + SLICES_AT_ONCE) if n == axis else slice(None) for n in range(3)) for s in starts]


def _unit_pair(sources: Sources, part: tuple[slice, ...], scale: tuple[float, float]) -> UnitPair:
    ct, mri = (volume.array_kji[part] for volume in (sources.ct, sources.mri))
    k, j, i = mri.shape
    grid = replace(sources.mri.grid, size_ijk=(i, j, k))
    return unit_pair(Volume(ct, grid, "CT"), Volume(mri, grid, "MR"), sources.head[part], scale=scale)


def _within(progress: Progress | None, number: int, count: int) -> Progress | None:
    """Return what reports the progress of one part of several as that of all."""
    return None if progress is None else lambda stage, fraction: progress(stage, (number + fraction) / count)


def _fidelity(fused: VoxelArray, ct_hu: VoxelArray, unit: UnitPair) -> tuple[Fidelity, Compared]:
    """Measure fused voxels as they will be written, converted back from the MRI's scale."""
    fused_unit = unit.on_unit_scale(fused)
    bone = unit.bone_weight == 1
    soft_tissue = (unit.bone_weight == 0) & (unit.mri_unit > MRI_TISSUE)
    found = fidelity(
        fused_unit,
        unit.ct_unit,
        unit.mri_unit,
        bone=bone,
        soft_tissue=soft_tissue,
        fused_hu_in_bone=intensity.hu_from_unit(fused_unit[bone]),
        ct_hu_in_bone=ct_hu[bone],
    )
    return found, Compared(int(np.count_nonzero(bone)), int(np.count_nonzero(soft_tissue)), fused.size)


def _intensity_map(meaning: str, scale: tuple[float, float]) -> IntensityMap:
    low, high = scale
    return IntensityMap(
        meaning=meaning,
        ct_knots_hu=intensity.CT_KNOTS_HU,
        ct_knots_fused=tuple(low + (high - low) * u for u in intensity.CT_KNOTS_UNIT),
        mri_low=low,
        mri_high=high,
        window=intensity.window_of_fused(low, high),
    )
