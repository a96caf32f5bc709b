"""The result of one case; it can be stored and read without loss."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Literal

from BrainFusionLib.case.decision import Decision
from BrainFusionLib.case.names import VolumeNames, remover
from BrainFusionLib.case.request import Request, Source
from BrainFusionLib.error_map import ErrorMap
from BrainFusionLib.errors import RecordError
from BrainFusionLib.evidence import Evidence
from BrainFusionLib.geometry import Grid
from BrainFusionLib.landmarks import LandmarkErrors, Landmarks
from BrainFusionLib.metrics.fidelity import Fidelity
from BrainFusionLib.settings import Side
from BrainFusionLib.transform import RigidTransform, Transform
from BrainFusionLib.values import ByValue
from BrainFusionLib.verdict.judge import Verdict
from BrainFusionLib.version import INTENDED_USE
from BrainFusionLib.volume import Volume

WARNING = INTENDED_USE


@dataclass(frozen=True, eq=False)
class Pose(ByValue):
    """The pose of the CT relative to the MRI.

    Attributes
    ----------
    transform
        Maps MRI points to CT points, LPS mm. Rigid unless another model or transform was requested.
    rigid
        The rigid transform: the same, or the rigid counterpart of a similarity or affine transform.
    origin
        Whether the pose was registered, or given by the caller.
    movement
        Description of the movement of the CT onto the MRI.
    skull
        The pose of the skull, if this one was fitted to the brain (`Evidence.brain` has the difference); else ``None``.
    """

    transform: Transform
    rigid: RigidTransform
    origin: Literal["registered", "given"]
    movement: str
    skull: RigidTransform | None = None


@dataclass(frozen=True, eq=False)
class IntensityMap(ByValue):
    """The meaning of the values of the fused volume.

    Attributes
    ----------
    meaning
        Description, which depends on the method.
    ct_knots_hu, ct_knots_fused
        Knots of the piecewise-linear map from Hounsfield units to values of the fused volume.
    mri_low, mri_high
        The MRI values that correspond to 0 and 1 on the unit scale.
    window
        Lowest and highest value of a display window for soft tissue and bone.
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
        Version of each component involved, by name.
    device
        The device used.
    timings_s
        Wall-clock seconds of each step.
    registration_timings_s, registration_iterations
        Wall-clock seconds and number of iterations of each stage of the registration.
    escalated
        Whether the first search pass was not enough.
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
    """The volumes of a result, all on one grid: the MRI's, unless another was asked for (`Output`).

    Attributes
    ----------
    fused
        On the MRI's intensity scale; bone is brighter than the MRI.
    ct_in_mri
        The CT: whole Hounsfield units, -1000 outside the CT's field of view; on the CT's own voxels, its own values.
    alpha
        The weight of the CT, 0 to 1; ``None`` if the method has none.
    mri
        The MRI, if the grid is not the MRI's own; outside of the MRI's field of view, its black.
    """

    fused: Volume
    ct_in_mri: Volume
    alpha: Volume | None = None
    mri: Volume | None = None


@dataclass(frozen=True, eq=False)
class Output(ByValue):
    """Where the volumes of a result are, and what the transform written beside them does.

    Attributes
    ----------
    reference
        Whose frame the volumes are in.
    grid
        Their grid, in that frame; ``None`` if nothing was fused.
    transform_moves
        What the transform file does: "the CT onto the MRI; it maps MRI points to CT points, LPS mm", or the reverse.
        `Pose.transform` is always the former.
    """

    reference: Side
    grid: Grid | None
    transform_moves: str

    @classmethod
    def of(cls, reference: Side, grid: Grid | None) -> Output:
        """Return the output in the frame of a reference."""
        moved, fixed = ("CT", "MRI") if reference == "mri" else ("MRI", "CT")
        text = f"the {moved} onto the {fixed}; it maps {fixed} points to {moved} points, LPS mm"
        return cls(reference, grid, text)


@dataclass(frozen=True, eq=False)
class Bone(ByValue):
    """The bone of the CT (`intensity.bone`).

    Attributes
    ----------
    threshold_hu
        What is above it is bone.
    volume_ml
        Volume of the bone in view.
    labels
        Label map on the MRI's grid, 1 in bone; ``None`` if the result was read without voxels.
    """

    threshold_hu: float
    volume_ml: float
    labels: Volume | None = None


@dataclass(frozen=True, eq=False, repr=False)
class Result(ByValue):
    """The result of one case.

    Attributes
    ----------
    request
        The request that led to it.
    pose
        Pose of the CT relative to the MRI.
    verdict
        The judgement of the pose.
    evidence
        The evidence for the verdict.
    grid
        The MRI's grid, on which the evidence was measured.
    fidelity
        How faithful the fused volume is to its sources; ``None`` if nothing was fused.
    intensity
        Meaning of the fused values; ``None`` if nothing was fused.
    provenance
        How the result was made.
    landmarks
        Residuals of the landmarks of the request; ``None`` without landmarks.
    error_map
        Expected error at each point; ``None`` beside a red verdict, and where nothing local was measured.
    bone
        The bone of the CT on the MRI's grid; ``None`` if it was not requested.
    notes
        Assumptions and repairs, for the user.
    volumes
        ``None`` if nothing was fused, or if the result was read without voxels.
    output
        The frame and the grid of the volumes, and the direction of the transform that is written.
    files
        Files of the result by role, relative to ``result.json``; empty for a result in memory.
    decisions
        What people decided about this result, the latest last (`case.standing` says which of them still hold).
    warning
        The warning that every output carries.
    """

    request: Request
    pose: Pose
    verdict: Verdict
    evidence: Evidence
    grid: Grid
    provenance: Provenance
    fidelity: Fidelity | None = None
    intensity: IntensityMap | None = None
    landmarks: LandmarkErrors | None = None
    error_map: ErrorMap | None = None
    bone: Bone | None = None
    notes: tuple[str, ...] = ()
    volumes: Volumes | None = None
    output: Output | None = None
    files: dict[str, str] = field(default_factory=dict)
    decisions: tuple[Decision, ...] = ()
    warning: str = WARNING

    def __repr__(self) -> str:
        verdict, made = self.verdict, "without volumes" if self.volumes is None else f"fused={self.volumes.fused!r}"
        bound = "" if verdict.bound_mm is None else f", bound {verdict.bound_mm:.2g} mm"
        return f"Result({verdict.sentence!r}{bound}, {self.pose.movement!r}, {made})"

    @property
    def transform(self) -> Transform:
        """Maps MRI points to CT points, LPS mm."""
        return self.pose.transform

    @property
    def reference(self) -> Side:
        """Whose frame the volumes are in."""
        return self.request.settings.output.reference

    @property
    def remarks(self) -> tuple[str, ...]:
        """All that is said beside the colour: the texts of the findings, the notes, a reminder of the limits."""
        *findings, reminder = self.verdict.reasons
        return (*findings, *self.notes, reminder)

    @property
    def fused(self) -> Volume:
        """The fused volume."""
        return self._volumes.fused

    @property
    def ct_in_mri(self) -> Volume:
        """The CT on the grid of the result."""
        return self._volumes.ct_in_mri

    @property
    def alpha(self) -> Volume | None:
        """The weight of the CT, 0 to 1; ``None`` if the method has none."""
        return self._volumes.alpha

    @property
    def _volumes(self) -> Volumes:
        if self.volumes is None:
            raise RecordError(
                "this result has no volumes: only its pose was requested, or it was read without voxels. Use fuse, or "
                "read_case on the folder of a fused case."
            )
        return self.volumes

    def without_paths(self) -> Result:
        """Return the same without the paths of the inputs and of the weights, which may identify the user."""
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
        """Return the same with each input named by its role, so that no name identifies the patient."""
        request = self.without_paths().request
        ct, mri, mask = request.ct, request.mri, request.mri_mask
        anonymous = remover([(ct.name, "CT"), (mri.name, "MRI")] + ([] if mask is None else [(mask.name, "mask")]))
        names = VolumeNames("CT", "MRI", self.reference)

        def renamed(volume: Volume, name: str) -> Volume:
            return replace(volume, name=name, notes=tuple(map(anonymous, volume.notes)), acquisition=None)

        def marked(points: Landmarks) -> Landmarks:
            return replace(points, names=tuple(anonymous(name) for name in points.names))

        request = replace(
            request,
            ct=Source("CT", sha256=ct.sha256),
            mri=Source("MRI", sha256=mri.sha256),
            mri_mask=None if mask is None else Source("mask", sha256=mask.sha256),
            settings=request.settings.without_names(),
            landmarks=None if request.landmarks is None else marked(request.landmarks),
        )
        landmarks = self.landmarks
        if landmarks is not None:
            points = tuple(replace(point, name=anonymous(point.name)) for point in landmarks.points)
            landmarks = replace(landmarks, points=points)
        volumes = self.volumes
        if volumes is not None:
            volumes = Volumes(
                renamed(volumes.fused, names.fused),
                renamed(volumes.ct_in_mri, names.ct_on_grid),
                None if volumes.alpha is None else renamed(volumes.alpha, names.alpha),
                None if volumes.mri is None else renamed(volumes.mri, names.mri_on_grid),
            )
        bone = self.bone
        if bone is not None and bone.labels is not None:
            bone = replace(bone, labels=renamed(bone.labels, names.bone))
        notes = tuple(map(anonymous, self.notes))
        evidence, pair = self.evidence, self.evidence.acquisition
        if pair is not None and pair.ct is not None:  # free text in the header, which anything may stand in
            evidence = replace(evidence, acquisition=replace(pair, ct=replace(pair.ct, model=None, kernel=None)))
        return replace(
            self, request=request, evidence=evidence, notes=notes, volumes=volumes, landmarks=landmarks, bone=bone
        )
