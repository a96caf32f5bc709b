"""The main job from arrays to arrays: register, resample, fuse, judge. No files, no user interface."""

from __future__ import annotations

import platform
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import SimpleITK as sitk

from BrainFusionLib import intensity
from BrainFusionLib.device import pick_device, use_threads
from BrainFusionLib.errors import RegistrationError, SettingsError
from BrainFusionLib.fusion.method import Fuser
from BrainFusionLib.fusion.methods import prepare
from BrainFusionLib.metrics import Fidelity, fidelity
from BrainFusionLib.progress import Cancel, Progress, stop_if
from BrainFusionLib.settings import Settings
from BrainFusionLib.transform import AffineTransform, RigidTransform, Transform, told
from BrainFusionLib.verdict.judge import Verdict, judge
from BrainFusionLib.version import __version__
from BrainFusionLib.volume import Volume, VoxelArray

if TYPE_CHECKING:
    import torch

    from BrainFusionLib.verdict.local import LocalErrors

WARNING = "for research and planning review, not for diagnosis"

# With less of the MRI's head than this covered by tissue of the CT, there is nothing to fuse.
LEAST_COVERAGE = 0.05


@dataclass(frozen=True)
class FusionResult:
    """What `fuse` gives back.

    Attributes
    ----------
    fused
        On the MRI's grid, in the MRI's intensity scale, bone above it.
    ct_in_mri
        The CT on the MRI's grid, whole Hounsfield units, -1000 outside its field of view.
    transform
        Takes MRI points to CT points, LPS mm. Rigid unless another model was asked for, or another transform was given.
    rigid
        The rigid transform: the same, or the one beside a similarity or affine one.
    verdict
        How far to trust it.
    local_errors
        How far parts of the CT would have to move to fit better.
    alpha
        On the MRI's grid: the weight of the CT, 0 to 1, that the network chose; ``None`` where the rule or the network
        has none.
    details
        What `to_dict` adds: quality, timings, versions, intensity map, settings.
    """

    fused: Volume
    ct_in_mri: Volume
    transform: Transform
    rigid: RigidTransform
    verdict: Verdict
    alpha: Volume | None
    details: dict[str, Any]
    local_errors: LocalErrors | None = None

    def to_dict(self) -> dict[str, Any]:
        """Return everything but the voxels as plain values: the content of ``result.json``."""
        return {
            "warning": WARNING,
            "verdict": self.verdict.to_dict(),
            "transform": told(self.transform, self.rigid, self.fused.grid.centre_lps_mm),
            **self.details,
        }


def fuse(
    ct: Volume,
    mri: Volume,
    settings: Settings | None = None,
    *,
    start: RigidTransform | None = None,
    transform: Transform | None = None,
    check: bool = True,
    mri_mask: Volume | None = None,
    progress: Progress | None = None,
    cancel: Cancel | None = None,
) -> FusionResult:
    """Register a CT to an MRI of the same head and fuse the two.

    Parameters
    ----------
    ct
        Hounsfield units.
    mri
        Any sequence; its grid is the result's.
    start
        A starting pose to try besides all others.
    transform
        Use this transform, rigid or affine, as it is.
    check
        Whether a registration says how far a given transform is from what that finds; else the verdict is amber at
        best.
    mri_mask
        On the MRI's grid, above 0 in the region that matters most to the registration.
    progress
        Called with ``(stage, fraction)``; stages are ``registration``, ``resampling``, ``fusion``, ``checking``.
    cancel
        Asked some times a second; when it says yes, `Cancelled` is raised.

    Raises
    ------
    ImageContentError
        The volumes cannot be a CT in Hounsfield units and an MRI, or the mask is empty.
    GeometryError
        The mask is not on the MRI's grid.
    RegistrationError
        The two do not fit on each other; the best pose found is attached to the error.
    SettingsError, WeightsError, MissingDependencyError
        The rule, the weights or the device cannot be had; a mask was given, and a transform, too.
    Cancelled
        `cancel` said yes.
    """
    settings = settings or Settings()
    # Whatever can be refused is refused before the minutes of work, not after.
    device = pick_device(settings.device)
    fuser = prepare(settings.fusion, device)
    intensity.check_pair(ct, mri)
    if mri_mask is not None:
        if transform is not None:
            raise SettingsError(
                f"the mask {mri_mask.name} is for the registration, and the transform is given: leave one of them away"
            )
        intensity.check_mask(mri_mask, mri)
    with use_threads(settings.threads):
        return _fuse(ct, mri, settings, fuser, device, start, transform, check, mri_mask, progress, cancel)


def _fuse(
    ct: Volume,
    mri: Volume,
    settings: Settings,
    fuser: Fuser,
    device: torch.device,
    start: RigidTransform | None,
    transform: Transform | None,
    check: bool,
    mri_mask: Volume | None,
    progress: Progress | None,
    cancel: Cancel | None,
) -> FusionResult:
    clock = _Clock(progress, cancel)
    registration, given = None, None
    notes = [f"{v.name}: {note}" for v in (ct, mri) for note in v.notes]
    if transform is None:
        from BrainFusionLib.registration import register

        with clock.stage("registration"):
            registration = register(
                ct,
                mri,
                settings.registration,
                start=start,
                mri_mask=mri_mask,
                device=str(device),
                progress=progress,
                cancel=cancel,
            )
        rigid = registration.transform
        transform = registration.affine or rigid
    elif isinstance(transform, RigidTransform):
        rigid = transform
    else:
        rigid = transform.nearest_rigid(mri.grid.centre_lps_mm)
    if isinstance(transform, AffineTransform):
        notes.append(not_rigid(transform, given=registration is None))

    from BrainFusionLib.resample import resample_onto
    from BrainFusionLib.verdict.given import check_given
    from BrainFusionLib.verdict.local import local_errors
    from BrainFusionLib.verdict.skull import skull_fit

    with clock.stage("resampling"):
        pulled = resample_onto(ct, mri.grid, transform, fill=intensity.AIR_HU, device=device)
        # A CT number is a whole number of Hounsfield units; so the stored CT is exactly what was fused.
        ct_in_mri = Volume(np.rint(pulled.array_kji), mri.grid, "CT", f"{ct.name} in {mri.name}")
        low, high = scale = intensity.mri_scale(mri.array_kji)
        span = high - low
        coarse_mri = intensity.to_unit(mri.array_kji[::2, ::2, ::2], low, high)
        _check_coverage(ct_in_mri, coarse_mri, ct.name, mri.name, transform)
        pair = intensity.unit_pair(ct_in_mri, mri, scale=scale)
        head = pair.head

    with ThreadPoolExecutor(1) as beside:
        # Beside the fusion, which leaves a core idle at times.
        seen = beside.submit(lambda: (local_errors(ct_in_mri, mri), skull_fit(ct_in_mri, mri, head)))
        with clock.stage("fusion"):
            # Slice by slice along the feet-head axis, whatever way the volume is stored.
            stacks, undo = pair.stacks()
            made = fuser.fuse(stacks, progress, cancel)
            alpha = None if made.alpha is None else undo(made.alpha)
            fused_array = pair.in_mri_scale(undo(made.fused), mri.array_kji)
            fused = Volume(fused_array, mri.grid, "MR", f"{mri.name} fused with {ct.name}")
            truth = _fidelity(fused_array, ct_in_mri, pair)

        with clock.stage("checking"):
            local, skull = seen.result()
            if registration is None and check:
                given = check_given(
                    ct, mri, rigid, settings.registration, device=str(device), progress=clock.under("checking"),
                    cancel=cancel,
                )  # fmt: skip

    details = {
        "case": {"ct": ct.name, "mri": mri.name, **({"mri_mask": mri_mask.name} if mri_mask else {})},
        "rule": settings.fusion.rule,
        "quality": {
            **(registration.to_dict() if registration else {}),
            **({"given": given.to_dict()} if given else {}),
            "skull": skull.to_dict() if skull else None,
            **truth.to_dict(),
        },
        "intensity": {
            "meaning": fuser.meaning,
            "ct_knots_hu": list(intensity.CT_KNOTS_HU),
            "ct_knots_fused": [low + span * u for u in intensity.CT_KNOTS_UNIT],
            "mri_low": low,
            "mri_high": high,
            "window": list(intensity.window_of_fused(low, high)),
        },
        "grid": mri.grid.to_dict(),
        "local_errors": local.to_dict(),
        "notes": notes,
        "timings_s": clock.timings_s,
        "registration_timings_s": registration.timings_s if registration else {},
        "device": str(device),
        "settings": asdict(settings.without_paths()),
        "weights": fuser.weights.name if fuser.weights else None,
        "weights_sha256": fuser.weights.sha256 if fuser.weights else None,
        "versions": versions(),
    }
    weight_map = None if alpha is None else Volume(alpha, mri.grid, None, f"weight of {ct.name} in {fused.name}")
    verdict = judge(registration, local.fit(), skull, given)
    return FusionResult(fused, ct_in_mri, transform, rigid, verdict, weight_map, details, local)


def not_rigid(transform: AffineTransform, *, given: bool) -> str:
    """Return the note that goes with a transform which changes lengths."""
    return (
        f"the transform {'given' if given else 'asked for'} is not rigid but {transform.kind}: lengths and angles in "
        "the CT were changed to fit the MRI"
    )


def versions() -> dict[str, str]:
    """Return the versions of everything that has a part in a result."""
    import torch

    return {
        "brainfusion": __version__,
        "python": platform.python_version(),
        "numpy": np.__version__,
        "torch": str(torch.__version__),
        "SimpleITK": str(sitk.Version.VersionString()),
        "platform": platform.platform(),
    }


def _check_coverage(ct_in_mri: Volume, mri_unit: VoxelArray, ct_name: str, mri_name: str, transform: Transform) -> None:
    """Refuse a pose, found or given, in which the two heads do not lie on each other."""
    head = mri_unit > 0.1
    tissue = ct_in_mri.array_kji[::2, ::2, ::2] > intensity.HEAD_THRESHOLD_HU
    covered = float(tissue[head].mean()) if head.any() else 0.0
    if covered < LEAST_COVERAGE:
        raise RegistrationError(
            f"the two heads do not lie on each other: the CT {ct_name} covers {100 * covered:.0f} % of the head in "
            f"{mri_name}. Register them (leave --no-register away), or check the transform and the volumes.",
            transform,
        )


def _fidelity(fused: VoxelArray, ct_in_mri: Volume, pair: intensity.UnitPair) -> Fidelity:
    """Measure the fused volume as it will be written: read back from the MRI's scale."""
    fused_unit = pair.on_unit_scale(fused)
    bone = pair.bone_weight == 1
    tissue = (pair.bone_weight == 0) & (pair.mri_unit > 0.1)
    return fidelity(
        fused_unit,
        pair.ct_unit,
        pair.mri_unit,
        bone=bone,
        soft_tissue=tissue,
        fused_hu_in_bone=intensity.hu_from_unit(fused_unit[bone]),
        ct_hu_in_bone=ct_in_mri.array_kji[bone],
    )


class _Clock:
    """Times the stages, and asks at each whether to go on."""

    def __init__(self, progress: Progress | None, cancel: Cancel | None) -> None:
        self.timings_s: dict[str, float] = {}
        self._progress = progress
        self._cancel = cancel

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        self._tell(name, 0.0)
        began = time.perf_counter()
        yield
        self.timings_s[name] = time.perf_counter() - began
        self._tell(name, 1.0)

    def under(self, name: str) -> Progress:
        """Return a progress that books what it is told under the name of a stage."""
        return lambda _, fraction: self._tell(name, fraction)

    def _tell(self, name: str, fraction: float) -> None:
        stop_if(self._cancel)
        if self._progress is not None:
            self._progress(name, fraction)
