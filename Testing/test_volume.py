import numpy as np
import pytest

from BrainFusionLib.errors import GeometryError, SettingsError
from BrainFusionLib.geometry import Grid
from BrainFusionLib.volume import Volume

GRID = Grid((4, 3, 2))


def test_array_of_another_shape_is_rejected_by_name():
    with pytest.raises(GeometryError, match=r"skull\.nii: .*\(4, 3, 2\) \(k, j, i\).*\(2, 3, 4\)"):
        Volume(np.zeros((4, 3, 2)), GRID, name="skull.nii")


@pytest.mark.parametrize("shape", [(), (24,), (3, 4), (1, 2, 3, 4)])
def test_an_array_that_is_not_3d_is_refused(shape):
    with pytest.raises(GeometryError, match="needs"):
        Volume(np.zeros(shape), GRID)


@pytest.mark.parametrize("modality", ["ct", "MRI", ""])
def test_a_modality_of_another_name_is_refused(modality):
    with pytest.raises(SettingsError, match=f'skull.nii: the modality must be "CT", "MR" or None; got \'{modality}\''):
        Volume(np.zeros((2, 3, 4)), GRID, modality, "skull.nii")


@pytest.mark.parametrize("dtype", ["<i2", ">i2", "u1", ">f8", "?"])
@pytest.mark.parametrize("order", ["C", "F"])
def test_voxels_become_contiguous_float32(dtype, order):
    array = np.arange(24).reshape(2, 3, 4).astype(dtype, order=order)
    kept = Volume(array, GRID).array_kji
    assert kept.dtype == np.float32
    assert kept.dtype.isnative
    assert kept.flags.c_contiguous
    np.testing.assert_array_equal(kept, array.astype(float))


def test_a_reversed_view_keeps_its_order_of_slices():
    array = np.arange(24, dtype=np.float32).reshape(2, 3, 4)
    np.testing.assert_array_equal(Volume(array[::-1], GRID).array_kji[0], array[1])


def test_float32_voxels_are_not_copied():
    array = np.zeros((2, 3, 4), np.float32)
    assert np.shares_memory(Volume(array, GRID).array_kji, array)


def test_new_voxels_keep_grid_and_name():
    volume = Volume(np.zeros((2, 3, 4)), GRID, "CT", "head", ("repaired",))
    other = volume.with_array(np.ones((2, 3, 4)), modality="MR")
    assert (other.grid, other.name, other.notes, other.modality) == (GRID, "head", ("repaired",), "MR")
    assert other.array_kji.min() == 1
    assert volume.array_kji.max() == 0
    assert volume.modality == "CT"


def test_other_voxels_of_another_shape_are_refused():
    with pytest.raises(GeometryError, match="head"):
        Volume(np.zeros((2, 3, 4)), GRID, name="head").with_array(np.zeros((2, 3, 5)))


def test_a_grid_of_another_kind_is_refused_by_name():
    with pytest.raises(GeometryError, match="grid must be a Grid; got"):
        Volume(np.zeros((2, 3, 4)), (1.0, 1.0, 1.0))
