"""The weight map of `FusionNetAlpha` in C (``rim.c``), worked out only where it can be anything but 0 and 1.

That is the bone rim: a tenth of a slice, and a third with the surroundings that the network needs. On the CPU, where
the C library is there (`BrainFusionLib.native`); else `FusionNetAlpha.alpha` does the work, several times slower.
"""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import nn

from BrainFusionLib.fusion.network.base import channels
from BrainFusionLib.fusion.network.edges import CORNER, TINY
from BrainFusionLib.metrics.fusion import DIRECTION, STRENGTH
from BrainFusionLib.native import load_compiled

# Channels of a vector in rim.c; channels that the first layer sees.
LANES, SEEN = 16, 7


# The layers of one step of a `FusionNetAlpha`: its conv1, conv2 and head.
Step = tuple[nn.Module, nn.Module, nn.Module]


class RimKernel:
    """A network's weight maps by ``rim.c``; for networks in evaluation mode, float32, on the CPU."""

    def __init__(self, library: Any, steps: Sequence[Step], squash: tuple[float, float]) -> None:
        self._alpha = library.brainfusion_rim_alpha
        self._memory = library.brainfusion_rim_memory
        pointer: Any = ctypes.c_void_p
        whole: Any = ctypes.c_int64
        self._alpha.argtypes = [pointer] * 3 + [whole] * 4 + [pointer] * 4
        self._alpha.restype = None
        self._memory.argtypes, self._memory.restype = [whole] * 3, whole
        self._width, self._steps = steps[0][0].out_channels, len(steps)
        self._weights = _packed(steps)
        self._constants = np.array([TINY, CORNER, *STRENGTH, *DIRECTION, *squash], dtype=np.float32)

    def __call__(self, slices: torch.Tensor) -> torch.Tensor:
        """Return α, (B, 1, H, W), of slices as `FusionNetAlpha.alpha` takes them; slices share torch's threads."""
        images = [image[:, 0].contiguous().numpy() for image in channels(slices.float())]
        alpha = np.empty(images[0].shape, dtype=np.float32)
        count = len(alpha)
        threads = min(count, torch.get_num_threads())
        shares = [range(first, count, threads) for first in range(threads)]
        if len(shares) < 2:
            for share in shares:
                self._work(images, alpha, share)
        else:
            # ctypes lets go of Python's lock while C works.
            with ThreadPoolExecutor(len(shares)) as pool:
                list(pool.map(lambda share: self._work(images, alpha, share), shares))
        return torch.from_numpy(alpha)[:, None]

    def _work(self, images: list[npt.NDArray[np.float32]], alpha: npt.NDArray[np.float32], share: range) -> None:
        rows, columns = alpha.shape[1:]
        memory = np.zeros(self._memory(rows, columns, self._width) + 64, dtype=np.uint8)
        aligned = memory.ctypes.data + -memory.ctypes.data % 64
        for number in share:
            self._alpha(
                *(image[number].ctypes.data for image in images), rows, columns, self._width, self._steps,
                self._weights.ctypes.data, self._constants.ctypes.data, aligned, alpha[number].ctypes.data,
            )  # fmt: skip


def rim_kernel(steps: Sequence[Step], squash: tuple[float, float]) -> RimKernel | None:
    """Return the compiled form of a `FusionNetAlpha` of these steps; ``None`` where the library is not there."""
    library = _library()
    return None if library is None else RimKernel(library, steps, squash)


@lru_cache(maxsize=1)
def _library() -> Any:
    return load_compiled(("brainfusion_rim_alpha", "brainfusion_rim_memory"))


def _packed(steps: Sequence[Step]) -> npt.NDArray[np.float32]:
    """Return all weights in the order in which rim.c goes through them: see its ``brainfusion_rim_alpha``."""
    blocks = -(-int(steps[0][0].out_channels) // LANES)  # type: ignore[arg-type]
    padded = blocks * LANES
    pieces = []
    for conv1, conv2, head in steps:
        for layer, outputs, inputs in ((conv1, padded, SEEN), (conv2, padded, padded), (head, LANES, padded)):
            weight: torch.Tensor = layer.weight.detach().float().cpu()  # type: ignore[operator]
            bias: torch.Tensor = layer.bias.detach().float().cpu()  # type: ignore[operator]
            missing = int(outputs - len(weight))
            weight = F.pad(weight, (0, 0, 0, 0, 0, int(inputs - weight.shape[1]), 0, missing))
            # The first layer goes through channels, then pixels of its window; the others the other way round.
            rows = weight.permute((1, 2, 3, 0) if layer is conv1 else (2, 3, 1, 0)).reshape(-1, outputs)
            rows = torch.cat([F.pad(bias, (0, missing))[None], rows])
            pieces += [rows[:, first : first + LANES].flatten() for first in range(0, outputs, LANES)]
    return torch.cat(pieces).numpy().copy()
