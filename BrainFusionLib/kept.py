"""What was found from the voxels of one volume alone, kept for the next job on the same volume.

A worker process that judges, corrects and judges again is given the same two volumes each time. What depends on the
pose is found anew; the rest is known, if the voxels and the grid are the same to the last bit: by their sha256, which
is made once in a job. Nothing is kept unless a process asks for it, and then of the volumes of the last job only.
"""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Callable, Hashable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

import numpy as np

from BrainFusionLib.volume import Volume, VoxelArray

T = TypeVar("T")
Found = dict[Hashable, Any]


class _Shelf:
    """What is known, by the key of each volume."""

    def __init__(self) -> None:
        self.known: dict[bytes, Found] = {}
        # Of the job that runs now: the arrays themselves, too, so that no other one gets their id.
        self.keys: dict[int, tuple[VoxelArray, bytes]] = {}
        self.used: set[bytes] = set()
        self.lock = threading.Lock()


_shelf: _Shelf | None = None
_in_job = False


def keep(is_on: bool = True) -> None:
    """Keep from now on what is found in a job, until the end of the process; or keep nothing, and forget."""
    global _shelf
    _shelf = _Shelf() if is_on else None


@contextmanager
def job(*volumes: Volume) -> Iterator[None]:
    """Use here what is known, and forget what is of other volumes than these and those made of them; one at a time."""
    global _in_job
    _in_job = True
    given = {key_of(volume) for volume in volumes}
    if _shelf is not None and not given <= _shelf.known.keys():
        _shelf.known = {key: _shelf.known.get(key, {}) for key in given}
    try:
        yield
    finally:
        _in_job = False
        if _shelf is not None:
            _shelf.known = {key: found for key, found in _shelf.known.items() if key in _shelf.used | given}
            _shelf.keys, _shelf.used = {}, set()


def key_of(volume: Volume) -> bytes:
    """Return what tells a volume from all others: of its voxels, grid and modality; empty where nothing is kept."""
    shelf = _shelf
    if shelf is None or not _in_job:
        return b""
    array, grid = volume.array_kji, volume.grid
    with shelf.lock:
        voxels = shelf.keys.get(id(array))
        if voxels is None:
            voxels = shelf.keys[id(array)] = array, hashlib.sha256(array.data).digest()
    place = np.array([*grid.size_ijk, *grid.spacing_ijk_mm, *grid.origin_lps_mm, *np.ravel(grid.direction)])
    return voxels[1] + place.astype(np.float64).tobytes() + str(volume.modality).encode()


def about(volume: Volume) -> Found:
    """Return what is known of a volume, to be added to; nothing, and added to nothing, where nothing is kept."""
    key, shelf = key_of(volume), _shelf
    if not key or shelf is None:
        return {}
    shelf.used.add(key)
    return shelf.known.setdefault(key, {})


def of(volume: Volume, what: Hashable, find: Callable[[], T]) -> T:
    """Return what is known of a volume, or find it. Nobody may change what is returned."""
    known = about(volume)
    if what not in known:
        known[what] = find()
    found: T = known[what]
    return found
