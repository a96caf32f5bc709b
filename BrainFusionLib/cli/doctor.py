"""``brainfusion doctor``: what is installed, what would be used, what would be slow and why; as text or as JSON.

What needs a package is imported only after that package was found: a doctor that fails where one is missing is none.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import importlib.util
import json
import platform
import sys
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any

from BrainFusionLib.cli.codes import DONE, FAULT
from BrainFusionLib.console import say
from BrainFusionLib.device import pick_device, require_torch, threads
from BrainFusionLib.errors import MissingDependencyError
from BrainFusionLib.native import VECTORS, native
from BrainFusionLib.version import __version__

SCHEMA = 1
# Name, purpose, and whether it is required; packages for single fusion methods are added from the table of methods.
PACKAGES = (
    ("numpy", "arrays", True),
    ("SimpleITK", "image files, masks", True),
    ("pillow", "pictures in the report", True),
    ("pydicom", "DICOM", True),
    ("isal", "compressed files in a sixth of the time", False),
    ("highdicom", "bone as DICOM Segmentation", False),
    ("distributed", "cohorts: several cases at once, many machines", False),
    ("psutil", "cohorts: how many cases the memory holds", False),
    ("torch", "graphics cards, the reference network", False),
)
# What stands in the JSON; docs/cli.md shows this table, and a test holds it to what is written.
FIELDS = (
    ("schema", "1; a change that a reader of this must know of raises it"),
    ("brainfusion", "version of BrainFusion"),
    ("python", "version of Python"),
    ("platform", "system, kernel and processor"),
    ("slicer", "version of 3D Slicer if it runs inside one, else null"),
    (
        "memory_bytes",
        "memory of the machine, or the container's limit; null if unknown",
    ),
    ("threads", "CPU threads that would be used"),
    ("device", "where `--device auto` computes: `cpu`, `cuda` or `mps`"),
    ("graphics_cards", "list of names; empty without torch or without a card"),
    ("c_library.used", "whether the inner loops run in C"),
    ("c_library.vectors", "the processor's vectors that it uses: `AVX2`, `AVX-512`, or empty"),
    ("packages[].name", "name of the package"),
    ("packages[].version", "the version installed, or null"),
    ("packages[].required", "whether nothing works without it"),
    ("packages[].purpose", "what it is for"),
    ("weights[].name", "name of included weights; the list is empty if a required package is missing"),
    ("weights[].description", "what they are"),
    ("weights[].found", "whether its file is there"),
    ("weights[].default", "whether `fuse` uses it by default"),
    ("problems[].problem", "what is missing or slow, and what follows from it"),
    ("problems[].remedy", "what to do about it; empty if it was switched off on purpose"),
    ("problems[].fatal", "whether BrainFusion is not ready because of it"),
    ("ready", "whether BrainFusion can be used; if not, the exit code is 1"),
)


@dataclass(frozen=True)
class Package:
    """A package that is used, or could be."""

    name: str
    version: str | None
    required: bool
    purpose: str


@dataclass(frozen=True)
class Weights:
    """Included weights."""

    name: str
    description: str
    found: bool
    default: bool


@dataclass(frozen=True)
class Problem:
    """Something that is missing or slow."""

    problem: str
    remedy: str
    fatal: bool = False


@dataclass(frozen=True)
class CLibrary:
    """The inner loops in C."""

    used: bool
    vectors: str


@dataclass(frozen=True)
class Found:
    """What doctor found; `FIELDS` says what each is."""

    schema: int
    brainfusion: str
    python: str
    platform: str
    slicer: str | None
    memory_bytes: int | None
    threads: int
    device: str
    graphics_cards: list[str]
    c_library: CLibrary
    packages: list[Package]
    weights: list[Weights]
    problems: list[Problem]
    ready: bool


def add_to(commands: Any, line: str) -> None:
    """Add the command to the parser's; `line` is its help in the list of commands."""
    doctor_command = commands.add_parser(
        "doctor",
        help=line,
        description="List what is installed, the device that would be used, and what would be slow and why.",
    )
    doctor_command.add_argument(
        "--json", action="store_true", help="write the same as JSON, for programs and for reports of faults"
    )
    doctor_command.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Say what was found, as text or as JSON."""
    found = examine()
    for line in json.dumps(asdict(found), indent=2).split("\n") if options.json else _lines(found):
        say(line)
    return DONE if found.ready else FAULT


def examine() -> Found:
    """Return what is installed, what would be used, and what is wrong."""
    packages = [_package(*row) for row in PACKAGES]
    complete = all(package.version for package in packages if package.required)
    if complete:
        packages += [_package(*row) for row in _packages_of_rules()]
    weights = _weights() if complete else []
    cards, of_torch = _graphics_cards()
    library = native()
    problems = [*_missing(packages, weights), *of_torch, *_slow()]
    return Found(
        schema=SCHEMA,
        brainfusion=__version__,
        python=platform.python_version(),
        platform=platform.platform(),
        slicer=_slicer_version(),
        memory_bytes=_memory_bytes() if complete else None,
        threads=threads(),
        device=pick_device("auto"),
        graphics_cards=cards,
        c_library=CLibrary(library.library is not None, VECTORS[library.vectors][0]),
        packages=packages,
        weights=weights,
        problems=problems,
        ready=not any(problem.fatal for problem in problems),
    )


def _lines(found: Found) -> Iterator[str]:
    where = f", 3D Slicer {found.slicer}" if found.slicer else ""
    yield f"brainfusion {found.brainfusion}, Python {found.python}{where}, {found.platform}"
    for package in found.packages:
        missing = "" if package.version else f"; {_install(package.name)}"
        yield f"  {package.name:<12} {package.version or 'missing':<16} {package.purpose}{missing}"
    vectors = f", with {found.c_library.vectors}" if found.c_library.vectors else ""
    yield f"  C library    {'used' + vectors if found.c_library.used else 'not used'}"
    yield f"  device       {found.device} (auto), {found.threads} CPU threads"
    yield f"  memory       {f'{found.memory_bytes / 1e9:.1f} GB' if found.memory_bytes else 'unknown'}"
    for number, card in enumerate(found.graphics_cards):
        yield f"  cuda:{number}       {card}"
    for one in found.weights:
        missing, default = "" if one.found else "MISSING; ", " (the default)" if one.default else ""
        yield f"  weights      {one.name}: {missing}{one.description}{default}"
    for problem in found.problems:
        yield f"{problem.problem}.{problem.remedy and f' Remedy: {problem.remedy}.'}"
    yield "Ready." if found.ready else "Not ready."


def _packages_of_rules() -> Iterator[tuple[str, str, bool]]:
    from BrainFusionLib.fusion.methods import METHODS

    for method in METHODS.values():
        if method.package:
            yield method.package.name, f"the rule {method.name}", False


def _weights() -> list[Weights]:
    from BrainFusionLib.fusion.weights import DEFAULT_WEIGHTS, SHIPPED, find_weights

    return [
        Weights(name, description, find_weights(name).exists(), name == DEFAULT_WEIGHTS)
        for name, description in SHIPPED.items()
    ]


def _memory_bytes() -> int | None:
    from BrainFusionLib.io.budget import memory_bytes

    return memory_bytes()


def _package(name: str, purpose: str, required: bool) -> Package:
    try:
        return Package(name, importlib.metadata.version(name), required, purpose)
    except importlib.metadata.PackageNotFoundError:
        return Package(name, None, required, purpose)


def _install(package: str) -> str:
    return f"pip install {package}"


def _missing(packages: list[Package], weights: list[Weights]) -> Iterator[Problem]:
    for package in packages:
        if package.required and package.version is None:
            yield Problem(f"{package.name} is not installed", _install(package.name), fatal=True)
    for one in weights:
        if not one.found:
            yield Problem(f"The weights {one.name} are missing", "install BrainFusion again", fatal=one.default)


def _graphics_cards() -> tuple[list[str], list[Problem]]:
    if importlib.util.find_spec("torch") is None:
        return [], []
    try:
        torch = require_torch("A graphics card")
    except MissingDependencyError as error:
        return [], [Problem(str(error).rstrip("."), "")]
    return [torch.cuda.get_device_name(n) for n in range(torch.cuda.device_count())], []


def _slow() -> Iterator[Problem]:
    library = native()
    if library.library is None:
        why = library.problem or "switched off by BRAINFUSION_NATIVE=0"
        slow = "registration, evidence and fusion are two to three times slower"
        yield Problem(f"The C library is not used ({why}): {slow}", library.remedy)


def _slicer_version() -> str | None:
    """Return the version of the Slicer that this runs in; nothing is imported to know it."""
    version = getattr(getattr(sys.modules.get("slicer"), "app", None), "applicationVersion", None)
    return None if version is None else str(version)
