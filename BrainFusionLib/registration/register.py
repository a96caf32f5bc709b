"""The order of the stages, and the result."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

import numpy as np

from BrainFusionLib.arguments import checked
from BrainFusionLib.backend import Backend, backend_of
from BrainFusionLib.device import pick_device
from BrainFusionLib.errors import Remedy, SettingsError
from BrainFusionLib.evidence import PoseEvidence
from BrainFusionLib.geometry import affine
from BrainFusionLib.intensity import check_mask
from BrainFusionLib.intensity.inside import FindInside, inside_skull
from BrainFusionLib.progress import Cancel, Progress
from BrainFusionLib.registration.confidence import around
from BrainFusionLib.registration.mirror import mirrored_score
from BrainFusionLib.registration.pyramid import PreparedPair, prepare
from BrainFusionLib.registration.similarity import Poses, joined, score_and_gradient
from BrainFusionLib.registration.stages import Run
from BrainFusionLib.settings import RegistrationSettings
from BrainFusionLib.transform import AffineTransform, RigidTransform
from BrainFusionLib.volume import Volume

# The result is compared with poses this far away, mm.
PERTURBED_MM = 2.0


@dataclass(frozen=True)
class Registration:
    """The best pose found and the evidence for it; the judgement is left to `verdict`.

    Attributes
    ----------
    transform
        Maps MRI points to CT points, LPS mm.
    affine
        The similarity or affine transform, if one was requested.
    evidence
        The evidence for the pose.
    escalated
        Whether the first search pass was not enough.
    iterations
        Number of iterations of each stage.
    timings_s
        Wall-clock seconds of each stage.
    device
        The device used.
    """

    transform: RigidTransform
    affine: AffineTransform | None
    evidence: PoseEvidence
    escalated: bool
    iterations: dict[str, int]
    timings_s: dict[str, float]
    device: str


@checked
def register(
    ct: Volume,
    mri: Volume,
    settings: RegistrationSettings | None = None,
    *,
    start: RigidTransform | None = None,
    mri_mask: Volume | None = None,
    inside: FindInside | None = None,
    device: str | Backend = "auto",
    progress: Progress | None = None,
    cancel: Cancel | None = None,
) -> Registration:
    """Find the rigid transform that maps points of the MRI to the same anatomy in the CT.

    No starting pose is needed, and the positions in the headers need not agree.

    Parameters
    ----------
    ct
        Hounsfield units. Table, head holder and frame may be in view.
    mri
        Any sequence, any scale. Neither is checked here: see `intensity.check_pair`.
    start
        A pose to try in addition to those found by the search; a wrong one does no harm.
    mri_mask
        The registration mask, on the MRI's grid: the last refinement uses only the region above 0.
    inside
        Finds the inside of the skull in the CT, for a caller that needs it later, too; not called with a
        registration mask.
    device
        ``"auto"``, ``"cpu"``, ``"cuda"``; on ``"mps"``, which has no float64, the CPU is used. Or a backend.
    progress
        Called with ``("registration", fraction)``.
    cancel
        Called a few times a second; when it returns true, `Cancelled` is raised.

    Raises
    ------
    ImageContentError
        One of the volumes shows no head, or the registration mask is empty.
    SettingsError
        This machine does not have the device, or a local search has no start.
    Cancelled
        `cancel` returned true.
    """
    settings = settings or RegistrationSettings()
    if settings.search == "local" and start is None:
        raise SettingsError("a local search refines a starting pose, but none was given.", remedy=Remedy.GIVE_START)
    backend = backend_of(pick_device(device)) if isinstance(device, str) else device
    run = Run(settings, progress, cancel)
    with backend.alone():
        run.report(0.0)
        heads = prepare(ct, mri, backend, None if mri_mask is None else check_mask(mri_mask, mri), run.check)
        run.lap("prepare", 0.15)
        starts = _starts(heads, start, settings.search == "local")
        poses, score, passes = run.find(heads, starts)
        mirrored = mirrored_score(heads, poses[:1], settings.seed, run.check)
        pose, searched = poses[:1], heads
        # A mask can only select samples of the fixed head.
        other = heads.samples_the_thin if mri_mask is None else heads.ct_is_fixed
        if other:
            pose = pose.inverse(heads.fixed.centre_lps_mm, heads.moving.centre_lps_mm)
            ct_from_mri = _mri_to_ct(searched, poses)
            heads = heads.with_other_fixed(
                (ct_from_mri if heads.ct_is_fixed else ct_from_mri.inverse()).moving_from_fixed_lps
            )
        final, agreement, sampling = run.refine(heads, pose)
        as_searched, inner_apart = final, None  # both criteria below are about the optimum for the whole head
        if mri_mask is None:
            find = inside or partial(inside_skull, ct)
            final, inner_apart, alone = run.refine_inside(heads, final, sampling, find)
            if alone is not None:  # what is said of the pose is that of the fit that it comes from
                agreement, sampling = alone.agreement_mm, alone.sampling_mm
        fitted = None if settings.model == "rigid" else run.fit(heads, final, settings.model)
        if searched is not heads:  # the overlap is measured on the head that the search sampled
            as_searched = as_searched.inverse(heads.fixed.centre_lps_mm, heads.moving.centre_lps_mm)
        similarity, _, overlap = score_and_gradient(
            searched.fixed.samples(1, 50_000, settings.seed),
            searched.cells[1],
            joined([as_searched, around(as_searched, PERTURBED_MM)]),
            normalised=True,
            gradient=False,
        )
        run.report(1.0)
    transform = _mri_to_ct(heads, final)
    margin = float(score[0] - score[1]) if len(score) > 1 else None
    moved_mm, moved_deg = _moved(mri, start, transform) if settings.search == "local" else (None, None)
    evidence = PoseEvidence(
        similarity_nmi=float(similarity[0]),
        margin_nats=margin,
        agreement_mm=agreement,
        perturbed_margin_nmi=float(similarity[0] - similarity[1:].max()),
        overlap=float(overlap[0]),
        thinnest_mm=_thinnest_mm(ct, mri),
        thickest_voxel_mm=_thickest_mm(ct, mri),
        mirrored_margin_nats=float(score[0]) - mirrored,
        sampling_error_mm=sampling,
        lever=heads.lever,
        inner_apart_mm=inner_apart,
        from_start_mm=moved_mm,
        from_start_deg=moved_deg,
    )
    return Registration(
        transform=transform,
        affine=None if fitted is None else _mri_to_ct_affine(heads, fitted),
        evidence=evidence,
        escalated=passes > 1,
        iterations=run.iterations,
        timings_s=run.timings_s,
        device=backend.name,
    )


def _moved(mri: Volume, start: RigidTransform | None, found: RigidTransform) -> tuple[float, float]:
    """Return how far a pose is from its start: at the middle of the MRI, mm, and as an angle, degrees."""
    change = (start or RigidTransform.identity()).inverse() @ found
    return float(np.linalg.norm(change.shift_at(mri.grid.centre_lps_mm))), change.angle_deg


def _thinnest_mm(ct: Volume, mri: Volume) -> float:
    return min(*ct.grid.extent_ijk_mm, *mri.grid.extent_ijk_mm)


def _thickest_mm(ct: Volume, mri: Volume) -> float:
    return max(*ct.grid.spacing_ijk_mm, *mri.grid.spacing_ijk_mm)


def _mri_to_ct_affine(heads: PreparedPair, pose: Poses) -> AffineTransform:
    """Return the first of the poses, with any matrix, as a transform from MRI to CT points."""
    linear = pose.rotation[0]
    found = AffineTransform(affine(linear, pose.centre[0] - linear @ heads.fixed.centre_lps_mm))
    return found.inverse() if heads.ct_is_fixed else found


def _starts(heads: PreparedPair, start: RigidTransform | None, alone: bool) -> Poses:
    """Return the poses to try in addition to the search: that of the headers unless `alone`, and the caller's start."""
    transforms = [*([] if alone else [RigidTransform.identity()]), *([start] if start is not None else [])]
    centre = heads.fixed.centre_lps_mm
    transforms = [t.inverse() if heads.ct_is_fixed else t for t in transforms]
    return Poses(np.stack([t.rotation for t in transforms]), np.stack([t.apply(centre) for t in transforms]))


def _mri_to_ct(heads: PreparedPair, pose: Poses) -> RigidTransform:
    """Return the first of the poses as a transform from MRI to CT points."""
    centre = heads.fixed.centre_lps_mm
    found = RigidTransform.about_centre(pose.rotation[0], pose.centre[0] - centre, centre)
    return found.inverse() if heads.ct_is_fixed else found
