"""Remedies for errors, in terms of the command's options."""

from __future__ import annotations

from BrainFusionLib.errors import Remedy

PHRASES: dict[Remedy, str] = {
    Remedy.REGISTER: "Omit --no-register, or check the transform and the volumes.",
    Remedy.USE_TRANSFORM_AS_IT_IS: "Give a rigid one, or use this one unchanged with --no-register.",
    Remedy.OMIT_MASK_OR_TRANSFORM: "Omit --mri-mask or --no-register.",
    Remedy.OMIT_WEIGHTS_OR_USE_NETWORK: "Omit --weights, or add --rule network.",
    Remedy.CHOOSE_SERIES: "Choose one with --ct-series or --mri-series (its UID, its number or its place in this "
    "list), or give a folder with only one series:",
    Remedy.CHOOSE_SERIES_OF_EACH: "Choose a series for each with --ct-series and --mri-series, or give two folders.",
    Remedy.OMIT_SERIES: "Omit --series for this file.",
    Remedy.NAME_PATTERN: "Use --ct-pattern or --mri-pattern to state the file's name.",
    Remedy.STATE_MODALITY: "If the one given as MRI is an MRI, add --modality mri=MR.",
    Remedy.STATE_OFFSET: "If it is the CT, say with --ct-offset what to subtract from its values, or add "
    "--modality ct=CT to take them as they are.",
    Remedy.STATE_FRAME: "Say it with --transform-frame (lps, ras or fsl) and --transform-maps (ct-to-mri or "
    "mri-to-ct).",
    Remedy.STATE_DIRECTION: "Say it with --transform-maps (ct-to-mri or mri-to-ct).",
    Remedy.OTHER_OUTPUT_FOLDER: "Name another output folder with -o.",
    Remedy.OMIT_DICOM: "Give it as a folder of DICOM slices, or omit --dicom.",
    Remedy.ALLOW_OVERWRITE: "Choose another output.",
    Remedy.EXPORT_ANYWAY: "To write it nevertheless, add --export-anyway; each object then says it of itself.",
    Remedy.OTHER_GRID: "Choose another --grid, or omit --model.",
    Remedy.COARSER_GRID: "Choose a coarser --grid (a number in mm), crop the volumes, or use a larger machine.",
    Remedy.GIVE_ROUGH_START: "Give a rough start with --transform or --start landmarks, or choose a series that shows "
    "more of the head.",
    Remedy.GIVE_START: "Give one with --transform or --start landmarks, or omit --search local.",
    Remedy.USE_CPU: "Close other programs, crop the volumes, or use --device cpu.",
}
