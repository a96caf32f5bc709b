"""The order of the stages, and the result."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch

from BrainFusionLib.device import pick_device
from BrainFusionLib.errors import RegistrationError
from BrainFusionLib.geometry import affine
from BrainFusionLib.intensity import check_mask, check_pair
from BrainFusionLib.progress import Cancel, Progress
from BrainFusionLib.registration.confidence import around
from BrainFusionLib.registration.mirror import mirrored_score
from BrainFusionLib.registration.pyramid import LEAST_OVERLAP, Heads, prepare
from BrainFusionLib.registration.similarity import Poses, joined, score_and_gradient
from BrainFusionLib.registration.stages import Run
from BrainFusionLib.settings import RegistrationSettings
from BrainFusionLib.transform import AffineTransform, RigidTransform
from BrainFusionLib.volume import Volume

# What no number of samples takes away, as a share of the thickest voxel edge, for a whole head (docs/measured.md).
MODEL_ERROR = 0.03
# Of 10 errors on simulated heads 9 were between these multiples of the expected one (docs/verdict).
INTERVAL = (0.25, 2.0)
# What refuses a result. On simulated pairs (docs/measured.md, "What is refused") right ones led by 0.08 nats and more,
# refinements of them ended within 0.4 mm, and they beat their mirror image by 0.01 nats and more.
LEAST_MARGIN = 0.03
MOST_DISAGREEMENT_MM = 1.0
MOST_SAMPLING_ERROR_MM = 0.7
# Two heads of different people fit each other about as well as they fit each other's mirror image, and roughly.
LEAST_MIRRORED_MARGIN = 0.015
ROUGH_DISAGREEMENT_MM = 0.4
ROUGH_SAMPLING_ERROR_MM = 0.15
# How far away, mm, poses are that the result is compared with.
PERTURBED_MM = 2.0
# Data with left and right exchanged fitted better mirrored by 0.12 nats and more.
MIRRORED_MARGIN = -0.05


@dataclass(frozen=True)
class RegistrationResult:
    """The pose, and what speaks for it.

    Attributes
    ----------
    transform
        Takes MRI points to CT points, LPS mm.
    similarity
        Normalised mutual information at the result: 1 for independent images, 2 for images that determine each other.
    margin
        Mutual information (nats, at 2 mm) by which the result beats the best pose elsewhere; ``None`` when every
        candidate ended in the same place, which is the best that can happen.
    agreement_mm
        How far apart two refinements on different random samples ended, at the worst of six points around the head.
        The result is the middle of the two.
    perturbed_margin
        Normalised mutual information by which the result beats the best of 12 poses 2 mm away, on samples that the
        refinement has not seen. Below zero, the result is not even the best pose nearby.
    overlap
        Share of the smaller head, with 12 mm around it, that lies inside the other volume.
    thinnest_mm
        The shortest edge of the two volumes: how thick a slab is.
    mirrored_margin
        Mutual information (nats, at 2 mm) by which the result beats the best pose with left and right exchanged. Below
        zero, one of the headers lies.
    sampling_error_mm
        Error to be expected from the choice of samples alone (`confidence.sampling_error_mm`).
    expected_error_mm, interval_mm
        Typical error over the head, and the range in which 9 of 10 such errors were, on simulated heads: they share
        their edges, so a real pair's error is larger.
    affine
        The similarity or affine transform, where one was asked for, besides the rigid one.
    escalated
        Whether a second, thorough search was needed.
    iterations
        Of each stage of climbing.
    timings_s
        Wall-clock seconds of each stage.
    device
        Where it ran.
    """

    transform: RigidTransform
    similarity: float
    margin: float | None
    agreement_mm: float
    perturbed_margin: float
    overlap: float
    thinnest_mm: float
    mirrored_margin: float
    sampling_error_mm: float
    expected_error_mm: float
    interval_mm: tuple[float, float]
    affine: AffineTransform | None
    escalated: bool
    iterations: dict[str, int]
    timings_s: dict[str, float]
    device: str

    @property
    def mirrored(self) -> bool:
        """Whether the data fit clearly better with left and right exchanged."""
        return self.mirrored_margin < MIRRORED_MARGIN

    def to_dict(self) -> dict[str, Any]:
        """Return plain values, for JSON."""
        return {
            "similarity_nmi": self.similarity,
            "margin_nats": self.margin,
            "agreement_mm": self.agreement_mm,
            "perturbed_margin_nmi": self.perturbed_margin,
            "overlap": self.overlap,
            "thinnest_mm": self.thinnest_mm,
            "mirrored_margin_nats": self.mirrored_margin,
            "mirrored": self.mirrored,
            "sampling_error_mm": self.sampling_error_mm,
            "expected_error_mm": self.expected_error_mm,
            "interval_mm": list(self.interval_mm),
            "iterations": self.iterations,
            "escalated": self.escalated,
        }


def register(
    ct: Volume,
    mri: Volume,
    settings: RegistrationSettings | None = None,
    *,
    start: RigidTransform | None = None,
    mri_mask: Volume | None = None,
    device: str = "auto",
    progress: Progress | None = None,
    cancel: Cancel | None = None,
) -> RegistrationResult:
    """Find the rigid transform that takes points of the MRI to the same anatomy in the CT.

    No starting pose is needed, and the two headers need have nothing in common.

    Parameters
    ----------
    ct
        Hounsfield units. Table, head holder and frame may be in view.
    mri
        Any sequence, any scale.
    start
        A pose to try besides those that the search finds; a wrong one does no harm.
    mri_mask
        On the MRI's grid, above 0 in the region that matters: the last refinement looks nowhere else.
    device
        ``"auto"``, ``"cpu"``, ``"cuda"``; on ``"mps"``, which has no float64, the CPU is used.
    progress
        Called with ``("registration", fraction)``.
    cancel
        Asked some times a second; when it says yes, `Cancelled` is raised.

    Raises
    ------
    ImageContentError
        The volumes cannot be a CT in Hounsfield units and an MRI; see `intensity.check_pair`.
    RegistrationError
        The two do not fit on each other: another patient, another part of the body, too little in common. The best pose
        found is attached to the error.
    SettingsError
        The device is not on this machine.
    Cancelled
        `cancel` said yes.
    """
    settings = settings or RegistrationSettings()
    check_pair(ct, mri)
    chosen = pick_device(device)
    run = Run(settings, torch.device("cpu") if chosen.type == "mps" else chosen, progress, cancel)
    with torch.inference_mode(), _one_thread_on(run.device):
        run.tell(0.0)
        heads = prepare(ct, mri, run.device, None if mri_mask is None else check_mask(mri_mask, mri), run.check)
        run.lap("prepare", 0.15)
        starts = _starts(heads, start)
        poses, score, looks = run.find(heads, starts)
        mirrored = mirrored_score(heads, poses[:1], settings.seed, run.check)
        pose, seen = poses[:1], heads
        if mri_mask is not None and heads.ct_is_fixed:  # only what is sampled can be chosen by a mask
            pose = pose.inverse(heads.fixed.centre_lps_mm, heads.moving.centre_lps_mm)
            heads = heads.with_mri_fixed(_mri_to_ct(seen, poses).moving_from_fixed_lps)
        final, agreement, sampling = run.refine(heads, pose)
        fitted = None if settings.model == "rigid" else run.fit(heads, final, settings.model)
        ended = final
        if seen is not heads:  # the overlap is that of the smaller head, whichever was sampled last
            ended = final.inverse(heads.fixed.centre_lps_mm, heads.moving.centre_lps_mm)
        similarity, _, overlap = score_and_gradient(
            seen.fixed.samples(1, 50_000, settings.seed),
            seen.cells[1],
            joined([ended, around(ended, PERTURBED_MM)]),
            normalised=True,
            gradient=False,
        )
        run.tell(1.0)
    transform = _mri_to_ct(heads, final)
    margin = float(score[0] - score[1]) if len(score) > 1 else None
    expected = math.hypot(sampling, MODEL_ERROR * _thickest_mm(ct, mri) * heads.lever)
    result = RegistrationResult(
        transform=transform,
        similarity=float(similarity[0]),
        margin=margin,
        agreement_mm=agreement,
        overlap=float(overlap[0]),
        perturbed_margin=float(similarity[0] - similarity[1:].max()),
        thinnest_mm=_thinnest_mm(ct, mri),
        mirrored_margin=float(score[0]) - mirrored,
        sampling_error_mm=sampling,
        expected_error_mm=expected,
        interval_mm=(INTERVAL[0] * expected, INTERVAL[1] * expected),
        affine=None if fitted is None else _mri_to_ct_affine(heads, fitted),
        escalated=looks > 1,
        iterations=run.iterations,
        timings_s=run.timings_s,
        device=str(run.device),
    )
    _refuse_what_is_none(result, ct, mri)
    return result


def _refuse_what_is_none(result: RegistrationResult, ct: Volume, mri: Volume) -> None:
    """Refuse a result which says itself that the two volumes do not show the same part of the same head."""
    advice = "Check that both are of the same head and of the same part of it."
    if result.overlap < LEAST_OVERLAP:
        reason = f"in the best pose found only {100 * result.overlap:.0f} % of the smaller head lies inside the other"
    elif result.margin is not None and result.margin < LEAST_MARGIN:
        reason = (
            f"no pose stands out: the best one leads by {result.margin:.3f} nats of mutual information, and "
            f"{LEAST_MARGIN} are wanted"
        )
    elif result.mirrored:
        return  # said by the verdict: the scatter of a mirrored fit says nothing about whose head it is
    elif not result.agreement_mm < MOST_DISAGREEMENT_MM:
        reason = (
            f"two refinements on different samples ended {result.agreement_mm:.1f} mm apart, and "
            f"{MOST_DISAGREEMENT_MM:g} mm are allowed"
        )
    elif not result.sampling_error_mm < MOST_SAMPLING_ERROR_MM:
        reason = (
            "the pose found is no clear optimum: other samples of the same volumes would move it by "
            f"{min(result.sampling_error_mm, 100):.0f} mm or more, and {MOST_SAMPLING_ERROR_MM:g} mm are allowed"
        )
    elif _merely_alike(result):
        reason = (
            "they fit hardly better than with left and right exchanged, and not closely "
            f"({result.mirrored_margin:.3f} nats, {result.agreement_mm:.2f} mm between two refinements): heads that "
            "are merely alike"
        )
    else:
        return
    raise RegistrationError(
        f"{mri.name} and {ct.name} do not fit on each other: {reason}. {advice}",
        result.transform,
    )


def _merely_alike(result: RegistrationResult) -> bool:
    """Say whether two heads fit as those of different people do: roughly, and about as well mirrored."""
    apart = result.agreement_mm > ROUGH_DISAGREEMENT_MM
    scattered = result.sampling_error_mm > ROUGH_SAMPLING_ERROR_MM
    if result.mirrored_margin < LEAST_MIRRORED_MARGIN:
        return apart or scattered
    return apart and scattered


def _thinnest_mm(ct: Volume, mri: Volume) -> float:
    return min(*ct.grid.extent_ijk_mm, *mri.grid.extent_ijk_mm)


def _thickest_mm(ct: Volume, mri: Volume) -> float:
    return max(*ct.grid.spacing_ijk_mm, *mri.grid.spacing_ijk_mm)


def _mri_to_ct_affine(heads: Heads, pose: Poses) -> AffineTransform:
    """Return the first of the poses, whatever its matrix, as a transform from MRI to CT points."""
    centre = heads.fixed.centre_lps_mm.cpu().numpy()
    linear = pose.rotation[0].cpu().numpy()
    found = AffineTransform(affine(linear, pose.centre[0].cpu().numpy() - linear @ centre))
    return found.inverse() if heads.ct_is_fixed else found


@contextmanager
def _one_thread_on(device: torch.device) -> Iterator[None]:
    """Keep a CPU's work on one thread: its pieces are so small that threads spend more time waiting than working.

    The number of threads belongs to the process, so two registrations at once need two processes. Measured on two
    shared cores: 18 s of CPU time with one thread, 36 s with two, and no sooner done.
    """
    before = torch.get_num_threads()
    if device.type == "cpu":
        torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _starts(heads: Heads, start: RigidTransform | None) -> Poses:
    """Return the poses to try besides the search's: the headers as they are, and the caller's own."""
    transforms = [RigidTransform.identity(), *([start] if start is not None else [])]
    centre = heads.fixed.centre_lps_mm
    transforms = [t.inverse() if heads.ct_is_fixed else t for t in transforms]
    return Poses(
        torch.stack([torch.tensor(t.rotation, device=centre.device) for t in transforms]),
        torch.stack([torch.tensor(t.apply(centre.cpu().numpy()), device=centre.device) for t in transforms]),
    )


def _mri_to_ct(heads: Heads, pose: Poses) -> RigidTransform:
    """Return the first of the poses as a transform from MRI to CT points."""
    centre = heads.fixed.centre_lps_mm.cpu().numpy()
    shift = pose.centre[0].cpu().numpy() - centre
    found = RigidTransform.about_centre(pose.rotation[0].cpu().numpy(), shift, centre)
    return found.inverse() if heads.ct_is_fixed else found
