"""The measures of the criteria that headers justify; ``None`` where the header does not say."""

from __future__ import annotations

import numpy as np

from BrainFusionLib.acquisition import MriAcquisition
from BrainFusionLib.evidence import Evidence
from BrainFusionLib.transform import RigidTransform

# Uncorrected MRI further than this from the isocentre may be distorted by more than a planner expects.
FAR_MM = 50.0
# Between two scans, a neck turns or bends a head by less than this against the trunk, by whose position the scanner
# names the sides.
MOST_TURNED_DEG = 60.0
# Ventricles, swelling and tumours change in weeks; what cannot be seen may have happened between scans this far apart.
LONG_APART_DAYS = 30


def turned_deg(transform: RigidTransform) -> float:
    """Return the largest angle between an axis of the body by the MRI's header and the same axis by the CT's."""
    return float(np.degrees(np.arccos(np.clip(np.diag(transform.rotation).min(), -1, 1))))


def turned_between_headers_deg(evidence: Evidence) -> float | None:
    """Return the angle by which the head is turned between the headers."""
    return evidence.turned_deg


def sides_assumed(evidence: Evidence) -> float | None:
    """Return 1 if neither header gives an orientation, else 0; one of them is enough, since a mirrored pair is red."""
    return None if evidence.sides_assumed is None else float(evidence.sides_assumed)


def echo_planar(evidence: Evidence) -> float | None:
    """Return 1 for an echo-planar MRI, else 0."""
    mri = _mri(evidence)
    return None if mri is None or mri.echo_planar is None else float(mri.echo_planar)


def far_uncorrected_mm(evidence: Evidence) -> float | None:
    """Return the distance from the isocentre of an MRI that was not corrected for gradient distortion."""
    mri = _mri(evidence)
    return mri.isocentre_mm if mri is not None and mri.distortion_correction == "none" else None


def uncorrected(evidence: Evidence) -> float | None:
    """Return 1 for an uncorrected MRI near the isocentre, or at an unknown distance; 0 for others."""
    mri = _mri(evidence)
    if mri is None or mri.distortion_correction is None:
        return None
    return float(mri.distortion_correction == "none" and (mri.isocentre_mm or 0.0) <= FAR_MM)


def corrected_in_plane(evidence: Evidence) -> float | None:
    """Return 1 for an MRI corrected in the slice plane only, else 0."""
    mri = _mri(evidence)
    return None if mri is None or mri.distortion_correction is None else float(mri.distortion_correction == "2D")


def cone_beam(evidence: Evidence) -> float | None:
    """Return 1 for a CT from a cone-beam scanner, else 0."""
    ct = None if evidence.acquisition is None else evidence.acquisition.ct
    return None if ct is None or ct.cone_beam is None else float(ct.cone_beam)


def long_apart(evidence: Evidence) -> bool:
    """Return whether the headers say that so much time lies between the scans that the brain may have changed."""
    return abs(days_apart(evidence)) > LONG_APART_DAYS


def days_apart(evidence: Evidence) -> int:
    """Return the days from one scan to the other by the headers, 0 if they do not tell."""
    acquisition = evidence.acquisition
    return 0 if acquisition is None or acquisition.days_apart is None else acquisition.days_apart


def _mri(evidence: Evidence) -> MriAcquisition | None:
    return None if evidence.acquisition is None else evidence.acquisition.mri
