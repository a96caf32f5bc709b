"""What surgery has left in the CT: air inside the skull, and holes in its vault."""

from __future__ import annotations

import numpy as np

from BrainFusionLib.evidence import Inside
from BrainFusionLib.intensity.inside import InsideSkull
from BrainFusionLib.intensity.openings import BURR_HOLE_CM2, air_ml, holes_cm2
from BrainFusionLib.transform import Transform


def inside_evidence(inside: InsideSkull | None, transform: Transform) -> Inside | None:
    """Measure air and holes; ``None`` if no skull is in view.

    Parameters
    ----------
    inside
        The inside of the skull in the CT.
    transform
        Maps MRI points to CT points, LPS mm: it tells which way is up in the CT.
    """
    if inside is None:
        return None
    up = transform.moving_from_fixed_lps[:3, 2]
    up = up / np.linalg.norm(up)
    holes = holes_cm2(inside, up)
    large = holes > BURR_HOLE_CM2
    return Inside(air_ml(inside, up), float(holes[large].sum()), int(np.count_nonzero(~large)))
