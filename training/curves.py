"""Draw how runs went: ``python -m training.curves RUN_FOLDER ... --output FILE.png``.

One column a run: the training and held-out loss of every epoch above, the held-out Qabf and soft-tissue error below.
"""

from __future__ import annotations

import argparse
import json
import logging
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from BrainFusionLib.errors import BrainFusionError, ImageFileError, MissingDependencyError
from BrainFusionLib.io import atomic_output

logger = logging.getLogger("training")


def epochs_of(run: Path) -> list[dict[str, Any]]:
    """Return what ``log.jsonl`` of a run says of every epoch.

    Raises
    ------
    ImageFileError
        It is missing or damaged, or no epoch was finished.
    """
    try:
        lines = (run / "log.jsonl").read_text(encoding="utf-8").splitlines()
        epochs = [entry for line in lines if "heldout_loss" in (entry := json.loads(line))]
    except (OSError, ValueError) as error:
        raise ImageFileError(f"{run / 'log.jsonl'}: cannot be read ({error}). Name a run's folder.") from error
    if not epochs:
        raise ImageFileError(f"{run / 'log.jsonl'}: has no epoch yet. Wait for the first one to end.")
    return epochs


def draw(runs: Sequence[Path], path: Path) -> None:
    """Write the curves of runs as a PNG.

    Raises
    ------
    ImageFileError
        A run has no epochs, or the picture cannot be written.
    MissingDependencyError
        matplotlib is not installed.
    """
    told = {run.name: epochs_of(run) for run in runs}
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise MissingDependencyError("the curves need matplotlib: pip install -e '.[train]'") from error
    figure = Figure(figsize=(5.0 * len(told), 5.6), layout="constrained")
    panels = figure.subplots(2, len(told), squeeze=False, sharex="col")
    for (name, epochs), (above, below) in zip(told.items(), panels.T, strict=True):
        numbers = [entry["epoch"] for entry in epochs]
        above.plot(numbers, [entry["train_loss"] for entry in epochs], color="0.6", linestyle="--", label="training")
        above.plot(numbers, [entry["heldout_loss"] for entry in epochs], color="black", label="held out")
        above.set(title=name, ylabel="loss")
        above.legend()
        below.plot(numbers, [entry["heldout_qabf"] for entry in epochs], color="black")
        below.set(xlabel="epoch", ylabel="held-out Qabf (solid)")
        errors = below.twinx()
        errors.plot(numbers, [255 * entry["heldout_soft"] for entry in epochs], color="0.6", linestyle="--")
        errors.set(ylabel="soft-tissue error, levels of 255 (dashed)")
        for axes in (above, below):
            axes.grid(color="0.92")
    with atomic_output(path) as temporary:
        figure.savefig(temporary, format="png", dpi=110)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; return the exit code."""
    parser = argparse.ArgumentParser(prog="python -m training.curves", description="Draw how training runs went.")
    parser.add_argument("runs", nargs="+", type=Path, metavar="RUN_FOLDER")
    parser.add_argument("--output", required=True, type=Path, metavar="FILE.png")
    arguments = parser.parse_args(argv)
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    try:
        draw(arguments.runs, arguments.output)
    except (BrainFusionError, OSError) as error:
        logger.error("%s", error)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
