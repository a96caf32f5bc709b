"""``brainfusion slices``: folders of registered slices, the format of public benchmarks."""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path
from typing import Any

from BrainFusionLib.case.result import WARNING
from BrainFusionLib.cli.codes import DONE
from BrainFusionLib.cli.outputs import check_outputs
from BrainFusionLib.cli.rules import add_rule_options, fusion_settings
from BrainFusionLib.console import ProgressLine, say
from BrainFusionLib.errors import Remedy
from BrainFusionLib.folder import make_output_folder, remove_if_empty
from BrainFusionLib.fusion.slice_folders import fuse_folders
from BrainFusionLib.io.pictures import pair_names
from BrainFusionLib.settings import Settings


def add_to(commands: Any, line: str) -> None:
    """Add the command to the parser's; `line` is its help in the list of commands."""
    parser = commands.add_parser(
        "slices",
        help=line,
        description="Fuse every pair of registered 8-bit greyscale slices with the same name into FOLDER/NAME.png.",
        epilog="Nothing is registered or resampled: both slices of a pair must have the same size. Results are "
        f"{WARNING}.",
    )
    parser.add_argument("ct_folder", metavar="CT_FOLDER", help="CT slices (PNG, BMP, TIFF, JPEG), brain-windowed")
    parser.add_argument("mri_folder", metavar="MRI_FOLDER", help="MRI slices with the same names and sizes")
    parser.add_argument("-o", "--output", required=True, metavar="FOLDER", help="where to write the fused PNGs")
    add_rule_options(parser)
    parser.add_argument(
        "--save-alpha", action="store_true", help="also write FOLDER/alpha/NAME.png: the weight of the CT, 255 for 1"
    )
    parser.add_argument(
        "--device", choices=("auto", "cpu", "cuda", "mps"), default="auto", help="where to compute (default: auto)"
    )
    parser.add_argument("--threads", type=int, metavar="N", help="CPU threads (default: all)")
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Fuse the folders, and print a summary."""
    settings = Settings(fusion=fusion_settings(options), device=options.device, threads=options.threads)
    folder = Path(options.output)
    names, _ = pair_names(Path(options.ct_folder), Path(options.mri_folder))
    places = [folder, folder / "alpha"] if options.save_alpha else [folder]
    outputs = [place / f"{name}.png" for place in places for name in names]
    check_outputs(options, outputs, remedy=Remedy.OTHER_OUTPUT_FOLDER)
    made = make_output_folder(folder)
    began = time.monotonic()
    try:
        with ProgressLine(sys.stderr) as progress:
            written = fuse_folders(
                options.ct_folder,
                options.mri_folder,
                options.output,
                settings,
                save_alpha=options.save_alpha,
                progress=progress,
            )
    except BaseException:
        remove_if_empty(made)
        raise
    if written.unpaired:
        say(f"note: omitted, because only one folder contains them: {', '.join(written.unpaired)}")
    if options.save_alpha and not written.alpha:
        say(f"note: no alpha was written, because the rule {options.rule} has no weights")
    say(f"{len(written.fused)} slices fused in {time.monotonic() - began:.1f} s; results are {WARNING}.")
    say(f"  fused      {options.output}")
    if written.alpha:
        say(f"  alpha      {written.alpha[0].parent}")
    return DONE
