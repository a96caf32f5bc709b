"""A runner that answers at once, without computing: for tests of what the panel asks for and writes."""

from dataclasses import replace

import numpy as np

from BrainFusionLib.case import IntensityMap, Pose, Provenance, Result, Volumes
from BrainFusionLib.case.output import sources_on_output
from BrainFusionLib.case.result import Bone, Output
from BrainFusionLib.evidence import Evidence
from BrainFusionLib.transform import RigidTransform
from BrainFusionLib.verdict.judge import Verdict


class AnsweringRunner:
    """`BrainFusionSlicer.runner.Runner`; notes the requests, and finds `pose` wherever none is given."""

    def __init__(self, pose):
        self.pose, self.requests, self.meanwhile = pose, [], None
        self.colour = "green"

    busy = False

    def run(self, request, inputs, progress, done):
        self.requests.append(request)
        volumes = inputs.copied()
        progress("registration", 0.5)
        if self.meanwhile is not None:
            self.meanwhile()
        mri, given = volumes.mri, request.given
        transform = self.pose if given is None else given
        rigid = transform if isinstance(transform, RigidTransform) else transform.nearest_rigid((0, 0, 0))
        origin = "registered" if given is None else "given"
        result = Result(
            request=request,
            pose=Pose(transform, rigid, origin, transform.describe(mri.grid.centre_lps_mm)),
            verdict=Verdict(self.colour),
            evidence=Evidence(),
            grid=mri.grid,
            provenance=Provenance("today", {}, "cpu"),
            landmarks=None if request.landmarks is None else request.landmarks.residuals(transform),
        )
        if request.settings.bone:
            labels = np.zeros_like(mri.array_kji)
            labels[2:-2, 2:-2, 2:-2] = 1
            result = replace(result, bone=Bone(300.0, 100.0, mri.with_array(labels, name="bone")))
        output = request.settings.output
        if request.fuse:
            made = Volumes(mri, mri.with_array(mri.array_kji * 0 - 1000, name="CT in MRI"))
            if not output.is_mris:
                on_grid = sources_on_output(output, volumes, transform, 0.0, "cpu")
                made = Volumes(on_grid.mri, on_grid.ct, mri=on_grid.mri)
            scale = IntensityMap("a mixture", (-1000.0, 3000.0), (0.0, 2.0), 0.0, 1.0, (0.0, 1.0))
            place = Output.of(output.reference, made.fused.grid)
            result = replace(result, volumes=made, intensity=scale, output=place)
        done(result, None)

    def warm_up(self):
        """Nothing."""

    def cancel(self):
        """Nothing runs."""

    def close(self):
        """Nothing runs."""
