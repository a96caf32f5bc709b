import numpy as np
import pytest
import torch

from BrainFusionLib.errors import GeometryError, WeightsError
from BrainFusionLib.fusion.network import FusionNet, arrays_of, build_network, network_from_weights
from BrainFusionLib.fusion.weights import Manifest, load_weights, save_weights


def _manifest(**architecture):
    return Manifest({"name": "fusion_net", **architecture}, licence="Apache-2.0", training_data="none: a test")


def _slices(batch, rows, columns, seed=0):
    return torch.rand((batch, 3, rows, columns), generator=torch.Generator().manual_seed(seed))


# The network once more, in numpy, as DESIGN section 5 describes it.


def _convolution(image, weight, bias):
    padded = np.pad(image, ((0, 0), (weight.shape[2] // 2,) * 2, (weight.shape[3] // 2,) * 2))
    windows = np.lib.stride_tricks.sliding_window_view(padded, weight.shape[2:], axis=(1, 2))
    return np.einsum("crsij,ocij->ors", windows, weight) + bias[:, None, None]


def _pooled(image):
    channels, rows, columns = image.shape
    return image.reshape(channels, rows // 2, 2, columns // 2, 2).max(axis=(2, 4))


def _doubled(image):
    for axis in (1, 2):
        size = image.shape[axis]
        position = np.clip((np.arange(2 * size) + 0.5) / 2 - 0.5, 0, size - 1)
        low = np.floor(position).astype(int)
        high = np.minimum(low + 1, size - 1)
        share = (position - low).reshape([-1 if n == axis else 1 for n in range(3)])
        image = np.take(image, low, axis) * (1 - share) + np.take(image, high, axis) * share
    return image


def _fused_by_hand(arrays, ct_and_mri):
    tensors = iter([array.astype(np.float64) for array in arrays.values()])

    def block(image):
        for _ in range(2):
            image = np.maximum(_convolution(image, next(tensors), next(tensors)), 0)
        return image

    x, skips = block(ct_and_mri), []
    for _ in range(4):
        skips.append(x)
        x = block(_pooled(x))
    for _ in range(4):
        x = block(np.concatenate([skips.pop(), _doubled(x)]))
    return _convolution(x, next(tensors), next(tensors))


def test_the_network_computes_what_the_design_describes():
    network, slices = FusionNet(width=3, seed=4), _slices(2, 48, 32)
    for one, fused in zip(slices, network(slices), strict=True):
        expected = _fused_by_hand(arrays_of(network), one[:2].double().numpy())
        np.testing.assert_allclose(fused.detach().numpy(), expected, atol=1e-5)


def test_slice_of_256_is_reduced_to_16_and_restored():
    network, seen = FusionNet(width=2), []
    for block in [*network.down, *network.up]:
        block.register_forward_hook(lambda _block, _inputs, output: seen.append(tuple(output.shape[1:])))
    assert network(_slices(1, 256, 256)).shape == (1, 1, 256, 256)
    down = [(2, 256, 256), (4, 128, 128), (8, 64, 64), (16, 32, 32), (32, 16, 16)]
    assert seen == down + down[3::-1]


@pytest.mark.parametrize("shape", [(16, 16), (16, 64), (80, 48)])
def test_multiples_of_16_keep_their_size(shape):
    assert FusionNet(width=2)(_slices(3, *shape)).shape == (3, 1, *shape)


def test_output_can_exceed_1():
    network = FusionNet(width=4)
    with torch.no_grad():
        network.output.bias.fill_(1.7)
        network.output.weight.zero_()
    assert network(_slices(1, 16, 16)).max() > 1.6


def test_every_weight_takes_part():
    network = FusionNet(width=4)
    network(_slices(4, 32, 32)).square().mean().backward()
    assert [name for name, p in network.named_parameters() if not p.grad.abs().max() > 0] == []


def test_the_reference_width_has_under_2_million_weights():
    assert sum(p.numel() for p in FusionNet(width=16).parameters()) == 1_962_481


def test_seed_alone_determines_the_weights():
    torch.manual_seed(1)
    first = arrays_of(FusionNet(width=2, seed=7))
    torch.manual_seed(2)
    second, other = arrays_of(FusionNet(width=2, seed=7)), arrays_of(FusionNet(width=2, seed=8))
    assert all(np.array_equal(first[name], second[name]) for name in first)
    assert not np.array_equal(first["down.0.0.weight"], other["down.0.0.weight"])


def test_initial_weights_keep_the_signal_alive_through_all_layers():
    fused = FusionNet(width=16, seed=3)(_slices(1, 64, 64))
    assert 0.01 < float(fused.detach().std()) < 10


def test_network_is_restored_from_its_weights_file(tmp_path):
    network = FusionNet(width=2, seed=5).eval()
    save_weights(tmp_path / "net.npz", arrays_of(network), _manifest(width=2))
    again = network_from_weights(load_weights(tmp_path / "net.npz"))
    assert not again.training
    assert torch.equal(again(_slices(1, 32, 32)), network(_slices(1, 32, 32)))


def test_arrays_are_copies_that_do_not_follow_the_network():
    network = FusionNet(width=2)
    arrays = arrays_of(network)
    with torch.no_grad():
        network.output.bias.add_(1)
    assert arrays["output.bias"][0] == 0


def _change(arrays, kind):
    if kind == "shape":
        arrays["up.1.0.weight"] = arrays["up.1.0.weight"][:, 1:]
    elif kind == "missing":
        del arrays["down.2.2.bias"]
    else:
        arrays["down.9.0.weight"] = np.zeros(3, np.float32)


@pytest.mark.parametrize(
    ("kind", "tensor"), [("shape", "up.1.0.weight"), ("missing", "down.2.2.bias"), ("unknown", "down.9.0.weight")]
)
def test_weights_that_do_not_fit_are_refused_by_tensor(tmp_path, kind, tensor):
    arrays = arrays_of(FusionNet(width=2))
    _change(arrays, kind)
    weights = save_weights(tmp_path / "net.npz", arrays, _manifest(width=2))
    with pytest.raises(WeightsError, match=rf"{tensor}(?s:.)*net\.npz"):
        network_from_weights(weights)


def test_weights_of_another_width_are_refused(tmp_path):
    weights = save_weights(tmp_path / "net.npz", arrays_of(FusionNet(width=2)), _manifest(width=4))
    with pytest.raises(WeightsError, match=r"shape \(4, 2, 3, 3\), but has \(2, 2, 3, 3\)"):
        network_from_weights(weights)


def test_an_unknown_architecture_is_refused():
    with pytest.raises(WeightsError, match=r"'of_the_future'.*fusion_net"):
        build_network({"name": "of_the_future"})


@pytest.mark.parametrize("arguments", [{"depth": 9}, {"width": 0}, {"width": "wide"}])
def test_unknown_arguments_of_an_architecture_are_refused(arguments):
    with pytest.raises(WeightsError, match=f"{next(iter(arguments))}|wide"):
        build_network({"name": "fusion_net", **arguments})


def test_defaults_build_the_reference_network():
    network = build_network({"name": "fusion_net"})
    assert type(network) is FusionNet
    assert network.width == 16


def test_slices_without_the_bone_channel_are_refused():
    for name in ("fusion_net", "fusion_net_alpha"):
        with pytest.raises(GeometryError, match=r"bone weight.*\(1, 2, 16, 16\)"):
            build_network({"name": name})(torch.zeros(1, 2, 16, 16))
