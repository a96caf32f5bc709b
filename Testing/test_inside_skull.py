"""The inside of the skull, the air in it and the holes of the vault, against the phantom's truth."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from benchmarks.realism.brain_masks import dice
from BrainFusionLib.geometry import Grid, apply_affine, rotation_matrix
from BrainFusionLib.intensity.inside import inside_skull, smoothed
from BrainFusionLib.intensity.openings import air_ml, holes_cm2, upright
from BrainFusionLib.phantom import BRAIN_TISSUES, Tissue, head_grid, make_phantom
from BrainFusionLib.transform import RigidTransform
from BrainFusionLib.volume import Volume
from simulation.objects import add_table

GRID = head_grid(2.0)
TOP_LEFT = np.array([0.6, 0.0, 0.8])


@pytest.fixture(scope="module")
def head():
    phantom = make_phantom(3, lesions=False, electrode=False)
    return phantom.ct(GRID), phantom.labels(GRID).array_kji


def near(point, radius_mm):
    k, j, i = np.indices(GRID.shape_kji)
    points = apply_affine(GRID.lps_from_ijk, np.stack([i, j, k], axis=-1))
    return np.linalg.norm(points - point, axis=-1) < radius_mm


def on_skull(labels, towards=TOP_LEFT):
    """Return the point where the inner table lies in a direction from the origin."""
    way = np.arange(30, 90, 0.5)[:, None] * towards
    ijk = np.rint(apply_affine(GRID.ijk_from_lps, way)).astype(int)
    bone = np.isin(labels[tuple(ijk.T[::-1])], (Tissue.BONE, Tissue.INNER_TABLE, Tissue.OUTER_TABLE))
    return way[bone.argmax()]


def opened(head, radius_mm, towards=TOP_LEFT):
    ct, labels = head
    hole = near(on_skull(labels, towards), radius_mm) & (ct.array_kji > 200)
    return ct.with_array(np.where(hole, np.float32(40), ct.array_kji))


def truth(labels):
    return np.isin(labels, [*BRAIN_TISSUES, Tissue.CSF, Tissue.DURA])


def noisy(ct):
    noise = np.random.default_rng(0).normal(0, 50, ct.array_kji.shape)
    return ct.with_array((ct.array_kji + noise).astype(np.float32))


def cone_beam(ct):
    """Return a CT with values off by 100 HU, cupping and a cut vertex."""
    j = np.linspace(-1, 1, ct.array_kji.shape[1])[:, None] ** 2
    i = np.linspace(-1, 1, ct.array_kji.shape[2]) ** 2
    values = ct.array_kji + np.float32(100) * (ct.array_kji > -500) - np.float32(60) * np.clip(1 - i - j, 0, 1)
    values[-18:] = -1000
    return ct.with_array(values.astype(np.float32))


@pytest.mark.parametrize("changed", [lambda ct: ct, noisy, cone_beam], ids=["clean", "noise of 50 HU", "cone beam"])
def test_inside_of_the_skull_is_found(head, changed):
    ct, labels = head
    wanted = truth(labels)
    ct = changed(ct)
    found = inside_skull(ct)
    assert found is not None
    mask = found.depth_on(GRID) > 0
    seen = ct.array_kji > -1000
    assert dice(mask & seen, wanted & seen) > 0.93


def test_inside_is_that_of_the_head_and_not_of_a_phantom_beside_it(head):
    ct, _ = head
    wide = np.pad(ct.array_kji, [(0, 0), (0, 0), (0, 110)], constant_values=-1000.0)
    k, j, i = np.indices(wide.shape)
    away_mm = 2.0 * np.sqrt((k - 45.0) ** 2 + (j - wide.shape[1] / 2) ** 2 + (i - wide.shape[2] + 50.0) ** 2)
    wide[away_mm < 90] = 5.0
    wide[(away_mm < 90) & (away_mm > 84)] = 1000.0
    beside = Volume(wide, Grid(wide.shape[::-1], GRID.spacing_ijk_mm, GRID.origin_lps_mm), "CT", "CT")
    np.testing.assert_allclose(inside_skull(beside).centre_lps_mm, inside_skull(ct).centre_lps_mm, atol=1.0)


def test_inside_does_not_leak_through_a_craniectomy(head):
    closed, open_ = inside_skull(head[0]), inside_skull(opened(head, 45.0))
    assert closed is not None
    assert open_ is not None
    assert open_.volume_ml == pytest.approx(closed.volume_ml, rel=0.03)
    outside = open_.mask_kji & ~closed.mask_kji & (closed.depth_kji < -6)
    assert np.count_nonzero(outside) < 0.01 * np.count_nonzero(closed.mask_kji)


def test_leads_near_the_middle_are_not_taken_for_the_inner_table(head):
    ct, _ = head
    k, j, i = np.indices(GRID.shape_kji)
    x, y, z = np.moveaxis(apply_affine(GRID.lps_from_ijk, np.stack([i, j, k], axis=-1)), -1, 0)
    leads = (np.hypot(np.abs(x) - 11 - np.maximum(z, 0) / 3, y) < 3) & (z > -12) & (ct.array_kji > -500)
    closed, found = inside_skull(ct), inside_skull(ct.with_array(np.where(leads, np.float32(2500), ct.array_kji)))
    assert closed is not None
    assert found is not None
    assert dice(found.mask_kji, closed.mask_kji) > 0.99


def test_thick_slices_are_interpolated(head):
    _, labels = head
    thick = make_phantom(3, lesions=False, electrode=False).ct(GRID.with_spacing((2.0, 2.0, 5.0)))
    found = inside_skull(thick)
    assert found is not None
    assert max(found.grid.spacing_ijk_mm) < 3
    assert dice(found.depth_on(GRID) > 0, truth(labels)) > 0.92


def test_inside_follows_the_pose_of_the_head():
    pose = RigidTransform.about_centre(rotation_matrix([1, 2, 3], 40.0), [5, -8, 12], np.zeros(3))
    phantom = make_phantom(3, lesions=False, electrode=False)
    found = inside_skull(phantom.ct(head_grid(2.0, pose), pose))
    assert found is not None
    assert dice(found.depth_on(GRID, pose) > 0, truth(phantom.labels(GRID).array_kji)) > 0.93


def test_no_inside_without_a_skull():
    assert inside_skull(Volume(np.zeros((40, 40, 40), np.float32), Grid((40, 40, 40)), "CT")) is None


def test_intact_skull_has_neither_air_nor_holes(head):
    found = inside_skull(head[0])
    assert found is not None
    assert air_ml(found) < 0.5
    assert len(holes_cm2(found)) == 0


def test_air_is_measured_also_below_a_burr_hole(head):
    ct, labels = head
    point = on_skull(labels)
    pocket = near(point - 14 * TOP_LEFT, 13) & truth(labels)
    through = near(point + 4 * TOP_LEFT, 7)
    ct = ct.with_array(np.where(pocket, np.float32(-1000), np.where(through, np.float32(30), ct.array_kji)))
    found = inside_skull(ct)
    assert found is not None
    assert air_ml(found) == pytest.approx(np.count_nonzero(pocket) * 8 / 1000, rel=0.2)


def test_layer_of_air_under_bone_is_measured_whole_where_voxels_hold_both(head):
    ct, labels = head
    found = inside_skull(ct)
    assert found is not None
    depth = found.depth_on(GRID)
    layer = near(on_skull(labels), 40) & (depth > 0) & (depth < 6) & truth(labels)
    hu = smoothed(np.where(layer, np.float32(-1000), ct.array_kji))
    assert air_ml(replace(found, hu_kji=hu)) == pytest.approx(np.count_nonzero(layer) * 8 / 1000, rel=0.1)


def test_much_air_counts_also_where_it_meets_the_air_outside_over_a_wide_hole(head):
    ct, labels = head
    direction = np.array([0.2, -0.8, 0.55])
    point = on_skull(labels, direction)
    pocket = near(point - 30 * direction, 28) & truth(labels)
    ways = [near(point + step * direction, 20) for step in (-8, 6, 20)]
    found = inside_skull(head[0])
    assert found is not None
    hu = np.where(pocket | np.any(ways, axis=0), np.float32(-1000), ct.array_kji)
    assert air_ml(replace(found, hu_kji=hu)) == pytest.approx(np.count_nonzero(pocket) * 8 / 1000, rel=0.25)


def test_air_outside_the_skull_is_not_counted(head):
    ct, labels = head
    scalp = near(on_skull(labels) + 12 * TOP_LEFT, 14) & ~truth(labels) & (ct.array_kji < 200)
    found = inside_skull(ct.with_array(np.where(scalp, np.float32(-1000), ct.array_kji)))
    assert found is not None
    assert air_ml(found) < 0.5


@pytest.mark.parametrize(("around_hu", "is_counted"), [(35.0, True), (900.0, False)], ids=["brain", "bone"])
def test_air_at_the_base_counts_only_if_it_is_not_in_bone(head, around_hu, is_counted):
    ct, labels = head
    towards = np.array([0.6, 0.2, -0.77])
    point = on_skull(labels, towards) - 14 * towards
    cell, bone = near(point, 7), near(point, 11) & truth(labels)
    hu = np.where(cell, np.float32(-1000), np.where(bone, np.float32(around_hu), ct.array_kji))
    found = inside_skull(head[0])
    assert found is not None
    assert (air_ml(replace(found, hu_kji=hu)) > 1.0) == is_counted


def test_air_behind_bone_at_the_base_is_a_cell_of_the_mastoid(head):
    ct, labels = head
    towards = np.array([0.6, 0.2, -0.77])
    point = on_skull(labels, towards) - 14 * towards
    wall = near(point - 8 * towards, 7) & truth(labels)  # of less bone around the air than is taken for a cell
    hu = np.where(near(point, 7), np.float32(-1000), np.where(wall, np.float32(900), ct.array_kji))
    found = inside_skull(ct)
    assert found is not None
    assert air_ml(replace(found, hu_kji=hu)) == 0


def test_cell_of_the_mastoid_with_thin_walls_that_goes_on_outside_is_not_counted(head):
    ct, labels = head
    towards = np.array([0.6, 0.2, -0.77])
    point = on_skull(labels, towards) - 12 * towards
    cell = np.any([near(point + step * towards, 7) for step in (0, 7, 14)], axis=0)
    k, j, i = np.indices(GRID.shape_kji)
    points = apply_affine(GRID.lps_from_ijk, np.stack([i, j, k], axis=-1)) - point
    wall = near(point, 11) & truth(labels) & (points @ (0.8, 0, 0.6) > 2)
    hu = np.where(cell, np.float32(-1000), np.where(wall, np.float32(900), ct.array_kji))
    found = inside_skull(ct)
    assert found is not None
    assert air_ml(replace(found, hu_kji=hu)) == 0


@pytest.mark.parametrize("header_up", [(0, 0, 1), (0.2, -0.1, 0.975), (0, 0, -1), (0, -0.8, -0.6)])
def test_top_of_the_head_is_found_where_the_header_is_wrong(head, header_up):
    found = inside_skull(head[0])
    assert found is not None
    (up,) = upright(found, header_up)
    assert up[2] > 0.9
    assert (up @ header_up > 0.99) == (header_up[2] > 0)


@pytest.mark.parametrize("header_up", [(0, 0.64, 0.77), (0, -0.64, 0.77), (0.64, 0, 0.77)])
def test_top_of_the_head_is_found_where_both_headers_are_tilted(head, header_up):
    found = inside_skull(head[0])
    assert found is not None
    (up,) = upright(found, header_up, instead=header_up)
    assert up[2] > 0.8


def test_face_without_a_neck_does_not_show_the_top_of_the_head(head):
    found = inside_skull(head[0])
    assert found is not None
    k, j, i = np.indices(GRID.shape_kji)
    lower = apply_affine(GRID.lps_from_ijk, np.stack([i, j, k], axis=-1))[..., 2] < found.centre_lps_mm[2] - 20
    face = near(found.centre_lps_mm - np.array([0, 110, 0]), 60) & (head[0].array_kji < -500)
    hu = np.where(lower, np.float32(-1000), np.where(face, np.float32(40), head[0].array_kji))
    tilted = (-0.6, 0, 0.8)
    np.testing.assert_allclose(upright(replace(found, hu_kji=hu), tilted, instead=tilted), [tilted])


def test_top_of_the_head_is_the_other_headers_where_one_is_wrong(head):
    found = inside_skull(head[0])
    assert found is not None
    np.testing.assert_allclose(upright(found, (0, -0.9, -0.44), instead=(0, 0, 1)), [(0, 0, 1)])
    np.testing.assert_allclose(upright(found, (0.2, -0.1, 0.975), instead=(0, 1, 0)), [(0.2, -0.1, 0.975)], atol=1e-3)


def test_top_of_the_head_is_midway_between_two_headers_that_agree(head):
    found = inside_skull(head[0])
    assert found is not None
    (up,) = upright(found, (0.5, 0, 0.866), instead=(0, 0, 1))
    np.testing.assert_allclose(up, (0.259, 0, 0.966), atol=1e-3)


def test_a_table_is_not_taken_for_the_face(head):
    """In a CT of the brain alone, nothing else shows where the face is."""
    grid = Grid((130, 150, 75), spacing_ijk_mm=(2, 2, 2), origin_lps_mm=(-130, -130, -40))
    ct = make_phantom(3, lesions=False, electrode=False).ct(grid)
    with_table = ct.array_kji.copy()
    add_table(with_table, grid, np.random.default_rng(1))
    found = inside_skull(ct.with_array(with_table))
    assert found is not None
    np.testing.assert_allclose(upright(found, (0, 0, 1)), [(0, 0, 1)])
    # Of two headers that contradict each other, no hole counts that is base by one of them.
    both = upright(found, (0, 0.8, 0.6), instead=(0, 0, 1))
    assert len(both) == 2
    assert holes_cm2(found, *both).sum() <= min(holes_cm2(found, up).sum() for up in both)


@pytest.mark.parametrize("radius_mm", [20.0, 45.0])
def test_area_of_missing_bone_is_measured(head, radius_mm):
    found = inside_skull(opened(head, radius_mm))
    assert found is not None
    holes = holes_cm2(found)
    assert len(holes) == 1
    assert holes[0] == pytest.approx(np.pi * (radius_mm / 10) ** 2, rel=0.25)


def test_thin_rest_of_the_inner_table_is_part_of_the_hole(head):
    """Partial volume leaves less of it than of the thinnest bone: 220 HU, 2 mm thick, in half of the hole."""
    ct, labels = head
    rest = near(on_skull(labels), 20.0) & (labels == Tissue.INNER_TABLE) & (np.indices(labels.shape)[1] % 4 < 2)
    found = inside_skull(ct.with_array(np.where(rest, np.float32(220), opened(head, 30.0).array_kji)))
    assert found is not None
    assert holes_cm2(found).sum() == pytest.approx(np.pi * 3.0**2, rel=0.2)


@pytest.mark.parametrize("azimuth_deg", [0, 60, 180])
def test_hole_that_reaches_below_the_vault_is_measured_there_too(head, azimuth_deg):
    turned = np.deg2rad(azimuth_deg)
    towards = np.array([np.cos(turned), np.sin(turned), -0.09])
    found = inside_skull(opened(head, 35.0, towards))
    assert found is not None
    assert holes_cm2(found).sum() == pytest.approx(np.pi * 3.5**2, rel=0.25)


@pytest.mark.parametrize("fill_hu", [-1000.0, -2000.0])
def test_what_was_filled_in_around_a_tilted_stack_is_neither_air_nor_a_hole(head, fill_hu):
    ct = head[0]
    array = ct.array_kji + np.random.default_rng(0).normal(0, 15, ct.array_kji.shape).astype(np.float32)
    k, j, _ = np.indices(array.shape)
    height = 2.0 * k - 0.35 * 2.0 * (j - array.shape[1] / 2)
    array[(height < 50) | (height > 2.0 * array.shape[0] - 50)] = fill_hu
    found = inside_skull(ct.with_array(array))
    assert found is not None
    assert found.filled_kji.mean() > 0.1
    assert air_ml(found) == 0
    assert len(holes_cm2(found)) == 0


def test_cut_field_of_view_is_not_a_hole(head):
    found = inside_skull(cone_beam(head[0]))
    assert found is not None
    assert len(holes_cm2(found)) == 0
