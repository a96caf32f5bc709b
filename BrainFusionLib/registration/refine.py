"""Optimise many starting poses at once, each to the nearest optimum of mutual information."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from BrainFusionLib.geometry import FloatArray
from BrainFusionLib.registration.histogram import Moving, Samples
from BrainFusionLib.registration.pyramid import PreparedPair
from BrainFusionLib.registration.similarity import Poses, score_and_gradient

# Number of samples and length of the first step, mm, at each level before the last refinement.
LADDER = {3: (2_000, 8.0), 2: (5_000, 3.0), 1: (16_000, 1.5)}


def climb_at(
    heads: PreparedPair, level: int, poses: Poses, seed: int, check: Callable[[], None]
) -> tuple[Poses, FloatArray, int]:
    """Climb on one level of the ladder; the result is that of `climb`.

    Scores of two calls with the same seed can be compared.
    """
    count, first_step_mm = LADDER[level]
    return climb(
        heads.fixed.samples(level, count, seed),
        heads.cells[level],
        poses,
        first_step_mm=first_step_mm,
        tolerance_mm=first_step_mm / 20,
        iterations=18,
        minimum_overlap=heads.least_overlap,
        check=check,
    )


def climb(
    samples: Samples,
    moving: Moving,
    poses: Poses,
    *,
    first_step_mm: float,
    tolerance_mm: float,
    iterations: int,
    normalised: bool = False,
    minimum_overlap: float = 0.0,
    model: str = "rigid",
    check: Callable[[], None] = lambda: None,
) -> tuple[Poses, FloatArray, int]:
    """Maximise the similarity of each pose by BFGS, all poses in one batch.

    Each iteration evaluates one trial step; a step that does not improve the score is repeated at 0.4 of its length. A
    pose is finished when its step falls below `tolerance_mm`. Source of the update: J. Nocedal and S. Wright, Numerical
    Optimization, 2nd ed., eq. 6.17.

    Parameters
    ----------
    first_step_mm
        Length of the first step; the longest step allowed is twice that, because mutual information is smooth only
        over about a voxel.
    model
        Of `similarity.MOTIONS`.
    minimum_overlap
        A trial with a smaller share of samples inside the CT is rejected: with tiny overlaps, scores are arbitrary.
    check
        Called once per iteration; raises to stop (cancel).

    Returns
    -------
    poses, score, rounds : the best pose found from each start, its score (N,), float64, and the number of iterations.
    """
    check()
    count = len(poses)
    poses = Poses(poses.rotation.copy(), poses.centre.copy())
    score, slope, _ = score_and_gradient(samples, moving, poses, normalised=normalised, model=model)
    eye = np.eye(slope.shape[1])
    inverse_hessian = eye * (first_step_mm / _length(slope))[:, None, None]
    shrink, fresh, active = np.ones(count), np.ones(count, dtype=bool), np.arange(count)
    rounds = 0
    while rounds < iterations and len(active) > 0:
        check()
        rounds += 1
        h, g = inverse_hessian[active], slope[active]
        step = (h @ g[:, :, None])[:, :, 0]
        step = step * (shrink[active] * np.minimum(2 * first_step_mm / _length(step), 1.0))[:, None]
        trial = poses[active].moved(step, model)
        trial_score, trial_slope, overlap = score_and_gradient(
            samples, moving, trial, normalised=normalised, model=model
        )
        better = (trial_score > score[active]) & (overlap >= minimum_overlap)

        # BFGS on -score: y is the change of the gradient along the step.
        y = g - trial_slope
        sy = (step * y).sum(axis=1)
        length = np.linalg.norm(step, axis=1)
        useful = sy > 1e-12 * length * np.linalg.norm(y, axis=1)
        rho = np.where(useful, 1 / np.maximum(sy, 1e-300), 0.0)[:, None, None]
        # The first useful pair sets the scale (Nocedal and Wright, eq. 6.20).
        first = useful & fresh[active]
        scale = np.where(first, sy / np.maximum((y * y).sum(axis=1), 1e-300), 1.0)
        h = np.where(first[:, None, None], eye * scale[:, None, None], h)
        left = eye - rho * step[:, :, None] * y[:, None, :]
        updated = left @ h @ left.transpose(0, 2, 1) + rho * step[:, :, None] * step[:, None, :]
        inverse_hessian[active] = np.where(useful[:, None, None], updated, h)
        fresh[active] &= ~useful

        accepted = active[better]
        poses.rotation[accepted] = trial.rotation[better]
        poses.centre[accepted] = trial.centre[better]
        score[accepted] = trial_score[better]
        slope[accepted] = trial_slope[better]
        shrink[active] = np.where(better, 1.0, shrink[active] * 0.4)
        active = active[length > tolerance_mm]
    return poses, score, rounds


def _length(vectors: FloatArray) -> FloatArray:
    length: FloatArray = np.maximum(np.linalg.norm(vectors, axis=1), 1e-12)
    return length
