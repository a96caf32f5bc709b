"""Landmarks in files: a table with the points of both images, or two lists of points of 3D Slicer."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from BrainFusionLib.arguments import checked
from BrainFusionLib.errors import ImageFileError
from BrainFusionLib.io.reading import naming, open_regular
from BrainFusionLib.io.tables import SAVE_AS_UTF8, Table, parse_spreadsheet, split_csv
from BrainFusionLib.landmarks import Landmarks, Marked, pair_landmarks
from BrainFusionLib.printable import is_decoded

COLUMNS = ("name", "ct_x", "ct_y", "ct_z", "mri_x", "mri_y", "mri_z")
FORMATS = f"a table with the columns {', '.join(COLUMNS)} (LPS mm), or two point lists of 3D Slicer, the CT's and the "\
    "MRI's (.mrk.json or .fcsv)"  # fmt: skip
_LARGEST = 20_000_000
# Of the frames that Slicer writes: the signs of x, y and z in LPS.
_FRAMES = {"LPS": (1.0, 1.0, 1.0), "RAS": (-1.0, -1.0, 1.0)}
# Old files of the format fcsv number their frames.
_NUMBERED_FRAMES = {"0": "RAS", "1": "LPS"}
_DEFINED, _FCSV_DEFINED = "defined", "2"
_FCSV_COLUMNS = ("id", "x", "y", "z", "ow", "ox", "oy", "oz", "vis", "sel", "lock", "label", "desc",
                 "associatednodeid", "positionstatus")  # fmt: skip


@checked
def read_landmarks(paths: Sequence[str | os.PathLike[str]]) -> Landmarks:
    """Read the landmarks of a pair from one table, or from two point lists of 3D Slicer: the CT's, then the MRI's.

    Points of two lists are paired by their labels; without a common label, by their order. Points without a position or
    a partner are left out.

    Raises
    ------
    ImageFileError
        A file cannot be read, lacks a column, contains text in place of a number, does not say its frame, or the lists
        cannot be paired.
    GeometryError
        Fewer than two points are left.
    """
    files = [Path(path) for path in paths]
    if len(files) not in (1, 2):
        raise ImageFileError(f"landmarks are in one file or in two; got {len(files)}. Give {FORMATS}.")
    if len(files) == 1:
        with naming(files[0]):
            if _is_list(files[0]):
                raise ImageFileError(
                    f"{files[0]}: holds the points of one image only. Give two point lists, the CT's and the MRI's."
                )
            return _read_table(files[0])
    lists = []
    for path in files:
        with naming(path):
            if not _is_list(path):
                raise ImageFileError(
                    f"{path}: two files of landmarks must both be point lists of 3D Slicer (.mrk.json or .fcsv). Give "
                    f"{FORMATS}."
                )
            lists.append(read_json(path) if path.suffix.lower() == ".json" else read_fcsv(path))
    with naming(files[1]):
        return pair_landmarks(lists[0], lists[1], (files[0].name, "this file"))


def _is_list(path: Path) -> bool:
    return path.suffix.lower() in (".json", ".fcsv")


def _content(path: Path) -> bytes:
    with open_regular(path) as stream:
        content = stream.read(_LARGEST + 1)
    if len(content) > _LARGEST:
        raise ImageFileError(f"{path}: is not a file of landmarks. Give {FORMATS}.")
    return content


def _text(path: Path) -> str:
    content = _content(path)
    if b"\0" in content:
        raise ImageFileError(f"{path}: is not a file of landmarks. Give {FORMATS}.")
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise ImageFileError(f"{path}: is not UTF-8 text. Save it as UTF-8.") from error


def table_of(path: Path, wanted: str) -> Table:
    """Return a table of points as people's spreadsheets write it.

    Raises
    ------
    ImageFileError
        It is not a table, or too large; `wanted` is what the message asks for.
    """
    try:
        table = parse_spreadsheet(_content(path))
    except ValueError as error:
        raise ImageFileError(f"{path}: is not a table ({error}). Give {wanted}.") from error
    if not all(is_decoded(cell) for cells in (table.columns, *(line.cells for line in table.lines)) for cell in cells):
        raise ImageFileError(f"{path}: is not UTF-8: {SAVE_AS_UTF8}.")
    return table


def number_of(path: Path, where: str, text: object) -> float:
    """Return a coordinate.

    Raises
    ------
    ImageFileError
        It is not a finite number; the message says where in the file.
    """
    try:
        value = float(text) if isinstance(text, str | int | float) and not isinstance(text, bool) else math.nan
    except (ValueError, OverflowError):
        value = math.nan
    if not math.isfinite(value):
        raise ImageFileError(
            f"{path}: {where}: a coordinate must be a number in mm (with a decimal point); got {str(text)[:40]!r}. "
            "Correct it, or leave all coordinates of a point that was not placed empty."
        )
    return value


# --- the table -------------------------------------------------------------------------------------------------------


def _read_table(path: Path) -> Landmarks:
    table = table_of(path, FORMATS)
    columns = [name.strip().lower() for name in table.columns]
    missing = [name for name in COLUMNS if name not in columns]
    if missing or len(set(columns)) < len(columns):
        wrong = f"it lacks {', '.join(missing)}" if missing else "a column is there twice"
        raise ImageFileError(
            f"{path}: landmarks need the columns {', '.join(COLUMNS)}, each once; {wrong}. Add a first line with these "
            "names."
        )
    points: list[tuple[str, list[float]]] = []
    left_out = 0
    for line in table.lines:
        texts = [cell.strip() for cell in line.cells]
        if not any(texts):
            continue
        if len(texts) > len(columns):
            raise ImageFileError(
                f"{path}: line {line.number} has more cells than the table has columns. Write numbers with a decimal "
                "point, not a comma."
            )
        texts += [""] * (len(columns) - len(texts))
        cells = dict(zip(columns, texts, strict=True))
        halves = [[cells[f"{role}_{axis}"] for axis in "xyz"] for role in ("ct", "mri")]
        if not all(any(half) for half in halves):
            left_out += 1
            continue
        where = f"line {line.number}"
        numbers_text = [table.number_text(cell) for half in halves for cell in half]
        points.append((cells["name"], [number_of(path, where, text) for text in numbers_text]))
    numbers = np.array([row for _, row in points], dtype=np.float64).reshape(-1, 6)
    names = tuple(name or str(n) for n, (name, _) in enumerate(points, 1))
    return Landmarks(names, numbers[:, :3], numbers[:, 3:], left_out)


# --- point lists of 3D Slicer ----------------------------------------------------------------------------------------


def _signs(path: Path, frame: object) -> tuple[float, float, float]:
    signs = _FRAMES.get(frame) if isinstance(frame, str) else None
    if signs is None:
        said = "does not say" if frame is None else f"says {str(frame)[:20]!r}"
        raise ImageFileError(
            f"{path}: the coordinates of its points must be LPS or RAS, but the file {said}. Save the points again in "
            "3D Slicer."
        )
    return signs


def _placed(path: Path, where: str, position: Sequence[object], signs: tuple[float, float, float]) -> tuple[
    float, float, float
]:  # fmt: skip
    if len(position) != 3:
        raise ImageFileError(f"{path}: {where}: a position needs three numbers; got {len(position)}. Save it again.")
    x, y, z = (sign * number_of(path, where, value) for sign, value in zip(signs, position, strict=True))
    return x, y, z


def read_json(path: Path) -> list[Marked]:
    """Return the points of a list of 3D Slicer, ``.mrk.json``, LPS mm.

    Raises
    ------
    ImageFileError
        It is damaged, or does not say its frame.
    """
    try:
        content = json.loads(_text(path))
    except (ValueError, RecursionError) as error:
        raise ImageFileError(f"{path}: is not a valid JSON file ({error}). Save the points again.") from error
    lists = content.get("markups") if isinstance(content, dict) else None
    if not isinstance(lists, list) or len(lists) != 1 or not isinstance(lists[0], dict):
        raise ImageFileError(f"{path}: must hold one point list of 3D Slicer. Save one list of points as .mrk.json.")
    markup = lists[0]
    unit = markup.get("coordinateUnits", "mm")
    if (unit[0] if isinstance(unit, list) and unit else unit) != "mm":
        raise ImageFileError(f"{path}: the coordinates must be in mm, but the file says {str(unit)[:20]!r}.")
    frame = markup.get("coordinateSystem")
    signs = _signs(path, _NUMBERED_FRAMES.get(str(frame), frame))
    controls = markup.get("controlPoints", [])
    if not isinstance(controls, list) or not all(isinstance(point, dict) for point in controls):
        raise ImageFileError(f"{path}: its control points are damaged. Save the points again in 3D Slicer.")
    marked = []
    for n, point in enumerate(controls, 1):
        label, position = str(point.get("label", "")).strip(), point.get("position")
        if point.get("positionStatus", _DEFINED) != _DEFINED or position is None:
            marked.append(Marked(label, None))
            continue
        if not isinstance(position, list):
            raise ImageFileError(f"{path}: point {n}: its position must be a list of three numbers. Save it again.")
        marked.append(Marked(label, _placed(path, f"point {n}", position, signs)))
    return marked


def read_fcsv(path: Path) -> list[Marked]:
    """Return the points of a list of 3D Slicer, ``.fcsv``, as `read_json`."""
    lines = _text(path).splitlines()
    header: dict[str, str] = {}
    for line in lines:
        name, equals, value = line.lstrip("# ").partition("=")
        if line.startswith("#") and equals:
            header[name.strip().lower()] = value.strip()
    frame = header.get("coordinatesystem")
    signs = _signs(path, _NUMBERED_FRAMES.get(frame or "", frame))
    columns = [name.strip().lower() for name in header["columns"].split(",")] if "columns" in header else []
    columns += _FCSV_COLUMNS[len(columns) :]
    if any(axis not in columns for axis in "xyz"):
        raise ImageFileError(f"{path}: its columns must include x, y and z. Save the points again in 3D Slicer.")
    marked = []
    rows = "\n".join(line for line in lines if line.strip() and not line.startswith("#"))
    for n, row in enumerate(split_csv(rows), 1):
        cells: Mapping[str, str] = dict(zip(columns, (cell.strip() for cell in row.cells), strict=False))
        if (cells.get("positionstatus") or _FCSV_DEFINED) != _FCSV_DEFINED:
            marked.append(Marked(cells.get("label", ""), None))
            continue
        position = [cells.get(axis, "") for axis in "xyz"]
        marked.append(Marked(cells.get("label", ""), _placed(path, f"point {n}", position, signs)))
    return marked
