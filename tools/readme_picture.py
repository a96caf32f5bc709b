"""Make the README's picture from the phantom: ``python -m tools.readme_picture``."""

from __future__ import annotations

from pathlib import Path

from BrainFusionLib import fuse
from BrainFusionLib.phantom import make_pair
from BrainFusionLib.report import write_readme_picture

PICTURE = Path(__file__).resolve().parents[1] / "docs" / "images" / "fused.png"


def main() -> None:
    """Register and fuse the phantom's CT and T1, and draw CT, MRI, fused and outlines side by side."""
    pair = make_pair(seed=3, rotation_deg=25, translation_mm=30)
    result = fuse(pair.ct, pair.mri)
    PICTURE.parent.mkdir(parents=True, exist_ok=True)
    write_readme_picture(result, pair.mri, PICTURE)
    print(f"{PICTURE}: {PICTURE.stat().st_size // 1000} kB")


if __name__ == "__main__":
    main()
