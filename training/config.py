"""The settings of a training run: one dataclass per table of its TOML file (`training.config_file` reads it)."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field, fields
from typing import Any, get_args

from BrainFusionLib.errors import SettingsError
from BrainFusionLib.fusion.methods import METHODS
from BrainFusionLib.phantom.tissues import CONTRASTS
from BrainFusionLib.settings import MOST_THREADS, Device
from simulation.scans import SimulationConfig

SOURCES = ("phantom", "simulated", "original", "manifest", "png")
OPTIMISERS = ("sgd", "rmsprop", "adagrad", "adadelta", "adam", "adamw", "lion")
SCHEDULES = ("cosine", "plateau", "constant")
PRECISIONS = ("float32", "bf16", "fp16")
# Fusion methods that can make labels: those that need no training themselves.
RULES = tuple(method.name for method in METHODS.values() if not method.needs_weights)
LABELS = (*RULES, "optimum", "given", "none")


@dataclass(frozen=True)
class DataConfig:
    """Where the slices come from, and which heads are kept back to judge by.

    Parameters
    ----------
    source
        ``phantom``, ``simulated``, ``original``, ``manifest`` or ``png``; see docs/training.md.
    path
        Folder (``original``, ``png``, label maps of ``simulated``) or file (``manifest``).
    train_heads, heldout_heads
        Names, with ``*`` for any characters and ``1..40`` for a range of phantoms' seeds. No head may be in both.
    head_pattern
        Regular expression whose first group is the head's name in the name of a PNG slice.
    exclude
        Names of PNG slices that must not be used at all.
    contrasts
        MRI contrasts that every phantom is shown in.
    spacing_mm, slice_spacing_mm
        Pixel size and distance of slices of phantoms and simulated heads. (Files keep their own.)
    size
        Rows and columns that slices are padded with air or cropped to; multiples of 16.
    scans
        How many scans, each with another contrast, pose and artefacts, are made of a simulated head.
    on_the_fly
        Simulated heads only: make new slices on the device at each step, instead of a fixed number that is cached.
    crop
        Rows and columns, multiples of 16, of a window that is cut from each slice at a place drawn anew each time;
        empty for whole slices. Cached slices only; held-out ones stay whole.
    flip
        Mirror half of the slices left to right, anew each time.
    cache
        Folder for the prepared slices.
    terms
        Under which terms the data came, in words; goes into the weights' manifest.
    shippable
        Whether these terms let the weights be given to others.
    """

    source: str
    train_heads: list[str]
    heldout_heads: list[str]
    path: str = ""
    head_pattern: str = r"(.+)\d{3}"
    exclude: list[str] = field(default_factory=list)
    contrasts: list[str] = field(default_factory=lambda: ["T1"])
    spacing_mm: float = 1.0
    slice_spacing_mm: float = 1.0
    size: list[int] = field(default_factory=lambda: [256, 256])
    scans: int = 1
    on_the_fly: bool = False
    crop: list[int] = field(default_factory=list)
    flip: bool = False
    cache: str = "training-cache"
    terms: str = "not stated"
    shippable: bool = False

    def __post_init__(self) -> None:
        _one_of("data.source", self.source, SOURCES)
        require(bool(self.train_heads and self.heldout_heads), "data: both lists of heads need at least one head")
        unknown = sorted(set(self.contrasts) - set(CONTRASTS))
        require(not unknown, f"data.contrasts: {unknown} are unknown; there are {', '.join(CONTRASTS)}")
        require(bool(self.contrasts), "data.contrasts: at least one is needed")
        require(self.spacing_mm > 0 and self.slice_spacing_mm > 0, "data: spacings must be more than 0 mm")
        good = len(self.size) == 2 and all(n >= 16 and n % 16 == 0 for n in self.size)
        require(good, f"data.size: must be rows and columns, both multiples of 16; got {self.size}")
        sides = list(zip(self.crop, self.size, strict=False))
        fits = len(self.crop) == 2 and all(16 <= n <= most and n % 16 == 0 for n, most in sides)
        require(
            not self.crop or (fits and not self.on_the_fly),
            f"data.crop: must be rows and columns, multiples of 16, at most {self.size}, of slices that are cached "
            f"(on_the_fly = false); got {self.crop}",
        )
        require(self.scans >= 1, f"data.scans: must be 1 or more; got {self.scans}")
        require(
            self.source == "simulated" or not self.on_the_fly, "data.on_the_fly: only simulated heads can be made so"
        )
        require(bool(self.path) or self.source in ("phantom", "simulated"), f"data.path: {self.source} needs one")


@dataclass(frozen=True)
class LabelConfig:
    """What the network should give.

    Parameters
    ----------
    kind
        One of `RULES`; ``optimum``, the best slice there is by the objective of
        `training.labels`; ``given``, the fused volume of the data set; or ``none``, for losses that need no label.
    steps, learning_rate
        Of the search for the optimum.
    bone, soft
        Weight of the fidelity to the CT in bone and to the MRI in soft tissue, against Qabf.
    batch_size
        Slices optimised at once.
    given_scale
        What the values of a given fused volume are: ``mri``, on the scale of its MRI; or ``own``, on one of their own,
        which is brought to the unit scale as an MRI's is.
    """

    kind: str = "bone_over_mri"
    steps: int = 40
    learning_rate: float = 0.1
    bone: float = 5.0
    soft: float = 5.0
    batch_size: int = 32
    given_scale: str = "mri"

    def __post_init__(self) -> None:
        _one_of("label.kind", self.kind, LABELS)
        _one_of("label.given_scale", self.given_scale, ("mri", "own"))
        require(self.steps >= 1 and self.batch_size >= 1, "label: steps and batch_size must be 1 or more")
        require(self.learning_rate > 0, f"label.learning_rate: must be more than 0; got {self.learning_rate}")


@dataclass(frozen=True)
class LossConfig:
    """Weights of the terms of `training.losses`; a term of weight 0 is not computed."""

    l1: float = 1.0
    l2: float = 0.0
    gradient: float = 0.0
    ssim: float = 0.0
    qabf: float = 0.0
    bone: float = 0.0
    soft: float = 0.0

    def __post_init__(self) -> None:
        require(any(getattr(self, entry.name) > 0 for entry in fields(self)), "loss: one term must be more than 0")
        for entry in fields(self):
            require(getattr(self, entry.name) >= 0, f"loss.{entry.name}: must be 0 or more")


@dataclass(frozen=True)
class OptimiserConfig:
    """How the weights are changed.

    Parameters
    ----------
    name
        ``sgd``, ``rmsprop``, ``adagrad``, ``adadelta``, ``adam``, ``adamw`` or ``lion``.
    learning_rate
        After the warm-up.
    momentum
        Of ``sgd``.
    weight_decay
        Decoupled for ``adamw`` and ``lion``, a penalty on squares for the others.
    clip
        The longest gradient; longer ones are shortened to it. 0: never.
    """

    name: str = "adam"
    learning_rate: float = 1e-3
    momentum: float = 0.9
    weight_decay: float = 0.0
    clip: float = 0.0

    def __post_init__(self) -> None:
        _one_of("optimiser.name", self.name, OPTIMISERS)
        require(self.learning_rate > 0, f"optimiser.learning_rate: must be more than 0; got {self.learning_rate}")
        for name in ("momentum", "weight_decay", "clip"):
            require(getattr(self, name) >= 0, f"optimiser.{name}: must be 0 or more; got {getattr(self, name)}")


@dataclass(frozen=True)
class ScheduleConfig:
    """How the learning rate goes: up along a line, then as `name` says.

    Parameters
    ----------
    name
        ``cosine``, half a wave down to `least`; ``plateau``, times `factor` whenever the held-out loss has not fallen
        for `patience` epochs; or ``constant``.
    warmup_steps
        Length of the line up.
    factor, patience
        Of ``plateau``.
    least
        The learning rate never falls below this share of the full one.
    """

    name: str = "cosine"
    warmup_steps: int = 0
    factor: float = 0.5
    patience: int = 5
    least: float = 0.0

    def __post_init__(self) -> None:
        _one_of("schedule.name", self.name, SCHEDULES)
        require(self.warmup_steps >= 0 and self.patience >= 0, "schedule: warmup_steps and patience must be 0 or more")
        require(0 < self.factor < 1, f"schedule.factor: must be between 0 and 1; got {self.factor}")
        require(0 <= self.least <= 1, f"schedule.least: must be from 0 to 1; got {self.least}")


@dataclass(frozen=True)
class TrainingConfig:
    """The loop.

    Parameters
    ----------
    epochs
        How many times every slice is seen. (On the fly: how many times `epoch_slices` are made.)
    epoch_slices
        Length of an epoch of slices that are made on the fly.
    batch_size
        Slices a step, all processes together.
    accumulate
        In how many parts a step's slices go through the network, to save memory.
    seed
        Of the order of the slices and of all that is drawn. (The initial weights have their own, ``network.seed``.)
    device
        As for `BrainFusionLib.device.pick_device`.
    precision
        ``float32``, or ``bf16`` or ``fp16`` where autocast uses them.
    ema
        Decay of the running mean of the weights that is judged and exported; 0 for none.
    early_stopping
        Stop after so many epochs without a better held-out loss; 0 for never.
    checkpoint_steps
        Steps from one checkpoint to the next; 0 for the ends of epochs only.
    deterministic
        Bit-identical repetition on a GPU, too, at some cost. (On the CPU it is always so for one number of threads.)
    threads
        CPU threads; 0 leaves it to torch.
    start, start_sha256
        Weights (name or file) that the network starts from, of its own architecture, and their sha256; empty: random.
    """

    epochs: int = 100
    epoch_slices: int = 4096
    batch_size: int = 8
    accumulate: int = 1
    seed: int = 0
    device: str = "auto"
    precision: str = "float32"
    channels_last: bool = True
    ema: float = 0.0
    early_stopping: int = 0
    checkpoint_steps: int = 0
    deterministic: bool = False
    threads: int = 0
    start: str = ""
    start_sha256: str = ""

    def __post_init__(self) -> None:
        for name in ("epochs", "epoch_slices", "batch_size", "accumulate"):
            require(getattr(self, name) >= 1, f"training.{name}: must be 1 or more; got {getattr(self, name)}")
        for name in ("early_stopping", "checkpoint_steps", "threads", "seed"):
            require(getattr(self, name) >= 0, f"training.{name}: must be 0 or more; got {getattr(self, name)}")
        require(self.threads <= MOST_THREADS, f"training.threads: must be at most {MOST_THREADS}; got {self.threads}")
        # Whether the machine has it is seen when the run starts.
        if not re.fullmatch(r"cuda:\d{1,3}", self.device):
            _one_of("training.device", self.device, get_args(Device))
        _one_of("training.precision", self.precision, PRECISIONS)
        require(0 <= self.ema < 1, f"training.ema: must be from 0 to below 1; got {self.ema}")
        fits = self.batch_size % self.accumulate == 0
        require(fits, f"training.accumulate: {self.accumulate} does not divide the batch of {self.batch_size}")


@dataclass(frozen=True)
class LogConfig:
    """What is logged: a line every `steps` steps; TensorBoard with `images` example slices an epoch."""

    steps: int = 10
    tensorboard: bool = False
    images: int = 4
    progress: bool = True

    def __post_init__(self) -> None:
        require(self.steps >= 1 and self.images >= 0, "log: steps must be 1 or more, images 0 or more")


@dataclass(frozen=True)
class Config:
    """A whole run. `network` is an architecture as `BrainFusionLib.fusion.network.build_network` takes it."""

    data: DataConfig
    simulation: SimulationConfig = field(default_factory=SimulationConfig)
    label: LabelConfig = field(default_factory=LabelConfig)
    network: dict[str, Any] = field(default_factory=lambda: {"name": "fusion_net", "width": 16})
    loss: LossConfig = field(default_factory=LossConfig)
    optimiser: OptimiserConfig = field(default_factory=OptimiserConfig)
    schedule: ScheduleConfig = field(default_factory=ScheduleConfig)
    training: TrainingConfig = field(default_factory=TrainingConfig)
    log: LogConfig = field(default_factory=LogConfig)

    def __post_init__(self) -> None:
        needed = self.loss.l1 or self.loss.l2 or self.loss.gradient or self.loss.ssim
        require(
            not (needed and self.label.kind == "none"),
            "label.kind: none, but the loss compares with a label; set loss.l1, l2, gradient and ssim to 0",
        )
        require(
            not (self.data.on_the_fly and self.label.kind in ("given", "optimum")),
            f"label.kind: {self.label.kind} takes too long to be made at each step; cache the scans "
            "(data.on_the_fly = false), or use a rule or none",
        )
        require(
            self.label.kind != "given" or self.data.source in ("original", "manifest"),
            f"label.kind: given, but {self.data.source} heads come without fused volumes",
        )


def _one_of(name: str, value: str, known: Sequence[str]) -> None:
    require(value in known, f"{name}: {value!r} is unknown; there are {', '.join(known)}")


def require(condition: object, otherwise: str) -> None:
    """Raise a `SettingsError` saying `otherwise` unless the condition holds."""
    if not condition:
        raise SettingsError(otherwise)
