"""One case of a cohort: from its files to its folder, and the check that the folder is complete."""

from __future__ import annotations

import os
import re
import time
import traceback
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from BrainFusionLib.case.codec import from_document, to_document
from BrainFusionLib.case.files import planned_names
from BrainFusionLib.case.record import read_document
from BrainFusionLib.case.replacing import complete_replacement
from BrainFusionLib.case.request import Inputs, Request, Source
from BrainFusionLib.case.result import Result
from BrainFusionLib.case.run import run
from BrainFusionLib.cohort.bids import write_sidecar
from BrainFusionLib.cohort.manifest import Entry
from BrainFusionLib.cohort.overview import thumbnail
from BrainFusionLib.cohort.row import Row
from BrainFusionLib.errors import BrainFusionError, RegistrationError, Remedy
from BrainFusionLib.folder import (
    at_stake,
    between_inputs,
    make_output_folder,
    read_pair,
    remove_if_empty,
    remove_staging,
    write_case,
)
from BrainFusionLib.fusion.methods import pinned
from BrainFusionLib.io import read_transform, read_volume, write_json
from BrainFusionLib.io.formats import FORMATS, output_names, sha256_of_volume
from BrainFusionLib.io.hashing import sha256_of, sha256_of_bytes, sha256_of_files
from BrainFusionLib.io.landmark_files import read_landmarks
from BrainFusionLib.io.nrrd_header import FIELDS, SPACES_WITHOUT_BODY
from BrainFusionLib.io.overwriting import Given, InputFiles
from BrainFusionLib.io.ownership import files_in, refuse_to_replace_others
from BrainFusionLib.io.suffixes import with_suffix
from BrainFusionLib.io.transforms import READ_TRANSFORM_SUFFIXES, transform_files
from BrainFusionLib.printable import shown, shown_lines
from BrainFusionLib.progress import Cancel, stop_if
from BrainFusionLib.settings import Settings
from BrainFusionLib.signing import content_sha256
from BrainFusionLib.values import ByValue
from BrainFusionLib.version import __version__
from BrainFusionLib.volume import Volume

# Remedies in terms of a cohort: columns of its table.
PHRASES: dict[Remedy, str] = {
    Remedy.STATE_MODALITY: "If the one given as MRI is an MRI, write mri=MR into the column modality, or give the "
    "option of that name for all cases.",
    Remedy.STATE_OFFSET: "If it is the CT, write into the column ct_offset what to subtract from its values, or ct=CT "
    "into the column modality to take them as they are; or give the options of those names for all cases.",
    Remedy.STATE_FRAME: "Write lps, ras or fsl into the column transform_frame, and ct-to-mri or mri-to-ct into "
    "transform_maps.",
    Remedy.STATE_DIRECTION: "Write ct-to-mri or mri-to-ct into the column transform_maps.",
    Remedy.CHOOSE_SERIES: "Write one into the column ct_series or mri_series (its UID, its number or its place in this "
    "list), or give a folder with only one series:",
    Remedy.CHOOSE_SERIES_OF_EACH: "Fill the columns ct_series and mri_series, or give two folders.",
    Remedy.OMIT_SERIES: "Leave its cell in the column ct_series or mri_series empty.",
    Remedy.USE_TRANSFORM_AS_IT_IS: "Give a rigid one.",
    Remedy.OTHER_GRID: "Give another output grid.",
    Remedy.COARSER_GRID: "Give a coarser output grid (in mm), or crop the volumes.",
    Remedy.GIVE_ROUGH_START: "Give a rough start in the column transform, or choose a series that shows more of the "
    "head.",
    Remedy.REGISTER: "Check the transform and the volumes.",
}

# Written last, beside a case's results. A case is done if this file exists and matches the results.
SEAL = "cohort-case.json"
# Quoted in a message is what a file says, or a name (`text_headers.brief`); only words of our own may be shown.
_QUOTED = re.compile(r"(?<!\w)(['\"])((?:\\.|(?!\1).)*)(\1|$)", re.MULTILINE)
_OURS = {"endian", "type", "nxforms", "BSplineTransform", "DisplacementFieldTransform", *FIELDS, *SPACES_WITHOUT_BODY}
_OURS |= {suffix for form in FORMATS for suffix in form.suffixes} | set(READ_TRANSFORM_SUFFIXES)
_UID = re.compile(r"(?<![\w.])\d+(\.\d+){4,}(?![\w.]*\w)")
_SHORTEST_BARE = 5
_NOT_SHOWN = "(not shown here)"
# The result, the MRI, and the sha256 of the inputs, as `contents` returns them.
Fused = tuple[Result, Volume, Mapping[str, str]]


@dataclass(frozen=True, eq=False)
class Seal(ByValue):
    """The inputs and settings of a case, and its results.

    Attributes
    ----------
    request
        The request with the sha256 of every input and of the weights, and without paths.
    transform_sha256
        The sha256 of the files with the starting pose, and what the manifest says of its frame and direction.
    landmarks_sha256
        The sha256 of each file of landmarks.
    version
        Version of the library.
    files
        The sha256 of each result file by its name, without what decisions change in it.
    row
        The case's row of the table.
    thumbnail
        A small picture, JPEG, base64.
    """

    request: Request
    transform_sha256: str | None
    landmarks_sha256: tuple[str, ...]
    version: str
    files: dict[str, str]
    row: Row
    thumbnail: str


def fuse_case(entry: Entry, folder: Path, settings: Settings, cancel: Cancel | None = None) -> Row:
    """Fuse one case into its folder; return its row of the table. Errors become rows; only an interrupt raises.

    Nothing is written once `cancel` returns true.
    """
    began = time.monotonic()

    def work() -> Row:
        made = fused(entry, read(entry), settings, cancel)
        stop_if(cancel)
        return store(entry, *made, folder, began)

    return attempted(entry, began, work)


def attempted(entry: Entry, began: float, work: Callable[[], Row]) -> Row:
    """Do a case's work; return its row of the table, which contains the error if there was one."""
    try:
        row = work()
    except RegistrationError as error:
        row = Row(entry.case, "refused", error=_line(entry, error.phrased(PHRASES)))
    except BrainFusionError as error:
        row = Row(entry.case, "failed", error=_line(entry, error.phrased(PHRASES)))
    except MemoryError:
        row = Row(entry.case, "failed", error="not enough memory")
    except Exception as error:  # one case's fault must not stop the others
        traceback.print_exc()
        row = Row(entry.case, "failed", error=f"a fault of the program ({type(error).__name__})")
    return row if row.seconds is not None else replace(row, seconds=_since(began))


def read(entry: Entry) -> Inputs:
    """Read the volumes of a case, named by their roles, because names of files may identify the patient.

    The sha256 of all files is taken first, so that it is never a later file's.
    """
    try:
        sha256 = contents(entry)
    except (OSError, BrainFusionError):
        sha256 = {}  # reading it says what is wrong
    ct, mri = read_pair(entry.ct, entry.mri, entry.ct_series, entry.mri_series)
    mask = None if entry.mri_mask is None else read_volume(entry.mri_mask)
    ct, mri = replace(ct, name="CT"), replace(mri, name="MRI")
    mask = None if mask is None else replace(mask, name="mask")
    return Inputs(ct, mri, mask, sha256).as_stated(entry.stated)


def contents(entry: Entry) -> dict[str, str]:
    """Return the sha256 of all that a case is made from, by role.

    Raises
    ------
    OSError, BrainFusionError
        A file cannot be read.
    """
    found = {"ct": sha256_of_volume(entry.ct, entry.ct_series), "mri": sha256_of_volume(entry.mri, entry.mri_series)}
    if entry.mri_mask is not None:
        found["mri_mask"] = sha256_of_volume(entry.mri_mask)
    if entry.transform is not None:
        found["transform"] = sha256_of_files(transform_files(entry.transform))
    return found | {f"landmarks {n}": sha256_of(path) for n, path in enumerate(entry.landmarks)}


def fused(entry: Entry, inputs: Inputs, settings: Settings, cancel: Cancel | None = None) -> Fused:
    """Return the result with what is needed to write the files: the MRI, and the sha256 of all inputs."""
    series = (entry.ct_series, entry.mri_series)
    between = between_inputs(inputs, entry.ct, entry.mri, entry.transform_frame, entry.transform_maps, series)
    request = Request(
        Source(inputs.ct.name, series=entry.ct_series, sha256=inputs.sha256.get("ct")),
        Source(inputs.mri.name, series=entry.mri_series, sha256=inputs.sha256.get("mri")),
        None if inputs.mri_mask is None else Source(inputs.mri_mask.name, sha256=inputs.sha256.get("mri_mask")),
        settings,
        start=None if entry.transform is None else read_transform(entry.transform, between=between),
        landmarks=read_landmarks(entry.landmarks) if entry.landmarks else None,
        ct_offset=entry.ct_offset,
        stated=entry.stated,
    )
    return run(request, inputs, cancel=cancel), inputs.mri, inputs.sha256


def _since(began: float) -> float:
    return round(time.monotonic() - began, 1)


def store(entry: Entry, result: Result, mri: Volume, sha256: Mapping[str, str], folder: Path, began: float) -> Row:
    """Write a case's files, the seal last; return its row of the table, with the seconds since it `began`.

    A case whose inputs had no sha256 when they were read gets no seal, and is done again by the next run.
    """
    case = folder / entry.place
    made = make_output_folder(case)
    try:
        (case / SEAL).unlink(missing_ok=True)
        remove_staging(case)
        written = write_case(result, mri, case, file_names=entry.file_names)
        files = list(written.values())
        if entry.bids_root is not None:
            files.append(write_sidecar(entry, result, written["fused"]))
    except BrainFusionError as error:  # where the case is, its row says
        error.problem = error.problem.replace(f"{shown(case)}{os.sep}", "")
        remove_if_empty(made)
        raise
    except BaseException:
        remove_if_empty(made)
        raise
    row = replace(Row.of(entry.case, result), seconds=_since(began))
    if not sha256:
        return row
    seal = Seal(
        *_made_from(entry, result.request.settings, sha256),
        version=__version__,
        files={path.name: content_sha256(path) for path in files},
        row=row,
        thumbnail=thumbnail(result, mri),
    )
    write_json(to_document(seal), case / SEAL)
    return row


def overwriting(entries: Sequence[Entry], folder: Path, settings: Settings) -> dict[str, Row]:
    """Return the rows of those cases that are not run: what they would write over is an input, or not a result's.

    Parameters
    ----------
    entries
        All cases of the cohort.
    folder
        The output folder.
    """
    inputs = InputFiles(given for entry in entries for given in inputs_of(entry))
    found = {}
    for entry in entries:
        names = planned_names(settings.output, output_names()[0], mri=not settings.output.is_mris, bone=settings.bone)
        names = {role: (entry.file_names or {}).get(role, name) for role, name in names.items()}
        case = folder / entry.place
        sidecar = with_suffix(Path(names["fused"]), ".json").name
        try:
            complete_replacement(case)  # what a kill left half-way is ours, too
            inputs.refuse_to_overwrite([*at_stake(case, names), case / SEAL, case / sidecar])
            refuse_to_replace_others(case, (*names.values(), *([sidecar] if entry.bids_root else [])))
        except BrainFusionError as error:
            error.problem = error.problem.replace(f"{shown(case)}{os.sep}", "")
            found[entry.case] = Row(entry.case, "failed", error=_line(entry, error.phrased(PHRASES)))
    return found


def inputs_of(entry: Entry) -> list[Given]:
    """Return all files and folders that a case is made from, and what they are."""
    given = [
        Given("the CT", entry.ct, entry.ct_series),
        Given("the MRI", entry.mri, entry.mri_series),
        *(Given("landmarks", path) for path in entry.landmarks),
    ]
    more = [("the transform", entry.transform), ("the mask", entry.mri_mask)]
    return [*given, *(Given(role, path) for role, path in more if path is not None)]


def finished(entry: Entry, folder: Path, settings: Settings) -> Row | None:
    """Return the row of a case that is already done with these inputs and settings, and complete; else ``None``."""
    case, seal = folder / entry.place, read_seal(entry, folder)
    if seal is None or seal.version != __version__:
        return None
    try:
        # A seal from elsewhere must not make this read devices, or files outside of the case's folder.
        names = [Path(name) for name in seal.files]
        is_inside = all(not name.is_absolute() and ".." not in name.parts for name in names)
        is_inside = is_inside and all((case / name).is_dir() or (case / name).is_file() for name in names)
        complete = is_inside and all(content_sha256(case / name) == wanted for name, wanted in seal.files.items())
        made_from = (seal.request, seal.transform_sha256, seal.landmarks_sha256)
        if complete and made_from == _made_from(entry, settings, contents(entry)):
            return replace(seal.row, case=entry.case)
    except (OSError, BrainFusionError):
        pass  # incomplete, or inputs are missing: the case is done again, which reports the error
    return None


def read_seal(entry: Entry, folder: Path) -> Seal | None:
    """Return the seal of a case that is done; ``None`` if there is none of this version."""
    try:
        return from_document(read_document(folder / entry.place / SEAL), Seal)
    except BrainFusionError:
        return None


def _made_from(
    entry: Entry, settings: Settings, sha256: Mapping[str, str]
) -> tuple[Request, str | None, tuple[str, ...]]:
    """Return everything that a result depends on: the inputs' content and the settings, with weights by sha256."""
    # What a result was made with is pinned already, also if the file of weights was replaced since.
    fusion = settings.fusion if settings.fusion.weights_sha256 is not None else pinned(settings.fusion)
    # Only the content counts: equal names may hold different weights, and different names the same.
    weights = None if fusion.weights_sha256 is not None else fusion.weights
    # The number of threads does not change the result.
    settings = replace(settings, fusion=replace(fusion, weights=weights), threads=None)
    request = Request(
        Source("CT", series=_unnamed(entry.ct_series), sha256=sha256["ct"]),
        Source("MRI", series=_unnamed(entry.mri_series), sha256=sha256["mri"]),
        None if entry.mri_mask is None else Source("mask", sha256=sha256["mri_mask"]),
        settings,
        ct_offset=entry.ct_offset,
        stated=entry.stated,
    )
    landmarks = tuple(sha256[f"landmarks {n}"] for n in range(len(entry.landmarks)))
    if entry.transform is None:
        return request, None, landmarks
    # The same file is another pose, if its numbers are said to be in another frame.
    words = (sha256["transform"], entry.transform_frame, entry.transform_maps)
    return request, " ".join(word for word in words if word), landmarks


def _unnamed(series: str | None) -> str | None:
    """Return a choice of a series, which may be a UID, so that it can only be compared."""
    return None if series is None else sha256_of_bytes(os.fsencode(series))


def _line(entry: Entry, error: str) -> str:
    """Return an error on one line, without tabs: a cell of the table, with each input named by its role.

    Table, page and log are shown to others, and names of files may identify the patient; the manifest has them.
    """
    given = [("CT", entry.ct), ("MRI", entry.mri), ("the transform", entry.transform), ("the mask", entry.mri_mask)]
    roles = [(role, path) for role, path in given if path is not None]
    roles += [("the landmarks", path) for path in entry.landmarks]
    text = shown_lines(error)
    for role, path in roles:
        for name in (str(path), str(path.absolute()), str(path.resolve()), *_bare([path.name])):
            text = re.sub(rf"(?<![\w./\\-]){re.escape(shown(name))}(?![\w-]|\.\w)", role, text)
    # Files beside one that is given, or below it (DICOMDIR): the names of their folders are no more shown than its own.
    for role, path in roles:
        for place in {str(path.parent), str(path.absolute().parent), str(path.resolve().parent)} - {".", "/"}:
            text = re.sub(rf"(?<![\w./\\-]){re.escape(shown(place))}(?![\w-]|\.\w)", role, text)
    # Slices of a folder, and files beside one, such as those of its voxels.
    names = {name: role for role, path in roles for name in _names_at(path, role) if name in text}
    for name in sorted(names, key=len, reverse=True):
        text = re.sub(rf"(?<!\w){re.escape(name)}(?!\w)", f"a file of {names[name]}", text)
    for role, path in roles:  # of its name and another ending, but missing
        if path.suffix:
            stem = with_suffix(path, "").name
            text = re.sub(rf"(?<![\w./\\-]){re.escape(shown(stem))}(?=\.\w)", role, text)
    for role, _ in roles:  # files that are gone, such as those that a zip was unpacked to
        text = re.sub(rf"(?<![\w./\\-]){role}[/\\](.*?(?=: |$)|\S+)", f"a file of {role}", text)
    text = _UID.sub(_NOT_SHOWN, text)
    # What a header says, such as a file that is not there.
    text = _QUOTED.sub(lambda match: match[0] if match[2] in _OURS else _NOT_SHOWN, text)
    return " ".join(text.split())


def _names_at(path: Path, role: str) -> set[str]:
    """Return how a message may name a file in a folder, which `role` stands for by now, or one beside a file."""
    try:
        found = list(path.rglob("*") if path.is_dir() else path.parent.iterdir())
        ours = files_in(path.parent / "result.json")  # of a result beside the input, named as all results are
        names = _bare(shown(file.name) for file in found if not file.is_dir() and file.name not in ours)
        below = {f"{role}/{shown(file.relative_to(path).as_posix())}" for file in found if path.is_dir()}
    except OSError:
        return set()
    return below | names


def _bare(names: Iterable[str]) -> set[str]:
    """Return the names that are looked for without a path: words and short numbers would be found in any text."""
    return {name for name in names if not name.isalpha() and (len(name) >= _SHORTEST_BARE or not name.isalnum())}
