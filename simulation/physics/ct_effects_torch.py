"""What a CT scanner adds: noise with the kernel's spectrum, beam hardening, streaks of bone and of metal."""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F

from BrainFusionLib.volume import VoxelArray

# Bone is looked at in blocks of so many pixels: what it does to the brain is smooth.
BLOCK = 4
# Between thick bones the brain is this much darker, under the vault this much brighter, and streaks are this strong.
DARK_HU, BRIGHT_HU, STREAK_HU = 18.0, 12.0, 9.0
# Bone on both sides of a row that counts as the vault alone, and the path over which darkening saturates, mm.
VAULT_MM, PATH_MM = 12.0, 25.0
METAL_HU = 2200.0


def kernel_noise(
    shape_kji: tuple[int, ...], pixel_mm: float, kernel_mm: float, random: np.random.Generator
) -> VoxelArray:
    """Return noise of standard deviation 1 with a kernel's spectrum in the plane: few low frequencies."""
    torch.set_num_threads(1)
    white = torch.from_numpy(random.standard_normal(shape_kji, dtype=np.float32))
    v = torch.fft.fftfreq(shape_kji[1], pixel_mm)[:, None]
    u = torch.fft.rfftfreq(shape_kji[2], pixel_mm)
    f = torch.hypot(v, u)
    # Filtered back-projection: the square root of its power is √f times the transfer function.
    response = torch.sqrt(f + 0.01) * torch.exp(-((f * kernel_mm) ** 2) * 1.8)
    made = torch.fft.irfft2(torch.fft.rfft2(white) * response, s=shape_kji[1:])
    found: VoxelArray = (made / made.std()).numpy()
    return found


def hardened(
    ct_kji: VoxelArray, noise_kji: VoxelArray, pixel_mm: float, strength: float, random: np.random.Generator
) -> VoxelArray:
    """Return the CT with noise, which grows behind bone, and with beam hardening between and beside bone."""
    rows, columns = (n // BLOCK * BLOCK for n in ct_kji.shape[1:])
    image = torch.from_numpy(np.ascontiguousarray(ct_kji[:, :rows, :columns]))[:, None]
    bone = F.avg_pool2d((image - 300).clamp(0, 1500) / 1000, BLOCK)
    head = F.avg_pool2d((image > -300).float(), BLOCK)
    step = BLOCK * pixel_mm
    left = torch.cumsum(bone, dim=3) * step
    both = torch.minimum(left, left[..., -1:] - left)
    behind = 1 - torch.exp(-(both - VAULT_MM).clamp_min(0) / PATH_MM)
    rim = F.avg_pool2d(F.pad(bone, (2, 2, 2, 2)), 5, stride=1)
    streak = torch.from_numpy(random.standard_normal((*bone.shape[:3], 1), dtype=np.float32))
    added = strength * head * (BRIGHT_HU * rim - DARK_HU * behind) + STREAK_HU * strength * behind * streak * head
    louder = (0.35 * torch.clamp(head, 0.3, 1) + 0.65) * (1 + 1.2 * behind)
    fine = F.interpolate(torch.cat([added, louder], dim=1), size=ct_kji.shape[1:], mode="bilinear")
    found: VoxelArray = ct_kji + noise_kji * fine[:, 1].numpy() + fine[:, 0].numpy()
    return found


def metal_streaks(ct_kji: VoxelArray, pixel_mm: float, random: np.random.Generator) -> None:
    """Draw rays from the metal of every slice, in place: up to hundreds of HU near it, tens 30 mm away."""
    rows, columns = (np.arange(n, dtype=np.float32) for n in ct_kji.shape[1:])
    for plane in ct_kji:
        metal = np.argwhere(plane > METAL_HU)
        if len(metal) < 2:
            continue
        # Pieces that are apart have rays of their own.
        middle = np.median(metal[:, 1])
        for piece in (metal[metal[:, 1] < middle], metal[metal[:, 1] >= middle]):
            if not len(piece):
                continue
            y, x = rows[:, None] - piece[:, 0].mean(), columns - piece[:, 1].mean()
            distance = np.hypot(y, x) * np.float32(pixel_mm)
            turn = ((np.arctan2(y, x) / (2 * np.pi) + 0.5) * 160).astype(np.int32) % 160
            rays = random.standard_normal(160).astype(np.float32)
            amount = min(1.0, len(piece) * pixel_mm**2 / 40)
            plane += amount * 260 * rays[turn] / (1 + distance / 9) ** 1.2 * (plane > -500)
