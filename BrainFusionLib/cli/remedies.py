"""What can be done about an error, in the words of the command line."""

from __future__ import annotations

from BrainFusionLib.errors import Remedy

PHRASES: dict[Remedy, str] = {
    Remedy.REGISTER: "Omit --no-register, or check the transform and the volumes.",
    Remedy.USE_TRANSFORM_AS_IT_IS: "Give one of six degrees of freedom, or use this one as it is with --no-register.",
    Remedy.OMIT_MASK_OR_TRANSFORM: "Omit --mri-mask or --no-register.",
    Remedy.OMIT_WEIGHTS_OR_USE_NETWORK: "Omit --weights, or add --rule network.",
    Remedy.CHOOSE_SERIES: "Choose one with --series: its UID, its number or its place in this list; or give a folder "
    "that holds one series:",
    Remedy.CHOOSE_SERIES_OF_EACH: "Choose a series for each with --ct-series and --mri-series, or give two folders.",
    Remedy.OMIT_SERIES: "Omit --series for this file.",
    Remedy.NAME_PATTERN: "Give its name with --ct-pattern or --mri-pattern.",
    Remedy.OTHER_OUTPUT_FOLDER: "Name another output folder with -o.",
    Remedy.OMIT_DICOM: "Give the MRI as a folder of DICOM slices, or omit --dicom.",
    Remedy.USE_CPU: "Close other programs, crop the volumes, or use --device cpu.",
}
