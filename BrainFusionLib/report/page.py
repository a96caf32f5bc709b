"""Pages from the template files in ``templates/``: text is escaped, ready HTML is marked as such.

A file may hold several templates; each begins with ``<!-- template: name -->``. Values stand in them as ``$name``.
"""

from __future__ import annotations

import html
import json
import re
from collections.abc import Iterable
from dataclasses import asdict
from functools import cache
from pathlib import Path
from string import Template
from typing import TYPE_CHECKING, TypeAlias

from BrainFusionLib.printable import shown_lines
from BrainFusionLib.report.palette import DARK, LIGHT, PICTURE, declarations

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

FOLDER = Path(__file__).with_name("templates")
_BEGIN = re.compile(r"^<!-- template: (\S+) -->\n", re.MULTILINE)


class Html(str):
    """HTML, ready to stand in a page."""

    __slots__ = ()


Part: TypeAlias = "str | float | Iterable[Html]"


def render(template: str, **parts: Part) -> Html:
    """Fill in a template.

    Parameters
    ----------
    template
        Its name.
    parts
        A value for each of its names. `Html` stands as it is, several after each other; all else is text, and escaped.

    Raises
    ------
    TypeError
        A value is missing, or the template has no place for one.
    """
    found = _templates()[template]
    if set(found.get_identifiers()) != set(parts):
        raise TypeError(f"template {template} needs {sorted(found.get_identifiers())}; got {sorted(parts)}")
    return Html(found.substitute({name: _html(part) for name, part in parts.items()}))


def page(title: str, body: Html, script: str) -> Html:
    """Return a whole page: the style sheet, a body, and a script file, in one."""
    return Html(render("page", title=title, style=style_sheet(), body=body, script=raw(script)) + "\n")


def style_sheet() -> Html:
    """Return the style sheet of all pages."""
    return Html(
        Template(_text("style.css")).substitute(
            light=declarations(LIGHT), dark=declarations(DARK), picture=declarations(PICTURE)
        )
    )


def raw(file_name: str) -> Html:
    """Return a script file as it is."""
    return Html(_text(file_name))


def data(value: DataclassInstance) -> Html:
    """Return a dataclass as JSON that may stand in a script element."""
    return Html(json.dumps(asdict(value)).replace("<", "\\u003c"))


def _html(part: Part) -> str:
    if isinstance(part, Html):
        return part
    if isinstance(part, (str, int, float)):
        return html.escape(shown_lines(str(part)))
    return "".join(_html(piece) for piece in part)


@cache
def _templates() -> dict[str, Template]:
    found: dict[str, Template] = {}
    for path in sorted(FOLDER.glob("*.html")):
        pieces = _BEGIN.split(_text(path.name))
        found |= {name: Template(text.rstrip("\n")) for name, text in zip(pieces[1::2], pieces[2::2], strict=True)}
    return found


@cache
def _text(file_name: str) -> str:
    return (FOLDER / file_name).read_text(encoding="utf-8")
