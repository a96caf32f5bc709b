"""Simulated slices: seeded, in true units, with what was asked for in them."""

from dataclasses import fields, replace

import numpy as np
import pytest
import torch

from BrainFusionLib.intensity import ct_to_unit, hu_from_unit
from BrainFusionLib.phantom import Tissue
from simulation.heads import detailed_phantom
from simulation.scans import SimulationConfig, draw_scan
from simulation.slices_torch import _unit, render

PLAIN = SimulationConfig(**{entry.name: 0.0 for entry in fields(SimulationConfig)})
SIZE = (64, 64)


@pytest.fixture(scope="module")
def head():
    return detailed_phantom(3, 4.0)


def rendered(head, config, seed=(1,), heights=(0.0, 30.0)):
    scan = draw_scan(head, config, seed)
    return scan, render(head, torch.from_numpy(head.tissue_kji), scan, heights, SIZE, 3.6)


def test_seed_decides_the_scan(head):
    everything = SimulationConfig(metal=1, lesion=1, holder=1, ghosting=1)
    one, again, other = (rendered(head, everything, seed)[1] for seed in ((1, 2), (1, 2), (1, 3)))
    assert all(torch.equal(a, b) for a, b in zip(one, again, strict=True))
    assert not torch.equal(one[1], other[1])


def test_plain_scan_is_in_true_units(head):
    _, (ct, mri, bone) = rendered(head, PLAIN)
    hu = hu_from_unit(ct.numpy())
    assert hu[0, 0, 0, 0] == pytest.approx(-1000, abs=1)
    assert 0 < np.median(hu[:, :, 28:36, 28:36]) < 60  # brain
    assert hu.max() > 900
    assert 0.9 < np.percentile(mri.numpy()[mri.numpy() > 0.15], 99) < 1.3
    np.testing.assert_allclose(bone.numpy(), np.clip((hu - 200) / 100, 0, 1), atol=1e-3)


def test_unit_scale_is_that_of_the_library():
    hu = torch.linspace(-1500, 6000, 2001)
    np.testing.assert_allclose(_unit(hu).numpy(), ct_to_unit(hu.numpy()), atol=1e-5)


def test_misregistration_is_as_large_as_asked(head):
    shifts = []
    for seed in range(40):
        scan = draw_scan(head, replace(PLAIN, misregistration_mm=2.0), (seed,))
        pose, moved = scan.head_from_mri, scan.head_from_ct
        assert np.linalg.norm((moved - pose)[:, 3] / np.linalg.norm(pose[:, :3], axis=0)) < 2.3
        shifts.append(np.linalg.norm((moved - pose)[:, 3]))
    assert max(shifts) > 1.2
    exact = draw_scan(head, PLAIN, (1,))
    np.testing.assert_array_equal(exact.head_from_ct, exact.head_from_mri)


@pytest.mark.parametrize(
    ("name", "tissue"),
    [
        ("metal", Tissue.METAL),
        ("lesion", Tissue.TUMOUR),
        ("haemorrhage", Tissue.BLOOD),
        ("calcification", Tissue.CALCIFICATION),
    ],
)
def test_scan_has_what_was_asked_for(head, name, tissue):
    for seed in range(5):
        with_it = draw_scan(head, replace(PLAIN, **{name: 1.0}), (seed,))
        assert tissue in {blob.tissue for blob in with_it.blobs}
        assert not draw_scan(head, PLAIN, (seed,)).blobs


def test_metal_has_streaks_and_a_void(head):
    scan, _ = rendered(head, replace(PLAIN, metal=1.0), seed=(4,))
    blob = next(blob for blob in scan.blobs if blob.tissue == Tissue.METAL)
    # The slice in which the metal's middle lies, were the head not turned or shifted.
    still = replace(scan, head_from_mri=np.eye(3, 4), head_from_ct=np.eye(3, 4), blobs=(replace(blob, radius=4.0),))
    clean = replace(still, blobs=())
    height = (blob.a[0] + blob.b[0]) / 2
    tissue = torch.from_numpy(head.tissue_kji)
    (ct, mri, _), (ct_clean, mri_clean, _) = (render(head, tissue, s, [height], SIZE, 3.6) for s in (still, clean))
    hu, hu_clean = hu_from_unit(ct.numpy()), hu_from_unit(ct_clean.numpy())
    where = np.unravel_index(np.argmax(hu - hu_clean), hu.shape)
    assert (hu - hu_clean)[where] > 800
    assert mri[where] < mri_clean[where]
    changed = np.abs(hu - hu_clean) > 15
    assert changed.sum() > 40  # rays, not the metal alone


def test_head_holder_is_not_bone(head):
    heights = (0.0,)
    with_it = rendered(head, replace(PLAIN, holder=1.0), seed=(3,), heights=heights)[1]
    without = rendered(head, PLAIN, seed=(3,), heights=heights)[1]
    added = (with_it[0] - without[0]).abs() > 0.02
    assert added.any()
    assert with_it[2][added].max() < 1
    torch.testing.assert_close(with_it[2][~added], without[2][~added], atol=0.05, rtol=0)


def test_windowed_scan_is_8_bit(head):
    _, (ct, mri, bone) = rendered(head, replace(PLAIN, windowed=1.0))
    for image in (ct, mri):
        levels = image * 255
        torch.testing.assert_close(levels, levels.round(), atol=1e-3, rtol=0)
        assert 0 <= levels.min() <= levels.max() <= 255
    assert (ct == 1).float().mean() > 0.01  # bone saturates
    assert (bone[ct >= 201 / 255] == 1).all()
