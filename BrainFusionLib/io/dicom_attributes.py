"""The attributes of a derived DICOM series: patient, study and position from the MRI, all others its own.

The files are single-frame Secondary Capture images of modality OT, with the position of each slice added: a "standard
extended" SOP class. The MR and CT classes demand their own modality and attributes of a scanner, which a derived image
does not have; the multi-frame classes keep the position in functional groups, which fewer readers support; Parametric
Map needs an extension in Slicer. GDCM, and so Slicer, reads the class chosen as one scalar volume, correctly placed.
"""

from __future__ import annotations

import time
from copy import deepcopy
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from BrainFusionLib.geometry import Grid, anatomical_axes, apply_affine
from BrainFusionLib.io.dicom_headers import DicomHeaders, Instance
from BrainFusionLib.settings import OutputSettings
from BrainFusionLib.version import __version__

if TYPE_CHECKING:
    from pydicom.dataelem import DataElement
    from pydicom.dataset import Dataset

NOT_FOR_DIAGNOSIS = "derived, not for diagnosis"
# Type 2 of the standard: present, even if empty.
_ALWAYS_THERE = (
    "PatientName", "PatientID", "PatientBirthDate", "PatientSex",
    "StudyDate", "StudyTime", "ReferringPhysicianName", "StudyID", "AccessionNumber",
)  # fmt: skip
# What else identifies patient and examination. All other attributes, private ones included, are not copied.
_KEPT = (
    "SpecificCharacterSet", "StudyInstanceUID", "StudyDescription", "IssuerOfAccessionNumberSequence",
    "IssuerOfPatientID", "IssuerOfPatientIDQualifiersSequence", "OtherPatientIDs", "OtherPatientIDsSequence",
    "OtherPatientNames", "PatientAge", "PatientSize", "PatientWeight",
    "PatientIdentityRemoved", "DeidentificationMethod", "DeidentificationMethodCodeSequence",
    "LongitudinalTemporalInformationModified",
    "ClinicalTrialSponsorName", "ClinicalTrialProtocolID", "ClinicalTrialProtocolName", "ClinicalTrialSiteID",
    "ClinicalTrialSiteName", "ClinicalTrialSubjectID", "ClinicalTrialSubjectReadingID",
    "ClinicalTrialTimePointID", "ClinicalTrialTimePointDescription",
    "FrameOfReferenceUID", "PositionReferenceIndicator",
    "LossyImageCompression", "LossyImageCompressionRatio", "LossyImageCompressionMethod",
)  # fmt: skip
# Cosine of 10 degrees.
_NEARLY_PARALLEL = 0.985
_SPATIAL_RESAMPLING = ("113085", "Spatial resampling")
_SAME_ANATOMY = ("122401", "Same Anatomy")
_SOURCE_IMAGE = ("121322", "Source image for image processing operation")


@dataclass(frozen=True)
class Kind:
    """A kind of derived series: the name of its folder, its descriptions, and its number relative to the MRI's.

    Parameters
    ----------
    folder
        The folder that `write_dicom_results` writes it to.
    description, derivation
        Short, for a list of series; long.
    image_type
        The third value of ImageType, after DERIVED and SECONDARY.
    rescale_type
        What the values are: ``"HU"``, or ``"US"`` for a scale of its own.
    number
        Added to a hundred times the MRI's series number.
    """

    folder: str
    description: str
    derivation: str
    image_type: str
    rescale_type: str
    number: int


FUSED = Kind("fused", "BrainFusion: CT fused into MRI", "CT registered to the MRI and fused into it", "FUSED", "US", 1)
REGISTERED_CT = Kind(
    "ct_in_mri", "BrainFusion: CT on the MRI's grid", "CT registered to the MRI and resampled onto its grid",
    "RESAMPLED", "HU", 2,
)  # fmt: skip
# On other voxels than the MRI's, and in the CT's study.
CT_IN_MRI = Kind(
    "ct_in_mri", "BrainFusion: CT in the MRI's frame", "CT registered to the MRI and put into its frame of reference",
    "RESAMPLED", "HU", 2,
)  # fmt: skip
FUSED_IN_CT = Kind(
    "fused", "BrainFusion: MRI fused with CT", "CT registered to the MRI; both fused in the CT's frame of reference",
    "FUSED", "US", 1,
)  # fmt: skip
MRI_IN_CT = Kind(
    "mri_in_ct", "BrainFusion: MRI in the CT's frame", "CT registered to the MRI; the MRI put into the CT's frame of "
    "reference", "RESAMPLED", "US", 2,
)  # fmt: skip


def kinds_of(output: OutputSettings) -> tuple[Kind, Kind]:
    """Return the kinds of the fused series and of that of the volume that was moved."""
    if output.reference == "ct":
        return FUSED_IN_CT, MRI_IN_CT
    return FUSED, REGISTERED_CT if output.is_mris else CT_IN_MRI


@dataclass(frozen=True)
class Doubt:
    """Why an object is to be looked at twice: it says so itself, wherever it goes.

    Attributes
    ----------
    mark
        A word or two for a list of series: "RED", "RED, STALE".
    text
        A sentence without its full stop.
    """

    mark: str
    text: str


def series_dataset(
    mri: DicomHeaders,
    kind: Kind,
    grid: Grid,
    slope: float,
    intercept: float,
    window: tuple[float, float] | None,
    ct: DicomHeaders | None = None,
    doubt: Doubt | None = None,
) -> Dataset:
    """Return the attributes that all slices of a series share. `grid` is right-handed; `window`: lowest, highest."""
    from pydicom.uid import SecondaryCaptureImageStorage

    data = derived_dataset(mri, SecondaryCaptureImageStorage, "OT")
    data.SeriesNumber = series_number(mri, kind.number)
    data.SeriesDescription = described(kind.description, doubt)
    data.BodyPartExamined = "HEAD"
    data.ConversionType = "WSD"  # made on a workstation
    data.ImageType = ["DERIVED", "SECONDARY", kind.image_type]
    # Text in the pixels of a source may be in those of the result; what no source says, nobody knows.
    said = {mri.burned_in, "" if ct is None else ct.burned_in}
    if "YES" in said or said == {"NO"}:
        data.BurnedInAnnotation = "YES" if "YES" in said else "NO"
    warned = "" if doubt is None else f". {doubt.mark}: {doubt.text}"
    data.DerivationDescription = f"{kind.derivation} by BrainFusion {__version__}; {NOT_FOR_DIAGNOSIS}{warned}"[:1024]
    if doubt is not None:
        data.ImageComments = f"{doubt.mark}: {doubt.text}. Exported nevertheless, at the user's request."
    data.DerivationCodeSequence = [code_of(*_SPATIAL_RESAMPLING)]
    data.RelatedSeriesSequence = [_related_series(headers) for headers in (mri, ct) if headers is not None]

    if "FrameOfReferenceUID" in data and "PositionReferenceIndicator" not in data:
        data.PositionReferenceIndicator = ""
    data.ImageOrientationPatient = [decimal(x) for x in grid.direction[:, :2].T.ravel()]
    data.PatientOrientation = [_letters(grid)[0], _letters(grid)[1]]
    data.PixelSpacing = [decimal(grid.spacing_ijk_mm[1]), decimal(grid.spacing_ijk_mm[0])]
    data.SliceThickness = decimal(grid.spacing_ijk_mm[2])
    data.SpacingBetweenSlices = decimal(grid.spacing_ijk_mm[2])

    data.SamplesPerPixel, data.PhotometricInterpretation = 1, "MONOCHROME2"
    data.Columns, data.Rows = grid.size_ijk[:2]
    data.BitsAllocated, data.BitsStored, data.HighBit, data.PixelRepresentation = 16, 16, 15, 0
    data.RescaleSlope, data.RescaleIntercept = decimal(slope), decimal(intercept)
    data.RescaleType = kind.rescale_type
    if window is not None and window[1] > window[0]:
        data.WindowCenter, data.WindowWidth = decimal(sum(window) / 2), decimal(window[1] - window[0])
    return data


def derived_dataset(source: DicomHeaders, sop_class: str, modality: str) -> Dataset:
    """Return a data set with patient and study of a source, and a new series of our own."""
    from pydicom.dataset import Dataset, FileMetaDataset
    from pydicom.uid import ExplicitVRLittleEndian, generate_uid

    data = Dataset()
    data.file_meta = FileMetaDataset()
    data.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    for keyword in (*_ALWAYS_THERE, *_KEPT):
        if keyword in source.first:
            data[keyword] = _without_private(source.first[keyword])
        elif keyword in _ALWAYS_THERE:
            setattr(data, keyword, "")
    data.SOPClassUID = sop_class
    data.SeriesInstanceUID = generate_uid(prefix=None)
    data.Modality = modality
    data.Manufacturer = data.ManufacturerModelName = "BrainFusion"
    data.SoftwareVersions = __version__
    now = time.localtime()
    data.SeriesDate = data.ContentDate = data.InstanceCreationDate = time.strftime("%Y%m%d", now)
    data.SeriesTime = data.ContentTime = data.InstanceCreationTime = time.strftime("%H%M%S", now)
    return data


def described(description: str, doubt: Doubt | None) -> str:
    """Return the description of a series, 64 characters at most; what is in doubt says so first."""
    if doubt is None:
        return f"{description}, {NOT_FOR_DIAGNOSIS}"
    return f"{doubt.mark}! {description}, {NOT_FOR_DIAGNOSIS.removeprefix('derived, ')}"[:64]


def _without_private(element: DataElement) -> DataElement:
    """Return an attribute without private ones inside its sequences: nobody knows what they tell of the patient."""
    if element.VR != "SQ":
        return element
    copy = deepcopy(element)
    for item in copy.value:
        item.remove_private_tags()
    return copy


def series_number(source: DicomHeaders, added: int) -> int:
    """Return a number for a series, a hundred times that of its source and more."""
    try:
        number = int(source.first.get("SeriesNumber", ""))
    except (TypeError, ValueError):
        number = 0
    return (number if 0 < number < 100_000 else 90) * 100 + added


def set_slice(data: Dataset, stored: npt.NDArray[np.uint16], grid: Grid, k: int) -> None:
    """Set what belongs to slice `k`: its stored voxels (rows, columns), its position, and a UID of its own."""
    from pydicom.uid import generate_uid

    data.SOPInstanceUID = generate_uid(prefix=None)
    data.InstanceNumber = k + 1
    data.ImagePositionPatient = [decimal(x) for x in apply_affine(grid.lps_from_ijk, (0, 0, k))]
    data.PixelData = stored.tobytes()
    data.file_meta.MediaStorageSOPClassUID = data.SOPClassUID
    data.file_meta.MediaStorageSOPInstanceUID = data.SOPInstanceUID


def set_sources(data: Dataset, grid: Grid, k: int, mri: DicomHeaders) -> None:
    """Name the MRI slices at the position of slice `k`, and list them by series, as the standard wants it."""
    right, bottom = grid.size_ijk[0] - 1, grid.size_ijk[1] - 1
    corners_lps_mm = apply_affine(grid.lps_from_ijk, [(0, 0, k), (right, 0, k), (0, bottom, k), (right, bottom, k)])
    # A slice across the sources cuts up to all of them: their series is named anyway.
    is_across = abs(float(grid.direction[:, 2] @ mri.axes[:, 2])) < _NEARLY_PARALLEL
    instances = () if is_across else mri.instances_at(corners_lps_mm)
    for keyword in ("SourceImageSequence", "ReferencedSeriesSequence"):
        if keyword in data:
            delattr(data, keyword)
    if not instances:
        return
    purpose = [code_of(*_SOURCE_IMAGE)]
    data.SourceImageSequence = [item_of(PurposeOfReferenceCodeSequence=purpose, **reference_to(i)) for i in instances]
    of_series = [item_of(**reference_to(instance)) for instance in instances]
    data.ReferencedSeriesSequence = [item_of(SeriesInstanceUID=mri.series_uid, ReferencedInstanceSequence=of_series)]


def _related_series(headers: DicomHeaders) -> Dataset:
    """Return a reference to a whole series: an oblique slice cuts some hundred slices of the CT."""
    return item_of(
        StudyInstanceUID=headers.study_uid,
        SeriesInstanceUID=headers.series_uid,
        PurposeOfReferenceCodeSequence=[code_of(*_SAME_ANATOMY)],
    )


def reference_to(instance: Instance) -> dict[str, str]:
    """Return the attributes that refer to an instance."""
    return {
        "ReferencedSOPClassUID": instance.sop_class_uid,
        "ReferencedSOPInstanceUID": instance.sop_instance_uid,
    }


def item_of(**attributes: Any) -> Dataset:
    """Return an item of a sequence."""
    from pydicom.dataset import Dataset

    item = Dataset()
    for keyword, value in attributes.items():
        setattr(item, keyword, value)
    return item


def code_of(value: str, meaning: str) -> Dataset:
    """Return a code of DICOM's own scheme."""
    return item_of(CodeValue=value, CodingSchemeDesignator="DCM", CodeMeaning=meaning)


def _letters(grid: Grid) -> str:
    # DICOM says head and feet where others say superior and inferior.
    return anatomical_axes(grid.direction).replace("S", "H").replace("I", "F")


def decimal(value: float) -> str:
    """Return a number as DICOM writes it, in 16 characters."""
    from pydicom.valuerep import format_number_as_ds

    return format_number_as_ds(float(value) + 0.0)
