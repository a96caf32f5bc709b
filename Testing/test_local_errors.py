"""Where CT and MRI fit, and where not; whether the CT's skull lies on the MRI's dark rim."""

import numpy as np
import pytest

from BrainFusionLib.evidence import LocalErrors
from BrainFusionLib.geometry import Grid
from BrainFusionLib.phantom import head_grid, make_phantom
from BrainFusionLib.verdict import matching
from BrainFusionLib.verdict.binning import bins_of
from BrainFusionLib.verdict.local import local_errors
from BrainFusionLib.verdict.skull import skull_fit
from BrainFusionLib.volume import Volume


@pytest.fixture(scope="module", params=["T1", "T2"])
def pair(request):
    phantom, grid = make_phantom(1), head_grid(2.0)
    return phantom.ct(grid), phantom.mri(request.param, grid)


def test_aligned_pair_has_small_local_errors(pair):
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


def test_displaced_part_is_located(pair):
    ct, mri = pair
    array = ct.array_kji.copy()
    half = len(array) // 2
    array[half:] = np.roll(array, (0, 0, 2), axis=(0, 1, 2))[half:]
    found = local_errors(ct.with_array(array), mri)
    border = (mri.grid.lps_from_ijk @ [0, 0, half, 1])[2]
    height = found.points_lps_mm[:, 2]
    np.testing.assert_allclose(np.median(found.shifts_mm[height > border + 15], axis=0), (-4, 0, 0), atol=1.0)
    np.testing.assert_allclose(np.median(found.shifts_mm[height < border - 15], axis=0), (0, 0, 0), atol=1.0)
    point, shift = found.worst
    assert point[2] > border
    assert shift > 3.0


def test_a_single_region_that_scatters_is_not_the_largest_misalignment(pair):
    found = local_errors(*pair)
    assert found.lengths_mm.max() > 2.0
    assert found.worst[1] < 1.5


def test_with_no_neighbours_a_single_region_is_the_largest_misalignment():
    points = np.array([[0.0, 0, 0], [100, 0, 0]])
    point, shift = LocalErrors(21.0, points, np.array([[1.0, 0, 0], [0, 3.0, 4.0]])).worst
    assert point.tolist() == [100, 0, 0]
    assert shift == 5.0


def test_volumes_without_measurable_blocks_give_no_errors(pair):
    ct, mri = pair
    noise = np.random.default_rng(0).normal(0, 1, mri.array_kji.shape).astype(np.float32)
    found = local_errors(Volume(ct.array_kji * 0 - 1000, ct.grid, "CT"), mri.with_array(noise))
    assert found.worst is None
    assert found.median_mm is None
    assert found.fit is None


def test_a_right_pair_fits_in_all_its_parts(pair):
    fit = local_errors(*pair).fit
    assert fit.median_mm < 1
    assert fit.part_mm < 0.7
    assert fit.share > 0.4
    assert fit.least_share > 0.3


def test_displaced_half_head_is_flagged(pair):
    ct, mri = pair
    array = ct.array_kji.copy()
    half = len(array) * 6 // 10
    array[half:] = np.roll(array, (0, 2, 0), axis=(0, 1, 2))[half:]
    fit = local_errors(ct.with_array(array), mri).fit
    assert fit.median_mm < 2
    assert fit.part_mm == pytest.approx(4, abs=1.2)


def test_stretched_ct_is_flagged(pair):
    ct, mri = pair
    heights = np.arange(len(ct.array_kji))
    middle = heights.mean()
    places = np.clip(np.rint(middle + (heights - middle) / 1.08), 0, len(heights) - 1).astype(int)
    fit = local_errors(ct.with_array(ct.array_kji[places]), mri).fit
    assert fit.part_mm > 1.2


def test_parts_that_do_not_belong_together_cannot_be_measured(pair):
    ct, mri = pair
    wrong = local_errors(ct.with_array(ct.array_kji[::-1]), mri)
    assert wrong.fit.share < 0.3
    assert wrong.fit.least_share < 0.2


def test_a_right_skull_lies_on_the_dark_rim(pair):
    found = skull_fit(*pair)
    assert found.shift_mm < 1
    assert found.depth > 0.1
    assert not found.at_edge


@pytest.mark.parametrize(("roll_kji", "shift_mm"), [((0, 0, 2), 4), ((0, -1, 0), 2), ((3, 0, 0), 6)])
def test_a_skull_that_is_off_is_found_to_be(pair, roll_kji, shift_mm):
    ct, mri = pair
    found = skull_fit(ct.with_array(np.roll(ct.array_kji, roll_kji, axis=(0, 1, 2))), mri)
    assert found.shift_mm == pytest.approx(shift_mm, abs=1)
    far = skull_fit(ct.with_array(np.roll(ct.array_kji, (0, 0, 7), axis=(0, 1, 2))), mri)
    assert far.at_edge
    assert far.shift_mm > 6


def test_skull_is_not_measured_without_bone_or_contrast(pair):
    ct, mri = pair
    assert skull_fit(ct.with_array(np.minimum(ct.array_kji, 60)), mri) is None
    assert skull_fit(ct, mri.with_array(np.ones_like(mri.array_kji))) is None
    noise = np.random.default_rng(0).normal(0, 1, mri.array_kji.shape).astype(np.float32)
    assert skull_fit(ct, mri.with_array(noise)).depth < 0.02


def test_skull_stripped_mri_is_recognised(pair):
    ct, mri = pair
    stripped = mri.with_array(np.where(ct.array_kji < 90, mri.array_kji, 0))
    assert skull_fit(ct, stripped).brightness < 0.1 < skull_fit(ct, mri).brightness


def test_head_holder_is_not_taken_for_skull(pair):
    ct, mri = pair
    array = ct.array_kji.copy()
    array[:, -2:, :] = 1500
    assert skull_fit(ct.with_array(array), mri).shift_mm == pytest.approx(skull_fit(ct, mri).shift_mm, abs=0.3)


def test_volume_of_few_voxels_gives_no_evidence(pair):
    ct, mri = (volume.with_array(volume.array_kji) for volume in pair)
    grid = Grid((2, 3, 2), (1.0, 1.0, 1.0))
    tiny = [Volume(volume.array_kji[40:42, 40:43, 40:42], grid, volume.modality) for volume in (ct, mri)]
    assert len(local_errors(*tiny).lengths_mm) == 0
    assert skull_fit(*tiny, np.ones((2, 3, 2), dtype=bool)) is None


def test_compiled_loops_and_numpy_sum_shifted_images_alike(monkeypatch):
    if matching._compiled() is None:
        pytest.skip("no C library: python3 dev.py build")
    random = np.random.default_rng(3)
    a, b = (random.integers(0, 5, (9, 8, 10), dtype=np.uint8) for _ in range(2))
    table, image = random.normal(size=(5, 6)).astype(np.float32), random.normal(size=a.shape).astype(np.float32)
    first, places = np.array([[0, 0, 0], [4, 3, 5]]), np.array([[0, 0, 0], [8, 7, 9], [4, 2, 3]])
    reach = np.array([2, 1, 3])

    def both():
        sums = matching.sums_of_shifted(a, b, table, first, np.array([4, 3, 5]), reach)
        return sums, matching.means_around(image, places, reach)

    sums, means = both()
    monkeypatch.setattr(matching, "_compiled", lambda: None)
    for compiled, plain in zip((sums, means), both(), strict=True):
        np.testing.assert_allclose(compiled, plain, atol=1e-5)
    wide = np.pad(image, [(r, r) for r in reach], mode="edge")
    at = places + np.array([4, 0, 1])
    assert means[4, 0, 1] == pytest.approx(wide[tuple(at.T)].mean(), abs=1e-6)
    block = np.pad(a, [(r, r) for r in reach], mode="edge")[4:8, 2:5, 1:6]
    assert sums[4, 2, 1, 0] == pytest.approx(table[block, b[:4, :3, :5]].sum(), abs=1e-4)


def test_skull_of_an_mri_thinner_than_a_block_is_not_measured():
    grid = Grid((64, 64, 6), spacing_ijk_mm=(2, 2, 0.2))
    noise = np.random.default_rng(0).normal(0, 300, grid.shape_kji).astype(np.float32)
    assert skull_fit(Volume(noise, grid, "CT"), Volume(noise, grid, "MR"), np.ones(noise.shape, bool)) is None


def test_bins_are_those_of_numpy_also_at_edges_between_two_floats() -> None:
    values = np.random.default_rng(0).normal(size=(7, 9, 11)).astype(np.float32)
    some = values.ravel()[:9].astype(np.float64)
    edges = np.sort(np.concatenate([some, some + 1e-12, some - 1e-12]))
    assert np.array_equal(bins_of(values, edges), np.searchsorted(edges, values))
