"""Registration and fusion by both backends, side by side: ``python -m benchmarks.gpu -o FOLDER``.

Writes ``table.md``: seconds on the CPU and on the card (wall clock, the least of several turns), the card's peak
memory, and how far the results are apart. With ``--device cpu``, torch on the CPU stands for the card: how far the
results are apart can be seen without one.
"""

from __future__ import annotations

import argparse
import logging
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, cast

import numpy as np

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
from BrainFusionLib.metrics import target_registration_errors_mm
from BrainFusionLib.registration import register
from BrainFusionLib.resample import resample_onto
from BrainFusionLib.settings import Device
from BrainFusionLib.volume import AIR_HU, VoxelArray

logger = logging.getLogger("benchmarks")

KINDS = ("plain", "CT 3 mm", "jaw and skin", "chemical shift 1.8 mm", "clinic")
SEED = 11


@dataclass(frozen=True)
class Timed:
    """A result and the least seconds that it took."""

    result: Any
    seconds: float


def timed(work: Callable[[], Any], turns: int) -> Timed:
    """Do some work several times."""
    least, result = float("inf"), None
    for _ in range(turns):
        began = time.perf_counter()
        result = work()
        least = min(least, time.perf_counter() - began)
    return Timed(result, least)


def in_batches(run: Callable[[VoxelArray], VoxelArray], slices: VoxelArray, size: int = 8) -> VoxelArray:
    """Send slices through a network, so many at once."""
    return np.concatenate([run(slices[first : first + size]) for first in range(0, len(slices), size)])


def row_of(kind: str, heads: Path | None, device: str, turns: int) -> list[str]:
    """Return a row of the table: one simulated pair, registered and fused by both backends."""
    import torch

    from benchmarks.registration.run import heads_from
    from simulation.physics.case import make_physics_case
    from simulation.physics.kinds import draw_kind

    case = make_physics_case(heads_from(heads)[0](), draw_kind(kind, SEED), SEED)
    card = OnTorch(device)
    if device != "cpu":
        torch.cuda.reset_peak_memory_stats()
    poses = [timed(partial(register, case.ct, case.mri, device=backend), turns) for backend in (on_cpu(), card)]
    points = case.mri.grid.centre_lps_mm + np.random.default_rng(0).uniform(-70, 70, (500, 3))
    apart = float(target_registration_errors_mm(poses[1].result.transform, poses[0].result.transform, points).max())

    pulled = resample_onto(case.ct, case.mri.grid, poses[0].result.transform, fill=AIR_HU)
    stacks, _ = unit_pair(pulled, case.mri).stacks()
    rows, columns = (n // 16 * 16 for n in stacks.ct_unit.shape[1:])
    given = np.stack([s[:, :rows, :columns] for s in (stacks.ct_unit, stacks.mri_unit, stacks.bone_weight)], axis=1)
    weights = load_weights(find_weights())
    runs = RimNetwork(weights.arrays).runner("cpu"), ready(network_from_weights(weights), torch.device(device))
    maps = [timed(partial(in_batches, run, given), turns) for run in runs]
    fused = [m.result * given[:, :1] + (1 - m.result) * given[:, 1:2] for m in maps]
    off = np.abs(fused[0] - fused[1])

    settings = [replace(Settings(), device=cast(Device, name)) for name in ("cpu", device)]
    whole = [timed(partial(fuse, case.ct, case.mri, each), turns) for each in settings]
    colours = [w.result.verdict.colour for w in whole]
    peak = f"{torch.cuda.max_memory_allocated() / 1e6:.0f} MB" if device != "cpu" else "–"
    pairs = [f"{a.seconds:.2f} → {b.seconds:.2f} s" for a, b in (poses, maps, whole)]
    return [kind, *pairs, peak, f"{apart:.4f} mm", f"{off.max():.4f} ({1e6 * (off > 1e-3).mean():.0f} ppm > .001)",
            " = ".join(dict.fromkeys(colours))]  # fmt: skip


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
    name = "torch on the CPU" if device == "cpu" else torch.cuda.get_device_name(device)
    columns = ["kind", "registration", "weight map", "whole fusion", "peak", "poses apart", "fused apart", "verdict"]
    rows = [row_of(kind, arguments.heads, device, arguments.turns) for kind in arguments.kinds]
    text = "\n".join(
        [
            "# Both backends side by side",
            "",
            f"BrainFusion {__version__}, torch {torch.__version__}; the CPU in C → {name}, wall clock, least of "
            f"{arguments.turns}. Fused values are compared on the unit scale; the verdict is that of both, or both.",
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
