"""A stored result without its voxels, for tables, pages and the panel."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from BrainFusionLib.case.codec import Plain, from_document
from BrainFusionLib.case.decision import Decision
from BrainFusionLib.case.result import Result
from BrainFusionLib.case.standing import carried_over
from BrainFusionLib.case.standing import inputs_sha256 as sha256_of_inputs
from BrainFusionLib.errors import BrainFusionError, ImageFileError, RecordError, Remedy, SettingsError
from BrainFusionLib.io.reading import read_record_bytes
from BrainFusionLib.locking import alone
from BrainFusionLib.stopping import before_leaving

# In a result's folder; held while somebody decides about the result, or another one is written.
LOCK = ".sign.lock"


def read_document(path: str | Path) -> dict[str, Plain]:
    """Return the content of a JSON file that contains an object.

    Raises
    ------
    ImageFileError
        The file cannot be read, or is larger than any record.
    RecordError
        The file is not JSON, or not an object.
    """
    path = Path(path)
    try:
        content = json.loads(read_record_bytes(path))
    except FileNotFoundError as error:
        raise ImageFileError(
            f"{path}: there is no such file. Give the folder of a result, or its result.json."
        ) from error
    except BrainFusionError:
        raise
    except OSError as error:
        raise ImageFileError(f"{path}: cannot be read ({error.strerror}).") from error
    except (ValueError, RecursionError) as error:
        again = "Run the case again." if path.suffix == ".json" else "Give the folder of a result, or its result.json."
        raise RecordError(f"{path}: is not a valid JSON file ({error}). {again}") from error
    if not isinstance(content, dict):
        raise RecordError(f"{path}: must contain a JSON object; it contains a {type(content).__name__}.")
    return content


def read_record(path: str | Path) -> Result:
    """Read a ``result.json``; the result has no volumes (`folder.read_case` reads them, too).

    Raises
    ------
    ImageFileError, RecordError
        The file cannot be read, or is not a result of this version; the message names the file and the field.
    """
    document = {**read_document(path), "volumes": None}
    bone = document.get("bone")
    if isinstance(bone, dict):
        document["bone"] = {**bone, "labels": None}
    try:
        return from_document(document, Result)
    except RecordError as error:
        raise RecordError(f"{path}: {error}") from error


def earlier_decisions(path: Path, new: Result) -> tuple[Decision, ...]:
    """Return the decisions about the result at `path`, which `new` is about to replace (`carried_over`)."""
    try:
        return carried_over(read_record(path), new)
    except BrainFusionError:
        return ()


def refuse_to_lose_decisions(path: Path, inputs_sha256: Mapping[str, str]) -> bool:
    """Return whether the result at `path` was decided about; a new one of these inputs keeps that, as void.

    Raises
    ------
    SettingsError
        It is of other inputs, or of another version of the format: its decisions would be lost.
    """
    try:
        if not read_document(path).get("decisions"):
            return False
    except BrainFusionError:
        return False
    try:
        is_kept = sha256_of_inputs(read_record(path)) == inputs_sha256
    except BrainFusionError:
        is_kept = False
    if not is_kept:
        raise SettingsError(
            f"{path.parent}: holds a result of other inputs, or of another version, that somebody approved, rejected "
            "or commented on. This would be lost.",
            remedy=Remedy.OTHER_OUTPUT_FOLDER,
        )
    return True


@contextmanager
def no_decision_meanwhile(folder: Path) -> Iterator[None]:
    """Let nobody decide about the result in a folder, or write another one, while the block runs."""
    lock = folder / LOCK
    with alone(lock), before_leaving(lambda: lock.unlink(missing_ok=True)):
        yield
