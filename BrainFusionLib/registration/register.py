"""The order of the stages, and the result."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch

from BrainFusionLib.device import pick_device
from BrainFusionLib.errors import RegistrationError
from BrainFusionLib.intensity import check_pair
from BrainFusionLib.progress import Cancel, Progress, stop_if
from BrainFusionLib.registration.confidence import corner_distance_mm, distinct, midpoint
from BrainFusionLib.registration.pyramid import Heads, prepare
from BrainFusionLib.registration.refine import climb
from BrainFusionLib.registration.search import even_rotations, search
from BrainFusionLib.registration.similarity import Poses, joined, score_and_gradient
from BrainFusionLib.settings import RegistrationSettings
from BrainFusionLib.transform import RigidTransform
from BrainFusionLib.volume import Volume

STAGE = "registration"

# Less of the MRI's head than this inside the CT is no registration, whatever the score says.
MINIMUM_OVERLAP = 0.08
# Mutual information (nats, at 2 mm) by which the best pose should beat the best different one. On simulated heads the
# right pose leads by 0.16 to 0.34; below this the search is repeated, harder.
SAFE_MARGIN = 0.05


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
    overlap
        Share of the MRI's head, with 12 mm around it, that lies inside the CT's field of view.
    escalated
        Whether a second, thorough search was needed.
    timings_s
        Wall-clock seconds of each stage.
    device
        Where it ran.
    """

    transform: RigidTransform
    similarity: float
    margin: float | None
    agreement_mm: float
    overlap: float
    escalated: bool
    timings_s: dict[str, float]
    device: str

    def to_dict(self) -> dict[str, Any]:
        """Return plain values, for JSON."""
        return {
            "similarity_nmi": self.similarity,
            "margin_nats": self.margin,
            "agreement_mm": self.agreement_mm,
            "overlap": self.overlap,
            "escalated": self.escalated,
        }


def register(
    ct: Volume,
    mri: Volume,
    settings: RegistrationSettings | None = None,
    *,
    start: RigidTransform | None = None,
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
        The heads hardly overlap in the best pose found, which is attached to the error.
    SettingsError
        The device is not on this machine.
    Cancelled
        `cancel` said yes.
    """
    settings = settings or RegistrationSettings()
    check_pair(ct, mri)
    chosen = pick_device(device)
    run = _Run(settings, torch.device("cpu") if chosen.type == "mps" else chosen, progress, cancel)
    with torch.inference_mode(), _one_thread_on(run.device):
        run.tell(0.0)
        heads = prepare(ct, mri, run.device)
        run.lap("prepare", 0.15)
        starts = _starts(heads, start)
        poses, score = run.choose(heads, starts, settings.rotations, settings.candidates)
        escalate = settings.escalate and len(poses) > 1 and float(score[0] - score[1]) < SAFE_MARGIN
        if escalate:
            poses, score = run.choose(heads, joined([starts, poses]), 900, 160, again=True)
        final, agreement = run.refine(heads, poses[:1])
        similarity, _, overlap = score_and_gradient(
            heads.samples(1, 50_000, settings.seed), heads.ct_bins[1], final, normalised=True, gradient=False
        )
        run.tell(1.0)
    centre = heads.mri_centre_lps_mm.cpu().numpy()
    goes_to = final.centre[0].cpu().numpy()
    transform = RigidTransform.about_centre(final.rotation[0].cpu().numpy(), goes_to - centre, centre)
    if float(overlap) < MINIMUM_OVERLAP:
        raise RegistrationError(
            f"the two heads hardly overlap: in the best pose found, only {100 * float(overlap):.0f} % of the head in "
            f"{mri.name} lies inside {ct.name}. Check that both show the same part of the same head.",
            transform,
        )
    return RegistrationResult(
        transform=transform,
        similarity=float(similarity),
        margin=float(score[0] - score[1]) if len(score) > 1 else None,
        agreement_mm=agreement,
        overlap=float(overlap),
        escalated=escalate,
        timings_s=run.timings_s,
        device=str(run.device),
    )


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
    centre = heads.mri_centre_lps_mm.cpu().numpy()
    device = heads.mri_centre_lps_mm.device
    return Poses(
        torch.stack([torch.tensor(t.rotation, device=device) for t in transforms]),
        torch.stack([torch.tensor(t.apply(centre), device=device) for t in transforms]),
    )


class _Run:
    """One call of `register`: its settings, its clock, and its caller's progress and cancel."""

    def __init__(
        self,
        settings: RegistrationSettings,
        device: torch.device,
        progress: Progress | None,
        cancel: Cancel | None,
    ) -> None:
        self.settings = settings
        self.device = device
        self.timings_s: dict[str, float] = {}
        self._progress = progress
        self._cancel = cancel
        self._since = time.perf_counter()

    def tell(self, fraction: float) -> None:
        self.check()
        if self._progress is not None:
            self._progress(STAGE, fraction)

    def check(self) -> None:
        stop_if(self._cancel)

    def lap(self, name: str, fraction: float) -> None:
        now = time.perf_counter()
        self.timings_s[name] = self.timings_s.get(name, 0.0) + now - self._since
        self._since = now
        self.tell(fraction)

    def choose(
        self, heads: Heads, starts: Poses, rotations: int, candidates: int, *, again: bool = False
    ) -> tuple[Poses, torch.Tensor]:
        """Return up to four distinct poses at 2 mm, best first, and their mutual information.

        The choice is made late: in most failures of simpler schemes the right pose was on the list and was dropped
        where voxels were still too coarse to tell.
        """
        seed = self.settings.seed
        found, _ = search(heads, even_rotations(rotations), per_rotation=2, check=self.check)
        poses = joined([starts, distinct(found, candidates)])
        # The first look has the progress from 0.15 to 0.6, a second one that from 0.6 to 0.85.
        begin, width = (0.6, 0.25) if again else (0.15, 0.45)
        self.lap("search", begin + 0.6 * width)
        # The starts join every level anew, so that a pose which was right cannot be lost to a coarser level's bias.
        for level, samples, first_step_mm, keep, fraction in (
            (3, 2_000, 8.0, max(4, candidates // 3), 0.7),
            (2, 5_000, 3.0, 4, 0.8),
            (1, 16_000, 1.5, 4, 1.0),
        ):
            climbed, score = climb(
                heads.samples(level, samples, seed),
                heads.ct_bins[level],
                poses,
                first_step_mm=first_step_mm,
                tolerance_mm=first_step_mm / 20,
                iterations=18,
                minimum_overlap=MINIMUM_OVERLAP,
                check=self.check,
            )
            order = score.argsort(descending=True, stable=True)
            poses, score = distinct(climbed[order], keep, score[order])
            if level > 1:
                poses = joined([poses, starts])
            self.lap(f"climb {2**level} mm", begin + fraction * width)
        return poses, score

    def refine(self, heads: Heads, pose: Poses) -> tuple[Poses, float]:
        """Return the pose refined at 1 mm, and how far apart two refinements on different samples end, mm.

        Normalised mutual information here: it leans less towards poses with a larger overlap of tissue and air.
        """
        seed = self.settings.seed
        ends: list[Poses] = []
        for half in (0, 1):
            end, _ = climb(
                heads.samples(0, self.settings.samples // 2, seed + 1 + half),
                heads.ct_bins[0],
                pose,
                first_step_mm=0.5,
                tolerance_mm=0.005,
                iterations=30,
                normalised=True,
                minimum_overlap=MINIMUM_OVERLAP,
                check=self.check,
            )
            ends.append(end)
            self.lap("refine 1 mm", 0.92 + 0.07 * half)
        return midpoint(*ends), float(corner_distance_mm(ends[0], ends[1]))
