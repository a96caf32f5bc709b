"""The default network on the CPU, without torch: in C (``rim.c``), or in numpy where there is no compiled library.

In C, the weight map is worked out only where it can be anything but 0 and 1. That is the bone rim: a tenth of a slice,
and a third with the surroundings that the network needs.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache
from typing import Any

import numpy as np
import numpy.typing as npt

from BrainFusionLib.device import threads
from BrainFusionLib.errors import GeometryError
from BrainFusionLib.fusion.edges import CORNER, TINY
from BrainFusionLib.fusion.primitives import Convolution
from BrainFusionLib.fusion.weight_map import (
    MOST_DARKENING,
    PLAIN_STEPS,
    PRICE,
    SEEN,
    SQUASH,
    WeightOutput,
    channels,
    margin_of,
    plain_rate,
    weight_map,
)
from BrainFusionLib.metrics.fusion import DIRECTION, STRENGTH
from BrainFusionLib.native import load_compiled
from BrainFusionLib.volume import VoxelArray

# Channels of a vector in rim.c.
LANES = 16

Floats = npt.NDArray[np.float32]
# The weights and biases of one step: of conv1, conv2 and head.
Layers = tuple[tuple[Floats, Floats], tuple[Floats, Floats], tuple[Floats, Floats]]


class RimNetwork(WeightOutput):
    """A `FusionNetAlpha` on the CPU, from the arrays of its weights file (`weight_map.shapes_of`)."""

    needs_torch = False

    def __init__(self, arrays: Mapping[str, npt.NDArray[Any]]) -> None:
        def layer(name: str, step: int) -> tuple[Floats, Floats]:
            weight, bias = (np.asarray(arrays[f"{name}.{step}.{part}"], np.float32) for part in ("weight", "bias"))
            return weight, bias

        steps = sum(name.startswith("see.") and name.endswith(".bias") for name in arrays)
        self._steps: list[Layers] = [(layer("see", n), layer("think", n), layer("decide", n)) for n in range(steps)]

    @property
    def margin(self) -> int:
        """See `slices.Network`."""
        return margin_of(len(self._steps))

    def runner(self, device: str) -> Callable[[VoxelArray], VoxelArray]:
        """See `slices.Network`."""
        library = _library()
        return PlainRim(self._steps) if library is None else RimKernel(library, self._steps)


class PlainRim:
    """A network's weight maps in numpy."""

    def __init__(self, steps: list[Layers]) -> None:
        self._layers = [
            (Convolution(*conv1, stride=2), Convolution(*conv2), Convolution(*head)) for conv1, conv2, head in steps
        ]

    def __call__(self, slices: VoxelArray) -> VoxelArray:
        """Return α, (B, 1, H, W), of slices as `weight_map` takes them; slices share the threads."""
        _channels(slices)
        with ThreadPoolExecutor(min(len(slices), threads())) as pool:
            return np.concatenate(list(pool.map(lambda one: weight_map(one[None], self._layers), slices)))


class RimKernel:
    """A network's weight maps by ``rim.c``."""

    def __init__(self, library: Any, steps: list[Layers]) -> None:
        self._alpha = library.brainfusion_rim_alpha
        self._memory = library.brainfusion_rim_memory
        pointer: Any = ctypes.c_void_p
        whole: Any = ctypes.c_int64
        self._alpha.argtypes = [pointer] * 3 + [whole] * 4 + [pointer] * 4
        self._alpha.restype = None
        self._memory.argtypes, self._memory.restype = [whole] * 3, whole
        self._width, self._steps = len(steps[0][0][0]), len(steps)
        self._weights = _packed(steps)
        rates = [plain_rate(step) for step in range(PLAIN_STEPS)]
        constants = [TINY, CORNER, *STRENGTH, *DIRECTION, *SQUASH, MOST_DARKENING, PRICE, PLAIN_STEPS, *rates]
        self._constants = np.array(constants, dtype=np.float32)

    def __call__(self, slices: VoxelArray) -> VoxelArray:
        """Return α, (B, 1, H, W), of slices as `weight_map` takes them; slices share the threads."""
        images = [np.ascontiguousarray(image[:, 0], dtype=np.float32) for image in _channels(slices)]
        alpha: VoxelArray = np.empty(images[0].shape, dtype=np.float32)
        count = min(len(alpha), threads())
        shares = [range(first, len(alpha), count) for first in range(count)]
        if len(shares) < 2:
            for share in shares:
                self._work(images, alpha, share)
        else:
            # ctypes lets go of Python's lock while C works.
            with ThreadPoolExecutor(len(shares)) as pool:
                list(pool.map(lambda share: self._work(images, alpha, share), shares))
        return alpha[:, None]

    def _work(self, images: list[VoxelArray], alpha: VoxelArray, share: range) -> None:
        rows, columns = alpha.shape[1:]
        memory = np.zeros(self._memory(rows, columns, self._width) + 64, dtype=np.uint8)
        aligned = memory.ctypes.data + -memory.ctypes.data % 64
        for number in share:
            self._alpha(
                *(image[number].ctypes.data for image in images), rows, columns, self._width, self._steps,
                self._weights.ctypes.data, self._constants.ctypes.data, aligned, alpha[number].ctypes.data,
            )  # fmt: skip


def _channels(slices: VoxelArray) -> tuple[VoxelArray, VoxelArray, VoxelArray]:
    """Return the channels of slices of a size that the loops can do.

    Raises
    ------
    GeometryError
        Rows or columns are not even, or there are fewer than `LANES` columns.
    """
    found = channels(slices)
    rows, columns = slices.shape[2:]
    if rows % 2 or columns % 2 or columns < LANES:
        raise GeometryError(
            f"the network needs an even number of rows and columns, and at least {LANES} columns; got {rows} x "
            f"{columns}. Pad the slices, as `slices.fuse_slices` does."
        )
    return found


@lru_cache(maxsize=1)
def _library() -> Any:
    return load_compiled(("brainfusion_rim_alpha", "brainfusion_rim_memory"))


def _packed(steps: list[Layers]) -> Floats:
    """Return all weights in the order in which rim.c goes through them: see its ``brainfusion_rim_alpha``."""
    wide = -(-len(steps[0][0][0]) // LANES) * LANES
    pieces = []
    for layers in steps:
        for number, ((weight, bias), outputs, inputs) in enumerate(
            zip(layers, (wide, wide, LANES), (SEEN, wide, wide), strict=True)
        ):
            missing = outputs - len(weight)
            weight = np.pad(weight, ((0, missing), (0, inputs - weight.shape[1]), (0, 0), (0, 0)))
            # The first layer goes through channels, then pixels of its window; the others the other way round.
            rows = weight.transpose((1, 2, 3, 0) if number == 0 else (2, 3, 1, 0)).reshape(-1, outputs)
            rows = np.concatenate([np.pad(bias, (0, missing))[None], rows])
            pieces += [rows[:, first : first + LANES].ravel() for first in range(0, outputs, LANES)]
    return np.ascontiguousarray(np.concatenate(pieces), dtype=np.float32)
