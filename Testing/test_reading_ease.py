"""Sentences of the pages are short, and so is the README."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
# Not the changes, which are a list.
PAGES = ("README.md", "CONTRIBUTING.md", "SECURITY.md", *sorted(f"docs/{path.name}" for path in ROOT.glob("docs/*.md")))
MEAN_WORDS, MOST_WORDS, README_WORDS = 25, 40, 760


def prose(page: str) -> str:
    """The text of a page without code, tables, pictures, headings and addresses."""
    text = re.sub(r"```.*?```", "", (ROOT / page).read_text(encoding="utf-8"), flags=re.DOTALL)
    text = re.sub(r"^(\||!|#).*$", "", text, flags=re.MULTILINE)
    return re.sub(r"\]\([^)]*\)", "]", text)


def lengths(text: str) -> list[int]:
    """Words of each sentence; a paragraph or an item of a list ends one, too."""
    blocks = re.split(r"\n\s*\n|\n(?=\s*(?:[-*]|\d+\.) )", text)
    parts = [part for block in blocks for part in re.split(r"(?<=[.!?])\s", " ".join(block.split()))]
    return [count for part in parts if (count := len(re.findall(r"\w[\w'’-]*", part))) > 1]


@pytest.mark.parametrize("page", PAGES)
def test_sentences_are_short(page):
    words = lengths(prose(page))
    assert sum(words) / len(words) < MEAN_WORDS
    assert max(words) <= MOST_WORDS


def test_the_readme_is_read_in_a_few_minutes():
    assert len((ROOT / "README.md").read_text(encoding="utf-8").split()) <= README_WORDS


def test_a_long_sentence_is_found():
    assert lengths("Two words. " + "word " * 30 + ".\n\n- an item of five words") == [2, 30, 5]
