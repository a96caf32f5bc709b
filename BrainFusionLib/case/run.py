"""The main job from arrays to arrays: register, resample, fuse, judge. No files, no user interface."""

from __future__ import annotations

import platform
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import SimpleITK as sitk

from BrainFusionLib import intensity
from BrainFusionLib.device import pick_device
from BrainFusionLib.errors import RegistrationError, SettingsError
from BrainFusionLib.fusion.fusing import fuse_stacks, weights_for
from BrainFusionLib.fusion.weights import Weights
from BrainFusionLib.metrics import Fidelity, fidelity
from BrainFusionLib.progress import Cancel, Progress, stop_if
from BrainFusionLib.settings import Settings
from BrainFusionLib.transform import AffineTransform, RigidTransform, Transform, told
from BrainFusionLib.verdict.judge import Verdict, judge
from BrainFusionLib.version import __version__
from BrainFusionLib.volume import Volume, VoxelArray, axial_stack

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
    weights = weights_for(settings.fusion)
    device = pick_device(settings.device)
    intensity.check_pair(ct, mri)
    if mri_mask is not None:
        if transform is not None:
            raise SettingsError(
                f"the mask {mri_mask.name} is for the registration, and the transform is given: leave one of them away"
            )
        intensity.check_mask(mri_mask, mri)
    with _threads(settings.threads):
        return _fuse(ct, mri, settings, weights, device, start, transform, check, mri_mask, progress, cancel)


def _fuse(
    ct: Volume,
    mri: Volume,
    settings: Settings,
    weights: Weights | None,
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
        low, high = intensity.mri_scale(mri.array_kji)
        span = high - low
        mri_unit = (mri.array_kji - np.float32(low)) / np.float32(span)
        _check_coverage(ct_in_mri, mri_unit, ct.name, mri.name, transform)
        # The table and the head holder are as dense as bone.
        head = intensity.ct_head_mask(ct_in_mri)

    with ThreadPoolExecutor(1) as beside:
        # Beside the fusion, which leaves a core idle at times.
        seen = beside.submit(lambda: (local_errors(ct_in_mri, mri), skull_fit(ct_in_mri, mri, head)))
        with clock.stage("fusion"):
            ct_unit = intensity.ct_to_unit(ct_in_mri.array_kji)
            bone_weight = intensity.bone_weight(ct_in_mri.array_kji)
            bone_weight *= head
            # Slice by slice along the feet-head axis, whatever way the volume is stored.
            ct_stack, undo = axial_stack(ct_unit, mri.grid)
            mri_stack, _ = axial_stack(mri_unit, mri.grid)
            bone_stack, _ = axial_stack(bone_weight, mri.grid)
            where, _ = axial_stack(head, mri.grid)
            fused_stack, alpha_stack = fuse_stacks(
                ct_stack, mri_stack, bone_stack, settings.fusion, weights,
                where=where, device=device, progress=progress, cancel=cancel,
            )  # fmt: skip
            fused_unit, alpha = undo(fused_stack), None if alpha_stack is None else undo(alpha_stack)
            # Written as a change to the MRI, so that where nothing changes its values stay, to the last bit.
            fused_array: VoxelArray = np.float32(span) * (fused_unit - mri_unit)
            fused_array += mri.array_kji
            fused = Volume(fused_array, mri.grid, "MR", f"{mri.name} fused with {ct.name}")
            truth = _fidelity(fused_array, ct_in_mri, ct_unit, mri_unit, bone_weight, low, span)

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
            "meaning": _meaning(settings.fusion.rule, alpha is not None),
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
        "settings": settings.to_dict(),
        "weights": weights.path.name if weights else None,
        "weights_sha256": weights.manifest.sha256 if weights else None,
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


@contextmanager
def _threads(count: int | None) -> Iterator[None]:
    """Use so many CPU threads (``None``: as many as before), and give the caller's numbers back afterwards."""
    import torch

    before = torch.get_num_threads(), sitk.ProcessObject.GetGlobalDefaultNumberOfThreads()
    if count is not None:
        torch.set_num_threads(count)
        sitk.ProcessObject.SetGlobalDefaultNumberOfThreads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before[0])
        sitk.ProcessObject.SetGlobalDefaultNumberOfThreads(before[1])


def _check_coverage(ct_in_mri: Volume, mri_unit: VoxelArray, ct_name: str, mri_name: str, transform: Transform) -> None:
    """Refuse a pose, found or given, in which the two heads do not lie on each other."""
    head = mri_unit[::2, ::2, ::2] > 0.1
    tissue = ct_in_mri.array_kji[::2, ::2, ::2] > intensity.HEAD_THRESHOLD_HU
    covered = float(tissue[head].mean()) if head.any() else 0.0
    if covered < LEAST_COVERAGE:
        raise RegistrationError(
            f"the two heads do not lie on each other: the CT {ct_name} covers {100 * covered:.0f} % of the head in "
            f"{mri_name}. Register them (leave --no-register away), or check the transform and the volumes.",
            transform,
        )


def _meaning(rule: str, weighted: bool) -> str:
    """Say what the values of a fused volume are."""
    if rule == "bone_over_mri":
        return (
            "the MRI's value outside bone (200 HU and below); the CT through this piecewise-linear map in bone "
            "(300 HU and above); a blend of the two between"
        )
    if weighted:
        return (
            "alpha times the CT through this piecewise-linear map, plus (1 - alpha) times the MRI's value: the CT "
            "where the weight alpha is 1, the MRI, to the last bit, where it is 0"
        )
    return "a mixture of the MRI's value and of the CT through this piecewise-linear map, made by the rule"


def _fidelity(
    fused: VoxelArray,
    ct_in_mri: Volume,
    ct_unit: VoxelArray,
    mri_unit: VoxelArray,
    bone_weight: VoxelArray,
    low: float,
    span: float,
) -> Fidelity:
    """Measure the fused volume as it will be written: read back from the MRI's scale."""
    fused_unit = (fused - np.float32(low)) / np.float32(span)
    bone = bone_weight == 1
    tissue = (bone_weight == 0) & (mri_unit > 0.1)
    return fidelity(
        fused_unit,
        ct_unit,
        mri_unit,
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
