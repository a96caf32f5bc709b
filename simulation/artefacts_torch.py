"""What scanners add to an image, on the device: blur, noise, gain, ghosts, streaks, the head holder.

Images are (N, 1, rows, columns), float32. The streaks and ghosts look like the real ones; they are no physics.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F


def blurred(image: torch.Tensor, sigma: float) -> torch.Tensor:
    """Blur rows and columns with a Gaussian of `sigma` pixels; the border is repeated outwards."""
    radius = max(1, math.ceil(2.5 * sigma))
    offsets = torch.arange(-radius, radius + 1, device=image.device, dtype=image.dtype)
    weights = torch.exp(-offsets.square() / (2 * sigma**2))
    weights = weights / weights.sum()
    padded = F.pad(image, (radius,) * 4, mode="replicate")
    return F.conv2d(F.conv2d(padded, weights.view(1, 1, -1, 1)), weights.view(1, 1, 1, -1))


def rician(image: torch.Tensor, sigma: float, generator: torch.Generator) -> torch.Tensor:
    """Return the magnitude of the image with Gaussian noise in both channels, as an MRI's is."""
    real, imaginary = torch.randn((2, *image.shape), generator=generator, device=image.device) * sigma
    return torch.hypot(image + real, imaginary)


def smooth_gain(points_mm: torch.Tensor, bias: float, seed: int) -> torch.Tensor:
    """Return a gain between 1 - bias and 1 + bias that changes over about a head; points are (..., 3)."""
    draw = torch.Generator().manual_seed(seed % 2**31)
    wave = torch.randn(3, generator=draw)
    phase = float(torch.rand(1, generator=draw)) * 2 * math.pi
    wave = (wave * (2 * math.pi / 260) / wave.norm()).to(points_mm.device)
    return 1 + bias * torch.sin(points_mm @ wave + phase)


def ghosted(image: torch.Tensor, strength: float, generator: torch.Generator) -> torch.Tensor:
    """Add faint copies of the image, shifted along the rows, as a head that moves or a pulsing vessel gives."""
    parts = _between(2.0, 5.0, generator, image.device)
    shift = round(image.shape[2] / float(parts))
    copies = torch.roll(image, shift, dims=2) + torch.roll(image, -shift, dims=2)
    return (image + strength * copies) / (1 + strength)


def streaks(metal: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    """Return bright and dark rays around the metal of each slice, HU; nothing where a slice has none."""
    rows = torch.arange(metal.shape[2], device=metal.device, dtype=torch.float32).view(1, 1, -1, 1)
    columns = torch.arange(metal.shape[3], device=metal.device, dtype=torch.float32).view(1, 1, 1, -1)
    amount = metal.float().sum(dim=(2, 3), keepdim=True)
    dy = rows - (metal * rows).sum(dim=(2, 3), keepdim=True) / amount.clamp_min(1)
    dx = columns - (metal * columns).sum(dim=(2, 3), keepdim=True) / amount.clamp_min(1)
    distance, angle = torch.hypot(dy, dx), torch.atan2(dy, dx)
    rays = torch.zeros_like(distance)
    for waves in (3, 5, 8, 13):
        phase = _between(0, 2 * math.pi, generator, metal.device)
        rays = rays + torch.cos(waves * angle + phase)
    # More metal, longer rays: 60 HU at 20 pixels from a piece of 10.
    return 300 * rays * amount.sqrt() / (amount.sqrt() + 3) * torch.exp(-distance / 60) / (1 + distance / 6)


def holder(plane_mm: torch.Tensor, generator: torch.Generator) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the density (HU) and the place of a bowl under the head, for points (N, rows, columns, 3), mm."""
    device = plane_mm.device
    y, x = plane_mm[..., 1], plane_mm[..., 2]
    radius, down = _between(105, 130, generator, device), _between(0, 20, generator, device)
    thickness = _between(4, 10, generator, device)
    distance = torch.hypot(y - down, x)
    shell = ((distance - radius).abs() < thickness / 2) & (y > down + 0.3 * radius)
    # Carbon shells hold foam, plastic ones are dense.
    density = _between(-300, 250, generator, device)
    return density.expand(shell.shape)[:, None], shell[:, None]


def _between(low: float, high: float, generator: torch.Generator, device: torch.device) -> torch.Tensor:
    return low + (high - low) * torch.rand((), generator=generator, device=device)
