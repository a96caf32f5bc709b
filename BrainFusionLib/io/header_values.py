"""Values of scanner headers, from DICOM or a BIDS sidecar, checked; ``None`` for those that cannot be true."""

from __future__ import annotations

import datetime
import math
import re
from collections.abc import Iterable
from typing import Literal

import numpy as np

from BrainFusionLib.acquisition import MHZ_PER_TESLA, DistortionCorrection, Vendor
from BrainFusionLib.geometry import FloatArray
from BrainFusionLib.io.hashing import sha256_of_bytes

_VENDORS: dict[str, Vendor] = {
    "siemens": "Siemens", "ge ": "GE", "general electric": "GE", "philips": "Philips", "canon": "Canon",
    "toshiba": "Canon",
}  # fmt: skip
# Parts of the names of cone-beam scanners (surgery, angiography, dentistry, radiotherapy), no spaces or hyphens.
_CONE_BEAM = (
    "oarm", "artis", "dynact", "allura", "azurion", "xperct", "innova", "discoveryigs", "allia", "loopx", "cios",
    "ziehm", "newtom", "icat", "promax", "accuitomo", "veraview", "orthophos", "galileos", "gammaknife", "onboard",
    "cbct", "conebeam", "alphenix", "infinix", "trinias",
)  # fmt: skip
_READOUT: dict[str, Literal["i", "j"]] = {"ROW": "j", "COL": "i", "COLUMN": "i"}
_CORRECTIONS: dict[str, DistortionCorrection] = {"ND": "none", "DIS2D": "2D", "DIS3D": "3D"}
_NAME = re.compile(r"[\w .+\-/^(),]{1,40}")
_GAUSS_PER_TESLA = 10_000.0
# Of a head in a CT or an MRI.
_FIRST_YEAR = 1975
_SLICES_MM = (0.01, 50.0)
# Vendors whose patient coordinates usually begin at the isocentre; a head is not further from it.
_FROM_ISOCENTRE = ("Siemens", "GE")
_FARTHEST_MM = 500.0


def number(value: object, least: float, most: float) -> float | None:
    """Return a finite number between two limits."""
    if isinstance(value, bool):
        return None
    try:
        found = float(value)  # type: ignore[arg-type]
    except (TypeError, ValueError, OverflowError):
        return None
    return found if math.isfinite(found) and least <= found <= most else None


def of_slices_mm(value: object) -> float | None:
    """Return a thickness of slices, or their distance."""
    return number(value, *_SLICES_MM)


def from_isocentre_mm(centre_lps_mm: FloatArray, maker: Vendor | None) -> float | None:
    """Return how far the centre of a volume, in the scanner's coordinates, is from the isocentre, if that is known."""
    return number(float(np.linalg.norm(centre_lps_mm)), 0, _FARTHEST_MM) if maker in _FROM_ISOCENTRE else None


def field_t(strength: object, frequency_mhz: object) -> float | None:
    """Return the field strength, tesla, from itself (some scanners give gauss) or from the proton's frequency."""
    gauss = number(strength, 500, 120_000)
    if gauss is not None:
        return gauss / _GAUSS_PER_TESLA
    frequency = number(frequency_mhz, 0.5, 520)
    return number(strength, 0.01, 12) or (None if frequency is None else frequency / MHZ_PER_TESLA)


def vendor(manufacturer: str) -> Vendor | None:
    """Return the maker of a scanner."""
    text = manufacturer.strip().lower() + " "
    return next((name for start, name in _VENDORS.items() if text.startswith(start)), None)


def correction(words: Iterable[str], maker: Vendor | None) -> DistortionCorrection | None:
    """Return the distortion correction by the words of Siemens' image types; ``None`` where they contradict."""
    if maker != "Siemens":
        return None
    said = {word.upper() for word in words}
    found = [meaning for word, meaning in _CORRECTIONS.items() if word in said]
    return found[0] if len(found) == 1 else None


def is_normalised(words: Iterable[str], maker: Vendor | None) -> bool | None:
    """Return whether Siemens' image types say that the coil's brightness was normalised."""
    said = {word.upper() for word in words}
    return ("NORM" in said) if maker == "Siemens" and said else None


def short_name(text: str, private: Iterable[str] = ()) -> str | None:
    """Return the name of a kernel or a model; ``None`` for odd texts, and for those with any of the private words."""
    text = text.strip()
    if not _NAME.fullmatch(text):
        return None
    lowered = text.lower()
    return None if any(len(word) > 2 and word.lower() in lowered for word in private) else text


def is_cone_beam(model: str) -> bool | None:
    """Return true for the model of a cone-beam scanner; the models of others are not listed, so never false."""
    plain = re.sub(r"[\s\-_]", "", model).lower()
    return True if any(name in plain for name in _CONE_BEAM) else None


def day(date: str) -> int | None:
    """Return the ordinal of a date as DICOM (``20260301``) or ISO 8601 (``2026-03-01T...``) writes it."""
    found = re.match(r"(\d{4})-?(\d\d)-?(\d\d)(?!\d)|(\d{4})(\d\d)(\d\d)", date.strip())
    if found is None:
        return None
    year, month, day_of_month = (int(part) for part in found.groups() if part is not None)
    try:
        found_day = datetime.date(year, month, day_of_month)
    except ValueError:
        return None
    # Earlier dates stand for ones that were removed.
    return found_day.toordinal() if year >= _FIRST_YEAR else None


def patient(patient_id: str) -> str | None:
    """Return a digest of a patient ID, by which two scans can be compared without keeping it; ``None`` without one."""
    text = patient_id.strip(" \0")
    return sha256_of_bytes(text.encode("utf-8", "surrogatepass"))[:16] if text else None


def readout_axis(phase: str) -> Literal["i", "j"] | None:
    """Return the index axis of the readout: the axis in the plane that is not the phase's (ROW: i, COL: j)."""
    return _READOUT.get(phase.strip().upper())
