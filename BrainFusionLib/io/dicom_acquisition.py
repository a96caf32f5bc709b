"""How a series was acquired, from its DICOM headers, classic or enhanced. Nothing in a header makes this fail.

Source of the tags: DICOM PS3.3 and PS3.6. Siemens states the distortion correction in ImageType, in (0051,1016), and
from software XA30 on in (0021,1175) (dcm2niix issues 597 and 618); Philips the water-fat shift in (2001,1022).
"""

from __future__ import annotations

import re
from collections.abc import Iterator, MutableSequence, Sequence
from dataclasses import fields, replace
from typing import TYPE_CHECKING, Any

from BrainFusionLib.acquisition import A, Acquisition, CtAcquisition, MriAcquisition, with_patient
from BrainFusionLib.geometry import FloatArray
from BrainFusionLib.io import header_values as values
from BrainFusionLib.io.dicom_files import DicomFile, quiet_pydicom

if TYPE_CHECKING:
    from pydicom.dataset import Dataset

_PRIVATE_WORDS = ("PatientName", "PatientID", "InstitutionName", "StationName")


def read_acquisition(
    files: Sequence[DicomFile], centre_lps_mm: FloatArray, slice_spacing_mm: float
) -> Acquisition | None:
    """Return how a CT or MRI series was acquired; ``None`` for other modalities.

    Parameters
    ----------
    files
        Of one series; the first, the middle and the last are looked at, and a field counts if they agree.
    centre_lps_mm
        Centre of the volume in the patient's coordinates of the headers, shape (3,).
    slice_spacing_mm
        Distance between the centres of slices.
    """
    looked_at = [files[n] for n in sorted({0, len(files) // 2, len(files) - 1})]
    modality = files[0].text("Modality")
    spacing = values.of_slices_mm(slice_spacing_mm)
    with quiet_pydicom():
        headers = [_Header(file) for file in looked_at]
        patients = [values.patient(header.text("PatientID")) for header in headers]
        if modality == "CT":
            return with_patient(replace(_agreed([_ct(one) for one in headers]), slice_spacing_mm=spacing), patients)
        if modality != "MR":
            return None
        mri = _agreed([_mri(one) for one in headers])
    away = values.from_isocentre_mm(centre_lps_mm, mri.vendor)
    return with_patient(replace(mri, slice_spacing_mm=spacing, isocentre_mm=away), patients)


def _agreed(all_read: list[A]) -> A:
    """Return the fields in which the headers of a series agree."""
    first = all_read[0]
    differing = {f.name: None for f in fields(first) if len({getattr(one, f.name) for one in all_read}) > 1}
    return replace(first, **differing)


class _Header:
    """Values of one header, wherever classic and enhanced files keep them."""

    def __init__(self, file: DicomFile) -> None:
        self._file = file
        self._holders = list(_holders(file.dataset))

    def raw(self, keyword: str) -> Any:
        """Return the first value that is not empty; ``None`` if there is none, or it does not parse."""
        for holder in self._holders:
            try:
                value = holder.get(keyword)
                if value is not None and str(value).strip():
                    return value
            except Exception:  # pydicom raises errors of many kinds for values that do not parse
                continue
        return None

    def text(self, keyword: str) -> str:
        """Return a value, the first of several, as text; empty if there is none."""
        value = self.raw(keyword)
        if isinstance(value, MutableSequence):
            value = value[0] if len(value) else None
        if isinstance(value, bytes):
            value = value.decode("ascii", "replace")
        return "" if value is None else str(value).strip(" \0")

    def words(self, keyword: str) -> list[str]:
        """Return the values of an attribute that may have several."""
        return _words(self.raw(keyword))

    def number(self, keyword: str, least: float, most: float) -> float | None:
        return values.number(self.raw(keyword), least, most)

    def private(self, group: int, creator: str, element: int) -> Any:
        """Return a private value; ``None`` if there is none."""
        for holder in self._holders:
            try:
                return holder.private_block(group, creator)[element].value
            except Exception:  # KeyError if it is absent, others as above
                continue
        return None

    def name(self, keyword: str) -> str | None:
        """Return a short technical name; ``None`` if it holds a word that identifies patient or hospital."""
        private = [word for key in _PRIVATE_WORDS for word in re.split(r"[\^=\s,]+", self.text(key))]
        return values.short_name(self.text(keyword), private)

    @property
    def size_ij(self) -> tuple[int, int]:
        return self._file.size_ij


def _holders(dataset: Dataset) -> Iterator[Dataset]:
    """Yield a data set, and the groups that an enhanced file has for all frames and for its first frame."""
    yield dataset
    for keyword in ("SharedFunctionalGroupsSequence", "PerFrameFunctionalGroupsSequence"):
        try:
            items = list(dataset.get(keyword) or [])[:1]
            groups = [element for item in items for element in item if element.VR == "SQ" and len(element.value)]
        except Exception:  # as above
            continue
        yield from (group.value[0] for group in groups)
    for keyword in ("CTReconstructionSequence", "CTXRayDetailsSequence"):
        try:
            yield from list(dataset.get(keyword) or [])[:1]
        except Exception:  # as above
            continue


def _words(value: Any) -> list[str]:
    if isinstance(value, bytes):
        value = value.decode("ascii", "replace")
    parts = [value] if isinstance(value, str) or not hasattr(value, "__iter__") else list(value)
    return [
        word for part in parts if part is not None for word in re.split(r"[/\\\s]+", str(part).strip(" \0")) if word
    ]


def _mri(header: _Header) -> MriAcquisition:
    maker = values.vendor(header.text("Manufacturer"))
    kinds = header.words("ImageType")
    if maker == "Siemens":
        kinds += header.words("FrameType")
        kinds += _words(header.private(0x0051, "SIEMENS MR HEADER", 0x16))
        kinds += _words(header.private(0x0021, "SIEMENS MR SDI 02", 0x75))
    axis = values.readout_axis(header.text("InPlanePhaseEncodingDirection"))
    return MriAcquisition(
        vendor=maker,
        distortion_correction=values.correction(kinds, maker),
        field_t=values.field_t(header.raw("MagneticFieldStrength"), _frequency_mhz(header)),
        bandwidth_hz=header.number("PixelBandwidth", 1, 20_000),
        acquired_pixel_mm=_acquired_pixel_mm(header, axis),
        readout_axis=axis,
        volumetric={"3D": True, "2D": False}.get(header.text("MRAcquisitionType")),
        slice_thickness_mm=values.of_slices_mm(header.raw("SliceThickness")),
        echo_planar=_is_echo_planar(header),
        fat_suppressed=_is_fat_suppressed(header),
        contrast_agent=_has_contrast_agent(header),
        water_fat_shift_px=values.number(header.private(0x2001, "Philips Imaging DD 001", 0x22), 0.01, 100),
        normalised=values.is_normalised(kinds, maker),
        day=_day(header),
    )


def _ct(header: _Header) -> CtAcquisition:
    model = header.name("ManufacturerModelName")
    return CtAcquisition(
        vendor=values.vendor(header.text("Manufacturer")),
        model=model,
        cone_beam=values.is_cone_beam(header.text("ManufacturerModelName")),
        kernel=header.name("ConvolutionKernel"),
        kvp=header.number("KVP", 10, 500),
        slice_thickness_mm=values.of_slices_mm(header.raw("SliceThickness")),
        reconstruction_diameter_mm=header.number("ReconstructionDiameter", 10, 2000),
        tilt_deg=header.number("GantryDetectorTilt", -60, 60),
        contrast_agent=_has_contrast_agent(header),
        day=_day(header),
    )


def _frequency_mhz(header: _Header) -> Any:
    return header.raw("ImagingFrequency") or header.raw("TransmitterFrequency")


def _acquired_pixel_mm(header: _Header, axis: str | None) -> float | None:
    """Return the field of view along the readout over the number of samples, before interpolation."""
    matrix = header.raw("AcquisitionMatrix")
    try:
        # Frequency rows and columns, phase rows and columns: of the first two one is 0.
        samples = max(int(n) for n in list(matrix)[:2]) if matrix is not None else 0
        samples = samples or int(header.raw("MRAcquisitionFrequencyEncodingSteps") or 0)
        rows_mm, columns_mm = (float(mm) for mm in header.raw("PixelSpacing"))
    except (TypeError, ValueError, OverflowError):
        return None
    columns, rows = header.size_ij
    fields_mm = {"i": columns * columns_mm, "j": rows * rows_mm}
    if axis is None and abs(fields_mm["i"] - fields_mm["j"]) > 0.01:
        return None
    return values.number(fields_mm[axis or "i"] / samples, 0.1, 20) if samples > 0 else None


def _is_echo_planar(header: _Header) -> bool | None:
    said = header.text("EchoPlanarPulseSequence").upper()
    if said in ("YES", "NO"):
        return said == "YES"
    kinds = [word.upper() for word in header.words("ScanningSequence")]
    return "EP" in kinds if kinds else None


def _is_fat_suppressed(header: _Header) -> bool | None:
    said = header.text("SpectrallySelectedSuppression").upper()
    if said:
        return said in ("FAT", "FAT_AND_WATER")
    options = {word.upper() for word in header.words("ScanOptions")}
    # Options that are listed without it do not exclude Dixon or inversion recovery.
    return True if options & {"FS", "SFS"} else False if options else None


def _has_contrast_agent(header: _Header) -> bool | None:
    agent = header.text("ContrastBolusAgent")
    if agent:
        return agent.lower() not in ("no", "none", "n", "without", "0")
    sequence = header.raw("ContrastBolusAgentSequence")
    return True if isinstance(sequence, MutableSequence) and len(sequence) else None


def _day(header: _Header) -> int | None:
    for keyword in ("AcquisitionDate", "SeriesDate", "StudyDate", "AcquisitionDateTime"):
        found = values.day(header.text(keyword))
        if found is not None:
            return found
    return None
