import numpy as np
import pytest
import SimpleITK as sitk
from hypothesis import given, settings
from hypothesis import strategies as st

from BrainFusionLib import resample
from BrainFusionLib.backend import on_cpu, on_torch
from BrainFusionLib.backend.formulas import nearest_rows, trilinear
from BrainFusionLib.backend.on_torch import OnTorch
from BrainFusionLib.backend.plain import Plain
from BrainFusionLib.errors import SettingsError
from BrainFusionLib.geometry import Grid, rotation_matrix
from BrainFusionLib.resample import resample_onto
from BrainFusionLib.transform import AffineTransform, RigidTransform
from BrainFusionLib.volume import Volume

TURN = RigidTransform.from_axis_angle((1, -2, 0.5), 17, (3, -2, 4), (5, 5, 5))
FLIP = np.diag([1.0, -1.0, 1.0])  # makes a grid left-handed
GRIDS = {
    "aligned": Grid((19, 17, 15), (2.0, 2.0, 2.0), (-18.3, -16.1, -14.2)),
    "anisotropic": Grid((25, 9, 31), (1.3, 4.1, 0.9), (-15, -17, -12)),
    "oblique": Grid((17, 20, 14), (2.1, 1.7, 2.4), (-21, -12, -18), rotation_matrix((1, 2, 3), 28)),
    "left-handed": Grid((18, 19, 16), (2.0, 1.9, 2.2), (-17, 16, -19), rotation_matrix((0, 1, 1), 12) @ FLIP),
    "sagittal": Grid((21, 13, 10), (1.6, 2.7, 3.1), (-13, -18, 17), [[0, 0, 1], [1, 0, 0], [0, -1, 0]]),
}
by_name = pytest.mark.parametrize("name", GRIDS)


def _volume(grid, modality=None):
    """Noise: no two voxels are alike, so any mistake about axes or neighbours shows."""
    return Volume(np.random.default_rng(5).uniform(0, 1, grid.shape_kji), grid, modality, "noise", ("noted",))


def _itk(volume):
    image = sitk.GetImageFromArray(volume.array_kji)
    image.SetSpacing(volume.grid.spacing_ijk_mm)
    image.SetOrigin(volume.grid.origin_lps_mm)
    image.SetDirection(volume.grid.direction.ravel().tolist())
    return image


def _resampled_by_itk(volume, grid, transform, fill):
    pose = sitk.AffineTransform(3)
    pose.SetMatrix(transform.moving_from_fixed_lps[:3, :3].ravel().tolist())
    pose.SetTranslation(transform.translation_mm.tolist())
    reference = _itk(Volume(np.zeros(grid.shape_kji), grid))
    return sitk.GetArrayFromImage(sitk.Resample(_itk(volume), reference, pose, sitk.sitkLinear, fill))


@by_name
@pytest.mark.parametrize("source_name", ["oblique", "left-handed", "anisotropic"])
def test_resampling_equals_itk(source_name, name):
    volume, grid = _volume(GRIDS[source_name]), GRIDS[name]
    transform = TURN if name != source_name else RigidTransform.from_axis_angle((0, 0, 1), 5)
    result, expected = resample_onto(volume, grid, transform, fill=-7), _resampled_by_itk(volume, grid, transform, -7)
    outside = expected == -7
    assert 0.02 < outside.mean() < 0.9
    np.testing.assert_array_equal(result.array_kji == -7, outside)
    np.testing.assert_allclose(result.array_kji, expected, rtol=0, atol=1e-4)


@by_name
def test_resampling_under_an_affine_transform_is_that_of_itk(name):
    stretched = AffineTransform(
        TURN.moving_from_fixed_lps @ [[0.8, 0.1, 0, 1], [0, 1.3, 0, 2], [0, 0, 1.1, 3], [0, 0, 0, 1]]
    )
    volume = _volume(GRIDS["left-handed"])
    result = resample_onto(volume, GRIDS[name], stretched, fill=-7).array_kji
    expected = _resampled_by_itk(volume, GRIDS[name], stretched, -7)
    assert 0.02 < (expected == -7).mean() < 0.95
    np.testing.assert_allclose(result, expected, rtol=0, atol=1e-4)


@settings(max_examples=15, deadline=None)
@given(st.tuples(*[st.integers(-9, 9)] * 3).filter(any), st.floats(1, 180), st.tuples(*[st.floats(-15, 15)] * 3))
def test_resampling_under_any_pose_is_that_of_itk(axis, angle_deg, translation):
    transform = RigidTransform.from_axis_angle(axis, angle_deg, translation)
    volume, grid = _volume(GRIDS["left-handed"]), GRIDS["oblique"]
    result = resample_onto(volume, grid, transform, fill=0.5).array_kji
    expected = _resampled_by_itk(volume, grid, transform, 0.5)
    # A point within rounding of the outermost border may fall on either side of it.
    assert (np.abs(result - expected) > 1e-4).mean() < 1e-3


def test_transform_maps_grid_points_to_volume_points():
    array = np.zeros((11, 11, 11), np.float32)
    array[3, 4, 5] = 1  # at (5, 4, 3) mm
    shift = np.eye(4)
    shift[:3, 3] = (2, -1, -3)
    pulled = resample_onto(Volume(array, Grid((11, 11, 11))), Grid((11, 11, 11)), RigidTransform(shift)).array_kji
    # The grid's point (3, 5, 6) looks at (5, 4, 3).
    assert pulled[6, 5, 3] == pytest.approx(1, abs=1e-5)
    assert pulled.sum() == pytest.approx(1, abs=1e-4)


def test_between_two_voxels_is_their_weighted_mean():
    ramp = Volume(np.broadcast_to(np.arange(5.0) * 10, (4, 4, 5)), Grid((5, 4, 4), (2, 2, 2)))
    values = resample_onto(ramp, Grid((4, 1, 1), (0.5, 1, 1), (2.5, 3.0, 3.0)), fill=-1).array_kji[0, 0]
    np.testing.assert_allclose(values, [12.5, 15, 17.5, 20], atol=1e-4)


def test_a_voxel_ends_half_a_voxel_beyond_its_centre():
    volume = Volume(np.full((4, 4, 4), 9.0), Grid((4, 4, 4), (2, 2, 2)))
    for axis in range(3):
        origin = [3.0, 3.0, 3.0]
        origin[axis] = -1.3
        size, spacing = [1, 1, 1], [1.0, 1.0, 1.0]
        size[axis], spacing[axis] = 18, 0.5
        line = resample_onto(volume, Grid(tuple(size), tuple(spacing), tuple(origin)), fill=-5).array_kji.ravel()
        # From -1.3 mm in steps of 0.5: the voxels fill -1 to 7 mm.
        np.testing.assert_allclose(line, [-5, *[9] * 16, -5], rtol=1e-6)


@pytest.mark.parametrize(("modality", "value"), [("CT", -1000), ("MR", 0), (None, 0)])
def test_outside_is_air_for_a_ct_and_0_otherwise(modality, value):
    far = Grid((4, 4, 4), origin_lps_mm=(500, 0, 0))
    assert set(resample_onto(_volume(GRIDS["aligned"], modality), far).array_kji.ravel()) == {value}
    assert set(resample_onto(_volume(GRIDS["aligned"], modality), far, fill=0.0).array_kji.ravel()) == {0}


@by_name
def test_the_same_grid_keeps_every_bit(name):
    volume = _volume(GRIDS[name])
    for transform in (None, RigidTransform.identity(), TURN.inverse() @ TURN):
        np.testing.assert_array_equal(resample_onto(volume, GRIDS[name], transform).array_kji, volume.array_kji)


def test_a_shift_by_whole_voxels_gives_the_neighbours():
    volume = Volume(np.random.default_rng(0).uniform(0, 1000, (8, 9, 300)), Grid((300, 9, 8)))
    shifted = resample_onto(volume, Grid((300, 9, 8), origin_lps_mm=(2, 1, -3)), fill=0).array_kji
    np.testing.assert_allclose(shifted[3:, :-1, :-2], volume.array_kji[:-3, 1:, 2:], atol=0.05)


@pytest.mark.parametrize("slab_voxels", [1, 17 * 20 * 3, 17 * 20 * 5 + 1])
def test_the_size_of_the_slabs_does_not_show(monkeypatch, slab_voxels):
    volume, grid = _volume(GRIDS["left-handed"]), GRIDS["oblique"]
    monkeypatch.setattr(resample, "backend_of", OnTorch)
    whole = resample_onto(volume, grid, TURN).array_kji
    monkeypatch.setattr(on_torch, "SLAB_VOXELS", slab_voxels)
    np.testing.assert_array_equal(resample_onto(volume, grid, TURN).array_kji, whole)


def test_result_has_the_name_of_the_volume_and_the_grid():
    volume, grid = _volume(GRIDS["aligned"], "CT"), GRIDS["sagittal"]
    for result in (resample_onto(volume, grid), resample_onto(volume, GRIDS["aligned"])):
        assert (result.modality, result.name, result.notes) == ("CT", "noise", ("noted",))
        assert result.array_kji.dtype == np.float32
    assert resample_onto(volume, grid).grid is grid


def test_read_only_volume_causes_no_warning():
    array = np.ones((4, 4, 4), np.float32)
    array.setflags(write=False)
    assert resample_onto(Volume(array, Grid((4, 4, 4))), Grid((2, 2, 2))).array_kji.min() == 1


def test_the_volume_is_not_changed():
    volume = _volume(GRIDS["aligned"])
    before = volume.array_kji.copy()
    resample_onto(volume, GRIDS["oblique"], TURN)
    np.testing.assert_array_equal(volume.array_kji, before)


@pytest.mark.parametrize("name", GRIDS)
def test_all_backends_resample_alike(name, monkeypatch):
    volume = _volume(GRIDS["oblique"], "CT")
    expected = resample_onto(volume, GRIDS[name], TURN).array_kji
    for other in (Plain(), OnTorch("cpu")):
        monkeypatch.setattr(resample, "backend_of", lambda device, other=other: other)
        np.testing.assert_array_equal(resample_onto(volume, GRIDS[name], TURN).array_kji, expected)


def test_unknown_device_is_refused():
    with pytest.raises(SettingsError, match="the device must be auto, cpu, cuda or mps; got 'tpu'"):
        resample_onto(_volume(GRIDS["oblique"]), GRIDS["aligned"], device="tpu")


def test_points_are_sampled_alike_in_c_and_numpy():
    volume = _volume(GRIDS["oblique"], "CT")
    points = np.random.default_rng(1).uniform(-25, 25, (360, 3))
    both = [b.sample(volume.array_kji, volume.grid.ijk_from_lps, points) for b in (on_cpu(), Plain())]
    assert 0 < np.isnan(both[0]).sum() < 360
    np.testing.assert_allclose(*both, rtol=0, atol=1e-6)


def test_indices_that_are_no_numbers_are_outside():
    image, points = np.ones((2, 3, 4), np.float32), np.zeros((3, 2), np.float32)
    affines = np.full((1, 3, 4), np.nan, np.float32)
    place = list(np.array([[0.5, np.nan], [0.5, 0.5], [0.5, np.inf]], np.float32))
    assert (nearest_rows(np, (4, 3, 2), affines, points) == 24).all()
    assert trilinear(np, image, place, slopes=False)[1].tolist() == [True, False]
