"""Real commands, stopped at random moments: ``python -m benchmarks.attack --kills 200 --seed 1``.

``brainfusion fuse``, ``brainfusion cohort`` with one and two workers and on Dask, and ``training.train`` are started on
small phantoms and sent SIGTERM, SIGHUP, SIGINT (once or three times, to the command or to its group as Ctrl-C is) or
SIGKILL (to the command or to a worker); or their terminal is closed. The moment is drawn over the whole length of the
command; in one kill of four it is when the results are being written or moved into place, which takes too short to be
met by chance. Renames are slowed down, as on a slow disk, in the kills that aim at them. Then the same is run to its
end in the same folder (with one worker, and in a child forked from a process that has loaded everything: starting anew
is most of a small case's time).
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from benchmarks.attack_commands import COMMANDS, DASK, LONGEST_S, Run, Stage, in_child
from benchmarks.attack_leftovers import Faults, nothing_hidden, same_result, whole_or_nothing
from BrainFusionLib.case.replacing import WHOLE
from BrainFusionLib.io import write_json
from BrainFusionLib.io.leftovers import STAGING, TEMPORARY

# The signals of one kill, and whom they are sent to.
SIGNALS: tuple[tuple[str, int, int, str], ...] = (
    ("SIGTERM", signal.SIGTERM, 1, "command"),
    ("SIGINT", signal.SIGINT, 1, "command"),
    ("SIGKILL", signal.SIGKILL, 1, "command"),
    ("Ctrl-C", signal.SIGINT, 1, "group"),
    ("SIGKILL of a worker", signal.SIGKILL, 1, "worker"),
    ("Ctrl-C three times", signal.SIGINT, 3, "group"),
    ("SIGTERM of the group", signal.SIGTERM, 1, "group"),
    ("SIGHUP", signal.SIGHUP, 1, "command"),
    ("closed terminal", signal.SIGHUP, 1, "terminal"),
)
FAULTS = (
    "late", "other exit code", "traceback", "half-written", "hidden left", "orphan", "shared memory",
    "next run fails", "other result",
)  # fmt: skip
WITHIN_S, ORPHANS_WITHIN_S = 3.0, 5.0


@dataclass(frozen=True)
class Kill:
    """What is drawn for one kill.

    Attributes
    ----------
    command, how, number, times, whom
        Of `COMMANDS` and `SIGNALS`.
    aim
        ``any time``, ``writing`` or ``replacing``.
    moment
        0 to 1: a part of the command's length, or of the time that writing takes.
    earlier
        Whether the folder holds a result of an earlier run with another rule.
    """

    command: str
    how: str
    number: int
    times: int
    whom: str
    aim: str
    moment: float
    earlier: bool


def draw(seed: int, number: int) -> Kill:
    """Return a kill by its number."""
    random = np.random.default_rng([seed, number])
    command = COMMANDS[number % len(COMMANDS)]
    how, signal_number, times, whom = SIGNALS[number // len(COMMANDS) % len(SIGNALS)]
    if whom == "worker" and command != "cohort, 2 workers":
        how, whom = "SIGKILL", "command"
    aim = str(random.choice(["any time", "writing", "replacing"], p=[0.74, 0.13, 0.13]))
    return Kill(
        command, how, signal_number, times, whom, aim, float(random.random()),
        bool(random.random() < 0.5) and command != "training",
    )  # fmt: skip


def attempt(stage: Stage, kill: Kill) -> tuple[list[tuple[str, str]], str]:
    """Stop a command as drawn, look at what is left, and run it again; return the faults, and where it was stopped."""
    place = Path(tempfile.mkdtemp(prefix="kill-", dir=stage.folder))
    output, faults = place / "out", Faults()
    if kill.earlier:
        shutil.copytree(stage.former[kill.command], output)
    with stage.started(
        stage.words(kill.command, output), output, slow=kill.aim != "any time", on_terminal=kill.whom == "terminal"
    ) as run:
        _wait(stage, kill, run, output)
        where = _where(run, output)
        began = time.monotonic()
        if run.process.poll() is None:
            _send(kill, run)
            if kill.whom == "worker":
                where += ", of a worker"
        expected = _expected_codes(kill, where)
        survives = kill.whom == "worker" or where == "ended"
        code: int | None = None
        with contextlib.suppress(subprocess.TimeoutExpired):
            code = run.process.wait(LONGEST_S if survives else 4 * WITHIN_S)
        took = time.monotonic() - began
        if code is None or (took > WITHIN_S and not survives):
            faults.add("late", f"{took:.1f} s")
        if code is not None and code not in expected and not (code == 0 and took < WITHIN_S):
            faults.add("other exit code", f"{code}: {run.said()[-300:]}")
        if survives:
            began = time.monotonic()  # the command went on after a worker's end: its processes end with it
        elif kill.number != signal.SIGKILL:
            began = time.monotonic() - ORPHANS_WITHIN_S + 1  # one second after the command
        _end_of_all(run, began, faults)
        if kill.command == DASK:
            _end_of_tasks(stage, faults)
        said = run.said()
        # Where Python itself was still starting or ending, its own words are.
        by_python = code in (-signal.SIGINT, -signal.SIGTERM, -signal.SIGHUP, -signal.SIGKILL)
        if not by_python and ("leaked" in said or "Traceback" in said):
            faults.add("traceback", said[-600:])
    if survives or kill.number != signal.SIGKILL:
        nothing_hidden(place, faults)
    whole_or_nothing(stage, kill.command, kill.earlier, output, faults)
    code = in_child(stage.words(kill.command, output, again=True)[1:], Path(f"{output}-log"))
    if code != 0:
        faults.add("next run fails", f"{code}: {Path(f'{output}-log').read_text(errors='replace')[-300:]}")
    nothing_hidden(place, faults)
    if code == 0:
        same_result(stage, kill.command, output, faults)
    if any(stage.shared.iterdir()):
        faults.add("shared memory", " ".join(path.name for path in stage.shared.iterdir()))
        shutil.rmtree(stage.shared)
        stage.shared.mkdir()
    shutil.rmtree(place, ignore_errors=True)
    return faults.found, where


def _wait(stage: Stage, kill: Kill, run: Run, output: Path) -> None:
    """Return at the moment drawn, or when the command has ended."""
    aims: dict[str, Callable[[], bool]] = {
        "writing": lambda: any(output.glob(f"**/{STAGING}*")) or any(output.glob(f"**/{TEMPORARY}*")),
        "replacing": lambda: any(output.glob(f"**/{WHOLE}")) or (output / "last.pt").exists(),
    }
    if kill.aim == "any time":
        until = time.monotonic() + 0.8 * kill.moment * stage.wall_s[DASK] if kill.command == DASK else 0.0
        while run.process.poll() is None and (
            time.monotonic() < until if kill.command == DASK else run.cpu_s() < kill.moment * stage.cpu_s[kill.command]
        ):
            time.sleep(0.03)
    else:
        while run.process.poll() is None and not aims[kill.aim]():
            time.sleep(0.002)
        until = time.monotonic() + kill.moment * (0.3 if kill.aim == "writing" else 0.15)
        while run.process.poll() is None and time.monotonic() < until:
            time.sleep(0.005)
    if kill.whom == "worker":
        while run.process.poll() is None and not _workers(run):
            time.sleep(0.01)


def _workers(run: Run) -> list[int]:
    return sorted(pid for pid, words in run.processes().items() if "spawn_main" in words)


def _where(run: Run, output: Path) -> str:
    if run.process.poll() is not None:
        return "ended"
    if any(output.glob(f"**/{WHOLE}")):
        return "replacing results"
    if any(output.glob(f"**/{STAGING}*")) or any(output.glob(f"**/{TEMPORARY}*")):
        return "writing"
    words = run.said()
    return "computing" if words or output.exists() else "before writing anything"


def _send(kill: Kill, run: Run) -> None:
    for time_left in range(kill.times, 0, -1):
        with contextlib.suppress(ProcessLookupError):
            if run.terminal is not None:
                run.terminal.close()
            elif kill.whom == "group":
                os.killpg(run.process.pid, kill.number)
            else:
                workers = _workers(run) if kill.whom == "worker" else []
                os.kill(workers[0] if workers else run.process.pid, kill.number)
        if time_left > 1:
            time.sleep(0.1)


def _expected_codes(kill: Kill, where: str) -> tuple[int, ...]:
    if where == "ended" or kill.whom == "worker":
        return (0,)
    # A shell shows -2 as 130, and -15 as 143: Python itself was ended, while it started or ended.
    return {
        signal.SIGINT: (130, -2), signal.SIGTERM: (143, -15), signal.SIGHUP: (143, -1), signal.SIGKILL: (-9,),
    }[signal.Signals(kill.number)]  # fmt: skip


def _end_of_all(run: Run, began: float, faults: Faults) -> None:
    while alive := run.processes():
        if time.monotonic() - began > ORPHANS_WITHIN_S:
            faults.add("orphan", " ".join(alive.values())[:300])
            return
        time.sleep(0.05)


def _end_of_tasks(stage: Stage, faults: Faults) -> None:
    """Wait until the Dask worker has noticed that nobody waits for its case."""
    until = time.monotonic() + ORPHANS_WITHIN_S
    while stage.tasks_running():
        if time.monotonic() > until:
            faults.add("orphan", "a case on the Dask worker")
            return
        time.sleep(0.1)


def run(seed: int, count: int, kept: Path | None = None) -> dict[str, Counter[str]]:
    """Do so many kills; return how often each outcome came, for each command and each place where it was stopped.

    Raises
    ------
    ValueError
        The file of an earlier run is of another seed.
    """
    counts: dict[str, Counter[str]] = {}
    done = 0
    if kept is not None and kept.exists():
        content = json.loads(kept.read_text(encoding="utf-8"))
        if content["seed"] != seed:
            raise ValueError(f"{kept} is of seed {content['seed']}: name it, or another file")
        counts, done = {name: Counter(counter) for name, counter in content["counts"].items()}, content["done"]
    if done >= count:
        return counts
    with tempfile.TemporaryDirectory(prefix="attack-") as name:
        stage = Stage(Path(name))
        with stage.prepared():
            for number in range(done, count):
                _count(counts, seed, number, *attempt(stage, draw(seed, number)))
                if kept is not None:
                    write_json({"seed": seed, "done": number + 1, "counts": counts}, kept)
    return counts


def _count(counts: dict[str, Counter[str]], seed: int, number: int, faults: list[tuple[str, str]], where: str) -> None:
    kill = draw(seed, number)
    said = dict(faults) or "ok"
    print(f"--seed {seed} --only {number}: {kill.command}, {kill.how}, {where}: {said}", file=sys.stderr, flush=True)
    for row in (kill.command, f"({kill.how})", f"({where})"):
        counts.setdefault(row, Counter()).update(fault for fault, _ in faults)
        counts[row]["kills"] += 1
        counts[row]["ok"] += not faults


def table(counts: dict[str, Counter[str]]) -> str:
    """Return the counts as a Markdown table: by command, then by signal and by where the command was."""
    columns = ("kills", "ok", *FAULTS)
    rows = [["stopped", *columns], ["---"] * (len(columns) + 1)]
    names = sorted(counts, key=lambda name: (name.startswith("("), name))
    rows += [[name.strip("()"), *(str(counts[name][column]) for column in columns)] for name in names]
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


def main(count: int, seed: int, kept: Path | None, only: int | None) -> int:
    """Do so many kills, or only one of a number, and print what came; return the exit code."""
    began = time.monotonic()
    if only is None:
        counts = run(seed, count, kept)
        print(table(counts))
        print(f"{count} kills, seed {seed}, {time.monotonic() - began:.0f} s")
    else:
        counts = {}
        with tempfile.TemporaryDirectory(prefix="attack-") as name:
            stage = Stage(Path(name))
            with stage.prepared():
                _count(counts, seed, only, *attempt(stage, draw(seed, only)))
    return int(any(counter[fault] for counter in counts.values() for fault in FAULTS))
