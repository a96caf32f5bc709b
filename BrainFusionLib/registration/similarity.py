"""Mutual information between samples of one head and the other under many poses at once, with its exact gradient.

A pose is a rotation R about the centre c of the fixed head, and the image m of that centre: ``x -> R (x - c) + m``, LPS
mm. Its six parameters are a rotation (multiplied from the left, in units of 1 / `TURN_RADIUS_MM` radian, so that one
unit moves the skull by about one millimetre) and a shift in mm.

The joint histogram is a Parzen estimate: each sample counts in its nearest bin (samples never change), and moving
values are spread over four bins by a cubic B-spline, which makes the histogram differentiable. Source: P. Thevenaz and
M. Unser, IEEE Trans. Image Processing 9 (2000) 2083. Samples outside the moving volume do not count.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import torch

from BrainFusionLib.geometry import FloatArray, affine
from BrainFusionLib.registration.histogram import CELLS, CT_BINS, FINENESS, MRI_BINS, ROW, Moving, Samples, joint_counts

TURN_RADIUS_MM = 70.0


def _motion(model: str) -> torch.Tensor:
    skew = torch.zeros(3, 3, 3, dtype=torch.float64)
    for axis, (a, b) in enumerate(((2, 1), (0, 2), (1, 0))):
        skew[axis, a, b], skew[axis, b, a] = 1.0, -1.0
    if model == "rigid":
        return skew
    if model == "similarity":
        return torch.cat([skew, torch.eye(3, dtype=torch.float64)[None]])
    return torch.eye(9, dtype=torch.float64).reshape(9, 3, 3)


# What a step can change in addition to the shift: generators of the matrix group, (n, 3, 3). Rigid: rotations about
# three axes; similarity: also one scale; affine: any linear map.
MOTIONS = {model: _motion(model) for model in ("rigid", "similarity", "affine")}


@dataclass(frozen=True)
class Poses:
    """N poses: `rotation` (N, 3, 3) and `centre` (N, 3), the image of the fixed head's centre, LPS mm; float64.

    With a similarity or affine model, `rotation` can be any matrix.
    """

    rotation: torch.Tensor
    centre: torch.Tensor

    def __len__(self) -> int:
        return len(self.rotation)

    def __getitem__(self, index: torch.Tensor | slice | list[int]) -> Poses:
        return Poses(self.rotation[index], self.centre[index])

    def inverse(self, fixed_centre: torch.Tensor, moving_centre: torch.Tensor) -> Poses:
        """Return the poses from the moving to the fixed head, as poses about the moving head's centre."""
        back = self.rotation.transpose(1, 2)
        return Poses(back, (back @ (moving_centre - self.centre)[:, :, None])[:, :, 0] + fixed_centre)

    def matrix(self, fixed_centre: torch.Tensor) -> FloatArray:
        """Return the first pose as a 4x4 affine from fixed to moving points, LPS mm."""
        linear = self.rotation[0].cpu().numpy()
        return affine(linear, self.centre[0].cpu().numpy() - linear @ fixed_centre.cpu().numpy())

    def moved(self, step: torch.Tensor, model: str = "rigid") -> Poses:
        """Return the poses after a step (N, n + 3): along the generators / TURN_RADIUS_MM, then a shift in mm."""
        along = step[:, :-3] / TURN_RADIUS_MM
        generator = torch.einsum("ng,gab->nab", along, MOTIONS[model].to(step.device))
        if model != "rigid":
            return Poses(torch.linalg.matrix_exp(generator) @ self.rotation, self.centre + step[:, -3:])
        # Rodrigues' formula takes a tenth of the time; the second factor is written to stay exact for small angles.
        angle = along.norm(dim=1)[:, None, None].clamp_min(1e-12)
        once = generator @ self.rotation
        turned = self.rotation + angle.sin() / angle * once + 2 * ((angle / 2).sin() / angle) ** 2 * (generator @ once)
        return Poses(turned, self.centre + step[:, -3:])


def joined(groups: list[Poses]) -> Poses:
    """Concatenate several groups of poses."""
    return Poses(torch.cat([g.rotation for g in groups]), torch.cat([g.centre for g in groups]))


def score_and_gradient(
    samples: Samples,
    moving: Moving,
    poses: Poses,
    *,
    normalised: bool = False,
    gradient: bool = True,
    model: str = "rigid",
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
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
    device = poses.centre.device
    linear = torch.as_tensor(moving.ijk_from_lps[:3, :3], device=device, dtype=torch.float64)
    offset = torch.as_tensor(moving.ijk_from_lps[:3, 3], device=device, dtype=torch.float64)
    affines = torch.cat([linear @ poses.rotation, (poses.centre @ linear.T + offset)[:, :, None]], dim=2)
    counts, pull = joint_counts(samples, moving, affines, slopes=gradient)

    fine = counts[:, :CELLS].reshape(-1, MRI_BINS, ROW).double()
    total = fine.sum(dim=(1, 2)).clamp_min(1e-9)
    spline, slope = _spline_tables(device)
    score, table = _information(fine @ spline / total[:, None, None], normalised)
    overlap = total / len(samples)
    if pull is None:
        return score, torch.zeros(len(poses), 0, device=device), overlap

    by_cell = torch.zeros(counts.shape, device=device)
    by_cell[:, :CELLS] = (table @ slope.T).reshape(len(poses), CELLS).float()
    sums = pull(by_cell)
    # Chain rule: d value / d shift = s, d value / d generator G = s . G q; s: the slope in LPS, q = R p.
    shift = sums[:, 0] @ linear
    moment = linear.T @ sums[:, 1:].transpose(1, 2) @ poses.rotation.transpose(1, 2)  # rows: slope; columns: q
    along = torch.einsum("gab,nab->ng", MOTIONS[model].to(device), moment)
    return score, torch.cat([along / TURN_RADIUS_MM, shift], dim=1) / total[:, None], overlap


@lru_cache(maxsize=4)
def _spline_tables(device: torch.device) -> tuple[torch.Tensor, torch.Tensor]:
    """Return cubic B-spline weights and their slopes by cell, (ROW, CT_BINS) each, float64.

    Counting in fine cells and spreading the counts afterwards takes a tenth of the time of spreading every sample, and
    the difference is smaller than the histogram's sampling noise.
    """
    coordinate = torch.arange(ROW, device=device, dtype=torch.float64) / FINENESS
    t = coordinate[:, None] - torch.arange(CT_BINS, device=device, dtype=torch.float64)
    d = t.abs()
    weight = torch.where(d < 1, 2 / 3 - d**2 + d**3 / 2, (2 - d).clamp_min(0) ** 3 / 6)
    slope = torch.where(d < 1, -2 * d + 1.5 * d**2, -((2 - d).clamp_min(0) ** 2) / 2) * t.sign()
    return weight, slope / FINENESS


def _information(p: torch.Tensor, normalised: bool) -> tuple[torch.Tensor, torch.Tensor]:
    """Return MI or NMI of joint probabilities (N, A, B), and the derivative by each probability (up to a constant)."""
    log_joint = p.clamp_min(1e-12).log()
    log_a = p.sum(dim=2, keepdim=True).clamp_min(1e-12).log()
    log_b = p.sum(dim=1, keepdim=True).clamp_min(1e-12).log()
    entropy_joint = -(p * log_joint).sum(dim=(1, 2))
    entropies = -(p * (log_a + log_b)).sum(dim=(1, 2))
    # An empty bin carries no information: its derivative is set to 0.
    filled = p > 0
    if normalised:
        h = entropy_joint.clamp_min(1e-9)[:, None, None]
        table = (entropies[:, None, None] / h * log_joint - (log_a + log_b)) / h
        return entropies / entropy_joint.clamp_min(1e-9), table * filled
    return entropies - entropy_joint, (log_joint - log_a - log_b) * filled
