"""Measures of what a rigid pose cannot mend: air and holes, shift of the brain, scale and distortion.

Pure functions of the evidence, as in `verdict.measures`; ``None`` means that the evidence is missing or not conclusive.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

from BrainFusionLib.evidence import Evidence
from BrainFusionLib.verdict import moved
from BrainFusionLib.verdict.headers import FAR_MM, days_apart, far_uncorrected_mm, long_apart
from BrainFusionLib.verdict.measures import is_given_apart, is_mirrored, is_stripped, skull_is_off

# In a pose this far off, scale and distortion cannot be told from the misalignment.
POSE_TOO_FAR_MM = 2.5
# A brain that has shifted leaves most regions of a head where they are: of 134 such cases they agreed on at most .5 mm.
WHOLE_HEAD_MM = 1.0
# Noise of the distortion that its limit allows for: 0.65 to 1.0 mm in most thin slices, and up to 1.9 mm where all
# effects come together.
USUAL_NOISE_MM = 1.0
# With a brain displaced by so much, less distortion of the skull is enough to tell it, in voxels not longer than these.
DISPLACED_BRAIN_MM, BOTH_DISPLACED, COARSE_MM = 1.4, 0.82, 2.0
# A field of the skull with which the MRI tells the CT's skull no better than after a rigid movement was matched to
# marrow, fluid or noise: 60 right pairs of two simulators gained at most .012 nats a sample, 20 that were scaled or
# distorted by 2 % or 2 mm at least .039. The limits are this many times as high then.
CERTAIN_FIELD_NATS, UNCERTAIN_FIELD = 0.015, 2.0
# A scale common to all axes is uncertain by so much for each millimetre of the longest voxel edge. The limit of the
# scale grows by so much for each millimetre beyond thin slices: of 3 to 6 mm they read up to 1.4 % without any.
ALIKE_PERCENT_A_MM, THICK_SCALE_A_MM, THIN_MM = 0.5, 0.08, 1.25
# Less of either leaves the brain in its place.
SHIFTING_AIR_ML, SHIFTING_DEFECT_CM2 = 5.0, 4.0
AFTER_SURGERY = 0.8
# A brain whose displacement reads less than this, and gains less, is shown to lie in its place: so do 528 of 551 right
# cases with enough in common, and none of 110 brains displaced by more than 2 mm after surgery.
IN_PLACE_MM, IN_PLACE_GAIN_NATS = 1.2, 0.003
# Below a smaller hole, images with enough in common show each displacement that matters: 34 of 34 beyond 2 mm.
SMALL_DEFECT_CM2 = 10.0
# Brain and skull of a distorted MRI are measured apart, each too small or too large by up to so much.
MUCH_MORE = 1.5
# Limits of what a rigid pose cannot mend; the table says how they were chosen.
SHIFT_LIMIT_MM, SCALE_LIMIT_PERCENT, DISTORTION_LIMIT_MM = 2.6, 1.1, 1.4
# A displacement is certain if it makes the MRI tell the CT better by so much, nats a voxel, or by this share of the
# information, but by no less than the third: 4 of 624 right cases read more than the limit with so much.
CERTAIN_GAIN_NATS, CERTAIN_SHARE, LITTLE_GAIN_NATS, PART_LIMIT_MM = 0.006, 0.03, 0.004, 1.5
# 99 of 100 right cases gain less than this, and it is clear then that something has moved. Where that is a small part,
# beside a cavity for example, most of the brain has not, and the percentile reads half of it: 2.3 mm read 1.2 mm at
# .018 nats. So less of it counts; that makes 1 of 551 right cases amber (misaligned by .6 mm).
CLEAR_GAIN_NATS, CLEAR_PART_LIMIT_MM = 0.010, 1.0
# With less still, two of eight brains in PD that had sagged by 4 to 6 mm read no more than brains in their place.
HARDLY_ANY_NATS = 0.05
# Below these a shift of the brain, one with little or hardly any information, and a distortion may be missed. What says
# so, every verdict's reminder, findings and docs/verdict.md, takes them from here.
MISSED_SHIFT_MM, MISSED_IN_LITTLE_MM, MISSED_IN_HARDLY_ANY_MM, MISSED_DISTORTION_MM = 4, 4, 6, 2
# Coarser voxels along each axis, and limits raised so far by the noise, do not tell a distortion of 2 mm: of five pairs
# distorted by 1.7 to 2.1 mm all were told in voxels of 1 to 1.2 mm, one in 2.4 mm.
COARSEST_VOXEL_MM, LARGEST_LIMIT_MM = 1.75, 2.0


def air_ml(evidence: Evidence) -> float | None:
    """Return the volume of air inside the skull."""
    return None if evidence.inside is None else evidence.inside.air_ml


def defect_cm2(evidence: Evidence) -> float | None:
    """Return the area of missing bone of the vault, without burr holes."""
    return None if evidence.inside is None else evidence.inside.defect_cm2


def brain_shift_mm(evidence: Evidence) -> float | None:
    """Return the displacement of the brain against the skull, if it could be judged."""
    shift = evidence.brain_shift
    is_apart = _is_of_distortion(evidence) or (shift is not None and moved.is_part_alone(shift))
    return None if is_apart else _displaced_mm(evidence)


def _displaced_mm(evidence: Evidence) -> float | None:
    """Return the displacement of the brain from where the MRI shows it, if it could be judged."""
    shift = evidence.brain_shift
    return None if shift is None or _not_judged_because(evidence) else shift.p95_mm


def _is_of_distortion(evidence: Evidence) -> bool:
    """Return whether a displaced brain is explained by an MRI whose skull is distorted, too, or by its header.

    In a head that was opened, it is if the brain is not displaced by much more than the skull. An uncorrected MRI far
    from the isocentre is distorted by millimetres, which its skull may show less clearly than its brain. A stripped MRI
    has no skull to tell the two apart.
    """
    is_uncertain = is_stripped(evidence.skull) or (far_uncorrected_mm(evidence) or 0.0) > FAR_MM
    if is_uncertain and not surgery_shows(evidence):
        return True
    distorted, read = distortion_p95_mm(evidence), _displaced_mm(evidence)
    if distorted is None or distorted <= DISTORTION_LIMIT_MM * tolerance_of_distortion(evidence):
        return False
    return not surgery_shows(evidence) or (read is not None and read <= MUCH_MORE * distorted)


def part_displaced_mm(evidence: Evidence) -> float | None:
    """Return the displacement of the brain if it is certain and not said as a shift against the skull."""
    shift, read = evidence.brain_shift, _displaced_mm(evidence)
    if shift is None or read is None:
        return None
    if moved.is_part_alone(shift):
        return moved.part_moved_mm(shift)
    if _shift_is_said(evidence):
        return None
    if moved.has_moved_as_one(shift):
        return read
    usual = min(CERTAIN_GAIN_NATS, max(LITTLE_GAIN_NATS, CERTAIN_SHARE * shift.information_nats))
    enough = moved.LEAST_GAIN_LITTLE_NATS if shift.information_nats < moved.LITTLE_NATS else usual
    is_certain = shift.gain_nats >= enough and not moved.at_most_ventricles_changed(shift)
    return max(read if is_certain else 0.0, moved.part_moved_mm(shift))


def limit_of_part(evidence: Evidence) -> float:
    """Return the factor by which the limit of a certain displacement shrinks where its gain is clear."""
    shift = evidence.brain_shift
    is_clear = shift is not None and shift.gain_nats >= CLEAR_GAIN_NATS and shift.information_nats >= moved.LITTLE_NATS
    return CLEAR_PART_LIMIT_MM / PART_LIMIT_MM if is_clear else 1.0


def ventricles_changed_mm(evidence: Evidence) -> float | None:
    """Return how far the brain beside the ventricles has moved, if that is certain and not said otherwise."""
    away_mm, seen = ventricles_moved_mm(evidence), evidence.brain_shift
    if away_mm is None or seen is None:
        return None
    is_shown = seen.information_nats < moved.HIDING_NATS or seen.p95_mm >= moved.SEEN_BY_BLOCKS_MM
    is_said = _shift_is_said(evidence) or _part_is_said(evidence)
    is_said |= _is_of_distortion(evidence) and not moved.at_most_ventricles_changed(seen)
    return abs(away_mm) if is_shown and not is_said else 0.0


def ventricles_moved_mm(evidence: Evidence) -> float | None:
    """Return how far the brain has moved away from the ventricles: 0 if not certainly, ``None`` if not judged."""
    shift = evidence.brain_shift
    return None if shift is None or _not_comparable_because(evidence) else moved.away_from_ventricles_mm(shift)


def tolerance_of_ventricles(evidence: Evidence) -> float:
    """Return the factor by which their limit grows in coarse voxels: in 4 mm, a right phantom read 0.8 mm."""
    return 1.0 if evidence.distortion is None else max(1.0, evidence.distortion.voxel_mm / COARSE_MM)


def words_of_ventricles(evidence: Evidence) -> dict[str, str]:
    """Return whether the ventricles are wider or narrower, and the range of the displacement."""
    away_mm = ventricles_moved_mm(evidence) or 0.0
    return {"width": "wider" if away_mm > 0 else "narrower", "length": moved.range_of_ventricles(away_mm)}


def brain_shift_not_judged(evidence: Evidence) -> float | None:
    """Return 1 if a shift of the brain could not be judged, 2 if there are signs of one nevertheless, else 0.

    Signs are what surgery left, much time between the scans, and what is measured in a cone-beam CT or a brain hardly
    seen, unless tests of few degrees of freedom would see a shift. As bad: where they would not, and slabs without a
    closed skull, where nothing is compared (a brain displaced by 3.5 mm was green in four of four).
    """
    shift = evidence.brain_shift
    if shift is None:
        return None
    if not _not_judged_because(evidence):
        return 0.0
    measured = shift.p95_mm > SHIFT_LIMIT_MM
    if not _not_comparable_because(evidence):
        measured = (measured and not moved.at_most_ventricles_changed(shift)) or moved.may_hide_parts(shift)
    unseen = evidence.inside is None and shift.information_nats == 0
    return 1.0 + float(measured or unseen or surgery_shows(evidence) or long_apart(evidence))


def small_shift_not_judged(evidence: Evidence) -> float | None:
    """Return 1 if a large shift would have been seen, but not a small one, else 0.

    In PD, fluid and the tissue around it are equally bright: a small shift hardly shows in the images. Where so little
    is in common, 2 if there was much time for a change, or if not even a part moved by 4 mm would be seen.
    """
    shift = evidence.brain_shift
    if shift is None or _not_judged_because(evidence):
        return None
    is_hidden = shift.information_nats < moved.HIDING_NATS and not _is_said(evidence)
    is_hiding = (shift.information_nats < moved.LITTLE_NATS and long_apart(evidence)) or moved.may_hide_parts(shift)
    return float(is_hidden) * (1.0 + float(is_hiding))


def _is_said(evidence: Evidence) -> bool:
    """Return whether the verdict says that the brain, or a part of it, is displaced."""
    ventricles_mm = (ventricles_changed_mm(evidence) or 0.0) / tolerance_of_ventricles(evidence)
    return _shift_is_said(evidence) or _part_is_said(evidence) or ventricles_mm > moved.VENTRICLES_LIMIT_MM


def _shift_is_said(evidence: Evidence) -> bool:
    return (brain_shift_mm(evidence) or 0.0) > SHIFT_LIMIT_MM * less_after_surgery(evidence)


def _part_is_said(evidence: Evidence) -> bool:
    return (part_displaced_mm(evidence) or 0.0) > PART_LIMIT_MM * limit_of_part(evidence)


def _not_judged_because(evidence: Evidence) -> str:
    """Return why a shift of the brain could not be judged; empty if it was."""
    shift = evidence.brain_shift
    if shift is None:
        return ""
    if reason := _not_comparable_because(evidence):
        return reason
    if moved.has_moved_as_one(shift) or moved.part_moved_mm(shift):
        return ""
    if not shift.judged:
        return shift.reason or "too little is seen of it"
    is_noise = shift.p95_mm > SHIFT_LIMIT_MM * less_after_surgery(evidence) and moved.blocks_read_noise(shift)
    return "CT and MRI have too little contrast in common in the brain" if is_noise else ""


def _not_comparable_because(evidence: Evidence) -> str:
    """Return why what is measured on the two brains in this pose is no displacement; empty if it is one.

    A cone-beam CT shows hardly any brain: what is measured there may be its streaks and cupping.
    """
    if is_mirrored(evidence):  # the two halves of a brain differ by millimetres
        return "left and right seem to be exchanged in CT or MRI"
    if is_given_apart(evidence):  # what is displaced then is the whole head
        return "the pose given is not confirmed by a registration"
    if _is_far(evidence):
        return "the skulls of CT and MRI do not coincide in this pose"
    if _whole_head_is_off(evidence):
        return "the whole head is misaligned in this pose"
    acquisition = evidence.acquisition
    if acquisition is not None and acquisition.ct is not None and acquisition.ct.cone_beam:
        return "the CT is from a cone-beam scanner"
    return ""


def _whole_head_is_off(evidence: Evidence) -> bool:
    """Return whether most regions of the head are displaced alike, and the skull does not contradict that.

    In a CT cut to the vault nearly all regions are brain: one that had sagged displaced them by 1.1 mm.
    """
    local = evidence.local
    bias_mm = None if local is None or local.fit is None else local.fit.bias_mm
    return bias_mm is not None and bias_mm > WHOLE_HEAD_MM and skull_is_off(evidence)


def surgery_shows(evidence: Evidence, least_cm2: float = SHIFTING_DEFECT_CM2) -> bool:
    """Return whether there is enough air inside the skull, or enough bone missing, for the brain to have shifted."""
    inside = evidence.inside
    return inside is not None and (inside.air_ml >= SHIFTING_AIR_ML or inside.defect_cm2 >= least_cm2)


def not_shown_in_place(evidence: Evidence) -> float | None:
    """Return 1 if the images do not show that the brain lies in its place after surgery, else 0; ``None`` without.

    It is 0 also where more is known: that the brain or a part of it is displaced, or that this cannot be judged.
    """
    if not surgery_shows(evidence):
        return None
    shift = evidence.brain_shift
    if shift is None or _not_judged_because(evidence) or _is_said(evidence):
        return 0.0
    if not surgery_shows(evidence, SMALL_DEFECT_CM2) and shift.information_nats >= moved.HIDING_NATS:
        return 0.0
    is_in_place = shift.p95_mm < IN_PLACE_MM and shift.gain_nats < IN_PLACE_GAIN_NATS
    return float(not is_in_place or shift.information_nats < moved.LITTLE_NATS)


def less_after_surgery(evidence: Evidence) -> float:
    """Return the factor by which the limit of a brain shift shrinks after surgery."""
    return AFTER_SURGERY if surgery_shows(evidence) else 1.0


def brain_shift_words(evidence: Evidence) -> dict[str, str]:
    """Return range, place and reason of a brain shift, and the time there was for it."""
    shift = evidence.brain_shift
    if shift is None:
        return {}
    words = {
        "length": "–".join(dict.fromkeys((f"{shift.low_mm:.0f}", f"{shift.high_mm:.0f}"))),
        "place": shift.place,
        "direction": shift.direction,
        "reason": _not_judged_because(evidence),
        "least": str(MISSED_IN_HARDLY_ANY_MM if shift.information_nats < HARDLY_ANY_NATS else MISSED_IN_LITTLE_MM),
        "apart": f"; the scans are {abs(days_apart(evidence))} days apart" if long_apart(evidence) else "",
    }
    return words | moved.words_of_part(shift) if moved.is_part_alone(shift) else words


# --- scale and distortion ------------------------------------------------------------------------------------------


def scale_percent(evidence: Evidence) -> float | None:
    """Return what the scale of the worst axis is off by, as far as it is certain."""
    worst = _worst_axis(evidence)
    return None if worst is None or _is_far(evidence) or is_mirrored(evidence) else max(0.0, worst[2])


def scale_words(evidence: Evidence) -> Mapping[str, str]:
    """Return the axis that is off, by how much, and whether it is too long or too short in the MRI."""
    worst = _worst_axis(evidence)
    if worst is None:
        return {}
    axis, percent, _ = worst
    mri, ct = ("long", "short") if percent > 0 else ("short", "long")
    return {"axis": axis, "off": f"{abs(percent):.1f}", "mri": mri, "ct": ct}


def tolerance_of_scale(evidence: Evidence) -> float:
    """Return the factor by which the limit of the scale grows with the thickness of the slices, and uncertainty."""
    thick = 1 + THICK_SCALE_A_MM * max(0.0, _thickest_mm(evidence) - THIN_MM)
    return thick * _uncertainty_of_field(evidence)


def _uncertainty_of_field(evidence: Evidence) -> float:
    gain = None if evidence.distortion is None else evidence.distortion.gain_nats
    return UNCERTAIN_FIELD if gain is not None and gain < CERTAIN_FIELD_NATS else 1.0


def _worst_axis(evidence: Evidence) -> tuple[str, float, float] | None:
    """Return the axis whose scale is most certainly off: name, percentage, and what of it is certain.

    That is less by a standard deviation, and by what all axes have in common, up to a share of the voxels: partial
    volume at the skull makes it look larger or smaller as a whole.
    """
    if evidence.scale is None:
        return None
    axes = evidence.scale.axes
    percents = [percent for _, percent, _ in axes]
    alike = min(map(abs, percents)) if len({percent > 0 for percent in percents}) == 1 else 0.0
    alike = min(alike, ALIKE_PERCENT_A_MM * _thickest_mm(evidence))
    return max(((name, percent, abs(percent) - alike - sd) for name, percent, sd in axes), key=lambda axis: axis[2])


def _thickest_mm(evidence: Evidence) -> float:
    return 1.0 if evidence.found is None else evidence.found.thickest_voxel_mm


def distortion_p95_mm(evidence: Evidence) -> float | None:
    """Return the 95th percentile of the displacement of the skull that no rigid pose explains.

    The halves of a skull differ: of mirrored data, that is no distortion.
    """
    if evidence.distortion is None or _is_far(evidence) or is_mirrored(evidence):
        return None
    return evidence.distortion.p95_mm


def distortion_not_judged(evidence: Evidence) -> float | None:
    """Return 1 if a scale or distortion of about 2 mm would not be seen, else 0; ``None`` if none was looked for."""
    was_looked_for = evidence.local is not None or evidence.distortion is not None
    return float(bool(_distortion_not_judged_because(evidence))) if was_looked_for else None


def words_of_not_judged(evidence: Evidence) -> Mapping[str, str]:
    """Return why a scale or distortion would not be seen, and of which size."""
    return {"why": _distortion_not_judged_because(evidence), "missed": str(MISSED_DISTORTION_MM)}


def _distortion_not_judged_because(evidence: Evidence) -> str:
    distortion = evidence.distortion
    if distortion is None:
        if is_stripped(evidence.skull):
            return "the MRI shows no skull (skull-stripped)"
        return "too little of the skull is in view of both volumes, or it is too thin"
    if distortion.voxel_mm > COARSEST_VOXEL_MM:
        return f"the voxels of CT or MRI are {distortion.voxel_mm:.1f} mm or longer along each axis"
    if DISTORTION_LIMIT_MM * _noise_of_distortion(evidence) > LARGEST_LIMIT_MM:
        return "the skulls of CT and MRI could only be compared roughly"
    return ""


def tolerance_of_distortion(evidence: Evidence) -> float:
    """Return the factor by which the limit of the distortion grows with its own noise (thick slices), and uncertainty.

    It shrinks where the brain, which is measured apart from the skull, is displaced as well.
    """
    shift = _displaced_mm(evidence)
    agrees = shift is not None and shift > DISPLACED_BRAIN_MM and _thickest_mm(evidence) <= COARSE_MM
    return _noise_of_distortion(evidence) * _uncertainty_of_field(evidence) * (BOTH_DISPLACED if agrees else 1.0)


def _noise_of_distortion(evidence: Evidence) -> float:
    return 1.0 if evidence.distortion is None else max(1.0, evidence.distortion.noise_mm / USUAL_NOISE_MM)


def together(evidence: Evidence) -> float | None:
    """Return shift, scale and distortion as parts of their limits, the root of their squares; 0 if one is said alone.

    Each may be below its limit while all of them point to a displaced anatomy, as when a scale reads as some shift.
    """
    measured = [
        (brain_shift_mm(evidence), SHIFT_LIMIT_MM * less_after_surgery(evidence)),
        (scale_percent(evidence), SCALE_LIMIT_PERCENT * tolerance_of_scale(evidence)),
        (distortion_p95_mm(evidence), DISTORTION_LIMIT_MM * tolerance_of_distortion(evidence)),
    ]
    parts = [value / limit for value, limit in measured if value is not None]
    if not parts:
        return None
    return 0.0 if max(parts) > 1 else math.hypot(*parts)


def _is_far(evidence: Evidence) -> bool:
    return evidence.distortion is not None and evidence.distortion.pose_median_mm > POSE_TOO_FAR_MM
