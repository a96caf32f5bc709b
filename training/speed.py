"""How fast slices come to the network, and how long the device waits: ``python -m training.speed --config FILE``.

Trains for some steps and throws the result away. Prints slices a second of the data alone, of the training, and the
share of the training's time that was spent waiting for data.
"""

from __future__ import annotations

import argparse
import logging
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from BrainFusionLib.errors import BrainFusionError, SettingsError
from training.config import Config
from training.config_file import read_config
from training.data import open_data
from training.distributed import join_team
from training.loop import Trainer
from training.run_folder import RunFolder

logger = logging.getLogger("training")

WARM_UP_STEPS = 3


@dataclass(frozen=True)
class Speed:
    """Slices a second of the data alone and of the training, and the share of its time that it waited for data."""

    data_slices_per_s: float
    training_slices_per_s: float
    waiting_share: float


def measure_speed(config: Config, steps: int) -> Speed:
    """Measure `steps` steps of a configuration, after a few to warm up."""
    with join_team(config.training.device) as team, tempfile.TemporaryDirectory() as folder:
        data = open_data(config, team.device)
        trainer = Trainer(config, data, team, RunFolder(Path(folder) / "run", config, resume=False))
        began = time.perf_counter()
        for step in range(steps):
            trainer.fetch(step)
        _finish(team.device)
        alone = time.perf_counter() - began
        told = [
            trainer.time_steps(first, first + count) for first, count in ((0, WARM_UP_STEPS), (WARM_UP_STEPS, steps))
        ]
    slices = steps * config.training.batch_size
    seconds, waited = told[-1]
    return Speed(slices / alone, slices / seconds, waited / seconds)


def _finish(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; return the exit code."""
    parser = argparse.ArgumentParser(prog="python -m training.speed", description="Measure the data pipeline.")
    parser.add_argument("--config", required=True, type=Path, metavar="FILE")
    parser.add_argument("--steps", type=int, default=50, metavar="N")
    arguments, overrides = parser.parse_known_args(argv)
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    try:
        if arguments.steps < 1:
            raise SettingsError(f"--steps must be 1 or more; got {arguments.steps}")
        config = read_config(arguments.config, overrides)
        if config.training.threads:
            torch.set_num_threads(config.training.threads)
        speed = measure_speed(config, arguments.steps)
    except (BrainFusionError, OSError) as error:
        logger.error("%s", error)
        return 2
    logger.info("data alone: %.1f slices/s", speed.data_slices_per_s)
    logger.info("training:   %.1f slices/s", speed.training_slices_per_s)
    logger.info("waiting for data: %.2f %% of the time", 100 * speed.waiting_share)
    return 0


if __name__ == "__main__":
    sys.exit(main())
