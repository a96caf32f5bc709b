"""What every fusion network is: how slices and stacks of them go through it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import ClassVar

import numpy as np
import torch
from torch import nn

from BrainFusionLib.errors import GeometryError
from BrainFusionLib.fusion.method import MIXTURE, Fused
from BrainFusionLib.intensity.unit import Stacks
from BrainFusionLib.volume import VoxelArray

# Rows and columns of slices must be multiples of it: four poolings halve a slice four times.
SIZE_MULTIPLE = 16

# (B, 3, H, W) to (B, 1, H, W).
BatchFunction = Callable[[torch.Tensor], torch.Tensor]


class FusionNetwork(nn.Module):
    """Base of the fusion networks.

    `forward` takes slices (B, 3, H, W), the CT and the MRI on the unit scale and the bone weight, 0 to 1, and gives the
    fused slices, (B, 1, H, W), unit scale; H and W are multiples of `SIZE_MULTIPLE`.

    A stack of slices goes through `batch_output`, batch by batch, into an array that is `untouched` to begin with, and
    `finished` makes the fused stack of it. Here the output is the fused slice; networks that put out something else
    override all three.

    Attributes
    ----------
    meaning
        What the values of a fused volume are; see `method.Method`.
    stored_as
        What a weights file calls the modules whose names differ from those of the class's own.
    """

    meaning: ClassVar[str] = MIXTURE
    stored_as: ClassVar[Mapping[str, str]] = {}

    @property
    def margin(self) -> int | None:
        """How far away, pixels, the pixels of the input may lie that one of the output depends on; ``None``: any."""
        return None

    def batch_output(self, slices: torch.Tensor) -> torch.Tensor:
        """Return what is collected of a batch of slices, (B, 1, H, W)."""
        fused: torch.Tensor = self(slices)
        return fused

    def untouched(self, stacks: Stacks) -> VoxelArray:
        """Return the output, a new array, for slices that need not go through the network: outside the head."""
        return np.array(stacks.mri_unit, dtype=np.float32)

    def finished(self, output: VoxelArray, stacks: Stacks) -> Fused:
        """Return the fused stack, which outside the head is the MRI."""
        return Fused(output if stacks.head is None else np.where(stacks.head, output, stacks.mri_unit))

    def compiled(self) -> BatchFunction | None:
        """Return `batch_output` in a faster form for the CPU; ``None`` where there is none."""
        return None


def channels(slices: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Return CT, MRI and bone weight, (B, 1, H, W) each.

    Raises
    ------
    GeometryError
        There are not three channels.
    """
    if slices.ndim != 4 or slices.shape[1] != 3:
        raise GeometryError(
            "a fusion network needs CT, MRI and bone weight, (B, 3, H, W); got slices of shape "
            f"{tuple(slices.shape)}. Add the missing channel."
        )
    return slices[:, :1], slices[:, 1:2], slices[:, 2:]


def initialise(network: nn.Module, generator: torch.Generator) -> None:
    """Draw the weights of all convolutions (He et al., ICCV 2015); biases are 0."""
    for module in network.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, nonlinearity="relu", generator=generator)
            if module.bias is not None:
                nn.init.zeros_(module.bias)
