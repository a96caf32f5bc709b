"""The error to be expected of a pose, mm."""

from __future__ import annotations

import math

from BrainFusionLib.evidence import Evidence, PoseEvidence

# What no number of samples removes, as a share of the thickest voxel edge, for a whole head (docs/measured.md).
MODEL_ERROR = 0.03
# Of 10 errors on simulated heads 9 were between these multiples of the expected one (docs/verdict).
INTERVAL = (0.25, 2.0)


def expected_error_mm(evidence: Evidence) -> float | None:
    """Return the typical error over the head; ``None`` where no registration was run, or it was refused."""
    found, given = evidence.found, evidence.given
    if found is None:
        return None
    if given is None or given.typical_mm is None:
        return _of(found)
    return math.hypot(given.typical_mm, _of(found))


def interval_mm(evidence: Evidence) -> tuple[float, float] | None:
    """Return the range in which 9 of 10 such errors were, on simulated heads."""
    found, given = evidence.found, evidence.given
    if found is None:
        return None
    high = INTERVAL[1] * _of(found)
    if given is None or given.typical_mm is None:
        return INTERVAL[0] * _of(found), high
    return max(0.0, given.typical_mm - high), given.typical_mm + high


def _of(found: PoseEvidence) -> float:
    return math.hypot(found.sampling_error_mm, MODEL_ERROR * found.thickest_voxel_mm * found.lever)
