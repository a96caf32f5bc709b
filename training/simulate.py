"""Simulated CT and MRI slices of a head, made on the device from its tissue map.

A **scan** is drawn first (contrast, pose, lesions, artefacts: plain numbers), then slices of it are rendered. The same
seed gives the same scan and, on one device, the same voxels. What is drawn and how far it goes is in
`training.config.SimulationConfig`; where the tissues' values come from is in `BrainFusionLib.phantom.tissues`.
"""

from __future__ import annotations

import math
import zlib
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F

from BrainFusionLib.geometry import rotation_matrix
from BrainFusionLib.intensity import BONE_RAMP_HU, CT_KNOTS_HU, CT_KNOTS_UNIT
from BrainFusionLib.intensity.pictures import BONE_RAMP_LEVELS
from BrainFusionLib.phantom.tissues import BRAIN_TISSUES, CONTRASTS, CT_HU, MRI_VALUES, Tissue
from BrainFusionLib.volume import AIR_HU
from training.artefacts import blurred, ghosted, holder, rician, smooth_gain, streaks
from training.config import SimulationConfig
from training.head_models import HeadModel

# Tissues that a lesion or a bleed may replace.
SOFT_BRAIN = torch.zeros(len(Tissue), dtype=torch.bool)
SOFT_BRAIN[[int(tissue) for tissue in BRAIN_TISSUES]] = True
# Dark in every MRI, whatever its contrast.
MRI_DARK = (Tissue.BACKGROUND, Tissue.AIR, Tissue.METAL, Tissue.BONE, Tissue.OUTER_TABLE, Tissue.INNER_TABLE)


@dataclass(frozen=True)
class Blob:
    """An ellipsoid or rod of one tissue: ends `a` and `b` and half thickness, mm, head frame (z, y, x)."""

    tissue: Tissue
    a: tuple[float, ...]
    b: tuple[float, ...]
    radius: float


@dataclass(frozen=True, eq=False)
class Scan:
    """All that was drawn for one CT and one MRI of a head.

    `head_from_mri` and `head_from_ct` (3x4, mm, z-y-x, zero in the middle of the head) say where the images' points
    are in the head; `ct_hu` and `mri_values` are a value a tissue.
    """

    seed: int
    contrast: str
    head_from_mri: npt.NDArray[np.float64]
    head_from_ct: npt.NDArray[np.float64]
    blobs: tuple[Blob, ...]
    ct_hu: tuple[float, ...]
    mri_values: tuple[float, ...]
    mri_high: float
    ct_noise_hu: float
    mri_noise: float
    ct_blur: float
    mri_blur: float
    slice_mm: float
    bias: float
    ghost: float
    holder: bool
    window_hu: tuple[float, float] | None


def draw_scan(model: HeadModel, config: SimulationConfig, seed: Sequence[int]) -> Scan:
    """Draw a scan of a head; the same model, configuration and seed (whole numbers) give the same one."""
    rng = np.random.default_rng(list(seed))
    contrast = str(rng.choice(CONTRASTS))
    angles, shift = rng.uniform(-1, 1, 3) * config.rotation_deg, rng.uniform(-10, 10, 3)
    size = 1 + rng.uniform(-1, 1) * config.scale
    pose = _rotation(angles) * rng.uniform(0.95, 1.05, 3) / size
    head_from_mri = np.column_stack([pose, shift])
    # The CT's points lie off by a small turn and shift: what a registration leaves.
    residual = rng.standard_normal(3)
    residual *= rng.uniform(0, config.misregistration_mm) / np.linalg.norm(residual)
    turn = _rotation(rng.uniform(-1, 1, 3) * min(config.misregistration_mm, 2.0) / 3)
    head_from_ct = np.column_stack([pose @ turn, shift + pose @ residual])

    values = _mri_values(contrast, rng)
    counts = np.bincount(model.tissue_kji[::2, ::2, ::2].ravel(), minlength=len(Tissue)).astype(np.float64)
    return Scan(
        seed=int(rng.integers(2**62)),
        contrast=contrast,
        head_from_mri=head_from_mri,
        head_from_ct=head_from_ct,
        blobs=_blobs(model, config, rng),
        ct_hu=_ct_values(rng),
        mri_values=tuple(values.tolist()),
        mri_high=_high(values, counts) * float(rng.uniform(0.9, 1.1)),
        ct_noise_hu=float(rng.uniform(0.1, 1)) * config.noise * 1000 / 2,
        mri_noise=float(rng.uniform(0.1, 1)) * config.noise,
        ct_blur=float(rng.uniform(0.4, 0.9)),
        mri_blur=float(rng.uniform(0.4, 1.0)),
        slice_mm=float(rng.uniform(1.0, max(config.slice_mm, 1.0))),
        bias=float(rng.uniform(0, config.bias)),
        ghost=float(rng.uniform(0.02, 0.10)) if rng.random() < config.ghosting else 0.0,
        holder=bool(rng.random() < config.holder),
        window_hu=_window(rng) if rng.random() < config.windowed else None,
    )


def render(
    model: HeadModel,
    tissue: torch.Tensor,
    scan: Scan,
    heights_mm: Sequence[float],
    size: tuple[int, int],
    spacing_mm: float,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Make slices of a scan.

    Parameters
    ----------
    model, tissue
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

    codes, texture, points = _look(model, tissue, scan, plane, scan.head_from_ct, (-0.4, 0.4))
    table = torch.tensor(scan.ct_hu, device=device)
    swing = torch.tensor([CT_HU[t][1] / (CT_HU[t][0] or 1.0) for t in Tissue], device=device)
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
    codes, texture, points = _look(model, tissue, scan, plane, scan.head_from_mri, offsets)
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


def _look(
    model: HeadModel,
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
    spacing = torch.tensor(model.spacing_kji_mm, device=device)
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


def _blobs(model: HeadModel, config: SimulationConfig, rng: np.random.Generator) -> tuple[Blob, ...]:
    """Draw what is in the head besides its tissues; later ones lie over earlier ones."""
    brain = np.argwhere(np.isin(model.tissue_kji[::3, ::3, ::3], BRAIN_TISSUES)) * 3
    middle = (np.asarray(model.tissue_kji.shape) - 1) / 2

    def place() -> npt.NDArray[np.float64]:
        chosen: npt.NDArray[np.float64] = (brain[rng.integers(len(brain))] - middle) * model.spacing_kji_mm
        return chosen

    def blob(tissue: Tissue, centre: npt.NDArray[np.float64], radius: float, length: float) -> Blob:
        half = rng.standard_normal(3) * length / 3
        return Blob(tissue, tuple((centre - half).tolist()), tuple((centre + half).tolist()), radius)

    blobs: list[Blob] = []
    if not len(brain):
        return ()
    if rng.random() < config.lesion:
        centre, radius = place(), float(rng.uniform(3, 14))
        state = rng.bit_generator.state
        for tissue, size in ((Tissue.OEDEMA, 1.5), (Tissue.TUMOUR_RIM, 1.0), (Tissue.TUMOUR, 0.75)):
            rng.bit_generator.state = state  # one shape, three sizes
            blobs.append(blob(tissue, centre, radius * size, radius))
    if rng.random() < config.haemorrhage:
        radius = float(rng.uniform(3, 12))
        blobs.append(blob(Tissue.BLOOD, place(), radius, radius))
    if rng.random() < config.calcification:
        for _ in range(int(rng.integers(1, 5))):
            blobs.append(blob(Tissue.CALCIFICATION, place(), float(rng.uniform(1, 4)), 3.0))
    if rng.random() < config.metal:
        # A clip, a shunt's valve, or an electrode on its way from the bone.
        length, radius = ((8.0, 1.5), (4.0, 4.0), (90.0, 0.9))[int(rng.integers(3))]
        blobs.append(blob(Tissue.METAL, place(), float(radius * rng.uniform(0.7, 1.3)), length))
    return tuple(blobs)


def _ct_values(rng: np.random.Generator) -> tuple[float, ...]:
    values = []
    for tissue in Tissue:
        hu = CT_HU[tissue][0]
        # Bone and metal differ between people, soft tissue by a few HU.
        values.append(hu * rng.uniform(0.75, 1.25) if hu > 300 else hu + rng.uniform(-4, 4))
    values[Tissue.BLOOD] += rng.uniform(-15, 15)
    values[Tissue.BACKGROUND] = values[Tissue.AIR] = AIR_HU
    return tuple(float(value) for value in values)


def _mri_values(contrast: str, rng: np.random.Generator) -> npt.NDArray[np.float64]:
    """Return a value a tissue: the contrast's own, shaken; in every fifth scan any value at all for soft tissue."""
    values = np.array([MRI_VALUES[contrast][tissue][0] for tissue in Tissue], dtype=np.float64)
    soft = np.array([tissue not in MRI_DARK for tissue in Tissue])
    if rng.random() < 0.2:
        values[soft] = rng.uniform(60, 1000, soft.sum())
    else:
        values[soft] *= rng.normal(1, 0.1, soft.sum()).clip(0.6, 1.4)
        values[~soft] *= rng.uniform(0.3, 1.5)
    return values


def _high(values: npt.NDArray[np.float64], counts: npt.NDArray[np.float64]) -> float:
    """Return the 99th percentile of the head's values, which `intensity.mri_scale` puts at 1."""
    head = values > 0.15 * values.max()
    order = np.argsort(values[head])
    share = np.cumsum(counts[head][order]) / max(float(counts[head].sum()), 1.0)
    return float(values[head][order][min(int(np.searchsorted(share, 0.99)), len(order) - 1)])


def _window(rng: np.random.Generator) -> tuple[float, float]:
    """Return a window, HU, in which bone begins near level 160 of 255."""
    low, bone = float(rng.uniform(-220, -20)), float(rng.uniform(120, 260))
    return low, low + (bone - low) * 255 / BONE_RAMP_LEVELS[0]


def _rotation(angles_deg: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    x, y, z = (rotation_matrix(axis, angle) for axis, angle in zip(np.eye(3), angles_deg, strict=True))
    return x @ y @ z


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
