"""PyTorch in Slicer: needed where a graphics card is chosen, and only there. Read by the worker process, too."""

from __future__ import annotations

import importlib.metadata
import importlib.util

from BrainFusionLib.errors import MissingDependencyError

# The same as pyproject.toml asks for.
LEAST_TORCH = (2, 4)
LEAST_VERSION = ".".join(map(str, LEAST_TORCH))


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


def is_needed(device: str) -> bool:
    """Say whether a device, as the settings name it, needs torch: not the CPU, and not the automatic choice."""
    return device not in ("auto", "cpu")


def require_torch(device: str) -> None:
    """Refuse to compute on a graphics card without torch, or with one that is too old; does not import it.

    Raises
    ------
    MissingDependencyError
        It is so; the message says what to do.
    """
    if not is_needed(device):
        return
    if not torch_is_installed():
        raise MissingDependencyError(
            "A graphics card was chosen, which needs PyTorch, and PyTorch is not installed. Choose the CPU; or install "
            "the PyTorch extension (Extensions Manager), restart Slicer, open the module PyTorch Utils, click Install "
            "PyTorch, and try again."
        )
    version = is_too_old()
    if version is not None:
        raise MissingDependencyError(
            f"PyTorch {version} is installed, and {LEAST_VERSION} or newer is needed. Open the module PyTorch Utils, "
            "click Uninstall PyTorch, restart Slicer, and click Install PyTorch."
        )


def extension_is_installed() -> bool:
    """Say whether the PyTorch extension is there."""
    return importlib.util.find_spec("PyTorchUtils") is not None


def hint(device: str) -> str | None:
    """Say how torch will be installed, or None if it is there or not needed."""
    if not is_needed(device) or torch_is_installed():
        return None
    if extension_is_installed():
        return "A graphics card needs PyTorch, which is not installed yet: Fuse will ask the PyTorch extension for it."
    return "A graphics card needs PyTorch: install the PyTorch extension in the Extensions Manager, and restart Slicer."


def ensure_torch(device: str) -> None:
    """Have the PyTorch extension, if it is there, install torch where it is needed and missing. It asks the user."""
    if not is_needed(device) or torch_is_installed() or not extension_is_installed():
        return
    import PyTorchUtils

    PyTorchUtils.PyTorchUtilsLogic().installTorch(askConfirmation=True, torchVersionRequirement=f">={LEAST_VERSION}")
    importlib.invalidate_caches()
