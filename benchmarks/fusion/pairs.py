"""Make 8-bit CT and MRI slices of a simulated head, for pictures that may be shown to anybody.

``python -m benchmarks.fusion.pairs HEAD -o FOLDER`` takes a whole-head label map (or ``phantom-N``) and writes
FOLDER/CT and FOLDER/MRI, as the field's benchmarks come: the CT through a brain window, the MRI scaled to 8 bits.
``--scans N`` makes N slices of N scans instead of the three that docs/images/fusion_sheet.png shows.
"""

from __future__ import annotations

import argparse
import logging
import sys
from collections.abc import Sequence
from pathlib import Path

import torch

from BrainFusionLib.errors import BrainFusionError
from BrainFusionLib.io import write_grey
from simulation.heads import Head, detailed_phantom
from simulation.label_maps import read_detailed_head
from simulation.scans import SimulationConfig, draw_scan
from simulation.slices_torch import render

logger = logging.getLogger("benchmarks")

SIZE, SPACING_MM = (256, 256), 0.9
# Seed of the scan, and height above the middle of the head: a T2 with a tumour, a FLAIR, a PD with a calcification.
SCANS = {"tumour": (1, 48.0), "orbits": (12, 35.0), "calcification": (15, 35.0)}
# Heights that other scans are cut at, in turn: from the orbits to above the ventricles.
HEIGHTS_MM = (5.0, 20.0, 35.0, 48.0)


def make_pairs(model: Head, output: Path, scans: int | None = None) -> None:
    """Write one pair of pictures for each of `SCANS`, or for so many other ones.

    Raises
    ------
    ImageFileError
        The folder cannot be written to.
    """
    drawn = SimulationConfig(
        windowed=1.0,
        noise=0.01,
        misregistration_mm=0.5,
        rotation_deg=6.0,
        scale=0.05,
        metal=0.0,
        slice_mm=2.0,
        ghosting=0.0,
    )
    tissue = torch.from_numpy(model.tissue_kji)
    chosen = SCANS
    if scans is not None:
        chosen = {f"scan{seed:03}": (seed, HEIGHTS_MM[seed % len(HEIGHTS_MM)]) for seed in range(scans)}
    for name, (seed, height_mm) in chosen.items():
        ct, mri, _ = render(model, tissue, draw_scan(model, drawn, [seed]), [height_mm], SIZE, SPACING_MM)
        for kind, image in (("CT", ct), ("MRI", mri)):
            (output / kind).mkdir(parents=True, exist_ok=True)
            write_grey(image.reshape(SIZE).clamp(0, 1).numpy() * 255, output / kind / f"{name}.png")


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; return the exit code."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.fusion.pairs", description=__doc__.splitlines()[0])
    parser.add_argument("head", metavar="HEAD", help="label map of a whole head, or phantom-1, phantom-2, ...")
    parser.add_argument("-o", "--output", type=Path, required=True, metavar="FOLDER")
    parser.add_argument("--scans", type=int, metavar="N", help="make N slices of N scans")
    arguments = parser.parse_args(argv)
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    try:
        number = arguments.head.removeprefix("phantom-")
        model = detailed_phantom(int(number)) if number.isdigit() else read_detailed_head(Path(arguments.head))
        make_pairs(model, arguments.output, arguments.scans)
    except (BrainFusionError, OSError) as error:
        logger.error("%s", error)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
