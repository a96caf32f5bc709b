"""Names of volumes, and texts without the names of the inputs, which may identify the patient."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from BrainFusionLib.settings import Side

# Words of this project's own texts, which are not the names of the inputs even if an input is called so.
_OWN_WORDS = frozenset({"CT", "MR", "MRI", "mask"})
_SHORTEST_WORD, _SHORTEST_NUMBER = 3, 5


@dataclass(frozen=True)
class VolumeNames:
    """Names of the volumes of a result, made from those of its CT and its MRI.

    Attributes
    ----------
    ct, mri
        Names of the inputs, or their roles.
    reference
        Whose frame the volumes are in.
    """

    ct: str
    mri: str
    reference: Side

    @property
    def fused(self) -> str:
        """Of the fused volume."""
        return f"{self.mri} fused with {self.ct}"

    @property
    def alpha(self) -> str:
        """Of the weight of the CT."""
        return f"weight of {self.ct} in {self.fused}"

    @property
    def ct_on_grid(self) -> str:
        """Of the CT on the grid of the result."""
        return f"{self.ct} in {self.mri}" if self.reference == "mri" else self.ct

    @property
    def mri_on_grid(self) -> str:
        """Of the MRI on the grid of the result."""
        return self.mri if self.reference == "mri" else f"{self.mri} in {self.ct}"

    @property
    def bone(self) -> str:
        """Of the bone, which is on the MRI's grid in either frame."""
        return f"bone of {self.ct} in {self.mri}"


def remover(named: Iterable[tuple[str, str]]) -> Callable[[str], str]:
    """Return a function that replaces the names of the inputs in a text by their roles.

    For texts from outside, such as names of landmarks: this project's own texts name volumes by their roles. Names are
    replaced in one pass, where they stand alone: not inside a word or a number. Names that are hard to distinguish
    from the words and numbers of a sentence (``head``, ``2``) are only replaced where they are quoted or introduce the
    text ("head: no orientation").

    Parameters
    ----------
    named
        Name and role of each input. A name that several share becomes "CT or MRI".
    """
    roles: dict[str, str] = {}
    for name, role in named:
        if name and name not in _OWN_WORDS:
            roles[name] = f"{roles[name]} or {role}" if name in roles else role
    # The longest first: one name may be a part of another.
    names = sorted(roles, key=len, reverse=True)
    pattern = re.compile("|".join(_pattern(name) for name in names))
    return lambda text: pattern.sub(lambda found: roles[found[0]], text) if roles else text


def _pattern(name: str) -> str:
    word = re.escape(name)
    if _is_distinct(name):
        return rf"(?<![^\W_])(?<!\d[.,]){word}(?![^\W_])(?![.,]\d)"
    return rf"^{word}(?=: )|(?<=['\"]){word}(?=['\"])"


def _is_distinct(name: str) -> bool:
    """Return whether a name is not likely to be a word or a number of a sentence."""
    if not any(letter.isalpha() for letter in name):
        return len(name) >= _SHORTEST_NUMBER
    return len(name) >= _SHORTEST_WORD and not (name.isalpha() and name.islower())
