"""The fusion networks, all behind one interface, and how they are built from a weights file.

Every network takes (B, 2, H, W), the CT and the MRI slice on the unit scale of `intensity`, or (B, 3, H, W) with the
bone weight as third channel, and gives (B, 1, H, W), the fused slice on the same scale. H and W are multiples of
`SIZE_MULTIPLE`; `slices` pads and crops to that.
"""

from BrainFusionLib.fusion.network.alpha import FusionNetAlpha, bone_and_rim
from BrainFusionLib.fusion.network.build import ARCHITECTURES, arrays_of, build_network, network_from_weights
from BrainFusionLib.fusion.network.reference import SIZE_MULTIPLE, FusionNet

__all__ = [
    "ARCHITECTURES",
    "SIZE_MULTIPLE",
    "FusionNet",
    "FusionNetAlpha",
    "arrays_of",
    "bone_and_rim",
    "build_network",
    "network_from_weights",
]
