"""Checks that reject volumes which cannot be a CT in Hounsfield units and an MRI of a head."""

from __future__ import annotations

from collections.abc import Collection

import numpy as np
import numpy.typing as npt

from BrainFusionLib.errors import GeometryError, ImageContentError, Remedy
from BrainFusionLib.geometry import Grid
from BrainFusionLib.intensity.hounsfield import (
    LEAST_BONE,
    Sample,
    bone_share,
    has_air,
    is_cut_in_fat,
    is_of_8_bits,
    is_surely_ct,
    is_too_low,
    offset_of,
    sample_of,
    window_of,
)
from BrainFusionLib.volume import BoolArray, Volume, VoxelArray, extremes

# Values of a head without its air; and a share of them within 100 HU. Heads in CTs have .50 and more (nine, three of a
# cone beam), MRIs that seem shifted by an intercept .27 and less (24 scales of four).
SOFT_TO_BONE_HU, MOST_WITHIN_100 = (-300.0, 3100.0), 0.4
# In an MRI that was scaled to the range of a CT (-1000 to 3000), most of the brain is above the bone's 300 HU, and no
# soft tissue makes a narrow peak: bone .62 to .91, the fullest 100 HU .05 to .13 (five real MRIs, six of phantoms).
# Heads in CTs have .13 to .25 and .52 to .69 (one real, 49 simulated, two of a cone beam), the real one with noise of
# 300 HU .38 and .12 at 10 HU. Pieces of some centimetres may be all bone, and are not judged.
MUCH_BONE, MOST_BONE_OF_HEAD, LEAST_WITHIN_100, HIGHEST_SOFT_HU = 0.4, 0.6, 0.2, 120.0
SMALLEST_PART_MM = 80.0
# Plausible longest edge of a volume. Wide on purpose: only spacings in centimetres, metres or micrometres are outside.
PLAUSIBLE_EXTENT_MM = (30.0, 10_000.0)
# Share of bone in the tissue of a head that no CT has whose numbers are right.
MOST_BONE = 0.8
# A CT from a window that begins here or below shows air apart from fat, with a margin for noise.
LEAST_START_HU = -150.0
# A volume of whole numbers with at most this many different values is a label map.
MOST_LABELS = 32
# Tolerance for rounded headers: distance of a mask's corners from the MRI's, as a share of the shortest voxel edge.
MASK_TOLERANCE = 0.1


def looks_like_ct(array_kji: npt.NDArray[np.float32]) -> bool:
    """Return whether the values look like a CT of a head in Hounsfield units, and not like a signed MRI.

    A CT of a head always shows air, around the head or in a sinus; its soft tissue is a narrow peak above 0; and there
    is bone. A window may have cut off air and bone.
    """
    return _looks_like_ct(sample_of(array_kji))


def _looks_like_ct(sample: Sample) -> bool:
    return is_surely_ct(sample) or window_of(sample) is not None


def _is_ct_given_as_mri(array_kji: VoxelArray) -> bool:
    """Return whether the values are Hounsfield units, also without their rescale intercept, which makes them positive.

    A CT fits another CT as well as an MRI does, or better: what is measured on the two does not tell. Without the
    intercept, an MRI of a certain scale has a share of values in the same place. But in a CT most of a head lies within
    100 HU.
    """
    sample = sample_of(array_kji)
    if _looks_like_ct(sample):
        return True
    offset = offset_of(sample)
    if offset is None:
        return False
    return _fullest_100(sample - np.float32(offset))[0] > MOST_WITHIN_100


def _fullest_100(sample: Sample) -> tuple[float, float]:
    """Return which share of a head's values lies within the 100 HU that have most of them, and their middle, HU."""
    # As a number of bins: edges would sort all values first.
    number = round((SOFT_TO_BONE_HU[1] - SOFT_TO_BONE_HU[0]) / 10)
    counts, edges = np.histogram(sample, bins=number, range=SOFT_TO_BONE_HU)
    within = np.convolve(counts, np.ones(10), "valid")
    place = int(np.argmax(within))
    return float(within[place]) / max(1, int(counts.sum())), float(edges[place]) + 50


def _is_scaled_mri(sample: Sample) -> bool:
    """Return whether values that range as those of a CT are of an MRI: no soft tissue near 0, and bone all over."""
    share, middle_hu = _fullest_100(sample)
    most_bone = MUCH_BONE if middle_hu > HIGHEST_SOFT_HU else MOST_BONE_OF_HEAD
    return share < LEAST_WITHIN_100 and bone_share(sample) > most_bone


def _may_be_ct(sample: Sample) -> bool:
    """Return whether the values may be Hounsfield units: those of a cone-beam CT are not exact."""
    return _has_air(sample) and bool((sample > -50).mean() > 1e-2)


def _has_air(sample: Sample) -> bool:
    return bool((sample < -200).mean() > 1e-3)


def looks_like_labels(array_kji: npt.NDArray[np.float32]) -> bool:
    """Return whether the values look like a label map: whole numbers, either few or mostly equal to their neighbours.

    Real 8-bit images had 39 values or more, and at most half of their neighbours were equal, because of the noise. The
    background is not counted: masked images have a uniform one, too.
    """
    middle = array_kji[array_kji.shape[0] // 4 : -(array_kji.shape[0] // 4) or None]
    some = middle[::2, ::2, ::2]
    if not bool((some == np.rint(some)).all()):
        return False
    values, counts = np.unique(some, return_counts=True)
    if len(values) <= MOST_LABELS:
        return True
    background, total, equal = values[int(np.argmax(counts))], 0, 0
    for plane in middle[::3]:  # masks of all take long, and memory
        left, right = plane[:, :-1], plane[:, 1:]
        foreground = left != background
        total += int(np.count_nonzero(foreground))
        equal += int(np.count_nonzero(foreground & (left == right)))
    return equal > 0.75 * total


def check_pair(ct: Volume, mri: Volume, stated: Collection[str] = ()) -> None:
    """Reject two volumes that cannot be a CT in Hounsfield units and an MRI of a head.

    Parameters
    ----------
    ct, mri
        The two volumes.
    stated
        Which of them, "CT" or "MRI", the user says to be what it is given as: those are not judged by their values.

    Raises
    ------
    ImageContentError
        NaN or infinite voxels, a constant volume, a label map, fewer than 4 slices, the same voxels twice, CT and MRI
        swapped, a CT that is not in Hounsfield units, or one without bone. The message names the volume and the remedy.
    """
    for volume, role in ((ct, "CT"), (mri, "MRI")):
        _check_voxels(volume, role)
    if ct.array_kji.shape == mri.array_kji.shape and np.array_equal(ct.array_kji, mri.array_kji):
        raise ImageContentError(
            f"{ct.name} was given both as CT and as MRI (the voxels are the same). Choose two different volumes."
        )
    sample = sample_of(ct.array_kji)
    ct_is_ct = "CT" in stated or ct.modality == "CT" or (ct.modality is None and _may_be_ct(sample))
    mri_is_ct = "MRI" not in stated and (
        mri.modality == "CT" or (mri.modality is None and _is_ct_given_as_mri(mri.array_kji))
    )
    if mri_is_ct and not ct_is_ct:
        raise ImageContentError(
            f"CT and MRI seem to be swapped: {_given(mri, 'MRI')} is a CT {_told_by(mri)}, and {_given(ct, 'CT')} is "
            "not. Exchange the two.",
            remedy=Remedy.STATE_MODALITY,
        )
    if mri_is_ct:
        raise ImageContentError(
            f"both volumes seem to be CTs: {_given(mri, 'MRI')} is one {_told_by(mri)}, too. Give an MRI of the same "
            "head.",
            remedy=Remedy.STATE_MODALITY,
        )
    if "CT" in stated:
        return
    if not ct_is_ct and ct.modality is not None:
        raise ImageContentError(
            f"{_given(ct, 'CT')} is not a CT by its header (modality {ct.modality}). Choose the CT.",
            remedy=Remedy.STATE_OFFSET,
        )
    # Even if DICOM says CT: without the rescale intercept water is 1024, and the whole head would count as bone.
    if not ct_is_ct or not _has_air(sample):
        is_windowed = is_cut_in_fat(sample) or is_of_8_bits(sample)  # no offset mends that
        remedy = None if is_windowed else Remedy.STATE_OFFSET
        raise ImageContentError(f"{_given(ct, 'CT')} {_not_a_ct(ct, sample)}", remedy=remedy)
    bone = bone_share(sample)
    # Where the air around the head is as dense as bone, the values are inverted, and bone passes for air.
    is_inverted = (np.abs(sample - 1000) < 150).mean() > max(0.1, (np.abs(sample + 1000) < 150).mean())
    if is_inverted or is_too_low(sample) or (bone > MOST_BONE and not has_air(sample)):
        raise ImageContentError(
            f"{_given(ct, 'CT')} is not in Hounsfield units{_shifted(ct)}: {100 * bone:.0f} % of its tissue is "
            "above 300, as bone is, and its air is not near -1000. Export the CT with its rescale slope and intercept "
            "applied.",
            remedy=Remedy.STATE_OFFSET,
        )
    if min(ct.grid.extent_ijk_mm) >= SMALLEST_PART_MM and _is_scaled_mri(sample):
        raise ImageContentError(
            f"{_given(ct, 'CT')} is not in Hounsfield units{_shifted(ct)}: {100 * bone:.0f} % of its tissue is "
            "above 300, as bone is, and no soft tissue is near 0. It may be an MRI, or a CT with a wrong slope.",
            remedy=Remedy.STATE_OFFSET,
        )
    if bone < LEAST_BONE:
        raise ImageContentError(
            f"{_given(ct, 'CT')} shows no bone{_shifted(ct)}: only {100 * bone:.2g} % of its tissue is above 300 "
            "HU, in a head 5 % or more. Check that this is the CT, whole and in Hounsfield units.",
            remedy=Remedy.STATE_OFFSET,
        )


def _given(volume: Volume, role: str) -> str:
    """Name a volume and what it was given as, at the beginning of what is said about it."""
    return f"the {role}" if volume.name == role else f"{volume.name}, given as {role},"


def _told_by(volume: Volume) -> str:
    """Say what tells the modality of a volume: the header, if it has one, else the values."""
    return "by its values" if volume.modality is None else "by its header"


def _not_a_ct(ct: Volume, sample: Sample) -> str:
    """Say why values are not those of a CT with air, bone and what is between them, and what to do."""
    low, high = extremes(ct.array_kji)
    if is_cut_in_fat(sample):
        return (
            f"was cut off below {low:g} HU, by a window: air, fat and fluid cannot be told apart. Export the CT "
            f"without a window, or with one that begins at {LEAST_START_HU:g} HU or below."
        )
    if is_of_8_bits(sample):
        return (
            f"is not in Hounsfield units{_shifted(ct)}: its values range from 0 to 255, as in an export of 8 bits "
            "through a window. Export the CT without a window; if you know the window, convert the values: lowest HU + "
            f"value x (highest - lowest HU) / 255, which is enough if it begins at {LEAST_START_HU:g} HU or below."
        )
    return (
        f"is not in Hounsfield units{_shifted(ct)}: its values range from {low:g} to {high:g}, but a CT has air near "
        "-1000 and bone above 300. Export the CT with its rescale slope and intercept applied (without a window, not "
        "as 8 bits), or check that this is the CT."
    )


def _shifted(ct: Volume) -> str:
    """Return in brackets what was subtracted from a CT's values before they were looked at."""
    return "".join(f" ({note.rstrip('.')})" for note in ct.notes if "was subtracted" in note)


def _check_voxels(volume: Volume, role: str) -> None:
    array = volume.array_kji
    if min(array.shape) < 4:
        raise ImageContentError(
            f"{_given(volume, role)} has only {volume.grid.size_ijk} voxels; at least 4 along each axis are "
            "needed. Give the whole 3D volume, not a single slice."
        )
    longest_mm = max(volume.grid.extent_ijk_mm)
    if not PLAUSIBLE_EXTENT_MM[0] <= longest_mm <= PLAUSIBLE_EXTENT_MM[1]:
        spacing = ", ".join(f"{mm:g}" for mm in volume.grid.spacing_ijk_mm)
        raise ImageContentError(
            f"{_given(volume, role)} is {longest_mm:g} mm long: its voxel spacing ({spacing}) is not in millimetres. "
            "Correct the header."
        )
    low, high = extremes(array)  # not a mask of all, which takes longer and memory
    if not np.isfinite([low, high]).all():
        bad = int(array.size - np.isfinite(array).sum())
        raise ImageContentError(
            f"{_given(volume, role)} has {bad} voxels that are NaN or infinite. "
            "Replace them (by 0 in an MRI, by -1000 in a CT) and try again."
        )
    if low == high:
        raise ImageContentError(
            f"{_given(volume, role)} is empty: every voxel is {low + 0.0:g}. Choose a volume that contains an image."
        )
    if looks_like_labels(array):
        raise ImageContentError(
            f"{_given(volume, role)} looks like a label map (whole numbers in flat regions). "
            "Give the image itself, not a segmentation."
        )


def check_mask(mask: Volume, mri: Volume) -> BoolArray:
    """Return where a registration mask is above 0: shape ``mri.grid.shape_kji``, bool.

    Raises
    ------
    GeometryError
        The mask is not on the MRI's grid.
    ImageContentError
        The mask is empty.
    """
    if not mask.grid.same_as(mri.grid, MASK_TOLERANCE * min(mri.grid.spacing_ijk_mm)):
        raise GeometryError(
            f"{mask.name}, given as registration mask, is not on the grid of the MRI {mri.name}. Grid of the mask: "
            f"{_described(mask.grid)}. Grid of the MRI: {_described(mri.grid)}. Resample the mask onto the MRI (in "
            "Slicer: export the segmentation with the MRI as reference volume), or draw it on the MRI."
        )
    inside = mask.array_kji > 0
    if not inside.any():
        raise ImageContentError(
            f"{mask.name}, given as registration mask, is empty: no voxel is above 0. "
            "Mark the region where the alignment matters most with 1, or omit the mask."
        )
    return inside


def _described(grid: Grid) -> str:
    size = " x ".join(str(n) for n in grid.size_ijk)
    spacing, origin = (", ".join(f"{v:.6g}" for v in values) for values in (grid.spacing_ijk_mm, grid.origin_lps_mm))
    axes = "; ".join(", ".join(f"{v:.4g}" for v in column + 0.0) for column in grid.direction.T)
    return f"{size} voxels of {spacing} mm, origin ({origin}) mm LPS, axes ({axes})"
