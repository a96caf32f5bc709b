"""The network that predicts a weight map: what no training can take from it."""

import numpy as np
import pytest
import torch

from BrainFusionLib.device import use_threads
from BrainFusionLib.errors import GeometryError, WeightsError
from BrainFusionLib.fusion import pixelwise
from BrainFusionLib.fusion.edges import edges, kept, slope_of_kept
from BrainFusionLib.fusion.network import FusionNetAlpha, arrays_of, build_network, network_from_weights
from BrainFusionLib.fusion.network.alpha import MARGIN, _CutOff
from BrainFusionLib.fusion.primitives import line_angle
from BrainFusionLib.fusion.rim import PlainRim, RimKernel, RimNetwork
from BrainFusionLib.fusion.slices import fuse_slices
from BrainFusionLib.fusion.weight_map import MOST_DARKENING, REACH, bone_and_rim, greatest_weight, shapes_of
from BrainFusionLib.fusion.weights import Manifest, save_weights
from BrainFusionLib.intensity import Stacks, bone_weight, ct_to_unit


def slices(count=2, rows=48, columns=32):
    """A CT with pieces of bone in soft tissue, and an MRI."""
    rng = np.random.default_rng(0)
    hu = rng.uniform(-100, 180, (count, rows, columns)).astype(np.float32)
    hu[:, 10:18, 8:14] = rng.uniform(150, 2000, (count, 8, 6))
    return hu, ct_to_unit(hu), rng.random((count, rows, columns), dtype=np.float32)


def tensor_of(hu, ct, mri):
    return torch.from_numpy(np.stack([ct, mri, bone_weight(hu)], axis=1))


def fused_by(network, hu, ct, mri):
    return fuse_slices(network, Stacks(ct, mri, bone_weight(hu))).fused


def stirred(seed=0, **arguments):
    """A network whose last layers do something, and not much that is sensible."""
    network = FusionNetAlpha(**arguments)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for layer in network.head:
            layer.weight.normal_(0, 0.5, generator=generator)
    return network


def test_without_gain_and_offset_its_learned_steps_leave_bone_and_rim():
    hu, ct, mri = slices()
    network = FusionNetAlpha(4).train()  # without plain steps
    with torch.no_grad():
        for layer in network.head:
            layer.bias.zero_()
        fused = network(tensor_of(hu, ct, mri))[:, 0].numpy()
    near = torch.nn.functional.max_pool2d(torch.from_numpy(bone_weight(hu) >= 0.5).float(), 2 * REACH + 1, 1, REACH)
    expected = np.where(near > 0, pixelwise.bone_and_rim(ct, mri, bone_weight(hu)), mri)
    np.testing.assert_allclose(fused, expected, atol=1e-6)


def test_plain_steps_keep_more_edges_and_more_soft_tissue():
    from training.losses import Batch, qabf, soft

    given = heads()
    ct, mri, bone = given.split(1, dim=1)
    batch = Batch(ct, mri, bone, ct[:, :0], torch.zeros(len(ct)))
    network = stirred(width=4, steps=1)
    with torch.no_grad():
        before, after = network.train()(given), network.eval()(given)
    assert (qabf(after, batch) < qabf(before, batch)).all()
    assert (soft(after, batch) < soft(before, batch)).all()


def test_untrained_network_keeps_more_edges_than_the_rule():
    from training.losses import Batch, qabf

    x, y = np.meshgrid(np.arange(96), np.arange(96))
    distance = np.hypot(x - 47.3, y - 48.6)
    hu = (40 + 450 * (1 + np.tanh(1.5 * (4 - np.abs(distance - 30))))).astype(np.float32)
    mri = (0.5 + 0.3 * np.sin(x / 5) * np.cos(y / 7)) * (np.abs(distance - 30) > 3)
    given = tensor_of(hu[None], ct_to_unit(hu)[None], mri[None].astype(np.float32))
    ct, mri, bone = given.split(1, dim=1)
    batch = Batch(ct, mri, bone, ct[:, :0], torch.zeros(1))
    first = torch.minimum(bone_and_rim(bone), greatest_weight(ct, mri, bone))
    rule = first * ct + (1 - first) * mri
    with torch.no_grad():
        assert qabf(FusionNetAlpha(4).eval()(given), batch) < qabf(rule, batch) - 0.002


def test_edge_slope_equals_autograd(monkeypatch):
    monkeypatch.setattr("BrainFusionLib.fusion.edges.CORNER", 1e-30)
    generator = torch.Generator().manual_seed(0)
    fused, a, b = torch.rand(3, 2, 1, 20, 24, generator=generator, dtype=torch.float64)
    fused.requires_grad_()
    sources = [edges(a), edges(b)]
    total = sum((kept(source, edges(fused)) * source.strength).sum() for source in sources)
    (expected,) = torch.autograd.grad(total, fused)
    # Angles are right to 2e-7, what autograd makes of them to some 1e-5.
    torch.testing.assert_close(slope_of_kept(fused.detach(), sources), expected, atol=5e-5, rtol=1e-5)


def test_numpy_and_torch_give_the_same_angles_to_the_last_bit():
    y, x = np.random.default_rng(0).normal(size=(2, 10000)).astype(np.float32)
    x[:20], y[10:30] = 0, 0
    y[30:50] = -x[30:50]
    angles = line_angle(y, x)
    np.testing.assert_array_equal(line_angle(torch.from_numpy(y), torch.from_numpy(x)).numpy(), angles)
    apart = np.abs(angles - np.arctan2(y, x, dtype=np.float64)) % np.pi
    assert np.minimum(apart, np.pi - apart).max() < 2e-7


def test_bone_follows_the_bone_weight():
    given = tensor_of(*slices())
    network = stirred(width=4).eval()
    with torch.no_grad():
        assert network.alpha(given).max() == 1
        given[:, 2] = 0
        assert (network.alpha(given) == 0).all()  # a head holder, say, is not bone


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("training", [True, False])
def test_any_weights_keep_bone_and_tissue_without_overshoot(seed, training):
    hu, ct, mri = slices()
    bone = bone_weight(hu)
    network = stirred(seed, width=4).train(training)
    with torch.no_grad():
        alpha, fused = (
            t[:, 0].numpy() for t in (network.alpha(tensor_of(hu, ct, mri)), network(tensor_of(hu, ct, mri)))
        )
    rule = pixelwise.bone_and_rim(ct, mri, bone)
    assert np.abs(fused - rule).max() > 0.1  # it does something
    np.testing.assert_array_equal(fused[bone >= 1], ct[bone >= 1])
    far = np.ones_like(bone, dtype=bool)
    far[:, 10 - REACH : 18 + REACH, 8 - REACH : 14 + REACH] = False
    np.testing.assert_array_equal(fused[far], mri[far])
    assert alpha.min() >= 0
    assert alpha.max() <= 1
    assert (fused <= np.maximum(ct, mri) + 1e-6).all()
    assert (fused >= np.minimum(ct, mri) - 1e-6).all()
    assert (mri - fused)[bone < 1].max() <= MOST_DARKENING + 1e-6  # no black ring


def test_clamped_weights_have_gradients_up_to_the_margin():
    free = torch.tensor([-MARGIN - 0.1, -0.1, 0.5, 1.1, MARGIN + 1.1], requires_grad=True)
    for direction in (1.0, -1.0):
        free.grad = None
        (direction * _CutOff.apply(free, torch.ones_like(free))).sum().backward()
        # Descent goes against the gradient: downwards for 1, upwards for -1.
        passes = [0, 1, 1, 1, 1] if direction > 0 else [1, 1, 1, 1, 0]
        assert (free.grad * direction).tolist() == passes


def test_every_tensor_learns():
    hu, ct, mri = slices()
    network = stirred(width=4).train()
    network(tensor_of(hu, ct, mri)).sum().backward()
    assert all(p.grad is not None and p.grad.abs().max() > 0 for p in network.parameters())


def test_network_is_small_and_restored_from_its_weights(tmp_path):
    network = stirred(width=16)
    assert sum(parameter.numel() for parameter in network.parameters()) < 2_000_000
    manifest = Manifest({"name": "fusion_net_alpha", "width": 16}, "Apache-2.0", "nothing")
    again = network_from_weights(save_weights(tmp_path / "weights.npz", arrays_of(network), manifest))
    np.testing.assert_array_equal(fused_by(again, *slices()), fused_by(network, *slices()))


def test_arrays_of_a_weights_file_keep_their_names():
    names = set(arrays_of(FusionNetAlpha(4, steps=1)))
    assert names == {f"{layer}.0.{part}" for layer in ("see", "think", "decide") for part in ("weight", "bias")}


@pytest.mark.parametrize("arguments", [{}, {"width": 5, "steps": 2}])
def test_shapes_are_known_without_torch(arguments):
    assert shapes_of(**arguments) == {n: a.shape for n, a in arrays_of(FusionNetAlpha(**arguments)).items()}


@pytest.mark.parametrize("arguments", [{"width": 0}, {"steps": 0}, {"steps": 17}, {"depth": 3}])
def test_arguments_that_make_no_network_are_refused(arguments):
    with pytest.raises(WeightsError):
        build_network({"name": "fusion_net_alpha", **arguments})


@pytest.mark.parametrize("steps", [1, 2, 3])
def test_nothing_beyond_the_margin_changes_a_weight(steps):
    network = stirred(width=4, steps=steps).eval()
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


def heads(count=3, rows=64, columns=80):
    """Slices with a ring of bone of uneven rim in textured tissue, (B, 3, H, W)."""
    rng = np.random.default_rng(1)
    y, x = np.mgrid[:rows, :columns]
    made = []
    for number in range(count):
        radius = np.hypot(y - rows / 2, (x - columns / 2) * 0.9) + rng.normal(0, 0.4, (rows, columns))
        bone = np.clip(2.5 - np.abs(radius - 22 - number), 0, 1)
        ct = 0.3 + 0.7 * bone + rng.normal(0, 0.02, bone.shape)
        mri = 0.5 + 0.2 * np.sin(x / 4) * np.cos(y / 5) * (1 - bone) - 0.4 * bone + rng.normal(0, 0.02, bone.shape)
        made.append(np.stack([ct, mri, bone]))
    return torch.from_numpy(np.stack(made).astype(np.float32))


@pytest.mark.parametrize(("width", "steps"), [(16, 3), (5, 1), (20, 2)])
def test_c_numpy_and_torch_give_the_same_weights(width, steps, monkeypatch):
    network = stirred(width=width, steps=steps).eval()
    given = heads()
    with torch.inference_mode():
        expected = network.alpha(given).numpy()
    compiled = network.runner("cpu")
    monkeypatch.setattr("BrainFusionLib.fusion.rim._library", lambda: None)
    plain = network.runner("cpu")
    assert isinstance(plain, PlainRim)
    for run in (compiled, plain):
        difference = np.abs(run(given.numpy()) - expected)
        # These networks magnify what rounding makes of an edge a thousand times; trained ones do not.
        assert difference.max() < 0.05
        assert (difference > 1e-3).mean() < 0.01


def test_rounding_stays_rounding_through_the_plain_steps():
    network = RimNetwork(arrays_of(FusionNetAlpha(4, steps=1))).runner("cpu")
    given = heads(8, 96, 112).numpy()
    weights, apart = network(given), []
    for seed in range(4):
        noise = 1e-7 * np.random.default_rng(seed).choice((-1, 1), given[:, :2].shape)
        moved = given.copy()
        moved[:, :2] *= (1 + noise).astype(np.float32)
        apart.append(np.abs(network(moved) - weights))
    assert np.max(apart) < 2e-4


def test_the_result_is_independent_of_batch_and_threads():
    run = RimNetwork(arrays_of(stirred(width=16))).runner("cpu")
    if not isinstance(run, RimKernel):
        pytest.skip("no compiled library here")
    given = heads(5).numpy()
    with use_threads(1):
        together = run(given)
    with use_threads(3):
        np.testing.assert_array_equal(run(given), together)
    for number in (4, 0, 2):
        np.testing.assert_array_equal(run(given[number : number + 1])[0], together[number])
    empty = given.copy()
    empty[:, 2] = 0
    assert not run(empty).any()
    np.testing.assert_array_equal(run(given), together)


@pytest.mark.parametrize("size", [(16, 14), (17, 16), (16, 17), (2, 2)])
def test_slices_of_a_size_that_the_loops_cannot_do_are_refused(size, monkeypatch):
    network, given = RimNetwork(arrays_of(stirred(width=4))), np.zeros((1, 3, *size), np.float32)
    compiled = network.runner("cpu")
    monkeypatch.setattr("BrainFusionLib.fusion.rim._library", lambda: None)
    for run in (compiled, network.runner("cpu")):
        with pytest.raises(GeometryError, match=rf"even.*at least 16 columns; got {size[0]} x {size[1]}"):
            run(given)
