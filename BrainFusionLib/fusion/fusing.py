"""Registered stacks of slices, fused by the rule of the settings."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from BrainFusionLib.errors import SettingsError
from BrainFusionLib.fusion.rules import RULES, import_wavelets
from BrainFusionLib.fusion.weights import Weights, find_weights, load_weights
from BrainFusionLib.progress import Cancel, Progress
from BrainFusionLib.settings import FusionSettings
from BrainFusionLib.volume import BoolArray, VoxelArray

if TYPE_CHECKING:
    import torch

NETWORK_RULE = "network"


def weights_for(fusion: FusionSettings) -> Weights | None:
    """Load the weights that the settings ask for; ``None`` for a classical rule.

    Raises
    ------
    SettingsError, WeightsError, MissingDependencyError
        The rule does not exist, or what it needs is not there.
    """
    if fusion.rule == NETWORK_RULE:
        return load_weights(find_weights(fusion.weights))
    if fusion.rule not in RULES:
        raise SettingsError(
            f"there is no fusion rule {fusion.rule!r}; choose one of {', '.join([*RULES, NETWORK_RULE])}"
        )
    if fusion.rule == "wavelet":
        import_wavelets()
    return None


def fuse_stacks(
    ct_unit: VoxelArray,
    mri_unit: VoxelArray,
    bone_weight: VoxelArray,
    fusion: FusionSettings,
    weights: Weights | None = None,
    *,
    where: BoolArray | None = None,
    device: torch.device | str = "cpu",
    progress: Progress | None = None,
    cancel: Cancel | None = None,
) -> tuple[VoxelArray, VoxelArray | None]:
    """Fuse two registered stacks of slices by the rule of the settings.

    Parameters
    ----------
    ct_unit, mri_unit, bone_weight
        (slices, rows, columns), float32, unit scale, as `volume.axial_stack` turns them; bone weight 0 to 1.
    weights
        As `weights_for` the settings.
    where
        The head, same shape: outside it a network is not asked, and the MRI is shown.

    Returns
    -------
    fused, alpha
        The fused stack, unit scale, and the weight of the CT in it, 0 to 1; ``None`` where the rule or the network has
        none.

    Raises
    ------
    GeometryError, SettingsError, WeightsError, MissingDependencyError, Cancelled
        As `fuse`.
    """
    if weights is None:
        return RULES[fusion.rule](ct_unit, mri_unit, bone_weight), None
    from BrainFusionLib.fusion.network import FusionNetAlpha, network_from_weights
    from BrainFusionLib.fusion.slices import blend, fuse_slices, slice_weights

    network = network_from_weights(weights)
    options: dict[str, Any] = {
        "where": where,
        "device": device,
        "batch_size": fusion.batch_size,
        "progress": progress,
        "cancel": cancel,
    }
    if isinstance(network, FusionNetAlpha):
        alpha = slice_weights(network, ct_unit, mri_unit, bone_weight, **options)
        return blend(alpha, ct_unit, mri_unit), alpha
    return fuse_slices(network, ct_unit, mri_unit, bone_weight, **options), None
