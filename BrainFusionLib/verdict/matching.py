"""Matching of images: how well they agree, block by block or at some voxels, for every shift within reach.

In C (``matching.c``) where the library is there (`BrainFusionLib.native`), else in numpy, several times slower.
"""

from __future__ import annotations

import ctypes
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
import numpy.typing as npt

from BrainFusionLib.geometry import FloatArray
from BrainFusionLib.native import load_compiled
from BrainFusionLib.volume import VoxelArray

NAMES = ("brainfusion_match", "brainfusion_look_up_shifted", "brainfusion_sum_around")
# As in matching.c.
LANES, SIDE = 4, 8
Whole = npt.NDArray[np.int64]
Bins = npt.NDArray[np.uint8]


@dataclass(frozen=True)
class Shifts:
    """All shifts by whole voxels within reach.

    Attributes
    ----------
    voxels_kji, mm_kji
        (shifts, 3).
    reach_kji
        The longest along each axis, voxels, (3,).
    beside
        (3, 2, shifts): index of the shift one voxel less and one more along each axis; -1 if beyond reach.
    """

    voxels_kji: Whole
    mm_kji: FloatArray
    reach_kji: Whole
    beside: Whole

    @property
    def zero(self) -> int:
        """Index of no shift."""
        return int(np.flatnonzero((self.voxels_kji == 0).all(axis=1))[0])


def shifts_within(reach_mm: float, spacing_kji_mm: FloatArray) -> Shifts:
    """Return the shifts in a ball, at least one voxel along each axis."""
    reach = np.maximum(1, (reach_mm / spacing_kji_mm + 1e-6).astype(np.int64))
    every = np.array(list(np.ndindex(*(2 * reach + 1)))) - reach
    length = np.linalg.norm(every * spacing_kji_mm, axis=1)
    voxels = every[length <= max(reach_mm, 1.001 * float(spacing_kji_mm.max()))]
    index: Whole = np.full(tuple(2 * reach + 3), -1)
    index[tuple((voxels + reach + 1).T)] = np.arange(len(voxels))
    unit = np.eye(3, dtype=np.int64)
    beside = np.array([[index[tuple((voxels + sign * e + reach + 1).T)] for sign in (-1, 1)] for e in unit])
    return Shifts(voxels, voxels * spacing_kji_mm, reach, beside)


def gains(a: VoxelArray, b: VoxelArray, f: VoxelArray, first_kji: Whole, edge_kji: Whole, shifts: Shifts) -> VoxelArray:
    """Return the sums over each block of ``f(x + d) (a(x) + b(x) f(x + d))`` for every shift d.

    Parameters
    ----------
    a, b, f
        float32, of one shape; `f` is 0 outside.
    first_kji
        (blocks, 3), the first voxel of each block.
    edge_kji
        (3,), the blocks' size in voxels.

    Returns
    -------
    (blocks, shifts), float32.
    """
    # By more at the end of the rows, because in C `SIDE` shifts are tried at once.
    wide = np.pad(f, [(int(r), int(r) + more) for r, more in zip(shifts.reach_kji, (0, 0, SIDE - 1), strict=True)])
    compiled = _compiled()
    if compiled is None:
        return _in_numpy(a, b, wide, first_kji, edge_kji, shifts)
    floats = [np.ascontiguousarray(array, dtype=np.float32) for array in (a, b, wide)]
    runs = _runs(shifts.voxels_kji)
    steps = (shifts.voxels_kji + shifts.reach_kji)[runs[:-1]] @ [wide.shape[1] * wide.shape[2], wide.shape[2], 1]
    wholes = [
        np.ascontiguousarray(array, dtype=np.int64) for array in (a.shape, wide.shape, first_kji, edge_kji, runs, steps)
    ]
    sums: VoxelArray = np.empty((len(steps), LANES, SIDE), dtype=np.float32)
    found: VoxelArray = np.empty((len(first_kji), len(shifts.voxels_kji)), dtype=np.float32)
    compiled.brainfusion_match(
        floats[0].ctypes.data, floats[1].ctypes.data, wholes[0].ctypes.data, floats[2].ctypes.data,
        wholes[1].ctypes.data, wholes[2].ctypes.data, len(first_kji), wholes[3].ctypes.data, wholes[4].ctypes.data,
        wholes[5].ctypes.data, len(steps), sums.ctypes.data, found.ctypes.data,
    )  # fmt: skip
    return found


def _runs(voxels_kji: Whole) -> Whole:
    """Return the first of each `SIDE` shifts, or fewer, that follow each other along a row, and the number of all."""
    index = np.arange(len(voxels_kji))
    follows = np.append(False, (np.diff(voxels_kji, axis=0) == (0, 0, 1)).all(axis=1))
    since = index - np.maximum.accumulate(np.where(follows, 0, index))
    return np.append(index[since % SIDE == 0], len(index))


def _in_numpy(
    a: VoxelArray, b: VoxelArray, wide: VoxelArray, first_kji: Whole, edge_kji: Whole, shifts: Shifts
) -> VoxelArray:
    inner = np.stack(np.meshgrid(*(np.arange(n) for n in edge_kji), indexing="ij"), axis=-1).reshape(-1, 3)
    at = first_kji[:, None] + inner
    pa, pb = a[tuple(np.moveaxis(at, -1, 0))], b[tuple(np.moveaxis(at, -1, 0))]
    strides = np.array([wide.shape[1] * wide.shape[2], wide.shape[2], 1])
    flat, places = wide.ravel(), (at + shifts.reach_kji) @ strides
    found: VoxelArray = np.empty((len(first_kji), len(shifts.voxels_kji)), dtype=np.float32)
    for column, step in enumerate((shifts.voxels_kji @ strides).tolist()):
        values = flat[places + step]
        found[:, column] = (values * (pa + pb * values)).sum(axis=1)
    return found


def sums_of_shifted(
    a: Bins, b: Bins, table: VoxelArray, first_kji: Whole, edge_kji: Whole, reach_kji: Whole
) -> VoxelArray:
    """Return the sums over each block of ``table[a(x + d), b(x)]`` for every shift d in a box.

    Parameters
    ----------
    a, b
        uint8, of one shape; `a` is replicated at the border.
    table
        (values of a, values of b), float32.
    first_kji, edge_kji
        As in `gains`.
    reach_kji
        The longest shift along each axis, voxels, (3,).

    Returns
    -------
    (shifts along k, along j, along i, blocks), float32.
    """
    shape = tuple(2 * reach_kji + 1)
    steps: Whole = np.array(list(np.ndindex(*shape)), dtype=np.int64)
    wide = np.pad(a, [(int(r), int(r)) for r in reach_kji], mode="edge")
    sums: VoxelArray = np.empty((len(steps), len(first_kji)), dtype=np.float32)
    compiled = _compiled()
    if compiled is not None:
        bins, floats = np.ascontiguousarray(b), np.ascontiguousarray(table)
        wholes = [
            np.ascontiguousarray(array, dtype=np.int64) for array in (wide.shape, b.shape, first_kji, edge_kji, steps)
        ]
        compiled.brainfusion_look_up_shifted(
            wide.ctypes.data, wholes[0].ctypes.data, bins.ctypes.data, wholes[1].ctypes.data, floats.ctypes.data,
            table.shape[1], wholes[2].ctypes.data, len(first_kji), wholes[3].ctypes.data, wholes[4].ctypes.data,
            len(steps), sums.ctypes.data,
        )  # fmt: skip
        return sums.reshape(*shape, -1)
    inner = np.stack(np.meshgrid(*(np.arange(n) for n in edge_kji), indexing="ij"), axis=-1).reshape(-1, 3)
    at = first_kji[:, None] + inner
    columns, flat = b[tuple(np.moveaxis(at, -1, 0))], table.ravel()
    for row, step in enumerate(steps):
        shifted = wide[tuple(np.moveaxis(at + step, -1, 0))]
        sums[row] = flat.take(shifted * np.int32(table.shape[1]) + columns).sum(axis=1)
    return sums.reshape(*shape, -1)


def means_around(image: VoxelArray, places_kji: Whole, reach_kji: Whole) -> FloatArray:
    """Return the mean of ``image(x + d)`` over given voxels x for every shift d in a box; the border is replicated.

    Parameters
    ----------
    places_kji
        (n, 3).
    reach_kji
        The longest shift along each axis, voxels, (3,).
    """
    wide = np.pad(image, [(int(r), int(r)) for r in reach_kji], mode="edge")
    first = np.ascontiguousarray(places_kji @ np.array([wide.shape[1] * wide.shape[2], wide.shape[2], 1]))
    sums: FloatArray = np.zeros(tuple(2 * reach_kji + 1))
    compiled = _compiled()
    if compiled is None:
        flat = wide.ravel()
        for shift in np.ndindex(*sums.shape):
            step = int(np.ravel_multi_index(shift, wide.shape))
            sums[shift] = flat[first + step].sum(dtype=np.float64)
        return sums / len(first)
    floats = np.ascontiguousarray(wide, dtype=np.float32)
    wholes = [np.array(size, dtype=np.int64) for size in (wide.shape, sums.shape)]
    compiled.brainfusion_sum_around(
        floats.ctypes.data, wholes[0].ctypes.data, first.ctypes.data, len(first), wholes[1].ctypes.data,
        sums.ctypes.data,
    )  # fmt: skip
    return sums / len(first)


@lru_cache(maxsize=1)
def _compiled() -> Any:
    """Return the library; ``None`` if it is not there."""
    library = load_compiled(NAMES)
    if library is None:
        return None
    pointer: Any = ctypes.c_void_p
    whole: Any = ctypes.c_int64
    library.brainfusion_match.argtypes = [*[pointer] * 6, whole, *[pointer] * 3, whole, pointer, pointer]
    library.brainfusion_look_up_shifted.argtypes = [
        *[pointer] * 5, whole, pointer, whole, pointer, pointer, whole, pointer
    ]  # fmt: skip
    library.brainfusion_sum_around.argtypes = [*[pointer] * 3, whole, pointer, pointer]
    for name in NAMES:
        getattr(library, name).restype = None
    return library
