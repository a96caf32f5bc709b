"""Where the volumes of ``fuse`` and ``cohort`` are: in whose frame, and on which grid."""

from __future__ import annotations

import argparse
from typing import Any, get_args

from BrainFusionLib.settings import OutputGrid, OutputSettings, Side


def add_reference_option(parser: Any) -> None:
    """Add ``--reference``."""
    parser.add_argument(
        "--reference",
        choices=get_args(Side),
        default=OutputSettings.reference,
        help="which of the two stays where it is (default: mri, the CT is put into the MRI's frame). ct: the MRI is "
        "put into the CT's frame, and the transform written moves the MRI; in either case the CT is registered to the "
        "MRI",
    )


def add_output_options(parser: Any) -> None:
    """Add ``--grid`` and ``--reference``."""
    parser.add_argument(
        "--grid",
        type=_grid,
        metavar=f"{'|'.join(get_args(OutputGrid))}|MM",
        help="voxels of the volumes written (default: those of the reference). mri, ct: those of this volume, turned "
        "by the pose if it is not the reference; union: isotropic, at the finest spacing of either, over the fields of "
        "view of both; a number: isotropic voxels of that size in mm. The verdict is measured on the MRI's grid in any "
        "case",
    )
    add_reference_option(parser)


def output_settings(options: argparse.Namespace) -> OutputSettings:
    """Return what the options say.

    Raises
    ------
    SettingsError
        There is no such grid.
    """
    return OutputSettings(options.reference, getattr(options, "grid", None))


def _grid(text: str) -> str | float:
    try:
        return float(text)
    except ValueError:
        return text
