"""What a registration and its evidence cost: ``python -m benchmarks.register_cost --base FOLDER``.

The folder is a checkout of the revision to compare with. Simulated pairs are given in turn to one process of either
revision; CPU seconds, the least of several turns, on one thread, because other programs come and go. A revision that
measured less does what it did: 1d2534d registers, resamples, and measures local errors and the skull.
"""

from __future__ import annotations

import argparse
import importlib
import json
import logging
import os
import subprocess
import sys
import sysconfig
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

logger = logging.getLogger("benchmarks")

# Those in the middle need the second fit, inside the skull.
KINDS = ("plain", "jaw and skin", "chemical shift 1.8 mm", "CT 3 mm")
SEED, TURNS = 11, 2
HERE = Path(__file__).resolve().parents[1]
# Module, function and name of each part; a revision lacks some. A part's seconds are without those of parts in it.
PARTS = (
    ("BrainFusionLib.registration", "register", "pose"),
    ("BrainFusionLib.case.run", "inside_skull", "inside of the skull"),
    ("BrainFusionLib.resample", "resample_onto", "resampling"),
    ("BrainFusionLib.registration.local", "local_errors", "local errors"),
    ("BrainFusionLib.verdict.local", "local_errors", "local errors"),
    ("BrainFusionLib.registration.skull", "skull_fit", "skull band"),
    ("BrainFusionLib.verdict.skull", "skull_fit", "skull band"),
    ("BrainFusionLib.verdict.inside", "inside_evidence", "air and holes"),
    ("BrainFusionLib.verdict.brain_shift", "brain_shift", "brain shift"),
    ("BrainFusionLib.verdict.skull_field", "skull_field", "scale and distortion"),
    ("BrainFusionLib.verdict.distortion", "both_of", "scale and distortion"),
)
# What 1d2534d did not have.
NEW = ("inside of the skull", "air and holes", "brain shift", "scale and distortion")
Seconds = dict[str, float]


# --- the process of one revision -------------------------------------------------------------------------------------


class Watch:
    """CPU seconds by part, without those of the parts within."""

    def __init__(self) -> None:
        self.seconds: Seconds = {}
        self._within = [0.0]

    def around(self, name: str, function: Callable[..., Any]) -> Callable[..., Any]:
        """Return a function that is measured."""

        def measured(*given: Any, **named: Any) -> Any:
            self._within.append(0.0)
            began = time.process_time()
            try:
                return function(*given, **named)
            finally:
                whole = time.process_time() - began
                self.seconds[name] = self.seconds.get(name, 0.0) + whole - self._within.pop()
                self._within[-1] += whole

        return measured


def serve() -> None:
    """Read the path of a pair on each line, register it, and write the seconds of each part as JSON."""
    import torch

    torch.set_num_threads(1)
    watch = Watch()
    for module, function, name in PARTS:
        try:
            home = importlib.import_module(module)
        except ImportError:
            continue
        if hasattr(home, function):
            setattr(home, function, watch.around(name, getattr(home, function)))
    for line in sys.stdin:
        ct, mri = _loaded(Path(line.strip()))
        watch.seconds.clear()
        began = time.process_time()
        _registered(ct, mri)
        whole = time.process_time() - began
        rest = whole - sum(watch.seconds.values())
        print(json.dumps({"all": whole, **watch.seconds, "the rest": rest}), flush=True)


def _registered(ct: Any, mri: Any) -> None:
    try:
        from BrainFusionLib.case import register
    except ImportError:
        from BrainFusionLib import intensity, registration, resample
        from BrainFusionLib.volume import Volume

        local, skull = (importlib.import_module(f"BrainFusionLib.registration.{name}") for name in ("local", "skull"))
        found = registration.register(ct, mri, device="cpu")
        pulled = resample.resample_onto(ct, mri.grid, found.transform, fill=-1000)
        ct_in_mri = Volume(np.rint(pulled.array_kji), mri.grid, "CT")
        intensity.mri_scale(mri.array_kji)
        local.local_errors(ct_in_mri, mri)
        skull.skull_fit(ct_in_mri, mri, intensity.ct_head_mask(ct_in_mri))
    else:
        register(ct, mri, device="cpu")


def _loaded(path: Path) -> tuple[Any, Any]:
    from BrainFusionLib.geometry import Grid
    from BrainFusionLib.volume import Volume

    volumes = []
    with np.load(path) as stored:
        for name, modality in (("ct", "CT"), ("mri", "MR")):
            i, j, k = stored[name].shape[::-1]
            spacing, origin = (tuple(stored[f"{name}_{part}"].tolist()) for part in ("spacing", "origin"))
            grid = Grid((i, j, k), spacing, origin, stored[f"{name}_direction"])
            volumes.append(Volume(stored[name], grid, modality, name.upper()))  # type: ignore[arg-type]
    return volumes[0], volumes[1]


# --- the pairs and the comparison ------------------------------------------------------------------------------------


def _pair(kind: str, heads: Path | None, path: Path) -> None:
    from benchmarks.registration.run import heads_from
    from simulation.physics.case import make_physics_case
    from simulation.physics.kinds import draw_kind

    case = make_physics_case(heads_from(heads)[0](), draw_kind(kind, SEED), SEED)
    stored: dict[str, npt.NDArray[Any]] = {}
    for name, volume in (("ct", case.ct), ("mri", case.mri)):
        stored[name], stored[f"{name}_direction"] = volume.array_kji, volume.grid.direction
        stored[f"{name}_spacing"] = np.array(volume.grid.spacing_ijk_mm)
        stored[f"{name}_origin"] = np.array(volume.grid.origin_lps_mm)
    np.savez(path, **stored)  # type: ignore[arg-type]


def _process(checkout: Path) -> subprocess.Popen[str]:
    # Without `site`, because an editable installation would put its own library before that of the checkout.
    path = os.pathsep.join([str(checkout), sysconfig.get_path("purelib")])
    environment = {**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(
        [sys.executable, "-S", str(Path(__file__).resolve()), "--serve"], cwd=checkout, env=environment, text=True,
        stdin=subprocess.PIPE, stdout=subprocess.PIPE,
    )  # fmt: skip


def _asked(process: subprocess.Popen[str], path: Path) -> Seconds:
    assert process.stdin is not None
    assert process.stdout is not None
    process.stdin.write(f"{path}\n")
    process.stdin.flush()
    answer: Seconds = json.loads(process.stdout.readline())
    return answer


def compare(base: Path, heads: Path | None, kinds: Sequence[str]) -> str:
    """Return the tables of seconds: the base's, ours and their ratio."""
    from BrainFusionLib.io.tables import markdown_table

    rows: list[list[str]] = []
    parts: dict[str, list[str]] = {name: [] for name in dict.fromkeys([p[2] for p in PARTS] + ["the rest"])}
    with tempfile.TemporaryDirectory() as folder, _process(base) as before, _process(HERE) as now:
        for kind in kinds:
            path = Path(folder) / "pair.npz"
            _pair(kind, heads, path)
            turns = [(_asked(before, path), _asked(now, path)) for _ in range(TURNS + 1)][1:]
            least = [{n: min(t[side].get(n, 0.0) for t in turns) for n in ("all", *parts)} for side in (0, 1)]
            rows.append([kind])
            for name in ("pose", "all"):
                old, new = (side[name] for side in least)
                rows[-1] += [f"{old:.2f}", f"{new:.2f}", f"{new / old:.2f}"]
            rows[-1].append(f"{sum(least[1][name] for name in NEW):.2f}")
            for name, cells in parts.items():
                cells.append(f"{least[0][name]:.2f} → {least[1][name]:.2f}")
        for process in (before, now):
            assert process.stdin is not None
            process.stdin.close()
    columns = ["kind", "pose, base", "pose, now", "ratio", "all, base", "all, now", "ratio", "new evidence"]
    by_part = markdown_table(["part", *kinds], [[name, *cells] for name, cells in parts.items()])
    return "\n".join([markdown_table(columns, rows), "", by_part])


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; return the exit code."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.register_cost", description=__doc__.splitlines()[0])
    parser.add_argument("--base", type=Path, metavar="FOLDER", help="a checkout of the revision to compare with")
    parser.add_argument("--heads", type=Path, metavar="FOLDER", help="label maps of heads; otherwise a phantom")
    parser.add_argument("--kinds", nargs="+", default=KINDS, metavar="KIND", help="kinds of pairs to simulate")
    parser.add_argument("--serve", action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_args(argv)
    if arguments.serve:
        serve()
        return 0
    if arguments.base is None:
        parser.error("--base is needed")
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    logger.info("%s", compare(arguments.base.resolve(), arguments.heads, arguments.kinds))
    return 0


if __name__ == "__main__":
    sys.exit(main())
