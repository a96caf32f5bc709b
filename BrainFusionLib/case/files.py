"""The names of a case's files, which say in whose frame a volume is and which way a transform moves it."""

from __future__ import annotations

from BrainFusionLib.case.result import Result
from BrainFusionLib.io.dicom_attributes import kinds_of
from BrainFusionLib.io.ownership import DICOM, PICTURES, REGISTRATION, SEGMENTATION
from BrainFusionLib.io.transform_writing import SUFFIXES, TransformFormat
from BrainFusionLib.settings import OutputSettings, Side

# Roles of volumes (fields of `Volumes`, and the labels of `Bone`), and all stems that their files can have.
ROLES = ("fused", "ct_in_mri", "alpha", "bone", "mri")
STEMS = (*ROLES, "mri_in_ct", "ct")
TRANSFORM_STEMS = ("ct_to_mri", "mri_to_ct")


def moved_by(result: Result) -> Side:
    """Return which of the two is moved by the transform that is written: the one that is not the reference."""
    return "mri" if result.reference == "ct" else "ct"


def names_of(
    result: Result,
    file_format: str,
    *,
    save_alpha: bool = False,
    dicom: bool = False,
    registration: bool = False,
    segmentation: bool = False,
    pictures: bool = False,
    form: TransformFormat = "itk",
) -> dict[str, str]:
    """Return the usual names of a case's files by role, relative to its folder, in the order of writing.

    Parameters are those of `folder.write_case`; `registration`: whether CT and MRI are both DICOM;
    `segmentation`: whether the bone is written as DICOM.
    """
    return planned_names(
        result.request.settings.output,
        file_format,
        save_alpha=save_alpha and result.alpha is not None,
        mri=result.volumes is not None and result.volumes.mri is not None,
        bone=result.bone is not None,
        dicom=dicom,
        registration=registration,
        segmentation=segmentation,
        pictures=pictures,
        form=form,
    )


def planned_names(
    output: OutputSettings,
    file_format: str,
    *,
    save_alpha: bool = False,
    mri: bool = False,
    bone: bool = False,
    dicom: bool = False,
    registration: bool = False,
    segmentation: bool = False,
    pictures: bool = False,
    form: TransformFormat = "itk",
) -> dict[str, str]:
    """Return what `names_of` does, before there is a result; `mri`, `bone`: whether these volumes are written."""
    in_mri = output.reference == "mri"
    ct, other, transform = ("ct_in_mri", "mri", "ct_to_mri") if in_mri else ("ct", "mri_in_ct", "mri_to_ct")
    names: dict[str, str] = {}
    if form != "itk":
        names[f"transform_{form}"] = f"{transform}{SUFFIXES[form][0]}"
    if pictures:
        names["pictures"] = PICTURES
    if dicom:
        fused, moved = kinds_of(output)
        names |= {f"dicom_{kind.folder}": f"{DICOM}/{kind.folder}" for kind in (fused, moved)}
        if registration:
            names["dicom_registration"] = REGISTRATION
        if segmentation:
            names["dicom_bone"] = SEGMENTATION
    if save_alpha:
        names["alpha"] = f"alpha.{file_format}"
    if mri:
        names["mri"] = f"{other}.{file_format}"
    return names | {
        "fused": f"fused.{file_format}",
        "ct_in_mri": f"{ct}.{file_format}",
        **({"bone": f"bone.{file_format}"} if bone else {}),
        "transform": f"{transform}.tfm",
        "report": "report.html",
        "result": "result.json",
    }
