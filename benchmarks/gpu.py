"""Registration and fusion on a graphics card against the CPU: ``python -m benchmarks.gpu -o FOLDER``.

Writes ``table.md``: seconds on the CPU and on the card (wall clock, the least of several turns after one that is not
counted) and the card's peak memory. With ``--device cpu``, torch on the CPU stands for the card. Whether results are
the same is another benchmark's question: ``python -m benchmarks.backends --device cuda``.
"""

from __future__ import annotations

import argparse
import logging
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from functools import partial
from pathlib import Path
from typing import Any, cast

import numpy as np

from benchmarks.backends import torch_on_the_cpu
from benchmarks.registration.run import heads_from
from BrainFusionLib import Settings, __version__, fuse
from BrainFusionLib.backend import on_cpu
from BrainFusionLib.backend.on_torch import OnTorch
from BrainFusionLib.device import pick_device, require_torch
from BrainFusionLib.fusion.network import network_from_weights, ready
from BrainFusionLib.fusion.rim import RimNetwork
from BrainFusionLib.fusion.weights import find_weights, load_weights
from BrainFusionLib.intensity.unit import unit_pair
from BrainFusionLib.io import write_text
from BrainFusionLib.io.tables import markdown_table
from BrainFusionLib.registration import register
from BrainFusionLib.resample import resample_onto
from BrainFusionLib.settings import Device
from BrainFusionLib.volume import AIR_HU, VoxelArray
from simulation.physics.case import make_physics_case
from simulation.physics.kinds import draw_kind

logger = logging.getLogger("benchmarks")

KINDS = ("plain", "CT 3 mm", "jaw and skin", "chemical shift 1.8 mm", "clinic")
SEED = 11


def least_seconds(work: Callable[[], Any], device: str, turns: int) -> float:
    """Return the least wall-clock seconds of some work; the first turn, which loads and compiles, does not count."""
    import torch

    def finished() -> float:
        if device != "cpu":
            torch.cuda.synchronize(device)
        return time.perf_counter()

    work()
    least = float("inf")
    for _ in range(turns):
        began = finished()
        work()
        least = min(least, finished() - began)
    return least


def in_batches(run: Callable[[VoxelArray], VoxelArray], slices: VoxelArray) -> VoxelArray:
    """Send slices through a network, eight at once."""
    return np.concatenate([run(slices[first : first + 8]) for first in range(0, len(slices), 8)])


def row_of(kind: str, heads: Path | None, device: str, turns: int) -> list[str]:
    """Return a row of the table: one simulated pair, registered and fused by both backends."""
    import torch

    case = make_physics_case(heads_from(heads)[0](), draw_kind(kind, SEED), SEED)
    pose = register(case.ct, case.mri, device="cpu").transform
    stacks, _ = unit_pair(resample_onto(case.ct, case.mri.grid, pose, fill=AIR_HU), case.mri).stacks()
    rows, columns = (n // 16 * 16 for n in stacks.ct_unit.shape[1:])
    given = np.stack([s[:, :rows, :columns] for s in (stacks.ct_unit, stacks.mri_unit, stacks.bone_weight)], axis=1)
    weights = load_weights(find_weights())
    runs = RimNetwork(weights.arrays).runner("cpu"), ready(network_from_weights(weights), torch.device(device))
    backends, names = (on_cpu(), OnTorch(device)), ("cpu", device)
    # The same work twice: on the CPU, and on the card or what stands for it.
    tasks: list[list[Callable[[], Any]]] = [
        [partial(register, case.ct, case.mri, device=backend) for backend in backends],
        [partial(in_batches, run, given) for run in runs],
        [partial(fuse, case.ct, case.mri, Settings(device=cast(Device, name))) for name in names],
    ]
    seconds = [[least_seconds(task[0], "cpu", turns)] for task in tasks]
    if device != "cpu":
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats(device)
    with torch_on_the_cpu() if device == "cpu" else nullcontext():
        for cells, task in zip(seconds, tasks, strict=True):
            cells.append(least_seconds(task[1], device, turns))
    peak = f"{torch.cuda.max_memory_allocated(device) / 1e6:.0f} MB" if device != "cpu" else "–"
    return [kind, *(f"{cpu:.3f} → {card:.3f} s" for cpu, card in seconds), peak]


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; return the exit code."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.gpu", description=__doc__.splitlines()[0])
    parser.add_argument("-o", "--output", type=Path, required=True, metavar="FOLDER")
    parser.add_argument("--device", default="cuda", help="of the backend in torch (default: cuda)")
    parser.add_argument("--heads", type=Path, metavar="FOLDER", help="label maps of heads; otherwise a phantom")
    parser.add_argument("--kinds", nargs="+", default=KINDS, metavar="KIND", help="kinds of pairs to simulate")
    parser.add_argument("--turns", type=int, default=3, metavar="N")
    arguments = parser.parse_args(argv)
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    device, torch = pick_device(arguments.device), require_torch("this benchmark")
    if device == "mps":
        parser.error("mps computes no float64: its registration is the CPU's")
    name = "torch on the CPU" if device == "cpu" else torch.cuda.get_device_name(device)
    columns = ["kind", "registration", "weight map", "whole fusion", "the card's peak"]
    rows = [row_of(kind, arguments.heads, device, arguments.turns) for kind in arguments.kinds]
    text = "\n".join(
        [
            "# The CPU and the card side by side",
            "",
            f"BrainFusion {__version__}, torch {torch.__version__}; the CPU in C → {name}, wall clock, least of "
            f"{arguments.turns}. Aims for a card: registration .05 s, weight map of a head .1 s.",
            "",
            markdown_table(columns, rows),
            "",
        ]
    )
    arguments.output.mkdir(parents=True, exist_ok=True)
    write_text(text, arguments.output / "table.md")
    logger.info("%s", text)
    return 0


if __name__ == "__main__":
    sys.exit(main())
