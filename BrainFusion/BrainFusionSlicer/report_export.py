"""*Save report*: the command's report, made of what is in the scene; the page itself is made by the worker process."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from slicer.i18n import tr as _

from BrainFusionLib.errors import SettingsError
from BrainFusionSlicer import bridge, currency, decisions, dicom_export, landmark_lists, ownership, pose_verdict
from BrainFusionSlicer.exporting import ExportInputs
from BrainFusionSlicer.jobs import ReportOrder


def what_is_missing(fused, ct, mri) -> str | None:
    """Say why no report of a fused volume can be saved, or return None."""
    reason = decisions.why_not_signed(fused, ct, mri)
    if reason is not None:
        return reason
    later, verdict = decisions.later_card(fused, ct, mri), currency.stored_on(fused)
    if later is not None and verdict is not None and later.colour != verdict.card.colour:
        return _("A later check has judged this pose otherwise. Fuse again (Registration: Skip keeps the pose)")
    if ownership.registered_ct_of(fused) is None:
        return _("The registered CT was removed from the scene. Fuse again")
    if decisions.result_of(fused) is None:
        return _("The scene has no record of this result. Fuse again")
    return None


def uncounted_landmarks(fused, ct, mri) -> str | None:
    """Say that a report does not count the landmarks as they are now, which takes a fusion, or return None."""
    result = decisions.result_of(fused)
    if result is None:
        return None
    return landmark_lists.changes_since(result.landmarks, pose_verdict.parameter_node(ct.GetScene()), ct, mri)


def order_for(results: Any, path: str | Path) -> tuple[ReportOrder, ExportInputs]:
    """Return what has to be done to save a report, from the nodes: on the main thread, and quick.

    :param results: the fused volume node, or the outcome of a fusion that it is part of
    :param path: where to write the page
    :raises SettingsError: the report cannot be made; says why
    :raises BrainFusionError: a volume cannot be used
    """
    fused = getattr(results, "fusedVolume", results)
    ct, mri = (fused.GetNodeReference(role) for role in ownership.INPUT_ROLES)
    if ct is None or mri is None:
        raise SettingsError(_("The CT and the MRI of {fused} are not in the scene.").format(fused=fused.GetName()))
    reason = what_is_missing(fused, ct, mri)
    result = decisions.result_of(fused)
    if reason is not None or result is None:
        raise SettingsError(f"{reason}.")
    uncounted = uncounted_landmarks(fused, ct, mri)
    if uncounted is not None:
        result = replace(result, notes=(*result.notes, uncounted))
    # In the world: there the CT is where the registration put it.
    raw, ct_from_mri = dicom_export.registeredCt(fused, ct, np.eye(4))
    order = ReportOrder(Path(path), result, decisions.standings_of(fused, ct, mri), ct_from_mri)
    return order, ExportInputs(bridge.raw_from_node(fused), raw, bridge.raw_from_node(mri))
