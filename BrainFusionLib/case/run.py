"""One case from a request and its volumes to a result, step by step. No files, no user interface.

Nothing here loads torch or SimpleITK before a case is run.
"""

from __future__ import annotations

import platform
import sys
import time
from collections.abc import Callable
from concurrent.futures import Executor, ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import cache, partial
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np

from BrainFusionLib import intensity, kept
from BrainFusionLib.acquisition import pair_acquisition
from BrainFusionLib.arguments import checked
from BrainFusionLib.case.clock import Clock
from BrainFusionLib.case.fusing import MRI_TISSUE, Fused, fuse_sources
from BrainFusionLib.case.measuring import Measured, bone_of, error_map_of, local_evidence
from BrainFusionLib.case.names import VolumeNames
from BrainFusionLib.case.output import Sources, check_output, output_note, sources_on_output
from BrainFusionLib.case.request import Inputs, Request
from BrainFusionLib.case.result import Output, Pose, Provenance, Result
from BrainFusionLib.case.values import notes_of, put_right
from BrainFusionLib.device import pick_device, threads, use_threads
from BrainFusionLib.errors import RegistrationError, Remedy, SettingsError
from BrainFusionLib.evidence import BrainAlignment, Evidence, GivenPose, PoseEvidence
from BrainFusionLib.intensity.inside import FindInside, InsideSkull, inside_skull
from BrainFusionLib.progress import Cancel, Progress, stop_if
from BrainFusionLib.transform import RigidTransform, Transform
from BrainFusionLib.verdict.given import REFUSED, compared
from BrainFusionLib.verdict.headers import turned_deg
from BrainFusionLib.verdict.judge import judge, refusal
from BrainFusionLib.version import __version__
from BrainFusionLib.volume import AIR_HU, BoolArray, Volume, VoxelArray, axial_stack

if TYPE_CHECKING:
    from BrainFusionLib.fusion.method import Fuser
    from BrainFusionLib.registration import Registration


R = TypeVar("R")
# Volumes thinner than this are slabs: the right pose of one of 32 mm was not among those searched.
SLAB_MM = 50.0


@checked
def run(request: Request, inputs: Inputs, progress: Progress | None = None, cancel: Cancel | None = None) -> Result:
    """Run one case: register, resample, fuse, judge.

    Parameters
    ----------
    request
        The request.
    inputs
        The volumes of the request. They are not changed.
    progress
        Called with ``(stage, fraction)``; stages are ``registration``, ``resampling``, ``fusion``, ``checking``.
    cancel
        Called a few times a second; when it returns true, `Cancelled` is raised.

    Returns
    -------
    Result
        In its request, the weights are pinned by their sha256.

    Raises
    ------
    ImageContentError
        The volumes cannot be a CT in Hounsfield units and an MRI, or the registration mask is empty.
    GeometryError
        The mask is not on the MRI's grid, or the volumes on the output grid would take too much memory.
    RegistrationError
        The best pose found is refused; it is attached to the error.
    SettingsError, WeightsError, MissingDependencyError
        The method, the weights or the device is not available, or both a mask and a transform were given.
    Cancelled
        `cancel` returned true.
    """
    with kept.job(inputs.ct, inputs.mri):
        return _run(request, inputs, Clock(progress, cancel))


def _run(request: Request, inputs: Inputs, clock: Clock) -> Result:
    inputs = put_right(request, inputs)
    request, fuser, device = _ready(request, inputs)
    with use_threads(request.settings.threads), ThreadPoolExecutor(1) as pool:
        # Beside registration and fusion, which do not always use all cores.
        inside = _beside(pool, inside_skull, inputs.ct)
        pose, registration, brain = _posed(request, inputs, inside, device, clock)
        pulled = _resampled(inputs, pose, registration, device, clock)
        measuring = _beside(pool, local_evidence, pulled.ct_in_mri, pulled.head, inputs, inside, pose)
        if registration is not None and refusal(Evidence(pose=registration.evidence)) is not None:
            _refuse(_with_images(registration.evidence, measuring()), inputs, pose.transform)
        fused = None if fuser is None else _fused(fuser, request, inputs, pose, pulled, device, clock)
        measured, given = _checked(request, inputs, pose, measuring, device, clock)
    landmarks = None if request.landmarks is None else request.landmarks.residuals(pose.transform)
    evidence = Evidence(
        pose=None if registration is None else registration.evidence,
        given=given,
        coverage=pulled.coverage,
        turned_deg=turned_deg(pose.rigid),
        sides_assumed=not (inputs.ct.is_oriented or inputs.mri.is_oriented),
        acquisition=pair_acquisition(inputs.ct.acquisition, inputs.mri.acquisition),
        local=measured.local,
        skull=measured.skull,
        inside=measured.inside,
        brain=brain,
        brain_shift=measured.brain_shift,
        scale=measured.scale,
        distortion=measured.distortion,
        landmarks=None if landmarks is None else landmarks.summary,
    )
    output, grid = request.settings.output, None if fused is None else fused.volumes.fused.grid
    notes = notes_of(request, inputs, pose)
    if grid is not None and not output.is_mris:
        notes = (*notes, output_note(output, grid, pose))
    verdict = judge(evidence)
    return Result(
        request=request,
        pose=pose,
        verdict=verdict,
        evidence=evidence,
        grid=inputs.mri.grid,
        provenance=_provenance(registration, fuser, device, clock),
        fidelity=None if fused is None else fused.fidelity,
        intensity=None if fused is None else fused.intensity,
        landmarks=landmarks,
        error_map=error_map_of(verdict, evidence, measured, inputs, inside, pose),
        bone=bone_of(pulled.ct_in_mri, pulled.head, inside, pose) if request.settings.bone else None,
        notes=notes,
        volumes=None if fused is None else fused.volumes,
        output=Output.of(output.reference, grid),
    )


def _beside(pool: Executor, work: Callable[..., R], *given: Any) -> Callable[[], R]:
    """Start work in another thread, if there is to be one, and return what waits for its result, always the same."""
    return pool.submit(work, *given).result if threads() > 1 else cache(partial(work, *given))


# --- the steps -----------------------------------------------------------------------------------------------------


def _ready(request: Request, inputs: Inputs) -> tuple[Request, Fuser | None, str]:
    """Check everything that can be checked before the work starts, and build the method once."""
    if request.given is not None and inputs.mri_mask is not None:
        raise SettingsError(
            f"the mask {inputs.mri_mask.name} is only used for registration, but the pose was given.",
            remedy=Remedy.OMIT_MASK_OR_TRANSFORM,
        )
    if request.given is not None and request.settings.registration.align == "brain":
        raise SettingsError("the pose was given, and is used unchanged: it cannot be aligned to the brain.")
    if request.given is not None and request.start is not None:
        raise SettingsError("a start and a transform were given, but a transform is used unchanged. Leave out one.")
    device = pick_device(request.settings.device)
    fuser = None
    if request.fuse:
        from BrainFusionLib.fusion.methods import pinned, prepare

        request = replace(request, settings=replace(request.settings, fusion=pinned(request.settings.fusion)))
        fuser = prepare(request.settings.fusion, device)
        check_output(request.settings, inputs, request.given)
    checked = "checked", kept.key_of(inputs.mri), request.stated
    kept.of(inputs.ct, checked, lambda: intensity.check_pair(inputs.ct, inputs.mri, request.stated))
    if inputs.mri_mask is not None:
        intensity.check_mask(inputs.mri_mask, inputs.mri)
    return request, fuser, device


def _posed(
    request: Request, inputs: Inputs, inside: FindInside, device: str, clock: Clock
) -> tuple[Pose, Registration | None, BrainAlignment | None]:
    """Register the pair, and align it to the brain if that is requested, or use the given pose."""
    centre = inputs.mri.grid.centre_lps_mm
    if request.given is not None:
        given = request.given
        rigid = given if isinstance(given, RigidTransform) else given.nearest_rigid(centre)
        return Pose(given, rigid, "given", given.describe(centre)), None, None

    from BrainFusionLib.registration import register

    with clock.stage("registration"):
        found = register(
            inputs.ct, inputs.mri, request.settings.registration,
            start=request.start, mri_mask=inputs.mri_mask, inside=inside, device=device,
            progress=clock.progress, cancel=clock.cancel,
        )  # fmt: skip
        transform = found.affine or found.transform
        pose, brain = Pose(transform, found.transform, "registered", transform.describe(centre)), None
        _refuse(Evidence(pose=found.evidence), inputs, found.transform)
        if request.settings.registration.align == "brain":
            pose, brain = _aligned(inputs, pose, inside(), request.settings.registration.seed, clock)
    return pose, found, brain


def _aligned(
    inputs: Inputs, pose: Pose, inside: InsideSkull | None, seed: int, clock: Clock
) -> tuple[Pose, BrainAlignment]:
    """Fit a registered pose to the brain; a fit that is not determined leaves the pose as it is."""
    from BrainFusionLib.registration.brain import align_brain

    fit = None if inside is None else align_brain(inputs.mri, pose.rigid, inside, seed, lambda: stop_if(clock.cancel))
    if fit is None:
        return pose, BrainAlignment(False)
    found = BrainAlignment(fit.is_determined, fit.agreement_mm, fit.centre_mm, fit.worst_mm)
    if not fit.is_determined:
        return pose, found
    movement = fit.transform.describe(inputs.mri.grid.centre_lps_mm)
    return Pose(fit.transform, fit.transform, "registered", movement, skull=pose.rigid), found


@dataclass(frozen=True)
class _Pulled:
    """The CT on the MRI's grid, its head mask, its coverage of the MRI's head, and the MRI values of 0 and 1."""

    ct_in_mri: Volume
    head: BoolArray
    coverage: float
    mri_low: float
    mri_high: float


def _resampled(inputs: Inputs, pose: Pose, registration: Registration | None, device: str, clock: Clock) -> _Pulled:
    """Resample the CT onto the MRI's grid, and refuse a pose in which the two heads do not overlap."""
    from BrainFusionLib.resample import resample_onto

    ct, mri = inputs.ct, inputs.mri
    with clock.stage("resampling"):
        pulled = resample_onto(ct, mri.grid, pose.transform, fill=AIR_HU, device=device)
        # Rounded to whole Hounsfield units, so that the CT stored is exactly the CT fused; in place, but not in the CT.
        hu = pulled.array_kji
        hu = np.rint(hu, out=None if hu is ct.array_kji else hu)
        ct_in_mri = Volume(hu, mri.grid, "CT", VolumeNames(ct.name, mri.name, "mri").ct_on_grid)
        low, high = kept.of(mri, "scale", lambda: intensity.mri_scale(mri.array_kji))
        hu, signal = (axial_stack(array, mri.grid)[0] for array in (ct_in_mri.array_kji, mri.array_kji))
        coverage = _coverage(hu, signal, low, high)
        evidence = None if registration is None else registration.evidence
        _refuse(Evidence(pose=evidence, coverage=coverage), inputs, pose.transform)
        # The table and the head holder are as dense as bone.
        return _Pulled(ct_in_mri, intensity.head_of(ct_in_mri), coverage, low, high)


def _fused(
    fuser: Fuser, request: Request, inputs: Inputs, pose: Pose, pulled: _Pulled, device: str, clock: Clock
) -> Fused:
    """Fuse on the output grid: the MRI's own, unless another was asked for."""
    output, scale = request.settings.output, (pulled.mri_low, pulled.mri_high)
    with clock.stage("fusion"):
        on_grid = Sources(
            pulled.ct_in_mri, inputs.mri, pulled.head, VolumeNames(inputs.ct.name, inputs.mri.name, output.reference)
        )
        if not output.is_mris:
            on_grid = sources_on_output(output, inputs, pose.transform, scale[0], device)
        return fuse_sources(fuser, inputs, on_grid, scale, clock)


def _checked(
    request: Request,
    inputs: Inputs,
    pose: Pose,
    measuring: Callable[[], Measured],
    device: str,
    clock: Clock,
) -> tuple[Measured, GivenPose | None]:
    """Gather the evidence beyond that of the registration; compare a given pose with a registration."""
    with clock.stage("checking"):
        measured = measuring()
        given = None
        if pose.origin == "given" and request.check:
            given = _check_given(request, inputs, pose, measured, device, clock)
        return measured, given


def _check_given(
    request: Request, inputs: Inputs, pose: Pose, measured: Measured, device: str, clock: Clock
) -> GivenPose:
    """Register the pair, and return the distance of the given pose from the result.

    The registration also tries the given pose, so that the two differ only if another pose matches better.
    """
    from BrainFusionLib.registration import register

    settings = replace(request.settings.registration, search="global")  # a local one would only confirm the pose
    found = register(
        inputs.ct, inputs.mri, settings, start=pose.rigid, device=device,
        progress=clock.under("checking"), cancel=clock.cancel,
    )  # fmt: skip
    if refusal(_with_images(found.evidence, measured)) is not None:
        return REFUSED
    return compared(pose.transform, found.transform, found.evidence, inputs.mri.grid.centre_lps_mm)


# --- parts of the steps --------------------------------------------------------------------------------------------


def _with_images(evidence: PoseEvidence, measured: Measured) -> Evidence:
    """Return what a refusal goes by once the images were looked at."""
    return Evidence(
        pose=evidence, local=measured.local, brain_shift=measured.brain_shift, distortion=measured.distortion
    )


def _refuse(evidence: Evidence, inputs: Inputs, transform: Transform) -> None:
    """Raise if a pose is refused; not yet, if the images, which are not looked at yet, may lift that."""
    refused = refusal(evidence)
    if refused is None or (refused.lifted_by_images and evidence.local is None):
        return
    advice, remedy = "", refused.remedy
    if remedy is None:
        advice = (
            " Check that both show the same part of the same head, and that voxel size and gantry tilt in their "
            "headers are right."
        )
        thin_mm = SLAB_MM if evidence.pose is None else evidence.pose.thinnest_mm
        if thin_mm < SLAB_MM:
            advice += f" One of the volumes is only {thin_mm:.0f} mm thick: the search may have missed the right pose."
            remedy = Remedy.GIVE_ROUGH_START
    raise RegistrationError(
        f"{inputs.mri.name} and {inputs.ct.name} could not be aligned: {refused.text}.{advice}",
        transform,
        remedy=remedy,
    )


def _coverage(ct_hu: VoxelArray, mri: VoxelArray, low: float, high: float) -> float:
    """Return the share of the MRI's head that the CT's tissue covers, from every second voxel along each axis."""
    head = (mri[::2, ::2, ::2] - np.float32(low)) / np.float32(high - low) > MRI_TISSUE
    tissue = ct_hu[::2, ::2, ::2] > intensity.HEAD_THRESHOLD_HU
    return float(tissue[head].mean()) if head.any() else 0.0


def _provenance(registration: Registration | None, fuser: Fuser | None, device: str, clock: Clock) -> Provenance:
    return Provenance(
        date=time.strftime("%Y-%m-%dT%H:%M:%S%z"),
        versions=versions(device != "cpu" or (fuser is not None and fuser.needs_torch)),
        device=device,
        timings_s=clock.timings_s,
        registration_timings_s={} if registration is None else registration.timings_s,
        registration_iterations={} if registration is None else registration.iterations,
        escalated=registration is not None and registration.escalated,
    )


def versions(of_torch: bool = False) -> dict[str, str]:
    """Return the versions of all components involved."""
    torch, sitk = sys.modules["torch"] if of_torch else None, sys.modules.get("SimpleITK")
    return {
        "brainfusion": __version__,
        "python": platform.python_version(),
        "numpy": np.__version__,
        **({} if torch is None else {"torch": str(torch.__version__)}),
        **({} if sitk is None else {"SimpleITK": str(sitk.Version.VersionString())}),
        "platform": platform.platform(),
    }
