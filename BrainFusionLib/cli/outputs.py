"""The check of every command, before its work, that it writes over none of its inputs."""

from __future__ import annotations

import argparse
import os
from collections.abc import Iterable
from pathlib import Path

from BrainFusionLib.errors import Remedy, SettingsError
from BrainFusionLib.io.overwriting import Given, InputFiles

# The arguments of all commands that name files to read, and what they are.
INPUTS = {
    "ct": "the CT", "mri": "the MRI", "mri_mask": "the mask", "transform": "the transform", "landmarks": "landmarks",
    "points": "the points", "weights": "the weights", "fused": "the fused image", "ct_folder": "the CT slices",
    "mri_folder": "the MRI slices", "cohort": "the table of the cases",
}  # fmt: skip
_FOLDERS_OF_OTHERS = ("cohort",)


def inputs_in(options: argparse.Namespace) -> list[Given]:
    """Return all files and folders that the options name to be read."""
    found = []
    for name, role in INPUTS.items():
        value = getattr(options, name, None)
        for path in value if isinstance(value, list) else [value]:
            # A cohort may be a folder, whose cases are inputs and not all that is in it.
            if path is not None and not (name in _FOLDERS_OF_OTHERS and Path(path).is_dir()):
                series = getattr(options, f"{name}_series", None) or getattr(options, "series", None)
                found.append(Given(role, Path(path), series if name in ("ct", "mri") else None))
    return found


def check_outputs(
    options: argparse.Namespace,
    outputs: Iterable[str | Path | None],
    more: Iterable[Given] = (),
    remedy: Remedy = Remedy.ALLOW_OVERWRITE,
) -> None:
    """Check that no output is an input, and no two outputs are one file.

    Parameters
    ----------
    outputs
        All that is written or removed; ``None`` for options that are not given.
    more
        Inputs that the options do not name themselves.

    Raises
    ------
    ImageFileError
        An output is an input.
    SettingsError
        Two outputs are one file.
    """
    paths = [Path(output) for output in outputs if output is not None]
    # Not Path.resolve, which raises RuntimeError for a link to itself before Python 3.13.
    resolved = [os.path.realpath(path) for path in paths]
    for number, path in enumerate(paths):
        if resolved[number] in resolved[:number]:
            raise SettingsError(f"{path}: two results would be written to this file. Give each a name of its own.")
    InputFiles([*inputs_in(options), *more]).refuse_to_overwrite(paths, remedy)
