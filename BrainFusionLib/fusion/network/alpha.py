"""Our network: it predicts how much of each pixel is CT."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from BrainFusionLib.errors import WeightsError
from BrainFusionLib.fusion.method import BY_WEIGHT, Fused
from BrainFusionLib.fusion.network.base import BatchFunction, FusionNetwork, channels, initialise
from BrainFusionLib.fusion.network.edges import edges, slope_of_kept
from BrainFusionLib.fusion.network.rim import rim_kernel
from BrainFusionLib.intensity.unit import Stacks
from BrainFusionLib.volume import VoxelArray

# How far from what is at least half bone, pixels, anything but the MRI may be shown.
REACH = 2
# Slopes are squashed to -1 to 1: half of that is reached at these (edge strength a unit of weight, unit scale).
SQUASH = (0.2, 2.0)
# The first guess at each step, before anything is learned: go uphill by this much.
FIRST_GAIN = 0.2

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


class FusionNetAlpha(FusionNetwork):
    """Our network: it predicts a weight map α, and ``fused = α·CT + (1 − α)·MRI``.

    What no training can take from it: the fused slice stays between its sources, so that no halo is possible; where
    the bone weight is 1, α is 1 and bone is the CT's to the last bit; further than `REACH` pixels from what is at least
    half bone, α is 0 and soft tissue, lesions included, is the MRI's to the last bit.

    Between the two, at the rim of bone, each pixel holds some of both. α starts there from `bone_and_rim`, and goes
    up the slope of the edges that the fused slice keeps of both sources (`edges.slope_of_kept`) in a few steps. How far
    to go where, two small convolutional layers decide at each step, from what they see around the pixel: gradient
    ascent, unrolled, with learned steps. (A U-shaped network that had to guess α at once, from the slices, closed a
    sixth of the distance between the rule and the optimum that this one closes half of, and took ten times as long
    to learn it: the optimum depends on the slope pixel by pixel.)

    Parameters
    ----------
    width
        Channels inside, at half resolution.
    steps
        How often α is improved.
    seed
        Of the initial weights, as in `FusionNet`.
    """

    meaning = BY_WEIGHT
    # The arrays of weights files keep the names of the first version, so that a file's sha256 stays.
    stored_as: ClassVar[Mapping[str, str]] = {"conv1": "see", "conv2": "think", "head": "decide"}

    def __init__(self, width: int = 16, steps: int = 3, seed: int = 0) -> None:
        super().__init__()
        if width < 1 or not 1 <= steps <= 16:
            raise WeightsError(f"a FusionNetAlpha needs 1 channel or more and 1 to 16 steps; got {width} and {steps}")
        # Each takes CT, MRI, bone weight, first and present α and the slope, squashed twice, at half resolution.
        self.conv1 = nn.ModuleList(nn.Conv2d(7, width, kernel_size=4, stride=2, padding=1) for _ in range(steps))
        self.conv2 = nn.ModuleList(nn.Conv2d(width, width, kernel_size=3, padding=1) for _ in range(steps))
        # An offset and a gain for each of the four pixels.
        self.head = nn.ModuleList(nn.Conv2d(width, 8, kernel_size=3, padding=1) for _ in range(steps))
        initialise(self, torch.Generator().manual_seed(seed))
        with torch.no_grad():
            for layer in self.head:
                layer.weight.zero_()  # type: ignore[operator]
                layer.bias[4:] = FIRST_GAIN  # type: ignore[operator]

    @property
    def margin(self) -> int:
        """How far away, pixels, the pixels of the input may lie that one of the result depends on."""
        # A step: 2 for the slope, 3 for each of three layers, at most; at the start: bone's rim.
        return 10 * len(self.conv1) + REACH

    def forward(self, slices: torch.Tensor) -> torch.Tensor:
        """See `FusionNetwork`."""
        ct, mri, _ = channels(slices)
        alpha = self.alpha(slices)
        return alpha * ct + (1 - alpha) * mri

    def alpha(self, slices: torch.Tensor) -> torch.Tensor:
        """Return the weight of the CT, 0 to 1, (B, 1, H, W).

        Parameters
        ----------
        slices
            (B, 3, H, W): CT, MRI and bone weight (0 to 1). H and W are even.
        """
        ct, mri, bone = channels(slices)
        difference = ct - mri
        whole, free = (bone >= 1).float(), self.near(bone) * (bone < 1)
        first = whole + bone_and_rim(bone) * free
        alpha = first
        # In float32 under autocast, too: half precision would make 1 HU of α = 1, and loses the slopes' differences.
        with torch.autocast(slices.device.type, enabled=False), torch.no_grad():
            sources = [edges(ct.float()), edges(mri.float())]
        for conv1, conv2, head in zip(self.conv1, self.conv2, self.head, strict=True):
            with torch.autocast(slices.device.type, enabled=False), torch.no_grad():
                slope = slope_of_kept((alpha * difference + mri).float(), sources) * difference
                squashed = [slope / (slope.abs() + half) for half in SQUASH]
            seen = F.relu(conv1(torch.cat([ct, mri, bone, first, alpha.detach(), *squashed], dim=1)))
            offset, gain = F.pixel_shuffle(head(F.relu(conv2(seen))).float(), 2).chunk(2, dim=1)
            wanted = alpha + offset + gain * squashed[0]
            alpha = whole + free * (_cut_off(wanted) if self.training else wanted.clamp(0, 1))
        return alpha

    def batch_output(self, slices: torch.Tensor) -> torch.Tensor:
        """Return the weight of the CT; see `FusionNetwork`."""
        return self.alpha(slices)

    def untouched(self, stacks: Stacks) -> VoxelArray:
        """See `FusionNetwork`."""
        return np.zeros(stacks.ct_unit.shape, dtype=np.float32)

    def finished(self, output: VoxelArray, stacks: Stacks) -> Fused:
        """See `FusionNetwork`."""
        alpha = output if stacks.head is None else output * stacks.head
        # Blended here, in float32, so that a weight of exactly 0 or 1 gives back a source to the last bit.
        return Fused(blend(alpha, stacks.ct_unit, stacks.mri_unit), alpha)

    def compiled(self) -> BatchFunction | None:
        """See `FusionNetwork`."""
        return rim_kernel(list(zip(self.conv1, self.conv2, self.head, strict=True)), SQUASH)

    @staticmethod
    def near(bone: torch.Tensor) -> torch.Tensor:
        """Return 1 within `REACH` pixels of what is at least half bone, else 0."""
        return greatest_near((bone >= 0.5).float(), REACH)


def _cut_off(free: torch.Tensor) -> torch.Tensor:
    cut: torch.Tensor = _CutOff.apply(free)  # type: ignore[no-untyped-call]
    return cut


def blend(alpha: VoxelArray, ct: VoxelArray, mri: VoxelArray) -> VoxelArray:
    """Return ``α·ct + (1 − α)·mri``, float32: ct where α is 1 and mri where it is 0, to the last bit."""
    fused: VoxelArray = alpha * ct + (1 - alpha) * mri
    return fused


def bone_and_rim(bone: torch.Tensor) -> torch.Tensor:
    """Return the bone weight, (B, 1, H, W), spread to the neighbours of what is at least half bone.

    A pixel that touches bone holds some of both, and bone's edge, the strongest of the slice, lies in it: shown from
    one source, the edge stays as steep as it was. On the 13 published slice pairs this rule by itself raises Qabf from
    .558 to .604, and leaves bone and soft tissue as they are.
    """
    return torch.maximum(bone, greatest_near(bone * (bone >= 0.5), 1))


def greatest_near(image: torch.Tensor, reach: int) -> torch.Tensor:
    """Return the greatest value within `reach` pixels, along rows and columns, of (B, 1, H, W), 0 and more.

    One direction after the other: on the CPU a third of the time of `max_pool2d`, and a fifteenth where a single
    channel is stored channels last.
    """
    height, width = image.shape[-2:]
    padded = F.pad(image, (reach, reach, reach, reach))
    along = padded[..., :width]
    for step in range(1, 2 * reach + 1):
        along = torch.maximum(along, padded[..., step : step + width])
    greatest = along[..., :height, :]
    for step in range(1, 2 * reach + 1):
        greatest = torch.maximum(greatest, along[..., step : step + height, :])
    return greatest
