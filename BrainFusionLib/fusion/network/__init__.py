"""The fusion networks in torch, all of one interface (`FusionNetwork`), and how they are built from a weights file."""

from BrainFusionLib.fusion.network.alpha import FusionNetAlpha
from BrainFusionLib.fusion.network.base import FusionNetwork, ready
from BrainFusionLib.fusion.network.build import ARCHITECTURES, arrays_of, build_network, network_from_weights
from BrainFusionLib.fusion.network.reference import FusionNet

__all__ = [
    "ARCHITECTURES",
    "FusionNet",
    "FusionNetAlpha",
    "FusionNetwork",
    "arrays_of",
    "build_network",
    "network_from_weights",
    "ready",
]
