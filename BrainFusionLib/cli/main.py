"""The ``brainfusion`` command.

Exit codes: 0 done; 1 a fault of the program; 2 wrong input, settings or files; 3 CT and MRI could not be aligned
(nothing was written), or the result is in doubt (all but the DICOM results was written); 130 interrupted with Ctrl-C;
143 terminated (SIGTERM).
"""

from __future__ import annotations

import argparse
import importlib
import itertools
import logging
import os
import sys
from collections.abc import Sequence

from BrainFusionLib.cli.codes import DONE, FAULT, INTERRUPTED, NOT_FOUND, TERMINATED, WRONG_INPUT, fail
from BrainFusionLib.cli.parser import Parser
from BrainFusionLib.console import SaidLog, close_output, lost_output, say
from BrainFusionLib.device import keep_freed_memory
from BrainFusionLib.errors import BrainFusionError, Cancelled, RegistrationError, Remedy, SettingsError
from BrainFusionLib.stopping import ending_on_signals
from BrainFusionLib.version import INTENDED_USE, __version__

__all__ = ["DONE", "FAULT", "INTERRUPTED", "NOT_FOUND", "TERMINATED", "WRONG_INPUT", "main"]

# In the order of the help: the module in this package that adds the command, and its line. The modules are loaded on
# use: all of them take half a second, which `--help` does not need.
COMMANDS = {
    "fuse": "register and fuse a CT and an MRI",
    "register": "register only, and write the transform",
    "error": "expected error of a result at points and along lines",
    "sign": "approve or reject a result, or comment on it",
    "cohort": "register and fuse many pairs",
    "review": "approve or reject the cases of a cohort in the browser",
    "validate": "measure a cohort with landmarks against the errors stated",
    "slices": "fuse folders of registered 8-bit CT and MRI slices",
    "metrics": "measure a fused image against its CT and MRI",
    "sample": "make a CT and an MRI to try everything on",
    "doctor": "list the packages installed, the device and the weights",
}


# Those without an option, and the output.
PATHS = ("ct", "mri", "output", "cohort", "result")
# Texts of people: an empty one is none.
MAY_BE_EMPTY = ("--comment", "--name")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command and return its exit code; a wrong input prints no traceback.

    Raises
    ------
    SystemExit
        Wrong arguments, ``--help`` and ``--version`` (argparse's way), or the signals SIGTERM and SIGHUP.
    """
    logging.basicConfig(level=logging.WARNING, format="%(message)s", handlers=[SaidLog()])
    try:
        given = list(sys.argv[1:] if arguments is None else arguments)
        # No option of the command itself takes a value.
        command = next((word for word in given if not word.startswith("-")), "")
        options = make_parser(command).parse_args(given)
    finally:
        close_output()  # of --help, or of the words about a wrong option
    keep_freed_memory()
    with ending_on_signals():
        code = _done(options, given)
    if code == DONE and lost_output():
        return fail(f"the output could not be shown ({lost_output()}). Results in files are complete.", WRONG_INPUT)
    return code


def _refuse_empty(options: argparse.Namespace, given: Sequence[str]) -> None:
    """Refuse empty arguments: as a path they would stand for the folder that the command runs in.

    :raises SettingsError: one is empty
    """
    wrong = next((f"the path of the {name}" for name in PATHS if getattr(options, name, None) == ""), "")
    for before, word in itertools.pairwise(given):
        option, is_given, value = word.partition("=")
        if option.startswith("--") and is_given and not value and option not in MAY_BE_EMPTY:
            wrong = wrong or option
        elif not word and before not in MAY_BE_EMPTY:
            wrong = wrong or f"the argument after {before}"
    if wrong:
        raise SettingsError(f"{wrong} is empty. Was a variable of the shell not set?")


def _done(options: argparse.Namespace, given: Sequence[str]) -> int:
    try:
        _refuse_empty(options, given)
        code: int = options.run(options)
        return code
    except RegistrationError as error:
        from BrainFusionLib.cli.pair import keep_refused

        fail(error, NOT_FOUND)
        return keep_refused(error.best_transform, options.keep_refused)
    except (KeyboardInterrupt, Cancelled):
        say("", "interrupted; only complete results were kept", error=True)
        return INTERRUPTED
    except BrainFusionError as error:
        return fail(error, WRONG_INPUT)
    except OSError as error:
        # A path that the system does not take (too long, on a drive that is gone) is wrong input wherever it is met.
        if error.filename is None:
            raise
        return fail(f"{os.fsdecode(error.filename)}: {error.strerror}. Give another path.", WRONG_INPUT)
    except (MemoryError, RuntimeError) as error:
        # torch has no error of its own for the CPU's memory; the GPU's derives from RuntimeError.
        if isinstance(error, MemoryError) or "memory" in str(error):
            return fail(BrainFusionError("not enough memory for these volumes.", remedy=Remedy.USE_CPU), WRONG_INPUT)
        raise


def make_parser(command: str | None = None) -> Parser:
    """Return the parser of the whole command, or, quickly, one that knows the options of `command` only.

    docs/cli.md is made from it, too.
    """
    parser = Parser(
        prog="brainfusion",
        description="Registers a head CT to an MRI of the same patient and fuses the two; rejects wrong pairs with an "
        "explanation.",
        epilog=f"Example: brainfusion fuse ct.nrrd mri.nrrd -o results    Results are {INTENDED_USE}.",
    )
    parser.add_argument("--version", action="version", version=f"brainfusion {__version__}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")

    for name, line in COMMANDS.items():
        if command in (None, name):
            importlib.import_module(f"BrainFusionLib.cli.{name}").add_to(commands, line)
        else:
            commands.add_parser(name, help=line)
    return parser
