"""How good a registration is, each number with its formula's source."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from BrainFusionLib.geometry import FloatArray
from BrainFusionLib.transform import Transform


def target_registration_errors_mm(found: Transform, true: Transform, fixed_points_lps_mm: npt.ArrayLike) -> FloatArray:
    """Return how far each point lands from where it should, mm, shape (n,).

    Source: J. Fitzpatrick, J. West and C. Maurer, IEEE Trans. Medical Imaging 17 (1998) 694: the target registration
    error, here in the moving image's space (a rigid transform keeps distances, so the fixed one's gives the same).
    """
    errors: FloatArray = np.linalg.norm(found.apply(fixed_points_lps_mm) - true.apply(fixed_points_lps_mm), axis=-1)
    return errors
