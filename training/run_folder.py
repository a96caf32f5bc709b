"""The folder of a run: what was asked, with what it was done, and what came of it."""

from __future__ import annotations

import json
import logging
import platform
import subprocess
import sys
from dataclasses import asdict
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch

from BrainFusionLib import __version__
from BrainFusionLib.errors import MissingDependencyError, SettingsError
from BrainFusionLib.folder import make_output_folder, remove_if_empty
from BrainFusionLib.io import write_json, write_text
from BrainFusionLib.io.leftovers import remove_leftovers
from training.checkpoint import save_tensors
from training.config import Config
from training.losses import Batch

logger = logging.getLogger("training")

PACKAGES = ("numpy", "torch", "SimpleITK", "pillow", "PyWavelets", "tensorboard", "tqdm")


class RunFolder:
    """Files of a run: ``config.json``, ``environment.json``, ``data.json``, ``log.jsonl``, ``tensorboard/``.

    Nothing is written before `begin`.

    Parameters
    ----------
    folder, config
        Where, and what.
    resume
        Whether to resume the run that the folder holds.
    writes
        False in all processes of a team but the first, which makes the folder.

    Raises
    ------
    SettingsError
        The folder holds a run and `resume` is false, or another run's configuration and `resume` is true.
    ImageFileError
        The folder cannot be made or written to.
    """

    def __init__(self, folder: Path, config: Config, *, resume: bool, writes: bool = True) -> None:
        self.folder = folder
        self.last, self.best = folder / "last.pt", folder / "best.pt"
        self._config = config
        self._log = folder / "log.jsonl"
        self._board: Any = None
        self._made: list[Path] = []
        if not writes:
            return
        holds_run = (folder / "config.json").exists() or self._log.exists()
        if holds_run and not resume:
            raise SettingsError(
                f"{folder}: holds a training run already. Add --resume to resume it, name another folder, or "
                "delete this one."
            )
        if holds_run:
            _refuse_another_run(folder / "config.json", config)
        self._made = make_output_folder(folder)

    def begin(self, made_from: dict[str, Any]) -> None:
        """Write what was asked for, with what it is done, and what the slices were made from, with hashes."""
        remove_leftovers(self.folder)
        write_json(asdict(self._config), self.folder / "config.json")
        write_json(environment(), self.folder / "environment.json")
        write_json(made_from, self.folder / "data.json")

    def leave(self) -> None:
        """Remove the folder if it was made for this run and nothing is in it."""
        remove_if_empty(self._made)

    def start_at(self, step: int) -> None:
        """Forget what was logged after a step: a resumed run does it again.

        Raises
        ------
        MissingDependencyError
            TensorBoard is wanted and not installed.
        """
        if self._log.exists():
            lines = self._log.read_text(encoding="utf-8").splitlines()
            kept = [line for line in lines if _step_of(line) is not None and (_step_of(line) or 0) <= step]
            write_text("".join(line + "\n" for line in kept if step > 0), self._log)
        if self._config.log.tensorboard:
            try:
                from torch.utils.tensorboard import SummaryWriter
            except ImportError as error:
                raise MissingDependencyError(
                    "log.tensorboard needs the package tensorboard, which is not installed. "
                    "Run: pip install tensorboard (or set log.tensorboard to false)."
                ) from error
            self._board = SummaryWriter(str(self.folder / "tensorboard"), purge_step=step + 1)

    def log(self, step: int, entry: dict[str, Any]) -> None:
        """Add a line to the log, and its numbers to TensorBoard."""
        with self._log.open("a", encoding="utf-8") as stream:
            stream.write(json.dumps({"step": step, **entry}) + "\n")
        if self._board is not None:
            for name, value in entry.items():
                if isinstance(value, int | float):
                    self._board.add_scalar(name, value, step)

    def show(self, step: int, batch: Batch, fused: torch.Tensor, network: torch.nn.Module) -> None:
        """Show example slices (CT, MRI, fused, label) and histograms of the weights in TensorBoard."""
        if self._board is None:
            return
        images = [batch.ct, batch.mri, fused, *([batch.label] if batch.label.shape[1] else [])]
        if len(fused):
            sheet = torch.cat([image.float().cpu() for image in images], dim=3).clamp(0, 1.5) / 1.5
            self._board.add_images("ct, mri, fused, label", sheet, step)
        for name, parameter in network.named_parameters():
            self._board.add_histogram(name, parameter.detach().float().cpu(), step)

    def save_batch(self, batch: Batch, rank: int) -> Path:
        """Keep a batch for study."""
        path = self.folder / f"bad_batch_rank{rank}.pt"
        save_tensors(path, {name: tensor.cpu() for name, tensor in batch.tensors().items()})
        return path

    def close(self) -> None:
        """Finish what is being written."""
        if self._board is not None:
            self._board.close()


def environment() -> dict[str, Any]:
    """Return what a run depends on besides its configuration and data."""
    return {
        "brainfusion": __version__,
        "git": git_revision(),
        "python": platform.python_version(),
        "packages": {name: _version(name) for name in PACKAGES},
        "platform": platform.platform(),
        "cpu": _cpu(),
        "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
        "threads": torch.get_num_threads(),
        "command": sys.argv,
    }


def _cpu() -> str:
    """Return the processor's name; on Linux the kernel's, because Python's own is the architecture only."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()


def git_revision() -> str:
    """Return the commit of this source tree, with ``-dirty`` where files have been changed; or ``unknown``."""
    try:
        done = subprocess.run(
            ["git", "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*"],
            cwd=Path(__file__).parent, capture_output=True, text=True, check=True, timeout=30,
        )  # fmt: skip
    except (OSError, subprocess.SubprocessError):
        return "unknown"
    return done.stdout.strip()


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def _step_of(line: str) -> int | None:
    """Return the step of a line of the log; ``None`` for one that was cut off when the run was killed."""
    try:
        step = json.loads(line)["step"]
    except (ValueError, KeyError, TypeError):
        return None
    return step if isinstance(step, int) else None


def _refuse_another_run(path: Path, config: Config) -> None:
    try:
        before = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise SettingsError(f"{path}: cannot be read ({error}); the run in this folder cannot be resumed.") from error
    now = json.loads(json.dumps(asdict(config)))
    for table, entries in now.items():
        for key in sorted({*entries, *before.get(table, {})}):
            was = before.get(table, {}).get(key)
            if table != "log" and was != entries.get(key):
                raise SettingsError(
                    f"{path.parent}: this run has {table}.{key} = {was!r}, and {entries.get(key)!r} was asked for now. "
                    "Resume with the run's own configuration, or start a new run in another folder."
                )
