"""``brainfusion metrics``: quality of a fused image, by the usual measures and the fidelity gates."""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from BrainFusionLib.cli.codes import DONE
from BrainFusionLib.cli.outputs import check_outputs
from BrainFusionLib.console import say
from BrainFusionLib.folder import make_output_folder, remove_if_empty
from BrainFusionLib.fusion.measuring import measure_files
from BrainFusionLib.io import write_json, write_text
from BrainFusionLib.io.tables import format_csv

# Explanation of each number in the table.
MEANINGS = {
    "Qabf": "edges preserved, 0 to 1",
    "VIF": "visual information fidelity, mean of both sources",
    "NMI": "normalised mutual information, sum over both sources, 0 to 2",
    "Qy": "Yang's similarity, 0 to 1",
    "SSIM": "structural similarity, mean of both sources",
    "SCD": "correlations of differences, sum, -2 to 2",
    "EN": "entropy, bits; of the fused image alone",
    "SD": "standard deviation, levels; of the fused image alone",
    "SF": "spatial frequency, levels; of the fused image alone",
    "AG": "average gradient, levels; of the fused image alone",
    "bone_error": "gate: mean distance from the CT in bone, levels of 255",
    "soft_tissue_error": "gate: mean distance from the MRI in soft tissue, levels of 255",
    "soft_tissue_correlation": "gate: correlation with the MRI in soft tissue",
    "overshoot": "gate: mean distance from the sources' range, levels of 255",
    "dark_rim_60": "gate: bright pixels beside bone darker than the MRI by more than 60 levels, %",
    "dark_rim_30": "gate: the same, by more than 30 levels, %",
}


def add_to(commands: Any, line: str) -> None:
    """Add the command to the parser's; `line` is its help in the list of commands."""
    parser = commands.add_parser(
        "metrics",
        help=line,
        description="Measure a fused image: three pictures, three folders of pictures of the same names, or three "
        "volumes on one grid (fused and ct_in_mri as `brainfusion fuse` writes them, and the MRI).",
        epilog="The gates show whether the picture is faithful to CT and MRI; if one is missed, no other measure "
        "counts. Formulas and their sources: BrainFusionLib/metrics/fusion.py.",
    )
    parser.add_argument("fused", metavar="FUSED", help="the fused image: a picture, a folder of pictures, or a volume")
    parser.add_argument("ct", metavar="CT", help="its CT, of the same kind")
    parser.add_argument("mri", metavar="MRI", help="its MRI, of the same kind")
    parser.add_argument("--json", metavar="FILE", help="write the means and the measures of every slice to FILE")
    parser.add_argument("--csv", metavar="FILE", help="write the measures to FILE, one line for each slice")
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Measure, and print a table."""
    check_outputs(options, (options.json, options.csv))
    made = [f for path in (options.json, options.csv) if path for f in make_output_folder(Path(path).parent)]
    try:
        measured = measure_files(options.fused, options.ct, options.mri)
        if options.json:
            write_json({"mean": measured.mean, "slices": measured.slices}, options.json)
        if options.csv:
            write_text(_csv(measured.slices), options.csv)
    except BaseException:
        remove_if_empty(made)
        raise
    if measured.unpaired:
        say(f"note: omitted, because not all folders contain them: {', '.join(measured.unpaired)}")
    count = len(measured.slices)
    say(f"mean of {count} slices" if count > 1 else next(iter(measured.slices)))
    for name, value in measured.mean.items():
        say(f"  {name:<24} {'-' if value is None else f'{value:.4f}':>9}  {MEANINGS[name]}")
    return DONE


def _csv(slices: Mapping[str, Mapping[str, float | None]]) -> str:
    return format_csv(({"slice": name, **row} for name, row in slices.items()), ["slice", *MEANINGS])
