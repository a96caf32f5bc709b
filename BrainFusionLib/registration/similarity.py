"""Mutual information between samples of one head and the other under many poses at once, with its exact gradient.

A pose is a rotation R about the centre c of the fixed head, and the image m of that centre: ``x -> R (x - c) + m``, LPS
mm. Its six parameters are a rotation (multiplied from the left, in units of 1 / `TURN_RADIUS_MM` radian, so that one
unit moves the skull by about one millimetre) and a shift in mm.

The joint histogram is a Parzen estimate: each sample counts in its nearest bin (samples never change), and moving
values are spread over four bins by a cubic B-spline, which makes the histogram differentiable. Source: P. Thevenaz and
M. Unser, IEEE Trans. Image Processing 9 (2000) 2083. Samples outside the moving volume do not count.
"""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, cast

import numpy as np
import numpy.typing as npt

from BrainFusionLib.backend import WHOLE, Array
from BrainFusionLib.geometry import FloatArray, affine
from BrainFusionLib.registration.histogram import CELLS, CT_BINS, FINENESS, MRI_BINS, ROW, Moving, Samples

TURN_RADIUS_MM = 70.0


def _motion(model: str) -> FloatArray:
    skew = np.zeros((3, 3, 3))
    for axis, (a, b) in enumerate(((2, 1), (0, 2), (1, 0))):
        skew[axis, a, b], skew[axis, b, a] = 1.0, -1.0
    if model == "rigid":
        return skew
    if model == "similarity":
        return np.concatenate([skew, np.eye(3)[None]])
    return np.eye(9).reshape(9, 3, 3)


# What a step can change in addition to the shift: generators of the matrix group, (n, 3, 3). Rigid: rotations about
# three axes; similarity: also one scale; affine: any linear map.
MOTIONS = {model: _motion(model) for model in ("rigid", "similarity", "affine")}


@dataclass(frozen=True)
class Poses:
    """N poses: `rotation` (N, 3, 3) and `centre` (N, 3), the image of the fixed head's centre, LPS mm; float64.

    With a similarity or affine model, `rotation` can be any matrix.
    """

    rotation: FloatArray
    centre: FloatArray

    def __len__(self) -> int:
        return len(self.rotation)

    def __getitem__(self, index: npt.NDArray[np.generic] | slice | list[int]) -> Poses:
        return Poses(self.rotation[index], self.centre[index])

    def inverse(self, fixed_centre: FloatArray, moving_centre: FloatArray) -> Poses:
        """Return the poses from the moving to the fixed head, as poses about the moving head's centre."""
        back = self.rotation.transpose(0, 2, 1)
        return Poses(back, (back @ (moving_centre - self.centre)[:, :, None])[:, :, 0] + fixed_centre)

    def matrix(self, fixed_centre: FloatArray) -> FloatArray:
        """Return the first pose as a 4x4 affine from fixed to moving points, LPS mm."""
        return affine(self.rotation[0], self.centre[0] - self.rotation[0] @ fixed_centre)

    def moved(self, step: FloatArray, model: str = "rigid") -> Poses:
        """Return the poses after a step (N, n + 3): along the generators / TURN_RADIUS_MM, then a shift in mm."""
        along = step[:, :-3] / TURN_RADIUS_MM
        generator = np.tensordot(along, MOTIONS[model], axes=1)
        if model != "rigid":
            return Poses(_exponential(generator) @ self.rotation, self.centre + step[:, -3:])
        # Rodrigues' formula takes a tenth of the time; the second factor is written to stay exact for small angles.
        angle = np.maximum(np.linalg.norm(along, axis=1), 1e-12)[:, None, None]
        once = generator @ self.rotation
        turned = (
            self.rotation + np.sin(angle) / angle * once + 2 * (np.sin(angle / 2) / angle) ** 2 * (generator @ once)
        )
        return Poses(turned, self.centre + step[:, -3:])


def _exponential(generators: FloatArray) -> FloatArray:
    """Return the matrix exponentials of (N, 3, 3): a Taylor series of a small part of each, squared repeatedly."""
    halvings = max(0, int(np.ceil(np.log2(np.abs(generators).sum(axis=2).max() + 1e-300))) + 3)
    part = generators / 2.0**halvings
    total = term = np.broadcast_to(np.eye(3), part.shape)
    for order in range(1, 13):
        term = term @ part / order
        total = total + term
    for _ in range(halvings):
        total = total @ total
    return total


def joined(groups: list[Poses]) -> Poses:
    """Concatenate several groups of poses."""
    return Poses(np.concatenate([g.rotation for g in groups]), np.concatenate([g.centre for g in groups]))


def score_and_gradient(
    samples: Samples,
    moving: Moving,
    poses: Poses,
    *,
    normalised: bool = False,
    gradient: bool = True,
    model: str = "rigid",
) -> tuple[FloatArray, FloatArray, FloatArray]:
    """Return, for every pose, mutual information, its gradient, and the share of samples inside the CT.

    Parameters
    ----------
    gradient
        Whether to compute the gradient; otherwise the second result is empty.
    model
        A key of `MOTIONS`: what a step can change.
    normalised
        Studholme's (H(A) + H(B)) / H(A, B) instead of H(A) + H(B) - H(A, B), in nats. Source: C. Studholme, D. Hill and
        D. Hawkes, Pattern Recognition 32 (1999) 71.

    Returns
    -------
    score : (N,), gradient : (N, parameters) per unit of a step's parameters, overlap : (N,) between 0 and 1; float64.
    """
    linear, offset = moving.ijk_from_lps[:3, :3], moving.ijk_from_lps[:3, 3]
    affines = np.concatenate([linear @ poses.rotation, (poses.centre @ linear.T + offset)[:, :, None]], axis=2)
    backend = samples.backend
    # All that an evaluation gives is copied from the device at once.
    found = backend.host(evaluated(samples, moving, backend.put(affines), normalised, gradient))
    score, total, sums = found[:, 0], found[:, 1], found[:, 2:].reshape(len(poses), -1, 3)
    overlap = total / len(samples)
    if not gradient:
        return score, np.zeros((len(poses), 0)), overlap
    # Chain rule: d value / d shift = s, d value / d generator G = s . G q; s: the slope in LPS, q = R p.
    shift = sums[:, 0] @ linear
    moment = linear.T @ sums[:, 1:].transpose(0, 2, 1) @ poses.rotation.transpose(0, 2, 1)  # rows: slope; columns: q
    along = moment.reshape(len(poses), 9) @ MOTIONS[model].reshape(-1, 9).T
    return score, np.concatenate([along / TURN_RADIUS_MM, shift], axis=1) / total[:, None], overlap


def evaluated(samples: Samples, moving: Moving, affines: Array, normalised: bool, gradient: bool) -> Array:
    """Return score, number of samples inside and sums of derivatives of N poses, (N, 2 or 14) float64, on the device.

    Parameters
    ----------
    affines
        (N, 3, 4) float64, on the device: voxel index ijk of the moving image from a sample's point.
    """
    backend, poses = samples.backend, len(affines)
    xp = backend.xp
    counts, pull = backend.count(samples.points, samples.rows, moving.cells, affines, CELLS, slopes=gradient)
    fine = xp.asarray(counts[:, :CELLS].reshape(poses, MRI_BINS, ROW), dtype=xp.float64) / WHOLE
    total = xp.clip(fine.sum(axis=(1, 2)), 1e-9, None)
    spline, slope = _spline_tables(cast(Hashable, backend))
    score, table = _information(xp, fine @ spline / total[:, None, None], normalised)
    result = xp.stack([score, total], 1)
    if pull is None:
        return result
    by_cell = xp.concatenate([(table @ slope.T).reshape(poses, CELLS), xp.zeros_like(score[:, None])], 1)
    sums = pull(xp.asarray(by_cell, dtype=xp.float32))
    return xp.concatenate([result, sums.reshape(poses, 12)], 1)


@lru_cache(maxsize=4)
def _spline_tables(backend: Any) -> tuple[Array, Array]:
    """Return cubic B-spline weights and their slopes by cell, (ROW, CT_BINS) each, float64, on the device.

    Counting in fine cells and spreading the counts afterwards takes a tenth of the time of spreading every sample, and
    the difference is smaller than the histogram's sampling noise.
    """
    coordinate = np.arange(ROW) / FINENESS
    t = coordinate[:, None] - np.arange(CT_BINS)
    d = np.abs(t)
    beyond = np.maximum(2 - d, 0)
    weight = np.where(d < 1, 2 / 3 - d**2 + d**3 / 2, beyond**3 / 6)
    slope = np.where(d < 1, -2 * d + 1.5 * d**2, -(beyond**2) / 2) * np.sign(t)
    return backend.put(weight), backend.put(slope / FINENESS)


def _information(xp: Any, p: Array, normalised: bool) -> tuple[Array, Array]:
    """Return MI or NMI of joint probabilities (N, A, B), and the derivative by each probability (up to a constant)."""
    log_joint = xp.log(xp.clip(p, 1e-12, None))
    log_a = xp.log(xp.clip(p.sum(axis=2, keepdims=True), 1e-12, None))
    log_b = xp.log(xp.clip(p.sum(axis=1, keepdims=True), 1e-12, None))
    log_both = log_a + log_b
    entropy_joint = -(p * log_joint).sum(axis=(1, 2))
    entropies = -(p * log_both).sum(axis=(1, 2))
    # An empty bin carries no information: its derivative is set to 0.
    filled = p > 0
    if normalised:
        h = xp.clip(entropy_joint, 1e-9, None)
        table = (entropies / h)[:, None, None] * log_joint - log_both
        return entropies / h, table / h[:, None, None] * filled
    return entropies - entropy_joint, (log_joint - log_both) * filled
