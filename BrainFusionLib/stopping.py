"""The end of a process: by a signal within seconds, whatever it is computing; or because its parent is gone.

Python runs a signal's handler only between two steps of its own, and a step of native code can take long. So a thread
waits beside: it gives the main thread a moment to end in good order, then removes what is half-written, and ends the
process.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

if TYPE_CHECKING:
    from multiprocessing.connection import Connection

INTERRUPTED, TERMINATED = 130, 143
# How long the main thread may take to end in good order; a user waits three seconds at most.
GRACE_S = 1.5
# How long a process that has to end at once waits for a block that is not to be interrupted.
LONGEST_BLOCK_S = 0.5
_half_written: set[Path] = set()
_made: list[Path] = []
_lock = threading.Lock()
_before_leaving: list[Callable[[], None]] = []
_forever = contextlib.ExitStack()


@contextlib.contextmanager
def half_written(path: Path) -> Iterator[None]:
    """Name a file or folder that is to be removed if the process has to end at once while the block runs."""
    with _lock:
        _half_written.add(path)
    try:
        yield
    finally:
        # A signal may have come inside the removal itself: what is still there is removed when the process ends.
        if not os.path.lexists(path):
            with _lock:
                _half_written.discard(path)


def made_for_results(folders: list[Path]) -> None:
    """Name folders, outermost first, that are to be removed if the process has to end at once and they are empty."""
    with _lock:
        _made.extend(folders)


@contextlib.contextmanager
def before_leaving(act: Callable[[], None]) -> Iterator[None]:
    """Name what is to be done if the process has to end at once while the block runs."""
    _before_leaving.append(act)
    try:
        yield
    finally:
        _before_leaving.remove(act)


def leave(code: int) -> NoReturn:
    """Remove what is half-written, and end the process at once."""
    until = time.monotonic() + LONGEST_BLOCK_S
    while _uninterrupted.depth and time.monotonic() < until:
        time.sleep(0.01)
    for act in list(_before_leaving):
        with contextlib.suppress(Exception):
            act()
    _remove_half_written()
    os._exit(code)


def _remove_half_written() -> None:
    for path in list(_half_written):
        for _ in range(3):  # the main thread may still write into it
            if path.is_dir() and not path.is_symlink():
                shutil.rmtree(path, ignore_errors=True)
            else:
                with contextlib.suppress(OSError):
                    path.unlink()
        if not os.path.lexists(path):
            with _lock:
                _half_written.discard(path)
    for folder in reversed(_made):
        with contextlib.suppress(OSError):
            folder.rmdir()


class _Uninterrupted:
    """How many blocks of `uninterrupted` are running, and the exit code of a signal that came meanwhile."""

    depth = 0
    code: int | None = None


_uninterrupted = _Uninterrupted()


@contextlib.contextmanager
def uninterrupted() -> Iterator[None]:
    """Let a signal end the main thread only after the block, which must be short."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    _uninterrupted.depth += 1
    try:
        yield
    finally:
        _uninterrupted.depth -= 1
        code, _uninterrupted.code = _uninterrupted.code, None
        if code is not None:
            _end_main_thread(code)


def _end_main_thread(code: int) -> NoReturn:
    # An exception, so that half-written files are removed as the stack unwinds.
    if code == INTERRUPTED:
        raise KeyboardInterrupt
    raise SystemExit(code)


class _Stop:
    """Ends the process at the first signal; later ones change nothing."""

    def __init__(self) -> None:
        self.code: int | None = None

    def handle(self, number: int, frame: Any) -> None:
        """End the main thread, as the handler of a signal."""
        if self.code is not None:
            return
        self.code = _code_of(number)
        if _uninterrupted.depth:
            _uninterrupted.code = self.code
        else:
            _end_main_thread(self.code)


def _code_of(number: int) -> int:
    return INTERRUPTED if number == signal.SIGINT else TERMINATED


@contextlib.contextmanager
def ending_on_signals(grace_s: float = GRACE_S) -> Iterator[None]:
    """Let SIGINT, SIGTERM and SIGHUP end this process within seconds while the block runs, and after one has come.

    Only in the main thread. A signal that is ignored, as by nohup, stays ignored.
    """
    names = ("SIGINT", "SIGTERM", "SIGHUP")
    numbers = {int(getattr(signal, name)) for name in names if hasattr(signal, name)}
    numbers = {number for number in numbers if signal.getsignal(number) is not signal.SIG_IGN}
    if threading.current_thread() is not threading.main_thread() or not numbers:
        yield
        return
    stop = _Stop()
    bell = _Bell()
    woken = signal.set_wakeup_fd(bell.writing, warn_on_full_buffer=False)
    before = {number: signal.signal(number, stop.handle) for number in numbers}

    def watch() -> None:
        while True:
            number = bell.wait()
            if number in numbers:
                time.sleep(grace_s)
                leave(_code_of(number))
            if number is None:
                bell.silence()
                return

    threading.Thread(target=watch, daemon=True).start()
    try:
        yield
    finally:
        if stop.code is None:  # else what is left of this process is watched to its end
            for number, handler in before.items():
                if signal.getsignal(number) == stop.handle:
                    signal.signal(number, handler)
            signal.set_wakeup_fd(woken)
            bell.close()
        else:
            # As it ends, Python would make a later signal fatal again: the exit code would be another one.
            for number in numbers:
                signal.signal(number, signal.SIG_IGN)
            _remove_half_written()


class _Bell:
    """What a signal rings in the moment it comes: a pipe, or on Windows a pair of sockets."""

    def __init__(self) -> None:
        if sys.platform == "win32":
            import socket

            self._sockets = socket.socketpair()
            self._sockets[1].setblocking(False)
            self.writing = self._sockets[1].fileno()
        else:
            self._reading, self.writing = os.pipe()
            os.set_blocking(self.writing, False)

    def wait(self) -> int | None:
        """Return the number of the next signal; ``None`` after `close`."""
        if sys.platform == "win32":
            rung = self._sockets[0].recv(1)
        else:
            rung = os.read(self._reading, 1)
        return rung[0] if rung else None

    def close(self) -> None:
        """End `wait`."""
        if sys.platform == "win32":
            self._sockets[1].close()
        else:
            os.close(self.writing)

    def silence(self) -> None:
        """Close what `wait` reads from."""
        if sys.platform == "win32":
            self._sockets[0].close()
        else:
            os.close(self._reading)


@contextlib.contextmanager
def signals_held_back() -> Iterator[None]:
    """Let processes that are started in the block never see Ctrl-C: it goes to the parent, which ends them."""
    if not hasattr(signal, "pthread_sigmask"):
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def end_with_parent(parent: Connection) -> None:
    """End this process when its parent is gone, however it ended: the system then closes the parent's end of the pipe.

    Parameters
    ----------
    parent
        The reading end of a pipe whose writing end only the parent has.
    """
    _forever.enter_context(ending_on_signals(0.0))

    def wait() -> None:
        with contextlib.suppress(EOFError, OSError):
            parent.recv_bytes()
        leave(TERMINATED)

    threading.Thread(target=wait, daemon=True).start()
