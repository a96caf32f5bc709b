"""Classical rules for a pixel by itself, or with its neighbours."""

from __future__ import annotations

import numpy as np

from BrainFusionLib.fusion import weight_map
from BrainFusionLib.fusion.method import rule
from BrainFusionLib.fusion.weight_map import blend, greatest_weight
from BrainFusionLib.volume import VoxelArray


def average(ct_unit: VoxelArray, mri_unit: VoxelArray, bone_weight: VoxelArray) -> VoxelArray:
    """Return the mean of both images."""
    return (ct_unit + mri_unit) * np.float32(0.5)


def maximum(ct_unit: VoxelArray, mri_unit: VoxelArray, bone_weight: VoxelArray) -> VoxelArray:
    """Return the brighter of both images."""
    return np.maximum(ct_unit, mri_unit)


def bone_over_mri(ct_unit: VoxelArray, mri_unit: VoxelArray, bone_weight: VoxelArray) -> VoxelArray:
    """Return CT where it is bone and MRI elsewhere: ``w·ct + (1 − w)·mri``, exactly so at ``w`` = 0 and 1."""
    return blend(bone_weight, ct_unit, mri_unit)


def bone_and_rim(ct_unit: VoxelArray, mri_unit: VoxelArray, bone_weight: VoxelArray) -> VoxelArray:
    """Return `bone_over_mri` with the neighbours, within the slice, of what is at least half bone shown as CT, too.

    A pixel that touches bone holds some of both, and bone's edge, the strongest of the slice, lies in it: shown from
    one source, the edge stays as steep as it was. What is not bone gets darker than the MRI by
    `weight_map.MOST_DARKENING` at most.
    """
    most = greatest_weight(ct_unit, mri_unit, bone_weight)
    return blend(np.minimum(weight_map.bone_and_rim(bone_weight), most), ct_unit, mri_unit)


AVERAGE = rule(
    "average",
    "Average",
    "mean of CT and MRI",
    average,
    "the mean of the MRI's value and of the CT through this piecewise-linear map",
)
MAXIMUM = rule(
    "maximum",
    "Maximum",
    "the brighter of CT and MRI",
    maximum,
    "the greater of the MRI's value and of the CT through this piecewise-linear map",
)
BONE_OVER_MRI = rule(
    "bone_over_mri",
    "Bone over MRI",
    "CT where it is bone (300 HU and more), MRI elsewhere",
    bone_over_mri,
    "the MRI's value outside bone (200 HU and below); the CT through this piecewise-linear map in bone "
    "(300 HU and above); a blend of the two between",
)
BONE_AND_RIM = rule(
    "bone_and_rim",
    "Bone and its rim over MRI",
    "the same, with the pixels that touch bone as CT unless much darker",
    bone_and_rim,
    "the CT through this piecewise-linear map in bone (300 HU and above) and in the pixels that touch it; the MRI's "
    "value elsewhere; a blend of the two between, and where the CT is much darker",
)
