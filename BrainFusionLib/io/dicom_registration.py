"""DICOM Spatial Registration objects (REG): written beside derived series, and read as a pose.

DICOM Part 3, C.20.2: each item of the registration sequence takes the points of one frame of reference, or of some
images, to the registered frame, which is that of the object itself. LPS mm, as all of DICOM.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from BrainFusionLib.errors import ImageFileError, Remedy
from BrainFusionLib.geometry import FloatArray
from BrainFusionLib.io.dicom_attributes import (
    Doubt,
    code_of,
    decimal,
    derived_dataset,
    described,
    item_of,
    reference_to,
    series_number,
)
from BrainFusionLib.io.dicom_files import quiet_pydicom, values_in
from BrainFusionLib.io.dicom_headers import DicomHeaders
from BrainFusionLib.io.dicom_streams import open_data_set
from BrainFusionLib.io.reading import COPY_AGAIN, open_regular
from BrainFusionLib.io.writing import atomic_output
from BrainFusionLib.settings import Side
from BrainFusionLib.transform import Kind, Transform

if TYPE_CHECKING:
    from pydicom.dataset import Dataset

STORAGE = "1.2.840.10008.5.1.4.1.1.66.1"
_OTHER_CLASSES = {
    "1.2.840.10008.5.1.4.1.1.66.2": "fiducial points",
    "1.2.840.10008.5.1.4.1.1.66.3": "a deformation",
}
_TYPES: dict[Kind, str] = {"rigid": "RIGID", "similarity": "RIGID_SCALE", "affine": "AFFINE"}
_FRAME_IDENTITY = ("125021", "Frame of Reference Identity")
_BY_CONTENT = ("125024", "Image Content-based Alignment")
# Two matrices that differ by less are one.
_SAME = 1e-4

# Reads the headers of the CT and of the MRI; None for one that is not DICOM.
HeadersOfPair = Callable[[], tuple[DicomHeaders | None, DicomHeaders | None]]


@dataclass(frozen=True)
class _Item:
    """One item of a registration sequence: what it moves, and how: 4x4, to the registered frame."""

    frame_uid: str
    images: frozenset[str]
    matrix: FloatArray

    @property
    def is_identity(self) -> bool:
        """Whether it moves nothing."""
        return bool(np.abs(self.matrix - np.eye(4)).max() <= _SAME)


def write_dicom_registration(
    transform: Transform,
    path: Path,
    ct: DicomHeaders,
    mri: DicomHeaders,
    *,
    reference: Side = "mri",
    is_registered: bool = True,
    doubt: Doubt | None = None,
) -> None:
    """Write a pose as a Spatial Registration object, into the study of the reference.

    The registered frame is the reference's. Both volumes have an item: the reference's with the identity. Items name
    their images and their frame of reference; only the images, where both share one frame, or one has none.

    Parameters
    ----------
    transform
        The pose: maps MRI points to CT points, LPS mm.
    path
        The file; its folder exists.
    ct, mri
        Headers of all slices.
    reference
        Which of the two keeps its place.
    is_registered
        Whether the pose comes from the images, and not from elsewhere.
    doubt
        What the object says of itself, if the result is in doubt.

    Raises
    ------
    ImageFileError
        See `atomic_output`.
    """
    from pydicom.uid import UID, generate_uid

    fixed, moved = (mri, ct) if reference == "mri" else (ct, mri)
    pose = transform.inverse() if reference == "mri" else transform
    with quiet_pydicom():
        data = derived_dataset(fixed, UID(STORAGE), "REG")
        for keyword in list(data.dir("LossyImage")):
            delattr(data, keyword)
        data.SOPInstanceUID = generate_uid(prefix=None)
        data.file_meta.MediaStorageSOPClassUID = data.SOPClassUID
        data.file_meta.MediaStorageSOPInstanceUID = data.SOPInstanceUID
        data.BodyPartExamined = "HEAD"
        data.SeriesNumber, data.InstanceNumber = series_number(fixed, 3), 1
        what = "BrainFusion: CT to MRI" if reference == "mri" else "BrainFusion: MRI to CT"
        data.SeriesDescription = data.ContentDescription = described(what, doubt)
        data.ContentLabel, data.ContentCreatorName = "REGISTRATION", ""
        by_images = not fixed.frame_uid or not moved.frame_uid or fixed.frame_uid == moved.frame_uid
        data.FrameOfReferenceUID = fixed.frame_uid or generate_uid(prefix=None)
        data.PositionReferenceIndicator = data.get("PositionReferenceIndicator", "")
        comment = None if doubt is None else f"{doubt.mark}: {doubt.text}"[:64]
        data.RegistrationSequence = [
            _item(fixed, np.eye(4), "RIGID", _FRAME_IDENTITY, by_images, None),
            _item(
                moved, pose.moving_from_fixed_lps, _TYPES[pose.kind], _BY_CONTENT if is_registered else None, by_images,
                comment,
            ),
        ]  # fmt: skip
        _set_references(data, fixed, moved)
        with atomic_output(path) as temporary:
            data.save_as(temporary, enforce_file_format=True)


def _item(
    headers: DicomHeaders,
    matrix: FloatArray,
    kind: str,
    code: tuple[str, str] | None,
    by_images: bool,
    comment: str | None,
) -> Dataset:
    values = [decimal(value) for value in matrix.ravel()]
    one = item_of(FrameOfReferenceTransformationMatrix=values, FrameOfReferenceTransformationMatrixType=kind)
    registration = item_of(MatrixSequence=[one], RegistrationTypeCodeSequence=[] if code is None else [code_of(*code)])
    if comment is not None:
        registration.FrameOfReferenceTransformationComment = comment
    images = [item_of(**reference_to(instance)) for instance in headers.instances]
    item = item_of(MatrixRegistrationSequence=[registration], ReferencedImageSequence=images)
    if not by_images:
        item.FrameOfReferenceUID = headers.frame_uid
    return item


def _set_references(data: Dataset, fixed: DicomHeaders, moved: DicomHeaders) -> None:
    """List the images of both by series: those of the object's own study, and those of another one."""

    def series(headers: DicomHeaders) -> Dataset:
        of_series = [item_of(**reference_to(instance)) for instance in headers.instances]
        return item_of(SeriesInstanceUID=headers.series_uid, ReferencedInstanceSequence=of_series)

    own = [headers for headers in (fixed, moved) if headers.study_uid == fixed.study_uid]
    data.ReferencedSeriesSequence = [series(headers) for headers in own]
    if moved.study_uid != fixed.study_uid:
        study = item_of(StudyInstanceUID=moved.study_uid, ReferencedSeriesSequence=[series(moved)])
        data.StudiesContainingOtherReferencedInstancesSequence = [study]


def read_dicom_registration(path: Path, headers: HeadersOfPair | None, maps: str | None = None) -> FloatArray:
    """Return the 4x4 matrix of a Spatial Registration object, from MRI points to CT points, LPS mm.

    Parameters
    ----------
    path
        A DICOM file.
    headers
        Reads the headers of CT and MRI, by which the two are found in the object.
    maps
        "ct-to-mri" or "mri-to-ct": what the one matrix that moves does, if CT and MRI are not DICOM.

    Raises
    ------
    ImageFileError
        It is no such object, is damaged, or is not about these two; or it has several registrations of one of them.
    """
    registered_frame, items = _read_items(path)
    ct, mri = (None, None) if headers is None else headers()
    if ct is None or mri is None:
        return _only_one_that_moves(path, items, maps)
    frames_tell = bool(ct.frame_uid and mri.frame_uid) and ct.frame_uid != mri.frame_uid
    found = [_of_series(path, name, it, items, frames_tell) for name, it in (("CT", ct), ("MRI", mri))]
    if found[0] is None and found[1] is None:
        raise ImageFileError(
            f"{path}: registers other images: neither the CT nor the MRI is in it, by their frames of reference or by "
            "their images. Give the registration of these two."
        )
    matrices = []
    for name, it, matrix in zip(("CT", "MRI"), (ct, mri), found, strict=True):
        # Without an item of its own, a volume of the registered frame stays where it is.
        if matrix is None and it.frame_uid != registered_frame:
            raise ImageFileError(
                f"{path}: registers the {'MRI' if name == 'CT' else 'CT'} to other images than this {name}. Give the "
                "registration of these two."
            )
        matrices.append(np.eye(4) if matrix is None else matrix)
    return np.asarray(np.linalg.inv(matrices[0]) @ matrices[1], dtype=np.float64)


def _read_items(path: Path) -> tuple[str, list[_Item]]:
    import pydicom

    damaged = ImageFileError(f"{path}: this DICOM registration is damaged. {COPY_AGAIN}")
    with quiet_pydicom(), open_regular(path) as stream:
        try:
            data = pydicom.dcmread(open_data_set(path, stream), stop_before_pixels=True)
            kind = str(data.get("SOPClassUID", ""))
            if kind == STORAGE:
                items = [_read_item(item) for item in data.RegistrationSequence]
                if items and None not in items:
                    return str(data.get("FrameOfReferenceUID", "")), [item for item in items if item is not None]
        except OSError:
            raise
        except Exception as error:  # pydicom raises errors of many kinds
            raise damaged from error
    if kind == STORAGE:
        raise damaged
    what = _OTHER_CLASSES.get(kind, "images or something else")
    raise ImageFileError(
        f"{path}: this DICOM file holds {what}, and no rigid registration (Spatial Registration, REG). Give that one."
    )


def _read_item(item: Dataset) -> _Item | None:
    """Return an item; ``None`` where its matrices are missing or none."""
    (registration,) = item.MatrixRegistrationSequence
    total = np.eye(4)
    for one in registration.MatrixSequence:  # in the order of their multiplication
        values = np.array(values_in(one, "FrameOfReferenceTransformationMatrix"))
        if values.size != 16 or not np.allclose(values[12:], [0, 0, 0, 1], rtol=0, atol=1e-6):
            return None
        total = total @ values.reshape(4, 4)
    if not abs(np.linalg.det(total[:3, :3])) > 1e-9:
        return None
    images = frozenset(str(image.ReferencedSOPInstanceUID) for image in item.get("ReferencedImageSequence", []))
    return _Item(str(item.get("FrameOfReferenceUID", "")), images, total)


def _of_series(
    path: Path, name: str, headers: DicomHeaders, items: list[_Item], frames_tell: bool
) -> FloatArray | None:
    """Return the matrix for a series: that for its images, or else for its frame of reference; ``None`` if neither."""
    own = {instance.sop_instance_uid for instance in headers.instances}
    chosen = [item for item in items if item.images & own]
    if not chosen and frames_tell:
        chosen = [item for item in items if item.frame_uid == headers.frame_uid]
    if not chosen:
        return None
    first = chosen[0].matrix
    if any(np.abs(item.matrix - first).max() > _SAME for item in chosen):
        raise ImageFileError(
            f"{path}: holds {len(chosen)} different registrations of this {name}, and does not say which one counts. "
            "Give a file with one."
        )
    return first


def _only_one_that_moves(path: Path, items: list[_Item], maps: str | None) -> FloatArray:
    """Return the one matrix that moves something, if what it moves is said: CT or MRI is not DICOM."""
    moving = [item for item in items if not item.is_identity]
    if maps is None or len(moving) > 1:
        raise ImageFileError(
            f"{path}: a DICOM registration finds CT and MRI by their DICOM headers, but one of the two is not DICOM. "
            "Give the DICOM series of both, or say which way the one matrix maps.",
            remedy=Remedy.STATE_DIRECTION,
        )
    matrix = moving[0].matrix if moving else np.eye(4)
    return np.asarray(np.linalg.inv(matrix), dtype=np.float64) if maps == "ct-to-mri" else matrix
