"""The facts of a result as rows: a label, and a value with its unit.

The rows are read off the fields of the classes, so that a new field is shown without a line here; `_NAMED` gives the
fields plain words and units.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, fields, is_dataclass
from typing import TYPE_CHECKING, TypeAlias

import numpy as np

from BrainFusionLib.case.result import Provenance, Result
from BrainFusionLib.fusion.methods import METHODS
from BrainFusionLib.quantities import listed, number, position, quantity

if TYPE_CHECKING:
    from _typeshed import DataclassInstance


@dataclass(frozen=True)
class Fact:
    """One row."""

    label: str
    value: str


# Of a field, by its path: what it is, and its unit (`quantities.quantity`).
Named: TypeAlias = tuple[str, str]
_POSE: dict[str, Named] = {
    "similarity_nmi": ("similarity of the two at the pose, 1 to 2", "NMI"),
    "margin_nats": ("lead over the best other pose", "nats"),
    "agreement_mm": ("distance between two refinements", "mm"),
    "perturbed_margin_nmi": ("lead over poses 2 mm away", "NMI"),
    "overlap": ("overlap of the heads", "%"),
    "thinnest_mm": ("shortest edge of the two volumes", "mm"),
    "thickest_voxel_mm": ("longest voxel edge", "mm"),
    "mirrored_margin_nats": ("lead over the mirror image", "nats"),
    "sampling_error_mm": ("scatter of the pose", "mm"),
    "from_start_mm": ("local search: distance from the start", "mm"),
    "from_start_deg": ("local search: angle from the start", "°"),
    "inner_apart_mm": ("fit to the whole head to the fit inside the skull", "mm"),
    "lever": ("extent of the head relative to the part that was registered", ""),
}
_NAMED: dict[str, Named] = {
    "pose": ("registration", ""),
    "given": ("registration as a check of a given pose", ""),
    "given.found": ("pose found by that check", ""),
    "local": ("misalignment of regions", ""),
    "local.fit": ("misalignment of parts of the head", ""),
    "skull": ("CT skull on the dark skull band of the MRI", ""),
    "scale": ("lengths in the MRI against the CT", ""),
    "distortion": ("distortion of the MRI against the CT", ""),
    "landmarks": ("landmarks", ""),
    "landmarks.count": ("landmarks", ""),
    "landmarks.median_mm": ("residual of the landmarks, median", "mm"),
    "landmarks.worst_mm": ("residual of the landmarks, largest", "mm"),
    **{f"pose.{name}": named for name, named in _POSE.items()},
    **{f"given.found.{name}": (f"registration as a check: {words}", unit) for name, (words, unit) in _POSE.items()},
    "given.apart_mm": ("given pose to the registered one, largest distance", "mm"),
    "given.stretch_mm": ("given transform to its rigid part, largest distance", "mm"),
    "given.typical_mm": ("given pose to the registered one, root mean square", "mm"),
    "turned_deg": ("turn of the head between the headers", "°"),
    "sides_assumed": ("left and right assumed in both volumes", ""),
    "coverage": ("part of the MRI's head that the CT covers", "%"),
    "local.spacing_mm": ("distance between regions tested", "mm"),
    "local.fit.median_mm": ("median misalignment of the regions", "mm"),
    "local.fit.part_mm": ("misalignment of the worst part of the head", "mm"),
    "local.fit.share": ("regions that could be compared", "%"),
    "local.fit.least_share": ("regions that could be compared, in the worst part of the head", "%"),
    "local.fit.high_mm": ("misalignment of the regions, 90th percentile", "mm"),
    "local.fit.bias_mm": ("shift that all regions have in common", "mm"),
    "local.fit.voxel_mm": ("longest voxel edge in the test of regions", "mm"),
    "skull.shift_mm": ("CT skull to the dark skull band of the MRI", "mm"),
    "skull.depth": ("depth of that band", "% of the MRI's brightness"),
    "skull.brightness": ("MRI signal under the CT skull", "% of the MRI's brightness"),
    "skull.at_edge": ("the dark band may be further away", ""),
    "skull.voxel_mm": ("longest voxel edge in the test of the skull", "mm"),
    "skull.air": ("MRI signal outside the CT's head", "% of the MRI's brightness"),
    "brain": ("alignment to the brain", ""),
    "brain.is_used": ("the pose is that of the brain", ""),
    "brain.agreement_mm": ("distance between two fits to the brain", "mm"),
    "brain.centre_mm": ("pose of the brain to that of the skull, in the middle of the head", "mm"),
    "brain.worst_mm": ("pose of the brain to that of the skull, largest distance", "mm"),
    "inside": ("inside of the skull in the CT", ""),
    "inside.air_ml": ("air inside the skull", "mL"),
    "inside.defect_cm2": ("missing bone of the vault, without burr holes", "cm²"),
    "inside.burr_holes": ("burr holes", ""),
    "brain_shift": ("shift of the brain against the skull", ""),
    "brain_shift.judged": ("the shift of the brain could be judged", ""),
    "brain_shift.reason": ("why the shift of the brain was not judged", ""),
    "brain_shift.p95_mm": ("shift of the brain, 95th percentile", "mm"),
    "brain_shift.low_mm": ("shift of the brain, 95th percentile, at least", "mm"),
    "brain_shift.high_mm": ("shift of the brain, 95th percentile, at most", "mm"),
    "brain_shift.median_mm": ("shift of the brain, median", "mm"),
    "brain_shift.noise_mm": ("uncertainty of the shift of one block", "mm"),
    "brain_shift.information_nats": ("information of the MRI on the CT's brain", "nats a voxel"),
    "brain_shift.gain_nats": ("of that due to the shifts", "nats a voxel"),
    "brain_shift.affine_gain_nats": ("of that due to an affine change of the brain", "nats a voxel"),
    "brain_shift.place": ("largest shift of the brain at", ""),
    "brain_shift.direction": ("direction of that shift", ""),
    "brain_shift.ventricles_mm": ("displacement away from the ventricles, 95th percentile", "mm"),
    "brain_shift.ventricles_sd_mm": ("standard deviation of that", "mm"),
    "brain_shift.whole_mm": ("shift of the brain as a whole", "mm"),
    "brain_shift.whole_sd_mm": ("standard deviation of the whole brain's shift", "mm"),
    "brain_shift.part_nats": ("likelihood that a part of the brain has moved, logarithm", "nats"),
    "brain_shift.part_mm": ("largest displacement of that part", "mm"),
    "brain_shift.part_place": ("that part is at", ""),
    "brain_shift.part_power_nats": ("logarithm expected of a part moved by 4 mm", "nats"),
    "scale.left_right_percent": ("MRI longer than CT, left-right, %", ""),
    "scale.front_back_percent": ("MRI longer than CT, front-back, %", ""),
    "scale.feet_head_percent": ("MRI longer than CT, feet-head, %", ""),
    "scale.left_right_sd_percent": ("standard deviation of that, left-right, %", ""),
    "scale.front_back_sd_percent": ("standard deviation of that, front-back, %", ""),
    "scale.feet_head_sd_percent": ("standard deviation of that, feet-head, %", ""),
    "distortion.median_mm": ("distortion that no rigid pose explains, median", "mm"),
    "distortion.p95_mm": ("distortion that no rigid pose explains, 95th percentile", "mm"),
    "distortion.noise_mm": ("upper estimate of its noise, 95th percentile", "mm"),
    "distortion.beyond_scale_p95_mm": ("distortion beyond scale, 95th percentile", "mm"),
    "distortion.pose_median_mm": ("CT skull to the skull in the MRI, median", "mm"),
    "distortion.pose_p95_mm": ("CT skull to the skull in the MRI, 95th percentile", "mm"),
    "distortion.scatter_mm": ("scatter of patches of skull", "mm"),
    "distortion.gain_nats": ("skull better known with it than with a rigid movement by", "nats"),
    "distortion.voxel_mm": ("shortest edge of the coarser voxels", "mm"),
    "bone_error_hu": ("bone error of the fused volume", "HU"),
    "soft_tissue_error": ("soft-tissue error of the fused volume", "% of the MRI's range"),
    "overshoot": ("overshoot of the fused volume", "% of the MRI's range"),
    "registration.passes.rotations": ("registration: pass {n}, rotations tried", ""),
    "registration.passes.candidates": ("registration: pass {n}, poses followed to 8 mm", ""),
    "registration.passes.fine": ("registration: pass {n}, every 16 mm and not every 20 mm", ""),
    "registration.passes.safe_margin": ("registration: pass {n}, lead that makes it the last", "nats"),
    "registration.samples": ("registration: samples in the last refinement", ""),
    "registration.seed": ("registration: seed", ""),
    "registration.model": ("registration: model of the transform", ""),
    "registration.align": ("registration: aligned to", ""),
    "registration.search": ("registration: search", ""),
    "fusion.rule": ("fusion: method", ""),
    "fusion.weights": ("fusion: weights", ""),
    "fusion.weights_sha256": ("fusion: sha256 of the weights", ""),
    "fusion.batch_size": ("fusion: slices at a time", ""),
    "output.reference": ("output: in the frame of", ""),
    "output.grid": ("output: grid", ""),
    "device": ("device", ""),
    "threads": ("CPU threads", ""),
    "bone": ("bone of the CT as a label map", ""),
}
# Shown for a field without a value.
_ABSENT = {
    "pose": "the pose was given",
    "given": "none",
    "brain": "not requested",
    "landmarks": "none",
    "pose.from_start_mm": "global search",
    "pose.from_start_deg": "global search",
    "given.found.from_start_mm": "global search",
    "given.found.from_start_deg": "global search",
    "pose.margin_nats": "no other pose was left",
    "given.found": "refused",
    "given.found.margin_nats": "no other pose was left",
    "bone_error_hu": "no bone in view",
    "soft_tissue_error": "no soft tissue in view",
    "output.grid": "that of the frame",
    "fusion.weights": "the shipped ones, where any are needed",
    "fusion.weights_sha256": "none",
}
_UNITS = {"mm": "mm", "hu": "HU", "nats": "nats", "nmi": "NMI", "deg": "°", "s": "s"}


def headline(result: Result) -> list[str]:
    """Return the small facts below the title: when, how, where, how long, and with what versions."""
    provenance = result.provenance
    seconds = sum(provenance.timings_s.values())
    return [
        provenance.date,
        f"fusion: {_method(result.request.settings.fusion.rule)}",
        f"device: {provenance.device}",
        *([f"{seconds:.1f} s in all"] if seconds else []),
        *(f"{name} {version}" for name, version in provenance.versions.items()),
    ]


def quality_facts(result: Result) -> list[Fact]:
    """Return all evidence on the pose, and whether the fused volume tells the truth about its sources."""
    evidence = result.evidence
    # What the headers say has a table of its own (`headers.acquisition_facts`).
    measured = [field.name for field in fields(evidence) if field.name != "acquisition"]
    facts = [fact for name in measured for fact in _field_rows(getattr(evidence, name), "not measured", name)]
    if evidence.local is not None:
        facts.append(Fact("regions compared", str(len(evidence.local.lengths_mm))))
        if evidence.local.worst is not None:
            point, mm = evidence.local.worst
            facts.append(
                Fact(
                    "largest misalignment, median of neighbouring regions", f"{quantity(mm, 'mm')} at {position(point)}"
                )
            )
    if evidence.found is not None:
        facts.append(Fact("a second, thorough search was needed", _value(result.provenance.escalated)))
    if result.fidelity is not None:
        facts += _rows(result.fidelity, missing="not measured")
    return facts


def value_texts(result: Result) -> list[str]:
    """Return what the values of the fused volume are; nothing if that is not known."""
    scale = result.intensity
    if scale is None:
        return []
    knots = ", ".join(
        f"{number(hu, 4)} HU to {number(value, 4)}"
        for hu, value in zip(scale.ct_knots_hu, scale.ct_knots_fused, strict=True)
    )
    return [scale.meaning, f"the piecewise-linear map from CT to fused values: {knots}"]


def timing_facts(provenance: Provenance) -> list[Fact]:
    """Return the wall-clock time of each step, and of each stage of the registration with its iterations."""
    iterations = provenance.registration_iterations
    facts = [Fact(_words(step), f"{seconds:.2f} s") for step, seconds in provenance.timings_s.items()]
    for stage, seconds in provenance.registration_timings_s.items():
        count = f", {iterations[stage]} iterations" if stage in iterations else ""
        facts.append(Fact(f"registration: {_words(stage)}", f"{seconds:.2f} s{count}"))
    untimed = {stage: count for stage, count in iterations.items() if stage not in provenance.registration_timings_s}
    return facts + [Fact(f"registration: {_words(stage)}", f"{count} iterations") for stage, count in untimed.items()]


def setting_facts(result: Result) -> list[Fact]:
    """Return what was asked for."""
    request = result.request
    return [
        *_rows(request.settings, missing="default"),
        Fact("pose", "given" if result.pose.origin == "given" else "registered"),
        Fact("starting pose", "none" if request.start is None else "given"),
        Fact("registration mask", "none" if request.mri_mask is None else request.mri_mask.name),
    ]


def _rows(values: DataclassInstance, missing: str, path: str = "") -> Iterator[Fact]:
    """Return a row for every number and word in a dataclass and those in it, but not for arrays."""
    for field in fields(values):
        yield from _field_rows(getattr(values, field.name), missing, f"{path}{field.name}")


def _field_rows(value: object, missing: str, path: str) -> Iterator[Fact]:
    if is_dataclass(value) and not isinstance(value, type):
        yield from _rows(value, missing, f"{path}.")
    elif isinstance(value, tuple) and value and is_dataclass(value[0]):
        for n, one in enumerate(value, 1):
            yield from _rows(one, missing, f"{path}.{n}.")
    elif not isinstance(value, np.ndarray):
        label, unit = _label(path)
        yield Fact(label, _ABSENT.get(path, missing) if value is None else _value(value, unit))


def _label(path: str) -> Named:
    """Return words and unit of a field; the number of one of several stands in its path: ``passes.2.rotations``."""
    several = re.search(r"\.(\d+)\.", path)
    if several is None:
        return _NAMED.get(path) or _named(path)
    named = _NAMED.get(path.replace(several[0], ".", 1))
    return _named(path) if named is None else (named[0].format(n=several[1]), named[1])


def _named(path: str) -> Named:
    """Return words and unit of a field that has none in the table, by its name: ``size_mm`` is a size in mm."""
    *_, suffix = path.split("_")
    unit = _UNITS.get(suffix, "") if "_" in path else ""
    name = path.removesuffix(f"_{suffix}") if unit else path
    return ": ".join(_words(part) for part in re.split(r"\.(?!\d)", name)), unit


def _method(name: str) -> str:
    return METHODS[name].label.removesuffix(" (default)") if name in METHODS else name


def _words(name: str) -> str:
    return name.replace("_", " ").replace(".", " ")


def _value(value: object, unit: str = "") -> str:
    if isinstance(value, (bool, int, float)):
        return quantity(value, unit)
    if isinstance(value, tuple):
        return listed(value)
    return str(value) or "–"
