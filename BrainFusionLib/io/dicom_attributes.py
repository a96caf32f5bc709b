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


def series_dataset(
    mri: DicomHeaders,
    kind: Kind,
    grid: Grid,
    slope: float,
    intercept: float,
    window: tuple[float, float] | None,
    ct: DicomHeaders | None = None,
) -> Dataset:
    """Return the attributes that all slices of a series share. `grid` is right-handed; `window`: lowest, highest."""
    from pydicom.dataset import Dataset, FileMetaDataset
    from pydicom.uid import ExplicitVRLittleEndian, SecondaryCaptureImageStorage, generate_uid

    data = Dataset()
    data.file_meta = FileMetaDataset()
    data.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    for keyword in (*_ALWAYS_THERE, *_KEPT):
        if keyword in mri.first:
            data[keyword] = _without_private(mri.first[keyword])
        elif keyword in _ALWAYS_THERE:
            setattr(data, keyword, "")
    data.SOPClassUID = SecondaryCaptureImageStorage
    data.SeriesInstanceUID = generate_uid(prefix=None)
    data.SeriesNumber = _series_number(mri, kind)
    data.SeriesDescription = f"{kind.description}, {NOT_FOR_DIAGNOSIS}"
    data.Modality = "OT"
    data.BodyPartExamined = "HEAD"
    data.ConversionType = "WSD"  # made on a workstation
    data.Manufacturer = data.ManufacturerModelName = "BrainFusion"
    data.SoftwareVersions = __version__
    data.ImageType = ["DERIVED", "SECONDARY", kind.image_type]
    # Text in the pixels of a source may be in those of the result; what no source says, nobody knows.
    said = {mri.burned_in, "" if ct is None else ct.burned_in}
    if "YES" in said or said == {"NO"}:
        data.BurnedInAnnotation = "YES" if "YES" in said else "NO"
    data.DerivationDescription = f"{kind.derivation} by BrainFusion {__version__}; {NOT_FOR_DIAGNOSIS}"
    data.DerivationCodeSequence = [_code(*_SPATIAL_RESAMPLING)]
    data.RelatedSeriesSequence = [_related_series(headers) for headers in (mri, ct) if headers is not None]
    now = time.localtime()
    data.SeriesDate = data.ContentDate = data.InstanceCreationDate = time.strftime("%Y%m%d", now)
    data.SeriesTime = data.ContentTime = data.InstanceCreationTime = time.strftime("%H%M%S", now)

    if "FrameOfReferenceUID" in data and "PositionReferenceIndicator" not in data:
        data.PositionReferenceIndicator = ""
    data.ImageOrientationPatient = [_decimal(x) for x in grid.direction[:, :2].T.ravel()]
    data.PatientOrientation = [_letters(grid)[0], _letters(grid)[1]]
    data.PixelSpacing = [_decimal(grid.spacing_ijk_mm[1]), _decimal(grid.spacing_ijk_mm[0])]
    data.SliceThickness = _decimal(grid.spacing_ijk_mm[2])
    data.SpacingBetweenSlices = _decimal(grid.spacing_ijk_mm[2])

    data.SamplesPerPixel, data.PhotometricInterpretation = 1, "MONOCHROME2"
    data.Columns, data.Rows = grid.size_ijk[:2]
    data.BitsAllocated, data.BitsStored, data.HighBit, data.PixelRepresentation = 16, 16, 15, 0
    data.RescaleSlope, data.RescaleIntercept = _decimal(slope), _decimal(intercept)
    data.RescaleType = kind.rescale_type
    if window is not None and window[1] > window[0]:
        data.WindowCenter, data.WindowWidth = _decimal(sum(window) / 2), _decimal(window[1] - window[0])
    return data


def _without_private(element: DataElement) -> DataElement:
    """Return an attribute without private ones inside its sequences: nobody knows what they tell of the patient."""
    if element.VR != "SQ":
        return element
    copy = deepcopy(element)
    for item in copy.value:
        item.remove_private_tags()
    return copy


def _series_number(mri: DicomHeaders, kind: Kind) -> int:
    try:
        number = int(mri.first.get("SeriesNumber", ""))
    except (TypeError, ValueError):
        number = 0
    return (number if 0 < number < 100_000 else 90) * 100 + kind.number


def set_slice(data: Dataset, stored: npt.NDArray[np.uint16], grid: Grid, k: int) -> None:
    """Set what belongs to slice `k`: its stored voxels (rows, columns), its position, and a UID of its own."""
    from pydicom.uid import generate_uid

    data.SOPInstanceUID = generate_uid(prefix=None)
    data.InstanceNumber = k + 1
    data.ImagePositionPatient = [_decimal(x) for x in apply_affine(grid.lps_from_ijk, (0, 0, k))]
    data.PixelData = stored.tobytes()
    data.file_meta.MediaStorageSOPClassUID = data.SOPClassUID
    data.file_meta.MediaStorageSOPInstanceUID = data.SOPInstanceUID


def set_sources(data: Dataset, grid: Grid, k: int, mri: DicomHeaders) -> None:
    """Name the MRI slices at the position of slice `k`, and list them by series, as the standard wants it."""
    right, bottom = grid.size_ijk[0] - 1, grid.size_ijk[1] - 1
    corners_lps_mm = apply_affine(grid.lps_from_ijk, [(0, 0, k), (right, 0, k), (0, bottom, k), (right, bottom, k)])
    instances = mri.instances_at(corners_lps_mm)
    for keyword in ("SourceImageSequence", "ReferencedSeriesSequence"):
        if keyword in data:
            delattr(data, keyword)
    if not instances:
        return
    purpose = [_code(*_SOURCE_IMAGE)]
    data.SourceImageSequence = [_item(PurposeOfReferenceCodeSequence=purpose, **_reference(i)) for i in instances]
    of_series = [_item(**_reference(instance)) for instance in instances]
    data.ReferencedSeriesSequence = [_item(SeriesInstanceUID=mri.series_uid, ReferencedInstanceSequence=of_series)]


def _related_series(headers: DicomHeaders) -> Dataset:
    """Return a reference to a whole series: an oblique slice cuts some hundred slices of the CT."""
    return _item(
        StudyInstanceUID=headers.study_uid,
        SeriesInstanceUID=headers.series_uid,
        PurposeOfReferenceCodeSequence=[_code(*_SAME_ANATOMY)],
    )


def _reference(instance: Instance) -> dict[str, str]:
    return {
        "ReferencedSOPClassUID": instance.sop_class_uid,
        "ReferencedSOPInstanceUID": instance.sop_instance_uid,
    }


def _item(**attributes: Any) -> Dataset:
    from pydicom.dataset import Dataset

    item = Dataset()
    for keyword, value in attributes.items():
        setattr(item, keyword, value)
    return item


def _code(value: str, meaning: str) -> Dataset:
    return _item(CodeValue=value, CodingSchemeDesignator="DCM", CodeMeaning=meaning)


def _letters(grid: Grid) -> str:
    # DICOM says head and feet where others say superior and inferior.
    return anatomical_axes(grid.direction).replace("S", "H").replace("I", "F")


def _decimal(value: float) -> str:
    from pydicom.valuerep import format_number_as_ds

    return format_number_as_ds(float(value) + 0.0)
