"""Arrays as images of SimpleITK."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import SimpleITK as sitk

from BrainFusionLib.geometry import Grid


def itk_image(array_kji: npt.NDArray[np.generic], grid: Grid) -> sitk.Image:
    """Return an image of SimpleITK with these voxels on this grid; masks become 8-bit numbers."""
    image = sitk.GetImageFromArray(array_kji.astype(np.uint8) if array_kji.dtype == bool else array_kji)
    image.SetSpacing(grid.spacing_ijk_mm)
    image.SetOrigin(grid.origin_lps_mm)
    image.SetDirection(grid.direction.ravel().tolist())
    return image
