"""How a NIfTI volume was acquired, from the BIDS sidecar beside it: JSON of the same stem, as dcm2niix writes it.

A sidecar is a help, not a need: one that cannot be read is left aside with a note.
"""

from __future__ import annotations

import json
import stat
from pathlib import Path
from typing import TypeAlias

from BrainFusionLib.acquisition import Acquisition, CtAcquisition, MriAcquisition
from BrainFusionLib.geometry import Grid
from BrainFusionLib.io import header_values as values

# dcm2niix writes some kB.
LONGEST_SIDECAR = 1 << 20
_ONLY_MRI = ("MagneticFieldStrength", "ImagingFrequency", "MRAcquisitionType", "EchoTime", "ScanningSequence")
_ONLY_CT = ("ConvolutionKernel", "XRayExposure", "XRayTubeCurrent", "KVP")

Fields: TypeAlias = dict[str, object]


def read_sidecar(image: Path, grid: Grid, in_scanner_space: bool) -> tuple[Acquisition | None, list[str]]:
    """Read the sidecar of a NIfTI file.

    Parameters
    ----------
    image
        The file; its sidecar is looked for in the same folder only.
    grid
        Of the volume, LPS mm.
    in_scanner_space
        Whether the grid is in the scanner's coordinates, not in those of a template.

    Returns
    -------
    tuple
        How the volume was acquired, ``None`` if that is unknown; and notes.
    """
    path = sidecar_of(image)
    try:
        status = path.stat()
    except (OSError, ValueError):
        return None, []
    if not stat.S_ISREG(status.st_mode):
        return None, []
    if status.st_size > LONGEST_SIDECAR:
        return None, [_ignored("it is too large")]
    try:
        content = json.loads(path.read_bytes())
    except OSError:
        return None, [_ignored("it cannot be read")]
    except (ValueError, RecursionError):
        return None, [_ignored("it is not valid JSON")]
    if not isinstance(content, dict):
        return None, [_ignored("it does not hold fields")]
    return _acquisition(content, grid, in_scanner_space), []


def sidecar_of(image: Path) -> Path:
    """Return where the sidecar of a NIfTI file is, if it has one."""
    return image.with_name(image.name[: _stem_length(image.name)] + ".json")


def _stem_length(name: str) -> int:
    plain = name.lower().removesuffix(".gz")
    return len(plain) - 4 if plain[-4:] in (".nii", ".hdr", ".img") else len(plain)


def _ignored(why: str) -> str:
    return f"the JSON file beside it was ignored: {why}."


def _acquisition(content: Fields, grid: Grid, in_scanner_space: bool) -> Acquisition | None:
    modality = _text(content, "Modality").upper()
    if modality in ("MR", "MRI") or (not modality and any(name in content for name in _ONLY_MRI)):
        return _mri(content, grid, in_scanner_space)
    if modality == "CT" or (not modality and any(name in content for name in _ONLY_CT)):
        return _ct(content, grid)
    return None


def _mri(content: Fields, grid: Grid, in_scanner_space: bool) -> MriAcquisition:
    maker = values.vendor(_text(content, "Manufacturer"))
    kinds = [*_words(content, "ImageType"), *_words(content, "ImageTypeText")]
    axis = values.readout_axis(_text(content, "InPlanePhaseEncodingDirectionDICOM"))
    phase = _text(content, "PhaseEncodingDirection")[:1]
    if axis is None and phase in ("i", "j"):
        axis = "j" if phase == "i" else "i"
    sequences = _words(content, "ScanningSequence")
    options = _words(content, "ScanOptions")
    return MriAcquisition(
        vendor=maker,
        distortion_correction=values.correction(kinds, maker) if maker == "Siemens" else None,
        field_t=values.field_t(content.get("MagneticFieldStrength"), content.get("ImagingFrequency")),
        bandwidth_hz=values.number(content.get("PixelBandwidth"), 1, 20_000),
        acquired_pixel_mm=_acquired_pixel_mm(content, grid, axis),
        readout_axis=axis,
        volumetric={"3D": True, "2D": False}.get(_text(content, "MRAcquisitionType")),
        slice_thickness_mm=values.of_slices_mm(content.get("SliceThickness")),
        slice_spacing_mm=_slice_spacing_mm(content, grid),
        echo_planar="EP" in sequences if sequences else None,
        fat_suppressed=bool({"FS", "SFS"} & set(options)) if options else None,
        contrast_agent=_has_contrast_agent(content),
        water_fat_shift_px=values.number(content.get("WaterFatShift"), 0.01, 100),
        normalised=values.is_normalised(kinds, maker),
        isocentre_mm=values.from_isocentre_mm(grid.centre_lps_mm, maker) if in_scanner_space else None,
        day=_day(content),
    )


def _ct(content: Fields, grid: Grid) -> CtAcquisition:
    model = _text(content, "ManufacturersModelName")
    return CtAcquisition(
        vendor=values.vendor(_text(content, "Manufacturer")),
        model=values.short_name(model),
        cone_beam=values.is_cone_beam(model),
        kernel=values.short_name(_text(content, "ConvolutionKernel")),
        kvp=values.number(content.get("KVP"), 10, 500),
        slice_thickness_mm=values.of_slices_mm(content.get("SliceThickness")),
        slice_spacing_mm=_slice_spacing_mm(content, grid),
        reconstruction_diameter_mm=values.number(content.get("ReconstructionDiameter"), 10, 2000),
        tilt_deg=values.number(content.get("GantryTilt", content.get("GantryDetectorTilt")), -60, 60),
        contrast_agent=_has_contrast_agent(content),
        day=_day(content),
    )


def _text(content: Fields, name: str) -> str:
    value = content.get(name)
    if isinstance(value, list) and value:
        value = value[0]
    return value.strip() if isinstance(value, str) else ""


def _words(content: Fields, name: str) -> list[str]:
    value = content.get(name)
    parts = value if isinstance(value, list) else [value]
    texts = [part for part in parts if isinstance(part, str)]
    return [word.upper() for text in texts for word in text.replace("\\", " ").replace("_", " ").split()]


def _slice_spacing_mm(content: Fields, grid: Grid) -> float | None:
    """Return the header's distance of slices: the file's may have been resampled, and its slices reordered."""
    said = values.of_slices_mm(content.get("SpacingBetweenSlices"))
    return said if said is not None else values.of_slices_mm(grid.spacing_ijk_mm[2])


def _acquired_pixel_mm(content: Fields, grid: Grid, axis: str | None) -> float | None:
    """Return the field of view along the readout over its samples (Siemens); else the pixel, if not interpolated."""
    if axis is None:
        return None
    index = "ij".index(axis)
    pixel = grid.spacing_ijk_mm[index]
    samples = values.number(content.get("BaseResolution"), 16, 4096)
    if samples is not None:
        return values.number(pixel * grid.size_ijk[index] / samples, 0.1, 20)
    acquired, made = content.get("AcquisitionMatrixPE"), content.get("ReconMatrixPE")
    return values.number(pixel, 0.1, 20) if acquired is not None and acquired == made else None


def _has_contrast_agent(content: Fields) -> bool | None:
    agent = _text(content, "ContrastBolusIngredient") or _text(content, "ContrastBolusAgent")
    return agent.lower() not in ("no", "none") if agent else None


def _day(content: Fields) -> int | None:
    found = (values.day(_text(content, name)) for name in ("AcquisitionDateTime", "AcquisitionDate", "StudyDate"))
    return next((one for one in found if one is not None), None)
