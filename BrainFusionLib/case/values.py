"""The volumes of a case with values as they should be: the CT in Hounsfield units, both without spikes."""

from __future__ import annotations

from dataclasses import replace

from BrainFusionLib import intensity
from BrainFusionLib.case.request import Inputs, Request
from BrainFusionLib.case.result import Pose
from BrainFusionLib.transform import AffineTransform


def put_right(request: Request, inputs: Inputs) -> Inputs:
    """Return the volumes with the CT in Hounsfield units and without values far outside of all others, with notes."""
    ct = inputs.ct
    if "CT" not in request.stated or request.ct_offset is not None:
        ct = intensity.in_hounsfield_units(intensity.without_spikes(ct), request.ct_offset)
    return replace(inputs, ct=ct, mri=intensity.without_spikes(inputs.mri))


def notes_of(inputs: Inputs, pose: Pose) -> tuple[str, ...]:
    """Return what was assumed and repaired, and whether the pose is more than rigid."""
    notes = [f"{volume.name}: {note}" for volume in (inputs.ct, inputs.mri) for note in volume.notes]
    if isinstance(pose.transform, AffineTransform):
        how = "given" if pose.origin == "given" else "requested"
        notes.append(
            f"the transform {how} is not rigid but {pose.transform.kind}: lengths and angles in the CT were changed to "
            "match the MRI"
        )
    return tuple(notes)
