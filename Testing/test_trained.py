"""The weights that ship: whole, and giving what they gave where they were trained."""

from pathlib import Path

import numpy as np
import pytest
import torch

from BrainFusionLib.fusion.network import network_from_weights
from BrainFusionLib.fusion.weights import SHIPPED, TRAINED, find_weights, load_weights

GOLDEN = Path(__file__).parent / "golden"


@pytest.mark.parametrize("name", sorted(SHIPPED))
def test_shipped_weights_give_their_golden_output(name):
    weights = load_weights(find_weights(name))
    assert weights.manifest.licence == "Apache-2.0"
    with np.load(GOLDEN / f"{name}.npz") as golden, torch.inference_mode():
        fused = network_from_weights(weights)(torch.from_numpy(golden["input"])).numpy()
        np.testing.assert_allclose(fused, golden["output"], atol=1e-4)


def test_what_ships_is_small():
    assert sum(path.stat().st_size for path in TRAINED.iterdir()) < 20e6
