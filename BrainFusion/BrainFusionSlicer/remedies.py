"""What can be done about an error, in the words of the panel."""

from __future__ import annotations

from slicer.i18n import tr as _

from BrainFusionLib.errors import BrainFusionError, Remedy

PHRASES: dict[Remedy, str] = {
    Remedy.REGISTER: _("Choose Registration: Automatic, or check the two volumes and their transforms."),
    Remedy.GIVE_START: _("Choose a starting pose."),
    Remedy.GIVE_ROUGH_START: _(
        "Move the CT roughly onto the MRI (Transforms module) and choose Registration: Start from a transform, or "
        "choose a series that shows more of the head."
    ),
    Remedy.EXPORT_ANYWAY: _("To export it nevertheless, click again; each object then says it of itself."),
    Remedy.OTHER_GRID: _("Choose another output grid."),
    Remedy.COARSER_GRID: _("Choose a coarser output grid, or make the volumes smaller (Crop Volume module)."),
    Remedy.USE_TRANSFORM_AS_IT_IS: _(
        "Choose a transform that only turns and shifts; or put the CT under this one (Transforms module) and choose "
        "Registration: Skip."
    ),
    Remedy.OMIT_MASK_OR_TRANSFORM: _(
        "Choose Registration mask: None, or Registration: Automatic or Start from a transform."
    ),
    Remedy.OMIT_WEIGHTS_OR_USE_NETWORK: _("Choose Fusion rule: Network."),
    Remedy.CHOOSE_SERIES: _("Load the series that you want with the DICOM module, and choose it. There are:"),
    Remedy.CHOOSE_SERIES_OF_EACH: _("Load two different series with the DICOM module, and choose them."),
    Remedy.OMIT_SERIES: _("Load the file with Add Data, and choose the volume."),
    Remedy.NAME_PATTERN: _("Load the file with Add Data, and choose the volume."),
    Remedy.OTHER_OUTPUT_FOLDER: _("Choose another folder."),
    Remedy.OMIT_DICOM: _("Import the MRI with the DICOM module, load it from there, and fuse again."),
    Remedy.STATE_MODALITY: _(
        "If the one given as MRI is an MRI, fuse the two with the console command, and state the modality there."
    ),
    Remedy.STATE_OFFSET: _(
        "If it is the CT, load it with the right rescale intercept, or fuse the two with the console command, and "
        "state the offset there."
    ),
    Remedy.STATE_FRAME: _("Load the file with Add Data, and choose the transform."),
    Remedy.STATE_DIRECTION: _("Load the file with Add Data, and choose the transform."),
    Remedy.ALLOW_OVERWRITE: _("Click Overwrite, or choose another output or none."),
    Remedy.USE_CPU: _(
        "Close other programs, make the volumes smaller (Crop Volume module), or choose Compute on: Processor (CPU)."
    ),
}


def phrased(error: Exception) -> str:
    """Return what an error says, its remedy named by what the panel shows."""
    text = error.phrased(PHRASES) if isinstance(error, BrainFusionError) else str(error)
    return text or type(error).__name__
