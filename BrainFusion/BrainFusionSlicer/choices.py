"""The choices of the panel's boxes: values of BrainFusionLib, and their words.

Enumerations, because Slicer's parameter wrapper binds those to boxes: a scene keeps the name of a member, and the box
shows its `label`.
"""

from __future__ import annotations

from enum import Enum

import slicer.util
from slicer.i18n import tr as _

from BrainFusionLib.fusion.methods import METHODS
from BrainFusionLib.settings import COARSEST_MM, FINEST_MM, FusionSettings, OutputSettings, Side

# What the parameter node keeps besides the choices of the boxes.
SPACING, BONE = "outputSpacing", "bone"
DEFAULT_SPACING_MM = 1.0


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
    isotropic = "Isotropic"


class Reference(Choice):
    """The volume that stays where it is, and in whose frame the results are."""

    mri = "MRI"
    ct = "CT"


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
    "transformAs": TransformAs, "reference": Reference,
}  # fmt: skip


def chosen(parameters, name: str) -> Choice:
    """Return a choice of a section, which is kept in the parameter node beside those of the wrapper."""
    value = parameters.parameterNode.GetParameter(name)
    return CHOICES[name].__members__.get(value, next(iter(CHOICES[name])))


def chosen_spacing_mm(parameters) -> float:
    """Return the spacing of the isotropic output grid, as it is kept in the scene."""
    try:
        return min(max(float(parameters.parameterNode.GetParameter(SPACING)), FINEST_MM), COARSEST_MM)
    except ValueError:  # of another version, or none yet
        return DEFAULT_SPACING_MM


def chosen_output(parameters) -> OutputSettings:
    """Return the library's settings of the chosen reference and output grid."""
    grid, reference = chosen(parameters, "outputGrid"), chosen_reference(parameters)
    if grid is OutputGrid.isotropic:
        return OutputSettings(reference, chosen_spacing_mm(parameters))
    return OutputSettings(reference, grid.name)  # type: ignore[arg-type]


def chosen_reference(parameters) -> Side:
    """Return the volume that is to stay where it is."""
    return "ct" if chosen(parameters, "reference") is Reference.ct else "mri"


def choose_reference(parameters, reference: Side) -> None:
    """Choose the volume that is to stay where it is; its own voxels are taken in the place of the other's own."""
    node, before = parameters.parameterNode, chosen_reference(parameters)
    with slicer.util.NodeModify(node):
        if reference != before and chosen(parameters, "outputGrid").name == before:
            node.SetParameter("outputGrid", reference)
        node.SetParameter("reference", reference)


def is_bone_chosen(parameters) -> bool:
    """Say whether a segmentation of the bone is to be made."""
    return bool(parameters.parameterNode.GetParameter(BONE) == "true")


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
