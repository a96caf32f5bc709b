"""Every error that this library raises on purpose, on one screen.

A message says what was wanted, what came, and what to do about it. Each class also derives from the
built-in that a caller who knows nothing of this library would catch.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from BrainFusionLib.transform import Transform


class BrainFusionError(Exception):
    """Base of everything below: catch this to catch all refusals of the library."""


class SettingsError(BrainFusionError, ValueError):
    """A setting has a value that cannot be used."""


class GeometryError(BrainFusionError, ValueError):
    """A grid, direction, spacing or transform that cannot describe a rigid medical image."""


class ImageContentError(BrainFusionError, ValueError):
    """The voxels themselves cannot be used: constant, NaN, swapped CT and MRI, a label map."""


class ImageFileError(BrainFusionError, OSError):
    """A file or folder cannot be read or written."""


class RegistrationError(BrainFusionError, RuntimeError):
    """No pose was found that deserves to be called a result.

    Attributes
    ----------
    best_transform
        The best pose found all the same, for those who want to look at it; ``None`` when there is none.
    """

    def __init__(self, message: str, best_transform: Transform | None = None) -> None:
        super().__init__(message)
        self.best_transform = best_transform


class WeightsError(BrainFusionError, RuntimeError):
    """A weights file is missing, damaged, or does not fit the network that it names."""


class MissingDependencyError(BrainFusionError, ImportError):
    """An optional package is needed for what was asked."""


class Cancelled(BrainFusionError):  # noqa: N818  (an outcome that the user chose, not a fault)
    """The caller's ``cancel`` said yes."""
