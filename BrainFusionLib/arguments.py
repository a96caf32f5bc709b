"""Arguments of the public functions and classes, each checked against its annotation before it is met deep inside.

`checked` is for functions and methods, `check_fields` for the fields of a dataclass. What an annotation does not say
in a way that is known here (a choice of words, a mapping) is left to the function itself.
"""

from __future__ import annotations

import functools
import inspect
import numbers
import os
import types
import typing
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from typing import Annotated, Any, ParamSpec, TypeAlias, TypeVar

import numpy as np
import numpy.typing as npt

from BrainFusionLib.errors import BrainFusionError, SettingsError

P = ParamSpec("P")
R = TypeVar("R")


@dataclass(frozen=True)
class InThrees:
    """Of an annotation: the last axis of the array has three numbers, the coordinates of a point."""


# Points, shape (..., 3).
PointsLike: TypeAlias = Annotated[npt.ArrayLike, InThrees()]

# How to come by what was wanted, by the name of its class.
HOW = {
    "AffineTransform": "read_transform(path) reads one, result.transform is one",
    "Entry": "entries, problems = read_manifest(path) makes them",
    "FusionSettings": "FusionSettings(rule=…, weights=…) makes one",
    "Grid": "volume.grid is one, Grid(size_ijk, spacing_ijk_mm, origin_lps_mm, direction) makes one",
    "Inputs": "Inputs(ct, mri) holds two volumes",
    "Landmarks": "Landmarks(names, ct_lps_mm, mri_lps_mm) makes one",
    "OutputSettings": "OutputSettings(reference, grid) makes one",
    "RegistrationSettings": "RegistrationSettings.preset(name) makes one, settings.registration is one",
    "Request": "Request(Source(name), Source(name)) makes one",
    "RigidTransform": "read_transform(path) reads one, result.transform is one",
    "Settings": "Settings(registration=…, fusion=…) holds the others",
    "Source": "Source(name) makes one",
    "Volume": "read_volume(path) reads one, Volume(array_kji, grid, modality) makes one",
}  # fmt: skip
_NUMBERS = {int: "a whole number", float: "a number", bool: "True or False", str: "text"}
_COUNTS = {2: "two", 3: "three", 4: "four"}
_LONGEST = 60


def checked(function: Callable[P, R]) -> Callable[P, R]:
    """Return a function that refuses arguments of another kind than annotated, with a `SettingsError`."""
    signature = inspect.signature(function)

    @functools.wraps(function)
    def wrapper(*args: P.args, **kwargs: P.kwargs) -> R:
        try:
            bound = signature.bind(*args, **kwargs)
        except TypeError:  # one is missing or unknown: Python's own words name the function, too
            return function(*args, **kwargs)
        hints = _hints(function)
        for name, value in bound.arguments.items():
            if name in hints:
                _refuse_empty_path(name, value, hints[name])
                _require(name, value, hints[name], SettingsError, _call(function.__name__, signature))
        return function(*args, **kwargs)

    return wrapper


def check_fields(instance: Any, error: type[BrainFusionError] = SettingsError) -> None:
    """Refuse a dataclass with a field of another kind than annotated."""
    kind: Any = type(instance)
    hints = _hints(kind)
    for field in fields(kind):
        call = f"{kind.__name__}({', '.join(other.name for other in fields(kind))})"
        _require(field.name, getattr(instance, field.name), hints[field.name], error, call)


@functools.cache
def _hints(annotated: Any) -> dict[str, Any]:
    return typing.get_type_hints(annotated, include_extras=True)


def _call(name: str, signature: inspect.Signature) -> str:
    named = [parameter for parameter in signature.parameters.values() if parameter.name not in ("self", "cls")]
    first = [parameter.name for parameter in named if parameter.kind is not parameter.KEYWORD_ONLY]
    rest = [f"{parameter.name}=…" for parameter in named if parameter.kind is parameter.KEYWORD_ONLY]
    return f"{name}({', '.join(first + rest)})"


def _refuse_empty_path(name: str, value: object, hint: Any) -> None:
    """Refuse the empty path, which would stand for the folder that the program runs in."""
    if isinstance(value, str) and not value and any(_words(kind) == "a path" for kind in _kinds(hint)):
        raise SettingsError(
            f"{name} must be a path, but it is empty. Was a variable not set? The current folder is '.'."
        )


def _require(name: str, value: object, hint: Any, error: type[BrainFusionError], call: str) -> None:
    # Of numpy or astropy; np.asarray leaves the mask out without a word.
    if isinstance(value, np.ndarray) and np.any(getattr(value, "mask", False)):
        raise error(
            f"{name} is a masked array, and its mask would be lost. Give {name}.filled(number), with the number that "
            "the masked elements shall have."
        )
    wanted = _kinds(hint)
    if _fits(value, hint):
        return
    named = [one for kind in wanted for one in (kind, *typing.get_args(kind))]  # also what a sequence is of
    how = next((f": {words}" for one in named if (words := HOW.get(_name(one)))), "")
    raise error(f"{name} must be {_wanted(wanted)}; got {given(value)}{how}. The call is {call}.")


def _kinds(hint: Any) -> list[Any]:
    """Return the kinds that an annotation allows: those of a union one by one."""
    if hint == npt.ArrayLike:
        return [hint]
    return list(typing.get_args(hint)) if _is_union(hint) else [hint]


def _is_union(hint: Any) -> bool:
    return typing.get_origin(hint) in (typing.Union, types.UnionType)


def _is_function(hint: Any) -> bool:
    """Return whether an annotation is of something to call: a type of function, or a protocol that is called."""
    called = getattr(hint, "_is_protocol", False) and "__call__" in vars(hint)
    return typing.get_origin(hint) is Callable or called


def _fits(value: object, hint: Any) -> bool:
    """Return whether a value is what an annotation says; true where that is not known."""
    origin, given = typing.get_origin(hint), typing.get_args(hint)
    if hint == npt.ArrayLike or origin is np.ndarray:
        return _is_numeric(value)
    if origin is Annotated:
        in_threes = any(isinstance(extra, InThrees) for extra in given[1:])
        return _fits(value, given[0]) and (not in_threes or np.asarray(value).shape[-1:] == (3,))
    if _is_union(hint):
        return any(_fits(value, kind) for kind in given)
    if origin is tuple:
        return _fits_tuple(value, given)
    if origin is Sequence:
        return not isinstance(value, str) and isinstance(value, Sequence) and all(_fits(v, given[0]) for v in value)
    if _is_function(hint):
        return callable(value)
    if isinstance(origin, type) and issubclass(origin, os.PathLike):
        return isinstance(value, os.PathLike)
    if hint is type(None):
        return value is None
    if getattr(hint, "_is_protocol", False):
        return not isinstance(value, str | numbers.Number)  # its methods are met where they are called
    return not isinstance(hint, type) or _is_a(value, hint)


def _fits_tuple(value: object, kinds: tuple[Any, ...]) -> bool:
    if hasattr(value, "__array__"):
        value = list(np.asarray(value)) if _is_numeric(value) and np.ndim(np.asarray(value)) else None
    if isinstance(value, str | bytes) or not isinstance(value, Sequence):
        return False
    # A single number of PyTorch or JAX is an array without axes.
    value = [np.asarray(one)[()] if hasattr(one, "__array__") and _is_numeric(one) else one for one in value]
    if len(kinds) == 2 and kinds[1] is Ellipsis:
        return all(_fits(one, kinds[0]) for one in value)
    return len(value) == len(kinds) and all(_fits(one, kind) for one, kind in zip(value, kinds, strict=True))


def _is_a(value: object, kind: type) -> bool:
    """Return whether a value is of a class. Numbers of numpy are numbers, and a whole number is one with a point."""
    if kind is bool:
        return isinstance(value, bool | np.bool_)
    if kind is float:
        return isinstance(value, numbers.Real) and not isinstance(value, bool | np.bool_)
    if kind is int:
        # 4.5 voxels are refused by the class itself, in its own words.
        return isinstance(value, numbers.Real) and not isinstance(value, bool | np.bool_)
    return isinstance(value, kind)


def _is_numeric(value: object) -> bool:
    try:
        return np.asarray(value).dtype.kind in "biuf"
    except (TypeError, ValueError, RuntimeError):
        return False


def _wanted(kinds: Sequence[Any]) -> str:
    words = list(dict.fromkeys(_words(kind) for kind in kinds))
    joined = words[0] if len(words) == 1 else f"{', '.join(words[:-1])} or {words[-1]}"
    return joined.replace("a path or text", "a path")


def _words(kind: Any) -> str:
    """Return an annotation in words."""
    origin, given = typing.get_origin(kind), typing.get_args(kind)
    if kind == npt.ArrayLike or origin is np.ndarray:
        return "an array of numbers"
    if origin is Annotated:
        return "points of three coordinates each, shape (..., 3)"
    if origin is tuple and given[-1] is not Ellipsis and len(set(given)) == 1:
        what = {int: "whole numbers", float: "numbers"}.get(given[0], f"of {_words(given[0])}")
        return f"{_COUNTS.get(len(given), len(given))} {what}"
    if origin in (tuple, Sequence):
        return f"a sequence, each of it {_words(given[0])}"
    if _is_function(kind):
        return "a function"
    if kind is type(None):
        return "None"
    name = _name(kind)
    if name in ("Path", "PathLike"):
        return "a path"
    return _NUMBERS.get(kind) or f"{'an' if name[0] in 'AEIOU' else 'a'} {name}"


def _name(kind: Any) -> str:
    return str(getattr(typing.get_origin(kind) or kind, "__name__", kind))


def given(value: object) -> str:
    """Return what came, by its value where that is short."""
    if value is None or isinstance(value, bool | numbers.Number | str | os.PathLike):
        text = repr(value)
        return text if len(text) <= _LONGEST else f"{text[:_LONGEST]}…"
    if isinstance(value, tuple | list) and len(text := repr(value)) <= _LONGEST:
        return text
    name = type(value).__name__
    shape, dtype = getattr(value, "shape", None), getattr(value, "dtype", None)
    of_shape = f" of shape {tuple(shape)}" if isinstance(shape, tuple) else ""
    of_type = f" and type {dtype}" if of_shape and dtype is not None else ""
    needed = " (needed: tensor.detach().cpu())" if hasattr(value, "requires_grad") and not _is_numeric(value) else ""
    return f"{'an' if name[:1].upper() in tuple('AEIOU') else 'a'} {name}{of_shape}{of_type}{needed}"
