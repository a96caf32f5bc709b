"""File locks, and whether a process is running."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path


@contextmanager
def locked(path: str | os.PathLike[str], *, wait: bool = False, keep: bool = True) -> Iterator[bool]:
    """Hold the lock of a file while the block runs; the file is created if necessary.

    The system releases the lock when the process ends, however it ends. Only one block holds a lock at a time, also
    within one process.

    Parameters
    ----------
    path
        The file; its folder must exist.
    wait
        Whether to wait until the lock is free.
    keep
        Whether the file stays; else the last one who held the lock removes it.

    Yields
    ------
    bool
        Whether the lock is held; false only if it is held elsewhere and `wait` is false.

    Raises
    ------
    OSError
        The file cannot be written, or its file system does not support locks.
    """
    held = False
    descriptor = _opened(path)
    try:
        # Who held the lock may have removed its file meanwhile; then only the lock of the next file counts.
        while (held := _acquire(descriptor, wait)) and not _is_at(descriptor, path):
            held, closed = False, descriptor
            descriptor = _opened(path)
            os.close(closed)
        yield held
    finally:
        remove = held and not keep
        if remove and sys.platform != "win32":  # before anybody else holds it
            with suppress(OSError):
                Path(path).unlink()
        os.close(descriptor)
        if remove and sys.platform == "win32":  # Windows removes no file that anybody has open
            with suppress(OSError):
                Path(path).unlink()


def _opened(path: str | os.PathLike[str]) -> int:
    try:
        return os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
    except PermissionError:  # another user's; most file systems lock what can only be read, too
        return os.open(path, os.O_RDONLY)


@contextmanager
def alone(path: str | os.PathLike[str]) -> Iterator[None]:
    """Wait for the lock of a file, hold it while the block runs, and remove the file.

    Where the file system has no locks, or the file cannot be opened, the block runs without.
    """
    with ExitStack() as stack:
        with suppress(OSError):
            stack.enter_context(locked(path, wait=True, keep=False))
        yield


if sys.platform == "win32":
    import ctypes
    import msvcrt

    _QUERY_LIMITED_INFORMATION, _ACCESS_DENIED, _STILL_ACTIVE = 0x1000, 5, 259

    def _acquire(descriptor: int, wait: bool) -> bool:
        while True:
            try:
                msvcrt.locking(descriptor, msvcrt.LK_LOCK if wait else msvcrt.LK_NBLCK, 1)
            except OSError:  # with LK_LOCK after ten attempts of one second
                if not wait:
                    return False
            else:
                return True

    def _is_at(descriptor: int, path: str | os.PathLike[str]) -> bool:
        return True  # Windows removes no file that is open

    def process_is_running(pid: int) -> bool:
        """Return whether a process of this machine is running."""
        kernel = ctypes.WinDLL("kernel32", use_last_error=True)
        handle = kernel.OpenProcess(_QUERY_LIMITED_INFORMATION, False, pid)
        if not handle:
            return ctypes.get_last_error() == _ACCESS_DENIED
        code = ctypes.c_ulong()
        kernel.GetExitCodeProcess(handle, ctypes.byref(code))
        kernel.CloseHandle(handle)
        return code.value == _STILL_ACTIVE

else:
    import fcntl

    def _acquire(descriptor: int, wait: bool) -> bool:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        except BlockingIOError:
            return False
        return True

    def _is_at(descriptor: int, path: str | os.PathLike[str]) -> bool:
        try:
            return os.path.samestat(os.fstat(descriptor), Path(path).stat())
        except FileNotFoundError:
            return False

    def process_is_running(pid: int) -> bool:
        """Return whether a process of this machine is running."""
        try:
            os.kill(pid, 0)
        except ProcessLookupError:
            return False
        except PermissionError:  # it runs, and is another user's
            return True
        return True
