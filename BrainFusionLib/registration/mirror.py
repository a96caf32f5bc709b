"""Detection of exchanged left and right: a wrong header, or slices stacked in the wrong order."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from BrainFusionLib.geometry import FloatArray
from BrainFusionLib.registration.confidence import distinct
from BrainFusionLib.registration.pyramid import PreparedPair
from BrainFusionLib.registration.refine import LADDER, climb_at
from BrainFusionLib.registration.similarity import Poses, joined, score_and_gradient

# Planes through the middle of the head that are tried, about 16 degrees apart, and how many of them are followed at
# each level.
PLANES = 80
FOLLOWED = {3: 5, 2: 3, 1: 3}


def mirrored_score(heads: PreparedPair, pose: Poses, seed: int, check: Callable[[], None]) -> float:
    """Return the best mutual information at 2 mm, nats, with one of the heads mirrored.

    A head is nearly its own mirror image, so the search starts from the pose found, followed by a reflection through
    the middle of the head. Planes of all directions are tried, because the head may be tilted in the image and the
    header may name left-right wrongly. Compare the result with the score of the pose itself on the same samples.
    """
    axes = heads.mri.levels[0].grid.direction.T
    along_axes = _reflected(pose, axes @ pose.rotation[0] if heads.ct_is_fixed else axes)
    tilted = _reflected(pose, _even_normals(PLANES))
    check()
    samples = heads.fixed.samples(3, LADDER[3][0], seed)
    score, _, _ = score_and_gradient(samples, heads.cells[3], tilted, gradient=False)
    order = np.argsort(-score, kind="stable")
    poses = joined([along_axes, distinct(tilted[order], FOLLOWED[3])])
    for level in LADDER:
        climbed, score, _ = climb_at(heads, level, poses, seed, check)
        order = np.argsort(-score, kind="stable")
        poses = distinct(climbed[order], FOLLOWED[level])
    return float(score.max())


def _reflected(pose: Poses, normals: FloatArray) -> Poses:
    """Return a pose after reflections at planes with these normals, (N, 3), in the fixed head's frame."""
    reflections = np.eye(3) - 2 * normals[:, :, None] * normals[:, None, :]
    return Poses(pose.rotation @ reflections, np.repeat(pose.centre, len(normals), axis=0))


def _even_normals(count: int) -> FloatArray:
    """Return `count` directions evenly over a half sphere, (count, 3): a spiral by the golden angle."""
    n = np.arange(count)
    height = (n + 0.5) / count
    turn = n * np.pi * (3 - np.sqrt(5))
    flat = np.sqrt(1 - height**2)
    return np.stack([flat * np.cos(turn), flat * np.sin(turn), height], axis=1)
