"""Strengths as they occur: a site's scanners, then a protocol, then a patient.

Ranges are those of PHYSICS.md, wider where that guesses. `draw_site` depends on the site's seed alone, so that a
calibration can leave out whole scanners.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from simulation.physics.strengths import CtProtocol, CtScanner, MriProtocol, MriScanner, Patient, Strengths
from simulation.tissues import CONTRASTS

Random = np.random.Generator


@dataclass(frozen=True)
class Site:
    """The two scanners of a hospital; `seed` is all that they depend on."""

    seed: int
    mri: MriScanner
    ct: CtScanner


def draw_site(seed: int) -> Site:
    """Draw a hospital."""
    random = np.random.default_rng((seed, 7))
    return Site(seed, draw_mri_scanner(random, f"MR{seed}"), draw_ct_scanner(random, f"CT{seed}"))


def draw_mri_scanner(random: Random, name: str = "") -> MriScanner:
    """Draw field, gradients with their correction, and errors of scale."""
    correction = random.choice(["3D", "2D", "none"], p=[0.6, 0.3, 0.1])
    k, kz = _signed(random, 0.004, 0.015, 0.03), _signed(random, 0.004, 0.015, 0.03)
    scale = random.choice([-1, 1], 3) * np.minimum(np.abs(random.normal(0, 0.0025, 3)), 0.01)
    if random.random() < 0.02:
        scale[random.integers(3)] += random.choice([-1, 1]) * random.uniform(0.02, 0.03)
    return MriScanner(
        name,
        field_t=float(random.choice([1.5, 3.0, 7.0], p=[0.45, 0.53, 0.02])),
        gradient_xy=k,
        gradient_z=kz,
        gradient_5=float(random.uniform(-0.5, 0.5)),
        correction=correction,
        residual=float(random.uniform(0.08, 0.35)),
        scale=(float(scale[0]), float(scale[1]), float(scale[2])),
    )


def draw_ct_scanner(random: Random, name: str = "") -> CtScanner:
    """Draw table travel, beam hardening and the Hounsfield scale; one in twelve is a cone beam."""
    cone = bool(random.random() < 0.08)
    return CtScanner(
        name,
        cone_beam=cone,
        table_scale=float(random.normal(0, 0.0015)),
        hardening=float(random.uniform(0.3, 1.6)),
        hu_scale=float(random.normal(1, 0.12 if cone else 0.01)),
        hu_offset=float(random.normal(0, 50 if cone else 3)),
    )


def draw_mri_protocol(random: Random, scanner: MriScanner) -> MriProtocol:
    """Draw a protocol with all its effects: bandwidth, readout, fat, slices, coil, noise, field of view."""
    contrast = str(random.choice(CONTRASTS, p=[0.25, 0.35, 0.2, 0.15, 0.05]))
    volumetric = bool(random.random() < (0.8 if contrast in ("T1", "T1C") else 0.45))
    plain = draw_plain_mri(random, contrast)
    thick, gap = (plain.thickness_mm, 0.0)
    if not volumetric:
        thick = float(random.choice([2.0, 3.0, 4.0, 5.0, 6.0]))
        gap = float(random.choice([0.0, 0.3, 1.0, 1.5]))
    return replace(
        plain,
        volumetric=volumetric,
        plane="axial" if not volumetric else plain.plane,
        thickness_mm=thick,
        gap_mm=gap,
        bandwidth_hz=float(np.exp(random.uniform(np.log(110), np.log(700)))),
        fat_shift_mm=None,
        fat_suppressed=float(random.uniform(0.7, 0.98)) if random.random() < 0.15 else 0.0,
        bias=float(np.exp(random.uniform(np.log(1.1), np.log(4.0)))),
        snr=float(np.exp(random.uniform(np.log(10), np.log(60 if scanner.field_t < 5 else 90)))),
        oblique_deg=float(random.uniform(0, 20)),
    )


def draw_ct_protocol(random: Random, scanner: CtScanner) -> CtProtocol:
    """Draw a protocol with all its effects: slices, kernel, noise, contrast agent, table, frame."""
    thick = float(random.choice([0.6, 1.0, 1.25, 2.0, 2.5, 3.0, 5.0], p=[0.1, 0.3, 0.2, 0.15, 0.1, 0.1, 0.05]))
    increment = max(0.8, thick * float(random.choice([0.5, 0.8, 1.0], p=[0.25, 0.15, 0.6])))
    kernel = float(random.choice([0.6, 1.0, 1.3, 1.6], p=[0.2, 0.25, 0.35, 0.2]))
    low_dose = float(random.uniform(0.7, 2.0))
    noise = 6.0 * low_dose / np.sqrt(max(thick, 0.8)) * (3.0 if kernel < 0.9 else 1.0)
    if scanner.cone_beam:
        thick, increment, kernel, noise = 1.0, 1.0, 1.0, float(random.uniform(15, 45))
    return CtProtocol(
        pixel_mm=float(random.uniform(0.85, 1.1)),
        thickness_mm=thick,
        increment_mm=increment,
        kernel_mm=kernel,
        noise_hu=float(noise),
        iodine_hu=float(random.uniform(120, 400)) if random.random() < 0.2 else 55.0,
        tilt_error_deg=float(random.normal(0, 0.3)) if random.random() < 0.05 else 0.0,
        table=bool(random.random() < 0.7),
        frame=bool(random.random() < 0.08),
        clip_hu=(-1024.0, 3071.0) if random.random() < 0.9 else (-1000.0, 2000.0),
    )


def draw_patient(random: Random) -> Patient:
    """Draw a patient with everything that patients bring: place in the scanner, posture, teeth; no surgery."""
    far = random.normal(0, 1, 3) * [4.0, 10.0, 25.0]
    patient = Patient(
        isocentre_mm=(float(far[0]), float(far[1]), float(far[2])),
        susceptibility=float(random.uniform(0.6, 2.0)),
        motion_mm=float(random.uniform(0.5, 3)) if random.random() < 0.15 else 0.0,
        dental_mm=float(random.uniform(2, 4)) if random.random() < 0.4 else 0.0,
        dental_ppm=float(random.choice([10.0, 200.0, 400.0], p=[0.85, 0.1, 0.05])),
    )
    return with_posture(patient, random)


def with_posture(patient: Patient, random: Random) -> Patient:
    """Draw how jaw, neck, skin and eyes are other in the CT."""
    return replace(
        patient,
        jaw_deg=float(random.choice([0.0, random.uniform(0, 12)], p=[0.3, 0.7])),
        neck_deg=float(random.uniform(-18, 18)),
        skin_mm=float(random.uniform(0, 6)),
        swelling_mm=float(random.uniform(2, 10)) if random.random() < 0.2 else 0.0,
        eyes_mm=float(random.uniform(-4, 4)),
    )


def draw_plain_mri(random: Random, contrast: str | None = None) -> MriProtocol:
    """Draw a scan of about 1 mm without an effect of note."""
    plane = random.choice(["axial", "sagittal"])
    return MriProtocol(
        contrast=contrast or str(random.choice(CONTRASTS)),
        plane=plane,
        pixel_mm=float(random.choice([0.9, 1.0, 1.1])),
        thickness_mm=float(random.choice([1.0, 1.2])),
        readout=1 if plane == "sagittal" else int(random.integers(2)),
        polarity=int(random.choice([-1, 1])),
        bias=float(random.uniform(1.05, 1.4)),
        snr=float(random.uniform(20, 60)),
        oblique_deg=float(random.uniform(0, 8)),
    )


def draw_plain(seed: int, contrast: str | None = None) -> Strengths:
    """Draw a case without an effect: scans of about 1 mm that differ in contrast, voxels and noise."""
    random = np.random.default_rng((seed, 23))
    ct = CtProtocol(
        pixel_mm=float(random.uniform(0.85, 1.1)),
        thickness_mm=(thick := float(random.choice([1.0, 1.25]))),
        increment_mm=thick,
        noise_hu=float(random.uniform(6, 15)),
    )
    hardening = CtScanner(hardening=float(random.uniform(0.3, 1.2)))
    return Strengths("plain", (), ct_scanner=hardening, mri_protocol=draw_plain_mri(random, contrast), ct_protocol=ct)


def _signed(random: Random, least: float, usual: float, most: float) -> float:
    """Draw a size, mostly between the first two, of either sign."""
    size = min(most, float(np.exp(random.uniform(np.log(least), np.log(usual * 1.3)))))
    return float(random.choice([-1.0, 1.0])) * size
