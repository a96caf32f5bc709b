"""The one door for text to a terminal, a log, a table, a page or JSON: nothing in it moves, colours or forges anything.

Names of files and what headers say may hold any character. Control characters move or retitle a terminal, line breaks
forge a line, others turn the direction of what follows. Names that are not UTF-8 come as surrogates, which no stream
takes.
"""

from __future__ import annotations

import os
import re

_REPLACEMENT = "\N{REPLACEMENT CHARACTER}"
# Control characters (C0, C1), line and paragraph separators, what turns the direction of text, and surrogates.
_UNSEEN = (*range(0x20), *range(0x7F, 0xA0), *range(0x2028, 0x202F), *range(0x2066, 0x206A), *range(0xD800, 0xE000))
_ON_ONE_LINE = dict.fromkeys(_UNSEEN, _REPLACEMENT)
_ON_LINES = {letter: _REPLACEMENT for letter in _UNSEEN if letter not in (0x09, 0x0A)}
_SURROGATE = re.compile("[\ud800-\udfff]")
# Those that JSON may hold as they are.
_UNSEEN_IN_JSON = re.compile("[\x7f-\x9f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")


def shown(text: str | os.PathLike[str]) -> str:
    """Return a name, a path or a text so that it can be shown on one line: what must not be shown is replaced."""
    return os.fspath(text).translate(_ON_ONE_LINE)


def shown_lines(text: str) -> str:
    """Return a text as `shown` does, but with its line breaks and tabs."""
    return text.translate(_ON_LINES)


def is_decoded(text: str) -> bool:
    """Return whether all bytes of a text were UTF-8."""
    return _SURROGATE.search(text) is None


def shown_json(text: str) -> str:
    """Return JSON in which such characters are escaped: it means the same."""
    return _UNSEEN_IN_JSON.sub(lambda found: f"\\u{ord(found[0]):04x}", text)
