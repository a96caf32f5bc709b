"""How fast fusing is, step by step, with the measured peak of the core: ``python -m benchmarks.speed -o FOLDER``.

Writes ``table.md``. One thread but for the head. CPU seconds, best of several, all in turn in one run, because other
programs come and go; a share of the peak is of the fastest matrix product measured in the same run.
"""

from __future__ import annotations

import argparse
import logging
import platform
import resource
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch

from benchmarks.stages import stage_rows
from BrainFusionLib import Settings, Volume, __version__, fuse
from BrainFusionLib.device import keep_freed_memory
from BrainFusionLib.fusion.network import FusionNet, network_from_weights, ready
from BrainFusionLib.fusion.rim import RimNetwork
from BrainFusionLib.fusion.weights import find_weights, load_weights
from BrainFusionLib.intensity import bone_weight, ct_to_unit, mri_scale
from BrainFusionLib.io import write_text
from BrainFusionLib.io.tables import markdown_table
from BrainFusionLib.native import native
from BrainFusionLib.phantom import head_grid, make_phantom
from BrainFusionLib.transform import RigidTransform

logger = logging.getLogger("benchmarks")

SIZE = 256
HEAD = (220, SIZE, SIZE)
ROUNDS = 15
REFERENCE_WIDTH = 16
MATRIX = 1024


def slice_of_a_head() -> torch.Tensor:
    """Return a slice of the phantom through the ventricles, (1, 3, 256, 256): CT, MRI and bone weight, unit scale."""
    phantom, grid = make_phantom(1), head_grid(1.0).with_spacing((1.0, 1.0, 40.0))
    hu, mri = phantom.ct(grid).array_kji, phantom.mri("T1", grid).array_kji
    low, high = mri_scale(mri)
    middle = len(hu) * 2 // 3
    both = np.stack([ct_to_unit(hu[middle]), (mri[middle] - low) / (high - low), bone_weight(hu[middle])])
    rows, columns = both.shape[1:]
    padded = np.pad(both, ((0, 0), (0, SIZE - rows), (0, SIZE - columns)))
    return torch.from_numpy(padded[None].astype(np.float32))


def multiplications(network: torch.nn.Module, slices: torch.Tensor) -> int:
    """Return the floating-point operations of a network's convolutions (a multiplication and a sum are two)."""
    counted = 0

    def count(layer: torch.nn.Module, given: tuple[torch.Tensor], result: torch.Tensor) -> None:
        nonlocal counted
        counted += 2 * result.numel() * layer.weight[0].numel()  # type: ignore[index]

    hooks = [m.register_forward_hook(count) for m in network.modules() if isinstance(m, torch.nn.Conv2d)]
    with torch.inference_mode():
        network(slices)
    for hook in hooks:
        hook.remove()
    return counted


def best_seconds(tasks: dict[str, Callable[[], object]]) -> dict[str, float]:
    """Return the least CPU seconds of each task; the tasks take turns."""
    best = dict.fromkeys(tasks, float("inf"))
    for turn in range(ROUNDS + 1):
        for name, task in tasks.items():
            task()  # brings its data into the caches, from which the one before has driven it
            began = time.process_time()
            task()
            if turn:  # the first one loads and compiles
                best[name] = min(best[name], time.process_time() - began)
    return best


def measure() -> list[tuple[str, str]]:
    """Return the table's rows."""
    torch.set_num_threads(1)
    given = slice_of_a_head()
    ours = network_from_weights(load_weights(find_weights())).eval()
    reference = FusionNet(REFERENCE_WIDTH).eval()
    operations = multiplications(reference, given)
    cpu, arrays = torch.device("cpu"), given.numpy()
    run_reference, run_ours = ready(reference, cpu), ready(ours, cpu)
    run_compiled = RimNetwork(ours.arrays()).runner("cpu")
    a = torch.rand(MATRIX, MATRIX)
    tasks: dict[str, Callable[[], object]] = {
        "peak": lambda: torch.mm(a, a),
        "reference": lambda: run_reference(arrays),
        "ours, torch": lambda: run_ours(arrays),
        "ours": lambda: run_compiled(arrays),
    }
    seconds = best_seconds(tasks)
    peak = 2 * MATRIX**3 / seconds["peak"] / 1e9
    share = operations / seconds["reference"] / 1e9 / peak
    rows = [
        ("fastest matrix product of the core", f"{peak:.0f} GFLOP/s"),
        (
            f"reference network, width {REFERENCE_WIDTH} ({operations / 1e9:.2f} GFLOP)",
            f"{1000 * seconds['reference']:.1f} ms a slice, {100 * share:.0f} % of that",
        ),
        ("our network, torch", f"{1000 * seconds['ours, torch']:.1f} ms a slice"),
        (f"our network, {'C' if native().library else 'numpy'}", f"{1000 * seconds['ours']:.1f} ms a slice"),
    ]
    return [*rows, _head()]


def _head() -> tuple[str, str]:
    """Measure all that `fuse` does after the registration, on a head of 256x256x220 and two threads."""
    phantom, grid = make_phantom(1), head_grid(1.0)
    volumes = []
    for volume in (phantom.ct(grid), phantom.mri("T1", grid)):
        missing = [most - n for n, most in zip(volume.array_kji.shape, HEAD, strict=True)]
        air = -1000 if volume.modality == "CT" else 0
        array = np.pad(volume.array_kji, [(0, max(0, n)) for n in missing], constant_values=air)
        volumes.append(
            Volume(array, type(grid)(array.shape[::-1], grid.spacing_ijk_mm, grid.origin_lps_mm), volume.modality)
        )
    ct, mri = volumes
    shift = RigidTransform.from_axis_angle((1, 2, 3), 3, (1.3, 2.2, -1.7))
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    wall, cpu = [], []
    for _ in range(4):
        began, began_cpu = time.perf_counter(), time.process_time()
        fuse(ct, mri, Settings(device="cpu", threads=2), transform=shift, check=False)
        wall.append(time.perf_counter() - began)
        cpu.append(time.process_time() - began_cpu)
    more = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024
    size = "×".join(str(n) for n in mri.grid.size_ijk)
    return (
        f"head of {size} after registration, 2 threads",
        f"{min(wall):.2f} s ({min(cpu):.2f} CPU s), {more:.0f} MB beyond the two volumes",
    )


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; return the exit code."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.speed", description=__doc__.splitlines()[0])
    parser.add_argument("-o", "--output", type=Path, required=True, metavar="FOLDER")
    parser.add_argument(
        "--pair", nargs=2, type=Path, metavar=("CT", "MRI"), help="what to fuse for the table of steps (a phantom)"
    )
    arguments = parser.parse_args(argv)
    if arguments.pair and not all(path.exists() for path in arguments.pair):
        parser.error("a file of --pair is not there")
    keep_freed_memory()  # as the console command and Slicer's worker do
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    lines = [
        "# Fusion: speed",
        "",
        f"BrainFusion {__version__}, torch {torch.__version__}, {platform.machine()}, Python "
        f"{platform.python_version()}; `python -m benchmarks.speed -o docs/speed`. Slices are 256×256, on one thread; "
        f"CPU seconds, best of {ROUNDS}.",
        "",
        markdown_table(["task", "measured"], measure()),
        "",
        f"Where the seconds of `brainfusion fuse` go ({'a pair of files' if arguments.pair else 'phantom of 1 mm'}); "
        "the CPU seconds of a step are those of its thread:",
        "",
        markdown_table(["step", "s", "CPU s"], stage_rows(arguments.pair)),
        "",
    ]
    arguments.output.mkdir(parents=True, exist_ok=True)
    write_text("\n".join(lines), arguments.output / "table.md")
    logger.info("%s", "\n".join(lines))
    return 0


if __name__ == "__main__":
    sys.exit(main())
