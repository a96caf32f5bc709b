"""``brainfusion review``: look at the cases of a cohort in the browser, and approve or reject them."""

from __future__ import annotations

import argparse
import threading
import webbrowser
from pathlib import Path
from typing import Any

from BrainFusionLib.case.decision import NO_SIGNATURE
from BrainFusionLib.cli.codes import INTERRUPTED
from BrainFusionLib.cohort.decided import TABLE
from BrainFusionLib.cohort.review_server import ReviewServer
from BrainFusionLib.cohort.reviewed import find_cases, refresh_overview
from BrainFusionLib.cohort.row import OVERVIEW
from BrainFusionLib.console import say
from BrainFusionLib.quantities import counted

# How long a decision that is being written may hold up the end.
_LONGEST_DECISION_S = 0.7


def add_to(commands: Any, line: str) -> None:
    """Add the command to the parser's; `line` is its help in the list of commands."""
    command = commands.add_parser(
        "review",
        help=line,
        description="Show the cases of a cohort in the browser, the worst first, to be approved or rejected by the "
        "keyboard. Ends with Ctrl-C.",
        epilog=f"Decisions are added to {TABLE} in COHORT and to each result (see brainfusion sign). {NO_SIGNATURE} "
        "The page is on this machine only (127.0.0.1), for whoever has the address that is printed. Exit code: 130.",
    )
    command.add_argument("cohort", metavar="COHORT", help="the folder of results that brainfusion cohort wrote")
    command.add_argument("--port", type=int, default=0, metavar="N", help="port to listen on (default: any free one)")
    command.add_argument("--no-browser", action="store_true", help="only print the address")
    command.set_defaults(run=_review, keep_refused=None)


def _review(options: argparse.Namespace) -> int:
    folder = Path(options.cohort)
    cases = find_cases(folder)
    with ReviewServer(folder.resolve(), cases, options.port) as server:
        say(f"{counted(len(cases), 'case')}: {server.address}")
        say(f"Decisions are added to {folder / TABLE}. End with Ctrl-C.")
        if not options.no_browser:
            # Some browsers return only when they are closed.
            threading.Thread(target=webbrowser.open, args=(server.address,), daemon=True).start()
        try:
            server.serve_forever(poll_interval=0.1)
        except KeyboardInterrupt:
            server.deciding.acquire(timeout=_LONGEST_DECISION_S)
            say("", f"Ended; all decisions are in {folder / TABLE}.")
            try:
                refresh_overview(cases, folder)
            except Exception as error:  # the decisions are kept, and nothing else is lost
                say(f"{folder / OVERVIEW} does not show them all: {error or type(error).__name__}")
    return INTERRUPTED
