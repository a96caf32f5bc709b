"""PyTorch in Slicer: whether it is there, and how the PyTorch extension gets it."""

from __future__ import annotations

import importlib.util

# The same as pyproject.toml asks for.
TORCH_REQUIREMENT = ">=2.4"


def torch_is_installed() -> bool:
    """Say whether torch can be imported, without importing it."""
    return importlib.util.find_spec("torch") is not None


def extension_is_installed() -> bool:
    """Say whether the PyTorch extension is there."""
    return importlib.util.find_spec("PyTorchUtils") is not None


def ensure_torch() -> None:
    """Have the PyTorch extension install torch if it is missing. It asks the user; without it, nothing happens."""
    if torch_is_installed() or not extension_is_installed():
        return
    import PyTorchUtils

    PyTorchUtils.PyTorchUtilsLogic().installTorch(askConfirmation=True, torchVersionRequirement=TORCH_REQUIREMENT)
    importlib.invalidate_caches()
