"""The network that predicts a weight map: what no training can take from it."""

import numpy as np
import pytest
import torch

from BrainFusionLib.errors import WeightsError
from BrainFusionLib.intensity import bone_weight, ct_to_unit
from BrainFusionLib.network import FusionNetAlpha, arrays_of, build_network, network_from_weights
from BrainFusionLib.rules import RULES
from BrainFusionLib.slices import fuse_slices
from BrainFusionLib.weights import Manifest, save_weights


def slices(count=2, rows=48, columns=32):
    rng = np.random.default_rng(0)
    hu = rng.uniform(-1000, 3000, (count, rows, columns)).astype(np.float32)
    return hu, ct_to_unit(hu), rng.random((count, rows, columns), dtype=np.float32)


def stirred(seed=0, **arguments):
    """A network whose last layer does something, too."""
    network = FusionNetAlpha(**arguments)
    with torch.no_grad():
        network.output.weight.normal_(0, 0.5, generator=torch.Generator().manual_seed(seed))
    return network


def test_untrained_it_is_the_rule_of_bone_and_its_rim():
    hu, ct, mri = slices()
    expected = RULES["bone_and_rim"](ct, mri, bone_weight(hu))
    np.testing.assert_allclose(fuse_slices(FusionNetAlpha(8), ct, mri), expected, atol=2e-3)


def test_a_bone_weight_that_is_given_counts_instead_of_the_ct_s_own():
    hu, ct, mri = slices()
    both = torch.from_numpy(np.stack([ct, mri], axis=1))
    own = torch.from_numpy(bone_weight(hu))[:, None]
    network = stirred(width=4).eval()
    with torch.no_grad():
        torch.testing.assert_close(network.alpha(torch.cat([both, own], dim=1)), network.alpha(both), atol=1e-4, rtol=0)
        none = FusionNetAlpha(4).eval().alpha(torch.cat([both, torch.zeros_like(own)], dim=1))
    assert (none == 0).all()  # a head holder, say, is not bone


@pytest.mark.parametrize("levels", [1, 2, 3, 4])
def test_whatever_its_weights_are_the_fused_slice_stays_between_its_sources(levels):
    _, ct, mri = slices()
    fused = fuse_slices(stirred(width=4, levels=levels), ct, mri)
    assert (fused <= np.maximum(ct, mri) + 1e-6).all()
    assert (fused >= np.minimum(ct, mri) - 1e-6).all()
    assert np.abs(fused - ct).max() > 0.1
    assert np.abs(fused - mri).max() > 0.1


@pytest.mark.parametrize("training", [True, False])
def test_where_the_weight_is_1_or_0_a_source_comes_back_to_the_last_bit(training):
    _, ct, mri = slices()
    both = torch.from_numpy(np.stack([ct, mri], axis=1))
    network = stirred(width=4).train(training)
    with torch.no_grad():
        alpha, fused = network.alpha(both), network(both)
    assert (alpha == 1).any()
    assert (alpha == 0).any()
    assert torch.equal(fused[alpha == 1], both[:, :1][alpha == 1])
    assert torch.equal(fused[alpha == 0], both[:, 1:][alpha == 0])


def test_a_weight_that_is_cut_off_can_come_back_and_is_not_pushed_beyond_the_margin():
    from BrainFusionLib.network.alpha import MARGIN, _CutOff

    free = torch.tensor([-MARGIN - 0.1, -0.1, 0.5, 1.1, MARGIN + 1.1], requires_grad=True)
    for direction in (1.0, -1.0):
        free.grad = None
        (direction * _CutOff.apply(free)).sum().backward()
        # Descent goes against the gradient: downwards for 1, upwards for -1.
        passes = [0, 1, 1, 1, 1] if direction > 0 else [1, 1, 1, 1, 0]
        assert (free.grad * direction).tolist() == passes


def test_it_has_few_parameters_and_comes_back_from_a_weights_file(tmp_path):
    network = stirred(width=16)
    assert sum(parameter.numel() for parameter in network.parameters()) < 2_000_000
    manifest = Manifest({"name": "fusion_net_alpha", "width": 16}, "Apache-2.0", "nothing")
    again = network_from_weights(save_weights(tmp_path / "weights.npz", arrays_of(network), manifest))
    _, ct, mri = slices()
    np.testing.assert_array_equal(fuse_slices(again, ct, mri), fuse_slices(network, ct, mri))


@pytest.mark.parametrize("arguments", [{"width": 0}, {"levels": 0}, {"levels": 5}, {"depth": 3}])
def test_arguments_that_make_no_network_are_refused(arguments):
    with pytest.raises(WeightsError):
        build_network({"name": "fusion_net_alpha", **arguments})


@pytest.mark.parametrize("levels", [1, 2, 3])
def test_nothing_beyond_the_margin_changes_a_weight(levels):
    network = stirred(width=4, levels=levels).eval()
    rng = np.random.default_rng(3)
    inside, outside = torch.from_numpy(rng.random((2, 1, 3, 256, 256), dtype=np.float32))
    middle = slice(96, 160)
    rim = slice(96 - network.margin, 160 + network.margin)
    changed = outside.clone()
    changed[..., rim, rim] = inside[..., rim, rim]
    with torch.no_grad():
        before, after = network.alpha(inside), network.alpha(changed)
    torch.testing.assert_close(before[..., middle, middle], after[..., middle, middle], atol=1e-5, rtol=0)
    assert not torch.equal(before, after)
