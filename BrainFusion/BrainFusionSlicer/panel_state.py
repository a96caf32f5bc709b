"""What the panel shows: one frozen value made from the chosen nodes, and one function that draws it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace

import qt
import slicer
from slicer.i18n import tr as _

from BrainFusionLib.quantities import length
from BrainFusionSlicer import (
    checks,
    currency,
    dicom_export,
    ownership,
    permission,
    pose_history,
    pose_verdict,
    registered_ct,
    review,
    selection,
    verdict_text,
)
from BrainFusionSlicer.fingerprint import has_voxels
from BrainFusionSlicer.registered_ct import Standing
from BrainFusionSlicer.review import View
from BrainFusionSlicer.verdict_text import Card

SHORTCUT, UNREGISTERED_SHORTCUT = "Ctrl+Return", "Alt+5"
# Where the CT is when there is something that Undo can do, or a reason to tell why it cannot.
UNDOABLE = (Standing.REGISTERED, Standing.SHOWN_UNREGISTERED, Standing.HARDENED, Standing.HOMELESS)
NOT_UNDOABLE = (Standing.NOT_MOVED, Standing.UNDONE, Standing.ELSEWHERE)
# Background and letters of a card's heading: the same in a light and a dark theme.
COLOURS = {
    "green": ("#1b6e2d", "white"),
    "amber": ("#ffb300", "black"),
    "red": ("#b71c1c", "white"),
    "stale": ("#5f6368", "white"),
    "none": ("#5f6368", "white"),
}


@dataclass(frozen=True)
class PanelState:
    """What the panel shows.

    running - Whether a fusion or an export is running.
    notice - What happened last.
    missing - Why Fuse cannot be clicked, or None.
    overwrite - The name of a chosen output that must not be overwritten yet, or None.
    warning, swapped - What is suspicious in the choice, and whether the two seem to be swapped.
    is_empty - Whether neither CT nor MRI is chosen.
    starts_from_transform - Whether the registration starts from a transform.
    view - What the slice views show.
    not_viewable - For each view that cannot be shown, why not.
    standing - Where the volume that the registration moved is with respect to that.
    moved - What that volume is called in words: the CT, or with the CT as reference the MRI.
    left_behind - What Undo takes back although the other volume of its pair was removed, or None.
    abandoned - How many nodes an earlier result moved with a volume that is elsewhere by now; Undo takes them back.
    why_not_moved - Why it cannot be taken back, or None.
    undoes - What Undo takes back first, in words, or None if that is the registration.
    card - The words in the place of the verdict, or None.
    jump, jump_mri_mm - The words of the button that jumps to the largest misalignment, and where it jumps to, or None.
    not_exportable - Why nothing can be exported, or None.
    are_linked - Whether the slice views are linked.
    """

    running: bool
    notice: str
    missing: str | None
    overwrite: str | None
    warning: str | None
    swapped: bool
    is_empty: bool
    starts_from_transform: bool
    view: View
    not_viewable: Mapping[View, str]
    standing: Standing
    moved: str
    left_behind: slicer.vtkMRMLScalarVolumeNode | None
    abandoned: int
    why_not_moved: str | None
    undoes: str | None
    card: Card | None
    jump: str
    jump_mri_mm: tuple[float, ...] | None
    not_exportable: str | None
    are_linked: bool


def blocked_outputs(parameters, permitted: Iterable) -> list:
    """Return the chosen outputs that must not be overwritten yet; in the place of those that are kept, new ones are."""
    pair = parameters.ctVolume, parameters.mriVolume
    foreign = [node for node in selection.chosen_outputs(parameters) if not ownership.is_output_of(node, *pair)]
    return permission.not_writable(foreign, *pair, permitted)


def why_blocked(output) -> str:
    """Say that a chosen output must not be overwritten yet, and what to do."""
    return _("{name} would be overwritten: click Overwrite, or choose another output").format(name=output.GetName())


def state_of(
    parameters, *, running: bool, notice: str, permitted: Iterable, suspicion: Callable[[], str | None], view: View
) -> PanelState:
    """Return what the panel is to show.

    Parameters
    ----------
    parameters
        The parameter node, or None.
    running, notice, view
        As in `PanelState`.
    permitted
        Nodes that the user allowed to be overwritten.
    suspicion
        Says what is suspicious in a complete choice.
    """
    pair = (parameters.ctVolume, parameters.mriVolume) if parameters else (None, None)
    is_pair = all(node is not None for node in pair) and pair[0] != pair[1]
    missing = checks.what_is_missing(parameters)
    blocked = [] if missing else blocked_outputs(parameters, permitted)
    warning = None if missing or running else suspicion()
    if blocked:
        missing = why_blocked(blocked[0])
    fused = judged(parameters.fusedVolume, pair) if is_pair else None
    standing = registered_ct.standing_of(*pair) if is_pair else Standing.NOT_MOVED
    left = registered_ct.left_behind(*pair)
    left_behind = left if standing in NOT_UNDOABLE else None
    moved = registered_ct.moved_of_pair(*pair) if is_pair else left_behind
    shown = pose_verdict.shown(fused, *pair) if is_pair and not running else pose_verdict.Shown()
    stored, changes = shown.stored, list(shown.changes)
    of_fused = None if running else currency.stored_on(fused)
    unregistered = standing is Standing.SHOWN_UNREGISTERED
    word = _("MRI") if moved is not None and (left_behind or moved) == pair[1] else _("CT")
    card = None if stored is None else _card(stored, changes, word if unregistered else None)
    if left is not None and not running:
        card = _of_left_behind(card, left)
    holds = stored is not None and not changes and not unregistered
    return PanelState(
        running=running,
        notice=notice,
        missing=missing,
        overwrite=blocked[0].GetName() if blocked else None,
        warning=warning,
        swapped=bool(warning) and checks.are_swapped(*pair),
        is_empty=bool(parameters) and pair == (None, None),
        starts_from_transform=bool(parameters) and parameters.start.name in ("transform", "refine"),
        view=View.UNREGISTERED if unregistered else view,
        not_viewable=_not_viewable(
            fused, pair, (standing, moved, word), of_fused is not None and not currency.changes_of_result(fused, *pair)
        )
        if is_pair
        else dict.fromkeys(View, _("Fuse first")),
        standing=standing,
        moved=word,
        left_behind=left_behind,
        abandoned=len(registered_ct.abandoned_by(*pair)),
        why_not_moved=_why_not_moved(standing, moved, left_behind),
        undoes=pose_history.last_step(moved) if is_pair and left_behind is None else None,
        card=card,
        jump=_jump(stored) if holds else _("Largest misalignment"),
        jump_mri_mm=_jump_to(stored) if holds else None,
        not_exportable=dicom_export.whatIsMissingForExport(fused) if fused else _("Fuse first"),
        are_linked=review.are_linked(),
    )


def unknown(running: bool) -> PanelState:
    """Return what the panel shows where it cannot be told what is chosen: nothing of what it was before."""
    why = _("The chosen volumes cannot be read: choose others. Slicer's error log says why")
    return PanelState(
        running=running, notice="", missing=why, overwrite=None, warning=None, swapped=False, is_empty=False,
        starts_from_transform=False, view=View.FUSED, not_viewable=dict.fromkeys(View, why),
        standing=Standing.NOT_MOVED, moved=_("CT"), left_behind=None, abandoned=0, why_not_moved=None, undoes=None,
        card=None, jump=_("Largest misalignment"), jump_mri_mm=None, not_exportable=why, are_linked=review.are_linked(),
    )  # fmt: skip


def judged(fused, pair):
    """Return the fused volume of a pair whose verdict is shown: the one chosen, or else the newest; or None."""
    found = fused if fused is not None and ownership.is_output_of(fused, *pair) else None
    found = found or ownership.find_output(ownership.FUSED, *pair)
    return found if found is not None and has_voxels(found) else None


def draw(ui, state: PanelState) -> None:
    """Show a state in the panel's widgets."""
    running = state.running
    ui.overwriteButton.setVisible(state.overwrite is not None and not running)
    ui.overwriteButton.setText(_("Overwrite {name}").format(name=state.overwrite or ""))
    ui.warningLabel.setText("⚠ " + state.warning if state.warning else "")
    ui.warningLabel.setVisible(bool(state.warning))
    ui.swapButton.setVisible(state.swapped)
    ui.sampleDataButton.setVisible(state.is_empty)
    ui.startTransformSelector.setEnabled(state.starts_from_transform)
    for group in (ui.inputsFrame, ui.outputsCollapsibleButton, ui.advancedCollapsibleButton):
        group.setEnabled(not running)

    # Setting a button's text clears its shortcut.
    ui.fuseButton.setText(_("Cancel") if running else _("Fuse"))
    ui.fuseButton.setShortcut(qt.QKeySequence(SHORTCUT))
    ui.fuseButton.setEnabled(running or state.missing is None)
    tip = _("Register the CT to the MRI and fuse them") if state.missing is None else state.missing
    ui.fuseButton.setToolTip(f"{_('End it; nothing is changed') if running else tip} ({SHORTCUT})")
    if not running:  # else it shows the progress
        missing = "" if state.missing is None else state.missing + "."
        words = " ".join(filter(None, (state.notice, missing)))
        ui.statusLabel.setText(words)
        ui.statusLabel.setVisible(bool(words))
    else:
        ui.statusLabel.setVisible(True)
    _draw_card(ui, state)
    _draw_review(ui, state)
    ui.exportButton.setEnabled(state.not_exportable is None and not running)
    ui.exportButton.setToolTip(
        state.not_exportable
        or _("Write the fused volume and the registered CT as derived series, the pose and the bone")
    )


def _draw_card(ui, state: PanelState) -> None:
    card = state.card
    ui.verdictFrame.setVisible(card is not None)
    colour, letters = COLOURS["none" if card is None else card.colour]
    ui.verdictLabel.setStyleSheet(f"background-color: {colour}; color: {letters}; font-weight: bold; padding: 3px;")
    ui.verdictLabel.setText("" if card is None else card.heading)
    ui.verdictErrorLabel.setText("" if card is None else card.error)
    ui.verdictErrorLabel.setVisible(card is not None and bool(card.error))
    ui.verdictFindingsLabel.setText("" if card is None else "\n".join(card.findings))
    ui.verdictFindingsLabel.setVisible(card is not None and bool(card.findings))
    ui.jumpButton.setText(state.jump)
    ui.jumpButton.setEnabled(state.jump_mri_mm is not None)
    ui.jumpButton.setToolTip(
        _("There is no verdict on what is shown now")
        if state.jump_mri_mm is None
        else _("Show the point where the local misalignment of CT and MRI is largest")
    )


def _draw_review(ui, state: PanelState) -> None:
    views = {
        View.FUSED: (ui.fusedCheckBox, _("Show the fused volume over the MRI")),
        View.CT: (ui.overlayButton, _("Show the bone of the CT in colour over the MRI")),
        View.OUTLINE: (ui.outlineButton, _("Show the outline of the CT bone on the MRI")),
        View.SQUARES: (ui.checkerboardButton, _("Show CT and MRI in squares of 20 mm")),
        View.UNREGISTERED: (
            ui.showUnregisteredButton,
            _("Show the {volume} where it was before the registration").format(volume=state.moved),
        ),
    }
    text = _("Show unregistered {volume}").format(volume=state.moved)
    if ui.showUnregisteredButton.text != text:
        ui.showUnregisteredButton.setText(text)
        ui.showUnregisteredButton.setShortcut(qt.QKeySequence(UNREGISTERED_SHORTCUT))
    viewable = len(state.not_viewable) < len(views) and state.card is not None
    is_undoable = state.standing in UNDOABLE or state.left_behind is not None or state.abandoned > 0
    ui.reviewFrame.setVisible(viewable or is_undoable)
    ui.reviewFrame.setEnabled(not state.running)
    for view, (button, tip) in views.items():
        why_not = state.not_viewable.get(view)
        button.setEnabled(why_not is None)
        button.setToolTip(why_not or tip)
        _set_quietly(button, view is state.view and why_not is None)
    ui.opacitySlider.setEnabled(View.CT not in state.not_viewable)
    ui.undoButton.setEnabled(is_undoable and not state.running)
    ui.undoButton.setVisible(is_undoable)
    ui.undoButton.setToolTip(_what_undo_does(state))
    _set_quietly(ui.linkCheckBox, state.are_linked)


def _what_undo_does(state: PanelState) -> str:
    if state.abandoned and state.left_behind is None and state.standing in (*NOT_UNDOABLE, Standing.HARDENED):
        words = _("Move back what an earlier registration moved along, and what was left there: {count}")
        return words.format(count=state.abandoned)
    if state.undoes is None and state.why_not_moved is not None:
        return state.why_not_moved
    before = state.undoes or _("the registration")
    return _("Move the {volume} back to where it was before {step}").format(volume=state.moved, step=before)


def _why_not_moved(standing: Standing, moved, left_behind) -> str | None:
    if left_behind is not None:
        standing, moved = registered_ct.standing_alone(left_behind), left_behind
    return None if moved is None else verdict_text.why_not_moved(standing, moved.GetName())


def _of_left_behind(card: Card | None, left) -> Card:
    """Say on the card that a volume was left where a result had moved it onto one that is gone."""
    names = left.GetName(), registered_ct.result_transform_of(left).GetName()
    why_not = verdict_text.why_not_moved(registered_ct.standing_alone(left), left.GetName())
    said = verdict_text.left_behind(*names) if why_not is None else why_not
    card = card or verdict_text.of_left_behind(*names)
    return replace(card, findings=tuple(dict.fromkeys((*card.findings, said))))


def _not_viewable(fused, pair, moving: tuple, holds: bool) -> dict[View, str]:
    """Say of each view that cannot be shown why not.

    :param moving: where the volume is that the registration moved, this volume, and what it is called
    """
    reasons: dict[View, str] = {}
    standing, moved, word = moving
    registered = ownership.registered_ct_of(fused)
    if fused is None and standing in (Standing.REGISTERED, Standing.SHOWN_UNREGISTERED):
        reasons = dict.fromkeys((View.FUSED, View.OUTLINE, View.SQUARES), _("Fuse first"))
    elif fused is None:
        reasons = dict.fromkeys(View, _("Fuse first"))
    elif registered is None:
        gone = _("The registered CT was removed from the scene. Fuse again")
        reasons = dict.fromkeys((View.CT, View.OUTLINE, View.SQUARES), gone)
    elif not holds:
        changed = _("Something has changed since the fusion. Fuse again")
        reasons = dict.fromkeys((View.OUTLINE, View.SQUARES), changed)
    if standing not in (Standing.REGISTERED, Standing.SHOWN_UNREGISTERED):
        if fused is not None and registered is not None and registered != pair[0]:
            return reasons  # a resampled CT is the registered one, and the CT itself was never moved
        why_not = verdict_text.why_not_moved(standing, moved.GetName())
        reasons[View.UNREGISTERED] = why_not or _(
            "The {volume} is where it was before: it was not moved, or that was undone"
        ).format(volume=word)
    elif standing is Standing.SHOWN_UNREGISTERED:
        reasons.pop(View.UNREGISTERED, None)
        # What is there is shown by switching it off.
        for view in (View.OUTLINE, View.SQUARES):
            reasons.pop(view, None)
    else:
        reasons.pop(View.UNREGISTERED, None)
    return reasons


def _card(stored: currency.StoredVerdict, changes: list[str], unregistered: str | None) -> Card:
    if unregistered is not None:
        return verdict_text.of_unregistered(unregistered)
    return verdict_text.of_changes(changes) if changes else stored.card


def _jump(stored: currency.StoredVerdict) -> str:
    if stored.card.colour == "green" or stored.worst_mm is None:
        return _("Largest misalignment: none above the limit")
    return _("Largest misalignment: {mm}").format(mm=length(stored.worst_mm))


def _jump_to(stored: currency.StoredVerdict) -> tuple[float, ...]:
    if stored.card.colour == "green" or stored.worst_mri_mm is None:
        return stored.middle_mri_mm
    return stored.worst_mri_mm


def _set_quietly(button, checked: bool) -> None:
    """Show a button's state as it is; nobody hears of it, as one would of the user's click."""
    blocked = button.blockSignals(True)
    button.setChecked(checked)
    button.blockSignals(blocked)
