"""Arrays as images of SimpleITK, and sampled on other grids by it."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import SimpleITK as sitk

from BrainFusionLib.geometry import FloatArray, Grid
from BrainFusionLib.volume import VoxelArray


def itk_image(array_kji: npt.NDArray[np.generic], grid: Grid) -> sitk.Image:
    """Return an image of SimpleITK with these voxels on this grid; masks become 8-bit numbers."""
    image = sitk.GetImageFromArray(array_kji.astype(np.uint8) if array_kji.dtype == bool else array_kji)
    image.SetSpacing(grid.spacing_ijk_mm)
    image.SetOrigin(grid.origin_lps_mm)
    image.SetDirection(grid.direction.ravel().tolist())
    return image


def sampled(
    array_kji: VoxelArray, source: Grid, target: Grid, source_from_target_lps: FloatArray | None, fill: float
) -> VoxelArray:
    """Sample an image on another grid, linear, on one thread.

    Parameters
    ----------
    source_from_target_lps
        4x4, affine: takes points of `target` to points of `source`, mm; ``None``: they are the same points.
    fill
        What is outside the image.
    """
    sampler = sitk.ResampleImageFilter()
    sampler.SetNumberOfThreads(1)
    sampler.SetSize(target.size_ijk)
    sampler.SetOutputSpacing(target.spacing_ijk_mm)
    sampler.SetOutputOrigin(target.origin_lps_mm)
    sampler.SetOutputDirection(target.direction.ravel().tolist())
    sampler.SetDefaultPixelValue(float(fill))
    if source_from_target_lps is not None:
        moved = sitk.AffineTransform(3)
        moved.SetMatrix(source_from_target_lps[:3, :3].ravel().tolist())
        moved.SetTranslation(source_from_target_lps[:3, 3].tolist())
        sampler.SetTransform(moved)
    found: VoxelArray = sitk.GetArrayFromImage(sampler.Execute(itk_image(array_kji, source)))
    return found
