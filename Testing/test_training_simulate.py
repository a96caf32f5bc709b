"""Simulated scans: seeded, in true units, with what was asked for in them."""

from dataclasses import fields, replace

import numpy as np
import pytest
import torch
from training.head_models import HeadModel, model_from_labels, phantom_model
from training.simulate import _unit, draw_scan, render

from BrainFusionLib.errors import ImageContentError
from BrainFusionLib.geometry import Grid
from BrainFusionLib.intensity import ct_to_unit, hu_from_unit
from BrainFusionLib.io import write_volume
from BrainFusionLib.phantom import Tissue
from BrainFusionLib.volume import Volume
from training.config import Config, DataConfig, LabelConfig, SimulationConfig, TrainingConfig
from training.data import open_data
from training.sources import SimulatedHeads

PLAIN = SimulationConfig(**{entry.name: 0.0 for entry in fields(SimulationConfig)})
SIZE = (64, 64)


@pytest.fixture(scope="module")
def head():
    return phantom_model(3, 4.0)


def rendered(head, config, seed=(1,), heights=(0.0, 30.0)):
    scan = draw_scan(head, config, seed)
    return scan, render(head, torch.from_numpy(head.tissue_kji), scan, heights, SIZE, 3.6)


def test_the_same_seed_gives_the_same_scan_and_another_seed_another_one(head):
    everything = SimulationConfig(metal=1, lesion=1, holder=1, ghosting=1)
    one, again, other = (rendered(head, everything, seed)[1] for seed in ((1, 2), (1, 2), (1, 3)))
    assert all(torch.equal(a, b) for a, b in zip(one, again, strict=True))
    assert not torch.equal(one[1], other[1])


def test_a_plain_scan_has_hounsfield_units_where_they_should_be(head):
    _, (ct, mri, bone) = rendered(head, PLAIN)
    hu = hu_from_unit(ct.numpy())
    assert hu[0, 0, 0, 0] == pytest.approx(-1000, abs=1)
    assert 0 < np.median(hu[:, :, 28:36, 28:36]) < 60  # brain
    assert hu.max() > 900
    assert 0.9 < np.percentile(mri.numpy()[mri.numpy() > 0.15], 99) < 1.3
    np.testing.assert_allclose(bone.numpy(), np.clip((hu - 200) / 100, 0, 1), atol=1e-3)


def test_the_unit_scale_on_the_device_is_the_librarys():
    hu = torch.linspace(-1500, 6000, 2001)
    np.testing.assert_allclose(_unit(hu).numpy(), ct_to_unit(hu.numpy()), atol=1e-5)


def test_residual_misregistration_is_as_large_as_asked_for(head):
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
def test_what_is_asked_for_is_in_every_scan_and_else_in_none(head, name, tissue):
    for seed in range(5):
        with_it = draw_scan(head, replace(PLAIN, **{name: 1.0}), (seed,))
        assert tissue in {blob.tissue for blob in with_it.blobs}
        assert not draw_scan(head, PLAIN, (seed,)).blobs


def test_metal_is_bright_in_ct_dark_in_mri_and_has_streaks(head):
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


def test_a_head_holder_is_in_the_ct_and_not_bone(head):
    heights = (0.0,)
    with_it = rendered(head, replace(PLAIN, holder=1.0), seed=(3,), heights=heights)[1]
    without = rendered(head, PLAIN, seed=(3,), heights=heights)[1]
    added = (with_it[0] - without[0]).abs() > 0.02
    assert added.any()
    assert with_it[2][added].max() < 1
    torch.testing.assert_close(with_it[2][~added], without[2][~added], atol=0.05, rtol=0)


def test_a_windowed_scan_is_an_8_bit_picture(head):
    _, (ct, mri, bone) = rendered(head, replace(PLAIN, windowed=1.0))
    for image in (ct, mri):
        levels = image * 255
        torch.testing.assert_close(levels, levels.round(), atol=1e-3, rtol=0)
        assert 0 <= levels.min() <= levels.max() <= 255
    assert (ct == 1).float().mean() > 0.01  # bone saturates
    assert (bone[ct >= 201 / 255] == 1).all()


def simulated(tmp_path, **changes):
    data = DataConfig(
        "simulated", ["phantom-1"], ["phantom-2"], spacing_mm=8.0, slice_spacing_mm=30.0, size=[32, 32],
        cache=str(tmp_path), **changes,
    )  # fmt: skip
    return Config(data, label=LabelConfig("bone_over_mri"), training=TrainingConfig(batch_size=4, epoch_slices=10))


@pytest.fixture(scope="module")
def flying(tmp_path_factory):
    config = simulated(tmp_path_factory.mktemp("simulated"), on_the_fly=True, flip=True)
    return open_data(config, torch.device("cpu"))


def test_slices_made_on_the_fly_depend_on_seed_step_and_place_alone(flying):
    stream = flying.stream
    assert stream.steps_per_epoch == 3
    whole = stream.sample(7, 5, rank=0, count=4)
    halves = [stream.sample(7, 5, rank=rank, count=2) for rank in (0, 1)]
    for name, tensor in whole.tensors().items():
        assert torch.equal(tensor, torch.cat([half.tensors()[name] for half in halves]))
    assert torch.equal(stream.sample(7, 5, 0, 4).mri, whole.mri)
    assert not torch.equal(stream.sample(7, 6, 0, 4).mri, whole.mri)
    assert not torch.equal(stream.sample(8, 5, 0, 4).mri, whole.mri)
    assert not torch.equal(whole.mri[0], whole.mri[1])
    torch.testing.assert_close(whole.label, whole.bone * whole.ct + (1 - whole.bone) * whole.mri)


def test_what_simulated_heads_are_judged_on_is_made_once_and_kept(flying):
    assert len(flying.heldout) >= 4
    assert list(flying.made_from) == ["heldout"]


def test_a_head_may_have_several_scans(tmp_path):
    config = simulated(tmp_path, scans=2)
    source = SimulatedHeads(config, torch.device("cpu"))
    first, second = source.slices("phantom-1")
    assert first.ct.shape == second.ct.shape
    assert np.abs(first.mri - second.mri).max() > 0.1
    again = next(iter(source.slices("phantom-1")))
    np.testing.assert_array_equal(first.ct, again.ct)


def box_labels(size=40):
    """A head of boxes: skin, soft tissue, bone 6 mm thick, CSF, grey and white matter, and air in the middle."""
    labels = np.zeros((size,) * 3, np.float32)
    for margin, label in ((3, 511), (4, 507), (8, 515), (14, 24), (15, 3), (17, 2), (19, 0)):
        labels[(slice(margin, size - margin),) * 3] = label
    return labels


def test_a_label_map_becomes_tissues_with_marrow_fat_and_inner_air(tmp_path):
    grid = Grid((40, 40, 40))
    write_volume(Volume(box_labels(), grid), tmp_path / "head_1.nii.gz")
    model = model_from_labels(tmp_path / "head_1.nii.gz")
    assert isinstance(model, HeadModel)
    assert model.name == "head_1"
    found = set(np.unique(model.tissue_kji).tolist())
    assert {Tissue.SKIN, Tissue.FAT, Tissue.BONE, Tissue.DIPLOE, Tissue.CSF, Tissue.GREY_MATTER} <= found
    middle = tuple(n // 2 for n in model.tissue_kji.shape)
    assert model.tissue_kji[middle] == Tissue.AIR
    assert model.tissue_kji[0, 0, 0] == Tissue.BACKGROUND


@pytest.mark.parametrize(
    ("change", "message"), [((515, 507), r"head\.nii\.gz: has no bone"), ((24, 99), r"labels \[99\] are not known")]
)
def test_a_label_map_of_something_else_is_refused_by_name(tmp_path, change, message):
    labels = box_labels()
    labels[labels == change[0]] = change[1]
    write_volume(Volume(labels, Grid((40, 40, 40))), tmp_path / "head.nii.gz")
    with pytest.raises(ImageContentError, match=message):
        model_from_labels(tmp_path / "head.nii.gz")
