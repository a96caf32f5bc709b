"""What is missing or suspicious in the user's choice, in words."""

from __future__ import annotations

import slicer.util
from slicer.i18n import tr as _

from BrainFusionLib.intensity import looks_like_ct
from BrainFusionSlicer import bridge, choices, landmark_lists
from BrainFusionSlicer.fingerprint import has_voxels

# Every fourth voxel along each axis is enough to tell a CT from an MRI, and takes a millisecond.
STEP = 4


def what_is_missing(parameters) -> str | None:
    """Say why Fuse cannot be clicked, or return None if it can."""
    if not parameters or not parameters.ctVolume:
        return _("Choose a CT")
    if not parameters.mriVolume:
        return _("Choose an MRI")
    if parameters.ctVolume == parameters.mriVolume:
        return _("The CT and the MRI must be two different volumes")
    inputs = [parameters.ctVolume, parameters.mriVolume, parameters.startTransform, parameters.mask]
    outputs = [
        parameters.fusedVolume,
        parameters.ctToMriTransform,
        parameters.alphaVolume,
        parameters.resampledCTVolume,
    ]
    outputs = [node for node in outputs if node]
    if any(node in inputs for node in outputs):
        return _("An output must not be one of the inputs: they are never changed")
    if len({node.GetID() for node in outputs}) < len(outputs):
        return _("Two outputs must not be the same volume")
    if parameters.start.name in ("transform", "refine") and not parameters.startTransform:
        return _("Choose the transform to start from, or Registration: Automatic")
    for node in (parameters.ctVolume, parameters.mriVolume):
        unreadable = why_not_read(node)
        if unreadable is not None:
            return unreadable
    pair, reference = (parameters.ctVolume, parameters.mriVolume), choices.chosen_reference(parameters)
    skips = parameters.start.name == "skip"
    why_not = (bridge.why_not_reference if skips else bridge.why_not_onto)(*pair, reference)
    if why_not is not None:
        return why_not
    if parameters.start.name == "landmarks":
        why_not = landmark_lists.why_no_start(parameters.parameterNode, *pair)
        if why_not is not None:
            return _("Start from landmarks: {reason}").format(reason=why_not.rstrip(".:"))
    return None


def why_not_read(node) -> str | None:
    """Say why a volume cannot be a CT or an MRI, or return None."""
    image = node.GetImageData()
    is_coloured = image is not None and image.GetNumberOfScalarComponents() != 1
    if is_coloured or node.GetClassName() != "vtkMRMLScalarVolumeNode":
        return _("{name} is not an image volume: choose a scalar volume").format(name=node.GetName())
    if not has_voxels(node):
        return _("{name} has no voxels: load it again, or choose another volume").format(name=node.GetName())
    return None


def are_swapped(ctVolume, mriVolume) -> bool:
    """Say whether the CT and the MRI seem to have been exchanged, by what DICOM says or by their values."""
    return is_ct(mriVolume) and not is_ct(ctVolume)


def what_is_suspicious(ctVolume, mriVolume) -> str | None:
    """Return a warning about two volumes that can be fused, or None."""
    if are_swapped(ctVolume, mriVolume):
        return _("CT and MRI seem to be swapped: {mri} has the values of a CT, and {ct} does not.").format(
            ct=ctVolume.GetName(), mri=mriVolume.GetName()
        )
    if is_ct(mriVolume):
        return _("{mri} has the values of a CT, too: choose an MRI.").format(mri=mriVolume.GetName())
    if not is_ct(ctVolume):
        return _("{ct} does not have the values of a CT in Hounsfield units.").format(ct=ctVolume.GetName())
    return None


def is_ct(node) -> bool:
    """Say whether a volume is a CT, by what DICOM says or by its values."""
    modality = bridge.modality_of(node)
    if modality is not None:
        return modality == "CT"
    return looks_like_ct(slicer.util.arrayFromVolume(node)[::STEP, ::STEP, ::STEP])
