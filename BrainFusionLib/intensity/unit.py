"""A registered pair on the unit scale, made once and passed on."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from BrainFusionLib.errors import GeometryError
from BrainFusionLib.geometry import Grid
from BrainFusionLib.intensity.head import ct_head_mask
from BrainFusionLib.intensity.scale import bone_weight, ct_to_unit, mri_scale
from BrainFusionLib.values import ByValue
from BrainFusionLib.volume import BoolArray, Volume, VoxelArray, axial_stack


@dataclass(frozen=True, eq=False)
class Stacks(ByValue):
    """Registered slices to fuse: arrays of one shape (slices, rows, columns).

    Parameters
    ----------
    ct_unit, mri_unit
        CT and MRI on the unit scale, float32; rows from anterior to posterior, columns from the patient's right to
        left.
    bone_weight
        How much each voxel is bone, 0 to 1, float32; 0 in the head holder.
    head
        Mask of the head; outside it the fused slices are the MRI. ``None``: everywhere.

    Raises
    ------
    GeometryError
        The arrays do not have the same three-dimensional shape.
    """

    ct_unit: VoxelArray
    mri_unit: VoxelArray
    bone_weight: VoxelArray
    head: BoolArray | None = None

    def __post_init__(self) -> None:
        shapes = [array.shape for array in (self.ct_unit, self.mri_unit, self.bone_weight)]
        shapes += [] if self.head is None else [self.head.shape]
        if len(shapes[0]) != 3 or set(shapes) != {shapes[0]}:
            raise GeometryError(
                "CT, MRI, bone weight and head must be stacks of one shape (slices, rows, columns); got "
                f"{', '.join(str(shape) for shape in shapes)}. Resample the CT onto the MRI's grid first."
            )


@dataclass(frozen=True, eq=False)
class UnitPair(ByValue):
    """A registered CT and MRI on the unit scale, on the MRI's grid.

    Attributes
    ----------
    low, high
        The MRI values that correspond to 0 and 1 on the unit scale.
    ct_unit, mri_unit
        Float32, shape ``grid.shape_kji``.
    bone_weight
        How much each voxel is bone, 0 to 1; 0 outside the head.
    head
        The head in the CT, without head holder and table.
    grid
        The MRI's grid.
    """

    low: float
    high: float
    ct_unit: VoxelArray
    mri_unit: VoxelArray
    bone_weight: VoxelArray
    head: BoolArray
    grid: Grid

    def on_unit_scale(self, values: VoxelArray) -> VoxelArray:
        """Convert values on the MRI's scale, for example fused ones, to the unit scale."""
        return to_unit(values, self.low, self.high)

    def in_mri_scale(self, fused_unit: VoxelArray, mri_kji: VoxelArray) -> VoxelArray:
        """Convert fused values to the MRI's scale; unchanged voxels keep the MRI's values to the last bit.

        Parameters
        ----------
        fused_unit, mri_kji
            The fused volume on the unit scale, and the MRI that `mri_unit` was made from; shape ``grid.shape_kji``.
        """
        fused: VoxelArray = fused_unit - self.mri_unit
        fused *= np.float32(self.high - self.low)
        fused += mri_kji
        return fused

    def stacks(self) -> tuple[Stacks, Callable[[VoxelArray], VoxelArray]]:
        """Return the pair as axial slices, and a function that turns such a stack back. Views, no copies."""
        ct_unit, undo = axial_stack(self.ct_unit, self.grid)
        mri_unit, weight, head = (self.stack(array) for array in (self.mri_unit, self.bone_weight, self.head))
        return Stacks(ct_unit, mri_unit, weight, head), undo

    def stack(self, array_kji: npt.NDArray[Any]) -> npt.NDArray[Any]:
        """Return an array on the grid as axial slices: a view."""
        return axial_stack(array_kji, self.grid)[0]


def unit_pair(
    ct_in_mri: Volume, mri: Volume, head: BoolArray | None = None, scale: tuple[float, float] | None = None
) -> UnitPair:
    """Convert an MRI, and a CT on its grid, to the unit scale.

    Parameters
    ----------
    ct_in_mri
        Hounsfield units, on the grid of `mri`.
    head
        The head in the CT, shape ``grid.shape_kji``; ``None``: `ct_head_mask`.
    scale
        The MRI values that correspond to 0 and 1; ``None``: `mri_scale`.

    Raises
    ------
    ImageContentError
        The MRI is constant, or there is no head in the CT.
    """
    low, high = scale or mri_scale(mri.array_kji)
    mri_unit = to_unit(mri.array_kji, low, high)
    # The table and the head holder are as dense as bone.
    head = ct_head_mask(ct_in_mri) if head is None else head
    ct_unit = ct_to_unit(ct_in_mri.array_kji)
    weight = bone_weight(ct_in_mri.array_kji)
    weight *= head
    return UnitPair(low, high, ct_unit, mri_unit, weight, head, mri.grid)


def to_unit(mri_kji: VoxelArray, low: float, high: float) -> VoxelArray:
    """Convert MRI values to the unit scale, with `low` at 0 and `high` at 1; float32, same shape."""
    unit: VoxelArray = mri_kji - np.float32(low)
    unit /= np.float32(high - low)
    return unit
