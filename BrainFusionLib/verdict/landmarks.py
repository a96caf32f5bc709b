"""Measures of the user's landmarks, and of a search near a start: pure functions of the evidence."""

from __future__ import annotations

import math
from collections.abc import Mapping

from BrainFusionLib.evidence import Evidence
from BrainFusionLib.landmarks import LEAST_FOR_START, MOST_CLICK_MM
from BrainFusionLib.quantities import bound_length
from BrainFusionLib.verdict.expected import bound_mm


def worst_landmark_mm(evidence: Evidence) -> float | None:
    """Return the largest residual of a landmark, if two clicks may explain it (beyond, `far_landmark_mm` tells).

    ``None`` without landmarks, or without a bound to compare it with.
    """
    fit = evidence.landmarks
    if fit is None or bound_mm(evidence) is None or fit.worst_mm > bound_with_clicks_mm(evidence):
        return None
    return fit.worst_mm


def words_of_bound(evidence: Evidence) -> Mapping[str, str]:
    """Return the bound as the verdict gives it, and what it and two clicks explain."""
    bound = bound_length(stated_bound_mm(evidence))
    return {"bound": bound, "clicks": f"{bound_with_clicks_mm(evidence):.1f} mm"}


def stated_bound_mm(evidence: Evidence) -> float:
    """Return the bound of the expected error; 1 if there is none."""
    bound = bound_mm(evidence)
    return 1.0 if bound is None else bound


def far_landmark_mm(evidence: Evidence) -> float | None:
    """Return the largest residual of a landmark; ``None`` without landmarks."""
    return None if evidence.landmarks is None else evidence.landmarks.worst_mm


def median_landmark_mm(evidence: Evidence) -> float | None:
    """Return the median residual; ``None`` with fewer than three landmarks, of which two may be misplaced."""
    fit = evidence.landmarks
    return None if fit is None or fit.count < LEAST_FOR_START else fit.median_mm


def bound_with_clicks_mm(evidence: Evidence) -> float:
    """Return the largest residual that the stated bound and the errors of two clicks explain."""
    return math.hypot(bound_mm(evidence) or 0.0, MOST_CLICK_MM)


# What a local search covers around its start.
LOCAL_RANGE_MM, LOCAL_RANGE_DEG = 20.0, 15.0


def searched_near_start(evidence: Evidence) -> float | None:
    """Return 1 if only poses near a start were searched; ``None`` after a global search."""
    found = evidence.pose
    return None if found is None or found.from_start_mm is None else 1.0


def share_of_local_range(evidence: Evidence) -> float | None:
    """Return how far a local search went, as a share of its range; ``None`` after a global search."""
    found = evidence.pose
    if found is None or found.from_start_mm is None or found.from_start_deg is None:
        return None
    return max(found.from_start_mm / LOCAL_RANGE_MM, found.from_start_deg / LOCAL_RANGE_DEG)


def words_of_local_range(evidence: Evidence) -> Mapping[str, str]:
    """Return the distance of a pose from the start of a local search, in words."""
    found = evidence.pose
    if found is None or found.from_start_mm is None or found.from_start_deg is None:
        return {}
    return {"mm": f"{found.from_start_mm:.0f}", "deg": f"{found.from_start_deg:.0f}"}
