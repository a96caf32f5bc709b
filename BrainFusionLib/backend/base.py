"""The primitives of a backend."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from typing import Any, Protocol

import numpy.typing as npt

from BrainFusionLib.geometry import FloatArray
from BrainFusionLib.volume import VoxelArray

# An array where the backend computes: numpy's or torch's.
Array = Any
# Maps the score's derivatives by cell, (N, cells + 1) float32, to (N, 4, 3) float64: the sums over all samples of
# t g, x t g, y t g and z t g, with t the derivative for a sample's cell and g the moving image's slope, in cells per
# voxel.
Pull = Callable[[Array], Array]


# A sample is counted in so many parts, shared between the two cells around its value.
WHOLE = 256


class Backend(Protocol):
    """A dozen primitives; formulas between them are written once, with what numpy and torch have in common.

    Attributes
    ----------
    name
        The device: ``cpu``, ``cuda``, ``cuda:1``, …
    xp
        The module of those functions: numpy or torch.
    rotations_at_once
        Size of a batch of the search.
    """

    @property
    def name(self) -> str:
        """The device."""

    @property
    def xp(self) -> Any:
        """Numpy or torch."""

    @property
    def rotations_at_once(self) -> int:
        """Size of a batch of the search."""

    def alone(self) -> AbstractContextManager[None]:
        """Return the context of a registration: one CPU thread, and no gradients recorded."""

    def put(self, array: npt.NDArray[Any]) -> Array:
        """Return an array on the device."""

    def host(self, array: Array) -> npt.NDArray[Any]:
        """Return an array as numpy's."""

    def dense(self, array: Array) -> Array:
        """Return an array without gaps between its values."""

    def pool(self, values: Array, factors_kji: Sequence[int]) -> Array:
        """Return the means of blocks of voxels, float32; incomplete blocks at the end are dropped."""

    def cells(self, values: Array, table: npt.NDArray[Any], low: float, high: float) -> Array:
        """Return the entries, uint8, of a table of even steps from `low` to `high` that are nearest to values."""

    def taken(self, values: Array, index: npt.NDArray[Any]) -> Array:
        """Return the values at places (n,) of the flat array."""

    def bins(self, values: Array, edges: VoxelArray) -> Array:
        """Return the number of edges below each value, int32."""

    def count(
        self, points: Array, rows: Array, cells: Array, affines: Array, total: int, *, slopes: bool
    ) -> tuple[Array, Pull | None]:
        """Count samples in each cell of their joint histograms with an image under N poses.

        Parameters
        ----------
        points, rows
            Of the samples: (3, n) float32, and the first cell of each one's row, (n,) int32.
        cells
            The image, (K, J, I) uint8, in cells of a row.
        affines
            (N, 3, 4) float64, on the device: voxel index ijk of the image from a point.
        total
            Number of cells.
        slopes
            Whether to return the function that sums derivatives, too.

        Returns
        -------
        counts, pull : (N, total + 1) int32, `WHOLE` for a sample, the last one for samples outside the image; ``None``
        without `slopes`.
        """

    def nearest(self, rows: Array, size_ijk: Sequence[int], affines: VoxelArray, points: Array) -> Array:
        """Return the rows (voxels + 1, channels) of the nearest voxels, (B, channels, n), for B affines (B, 3, 4).

        Outside the image it is the last row. `points` is (3, n) float32.
        """

    def spectra(self, maps: Array) -> Array:
        """Return the real FFT over the last three axes."""

    def resample(
        self, source: VoxelArray, source_from_target: FloatArray, shape_kji: Sequence[int], outside: float
    ) -> VoxelArray:
        """Interpolate a volume on another grid; both arrays are numpy's.

        Parameters
        ----------
        source
            (K, J, I) float32.
        source_from_target
            4x4, voxel index ijk of the source from that of the target.
        shape_kji
            Of the result.
        outside
            Its value more than half a voxel outside the source; up to there, it is the outermost voxel's.
        """
