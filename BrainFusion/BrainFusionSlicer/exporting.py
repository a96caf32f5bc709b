"""The exports as jobs, DICOM and the report, and what is shown in 3D: what is sent, and what is done with it.

Imports no slicer: the worker runs it, too.
"""

# No `from __future__ import annotations`: see `jobs`.

import contextlib
import os
import shutil
from collections.abc import Callable, Collection
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from BrainFusionLib.case import Inputs, Volumes
from BrainFusionLib.errors import GeometryError, ImageFileError
from BrainFusionLib.intensity import mri_scale
from BrainFusionLib.progress import Progress
from BrainFusionLib.settings import OutputSettings
from BrainFusionLib.transform import Transform
from BrainFusionLib.volume import AIR_HU, Volume
from BrainFusionSlicer.jobs import ExportOrder, RawVolume, ReportOrder, Shapes, ShapesOrder, WritingOrder

if TYPE_CHECKING:
    from BrainFusionLib.io.dicom_headers import DicomHeaders

REGISTRATION, BONE = "registration.dcm", "bone.dcm"


@dataclass(frozen=True, eq=False)
class ExportInputs:
    """The volumes of an export: the fused one in the DICOM frame of the reference, the moved one in its own world.

    A report has both CT and MRI, and all places are in the world; what is shown in 3D is of these two alone. The bone,
    above 0, is in the MRI's DICOM frame.
    """

    fused: RawVolume | None = None
    ct: RawVolume | None = None
    mri: RawVolume | None = None
    bone: RawVolume | None = None

    def by_role(self) -> dict[str, RawVolume]:
        """Return the volumes that are there, by the name of their field."""
        found = {"fused": self.fused, "ct": self.ct, "mri": self.mri, "bone": self.bone}
        return {role: volume for role, volume in found.items() if volume is not None}


def export(
    order: WritingOrder, inputs: ExportInputs, progress: Progress, cancel: Callable[[], bool] | None = None
) -> tuple[str, ...] | Shapes:
    """Write the two series, the registration and the bone, all or none, or the report; return the files.

    Nothing is written for what is shown in 3D: that is returned.

    Raises
    ------
    BrainFusionError
        As `io.dicom_writing.write_dicom_results` and `io.dicom_headers.read_headers`, or `report.write_report`; a file
        of the folder is called as one of the results.
    """
    if isinstance(order, ShapesOrder):
        from BrainFusionSlicer.shapes import shapes_of

        assert inputs.ct is not None
        assert inputs.mri is not None
        return shapes_of(inputs.ct.copied(), inputs.mri.copied(), progress, cancel)
    if isinstance(order, ReportOrder):
        progress("exporting", 0.0)
        return (str(_write_report(order, inputs)),)
    from BrainFusionLib.io.dicom_attributes import kinds_of
    from BrainFusionLib.io.dicom_headers import read_headers
    from BrainFusionLib.io.dicom_writing import write_dicom_results

    def step(stage: str, fraction: float) -> None:
        progress(stage, fraction)
        if cancel is not None and cancel():
            from BrainFusionLib.errors import Cancelled

            raise Cancelled("Cancelled; nothing was written.")

    _refuse_to_overwrite(order.target)
    of_ct = order.reference == "ct"
    reference = read_headers(order.ct_files if of_ct else order.mri_files)
    step("exporting", 0.0)
    assert inputs.fused is not None
    fused = inputs.fused.copied()
    reference.check_same_place(order.place or fused.grid, fused.name)  # before the work
    others = order.mri_files if of_ct else order.ct_files
    other = read_headers(others) if others else None
    moved = inputs.mri if of_ct else inputs.ct
    assert moved is not None
    folders = write_dicom_results(
        fused,
        (_moved_mri if of_ct else _registered)(moved.copied(), fused, order.moved_from_fixed),
        order.target,
        reference,
        other=other,
        kinds=kinds_of(OutputSettings(order.reference, None if order.place is None else "union")),
        place=order.place,
        doubt=order.doubt,
        fused_window=order.window,
        progress=step,
    )
    files = [file for made in folders.values() for file in sorted(made.iterdir())]
    try:
        files += _objects(order, inputs, *((reference, other) if of_ct else (other, reference)))
    except BaseException:
        for made in folders.values():
            shutil.rmtree(made, ignore_errors=True)
        for name in (REGISTRATION, BONE):
            (order.target / name).unlink(missing_ok=True)
        raise
    return tuple(str(file) for file in files)


def _refuse_to_overwrite(target: Path) -> None:
    """Refuse a folder with a registration or a bone: the series beside them are refused where they are written."""
    for path in (target / REGISTRATION, target / BONE):
        if os.path.lexists(path):
            raise ImageFileError(f"{path}: exists. Move it elsewhere, or choose another folder.")


def _objects(
    order: ExportOrder, inputs: ExportInputs, ct: "DicomHeaders | None", mri: "DicomHeaders | None"
) -> list[Path]:
    """Write the registration and the bone beside the series, as far as there are any; return the files."""
    from BrainFusionLib.io.dicom_registration import write_dicom_registration
    from BrainFusionLib.io.dicom_segmentation import write_dicom_segmentation

    files = []
    if ct is not None and mri is not None and order.pose is not None:
        files.append(order.target / REGISTRATION)
        write_dicom_registration(order.pose, files[-1], ct, mri, reference=order.reference, doubt=order.doubt)
    if mri is not None and inputs.bone is not None:
        files.append(order.target / BONE)
        write_dicom_segmentation(inputs.bone.copied(), files[-1], mri, order.bone_rule, order.doubt)
    return files


def _write_report(order: ReportOrder, inputs: ExportInputs) -> Path:
    from BrainFusionLib.case.values import put_right
    from BrainFusionLib.io import write_text
    from BrainFusionLib.report import report_html

    assert inputs.mri is not None
    assert inputs.ct is not None
    assert inputs.fused is not None
    result = order.result
    # As the run did: the CT in Hounsfield units. Its landmarks are where the volumes were then.
    pair = put_right(replace(result.request, landmarks=None), Inputs(inputs.ct.copied(), inputs.mri.copied()))
    fused = inputs.fused.copied()
    # On the grids of then: if the user has moved CT and MRI together since, the evidence has not.
    output = (result.output.grid if result.output else None) or result.grid
    if fused.grid.size_ijk != output.size_ijk or pair.mri.grid.size_ijk != result.grid.size_ijk:
        raise GeometryError("the fused volume or the MRI does not have the same size any more. Fuse again.")
    ct = Volume(_registered(pair.ct, fused, order.ct_from_mri).array_kji, output, "CT", "CT")
    volumes = Volumes(Volume(fused.array_kji, output, "MR", "fused"), ct)
    mri = Volume(pair.mri.array_kji, result.grid, "MR", "MRI")
    write_text(report_html(replace(result, volumes=volumes), mri, order.standings), order.path)
    return order.path


def results_in(folder: Path) -> list[str]:
    """Return the names of what is called in a folder as the results of an export are."""
    from BrainFusionLib.io.dicom_attributes import FUSED, MRI_IN_CT, REGISTERED_CT

    names = FUSED.folder, REGISTERED_CT.folder, MRI_IN_CT.folder, REGISTRATION, BONE
    return [name for name in names if (folder / name).exists()]


def remove_what_a_kill_left(order: WritingOrder, was_empty: bool, ended: Collection[int] = ()) -> None:
    """Remove what a job that was ended in the middle left of its files: temporary ones, and one series of two.

    Parameters
    ----------
    order
        The job's.
    was_empty
        Whether the folder of an export held no results before: those that are there now are its own.
    ended
        The ids of the processes that did it.
    """
    from BrainFusionLib.io.dicom_attributes import FUSED, MRI_IN_CT, REGISTERED_CT
    from BrainFusionLib.io.leftovers import remove_leftovers

    if isinstance(order, ReportOrder):
        remove_leftovers(order.path.parent, ended)
    if not isinstance(order, ExportOrder):
        return
    target = order.target
    remove_leftovers(target, ended)
    if not was_empty:
        return
    made, others = target / FUSED.folder, [target / kind.folder for kind in (REGISTERED_CT, MRI_IN_CT)]
    with contextlib.suppress(OSError):
        if made.is_dir() and not any(other.is_dir() and any(other.iterdir()) for other in others):
            shutil.rmtree(made, ignore_errors=True)


def _registered(ct: Volume, fused: Volume, ct_from_mri: Transform | None) -> Volume:
    """Return the CT on the fused volume's grid, whole Hounsfield units."""
    if ct_from_mri is None and ct.grid.same_as(fused.grid, 0.01):
        return Volume(ct.array_kji, fused.grid, "CT", ct.name)
    from BrainFusionLib.resample import resample_onto

    pulled = resample_onto(ct, fused.grid, ct_from_mri, fill=AIR_HU)
    return Volume(np.rint(pulled.array_kji), fused.grid, "CT", ct.name)


def _moved_mri(mri: Volume, fused: Volume, mri_from_ct: Transform | None) -> Volume:
    """Return the MRI on the fused volume's grid, on its own scale, and black where it has no voxels."""
    if mri_from_ct is None and mri.grid.same_as(fused.grid, 0.01):
        return Volume(mri.array_kji, fused.grid, "MR", mri.name)
    from BrainFusionLib.resample import resample_onto

    return resample_onto(mri, fused.grid, mri_from_ct, fill=mri_scale(mri.array_kji)[0])
