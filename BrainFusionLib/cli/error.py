"""``brainfusion error``: the expected error of a result at points and along lines."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from BrainFusionLib.case import Result, read_record
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

UNKNOWN = "not known"


def add_to(commands: Any) -> None:
    """Add the command to the parser's."""
    command = commands.add_parser(
        "error",
        help="expected error of a result at points and along lines",
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
        help="a point of the MRI, LPS mm; may be given several times",
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
        A line has an end that is not one of the points.
    """
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


def say_errors(result: Result, points: NamedPoints, lines: Sequence[Sequence[str]]) -> None:
    """Print a table of the expected errors at points, and one of those along lines."""
    found = map_of(result)
    say("expected error, at most at 9 of 10 such points, point:")
    for name, point, expected, bound in zip(
        points.names, points.lps_mm, found.at(points.lps_mm), found.bound_at(points.lps_mm), strict=True
    ):
        say(f"  {_expected(expected):>16}  {_bound(bound):>9}  {name} ({position(point)})")
    for entry, target in lines:
        ends = points.named(entry), points.named(target)
        if ends[0] is not None and ends[1] is not None:  # `points_of` checked
            _say_line(found, entry, target, ends[0], ends[1])


def say_points(result: Result, points: NamedPoints | None, lines: Sequence[Sequence[str]]) -> None:
    """Print what `say_errors` does after a run; why not, where no error is stated."""
    if points is None:
        return
    try:
        say_errors(result, points, lines)
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
    points = points_of(options)
    found = map_of(result)
    if points is None and not options.at and options.map is None:
        raise SettingsError("no points were given: add --at X Y Z, --points FILE or --map FILE")
    for line in (result.verdict.sentence, result.verdict.expected_error):
        if line is not None:
            say(line)
    if options.at:
        given = np.array(options.at, dtype=np.float64)
        say_errors(result, NamedPoints(tuple(f"point {n}" for n in range(1, len(given) + 1)), given), [])
    if points is not None:
        say_errors(result, points, options.line)
    if options.map is not None:
        write_volume(found.volume(), options.map)
        say(f"  map        {options.map}")
    return DONE


def _say_line(found: ErrorMap, entry: str, target: str, start: FloatArray, end: FloatArray) -> None:
    line = found.along(start, end)
    say(f"{entry} to {target} ({length(line.length_mm)}):")
    say(f"  {entry} {_expected(line.entry_mm)}, {target} {_expected(line.target_mm)}")
    if line.worst_mm is not None and line.worst_lps_mm is not None:
        bound = _bound(line.worst_mm * found.bound_ratio)
        say(f"  worst {_expected(line.worst_mm)} (at most {bound}) at {position(line.worst_lps_mm)}")
    if line.unknown > 0:
        say(f"  on {100 * line.unknown:.0f} % of the line the error is {UNKNOWN}")


def _expected(mm: float | None) -> str:
    return UNKNOWN if mm is None or not np.isfinite(mm) else error_length(mm)


def _bound(mm: float) -> str:
    return "" if not np.isfinite(mm) else bound_length(mm)
