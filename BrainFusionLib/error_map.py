"""The expected error at every point of the brain, on a coarse grid: to be looked up at once.

`verdict.local_error` makes it from the evidence. It is part of a result's record and not a file of its own: about 10 kB
of text, complete with the result, readable without voxels, and in milliseconds.
"""

from __future__ import annotations

import base64
import binascii
import zlib
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt

from BrainFusionLib.arguments import PointsLike, checked
from BrainFusionLib.errors import GeometryError
from BrainFusionLib.geometry import FloatArray, Grid, apply_affine
from BrainFusionLib.values import ByValue
from BrainFusionLib.volume import BoolArray, Volume, VoxelArray

# Of the values stored: hundredths of a millimetre, up to 655 mm.
STEP_MM = 0.01
_TYPE = np.dtype("<u2")
# Between the points of a line that are looked at, at most.
ALONG_MM = 1.0


@dataclass(frozen=True)
class LineError:
    """The expected error along a line.

    Attributes
    ----------
    entry_mm, target_mm
        Expected error at its ends; ``None`` where it is not known.
    worst_mm, worst_lps_mm
        Largest expected error between them, and where; ``None`` where nothing of the line is known.
    unknown
        Share of the line on which the error is not known, 0 to 1.
    length_mm
        Length of the line.
    """

    entry_mm: float | None
    target_mm: float | None
    worst_mm: float | None
    worst_lps_mm: tuple[float, float, float] | None
    unknown: float
    length_mm: float


@dataclass(frozen=True, eq=False)
class ErrorMap(ByValue):
    """Expected error on a coarse grid along the MRI's axes.

    Attributes
    ----------
    grid
        Of the values.
    values
        Hundredths of a millimetre as little-endian uint16, i fastest, k slowest; zlib, base64. 0: not known.
    bound_ratio
        What the error is at most at 9 of 10 points, as a multiple of the expected error there.
    """

    grid: Grid
    values: str
    bound_ratio: float

    @classmethod
    def of(cls, expected_mm: FloatArray, grid: Grid, bound_ratio: float) -> ErrorMap:
        """Return the map of values, shape ``grid.shape_kji``, mm, NaN where the error is not known."""
        known = np.isfinite(expected_mm)
        steps = np.clip(np.rint(np.where(known, expected_mm, 0) / STEP_MM), 0, 65535).astype(_TYPE)
        steps[known & (steps == 0)] = 1
        return cls(grid, base64.b64encode(zlib.compress(steps.tobytes(), 9)).decode("ascii"), round(bound_ratio, 4))

    @cached_property
    def expected_mm(self) -> VoxelArray:
        """Expected error, float32, shape ``grid.shape_kji``, mm, NaN where it is not known.

        Raises
        ------
        GeometryError
            The values are damaged.
        """
        size = int(np.prod(self.grid.size_ijk)) * _TYPE.itemsize
        try:
            stream = zlib.decompressobj()
            content = stream.decompress(base64.b64decode(self.values, validate=True), size + 1)
        except (binascii.Error, ValueError, zlib.error) as error:
            raise GeometryError(f"the map of expected errors is damaged ({error}). Run the case again.") from error
        if len(content) != size or not stream.eof:
            raise GeometryError("the map of expected errors does not have the size of its grid. Run the case again.")
        steps: npt.NDArray[np.uint16] = np.frombuffer(content, _TYPE).reshape(self.grid.shape_kji)
        return np.where(steps > 0, steps.astype(np.float32) * np.float32(STEP_MM), np.float32(np.nan))

    @checked
    def at(self, points_lps_mm: PointsLike) -> FloatArray:
        """Return the expected error at points of the MRI, (n, 3) or (3,) LPS mm, (n,) mm; NaN where it is not known.

        Linear between the known values around a point; a point whose nearest value is not known is not known.
        """
        points = np.asarray(points_lps_mm, dtype=np.float64).reshape(-1, 3)
        at = apply_affine(self.grid.ijk_from_lps, points)[:, ::-1]
        size = np.array(self.grid.shape_kji)
        nearest = np.floor(at + 0.5)
        inside: BoolArray = np.asarray((np.isfinite(at) & (nearest >= 0) & (nearest < size)).all(axis=1))
        at, nearest = (
            np.where(inside.reshape(-1, 1), at, 0.0),
            np.where(inside.reshape(-1, 1), nearest, 0).astype(np.intp),
        )
        values = self.expected_mm.astype(np.float64)
        low = np.floor(at).astype(np.intp)
        part = at - low
        total, weight = np.zeros(len(points)), np.zeros(len(points))
        for corner in np.ndindex(2, 2, 2):
            index = low + corner
            there = ((index >= 0) & (index < size)).all(axis=1)
            found = values[tuple(np.clip(index, 0, size - 1).T)]
            share = np.where(there & np.isfinite(found), np.prod(np.where(corner, part, 1 - part), axis=1), 0.0)
            total += share * np.nan_to_num(found)
            weight += share
        known = inside & np.isfinite(values[tuple(nearest.T)]) & (weight > 0)
        expected: FloatArray = np.where(known, total / np.where(weight > 0, weight, 1), np.nan)
        return expected

    @checked
    def bound_at(self, points_lps_mm: PointsLike) -> FloatArray:
        """Return what the error is at most at 9 of 10 such points, (n,) mm; NaN where it is not known."""
        bound: FloatArray = self.at(points_lps_mm) * self.bound_ratio
        return bound

    @checked
    def along(self, entry_lps_mm: PointsLike, target_lps_mm: PointsLike) -> LineError:
        """Return the expected error along a line, from its entry to its target, MRI points, (3,) LPS mm."""
        entry, target = (np.asarray(point, dtype=np.float64).reshape(3) for point in (entry_lps_mm, target_lps_mm))
        length = float(np.linalg.norm(target - entry))
        count = 2 + int(min(length / ALONG_MM, 10_000))
        points = entry + np.linspace(0, 1, count)[:, None] * (target - entry)
        errors = self.at(points)
        known = np.isfinite(errors)
        ends = [float(errors[end]) if known[end] else None for end in (0, -1)]
        unknown = float(np.mean(~known))
        if not known.any():
            return LineError(None, None, None, None, unknown, length)
        worst = int(np.nanargmax(errors))
        x, y, z = (float(mm) for mm in points[worst])
        return LineError(ends[0], ends[1], float(errors[worst]), (x, y, z), unknown, length)

    def volume(self) -> Volume:
        """Return the expected error as a volume on the coarse grid, mm, 0 where it is not known: a colour layer."""
        return Volume(np.nan_to_num(self.expected_mm), self.grid, None, "expected error (mm)")
