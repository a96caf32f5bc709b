"""The slice pipeline: a stack through a fusion network, slice by slice, in batches, on the device."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Protocol

import numpy as np
import numpy.typing as npt

from BrainFusionLib.errors import SettingsError
from BrainFusionLib.fusion.method import Fused
from BrainFusionLib.intensity.unit import Stacks
from BrainFusionLib.progress import Cancel, Progress, stop_if
from BrainFusionLib.volume import BoolArray, VoxelArray

logger = logging.getLogger(__name__)

STAGE = "fusion"
# Rows and columns of slices must be multiples of it: four poolings halve a slice four times.
SIZE_MULTIPLE = 16

# Slices (B, 3, H, W), CT and MRI on the unit scale and the bone weight, to a network's output (B, 1, H, W); float32.
BatchFunction = Callable[[VoxelArray], VoxelArray]


class DeviceFullError(MemoryError):
    """The memory of a graphics card is too small for a batch."""


class Network(Protocol):
    """A network for stacks of slices, in torch or without it.

    A stack goes through `runner`, batch by batch, into an array that is `untouched` to begin with, and `finished` makes
    the fused stack of it.
    """

    @property
    def needs_torch(self) -> bool:
        """Whether torch computes."""

    @property
    def meaning(self) -> str:
        """What the values of a fused volume are; see `method.Method`."""

    @property
    def margin(self) -> int | None:
        """How far away, pixels, the pixels of the input may lie that one of the output depends on; ``None``: any."""

    def runner(self, device: str) -> BatchFunction:
        """Return the function of a batch, on a device; it raises `DeviceFullError`."""

    def untouched(self, stacks: Stacks) -> VoxelArray:
        """Return the output, a new array, for slices that need not go through the network: outside the head."""

    def finished(self, output: VoxelArray, stacks: Stacks) -> Fused:
        """Return the fused stack, which outside the head is the MRI."""


class SlicePipeline:
    """A network on a device, for any number of stacks.

    Slices of any size go in: rows and columns are padded to the network's multiple at their ends and cut off again
    from the result, never stretched. The result does not depend on the batch size, the number of threads and what is
    skipped: not at all for a `FusionNetAlpha` in C, to 1e-5 of the unit scale else. Weights made in C, in torch and on
    a GPU give values that agree to 0.001 but for some 3 of a million, by up to 0.05: where a small change of the weight
    turns the slope of what is kept, the last steps of the network follow rounding.

    When the GPU's memory is too small, batches are halved, and in the end the CPU takes over, with a warning in the
    log; so it stays for the stacks that follow.

    Parameters
    ----------
    network
        One in torch is moved to the device, and left there, in evaluation mode.
    device
        Where the network runs; see `device.pick_device`.
    batch_size
        Slices at once.

    Raises
    ------
    SettingsError
        The batch size is below 1.
    """

    def __init__(self, network: Network, device: str = "cpu", batch_size: int = 8) -> None:
        if batch_size < 1:
            raise SettingsError(f"the batch size must be 1 slice or more; got {batch_size}")
        self._network = network
        self._batch_size = batch_size
        self._device = device
        self._run = network.runner(device)

    def fuse(self, stacks: Stacks, progress: Progress | None = None, cancel: Cancel | None = None) -> Fused:
        """Fuse a stack; what lies outside the head is not computed where it has no part in the head's result.

        Parameters
        ----------
        progress
            Called after each batch.
        cancel
            Asked before each batch.

        Raises
        ------
        Cancelled
            `cancel` said yes.
        """
        output = self._network.untouched(stacks)
        images = (stacks.ct_unit, stacks.mri_unit, stacks.bone_weight)
        chosen, rows, columns = _needed(stacks.head, output.shape, self._network.margin)

        def gathered(first: int) -> VoxelArray:
            batch = chosen[first : first + self._batch_size]
            return np.stack([image[batch, rows, columns] for image in images], axis=1, dtype=np.float32)

        # The next batch is gathered while one is on the device.
        with ThreadPoolExecutor(1) as beside:
            first, ahead = 0, beside.submit(gathered, 0)
            while first < len(chosen):
                stop_if(cancel)
                given = ahead.result()
                after = first + len(given)
                ahead = beside.submit(gathered, after)
                try:
                    output[chosen[first:after], rows, columns] = _padded_through(self._run, given)
                except DeviceFullError:
                    self._need_less_memory()
                    ahead = beside.submit(gathered, first)
                    continue
                first = after
                if progress is not None:
                    progress(STAGE, first / len(chosen))
        return self._network.finished(output, stacks)

    def _need_less_memory(self) -> None:
        if self._batch_size > 1:
            self._batch_size //= 2
            logger.warning("not enough memory on %s: now %d slices at once", self._device, self._batch_size)
        else:
            logger.warning("not enough memory on %s, even for one slice: fusing on the CPU, more slowly", self._device)
            self._device = "cpu"
            self._run = self._network.runner(self._device)


def fuse_slices(
    network: Network,
    stacks: Stacks,
    *,
    device: str = "cpu",
    batch_size: int = 8,
    progress: Progress | None = None,
    cancel: Cancel | None = None,
) -> Fused:
    """Fuse one stack with a network; parameters and errors are those of `SlicePipeline`."""
    return SlicePipeline(network, device, batch_size).fuse(stacks, progress, cancel)


def _needed(
    where: BoolArray | None, shape: Sequence[int], margin: int | None
) -> tuple[npt.NDArray[np.intp], slice, slice]:
    """Return the slices, and the rows and columns of all of them, that have a part in the result inside `where`.

    Rows and columns are cut where the network's poolings cut, and so far from the head that nothing outside is seen
    from inside it: every value inside is what it would be if all was computed.
    """
    everything = slice(0, shape[1]), slice(0, shape[2])
    if where is None:
        return np.arange(shape[0]), *everything
    chosen = np.flatnonzero(np.any(where, axis=(1, 2)))
    if margin is None or not len(chosen):
        return chosen, *everything
    head: BoolArray = np.any(where, axis=0)
    rows, columns = (_widened(np.flatnonzero(np.any(head, axis=axis)), margin, head.shape[1 - axis]) for axis in (1, 0))
    return chosen, rows, columns


def _widened(places: npt.NDArray[np.intp], margin: int, size: int) -> slice:
    first, last = int(places[0]) - margin, int(places[-1]) + 1 + margin
    return slice(max(0, first // SIZE_MULTIPLE * SIZE_MULTIPLE), min(size, -(-last // SIZE_MULTIPLE) * SIZE_MULTIPLE))


def _padded_through(run: BatchFunction, slices: VoxelArray) -> VoxelArray:
    rows, columns = slices.shape[2:]
    # The border is repeated outwards: a head cut off by the field of view would get a false edge from zeros, and
    # reflecting needs more voxels than a narrow image has. Measured with trained weights on the last four rows of a
    # head that was cut: error .041 of the unit scale, .043 reflected, .054 with zeros. In air all three are the same.
    padding = (0, 0), (0, 0), (0, -rows % SIZE_MULTIPLE), (0, -columns % SIZE_MULTIPLE)
    return run(np.pad(slices, padding, mode="edge"))[:, 0, :rows, :columns]
