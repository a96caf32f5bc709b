"""Sound and damaged files against the readers: ``python -m benchmarks.attack --inputs 20000 --seed 1``.

Each input is read in a child that is forked from a warm process, with limits of time and memory. Half of the inputs are
sound, in every format, type, orientation, byte order and compression, and must come out with exactly the right values;
the other half are damaged, and must be read or refused with a message. The readers are told that the machine has 2 GB.

Every column after "refused" must be zero; the exit code is 1 if one is not. Inputs are named by seed and number:
``--only NUMBER`` reads one of them and says what happened.
"""

from __future__ import annotations

import argparse
import os
import resource
import shutil
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from benchmarks.attack_inputs import Input, damaged_input, sound_input
from BrainFusionLib.errors import BrainFusionError
from BrainFusionLib.io import budget, read_grey, read_transform, read_volume

LONGEST_S, MOST_BYTES = 20, 2 << 30
OUTCOMES = ("ok", "refused", "wrong", "other exception", "killed", f"> {LONGEST_S} s", "> 2 GB")
QUICK_INPUTS = 600
_STATM = Path("/proc/self/statm")


def make(seed: int, number: int) -> Input:
    """Return an input by its number: even ones are sound, odd ones damaged."""
    random = np.random.default_rng([seed, number])
    return damaged_input(random) if number % 2 else sound_input(random)


def attempt(made: Input, folder: Path) -> tuple[str, str]:
    """Write an input into a folder and read it; return the outcome, and what was said or found."""
    for name, content in made.files.items():
        (folder / name).write_bytes(content)
    path = folder / made.entry
    matrix: npt.ArrayLike = ()
    voxels: npt.ArrayLike = ()
    try:
        if made.name == "transform":
            matrix = read_transform(path, rigid=False).moving_from_fixed_lps
        elif made.name == "picture":
            voxels = read_grey(path)
        else:
            volume = read_volume(path)
            matrix, voxels = volume.grid.lps_from_ijk, volume.array_kji
    except BrainFusionError as error:
        return ("refused" if made.voxels_kji is None and made.lps_from_ijk is None else "wrong"), str(error)
    except BaseException as error:
        return "other exception", f"{type(error).__name__}: {error}"
    if made.voxels_kji is not None and not np.array_equal(voxels, made.voxels_kji.astype(np.float32)):
        return "wrong", "other values"
    if made.lps_from_ijk is not None and not np.allclose(matrix, made.lps_from_ijk, rtol=0, atol=1e-3):
        return "wrong", f"another position: {np.asarray(matrix)}, not {made.lps_from_ijk}"
    return "ok", ""


def in_child(seed: int, number: int) -> tuple[str, str]:
    """Read an input in a forked child with limits; return its outcome, and what it said."""
    folder = Path(tempfile.mkdtemp(prefix="attack-"))
    report_read, report_write = os.pipe()
    child = os.fork()
    if child == 0:
        _read_and_leave(seed, number, folder, report_write)
    os.close(report_write)
    with os.fdopen(report_read, "rb") as stream:
        outcome, _, said = stream.read().decode("utf-8", "replace").partition("\n")
    _, status, usage = os.wait4(child, 0)
    shutil.rmtree(folder, ignore_errors=True)
    if os.WIFSIGNALED(status):
        by = os.WTERMSIG(status)
        return (OUTCOMES[5], "") if by == signal.SIGALRM else ("killed", signal.Signals(by).name)
    if usage.ru_maxrss * 1024 > MOST_BYTES:
        return OUTCOMES[6], f"{usage.ru_maxrss * 1024 / 1e9:.1f} GB"
    return outcome or "killed", said


def _read_and_leave(seed: int, number: int, folder: Path, report: int) -> None:
    signal.signal(signal.SIGALRM, signal.SIG_DFL)  # ends the process; no Python runs to delay it
    signal.setitimer(signal.ITIMER_REAL, LONGEST_S)
    if _STATM.exists():  # so that nothing eats the memory of the machine before it is counted
        most = 4 * MOST_BYTES + int(_STATM.read_text().split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (most, most))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    os.dup2(os.open(os.devnull, os.O_WRONLY), 2)  # what GDCM and libjpeg say
    try:
        outcome, said = attempt(make(seed, number), folder)
    except BaseException as error:
        outcome, said = "other exception", f"the input could not be made: {type(error).__name__}: {error}"
    os.write(report, f"{outcome}\n{said[:3000]}".encode("utf-8", "replace"))
    os._exit(0)


def warm_up() -> None:
    """Load in this process what the children need, and tell the readers how much memory there is."""
    budget.memory_bytes = lambda: MOST_BYTES  # type: ignore[assignment]
    for number in range(0, 60, 2):
        with tempfile.TemporaryDirectory() as folder:
            attempt(make(0, number), Path(folder))


def run(seed: int, numbers: Sequence[int]) -> dict[str, Counter[str]]:
    """Read the inputs of these numbers; return how often each outcome came, for each format, sound and damaged."""
    counts: dict[str, Counter[str]] = {}
    for number in numbers:
        outcome, said = in_child(seed, number)
        name = f"{make(seed, number).name}, {'damaged' if number % 2 else 'sound'}"
        counts.setdefault(name, Counter())[outcome] += 1
        if outcome not in OUTCOMES[:2]:
            print(f"--seed {seed} --only {number}: {name}: {outcome}: {said[:300]}", file=sys.stderr)
    return counts


def table(counts: dict[str, Counter[str]]) -> str:
    """Return the counts as a Markdown table."""
    rows = [["input", *OUTCOMES], ["---"] * (len(OUTCOMES) + 1)]
    rows += [[name, *(str(counts[name][outcome]) for outcome in OUTCOMES)] for name in sorted(counts)]
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.attack", description=__doc__.partition("\n")[0])
    parser.add_argument("--inputs", type=int, default=20_000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--quick", action="store_true", help=f"{QUICK_INPUTS} inputs")
    parser.add_argument("--only", type=int, metavar="NUMBER", help="read one input, and say what happened")
    arguments = parser.parse_args(argv)
    if not hasattr(os, "fork"):
        parser.error("needs a system that forks processes")
    warm_up()
    if arguments.only is not None:
        print(*in_child(arguments.seed, arguments.only), sep=": ")
        return 0
    started = time.monotonic()
    counts = run(arguments.seed, range(QUICK_INPUTS if arguments.quick else arguments.inputs))
    print(table(counts))
    print(
        f"{sum(map(Counter.total, counts.values()))} inputs, seed {arguments.seed}, {time.monotonic() - started:.0f} s"
    )
    return int(any(counter[outcome] for counter in counts.values() for outcome in OUTCOMES[2:]))


if __name__ == "__main__":
    sys.exit(main())
