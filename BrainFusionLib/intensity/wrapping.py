"""CT numbers of metal that were stored in 12 bits: above 3071 they come out 4096 lower, in the range of air to bone.

A wrap cannot be seen in one voxel: a titanium screw of 4500 HU reads 404, as bone does. But partial volume gives every
metal a rim, whose values rise to 3071 and go on at -1024: steps of about 4096 between neighbours. What was wrapped is
found as in the unwrapping of phases: the set of voxels whose raising by 4096 makes the sum of all steps least, which
counts the whole rim, also where it is thinner than a voxel.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from BrainFusionLib.device import simple_itk
from BrainFusionLib.intensity.pieces import pieces
from BrainFusionLib.volume import BoolArray, Volume, VoxelArray

WRAPPED_BY = 4096.0
# The highest values of 12 bits, with intercepts of -1024 and -1000; and what metal reaches at its rim.
_HIGHEST, _RIM = 3096.0, 2000.0
# Of values cut off at the highest one (3071, 3000, 2976 …), more than this share of those just below it are that one.
_LOWEST_CUT_OFF, _CUT_OFF_SHARE, _NEAR_HIGHEST = 2950.0, 0.2, 200.0
_DENSE, _BONE, _AIRY = 2000.0, 300.0, -200.0
_MARGIN, _MOST_VOXELS, _STEPS = 3, 1 << 22, 400
_MOST_WRAPS = 3
# A set is raised only if this makes the steps inside and around it clearly less.
_LEAST_GAIN = 0.25
Edges = list[npt.NDArray[np.float32]]


def unwrapped(ct: Volume) -> Volume:
    """Return a CT in which metal is above 3071 where it was wrapped, with a note; others unchanged."""
    array = ct.array_kji
    tops = np.array([plane.max() for plane in array])
    if not _may_be_wrapped(array, tops):
        return ct
    changed, count, left = array, 0, 0
    for number, box in enumerate(_boxes(array, tops)):
        changed = changed if number else array.copy()  # hundreds of MB, and hardly any CT has such a box
        part = changed[box]
        for _ in range(_MOST_WRAPS if part.size <= _MOST_VOXELS else 0):
            wrapped = _wrapped(part)
            if not wrapped.any():
                break
            count += int(wrapped.sum())
            part += np.float32(WRAPPED_BY) * wrapped
        left += _isolated(part)
    if not count and not left:
        return ct
    notes = list(ct.notes)
    if count:
        notes.append(
            f"{count} voxels of metal were below their true values, where values above 3071 wrap around in 12 bits: "
            "4096 was added to them."
        )
    if left:
        notes.append(
            f"{left} voxels at metal are far below their neighbours, as where values above 3071 wrap around in 12 "
            "bits, and were left as they are: values of metal may be wrong by 4096."
        )
    return ct.with_array(changed, notes=tuple(notes))


def _may_be_wrapped(array: VoxelArray, tops: VoxelArray) -> bool:
    highest = float(tops.max())
    if not _RIM < highest <= _HIGHEST:
        return False
    lowest = highest - _NEAR_HIGHEST
    near = np.concatenate([plane[plane > lowest] for plane, top in zip(array, tops, strict=True) if top > lowest])
    at_highest = int((near == highest).sum())
    return highest < _LOWEST_CUT_OFF or at_highest < 3 or at_highest < _CUT_OFF_SHARE * near.size


def _differences(part: VoxelArray) -> Edges:
    return [np.diff(part, axis=axis) for axis in range(3)]


def _seeds(part: VoxelArray) -> BoolArray:
    """Return the airy voxels beside dense ones."""
    dense = part > _DENSE
    beside = np.zeros(part.shape, bool)
    for axis in range(3):
        first, second = _pair(axis)
        beside[first] |= dense[second]
        beside[second] |= dense[first]
    return beside & (part < _AIRY)


def _seeds_of(array: VoxelArray, tops: VoxelArray) -> npt.NDArray[np.int64]:
    """Return the indices kji of what `_seeds` marks, (n, 3): three planes at a time, as masks of all take long."""
    found = []
    for k in range(len(array)):
        below = min(k, 1)
        if tops[k - below : k + 2].max() > _DENSE:
            ji = np.argwhere(_seeds(array[k - below : k + 2])[below])
            found.append(np.column_stack([np.full(len(ji), k), ji]))
    return np.concatenate(found) if found else np.zeros((0, 3), np.int64)


def _isolated(part: VoxelArray) -> int:
    """Return how many airy voxels at dense ones belong to no air that goes on beyond the box, or lie between two."""
    labels, _ = pieces(part < _AIRY)
    faces = [labels.take(end, axis) for axis in range(3) for end in (0, -1)]
    beyond = np.unique(np.concatenate([face.ravel() for face in faces]))
    inner, between = (slice(1, -1),) * 3, np.zeros(part.shape, bool)
    for axis in range(3):
        before, after = (
            tuple(slice(1 + by * (n == axis), part.shape[n] - 1 + by * (n == axis)) for n in range(3)) for by in (-1, 1)
        )
        between[inner] |= np.minimum(part[before], part[after]) > _BONE
    return int((_seeds(part) & (between | ~np.isin(labels, beyond[beyond > 0]))).sum())


def _pair(axis: int) -> tuple[tuple[slice, ...], tuple[slice, ...]]:
    before = (slice(None),) * axis
    return (*before, slice(None, -1)), (*before, slice(1, None))


def _boxes(array: VoxelArray, tops: VoxelArray) -> list[tuple[slice, ...]]:
    """Return a box around each piece of metal and what is airy beside it; `tops`: the greatest value of each plane."""
    seeds = _seeds_of(array, tops)
    if not len(seeds):
        return []
    # The box around all of it first: a mask of the whole volume takes long, and memory.
    marked = [np.zeros(size, bool) for size in array.shape]
    marked[0] |= tops > _DENSE
    for k in np.flatnonzero(marked[0]):
        dense = array[k] > _DENSE
        marked[1] |= dense.any(axis=1)
        marked[2] |= dense.any(axis=0)
    for line, at in zip(marked, seeds.T, strict=True):
        line[at] = True
    where = [np.flatnonzero(line) for line in marked]
    corner = np.array([line[0] for line in where])
    mask = (array[tuple(slice(line[0], line[-1] + 1) for line in where)] > _DENSE).view(np.uint8)
    mask[tuple((seeds - corner).T)] = 1
    sitk = simple_itk()
    labels = sitk.ConnectedComponent(sitk.BinaryDilate(sitk.GetImageFromArray(mask), (1, 1, 1)))
    shapes = sitk.LabelShapeStatisticsImageFilter()
    shapes.Execute(labels)
    chosen = np.unique(sitk.GetArrayViewFromImage(labels)[tuple((seeds - corner).T)])
    boxes = []
    for label in chosen[chosen > 0]:
        x, y, z, columns, rows, slices = shapes.GetBoundingBox(int(label))
        starts = np.array((z, y, x)) + corner
        boxes.append(
            tuple(
                slice(max(0, int(start) - _MARGIN), int(start) + size + _MARGIN)
                for start, size in zip(starts, (slices, rows, columns), strict=True)
            )
        )
    return boxes


def _wrapped(part: VoxelArray) -> BoolArray:
    """Return the voxels to be raised, by a primal-dual search for the least sum of steps; its border stays.

    For each pair of neighbours the sum is a convex function of how much one is raised more than the other, so that
    letting every voxel be raised by a part makes no difference to the least (as in cuts of graphs).
    """
    steps = [difference / np.float32(WRAPPED_BY) for difference in _differences(part)]
    most = [np.where(step < 0, 1 + 2 * step, 1).astype(np.float32) for step in steps]
    least = [np.where(step > 0, 2 * step - 1, -1).astype(np.float32) for step in steps]
    raised = np.zeros(part.shape, np.float32)
    ahead = raised.copy()
    forces = [np.zeros(step.shape, np.float32) for step in steps]
    pace = np.float32(0.28)  # less than 1 by the norm of the differences, the root of 12
    inner = np.zeros(part.shape, bool)
    inner[1:-1, 1:-1, 1:-1] = True
    for _ in range(_STEPS):
        for axis, force in enumerate(forces):
            force += pace * np.diff(ahead, axis=axis)
            np.clip(force, least[axis], most[axis], out=force)
        before = raised.copy()
        for axis, force in enumerate(forces):
            first, second = _pair(axis)
            raised[first] += pace * force
            raised[second] -= pace * force
        np.clip(raised, 0, 1, out=raised)
        raised *= inner
        ahead = 2 * raised - before
    chosen = raised > 0.5
    return chosen if chosen.any() and _gain(steps, chosen) > _LEAST_GAIN else np.zeros(part.shape, bool)


def _gain(steps: Edges, chosen: BoolArray) -> float:
    """Return by what part the steps inside and around the chosen voxels become less."""
    before = after = 0.0
    for axis, step in enumerate(steps):
        first, second = _pair(axis)
        more = chosen[second].astype(np.float32) - chosen[first]
        touched = chosen[first] | chosen[second]
        before += float(np.abs(step[touched]).sum())
        after += float(np.abs((step + more)[touched]).sum())
    return (before - after) / before if before else 0.0
