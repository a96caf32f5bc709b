"""The stages of a registration, from the first search to the last tenth of a millimetre."""

from __future__ import annotations

import time
from dataclasses import dataclass

import numpy as np

from BrainFusionLib.geometry import FloatArray
from BrainFusionLib.intensity.inside import FindInside, InsideSkull
from BrainFusionLib.progress import Cancel, Progress, stop_if
from BrainFusionLib.registration.confidence import around, corner_distance_mm, distinct, midpoint, sampling_error_mm
from BrainFusionLib.registration.deep import deep_share, of_soft_tissue
from BrainFusionLib.registration.histogram import Samples
from BrainFusionLib.registration.inner import (
    AGAINST_MM,
    LEAST_IN_VIEW,
    LONG_MM,
    MOST_IN_VIEW,
    OCTANTS,
    UNSETTLED_MM,
    InnerSamples,
    distance_inside_mm,
    inner_share,
    is_confirmed,
    octants,
    sharpened,
    shortened,
)
from BrainFusionLib.registration.pyramid import PreparedPair
from BrainFusionLib.registration.refine import LADDER, climb, climb_at
from BrainFusionLib.registration.search import COARSE, FINE, even_rotations, search
from BrainFusionLib.registration.similarity import Poses, joined, score_and_gradient
from BrainFusionLib.settings import RegistrationSettings, SearchPass

STAGE = "registration"
# Number of groups of samples whose scatter gives the expected error.
GROUPS = 8
# Two images that tell less of each other tell nothing.
LEAST_NATS = 1e-9
# A local search also starts this far from the start, as a shift or at 70 mm from the centre.
LOCAL_STEP_MM = 12.0


@dataclass(frozen=True)
class Alone:
    """A pose fitted to the inside of the skull alone, where that of the whole head is far off.

    Attributes
    ----------
    pose
        One pose, from the MRI to the CT.
    agreement_mm
        Distance between two refinements on different samples of the inside.
    sampling_mm
        Its sampling error.
    """

    pose: Poses
    agreement_mm: float
    sampling_mm: float


class Run:
    """One call of `register`: its settings, timings and iterations, and the caller's progress and cancel."""

    def __init__(
        self,
        settings: RegistrationSettings,
        progress: Progress | None,
        cancel: Cancel | None,
    ) -> None:
        self.settings = settings
        self.timings_s: dict[str, float] = {}
        self.iterations: dict[str, int] = {}
        self._progress = progress
        self._cancel = cancel
        self._since = time.perf_counter()

    def report(self, fraction: float) -> None:
        """Report progress, or stop."""
        self.check()
        if self._progress is not None:
            self._progress(STAGE, fraction)

    def check(self) -> None:
        """Raise `Cancelled` if the caller wants to stop."""
        stop_if(self._cancel)

    def lap(self, name: str, fraction: float) -> None:
        """Add the time since the last lap to a stage, and report progress."""
        now = time.perf_counter()
        self.timings_s[name] = self.timings_s.get(name, 0.0) + now - self._since
        self._since = now
        self.report(fraction)

    def count(self, name: str, rounds: int) -> None:
        """Add iterations to a stage."""
        self.iterations[name] = self.iterations.get(name, 0) + rounds

    def find(self, heads: PreparedPair, starts: Poses) -> tuple[Poses, FloatArray, int]:
        """Run search passes until one pose stands out; return the last poses and scores, and the number of passes."""
        if self.settings.search == "local":
            return *self.climb_from(heads, starts), 1
        for number, search_pass in enumerate(self.settings.passes, 1):
            # Each pass takes half of the remaining progress up to 0.85.
            begin, width = 0.85 - 0.7 * 0.5 ** (number - 1), 0.35 * 0.5 ** (number - 1)
            poses, score = self.choose(heads, starts, search_pass, begin, width)
            if len(poses) == 1 or float(score[0] - score[1]) > search_pass.safe_margin:
                break
            starts = joined([starts, poses])
        return poses, score, number

    def climb_from(self, heads: PreparedPair, start: Poses) -> tuple[Poses, FloatArray]:
        """Return up to two distinct poses at 2 mm, climbed from one start, best first, and their mutual information.

        From poses around the start, too: a single climb stops at the next local optimum.
        """
        poses = joined([start, around(start, LOCAL_STEP_MM)])
        # A coarse level's bias must not lose a start that is right already.
        followed = {3: 3, 2: 2, 1: 2}
        for level in LADDER:
            climbed, score, rounds = climb_at(heads, level, poses, self.settings.seed, self.check)
            order = np.argsort(-score, kind="stable")
            poses, score = distinct(climbed[order], followed[level], score[order])
            if level > 1:
                poses = joined([poses, start])
            self.count(f"climb {2**level} mm", rounds)
            self.lap(f"climb {2**level} mm", {3: 0.4, 2: 0.5, 1: 0.6}[level])
        return poses, score

    def choose(
        self, heads: PreparedPair, starts: Poses, search_pass: SearchPass, begin: float, width: float
    ) -> tuple[Poses, FloatArray]:
        """Return up to four distinct poses at 2 mm, best first, and their mutual information.

        The choice is made late: in most failures of simpler schemes the right pose was among the candidates but was
        dropped at a level with voxels too coarse to tell it from wrong ones.
        """
        seed = self.settings.seed
        found, _ = search(
            heads,
            even_rotations(search_pass.rotations),
            FINE if search_pass.fine else COARSE,
            per_rotation=2,
            check=self.check,
        )
        poses = joined([starts, distinct(found, search_pass.candidates)])
        self.lap("search", begin + 0.6 * width)
        # The starts are added again at every level, so that a right one is not lost to the bias of a coarser level.
        followed = {3: max(4, search_pass.candidates // 3), 2: 4, 1: 4}
        for level, fraction in zip(LADDER, (0.7, 0.8, 1.0), strict=True):
            climbed, score, rounds = climb_at(heads, level, poses, seed, self.check)
            order = np.argsort(-score, kind="stable")
            poses, score = distinct(climbed[order], followed[level], score[order])
            if level > 1:
                poses = joined([poses, starts])
            self.count(f"climb {2**level} mm", rounds)
            self.lap(f"climb {2**level} mm", begin + fraction * width)
        return poses, score

    def refine(self, heads: PreparedPair, pose: Poses) -> tuple[Poses, float, float]:
        """Return the pose refined at 1 mm, the distance between two refinements, and the sampling error, mm.

        The score is normalised mutual information, which depends less on the overlap of tissue and air.
        """
        count, seed = self.settings.samples, self.settings.seed
        # A tenth of the samples is enough to get close; all are needed for the last tenth of a millimetre.
        pose = self._climb_at_1_mm(heads, pose, heads.fixed.samples(0, count // 10, seed + 1), 0.5, 0.02)
        halves = []
        for half in (0, 1):
            self.check()
            halves.append(heads.fixed.samples(0, count // 2, seed + 2 + half))
        ends = [self._climb_at_1_mm(heads, pose, half, 0.1, 0.003) for half in halves]
        final = midpoint(ends[0], ends[1])
        groups = [half.every(GROUPS // 2, n) for half in halves for n in range(GROUPS // 2)]
        sampling = sampling_error_mm(groups, heads.cells[0], final, self.check)
        self.lap("refine 1 mm", 0.99)
        return final, float(corner_distance_mm(ends[0], ends[1])[0]), sampling

    def refine_inside(
        self, heads: PreparedPair, pose: Poses, sampling_mm: float, find_inside: FindInside
    ) -> tuple[Poses, float | None, Alone | None]:
        """Return the mean of a refined pose and of the fit inside the skull, and how far they are apart, mm.

        The pose is returned as it is, with ``None``, if no inside of a skull is in view of both. The last result is
        given where the pose is that of the inside alone.
        """
        inside = find_inside()
        self.check()
        if inside is None:
            return pose, None, None
        centres = heads.ct.centre_lps_mm, heads.mri.centre_lps_mm
        of_mri = pose.inverse(*centres) if heads.ct_is_fixed else pose
        drawn = InnerSamples(heads.mri, inside, of_mri.matrix(centres[1]))
        least = LEAST_IN_VIEW if heads.are_whole else MOST_IN_VIEW
        if drawn.share_in_view < least or (not heads.are_whole and inside.share_in_view < MOST_IN_VIEW):
            return pose, None, None
        cells = sharpened(heads.ct)
        pair = PreparedPair(heads.ct, heads.mri, False, [cells])
        # A quarter of the samples: the error of this fit is systematic.
        samples, deep = drawn.samples_and_deep(self.settings.samples // 4, self.settings.seed + 5)
        inner = self._climb_at_1_mm(pair, of_mri, samples, 0.3, 0.005)
        inner = self._with_the_deep(heads, inside, inner, deep)
        outer_pose, inner_pose = of_mri.matrix(centres[1]), inner.matrix(centres[1])
        ct, mri = (head.levels[0].grid for head in (heads.ct, heads.mri))
        lengths = shortened(ct, mri, outer_pose)
        told = distance_inside_mm(outer_pose, inner_pose, inside.centre_lps_mm, lengths)
        voxel_mm = max(*ct.spacing_ijk_mm, *mri.spacing_ijk_mm)
        apart = distance_inside_mm(outer_pose, inner_pose, inside.centre_lps_mm)
        share = inner_share(sampling_mm, apart, told, voxel_mm)
        if share > 0 and voxel_mm > LONG_MM and len(parts := octants(samples)) > 1:
            scatter = sampling_error_mm(parts, cells, inner, self.check)
            share = inner_share(sampling_mm, apart, told, voxel_mm, scatter)
        # In the second case the pose is the inner fit's anyway, and the scatter of the other one is not the pose's.
        contradicts = apart > AGAINST_MM or (share > 0.99 and sampling_mm > UNSETTLED_MM)
        alone = self._fit_inside_alone(pair, inside, of_mri, inner, apart) if contradicts else None
        if alone is not None:
            inner, share = alone.pose, 1.0
            apart = distance_inside_mm(outer_pose, inner.matrix(centres[1]), inside.centre_lps_mm)
        final = midpoint(of_mri, inner, share)
        self.lap("refine inside", 0.99)
        return (final.inverse(centres[1], centres[0]) if heads.ct_is_fixed else final), apart, alone

    def _with_the_deep(self, heads: PreparedPair, inside: InsideSkull, inner: Poses, deep: Samples) -> Poses:
        """Return the mean of the fit inside and of one to samples below the layer under the skull, by their errors."""
        parts = octants(deep)
        if len(parts) < OCTANTS:
            return inner
        pair = PreparedPair(heads.ct, heads.mri, False, [of_soft_tissue(heads.ct, inside.brain_hu)])
        found = self._climb_at_1_mm(pair, inner, deep, 0.3, 0.005)
        centre = pair.mri.centre_lps_mm
        apart = distance_inside_mm(inner.matrix(centre), found.matrix(centre), inside.centre_lps_mm)
        thinned = [part.every(2, 0) for part in parts]
        scatter = sampling_error_mm(parts, pair.cells[0], found, self.check, curved_by=thinned)
        return midpoint(inner, found, deep_share(scatter, apart))

    def _fit_inside_alone(
        self, pair: PreparedPair, inside: InsideSkull, outer: Poses, inner: Poses, apart_mm: float
    ) -> Alone | None:
        """Return the fit to the inside, far from that of the whole head, if all parts of the inside confirm it.

        The samples of the first fit were drawn around a pose that is far off if this one is right: they are drawn anew.
        """
        centre, count, seed = pair.mri.centre_lps_mm, self.settings.samples // 4, self.settings.seed
        drawn = InnerSamples(pair.mri, inside, inner.matrix(centre))
        if drawn.share_in_view < LEAST_IN_VIEW:
            return None
        halves = [drawn.samples(count // 2, seed + n) for n in (6, 7)]
        ends = [self._climb_at_1_mm(pair, inner, half, 0.3, 0.003) for half in halves]
        found = midpoint(ends[0], ends[1])
        parts = octants(drawn.samples(count, seed + 5))
        if len(parts) < OCTANTS:
            return None
        scatter = sampling_error_mm(parts, pair.cells[0], found, self.check)
        tells, told = (
            score_and_gradient(halves[0], pair.cells[0], pose, gradient=False)[0][0] for pose in (found, outer)
        )
        agreement = float(corner_distance_mm(ends[0], ends[1])[0])
        if not is_confirmed(scatter, agreement, float(told / max(tells, LEAST_NATS)), apart_mm):
            return None
        groups = [half.every(GROUPS // 2, n) for half in halves for n in range(GROUPS // 2)]
        return Alone(found, agreement, sampling_error_mm(groups, pair.cells[0], found, self.check))

    def fit(self, heads: PreparedPair, pose: Poses, model: str) -> Poses:
        """Return the similarity or affine pose of a model, fitted at 1 mm."""
        samples = heads.fixed.samples(0, self.settings.samples, self.settings.seed + 4)
        fitted = self._climb_at_1_mm(heads, pose, samples, 0.5, 0.01, model)
        self.lap(f"fit {model}", 0.99)
        return fitted

    def _climb_at_1_mm(
        self,
        heads: PreparedPair,
        pose: Poses,
        samples: Samples,
        first_step_mm: float,
        tolerance_mm: float,
        model: str = "rigid",
    ) -> Poses:
        climbed, _, rounds = climb(
            samples,
            heads.cells[0],
            pose,
            first_step_mm=first_step_mm,
            tolerance_mm=tolerance_mm,
            iterations=30 if model == "rigid" else 100,
            normalised=True,
            minimum_overlap=heads.least_overlap,
            model=model,
            check=self.check,
        )
        self.count("refine 1 mm" if model == "rigid" else f"fit {model}", rounds)
        return climbed
