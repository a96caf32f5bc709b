"""Where an MRI scanner draws a point of the head: gradients, field, fat, voxel size. World LPS mm throughout."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from BrainFusionLib.acquisition import FAT_PPM, MHZ_PER_TESLA
from BrainFusionLib.geometry import FloatArray, Grid
from BrainFusionLib.volume import VoxelArray
from simulation.physics.anatomy import STEP, Anatomy, every
from simulation.physics.sampling_torch import points_of, values_at
from simulation.physics.strengths import MriProtocol, MriScanner
from simulation.tissues import BONE, BRAIN, Coarse

# Radius to which the coefficients of the gradients refer.
RADIUS_MM = 100.0
# Susceptibility against tissue, ppm.
AIR_PPM, BONE_PPM = 9.4, -2.0
# Air and tissue around what is drawn, voxels of the coarse grid: the field must not meet its own copy.
MARGIN = 16
# Bandwidth of the pulse that selects a 2D slice, hertz over its thickness.
SLICE_PULSE_HZ = 1300.0


def gradient_shift_mm(scanner: MriScanner, from_isocentre_mm: FloatArray) -> FloatArray:
    """Return how far the gradients' non-linearity moves points, shape (..., 3); z is along the bore.

    Order three: d_x = k x (4z² - x² - y²) / R², d_y alike, d_z = k' z (2z² - 3x² - 3y²) / R². Order five from the
    solid harmonics r⁵ P₅ and r⁵ P₅₁.
    """
    x, y, z = np.moveaxis(np.asarray(from_isocentre_mm, dtype=np.float64), -1, 0) / RADIUS_MM
    s = x * x + y * y
    across, along = 4 * z * z - s, z * (2 * z * z - 3 * s)
    across5 = s * s - 12 * s * z * z + 8 * z**4
    along5 = z * (8 * z**4 - 40 * z * z * s + 15 * s * s)
    k, kz, five = scanner.gradient_xy, scanner.gradient_z, scanner.gradient_5
    factor = k * (across + five * across5 / 8)
    moved: FloatArray = RADIUS_MM * np.stack([x * factor, y * factor, kz * (along + five * along5 / 8)], axis=-1)
    return moved


@lru_cache(maxsize=64)
def head_field(anatomy: Anatomy, dental_mm: float = 0.0, dental_ppm: float = 0.0) -> tuple[VoxelArray, Grid]:
    """Return the field that a head makes in the bore, ppm, after a shim of second order over the brain.

    ΔB/B0 = FT⁻¹[(1/3 - k_z²/k²) FT χ]. The neck goes on below the map's lowest slice.
    """
    grid = every(anatomy.grid, STEP)
    tissue = anatomy.head.tissue_kji[::STEP, ::STEP, ::STEP]
    chi = np.where(tissue == Coarse.AIR, 0.0, -AIR_PPM).astype(np.float32)
    chi[np.isin(tissue, BONE)] += BONE_PPM
    if dental_mm > 0:
        points = points_of(grid)
        distance = np.linalg.norm(points - teeth(anatomy), axis=-1)
        volume = 4 / 3 * np.pi * dental_mm**3 / float(np.prod(grid.spacing_ijk_mm))
        near = np.exp(-((distance / 4.0) ** 2))
        chi += (dental_ppm * volume * near / near.sum()).astype(np.float32)
    padded = np.pad(np.pad(chi, ((2 * MARGIN, 0), (0, 0), (0, 0)), mode="edge"), MARGIN)
    kz, ky, kx = np.meshgrid(
        *(np.fft.fftfreq(n) for n in padded.shape[:2]), np.fft.rfftfreq(padded.shape[2]), indexing="ij"
    )
    square = kx * kx + ky * ky + kz * kz
    square[0, 0, 0] = 1
    kernel = 1 / 3 - kz * kz / square
    kernel[0, 0, 0] = 0
    field = np.fft.irfftn(kernel * np.fft.rfftn(padded), padded.shape, axes=(0, 1, 2))
    k, j, i = tissue.shape
    field = field[3 * MARGIN : 3 * MARGIN + k, MARGIN : MARGIN + j, MARGIN : MARGIN + i]
    brain = np.isin(tissue, (*BRAIN, Coarse.FLUID))
    places = points_of(grid) - anatomy.head.centre_lps_mm
    terms = np.stack([np.ones(field.shape), *np.moveaxis(places, -1, 0) / 100], axis=-1)
    terms = np.concatenate([terms, terms[..., [1, 1, 1, 2, 2, 3]] * terms[..., [1, 2, 3, 2, 3, 3]]], axis=-1)
    fitted, *_ = np.linalg.lstsq(terms[brain], field[brain], rcond=None)
    return (field - terms @ fitted).astype(np.float32), grid


def teeth(anatomy: Anatomy) -> FloatArray:
    """Return where a molar of the upper jaw is, about, LPS mm."""
    middle = anatomy.eyes_lps_mm.mean(axis=0)
    return np.asarray(middle + np.array([22.0, 18.0, -62.0]))


@dataclass(frozen=True, eq=False)
class Magnet:
    """Where one MRI draws the points of one head.

    Attributes
    ----------
    scanner, protocol
        How it scans.
    isocentre_lps_mm
        Point of the head at the isocentre.
    readout, normal
        Unit vectors along readout (with its polarity) and across the slices, LPS.
    field_ppm, field_grid
        Field of the head; ``None`` where it is even.
    """

    scanner: MriScanner
    protocol: MriProtocol
    isocentre_lps_mm: FloatArray
    readout: FloatArray
    normal: FloatArray
    field_ppm: VoxelArray | None
    field_grid: Grid

    def ppm(self, points_lps_mm: FloatArray) -> FloatArray:
        """Return the field at points of the head, shape (..., 3) to (...)."""
        if self.field_ppm is None:
            return np.zeros(np.shape(points_lps_mm)[:-1])
        return values_at(self.field_ppm, self.field_grid, points_lps_mm)

    def smooth_shift_mm(self, points_lps_mm: FloatArray) -> FloatArray:
        """Return what moves everything, without the readout: gradients, voxel size, slices bent by the field."""
        at = points_lps_mm - self.isocentre_lps_mm
        moved = gradient_shift_mm(self.scanner, at)
        if self.scanner.correction == "3D":
            moved = self.scanner.residual * moved
        elif self.scanner.correction == "2D":
            across = (moved @ self.normal)[..., None] * self.normal
            moved = self.scanner.residual * (moved - across) + across
        shift: FloatArray = moved + (at + moved) * np.asarray(self.scanner.scale)
        if self.field_ppm is not None and not self.protocol.volumetric:
            shift = shift + (self.bend_mm_per_ppm * self.ppm(points_lps_mm))[..., None] * self.normal
        return shift

    @property
    def bend_mm_per_ppm(self) -> float:
        """How far one ppm moves a 2D slice."""
        return MHZ_PER_TESLA * self.scanner.field_t / SLICE_PULSE_HZ * self.protocol.thickness_mm

    @property
    def fat_offset_mm(self) -> FloatArray:
        """How far fat is drawn from water, LPS mm, shape (3,): along the readout, and across 2D slices."""
        offset: FloatArray = self.protocol.fat_mm(self.scanner.field_t) * self.readout
        if not self.protocol.volumetric and self.protocol.fat_shift_mm is None:
            offset = offset + FAT_PPM * self.bend_mm_per_ppm * self.normal
        return offset

    def before_readout(self, points_lps_mm: FloatArray) -> FloatArray:
        """Return the points of the head that lie, but for the readout, at points of the image: the way back."""
        found = points_lps_mm
        for _ in range(4):
            found = points_lps_mm - self.smooth_shift_mm(found)
        return found

    def drawn(self, points_lps_mm: FloatArray) -> FloatArray:
        """Return where points of the head (water) lie in the image, LPS mm, shape (..., 3)."""
        along = self.ppm(points_lps_mm) * self.protocol.mm_per_ppm(self.scanner.field_t)
        placed: FloatArray = points_lps_mm + self.smooth_shift_mm(points_lps_mm) + along[..., None] * self.readout
        return placed
