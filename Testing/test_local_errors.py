"""Where CT and MRI fit, and where not."""

import numpy as np
import pytest

from BrainFusionLib.phantom import head_grid, make_phantom
from BrainFusionLib.registration.local import local_errors
from BrainFusionLib.volume import Volume


@pytest.fixture(scope="module", params=["T1", "T2"])
def pair(request):
    phantom, grid = make_phantom(1), head_grid(2.0)
    return phantom.ct(grid), phantom.mri(request.param, grid)


def test_a_right_pair_fits_nearly_everywhere(pair):
    found = local_errors(*pair)
    assert len(found.points_lps_mm) > 100
    assert np.median(found.lengths_mm) < 1.0


@pytest.mark.parametrize(
    ("roll_kji", "shift_lps"), [((0, 0, 2), (-4, 0, 0)), ((0, -1, 0), (0, 2, 0)), ((2, 0, 0), (0, 0, -4))]
)
def test_a_shift_is_found_with_its_direction(pair, roll_kji, shift_lps):
    ct, mri = pair
    found = local_errors(ct.with_array(np.roll(ct.array_kji, roll_kji, axis=(0, 1, 2))), mri)
    assert len(found.points_lps_mm) > 50
    np.testing.assert_allclose(np.median(found.shifts_mm, axis=0), shift_lps, atol=1.0)


def test_a_part_that_is_off_is_told_from_the_rest_on_an_oblique_grid_too(pair):
    ct, mri = pair
    array = ct.array_kji.copy()
    half = len(array) // 2
    array[half:] = np.roll(array, (0, 0, 2), axis=(0, 1, 2))[half:]
    found = local_errors(ct.with_array(array), mri)
    border = (mri.grid.lps_from_ijk @ [0, 0, half, 1])[2]
    height = found.points_lps_mm[:, 2]
    np.testing.assert_allclose(np.median(found.shifts_mm[height > border + 15], axis=0), (-4, 0, 0), atol=1.0)
    np.testing.assert_allclose(np.median(found.shifts_mm[height < border - 15], axis=0), (0, 0, 0), atol=1.0)
    told = found.to_dict()
    assert told["worst"]["shift_mm"] == pytest.approx(found.lengths_mm.max())
    assert told["worst"]["point_lps_mm"] == found.points_lps_mm[found.lengths_mm.argmax()].tolist()
    assert len(told["points_lps_mm"]) == len(told["shifts_mm"])


def test_where_nothing_can_be_measured_nothing_is_told(pair):
    ct, mri = pair
    noise = np.random.default_rng(0).normal(0, 1, mri.array_kji.shape).astype(np.float32)
    found = local_errors(Volume(ct.array_kji * 0 - 1000, ct.grid, "CT"), mri.with_array(noise))
    assert found.to_dict()["worst"] is None
    assert found.to_dict()["points_lps_mm"] == []
