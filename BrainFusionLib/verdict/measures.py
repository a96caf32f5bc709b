"""The measures of the criteria: pure functions of the evidence.

``None`` means that the evidence is missing or not conclusive.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import fields, is_dataclass

import numpy as np

from BrainFusionLib.evidence import Evidence, LocalFit, PoseEvidence, SkullFit

# An MRI darker than this at the skull was skull-stripped.
STRIPPED = 0.1
# One that is no brighter than this there shows no skull for certain: its edge is that of the brain, or of a mask. Of
# 1,000 simulated MRIs with a skull none is darker than .064; stripped ones of another simulator were .000 to .028.
NO_SKULL = 0.04
# Right poses had a band that was darker by .13 to .21; where bone is not the darkest (inverted contrast, T2 with bright
# bone edges) the "band" is .04 to .09 deep and says nothing.
LEAST_BAND_DEPTH = 0.1
# Under the CT's skull no MRI of 1,000 simulated ones, in right and in wrong poses, is brighter than .51 of its range;
# a CT in the place of the MRI has .79 and more, in any window. Where grey values are inverted, air is as bright.
BRIGHT_SKULL, BRIGHT_AIR = 0.65, 0.5
# A skull that matches this well, whatever the contrast, is not away from the MRI's skull.
MATCHED_SKULL_MM = 1.5
# With such a skull, what misaligns a part is jaw, neck or skin: its limit grows by this factor.
MATCHED_FACTOR = 1.5
# In a thin slab the skull is a ring, which matches the dark skull band nearly as well a little higher or lower.
SKULL_THICKNESS_MM = 40.0
# In this pose the skulls of CT and MRI do not coincide: none of 624 right simulated cases has more (docs/realism). With
# regions that are misaligned, too, less is enough: the right ones have up to 1.15 mm, two phantoms of two people 1.5.
SKULLS_APART_MM, APART_WITH_REGIONS_MM = 1.8, 1.4
# The skull's field is a translation uncertain by up to this, where fat, of scalp and marrow, is displaced and the inner
# table is as dark as fluid. It says nothing of a pose on which the regions of the head agree to this.
UNCERTAIN_SKULL_MM, AGREED_MM = 2.5, 0.3
# Where most regions of the head agree on the pose (`RIGHT_BIAS_MM`), a band that is dark elsewhere is the air around a
# cut field (slabs of 50 mm were red). None of 11 wrong simulated cases with such a band reads so (docs/realism).
AGREED_MEDIAN_MM, AGREED_SHARE = 1.0, 0.5
# For longer voxels, the limits of measures made in blocks of voxels grow in proportion.
LOCAL_VOXEL_MM = 3.0
# A given pose this far from a registered one is another pose; right ones were up to .5 mm away.
GIVEN_APART_MM = 1.0
# Data with exchanged left and right matched better when mirrored, by 0.12 nats or more.
MIRRORED_MARGIN = -0.05
# Two similar phantoms of different people had 0.03 nats, 0.32 mm, 0.11 mm.
ALIKE_MARGIN, ALIKE_DISAGREEMENT_MM, ALIKE_SAMPLING_ERROR_MM = 0.06, 0.25, 0.1
# Heads of different people match only roughly, and about as well as the mirror image.
LEAST_MIRRORED_MARGIN, ROUGH_DISAGREEMENT_MM, ROUGH_SAMPLING_ERROR_MM = 0.015, 0.4, 0.15
# Wrong pairs beat their mirror image by up to .14 nats (95th percentile). A right, distorted one with .21 was refused.
SAME_HEAD_MARGIN = 0.15
# Brain and skull of one head: after matching, of 64 pairs of two people the MRI's brain told at most .152 nats of the
# CT's, and the patches of the skulls scattered by .87 mm or more around a smooth field (docs/realism; phantoms of two
# people .16 nats and .74 mm); by .69 mm or more along all lines across the skull (17 pairs). Of 9 pairs of one head
# that were refused or red, mostly for being distorted, 8 had .23 nats or more, and .51 mm or less.
SAME_BRAIN_NATS, SAME_SKULL_MM = 0.2, 0.5
# A scatter beyond this was extrapolated along a direction in which the similarity is flat: no distance.
UNLIMITED_MM = 20.0
# All regions of a head that is distorted agree on its pose within this, if the pose is right.
RIGHT_BIAS_MM = 0.5


def not_numbers(evidence: object) -> float:
    """Return how many numbers of the evidence, or of a part of it, are NaN."""
    found = 0.0
    for field in fields(evidence) if is_dataclass(evidence) else ():
        value = getattr(evidence, field.name)
        if isinstance(value, float | np.ndarray):
            found += float(np.count_nonzero(np.isnan(value)))
        else:
            found += not_numbers(value)
    return found


def is_stripped(skull: SkullFit | None) -> bool:
    """Return whether the MRI shows no skull: what is around the brain was removed."""
    return skull is not None and skull.brightness < NO_SKULL


def is_mirrored(evidence: Evidence) -> bool:
    """Return whether the data match clearly better with left and right exchanged."""
    found = evidence.found
    return found is not None and found.mirrored_margin_nats < MIRRORED_MARGIN


def is_not_mirrored(evidence: Evidence) -> bool:
    """Return whether scatter can be taken as a sign of different heads: with mirrored data it cannot."""
    return not is_mirrored(evidence)


def is_same_head(evidence: Evidence) -> bool:
    """Return whether brain and skull in this pose are certainly those of one head, however distorted or scattered."""
    shift, skull = evidence.brain_shift, evidence.distortion
    return (
        shift is not None
        and skull is not None
        and shift.judged
        and shift.information_nats >= SAME_BRAIN_NATS
        and skull.scatter_mm <= SAME_SKULL_MM
    )


def is_not_same_head(evidence: Evidence) -> bool:
    """Return whether the images do not contradict that the pose is wrong, or that the heads are different."""
    return not is_same_head(evidence)


def may_be_another_head(evidence: Evidence) -> bool:
    """Return whether scatter may be a sign of different heads: not of mirrored data or one head for certain."""
    return is_not_mirrored(evidence) and is_not_same_head(evidence)


# --- a given pose --------------------------------------------------------------------------------------------------


def not_checked(evidence: Evidence) -> float:
    """Return 1 for a given pose that was not compared with a registration, else 0."""
    return float(evidence.pose is None and evidence.given is None)


def check_refused(evidence: Evidence) -> float | None:
    """Return 1 if the registration to check a given pose was refused, else 0."""
    return None if evidence.given is None else float(evidence.given.apart_mm is None)


def stretch_mm(evidence: Evidence) -> float | None:
    """Return how far a given transform stretches or shears the head."""
    return None if evidence.given is None else evidence.given.stretch_mm


def is_given_apart(evidence: Evidence) -> bool:
    """Return whether a given pose was checked, and is not the one that a registration finds."""
    given = evidence.given
    return given is not None and (given.apart_mm is None or given.apart_mm > GIVEN_APART_MM)


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


def words_of_scatter(evidence: Evidence) -> Mapping[str, str]:
    """Return how far other samples would move the pose, in words: what is extrapolated over metres is no distance."""
    scatter_mm = sampling_error_mm(evidence)
    is_known = scatter_mm is not None and scatter_mm <= UNLIMITED_MM
    return {"scatter": f"{scatter_mm:.2f} mm" if is_known else "an unknown distance"}


def thinnest_mm(evidence: Evidence) -> float | None:
    """Return the shortest edge of the two volumes."""
    return None if (found := evidence.found) is None else found.thinnest_mm


def alike_margin(evidence: Evidence) -> float | None:
    """Return the lead over the mirror image, nats, of a pair that matches only roughly and is not mirrored."""
    found = evidence.found
    if found is None or found.mirrored_margin_nats < 0 or not _fits_roughly(found) or is_same_head(evidence):
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
        f"hardly better than when mirrored (by {found.mirrored_margin_nats:z.2f} nats)": (
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


def not_compared(evidence: Evidence) -> float | None:
    """Return 1 if no region of the head could be compared, else 0; ``None`` if none was to be."""
    if evidence.local is None:
        return None
    fit = evidence.local.fit
    return float(fit is None or fit.share == 0)


def least_share(evidence: Evidence) -> float | None:
    """Return the share of regions that could be compared, in the part of the head with the smallest share."""
    return None if (fit := _local(evidence)) is None else fit.least_share


def part_mm(evidence: Evidence) -> float | None:
    """Return the misalignment of the worst part of the head."""
    return None if (fit := _local(evidence)) is None else fit.part_mm


def fits_apart_mm(evidence: Evidence) -> float | None:
    """Return the distance of the fit inside the skull from that of the whole head."""
    return None if evidence.found is None else evidence.found.inner_apart_mm


def local_median_mm(evidence: Evidence) -> float | None:
    """Return the median misalignment of the regions of the head."""
    return None if (fit := _local(evidence)) is None else fit.median_mm


def coarse_local_voxels(evidence: Evidence) -> float:
    """Return the factor by which limits grow with the voxel size of the local errors."""
    return 1.0 if (fit := _local(evidence)) is None else max(1.0, fit.voxel_mm / LOCAL_VOXEL_MM)


def tolerance_of_parts_without_fat(evidence: Evidence) -> float:
    """Return the same without regard to fat: two fits may differ because a pose is wrong, too, which is red."""
    matched = evidence.distortion is not None and evidence.distortion.pose_p95_mm < MATCHED_SKULL_MM
    return coarse_local_voxels(evidence) * (MATCHED_FACTOR if matched else 1.0)


def skull_is_off(evidence: Evidence) -> bool:
    """Return whether the skull, too, may be misaligned: local errors alone, in a poor image, make no red."""
    distortion = evidence.distortion
    return distortion is None or distortion.pose_median_mm > MATCHED_SKULL_MM


def pose_is_off(evidence: Evidence) -> bool:
    """Return whether a misaligned part may be due to the pose: not in one head whose regions agree on it as a whole.

    Then that part of the MRI is distorted.
    """
    fit = _local(evidence)
    agree = fit is not None and fit.bias_mm is not None and fit.bias_mm <= RIGHT_BIAS_MM
    return skull_is_off(evidence) and not (agree and is_same_head(evidence))


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


def skull_brightness(evidence: Evidence) -> float | None:
    """Return the MRI's mean signal under the CT's skull, as a share of its range, unless its air is bright as well."""
    skull = evidence.skull
    return None if skull is None or skull.air > BRIGHT_AIR else skull.brightness


def brain_not_aligned(evidence: Evidence) -> float | None:
    """Return 1 if the pose of the brain was requested and could not be determined, else 0."""
    return None if evidence.brain is None else float(not evidence.brain.is_used)


def brain_from_skull_mm(evidence: Evidence) -> float | None:
    """Return the largest distance between the poses of brain and skull, if the pose is that of the brain."""
    return evidence.brain.worst_mm if _is_of_brain(evidence) and evidence.brain is not None else None


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
    if matched is None:
        return not _regions_agree(evidence)
    return matched.pose_median_mm > MATCHED_SKULL_MM


def _regions_agree(evidence: Evidence) -> bool:
    if (fit := _local(evidence)) is None or fit.bias_mm is None:
        return False
    return fit.bias_mm <= RIGHT_BIAS_MM and fit.median_mm <= AGREED_MEDIAN_MM and fit.share >= AGREED_SHARE


def _is_of_brain(evidence: Evidence) -> bool:
    return evidence.brain is not None and evidence.brain.is_used


def skull_mismatch_mm(evidence: Evidence) -> float | None:
    """Return the median distance between the skull of the CT and that of the MRI, over the inside of the skull."""
    found = evidence.found
    is_slab = found is not None and found.thinnest_mm < SKULL_THICKNESS_MM
    return None if evidence.distortion is None or is_slab else evidence.distortion.pose_median_mm


def uncontradicted_mismatch_mm(evidence: Evidence) -> float | None:
    """Return the distance of the skulls, unless it is uncertain and the regions of head and brain contradict it."""
    apart, fit, found = skull_mismatch_mm(evidence), _local(evidence), evidence.found
    if apart is None or apart > UNCERTAIN_SKULL_MM or fit is None or fit.bias_mm is None or found is None:
        return apart
    if found.thickest_voxel_mm > LOCAL_VOXEL_MM:  # regions read too little across thick slices
        return apart
    inner = math.inf if found.inner_apart_mm is None else found.inner_apart_mm
    return None if fit.bias_mm < AGREED_MM and inner < 2 * AGREED_MM else apart


def regions_with_skull_mm(evidence: Evidence) -> float | None:
    """Return the misalignment of the regions where the skulls lie apart as well: 0 where they do not."""
    apart = skull_mismatch_mm(evidence)
    regions = local_median_mm(evidence)
    return None if apart is None or regions is None else regions * (apart > APART_WITH_REGIONS_MM)


def _local(evidence: Evidence) -> LocalFit | None:
    return None if evidence.local is None else evidence.local.fit
