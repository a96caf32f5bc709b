"""How to fuse, on the command line: the options that all commands which fuse share."""

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
        help=f"how to fuse (default: {FusionSettings.rule}). {rules}",
    )
    parser.add_argument(
        "--weights",
        metavar="NAME|FILE",
        help=f"for the network: a weights file (.npz), or the name of one that ships (default: the first). {shipped}",
    )
    parser.add_argument(
        "--batch-size",
        type=int,
        default=FusionSettings.batch_size,
        metavar="N",
        help=f"slices that are fused together (default: {FusionSettings.batch_size})",
    )


def fusion_settings(options: argparse.Namespace) -> FusionSettings:
    """Return what the options say."""
    return FusionSettings(options.rule, options.weights, options.batch_size)
