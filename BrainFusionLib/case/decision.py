"""What a person decided about a result: approved, rejected, or a comment. Not a legal signature."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Literal, TypeAlias

from BrainFusionLib.case.codec import Plain, to_plain
from BrainFusionLib.errors import SettingsError
from BrainFusionLib.values import ByValue
from BrainFusionLib.version import __version__

Action: TypeAlias = Literal["approve", "reject", "comment"]
State: TypeAlias = Literal["approved", "rejected", "void", "unsigned"]

NO_SIGNATURE = "A note of who decided what, not a legal signature: it shows changes, but not forgeries."
LONGEST_NAME, LONGEST_COMMENT = 100, 4000
_DONE: dict[Action, str] = {"approve": "Approved", "reject": "Rejected", "comment": "Comment"}
# Joiners of letters, which names in Persian or Hindi contain; all else that cannot be seen is refused.
_JOINERS = "\u200c\u200d"


@dataclass(frozen=True, eq=False)
class Signed(ByValue):
    """What a decision is about, each part by its sha256.

    Attributes
    ----------
    inputs
        The inputs by role ("ct", "mri", "mri_mask"), as far as theirs are known.
    pose
        The pose of the CT.
    result
        The record of the result, without its decisions.
    files
        The files of the result by role, without what a decision changes in them.
    """

    inputs: dict[str, str]
    pose: str
    result: str
    files: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True, eq=False)
class Decision(ByValue):
    """One decision. Later ones are added behind it; none is ever removed.

    Attributes
    ----------
    action
        Approve, reject, or only a comment, which leaves an earlier decision in force.
    name
        Who decided, as they call themselves.
    comment
        Their words; empty without any.
    date
        UTC, ISO 8601.
    version
        Version of BrainFusion.
    signed
        What it is about.
    previous
        The seal of the decision before this one; empty for the first.
    seal
        The sha256 of all of the above.

    Raises
    ------
    SettingsError
        No name, a comment without words, a text that is too long, or characters that cannot be seen.
    """

    action: Action
    name: str
    comment: str
    date: str
    version: str
    signed: Signed
    previous: str = ""
    seal: str = ""

    def __post_init__(self) -> None:
        _check("name", self.name, LONGEST_NAME)
        _check("comment", self.comment, LONGEST_COMMENT)
        if not self.name.strip():
            raise SettingsError("a decision needs the name of the person who decides.")
        if self.action == "comment" and not self.comment.strip():
            raise SettingsError("a comment needs words.")

    @property
    def content_sha256(self) -> str:
        """The seal that belongs to the other fields."""
        plain = to_plain(self)
        assert isinstance(plain, dict)
        return sha256_of_plain({key: value for key, value in plain.items() if key != "seal"})

    @property
    def sentence(self) -> str:
        """Who decided what, and when."""
        return f"{_DONE[self.action]} by {self.name}, {self.date}" + (f": {self.comment}" if self.comment else "")


@dataclass(frozen=True)
class Standing:
    """A decision, and why it no longer holds, in sentences without a full stop; none if it holds."""

    decision: Decision
    void: tuple[str, ...] = ()

    @property
    def sentence(self) -> str:
        """The decision, and whether it holds."""
        return f"{self.decision.sentence}. Void: {'; '.join(self.void)}" if self.void else self.decision.sentence


def decide(
    action: Action, name: str, comment: str, signed: Signed, earlier: tuple[Decision, ...] = ()
) -> tuple[Decision, ...]:
    """Return earlier decisions with a new one of this moment behind them.

    Raises
    ------
    SettingsError
        As `Decision`.
    """
    date = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    previous = earlier[-1].seal if earlier else ""
    comment = comment.replace("\r\n", "\n").replace("\t", " ").strip()
    values = (action, " ".join(name.split()), comment, date, __version__, signed, previous)
    return (*earlier, Decision(*values, seal=Decision(*values).content_sha256))


def edited(decisions: tuple[Decision, ...]) -> list[list[str]]:
    """Return for each decision why it is not as it was made; empty lists if all are."""
    found = []
    before = ""
    for decision in decisions:
        why = []
        if decision.seal != decision.content_sha256:
            why.append("the decision itself was edited")
        if decision.previous != before:
            why.append("an earlier decision was edited or removed")
        found.append(why)
        before = decision.seal if decision.seal == decision.content_sha256 else "edited"
    return found


def changes(decision: Decision, now: Signed) -> list[str]:
    """Say what differs from what a decision is about: inputs and pose first."""
    names = {"ct": "the CT", "mri": "the MRI", "mri_mask": "the registration mask"}
    was = decision.signed
    found = [
        f"{names.get(role, role)} is another one"
        for role in sorted(was.inputs.keys() | now.inputs.keys())
        if was.inputs.get(role) != now.inputs.get(role)
    ]
    if was.pose != now.pose:
        found.append("the pose was changed")
    return found


def state_of(standings: tuple[Standing, ...]) -> State:
    """Return what the last approval or rejection says; comments leave it in force."""
    for standing in reversed(standings):
        if standing.decision.action != "comment":
            if standing.void:
                return "void"
            return "approved" if standing.decision.action == "approve" else "rejected"
    return "unsigned"


def sha256_of_plain(plain: Plain) -> str:
    """Return the sha256 of plain values, whatever the order of their keys."""
    text = json.dumps(plain, sort_keys=True, separators=(",", ":"), ensure_ascii=True)
    return hashlib.sha256(text.encode("ascii")).hexdigest()


def _check(what: str, text: str, longest: int) -> None:
    if len(text) > longest:
        raise SettingsError(f"the {what} has {len(text)} characters; at most {longest} are kept.")
    allowed = _JOINERS + ("\n" if what == "comment" else "")
    hidden = [letter for letter in text if not letter.isprintable() and letter not in allowed]
    if hidden:
        raise SettingsError(f"the {what} has a character that cannot be shown (U+{ord(hidden[0]):04X}).")
