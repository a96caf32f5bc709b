"""Sound and damaged files against the readers: ``python -m benchmarks.attack --inputs 20000 --seed 1``.

Each input is read in a child that is forked from a warm process, with limits of time and memory. Half of the inputs are
sound, in every format, type, orientation, byte order and compression, and must come out with exactly the right values,
but for folders of results in which a script is planted; the other half are damaged. Both must be read or refused with a
message. What is damaged and read without a note is read once more by another reader (nibabel, ITK), in a child of its
own; where that reads it, both must have read the same. The readers are told that the machine has 2 GB. One volume in
200 also goes through the whole command ``brainfusion fuse``. With ``-o FILE`` the counts are kept there, and a run that
was stopped goes on.

Every column after "refused" must be zero; the exit code is 1 if one is not. Inputs are named by seed and number:
``--only NUMBER`` reads one of them and says what happened. With ``--kills N``, commands are stopped instead: see
`benchmarks.attack_kills`.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from benchmarks import attack_kills
from benchmarks.attack_inputs import damaged_input, sound_input
from benchmarks.attack_parts import Input
from benchmarks.attack_referees import difference
from BrainFusionLib.cli import codes
from BrainFusionLib.errors import BrainFusionError
from BrainFusionLib.io import budget, read_grey, read_transform, read_volume, write_json

LONGEST_S, MOST_BYTES = 20, 2 << 30
OUTCOMES = (
    "ok", "refused", "wrong", "other exception", "killed", f"> {LONGEST_S} s", "> 2 GB", "differs from another reader",
)  # fmt: skip
QUICK_INPUTS = 600
# Every so manieth pair of a sound and a damaged input goes through the command, too; counts are kept after so many.
THROUGH_COMMAND, BATCH = 400, 200
_STATM = Path("/proc/self/statm")


def make(seed: int, number: int) -> Input:
    """Return an input by its number: even ones are sound, odd ones damaged."""
    random = np.random.default_rng([seed, number])
    return damaged_input(random) if number % 2 else sound_input(random)


def attempt(made: Input, folder: Path) -> tuple[str, str]:
    """Write an input into a folder and read it; return the outcome, and what was said or found."""
    notes: tuple[str, ...] = ()
    for name, content in made.files.items():
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_bytes(content)
    path = folder / made.entry
    matrix: npt.ArrayLike = ()
    voxels: npt.ArrayLike = ()
    try:
        if made.read is not None:
            found = made.read(path)
            return ("ok", "") if made.wanted in (None, found) else ("wrong", f"{found}, not {made.wanted}")
        if made.name == "transform":
            matrix = read_transform(path, rigid=False, **made.options).moving_from_fixed_lps
        elif made.name == "picture":
            voxels = read_grey(path)
        else:
            volume = read_volume(path)
            matrix, voxels, notes = volume.grid.lps_from_ijk, volume.array_kji, volume.notes
    except BrainFusionError as error:
        return ("wrong" if made.is_known else "refused"), str(error)
    except BaseException as error:
        return "other exception", f"{type(error).__name__}: {error}"
    if made.voxels_kji is not None and not np.array_equal(voxels, made.voxels_kji.astype(np.float32)):
        return "wrong", "other values"
    if made.lps_from_ijk is not None and not np.allclose(matrix, made.lps_from_ijk, rtol=0, atol=1e-3):
        return "wrong", f"another position: {np.asarray(matrix)}, not {made.lps_from_ijk}"
    if not made.is_known and not notes:
        differs = difference(made.name, path, np.asarray(matrix), np.asarray(voxels))
        if differs:
            return OUTCOMES[7], differs
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
        inherited, _, report = stream.read().decode("utf-8", "replace").partition("\n")
    outcome, _, said = report.partition("\n")
    _, status, usage = os.wait4(child, 0)
    shutil.rmtree(folder, ignore_errors=True)
    if os.WIFSIGNALED(status):
        by = os.WTERMSIG(status)
        return (OUTCOMES[5], "") if by == signal.SIGALRM else ("killed", signal.Signals(by).name)
    grown = usage.ru_maxrss * 1024 - int(inherited or 0)
    if grown > MOST_BYTES:
        return OUTCOMES[6], f"{grown / 1e9:.1f} GB"
    return outcome or "killed", said


def _held_bytes() -> int:
    """Return the memory that this process holds, without mapped files."""
    if not _STATM.exists():
        return 0
    _, resident, shared, *_ = map(int, _STATM.read_text().split())
    return (resident - shared) * resource.getpagesize()


def _read_and_leave(seed: int, number: int, folder: Path, report: int) -> None:
    signal.signal(signal.SIGALRM, signal.SIG_DFL)  # ends the process; no Python runs to delay it
    signal.setitimer(signal.ITIMER_REAL, LONGEST_S)
    # Counted here and not before the fork, at which OpenBLAS gives its memory back.
    os.write(report, f"{_held_bytes()}\n".encode())
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
    for number in range(0, 100, 2):
        with tempfile.TemporaryDirectory() as folder:
            attempt(make(0, number), Path(folder))


def through_command(made: Input) -> tuple[str, str]:
    """Fuse an input with a copy of itself by the whole command; return the outcome, and what was said."""
    with tempfile.TemporaryDirectory(prefix="attack-") as name:
        folder = Path(name)
        for copy in ("ct", "mri"):
            (folder / copy).mkdir()
            for file, content in made.files.items():
                (folder / copy / file).write_bytes(content)
        entries = [str(folder / copy / made.entry) for copy in ("ct", "mri")]
        command = [sys.executable, "-m", "BrainFusionLib", "fuse", *entries, "-o", str(folder / "out")]
        try:
            done = subprocess.run(command, capture_output=True, check=False, timeout=3 * LONGEST_S)
        except subprocess.TimeoutExpired:
            return OUTCOMES[5], ""
    said = done.stderr.decode("utf-8", "replace")
    if done.returncode < 0:
        return "killed", said
    if "Traceback" in said or done.returncode not in (codes.DONE, codes.WRONG_INPUT, codes.NOT_FOUND):
        return "other exception", said
    return ("refused" if done.returncode else "ok"), said


def run(seed: int, numbers: Sequence[int], counts: dict[str, Counter[str]] | None = None) -> dict[str, Counter[str]]:
    """Read the inputs of these numbers; return how often each outcome came, for each format, sound and damaged.

    The outcomes are added to `counts`, if it is given.
    """
    counts = {} if counts is None else counts
    for number in numbers:
        made, outcomes = make(seed, number), [in_child(seed, number)]
        name = f"{made.name}, {'damaged' if number % 2 else 'sound' if made.is_known else 'planted'}"
        if number % THROUGH_COMMAND < 2 and made.name not in ("picture", "transform") and made.read is None:
            outcomes.append(through_command(made))
        for where, (outcome, said) in zip((name, "the whole command"), outcomes, strict=False):
            counts.setdefault(where, Counter())[outcome] += 1
            if outcome not in OUTCOMES[:2]:
                print(f"--seed {seed} --only {number}: {where}: {outcome}: {said[:300]}", file=sys.stderr)
    return counts


def resumed(seed: int, count: int, kept: Path) -> dict[str, Counter[str]]:
    """Read so many inputs as `run` does, but those that a file of an earlier run already counts.

    Raises
    ------
    ValueError
        The file is of another seed.
    """
    counts: dict[str, Counter[str]] = {}
    done = 0
    if kept.exists():
        content = json.loads(kept.read_text(encoding="utf-8"))
        if content["seed"] != seed:
            raise ValueError(f"{kept} is of seed {content['seed']}: name it, or another file")
        counts, done = {name: Counter(counter) for name, counter in content["counts"].items()}, content["done"]
    for start in range(done, count, BATCH):
        end = min(count, start + BATCH)
        run(seed, range(start, end), counts)
        write_json({"seed": seed, "done": end, "counts": counts}, kept)
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
    parser.add_argument("--kills", type=int, metavar="N", help="instead of inputs: stop commands at random moments")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--quick", action="store_true", help=f"{QUICK_INPUTS} inputs")
    parser.add_argument("-o", "--output", type=Path, metavar="FILE", help="keep the counts here, and go on from there")
    parser.add_argument("--only", type=int, metavar="NUMBER", help="read one input, and say what happened")
    arguments = parser.parse_args(argv)
    if not hasattr(os, "fork"):
        parser.error("needs a system that forks processes")
    if arguments.kills is not None:
        return attack_kills.main(arguments.kills, arguments.seed, arguments.output, arguments.only)
    warm_up()
    if arguments.only is not None:
        print(*in_child(arguments.seed, arguments.only), sep=": ")
        return 0
    started = time.monotonic()
    count = QUICK_INPUTS if arguments.quick else arguments.inputs
    kept: Path | None = arguments.output
    counts = resumed(arguments.seed, count, kept) if kept else run(arguments.seed, range(count))
    print(table(counts))
    print(
        f"{sum(map(Counter.total, counts.values()))} inputs, seed {arguments.seed}, {time.monotonic() - started:.0f} s"
    )
    return int(any(counter[outcome] for counter in counts.values() for outcome in OUTCOMES[2:]))


if __name__ == "__main__":
    sys.exit(main())
