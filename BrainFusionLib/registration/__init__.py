"""Rigid registration of a CT to an MRI of the same head, from any starting pose.

Search (every translation at once for some hundred rotations) gives candidates; the best distinct ones climb at 8 mm,
then 4 mm, then 2 mm, and the choice among them is made there; the winner is refined at 1 mm.
"""

from BrainFusionLib.registration.register import Registration, register

__all__ = ["Registration", "register"]
