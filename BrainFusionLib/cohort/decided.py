"""``review.tsv``: who decided what about the cases of a cohort. Lines are added, and never changed."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, fields
from pathlib import Path

from BrainFusionLib.case.result import Result
from BrainFusionLib.cohort.row import cell_text
from BrainFusionLib.errors import BrainFusionError, ImageFileError, RecordError
from BrainFusionLib.io.reading import read_record_bytes
from BrainFusionLib.io.tables import format_csv, parse_csv
from BrainFusionLib.locking import locked

TABLE, LOCK = "review.tsv", ".review.lock"


@dataclass(frozen=True)
class Line:
    """One decision; times are UTC, ISO 8601.

    `pose_sha256` and `result_sha256` are those of what was decided on; empty for a case without a result.
    """

    date: str
    case: str
    action: str
    name: str
    comment: str
    verdict: str
    version: str
    pose_sha256: str = ""
    result_sha256: str = ""

    @property
    def sentence(self) -> str:
        """Who decided what, and when."""
        words = {"approve": "Approved", "reject": "Rejected"}.get(self.action, "Comment")
        return f"{words} by {self.name}, {self.date}" + (f": {self.comment}" if self.comment else "")


COLUMNS = tuple(field.name for field in fields(Line))


def is_about(line: Line, result: Result | None) -> bool:
    """Return whether a line of ``review.tsv`` is about a result: a case of the same name may be another patient's now.

    A result has its decisions with it; one of other inputs does not take them over. Without a result, what was decided
    without one counts.
    """
    decided = {("", "")} if result is None else {(d.signed.pose, d.signed.result) for d in result.decisions}
    return (line.pose_sha256, line.result_sha256) in decided


@contextmanager
def only_reviewer(folder: Path) -> Iterator[None]:
    """Hold the lock of a cohort's decisions, for the time of one decision.

    Raises
    ------
    ImageFileError
        The folder cannot be written to, or its file system has no locks.
    """
    try:
        lock = locked(folder / LOCK, wait=True)
        lock.__enter__()
    except OSError as error:
        raise ImageFileError(f"{folder}: decisions cannot be kept there ({error.strerror or error}).") from error
    try:
        yield
    finally:
        lock.__exit__(None, None, None)


def add_line(folder: Path, line: Line) -> None:
    """Add a decision; the lock must be held.

    Raises
    ------
    ImageFileError
        The table cannot be written, or is a link.
    """
    path = folder / TABLE
    cells = {name: cell_text(" ".join(getattr(line, name).split())) for name in COLUMNS}
    try:
        # A link could lead out of the cohort.
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND | getattr(os, "O_NOFOLLOW", 0), 0o644)
        with os.fdopen(descriptor, "r+b", buffering=0) as stream:
            length = stream.seek(0, os.SEEK_END)
            text = format_csv([cells], COLUMNS, delimiter="\t", header=not length)
            if length:
                stream.seek(-1, os.SEEK_END)
                if stream.read(1) != b"\n":  # of a process that was killed while it wrote
                    text = "\n" + text
            stream.write(text.encode("utf-8", "replace"))
            os.fsync(stream.fileno())
    except OSError as error:
        raise ImageFileError(f"{path}: cannot be written ({error.strerror or error}).") from error


def read_lines(folder: Path) -> list[Line]:
    """Return all decisions, in the order in which they were made; lines that are cut short are left out.

    Raises
    ------
    ImageFileError, RecordError
        The table cannot be read, or is not one of ours.
    """
    path = folder / TABLE
    if not path.exists() and not path.is_symlink():
        return []
    try:
        if path.is_symlink():
            raise RecordError(f"{path}: is a link. Put the table itself there.")
        text = read_record_bytes(path).decode("utf-8", "replace")
    except BrainFusionError:
        raise
    except OSError as error:
        raise ImageFileError(f"{path}: cannot be read ({error.strerror or error}).") from error
    try:
        table = parse_csv(text, delimiter="\t")
    except ValueError as error:
        raise RecordError(f"{path}: is not a table ({error}).") from error
    if table.columns and table.columns != COLUMNS:
        raise RecordError(f"{path}: has other columns than {', '.join(COLUMNS)}. Move it elsewhere.")
    return [Line(*(_plain(cell) for cell in line.cells)) for line in table.lines if len(line.cells) == len(COLUMNS)]


def _plain(cell: str) -> str:
    """Return what a cell was made of (`cell_text`)."""
    return cell[1:] if cell[:1] == "'" and cell_text(cell[1:]) == cell else cell
