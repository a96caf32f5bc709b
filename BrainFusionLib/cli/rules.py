"""The fusion options that several commands share."""

from __future__ import annotations

import argparse

from BrainFusionLib.fusion.methods import METHODS
from BrainFusionLib.fusion.weights import SHIPPED
from BrainFusionLib.settings import FusionSettings


def add_rule_options(parser: argparse.ArgumentParser) -> None:
    """Add ``--rule``, ``--weights`` and ``--batch-size``."""
    rules = "; ".join(f"{method.name}: {method.description}" for method in METHODS.values())
    shipped = "; ".join(f"{name}: {description}" for name, description in SHIPPED.items())
    parser.add_argument(
        "--rule",
        choices=list(METHODS),
        default=FusionSettings.rule,
        help=f"fusion rule (default: {FusionSettings.rule}). {rules}",
    )
    parser.add_argument(
        "--weights",
        metavar="NAME|FILE",
        help=f"for the network: a weights file (.npz), or the name of included weights (default: the first). {shipped}",
    )
    parser.add_argument(
        "--batch-size",
        type=int,
        default=FusionSettings.batch_size,
        metavar="N",
        help=f"number of slices fused at once (default: {FusionSettings.batch_size})",
    )


def fusion_settings(options: argparse.Namespace) -> FusionSettings:
    """Return the settings given by the options."""
    return FusionSettings(options.rule, options.weights, options.batch_size)
