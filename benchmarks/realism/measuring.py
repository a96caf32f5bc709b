"""All evidence for a pose, refused or not, by the steps that every door of the library takes."""

from __future__ import annotations

import time
from dataclasses import dataclass, replace

import numpy as np

from BrainFusionLib.case.request import Inputs, Request, Source
from BrainFusionLib.case.run import run
from BrainFusionLib.errors import RegistrationError
from BrainFusionLib.evidence import Evidence, PoseEvidence
from BrainFusionLib.geometry import FloatArray, rotation_matrix
from BrainFusionLib.registration import register
from BrainFusionLib.settings import Settings
from BrainFusionLib.transform import RigidTransform
from BrainFusionLib.verdict.given import compared
from BrainFusionLib.volume import Volume

SETTINGS = Settings(device="cpu", threads=1)
# A given pose is off by so much, mm, and at most so far turned, degrees.
OFF_MM, OFF_DEG = (2.0, 15.0), 8.0


@dataclass(frozen=True, eq=False)
class Measured:
    """A pose with all its evidence, and the CPU seconds of the registration and of the rest."""

    transform: RigidTransform
    evidence: Evidence
    register_cpu_s: float = 0.0
    evidence_cpu_s: float = 0.0


def measured(ct: Volume, mri: Volume) -> Measured:
    """Register a pair, and gather the evidence even where the pose would be refused."""
    started = time.process_time()
    found = register(ct, mri, device="cpu")
    registered = time.process_time()
    evidence = replace(seen(ct, mri, found.transform), pose=found.evidence)
    return Measured(found.transform, evidence, registered - started, time.process_time() - registered)


def measured_given(ct: Volume, mri: Volume, given: RigidTransform, found: Measured) -> Measured:
    """Gather the evidence for a given pose that is checked against the registration of the same pair.

    `case.run` registers once more for the check, with the given pose as another start; it ends where the search did.
    """
    started = time.process_time()
    pose = found.evidence.pose
    assert isinstance(pose, PoseEvidence)
    checked = compared(given, found.transform, pose, mri.grid.centre_lps_mm)
    evidence = replace(seen(ct, mri, given), given=checked)
    return Measured(given, evidence, 0.0, time.process_time() - started)


def seen(ct: Volume, mri: Volume, transform: RigidTransform) -> Evidence:
    """Return the evidence that the two volumes give in a pose, without that of a registration."""
    request = Request(Source("CT"), Source("MRI"), settings=SETTINGS, given=transform, check=False, fuse=False)
    try:
        return run(request, Inputs(ct, mri)).evidence
    except RegistrationError:
        # The heads do not overlap: nothing else was measured.
        return Evidence(coverage=0.0)


def mirrored(volume: Volume) -> Volume:
    """Return a volume with left and right exchanged in its voxels, as a wrong header shows it."""
    axis = 2 - int(np.argmax(np.abs(volume.grid.direction[0])))
    return replace(volume, array_kji=np.ascontiguousarray(np.flip(volume.array_kji, axis)))


def pose_off(true: RigidTransform, points_lps_mm: FloatArray, random: np.random.Generator) -> RigidTransform:
    """Return a pose that takes the points as far from where the true one does as is drawn: 2 to 15 mm, their median."""
    wanted = float(np.exp(random.uniform(*np.log(OFF_MM))))
    centre = points_lps_mm.mean(axis=0)
    turned = rotation_matrix(random.standard_normal(3), float(random.uniform(0, min(OFF_DEG, 0.6 * wanted))))
    direction = random.standard_normal(3)
    direction /= np.linalg.norm(direction)

    def moved(mm: float) -> RigidTransform:
        return true @ RigidTransform.about_centre(turned, mm * direction, centre)

    low, high = 0.0, 2 * OFF_MM[1]
    for _ in range(30):
        middle = (low + high) / 2
        off = np.linalg.norm(moved(middle).apply(points_lps_mm) - true.apply(points_lps_mm), axis=1)
        low, high = (middle, high) if np.median(off) < wanted else (low, middle)
    return moved(high)
