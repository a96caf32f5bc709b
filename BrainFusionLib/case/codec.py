"""Frozen dataclasses to plain values for JSON, and back, without loss.

This codec serves ``result.json``, the worker's protocol, the cohort's seal and the command's JSON. It is generic: the
types of the fields determine how they are written and read. It is strict: a missing or unknown field is an error that
names the field.
"""

from __future__ import annotations

import functools
import math
import sys
import types
import typing
from collections.abc import Mapping, MutableMapping
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any, Literal, TypeAlias, TypeVar, Union, get_args, get_origin

import numpy as np

from BrainFusionLib.errors import BrainFusionError, RecordError
from BrainFusionLib.values import same
from BrainFusionLib.volume import Volume, VoxelArray

# Increased with every change of the format; documents of other versions are rejected.
SCHEMA_VERSION = 6
VERSION_KEY = "schema_version"

Plain: TypeAlias = "bool | int | float | str | list[Plain] | dict[str, Plain] | None"
T = TypeVar("T")

# JSON has no notation for these.
_LARGEST = sys.float_info.max
_NOT_FINITE = {"NaN": math.nan, "Infinity": math.inf, "-Infinity": -math.inf}
# Key for the name of the class written, where the type is a union of classes.
_KIND = "class"


def to_document(value: Any, voxels: MutableMapping[str, VoxelArray] | None = None) -> dict[str, Plain]:
    """Return `to_plain` of a dataclass together with the schema version, for a file or another process."""
    plain = to_plain(value, voxels)
    assert isinstance(plain, dict)
    return {VERSION_KEY: SCHEMA_VERSION, **plain}


def from_document(document: object, kind: type[T], voxels: Mapping[str, VoxelArray] | None = None) -> T:
    """Return the value that `to_document` converted.

    Raises
    ------
    RecordError
        The document has another schema version, or `from_plain` rejects it.
    """
    if not isinstance(document, dict):
        raise RecordError(f"{kind.__name__}: must be a JSON object; got {_shown(document)}")
    found = document.get(VERSION_KEY)
    if found != SCHEMA_VERSION:
        raise RecordError(
            f"{kind.__name__}: written with schema version {_shown(found)}, but this version of BrainFusion reads "
            f"version {SCHEMA_VERSION}. Run the case again with this version."
        )
    return from_plain({key: value for key, value in document.items() if key != VERSION_KEY}, kind, voxels)


def to_plain(value: Any, voxels: MutableMapping[str, VoxelArray] | None = None) -> Plain:
    """Convert a value to lists, dictionaries, text, numbers and ``None``.

    Parameters
    ----------
    value
        A dataclass whose fields are dataclasses, numbers, text, paths, tuples, dictionaries with text as keys,
        float64 arrays and volumes.
    voxels
        Receives the voxels of volumes, each under the dotted path of its field (``"volumes.fused"``); the plain value
        contains this path instead of the voxels.

    Raises
    ------
    RecordError
        The value contains a volume but `voxels` is ``None``, or a type that is not supported; the message names the
        field.
    """
    return _encoded(value, type(value), "", voxels)


def from_plain(plain: object, kind: type[T], voxels: Mapping[str, VoxelArray] | None = None) -> T:
    """Convert the output of `to_plain` back to a value of class `kind`, equal to the original.

    Raises
    ------
    RecordError
        A field is missing, unknown or of the wrong type; the message names it by its dotted path.
    """
    value: T = _decoded(plain, kind, kind.__name__, "", voxels)
    return value


def _encoded(value: Any, kind: Any, path: str, voxels: MutableMapping[str, VoxelArray] | None) -> Plain:
    if isinstance(value, Volume):
        if voxels is None:
            raise RecordError(f"{path or 'Volume'}: its voxels cannot be written: no mapping was given for them")
        key = path or "volume"
        voxels[key] = value.array_kji
        header = {f.name: getattr(value, f.name) for f in fields(value) if f.name != "array_kji"}
        hints = _types_of(Volume)
        return {"voxels": key, **{n: _encoded(v, hints[n], _below(path, n), voxels) for n, v in header.items()}}
    if is_dataclass(value) and not isinstance(value, type):
        hints = _types_of(type(value))
        plain: dict[str, Plain] = {_KIND: type(value).__name__} if _is_choice_of_classes(kind) else {}
        for field in fields(value):
            if field.init:
                name = field.name
                plain[name] = _encoded(getattr(value, name), hints[name], _below(path, name), voxels)
        return plain
    if isinstance(value, bool | str) or value is None:
        return value
    if isinstance(value, int | np.integer):
        return int(value)
    if isinstance(value, float | np.floating):
        number = float(value)
        return number if math.isfinite(number) else "NaN" if number != number else f"{'-' * (number < 0)}Infinity"
    if isinstance(value, Path):
        return str(value)
    if isinstance(value, np.ndarray):
        if value.dtype == np.float64 and value.ndim and np.isfinite(value).all():
            numbers: list[Plain] = value.tolist()
            return numbers
        return _encoded(tuple(value.tolist()) if value.ndim else value.item(), tuple, path, voxels)
    if isinstance(value, tuple | list):
        return [_encoded(item, Any, f"{path}[{n}]", voxels) for n, item in enumerate(value)]
    if isinstance(value, Mapping):
        return {str(key): _encoded(item, Any, _below(path, str(key)), voxels) for key, item in value.items()}
    raise RecordError(f"{path}: values of type {type(value).__name__} cannot be written")


def _decoded(plain: Any, kind: Any, owner: str, path: str, voxels: Mapping[str, VoxelArray] | None) -> Any:
    origin, arguments = get_origin(kind), get_args(kind)
    if origin in (Union, types.UnionType):
        return _decoded_choice(plain, arguments, owner, path, voxels)
    if kind is Volume:
        return _decoded_volume(plain, owner, path, voxels)
    if isinstance(kind, type) and is_dataclass(kind):
        return _decoded_dataclass(plain, kind, owner, path, voxels)
    if origin is Literal:
        if plain in arguments:
            return plain
    elif kind is float:
        if isinstance(plain, str) and plain in _NOT_FINITE:
            return _NOT_FINITE[plain]
        if isinstance(plain, int | float) and not isinstance(plain, bool) and not abs(plain) > _LARGEST:
            return float(plain)
    elif kind is Path:
        if isinstance(plain, str):
            return Path(plain)
    elif kind in (int, str, bool):
        if type(plain) is kind:
            return plain
    elif kind is type(None):
        if plain is None:
            return None
    elif origin is tuple and isinstance(plain, list):
        kinds = arguments[:1] * len(plain) if arguments[1:] == (...,) else arguments
        if len(kinds) == len(plain):
            pairs = enumerate(zip(plain, kinds, strict=True))
            return tuple(_decoded(item, of, owner, f"{path}[{n}]", voxels) for n, (item, of) in pairs)
    elif origin is dict and isinstance(plain, dict):
        return {key: _decoded(item, arguments[1], owner, _below(path, key), voxels) for key, item in plain.items()}
    elif origin is np.ndarray and isinstance(plain, list):
        return _decoded_array(plain, owner, path)
    raise RecordError(f"{_named(owner, path)}: must be {_wanted(kind)}; got {_shown(plain)}")


def _decoded_choice(
    plain: Any, kinds: tuple[Any, ...], owner: str, path: str, voxels: Mapping[str, VoxelArray] | None
) -> Any:
    if plain is None and type(None) in kinds:
        return None
    kinds = tuple(kind for kind in kinds if kind is not type(None))
    if len(kinds) == 1:
        return _decoded(plain, kinds[0], owner, path, voxels)
    classes = {kind.__name__: kind for kind in kinds if isinstance(kind, type) and is_dataclass(kind)}
    if classes:
        name = plain.get(_KIND) if isinstance(plain, dict) else None
        if name not in classes:
            raise RecordError(f"{_named(owner, path)}: must be one of {', '.join(classes)}; got {_shown(plain)}")
        rest = {key: value for key, value in plain.items() if key != _KIND}
        return _decoded(rest, classes[name], owner, path, voxels)
    # Text is tried before paths, so that a name stays a name.
    for kind in sorted(kinds, key=lambda kind: kind is Path):
        try:
            return _decoded(plain, kind, owner, path, voxels)
        except RecordError:
            continue
    raise RecordError(f"{_named(owner, path)}: must be {' or '.join(map(_wanted, kinds))}; got {_shown(plain)}")


def _decoded_dataclass(plain: Any, kind: Any, owner: str, path: str, voxels: Mapping[str, VoxelArray] | None) -> Any:
    if not isinstance(plain, dict):
        raise RecordError(f"{_named(owner, path)}: must be a {kind.__name__}; got {_shown(plain)}")
    hints = _types_of(kind)
    names = [field.name for field in fields(kind) if field.init]
    missing, unknown = [n for n in names if n not in plain], [str(n) for n in plain if n not in names]
    if missing or unknown:
        wrong = [f"{words}: {', '.join(_below(path, n) for n in found)}" for words, found in
                (("missing fields", missing), ("unknown fields", unknown)) if found]  # fmt: skip
        raise RecordError(f"{owner}: {'; '.join(wrong)}")
    values = {name: _decoded(plain[name], hints[name], owner, _below(path, name), voxels) for name in names}
    try:
        made = kind(**values)
    except BrainFusionError as error:
        raise RecordError(f"{_named(owner, path)}: {error}") from error
    # Constructors orthonormalise rotations, which can change the last bit; stored values are already orthonormal.
    for name, value in values.items():
        if isinstance(value, np.ndarray) and not same(value, getattr(made, name)):
            value.setflags(write=False)
            object.__setattr__(made, name, value)
    return made


def _decoded_volume(plain: Any, owner: str, path: str, voxels: Mapping[str, VoxelArray] | None) -> Volume:
    names = {"voxels", *(field.name for field in fields(Volume) if field.name != "array_kji")}
    if not isinstance(plain, dict) or set(plain) != names:
        raise RecordError(
            f"{_named(owner, path)}: must be a volume with {', '.join(sorted(names))}; got {_shown(plain)}"
        )
    key = plain["voxels"]
    if voxels is None or not isinstance(key, str) or key not in voxels:
        raise RecordError(f"{_named(owner, path)}: its voxels ({_shown(key)}) are missing")
    hints = _types_of(Volume)
    header = {n: _decoded(plain[n], hints[n], owner, _below(path, n), voxels) for n in names - {"voxels"}}
    try:
        return Volume(voxels[key], **header)
    except BrainFusionError as error:
        raise RecordError(f"{_named(owner, path)}: {error}") from error


def _decoded_array(plain: list[Any], owner: str, path: str) -> Any:
    def numbers(item: Any) -> Any:
        if isinstance(item, list):
            # Most of a result are rows of plain numbers, and this is read at every change in the panel.
            plainly = all(type(one) is float for one in item) and all(map(math.isfinite, item))
            return item if plainly else [numbers(one) for one in item]
        return _decoded(item, float, owner, path, None)

    try:
        array = np.array(numbers(plain), dtype=np.float64)
    except RecordError:  # one item is not a number, and the message says so
        raise
    except ValueError as error:
        raise RecordError(f"{_named(owner, path)}: must be an array of numbers; got uneven lists") from error
    # All arrays that may be empty are lists of points.
    return array.reshape(0, 3) if array.size == 0 else array


@functools.cache  # the hints are text, which Python compiles anew each time
def _types_of(kind: type[Any]) -> dict[str, Any]:
    return typing.get_type_hints(kind)


def _is_choice_of_classes(kind: Any) -> bool:
    return get_origin(kind) in (Union, types.UnionType) and sum(is_dataclass(k) for k in get_args(kind)) > 1


def _below(path: str, name: str) -> str:
    return f"{path}.{name}" if path else name


def _named(owner: str, path: str) -> str:
    return f"{owner}: {path}" if path else owner


def _wanted(kind: Any) -> str:
    if get_origin(kind) is Literal:
        return f"one of {', '.join(map(repr, get_args(kind)))}"
    return str(getattr(kind, "__name__", kind)) if not get_args(kind) else str(kind).replace("typing.", "")


def _shown(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."
