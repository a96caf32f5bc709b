"""The volumes and landmarks of a case as they should be: the CT in Hounsfield units, points inside the volumes."""

from __future__ import annotations

from collections.abc import Callable, Hashable
from dataclasses import replace

from BrainFusionLib import intensity, kept
from BrainFusionLib.acquisition import are_of_two_patients
from BrainFusionLib.case.request import Inputs, Request
from BrainFusionLib.case.result import Pose
from BrainFusionLib.errors import GeometryError
from BrainFusionLib.transform import AffineTransform
from BrainFusionLib.volume import Volume


def put_right(request: Request, inputs: Inputs) -> Inputs:
    """Return the volumes with the CT in Hounsfield units and without values far outside of all others, with notes."""
    _check_landmarks(request, inputs)
    ct = inputs.ct
    if "CT" not in request.stated or request.ct_offset is not None:
        ct = _mended(
            ct,
            ("in Hounsfield units", request.ct_offset),
            lambda: intensity.in_hounsfield_units(intensity.without_spikes(ct), request.ct_offset),
        )
    mri = _mended(inputs.mri, "without spikes", lambda: intensity.without_spikes(inputs.mri))
    return replace(inputs, ct=ct, mri=mri)


def _mended(volume: Volume, what: Hashable, mend: Callable[[], Volume]) -> Volume:
    """Return a volume mended, or as it is where that is known to change nothing."""
    known = kept.about(volume)
    if known.get(what):
        return volume
    mended = mend()
    known[what] = mended is volume
    return mended


def _check_landmarks(request: Request, inputs: Inputs) -> None:
    """Refuse landmarks of which none lies in its volume: their frame is wrong, or CT and MRI were exchanged.

    Raises
    ------
    GeometryError
        All landmarks lie outside the CT, or outside the MRI.
    """
    if request.landmarks is None:
        return
    outside = request.landmarks.outside(inputs.ct.grid, inputs.mri.grid)
    for role, count in zip(("CT", "MRI"), outside, strict=True):
        if count == len(request.landmarks.names):
            raise GeometryError(
                f"all {count} landmarks lie outside the {role}. Check that they are in LPS mm (a table) or saved in "
                "3D Slicer without a transform, and that the CT's points come first."
            )


def _landmark_notes(request: Request, inputs: Inputs, pose: Pose) -> list[str]:
    if request.landmarks is None:
        return []
    notes = [note] if (note := request.landmarks.misread(pose.transform)) else []
    outside = request.landmarks.outside(inputs.ct.grid, inputs.mri.grid)
    for role, count in zip(("CT", "MRI"), outside, strict=True):
        if count:
            notes.append(f"landmarks outside the {role}: {count} of {len(request.landmarks.names)}")
    if request.landmarks.left_out:
        notes.append(f"landmarks left out, because they have no partner or no position: {request.landmarks.left_out}")
    return notes


def notes_of(request: Request, inputs: Inputs, pose: Pose) -> tuple[str, ...]:
    """Return what was assumed and repaired, and whether the pose is more than rigid."""
    notes = []
    if are_of_two_patients(inputs.ct.acquisition, inputs.mri.acquisition):  # the worst mix-up of all: first
        notes.append("the DICOM headers give different patient IDs for CT and MRI: check that both are of one patient")
    notes += [f"{role}: {note}" for role, volume in (("CT", inputs.ct), ("MRI", inputs.mri)) for note in volume.notes]
    notes += _landmark_notes(request, inputs, pose)
    if isinstance(pose.transform, AffineTransform):
        how = "given" if pose.origin == "given" else "requested"
        notes.append(
            f"the transform {how} is not rigid but {pose.transform.kind}: lengths and angles in the CT were changed to "
            "match the MRI"
        )
    return tuple(notes)
