"""The choices of the panel's boxes: values of BrainFusionLib, and their words."""

from __future__ import annotations

from slicer.i18n import tr as _

from BrainFusionLib.fusion.methods import METHODS
from BrainFusionLib.settings import FusionSettings

DEFAULTS = {
    "preset": "standard",
    "align": "skull",
    "start": "automatic",
    "rule": FusionSettings().rule,
    "device": "auto",
}


def choices() -> dict[str, dict[str, str]]:
    """Return the values that each parameter can have here, with their words."""
    return {
        "preset": {"fast": _("Fast"), "standard": _("Standard"), "thorough": _("Thorough")},
        "align": {"skull": _("Skull"), "brain": _("Brain")},
        "start": {"automatic": _("Automatic"), "transform": _("Start from a transform"), "skip": _("Skip")},
        "rule": {
            method.name: _(method.label)
            for method in METHODS.values()
            if method.package is None or method.package.is_installed
        },
        "device": {"auto": _("Automatic"), "cpu": _("Processor (CPU)"), "cuda": _("Graphics card (CUDA)")},
    }


def replace_unknown(parameters) -> str | None:
    """Put the default in the place of values from a scene that do not exist here; say so, or return None."""
    notes = []
    for name, words in choices().items():
        value = getattr(parameters, name)
        if value not in words:
            default = DEFAULTS[name] if DEFAULTS[name] in words else next(iter(words))
            setattr(parameters, name, default)
            notes.append(
                _("{value}, chosen in this scene, is not available: {default} is chosen instead.").format(
                    value=value, default=words[default]
                )
            )
    return " ".join(notes) or None
