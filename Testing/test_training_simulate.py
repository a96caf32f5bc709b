"""Simulated heads as a source of the trainer: slices that depend on the seed alone, and held-out ones that stay."""

import numpy as np
import pytest
import torch

from training.config import Config, DataConfig, LabelConfig, TrainingConfig
from training.data import open_data
from training.sources import SimulatedHeads


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


def test_slices_depend_on_seed_step_and_place_alone(flying):
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


def test_heldout_slices_are_made_once(flying):
    assert len(flying.heldout) >= 4
    assert list(flying.made_from) == ["heldout"]


def test_head_may_have_several_scans(tmp_path):
    config = simulated(tmp_path, scans=2)
    source = SimulatedHeads(config, torch.device("cpu"))
    first, second = source.slices("phantom-1")
    assert first.ct.shape == second.ct.shape
    assert np.abs(first.mri - second.mri).max() > 0.1
    again = next(iter(source.slices("phantom-1")))
    np.testing.assert_array_equal(first.ct, again.ct)
