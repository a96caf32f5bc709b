"""What the headers of a simulated pair would tell: less than the simulator knows, and now and then something wrong.

The draws have a generator of their own, so that images do not depend on them. Shares are guesses, kept wide.
"""

from __future__ import annotations

from dataclasses import fields, replace
from typing import TypeVar

import numpy as np

from BrainFusionLib.acquisition import FAT_PPM, MHZ_PER_TESLA, CtAcquisition, MriAcquisition, Vendor
from BrainFusionLib.geometry import Grid
from simulation.physics.strengths import Correction, CtProtocol, CtScanner, MriProtocol, Strengths

A = TypeVar("A", MriAcquisition, CtAcquisition)

# Share of pairs of which nothing is known: converted without a sidecar, or stripped on de-identification.
BARE = 0.15
# Only Siemens states the distortion correction.
_VENDORS: dict[Vendor, float] = {"Siemens": 0.65, "GE": 0.15, "Philips": 0.15, "Canon": 0.05}
_CORRECTIONS: tuple[Correction, ...] = ("3D", "2D", "none")
# Share of headers that lack a field that headers usually have.
_MISSING = 0.08


def mri_header(strengths: Strengths, grid: Grid, seed: int) -> MriAcquisition | None:
    """Return what the header of the MRI says; `grid` is in the scanner's space, which begins at the isocentre."""
    random = np.random.default_rng((seed, 19, 41))
    scanner, protocol = strengths.mri_scanner, strengths.mri_protocol
    bare = random.random() < BARE
    vendor = list(_VENDORS)[int(random.choice(len(_VENDORS), p=list(_VENDORS.values())))]
    away = float(np.linalg.norm(grid.centre_lps_mm))
    if random.random() < 0.05:  # the origin of the patient's coordinates is elsewhere
        away = float(np.linalg.norm(grid.centre_lps_mm + random.normal(0, 40, 3)))
    # An ideal scanner has nothing to correct, and its header may say anything.
    correction = scanner.correction
    if not (scanner.gradient_xy or scanner.gradient_z):
        correction = _CORRECTIONS[int(random.choice(3, p=[0.6, 0.3, 0.1]))]
    bandwidth = _bandwidth_hz(protocol, scanner.field_t, random)
    fat_px = FAT_PPM * MHZ_PER_TESLA * scanner.field_t / bandwidth
    known = MriAcquisition(
        vendor=vendor,
        distortion_correction=correction if vendor == "Siemens" else None,
        field_t=scanner.field_t,
        bandwidth_hz=bandwidth,
        acquired_pixel_mm=protocol.pixel_mm,
        readout_axis="i" if protocol.readout == 0 else "j",
        volumetric=protocol.volumetric,
        slice_thickness_mm=protocol.thickness_mm,
        slice_spacing_mm=grid.spacing_ijk_mm[2],
        echo_planar=False,
        fat_suppressed=protocol.fat_suppressed > 0 if random.random() < 0.6 else None,
        contrast_agent=True if protocol.contrast == "T1C" and random.random() < 0.8 else None,
        water_fat_shift_px=fat_px if vendor == "Philips" else None,
        normalised=protocol.bias < 1.4 if vendor == "Siemens" else None,
        isocentre_mm=away if vendor in ("Siemens", "GE") else None,
    )
    found = _with_gaps(known, random)
    return None if bare else found


def ct_header(scanner: CtScanner, protocol: CtProtocol, grid: Grid, seed: int) -> CtAcquisition | None:
    """Return what the header of the CT says."""
    random = np.random.default_rng((seed, 19, 42))
    bare, named = random.random() < BARE, random.random() < 0.8
    kernels = ("Hr60", "Hr48", "Hr40", "Hr32")
    known = CtAcquisition(
        cone_beam=True if scanner.cone_beam and named else None,
        kernel=kernels[int(np.searchsorted((0.8, 1.15, 1.45), protocol.kernel_mm))],
        kvp=float(random.choice([100.0, 120.0])),
        slice_thickness_mm=protocol.thickness_mm,
        slice_spacing_mm=grid.spacing_ijk_mm[2],
        reconstruction_diameter_mm=grid.spacing_ijk_mm[0] * grid.size_ijk[0],
        tilt_deg=0.0,
    )
    found = _with_gaps(known, random)
    return None if bare else found


def _bandwidth_hz(protocol: MriProtocol, field_t: float, random: np.random.Generator) -> float:
    """Return the bandwidth that goes with the shift of fat; where fat is not shifted, a wide one."""
    if protocol.fat_shift_mm is None:
        return protocol.bandwidth_hz
    if protocol.fat_shift_mm > 0:
        return FAT_PPM * MHZ_PER_TESLA * field_t * protocol.pixel_mm / protocol.fat_shift_mm
    return float(random.uniform(600, 1500)) * field_t / 1.5


def _with_gaps(known: A, random: np.random.Generator) -> A:
    """Return the same without the fields that a header may lack."""
    missing = [field.name for field in fields(known) if field.init and random.random() < _MISSING]
    return replace(known, **dict.fromkeys(missing))
