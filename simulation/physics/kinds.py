"""Kinds of cases: the physics mix, a clinic's, and those with strengths set by hand."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np

from simulation.physics.draw import (
    Random,
    Site,
    draw_ct_protocol,
    draw_mri_protocol,
    draw_patient,
    draw_plain,
    draw_site,
)
from simulation.physics.effects import (
    EFFECTS,
    OFTEN,
    SURGERY,
    air_only,
    change_ct,
    change_mri,
    change_patient,
    cone,
    craniectomy,
    resected,
)
from simulation.physics.strengths import Correction, MriScanner, Strengths


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


def _by_hand(change: Callable[[Strengths, Random], Strengths]) -> Callable[[int], Strengths]:
    return lambda seed: change(draw_plain(seed, "T1"), np.random.default_rng((seed, 37)))


def distorted(s: Strengths, share: float) -> Strengths:
    """Return a case with a share of the distortion of an uncorrected scanner and its field at 3 T and 200 Hz."""
    scanner = MriScanner("by hand", 3.0, 0.01 * share, 0.01 * share, 0.3, correction="none")
    s = change_mri(replace(s, mri_scanner=scanner), bandwidth_hz=200.0 / max(share, 1e-3), fat_shift_mm=0.0)
    return change_patient(s, isocentre_mm=(0.0, 5.0, 50.0), susceptibility=1.0)


def _too_long(s: Strengths, random: Random) -> Strengths:
    scale = [0.0, 0.0, 0.0]
    scale[int(random.integers(3))] = float(random.uniform(0.02, 0.03))
    return replace(s, mri_scanner=MriScanner("by hand", scale=(scale[0], scale[1], scale[2])))


def _distorted_alone(seed: int) -> Strengths:
    """Return a case whose distortion alone moves a part of the brain by about 2 mm or more, in any contrast."""
    random = np.random.default_rng((seed, 43))
    k, kz = random.choice([-1, 1], 2) * random.uniform(0.011, 0.019, 2)
    correction: Correction = "2D" if random.random() < 0.3 else "none"
    scanner = MriScanner("by hand", 3.0, float(k), float(kz), float(random.uniform(-0.5, 0.5)), correction)
    s = change_mri(replace(draw_plain(seed), mri_scanner=scanner), bandwidth_hz=float(random.uniform(150, 400)))
    far = (*random.normal(0, (4.0, 10.0)), float(random.choice([-1, 1]) * random.uniform(40, 70)))
    return change_patient(s, isocentre_mm=far, susceptibility=float(random.uniform(0.7, 1.5)))


def _other_ventricles(seed: int) -> Strengths:
    """Return a case whose ventricles became wider or narrower, in any contrast."""
    random = np.random.default_rng((seed, 47))
    return change_patient(draw_plain(seed), ventricles_mm=float(random.choice([-1, 1]) * random.uniform(1.5, 3.5)))


def _bright_marrow(seed: int) -> Strengths:
    """Return a case whose marrow is bright fat between thin tables, displaced as fat is, mostly in T1."""
    random = np.random.default_rng((seed, 53))
    contrast = str(random.choice(["T1", "T1C", "T2", "FLAIR", "PD"], p=[0.4, 0.25, 0.15, 0.1, 0.1]))
    shifted = change_mri(
        draw_plain(seed, contrast), fat_shift_mm=float(random.uniform(0, 1.5)), bias=float(random.uniform(1.1, 2.5))
    )
    return change_patient(
        shifted,
        table_mm=float(random.uniform(1.2, 2.4)),
        marrow=float(random.uniform(0.4, 1)),
        membranes_mm=float(random.uniform(0, 1)),
    )


KINDS: dict[str, Callable[[int], Strengths]] = {
    "plain": draw_plain,
    "distortion half": _by_hand(lambda s, _: distorted(s, 0.5)),
    "distortion full": _by_hand(lambda s, _: distorted(s, 1.0)),
    "chemical shift 1.8 mm": _by_hand(lambda s, _: change_mri(s, fat_shift_mm=1.8)),
    "jaw and skin": _by_hand(
        lambda s, r: change_patient(s, jaw_deg=6.0, neck_deg=float(r.uniform(6, 15)), skin_mm=4.0, eyes_mm=2.0)
    ),
    "coil bias x6": _by_hand(lambda s, _: change_mri(s, bias=6.0)),
    "T2 5+1 mm": lambda seed: change_mri(
        draw_plain(seed, "T2"), plane="axial", volumetric=False, pixel_mm=0.9, thickness_mm=5.0, gap_mm=1.0, readout=0
    ),
    "CT 3 mm": _by_hand(lambda s, _: change_ct(s, thickness_mm=3.0, increment_mm=3.0)),
    "voxel size 2-3 % too long": _by_hand(_too_long),
    "brain shift to 6 mm": _by_hand(lambda s, _: change_patient(s, shift_mm=6.0, air_ml=8.0, opening="burr hole")),
    "brain shift 5-10 mm with air": _by_hand(
        lambda s, r: change_patient(
            s, shift_mm=float(r.uniform(5, 10)), air_ml=20.0, opening="craniotomy", shift_reach_mm=60.0
        )
    ),
    "craniectomy": _by_hand(lambda s, r: craniectomy(s, draw_site(0), r)),
    "resection": _by_hand(lambda s, r: resected(s, draw_site(0), r)),
    "air without shift": _by_hand(lambda s, r: air_only(s, draw_site(0), r)),
    "cone beam": _by_hand(lambda s, r: cone(s, draw_site(0), r)),
    "distortion alone": _distorted_alone,
    "ventricles changed": _other_ventricles,
    "bright marrow": _bright_marrow,
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
