"""The two functions that most callers need: volumes in, a result out."""

from __future__ import annotations

from BrainFusionLib.case.request import Inputs, Request, Source
from BrainFusionLib.case.result import Result
from BrainFusionLib.case.run import run
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
    progress: Progress | None = None,
    cancel: Cancel | None = None,
) -> Result:
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
        Use this transform, rigid or affine, as it is; takes MRI points to CT points, LPS mm.
    check
        Whether a registration says how far a given transform is from what that finds; else the verdict is amber at
        best.
    mri_mask
        On the MRI's grid, above 0 in the region that matters most to the registration.
    progress, cancel
        As `run`.

    Raises
    ------
    BrainFusionError
        As `run`.
    """
    request = Request(
        Source(ct.name), Source(mri.name), None if mri_mask is None else Source(mri_mask.name), settings or Settings(),
        start=start, given=transform, check=check,
    )  # fmt: skip
    return run(request, Inputs(ct, mri, mri_mask), progress, cancel)


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
) -> Result:
    """Register a CT to an MRI of the same head and judge the pose, as `fuse` does; no volumes come back.

    Parameters
    ----------
    ct, mri, start, mri_mask, progress, cancel
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
        start=start, fuse=False,
    )  # fmt: skip
    return run(request, Inputs(ct, mri, mri_mask), progress, cancel)
