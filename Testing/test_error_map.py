"""The expected error at a point: what is stored, looked up, and stated from the evidence."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace
from typing import cast

import numpy as np
import pytest

from BrainFusionLib import cli
from BrainFusionLib.case import Result
from BrainFusionLib.cli.error import say_errors
from BrainFusionLib.error_map import ErrorMap
from BrainFusionLib.errors import GeometryError
from BrainFusionLib.evidence import BrainShift, Evidence, LocalErrors
from BrainFusionLib.geometry import Grid, rotation_matrix
from BrainFusionLib.io.point_files import NamedPoints
from BrainFusionLib.quantities import position
from BrainFusionLib.transform import RigidTransform
from BrainFusionLib.verdict.judge import Verdict
from BrainFusionLib.verdict.local_error import LEAST_SHARE, error_map

GRID = Grid((5, 6, 4), (8.0, 8.0, 7.0), (10.0, -20.0, 30.0), rotation_matrix((1, 2, 3), 20.0))
MRI = Grid((80, 90, 70), (2.0, 2.0, 2.0), (-80.0, -90.0, -70.0), rotation_matrix((0, 0, 1), 10.0))
BLOCKS = np.stack(np.meshgrid(*[np.arange(-48.0, 49.0, 12.0)] * 3), axis=-1).reshape(-1, 3)
AMBER = Verdict("amber", (), 0.8, 1.2)


def voxel(ijk, grid=GRID):
    return grid.lps_from_ijk[:3, :3] @ np.asarray(ijk, float) + grid.lps_from_ijk[:3, 3]


def evidence(shifts_mm=None, *, judged=True):
    shifts = np.zeros_like(BLOCKS) if shifts_mm is None else shifts_mm
    return Evidence(
        local=LocalErrors(21.0, BLOCKS[::3], np.zeros_like(BLOCKS[::3])),
        brain_shift=BrainShift(judged, "", BLOCKS, shifts, information_nats=0.1),
    )


def made(found, verdict=AMBER, **options):
    return error_map(verdict, found, MRI, RigidTransform.identity(), None, None, **options)


def test_values_at_cells_are_those_stored_to_a_hundredth_of_a_millimetre():
    values = np.random.default_rng(0).uniform(0.1, 9, GRID.shape_kji)
    stored = ErrorMap.of(values, GRID, 1.5)
    k, j, i = np.indices(GRID.shape_kji)
    points = np.stack([i, j, k], -1).reshape(-1, 3) @ GRID.lps_from_ijk[:3, :3].T + GRID.lps_from_ijk[:3, 3]
    assert np.abs(stored.at(points) - values.ravel()).max() <= 0.0051
    assert stored.bound_at(points) == pytest.approx(1.5 * stored.at(points))


def test_values_between_cells_are_interpolated_linearly():
    _, _, i = np.indices(GRID.shape_kji)
    stored = ErrorMap.of(1.0 + i, GRID, 1.5)
    assert stored.at(voxel((1.25, 2.5, 1.75)))[0] == pytest.approx(2.25)


def test_nothing_is_known_outside_of_the_map_or_nearest_to_an_unknown_cell():
    values = np.full(GRID.shape_kji, 1.0)
    values[2, 3, 4] = np.nan
    stored = ErrorMap.of(values, GRID, 1.5)
    assert np.isnan(stored.at([voxel((4, 3, 2)), voxel((3.6, 3, 2)), voxel((0, 0, 9)), (np.nan, 0, 0)])).all()
    # Beside it, it counts for nothing.
    assert stored.at(voxel((3.4, 3, 2)))[0] == pytest.approx(1.0)


def test_damaged_values_are_refused():
    stored = ErrorMap.of(np.ones(GRID.shape_kji), GRID, 1.5)
    for values in ("no base64!", "AAAA", stored.values[:12], ErrorMap.of(np.ones((9, 9, 9)), GRID, 1).values):
        with pytest.raises(GeometryError, match="map of expected errors"):
            replace(stored, values=values).at((0, 0, 0))


def test_a_line_has_its_ends_its_worst_point_and_what_is_not_known_of_it():
    values = np.ones(GRID.shape_kji)
    values[1, 2, 3] = 5.0
    stored = ErrorMap.of(values, GRID, 2.0)
    line = stored.along(voxel((0, 2, 1)), voxel((4, 2, 1)))
    assert line.entry_mm == pytest.approx(1.0)
    assert line.target_mm == pytest.approx(1.0)
    assert line.worst_mm == pytest.approx(5.0, abs=0.2)
    assert np.linalg.norm(np.array(line.worst_lps_mm) - voxel((3, 2, 1))) < 1
    assert line.unknown == 0
    half = stored.along(voxel((0, 2, 1)), voxel((0, 2, 1)) - 8 * (voxel((1, 2, 1)) - voxel((0, 2, 1))))
    assert half.target_mm is None
    assert half.unknown > 0.8
    nowhere = stored.along((500, 0, 0), (600, 0, 0))
    assert (nowhere.worst_mm, nowhere.unknown) == (None, 1.0)


def test_median_over_the_brain_is_the_error_stated():
    shifts = np.zeros_like(BLOCKS)
    shifts[BLOCKS[:, 2] > 20] = (0, 4.0, 0)
    found = made(evidence(shifts))
    values = found.expected_mm[np.isfinite(found.expected_mm)]
    assert np.median(values) == pytest.approx(0.8, abs=0.03)
    assert values.min() >= LEAST_SHARE * 0.8 - 0.01


def test_error_is_larger_where_the_brain_is_displaced():
    shifts = np.zeros_like(BLOCKS)
    shifts[BLOCKS[:, 2] > 20] = (0, 4.0, 0)
    found = made(evidence(shifts))
    assert found.at((0, 0, 40))[0] > 4
    assert found.at((0, 0, -30))[0] < 1


def test_error_grows_away_from_what_could_be_compared_and_is_then_not_known():
    found = made(evidence())
    inner, edge, outer = found.at([(0, 0, 0), (0, 0, 66), (0, 0, -60 - 50)])
    assert edge > 1.2 * inner
    assert np.isnan(outer)


def test_bound_is_wider_at_a_point_than_of_the_median_and_more_so_unjudged():
    judged, hidden = made(evidence()), made(evidence(judged=False))
    assert hidden.bound_ratio > judged.bound_ratio > AMBER.bound_mm / AMBER.expected_error_mm


def test_no_error_is_stated_beside_red_or_without_local_evidence():
    assert made(evidence(), Verdict("red")) is None
    assert made(Evidence(local=LocalErrors(21.0))) is None


def test_shift_measured_in_the_pose_of_the_skull_does_not_count_in_that_of_the_brain():
    shifts = np.full_like(BLOCKS, 3.0)
    found = made(evidence(shifts), aligned_to_brain=True)
    assert found.at((0, 0, 40))[0] < 1.0


def test_colour_layer_is_zero_where_nothing_is_known():
    values = np.full(GRID.shape_kji, 1.5)
    values[0] = np.nan
    volume = ErrorMap.of(values, GRID, 1.5).volume()
    assert volume.grid == GRID
    assert set(np.unique(volume.array_kji).tolist()) == {0.0, 1.5}


def test_points_placed_on_the_ct_get_the_error_at_their_partners_in_the_mri(capsys):
    values = np.ones(GRID.shape_kji)
    values[1, 2, 3] = 5.0
    pose = RigidTransform.from_axis_angle((0, 1, 0), 30.0, (40.0, -5.0, 8.0))
    result = cast(Result, SimpleNamespace(error_map=ErrorMap.of(values, GRID, 2.0), transform=pose))
    in_mri = np.array([voxel((3, 2, 1)), voxel((1, 2, 1))])
    said = {}
    for of, points in (("mri", in_mri), ("ct", pose.apply(in_mri))):
        say_errors(result, NamedPoints(("a", "b"), points), [("a", "b")], of)
        said[of] = capsys.readouterr().out
        assert f"point of the {of.upper()}:" in said[of]
        assert f"a ({position(points[0])})" in said[of]
        assert f"at {position(points[0])}" in said[of], "the worst of the line, in the frame of the points"
    assert "5.0 mm" in said["ct"] or "5 mm" in said["ct"], said


@pytest.mark.parametrize("command", ["fuse", "register"])
def test_it_has_to_be_said_whose_points_are_where_results_are_in_the_frame_of_the_ct(tmp_path, capsys, command):
    words = [command, "ct.nii", "mri.nii", "-o", str(tmp_path / "out.tfm"), "--points", "a.csv", "--reference", "ct"]
    assert cli.main(words) == 2
    assert "add --points-of ct if they were placed on these volumes" in capsys.readouterr().err
