"""The choices of the panel's boxes: values of BrainFusionLib, and their words.

Enumerations, because Slicer's parameter wrapper binds those to boxes: a scene keeps the name of a member, and the box
shows its `label`.
"""

from __future__ import annotations

from enum import Enum

from slicer.i18n import tr as _

from BrainFusionLib.fusion.methods import METHODS
from BrainFusionLib.settings import FusionSettings, OutputSettings


class Choice(Enum):
    """What a box offers: a member for each value, named as in BrainFusionLib, with its words."""

    def label(self) -> str:
        """Return the words of this choice."""
        return _(self.value)


class Preset(Choice):
    """How much effort the registration takes."""

    standard = "Standard"
    fast = "Fast"
    thorough = "Thorough"


class Start(Choice):
    """How the registration starts."""

    automatic = "Automatic"
    transform = "Start from a transform"
    landmarks = "Start from landmarks"
    refine = "Refine a transform"
    skip = "Skip"


class Align(Choice):
    """What the pose is fitted to in the end."""

    skull = "Skull"
    brain = "Brain"


class OutputGrid(Choice):
    """The voxels of the fused volume."""

    mri = "MRI"
    ct = "CT"
    union = "Both fields of view"
    mm_0_5 = "Isotropic, 0.5 mm"
    mm_1 = "Isotropic, 1 mm"
    mm_2 = "Isotropic, 2 mm"

    @property
    def settings(self) -> OutputSettings:
        """The library's settings of this choice."""
        millimetres = self.name.removeprefix("mm_").replace("_", ".")
        return OutputSettings(grid=self.name if millimetres == self.name else float(millimetres))  # type: ignore[arg-type]


class TransformAs(Choice):
    """The format of a transform that is saved."""

    itk = "ITK (.tfm)"
    ants = "ANTs (.mat)"
    lta = "FreeSurfer (.lta)"
    fsl = "FSL (.mat)"
    matrix = "4x4 matrix (.txt)"


class Device(Choice):
    """Where to compute."""

    auto = "Automatic"
    cpu = "Processor (CPU)"
    cuda = "Graphics card (CUDA)"


def available_rules() -> type[Choice]:
    """Return the fusion rules of the library's table whose packages are installed, as an enumeration."""
    available = [m for m in METHODS.values() if m.package is None or m.package.is_installed]
    # The wrapper's default is the first member.
    available.sort(key=lambda method: method.name != FusionSettings().rule)
    return Choice("Rule", {method.name: method.label for method in available})  # type: ignore[return-value]


Rule = available_rules()
CHOICES: dict[str, type[Choice]] = {
    "preset": Preset, "align": Align, "rule": Rule, "device": Device, "start": Start, "outputGrid": OutputGrid,
    "transformAs": TransformAs,
}  # fmt: skip


def chosen(parameters, name: str) -> Choice:
    """Return a choice of a section, which is kept in the parameter node beside those of the wrapper."""
    value = parameters.parameterNode.GetParameter(name)
    return CHOICES[name].__members__.get(value, next(iter(CHOICES[name])))


def replace_unknown(parameterNode) -> str | None:
    """Put the default in the place of values from a scene that do not exist here; say so, or return None.

    To be called ahead of the wrapper, which raises on such values.

    Parameters
    ----------
    parameterNode
        The vtkMRMLScriptedModuleNode itself.
    """
    notes = []
    for name, choice in CHOICES.items():
        value = parameterNode.GetParameter(name)
        if value and value not in choice.__members__:
            default = next(iter(choice))
            parameterNode.SetParameter(name, default.name)
            notes.append(
                _("{value}, chosen in this scene, is not available: {default} is chosen instead.").format(
                    value=value, default=default.label()
                )
            )
    return " ".join(notes) or None
