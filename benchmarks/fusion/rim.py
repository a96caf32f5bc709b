"""Show the bone rim before and after a change: ``python -m benchmarks.fusion.rim PAIRS BEFORE -o FOLDER``.

PAIRS/CT and PAIRS/MRI are registered 8-bit slices, BEFORE what ``brainfusion slices`` made of them at another revision.
FOLDER gets ``rim.png``: of each slice the part with most rim of bone, 4 times enlarged, and what it is now.
"""

from __future__ import annotations

import argparse
import logging
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from benchmarks.fusion.sheet import write_close_ups
from BrainFusionLib.errors import BrainFusionError
from BrainFusionLib.fusion.slice_folders import fuse_folders
from BrainFusionLib.settings import Settings

logger = logging.getLogger("benchmarks")


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; return the exit code."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.fusion.rim", description=__doc__.splitlines()[0])
    parser.add_argument("pairs", type=Path, metavar="PAIRS", help="folder with CT/ and MRI/")
    parser.add_argument("before", type=Path, metavar="BEFORE", help="folder of fused pictures of the same names")
    parser.add_argument("-o", "--output", type=Path, required=True, metavar="FOLDER")
    options = parser.parse_args(argv)
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    ct, mri = options.pairs / "CT", options.pairs / "MRI"
    try:
        options.output.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory() as temporary:
            fuse_folders(ct, mri, Path(temporary), Settings(device="cpu"))
            folders = {"CT": ct, "MRI": mri, "before": options.before, "after": Path(temporary)}
            write_close_ups(folders, options.output / "rim.png")
    except (BrainFusionError, OSError) as error:
        logger.error("%s", error)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
