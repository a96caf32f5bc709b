"""The inner loops in C, where the machine has a C compiler: an eighth of torch's time, and never a condition.

The library is built when it is first needed (half a second) and kept in the user's cache folder; without a compiler, or
with ``BRAINFUSION_COMPILE=0`` in the environment, torch does the same work. Nothing is downloaded.
"""

from __future__ import annotations

import ctypes
import hashlib
import os
import platform
import shlex
import shutil
import subprocess
import sys
import tempfile
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch

SOURCE = Path(__file__).with_name("kernel.c")
# Not -ffast-math: linked into a library, it changes how the whole process treats tiny numbers.
FLAGS = ("-O3", "-std=c99", "-shared", "-fPIC", "-fno-math-errno", "-fno-trapping-math", "-fno-signed-zeros",
         "-fassociative-math")  # fmt: skip
COMPILE_SECONDS = 60


class Kernel:
    """The two functions of ``kernel.c``, for tensors on the CPU."""

    def __init__(self, library: ctypes.CDLL) -> None:
        self._look_up = library.brainfusion_look_up
        self._pull = library.brainfusion_pull
        pointer: Any = ctypes.c_void_p
        whole: Any = ctypes.c_int64
        self._look_up.argtypes = [pointer, pointer, whole, pointer, whole, pointer, pointer, whole] + [pointer] * 3
        self._pull.argtypes = [pointer, whole, whole, pointer, pointer, pointer, whole, pointer]
        self._look_up.restype = self._pull.restype = None

    def look_up(
        self,
        points: torch.Tensor,
        rows: torch.Tensor,
        affines: torch.Tensor,
        volume: torch.Tensor,
        cells: int,
        slopes: bool,
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor | None]:
        """Return counts (N, cells + 1) int32, every sample's cell (N, n) int32 and slope (N, 3, n), for N poses.

        Parameters
        ----------
        points
            (3, n) float32.
        rows
            (n,) int32, first cell of each sample's row.
        affines
            (N, 3, 4) float64: voxel index ijk of the volume from a point.
        volume
            (K, J, I) uint8, in cells.
        cells
            Of the joint histogram; one more counts the samples outside the volume.
        """
        poses, n = len(affines), points.shape[1]
        counts = torch.empty(poses, cells + 1, dtype=torch.int32)
        cell = torch.empty(poses, n, dtype=torch.int32)
        slope = torch.empty(poses, 3, n) if slopes else None
        size = torch.tensor(volume.shape[::-1], dtype=torch.int64)
        self._look_up(
            points.data_ptr(), rows.data_ptr(), n, affines.data_ptr(), poses, volume.data_ptr(), size.data_ptr(), cells,
            counts.data_ptr(), cell.data_ptr(), None if slope is None else slope.data_ptr(),
        )  # fmt: skip
        return counts, cell, slope

    def pull(self, points: torch.Tensor, cell: torch.Tensor, slope: torch.Tensor, table: torch.Tensor) -> torch.Tensor:
        """Return the sums of t g, x t g, y t g and z t g, (N, 4, 3) float64; `table` is (N, cells + 1) float32."""
        poses, n = cell.shape
        out = torch.empty(poses, 4, 3, dtype=torch.float64)
        self._pull(
            points.data_ptr(), n, poses, cell.data_ptr(), slope.data_ptr(), table.data_ptr(), table.shape[1] - 1,
            out.data_ptr(),
        )  # fmt: skip
        return out


@lru_cache(maxsize=1)
def kernel() -> Kernel | None:
    """Return the compiled loops, or ``None`` where they cannot be had."""
    if sys.platform == "win32" or os.environ.get("BRAINFUSION_COMPILE") == "0":
        return None
    compiler = _compiler()
    if compiler is None:
        return None
    for _ in range(2):
        try:
            library = _library(compiler)
        # A folder that cannot be written to, a user without a home, a compiler that fails: torch does the work.
        except (OSError, RuntimeError, subprocess.SubprocessError):
            return None
        try:
            return Kernel(ctypes.CDLL(str(library)))
        except (OSError, AttributeError):  # half a file, by whatever accident: build it again
            library.unlink(missing_ok=True)
    return None


def _compiler() -> list[str] | None:
    """Return the command of the C compiler that ``CC`` names, or ``cc``; ``None`` where there is neither."""
    for words in (shlex.split(os.environ.get("CC", "")), ["cc"]):
        if words and shutil.which(words[0]):
            return words
    return None


def _library(compiler: list[str]) -> Path:
    """Return the library for this source and this processor; build it when it is not there yet."""
    processor = _processor()
    key = hashlib.sha256(SOURCE.read_bytes() + " ".join([*FLAGS, *compiler, processor]).encode()).hexdigest()[:20]
    folder = _private_folder()
    library = folder / f"kernel-{key}.so"
    if not library.exists():
        with tempfile.TemporaryDirectory(dir=folder) as build:
            made = Path(build) / library.name
            # Built for exactly this processor where it is known which one that is: vector units differ.
            native = ["-march=native"] if processor else []
            subprocess.run(
                [*compiler, *FLAGS, *native, "-o", str(made), str(SOURCE)],
                check=True, capture_output=True, timeout=COMPILE_SECONDS, stdin=subprocess.DEVNULL,
            )  # fmt: skip
            made.replace(library)
    return library


def _processor() -> str:
    """Name the processor's instruction set; empty where it is not known.

    A home folder may be shared by machines of several kinds, and a library built for one would crash another.
    """
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return ""
    flags = next((line for line in lines if line.startswith(("flags", "Features"))), "")
    return platform.machine() + flags


def _private_folder() -> Path:
    """Return a cache folder that nobody but the user can write to: what lies there is loaded as code.

    Raises
    ------
    OSError
        There is none.
    """
    base = Path.home() / "Library/Caches" if sys.platform == "darwin" else Path.home() / ".cache"
    folder = Path(os.environ.get("XDG_CACHE_HOME") or base) / "brainfusion"
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    status = folder.stat()
    if status.st_uid != os.getuid() or status.st_mode & 0o022:
        raise PermissionError(f"{folder} can be written to by others")
    return folder
