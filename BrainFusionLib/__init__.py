"""Register a CT to an MRI of the same head, and fuse the two.

The names below are the public interface for most callers. They are loaded on first use, so that
``import BrainFusionLib`` is fast. torch is loaded only for a graphics card or a network that needs it.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from BrainFusionLib.version import __version__

_HOME_OF = {
    "AffineTransform": "transform",
    "Grid": "geometry",
    "Inputs": "case.request",
    "Request": "case.request",
    "Result": "case.result",
    "RigidTransform": "transform",
    "Settings": "settings",
    "Source": "case.request",
    "Volume": "volume",
    "fuse": "case.faces",
    "read_case": "folder",
    "read_transform": "io",
    "read_volume": "io",
    "register": "case.faces",
    "resample_onto": "resample",
    "run": "case.run",
    "write_transform": "io",
    "write_volume": "io",
}

__all__ = [*sorted(_HOME_OF), "__version__"]

if TYPE_CHECKING:
    from BrainFusionLib.case.faces import fuse as fuse
    from BrainFusionLib.case.faces import register as register
    from BrainFusionLib.case.request import Inputs as Inputs
    from BrainFusionLib.case.request import Request as Request
    from BrainFusionLib.case.request import Source as Source
    from BrainFusionLib.case.result import Result as Result
    from BrainFusionLib.case.run import run as run
    from BrainFusionLib.folder import read_case as read_case
    from BrainFusionLib.geometry import Grid as Grid
    from BrainFusionLib.io import read_transform as read_transform
    from BrainFusionLib.io import read_volume as read_volume
    from BrainFusionLib.io import write_transform as write_transform
    from BrainFusionLib.io import write_volume as write_volume
    from BrainFusionLib.resample import resample_onto as resample_onto
    from BrainFusionLib.settings import Settings as Settings
    from BrainFusionLib.transform import AffineTransform as AffineTransform
    from BrainFusionLib.transform import RigidTransform as RigidTransform
    from BrainFusionLib.volume import Volume as Volume


def __getattr__(name: str) -> Any:
    if name not in _HOME_OF:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_HOME_OF[name]}"), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *_HOME_OF})
