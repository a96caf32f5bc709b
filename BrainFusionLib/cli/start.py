"""Where a registration of ``fuse`` and ``register`` starts, the pose they use unchanged, and the landmarks."""

from __future__ import annotations

import argparse
from typing import Any, get_args

from BrainFusionLib.case import Inputs
from BrainFusionLib.cli.pair import between_of
from BrainFusionLib.errors import SettingsError
from BrainFusionLib.io import read_transform
from BrainFusionLib.io.landmark_files import read_landmarks
from BrainFusionLib.landmarks import Landmarks
from BrainFusionLib.settings import RegistrationSettings, Search
from BrainFusionLib.transform import RigidTransform, Transform

# Options that only apply to a registration, with their values where they are not given.
_OF_REGISTRATION = (
    ("model", RegistrationSettings.model),
    ("align", RegistrationSettings.align),
    ("search", RegistrationSettings.search),
    ("start", None),
    ("mri_mask", None),
)


def add_start_options(parser: Any) -> None:
    """Add the options for starts, given poses and landmarks."""
    parser.add_argument(
        "--landmarks",
        nargs="+",
        metavar="FILE",
        help="the same points in both images, to measure the pose by: a CSV table (name, ct_x, ct_y, ct_z, mri_x, "
        "mri_y, mri_z; LPS mm), or two point lists of 3D Slicer (.mrk.json, .fcsv), the CT's and the MRI's, paired by "
        "label, else by order; they do not move the pose",
    )
    parser.add_argument(
        "--start",
        choices=("landmarks",),
        help="start from the rigid fit of the --landmarks (at least 3, not on a line)",
    )
    parser.add_argument(
        "--search",
        choices=get_args(Search),
        default=RegistrationSettings.search,
        help="local: only refine the pose of --transform or --start, within 20 mm and 15° (default: global)",
    )
    parser.add_argument(
        "--no-register",
        dest="register",
        action="store_false",
        help="do not register: use --transform unchanged (it may be affine), or, without it, the positions in the "
        "files; a registration only checks the pose",
    )


def check_start_options(options: argparse.Namespace) -> None:
    """Check that the options for start, search and landmarks fit together.

    Raises
    ------
    SettingsError
        They do not.
    """
    for option, default in _OF_REGISTRATION:
        if not options.register and getattr(options, option) != default:
            raise SettingsError(
                f"--{option.replace('_', '-')} only applies to registration, which --no-register omits. Omit one of "
                "the two."
            )
    if options.start is not None and options.landmarks is None:
        raise SettingsError("--start landmarks needs landmarks. Give their file with --landmarks.")
    if options.start is not None and options.transform is not None:
        raise SettingsError("there can be only one start. Omit --transform or --start landmarks.")
    if options.search == "local" and options.start is None and options.transform is None:
        raise SettingsError(
            "--search local refines a pose, but none was given. Give one with --transform or --start landmarks."
        )
    if options.landmarks is not None and len(options.landmarks) > 2:
        raise SettingsError(
            f"--landmarks takes one file or two; got {len(options.landmarks)}. Put CT and MRI before the options."
        )


def start_of(
    options: argparse.Namespace, inputs: Inputs
) -> tuple[RigidTransform | None, Transform | None, Landmarks | None]:
    """Return the starting pose, the transform to use unchanged (at most one of the two), and the landmarks."""
    landmarks = None if options.landmarks is None else read_landmarks(options.landmarks)
    if options.start is not None and landmarks is not None:
        return landmarks.rigid_fit(), None, landmarks
    if not options.transform:
        return None, None if options.register else RigidTransform.identity(), landmarks
    between = between_of(options, inputs)
    if options.register:
        return read_transform(options.transform, between=between), None, landmarks
    return None, read_transform(options.transform, rigid=False, between=between), landmarks
