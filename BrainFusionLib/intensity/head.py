"""The head in a CT, without table, head holder and frame."""

from __future__ import annotations

import weakref
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from BrainFusionLib.errors import ImageContentError
from BrainFusionLib.geometry import Grid
from BrainFusionLib.intensity.pieces import filled, largest
from BrainFusionLib.volume import BoolArray, Volume, VoxelArray

HEAD_THRESHOLD_HU = -300.0
# Tissue further than this from the bulk of the head, and connected by a thin bridge, is taken for table or holder.
REGROW_MM = 16.0
COARSE_MM = 4.0
# By the arrays of the CTs, while these live.
_known: dict[int, tuple[weakref.ref[VoxelArray], Grid, BoolArray]] = {}


def head_of(ct: Volume) -> BoolArray:
    """Return `ct_head_mask` of a CT whose voxels nobody changes: found once, for the work and for its pictures."""
    key = id(ct.array_kji)
    known = _known.get(key)
    if known is None or known[0]() is not ct.array_kji or not known[1].same_as(ct.grid):
        gone = weakref.ref(ct.array_kji, lambda _: _known.pop(key, None))
        known = _known[key] = gone, ct.grid, ct_head_mask(ct)
    return known[2]


def ct_head_mask(ct: Volume, margin_mm: float = 0.0) -> BoolArray:
    """Return a mask of the head, shape ``ct.grid.shape_kji``, bool; table, head holder and frame are left out.

    Everything above -300 HU is opened with a ball, which removes thin shells and the bridges between holder and skin;
    the largest piece is the head. Its thin parts (nose, ears, the front wall of a sinus) are recovered by growing
    `REGROW_MM` inside the tissue, and inner air is filled. This is done on a grid of about `COARSE_MM`, where it
    takes a fraction of a second, and the mask is then expanded to the CT's grid.

    Raises
    ------
    ImageContentError
        The volume contains only air.
    """
    factors = [max(1, round(COARSE_MM / s)) for s in ct.grid.spacing_ijk_mm]
    # The middle voxel represents each block: the first one would shift the mask by half a block.
    middles = (_block_middles(n, f) for n, f in zip(ct.grid.shape_kji, reversed(factors), strict=True))
    coarse = ct.array_kji[np.ix_(*middles)] > HEAD_THRESHOLD_HU
    if not coarse.any():
        raise ImageContentError(
            f"{ct.name}: no voxel is above {HEAD_THRESHOLD_HU:.0f} HU, so there is no head in this CT. "
            "Give a CT in Hounsfield units (air -1000, water 0)."
        )
    spacing_kji = [f * s for f, s in zip(factors, ct.grid.spacing_ijk_mm, strict=True)][::-1]
    radius = [max(1, round(6.0 / s)) for s in spacing_kji]
    opened = _dilated(_eroded(coarse, radius), radius) & coarse
    head = largest(opened if opened.any() else coarse)
    step = [max(1, round(4.0 / s)) for s in spacing_kji]
    for _ in range(round(REGROW_MM / 4.0)):
        head = _dilated(head, step) & coarse
    # Padded, so that the head can grow beyond the border; otherwise eroding it again would leave a rim there.
    padded = np.pad(head, [(r, r) for r in radius])
    inner = tuple(slice(r, -r) for r in radius)
    closed = _eroded(_dilated(padded, radius), radius)[inner]
    found = filled(closed)
    if margin_mm > 0:
        found = _dilated(found, [max(1, round(margin_mm / s)) for s in spacing_kji])
    for axis, factor in enumerate(reversed(factors)):
        found = np.repeat(found, factor, axis=axis)
    k, j, i = ct.grid.shape_kji
    return np.ascontiguousarray(found[:k, :j, :i])


def _dilated(mask: BoolArray, radius: Sequence[int]) -> BoolArray:
    """Dilate a mask by an ellipsoid; `radius` is in voxels along each axis.

    One shifted copy for each row of the ellipsoid: on these small grids a tenth of the time of ITK's filter.
    """
    reach = np.indices([2 * r + 1 for r in radius]).reshape(3, -1).T - np.asarray(radius)
    # Half a voxel more than the radius, so that a radius of one includes the diagonal neighbours in a plane.
    reach = reach[((reach / (np.asarray(radius) + 0.5)) ** 2).sum(axis=1) <= 1]
    wide = [mask]
    for half in range(1, radius[2] + 1):
        row = wide[-1].copy()
        _add_shifted(row, mask, (0, 0, half))
        _add_shifted(row, mask, (0, 0, -half))
        wide.append(row)
    grown = np.zeros_like(mask)
    for k, j in {(k, j) for k, j, _ in reach.tolist()}:
        half = int(reach[(reach[:, 0] == k) & (reach[:, 1] == j), 2].max())
        _add_shifted(grown, wide[half], (k, j, 0))
    return grown


def _add_shifted(grown: BoolArray, mask: BoolArray, offset: tuple[int, int, int]) -> None:
    target = tuple(slice(max(0, d), max(0, n + min(0, d))) for d, n in zip(offset, mask.shape, strict=True))
    source = tuple(slice(max(0, -d), max(0, n - max(0, d))) for d, n in zip(offset, mask.shape, strict=True))
    grown[target] |= mask[source]


def _eroded(mask: BoolArray, radius: Sequence[int]) -> BoolArray:
    """Erode a mask by an ellipsoid; outside the border counts as inside, so a head cut off there is kept."""
    return ~_dilated(~mask, radius)


def _block_middles(size: int, block: int) -> npt.NDArray[np.intp]:
    """Return the middle index of every block along an axis; the last block may be cut off."""
    return np.minimum(np.arange(0, size, block) + block // 2, size - 1)
