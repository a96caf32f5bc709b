"""Lists in README and docs, made from the library's tables."""

from __future__ import annotations

import pytest

pytest.importorskip("torch", reason="torch is not installed")

from tools import lists


def page(folder, text):
    (folder / "docs").mkdir(exist_ok=True)
    (folder / "README.md").write_text(text, encoding="utf-8")
    return folder


def block(name, lines=""):
    return f"before\n\n<!-- list: {name} -->\n{lines}<!-- end of list -->\n\nafter\n"


def test_lists_of_all_pages_are_up_to_date(capsys):
    assert lists.main(["--check"]) == 0, capsys.readouterr().err


def test_every_list_is_on_a_page():
    text = "".join(path.read_text(encoding="utf-8") for path in lists.pages(lists.ROOT))
    assert {found["name"] for found in lists.BLOCK.finditer(text)} == set(lists.LISTS)


def test_stale_list_is_reported_and_rewritten(tmp_path, capsys):
    root = page(tmp_path, block("formats", "| stale |\n"))
    assert lists.main(["--check"], root) == 1
    assert "README.md: a list is out of date. Run: python -m tools.lists" in capsys.readouterr().err
    assert lists.main([], root) == 0
    text = (root / "README.md").read_text(encoding="utf-8")
    assert "stale" not in text
    assert "| NIfTI | `.nii.gz`, `.nii` |" in text
    assert text.startswith("before\n\n<!--")
    assert text.endswith("-->\n\nafter\n")
    assert lists.main(["--check"], root) == 0


def test_every_argument_of_the_command_is_explained():
    assert "| |" not in lists.commands().replace("  ", " ")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (block("recipes"), "there is no list 'recipes'. Choose one of formats"),
        ("<!-- list: formats -->\n", "needs '<!-- list: NAME -->' before it"),
        ("<!-- end of list -->\n", "needs '<!-- list: NAME -->' before it"),
        (f"<!-- list: formats -->\n{block('formats')}", "needs '<!-- list: NAME -->' before it"),
    ],
)
def test_wrong_marks_are_refused(tmp_path, text, words, capsys):
    assert lists.main([], page(tmp_path, text)) == 2
    assert words in capsys.readouterr().err
    assert (tmp_path / "README.md").read_text(encoding="utf-8") == text
