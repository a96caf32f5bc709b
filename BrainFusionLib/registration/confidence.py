"""Telling poses apart: which optima are distinct, and how well independent refinements agree."""

from __future__ import annotations

from typing import overload

import torch

from BrainFusionLib.registration.similarity import TURN_RADIUS_MM, Poses

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
