"""An MRI made out of a real CT, in a pose that is known exactly, to measure the true error of a registration with.

It is no more than a stand-in for a T1: real anatomy, noise and field of view, but contrasts worked out from Hounsfield
units. What it can show is where a registration ends, to a fraction of a millimetre; the CT–MRI pair of one patient
cannot, because nobody knows the right answer there.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import SimpleITK as sitk

from BrainFusionLib.geometry import Grid, apply_affine
from BrainFusionLib.intensity import HEAD_THRESHOLD_HU
from BrainFusionLib.resample import resample_onto
from BrainFusionLib.transform import RigidTransform
from BrainFusionLib.volume import Volume
from simulation.itk import itk_image

# Hounsfield units -> T1-like signal. Not monotone, so that no rescaling of the CT equals it: air dark, fat bright,
# water and CSF dark, white matter brighter than grey, blood and muscle darker, marrow faint, cortical bone black.
SIGNAL_HU = (-1000, -400, -120, -60, -20, 5, 15, 27, 36, 50, 80, 200, 400, 900)
SIGNAL = (0, 0, 950, 900, 350, 140, 260, 640, 500, 380, 330, 120, 160, 20)

# Brain tissues differ by 10 HU and a voxel's noise is as large: they can be told apart only after smoothing.
TISSUE_HU = (-45, 80)
TISSUE_SMOOTHING_MM = 1.8

# A T1 is often stored in sagittal slices: the columns here are posterior, inferior, left.
SAGITTAL = np.array([[0.0, 0.0, 1.0], [1.0, 0.0, 0.0], [0.0, -1.0, 0.0]])
SPACING_MM = (1.2, 1.2, 1.2)
MARGIN_MM = 12.0


@dataclass(frozen=True, eq=False)
class SimulatedPair:
    """A simulated MRI, and the truth.

    Parameters
    ----------
    mri
        On a sagittal grid of its own, 1.2 mm.
    transform
        Takes points of the MRI to points of the CT, LPS mm: exact.
    head_points_lps_mm
        Points spread over the head, in MRI space, shape (n, 3), LPS mm, to measure an error at.
    """

    mri: Volume
    transform: RigidTransform
    head_points_lps_mm: npt.NDArray[np.float64]


def simulate_mri(
    ct: Volume,
    seed: int = 0,
    *,
    rotation_deg: float = 25.0,
    shift_mm: float = 35.0,
    noise: float = 12.0,
    bias: float = 0.15,
) -> SimulatedPair:
    """Make a T1-like MRI of the head in a CT, turned and shifted about a seeded random axis and direction.

    Parameters
    ----------
    ct
        Hounsfield units.
    seed
        Of the pose and of the noise.
    rotation_deg, shift_mm
        How far the head is turned about its centre, and shifted.
    noise
        Standard deviation of the noise in each of the two channels of the signal (Rician: their magnitude is kept).
        White matter has about 640.
    bias
        Largest relative deviation of the smooth gain over the head.

    Raises
    ------
    ValueError
        There is nothing denser than air in the CT.
    """
    rng = np.random.default_rng(seed)
    head = head_tissue(ct)
    if not head.any():
        raise ValueError(f"{ct.name} is not a CT of a head: nothing in it is above {HEAD_THRESHOLD_HU} HU")
    signal = Volume(t1_signal(ct, head), ct.grid, "MR", f"T1 simulated from {ct.name}")
    points = _points_in(head, ct.grid, rng)

    axis, direction = rng.standard_normal((2, 3))
    shift = shift_mm * direction / np.linalg.norm(direction)
    # Head points go from CT to MRI space by this; the registration's transform goes the other way.
    mri_from_ct = RigidTransform.from_axis_angle(axis, rotation_deg, shift, centre_lps_mm=points.mean(axis=0))
    transform = mri_from_ct.inverse()
    points = mri_from_ct.apply(points)

    grid = _grid_around(points)
    array = resample_onto(signal, grid, transform, fill=0.0).array_kji
    array = array * _gain(grid, points.mean(axis=0), bias, rng)
    real, imaginary = noise * rng.standard_normal((2, *array.shape), dtype=np.float32)
    # Whole numbers, as scanners store them.
    magnitude = np.rint(np.hypot(array + real, imaginary))
    return SimulatedPair(signal.with_array(magnitude, grid=grid), transform, points)


def head_tissue(ct: Volume) -> npt.NDArray[np.bool_]:
    """Return the voxels of the head that are not air, shape kji: the largest piece above -300 HU, so no head holder."""
    dense = itk_image(ct.array_kji > HEAD_THRESHOLD_HU, ct.grid)
    pieces = sitk.RelabelComponent(sitk.ConnectedComponent(dense), sortByObjectSize=True)
    head: npt.NDArray[np.bool_] = sitk.GetArrayFromImage(pieces) == 1
    return head


def t1_signal(ct: Volume, head: npt.NDArray[np.bool_]) -> npt.NDArray[np.float32]:
    """Return a T1-like signal for every voxel of a CT, shape kji, float32, zero outside `head`."""
    low, high = TISSUE_HU
    hu = ct.array_kji
    tissue = (hu > low) & (hu < high) & head
    # Averaged among soft tissue only: bone and air beside it would shift the mean by hundreds.
    weight = _smoothed(tissue.astype(np.float32), ct.grid)
    total = _smoothed(np.where(tissue, hu, np.float32(0)), ct.grid)
    quiet = np.where(tissue, total / np.maximum(weight, np.float32(1e-3)), hu)
    signal = np.interp(quiet, SIGNAL_HU, SIGNAL).astype(np.float32)
    signal[~head] = 0
    return signal


def _smoothed(array_kji: npt.NDArray[np.float32], grid: Grid) -> npt.NDArray[np.float32]:
    blurred = sitk.SmoothingRecursiveGaussian(itk_image(array_kji, grid), TISSUE_SMOOTHING_MM)
    smooth: npt.NDArray[np.float32] = sitk.GetArrayFromImage(blurred)
    return smooth


def _points_in(
    mask: npt.NDArray[np.bool_], grid: Grid, rng: np.random.Generator, count: int = 4000
) -> npt.NDArray[np.float64]:
    """Draw voxel centres of a mask, LPS mm, shape (count, 3)."""
    chosen = rng.choice(np.flatnonzero(mask), size=count)
    k, j, i = np.unravel_index(chosen, mask.shape)
    return apply_affine(grid.lps_from_ijk, np.column_stack([i, j, k]))


def _grid_around(points: npt.NDArray[np.float64]) -> Grid:
    """Return a sagittal grid that covers all points and a margin."""
    along = points @ SAGITTAL
    low, high = along.min(axis=0) - MARGIN_MM, along.max(axis=0) + MARGIN_MM
    i, j, k = np.ceil((high - low) / SPACING_MM).astype(int)
    return Grid((int(i), int(j), int(k)), SPACING_MM, tuple(SAGITTAL @ low), SAGITTAL)


def _gain(
    grid: Grid, centre: npt.NDArray[np.float64], bias: float, rng: np.random.Generator
) -> npt.NDArray[np.float32]:
    """Return a gain that changes smoothly over the head as under a surface coil: a wave of 30 cm, shape kji."""
    wave = rng.standard_normal(3)
    wave *= 2 * np.pi / 300 / np.linalg.norm(wave)
    phase = rng.uniform(0, 2 * np.pi)
    matrix = grid.lps_from_ijk
    i, j, k = (np.arange(n) * (wave @ matrix[:3, axis]) for axis, n in enumerate(grid.size_ijk))
    start = phase + wave @ (matrix[:3, 3] - centre)
    return (1 + bias * np.sin(start + k[:, None, None] + j[None, :, None] + i)).astype(np.float32)
