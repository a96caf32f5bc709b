"""The same voxels at the same places, stored in another order: the evidence of a pose does not change."""

from dataclasses import replace
from functools import cache
from itertools import permutations, product

import numpy as np
import pytest

from BrainFusionLib.case.request import Inputs, Request, Source
from BrainFusionLib.case.run import run
from BrainFusionLib.geometry import Grid, apply_affine, rotation_matrix
from BrainFusionLib.phantom import make_pair
from BrainFusionLib.settings import Settings
from BrainFusionLib.volume import Volume, in_axial_order

ORDERS = [(axes, flips) for axes in permutations(range(3)) for flips in product((False, True), repeat=3)]


@cache
def pair():
    return make_pair(2, spacing_mm=2.5)


def stored(volume, axes, flips):
    """Return a volume whose n-th index axis was number ``axes[n]``, reversed where ``flips[n]``."""
    grid, axes = volume.grid, list(axes)
    last = np.zeros(3)
    last[[axis for axis, flip in zip(axes, flips, strict=True) if flip]] = 1
    origin = apply_affine(grid.lps_from_ijk, last * (np.array(grid.size_ijk) - 1))
    size, spacing = (tuple(values[axis] for axis in axes) for values in (grid.size_ijk, grid.spacing_ijk_mm))
    direction = np.array(grid.direction)[:, axes] * np.where(flips, -1, 1)
    array = np.flip(volume.array_kji.T.transpose(axes), [n for n in range(3) if flips[n]]).T
    return replace(volume, array_kji=array, grid=Grid(size, spacing, tuple(origin), direction))


def evidence(ct, mri):
    settings = Settings(device="cpu", threads=1)
    request = Request(Source("CT"), Source("MRI"), settings=settings, given=pair().transform, check=False, fuse=False)
    return run(request, Inputs(ct, mri)).evidence


@cache
def as_made():
    return evidence(pair().ct, pair().mri)


def numbers(part):
    return [value for value in vars(part).values() if isinstance(value, int | float)]


@pytest.mark.parametrize("which", ["CT", "MRI"])
@pytest.mark.parametrize(
    ("axes", "flips"), [((0, 1, 2), (True, True, False)), ((1, 2, 0), (False, False, True)), ((2, 1, 0), (True,) * 3)]
)
def test_evidence_of_a_pose_does_not_depend_on_the_order_of_storage(which, axes, flips):
    ct, mri = (stored(v, axes, flips) if which == name else v for name, v in (("CT", pair().ct), ("MRI", pair().mri)))
    found, before = evidence(ct, mri), as_made()
    for part in ("scale", "distortion", "brain_shift", "inside", "skull"):
        of_found, of_before = (numbers(getattr(one, part)) for one in (found, before))
        assert of_found == pytest.approx(of_before, abs=2e-3), part
    assert numbers(found.local.fit) == pytest.approx(numbers(before.local.fit), abs=2e-2)
    assert found.coverage == pytest.approx(before.coverage, abs=2e-3)


@pytest.mark.parametrize(("axes", "flips"), ORDERS)
def test_every_order_of_storage_is_brought_to_the_same_axial_one(axes, flips):
    grid = Grid((4, 5, 6), (1.0, 0.9, 1.2), (10, -20, 30), rotation_matrix((1, 2, 3), 20.0))
    axial = Volume(np.arange(120, dtype=np.float32).reshape(grid.shape_kji), grid)
    found = in_axial_order(stored(axial, axes, flips))
    np.testing.assert_array_equal(found.array_kji, axial.array_kji)
    assert found.grid.same_as(grid)


def test_a_volume_in_axial_order_is_not_copied():
    volume = pair().mri
    assert in_axial_order(volume) is volume
