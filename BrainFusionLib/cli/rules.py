"""How to fuse, on the command line: shared by all commands that do."""

from __future__ import annotations

import argparse

from BrainFusionLib.fusion.fusing import NETWORK_RULE
from BrainFusionLib.fusion.rules import RULES
from BrainFusionLib.fusion.weights import SHIPPED
from BrainFusionLib.settings import FusionSettings


def add_rule_options(parser: argparse.ArgumentParser) -> None:
    """Add ``--rule``, ``--weights`` and ``--batch-size``."""
    rules = "; ".join(f"{rule.name}: {rule.description}" for rule in RULES.values())
    shipped = "; ".join(f"{name}: {description}" for name, description in SHIPPED.items())
    parser.add_argument(
        "--rule",
        choices=[NETWORK_RULE, *RULES],
        default=FusionSettings.rule,
        help=f"how to fuse (default: {FusionSettings.rule}). {NETWORK_RULE}: the CNN; {rules}",
    )
    parser.add_argument(
        "--weights",
        metavar="NAME|FILE",
        help=f"of the network: a weights file (.npz), or what ships (default: the first). {shipped}",
    )
    parser.add_argument(
        "--batch-size",
        type=int,
        default=FusionSettings.batch_size,
        metavar="N",
        help=f"slices that go through the network at once (default: {FusionSettings.batch_size})",
    )


def fusion_settings(options: argparse.Namespace) -> FusionSettings:
    """Return what the options say."""
    return FusionSettings(options.rule, options.weights, options.batch_size)
