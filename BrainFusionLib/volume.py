"""A volume: voxels, grid and modality."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, Literal, TypeVar, get_args

import numpy as np
import numpy.typing as npt

from BrainFusionLib.acquisition import Acquisition
from BrainFusionLib.arguments import check_fields
from BrainFusionLib.errors import GeometryError, SettingsError
from BrainFusionLib.geometry import Grid, anatomical_axes, apply_affine
from BrainFusionLib.values import ByValue

Modality = Literal["CT", "MR"]
VoxelArray = npt.NDArray[np.float32]
BoolArray = npt.NDArray[np.bool_]
S = TypeVar("S", bound=np.generic)

# Value of a CT outside its field of view.
AIR_HU = -1000.0

# In the note of a reader that had to assume the axes, of whatever format: nothing in the file tells left from right.
NO_ORIENTATION = "no orientation"


@dataclass(frozen=True, eq=False, repr=False)
class Volume(ByValue):
    """A 3D image on a grid.

    Parameters
    ----------
    array_kji
        Voxels, shape ``grid.shape_kji``, stored as C-contiguous float32 (not copied if they already are).
        CT in Hounsfield units, MRI in its own arbitrary scale.
    grid
        Positions of the voxels.
    modality
        ``"CT"``, ``"MR"`` or ``None`` if unknown.
    name
        Name of the volume in messages and reports: that of a file or node.
    notes
        Assumptions and repairs made on reading, for the user ("no orientation in the file: …").
    acquisition
        How the volume was acquired, as far as its header says; ``None`` if unknown.

    Raises
    ------
    GeometryError
        The array does not have the grid's shape.
    SettingsError
        Another modality.
    """

    array_kji: VoxelArray
    grid: Grid
    modality: Modality | None = None
    name: str = "volume"
    notes: tuple[str, ...] = ()
    acquisition: Acquisition | None = None

    def __post_init__(self) -> None:
        check_fields(self, GeometryError)
        array = np.ascontiguousarray(self.array_kji, dtype=np.float32)
        if array.shape != self.grid.shape_kji:
            is_turned = array.shape == self.grid.size_ijk
            raise GeometryError(
                f"{self.name}: the array has shape {array.shape} (k, j, i), but its grid needs {self.grid.shape_kji}"
                + (". If its order is i, j, k, as of nibabel: give array.T" if is_turned else "")
            )
        if self.modality is not None and self.modality not in get_args(Modality):
            raise SettingsError(f'{self.name}: the modality must be "CT", "MR" or None; got {self.modality!r}')
        object.__setattr__(self, "array_kji", array)

    def __repr__(self) -> str:
        size = "×".join(str(n) for n in self.grid.size_ijk)
        spacing = "×".join(f"{mm:.3g}" for mm in self.grid.spacing_ijk_mm)
        return f"Volume({self.name!r}, {self.modality or 'unknown modality'}, {size} voxels of {spacing} mm)"

    @property
    def is_oriented(self) -> bool:
        """Whether the sides are those of the header, and not assumed."""
        return not any(NO_ORIENTATION in note for note in self.notes)

    def with_array(self, array_kji: npt.NDArray[Any], **changes: Any) -> Volume:
        """Return a volume on the same grid with other voxels, and with the fields in `changes`."""
        return replace(self, array_kji=array_kji, **changes)


def extremes(array_kji: npt.NDArray[S]) -> tuple[float, float]:
    """Return the least and the greatest value, NaN where one is NaN; plane by plane, so that memory is read once."""
    both = np.array([(plane.min(), plane.max()) for plane in array_kji])
    return float(both[:, 0].min()), float(both[:, 1].max())


def axial_stack(array_kji: npt.NDArray[S], grid: Grid) -> tuple[npt.NDArray[S], Callable[[VoxelArray], VoxelArray]]:
    """Reorient a volume to axial slices, whatever its storage order, so that networks see all heads the same way.

    In the stack, slices go from feet to head, rows from anterior to posterior, and columns from the patient's right to
    left (each along the nearest index axis), as radiologists view them. Axes are exchanged and reversed; no voxel is
    changed.

    Parameters
    ----------
    array_kji
        Shape ``grid.shape_kji``.
    grid
        Positions of the voxels.

    Returns
    -------
    stack
        A view of the array, shape (slices, rows, columns).
    undo
        Maps an array of the stack's shape back to a view of shape ``grid.shape_kji``.

    Raises
    ------
    GeometryError
        The array does not have the grid's shape.
    """
    if array_kji.shape != grid.shape_kji:
        raise GeometryError(f"the array has shape {array_kji.shape} (k, j, i), but its grid needs {grid.shape_kji}")
    order, reversed_axes = _axial_axes(grid)

    def undo(stack: VoxelArray) -> VoxelArray:
        array: VoxelArray = np.flip(stack, reversed_axes).transpose(np.argsort(order))
        return array

    stack: npt.NDArray[S] = np.flip(array_kji.transpose(order), reversed_axes)
    return stack, undo


def in_axial_order(volume: Volume) -> Volume:
    """Return a volume with its voxels stored as an axial stack (`axial_stack`); itself, if they are.

    What counts in steps along the axes, or draws in the order of storage, then finds the same in all 48 storage orders.
    """
    order, reversed_axes = _axial_axes(volume.grid)
    if order == (0, 1, 2) and not reversed_axes:
        return volume
    grid = volume.grid
    ijk = [2 - axis for axis in reversed(order)]
    signs = np.array([-1.0 if 2 - n in reversed_axes else 1.0 for n in range(3)])
    i, j, k = (grid.size_ijk[axis] for axis in ijk)
    x, y, z = (grid.spacing_ijk_mm[axis] for axis in ijk)
    last = np.zeros(3)
    for n, axis in enumerate(ijk):
        last[axis] = 0 if signs[n] > 0 else grid.size_ijk[axis] - 1
    origin = tuple(apply_affine(grid.lps_from_ijk, last).tolist())
    stored = Grid((i, j, k), (x, y, z), origin, grid.direction[:, ijk] * signs)
    return replace(volume, array_kji=axial_stack(volume.array_kji, grid)[0], grid=stored)


def _axial_axes(grid: Grid) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Return which axis of an array (k, j, i) each axis of the axial stack is, and which of the stack are reversed."""
    letters_kji = anatomical_axes(grid.direction)[::-1]
    order: list[int] = []
    reversed_axes: list[int] = []
    for axis, (along, against) in enumerate((("S", "I"), ("P", "A"), ("L", "R"))):
        source = next(n for n, letter in enumerate(letters_kji) if letter in (along, against))
        order.append(source)
        if letters_kji[source] == against:
            reversed_axes.append(axis)
    return tuple(order), tuple(reversed_axes)
