"""Cohorts inside Slicer, without a window.

``Slicer --no-splash --no-main-window --python-script …/BrainFusionSlicer/batch.py -- MANIFEST -o FOLDER`` does what
``brainfusion cohort MANIFEST -o FOLDER`` does without Slicer, with the same code, and ends with the same exit code.
"""

from __future__ import annotations

import multiprocessing
import shutil
import sys
import traceback
from collections.abc import Sequence
from pathlib import Path


def main(arguments: Sequence[str]) -> int:
    """Run a cohort; return the exit code, whatever happens: an exception would leave Slicer running for ever."""
    try:
        # Where this script is run from a source checkout, or from an installed extension's folder.
        here = Path(__file__).resolve()
        for folder in (here.parents[1], here.parents[2]):
            if (folder / "BrainFusionLib").is_dir() and str(folder) not in sys.path:
                sys.path.append(str(folder))
        from BrainFusionLib.cli import main as brainfusion

        # Cases at once are processes of their own: of Slicer's Python, not of Slicer.
        python = shutil.which("PythonSlicer")
        if "slicer" in sys.modules and python is not None:
            multiprocessing.set_executable(python)

        words = [word for word in arguments if word != "--"]
        return brainfusion(["cohort", *words])
    except SystemExit as end:
        return end.code if isinstance(end.code, int) else 2
    except BaseException:
        traceback.print_exc()
        return 1


if __name__ == "__main__":
    code = main(sys.argv[1:])
    sys.stdout.flush()
    sys.stderr.flush()
    sys.exit(code)
