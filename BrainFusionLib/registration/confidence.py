"""Telling poses apart: which optima are distinct, how well refinements agree, what error is to be expected."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import overload

import torch

from BrainFusionLib.registration.histogram import Moving, Samples
from BrainFusionLib.registration.similarity import TURN_RADIUS_MM, Poses, score_and_gradient

# Poses nearer to each other than this, at the worst point of the head, lie in the basin of one optimum.
DISTINCT_MM = 12.0


def _corner_places(poses: Poses) -> torch.Tensor:
    """Return where six points around the head's centre go, (N, 6, 3) LPS mm: the ends of the three axes of a sphere."""
    eye = TURN_RADIUS_MM * torch.eye(3, dtype=torch.float64, device=poses.centre.device)
    turned = torch.cat([eye, -eye]) @ poses.rotation.transpose(1, 2)
    return turned + poses.centre[:, None]


def corner_distance_mm(a: Poses, b: Poses) -> torch.Tensor:
    """Return how far apart each pose of `a` is from its partner in `b` at the worst of six points, (N,) mm."""
    distances: torch.Tensor = (_corner_places(a) - _corner_places(b)).norm(dim=2).amax(dim=1)
    return distances


@overload
def distinct(poses: Poses, keep: int) -> Poses: ...
@overload
def distinct(poses: Poses, keep: int, score: torch.Tensor) -> tuple[Poses, torch.Tensor]: ...
def distinct(poses: Poses, keep: int, score: torch.Tensor | None = None) -> Poses | tuple[Poses, torch.Tensor]:
    """Return the first `keep` poses that are further than `DISTINCT_MM` from all better ones; poses come best first.

    With `score` (N,), return the scores of those kept, too.
    """
    places = _corner_places(poses)
    kept: list[int] = []
    for i in range(len(poses)):
        if len(kept) == keep:
            break
        if not kept or float((places[kept] - places[i]).norm(dim=2).amax(dim=1).min()) > DISTINCT_MM:
            kept.append(i)
    return poses[kept] if score is None else (poses[kept], score[kept])


def midpoint(a: Poses, b: Poses) -> Poses:
    """Return the poses half way between two lists of nearby ones (polar factor of the mean of the rotations)."""
    u, _, vt = torch.linalg.svd(a.rotation + b.rotation)
    return Poses(u @ vt, (a.centre + b.centre) / 2)


def around(pose: Poses, step_mm: float) -> Poses:
    """Return the 12 poses one step away from a single one: turned and shifted along each axis, either way."""
    steps = step_mm * torch.eye(6, dtype=torch.float64, device=pose.centre.device)
    return Poses(pose.rotation.expand(12, 3, 3), pose.centre.expand(12, 3)).moved(torch.cat([steps, -steps]))


# Steps for the curvature's differences: about the width over which mutual information is a parabola.
CURVATURE_STEP_MM = 0.5
CURVATURE_SAMPLES = 60_000


def sampling_error_mm(
    groups: Sequence[Samples], moving: Moving, pose: Poses, check: Callable[[], None] = lambda: None
) -> float:
    """Return the error to be expected from the choice of samples: root mean square over a sphere around the head, mm.

    Every group of samples pulls the pose its own way: by its gradient over the curvature (one Newton step). How far
    the groups' steps scatter, over the root of their number, is the error of a result made from all of them. This is
    the delete-a-group jackknife, at the cost of a gradient a group.
    """
    nearby = around(pose, CURVATURE_STEP_MM)
    curvature = torch.zeros((6, 6), dtype=torch.float64, device=pose.centre.device)
    enough = math.ceil(CURVATURE_SAMPLES / len(groups[0]))
    for group in groups[:enough]:
        check()
        _, slopes, _ = score_and_gradient(group, moving, nearby, normalised=True)
        curvature += (slopes[6:] - slopes[:6]) / (2 * CURVATURE_STEP_MM) / min(enough, len(groups))
    curvature = (curvature + curvature.T) / 2
    pulls = []
    for group in groups:
        check()
        pulls.append(score_and_gradient(group, moving, pose, normalised=True)[1][0])
    if not bool(curvature.isfinite().all()):
        return math.inf
    # A direction in which the score does not curve downwards holds nothing: there the step is as good as unlimited.
    values, vectors = torch.linalg.eigh(curvature)
    values = values.clamp_min(1e-4 * float(values.abs().max()) + 1e-12)
    moves = torch.stack(pulls) @ vectors / values @ vectors.T
    scatter = (moves - moves.mean(dim=0)).square().sum(dim=0) / (len(groups) - 1) / len(groups)
    # A turn by one unit moves the points of a sphere of `TURN_RADIUS_MM` by the root of 2/3 mm in the mean square.
    return float((scatter[:3].sum() * 2 / 3 + scatter[3:].sum()).sqrt())
