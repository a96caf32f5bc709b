"""Optimisers and learning rates."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch.optim import SGD, Adadelta, Adagrad, Adam, AdamW, Optimizer, RMSprop

from training.config import OptimiserConfig, ScheduleConfig


class Lion(Optimizer):
    """Steps of one length: the sign of a running mean of the gradients, with decoupled weight decay.

    Source: X. Chen et al., "Symbolic discovery of optimization algorithms", NeurIPS 2023, algorithm 2.
    """

    def __init__(
        self,
        parameters: Iterable[torch.nn.Parameter],
        lr: float = 1e-4,
        betas: tuple[float, float] = (0.9, 0.99),
        weight_decay: float = 0.0,
    ) -> None:
        super().__init__(parameters, {"lr": lr, "betas": betas, "weight_decay": weight_decay})

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> None:  # type: ignore[override]
        """Change the weights by their gradients."""
        for group in self.param_groups:
            (quick, slow), rate = group["betas"], group["lr"]
            for parameter in group["params"]:
                if parameter.grad is None:
                    continue
                state: dict[str, Any] = self.state[parameter]
                mean = state.setdefault("mean", torch.zeros_like(parameter))
                parameter.mul_(1 - rate * group["weight_decay"])
                parameter.sub_(mean.lerp(parameter.grad, 1 - quick).sign_(), alpha=rate)
                mean.lerp_(parameter.grad, 1 - slow)


def build_optimiser(parameters: Iterable[torch.nn.Parameter], config: OptimiserConfig) -> Optimizer:
    """Return the optimiser that a configuration names."""
    rate, decay = config.learning_rate, config.weight_decay
    builders: dict[str, Callable[[], Optimizer]] = {
        "sgd": lambda: SGD(parameters, lr=rate, momentum=config.momentum, weight_decay=decay),
        "rmsprop": lambda: RMSprop(parameters, lr=rate, weight_decay=decay),
        "adagrad": lambda: Adagrad(parameters, lr=rate, weight_decay=decay),
        "adadelta": lambda: Adadelta(parameters, lr=rate, weight_decay=decay),
        "adam": lambda: Adam(parameters, lr=rate, weight_decay=decay),
        "adamw": lambda: AdamW(parameters, lr=rate, weight_decay=decay),
        "lion": lambda: Lion(parameters, lr=rate, weight_decay=decay),
    }
    return builders[config.name]()


def learning_rate_share(config: ScheduleConfig, step: int, steps: int, plateaus: int) -> float:
    """Return the share of the full learning rate that a step has.

    A function of where the run is and of nothing else, so that a resumed run goes on as it would have.

    Parameters
    ----------
    step, steps
        The step, from 0, and how many there are in all.
    plateaus
        How often the held-out loss has stopped falling.
    """
    if step < config.warmup_steps:
        return (step + 1) / config.warmup_steps
    if config.name == "cosine":
        done = (step - config.warmup_steps) / max(1, steps - config.warmup_steps)
        return config.least + (1 - config.least) * 0.5 * (1 + math.cos(math.pi * done))
    if config.name == "plateau":
        return max(config.least, config.factor**plateaus)
    return 1.0
