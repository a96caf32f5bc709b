"""Rigid registration of a CT to an MRI of the same head, from any starting pose.

The search scores every translation at once for some hundred rotations. The best distinct candidates are optimised at
8 mm, then 4 mm, then 2 mm, where the choice among them is made; the winner is refined at 1 mm.
"""

from BrainFusionLib.registration.register import Registration, register

__all__ = ["Registration", "register"]
