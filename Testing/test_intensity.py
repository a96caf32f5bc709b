import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from BrainFusionLib.errors import GeometryError, ImageContentError
from BrainFusionLib.geometry import Grid
from BrainFusionLib.intensity import (
    bone_weight,
    check_mask,
    check_pair,
    ct_head_mask,
    ct_to_unit,
    hu_from_unit,
    in_hounsfield_units,
    looks_like_ct,
    looks_like_labels,
    mri_scale,
    otsu_threshold,
    window_of_fused,
    without_spikes,
)
from BrainFusionLib.intensity.hounsfield import offset_of
from BrainFusionLib.intensity.inside import inside_skull
from BrainFusionLib.intensity.wrapping import unwrapped
from BrainFusionLib.phantom import Tissue, head_grid, make_phantom
from BrainFusionLib.volume import Volume

quick = settings(max_examples=30, deadline=None)


@pytest.fixture(scope="module")
def phantom():
    return make_phantom(0)


@pytest.fixture(scope="module")
def ct(phantom):
    return phantom.ct(head_grid(4.0))


@pytest.fixture(scope="module")
def mri(phantom):
    return phantom.mri("T1", head_grid(4.0))


def _as(volume, array=None, **changes):
    return volume.with_array(volume.array_kji if array is None else array, **changes)


def _scaled(volume, lowest, highest):
    low, high = volume.array_kji.min(), volume.array_kji.max()
    return _as(volume, lowest + (volume.array_kji - low) * (highest - lowest) / (high - low), modality=None)


@pytest.mark.parametrize("highest", [2000.0, 3071.0])
@pytest.mark.parametrize("contrast", ["T1", "T2"])
def test_an_mri_scaled_to_the_range_of_a_ct_is_not_taken_for_one(phantom, mri, contrast, highest):
    given = _scaled(phantom.mri(contrast, head_grid(4.0)), -1024.0, highest)
    with pytest.raises(ImageContentError, match=r"tissue is above 300, as bone is, and no soft tissue.*may be an MRI"):
        check_pair(given, mri)
    check_pair(given, mri, stated=("CT",))


@pytest.mark.parametrize("noise_hu", [0.0, 100.0, 300.0])
@pytest.mark.parametrize("part", [slice(None), slice(0, 15), slice(-15, None)])
def test_noise_and_a_part_of_the_head_do_not_make_an_mri_of_a_ct(ct, mri, noise_hu, part):
    random = np.random.default_rng(0)
    array = (ct.array_kji + random.normal(0, noise_hu, ct.array_kji.shape))[part]
    check_pair(Volume(array, Grid(array.shape[::-1], ct.grid.spacing_ijk_mm), None), mri)


# The map between Hounsfield units and the unit scale.


@pytest.mark.parametrize(
    ("hu", "unit"),
    [
        *[(-1900, -0.05), (-1000, 0), (-100, 0.05), (0, 0.2875), (40, 0.3825), (300, 1)],
        *[(1150, 1.25), (2000, 1.5), (3000, 1.625), (4000, 1.75), (8000, 2.25)],
    ],
)
def test_hounsfield_units_on_the_unit_scale_by_hand(hu, unit):
    assert float(ct_to_unit(hu)) == pytest.approx(unit, abs=1e-6)
    assert float(hu_from_unit(unit)) == pytest.approx(hu, abs=0.01)


def test_every_16_bit_hounsfield_number_is_recovered():
    hu = np.arange(-32768, 32768)
    unit = ct_to_unit(hu)
    assert (np.diff(unit) > 0).all()
    np.testing.assert_array_equal(np.rint(hu_from_unit(unit)), hu)


@quick
@given(st.lists(st.floats(300, 4000), min_size=2, max_size=50))
def test_bone_is_recovered_to_a_hundredth_of_a_hounsfield_unit(values):
    hu = np.sort(values)
    np.testing.assert_allclose(hu_from_unit(ct_to_unit(hu)), hu, rtol=0, atol=0.01)
    assert (np.diff(ct_to_unit(hu)) >= 0).all()


def test_bone_is_from_one_upwards_and_soft_tissue_below():
    assert (ct_to_unit(np.arange(300, 4000)) >= 1).all()
    assert (ct_to_unit(np.arange(-1000, 300)) < 1).all()


def test_the_map_keeps_shape_and_is_float32():
    assert ct_to_unit(np.zeros((2, 3, 4), np.int16)).shape == (2, 3, 4)
    assert ct_to_unit(np.zeros(5, np.int16)).dtype == hu_from_unit(np.zeros(5)).dtype == np.float32


def test_bone_weight_is_a_ramp_from_200_to_300():
    weight = bone_weight([-1000, 199, 200, 225, 250, 299, 300, 301, 3000])
    np.testing.assert_allclose(weight, [0, 0, 0, 0.25, 0.5, 0.99, 1, 1, 1], atol=1e-6)
    # Exactly 0 and 1 at the ends: there the fused volume is MRI and CT to the last bit.
    assert (weight[[0, 1, 2]] == 0).all()
    assert (weight[[6, 7, 8]] == 1).all()
    assert weight.dtype == np.float32


def test_the_window_of_a_fused_volume_reaches_dense_bone():
    low, high = window_of_fused(100, 500)
    assert low == 100
    assert high == pytest.approx(100 + 400 * float(ct_to_unit(2000)))


# The MRI's scale.


def _variance_between(values, threshold):
    below, above = values[values <= threshold], values[values > threshold]
    return below.size * above.size * (below.mean() - above.mean()) ** 2 if below.size and above.size else 0.0


@quick
@given(st.integers(0, 10_000), st.floats(0.1, 0.9), st.floats(0.5, 8), st.floats(1e-2, 1e4), st.floats(-5, 5))
def test_otsus_threshold_equals_an_exhaustive_search(seed, share, apart, scale, offset):
    rng = np.random.default_rng(seed)
    values = rng.normal(0, 1, 200) + apart * (rng.random(200) < share)
    values = ((values + offset) * scale).astype(np.float32)
    best = max(_variance_between(values, value) for value in values)
    assert _variance_between(values, otsu_threshold(values)) > 0.93 * best


def test_otsus_threshold_ignores_a_few_bright_voxels():
    rng = np.random.default_rng(0)
    values = np.concatenate([rng.normal(20, 5, 5000), rng.normal(200, 30, 5000), [60_000] * 5]).astype(np.float32)
    assert 40 < otsu_threshold(values) < 130


def _box_of_tissue(background, tissue, shape=(24, 24, 24)):
    array = np.full(shape, background, np.float32)
    inner = array[tuple(slice(n // 4, -(n // 4)) for n in shape)]
    inner[...] = np.random.default_rng(0).uniform(*tissue, inner.shape)
    return array


@pytest.mark.parametrize("shape", [(24, 24, 24), (8, 60, 60)])
def test_mri_scale_of_a_box_matches_a_hand_calculation(shape):
    low, high = mri_scale(_box_of_tissue(10, (200, 300), shape))
    assert low == 10
    assert high == pytest.approx(299, abs=2)


def test_mri_scale_ignores_a_few_bright_voxels(mri):
    brighter = mri.array_kji.copy()
    brighter.ravel()[np.random.default_rng(0).choice(brighter.size, brighter.size // 2000, replace=False)] = 30_000
    np.testing.assert_allclose(mri_scale(brighter), mri_scale(mri.array_kji), rtol=0.05)


@quick
@given(st.sampled_from([1e-12, 1e-9, 1e-3, 1.0, 7.7, 1e4]), st.floats(-5, 5))
def test_the_mri_scale_follows_any_rescaling_of_the_intensities(mri, scale, offset):
    low, high = mri_scale(mri.array_kji)
    moved = (mri.array_kji.astype(np.float64) + offset * high) * scale
    expected = ((low + offset * high) * scale, (high + offset * high) * scale)
    np.testing.assert_allclose(mri_scale(moved.astype(np.float32)), expected, rtol=0, atol=2e-3 * (high - low) * scale)


@pytest.mark.parametrize("value", [0.0, -5.0, 1e6])
def test_a_constant_mri_has_no_scale(value):
    with pytest.raises(ImageContentError, match=r"constant.*Choose another"):
        mri_scale(np.full((16, 16, 16), value, np.float32))


# The head in a CT.


def test_head_mask_excludes_the_holder(phantom):
    grid = Grid((74, 92, 68), (3.0, 3.0, 3.0), (-111, -124, -108))
    tissue = phantom.labels(grid).array_kji
    clean, noisy = phantom.ct(grid, noise_hu=0).array_kji, phantom.ct(grid, table=True)
    holder = (noisy.array_kji > -300) & (clean < -900)
    assert holder.sum() > 4000
    mask = ct_head_mask(noisy)
    assert mask[(tissue > 0) & (clean > -300)].mean() > 0.99
    assert mask[np.isin(tissue, [Tissue.GREY_MATTER, Tissue.WHITE_MATTER, Tissue.VENTRICLE, Tissue.METAL])].all()
    assert mask[holder].mean() < 0.1
    assert mask[tissue == 0].mean() < 0.01


def _ellipsoid(size, spacing, radii, centre_mm=(0, 0, 0)):
    """Return a grid centred on the origin, and where the ellipsoid is on it (kji)."""
    grid = Grid(size, spacing, tuple(-(n - 1) / 2 * s for n, s in zip(size, spacing, strict=True)))
    k, j, i = np.indices(grid.shape_kji)
    x, y, z = (
        np.stack([i, j, k]) * np.reshape(spacing, (3, 1, 1, 1)) + np.reshape(grid.origin_lps_mm, (3, 1, 1, 1))
    ) - np.reshape(centre_mm, (3, 1, 1, 1))
    return grid, (x / radii[0]) ** 2 + (y / radii[1]) ** 2 + (z / radii[2]) ** 2 < 1


def _overlap(a, b):
    return 2 * (a & b).sum() / (a.sum() + b.sum())


@pytest.mark.parametrize("spacing", [(3.0, 3.0, 3.0), (4.0, 3.0, 5.0), (0.75, 1.5, 4.0), (4.0, 1.0, 2.0), (1.0,) * 3])
def test_head_mask_is_right_for_any_spacing(spacing):
    size = tuple(round(edge / s) for edge, s in zip((120, 150, 96), spacing, strict=True))
    grid, head = _ellipsoid(size, spacing, (40, 60, 32))
    mask = ct_head_mask(Volume(np.where(head, 40, -1000), grid, "CT"))
    assert _overlap(mask, head) > 0.95
    # Not shifted: blocks of an even number of voxels have no middle voxel, so half a voxel is allowed.
    middles = [np.mean(np.nonzero(where), axis=1) for where in (mask, head)]
    np.testing.assert_allclose(*middles, rtol=0, atol=0.55)


def test_head_mask_is_one_filled_piece():
    grid, head = _ellipsoid((50, 50, 50), (3.0, 3.0, 3.0), (45, 45, 45))
    _, sinus = _ellipsoid((50, 50, 50), (3.0, 3.0, 3.0), (15, 15, 15))
    _, other = _ellipsoid((50, 50, 50), (3.0, 3.0, 3.0), (12, 12, 12), (60, 60, 60))
    hu = np.where(head & ~sinus, 40, -1000)
    hu[other] = 1000
    hu[:, 45, :] = 200
    hu[10:20, 40:46, 25] = 200
    mask = ct_head_mask(Volume(hu, grid, "CT"))
    assert mask[head].all()
    assert mask[sinus].all()
    assert not mask[other].any()
    assert not mask[:, 45, :].any()


def test_head_mask_reaches_the_border_of_a_cut_head():
    grid, head = _ellipsoid((30, 30, 20), (3.0, 3.0, 3.0), (60, 50, 45))
    mask = ct_head_mask(Volume(np.where(head, 40, -1000), grid, "CT"))
    assert head[0].mean() > 0.3
    assert _overlap(mask[0], head[0]) > 0.97
    assert _overlap(mask[:, :, -1], head[:, :, -1]) > 0.97


def test_head_mask_of_a_slab_excludes_a_touching_wall():
    # 9 mm thick: thinner than the ball that the mask is opened with, were it not continued beyond the border.
    grid, head = _ellipsoid((50, 50, 3), (3.0, 3.0, 3.0), (40, 40, 400))
    hu = np.where(head, 40, -1000)
    hu[:, 25, 24:] = 200
    mask = ct_head_mask(Volume(hu, grid, "CT"))
    assert mask[head].all()
    assert not mask[:, :, 43:].any()


@pytest.mark.parametrize("size", [(4, 4, 4), (40, 40, 4), (200, 5, 4)])
def test_head_mask_of_few_voxels_has_the_volumes_shape(size):
    mask = ct_head_mask(Volume(np.full(size[::-1], 40.0), Grid(size), "CT"))
    assert mask.shape == size[::-1]
    assert mask.all()


def test_ct_of_air_is_rejected_by_name():
    with pytest.raises(ImageContentError, match=r"empty\.nii: no voxel is above -300 HU.*CT in Hounsfield units"):
        ct_head_mask(Volume(np.full((8, 8, 8), -1000.0), Grid((8, 8, 8)), "CT", "empty.nii"))


# What is refused.


@pytest.mark.parametrize("contrast", ["T1", "T2", "FLAIR"])
def test_ct_and_mri_of_a_head_are_accepted(phantom, ct, contrast):
    other = phantom.mri(contrast, head_grid(5.0))
    for ct_says, mri_says in (("CT", "MR"), (None, None), ("CT", None), (None, "MR")):
        check_pair(_as(ct, modality=ct_says), _as(other, modality=mri_says))


@pytest.mark.parametrize(
    "stored",
    [
        pytest.param(lambda a: np.rint(a), id="whole numbers"),
        pytest.param(lambda a: np.clip(np.rint(a / 5), 0, 255), id="8 bits"),
        pytest.param(lambda a: np.where(a < 100, 0, np.rint(a)), id="background set to 0"),
        pytest.param(lambda a: (a - a.mean()) / a.std(), id="standardised"),
    ],
)
def test_mri_is_accepted_in_any_orientation(ct, mri, stored):
    check_pair(ct, _as(mri, stored(mri.array_kji), modality=None))


def test_an_mri_in_a_wide_empty_background_is_accepted(ct, mri):
    head = np.where(mri.array_kji < 100, 0, np.rint(mri.array_kji))
    wide = np.pad(head, ((0, 0), (30, 30), (30, 30)))
    check_pair(ct, Volume(wide, Grid(wide.shape[::-1]), name="wide"))


def test_what_dicom_says_is_believed_over_the_values(ct, mri):
    below_zero = mri.array_kji - 300
    check_pair(ct, _as(mri, below_zero, modality="MR"))
    with pytest.raises(ImageContentError, match="given as CT"):
        check_pair(_as(mri, below_zero, modality="MR"), mri)


def test_ct_with_padding_below_air_is_accepted(ct, mri):
    padded = np.rint(ct.array_kji)
    padded[:, :6] = -3024
    check_pair(_as(ct, padded, modality=None), mri)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_voxels_that_are_no_numbers_are_counted_and_refused(ct, mri, value):
    broken = ct.array_kji.copy()
    broken[3, 4, 5:7] = value
    with pytest.raises(ImageContentError, match=r"broken, given as CT, has 2 voxels that are NaN or infinite.*Replace"):
        check_pair(_as(ct, broken, name="broken"), mri)


@pytest.mark.parametrize("value", [0, -1000])
def test_a_constant_volume_is_refused_with_its_value(ct, mri, value):
    with pytest.raises(ImageContentError, match=f"blank, given as MRI, is empty: every voxel is {value}"):
        check_pair(ct, _as(mri, np.full_like(mri.array_kji, value), name="blank"))


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_a_few_slices_are_refused_along_any_axis(ct, mri, axis):
    size = [20, 20, 20]
    size[2 - axis] = 3
    thin = Volume(np.random.default_rng(0).random(size[::-1]), Grid(tuple(size)), name="thin")
    with pytest.raises(ImageContentError, match=r"thin, given as MRI.*at least 4.*whole 3D volume"):
        check_pair(ct, thin)


def _segmentation(shape):
    k, j, i = np.indices(shape) // 9
    return ((k + 2 * j + 5 * i) % 7) * 11


@pytest.mark.parametrize("make", [_segmentation, lambda shape: _segmentation(shape) > 30], ids=["labels", "mask"])
@pytest.mark.parametrize("role", ["CT", "MRI"])
def test_a_label_map_is_refused_in_either_place(ct, mri, make, role):
    labels = _as(mri, make(mri.array_kji.shape), modality=None, name="seg")
    with pytest.raises(ImageContentError, match=f"seg, given as {role}, looks like a label map.*not a segmentation"):
        check_pair(labels if role == "CT" else ct, labels if role == "MRI" else mri)


@pytest.mark.parametrize("contrast", ["T1", "T2", "FLAIR", "PD"])
def test_an_mri_of_any_scale_is_not_taken_for_a_ct(phantom, ct, contrast):
    mri = phantom.mri(contrast, ct.grid)
    for scale in np.geomspace(0.5, 50, 25):
        check_pair(ct, _as(mri, mri.array_kji * np.float32(scale), modality=None))


def test_only_labels_and_masks_look_like_labels(phantom, ct, mri):
    tissue = phantom.labels(ct.grid).array_kji
    for labels in (tissue, tissue > 0, tissue == Tissue.WHITE_MATTER, tissue == Tissue.BONE):
        assert looks_like_labels(labels.astype(np.float32))
    assert not looks_like_labels(np.rint(ct.array_kji))
    assert not looks_like_labels(np.rint(mri.array_kji))
    assert not looks_like_labels((0.37 * _segmentation(ct.array_kji.shape)).astype(np.float32))


def test_one_volume_in_both_places_is_refused_by_name(ct):
    with pytest.raises(ImageContentError, match=r"both as CT and as MRI.*two different"):
        check_pair(ct, _as(ct, ct.array_kji.copy()))


@pytest.mark.parametrize("modalities", [("CT", "MR"), (None, None), ("CT", None), (None, "MR")])
def test_ct_and_mri_swapped_are_refused_with_both_names(ct, mri, modalities):
    with pytest.raises(ImageContentError, match=r"swapped: A, given as MRI.*B, given as CT.*Exchange"):
        check_pair(_as(mri, modality=modalities[1], name="B"), _as(ct, modality=modalities[0], name="A"))


def test_what_tells_the_modality_is_said_as_it_is_header_or_values(ct, mri):
    for modality, told in (("CT", "by its header"), (None, "by its values")):
        with pytest.raises(ImageContentError, match=f"is one {told}, too"):
            check_pair(ct, _as(ct, ct.array_kji + 1, modality=modality))
    with pytest.raises(ImageContentError, match=r"is a CT by its header, and .* is not"):
        check_pair(_as(ct, modality="MR"), _as(mri, modality="CT"))


def test_ct_whose_header_says_mri_is_not_said_to_have_other_values(ct, mri):
    with pytest.raises(ImageContentError, match=r"is not a CT by its header \(modality MR\)"):
        check_pair(_as(ct, modality="MR"), mri)
    check_pair(_as(ct, modality="MR"), mri, stated=["CT"])


@pytest.mark.parametrize("modality", ["CT", None])
def test_two_cts_are_refused(phantom, ct, modality):
    other = phantom.ct(ct.grid, seed=1)
    with pytest.raises(ImageContentError, match=r"both volumes seem to be CTs: second.*Give an MRI"):
        check_pair(_as(ct, modality=modality), _as(other, modality=modality, name="second"))


def test_an_mri_with_a_third_of_the_head_at_1024_is_not_taken_for_a_ct(ct, mri):
    random = np.random.default_rng(0)
    where, shape = random.random(mri.array_kji.shape), mri.array_kji.shape
    values = np.select(
        [where < 0.4, where < 0.6], [0, random.uniform(1030, 1100, shape)], random.uniform(1300, 3500, shape)
    )
    values = values.astype(np.float32)
    assert offset_of(values.ravel()) is not None
    check_pair(ct, _as(mri, values, modality=None))


@pytest.mark.parametrize("offset", [0, 1000, 1024, 32768])
def test_a_ct_without_its_rescale_intercept_is_not_taken_for_an_mri(phantom, ct, mri, offset):
    other = _as(ct, phantom.ct(ct.grid, seed=1).array_kji + offset, modality=None, name="second")
    with pytest.raises(ImageContentError, match=r"both volumes seem to be CTs: second"):
        check_pair(ct, other)
    with pytest.raises(ImageContentError, match=r"swapped: second, given as MRI"):
        check_pair(_as(mri, modality=None), other)


@pytest.mark.parametrize("modality", ["CT", None])
@pytest.mark.parametrize(
    "convert",
    [
        pytest.param(lambda hu: hu + 1024, id="no rescale intercept"),
        pytest.param(lambda hu: np.maximum(hu, 0), id="cut at 0"),
        pytest.param(lambda hu: np.clip((hu + 160) / 400 * 255, 0, 255), id="windowed to 8 bits"),
    ],
)
def test_ct_outside_hounsfield_units_is_rejected_with_its_range(ct, mri, convert, modality):
    with pytest.raises(ImageContentError, match=r"raw, given as CT, is not in Hounsfield units.*rescale slope"):
        check_pair(_as(ct, convert(ct.array_kji), modality=modality, name="raw"), mri)


def test_two_mris_are_refused(phantom, mri):
    for modality, why in (("MR", "is not a CT by its header"), (None, "not in Hounsfield units")):
        with pytest.raises(ImageContentError, match=why):
            check_pair(_as(phantom.mri("T2", mri.grid), modality=modality), mri)


def test_ct_and_mri_are_distinguished_by_their_values(phantom, ct, mri):
    assert looks_like_ct(ct.array_kji)
    assert not looks_like_ct(mri.array_kji)
    assert not looks_like_ct(np.full((8, 8, 8), -1000, np.float32))
    rim = phantom.ct(Grid((20, 20, 4), (4.0, 4.0, 4.0), (-140, -40, 0)))
    check_pair(_as(rim, modality=None), mri)


@pytest.mark.parametrize("spacing", [0.001, 0.5, 1000.0])
def test_spacing_in_other_units_is_rejected(spacing):
    noise = np.random.default_rng(0).normal(0, 500, (20, 20, 20)).astype(np.float32)
    volume = Volume(noise, Grid((20, 20, 20), (spacing,) * 3), name="odd.nii")
    with pytest.raises(ImageContentError, match=rf"odd\.nii.*\({spacing:g}, .*not in millimetres"):
        check_pair(volume, volume)


# The registration mask.

MRI_GRID = Grid((6, 5, 4), (1.0, 1.0, 2.0), (-3.0, 7.0, 11.0))


def _mask(grid=MRI_GRID, ones=((1, 2, 3),)):
    array = np.zeros(grid.shape_kji)
    for place in ones:
        array[place] = 1
    return Volume(array, grid, name="mask.nrrd")


def _mri_of(grid):
    return Volume(np.zeros(grid.shape_kji), grid, "MR", "head.nii.gz")


def test_mask_is_the_region_above_zero():
    array = np.zeros(MRI_GRID.shape_kji)
    array[1, 2, 3], array[0, 0, 0], array[2, 2, 2], array[3, 4, 5] = 7, 0.001, -1, np.nan
    inside = check_mask(Volume(array, MRI_GRID), _mri_of(MRI_GRID))
    assert inside.dtype == bool
    assert np.argwhere(inside).tolist() == [[0, 0, 0], [1, 2, 3]]


def test_mask_with_a_rounded_header_is_accepted():
    rounded = Grid((6, 5, 4), (1.0, 1.0, 2.0001), (-3.01, 7.0, 11.0))
    assert check_mask(_mask(rounded), _mri_of(MRI_GRID)).sum() == 1


@pytest.mark.parametrize(
    ("grid", "words"),
    [
        pytest.param(Grid((6, 5, 5), (1, 1, 2), (-3, 7, 11)), "6 x 5 x 5 voxels", id="size"),
        pytest.param(Grid((6, 5, 4), (1, 1, 1.5), (-3, 7, 11)), "voxels of 1, 1, 1.5 mm", id="spacing"),
        pytest.param(Grid((6, 5, 4), (1, 1, 2), (-3, 7.5, 11)), r"origin \(-3, 7.5, 11\) mm LPS", id="origin"),
        pytest.param(
            Grid((6, 5, 4), (1, 1, 2), (-3, 7, 11), np.diag([-1, 1, 1])),
            r"axes \(-1, 0, 0; 0, 1, 0; 0, 0, 1\)",
            id="axes",
        ),
    ],
)
def test_mask_on_another_grid_is_rejected_with_both_grids(grid, words):
    mris = r"Grid of the MRI: 6 x 5 x 4 voxels of 1, 1, 2 mm, origin \(-3, 7, 11\) mm LPS"
    with pytest.raises(
        GeometryError, match=rf"mask.nrrd.*head.nii.gz.*Grid of the mask: .*{words}.*{mris}.*Resample the mask"
    ):
        check_mask(_mask(grid), _mri_of(MRI_GRID))


@pytest.mark.parametrize("value", [0, -1, np.nan])
def test_an_empty_mask_is_refused_by_name(value):
    empty = Volume(np.full(MRI_GRID.shape_kji, value), MRI_GRID, name="mask.nrrd")
    with pytest.raises(ImageContentError, match=r"mask.nrrd.*is empty.*omit the mask"):
        check_mask(empty, _mri_of(MRI_GRID))


# What is put right.


@pytest.mark.parametrize("offset", [1024, 1000, -1024, 32768])
@pytest.mark.parametrize("modality", ["CT", None])
def test_shifted_ct_is_put_right_with_a_note(ct, mri, offset, modality):
    whole = np.rint(np.maximum(ct.array_kji, -min(1024, abs(offset))))
    shifted = in_hounsfield_units(_as(ct, whole + offset, modality=modality))
    np.testing.assert_array_equal(shifted.array_kji, whole)
    assert f"{offset} was subtracted" in shifted.notes[0]
    check_pair(shifted, mri)


@pytest.mark.parametrize("value", [0, 40, 3071])
def test_padding_with_the_value_of_tissue_is_taken_for_air(ct, value):
    _, j, i = np.indices(ct.array_kji.shape)
    outside = np.hypot(j - ct.array_kji.shape[1] / 2, i - ct.array_kji.shape[2] / 2) > 0.5 * min(ct.array_kji.shape[1:])
    whole = np.where(outside, np.float32(-1000), np.rint(ct.array_kji))
    found = in_hounsfield_units(_as(ct, np.where(outside, np.float32(value), whole)))
    # The neck reaches the border, too, and has some voxels of just that value there.
    changed = found.array_kji != whole
    assert not changed[outside].any()
    assert changed.sum() < 10
    assert f"voxels at the border are all at {value}" in found.notes[0]
    assert in_hounsfield_units(_as(ct, whole)).notes == ()


def test_air_that_is_not_near_minus_1000_is_noted(ct):
    (note,) = in_hounsfield_units(_as(ct, ct.array_kji / 2, modality="CT")).notes
    assert "the air around the head is near -500, not -1000" in note


def test_an_offset_of_the_user_that_is_wrong_is_named(ct, mri):
    with pytest.raises(ImageContentError, match=r"not in Hounsfield units \(1024 was subtracted from the values"):
        check_pair(in_hounsfield_units(ct, 1024), mri)


def test_offset_of_the_user_is_subtracted(ct):
    moved = in_hounsfield_units(_as(ct, ct.array_kji + 512), 512)
    np.testing.assert_allclose(moved.array_kji, ct.array_kji, atol=1e-3)
    assert "512 was subtracted" in moved.notes[0]


def test_ct_cut_at_zero_gets_its_air_back(ct, mri):
    cut = in_hounsfield_units(_as(ct, np.maximum(np.rint(ct.array_kji), 0), modality=None))
    assert "cut off" in cut.notes[0]
    assert "Air inside the skull cannot be told from fluid" in cut.notes[0]
    np.testing.assert_array_equal(cut.array_kji[0, 0], -1000)
    dense = ct.array_kji > 20
    np.testing.assert_array_equal(cut.array_kji[dense], np.rint(ct.array_kji)[dense])
    check_pair(cut, mri)


WINDOWS = [(-160, 240), (-200, 300), (-400, 600), (-1000, 400), (-1000, 250), (-150, 3071)]


@pytest.mark.parametrize(("low", "high"), WINDOWS)
def test_ct_from_a_window_gets_air_and_bone_beyond_its_ends(ct, mri, low, high):
    whole = np.rint(ct.array_kji)
    found = in_hounsfield_units(_as(ct, np.clip(whole, low, high)))
    assert "cut off (by a window)" in found.notes[0]
    between = (whole > low) & (whole < high)
    np.testing.assert_array_equal(found.array_kji[between], whole[between])
    np.testing.assert_array_equal(found.array_kji[whole <= low], -1000)
    np.testing.assert_array_equal(found.array_kji[whole >= high], 3071 if high == 3071 else 700)
    check_pair(found, mri)


@pytest.mark.parametrize(("low", "high"), WINDOWS)
def test_ct_from_a_window_is_known_as_a_ct_where_an_mri_is_needed(ct, mri, low, high):
    cut = np.clip(np.rint(ct.array_kji), low, high)
    assert looks_like_ct(cut)
    with pytest.raises(ImageContentError, match="both volumes seem to be CTs"):
        check_pair(ct, _as(ct, cut, modality=None))
    with pytest.raises(ImageContentError, match="seem to be swapped"):
        check_pair(_as(mri, modality=None), _as(ct, cut, modality=None))


def test_inside_of_the_skull_is_as_large_in_a_ct_from_a_window(phantom):
    ct = phantom.ct(head_grid(2.0))
    whole, cut = (inside_skull(in_hounsfield_units(_as(ct, values))).volume_ml
                  for values in (ct.array_kji, np.clip(ct.array_kji, -160, 240)))  # fmt: skip
    assert cut == pytest.approx(whole, rel=0.03)


@pytest.mark.parametrize("offset", [-1024, 0, 1000, 1024])
@pytest.mark.parametrize("is_given", [True, False])
def test_window_is_found_with_an_offset_as_well(ct, offset, is_given):
    cut = np.clip(np.rint(ct.array_kji), -160, 240)
    found = in_hounsfield_units(_as(ct, cut + offset), offset if is_given else None)
    assert "by a window" in found.notes[-1]
    np.testing.assert_allclose(found.array_kji[cut == 30], 30, atol=24)  # 1024 or 1000


@pytest.mark.parametrize(("low", "high"), [(-20, 100), (0, 80), (-100, 200)])
@pytest.mark.parametrize("modality", ["CT", None])
def test_ct_from_a_window_that_begins_above_fat_is_refused_with_what_to_do(ct, mri, low, high, modality):
    cut = _as(ct, np.clip(np.rint(ct.array_kji), low, high), modality=modality)
    with pytest.raises(ImageContentError, match=rf"cut off below {low} HU.*begins at -150 HU or below\.$"):
        check_pair(in_hounsfield_units(cut), mri)


def test_ct_of_8_bits_is_refused_with_how_to_convert_it(ct, mri):
    of_8_bits = np.rint(255 * (np.clip(ct.array_kji, -160, 240) + 160) / 400)
    with pytest.raises(ImageContentError, match=r"0 to 255, as in an export of 8 bits.*value x .* / 255"):
        check_pair(in_hounsfield_units(_as(ct, of_8_bits)), mri)
    check_pair(in_hounsfield_units(_as(ct, -160 + of_8_bits * 400 / 255)), mri)


def _with_metal(ct, peak_hu, edge_mm=0.8):
    """A ball of metal in the middle of a CT at 0.5 mm, with a soft edge."""
    near = Grid((24, 24, 24), (0.5, 0.5, 0.5), (-6, -6, -6))
    k, j, i = np.indices(near.shape_kji) - 11.6
    share = 1 / (1 + np.exp((0.5 * np.sqrt(k**2 + j**2 + i**2) - 3) / (edge_mm / 4)))
    hu = 40 + share * (peak_hu - 40) + np.random.default_rng(0).normal(0, 15, near.shape_kji)
    return Volume(np.rint(hu).astype(np.float32), near, ct.modality, ct.name)


def _in_12_bits(volume):
    return _as(volume, (volume.array_kji + 1024) % 4096 - 1024, modality="CT")


@pytest.mark.parametrize("peak_hu", [3500, 4000, 4500])
def test_metal_wrapped_in_12_bits_is_unwrapped(ct, peak_hu):
    metal = _with_metal(ct, peak_hu)
    right = unwrapped(_in_12_bits(metal))
    np.testing.assert_array_equal(right.array_kji, metal.array_kji)
    assert "4096 was added" in right.notes[0]


@pytest.mark.parametrize("peak_hu", [5500, 9000])
def test_wrapped_metal_with_too_sharp_an_edge_is_noted(ct, peak_hu):
    assert "12 bits" in unwrapped(_in_12_bits(_with_metal(ct, peak_hu, edge_mm=0.4))).notes[-1]


def test_metal_cut_off_at_the_highest_value_is_left_as_it_is(ct):
    metal = _with_metal(ct, 6000)
    streaked = np.minimum(metal.array_kji, 3071)
    streaked[12, 12, 3:21:4] = -1000
    assert unwrapped(_as(metal, streaked)).notes == ()


def test_solid_metal_wrapped_in_the_middle_of_a_head_is_unwrapped_on_the_way_to_hounsfield_units(ct):
    metal = np.rint(ct.array_kji)
    k, j, i = np.indices(metal.shape)
    k, j, i = (index - 0.49 * n for index, n in zip((k, j, i), metal.shape, strict=True))
    away = np.sqrt(k**2 + j**2 + i**2)
    metal = np.where(away < 5, 2900, metal)
    metal = np.where(away < 3, 3500, metal)
    right = in_hounsfield_units(_as(ct, np.where(metal > 3071, metal - 4096, metal)))
    np.testing.assert_array_equal(right.array_kji, metal.astype(np.float32))
    assert "12 bits" in right.notes[0]
    assert in_hounsfield_units(_as(ct, np.minimum(metal, 3071))).notes == ()


def test_sound_ct_is_left_as_it_is(phantom, ct):
    for sound in (ct, phantom.ct(Grid((20, 20, 4), (4.0, 4.0, 4.0), (-140, -40, 0)))):
        assert in_hounsfield_units(without_spikes(sound)) is sound


def test_mri_is_not_taken_for_a_shifted_ct(phantom, mri):
    for contrast in ("T1", "T2", "FLAIR"):
        other = phantom.mri(contrast, mri.grid)
        assert in_hounsfield_units(_as(other, modality=None)).notes == ()


@pytest.mark.parametrize(
    "signed",
    [
        pytest.param(lambda a, noise: np.where(a > 100, a - 600, 0) + noise, id="PSIR"),
        pytest.param(lambda a, noise: np.where(a > 100, 4 * a - 3000, noise), id="PSIR of a wide range"),
        pytest.param(lambda a, noise: np.where(a > 100, a, -32768), id="padded"),
        pytest.param(lambda a, noise: np.where(a > 100, a, -1000), id="padded with -1000"),
        pytest.param(lambda a, noise: a * np.where(noise > 0, 1, -1), id="real part"),
    ],
)
def test_signed_mri_is_not_taken_for_a_ct(ct, mri, signed):
    noise = np.random.default_rng(1).normal(0, 15, mri.array_kji.shape)
    check_pair(ct, _as(mri, signed(mri.array_kji, noise), modality=None))


@pytest.mark.parametrize("padding", [-3024, -2000])
def test_ct_whose_padding_was_resampled_is_accepted(ct, mri, padding):
    j, i = np.indices(ct.array_kji.shape[1:]) - (np.array(ct.array_kji.shape[1:])[:, None, None] - 1) / 2
    radius = np.hypot(j, i) * 2 / min(ct.array_kji.shape[1:])
    share = np.clip((radius - 0.9) / 0.05, 0, 1)  # the border holds every value between
    check_pair(ct.with_array(((1 - share) * ct.array_kji + share * padding).astype(np.float32)), mri)


@pytest.mark.parametrize("slope", [2, 10])
def test_ct_with_a_wrong_slope_is_refused(ct, mri, slope):
    with pytest.raises(ImageContentError, match=r"its air is not near -1000\. Export the CT with its rescale slope"):
        check_pair(ct.with_array(ct.array_kji * np.float32(slope)), mri)


def test_inverted_ct_is_refused(ct, mri):
    with pytest.raises(ImageContentError, match=r"tissue is above 300, as bone is, and its air is not near -1000"):
        check_pair(_as(ct, -ct.array_kji), mri)


def test_volume_without_bone_is_refused_as_no_ct(ct, mri):
    soft = _as(ct, np.minimum(ct.array_kji, 120), name="soft")
    with pytest.raises(ImageContentError, match=r"soft, given as CT, shows no bone"):
        check_pair(soft, mri)
    check_pair(soft, mri, stated=["CT"])


def test_what_the_user_states_is_not_judged(ct, mri):
    with pytest.raises(ImageContentError, match="both volumes seem to be CTs"):
        check_pair(ct, _as(ct, ct.array_kji + 1, modality=None))
    check_pair(ct, _as(ct, ct.array_kji + 1, modality=None), stated=["MRI"])


@pytest.mark.parametrize("value", [1e9, -1e9, 3e38])
def test_one_wild_voxel_is_set_to_what_is_usual(mri, value):
    wild = mri.array_kji.copy()
    wild[3, 4, 5] = value
    tame = without_spikes(_as(mri, wild))
    assert np.abs(tame.array_kji).max() <= np.abs(mri.array_kji).max()
    assert "1 voxels of" in tame.notes[0]
    wild[3, 4, 5] = tame.array_kji[3, 4, 5]
    np.testing.assert_array_equal(tame.array_kji, wild)


def test_padding_far_below_all_others_is_taken_for_outside(mri):
    padded = mri.array_kji.copy()
    padded[:, :5] = -32768
    tame = without_spikes(_as(mri, padded))
    assert tame.array_kji.min() >= mri.array_kji.min()
    assert "far below all others" in tame.notes[0]
    assert without_spikes(mri) is mri
