"""What the panel shows: one frozen value made from the chosen nodes, and one function that draws it."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

import qt
from slicer.i18n import tr as _

from BrainFusionSlicer import (
    checks,
    currency,
    dicom_export,
    ownership,
    registered_ct,
    review,
    selection,
    verdict_text,
)
from BrainFusionSlicer.registered_ct import Standing

SHORTCUT = "Ctrl+Return"
# Where the CT is when there is something that Undo can do, or a reason to tell why it cannot.
UNDOABLE = (Standing.REGISTERED, Standing.SHOWN_UNREGISTERED, Standing.HARDENED, Standing.HOMELESS)


@dataclass(frozen=True)
class PanelState:
    """What the panel shows.

    running - Whether a fusion is running.
    notice - What happened last.
    missing - Why Fuse cannot be clicked, or None.
    overwrite - The name of a chosen output that must not be overwritten yet, or None.
    warning, swapped - What is suspicious in the choice, and whether the two seem to be swapped.
    starts_from_transform - Whether the registration starts from a transform.
    is_fused - Whether the chosen fused volume has voxels.
    has_squares - Whether squares of CT and MRI can be made.
    standing - Where the CT is with respect to its registration.
    why_not_moved - Why it cannot be taken back, or None.
    verdict - The words in the place of the verdict; empty if there is none.
    worst_mri_mm - The point of the largest misalignment of a verdict that still holds, or None.
    not_exportable - Why nothing can be exported, or None.
    are_linked - Whether the slice views are linked.
    """

    running: bool
    notice: str
    missing: str | None
    overwrite: str | None
    warning: str | None
    swapped: bool
    starts_from_transform: bool
    is_fused: bool
    has_squares: bool
    standing: Standing
    why_not_moved: str | None
    verdict: str
    worst_mri_mm: tuple[float, ...] | None
    not_exportable: str | None
    are_linked: bool


def blocked_outputs(parameters, permitted: Iterable) -> list:
    """Return the chosen outputs that must not be overwritten yet."""
    return ownership.not_writable(
        selection.chosen_outputs(parameters), parameters.ctVolume, parameters.mriVolume, permitted
    )


def state_of(
    parameters, *, running: bool, notice: str, permitted: Iterable, suspicion: Callable[[], str | None], outcome
) -> PanelState:
    """Return what the panel is to show.

    Parameters
    ----------
    parameters
        The parameter node, or None.
    running, notice
        As in `PanelState`.
    permitted
        Nodes that the user allowed to be overwritten.
    suspicion
        Says what is suspicious in a complete choice.
    outcome
        The last outcome of this session, or None.
    """
    pair = (parameters.ctVolume, parameters.mriVolume) if parameters else (None, None)
    is_pair = all(node is not None for node in pair)
    missing = checks.what_is_missing(parameters)
    blocked = [] if missing else blocked_outputs(parameters, permitted)
    warning = None if missing or running else suspicion()
    if blocked:
        missing = _("{name} would be overwritten: click Overwrite, or choose another output").format(
            name=blocked[0].GetName()
        )
    fused = parameters.fusedVolume if parameters else None
    is_fused = is_pair and fused is not None and fused.GetImageData() is not None
    standing = registered_ct.standing_of(*pair) if is_pair else Standing.NOT_MOVED
    stored = currency.stored_on(_judged(fused, pair)) if is_pair and not running else None
    changes = [] if stored is None else currency.changes_since(stored, *pair)
    holds = stored is not None and not changes
    return PanelState(
        running=running,
        notice=notice,
        missing=missing,
        overwrite=blocked[0].GetName() if blocked else None,
        warning=warning,
        swapped=bool(warning) and checks.are_swapped(*pair),
        starts_from_transform=bool(parameters) and parameters.start == "transform",
        is_fused=is_fused,
        # They are made of the result's volumes, which are not saved.
        has_squares=holds and outcome is not None and outcome.fusedVolume == fused,
        standing=standing,
        why_not_moved=verdict_text.why_not_moved(standing, pair[0].GetName()) if is_pair else None,
        verdict="" if stored is None else _words(stored, changes, standing),
        worst_mri_mm=stored.worst_mri_mm if holds and stored is not None else None,
        not_exportable=dicom_export.whatIsMissingForExport(fused) if is_fused else _("Fuse first"),
        are_linked=review.are_linked(),
    )


def draw(ui, state: PanelState) -> None:
    """Show a state in the panel's widgets."""
    running = state.running
    ui.overwriteButton.setVisible(state.overwrite is not None and not running)
    ui.overwriteButton.setText(_("Overwrite {name}").format(name=state.overwrite or ""))
    ui.warningLabel.setText("⚠ " + state.warning if state.warning else "")
    ui.warningLabel.setVisible(bool(state.warning))
    ui.swapButton.setVisible(state.swapped)
    ui.startTransformSelector.setEnabled(state.starts_from_transform)
    for group in (ui.inputsCollapsibleButton, ui.outputsCollapsibleButton, ui.advancedCollapsibleButton):
        group.setEnabled(not running)

    # Setting a button's text clears its shortcut.
    ui.fuseButton.setText(_("Cancel") if running else _("Fuse"))
    ui.fuseButton.setShortcut(qt.QKeySequence(SHORTCUT))
    ui.fuseButton.setEnabled(running or state.missing is None)
    tip = _("Register the CT to the MRI and fuse them") if state.missing is None else state.missing
    ui.fuseButton.setToolTip(f"{_('End the fusion; nothing is changed') if running else tip} ({SHORTCUT})")
    if not running:  # else it shows the progress
        missing = "" if state.missing is None else state.missing + "."
        ui.statusLabel.setText(" ".join(filter(None, (state.notice, missing))))

    unregistered = state.standing is Standing.SHOWN_UNREGISTERED
    undoable = state.standing in UNDOABLE
    ui.verdictLabel.setText(state.verdict)
    ui.verdictFrame.setVisible(bool(state.verdict) or undoable)
    ui.undoButton.setEnabled(undoable and not running)
    ui.undoButton.setVisible(undoable)
    ui.undoButton.setToolTip(state.why_not_moved or _("Move the CT back to where it was before the registration"))
    ui.exportButton.setEnabled(state.not_exportable is None and not running)
    ui.exportButton.setToolTip(
        state.not_exportable or _("Write the fused volume and the registered CT as derived series")
    )
    ui.reviewCollapsibleButton.setEnabled((state.is_fused or unregistered) and not running)
    ui.checkerboardButton.setEnabled(state.has_squares)
    ui.showUnregisteredButton.setToolTip(state.why_not_moved or _("Show the CT where it was before the registration"))
    ui.showUnregisteredButton.setEnabled(unregistered or state.standing is Standing.REGISTERED)
    _set_quietly(ui.showUnregisteredButton, unregistered)
    ui.jumpButton.setEnabled(state.worst_mri_mm is not None)
    _set_quietly(ui.linkCheckBox, state.are_linked)


def _judged(fused, pair):
    """Return the fused volume of a pair whose verdict is shown: the one chosen, or else the newest."""
    if fused is not None and ownership.is_output_of(fused, *pair):
        return fused
    return ownership.find_output(ownership.FUSED, *pair)


def _words(stored: currency.StoredVerdict, changes: list[str], standing: Standing) -> str:
    if standing is Standing.SHOWN_UNREGISTERED:
        return verdict_text.of_unregistered()
    return verdict_text.of_changes(changes) if changes else stored.html


def _set_quietly(button, checked: bool) -> None:
    """Show a button's state as it is; nobody hears of it, as one would of the user's click."""
    blocked = button.blockSignals(True)
    button.setChecked(checked)
    button.blockSignals(blocked)
