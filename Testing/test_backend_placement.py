"""Where the backend in torch computes, without a graphics card: fake tensors of one, which know only their shapes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from BrainFusionLib.backend.on_torch import OnTorch
from BrainFusionLib.registration import similarity
from BrainFusionLib.registration.histogram import MRI_BINS, ROW, Moving, Samples
from BrainFusionLib.registration.refine import climb
from BrainFusionLib.registration.similarity import Poses, evaluated

CARD = "cuda"


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


class Brackets(TorchFunctionMode):
    """Takes slices by functions: a torch that is built for the CPU refuses brackets behind a card's tensor."""

    def __torch_function__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if function is torch.Tensor.__getitem__:
            return part_of(*args)
        return function(*args, **(kwargs or {}))


def part_of(tensor: torch.Tensor, index: Any) -> torch.Tensor:
    keys = list(index) if isinstance(index, tuple) else [index]
    if Ellipsis in keys:
        given = sum(key is not None for key in keys) - 1
        at = keys.index(Ellipsis)
        keys[at : at + 1] = [slice(None)] * (tensor.ndim - given)
    axis = 0
    for key in keys:
        if isinstance(key, int):
            tensor = tensor.select(axis, key)
            continue
        if key is None:
            tensor = tensor.unsqueeze(axis)
        else:
            tensor = torch.ops.aten.slice(tensor, axis, key.start, key.stop, key.step or 1)
        axis += 1
    return tensor


class Faked(OnTorch):
    """The backend on a card that is not there; what comes back to the host is nothing but its shape."""

    def __init__(self) -> None:
        super().__init__(CARD)
        self.came_back: list[tuple[int, ...]] = []

    def put(self, array: Any) -> torch.Tensor:
        return torch.empty(array.shape, dtype=getattr(torch, array.dtype.name), device=CARD)

    def host(self, array: torch.Tensor) -> Any:
        self.came_back.append(tuple(array.cpu().shape))
        return np.random.default_rng(len(self.came_back)).random(self.came_back[-1])


@pytest.fixture
def card() -> Iterator[Faked]:
    """No gradients, which abort a torch that is built for the CPU, and no table of an earlier test."""
    similarity._spline_tables.cache_clear()
    with torch.no_grad(), FakeTensorMode(), Brackets():
        yield Faked()
    similarity._spline_tables.cache_clear()


def given(backend: OnTorch) -> tuple[Samples, Moving]:
    points, rows = np.zeros((3, 1_000), np.float32), np.full(1_000, MRI_BINS // 2 * ROW, np.int32)
    moving = Moving(backend.put(np.zeros((20, 21, 22), np.uint8)), np.eye(4))
    return Samples(backend.put(points), backend.put(rows), backend), moving


@pytest.mark.parametrize("normalised", [False, True])
def test_an_evaluation_stays_on_the_card(card: Faked, normalised: bool) -> None:
    samples, moving = given(card)
    affines = card.put(np.zeros((5, 3, 4)))
    similarity._spline_tables(card)
    with Copies() as copies:
        found = evaluated(samples, moving, affines, normalised, gradient=True)
    assert found.device.type == CARD
    assert (found.shape, found.dtype) == ((5, 14), torch.float64)
    assert copies.seen == {}


def test_an_iteration_brings_one_small_array_back(card: Faked) -> None:
    samples, moving = given(card)
    poses = Poses(np.eye(3)[None].repeat(4, axis=0), np.zeros((4, 3)))
    with Copies() as copies:
        _, _, rounds = climb(samples, moving, poses, first_step_mm=1.0, tolerance_mm=0.01, iterations=6)
    assert rounds > 1
    assert len(card.came_back) == 1 + rounds
    assert all(shape[0] <= 4 and shape[1:] == (14,) for shape in card.came_back)
    assert copies.seen == {"_to_copy": 1 + rounds}


def test_levels_and_spectra_stay_on_the_card(card: Faked) -> None:
    values = card.put(np.zeros((20, 21, 22), np.float32))
    cells = card.cells(card.pool(values, (2, 2, 2)), np.zeros(4096, np.uint8), 0.0, 1.0)
    assert (cells.device.type, tuple(cells.shape), cells.dtype) == (CARD, (10, 10, 11), torch.uint8)
    rows = card.put(np.zeros((61, 4), np.float32))
    maps = card.nearest(rows, (3, 4, 5), np.zeros((2, 3, 4), np.float32), card.put(np.zeros((3, 64), np.float32)))
    assert card.spectra(maps.reshape(2, 4, 4, 4, 4)).device.type == CARD
