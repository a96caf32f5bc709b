"""Whether a part of the brain has moved between the MRI and the CT, where the two have little in common.

Matching of blocks follows noise there, because each block may move. Here only a part of one of a few shapes may: bumps,
which move along one of 26 directions, and what moves away from a point or towards it, at places all over the brain. Of
all of them the one is taken whose length makes the MRI tell most of the CT: a likelihood ratio of few parameters. The
CT is predicted from more of the MRI than its value: coarser scales, and how steep and uneven it is; in PD that doubles
what is told. How much a voxel counts is measured: what is left over in the CT and the prediction are
both correlated between neighbours, and only so many of them are of their own.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from BrainFusionLib.geometry import FloatArray
from BrainFusionLib.verdict.binning import bins_of, quantile_edges
from BrainFusionLib.verdict.matching import Shifts, Whole, gains
from BrainFusionLib.verdict.sides import place_in_words
from BrainFusionLib.verdict.smoothing import mean_around
from BrainFusionLib.volume import BoolArray, VoxelArray

Bins = npt.NDArray[np.int32]

# Standard deviations: of the low frequencies that are taken out of the CT, and of its smoothing; of the coarser scales
# of the MRI; of the mean over which it is uneven.
LOW_MM, SMOOTH_MM, SCALES_MM, UNEVEN_MM = 4.0, 1.0, (2.0, 4.5), 2.5
# Bins of a feature alone, and of each of two together.
ALONE, TOGETHER = 12, 8
# What is less deep is bone's blur, dura and sinuses.
EDGE_MM = 2.5
# So many voxels of mean 0 in each bin.
RIDGE = 30.0
# Neighbours further away are not correlated, voxels.
LAGS = 4
# Edge of a block; how much of it is to be soft tissue; longest shift tried. A block counts at most so many nats: a part
# is moved if many blocks say so, and one of a lesion or a cavity says more than all.
BLOCK_MM, LEAST_SHARE, REACH_MM, MOST_NATS = 12.0, 0.3, 8.5, 2.0
# Shapes: standard deviation of a bump, 0 for the whole brain; where what moves away from a point moves most. Places are
# so far apart. Below the inner table the brain is held, and free from this depth on.
BUMPS_MM, RADII_MM, APART_MM, FREE_MM = (16.0, 26.0, 0.0), (14.0, 22.0), 22.0, 12.0
LENGTHS_MM = np.arange(2.0, 9.0)
# What the power is told of: a bump of this width that moves by so much, at all but a fifth of the places.
SEEN_BUMP_MM, SEEN_MM, SEEN_SHARE = 26.0, 4.0, 0.2
# Steps to all 26 neighbours; the opposite of the n-th is the n-th from the end.
STEPS = np.array([step for step in np.ndindex(3, 3, 3) if step != (1, 1, 1)]) - 1


@dataclass(frozen=True)
class Part:
    """The part that is most likely to have moved.

    Attributes
    ----------
    nats
        Logarithm of how much more likely the CT is with it moved.
    mm
        How far it has moved where it moved most.
    place
        Where it is, in words.
    power_nats
        What `nats` is expected to be for a part moved by 4 mm.
    """

    nats: float
    mm: float
    place: str
    power_nats: float


@dataclass(frozen=True, eq=False)
class _Blocks:
    """Blocks of the brain: middle kji mm (n, 3), and depth below the inner table (n,).

    `along` (26, 3, n) is what each gains by a shift of t · 8 mm along each of `STEPS`: powers 1 to 3 of t.
    """

    middle: VoxelArray
    depth: VoxelArray
    along: VoxelArray


def moved_part(
    hu: VoxelArray,
    ratio: VoxelArray,
    depth: VoxelArray,
    weight: VoxelArray,
    spacing_kji_mm: FloatArray,
    direction: FloatArray,
) -> Part | None:
    """Return the part of the brain that is most likely to have moved; ``None`` if too little brain is seen.

    Parameters
    ----------
    hu
        The CT, aligned by the skull.
    ratio
        The MRI without its low frequencies; it means something from `EDGE_MM` below the inner table on.
    depth
        Below the inner table, mm.
    weight
        1 in soft tissue inside the skull, 0 elsewhere.
    spacing_kji_mm
        (3,), about 2 mm.
    direction
        (3, 3), the grid's axes i, j and k as columns, LPS.
    """
    soft = weight > 0
    if np.count_nonzero(soft) < 10 * ALONE * TOGETHER:
        return None
    ct = mean_around((hu - mean_around(hu, weight, LOW_MM, spacing_kji_mm)) * weight, weight, SMOOTH_MM, spacing_kji_mm)
    ct *= weight
    predicted = _predicted(ct, ratio, depth, soft, spacing_kji_mm)
    rest = (ct - predicted) * weight
    left = float(np.var(rest[soft])) + 1e-6
    counts = 1 / (left * _correlated(rest, predicted * weight))
    blocks = _blocks(ct, predicted, depth, weight, counts, spacing_kji_mm)
    return None if len(blocks.middle) < LAGS else _best(blocks, spacing_kji_mm, direction)


def _predicted(
    ct: VoxelArray, ratio: VoxelArray, depth: VoxelArray, soft: BoolArray, spacing: FloatArray
) -> VoxelArray:
    """Return the CT as the MRI tells it: a sum of means by bins of its features, fitted together."""
    inside = depth > EDGE_MM
    whole = inside.astype(np.float32)
    fine, coarse = (mean_around(ratio, whole, scale, spacing) for scale in SCALES_MM)
    uneven = mean_around((ratio - fine) ** 2, whole, UNEVEN_MM, spacing)
    slopes = [np.gradient(ratio, step, axis=axis) for axis, step in enumerate(spacing.tolist())]
    steep = np.sum(np.square(slopes), axis=0)

    def binned(feature: VoxelArray, count: int) -> Bins:
        return bins_of(feature, quantile_edges(feature[inside], count))

    few = TOGETHER * binned(ratio, TOGETHER)
    parts = [(binned(ratio, 2 * ALONE), 2 * ALONE)]
    parts += [(binned(feature, ALONE), ALONE) for feature in (fine, coarse, steep, uneven)]
    parts += [(few + binned(feature, TOGETHER), TOGETHER**2) for feature in (fine, uneven)]
    return _fitted(ct, parts, soft) * whole


def _fitted(values: VoxelArray, parts: list[tuple[Bins, int]], soft: BoolArray) -> VoxelArray:
    """Return the sum of a number for each bin of each part that is nearest to the values, by least squares."""
    first = np.cumsum([0, *(count for _, count in parts)])
    wanted = values[soft].astype(np.float64)
    normal, total = RIDGE * np.eye(first[-1]), np.zeros(first[-1])
    # Numpy counts pointer-sized bins, and would convert them each time.
    seen = [(bins[soft].astype(np.int64), count) for bins, count in parts]
    for a, (bins, count) in enumerate(seen):
        total[first[a] : first[a + 1]] = np.bincount(bins, wanted, minlength=count)
        for b, (others, other_count) in enumerate(seen[: a + 1]):
            both = np.bincount(bins * other_count + others, minlength=count * other_count).reshape(count, other_count)
            normal[first[a] : first[a + 1], first[b] : first[b + 1]] += both
            if b < a:
                normal[first[b] : first[b + 1], first[a] : first[a + 1]] += both.T
    numbers = np.linalg.solve(normal, total).astype(np.float32)
    fitted: VoxelArray = np.zeros(values.shape, np.float32)
    for a, (whole, _) in enumerate(parts):
        fitted += numbers[first[a] :].take(whole)
    return fitted


def _correlated(rest: VoxelArray, predicted: VoxelArray) -> float:
    """Return how many voxels tell as much as one that is independent of all others."""
    voxels, power = 1.0, float((rest**2).sum()) * float((predicted**2).sum()) + 1e-9
    for axis in range(3):
        both = 1.0
        for lag in range(1, min(LAGS, rest.shape[axis] - 1) + 1):
            lines = [np.moveaxis(array, axis, 0) for array in (rest, predicted)]
            both += 2 / power * float(np.prod([(line[lag:] * line[:-lag]).sum(dtype=np.float64) for line in lines]))
        voxels *= max(both, 1.0)
    return voxels


def _blocks(
    ct: VoxelArray, predicted: VoxelArray, depth: VoxelArray, weight: VoxelArray, counts: float, spacing: FloatArray
) -> _Blocks:
    edge: Whole = np.maximum(1, np.rint(BLOCK_MM / spacing)).astype(np.int64)
    number: Whole = -(-np.array(ct.shape) // edge)
    beyond = [(0, int(n)) for n in number * edge - ct.shape]
    ct, predicted, depth, weight = (np.pad(array, beyond) for array in (ct, predicted, depth, weight))

    def means(array: VoxelArray) -> VoxelArray:
        (a, b, c), (p, q, r) = number.tolist(), edge.tolist()
        found: VoxelArray = array.reshape(a, p, b, q, c, r).mean(axis=(1, 3, 5), dtype=np.float32)
        return found

    at = np.argwhere(means(weight) >= LEAST_SHARE)
    shifts, step_of = _star(spacing)
    gained = gains(
        ct * np.float32(counts), weight * np.float32(-0.5 * counts), predicted, at * edge, edge, shifts
    )  # fmt: skip
    gained = np.clip(gained - gained[:, :1], -MOST_NATS, MOST_NATS)
    length = np.linalg.norm(shifts.mm_kji, axis=1) / LENGTHS_MM[-1]
    along = np.zeros((len(STEPS), 3, len(at)), np.float32)
    for step in range(len(STEPS)):
        tried = np.flatnonzero(step_of == step)
        powers = length[tried, None] ** np.arange(1, min(3, len(tried)) + 1)
        along[step, : powers.shape[1]] = np.linalg.pinv(powers) @ gained[:, tried].T
    middle = ((at + 0.5) * edge * spacing).astype(np.float32)
    return _Blocks(middle, means(depth)[tuple(at.T)], along)


def _star(spacing: FloatArray) -> tuple[Shifts, npt.NDArray[np.intp]]:
    """Return no shift and those along each of `STEPS` within reach, one at least; and the step of each, -1 of none."""
    shifts, step_of = [np.zeros(3, np.int64)], [-1]
    for index, step in enumerate(STEPS):
        for times in range(1, max(1, int(REACH_MM / np.linalg.norm(step * spacing))) + 1):
            shifts.append(times * step)
            step_of.append(index)
    voxels: Whole = np.array(shifts)
    beside: Whole = np.empty((3, 2, 0), np.int64)
    return Shifts(voxels, voxels * spacing, np.abs(voxels).max(axis=0), beside), np.array(step_of)


def _best(blocks: _Blocks, spacing: FloatArray, direction: FloatArray) -> Part:
    """Return the best of all shapes, places and lengths, and the power."""
    centres = _centres(blocks.middle)
    away = blocks.middle[:, None] - centres
    far = np.sqrt((away**2).sum(axis=-1))
    held = np.clip(blocks.depth / np.float32(FREE_MM), 0, 1)[:, None]
    powers = ((LENGTHS_MM / LENGTHS_MM[-1])[:, None] ** np.arange(1, 4)).astype(np.float32)
    best, power = (0.0, 0.0, np.zeros(len(far), np.float32)), 0.0
    for width in BUMPS_MM:
        shape = np.exp(-0.5 * (far / width) ** 2) * held if width else held
        shape = shape / np.maximum(shape.max(axis=0), 0.3)
        found = np.stack([blocks.along[:, k] @ shape ** (k + 1) for k in range(3)])
        gained = np.tensordot(powers, found, 1)  # (lengths, steps, places)
        best = max(best, _largest(gained.max(axis=1), shape), key=lambda one: one[0])
        if width == SEEN_BUMP_MM:
            # What a true shift gains, the opposite one loses.
            loses = -gained[LENGTHS_MM == SEEN_MM][0].mean(axis=0)
            power = float(np.quantile(loses, SEEN_SHARE))
    outwards = _nearest_step(away / spacing)
    of_block = np.ascontiguousarray(np.moveaxis(blocks.along, 1, 0)).reshape(3, -1)
    block = np.arange(len(far))[:, None]
    for towards in (outwards, len(STEPS) - 1 - outwards):
        gain_along = of_block.take(towards * len(far) + block, axis=1)
        for radius in RADII_MM:
            shape = far / radius * np.exp(0.5 * (1 - (far / radius) ** 2)) * held
            found = np.stack([np.einsum("bp,bp->p", gain_along[k], shape ** (k + 1)) for k in range(3)])
            best = max(best, _largest(powers @ found, shape), key=lambda one: one[0])
    gain, length, shape = best
    return _described(blocks, gain, length * shape, power, direction)


def _centres(middles: VoxelArray) -> VoxelArray:
    """Return places (m, 3) on a grid, those within half of its spacing of a block."""
    lines = [
        np.arange(low, high + APART_MM, APART_MM) for low, high in zip(middles.min(0), middles.max(0), strict=True)
    ]
    places = np.stack(np.meshgrid(*lines, indexing="ij"), axis=-1).reshape(-1, 3).astype(np.float32)
    near = np.zeros(tuple(len(line) for line in lines), bool)
    near[tuple(np.rint((middles - middles.min(axis=0)) / APART_MM).astype(int).T)] = True
    return places[near.ravel()]


def _largest(gained: VoxelArray, shapes: VoxelArray) -> tuple[float, float, VoxelArray]:
    """Return the largest of gains (lengths, places), its length, and its shape of those (blocks, places)."""
    length, place = np.unravel_index(int(gained.argmax()), gained.shape)
    shape = shapes[:, min(int(place), shapes.shape[1] - 1)]
    return float(gained[length, place]), float(LENGTHS_MM[length]), shape


def _nearest_step(vectors: npt.NDArray[np.floating]) -> npt.NDArray[np.intp]:
    """Return the index in `STEPS` of the one nearest to vectors (..., 3), voxels."""
    size = np.abs(vectors)
    signs = np.sign(vectors) * (size > np.tan(np.pi / 8) * size.max(axis=-1, keepdims=True))
    index: npt.NDArray[np.intp] = (signs + 1).astype(np.intp) @ np.array([9, 3, 1])
    index -= index > len(STEPS) // 2
    return index


def _described(blocks: _Blocks, gain: float, lengths_mm: VoxelArray, power: float, direction: FloatArray) -> Part:
    if not gain:
        return Part(0.0, 0.0, "", power)
    most = lengths_mm >= 0.7 * lengths_mm.max()
    offsets = (blocks.middle[most] - blocks.middle.mean(axis=0))[:, ::-1] @ direction.T
    return Part(gain, float(lengths_mm.max()), place_in_words(offsets), power)
