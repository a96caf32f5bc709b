"""Run a cohort: several cases at once in worker processes, with a table that is always complete."""

from __future__ import annotations

import itertools
import multiprocessing
import multiprocessing.connection
import os
import time
import uuid
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor, ThreadPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

from BrainFusionLib.arguments import checked
from BrainFusionLib.case.replacing import complete_replacement
from BrainFusionLib.case.request import Inputs
from BrainFusionLib.cohort.bids import refuse_other_dataset, start_derivative
from BrainFusionLib.cohort.manifest import Entry, Problem
from BrainFusionLib.cohort.one_case import (
    Fused,
    attempted,
    finished,
    fuse_case,
    fused,
    overwriting,
    read,
    read_seal,
    store,
)
from BrainFusionLib.cohort.overview import overview
from BrainFusionLib.cohort.reviewed import decisions_in
from BrainFusionLib.cohort.row import COLUMNS, OVERVIEW, TABLE, Row
from BrainFusionLib.device import keep_freed_memory, pick_device
from BrainFusionLib.errors import ImageFileError, MissingDependencyError, Remedy, SettingsError
from BrainFusionLib.folder import make_output_folder
from BrainFusionLib.io import write_text
from BrainFusionLib.io.leftovers import remove_leftovers
from BrainFusionLib.io.ownership import refuse_to_replace_others
from BrainFusionLib.io.tables import format_csv
from BrainFusionLib.locking import locked
from BrainFusionLib.printable import shown
from BrainFusionLib.settings import Settings
from BrainFusionLib.stopping import before_leaving, end_with_parent, signals_held_back

LOG, LOCK = "cohort.log", ".cohort.lock"
# Attempts for a case whose worker was killed (out of memory, for example).
ATTEMPTS = 2
# How long workers may take to end before they are killed.
LONGEST_END_S = 1.0
# How long a Dask scheduler is waited for.
SCHEDULER_ANSWERS_S = 10.0
Report = Callable[[Row, int, int], None]
Note = Callable[[Row], None]


@checked
def run_cohort(
    entries: Sequence[Entry],
    folder: str | os.PathLike[str],
    settings: Settings | None = None,
    *,
    workers: int = 1,
    scheduler: str | None = None,
    report: Report | None = None,
    problems: Sequence[Problem] = (),
) -> list[Row]:
    """Fuse every case that is not done yet; return the rows of the table, in the manifest's order.

    Each case gets a folder (`Entry.place`), as written by ``brainfusion fuse``. ``cohort.tsv`` has one row for each
    case and is rewritten after each; ``cohort.log`` gets one line for each case; ``cohort.html`` is written at the end.
    A case is done if its folder is complete (by sha256) and was made from these inputs with these settings; all others
    are done again. A case that fails does not stop the others.

    Parameters
    ----------
    workers
        Number of cases at once; with more than one, each has its own process. On a graphics card one process computes,
        and this many threads read ahead.
    scheduler
        Address of a Dask scheduler, ``tcp://host:8786``, whose workers do the work instead of local processes. They
        must see the same files at the same paths.
    report
        Called with a row, the number of cases done, and the number of all cases.
    problems
        What is wrong with rows of the manifest that are no cases, as `read_manifest` returns it: they stand in the
        table, in the log and on the page, too, without names of files.

    Raises
    ------
    MissingDependencyError
        A scheduler was given, but Dask is not installed.
    SettingsError
        `workers` is below 1, the scheduler cannot be reached, another run is using this folder, or workers cannot start
        because the script that calls this has no ``if __name__ == "__main__":``.
    ImageFileError
        The folder cannot be written to, or holds a table, page or log of others under our names.
    """
    if workers < 1:
        raise SettingsError(f"at least 1 worker is needed; got {workers}")
    if getattr(multiprocessing.current_process(), "_inheriting", False):
        # A worker that imports the script of its parent, which has no guard: the parent says so.
        raise SystemExit(1)
    settings, folder = settings or Settings(), Path(os.path.realpath(folder))
    roots = {entry.bids_root for entry in entries if entry.bids_root is not None}
    for root in roots:
        refuse_other_dataset(folder, root)
    make_output_folder(folder)
    refuse_to_replace_others(folder, (TABLE, OVERVIEW, LOG))
    rows: dict[str, Row] = {}
    broken = [Row.of_problem(problem) for problem in problems]

    def log(row: Row) -> None:
        with (folder / LOG).open("a", encoding="utf-8", errors="replace") as stream:
            print(time.strftime("%Y-%m-%dT%H:%M:%S%z"), shown(row.case), shown(row.summary()), sep="\t", file=stream)

    def note(row: Row) -> None:
        rows[row.case] = row
        write_text(table([*(rows[entry.case] for entry in entries if entry.case in rows), *broken]), folder / TABLE)
        log(row)
        if report is not None:
            report(row, len(rows), len(entries))

    with _only_run_in(folder):
        for root in roots:
            start_derivative(folder, root)
        left = []
        refused = overwriting(entries, folder, settings)
        for entry in entries:
            row = refused.get(entry.case) or finished(entry, folder, settings)
            if row is None:
                left.append(entry)
            else:
                note(row)
        if scheduler is not None:
            _on_dask(left, folder, settings, scheduler, note)
        elif pick_device(settings.device) != "cpu":
            _one_computes(left, folder, settings, workers, note)
        elif workers == 1:
            for entry in left:
                note(fuse_case(entry, folder, settings))
        else:
            _at_once(left, folder, settings, workers, note)
        for problem in broken:
            log(problem)
        done = [*(rows[entry.case] for entry in entries), *broken]
        pictures = {entry.case: seal.thumbnail for entry in entries if (seal := read_seal(entry, folder))}
        reports = {entry.case: entry.report for entry in entries}
        write_text(overview(done, pictures, reports, decisions_in(folder)), folder / OVERVIEW)
    return [rows[entry.case] for entry in entries]


def _one_computes(entries: Sequence[Entry], folder: Path, settings: Settings, readers: int, note: Note) -> None:
    """Compute one case after the other, while later ones are read and the previous one is written.

    The memory holds `readers` cases being read, one being computed, and one being written.
    """
    with ThreadPoolExecutor(readers) as ahead, ThreadPoolExecutor(1) as behind:
        writing: Future[Row] | None = None
        try:
            coming = iter(entries)
            reading = deque((entry, ahead.submit(read, entry)) for entry in itertools.islice(coming, readers))
            while reading:
                entry, inputs = reading.popleft()
                began = time.monotonic()
                computed = _computed(entry, inputs, settings)
                reading.extend((later, ahead.submit(read, later)) for later in itertools.islice(coming, 1))
                if writing is not None:
                    note(writing.result())
                writing = behind.submit(_written, entry, began, computed, folder)
            if writing is not None:
                note(writing.result())
        except BaseException:
            ahead.shutdown(cancel_futures=True)
            raise


def _computed(entry: Entry, inputs: Future[Inputs], settings: Settings) -> Future[Fused]:
    """Fuse the inputs; the future returned carries the result, or the error of reading or fusing."""
    computed: Future[Fused] = Future()
    try:
        computed.set_result(fused(entry, inputs.result(), settings))
    except Exception as error:
        computed.set_exception(error)
    return computed


def _written(entry: Entry, began: float, computed: Future[Fused], folder: Path) -> Row:
    return attempted(entry, began, lambda: store(entry, *computed.result(), folder, began))


def _fuse_in_a_worker(entry: Entry, folder: Path, settings: Settings) -> Row:
    keep_freed_memory()
    return fuse_case(entry, folder, settings)


def _fuse_on_dask(entry: Entry, folder: Path, settings: Settings) -> Row:
    """Fuse a case in a task of Dask, until the run that asked for it is gone: nobody would wait for its row.

    A worker cannot end the thread of a task, so that an old run would go on writing into the folder of a new one.
    """
    from distributed import get_worker

    worker = get_worker()
    key = worker.get_current_task()

    def cancel() -> bool:
        task = worker.state.tasks.get(key)
        return task is None or task.state == "cancelled"

    keep_freed_memory()
    return fuse_case(entry, folder, settings, cancel)


def _at_once(entries: Sequence[Entry], folder: Path, settings: Settings, workers: int, note: Note) -> None:
    left = {entry.case: entry for entry in entries}
    for attempt in range(ATTEMPTS):
        if not left:
            return
        # When a worker dies, its whole pool is lost. The second attempt runs one case at a time, to protect the others.
        with worker_pool(workers if attempt == 0 else 1, lambda: _tidy(list(left.values()), folder)) as pool:
            futures: dict[Future[Row], str] = {}
            try:
                with signals_held_back():
                    for entry in left.values():
                        futures[pool.submit(_fuse_in_a_worker, entry, folder, settings)] = entry.case
                for future in as_completed(futures):
                    row = future.result()
                    del left[row.case]
                    note(row)
            except BrokenProcessPool:
                if attempt == 0 and not pool.has_started():
                    raise _never_started(workers) from None
                continue
    for case in left:
        note(Row(case, "failed", error="its process was terminated, most likely because of too little memory"))


def _never_started(workers: int) -> SettingsError:
    return SettingsError(
        f"none of {workers} worker processes could start. Each imports the script that calls run_cohort, and would "
        "call it again. Write the call as:",
        details=f'if __name__ == "__main__":\n    run_cohort(…, workers={workers})\n'
        "If it stands so, what the processes printed says why. Too little memory ends them silently.",
    )


def _tidy(entries: Sequence[Entry], folder: Path) -> None:
    """Remove what workers that had to be killed left half-written, and finish what they were moving into place."""
    for case in (folder / entry.place for entry in entries):
        if case.is_dir():
            remove_leftovers(case)
            complete_replacement(case)


class WorkerPool(ProcessPoolExecutor):
    """Processes; `has_started` says whether one got through its imports, of which the last is the caller's script."""

    has_started: Callable[[], bool]


@contextmanager
def worker_pool(workers: int, tidy: Callable[[], None] = lambda: None) -> Iterator[WorkerPool]:
    """Give processes that end when this one does, however it ends: they wait for the end of a pipe.

    When the block is interrupted, its cases are not waited for; `tidy` is called after the last worker has ended.
    """
    context = multiprocessing.get_context("spawn")
    reading, writing = context.Pipe(duplex=False)
    heard, saying = context.Pipe(duplex=False)
    pool = WorkerPool(workers, context, _start, (reading, saying))
    pool.has_started = heard.poll

    def end() -> None:
        writing.close()
        until = time.monotonic() + LONGEST_END_S
        for process in multiprocessing.active_children():
            process.join(max(0.0, until - time.monotonic()))
            process.kill()
            process.join(LONGEST_END_S / 10)
        tidy()

    with before_leaving(end):
        try:
            yield pool
        except BaseException:
            end()
            with suppress(Exception):  # what a pool without workers stumbles over must not hide why it ends
                pool.shutdown(wait=True, cancel_futures=True)
            raise
        else:
            pool.shutdown(wait=True, cancel_futures=True)
        finally:
            for end_of_pipe in (writing, reading, heard, saying):
                end_of_pipe.close()


def _start(parent: multiprocessing.connection.Connection, saying: multiprocessing.connection.Connection) -> None:
    """Say that a worker has got through its imports, and have it end with its parent."""
    saying.send_bytes(b"started")
    saying.close()
    end_with_parent(parent)


def _on_dask(entries: Sequence[Entry], folder: Path, settings: Settings, address: str, note: Note) -> None:
    try:
        from distributed import Client, KilledWorker, as_completed
    except ImportError as error:
        raise MissingDependencyError(
            "a scheduler needs Dask. Run: pip install distributed psutil, here and on the machines of its workers."
        ) from error
    try:
        client = Client(address, timeout=SCHEDULER_ANSWERS_S)
    except (OSError, ValueError) as error:
        raise SettingsError(
            f"{address}: no Dask scheduler answers at this address ({error}). Start one with: dask scheduler."
        ) from error
    with client:
        # Absolute paths, because workers may run in another folder. The cases of a dead worker go to others. The names
        # of tasks are those of this run only: under an equal one, what is left of an earlier run would be its result.
        run = uuid.uuid4().hex
        futures = {
            client.submit(
                _fuse_on_dask, entry.absolute(), folder, settings, key=f"{folder}:{entry.case}:{run}", pure=False
            ): entry.case
            for entry in entries
        }
        for future in as_completed(futures):
            try:
                note(future.result())
            except (KilledWorker, Exception) as error:
                words = " ".join(f"its workers were terminated ({type(error).__name__}: {error})".split())
                note(Row(futures[future], "failed", error=words))


def table(rows: Sequence[Row]) -> str:
    """Return ``cohort.tsv``: tab-separated, with a header and one row for each case."""
    return format_csv([row.cells() for row in rows], COLUMNS, delimiter="\t")


@contextmanager
def _only_run_in(folder: Path) -> Iterator[None]:
    """Hold the folder's lock."""
    with ExitStack() as stack:
        try:
            is_ours = stack.enter_context(locked(folder / LOCK))
        except OSError as error:
            raise ImageFileError(f"{folder / LOCK}: cannot be written ({error.strerror}).") from error
        if not is_ours:
            raise SettingsError(
                f"{folder}: another run is using this folder. Wait until it ends.", remedy=Remedy.OTHER_OUTPUT_FOLDER
            )
        remove_leftovers(folder)
        yield
