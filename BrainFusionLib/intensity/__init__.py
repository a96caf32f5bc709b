"""The meaning of voxel values: the unit scale, the head in a CT, and checks that reject bad input."""

from BrainFusionLib.intensity.checks import check_mask, check_pair, looks_like_ct, looks_like_labels
from BrainFusionLib.intensity.head import HEAD_THRESHOLD_HU, ct_head_mask, head_of
from BrainFusionLib.intensity.hounsfield import in_hounsfield_units, without_spikes
from BrainFusionLib.intensity.pictures import picture_stacks, windowed_bone_weight
from BrainFusionLib.intensity.scale import (
    BONE_HU,
    BONE_RAMP_HU,
    CT_KNOTS_HU,
    CT_KNOTS_UNIT,
    bone_weight,
    ct_to_unit,
    hu_from_unit,
    mri_scale,
    otsu_threshold,
    window_of_fused,
)
from BrainFusionLib.intensity.unit import Stacks, UnitPair, to_unit, unit_pair

__all__ = [
    "BONE_HU",
    "BONE_RAMP_HU",
    "CT_KNOTS_HU",
    "CT_KNOTS_UNIT",
    "HEAD_THRESHOLD_HU",
    "Stacks",
    "UnitPair",
    "bone_weight",
    "check_mask",
    "check_pair",
    "ct_head_mask",
    "ct_to_unit",
    "head_of",
    "hu_from_unit",
    "in_hounsfield_units",
    "looks_like_ct",
    "looks_like_labels",
    "mri_scale",
    "otsu_threshold",
    "picture_stacks",
    "to_unit",
    "unit_pair",
    "window_of_fused",
    "windowed_bone_weight",
    "without_spikes",
]
