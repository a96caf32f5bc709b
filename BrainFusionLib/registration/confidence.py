"""How far apart poses are, which of them are distinct, and the error due to the choice of samples."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import overload

import numpy as np

from BrainFusionLib.geometry import FloatArray
from BrainFusionLib.registration.histogram import Moving, Samples
from BrainFusionLib.registration.similarity import TURN_RADIUS_MM, Poses, score_and_gradient

# Poses closer than this, at the worst point of the head, belong to the same optimum.
DISTINCT_MM = 12.0


def _corners(poses: Poses) -> FloatArray:
    """Return the images of six points around the head's centre, (N, 6, 3) LPS mm: the ends of a sphere's three axes."""
    eye = TURN_RADIUS_MM * np.eye(3)
    turned = np.concatenate([eye, -eye]) @ poses.rotation.transpose(0, 2, 1)
    corners: FloatArray = turned + poses.centre[:, None]
    return corners


def corner_distance_mm(a: Poses, b: Poses) -> FloatArray:
    """Return the distance between each pose of `a` and its partner in `b` at the worst of six points, (N,) mm."""
    distances: FloatArray = np.linalg.norm(_corners(a) - _corners(b), axis=2).max(axis=1)
    return distances


@overload
def distinct(poses: Poses, keep: int) -> Poses: ...
@overload
def distinct(poses: Poses, keep: int, score: FloatArray) -> tuple[Poses, FloatArray]: ...
def distinct(poses: Poses, keep: int, score: FloatArray | None = None) -> Poses | tuple[Poses, FloatArray]:
    """Return the first `keep` poses further than `DISTINCT_MM` from all better ones; poses must be sorted, best first.

    With `score` (N,), also return the scores of the poses kept.
    """
    corners = _corners(poses)
    kept: list[int] = []
    for i in range(len(poses)):
        if len(kept) == keep:
            break
        if not kept or np.linalg.norm(corners[kept] - corners[i], axis=2).max(axis=1).min() > DISTINCT_MM:
            kept.append(i)
    return poses[kept] if score is None else (poses[kept], score[kept])


def midpoint(a: Poses, b: Poses, share: float = 0.5) -> Poses:
    """Return the means of two lists of nearby poses (polar factor of the mean rotation); `share` is that of `b`."""
    u, _, vt = np.linalg.svd((1 - share) * a.rotation + share * b.rotation)
    return Poses(u @ vt, (1 - share) * a.centre + share * b.centre)


def around(pose: Poses, step_mm: float) -> Poses:
    """Return the 12 poses one step away from a single pose: rotated and shifted along each axis, in both directions."""
    steps = step_mm * np.eye(6)
    same = Poses(np.repeat(pose.rotation, 12, axis=0), np.repeat(pose.centre, 12, axis=0))
    return same.moved(np.concatenate([steps, -steps]))


# Step of the finite differences for the curvature: about the width over which mutual information is parabolic.
CURVATURE_STEP_MM = 0.5
CURVATURE_SAMPLES = 60_000


def sampling_error_mm(
    groups: Sequence[Samples],
    moving: Moving,
    pose: Poses,
    check: Callable[[], None] = lambda: None,
    *,
    curved_by: Sequence[Samples] | None = None,
) -> float:
    """Return the expected error due to the choice of samples: root mean square over a sphere around the head, mm.

    Each group of samples has its own optimum, estimated by one Newton step (gradient over curvature). The scatter of
    these steps, divided by the square root of the number of groups, is the error of a result made from all of them.
    This is the delete-a-group jackknife, at the cost of one gradient for each group.

    Parameters
    ----------
    curved_by
        What gives the curvature. Without it, the first groups do, which are like all others only if each is spread over
        the whole head.
    """
    nearby = around(pose, CURVATURE_STEP_MM)
    curvature = np.zeros((6, 6))
    if curved_by is None:
        curved_by = groups[: math.ceil(CURVATURE_SAMPLES / len(groups[0]))]
    for group in curved_by:
        check()
        _, slopes, _ = score_and_gradient(group, moving, nearby, normalised=True)
        curvature += (slopes[6:] - slopes[:6]) / (2 * CURVATURE_STEP_MM) / len(curved_by)
    curvature = (curvature + curvature.T) / 2
    gradients = []
    for group in groups:
        check()
        gradients.append(score_and_gradient(group, moving, pose, normalised=True)[1][0])
    if not np.isfinite(curvature).all():
        return math.inf
    # Along a direction in which the score does not curve downwards the pose is not determined: the step is unlimited.
    values, vectors = np.linalg.eigh(curvature)
    values = np.maximum(values, 1e-4 * float(np.abs(values).max()) + 1e-12)
    moves = np.stack(gradients) @ vectors / values @ vectors.T
    scatter = np.square(moves - moves.mean(axis=0)).sum(axis=0) / (len(groups) - 1) / len(groups)
    # A rotation by one unit moves the points of a sphere of `TURN_RADIUS_MM` by sqrt(2/3) mm (root mean square).
    return float(np.sqrt(scatter[:3].sum() * 2 / 3 + scatter[3:].sum()))
