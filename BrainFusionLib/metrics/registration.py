"""Accuracy of a registration, with the source of the formula."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from BrainFusionLib.geometry import FloatArray
from BrainFusionLib.transform import Transform


def target_registration_errors_mm(found: Transform, true: Transform, fixed_points_lps_mm: npt.ArrayLike) -> FloatArray:
    """Return the distance of each mapped point from its true position, mm, shape (n,).

    Source: J. Fitzpatrick, J. West and C. Maurer, IEEE Trans. Medical Imaging 17 (1998) 694: the target registration
    error, here in the moving image's space (with rigid transforms it is the same in the fixed image's space).
    """
    errors: FloatArray = np.linalg.norm(found.apply(fixed_points_lps_mm) - true.apply(fixed_points_lps_mm), axis=-1)
    return errors
