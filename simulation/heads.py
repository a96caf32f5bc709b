"""Heads to make scans of: from the project's phantom, and parts of the body that are not a head."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property, lru_cache

import numpy as np
import numpy.typing as npt

from BrainFusionLib.errors import ImageContentError
from BrainFusionLib.geometry import FloatArray, Grid, apply_affine
from BrainFusionLib.phantom import head_grid, make_phantom
from simulation.tissues import BRAIN, COARSE_OF_TISSUE, Coarse, CodeArray, coarse_codes

TARGET_POINTS = 1500


@dataclass(frozen=True, eq=False)
class Head:
    """A head made of tissues; its space is the MRI's.

    Attributes
    ----------
    name
        What to call it in a table.
    tissue_kji
        Codes of `tissues.Coarse`, or of the phantom's `Tissue` for a head in detail; uint8.
    grid
        Where its voxels are; the axes are along left, posterior, superior.
    """

    name: str
    tissue_kji: CodeArray
    grid: Grid

    @property
    def spacing_kji_mm(self) -> tuple[float, float, float]:
        """Size of a voxel along slices, rows and columns."""
        i, j, k = self.grid.spacing_ijk_mm
        return k, j, i

    @cached_property
    def points_lps_mm(self) -> FloatArray:
        """Points all over the brain to measure errors at, shape (n, 3), LPS mm; none where there is no brain."""
        brain = np.flatnonzero(np.isin(self.tissue_kji, BRAIN))
        if not brain.size:
            return np.empty((0, 3))
        # Evenly spread over the voxels of the brain; the offset keeps them off a raster.
        chosen = brain[np.linspace(0, brain.size - 1, TARGET_POINTS).astype(np.int64)]
        ijk = np.stack(np.unravel_index(chosen, self.tissue_kji.shape)[::-1], axis=-1)
        return apply_affine(self.grid.lps_from_ijk, ijk)

    @cached_property
    def centre_lps_mm(self) -> FloatArray:
        """Middle of the brain, shape (3,), LPS mm; of the grid where there is no brain."""
        points = self.points_lps_mm
        centre: FloatArray = points.mean(axis=0) if len(points) else np.asarray(self.grid.centre_lps_mm)
        return centre

    def tissue_at(self, points_lps_mm: FloatArray) -> CodeArray:
        """Return the tissue of the voxels nearest to points, shape (n, 3) to (n,); air outside."""
        ijk = np.rint(apply_affine(self.grid.ijk_from_lps, points_lps_mm)).astype(int)
        inside = np.all((ijk >= 0) & (ijk < self.grid.size_ijk), axis=-1)
        found = np.full(len(ijk), Coarse.AIR, np.uint8)
        i, j, k = ijk[inside].T
        found[inside] = self.tissue_kji[k, j, i]
        return found

    def cropped(self) -> Head:
        """Return the same head on the least grid that holds it.

        Raises
        ------
        ImageContentError
            There is too little brain in it, or nothing at all.
        """
        low_high = []
        for axis in range(3):
            there = np.flatnonzero(self.tissue_kji.any(axis=tuple({0, 1, 2} - {axis})))
            if there.size == 0:
                raise ImageContentError(f"{self.name}: the label map is empty. Choose label maps of heads.")
            low_high.append((int(there[0]), int(there[-1]) + 1))
        tissue = np.ascontiguousarray(self.tissue_kji[tuple(slice(low, high) for low, high in low_high)])
        brain = np.count_nonzero(np.isin(tissue, BRAIN))
        if brain < TARGET_POINTS:
            raise ImageContentError(
                f"{self.name}: {brain} voxels of brain (minimum {TARGET_POINTS}). Choose label maps of whole heads "
                "with SynthSeg's (FreeSurfer's) numbers."
            )
        size = (tissue.shape[2], tissue.shape[1], tissue.shape[0])
        first = apply_affine(self.grid.lps_from_ijk, [low for low, _ in low_high[::-1]])
        return Head(self.name, tissue, Grid(size, self.grid.spacing_ijk_mm, tuple(first)))


@lru_cache(maxsize=32)
def phantom_head(seed: int, spacing_mm: float = 1.0) -> Head:
    """Return one of the phantom's heads in coarse tissues, on a grid of `spacing_mm` (coarser is faster to make)."""
    # Electrodes are the cases' own, and in the CT only.
    labels = make_phantom(seed, electrode=False).labels(head_grid(spacing_mm))
    return Head(f"phantom{seed}", coarse_codes(labels.array_kji, COARSE_OF_TISSUE), labels.grid).cropped()


def detailed_phantom(seed: int, spacing_mm: float = 1.0) -> Head:
    """Return one of the phantom's heads in its own tissues, without electrode and lesions: each scan draws its own."""
    labels = make_phantom(seed, lesions=False, electrode=False).labels(head_grid(spacing_mm))
    return Head(f"phantom-{seed}", labels.array_kji, labels.grid)


def body_part(seed: int, spacing_mm: float = 1.0) -> Head:
    """Return a part of the body that is not a head: a thigh where `seed` is even, a trunk where it is odd."""
    random = np.random.default_rng((seed, 3))
    shape = (round(200 / spacing_mm), round(200 / spacing_mm), round(240 / spacing_mm))
    grid = Grid(shape[::-1], (spacing_mm,) * 3)
    z, y, x = (spacing_mm * axis.astype(np.float32) for axis in np.ogrid[: shape[0], : shape[1], : shape[2]])
    # Everything tapers and leans a little from slice to slice.
    x = x - 120 - 8 * np.sin(z / np.float32(random.uniform(50, 90)))
    y = y - 100 - 6 * np.cos(z / np.float32(random.uniform(50, 90)))
    wide = 1 + 0.1 * np.sin(z / 70)

    def disc(x0: float, y0: float, a: float, b: float) -> npt.NDArray[np.bool_]:
        inside: npt.NDArray[np.bool_] = ((x - x0) / (a * wide)) ** 2 + ((y - y0) / (b * wide)) ** 2 <= 1
        return inside

    tissue = np.zeros(shape, np.uint8)
    name, a, b = ("thigh", 80.0, 75.0) if seed % 2 == 0 else ("trunk", 108.0, 82.0)
    tissue[disc(0, 0, a, b)] = Coarse.SKIN
    tissue[disc(0, 0, a - 2, b - 2)] = Coarse.FAT
    tissue[disc(0, 0, a - 14, b - 14)] = Coarse.MUSCLE
    if name == "thigh":
        x0, y0 = random.uniform(-10, 10, 2)
        tissue[disc(x0, y0, 15, 15)] = Coarse.CORTICAL
        tissue[disc(x0, y0, 8, 8)] = Coarse.FAT
    else:
        tissue[disc(0, 0, a - 20, b - 20) & (np.abs(z % 24 - 12) < 5) & ~disc(0, 0, a - 26, b - 26)] = Coarse.CORTICAL
        for side in (-1, 1):
            tissue[disc(side * 44, -8, 34, 46)] = Coarse.AIR
        tissue[disc(0, 48, 22, 16)] = Coarse.CANCELLOUS
        tissue[disc(0, 48, 8, 8)] = Coarse.FLUID
        tissue[disc(-8, -20, 22, 28)] = Coarse.BLOOD
    return Head(name, tissue, grid)
