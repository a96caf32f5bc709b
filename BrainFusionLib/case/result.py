"""What comes back: one class for every door, without loss."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Literal

from BrainFusionLib.case.request import Request, Source
from BrainFusionLib.evidence import Evidence
from BrainFusionLib.geometry import Grid
from BrainFusionLib.metrics.fidelity import Fidelity
from BrainFusionLib.transform import RigidTransform, Transform
from BrainFusionLib.values import ByValue
from BrainFusionLib.verdict.judge import Verdict
from BrainFusionLib.volume import Volume

WARNING = "for research and planning review, not for diagnosis"


@dataclass(frozen=True, eq=False)
class Pose(ByValue):
    """Where the CT lies on the MRI.

    Attributes
    ----------
    transform
        Takes MRI points to CT points, LPS mm. Rigid unless another model was asked for or another transform was given.
    rigid
        The rigid transform: the same, or the one beside a similarity or affine one.
    origin
        Whether a registration found it, or the caller gave it.
    movement
        In words, how the CT had to move.
    """

    transform: Transform
    rigid: RigidTransform
    origin: Literal["registered", "given"]
    movement: str


@dataclass(frozen=True, eq=False)
class IntensityMap(ByValue):
    """What the values of the fused volume are.

    Attributes
    ----------
    meaning
        In words, for the method that made it.
    ct_knots_hu, ct_knots_fused
        The piecewise-linear map from Hounsfield units to values of the fused volume: its knots, and where they go.
    mri_low, mri_high
        The MRI's values that are 0 and 1 on the unit scale.
    window
        Lowest and highest value that show soft tissue and bone.
    """

    meaning: str
    ct_knots_hu: tuple[float, ...]
    ct_knots_fused: tuple[float, ...]
    mri_low: float
    mri_high: float
    window: tuple[float, float]


@dataclass(frozen=True, eq=False)
class Provenance(ByValue):
    """How a result was made.

    Attributes
    ----------
    date
        Local time of the end, ISO 8601.
    versions
        Of everything that has a part in it, by name.
    device
        Where it was computed.
    timings_s
        Wall-clock seconds of each step.
    registration_timings_s, registration_iterations
        The same of each stage of the registration, and its iterations.
    escalated
        Whether a second, thorough search was needed.
    """

    date: str
    versions: dict[str, str]
    device: str
    timings_s: dict[str, float] = field(default_factory=dict)
    registration_timings_s: dict[str, float] = field(default_factory=dict)
    registration_iterations: dict[str, int] = field(default_factory=dict)
    escalated: bool = False


@dataclass(frozen=True, eq=False)
class Volumes(ByValue):
    """What was fused, all on the MRI's grid.

    Attributes
    ----------
    fused
        In the MRI's intensity scale, bone above it.
    ct_in_mri
        Whole Hounsfield units, -1000 outside the CT's field of view.
    alpha
        The weight of the CT, 0 to 1; ``None`` where the method has none.
    """

    fused: Volume
    ct_in_mri: Volume
    alpha: Volume | None = None


@dataclass(frozen=True, eq=False)
class Result(ByValue):
    """One case, done.

    Attributes
    ----------
    request
        What was asked for.
    pose
        Where the CT lies on the MRI.
    verdict
        How far to trust it.
    evidence
        What the verdict was made from.
    grid
        The MRI's, on which all volumes lie.
    fidelity
        Whether the fused volume tells the truth about its sources; ``None`` where nothing was fused.
    intensity
        What its values are; ``None`` where nothing was fused.
    provenance
        How it was made.
    notes
        What had to be assumed or repaired, in words.
    volumes
        ``None`` where nothing was fused, or in a record that was read without its voxels.
    files
        Where each part was written, by role, relative to ``result.json``; empty for a result in memory.
    warning
        What every output says.
    """

    request: Request
    pose: Pose
    verdict: Verdict
    evidence: Evidence
    grid: Grid
    provenance: Provenance
    fidelity: Fidelity | None = None
    intensity: IntensityMap | None = None
    notes: tuple[str, ...] = ()
    volumes: Volumes | None = None
    files: dict[str, str] = field(default_factory=dict)
    warning: str = WARNING

    @property
    def transform(self) -> Transform:
        """Takes MRI points to CT points, LPS mm."""
        return self.pose.transform

    @property
    def fused(self) -> Volume:
        """The fused volume."""
        return self._volumes.fused

    @property
    def ct_in_mri(self) -> Volume:
        """The CT on the MRI's grid."""
        return self._volumes.ct_in_mri

    @property
    def alpha(self) -> Volume | None:
        """The weight of the CT, 0 to 1; ``None`` where the method has none."""
        return self._volumes.alpha

    @property
    def _volumes(self) -> Volumes:
        if self.volumes is None:
            raise ValueError("this result has no volumes: only the pose was asked for, or it was read without voxels")
        return self.volumes

    def without_paths(self) -> Result:
        """Return the same without the paths of the inputs and of the weights: folders tell who the user is."""
        request, mask = self.request, self.request.mri_mask
        request = replace(
            request,
            ct=replace(request.ct, path=None),
            mri=replace(request.mri, path=None),
            mri_mask=None if mask is None else replace(mask, path=None),
            settings=request.settings.without_paths(),
        )
        return replace(self, request=request)

    def without_names(self) -> Result:
        """Return the same with each input called by its role and nothing else of it, so that it tells of no patient."""
        request = self.without_paths().request
        roles = {request.ct.name: "CT", request.mri.name: "MRI"}
        if request.mri_mask is not None:
            roles[request.mri_mask.name] = "mask"

        def unnamed(source: Source) -> Source:
            return Source(roles[source.name], sha256=source.sha256)

        def anonymous(text: str) -> str:
            # The longest first: one name may be a part of another.
            for name in sorted(roles, key=len, reverse=True):
                text = text.replace(name, roles[name])
            return text

        def renamed(volume: Volume) -> Volume:
            return replace(volume, name=anonymous(volume.name), notes=tuple(anonymous(note) for note in volume.notes))

        request = replace(
            request,
            ct=unnamed(request.ct),
            mri=unnamed(request.mri),
            mri_mask=None if request.mri_mask is None else unnamed(request.mri_mask),
        )
        volumes = self.volumes
        if volumes is not None:
            alpha = None if volumes.alpha is None else renamed(volumes.alpha)
            volumes = Volumes(renamed(volumes.fused), renamed(volumes.ct_in_mri), alpha)
        return replace(self, request=request, notes=tuple(anonymous(note) for note in self.notes), volumes=volumes)
