"""``brainfusion fuse`` and ``brainfusion register``: one case."""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, get_args

from BrainFusionLib.case import WARNING, Inputs, Request, Result, Source, run, to_document
from BrainFusionLib.cli.codes import DONE, NOT_FOUND, fail
from BrainFusionLib.cli.rules import add_rule_options, fusion_settings
from BrainFusionLib.console import ProgressLine, say
from BrainFusionLib.errors import ImageFileError, SettingsError
from BrainFusionLib.folder import (
    make_output_folder,
    read_pair,
    read_pair_headers,
    refuse_to_overwrite_inputs,
    remove_if_empty,
    write_case,
)
from BrainFusionLib.io import TRANSFORM_SUFFIXES, read_transform, read_volume, write_json, write_transform
from BrainFusionLib.io.formats import output_names, readable
from BrainFusionLib.settings import Model, RegistrationSettings, Settings
from BrainFusionLib.transform import RigidTransform, Transform

INPUTS = (
    readable(),
    f"Results are {WARNING}.",
)


def add_to(commands: Any) -> None:
    """Add both commands to the parser's."""
    fuse_command = commands.add_parser(
        "fuse",
        help="register and fuse a CT and an MRI",
        description="Register the CT to the MRI, and write a fused volume on the MRI's grid, with a report.",
        epilog="Written to FOLDER: fused and ct_in_mri (volumes on the MRI's grid), ct_to_mri.tfm (the transform; "
        "load it in 3D Slicer), result.json (all numbers), report.html (open it in a browser, and always check the "
        "images yourself); with --dicom, dicom/fused and dicom/ct_in_mri (folders of slices).",
    )
    _add_inputs(fuse_command)
    fuse_command.add_argument(
        "--threads",
        type=int,
        metavar="N",
        help=f"CPU threads for resampling and fusing (default: all {os.cpu_count()}; registration is fastest with one)",
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
        "--dicom",
        action="store_true",
        help="also write the fused volume and the registered CT as DICOM series into the MRI's study (modality OT, "
        "derived); the MRI must be DICOM",
    )
    fuse_command.add_argument(
        "--pictures", action="store_true", help="also write the report's still pictures as PNGs, in pictures/"
    )
    fuse_command.add_argument(
        "--identify",
        action="store_true",
        help="include the names of the input files in the report and result.json; without it, nothing there "
        "identifies the patient",
    )
    fuse_command.add_argument(
        "--no-register",
        dest="register",
        action="store_false",
        help="do not register: use --transform unchanged (it may be affine), or, without it, the positions in the "
        "files; a registration only checks the pose",
    )
    fuse_command.set_defaults(run=_fuse)

    register_command = commands.add_parser(
        "register",
        help="register only, and write the transform",
        description="Register the CT to the MRI, and write the transform (ITK text; MRI to CT points, LPS).",
    )
    _add_inputs(register_command)
    register_command.add_argument("-o", "--output", required=True, metavar="FILE.tfm", help="the transform to write")
    register_command.add_argument(
        "--json", metavar="FILE", help="also write the result (verdict, evidence, timings) to FILE"
    )
    register_command.set_defaults(run=_register)


def keep_refused(pose: Transform | None, path: str | None) -> int:
    """Write a refused pose if the user asked for it, and print where."""
    if pose is None:
        say("Nothing was written.", error=True)
    elif path is None:
        say("Nothing was written. To inspect the refused pose, name a file with --keep-refused.", error=True)
    else:
        try:
            make_output_folder(Path(path).parent)
            write_transform(pose, path)
            say(f"Only the refused pose was written, for inspection and not for use: {path}", error=True)
        except ImageFileError as error:
            fail(error, NOT_FOUND)
    return NOT_FOUND


def _check_keep_refused(options: argparse.Namespace, taken: Sequence[str | None]) -> None:
    """Check before the work that a refused pose can be written, and overwrites no other file."""
    if options.keep_refused is None:
        return
    path = Path(options.keep_refused)
    _check_transform_name(path)
    if path.resolve() in [Path(other).resolve() for other in taken if other is not None]:
        raise ImageFileError(
            f"{path}: this file is used for something else, too. Name another file with --keep-refused, so that a "
            "refused pose is never mistaken for a good one."
        )
    remove_if_empty(make_output_folder(path.parent))


def _check_transform_name(path: Path) -> None:
    if path.suffix not in TRANSFORM_SUFFIXES:
        raise ImageFileError(f"{path}: the name of a transform must end in {' or '.join(TRANSFORM_SUFFIXES)}.")


def _fuse(options: argparse.Namespace) -> int:
    folder = Path(options.output)
    given = [path for path in (options.ct, options.mri, options.mri_mask) if path is not None]
    refuse_to_overwrite_inputs(folder, options.format, tuple(given))
    _check_keep_refused(options, (options.transform, str(folder / "ct_to_mri.tfm")))
    start, transform = _transforms(options)
    settings = Settings(
        registration=RegistrationSettings.preset(options.preset, options.seed, options.model),
        fusion=fusion_settings(options),
        device=options.device,
        threads=options.threads,
    )
    made = make_output_folder(folder)
    began = time.monotonic()
    try:
        with ProgressLine(sys.stderr) as progress:
            progress("reading", 0.0)
            inputs = _inputs(options)
            dicom = read_pair_headers(options.ct, options.mri, *_series(options)) if options.dicom else None
            if dicom is not None:
                dicom[0].check_same_place(inputs.mri.grid, inputs.mri.name)
            request = replace(_request(options, inputs), settings=settings, start=start, given=transform)
            result = run(request, inputs, progress)
            progress("writing", 0.0)
            files = write_case(
                result,
                inputs.mri,
                folder,
                options.format,
                save_alpha=options.save_alpha,
                dicom=dicom,
                pictures=options.pictures,
                identify=options.identify,
            )
    except BaseException:
        remove_if_empty(made)
        raise
    _say_result(result)
    if options.save_alpha and "alpha" not in files:
        say(f"note: no alpha was written, because the rule {options.rule} has no weights")
    if dicom is not None and dicom[1] is not None and dicom[0].is_of_another_patient(dicom[1]):
        say("note: CT and MRI carry different patient IDs; the DICOM series were written for the MRI's patient")
    say(f"Done in {time.monotonic() - began:.0f} s on {result.provenance.device}; results are {WARNING}.")
    for role, path in files.items():
        say(f"  {role:<10} {path}")
    return DONE


def _register(options: argparse.Namespace) -> int:
    output = Path(options.output)
    _check_transform_name(output)
    _check_keep_refused(options, (options.transform, options.output, options.json))
    start = read_transform(options.transform) if options.transform else None
    settings = Settings(
        registration=RegistrationSettings.preset(options.preset, options.seed, options.model), device=options.device
    )
    made = [folder for path in (output, Path(options.json or output)) for folder in make_output_folder(path.parent)]
    try:
        with ProgressLine(sys.stderr) as progress:
            progress("reading", 0.0)
            inputs = _inputs(options)
            request = replace(_request(options, inputs), settings=settings, start=start, fuse=False)
            result = run(request, inputs, progress)
        # The transform last: a run stopped between the two leaves no new transform without its verdict.
        if options.json:
            write_json(to_document(result.without_paths()), options.json)
        write_transform(result.transform, output)
    except BaseException:
        remove_if_empty(made)
        raise
    _say_result(result)
    say(f"  transform  {output}")
    return DONE


def _inputs(options: argparse.Namespace) -> Inputs:
    ct, mri = read_pair(options.ct, options.mri, *_series(options))
    return Inputs(ct, mri, read_volume(options.mri_mask) if options.mri_mask else None)


def _request(options: argparse.Namespace, inputs: Inputs) -> Request:
    """Return a request with its sources and default settings."""
    ct_series, mri_series = _series(options)
    mask = inputs.mri_mask
    return Request(
        Source(inputs.ct.name, options.ct, ct_series),
        Source(inputs.mri.name, options.mri, mri_series),
        None if mask is None else Source(mask.name, options.mri_mask),
    )


def _say_result(result: Result) -> None:
    for note in result.notes:
        say(f"note: {note}")
    say(f"The CT was {result.pose.movement}.")
    say(f"{result.verdict.sentence}.")
    if result.verdict.expected_error is not None:
        say(f"  {result.verdict.expected_error}")
    for reason in result.verdict.reasons:
        say(f"  {reason}")


def _transforms(options: argparse.Namespace) -> tuple[RigidTransform | None, Transform | None]:
    """Return the starting pose and the transform to use unchanged; at most one of them is given.

    Raises
    ------
    SettingsError
        An option for the registration was given together with --no-register.
    """
    if options.register:
        return (read_transform(options.transform) if options.transform else None), None
    for option, default in (("model", RegistrationSettings.model), ("mri_mask", None)):
        if getattr(options, option) != default:
            raise SettingsError(
                f"--{option.replace('_', '-')} only applies to registration, which --no-register omits. Omit one of "
                "the two."
            )
    return None, (read_transform(options.transform, rigid=False) if options.transform else RigidTransform.identity())


def _series(options: argparse.Namespace) -> tuple[str | None, str | None]:
    """Return the series to read for CT and MRI; ``--series`` applies to the one of the two that is a folder."""
    # Not Path.is_dir, which raises if a parent folder cannot be read; the reader gives a better message.
    ct_is_folder, mri_is_folder = os.path.isdir(options.ct), os.path.isdir(options.mri)  # noqa: PTH112
    return (
        options.ct_series or (options.series if ct_is_folder else None),
        options.mri_series or (options.series if mri_is_folder and not ct_is_folder else None),
    )


def _add_inputs(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("ct", metavar="CT", help=f"the CT: {INPUTS[0]}")
    parser.add_argument("mri", metavar="MRI", help="the MRI, in any of the same formats")
    parser.add_argument(
        "--series", help="series to read from a DICOM folder with several: number, place in the list, or UID"
    )
    parser.add_argument("--ct-series", metavar="SERIES", help="the same for the CT, if both are DICOM folders")
    parser.add_argument("--mri-series", metavar="SERIES", help="the same for the MRI, if both are DICOM folders")
    parser.add_argument(
        "--transform",
        metavar="FILE",
        help="a starting pose to try, as an ITK transform file (a wrong one does no harm)",
    )
    parser.add_argument(
        "--model",
        choices=get_args(Model),
        default=RegistrationSettings.model,
        help="degrees of freedom of the transform (default: rigid, right for one head and correct headers). "
        "similarity: also one scale; affine: scales and shears, for a distorted MRI or a wrong voxel size",
    )
    parser.add_argument(
        "--mri-mask",
        metavar="FILE",
        help="registration mask: a volume on the MRI's grid (a label map, for example), above 0 where the alignment "
        "matters most",
    )
    parser.add_argument(
        "--keep-refused",
        metavar="FILE.tfm",
        help="if the two could not be aligned (exit code 3, nothing else is written), write the best pose found to "
        "this file, for inspection",
    )
    parser.add_argument(
        "--preset",
        choices=("fast", "standard", "thorough"),
        default="standard",
        help="effort of the search for the pose (default: standard, which searches longer if necessary)",
    )
    parser.add_argument("--seed", type=int, default=0, help="seed of the random samples (default: 0)")
    parser.add_argument(
        "--device",
        choices=("auto", "cpu", "cuda", "mps"),
        default="auto",
        help="where to compute (default: auto, the graphics card if there is one)",
    )
