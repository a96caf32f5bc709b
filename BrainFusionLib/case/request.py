"""What is asked for: one class for every door."""

from __future__ import annotations

from dataclasses import dataclass, field

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
        What to call it: the name of a file or of a node. In what leaves the machine, its role ("CT", "MRI").
    path
        The file or folder; ``None`` where it came from memory, or where it must not be told.
    series
        Which DICOM series of a folder.
    sha256
        Of the file, or of all files of the folder; ``None`` where nobody asked.
    """

    name: str
    path: str | None = None
    series: str | None = None
    sha256: str | None = None


@dataclass(frozen=True, eq=False)
class Request(ByValue):
    """One case: which volumes, how, and where to begin.

    Attributes
    ----------
    ct, mri, mri_mask
        Where the volumes came from; the volumes themselves are `Inputs`.
    settings
        Everything that can be chosen; weights are pinned by their sha256 once the request was made ready (`run`).
    start
        A starting pose to try besides all others.
    given
        A pose to use as it is: nothing is registered.
    check
        Whether a registration says how far a given pose is from what that finds.
    fuse
        Whether to fuse; else the pose alone is wanted, and no volume comes back.
    """

    ct: Source
    mri: Source
    mri_mask: Source | None = None
    settings: Settings = field(default_factory=Settings)
    start: RigidTransform | None = None
    given: Transform | None = None
    check: bool = True
    fuse: bool = True


@dataclass(frozen=True, eq=False)
class Inputs(ByValue):
    """The volumes of a request: CT in Hounsfield units, MRI, and on the MRI's grid a registration mask."""

    ct: Volume
    mri: Volume
    mri_mask: Volume | None = None
