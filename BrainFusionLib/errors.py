"""Every error that this library raises on purpose, on one screen.

A message states what was expected, what was found, and the remedy. If the remedy depends on the interface (an option of
the command, a button of the panel, an argument in Python), it is a `Remedy`: data that each interface phrases in its
own terms. Each class also derives from a matching built-in exception, for callers who do not know this library.
"""

from __future__ import annotations

from enum import Enum
from typing import TYPE_CHECKING, Any

from BrainFusionLib.printable import shown, shown_lines

if TYPE_CHECKING:  # a higher floor, which raises these errors
    from BrainFusionLib.transform import Transform


class Remedy(Enum):
    """What a user can do about an error; the value is the sentence for callers of the library in Python."""

    REGISTER = "Register the two, or check the transform and the volumes."
    USE_TRANSFORM_AS_IT_IS = "Give a rigid one, or read this one with rigid=False and use it unchanged."
    OMIT_MASK_OR_TRANSFORM = "Omit one of the two."
    OMIT_WEIGHTS_OR_USE_NETWORK = "Omit the weights, or choose the rule 'network'."
    CHOOSE_SERIES = (
        "Choose one by its UID, its number or its place in this list, or give a folder with only one series:"
    )
    CHOOSE_SERIES_OF_EACH = "Give two different volumes, or choose a series for each."
    OMIT_SERIES = "Omit the series for this file."
    NAME_PATTERN = "Use ct_pattern='ct*' or mri_pattern='mr*' to state the file's name."
    STATE_MODALITY = "If the one given as MRI is an MRI, pass stated=('MRI',)."
    STATE_OFFSET = "If it is the CT, say what to subtract from its values (ct_offset), or pass stated=('CT',)."
    STATE_FRAME = "Say it with frame='lps', 'ras' or 'fsl' and maps='ct-to-mri' or 'mri-to-ct'."
    STATE_DIRECTION = "Say it with maps='ct-to-mri' or 'mri-to-ct'."
    OTHER_OUTPUT_FOLDER = "Name another output folder."
    OMIT_DICOM = "Give it as a folder of DICOM slices, or omit the DICOM results."
    ALLOW_OVERWRITE = "Choose another output, or pass this one as 'overwrite', too."
    EXPORT_ANYWAY = "Omit the DICOM results, or pass export_anyway=True; each object then says it of itself."
    OTHER_GRID = "Choose another output grid, or the rigid model."
    COARSER_GRID = "Choose a coarser output grid, crop the volumes, or use a larger machine."
    GIVE_START = "Pass a starting pose (start), or search globally."
    GIVE_ROUGH_START = "Pass a rough starting pose (start), or choose a series that shows more of the head."
    USE_CPU = "Close other programs, crop the volumes, or compute on the CPU."


class BrainFusionError(Exception):
    """Base of everything below: catch this to catch all refusals of the library.

    Parameters
    ----------
    problem
        What was expected and what was found, with the remedy if it is the same for every interface.
    remedy
        The remedy, if it depends on the interface.
    details
        Lines after the remedy, for example a list to choose from.

    Attributes
    ----------
    problem, remedy, details
        As given. ``str(error)`` contains all of them, phrased for Python.
    """

    def __init__(self, problem: str = "", *, remedy: Remedy | None = None, details: str = "") -> None:
        # Each of them may name a file, or quote what it says: here nothing of that can do more than be read.
        super().__init__(shown(problem))
        self.problem = problem
        self.remedy = remedy
        self.details = shown_lines(details)

    @property
    def problem(self) -> str:
        """What was expected and what was found."""
        return self._problem

    @problem.setter
    def problem(self, words: str) -> None:
        self._problem = shown(words)

    def __str__(self) -> str:
        return self.phrased({})

    def phrased(self, phrases: dict[Remedy, str]) -> str:
        """Return the message with the remedy as in `phrases`, or else as for Python."""
        remedy = "" if self.remedy is None else phrases.get(self.remedy, self.remedy.value)
        first = " ".join(part for part in (self.problem, remedy) if part)
        return f"{first}\n{self.details}" if self.details else first

    def __reduce__(self) -> tuple[Any, ...]:
        # By default only positional arguments are pickled; cohorts send errors between processes.
        return type(self), (self.problem,), self.__dict__


class SettingsError(BrainFusionError, ValueError):
    """A setting has a value that cannot be used."""


class GeometryError(BrainFusionError, ValueError):
    """A grid, direction, spacing or transform cannot describe a rigid medical image."""


class ImageContentError(BrainFusionError, ValueError):
    """The voxels cannot be used: constant, NaN, swapped CT and MRI, a label map."""


class ImageFileError(BrainFusionError, OSError):
    """A file or folder cannot be read or written."""


class RecordError(BrainFusionError, ValueError):
    """A stored request or result does not have the fields that this version writes."""


class RegistrationError(BrainFusionError, RuntimeError):
    """The best pose found is refused.

    Attributes
    ----------
    best_transform
        The best pose found, for inspection: maps MRI points to CT points, LPS mm; ``None`` if there is none.
    """

    def __init__(
        self,
        problem: str = "",
        best_transform: Transform | None = None,
        *,
        remedy: Remedy | None = None,
        details: str = "",
    ) -> None:
        super().__init__(problem, remedy=remedy, details=details)
        self.best_transform = best_transform


class WeightsError(BrainFusionError, RuntimeError):
    """A weights file is missing, damaged, or does not match its network."""


class MissingDependencyError(BrainFusionError, ImportError):
    """An optional package is needed but not installed."""


class Cancelled(BrainFusionError):  # noqa: N818  (an outcome that the user chose, not a fault)
    """The caller's ``cancel`` returned true."""
