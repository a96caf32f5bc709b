"""The training loop: plain PyTorch, from a stream of batches to the best weights on the held-out heads."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch.nn.parallel import DistributedDataParallel

from BrainFusionLib.errors import SettingsError, WeightsError
from BrainFusionLib.fusion.architecture import check_arrays_fit
from BrainFusionLib.fusion.network import FusionNetwork, build_network, network_from_weights
from BrainFusionLib.fusion.weights import find_weights, load_weights
from training.cache import SliceStore
from training.checkpoint import load_checkpoint, save_checkpoint
from training.config import Config
from training.data import Prefetcher, TrainingData
from training.distributed import Team
from training.losses import TERMS, Batch, loss_of
from training.optimisers import build_optimiser, learning_rate_share
from training.run_folder import RunFolder

logger = logging.getLogger("training")

DTYPES = {"bf16": torch.bfloat16, "fp16": torch.float16}
# Reported beside the loss, whatever the loss is.
WATCHED = ("qabf", "bone", "soft")
JUDGED_AT_ONCE = 8


@dataclass
class Progress:
    """Where a run is; plain numbers, kept in every checkpoint.

    `step` steps are done; `best` is the least held-out loss, `stale` the epochs since then, `plateaus` how often the
    learning rate was lowered, and `epoch_loss` the sum of the losses of this epoch's steps so far.
    """

    step: int = 0
    best: float = math.inf
    stale: int = 0
    plateaus: int = 0
    plateau_stale: int = 0
    epoch_loss: float = 0.0


class Trainer:
    """One network, its data and its run folder.

    Parameters
    ----------
    folder
        Where the run is kept; ``None`` in all processes but the first.
    """

    def __init__(self, config: Config, data: TrainingData, team: Team, folder: RunFolder) -> None:
        training = config.training
        self.parts = team.world * training.accumulate
        if training.batch_size % self.parts:
            raise SettingsError(
                f"training.batch_size: {training.batch_size} slices cannot be shared evenly by {team.world} processes "
                f"with training.accumulate {training.accumulate}. Give a multiple of {self.parts}."
            )
        self.config, self.data, self.team, self.folder = config, data, team, folder
        self.progress = Progress()
        self.steps = training.epochs * data.stream.steps_per_epoch
        self.network = first_network(config).to(team.device)
        if training.channels_last:
            self.network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.averaged = {name: tensor.clone() for name, tensor in self.network.state_dict().items()}
        self.trained = DistributedDataParallel(self.network) if team.world > 1 else self.network
        self.optimiser = build_optimiser(self.network.parameters(), config.optimiser)
        self.scaler = torch.amp.GradScaler(team.device.type, enabled=training.precision == "fp16")

    def run(self) -> float:
        """Train to the end, or until the held-out loss has stopped falling; return the best held-out loss.

        Raises
        ------
        WeightsError
            The loss or its gradient is no longer finite; the batch has been saved.
        """
        per_epoch = self.data.stream.steps_per_epoch
        prefetcher = Prefetcher(self.fetch, self.progress.step, self.steps)
        bar = self._bar()
        began, waited, first = time.perf_counter(), 0.0, self.progress.step
        try:
            for step, parts in prefetcher:
                entry = self._step(step, parts)
                self.progress.step, at_end = step + 1, (step + 1) % per_epoch == 0
                self.progress.epoch_loss += entry["loss"]
                bar.update()
                if (step + 1) % self.config.log.steps == 0 and self.team.leads:
                    self.folder.log(step + 1, entry)
                if at_end:
                    seconds, done = time.perf_counter() - began, step + 1 - first
                    speed = {
                        "seconds": seconds,
                        "slices_per_s": done * self.config.training.batch_size / seconds,
                        "waiting_share": (prefetcher.waited_s - waited) / seconds,
                    }
                    if self._end_epoch((step + 1) // per_epoch, speed):
                        break
                    began, waited, first = time.perf_counter(), prefetcher.waited_s, step + 1
                elif self.config.training.checkpoint_steps and (step + 1) % self.config.training.checkpoint_steps == 0:
                    self._save(best=False)
        finally:
            prefetcher.close()
            bar.close()
        return self.progress.best

    def time_steps(self, first: int, last: int) -> tuple[float, float]:
        """Train from step `first` to below `last`; return the seconds that it took, and those waited for data."""
        began = time.perf_counter()
        prefetcher = Prefetcher(self.fetch, first, last)
        try:
            for step, parts in prefetcher:
                self._step(step, parts)  # its loss has come to the CPU: the device is done
        finally:
            prefetcher.close()
        return time.perf_counter() - began, prefetcher.waited_s

    def fetch(self, step: int) -> list[Batch]:
        """Return this process's parts of a step's batch, on the device."""
        count = self.config.training.accumulate
        numbers = range(self.team.rank * count, (self.team.rank + 1) * count)
        parts = [self.data.stream.part(step, number, self.parts) for number in numbers]
        if self.team.device.type == "cuda":
            parts = [Batch(**{name: pinned(tensor) for name, tensor in part.tensors().items()}) for part in parts]
        return [part.on(self.team.device) for part in parts]

    def _step(self, step: int, parts: Sequence[Batch]) -> dict[str, float]:
        """Change the weights once; return what to log."""
        config = self.config
        rate = config.optimiser.learning_rate
        rate *= learning_rate_share(config.schedule, step, self.steps, self.progress.plateaus)
        for group in self.optimiser.param_groups:
            group["lr"] = rate
        self.trained.train()
        self.optimiser.zero_grad(set_to_none=True)
        total = 0.0
        for number, batch in enumerate(parts):
            with self._no_exchange(until=number == len(parts) - 1):
                loss = loss_of(self._fuse(self.trained, batch), batch, config.loss).mean() / len(parts)
                # Summed over all processes before the gradients are, so that all stop together.
                everywhere = self.team.sum(loss.detach()).item() / self.team.world
                if not math.isfinite(everywhere):
                    self._stop(batch, f"the loss became {everywhere * len(parts)}", finite=math.isfinite(loss.item()))
                self.scaler.scale(loss).backward()  # type: ignore[no-untyped-call]
                total += everywhere
        self.scaler.unscale_(self.optimiser)
        clip = config.optimiser.clip or math.inf
        norm = float(torch.nn.utils.clip_grad_norm_(self.network.parameters(), clip))
        if not math.isfinite(norm) and not self.scaler.is_enabled():  # the scaler skips such steps, and tries lower
            self._stop(parts[-1], f"the gradient's length became {norm}", finite=False)
        self.scaler.step(self.optimiser)
        self.scaler.update()
        self._average(step)
        return {"loss": total, "learning_rate": rate, "gradient": norm}

    def _fuse(self, network: torch.nn.Module, batch: Batch) -> torch.Tensor:
        inputs = batch.inputs
        if self.config.training.channels_last:
            inputs = inputs.contiguous(memory_format=torch.channels_last)
        dtype = DTYPES.get(self.config.training.precision)
        with torch.autocast(self.team.device.type, dtype=dtype, enabled=dtype is not None):
            fused: torch.Tensor = network(inputs)
        return fused

    def _no_exchange(self, *, until: bool) -> AbstractContextManager[None]:
        """Keep gradients to this process but for the last part of a step."""
        if isinstance(self.trained, DistributedDataParallel) and not until:
            context: AbstractContextManager[None] = self.trained.no_sync()
            return context
        return nullcontext()

    def _average(self, step: int) -> None:
        """Move the running mean of the weights on; at the start it forgets faster."""
        decay = min(self.config.training.ema, (1 + step) / (10 + step))
        with torch.no_grad():
            for name, tensor in self.network.state_dict().items():
                self.averaged[name].lerp_(tensor, 1 - decay)

    def _stop(self, batch: Batch, what: str, *, finite: bool) -> None:
        where = "" if finite else f" The batch is in {self.folder.save_batch(batch, self.team.rank)}."
        raise WeightsError(
            f"{what} in step {self.progress.step + 1}: the training failed. Lower optimiser.learning_rate, set "
            f"optimiser.clip, or look for NaN in the data.{where}"
        )

    def _end_epoch(self, epoch: int, speed: dict[str, float]) -> bool:
        """Judge, log and save; say whether to stop."""
        state, config = self.progress, self.config
        with self.judged_weights():
            heldout = self.judge(self.data.heldout)
            if self.team.leads and config.log.tensorboard and config.log.images:
                shown = range(0, len(self.data.heldout), max(1, len(self.data.heldout) // config.log.images))
                batch = self.data.heldout.batch(list(shown)[: config.log.images]).on(self.team.device)
                with torch.inference_mode():
                    self.folder.show(state.step, batch, self._fuse(self.network, batch), self.network)
        train_loss = state.epoch_loss / self.data.stream.steps_per_epoch
        state.epoch_loss = 0.0
        better = heldout["loss"] < state.best
        state.best = min(state.best, heldout["loss"])
        state.stale = 0 if better else state.stale + 1
        state.plateau_stale = 0 if better else state.plateau_stale + 1
        if state.plateau_stale > config.schedule.patience:
            state.plateaus, state.plateau_stale = state.plateaus + 1, 0
        entry = {"epoch": epoch, "train_loss": train_loss, **{f"heldout_{k}": v for k, v in heldout.items()}, **speed}
        if self.team.leads:
            logger.info(
                "epoch %d: loss %.4f, held out %.4f%s; %.1f slices/s, %.1f %% of the time waiting for data",
                epoch, train_loss, heldout["loss"], " (best)" if better else "", speed["slices_per_s"],
                100 * speed["waiting_share"],
            )  # fmt: skip
            self.folder.log(state.step, entry)
        self._save(best=better)
        return bool(config.training.early_stopping and state.stale >= config.training.early_stopping)

    def judge(self, store: SliceStore) -> dict[str, float]:
        """Return the loss over all slices of a store, and what is watched beside it; each process takes its share."""
        self.network.eval()
        # Terms with a label cannot be watched where there is none; those that are watched need none.
        names = ["loss", *WATCHED]
        totals = torch.zeros(len(names), dtype=torch.float64, device=self.team.device)
        with torch.inference_mode():
            for batch in self._batches(store):
                fused = self._fuse(self.network, batch).float()
                losses = [loss_of(fused, batch, self.config.loss), *(TERMS[name](fused, batch) for name in WATCHED)]
                totals += torch.stack(losses).double().sum(dim=1)
        totals = self.team.sum(totals) / len(store)
        measured = dict(zip(names, totals.tolist(), strict=True))
        measured["qabf"] = 1 - measured["qabf"]
        return measured

    def references(self, store: SliceStore) -> dict[str, float]:
        """Return the held-out losses that no learning at all would reach: the untrained network, and copies."""
        found = {"untrained": self.judge(store)["loss"]}
        totals = torch.zeros(3, dtype=torch.float64, device=self.team.device)
        for batch in self._batches(store):
            guesses = (batch.ct, batch.mri, (batch.ct + batch.mri) / 2)
            totals += torch.stack([loss_of(guess, batch, self.config.loss).double().sum() for guess in guesses])
        totals = self.team.sum(totals) / len(store)
        return found | dict(zip(("ct", "mri", "average"), totals.tolist(), strict=True))

    def _batches(self, store: SliceStore) -> Iterator[Batch]:
        mine = range(self.team.rank, len(store), self.team.world)
        for first in range(0, len(mine), JUDGED_AT_ONCE):
            yield store.batch(mine[first : first + JUDGED_AT_ONCE]).on(self.team.device)

    @contextmanager
    def judged_weights(self) -> Iterator[None]:
        """Put the averaged weights into the network for a while."""
        own = {name: tensor.clone() for name, tensor in self.network.state_dict().items()}
        self.network.load_state_dict(self.averaged)
        try:
            yield
        finally:
            self.network.load_state_dict(own)

    def _save(self, *, best: bool) -> None:
        if not self.team.leads:
            return
        content = {
            "step": self.progress.step,
            "progress": asdict(self.progress),
            "network": self.averaged,
            "trained": self.network.state_dict(),
            "optimiser": self.optimiser.state_dict(),
            "scaler": self.scaler.state_dict(),
            "config": asdict(self.config),
        }
        # The best first: killed between the two, the run goes on from before, and finds the same best again.
        for path in ([self.folder.best] if best else []) + [self.folder.last]:
            save_checkpoint(path, content)

    def resume(self) -> None:
        """Go on from the newest checkpoint, if there is one.

        Raises
        ------
        WeightsError
            It is damaged.
        """
        if not self.folder.last.exists():
            return
        content: dict[str, Any] = load_checkpoint(self.folder.last, self.team.device)
        self.network.load_state_dict(content["trained"])
        for name, tensor in content["network"].items():
            self.averaged[name].copy_(tensor)
        self.optimiser.load_state_dict(content["optimiser"])
        self.scaler.load_state_dict(content["scaler"])
        self.progress = Progress(**content["progress"])

    def _bar(self) -> Any:
        from tqdm import tqdm

        shown = self.team.leads and self.config.log.progress
        # None: only on a terminal.
        return tqdm(total=self.steps, initial=self.progress.step, unit="step", disable=None if shown else True)


def pinned(tensor: torch.Tensor) -> torch.Tensor:
    """Return a tensor that a GPU can fetch by itself."""
    return tensor if tensor.is_cuda else tensor.pin_memory()


def first_network(config: Config) -> FusionNetwork:
    """Return the network before the first step: of random weights, or of those that the configuration names.

    Raises
    ------
    WeightsError
        The weights are missing or damaged, or are not those of this network or of the sha256 given.
    """
    network, start = build_network(config.network), config.training.start
    if not start:
        return network
    weights = load_weights(find_weights(start), config.training.start_sha256 or None)
    check_arrays_fit({name: array.shape for name, array in network.arrays().items()}, weights)
    return network_from_weights(weights).train()
