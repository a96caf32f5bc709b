"""Reading a run's configuration: a TOML file, and words of the command line that stand above it."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any, get_args, get_origin, get_type_hints

from BrainFusionLib.errors import SettingsError
from training.config import Config, require

# torch holds integers in 64 bits; no number in a configuration comes near, and infinity is none.
_LARGEST = 1 << 63


def read_config(path: str | Path, overrides: Sequence[str] = ()) -> Config:
    """Read a run's configuration from a TOML file.

    Parameters
    ----------
    path
        The file.
    overrides
        Words of a command line, ``["--training.epochs", "3", …]``, which stand above the file.

    Raises
    ------
    SettingsError
        The file cannot be read, is no TOML, has a key that is not known, lacks one that is needed, or has a value
        that cannot be used. The message names file and key.
    """
    path = Path(path)
    try:
        tables = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise SettingsError(f"{path}: cannot be read ({error.strerror or error}). Give a TOML file.") from error
    except (ValueError, RecursionError) as error:
        raise SettingsError(f"{path}: cannot be read as a TOML configuration ({error}). Correct it.") from error
    try:
        _override(tables, overrides)
        return config_from(tables)
    except SettingsError as error:
        raise SettingsError(f"{path}: {error}") from error


def config_from(tables: Mapping[str, Any]) -> Config:
    """Build a configuration from plain tables, as ``dataclasses.asdict`` gives and JSON keeps them.

    Raises
    ------
    SettingsError
        As `read_config`.
    """
    _refuse_unknown("", tables, Config)
    require("data" in tables, "a table [data] is needed")
    types = get_type_hints(Config)
    return Config(**{name: _table(types[name], name, values) for name, values in tables.items()})


_IN_WORDS: dict[Any, str] = {
    int: "a whole number", float: "a finite number", bool: "true or false", str: "text", list[str]: "a list of texts"
}  # fmt: skip


def _table(kind: type[Any], name: str, values: Any) -> Any:
    require(isinstance(values, dict), f"{name}: must be a table [{name}]")
    if "__dataclass_fields__" not in vars(kind):  # [network]: the architecture's own arguments
        return dict(values)
    _refuse_unknown(f"{name}.", values, kind)
    types = get_type_hints(kind)
    for key, value in values.items():
        said = _IN_WORDS.get(types[key], str(types[key]))
        require(_is_a(value, types[key]), f"{name}.{key}: must be {said}; got {value!r}")
    try:
        return kind(**values)
    except TypeError as error:  # a field without a default is missing
        raise SettingsError(f"the table [{name}] is not complete: {error}") from error


def _override(tables: dict[str, Any], words: Sequence[str]) -> None:
    if len(words) % 2:
        raise SettingsError(f"{words[-1]}: a value is missing. Give --table.key value, for example --training.epochs 3")
    for name, text in zip(words[::2], words[1::2], strict=True):
        table, dot, key = name.removeprefix("--").partition(".")
        require(name.startswith("--") and bool(dot and key), f"{name}: options look like --training.epochs 3")
        try:
            value = tomllib.loads(f"value = {text}")["value"]
        except (ValueError, RecursionError):
            value = text  # words need no quotes
        entries = tables.setdefault(table, {})
        require(isinstance(entries, dict), f"{table}: must be a table [{table}]")
        entries[key] = value


def _refuse_unknown(prefix: str, values: Mapping[str, Any], kind: type[Any]) -> None:
    known = [entry.name for entry in fields(kind)]
    for key in values:
        require(key in known, f"unknown key {prefix}{key!s}; there are {', '.join(known)}")


def _is_a(value: Any, wanted: Any) -> bool:
    if get_origin(wanted) is list:
        return isinstance(value, list) and all(_is_a(item, get_args(wanted)[0]) for item in value)
    if wanted is float:
        return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < _LARGEST
    return type(value) is wanted and (wanted is not int or abs(value) < _LARGEST)
