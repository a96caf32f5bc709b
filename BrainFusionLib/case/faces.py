"""`fuse` and `register`: the two functions for most callers, from volumes to a result."""

from __future__ import annotations

from BrainFusionLib.arguments import checked
from BrainFusionLib.case.request import Inputs, Request, Source
from BrainFusionLib.case.result import Result
from BrainFusionLib.case.run import run
from BrainFusionLib.landmarks import Landmarks
from BrainFusionLib.progress import Cancel, Progress
from BrainFusionLib.settings import RegistrationSettings, Settings
from BrainFusionLib.transform import RigidTransform, Transform
from BrainFusionLib.volume import Volume


@checked
def fuse(
    ct: Volume,
    mri: Volume,
    settings: Settings | None = None,
    *,
    start: RigidTransform | None = None,
    transform: Transform | None = None,
    check: bool = True,
    mri_mask: Volume | None = None,
    landmarks: Landmarks | None = None,
    progress: Progress | None = None,
    cancel: Cancel | None = None,
) -> Result:
    """Register a CT to an MRI of the same head and fuse the two.

    Parameters
    ----------
    ct
        Hounsfield units.
    mri
        Any sequence; the fused volume is on its grid unless ``settings.output`` says otherwise.
    settings
        Of registration, fusion, output and device; by default ``Settings()``.
    start
        A starting pose to try in addition to the others.
    transform
        A transform, rigid or affine, to use unchanged instead of registering; maps MRI points to CT points, LPS mm.
    check
        Whether to check a given transform against a registration; if not, the verdict is at best amber.
    mri_mask
        The registration mask, on the MRI's grid, above 0 where the alignment matters most.
    landmarks
        The same points in both images; the result has their residuals. They do not move the pose, unless
        ``landmarks.rigid_fit()`` is given as `start`.
    progress, cancel
        As `run`.

    Returns
    -------
    Result
        With its volumes. Beside a red verdict no error is stated: ``verdict.expected_error_mm``, ``verdict.bound_mm``
        and ``error_map`` are ``None``; the map also where nothing local was measured.

    Raises
    ------
    BrainFusionError
        As `run`.
    """
    request = Request(
        *_sources(ct, mri, mri_mask), settings or Settings(),
        start=start, given=transform, check=check, landmarks=landmarks,
    )  # fmt: skip
    return run(request, Inputs(ct, mri, mri_mask), progress, cancel)


@checked
def register(
    ct: Volume,
    mri: Volume,
    settings: RegistrationSettings | None = None,
    *,
    start: RigidTransform | None = None,
    mri_mask: Volume | None = None,
    landmarks: Landmarks | None = None,
    device: str = "auto",
    progress: Progress | None = None,
    cancel: Cancel | None = None,
) -> Result:
    """Register a CT to an MRI of the same head and judge the pose, as `fuse` does; the result has no volumes.

    Parameters
    ----------
    ct, mri, start, mri_mask, landmarks, progress, cancel
        As `fuse`.
    settings
        Of the registration; by default ``RegistrationSettings()``.
    device
        ``"auto"``, ``"cpu"``, ``"cuda"`` or ``"mps"``.

    Raises
    ------
    BrainFusionError
        As `run`.
    """
    chosen = Settings(registration=settings or RegistrationSettings(), device=device)  # type: ignore[arg-type]
    request = Request(
        *_sources(ct, mri, mri_mask), chosen,
        start=start, fuse=False, landmarks=landmarks,
    )  # fmt: skip
    return run(request, Inputs(ct, mri, mri_mask), progress, cancel)


def _sources(ct: Volume, mri: Volume, mask: Volume | None) -> tuple[Source, Source, Source | None]:
    """Return where the volumes come from."""
    return Source(ct.name), Source(mri.name), None if mask is None else Source(mask.name)
