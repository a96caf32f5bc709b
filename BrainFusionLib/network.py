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
from BrainFusionLib.intensity import BONE_RAMP_HU, ct_to_unit
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
        _initialise(self, torch.Generator().manual_seed(seed))

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


def _two_convolutions(channels_in: int, channels_out: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(channels_in, channels_out, kernel_size=3, stride=1, padding=1),
        nn.ReLU(inplace=True),
        nn.Conv2d(channels_out, channels_out, kernel_size=3, stride=1, padding=1),
        nn.ReLU(inplace=True),
    )


# Where the bone-over-MRI rule goes from MRI to CT, on the unit scale: the start that `FusionNetAlpha` learns from.
ALPHA_RAMP_UNIT = tuple(float(unit) for unit in ct_to_unit(BONE_RAMP_HU))


# How far beyond 0 and 1 training may push a weight that belongs there. Without a margin, what the network changes at
# the rim of the skull moves weights elsewhere off 0 and 1, and it learns nothing (measured); without a limit, the many
# pixels that belong at 0 or 1 pull it along for ever, and what it had learned is lost again.
MARGIN = 0.5


class _CutOff(torch.autograd.Function):
    """Cut off at 0 and 1; the gradient passes where it leads back, and outwards up to the margin."""

    @staticmethod
    def forward(ctx: Any, free: torch.Tensor) -> torch.Tensor:
        ctx.save_for_backward(free)
        return free.clamp(0, 1)

    @staticmethod
    def backward(ctx: Any, gradient: torch.Tensor) -> torch.Tensor:
        (free,) = ctx.saved_tensors
        outwards = ((free > 1 + MARGIN) & (gradient < 0)) | ((free < -MARGIN) & (gradient > 0))
        return gradient.masked_fill(outwards, 0)


class FusionNetAlpha(nn.Module):
    """Our network: it predicts a weight map α, and ``fused = α·CT + (1 − α)·MRI``.

    The fused slice stays between its sources, so no halo is possible; where α is 1 or 0 it is CT or MRI to the last
    bit. α is a ramp over the CT's bone, as in the bone-over-MRI rule, plus what a small U-shaped network adds to it,
    cut off at 0 and 1. Untrained, it adds nothing: training starts from the rule.

    The network works at half resolution, four pixels as four channels, which a quarter of the arithmetic does for.

    Parameters
    ----------
    width
        Channels of the first block; each block below has twice as many.
    levels
        How many blocks there are on the way down, 1 to 4.
    seed
        Of the initial weights, as in `FusionNet`.
    """

    def __init__(self, width: int = 16, levels: int = 3, seed: int = 0) -> None:
        super().__init__()
        if width < 1 or not 1 <= levels <= 4:
            raise WeightsError(f"a FusionNetAlpha needs 1 channel or more and 1 to 4 levels; got {width} and {levels}")
        channels = [width * 2**level for level in range(levels)]
        self.down = nn.ModuleList(_two_convolutions(before, after) for before, after in pairwise([8, *channels]))
        self.up = nn.ModuleList(
            _two_convolutions(channels[level + 1] + channels[level], channels[level])
            for level in reversed(range(levels - 1))
        )
        self.output = nn.Conv2d(width, 4, kernel_size=1)
        _initialise(self, torch.Generator().manual_seed(seed))
        nn.init.zeros_(self.output.weight)

    def forward(self, ct_and_mri: torch.Tensor) -> torch.Tensor:
        """Fuse slices: (B, 2, H, W), CT first, to (B, 1, H, W); unit scale; H and W multiples of 16."""
        ct, mri = ct_and_mri[:, :1], ct_and_mri[:, 1:]
        alpha = self.alpha(ct_and_mri)
        return alpha * ct + (1 - alpha) * mri

    def alpha(self, ct_and_mri: torch.Tensor) -> torch.Tensor:
        """Return the weight of the CT, 0 to 1: (B, 2, H, W) to (B, 1, H, W)."""
        skips: list[torch.Tensor] = []
        x = F.pixel_unshuffle(ct_and_mri, 2)
        for level, block in enumerate(self.down):
            if level > 0:
                x = F.max_pool2d(x, kernel_size=2, stride=2)
            x = block(x)
            skips.append(x)
        skips.pop()
        for block in self.up:
            x = F.interpolate(x, scale_factor=2, mode="bilinear", align_corners=False)
            x = block(torch.cat([skips.pop(), x], dim=1))
        low, high = ALPHA_RAMP_UNIT
        ramp = ((ct_and_mri[:, :1] - low) / (high - low)).clamp(0, 1)
        # In float32 under autocast, too: half precision would make 1 HU of α = 1.
        free = ramp.float() + F.pixel_shuffle(self.output(x), 2).float()
        if self.training:
            cut: torch.Tensor = _CutOff.apply(free)  # type: ignore[no-untyped-call]
            return cut
        return free.clamp(0, 1)


def _initialise(network: nn.Module, generator: torch.Generator) -> None:
    for module in network.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, nonlinearity="relu", generator=generator)
            if module.bias is not None:
                nn.init.zeros_(module.bias)


# What a manifest's architecture["name"] may be. The other entries of that mapping are the constructor's arguments.
ARCHITECTURES: dict[str, Callable[..., nn.Module]] = {
    "fusion_net": FusionNet,
    "fusion_net_alpha": FusionNetAlpha,
}


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
