"""What the inside of the skull in the CT tells: air, holes in the vault, and the misalignment of the brain alone."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from BrainFusionLib.evidence import Inside, LocalErrors
from BrainFusionLib.intensity.inside import InsideSkull
from BrainFusionLib.intensity.openings import BURR_HOLE_CM2, air_ml, holes_cm2, upright
from BrainFusionLib.transform import Transform

# A block of `local_errors` this deep shows nothing of the skull, and a part of the head is at least this many blocks.
BLOCK_DEPTH_MM, LEAST_BLOCKS = 11.0, 8


def errors_inside(local: LocalErrors, inside: InsideSkull, transform: Transform) -> LocalErrors:
    """Return the local misalignment of the brain alone, for a pose of the brain: skull and skin are misaligned.

    Parameters
    ----------
    local
        The local misalignment of the whole head.
    inside
        The inside of the skull in the CT.
    transform
        Maps MRI points to CT points, LPS mm.
    """
    deep = inside.depth_at(transform.apply(local.points_lps_mm)) > BLOCK_DEPTH_MM
    if local.fit is None or np.count_nonzero(deep) < LEAST_BLOCKS:
        return LocalErrors(local.spacing_mm)
    shifts = local.shifts_mm[deep]
    lengths, bias = np.linalg.norm(shifts, axis=1), float(np.linalg.norm(np.median(shifts, axis=0)))
    fit = replace(
        local.fit,
        median_mm=float(np.median(lengths)),
        part_mm=bias,
        high_mm=float(np.percentile(lengths, 90)),
        bias_mm=bias,
    )
    return LocalErrors(local.spacing_mm, local.points_lps_mm[deep], shifts, fit)


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
    up = upright(inside, transform.moving_from_fixed_lps[:3, 2], instead=(0, 0, 1))
    holes = holes_cm2(inside, *up)
    large = holes > BURR_HOLE_CM2
    return Inside(air_ml(inside, up[0]), float(holes[large].sum()), int(np.count_nonzero(~large)))
