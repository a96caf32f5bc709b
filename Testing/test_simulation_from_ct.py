import numpy as np
import pytest

from BrainFusionLib.geometry import Grid, apply_affine
from BrainFusionLib.volume import Volume
from simulation import from_ct

HOLES_LPS_MM = np.array([[30.0, 10.0, 5.0], [-25.0, 20.0, -10.0], [0.0, -30.0, 25.0]])


def _ball_with_holes(spacing_mm=2.0):
    """A ball of brain, 70 mm in radius, with three spheres of bone in it, a plate of plastic beside it, air around."""
    size = (88, 84, 80)
    origin = tuple(-(n - 1) / 2 * spacing_mm for n in size)
    grid = Grid(size, (spacing_mm,) * 3, origin)
    k, j, i = np.indices(grid.shape_kji)
    points = apply_affine(grid.lps_from_ijk, np.stack([i, j, k], axis=-1))
    array = np.full(grid.shape_kji, -1000.0)
    array[points[..., 1] > 78] = 200
    array[np.linalg.norm(points, axis=-1) < 70] = 27
    for centre in HOLES_LPS_MM:
        # Partial volume at the edge, so that the centroid is good to far less than a voxel.
        inside = np.clip((9 - np.linalg.norm(points - centre, axis=-1)) / spacing_mm + 0.5, 0, 1)
        array += inside * (1500 - array)
    return Volume(array, grid, "CT", "ball")


@pytest.fixture(scope="module")
def ball():
    return _ball_with_holes()


@pytest.fixture(scope="module")
def pair(ball):
    return from_ct.simulate_mri(ball, seed=3, noise=0, bias=0)


def test_mri_lies_where_the_truth_says(pair):
    k, j, i = np.indices(pair.mri.grid.shape_kji)
    points = apply_affine(pair.mri.grid.lps_from_ijk, np.stack([i, j, k], axis=-1))
    for centre in HOLES_LPS_MM:
        expected = pair.transform.inverse().apply(centre)
        near = np.linalg.norm(points - expected, axis=-1) < 14
        darkness = np.clip(640 - pair.mri.array_kji[near], 0, None)
        centroid = (darkness[:, None] * points[near]).sum(axis=0) / darkness.sum()
        assert np.linalg.norm(centroid - expected) < 0.1


def test_pose_is_as_far_off_as_asked(ball):
    pair = from_ct.simulate_mri(ball, rotation_deg=25, shift_mm=35)
    assert pair.transform.angle_deg == pytest.approx(25)
    in_ct = pair.transform.apply(pair.head_points_lps_mm)
    shift = pair.head_points_lps_mm.mean(axis=0) - in_ct.mean(axis=0)
    assert np.linalg.norm(shift) == pytest.approx(35)
    assert np.linalg.norm(in_ct, axis=1).max() < 71


def test_seed_decides_image_and_pose(ball):
    one, same, other = (from_ct.simulate_mri(ball, seed=seed) for seed in (1, 1, 2))
    assert np.array_equal(one.mri.array_kji, same.mri.array_kji)
    assert not np.allclose(one.transform.rotation, other.transform.rotation)


def test_mri_shows_no_head_holder(ball):
    signal = from_ct.t1_signal(ball, from_ct.head_tissue(ball))
    assert ball.array_kji[40, -1, 40] == 200
    assert signal[40, -1, 40] == 0
    assert signal[40, 42, 44] == pytest.approx(640)


def test_signal_is_not_a_rescaled_ct():
    grid = Grid((8, 8, 8), (20.0, 20.0, 20.0))
    everywhere = np.ones(grid.shape_kji, dtype=bool)

    def signal(hu):
        return from_ct.t1_signal(Volume(np.full(grid.shape_kji, hu), grid, "CT"), everywhere).mean()

    air, fat, water, white, grey, bone = (signal(hu) for hu in (-1000, -100, 5, 27, 36, 1200))
    assert max(air, bone) < water < grey < white < fat


def test_noise_and_gain_are_as_asked(ball):
    quiet = from_ct.simulate_mri(ball, seed=3, noise=0, bias=0).mri.array_kji
    noisy = from_ct.simulate_mri(ball, seed=3, noise=12, bias=0).mri.array_kji
    uneven = from_ct.simulate_mri(ball, seed=3, noise=0, bias=0.15).mri.array_kji
    # Rician: in air the mean is the standard deviation of a channel times the root of half pi.
    assert noisy[quiet == 0].mean() == pytest.approx(12 * np.sqrt(np.pi / 2), rel=0.05)
    ratio = uneven[quiet > 300] / quiet[quiet > 300]
    assert 0.84 < ratio.min() < 0.97
    assert 1.03 < ratio.max() < 1.16


def test_volume_of_air_is_rejected():
    grid = Grid((8, 8, 8))
    with pytest.raises(ValueError, match=r"air is not a CT of a head"):
        from_ct.simulate_mri(Volume(np.full(grid.shape_kji, -1000.0), grid, "CT", "air"))
