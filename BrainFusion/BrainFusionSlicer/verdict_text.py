"""The words of a verdict in the panel, as rich text."""

from __future__ import annotations

import html
from collections.abc import Sequence

from slicer.i18n import tr as _

from BrainFusionLib.case import Result
from BrainFusionSlicer.registered_ct import Standing

# The colour of the verdict as a symbol, for those who do not see colours.
SYMBOLS = {"green": "✔", "amber": "▲", "red": "✖"}
STALE_SYMBOL = "↻"


def of_result(result: Result, moved: bool) -> str:
    """Return what is said of a result; `moved` says whether the CT was registered, or only fused as it was."""
    verdict = result.verdict
    lines = [f"<b>{SYMBOLS[verdict.colour]} {_(verdict.sentence)}.</b>"]
    if verdict.expected_error is not None:
        lines.append(html.escape(verdict.expected_error) + ".")
    lines += [html.escape(reason[:1].upper() + reason[1:]) + "." for reason in verdict.reasons]
    lines.append(
        _("The CT was {movement}.").format(movement=html.escape(result.pose.movement))
        if moved
        else _("The registration was skipped: the current alignment was used.")
    )
    return "<br>".join(lines)


def of_changes(changes: Sequence[str]) -> str:
    """Return what is said in the place of a verdict when something has changed since it was given."""
    first = _("Changed since: check again")
    return "<br>".join([f"<b>{STALE_SYMBOL} {first}.</b>", *(html.escape(change) for change in changes)])


def of_unregistered() -> str:
    """Return what is said in the place of a verdict while the CT is shown where it was before the registration."""
    first, then = _("The unregistered CT is shown"), _("Switch off Show unregistered CT to see the verdict.")
    return f"<b>{first}.</b><br>{then}"


def why_not_moved(standing: Standing, name: str) -> str | None:
    """Say why a CT can be neither taken back nor shown unregistered, or return None."""
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
