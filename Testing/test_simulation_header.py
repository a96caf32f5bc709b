"""The headers of simulated pairs say what the scanner did, and leave out what scanners leave out."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from BrainFusionLib.acquisition import MriAcquisition
from BrainFusionLib.geometry import Grid
from simulation.physics.draw import draw_plain, draw_site
from simulation.physics.header import ct_header, mri_header
from simulation.physics.kinds import draw_mix
from simulation.physics.strengths import CtProtocol, CtScanner, MriProtocol, MriScanner, Strengths

GRID = Grid((10, 10, 10), (1.0, 1.0, 3.0), (10.0, 20.0, 30.0))
SEEDS = range(300)


def headers(strengths: Strengths | None = None) -> list[MriAcquisition]:
    found = [mri_header(strengths or Strengths(), GRID, seed) for seed in SEEDS]
    return [one for one in found if one is not None]


def test_a_seed_gives_the_same_header() -> None:
    assert [mri_header(Strengths(), GRID, seed) for seed in SEEDS] == [
        mri_header(Strengths(), GRID, seed) for seed in SEEDS
    ]


def test_the_distortion_correction_is_unknown_in_a_third_to_half_of_all_pairs() -> None:
    strengths = Strengths(mri_scanner=MriScanner(gradient_xy=0.01, correction="2D"))
    said = [one.distortion_correction for one in headers(strengths)]
    assert set(said) == {None, "2D"}
    assert 0.33 < 1 - said.count("2D") / len(SEEDS) < 0.53


def test_a_scanner_without_distortion_may_say_any_correction() -> None:
    assert {one.distortion_correction for one in headers()} == {None, "none", "2D", "3D"}


def test_the_shift_of_fat_in_the_header_is_that_of_the_image() -> None:
    for protocol, wanted in (
        (MriProtocol(bandwidth_hz=200.0, fat_shift_mm=None), 3.45 * 42.577 * 3.0 / 200.0),
        (MriProtocol(fat_shift_mm=1.8), 1.8),
    ):
        strengths = Strengths(mri_scanner=MriScanner(field_t=3.0), mri_protocol=protocol)
        known = [one.fat_shift_mm for one in headers(strengths) if one.fat_shift_mm is not None]
        assert len(known) > 150
        np.testing.assert_allclose(known, wanted, rtol=1e-6)


def test_only_siemens_and_ge_tell_of_the_isocentre() -> None:
    away = float(np.linalg.norm(GRID.centre_lps_mm))
    said = [one for one in headers() if one.isocentre_mm is not None]
    assert {one.vendor for one in said} <= {"Siemens", "GE", None}
    assert np.mean([one.isocentre_mm == pytest.approx(away) for one in said]) > 0.85


def test_a_cone_beam_is_named_by_most_headers_and_never_made_up() -> None:
    cones = [ct_header(CtScanner(cone_beam=True), CtProtocol(), GRID, seed) for seed in SEEDS]
    assert 0.5 < np.mean([one is not None and one.cone_beam is True for one in cones]) < 0.85
    others = [ct_header(CtScanner(), CtProtocol(), GRID, seed) for seed in SEEDS]
    assert all(one is None or one.cone_beam is None for one in others)


def test_headers_of_drawn_cases_can_be_made() -> None:
    for seed in range(20):
        for strengths in (draw_plain(seed), draw_mix(draw_site(seed), seed)):
            mri_header(strengths, GRID, seed)
            ct_header(strengths.ct_scanner, replace(strengths.ct_protocol, kernel_mm=2.0), GRID, seed)
