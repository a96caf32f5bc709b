"""How the scanner made a volume, as far as its header says: evidence, never proof, and nothing that identifies anyone.

A field is ``None`` where the header does not say. Absent is not the same as "no": GE, Philips and Canon have no tag for
distortion correction, so an MRI of theirs may or may not be corrected.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, field, replace
from typing import Literal, TypeAlias, TypeVar

Vendor = Literal["Siemens", "GE", "Philips", "Canon"]
DistortionCorrection = Literal["none", "2D", "3D"]

# Gyromagnetic ratio of the proton over 2 pi (CODATA).
MHZ_PER_TESLA = 42.577
# Fat's protons resonate this far below those of water; Philips converts its water-fat shift with 3.4.
FAT_PPM = 3.45


@dataclass(frozen=True)
class MriAcquisition:
    """How an MRI was acquired.

    Attributes
    ----------
    vendor
        Maker of the scanner.
    distortion_correction
        The vendor's correction of gradient non-linearity: none, in the slice plane only, or in 3D.
    field_t
        Field strength, tesla.
    bandwidth_hz
        Readout bandwidth per acquired pixel.
    acquired_pixel_mm
        Pixel along the readout as acquired, before interpolation.
    readout_axis
        Index axis of the readout: i (along a row of pixels) or j (along a column).
    volumetric
        Whether it is a 3D acquisition, not a stack of 2D slices.
    slice_thickness_mm, slice_spacing_mm
        Thickness of a slice; distance between the centres of slices.
    echo_planar
        Whether it is an echo-planar image (EPI), as of diffusion and functional MRI.
    fat_suppressed
        Whether the signal of fat was suppressed.
    contrast_agent
        Whether a contrast agent was given.
    water_fat_shift_px
        Shift of fat against water, acquired pixels, as Philips states it.
    normalised
        Whether the coil's uneven brightness was normalised (Siemens).
    isocentre_mm
        Distance of the volume's centre from the origin of the patient's coordinates: on Siemens and GE usually the
        isocentre, elsewhere ``None``.
    day
        Day of the scan (proleptic ordinal); only for differences between scans, and never part of a result.
    patient
        Digest of the patient ID; only to compare scans. `replace` drops it, and no record takes it.
    """

    vendor: Vendor | None = None
    distortion_correction: DistortionCorrection | None = None
    field_t: float | None = None
    bandwidth_hz: float | None = None
    acquired_pixel_mm: float | None = None
    readout_axis: Literal["i", "j"] | None = None
    volumetric: bool | None = None
    slice_thickness_mm: float | None = None
    slice_spacing_mm: float | None = None
    echo_planar: bool | None = None
    fat_suppressed: bool | None = None
    contrast_agent: bool | None = None
    water_fat_shift_px: float | None = None
    normalised: bool | None = None
    isocentre_mm: float | None = None
    day: int | None = None
    patient: str | None = field(default=None, init=False, compare=False, repr=False)

    @property
    def mm_per_ppm(self) -> float | None:
        """Shift along the readout for a field error of 1 ppm, mm; its sign is in no header.

        ``ppm x 42.577 MHz/T x field / bandwidth x acquired pixel``; without a bandwidth, the water-fat shift over
        3.4 ppm. ``None`` for EPI, whose shift is many times larger and along the phase direction.
        """
        if self.echo_planar:
            return None
        if self.field_t is not None and self.bandwidth_hz is not None and self.acquired_pixel_mm is not None:
            return MHZ_PER_TESLA * self.field_t / self.bandwidth_hz * self.acquired_pixel_mm
        if self.water_fat_shift_px is not None and self.acquired_pixel_mm is not None:
            return self.water_fat_shift_px * self.acquired_pixel_mm / 3.4
        return None

    @property
    def fat_shift_mm(self) -> float | None:
        """Shift of fat against water along the readout, mm: the stated water-fat shift, or 3.45 ppm."""
        if self.echo_planar:
            return None
        if self.water_fat_shift_px is not None and self.acquired_pixel_mm is not None:
            return self.water_fat_shift_px * self.acquired_pixel_mm
        return None if self.mm_per_ppm is None else FAT_PPM * self.mm_per_ppm


@dataclass(frozen=True)
class CtAcquisition:
    """How a CT was acquired.

    Attributes
    ----------
    vendor, model
        Maker and model of the scanner.
    cone_beam
        Whether it is a cone-beam scanner, by its model.
    kernel
        Name of the reconstruction kernel.
    kvp
        Tube voltage, kV.
    slice_thickness_mm, slice_spacing_mm
        Thickness of a slice; distance between the centres of slices.
    reconstruction_diameter_mm
        Diameter of the reconstructed field.
    tilt_deg
        Nominal tilt of the gantry; the true one is that of the slices.
    contrast_agent
        Whether a contrast agent was given.
    day
        Day of the scan (proleptic ordinal); only for differences between scans, and never part of a result.
    patient
        Digest of the patient ID; only to compare scans. `replace` drops it, and no record takes it.
    """

    vendor: Vendor | None = None
    model: str | None = None
    cone_beam: bool | None = None
    kernel: str | None = None
    kvp: float | None = None
    slice_thickness_mm: float | None = None
    slice_spacing_mm: float | None = None
    reconstruction_diameter_mm: float | None = None
    tilt_deg: float | None = None
    contrast_agent: bool | None = None
    day: int | None = None
    patient: str | None = field(default=None, init=False, compare=False, repr=False)


Acquisition: TypeAlias = MriAcquisition | CtAcquisition
A = TypeVar("A", MriAcquisition, CtAcquisition)
B = TypeVar("B", bound=Acquisition)


@dataclass(frozen=True)
class PairAcquisition:
    """How the CT and the MRI of a pair were acquired, without dates.

    Attributes
    ----------
    ct, mri
        Each without its day and patient; ``None`` if nothing is known.
    days_apart
        Days from the MRI to the CT; negative if the CT came first. De-identification may have changed dates.
    """

    ct: CtAcquisition | None = None
    mri: MriAcquisition | None = None
    days_apart: int | None = None


def pair_acquisition(ct: Acquisition | None, mri: Acquisition | None) -> PairAcquisition | None:
    """Return what the headers of a CT and an MRI say; ``None`` if they say nothing.

    What describes the other modality is ignored: a header that was copied to the wrong volume.
    """
    of_ct = ct if isinstance(ct, CtAcquisition) else None
    of_mri = mri if isinstance(mri, MriAcquisition) else None
    if of_ct is None and of_mri is None:
        return None
    known = of_ct is not None and of_mri is not None and of_ct.day is not None and of_mri.day is not None
    return PairAcquisition(
        ct=None if of_ct is None else replace(of_ct, day=None),
        mri=None if of_mri is None else replace(of_mri, day=None),
        days_apart=of_ct.day - of_mri.day if known else None,  # type: ignore[union-attr, operator]
    )


def with_patient(acquisition: B, digests: Collection[str | None]) -> B:
    """Return an acquisition with the digest of its patient's ID, where all its headers give one and the same."""
    found = replace(acquisition)
    object.__setattr__(found, "patient", next(iter(digests)) if len(set(digests)) == 1 else None)
    return found


def are_of_two_patients(ct: Acquisition | None, mri: Acquisition | None) -> bool:
    """Return whether both headers give a patient ID, and not the same."""
    return ct is not None and mri is not None and None not in (ct.patient, mri.patient) and ct.patient != mri.patient
