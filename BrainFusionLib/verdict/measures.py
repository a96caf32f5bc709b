"""The measures of the criteria: pure functions of the evidence.

``None`` means that the evidence is missing or not conclusive.
"""

from __future__ import annotations

from collections.abc import Mapping

from BrainFusionLib.evidence import Evidence, LocalFit, PoseEvidence

# An MRI darker than this at the skull was skull-stripped.
STRIPPED = 0.1
# Right poses had a band that was darker by .13 to .21; where bone is not the darkest (inverted contrast, T2 with bright
# bone edges) the "band" is .04 to .09 deep and says nothing.
LEAST_BAND_DEPTH = 0.1
# A skull that matches this well, whatever the contrast, is not away from the MRI's skull.
MATCHED_SKULL_MM = 1.5
# With such a skull, what misaligns a part is jaw, neck or skin: its limit grows by this factor.
MATCHED_FACTOR = 1.5
# In a pose this far off, scale and distortion cannot be told from the misalignment.
POSE_TOO_FAR_MM = 2.5
# Noise of the distortion that its limit allows for: 0.9 to 1.4 mm in most thin slices, up to 2.1 in slices of 6 mm.
USUAL_NOISE_MM = 1.35
# With a brain displaced by so much, less distortion of the skull is enough to tell it, in voxels not longer than these.
DISPLACED_BRAIN_MM, BOTH_DISPLACED, COARSE_MM = 1.4, 0.82, 2.0
# A scale common to all axes is uncertain by so much for each millimetre of the longest voxel edge. The limit of the
# scale grows by so much for each millimetre beyond thin slices: of 3 to 6 mm they read up to 1.4 % without any.
ALIKE_PERCENT_A_MM, THICK_SCALE_A_MM, THIN_MM = 0.5, 0.08, 1.25
# In a thin slab the skull is a ring, which matches the dark skull band nearly as well a little higher or lower.
SKULL_THICKNESS_MM = 40.0
# For longer voxels, the limits of measures made in blocks of voxels grow in proportion.
LOCAL_VOXEL_MM = 3.0
# Data with exchanged left and right matched better when mirrored, by 0.12 nats or more.
MIRRORED_MARGIN = -0.05
# Two similar phantoms of different people had 0.03 nats, 0.32 mm, 0.11 mm.
ALIKE_MARGIN, ALIKE_DISAGREEMENT_MM, ALIKE_SAMPLING_ERROR_MM = 0.06, 0.25, 0.1
# Less of either leaves the brain in its place.
SHIFTING_AIR_ML, SHIFTING_DEFECT_CM2 = 5.0, 4.0
AFTER_SURGERY = 0.8
# A displacement above this, measured where it cannot be judged, is a sign of one.
HINTED_SHIFT_MM = 2.8
# Heads of different people match only roughly, and about as well as the mirror image.
LEAST_MIRRORED_MARGIN, ROUGH_DISAGREEMENT_MM, ROUGH_SAMPLING_ERROR_MM = 0.015, 0.4, 0.15
# Wrong pairs beat their mirror image by up to .14 nats (95th percentile). A right, distorted one with .21 was refused.
SAME_HEAD_MARGIN = 0.15


def is_mirrored(evidence: Evidence) -> bool:
    """Return whether the data match clearly better with left and right exchanged."""
    found = evidence.found
    return found is not None and found.mirrored_margin_nats < MIRRORED_MARGIN


def is_not_mirrored(evidence: Evidence) -> bool:
    """Return whether scatter can be taken as a sign of different heads: with mirrored data it cannot."""
    return not is_mirrored(evidence)


# --- a given pose --------------------------------------------------------------------------------------------------


def not_checked(evidence: Evidence) -> float:
    """Return 1 for a given pose that was not compared with a registration, else 0."""
    return float(evidence.pose is None and evidence.given is None)


def check_refused(evidence: Evidence) -> float | None:
    """Return 1 if the registration to check a given pose was refused, else 0."""
    return None if evidence.given is None else float(evidence.given.apart_mm is None)


def apart_mm(evidence: Evidence) -> float | None:
    """Return the distance of a given pose from the registered one."""
    return None if evidence.given is None else evidence.given.apart_mm


# --- the registration ----------------------------------------------------------------------------------------------


def margin(evidence: Evidence) -> float | None:
    """Return the lead over the best distinct pose, nats."""
    return None if (found := evidence.found) is None else found.margin_nats


def agreement_mm(evidence: Evidence) -> float | None:
    """Return the distance between the results of two refinements."""
    return None if (found := evidence.found) is None else found.agreement_mm


def perturbed_margin(evidence: Evidence) -> float | None:
    """Return the lead over poses 2 mm away, normalised mutual information."""
    return None if (found := evidence.found) is None else found.perturbed_margin_nmi


def overlap(evidence: Evidence) -> float | None:
    """Return the share of the smaller head that lies inside the other volume."""
    return None if (found := evidence.found) is None else found.overlap


def sampling_error_mm(evidence: Evidence) -> float | None:
    """Return how far other samples would move the pose."""
    return None if (found := evidence.found) is None else found.sampling_error_mm


def thinnest_mm(evidence: Evidence) -> float | None:
    """Return the shortest edge of the two volumes."""
    return None if (found := evidence.found) is None else found.thinnest_mm


def alike_margin(evidence: Evidence) -> float | None:
    """Return the lead over the mirror image, nats, of a pair that matches only roughly and is not mirrored."""
    found = evidence.found
    if found is None or found.mirrored_margin_nats < 0 or not _fits_roughly(found):
        return None
    return found.mirrored_margin_nats


def mirrored_margin(evidence: Evidence) -> float | None:
    """Return the lead over the mirror image, nats."""
    return None if (found := evidence.found) is None else found.mirrored_margin_nats


def lead_over_mirrored(evidence: Evidence) -> float | None:
    """Return the lead over the mirror image, nats, unless a more severe criterion already covers it."""
    alike = alike_margin(evidence)
    is_alike = alike is not None and alike < ALIKE_MARGIN
    return None if is_alike or is_mirrored(evidence) else mirrored_margin(evidence)


def signs_of_another_head(evidence: Evidence) -> float | None:
    """Count three signs of different heads: no lead over the mirror image, disagreement, and scatter.

    None counts in a pair that beats its mirror image clearly: distortion has the other two signs as well.
    """
    found = evidence.found
    if found is None:
        return None
    return float(len(_signs(found))) if found.mirrored_margin_nats < SAME_HEAD_MARGIN else 0.0


def words_of_signs(evidence: Evidence) -> Mapping[str, str]:
    """Return the signs of different heads, in words."""
    found = evidence.found
    return {"signs": " and ".join(() if found is None else _signs(found))}


def _signs(found: PoseEvidence) -> tuple[str, ...]:
    signs = {
        f"hardly better than when mirrored (by {found.mirrored_margin_nats:.2f} nats)": (
            found.mirrored_margin_nats < LEAST_MIRRORED_MARGIN
        ),
        f"two refinements end {found.agreement_mm:.1f} mm apart": found.agreement_mm > ROUGH_DISAGREEMENT_MM,
        f"other samples move the pose by {found.sampling_error_mm:.2f} mm": (
            found.sampling_error_mm > ROUGH_SAMPLING_ERROR_MM
        ),
    }
    return tuple(words for words, is_so in signs.items() if is_so)


def _fits_roughly(found: PoseEvidence) -> bool:
    return found.agreement_mm > ALIKE_DISAGREEMENT_MM and found.sampling_error_mm > ALIKE_SAMPLING_ERROR_MM


# --- the registered volumes ----------------------------------------------------------------------------------------


def coverage(evidence: Evidence) -> float | None:
    """Return the share of the MRI's head that the CT covers."""
    return evidence.coverage


def least_share(evidence: Evidence) -> float | None:
    """Return the share of regions that could be compared, in the part of the head with the smallest share."""
    return None if (fit := _local(evidence)) is None else fit.least_share


def part_mm(evidence: Evidence) -> float | None:
    """Return the misalignment of the worst part of the head."""
    return None if (fit := _local(evidence)) is None else fit.part_mm


def local_median_mm(evidence: Evidence) -> float | None:
    """Return the median misalignment of the regions of the head."""
    return None if (fit := _local(evidence)) is None else fit.median_mm


def coarse_local_voxels(evidence: Evidence) -> float:
    """Return the factor by which limits grow with the voxel size of the local errors."""
    return 1.0 if (fit := _local(evidence)) is None else max(1.0, fit.voxel_mm / LOCAL_VOXEL_MM)


def tolerance_of_parts(evidence: Evidence) -> float:
    """Return the factor by which the limit for a part grows: with its voxels, and beside a skull that matches."""
    matched = evidence.distortion is not None and evidence.distortion.pose_p95_mm < MATCHED_SKULL_MM
    return coarse_local_voxels(evidence) * (MATCHED_FACTOR if matched else 1.0)


def skull_shift_mm(evidence: Evidence) -> float | None:
    """Return the distance of the CT's skull from the dark skull band, if it is within the search range."""
    skull = evidence.skull
    return None if skull is None or skull.at_edge or not _skull_is_usable(evidence) else skull.shift_mm


def skull_shift_at_least_mm(evidence: Evidence) -> float | None:
    """Return the least distance of the CT's skull from the dark skull band, if it is outside the search range."""
    skull = evidence.skull
    return None if skull is None or not skull.at_edge or not _skull_is_usable(evidence) else skull.shift_mm


def coarse_skull_voxels(evidence: Evidence) -> float:
    """Return the factor by which limits grow with the voxel size of the skull measurement."""
    return 1.0 if evidence.skull is None else max(1.0, evidence.skull.voxel_mm / LOCAL_VOXEL_MM)


def brain_not_aligned(evidence: Evidence) -> float | None:
    """Return 1 if the pose of the brain was requested and could not be determined, else 0."""
    return None if evidence.brain is None else float(not evidence.brain.is_used)


def brain_from_skull_mm(evidence: Evidence) -> float | None:
    """Return the largest distance between the poses of brain and skull, if the pose is that of the brain."""
    return evidence.brain.worst_mm if _is_of_brain(evidence) and evidence.brain is not None else None


def air_ml(evidence: Evidence) -> float | None:
    """Return the volume of air inside the skull."""
    return None if evidence.inside is None else evidence.inside.air_ml


def defect_cm2(evidence: Evidence) -> float | None:
    """Return the area of missing bone of the vault, without burr holes."""
    return None if evidence.inside is None else evidence.inside.defect_cm2


def brain_shift_mm(evidence: Evidence) -> float | None:
    """Return the displacement of the brain against the skull, if it could be judged."""
    shift = evidence.brain_shift
    return None if shift is None or _not_judged_because(evidence) else shift.p95_mm


def brain_shift_not_judged(evidence: Evidence) -> float | None:
    """Return 1 if a shift of the brain could not be judged, 2 if there are signs of one all the same, else 0.

    Signs are what surgery has left, and a displacement measured in images that do not suffice for it.
    """
    shift = evidence.brain_shift
    if shift is None:
        return None
    if not _not_judged_because(evidence):
        return 0.0
    return 1.0 + float(surgery_shows(evidence) or shift.p95_mm > HINTED_SHIFT_MM)


def _not_judged_because(evidence: Evidence) -> str:
    """Return why a shift of the brain could not be judged; empty if it was.

    A cone-beam CT shows hardly any brain: what is measured there may be its streaks and cupping.
    """
    shift = evidence.brain_shift
    if shift is None:
        return ""
    if not shift.judged:
        return shift.reason or "too little is seen of it"
    acquisition = evidence.acquisition
    is_cone = acquisition is not None and acquisition.ct is not None and acquisition.ct.cone_beam
    return "the CT is from a cone-beam scanner" if is_cone else ""


def surgery_shows(evidence: Evidence) -> bool:
    """Return whether there is enough air inside the skull, or enough bone missing, for the brain to have shifted."""
    inside = evidence.inside
    return inside is not None and (inside.air_ml >= SHIFTING_AIR_ML or inside.defect_cm2 >= SHIFTING_DEFECT_CM2)


def less_after_surgery(evidence: Evidence) -> float:
    """Return the factor by which the limit of a brain shift shrinks after surgery."""
    return AFTER_SURGERY if surgery_shows(evidence) else 1.0


def brain_shift_words(evidence: Evidence) -> dict[str, str]:
    """Return range, place and reason of a brain shift."""
    shift = evidence.brain_shift
    if shift is None:
        return {}
    return {
        "low": f"{shift.low_mm:.0f}",
        "high": f"{shift.high_mm:.0f}",
        "place": shift.place,
        "direction": shift.direction,
        "reason": _not_judged_because(evidence),
    }


def _skull_is_usable(evidence: Evidence) -> bool:
    found = evidence.found
    is_slab = found is not None and found.thinnest_mm < SKULL_THICKNESS_MM
    skull, matched = evidence.skull, evidence.distortion
    # In the pose of the brain, the skull lies where the brain has moved from.
    if (
        skull is None
        or skull.brightness < STRIPPED
        or skull.depth < LEAST_BAND_DEPTH
        or is_slab
        or _is_of_brain(evidence)
    ):
        return False
    return matched is None or matched.pose_median_mm > MATCHED_SKULL_MM


def _is_of_brain(evidence: Evidence) -> bool:
    return evidence.brain is not None and evidence.brain.is_used


def skull_mismatch_mm(evidence: Evidence) -> float | None:
    """Return the median distance between the skull of the CT and that of the MRI, over the inside of the skull."""
    found = evidence.found
    is_slab = found is not None and found.thinnest_mm < SKULL_THICKNESS_MM
    return None if evidence.distortion is None or is_slab else evidence.distortion.pose_median_mm


# --- scale and distortion ------------------------------------------------------------------------------------------


def scale_percent(evidence: Evidence) -> float | None:
    """Return what the scale of the worst axis is off by, as far as it is certain."""
    worst = _worst_axis(evidence)
    return None if worst is None or _is_far(evidence) else max(0.0, worst[2])


def scale_words(evidence: Evidence) -> Mapping[str, str]:
    """Return the axis that is off, by how much, and whether it is too long or too short in the MRI."""
    worst = _worst_axis(evidence)
    if worst is None:
        return {}
    axis, percent, _ = worst
    mri, ct = ("long", "short") if percent > 0 else ("short", "long")
    return {"axis": axis, "off": f"{abs(percent):.1f}", "mri": mri, "ct": ct}


def thick_scale(evidence: Evidence) -> float:
    """Return the factor by which the limit of the scale grows with the thickness of the slices."""
    return 1 + THICK_SCALE_A_MM * max(0.0, _thickest_mm(evidence) - THIN_MM)


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
    """Return the 95th percentile of the displacement of the skull that no rigid pose explains."""
    return None if evidence.distortion is None or _is_far(evidence) else evidence.distortion.p95_mm


def tolerance_of_distortion(evidence: Evidence) -> float:
    """Return the factor by which the limit of the distortion grows with its own noise (thick slices).

    It shrinks where the brain, which is measured apart from the skull, is displaced as well.
    """
    if evidence.distortion is None:
        return 1.0
    noise = max(1.0, evidence.distortion.noise_mm / USUAL_NOISE_MM)
    shift = brain_shift_mm(evidence)
    agrees = shift is not None and shift > DISPLACED_BRAIN_MM and _thickest_mm(evidence) <= COARSE_MM
    return noise * (BOTH_DISPLACED if agrees else 1.0)


def _is_far(evidence: Evidence) -> bool:
    return evidence.distortion is not None and evidence.distortion.pose_median_mm > POSE_TOO_FAR_MM


def _local(evidence: Evidence) -> LocalFit | None:
    return None if evidence.local is None else evidence.local.fit
