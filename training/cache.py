"""Prepared slices in files: each head is read, registered and labelled once, and then memory-mapped."""

from __future__ import annotations

import json
import logging
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from BrainFusionLib.errors import ImageContentError
from BrainFusionLib.io import atomic_output, write_json
from BrainFusionLib.io.hashing import sha256_of_bytes, sha256_of_file
from BrainFusionLib.io.leftovers import remove_leftovers, temporary_beside
from BrainFusionLib.io.reading import at_home
from BrainFusionLib.metrics import slices_with_head
from BrainFusionLib.stopping import half_written
from BrainFusionLib.volume import VoxelArray
from training.config import Config
from training.labels import label_key, make_labels
from training.losses import Batch
from training.sources import HeadSource, describe

logger = logging.getLogger("training")

# On the unit scale half precision is good to 0.0005: an eighth of a grey level of 255, or 1.7 HU in bone.
STORED = np.float16
KINDS = ("ct", "mri", "bone")
# Written last into a head's folder: what its slices were made from.
MADE_FROM = "made_from.json"


class SliceStore:
    """The prepared slices of some heads: memory-mapped files, so that there may be more of them than memory."""

    def __init__(self, folders: Sequence[Path], label: str | None) -> None:
        self.folders = list(folders)
        names = [*KINDS, *([label] if label else [])]
        self._arrays = [[np.load(folder / f"{name}.npy", mmap_mode="r") for name in names] for folder in folders]
        self._ends = np.cumsum([len(arrays[0]) for arrays in self._arrays])

    def __len__(self) -> int:
        return int(self._ends[-1])

    def head_of(self, index: int) -> int:
        """Return which of the heads a slice belongs to."""
        return int(np.searchsorted(self._ends, index, side="right"))

    def batch(self, indices: Sequence[int], flips: Sequence[bool] | None = None) -> Batch:
        """Read slices, some of them mirrored left to right."""
        columns: list[list[VoxelArray]] = []
        for n, index in enumerate(indices):
            head = self.head_of(index)
            row = int(index - (self._ends[head - 1] if head else 0))
            step = -1 if flips is not None and flips[n] else 1
            columns.append([np.asarray(array[row, :, ::step], dtype=np.float32) for array in self._arrays[head]])
        ct, mri, bone, *label = (torch.from_numpy(np.stack(images)[:, None]) for images in zip(*columns, strict=True))
        return Batch(ct, mri, bone, label[0] if label else ct[:, :0], torch.tensor(list(indices)))

    def made_from(self) -> dict[str, Any]:
        """Return, by head, what its slices were made from, with the sha256 of all files in and out."""
        told = [json.loads((folder / MADE_FROM).read_text(encoding="utf-8")) for folder in self.folders]
        return {entry["head"]: entry for entry in told}


def prepare(
    config: Config, heads: Sequence[str], source: HeadSource, device: torch.device, share: tuple[int, int] = (0, 1)
) -> None:
    """Prepare the slices and labels of some heads in the cache, if they are not there yet.

    Parameters
    ----------
    share
        (rank, world): of several processes, each makes every `world`-th head, from its rank on.

    Raises
    ------
    ImageFileError, ImageContentError, GeometryError, RegistrationError, MissingDependencyError
        A head cannot be read, is not one, or cannot be registered; the message names the file.
    """
    for number, head in enumerate(heads):
        if number % share[1] != share[0]:
            continue
        folder, label = _folder_of(config, source, head), _label_name(config)
        if not (folder / MADE_FROM).exists():
            logger.info("preparing head %s (%d of %d)", head, number + 1, len(heads))
            _make_head(config, source, head, folder)
        if label and not (folder / f"{label}.npy").exists():
            remove_leftovers(folder)
            logger.info("labelling head %s (%d of %d): %s", head, number + 1, len(heads), config.label.kind)
            with atomic_output(folder / f"{label}.npy") as temporary:
                _save(temporary, _label(config, folder, device))


def open_store(config: Config, heads: Sequence[str], source: HeadSource) -> SliceStore:
    """Open the slices of heads that `prepare` has prepared."""
    return SliceStore([_folder_of(config, source, head) for head in heads], _label_name(config))


def _folder_of(config: Config, source: HeadSource, head: str) -> Path:
    return at_home(config.data.cache) / _digest(describe(config, source, head))


def _label_name(config: Config) -> str | None:
    return None if config.label.kind == "none" else f"label-{_digest(label_key(config.label))}"


def _label(config: Config, folder: Path, device: torch.device) -> VoxelArray:
    if config.label.kind == "given":
        given: VoxelArray = np.load(folder / "given.npy")
        return given
    # As they are stored, half precision and all: what the network will see.
    ct, mri, bone = (np.load(folder / f"{kind}.npy").astype(np.float32) for kind in KINDS)
    return make_labels(ct, mri, bone, config.label, device)


def _make_head(config: Config, source: HeadSource, head: str, folder: Path) -> None:
    """Write the slices of a head into a new folder of the cache, all or nothing."""
    arrays: dict[str, list[VoxelArray]] = {}
    for stack in source.slices(head):
        seen = slices_with_head(stack.ct, stack.mri)
        for kind in (*KINDS, "fused"):
            array = getattr(stack, kind)
            if array is None:
                continue
            if not np.isfinite(array).all():
                raise ImageContentError(f"head {head}: its {kind} has NaN or infinite values. Correct its files.")
            name = "given" if kind == "fused" else kind
            arrays.setdefault(name, []).append(_fitted(array[seen], config.data.size))
    if not sum(len(array) for array in arrays.get("ct", [])):
        raise ImageContentError(f"head {head}: none of its slices shows a head. Look at its files, or leave it out.")
    folder.parent.mkdir(parents=True, exist_ok=True)
    remove_leftovers(folder.parent)
    temporary = temporary_beside(folder)
    with half_written(temporary):
        _write_head(config, source, head, arrays, temporary, folder)


def _write_head(
    config: Config,
    source: HeadSource,
    head: str,
    arrays: dict[str, list[VoxelArray]],
    temporary: Path,
    folder: Path,
) -> None:
    try:
        temporary.mkdir()
        for name, stacks in arrays.items():
            _save(temporary / f"{name}.npy", np.concatenate(stacks))
        files = {str(path): sha256_of_file(path) for path in source.files(head) if path.is_file()}
        made = {path.name: sha256_of_file(path) for path in sorted(temporary.glob("*.npy"))}
        slices = sum(len(array) for array in arrays["ct"])
        told = {**describe(config, source, head), "slices": slices, "read_sha256": files, "made_sha256": made}
        write_json(told, temporary / MADE_FROM)
        if not folder.exists():  # another process may have been faster
            temporary.rename(folder)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _save(path: Path, array: npt.NDArray[Any]) -> None:
    with path.open("wb") as stream:
        np.save(stream, array.astype(STORED))


def _fitted(array: VoxelArray, size: Sequence[int]) -> VoxelArray:
    """Pad with zeros (air) or crop rows and columns around their middle."""
    for axis, wanted in zip((1, 2), size, strict=True):
        excess = array.shape[axis] - wanted
        if excess > 0:
            array = np.take(array, range(excess // 2, excess // 2 + wanted), axis=axis)
        elif excess < 0:
            padding = [(0, 0)] * 3
            padding[axis] = (-excess // 2, -excess - (-excess // 2))
            array = np.pad(array, padding)
    return array


def _digest(plain: dict[str, Any]) -> str:
    return sha256_of_bytes(json.dumps(plain, sort_keys=True).encode())[:16]
