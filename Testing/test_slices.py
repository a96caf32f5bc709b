import itertools
import logging

import numpy as np
import pytest
import torch
from torch import nn

from BrainFusionLib.errors import Cancelled, GeometryError, SettingsError
from BrainFusionLib.fusion.network import FusionNet, FusionNetAlpha, FusionNetwork
from BrainFusionLib.fusion.slices import SlicePipeline, fuse_slices
from BrainFusionLib.fusion.weight_map import blend
from BrainFusionLib.geometry import Grid, rotation_matrix
from BrainFusionLib.intensity import Stacks
from BrainFusionLib.volume import axial_stack

ORIENTATIONS = [
    np.eye(3)[:, list(order)] * signs
    for order in itertools.permutations(range(3))
    for signs in itertools.product((1, -1), repeat=3)
]


def _stacks(slices=5, rows=37, columns=50, seed=0):
    generator = np.random.default_rng(seed)
    return tuple(generator.random((3, slices, rows, columns), dtype=np.float32))


def fused_by(network, ct, mri, bone, head=None, **options):
    return fuse_slices(network, Stacks(ct, mri, bone, head), **options).fused


class Wrapped(FusionNetwork):
    """Any module as a fusion network."""

    def __init__(self, module):
        super().__init__()
        self.module = module

    def forward(self, x):
        return self.module(x)


class PassThrough(FusionNetwork):
    """Gives one of its inputs back, and notes what it was shown."""

    def __init__(self, channel=0):
        super().__init__()
        self.channel = channel
        self.shown = []

    def forward(self, x):
        self.shown.append(tuple(x.shape))
        return x[:, self.channel : self.channel + 1]


class OutOfMemory(PassThrough):
    """Holds so many slices on the "meta" device, which stands for a GPU here."""

    def __init__(self, capacity):
        super().__init__()
        self.capacity = capacity

    def forward(self, x):
        if x.device.type == "meta":
            self.shown.append(tuple(x.shape))
            raise torch.cuda.OutOfMemoryError("CUDA out of memory")
        if len(x) > self.capacity:
            raise torch.cuda.OutOfMemoryError("CUDA out of memory")
        return super().forward(x)


@pytest.mark.parametrize(("rows", "columns"), [(16, 16), (1, 1), (3, 40), (17, 15), (31, 33), (48, 200)])
def test_slices_of_any_size_are_padded_and_cropped(rows, columns):
    ct, mri, bone = _stacks(3, rows, columns)
    network = PassThrough()
    np.testing.assert_array_equal(fused_by(network, ct, mri, bone), ct)
    np.testing.assert_array_equal(fused_by(PassThrough(1), ct, mri, bone), mri)
    assert network.shown == [(3, 3, -(-rows // 16) * 16, -(-columns // 16) * 16)]


def test_padding_repeats_the_border():
    seen = []
    network = PassThrough()
    network.register_forward_hook(lambda _module, inputs, _output: seen.append(inputs[0].numpy().copy()))
    ct, mri, bone = _stacks(1, 20, 10)
    fused_by(network, ct, mri, bone)
    expected = np.pad(np.stack([ct, mri, bone], axis=1), ((0, 0), (0, 0), (0, 12), (0, 6)), mode="edge")
    np.testing.assert_array_equal(seen[0], expected)


def test_result_equals_the_networks_output():
    ct, mri, bone = _stacks(2, 32, 48)
    network = FusionNet(width=4).eval()
    with torch.inference_mode():
        expected = network(torch.from_numpy(np.stack([ct, mri, bone], axis=1)))[:, 0].numpy()
    np.testing.assert_allclose(fused_by(network, ct, mri, bone), expected, atol=1e-5)


def test_the_batch_size_does_not_change_the_result():
    ct, mri, bone = _stacks(7)
    network = FusionNet(width=4)
    whole = fused_by(network, ct, mri, bone, batch_size=7)
    assert whole.std() > 0.01
    for batch_size in (1, 2, 5, 100):
        np.testing.assert_allclose(fused_by(network, ct, mri, bone, batch_size=batch_size), whole, atol=1e-5)


def test_the_number_of_threads_does_not_change_the_result():
    ct, mri, bone = _stacks(3)
    network, before = FusionNet(width=4), torch.get_num_threads()
    try:
        torch.set_num_threads(1)
        one = fused_by(network, ct, mri, bone)
        torch.set_num_threads(2)
        np.testing.assert_allclose(fused_by(network, ct, mri, bone), one, atol=1e-5)
    finally:
        torch.set_num_threads(before)


def test_a_network_in_training_mode_fuses_as_in_evaluation():
    ct, mri, bone = _stacks(1)
    network = Wrapped(nn.Sequential(PassThrough(), nn.Dropout(0.9))).train()
    np.testing.assert_array_equal(fused_by(network, ct, mri, bone), ct)


def test_inputs_may_be_views_and_are_not_changed():
    ct, mri, bone = _stacks(4, 20, 30)
    before = ct.copy(), mri.copy()
    fused = fused_by(PassThrough(), *(image[::-1, :, ::-1].transpose(0, 2, 1) for image in (ct, mri, bone)))
    np.testing.assert_array_equal(fused, ct[::-1, :, ::-1].transpose(0, 2, 1))
    assert np.array_equal(ct, before[0])
    assert np.array_equal(mri, before[1])


def test_progress_ends_at_one():
    calls = []
    ct, mri, bone = _stacks(5)
    fused_by(PassThrough(), ct, mri, bone, batch_size=2, progress=lambda *call: calls.append(call))
    assert calls == [("fusion", 0.4), ("fusion", 0.8), ("fusion", 1.0)]


def test_cancel_stops_before_the_next_batch():
    network = PassThrough()
    ct, mri, bone = _stacks(6)
    with pytest.raises(Cancelled):
        fused_by(network, ct, mri, bone, batch_size=2, cancel=lambda: len(network.shown) == 2)
    assert len(network.shown) == 2


def test_a_full_gpu_leads_to_smaller_batches_then_the_cpu(caplog):
    ct, mri, bone = _stacks(5, 16, 16)
    network = OutOfMemory(capacity=1)
    with caplog.at_level(logging.WARNING, logger="BrainFusionLib.fusion.slices"):
        fused = fused_by(network, ct, mri, bone, device="meta", batch_size=4)
    np.testing.assert_array_equal(fused, ct)
    assert [shape[0] for shape in network.shown] == [4, 2, 1, 1, 1, 1, 1, 1]
    assert [record.levelname for record in caplog.records] == ["WARNING"] * 3
    assert "now 2 slices at once" in caplog.records[0].message
    assert "CPU" in caplog.records[2].message


def test_a_full_main_memory_is_not_hidden():
    with pytest.raises(torch.cuda.OutOfMemoryError):
        fused_by(OutOfMemory(capacity=0), *_stacks(1))


def test_a_batch_size_below_one_is_refused():
    with pytest.raises(SettingsError, match="got 0"):
        SlicePipeline(PassThrough(), batch_size=0)


def _coordinates(grid):
    """LPS mm of every voxel, shape (k, j, i, 3)."""
    k, j, i = np.indices(grid.shape_kji)
    homogeneous = np.stack([i, j, k, np.ones_like(i)], axis=-1)
    return (homogeneous @ grid.lps_from_ijk.T)[..., :3].astype(np.float32)


@pytest.mark.parametrize("direction", ORIENTATIONS)
@pytest.mark.parametrize("tilt", [0.0, 20.0])
def test_every_orientation_is_turned_to_s_p_l(direction, tilt):
    direction = rotation_matrix((1, 2, 3), tilt) @ direction
    grid = Grid((4, 5, 6), (1.0, 0.9, 1.2), (10, -20, 30), direction)
    coordinates = _coordinates(grid)
    left, posterior, superior = (axial_stack(coordinates[..., axis], grid)[0] for axis in range(3))
    assert (np.diff(superior, axis=0) > 0).all()
    assert (np.diff(posterior, axis=1) > 0).all()
    assert (np.diff(left, axis=2) > 0).all()


@pytest.mark.parametrize("direction", ORIENTATIONS)
def test_undo_brings_every_voxel_back(direction):
    grid = Grid((4, 5, 6), direction=direction)
    array = np.arange(120, dtype=np.float32).reshape(grid.shape_kji)
    stack, undo = axial_stack(array, grid)
    assert np.shares_memory(stack, array)
    np.testing.assert_array_equal(undo(stack), array)


def test_orientation_does_not_change_the_fusion():
    ct, mri, bone = _stacks(6, 20, 24)
    upright = Grid((24, 20, 6))
    torch.manual_seed(0)
    network = Wrapped(nn.Conv2d(3, 1, kernel_size=3, padding=1))  # tells left from right and up from down
    expected = fused_by(network, ct, mri, bone)
    for direction in ORIENTATIONS:
        order = [int(np.argmax(np.abs(row))) for row in direction]
        size = tuple(upright.size_ijk[int(np.argmax(np.abs(column)))] for column in direction.T)
        # The same voxels in this orientation: index axis `a` runs along world axis argmax(|column a|).
        kji = [2 - order[world] for world in (2, 1, 0)]
        signs = [direction[world, order[world]] for world in (2, 1, 0)]

        def acquired(stack, kji=kji, signs=signs):
            stack = np.flip(stack, [n for n in range(3) if signs[n] < 0])
            return np.ascontiguousarray(stack.transpose(np.argsort(kji)))

        grid = Grid(size, direction=direction)
        _, undo = axial_stack(acquired(ct), grid)
        stacks = (axial_stack(acquired(image), grid)[0] for image in (ct, mri, bone))
        np.testing.assert_array_equal(undo(fused_by(network, *stacks)), acquired(expected))


def test_array_of_another_shape_is_rejected():
    with pytest.raises(GeometryError, match=r"\(2, 3, 4\)"):
        axial_stack(np.zeros((2, 3, 4), np.float32), Grid((2, 3, 4)))


def _head(shape, rows, columns):
    head = np.zeros(shape, dtype=bool)
    head[1:-1, rows, columns] = True
    return head


@pytest.mark.parametrize(
    "network", [FusionNetAlpha(4, steps=2, seed=1), FusionNet(2, seed=1)], ids=["ours", "reference"]
)
def test_what_is_skipped_changes_nothing_inside_the_head(network):
    ct, mri, bone = _stacks(4, 150, 140)
    head = _head(ct.shape, slice(60, 90), slice(50, 70))
    everything = fused_by(network, ct, mri, bone)
    skipped = fused_by(network, ct, mri, bone, head)
    np.testing.assert_allclose(skipped[head], everything[head], atol=1e-5)
    np.testing.assert_array_equal(skipped[~head], mri[~head])
    assert np.abs(skipped - mri)[head].max() > 0.1


def test_slices_without_a_head_skip_the_network():
    ct, mri, bone = _stacks(6, 48, 48)
    head = _head(ct.shape, slice(8, 40), slice(8, 40))
    seen = []
    network = FusionNet(2)
    network.register_forward_hook(lambda module, inputs, output: seen.append(len(inputs[0])))
    fused_by(network, ct, mri, bone, head, batch_size=3)
    assert sum(seen) == 4
    assert fused_by(network, ct, mri, bone, np.zeros_like(head)).tolist() == mri.tolist()


def test_the_fused_stack_is_the_blend_by_the_weight_map():
    ct, mri, bone = _stacks()
    network = FusionNetAlpha(4)
    made = fuse_slices(network, Stacks(ct, mri, bone))
    assert 0 <= made.alpha.min() < made.alpha.max() <= 1
    np.testing.assert_array_equal(blend(made.alpha, ct, mri), made.fused)
    np.testing.assert_array_equal(blend(np.ones_like(ct), ct, mri), ct)


def test_the_reference_network_has_no_weight_map():
    assert fuse_slices(FusionNet(2), Stacks(*_stacks())).alpha is None


def test_a_pipeline_stays_on_the_cpu_after_a_full_gpu():
    network = OutOfMemory(capacity=1)
    pipeline = SlicePipeline(network, "meta", batch_size=2)
    for count in (2, 3):
        stacks = Stacks(*_stacks(count, 16, 16))
        np.testing.assert_array_equal(pipeline.fuse(stacks).fused, stacks.ct_unit)
    assert [shape[0] for shape in network.shown] == [2, 1, 1, 1, 1, 1, 1]
