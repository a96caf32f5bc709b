"""``brainfusion doctor``: the packages installed, the device and the weights."""

from __future__ import annotations

import argparse
import importlib.metadata
import importlib.util
import platform
from typing import Any

from BrainFusionLib.cli.codes import DONE, FAULT
from BrainFusionLib.console import say
from BrainFusionLib.device import pick_device, require_torch, threads
from BrainFusionLib.errors import MissingDependencyError
from BrainFusionLib.fusion.methods import METHODS
from BrainFusionLib.fusion.weights import DEFAULT_WEIGHTS, SHIPPED, find_weights
from BrainFusionLib.native import VECTORS, Native, native
from BrainFusionLib.version import __version__

# Name, purpose, and whether it is required; packages for single fusion methods are added from the table of methods.
PACKAGES = (
    ("numpy", "arrays", True),
    ("SimpleITK", "image files, masks", True),
    ("pillow", "pictures in the report", True),
    ("pydicom", "DICOM", False),
    ("isal", "compressed files in a sixth of the time", False),
    ("torch", "graphics cards, the reference network", False),
)


def add_to(commands: Any) -> None:
    """Add the command to the parser's."""
    doctor_command = commands.add_parser(
        "doctor",
        help="list the packages installed, the device and the weights",
        description="List the packages installed, the device that would be used, and the weights.",
    )
    doctor_command.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """List the packages installed, the device that would be used, and the weights."""
    say(f"brainfusion {__version__}, Python {platform.python_version()}, {platform.platform()}")
    missing = []
    optional = (
        (method.package.name, f"the rule {method.name}", False) for method in METHODS.values() if method.package
    )
    for package, purpose, needed in (*PACKAGES, *optional):
        try:
            say(f"  {package:<12} {importlib.metadata.version(package):<16} {purpose}")
        except importlib.metadata.PackageNotFoundError:
            say(f"  {package:<12} {'missing':<16} {purpose}; pip install {package}")
            missing += [package] if needed else []
    say(f"  C library    {_native_words(native())}")
    say(f"  device       {pick_device('auto')} (auto), {threads()} CPU threads")
    if importlib.util.find_spec("torch") is not None:
        try:
            torch = require_torch("a graphics card")
        except MissingDependencyError as error:
            say(f"  torch        not used: {error}")
        else:
            for n in range(torch.cuda.device_count()):
                say(f"  cuda:{n}       {torch.cuda.get_device_name(n)}")
    for name, description in SHIPPED.items():
        there = "" if find_weights(name).exists() else "MISSING: install BrainFusion again; "
        default = " (the default)" if name == DEFAULT_WEIGHTS else ""
        say(f"  weights      {name}: {there}{description}{default}")
    if missing:
        say(f"Not ready: install {' '.join(missing)}.")
        return FAULT
    say("Ready.")
    return DONE


def _native_words(found: Native) -> str:
    """Say whether the inner loops run in C, and if not, what that costs and what brings it."""
    if found.library is not None:
        vectors = VECTORS[found.vectors][0]
        return f"used, version {__version__}" + (f", with {vectors}" if vectors else "")
    slow = "registration, evidence and fusion are two to three times slower"
    if not found.problem:
        return f"switched off by BRAINFUSION_NATIVE=0: {slow}"
    return f"not used: {found.problem}. {slow[0].upper()}{slow[1:]}. Remedy: {found.remedy}."
