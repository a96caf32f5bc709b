"""Ways to damage a file for `benchmarks.attack`: each takes a random generator and bytes, and returns other bytes."""

from __future__ import annotations

import bz2
import gzip
import json
import re
import zlib
from typing import Any

from benchmarks.attack_parts import Random


def _flipped(random: Random, content: bytes) -> bytes:
    changed = bytearray(content)
    for _ in range(random.integers(1, 9)):
        # The header is where a flip does most; half of the flips go there.
        end = min(len(changed), 400) if random.random() < 0.5 else len(changed)
        changed[random.integers(end)] ^= 1 << int(random.integers(8))
    return bytes(changed)


def _cut(random: Random, content: bytes) -> bytes:
    return content[: random.integers(1, len(content) + 1)]


def _moved(random: Random, content: bytes) -> bytes:
    start, end = sorted(random.integers(0, len(content) + 1, 2))
    return content[:start] + (content[end:] if random.random() < 0.5 else content[start:end] + content[start:])


def _other_number(random: Random, content: bytes) -> bytes:
    """Replace a number in the text of a header."""
    found = list(re.finditer(rb"-?\d+(\.\d+)?", content[:4000]))
    if not found:
        return _other_bytes(random, content)
    match = found[random.integers(len(found))]
    words = (b"0", b"-1", b"9" * 30, b"1e999", b"nan", b"99999", b"2147483647", b"", b"1 2 3 4", b"%n%s", b"1200")
    return content[: match.start()] + words[random.integers(len(words))] + content[match.end() :]


def _other_bytes(random: Random, content: bytes) -> bytes:
    """Replace two or four bytes by those of an extreme number: a length, a size, an offset."""
    width = int(random.choice([2, 4]))
    words = (
        b"\xff" * width,
        bytes(width),
        b"\xff" * (width - 1) + b"\x7f",
        b"\x7f" + b"\xff" * (width - 1),
        b"\x40\x06" * 2,
    )
    start = int(random.integers(min(len(content), 2000)))
    return content[:start] + words[random.integers(len(words))][:width] + content[start + width :]


def _long_field(random: Random, content: bytes) -> bytes:
    """Put thousands of letters into a line of the header."""
    start = int(random.integers(min(len(content), 800)))
    letters = (b"x", b"%d%n%s", b"(", b"1 ", b"\0", b"../", b"\n", b": ", b"9")
    return content[:start] + letters[random.integers(len(letters))] * int(10 ** random.uniform(1, 5)) + content[start:]


def _bomb(random: Random, content: bytes) -> bytes:
    """Put compressed zeros behind, or in the place of the voxels."""
    packed = (_ZEROS_GZIP, _ZEROS_ZLIB, bz2.compress(bytes(1 << 22)))[random.integers(3)]
    if random.random() < 0.5:
        return content + packed
    huge = re.sub(rb"(?im)^(sizes:|DimSize =).*", rb"\1 1200 1200 1200", content)
    at = max(huge.find(b"\n\n") + 2, huge.find(b"LOCAL\n") + 6)
    return (huge[:at] if at > 5 else content[: len(content) // 2]) + packed


def _other_word(random: Random, content: bytes) -> bytes:
    """Name another file, kind or format."""
    words = (b"/dev/zero", b"-", b"../a", b"LIST", b"%d%n 1 3 1", b"x" * 5000, b"", b"block", b"None", b"\xff\xfe")
    found = list(re.finditer(rb"(?m)(?<=[:=] )\S[^\n]*$", content[:4000]))
    if not found:
        return _flipped(random, content)
    match = found[random.integers(len(found))]
    return content[: match.start()] + words[random.integers(len(words))] + content[match.end() :]


_ZEROS_GZIP, _ZEROS_ZLIB = gzip.compress(bytes(1 << 26), 9, mtime=0), zlib.compress(bytes(1 << 26), 9)
DAMAGES = (
    _flipped, _flipped, _cut, _moved, _other_number, _other_number, _other_bytes, _long_field, _bomb, _other_word,
)  # fmt: skip


def _other_value(random: Random, content: bytes) -> bytes:
    """Put another value into JSON, or remove or double one; of other texts, double a line many times."""
    try:
        document = json.loads(content)
    except (ValueError, RecursionError):
        lines = content.split(b"\n")
        at = int(random.integers(len(lines)))
        return b"\n".join([*lines[:at], *lines[at : at + 1] * int(10 ** random.uniform(0.3, 4)), *lines[at + 1 :]])
    holders = [holder for holder in _holders(document) if holder]
    if not holders:
        return _flipped(random, content)
    holder = holders[random.integers(len(holders))]
    keys = list(holder) if isinstance(holder, dict) else list(range(len(holder)))
    key = keys[random.integers(len(keys))]
    what = random.integers(3)
    if what == 0:
        del holder[key]
    elif what == 1:
        holder[key] = _VALUES[random.integers(len(_VALUES))]
    else:
        holder[key] = [holder[key]] * int(10 ** random.uniform(0, 3))
    text = json.dumps(document)
    # Python writes neither of these itself.
    text = text.replace('"DEEP"', "[" * 5000 + "]" * 5000).replace('"HUGE"', "9" * 5000).replace('"LARGE"', "1e400")
    return text.encode("utf-8", "surrogatepass")


def _holders(value: Any) -> list[Any]:
    below = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    found = [value] if isinstance(value, dict | list) else []
    for one in below:
        found += _holders(one)
    return found


_VALUES: tuple[Any, ...] = (
    None, True, -1, 0, 1e308, float("nan"), "", "x" * 10_000, [], {}, "DEEP", "HUGE", "LARGE", "../../x", "/dev/zero",
    "\x00\x1b[31m", "\ud800", "\u202e", "NaN", 2**70, [[]], {"a": 1}, "a" * 300, ".", "dicom/fused", "\n",
)  # fmt: skip
TEXT_DAMAGES = (_other_value, _other_value, _other_value)
