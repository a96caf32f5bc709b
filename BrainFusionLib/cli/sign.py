"""``brainfusion sign``: approve or reject a result, or comment on it."""

from __future__ import annotations

import argparse
from typing import Any

from BrainFusionLib.case.decision import NO_SIGNATURE, Action, Standing, state_of
from BrainFusionLib.case.record import read_record
from BrainFusionLib.cli.codes import DONE, FAULT
from BrainFusionLib.console import say
from BrainFusionLib.errors import SettingsError
from BrainFusionLib.signing import read_standings, record_of, sign_result

SENTENCES = {
    "approved": "Approved; nothing has changed since.",
    "rejected": "Rejected; nothing has changed since.",
    "void": "Void: the result has changed since it was approved or rejected.",
    "unsigned": "Neither approved nor rejected.",
}


def add_to(commands: Any, line: str) -> None:
    """Add the command to the parser's; `line` is its help in the list of commands."""
    command = commands.add_parser(
        "sign",
        help=line,
        description="Note in a result and its report who approved or rejected it, when, and what exactly; or show "
        "whether that still holds.",
        epilog=f"{NO_SIGNATURE} A decision is about the inputs, the pose, and every file of the result, by sha256; if "
        "any of them changes, it is void. Later decisions are added, and earlier ones stay. Exit codes: 0 done, 1 with "
        "--show: void, 2 the result cannot be read, or something is missing.",
    )
    command.add_argument("result", metavar="RESULT_FOLDER", help="folder of a result, or its result.json")
    what = command.add_mutually_exclusive_group()
    what.add_argument("--approve", action="store_const", dest="action", const="approve", help="approve the result")
    what.add_argument("--reject", action="store_const", dest="action", const="reject", help="reject the result")
    what.add_argument("--show", action="store_true", help="only show the decisions, and whether they still hold")
    command.add_argument(
        "--comment", default="", metavar="TEXT", help="words to keep with the decision, or without any decision"
    )
    command.add_argument(
        "--name", metavar="NAME", help="who decides; it is not taken from the system, and stands in the report"
    )
    for role in ("CT", "MRI"):
        command.add_argument(
            f"--{role.lower()}", metavar="FILE", help=f"with --show: also check that this is the {role} of the result"
        )
    command.set_defaults(run=_sign, keep_refused=None)


def _sign(options: argparse.Namespace) -> int:
    action: Action | None = options.action or ("comment" if options.comment else None)
    if options.show:
        if options.comment or options.name:
            raise SettingsError("--show changes nothing: omit --name and --comment, or omit --show.")
        return _show(options)
    if options.ct or options.mri:
        raise SettingsError("--ct and --mri are compared with --show only.")
    if action is None:
        raise SettingsError("what was decided? Give --approve, --reject or --comment TEXT; or --show.")
    if options.name is None:
        raise SettingsError("who decides? Give the name with --name; it is not taken from the system.")
    standings = sign_result(options.result, action, options.name, options.comment)
    _say(standings)
    verdict = read_record(record_of(options.result)).verdict
    say(f"The verdict of the result: {verdict.sentence}.")
    say(NO_SIGNATURE)
    return DONE


def _show(options: argparse.Namespace) -> int:
    standings = read_standings(options.result, options.ct, options.mri)
    _say(standings)
    if (options.ct or options.mri) and not standings:
        say("CT and MRI were not compared: there is no decision yet.")
    state = state_of(standings)
    say(SENTENCES[state])
    return FAULT if state == "void" else DONE


def _say(standings: tuple[Standing, ...]) -> None:
    for standing in standings:
        say(*f"  {standing.sentence}".replace("\n", "\n    ").split("\n"))
