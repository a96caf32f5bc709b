"""Places and directions in words: "left front", "top".

Words are only given for what the points have in common: the mean of two places, one on each side, lies between them.
"""

from __future__ import annotations

import numpy as np

from BrainFusionLib.geometry import FloatArray

NAMES = (("right", "left"), ("front", "back"), ("bottom", "top"))
# From the top down to the sides: "top left front".
ORDER = (2, 0, 1)
# An axis with less than this share of the largest mean is left out.
LEAST_SHARE = 0.5
# Points of one displaced place scatter by up to 15 mm from side to side, those of one on each side by 27 mm and more.
BOTH_SIDES_MM = 20.0


def direction_in_words(vectors_lps: FloatArray) -> str:
    """Return the direction that vectors, (n, 3), LPS, have in common; empty if there is none."""
    return " ".join(NAMES[axis][int(mean > 0)] for axis, mean in _common(vectors_lps))


def place_in_words(offsets_lps_mm: FloatArray) -> str:
    """Return where points lie, (n, 3), LPS mm from the middle of the brain; "middle" if on no side of it."""
    found = {axis: NAMES[axis][int(mean > 0)] for axis, mean in _common(offsets_lps_mm)}
    if 0 not in found and float(offsets_lps_mm[:, 0].std()) > BOTH_SIDES_MM:
        found[0] = "left and right"
    return " ".join(found[axis] for axis in ORDER if axis in found) or "middle"


def _common(vectors_lps: FloatArray) -> list[tuple[int, float]]:
    """Return the axes along which the mean is large and beyond the scatter, with the mean."""
    mean, scatter = vectors_lps.mean(axis=0), vectors_lps.std(axis=0)
    size = np.abs(mean)
    least = np.maximum(scatter, max(LEAST_SHARE * float(size.max()), 1e-6))
    return [(axis, float(mean[axis])) for axis in ORDER if size[axis] > least[axis]]
