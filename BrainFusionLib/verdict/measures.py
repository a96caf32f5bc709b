"""The measures that criteria judge: pure functions of the evidence.

``None`` says that the evidence is not there, or cannot tell.
"""

from __future__ import annotations

from BrainFusionLib.evidence import Evidence, LocalFit, PoseEvidence

# An MRI that is darker than this where the skull is has none: it was stripped.
STRIPPED = 0.1
# In a thin slab the skull is a ring, which lies on the dark band nearly as well a little above or below.
SKULL_THICKNESS_MM = 40.0
# For voxels longer than this the limits of what is measured in blocks of voxels grow with them.
LOCAL_VOXEL_MM = 3.0
# Data with left and right exchanged fitted better mirrored by 0.12 nats and more.
MIRRORED_MARGIN = -0.05
# Two phantoms of different people that are alike: 0.03 nats, 0.32 mm, 0.11 mm.
ALIKE_MARGIN, ALIKE_DISAGREEMENT_MM, ALIKE_SAMPLING_ERROR_MM = 0.06, 0.25, 0.1
# Two heads of different people fit each other about as well as they fit each other's mirror image, and roughly.
LEAST_MIRRORED_MARGIN, ROUGH_DISAGREEMENT_MM, ROUGH_SAMPLING_ERROR_MM = 0.015, 0.4, 0.15


def is_mirrored(evidence: Evidence) -> bool:
    """Say whether the data fit clearly better with left and right exchanged."""
    found = evidence.found
    return found is not None and found.mirrored_margin_nats < MIRRORED_MARGIN


def is_not_mirrored(evidence: Evidence) -> bool:
    """Say whether the scatter of the fit tells whose head it is: that of a mirrored one does not."""
    return not is_mirrored(evidence)


# --- a given pose --------------------------------------------------------------------------------------------------


def not_checked(evidence: Evidence) -> float:
    """Return 1 for a pose that was given and never compared with a registration, else 0."""
    return float(evidence.pose is None and evidence.given is None)


def check_refused(evidence: Evidence) -> float | None:
    """Return 1 where the registration that was to check a given pose was refused, else 0."""
    return None if evidence.given is None else float(evidence.given.apart_mm is None)


def apart_mm(evidence: Evidence) -> float | None:
    """Return how far a given pose is from the one that a registration found."""
    return None if evidence.given is None else evidence.given.apart_mm


# --- the registration ----------------------------------------------------------------------------------------------


def margin(evidence: Evidence) -> float | None:
    """Return the lead over the best pose elsewhere, nats."""
    return None if (found := evidence.found) is None else found.margin_nats


def agreement_mm(evidence: Evidence) -> float | None:
    """Return how far apart two refinements ended."""
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
    """Return the lead over the mirror image, nats, of a pair that fits only roughly and is not mirrored."""
    found = evidence.found
    if found is None or found.mirrored_margin_nats < 0 or not _fits_roughly(found):
        return None
    return found.mirrored_margin_nats


def mirrored_margin(evidence: Evidence) -> float | None:
    """Return the lead over the mirror image, nats."""
    return None if (found := evidence.found) is None else found.mirrored_margin_nats


def lead_over_mirrored(evidence: Evidence) -> float | None:
    """Return the lead over the mirror image, nats, where nothing worse is to be said of it."""
    alike = alike_margin(evidence)
    is_alike = alike is not None and alike < ALIKE_MARGIN
    return None if is_alike or is_mirrored(evidence) else mirrored_margin(evidence)


def signs_of_another_head(evidence: Evidence) -> float | None:
    """Count, of three, the signs that two heads are merely alike: no lead over the mirror image, and a rough fit."""
    found = evidence.found
    if found is None:
        return None
    signs = (
        found.mirrored_margin_nats < LEAST_MIRRORED_MARGIN,
        found.agreement_mm > ROUGH_DISAGREEMENT_MM,
        found.sampling_error_mm > ROUGH_SAMPLING_ERROR_MM,
    )
    return float(sum(signs))


def _fits_roughly(found: PoseEvidence) -> bool:
    return found.agreement_mm > ALIKE_DISAGREEMENT_MM and found.sampling_error_mm > ALIKE_SAMPLING_ERROR_MM


# --- the registered volumes ----------------------------------------------------------------------------------------


def coverage(evidence: Evidence) -> float | None:
    """Return the share of the MRI's head that the CT covers."""
    return evidence.coverage


def least_share(evidence: Evidence) -> float | None:
    """Return the share of regions that could be compared in the part of the head where it is least."""
    return None if (fit := _local(evidence)) is None else fit.least_share


def part_mm(evidence: Evidence) -> float | None:
    """Return the misalignment of the worst part of the head."""
    return None if (fit := _local(evidence)) is None else fit.part_mm


def local_median_mm(evidence: Evidence) -> float | None:
    """Return the median misalignment of the regions of the head."""
    return None if (fit := _local(evidence)) is None else fit.median_mm


def coarse_local_voxels(evidence: Evidence) -> float:
    """Return by how much limits grow with the voxels that local errors were measured on."""
    return 1.0 if (fit := _local(evidence)) is None else max(1.0, fit.voxel_mm / LOCAL_VOXEL_MM)


def skull_shift_mm(evidence: Evidence) -> float | None:
    """Return how far the CT's skull is from the MRI's dark band, where that is within reach."""
    skull = evidence.skull
    return None if skull is None or skull.at_edge or not _skull_tells(evidence) else skull.shift_mm


def skull_shift_at_least_mm(evidence: Evidence) -> float | None:
    """Return how far the CT's skull is at least from the MRI's dark band, where the end of the reach is nearest."""
    skull = evidence.skull
    return None if skull is None or not skull.at_edge or not _skull_tells(evidence) else skull.shift_mm


def coarse_skull_voxels(evidence: Evidence) -> float:
    """Return by how much limits grow with the voxels that the skull was measured on."""
    return 1.0 if evidence.skull is None else max(1.0, evidence.skull.voxel_mm / LOCAL_VOXEL_MM)


def _skull_tells(evidence: Evidence) -> bool:
    found = evidence.found
    is_slab = found is not None and found.thinnest_mm < SKULL_THICKNESS_MM
    return evidence.skull is not None and evidence.skull.brightness >= STRIPPED and not is_slab


def _local(evidence: Evidence) -> LocalFit | None:
    return None if evidence.local is None else evidence.local.fit
