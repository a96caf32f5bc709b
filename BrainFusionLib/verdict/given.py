"""Comparison of a given pose with a registered one."""

from __future__ import annotations

import numpy as np

from BrainFusionLib.evidence import GivenPose, PoseEvidence
from BrainFusionLib.geometry import FloatArray
from BrainFusionLib.metrics.registration import target_registration_errors_mm
from BrainFusionLib.transform import RigidTransform, Transform

# Poses are compared at six points at this distance from the centre: about the surface of a head.
RADIUS_MM = 70.0

REFUSED = GivenPose(None, None, None)


def compared(given: Transform, found: RigidTransform, evidence: PoseEvidence, centre_lps_mm: FloatArray) -> GivenPose:
    """Return the distance between a given transform and a registered pose, around a point of the MRI."""
    points = np.asarray(centre_lps_mm) + RADIUS_MM * np.concatenate([np.eye(3), -np.eye(3)])
    rigid = given if isinstance(given, RigidTransform) else given.nearest_rigid(centre_lps_mm)
    apart, whole, stretch = (
        target_registration_errors_mm(*pair, points) for pair in ((rigid, found), (given, found), (given, rigid))
    )
    return GivenPose(evidence, float(apart.max()), float(np.sqrt((whole**2).mean())), float(stretch.max()))
