"""The weights that ship: whole, and giving what they gave where they were trained."""

from pathlib import Path

import numpy as np
import pytest
import torch

from BrainFusionLib.fusion.network import network_from_weights
from BrainFusionLib.fusion.rim import RimNetwork
from BrainFusionLib.fusion.weight_map import blend
from BrainFusionLib.fusion.weights import SHIPPED, TRAINED, find_weights, load_weights

GOLDEN = Path(__file__).parent / "golden"


@pytest.mark.parametrize("name", sorted(SHIPPED))
def test_shipped_weights_give_their_golden_output(name):
    weights = load_weights(find_weights(name))
    assert weights.manifest.licence == "Apache-2.0"
    with np.load(GOLDEN / f"{name}.npz") as golden, torch.inference_mode():
        fused = network_from_weights(weights)(torch.from_numpy(golden["input"])).numpy()
        np.testing.assert_allclose(fused, golden["output"], atol=1e-4)


def test_the_default_network_without_torch_gives_its_golden_output():
    with np.load(GOLDEN / "fusion_net_alpha.npz") as golden:
        ct, mri, _ = np.split(golden["input"], 3, axis=1)
        alpha = RimNetwork(load_weights(find_weights("fusion_net_alpha")).arrays).runner("cpu")(golden["input"])
        np.testing.assert_allclose(blend(alpha, ct, mri), golden["output"], atol=1e-3)


def test_what_ships_is_small():
    assert sum(path.stat().st_size for path in TRAINED.iterdir()) < 20e6
