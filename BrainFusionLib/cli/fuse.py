"""``brainfusion fuse``: register a pair and fuse it."""

from __future__ import annotations

import argparse
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

from BrainFusionLib.case import WARNING, run
from BrainFusionLib.case.dicom_results import noting_what_is_missing
from BrainFusionLib.case.files import planned_names
from BrainFusionLib.case.record import refuse_to_lose_decisions
from BrainFusionLib.case.replacing import complete_replacement
from BrainFusionLib.cli.codes import DONE, NOT_FOUND
from BrainFusionLib.cli.dicom import headers_of, say_dicom
from BrainFusionLib.cli.error import add_points, points_of, say_points
from BrainFusionLib.cli.output import add_output_options, output_settings
from BrainFusionLib.cli.outputs import check_outputs
from BrainFusionLib.cli.pair import (
    add_inputs,
    check_keep_refused,
    inputs_of,
    registration_settings,
    request_of,
    say_result,
)
from BrainFusionLib.cli.rules import add_rule_options, fusion_settings
from BrainFusionLib.cli.start import add_start_options, check_start_options, start_of
from BrainFusionLib.console import ProgressLine, say
from BrainFusionLib.errors import Remedy
from BrainFusionLib.folder import (
    at_stake,
    in_doubt,
    make_output_folder,
    remove_if_empty,
    write_case,
)
from BrainFusionLib.io.formats import output_names
from BrainFusionLib.io.ownership import refuse_to_replace_others
from BrainFusionLib.io.transform_writing import check_voxel_order
from BrainFusionLib.settings import OutputSettings, Settings


def add_to(commands: Any, line: str) -> None:
    """Add the command to the parser's; `line` is its help in the list of commands."""
    fuse_command = commands.add_parser(
        "fuse",
        help=line,
        description="Register the CT to the MRI, and write a fused volume, on the MRI's or another grid, and a report.",
        epilog="Written to FOLDER: fused and ct_in_mri (volumes on the MRI's grid; mri, too, if --grid says another; "
        "with --reference ct fused, mri_in_ct and ct), ct_to_mri.tfm or mri_to_ct.tfm (the transform; "
        "load it in 3D Slicer), result.json (all numbers), report.html (open it in a browser, and always check the "
        "images yourself); with --dicom, dicom/fused and dicom/ct_in_mri (folders of slices) and "
        "dicom/registration.dcm.",
    )
    add_inputs(fuse_command)
    add_start_options(fuse_command)
    add_output_options(fuse_command)
    fuse_command.add_argument(
        "--threads",
        type=int,
        metavar="N",
        help="CPU threads for resampling and fusing (default: all; registration is fastest with one)",
    )
    fuse_command.add_argument("-o", "--output", required=True, metavar="FOLDER", help="where to write the results")
    add_rule_options(fuse_command)
    fuse_command.add_argument(
        "--format",
        choices=output_names(),
        default=output_names()[0],
        help=f"format of the volumes written (default: {output_names()[0]})",
    )
    fuse_command.add_argument(
        "--save-alpha",
        action="store_true",
        help="also write alpha, the weight of the CT, 0 to 1, if the rule has one",
    )
    fuse_command.add_argument(
        "--bone",
        action="store_true",
        help="also write bone, a label map on the MRI's grid: 1 where the CT shows bone of the head (above 300 HU, "
        "without table, head holder and metal outside)",
    )
    add_points(fuse_command)
    fuse_command.add_argument(
        "--dicom",
        action="store_true",
        help="also write the fused volume and the registered CT as DICOM series into the MRI's study (modality OT, "
        "derived), and the pose as a Spatial Registration (REG) if both are DICOM; the MRI must be DICOM (with "
        "--reference ct the CT, whose study it then is)",
    )
    fuse_command.add_argument(
        "--export-anyway",
        action="store_true",
        help="write --dicom also if the verdict is red or the result was rejected; each object then says so in its "
        "description. Without it, all else is written, and the exit code is 3",
    )
    fuse_command.add_argument(
        "--pictures", action="store_true", help="also write the report's still pictures as PNGs, in pictures/"
    )
    fuse_command.add_argument(
        "--identify",
        action="store_true",
        help="include the names of the input files, and of CT scanner and kernel, in the report and result.json; "
        "without it, nothing there identifies the patient",
    )
    fuse_command.set_defaults(run=_fuse)


def _check(options: argparse.Namespace, folder: Path, output: OutputSettings) -> None:
    """Refuse, before the work, what cannot be read or must not be written."""
    names = planned_names(
        output, options.format, save_alpha=options.save_alpha, mri=not output.is_mris, bone=options.bone,
        dicom=options.dicom, registration=options.dicom, segmentation=options.dicom and options.bone,
        pictures=options.pictures, form=options.transform_format,
    )  # fmt: skip
    complete_replacement(folder)  # what a kill left half-way is ours, too
    outputs = [*at_stake(folder, names), options.keep_refused]
    check_voxel_order(options.transform_format, options.ct, options.mri)
    check_outputs(options, outputs, remedy=Remedy.OTHER_OUTPUT_FOLDER)
    refuse_to_replace_others(folder, names.values())  # before the work, not only when it is to be written
    check_keep_refused(options)
    check_start_options(options)


def _settings(options: argparse.Namespace, output: OutputSettings) -> Settings:
    return Settings(
        registration=registration_settings(options),
        fusion=fusion_settings(options),
        device=options.device,
        threads=options.threads,
        output=output,
        bone=options.bone,
    )


def _fuse(options: argparse.Namespace) -> int:
    folder, output = Path(options.output), output_settings(options)
    _check(options, folder, output)
    settings, points = _settings(options, output), points_of(options)
    made = make_output_folder(folder)
    began = time.monotonic()
    try:
        with ProgressLine(sys.stderr) as progress:
            progress("reading", 0.0)
            inputs = inputs_of(options)
            was_decided = refuse_to_lose_decisions(folder / "result.json", inputs.sha256)
            dicom = headers_of(options, inputs) if options.dicom else None
            start, given, landmarks = start_of(options, inputs)
            request = request_of(options, inputs)
            request = replace(request, settings=settings, start=start, given=given, landmarks=landmarks)
            result = run(request, inputs, progress)
            mri, ct_grid = inputs.mri, inputs.ct.grid
            del inputs  # the CT may be most of the memory
            progress("writing", 0.0)
            withheld = None if dicom is None or options.export_anyway else in_doubt(result, folder)
            if dicom is not None and withheld is None:
                result = noting_what_is_missing(result, dicom)
            files = write_case(
                result,
                mri,
                folder,
                options.format,
                save_alpha=options.save_alpha,
                dicom=dicom if withheld is None else None,
                export_anyway=options.export_anyway,
                pictures=options.pictures,
                identify=options.identify,
                transform_format=options.transform_format,
                ct_grid=ct_grid,
            )
    except BaseException:
        remove_if_empty(made)
        raise
    if was_decided:
        say("note: decisions about the earlier result in this folder were kept, as void: decide about this one, too")
    say_result(result)
    say_points(result, points, options.line, options.points_of)
    if options.save_alpha and "alpha" not in files:
        say(f"note: no alpha was written, because the rule {options.rule} has no weights")
    if dicom is not None and withheld is None:
        say_dicom(dicom, result)
    say(f"Done in {time.monotonic() - began:.0f} s on {result.provenance.device}; results are {WARNING}.")
    for path in files.values():
        say(f"  {path}")
    if withheld is None:
        return DONE
    say(
        f"No DICOM was written: {withheld.text}. To write it nevertheless, add --export-anyway; each object then says "
        "it of itself.",
        error=True,
    )
    return NOT_FOUND
