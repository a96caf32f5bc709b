"""Connected pieces, what they enclose and distances: the C library against SimpleITK."""

import numpy as np
import pytest
import SimpleITK as sitk

from BrainFusionLib.intensity import pieces as module
from BrainFusionLib.intensity.pieces import by_size, distances, filled, largest, pieces

SHAPES = [(1, 1, 1), (1, 1, 7), (5, 1, 1), (1, 6, 1), (2, 3, 4), (9, 11, 13)]


def masks(shape):
    random = np.random.default_rng(sum(shape))
    yield np.zeros(shape, bool)
    yield np.ones(shape, bool)
    for share in (0.1, 0.3, 0.5, 0.8):
        yield random.random(shape) < share


@pytest.fixture(params=["library", "SimpleITK"])
def how(request, monkeypatch):
    if request.param == "SimpleITK":
        monkeypatch.setattr(module, "_compiled", lambda: None)
    elif module._compiled() is None:
        pytest.skip("no C library")


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("corners", [False, True])
def test_pieces_are_those_of_itk(how, shape, corners):
    for mask in masks(shape):
        labels, count = pieces(mask, corners=corners)
        image = sitk.GetImageFromArray(mask.astype(np.uint8))
        expected = sitk.GetArrayFromImage(sitk.ConnectedComponent(image, corners))
        np.testing.assert_array_equal(labels, expected)
        assert count == expected.max()


@pytest.mark.parametrize("shape", SHAPES)
def test_pieces_are_numbered_by_size_as_by_itk(how, shape):
    for mask in masks(shape):
        image = sitk.ConnectedComponent(sitk.GetImageFromArray(mask.astype(np.uint8)))
        expected = sitk.GetArrayFromImage(sitk.RelabelComponent(image))
        np.testing.assert_array_equal(by_size(mask), expected)
        np.testing.assert_array_equal(largest(mask), expected == 1)


@pytest.mark.parametrize("shape", SHAPES)
def test_what_a_mask_encloses_is_filled_as_by_itk(how, shape):
    for mask in masks(shape):
        expected = sitk.GetArrayFromImage(sitk.BinaryFillhole(sitk.GetImageFromArray(mask.astype(np.uint8))))
        np.testing.assert_array_equal(filled(mask), expected.astype(bool))


@pytest.mark.parametrize("shape", SHAPES)
def test_distances_are_those_to_the_nearest_voxel_of_a_mask(how, shape):
    spacing = np.array([2.5, 1.0, 0.7])
    for mask in masks(shape):
        if not mask.any() or min(shape) < 2:
            continue
        at, all_at = np.argwhere(mask) * spacing, np.argwhere(~mask) * spacing
        expected = np.linalg.norm(all_at[:, None] - at, axis=2).min(axis=1) if len(all_at) else []
        np.testing.assert_allclose(distances(mask, spacing)[~mask], expected, rtol=1e-6)


def test_pieces_of_masks_with_gaps_between_their_voxels_are_found(how):
    mask = np.random.default_rng(0).random((8, 9, 20)) < 0.5
    np.testing.assert_array_equal(pieces(mask[::2, ::-1, 1::3])[0], pieces(mask[::2, ::-1, 1::3].copy())[0])
