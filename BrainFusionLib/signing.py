"""Decisions about a result on disk: added to its ``result.json`` and its report, and checked against its files."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from BrainFusionLib.case.codec import Plain, to_plain
from BrainFusionLib.case.decision import Action, Decision, Signed, Standing, changes, decide, edited, sha256_of_plain
from BrainFusionLib.case.record import LOCK, read_document, read_record
from BrainFusionLib.case.replacing import complete_replacement
from BrainFusionLib.case.result import Result
from BrainFusionLib.case.standing import inputs_sha256, pose_sha256
from BrainFusionLib.errors import BrainFusionError, ImageFileError, RecordError
from BrainFusionLib.io import write_json, write_text
from BrainFusionLib.io.formats import sha256_of_each_volume
from BrainFusionLib.io.hashing import sha256_of, sha256_of_bytes
from BrainFusionLib.locking import locked
from BrainFusionLib.report.decisions import with_decisions, without_decisions
from BrainFusionLib.stopping import uninterrupted

_FIELD = "decisions"
# The roles that a decision itself changes.
_RESULT, _REPORT = "result", "report"


def record_of(path: str | Path) -> Path:
    """Return the record of a result, given by its path or by its folder."""
    path = Path(path)
    if not path.is_dir():
        return path
    # As BIDS names it, where it is the only one.
    named = sorted(path.glob("*_result.json"))
    usual = path / "result.json"
    return named[0] if len(named) == 1 and not usual.exists() else usual


def sign_result(path: str | Path, action: Action, name: str, comment: str = "") -> tuple[Standing, ...]:
    """Add a decision to a result and its report; return all decisions, each with whether it holds.

    Parameters
    ----------
    path
        The ``result.json``, or its folder.
    action
        ``"approve"``, ``"reject"``, or ``"comment"``, which leaves an earlier decision in force.
    name
        Who decides, as they call themselves.
    comment
        Their words.

    Raises
    ------
    SettingsError
        The name is missing, or a text cannot be kept (`Decision`).
    ImageFileError, RecordError
        A file of the result is missing, cannot be read or written, or is not of this version.
    """
    record = record_of(path)
    complete_replacement(record.parent)
    seen = read_document(record)
    with _only_one(record.parent):  # waits while another result is written
        complete_replacement(record.parent)
        document, result = read_document(record), read_record(record)
        if _document_sha256(document) != _document_sha256(seen):
            raise RecordError(f"{record}: was replaced at this moment. Look at the new result first.")
        files = _files_of(record.parent, result)
        missing = [result.files[role] for role, found in files.items() if not found]
        if missing:
            raise ImageFileError(f"{record.parent}: {missing[0]} is missing or cannot be read. Run the case again.")
        signed = _signed(document, result, files)
        decisions = decide(action, name, comment, signed, result.decisions)
        standings = _compared(decisions, signed, result)
        report = record.parent / result.files[_REPORT] if _REPORT in result.files else None
        if read_document(record) != document:
            raise RecordError(f"{record}: was replaced at this moment. Look at the new result first.")
        with uninterrupted():
            try:
                write_json({**document, _FIELD: to_plain(decisions)}, record)
            except ValueError as error:  # numbers that JSON does not have, which Python reads
                raise RecordError(f"{record}: was not written by BrainFusion. Run the case again.") from error
            if report is not None:
                page = with_decisions(report.read_text(encoding="utf-8", errors="replace"), standings)
                if page is not None:
                    write_text(page, report)
    return standings


def read_standings(
    path: str | Path, ct: str | Path | None = None, mri: str | Path | None = None
) -> tuple[Standing, ...]:
    """Return the decisions about a result on disk, each with why it no longer holds.

    The record, the pose and every file of the result are compared with what was decided on; the inputs, too, if they
    are given.

    Raises
    ------
    ImageFileError, RecordError
        The result, or an input, cannot be read, or the result is not of this version.
    """
    record = record_of(path)
    document, result = read_document(record), read_record(record)
    if not result.decisions:
        return ()
    now = _signed(document, result, _files_of(record.parent, result))
    given = {role: sha256_of_each_volume(Path(file)) for role, file in (("ct", ct), ("mri", mri)) if file is not None}
    # Which series of a folder it was is not recorded: its UID may identify the patient.
    same = {role: now.inputs[role] if now.inputs.get(role) in each else each[0] for role, each in given.items()}
    now = Signed({**now.inputs, **same}, now.pose, now.result, now.files)
    return _compared(result.decisions, now, result)


def content_sha256(path: Path) -> str:
    """Return the sha256 of a file or folder of a result, without what decisions change in it.

    Raises
    ------
    OSError
        It cannot be read.
    """
    if path.suffix == ".json" and path.is_file():
        try:
            return _document_sha256(read_document(path))
        except BrainFusionError:  # not JSON: compared byte by byte
            return sha256_of(path)
    if path.suffix == ".html" and path.is_file():
        page = path.read_bytes().decode("utf-8", "surrogateescape")
        return sha256_of_bytes(without_decisions(page).encode("utf-8", "surrogateescape"))
    return sha256_of(path)


def record_sha256(record: Path) -> str:
    """Return the sha256 of a record without its decisions.

    Raises
    ------
    ImageFileError, RecordError
        It cannot be read.
    """
    return _document_sha256(read_document(record))


def _document_sha256(document: Mapping[str, Plain]) -> str:
    return sha256_of_plain({key: value for key, value in document.items() if key != _FIELD})


def _signed(document: Mapping[str, Plain], result: Result, files: dict[str, str]) -> Signed:
    return Signed(inputs_sha256(result), pose_sha256(result.pose), _document_sha256(document), files)


def _files_of(folder: Path, result: Result) -> dict[str, str]:
    """Return the sha256 of each file of a result by role, but not of the record; empty for a file that is missing.

    Raises
    ------
    RecordError
        The record names files outside of its folder.
    """
    found = {}
    for role, name in result.files.items():
        if Path(name).is_absolute() or ".." in Path(name).parts:
            raise RecordError(f"{folder}: the result names files outside of its folder. Run the case again.")
        if role != _RESULT:
            path = folder / name
            try:
                # A record from elsewhere must not make this read devices.
                found[role] = content_sha256(path) if path.is_file() or path.is_dir() else ""
            except OSError:
                found[role] = ""
    return found


def _compared(decisions: tuple[Decision, ...], now: Signed, result: Result) -> tuple[Standing, ...]:
    standings = []
    for decision, why in zip(decisions, edited(decisions), strict=True):
        was = decision.signed
        why = [*why, *changes(decision, now)]
        for role in sorted(was.files.keys() | now.files.keys()):
            if was.files.get(role) != now.files.get(role):
                name = result.files.get(role, role)
                why.append(f"{name} {'was changed' if now.files.get(role) else 'is missing'}")
        if was.result != now.result:
            why.append("the record of the result was changed")
        standings.append(Standing(decision, tuple(why)))
    return tuple(standings)


@contextmanager
def _only_one(folder: Path) -> Iterator[None]:
    """Hold the lock of a result's folder."""
    try:
        with locked(os.fspath(folder / LOCK), wait=True):
            yield
    except BrainFusionError:
        raise
    except OSError as error:
        raise ImageFileError(f"{folder}: cannot be signed there ({error.strerror or error}).") from error
