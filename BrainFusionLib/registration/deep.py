"""A third fit of the pose, to what lies deeper than the layer under the skull: what the inner fit's layer pulls at.

Where fluid is dark in the MRI, as in FLAIR and somewhat in a T1, fluid and bone are one dark band there, and two in the
CT. The inner fit gains where it moves the brain's surface towards the bone, and fluid lies unevenly, most at the front
and top: it was .2 to .9 mm off. Below that layer the CT shows fluid against brain where the MRI does. Two things are
against the fit to the deep alone: brain that has moved in the skull takes it along, and where CT and MRI have little in
common it is noise. Both scatter the eighths of the head: so the pose inside is the mean of both fits, by their
variances. Voxels of 2 mm of the CT have a third of the noise, and the deep has no thin bone that they would blur.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from BrainFusionLib.registration.histogram import Moving
from BrainFusionLib.registration.inner import INNER_MM, rising
from BrainFusionLib.registration.pyramid import PreparedHead

# Level of the CT's pyramid.
LEVEL = 1
# HU above the brain's median at the histogram's whole bins: grey and white matter, fluid and blood lie within 30 HU.
KNOTS_OVER_BRAIN_HU = (-236.0, -76.0, -41.0, -28.0, -18.0, -10.0, -2.0, 6.0, 19.0, 54.0, 214.0, 764.0)
# A fit of which the eighths scatter more is of a brain that has moved, or of noise. In three simulators it was .07 to
# .29 mm in most right pairs, and .31 to 1.2 mm in brains moved by 2 to 8 mm, which it followed by .6 to 2.6.
SCATTERED_MM = (0.2, 0.3)
# Two fits inside that are farther apart: fluid alone explains no more.
UNLIKE_MM = (0.6, 1.0)


def of_soft_tissue(ct: PreparedHead, brain_hu: float) -> Moving:
    """Return a CT's voxels of 2 mm in cells that are fine among soft tissues."""
    knots = np.asarray(KNOTS_OVER_BRAIN_HU) + brain_hu
    return replace(ct, levels=[ct.levels[LEVEL]], knots=knots).cells[0]


def deep_share(scatter_mm: float, apart_mm: float) -> float:
    """Return the weight of the deep fit in the pose inside the skull, 0 to 1.

    Parameters
    ----------
    scatter_mm
        Its scatter between the eighths of the head.
    apart_mm
        How far it is from the inner fit.
    """
    by_variance = INNER_MM**2 / (INNER_MM**2 + scatter_mm**2)
    return by_variance * (1 - rising(scatter_mm, *SCATTERED_MM)) * (1 - rising(apart_mm, *UNLIKE_MM))
