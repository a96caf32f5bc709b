"""The request: sources, settings and options of one case."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from BrainFusionLib.landmarks import Landmarks
from BrainFusionLib.settings import Settings
from BrainFusionLib.transform import RigidTransform, Transform
from BrainFusionLib.values import ByValue
from BrainFusionLib.volume import Volume


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
        Of the file, or of all files of the folder; ``None`` if it was not computed.
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


@dataclass(frozen=True, eq=False)
class Inputs(ByValue):
    """The volumes of a request: CT in Hounsfield units, MRI, and a registration mask on the MRI's grid.

    `sha256` is that of their files, by role ("ct", "mri", "mri_mask"), if it was taken, before they were read.
    """

    ct: Volume
    mri: Volume
    mri_mask: Volume | None = None
    sha256: Mapping[str, str] = field(default_factory=dict)
