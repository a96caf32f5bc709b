"""The request: sources, settings and options of one case."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace

from BrainFusionLib.arguments import check_fields
from BrainFusionLib.errors import SettingsError
from BrainFusionLib.landmarks import Landmarks
from BrainFusionLib.settings import Settings
from BrainFusionLib.transform import RigidTransform, Transform
from BrainFusionLib.values import ByValue
from BrainFusionLib.volume import Volume

_STATED = {"ct=ct": "CT", "mri=mr": "MRI", "mri=mri": "MRI", "mr=mr": "MRI"}


@dataclass(frozen=True)
class Source:
    """Where a volume came from.

    Attributes
    ----------
    name
        Name of the file or node. In output without names it is the role ("CT", "MRI").
    path
        The file or folder; ``None`` for a volume in memory, and in output without paths.
    series
        Series of a DICOM folder.
    sha256
        Of all that was read (`io.formats.sha256_of_volume`); ``None`` if it was not computed.
    """

    name: str
    path: str | None = None
    series: str | None = None
    sha256: str | None = None


@dataclass(frozen=True, eq=False)
class Request(ByValue):
    """One case: its sources, settings, and starting or given pose.

    Attributes
    ----------
    ct, mri, mri_mask
        Where the volumes came from; the volumes themselves are `Inputs`.
    settings
        All settings; `run` pins the weights by their sha256.
    start
        A starting pose to try in addition to the others.
    given
        A pose to use unchanged instead of registering.
    check
        Whether to check a given pose against a registration.
    fuse
        Whether to fuse; if not, the result has a pose and no volumes.
    ct_offset
        What to subtract from the CT's values to get Hounsfield units; ``None``: worked out.
    stated
        Which of "CT" and "MRI" the user says to be what they are given as, whatever their values look like.
    landmarks
        The same points in both images, to measure the pose by; they do not move it.
    """

    ct: Source
    mri: Source
    mri_mask: Source | None = None
    settings: Settings = field(default_factory=Settings)
    start: RigidTransform | None = None
    given: Transform | None = None
    check: bool = True
    fuse: bool = True
    ct_offset: float | None = None
    stated: tuple[str, ...] = ()
    landmarks: Landmarks | None = None

    def __post_init__(self) -> None:
        check_fields(self)


@dataclass(frozen=True, eq=False)
class Inputs(ByValue):
    """The volumes of a request: CT in Hounsfield units, MRI, and a registration mask on the MRI's grid.

    `sha256` is that of their files, by role ("ct", "mri", "mri_mask"), if it was taken, before they were read.
    """

    ct: Volume
    mri: Volume
    mri_mask: Volume | None = None
    sha256: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        check_fields(self)

    def as_stated(self, stated: Iterable[str]) -> Inputs:
        """Return the same volumes with the modality of those that are stated (`Request.stated`)."""
        ct = replace(self.ct, modality="CT") if "CT" in stated else self.ct
        mri = replace(self.mri, modality="MR") if "MRI" in stated else self.mri
        return replace(self, ct=ct, mri=mri)


def stated_in(text: str) -> tuple[str, ...]:
    """Return which of "CT" and "MRI" a text like ``ct=CT mri=MR`` says to be what they are given as.

    Raises
    ------
    SettingsError
        It says something else.
    """
    words = text.replace("/", " ").replace(",", " ").split()
    wrong = [word for word in words if word.lower() not in _STATED]
    if wrong:
        raise SettingsError(
            f"takes ct=CT and mri=MR; got {wrong[0][:100]!r}. If CT and MRI were given in the wrong order, "
            "exchange them."
        )
    return tuple(dict.fromkeys(_STATED[word.lower()] for word in words))


def offset_in(text: str) -> float:
    """Return the number in a text, what to subtract from a CT's values.

    Raises
    ------
    ValueError
        It is no finite number.
    """
    number = float(text)
    if not math.isfinite(number):
        raise ValueError(text)
    return number
