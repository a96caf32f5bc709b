"""No text in this repository uses words that were struck, because readers stopped at them."""

from __future__ import annotations

import re
import subprocess
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
SUFFIXES = {".py", ".md", ".ui", ".html", ".js", ".css", ".toml", ".c", ".json", ".txt", ".yaml"}
# The changes of the past keep their words; this file has to name the struck ones; the licence is not ours.
UNREAD = {"CHANGELOG.md", "LICENSE.txt", "Testing/test_language.py"}

# What was struck, and what stands in its place. Upper and lower case are the same, a space is any white space, line
# breaks with their comment signs included.
STRUCK = {
    r"\b(?:be|is|was|are|were) had\b": "is available, can be installed",
    r"\b(?:leave|leaves|leaving|left)(?: [\w`'=.*-]+){0,3} away\b": "omit",
    r"\b(?:lie|lies|lay|lying|fit|fits|fitted) on (?:each other|one another)\b": "overlap; can be aligned",
    r"\brooms?\b": "package",
    r"\bso-manieth\b": "every n-th",
    r"(?<!there\s)\bis no (?:image|volume|picture|label map|checkpoint|file|folder|DICOM|CT|MRI)\b": "is not a …",
    r"\blast words\b": "last output",
    r"\bmost suspicious\b": "largest misalignment",
    r"\bregion that matters\b": "registration mask",
    r"\blooking where the two fit\b": "checking the alignment",
    r"\bcan be trusted\b": "no sign of misalignment",
    r"\balignment looks right\b": "no sign of misalignment",
    r"\bspeaks? against\b": "a sign of misalignment",
    r"\bthings? wrong\b": "problem",
    r"\b(?:go|goes|gone|going|went) on with\b": "resume, continue",
    r"\bwon_back\b": "REGROW",
    r"(?-i:PATIENCE)": "TIMEOUT",  # the parameter of a learning-rate schedule has that name everywhere
    r"\bfurnish\w*\b": "allocate",
    r"(?<!are\s)(?<!is\s)\ball the same\b": "always",
    r"\bof ours there is not\b": "is left to …",
    r"\bputs? (?:a|the) CT and (?:a|the|an) MRI (?:[\w\s]+ )?together\b": "registers a CT to an MRI",
    r"\b(?:refuse[sd]?|told|tells?|said|says?|say) (?:it )?in words\b": "rejects with an explanation; explains",
    r"\bended by another program\b": "terminated",
    r"\bmm (?:back|up|down|left|right)(?:,| of the middle\b)": "L 4.0 P 0.0 S 6.0 mm",
    r"\breckoned with\b": "estimated",
}


def texts() -> dict[str, str]:
    """Return every text file of the repository, by its path."""
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard"], cwd=ROOT, capture_output=True, text=True
    )
    if listed.returncode != 0:
        pytest.skip("not a git repository: which files are ours is not known")
    names = [name for name in listed.stdout.splitlines() if Path(name).suffix in SUFFIXES and name not in UNREAD]
    return {name: (ROOT / name).read_text(encoding="utf-8") for name in names if (ROOT / name).is_file()}


@pytest.fixture(scope="module")
def all_texts() -> dict[str, str]:
    return texts()


@cache
def with_words_apart(text: str) -> str:
    return re.sub(r"(?<=\w)_(?=\w)", " ", text)


def occurrences(pattern: str, text: str) -> list[tuple[int, str]]:
    """Return the line and the words of each place where a pattern stands, also across the ends of lines."""
    spread = pattern.replace(" ", r"(?:[ \t]+|[ \t]*\r?\n[ \t]*(?:(?:#|//|\*|>|\d+\.|-)[ \t]+)?)")
    # In names of tests and other identifiers words are joined by underscores.
    joined = text if "_" in pattern else with_words_apart(text)
    found = re.finditer(spread, joined, re.IGNORECASE)
    return [(joined.count("\n", 0, place.start()) + 1, " ".join(place[0].split())) for place in found]


@pytest.mark.parametrize("pattern", STRUCK, ids=lambda pattern: re.sub(r"\W+", " ", pattern).strip()[:40])
def test_a_struck_phrase_appears_nowhere(all_texts: dict[str, str], pattern: str) -> None:
    found = [
        f"{name}:{line}: {words!r}" for name, text in all_texts.items() for line, words in occurrences(pattern, text)
    ]
    assert not found, f"write {STRUCK[pattern]!r} instead:\n" + "\n".join(found)


def test_phrases_are_found_across_lines_and_in_names() -> None:
    assert occurrences(r"\bcan be trusted\b", "# it can\n    # be trusted, and\n") == [(1, "can # be trusted")]
    assert occurrences(r"\bis no (?:image)\b", "def test_a_table_is_no_image():") == [(1, "is no image")]
    assert occurrences(r"\brooms?\b", "headroom, rooms") == [(1, "rooms")]
