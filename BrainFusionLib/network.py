"""The fusion networks, all behind one interface, and how they are built from a weights file.

Every network takes (B, 2, H, W), the CT and the MRI slice on the unit scale of `intensity`, and gives (B, 1, H, W),
the fused slice on the same scale. H and W are multiples of `SIZE_MULTIPLE`; `slices` pads and crops to that.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from itertools import pairwise
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from BrainFusionLib.errors import WeightsError
from BrainFusionLib.weights import Arrays, Weights

# Four poolings halve the slice four times.
SIZE_MULTIPLE = 16


class FusionNet(nn.Module):
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
        self._initialise(torch.Generator().manual_seed(seed))

    def forward(self, ct_and_mri: torch.Tensor) -> torch.Tensor:
        """Fuse slices: (B, 2, H, W), CT first, to (B, 1, H, W); unit scale; H and W multiples of 16."""
        skips: list[torch.Tensor] = []
        x = ct_and_mri
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

    def _initialise(self, generator: torch.Generator) -> None:
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, nonlinearity="relu", generator=generator)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)


def _two_convolutions(channels_in: int, channels_out: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(channels_in, channels_out, kernel_size=3, stride=1, padding=1),
        nn.ReLU(inplace=True),
        nn.Conv2d(channels_out, channels_out, kernel_size=3, stride=1, padding=1),
        nn.ReLU(inplace=True),
    )


# What a manifest's architecture["name"] may be. The other entries of that mapping are the constructor's arguments.
ARCHITECTURES: dict[str, Callable[..., nn.Module]] = {"fusion_net": FusionNet}


def build_network(architecture: Mapping[str, Any]) -> nn.Module:
    """Build an untrained network from the description in a manifest, ``{"name": "fusion_net", "width": 16}``.

    Raises
    ------
    WeightsError
        No architecture of that name, or arguments that it does not take.
    """
    arguments = dict(architecture)
    name = arguments.pop("name", None)
    if name not in ARCHITECTURES:
        raise WeightsError(
            f"the weights are for a network called {name!r}; this version has {', '.join(sorted(ARCHITECTURES))}. "
            "Use weights made for this version, or update BrainFusion."
        )
    try:
        return ARCHITECTURES[name](**arguments)
    except (TypeError, ValueError) as error:
        raise WeightsError(f"the network {name!r} cannot be built with {arguments}: {error}") from error


def network_from_weights(weights: Weights) -> nn.Module:
    """Build the network that a weights file describes, holding its weights, ready to run (CPU, evaluation mode).

    Raises
    ------
    WeightsError
        A tensor is missing, unknown to the network, or has another shape; the message names tensor and file.
    """
    network = build_network(weights.manifest.architecture)
    expected = network.state_dict()
    _check_arrays_fit(expected, weights)
    network.load_state_dict({name: torch.from_numpy(np.array(weights.arrays[name])) for name in expected})
    return network.eval()


def arrays_of(network: nn.Module) -> Arrays:
    """Return a copy of a network's tensors as arrays, by name: what `weights.save_weights` writes."""
    return {name: tensor.detach().cpu().numpy().copy() for name, tensor in network.state_dict().items()}


def _check_arrays_fit(expected: Mapping[str, torch.Tensor], weights: Weights) -> None:
    remedy = f"{weights.path} was not made for the network that its manifest names; get the pair of files again."
    for name, tensor in expected.items():
        if name not in weights.arrays:
            raise WeightsError(f"the tensor {name!r} of shape {tuple(tensor.shape)} is missing. {remedy}")
        if weights.arrays[name].shape != tuple(tensor.shape):
            raise WeightsError(
                f"the tensor {name!r} should have shape {tuple(tensor.shape)}, but has {weights.arrays[name].shape}. "
                f"{remedy}"
            )
    unknown = sorted(set(weights.arrays) - set(expected))
    if unknown:
        raise WeightsError(f"the network has no tensor called {unknown[0]!r}. {remedy}")
