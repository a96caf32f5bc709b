"""Comparison of a given pose with a registered one."""

from __future__ import annotations

import numpy as np

from BrainFusionLib.evidence import GivenPose, PoseEvidence
from BrainFusionLib.geometry import FloatArray
from BrainFusionLib.metrics.registration import target_registration_errors_mm
from BrainFusionLib.transform import RigidTransform

# Poses are compared at six points at this distance from the centre: about the surface of a head.
RADIUS_MM = 70.0

REFUSED = GivenPose(None, None, None)


def compared(
    given: RigidTransform, found: RigidTransform, evidence: PoseEvidence, centre_lps_mm: FloatArray
) -> GivenPose:
    """Return the distance between a given pose and a registered one, around a point of the MRI."""
    points = np.asarray(centre_lps_mm) + RADIUS_MM * np.concatenate([np.eye(3), -np.eye(3)])
    distances = target_registration_errors_mm(given, found, points)
    return GivenPose(evidence, float(distances.max()), float(np.sqrt((distances**2).mean())))
