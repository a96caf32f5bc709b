"""Train a fusion network: ``python -m training.train --config training/configs/smoke.toml --output FOLDER``.

Any setting can be given on the command line as ``--table.key value``. FOLDER gets the log, the checkpoints and, in the
end, the weights; with ``--resume`` a run that was stopped, however, goes on as if it had not been. ``torchrun
--nproc-per-node N -m training.train …`` shares the work between N processes.
"""

from __future__ import annotations

import argparse
import logging
import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from BrainFusionLib.errors import BrainFusionError
from BrainFusionLib.fusion.network import build_network
from BrainFusionLib.fusion.weights import Weights
from BrainFusionLib.stopping import INTERRUPTED, ending_on_signals
from training.checkpoint import load_checkpoint
from training.config import Config
from training.config_file import read_config
from training.data import open_data
from training.distributed import Team, join_team
from training.export import export
from training.loop import Trainer
from training.run_folder import RunFolder

logger = logging.getLogger("training")


@dataclass(frozen=True, eq=False)
class TrainingResult:
    """What a run gave.

    Parameters
    ----------
    weights
        The best on the held-out heads; ``None`` in all processes but the first.
    heldout_loss
        Theirs.
    references
        What no learning at all would reach: the ``untrained`` network, a copy of ``ct`` or ``mri``, their ``average``.
        Empty for a resumed run.
    """

    weights: Weights | None
    heldout_loss: float
    references: dict[str, float]


def train(config: Config, output: str | Path, *, resume: bool = False) -> TrainingResult:
    """Train a network as `config` says, and write log, checkpoints and weights into the folder `output`.

    On the CPU, the same configuration and number of threads give the same weights, stopped and resumed or not.

    Raises
    ------
    SettingsError
        The folder holds a run already (or another one than is to be resumed), the device is not there, or the data's
        heads are not.
    WeightsError
        The architecture is unknown, the loss is no longer a finite number, or the checkpoint is damaged.
    ImageFileError, ImageContentError, GeometryError, RegistrationError
        A head cannot be used; the message names the file.
    """
    build_network(config.network)  # what can be refused at once, is
    _set_up(config)
    with join_team(config.training.device) as team:
        return _train(config, Path(output), team, resume)


def _train(config: Config, output: Path, team: Team, resume: bool) -> TrainingResult:
    folder = RunFolder(output, config, resume=resume, writes=team.leads)
    try:
        data = open_data(config, team.device, (team.rank, team.world), team.wait)
        trainer = Trainer(config, data, team, folder)
        if resume:
            trainer.resume()
    except BaseException:
        folder.leave()
        raise
    references: dict[str, float] = {}
    if team.leads:
        folder.begin(data.made_from)
        folder.start_at(trainer.progress.step)
    if trainer.progress.step == 0:
        references = trainer.references(data.heldout)
        if team.leads:
            folder.log(0, {"device": str(team.device), "world": team.world, "references": references})
            logger.info("%d slices held out; without learning: %s", len(data.heldout), references)
    best = trainer.run()
    folder.close()
    weights = export(load_checkpoint(folder.best), output, data.made_from) if team.leads else None
    return TrainingResult(weights, best, references)


def _set_up(config: Config) -> None:
    if config.training.threads:
        torch.set_num_threads(config.training.threads)
    if config.training.deterministic:
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # asked for by CUDA's documentation
        torch.use_deterministic_algorithms(True)
        torch.backends.cudnn.benchmark = False


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; return the exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m training.train",
        description="Train a fusion network.",
        epilog="Any setting can be given as --table.key value, for example --training.epochs 3.",
    )
    parser.add_argument("--config", required=True, metavar="FILE", help="TOML file, see training/configs")
    parser.add_argument("--output", required=True, metavar="FOLDER", help="gets log, checkpoints and weights")
    parser.add_argument("--resume", action="store_true", help="resume the run in FOLDER")
    arguments, overrides = parser.parse_known_args(argv)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s", datefmt="%H:%M:%S")
    try:
        with ending_on_signals():
            config = read_config(arguments.config, overrides)
            result = train(config, arguments.output, resume=arguments.resume)
    except KeyboardInterrupt:
        logger.error("interrupted; --resume goes on from the last checkpoint")
        return INTERRUPTED
    except BrainFusionError as error:
        logger.error("%s", error)
        return 2
    except OSError as error:  # of a full disk it names no file
        logger.error("%s: %s; --resume goes on", error.filename or arguments.output, error.strerror or error)
        return 2
    if result.weights is not None:
        logger.info("held-out loss %.4f; weights: %s", result.heldout_loss, result.weights.path)
        logger.info("try them: brainfusion fuse CT MRI -o FOLDER --rule network --weights %s", result.weights.path)
    return 0


if __name__ == "__main__":
    sys.exit(main())
