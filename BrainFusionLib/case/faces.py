"""`fuse` and `register`: the two functions for most callers, from volumes to a result."""

from __future__ import annotations

from BrainFusionLib.case.request import Inputs, Request, Source
from BrainFusionLib.case.result import Result
from BrainFusionLib.case.run import run
from BrainFusionLib.landmarks import Landmarks
from BrainFusionLib.progress import Cancel, Progress
from BrainFusionLib.settings import RegistrationSettings, Settings
from BrainFusionLib.transform import RigidTransform, Transform
from BrainFusionLib.volume import Volume


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
        Any sequence; the result has its grid.
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

    Raises
    ------
    BrainFusionError
        As `run`.
    """
    request = Request(
        Source(ct.name), Source(mri.name), None if mri_mask is None else Source(mri_mask.name), settings or Settings(),
        start=start, given=transform, check=check, landmarks=landmarks,
    )  # fmt: skip
    return run(request, Inputs(ct, mri, mri_mask), progress, cancel)


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
    device
        ``"auto"``, ``"cpu"``, ``"cuda"`` or ``"mps"``.

    Raises
    ------
    BrainFusionError
        As `run`.
    """
    chosen = Settings(registration=settings or RegistrationSettings(), device=device)  # type: ignore[arg-type]
    request = Request(
        Source(ct.name), Source(mri.name), None if mri_mask is None else Source(mri_mask.name), chosen,
        start=start, fuse=False, landmarks=landmarks,
    )  # fmt: skip
    return run(request, Inputs(ct, mri, mri_mask), progress, cancel)
