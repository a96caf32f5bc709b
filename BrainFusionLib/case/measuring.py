"""What is measured on the two volumes at a pose: evidence for the verdict, the bone, and the error at each point."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from BrainFusionLib import kept
from BrainFusionLib.case.request import Inputs
from BrainFusionLib.case.result import Bone, Pose
from BrainFusionLib.error_map import ErrorMap
from BrainFusionLib.evidence import BrainShift, Distortion, Evidence, Inside, LocalErrors, Scale, SkullFit
from BrainFusionLib.intensity import BONE_HU, mri_scale
from BrainFusionLib.intensity.bone import bone_mask
from BrainFusionLib.intensity.head import ct_head_mask
from BrainFusionLib.intensity.inside import FindInside, inside_skull
from BrainFusionLib.verdict.judge import Verdict
from BrainFusionLib.volume import BoolArray, Volume, in_axial_order

if TYPE_CHECKING:
    from BrainFusionLib.verdict.skull_field import SkullField


@dataclass(frozen=True)
class Measured:
    """The evidence measured on the two volumes at a pose."""

    local: LocalErrors
    skull: SkullFit | None
    inside: Inside | None
    brain_shift: BrainShift
    scale: Scale | None
    distortion: Distortion | None
    skull_field: SkullField | None


def local_evidence(ct_in_mri: Volume, head: BoolArray, inputs: Inputs, inside: FindInside, pose: Pose) -> Measured:
    """Measure the evidence of a pose.

    Parameters
    ----------
    ct_in_mri, head
        The CT on the MRI's grid, and its head without table and head holder.
    inputs
        The volumes as they are.
    inside
        Finds the inside of the CT's skull.
    pose
        The pose.

    Blocks are counted, and lines drawn, from the first voxel on: so all is measured in one order of storage.
    """
    from BrainFusionLib.resample import resample_onto
    from BrainFusionLib.verdict.brain_shift import brain_shift
    from BrainFusionLib.verdict.distortion import both_of
    from BrainFusionLib.verdict.inside import errors_inside, inside_evidence
    from BrainFusionLib.verdict.local import local_errors
    from BrainFusionLib.verdict.measures import is_stripped
    from BrainFusionLib.verdict.modes import without_blur
    from BrainFusionLib.verdict.skull import skull_fit
    from BrainFusionLib.verdict.skull_field import skull_field

    ct, mri, on_mri = (in_axial_order(volume) for volume in (inputs.ct, inputs.mri, ct_in_mri))
    mri = kept.of(mri, "not below 0", lambda: _not_below_zero(mri))
    # The registration, whose poses are as they were, has found the inside of the skull in the CT as it is stored.
    skull = inside() if ct is inputs.ct else inside_skull(ct)
    if on_mri is not ct_in_mri:
        head = ct_head_mask(on_mri)
    local = local_errors(on_mri, mri)
    if pose.skull is not None and skull is not None:
        local = errors_inside(local, skull, pose.transform)
    by_skull = on_mri
    if pose.skull is not None:
        by_skull = resample_onto(by_skull, mri.grid, pose.rigid.inverse() @ pose.skull)
    at = pose.skull or pose.transform
    band = skull_fit(on_mri, mri, head)
    # The edge of a stripped MRI is not its skull: it was taken for a skull 2.8 mm away, or a scale off by 3.6 %.
    field = None if is_stripped(band) else skull_field(ct, mri, at)
    scale, distortion = (None, None) if field is None else both_of(field, ct, mri, at)
    return Measured(
        local,
        band,
        inside_evidence(skull, pose.transform),
        without_blur(brain_shift(by_skull, mri, skull, at), max(ct.grid.spacing_ijk_mm)),
        scale,
        distortion,
        field,
    )


def _not_below_zero(mri: Volume) -> Volume:
    """Return an MRI whose background is not below 0, as all that is measured takes it: any scale may be given."""
    low, _ = mri_scale(mri.array_kji)
    return mri if low >= 0 else mri.with_array(mri.array_kji - np.float32(low))


def error_map_of(
    verdict: Verdict, evidence: Evidence, measured: Measured, inputs: Inputs, inside: FindInside, pose: Pose
) -> ErrorMap | None:
    """Return the expected error at each point; ``None`` beside a red verdict, or where nothing local was measured."""
    from BrainFusionLib.verdict.local_error import error_map

    return error_map(
        verdict, evidence, inputs.mri.grid, pose.transform, inside(), measured.skull_field,
        aligned_to_brain=pose.skull is not None,
    )  # fmt: skip


def bone_of(ct_in_mri: Volume, head: BoolArray, inside: FindInside, pose: Pose) -> Bone:
    """Return the bone of the CT on the MRI's grid, as `local_evidence` is given it."""
    skull = inside()
    depth = None if skull is None else skull.depth_on(ct_in_mri.grid, pose.transform)
    mask = bone_mask(ct_in_mri, head, depth)
    volume_ml = float(np.count_nonzero(mask) * np.prod(ct_in_mri.grid.spacing_ijk_mm) / 1000)
    labels = Volume(mask.astype(np.float32), ct_in_mri.grid, None, f"bone of {ct_in_mri.name}")
    return Bone(BONE_HU, round(volume_ml, 3), labels)
