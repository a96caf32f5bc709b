"""A stand-in for Slicer's PythonSlicer, with its habits."""

import os
import sys
from pathlib import Path

SCRIPT = """#!/bin/sh
exec 3<&0
"{python}" "$@" <&3 3<&- &
exec 3<&-
wait $!
code=$?
if [ $code -gt 128 ]; then
    echo "error: [{python}] exit abnormally - Report the problem." >&2
    exit 1
fi
exit $code
"""


def python_slicer(folder: Path) -> str:
    """Write PythonSlicer into a folder, and return its path.

    It is no Python, but a launcher of one (Slicer's CMake/SlicerBlockInstallPython.cmake; `runProcess` and
    `applicationFinished` in AppLauncher's Base/ctkAppLauncher.cpp): who kills it leaves the Python running; it hands
    stdin, stdout and stderr on; it ends as the Python does, but with code 1 where that was killed or has crashed.
    """
    if os.name == "nt":
        return sys.executable
    path = Path(folder) / "PythonSlicer"
    path.write_text(SCRIPT.format(python=sys.executable), encoding="utf-8")
    path.chmod(0o755)
    return str(path)


def is_gone(pid: int) -> bool:
    """Say whether a process has ended, whoever has not asked for its end yet."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    status = Path(f"/proc/{pid}/stat")
    return status.exists() and status.read_text(encoding="utf-8", errors="replace").rpartition(")")[2].split()[0] == "Z"
