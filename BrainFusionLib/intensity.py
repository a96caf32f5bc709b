"""What voxel values mean: Hounsfield windows, the MRI's scale, the head in a CT, and the checks that refuse bad input.

Both images meet on one **unit scale**: an MRI's own range inside the head is 0 to 1, and CT is placed on it by a
monotone piecewise-linear map with soft tissue below 1 and bone from 1 upwards, never clipped. The fused volume is that
unit scale stretched back to the MRI's own values, so soft tissue keeps the MRI's numbers exactly, bone lies above
them, and a Hounsfield number can be had back from it (`hu_from_unit`).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import SimpleITK as sitk

from BrainFusionLib.errors import GeometryError, ImageContentError
from BrainFusionLib.geometry import Grid
from BrainFusionLib.volume import BoolArray, Volume, VoxelArray

# Trabecular bone begins at 200-300 HU; calcified vessels and contrast stay below 300 in most heads.
BONE_HU = 300.0
# Over this range the bone-over-MRI rule goes from MRI to CT, so that the skull has no stair-cased rim.
BONE_RAMP_HU = (200.0, BONE_HU)

# Air, soft tissue up to bone, bone, metal: each with a slope of its own, because one straight line that shows brain in
# the lower half would put dense bone at six times the brightest MRI value, outside any window that shows both.
CT_KNOTS_HU = (-1000.0, -100.0, BONE_HU, 2000.0, 4000.0)
CT_KNOTS_UNIT = (0.0, 0.05, 1.0, 1.5, 1.75)

AIR_HU = -1000.0
# Longest edge of a volume. Wide on purpose: only spacings in metres or in micrometres are meant.
PLAUSIBLE_EXTENT_MM = (3.0, 10_000.0)
# Whole numbers that take no more values than this are labels.
MOST_LABELS = 32
HEAD_THRESHOLD_HU = -300.0
# Headers round: how far a mask's corners may lie from the MRI's, as a share of the finest voxel edge.
MASK_TOLERANCE = 0.1
# Further than this from the bulk of the head, tissue that hangs on by a thin bridge is taken for table or holder.
WON_BACK_MM = 16.0


def ct_to_unit(hu: npt.ArrayLike) -> VoxelArray:
    """Map Hounsfield units to the unit scale, float32, same shape.

    Beyond the outer knots the outer slopes go on, so that the map stays invertible for any scanner's range.
    """
    return _piecewise_linear(hu, CT_KNOTS_HU, CT_KNOTS_UNIT)


def hu_from_unit(unit: npt.ArrayLike) -> VoxelArray:
    """Map the unit scale back to Hounsfield units: the inverse of `ct_to_unit`, good to 0.01 HU in bone."""
    return _piecewise_linear(unit, CT_KNOTS_UNIT, CT_KNOTS_HU)


def _piecewise_linear(values: npt.ArrayLike, xs: tuple[float, ...], ys: tuple[float, ...]) -> VoxelArray:
    """Interpolate between knots and go on straight beyond them; a sum of clipped ramps, in float32 throughout."""
    x = np.asarray(values, dtype=np.float32)
    y = np.full_like(x, ys[0])
    last = len(xs) - 2
    for n in range(len(xs) - 1):
        low = -np.inf if n == 0 else 0.0
        high = np.inf if n == last else xs[n + 1] - xs[n]
        ramp = np.clip(x - np.float32(xs[n]), np.float32(low), np.float32(high))
        y += ramp * np.float32((ys[n + 1] - ys[n]) / (xs[n + 1] - xs[n]))
    return y


def bone_weight(hu: npt.ArrayLike) -> VoxelArray:
    """Return how much a voxel is bone: 0 up to 200 HU, 1 from 300 HU, straight between; float32, same shape."""
    low, high = BONE_RAMP_HU
    weight: VoxelArray = np.clip((np.asarray(hu, dtype=np.float32) - np.float32(low)) / np.float32(high - low), 0, 1)
    return weight


def mri_scale(mri_kji: npt.NDArray[np.float32]) -> tuple[float, float]:
    """Return the MRI values that mean 0 and 1 on the unit scale.

    0 is the darkest value of the background (its 0.5th percentile over the volume); 1 is the 99th percentile inside
    the head, which a few bright vessels, fat or an artefact do not move. Any sequence, any scale.

    Raises
    ------
    ImageContentError
        The volume is constant.
    """
    # Every third voxel along each axis: percentiles do not need 14 million values.
    values = mri_kji[::3, ::3, ::3] if min(mri_kji.shape) >= 12 else mri_kji
    low = float(np.percentile(values, 0.5))
    head = values[values > otsu_threshold(values)]
    high = float(np.percentile(head, 99)) if head.size else float(values.max())
    if not high > low:
        raise ImageContentError("the MRI is constant: there is nothing to register or to fuse. Choose another volume.")
    return low, high


def otsu_threshold(values: npt.NDArray[np.float32], bins: int = 128) -> float:
    """Return the value that splits `values` in two classes of the greatest between-class variance.

    Source: N. Otsu, IEEE Trans. Systems, Man, and Cybernetics 9 (1979) 62. The histogram ends at the 99.5th percentile,
    because a handful of very bright voxels would squeeze all tissue into the first bin.
    """
    low, top = float(values.min()), float(np.percentile(values, 99.5))
    if not top > low:
        return low
    # Float64, because 128 edges in float32 run together where the values differ in their last digits only.
    counts, edges = np.histogram(values.astype(np.float64), bins=bins, range=(low, top))
    centres = (edges[:-1] + edges[1:]) / 2
    below = np.cumsum(counts)[:-1]
    above = counts.sum() - below
    mean_below = np.cumsum(counts * centres)[:-1] / np.maximum(below, 1)
    mean_above = ((counts * centres).sum() - np.cumsum(counts * centres)[:-1]) / np.maximum(above, 1)
    return float(edges[1:-1][int(np.argmax(below * above * (mean_below - mean_above) ** 2))])


def ct_head_mask(ct: Volume, resolution_mm: float = 4.0, margin_mm: float = 0.0) -> BoolArray:
    """Return where the head is in a CT: shape ``ct.grid.shape_kji``, bool; table, head holder and frame are left out.

    Everything above -300 HU is opened with a ball, which cuts thin shells and the bridges by which a holder touches
    the skin; the largest piece is the head. What belongs to it and was thin (nose, ears, the front wall of a sinus) is
    won back by growing `WON_BACK_MM` inside the tissue, and inner air is filled. Worked out on a grid of about
    `resolution_mm`, where it takes a fraction of a second, and read back to the CT's own.

    Raises
    ------
    ImageContentError
        Nothing in the volume is denser than air.
    """
    factors = [max(1, round(resolution_mm / s)) for s in ct.grid.spacing_ijk_mm]
    # The middle voxel of each block speaks for it: the first one would shift the mask by half a block.
    middles = (_block_middles(n, f) for n, f in zip(ct.grid.shape_kji, reversed(factors), strict=True))
    coarse = ct.array_kji[np.ix_(*middles)] > HEAD_THRESHOLD_HU
    if not coarse.any():
        raise ImageContentError(
            f"{ct.name}: no voxel is above {HEAD_THRESHOLD_HU:.0f} HU, so there is no head in this CT. "
            "A CT in Hounsfield units is wanted (air -1000, water 0)."
        )
    spacing_kji = [f * s for f, s in zip(factors, ct.grid.spacing_ijk_mm, strict=True)][::-1]
    radius = [max(1, round(6.0 / s)) for s in spacing_kji]
    opened = _dilated(_eroded(coarse, radius), radius) & coarse
    pieces = sitk.ConnectedComponent(sitk.GetImageFromArray((opened if opened.any() else coarse).astype(np.uint8)))
    head = sitk.GetArrayFromImage(sitk.RelabelComponent(pieces, sortByObjectSize=True)) == 1
    step = [max(1, round(4.0 / s)) for s in spacing_kji]
    for _ in range(round(WON_BACK_MM / 4.0)):
        head = _dilated(head, step) & coarse
    # With room for the head to grow beyond the border, or shrinking it again would leave a rim there.
    roomy = np.pad(head, [(r, r) for r in radius])
    inner = tuple(slice(r, -r) for r in radius)
    closed = _eroded(_dilated(roomy, radius), radius)[inner]
    filled = sitk.GetArrayFromImage(sitk.BinaryFillhole(sitk.GetImageFromArray(closed.astype(np.uint8)))).astype(bool)
    if margin_mm > 0:
        filled = _dilated(filled, [max(1, round(margin_mm / s)) for s in spacing_kji])
    for axis, factor in enumerate(reversed(factors)):
        filled = np.repeat(filled, factor, axis=axis)
    k, j, i = ct.grid.shape_kji
    return np.ascontiguousarray(filled[:k, :j, :i])


def _dilated(mask: BoolArray, radius: Sequence[int]) -> BoolArray:
    """Grow a mask by an ellipsoid of so many voxels along each axis.

    One shifted copy a voxel of the ellipsoid: on these small grids a tenth of the time of ITK's filter.
    """
    grown = mask.copy()
    reach = np.indices([2 * r + 1 for r in radius]).reshape(3, -1).T - np.asarray(radius)
    # Half a voxel more than the radius, so that a radius of one takes in the neighbours along the edges, too.
    for offset in reach[((reach / (np.asarray(radius) + 0.5)) ** 2).sum(axis=1) <= 1]:
        target = tuple(slice(max(0, d), max(0, n + min(0, d))) for d, n in zip(offset, mask.shape, strict=True))
        source = tuple(slice(max(0, -d), max(0, n - max(0, d))) for d, n in zip(offset, mask.shape, strict=True))
        grown[target] |= mask[source]
    return grown


def _eroded(mask: BoolArray, radius: Sequence[int]) -> BoolArray:
    """Shrink a mask by an ellipsoid; what lies beyond the border counts as inside, so a head cut off there stays."""
    return ~_dilated(~mask, radius)


def _block_middles(size: int, block: int) -> npt.NDArray[np.intp]:
    """Return the index in the middle of every block of an axis; the last block may be cut off."""
    return np.minimum(np.arange(0, size, block) + block // 2, size - 1)


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


def window_of_fused(mri_low: float, mri_high: float) -> tuple[float, float]:
    """Return the display range (lowest, highest value) that shows MRI soft tissue and CT bone of a fused volume."""
    return mri_low, mri_low + (mri_high - mri_low) * CT_KNOTS_UNIT[-2]
