"""The headers of a DICOM series, from which a derived series takes its patient, study and position."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from BrainFusionLib.errors import GeometryError, ImageFileError
from BrainFusionLib.geometry import FloatArray, Grid
from BrainFusionLib.io.dicom_files import DicomFile, open_image_header, quiet_pydicom
from BrainFusionLib.io.dicom_series import find_series, is_dicom
from BrainFusionLib.io.reading import naming
from BrainFusionLib.io.slice_stack import axes_of, written_axes
from BrainFusionLib.io.zipped import unpacked

if TYPE_CHECKING:
    from pydicom.dataset import Dataset

# Positions are written rounded; a volume that a user moved on purpose is off by more.
_TOLERANCE_MM = 0.1
_UIDS = ("SOPClassUID", "SOPInstanceUID", "StudyInstanceUID", "SeriesInstanceUID", "FrameOfReferenceUID")
# Cosine of 0.08 degrees: 0.15 mm at the rim of a head.
_PARALLEL = 1 - 1e-6


@dataclass(frozen=True)
class Instance:
    """One file: its UIDs, and the centre of the first pixel of each of its frames, LPS mm, shape (frames, 3)."""

    sop_class_uid: str
    sop_instance_uid: str
    positions_lps_mm: FloatArray


@dataclass(frozen=True)
class DicomHeaders:
    """What one series says of itself, without its pixels.

    Attributes
    ----------
    first
        The pydicom dataset of the first file.
    instances
        Every file, in the order given.
    axes
        3x3, columns: direction of a row, of a column, and the slices' normal, LPS.
    written_axes
        The same as the header gives them: they differ where it rounds them to few digits.
    to_centre_mm
        From the first pixel of a slice to its centre, LPS mm, shape (3,).
    burned_in
        Whether text is burned into the pixels: "YES" if one file says so, "NO" if all deny it, else nothing.
    """

    first: Dataset
    instances: tuple[Instance, ...]
    axes: FloatArray
    written_axes: FloatArray
    to_centre_mm: FloatArray
    burned_in: str = ""

    @property
    def study_uid(self) -> str:
        """The study's UID."""
        return str(self.first.StudyInstanceUID)

    @property
    def series_uid(self) -> str:
        """The series' UID."""
        return str(self.first.SeriesInstanceUID)

    @property
    def frame_uid(self) -> str:
        """The UID of the frame of reference; empty without one."""
        return str(self.first.get("FrameOfReferenceUID", "") or "")

    def is_of_another_patient(self, other: DicomHeaders) -> bool:
        """Return whether both give a patient ID, and not the same."""
        mine, others = (str(headers.first.get("PatientID", "")).strip() for headers in (self, other))
        return bool(mine and others) and mine != others

    def instances_at(self, points_lps_mm: FloatArray) -> tuple[Instance, ...]:
        """Return the files whose slices are less than one slice distance from the heights that the points span."""
        normal = self.axes[:, 2]
        all_heights = np.unique(np.concatenate([i.positions_lps_mm @ normal for i in self.instances]).round(3))
        reach = 0.99 * float(np.diff(all_heights).max(initial=0.01))
        heights = np.asarray(points_lps_mm) @ normal
        low, high = heights.min() - reach, heights.max() + reach
        return tuple(
            instance
            for instance in self.instances
            if ((instance.positions_lps_mm @ normal > low) & (instance.positions_lps_mm @ normal < high)).any()
        )

    def check_same_place(self, grid: Grid, name: str) -> None:
        """Check that a grid is at the position of the series, so that its frame of reference holds for the grid, too.

        Raises
        ------
        GeometryError
            The grid is rotated, shifted, cropped or larger.
        """
        positions = np.concatenate([i.positions_lps_mm for i in self.instances])
        extent = np.ptp(positions @ self.axes, axis=0)
        # Slices of a tilted gantry are put onto a straight grid of whole pixels: its middle is up to half a pixel off.
        tilted = extent[:2].max() > _TOLERANCE_MM
        slack = _TOLERANCE_MM + (0.51 * max(grid.spacing_ijk_mm[:2]) if tilted else 0.0)
        axes = self.axes
        if not _are_parallel(axes, grid.direction):
            # Slicer and others take rounded directions as they are, and stack the slices along them from the first one.
            axes = self.written_axes
            slack += extent[2] / 2 * float(np.linalg.norm(np.cross(axes[:, 2], self.axes[:, 2])))
        centres = (positions + axes @ self.axes.T @ self.to_centre_mm) @ axes  # along rows, columns and the normal, mm
        off_mm = grid.centre_lps_mm @ axes - (centres.min(axis=0) + centres.max(axis=0)) / 2
        parallel = _are_parallel(axes, grid.direction)
        if not parallel or np.abs(off_mm).max() > slack:
            raise GeometryError(
                f"{name}: is not at the position of the DICOM slices that it belongs to "
                f"({'rotated' if not parallel else f'{np.linalg.norm(off_mm):.1f} mm away'}), so it cannot share their "
                "frame of reference. Load them from DICOM again, and fuse without cropping or moving them."
            )


def _are_parallel(axes: FloatArray, direction: FloatArray) -> bool:
    """Return whether two sets of axes are the same, in any order and sense."""
    return bool(np.abs(axes.T @ direction).max(axis=0).min() > _PARALLEL)


def read_series_headers(path: str | Path, series: str | int | None = None) -> DicomHeaders | None:
    """Read the headers of the series that `read_volume` would read there; ``None`` where `path` is not DICOM.

    Raises
    ------
    ImageFileError
        As `read_volume`, and as `read_headers`; or the slices have a series UID each.
    """
    path = Path(path)
    if not is_dicom(path):
        return None
    with unpacked(path) as place:
        files = find_series(place, series).files
        if len({file.text("SeriesInstanceUID") for file in files}) > 1:  # `read_volume` puts them together
            raise ImageFileError(
                f"{path}: its slices have a series UID each, as some de-identification makes them, so that DICOM "
                "results or registrations cannot refer to one series. Do without these, or give the original series."
            )
        return _headers_of(files)


def read_headers(files: Sequence[str | Path]) -> DicomHeaders:
    """Read the headers of the files of one series.

    Raises
    ------
    ImageFileError
        No file, a file that cannot be read, files of several series, or without study, series or position.
    """
    if not files:
        raise ImageFileError("the headers of a DICOM series are needed, but it has no files. Load the series again.")
    found = []
    with quiet_pydicom():
        for path in map(Path, files):
            file = open_image_header(path)
            if file is None:
                raise ImageFileError(f"{path}: is not a DICOM file with an image. Give the slices of one series.")
            found.append(file)
    return _headers_of(found)


def _headers_of(files: Sequence[DicomFile]) -> DicomHeaders:
    first = files[0]
    with quiet_pydicom():
        for file in files:
            for keyword in ("SOPClassUID", "SOPInstanceUID", "StudyInstanceUID", "SeriesInstanceUID"):
                if not file.text(keyword):
                    raise ImageFileError(f"{file.path}: its DICOM header has no {keyword}. Export the original images.")
            for keyword in _UIDS:
                if not isinstance(file.dataset.get(keyword, ""), str):
                    raise ImageFileError(
                        f"{file.path}: its DICOM header has several values of {keyword}, of which one would be wrong. "
                        "Export the original images."
                    )
            if file.text("SeriesInstanceUID") != first.text("SeriesInstanceUID"):
                raise ImageFileError(
                    f"{file.path}: is of another series than {first.path}. Give the files of one series only."
                )
        instances = tuple(
            Instance(file.text("SOPClassUID"), file.text("SOPInstanceUID"), file.needed("ImagePositionPatient", 3))
            for file in files
        )
        axes, to_centre = _plane(first, np.concatenate([instance.positions_lps_mm for instance in instances]))
        written = written_axes(first.needed("ImageOrientationPatient", 6)[0])
        said = {file.text("BurnedInAnnotation").upper() for file in files}
    burned_in = "YES" if "YES" in said else "NO" if said == {"NO"} else ""
    return DicomHeaders(first.dataset, instances, axes, written, to_centre, burned_in)


def _plane(file: DicomFile, positions_lps_mm: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Return the axes of the slices, and what leads from a slice's first pixel to its centre."""
    orientation = file.needed("ImageOrientationPatient", 6)[0]
    rows_mm, columns_mm = file.needed("PixelSpacing", 2)[0]
    with naming(file.path):
        axes, _ = axes_of(orientation, positions_lps_mm)
    columns, rows = file.size_ij
    half = np.array([columns_mm * (columns - 1) / 2, rows_mm * (rows - 1) / 2, 0.0])
    return axes, axes @ half
