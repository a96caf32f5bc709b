"""A result as DICOM: two derived series, and the pose as a registration object, in the study of the reference."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

from BrainFusionLib.case.result import Result
from BrainFusionLib.errors import Remedy, SettingsError
from BrainFusionLib.geometry import Grid
from BrainFusionLib.io.dicom_attributes import Doubt, kinds_of
from BrainFusionLib.io.dicom_headers import DicomHeaders, read_series_headers
from BrainFusionLib.io.dicom_registration import write_dicom_registration
from BrainFusionLib.io.dicom_segmentation import can_write_segmentations, write_dicom_segmentation
from BrainFusionLib.io.dicom_writing import write_dicom_results
from BrainFusionLib.settings import Side


@dataclass(frozen=True)
class PairHeaders:
    """The DICOM headers of CT and MRI; ``None`` for one that is not DICOM."""

    ct: DicomHeaders | None
    mri: DicomHeaders | None

    def of(self, side: Side) -> DicomHeaders | None:
        """Return those of one of the two."""
        return self.ct if side == "ct" else self.mri

    @property
    def are_both(self) -> bool:
        """Whether both are DICOM."""
        return self.ct is not None and self.mri is not None

    @property
    def are_of_two_patients(self) -> bool:
        """Whether both give a patient ID, and not the same."""
        return self.ct is not None and self.mri is not None and self.mri.is_of_another_patient(self.ct)


def read_pair_headers(
    ct_path: str | Path,
    mri_path: str | Path,
    ct_series: str | None = None,
    mri_series: str | None = None,
    reference: Side = "mri",
) -> PairHeaders:
    """Read the headers needed for derived DICOM series: those of the reference, and of the other if it is DICOM, too.

    Raises
    ------
    SettingsError
        The reference is not DICOM.
    ImageFileError
        As `io.dicom_headers.read_series_headers`.
    """
    found = PairHeaders(read_series_headers(ct_path, ct_series), read_series_headers(mri_path, mri_series))
    if found.of(reference) is None:
        name, path = ("MRI", mri_path) if reference == "mri" else ("CT", ct_path)
        raise SettingsError(
            f"DICOM results go into the patient and the study of the {name}, but {path} is not DICOM, so both are "
            "unknown.",
            remedy=Remedy.OMIT_DICOM,
        )
    return found


def segments_bone(result: Result, headers: PairHeaders) -> bool:
    """Return whether the bone is written as DICOM: it was made, the MRI is DICOM, and highdicom is installed."""
    return result.bone is not None and headers.mri is not None and can_write_segmentations()


def noting_what_is_missing(result: Result, headers: PairHeaders) -> Result:
    """Return a result with a note if its bone will not be written as DICOM, because a package is missing."""
    if result.bone is None or headers.mri is None or can_write_segmentations():
        return result
    note = "the bone was not written as DICOM (SEG). Run: pip install highdicom"
    return replace(result, notes=(*result.notes, note))


def write_dicom(result: Result, folder: Path, headers: PairHeaders, place: Grid | None, doubt: Doubt | None) -> None:
    """Write the series of a result to folders in `folder`, and ``registration.dcm`` if CT and MRI are both DICOM.

    The bone, if it was made, becomes ``bone.dcm`` (SEG) in the MRI's study, where highdicom is installed.

    Parameters
    ----------
    result
        With its volumes.
    folder
        Is there.
    headers
        Those of the reference are not ``None``.
    place
        The reference's own grid, by which it is checked that it has not been moved.
    doubt
        What each object says of itself.

    Raises
    ------
    SettingsError
        The reference is not DICOM.
    BrainFusionError
        As `write_dicom_results`.
    """
    reference = headers.of(result.reference)
    if reference is None:
        raise SettingsError("the reference is not DICOM, so that there is no study for DICOM results")
    moved = result.ct_in_mri
    if result.reference == "ct" and result.volumes is not None and result.volumes.mri is not None:
        moved = result.volumes.mri
    write_dicom_results(
        result.fused, moved, folder, reference,
        other=headers.of("ct" if result.reference == "mri" else "mri"),
        kinds=kinds_of(result.request.settings.output),
        place=place,
        doubt=doubt,
        fused_window=None if result.intensity is None else result.intensity.window,
    )  # fmt: skip
    if headers.ct is not None and headers.mri is not None:
        write_dicom_registration(
            result.transform, folder / "registration.dcm", headers.ct, headers.mri,
            reference=result.reference, is_registered=result.pose.origin == "registered", doubt=doubt,
        )  # fmt: skip
    bone = result.bone
    if bone is not None and bone.labels is not None and headers.mri is not None and segments_bone(result, headers):
        rule = f"above {bone.threshold_hu:g} HU in the head of the CT"
        write_dicom_segmentation(bone.labels, folder / "bone.dcm", headers.mri, rule, doubt)
