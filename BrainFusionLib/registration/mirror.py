"""Detection of exchanged left and right: a wrong header, or slices stacked in the wrong order."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from BrainFusionLib.registration.pyramid import PreparedPair
from BrainFusionLib.registration.refine import LADDER, climb_at
from BrainFusionLib.registration.similarity import Poses


def mirrored_score(heads: PreparedPair, pose: Poses, seed: int, check: Callable[[], None]) -> float:
    """Return the best mutual information at 2 mm, nats, with one of the heads mirrored.

    A head is nearly its own mirror image, so the search starts from the pose found, followed by a reflection through
    the middle of the head. All three axes of the MRI's header are tried, because the header may name left-right
    wrongly. Compare the result with the score of the pose itself on the same samples.
    """
    axes = heads.mri.levels[0].grid.direction.T
    normals = axes @ pose.rotation[0] if heads.ct_is_fixed else axes  # rows, in the fixed head's frame
    reflections = np.eye(3) - 2 * normals[:, :, None] * normals[:, None, :]
    poses = Poses(pose.rotation @ reflections, np.repeat(pose.centre, 3, axis=0))
    for level in LADDER:
        poses, score, _ = climb_at(heads, level, poses, seed, check)
    return float(score.max())
