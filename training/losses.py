"""What training makes small: differences from the label, and measures of the fusion itself that need no label.

Every term takes the fused slices and what they were made from, (B, 1, H, W) on the unit scale, and gives one number a
slice, (B,): the loss of a batch is then the mean over its slices, however they are spread over processes.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F

from BrainFusionLib.fusion.edges import TINY, edges, kept
from BrainFusionLib.metrics.fidelity import HEAD_LEVEL

if TYPE_CHECKING:
    from training.config import LossConfig

# As in `BrainFusionLib.metrics.fusion`, for images of 0 to 1.
SSIM_CONSTANTS = (0.01**2, 0.03**2)


@dataclass(frozen=True, eq=False)
class Batch:
    """Slices to learn from, all (B, 1, H, W), float32, unit scale; `ids` tell the slices apart.

    Parameters
    ----------
    ct, mri
        The sources.
    bone
        How much a pixel is bone, 0 to 1; the head holder is none.
    label
        What the network should give; empty (B, 0, H, W) when there is none.
    ids
        (B,), int64.
    """

    ct: torch.Tensor
    mri: torch.Tensor
    bone: torch.Tensor
    label: torch.Tensor
    ids: torch.Tensor

    @property
    def inputs(self) -> torch.Tensor:
        """CT, MRI and bone weight: (B, 3, H, W)."""
        return torch.cat([self.ct, self.mri, self.bone], dim=1)

    def tensors(self) -> dict[str, torch.Tensor]:
        """Return the tensors by name."""
        return {name: getattr(self, name) for name in ("ct", "mri", "bone", "label", "ids")}

    def on(self, device: torch.device) -> Batch:
        """Return this batch on a device."""
        return Batch(**{name: tensor.to(device, non_blocking=True) for name, tensor in self.tensors().items()})


def l1(fused: torch.Tensor, batch: Batch) -> torch.Tensor:
    """Mean absolute difference from the label. Not squared, which would be all about metal and the air around."""
    return (fused - batch.label).abs().mean(dim=(1, 2, 3))


def l2(fused: torch.Tensor, batch: Batch) -> torch.Tensor:
    """Mean squared difference from the label."""
    return (fused - batch.label).square().mean(dim=(1, 2, 3))


def gradient(fused: torch.Tensor, batch: Batch) -> torch.Tensor:
    """Mean absolute difference between the label's and the fused slice's steps to the next pixel."""
    error = fused - batch.label
    return error.diff(dim=2).abs().mean(dim=(1, 2, 3)) + error.diff(dim=3).abs().mean(dim=(1, 2, 3))


def ssim(fused: torch.Tensor, batch: Batch) -> torch.Tensor:
    """One minus the structural similarity with the label; see `BrainFusionLib.metrics.fusion.ssim` for the source."""
    window = _gaussian(11, 1.5, fused)
    mean_f, mean_l = _filtered(fused, window), _filtered(batch.label, window)
    var_f = _filtered(fused.square(), window) - mean_f.square()
    var_l = _filtered(batch.label.square(), window) - mean_l.square()
    covariance = _filtered(fused * batch.label, window) - mean_f * mean_l
    c1, c2 = SSIM_CONSTANTS
    similarity = ((2 * mean_f * mean_l + c1) * (2 * covariance + c2)) / (
        (mean_f.square() + mean_l.square() + c1) * (var_f + var_l + c2)
    )
    return 1 - similarity.mean(dim=(1, 2, 3))


def qabf(fused: torch.Tensor, batch: Batch) -> torch.Tensor:
    """One minus Qabf (`BrainFusionLib.metrics.fusion.qabf`); differentiable almost everywhere."""
    edges_f = edges(fused)
    all_kept, weight = torch.zeros(len(fused), device=fused.device), torch.zeros(len(fused), device=fused.device)
    for source in (batch.ct, batch.mri):
        of_source = edges(source)
        all_kept = all_kept + (kept(of_source, edges_f) * of_source.strength).sum(dim=(1, 2, 3))
        weight = weight + of_source.strength.sum(dim=(1, 2, 3))
    return 1 - all_kept / weight.clamp_min(TINY)


def bone(fused: torch.Tensor, batch: Batch) -> torch.Tensor:
    """Mean absolute difference from the CT where it is bone."""
    return _mean_where(batch.bone >= 1, _distance(fused, batch.ct, batch.mri))


def soft(fused: torch.Tensor, batch: Batch) -> torch.Tensor:
    """Mean absolute difference from the MRI in soft tissue, as `BrainFusionLib.metrics.Gates` has it."""
    rim = F.max_pool2d((batch.bone >= 0.5).float(), kernel_size=3, stride=1, padding=1)
    where = (rim == 0) & (torch.maximum(batch.ct, batch.mri) > HEAD_LEVEL / 255)
    return _mean_where(where, _distance(fused, batch.mri, batch.ct))


TERMS: dict[str, Callable[[torch.Tensor, Batch], torch.Tensor]] = {
    "l1": l1,
    "l2": l2,
    "gradient": gradient,
    "ssim": ssim,
    "qabf": qabf,
    "bone": bone,
    "soft": soft,
}


def loss_of(fused: torch.Tensor, batch: Batch, weights: LossConfig) -> torch.Tensor:
    """Return the weighted sum of the terms for every slice, (B,), in float32 whatever the network computes in."""
    fused = fused.float()
    terms = [weight * TERMS[name](fused, batch) for name, weight in asdict(weights).items() if weight]
    return torch.stack(terms).sum(dim=0)


def _distance(fused: torch.Tensor, wanted: torch.Tensor, other: torch.Tensor) -> torch.Tensor:
    """Return ``|fused − wanted|``, whose slope at 0 is that of leaving towards the other source.

    The usual slope there, 0, hides from a weight that is exactly 0 or 1 what it would cost to leave.
    """
    towards = (fused - wanted) * torch.where(other >= wanted, 1.0, -1.0)
    return torch.where(towards >= 0, towards, -towards)


def _mean_where(where: torch.Tensor, values: torch.Tensor) -> torch.Tensor:
    return (values * where).sum(dim=(1, 2, 3)) / where.sum(dim=(1, 2, 3)).clamp_min(1)


def _gaussian(size: int, sigma: float, like: torch.Tensor) -> torch.Tensor:
    offsets = torch.arange(size, device=like.device, dtype=like.dtype) - (size - 1) / 2
    weights = torch.exp(-offsets.square() / (2 * sigma**2))
    return weights / weights.sum()


def _filtered(image: torch.Tensor, window: torch.Tensor) -> torch.Tensor:
    return F.conv2d(F.conv2d(image, window.view(1, 1, -1, 1)), window.view(1, 1, 1, -1))
