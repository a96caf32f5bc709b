"""CT and MRI on one grid to the fused volume, its weight map and its fidelity."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from BrainFusionLib import intensity
from BrainFusionLib.case.clock import Clock
from BrainFusionLib.case.output import Sources
from BrainFusionLib.case.request import Inputs
from BrainFusionLib.case.result import IntensityMap, Volumes
from BrainFusionLib.intensity.unit import UnitPair, unit_pair
from BrainFusionLib.metrics.fidelity import Fidelity, fidelity
from BrainFusionLib.volume import Volume, VoxelArray

if TYPE_CHECKING:
    from BrainFusionLib.fusion.method import Fuser

# MRI voxels above this value on the unit scale are tissue.
MRI_TISSUE = 0.1


@dataclass(frozen=True)
class Fused:
    """What fusing makes: part of a `Result`."""

    volumes: Volumes
    fidelity: Fidelity
    intensity: IntensityMap


def fuse_sources(fuser: Fuser, inputs: Inputs, sources: Sources, scale: tuple[float, float], clock: Clock) -> Fused:
    """Fuse slice by slice along the feet-head axis, in whichever order the volume is stored.

    Parameters
    ----------
    fuser
        The method.
    inputs
        The volumes before they were resampled, for names and to see whether the grid is the MRI's own.
    sources
        The volumes on the grid of the result.
    scale
        The MRI values that correspond to 0 and 1 on the unit scale.
    clock
        For progress and cancelling.
    """
    ct, mri = sources.ct, sources.mri
    unit = unit_pair(ct, mri, sources.head, scale=scale)
    stacks, undo = unit.stacks()
    made = fuser.fuse(stacks, progress=clock.progress, cancel=clock.cancel)
    fused_unit = sources.completed(undo(made.fused), unit.ct_unit)
    # Computed as a change to the MRI, so that unchanged voxels keep its values to the last bit.
    array = unit.in_mri_scale(fused_unit, mri.array_kji)
    fused = Volume(array, mri.grid, "MR", f"{inputs.mri.name} fused with {inputs.ct.name}")
    alpha = None
    if made.alpha is not None:
        weight = sources.completed(undo(made.alpha), 1.0)
        alpha = Volume(weight, mri.grid, None, f"weight of {inputs.ct.name} in {fused.name}")
    del made, fused_unit  # the measures need as much memory again
    volumes = Volumes(fused, ct, alpha, None if mri is inputs.mri else mri)
    return Fused(volumes, _fidelity(array, ct, unit), _intensity_map(fuser.meaning, unit))


def _fidelity(fused: VoxelArray, ct: Volume, unit: UnitPair) -> Fidelity:
    """Measure the fused volume as it will be written, converted back from the MRI's scale."""
    fused_unit = unit.on_unit_scale(fused)
    bone = unit.bone_weight == 1
    return fidelity(
        fused_unit,
        unit.ct_unit,
        unit.mri_unit,
        bone=bone,
        soft_tissue=(unit.bone_weight == 0) & (unit.mri_unit > MRI_TISSUE),
        fused_hu_in_bone=intensity.hu_from_unit(fused_unit[bone]),
        ct_hu_in_bone=ct.array_kji[bone],
    )


def _intensity_map(meaning: str, unit: UnitPair) -> IntensityMap:
    return IntensityMap(
        meaning=meaning,
        ct_knots_hu=intensity.CT_KNOTS_HU,
        ct_knots_fused=tuple(unit.low + (unit.high - unit.low) * u for u in intensity.CT_KNOTS_UNIT),
        mri_low=unit.low,
        mri_high=unit.high,
        window=intensity.window_of_fused(unit.low, unit.high),
    )
