"""What a training run is told: dataclasses, read from a TOML file, one table a dataclass."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

from BrainFusionLib.errors import SettingsError
from BrainFusionLib.phantom.tissues import CONTRASTS
from BrainFusionLib.rules import RULES


@dataclass(frozen=True)
class DataConfig:
    """Heads of `BrainFusionLib.phantom`, cut into axial slices, and how their labels are made.

    Parameters
    ----------
    train_heads, heldout_heads
        Seeds of the heads to learn from, and of the heads to be judged on. No head is in both.
    contrasts
        MRI contrasts that every head is shown in.
    spacing_mm, slice_spacing_mm
        Pixel size of the slices, and the distance from one to the next.
    rule
        The classical rule whose result the network learns to give (a name of `BrainFusionLib.rules.RULES`).
    """

    train_heads: list[int]
    heldout_heads: list[int]
    contrasts: list[str] = field(default_factory=lambda: ["T1"])
    spacing_mm: float = 1.0
    slice_spacing_mm: float = 1.0
    rule: str = "bone_over_mri"

    def __post_init__(self) -> None:
        both = sorted(set(self.train_heads) & set(self.heldout_heads))
        _require(not both, f"data: a head to be judged on must not be learned from; {both} are in both lists")
        _require(bool(self.train_heads and self.heldout_heads), "data: both lists of heads need at least one head")
        heads = [*self.train_heads, *self.heldout_heads]
        _require(min(heads) >= 0, f"data: heads are seeds of 0 or more; got {min(heads)}")
        unknown = sorted(set(self.contrasts) - set(CONTRASTS))
        _require(not unknown, f"data.contrasts: {unknown} are unknown; there are {', '.join(CONTRASTS)}")
        _require(bool(self.contrasts), "data.contrasts: at least one is needed")
        _require(self.rule in RULES, f"data.rule: {self.rule!r} is unknown; there are {', '.join(RULES)}")
        _require(self.spacing_mm > 0 and self.slice_spacing_mm > 0, "data: spacings must be more than 0 mm")


@dataclass(frozen=True)
class TrainingConfig:
    """How long and how fast to learn: Adam, with a learning rate that falls along half a cosine to 0.

    Parameters
    ----------
    epochs
        How many times every slice is seen.
    batch_size
        Slices a step.
    learning_rate
        At the start.
    seed
        Of the order of the slices. (The network's initial weights have their own, ``network.seed``.)
    device
        As for `BrainFusionLib.device.pick_device`.
    """

    epochs: int = 100
    batch_size: int = 8
    learning_rate: float = 1e-3
    seed: int = 0
    device: str = "auto"

    def __post_init__(self) -> None:
        _require(self.epochs >= 1, f"training.epochs: must be 1 or more; got {self.epochs}")
        _require(self.batch_size >= 1, f"training.batch_size: must be 1 or more; got {self.batch_size}")
        _require(self.learning_rate > 0, f"training.learning_rate: must be more than 0; got {self.learning_rate}")


@dataclass(frozen=True)
class Config:
    """A whole run. `network` is an architecture as `BrainFusionLib.network.build_network` takes it."""

    data: DataConfig
    network: dict[str, Any] = field(default_factory=lambda: {"name": "fusion_net", "width": 16})
    training: TrainingConfig = field(default_factory=TrainingConfig)


def read_config(path: str | Path) -> Config:
    """Read a run's configuration from a TOML file.

    Raises
    ------
    SettingsError
        The file cannot be read, is no TOML, has a key that is not known, lacks one that is needed, or has a value
        that cannot be used. The message names file and key.
    """
    path = Path(path)
    try:
        tables = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise SettingsError(f"{path}: cannot be read as a TOML configuration ({error})") from error
    try:
        _refuse_unknown("", tables, Config)
        parts: dict[str, Any] = {"data": _table(DataConfig, "data", tables)}
        if "network" in tables:
            _require(isinstance(tables["network"], dict), "network: must be a table [network]")
            parts["network"] = tables["network"]
        if "training" in tables:
            parts["training"] = _table(TrainingConfig, "training", tables)
        return Config(**parts)
    except SettingsError as error:
        raise SettingsError(f"{path}: {error}") from error


def _table(kind: type[Any], name: str, tables: Mapping[str, Any]) -> Any:
    values = tables.get(name)
    if not isinstance(values, dict):
        raise SettingsError(f"a table [{name}] is needed")
    _refuse_unknown(f"{name}.", values, kind)
    types = {entry.name: str(entry.type) for entry in fields(kind)}
    for key, value in values.items():
        _require(_is_a(value, types[key]), f"{name}.{key}: must be {types[key]}; got {value!r}")
    try:
        return kind(**values)
    except TypeError as error:  # a field without a default is missing
        raise SettingsError(f"the table [{name}] is not complete: {error}") from error


def _refuse_unknown(prefix: str, values: Any, kind: type[Any]) -> None:
    known = [entry.name for entry in fields(kind)]
    for key in values:
        _require(key in known, f"unknown key {prefix}{key!s}; there are {', '.join(known)}")


def _is_a(value: Any, wanted: str) -> bool:
    if wanted.startswith("list["):
        return isinstance(value, list) and all(_is_a(item, wanted[5:-1]) for item in value)
    if wanted == "float":
        return isinstance(value, int | float) and not isinstance(value, bool)
    return type(value).__name__ == wanted


def _require(condition: bool, otherwise: str) -> None:
    if not condition:
        raise SettingsError(otherwise)
