"""Make a weights file of a checkpoint: ``python -m training.export RUN_FOLDER --output FOLDER``.

FOLDER gets ``weights.npz`` and ``weights.json`` (arrays and manifest, see `fusion.weights`), ``golden.npz`` (an
input, and what the network made of it on the machine that exported it) and ``model_card.md``.
"""

from __future__ import annotations

import argparse
import json
import logging
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from BrainFusionLib.errors import BrainFusionError, ImageFileError
from BrainFusionLib.fusion.network import arrays_of, build_network
from BrainFusionLib.fusion.weights import Manifest, Weights, save_weights
from BrainFusionLib.intensity import unit_pair
from BrainFusionLib.io import atomic_output, write_text
from BrainFusionLib.phantom import head_grid, make_phantom
from BrainFusionLib.volume import VoxelArray
from training.card import model_card
from training.checkpoint import load_checkpoint
from training.config import Config
from training.config_file import config_from
from training.run_folder import git_revision

logger = logging.getLogger("training")

SHIPPABLE = "Apache-2.0"
NOT_SHIPPABLE = "research use only: the terms of the training data do not allow more"


def export(
    checkpoint: Mapping[str, Any],
    output: str | Path,
    made_from: Mapping[str, Any],
    measures: Mapping[str, float] | None = None,
    revision: str | None = None,
) -> Weights:
    """Write the weights of a checkpoint, their manifest, a golden pair and the model card.

    Parameters
    ----------
    checkpoint
        As `checkpoint.load_checkpoint` gives it.
    output
        Folder; is made.
    made_from
        What the slices were made from (``data.json`` of the run).
    measures
        Held-out measures to put into manifest and card, by name.
    revision
        Git revision that the network was trained at; this tree's when ``None``.

    Raises
    ------
    WeightsError
        A weight is not finite, or the checkpoint is of another network.
    ImageFileError
        The folder cannot be written to.
    """
    output = Path(output)
    output.mkdir(parents=True, exist_ok=True)
    config = config_from(checkpoint["config"])
    network = build_network(config.network).eval()
    network.load_state_dict({name: tensor.float().cpu() for name, tensor in checkpoint["network"].items()})
    inputs = golden_input()
    with torch.inference_mode():
        fused = network(torch.from_numpy(inputs)).numpy()
    details = {
        "label": config.label.kind,
        "steps": checkpoint["step"],
        "heldout_loss": checkpoint["progress"]["best"],
        "parameters": sum(tensor.numel() for tensor in network.state_dict().values()),
        "git": revision or git_revision(),
        "measures": dict(measures or {}),
        "config": checkpoint["config"],
        "data_sha256": {
            part: {head: entry["made_sha256"] for head, entry in heads.items()} for part, heads in made_from.items()
        },
    }
    manifest = Manifest(
        architecture={key: value for key, value in config.network.items() if key != "seed"},
        licence=SHIPPABLE if config.data.shippable else NOT_SHIPPABLE,
        training_data=_data_in_words(config),
        details=details,
    )
    weights = save_weights(output / "weights.npz", arrays_of(network), manifest)
    with atomic_output(output / "golden.npz") as temporary:
        np.savez(temporary, input=inputs, output=fused)
    write_text(model_card(weights.manifest), output / "model_card.md")
    return weights


def golden_input() -> VoxelArray:
    """Return what every exported network is tried on: a coarse slice of phantom 0, (1, 3, 64, 48), unit scale."""
    phantom, grid = make_phantom(0), head_grid(4.0).with_spacing((4.0, 4.0, 20.0))
    pair = unit_pair(phantom.ct(grid), phantom.mri("T1", grid))
    images = np.stack([pair.ct_unit, pair.mri_unit, pair.bone_weight])[:, len(pair.ct_unit) * 2 // 3]
    rows, columns = images.shape[1:]
    padded: VoxelArray = np.pad(images, ((0, 0), (0, 64 - rows), (0, 48 - columns)))[None].astype(np.float32)
    return padded


def _data_in_words(config: Config) -> str:
    heads = ", ".join(config.data.train_heads)
    return (
        f"{config.data.source} heads {heads}; labels: {config.label.kind}; terms of the data: {config.data.terms}; "
        f"judged on heads {', '.join(config.data.heldout_heads)}, which were not learned from"
    )


def told_by(run: Path, name: str) -> dict[str, Any]:
    """Read ``data.json`` or ``environment.json`` of a run.

    Raises
    ------
    ImageFileError
        It is missing or damaged.
    """
    path = run / name
    try:
        content: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ImageFileError(f"{path}: cannot be read ({error}). Name the folder of a training run.") from error
    return content


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; return the exit code."""
    parser = argparse.ArgumentParser(prog="python -m training.export", description="Make a weights file of a run.")
    parser.add_argument("run", type=Path, metavar="RUN_FOLDER", help="what training.train wrote")
    parser.add_argument("--checkpoint", default="best.pt", metavar="NAME", help="best.pt (the default) or last.pt")
    parser.add_argument("--output", required=True, type=Path, metavar="FOLDER")
    parser.add_argument("--measures", type=Path, metavar="FILE", help="means.json that training.evaluate wrote")
    arguments = parser.parse_args(argv)
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    try:
        checkpoint = load_checkpoint(arguments.run / arguments.checkpoint)
        measures = json.loads(arguments.measures.read_text(encoding="utf-8")) if arguments.measures else None
        revision = told_by(arguments.run, "environment.json").get("git")
        weights = export(checkpoint, arguments.output, told_by(arguments.run, "data.json"), measures, revision)
    except (BrainFusionError, OSError, ValueError) as error:
        logger.error("%s", error)
        return 2
    logger.info("weights: %s", weights.path)
    return 0


if __name__ == "__main__":
    sys.exit(main())
