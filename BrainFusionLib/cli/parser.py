"""The parser of the command: help in paragraphs, and what is wrong in one line instead of a screen of options."""

from __future__ import annotations

import argparse
import difflib
import re
from typing import Any, NoReturn

from BrainFusionLib.cli.codes import WRONG_INPUT
from BrainFusionLib.console import say


class _Paragraphs(argparse.HelpFormatter):
    """Fills each paragraph by itself; four spaces in a text begin a new one."""

    def _fill_text(self, text: str, width: int, indent: str) -> str:
        fill = super()._fill_text
        return "\n".join(fill(paragraph, width, indent) for paragraph in text.split("    "))


class Parser(argparse.ArgumentParser):
    """Says in one line what is wrong, what may have been meant, and what is wanted."""

    def __init__(self, **settings: Any) -> None:
        super().__init__(formatter_class=_Paragraphs, **settings)

    def error(self, message: str) -> NoReturn:
        """Print it, and end with the exit code of wrong input."""
        # What was not recognised comes from the parser of the whole command; what is wanted is said of the one given.
        commands = next((action.choices for action in self._actions if isinstance(action.choices, dict)), {})
        given = next((parser for parser in commands.values() if len(parser._actions) > 1), self)
        known = [*commands, *given._option_string_actions]
        choice = re.match(r"argument ([^:]*): invalid choice: '([^']*)' \(choose from (.*)\)$", message)
        words = [choice[2]] if choice else re.findall(r"(?<= )--?[\w-]+", message)
        if choice and choice[1] != "COMMAND":
            known = re.findall(r"[\w.-]+", choice[3])
        close = [near for word in words if word not in known for near in difflib.get_close_matches(word, known, 1)]
        meant = f" Did you mean {close[0]}?" if close else ""
        usage = usage_of(given)
        said = f"{self.prog}: {message}.{meant}", f"Usage: {usage}; {given.prog} --help lists all."
        say(*said, error=True)
        self.exit(WRONG_INPUT)


def usage_of(parser: argparse.ArgumentParser) -> str:
    """Return how a command is called, with what it cannot do without."""
    positional = [str(action.metavar or action.dest) for action in parser._positionals._group_actions]
    needed = [
        f"{action.option_strings[0]} {action.metavar}"
        for action in parser._actions
        if action.required and action.option_strings
    ]
    return " ".join([parser.prog, *positional, *needed, "[OPTION ...]"])
