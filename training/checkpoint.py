"""Checkpoints: all of a run's state in one file of tensors and plain data, written whole or not at all."""

from __future__ import annotations

import io
import pickle
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from BrainFusionLib.errors import WeightsError
from BrainFusionLib.io import atomic_output

FORMAT = 1
NEEDED = ("format", "step", "network", "config")


def save_checkpoint(path: Path, content: Mapping[str, Any]) -> None:
    """Write a checkpoint; killed at any moment, the file is the old one or the new one.

    Raises
    ------
    ImageFileError
        The folder cannot be written to, or the disk is full. The old file is still there.
    """
    save_tensors(path, {"format": FORMAT, **content})


def save_tensors(path: Path, content: Mapping[str, Any]) -> None:
    """Write tensors and plain data as a file of torch, whole or not at all.

    Raises
    ------
    ImageFileError
        As `save_checkpoint`.
    """
    packed = io.BytesIO()  # torch itself says of a full disk "unexpected pos 39040 vs 38928"
    torch.save(dict(content), packed)
    with atomic_output(path) as temporary:
        temporary.write_bytes(packed.getbuffer())


def load_checkpoint(path: Path, device: torch.device | str = "cpu") -> dict[str, Any]:
    """Read a checkpoint. Nothing in it is run: tensors and plain data only.

    Raises
    ------
    WeightsError
        The file is missing, damaged (every part's CRC is checked), or no checkpoint of this version.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            damaged = archive.testzip()  # torch itself does not look at the checksums
        if damaged is not None:
            raise WeightsError(f"{path}: is damaged (its part {damaged} has changed). {_remedy(path)}")
        content = torch.load(path, map_location=device, weights_only=True)
    except FileNotFoundError as error:
        raise WeightsError(f"{path}: is missing. Name a checkpoint, or the folder of a training run.") from error
    except (OSError, zipfile.BadZipFile, pickle.UnpicklingError, RuntimeError, EOFError, ValueError) as error:
        if isinstance(error, WeightsError):
            raise
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise WeightsError(f"{path}: is damaged or no checkpoint ({reason}). {_remedy(path)}") from error
    if not isinstance(content, dict) or any(name not in content for name in NEEDED) or content["format"] != FORMAT:
        raise WeightsError(f"{path}: is not a checkpoint of this version ({FORMAT}). {_remedy(path)}")
    return content


def _remedy(path: Path) -> str:
    others = [other for other in ("last.pt", "best.pt") if other != path.name and (path.parent / other).exists()]
    if others:
        return f"To go on from {others[0]} instead, copy it over {path.name}; nothing was changed."
    return "Start the run again in a new folder; nothing was changed."
