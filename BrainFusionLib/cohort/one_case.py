"""One case of a cohort: from its files to its folder, and whether that is whole."""

from __future__ import annotations

import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from BrainFusionLib.case.codec import from_document, to_document
from BrainFusionLib.case.record import read_document
from BrainFusionLib.case.request import Inputs, Request, Source
from BrainFusionLib.case.result import Result
from BrainFusionLib.case.run import run
from BrainFusionLib.cohort.bids import write_sidecar
from BrainFusionLib.cohort.manifest import Entry
from BrainFusionLib.cohort.overview import thumbnail
from BrainFusionLib.cohort.row import Row
from BrainFusionLib.errors import BrainFusionError, RegistrationError
from BrainFusionLib.folder import make_output_folder, read_pair, remove_if_empty, remove_staging, write_case
from BrainFusionLib.fusion.methods import pinned
from BrainFusionLib.io import read_transform, read_volume, write_json
from BrainFusionLib.io.hashing import sha256_of
from BrainFusionLib.settings import Settings
from BrainFusionLib.values import ByValue
from BrainFusionLib.version import __version__
from BrainFusionLib.volume import Volume

# Beside a case's results; written last. Where it is, and agrees with what is there, the case is done.
SEAL = "cohort-case.json"


@dataclass(frozen=True, eq=False)
class Seal(ByValue):
    """What a case was made from and what came of it.

    Attributes
    ----------
    request
        With the sha256 of every input and of the weights, and without paths.
    transform_sha256
        Of the file of the starting pose.
    version
        Of the library.
    files
        The sha256 of each result by its name.
    row
        The case's row of the table.
    thumbnail
        A small picture, JPEG, base64.
    """

    request: Request
    transform_sha256: str | None
    version: str
    files: dict[str, str]
    row: Row
    thumbnail: str


def fuse_case(entry: Entry, folder: Path, settings: Settings) -> Row:
    """Fuse one case into its folder; return its row of the table. Never raises but for Ctrl-C and the like."""
    return in_words(entry, time.monotonic(), lambda: store(entry, *fused(entry, read(entry), settings), folder))


def in_words(entry: Entry, began: float, work: Callable[[], Row]) -> Row:
    """Do a case's work; return its row of the table, which says in words what stopped it, if anything did."""
    try:
        row = work()
    except RegistrationError as error:
        row = Row(entry.case, "refused", error=_line(error))
    except (BrainFusionError, MemoryError) as error:
        row = Row(entry.case, "failed", error=_line(error) or "not enough memory")
    except Exception as error:  # one case's fault must not take the others with it
        traceback.print_exc()
        row = Row(entry.case, "failed", error=_line(f"a fault of the program ({type(error).__name__}: {error})"))
    return replace(row, seconds=round(time.monotonic() - began, 1))


def read(entry: Entry) -> Inputs:
    """Read the volumes of a case."""
    ct, mri = read_pair(entry.ct, entry.mri, entry.ct_series, entry.mri_series)
    return Inputs(ct, mri, None if entry.mri_mask is None else read_volume(entry.mri_mask))


def fused(entry: Entry, inputs: Inputs, settings: Settings) -> tuple[Result, Volume]:
    """Return the result, and the MRI that its files need, too."""
    request = Request(
        Source(inputs.ct.name, series=entry.ct_series),
        Source(inputs.mri.name, series=entry.mri_series),
        None if inputs.mri_mask is None else Source(inputs.mri_mask.name),
        settings,
        start=None if entry.transform is None else read_transform(entry.transform),
    )
    return run(request, inputs), inputs.mri


def store(entry: Entry, result: Result, mri: Volume, folder: Path) -> Row:
    """Write a case's files, the seal last; return its row."""
    place = folder / entry.place
    made = make_output_folder(place)
    try:
        (place / SEAL).unlink(missing_ok=True)
        remove_staging(place)
        files = list(write_case(result, mri, place, file_names=entry.file_names).values())
        if entry.bids_root is not None:
            files.append(write_sidecar(entry, result, files[0]))
    except BaseException:
        remove_if_empty(made)
        raise
    row = Row.of(entry.case, result)
    seal = Seal(
        *_made_from(entry, result.request.settings),
        version=__version__,
        files={path.name: sha256_of(path) for path in files},
        row=row,
        thumbnail=thumbnail(result, mri),
    )
    write_json(to_document(seal), place / SEAL)
    return row


def finished(entry: Entry, folder: Path, settings: Settings) -> Row | None:
    """Return the row of a case that is done already, of these inputs and settings, and whole; else ``None``."""
    case, seal = folder / entry.place, read_seal(entry, folder)
    if seal is None or seal.version != __version__:
        return None
    try:
        whole = all(sha256_of(case / name) == wanted for name, wanted in seal.files.items())
        if whole and (seal.request, seal.transform_sha256) == _made_from(entry, settings):
            return seal.row
    except (OSError, BrainFusionError):
        pass  # half done, or its inputs are not there any more: to be done again, which will say so
    return None


def read_seal(entry: Entry, folder: Path) -> Seal | None:
    """Return the seal of a case that is done; ``None`` where there is none, or none of this version."""
    try:
        return from_document(read_document(folder / entry.place / SEAL), Seal)
    except BrainFusionError:
        return None


def _made_from(entry: Entry, settings: Settings) -> tuple[Request, str | None]:
    """Return what a result depends on: the inputs' content and the settings, weights by their sha256."""
    fusion = pinned(settings.fusion)
    # By content alone: two files of one name are not one, and one file of two names is.
    weights = None if fusion.weights_sha256 is not None else fusion.weights
    # How it is computed, and not what.
    settings = replace(settings, fusion=replace(fusion, weights=weights), threads=None)
    mask = None if entry.mri_mask is None else Source("mask", sha256=sha256_of(entry.mri_mask))
    request = Request(
        Source("CT", series=entry.ct_series, sha256=sha256_of(entry.ct)),
        Source("MRI", series=entry.mri_series, sha256=sha256_of(entry.mri)),
        mask,
        settings,
    )
    return request, None if entry.transform is None else sha256_of(entry.transform)


def _line(error: object) -> str:
    """Return an error on one line, without tabs: a cell of the table."""
    return " ".join(str(error).split())
