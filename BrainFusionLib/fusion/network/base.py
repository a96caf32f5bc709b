"""What every fusion network is: how slices and stacks of them go through it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from BrainFusionLib.fusion.method import MIXTURE, Fused
from BrainFusionLib.fusion.slices import DeviceFullError
from BrainFusionLib.intensity.unit import Stacks
from BrainFusionLib.volume import VoxelArray


class FusionNetwork(nn.Module):
    """Base of the fusion networks in torch; see `slices.Network`.

    `forward` takes slices (B, 3, H, W), the CT and the MRI on the unit scale and the bone weight, 0 to 1, and gives the
    fused slices, (B, 1, H, W), unit scale; H and W are multiples of `slices.SIZE_MULTIPLE`.

    Here the output is the fused slice; networks that put out something else override `batch_output`, `untouched` and
    `finished`.

    Attributes
    ----------
    meaning
        What the values of a fused volume are; see `method.Method`.
    stored_as
        What a weights file calls the modules whose names differ from those of the class's own.
    """

    needs_torch: ClassVar[bool] = True
    meaning: ClassVar[str] = MIXTURE
    stored_as: ClassVar[Mapping[str, str]] = {}

    @property
    def margin(self) -> int | None:
        """See `slices.Network`."""
        return None

    def batch_output(self, slices: torch.Tensor) -> torch.Tensor:
        """Return what is collected of a batch of slices, (B, 1, H, W)."""
        fused: torch.Tensor = self(slices)
        return fused

    def untouched(self, stacks: Stacks) -> VoxelArray:
        """See `slices.Network`."""
        return np.array(stacks.mri_unit, dtype=np.float32)

    def finished(self, output: VoxelArray, stacks: Stacks) -> Fused:
        """See `slices.Network`."""
        return Fused(output if stacks.head is None else np.where(stacks.head, output, stacks.mri_unit))

    def runner(self, device: str) -> Callable[[VoxelArray], VoxelArray]:
        """See `slices.Network`; the network is moved to the device, and left there."""
        return ready(self, torch.device(device))

    def stored_name(self, name: str) -> str:
        """Return what a weights file calls a tensor."""
        module, dot, rest = name.partition(".")
        return self.stored_as.get(module, module) + dot + rest

    def arrays(self) -> dict[str, npt.NDArray[Any]]:
        """Return a copy of the tensors as arrays, by their names in a file."""
        return {
            self.stored_name(name): tensor.detach().cpu().numpy().copy() for name, tensor in self.state_dict().items()
        }


def ready(network: FusionNetwork, device: torch.device) -> Callable[[VoxelArray], VoxelArray]:
    """Return a network's `batch_output` for numpy's arrays, ready to run on a device, in evaluation mode."""
    # The order in memory that convolutions are fastest in: measured on one core, FusionNet of width 16, 256x256, one
    # slice in 114 ms instead of 193.
    network.to(device).eval().to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    def run(slices: VoxelArray) -> VoxelArray:
        given = torch.from_numpy(slices).to(device).contiguous(memory_format=torch.channels_last)
        try:
            # Without TF32, whose 10 bits would make GPU and CPU differ by 1e-3 of the unit scale: a few HU in bone.
            with torch.inference_mode(), torch.backends.cudnn.flags(enabled=True, allow_tf32=False):
                output: VoxelArray = network.batch_output(given).cpu().numpy()
                return output
        except torch.cuda.OutOfMemoryError as error:
            if device.type == "cpu":
                raise
            raise DeviceFullError from error

    return run


def initialise(network: nn.Module, generator: torch.Generator) -> None:
    """Draw the weights of all convolutions (He et al., ICCV 2015); biases are 0."""
    for module in network.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, nonlinearity="relu", generator=generator)
            if module.bias is not None:
                nn.init.zeros_(module.bias)
