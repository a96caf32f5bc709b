"""Every error that this library raises on purpose, on one screen.

A message says what was wanted, what came, and what to do about it. Where the remedy is something that a user asks for
in another way at each door (an option of the command, a button of the panel, an argument in Python), it is a `Remedy`:
data, which each door phrases in its own terms. Each class also derives from the built-in that a caller who knows
nothing of this library would catch.
"""

from __future__ import annotations

from enum import Enum
from typing import Any


class Remedy(Enum):
    """What a user can do about an error; the value is the sentence for those who call the library from Python."""

    REGISTER = "Register the two, or check the transform and the volumes."
    USE_TRANSFORM_AS_IT_IS = "Give a transform of six degrees of freedom, or use this one as it is."
    OMIT_MASK_OR_TRANSFORM = "Omit one of the two."
    OMIT_WEIGHTS_OR_USE_NETWORK = "Omit the weights, or choose the rule 'network'."
    CHOOSE_SERIES = (
        "Choose one by its UID, its number or its place in this list, or give a folder that holds one series:"
    )
    CHOOSE_SERIES_OF_EACH = "Give two different volumes, or choose a series for each."
    OMIT_SERIES = "Omit the series for this file."
    NAME_PATTERN = "Give its name as a pattern."
    OTHER_OUTPUT_FOLDER = "Name another output folder."
    OMIT_DICOM = "Give the MRI as a folder of DICOM slices, or omit the DICOM results."
    USE_CPU = "Close other programs, crop the volumes, or compute on the CPU."


class BrainFusionError(Exception):
    """Base of everything below: catch this to catch all refusals of the library.

    Parameters
    ----------
    problem
        What was wanted and what came; with the remedy in words where every door says the same.
    remedy
        What can be done, where that has another name at each door.
    details
        Lines that follow the remedy: a list to choose from.

    Attributes
    ----------
    problem, remedy, details
        As given. ``str(error)`` is all of them in the words for Python.
    """

    def __init__(self, problem: str = "", *, remedy: Remedy | None = None, details: str = "") -> None:
        super().__init__(problem)
        self.problem = problem
        self.remedy = remedy
        self.details = details

    def __str__(self) -> str:
        return self.phrased({})

    def phrased(self, phrases: dict[Remedy, str]) -> str:
        """Return the message with the remedy in a door's own words, where it has any for it."""
        remedy = "" if self.remedy is None else phrases.get(self.remedy, self.remedy.value)
        first = " ".join(part for part in (self.problem, remedy) if part)
        return f"{first}\n{self.details}" if self.details else first

    def __reduce__(self) -> tuple[Any, ...]:
        # By their positional arguments alone exceptions would lose the rest; cohorts send them between processes.
        return type(self), (self.problem,), self.__dict__


class SettingsError(BrainFusionError, ValueError):
    """A setting has a value that cannot be used."""


class GeometryError(BrainFusionError, ValueError):
    """A grid, direction, spacing or transform that cannot describe a rigid medical image."""


class ImageContentError(BrainFusionError, ValueError):
    """The voxels themselves cannot be used: constant, NaN, swapped CT and MRI, a label map."""


class ImageFileError(BrainFusionError, OSError):
    """A file or folder cannot be read or written."""


class RecordError(BrainFusionError, ValueError):
    """A stored request or result does not have the fields that this version writes."""


class RegistrationError(BrainFusionError, RuntimeError):
    """The verdict on the best pose is that it is none.

    Attributes
    ----------
    best_transform
        The best pose found all the same, for those who want to look at it: a `transform.Transform`, or ``None``.
    """

    def __init__(
        self,
        problem: str = "",
        best_transform: Any = None,
        *,
        remedy: Remedy | None = None,
        details: str = "",
    ) -> None:
        super().__init__(problem, remedy=remedy, details=details)
        self.best_transform = best_transform


class WeightsError(BrainFusionError, RuntimeError):
    """A weights file is missing, damaged, or does not fit the network that it names."""


class MissingDependencyError(BrainFusionError, ImportError):
    """An optional package is needed for what was asked."""


class Cancelled(BrainFusionError):  # noqa: N818  (an outcome that the user chose, not a fault)
    """The caller's ``cancel`` said yes."""
