"""Networks from their description in a manifest, and their tensors from a weights file."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch

from BrainFusionLib.fusion.architecture import ALPHA, REFERENCE, built, check_arrays_fit
from BrainFusionLib.fusion.network.alpha import FusionNetAlpha
from BrainFusionLib.fusion.network.base import FusionNetwork
from BrainFusionLib.fusion.network.reference import FusionNet
from BrainFusionLib.fusion.weights import Architecture, Arrays, Weights

ARCHITECTURES: dict[str, Callable[..., FusionNetwork]] = {REFERENCE: FusionNet, ALPHA: FusionNetAlpha}


def build_network(architecture: Architecture) -> FusionNetwork:
    """Build an untrained network from the description in a manifest, ``{"name": "fusion_net", "width": 16}``.

    Raises
    ------
    WeightsError
        No architecture of that name, or arguments that it does not take.
    """
    return built(architecture, ARCHITECTURES)


def network_from_weights(weights: Weights) -> FusionNetwork:
    """Build the network that a weights file describes, holding its weights, ready to run (CPU, evaluation mode).

    Raises
    ------
    WeightsError
        A tensor is missing, unknown to the network, or has another shape; the message names tensor and file.
    """
    network = build_network(weights.manifest.architecture)
    expected = network.state_dict()
    names = {name: network.stored_name(name) for name in expected}
    check_arrays_fit({names[name]: tuple(tensor.shape) for name, tensor in expected.items()}, weights)
    network.load_state_dict({name: torch.from_numpy(np.array(weights.arrays[names[name]])) for name in expected})
    return network.eval()


def arrays_of(network: FusionNetwork) -> Arrays:
    """Return a copy of a network's tensors as arrays, by their names in a file: what `weights.save_weights` writes."""
    return network.arrays()
