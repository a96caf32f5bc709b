"""The device to compute on, its threads and its memory."""

from __future__ import annotations

import ctypes
import os
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import lru_cache
from pathlib import Path
from typing import Any

from BrainFusionLib.errors import MissingDependencyError, SettingsError

# Parameters of glibc's mallopt (malloc.h) and their values: how much freed memory the process keeps, and in blocks of
# what size (larger ones, parts of a large CT, would leave holes that nothing else fits into); one pool for all threads,
# because none can use what another one has freed in its own.
_KEPT = {-1: 1 << 30, -3: 1 << 26, -8: 1}


def keep_freed_memory() -> bool:
    """Let this process keep freed memory for its next arrays; return whether that is possible.

    Only for processes that this project starts, not for a caller's. By default glibc returns the memory of every large
    array to the system and requests it again, zeroed page by page, which takes a fifth of the time of a fusion
    (docs/measured.md). The peak is the same. Without glibc nothing is changed.
    """
    try:
        mallopt = ctypes.CDLL(None).mallopt if sys.platform == "linux" else None
    except (OSError, AttributeError):
        return False
    return mallopt is not None and all(mallopt(*each) for each in _KEPT.items())


def multiply_on_one_thread() -> None:
    """Let matrix products of numpy use one thread, unless the user says otherwise; call it before numpy is loaded.

    Only for processes that this project starts. The threads of OpenBLAS, which numpy's wheels bring, wait busily: with
    two, a fusion takes 1.0 to 2.3 times as many CPU seconds, depending on what else runs, and is not faster.
    """
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")


# What OpenBLAS calls the functions that read and set its number of threads: in numpy's wheels, and elsewhere.
_OPENBLAS = [f"{start}openblas_{{}}_num_threads{end}" for start in ("scipy_", "") for end in ("64_", "")]
_products_lock, _products_blocks, _products_before = threading.Lock(), 0, 0


@contextmanager
def products_on_one_thread() -> Iterator[None]:
    """Let matrix products of numpy use one thread here, whatever the process or the user chose; restore it afterwards.

    On some processors the last digits of a product depend on the number of threads, and so would a verdict on where it
    is computed. The number is one for the whole process: of blocks that overlap, the last one restores it. Other
    libraries than OpenBLAS are left as they are.
    """
    global _products_blocks, _products_before
    functions = _openblas()
    if functions is None:
        yield
        return
    get, set_to = functions
    with _products_lock:
        if _products_blocks == 0:
            _products_before = get()
        _products_blocks += 1
        set_to(1)
    try:
        yield
    finally:
        with _products_lock:
            _products_blocks -= 1
            if _products_blocks == 0:
                set_to(_products_before)


def _openblas() -> tuple[Callable[[], int], Callable[[int], None]] | None:
    """Return what reads and sets the number of threads of numpy's OpenBLAS; ``None`` without it, or without numpy."""
    linear_algebra = getattr(sys.modules.get("numpy.linalg._umath_linalg"), "__file__", None)
    return None if linear_algebra is None else _openblas_of(linear_algebra)


@lru_cache(maxsize=1)
def _openblas_of(linear_algebra: str) -> tuple[Callable[[], int], Callable[[int], None]] | None:
    # Its own library, and with it those that it is linked to, but on Windows.
    places = [linear_algebra]
    if sys.platform == "win32":
        places += map(str, Path(linear_algebra).parents[2].glob("numpy.libs/*openblas*.dll"))
    for place in places:
        with suppress(OSError):
            library = ctypes.CDLL(place)
            for name in _OPENBLAS:
                with suppress(AttributeError):
                    return getattr(library, name.format("get")), getattr(library, name.format("set"))
    return None


def give_memory_back() -> None:
    """Return the memory that `keep_freed_memory` retained, while a process waits for work."""
    try:
        if sys.platform == "linux":
            ctypes.CDLL(None).malloc_trim(0)
    except (OSError, AttributeError):
        pass


def require_torch(what: str = "this") -> Any:
    """Return torch, or explain how to get it. A torch that fails to load counts as not installed.

    Parameters
    ----------
    what
        What needs it, for the message.

    Raises
    ------
    MissingDependencyError
        torch is not installed, or does not load.
    """
    try:
        import torch
    except Exception as error:  # a missing library of the system, a half installation: many kinds
        problem, remedy = "is not installed", "pip install torch (in Slicer: install the PyTorch extension)"
        if not isinstance(error, ModuleNotFoundError) or error.name != "torch":
            first = (str(error) or type(error).__name__).splitlines()[0]
            problem = f"is installed but does not load ({first})"
            # pip would say that it is there already.
            remedy = "pip uninstall torch, then pip install torch (in Slicer: the same in the module PyTorch Utils)"
        raise MissingDependencyError(
            f"{what} needs torch, which {problem}. Run: {remedy}. "
            "Registration and the default network need no torch on the CPU."
        ) from error
    if _count is not None and torch.get_num_threads() != _count:
        torch.set_num_threads(_count)  # loaded inside `use_threads`
    return torch


def pick_device(name: str = "auto") -> str:
    """Return the device called `name`: ``cpu``, ``cuda`` (or ``cuda:1``, …), ``mps``, or ``auto``.

    ``auto`` is the graphics card (CUDA) if there is one that torch can use, otherwise the CPU. torch, which takes
    seconds to load, is loaded only where a card is asked for, or there may be one.

    Raises
    ------
    SettingsError
        The name is unknown, or this machine does not have the device.
    MissingDependencyError
        A graphics card is asked for, and torch is not installed.
    """
    if name == "cpu":
        return name
    if name == "auto":
        return "cuda" if _may_have_card() and _cards() else "cpu"
    if name != "mps" and name.partition(":")[0] != "cuda":
        raise SettingsError(f"the device must be auto, cpu, cuda or mps; got {name!r}")
    torch = require_torch(f"the device {name!r}")
    cards, apple = _cards(), torch.backends.mps.is_available()
    there = ["cpu", *(["cuda"] if cards else []), *(f"cuda:{n}" for n in range(cards)), *(["mps"] if apple else [])]
    if name in there:
        return name
    raise SettingsError(
        f"the device {name!r} was requested, but torch {torch.__version__} finds only {', '.join(there)} here. "
        "Choose auto or cpu; or install the GPU's driver and a build of torch that supports it (pytorch.org)."
    )


def _may_have_card() -> bool:
    """Return whether torch may find a card: it supports some, and a driver of one is installed. Does not load torch."""
    if sys.modules.get("torch") is not None:
        return True
    import importlib.metadata  # takes a third of the time of the command's help

    try:
        if importlib.metadata.version("torch").endswith("+cpu"):
            return False
    except importlib.metadata.PackageNotFoundError:
        return False
    if sys.platform == "win32":
        return Path(os.environ.get("SYSTEMROOT", r"C:\Windows"), "System32", "nvcuda.dll").exists()
    return any(Path("/dev", name).exists() for name in ("nvidiactl", "dxg", "kfd"))


def _cards() -> int:
    try:
        torch = require_torch()
    except MissingDependencyError:
        return 0
    return int(torch.cuda.device_count()) if torch.cuda.is_available() else 0


# The number that `use_threads` set; `None` outside of it.
_count: int | None = None


def threads() -> int:
    """Return the number of CPU threads for work that is shared between threads: slices, for example.

    That of `use_threads`; otherwise ``OMP_NUM_THREADS``, which torch and numpy follow, too, or all processors.
    """
    if _count is not None:
        return _count
    wanted = os.environ.get("OMP_NUM_THREADS", "")
    if wanted.isdecimal() and int(wanted) > 0:
        return int(wanted)
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


@contextmanager
def use_threads(count: int | None) -> Iterator[None]:
    """Use `count` CPU threads here, in SimpleITK and torch, too, if they are loaded; restore the numbers afterwards.

    ``None`` changes nothing at the start; numbers that the block changes are still restored. Matrix products of numpy
    use one thread (`products_on_one_thread`).
    """
    global _count, _of_new_itk
    before, torch, sitk = _count, sys.modules.get("torch"), sys.modules.get("SimpleITK")
    of_torch = torch and torch.get_num_threads()
    of_itk = sitk and sitk.ProcessObject.GetGlobalDefaultNumberOfThreads()
    if count is not None:
        _count = count
        if sitk is not None:
            sitk.ProcessObject.SetGlobalDefaultNumberOfThreads(count)
        if torch is not None:
            torch.set_num_threads(count)
    try:
        with products_on_one_thread():
            yield
    finally:
        _count = before
        if sitk is None and _of_new_itk is not None:
            sitk, of_itk, _of_new_itk = simple_itk(), _of_new_itk, None
        if sitk is not None:
            sitk.ProcessObject.SetGlobalDefaultNumberOfThreads(of_itk)
        if torch is not None:
            torch.set_num_threads(of_torch)


# The number of threads that SimpleITK had when it was loaded inside of `use_threads`.
_of_new_itk: int | None = None


def simple_itk() -> Any:
    """Return SimpleITK, on the threads of `use_threads`. Loading it takes a quarter of a second: only where needed."""
    global _of_new_itk
    is_new = "SimpleITK" not in sys.modules
    import SimpleITK as sitk

    if is_new and _count is not None:
        _of_new_itk = int(sitk.ProcessObject.GetGlobalDefaultNumberOfThreads())
        sitk.ProcessObject.SetGlobalDefaultNumberOfThreads(_count)
    return sitk
