"""How the CT and the MRI were acquired, as far as their headers say, as rows."""

from __future__ import annotations

from collections.abc import Iterator

from BrainFusionLib.acquisition import CtAcquisition, MriAcquisition
from BrainFusionLib.case.result import Result
from BrainFusionLib.quantities import counted, quantity
from BrainFusionLib.report.facts import Fact

_CORRECTIONS = {"none": "none", "2D": "in the slice plane only", "3D": "3D"}
_READOUTS = {"i": "along a row of pixels", "j": "along a column of pixels"}


def acquisition_facts(result: Result) -> list[Fact]:
    """Return what is known; nothing where the headers say nothing."""
    pair = result.evidence.acquisition
    if pair is None:
        return []
    facts = [] if pair.mri is None else list(_mri(pair.mri))
    facts += [] if pair.ct is None else list(_ct(pair.ct))
    if pair.days_apart is not None:
        later = "" if pair.days_apart == 0 else " later than the MRI" if pair.days_apart > 0 else " before the MRI"
        day = "on the day of the MRI" if pair.days_apart == 0 else counted(abs(pair.days_apart), "day")
        facts.append(Fact("CT acquired", f"{day}{later}"))
    return facts


def _mri(mri: MriAcquisition) -> Iterator[Fact]:
    # Absent is not the same as uncorrected: this one is always said.
    correction = "unknown" if mri.distortion_correction is None else _CORRECTIONS[mri.distortion_correction]
    yield Fact("MRI: correction of gradient distortion", correction)
    yield from _known(
        ("MRI: scanner", mri.vendor, ""),
        ("MRI: field strength", mri.field_t, "T"),
        ("MRI: readout bandwidth of a pixel", mri.bandwidth_hz, "Hz"),
        ("MRI: acquired pixel", mri.acquired_pixel_mm, "mm"),
        ("MRI: readout", None if mri.readout_axis is None else _READOUTS[mri.readout_axis], ""),
        ("MRI: shift by a field error of 1 ppm", mri.mm_per_ppm, "mm"),
        ("MRI: expected shift of fat", mri.fat_shift_mm, "mm"),
        ("MRI: acquisition", {True: "3D", False: "2D slices", None: None}[mri.volumetric], ""),
        ("MRI: slice thickness", mri.slice_thickness_mm, "mm"),
        ("MRI: distance between slices", mri.slice_spacing_mm, "mm"),
        ("MRI: echo planar", mri.echo_planar, ""),
        ("MRI: fat suppressed", mri.fat_suppressed, ""),
        ("MRI: contrast agent", mri.contrast_agent, ""),
        ("MRI: brightness normalised", mri.normalised, ""),
        ("MRI: centre of the volume to the isocentre (usually)", mri.isocentre_mm, "mm"),
    )


def _ct(ct: CtAcquisition) -> Iterator[Fact]:
    yield from _known(
        ("CT: scanner", " ".join(word for word in (ct.vendor, ct.model) if word) or None, ""),
        ("CT: cone beam", ct.cone_beam, ""),
        ("CT: kernel", ct.kernel, ""),
        ("CT: tube voltage", ct.kvp, "kV"),
        ("CT: slice thickness", ct.slice_thickness_mm, "mm"),
        ("CT: distance between slices", ct.slice_spacing_mm, "mm"),
        ("CT: diameter of the reconstruction", ct.reconstruction_diameter_mm, "mm"),
        ("CT: gantry tilt by the header", ct.tilt_deg, "°"),
        ("CT: contrast agent", ct.contrast_agent, ""),
    )


def _known(*rows: tuple[str, str | float | bool | None, str]) -> Iterator[Fact]:
    for label, value, unit in rows:
        if value is not None:
            yield Fact(label, value if isinstance(value, str) else quantity(value, unit))
