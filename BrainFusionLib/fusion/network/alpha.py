"""Our network: it predicts how much of each pixel is CT."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, ClassVar

import torch
from torch import nn

from BrainFusionLib.fusion.network.base import FusionNetwork, initialise, ready
from BrainFusionLib.fusion.rim import RimNetwork
from BrainFusionLib.fusion.weight_map import (
    HEAD,
    SEEN,
    WeightOutput,
    channels,
    margin_of,
    shapes_of,
    weight_map,
    within_limits,
)
from BrainFusionLib.volume import VoxelArray

# The first guess at each step, before anything is learned: go uphill by this much.
FIRST_GAIN = 0.2

# How far beyond 0 and 1 training may push a weight that belongs there. Without a margin, what the network changes at
# the rim of the skull moves weights elsewhere off 0 and 1, and it learns nothing (measured); without a limit, the many
# pixels that belong at 0 or 1 pull it along for ever, and what it had learned is lost again.
MARGIN = 0.5


class _CutOff(torch.autograd.Function):
    """Cut off at 0 and the greatest weight; the gradient passes where it leads back, and outwards up to the margin."""

    @staticmethod
    def forward(ctx: Any, free: torch.Tensor, most: torch.Tensor) -> torch.Tensor:
        ctx.save_for_backward(free, most)
        cut: torch.Tensor = within_limits(free, most)
        return cut

    @staticmethod
    def backward(ctx: Any, gradient: torch.Tensor) -> tuple[torch.Tensor, None]:
        free, most = ctx.saved_tensors
        outwards = ((free > most + MARGIN) & (gradient < 0)) | ((free < -MARGIN) & (gradient > 0))
        return gradient.masked_fill(outwards, 0), None


class FusionNetAlpha(WeightOutput, FusionNetwork):
    """Our network: it predicts a weight map α, and ``fused = α·CT + (1 − α)·MRI``.

    What no training can take from it: the fused slice stays between its sources, so that no halo is possible; where
    the bone weight is 1, α is 1 and bone is the CT's to the last bit; further than `weight_map.REACH` pixels from what
    is at least half bone, α is 0 and soft tissue, lesions included, is the MRI's to the last bit.

    Between the two, at the rim of bone, each pixel holds some of both. α starts there from `weight_map.bone_and_rim`,
    and goes up the slope of the edges that the fused slice keeps of both sources (`edges.slope_of_kept`) in a few
    steps. How far to go where, two small convolutional layers decide at each step, from what they see around the
    pixel: gradient ascent, unrolled, with learned steps. (A U-shaped network that had to guess α at once, from the
    slices, closed a sixth of the distance between the rule and the optimum that this one closes half of, and took ten
    times as long to learn it: the optimum depends on the slope pixel by pixel.) A few plain steps of the same follow
    that nothing learned decides on; training leaves them out (`weight_map.PLAIN_STEPS`).

    Parameters
    ----------
    width
        Channels inside, at half resolution.
    steps
        How often α is improved.
    seed
        Of the initial weights, as in `FusionNet`.
    """

    # The arrays of weights files keep the names of the first version, so that a file's sha256 stays.
    stored_as: ClassVar[Mapping[str, str]] = {"conv1": "see", "conv2": "think", "head": "decide"}

    def __init__(self, width: int = 16, steps: int = 3, seed: int = 0) -> None:
        super().__init__()
        shapes_of(width, steps)  # refuses what makes no network
        self.conv1 = nn.ModuleList(nn.Conv2d(SEEN, width, kernel_size=4, stride=2, padding=1) for _ in range(steps))
        self.conv2 = nn.ModuleList(nn.Conv2d(width, width, kernel_size=3, padding=1) for _ in range(steps))
        self.head = nn.ModuleList(nn.Conv2d(width, HEAD, kernel_size=3, padding=1) for _ in range(steps))
        initialise(self, torch.Generator().manual_seed(seed))
        with torch.no_grad():
            for layer in self.head:
                layer.weight.zero_()  # type: ignore[operator]
                layer.bias[4:] = FIRST_GAIN  # type: ignore[operator]

    @property
    def margin(self) -> int:
        """See `slices.Network`."""
        return margin_of(len(self.conv1))

    def forward(self, slices: torch.Tensor) -> torch.Tensor:
        """See `FusionNetwork`."""
        ct, mri, _ = channels(slices)
        alpha = self.alpha(slices)
        fused: torch.Tensor = alpha * ct + (1 - alpha) * mri
        return fused

    def alpha(self, slices: torch.Tensor) -> torch.Tensor:
        """Return the weight of the CT, 0 to 1, (B, 1, H, W); see `weight_map.weight_map`."""

        @contextmanager
        def fixed() -> Iterator[None]:
            # In float32 under autocast, too: half precision would make 1 HU of α = 1, and lose the slopes' differences.
            with torch.autocast(slices.device.type, enabled=False), torch.no_grad():
                yield

        steps = list(zip(self.conv1, self.conv2, self.head, strict=True))
        if self.training:  # plain steps have nothing to learn, and no gradient
            alpha: torch.Tensor = weight_map(slices, steps, plain_steps=0, fixed=fixed, cut=_cut_off)
        else:
            alpha = weight_map(slices, steps, fixed=fixed, cut=within_limits)
        return alpha

    def batch_output(self, slices: torch.Tensor) -> torch.Tensor:
        """Return the weight of the CT; see `FusionNetwork`."""
        return self.alpha(slices)

    def runner(self, device: str) -> Callable[[VoxelArray], VoxelArray]:
        """See `slices.Network`: without torch on the CPU."""
        return RimNetwork(self.arrays()).runner(device) if device == "cpu" else ready(self, torch.device(device))


def _cut_off(free: torch.Tensor, most: torch.Tensor) -> torch.Tensor:
    cut: torch.Tensor = _CutOff.apply(free, most)  # type: ignore[no-untyped-call]
    return cut
