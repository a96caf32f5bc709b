"""Evidence as one row of a table, and back: every number, truth value and word of it, without its arrays.

Generic over the dataclasses, so that evidence added to `evidence.Evidence` gets its columns without a change here. What
the arrays are needed for cannot be rebuilt: criteria and expected error are to use scalars alone.
"""

from __future__ import annotations

import types
import typing
from collections.abc import Iterator, Mapping
from dataclasses import MISSING, Field, fields, is_dataclass
from functools import cache
from typing import Any, Literal, Union, get_args, get_origin

import numpy as np

from BrainFusionLib.evidence import Evidence
from BrainFusionLib.io.tables import Cell

# Longer tuples are left out, as arrays are.
MOST_VALUES = 4
# Smaller numbers are rounding errors.
LEAST = 1e-6
THERE = "1"


def short(value: object) -> Cell:
    """Return a value as it is written: numbers with four significant digits, truth values as 0 or 1."""
    if value is None:
        return ""
    if isinstance(value, bool | np.bool_):
        return int(value)
    if isinstance(value, int | np.integer):
        return int(value)
    if isinstance(value, float | np.floating):
        number = float(value)
        return "0" if abs(number) < LEAST else f"{number:.4g}"
    if isinstance(value, tuple):
        return " ".join(str(short(v)) for v in value)
    return str(value)


def columns(kind: type = Evidence, prefix: str = "") -> list[str]:
    """Return the columns of a dataclass: one a scalar, named by its dotted path, and one that says it is there."""
    names = []
    for field, wanted in _fields(kind):
        path = f"{prefix}{field.name}"
        if is_dataclass(wanted):
            names += [path, *columns(typing.cast(type, wanted), f"{path}.")]
        elif _is_scalar(wanted):
            names.append(path)
    return names


def row_of(value: Any, prefix: str = "") -> dict[str, Cell]:
    """Return the cells of a dataclass; those of what is ``None`` are left out."""
    row: dict[str, Cell] = {}
    for field, wanted in _fields(type(value)):
        path, part = f"{prefix}{field.name}", getattr(value, field.name)
        if part is None:
            continue
        if is_dataclass(wanted):
            row |= {path: THERE, **row_of(part, f"{path}.")}
        elif _is_scalar(wanted) and not (isinstance(part, tuple) and len(part) > MOST_VALUES):
            row[path] = short(part)
    return row


def evidence_of(row: Mapping[str, str]) -> Evidence:
    """Return the evidence of a row, its arrays empty. Columns that the row lacks have their default."""
    evidence = _rebuilt(Evidence, row, "")
    assert isinstance(evidence, Evidence)
    return evidence


def _rebuilt(kind: type, row: Mapping[str, str], prefix: str) -> object:
    values: dict[str, object] = {}
    for field, wanted in _fields(kind):
        path = f"{prefix}{field.name}"
        cell = row.get(path, "")
        if is_dataclass(wanted):
            values[field.name] = _rebuilt(typing.cast(type, wanted), row, f"{path}.") if cell == THERE else None
        elif cell != "" and _is_scalar(wanted):
            values[field.name] = _value(cell, wanted)
        elif wanted is not np.ndarray:
            values[field.name] = None if _is_optional(kind, field.name) else _default(field)
        elif field.default_factory is MISSING:
            values[field.name] = np.empty((0, 3))
    return kind(**values)


def _default(field: Field[Any]) -> object:
    if field.default is not MISSING:
        return field.default
    return float("nan") if field.default_factory is MISSING else field.default_factory()


def _value(cell: str, wanted: Any) -> object:
    if wanted is bool:
        return cell == "1"
    if wanted in (int, float):
        return wanted(float(cell))
    if get_origin(wanted) is tuple:
        kind = get_args(wanted)[0]
        return tuple(_value(part, kind) for part in cell.split(" "))
    return cell


@cache
def _hints(kind: type) -> dict[str, Any]:
    return typing.get_type_hints(kind)


def _fields(kind: type) -> Iterator[tuple[Field[Any], Any]]:
    """Yield each field that is given at construction, with its type where it is not ``None``."""
    for field in fields(kind):
        if field.init:
            yield field, _plain(_hints(kind)[field.name])


def _plain(hint: Any) -> Any:
    """Return a type without ``None``; arrays as `numpy.ndarray`."""
    if get_origin(hint) in (Union, types.UnionType):
        rest = [part for part in get_args(hint) if part is not type(None)]
        return _plain(rest[0]) if len(rest) == 1 else None
    return np.ndarray if get_origin(hint) is np.ndarray else hint


def _is_optional(kind: type, name: str) -> bool:
    hint = _hints(kind)[name]
    return get_origin(hint) in (Union, types.UnionType) and type(None) in get_args(hint)


def _is_scalar(wanted: Any) -> bool:
    if get_origin(wanted) is tuple:
        kinds = [kind for kind in get_args(wanted) if kind is not Ellipsis]
        return all(kind in (int, float, bool) for kind in kinds)
    return wanted in (bool, int, float, str) or get_origin(wanted) is Literal
