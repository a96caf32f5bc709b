"""The effects of the physics mix: each changes some strengths of a case, as it occurs, and leaves the others."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np

from simulation.physics.draw import Random, Site, with_posture
from simulation.physics.strengths import CtScanner, Strengths

Effect = Callable[[Strengths, Site, Random], Strengths]


def change_mri(strengths: Strengths, **changes: Any) -> Strengths:
    """Return a case with changes to the MRI's protocol."""
    return replace(strengths, mri_protocol=replace(strengths.mri_protocol, **changes))


def change_ct(strengths: Strengths, **changes: Any) -> Strengths:
    """Return a case with changes to the CT's protocol."""
    return replace(strengths, ct_protocol=replace(strengths.ct_protocol, **changes))


def change_patient(strengths: Strengths, **changes: Any) -> Strengths:
    """Return a case with changes to the patient."""
    return replace(strengths, patient=replace(strengths.patient, **changes))


def _distortion(s: Strengths, site: Site, random: Random) -> Strengths:
    scanner = replace(site.mri, scale=s.mri_scanner.scale)
    far = random.normal(0, 1, 3) * [4.0, 12.0, 30.0]
    return change_patient(replace(s, mri_scanner=scanner), isocentre_mm=tuple(float(v) for v in far))


def _field(s: Strengths, site: Site, random: Random) -> Strengths:
    band = float(np.exp(random.uniform(np.log(110), np.log(450))))
    s = replace(s, mri_scanner=replace(s.mri_scanner, field_t=site.mri.field_t))
    return change_patient(
        change_mri(s, bandwidth_hz=band, fat_shift_mm=None), susceptibility=float(random.uniform(0.7, 2.2))
    )


def _fat(s: Strengths, site: Site, random: Random) -> Strengths:
    return change_mri(s, fat_shift_mm=float(random.uniform(0.8, 3.4)))


def _scale(s: Strengths, site: Site, random: Random) -> Strengths:
    scale = np.array(site.mri.scale)
    if random.random() < 0.5:
        scale[random.integers(3)] += random.choice([-1, 1]) * random.uniform(0.01, 0.03)
    return replace(s, mri_scanner=replace(s.mri_scanner, scale=(float(scale[0]), float(scale[1]), float(scale[2]))))


def _bias(s: Strengths, site: Site, random: Random) -> Strengths:
    return change_mri(s, bias=float(np.exp(random.uniform(np.log(1.8), np.log(6.5)))))


def _thick_mri(s: Strengths, site: Site, random: Random) -> Strengths:
    thick, gap = float(random.choice([3.0, 4.0, 5.0, 6.0])), float(random.choice([0.0, 0.3, 1.0, 1.5]))
    contrast = str(random.choice(["T1", "T1C", "T2", "FLAIR"]))
    plane = random.choice(["axial", "axial", "sagittal", "coronal"])
    return change_mri(
        s, plane=plane, volumetric=False, contrast=contrast, pixel_mm=0.9, thickness_mm=thick, gap_mm=gap,
        readout=int(random.integers(2)), oblique_deg=float(random.uniform(0, 25)),
    )  # fmt: skip


def _motion(s: Strengths, site: Site, random: Random) -> Strengths:
    return change_patient(s, motion_mm=float(random.uniform(0.5, 3)))


def _suppressed(s: Strengths, site: Site, random: Random) -> Strengths:
    return change_mri(s, fat_suppressed=float(random.uniform(0.7, 1.0)))


def _cut(s: Strengths, site: Site, random: Random) -> Strengths:
    if random.random() < 0.5:
        return change_ct(s, height_mm=float(random.uniform(90, 140)), up_mm=float(random.uniform(-30, 25)))
    return change_mri(s, field_of_view_mm=(float(random.uniform(140, 165)), 200.0, 140.0), up_mm=5.0)


def _posture(s: Strengths, site: Site, random: Random) -> Strengths:
    return replace(s, patient=with_posture(s.patient, random))


def _thick_ct(s: Strengths, site: Site, random: Random) -> Strengths:
    thick = float(random.choice([2.0, 2.5, 3.0, 4.0, 5.0]))
    noise = float(random.uniform(4, 10))
    return change_ct(s, thickness_mm=thick, increment_mm=thick * float(random.choice([0.5, 1.0, 1.0])), noise_hu=noise)


def _sharp_ct(s: Strengths, site: Site, random: Random) -> Strengths:
    return change_ct(s, kernel_mm=0.6, noise_hu=float(random.uniform(18, 50)))


def cone(s: Strengths, site: Site, random: Random) -> Strengths:
    """Make the CT a cone beam's."""
    cone = CtScanner(
        "cone", cone_beam=True, hardening=0.6,
        hu_scale=float(random.uniform(0.8, 1.2)), hu_offset=float(random.uniform(-120, 80)),
    )  # fmt: skip
    return change_ct(replace(s, ct_scanner=cone), kernel_mm=1.0, noise_hu=float(random.uniform(15, 50)))


def _metal(s: Strengths, site: Site, random: Random) -> Strengths:
    size, ppm = float(random.uniform(2, 4)), float(random.choice([20.0, 200.0, 400.0]))
    return change_patient(s, dental_mm=size, dental_ppm=ppm, susceptibility=1.0)


def _objects(s: Strengths, site: Site, random: Random) -> Strengths:
    return change_ct(s, table=True, frame=bool(random.random() < 0.3), iodine_hu=float(random.choice([55.0, 250.0])))


def air_only(s: Strengths, site: Site, random: Random) -> Strengths:
    """Let air in through a burr hole; the brain stays. Far more than after electrodes: a drain leaves up to 100 mL."""
    return change_patient(s, air_ml=float(random.uniform(2, 45)), opening="burr hole")


def _electrodes(s: Strengths, site: Site, random: Random) -> Strengths:
    return change_patient(s, electrodes=2, opening="burr hole", air_ml=float(random.uniform(0, 5)))


def _shifted(s: Strengths, site: Site, random: Random) -> Strengths:
    return change_patient(
        s, shift_mm=float(random.uniform(2, 12)), shift_reach_mm=float(random.uniform(38, 75)),
        air_ml=float(random.uniform(3, 60)), opening=str(random.choice(["burr hole", "craniotomy"])),
        opening_mm=float(random.uniform(18, 30)),
    )  # fmt: skip


def resected(s: Strengths, site: Site, random: Random) -> Strengths:
    """Take a tumour out through a craniotomy."""
    moved = float(random.uniform(1, 8)) if random.random() < 0.7 else 0.0
    return change_patient(
        s, tumour_mm=float(random.uniform(8, 22)), resected=True, opening="craniotomy", shift_mm=moved,
        opening_mm=float(random.uniform(20, 32)), air_ml=float(random.uniform(0, 15)),
    )  # fmt: skip


def craniectomy(s: Strengths, site: Site, random: Random) -> Strengths:
    """Take bone away; the brain bulges out or sinks in, or neither."""
    return change_patient(
        s, opening="craniectomy", opening_mm=float(random.uniform(30, 55)),
        shift_mm=float(random.choice([-1, 1]) * random.uniform(0, 14)), shift_reach_mm=float(random.uniform(30, 50)),
    )  # fmt: skip


def _tumour(s: Strengths, site: Site, random: Random) -> Strengths:
    return change_patient(s, tumour_mm=float(random.uniform(8, 25)))


def _ventricles(s: Strengths, site: Site, random: Random) -> Strengths:
    return change_patient(s, ventricles_mm=float(random.uniform(-2.5, 3.5)))


# Each with how often it is drawn, against the others.
EFFECTS: dict[str, Effect] = {
    "distortion": _distortion, "field": _field, "fat shift": _fat, "scale": _scale, "bias": _bias,
    "thick MRI": _thick_mri, "motion": _motion, "fat suppressed": _suppressed, "cut": _cut, "posture": _posture,
    "thick CT": _thick_ct, "sharp CT": _sharp_ct, "cone beam": cone, "dental metal": _metal, "table": _objects,
    "air": air_only, "electrodes": _electrodes, "brain shift": _shifted, "resection": resected,
    "craniectomy": craniectomy, "tumour": _tumour, "ventricles": _ventricles,
}  # fmt: skip
OFTEN = {"distortion": 3.0, "field": 2.0, "fat shift": 2.0, "thick MRI": 2.0, "thick CT": 2.0, "posture": 2.0,
         "bias": 2.0, "brain shift": 3.0, "craniectomy": 0.7, "cone beam": 0.7, "dental metal": 0.7}  # fmt: skip
# Effects that change the skull or the brain: one of them in a case at the most.
SURGERY = ("air", "electrodes", "brain shift", "resection", "craniectomy", "tumour", "ventricles")
