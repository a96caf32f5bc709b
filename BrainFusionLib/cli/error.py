"""``brainfusion error``: the expected error of a result at points and along lines."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any, get_args

import numpy as np

from BrainFusionLib.case import Result, read_record, rejected
from BrainFusionLib.cli.codes import DONE
from BrainFusionLib.cli.outputs import check_outputs
from BrainFusionLib.console import say
from BrainFusionLib.error_map import ErrorMap
from BrainFusionLib.errors import SettingsError
from BrainFusionLib.geometry import FloatArray
from BrainFusionLib.io import write_volume
from BrainFusionLib.io.overwriting import Given
from BrainFusionLib.io.point_files import FORMATS, NamedPoints, read_points
from BrainFusionLib.quantities import bound_length, error_length, length, position
from BrainFusionLib.settings import Side
from BrainFusionLib.transform import Transform

UNKNOWN = "not known"


def add_to(commands: Any, line: str) -> None:
    """Add the command to the parser's; `line` is its help in the list of commands."""
    command = commands.add_parser(
        "error",
        help=line,
        description="Print the expected error of a result, and what it is at most at 9 of 10 such points, at points of "
        "the MRI and along lines between them.",
        epilog="Example: brainfusion error results --points plan.mrk.json --line entry target    Outside of the brain "
        "and its skull, and far from everything that could be compared, the error is not known. Beside a red verdict "
        "no error is stated.",
    )
    command.add_argument("result", metavar="RESULT", help="the folder of a result, or its result.json")
    command.add_argument(
        "--at",
        nargs=3,
        type=float,
        action="append",
        default=[],
        metavar=("X", "Y", "Z"),
        help="a point of the MRI (see --points-of), LPS mm; may be given several times",
    )
    add_points(command)
    command.add_argument(
        "--map", metavar="FILE", help="also write the expected error as a volume (mm, cells of 8 mm, 0 where not known)"
    )
    command.set_defaults(run=_error, keep_refused=None)


def add_points(command: argparse.ArgumentParser) -> None:
    """Add the options that name points and lines."""
    command.add_argument(
        "--points", metavar="FILE", help=f"points of the MRI at which to print the expected error: {FORMATS}"
    )
    command.add_argument(
        "--points-of",
        choices=get_args(Side),
        help="whose points these are, in the frame of its file (default: mri). ct: placed on the CT, or on volumes in "
        "its frame; where the results are in it (--reference ct), one of the two has to be given",
    )
    command.add_argument(
        "--line",
        nargs=2,
        action="append",
        default=[],
        metavar=("ENTRY", "TARGET"),
        help="names of two of the --points: also print the largest expected error between them",
    )


def points_of(options: argparse.Namespace) -> NamedPoints | None:
    """Read the points that the options name, and check the lines between them; ``None`` if they name none.

    Raises
    ------
    ImageFileError
        The file cannot be read.
    SettingsError
        A line has an end that is not one of the points, or it is not said whose the points are.
    """
    _check_whose(options, getattr(options, "reference", "mri"))
    if options.points is None:
        if options.line:
            raise SettingsError("--line is given two names of points, but no points: add --points FILE")
        return None
    points = read_points(options.points)
    for name in [name for line in options.line for name in line]:
        if points.named(name) is None:
            known = ", ".join(points.names[:20])
            raise SettingsError(f"--line: {options.points} has no one point of the name {name!r}; it has {known}")
    return points


def _check_whose(options: argparse.Namespace, reference: Side) -> None:
    """Check that it is said whose the points are, where the results are not in the MRI's frame."""
    if reference == "ct" and options.points_of is None and (options.points is not None or getattr(options, "at", [])):
        raise SettingsError(
            "the volumes of this result are in the CT's frame. Say whose the points are: add --points-of ct if they "
            "were placed on these volumes or on the CT, or --points-of mri."
        )


def say_errors(result: Result, points: NamedPoints, lines: Sequence[Sequence[str]], of: Side | None = None) -> None:
    """Print a table of the expected errors at points, and one of those along lines.

    `of`: whose points they are, in the frame of its file; by default the MRI's.
    """
    found, whose = map_of(result), "CT" if of == "ct" else "MRI"
    # The map is in the MRI's frame.
    in_mri = result.transform.inverse().apply(points.lps_mm) if of == "ct" else points.lps_mm
    say(f"expected error, at most at 9 of 10 such points, point of the {whose}:")
    for name, point, expected, bound in zip(
        points.names, points.lps_mm, found.at(in_mri), found.bound_at(in_mri), strict=True
    ):
        say(f"  {_expected(expected):>16}  {_bound(bound):>9}  {name} ({position(point)})")
    mapped = NamedPoints(points.names, in_mri)
    for entry, target in lines:
        ends = mapped.named(entry), mapped.named(target)
        if ends[0] is not None and ends[1] is not None:  # `points_of` checked
            _say_line(found, entry, target, ends[0], ends[1], result.transform if of == "ct" else None)


def say_points(
    result: Result, points: NamedPoints | None, lines: Sequence[Sequence[str]], of: Side | None = None
) -> None:
    """Print what `say_errors` does after a run; why not, where no error is stated."""
    if points is None:
        return
    try:
        say_errors(result, points, lines, of)
    except SettingsError as error:
        say(f"note: {error}")


def map_of(result: Result) -> ErrorMap:
    """Return the map of a result.

    Raises
    ------
    SettingsError
        It has none.
    """
    if result.error_map is None:
        why = "nothing local could be measured"
        if result.verdict.colour == "red":
            why = "the verdict is red, and a number would mislead"
        raise SettingsError(f"this result states no error at points: {why}.")
    return result.error_map


def _error(options: argparse.Namespace) -> int:
    path = Path(options.result)
    path = path / "result.json" if path.is_dir() else path
    result = read_record(path)
    own = [path, *(path.parent / name for name in result.files.values())]
    check_outputs(options, [options.map], [Given("the result", file) for file in own])
    _check_whose(options, result.reference)
    points = points_of(options)
    found = map_of(result)
    if points is None and not options.at and options.map is None:
        raise SettingsError("no points were given: add --at X Y Z, --points FILE or --map FILE")
    for line in (result.verdict.sentence, result.verdict.expected_error):
        if line is not None:
            say(line)
    if rejected(result):
        say("The result was rejected (brainfusion sign --show says by whom and why).")
    if options.at:
        given = np.array(options.at, dtype=np.float64)
        say_errors(
            result, NamedPoints(tuple(f"point {n}" for n in range(1, len(given) + 1)), given), [], options.points_of
        )
    if points is not None:
        say_errors(result, points, options.line, options.points_of)
    if options.map is not None:
        write_volume(found.volume(), options.map)
        say(f"  map        {options.map}")
    return DONE


def _say_line(
    found: ErrorMap, entry: str, target: str, start: FloatArray, end: FloatArray, to_ct: Transform | None
) -> None:
    """Print the errors along a line between points of the MRI; with `to_ct`, places are shown as points of the CT."""
    line = found.along(start, end)
    say(f"{entry} to {target} ({length(line.length_mm)}):")
    say(f"  {entry} {_expected(line.entry_mm)}, {target} {_expected(line.target_mm)}")
    if line.worst_mm is not None and line.worst_lps_mm is not None:
        bound = _bound(line.worst_mm * found.bound_ratio)
        worst = line.worst_lps_mm if to_ct is None else to_ct.apply(line.worst_lps_mm)
        say(f"  worst {_expected(line.worst_mm)} (at most {bound}) at {position(worst)}")
    if line.unknown > 0:
        say(f"  on {100 * line.unknown:.0f} % of the line the error is {UNKNOWN}")


def _expected(mm: float | None) -> str:
    return UNKNOWN if mm is None or not np.isfinite(mm) else error_length(mm)


def _bound(mm: float) -> str:
    return "" if not np.isfinite(mm) else bound_length(mm)
