"""Bins of values: as `numpy.searchsorted`, but faster where edges are few."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from BrainFusionLib.backend import on_cpu
from BrainFusionLib.volume import VoxelArray

# So many values are enough for quantiles.
ENOUGH = 50_000


def quantile_edges(values: VoxelArray, bins: int) -> npt.NDArray[np.float64]:
    """Return the edges between bins that hold equally many of some values, (bins - 1,)."""
    some = values[:: values.size // ENOUGH + 1]
    edges: npt.NDArray[np.float64] = np.quantile(some, np.linspace(0, 1, bins + 1)[1:-1]).astype(np.float64)
    return edges


def bins_of(values: VoxelArray, edges: npt.ArrayLike) -> npt.NDArray[np.int32]:
    """Return how many edges lie below each value, int32, same shape; edges of any precision, no NaN."""
    exact = np.asarray(edges, dtype=np.float64)
    # A float32 is above an edge exactly if it is above the last float32 that is not.
    below: VoxelArray = exact.astype(np.float32)
    below = np.where(below > exact, np.nextafter(below, np.float32(-np.inf)), below)
    found: npt.NDArray[np.int32] = on_cpu().bins(values, below)
    return found
