"""The fusion networks, all of one interface (`FusionNetwork`), and how they are built from a weights file."""

from BrainFusionLib.fusion.network.alpha import FusionNetAlpha, bone_and_rim
from BrainFusionLib.fusion.network.base import SIZE_MULTIPLE, FusionNetwork
from BrainFusionLib.fusion.network.build import ARCHITECTURES, arrays_of, build_network, network_from_weights
from BrainFusionLib.fusion.network.reference import FusionNet

__all__ = [
    "ARCHITECTURES",
    "SIZE_MULTIPLE",
    "FusionNet",
    "FusionNetAlpha",
    "FusionNetwork",
    "arrays_of",
    "bone_and_rim",
    "build_network",
    "network_from_weights",
]
