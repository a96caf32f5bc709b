"""What speaks for or against a pose without the truth: typed, measured in one place and judged in another.

`registration` measures `PoseEvidence`, `verdict` the rest; the criteria of `verdict.table` read all of it.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property

import numpy as np

from BrainFusionLib.geometry import FloatArray
from BrainFusionLib.values import ByValue


@dataclass(frozen=True, eq=False)
class PoseEvidence(ByValue):
    """What a registration knows of its pose.

    Attributes
    ----------
    similarity_nmi
        Normalised mutual information at the result: 1 for independent images, 2 for images that determine each other.
    margin_nats
        Mutual information (at 2 mm) by which the result beats the best pose elsewhere; ``None`` when every candidate
        ended in the same place, which is the best that can happen.
    agreement_mm
        How far apart two refinements on different random samples ended, at the worst of six points around the head.
        The result is the middle of the two. Repeatability, not accuracy.
    perturbed_margin_nmi
        Normalised mutual information by which the result beats the best of 12 poses 2 mm away, on samples that the
        refinement has not seen. Below zero, the result is not even the best pose nearby.
    overlap
        Share of the smaller head, with 12 mm around it, that lies inside the other volume.
    thinnest_mm
        The shortest edge of the two volumes: how thick a slab is.
    thickest_voxel_mm
        The longest voxel edge of the two volumes.
    mirrored_margin_nats
        Mutual information (at 2 mm) by which the result beats the best pose with left and right exchanged. Below zero,
        one of the headers is wrong.
    sampling_error_mm
        Error to be expected from the choice of samples alone (`registration.confidence.sampling_error_mm`).
    lever
        How much further the head reaches than what the pose was fitted on: 1 for whole heads, more for slabs.
    """

    similarity_nmi: float
    margin_nats: float | None
    agreement_mm: float
    perturbed_margin_nmi: float
    overlap: float
    thinnest_mm: float
    thickest_voxel_mm: float
    mirrored_margin_nats: float
    sampling_error_mm: float
    lever: float


@dataclass(frozen=True, eq=False)
class GivenPose(ByValue):
    """A given transform beside the pose that a registration found.

    Attributes
    ----------
    found
        The evidence of the registration; ``None`` where the verdict on it was a refusal.
    apart_mm
        How far apart the two are at the worst of six points around the head; ``None`` without a pose found.
    typical_mm
        Their root mean square.
    """

    found: PoseEvidence | None
    apart_mm: float | None
    typical_mm: float | None


@dataclass(frozen=True, eq=False)
class LocalFit(ByValue):
    """How well a pair fits by parts: thirds and halves of the head along each axis.

    Attributes
    ----------
    median_mm
        Median of the points' shifts.
    part_mm
        How far the worst part would have to move as a whole: the length of the median of its points' shifts along each
        axis, which is far more certain than a single point's.
    share
        Share of the blocks with enough of the head that could be measured.
    least_share
        The same in the part where it is least: low where a part of the head is elsewhere in the two.
    voxel_mm
        Longest edge of the voxels that it was measured on.
    """

    median_mm: float
    part_mm: float
    share: float
    least_share: float
    voxel_mm: float


@dataclass(frozen=True, eq=False)
class LocalErrors(ByValue):
    """How far parts of a registered CT would have to move to fit better.

    Attributes
    ----------
    spacing_mm
        Distance of the points.
    points_lps_mm
        (n, 3), centres of the blocks that could be measured, MRI points.
    shifts_mm
        (n, 3), LPS: how far the CT would have to move there.
    fit
        How well the two fit by parts; ``None`` where nothing could be tried.
    """

    spacing_mm: float
    points_lps_mm: FloatArray = field(default_factory=lambda: np.empty((0, 3)))
    shifts_mm: FloatArray = field(default_factory=lambda: np.empty((0, 3)))
    fit: LocalFit | None = None

    @cached_property
    def lengths_mm(self) -> FloatArray:
        """Length of each shift, (n,)."""
        lengths: FloatArray = np.linalg.norm(self.shifts_mm, axis=1)
        return lengths

    @property
    def median_mm(self) -> float | None:
        """Median of the shifts; ``None`` where none could be measured."""
        return float(np.median(self.lengths_mm)) if len(self.lengths_mm) else None

    @property
    def worst(self) -> tuple[FloatArray, float] | None:
        """Where the largest misalignment is, LPS mm (3,), and how large; ``None`` where none could be measured."""
        if not len(self.lengths_mm):
            return None
        worst = int(np.argmax(self.lengths_mm))
        return self.points_lps_mm[worst], float(self.lengths_mm[worst])


@dataclass(frozen=True, eq=False)
class SkullFit(ByValue):
    """Where the CT's skull would lie on the darkest place of the MRI.

    Attributes
    ----------
    shift_mm
        How far the skull would have to be shifted for that.
    depth
        By how much the MRI is darker there than the average of all places tried, as a share of its brightness (1st to
        99th percentile): next to 0 where there is no dark band, or none in reach.
    brightness
        The MRI's mean signal under the skull where it lies now, as such a share: next to 0 where the skull was stripped
        from the MRI.
    at_edge
        Whether the darkest place is at the end of what was tried, so that it may be further away.
    voxel_mm
        Longest edge of the voxels that it was measured on.
    """

    shift_mm: float
    depth: float
    brightness: float
    at_edge: bool
    voxel_mm: float


@dataclass(frozen=True, eq=False)
class Evidence(ByValue):
    """All that is known of a pose; ``None`` where something was not measured, or cannot tell.

    Attributes
    ----------
    pose
        What the registration knows of the pose that it found; ``None`` where the pose was given.
    given
        What a registration says of a pose that was given; ``None`` where nobody asked.
    coverage
        Share of the MRI's head that is covered by tissue of the CT.
    local
        How far parts of the head would have to move.
    skull
        Whether the CT's skull lies on the MRI's dark band.
    """

    pose: PoseEvidence | None = None
    given: GivenPose | None = None
    coverage: float | None = None
    local: LocalErrors | None = None
    skull: SkullFit | None = None

    @property
    def found(self) -> PoseEvidence | None:
        """The evidence of the registration that was run: for the pose itself, or to check a given one."""
        return self.pose if self.given is None else self.given.found
