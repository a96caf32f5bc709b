"""DICOM Segmentation objects (SEG), written with highdicom: which voxels of a series are of one kind."""

from __future__ import annotations

import importlib.util
from copy import deepcopy
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from BrainFusionLib.errors import MissingDependencyError
from BrainFusionLib.geometry import apply_affine
from BrainFusionLib.io.dicom_attributes import Doubt, described, series_number
from BrainFusionLib.io.dicom_files import quiet_pydicom
from BrainFusionLib.io.dicom_headers import DicomHeaders
from BrainFusionLib.io.writing import atomic_output
from BrainFusionLib.version import __version__
from BrainFusionLib.volume import Volume

if TYPE_CHECKING:
    from pydicom.dataset import Dataset

# Of the series' number: after those of the derived series and of the registration.
SERIES_ADDED = 9


def can_write_segmentations() -> bool:
    """Return whether highdicom is installed."""
    return importlib.util.find_spec("highdicom") is not None


def write_dicom_segmentation(
    labels: Volume, path: Path, reference: DicomHeaders, rule: str, doubt: Doubt | None = None
) -> None:
    """Write the bone as one SEG object into the study and the frame of reference of a series.

    Parameters
    ----------
    labels
        Above 0 in bone; on a grid in the frame of the series.
    path
        The file.
    reference
        Headers of the series.
    rule
        How the bone was found, for people.
    doubt
        What the object says of itself.

    Raises
    ------
    MissingDependencyError
        highdicom is not installed.
    ImageFileError
        The file cannot be written.
    """
    if not can_write_segmentations():
        raise MissingDependencyError("DICOM SEG needs highdicom. Install it: pip install highdicom.")
    import highdicom as hd
    from highdicom.sr.coding import CodedConcept
    from pydicom.sr.codedict import codes

    grid = labels.grid
    slices = [k for k in range(grid.size_ijk[2]) if labels.array_kji[k].any()] or [0]
    tissue = CodedConcept("85756007", "SCT", "Tissue")
    bone = hd.seg.SegmentDescription(
        segment_number=1,
        segment_label="Bone",
        segmented_property_category=tissue,
        segmented_property_type=CodedConcept("272673000", "SCT", "Bone"),
        algorithm_type=hd.seg.SegmentAlgorithmTypeValues.AUTOMATIC,
        algorithm_identification=hd.AlgorithmIdentificationSequence(
            "BrainFusion bone", codes.cid7162.MorphologicalOperations, __version__
        ),
        tracking_uid=hd.UID(),
        tracking_id="Bone of the CT",
    )
    positions = [
        hd.PlanePositionSequence("PATIENT", tuple(apply_affine(grid.lps_from_ijk, np.array([0.0, 0.0, k])).tolist()))
        for k in slices
    ]
    i, j, k = grid.spacing_ijk_mm
    direction = grid.direction
    with quiet_pydicom():
        made: Any = hd.seg.Segmentation(
            source_images=_sources(reference, k),
            pixel_array=(labels.array_kji[slices] > 0).astype(np.uint8),
            segmentation_type=hd.seg.SegmentationTypeValues.BINARY,
            segment_descriptions=[bone],
            series_instance_uid=hd.UID(),
            series_number=series_number(reference, SERIES_ADDED),
            sop_instance_uid=hd.UID(),
            instance_number=1,
            manufacturer="BrainFusion",
            manufacturer_model_name="BrainFusion",
            software_versions=__version__,
            device_serial_number="0",
            content_description=rule[:64],
            series_description=described("Bone of the CT", doubt),
            pixel_measures=hd.PixelMeasuresSequence(pixel_spacing=(j, i), slice_thickness=k, spacing_between_slices=k),
            plane_orientation=hd.PlaneOrientationSequence(
                "PATIENT", (*direction[:, 0].tolist(), *direction[:, 1].tolist())
            ),
            plane_positions=positions,
            omit_empty_frames=False,
        )
        with atomic_output(path) as temporary:
            made.save_as(temporary, enforce_file_format=True)


def _sources(reference: DicomHeaders, thickness_mm: float) -> list[Dataset]:
    """Return a data set for each instance of the series: what an object derived from it names."""
    found = []
    for instance in reference.instances:
        data = deepcopy(reference.first)
        data.SOPClassUID, data.SOPInstanceUID = instance.sop_class_uid, instance.sop_instance_uid
        if "NumberOfFrames" not in data:
            data.ImagePositionPatient = [float(mm) for mm in instance.positions_lps_mm[0]]
        if "SliceThickness" not in data:  # which highdicom asks every source for
            data.SliceThickness = thickness_mm
        found.append(data)
    return found
