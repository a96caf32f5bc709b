import numpy as np
import pytest
import SimpleITK as sitk
from hypothesis import given, settings
from hypothesis import strategies as st

from BrainFusionLib.errors import GeometryError
from BrainFusionLib.geometry import rotation_matrix
from BrainFusionLib.transform import AffineTransform, RigidTransform

quick = settings(max_examples=30, deadline=None)

# Euler angles (degrees), a translation and a centre: SimpleITK's Euler3DTransform is the reference.
euler = st.tuples(st.tuples(*[st.integers(-180, 180)] * 3), *[st.tuples(*[st.floats(-150, 150)] * 3)] * 2)
points = st.tuples(*[st.floats(-200, 200)] * 3)


def _itk(parameters):
    angles, translation, centre = parameters
    return sitk.Euler3DTransform(centre, *np.radians(angles).tolist(), translation)


def _ours(parameters):
    _, translation, centre = parameters
    return RigidTransform.about_centre(np.reshape(_itk(parameters).GetMatrix(), (3, 3)), translation, centre)


@quick
@given(euler, points)
def test_a_transform_about_a_centre_is_that_of_itk(parameters, point):
    np.testing.assert_allclose(_ours(parameters).apply(point), _itk(parameters).TransformPoint(point), atol=1e-9)


@quick
@given(euler, points)
def test_the_inverse_undoes_what_itk_does(parameters, point):
    np.testing.assert_allclose(
        _ours(parameters).inverse().apply(_itk(parameters).TransformPoint(point)), point, atol=1e-8
    )


@quick
@given(euler, euler, points)
def test_a_composition_applies_the_right_hand_one_first(last, first, point):
    expected = _itk(last).TransformPoint(_itk(first).TransformPoint(point))
    np.testing.assert_allclose((_ours(last) @ _ours(first)).apply(point), expected, atol=1e-8)


@quick
@given(euler, points)
def test_a_rigid_transform_keeps_distances(parameters, point):
    far, near = _ours(parameters).apply([point, (0, 0, 0)])
    assert np.linalg.norm(far - near) == pytest.approx(np.linalg.norm(point), abs=1e-9)


@pytest.mark.parametrize("axis", [(1, 0, 0), (0.5, -2, 1)])
@pytest.mark.parametrize("angle_deg", [-70, 20, 180])
def test_axis_and_angle_give_the_transform_of_itk(axis, angle_deg):
    reference = sitk.VersorRigid3DTransform()
    reference.SetCenter((10, -20, 30))
    reference.SetRotation(axis, np.radians(angle_deg))
    reference.SetTranslation((1, 2, 3))
    ours = RigidTransform.from_axis_angle(axis, angle_deg, (1, 2, 3), (10, -20, 30))
    np.testing.assert_allclose(ours.apply((7, 8, 9)), reference.TransformPoint((7, 8, 9)), atol=1e-12)
    assert ours.angle_deg == pytest.approx(abs(angle_deg), abs=1e-6)


def test_a_quarter_turn_about_superior_by_hand():
    turn = RigidTransform.from_axis_angle((0, 0, 1), 90, translation_mm=(0, 0, 5), centre_lps_mm=(10, 0, 0))
    np.testing.assert_allclose(turn.apply((12, 0, 1)), (10, 2, 6), atol=1e-12)
    np.testing.assert_allclose(turn.translation_mm, (10, -10, 5), atol=1e-12)
    np.testing.assert_allclose(turn.shift_at((10, 0, 0)), (0, 0, 5), atol=1e-12)
    np.testing.assert_allclose(turn.shift_at([(12, 0, 0)]), [(-2, 2, 5)], atol=1e-12)


def test_the_identity_moves_nothing():
    np.testing.assert_array_equal(RigidTransform.identity().apply([[1, 2, 3], [4, 5, 6]]), [[1, 2, 3], [4, 5, 6]])
    assert RigidTransform.identity().angle_deg == 0


@pytest.mark.parametrize(
    ("ct_must_move", "words"),
    [
        ((10, 0, 0), "10.0 mm left"),
        ((-10, 0, 0), "10.0 mm right"),
        ((0, 10, 0), "10.0 mm posterior"),
        ((0, -10, 0), "10.0 mm anterior"),
        ((0, 0, 10), "10.0 mm superior"),
        ((0, 0, -10), "10.0 mm inferior"),
    ],
)
def test_description_gives_the_movement_of_the_ct(ct_must_move, words):
    # The CT's copy of an MRI point lies where the CT would have to leave from: at the point less the way to go.
    matrix = np.eye(4)
    matrix[:3, 3] = -np.array(ct_must_move)
    said = RigidTransform(matrix).describe((30, -40, 50))
    assert words in said
    assert said.count("10.0 mm") == 1
    assert said.startswith("not rotated")


@pytest.mark.parametrize(
    ("axis", "name"), [((1, 0.1, 0), "left-right"), ((0.2, -1, 0), "front-back"), ((0, 0.3, 1), "feet-head")]
)
@pytest.mark.parametrize("angle_deg", [0.06, 35.0, -35.0, 180.0])
def test_description_names_angle_and_main_axis(axis, name, angle_deg):
    said = RigidTransform.from_axis_angle(axis, angle_deg, centre_lps_mm=(5, 6, 7)).describe((5, 6, 7))
    assert said.startswith(f"rotated by {abs(angle_deg):.1f} degrees (mainly about the {name} axis), not shifted")


def test_described_shift_is_that_of_the_given_point():
    # Half a turn about the feet-head axis through x = 50: the origin's copy lies at x = 100, 100 mm too far left.
    half_turn = RigidTransform.from_axis_angle((0, 0, 1), 180, centre_lps_mm=(50, 0, 0))
    assert "100.0 mm right" in half_turn.describe((0, 0, 0))
    assert half_turn.describe((50, 0, 0)).endswith("not shifted")


def test_a_matrix_rounded_to_float32_is_made_exactly_rigid():
    exact = RigidTransform.from_axis_angle((1, 2, 3), 77, (11, 22, 33)).moving_from_fixed_lps
    rotation = RigidTransform(exact.astype(np.float32)).rotation
    np.testing.assert_allclose(rotation.T @ rotation, np.eye(3), atol=1e-15)
    np.testing.assert_allclose(rotation, exact[:3, :3], atol=1e-7)


def test_a_mirror_is_refused():
    with pytest.raises(GeometryError, match="cannot mirror"):
        RigidTransform(np.diag([-1, 1, 1, 1]))


def _matrix(row, column, value):
    matrix = np.eye(4)
    matrix[row, column] = value
    return matrix


def test_scaled_matrix_is_rejected_as_a_transform():
    with pytest.raises(GeometryError, match=r"rigid transform only rotates and shifts") as caught:
        RigidTransform(np.diag([1.01, 1.01, 1.01, 1]))
    assert "image" not in str(caught.value)


@pytest.mark.parametrize(
    "matrix",
    [
        pytest.param(np.diag([1.01, 1.01, 1.01, 1]), id="scaled"),
        pytest.param(_matrix(0, 1, 0.01), id="sheared"),
        pytest.param(_matrix(0, 3, np.nan), id="NaN"),
        pytest.param(_matrix(3, 0, 0.1), id="perspective"),
        pytest.param(_matrix(3, 3, 2.0), id="last row not 0 0 0 1"),
        pytest.param(np.eye(3), id="3x3"),
        pytest.param(np.zeros((4, 4)), id="zeros"),
    ],
)
def test_a_matrix_that_is_not_rigid_is_refused(matrix):
    with pytest.raises(GeometryError):
        RigidTransform(matrix)


def test_a_transform_cannot_be_changed_behind_its_back():
    matrix = np.eye(4)
    transform = RigidTransform(matrix)
    matrix[0, 3] = 99
    np.testing.assert_array_equal(transform.translation_mm, [0, 0, 0])
    for part in (transform.moving_from_fixed_lps, transform.rotation, transform.translation_mm):
        with pytest.raises(ValueError, match="read-only"):
            part[0] = 1


# Affine transforms.


def _affine(linear, translation=(0, 0, 0)):
    matrix = np.eye(4)
    matrix[:3, :3], matrix[:3, 3] = linear, translation
    return AffineTransform(matrix)


# Entries of a matrix near the identity, a turn and a shift: what a distorted image needs.
distortions = st.tuples(st.tuples(*[st.floats(-0.2, 0.2)] * 9), euler)


def _distorted(parameters):
    entries, turn = parameters
    return _affine(_ours(turn).rotation @ (np.eye(3) + np.reshape(entries, (3, 3))), turn[1])


@quick
@given(distortions, points)
def test_affine_transform_and_inverse_match_itk(parameters, point):
    ours = _distorted(parameters)
    matrix = ours.moving_from_fixed_lps
    by_itk = sitk.AffineTransform(matrix[:3, :3].ravel().tolist(), matrix[:3, 3].tolist())
    np.testing.assert_allclose(ours.apply(point), by_itk.TransformPoint(point), atol=1e-9)
    np.testing.assert_allclose(ours.inverse().apply(by_itk.TransformPoint(point)), point, atol=1e-9)


@quick
@given(distortions, points, euler)
def test_nearest_rigid_transform_is_nearest(parameters, point, other):
    ours = _distorted(parameters)
    rigid = ours.nearest_rigid(point)
    assert isinstance(rigid, RigidTransform)
    np.testing.assert_allclose(rigid.apply(point), ours.apply(point), atol=1e-9)
    linear = ours.moving_from_fixed_lps[:3, :3]
    for turn in (_ours(other).rotation, rotation_matrix((1, 2, 3), 1) @ rigid.rotation):
        assert np.linalg.norm(linear - rigid.rotation) <= np.linalg.norm(linear - turn) + 1e-9


@quick
@given(euler, st.tuples(*[st.floats(0.8, 1.25)] * 3), st.tuples(*[st.floats(-0.1, 0.1)] * 3))
def test_rotation_and_stretch_are_separated(turn, scales, off_diagonal):
    stretch = np.diag(scales)
    stretch[np.triu_indices(3, 1)] = off_diagonal
    stretch = (stretch + stretch.T) / 2
    # The CT is turned, then stretched by this; resampling asks for the opposite.
    onto_mri = _affine(stretch @ _ours(turn).rotation, turn[1])
    np.testing.assert_allclose(onto_mri.inverse().nearest_rigid().rotation, _ours(turn).rotation.T, atol=1e-9)
    np.testing.assert_allclose(onto_mri.inverse().scales, np.linalg.norm(stretch, axis=0), atol=1e-9)


def test_wrong_slice_distance_appears_in_the_scales():
    # The MRI's header says 2 % too much along the feet-head axis: 100 mm there are 98 mm in the CT.
    turn = rotation_matrix((1, 2, 0.3), 40)
    found = _affine(turn @ np.diag([1, 1, 0.98]), (30, 0, 0))
    assert found.kind == "affine"
    np.testing.assert_allclose(found.scales, [1, 1, 1 / 0.98], atol=1e-12)
    assert found.shear_deg == pytest.approx(0, abs=1e-6)
    said = found.describe((0, 0, 0))
    assert said.startswith("rotated by 40.0 degrees (mainly about the front-back axis), shifted by 30.0 mm right")
    assert said.endswith("scaled by +0.00 % left-right, +0.00 % front-back, +2.04 % feet-head, not sheared")


@pytest.mark.parametrize("linear", [np.eye(3) * (1 + 1e-6), np.diag([1, 1, 1 + 1e-6])])
def test_a_described_scale_has_no_negative_zero(linear):
    assert "-0.00 %" not in _affine(linear).describe((0, 0, 0))


@pytest.mark.parametrize("tilt_deg", [0.5, -12])
def test_gantry_tilt_appears_as_a_shear(tilt_deg):
    linear = np.eye(3)
    linear[1, 2] = np.tan(np.radians(tilt_deg))
    assert _affine(linear).shear_deg == pytest.approx(abs(tilt_deg))
    assert f"sheared by up to {abs(tilt_deg):.2f} degrees" in _affine(linear).describe((0, 0, 0))


def test_uniform_scale_is_a_similarity():
    found = _affine(rotation_matrix((0, 0, 1), 30) / 1.03)
    assert found.kind == "similarity"
    assert found.describe((0, 0, 0)).endswith("not shifted, scaled by +3.00 %")


def test_affine_description_uses_the_given_point():
    # Twice as large about the point x = 50, so that this point stays, and the origin does not.
    found = _affine(np.eye(3) / 2, (25, 0, 0))
    assert "not shifted" in found.describe((50, 0, 0))
    assert "25.0 mm right" in found.describe((0, 0, 0))


@pytest.mark.parametrize(
    ("matrix", "words"),
    [
        pytest.param(np.diag([-1, 1, 1, 1]), "must not mirror.*Correct the volume's header", id="mirror"),
        pytest.param(np.diag([1, 1, 0, 1]), "must be invertible.*Give one that can be inverted", id="flat"),
        pytest.param(np.zeros((4, 4)), "last row 0 0 0 1", id="zeros"),
        pytest.param(_matrix(0, 3, np.nan), "finite.*Export it again", id="NaN"),
        pytest.param(_matrix(0, 0, np.inf), "finite", id="infinite"),
        pytest.param(_matrix(3, 0, 0.1), "last row 0 0 0 1", id="perspective"),
        pytest.param(np.eye(3), "4x4", id="3x3"),
    ],
)
def test_invalid_affine_matrix_is_rejected_with_the_remedy(matrix, words):
    with pytest.raises(GeometryError, match=words):
        AffineTransform(matrix)


def test_an_affine_transform_cannot_be_changed_behind_its_back():
    matrix = np.eye(4)
    transform = AffineTransform(matrix)
    matrix[0, 3] = 99
    np.testing.assert_array_equal(transform.translation_mm, [0, 0, 0])
    with pytest.raises(ValueError, match="read-only"):
        transform.moving_from_fixed_lps[0] = 1
