"""PyTorch in Slicer: whether it is there, and how the PyTorch extension gets it."""

from __future__ import annotations

import importlib.metadata
import importlib.util

# The same as pyproject.toml asks for.
LEAST_TORCH = (2, 4)
TORCH_REQUIREMENT = ">=" + ".".join(map(str, LEAST_TORCH))


def torch_is_installed() -> bool:
    """Say whether torch can be imported, without importing it."""
    return importlib.util.find_spec("torch") is not None


def is_too_old() -> str | None:
    """Return the version of a torch that is installed and too old; does not import it."""
    try:
        version = importlib.metadata.version("torch")
    except importlib.metadata.PackageNotFoundError:
        return None
    found = tuple(int("".join(c for c in part if c.isdigit()) or 0) for part in version.split(".")[:2])
    return version if found < LEAST_TORCH else None


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
