"""What the network should give: classical rules, and the best fused slice that there is."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch

from BrainFusionLib.fusion.methods import prepare
from BrainFusionLib.fusion.weight_map import bone_and_rim, greatest_weight, within_limits
from BrainFusionLib.intensity import Stacks
from BrainFusionLib.settings import FusionSettings
from BrainFusionLib.volume import VoxelArray
from training.config import LabelConfig
from training.losses import Batch, bone, qabf, soft


def label_key(config: LabelConfig) -> dict[str, Any]:
    """Return all that a label depends on besides its slices, as plain data."""
    if config.kind != "optimum":
        return {"kind": config.kind}
    return {
        "kind": config.kind,
        "version": 3,
        "steps": config.steps,
        "learning_rate": config.learning_rate,
        "bone": config.bone,
        "soft": config.soft,
    }


def make_labels(
    ct: VoxelArray,
    mri: VoxelArray,
    bone_weight: VoxelArray,
    config: LabelConfig,
    device: torch.device,
) -> VoxelArray:
    """Make the labels of slices, all (N, rows, columns), float32, unit scale.

    Raises
    ------
    MissingDependencyError
        The wavelet rule needs PyWavelets.
    """
    if config.kind != "optimum":
        return rule_label(config.kind, ct, mri, bone_weight)
    labels = np.empty_like(ct)
    for first in range(0, len(ct), config.batch_size):
        chosen = slice(first, first + config.batch_size)
        a, b, bone_in = (
            torch.from_numpy(np.array(array[chosen])).to(device)[:, None] for array in (ct, mri, bone_weight)
        )
        alpha = best_alpha(a, b, bone_in, config)
        labels[chosen] = (alpha * a + (1 - alpha) * b)[:, 0].cpu().numpy()
    return labels


def rule_label(rule: str, ct: VoxelArray, mri: VoxelArray, bone_weight: VoxelArray) -> VoxelArray:
    """Return what a classical rule (`config.RULES`) makes of slices, all (N, rows, columns), float32, unit scale.

    Raises
    ------
    MissingDependencyError
        The wavelet rule needs PyWavelets.
    """
    return prepare(FusionSettings(rule), "cpu").fuse(Stacks(ct, mri, bone_weight)).fused


def best_alpha(ct: torch.Tensor, mri: torch.Tensor, bone_weight: torch.Tensor, config: LabelConfig) -> torch.Tensor:
    """Search the weight of the CT at every pixel that makes the best fused slice.

    Minimises, slice by slice, ``1 − Qabf + bone·|fused − CT| in bone + soft·|fused − MRI| in soft tissue`` (see
    `training.losses`) over ``fused = α·CT + (1 − α)·MRI``, 0 ≤ α ≤ `greatest_weight`, so that it stays between its
    sources and nothing but bone is much darker than the MRI. Adam with a rate that falls along half a cosine, projected
    after each step, from bone and its rim: from bone alone it took three times as many steps to the same Qabf.

    Parameters
    ----------
    ct, mri, bone_weight
        (B, 1, H, W), on one device; slices do not see each other.

    Returns
    -------
    tensor
        α, (B, 1, H, W).
    """
    batch = Batch(ct, mri, bone_weight, ct[:, :0], torch.zeros(len(ct), device=ct.device))
    most = greatest_weight(ct, mri, bone_weight)
    alpha = torch.minimum(bone_and_rim(bone_weight), most).requires_grad_()
    # A short memory of the gradient's size: it changes fast while edges form.
    optimiser = torch.optim.Adam([alpha], lr=config.learning_rate, betas=(0.9, 0.99))
    with torch.enable_grad():
        for step in range(config.steps):
            for group in optimiser.param_groups:
                group["lr"] = config.learning_rate * 0.5 * (1 + math.cos(math.pi * step / config.steps))
            fused = alpha * ct + (1 - alpha) * mri
            terms = qabf(fused, batch)
            terms = terms + config.bone * bone(fused, batch) + config.soft * soft(fused, batch)
            optimiser.zero_grad(set_to_none=True)
            terms.sum().backward()  # type: ignore[no-untyped-call]
            optimiser.step()
            with torch.no_grad():
                alpha.copy_(within_limits(alpha, most))
    found: torch.Tensor = alpha.detach()
    return found
