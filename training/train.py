"""Train a fusion network: ``python -m training.train --config training/configs/smoke.toml --output FOLDER``.

FOLDER gets ``log.jsonl`` (one line an epoch) and the weights, ``weights.npz`` and ``weights.json``.
"""

from __future__ import annotations

import argparse
import json
import logging
import math
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch.utils.data import DataLoader, TensorDataset

from BrainFusionLib.device import pick_device
from BrainFusionLib.errors import BrainFusionError, SettingsError, WeightsError
from BrainFusionLib.network import arrays_of, build_network
from BrainFusionLib.weights import Manifest, Weights, save_weights
from training.config import Config, read_config
from training.data import make_slices

logger = logging.getLogger("training")

Batches = DataLoader[tuple[torch.Tensor, ...]]


@dataclass(frozen=True, eq=False)
class TrainingResult:
    """What a run gave: the weights, and mean absolute errors on the held-out heads (unit scale).

    Parameters
    ----------
    weights
        After the last epoch.
    heldout_loss
        Of the trained network.
    references
        What no network at all would reach: ``untrained`` weights, the best ``constant``, a copy of ``ct`` or ``mri``.
    """

    weights: Weights
    heldout_loss: float
    references: dict[str, float]


def train(config: Config, output: str | Path) -> TrainingResult:
    """Train a network as `config` says, and write log and weights into the folder `output`.

    On the CPU, the same configuration and number of threads give the same weights.

    Raises
    ------
    SettingsError
        The folder holds a run already, or the device is not there.
    WeightsError
        The architecture is unknown, or the loss is no longer a finite number.
    """
    output = Path(output)
    if (output / "log.jsonl").exists():
        raise SettingsError(f"{output}: holds a training run already. Name another folder, or delete this one.")
    device = pick_device(config.training.device)
    network = build_network(config.network).to(device)
    output.mkdir(parents=True, exist_ok=True)

    logger.info("making %d heads", len(config.data.train_heads) + len(config.data.heldout_heads))
    order = torch.Generator().manual_seed(config.training.seed)
    slices = make_slices(config.data.train_heads, config.data)
    batches: Batches = DataLoader(slices, config.training.batch_size, shuffle=True, generator=order)
    heldout_slices = make_slices(config.data.heldout_heads, config.data)
    heldout: Batches = DataLoader(heldout_slices, config.training.batch_size)
    references = {"untrained": heldout_loss(network, heldout, device), **_reference_losses(heldout_slices)}
    logger.info("%d slices, %d held out; %s", len(slices), len(heldout_slices), references)

    optimiser = torch.optim.Adam(network.parameters(), lr=config.training.learning_rate)
    steps = config.training.epochs * len(batches)
    scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, T_max=steps)
    loss = references["untrained"]
    with (output / "log.jsonl").open("w", encoding="utf-8") as log:
        _write_line(log, {"config": asdict(config), "device": str(device), "references": references})
        for epoch in range(1, config.training.epochs + 1):
            started, rate = time.perf_counter(), scheduler.get_last_lr()[0]
            train_loss = _train_epoch(network, batches, optimiser, scheduler, device)
            loss = heldout_loss(network, heldout, device)
            seconds = time.perf_counter() - started
            logger.info("epoch %d: loss %.4f, held out %.4f, %.1f s", epoch, train_loss, loss, seconds)
            _write_line(
                log,
                {
                    "epoch": epoch,
                    "train_loss": train_loss,
                    "heldout_loss": loss,
                    "learning_rate": rate,
                    "seconds": seconds,
                },
            )
    weights = save_weights(output / "weights.npz", arrays_of(network), _manifest(config, loss, references))
    return TrainingResult(weights, loss, references)


def heldout_loss(network: torch.nn.Module, batches: Batches, device: torch.device) -> float:
    """Return the mean absolute error of a network over all pixels of the held-out slices, unit scale."""
    network.eval()
    total, count = 0.0, 0
    with torch.inference_mode():
        for inputs, labels in batches:
            fused = network(_on(device, inputs))
            total += float((fused - labels.to(device)).abs().sum())
            count += labels.numel()
    return total / count


def _train_epoch(
    network: torch.nn.Module,
    batches: Batches,
    optimiser: torch.optim.Optimizer,
    scheduler: torch.optim.lr_scheduler.LRScheduler,
    device: torch.device,
) -> float:
    """Go through all batches once; return the mean of their losses."""
    network.train()
    total = 0.0
    for inputs, labels in batches:
        optimiser.zero_grad(set_to_none=True)
        # The absolute error, not its square, which would spend the network on metal and the air around the head.
        loss = F.l1_loss(network(_on(device, inputs)), labels.to(device))
        if not math.isfinite(loss.item()):
            raise WeightsError(f"the loss became {loss.item()}: the training failed. Lower training.learning_rate.")
        loss.backward()  # type: ignore[no-untyped-call]
        optimiser.step()
        scheduler.step()
        total += loss.item()
    return total / len(batches)


def _on(device: torch.device, inputs: torch.Tensor) -> torch.Tensor:
    return inputs.to(device).contiguous(memory_format=torch.channels_last)


def _reference_losses(slices: TensorDataset) -> dict[str, float]:
    inputs, labels = slices.tensors
    guesses = {"constant": labels.median(), "ct": inputs[:, :1], "mri": inputs[:, 1:]}
    return {name: float((guess - labels).abs().mean()) for name, guess in guesses.items()}


def _manifest(config: Config, loss: float, references: dict[str, float]) -> Manifest:
    return Manifest(
        architecture={key: value for key, value in config.network.items() if key != "seed"},
        licence="Apache-2.0",
        training_data=f"{len(config.data.train_heads)} heads of the project's own phantom; labels: {config.data.rule}",
        details={"config": asdict(config), "heldout_loss": loss, "references": references},
    )


def _write_line(log: Any, entry: dict[str, Any]) -> None:
    log.write(json.dumps(entry) + "\n")
    log.flush()  # so that a run that is killed has told what it did


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; return the exit code."""
    parser = argparse.ArgumentParser(prog="python -m training.train", description="Train a fusion network.")
    parser.add_argument("--config", required=True, metavar="FILE", help="TOML file, see training/configs")
    parser.add_argument("--output", required=True, metavar="FOLDER", help="gets log.jsonl and weights.npz/.json")
    arguments = parser.parse_args(argv)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s", datefmt="%H:%M:%S")
    try:
        result = train(read_config(arguments.config), arguments.output)
    except (BrainFusionError, OSError) as error:  # an OSError names its file, too
        logger.error("%s", error)
        return 2
    logger.info("held-out loss %.4f; weights: %s", result.heldout_loss, result.weights.path)
    logger.info("try them: brainfusion fuse CT MRI -o FOLDER --rule network --weights %s", result.weights.path)
    return 0


if __name__ == "__main__":
    sys.exit(main())
