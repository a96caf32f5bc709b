"""Checks that refuse what cannot be a CT in Hounsfield units and an MRI of a head."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from BrainFusionLib.errors import GeometryError, ImageContentError
from BrainFusionLib.geometry import Grid
from BrainFusionLib.volume import BoolArray, Volume

# Longest edge of a volume. Wide on purpose: only spacings in metres or in micrometres are meant.
PLAUSIBLE_EXTENT_MM = (3.0, 10_000.0)
# Whole numbers that take no more values than this are labels.
MOST_LABELS = 32
# Headers round: how far a mask's corners may lie from the MRI's, as a share of the finest voxel edge.
MASK_TOLERANCE = 0.1


def looks_like_ct(array_kji: npt.NDArray[np.float32]) -> bool:
    """Say whether the values look like a CT in Hounsfield units: air far below zero, and something denser than fat.

    MRI values are magnitudes, hardly ever far below zero; a CT of a head always holds air, in the room or in a sinus.
    """
    return _holds_air(array_kji) and bool((array_kji[::2, ::2, ::2] > -50).mean() > 1e-2)


def _holds_air(array_kji: npt.NDArray[np.float32]) -> bool:
    return bool((array_kji[::2, ::2, ::2] < -200).mean() > 1e-3)


def looks_like_labels(array_kji: npt.NDArray[np.float32]) -> bool:
    """Say whether the values look like a label map: whole numbers, few of them or most neighbours in objects equal.

    Real 8-bit images had 39 values and more, and at most half of their neighbours equal.
    Noise makes neighbours differ in any real image, even one stored in 8 bits; a background of one value does not
    count, because masked images have that too.
    """
    middle = array_kji[array_kji.shape[0] // 4 : -(array_kji.shape[0] // 4) or None]
    left, right = middle[..., :-1], middle[..., 1:]
    values, counts = np.unique(middle[::2, ::2, ::2], return_counts=True)
    if not bool((values == np.round(values)).all()):
        return False
    if len(values) <= MOST_LABELS:
        return True
    foreground = left != values[int(np.argmax(counts))]
    return bool(foreground.any() and (left == right)[foreground].mean() > 0.75)


def check_pair(ct: Volume, mri: Volume) -> None:
    """Refuse two volumes that cannot be a CT in Hounsfield units and an MRI of a head.

    Raises
    ------
    ImageContentError
        NaN or infinite voxels, a constant volume, a label map, fewer than 4 slices, the same voxels twice, CT and MRI
        swapped, or a CT that is not in Hounsfield units. The message names the volume and the remedy.
    """
    for volume, role in ((ct, "CT"), (mri, "MRI")):
        _check_voxels(volume, role)
    if ct.array_kji.shape == mri.array_kji.shape and np.array_equal(ct.array_kji, mri.array_kji):
        raise ImageContentError(
            f"{ct.name} was given both as CT and as MRI (the same voxels). Choose two different volumes."
        )
    ct_is_ct = ct.modality == "CT" or (ct.modality is None and looks_like_ct(ct.array_kji))
    mri_is_ct = mri.modality == "CT" or (mri.modality is None and looks_like_ct(mri.array_kji))
    if mri_is_ct and not ct_is_ct:
        raise ImageContentError(
            f"CT and MRI are swapped: {mri.name}, given as MRI, holds Hounsfield units, and {ct.name}, given as CT, "
            "does not. Give them the other way round."
        )
    if mri_is_ct:
        raise ImageContentError(
            f"both volumes are CTs: {mri.name}, given as MRI, holds Hounsfield units too. Give an MRI of the same head."
        )
    # Even where DICOM says CT: with the intercept left out, water is 1024 and all of the head would be bone.
    if not ct_is_ct or not _holds_air(ct.array_kji):
        low, high = float(ct.array_kji.min()), float(ct.array_kji.max())
        raise ImageContentError(
            f"{ct.name}, given as CT, is not in Hounsfield units: its values go from {low:g} to {high:g}, and a CT has "
            "air near -1000 and bone above 300. Export the CT with its rescale slope and intercept applied "
            "(no window, no 8 bits), or check that it is the CT."
        )


def _check_voxels(volume: Volume, role: str) -> None:
    array = volume.array_kji
    if min(array.shape) < 4:
        raise ImageContentError(
            f"{volume.name}, given as {role}, has only {volume.grid.size_ijk} voxels; at least 4 along each axis are "
            "needed. Give the whole 3D volume, not a single slice."
        )
    longest_mm = max(volume.grid.extent_ijk_mm)
    if not PLAUSIBLE_EXTENT_MM[0] <= longest_mm <= PLAUSIBLE_EXTENT_MM[1]:
        raise ImageContentError(
            f"{volume.name}, given as {role}, is {longest_mm:g} mm long: its voxel spacing "
            f"{volume.grid.spacing_ijk_mm} is not in millimetres. Correct the header."
        )
    if not np.isfinite(array).all():
        bad = int(array.size - np.isfinite(array).sum())
        raise ImageContentError(
            f"{volume.name}, given as {role}, has {bad} voxels that are NaN or infinite. "
            "Replace them (with 0 in an MRI, -1000 in a CT) and try again."
        )
    low, high = float(array.min()), float(array.max())
    if low == high:
        raise ImageContentError(
            f"{volume.name}, given as {role}, is empty: every voxel is {low:g}. Choose a volume that holds an image."
        )
    if looks_like_labels(array):
        raise ImageContentError(
            f"{volume.name}, given as {role}, looks like a label map (whole numbers in flat regions). "
            "Give the image itself, not a segmentation."
        )


def check_mask(mask: Volume, mri: Volume) -> BoolArray:
    """Return where a mask of an MRI is above 0: shape ``mri.grid.shape_kji``, bool.

    Raises
    ------
    GeometryError
        The mask does not lie on the MRI's grid.
    ImageContentError
        Nothing in it is above 0.
    """
    if not mask.grid.same_as(mri.grid, MASK_TOLERANCE * min(mri.grid.spacing_ijk_mm)):
        raise GeometryError(
            f"{mask.name}, given as mask of the MRI {mri.name}, does not lie on its grid. The mask's: "
            f"{_in_words(mask.grid)}. The MRI's: {_in_words(mri.grid)}. Resample the mask onto the MRI (in Slicer: "
            "export the segmentation with the MRI as reference volume), or draw it there."
        )
    inside = mask.array_kji > 0
    if not inside.any():
        raise ImageContentError(
            f"{mask.name}, given as mask of the MRI {mri.name}, is empty: no voxel is above 0. "
            "Mark the region that matters with 1, or leave the mask away."
        )
    return inside


def _in_words(grid: Grid) -> str:
    size = " x ".join(str(n) for n in grid.size_ijk)
    spacing, origin = (", ".join(f"{v:.6g}" for v in values) for values in (grid.spacing_ijk_mm, grid.origin_lps_mm))
    axes = "; ".join(", ".join(f"{v:.4g}" for v in column + 0.0) for column in grid.direction.T)
    return f"{size} voxels of {spacing} mm, origin ({origin}) mm LPS, axes ({axes})"
