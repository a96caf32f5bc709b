"""A volume: voxels, where they are, and what made them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, Literal, TypeVar

import numpy as np
import numpy.typing as npt

from BrainFusionLib.errors import GeometryError
from BrainFusionLib.geometry import Grid, anatomical_axes
from BrainFusionLib.values import ByValue

Modality = Literal["CT", "MR"]
VoxelArray = npt.NDArray[np.float32]
BoolArray = npt.NDArray[np.bool_]
S = TypeVar("S", bound=np.generic)

# What a CT shows outside of its field of view.
AIR_HU = -1000.0


@dataclass(frozen=True, eq=False)
class Volume(ByValue):
    """A 3D image on a grid.

    Parameters
    ----------
    array_kji
        Voxels, shape ``grid.shape_kji``, kept as C-contiguous float32 (not copied if they are that already).
        CT in Hounsfield units, MRI in its own arbitrary scale.
    grid
        Where the voxels are.
    modality
        ``"CT"``, ``"MR"`` or ``None`` where the source did not say.
    name
        What to call the volume in messages and reports: a file or node name.
    notes
        What a reader had to assume or to repair, in words for the user ("no orientation in the file: …").

    Raises
    ------
    GeometryError
        The array does not have the grid's shape.
    """

    array_kji: VoxelArray
    grid: Grid
    modality: Modality | None = None
    name: str = "volume"
    notes: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        array = np.ascontiguousarray(self.array_kji, dtype=np.float32)
        if array.shape != self.grid.shape_kji:
            raise GeometryError(
                f"{self.name}: the array has shape {array.shape} (k, j, i), but its grid needs {self.grid.shape_kji}"
            )
        object.__setattr__(self, "array_kji", array)

    def with_array(self, array_kji: npt.NDArray[Any], **changes: Any) -> Volume:
        """Return a volume on the same grid with other voxels, and other fields where `changes` names them."""
        return replace(self, array_kji=array_kji, **changes)


def axial_stack(array_kji: npt.NDArray[S], grid: Grid) -> tuple[npt.NDArray[S], Callable[[VoxelArray], VoxelArray]]:
    """Turn a volume so that a network sees every head the same way, however it was acquired.

    In the stack, slices go from the feet to the head, rows from anterior to posterior and columns from right to left
    (each along the index axis nearest to it): axial slices as radiologists look at them, the patient's right on the
    viewer's left. Axes are exchanged and reversed, and no voxel is changed.

    Parameters
    ----------
    array_kji
        Shape ``grid.shape_kji``.
    grid
        Where the voxels are.

    Returns
    -------
    stack
        A view of the array, shape (slices, rows, columns).
    undo
        Turns an array of the stack's shape back: a view of shape ``grid.shape_kji``.

    Raises
    ------
    GeometryError
        The array does not have the grid's shape.
    """
    if array_kji.shape != grid.shape_kji:
        raise GeometryError(f"the array has shape {array_kji.shape} (k, j, i), but its grid needs {grid.shape_kji}")
    letters_kji = anatomical_axes(grid.direction)[::-1]
    order: list[int] = []
    reversed_axes: list[int] = []
    for axis, (along, against) in enumerate((("S", "I"), ("P", "A"), ("L", "R"))):
        source = next(n for n, letter in enumerate(letters_kji) if letter in (along, against))
        order.append(source)
        if letters_kji[source] == against:
            reversed_axes.append(axis)

    def undo(stack: VoxelArray) -> VoxelArray:
        array: VoxelArray = np.flip(stack, tuple(reversed_axes)).transpose(np.argsort(order))
        return array

    stack: npt.NDArray[S] = np.flip(array_kji.transpose(order), tuple(reversed_axes))
    return stack, undo
