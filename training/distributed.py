"""One process or many: ``torchrun --nproc-per-node N -m training.train …`` starts a team of them."""

from __future__ import annotations

import gc
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta

import torch
import torch.distributed as dist

from BrainFusionLib.device import pick_device

# The slowest process registers and labels its share of the heads while the others wait.
TIMEOUT = timedelta(hours=12)


@dataclass(frozen=True)
class Team:
    """The processes that train one network together.

    Parameters
    ----------
    rank, world
        Which process this is, and how many there are.
    device
        Where this one computes.
    """

    rank: int
    world: int
    device: torch.device

    @property
    def leads(self) -> bool:
        """Whether this process writes files and talks to people."""
        return self.rank == 0

    def wait(self) -> None:
        """Return when all processes have come here."""
        if self.world > 1:
            dist.barrier()

    def sum(self, values: torch.Tensor) -> torch.Tensor:
        """Return the sum of a tensor over all processes; the same on each."""
        if self.world > 1:
            values = values.clone()
            dist.all_reduce(values)
        return values


@contextmanager
def join_team(device: str) -> Iterator[Team]:
    """Join the processes that torchrun has started, or be a team of one.

    Raises
    ------
    SettingsError
        There is no such device.
    """
    world = int(os.environ.get("WORLD_SIZE", "1"))
    if world == 1:
        yield Team(0, 1, torch.device(pick_device(device)))
        return
    picked = torch.device(pick_device(device))
    if picked.type == "cuda":
        picked = torch.device("cuda", int(os.environ["LOCAL_RANK"]))
        torch.cuda.set_device(picked)
    dist.init_process_group("nccl" if picked.type == "cuda" else "gloo", timeout=TIMEOUT)
    try:
        yield Team(dist.get_rank(), world, picked)
        # None leaves while another one still talks to it: seen once, on a busy machine, as an abort at the end.
        dist.barrier()
    finally:
        # DistributedDataParallel holds itself by a circle of references. Left to the end of Python, it would be taken
        # down after the group whose threads it uses.
        gc.collect()
        dist.destroy_process_group()
