"""What the loops in C are given at the limits of their domain: they give what numpy gives."""

import numpy as np
import pytest

from BrainFusionLib.backend import on_cpu
from BrainFusionLib.backend.plain import Plain


@pytest.mark.parametrize("shape", [(1, 5, 5), (5, 1, 5), (5, 5, 1)])
def test_an_image_of_one_slice_has_no_slope_across_it(shape):
    random = np.random.default_rng(0)
    # In the middle of others, which would be read if the loop went beyond the image.
    around = random.integers(0, 200, (3, *shape), dtype=np.uint8)
    points, rows = random.uniform(-2, 2, (3, 50)).astype(np.float32), np.zeros(50, np.int32)
    turned = np.eye(3) * [shape[2] > 1, shape[1] > 1, shape[0] > 1]
    affines = np.hstack([turned, (np.array([shape[::-1]]).T - 1) / 2])[None]
    table = random.random((1, 4801)).astype(np.float32)
    found = []
    for backend in (on_cpu(), Plain()):
        counts, pull = backend.count(points, rows, around[1], affines, 4800, slopes=True)
        found.append((counts, pull(table)))
    np.testing.assert_array_equal(found[0][0], found[1][0])
    np.testing.assert_allclose(found[0][1], found[1][1], rtol=1e-6)


@pytest.mark.parametrize("limits", [(1.0, 1.0), (1e6, 1e6 + 1e-3)])
@pytest.mark.parametrize("backend", [on_cpu(), Plain()], ids=["default", "numpy"])
def test_a_table_without_a_range_gives_its_first_entry(backend, limits):
    values = np.array([[[0.0, 1.0, 1e6, 2e6]]], np.float32)
    found = backend.cells(values, np.arange(7, 100, dtype=np.uint8), *limits)
    assert (found == 7).all()
