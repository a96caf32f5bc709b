"""How far a result can be trusted, in a colour and in words.

Green: all evidence is like that of right results. Amber: something is not, or could not be checked. Red: something is
like that of wrong results. The limits were chosen on 127 simulated pairs with exact truth and judged on 127 of other
heads (docs/verdict/table.md): no wrong pose was green, but none was less than 20 mm off. Simulated pairs share their
edges, and nothing in them is bent; on patients' data the verdict has not been measured.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

if TYPE_CHECKING:
    from BrainFusionLib.registration import RegistrationResult
    from BrainFusionLib.registration.local import LocalErrors

Colour = Literal["green", "amber", "red"]

CALIBRATION = "verdicts were calibrated on simulated pairs: look at the pictures all the same"


@dataclass(frozen=True)
class Limits:
    """From where on a figure is a doubt (amber), and from where on it is like that of wrong results (red)."""

    amber: float
    red: float


# Right and wrong results of the 254 simulated pairs, 5th to 95th percentile: margin .18 to .67 against .03 to .38 nats,
# over the mirror image .07 to .30 against -.43 to -.11 nats, agreement .01 to .26 against .22 to 2.3 mm, sampling error
# .01 to .12 against .10 mm to metres.
MARGIN = Limits(0.08, 0.04)
AGREEMENT_MM = Limits(0.4, 1.0)
SAMPLING_ERROR_MM = Limits(0.2, 0.6)
OVERLAP = Limits(0.5, 0.25)
# A slab of 8 mm was 7 mm off in one of three phantoms, those of 10 mm were right in 16 of 16.
THICKNESS_MM = Limits(10.0, 5.0)
OVER_MIRRORED = Limits(0.03, -0.05)
# The middle of the local errors of right pairs is 0.5 mm on voxels of 1 mm (3 mm after pooling), and 2 mm on voxels of
# 4 mm: for voxels longer than `LOCAL_VOXEL_MM` the limits grow with them.
LOCAL_MM, LOCAL_VOXEL_MM = Limits(2.0, 4.0), 3.0
# Two phantoms of different people that are alike: 0.03 nats, 0.32 mm, 0.11 mm.
ALIKE_MIRRORED_MARGIN, ALIKE_DISAGREEMENT_MM, ALIKE_SAMPLING_ERROR_MM = 0.06, 0.25, 0.1


@dataclass(frozen=True)
class Verdict:
    """A colour, the reasons in words, and the expected error in mm with an interval (``None`` where not estimated)."""

    colour: Colour
    reasons: tuple[str, ...]
    expected_error_mm: float | None = None
    interval_mm: tuple[float, float] | None = None

    def to_dict(self) -> dict[str, Any]:
        """Return plain values, for JSON."""
        return {**asdict(self), "reasons": list(self.reasons)}


def judge(registration: RegistrationResult | None, local: LocalErrors | None = None) -> Verdict:
    """Judge a registration by what is known without the truth.

    Parameters
    ----------
    registration
        ``None`` stands for a transform that was given and used as it is.
    local
        Where the two fit (`registration.local`); ``None`` where that was not measured.
    """
    findings = [*_of_the_pose(registration), *_of_the_parts(local)]
    if registration is None:
        findings.append(("amber", "the transform was given and used as it is; the pose was not checked"))
    colours = [colour for colour, _ in findings]
    colour: Colour = "red" if "red" in colours else "amber" if colours else "green"
    reasons = [words for _, words in sorted(findings, key=lambda found: found[0] != "red")]
    return Verdict(
        colour,
        (*(reasons or ["nothing speaks against the pose found"]), CALIBRATION),
        None if registration is None else registration.expected_error_mm,
        None if registration is None else registration.interval_mm,
    )


def _of_the_pose(found: RegistrationResult | None) -> Iterator[tuple[Colour, str]]:
    """Yield what speaks against a pose: how much, and why."""
    if found is None:
        return
    if colour := _below(found.margin, MARGIN):
        yield colour, f"a different pose fits almost as well (margin {found.margin:.3f} nats, {MARGIN.amber:g} wanted)"
    if colour := _above(found.agreement_mm, AGREEMENT_MM):
        yield (
            colour,
            (
                f"two refinements on different samples ended {found.agreement_mm:.1f} mm apart "
                f"({AGREEMENT_MM.amber:g} mm allowed)"
            ),
        )
    if colour := _below(found.overlap, OVERLAP):
        yield (
            colour,
            (
                f"only {100 * found.overlap:.0f} % of the smaller head lies inside the other volume "
                f"({100 * OVERLAP.amber:.0f} % wanted)"
            ),
        )
    if colour := _above(found.sampling_error_mm, SAMPLING_ERROR_MM):
        yield (
            colour,
            (
                f"other samples would move the pose by {found.sampling_error_mm:.2f} mm "
                f"({SAMPLING_ERROR_MM.amber:g} mm allowed)"
            ),
        )
    if colour := _below(found.thinnest_mm, THICKNESS_MM):
        yield (
            colour,
            (
                f"one of the volumes is only {found.thinnest_mm:.0f} mm thick: poses some millimetres apart fit "
                f"equally well in so thin a slab ({THICKNESS_MM.amber:g} mm wanted)"
            ),
        )
    if (
        0 <= found.mirrored_margin < ALIKE_MIRRORED_MARGIN
        and found.agreement_mm > ALIKE_DISAGREEMENT_MM
        and found.sampling_error_mm > ALIKE_SAMPLING_ERROR_MM
    ):
        yield (
            "red",
            (
                "the two fit only roughly, and hardly better than mirrored: they may be of different people "
                f"(by {found.mirrored_margin:.2f} nats)"
            ),
        )
    elif found.mirrored:
        yield (
            "red",
            (
                "left and right seem exchanged in one of the two: mirrored data fit better by "
                f"{-found.mirrored_margin:.2f} nats"
            ),
        )
    elif colour := _below(found.mirrored_margin, OVER_MIRRORED):
        yield (
            colour,
            (
                f"the two fit hardly better than mirrored (by {found.mirrored_margin:.2f} nats, "
                f"{OVER_MIRRORED.amber:g} wanted): left and right may be exchanged in one of them"
            ),
        )


def _of_the_parts(local: LocalErrors | None) -> Iterator[tuple[Colour, str]]:
    """Yield what the fit of the head's parts speaks against."""
    if local is None or not len(local.lengths_mm):
        return
    median, scale = float(np.median(local.lengths_mm)), max(1.0, local.voxel_mm / LOCAL_VOXEL_MM)
    limits = Limits(LOCAL_MM.amber * scale, LOCAL_MM.red * scale)
    if colour := _above(median, limits):
        yield (
            colour,
            (
                f"parts of the head would fit better where they are not, in the middle {median:.1f} mm away "
                f"({limits.amber:.1f} mm allowed)"
            ),
        )


def _below(value: float | None, limits: Limits) -> Colour | None:
    """Say what a figure that should be great is; ``None`` is no doubt, NaN is red."""
    if value is None or value >= limits.amber:
        return None
    return "amber" if value >= limits.red else "red"


def _above(value: float, limits: Limits) -> Colour | None:
    """Say what a figure that should be small is; NaN is red."""
    if value <= limits.amber:
        return None
    return "amber" if value <= limits.red else "red"
