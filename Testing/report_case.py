"""A result made by hand, for tests of what is shown of one."""

from dataclasses import replace

import numpy as np

from BrainFusionLib.case import IntensityMap, Pose, Provenance, Request, Result, Source, Volumes
from BrainFusionLib.evidence import (
    Distortion,
    Evidence,
    GivenPose,
    LocalErrors,
    LocalFit,
    PoseEvidence,
    Scale,
    SkullFit,
)
from BrainFusionLib.geometry import Grid
from BrainFusionLib.metrics import Fidelity
from BrainFusionLib.settings import FusionSettings, Settings
from BrainFusionLib.transform import RigidTransform
from BrainFusionLib.verdict.criterion import Finding
from BrainFusionLib.verdict.judge import Verdict
from BrainFusionLib.volume import Volume

POSE = PoseEvidence(
    similarity_nmi=1.2345, margin_nats=0.3417, agreement_mm=0.1234, perturbed_margin_nmi=0.00512, overlap=0.934,
    thinnest_mm=156.0, thickest_voxel_mm=2.5, mirrored_margin_nats=0.217, sampling_error_mm=0.0321, lever=1.13,
)  # fmt: skip
LOCAL = LocalErrors(
    spacing_mm=20.0,
    points_lps_mm=np.array([[-10.0, 20.0, 30.0], [10.0, 0.0, 0.0]]),
    shifts_mm=np.array([[3.0, 0.0, 4.0], [0.5, 0.0, 0.0]]),
    fit=LocalFit(median_mm=0.456, part_mm=0.567, share=0.876, least_share=0.543, voxel_mm=3.1),
)
SKULL = SkullFit(shift_mm=0.678, depth=0.123, brightness=0.234, at_edge=False, voxel_mm=2.1)
SCALE = Scale(0.11, -0.22, 0.33, 0.41, 0.42, 0.43)
DISTORTION = Distortion(0.234, 0.456, 1.02, 0.345, 0.312, 0.654, 0.287)
FINDING = Finding("agreement", "amber", 0.7, 0.6, "mm", "two refinements ended 0.7 mm apart (limit 0.6 mm)")
AMBER = Verdict("amber", (FINDING,), 0.82, 1.6)


def result_of(fused: Volume, ct_in_mri: Volume, mri: Volume) -> Result:
    """Return a result with every kind of fact in it."""
    return Result(
        request=Request(
            Source("head_ct.nrrd"), Source("head_t1.nii.gz"), settings=Settings(fusion=FusionSettings("bone_over_mri"))
        ),
        pose=Pose(
            RigidTransform.identity(), RigidTransform.identity(), "registered", "rotated by 3.0 degrees, not shifted"
        ),
        verdict=AMBER,
        evidence=Evidence(pose=POSE, coverage=0.987, local=LOCAL, skull=SKULL, scale=SCALE, distortion=DISTORTION),
        grid=mri.grid,
        provenance=Provenance(
            date="2024-02-03T04:05:06+0000",
            versions={"brainfusion": "0.1.0", "numpy": "2.4.6"},
            device="cpu",
            timings_s={"registration": 20.5, "fusion": 1.5},
            registration_timings_s={"search": 12.25, "climb 2 mm": 1.75},
            registration_iterations={"climb 2 mm": 34},
            escalated=True,
        ),
        fidelity=Fidelity(bone_error_hu=1.23, soft_tissue_error=0.00345, overshoot=0.0),
        intensity=IntensityMap(
            "the MRI's value outside bone", (-1000.0, -100.0, 300.0, 2000.0, 4000.0),
            (0.0, 45.0, 900.0, 1350.0, 1575.0), 0.0, 900.0, (0.0, 1350.0),
        ),
        notes=("no orientation in the file",),
        volumes=Volumes(fused, ct_in_mri),
    )  # fmt: skip


def small_head() -> tuple[Volume, Volume, Volume]:
    """Return fused volume, CT and MRI of a small round head."""
    grid = Grid((24, 28, 20), (8.0, 8.0, 8.0), (-96.0, -112.0, -80.0))
    k, j, i = np.indices(grid.shape_kji)
    radius = np.hypot(np.hypot((k - 10) / 9, (j - 14) / 12), (i - 12) / 10)
    mri = np.where(radius < 0.8, 600.0, np.where(radius < 0.95, 60.0, 0.0)).astype(np.float32)
    hu = np.where(radius < 0.8, 40.0, np.where(radius < 0.95, 1000.0, -1000.0)).astype(np.float32)
    fused = np.where(hu > 300, 900.0, mri).astype(np.float32)
    return Volume(fused, grid, "MR", "fused"), Volume(hu, grid, "CT", "CT"), Volume(mri, grid, "MR", "MRI")


def judged(result: Result, verdict: Verdict) -> Result:
    """Return a result with another verdict."""
    return replace(result, verdict=verdict)


def given(result: Result) -> Result:
    """Return a result whose pose was given and checked."""
    evidence = replace(result.evidence, pose=None, given=GivenPose(POSE, 3.21, 2.13))
    return replace(result, pose=replace(result.pose, origin="given"), evidence=evidence)
