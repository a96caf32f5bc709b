"""The expected error of a pose, mm."""

from __future__ import annotations

import math

from BrainFusionLib.evidence import Evidence, PoseEvidence

# Error that more samples do not reduce, as a share of the longest voxel edge, for a whole head (docs/measured.md).
MODEL_ERROR = 0.03
# On simulated heads, 9 of 10 errors were between these multiples of the expected error (docs/verdict).
INTERVAL = (0.25, 2.0)


def expected_error_mm(evidence: Evidence) -> float | None:
    """Return the typical error over the head; ``None`` if no registration was run, or its pose was refused."""
    found, given = evidence.found, evidence.given
    if found is None:
        return None
    if given is None or given.typical_mm is None:
        return _of(found)
    return math.hypot(given.typical_mm, _of(found))


def interval_mm(evidence: Evidence) -> tuple[float, float] | None:
    """Return the range that contained 9 of 10 such errors on simulated heads."""
    found, given = evidence.found, evidence.given
    if found is None:
        return None
    high = INTERVAL[1] * _of(found)
    if given is None or given.typical_mm is None:
        return INTERVAL[0] * _of(found), high
    return max(0.0, given.typical_mm - high), given.typical_mm + high


def _of(found: PoseEvidence) -> float:
    return math.hypot(found.sampling_error_mm, MODEL_ERROR * found.thickest_voxel_mm * found.lever)
