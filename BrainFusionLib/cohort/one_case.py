"""One case of a cohort: from its files to its folder, and whether that is whole."""

from __future__ import annotations

import hashlib
import json
import time
import traceback
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from BrainFusionLib.case.run import FusionResult, fuse
from BrainFusionLib.cohort.bids import write_sidecar
from BrainFusionLib.cohort.manifest import Entry
from BrainFusionLib.cohort.overview import thumbnail
from BrainFusionLib.errors import BrainFusionError, RegistrationError
from BrainFusionLib.folder import make_output_folder, read_pair, remove_if_empty, remove_staging, write_case
from BrainFusionLib.io import read_transform, read_volume, write_json
from BrainFusionLib.settings import Settings
from BrainFusionLib.transform import RigidTransform
from BrainFusionLib.verdict.judge import CALIBRATION
from BrainFusionLib.version import __version__
from BrainFusionLib.volume import Volume

# Beside a case's results; written last. Where it is, and agrees with what is there, the case is done.
SEAL = "cohort-case.json"
COLUMNS = (
    "case", "status", "verdict", "expected_error_mm", "bone_error_hu", "soft_tissue_error", "local_errors_median_mm",
    "seconds", "reasons", "error",
)  # fmt: skip


@dataclass(frozen=True)
class Inputs:
    """What a case is made from, read."""

    ct: Volume
    mri: Volume
    start: RigidTransform | None
    mri_mask: Volume | None


def fuse_case(entry: Entry, folder: Path, settings: Settings) -> dict[str, Any]:
    """Fuse one case into its folder; return its row of the table. Never raises but for Ctrl-C and the like."""
    return in_words(entry, time.monotonic(), lambda: store(entry, *fused(read(entry), settings), folder, settings))


def in_words(entry: Entry, began: float, work: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """Do a case's work; return its row of the table, which says in words what stopped it, if anything did."""
    try:
        row = work()
    except RegistrationError as error:
        row = {"status": "refused", "error": _line(error)}
    except (BrainFusionError, MemoryError) as error:
        row = {"status": "failed", "error": _line(error) or "not enough memory"}
    except Exception as error:  # one case's fault must not take the others with it
        traceback.print_exc()
        row = {"status": "failed", "error": _line(f"a fault of the program ({type(error).__name__}: {error})")}
    return {"case": entry.case, **row, "seconds": round(time.monotonic() - began, 1)}


def read(entry: Entry) -> Inputs:
    """Read the files of a case."""
    start = None if entry.transform is None else read_transform(entry.transform)
    if start is not None and not isinstance(start, RigidTransform):
        raise RegistrationError(f"{entry.transform}: a starting pose must be rigid.")
    ct, mri = read_pair(entry.ct, entry.mri, entry.ct_series, entry.mri_series)
    return Inputs(ct, mri, start, None if entry.mri_mask is None else read_volume(entry.mri_mask))


def fused(inputs: Inputs, settings: Settings) -> tuple[FusionResult, Volume]:
    """Return the result, and the MRI that its files need, too."""
    result = fuse(inputs.ct, inputs.mri, settings, start=inputs.start, mri_mask=inputs.mri_mask)
    return result, inputs.mri


def store(entry: Entry, result: FusionResult, mri: Volume, folder: Path, settings: Settings) -> dict[str, Any]:
    """Write a case's files, the seal last; return what its row says."""
    place = folder / entry.place
    made = make_output_folder(place)
    try:
        (place / SEAL).unlink(missing_ok=True)
        remove_staging(place)
        files = list(write_case(result, mri, place, file_names=entry.file_names).values())
        if entry.bids_root is not None:
            files.append(write_sidecar(entry, result.to_dict(), files[0]))
    except BaseException:
        remove_if_empty(made)
        raise
    quality, verdict = result.details["quality"], result.verdict
    row = {
        "status": "done",
        "verdict": verdict.colour,
        "expected_error_mm": verdict.expected_error_mm,
        "bone_error_hu": quality.get("bone_error_hu"),
        "soft_tissue_error": quality.get("soft_tissue_error"),
        "local_errors_median_mm": result.details["local_errors"]["median_mm"],
        "reasons": "; ".join(words for words in verdict.reasons if words != CALIBRATION),
    }
    seal = {
        "made_from": made_from(entry, settings),
        "files": {path.name: digest(path) for path in files},
        "row": row,
        "thumbnail": thumbnail(result, mri),
    }
    write_json(seal, place / SEAL)
    return row


def finished(entry: Entry, folder: Path, settings: Settings) -> dict[str, Any] | None:
    """Return the row of a case that is done already, of these inputs and settings, and whole; else ``None``."""
    case = folder / entry.place
    try:
        seal = json.loads((case / SEAL).read_text(encoding="utf-8"))
        whole = all(digest(case / name) == wanted for name, wanted in seal["files"].items())
        if whole and seal["made_from"] == made_from(entry, settings):
            return {"case": entry.case, **seal["row"], "seconds": 0.0}
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        pass  # half done, or by something else: to be done again
    return None


def thumbnail_of(entry: Entry, folder: Path) -> str | None:
    """Return the small picture of a case that is done; ``None`` where there is none."""
    try:
        picture = json.loads((folder / entry.place / SEAL).read_text(encoding="utf-8")).get("thumbnail")
    except (OSError, ValueError, AttributeError):
        return None
    return picture if isinstance(picture, str) else None


def made_from(entry: Entry, settings: Settings) -> dict[str, Any]:
    """Return what a result depends on, as plain data: the inputs' content, the settings, the version."""
    told = {name: str(value) for name, value in asdict(entry).items() if name.endswith("_series") and value}
    inputs = {
        role: digest(path)
        for role in ("ct", "mri", "transform", "mri_mask")
        if (path := getattr(entry, role)) is not None
    }
    plain = {"inputs": inputs, "series": told, "settings": asdict(settings.without_paths()), "version": __version__}
    # As it is read back: tuples are lists there.
    content: dict[str, Any] = json.loads(json.dumps(plain))
    return content


def digest(path: Path) -> str:
    """Return the sha256 of a file, or of all files of a folder with their names."""
    whole = hashlib.sha256()
    files = sorted(p for p in path.rglob("*") if p.is_file()) if path.is_dir() else [path]
    for file in files:
        if path.is_dir():
            whole.update(file.relative_to(path).as_posix().encode() + b"\0")
        with file.open("rb") as content:
            while piece := content.read(1 << 20):
                whole.update(piece)
    return whole.hexdigest()


def _line(error: object) -> str:
    """Return an error on one line, without tabs: a cell of the table."""
    return " ".join(str(error).split())
