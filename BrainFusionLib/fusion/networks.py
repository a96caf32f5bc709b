"""The fusion networks as a method: weights read and a network built once, then used for any number of stacks."""

from __future__ import annotations

from typing import TYPE_CHECKING

from BrainFusionLib.fusion.method import BY_WEIGHT, Fused, Method, WeightsIdentity
from BrainFusionLib.progress import Cancel, Progress
from BrainFusionLib.settings import FusionSettings

if TYPE_CHECKING:
    from BrainFusionLib.fusion.slices import Network
    from BrainFusionLib.intensity.unit import Stacks


class NetworkFuser:
    """A network on its device, ready for any number of stacks.

    Parameters
    ----------
    network
        One in torch is moved to the device, and left there.
    device
        Where it runs.
    batch_size
        Slices at once.
    weights
        Which weights it has; ``None`` for those of a training run.
    """

    def __init__(
        self,
        network: Network,
        device: str = "cpu",
        batch_size: int = FusionSettings.batch_size,
        weights: WeightsIdentity | None = None,
    ) -> None:
        from BrainFusionLib.fusion.slices import SlicePipeline

        self.weights = weights
        self.needs_torch = network.needs_torch
        self.meaning = network.meaning
        self._pipeline = SlicePipeline(network, device, batch_size)

    def fuse(self, stacks: Stacks, progress: Progress | None = None, cancel: Cancel | None = None) -> Fused:
        """See `method.Fuser`."""
        return self._pipeline.fuse(stacks, progress, cancel)


def identify(settings: FusionSettings) -> WeightsIdentity:
    """Return which weights the settings name.

    Raises
    ------
    WeightsError
        They are missing or damaged, or are not those that the settings are pinned to.
    """
    from BrainFusionLib.fusion.weights import find_weights, load_weights

    return load_weights(find_weights(settings.weights), settings.weights_sha256).identity


def _prepare(settings: FusionSettings, device: str) -> NetworkFuser:
    from BrainFusionLib.device import require_torch
    from BrainFusionLib.fusion.architecture import is_alpha
    from BrainFusionLib.fusion.weights import find_weights, load_weights

    weights = load_weights(find_weights(settings.weights), settings.weights_sha256)
    if is_alpha(weights) and device == "cpu":
        from BrainFusionLib.fusion.rim import RimNetwork

        return NetworkFuser(RimNetwork(weights.arrays), device, settings.batch_size, weights.identity)
    require_torch("the reference network" if device == "cpu" else f"the device {device!r}")
    from BrainFusionLib.fusion.network import network_from_weights

    return NetworkFuser(network_from_weights(weights), device, settings.batch_size, weights.identity)


NETWORK = Method(
    "network",
    "Network (default)",
    "the convolutional network",
    BY_WEIGHT,
    _prepare,
    needs_weights=True,
)
