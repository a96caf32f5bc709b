"""What the tests of few degrees of freedom (`verdict.modes`) tell for certain."""

from __future__ import annotations

from BrainFusionLib.evidence import BrainShift

# The test of the ventricles alone, mm at the brain's 95th percentile: what right pairs read, and the limit. A reading
# is certain from so many standard deviations on; in an MRI of noise these are .6 mm and more, in right pairs up to .31.
# The true 95th percentile is between so many times the reading in 9 of 10 cases.
USUAL_VENTRICLES_MM, VENTRICLES_LIMIT_MM, CERTAIN_SDS, MOST_SD_MM, VENTRICLES_RANGE = 0.1, 0.7, 3.0, 0.45, (0.9, 2.2)
# Where CT and MRI have enough in common, the matching of blocks sees such a change, too: 1.35 mm and more of 18 beyond
# 1.6 mm. White matter that is diseased around the ventricles imitates one (.9 mm and less by blocks).
SEEN_BY_BLOCKS_MM = 1.0
# The test of the brain as one: from this length and so many standard deviations on it confirms a displacement that
# gains little. Nine brains in PD that had sagged by 3 to 5 mm read 1.2 to 1.9 mm; right pairs up to .7, one 1.0.
AS_ONE_LIMIT_MM, AS_ONE_SDS = 1.0, 4.5


def away_from_ventricles_mm(shift: BrainShift) -> float | None:
    """Return how far the brain has moved away from the ventricles: 0 if not certainly, ``None`` if not measured."""
    if shift.ventricles_mm is None or shift.ventricles_sd_mm is None:
        return None
    moved, sd = shift.ventricles_mm - USUAL_VENTRICLES_MM, shift.ventricles_sd_mm
    return moved if sd <= MOST_SD_MM and abs(moved) > CERTAIN_SDS * sd else 0.0


def has_moved_as_one(shift: BrainShift) -> bool:
    """Return whether the brain as a whole has certainly moved."""
    if shift.whole_mm is None or shift.whole_sd_mm is None:
        return False
    return shift.whole_mm > max(AS_ONE_LIMIT_MM, AS_ONE_SDS * shift.whole_sd_mm)


def range_of_ventricles(moved_mm: float) -> str:
    """Return the range of the true displacement, mm, in words."""
    return "–".join(dict.fromkeys(f"{factor * abs(moved_mm):.0f}" for factor in VENTRICLES_RANGE))
