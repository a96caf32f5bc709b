"""Networks from their description in a manifest, and their tensors from a weights file."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
import torch

from BrainFusionLib.errors import WeightsError
from BrainFusionLib.fusion.network.alpha import FusionNetAlpha
from BrainFusionLib.fusion.network.base import FusionNetwork
from BrainFusionLib.fusion.network.reference import FusionNet
from BrainFusionLib.fusion.weights import Architecture, Arrays, Weights

# What a manifest's architecture["name"] may be. The other entries of that mapping are the constructor's arguments.
ARCHITECTURES: dict[str, Callable[..., FusionNetwork]] = {
    "fusion_net": FusionNet,
    "fusion_net_alpha": FusionNetAlpha,
}

# Eight times that of the networks that ship; the reference network then takes 0.3 GB.
_MOST_WIDTH = 128


def build_network(architecture: Architecture) -> FusionNetwork:
    """Build an untrained network from the description in a manifest, ``{"name": "fusion_net", "width": 16}``.

    Raises
    ------
    WeightsError
        No architecture of that name, or arguments that it does not take.
    """
    arguments = dict(architecture)
    name = arguments.pop("name", None)
    if not isinstance(name, str) or name not in ARCHITECTURES:
        raise WeightsError(
            f"the weights are for a network called {name!r}; this version has {', '.join(sorted(ARCHITECTURES))}. "
            "Use weights made for this version, or update BrainFusion."
        )
    for argument, value in arguments.items():
        if type(value) is not int or abs(value) >= 1 << 63:
            raise WeightsError(f"the network {name!r} cannot be built with {arguments}: {argument} must be an integer")
    if int(arguments.get("width", 1)) > _MOST_WIDTH:
        raise WeightsError(f"the network {name!r} may be {_MOST_WIDTH} channels wide; got {arguments['width']}")
    try:
        return ARCHITECTURES[name](**arguments)
    except WeightsError:
        raise
    except (TypeError, ValueError, OverflowError, RuntimeError, MemoryError) as error:
        problem = (str(error) or type(error).__name__).splitlines()[0]
        raise WeightsError(f"the network {name!r} cannot be built with {arguments}: {problem}") from error


def network_from_weights(weights: Weights) -> FusionNetwork:
    """Build the network that a weights file describes, holding its weights, ready to run (CPU, evaluation mode).

    Raises
    ------
    WeightsError
        A tensor is missing, unknown to the network, or has another shape; the message names tensor and file.
    """
    network = build_network(weights.manifest.architecture)
    expected = network.state_dict()
    names = {name: _stored_name(network, name) for name in expected}
    _check_arrays_fit({names[name]: tensor for name, tensor in expected.items()}, weights)
    network.load_state_dict({name: torch.from_numpy(np.array(weights.arrays[names[name]])) for name in expected})
    return network.eval()


def arrays_of(network: FusionNetwork) -> Arrays:
    """Return a copy of a network's tensors as arrays, by their names in a file: what `weights.save_weights` writes."""
    return {
        _stored_name(network, name): tensor.detach().cpu().numpy().copy()
        for name, tensor in network.state_dict().items()
    }


def _stored_name(network: FusionNetwork, name: str) -> str:
    """Return what a weights file calls a tensor of a network."""
    module, dot, rest = name.partition(".")
    return network.stored_as.get(module, module) + dot + rest


def _check_arrays_fit(expected: Mapping[str, torch.Tensor], weights: Weights) -> None:
    remedy = f"{weights.path} was not made for the network that its manifest names; get the pair of files again."
    for name, tensor in expected.items():
        if name not in weights.arrays:
            raise WeightsError(f"the tensor {name!r} of shape {tuple(tensor.shape)} is missing. {remedy}")
        if weights.arrays[name].shape != tuple(tensor.shape):
            raise WeightsError(
                f"the tensor {name!r} should have shape {tuple(tensor.shape)}, but has {weights.arrays[name].shape}. "
                f"{remedy}"
            )
    unknown = sorted(set(weights.arrays) - set(expected))
    if unknown:
        raise WeightsError(f"the network has no tensor called {unknown[0]!r}. {remedy}")
