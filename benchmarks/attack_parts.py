"""What the makers of inputs for `benchmarks.attack` share: the input itself, random positions and voxels."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from BrainFusionLib.geometry import FloatArray, rotation_matrix

Random = np.random.Generator
TYPES = ("u1", "i1", "u2", "i2", "u4", "i4", "u8", "i8", "f4", "f8")


@dataclass
class Input:
    """One input: files by name, which of them to read, and what must come out.

    Attributes
    ----------
    name
        Its format.
    files
        Content by name.
    entry
        The file to name to the reader; "." for the folder.
    voxels_kji, lps_from_ijk
        What a volume holds, or what a picture or a transform does in one of the two; ``None`` where nothing is known.
    options
        Further arguments for the reader.
    read, wanted
        The reader of what is not an image, a picture or a transform; and what it must return, ``None`` if unknown.
    """

    name: str
    files: dict[str, bytes]
    entry: str
    voxels_kji: npt.NDArray[Any] | None = None
    lps_from_ijk: FloatArray | None = None
    options: Mapping[str, Any] = field(default_factory=dict)
    read: Callable[[Path], object] | None = None
    wanted: object = None

    @property
    def is_known(self) -> bool:
        """Whether it is known what must come out, so that a refusal is wrong."""
        return self.voxels_kji is not None or self.lps_from_ijk is not None or self.wanted is not None


def geometry(random: Random) -> FloatArray:
    """Return voxel indices to LPS mm: any of the 48 orientations, half of them turned a little more."""
    axes = np.eye(3)[random.permutation(3)] * random.choice([-1, 1], 3)
    turn = rotation_matrix(random.uniform(0.1, 1, 3), random.uniform(-180, 180)) if random.random() < 0.5 else np.eye(3)
    matrix = np.eye(4)
    matrix[:3, :3] = turn @ axes * random.uniform(0.3, 4, 3)
    matrix[:3, 3] = random.uniform(-200, 200, 3)
    return matrix


def voxels_of(random: Random, kind: str | None = None) -> tuple[str, npt.NDArray[Any]]:
    """Return a type, any if none is given, and voxels of it."""
    kind = kind or TYPES[random.integers(len(TYPES))]
    shape = tuple(random.integers(2, 9, 3))
    values = random.integers(0 if kind[0] == "u" else -100, 100, shape)
    return kind, values.astype(kind)


def exact(numbers: npt.ArrayLike, separator: str = " ") -> str:
    """Return numbers as text that brings each of them back to the last bit."""
    return separator.join(repr(float(n)) for n in np.asarray(numbers).ravel())
