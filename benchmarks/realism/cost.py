"""What registration and evidence cost beside another revision: ``python -m benchmarks.realism.cost --beside WORKTREE``.

Simulates a pair of each kind, and runs ``brainfusion register`` on it with this revision and with the one whose work
tree is named (``git worktree add WORKTREE REVISION``), in turn. Prints the user CPU seconds of the whole command, one
thread, least of several runs: import, reading, registration and all evidence.
"""

from __future__ import annotations

import argparse
import os
import resource
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from benchmarks.registration.run import heads_from
from BrainFusionLib.io import write_volume
from BrainFusionLib.io.tables import markdown_table
from simulation.physics.case import make_physics_case
from simulation.physics.kinds import draw_kind

KINDS = ("plain", "chemical shift 1.8 mm", "jaw and skin", "T2 5+1 mm")
SEED = 9000
HERE = Path(__file__).resolve().parents[2]


def cpu_s(revision: Path, folder: Path) -> float:
    """Return the user CPU seconds of registering the pair in a folder with the code of a revision."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN).ru_utime
    command = [sys.executable, "-m", "BrainFusionLib", "register", "ct.nii", "mri.nii", "-o", f"{revision.name}.tfm"]
    subprocess.run(
        command, cwd=folder, check=True, capture_output=True,
        env=os.environ | {"PYTHONPATH": str(revision), "OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    return resource.getrusage(resource.RUSAGE_CHILDREN).ru_utime - before


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; return the exit code."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.realism.cost", description=__doc__.splitlines()[0])
    parser.add_argument("--beside", type=Path, required=True, metavar="WORKTREE", help="work tree of another revision")
    parser.add_argument("--heads", type=Path, metavar="FOLDER", help="label maps (SynthSeg's classes); else phantoms")
    parser.add_argument("--rounds", type=int, default=4, metavar="N", help="runs of each (4)")
    arguments = parser.parse_args(argv)
    other = arguments.beside.resolve()
    heads, rows = heads_from(arguments.heads), []
    for number, kind in enumerate(KINDS):
        case = make_physics_case(heads[number](), draw_kind(kind, SEED + number), SEED + number)
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            write_volume(case.ct, folder / "ct.nii")
            write_volume(case.mri, folder / "mri.nii")
            # The first run of each reads files that are not cached, and is not counted.
            timed = [(cpu_s(other, folder), cpu_s(HERE, folder)) for _ in range(arguments.rounds + 1)][1:]
        theirs, ours = (min(seconds) for seconds in zip(*timed, strict=True))
        rows.append((kind, f"{theirs:.2f}", f"{ours:.2f}", f"{ours - theirs:.2f}", f"{ours - 1.4 * theirs:.2f}"))
    print(markdown_table(("kind", "theirs, CPU s", "ours, CPU s", "more", "more than 1.4 times"), rows))
    return 0


if __name__ == "__main__":
    sys.exit(main())
