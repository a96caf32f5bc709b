"""The evidence for and against a pose, measured without knowledge of the true pose.

`registration` measures `PoseEvidence`, `verdict` the rest; the criteria of `verdict.table` use all of it.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property

import numpy as np

from BrainFusionLib.acquisition import PairAcquisition
from BrainFusionLib.geometry import FloatArray
from BrainFusionLib.landmarks import LandmarkFit
from BrainFusionLib.values import ByValue

# Blocks this many spacings apart are beside each other (face or edge); a median of fewer blocks is not more certain.
BESIDE, LEAST_BESIDE = 1.5, 5


@dataclass(frozen=True, eq=False)
class PoseEvidence(ByValue):
    """The evidence of a registration for its pose.

    Attributes
    ----------
    similarity_nmi
        Normalised mutual information at the result: 1 for independent images, 2 for images that determine each other.
    margin_nats
        Mutual information (at 2 mm) by which the result beats the best distinct pose; ``None`` if all candidates ended
        at the same pose, which is the best case.
    agreement_mm
        Distance between two refinements on different random samples, at the worst of six points around the head. The
        result is the mean of the two. This is repeatability, not accuracy.
    perturbed_margin_nmi
        Normalised mutual information by which the result beats the best of 12 poses 2 mm away, on samples that the
        refinement did not use. Below zero, the result is not even the best pose nearby.
    overlap
        Share of the smaller head, with 12 mm around it, that lies inside the other volume.
    thinnest_mm, thickest_voxel_mm
        The shortest edge of the two volumes, which is the thickness of a slab; their longest voxel edge.
    mirrored_margin_nats
        Mutual information (at 2 mm) by which the result beats the best pose with left and right exchanged. Below zero,
        one of the headers is wrong.
    sampling_error_mm
        Expected error due to the choice of samples alone (`registration.confidence.sampling_error_mm`).
    lever
        Size of the head relative to the part used for the registration: 1 for whole heads, more for slabs.
    inner_apart_mm
        Distance between the fit to the whole head and the fit inside the skull (`registration.inner`), of which the
        pose is a weighted mean; ``None`` where the second was not possible. Where the inside alone gives the pose,
        `agreement_mm` and `sampling_error_mm` are those of fits to the inside.
    from_start_mm, from_start_deg
        After a local search, distance from its start at the middle of the MRI, and angle; ``None`` after a global one.
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
    inner_apart_mm: float | None = None
    from_start_mm: float | None = None
    from_start_deg: float | None = None


@dataclass(frozen=True, eq=False)
class GivenPose(ByValue):
    """Comparison of a given transform with a registered pose.

    Attributes
    ----------
    found
        The evidence of the registration; ``None`` if its pose was refused.
    apart_mm
        Distance of the registered pose from the rigid part of the given one, at the worst of six points around the
        head; ``None`` if the registered pose was refused.
    typical_mm
        Root mean square distance from the given transform itself at these points.
    stretch_mm
        How far the given transform is from its rigid part at the worst of them: 0 if it is rigid.
    """

    found: PoseEvidence | None
    apart_mm: float | None
    typical_mm: float | None
    stretch_mm: float = 0.0


@dataclass(frozen=True, eq=False)
class LocalFit(ByValue):
    """Misalignment by parts of the head: thirds and halves along each axis.

    Attributes
    ----------
    median_mm
        Median of the lengths of all shifts.
    part_mm
        Misalignment of the worst part: the length of the median of its shifts along each axis, which is far more
        certain than a single shift.
    share, least_share
        Share of the blocks (those with enough head) that could be measured; the same in the part with the smallest
        share: low if a part of the head is misaligned.
    voxel_mm
        Longest edge of the voxels used.
    high_mm, bias_mm
        90th percentile of the lengths of all shifts, and length of their median along each axis; ``None`` if no block
        could be measured.
    """

    median_mm: float
    part_mm: float
    share: float
    least_share: float
    voxel_mm: float
    high_mm: float | None = None
    bias_mm: float | None = None


@dataclass(frozen=True, eq=False)
class LocalErrors(ByValue):
    """Local misalignment: the shift that would align each region of the CT best.

    Attributes
    ----------
    spacing_mm
        Distance between the points.
    points_lps_mm, shifts_mm
        (n, 3), centres of the blocks measured, in MRI coordinates; the best shift of the CT at each, LPS.
    fit
        Misalignment by parts; ``None`` if no block could be tried.
    """

    spacing_mm: float
    points_lps_mm: FloatArray = field(default_factory=lambda: np.empty((0, 3)))
    shifts_mm: FloatArray = field(default_factory=lambda: np.empty((0, 3)))
    fit: LocalFit | None = None

    @cached_property
    def lengths_mm(self) -> FloatArray:
        """Length of each shift, (n,)."""
        return np.asarray(np.linalg.norm(self.shifts_mm, axis=1), dtype=np.float64)

    @property
    def median_mm(self) -> float | None:
        """Median length of the shifts; ``None`` if no block could be measured."""
        return float(np.median(self.lengths_mm)) if len(self.lengths_mm) else None

    @cached_property
    def worst(self) -> tuple[FloatArray, float] | None:
        """Point (LPS mm, (3,)) and size of the largest misalignment; ``None`` if no block could be measured.

        Of the median shift of a block and those beside it: single blocks read millimetres in well aligned pairs, too.
        """
        if not len(self.lengths_mm):
            return None
        apart = np.linalg.norm(self.points_lps_mm[:, None] - self.points_lps_mm[None], axis=2)
        beside = apart <= BESIDE * self.spacing_mm
        enough = beside.sum(axis=1) >= LEAST_BESIDE
        shifts = [np.median(self.shifts_mm[near], axis=0) for near in beside] if enough.any() else self.shifts_mm
        lengths = np.linalg.norm(shifts, axis=1) * (enough if enough.any() else 1)
        worst = int(np.argmax(lengths))
        return self.points_lps_mm[worst], float(lengths[worst])


@dataclass(frozen=True, eq=False)
class SkullFit(ByValue):
    """Distance of the CT's skull from the dark skull band of the MRI.

    Attributes
    ----------
    shift_mm
        Length of the shift of the skull at which the MRI under it is darkest.
    depth
        How much darker the MRI is at this shift than on average over all shifts tried, as a share of its range (1st to
        99th percentile): near 0 if there is no dark band within reach.
    brightness
        The MRI's mean signal under the unshifted skull, as a share of the same range: near 0 if it was skull-stripped.
    at_edge, voxel_mm
        Whether the best shift is at the limit of the search, so that the true one may be longer; longest voxel edge.
    air
        The MRI's median signal outside the CT's head, as a share of the range: near 1 if grey values are inverted.
    """

    shift_mm: float
    depth: float
    brightness: float
    at_edge: bool
    voxel_mm: float
    air: float = 0.0


@dataclass(frozen=True, eq=False)
class Inside(ByValue):
    """What surgery has left in the CT: it says where the brain may have moved against the skull.

    Attributes
    ----------
    air_ml
        Air inside the skull; not that of sinuses, mastoid and ear.
    defect_cm2
        Area of missing bone of the vault (craniectomy, gaps of a craniotomy), without burr holes.
    burr_holes
        Number of holes the size of a burr hole.
    """

    air_ml: float
    defect_cm2: float
    burr_holes: int


@dataclass(frozen=True, eq=False)
class BrainAlignment(ByValue):
    """The alignment to the brain, where it was requested.

    Attributes
    ----------
    is_used
        Whether the pose is that of the brain; if it could not be determined, the pose is that of the skull.
    agreement_mm
        Largest distance inside the skull between two fits on different samples; ``None`` without enough brain in view.
    centre_mm, worst_mm
        Distance between the poses of brain and skull at the middle of the inside of the skull, and at its worst point.
    """

    is_used: bool
    agreement_mm: float | None = None
    centre_mm: float | None = None
    worst_mm: float | None = None


@dataclass(frozen=True, eq=False)
class BrainShift(ByValue):
    """Displacement of the brain against the skull, from the MRI to the CT, both rigidly aligned by the skull.

    Attributes
    ----------
    judged, reason
        Whether the CT's brain tells enough of the MRI's to see a shift; why not, empty if judged.
    points_lps_mm, shifts_mm
        (n, 3), centres of the blocks matched, in MRI coordinates; a smooth field, as matched: too small, see `p95_mm`.
    p95_mm, low_mm, high_mm
        Estimated 95th percentile of the displacement over the brain; its range, right in 9 of 10 simulated shifts.
    median_mm, noise_mm
        Median displacement over the brain, as matched: right for shifted brains; standard deviation of a block's.
    information_nats, gain_nats, affine_gain_nats
        Information of the MRI on the CT's brain at the matched shifts, nats a voxel of 2 mm; how much of that is due to
        the shifts, and how much a single affine transform of the brain would gain.
    place, direction
        Where the displacement is largest ("left front") and where to; empty if nowhere, or not to one side.
    ventricles_mm, ventricles_sd_mm, whole_mm, whole_sd_mm
        Displacement of the brain away from the ventricles, 95th percentile, below 0 where they are narrower in the CT;
        its shift as a whole, less near the inner table; a standard deviation each. ``None`` if not measured.
    part_nats, part_mm, part_place, part_power_nats
        Logarithm of how much more likely the CT is if one part of the brain has moved; how far and where that part has
        moved most; what the logarithm is expected to be for a part moved by 4 mm. ``None`` if not measured.
    """

    judged: bool
    reason: str = ""
    points_lps_mm: FloatArray = field(default_factory=lambda: np.empty((0, 3)))
    shifts_mm: FloatArray = field(default_factory=lambda: np.empty((0, 3)))
    p95_mm: float = 0.0
    low_mm: float = 0.0
    high_mm: float = 0.0
    median_mm: float = 0.0
    noise_mm: float = 0.0
    information_nats: float = 0.0
    gain_nats: float = 0.0
    affine_gain_nats: float = 0.0
    place: str = ""
    direction: str = ""
    ventricles_mm: float | None = None
    ventricles_sd_mm: float | None = None
    whole_mm: float | None = None
    whole_sd_mm: float | None = None
    part_nats: float | None = None
    part_mm: float | None = None
    part_place: str = ""
    part_power_nats: float | None = None


@dataclass(frozen=True, eq=False)
class Scale(ByValue):
    """Lengths of the skull in the MRI against those in the CT, along the axes of the MRI's grid.

    Attributes
    ----------
    left_right_percent, front_back_percent, feet_head_percent
        By how much lengths are longer in the MRI than in the CT, along the axis of the grid nearest to each.
    left_right_sd_percent, front_back_sd_percent, feet_head_sd_percent
        Standard deviation of each.
    """

    left_right_percent: float
    front_back_percent: float
    feet_head_percent: float
    left_right_sd_percent: float
    front_back_sd_percent: float
    feet_head_sd_percent: float

    @property
    def axes(self) -> tuple[tuple[str, float, float], ...]:
        """Name, percentage and standard deviation of each axis."""
        return (
            ("left-right", self.left_right_percent, self.left_right_sd_percent),
            ("front-back", self.front_back_percent, self.front_back_sd_percent),
            ("feet-head", self.feet_head_percent, self.feet_head_sd_percent),
        )


@dataclass(frozen=True, eq=False)
class Distortion(ByValue):
    """Displacement of the skull that no rigid pose explains, as a smooth field, over the inside of the skull.

    Attributes
    ----------
    median_mm, p95_mm
        Median and 95th percentile of its length; wrong scale is part of it.
    noise_mm
        The 95th percentile that an undistorted pair would show on average, from the fit's own uncertainty; the prior
        of the fit makes it an upper estimate.
    beyond_scale_p95_mm
        The 95th percentile of what is left after a linear fit: bending, not scale.
    pose_median_mm, pose_p95_mm
        The same percentiles of the whole displacement, the error of the pose against the skull included.
    scatter_mm
        Standard deviation of single patches of skull around the field.
    voxel_mm
        Edge of the voxels along the axis where it is shortest, of CT and MRI the longer; 0 if unknown.
    gain_nats
        Nats a sample by which the MRI tells the CT's skull better with it than rigidly; ``None`` if unknown.
    """

    median_mm: float
    p95_mm: float
    noise_mm: float
    beyond_scale_p95_mm: float
    pose_median_mm: float
    pose_p95_mm: float
    scatter_mm: float
    voxel_mm: float = 0.0
    gain_nats: float | None = None


@dataclass(frozen=True, eq=False)
class Evidence(ByValue):
    """All evidence for a pose; fields are ``None`` if not measured.

    Attributes
    ----------
    pose, given
        Evidence of the registration for its pose; of a given pose its comparison with one, if that was requested.
    coverage
        Share of the MRI's head that is covered by tissue of the CT.
    turned_deg, sides_assumed
        Angle by which the head is turned between the headers (`verdict.headers`); whether neither gives an orientation.
    local
        Local misalignment.
    skull
        Distance of the CT's skull from the dark skull band of the MRI.
    acquisition
        How the two were acquired, by their headers; ``None`` if these say nothing.
    inside
        Air inside the skull, and holes in its vault.
    brain
        The alignment to the brain; ``None`` if the pose is that of the skull, as requested.
    brain_shift
        Displacement of the brain against the skull.
    scale, distortion
        Lengths of the skull in the MRI against those in the CT; its displacement that no rigid pose explains.
    landmarks
        Residuals of the user's landmarks.
    """

    pose: PoseEvidence | None = None
    given: GivenPose | None = None
    coverage: float | None = None
    turned_deg: float | None = None
    sides_assumed: bool | None = None
    local: LocalErrors | None = None
    skull: SkullFit | None = None
    acquisition: PairAcquisition | None = None
    inside: Inside | None = None
    brain: BrainAlignment | None = None
    brain_shift: BrainShift | None = None
    scale: Scale | None = None
    distortion: Distortion | None = None
    landmarks: LandmarkFit | None = None

    @property
    def found(self) -> PoseEvidence | None:
        """The evidence of the registration, whether it found the pose or checked a given one."""
        return self.pose if self.given is None else self.given.found
