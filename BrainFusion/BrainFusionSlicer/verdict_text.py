"""The words of a verdict in the panel: a card with a heading, the expected error and the findings."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from slicer.i18n import tr as _

from BrainFusionLib.case import Result
from BrainFusionLib.landmarks import LandmarkErrors
from BrainFusionLib.quantities import length
from BrainFusionSlicer.registered_ct import Standing

# The colour of the verdict as a symbol, for those who do not see colours.
SYMBOLS = {"green": "✔", "amber": "▲", "red": "✖", "stale": "↻", "none": "◌"}


@dataclass(frozen=True)
class Card:
    """What is said in the place of the verdict.

    colour - "green", "amber" or "red"; "stale" if something has changed since; "none" while no verdict applies.
    heading - The sentence, with the symbol of its colour.
    error - The expected error, or empty.
    findings - Sentences.
    """

    colour: str
    heading: str
    error: str = ""
    findings: tuple[str, ...] = ()

    @property
    def text(self) -> str:
        """All words of the card."""
        return "\n".join(filter(None, (self.heading, self.error, *self.findings)))


def of_result(result: Result, moved: str | None) -> Card:
    """Return what is said of a result; `moved` is the volume that was registered, or None if it was fused as it was."""
    if moved is None:
        return _card(result, _("The registration was skipped: the current alignment was used."))
    return _card(result, _("The {volume} was {movement}.").format(volume=moved, movement=movement_of(result)))


def movement_of(result: Result) -> str:
    """Say how the volume that was moved had to move: the CT, or the MRI where the CT is the reference."""
    if result.reference == "mri":
        return result.pose.movement
    transform = result.transform
    return transform.inverse().describe(transform.apply(result.grid.centre_lps_mm))


def of_check(result: Result, name: str = "") -> Card:
    """Return what is said of a pose that was checked as it stands: the one that is shown, or that of a transform."""
    last = (
        _("The pose of {name} was checked as it stands; nothing was moved.").format(name=name)
        if name
        else _("The pose was checked as it stands; nothing was moved.")
    )
    return _card(result, last)


def _card(result: Result, last: str) -> Card:
    verdict = result.verdict
    findings = (
        *map(sentence, result.remarks),
        *_landmarks(result.landmarks),
        last,
    )
    error = "" if verdict.expected_error is None else sentence(verdict.expected_error)
    return Card(verdict.colour, headed(verdict.colour, _(verdict.sentence)), error, findings)


def _landmarks(errors: LandmarkErrors | None) -> tuple[str, ...]:
    if errors is None:
        return ()
    words = _("{count} landmarks: median {median}, worst {worst} ({name}).")
    median, worst = length(errors.median_mm), length(errors.worst_mm)
    return (words.format(count=len(errors.points), median=median, worst=worst, name=errors.worst.name),)


def counts(card: Card, errors: LandmarkErrors) -> bool:
    """Say whether a verdict was given with these residuals of landmarks."""
    return set(_landmarks(errors)) <= set(card.findings)


def of_changes(changes: Sequence[str]) -> Card:
    """Return what is said in the place of a verdict when something has changed since it was given."""
    return Card("stale", headed("stale", _("Changed since: check again")), "", tuple(changes))


def of_unregistered(volume: str) -> Card:
    """Return what is said in the place of a verdict while the CT, or the MRI, is shown where it was before."""
    then = _("Switch off Show unregistered {volume} to see the verdict.").format(volume=volume)
    heading = _("The unregistered {volume} is shown").format(volume=volume)
    return Card("none", headed("none", heading), "", (then,))


def of_left_behind(volume: str, transform: str) -> Card:
    """Return what is said of a volume that a result moved onto one that was removed since."""
    heading = _("{volume} was moved onto a volume that was removed").format(volume=volume)
    return Card("none", headed("none", heading), "", (left_behind(volume, transform),))


def left_behind(volume: str, transform: str) -> str:
    """Say that a volume is still where a result put it, and how it comes back."""
    return _("{volume} is still under {transform}, which moved it. Undo moves it back to where it was before.").format(
        volume=volume, transform=transform
    )


def headed(colour: str, words: str) -> str:
    """Return a heading with the symbol of its colour."""
    return f"{SYMBOLS[colour]} {words}"


def sentence(words: str) -> str:
    """Return words with a capital letter and a full stop."""
    words = words[:1].upper() + words[1:]
    return words if words.endswith((".", "!", "?")) else words + "."


def why_not_moved(standing: Standing, name: str) -> str | None:
    """Say why a volume can be neither taken back nor shown unregistered, or return None."""
    if standing is Standing.HARDENED:
        return _(
            "{name} cannot be moved back: its own geometry was changed after the registration, for example by "
            "hardening its transform."
        ).format(name=name)
    if standing is Standing.HOMELESS:
        return _("{name} cannot be moved back: the transform that it was under was removed from the scene.").format(
            name=name
        )
    if standing is Standing.ELSEWHERE:
        return _("{name} is under another transform now, and is not moved.").format(name=name)
    return None
