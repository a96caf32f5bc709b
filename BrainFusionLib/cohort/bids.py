"""A cohort as a BIDS dataset, and its results as a BIDS derivative.

Source: the Brain Imaging Data Structure, version 1.10 (https://bids-specification.readthedocs.io). BIDS does not define
CT yet: CTs are looked for under the names in common use, and results without a BIDS name are listed in ``.bidsignore``.
"""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from BrainFusionLib.arguments import checked
from BrainFusionLib.case.codec import to_plain
from BrainFusionLib.case.result import WARNING, Result
from BrainFusionLib.cohort.folders import only_one
from BrainFusionLib.cohort.manifest import BAD_NAME, Entry, Problem, case_or, name_is_good
from BrainFusionLib.errors import ImageFileError, Remedy
from BrainFusionLib.io import write_json, write_text
from BrainFusionLib.io.formats import named
from BrainFusionLib.io.reading import read_record_bytes
from BrainFusionLib.io.suffixes import with_suffix
from BrainFusionLib.printable import shown
from BrainFusionLib.quantities import counted
from BrainFusionLib.verdict.measures import STRIPPED
from BrainFusionLib.version import __version__

# BIDS allows volumes in NIfTI only; `.nii*` matches all its suffixes.
_NIFTI = f"{min(named('nifti').suffixes, key=len)}*"
CT_PATTERNS = [f"{name}{_NIFTI}" for name in ("ct/*_ct", "anat/*_ct", "anat/*_CT")]
MRI_PATTERNS = [f"anat/*_{contrast}{_NIFTI}" for contrast in ("T1w", "T2w", "FLAIR", "PDw")]
VERSION = "1.10.0"
NAME = "BrainFusion"
IGNORED = ("*_ct.nii.gz", "*_xfm.tfm", "*_report.html", "*_result.json", "cohort-case.json", "cohort.*")
README = f"""# BrainFusion

CTs registered to and fused with MRIs of the same heads. Results are {WARNING}.

`*_desc-fused_*.nii.gz`: the fused volume, in the MRI's frame and intensity scale, with bone brighter than the MRI.
`*_desc-registered_ct.nii.gz`: the CT on the same grid, Hounsfield units.
`*_desc-resampled_*.nii.gz`: the MRI on this grid, if it was made on another one than the MRI's.
`*_xfm.tfm`: an ITK transform that maps points of the MRI to points of the CT, mm.
`*_report.html`, `*_result.json`: the verdict with its evidence, and all numbers.
`cohort.tsv`, `cohort.html`: a summary of all cases.
"""


@dataclass(frozen=True)
class _Session:
    """The folder of a subject, or of one of its sessions."""

    subject: str
    name: str  # sub-01 or sub-01_ses-02
    folder: Path


@checked
def read_bids(
    root: str | os.PathLike[str],
    participants: Sequence[str] = (),
    ct_pattern: str | None = None,
    mri_pattern: str | None = None,
) -> tuple[list[Entry], list[Problem]]:
    """Find the pairs of a dataset: the CT and the MRI of a session, or the only CT and MRI of a subject.

    Parameters
    ----------
    participants
        Labels of the participants to include, with or without ``sub-``; empty for all.
    ct_pattern, mri_pattern
        File names inside a session's folder, such as ``anat/*_acq-mprage*_T1w.nii*``. By default the CT is
        ``ct/*_ct``, ``anat/*_ct`` or ``anat/*_CT``, and the MRI the first available of T1w, T2w, FLAIR and PDw.

    Returns
    -------
    entries, problems
        One entry for each pair, with the file names of a derivative; and each problem.

    Raises
    ------
    ImageFileError
        The folder is not a BIDS dataset, or has no subject.
    """
    root = Path(root)
    if not (root / "dataset_description.json").is_file():
        raise ImageFileError(
            f"{root}: is not a BIDS dataset: it has no dataset_description.json. Give the folder that has one, or read "
            "this one as a folder with one folder for each case."
        )
    subjects = sorted(path.name for path in root.glob("sub-*") if path.is_dir())
    wanted = [f"sub-{label.removeprefix('sub-')}" for label in participants]
    problems = [
        Problem(case_or(name, "a participant"), "there is no such participant{}", f" in {root}")
        for name in wanted
        if name not in subjects
    ]
    chosen = [name for name in subjects if not wanted or name in wanted]
    if not subjects:
        raise ImageFileError(f"{root}: this dataset has no subject (folder sub-LABEL).")
    entries: list[Entry] = []
    for number, subject in enumerate(chosen, 1):
        found, wrong = _pairs(root, subject, number, ct_pattern, mri_pattern)
        entries += found
        problems += wrong
    return entries, problems


def _pairs(
    root: Path, subject: str, number: int, ct_pattern: str | None, mri_pattern: str | None
) -> tuple[list[Entry], list[Problem]]:
    """Return the pairs of a subject, by its place in the list, and its problems."""

    def problem(case: str, reason: str, named: str = "") -> Problem:
        return Problem(case_or(case, f"subject {number}"), reason, named)

    sessions = [
        _Session(subject, f"{subject}_{path.name}", path)
        for path in sorted((root / subject).glob("ses-*"))
        if path.is_dir()
    ] or [_Session(subject, subject, root / subject)]
    cts = [only_one(s.folder, [ct_pattern] if ct_pattern else CT_PATTERNS, "CT") for s in sessions]
    mris = [only_one(s.folder, [mri_pattern] if mri_pattern else MRI_PATTERNS, "MRI") for s in sessions]
    pairs = [(s, ct[0], mri[0]) for s, ct, mri in zip(sessions, cts, mris, strict=True) if ct[0] and mri[0]]
    if not pairs:
        only_ct = [ct for ct, _ in cts if ct is not None]
        only_mri = [(s, mri) for s, (mri, _) in zip(sessions, mris, strict=True) if mri is not None]
        reasons = dict.fromkeys(words for found in (cts, mris) for _, words in found if words is not None)
        if ambiguous := [words for words in reasons if _is_ambiguous(words)]:
            return [], [problem(subject, *words) for words in ambiguous]
        if not only_ct or not only_mri:
            missing = [found for found, is_there in ((cts, only_ct), (mris, only_mri)) if not is_there]
            return [], [problem(subject, *words) for found in missing for words in [found[0][1]] if words]
        if len(only_ct) > 1 or len(only_mri) > 1:
            reason = (
                f"{counted(len(only_ct), 'CT')} and {counted(len(only_mri), 'MRI')}, each in a session of its own. "
            )
            return [], [problem(subject, reason + "Give the two that belong together in a table (case, ct, mri).")]
        # For example an MRI before an operation and a CT after it, in two sessions.
        pairs = [(only_mri[0][0], only_ct[0], only_mri[0][1])]
    # The names of a derivative are made of the entities and the suffix of the MRI's.
    unnamed = [
        problem(
            session.name, "the MRI{} is not named as in BIDS, sub-LABEL_..._SUFFIX. Rename it.", f" {shown(mri.name)}"
        )
        for session, _, mri in pairs
        if mri and "_" not in mri.name
    ]
    entries = [_entry(root, session, ct, mri) for session, ct, mri in pairs if ct and mri and "_" in mri.name]
    good = [entry for entry in entries if name_is_good(entry.case)]
    # If some sessions have a pair, ambiguous files in another session are reported, too.
    several = [
        problem(session.name, *words)
        for session, found in zip(sessions * 2, cts + mris, strict=True)
        if (words := found[1]) and _is_ambiguous(words) and session.name not in [e.case for e in entries]
    ]
    bad = [problem(entry.case, BAD_NAME + "{}", f"; got {entry.case}") for entry in entries if entry not in good]
    return good, unnamed + bad + several


def _is_ambiguous(words: tuple[str, str]) -> bool:
    """Say whether `only_one` found several files; otherwise it found none."""
    return not words[0].startswith("no ")


def _entry(root: Path, session: _Session, ct: Path, mri: Path) -> Entry:
    stem, suffix = with_suffix(mri, "").name.rsplit("_", 1)
    names = {
        "fused": f"{stem}_desc-fused_{suffix}.nii.gz",
        "ct_in_mri": f"{stem}_desc-registered_ct.nii.gz",
        "mri": f"{stem}_desc-resampled_{suffix}.nii.gz",
        "bone": f"{stem}_desc-bone_mask.nii.gz",
        "transform": f"{stem}_from-{suffix}_to-ct_mode-points_xfm.tfm",
        "report": f"{stem}_desc-fused_report.html",
        "result": f"{stem}_desc-fused_result.json",
    }
    place = session.folder.relative_to(root) / "anat"
    return Entry(0, session.name, ct, mri, place=place.as_posix(), file_names=names, bids_root=root)


def start_derivative(folder: Path, root: Path) -> None:
    """Write the files that make an output folder a derivative of the dataset in `root`; those of others stay.

    Raises
    ------
    ImageFileError
        The folder is the dataset itself, or holds a dataset that is not of this project; or cannot be written to.
    """
    refuse_other_dataset(folder, root)
    # A relative path, so that the two can be moved together; there is none between two drives of Windows.
    try:
        raw = Path(os.path.relpath(root.resolve(), folder.resolve())).as_posix()
    except ValueError:
        raw = root.resolve().as_uri()
    described = {
        "Name": "BrainFusion: CTs registered to MRIs and fused with them",
        "BIDSVersion": VERSION,
        "DatasetType": "derivative",
        "GeneratedBy": [{"Name": NAME, "Version": __version__}],
        "SourceDatasets": [{"URL": raw}],
        "DatasetLinks": {"raw": raw},
    }
    write_json(described, folder / "dataset_description.json")
    ignored = "".join(f"{pattern}\n" for pattern in IGNORED)
    for text, path in ((README, folder / "README.md"), (ignored, folder / ".bidsignore")):
        if not os.path.lexists(path):  # one that is there is ours already, or what the user made of it
            write_text(text, path)


def refuse_other_dataset(folder: Path, root: Path) -> None:
    """Check that no dataset of others would be described as one of this project.

    Raises
    ------
    ImageFileError
        The folder is the dataset in `root` itself, or holds one that this project did not make.
    """
    described = folder / "dataset_description.json"
    if folder.exists() and root.exists() and folder.samefile(root):
        raise ImageFileError(
            f"{folder}: is the dataset itself, and a derivative needs a folder of its own, such as "
            "derivatives/brainfusion in it.",
            remedy=Remedy.OTHER_OUTPUT_FOLDER,
        )
    if os.path.lexists(described) and not _is_ours(described):
        raise ImageFileError(
            f"{described}: describes a dataset that BrainFusion did not make, and would be overwritten.",
            remedy=Remedy.OTHER_OUTPUT_FOLDER,
        )


def _is_ours(described: Path) -> bool:
    """Say whether a description names this project, and nothing else, as what made the dataset."""
    try:
        makers = json.loads(read_record_bytes(described))["GeneratedBy"]
        return bool(makers) and all(maker["Name"] == NAME for maker in makers)
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return False


def write_sidecar(entry: Entry, result: Result, fused: Path) -> Path:
    """Write the JSON file beside a fused volume: its sources, the verdict, and the intensity map.

    Parameters
    ----------
    result
        The result of the case.
    fused
        The fused volume's file.
    """
    root, skull, fusion = entry.bids_root or Path(), result.evidence.skull, result.request.settings.fusion
    sidecar = {
        "Description": "The MRI with the bone of the CT, on the MRI's intensity scale; bone is brighter than the MRI.",
        "Sources": [f"bids:raw:{path.relative_to(root).as_posix()}" for path in (entry.mri, entry.ct)],
        "SkullStripped": skull is not None and skull.brightness < STRIPPED,
        "SpatialReference": "orig",
        "Verdict": to_plain(result.verdict),
        "IntensityMapping": to_plain(result.intensity),
        "Rule": fusion.rule,
        "WeightsSHA256": fusion.weights_sha256,
        "ToolVersions": result.provenance.versions,
    }
    path = with_suffix(fused, ".json")
    write_json(sidecar, path)
    return path
