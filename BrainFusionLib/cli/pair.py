"""What ``fuse`` and ``register`` share: one pair, how to register it, and what is printed of the result."""

from __future__ import annotations

import argparse
import os
from pathlib import Path
from typing import get_args

from BrainFusionLib.case import Inputs, Request, Result, Source
from BrainFusionLib.case.request import offset_in, stated_in
from BrainFusionLib.cli.codes import NOT_FOUND, fail
from BrainFusionLib.console import say
from BrainFusionLib.errors import BrainFusionError, ImageFileError, SettingsError
from BrainFusionLib.folder import between_inputs, make_output_folder, read_pair, remove_if_empty
from BrainFusionLib.io import read_volume, write_transform
from BrainFusionLib.io.formats import readable, sha256_of_volume
from BrainFusionLib.io.other_transforms import Between, Frame, Maps
from BrainFusionLib.io.transform_writing import SUFFIXES, TransformFormat
from BrainFusionLib.io.zipped import is_zip
from BrainFusionLib.landmarks import CAUTION, LandmarkErrors
from BrainFusionLib.settings import Align, Model, RegistrationSettings
from BrainFusionLib.transform import Transform

# File systems take 255 bytes; the name under which a file is first written is longer than its own.
_LONGEST_NAME = 200


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


def check_keep_refused(options: argparse.Namespace) -> None:
    """Check before the work that a refused pose can be written; over what it may be, `check_outputs` says."""
    if options.keep_refused is None:
        return
    path = Path(options.keep_refused)
    check_transform_name(path)
    remove_if_empty(make_output_folder(path.parent))


def check_transform_name(path: Path, form: TransformFormat = "itk") -> None:
    """Check that a transform can be written under this name.

    Raises
    ------
    ImageFileError
        It ends in none of the suffixes of transforms, or is too long.
    """
    if path.suffix not in SUFFIXES[form]:
        raise ImageFileError(f"{path}: the name of a transform must end in {' or '.join(SUFFIXES[form])}.")
    if len(os.fsencode(path.name)) > _LONGEST_NAME:
        raise ImageFileError(f"{path}: this name is too long to be written. Shorten it.")


def inputs_of(options: argparse.Namespace) -> Inputs:
    """Read the volumes of a pair; the sha256 of their files is taken first, so that it is never a later file's."""
    series = dict(zip(("ct", "mri"), series_of(options), strict=True))
    given = {"ct": options.ct, "mri": options.mri, "mri_mask": options.mri_mask}
    try:
        sha256 = {
            role: sha256_of_volume(Path(file), series.get(role)) for role, file in given.items() if file is not None
        }
    except BrainFusionError:
        sha256 = {}  # reading it says what is wrong
    ct, mri = read_pair(options.ct, options.mri, *series_of(options))
    mask = read_volume(options.mri_mask) if options.mri_mask else None
    return Inputs(ct, mri, mask, sha256).as_stated(stated_by(options))


def stated_by(options: argparse.Namespace) -> tuple[str, ...]:
    """Return which of "CT" and "MRI" the user says to be what they are given as.

    Raises
    ------
    SettingsError
        ``--modality`` says something else.
    """
    try:
        return stated_in(" ".join(options.modality))
    except SettingsError as error:
        raise SettingsError(f"--modality {error}") from error


def between_of(options: argparse.Namespace, inputs: Inputs) -> Between:
    """Return what the file of a transform does not say itself."""
    return between_inputs(
        inputs, options.ct, options.mri, options.transform_frame, options.transform_maps, series_of(options)
    )


def request_of(options: argparse.Namespace, inputs: Inputs) -> Request:
    """Return a request with its sources and default settings."""
    ct_series, mri_series = series_of(options)
    mask = inputs.mri_mask
    return Request(
        Source(inputs.ct.name, options.ct, ct_series, inputs.sha256.get("ct")),
        Source(inputs.mri.name, options.mri, mri_series, inputs.sha256.get("mri")),
        None if mask is None else Source(mask.name, options.mri_mask, sha256=inputs.sha256.get("mri_mask")),
        ct_offset=options.ct_offset,
        stated=stated_by(options),
    )


def registration_settings(options: argparse.Namespace) -> RegistrationSettings:
    """Return the settings of the registration that the options state."""
    return RegistrationSettings.preset(options.preset, options.seed, options.model, options.align, options.search)


def say_result(result: Result) -> None:
    """Print notes, movement and verdict."""
    for note in result.notes:
        say(f"note: {note}")
    say(f"The CT was {result.pose.movement}.")
    say(f"{result.verdict.sentence}.")
    if result.verdict.expected_error is not None:
        say(f"  {result.verdict.expected_error}")
    for reason in result.verdict.reasons:
        say(f"  {reason}")
    if result.landmarks is not None:
        _say_landmarks(result.landmarks)


def _say_landmarks(landmarks: LandmarkErrors) -> None:
    """Print the residuals, the largest first."""
    say(
        f"Landmarks: {len(landmarks.points)}, median {landmarks.median_mm:.2f} mm, worst {landmarks.worst_mm:.2f} mm "
        f"({landmarks.worst.name})."
    )
    for point in sorted(landmarks.points, key=lambda point: -point.residual_mm):
        say(f"  {point.residual_mm:6.2f} mm  {point.name}")
    say(f"  {CAUTION}")


def series_of(options: argparse.Namespace) -> tuple[str | None, str | None]:
    """Return the series to read for CT and MRI; ``--series`` applies to the one of the two that is a folder.

    If neither is, it goes to the CT, whose reader refuses it.

    Raises
    ------
    SettingsError
        Both are folders.
    """
    # Not Path.is_dir, which raises if a parent folder cannot be read; the reader gives a better message.
    ct_is_folder, mri_is_folder = (os.path.isdir(path) or is_zip(Path(path)) for path in (options.ct, options.mri))  # noqa: PTH112
    if options.series and ct_is_folder and mri_is_folder:
        raise SettingsError(
            "--series is for a pair of which one is a DICOM folder or zip, but both are: use --ct-series, --mri-series "
            "or both"
        )
    return (
        options.ct_series or (options.series if ct_is_folder or not mri_is_folder else None),
        options.mri_series or (options.series if mri_is_folder and not ct_is_folder else None),
    )


def _offset(text: str) -> float:
    try:
        return offset_in(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"must be a number, for example 1024; got {text!r}") from error


def add_stated(parser: argparse.ArgumentParser) -> None:
    """Add what a user may say of the values."""
    parser.add_argument(
        "--modality",
        nargs="+",
        default=[],
        metavar="ROLE=MODALITY",
        help="ct=CT, mri=MR or both: take a volume for what it is given as, where its values or its DICOM headers are "
        "misjudged",
    )
    parser.add_argument(
        "--ct-offset",
        type=_offset,
        metavar="N",
        help="subtract N from the CT's values to get Hounsfield units, for example 1024 (default: worked out)",
    )


def add_inputs(parser: argparse.ArgumentParser) -> None:
    """Add the two inputs and how to register them."""
    parser.add_argument("ct", metavar="CT", help=f"the CT: {readable()}")
    parser.add_argument("mri", metavar="MRI", help="the MRI, in any of the same formats")
    parser.add_argument(
        "--series",
        help="series to read from a DICOM folder with several, if only one of the two is a folder: number, place in "
        "the list, or UID",
    )
    parser.add_argument("--ct-series", metavar="SERIES", help="the same for the CT, if both are DICOM folders")
    parser.add_argument("--mri-series", metavar="SERIES", help="the same for the MRI, if both are DICOM folders")
    add_stated(parser)
    parser.add_argument(
        "--transform",
        metavar="FILE",
        help="a starting pose to try (a wrong one does no harm): a transform of ITK (.tfm, .txt, .h5), ANTs (.mat), "
        "FreeSurfer (.lta), FSL (.mat), elastix, DICOM (a Spatial Registration, REG), or a 4x4 matrix",
    )
    parser.add_argument(
        "--transform-frame", choices=get_args(Frame), help="coordinates of a --transform that is a 4x4 matrix in text"
    )
    parser.add_argument(
        "--transform-maps",
        choices=get_args(Maps),
        help="between which points a --transform maps, where it does not say",
    )
    parser.add_argument(
        "--transform-format",
        choices=get_args(TransformFormat),
        default="itk",
        help="format of the transform written (default: itk, text that 3D Slicer reads); lta, fsl and matrix map the "
        "CT to the MRI",
    )
    parser.add_argument(
        "--model",
        choices=get_args(Model),
        default=RegistrationSettings.model,
        help="degrees of freedom of the transform (default: rigid, right for one head and correct headers). "
        "similarity: also one scale; affine: scales and shears, for a distorted MRI or a wrong voxel size",
    )
    parser.add_argument(
        "--align",
        choices=get_args(Align),
        default=RegistrationSettings.align,
        help="what the pose is fitted to in the end (default: skull). brain: the brain inside the skull, where it has "
        "moved against it since the MRI; the result has both poses and their difference",
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
