"""Which device to compute on."""

from __future__ import annotations

import importlib.util
from typing import TYPE_CHECKING

from BrainFusionLib.errors import MissingDependencyError, SettingsError

if TYPE_CHECKING:
    import torch


def require_torch() -> None:
    """Say how to get torch where it is missing, before something imports it.

    Raises
    ------
    MissingDependencyError
        torch is not installed.
    """
    if importlib.util.find_spec("torch") is None:
        raise MissingDependencyError(
            "registration and fusion need torch, which is not installed. "
            "Run: pip install torch (in Slicer: install the PyTorch extension)."
        )


def pick_device(name: str = "auto") -> torch.device:
    """Return the device called `name`: ``cpu``, ``cuda`` (or ``cuda:1``, …), ``mps``, or ``auto``.

    ``auto`` is the GPU where there is one, and else the CPU.

    Raises
    ------
    SettingsError
        No such device on this machine, or no such name.
    MissingDependencyError
        torch is not installed.
    """
    require_torch()
    import torch

    gpus = torch.cuda.device_count() if torch.cuda.is_available() else 0
    apple = torch.backends.mps.is_available()
    if name == "auto":
        return torch.device("cuda" if gpus else "mps" if apple else "cpu")
    there = ["cpu", *(["cuda"] if gpus else []), *(f"cuda:{n}" for n in range(gpus)), *(["mps"] if apple else [])]
    if name in there:
        return torch.device(name)
    if name != "mps" and name.partition(":")[0] != "cuda":
        raise SettingsError(f"the device must be auto, cpu, cuda or mps; got {name!r}")
    raise SettingsError(
        f"the device {name!r} was asked for, but torch {torch.__version__} finds only {', '.join(there)} here. "
        "Choose auto or cpu; or install the GPU's driver and a build of torch that supports it (pytorch.org)."
    )
