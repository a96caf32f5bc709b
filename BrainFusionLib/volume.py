"""A volume: voxels, where they are, and what made them."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from BrainFusionLib.errors import GeometryError
from BrainFusionLib.geometry import Grid

Modality = Literal["CT", "MR"]
VoxelArray = npt.NDArray[np.float32]


@dataclass(frozen=True, eq=False)
class Volume:
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
