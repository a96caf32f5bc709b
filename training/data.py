"""Batches on their way to the network: in a seeded order that any process can tell, fetched ahead in a thread."""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import torch

from BrainFusionLib.errors import SettingsError
from simulation.heads import Head
from simulation.scans import draw_scan
from simulation.slices_torch import render
from training.cache import SliceStore, open_store, prepare
from training.config import Config
from training.labels import rule_label
from training.losses import Batch
from training.sources import HeadSource, SimulatedHeads, source_of

HEADS_KEPT = 64
# Steps whose batches are fetched before they are asked for.
AHEAD = 3


class Stream(Protocol):
    """An endless row of batches: batch `step` is the same whenever and wherever it is asked for."""

    batch_size: int
    steps_per_epoch: int

    def part(self, step: int, part: int, parts: int) -> Batch:
        """Return one of the equal parts that a step's batch is divided in."""


class CachedStream:
    """Prepared slices in a seeded order, another one each epoch, without a break between epochs."""

    def __init__(self, store: SliceStore, batch_size: int, seed: int, *, flip: bool, crop: Sequence[int] = ()) -> None:
        self.batch_size = batch_size
        self.steps_per_epoch = -(-len(store) // batch_size)
        self._store, self._seed, self._flip, self._crop = store, seed, flip, tuple(crop)
        self._orders: dict[int, npt.NDArray[np.intp]] = {}

    def ids(self, step: int) -> list[int]:
        """Return the slices of a step's batch."""
        places = range(step * self.batch_size, (step + 1) * self.batch_size)
        return [int(self._order(place // len(self._store))[place % len(self._store)]) for place in places]

    def part(self, step: int, part: int, parts: int) -> Batch:
        """See `Stream`."""
        share = self.batch_size // parts
        flips = np.random.default_rng((self._seed, step, 1)).random(self.batch_size) < 0.5 * self._flip
        chosen = slice(part * share, (part + 1) * share)
        batch = self._store.batch(self.ids(step)[chosen], flips[chosen].tolist())
        if not self._crop:
            return batch
        corners = np.random.default_rng((self._seed, step, 2)).random((self.batch_size, 2))
        return _windows(batch, corners[chosen], self._crop)

    def _order(self, epoch: int) -> npt.NDArray[np.intp]:
        if epoch not in self._orders:
            self._orders = {key: order for key, order in self._orders.items() if key == epoch - 1}
            self._orders[epoch] = np.random.default_rng((self._seed, epoch)).permutation(len(self._store))
        return self._orders[epoch]


def _windows(batch: Batch, corners: npt.NDArray[np.float64], size: Sequence[int]) -> Batch:
    """Cut one window from each slice; `corners`, (B, 2), say where it may begin, 0 to 1 along rows and columns."""
    rows, columns = size
    spare = np.array(batch.ct.shape[2:]) - size + 1

    def cut(images: torch.Tensor) -> torch.Tensor:
        places = zip(images, (corners * spare).astype(int).tolist(), strict=True)
        return torch.stack([image[:, y : y + rows, x : x + columns] for image, (y, x) in places])

    return Batch(cut(batch.ct), cut(batch.mri), cut(batch.bone), cut(batch.label), batch.ids)


class SimulatedStream:
    """Slices of simulated scans, made anew at each step on the device, each of a scan of its own."""

    def __init__(self, config: Config, heads: Sequence[str], source: SimulatedHeads, device: torch.device) -> None:
        self.batch_size = config.training.batch_size
        self.steps_per_epoch = -(-config.training.epoch_slices // self.batch_size)
        self._config, self._device = config, device
        self._heads = list(heads)
        # 20 MB a head on the device: as many as are likely to fit.
        self._model = lru_cache(maxsize=HEADS_KEPT)(lambda head: _on_device(source.model(head), device))

    def part(self, step: int, part: int, parts: int) -> Batch:
        """See `Stream`."""
        return self.sample(self._config.training.seed, step, part, self.batch_size // parts)

    def sample(self, seed: int, step: int, rank: int, count: int) -> Batch:
        """Make `count` slices; number n of rank r is the same as number r·count + n of a single process."""
        made = [self._one(seed, step, rank * count + n) for n in range(count)]
        ct, mri, bone = (torch.cat(images) for images in zip(*made, strict=True))
        ids = torch.arange(count, device=self._device) + step * self.batch_size + rank * count
        return Batch(ct, mri, bone, self._label(ct, mri, bone), ids)

    def _one(self, seed: int, step: int, number: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        data, rng = self._config.data, np.random.default_rng((seed, step, number))
        model, tissue = self._model(self._heads[int(rng.integers(len(self._heads)))])
        scan = draw_scan(model, self._config.simulation, (seed, step, number, 1))
        half_mm = model.tissue_kji.shape[0] * model.spacing_kji_mm[0] / 2
        height = float(rng.uniform(-0.75, 0.85)) * half_mm
        size = (data.size[0], data.size[1])
        ct, mri, bone = render(model, tissue, scan, [height], size, data.spacing_mm)
        if data.flip and rng.random() < 0.5:
            return ct.flip(3), mri.flip(3), bone.flip(3)
        return ct, mri, bone

    def _label(self, ct: torch.Tensor, mri: torch.Tensor, bone: torch.Tensor) -> torch.Tensor:
        kind = self._config.label.kind
        if kind == "none":
            return ct[:, :0]
        if kind == "bone_over_mri":
            return bone * ct + (1 - bone) * mri
        made = rule_label(kind, *(image[:, 0].cpu().numpy() for image in (ct, mri, bone)))
        return torch.from_numpy(made)[:, None].to(self._device)


def _on_device(model: Head, device: torch.device) -> tuple[Head, torch.Tensor]:
    return model, torch.from_numpy(model.tissue_kji).to(device)


class Prefetcher:
    """Fetches the parts of the steps to come in a thread, and counts how long it was waited for.

    Parameters
    ----------
    fetch
        Makes one step's parts.
    first, last
        Steps from `first` to below `last`.
    """

    def __init__(self, fetch: Callable[[int], list[Batch]], first: int, last: int) -> None:
        self.waited_s = 0.0
        self._queue: queue.Queue[tuple[int, list[Batch] | BaseException]] = queue.Queue(AHEAD)
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._run, args=(fetch, first, last), daemon=True)
        self._last = last
        self._thread.start()

    def __iter__(self) -> Iterator[tuple[int, list[Batch]]]:
        while True:
            began = time.perf_counter()
            step, parts = self._queue.get()
            self.waited_s += time.perf_counter() - began
            if isinstance(parts, BaseException):
                raise parts
            if step >= self._last:
                return
            yield step, parts

    def close(self) -> None:
        """Stop fetching."""
        self._stopped.set()
        self._thread.join()

    def _run(self, fetch: Callable[[int], list[Batch]], first: int, last: int) -> None:
        try:
            for step in range(first, last):
                if not self._put(step, fetch(step)):
                    return
            self._put(last, [])
        except BaseException as error:  # raised where the batch is waited for
            self._put(-1, error)

    def _put(self, step: int, parts: list[Batch] | BaseException) -> bool:
        while not self._stopped.is_set():
            try:
                self._queue.put((step, parts), timeout=0.1)
                return True
            except queue.Full:
                continue
        return False


@dataclass(frozen=True, eq=False)
class TrainingData:
    """What a run learns from, what it is judged on, and what both were made from, by head."""

    stream: Stream
    heldout: SliceStore
    made_from: dict[str, Any]


def open_data(
    config: Config, device: torch.device, share: tuple[int, int] = (0, 1), wait: Callable[[], None] = lambda: None
) -> TrainingData:
    """Prepare the heads of a configuration, this process its share of them, and open them.

    Parameters
    ----------
    share
        (rank, world) of this process.
    wait
        Returns when all processes have come here.

    Raises
    ------
    SettingsError
        A head is named that is not there, or is both learned from and judged on. And all that `cache.prepare` raises.
    """
    source = source_of(config, device)
    train, heldout = split(config, source)
    flying = config.data.on_the_fly and isinstance(source, SimulatedHeads)
    prepare(config, heldout if flying else [*train, *heldout], source, device, share)
    wait()
    judged = open_store(config, heldout, source)
    training = config.training
    if config.data.on_the_fly and isinstance(source, SimulatedHeads):
        return TrainingData(SimulatedStream(config, train, source, device), judged, {"heldout": judged.made_from()})
    store = open_store(config, train, source)
    stream = CachedStream(store, training.batch_size, training.seed, flip=config.data.flip, crop=config.data.crop)
    return TrainingData(stream, judged, {"train": store.made_from(), "heldout": judged.made_from()})


def split(config: Config, source: HeadSource) -> tuple[list[str], list[str]]:
    """Return the names of the heads to learn from and of those to be judged on.

    Raises
    ------
    SettingsError
        A head is in both, or is not there.
    """
    train, heldout = source.names(config.data.train_heads), source.names(config.data.heldout_heads)
    both = sorted(set(train) & set(heldout))
    if both:
        raise SettingsError(f"data: a head to be judged on must not be learned from; {both} are in both lists")
    return train, heldout
