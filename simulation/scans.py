"""What simulated slices show, drawn as plain numbers: contrast, pose, lesions, artefacts. `slices_torch` renders it.

The same seed gives the same scan. How far it goes is in `SimulationConfig`; where the tissues' values come from is in
`BrainFusionLib.phantom.tissues`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields

import numpy as np
import numpy.typing as npt

from BrainFusionLib.errors import SettingsError
from BrainFusionLib.geometry import rotation_matrix
from BrainFusionLib.intensity.pictures import BONE_RAMP_LEVELS
from BrainFusionLib.phantom.tissues import BRAIN_TISSUES, CONTRASTS, Tissue
from BrainFusionLib.volume import AIR_HU
from simulation.heads import Head
from simulation.tissues import APPEARANCE

# Dark in every MRI, whatever its contrast.
MRI_DARK = (Tissue.BACKGROUND, Tissue.AIR, Tissue.METAL, Tissue.BONE, Tissue.OUTER_TABLE, Tissue.INNER_TABLE)


@dataclass(frozen=True)
class SimulationConfig:
    """How far simulated scans go; each scan draws from these ranges. See `draw_scan`.

    Parameters
    ----------
    misregistration_mm
        The largest residual shift between CT and MRI; turned by up to as many degrees, too.
    rotation_deg
        The largest turn of the head about each axis.
    scale
        How much larger or smaller a head may be drawn, as pixels of another size show it.
    slice_mm
        The thickest MRI slice.
    noise
        The largest noise of the MRI, as a share of its brightest tissue; the CT's goes up to a thousand times this, HU.
    bias
        The largest relative deviation of the MRI's smooth gain.
    windowed
        Share of scans that are shown as 8-bit pictures: the CT through a brain window, its bone saturated.
    metal, lesion, calcification, haemorrhage, holder, ghosting
        Share of scans that have one.
    """

    misregistration_mm: float = 2.0
    rotation_deg: float = 12.0
    scale: float = 0.2
    slice_mm: float = 5.0
    noise: float = 0.03
    bias: float = 0.3
    windowed: float = 0.35
    metal: float = 0.25
    lesion: float = 0.5
    calcification: float = 0.5
    haemorrhage: float = 0.3
    holder: float = 0.5
    ghosting: float = 0.15

    def __post_init__(self) -> None:
        for entry in fields(self):
            value = getattr(self, entry.name)
            if not value >= 0:
                raise SettingsError(f"simulation.{entry.name}: must be 0 or more; got {value}")


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
    are in the head; `ct_hu` and `mri_values` are one value for each tissue.
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


def draw_scan(head: Head, config: SimulationConfig, seed: Sequence[int]) -> Scan:
    """Draw a scan of a head; the same head, configuration and seed (whole numbers) give the same one."""
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
    counts = np.bincount(head.tissue_kji[::2, ::2, ::2].ravel(), minlength=len(Tissue)).astype(np.float64)
    return Scan(
        seed=int(rng.integers(2**62)),
        contrast=contrast,
        head_from_mri=head_from_mri,
        head_from_ct=head_from_ct,
        blobs=_blobs(head, config, rng),
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


def _blobs(head: Head, config: SimulationConfig, rng: np.random.Generator) -> tuple[Blob, ...]:
    """Draw what is in the head besides its tissues; later ones lie over earlier ones."""
    brain = np.argwhere(np.isin(head.tissue_kji[::3, ::3, ::3], BRAIN_TISSUES)) * 3
    middle = (np.asarray(head.tissue_kji.shape) - 1) / 2

    def place() -> npt.NDArray[np.float64]:
        chosen: npt.NDArray[np.float64] = (brain[rng.integers(len(brain))] - middle) * head.spacing_kji_mm
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
        hu = APPEARANCE[tissue].hu
        # Bone and metal differ between people, soft tissue by a few HU.
        values.append(hu * rng.uniform(0.75, 1.25) if hu > 300 else hu + rng.uniform(-4, 4))
    values[Tissue.BLOOD] += rng.uniform(-15, 15)
    values[Tissue.BACKGROUND] = values[Tissue.AIR] = AIR_HU
    return tuple(float(value) for value in values)


def _mri_values(contrast: str, rng: np.random.Generator) -> npt.NDArray[np.float64]:
    """Return one value for each tissue: that of the contrast, varied; in every fifth scan soft tissue has any value."""
    values = np.array([APPEARANCE[tissue].signal[contrast] for tissue in Tissue], dtype=np.float64)
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
