"""The folders in which the voxels of jobs lie: made, removed, and removed after a process that was killed.

They hold a patient's data: none may stay.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from BrainFusionLib.errors import ImageFileError
from BrainFusionLib.locking import process_is_running

# Folders of jobs; after it come the id and the start of the process that made the folder.
FOLDER_PREFIX = "brainfusion-job-"
IN_MEMORY = Path("/dev/shm")
OLDEST_JOB_S = 24 * 3600
# Ticks for which removing a folder is tried again: some seconds.
MOST_TRIES = 200


class KeptFolders:
    """Folders to be removed. Windows removes no file that is still looked at, as the voxels of a result are."""

    def __init__(self) -> None:
        self.folders: list[Path] = []
        self._tries = 0

    def remove(self, folder: Path | None) -> None:
        """Remove a folder now or, where that is not possible, with one of the next `try_again`."""
        if folder is not None:
            self.folders.append(folder)
            self._tries = MOST_TRIES
            self.try_again()

    def try_again(self) -> bool:
        """Remove what is left; say whether to come again. What stays for good goes with the next start of Slicer."""
        for folder in self.folders:
            shutil.rmtree(folder, ignore_errors=True)
        self.folders = [folder for folder in self.folders if folder.exists()]
        self._tries -= 1
        return bool(self.folders) and self._tries > 0


def make_folder(needed_bytes: int) -> Path:
    """Return a new folder for a job's voxels: in memory where the system has a file system there, else on the disk."""
    for place in (IN_MEMORY, None):
        try:
            if place is None or shutil.disk_usage(place).free > 2 * needed_bytes:
                folder = Path(
                    tempfile.mkdtemp(prefix=f"{FOLDER_PREFIX}{os.getpid()}-{_start_of(os.getpid())}-", dir=place)
                )
                break
        except OSError:
            if place is None:
                raise
    if shutil.disk_usage(folder).free < needed_bytes:
        free, wanted = shutil.disk_usage(folder).free // 10**6, needed_bytes // 10**6
        shutil.rmtree(folder, ignore_errors=True)
        raise ImageFileError(f"{folder.parent}: has {free} MB free, and {wanted} MB are needed. Free some space there.")
    return folder


def remove_abandoned_folders(places: Sequence[Path] | None = None) -> None:
    """Remove the folders of jobs whose process is gone: a Slicer that was killed leaves its voxels in memory.

    Parameters
    ----------
    places
        Where to look; where jobs are put when ``None``.
    """
    for place in places or (IN_MEMORY, Path(tempfile.gettempdir())):
        for folder in place.glob(f"{FOLDER_PREFIX}*"):
            pid, start, *_ = (folder.name.removeprefix(FOLDER_PREFIX) + "--").split("-")
            with contextlib.suppress(OSError, ValueError):
                status = folder.lstat()
                # Ids of processes are used again: by a process that started at another time. No job takes a day.
                is_gone = not process_is_running(int(pid)) or (start.isdigit() and start != _start_of(int(pid)))
                is_over = is_gone or time.time() - status.st_mtime > OLDEST_JOB_S
                is_ours = not hasattr(os, "getuid") or status.st_uid == os.getuid()  # Windows: a folder for each user
                if is_over and is_ours:
                    shutil.rmtree(folder, ignore_errors=True)


def _start_of(pid: int) -> str:
    """Return when a process was started, in ticks of the system's clock; nothing where that is not known."""
    with contextlib.suppress(OSError, IndexError):
        # Field 22 of proc(5); the second one, the program's name, may have spaces and brackets of its own.
        return Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace").rpartition(")")[2].split()[19]
    return ""
