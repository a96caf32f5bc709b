"""Slices to learn from: CT and MRI of the phantom on one grid, and the fused slice that a classical rule makes."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch.utils.data import TensorDataset

from BrainFusionLib.intensity import bone_weight, ct_to_unit, mri_scale
from BrainFusionLib.network import SIZE_MULTIPLE
from BrainFusionLib.phantom import head_grid, make_phantom
from BrainFusionLib.rules import RULES
from BrainFusionLib.volume import VoxelArray
from training.config import DataConfig


def make_slices(heads: Sequence[int], config: DataConfig) -> TensorDataset:
    """Make the slices of some heads in every contrast.

    Returns
    -------
    TensorDataset
        Pairs of input (2, H, W), CT and MRI, and label (1, H, W), on the unit scale of `BrainFusionLib.intensity`,
        float32, with H and W multiples of 16. They are in memory: 0.6 MB a slice of 256x208.
    """
    grid = head_grid(config.spacing_mm).with_spacing((config.spacing_mm, config.spacing_mm, config.slice_spacing_mm))
    rule = RULES[config.rule]
    inputs: list[VoxelArray] = []
    labels: list[VoxelArray] = []
    for head in heads:
        phantom = make_phantom(head)
        hu = phantom.ct(grid).array_kji
        ct, bone = ct_to_unit(hu), bone_weight(hu)
        for contrast in config.contrasts:
            values = phantom.mri(contrast, grid).array_kji
            low, high = mri_scale(values)
            mri = (values - np.float32(low)) / np.float32(high - low)
            inputs.append(_padded(np.stack([ct, mri], axis=1)))
            labels.append(_padded(rule(ct, mri, bone)[:, None]))
    return TensorDataset(torch.from_numpy(np.concatenate(inputs)), torch.from_numpy(np.concatenate(labels)))


def _padded(slices: VoxelArray) -> VoxelArray:
    """Repeat the border outwards, as `BrainFusionLib.slices` does, until rows and columns suit the network."""
    rows, columns = slices.shape[2:]
    padding = ((0, 0), (0, 0), (0, -rows % SIZE_MULTIPLE), (0, -columns % SIZE_MULTIPLE))
    return np.pad(slices, padding, mode="edge")
