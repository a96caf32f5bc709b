"""``brainfusion sample``: a CT and an MRI to try everything on."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from BrainFusionLib.cli.codes import DONE
from BrainFusionLib.console import say
from BrainFusionLib.errors import ImageFileError, Remedy
from BrainFusionLib.folder import make_output_folder
from BrainFusionLib.io import write_volume
from BrainFusionLib.phantom import make_sample


def add_to(commands: Any, line: str) -> None:
    """Add the command to the parser's; `line` is its help in the list of commands."""
    command = commands.add_parser(
        "sample",
        help=line,
        description="Write ct.nrrd and mri.nrrd: a head of this project's own making, simulated, in an unknown pose. "
        "Nothing is downloaded.",
        epilog="Example: brainfusion sample -o sample; brainfusion fuse sample/ct.nrrd sample/mri.nrrd -o results",
    )
    command.add_argument("-o", "--output", required=True, metavar="FOLDER", help="where to write the two files")
    command.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Write the two files; never over others."""
    folder = Path(options.output)
    make_output_folder(folder)
    ct, mri = folder / "ct.nrrd", folder / "mri.nrrd"
    for path in (ct, mri):
        if path.exists():
            raise ImageFileError(f"{path} is there already.", remedy=Remedy.OTHER_OUTPUT_FOLDER)
    pair = make_sample()
    write_volume(pair.ct, ct)
    write_volume(pair.mri, mri)
    say(str(ct), str(mri))
    return DONE
