"""Real commands, stopped at random moments: ``python -m benchmarks.attack --kills 200 --seed 1``.

``brainfusion fuse``, ``brainfusion cohort`` with one and two workers, and ``training.train`` are started on small
phantoms and sent SIGTERM, SIGINT (once or three times, to the command or to its group as Ctrl-C is) or SIGKILL (to the
command or to a worker). The moment is drawn over the whole length of the command; in one kill of four it is when the
results are being written or moved into place, which takes too short to be met by chance. Renames are slowed down, as
on a slow disk, in the kills that aim at them. Then the same is run to its end in the same folder (with one worker, and
in a child forked from a process that has loaded everything: starting anew is most of a small case's time).
"""

from __future__ import annotations

import contextlib
import csv
import hashlib
import io
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from BrainFusionLib.cohort.one_case import SEAL
from BrainFusionLib.errors import BrainFusionError
from BrainFusionLib.folder import WHOLE, complete_replacement, read_case
from BrainFusionLib.io import write_json, write_text, write_volume
from BrainFusionLib.io.leftovers import STAGING, TEMPORARY
from BrainFusionLib.phantom import make_pair

ROOT = Path(__file__).parents[1]
COMMANDS = ("fuse", "cohort, 1 worker", "cohort, 2 workers", "training")
# The signals of one kill, and whom they are sent to.
SIGNALS: tuple[tuple[str, int, int, str], ...] = (
    ("SIGTERM", signal.SIGTERM, 1, "command"),
    ("SIGINT", signal.SIGINT, 1, "command"),
    ("SIGKILL", signal.SIGKILL, 1, "command"),
    ("Ctrl-C", signal.SIGINT, 1, "group"),
    ("SIGKILL of a worker", signal.SIGKILL, 1, "worker"),
    ("Ctrl-C three times", signal.SIGINT, 3, "group"),
    ("SIGTERM of the group", signal.SIGTERM, 1, "group"),
)
FAULTS = (
    "late", "other exit code", "traceback", "half-written", "hidden left", "orphan", "shared memory",
    "next run fails", "other result",
)  # fmt: skip
WITHIN_S, ORPHANS_WITHIN_S, LONGEST_S = 3.0, 5.0, 180.0
# Starts a command with a folder of its own in the place of the system's shared memory, to see what it leaves there.
APART = ["unshare", "--mount", "sh", "-c", 'mount --bind "$0" /dev/shm && exec "$@"']
RESULTS = ("fused.nii.gz", "ct_in_mri.nii.gz", "ct_to_mri.tfm")
SLOW_DISK = """
import os, time
def slowed(plain):
    def moved(*words, **more):
        time.sleep(0.03)
        return plain(*words, **more)
    return moved
if os.environ.get("SLOW_RENAMES"):
    os.rename, os.replace = slowed(os.rename), slowed(os.replace)
"""
TRAINING = """
[data]
source = "phantom"
train_heads = ["1"]
heldout_heads = ["2"]
spacing_mm = 12.0
slice_spacing_mm = 25.0
size = [32, 16]
[network]
name = "fusion_net"
width = 2
[training]
epochs = 12
batch_size = 2
device = "cpu"
checkpoint_steps = 2
threads = 1
[log]
steps = 1
progress = false
"""
Words = list[str]


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


@dataclass
class Stage:
    """The inputs, what the commands give when nobody stops them, and how long that takes.

    Attributes
    ----------
    folder
        Holds everything.
    whole, former
        By command, the folder of a run that was left alone; and that of one with another rule.
    cpu_s
        By command, the processor time of a run that was left alone: a length that does not depend on what else runs.
    """

    folder: Path
    whole: dict[str, Path] = field(default_factory=dict)
    former: dict[str, Path] = field(default_factory=dict)
    cpu_s: dict[str, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.shared = self.folder / "shared-memory"
        self.apart = [*APART, str(self.shared)]

    def prepare(self) -> None:
        """Write the inputs, and run every command once for its result and once for a former one."""
        rows = ["case,ct,mri"]
        for number in range(2):
            pair = make_pair(seed=number, spacing_mm=6.0, rotation_deg=5.0 + number, translation_mm=10.0)
            for name, volume in (("ct", pair.ct), ("mri", pair.mri)):
                write_volume(volume, self.folder / f"{name}{number}.nii.gz")
            rows.append(f"head{number},ct{number}.nii.gz,mri{number}.nii.gz")
        write_text("\n".join(rows) + "\n", self.folder / "manifest.csv")
        write_text(TRAINING, self.folder / "tiny.toml")
        (self.folder / "site").mkdir()
        self.shared.mkdir()
        trial = subprocess.run([*APART, str(self.shared), "true"], capture_output=True, check=False)
        if trial.returncode:
            print("shared memory is not looked at: this needs unshare and root", file=sys.stderr)
            self.apart = []
        write_text(SLOW_DISK, self.folder / "site" / "sitecustomize.py")
        for command in COMMANDS:
            self.whole[command] = self.folder / f"whole-{COMMANDS.index(command)}"
            before = os.times()
            self._left_alone(self.words(command, self.whole[command]), self.whole[command])
            after = os.times()
            self.cpu_s[command] = after[2] + after[3] - before[2] - before[3]
        _warm_up(self.words("fuse", self.folder / "warm"))
        for command in COMMANDS[:2]:
            self.former[command] = self.folder / f"former-{COMMANDS.index(command)}"
            words = self.words(command, self.former[command], rule="average")
            if code := _in_child(words[1:], self.folder / "former-log"):
                raise RuntimeError(f"the former result of {command} ended with {code}")
        self.former[COMMANDS[2]] = self.former[COMMANDS[1]]

    def _left_alone(self, words: Words, output: Path) -> None:
        with self.started(words, output) as run:
            code = run.process.wait(LONGEST_S)
        if code:
            raise RuntimeError(f"{' '.join(words)} ended with {code}: {run.said()}")

    def words(self, command: str, output: Path, *, rule: str = "bone_over_mri", again: bool = False) -> Words:
        """Return the words of a command."""
        if command == "training":
            words = ["-m", "training.train", "--config", str(self.folder / "tiny.toml"), "--output", str(output)]
            words += ["--data.cache", f"{output}-cache"]
            return [*words, "--resume"] if again else words
        common = ["-o", str(output), "--rule", rule, "--preset", "fast", "--device", "cpu"]
        if command == "fuse":
            inputs = [str(self.folder / f"{name}0.nii.gz") for name in ("ct", "mri")]
            return ["-m", "BrainFusionLib", "fuse", *inputs, *common, "--threads", "1"]
        workers = "1" if again or command == COMMANDS[1] else "2"
        return ["-m", "BrainFusionLib", "cohort", str(self.folder / "manifest.csv"), *common, "--workers", workers]

    @contextlib.contextmanager
    def started(self, words: Words, output: Path, *, slow: bool = False) -> Iterator[Run]:
        """Start a command in a session of its own; nothing of it is left after the block."""
        temporary = Path(f"{output}-tmp")
        temporary.mkdir(exist_ok=True)
        environment = os.environ | {
            "PYTHONPATH": os.pathsep.join([str(self.folder / "site"), str(ROOT)]),
            "TMPDIR": str(temporary), "OMP_NUM_THREADS": "1", "SLOW_RENAMES": "1" if slow else "",
            "TORCHINDUCTOR_CACHE_DIR": str(self.folder / "torch"),  # made by torch on its import
        }  # fmt: skip
        log = Path(f"{output}-log")
        with log.open("wb") as stream:
            process = subprocess.Popen(
                [*self.apart, sys.executable, *words], cwd=self.folder, env=environment, stdout=stream, stderr=stream,
                stdin=subprocess.DEVNULL, start_new_session=True,
                # A run in the background of a shell inherits that Ctrl-C is ignored.
                preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
            )  # fmt: skip
        try:
            yield Run(process, log)
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()


@dataclass(frozen=True)
class Run:
    """A command that was started."""

    process: subprocess.Popen[bytes]
    log: Path

    def said(self) -> str:
        """Return what it has printed."""
        return self.log.read_text(encoding="utf-8", errors="replace")

    def cpu_s(self) -> float:
        """Return the processor time that its processes have used."""
        ticks = 0
        for pid in self.processes():
            with contextlib.suppress(OSError):
                status = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
                ticks += sum(map(int, status[11:15]))
        return ticks / os.sysconf("SC_CLK_TCK")

    def processes(self) -> dict[int, str]:
        """Return the running processes of its session, with their command lines."""
        found = {}
        for entry in Path("/proc").iterdir():
            with contextlib.suppress(OSError, IndexError):
                if entry.name.isdecimal():
                    status = (entry / "stat").read_text().rpartition(")")[2].split()
                    if int(status[3]) == self.process.pid and status[0] not in "ZX":
                        found[int(entry.name)] = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode()
        return found


def attempt(stage: Stage, kill: Kill) -> tuple[list[tuple[str, str]], str]:
    """Stop a command as drawn, look at what is left, and run it again; return the faults, and where it was stopped."""
    place = Path(tempfile.mkdtemp(prefix="kill-", dir=stage.folder))
    output, faults = place / "out", Faults()
    if kill.earlier:
        shutil.copytree(stage.former[kill.command], output)
    with stage.started(stage.words(kill.command, output), output, slow=kill.aim != "any time") as run:
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
        _end_of_all(run, began if kill.number == signal.SIGKILL else time.monotonic() - ORPHANS_WITHIN_S + 1, faults)
        said = run.said()
        # Where Python itself was still starting or ending, its own words are.
        by_python = code in (-signal.SIGINT, -signal.SIGTERM, -signal.SIGKILL)
        if not by_python and ("leaked" in said or "Traceback" in said):
            faults.add("traceback", said[-600:])
    if survives or kill.number != signal.SIGKILL:
        _nothing_hidden(place, faults)
    _whole_or_nothing(stage, kill, output, faults)
    code = _in_child(stage.words(kill.command, output, again=True)[1:], Path(f"{output}-log"))
    if code != 0:
        faults.add("next run fails", f"{code}: {Path(f'{output}-log').read_text(errors='replace')[-300:]}")
    _nothing_hidden(place, faults)
    if code == 0:
        _same(stage, kill, output, faults)
    if any(stage.shared.iterdir()):
        faults.add("shared memory", " ".join(path.name for path in stage.shared.iterdir()))
        shutil.rmtree(stage.shared)
        stage.shared.mkdir()
    shutil.rmtree(place, ignore_errors=True)
    return faults.found, where


def _in_child(words: Words, log: Path) -> int | None:
    """Run a command to its end in a forked child; return its exit code, ``None`` if it took too long."""
    child = os.fork()
    if child == 0:
        code = 1
        try:
            stream = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
            os.dup2(stream, 1)
            os.dup2(stream, 2)
            code = _command(words)
        finally:
            os._exit(code)
    until = time.monotonic() + LONGEST_S
    while time.monotonic() < until:
        ended, status = os.waitpid(child, os.WNOHANG)
        if ended:
            return os.waitstatus_to_exitcode(status)
        time.sleep(0.02)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    return None


def _warm_up(words: Words) -> None:
    """Load in this process what the children need."""
    import torch

    torch.set_num_threads(1)  # a pool of threads does not outlive a fork
    import torch._dynamo

    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        _command(words[1:])


def _command(words: Words) -> int:
    import training.train
    from BrainFusionLib import cli

    try:
        return training.train.main(words[1:]) if words[0] == "training.train" else cli.main(words[1:])
    except SystemExit as end:
        return end.code if isinstance(end.code, int) else 1


class Faults:
    """What was found wrong after one kill; each fault counts once."""

    def __init__(self) -> None:
        self.found: list[tuple[str, str]] = []

    def add(self, fault: str, said: str) -> None:
        """Note a fault."""
        if fault not in dict(self.found):
            self.found.append((fault, said))


def _wait(stage: Stage, kill: Kill, run: Run, output: Path) -> None:
    """Return at the moment drawn, or when the command has ended."""
    aims: dict[str, Callable[[], bool]] = {
        "writing": lambda: any(output.glob(f"**/{STAGING}*")) or any(output.glob(f"**/{TEMPORARY}*")),
        "replacing": lambda: any(output.glob(f"**/{WHOLE}")) or (output / "last.pt").exists(),
    }
    if kill.aim == "any time":
        while run.process.poll() is None and run.cpu_s() < kill.moment * stage.cpu_s[kill.command]:
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
            if kill.whom == "group":
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
    return {signal.SIGINT: (130, -2), signal.SIGTERM: (143, -15), signal.SIGKILL: (-9,)}[signal.Signals(kill.number)]


def _end_of_all(run: Run, began: float, faults: Faults) -> None:
    while alive := run.processes():
        if time.monotonic() - began > ORPHANS_WITHIN_S:
            faults.add("orphan", " ".join(alive.values())[:300])
            return
        time.sleep(0.05)


def _nothing_hidden(place: Path, faults: Faults) -> None:
    hidden = [path for prefix in (STAGING, TEMPORARY) for path in place.glob(f"**/{prefix}*")]
    hidden += (place / "out-tmp").iterdir()
    if hidden:
        faults.add("hidden left", " ".join(str(path.relative_to(place)) for path in hidden)[:300])


def _whole_or_nothing(stage: Stage, kill: Kill, output: Path, faults: Faults) -> None:
    """Check a copy of what is left: a reader completes a replacement that was stopped."""
    if not output.exists():
        if kill.earlier:
            faults.add("half-written", "the former result is gone")
        return
    copy = output.with_name("copy")
    shutil.copytree(output, copy)
    try:
        if kill.command == "training":
            _training_is_whole(copy)
            return
        for case in _cases(kill.command):
            former = stage.former[kill.command] / case if kill.earlier else None
            _case_is_whole(copy / case, stage.whole[kill.command] / case, former)
        if (copy / "cohort.tsv").exists():
            _rows(copy)
    except (BrainFusionError, ValueError, KeyError, OSError) as error:
        faults.add("half-written", f"{type(error).__name__}: {error}"[:300])
    finally:
        shutil.rmtree(copy)


def _cases(command: str) -> list[str]:
    return [""] if command == "fuse" else ["head0", "head1"]


def _case_is_whole(case: Path, new: Path, former: Path | None) -> None:
    complete_replacement(case)
    if not (case / "result.json").exists():
        found = [path.name for path in case.iterdir() if not path.name.startswith(".")] if case.exists() else []
        if found or former is not None:
            raise ValueError(f"no result.json, but {found}; former: {former is not None}")
        return
    read_case(case)
    made = [_hashes(folder) for folder in (new, former) if folder is not None]
    if _hashes(case) not in made:
        raise ValueError("the files are neither the new result's nor the former's")
    if not (case / "report.html").read_text(encoding="utf-8").rstrip().endswith("</html>"):
        raise ValueError("the report is cut off")
    if (case / SEAL).exists():
        sealed = json.loads((case / SEAL).read_text(encoding="utf-8"))["files"]
        if any(_sha256(case / name) != wanted for name, wanted in sealed.items()):
            raise ValueError("the seal is of other files")


def _training_is_whole(output: Path) -> None:
    from training.checkpoint import load_checkpoint

    for name in ("last.pt", "best.pt"):
        if (output / name).exists():
            load_checkpoint(output / name)
    for path in output.glob("*.json"):
        json.loads(path.read_text(encoding="utf-8"))
    for path in output.glob("*.npz"):
        np.load(path).close()


def _same(stage: Stage, kill: Kill, output: Path, faults: Faults) -> None:
    """Check that a run to the end gives what it gives when nothing was stopped before."""
    whole = stage.whole[kill.command]
    names, wanted = ({path.relative_to(f).as_posix() for path in f.rglob("*")} for f in (output, whole))
    if names != wanted:
        faults.add("other result", f"files: {sorted(names ^ wanted)}")
        return
    if kill.command == "training":
        same = _training_result(output) == _training_result(whole)
    else:
        same = all(_hashes(output / case) == _hashes(whole / case) for case in _cases(kill.command))
        same = same and (kill.command == "fuse" or _rows(output) == _rows(whole))
    if not same:
        faults.add("other result", "other values")


def _training_result(output: Path) -> list[Any]:
    from training.checkpoint import load_checkpoint

    clocked = ("seconds", "slices_per_s", "waiting_share")
    lines = [json.loads(line) for line in (output / "log.jsonl").read_text(encoding="utf-8").splitlines()]
    tensors = load_checkpoint(output / "last.pt")["trained"]
    return [
        [{key: value for key, value in line.items() if key not in clocked} for line in lines],
        {name: tensor.tolist() for name, tensor in tensors.items()},
        json.loads((output / "weights.json").read_text(encoding="utf-8"))["sha256"],
    ]


def _rows(output: Path) -> list[dict[str, str]]:
    with (output / "cohort.tsv").open(encoding="utf-8", newline="") as stream:
        rows = list(csv.DictReader(stream, delimiter="\t"))
    if any(None in row.values() or "case" not in row for row in rows):
        raise ValueError("cohort.tsv is cut off")
    return [{key: value for key, value in row.items() if key != "seconds"} for row in rows]


def _hashes(folder: Path) -> list[str]:
    return [_sha256(folder / name) for name in RESULTS]


def _sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


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
        stage.prepare()
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
            stage.prepare()
            _count(counts, seed, only, *attempt(stage, draw(seed, only)))
    return int(any(counter[fault] for counter in counts.values() for fault in FAULTS))
