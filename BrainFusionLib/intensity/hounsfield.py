"""Values that are not what they should be, put right with a note: CT numbers that are shifted, cut or wrapped; spikes.

What is looked for is what exports do to a CT: the rescale intercept left out or applied twice, negative values cut off,
values cut off at both ends of a window, and values above 3071 that come out 4096 lower, from 12 bits.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import numpy.typing as npt

from BrainFusionLib.intensity.pieces import pieces
from BrainFusionLib.intensity.wrapping import unwrapped
from BrainFusionLib.volume import AIR_HU, BoolArray, Volume, VoxelArray, extremes

Sample = npt.NDArray[np.float32]

# What intercepts are left out or applied twice: most CTs have -1024, some -1000; -32768 is that of unsigned 16 bits.
_OFFSETS = (1024.0, 1000.0, -1024.0, -1000.0, 32768.0)
# The most frequent value of a head's soft tissue, HU.
_BRAIN_HU = 35.0
_BONE_HU, _TISSUE_HU = 300.0, -200.0
# No air of a CT is below this; and outside of a field of view, a few values stand.
_BELOW_AIR_HU, _MOST_PADDINGS = -1500.0, 16
# Least share of bone in the tissue of a head: in heads it is 5 % or more, and of a cropped top of a head, 2 %.
LEAST_BONE = 3e-3
# Outside of a round field of view; smaller pieces of one value may be anything.
_LEAST_PADDED = 5e-3
_NOT_AIR_HU = -500.0
_MUCH_AIR = 0.05
# Spikes lie further above all others than so many times their range.
_SPIKE = 20.0
# Where a window ends between these, all that is cut off is air: fat is above, and air of a wrong slope below.
_ENDS_IN_AIR_HU = (-400.0, -140.0)
# A window that ends between these cuts bone off, and no brain. Bone is thicker than its edges, so that so much of what
# is dense lies at the very end then.
_ENDS_IN_BONE_HU, _AT_THE_END = (100.0, 700.0), 0.25
# In a window that begins above fat, so much of what lies between its ends is brain or muscle, at 15 to 60 HU.
_OF_BRAIN = 0.4
# What bone is taken for where a window cut it off: the mean of a skull. With 1000 HU as well, six simulated heads were
# found to lie within .1 mm of where the whole CT lies; with 400 HU as they come out of a window, the mask of the inside
# of the skull was 7 % too large.
_CUT_BONE_HU = 700.0
_LARGE = 1 << 26
# So many values are enough for the range of all but a few.
_ENOUGH = 200_000


def sample_of(array_kji: npt.NDArray[np.float32]) -> Sample:
    """Return every second voxel along each axis, in one row; of a volume above 64 million voxels every third."""
    step = 2 if array_kji.size <= _LARGE else 3
    return array_kji[::step, ::step, ::step].ravel()


def has_air(sample: Sample) -> bool:
    """Return whether there is air, and little else far below zero but padding; in a CT of a head there always is."""
    low = sample[sample < _TISSUE_HU]
    lowest = float(sample.min())
    if lowest < -1150:  # outside of a round field of view, or of a rotated one
        low = low[low > lowest]
    if low.size < 1e-3 * sample.size:
        return False
    return bool(((low > -1150) & (low < -800)).mean() > 0.2)


def is_too_low(sample: Sample) -> bool:
    """Return whether much is far below air, and no padding, which is of few values: as in a CT with a wrong slope."""
    counts = np.sort(np.unique(sample[sample < _BELOW_AIR_HU][::16], return_counts=True)[1])
    # Where a CT was resampled, the border of its padding is of many values.
    return bool(16 * counts[:-_MOST_PADDINGS].sum() > 0.05 * sample.size)


def bone_share(sample: Sample) -> float:
    """Return the share of bone in what is denser than fat."""
    tissue = int((sample > _TISSUE_HU).sum())
    return float((sample > _BONE_HU).sum()) / max(1, tissue)


def is_surely_ct(sample: Sample) -> bool:
    """Return whether values are those of a CT in Hounsfield units and of no MRI.

    Signed MRI (PSIR, real part) has values below zero, too. But in a CT the soft tissue is a narrow peak just above
    zero, and there are few values just below it.
    """
    above = int(((sample >= 0) & (sample < 80)).sum())
    below = int(((sample >= -80) & (sample < 0)).sum())
    around = int(((sample >= -200) & (sample < 200)).sum())
    is_peak = above > 0.35 * around and above > 1.5 * below and around > 1e-2 * sample.size
    return has_air(sample) and is_peak and bone_share(sample) > LEAST_BONE


def _finite_extremes(array: VoxelArray) -> tuple[float, float] | None:
    """Return the least and the greatest value, if there are values, and all are finite."""
    found = extremes(array) if array.size else (np.nan, np.nan)
    return found if np.isfinite(found).all() else None


def in_hounsfield_units(ct: Volume, offset: float | None = None) -> Volume:
    """Return a CT in Hounsfield units, with a note of what was done; unchanged where nothing is known to be wrong.

    Parameters
    ----------
    ct
        The CT.
    offset
        What to subtract from its values; where not given, it is worked out.
    """
    array = ct.array_kji
    if _finite_extremes(array) is None:
        return ct
    if offset is not None:
        note = f"{offset:g} was subtracted from the values, as asked for."
        return _without_window(ct.with_array(array - np.float32(offset), notes=(*ct.notes, note)))
    sample = sample_of(array)
    if not is_surely_ct(sample):
        found = offset_of(sample)
        if found is None:
            found = offset_of(sample, lambda values: window_of(values) is not None)
        if found is not None:
            note = (
                f"the values are not Hounsfield units but {abs(found):g} {'more' if found > 0 else 'less'} (a rescale "
                f"intercept was not applied, or twice): {found:g} was subtracted."
            )
            ct = ct.with_array(array - np.float32(found), notes=(*ct.notes, note))
        elif _is_cut_at_zero(sample):
            note = (
                "no value is below 0 (they were cut off): what is 0 around the head was taken for air. Air inside the "
                "skull cannot be told from fluid, and may not be reported."
            )
            ct = ct.with_array(_with_air(array), notes=(*ct.notes, note))
    return _with_note_on_air(unwrapped(_without_padding(_without_window(ct))))


def _without_window(ct: Volume) -> Volume:
    """Return a CT whose values end in a window with air below and bone above it, with a note."""
    window = window_of(sample_of(ct.array_kji))
    if window is None:
        return ct
    low, high = window
    ends = [f"below {low:g} HU: what is there was taken for air"] * math.isfinite(low)
    ends += [f"above {high:g} HU: what is there was taken for bone, of {_CUT_BONE_HU:g} HU"] * math.isfinite(high)
    note = f"the values were cut off (by a window) {', and '.join(ends)}."
    return ct.with_array(_filled_beyond(ct.array_kji, window), notes=(*ct.notes, note))


def window_of(sample: Sample) -> tuple[float, float] | None:
    """Return the ends of the window that a CT was cut off by, infinite where it was not; ``None`` if at neither."""
    low, high = float(sample.min()), float(sample.max())
    if not _ENDS_IN_AIR_HU[0] <= low <= _ENDS_IN_AIR_HU[1]:
        low = -math.inf
    dense = sample[sample > min(high - 1, _BONE_HU)]
    if not _ENDS_IN_BONE_HU[0] <= high < _ENDS_IN_BONE_HU[1] or (dense > high - 0.5).mean() < _AT_THE_END:
        high = math.inf
    is_cut = math.isfinite(low) or math.isfinite(high)
    return (low, high) if is_cut and is_surely_ct(_filled_beyond(sample, (low, high))) else None


def is_cut_in_fat(sample: Sample) -> bool:
    """Return whether values are those of a CT from a window that begins above fat: air cannot be told from it then."""
    low, high = float(sample.min()), float(sample.max())
    if not _ENDS_IN_AIR_HU[1] < low <= 0 or not high < _ENDS_IN_BONE_HU[1]:
        return False
    between = sample[(sample > low) & (sample < high)]
    is_brain = between.size > 0 and ((between > 15) & (between < 60)).mean() > _OF_BRAIN
    return bool(is_brain and (sample == low).mean() > _MUCH_AIR and (sample == high).mean() > LEAST_BONE)


def is_of_8_bits(sample: Sample) -> bool:
    """Return whether values are those of an export of 8 bits through a window, at both ends of which there are many."""
    at_ends = [float((sample == end).mean()) for end in (0, 255)]
    is_whole = float(sample.min()) == 0 and float(sample.max()) == 255 and bool((sample == np.rint(sample)).all())
    return is_whole and at_ends[0] > _MUCH_AIR and at_ends[1] > LEAST_BONE


def _filled_beyond(values: VoxelArray, window: tuple[float, float]) -> VoxelArray:
    """Return values with air at the lower end of a window, and bone at its upper end."""
    filled = np.where(values < window[0] + 0.5, np.float32(AIR_HU), values)
    filled[values > window[1] - 0.5] = _CUT_BONE_HU
    return filled


def _with_note_on_air(ct: Volume) -> Volume:
    """Return a CT with a note if there is much air, and it is not near -1000: its slope may be wrong."""
    sample = sample_of(ct.array_kji)
    low = sample[sample < _TISSUE_HU]
    if has_air(sample) or low.size < _MUCH_AIR * sample.size:
        return ct
    note = (
        f"the air around the head is near {round(float(np.median(low)), -1):g}, not -1000: the values may not be "
        "Hounsfield units, as in many cone-beam CTs or with a wrong rescale slope."
    )
    return ct.with_array(ct.array_kji, notes=(*ct.notes, note))


def _without_padding(ct: Volume) -> Volume:
    """Return a CT with air outside of its field of view, where padding has a value of tissue, with a note."""
    array = ct.array_kji
    corners = np.unique(array[:: array.shape[0] - 1 or 1, :: array.shape[1] - 1 or 1, :: array.shape[2] - 1 or 1])
    if len(corners) != 1 or not corners[0] > _NOT_AIR_HU or not float(array.min()) < _NOT_AIR_HU:
        return ct
    padding = _pieces_at_border(array == corners[0])
    count = int(padding.sum())
    if count < _LEAST_PADDED * array.size:
        return ct
    note = f"{count} voxels at the border are all at {corners[0]:zg}, outside of the field of view: taken for air."
    return ct.with_array(np.where(padding, np.float32(AIR_HU), array), notes=(*ct.notes, note))


def offset_of(sample: Sample, is_ct: Callable[[Sample], bool] = is_surely_ct) -> float | None:
    """Return what was added to Hounsfield units by an intercept that was left out or applied twice, or ``None``."""
    fitting = [offset for offset in _OFFSETS if is_ct(sample - np.float32(offset))]
    if not fitting:
        return None
    counts, edges = np.histogram(sample, bins=75, range=(min(fitting) - 100, max(fitting) + 200))
    peak = float(edges[int(np.argmax(np.convolve(counts, np.ones(3), "same")))]) + 2
    return min(fitting, key=lambda offset: abs(peak - offset - _BRAIN_HU))


def _is_cut_at_zero(sample: Sample) -> bool:
    positive = sample[sample > 0]
    if float(sample.min()) != 0 or not 0.02 < positive.size / sample.size < 0.98 or float(sample.max()) < 600:
        return False
    soft = positive[positive < 200]
    is_peak = soft.size > 0.5 * positive.size and (soft < 80).mean() > 0.6
    # The peak of brain; the noise of air in a shifted CT falls off from 0, or is broad.
    at_zero, at_brain, beyond = (
        int(((positive >= low) & (positive < high)).sum()) / (high - low)
        for low, high in ((1, 15), (20, 50), (100, 130))
    )
    is_brain = at_brain > max(at_zero, 4 * beyond)
    return bool(is_peak and is_brain and (positive > _BONE_HU).mean() > LEAST_BONE)


def _with_air(array: VoxelArray) -> VoxelArray:
    """Return values with air where they are 0 and connected to the border."""
    outside = _pieces_at_border(array <= 0)
    return np.where(outside, np.float32(AIR_HU), array)


def _pieces_at_border(mask: BoolArray) -> BoolArray:
    labels, _ = pieces(mask)
    faces = (labels[0], labels[-1], labels[:, 0], labels[:, -1], labels[:, :, 0], labels[:, :, -1])
    at_border = np.unique(np.concatenate([face.ravel() for face in faces]))
    return np.isin(labels, at_border[at_border > 0])


def without_spikes(volume: Volume) -> Volume:
    """Return a volume without values far outside the range of all others, with a note: they would stretch every scale.

    Many equal values far below all others are padding, and become the lowest of the others.
    """
    array = volume.array_kji
    found = _finite_extremes(array)
    if found is None:
        return volume
    lowest, highest = found
    sample = sample_of(array)
    rest = sample[sample > lowest]
    if rest.size < 8:
        return volume
    some = rest[:: rest.size // _ENOUGH + 1]
    low, high = (float(value) for value in np.percentile(some, (0.1, 99.9)))
    reach = _SPIKE * (high - low)
    if not reach > 0:
        return volume
    bottom, top = (low - reach, high + reach)
    is_padded = lowest < low - 2 * (high - low) and float((sample == lowest).mean()) > 1e-3
    notes = list(volume.notes)
    changed = array
    if is_padded:
        floor = float(array[array > lowest].min())
        floor = max(floor, low - (high - low))
        count = int((array < floor).sum())
        notes.append(f"{count} voxels are at {lowest:g}, far below all others: taken for outside, with {floor:g}.")
        changed = np.maximum(changed, np.float32(floor))
    elif lowest < bottom:
        count = int((array < bottom).sum())
        notes.append(f"{count} voxels of down to {lowest:g} are far below all others: set to {low:g}.")
        changed = np.where(changed < bottom, np.float32(low), changed)
    if highest > top:
        count = int((array > top).sum())
        notes.append(f"{count} voxels of up to {highest:g} are far above all others: set to {high:g}.")
        changed = np.where(changed > top, np.float32(high), changed)
    return volume if changed is array else volume.with_array(changed, notes=tuple(notes))
