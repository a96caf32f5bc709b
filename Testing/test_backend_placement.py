"""Where the backend in torch computes, without a graphics card: the device "meta" stands for one.

Its tensors know only their shapes. (Fake tensors of a card cannot be indexed by a torch that is built for the CPU.)
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from BrainFusionLib.backend.on_torch import OnTorch
from BrainFusionLib.registration import similarity
from BrainFusionLib.registration.histogram import MRI_BINS, ROW, Moving, Samples
from BrainFusionLib.registration.refine import climb
from BrainFusionLib.registration.similarity import Poses, evaluated

CARD = "meta"


class Copies(TorchDispatchMode):
    """Counts copies between devices, numbers read from the card, and arrays that are not on it."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: Counter[str] = Counter()

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = function.overloadpacket.__name__
        device = (kwargs or {}).get("device")
        moves = name == "_to_copy" and device is not None and torch.device(device).type != args[0].device.type
        if moves or name == "_local_scalar_dense":
            self.seen[name] += 1
        tensors = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, torch.Tensor)]
        if any(tensor.device.type != CARD and tensor.ndim > 0 for tensor in tensors):
            self.seen[f"{name} elsewhere"] += 1
        return function(*args, **(kwargs or {}))


class Faked(OnTorch):
    """The backend on a card that is not there; what comes back to the host is nothing but its shape."""

    def __init__(self) -> None:
        super().__init__(CARD)
        self.came_back: list[tuple[int, ...]] = []

    def put(self, array: Any) -> torch.Tensor:
        return torch.empty(array.shape, dtype=getattr(torch, array.dtype.name), device=CARD)

    def host(self, array: torch.Tensor) -> Any:
        self.came_back.append(tuple(array.shape))
        return np.random.default_rng(len(self.came_back)).random(tuple(array.shape))


@pytest.fixture
def card(monkeypatch: pytest.MonkeyPatch) -> Iterator[Faked]:
    """No gradients, and no table of an earlier test."""
    similarity._spline_tables.cache_clear()
    with torch.no_grad():
        yield Faked()
    similarity._spline_tables.cache_clear()


def given(backend: OnTorch) -> tuple[Samples, Moving]:
    points, rows = np.zeros((3, 1_000), np.float32), np.full(1_000, MRI_BINS // 2 * ROW, np.int32)
    moving = Moving(backend.put(np.zeros((20, 21, 22), np.uint8)), np.eye(4))
    return Samples(backend.put(points), backend.put(rows), backend), moving


@contextmanager
def counted() -> Iterator[Copies]:
    with Copies() as copies:
        yield copies


@pytest.mark.parametrize("normalised", [False, True])
def test_an_evaluation_stays_on_the_card(card: Faked, normalised: bool) -> None:
    samples, moving = given(card)
    affines = card.put(np.zeros((5, 3, 4)))
    similarity._spline_tables(card)
    with counted() as copies:
        found = evaluated(samples, moving, affines, normalised, gradient=True)
    assert found.device.type == CARD
    assert (found.shape, found.dtype) == ((5, 14), torch.float64)
    assert copies.seen == {}


def test_an_iteration_brings_one_small_array_back(card: Faked) -> None:
    samples, moving = given(card)
    poses = Poses(np.eye(3)[None].repeat(4, axis=0), np.zeros((4, 3)))
    with counted() as copies:
        _, _, rounds = climb(samples, moving, poses, first_step_mm=1.0, tolerance_mm=0.01, iterations=6)
    assert rounds > 1
    assert len(card.came_back) == 1 + rounds
    assert all(shape[0] <= 4 and shape[1:] == (14,) for shape in card.came_back)
    assert copies.seen == {}


def test_levels_and_spectra_stay_on_the_card(card: Faked) -> None:
    values = card.put(np.zeros((20, 21, 22), np.float32))
    cells = card.cells(card.pool(values, (2, 2, 2)), np.zeros(4096, np.uint8), 0.0, 1.0)
    assert (cells.device.type, tuple(cells.shape), cells.dtype) == (CARD, (10, 10, 11), torch.uint8)
    rows = card.put(np.zeros((61, 4), np.float32))
    maps = card.nearest(rows, (3, 4, 5), np.zeros((2, 3, 4), np.float32), card.put(np.zeros((3, 64), np.float32)))
    assert card.spectra(maps.reshape(2, 4, 4, 4, 4)).device.type == CARD
