"""The colours of the report, of the cohort's page and of the pictures, each defined once."""

from __future__ import annotations

from collections.abc import Mapping

Rgb = tuple[int, int, int]

# An orange that stands out from grey in all three common forms of colour blindness: outlines, cross, divider.
EDGE_RGB: Rgb = (255, 140, 0)
# Dark blue through orange to pale yellow: grows in lightness all the way, so it reads without colour vision.
COUNTS_RGB: tuple[Rgb, ...] = ((16, 20, 34), (86, 60, 140), (236, 120, 70), (255, 244, 190))

# By the name of the style sheet's variable. Red, amber and green are the verdict's.
LIGHT: Mapping[str, str] = {
    "page": "#ffffff", "text": "#1b1f24", "soft": "#5b6570", "line": "#d5dae0", "card": "#f4f6f8", "bar": "#46638a",
    "green": "#14713d", "amber": "#8a5a00", "red": "#b3261e",
}  # fmt: skip
DARK: Mapping[str, str] = {
    "page": "#14171b", "text": "#e6e9ed", "soft": "#9aa4af", "line": "#333a42", "card": "#1d2127", "bar": "#8fb0dd",
    "green": "#5fd08e", "amber": "#f2b84b", "red": "#ff8a80",
}  # fmt: skip
# Under and over pictures, in both.
PICTURE: Mapping[str, str] = {"picture": "#000000", "on-picture": "#ffffff", "edge": f"rgb{EDGE_RGB}"}


def declarations(colours: Mapping[str, str]) -> str:
    """Return colours as declarations of variables for a style sheet."""
    return " ".join(f"--{name}: {colour};" for name, colour in colours.items())
