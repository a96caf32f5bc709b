"""The slice pipeline: a volume through the fusion network, slice by slice, in batches, on the device."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F

from BrainFusionLib.errors import GeometryError, SettingsError
from BrainFusionLib.fusion.network import SIZE_MULTIPLE, FusionNetAlpha
from BrainFusionLib.fusion.network.rim import rim_kernel
from BrainFusionLib.progress import Cancel, Progress, stop_if
from BrainFusionLib.volume import BoolArray, VoxelArray

logger = logging.getLogger(__name__)

STAGE = "fusion"


def fuse_slices(
    network: torch.nn.Module,
    ct_unit_kji: VoxelArray,
    mri_unit_kji: VoxelArray,
    bone_weight_kji: VoxelArray | None = None,
    *,
    where: BoolArray | None = None,
    device: str | torch.device = "cpu",
    batch_size: int = 8,
    progress: Progress | None = None,
    cancel: Cancel | None = None,
) -> VoxelArray:
    """Fuse two stacks of slices with a network of `network.ARCHITECTURES`.

    Slices of any size go in: rows and columns are padded to the network's multiple at their ends and cut off again
    from the result, never stretched. The result does not depend on the batch size, the number of threads and what is
    skipped: not at all for a `FusionNetAlpha` in C, to 1e-5 of the unit scale else. Weights made in C, in torch and on
    a GPU agree to 0.001 (13 published pairs, C and torch: 0.0002), but where a source is flat beside bone to rounding:
    noise of 1e-7 moved 0.8 % of the weights there by more than 0.001, and none of the measures by 0.0001. When the
    GPU's memory does not do, batches are halved, and in the end the CPU takes over, with a warning in the log.

    Parameters
    ----------
    network
        Is moved to the device, and left there.
    ct_unit_kji, mri_unit_kji
        Shape (slices, rows, columns), unit scale, rows and columns as `volume.axial_stack` turns them.
    bone_weight_kji
        How much a voxel is bone, 0 to 1, same shape. Left away, it is that of a CT in Hounsfield units.
    where
        The head, same shape: outside it the result is the MRI, and what it takes no part in is not computed.
    device
        Where the network runs; see `device.pick_device`.
    batch_size
        Slices at once.
    progress
        Called after each batch.
    cancel
        Asked before each batch; says whether to stop.

    Returns
    -------
    array
        Shape (slices, rows, columns), unit scale, float32.

    Raises
    ------
    GeometryError
        The stacks are not of one three-dimensional shape.
    SettingsError
        The batch size is below 1.
    Cancelled
        `cancel` said so.
    """
    stacks = _checked(ct_unit_kji, mri_unit_kji, bone_weight_kji, where)
    if isinstance(network, FusionNetAlpha):
        # Blended here, in float32, so that a weight of exactly 0 or 1 gives back a source to the last bit.
        alpha = slice_weights(network, *stacks, where=where, **_options(device, batch_size, progress, cancel))
        return blend(alpha, ct_unit_kji, mri_unit_kji)
    fused = np.array(mri_unit_kji, dtype=np.float32)
    _through(network, stacks, where, fused, **_options(device, batch_size, progress, cancel))
    return fused if where is None else np.where(where, fused, mri_unit_kji)


def slice_weights(
    network: FusionNetAlpha,
    ct_unit_kji: VoxelArray,
    mri_unit_kji: VoxelArray,
    bone_weight_kji: VoxelArray | None = None,
    *,
    where: BoolArray | None = None,
    device: str | torch.device = "cpu",
    batch_size: int = 8,
    progress: Progress | None = None,
    cancel: Cancel | None = None,
) -> VoxelArray:
    """Return the weight α of the CT, 0 to 1, that a network gives to stacks of slices; 0 outside `where`.

    ``blend(α, ct, mri)`` is the fused stack. Everything else is as in `fuse_slices`.
    """
    stacks = _checked(ct_unit_kji, mri_unit_kji, bone_weight_kji, where)
    alpha = np.zeros(ct_unit_kji.shape, dtype=np.float32)
    _through(AlphaOf(network), stacks, where, alpha, **_options(device, batch_size, progress, cancel))
    return alpha if where is None else alpha * where


def blend(alpha: VoxelArray, ct: VoxelArray, mri: VoxelArray) -> VoxelArray:
    """Return ``α·ct + (1 − α)·mri``, float32: ct where α is 1 and mri where it is 0, to the last bit."""
    fused: VoxelArray = alpha * ct + (1 - alpha) * mri
    return fused


class AlphaOf(torch.nn.Module):
    """A network whose output is the weight map of another one."""

    def __init__(self, network: FusionNetAlpha) -> None:
        super().__init__()
        self.network = network
        self.margin = network.margin

    def forward(self, slices: torch.Tensor) -> torch.Tensor:
        """Return α, (B, 1, H, W), of slices (B, 2 or 3, H, W)."""
        return self.network.alpha(slices)


def _checked(
    ct: VoxelArray, mri: VoxelArray, bone_weight: VoxelArray | None, where: BoolArray | None
) -> tuple[VoxelArray, ...]:
    """Return the stacks that are given, if they are of one shape."""
    stacks = tuple(stack for stack in (ct, mri, bone_weight) if stack is not None)
    shapes = [stack.shape for stack in (*stacks, *([] if where is None else [where]))]
    if ct.ndim != 3 or set(shapes) != {ct.shape}:
        raise GeometryError(
            "CT, MRI, bone weight and head must be stacks of one shape (slices, rows, columns); got "
            f"{', '.join(str(shape) for shape in shapes)}. Resample the CT onto the MRI's grid first."
        )
    return stacks


def _options(
    device: str | torch.device, batch_size: int, progress: Progress | None, cancel: Cancel | None
) -> dict[str, Any]:
    return {"device": device, "batch_size": batch_size, "progress": progress, "cancel": cancel}


def _through(
    network: torch.nn.Module,
    stacks: Sequence[VoxelArray],
    where: BoolArray | None,
    result: VoxelArray,
    *,
    device: str | torch.device,
    batch_size: int,
    progress: Progress | None,
    cancel: Cancel | None,
) -> None:
    """Put batches of slices through a network, and what comes out into `result`; the rest of it stays as it is."""
    if batch_size < 1:
        raise SettingsError(f"the batch size must be 1 slice or more; got {batch_size}")
    device = torch.device(device)
    chosen, rows, columns = _needed(where, result.shape, getattr(network, "margin", None))
    run = prepare(network, device)

    def gathered(first: int, count: int) -> VoxelArray:
        batch = chosen[first : first + count]
        return np.stack([stack[batch, rows, columns] for stack in stacks], axis=1, dtype=np.float32)

    # The next batch is gathered while one is on the device.
    with ThreadPoolExecutor(1) as beside:
        first, ahead = 0, beside.submit(gathered, 0, batch_size)
        while first < len(chosen):
            stop_if(cancel)
            given = ahead.result()
            ahead = beside.submit(gathered, first + len(given), batch_size)
            try:
                result[chosen[first : first + len(given)], rows, columns] = _padded_through(run, given, device)
            except torch.cuda.OutOfMemoryError:
                if device.type == "cpu":
                    raise
                if batch_size > 1:
                    batch_size //= 2
                    logger.warning("not enough memory on %s: now %d slices at once", device, batch_size)
                else:
                    logger.warning(
                        "not enough memory on %s, even for one slice: fusing on the CPU, more slowly", device
                    )
                    device = torch.device("cpu")
                    run = prepare(network, device)
                ahead = beside.submit(gathered, first, batch_size)
                continue
            first += len(given)
            if progress is not None:
                progress(STAGE, first / len(chosen))


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


def prepare(network: torch.nn.Module, device: torch.device) -> Callable[[torch.Tensor], torch.Tensor]:
    """Return a network ready to run on a device, in evaluation mode."""
    if isinstance(network, AlphaOf) and device.type == "cpu":
        compiled = rim_kernel(network.network.cpu().eval())
        if compiled is not None:
            return compiled
    # The order in memory that convolutions are fastest in: measured on one core, FusionNet of width 16, 256x256, one
    # slice in 114 ms instead of 193.
    network = network.to(device).eval()
    network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    def run(slices: torch.Tensor) -> torch.Tensor:
        slices = slices.to(device).contiguous(memory_format=torch.channels_last)
        # Without TF32, whose 10 bits would make GPU and CPU differ by 1e-3 of the unit scale: a few HU in bone.
        with torch.inference_mode(), torch.backends.cudnn.flags(enabled=True, allow_tf32=False):
            fused: torch.Tensor = network(slices)
            return fused.cpu()

    return run


def _padded_through(
    run: Callable[[torch.Tensor], torch.Tensor], slices: VoxelArray, device: torch.device
) -> VoxelArray:
    rows, columns = slices.shape[2:]
    # The border is repeated outwards: a head cut off by the field of view would get a false edge from zeros, and
    # reflecting needs more voxels than a narrow image has. Measured with trained weights on the last four rows of a
    # head that was cut: error .041 of the unit scale, .043 reflected, .054 with zeros. In air all three are the same.
    padding = (0, -columns % SIZE_MULTIPLE, 0, -rows % SIZE_MULTIPLE)
    padded = F.pad(torch.from_numpy(slices), padding, mode="replicate")
    fused: VoxelArray = run(padded)[:, 0, :rows, :columns].numpy()
    return fused
