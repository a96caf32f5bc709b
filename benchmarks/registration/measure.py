"""One method on one case, in a process of its own: time, memory, and how far off it was."""

from __future__ import annotations

import ctypes
import multiprocessing
import os
import signal
import time
from multiprocessing.connection import Connection
from pathlib import Path
from threading import Event

import numpy as np

from benchmarks.registration.methods import METHODS
from BrainFusionLib.errors import BrainFusionError, Cancelled, RegistrationError
from BrainFusionLib.transform import Transform
from simulation.cases import KINDS, Case

# What a run adds to a row of the results.
MEASURED = (
    "error_p95_mm", "error_median_mm", "error_max_mm", "says", "user_cpu_s", "wall_s", "peak_mb", "message"
)  # fmt: skip
# What a method may say. The first three are the colours of this library's verdict.
GAVE_UP = ("red", "refused", "failed", "timeout", "crashed")
POLL_S = 0.2
START_S = 600.0  # to import and prepare, on a machine with other work to do


def single_threaded() -> None:
    """Limit every library that the processes started from here on will load to one thread."""
    for name in (
        "OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "ITK_GLOBAL_DEFAULT_NUMBER_OF_THREADS"
    ):  # fmt: skip
        os.environ[name] = "1"


def measure(case: Case, method: str, timeout_s: float, stop: Event | None = None) -> dict[str, str]:
    """Run a method on a case in a new process and return the fields of `MEASURED`.

    ``says`` is the method's own colour, ``"found"`` where it gives none, ``"refused"`` for a rejection with its reason,
    ``"failed"`` for any other exception, ``"timeout"``, or ``"crashed"`` where the process died. Time and memory count
    from where the method is prepared.

    Raises
    ------
    Cancelled
        `stop` was set meanwhile; the process has been ended.
    ChildProcessError
        The method could not even be prepared, which is no failure on this case.
    """
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe(duplex=False)
    process = context.Process(target=_run, args=(case, method, theirs), daemon=True)
    process.start()
    theirs.close()
    failed = dict.fromkeys(MEASURED, "nan")
    try:
        if _received(ours, START_S, stop) is None:
            raise ChildProcessError(f"{method} could not be prepared for {case.name}; see the messages above")
        try:
            answer = _received(ours, timeout_s, stop)
        except EOFError:
            process.join()
            return failed | {"says": "crashed", "message": f"the process ended with code {process.exitcode}"}
        return answer or failed | {"says": "timeout", "message": f"stopped after {timeout_s:g} s"}
    except EOFError as error:
        raise ChildProcessError(f"{method} could not be prepared for {case.name}; see the messages above") from error
    finally:
        process.kill()
        process.join()
        ours.close()


def _received(ours: Connection, timeout_s: float, stop: Event | None) -> dict[str, str] | None:
    """Return what the process sends, or ``None`` after `timeout_s`; EOFError where it ends without a word."""
    deadline = time.monotonic() + timeout_s
    while not ours.poll(min(POLL_S, max(0.0, deadline - time.monotonic()))):
        if stop is not None and stop.is_set():
            raise Cancelled("the benchmark was stopped")
        if time.monotonic() >= deadline:
            return None
    received: dict[str, str] = ours.recv()
    return received


def _run(case: Case, method: str, answer: Connection) -> None:
    # Ctrl-C reaches the whole group of processes, and would look like a crash of the method.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    _silence_stdout()
    said, message = "found", ""
    found: Transform | None = None
    run = METHODS[method].prepare(case.ct, case.mri)
    answer.send({"says": "prepared"})
    _forget_peak_memory()
    before = _memory_mb("VmRSS")
    began, used = time.perf_counter(), os.times()
    try:
        found, colour = run()
        said = colour or said
    except BrainFusionError as error:
        said, message = "refused", str(error)
        found = error.best_transform if isinstance(error, RegistrationError) else None
    except Exception as error:  # a method that breaks has failed this case, and the next one follows
        said, message = "failed", f"{type(error).__name__}: {error}"
    wall, now = time.perf_counter() - began, os.times()
    # Children's too: a method may start programs.
    user = now.user - used.user + now.children_user - used.children_user
    errors = np.array([np.nan])
    if found is not None and not KINDS[case.kind].negative:
        errors = case.errors_mm(found)
    answer.send(
        {
            "error_p95_mm": f"{np.percentile(errors, 95):.4f}",
            "error_median_mm": f"{np.median(errors):.4f}",
            "error_max_mm": f"{errors.max():.4f}",
            "says": said,
            "user_cpu_s": f"{user:.2f}",
            "wall_s": f"{wall:.2f}",
            "peak_mb": f"{_memory_mb('VmHWM') - before:.0f}",
            "message": " ".join(message.split())[:300],
        }
    )


def _silence_stdout() -> None:
    """Send what compiled code prints nowhere; the results are printed by the process that started this one."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 1)
    os.close(nowhere)


def _forget_peak_memory() -> None:
    """Let the peak start from what is in use now (Linux): the images came through a pipe, which takes them twice."""
    # What was freed goes back to the system, so that a method does not use it uncounted (glibc only).
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None) if os.name == "posix" else None
    if trim is not None:
        trim(0)
    try:
        Path("/proc/self/clear_refs").write_text("5", encoding="ascii")
    except OSError:
        return  # then the peak counts a little too much


def _memory_mb(key: str) -> float:
    """Return a figure of /proc/self/status in MB, NaN where there is none.

    Not getrusage's: on Linux its peak is handed down from the process that started this one.
    """
    status = Path("/proc/self/status")
    lines = status.read_text(encoding="ascii").splitlines() if status.exists() else []
    return next((float(line.split()[1]) / 1024 for line in lines if line.startswith(f"{key}:")), float("nan"))
