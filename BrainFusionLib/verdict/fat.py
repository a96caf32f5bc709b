"""What displaced fat explains.

A scanner shows the fat of scalp and marrow beside its place, by 3.4 mm at 3 T and 130 Hz a pixel, and with it the
borders of the dark skull band. The brain stays where it is, and the pose with it.
"""

from __future__ import annotations

from BrainFusionLib.evidence import Evidence
from BrainFusionLib.verdict import measures

# Where the fit inside the skull is this far from that of the whole head, fat is displaced: the regions of scalp and
# marrow are then off and the pose is not. All 20 simulated cases that were amber for a part alone were right to .7 mm.
# Of those further apart than the second all 43 of our simulation are wrong; in a sixth, with more fat, right ones are
# up to 3.7 mm apart, and the brain alone tells the two from each other.
DISPLACED_MM, MOST_DISPLACED_MM, FACTOR = 0.25, 2.0, 1.75
# A brain in its place reads no more. Poses 2.4 mm and more off read 3.2 and more, where CT and MRI have as much in
# common, and mirrored data 3.7.
IN_PLACE_MM = 2.0


def is_brain_in_place(evidence: Evidence) -> bool:
    """Return whether the brain alone shows that the pose is right, wherever skull and scalp seem to lie."""
    shift, local = evidence.brain_shift, evidence.local
    bias_mm = None if local is None or local.fit is None else local.fit.bias_mm
    if shift is None or bias_mm is None:
        return False
    is_seen = shift.judged and shift.information_nats >= measures.SAME_BRAIN_NATS
    return is_seen and shift.p95_mm <= IN_PLACE_MM and bias_mm <= measures.RIGHT_BIAS_MM


def is_brain_not_in_place(evidence: Evidence) -> bool:
    """Return whether the brain does not contradict that the pose is wrong."""
    return not is_brain_in_place(evidence)


def unexplained_apart_mm(evidence: Evidence) -> float | None:
    """Return the distance of the fit inside the skull from that of the whole head; 0 where fat explains it."""
    apart = measures.fits_apart_mm(evidence)
    return 0.0 if apart is not None and is_brain_in_place(evidence) else apart


def tolerance_of_parts(evidence: Evidence) -> float:
    """Return the factor by which the limit for a part grows: with its voxels, a skull that matches, displaced fat."""
    apart = measures.fits_apart_mm(evidence)
    usual = measures.tolerance_of_parts_without_fat(evidence)
    if apart is None or apart <= DISPLACED_MM or (apart > MOST_DISPLACED_MM and is_brain_not_in_place(evidence)):
        return usual
    return max(usual, measures.coarse_local_voxels(evidence) * FACTOR)
