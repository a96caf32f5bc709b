"""What the tests of few degrees of freedom (`verdict.modes`, `verdict.parts`) tell for certain, and blocks do not."""

from __future__ import annotations

from BrainFusionLib.evidence import BrainShift

# With less information than the first, nats a voxel (PD, mostly), shifts of 2 mm are lost in the noise of the blocks:
# three of four with .02 to .11. With less than the second, small displacements may be lost.
LITTLE_NATS, HIDING_NATS = 0.12, 0.25
# What lets the MRI predict the CT better by less than this was matched to noise. Where little is in common, matching
# noise gains more: up to .0123 in right cases, of our simulation and of another, and shifts of 4 and 5 mm gained .005
# there. No such gain tells a displaced brain from one in its place.
LEAST_GAIN_NATS, LEAST_GAIN_LITTLE_NATS = 0.005, 0.013
# The test of the ventricles alone, mm at the brain's 95th percentile: what right pairs read, and the limit. A reading
# is certain from so many standard deviations on; in an MRI of noise these are .6 mm and more, in right pairs up to .31.
# The true 95th percentile is between so many times the reading in 9 of 10 cases.
USUAL_VENTRICLES_MM, VENTRICLES_LIMIT_MM, CERTAIN_SDS, MOST_SD_MM, VENTRICLES_RANGE = 0.1, 0.7, 3.0, 0.45, (0.9, 2.2)
# Where little is in common and the test of parts gains less than this, it is certain from so many on: of ventricles
# that changed none gains less and reads less than 7.8 standard deviations, 3 of 6 right pairs that read changed do.
DENIED_NATS, DENIED_SDS = 1.0, 6.0
# Where CT and MRI have enough in common, the matching of blocks sees such a change, too: 1.35 mm and more of 18 beyond
# 1.6 mm. White matter that is diseased around the ventricles imitates one (.9 mm and less by blocks).
SEEN_BY_BLOCKS_MM = 1.0
# The test of the brain as one: from this length and so many standard deviations on it confirms a displacement that
# gains little. Nine brains in PD that had sagged by 3 to 5 mm read 1.2 to 1.9 mm; right pairs up to .7, one 1.0.
AS_ONE_LIMIT_MM, AS_ONE_SDS = 1.0, 4.5
# The test of parts (`verdict.parts`): what a part that moved gains, and what one moved by 4 mm is to be expected to
# gain so that silence means something. Of 91 right pairs in PD 2 gain more, of one head. One is expected to gain less,
# and 14 of 90 wrong ones, since the MRI tells less of what has moved. The 99th percentile of the displacement over the
# brain is between so many times the reading in 9 of 10 cases.
CERTAIN_PART_NATS, SEEING_NATS, PART_RANGE = 18.0, 36.0, (0.65, 1.6)


def away_from_ventricles_mm(shift: BrainShift) -> float | None:
    """Return how far the brain has moved away from the ventricles: 0 if not certainly, ``None`` if not measured."""
    if shift.ventricles_mm is None or shift.ventricles_sd_mm is None:
        return None
    moved, sd = shift.ventricles_mm - USUAL_VENTRICLES_MM, shift.ventricles_sd_mm
    by_parts = shift.part_nats if shift.information_nats < HIDING_NATS else None
    sds = DENIED_SDS if by_parts is not None and by_parts < DENIED_NATS else CERTAIN_SDS
    return moved if sd <= MOST_SD_MM and abs(moved) > sds * sd else 0.0


def has_moved_as_one(shift: BrainShift) -> bool:
    """Return whether the brain as a whole has certainly moved."""
    if shift.whole_mm is None or shift.whole_sd_mm is None:
        return False
    return shift.whole_mm > max(AS_ONE_LIMIT_MM, AS_ONE_SDS * shift.whole_sd_mm)


def part_moved_mm(shift: BrainShift) -> float:
    """Return how far a part of the brain has moved, 0 if not certainly; ventricles that changed are no part."""
    if shift.part_nats is None or shift.part_mm is None or shift.information_nats >= HIDING_NATS:
        return 0.0
    if abs(away_from_ventricles_mm(shift) or 0.0) > VENTRICLES_LIMIT_MM:
        return 0.0
    return shift.part_mm if shift.part_nats >= CERTAIN_PART_NATS else 0.0


def may_hide_parts(shift: BrainShift) -> bool:
    """Return whether CT and MRI have so little in common that a part moved by 4 mm would not be seen."""
    if shift.part_power_nats is None or shift.information_nats >= HIDING_NATS:
        return False
    return shift.part_power_nats < SEEING_NATS


def at_most_ventricles_changed(shift: BrainShift) -> bool:
    """Return whether no part of the brain moved by 4 mm, nor the brain as one; ventricles have a test of their own."""
    if shift.part_nats is None or shift.ventricles_mm is None or may_hide_parts(shift):
        return False
    return shift.part_nats < CERTAIN_PART_NATS and not has_moved_as_one(shift)


def gains_little(shift: BrainShift) -> bool:
    """Return whether the matching of blocks gains no more than noise does."""
    return shift.gain_nats < (LEAST_GAIN_LITTLE_NATS if shift.information_nats < LITTLE_NATS else LEAST_GAIN_NATS)


def blocks_read_noise(shift: BrainShift) -> bool:
    """Return whether blocks gain no more than noise does, or the other tests tell of no displacement.

    Noise gained .010 to .018 nats in five right T1 pairs of a fifth simulator, of .03 to .13 in common, and read 3 to 5
    mm. Of 354 pairs with little in common, the other tests deny none of those that are displaced and gain more than
    noise, but for ventricles that changed, which are said apart.
    """
    return gains_little(shift) or at_most_ventricles_changed(shift)


def is_part_alone(shift: BrainShift) -> bool:
    """Return whether a part of the brain has moved, of which neither blocks nor the brain as one tell for certain."""
    return part_moved_mm(shift) > 0 and gains_little(shift) and not has_moved_as_one(shift)


def words_of_part(shift: BrainShift) -> dict[str, str]:
    """Return how far a part of the brain has moved and where it is; empty if none has."""
    moved_mm = part_moved_mm(shift)
    return {"length": _range(moved_mm, PART_RANGE), "place": shift.part_place} if moved_mm else {}


def range_of_ventricles(moved_mm: float) -> str:
    """Return the range of the true displacement, mm, in words."""
    return _range(moved_mm, VENTRICLES_RANGE)


def _range(moved_mm: float, factors: tuple[float, float]) -> str:
    return "–".join(dict.fromkeys(f"{factor * abs(moved_mm):.0f}" for factor in factors))
