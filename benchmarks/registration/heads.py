"""PreparedPair to make cases of: from label maps, from the project's phantom, and things that are no head."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
import numpy.typing as npt
import SimpleITK as sitk

from benchmarks.registration.tissues import BRAIN, Tissue, tissue_of_label
from BrainFusionLib.errors import ImageContentError
from BrainFusionLib.geometry import FloatArray, Grid, apply_affine
from BrainFusionLib.io import read_volume
from BrainFusionLib.phantom import head_grid, make_phantom

TissueArray = npt.NDArray[np.uint8]
TARGET_POINTS = 1500


@dataclass(frozen=True, eq=False)
class Head:
    """A head made of tissues; its space is the MRI's.

    Parameters
    ----------
    name
        What to call it in the table.
    tissue_kji
        Values of `Tissue`, uint8.
    grid
        Where its voxels are; the axes are along left, posterior, superior.
    points_lps_mm
        Points all over the brain to measure errors at, shape (n, 3), LPS mm.
    centre_lps_mm
        Middle of the brain, shape (3,), LPS mm.
    """

    name: str
    tissue_kji: TissueArray
    grid: Grid
    points_lps_mm: FloatArray
    centre_lps_mm: FloatArray

    def tissue_at(self, points_lps_mm: FloatArray) -> TissueArray:
        """Return the tissue of the voxels nearest to points, shape (n, 3) to (n,); air outside."""
        ijk = np.rint(apply_affine(self.grid.ijk_from_lps, points_lps_mm)).astype(int)
        inside = np.all((ijk >= 0) & (ijk < self.grid.size_ijk), axis=-1)
        found = np.full(len(ijk), Tissue.AIR, np.uint8)
        i, j, k = ijk[inside].T
        found[inside] = self.tissue_kji[k, j, i]
        return found


# A head is 9 MB, reading one takes a second.
@lru_cache(maxsize=32)
def read_head(file: Path) -> Head:
    """Read a label map with SynthSeg's classes.

    Raises
    ------
    ImageContentError
        The file holds no brain.
    """
    volume = read_volume(file)
    image = sitk.GetImageFromArray(volume.array_kji.astype(np.uint16))
    image.SetSpacing(volume.grid.spacing_ijk_mm)
    image.SetOrigin(volume.grid.origin_lps_mm)
    image.SetDirection(volume.grid.direction.ravel().tolist())
    image = sitk.DICOMOrient(image, "LPS")
    labels = sitk.GetArrayFromImage(image)
    grid = Grid(image.GetSize(), image.GetSpacing(), image.GetOrigin())
    return _head(file.name.split(".")[0], tissue_of_label(phantom=False)[np.minimum(labels, 1023)], grid)


@lru_cache(maxsize=32)
def phantom_head(seed: int, spacing_mm: float = 1.0) -> Head:
    """Return one of the phantom's heads, on a grid of `spacing_mm` (coarser is faster to make)."""
    # Electrodes are the cases' own, and in the CT only.
    labels = make_phantom(seed, electrode=False).labels(head_grid(spacing_mm))
    return _head(f"phantom{seed}", tissue_of_label(phantom=True)[labels.array_kji], labels.grid)


def _head(name: str, tissue: TissueArray, grid: Grid) -> Head:
    """Crop to what is there and find the brain."""
    low_high = []
    for axis in range(3):
        there = np.flatnonzero(tissue.any(axis=tuple({0, 1, 2} - {axis})))
        if there.size == 0:
            raise ImageContentError(f"{name}: an empty label map. Give label maps of heads.")
        low_high.append((int(there[0]), int(there[-1]) + 1))
    tissue = np.ascontiguousarray(tissue[tuple(slice(low, high) for low, high in low_high)])
    size = (tissue.shape[2], tissue.shape[1], tissue.shape[0])
    first = apply_affine(grid.lps_from_ijk, [low for low, _ in low_high[::-1]])
    cropped = Grid(size, grid.spacing_ijk_mm, tuple(first))
    flat = np.flatnonzero(np.isin(tissue, BRAIN))
    if flat.size < TARGET_POINTS:
        raise ImageContentError(
            f"{name}: {flat.size} voxels of brain, but at least {TARGET_POINTS} are needed. Give label maps of whole "
            "heads with SynthSeg's (FreeSurfer's) numbers."
        )
    # Evenly spread over the voxels of the brain; the offset keeps them off a raster.
    chosen = flat[np.linspace(0, flat.size - 1, TARGET_POINTS).astype(np.int64)]
    points = apply_affine(cropped.lps_from_ijk, np.stack(np.unravel_index(chosen, tissue.shape)[::-1], axis=-1))
    return Head(name, tissue, cropped, points, points.mean(axis=0))


def body_part(seed: int, spacing_mm: float = 1.0) -> Head:
    """Return something that is no head: a thigh where `seed` is even, a trunk where it is odd.

    It has no brain, so its points are none; its centre is the middle of its grid.
    """
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
    tissue[disc(0, 0, a, b)] = Tissue.SKIN
    tissue[disc(0, 0, a - 2, b - 2)] = Tissue.FAT
    tissue[disc(0, 0, a - 14, b - 14)] = Tissue.MUSCLE
    if name == "thigh":
        x0, y0 = random.uniform(-10, 10, 2)
        tissue[disc(x0, y0, 15, 15)] = Tissue.CORTICAL
        tissue[disc(x0, y0, 8, 8)] = Tissue.FAT
    else:
        tissue[disc(0, 0, a - 20, b - 20) & (np.abs(z % 24 - 12) < 5) & ~disc(0, 0, a - 26, b - 26)] = Tissue.CORTICAL
        for side in (-1, 1):
            tissue[disc(side * 44, -8, 34, 46)] = Tissue.AIR
        tissue[disc(0, 48, 22, 16)] = Tissue.CANCELLOUS
        tissue[disc(0, 48, 8, 8)] = Tissue.FLUID
        tissue[disc(-8, -20, 22, 28)] = Tissue.BLOOD
    return Head(name, tissue, grid, np.empty((0, 3)), grid.centre_lps_mm)
