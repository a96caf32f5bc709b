"""How far apart poses are, which of them are distinct, and the error due to the choice of samples."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import overload

import torch

from BrainFusionLib.registration.histogram import Moving, Samples
from BrainFusionLib.registration.similarity import TURN_RADIUS_MM, Poses, score_and_gradient

# Poses closer than this, at the worst point of the head, belong to the same optimum.
DISTINCT_MM = 12.0


def _corners(poses: Poses) -> torch.Tensor:
    """Return the images of six points around the head's centre, (N, 6, 3) LPS mm: the ends of a sphere's three axes."""
    eye = TURN_RADIUS_MM * torch.eye(3, dtype=torch.float64, device=poses.centre.device)
    turned = torch.cat([eye, -eye]) @ poses.rotation.transpose(1, 2)
    return turned + poses.centre[:, None]


def corner_distance_mm(a: Poses, b: Poses) -> torch.Tensor:
    """Return the distance between each pose of `a` and its partner in `b` at the worst of six points, (N,) mm."""
    distances: torch.Tensor = (_corners(a) - _corners(b)).norm(dim=2).amax(dim=1)
    return distances


@overload
def distinct(poses: Poses, keep: int) -> Poses: ...
@overload
def distinct(poses: Poses, keep: int, score: torch.Tensor) -> tuple[Poses, torch.Tensor]: ...
def distinct(poses: Poses, keep: int, score: torch.Tensor | None = None) -> Poses | tuple[Poses, torch.Tensor]:
    """Return the first `keep` poses further than `DISTINCT_MM` from all better ones; poses must be sorted, best first.

    With `score` (N,), also return the scores of the poses kept.
    """
    corners = _corners(poses)
    kept: list[int] = []
    for i in range(len(poses)):
        if len(kept) == keep:
            break
        if not kept or float((corners[kept] - corners[i]).norm(dim=2).amax(dim=1).min()) > DISTINCT_MM:
            kept.append(i)
    return poses[kept] if score is None else (poses[kept], score[kept])


def midpoint(a: Poses, b: Poses, share: float = 0.5) -> Poses:
    """Return the means of two lists of nearby poses (polar factor of the mean rotation); `share` is that of `b`."""
    u, _, vt = torch.linalg.svd((1 - share) * a.rotation + share * b.rotation)
    return Poses(u @ vt, (1 - share) * a.centre + share * b.centre)


def around(pose: Poses, step_mm: float) -> Poses:
    """Return the 12 poses one step away from a single pose: rotated and shifted along each axis, in both directions."""
    steps = step_mm * torch.eye(6, dtype=torch.float64, device=pose.centre.device)
    return Poses(pose.rotation.expand(12, 3, 3), pose.centre.expand(12, 3)).moved(torch.cat([steps, -steps]))


# Step of the finite differences for the curvature: about the width over which mutual information is parabolic.
CURVATURE_STEP_MM = 0.5
CURVATURE_SAMPLES = 60_000


def sampling_error_mm(
    groups: Sequence[Samples], moving: Moving, pose: Poses, check: Callable[[], None] = lambda: None
) -> float:
    """Return the expected error due to the choice of samples: root mean square over a sphere around the head, mm.

    Each group of samples has its own optimum, estimated by one Newton step (gradient over curvature). The scatter of
    these steps, divided by the square root of the number of groups, is the error of a result made from all of them.
    This is the delete-a-group jackknife, at the cost of one gradient for each group.
    """
    nearby = around(pose, CURVATURE_STEP_MM)
    curvature = torch.zeros((6, 6), dtype=torch.float64, device=pose.centre.device)
    enough = math.ceil(CURVATURE_SAMPLES / len(groups[0]))
    for group in groups[:enough]:
        check()
        _, slopes, _ = score_and_gradient(group, moving, nearby, normalised=True)
        curvature += (slopes[6:] - slopes[:6]) / (2 * CURVATURE_STEP_MM) / min(enough, len(groups))
    curvature = (curvature + curvature.T) / 2
    gradients = []
    for group in groups:
        check()
        gradients.append(score_and_gradient(group, moving, pose, normalised=True)[1][0])
    if not bool(curvature.isfinite().all()):
        return math.inf
    # Along a direction in which the score does not curve downwards the pose is not determined: the step is unlimited.
    values, vectors = torch.linalg.eigh(curvature)
    values = values.clamp_min(1e-4 * float(values.abs().max()) + 1e-12)
    moves = torch.stack(gradients) @ vectors / values @ vectors.T
    scatter = (moves - moves.mean(dim=0)).square().sum(dim=0) / (len(groups) - 1) / len(groups)
    # A rotation by one unit moves the points of a sphere of `TURN_RADIUS_MM` by sqrt(2/3) mm (root mean square).
    return float((scatter[:3].sum() * 2 / 3 + scatter[3:].sum()).sqrt())
