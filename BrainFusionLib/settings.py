"""All settings, one frozen dataclass for each component; every result contains the settings it was made with."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal, get_args

from BrainFusionLib.arguments import check_fields
from BrainFusionLib.errors import SettingsError

# Far above the cores of any machine; with a hundred thousand, torch crashes without a message.
MOST_THREADS = 1024

Preset = Literal["fast", "standard", "thorough"]
Model = Literal["rigid", "similarity", "affine"]
Align = Literal["skull", "brain"]
Search = Literal["global", "local"]
Device = Literal["auto", "cpu", "cuda", "mps"]
Side = Literal["mri", "ct"]
OutputGrid = Literal["mri", "ct", "union"]
# Voxels of 0.2 mm make 2 GB of a head, and those of 10 mm show none.
FINEST_MM, COARSEST_MM = 0.2, 10.0


def _require_at_least(name: str, value: int, least: int) -> None:
    if type(value) is not int or value < least:
        raise SettingsError(f"{name} must be a whole number of at least {least}; got {value!r}")


@dataclass(frozen=True)
class SearchPass:
    """One search for the pose.

    Parameters
    ----------
    rotations
        Number of rotations to try; they cover all orientations evenly.
    candidates
        Number of candidates that are refined at 8 mm; a third of them are refined at 4 mm, and four at 2 mm.
    fine
        Whether the search samples every 16 mm instead of every 20 mm.
    safe_margin
        Lead of the best pose over the best distinct one, in nats of mutual information at 2 mm, that makes this pass
        the last. On 64 simulated cases wrong poses led by at most 0.03 after 90 rotations, correct ones by 0.15 or
        more, and those of skull-stripped MRIs by 0.08 or more.
    """

    rotations: int
    candidates: int
    fine: bool = True
    safe_margin: float = 0.06

    def __post_init__(self) -> None:
        _require_at_least("rotations", self.rotations, 1)
        _require_at_least("candidates", self.candidates, 4)
        check_fields(self)


QUICK_PASS = SearchPass(90, 16, fine=False, safe_margin=0.15)
PASSES = (QUICK_PASS, SearchPass(480, 64), SearchPass(1200, 200))


@dataclass(frozen=True)
class RegistrationSettings:
    """The effort of the registration, and its transform model.

    Parameters
    ----------
    passes
        The search passes; each is run only if no pose stood out in the one before.
    samples
        Number of samples in the last refinement.
    seed
        Seed of the samples. The same seed gives the same result on one machine.
    model
        ``"rigid"`` (right for one head and correct headers), ``"similarity"`` (also one scale), or ``"affine"`` (scales
        and shears, for a distorted MRI or a wrong voxel size). The rigid transform is found in any case.
    align
        What the rigid pose is fitted to in the end: the ``"skull"``, which both images share rigidly, or the
        ``"brain"``, which may have moved against it since the MRI (after an operation, for example).
    search
        ``"global"`` tries all poses. ``"local"`` only refines a starting pose, within 20 mm and 15°: faster, and blind
        to a better pose further away.
    """

    passes: tuple[SearchPass, ...] = PASSES
    samples: int = 400_000
    seed: int = 0
    model: Model = "rigid"
    align: Align = "skull"
    search: Search = "global"

    def __post_init__(self) -> None:
        _require_at_least("samples", self.samples, 2_000)
        _require_at_least("seed", self.seed, 0)
        check_fields(self)
        if not self.passes:
            raise SettingsError("passes is empty; give at least one")
        if self.model not in get_args(Model):
            raise SettingsError(f"there is no model {self.model!r}; choose one of {', '.join(get_args(Model))}")
        if self.align not in get_args(Align):
            raise SettingsError(f"cannot align to {self.align!r}; choose one of {', '.join(get_args(Align))}")
        if self.search not in get_args(Search):
            raise SettingsError(f"there is no search {self.search!r}; choose one of {', '.join(get_args(Search))}")
        if self.align == "brain" and self.model != "rigid":
            raise SettingsError(
                f"the brain is aligned rigidly, but the model is {self.model}: choose the model rigid, or align to the "
                "skull"
            )

    @classmethod
    def preset(
        cls,
        name: Preset,
        seed: int = 0,
        model: Model = "rigid",
        align: Align = "skull",
        search: Search = "global",
    ) -> RegistrationSettings:
        """Return the settings of a quality preset.

        Raises
        ------
        SettingsError
            There is no preset of that name.
        """
        presets = {
            "fast": cls(PASSES[:2], 120_000, seed, model, align, search),
            "standard": cls(seed=seed, model=model, align=align, search=search),
            "thorough": cls(PASSES[1:], 1_000_000, seed, model, align, search),
        }
        if name not in presets:
            raise SettingsError(f"there is no preset {name!r}; choose one of {', '.join(presets)}")
        return presets[name]


@dataclass(frozen=True)
class FusionSettings:
    """The fusion method and its weights.

    Parameters
    ----------
    rule
        The name of a method: a key of `BrainFusionLib.fusion.methods.METHODS`.
    weights
        For a method that uses weights: a weights file, or the name of included weights (`fusion.weights.SHIPPED`);
        ``None`` for the default weights.
    batch_size
        Number of slices fused at once. Halved automatically if the device's memory is too small.
    weights_sha256
        The sha256 that the weights file must have ("pinned", see `fusion.methods.pinned`); ``None`` accepts any.
    """

    rule: str = "network"
    weights: Path | str | None = None
    batch_size: int = 8
    weights_sha256: str | None = None

    def __post_init__(self) -> None:
        check_fields(self)
        if isinstance(self.weights, Path):  # text and a path that name one file are one setting
            object.__setattr__(self, "weights", str(self.weights))
        _require_at_least("batch_size", self.batch_size, 1)


@dataclass(frozen=True)
class OutputSettings:
    """The frame and the grid of the volumes that are made; the verdict is measured on the MRI's grid in any case.

    Parameters
    ----------
    reference
        Whose frame the volumes are in: the ``"mri"``'s, into which the CT is put, or the ``"ct"``'s, into which the MRI
        is put.
    grid
        The voxels of the ``"mri"`` or of the ``"ct"``; the ``"union"`` (the fields of view of both, isotropic at the
        finest spacing of either); or a number, isotropic voxels of that size in mm, over the field of view of the
        reference. ``None`` for the reference's own voxels.
    """

    reference: Side = "mri"
    grid: OutputGrid | float | None = None

    def __post_init__(self) -> None:
        check_fields(self)
        if self.reference not in get_args(Side):
            raise SettingsError(f"there is no reference {self.reference!r}; choose one of {', '.join(get_args(Side))}")
        grid = self.grid
        if isinstance(grid, int | float) and not isinstance(grid, bool):
            if not FINEST_MM <= grid <= COARSEST_MM:
                raise SettingsError(f"voxels must be {FINEST_MM:g} to {COARSEST_MM:g} mm; got {grid:g}")
            object.__setattr__(self, "grid", float(grid))
        elif grid is not None and grid not in get_args(OutputGrid):
            raise SettingsError(
                f"there is no output grid {grid!r}; choose one of {', '.join(get_args(OutputGrid))}, or a number in mm"
            )
        if grid == self.reference:  # two names of one thing
            object.__setattr__(self, "grid", None)

    @property
    def chosen(self) -> OutputGrid | float:
        """The grid, by its name where it is the reference's own."""
        return self.reference if self.grid is None else self.grid

    @property
    def is_mris(self) -> bool:
        """Whether the volumes are on the MRI's grid, in the MRI's frame."""
        return self.reference == "mri" and self.grid is None


@dataclass(frozen=True)
class Settings:
    """All settings of `BrainFusionLib.fuse`.

    Parameters
    ----------
    device
        ``"auto"``: a graphics card (CUDA) if torch finds one, otherwise the CPU. On the CPU no torch is needed.
    threads
        Number of CPU threads; ``None`` for all (or ``OMP_NUM_THREADS``).
    bone
        Whether to make the bone of the CT on the MRI's grid, too.
    """

    registration: RegistrationSettings = field(default_factory=RegistrationSettings)
    fusion: FusionSettings = field(default_factory=FusionSettings)
    device: Device = "auto"
    threads: int | None = None
    output: OutputSettings = field(default_factory=OutputSettings)
    bone: bool = False

    def __post_init__(self) -> None:
        check_fields(self)
        if self.device not in get_args(Device):
            raise SettingsError(f"there is no device {self.device!r}; choose one of {', '.join(get_args(Device))}")
        if self.threads is not None:
            _require_at_least("threads", self.threads, 1)
            if self.threads > MOST_THREADS:
                raise SettingsError(f"threads must be at most {MOST_THREADS}; got {self.threads}")

    def without_paths(self) -> Settings:
        """Return the same with the weights reduced to the file's name, because folders may identify the user."""
        weights = self.fusion.weights
        return self if weights is None else replace(self, fusion=replace(self.fusion, weights=Path(weights).name))

    def without_names(self) -> Settings:
        """Return the same with a file of weights named by its role; those that ship keep their name."""
        weights = self.fusion.weights
        suffix = "" if weights is None else Path(weights).suffix
        return replace(self, fusion=replace(self.fusion, weights=f"weights{suffix}")) if suffix else self
