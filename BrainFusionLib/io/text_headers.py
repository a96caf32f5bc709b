"""What the headers of NRRD and MetaImage, which are text, have in common."""

from __future__ import annotations

from typing import Any

# Far more than any header written by a program; keeps a file of another kind from being read whole as one line.
LONGEST_HEADER = 1 << 16

NO_SPACING = "the header gives no voxel spacing: 1 mm was assumed along every axis."
NO_AXES = "the header gives no orientation: assumed that i runs to the left, j to the back and k to the head (LPS)."

PURPOSE = "BrainFusion: for research and planning review, not for diagnosis"


def exact(numbers: Any, separator: str) -> str:
    """Return numbers as text of 17 digits, which brings each of them back to the last bit."""
    return separator.join(f"{float(n):.17g}" for n in numbers)
