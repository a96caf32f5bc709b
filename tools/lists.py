"""Lists in the pages that are made from the tables of the library: ``python -m tools.lists`` brings them up to date.

A page holds a list between two comments, ``<!-- list: NAME -->`` and ``<!-- end of list -->``. This program writes what
stands between them. With ``--check`` nothing is written, and the exit code is 1 where a list is out of date.

A new list is one function and one row of `LISTS`.
"""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from BrainFusionLib.errors import BrainFusionError
from BrainFusionLib.io import write_text
from BrainFusionLib.io.tables import markdown_table

ROOT = Path(__file__).resolve().parents[1]
BLOCK = re.compile(r"(<!-- list: (?P<name>[\w-]+) -->\n)(?P<lines>.*?)(<!-- end of list -->)", re.DOTALL)
MARKS = re.compile(r"<!-- (list:|end of list)")


class ListError(BrainFusionError, ValueError):
    """A page asks for a list that there is not, or has one comment of the two."""


def formats() -> str:
    """Return the file formats for volumes, from `io.formats.FORMATS`."""
    from BrainFusionLib.io.formats import FORMATS, output_names

    default = output_names()[0]
    rows = [
        (
            form.label,
            f"a folder of slices, or one of them ({_code(form.suffixes)})" if form.slices else _code(form.suffixes),
            _code(form.written),
            ", ".join(f"`{name}` (default)" if name == default else f"`{name}`" for name in form.results),
        )
        for form in FORMATS
    ]
    return markdown_table(("format", "read", "written", "results (`--format`)"), rows)


def methods() -> str:
    """Return the fusion methods, from `fusion.methods.METHODS`."""
    from BrainFusionLib.fusion.methods import METHODS

    rows = [(f"`{method.name}`", method.label, method.description) for method in METHODS.values()]
    return markdown_table(("`--rule`", "in the panel", "what it does"), rows)


def criteria() -> str:
    """Return the criteria of the verdict, from `verdict.table.CRITERIA`."""
    from BrainFusionLib.verdict.table import CRITERIA

    rows = [
        (
            f"`{row.code}`",
            row.name,
            row.sense,
            _limit(row.green),
            _limit(row.amber),
            _limit(row.red),
            _limit(row.refuse),
            row.unit,
        )
        for row in CRITERIA
    ]
    return markdown_table(("code", "what is measured", "wanted", "remark", "amber", "red", "refused", "unit"), rows)


def commands() -> str:
    """Return what each command is for and all its options, from the command's own parser."""
    from BrainFusionLib.cli.main import make_parser
    from BrainFusionLib.cli.parser import usage_of

    parts = []
    for name, parser in _subparsers(make_parser()).items():
        rows = [
            (_option(action), _in_table(parser._get_formatter()._expand_help(action) if action.help else ""))
            for action in parser._actions
            if not isinstance(action, argparse._HelpAction)
        ]
        about = _in_table(parser.description or "")
        parts.append(f"## brainfusion {name}\n\n{about}\n\n```sh\n{usage_of(parser)}\n```\n\n")
        parts[-1] += markdown_table(("argument", "meaning"), rows)
    return "\n\n".join(parts)


def doctor() -> str:
    """Return what stands in the JSON of ``brainfusion doctor``, from `cli.doctor.FIELDS`."""
    from BrainFusionLib.cli.doctor import FIELDS

    return markdown_table(("field", "meaning"), [(f"`{name}`", meaning) for name, meaning in FIELDS])


def remedies() -> str:
    """Return each remedy in the words of the command, of the panel and of Python, from `errors.Remedy`."""
    from BrainFusionLib.cli.remedies import PHRASES
    from BrainFusionLib.errors import Remedy

    panel = _panel_phrases()
    rows = [
        (*(phrases.get(remedy, remedy.value).rstrip(":") for phrases in (PHRASES, panel)), remedy.value.rstrip(":"))
        for remedy in Remedy
    ]
    return markdown_table(("console command", "panel in Slicer", "Python"), rows)


def missed() -> str:
    """Return below which size a displacement may be missed, from `verdict.displaced`."""
    from BrainFusionLib.verdict import displaced

    rows = [
        ("shift of the brain, CT and MRI with contrast in common", displaced.MISSED_SHIFT_MM),
        ("the same, with little of it (`small_shift_not_judged`)", displaced.MISSED_IN_LITTLE_MM),
        ("the same, with hardly any", displaced.MISSED_IN_HARDLY_ANY_MM),
        ("distortion of the MRI", displaced.MISSED_DISTORTION_MM),
    ]
    return markdown_table(("may be missed", "below about, mm"), [(what, str(mm)) for what, mm in rows])


LISTS: dict[str, Callable[[], str]] = {
    "formats": formats, "methods": methods, "criteria": criteria, "commands": commands, "doctor": doctor,
    "missed": missed, "remedies": remedies,
}  # fmt: skip


def _subparsers(parser: argparse.ArgumentParser) -> dict[str, argparse.ArgumentParser]:
    (action,) = (one for one in parser._actions if isinstance(one, argparse._SubParsersAction))
    return dict(action.choices)


def _option(action: argparse.Action) -> str:
    value = action.metavar or (f"{{{','.join(map(str, action.choices))}}}" if action.choices else action.dest.upper())
    if isinstance(value, tuple):
        value = " ".join(value)
    if not action.option_strings:
        return f"`{value}`"
    if action.nargs == 0:
        value = ""
    elif action.nargs in ("+", "*"):
        value = f"{value} ..."
    return ", ".join(f"`{option} {value}`".replace(" `", "`") for option in action.option_strings)


def _in_table(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|")


def _panel_phrases() -> dict[Any, str]:
    """Return the panel's table of remedies; its file asks Slicer for translations, and gets each text as it is."""
    source = (ROOT / "BrainFusion" / "BrainFusionSlicer" / "remedies.py").read_text(encoding="utf-8")
    names: dict[str, Any] = {"_": lambda text: text}
    exec(source.replace("from slicer.i18n import tr as _", ""), names)
    return dict(names["PHRASES"])


def _code(words: Sequence[str]) -> str:
    return ", ".join(f"`{word}`" for word in words)


def _limit(value: float | None) -> str:
    return "" if value is None else f"{value:g}"


def up_to_date(text: str, page: str) -> str:
    """Return the text of a page with all its lists made anew.

    Raises
    ------
    ListError
        There is no list of a name, or a list has no end or no beginning.
    """

    def made(block: re.Match[str]) -> str:
        name = block["name"]
        if name not in LISTS:
            raise ListError(f"{page}: there is no list {name!r}. Choose one of {', '.join(LISTS)}.")
        return f"{block[1]}{LISTS[name]()}\n{block[4]}"

    result, count = BLOCK.subn(made, text)
    if len(MARKS.findall(text)) != 2 * count:
        raise ListError(f"{page}: a list needs '<!-- list: NAME -->' before it and '<!-- end of list -->' after it.")
    return result


def pages(root: Path) -> list[Path]:
    """Return the pages that may hold lists."""
    return [root / "README.md", *sorted((root / "docs").glob("*.md"))]


def main(arguments: Sequence[str] | None = None, root: Path = ROOT) -> int:
    """Write the lists of all pages, or check them, and return the exit code."""
    parser = argparse.ArgumentParser(prog="python -m tools.lists", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--check", action="store_true", help="write nothing; fail if a list is out of date")
    check = parser.parse_args(arguments).check
    stale = []
    try:
        for page in pages(root):
            name = page.relative_to(root).as_posix()
            before = page.read_text(encoding="utf-8")
            after = up_to_date(before, name)
            if after != before:
                stale.append(name)
                if not check:
                    write_text(after, page)
    except ListError as error:
        print(error, file=sys.stderr)
        return 2
    if check and stale:
        print(f"{', '.join(stale)}: a list is out of date. Run: python -m tools.lists", file=sys.stderr)
        return 1
    if stale:
        print(f"written: {', '.join(stale)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
