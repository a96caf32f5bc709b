"""Global search: score some hundred rotations, each with every translation at once.

For one rotation of the CT, the joint histogram with the MRI is a cross-correlation of soft bin maps, so a few FFTs give
it for all translations on a coarse grid, and mutual information follows from the histograms.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from BrainFusionLib.backend import Array, Backend, on_cpu
from BrainFusionLib.geometry import FloatArray, Grid
from BrainFusionLib.registration.pyramid import MASK_LEVEL, PreparedHead, PreparedPair
from BrainFusionLib.registration.similarity import Poses
from BrainFusionLib.volume import BoolArray, VoxelArray

# Poses with less than this share of the smaller head in the other's field of view are skipped.
MINIMUM_OVERLAP = 0.35


@dataclass(frozen=True)
class Lattice:
    """The search's grid: `size` points along each axis, `spacing_mm` apart, and translations up to `reach` of them.

    Translations are relative to coinciding centres of the heads; a slab's centre can be up to 90 mm off.
    """

    size: int
    spacing_mm: float
    reach: int


COARSE = Lattice(18, 20.0, 5)
FINE = Lattice(24, 16.0, 6)


def even_rotations(count: int) -> FloatArray:
    """Return `count` rotations that cover SO(3) evenly, (count, 3, 3) float64; the first is the identity.

    Source: M. Alexa, Super-Fibonacci Spirals: Fast, Low-Discrepancy Sampling of SO(3), CVPR 2022.
    """
    s = np.arange(count) + 0.5
    inner, outer = np.sqrt(s / count), np.sqrt(1 - s / count)
    alpha = 2 * np.pi * s / np.sqrt(2.0)
    beta = 2 * np.pi * s / 1.533751168755204288118041
    x, y, z, w = inner * np.sin(alpha), inner * np.cos(alpha), outer * np.sin(beta), outer * np.cos(beta)
    rotations = np.stack(
        [
            1 - 2 * (y * y + z * z), 2 * (x * y - z * w), 2 * (x * z + y * w),
            2 * (x * y + z * w), 1 - 2 * (x * x + z * z), 2 * (y * z - x * w),
            2 * (x * z - y * w), 2 * (y * z + x * w), 1 - 2 * (x * x + y * y),
        ],
        axis=1,
    ).reshape(count, 3, 3)  # fmt: skip
    # Rotated so that the first is the identity: most headers are right.
    even: FloatArray = rotations[0].T @ rotations
    return even


def search(
    heads: PreparedPair,
    rotations: FloatArray,
    lattice: Lattice,
    per_rotation: int,
    check: Callable[[], None] = lambda: None,
) -> tuple[Poses, FloatArray]:
    """Return the `per_rotation` best translations of every rotation, and their scores, best first.

    Parameters
    ----------
    rotations
        (N, 3, 3), float64, from directions of the fixed head to those of the moving head.
    """
    backend = heads.moving.backend
    xp = backend.xp
    moving = _bin_maps(heads.moving, lattice)
    fixed = _bin_maps(heads.fixed, lattice, heads.fixed.region)
    points = backend.put(_points(lattice))
    fixed_grid = _pull(fixed, points, np.eye(3)[None], heads.fixed.centre_lps_mm, lattice, backend)[0]
    fixed_spectrum = xp.conj(backend.spectra(fixed_grid))
    fixed_mass = fixed_grid[1:].sum()
    shifts = _shifts(lattice)
    inverse = _near_inverse(lattice, backend)
    found_centre, found_score = [], []
    for first in range(0, len(rotations), backend.rotations_at_once):
        check()
        batch = rotations[first : first + backend.rotations_at_once]
        moving_grid = _pull(moving, points, batch, heads.moving.centre_lps_mm, lattice, backend)
        spectrum = backend.spectra(moving_grid)
        # (batch, moving bins, fixed bins, shifts)
        joint = xp.clip(inverse(spectrum[:, :, None] * fixed_spectrum), 0, None)
        mass = moving_grid[:, 1:].sum(axis=(1, 2, 3, 4))
        score = backend.host(_score(xp, joint, xp.minimum(mass, fixed_mass)))
        index = _best(score, per_rotation)
        moved = shifts[index] * lattice.spacing_mm  # (batch, per_rotation, 3), in the fixed head's frame
        found_centre.append((heads.moving.centre_lps_mm + moved @ batch.transpose(0, 2, 1)).reshape(-1, 3))
        found_score.append(np.take_along_axis(score, index, axis=1).ravel())
    all_scores = np.concatenate(found_score).astype(np.float64)
    order = np.argsort(-all_scores, kind="stable")
    poses = Poses(np.repeat(rotations, per_rotation, axis=0), np.concatenate(found_centre))
    return poses[order], all_scores[order]


def _best(scores: VoxelArray, count: int) -> npt.NDArray[np.intp]:
    """Return the indices of the greatest values of each row, greatest first, (rows, count)."""
    some = np.argpartition(-scores, count - 1, axis=1)[:, :count]
    order = np.argsort(-np.take_along_axis(scores, some, axis=1), axis=1, kind="stable")
    return np.take_along_axis(some, order, axis=1)


def _points(lattice: Lattice) -> VoxelArray:
    """Return the lattice's points around its centre, xyz, mm: (3, size ** 3), float32."""
    axis = (np.arange(lattice.size) - lattice.size / 2) * lattice.spacing_mm
    z, y, x = np.meshgrid(axis, axis, axis, indexing="ij")
    return np.stack([x, y, z]).reshape(3, -1).astype(np.float32)


def _shifts(lattice: Lattice) -> FloatArray:
    """Return all shifts within reach, in whole voxels, xyz: shape (n, 3), in the order of `_near_inverse`."""
    one = np.arange(-lattice.reach, lattice.reach + 1.0)
    z, y, x = np.meshgrid(one, one, one, indexing="ij")
    return np.stack([x, y, z], axis=-1).reshape(-1, 3)


def _near_inverse(lattice: Lattice, backend: Backend) -> Callable[[Array], Array]:
    """Return the inverse of a real FFT (…, G, G, G // 2 + 1) for shifts within reach only: (…, (2 reach + 1) ** 3).

    Three matrix products, one for each axis: on the CPU they take a third of the time of a full inverse FFT, most of
    whose output (five sixths) would be discarded.
    """
    xp = backend.xp
    size, wide = lattice.size, 2 * lattice.reach + 1
    reach = np.arange(-lattice.reach, lattice.reach + 1)
    full = np.exp(2j * np.pi / size * reach[:, None] * np.arange(size))
    kept = size // 2 + 1
    # The real FFT stores half of the last axis; every frequency except the first and the middle one counts twice.
    twice = np.full(kept, 2.0)
    twice[0] = twice[-1] = 1.0
    half = full[:, :kept] * twice
    real_from_half = np.concatenate([half.real, -half.imag], axis=1).astype(np.float32) / size**3
    last = backend.put(real_from_half.T)
    others = backend.put(full.astype(np.complex64))

    def inverse(spectrum: Array) -> Array:
        result = others @ spectrum.reshape(-1, size, size * kept)
        result = others @ result.reshape(-1, size, kept)
        halves = xp.concatenate([result.real, result.imag], -1)
        return (halves @ last).reshape(*spectrum.shape[:-3], wide**3)

    return inverse


def _score(xp: Any, joint: Array, smaller_head: Array) -> Array:
    """Mutual information of joint histograms (batch, moving bins, fixed bins, shifts), weighted by the overlap."""
    total = joint.sum(axis=(1, 2))
    p = joint / xp.clip(total, 1e-6, None)[:, None, None]

    def plogp(q: Array) -> Array:
        return q * xp.log(xp.clip(q, 1e-9, None))

    entropies = -plogp(p.sum(axis=1)).sum(axis=1) - plogp(p.sum(axis=2)).sum(axis=1)
    information = entropies + plogp(p).sum(axis=(1, 2))
    # Tissue of each head inside the other's field of view, as a share of the smaller head.
    tissue = xp.minimum(joint[:, 1:].sum(axis=(1, 2)), joint[:, :, 1:].sum(axis=(1, 2)))
    overlap = xp.clip(tissue / smaller_head[:, None], None, 1.0)
    return xp.where(overlap > MINIMUM_OVERLAP, information * overlap, -1.0)


@dataclass(frozen=True)
class _Maps:
    """The share of each bin in every coarse voxel, `rows` (voxels + 1, bins) with a last row of 0, and the grid."""

    rows: Array
    grid: Grid


def _bin_maps(head: PreparedHead, lattice: Lattice, region: BoolArray | None = None) -> _Maps:
    """Pool soft bin maps to half the lattice's spacing, and smooth them over the lattice's spacing.

    In maps this smooth, the nearest voxel is as good as interpolation and takes a tenth of the time.
    """
    level, backend = head.levels[MASK_LEVEL], head.backend
    bins = backend.host(backend.bins(level.values, head.search_edges))
    factors = [
        max(1, min(round(lattice.spacing_mm / 2 / s), n))
        for s, n in zip(level.grid.spacing_ijk_mm, level.grid.size_ijk, strict=True)
    ]
    maps = []
    for number in range(len(head.search_edges) + 1):
        chosen = bins == number if region is None else (bins == number) & region
        maps.append(on_cpu().pool(chosen.astype(np.float32), factors[::-1]))
    pooled: VoxelArray = np.stack(maps)
    first = np.diag([*factors, 1.0])
    first[:3, 3] = (np.asarray(factors) - 1) / 2
    size = pooled.shape[:0:-1]
    grid = Grid.from_lps_from_ijk(level.grid.lps_from_ijk @ first, (size[0], size[1], size[2]))
    # A weight of 1/4, 1/2, 1/4 along each axis spans the lattice's spacing; the border is replicated.
    for axis in (1, 2, 3):
        padded = np.pad(pooled, [(int(a == axis),) * 2 for a in range(4)], mode="edge")
        wide: VoxelArray = np.moveaxis(padded, axis, 0)
        pooled = np.moveaxis(np.float32(0.5) * wide[1:-1] + np.float32(0.25) * (wide[:-2] + wide[2:]), 0, axis)
    rows = np.ascontiguousarray(pooled.reshape(len(maps), -1).T)
    return _Maps(backend.put(np.concatenate([rows, np.zeros_like(rows[:1])])), grid)


def _pull(
    maps: _Maps, points: Array, rotations: FloatArray, centre: FloatArray, lattice: Lattice, backend: Backend
) -> Array:
    """Read the maps at ``R p + centre`` for every rotation, 0 outside; returns (B, bins, G, G, G)."""
    affine = maps.grid.ijk_from_lps
    offset = np.broadcast_to(affine[:3, :3] @ centre + affine[:3, 3], (len(rotations), 3))
    affines = np.concatenate([affine[:3, :3] @ rotations, offset[:, :, None]], axis=2).astype(np.float32)
    g = lattice.size
    return backend.nearest(maps.rows, maps.grid.size_ijk, affines, points).reshape(len(rotations), -1, g, g, g)
