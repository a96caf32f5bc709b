"""Where a fusion runs: in this process, or in a worker process that keeps the window alive.

No slicer and no Qt in here: time comes from a `Ticker`, which in Slicer is a QTimer. All callbacks are called from a
tick, that is on the main thread.
"""

from __future__ import annotations

import contextlib
import logging
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from BrainFusionLib import case
from BrainFusionLib.case import Request, Result
from BrainFusionLib.errors import Cancelled, ImageFileError, SettingsError
from BrainFusionLib.geometry import FloatArray
from BrainFusionLib.progress import Progress
from BrainFusionLib.settings import OutputSettings
from BrainFusionSlicer import jobs
from BrainFusionSlicer.exporting import ExportInputs, export, remove_what_a_kill_left, results_in
from BrainFusionSlicer.job_folders import KeptFolders, make_folder, remove_abandoned_folders
from BrainFusionSlicer.jobs import ExportOrder, RawInputs, RawVolume, WritingOrder
from BrainFusionSlicer.worker_process import EndedError, WorkerProcess

logger = logging.getLogger(__name__)

Done = Callable[[Result | None, Exception | None], None]
ExportDone = Callable[[tuple[str, ...] | jobs.Shapes | None, Exception | None], None]

PREPARING = "preparing"
CANCELLED = "Cancelled; nothing was changed."
# After so long the window gets a turn.
FEEDING_S = 0.02
# Of a fusion: fused volume, weight, CT and MRI on its grid, float32.
MOST_RESULTS, BYTES_PER_VOXEL = 4, 4


class _UnreadableError(EndedError):
    """The worker process said something that is not a message."""


class Runner(Protocol):
    """Runs one job at a time. `done` is called exactly once for each, with a result or with an error."""

    @property
    def busy(self) -> bool:
        """Whether a job is running."""

    def run(self, request: Request, inputs: RawInputs, progress: Progress, done: Done) -> None:
        """Start a job."""

    def export(self, order: WritingOrder, inputs: ExportInputs, progress: Progress, done: ExportDone) -> None:
        """Start an export, or what is shown in 3D: these are jobs, too."""

    def warm_up(self) -> None:
        """Make ready for a job; returns at once."""

    def cancel(self) -> None:
        """End the job that is running, if there is one; its `done` gets `Cancelled`."""

    def close(self) -> None:
        """End all, for good."""


class Ticker(Protocol):
    """Calls a function some tens of times a second on the main thread, from `start` to `stop`."""

    def start(self, call: Callable[[], None]) -> None:
        """Begin to call."""

    def stop(self) -> None:
        """Call no more."""


class InProcessRunner:
    """Runs a job at once, in this process: for batches and scripts without a window."""

    def __init__(self) -> None:
        self.busy = False
        self._cancelled = False

    def run(self, request: Request, inputs: RawInputs, progress: Progress, done: Done) -> None:
        """Do the job, and return when it is done."""
        _refuse_second(self.busy)
        self.busy, self._cancelled = True, False
        result: Result | None = None
        problem: Exception | None = None
        try:
            result = case.run(request, inputs.copied(), progress, lambda: self._cancelled)
        except Exception as error:
            problem = error
        finally:
            self.busy = False
        done(result, problem)

    def export(self, order: WritingOrder, inputs: ExportInputs, progress: Progress, done: ExportDone) -> None:
        """Export, and return when it is done."""
        _refuse_second(self.busy)
        self.busy, self._cancelled = True, False
        files: tuple[str, ...] | jobs.Shapes | None = None
        problem: Exception | None = None
        try:
            files = export(order, inputs, progress, lambda: self._cancelled)
        except Exception as error:
            problem = error
        finally:
            self.busy = False
        done(files, problem)

    def warm_up(self) -> None:
        """Do nothing: this process is there."""

    def cancel(self) -> None:
        """Ask the job to stop; it does so at its next step."""
        self._cancelled = True

    def close(self) -> None:
        """Cancel."""
        self.cancel()


class ProcessRunner:
    """Runs jobs in a worker process, which is started with the first one and kept for the next.

    Parameters
    ----------
    command
        The Python to run the worker with.
    library_folder
        Where BrainFusionLib is.
    ticker
        What to be called by while a job runs.
    environment
        Environment variables of the worker; this process's when ``None``.
    """

    def __init__(
        self,
        command: Sequence[str],
        library_folder: str | Path,
        ticker: Ticker,
        environment: dict[str, str] | None = None,
    ) -> None:
        remove_abandoned_folders()
        worker = Path(__file__).with_name("worker.py")
        self._command = [*command, str(worker), str(library_folder)]
        self._ticker = ticker
        self._environment = environment
        self._worker: WorkerProcess | None = None
        self._folder: Path | None = None
        self._kept = KeptFolders()
        self._feeding: Iterator[jobs.Order | float] | None = None
        self._tidy: Callable[[tuple[int, ...]], None] = _nothing_to_tidy  # what a job leaves that is ended amid
        self._ended: tuple[int, ...] = ()  # the process that did it
        self._progress: Progress = lambda stage, fraction: None
        self._done: Callable[[Any, Exception | None], None] | None = None
        self._is_kept_warm = False

    @property
    def busy(self) -> bool:
        """Whether a job is running."""
        return self._done is not None

    @property
    def child_pid(self) -> int | None:
        """The process id of the command that was started, if there is a worker now."""
        return None if self._worker is None else self._worker.popen.pid

    def run(self, request: Request, inputs: RawInputs, progress: Progress, done: Done) -> None:
        """Start a job and return at once.

        Raises
        ------
        SettingsError
            One is running already.
        ImageFileError
            There is not enough space for its voxels, or the worker cannot be started.
        """
        _refuse_second(self.busy)
        self._begin(request, inputs.by_role(), bytes_of_job(request, inputs), progress, done)

    def export(self, order: WritingOrder, inputs: ExportInputs, progress: Progress, done: ExportDone) -> None:
        """Start an export and return at once; else as `run`."""
        _refuse_second(self.busy)
        volumes = inputs.by_role()
        was_empty = isinstance(order, ExportOrder) and not results_in(order.target)
        self._begin(order, volumes, sum(volume.array_kji.nbytes for volume in volumes.values()), progress, done)
        self._tidy = lambda ended: remove_what_a_kill_left(order, was_empty, ended)

    def _begin(
        self,
        request: Request | WritingOrder,
        volumes: dict[str, RawVolume],
        needed_bytes: int,
        progress: Progress,
        done: Callable[[Any, Exception | None], None],
    ) -> None:
        self._folder = make_folder(needed_bytes)
        try:
            self._start_if_needed()
        except OSError as error:
            self._kept.remove(self._folder)
            self._folder = None
            raise ImageFileError(
                f"{self._command[0]}: the worker process cannot be started ({error.strerror or error})."
            ) from error
        self._progress, self._done = progress, done
        self._feeding = jobs.write_job(request, volumes, self._folder)
        progress(PREPARING, 0.0)
        self._ticker.start(self.tick)

    def warm_up(self) -> None:
        """Start the worker, so that the first job does not wait for it; from now on there is always one."""
        self._is_kept_warm = True
        if not self.busy:
            with contextlib.suppress(OSError):  # the first job will say so
                self._start_if_needed()

    def cancel(self) -> None:
        """End the job by ending the worker: at once, whatever it is doing."""
        if self.busy:
            self._end_child()
            self._finish(None, Cancelled(CANCELLED))
            if self._is_kept_warm:
                self.warm_up()

    def close(self) -> None:
        """Cancel, and end the worker."""
        self._is_kept_warm = False
        self.cancel()
        self._end_child()
        self._kept.try_again()
        self._ticker.stop()

    def tick(self) -> None:
        """Move one step on; the ticker calls this."""
        try:
            self._feed()
            for said in self._messages():
                self._hear(said)
            if self._done is not None and self._worker is not None and self._worker.has_ended():
                problem = self._worker.how_it_ended()
                self._end_child()
                self._finish(None, problem)
        except _UnreadableError as unreadable:
            self._end_child()
            self._finish(None, unreadable)
        except OSError as error:
            worker = self._worker
            ended = worker.how_it_ended() if worker is not None and worker.has_ended() else None
            self._end_child()
            self._finish(None, ended or ImageFileError(f"the worker process cannot be reached ({error})."))

    def _feed(self) -> None:
        """Write voxels of the job for some milliseconds; when all are there, tell the worker."""
        began = time.monotonic()
        while self._feeding is not None:
            step = next(self._feeding)
            if isinstance(step, float):
                self._progress(PREPARING, step)
                if time.monotonic() - began > FEEDING_S:
                    return
            else:
                self._feeding = None
                self._send(step)

    def _start_if_needed(self) -> None:
        if self._worker is not None and self._worker.has_ended():
            self._end_child()  # it ended between two jobs
        if self._worker is None:
            self._worker = WorkerProcess(self._command, self._environment)

    def _send(self, job: jobs.Order) -> None:
        assert self._worker is not None
        self._worker.send(jobs.job_to_line(job))

    def _messages(self) -> Iterator[jobs.Said]:
        """Yield what the worker has said since the last time; does not wait."""
        worker = self._worker
        if worker is None:
            return
        for line in worker.lines():
            try:
                said = jobs.said_from_line(line, self._folder)
            except (ValueError, LookupError) as error:  # no JSON, no message, voxels that are missing or cut short
                logger.exception("BrainFusion's worker process sent what cannot be read")
                raise _UnreadableError(
                    f"the worker process sent what cannot be read ({type(error).__name__}); nothing was changed. Fuse "
                    "again: a new worker process will be started."
                ) from error
            if isinstance(said, jobs.Ready):
                worker.python_pid = said.pid
            yield said
        if worker.has_closed and self._done is not None and self._worker is worker and not worker.ends_now():
            raise _UnreadableError(
                "the worker process has stopped answering; nothing was changed. Fuse again: a new worker process will "
                "be started."
            )

    def _hear(self, said: jobs.Said) -> None:
        if self._done is None:
            return
        match said:
            case jobs.Stage(name, fraction):
                self._progress(name, fraction)
            case jobs.Notice(text):
                logger.warning("BrainFusion: %s", text)
            case jobs.Failure():
                self._finish(None, jobs.error_of(said))
            case jobs.Done(result):
                self._finish(result, None)
            case jobs.Exported(files):
                self._finish(files, None)
            case jobs.Found(shapes):
                self._finish(shapes, None)
            case jobs.Ready():
                pass

    def _finish(self, result: Any, problem: Exception | None) -> None:
        done, self._done, self._feeding = self._done, None, None
        tidy, self._tidy = self._tidy, _nothing_to_tidy
        folder, self._folder = self._folder, None  # `done` may handle events, and so another job may begin
        self._ticker.stop()
        if isinstance(problem, Cancelled | EndedError):
            tidy(self._ended)
        try:
            if done is not None:
                done(result, problem)
        finally:
            del result
            self._kept.remove(folder)
            if self._kept.folders and not self.busy:
                self._ticker.start(self._sweep)

    def _sweep(self) -> None:
        """Remove what could not be removed while it was looked at, and stop when there is nothing left, or no hope."""
        if not self._kept.try_again():
            self._ticker.stop()

    def _end_child(self) -> None:
        with contextlib.suppress(_UnreadableError, OSError):
            for _said in self._messages():  # one of them may be that it is ready, and with which id
                pass
        worker, self._worker = self._worker, None
        if worker is not None:
            worker.end()
            self._ended = () if worker.python_pid is None else (worker.python_pid,)


def _nothing_to_tidy(ended: tuple[int, ...]) -> None:
    """Stand for what a job without files of its own leaves."""


def bytes_of_job(request: Request, inputs: RawInputs) -> int:
    """Return about how many bytes the voxels of a job take: what is sent, and what comes back at most."""
    sent = sum(volume.array_kji.nbytes for volume in inputs.by_role().values())
    made = inputs.mri.array_kji.size if request.settings.bone else 0
    if request.fuse:
        made += MOST_RESULTS * _voxels_of_output(request.settings.output, inputs)
    return sent + BYTES_PER_VOXEL * made


def _voxels_of_output(output: OutputSettings, inputs: RawInputs) -> int:
    """Return how many voxels the output grid has; for the union, those of both fields of view, wherever they are."""
    if isinstance(output.chosen, float):
        return _voxels_at(inputs.mri if output.reference == "mri" else inputs.ct, output.chosen)
    if output.chosen == "union":
        both = inputs.ct, inputs.mri
        finest = min(float(_spacing_of(volume).min()) for volume in both)
        return sum(_voxels_at(volume, finest) for volume in both)
    return int((inputs.mri if output.chosen == "mri" else inputs.ct).array_kji.size)


def _voxels_at(volume: RawVolume, mm: float) -> int:
    edges = _spacing_of(volume) * volume.array_kji.shape[::-1]
    return int(np.prod(np.maximum(1, np.ceil(edges / mm))))


def _spacing_of(volume: RawVolume) -> FloatArray:
    spacing: FloatArray = np.linalg.norm(volume.lps_from_ijk[:3, :3], axis=0)
    return spacing


def _refuse_second(busy: bool) -> None:
    if busy:
        raise SettingsError("a fusion is running: wait for it to finish, or cancel it first.")
