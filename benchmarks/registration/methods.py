"""The ways to register that are compared: each takes CT and MRI and returns the transform from MRI to CT points."""

from __future__ import annotations

from collections.abc import Callable

import SimpleITK as sitk

from BrainFusionLib.geometry import affine
from BrainFusionLib.registration import register
from BrainFusionLib.settings import RegistrationSettings
from BrainFusionLib.transform import RigidTransform
from BrainFusionLib.volume import Volume

Method = Callable[[Volume, Volume], RigidTransform]


def ours(preset: str) -> Method:
    """Return this library's registration with one of its presets, on one CPU thread."""

    def run(ct: Volume, mri: Volume) -> RigidTransform:
        return register(ct, mri, RegistrationSettings.preset(preset), device="cpu").transform  # type: ignore[arg-type]

    return run


def simpleitk_mattes(ct: Volume, mri: Volume) -> RigidTransform:
    """Register as SimpleITK's own examples do: Mattes mutual information, three levels, from the volumes' centres."""
    fixed, moving = _itk_image(mri), _itk_image(ct)
    sitk.ProcessObject.SetGlobalDefaultNumberOfThreads(1)
    start = sitk.CenteredTransformInitializer(
        fixed, moving, sitk.Euler3DTransform(), sitk.CenteredTransformInitializerFilter.GEOMETRY
    )
    method = sitk.ImageRegistrationMethod()
    method.SetMetricAsMattesMutualInformation(numberOfHistogramBins=50)
    method.SetMetricSamplingStrategy(method.RANDOM)
    method.SetMetricSamplingPercentagePerLevel([0.5, 0.1, 0.02], seed=1)
    method.SetInterpolator(sitk.sitkLinear)
    method.SetOptimizerAsRegularStepGradientDescent(
        learningRate=2.0, minStep=1e-3, numberOfIterations=300, relaxationFactor=0.7
    )
    method.SetOptimizerScalesFromPhysicalShift()
    method.SetShrinkFactorsPerLevel([4, 2, 1])
    method.SetSmoothingSigmasPerLevel([2, 1, 0])
    method.SetInitialTransform(start, inPlace=False)
    found = method.Execute(fixed, moving)
    origin = found.TransformPoint((0.0, 0.0, 0.0))
    columns = [
        [a - b for a, b in zip(found.TransformPoint(unit), origin, strict=True)]
        for unit in ((1.0, 0.0, 0.0), (0.0, 1.0, 0.0), (0.0, 0.0, 1.0))
    ]
    return RigidTransform(affine([list(row) for row in zip(*columns, strict=True)], origin))


def _itk_image(volume: Volume) -> sitk.Image:
    image = sitk.GetImageFromArray(volume.array_kji)
    image.SetSpacing(volume.grid.spacing_ijk_mm)
    image.SetOrigin(volume.grid.origin_lps_mm)
    image.SetDirection(volume.grid.direction.ravel().tolist())
    return image


METHODS: dict[str, Method] = {
    "fast": ours("fast"),
    "standard": ours("standard"),
    "thorough": ours("thorough"),
    "simpleitk": simpleitk_mattes,
}
