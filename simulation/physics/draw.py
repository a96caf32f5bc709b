"""Strengths as they occur: a site's scanners, then a protocol, then a patient; and kinds of cases set by hand.

Ranges are those of PHYSICS.md, wider where that guesses. `draw_site` depends on the site's seed alone, so that a
calibration can leave out whole scanners.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

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
    return _with_posture(patient, random)


def draw_clinic(site: Site, seed: int) -> Strengths:
    """Draw a case with all effects as they occur together, surgery in one case of three."""
    random = np.random.default_rng((seed, 29))
    made = Strengths(
        "clinic",
        ("all",),
        site.mri,
        site.ct,
        draw_mri_protocol(random, site.mri),
        draw_ct_protocol(random, site.ct),
        draw_patient(random),
    )
    if random.random() < 0.33:
        made = EFFECTS[str(random.choice(SURGERY))](made, site, random)
    return replace(made, kind="clinic", effects=("all",))


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
        noise_hu=float(random.uniform(4, 12)),
    )
    hardening = CtScanner(hardening=float(random.uniform(0.3, 1.2)))
    return Strengths("plain", (), ct_scanner=hardening, mri_protocol=draw_plain_mri(random, contrast), ct_protocol=ct)


# --- effects, each on top of what there is ------------------------------------------------------------------------

Effect = Callable[[Strengths, Site, Random], Strengths]


def _mri(strengths: Strengths, **changes: Any) -> Strengths:
    return replace(strengths, mri_protocol=replace(strengths.mri_protocol, **changes))


def _ct(strengths: Strengths, **changes: Any) -> Strengths:
    return replace(strengths, ct_protocol=replace(strengths.ct_protocol, **changes))


def _patient(strengths: Strengths, **changes: Any) -> Strengths:
    return replace(strengths, patient=replace(strengths.patient, **changes))


def _distortion(s: Strengths, site: Site, random: Random) -> Strengths:
    scanner = replace(site.mri, scale=s.mri_scanner.scale)
    far = random.normal(0, 1, 3) * [4.0, 12.0, 30.0]
    return _patient(replace(s, mri_scanner=scanner), isocentre_mm=tuple(float(v) for v in far))


def _field(s: Strengths, site: Site, random: Random) -> Strengths:
    band = float(np.exp(random.uniform(np.log(110), np.log(450))))
    s = replace(s, mri_scanner=replace(s.mri_scanner, field_t=site.mri.field_t))
    return _patient(_mri(s, bandwidth_hz=band, fat_shift_mm=None), susceptibility=float(random.uniform(0.7, 2.2)))


def _fat(s: Strengths, site: Site, random: Random) -> Strengths:
    return _mri(s, fat_shift_mm=float(random.uniform(0.8, 3.4)))


def _scale(s: Strengths, site: Site, random: Random) -> Strengths:
    scale = np.array(site.mri.scale)
    if random.random() < 0.5:
        scale[random.integers(3)] += random.choice([-1, 1]) * random.uniform(0.01, 0.03)
    return replace(s, mri_scanner=replace(s.mri_scanner, scale=(float(scale[0]), float(scale[1]), float(scale[2]))))


def _bias(s: Strengths, site: Site, random: Random) -> Strengths:
    return _mri(s, bias=float(np.exp(random.uniform(np.log(1.8), np.log(6.5)))))


def _thick_mri(s: Strengths, site: Site, random: Random) -> Strengths:
    thick, gap = float(random.choice([3.0, 4.0, 5.0, 6.0])), float(random.choice([0.0, 0.3, 1.0, 1.5]))
    contrast = str(random.choice(["T1", "T1C", "T2", "FLAIR"]))
    plane = random.choice(["axial", "axial", "sagittal", "coronal"])
    return _mri(
        s, plane=plane, volumetric=False, contrast=contrast, pixel_mm=0.9, thickness_mm=thick, gap_mm=gap,
        readout=int(random.integers(2)), oblique_deg=float(random.uniform(0, 25)),
    )  # fmt: skip


def _motion(s: Strengths, site: Site, random: Random) -> Strengths:
    return _patient(s, motion_mm=float(random.uniform(0.5, 3)))


def _suppressed(s: Strengths, site: Site, random: Random) -> Strengths:
    return _mri(s, fat_suppressed=float(random.uniform(0.7, 1.0)))


def _cut(s: Strengths, site: Site, random: Random) -> Strengths:
    if random.random() < 0.5:
        return _ct(s, height_mm=float(random.uniform(90, 140)), up_mm=float(random.uniform(-30, 25)))
    return _mri(s, field_of_view_mm=(float(random.uniform(140, 165)), 200.0, 140.0), up_mm=5.0)


def _posture(s: Strengths, site: Site, random: Random) -> Strengths:
    return replace(s, patient=_with_posture(s.patient, random))


def _with_posture(patient: Patient, random: Random) -> Patient:
    return replace(
        patient,
        jaw_deg=float(random.choice([0.0, random.uniform(0, 12)], p=[0.3, 0.7])),
        neck_deg=float(random.uniform(-18, 18)),
        skin_mm=float(random.uniform(0, 6)),
        swelling_mm=float(random.uniform(2, 10)) if random.random() < 0.2 else 0.0,
        eyes_mm=float(random.uniform(-4, 4)),
    )


def _thick_ct(s: Strengths, site: Site, random: Random) -> Strengths:
    thick = float(random.choice([2.0, 2.5, 3.0, 4.0, 5.0]))
    noise = float(random.uniform(3, 9))
    return _ct(s, thickness_mm=thick, increment_mm=thick * float(random.choice([0.5, 1.0, 1.0])), noise_hu=noise)


def _sharp_ct(s: Strengths, site: Site, random: Random) -> Strengths:
    return _ct(s, kernel_mm=0.6, noise_hu=float(random.uniform(18, 50)))


def _cone(s: Strengths, site: Site, random: Random) -> Strengths:
    cone = CtScanner(
        "cone", cone_beam=True, hardening=0.6,
        hu_scale=float(random.uniform(0.8, 1.2)), hu_offset=float(random.uniform(-120, 80)),
    )  # fmt: skip
    return _ct(replace(s, ct_scanner=cone), kernel_mm=1.0, noise_hu=float(random.uniform(15, 50)))


def _metal(s: Strengths, site: Site, random: Random) -> Strengths:
    size, ppm = float(random.uniform(2, 4)), float(random.choice([20.0, 200.0, 400.0]))
    return _patient(s, dental_mm=size, dental_ppm=ppm, susceptibility=1.0)


def _objects(s: Strengths, site: Site, random: Random) -> Strengths:
    return _ct(s, table=True, frame=bool(random.random() < 0.3), iodine_hu=float(random.choice([55.0, 250.0])))


def _air_only(s: Strengths, site: Site, random: Random) -> Strengths:
    return _patient(s, air_ml=float(random.uniform(2, 20)), opening="burr hole")


def _electrodes(s: Strengths, site: Site, random: Random) -> Strengths:
    return _patient(s, electrodes=2, opening="burr hole", air_ml=float(random.uniform(0, 5)))


def _shifted(s: Strengths, site: Site, random: Random) -> Strengths:
    return _patient(
        s, shift_mm=float(random.uniform(2, 12)), shift_reach_mm=float(random.uniform(38, 75)),
        air_ml=float(random.uniform(3, 35)), opening=str(random.choice(["burr hole", "craniotomy"])),
        opening_mm=float(random.uniform(18, 30)),
    )  # fmt: skip


def _resected(s: Strengths, site: Site, random: Random) -> Strengths:
    moved = float(random.uniform(1, 8)) if random.random() < 0.7 else 0.0
    return _patient(
        s, tumour_mm=float(random.uniform(8, 22)), resected=True, opening="craniotomy", shift_mm=moved,
        opening_mm=float(random.uniform(20, 32)), air_ml=float(random.uniform(0, 15)),
    )  # fmt: skip


def _craniectomy(s: Strengths, site: Site, random: Random) -> Strengths:
    return _patient(
        s, opening="craniectomy", opening_mm=float(random.uniform(30, 55)),
        shift_mm=float(random.choice([-1, 1]) * random.uniform(0, 14)), shift_reach_mm=float(random.uniform(30, 50)),
    )  # fmt: skip


def _tumour(s: Strengths, site: Site, random: Random) -> Strengths:
    return _patient(s, tumour_mm=float(random.uniform(8, 25)))


def _ventricles(s: Strengths, site: Site, random: Random) -> Strengths:
    return _patient(s, ventricles_mm=float(random.uniform(-2.5, 3.5)))


# Each with how often it is drawn, against the others.
EFFECTS: dict[str, Effect] = {
    "distortion": _distortion, "field": _field, "fat shift": _fat, "scale": _scale, "bias": _bias,
    "thick MRI": _thick_mri, "motion": _motion, "fat suppressed": _suppressed, "cut": _cut, "posture": _posture,
    "thick CT": _thick_ct, "sharp CT": _sharp_ct, "cone beam": _cone, "dental metal": _metal, "table": _objects,
    "air": _air_only, "electrodes": _electrodes, "brain shift": _shifted, "resection": _resected,
    "craniectomy": _craniectomy, "tumour": _tumour, "ventricles": _ventricles,
}  # fmt: skip
OFTEN = {"distortion": 3.0, "field": 2.0, "fat shift": 2.0, "thick MRI": 2.0, "thick CT": 2.0, "posture": 2.0,
         "bias": 2.0, "brain shift": 3.0, "craniectomy": 0.7, "cone beam": 0.7, "dental metal": 0.7}  # fmt: skip
# Effects that change the skull or the brain: one of them in a case at the most.
SURGERY = ("air", "electrodes", "brain shift", "resection", "craniectomy", "tumour", "ventricles")


def draw_mix(site: Site, seed: int) -> Strengths:
    """Draw a case of the physics mix: one third plain, two thirds with one to three effects."""
    random = np.random.default_rng((seed, 31))
    made = draw_plain(seed)
    if random.random() < 1 / 3:
        return made
    left = dict.fromkeys(EFFECTS, 1.0) | OFTEN
    chosen: list[str] = []
    for _ in range(int(random.integers(1, 4))):
        names, often = list(left), np.array(list(left.values()))
        name = names[int(random.choice(len(names), p=often / often.sum()))]
        chosen.append(name)
        for gone in SURGERY if name in SURGERY else (name,):
            left.pop(gone, None)
    # In the order of the table: scanner, protocol, patient.
    chosen.sort(key=list(EFFECTS).index)
    for name in chosen:
        made = EFFECTS[name](made, site, random)
    return replace(made, kind="mix", effects=tuple(chosen))


# --- kinds with strengths set by hand -----------------------------------------------------------------------------


def _by_hand(change: Callable[[Strengths, Random], Strengths]) -> Callable[[int], Strengths]:
    return lambda seed: change(draw_plain(seed, "T1"), np.random.default_rng((seed, 37)))


def distorted(s: Strengths, share: float) -> Strengths:
    """Return a case with a share of the distortion of an uncorrected scanner and its field at 3 T and 200 Hz."""
    scanner = MriScanner("by hand", 3.0, 0.01 * share, 0.01 * share, 0.3, correction="none")
    s = _mri(replace(s, mri_scanner=scanner), bandwidth_hz=200.0 / max(share, 1e-3), fat_shift_mm=0.0)
    return _patient(s, isocentre_mm=(0.0, 5.0, 50.0), susceptibility=1.0)


def _too_long(s: Strengths, random: Random) -> Strengths:
    scale = [0.0, 0.0, 0.0]
    scale[int(random.integers(3))] = float(random.uniform(0.02, 0.03))
    return replace(s, mri_scanner=MriScanner("by hand", scale=(scale[0], scale[1], scale[2])))


KINDS: dict[str, Callable[[int], Strengths]] = {
    "plain": draw_plain,
    "distortion half": _by_hand(lambda s, _: distorted(s, 0.5)),
    "distortion full": _by_hand(lambda s, _: distorted(s, 1.0)),
    "chemical shift 1.8 mm": _by_hand(lambda s, _: _mri(s, fat_shift_mm=1.8)),
    "jaw and skin": _by_hand(
        lambda s, r: _patient(s, jaw_deg=6.0, neck_deg=float(r.uniform(6, 15)), skin_mm=4.0, eyes_mm=2.0)
    ),
    "coil bias x6": _by_hand(lambda s, _: _mri(s, bias=6.0)),
    "T2 5+1 mm": lambda seed: _mri(
        draw_plain(seed, "T2"), plane="axial", volumetric=False, pixel_mm=0.9, thickness_mm=5.0, gap_mm=1.0, readout=0
    ),
    "CT 3 mm": _by_hand(lambda s, _: _ct(s, thickness_mm=3.0, increment_mm=3.0)),
    "voxel size 2-3 % too long": _by_hand(_too_long),
    "brain shift to 6 mm": _by_hand(lambda s, _: _patient(s, shift_mm=6.0, air_ml=8.0, opening="burr hole")),
    "brain shift 5-10 mm with air": _by_hand(
        lambda s, r: _patient(
            s, shift_mm=float(r.uniform(5, 10)), air_ml=20.0, opening="craniotomy", shift_reach_mm=60.0
        )
    ),
    "craniectomy": _by_hand(lambda s, r: _craniectomy(s, draw_site(0), r)),
    "resection": _by_hand(lambda s, r: _resected(s, draw_site(0), r)),
    "air without shift": _by_hand(lambda s, r: _air_only(s, draw_site(0), r)),
    "cone beam": _by_hand(lambda s, r: _cone(s, draw_site(0), r)),
}


def draw_kind(kind: str, seed: int, site: Site | None = None) -> Strengths:
    """Draw a case of a kind: one of `KINDS`, ``"mix"`` or ``"clinic"``, which are of a site.

    Raises
    ------
    ValueError
        There is no such kind.
    """
    if kind in ("mix", "clinic"):
        site = site or draw_site(seed)
        return draw_mix(site, seed) if kind == "mix" else draw_clinic(site, seed)
    if kind not in KINDS:
        raise ValueError(f"there is no kind of case {kind!r}; choose from mix, clinic, {', '.join(KINDS)}")
    return replace(KINDS[kind](seed), kind=kind)


def _signed(random: Random, least: float, usual: float, most: float) -> float:
    """Draw a size, mostly between the first two, of either sign."""
    size = min(most, float(np.exp(random.uniform(np.log(least), np.log(usual * 1.3)))))
    return float(random.choice([-1.0, 1.0])) * size
