"""The reference network: what the original project's notebook describes."""

from __future__ import annotations

from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import nn

from BrainFusionLib.errors import WeightsError
from BrainFusionLib.fusion.network.base import FusionNetwork, initialise
from BrainFusionLib.fusion.weight_map import channels


class FusionNet(FusionNetwork):
    """The reference network: a U-shaped convolutional network from a CT and an MRI slice to the fused slice.

    Five down-sampling blocks (two 3x3 convolutions of stride 1 with ReLU; then pooling of stride 2, but for the fifth,
    which is the bottleneck: five poolings with four doublings could not give the input's size back), four up-sampling
    blocks (bilinear doubling, the skip connection beside it, two 3x3 convolutions with ReLU), and a linear 1x1
    convolution, because bone on the unit scale goes above 1.

    Parameters
    ----------
    width
        Channels of the first block; the blocks below have 2, 4, 8 and 16 times as many.
    seed
        Of the initial weights (He et al., ICCV 2015). The same seed gives the same weights, whatever else drew
        random numbers before.
    """

    def __init__(self, width: int = 16, seed: int = 0) -> None:
        super().__init__()
        if width < 1:
            raise WeightsError(f"the width of a FusionNet must be 1 or more channels; got {width}")
        self.width = width
        channels = [width * 2**level for level in range(5)]
        self.down = nn.ModuleList(_two_convolutions(before, after) for before, after in pairwise([2, *channels]))
        self.up = nn.ModuleList(
            _two_convolutions(channels[level + 1] + channels[level], channels[level]) for level in (3, 2, 1, 0)
        )
        self.output = nn.Conv2d(width, 1, kernel_size=1)
        initialise(self, torch.Generator().manual_seed(seed))

    def forward(self, slices: torch.Tensor) -> torch.Tensor:
        """See `FusionNetwork`; the bone weight has no part in it."""
        skips: list[torch.Tensor] = []
        channels(slices)  # refuses other numbers of them
        x = slices[:, :2]
        for level, block in enumerate(self.down):
            if level > 0:
                x = F.max_pool2d(x, kernel_size=2, stride=2)
            x = block(x)
            skips.append(x)
        skips.pop()  # the bottleneck goes up itself, not beside
        for block in self.up:
            x = F.interpolate(x, scale_factor=2, mode="bilinear", align_corners=False)
            x = block(torch.cat([skips.pop(), x], dim=1))
        fused: torch.Tensor = self.output(x)
        return fused


def _two_convolutions(channels_in: int, channels_out: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(channels_in, channels_out, kernel_size=3, stride=1, padding=1),
        nn.ReLU(inplace=True),
        nn.Conv2d(channels_out, channels_out, kernel_size=3, stride=1, padding=1),
        nn.ReLU(inplace=True),
    )
