"""CT and MRI on the grid of the result, where that is not the MRI's own."""

from __future__ import annotations

from dataclasses import dataclass, replace
from math import prod

import numpy as np

from BrainFusionLib import intensity
from BrainFusionLib.case.names import VolumeNames
from BrainFusionLib.case.request import Inputs
from BrainFusionLib.case.result import Pose, Result, Volumes
from BrainFusionLib.errors import GeometryError, Remedy, SettingsError
from BrainFusionLib.geometry import Grid
from BrainFusionLib.io.budget import MOST_VOXELS, memory_bytes
from BrainFusionLib.output_grid import least_voxels, output_grid
from BrainFusionLib.settings import OutputSettings, Settings
from BrainFusionLib.transform import Transform
from BrainFusionLib.volume import AIR_HU, BoolArray, Volume, VoxelArray

# Peak memory of fusing, measured (docs/grids.md), and what part of the machine's it may be.
BYTES_PER_VOXEL = 30
SHARE_OF_MEMORY = 0.5
# Fractions of a voxel: less is rounding.
_SAME_PLACE = 1e-6


@dataclass(frozen=True, eq=False)
class Sources:
    """CT and MRI on one grid, ready to be fused.

    Attributes
    ----------
    ct, mri
        Hounsfield units; the MRI's own scale.
    head
        The head in the CT, without head holder and table.
    names
        Names of the volumes of the result.
    ct_only
        The part of it that is outside the MRI's field of view; ``None`` on the MRI's own grid.
    """

    ct: Volume
    mri: Volume
    head: BoolArray
    names: VolumeNames
    ct_only: BoolArray | None = None

    def completed(self, values: VoxelArray, of_ct: VoxelArray | float, part: tuple[slice, ...]) -> VoxelArray:
        """Return fused values or weights of a part, with those of the CT where the MRI has none."""
        return values if self.ct_only is None else np.where(self.ct_only[part], np.float32(of_ct), values)


def check_output(settings: Settings, inputs: Inputs, given: Transform | None) -> None:
    """Refuse, before the work, an output that cannot be made in whichever pose.

    Raises
    ------
    GeometryError
        The volumes would take more than half of the memory, or the transform given shears their grid.
    SettingsError
        The model may shear their grid.
    """
    output = settings.output
    if output.is_mris:
        return
    _check_size(least_voxels(output, inputs.ct.grid, inputs.mri.grid))
    if given is not None:
        output_grid(output, inputs.ct.grid, inputs.mri.grid, given)
    elif settings.registration.model == "affine" and output.grid in ("ct", "mri"):
        raise SettingsError(
            f"an affine transform would shear the {str(output.grid).upper()}'s voxels, which no volume can have.",
            remedy=Remedy.OTHER_GRID,
        )


def _check_size(voxels: int) -> None:
    needed, memory = voxels * BYTES_PER_VOXEL, memory_bytes()
    if voxels > MOST_VOXELS:
        why = f"more than the {MOST_VOXELS / 1e6:.0f} million that are fused"
    elif memory is not None and needed > SHARE_OF_MEMORY * memory:
        why = f"and fusing them would take {needed / 1e9:.1f} GB of this machine's {memory / 1e9:.1f} GB; "
        why += "at most half of it is used"
    else:
        return
    raise GeometryError(
        f"the output grid would have {voxels / 1e6:.0f} million voxels, {why}.", remedy=Remedy.COARSER_GRID
    )


def sources_on_output(
    output: OutputSettings, inputs: Inputs, transform: Transform, black: float, device: str
) -> Sources:
    """Put both volumes onto the grid asked for, which is not the MRI's own.

    Where the voxels of a volume are those of the grid, its values are copied, not interpolated.

    Parameters
    ----------
    output
        What was asked for.
    inputs
        The volumes.
    transform
        The pose: maps MRI points to CT points, LPS mm.
    black
        The MRI's value outside of its field of view.
    device
        Where to compute.

    Raises
    ------
    GeometryError
        The volumes would take more than half of the memory, or the pose shears their grid.
    """
    ct, mri = inputs.ct, inputs.mri
    grid = output_grid(output, ct.grid, mri.grid, transform)
    _check_size(prod(grid.size_ijk))
    ct_from_grid, mri_from_grid = (transform, None) if output.reference == "mri" else (None, transform.inverse())
    if output.chosen == "ct":  # the voxels of the file
        on_grid = ct.array_kji
    else:
        exact, on_grid = _pulled(ct, grid, ct_from_grid, AIR_HU, device)
        on_grid = on_grid if exact else np.rint(on_grid)
    names = VolumeNames(ct.name, mri.name, output.reference)
    ct_on_grid = Volume(on_grid, grid, "CT", names.ct_on_grid)
    if output.chosen == "mri":
        mri_on_grid, ct_only = mri.array_kji, None
    else:
        _, mri_on_grid = _pulled(mri, grid, mri_from_grid, np.nan, device)
        ct_only = np.isnan(mri_on_grid)
        mri_on_grid = np.where(ct_only, np.float32(black), mri_on_grid)
    head = intensity.ct_head_mask(ct_on_grid)
    if ct_only is not None:
        ct_only &= head
    return Sources(ct_on_grid, Volume(mri_on_grid, grid, "MR", names.mri_on_grid), head, names, ct_only)


def _pulled(
    volume: Volume, grid: Grid, transform: Transform | None, fill: float, device: str
) -> tuple[bool, VoxelArray]:
    """Return a volume on a grid, and whether its own voxels could be copied: they are those of the grid."""
    moving_from_fixed = np.eye(4) if transform is None else transform.moving_from_fixed_lps
    source_from_target = volume.grid.ijk_from_lps @ moving_from_fixed @ grid.lps_from_ijk
    first = np.rint(source_from_target[:3, 3]).astype(int)
    shift = np.eye(4)
    shift[:3, 3] = first
    reach = np.array([max(a, b) for a, b in zip(volume.grid.size_ijk, grid.size_ijk, strict=True)])
    if (np.abs(source_from_target - shift)[:3] @ [*reach, 1.0]).max() > _SAME_PLACE:
        from BrainFusionLib.resample import resample_onto

        return False, resample_onto(volume, grid, transform, fill=fill, device=device).array_kji
    copied: VoxelArray = np.full(grid.shape_kji, fill, dtype=np.float32)
    target, source = [], []
    for start, length, size in zip(first[::-1], volume.grid.shape_kji, grid.shape_kji, strict=True):
        low, high = max(0, -start), min(size, length - start)
        target.append(slice(low, max(low, high)))
        source.append(slice(low + start, max(low, high) + start))
    copied[tuple(target)] = volume.array_kji[tuple(source)]
    return True, copied


def on_mri_grid(result: Result, mri: Volume) -> Result:
    """Return a result with its volumes on the MRI's grid, where the evidence was measured, to be pictured with it."""
    if result.request.settings.output.is_mris or result.volumes is None:
        return result
    fill = float(mri.array_kji.min())
    pose = result.transform if result.reference == "ct" else None
    fused = _pulled(result.fused, mri.grid, pose, fill, "cpu")[1]
    ct = _pulled(result.ct_in_mri, mri.grid, pose, AIR_HU, "cpu")[1]
    volumes = Volumes(
        replace(result.fused, array_kji=fused, grid=mri.grid),
        replace(result.ct_in_mri, array_kji=np.rint(ct), grid=mri.grid),
    )
    return replace(result, volumes=volumes)


def output_note(output: OutputSettings, grid: Grid, pose: Pose) -> str:
    """Return what a reader of the results has to know of their grid."""
    names = {"mri": "the MRI's voxels", "ct": "the CT's voxels", "union": "the fields of view of both"}
    chosen = output.chosen
    what = names[chosen] if isinstance(chosen, str) else f"isotropic voxels of {chosen:g} mm"
    frame = "MRI" if output.reference == "mri" else "CT"
    size = " x ".join(str(n) for n in grid.size_ijk)
    spacing = " x ".join(f"{mm:.4g}" for mm in grid.spacing_ijk_mm)
    turned = " turned by the pose" if chosen != output.reference and chosen in ("mri", "ct") else ""
    scaled = " and scaled" if turned and pose.transform.kind == "similarity" else ""
    return (
        f"the volumes have {what}{turned}{scaled} ({size}, {spacing} mm), in the frame of the {frame}; the verdict "
        "and the pictures are those of the MRI's grid"
    )
