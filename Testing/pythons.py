"""Pythons of this machine, and environments of theirs that tests keep in ``.cache``."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]


def python_of(version: str) -> Path | None:
    """Return a Python of this version ("3.12") that runs, or none."""
    pyenv = Path(os.environ.get("PYENV_ROOT") or Path.home() / ".pyenv") / "versions"
    candidates = sorted(pyenv.glob(f"{version}.*/bin/python{version}"), reverse=True)
    candidates += [Path(found) for name in (f"python{version}", "python3") if (found := shutil.which(name))]
    for candidate in candidates:
        # A name of pyenv's may stand for a version that is not installed or not chosen.
        code = "import sys; print('%d.%d' % sys.version_info[:2])"
        if subprocess.run([candidate, "-c", code], capture_output=True, text=True).stdout.strip() == version:
            return candidate
    return None


def clean_environ() -> dict[str, str]:
    """Return the environment variables without those that lead Python to other people's modules."""
    return {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "PYTHONHOME")}


def problem_of(*command: str | Path, seconds: float = 200) -> str:
    """Run a command; return why it failed, or nothing."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=seconds, env=clean_environ())
    except subprocess.TimeoutExpired:
        return f"{command[2]} took too long"
    return "" if done.returncode == 0 else f"{command[2]} failed: {done.stderr.strip()[-300:]}"
