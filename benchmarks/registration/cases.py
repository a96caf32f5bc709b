"""CT-MRI cases with exact truth, simulated from label maps of heads or from the project's phantom.

Both images of a case share the edges of one label map, so errors below about 0.3 mm rank methods and are no clinical
accuracy.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from BrainFusionLib.geometry import FloatArray, Grid, apply_affine, rotation_matrix
from BrainFusionLib.io import read_volume
from BrainFusionLib.phantom import make_phantom
from BrainFusionLib.resample import resample_onto
from BrainFusionLib.transform import RigidTransform
from BrainFusionLib.volume import Volume, VoxelArray

# Classes of cases: easy; moderate (3 mm slices, table); part of the head; degraded (5 mm slices, streaks, strong bias);
# re-oriented by quarter turns; extreme (any rotation); slabs of 20 to 45 mm.
KINDS = "EMFDRXS"

GREY = (3, 42, 8, 47, 10, 11, 12, 13, 17, 18, 26, 49, 50, 51, 52, 53, 54, 58, 136, 137, 163, 164)
WHITE = (2, 41, 7, 46, 16, 28, 60, 85)
FLUID = (4, 5, 14, 15, 24, 43, 44, 72)
SKIN, FAT, CORTICAL, CANCELLOUS, EYE, MUCOSA, VESSELS = 511, 507, 515, 516, 506, 509, (502, 514)
HU: dict[int, float] = {
      **dict.fromkeys(GREY, 38), **dict.fromkeys(WHITE, 29), **dict.fromkeys(FLUID, 9), SKIN: 10, FAT: -50,
      CORTICAL: 1300, CANCELLOUS: 600, EYE: 12, MUCOSA: 30, **dict.fromkeys(VESSELS, 55)}  # fmt: skip
# Relative signal of grey, white, fluid, skin, fat, cortical and cancellous bone, eye, mucosa, vessels.
SIGNALS = {
    "T1": (0.55, 0.8, 0.2, 0.6, 0.75, 0.05, 0.35, 0.2, 0.5, 0.3),
    "T2": (0.55, 0.4, 1.0, 0.4, 0.6, 0.04, 0.25, 1.0, 0.8, 0.05),
    "PD": (0.8, 0.65, 0.7, 0.6, 0.7, 0.05, 0.3, 0.7, 0.7, 0.2),
}


@dataclass(frozen=True)
class Case:
    """A CT and an MRI of one head, the transform from MRI to CT points, and points of the brain in MRI space."""

    name: str
    ct: Volume
    mri: Volume
    transform: RigidTransform
    points_lps_mm: FloatArray


def make_case(kind: str, seed: int, labels_file: Path | None, *, ct_spacing_mm: float = 1.0) -> Case:
    """Make a case of one of `KINDS`; the head is that of a label map, or a phantom where there is none.

    Everything random comes from `seed`.
    """
    random = np.random.default_rng((seed, KINDS.index(kind)))
    hu, signal, points = _head_from_labels(labels_file, random) if labels_file else _phantom_head(seed, random)
    transform, ct_grid = _pose(kind, random, hu.grid, ct_spacing_mm)
    ct: FloatArray = _pull(hu, ct_grid, transform.inverse(), -1000.0).array_kji.astype(np.float64)
    if kind == "D":  # streaks of metal run along the rows of a slice
        ct = ct + 60 * random.standard_normal((ct.shape[0], 1, ct.shape[2])) * (ct > -500)
    if kind == "M":
        ct[:, -8:-4] = 150.0  # a table behind the head
    ct = np.clip(np.rint(ct + random.normal(0, 15, ct.shape)), -1024, 3071)
    mri_grid = Grid((220, 240, 200))
    mri_grid = Grid((220, 240, 200), (1.0, 1.0, 1.0), tuple(hu.grid.centre_lps_mm - mri_grid.centre_lps_mm))
    mri: FloatArray = _pull(signal, mri_grid, RigidTransform.identity(), 0.0).array_kji.astype(np.float64)
    mri = mri * np.exp((0.3 if kind == "D" else 0.12) * _smooth_noise(mri.shape, 70, random))
    noise = random.normal(0, 0.025, (2, *mri.shape))
    mri = np.hypot(mri + noise[0], noise[1]) * random.uniform(200, 1500)
    name = f"{kind}{seed:03d}-{labels_file.name.split('.')[0] if labels_file else 'phantom'}"
    return Case(
        name,
        Volume(ct.astype(np.float32), ct_grid, "CT", "CT"),
        Volume(mri.astype(np.float32), mri_grid, "MR", "MRI"),
        transform,
        points,
    )


def _pose(kind: str, random: np.random.Generator, head: Grid, spacing: float) -> tuple[RigidTransform, Grid]:
    """Draw the transform from MRI (head) to CT points, and the CT's grid around the head's new place."""
    low, high, shift = {"E": (0, 10, 10), "M": (15, 30, 30), "F": (5, 20, 15), "D": (25, 45, 40), "R": (3, 15, 15),
                        "X": (0, 180, 85), "S": (0, 20, 15)}[kind]  # fmt: skip
    rotation = rotation_matrix(random.standard_normal(3), random.uniform(low, high))
    if kind == "R":
        rotation = rotation_matrix(np.eye(3)[random.integers(3)], 90.0 * float(random.integers(1, 4))) @ rotation
    centre = head.centre_lps_mm
    transform = RigidTransform.about_centre(rotation, random.uniform(-shift, shift, 3), centre)
    slices = {"M": 3.0, "D": 5.0}.get(kind, 1.25 * spacing)
    extent = [210.0, 220.0, 200.0] if kind not in "RX" else [230.0] * 3
    up = 10.0
    if kind == "F":
        extent[2], up = (60.0 if random.random() < 0.5 else 100.0), random.uniform(0, 40)
    if kind == "S":
        extent[2], up = random.uniform(20, 45), random.uniform(0, 40)
    size = (round(extent[0] / spacing), round(extent[1] / spacing), round(extent[2] / slices))
    grid = Grid(size, (spacing, spacing, slices))
    place = transform.apply(centre + np.array([0, 0, up])) - grid.centre_lps_mm
    return transform, Grid(size, grid.spacing_ijk_mm, tuple(place))


def _head_from_labels(file: Path, random: np.random.Generator) -> tuple[Volume, Volume, FloatArray]:
    """Return a head's Hounsfield units and MRI signal on the label map's grid, and brain points, (n, 3) LPS mm."""
    volume = read_volume(file)
    labels = volume.array_kji.astype(np.int64)
    contrast = list(SIGNALS)[random.integers(len(SIGNALS))]
    grey, white, fluid, skin, fat, cortical, cancellous, eye, mucosa, vessels = (
        value * (1 + random.normal(0, 0.08)) for value in SIGNALS[contrast]
    )
    hu_of = np.full(1024, 35.0, np.float32)
    signal_of = np.full(1024, grey, np.float32)
    hu_of[0], signal_of[0] = -1000, 0
    for label, value in HU.items():
        hu_of[label] = value
    for group, value in (
        (WHITE, white), (FLUID, fluid), ((SKIN,), skin), ((FAT,), fat), ((CORTICAL,), cortical),
        ((CANCELLOUS,), cancellous), ((EYE,), eye), ((MUCOSA,), mucosa), (VESSELS, vessels),
    ):  # fmt: skip
        signal_of[list(group)] = value
    hu, signal = hu_of[labels], signal_of[labels]
    texture = _smooth_noise(labels.shape, 10, random)
    soft, bone = labels == FAT, labels == CORTICAL
    hu[soft] += 45 * texture[soft]
    signal[soft] *= np.clip(0.8 + 0.3 * texture[soft], 0.2, 1.5)
    hu[bone] += 200 * texture[bone]
    brain = np.argwhere(np.isin(labels, GREY + WHITE))[::997, ::-1]
    points = apply_affine(volume.grid.lps_from_ijk, brain)
    return Volume(hu, volume.grid, "CT"), Volume(signal, volume.grid, "MR"), points


def _phantom_head(seed: int, random: np.random.Generator) -> tuple[Volume, Volume, FloatArray]:
    phantom = make_phantom(seed)
    contrast = ("T1", "T2", "PD", "FLAIR")[random.integers(4)]
    mri = phantom.mri(contrast, noise=0, bias=0)
    return phantom.ct(noise_hu=0), mri.with_array(mri.array_kji / mri.array_kji.max()), phantom.target_points(1500)


def _pull(volume: Volume, grid: Grid, transform: RigidTransform, fill: float) -> Volume:
    """Resample with the average over thick voxels: `transform` takes points of `grid` to points of `volume`."""
    parts = [max(1, round(s)) for s in grid.spacing_ijk_mm]
    fine_spacing = [s / n for s, n in zip(grid.spacing_ijk_mm, parts, strict=True)]
    first = apply_affine(grid.lps_from_ijk, -0.5 + 0.5 / np.asarray(parts))
    size = [n * m for n, m in zip(grid.size_ijk, parts, strict=True)]
    fine = Grid((size[0], size[1], size[2]), (fine_spacing[0], fine_spacing[1], fine_spacing[2]), tuple(first))
    pulled = resample_onto(volume, fine, transform, fill=fill).array_kji
    k, j, i = grid.shape_kji
    return Volume(pulled.reshape(k, parts[2], j, parts[1], i, parts[0]).mean(axis=(1, 3, 5)), grid)


def _smooth_noise(shape: tuple[int, ...], scale_mm: int, random: np.random.Generator) -> VoxelArray:
    """Return noise of unit variance at its knots, smooth over about `scale_mm` voxels."""
    knots = tuple(max(3, n // scale_mm + 2) for n in shape)
    coarse: npt.NDArray[np.float32] = random.standard_normal(knots).astype(np.float32)
    spacing = tuple((n - 1) / (m - 1) for n, m in zip(shape[::-1], knots[::-1], strict=True))
    source = Volume(coarse, Grid(knots[::-1], (spacing[0], spacing[1], spacing[2])), "MR")  # type: ignore[arg-type]
    return resample_onto(source, Grid((shape[2], shape[1], shape[0]))).array_kji
