"""Connected pieces of masks, what they enclose, and distances to them.

In C (``pieces.c``) where the library is there; else by SimpleITK, which takes a quarter of a second to load.
"""

from __future__ import annotations

import ctypes
from functools import lru_cache
from typing import Any

import numpy as np
import numpy.typing as npt

from BrainFusionLib.device import simple_itk
from BrainFusionLib.geometry import FloatArray
from BrainFusionLib.native import load_compiled
from BrainFusionLib.volume import BoolArray

Labels = npt.NDArray[np.uint32]
NAMES = ("brainfusion_pieces", "brainfusion_distances")


def pieces(mask: BoolArray, *, corners: bool = False) -> tuple[Labels, int]:
    """Return the connected pieces of a mask, numbered from 1 by their first voxels, and how many there are.

    Parameters
    ----------
    mask
        (K, J, I).
    corners
        Whether voxels are connected by edges and corners, too, not by faces only.
    """
    compiled = _compiled()
    if compiled is None or mask.size >= 2**32 - 1:
        sitk = simple_itk()
        image = sitk.ConnectedComponent(sitk.GetImageFromArray(mask.astype(np.uint8)), corners)
        found: Labels = sitk.GetArrayFromImage(image).astype(np.uint32, copy=False)
        return found, int(found.max(initial=0))
    plain, labels = np.ascontiguousarray(mask, dtype=bool), np.empty(mask.shape, np.uint32)
    size = np.array(mask.shape, np.int64)
    count = compiled.brainfusion_pieces(plain.ctypes.data, size.ctypes.data, int(corners), labels.ctypes.data)
    return labels, int(count)


def by_size(mask: BoolArray) -> Labels:
    """Return the connected pieces of a mask, numbered from 1 by their size, the largest first; 0 outside."""
    labels, count = pieces(mask)
    order = np.argsort(-np.bincount(labels.ravel(), minlength=count + 1)[1:], kind="stable")
    numbers: Labels = np.zeros(count + 1, np.uint32)
    numbers[order + 1] = np.arange(1, count + 1)
    found: Labels = numbers[labels]
    return found


def largest(mask: BoolArray) -> BoolArray:
    """Return the largest connected piece of a mask; of several, the first."""
    labels, _ = pieces(mask)
    sizes = np.bincount(labels.ravel(), minlength=2)
    sizes[0] = 0
    found: BoolArray = mask & (labels == sizes.argmax())
    return found


def filled(mask: BoolArray) -> BoolArray:
    """Return a mask and what it encloses: whatever no way by faces of voxels leads to from the border."""
    labels, count = pieces(~mask)
    outside = np.zeros(count + 1, bool)
    for axis in range(3):
        for end in (0, -1):
            outside[labels.take(end, axis)] = True
    outside[0] = False
    found: BoolArray = ~outside[labels]
    return found


def distances(mask: BoolArray, spacing_kji_mm: FloatArray) -> FloatArray:
    """Return the distance of each voxel outside a mask from the nearest one in it, mm, and 0 or less inside."""
    compiled = _compiled()
    if compiled is None:
        sitk = simple_itk()
        image = sitk.GetImageFromArray(mask.astype(np.uint8))
        image.SetSpacing(spacing_kji_mm[::-1].tolist())
        found: FloatArray = sitk.GetArrayFromImage(sitk.SignedMaurerDistanceMap(image, False, False, True))
        return found.astype(np.float64)
    plain, squared = np.ascontiguousarray(mask, dtype=bool), np.empty(mask.shape)
    size, spacing = np.array(mask.shape, np.int64), np.ascontiguousarray(spacing_kji_mm, dtype=np.float64)
    line = np.empty(max(mask.shape))
    compiled.brainfusion_distances(
        plain.ctypes.data, size.ctypes.data, spacing.ctypes.data, line.ctypes.data, squared.ctypes.data
    )
    apart: FloatArray = np.sqrt(squared)
    return apart


@lru_cache(maxsize=1)
def _compiled() -> Any:
    """Return the library; ``None`` if it is not there."""
    library = load_compiled(NAMES)
    if library is None:
        return None
    pointer: Any = ctypes.c_void_p
    library.brainfusion_pieces.argtypes = [pointer, pointer, ctypes.c_int64, pointer]
    library.brainfusion_pieces.restype = ctypes.c_int64
    library.brainfusion_distances.argtypes, library.brainfusion_distances.restype = [pointer] * 5, None
    return library
