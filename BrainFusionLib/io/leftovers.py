"""Names of temporary files and folders, and the removal of those that a killed process left behind."""

from __future__ import annotations

import os
import platform
import re
import secrets
import shutil
import time
import zlib
from collections.abc import Collection
from pathlib import Path

from BrainFusionLib.locking import process_is_running

TEMPORARY, STAGING = ".tmp-", ".brainfusion-"
_NAME = re.compile(r"\.(tmp|brainfusion)-(?P<machine>[0-9a-f]{8})-(?P<pid>\d+)-[0-9a-f]{8}(\.[^/]*)?")
# Whether a process of another machine still runs cannot be asked: its temporaries count as leftovers after a day.
_SECONDS_ON_OTHER_MACHINES = 24 * 3600


def temporary_beside(path: Path, suffix: str = "", prefix: str = TEMPORARY) -> Path:
    """Return a hidden name in the folder of `path` that no other process and no other call uses.

    Parameters
    ----------
    path
        What the temporary file or folder will be renamed to.
    suffix
        The ending of the name, for writers that choose the format by it.
    prefix
        ``TEMPORARY`` or ``STAGING``.
    """
    return path.with_name(f"{prefix}{_machine()}-{os.getpid()}-{secrets.token_hex(4)}{suffix}")


def remove_leftovers(folder: str | os.PathLike[str], ended: Collection[int] = ()) -> list[Path]:
    """Remove the temporary files and folders in `folder` (not below) whose processes have ended; return their paths.

    Those of running processes, this one included, stay. What cannot be removed stays, too, without an error.

    Parameters
    ----------
    folder
        Where to look.
    ended
        Ids of processes of this machine that are known to have ended, though the system may still list them.
    """
    removed = []
    found = (path for prefix in (TEMPORARY, STAGING) for path in Path(folder).glob(f"{prefix}*"))
    for path in sorted(found):
        if _is_leftover(path, ended):
            if path.is_dir() and not path.is_symlink():
                shutil.rmtree(path, ignore_errors=True)
            else:
                try:
                    path.unlink(missing_ok=True)
                except OSError:
                    continue
            removed.append(path)
    return [path for path in removed if not path.exists()]


def _is_leftover(path: Path, ended: Collection[int]) -> bool:
    parts = _NAME.fullmatch(path.name)
    if parts is None:
        return False
    if parts["machine"] == _machine():
        pid = int(parts["pid"])
        return pid in ended or not process_is_running(pid)
    try:
        return time.time() - path.stat().st_mtime > _SECONDS_ON_OTHER_MACHINES
    except OSError:
        return False


def _machine() -> str:
    return f"{zlib.crc32(platform.node().encode()):08x}"
