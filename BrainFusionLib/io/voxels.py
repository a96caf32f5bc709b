"""Voxels on their way into a file: their type, and the bytes behind a header, plain or compressed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from BrainFusionLib.io.deflate import compressor

_CHUNK = 1 << 20


def storable(array_kji: npt.NDArray[np.float32]) -> npt.NDArray[Any]:
    """Return the voxels as little-endian int16 if that loses nothing, else as little-endian float32."""
    if array_kji.min() >= -32768 and array_kji.max() <= 32767:  # false where there is a NaN
        whole = array_kji.astype("<i2")
        if np.array_equal(whole, array_kji):
            return whole
    return array_kji.astype("<f4", copy=False)


def write_plain(path: Path, header: bytes, voxels: npt.NDArray[Any]) -> None:
    """Write the header, then the voxels as they are."""
    with path.open("wb") as stream:
        stream.write(header)
        stream.write(voxels.data.cast("B"))


def write_gzipped(path: Path, plain: bytes, packed: bytes, voxels: npt.NDArray[Any]) -> None:
    """Write `plain` as it is, then `packed` and the voxels as one gzip stream, without a time stamp in it."""
    packing = compressor()
    data = voxels.data.cast("B")
    with path.open("wb") as stream:
        stream.write(plain)
        stream.write(packing.compress(packed))
        for start in range(0, len(data), _CHUNK):
            stream.write(packing.compress(data[start : start + _CHUNK]))
        stream.write(packing.flush())
