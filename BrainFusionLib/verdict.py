"""How far a result can be trusted, in a colour and in words.

Not calibrated yet: green is never given, because nothing has been measured that would justify it.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from BrainFusionLib.registration import RegistrationResult

Colour = Literal["green", "amber", "red"]

NOT_CALIBRATED = (
    "this version's verdict is not calibrated against known errors, so it is never green: look at the pictures"
)
# On simulated heads with known truth right results led by 0.08 nats and more, and their refinements on different
# samples ended within 0.31 mm; slabs of 20 mm were right, of 8 mm one in three was 7 mm off.
LEAST_MARGIN = 0.05
MOST_DISAGREEMENT_MM = 0.4
MOST_SAMPLING_ERROR_MM = 0.2
LEAST_THICKNESS_MM = 15.0
# Two phantoms of different people that are alike: 0.03 nats, 0.32 mm, 0.11 mm.
ALIKE_MIRRORED_MARGIN, ALIKE_DISAGREEMENT_MM, ALIKE_SAMPLING_ERROR_MM = 0.06, 0.25, 0.1
LEAST_OVERLAP = 0.25


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


def judge(registration: RegistrationResult | None) -> Verdict:
    """Judge a registration; ``None`` stands for a transform that was given and used as it is."""
    if registration is None:
        return Verdict("amber", ("the transform was given and used as it is; it was not checked", NOT_CALIBRATED))
    doubts: list[str] = []
    # Each is asked so that a NaN is a doubt, too.
    if registration.margin is not None and not registration.margin >= LEAST_MARGIN:
        doubts.append(
            f"a different pose fits almost as well (margin {registration.margin:.3f} nats, {LEAST_MARGIN} wanted)"
        )
    if not registration.agreement_mm <= MOST_DISAGREEMENT_MM:
        doubts.append(
            f"two refinements on different samples ended {registration.agreement_mm:.1f} mm apart "
            f"({MOST_DISAGREEMENT_MM:g} mm allowed)"
        )
    if not registration.overlap >= LEAST_OVERLAP:
        doubts.append(
            f"only {100 * registration.overlap:.0f} % of the smaller head lies inside the other volume "
            f"({100 * LEAST_OVERLAP:.0f} % wanted)"
        )
    if not registration.sampling_error_mm <= MOST_SAMPLING_ERROR_MM:
        doubts.append(
            f"other samples would move the pose by {registration.sampling_error_mm:.2f} mm "
            f"({MOST_SAMPLING_ERROR_MM:g} mm allowed)"
        )
    if not registration.thinnest_mm >= LEAST_THICKNESS_MM:
        doubts.append(
            f"one of the volumes is only {registration.thinnest_mm:.0f} mm thick: poses some millimetres apart fit "
            f"equally well in so thin a slab ({LEAST_THICKNESS_MM:g} mm wanted)"
        )
    if (
        0 <= registration.mirrored_margin < ALIKE_MIRRORED_MARGIN
        and registration.agreement_mm > ALIKE_DISAGREEMENT_MM
        and registration.sampling_error_mm > ALIKE_SAMPLING_ERROR_MM
    ):
        doubts.append(
            "the two fit only roughly, and hardly better than mirrored: they may be of different people "
            f"(by {registration.mirrored_margin:.2f} nats)"
        )
    if registration.mirrored:
        doubts.append(
            "left and right seem exchanged in one of the two: mirrored data fit better by "
            f"{-registration.mirrored_margin:.2f} nats"
        )
    return Verdict(
        "red" if doubts else "amber",
        (*(doubts or ["nothing speaks against the pose found"]), NOT_CALIBRATED),
        registration.expected_error_mm,
        registration.interval_mm,
    )
