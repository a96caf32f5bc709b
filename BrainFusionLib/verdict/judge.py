"""How far a result can be trusted, in a colour and in words.

Green: all evidence is like that of right results. Amber: something is not, or could not be checked. Red: something is
like that of wrong results. The limits were chosen on one half of 840 verdicts on simulated pairs with exact truth, and
judged on the other half, of other heads (docs/verdict/table.md). Simulated pairs share their edges; on patients' data
the verdict has not been measured.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from BrainFusionLib.registration import RegistrationResult
    from BrainFusionLib.verdict.given import GivenPose
    from BrainFusionLib.verdict.local import LocalFit
    from BrainFusionLib.verdict.skull import SkullFit

Colour = Literal["green", "amber", "red"]

CALIBRATION = "verdicts were calibrated on simulated pairs: look at the pictures all the same"


@dataclass(frozen=True)
class Limits:
    """From where on a figure is a doubt (amber), and from where on it is like that of wrong results (red)."""

    amber: float
    red: float


# Right results of the half that the limits were chosen on, 1st to 99th percentile, and wrong ones that were not
# refused, 5th to 95th: margin .14 to .71 against .07 to .41 nats, over the mirror image .07 to .34 against -.28 to .14
# nats, agreement .01 to .31 against .09 to .66 mm, sampling error .01 to .18 against .04 mm to metres.
MARGIN = Limits(0.08, 0.04)
AGREEMENT_MM = Limits(0.6, 1.0)
SAMPLING_ERROR_MM = Limits(0.3, 0.6)
OVERLAP = Limits(0.5, 0.25)
# A slab of 8 mm was 7 mm off in one of three phantoms, those of 10 mm were right in 16 of 16.
THICKNESS_MM = Limits(10.0, 5.0)
OVER_MIRRORED = Limits(0.03, -0.05)
# Right poses beat all poses 2 mm away by .004 and more.
PERTURBED_NMI = Limits(0.0, 0.0)
# The worst part of the head .06 to 1.0 mm against .8 to 6.6 mm; the least share of a part that can be measured .35 to 1
# against .03 to .93, low where a part lies elsewhere; the middle of all places .2 to 1.5 against .7 to 6.1 mm. For
# voxels longer than `LOCAL_VOXEL_MM` the limits grow with them.
PART_MM, LEAST_SHARE = Limits(1.2, 2.5), Limits(0.25, 0.1)
LOCAL_MM, LOCAL_VOXEL_MM = Limits(2.0, 4.0), 3.0
# Whole heads: to 1.3 mm in right results.
SKULL_MM = Limits(1.8, 4.0)
# In a thin slab the skull is a ring, which lies on the rim nearly as well a little above or below.
SKULL_THICKNESS_MM = 40.0
# An MRI that is darker than this where the skull is has none: it was stripped.
STRIPPED = 0.1
# How far a given transform may be from what a registration finds; right ones were to .5 mm away.
APART_MM = Limits(1.0, 2.0)
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


def judge(
    registration: RegistrationResult | None,
    local: LocalFit | None = None,
    skull: SkullFit | None = None,
    given: GivenPose | None = None,
) -> Verdict:
    """Judge a pose by what is known without the truth.

    Parameters
    ----------
    registration
        How the pose was found; ``None`` where it was given.
    local
        How well the two fit by parts (`registration.local`); ``None`` where that was not measured.
    skull
        Whether the CT's skull lies on the MRI's dark rim; ``None`` where it tells nothing.
    given
        What a registration says to a pose that was given (`registration.checking`); ``None`` where nobody asked.
    """
    found = registration if given is None else given.found
    findings = [
        *_of_the_given(registration, given),
        *_of_the_pose(found),
        *_of_the_parts(local),
        *_of_the_skull(skull, found),
    ]
    colours = [colour for colour, _ in findings]
    colour: Colour = "red" if "red" in colours else "amber" if colours else "green"
    reasons = [words for _, words in sorted(findings, key=lambda found: found[0] != "red")]
    good = "nothing speaks against the pose found"
    if given is not None and given.apart_mm is not None:
        good = f"the transform was given, and a registration ended {given.apart_mm:.1f} mm from it"
    return Verdict(colour, (*(reasons or [good]), CALIBRATION), *_expected(found, given))


def _expected(
    found: RegistrationResult | None, given: GivenPose | None
) -> tuple[float | None, tuple[float, float] | None]:
    """Return the expected error, mm, and its interval."""
    if found is None:
        return None, None
    if given is None or given.typical_mm is None:
        return found.expected_error_mm, found.interval_mm
    apart, high = given.typical_mm, found.interval_mm[1]
    return math.hypot(apart, found.expected_error_mm), (max(0.0, apart - high), apart + high)


def _of_the_given(registration: RegistrationResult | None, given: GivenPose | None) -> Iterator[tuple[Colour, str]]:
    """Yield what a registration says against a given transform."""
    if given is None:
        if registration is None:
            yield "amber", "the transform was given and used as it is; the pose was not checked"
    elif given.apart_mm is None:
        yield (
            "red",
            (
                "the transform was given, and a registration refused the pair: no pose stands out, or the two do not "
                "show the same part of the same head"
            ),
        )
    elif colour := _above(given.apart_mm, APART_MM):
        yield (
            colour,
            (
                f"the transform was given, and a registration ended {given.apart_mm:.1f} mm from it "
                f"({APART_MM.amber:g} mm allowed)"
            ),
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
    if colour := _below(found.perturbed_margin, PERTURBED_NMI):
        yield (
            colour,
            f"a pose 2 mm away fits better on other samples (by {-found.perturbed_margin:.4f} of mutual information)",
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


def _of_the_parts(local: LocalFit | None) -> Iterator[tuple[Colour, str]]:
    """Yield what the fit of the head's parts speaks against."""
    if local is None:
        return
    if colour := _below(local.least_share, LEAST_SHARE):
        yield (
            colour,
            (
                "in a part of the head CT and MRI have too little in common to be compared: "
                f"{100 * local.least_share:.0f} % of its places could be ({100 * LEAST_SHARE.amber:.0f} % wanted)"
            ),
        )
    limits = _for_voxels(PART_MM, local.voxel_mm)
    if colour := _above(local.part_mm, limits):
        yield (
            colour,
            f"a part of the head would fit better {local.part_mm:.1f} mm away ({limits.amber:.1f} mm allowed)",
        )
    limits = _for_voxels(LOCAL_MM, local.voxel_mm)
    if colour := _above(local.median_mm, limits):
        yield (
            colour,
            (
                f"places in the head would fit better where they are not, in the middle {local.median_mm:.1f} mm away "
                f"({limits.amber:.1f} mm allowed)"
            ),
        )


def _of_the_skull(skull: SkullFit | None, found: RegistrationResult | None) -> Iterator[tuple[Colour, str]]:
    """Yield what the place of the skull speaks against."""
    if skull is None or skull.brightness < STRIPPED or (found is not None and found.thinnest_mm < SKULL_THICKNESS_MM):
        return
    limits = _for_voxels(SKULL_MM, skull.voxel_mm)
    if colour := "red" if skull.at_edge else _above(skull.shift_mm, limits):
        yield (
            colour,
            (
                f"the CT's skull would lie on the dark rim of the MRI {skull.shift_mm:.1f} mm "
                f"{'or more ' if skull.at_edge else ''}away ({limits.amber:.1f} mm allowed)"
            ),
        )


def _for_voxels(limits: Limits, voxel_mm: float) -> Limits:
    """Return limits that grow with voxels which are longer than `LOCAL_VOXEL_MM`."""
    scale = max(1.0, voxel_mm / LOCAL_VOXEL_MM)
    return Limits(limits.amber * scale, limits.red * scale)


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
