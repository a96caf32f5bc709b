"""What a manifest says of a network, checked without building it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TypeVar

from BrainFusionLib.errors import WeightsError
from BrainFusionLib.fusion.weight_map import Shapes, shapes_of
from BrainFusionLib.fusion.weights import Architecture, Weights

# What a manifest's architecture["name"] may be. The other entries of that mapping are the constructor's arguments.
REFERENCE, ALPHA = "fusion_net", "fusion_net_alpha"
# Eight times that of the networks that ship; the reference network then takes 0.3 GB.
_MOST_WIDTH = 128

Built = TypeVar("Built")


def built(architecture: Architecture, makers: Mapping[str, Callable[..., Built]]) -> Built:
    """Return what the maker of an architecture's name makes of its other entries.

    Raises
    ------
    WeightsError
        No architecture of that name, or arguments that it does not take.
    """
    arguments = dict(architecture)
    name = arguments.pop("name", None)
    if not isinstance(name, str) or name not in (REFERENCE, ALPHA):
        raise WeightsError(
            f"the weights are for a network called {name!r}; this version has {', '.join((REFERENCE, ALPHA))}. "
            "Use weights made for this version, or update BrainFusion."
        )
    for argument, value in arguments.items():
        if type(value) is not int or abs(value) >= 1 << 63:
            raise WeightsError(f"the network {name!r} cannot be built with {arguments}: {argument} must be an integer")
    if int(arguments.get("width", 1)) > _MOST_WIDTH:
        raise WeightsError(f"the network {name!r} may be {_MOST_WIDTH} channels wide; got {arguments['width']}")
    try:
        return makers[name](**arguments)
    except WeightsError:
        raise
    except (TypeError, ValueError, OverflowError, RuntimeError, MemoryError) as error:
        problem = (str(error) or type(error).__name__).splitlines()[0]
        raise WeightsError(f"the network {name!r} cannot be built with {arguments}: {problem}") from error


def is_alpha(weights: Weights) -> bool:
    """Return whether weights are those of a `FusionNetAlpha`, which needs no torch on the CPU; check them if so.

    Raises
    ------
    WeightsError
        As `built` and `check_arrays_fit`.
    """
    if weights.manifest.architecture.get("name") != ALPHA:
        return False
    check_arrays_fit(built(weights.manifest.architecture, {ALPHA: shapes_of}), weights)
    return True


def check_arrays_fit(expected: Shapes, weights: Weights) -> None:
    """Check the tensors of weights by name and shape.

    Raises
    ------
    WeightsError
        A tensor is missing, unknown to the network, or has another shape; the message names tensor and file.
    """
    remedy = f"{weights.path} was not made for the network that its manifest names; get the pair of files again."
    for name, shape in expected.items():
        if name not in weights.arrays:
            raise WeightsError(f"the tensor {name!r} of shape {shape} is missing. {remedy}")
        if weights.arrays[name].shape != shape:
            raise WeightsError(
                f"the tensor {name!r} should have shape {shape}, but has {weights.arrays[name].shape}. {remedy}"
            )
    unknown = sorted(set(weights.arrays) - set(expected))
    if unknown:
        raise WeightsError(f"the network has no tensor called {unknown[0]!r}. {remedy}")
