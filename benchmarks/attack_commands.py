"""The commands that `benchmarks.attack_kills` stops, on small phantoms; each in a session and folder of its own."""

from __future__ import annotations

import contextlib
import fcntl
import importlib.util
import io
import os
import select
import signal
import subprocess
import sys
import termios
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from BrainFusionLib.io import write_text, write_volume
from BrainFusionLib.phantom import make_pair

ROOT = Path(__file__).parents[1]
DASK = "cohort, Dask"
COMMANDS = (
    "fuse", "cohort, 1 worker", "cohort, 2 workers", "training",
    *([DASK] if importlib.util.find_spec("distributed") else []),
)  # fmt: skip
LONGEST_S = 180.0
# Starts a command with a folder of its own in the place of the system's shared memory, to see what it leaves there.
APART = ["unshare", "--mount", "sh", "-c", 'mount --bind "$0" /dev/shm && exec "$@"']
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


@dataclass
class Stage:
    """The inputs, what the commands give when nobody stops them, and how long that takes.

    Attributes
    ----------
    folder
        Holds everything.
    whole, former
        By command, the folder of a run that was left alone; and that of one with another rule.
    cpu_s, wall_s
        By command, the processor time of a run that was left alone: a length that does not depend on what else runs;
        and how long it took, for what computes elsewhere.
    scheduler
        Address of the Dask scheduler.
    """

    folder: Path
    whole: dict[str, Path] = field(default_factory=dict)
    former: dict[str, Path] = field(default_factory=dict)
    cpu_s: dict[str, float] = field(default_factory=dict)
    wall_s: dict[str, float] = field(default_factory=dict)
    scheduler: str = ""

    def __post_init__(self) -> None:
        self.shared = self.folder / "shared-memory"
        self.apart = [*APART, str(self.shared)]

    @contextlib.contextmanager
    def prepared(self) -> Iterator[None]:
        """Do what `prepare` does; while the block runs there is a Dask cluster of one worker, if Dask is installed."""
        with contextlib.ExitStack() as stack:
            if DASK in COMMANDS:
                from benchmarks.cohort import dask_cluster

                self.scheduler, _ = stack.enter_context(dask_cluster(workers=1))
            self.prepare()
            yield

    def tasks_running(self) -> int:
        """Return how many tasks the Dask worker is still running, also those that nobody waits for."""
        from distributed import Client

        with Client(self.scheduler) as client:
            return sum(client.run(lambda dask_worker: len(dask_worker.state.all_running_tasks)).values())

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
            before, began = os.times(), time.monotonic()
            self._left_alone(self.words(command, self.whole[command]), self.whole[command])
            after = os.times()
            self.wall_s[command] = time.monotonic() - began
            self.cpu_s[command] = after[2] + after[3] - before[2] - before[3]
        _warm_up(self.words("fuse", self.folder / "warm"))
        for command in COMMANDS[:2]:
            self.former[command] = self.folder / f"former-{COMMANDS.index(command)}"
            words = self.words(command, self.former[command], rule="average")
            if code := in_child(words[1:], self.folder / "former-log"):
                raise RuntimeError(f"the former result of {command} ended with {code}")
        for command in (COMMANDS[2], DASK):
            self.former[command] = self.former[COMMANDS[1]]

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
        workers = ["--workers", "1" if again or command == COMMANDS[1] else "2"]
        if command == DASK and not again:
            workers = ["--scheduler", self.scheduler]
        return ["-m", "BrainFusionLib", "cohort", str(self.folder / "manifest.csv"), *common, *workers]

    @contextlib.contextmanager
    def started(self, words: Words, output: Path, *, slow: bool = False, on_terminal: bool = False) -> Iterator[Run]:
        """Start a command in a session of its own; nothing of it is left after the block.

        On a terminal, its errors and progress go there.
        """
        temporary = Path(f"{output}-tmp")
        temporary.mkdir(exist_ok=True)
        environment = os.environ | {
            "PYTHONPATH": os.pathsep.join([str(self.folder / "site"), str(ROOT)]),
            "TMPDIR": str(temporary), "OMP_NUM_THREADS": "1", "SLOW_RENAMES": "1" if slow else "",
            "TORCHINDUCTOR_CACHE_DIR": str(self.folder / "torch"),  # made by torch on its import
        }  # fmt: skip
        log = Path(f"{output}-log")
        terminal = Terminal() if on_terminal else None

        def prepare_process() -> None:
            # Ignored signals are inherited: Ctrl-C in the background of a shell, the end of a terminal from nohup.
            for number in (signal.SIGINT, signal.SIGHUP):
                signal.signal(number, signal.SIG_DFL)
            if terminal is not None:
                fcntl.ioctl(terminal.inner, termios.TIOCSCTTY, 0)

        with log.open("wb") as stream:
            process = subprocess.Popen(
                [*self.apart, sys.executable, *words], cwd=self.folder, env=environment, stdout=stream,
                stderr=stream if terminal is None else terminal.inner,
                stdin=subprocess.DEVNULL if terminal is None else terminal.inner, start_new_session=True,
                preexec_fn=prepare_process,
            )  # fmt: skip
        if terminal is not None:
            terminal.begin()
        try:
            yield Run(process, log, terminal)
        finally:
            if terminal is not None:
                terminal.close()
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()


class Terminal:
    """A terminal of whom somebody reads until it is closed, which sends SIGHUP to its session."""

    def __init__(self) -> None:
        self._outer, self.inner = os.openpty()
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._closing, self._close = os.pipe()

    def begin(self) -> None:
        """Start reading; the inner end is now the process's alone."""
        os.close(self.inner)
        self._reader.start()

    def _read(self) -> None:
        while True:
            ready, _, _ = select.select([self._outer, self._closing], [], [])
            with contextlib.suppress(OSError):  # the process has ended
                if self._closing not in ready and os.read(self._outer, 4096):
                    continue
            break

    def close(self) -> None:
        """Close it, once."""
        if self._outer >= 0:
            os.write(self._close, b"x")
            self._reader.join()
            for end in (self._outer, self._closing, self._close):
                os.close(end)
            self._outer = -1


@dataclass(frozen=True)
class Run:
    """A command that was started."""

    process: subprocess.Popen[bytes]
    log: Path
    terminal: Terminal | None = None

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


def in_child(words: Words, log: Path) -> int | None:
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
