"""A case of a cohort that was run, and what the last approval or rejection of each says."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

from BrainFusionLib.case.decision import State, state_of
from BrainFusionLib.case.record import read_record
from BrainFusionLib.case.result import Result
from BrainFusionLib.case.standing import standings_of
from BrainFusionLib.cohort.decided import is_about, read_lines
from BrainFusionLib.cohort.row import Row
from BrainFusionLib.errors import BrainFusionError
from BrainFusionLib.signing import read_standings, record_sha256

# When a file was changed last, ns, and its size.
_Stamp: TypeAlias = tuple[int, int]


@dataclass(frozen=True)
class Case:
    """One case: its row of the table, its record, its seal's file, and a small picture, JPEG in base 64.

    `record` and `seal` are ``None`` for a case without a result.
    """

    row: Row
    record: Path | None = None
    seal: Path | None = None
    thumbnail: str = ""

    @property
    def name(self) -> str:
        """Its name in the tables."""
        return self.row.case


class States:
    """What the last approval or rejection of each case says: for the list of all cases.

    A record is read again only when it, or a file of its result, has changed on the disk, and volumes are read only if
    they are newer than the record, which every decision writes.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._results: dict[Path, tuple[_Stamp, Result]] = {}
        self._known: dict[Path, tuple[tuple[_Stamp, ...], State]] = {}

    def of(self, cases: Sequence[Case]) -> list[State]:
        """Return the state of each case."""
        try:
            lines = read_lines(self._folder)
        except BrainFusionError:  # the page of a case says what is wrong
            lines = []
        last = {line.case: line.action for line in lines if line.action != "comment" and is_about(line, None)}
        return [self._of(case, last.get(case.name, "")) for case in cases]

    def result(self, case: Case) -> Result | None:
        """Return a case's record; ``None`` if it has none, or it cannot be read."""
        if case.record is None:
            return None
        try:
            now = _stamp(case.record)
            if self._results.get(case.record, (None,))[0] != now:
                self._results[case.record] = now, read_record(case.record)
            return self._results[case.record][1]
        except (OSError, BrainFusionError):
            return None

    def _of(self, case: Case, action: str) -> State:
        result = self.result(case)
        without: State = "rejected" if action == "reject" and result is None else "unsigned"
        if case.record is None or result is None:
            return without
        try:
            record = _stamp(case.record)
            # A decision writes the report after the record.
            names = [name for role, name in result.files.items() if role not in ("result", "report")]
            files = [_newest(case.record.parent / name) for name in names]
            now = (record, *files)
            if self._known.get(case.record, ((), without))[0] != now:
                is_newer = any(changed > record[0] for changed, _ in files)
                self._known[case.record] = now, self._read(case.record, result, is_newer)
            return self._known[case.record][1]
        except (OSError, BrainFusionError):
            return without

    @staticmethod
    def _read(record: Path, result: Result, is_newer: bool) -> State:
        standings = read_standings(record) if is_newer else standings_of(result)
        state = state_of(standings)
        last = next((s.decision for s in reversed(standings) if s.decision.action != "comment"), None)
        return "void" if last is not None and last.signed.result != record_sha256(record) else state


def _stamp(path: Path) -> _Stamp:
    found = path.stat()
    # The time of the content can be set back by a copy, that of the file cannot.
    return max(found.st_mtime_ns, found.st_ctime_ns), found.st_size


def _newest(path: Path) -> _Stamp:
    """Return the stamp of a file, or of the newest file in a folder with the sum of the sizes; later for none."""
    if not path.exists():
        return sys.maxsize, 0
    files = [below for below in path.rglob("*") if below.is_file()] if path.is_dir() else [path]
    stamps = [_stamp(file) for file in [path, *files]]
    return max(changed for changed, _ in stamps), sum(size for _, size in stamps)
