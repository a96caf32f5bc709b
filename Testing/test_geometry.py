import itertools

import nibabel
import numpy as np
import pytest
import SimpleITK as sitk
from hypothesis import given, settings
from hypothesis import strategies as st

from BrainFusionLib.errors import GeometryError
from BrainFusionLib.geometry import (
    RAS_FROM_LPS,
    Grid,
    affine,
    anatomical_axes,
    apply_affine,
    orthonormalised,
    rotation_axis_angle,
    rotation_matrix,
)

# nibabel and SimpleITK are the references: both put voxels in space by code that shares nothing with ours.

SIGNED_PERMUTATIONS = [
    np.eye(3)[list(order)] * signs
    for order in itertools.permutations(range(3))
    for signs in itertools.product((1.0, -1.0), repeat=3)
]

quick = settings(max_examples=30, deadline=None)


@st.composite
def rotations(draw):
    """Any rotation, from a unit quaternion by the textbook formula.

    Drawn as whole numbers: with entries of 1e-300, the singular value decomposition inside ITK gives NaN.
    """
    q = np.array(draw(st.tuples(*[st.integers(-1000, 1000)] * 4).filter(any)))
    w, x, y, z = q / np.linalg.norm(q)
    return np.array(
        [
            [1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y)],
            [2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x)],
            [2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y)],
        ]
    )


@st.composite
def grids(draw):
    """Oblique, anisotropic, left- and right-handed."""
    size = tuple(draw(st.integers(1, 9)) for _ in range(3))
    spacing = tuple(draw(st.floats(0.2, 6)) for _ in range(3))
    origin = tuple(draw(st.floats(-300, 300)) for _ in range(3))
    return Grid(size, spacing, origin, draw(rotations()) @ draw(st.sampled_from(SIGNED_PERMUTATIONS)))


def _itk_image(grid):
    image = sitk.Image(grid.size_ijk, sitk.sitkUInt8)
    image.SetSpacing(grid.spacing_ijk_mm)
    image.SetOrigin(grid.origin_lps_mm)
    image.SetDirection(grid.direction.ravel().tolist())
    return image


def _box_corners(grid):
    """Corners of the box that the voxels fill (not their centres), in the grid's own axes, mm."""
    low = grid.direction.T @ grid.origin_lps_mm - np.asarray(grid.spacing_ijk_mm) / 2
    return low, low + np.asarray(grid.size_ijk) * grid.spacing_ijk_mm


@quick
@given(grids(), st.tuples(*[st.floats(-20, 20)] * 3))
def test_index_positions_match_itk(grid, index):
    point = np.array(_itk_image(grid).TransformContinuousIndexToPhysicalPoint(index))
    np.testing.assert_allclose(apply_affine(grid.lps_from_ijk, index), point, atol=1e-9)
    np.testing.assert_allclose(apply_affine(grid.ijk_from_lps, point), index, atol=1e-7)


@quick
@given(grids())
def test_centre_and_corners_match_itk(grid):
    image, last = _itk_image(grid), [n - 1 for n in grid.size_ijk]
    corners = [
        image.TransformIndexToPhysicalPoint(index) for index in itertools.product(*((0, number) for number in last))
    ]
    np.testing.assert_allclose(grid.corners_lps_mm, corners, atol=1e-9)
    centre = image.TransformContinuousIndexToPhysicalPoint([number / 2 for number in last])
    np.testing.assert_allclose(grid.centre_lps_mm, centre, atol=1e-9)


def test_corners_of_a_sagittal_grid_match_a_hand_calculation():
    # i runs to posterior, j to inferior, k to left, 2 x 3 x 5 mm apart.
    grid = Grid((11, 21, 5), (2, 3, 5), (-10, -40, 70), [[0, 0, 1], [1, 0, 0], [0, -1, 0]])
    np.testing.assert_array_equal(grid.corners_lps_mm[0], [-10, -40, 70])
    np.testing.assert_array_equal(apply_affine(grid.lps_from_ijk, [10, 0, 0]), [-10, -20, 70])
    np.testing.assert_array_equal(apply_affine(grid.lps_from_ijk, [0, 20, 0]), [-10, -40, 10])
    np.testing.assert_array_equal(apply_affine(grid.lps_from_ijk, [0, 0, 4]), [10, -40, 70])
    np.testing.assert_array_equal(grid.corners_lps_mm[-1], [10, -20, 10])
    assert grid.shape_kji == (5, 21, 11)
    assert grid.extent_ijk_mm == (22, 63, 25)


def test_only_left_and_posterior_change_sign_in_ras():
    left_ear, nose, crown = [80, 0, 0], [0, -95, 0], [0, 0, 90]
    np.testing.assert_array_equal(
        apply_affine(RAS_FROM_LPS, [left_ear, nose, crown]), [[-80, 0, 0], [0, 95, 0], [0, 0, 90]]
    )


@pytest.mark.parametrize("tilt_deg", [0.0, 25.0])
@pytest.mark.parametrize("direction", SIGNED_PERMUTATIONS, ids=lambda d: "".join(str(int(v)) for v in d.ravel()))
def test_axis_names_are_those_of_nibabel(direction, tilt_deg):
    turned = np.array(sitk.VersorTransform((1.0, -0.5, 0.3), np.radians(tilt_deg)).GetMatrix()).reshape(3, 3)
    grid = Grid((4, 5, 6), (0.7, 1.1, 3.0), (10, -20, 30), turned @ direction)
    ras_from_ijk = np.diag([-1, -1, 1, 1]) @ grid.lps_from_ijk
    assert anatomical_axes(grid.direction) == "".join(nibabel.aff2axcodes(ras_from_ijk))


def test_every_body_axis_is_named_once_at_45_degrees():
    names = anatomical_axes(rotation_matrix([0, 0, 1], 45))
    assert {frozenset(pair) & set(names) != set() for pair in ("RL", "AP", "IS")} == {True}


@quick
@given(grids(), st.tuples(*[st.floats(0.3, 9)] * 3))
def test_new_spacing_covers_the_box_to_within_a_voxel(grid, spacing):
    new = grid.with_spacing(spacing)
    old_low, old_high = _box_corners(grid)
    low, high = _box_corners(new)
    assert new.spacing_ijk_mm == spacing
    np.testing.assert_array_less(low, old_low + 1e-4)
    np.testing.assert_array_less(old_high, high + 1e-4)
    np.testing.assert_array_less((high - low) - (old_high - old_low), np.array(spacing) + 1e-9)
    np.testing.assert_allclose((low + high) / 2, (old_low + old_high) / 2, atol=1e-9)
    np.testing.assert_allclose(new.direction, grid.direction, atol=1e-12)


def test_halving_the_resolution_keeps_the_box_exactly():
    grid = Grid((512, 512, 90), (0.45, 0.45, 2.0), (-115, -115, 0)).with_spacing((0.9, 0.9, 4.0))
    assert grid.size_ijk == (256, 256, 45)
    np.testing.assert_allclose(grid.origin_lps_mm, (-115 + 0.225, -115 + 0.225, 1.0), atol=1e-9)


@quick
@given(grids(), rotations(), st.tuples(*[st.floats(-200, 200)] * 3))
def test_a_moved_grid_has_every_voxel_moved(grid, rotation, translation):
    moved = grid.moved(affine(rotation, translation))
    expected = grid.corners_lps_mm @ rotation.T + translation
    np.testing.assert_allclose(moved.corners_lps_mm, expected, atol=1e-9)
    assert np.sign(np.linalg.det(moved.direction)) == np.sign(np.linalg.det(grid.direction))


@quick
@given(grids())
def test_affine_round_trip_keeps_handedness(grid):
    back = Grid.from_lps_from_ijk(grid.lps_from_ijk, grid.size_ijk)
    np.testing.assert_allclose(back.spacing_ijk_mm, grid.spacing_ijk_mm, rtol=1e-12)
    np.testing.assert_allclose(back.direction, grid.direction, atol=1e-12)
    assert back.same_as(grid)


def test_directions_rounded_to_float32_are_made_exact():
    exact = rotation_matrix([1, 2, 3], 33) @ np.diag([1, 1, -1])
    grid = Grid((2, 2, 2), direction=exact.astype(np.float32))
    np.testing.assert_allclose(grid.direction.T @ grid.direction, np.eye(3), atol=1e-15)
    np.testing.assert_allclose(grid.direction, exact, atol=1e-7)
    assert np.linalg.det(grid.direction) == pytest.approx(-1)


@quick
@given(rotations(), st.sampled_from(SIGNED_PERMUTATIONS), st.lists(st.floats(-2e-4, 2e-4), min_size=9, max_size=9))
def test_nearest_orthogonal_matrix_is_the_polar_factor(rotation, permutation, noise):
    disturbed = rotation @ permutation + np.reshape(noise, (3, 3))
    result = orthonormalised(disturbed)
    np.testing.assert_allclose(result.T @ result, np.eye(3), atol=1e-14)
    assert np.sign(np.linalg.det(result)) == np.sign(np.linalg.det(permutation))
    # Nearest means: what is left over is a symmetric positive stretch, with no rotation in it.
    stretch = result.T @ disturbed
    np.testing.assert_allclose(stretch, stretch.T, atol=1e-13)
    assert (np.linalg.eigvalsh((stretch + stretch.T) / 2) > 0).all()


@pytest.mark.parametrize("tilt_deg", [0.1, 1.0, 20.0])
def test_a_gantry_tilt_is_refused_as_a_shear(tilt_deg):
    sheared = np.eye(4)
    sheared[:3, 2] = [0, 3 * np.sin(np.radians(tilt_deg)), 3 * np.cos(np.radians(tilt_deg))]
    with pytest.raises(GeometryError, match=r"perpendicular.*Resample the image"):
        Grid.from_lps_from_ijk(sheared, (4, 4, 4))


@pytest.mark.parametrize("direction", [np.eye(3) * 1.1, np.zeros((3, 3)), np.ones((3, 3)), np.diag([1, 1, np.nan])])
def test_directions_that_are_no_axes_are_refused(direction):
    with pytest.raises(GeometryError):
        Grid((4, 4, 4), direction=direction)


@pytest.mark.parametrize("shape", [(2, 2), (4, 4), (9,)])
def test_directions_of_another_shape_are_refused(shape):
    with pytest.raises(GeometryError, match="3x3"):
        orthonormalised(np.ones(shape))


@pytest.mark.parametrize("bad", [0.0, -1.0, np.nan, np.inf])
def test_impossible_spacing_is_rejected_with_its_value(bad):
    with pytest.raises(GeometryError, match=f"spacing must be positive.*{bad}.*header"):
        Grid((4, 4, 4), (1, bad, 1))
    with pytest.raises(GeometryError, match=f"spacing must be positive.*{bad}"):
        Grid((4, 4, 4)).with_spacing((1, bad, 1))


@pytest.mark.parametrize("bad", [np.nan, -np.inf])
def test_non_finite_origin_is_refused(bad):
    with pytest.raises(GeometryError, match="origin must be finite"):
        Grid((4, 4, 4), origin_lps_mm=(0, 0, bad))


@pytest.mark.parametrize("size", [(4.5, 4, 4), (4, np.nan, 4), (4, 4, np.inf)])
def test_fractional_size_is_rejected(size):
    with pytest.raises(GeometryError, match="whole numbers"):
        Grid(size)


@pytest.mark.parametrize("size", [(0, 4, 4), (4, -1, 4), (4, 4, 10_001)])
def test_a_size_that_cannot_be_is_refused(size):
    with pytest.raises(GeometryError, match="grid size must be 1 to 10000"):
        Grid(size)


@pytest.mark.parametrize(
    ("size", "spacing", "origin"),
    [((4, 4), (1, 1, 1), (0, 0, 0)), ((4, 4, 4, 2), (1, 1, 1), (0, 0, 0)), ((4, 4, 4), (1, 1), (0, 0, 0))],
)
def test_two_and_four_dimensions_are_refused(size, spacing, origin):
    with pytest.raises(GeometryError, match=r"must be three (whole )?numbers; got"):
        Grid(size, spacing, origin)


@pytest.mark.parametrize(
    "matrix", [np.eye(3), np.diag([1, 0, 1, 1]), np.diag([1, np.nan, 1, 1]), np.diag([1, 1, 1, 2])]
)
def test_an_affine_that_makes_no_grid_is_refused(matrix):
    with pytest.raises(GeometryError, match=r"affine"):
        Grid.from_lps_from_ijk(matrix, (4, 4, 4))


def test_a_positive_rotation_about_superior_takes_left_to_posterior():
    # The right-hand rule in LPS: x (left) towards y (posterior).
    np.testing.assert_allclose(rotation_matrix([0, 0, 2], 90) @ [1, 0, 0], [0, 1, 0], atol=1e-15)
    np.testing.assert_allclose(rotation_matrix([5, 0, 0], 90) @ [0, 1, 0], [0, 0, 1], atol=1e-15)
    np.testing.assert_allclose(rotation_matrix([0, 1, 0], 90) @ [0, 0, 1], [1, 0, 0], atol=1e-15)


@quick
@given(st.tuples(*[st.integers(-50, 50)] * 3).filter(any), st.floats(-360, 360))
def test_a_rotation_about_an_axis_is_that_of_itk(axis, angle_deg):
    expected = np.array(sitk.VersorTransform(axis, np.radians(angle_deg)).GetMatrix()).reshape(3, 3)
    np.testing.assert_allclose(rotation_matrix(axis, angle_deg), expected, atol=1e-12)


@pytest.mark.parametrize("axis", [[0, 0, 0], [1, 0], [np.nan, 0, 1], [np.inf, 0, 0]])
def test_a_rotation_axis_without_a_direction_is_refused(axis):
    with pytest.raises(GeometryError, match="rotation axis"):
        rotation_matrix(axis, 10)


@pytest.mark.parametrize("axis", [(0, 0, 1), (-1, 0, 0), (0.6, -0.8, 0), (-3, 2, -6), (1e-3, 1, -1e-3)])
@pytest.mark.parametrize("angle_deg", [1e-4, 1.0, 90.0, 119.0, 179.0, 180 - 1e-4, 180 - 1e-7, 180.0])
def test_axis_and_angle_are_found_up_to_180_degrees(axis, angle_deg):
    unit = np.asarray(axis) / np.linalg.norm(axis)
    rotation = np.array(sitk.VersorTransform(tuple(unit), np.radians(angle_deg)).GetMatrix()).reshape(3, 3)
    found_axis, found_angle = rotation_axis_angle(rotation)
    assert found_angle == pytest.approx(angle_deg, abs=1e-6)
    # Half a turn one way is half a turn the other way, and within rounding of it the two cannot be told apart.
    sign = np.sign(found_axis @ unit) if angle_deg > 180 - 1e-6 else 1.0
    np.testing.assert_allclose(sign * found_axis, unit, atol=1e-6)


def test_no_rotation_has_no_angle_and_still_an_axis():
    axis, angle = rotation_axis_angle(np.eye(3))
    assert angle == 0
    np.testing.assert_array_equal(axis, [0, 0, 1])


@quick
@given(rotations())
def test_itk_rebuilds_rotations_from_axis_and_angle(rotation):
    axis, angle_deg = rotation_axis_angle(rotation)
    assert 0 <= angle_deg <= 180
    assert np.linalg.norm(axis) == pytest.approx(1)
    rebuilt = np.array(sitk.VersorTransform(tuple(axis), np.radians(angle_deg)).GetMatrix()).reshape(3, 3)
    np.testing.assert_allclose(rebuilt, rotation, atol=1e-7)


def test_points_of_any_shape_keep_their_shape():
    matrix = affine(rotation_matrix([0, 0, 1], 90), (1, 2, 3))
    np.testing.assert_allclose(apply_affine(matrix, [10, 0, 0]), [1, 12, 3], atol=1e-12)
    np.testing.assert_allclose(apply_affine(matrix, np.full((2, 5, 3), [0, 10, 0])), np.full((2, 5, 3), [-9, 2, 3]))
    assert apply_affine(matrix, np.empty((0, 3))).shape == (0, 3)


def test_grids_are_compared_at_the_far_corner():
    grid = Grid((101, 101, 101))
    assert grid.same_as(Grid((101, 101, 101), (1 + 5e-9, 1, 1)))
    assert not grid.same_as(Grid((101, 101, 101), (1 + 5e-8, 1, 1)))
    assert grid.same_as(Grid((101, 101, 101), (1 + 5e-8, 1, 1)), tolerance_mm=1e-5)
    assert not grid.same_as(Grid((101, 101, 100)))
    assert not grid.same_as(Grid((101, 101, 101), origin_lps_mm=(100, 0, 0), direction=np.diag([-1, 1, 1])))


def test_a_grid_cannot_be_changed_behind_its_back():
    direction = np.eye(3)
    grid = Grid((2, 3, 4), direction=direction)
    direction[0, 0] = 7
    assert grid.direction[0, 0] == 1
    with pytest.raises(ValueError, match="read-only"):
        grid.direction[0, 0] = 7
