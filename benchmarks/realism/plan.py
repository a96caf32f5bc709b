"""Which cases are made: kinds, seeds, heads and hospitals, so that a longer plan begins with a shorter one.

Cases come in groups of three simulated pairs of different heads and one wrong case made from them. Of every two groups,
the first is of the heads and hospitals that calibrate, the second of those that judge.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from simulation.physics.kinds import KINDS

Made = Literal["", "pose off", "mirrored", "other person"]

FIRST_SEED = 5000
SIMULATED = 3
A_GROUP = SIMULATED + 1
# One hospital's scanners see so many groups of its half.
GROUPS_A_SITE = 2
# In turn, for each half.
MADE: tuple[Made, ...] = ("pose off", "mirrored", "pose off", "other person")
# Kinds of which the first groups had too few or none: all pairs from a group on are theirs, in turn.
MORE = {250: ("distortion alone", "ventricles changed"), 262: ("bright marrow",)}
BY_HAND = (*(kind for kind in KINDS if kind not in {k for kinds in MORE.values() for k in kinds}), "clinic")


@dataclass(frozen=True)
class Task:
    """A pair to simulate.

    Attributes
    ----------
    kind, seed, site
        As `simulation.physics.kinds.draw_kind` and `draw_site` want them.
    head
        Its place among the heads.
    half
        0 calibrates, 1 judges.
    """

    kind: str
    seed: int
    site: int
    head: int
    half: int


@dataclass(frozen=True)
class Group:
    """Three pairs, and which wrong case is made of them."""

    number: int
    tasks: tuple[Task, ...]
    made: Made

    @property
    def half(self) -> int:
        """0 calibrates, 1 judges."""
        return self.number % 2


def plan(cases: int, heads: int) -> list[Group]:
    """Return the groups of the first so many cases, rounded up to whole groups.

    Raises
    ------
    ValueError
        There are fewer than four heads: both halves need two, for the case of another person.
    """
    if heads < 4:
        raise ValueError(f"the benchmark needs four heads or more; there are {heads}")
    return [_group(number, heads) for number in range(-(-cases // A_GROUP))]


def _group(number: int, heads: int) -> Group:
    half, turn = number % 2, number // 2
    ours = range(half, heads, 2)
    site = 2 * (turn // GROUPS_A_SITE) + half
    tasks = []
    for place in range(SIMULATED):
        count = SIMULATED * turn + place
        kind = "mix" if count % 2 == 0 else BY_HAND[count // 2 % len(BY_HAND)]
        for first, kinds in MORE.items():
            if number >= first:
                kind = kinds[turn % len(kinds)]
        tasks.append(Task(kind, FIRST_SEED + SIMULATED * number + place, site, ours[count % len(ours)], half))
    return Group(number, tuple(tasks), MADE[turn % len(MADE)])
