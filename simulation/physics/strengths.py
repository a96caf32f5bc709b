"""How strong each effect is: of the scanners, of their protocols and of the patient. All of it is plain data."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from BrainFusionLib.acquisition import FAT_PPM, MHZ_PER_TESLA

Correction = Literal["none", "2D", "3D"]
Plane = Literal["axial", "sagittal", "coronal"]
Triple = tuple[float, float, float]


@dataclass(frozen=True)
class MriScanner:
    """What stays the same in all scans of one MRI scanner.

    Attributes
    ----------
    name
        What to call it in tables.
    field_t
        Strength of the field, tesla.
    gradient_xy, gradient_z
        Third-order non-linearity k and k' of the transverse and the axial gradients, as shares at 100 mm.
    gradient_5
        Order five, as a share of k and k'.
    correction
        The vendor's correction. With 2D, what lies along the slice normal stays as it is.
    residual
        Share of the distortion that stays in the corrected directions.
    scale
        By how much lengths along left, posterior and superior are drawn too long: 0.01 for 1 %.
    """

    name: str = "ideal"
    field_t: float = 1.5
    gradient_xy: float = 0.0
    gradient_z: float = 0.0
    gradient_5: float = 0.0
    correction: Correction = "none"
    residual: float = 0.2
    scale: Triple = (0.0, 0.0, 0.0)


@dataclass(frozen=True)
class CtScanner:
    """What stays the same in all scans of one CT scanner.

    Attributes
    ----------
    name
        What to call it in tables.
    cone_beam
        Whether it is a cone-beam scanner: its own HU, cupping, noise, and a cylinder of 20 cm that is seen.
    table_scale
        By how much the slices are farther apart than the header says, as a share.
    hardening
        Strength of beam hardening: 1 is 15 HU between thick petrous bones.
    hu_scale, hu_offset
        Errors of the Hounsfield scale.
    """

    name: str = "ideal"
    cone_beam: bool = False
    table_scale: float = 0.0
    hardening: float = 0.0
    hu_scale: float = 1.0
    hu_offset: float = 0.0


@dataclass(frozen=True)
class MriProtocol:
    """How the MRI is taken.

    Attributes
    ----------
    contrast
        One of `tissues.CONTRASTS`.
    plane
        Of the slices, or of the stored slices of a 3D scan.
    volumetric
        3D: slices are partitions, nothing bends across them.
    pixel_mm, thickness_mm, gap_mm
        In the plane; of a slice; between slices.
    bandwidth_hz
        Per pixel.
    readout
        Index axis of the readout, 0 (columns) or 1 (rows).
    polarity
        Sign of the readout gradient.
    fat_shift_mm
        Chemical shift of fat along the readout; ``None`` where it follows from field, bandwidth and pixel.
    fat_suppressed
        Share of fat's signal that is gone.
    bias
        How much brighter the rim is than the centre at the most, as a factor.
    snr
        Of white matter.
    oblique_deg
        How far the slices are turned from the axes of the scanner.
    field_of_view_mm
        Left-right, front-back, feet-head.
    up_mm
        How far above the brain's middle the middle of the field of view is.
    """

    contrast: str = "T1"
    plane: Plane = "axial"
    volumetric: bool = True
    pixel_mm: float = 1.0
    thickness_mm: float = 1.0
    gap_mm: float = 0.0
    bandwidth_hz: float = 240.0
    readout: int = 0
    polarity: int = 1
    fat_shift_mm: float | None = 0.0
    fat_suppressed: float = 0.0
    bias: float = 1.15
    snr: float = 40.0
    oblique_deg: float = 0.0
    field_of_view_mm: Triple = (180.0, 230.0, 200.0)
    up_mm: float = -15.0

    def mm_per_ppm(self, field_t: float) -> float:
        """Return how far one ppm moves tissue along the readout, mm: ppm · 42.577 · B0 / bandwidth · pixel."""
        return MHZ_PER_TESLA * field_t / self.bandwidth_hz * self.pixel_mm

    def fat_mm(self, field_t: float) -> float:
        """Return how far fat is moved against water along the readout, mm."""
        return FAT_PPM * self.mm_per_ppm(field_t) if self.fat_shift_mm is None else self.fat_shift_mm


@dataclass(frozen=True)
class CtProtocol:
    """How the CT is taken.

    Attributes
    ----------
    pixel_mm, thickness_mm, increment_mm
        In the plane; of a slice; between the middles of slices.
    kernel_mm
        Full width at half maximum in the plane; below 0.9 the kernel is sharp and overshoots at bone.
    noise_hu
        Standard deviation in the brain.
    iodine_hu
        Density of vessels.
    tilt_error_deg
        By how much the gantry's tilt is other than the header says.
    table, frame
        What else is in the picture.
    clip_hu
        Range of the stored numbers.
    height_mm
        Of the part of the head that is seen.
    up_mm
        How far above the brain's middle its middle is.
    """

    pixel_mm: float = 1.0
    thickness_mm: float = 1.0
    increment_mm: float = 1.0
    kernel_mm: float = 1.2
    noise_hu: float = 6.0
    iodine_hu: float = 55.0
    tilt_error_deg: float = 0.0
    table: bool = False
    frame: bool = False
    clip_hu: tuple[float, float] = (-1024.0, 3071.0)
    height_mm: float = 190.0
    up_mm: float = -15.0


@dataclass(frozen=True)
class Patient:
    """The head, and what happens to it between the two scans.

    Attributes
    ----------
    isocentre_mm
        Where the brain's middle lies from the isocentre of the MRI: left, posterior, superior.
    susceptibility
        Strength of the field that the head itself makes: 1 is a shimmed head, 0 none.
    dental_mm
        Metal on the teeth: radius of a ball that makes the field and the void, mm; in the CT it makes streaks.
    dental_ppm
        Its susceptibility against water.
    motion_mm
        Largest of the steps of the head during the MRI.
    jaw_deg, neck_deg
        How far the mouth is opened and the neck bent in the CT.
    skin_mm, swelling_mm
        How far the scalp is pressed at the back, and swollen at one side.
    eyes_mm
        How far the front of the eyes is turned.
    shift_mm
        Largest shift of the brain, along gravity, away from the opening; below 0 out of the opening.
    shift_reach_mm
        How far from the opening the shift falls to 60 %.
    air_ml
        Air inside the skull.
    opening
        What was done to the skull.
    opening_mm
        Radius of the opening.
    tumour_mm
        Radius of the tumour in the MRI; 0 for none.
    resected
        The tumour is gone in the CT.
    electrodes
        Electrodes in the CT.
    ventricles_mm
        How far the ventricles' walls have moved outwards.
    membranes_mm
        Dura, periosteum and galea are as dark in the MRI as bone, and soft in the CT: by up to so much the dark band is
        wider than the skull, here more and there less.
    table_mm
        How thick the compact tables are: deeper in the bone there is marrow; 0 where the label map has it.
    marrow
        Signal of the marrow as a share of that of fat, which it then is, and the less dense in the CT; 0 for a middling
        signal, partly of water.
    """

    isocentre_mm: Triple = (0.0, 0.0, 0.0)
    susceptibility: float = 0.0
    dental_mm: float = 0.0
    dental_ppm: float = 100.0
    motion_mm: float = 0.0
    jaw_deg: float = 0.0
    neck_deg: float = 0.0
    skin_mm: float = 0.0
    swelling_mm: float = 0.0
    eyes_mm: float = 0.0
    shift_mm: float = 0.0
    shift_reach_mm: float = 55.0
    air_ml: float = 0.0
    opening: Literal["none", "burr hole", "craniotomy", "craniectomy"] = "none"
    opening_mm: float = 25.0
    tumour_mm: float = 0.0
    resected: bool = False
    electrodes: int = 0
    ventricles_mm: float = 0.0
    membranes_mm: float = 0.0
    table_mm: float = 0.0
    marrow: float = 0.0


@dataclass(frozen=True)
class Strengths:
    """Everything about a case but the head and the seed of its details (pose, textures, noise, places).

    Attributes
    ----------
    kind
        What to call it in tables.
    effects
        Names of the effects that were drawn, for the tables.
    angle_deg, shift_mm
        How far the head may lie turned and shifted in the CT, at the most.
    """

    kind: str = "plain"
    effects: tuple[str, ...] = ()
    mri_scanner: MriScanner = field(default_factory=MriScanner)
    ct_scanner: CtScanner = field(default_factory=CtScanner)
    mri_protocol: MriProtocol = field(default_factory=MriProtocol)
    ct_protocol: CtProtocol = field(default_factory=CtProtocol)
    patient: Patient = field(default_factory=Patient)
    angle_deg: float = 15.0
    shift_mm: float = 20.0
