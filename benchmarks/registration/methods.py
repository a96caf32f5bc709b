"""The ways to register that are compared: ours and the field's tools, each as its documentation recommends.

Every method first prepares (imports its package, puts the images in its own form); that is not counted. What it then
returns is called and measured. All of them run on one thread; the environment variables for that are set by
`measure.single_threaded` before a process starts.
"""

from __future__ import annotations

import io
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import SimpleITK as sitk

from BrainFusionLib.errors import MissingDependencyError, RegistrationError
from BrainFusionLib.evidence import Evidence
from BrainFusionLib.geometry import RAS_FROM_LPS, affine
from BrainFusionLib.settings import RegistrationSettings
from BrainFusionLib.transform import RigidTransform
from BrainFusionLib.volume import Volume
from simulation.itk import itk_image

# The transform from MRI to CT points, and the colour that the method gives its own result ("" where it gives none).
Found = tuple[RigidTransform, str]
Prepare = Callable[[Volume, Volume], Callable[[], Found]]
# CT, MRI: the range of the CT is limited as any user would, to air.
LEAST_HU = -1000.0


@dataclass(frozen=True)
class Method:
    """A way to register.

    Parameters
    ----------
    prepare
        Takes CT and MRI; returns what is to be measured.
    package
        What has to be installed for it; "" for what this library needs anyway.
    """

    prepare: Prepare
    package: str = ""

    def check_installed(self) -> None:
        """Reject a method whose package is not installed.

        Raises
        ------
        MissingDependencyError
            The package is not installed.
        """
        if not self.package:
            return
        try:
            metadata.version(self.package)
        except metadata.PackageNotFoundError as error:
            raise MissingDependencyError(
                f"the package {self.package} is not installed. Install what the benchmark compares with: "
                "pip install -e '.[bench]' in the checkout. Or choose other --methods."
            ) from error


def ours(preset: str) -> Prepare:
    """Return this library's registration with one of its presets."""

    def prepare(ct: Volume, mri: Volume) -> Callable[[], Found]:
        from BrainFusionLib.registration import register
        from BrainFusionLib.verdict.judge import judge, refusal

        settings = RegistrationSettings.preset(preset)  # type: ignore[arg-type]

        def run() -> Found:
            found = register(ct, mri, settings, device="cpu")
            evidence = Evidence(pose=found.evidence)
            refused = refusal(evidence)
            if refused is not None:
                raise RegistrationError(refused.text, found.transform)
            return found.transform, judge(evidence).colour

        return run

    return prepare


def greedy(options: str) -> Prepare:
    """Return greedy, rigid, by normalised mutual information, with options for the start.

    Three levels of 100, 50 and 10 iterations, as in its documentation: on four trial cases 100x100x50 was hardly more
    accurate in 2.5 times the time. A search of 1000 tries solved 1 of 3 re-oriented heads, one of 4000 all three.
    """

    def prepare(ct: Volume, mri: Volume) -> Callable[[], Found]:
        from picsl_greedy import Greedy3D

        fixed, moving = _itk_image(mri), sitk.Clamp(_itk_image(ct), sitk.sitkFloat32, LEAST_HU)

        def run() -> Found:
            tool, said = Greedy3D(), io.StringIO()
            tool.execute(
                f"-d 3 -threads 1 -V 0 -a -dof 6 -m NMI -i fixed moving {options} -n 100x50x10 -o found",
                said,
                said,
                fixed=fixed,
                moving=moving,
                found=None,
            )
            return RigidTransform(RAS_FROM_LPS @ np.asarray(tool["found"]) @ RAS_FROM_LPS), ""

        return run

    return prepare


def elastix(ct: Volume, mri: Volume) -> Callable[[], Found]:
    """Register with elastix: its own rigid parameter map, with the start and the samples that its manual advises."""
    import itk

    fixed, moving = _wrapped(itk, mri.array_kji, mri), _wrapped(itk, np.maximum(ct.array_kji, LEAST_HU), ct)
    parameters = itk.ParameterObject.New()
    rigid = parameters.GetDefaultParameterMap("rigid", 4)
    changes = {
        "AutomaticTransformInitialization": "true",
        "AutomaticTransformInitializationMethod": "GeometricalCenter",
        # The manual: 2000 samples at least, 500 iterations or more where accuracy counts.
        "MaximumNumberOfIterations": "500",
        "NumberOfSpatialSamples": "4096",
        "NumberOfHistogramBins": "32",
        "WriteResultImage": "false",
    }
    for key, value in changes.items():
        rigid[key] = (value,)
    parameters.AddParameterMap(rigid)
    run_elastix = itk.elastix_registration_method  # its modules are loaded here, not in the measured part

    def run() -> Found:
        _, found = run_elastix(fixed, moving, parameter_object=parameters, log_to_console=False, number_of_threads=1)
        answer = found.GetParameterMap(0)
        euler = sitk.Euler3DTransform()
        euler.SetComputeZYX(answer["ComputeZYX"][0] == "true")
        euler.SetCenter([float(value) for value in answer["CenterOfRotationPoint"]])
        euler.SetParameters([float(value) for value in answer["TransformParameters"]])
        return _rigid(euler.TransformPoint), ""

    return run


def ants(ct: Volume, mri: Volume) -> Callable[[], Found]:
    """Register with ANTs, "Rigid" with all defaults: Mattes mutual information, started at the centres of mass."""
    import ants as package

    package.config.set_ants_deterministic(True, 1)
    fixed, moving = (
        package.from_numpy(
            np.ascontiguousarray(array.transpose(2, 1, 0)),
            origin=volume.grid.origin_lps_mm,
            spacing=volume.grid.spacing_ijk_mm,
            direction=np.array(volume.grid.direction),
        )
        for volume, array in ((mri, mri.array_kji), (ct, np.maximum(ct.array_kji, LEAST_HU)))
    )

    def run() -> Found:
        with tempfile.TemporaryDirectory() as folder:
            answer = package.registration(fixed, moving, "Rigid", outprefix=str(Path(folder) / "found"))
            found = package.read_transform(answer["fwdtransforms"][0])
        return _rigid(found.apply_to_point), ""

    return run


def simpleitk_mattes(ct: Volume, mri: Volume) -> Callable[[], Found]:
    """Register as SimpleITK's own examples do: Mattes mutual information, three levels, from the volumes' centres."""
    fixed, moving = _itk_image(mri), sitk.Clamp(_itk_image(ct), sitk.sitkFloat32, LEAST_HU)
    sitk.ProcessObject.SetGlobalDefaultNumberOfThreads(1)

    def run() -> Found:
        start = sitk.CenteredTransformInitializer(
            fixed, moving, sitk.Euler3DTransform(), sitk.CenteredTransformInitializerFilter.GEOMETRY
        )
        method = sitk.ImageRegistrationMethod()
        method.SetMetricAsMattesMutualInformation(numberOfHistogramBins=50)
        method.SetMetricSamplingStrategy(method.RANDOM)
        method.SetMetricSamplingPercentagePerLevel([0.2, 0.05, 0.02], seed=1)
        method.SetInterpolator(sitk.sitkLinear)
        method.SetOptimizerAsRegularStepGradientDescent(
            learningRate=1.0, minStep=1e-3, numberOfIterations=200, relaxationFactor=0.6
        )
        method.SetOptimizerScalesFromPhysicalShift()
        method.SetShrinkFactorsPerLevel([4, 2, 1])
        method.SetSmoothingSigmasPerLevel([2, 1, 0])
        method.SetInitialTransform(start, inPlace=False)
        return _rigid(method.Execute(fixed, moving).TransformPoint), ""

    return run


def _itk_image(volume: Volume) -> sitk.Image:
    return itk_image(volume.array_kji, volume.grid)


def _wrapped(itk: Any, array_kji: npt.NDArray[np.float32], volume: Volume) -> Any:
    """Return an image of the package itk, which is not SimpleITK's."""
    image = itk.image_from_array(array_kji)
    image.SetSpacing(volume.grid.spacing_ijk_mm)
    image.SetOrigin(volume.grid.origin_lps_mm)
    image.SetDirection(itk.matrix_from_array(np.array(volume.grid.direction)))
    return image


def _rigid(point_to_point: Callable[[tuple[float, float, float]], Any]) -> RigidTransform:
    """Return the transform that a function of points stands for: no convention of angles or centres to get wrong."""
    origin = np.asarray(point_to_point((0.0, 0.0, 0.0)))
    # Units of 100 mm, because some tools keep their transforms in single precision.
    units = ((100.0, 0.0, 0.0), (0.0, 100.0, 0.0), (0.0, 0.0, 100.0))
    columns = np.stack([(np.asarray(point_to_point(unit)) - origin) / 100 for unit in units], axis=1)
    return RigidTransform(affine(columns, origin))


METHODS: dict[str, Method] = {
    "fast": Method(ours("fast")),
    "standard": Method(ours("standard")),
    "thorough": Method(ours("thorough")),
    "greedy": Method(greedy("-ia-image-centers"), "picsl-greedy"),
    "greedy-search": Method(greedy("-ia-image-centers -search 4000 any 20"), "picsl-greedy"),
    "elastix": Method(elastix, "itk-elastix"),
    "ants": Method(ants, "antspyx"),
    "simpleitk": Method(simpleitk_mattes),
}
