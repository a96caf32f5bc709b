"""The slice pipeline: a volume through the fusion network, slice by slice, in batches, on the device."""

from __future__ import annotations

import logging
from collections.abc import Callable

import numpy as np
import torch
import torch.nn.functional as F

from BrainFusionLib.errors import GeometryError, SettingsError
from BrainFusionLib.geometry import Grid, anatomical_axes
from BrainFusionLib.network import SIZE_MULTIPLE
from BrainFusionLib.progress import Cancel, Progress, stop_if
from BrainFusionLib.volume import VoxelArray

logger = logging.getLogger(__name__)

STAGE = "fusion"


def fuse_slices(
    network: torch.nn.Module,
    ct_unit_kji: VoxelArray,
    mri_unit_kji: VoxelArray,
    *,
    device: str | torch.device = "cpu",
    batch_size: int = 8,
    progress: Progress | None = None,
    cancel: Cancel | None = None,
) -> VoxelArray:
    """Fuse two stacks of slices with a network of `network.ARCHITECTURES`.

    Slices of any size go in: rows and columns are padded to the network's multiple at their ends and cut off again
    from the result, never stretched. The result does not depend on the batch size (to 1e-5 of the unit scale). When
    the GPU's memory does not do, batches are halved, and in the end the CPU takes over, with a warning in the log.

    Parameters
    ----------
    network
        Is moved to the device, and left there.
    ct_unit_kji, mri_unit_kji
        Shape (slices, rows, columns), unit scale, rows and columns as `axial_stack` turns them.
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
    if ct_unit_kji.ndim != 3 or ct_unit_kji.shape != mri_unit_kji.shape:
        raise GeometryError(
            "CT and MRI must be two stacks of one shape (slices, rows, columns); got "
            f"{ct_unit_kji.shape} and {mri_unit_kji.shape}. Resample the CT onto the MRI's grid first."
        )
    if batch_size < 1:
        raise SettingsError(f"the batch size must be 1 slice or more; got {batch_size}")
    device = torch.device(device)
    network = network.to(device).eval()
    fused = np.empty(ct_unit_kji.shape, dtype=np.float32)
    first = 0
    while first < len(fused):
        stop_if(cancel)
        chosen = slice(first, first + batch_size)
        try:
            fused[chosen] = _fuse_batch(network, ct_unit_kji[chosen], mri_unit_kji[chosen], device)
        except torch.cuda.OutOfMemoryError:
            if device.type == "cpu":
                raise
            if batch_size > 1:
                batch_size //= 2
                logger.warning("not enough memory on %s: now %d slices at once", device, batch_size)
            else:
                logger.warning("not enough memory on %s, even for one slice: fusing on the CPU, more slowly", device)
                device = torch.device("cpu")
                network = network.to(device)
            continue
        first = min(first + batch_size, len(fused))
        if progress is not None:
            progress(STAGE, first / len(fused))
    return fused


def _fuse_batch(
    network: torch.nn.Module, ct_unit: VoxelArray, mri_unit: VoxelArray, device: torch.device
) -> VoxelArray:
    rows, columns = ct_unit.shape[1:]
    both = torch.from_numpy(np.stack([ct_unit, mri_unit], axis=1, dtype=np.float32)).to(device)
    # The border is repeated outwards: a head cut off by the field of view would get a false edge from zeros, and
    # reflecting needs more voxels than a narrow image has. Measured with trained weights on the last four rows of a
    # head that was cut: error .041 of the unit scale, .043 reflected, .054 with zeros. In air all three are the same.
    both = F.pad(both, (0, -columns % SIZE_MULTIPLE, 0, -rows % SIZE_MULTIPLE), mode="replicate")
    # The order in memory that convolutions are fastest in: measured on one core, FusionNet of width 16, 256x256, one
    # slice in 114 ms instead of 193.
    both = both.contiguous(memory_format=torch.channels_last)
    # Without TF32, whose 10 bits would make GPU and CPU differ by 1e-3 of the unit scale: a few HU in bone.
    with torch.inference_mode(), torch.backends.cudnn.flags(enabled=True, allow_tf32=False):
        fused: VoxelArray = network(both)[:, 0, :rows, :columns].cpu().numpy()
    return fused


def axial_stack(array_kji: VoxelArray, grid: Grid) -> tuple[VoxelArray, Callable[[VoxelArray], VoxelArray]]:
    """Turn a volume so that a network sees every head the same way, however it was acquired.

    In the stack, slices go from the feet to the head, rows from anterior to posterior and columns from right to left
    (each along the index axis nearest to it): axial slices as radiologists look at them, the patient's right on the
    viewer's left. Axes are exchanged and reversed, and no voxel is changed.

    Parameters
    ----------
    array_kji
        Shape ``grid.shape_kji``.
    grid
        Where the voxels are.

    Returns
    -------
    stack
        A view of the array, shape (slices, rows, columns).
    undo
        Turns an array of the stack's shape back: a view of shape ``grid.shape_kji``.

    Raises
    ------
    GeometryError
        The array does not have the grid's shape.
    """
    if array_kji.shape != grid.shape_kji:
        raise GeometryError(f"the array has shape {array_kji.shape} (k, j, i), but its grid needs {grid.shape_kji}")
    letters_kji = anatomical_axes(grid.direction)[::-1]
    order: list[int] = []
    reversed_axes: list[int] = []
    for axis, (along, against) in enumerate((("S", "I"), ("P", "A"), ("L", "R"))):
        source = next(n for n, letter in enumerate(letters_kji) if letter in (along, against))
        order.append(source)
        if letters_kji[source] == against:
            reversed_axes.append(axis)

    def undo(stack: VoxelArray) -> VoxelArray:
        array: VoxelArray = np.flip(stack, tuple(reversed_axes)).transpose(np.argsort(order))
        return array

    stack: VoxelArray = np.flip(array_kji.transpose(order), tuple(reversed_axes))
    return stack, undo
