"""Whether a transform that somebody gave is right: what a registration of our own says to it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from BrainFusionLib.errors import RegistrationError
from BrainFusionLib.metrics import target_registration_errors_mm
from BrainFusionLib.progress import Cancel, Progress
from BrainFusionLib.registration.register import RegistrationResult, register
from BrainFusionLib.registration.similarity import TURN_RADIUS_MM
from BrainFusionLib.settings import RegistrationSettings
from BrainFusionLib.transform import RigidTransform
from BrainFusionLib.volume import Volume


@dataclass(frozen=True)
class GivenPose:
    """A given transform beside the pose that a registration found.

    Attributes
    ----------
    found
        What the registration found; ``None`` where it refused the pair.
    apart_mm
        How far apart the two are at the worst of six points around the head; ``None`` without a pose found.
    typical_mm
        Their root mean square.
    """

    found: RegistrationResult | None
    apart_mm: float | None
    typical_mm: float | None

    def to_dict(self) -> dict[str, Any]:
        """Return plain values, for JSON."""
        return {"registration_found_a_pose": self.found is not None, "apart_mm": self.apart_mm}


def check_given(
    ct: Volume,
    mri: Volume,
    transform: RigidTransform,
    settings: RegistrationSettings | None = None,
    *,
    device: str = "auto",
    progress: Progress | None = None,
    cancel: Cancel | None = None,
) -> GivenPose:
    """Register a pair, and say how far a given transform is from what comes out.

    The given transform is among the poses that the registration tries, so that it is only found wrong where another
    fits better.

    Raises
    ------
    ImageContentError, SettingsError, Cancelled
        As `register`.
    """
    try:
        found = register(ct, mri, settings, start=transform, device=device, progress=progress, cancel=cancel)
    except RegistrationError:
        return GivenPose(None, None, None)
    points = np.asarray(mri.grid.centre_lps_mm) + TURN_RADIUS_MM * np.concatenate([np.eye(3), -np.eye(3)])
    distances = target_registration_errors_mm(transform, found.transform, points)
    return GivenPose(found, float(distances.max()), float(np.sqrt((distances**2).mean())))
