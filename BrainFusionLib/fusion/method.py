"""What a fusion method is, and what it gives back."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from BrainFusionLib.progress import Cancel, Progress, stop_if
from BrainFusionLib.settings import FusionSettings
from BrainFusionLib.values import ByValue
from BrainFusionLib.volume import VoxelArray

if TYPE_CHECKING:
    from BrainFusionLib.intensity.unit import Stacks

# CT, MRI and bone weight, (slices, rows, columns), to the fused stack; unit scale, float32.
RuleFunction = Callable[[VoxelArray, VoxelArray, VoxelArray], VoxelArray]

BY_WEIGHT = (
    "alpha times the CT through this piecewise-linear map, plus (1 - alpha) times the MRI's value: the CT "
    "where the weight alpha is 1, the MRI, to the last bit, where it is 0"
)
MIXTURE = "a mixture of the MRI's value and of the CT through this piecewise-linear map, made by the rule"


@dataclass(frozen=True, eq=False)
class Fused(ByValue):
    """Fused slices.

    Attributes
    ----------
    fused
        Unit scale, float32, the shape of the stacks that were fused.
    alpha
        The weight of the CT in it, 0 to 1; ``None`` where the method has none.
    """

    fused: VoxelArray
    alpha: VoxelArray | None = None


@dataclass(frozen=True)
class WeightsIdentity:
    """Which weights were used: the name of the file, without its folder, and its sha256."""

    name: str
    sha256: str


@dataclass(frozen=True)
class Package:
    """An optional package: what to install, and what to import."""

    name: str
    module: str

    @property
    def is_installed(self) -> bool:
        """Whether it can be imported."""
        return importlib.util.find_spec(self.module) is not None


class Fuser(Protocol):
    """A method made ready, once for all that is to be fused.

    Attributes
    ----------
    meaning
        What the values of the fused volume are: a sentence without its full stop.
    weights
        Which weights it uses; ``None`` where the method has none.
    needs_torch
        Whether torch computes.
    """

    @property
    def needs_torch(self) -> bool:
        """Whether torch computes."""

    @property
    def meaning(self) -> str:
        """What the values of the fused volume are."""

    @property
    def weights(self) -> WeightsIdentity | None:
        """Which weights it uses."""

    def fuse(self, stacks: Stacks, progress: Progress | None = None, cancel: Cancel | None = None) -> Fused:
        """Fuse registered slices.

        Raises
        ------
        Cancelled
            `cancel` said yes.
        """


@dataclass(frozen=True)
class Method:
    """A way to fuse: one row of `methods.METHODS`.

    Parameters
    ----------
    name
        What settings call it.
    label
        What a list of choices calls it.
    description
        One line for help.
    meaning
        What the values of the fused volume are, where nothing else says so: a sentence without its full stop.
    prepare
        Makes it ready for settings and a device; call `methods.prepare`, which checks the settings first.
    needs_weights
        Whether it reads a weights file.
    package
        The optional package that it needs.
    """

    name: str
    label: str
    description: str
    meaning: str
    prepare: Callable[[FusionSettings, str], Fuser]
    needs_weights: bool = False
    package: Package | None = None


@dataclass(frozen=True)
class RuleFuser:
    """A classical rule, ready: a function of the three stacks that needs nothing else."""

    function: RuleFunction
    meaning: str
    weights: WeightsIdentity | None = None
    needs_torch: bool = False

    def fuse(self, stacks: Stacks, progress: Progress | None = None, cancel: Cancel | None = None) -> Fused:
        """See `Fuser`."""
        stop_if(cancel)
        return Fused(self.function(stacks.ct_unit, stacks.mri_unit, stacks.bone_weight))


def rule(
    name: str,
    label: str,
    description: str,
    function: RuleFunction,
    meaning: str = MIXTURE,
    *,
    package: Package | None = None,
) -> Method:
    """Return the method that is a function of CT, MRI and bone weight."""
    fuser = RuleFuser(function, meaning)
    return Method(name, label, description, meaning, lambda settings, device: fuser, package=package)
