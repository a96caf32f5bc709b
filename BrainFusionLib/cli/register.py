"""``brainfusion register``: register a pair and write the transform."""

from __future__ import annotations

import argparse
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

from BrainFusionLib.case import run, to_document
from BrainFusionLib.case.files import moved_by
from BrainFusionLib.cli.codes import DONE
from BrainFusionLib.cli.error import add_points, points_of, say_points
from BrainFusionLib.cli.output import add_reference_option, output_settings
from BrainFusionLib.cli.outputs import check_outputs
from BrainFusionLib.cli.pair import (
    add_inputs,
    check_keep_refused,
    check_transform_name,
    inputs_of,
    registration_settings,
    request_of,
    say_result,
)
from BrainFusionLib.cli.start import add_start_options, check_start_options, start_of
from BrainFusionLib.console import ProgressLine, say
from BrainFusionLib.folder import make_output_folder, remove_if_empty
from BrainFusionLib.io import write_json, write_transform, write_volume
from BrainFusionLib.io.formats import written_format_of
from BrainFusionLib.io.transform_writing import check_voxel_order
from BrainFusionLib.settings import Settings


def add_to(commands: Any, line: str) -> None:
    """Add the command to the parser's; `line` is its help in the list of commands."""
    register_command = commands.add_parser(
        "register",
        help=line,
        description="Register the CT to the MRI, and write the transform (ITK text; MRI to CT points, LPS; with "
        "--reference ct the inverse).",
    )
    add_inputs(register_command)
    add_start_options(register_command)
    add_reference_option(register_command)
    register_command.add_argument("-o", "--output", required=True, metavar="FILE.tfm", help="the transform to write")
    register_command.add_argument(
        "--json", metavar="FILE", help="also write the result (verdict, evidence, timings) to FILE"
    )
    register_command.add_argument(
        "--bone", metavar="FILE", help="also write the bone of the CT on the MRI's grid, a label map, to FILE"
    )
    add_points(register_command)
    register_command.set_defaults(run=_register)


def _register(options: argparse.Namespace) -> int:
    output = Path(options.output)
    check_transform_name(output, options.transform_format)
    check_voxel_order(options.transform_format, options.ct, options.mri)
    check_start_options(options)
    check_outputs(options, (output, options.json, options.bone, options.keep_refused))
    check_keep_refused(options)
    settings = Settings(
        registration=registration_settings(options),
        device=options.device,
        output=output_settings(options),
        bone=options.bone is not None,
    )
    points = points_of(options)
    if options.bone is not None:
        written_format_of(Path(options.bone))
    paths = (output, Path(options.json or output), Path(options.bone or output))
    made = [folder for path in paths for folder in make_output_folder(path.parent)]
    try:
        with ProgressLine(sys.stderr) as progress:
            progress("reading", 0.0)
            inputs = inputs_of(options)
            start, given, landmarks = start_of(options, inputs)
            request = request_of(options, inputs)
            request = replace(request, settings=settings, start=start, given=given, landmarks=landmarks, fuse=False)
            result = run(request, inputs, progress)
        bone = result.bone
        # The labels have a file of their own. What cannot be recorded is found before anything is written.
        recorded = replace(result.without_names(), bone=bone and replace(bone, labels=None))
        document = to_document(recorded)
        # The transform last: a run stopped between the two leaves no new transform without its verdict.
        if options.bone is not None and bone is not None and bone.labels is not None:
            write_volume(bone.labels, options.bone)
        if options.json:
            write_json(document, options.json)
        write_transform(
            result.transform, output, options.transform_format,
            ct=inputs.ct.grid, mri=inputs.mri.grid, moved=moved_by(result),
        )  # fmt: skip
    except BaseException:
        remove_if_empty(made)
        raise
    say_result(result)
    say_points(result, points, options.line, options.points_of)
    for written in (options.bone, options.json, output):
        if written is not None:
            say(f"  {written}")
    return DONE
