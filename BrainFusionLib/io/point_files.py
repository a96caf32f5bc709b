"""Points of one image in a file: a point list or a line of 3D Slicer, or a table."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from BrainFusionLib.arguments import checked
from BrainFusionLib.errors import ImageFileError
from BrainFusionLib.geometry import FloatArray
from BrainFusionLib.io import landmark_files
from BrainFusionLib.io.reading import naming

COLUMNS = ("name", "x", "y", "z")
FORMATS = "a point list or a line of 3D Slicer (.mrk.json or .fcsv), or a table with the columns name, x, y, z (LPS mm)"


@dataclass(frozen=True, eq=False)
class NamedPoints:
    """Points with names, (n,) and (n, 3) LPS mm, in the order of the file."""

    names: tuple[str, ...]
    lps_mm: FloatArray

    def named(self, name: str) -> FloatArray | None:
        """Return the one point of a name, (3,); ``None`` if there is none, or several."""
        found = [n for n, own in enumerate(self.names) if own == name]
        return self.lps_mm[found[0]] if len(found) == 1 else None


@checked
def read_points(path: str | os.PathLike[str]) -> NamedPoints:
    """Read points of the MRI; those without a position are left out.

    Raises
    ------
    ImageFileError
        The file cannot be read, is damaged, does not say its frame, or has no point with a position.
    """
    path = Path(path)
    with naming(path):
        lists = (".json", ".fcsv")
        found = _from_list(path) if path.suffix.lower() in lists else _from_table(path)
    if not found:
        raise ImageFileError(f"{path}: has no point with a position. Give {FORMATS}.")
    names = tuple(name or str(n) for n, (name, _) in enumerate(found, 1))
    return NamedPoints(names, np.array([point for _, point in found], dtype=np.float64).reshape(-1, 3))


def _from_list(path: Path) -> list[tuple[str, tuple[float, float, float]]]:
    read = landmark_files.read_json if path.suffix.lower() == ".json" else landmark_files.read_fcsv
    return [(point.label, point.lps_mm) for point in read(path) if point.lps_mm is not None]


def _from_table(path: Path) -> list[tuple[str, tuple[float, float, float]]]:
    table = landmark_files.table_of(path, FORMATS)
    columns = [name.strip().lower() for name in table.columns]
    if any(columns.count(name) != 1 for name in COLUMNS):
        raise ImageFileError(f"{path}: points need the columns {', '.join(COLUMNS)}, each once. Give {FORMATS}.")
    found = []
    for line in table.lines:
        texts = [cell.strip() for cell in line.cells] + [""] * (len(columns) - len(line.cells))
        cells = dict(zip(columns, texts, strict=False))
        position = [cells[axis] for axis in "xyz"]
        if any(position):
            texts = [table.number_text(cell) for cell in position]
            x, y, z = (landmark_files.number_of(path, f"line {line.number}", text) for text in texts)
            found.append((cells["name"], (x, y, z)))
    return found
