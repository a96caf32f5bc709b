"""Joint histograms of samples and the moving image: their sizes, and what is counted.

Samples have `MRI_BINS` bins and the moving image `CT_BINS`, whichever of the two is the CT.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from BrainFusionLib.backend import Array, Backend
from BrainFusionLib.geometry import FloatArray
from BrainFusionLib.volume import VoxelArray

# One bin of margin below the CT's values and two above, for the cubic spline that smooths the histogram.
CT_BINS = 15
MRI_BINS = 20
FINENESS = 16  # cells per CT bin, in which samples are counted; the cells of a row fit into one byte
ROW = CT_BINS * FINENESS
CELLS = MRI_BINS * ROW


@dataclass(frozen=True)
class Samples:
    """Samples of the fixed head: `points` (3, n) float32, LPS mm from its centre; `rows` (n,) int32, bin * ROW.

    Both are arrays of the backend.
    """

    points: Array
    rows: Array
    backend: Backend

    def every(self, step: int, first: int) -> Samples:
        """Return every n-th sample, n being `step`: as evenly spread as all of them."""
        dense = self.backend.dense
        return Samples(dense(self.points[:, first::step]), dense(self.rows[first::step]), self.backend)

    def __len__(self) -> int:
        return int(self.points.shape[1])


@dataclass(frozen=True)
class Moving:
    """The moving image at one level: `cells` (K, J, I) uint8, of the backend, and the 4x4 affine ijk from LPS mm."""

    cells: Array
    ijk_from_lps: FloatArray


def spread(values: VoxelArray, bins: int, top: float) -> VoxelArray:
    """Return bins + 1 edges: the mean of equal ranks (most bins in noise) and equal widths (most bins in fat)."""
    share = np.linspace(0, 1, bins + 1)
    *ranks, low, high = np.quantile(values, [*share, 0.01, top]).astype(np.float64)
    edges: VoxelArray = ((np.asarray(ranks) + share * (high - low) + low) / 2).astype(np.float32)
    return edges
