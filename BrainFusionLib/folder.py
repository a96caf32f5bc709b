"""A case on disk: reading the inputs, writing a folder of results completely or not at all, and reading it back."""

from __future__ import annotations

import os
import shutil
import tempfile
import time
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from BrainFusionLib.arguments import checked
from BrainFusionLib.case.codec import from_document, to_document
from BrainFusionLib.case.dicom_results import PairHeaders, segments_bone, write_dicom
from BrainFusionLib.case.files import ROLES, moved_by, names_of
from BrainFusionLib.case.leaving import may_leave, require_decision
from BrainFusionLib.case.record import earlier_decisions, no_decision_meanwhile, read_document, read_record
from BrainFusionLib.case.replacing import complete_replacement, removed_with_a_result, replace_result
from BrainFusionLib.case.request import Inputs
from BrainFusionLib.case.result import Result, Volumes
from BrainFusionLib.errors import BrainFusionError, ImageContentError, ImageFileError, RecordError, Remedy
from BrainFusionLib.geometry import Grid
from BrainFusionLib.io import read_volume, write_json, write_transform, write_volume
from BrainFusionLib.io.dicom import series_listed
from BrainFusionLib.io.dicom_attributes import Doubt
from BrainFusionLib.io.dicom_headers import DicomHeaders, read_series_headers
from BrainFusionLib.io.dicom_series import is_dicom
from BrainFusionLib.io.leftovers import STAGING, remove_leftovers, temporary_beside
from BrainFusionLib.io.other_transforms import Between, Frame, Maps
from BrainFusionLib.io.ownership import DICOM, FOLDERS, PICTURES, files_in, refuse_to_replace_others
from BrainFusionLib.io.transform_writing import TransformFormat, are_in_nifti_order
from BrainFusionLib.printable import shown
from BrainFusionLib.report import write_pictures, write_report
from BrainFusionLib.stopping import half_written, made_for_results
from BrainFusionLib.volume import Volume, VoxelArray


def read_pair(
    ct_path: str | Path, mri_path: str | Path, ct_series: str | None = None, mri_series: str | None = None
) -> tuple[Volume, Volume]:
    """Read the CT and the MRI of a case.

    Raises
    ------
    ImageContentError
        Both are the same file.
    ImageFileError, GeometryError
        As `io.read_volume`; the message names the file.
    """
    ct_path, mri_path = Path(ct_path), Path(mri_path)
    if _same_file(ct_path, mri_path) and ct_series == mri_series:
        has_series = is_dicom(ct_path)
        raise ImageContentError(
            f"{ct_path} was given both as CT and as MRI." + ("" if has_series else " Give two different volumes."),
            remedy=Remedy.CHOOSE_SERIES_OF_EACH if has_series else None,
            details=series_listed(ct_path) if has_series else "",
        )
    return read_volume(ct_path, series=ct_series), read_volume(mri_path, series=mri_series)


def between_inputs(
    inputs: Inputs,
    ct_path: str | Path,
    mri_path: str | Path,
    frame: Frame | None = None,
    maps: Maps | None = None,
    series: tuple[str | None, str | None] = (None, None),
) -> Between:
    """Return what a transform file does not say itself: the two volumes, their DICOM headers, what the user says."""
    in_nifti_order = are_in_nifti_order(ct_path, mri_path)

    def headers() -> tuple[DicomHeaders | None, DicomHeaders | None]:
        return read_series_headers(ct_path, series[0]), read_series_headers(mri_path, series[1])

    return Between(inputs.ct.grid, inputs.mri.grid, frame, maps, in_nifti_order, headers)


def _same_file(a: Path, b: Path) -> bool:
    try:
        return a.samefile(b)
    except OSError:  # missing or not readable: reading it gives the error
        return False


def write_case(
    result: Result,
    mri: Volume,
    folder: Path,
    file_format: str = "nii.gz",
    *,
    save_alpha: bool = False,
    dicom: PairHeaders | None = None,
    export_anyway: bool = False,
    pictures: bool = False,
    identify: bool = False,
    file_names: Mapping[str, str] | None = None,
    transform_format: TransformFormat = "itk",
    ct_grid: Grid | None = None,
) -> dict[str, Path]:
    """Write a result's five files to `folder`, its bone, and its weight map if `save_alpha`; return them by role.

    On another grid than the MRI's, the MRI on this grid is written, too. In the CT's frame the names say so:
    ``mri_in_ct``, ``ct`` and ``mri_to_ct.tfm`` instead of ``mri``, ``ct_in_mri`` and ``ct_to_mri.tfm``.

    `file_names` replaces the usual names of results, by role: ``fused``, ``ct_in_mri``, ``transform``,
    ``report``, ``result``, ``alpha``, ``mri``.

    With a `transform_format` other than ITK's, the transform is written in this format, too; ``lta`` and ``fsl`` need
    the CT's grid.

    Decisions about a previous result of the same inputs are kept, as void.

    The names of the inputs, which may identify the patient, are only included with `identify`. With `pictures` the
    report's still pictures are also written as PNGs, to the folder ``pictures``. With the `dicom` headers of both
    (`read_pair_headers`), the fused volume and the one that was moved are also written as DICOM series, to the folders
    ``dicom/fused`` and ``dicom/ct_in_mri`` (or ``dicom/mri_in_ct``), and the pose as ``dicom/registration.dcm`` if both
    are DICOM; with `export_anyway` also if the result is in doubt (`in_doubt`).

    All files are first written to a hidden folder and then moved into place, so that a full disk or a kill leaves the
    previous result unchanged. The old ``result.json`` is removed first and the new one is moved last: if it exists, the
    result is complete. What a kill interrupts while files are moved is completed by `complete_replacement`. Volumes of
    the previous result in another format are removed with it.

    Raises
    ------
    ImageFileError
        The folder or a file cannot be written; or one has the name of what is there and is no result's.
    SettingsError
        The result is in doubt, so that no DICOM is written without `export_anyway`.
    """
    doubt = None if dicom is None else in_doubt(result, folder)
    require_decision(doubt, export_anyway)
    names = names_of(
        result, file_format, save_alpha=save_alpha, dicom=dicom is not None,
        registration=dicom is not None and dicom.are_both,
        segmentation=dicom is not None and segments_bone(result, dicom), pictures=pictures, form=transform_format,
    )  # fmt: skip
    names = {role: (file_names or {}).get(role, name) for role, name in names.items()}
    record = result.without_paths() if identify else result.without_names()
    began = time.perf_counter()
    with no_decision_meanwhile(folder), staging_folder(folder) as staged, ThreadPoolExecutor(1) as beside:
        refuse_to_replace_others(folder, names.values())
        written = _written_volumes(record, names)
        # Packing does not hold Python's lock: meanwhile, pictures and report are drawn.
        packed = [beside.submit(write_volume, volume, staged / names[role]) for role, volume in written.items()]
        grids: dict[str, Any] = {"ct": ct_grid, "mri": mri.grid, "moved": moved_by(result)}
        write_transform(result.transform, staged / names["transform"], **grids)
        if transform_format != "itk":
            other = staged / names[f"transform_{transform_format}"]
            write_transform(result.transform, other, transform_format, **grids)
        if pictures:
            (staged / PICTURES).mkdir()
            write_pictures(result, mri, staged / PICTURES)
        if dicom is not None:
            (staged / DICOM).mkdir()
            write_dicom(result, staged / DICOM, dicom, mri.grid if result.reference == "mri" else ct_grid, doubt)
        timings = {**record.provenance.timings_s, "writing": time.perf_counter() - began}
        record = replace(
            record,
            provenance=replace(record.provenance, timings_s=timings),
            volumes=Volumes(written["fused"], written["ct_in_mri"], written.get("alpha"), written.get("mri")),
            files=names,
            decisions=record.decisions or earlier_decisions(folder / names["result"], record),
        )
        try:
            write_report(record, mri, staged / names["report"])
        finally:
            for volume in packed:
                volume.result()  # what went wrong with a volume is said first
        # The voxels are in the volume files; `read_case` finds them by the path of their field.
        write_json(to_document(record, {}), staged / names["result"])
        replace_result(staged, folder)
    return {role: folder / name for role, name in names.items()}


def in_doubt(result: Result, folder: Path) -> Doubt | None:
    """Return why a result should not leave for an archive, also by what was decided about the one that it replaces."""
    complete_replacement(folder)
    decisions = result.decisions or earlier_decisions(folder / "result.json", result)
    return may_leave(replace(result, decisions=decisions))


def _written_volumes(result: Result, names: Mapping[str, str]) -> dict[str, Volume]:
    volumes = {
        "fused": result.fused,
        "ct_in_mri": result.ct_in_mri,
        "alpha": result.alpha,
        "bone": None if result.bone is None else result.bone.labels,
        "mri": None if result.volumes is None else result.volumes.mri,
    }
    return {role: volume for role, volume in volumes.items() if role in names and volume is not None}


@checked
def read_case(path: str | os.PathLike[str]) -> Result:
    """Read the result that `write_case` wrote, including the voxels.

    Parameters
    ----------
    path
        The ``result.json``, or its folder.

    Raises
    ------
    ImageFileError, RecordError
        A file cannot be read, or is not a result of this version.
    """
    path = Path(path)
    if path.is_dir():
        path = path / "result.json"
    for last in (False, False, True):
        complete_replacement(path.parent)
        before = _state_of(path)
        try:
            result = _read_once(path)
        except BrainFusionError:
            if last or _state_of(path) == before is not None:
                raise
        else:
            if last or _state_of(path) == before:
                return result
    raise AssertionError


def _state_of(record: Path) -> tuple[int, int] | None:
    """Return what changes with a record; ``None`` where there is none."""
    try:
        found = record.stat()
    except OSError:
        return None
    return found.st_ino, found.st_mtime_ns


def _read_once(path: Path) -> Result:
    files = read_record(path).files
    if any(Path(name).is_absolute() or ".." in Path(name).parts for name in files.values()):
        raise RecordError(f"{path}: names files outside of its folder. Run the case again.")
    try:
        return from_document(read_document(path), Result, _VoxelsIn(path.parent, files))
    except RecordError as error:
        raise RecordError(f"{path}: {error}") from error


class _VoxelsIn(Mapping[str, VoxelArray]):
    """The voxels of a case's volumes by the path of their field, read from the files on access."""

    def __init__(self, folder: Path, files: Mapping[str, str]) -> None:
        paths = {role: "bone.labels" if role == "bone" else f"volumes.{role}" for role in ROLES}
        self._files = {path: folder / files[role] for role, path in paths.items() if role in files}

    def __getitem__(self, key: str) -> VoxelArray:
        return read_volume(self._files[key]).array_kji

    def __iter__(self) -> Iterator[str]:
        return iter(self._files)

    def __len__(self) -> int:
        return len(self._files)


def at_stake(folder: Path, names: Mapping[str, str]) -> list[Path]:
    """Return all that writing a result under these names, by role, replaces or removes, if it is there."""
    removed = {*FOLDERS, *removed_with_a_result()} & set(files_in(folder / names["result"]))
    return [folder / name for name in dict.fromkeys((*names.values(), *sorted(removed)))]


def make_output_folder(folder: Path) -> list[Path]:
    """Create `folder`, check that it is writable, and return the folders that were created, outermost first.

    Raises
    ------
    ImageFileError
        The path is a file, or cannot be created or written to.
    """
    made: list[Path] = []
    try:
        made = [p for p in (folder, *folder.parents) if not p.exists()][::-1]
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
        made_for_results(made)
    except OSError as error:
        remove_if_empty(made)
        why: object = error.strerror or error
        if isinstance(error, FileExistsError):
            why = "it is a link to nothing" if folder.is_symlink() and not folder.exists() else "it is a file"
        raise ImageFileError(f"{folder}: cannot write there ({why}).", remedy=Remedy.OTHER_OUTPUT_FOLDER) from error
    return made


def remove_if_empty(folders: list[Path]) -> None:
    """Remove those of `folders` that are empty, innermost (last) first; leave the others."""
    for folder in reversed(folders):
        try:
            folder.rmdir()
        except OSError:
            return


@contextmanager
def staging_folder(folder: Path) -> Iterator[Path]:
    """Create a hidden folder inside `folder`, and remove it afterwards in any case.

    What killed runs left behind in `folder` is removed first, or completed if it is whole.
    """
    complete_replacement(folder)
    remove_leftovers(folder)
    staged = temporary_beside(folder / "staged", prefix=STAGING)
    with half_written(staged):
        try:
            try:
                staged.mkdir()
            except OSError as error:
                raise ImageFileError(f"{folder}: cannot write there ({error.strerror or error}).") from error
            yield staged
        except BrainFusionError as error:  # the user knows the folder, not the hidden one
            error.problem = error.problem.replace(shown(staged), shown(folder))
            raise
        finally:
            shutil.rmtree(staged, ignore_errors=True)


def remove_staging(folder: Path) -> None:
    """Remove the leftovers of runs that were killed while writing; only safe while no other run uses the folder."""
    complete_replacement(folder)  # a result that is whole is none
    remove_leftovers(folder)
    for left in folder.glob(f"{STAGING}*"):
        shutil.rmtree(left, ignore_errors=True)
