"""Simulated CT and MRI slices of a scan (`scans.draw_scan`), made on the device from a head in detail.

On one device the same scan gives the same voxels.
"""

from __future__ import annotations

import math
import zlib
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F

from BrainFusionLib.intensity import BONE_RAMP_HU, CT_KNOTS_HU, CT_KNOTS_UNIT
from BrainFusionLib.intensity.pictures import BONE_RAMP_LEVELS
from BrainFusionLib.phantom.tissues import BRAIN_TISSUES, Tissue
from BrainFusionLib.volume import AIR_HU
from simulation.artefacts_torch import blurred, ghosted, holder, rician, smooth_gain, streaks
from simulation.heads import Head
from simulation.scans import Blob, Scan
from simulation.tissues import APPEARANCE

# Tissues that a lesion or a bleed may replace.
SOFT_BRAIN = torch.zeros(len(Tissue), dtype=torch.bool)
SOFT_BRAIN[[int(tissue) for tissue in BRAIN_TISSUES]] = True


def render(
    head: Head,
    tissue: torch.Tensor,
    scan: Scan,
    heights_mm: Sequence[float],
    size: tuple[int, int],
    spacing_mm: float,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Make slices of a scan.

    Parameters
    ----------
    head, tissue
        The head, and its tissue map on the device, uint8, (slices, rows, columns).
    heights_mm
        Where the slices are, from the middle of the head upwards.
    size, spacing_mm
        Rows and columns, and size of a pixel.

    Returns
    -------
    ct, mri, bone
        (N, 1, rows, columns), float32, unit scale; bone weight 0 to 1, without the head holder.
    """
    device = tissue.device
    # Noise differs from slice to slice, but is the same whenever these slices are made again.
    drawn = zlib.crc32(np.asarray(heights_mm, dtype=np.float64).tobytes())
    generator = torch.Generator(device).manual_seed((scan.seed ^ drawn) % 2**62)
    heights = torch.tensor(list(heights_mm), device=device)
    plane = _plane(heights, size, spacing_mm)

    codes, texture, points = _points_and_tissues(head, tissue, scan, plane, scan.head_from_ct, (-0.4, 0.4))
    table = torch.tensor(scan.ct_hu, device=device)
    swing = torch.tensor([APPEARANCE[t].hu_swing / (APPEARANCE[t].hu or 1.0) for t in Tissue], device=device)
    hu = (table[codes] * (1 + swing[codes] * texture)).mean(dim=1, keepdim=True)
    metal = (codes == Tissue.METAL).any(dim=1, keepdim=True)
    no_holder = torch.ones_like(metal)
    if scan.holder:
        density, where = holder(plane, generator)
        where &= hu < AIR_HU + 100
        hu, no_holder = torch.where(where, density, hu), ~where
    hu = blurred(hu, scan.ct_blur)
    hu = hu + blurred(torch.randn(hu.shape, generator=generator, device=device), 0.5) * (scan.ct_noise_hu * 1.8)
    if metal.any():
        hu = (hu + streaks(metal, generator)).clamp_min(AIR_HU - 24)

    count = max(1, round(scan.slice_mm))
    offsets = tuple((n + 0.5) / count * scan.slice_mm - scan.slice_mm / 2 for n in range(count))
    codes, texture, points = _points_and_tissues(head, tissue, scan, plane, scan.head_from_mri, offsets)
    table = torch.tensor(scan.mri_values, device=device) / scan.mri_high
    mri = (table[codes] * (1 + 0.06 * texture)).mean(dim=1, keepdim=True)
    void = F.max_pool2d((codes == Tissue.METAL).float().amax(dim=1, keepdim=True), 3, 1, 1)
    mri = blurred(mri * (1 - void), scan.mri_blur) * smooth_gain(points[:, :1], scan.bias, scan.seed)
    if scan.ghost:
        mri = ghosted(mri, scan.ghost, generator)
    mri = rician(mri, scan.mri_noise, generator)

    if scan.window_hu is None:
        low, high = BONE_RAMP_HU
        return _unit(hu), mri, ((hu - low) / (high - low)).clamp(0, 1) * no_holder
    # An 8-bit picture, as the field's public slice pairs are: whoever sees it cannot tell a holder from bone.
    low, high = scan.window_hu
    levels = ((hu - low) / (high - low) * 255).clamp(0, 255).round()
    low, high = BONE_RAMP_LEVELS
    return levels / 255, (mri.clamp(0, 1) * 255).round() / 255, ((levels - low) / (high - low)).clamp(0, 1)


def _plane(heights: torch.Tensor, size: tuple[int, int], spacing_mm: float) -> torch.Tensor:
    """Return the points of the slices, mm (z, y, x) around the middle: (N, rows, columns, 3)."""
    axes = [(torch.arange(n, device=heights.device) - (n - 1) / 2) * spacing_mm for n in size]
    z, y, x = torch.meshgrid(heights, *axes, indexing="ij")
    return torch.stack([z, y, x], dim=-1)


def _points_and_tissues(
    head: Head,
    tissue: torch.Tensor,
    scan: Scan,
    plane: torch.Tensor,
    head_from_image: npt.NDArray[np.float64],
    offsets_mm: Sequence[float],
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Return tissue, a fine texture (-1 to 1) and the points (mm) at each pixel and offset: (N, offsets, H, W, …)."""
    device = plane.device
    matrix = torch.from_numpy(head_from_image).float().to(device)
    shifts = torch.tensor([[o, 0.0, 0.0] for o in offsets_mm], device=device)
    points = (plane[:, None] + shifts[:, None, None]) @ matrix[:, :3].T + matrix[:, 3]
    spacing = torch.tensor(head.spacing_kji_mm, device=device)
    shape = torch.tensor(tissue.shape, device=device)
    index = (points / spacing + (shape - 1) / 2).round().long()
    inside = ((index >= 0) & (index < shape)).all(dim=-1)
    index = index.clamp_min(0).minimum(shape - 1)
    flat = (index[..., 0] * tissue.shape[1] + index[..., 1]) * tissue.shape[2] + index[..., 2]
    codes = (tissue.reshape(-1)[flat].int() * inside).long()
    lowest, highest = (float(z) for z in torch.aminmax(points[..., [0, 0, -1, -1], [0, -1, 0, -1], 0]))
    for blob in scan.blobs:
        # Most blobs lie above or below these slices, and painting is most of the work (measured: a third of it stays).
        if min(blob.a[0], blob.b[0]) - blob.radius <= highest and max(blob.a[0], blob.b[0]) + blob.radius >= lowest:
            codes = _painted(codes, points, blob)
    z, y, x = points.unbind(-1)
    texture = torch.sin(1.25 * x + 0.3 * y) * torch.sin(1.15 * y + 0.2 * z) * torch.sin(1.2 * z + 0.25 * x + 1)
    return codes, texture, points


def _painted(codes: torch.Tensor, points: torch.Tensor, blob: Blob) -> torch.Tensor:
    a, b = (torch.tensor(end, device=points.device) for end in (blob.a, blob.b))
    along = b - a
    position = ((points - a) @ along / along.dot(along).clamp_min(1e-6)).clamp(0, 1)
    near = (points - a - position[..., None] * along).square().sum(dim=-1) < blob.radius**2
    if blob.tissue == Tissue.METAL:
        near &= codes != Tissue.BACKGROUND
    else:
        replaceable = SOFT_BRAIN.to(points.device).clone()
        replaceable[[Tissue.OEDEMA, Tissue.TUMOUR_RIM]] = True
        near &= replaceable[codes]
    return torch.where(near, int(blob.tissue), codes)


def _unit(hu: torch.Tensor) -> torch.Tensor:
    """Return `BrainFusionLib.intensity.ct_to_unit` on the device."""
    xs, ys = CT_KNOTS_HU, CT_KNOTS_UNIT
    slopes = [(ys[n + 1] - ys[n]) / (xs[n + 1] - xs[n]) for n in range(len(xs) - 1)]
    unit = torch.full_like(hu, ys[0])
    for n, slope in enumerate(slopes):
        first, last = n == 0, n == len(slopes) - 1
        low, high = -math.inf if first else xs[n], math.inf if last else xs[n + 1]
        unit += slope * (hu.clamp(low, high) - xs[n])
    return unit
