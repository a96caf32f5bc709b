"""The console command ``brainfusion``.

Exit codes: 0 done; 1 a fault of the program; 2 wrong input, settings or files; 3 the two do not fit on each other;
130 interrupted with Ctrl-C; 143 ended by another program.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import importlib.util
import logging
import os
import platform
import signal
import sys
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NoReturn, get_args

from BrainFusionLib import __version__
from BrainFusionLib.case import (
    FORMATS,
    make_output_folder,
    read_pair,
    refuse_to_overwrite_inputs,
    remove_if_empty,
    write_case,
)
from BrainFusionLib.console import ProgressLine, say
from BrainFusionLib.device import require_torch
from BrainFusionLib.errors import BrainFusionError, Cancelled, ImageFileError, RegistrationError, SettingsError
from BrainFusionLib.io import TRANSFORM_SUFFIXES, read_transform, read_volume, write_json, write_transform
from BrainFusionLib.pipeline import NETWORK_RULE, WARNING, fuse, not_rigid, versions
from BrainFusionLib.rules import RULES
from BrainFusionLib.settings import FusionSettings, Model, RegistrationSettings, Settings
from BrainFusionLib.transform import AffineTransform, RigidTransform, Transform, told
from BrainFusionLib.volume import Volume

DONE, FAULT, WRONG_INPUT, NOT_FOUND, INTERRUPTED, TERMINATED = 0, 1, 2, 3, 130, 143

INPUTS = (
    "NRRD, NIfTI, MetaImage (.mha), Analyze (.img or .hdr), or a folder of DICOM files",
    f"Results are {WARNING}.",
)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command and return its exit code; prints no traceback for a wrong input.

    Raises
    ------
    SystemExit
        Wrong arguments, ``--help`` and ``--version`` (argparse's way), or the signal SIGTERM.
    """
    logging.basicConfig(level=logging.WARNING, format="%(message)s")
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, _stop)
    options = _parser().parse_args(arguments)
    try:
        code: int = options.run(options)
        return code
    except RegistrationError as error:
        _fail(error, NOT_FOUND)
        return _keep_refused(error.best_transform, options.keep_refused)
    except (KeyboardInterrupt, Cancelled):
        say("\ninterrupted; nothing was written", error=True)
        return INTERRUPTED
    except BrainFusionError as error:
        return _fail(error, WRONG_INPUT)
    except (MemoryError, RuntimeError) as error:
        # torch has no error of its own for the CPU's memory; the GPU's derives from RuntimeError.
        if isinstance(error, MemoryError) or "memory" in str(error):
            hint = "Close other programs, crop the volumes, or use --device cpu."
            return _fail(f"not enough memory for these volumes. {hint}", WRONG_INPUT)
        raise


def _fail(error: BrainFusionError | str, code: int) -> int:
    say(f"brainfusion: {error}", error=True)
    return code


def _keep_refused(pose: Transform | None, path: str | None) -> int:
    """Write a refused pose where the user asked for it, and say so."""
    if pose is None:
        say("Nothing was written.", error=True)
    elif path is None:
        say("Nothing was written. To look at the refused pose, name a file with --keep-refused.", error=True)
    else:
        try:
            make_output_folder(Path(path).parent)
            write_transform(pose, path)
            say(f"Only the refused pose was written, to look at and not to use: {path}", error=True)
        except ImageFileError as error:
            _fail(error, NOT_FOUND)
    return NOT_FOUND


def _check_keep_refused(options: argparse.Namespace, taken: Sequence[str | None]) -> None:
    """See before the work that a refused pose can be written, and not where other things are."""
    if options.keep_refused is None:
        return
    path = Path(options.keep_refused)
    _check_transform_name(path)
    if path.resolve() in [Path(other).resolve() for other in taken if other is not None]:
        raise ImageFileError(
            f"{path}: is named for something else, too. Name another file with --keep-refused, so that a refused pose "
            "is never taken for a good one."
        )
    remove_if_empty(make_output_folder(path.parent))


def _check_transform_name(path: Path) -> None:
    if path.suffix not in TRANSFORM_SUFFIXES:
        raise ImageFileError(f"{path}: a transform is written as {' or '.join(TRANSFORM_SUFFIXES)}. Name it so.")


def _stop(signum: int, frame: Any) -> NoReturn:
    # Through the stack, so that half-written files are removed on the way.
    raise SystemExit(TERMINATED)


def _fuse(options: argparse.Namespace) -> int:
    start, transform = _transforms(options)
    settings = Settings(
        registration=RegistrationSettings.preset(options.preset, options.seed, options.model),
        fusion=FusionSettings(options.rule, options.weights),
        device=options.device,
        threads=options.threads,
    )
    folder = Path(options.output)
    given = [path for path in (options.ct, options.mri, options.mri_mask) if path is not None]
    refuse_to_overwrite_inputs(folder, options.format, tuple(given))
    _check_keep_refused(options, (options.transform, str(folder / "ct_to_mri.tfm")))
    made = make_output_folder(folder)
    began = time.monotonic()
    try:
        with ProgressLine(sys.stderr) as progress:
            progress("reading", 0.0)
            ct, mri = read_pair(options.ct, options.mri, *_series(options))
            mask = _mask(options)
            result = fuse(ct, mri, settings, start=start, transform=transform, mri_mask=mask, progress=progress)
            progress("writing", 0.0)
            files = write_case(result, mri, folder, options.format)
    except BaseException:
        remove_if_empty(made)
        raise
    for note in result.details["notes"]:
        say(f"note: {note}")
    say(f"The CT was {result.transform.describe(mri.grid.centre_lps_mm)}.")
    say(f"Verdict: {result.verdict.colour} - {'; '.join(result.verdict.reasons)}.")
    say(f"Done in {time.monotonic() - began:.0f} s on {result.details['device']}; results are {WARNING}.")
    for role, path in files.items():
        say(f"  {role:<10} {path}")
    return DONE


def _register(options: argparse.Namespace) -> int:
    require_torch()
    from BrainFusionLib.registration import register
    from BrainFusionLib.verdict import judge

    output = Path(options.output)
    _check_transform_name(output)
    _check_keep_refused(options, (options.transform, options.output, options.json))
    start = read_transform(options.transform) if options.transform else None
    made = [folder for path in (output, Path(options.json or output)) for folder in make_output_folder(path.parent)]
    try:
        with ProgressLine(sys.stderr) as progress:
            progress("reading", 0.0)
            ct, mri = read_pair(options.ct, options.mri, *_series(options))
            mask = _mask(options)
            result = register(
                ct,
                mri,
                RegistrationSettings.preset(options.preset, options.seed, options.model),
                start=start,
                mri_mask=mask,
                device=options.device,
                progress=progress,
            )
        verdict = judge(result)
        transform = result.affine or result.transform
        notes = [f"{v.name}: {note}" for v in (ct, mri) for note in v.notes]
        if isinstance(transform, AffineTransform):
            notes.append(not_rigid(transform, given=False))
        quality = {
            "warning": WARNING,
            "case": {"ct": ct.name, "mri": mri.name, **({"mri_mask": mask.name} if mask else {})},
            "transform": told(transform, result.transform, mri.grid.centre_lps_mm),
            "verdict": verdict.to_dict(),
            "quality": result.to_dict(),
            "timings_s": result.timings_s,
            "device": result.device,
            "notes": notes,
            "versions": versions(),
        }
        # The transform last: a run that is stopped between the two leaves no new transform without its quality.
        if options.json:
            write_json(quality, options.json)
        write_transform(transform, output)
    except BaseException:
        remove_if_empty(made)
        raise
    for note in notes:
        say(f"note: {note}")
    say(f"The CT was {transform.describe(mri.grid.centre_lps_mm)}.")
    say(f"Verdict: {verdict.colour} - {'; '.join(verdict.reasons)}.")
    say(f"  transform  {output}")
    return DONE


def _doctor(options: argparse.Namespace) -> int:
    """Say what is installed, which device would be used, and which weights there are."""
    say(f"brainfusion {__version__}, Python {platform.python_version()}, {platform.platform()}")
    missing = []
    for package, purpose, needed in (
        ("numpy", "arrays", True),
        ("SimpleITK", "image files, masks", True),
        ("pillow", "pictures in the report", True),
        ("torch", "registration, resampling, the network", True),
        ("PyWavelets", "the wavelet rule", False),
    ):
        try:
            say(f"  {package:<12} {importlib.metadata.version(package):<16} {purpose}")
        except importlib.metadata.PackageNotFoundError:
            say(f"  {package:<12} {'missing':<16} {purpose}; pip install {package}")
            missing += [package] if needed else []
    if importlib.util.find_spec("torch") is not None:
        import torch

        from BrainFusionLib.device import pick_device
        from BrainFusionLib.registration.kernel import kernel

        say(f"  registration {'compiled loops' if kernel() else 'torch only: about twice as slow; a C compiler helps'}")
        say(f"  device       {pick_device('auto')} (auto), {torch.get_num_threads()} CPU threads")
        for n in range(torch.cuda.device_count()):
            say(f"  cuda:{n}       {torch.cuda.get_device_name(n)}")
    say("  weights      none ship with this version; the default rule is bone_over_mri")
    if missing:
        say(f"Not ready: install {' '.join(missing)}.")
        return FAULT
    say("Ready.")
    return DONE


def _transforms(options: argparse.Namespace) -> tuple[RigidTransform | None, Transform | None]:
    """Return the starting pose and the transform to use as it is, of which at most one is given.

    Raises
    ------
    SettingsError
        The pose is not to be looked for, and something was said about how to look for it.
    """
    if options.register:
        return (read_transform(options.transform) if options.transform else None), None
    for option, default in (("model", RegistrationSettings.model), ("mri_mask", None)):
        if getattr(options, option) != default:
            raise SettingsError(
                f"--{option.replace('_', '-')} is for the registration, and --no-register leaves that out: "
                "leave one of the two away"
            )
    return None, (read_transform(options.transform, rigid=False) if options.transform else RigidTransform.identity())


def _mask(options: argparse.Namespace) -> Volume | None:
    return read_volume(options.mri_mask) if options.mri_mask else None


def _series(options: argparse.Namespace) -> tuple[str | None, str | None]:
    """Return which series to take for CT and MRI; ``--series`` is for whichever of the two is a folder."""
    # Not Path.is_dir, which raises where a parent folder may not be looked into; reading says so in words.
    ct_is_folder, mri_is_folder = os.path.isdir(options.ct), os.path.isdir(options.mri)  # noqa: PTH112
    return (
        options.ct_series or (options.series if ct_is_folder else None),
        options.mri_series or (options.series if mri_is_folder and not ct_is_folder else None),
    )


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="brainfusion",
        description="Put a CT and an MRI of one head together: find how the CT lies on the MRI, and fuse the two.",
        epilog=f"Example: brainfusion fuse ct.nrrd mri.nrrd -o results    Results are {WARNING}.",
    )
    parser.add_argument("--version", action="version", version=f"brainfusion {__version__}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")

    fuse_command = commands.add_parser(
        "fuse",
        help="register and fuse a CT and an MRI",
        description="Find how the CT lies on the MRI, and write a fused volume on the MRI's grid, with a report.",
        epilog="FOLDER gets: fused and ct_in_mri (volumes on the MRI's grid), ct_to_mri.tfm (the transform; load it in "
        "3D Slicer), result.json (every number), report.html (open it in a browser, and look before you trust).",
    )
    _add_inputs(fuse_command)
    fuse_command.add_argument(
        "--threads",
        type=int,
        metavar="N",
        help=f"CPU threads for resampling and fusing (default: all {os.cpu_count()}; registration is fastest with one)",
    )
    fuse_command.add_argument("-o", "--output", required=True, metavar="FOLDER", help="where to write the results")
    rules = "; ".join(f"{rule.name}: {rule.description}" for rule in RULES.values())
    fuse_command.add_argument(
        "--rule",
        choices=[*RULES, NETWORK_RULE],
        default=FusionSettings.rule,
        help=f"how to fuse (default: {FusionSettings.rule}). {rules}; {NETWORK_RULE}: the CNN, with --weights",
    )
    fuse_command.add_argument("--weights", type=Path, metavar="FILE", help="trained weights for --rule network")
    fuse_command.add_argument(
        "--format", choices=FORMATS, default=FORMATS[0], help=f"of the volumes written (default: {FORMATS[0]})"
    )
    fuse_command.add_argument(
        "--no-register",
        dest="register",
        action="store_false",
        help="do not look for the pose: use --transform as it is (it may be affine), or, without it, the positions "
        "in the files",
    )
    fuse_command.set_defaults(run=_fuse)

    register_command = commands.add_parser(
        "register",
        help="find how the CT lies on the MRI, and write only that",
        description="Find how the CT lies on the MRI, and write the transform (ITK text; MRI to CT points, LPS).",
    )
    _add_inputs(register_command)
    register_command.add_argument("-o", "--output", required=True, metavar="FILE.tfm", help="the transform to write")
    register_command.add_argument("--json", metavar="FILE", help="write quality, verdict and timings there, too")
    register_command.set_defaults(run=_register)

    doctor_command = commands.add_parser(
        "doctor",
        help="say what is installed and what would be used",
        description="Say what is installed, which device would be used, and which weights there are.",
    )
    doctor_command.set_defaults(run=_doctor)
    return parser


def _add_inputs(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("ct", metavar="CT", help=f"the CT: {INPUTS[0]}")
    parser.add_argument("mri", metavar="MRI", help="the MRI, in any of the same formats")
    parser.add_argument(
        "--series", help="which series of a DICOM folder that holds several: number, place in the list, or UID"
    )
    parser.add_argument("--ct-series", metavar="SERIES", help="the same for the CT, when both are DICOM folders")
    parser.add_argument("--mri-series", metavar="SERIES", help="the same for the MRI, when both are DICOM folders")
    parser.add_argument(
        "--transform",
        metavar="FILE",
        help="a starting pose to try, as an ITK transform file (a wrong one does no harm)",
    )
    parser.add_argument(
        "--model",
        choices=get_args(Model),
        default=RegistrationSettings.model,
        help="what the transform may do (default: rigid, right for one head and sound headers). similarity: scale; "
        "affine: scale and shear, too, for a distorted MRI or a wrong voxel size",
    )
    parser.add_argument(
        "--mri-mask",
        metavar="FILE",
        help="where the alignment matters most: a volume on the MRI's grid, above 0 there (a label map, say)",
    )
    parser.add_argument(
        "--keep-refused",
        metavar="FILE.tfm",
        help="when the two do not fit on each other (exit code 3, nothing else is written), write the best pose found "
        "there, to look at",
    )
    parser.add_argument(
        "--preset",
        choices=("fast", "standard", "thorough"),
        default="standard",
        help="how hard to look for the pose (default: standard, which looks harder by itself where it must)",
    )
    parser.add_argument("--seed", type=int, default=0, help="of the random samples; the same seed, the same result")
    parser.add_argument(
        "--device",
        choices=("auto", "cpu", "cuda", "mps"),
        default="auto",
        help="where to compute (default: auto, the graphics card if there is one)",
    )
