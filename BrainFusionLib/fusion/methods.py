"""All ways to fuse: one table."""

from __future__ import annotations

from dataclasses import replace

from BrainFusionLib.errors import MissingDependencyError, Remedy, SettingsError
from BrainFusionLib.fusion.decomposition import LAPLACIAN_RULE, WAVELET_RULE
from BrainFusionLib.fusion.method import Fuser, Method
from BrainFusionLib.fusion.networks import NETWORK, identify
from BrainFusionLib.fusion.pixelwise import AVERAGE, BONE_AND_RIM, BONE_OVER_MRI, MAXIMUM
from BrainFusionLib.settings import FusionSettings

# By name, in the order in which they are offered; the first is the default of `FusionSettings`.
METHODS: dict[str, Method] = {
    method.name: method
    for method in (NETWORK, BONE_OVER_MRI, BONE_AND_RIM, AVERAGE, MAXIMUM, WAVELET_RULE, LAPLACIAN_RULE)
}


def prepare(settings: FusionSettings, device: str) -> Fuser:
    """Make the method of the settings ready: once a run, not once a picture.

    Raises
    ------
    SettingsError
        There is no such method, or it has no use for the weights that the settings name.
    WeightsError, MissingDependencyError
        What it needs is missing.
    """
    method = method_of(settings)
    if method.package is not None and not method.package.is_installed:
        raise MissingDependencyError(
            f"the rule {method.name!r} needs the package {method.package.name}, which is not installed. "
            f"Run: pip install {method.package.name} (or choose another rule)."
        )
    return method.prepare(settings, device)


def pinned(settings: FusionSettings) -> FusionSettings:
    """Return the settings with the sha256 of the weights that they name; ``None`` for a method without weights.

    Raises
    ------
    SettingsError, WeightsError
        As `prepare`.
    """
    identity = identify(settings) if method_of(settings).needs_weights else None
    return replace(settings, weights_sha256=None if identity is None else identity.sha256)


def method_of(settings: FusionSettings) -> Method:
    """Return the method that the settings name.

    Raises
    ------
    SettingsError
        There is no such method, or it has no use for the weights that the settings name.
    """
    method = METHODS.get(settings.rule)
    if method is None:
        raise SettingsError(f"there is no fusion rule {settings.rule!r}; choose one of {', '.join(METHODS)}")
    if settings.weights is not None and not method.needs_weights:
        raise SettingsError(
            f"weights were given, and the rule {method.name!r} uses none.", remedy=Remedy.OMIT_WEIGHTS_OR_USE_NETWORK
        )
    return method
