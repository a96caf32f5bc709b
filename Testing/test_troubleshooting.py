"""What the page of messages quotes is what the program says."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
TABLE = (ROOT / "docs" / "troubleshooting.md").read_text(encoding="utf-8")
QUOTED = re.findall(r"^\| `([^`]+)` \|", TABLE, re.MULTILINE)


def sources():
    """All texts of the library and the module; strings that go over several lines are joined."""
    text = "\n".join(
        path.read_text(encoding="utf-8")
        for folder in ("BrainFusionLib", "BrainFusion")
        for path in sorted((ROOT / folder).rglob("*.py"))
    )
    return re.sub(r'"\s*\n\s*f?"', "", text)


@pytest.mark.parametrize("quoted", QUOTED)
def test_every_error_of_the_table_is_an_error_of_the_program(quoted):
    assert quoted in sources()


def test_the_table_of_messages_is_there():
    assert len(QUOTED) >= 12
